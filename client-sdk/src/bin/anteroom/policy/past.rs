//! The calls of a grant as they were recorded, for trying rules on.
//!
//! **Invariant:** every record is proven before it is used; from a mirror, the slice is also shown to be whole.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_policy::{
    event::{Entered, Event},
    judge::{Epoch, Verdict, judge_uncached},
    refusal::Refusal,
    rules::{Added, Side},
};
use anteroom_proto::{ledger::scope::Scope, names::GrantId, rpc::Facts, statement::terms::Terms, time::At};
use anteroom_sdk::mirror::{Mirror, MirrorError, Progress, check};
use clap::Args;
use prost::Message;

use crate::{
    audit::{entered, tag_key},
    context::Ctx,
    fail::Fail,
    mirror::Trust,
    policy::source,
    progress::Bar,
};

/// Where past calls are read.
#[derive(Args, Debug)]
pub(crate) struct Where {
    /// Read them from this mirror, without asking anybody
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

/// A call whose facts are on record.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) index: u64,
    pub(crate) at: At,
    pub(crate) facts: Facts,
    /// How many times rules had been added to the grant by then.
    added: usize,
    /// What the rules said then, where the record tells.
    recorded: Option<Verdict>,
}

/// The calls of a grant.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) terms: Option<Arc<Terms>>,
    pub(crate) calls: Vec<Call>,
    /// Calls that were refused before the rules were asked, or whose facts this reader cannot open.
    pub(crate) without_facts: u64,
    /// Rules that were added to the grant since it was signed, in their order.
    pub(crate) added: Vec<Added>,
}

/// Rules as they were at each time of a grant: those of the terms, and with each addition one more.
pub(crate) struct Eras {
    epochs: Vec<Epoch>,
}

impl Eras {
    /// Compiles them all.
    pub(crate) fn new(terms: &Terms, added: &[Added]) -> Result<Self, Fail> {
        let so_far =
            (0..=added.len()).map(|times| source::epoch_with(terms.clone(), added.get(..times).unwrap_or(added)));
        Ok(Self { epochs: so_far.collect::<Result<_, _>>()? })
    }

    /// Those that a call met.
    fn of(&self, call: &Call) -> Option<&Epoch> {
        self.epochs.get(call.added).or_else(|| self.epochs.last())
    }
}

/// A call judged twice.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) call: Call,
    pub(crate) before: (Verdict, Vec<String>),
    pub(crate) after: (Verdict, Vec<String>),
}

/// What came of judging calls twice.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) judged: u64,
    /// Calls of which the two say different things: verdict first, then reasons.
    pub(crate) changed: Vec<Judged>,
    /// Calls with one verdict for other reasons.
    pub(crate) other_reasons: u64,
    /// Calls of which the record says something else than the rules that they were made under.
    pub(crate) unlike_record: u64,
}

/// Reads a grant's calls.
pub(crate) async fn read(ctx: &Ctx, grant: GrantId, from: &Where) -> Result<Past, Fail> {
    let scope = Scope::Grant(grant);
    match &from.mirror {
        Some(dir) => mirrored(ctx, scope, dir, &from.trust),
        None => {
            let home = ctx.home()?;
            let mut auditor = home.auditor().await?;
            let key = tag_key(&home, &scope, None).await?;
            let mut reading = auditor.read(scope, key, false).await?;
            let (mut past, mut bar) = (Past::default(), Bar::new());
            while let Some(record) = reading.next().await? {
                if let Some(entered) = entered(&record)? {
                    past.take(&entered);
                }
                bar.show(Progress { what: "records", done: reading.records(), all: 0 });
            }
            bar.end();
            ctx.out.note("each record is proven; whether these are all there are, `anteroom audit verify` shows");
            Ok(past)
        }
    }
}

