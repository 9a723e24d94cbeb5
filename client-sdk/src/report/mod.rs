//! What became of grants, told from verified records and from nothing else.
//!
//! [`of`] verifies a mirror and folds its records into a [`Report`]: who lent what to whom, how it ended and how fast, what was used of
//! what was agreed, what was out of the ordinary, and what none of it proves. The same mirror gives the same report to the byte.
//!
//! **Invariant:** nothing stands in a report but what follows from records up to the mirror's checkpoint, the software's name and the
//! period that was asked for.

mod fold;
mod grant;
mod said;
mod sums;
#[cfg(test)]
mod tests;

use anteroom_policy::{
    event::Entered,
    record::{decode, decode_opened},
};
use anteroom_proto::{
    ledger::scope::Scope,
    names::GrantId,
    rpc::{OutcomeClaim, SignedStatement},
    statement::{acts::LockTarget, envelope},
    time::At,
};

pub use said::{
    AddedRules, BrokerSaid, Clause, ClockSaid, EndSaid, Exception, GrantReport, LockSaid, LogSaid, Part, PauseSaid,
    RefusalSaid, Report, ScopeSaid, Side, Start, TimesSaid, TrustSaid, When,
};
pub use sums::{KEYS_MAX, REST, Sums};

use crate::{
    mirror::{
        Mirror, MirrorError, Tell,
        check::{self, Demands, Verified},
    },
    verify::scope::SliceRecord,
};

/// The form of reports; one of another form is not compared.
pub const FORMAT: u32 = 1;
/// Most exceptions, locks, pauses or starts that are told one by one; there is a count of the others.
pub const LISTED_MAX: usize = 1_000;
/// The software that makes a report, by name and version.
pub const MADE_BY: &str = concat!("anteroom ", env!("CARGO_PKG_VERSION"));

/// What a report is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// This grant alone; absent means all that are mirrored.
    pub grant: Option<GrantId>,
    /// Calls and acts not before this instant.
    pub from: Option<At>,
    /// Calls and acts before this instant.
    pub to: Option<At>,
}

/// Which of a mirror's scopes a report is made from: the grants asked for, and what stands beside all grants.
///
/// # Errors
/// The mirror cannot be read, or has no records of the grant.
pub fn scopes(mirror: &Mirror, asked: &Asked) -> Result<Vec<Scope>, MirrorError> {
    let mut scopes = mirror.scopes()?;
    scopes.retain(|scope| match scope {
        Scope::Grant(grant) => asked.grant.is_none_or(|only| only == *grant),
        Scope::System | Scope::Organisation(_) => true,
        // Who is on a roster and who read what is no part of it.
        Scope::Roster(_) | Scope::Reads(_) => false,
    });
    match asked.grant.map(Scope::Grant) {
        Some(scope) if !scopes.contains(&scope) => Err(MirrorError::NoSlice(scope)),
        Some(_) | None => Ok(scopes),
    }
}

/// Verifies a mirror and reports from these of its scopes.
///
/// # Errors
/// Something does not hold; the error says where.
pub fn of(
    mirror: &Mirror,
    demands: &Demands,
    scopes: &[Scope],
    asked: &Asked,
    made_by: &str,
    tell: Tell<'_>,
) -> Result<(Report, Verified), MirrorError> {
    let size = mirror.checkpoint(&demands.trust)?.checkpoint().size();
    let mut fold = fold::Fold::new(asked.clone());
    let verified = check::verify(mirror, demands, Some(scopes), tell, |record| {
        // What is beyond the checkpoint is not covered yet.
        if record.record.header().index < size
            && let Some(entered) = entered(record)?
        {
            fold.take(&entered);
        }
        Ok(())
    })?;
    let checkpoint = verified.checkpoint().checkpoint();
    let log = LogSaid {
        origin: demands.trust.log().name().to_string(),
        // As the mirror names it: which of the log's keys the reader pinned is no matter of the report.
        key: mirror.named_key()?.to_string(),
        entries: checkpoint.size(),
        root: checkpoint.root().to_string(),
    };
    let scopes = verified.slices().iter().map(|slice| ScopeSaid {
        scope: slice.scope.to_string(),
        records: slice.records,
        destroyed: slice.destroyed,
    });
    let scopes = scopes.collect();
    Ok((fold.finish(log, scopes, made_by), verified))
}

/// A proven record as the deciding functions know it; `None` if it is about others altogether.
fn entered(record: &SliceRecord) -> Result<Option<Entered>, MirrorError> {
    let entry = *record.record.entry();
    let read = match record.full() {
        Some(full) => decode(full, entry).map(Some),
        None => decode_opened(record.record.opened(), entry),
    };
    let index = record.record.header().index;
    read.map_err(|error| MirrorError::Unread { index, why: error.to_string() })
}

/// That the model server reported another build than before, if it did, as the connector signed it.
#[must_use]
pub fn behaviour(outcome: Option<&SignedStatement>) -> Option<String> {
    let claim: OutcomeClaim = envelope::read_claim(outcome?).ok()?;
    let short = |digest: &[u8]| data_encoding::HEXLOWER.encode(digest.get(..4).unwrap_or(digest));
    let (before, build) = (short(&claim.reported_before), short(&claim.reported_build));
    (!before.is_empty())
        .then(|| format!("behaviour changed: the model server reports build {build} where it reported {before}"))
}

/// What a lock hits, in words.
#[must_use]
pub fn target(target: &LockTarget) -> String {
    match target {
        LockTarget::Grant { grant } => grant.to_string(),
        LockTarget::Run { grant, run } => format!("{grant}/{run}"),
        LockTarget::Person { org, pseudonym } => format!("person {org}/{pseudonym}"),
        LockTarget::Employer { employer } => format!("employer {employer}"),
        LockTarget::Organisation { org } => format!("organisation {org}"),
        LockTarget::Line { line } => format!("line {line}"),
        LockTarget::NotUsPerson {} => "whoever is not known to be a U.S. person".to_owned(),
        LockTarget::NotUsOnly {} => "whoever is not known to be a citizen of the United States alone".to_owned(),
        LockTarget::Citizen { country } => format!("whoever is or may be a citizen of {country}"),
    }
}
