//! The state in parts, one a scope, as bytes: what a snapshot keeps.
//!
//! What stands by acts is not written down a second time: a part names the records of the acts, and whoever restores the state
//! reads those again. The rest of a part is numbers: the scope's chain, a grant's budgets and its calls.
//!
//! ```text
//! part    = scope ‖ u64 next position ‖ entry 48 ‖ u64 index ‖ tag key 32 ‖ u64 count ‖ u64 act … ‖ budgets ‖ calls ‖ by
//! budgets = 0 | 1 ‖ account ‖ u64 remembered ‖ u64 count ‖ (run ‖ account) …     account = u64 settled calls, settled tokens,
//!                                                                               held calls, held tokens, open
//! calls   = u64 count ‖ open … ‖ u64 count ‖ abandoned … ‖ u64 count ‖ done …
//! open    = call 16 ‖ run ‖ u64 held tokens ‖ u64 admission ‖ i64 ms ‖ credential 32        abandoned alike
//! by      = nothing, or u64 count ‖ (call 16 ‖ broker 16) …                 which broker admitted an open or abandoned call
//! done    = call 16 ‖ u64 admission ‖ u64 end ‖ text
//! ```
//!
//! Numbers are big-endian; scopes, runs and texts have their length before them as u32. Everything ascends.
//!
//! **Invariant:** parts of equal states are equal bytes, and a state restored from its parts is equal to it.

mod bytes;

use std::collections::BTreeMap;

use anteroom_proto::{
    ledger::{
        leaf::Entry,
        scope::{Scope, TagKey},
        tree::Hash,
    },
    names::{BrokerId, CallId, Digest, GrantId, RunId},
    time::At,
};
use imbl::OrdMap;

use self::bytes::{Reading, Writing};
use super::{DoneCall, OpenCall, State};
use crate::{
    budget::{Account, Hold},
    event::{Entered, ScopeHead},
};

/// What a state holds of one scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The scope.
    pub scope: Scope,
    /// Its chain.
    pub head: ScopeHead,
    /// Indexes of its records that shaped what stands, ascending.
    pub acts: Vec<u64>,
    budgets: Option<Budgets>,
    open: Vec<(CallId, OpenCall)>,
    abandoned: Vec<(CallId, OpenCall)>,
    done: Vec<(CallId, DoneCall)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Budgets {
    grant: [u64; 5],
    remembered: u64,
    runs: Vec<(RunId, [u64; 5])>,
}

/// Why parts give no state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartError {
    /// The bytes are no part.
    #[error("a part cannot be read")]
    Bytes,
    /// A part and the acts contradict each other.
    #[error("a part does not go with the recorded acts")]
    Acts,
}

/// The digest of a state: SHA-256 of `anteroom/state/v1`, a line break, the size, the root, and each part in its scope's order
/// with its length before it as u64.
#[must_use]
pub fn digest<'p>(size: u64, root: &Hash, parts: impl IntoIterator<Item = &'p [u8]>) -> Digest {
    let mut hashing = ring::digest::Context::new(&ring::digest::SHA256);
    hashing.update(b"anteroom/state/v1\n");
    hashing.update(&size.to_be_bytes());
    hashing.update(root.as_bytes());
    for part in parts {
        hashing.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hashing.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hashing.finish().as_ref());
    Digest::from_bytes(out)
}

impl Part {
    /// Its canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writing::default();
        out.text(&self.scope.to_bytes());
        out.number(self.head.next_seq);
        out.raw(self.head.head.as_bytes());
        out.number(self.head.index);
        out.raw(self.head.tag_key.as_bytes());
        out.count(self.acts.len());
        self.acts.iter().for_each(|index| out.number(*index));
        match &self.budgets {
            None => out.raw(&[0]),
            Some(budgets) => {
                out.raw(&[1]);
                budgets.grant.iter().for_each(|number| out.number(*number));
                out.number(budgets.remembered);
                out.count(budgets.runs.len());
                for (run, account) in &budgets.runs {
                    out.text(run.as_str().as_bytes());
                    account.iter().for_each(|number| out.number(*number));
                }
            }
        }
        for calls in [&self.open, &self.abandoned] {
            out.count(calls.len());
            for (id, call) in calls {
                out.raw(id.as_bytes());
                out.text(call.run.as_str().as_bytes());
                out.number(call.hold.tokens);
                out.number(call.admitted);
                out.raw(&call.at.ms().to_be_bytes());
                out.raw(call.credential.as_bytes());
            }
        }
        out.count(self.done.len());
        for (id, call) in &self.done {
            out.raw(id.as_bytes());
            out.number(call.admitted);
            out.number(call.ended);
            out.text(call.end.as_bytes());
        }
        let admitted_by = || self.open.iter().chain(&self.abandoned).filter_map(|(id, call)| Some((id, call.by?)));
        // Where one broker has its log alone nothing is added.
        if admitted_by().next().is_some() {
            out.count(admitted_by().count());
            for (id, by) in admitted_by() {
                out.raw(id.as_bytes());
                out.raw(by.as_bytes());
            }
        }
        out.0
    }

    /// Reads what [`Part::encode`] wrote.
    ///
    /// # Errors
    /// [`PartError::Bytes`]: they were not written by it.
    pub fn decode(bytes: &[u8]) -> Result<Self, PartError> {
        let part = Self::read(&mut Reading(bytes)).ok_or(PartError::Bytes)?;
        // One part has one spelling, so whatever order or length was off shows here.
        if part.encode() == bytes { Ok(part) } else { Err(PartError::Bytes) }
    }

    fn read(from: &mut Reading<'_>) -> Option<Self> {
        let scope = Scope::from_bytes(from.text()?).ok()?;
        let next_seq = from.number()?;
        let entry = Entry::from_slice(from.take(48)?)?;
        let index = from.number()?;
        let tag_key = TagKey::from_slice(from.take(32)?).ok()?;
        let acts = from.many(Reading::number)?;
        let account = |from: &mut Reading<'_>| {
            Some([from.number()?, from.number()?, from.number()?, from.number()?, from.number()?])
        };
        let budgets = match from.take(1)? {
            [0] => None,
            [1] => Some(Budgets {
                grant: account(from)?,
                remembered: from.number()?,
                runs: from.many(|from| Some((from.run()?, account(from)?)))?,
            }),
            _ => return None,
        };
        let grant = match &scope {
            Scope::Grant(grant) => *grant,
            Scope::System | Scope::Organisation(_) | Scope::Roster(_) | Scope::Reads(_) => GrantId::from_bytes([0; 16]),
        };
        let open = |from: &mut Reading<'_>| {
            let id = from.call()?;
            let run = from.run()?;
            let hold = Hold { tokens: from.number()? };
            let admitted = from.number()?;
            let at = At::from_ms(i64::from_be_bytes(from.take(8)?.try_into().ok()?)).ok()?;
            let credential = Digest::from_bytes(from.take(32)?.try_into().ok()?);
            Some((id, OpenCall { grant, run, hold, admitted, at, credential, by: None }))
        };
        let (mut open, mut abandoned) = (from.many(open)?, from.many(open)?);
        let done = from.many(|from| {
            let id = from.call()?;
            let (admitted, ended) = (from.number()?, from.number()?);
            let end = std::str::from_utf8(from.text()?).ok()?.into();
            Some((id, DoneCall { grant, admitted, ended, end }))
        })?;
        if !from.0.is_empty() {
            let by: BTreeMap<CallId, BrokerId> = from
                .many(|from| Some((from.call()?, BrokerId::from_slice(from.take(16)?).ok()?)))?
                .into_iter()
                .collect();
            for (id, call) in open.iter_mut().chain(&mut abandoned) {
                call.by = by.get(id).copied();
            }
        }
        let head = ScopeHead { next_seq, head: entry, index, tag_key };
        from.0.is_empty().then_some(Self { scope, head, acts, budgets, open, abandoned, done })
    }
}

