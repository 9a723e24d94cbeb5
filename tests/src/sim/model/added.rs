//! What is added to grants after signing, the naive way: rules, the scanner's list, a bound on a line.

use anteroom_proto::{
    names::{Digest, GrantId, OrgId},
    statement::{key_set::OrgKind, rules::LineBudget},
};

use super::{Answer, Model, Progress, Stage, all};

/// Most times that rules are added to one grant.
const NARROWED_MAX: usize = 32;

/// Rules that a side adds.
#[derive(Clone, Debug)]
pub struct Narrow {
    /// The grant.
    pub grant: GrantId,
    /// Which side.
    pub by: OrgId,
    /// How many additions it was written after, if it names the rules that stood then.
    pub follows: Option<usize>,
    /// Name of the rule.
    pub rule: String,
    /// Whether it is one that can be used, by itself.
    pub usable: bool,
    /// Digest of the statement.
    pub statement: Digest,
}

/// A list for the scanner.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The grant.
    pub grant: GrantId,
    /// Whose.
    pub by: OrgId,
    /// Digest of the list.
    pub list: Digest,
    /// Digest of the list before.
    pub previous: Option<Digest>,
    /// Whether a scanner can use it.
    pub usable: bool,
    /// Digest of the statement.
    pub statement: Digest,
}

/// A bound on a line.
#[derive(Clone, Debug)]
pub struct Bound {
    /// What is signed.
    pub budget: LineBudget,
    /// Digest of the statement.
    pub statement: Digest,
}

/// What stands added to a grant.
#[derive(Clone, Debug, Default)]
pub struct MAdded {
    /// Rules: by whom, which, by which statement.
    pub rules: Vec<(OrgId, String, Digest)>,
    /// Digests of the scanner's list and of the statement that set it.
    pub watch: Option<(Digest, Digest)>,
}

impl Model {
    /// The grant's terms and additions, if `by` is party to it and it is not over.
    fn narrowed(&self, grant: &GrantId, by: &OrgId) -> Option<&MAdded> {
        let known = self.grants.get(grant).filter(|_| self.is_party(grant, by))?;
        matches!(known.stage, Stage::Offered | Stage::Accepted | Stage::Active).then_some(&known.added)
    }

    pub(super) fn expect_narrow(&self, narrow: &Narrow) -> Answer {
        let Some(added) = self.narrowed(&narrow.grant, &narrow.by) else { return Answer::Refuse };
        if added.rules.iter().any(|(_, _, statement)| *statement == narrow.statement) {
            return Answer::Repeat;
        }
        let twice = added.rules.iter().any(|(by, rule, _)| *by == narrow.by && *rule == narrow.rule);
        let count = added.rules.len();
        all(&[narrow.follows == Some(count), count < NARROWED_MAX, narrow.usable, !twice])
    }

    pub(super) fn expect_watch(&self, watch: &Watch) -> Answer {
        let Some(added) = self.narrowed(&watch.grant, &watch.by) else { return Answer::Refuse };
        if self.grants[&watch.grant].terms.lab.org != watch.by {
            return Answer::Refuse;
        }
        if added.watch.is_some_and(|(_, statement)| statement == watch.statement) {
            return Answer::Repeat;
        }
        all(&[watch.previous == added.watch.map(|(list, _)| list), watch.usable])
    }

    pub(super) fn expect_bound(&self, bound: &Bound) -> Answer {
        let LineBudget { by, line, previous, .. } = &bound.budget;
        let key = (by.clone(), line.to_string());
        if self.orgs.get(by).is_none_or(|org| org.kind != OrgKind::Lab) || !self.builds.contains_key(&key) {
            return Answer::Refuse;
        }
        let stands = self.bounds.get(&key).map(|bound| bound.statement);
        if stands == Some(bound.statement) {
            return Answer::Repeat;
        }
        all(&[*previous == stands])
    }

    pub(super) fn narrow(&mut self, narrow: &Narrow) {
        let grant = self.grants.get_mut(&narrow.grant).expect("it passed");
        grant.added.rules.push((narrow.by.clone(), narrow.rule.clone(), narrow.statement));
    }

    pub(super) fn watch(&mut self, watch: &Watch) {
        let grant = self.grants.get_mut(&watch.grant).expect("it passed");
        grant.added.watch = Some((watch.list, watch.statement));
    }

    pub(super) fn bound(&mut self, bound: &Bound) {
        let key = (bound.budget.by.clone(), bound.budget.line.to_string());
        self.bounds.insert(key, bound.clone());
    }

    /// What a line's grants on record use together: settled calls and tokens, held calls and tokens.
    #[must_use]
    pub fn line_sums(&self, lab: &OrgId, line: &str) -> [u64; 4] {
        let mut sums = [0; 4];
        for call in &self.calls {
            let terms = &self.grants[&call.grant].terms;
            if terms.lab.org != *lab || terms.model.line.as_str() != line {
                continue;
            }
            let (at, tokens) = match call.progress {
                Progress::Done(charged) => (0, charged),
                Progress::Abandoned | Progress::Open => (2, call.hold),
            };
            sums[at] += 1;
            sums[at + 1] += tokens;
        }
        sums
    }

    /// Whether a line's bound leaves room, if it has one.
    pub(super) fn line_fits(&self, lab: &OrgId, line: &str, hold: u64) -> bool {
        let Some(bound) = self.bounds.get(&(lab.clone(), line.to_owned())) else { return true };
        let [settled_calls, settled, held_calls, held] = self.line_sums(lab, line);
        settled_calls + held_calls < bound.budget.calls && settled + held + hold <= bound.budget.tokens
    }

    /// The name of everything that a grant's calls are judged with, by its definition.
    #[must_use]
    pub fn judged_by(&self, grant: &GrantId) -> Option<Digest> {
        let grant = self.grants.get(grant)?;
        if grant.added.rules.is_empty() && grant.added.watch.is_none() {
            return Some(grant.name);
        }
        let mut bytes = [b"anteroom/judged-by/v1".as_slice(), grant.name.as_bytes()].concat();
        grant.added.rules.iter().for_each(|(_, _, statement)| bytes.extend_from_slice(statement.as_bytes()));
        if let Some((list, _)) = &grant.added.watch {
            bytes.push(1);
            bytes.extend_from_slice(list.as_bytes());
        }
        Some(Digest::of(&bytes))
    }
}
