//! A newer build of a line takes the place of one that a grant lends, while the grant runs.
//!
//! It takes two acts: the lab offers ([`Succession`]), the agency countersigns ([`Countersignature`]). Both name the instant from
//! which new calls go to the new build. Digests are the lab's word: a succession says that behaviour may have changed, not what ran.
//!
//! **Invariant:** nothing here touches window, budget, roster, runs or rules of a grant.

use serde::{Deserialize, Serialize};

use super::Payload;
use crate::{
    names::{Digest, GrantId, OrgId},
    time::At,
};

/// Most successions of one grant.
pub const SUCCESSIONS_MAX: usize = 32;

/// What becomes of calls that the build before is answering at the instant of the change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenCalls {
    /// They come to their own end.
    Drain,
    /// They are cut at that instant.
    Cut,
}

impl OpenCalls {
    /// Its name in statements.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Cut => "cut",
        }
    }
}

/// A lab offers that one build of a grant's line take another's place; signed by its signers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Succession {
    /// The grant.
    pub grant: GrantId,
    /// The lab.
    pub by: OrgId,
    /// Digest of the manifest of the build that answers calls under the grant.
    pub from: Digest,
    /// Digest of the manifest of the build that takes its place: registered, of the same line, with every variant lent.
    pub to: Digest,
    /// From when on new calls go to the new build; absent leaves the instant to the agency's countersignature.
    pub at_ms: Option<At>,
    /// What becomes of calls that are open then.
    pub open_calls: OpenCalls,
    /// SHA-256 of the newest succession that the agency countersigned before; absent for the first.
    pub previous: Option<Digest>,
    /// Why, for the agency to read.
    pub reason: String,
}

impl Payload for Succession {
    const TYPE: &'static str = "application/vnd.anteroom.succession.v1+json";
}

/// An agency takes a succession that its lab offered; signed by its signers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Countersignature {
    /// The grant.
    pub grant: GrantId,
    /// The agency.
    pub by: OrgId,
    /// SHA-256 of the succession's payload.
    pub succession: Digest,
    /// From when on new calls go to the new build: the instant that the succession names, where it names one.
    pub at_ms: At,
}

impl Payload for Countersignature {
    const TYPE: &'static str = "application/vnd.anteroom.countersignature.v1+json";
}

/// A change of builds that both sides signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The build before.
    pub from: Digest,
    /// The build that takes its place.
    pub to: Digest,
    /// From when on.
    pub at: At,
    /// What becomes of open calls.
    pub open_calls: OpenCalls,
}

impl Change {
    /// The change that two statements make.
    #[must_use]
    pub const fn of(succession: &Succession, countersignature: &Countersignature) -> Self {
        Self { from: succession.from, to: succession.to, at: countersignature.at_ms, open_calls: succession.open_calls }
    }
}

/// The builds that answer calls which are admitted at `at`, of those `lent` by the terms and with `changes`, oldest first.
#[must_use]
pub fn builds_at(lent: &[Digest], changes: impl IntoIterator<Item = Change>, at: At) -> Vec<Digest> {
    let mut builds = lent.to_vec();
    for change in changes.into_iter().filter(|change| change.at <= at) {
        for build in builds.iter_mut().filter(|build| **build == change.from) {
            *build = change.to;
        }
    }
    builds
}

/// The instant at which a call that `build` answers and that was admitted at `admitted` is cut by a change, if any cuts it.
#[must_use]
pub fn cut_at(build: &Digest, changes: impl IntoIterator<Item = Change>, admitted: At) -> Option<At> {
    let cuts = |change: &Change| change.open_calls == OpenCalls::Cut && change.from == *build && admitted < change.at;
    changes.into_iter().find(cuts).map(|change| change.at)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    fn build(name: u8) -> Digest {
        Digest::from_bytes([name; 32])
    }

    fn change(from: u8, to: u8, at: i64, open_calls: OpenCalls) -> Change {
        Change { from: build(from), to: build(to), at: At::clamped(at), open_calls }
    }

    #[test]
    fn new_calls_go_to_the_new_build_from_the_instant_on() {
        let lent = [build(1), build(9)];
        let changes = [change(1, 2, 100, OpenCalls::Drain), change(2, 1, 200, OpenCalls::Cut)];
        let at = |ms| builds_at(&lent, changes, At::clamped(ms));
        assert_eq!(at(99), lent);
        assert_eq!(at(100), [build(2), build(9)]);
        assert_eq!(at(199), [build(2), build(9)]);
        assert_eq!(at(200), lent, "a lab can go back to the build before");
    }

    #[test]
    fn a_call_is_cut_by_the_first_change_that_cuts_its_build() {
        let changes = [change(1, 2, 100, OpenCalls::Drain), change(2, 3, 200, OpenCalls::Cut)];
        let cut = |name, admitted| cut_at(&build(name), changes, At::clamped(admitted)).map(At::ms);
        assert_eq!(cut(1, 50), None, "it drains");
        assert_eq!(cut(2, 150), Some(200));
        assert_eq!(cut(2, 200), None, "what is admitted at the instant or after it is not of the build before");
        assert_eq!(cut(3, 150), None);
    }

    #[test]
    fn a_statement_has_one_spelling() {
        let succession = Succession {
            grant: GrantId::from_bytes([1; 16]),
            by: OrgId::parse("lab-a").unwrap(),
            from: build(1),
            to: build(2),
            at_ms: None,
            open_calls: OpenCalls::Drain,
            previous: None,
            reason: "mends the tokenizer".to_owned(),
        };
        let text = serde_json::to_string(&succession).unwrap();
        assert!(text.contains(r#""at_ms":null,"open_calls":"drain","previous":null"#), "{text}");
        assert_eq!(crate::statement::parse_json::<Succession>(text.as_bytes()).unwrap(), succession);
        assert!(crate::statement::parse_json::<Succession>(text.replace("drain", "stop").as_bytes()).is_err());
    }
}
