//! An agency's side: whom it sends, what it accepts, and how it gives access back.
//!
//! **Invariant:** nothing is accepted before the terms' bytes, the offer's signatures under the pinned lab and the agency's own
//! fingerprint in the terms were checked here, on the agency's machine.

mod people;

use std::sync::Arc;

use anteroom_proto::{
    names::{Digest, GrantId, OrgId},
    rpc::SignedStatement,
    statement::{
        acts::{Acceptance, Decline, RunCredential, StopKind},
        envelope,
        roster::{PrivatePerson, Roster},
    },
    time::At,
};
use tonic::transport::Channel;

pub use people::{NewPerson, RosterDraft};

use crate::{
    acts::{Organisation, Recorded, demand_party, sign},
    error::Error,
    log::LogView,
    signer::SharedSigner,
    verify::{dossier::VerifiedOffer, scope::TagKeys},
};

/// An agency's connection.
#[derive(Clone, Debug)]
pub struct Agency(Organisation);

impl Agency {
    /// Over this channel, as this agency, believing this log.
    #[must_use]
    pub fn new(channel: Channel, org: OrgId, log: Arc<LogView>, keys: TagKeys) -> Self {
        Self(Organisation::new(channel, org, log, keys))
    }

    /// What an agency has in common with other organisations: enrolling, pausing, locking, appointing, fetching offers.
    pub const fn organisation(&mut self) -> &mut Organisation {
        &mut self.0
    }

    /// Publishes a roster, its private part for the agency's own eyes. The digest is what terms name.
    ///
    /// # Errors
    /// The private part does not open the roster's commitments, the broker refuses, or the proof does not hold.
    pub async fn publish_roster(
        &mut self,
        roster: &Roster,
        private: &[PrivatePerson],
        signers: &[SharedSigner],
    ) -> Result<(Digest, Recorded), Error> {
        let statement = sign(roster.clone(), signers).await?;
        self.publish_signed_roster(statement, private).await
    }

    /// Publishes a roster that was signed elsewhere.
    ///
    /// # Errors
    /// As [`Agency::publish_roster`].
    pub async fn publish_signed_roster(
        &mut self,
        statement: SignedStatement,
        private: &[PrivatePerson],
    ) -> Result<(Digest, Recorded), Error> {
        let roster = Roster::parse(&statement)?;
        roster.check_private(private)?;
        demand_party(&roster.org, self.0.org())?;
        let attachment = serde_json::to_vec(private)
            .map_err(|error| anteroom_proto::statement::StatementError::Payload(error.to_string()))?;
        let digest = Digest::of(&statement.payload);
        let recorded = self.0.submit(statement, attachment).await?;
        Ok((digest, recorded))
    }

    /// What an agency's signers sign to accept an offer, where several sign one after the other.
    #[must_use]
    pub fn acceptance_of(offer: &VerifiedOffer) -> Acceptance {
        let terms = offer.terms();
        Acceptance {
            grant: terms.grant,
            terms: offer.terms_digest(),
            offer: offer.offer_digest(),
            agency: terms.agency.org.clone(),
            key_set: terms.agency.key_set,
        }
    }

    /// Accepts an offer. Only a [`VerifiedOffer`] can be: its terms, signatures and fingerprints held on this machine.
    ///
    /// # Errors
    /// The terms name another agency, the broker refuses, or the proof does not hold.
    pub async fn accept(&mut self, offer: &VerifiedOffer, signers: &[SharedSigner]) -> Result<Recorded, Error> {
        let terms = offer.terms();
        demand_party(&terms.agency.org, self.0.org())?;
        let act = Self::acceptance_of(offer);
        self.0.learn_grant(terms.grant, &terms.nonce);
        self.0.sign_and_submit(&act, signers, Vec::new()).await
    }

    /// Declines an offer.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn decline(&mut self, grant: GrantId, reason: &str, signer: &SharedSigner) -> Result<Recorded, Error> {
        let act = Decline { grant, reason: reason.to_owned() };
        self.0.sign_and_submit(&act, std::slice::from_ref(signer), Vec::new()).await
    }

    /// Gives a grant back for good, with one signature of a signer or stop key.
    ///
    /// # Errors
    /// The broker cannot be reached, or the proof does not hold.
    pub async fn relinquish(&mut self, grant: GrantId, reason: &str, signer: &SharedSigner) -> Result<Recorded, Error> {
        let (_, recorded) = self.0.stop(StopKind::Relinquish, grant, reason, signer).await?;
        Ok(recorded)
    }

    /// Lets a workload's key act in one run; signed by a rostered person, whose card will do. The digest is what claims name.
    ///
    /// # Errors
    /// The broker refuses, or the proof does not hold.
    pub async fn issue_credential(
        &mut self,
        credential: &RunCredential,
        person: &SharedSigner,
    ) -> Result<(Digest, Recorded), Error> {
        let statement = sign(credential.clone(), std::slice::from_ref(person)).await?;
        let digest = Digest::of(&statement.payload);
        let recorded = self.0.submit(statement, Vec::new()).await?;
        Ok((digest, recorded))
    }

    /// Renews a credential for the same run and workload from `start` on, for as long as the one before.
    ///
    /// # Errors
    /// The statement is no credential, the broker refuses, or the proof does not hold.
    pub async fn renew_credential(
        &mut self,
        present: &SignedStatement,
        start: At,
        person: &SharedSigner,
    ) -> Result<(Digest, Recorded), Error> {
        let present: RunCredential = envelope::read_json(present)?;
        let length = present.end_ms.since(present.start_ms);
        let next = RunCredential { start_ms: start, end_ms: start.plus_ms(length), ..present };
        self.issue_credential(&next, person).await
    }
}
