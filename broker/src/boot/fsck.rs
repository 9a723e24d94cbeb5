//! Reads the whole ledger and recomputes everything in it: every digest, tag, chain, root and signature.
//!
//! **Invariant:** it changes nothing on disk.

use std::sync::Arc;

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{
    ledger::{checkpoint::LogTrust, leaf::Entry, record::Seed, scope::Scope},
    time::At,
};

use super::{Folder, StartError, folder, keyring, overlay::Overlay};
use crate::{
    book::{
        disk::RealDisk,
        wal::{self, RecoveredBatch, WalError},
    },
    config::Config,
    journal::{
        Core,
        blind::{Accounted, Blind},
        core::CoreError,
        recover::RecoverError,
    },
};

/// What a whole ledger holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Records.
    pub records: u64,
    /// Batches, each with a signed checkpoint.
    pub batches: u64,
    /// The root over all records, base64.
    pub root: String,
    /// The newest checkpoint; empty in an empty log.
    pub checkpoint: String,
    /// Calls that were admitted and have no end yet.
    pub open_calls: usize,
    /// Records that nobody can read any more, by the dispositions that say why.
    pub blind: Vec<Accounted>,
    /// The scopes that may once be destroyed, and from when on the schedule lets them be, or why not.
    pub scopes: Vec<Kept>,
    /// Where a batch begins that a crash left unfinished, as `segment` and `offset`. Nobody was answered from it.
    pub torn: Option<(u64, u64)>,
}

/// A scope that is kept for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// It.
    pub scope: Scope,
    /// From when on it may be destroyed, or why it may not.
    pub due: Result<At, Refusal>,
    /// How many holds stand on it.
    pub holds: usize,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// The log's bytes.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A record or a root.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// Records cannot be opened, and no disposition says why.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A batch's checkpoint.
    #[error("the checkpoint over {size} records {why}")]
    Checkpoint {
        /// The batch's size.
        size: u64,
        /// What is wrong.
        why: String,
    },
}

/// Checks the ledger in the configured data directory. Waits for the disk.
///
/// # Errors
/// `Err` if the ledger cannot be looked at; `Ok(Err)` with the first thing wrong in it.
pub fn fsck(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Result<Checked, Wrong>, StartError> {
    let folder = Folder::open(&config.data_dir)?;
    let open = |path: std::path::PathBuf| match RealDisk::open(&path) {
        Ok(disk) => Ok(Arc::new(Overlay::new(disk))),
        Err(source) => Err(StartError::Folder { path: path.display().to_string(), source }),
    };
    let keyring = keyring(config, open(folder.keys())?, environment)?;
    let signer = Arc::new(folder::signer(config, environment)?);
    let trust = LogTrust::log_only(signer.verifier().clone()).map_err(|error| StartError::LogKey(error.to_string()))?;
    let disk = open(folder.wal())?;
    let mut core = Core::new(config.origin.clone(), signer);
    let mut checked = Checked {
        records: 0,
        batches: 0,
        root: String::new(),
        checkpoint: String::new(),
        open_calls: 0,
        blind: Vec::new(),
        scopes: Vec::new(),
        torn: None,
    };
    let mut blind = Blind::default();
    let visit = |batch: RecoveredBatch| -> Result<(), Wrong> {
        for recovered in batch.records {
            let entry = Entry::from_bytes(recovered.entry);
            let Some(opening) = recovered.opening else {
                blind.take(recovered.key, recovered.index, entry);
                core.skip(recovered.index, entry)?;
                continue;
            };
            core.fold(recovered.index, entry, &Seed::from_bytes(opening.seed), opening.record)?;
        }
        let size = batch.footer.size;
        if core.size() != size || core.root().as_bytes() != &batch.footer.root {
            return Err(CoreError::Root { size }.into());
        }
        checked.checkpoint = check_note(&trust, &core, size, &batch.footer.note)?;
        checked.batches = checked.batches.saturating_add(1);
        Ok(())
    };
    let origin = config.origin.to_string();
    let opened = match wal::open(disk, &origin, config.wal, &keyring, visit) {
        Ok(opened) => opened,
        // Nothing is wrong with a log that another process holds.
        Err(Wrong::Wal(WalError::Locked)) => return Err(StartError::InUse),
        Err(wrong) => return Ok(Err(wrong)),
    };
    match blind.account_for(core.state()) {
        Ok(accounted) => checked.blind = accounted,
        Err(error) => return Ok(Err(error.into())),
    }
    let holds = &core.state().standing().holds;
    for (scope, head) in core.state().scopes() {
        if head.next_seq > 0 && matches!(scope, Scope::Roster(_) | Scope::Reads(_) | Scope::Grant(_)) {
            let due = config.retention.due_from(core.state(), scope);
            let holds = holds.values().filter(|stands| stands.hold.scope == *scope).count();
            checked.scopes.push(Kept { scope: scope.clone(), due, holds });
        }
    }
    checked.records = core.size();
    checked.root = data_encoding::BASE64.encode(core.root().as_bytes());
    checked.open_calls = core.state().open_count();
    checked.torn = opened.torn.map(|at| (at.segment, at.offset));
    Ok(Ok(checked))
}

fn check_note(trust: &LogTrust, core: &Core, size: u64, bytes: &[u8]) -> Result<String, Wrong> {
    let wrong = |why: String| Wrong::Checkpoint { size, why };
    let verified = trust.open(bytes).map_err(|error| wrong(format!("does not verify: {error}")))?;
    let checkpoint = verified.checkpoint();
    if checkpoint.size() != size || *checkpoint.root() != core.root() {
        return Err(wrong("names another size or root".to_owned()));
    }
    Ok(verified.note().encode())
}
