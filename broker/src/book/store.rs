//! Where a log is kept, as far as the journal has to know: on this machine's disk, which one writer has for itself
//! ([`wal`](super::wal)), or in a database that several share ([`pg`](super::pg)).
//!
//! **Invariant:** a batch counts whole or not at all, and [`Book::append`] answers once it is durable. Between [`Book::lock`] and
//! the append that follows nobody else appends, so what was decided on the newest log is written on the newest log.

use std::{
    fmt,
    sync::{Arc, RwLock},
    time::Duration,
};

use super::{
    disk::Disk,
    keyring::Keyring,
    view::View,
    wal::{self, BatchBytes, Config, Position, Reader, RecoveredBatch, Resume, Upkeep, Wal, WalError},
};

/// Told of each batch while a log is opened; `false` ends it.
pub type Visit<'v> = dyn FnMut(RecoveredBatch) -> bool + 'v;

/// A place where one log is kept.
pub trait Store: Send + Sync + fmt::Debug {
    /// A reader of its batches. It takes no lock.
    fn reader(&self) -> Box<dyn Reads>;

    /// For how long what was read of the log may be acted upon; for ever if nobody else appends.
    fn view(&self) -> Arc<View> {
        Arc::default()
    }

    /// Takes the right to write, and hands every batch to `visit`, or those from the one at `from` on. Nothing comes back if
    /// `visit` ended it.
    ///
    /// # Errors
    /// Why the log cannot be trusted or used.
    fn open(&self, keyring: &Keyring, from: Option<Resume>, visit: &mut Visit<'_>) -> Result<Option<Opened>, WalError>;
}

/// A log that was read and may be written.
pub struct Opened {
    /// Writes it.
    pub book: Box<dyn Book>,
    /// Where an unfinished batch was cut.
    pub torn: Option<Position>,
}

/// Reads batches in any order.
pub trait Reads: Send + fmt::Debug {
    /// The batch that begins at `at`, or the next one if `at` is the end of one; nothing at the end of the log. Records are opened
    /// with the keys given, entries need none.
    ///
    /// # Errors
    /// There is no batch there and no end either; the store's failures.
    fn read(&mut self, at: Position, keyring: Option<&Keyring>) -> Result<Option<RecoveredBatch>, WalError>;

    /// Where the batch with record `index` begins; nothing beyond the end.
    ///
    /// # Errors
    /// As for [`Reads::read`].
    fn find(&mut self, index: u64) -> Result<Option<Position>, WalError>;

    /// As [`Reads::find`], going forward from a batch that is known to begin at `at` and not after record `index`.
    ///
    /// # Errors
    /// As for [`Reads::read`].
    fn seek(&mut self, at: Position, index: u64) -> Result<Option<Position>, WalError>;
}

/// Appends batches. What is said of others goes for a log that several brokers share; who has it alone keeps the defaults.
pub trait Book: Send {
    /// Takes the right to append the next batch. What others appended after record `size` comes back, oldest first.
    ///
    /// # Errors
    /// [`WalError::Unreachable`]: not now; the right was not taken. Anything fatal.
    fn lock(&mut self, keyring: &RwLock<Keyring>, size: u64) -> Result<Vec<RecoveredBatch>, WalError> {
        let _ = (keyring, size);
        Ok(Vec::new())
    }

    /// Lets that right go; nothing is to be appended.
    fn unlock(&mut self) {}

    /// What others appended after record `size`, without taking any right.
    ///
    /// # Errors
    /// As for [`Book::lock`].
    fn newer(&mut self, keyring: &RwLock<Keyring>, size: u64) -> Result<Vec<RecoveredBatch>, WalError> {
        let _ = (keyring, size);
        Ok(Vec::new())
    }

    /// The first `size` records are folded, and whatever they cut is cut.
    fn folded(&mut self, size: u64) {
        let _ = size;
    }

