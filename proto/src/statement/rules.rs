//! What a party adds to a grant after it was signed: rules that only refuse, a scanner's own list, a bound on a whole line.
//!
//! **Invariant:** nothing here widens access. Each act names what it follows, so that one signed under other circumstances does
//! not come into force.

use serde::{Deserialize, Serialize};

use super::{Payload, StatementError};
use crate::names::{Digest, GrantId, ModelLine, OrgId};

/// Most bytes of rules in one narrowing.
pub const RULES_BYTES_MAX: usize = 16 * 1024;
/// Most canaries, code names or flags on one list.
pub const WATCHED_MAX: usize = 32;
/// Longest canary or code name in bytes.
pub const WATCHED_BYTES_MAX: usize = 128;

/// A party adds rules to a grant that stands. They can only refuse, so one side is enough; signed by its signers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrowing {
    /// The grant.
    pub grant: GrantId,
    /// Who adds.
    pub by: OrgId,
    /// Digest of the rules in force that these were written against, as `anteroom grant show` has it. Other rules in force
    /// meanwhile make it void.
    pub after: Digest,
    /// Cedar rules, each with an `@id`, none that allows.
    pub rules: String,
    /// Why, for the other side to read.
    pub reason: String,
}

impl Payload for Narrowing {
    const TYPE: &'static str = "application/vnd.anteroom.narrowing.v1+json";
}

impl Narrowing {
    /// Whether it is within its bounds.
    ///
    /// # Errors
    /// It has no rules or too many bytes of them.
    pub fn check(&self) -> Result<(), StatementError> {
        if self.rules.trim().is_empty() || self.rules.len() > RULES_BYTES_MAX {
            return Err(StatementError::Field { field: "rules", why: "1 byte to 16 KiB are expected" });
        }
        Ok(())
    }
}

/// A lab gives the scanner of one grant a list of its own; signed by its signers. The list travels beside the statement and is
/// the lab's alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchList {
    /// The grant.
    pub grant: GrantId,
    /// The lab.
    pub by: OrgId,
    /// SHA-256 of the list's bytes.
    pub list: Digest,
    /// SHA-256 of the list in force that this one takes the place of; absent for the first.
    pub previous: Option<Digest>,
}

impl Payload for WatchList {
    const TYPE: &'static str = "application/vnd.anteroom.watch-list.v1+json";
}

/// What the scanner of one grant looks for beside what every scanner does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// 32 random bytes, so that nobody can guess the list from its digest.
    pub nonce: Digest,
    /// Strings that no answer should hold, such as one in the model server's own system prompt.
    #[serde(default)]
    pub canaries: Vec<String>,
    /// Whether a canary also locks what the terms say a scanner locks.
    #[serde(default)]
    pub canaries_lock: bool,
    /// The lab's names for what it does not speak of.
    #[serde(default)]
    pub code_names: Vec<String>,
    /// SHA-256 of strings planted in a range to be found; they are noted and do not stop.
    #[serde(default)]
    pub flags: Vec<Digest>,
}

/// Shows nothing that is watched for.
impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (canaries, names, flags) = (self.canaries.len(), self.code_names.len(), self.flags.len());
        write!(f, "Watched({canaries} canaries, {names} code names, {flags} flags)")
    }
}

impl Watched {
    /// Reads a list from its bytes.
    ///
    /// # Errors
    /// It cannot be read or breaks a bound; the error repeats nothing that is on it.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let unreadable = || StatementError::Payload("the list is not JSON of the expected form".to_owned());
        // The parser's own words could repeat what is on the list.
        let list: Self = super::parse_json(bytes).map_err(|_| unreadable())?;
        let fail = |field, why| Err(StatementError::Field { field, why });
        if list.canaries.len().max(list.code_names.len()).max(list.flags.len()) > WATCHED_MAX {
            return fail("list", "at most 32 canaries, 32 code names and 32 flags are expected");
        }
        if list.canaries.iter().chain(&list.code_names).any(|text| text.is_empty() || text.len() > WATCHED_BYTES_MAX) {
            return fail("list", "canaries and code names have 1 to 128 bytes");
        }
        Ok(list)
    }
}

/// A lab bounds what all its grants of one line may use together; signed by its signers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineBudget {
    /// The lab.
    pub by: OrgId,
    /// Its line.
    pub line: ModelLine,
    /// Calls, over all grants on record.
    pub calls: u64,
    /// Prompt and answer tokens, over all grants on record.
    pub tokens: u64,
    /// SHA-256 of the statement that this one takes the place of; absent for the first.
    pub previous: Option<Digest>,
}

impl Payload for LineBudget {
    const TYPE: &'static str = "application/vnd.anteroom.line-budget.v1+json";
}
