//! What a grant rests on, checked without asking anybody: terms, both consents, both key sets, the roster, the credentials.
//!
//! The fingerprints of both organisations' key sets were compared out of band and are pinned here; everything else follows from
//! signatures. So a broker that accepts in an agency's name, adds a person or lets its own key make calls is found out.
//!
//! **Invariant:** a [`VerifiedDossier`] exists only after all of that held. What it cannot know is what is newest: an operator
//! can withhold a key-set version or a lock, and whoever reads the organisations' scopes finds that.

mod added;
mod error;
mod succession;

use anteroom_policy::rules::Added;
use anteroom_proto::{
    ledger::{
        note::{KeyName, VerifierKey},
        scope::{Scope, TagKey},
    },
    names::{Digest, GrantId, ModelLine, OrgId},
    rpc::{CallClaim, Dossier, GrantSummary, OutcomeClaim, SignedStatement},
    statement::{
        StatementError,
        acts::{Acceptance, CREDENTIAL_MS_MAX, Offer, RunCredential},
        envelope,
        key::Algorithm,
        key_set::{self, KeyRole, KeySet, OrgKind},
        roster::{Person, Roster},
        terms::{Party, Terms},
    },
    time::{At, Window},
};

pub use self::{
    error::{ClaimError, CredentialFault, DossierError, Side},
    succession::HeldSuccession,
};

/// Most key-set versions that are followed.
pub const VERSIONS_MAX: usize = 256;
/// Most run credentials in a dossier.
pub const CREDENTIALS_MAX: usize = 4_096;

/// The fingerprints a verifier compared out of band.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pins {
    /// Of the lab's key set, at any version up to the one that the terms name.
    pub lab: Digest,
    /// Of the agency's key set, at any version up to the one that the terms name.
    pub agency: Digest,
}

/// An organisation's key sets from the pinned version on.
#[derive(Clone, Debug)]
pub struct Keys {
    versions: Vec<(Digest, KeySet)>,
    named: usize,
}

impl Keys {
    /// The newest version at hand.
    #[must_use]
    pub fn newest(&self) -> &KeySet {
        // The vector is never empty; the named version stands in it.
        self.versions.last().map_or(self.named(), |(_, set)| set)
    }

    /// The version that the terms name.
    #[expect(clippy::indexing_slicing, reason = "the position was found in this very vector, which nothing changes")]
    #[must_use]
    pub fn named(&self) -> &KeySet {
        &self.versions[self.named].1
    }

    /// The keys by which the organisation cosigns checkpoints of the log named `origin`, of every version from the named one on.
    #[must_use]
    pub fn witnesses(&self, origin: &KeyName) -> Vec<VerifierKey> {
        self.versions.iter().skip(self.named).flat_map(|(_, set)| set.witnesses(origin)).collect()
    }

    /// Checks a signature by one key in `role` of any version from the named one on.
    fn demand_since(&self, statement: &SignedStatement, role: KeyRole) -> Result<(), StatementError> {
        let mut first = None;
        for (_, set) in self.versions.iter().skip(self.named) {
            match set.demand(statement, role) {
                Ok(()) => return Ok(()),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(StatementError::Signature))
    }

    fn follow(side: Side, statements: &[SignedStatement], pinned: Digest, party: &Party) -> Result<Self, DossierError> {
        if statements.len() > VERSIONS_MAX {
            return Err(DossierError::Versions(side));
        }
        let mut versions: Vec<(Digest, KeySet)> = Vec::new();
        let from = statements.iter().position(|statement| key_set::fingerprint(statement) == pinned);
        let rest = statements.get(from.unwrap_or(statements.len())..);
        let mut own: Option<&SignedStatement> = None;
        for statement in rest.unwrap_or(&[]) {
            let next = match (own, versions.last()) {
                (Some(own), Some((_, set))) => set.next(own, statement),
                _ => key_set::follow(std::slice::from_ref(statement), pinned),
            };
            let set = next.map_err(|why| DossierError::Keys { side, why })?;
            versions.push((key_set::fingerprint(statement), set));
            own = Some(statement);
        }
        let named = versions
            .iter()
            .position(|(fingerprint, _)| *fingerprint == party.key_set)
            .ok_or(DossierError::Fingerprint { side, named: party.key_set })?;
        let keys = Self { versions, named };
        let of_kind = match side {
            Side::Lab => keys.named().kind == OrgKind::Lab,
            Side::Agency => matches!(keys.named().kind, OrgKind::Agency | OrgKind::Partner),
        };
        if keys.named().org == party.org && of_kind { Ok(keys) } else { Err(DossierError::Organisation(side)) }
    }
}

/// An offer whose terms, signatures and fingerprints hold: what an agency looks at before it accepts.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifiedOffer {
    terms: Terms,
    terms_digest: Digest,
    offer_digest: Digest,
    lab_keys: Keys,
    agency_keys: Keys,
}

