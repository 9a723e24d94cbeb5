//! Handing in signed acts: what labs and agencies have in common.
//!
//! **Invariant:** an act counts as recorded only after the log's proof of a record that carries the very payload handed in.

use std::{sync::Arc, time::Duration};

use anteroom_proto::{
    ledger::{receipt::VerifiedRecord, scope::Scope},
    names::{Digest, GrantId, LockId, OrgId},
    rpc::{
        ContactsSet, Disposed, GetDossierRequest, GrantAccepted, GrantDeclined, GrantOffered, GrantPaused,
        GrantRelinquished, GrantResumed, GrantSummary, GrantWithdrawn, HoldReleased, HoldSet, KeySetChanged,
        LineBudgetSet, ListGrantsRequest, LockLifted, LockSet, MembershipStated, ModelRegistered, OrganisationEnrolled,
        ReaderAppointed, RosterPublished, RulesAdded, RunCredentialIssued, SignedStatement, SubmitReply, SubmitRequest,
        SuccessionCountersigned, SuccessionOffered, WatchListSet, WhoAmIReply, WhoAmIRequest, acts_client::ActsClient,
        audit_client::AuditClient, directory_client::DirectoryClient,
    },
    statement::{
        acts::{Appointment, Decline, Lift, Lock, LockTarget, Membership, Resume, Stop, StopKind},
        envelope::{self, Signer},
        key_set::Enrolment,
    },
    time::At,
};
use tonic::transport::Channel;

use crate::{
    channel::MESSAGE_BYTES_MAX,
    error::{Error, RefusalClass, VerificationError},
    log::{Anchoring, LogView},
    signer::SharedSigner,
    system,
    verify::{
        dossier::{DossierError, Pins, VerifiedDossier, VerifiedOffer},
        scope::TagKeys,
    },
};

/// How often an end is handed in before the caller is told that it is not on record.
const END_TRIES_MAX: u32 = 7;
/// How long to wait after the first failure; the waits double, to half a minute in all.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// An act on record.
#[derive(Clone, Debug)]
#[must_use]
pub struct Recorded {
    /// The record, proven.
    pub record: VerifiedRecord,
    /// How things stand after it, for example the grant's phase, in the broker's words.
    pub standing: String,
    /// Whether this very act was in force already.
    pub repeated: bool,
    /// Whether the record's checkpoint was shown to belong to the log seen so far.
    pub anchoring: Anchoring,
}

/// A connection of an organisation that acts.
#[derive(Clone, Debug)]
pub struct Organisation {
    org: OrgId,
    acts: ActsClient<Channel>,
    directory: DirectoryClient<Channel>,
    audit: AuditClient<Channel>,
    log: Arc<LogView>,
    keys: TagKeys,
}

impl Organisation {
    /// Over this channel, as this organisation, believing this log. `keys` are the tag keys of the scopes it may read; those of
    /// grants are added as their terms go by.
    #[must_use]
    pub fn new(channel: Channel, org: OrgId, log: Arc<LogView>, keys: TagKeys) -> Self {
        let acts = ActsClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let directory = DirectoryClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Self { org, acts, directory, audit: AuditClient::new(channel), log, keys }
    }

    /// Which organisation.
    #[must_use]
    pub const fn org(&self) -> &OrgId {
        &self.org
    }

    /// Adds the tag keys that follow from this organisation's enrolment.
    pub fn learn_enrolment(&mut self, enrolment: &Enrolment) {
        let org = &enrolment.org;
        self.keys.add(Scope::Organisation(org.clone()), &enrolment.nonce);
        self.keys.add(Scope::Roster(org.clone()), &enrolment.roster_nonce);
        self.keys.add(Scope::Reads(org.clone()), &enrolment.reads_nonce);
    }

    /// Adds the tag key of a grant.
    pub fn learn_grant(&mut self, grant: GrantId, nonce: &Digest) {
        self.keys.add(Scope::Grant(grant), nonce);
    }

