//! The ledger as it is on disk, opened with the operator's keys and folded again, record by record.
//!
//! **Invariant:** the data directory is copied first, so that reading changes nothing in it.

use std::{path::Path, sync::Arc};

use anteroom_broker::{
    book::{
        disk::RealDisk,
        keyring::{Kek, Keyring},
        wal::{self, RecoveredBatch},
    },
    journal::{Core, Sealed},
};
use anteroom_policy::{
    event::{Admitted, Entered, Event, Finished},
    state::State,
};
use anteroom_proto::{
    ledger::{
        checkpoint::LogTrust,
        leaf::Entry,
        note::{KeyName, NoteSigner},
        record::Seed,
        tree::Hash,
    },
    names::{CallId, GrantId},
};

use super::Fallible;

/// The log's name in every test.
pub const ORIGIN: &str = "anteroom.localhost/log";

/// The whole ledger.
#[derive(Debug)]
pub struct Book {
    /// Every record, in order.
    pub records: Vec<Arc<Sealed>>,
    /// Their fold.
    pub state: State,
    /// The root over them.
    pub root: Hash,
    /// Whether a last batch was torn by a crash; nobody was answered from it.
    pub torn: bool,
}

impl Book {
    /// Reads the ledger of a broker that does not run. Every record is held against its entry, its scope's chain and its batch's
    /// signed root.
    ///
    /// # Panics
    /// It is not whole.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        match Self::read(data, |_, _| {}) {
            Ok(book) => book,
            Err(error) => panic!("the ledger in `{}` is not whole: {error}", data.display()),
        }
    }

    /// As [`Book::of`], of a broker that runs and has little to do: what it writes while its files are copied makes the copy
    /// useless, and another one is made.
    ///
    /// # Panics
    /// It is not whole, however often it is copied.
    #[must_use]
    pub fn live(data: &Path) -> Self {
        for _ in 0..20 {
            if let Ok(book) = Self::read(data, |_, _| {}) {
                return book;
            }
        }
        Self::of(data)
    }

    /// As [`Book::of`]; `each` sees every record and the state after it.
    ///
    /// # Errors
    /// It is not whole.
    pub fn read(data: &Path, mut each: impl FnMut(&Entered, &State)) -> Fallible<Self> {
        let copy = tempfile::tempdir()?;
        for folder in ["wal", "keys"] {
            let to = copy.path().join(folder);
            std::fs::create_dir(&to)?;
            for entry in std::fs::read_dir(data.join(folder))? {
                let entry = entry?;
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        let kek = Kek::from_bytes(&std::fs::read(data.join("kek"))?)?;
        let keyring = Keyring::open(Arc::new(RealDisk::open(&copy.path().join("keys"))?), kek)?;
        let signer = Arc::new(signer(data)?);
        let trust = LogTrust::log_only(signer.verifier().clone())?;
        let mut core = Core::new(KeyName::parse(ORIGIN)?, signer);
        let mut records = Vec::new();
        let visit = |batch: RecoveredBatch| -> Fallible<()> {
            for recovered in batch.records {
                let opening = recovered.opening.ok_or("the key of a record is missing")?;
                let entry = Entry::from_bytes(recovered.entry);
                let sealed = core.fold(recovered.index, entry, &Seed::from_bytes(opening.seed), opening.record)?;
                each(&sealed.entered, core.state());
                records.push(sealed);
            }
            let signed = trust.open(&batch.footer.note)?;
            if signed.checkpoint().size() != core.size() || *signed.checkpoint().root() != core.root() {
                return Err("a batch's checkpoint is of another log".into());
            }
            Ok(())
        };
        let disk = Arc::new(RealDisk::open(&copy.path().join("wal"))?);
        let opened = wal::open(disk, ORIGIN, wal::Config::default(), &keyring, visit)?;
        Ok(Self { records, state: core.state().clone(), root: core.root(), torn: opened.torn.is_some() })
    }

    /// What happened, in order.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Entered> {
        self.records.iter().map(|sealed| &sealed.entered)
    }

    /// A call's admission.
    #[must_use]
    pub fn admission(&self, call: CallId) -> Option<(&Entered, &Admitted)> {
        self.events().find_map(|entered| match &entered.event {
            Event::CallAdmitted(admitted) if admitted.call == call => Some((entered, &**admitted)),
            _ => None,
        })
    }

    /// A call's end.
    #[must_use]
    pub fn end(&self, call: CallId) -> Option<(&Entered, &Finished)> {
        self.events().find_map(|entered| match &entered.event {
            Event::CallFinished(finished) if finished.call == call => Some((entered, &**finished)),
            _ => None,
        })
    }

    /// How often a refusal stands on record, those counted and not written included.
    #[must_use]
    pub fn refusals(&self, code: &str) -> u64 {
        self.events()
            .map(|entered| match &entered.event {
                Event::CallRefused(refused) if refused.code == code => 1,
                Event::RefusalsCounted { code: counted, count, .. } if counted == code => *count,
                _ => 0,
            })
            .sum()
    }

    /// Records of a grant's scope that `wanted` picks, in order.
    pub fn of_grant(&self, grant: GrantId, wanted: impl Fn(&Event) -> bool) -> Vec<&Entered> {
        let scope = anteroom_proto::ledger::scope::Scope::Grant(grant);
        self.events().filter(|entered| entered.scope == scope && wanted(&entered.event)).collect()
    }
}

impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state && self.root == other.root && self.records.len() == other.records.len()
    }
}

/// The operator's own signer of checkpoints.
///
/// # Errors
/// The key cannot be read.
pub fn signer(data: &Path) -> Fallible<NoteSigner> {
    let seed = std::fs::read(data.join("log.key"))?;
    let seed: [u8; 32] = seed.as_slice().try_into()?;
    Ok(NoteSigner::from_seed(KeyName::parse(ORIGIN)?, &seed))
}