impl VerifiedOffer {
    /// Verifies a dossier as far as it goes before acceptance.
    ///
    /// # Errors
    /// The terms, a key set or the offer does not hold.
    pub fn verify(dossier: &Dossier, pins: &Pins) -> Result<Self, DossierError> {
        let terms = Terms::parse(&dossier.terms).map_err(DossierError::Terms)?;
        let terms_digest = Digest::of(&dossier.terms);
        let lab_keys = Keys::follow(Side::Lab, &dossier.lab_key_sets, pins.lab, &terms.lab)?;
        let agency_keys = Keys::follow(Side::Agency, &dossier.agency_key_sets, pins.agency, &terms.agency)?;
        let statement = dossier.offer.as_ref().ok_or(DossierError::NoOffer)?;
        let offer: Offer = envelope::read_json(statement).map_err(DossierError::Offer)?;
        demand_equal(offer.grant, terms.grant, "grant").map_err(DossierError::OfferMismatch)?;
        demand_equal(offer.terms, terms_digest, "terms").map_err(DossierError::OfferMismatch)?;
        demand_equal(&offer.lab, &terms.lab.org, "lab").map_err(DossierError::OfferMismatch)?;
        demand_equal(offer.key_set, terms.lab.key_set, "key_set").map_err(DossierError::OfferMismatch)?;
        lab_keys.named().demand(statement, KeyRole::Signer).map_err(DossierError::Offer)?;
        added::two_people(&terms, statement, &lab_keys)?;
        Ok(Self { terms, terms_digest, offer_digest: Digest::of(&statement.payload), lab_keys, agency_keys })
    }

    /// The terms.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// SHA-256 of the terms' bytes.
    #[must_use]
    pub const fn terms_digest(&self) -> Digest {
        self.terms_digest
    }

    /// SHA-256 of the offer's payload.
    #[must_use]
    pub const fn offer_digest(&self) -> Digest {
        self.offer_digest
    }

    /// The lab's keys.
    #[must_use]
    pub const fn lab_keys(&self) -> &Keys {
        &self.lab_keys
    }

    /// The agency's keys.
    #[must_use]
    pub const fn agency_keys(&self) -> &Keys {
        &self.agency_keys
    }
}

/// A run credential signed by a person on the roster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldCredential {
    /// Digest of its payload, by which claims name it.
    pub digest: Digest,
    /// What it says.
    pub credential: RunCredential,
}

/// Everything signed that a grant rests on, verified.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifiedDossier {
    offer: VerifiedOffer,
    roster: Roster,
    credentials: Vec<HeldCredential>,
    builds: succession::Builds,
    window: Option<Window>,
    added: Vec<Added>,
}

impl VerifiedDossier {
    /// Verifies a dossier against the pinned fingerprints.
    ///
    /// # Errors
    /// Anything in it does not hold; the error names the first thing found.
    pub fn verify(dossier: &Dossier, pins: &Pins) -> Result<Self, DossierError> {
        let offer = VerifiedOffer::verify(dossier, pins)?;
        verify_acceptance(dossier, &offer)?;
        let roster = verify_roster(dossier, &offer)?;
        if dossier.credentials.len() > CREDENTIALS_MAX {
            return Err(DossierError::Credentials(dossier.credentials.len()));
        }
        let credentials =
            dossier.credentials.iter().map(|statement| verify_credential(statement, &offer.terms, &roster));
        let credentials = credentials.collect::<Result<_, _>>()?;
        let builds = succession::verify(dossier, &offer)?;
        let window = match &dossier.summary {
            Some(summary) => stated_window(summary, &offer.terms)?,
            None => None,
        };
        let added = added::verify(dossier, &offer)?;
        Ok(Self { offer, roster, credentials, builds, window, added })
    }

    /// The grant.
    #[must_use]
    pub const fn grant(&self) -> GrantId {
        self.offer.terms.grant
    }

