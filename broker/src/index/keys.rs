//! The index's keys and values in bytes.
//!
//! Every key that has to do with a scope is blinded with the scope's tag key, which stands in the ledger under the scope's own
//! key alone. Values are positions. So nothing in the index has to be encrypted, and what is left of it says nothing once a
//! scope's key was destroyed.
//!
//! **Invariant:** no name, no text and no content goes into a key or a value.

use anteroom_policy::event::Event;
use anteroom_proto::{
    ledger::scope::TagKey,
    names::{CallId, Digest, Pseudonym, RunId},
    time::{At, HOUR_MS},
};
use ring::hmac;

/// Where the position stands.
pub(super) const POSITION: &[u8] = b"m";
/// How many records of a scope share one posting list.
pub(super) const BLOCK_RECORDS: u64 = 512;

const SCOPE: u8 = b's';
const CALL: u8 = b'c';
const POSTINGS: u8 = b'p';
const HOUR: u8 = b't';
const NONE: u64 = u64::MAX;

/// What records of a scope can be found by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Term<'a> {
    /// The number of the record's kind.
    Kind(u32),
    /// The stable code of a refusal or of what cut a call.
    Code(&'a str),
    /// The person behind a call or credential.
    Person(&'a Pseudonym),
    /// The run.
    Run(&'a RunId),
}

/// Where a call's records stand in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CallPlaces {
    /// Its admission.
    pub admitted: Option<u64>,
    /// The newest record that ended it: finished, abandoned, or settled afterwards.
    pub ended: Option<u64>,
    /// The newest refusal of a call of this identifier.
    pub refused: Option<u64>,
}

/// What a record says of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallStep {
    Admitted,
    Ended,
    Refused,
}

/// What a record is found by.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    pub(super) call: Option<(CallId, CallStep)>,
    pub(super) terms: Vec<Term<'a>>,
}

/// How far the index has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    /// Records taken in.
    pub(super) size: u64,
    /// Root of the log over them.
    pub(super) root: [u8; 32],
}

/// The blinded name of a scope, from its tag key.
#[derive(Clone, Copy)]
pub(super) struct Blind<'k>(pub(super) &'k TagKey);

impl Blind<'_> {
    fn name(self, domain: &[u8], text: &[u8]) -> [u8; 16] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(b"anteroom/index/v1/");
        context.update(domain);
        context.update(b"/");
        context.update(text);
        first(context.sign().as_ref())
    }

    /// Where the index of the scope's record `seq` stands.
    pub(super) fn record(self, seq: u64) -> Vec<u8> {
        key(SCOPE, &self.name(b"scope", b""), seq)
    }

    /// Where the first record of the hour of `at` stands.
    pub(super) fn hour(self, at: At) -> Vec<u8> {
        let hour = u64::try_from(at.ms() / HOUR_MS).unwrap_or(0);
        key(HOUR, &self.name(b"hour", b""), hour)
    }

    /// What the keys of all hours from that of `at` on lie in.
    pub(super) fn hours(self, at: At) -> (Vec<u8>, Vec<u8>) {
        (self.hour(at), key(HOUR, &self.name(b"hour", b""), u64::MAX))
    }

    /// Where the posting list of `term` for the block that holds `seq` stands.
    pub(super) fn block(self, term: Term<'_>, seq: u64) -> Vec<u8> {
        key(POSTINGS, &self.term(term), seq / BLOCK_RECORDS)
    }

    /// What the posting lists of `term` from the block of `seq` on lie in.
    pub(super) fn blocks(self, term: Term<'_>, seq: u64) -> (Vec<u8>, Vec<u8>) {
        let name = self.term(term);
        (key(POSTINGS, &name, seq / BLOCK_RECORDS), key(POSTINGS, &name, u64::MAX))
    }

    fn term(self, term: Term<'_>) -> [u8; 16] {
        match term {
            Term::Kind(kind) => self.name(b"kind", &kind.to_be_bytes()),
            Term::Code(code) => self.name(b"code", code.as_bytes()),
            Term::Person(pseudonym) => self.name(b"person", pseudonym.as_str().as_bytes()),
            Term::Run(run) => self.name(b"run", run.as_str().as_bytes()),
        }
    }
}

/// Where a call's places stand. The identifier holds 80 random bits, so its digest tells nothing to whom does not have it.
pub(super) fn call(call: &CallId) -> Vec<u8> {
    let mut text = b"anteroom/index/v1/call/".to_vec();
    text.extend_from_slice(call.as_bytes());
    let mut out = vec![CALL];
    out.extend_from_slice(&first(Digest::of(&text).as_bytes()));
    out
}

/// The number at the end of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Reads one number.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

impl CallPlaces {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let [admitted, ended, refused] = numbers else { return None };
        let place = |bytes: &[u8; 8]| Some(u64::from_be_bytes(*bytes)).filter(|place| *place != NONE);
        rest.is_empty().then(|| Self { admitted: place(admitted), ended: place(ended), refused: place(refused) })
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.admitted, self.ended, self.refused].iter().flat_map(|place| place.unwrap_or(NONE).to_be_bytes()).collect()
    }

    /// With the record at `index`, which is such a `step` of the call.
    pub(super) const fn with(mut self, step: CallStep, index: u64) -> Self {
        match step {
            CallStep::Admitted => self.admitted = Some(index),
            CallStep::Ended => self.ended = Some(index),
            CallStep::Refused => self.refused = Some(index),
        }
        self
    }
}