    /// How the broker knows this connection.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn who_am_i(&mut self) -> Result<WhoAmIReply, Error> {
        Ok(self.directory.who_am_i(WhoAmIRequest {}).await?.into_inner())
    }

    /// The newest grants that this organisation is party to, at most 500.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn grants(&mut self) -> Result<Vec<GrantSummary>, Error> {
        let request = ListGrantsRequest { limit: 500, after: Vec::new() };
        Ok(self.directory.list_grants(request).await?.into_inner().grants)
    }

    /// Fetches and verifies an offer with its terms, and learns the grant's tag key.
    ///
    /// # Errors
    /// The broker refuses, or the offer does not hold.
    pub async fn offer(&mut self, grant: GrantId, pins: &Pins) -> Result<VerifiedOffer, Error> {
        let dossier = self.raw_dossier(grant).await?;
        let offer = VerifiedOffer::verify(&dossier, pins)?;
        if offer.terms().grant != grant {
            return Err(VerificationError::Other("grant").into());
        }
        self.learn_grant(grant, &offer.terms().nonce);
        Ok(offer)
    }

    /// Fetches and verifies everything that an accepted grant rests on, and learns its tag key.
    ///
    /// # Errors
    /// The broker refuses, or the dossier does not hold.
    pub async fn dossier(&mut self, grant: GrantId, pins: &Pins) -> Result<VerifiedDossier, Error> {
        let dossier = self.raw_dossier(grant).await?;
        let dossier = VerifiedDossier::verify(&dossier, pins)?;
        if dossier.grant() != grant {
            return Err(VerificationError::Other("grant").into());
        }
        self.learn_grant(grant, &dossier.terms().nonce);
        Ok(dossier)
    }

    async fn raw_dossier(&mut self, grant: GrantId) -> Result<anteroom_proto::rpc::Dossier, Error> {
        let request = GetDossierRequest { grant: grant.as_bytes().to_vec() };
        Ok(self.directory.get_dossier(request).await?.into_inner())
    }

    /// Enrols the organisation: its enrolment statement and the first version of its key set, both signed by its root.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn enrol(&mut self, enrolment: SignedStatement, key_set: SignedStatement) -> Result<Recorded, Error> {
        let read: Enrolment = envelope::read_json(&enrolment)?;
        if read.org != self.org || read.key_set != Digest::of(&key_set.payload) {
            return Err(VerificationError::Other("organisation").into());
        }
        self.learn_enrolment(&read);
        self.send(SubmitRequest { statement: Some(enrolment), attachment: Vec::new(), key_set: Some(key_set) }).await
    }

    /// Puts the next version of the key set, signed by the present root, into force.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn change_key_set(&mut self, next: SignedStatement) -> Result<Recorded, Error> {
        self.submit(next, Vec::new()).await
    }

    /// Pauses a grant: one signature of a signer or stop key. The identifier returned is what resuming names.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn pause(
        &mut self,
        grant: GrantId,
        reason: &str,
        signer: &SharedSigner,
    ) -> Result<(LockId, Recorded), Error> {
        self.stop(StopKind::Pause, grant, reason, signer).await
    }

    /// Ends this side's pause.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn resume(
        &mut self,
        grant: GrantId,
        pause: LockId,
        reason: &str,
        signers: &[SharedSigner],
    ) -> Result<Recorded, Error> {
        let act = Resume { grant, by: self.org.clone(), pause, reason: reason.to_owned() };
        self.sign_and_submit(&act, signers, Vec::new()).await
    }

    /// Sets a lock: one signature of a signer or stop key.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn lock(
        &mut self,
        target: LockTarget,
        reason: &str,
        signer: &SharedSigner,
    ) -> Result<(LockId, Recorded), Error> {
        let id = system::lock_id()?;
        let act = Lock { id, by: self.org.clone(), target, reason: reason.to_owned() };
        let recorded = self.insist(&act, signer).await?;
        Ok((id, recorded))
    }

    /// Lifts a lock that this organisation set.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn lift(&mut self, lock: LockId, reason: &str, signers: &[SharedSigner]) -> Result<Recorded, Error> {
        let act = Lift { lock, by: self.org.clone(), reason: reason.to_owned() };
        self.sign_and_submit(&act, signers, Vec::new()).await
    }

    /// Appoints a reader of a grant, or without one of this organisation's own scope.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn appoint(
        &mut self,
        reader: OrgId,
        grant: Option<GrantId>,
        until: At,
        signers: &[SharedSigner],
    ) -> Result<Recorded, Error> {
        let act = Appointment { by: self.org.clone(), reader, grant, until_ms: until };
        self.sign_and_submit(&act, signers, Vec::new()).await
    }

    /// States, as a sponsor, that an agency is its member; signed by root keys.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn state_membership(
        &mut self,
        agency: OrgId,
        key_set: Digest,
        roots: &[SharedSigner],
    ) -> Result<Recorded, Error> {
        let act = Membership { sponsor: self.org.clone(), agency, key_set };
        self.sign_and_submit(&act, roots, Vec::new()).await
    }

    /// Signs and hands in a stop.
    pub(crate) async fn stop(
        &mut self,
        stop: StopKind,
        grant: GrantId,
        reason: &str,
        signer: &SharedSigner,
    ) -> Result<(LockId, Recorded), Error> {
        let id = system::lock_id()?;
        let act = Stop { stop, grant, by: self.org.clone(), id, reason: reason.to_owned() };
        let recorded = self.insist(&act, signer).await?;
        Ok((id, recorded))
    }

    /// Signs a payload with each signer, off the async threads, and hands it in.
    pub(crate) async fn sign_and_submit<P>(
        &mut self,
        payload: &P,
        signers: &[SharedSigner],
        attachment: Vec<u8>,
    ) -> Result<Recorded, Error>
    where
        P: anteroom_proto::statement::Payload + Clone + Send + 'static,
    {
        let statement = sign(payload.clone(), signers).await?;
        self.submit(statement, attachment).await
    }

    /// Signs an end with one key and hands it in until the broker has it on record: an end must not be lost to a broken
    /// connection or a full disk. It is valid at any head of the log, so repeating it is always right.
    async fn insist<P>(&mut self, payload: &P, signer: &SharedSigner) -> Result<Recorded, Error>
    where
        P: anteroom_proto::statement::Payload + Clone + Send + 'static,
    {
        let statement = sign(payload.clone(), std::slice::from_ref(signer)).await?;
        self.submit_end(statement).await
    }

    /// Hands in an end that is signed already, again and again for half a minute if the broker cannot take it.
    ///
    /// # Errors
    /// The broker refuses or still cannot be reached, or the proof does not hold.
    pub async fn submit_end(&mut self, statement: SignedStatement) -> Result<Recorded, Error> {
        let mut wait = FIRST_WAIT;
        for _ in 1..END_TRIES_MAX {
            match self.submit(statement.clone(), Vec::new()).await {
                Err(error) if may_pass(&error) => {
                    tracing::warn!(%error, "an end is not on record yet; handing it in again");
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2);
                }
                done => return done,
            }
        }
        self.submit(statement, Vec::new()).await
    }

    /// Hands in a signed act, for example one whose signatures were collected in a file.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn submit(&mut self, statement: SignedStatement, attachment: Vec<u8>) -> Result<Recorded, Error> {
        self.send(SubmitRequest { statement: Some(statement), attachment, key_set: None }).await
    }

    async fn send(&mut self, request: SubmitRequest) -> Result<Recorded, Error> {
        let statement = request.statement.clone().ok_or(VerificationError::Missing("statement"))?;
        let reply = self.ask(request).await?;
        self.believe(&statement, reply).await
    }

    /// Acts may be handed in twice: one in force is not recorded again, so a broken connection is no reason to give up.
    pub(crate) async fn ask(&mut self, request: SubmitRequest) -> Result<SubmitReply, Error> {
        let reply = match self.acts.submit(request.clone()).await.map_err(Error::from) {
            Err(Error::Transport(_)) => self.acts.submit(request).await.map_err(Error::from),
            first => first,
        };
        Ok(reply?.into_inner())
    }

    /// Holds what the broker answered to `statement` against the log.
    pub(crate) async fn believe(&self, statement: &SignedStatement, reply: SubmitReply) -> Result<Recorded, Error> {
        let proven = reply.record.ok_or(VerificationError::Missing("record"))?;
        let record = self.keys.verify(&proven, self.log.trust())?;
        let carried = carried(&record)?;
        // Whoever repeats an act may have signed it anew; what is in force is its payload.
        let same = |held: &SignedStatement| {
            held.payload_type == statement.payload_type
                && (held.payload == statement.payload || (reply.repeated && same_end(held, statement)))
        };
        if !carried.iter().any(same) {
            return Err(VerificationError::Other("act").into());
        }
        let anchoring = self.log.accept(&self.audit, &[record.checkpoint()]).await?;
        Ok(Recorded { record, standing: reply.standing, repeated: reply.repeated, anchoring })
    }
}