    /// How often an idle writer asks for what is newer; nothing if nobody else appends.
    fn look_every(&self) -> Option<Duration> {
        None
    }

    /// The orderly end: nothing leaves this broker any more, and the others may know.
    fn leave(&mut self) {}

    /// Appends a batch and returns where it begins once it is durable. A batch of ends and finishes alone may use what is kept
    /// free for them.
    ///
    /// # Errors
    /// [`WalError::Full`], [`WalError::ReserveSpent`] or [`WalError::Unreachable`]: nothing was written, the log goes on. Anything
    /// for which [`WalError::is_fatal`] holds: the process should end, for only a fresh start can tell what is durable.
    fn append(&mut self, keyring: &Keyring, batch: &BatchBytes, only_ends: bool) -> Result<Position, WalError>;

    /// Prepares for what comes, a bounded step at a time.
    ///
    /// # Errors
    /// Fatal ones only.
    fn maintain(&mut self) -> Result<Upkeep, WalError>;

    /// Whether ordinary records are certain to be refused.
    fn is_full(&self) -> bool;
}

impl Reads for Reader {
    fn read(&mut self, at: Position, keyring: Option<&Keyring>) -> Result<Option<RecoveredBatch>, WalError> {
        Self::read(self, at, keyring)
    }

    fn find(&mut self, index: u64) -> Result<Option<Position>, WalError> {
        Self::find(self, index)
    }

    fn seek(&mut self, at: Position, index: u64) -> Result<Option<Position>, WalError> {
        Self::seek(self, at, index)
    }
}

impl Reads for Box<dyn Reads> {
    fn read(&mut self, at: Position, keyring: Option<&Keyring>) -> Result<Option<RecoveredBatch>, WalError> {
        (**self).read(at, keyring)
    }

    fn find(&mut self, index: u64) -> Result<Option<Position>, WalError> {
        (**self).find(index)
    }

    fn seek(&mut self, at: Position, index: u64) -> Result<Option<Position>, WalError> {
        (**self).seek(at, index)
    }
}

impl Book for Wal {
    fn append(&mut self, keyring: &Keyring, batch: &BatchBytes, only_ends: bool) -> Result<Position, WalError> {
        match Self::append(self, keyring, batch) {
            Err(WalError::Full) if only_ends => self.append_reserved(keyring, batch),
            written => written,
        }
    }

    fn maintain(&mut self) -> Result<Upkeep, WalError> {
        Self::maintain(self)
    }

    fn is_full(&self) -> bool {
        Self::is_full(self)
    }
}

/// A log in a folder of segments.
#[derive(Debug)]
pub struct Segments {
    /// The folder.
    pub disk: Arc<dyn Disk>,
    /// The log's name.
    pub origin: String,
    /// Sizes kept ahead of need.
    pub sizes: Config,
}

/// Why opening ended.
enum Halt {
    Visit,
    Wal(WalError),
}

impl From<WalError> for Halt {
    fn from(error: WalError) -> Self {
        Self::Wal(error)
    }
}

impl Store for Segments {
    fn reader(&self) -> Box<dyn Reads> {
        Box::new(Reader::new(Arc::clone(&self.disk), &self.origin))
    }

    fn open(&self, keyring: &Keyring, from: Option<Resume>, visit: &mut Visit<'_>) -> Result<Option<Opened>, WalError> {
        let each = |batch| if visit(batch) { Ok(()) } else { Err(Halt::Visit) };
        let disk = Arc::clone(&self.disk);
        let opened = match from {
            Some(from) => wal::open_from(disk, &self.origin, self.sizes, keyring, from, each),
            None => wal::open(disk, &self.origin, self.sizes, keyring, each),
        };
        match opened {
            Ok(opened) => Ok(Some(Opened { book: Box::new(opened.wal), torn: opened.torn })),
            Err(Halt::Visit) => Ok(None),
            Err(Halt::Wal(error)) => Err(error),
        }
    }
}
