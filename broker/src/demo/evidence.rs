//! What an independent reader finds: every scope it may read, whole and proven, and every decision decided again.

use std::collections::BTreeMap;

use anteroom_policy::{
    event::Entered,
    record,
    replay::{Replay, Report},
};
use anteroom_proto::{
    ledger::{record::Record, scope::Scope},
    names::{Digest, GrantId},
};
use anteroom_sdk::{auditor::Auditor, home::Use, verify::scope::SliceRecord};

use super::{Cast, DemoError};

/// What was found.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Scopes read, each shown to be whole, with its number of records.
    pub(super) slices: Vec<(Scope, u64)>,
    /// Records in the log at the newest checkpoint that was verified.
    pub(super) log_size: u64,
    /// What replay found.
    pub(super) report: Report,
}

/// Reads and checks everything that the independent reader is entitled to.
pub(super) async fn gather(cast: &Cast, grants: &[GrantId]) -> Result<Evidence, DemoError> {
    let mut auditor = cast.oversight.auditor().await?;
    let mut scopes: Vec<(Scope, Digest)> = Vec::new();
    let system = cast.oversight.who_am_i().await?.system_nonce;
    scopes.push((Scope::System, Digest::from_slice(&system).map_err(|error| DemoError::Story(error.to_string()))?));
    for home in [&cast.lab, &cast.agency] {
        // The parties that appointed the reader hand over the nonces of what it may read; here that is one process.
        if let Some(enrolment) = home.enrolment()? {
            scopes.push((Scope::Organisation(enrolment.org.clone()), enrolment.nonce));
        }
    }
    for grant in grants {
        let terms = cast.oversight.terms(*grant)?;
        let terms = terms.ok_or_else(|| DemoError::Story(format!("the reader was not handed the terms of {grant}")))?;
        scopes.push((Scope::Grant(*grant), terms.nonce));
    }
    let mut records: BTreeMap<u64, Entered> = BTreeMap::new();
    let mut slices = Vec::new();
    let mut log_size = 0;
    for (scope, nonce) in scopes {
        let (count, size) = slice(&mut auditor, scope.clone(), &nonce, &mut records).await?;
        slices.push((scope, count));
        log_size = log_size.max(size);
    }
    let mut replay = Replay::new();
    let channel = cast.oversight.channel(Use::Read).await?;
    for grant in grants {
        let dossier = cast.oversight.fetch_dossier(&channel, *grant).await?;
        let verified = cast.oversight.take_dossier(&dossier)?;
        if let Some(roster) = &dossier.roster {
            // `take_dossier` held it against the digest in the doubly signed terms.
            replay.adopt_roster(roster).map_err(|error| DemoError::Story(error.to_string()))?;
        }
        drop(verified);
    }
    for entered in records.values() {
        replay.feed(entered);
    }
    Ok(Evidence { slices, log_size, report: replay.finish() })
}

async fn slice(
    auditor: &mut Auditor,
    scope: Scope,
    nonce: &Digest,
    into: &mut BTreeMap<u64, Entered>,
) -> Result<(u64, u64), DemoError> {
    let key = scope.tag_key(nonce);
    let mut reading = auditor.read(scope, key, false).await?;
    while let Some(record) = reading.next().await? {
        if let Some(entered) = entered(&record)? {
            into.insert(entered.index, entered);
        }
    }
    let whole = auditor.prove_whole(reading).await?;
    Ok((whole.records(), whole.checkpoint().checkpoint().size()))
}

fn entered(slice: &SliceRecord) -> Result<Option<Entered>, DemoError> {
    let entry = *slice.record.entry();
    let full: Option<&Record> = slice.full();
    let read = match full {
        Some(full) => record::decode(full, entry).map(Some),
        None => record::decode_opened(slice.record.opened(), entry),
    };
    read.map_err(|error| DemoError::Story(format!("record {} cannot be read: {error}", slice.record.header().index)))
}