/// Signs a payload with each signer on a thread that may wait for a card.
pub(crate) async fn sign<P>(payload: P, signers: &[SharedSigner]) -> Result<SignedStatement, Error>
where
    P: anteroom_proto::statement::Payload + Send + 'static,
{
    let signers = signers.to_vec();
    let signed = tokio::task::spawn_blocking(move || {
        let signers: Vec<&dyn Signer> = signers.iter().map(|signer| signer as &dyn Signer).collect();
        envelope::sign_json(&payload, &signers)
    });
    Ok(signed.await.map_err(|_| Error::Interrupted)??)
}

/// Whether two statements end the same grant in the same way: whoever repeats an end from another machine signs another
/// identifier and another reason, and the end is in force all the same.
fn same_end(held: &SignedStatement, sent: &SignedStatement) -> bool {
    if let (Ok(held), Ok(sent)) = (envelope::read_json::<Stop>(held), envelope::read_json::<Stop>(sent)) {
        let ends = matches!(held.stop, StopKind::Withdraw | StopKind::Relinquish);
        return ends && (held.stop, held.grant, &held.by) == (sent.stop, sent.grant, &sent.by);
    }
    match (envelope::read_json::<Decline>(held), envelope::read_json::<Decline>(sent)) {
        (Ok(held), Ok(sent)) => held.grant == sent.grant,
        _ => false,
    }
}

