//! What an independent reader finds: every scope it may read, whole and proven, every decision decided again, and a mirror that
//! needs nobody.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anteroom_policy::{
    event::Entered,
    record,
    replay::{Replay, Report},
};
use anteroom_proto::{
    ledger::{record::Record, scope::Scope},
    names::{Digest, GrantId},
};
use anteroom_sdk::{
    auditor::Auditor,
    home::Use,
    mirror::{Mirror, check, take},
    verify::scope::SliceRecord,
};

use super::{Cast, DemoError};

/// How often the mirror is extended until it holds what was read.
const MIRROR_TRIES_MAX: u32 = 20;
/// Between two of these.
const MIRROR_AGAIN: Duration = Duration::from_millis(300);

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

/// Reads and checks everything that the independent reader is entitled to, and mirrors it into `folder`.
pub(super) async fn gather(cast: &Cast, grants: &[GrantId], folder: &Path) -> Result<Evidence, DemoError> {
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
    let keys: Vec<_> = scopes.iter().map(|(scope, nonce)| (scope.clone(), scope.tag_key(nonce))).collect();
    for (scope, nonce) in scopes {
        let (count, size) = slice(&mut auditor, scope.clone(), &nonce, &mut records).await?;
        slices.push((scope, count));
        log_size = log_size.max(size);
    }
    let trust = cast.oversight.log_trust()?;
    // What was read a moment ago is published within a second or so; a mirror grows by what came since.
    for _ in 0..MIRROR_TRIES_MAX {
        let taken = take::extend(&Mirror::at(folder), &mut auditor, &trust, &keys, &mut |_| {}).await?;
        if taken.checkpoint.checkpoint().size() >= log_size {
            break;
        }
        tokio::time::sleep(MIRROR_AGAIN).await;
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

/// Verifies the mirror from its files alone: how many entries it has, and how many slices.
pub(super) fn offline(cast: &Cast, folder: &Path) -> Result<(u64, usize), DemoError> {
    let (trust, known) = (cast.oversight.log_trust()?, cast.oversight.tag_keys()?);
    let demands = check::Demands { trust, known, seen: None, pins: cast.oversight.fingerprints()? };
    let verified = check::verify(&Mirror::at(folder), &demands, None, &mut |_| {}, |_| Ok(()));
    let verified = verified.map_err(anteroom_sdk::error::Error::from)?;
    Ok((verified.checkpoint().checkpoint().size(), verified.slices().len()))
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