fn mirrored(ctx: &Ctx, scope: Scope, dir: &Path, trust: &Trust) -> Result<Past, Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let mirror = Mirror::at(dir);
    if !mirror.scopes()?.contains(&scope) {
        return Err(MirrorError::NoSlice(scope).into());
    }
    let (mut past, mut unread, mut bar) = (Past::default(), None, Bar::new());
    let verified =
        check::verify(&mirror, &demands, Some([scope].as_slice()), &mut |progress| bar.show(progress), |record| {
            match entered(record) {
                Ok(entered) => {
                    entered.iter().for_each(|entered| past.take(entered));
                    Ok(())
                }
                Err(fail) => {
                    unread = Some(fail);
                    Err(MirrorError::Interrupted)
                }
            }
        });
    bar.end();
    if let Some(fail) = unread {
        return Err(fail);
    }
    ctx.out.note(&format!(
        "the mirror of {} entries holds, and the grant's records are all there",
        verified?.tree().entries
    ));
    Ok(past)
}

#[cfg(test)]
impl Call {
    /// A call that nobody recorded.
    pub(crate) const fn new(index: u64, at: At, facts: Facts, recorded: Option<Verdict>) -> Self {
        Self { index, at, facts, added: 0, recorded }
    }

    /// Made after rules had been added so many times.
    pub(crate) const fn after(mut self, added: usize) -> Self {
        self.added = added;
        self
    }
}

impl Past {
    fn take(&mut self, entered: &Entered) {
        if let Event::GrantOffered { terms, .. } = &entered.event {
            self.terms = Some(Arc::clone(terms));
        } else if let Event::RulesAdded { narrowing, .. } = &entered.event {
            let of_lab = self.terms.as_ref().is_some_and(|terms| terms.lab.org == narrowing.by);
            let side = if of_lab { Side::Lab } else { Side::Agency };
            self.added.push(Added { side, text: narrowing.rules.clone() });
        } else if let Event::CallAdmitted(call) = &entered.event {
            self.call(entered, Some(call.facts.as_ref()), Some(Verdict::Allow));
        } else if let Event::CallRefused(refused) = &entered.event {
            let denied = refused.code == Refusal::PolicyDenied.code();
            self.call(entered, refused.facts.as_deref(), denied.then_some(Verdict::Deny));
        }
    }

    fn call(&mut self, entered: &Entered, facts: Option<&[u8]>, recorded: Option<Verdict>) {
        // Facts without a route are those that stand closed.
        let facts = facts.and_then(|facts| Facts::decode(facts).ok()).filter(|facts| !facts.route.is_empty());
        match facts {
            Some(facts) => {
                let added = self.added.len();
                self.calls.push(Call { index: entered.index, at: entered.at, facts, added, recorded });
            }
            None => self.without_facts = self.without_facts.saturating_add(1),
        }
    }

    /// The terms that the calls were made under.
    pub(crate) fn terms(&self) -> Result<&Arc<Terms>, Fail> {
        self.terms.as_ref().ok_or_else(|| Fail::Local("the grant's records do not show its terms".to_owned()))
    }
}

/// Judges every call by both, afresh.
pub(crate) fn compare(calls: Vec<Call>, before: &Eras, after: &Eras) -> Compared {
    let (mut compared, mut bar) = (Compared::default(), Bar::new());
    let all = u64::try_from(calls.len()).unwrap_or(u64::MAX);
    for call in calls {
        let (Some(before), Some(after)) = (before.of(&call), after.of(&call)) else { continue };
        let [before, after] = [before, after].map(|epoch| {
            let judgement = judge_uncached(epoch, &call.facts);
            (judgement.verdict, judgement.reasons)
        });
        compared.judged = compared.judged.saturating_add(1);
        if call.recorded.is_some_and(|recorded| recorded != before.0) {
            compared.unlike_record = compared.unlike_record.saturating_add(1);
        }
        if before.0 != after.0 {
            compared.changed.push(Judged { call, before, after });
        } else if before.1 != after.1 {
            compared.other_reasons = compared.other_reasons.saturating_add(1);
        }
        bar.show(Progress { what: "calls judged", done: compared.judged, all });
    }
    bar.end();
    compared
}

/// What a verdict is called.
pub(crate) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "refuse",
    }
}