/// Whether handing an end in again may succeed where it failed with `error`.
fn may_pass(error: &Error) -> bool {
    let refused = error.refused().map(crate::error::Refused::class);
    matches!(error, Error::Transport(_)) || refused == Some(RefusalClass::Unavailable)
}

/// The statements that a record of an act carries.
pub(crate) fn carried(record: &VerifiedRecord) -> Result<Vec<SignedStatement>, Error> {
    macro_rules! event {
        ($type:ty, $($field:ident),+) => {{
            let event: $type = record.opened().event().map_err(anteroom_proto::ledger::receipt::ReceiptError::from)?;
            vec![$(event.$field),+]
        }};
    }
    let statements = match record.header().kind {
        8 => event!(OrganisationEnrolled, enrolment, key_set),
        9 => event!(KeySetChanged, key_set),
        10 => event!(MembershipStated, statement),
        11 => event!(ModelRegistered, statement),
        12 => event!(RosterPublished, statement),
        15 => event!(ReaderAppointed, statement),
        16 => event!(HoldSet, statement),
        17 => event!(HoldReleased, statement),
        18 => event!(Disposed, statement),
        19 => event!(LineBudgetSet, statement),
        20 => event!(GrantOffered, offer),
        21 => event!(GrantAccepted, acceptance),
        22 => event!(GrantDeclined, statement),
        25 => event!(GrantPaused, statement),
        26 => event!(GrantResumed, statement),
        27 => event!(GrantWithdrawn, statement),
        28 => event!(GrantRelinquished, statement),
        30 => event!(RunCredentialIssued, statement),
        31 => event!(LockSet, statement),
        32 => event!(LockLifted, statement),
        33 => event!(RulesAdded, statement),
        34 => event!(WatchListSet, statement),
        38 => event!(SuccessionOffered, statement),
        39 => event!(SuccessionCountersigned, statement),
        60 => event!(ContactsSet, statement),
        _ => Vec::new(),
    };
    Ok(statements.into_iter().flatten().collect())
}

/// An offer must not be accepted under terms that name another agency.
pub(crate) fn demand_party(found: &OrgId, own: &OrgId) -> Result<(), Error> {
    if found == own {
        Ok(())
    } else {
        let side = crate::verify::dossier::Side::Agency;
        Err(DossierError::Organisation(side).into())
    }
}