    /// The terms.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.offer.terms
    }

    /// SHA-256 of the terms' bytes.
    #[must_use]
    pub const fn terms_digest(&self) -> Digest {
        self.offer.terms_digest
    }

    /// The lab's keys.
    #[must_use]
    pub const fn lab_keys(&self) -> &Keys {
        &self.offer.lab_keys
    }

    /// The agency's keys.
    #[must_use]
    pub const fn agency_keys(&self) -> &Keys {
        &self.offer.agency_keys
    }

    /// The roster.
    #[must_use]
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The run credentials.
    #[must_use]
    pub fn credentials(&self) -> &[HeldCredential] {
        &self.credentials
    }

    /// The run credential with this digest of its payload.
    #[must_use]
    pub fn credential(&self, digest: &Digest) -> Option<&RunCredential> {
        let found = self.credentials.iter().find(|held| held.digest == *digest)?;
        Some(&found.credential)
    }

    /// The window as the broker states it, held against the terms; `None` while it is not fixed.
    #[must_use]
    pub const fn window(&self) -> Option<Window> {
        self.window
    }

    /// The key of the grant's tags.
    #[must_use]
    pub fn tag_key(&self) -> TagKey {
        Scope::Grant(self.grant()).tag_key(&self.terms().nonce)
    }

    /// Adds a run credential that was issued after the dossier was made.
    ///
    /// # Errors
    /// It does not hold, or there are too many.
    pub fn add_credential(&mut self, statement: &SignedStatement) -> Result<Digest, DossierError> {
        if self.credentials.len() >= CREDENTIALS_MAX {
            return Err(DossierError::Credentials(self.credentials.len() + 1));
        }
        let held = verify_credential(statement, &self.offer.terms, &self.roster)?;
        let digest = held.digest;
        if self.credential(&digest).is_none() {
            self.credentials.push(held);
        }
        Ok(digest)
    }

    /// Verifies a call's claim: this grant, a credential at hand, its run, the workload's signature, and that credential and
    /// person are in date at `at`.
    ///
    /// # Errors
    /// A step does not hold.
    pub fn verify_claim(&self, statement: &SignedStatement, at: At) -> Result<VerifiedClaim, ClaimError> {
        let claim: CallClaim = envelope::read_claim(statement)?;
        if claim.grant != self.grant().as_bytes() {
            return Err(ClaimError::OtherGrant);
        }
        let unknown = || ClaimError::NoCredential(data_encoding::HEXLOWER.encode(&claim.credential));
        let digest = Digest::from_slice(&claim.credential).map_err(|_| unknown())?;
        let credential = self.credential(&digest).ok_or_else(unknown)?;
        if claim.run != credential.run.as_str() {
            return Err(ClaimError::OtherRun);
        }
        envelope::verify_by(statement, &credential.workload)?;
        if at < credential.start_ms || at >= credential.end_ms {
            return Err(ClaimError::Credential(at));
        }
        let person = self.roster.person(&credential.pseudonym).ok_or_else(unknown)?;
        let until = person.valid_until_ms.min(person.trained_until_ms);
        if at < person.valid_from_ms || at >= until {
            return Err(ClaimError::Person(at));
        }
        Ok(VerifiedClaim { claim, credential: credential.clone(), person: person.clone() })
    }

    /// Verifies a connector's outcome of a call admitted at `admitted`: this grant, a build that answered calls then by terms and
    /// successions, one of the lab's connector keys, or of its direct keys where the terms say that the operator answers. A key
    /// counts if any version from the one that the terms name on has it: an outcome does not show whether it was signed before a
    /// later version dropped its key.
    ///
    /// # Errors
    /// A step does not hold.
    pub fn verify_outcome(&self, statement: &SignedStatement, admitted: At) -> Result<OutcomeClaim, ClaimError> {
        let outcome = self.verify_outcome_signature(statement)?;
        let builds = self.builds_at(admitted);
        if builds.iter().any(|build| build.as_bytes().as_slice() == outcome.manifest_digest) {
            Ok(outcome)
        } else {
            Err(ClaimError::Build(data_encoding::HEXLOWER.encode(&outcome.manifest_digest)))
        }
    }

    /// Verifies a connector's outcome as [`VerifiedDossier::verify_outcome`] does, whichever build it names.
    ///
    /// # Errors
    /// It is of another grant, or no connector key signed it.
    pub fn verify_outcome_signature(&self, statement: &SignedStatement) -> Result<OutcomeClaim, ClaimError> {
        let outcome: OutcomeClaim = envelope::read_claim(statement)?;
        if outcome.grant != self.grant().as_bytes() {
            return Err(ClaimError::OtherGrant);
        }
        self.lab_keys().demand_since(statement, self.terms().endpoint.signer())?;
        Ok(outcome)
    }

    /// Whether the lab's line is the one lent.
    #[must_use]
    pub fn lends(&self, lab: &OrgId, line: &ModelLine) -> bool {
        self.terms().lab.org == *lab && self.terms().model.line == *line
    }
}

/// A call's claim signed under a credential that a rostered person issued.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifiedClaim {
    claim: CallClaim,
    credential: RunCredential,
    person: Person,
}