impl State {
    /// The state in parts, in the order of their scopes. A scope without a record has none.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: BTreeMap<&Scope, Part> = BTreeMap::new();
        for (scope, head) in self.scopes.iter().filter(|(_, head)| head.next_seq > 0) {
            let mut part = Part {
                scope: scope.clone(),
                head: head.clone(),
                acts: Vec::new(),
                budgets: None,
                open: Vec::new(),
                abandoned: Vec::new(),
                done: Vec::new(),
            };
            if let Scope::Grant(grant) = scope {
                part.budgets = self.accounts.get(grant).map(|accounts| Budgets {
                    grant: accounts.grant.numbers(),
                    remembered: accounts.remembered,
                    runs: accounts.runs.iter().map(|(run, account)| (run.clone(), account.numbers())).collect(),
                });
            }
            parts.insert(scope, part);
        }
        for (index, scope) in &self.acts {
            if let Some(part) = parts.get_mut(scope) {
                part.acts.push(*index);
            }
        }
        for (id, call) in &self.open {
            if let Some(part) = parts.get_mut(&Scope::Grant(call.grant)) {
                part.open.push((*id, call.clone()));
            }
        }
        for (id, call) in &self.abandoned {
            if let Some(part) = parts.get_mut(&Scope::Grant(call.grant)) {
                part.abandoned.push((*id, call.clone()));
            }
        }
        for (id, call) in &self.done {
            if let Some(part) = parts.get_mut(&Scope::Grant(call.grant)) {
                part.done.push((*id, call.clone()));
            }
        }
        parts.into_values().collect()
    }

    /// Puts a state of `size` records together again from its parts and the records of its acts, ascending by index.
    ///
    /// # Errors
    /// [`PartError::Acts`]: the acts are not exactly those that the parts name, or open other scopes and grants.
    pub fn restore<'e>(
        size: u64,
        acts: impl IntoIterator<Item = &'e Entered>,
        parts: Vec<Part>,
    ) -> Result<Self, PartError> {
        let mut state = Self::default();
        for entered in acts {
            if !entered.event.is_act() {
                return Err(PartError::Acts);
            }
            state.apply(entered);
        }
        let mut named = OrdMap::new();
        for part in parts {
            let head = state.scopes.get_mut(&part.scope).filter(|head| head.tag_key == part.head.tag_key);
            *head.ok_or(PartError::Acts)? = part.head;
            for index in part.acts {
                named.insert(index, part.scope.clone());
            }
            if let Some(budgets) = part.budgets {
                let Scope::Grant(grant) = &part.scope else { return Err(PartError::Acts) };
                let accounts = state.accounts.get_mut(grant).ok_or(PartError::Acts)?;
                accounts.grant = Account::restored(accounts.grant.limit(), budgets.grant);
                accounts.remembered = budgets.remembered;
                if accounts.runs.len() != budgets.runs.len() {
                    return Err(PartError::Acts);
                }
                for (run, numbers) in budgets.runs {
                    let account = accounts.runs.get_mut(&run).ok_or(PartError::Acts)?;
                    *account = Account::restored(account.limit(), numbers);
                }
                state.line_counts(grant, true);
            }
            state.open.extend(part.open);
            state.abandoned.extend(part.abandoned);
            state.done.extend(part.done);
        }
        if named != state.acts {
            return Err(PartError::Acts);
        }
        state.size = size;
        Ok(state)
    }
}
