//! Where the simulated broker's log lies: in memory, or in the real write-ahead log on a disk that loses what was not synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anteroom_broker::{
    book::{
        disk::lossy::{Fault, LossyDisk},
        keyring::{Kek, KeyId, KeySeed, Keyring},
        wal::{self, BatchBytes, Config, Footer, RecordBytes, RecoveredBatch, Upkeep, Wal, WalError},
    },
    entropy::{self, Entropy},
    journal::{
        blind::Blind,
        core::{Batch, Core},
    },
};
use anteroom_proto::ledger::{leaf::Entry, record::Seed, scope::Scope};

use super::rng::Rng;

const SIZES: Config = Config { segment_bytes: 96 * 1024, reserve_bytes: 48 * 1024 };
const KEK: [u8; 32] = [5; 32];

/// Why a batch was not acknowledged by the disk.
#[derive(Debug)]
pub enum Failure {
    /// No space; nothing was written.
    Full,
    /// The process has to end.
    Fatal(String),
}

/// What went wrong while the log was read back.
#[derive(Debug)]
pub enum Trouble {
    /// The log's bytes.
    Wal(WalError),
    /// Anything else.
    Other(String),
}

impl From<WalError> for Trouble {
    fn from(error: WalError) -> Self {
        Self::Wal(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wal(error) => write!(f, "{error}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// A log read back.
pub struct ReadBack {
    /// The fold.
    pub core: Core,
    /// Every entry.
    pub entries: Vec<Entry>,
    /// Scopes whose key is gone, as the dispositions on record account for them.
    pub gone: BTreeSet<Scope>,
}

/// A log on a lossy disk.
pub struct OnDisk {
    origin: String,
    files: LossyDisk,
    key_files: LossyDisk,
    open: Option<Open>,
}

struct Open {
    wal: Wal,
    keyring: Keyring,
    keys: BTreeMap<Scope, KeyId>,
}

impl OnDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(origin: &str) -> Self {
        Self { origin: origin.to_owned(), files: LossyDisk::new(), key_files: LossyDisk::new(), open: None }
    }

    /// Writes a batch as the journal's writer does.
    pub fn append(&mut self, batch: &Batch, only_ends: bool, entropy: &mut dyn Entropy) -> Result<(), Failure> {
        let (Some(head), Some(open)) = (&batch.head, &mut self.open) else { return Ok(()) };
        let mut records = Vec::new();
        for sealed in &batch.records {
            let key = match open.keys.get(&sealed.scope) {
                Some(key) => *key,
                None => {
                    let seed = KeySeed {
                        id: KeyId(entropy::bytes(entropy)),
                        key: entropy::bytes(entropy),
                        nonce: entropy::bytes(entropy),
                    };
                    let key = open.keyring.create(seed).map_err(|error| Failure::Fatal(error.to_string()))?;
                    open.keys.insert(sealed.scope.clone(), key);
                    key
                }
            };
            records.push(RecordBytes {
                index: sealed.entered.index,
                entry: *sealed.entry.as_bytes(),
                key,
                seed: *sealed.seed.as_bytes(),
                nonce: entropy::bytes(entropy),
                record: sealed.record.bytes().to_vec(),
            });
        }
        let footer = Footer { size: head.size, root: *head.root.as_bytes(), note: head.note.as_bytes().to_vec() };
        let bytes = BatchBytes { records, footer };
        let mut written = open.wal.append(&open.keyring, &bytes);
        if only_ends && matches!(written, Err(WalError::Full)) {
            written = open.wal.append_reserved(&open.keyring, &bytes);
        }
        match written {
            Ok(_) => {
                open.wal.maintain().map_err(|error| Failure::Fatal(error.to_string()))?;
                Ok(())
            }
            Err(WalError::Full | WalError::ReserveSpent) => Err(Failure::Full),
            Err(error) => Err(Failure::Fatal(error.to_string())),
        }
    }

    /// Plans that the process is killed in the middle of one of the next operations.
    pub fn kill_soon(&self, rng: &mut Rng) {
        self.files.fail(rng.below(3), Fault::Killed);
    }

    /// Destroys a scope's key, and is perhaps killed at one of the steps of that; whether it got to the end.
    pub fn destroy(&mut self, scope: &Scope, killed_at: Option<u64>) -> Result<bool, String> {
        let Some(open) = &mut self.open else { return Err("the log is not open".to_owned()) };
        let Some(key) = open.keys.remove(scope) else { return Err(format!("`{scope}` has no key")) };
        if let Some(operation) = killed_at {
            self.key_files.fail(operation, Fault::Killed);
        }
        match open.keyring.destroy(key) {
            Ok(()) => Ok(true),
            Err(_) if killed_at.is_some() => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Leaves no room for another file.
    pub fn fill(&self) {
        self.files.limit_capacity(Some(self.files.used_bytes()));
    }

    /// Makes room again.
    pub fn empty(&mut self) -> Result<(), String> {
        self.files.limit_capacity(None);
        let Some(open) = &mut self.open else { return Ok(()) };
        while open.wal.maintain().map_err(|error| error.to_string())? == Upkeep::More {}
        Ok(())
    }

    /// Cuts the power.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.open = None;
        self.files.limit_capacity(None);
        self.files.crash(rng.word());
        self.key_files.crash(rng.word());
    }

    /// Reads the log back and folds it. Only after a power cut in a write may its end be taken for damage, namely where the cut
    /// went through the last eight bytes of a batch, which no disk of whole sectors does: then a human cuts it.
    pub fn recover(&mut self, fresh: &dyn Fn() -> Core, in_write: bool) -> Result<ReadBack, Trouble> {
        match self.read_back(fresh()) {
            Err(Trouble::Wal(WalError::Corrupt(found))) if in_write => {
                wal::cut_tail(&self.files.again(), &self.origin, &self.keyring()?, &found)?;
                self.read_back(fresh())
            }
            other => other,
        }
    }

    fn keyring(&self) -> Result<Keyring, Trouble> {
        let kek = Kek::from_bytes(&KEK).map_err(|error| Trouble::Other(error.to_string()))?;
        Keyring::open(Arc::new(self.key_files.again()), kek).map_err(|error| Trouble::Other(error.to_string()))
    }

    fn read_back(&mut self, mut core: Core) -> Result<ReadBack, Trouble> {
        let keyring = self.keyring()?;
        let mut keys = BTreeMap::new();
        let mut blind = Blind::default();
        let mut entries = Vec::new();
        let other = |error: &dyn std::fmt::Display| Trouble::Other(error.to_string());
        let visit = |batch: RecoveredBatch| -> Result<(), Trouble> {
            for recovered in batch.records {
                let (index, entry) = (recovered.index, Entry::from_bytes(recovered.entry));
                entries.push(entry);
                let Some(opening) = recovered.opening else {
                    blind.take(recovered.key, index, entry);
                    core.skip(index, entry).map_err(|error| other(&error))?;
                    continue;
                };
                let seed = Seed::from_bytes(opening.seed);
                let sealed = core.fold(index, entry, &seed, opening.record).map_err(|error| other(&error))?;
                keys.entry(sealed.scope.clone()).or_insert(recovered.key);
            }
            if core.size() != batch.footer.size || core.root().as_bytes() != &batch.footer.root {
                return Err(Trouble::Other("a batch's root is not the one signed".to_owned()));
            }
            Ok(())
        };
        let opened = wal::open(Arc::new(self.files.again()), &self.origin, SIZES, &keyring, visit)?;
        let mut wal = opened.wal;
        while wal.maintain()? == Upkeep::More {}
        self.open = Some(Open { wal, keyring, keys });
        let accounted = blind.account_for(core.state()).map_err(|error| other(&error))?;
        let gone = accounted.into_iter().map(|accounted| accounted.scope).collect();
        Ok(ReadBack { core, entries, gone })
    }
}