impl VerifiedClaim {
    /// What was claimed.
    #[must_use]
    pub const fn claim(&self) -> &CallClaim {
        &self.claim
    }

    /// The credential it was signed under.
    #[must_use]
    pub const fn credential(&self) -> &RunCredential {
        &self.credential
    }

    /// The person who issued that.
    #[must_use]
    pub const fn person(&self) -> &Person {
        &self.person
    }
}

fn demand_equal<T: PartialEq>(found: T, expected: T, field: &'static str) -> Result<(), &'static str> {
    if found == expected { Ok(()) } else { Err(field) }
}

fn verify_acceptance(dossier: &Dossier, offer: &VerifiedOffer) -> Result<(), DossierError> {
    let statement = dossier.acceptance.as_ref().ok_or(DossierError::NotAccepted)?;
    let mismatch = DossierError::AcceptanceMismatch;
    let acceptance: Acceptance = envelope::read_json(statement).map_err(DossierError::Acceptance)?;
    let terms = &offer.terms;
    demand_equal(acceptance.grant, terms.grant, "grant").map_err(mismatch)?;
    demand_equal(acceptance.terms, offer.terms_digest, "terms").map_err(mismatch)?;
    demand_equal(acceptance.offer, offer.offer_digest, "offer").map_err(mismatch)?;
    demand_equal(&acceptance.agency, &terms.agency.org, "agency").map_err(mismatch)?;
    demand_equal(acceptance.key_set, terms.agency.key_set, "key_set").map_err(mismatch)?;
    offer.agency_keys.named().demand(statement, KeyRole::Signer).map_err(DossierError::Acceptance)
}

fn verify_roster(dossier: &Dossier, offer: &VerifiedOffer) -> Result<Roster, DossierError> {
    let statement = dossier.roster.as_ref().ok_or(DossierError::OtherRoster)?;
    if Digest::of(&statement.payload) != offer.terms.roster {
        return Err(DossierError::OtherRoster);
    }
    let roster = Roster::parse(statement).map_err(DossierError::Roster)?;
    if roster.org != offer.terms.agency.org {
        return Err(DossierError::OtherRoster);
    }
    offer.agency_keys.demand_since(statement, KeyRole::Roster).map_err(DossierError::Roster)?;
    Ok(roster)
}

fn verify_credential(
    statement: &SignedStatement,
    terms: &Terms,
    roster: &Roster,
) -> Result<HeldCredential, DossierError> {
    let digest = Digest::of(&statement.payload);
    match read_credential(statement, terms, roster) {
        Ok(credential) => Ok(HeldCredential { digest, credential }),
        Err(why) => Err(DossierError::Credential { digest, why }),
    }
}

fn read_credential(
    statement: &SignedStatement,
    terms: &Terms,
    roster: &Roster,
) -> Result<RunCredential, CredentialFault> {
    let credential: RunCredential = envelope::read_json(statement)?;
    if credential.grant != terms.grant || credential.org != terms.agency.org {
        return Err(CredentialFault::OtherGrant);
    }
    if terms.run(&credential.run).is_none() {
        return Err(CredentialFault::NoRun);
    }
    let person = roster.person(&credential.pseudonym).ok_or(CredentialFault::NoPerson)?;
    envelope::verify_by(statement, &person.key)?;
    let length = credential.end_ms.since(credential.start_ms);
    if length <= 0 || length > CREDENTIAL_MS_MAX {
        return Err(CredentialFault::Length);
    }
    let workload = &credential.workload;
    let of_kind = matches!(workload.algorithm(), Algorithm::Ed25519 | Algorithm::EcdsaP256Sha256);
    if !of_kind || roster.people.iter().any(|person| person.key == *workload) {
        return Err(CredentialFault::Key);
    }
    Ok(credential)
}

fn stated_window(summary: &GrantSummary, terms: &Terms) -> Result<Option<Window>, DossierError> {
    if summary.grant != terms.grant.as_bytes() {
        return Err(DossierError::Window);
    }
    if summary.start_ms == 0 && summary.end_ms == 0 {
        return Ok(None);
    }
    let instant = |ms| At::from_ms(ms).map_err(|_| DossierError::Window);
    let (start, end) = (instant(summary.start_ms)?, instant(summary.end_ms)?);
    let widest = Window::new(start, terms.window.term_ms, terms.window.partner_release_ms);
    let scheduled = terms.window.start_ms.is_none_or(|at| start >= at);
    if scheduled && end >= start && end <= widest.end() {
        Ok(Some(Window::between(start, end)))
    } else {
        Err(DossierError::Window)
    }
}

#[cfg(test)]
mod tests;