impl Position {
    pub(super) fn to_bytes(self, version: u32) -> Vec<u8> {
        let mut out = version.to_be_bytes().to_vec();
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.root);
        out
    }

    /// Reads a position written by this `version`; `None` for any other.
    pub(super) fn from_bytes(bytes: &[u8], version: u32) -> Option<Self> {
        let (written, bytes) = bytes.split_first_chunk()?;
        let (size, root) = bytes.split_first_chunk()?;
        let position = Self { size: u64::from_be_bytes(*size), root: root.try_into().ok()? };
        (u32::from_be_bytes(*written) == version).then_some(position)
    }
}

/// What a record is found by, its kind apart.
pub(super) fn found(event: &Event) -> Found<'_> {
    match event {
        Event::CallAdmitted(call) => Found {
            call: Some((call.call, CallStep::Admitted)),
            terms: vec![Term::Person(&call.pseudonym), Term::Run(&call.run)],
        },
        Event::CallRefused(refused) => {
            let person = refused.pseudonym.as_ref().map(Term::Person);
            let run = refused.run.as_ref().map(Term::Run);
            Found {
                call: refused.call.map(|call| (call, CallStep::Refused)),
                terms: [Some(Term::Code(&refused.code)), person, run].into_iter().flatten().collect(),
            }
        }
        Event::CallFinished(finished) => {
            Found { call: Some((finished.call, CallStep::Ended)), terms: vec![Term::Code(&finished.end)] }
        }
        Event::CallAbandoned { call, .. } | Event::CallSettled { call, .. } => {
            Found { call: Some((*call, CallStep::Ended)), terms: Vec::new() }
        }
        Event::ActRefused { code, .. } | Event::RefusalsCounted { code, .. } => {
            Found { call: None, terms: vec![Term::Code(code)] }
        }
        Event::RunCredentialIssued { credential, .. } => {
            Found { call: None, terms: vec![Term::Person(&credential.pseudonym), Term::Run(&credential.run)] }
        }
        Event::LogOpened { .. }
        | Event::BrokerStarted { .. }
        | Event::BrokerJoined { .. }
        | Event::BrokerGone { .. }
        | Event::ClockChanged { .. }
        | Event::ClockStarted { .. }
        | Event::OrganisationEnrolled { .. }
        | Event::KeySetChanged { .. }
        | Event::MembershipStated { .. }
        | Event::ModelRegistered { .. }
        | Event::RosterPublished { .. }
        | Event::GrantOpened { .. }
        | Event::ReaderAppointed { .. }
        | Event::GrantOffered { .. }
        | Event::GrantAccepted { .. }
        | Event::GrantDeclined { .. }
        | Event::GrantLapsed { .. }
        | Event::GrantActivated { .. }
        | Event::GrantPaused { .. }
        | Event::GrantResumed { .. }
        | Event::GrantWithdrawn { .. }
        | Event::GrantRelinquished { .. }
        | Event::GrantExpired { .. }
        | Event::LockSet { .. }
        | Event::LockLifted { .. }
        | Event::Snapshotted { .. }
        | Event::HoldSet { .. }
        | Event::HoldReleased { .. }
        | Event::RulesAdded { .. }
        | Event::WatchListSet { .. }
        | Event::SuccessionOffered(_)
        | Event::SuccessionCountersigned(_)
        | Event::LineBudgetSet { .. }
        | Event::LineBudgetHit { .. }
        | Event::ScannerLocked { .. }
        | Event::PromptsAlike(_)
        | Event::Presence(_)
        | Event::Disposed(_)
        | Event::ReadOpened { .. } => Found::default(),
    }
}

fn first(mac: &[u8]) -> [u8; 16] {
    mac.first_chunk().copied().unwrap_or_default()
}

fn key(prefix: u8, name: &[u8; 16], number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(25);
    out.push(prefix);
    out.extend_from_slice(name);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use anteroom_proto::ledger::scope::Scope;

    use super::*;

    #[test]
    fn keys_of_two_scopes_have_nothing_in_common() {
        let one = Scope::System.tag_key(&Digest::of(b"one"));
        let two = Scope::System.tag_key(&Digest::of(b"two"));
        let person = Pseudonym::parse("p-1").unwrap();
        for term in [Term::Kind(40), Term::Code("p-1"), Term::Person(&person)] {
            assert_ne!(Blind(&one).block(term, 3), Blind(&two).block(term, 3));
        }
        assert_ne!(Blind(&one).block(Term::Code("p-1"), 3), Blind(&one).block(Term::Person(&person), 3));
    }

    #[test]
    fn values_survive_their_bytes() {
        let places = CallPlaces { admitted: Some(0), ended: None, refused: Some(7) };
        assert_eq!(CallPlaces::from_bytes(&places.to_bytes()), Some(places));
        assert_eq!(CallPlaces::from_bytes(&[0; 23]), None);
        let position = Position { size: 9, root: [4; 32] };
        assert_eq!(Position::from_bytes(&position.to_bytes(1), 1), Some(position));
        assert_eq!(Position::from_bytes(&position.to_bytes(1), 2), None);
    }
}
