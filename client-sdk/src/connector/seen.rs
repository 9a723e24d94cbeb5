//! Which calls were answered: each identifier once, for as long as its own time lets it come again.
//!
//! The broker promises never to send a call twice; this is what makes that a fact. An identifier carries its time, and one
//! older than 24 hours is refused by [`super::check::check`], so only that window is remembered.
//!
//! **Invariant:** a [`FreshCall`] exists only after its identifier is on disk, so that not even a crash lets the model answer
//! one call twice. If the file cannot be written, no call goes on.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anteroom_proto::{names::CallId, time::At};
use tokio::sync::{mpsc, oneshot};

use super::check::{CALL_AGE_MS_MAX, CheckFailure, CheckedCall};
use crate::durable;

/// Most identifiers that are remembered at once: about 97 calls a second for a whole day. Beyond that calls are refused.
pub const SEEN_MAX: usize = 8 << 20;
/// Most identifiers that share one write.
const BATCH_MAX: usize = 256;
/// Waiting entries. Each belongs to a slot, and a slot waits for its own.
const QUEUE: usize = 1_024;
/// A file with this many entries that are too old for every one that is not is written anew.
const STALE_MIN: usize = 65_536;

const FILE: &str = "seen-calls";
const ID_BYTES: usize = 16;

/// A checked call whose identifier is on disk as answered here: what the model server's caller takes.
#[derive(Debug)]
#[must_use]
pub struct FreshCall(CheckedCall);

impl FreshCall {
    /// The call.
    pub const fn checked(&self) -> &CheckedCall {
        &self.0
    }
}

/// The calls answered here.
#[derive(Debug)]
pub struct Seen {
    entries: mpsc::Sender<Entry>,
}

#[derive(Debug)]
struct Entry {
    call: CallId,
    now: At,
    done: oneshot::Sender<Result<(), Refused>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    Seen,
    Broken,
    Full,
}

impl Seen {
    /// Opens the file in `dir`, forgets what is too old at `now`, and starts the thread that writes.
    ///
    /// # Errors
    /// The file cannot be read or written, or no thread can be started.
    pub fn open(dir: &Path, now: At) -> io::Result<Self> {
        let mut book = Book::open(dir, now)?;
        let (entries, mut waiting) = mpsc::channel::<Entry>(QUEUE);
        let write = move || {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            while let Some(first) = waiting.blocking_recv() {
                batch.push(first);
                while batch.len() < BATCH_MAX
                    && let Ok(next) = waiting.try_recv()
                {
                    batch.push(next);
                }
                book.enter(&mut batch);
            }
        };
        std::thread::Builder::new().name("seen-calls".to_owned()).spawn(write)?;
        Ok(Self { entries })
    }

    /// Enters a call as answered and returns once that is on disk.
    ///
    /// # Errors
    /// The identifier was seen, or cannot be written.
    pub async fn enter(&self, call: CheckedCall, now: At) -> Result<FreshCall, CheckFailure> {
        let (done, entered) = oneshot::channel();
        let entry = Entry { call: call.call(), now, done };
        let stopped = |why: &str| CheckFailure::Stopped(why.to_owned());
        self.entries.send(entry).await.map_err(|_| stopped("the memory of answered calls is gone"))?;
        match entered.await {
            Ok(Ok(())) => Ok(FreshCall(call)),
            Ok(Err(Refused::Seen)) => Err(CheckFailure::Seen),
            Ok(Err(Refused::Full)) => Err(stopped("more calls were answered in 24 hours than can be remembered")),
            Ok(Err(Refused::Broken)) | Err(_) => Err(stopped("the memory of answered calls cannot be written")),
        }
    }
}

/// The set and its file, owned by the writing thread.
struct Book {
    dir: PathBuf,
    file: File,
    calls: BTreeSet<CallId>,
    written: usize,
    /// A write failed: what is on disk is unknown, so nothing more is entered.
    broken: bool,
}

impl Book {
    fn open(dir: &Path, now: At) -> io::Result<Self> {
        let path = dir.join(FILE);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (ids, torn) = bytes.as_chunks::<ID_BYTES>();
        if !torn.is_empty() {
            // The last write was cut short by a crash, so its call was never answered.
            file.set_len(u64::try_from(bytes.len() - torn.len()).map_err(io::Error::other)?)?;
        }
        file.sync_all()?;
        durable::sync_dir(dir)?;
        let calls = ids.iter().map(|id| CallId::from_bytes(*id)).collect();
        let mut book = Self { dir: dir.to_owned(), file, calls, written: ids.len(), broken: false };
        book.forget(now)?;
        Ok(book)
    }

    /// Drops what [`super::check::check`] refuses by its age.
    fn forget(&mut self, now: At) -> io::Result<()> {
        let oldest = CallId::new(now.ms().saturating_sub(CALL_AGE_MS_MAX), [0; 10]);
        if self.calls.first().is_some_and(|first| *first < oldest) {
            self.calls = self.calls.split_off(&oldest);
        }
        let stale = self.written.saturating_sub(self.calls.len());
        if stale >= STALE_MIN && stale > self.calls.len() {
            let bytes: Vec<u8> = self.calls.iter().flat_map(CallId::as_bytes).copied().collect();
            durable::write_whole(&self.dir, FILE, &bytes)?;
            self.file = OpenOptions::new().append(true).open(self.dir.join(FILE))?;
            self.written = self.calls.len();
        }
        Ok(())
    }

    fn enter(&mut self, batch: &mut Vec<Entry>) {
        let now = batch.iter().map(|entry| entry.now).max().unwrap_or(At::ZERO);
        let mut bytes = Vec::with_capacity(batch.len() * ID_BYTES);
        let mut fresh = Vec::with_capacity(batch.len());
        for entry in batch.drain(..) {
            let refused = if self.broken {
                Some(Refused::Broken)
            } else if self.calls.len() >= SEEN_MAX {
                Some(Refused::Full)
            } else if self.calls.insert(entry.call) {
                None
            } else {
                Some(Refused::Seen)
            };
            match refused {
                // Nobody waiting any more is no reason to answer twice: the identifier stays.
                Some(refused) => {
                    let _ = entry.done.send(Err(refused));
                }
                None => {
                    bytes.extend_from_slice(entry.call.as_bytes());
                    fresh.push(entry.done);
                }
            }
        }
        let kept = if fresh.is_empty() { Ok(()) } else { self.append(&bytes).and_then(|()| self.forget(now)) };
        if let Err(error) = &kept {
            tracing::error!(%error, "the memory of answered calls cannot be written; no call is answered any more");
            self.broken = true;
        }
        let told = kept.map_err(|_| Refused::Broken);
        for done in fresh {
            let _ = done.send(told);
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.written = self.written.saturating_add(bytes.len() / ID_BYTES);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    const NOW: i64 = 1_795_000_000_000;

    fn now() -> At {
        At::clamped(NOW)
    }

    fn enter(book: &mut Book, calls: &[CallId], now: At) -> Vec<Result<(), Refused>> {
        let mut waits = Vec::new();
        let mut batch = Vec::new();
        for call in calls {
            let (done, wait) = oneshot::channel();
            waits.push(wait);
            batch.push(Entry { call: *call, now, done });
        }
        book.enter(&mut batch);
        waits.into_iter().map(|mut wait| wait.try_recv().unwrap()).collect()
    }

    #[test]
    fn a_call_is_entered_once_across_batches_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (CallId::new(NOW, [1; 10]), CallId::new(NOW, [2; 10]));
        let mut book = Book::open(dir.path(), now()).unwrap();
        assert_eq!(enter(&mut book, &[a, a], now()), [Ok(()), Err(Refused::Seen)]);
        drop(book);
        let mut book = Book::open(dir.path(), now()).unwrap();
        assert_eq!(enter(&mut book, &[b, a], now()), [Ok(()), Err(Refused::Seen)]);
    }

    #[test]
    fn a_torn_entry_is_cut_and_the_rest_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (CallId::new(NOW, [1; 10]), CallId::new(NOW, [2; 10]));
        drop(enter(&mut Book::open(dir.path(), now()).unwrap(), &[a], now()));
        let mut file = OpenOptions::new().append(true).open(dir.path().join(FILE)).unwrap();
        file.write_all(&b.as_bytes()[..7]).unwrap();
        let mut book = Book::open(dir.path(), now()).unwrap();
        assert_eq!(enter(&mut book, &[a, b], now()), [Err(Refused::Seen), Ok(())]);
        drop(book);
        let mut book = Book::open(dir.path(), now()).unwrap();
        assert_eq!(enter(&mut book, &[a, b], now()), [Err(Refused::Seen), Err(Refused::Seen)]);
    }

    #[test]
    fn what_is_too_old_is_forgotten_and_the_file_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let id = |n: u32| {
            let mut random = [0; 10];
            random.split_at_mut(4).0.copy_from_slice(&n.to_be_bytes());
            random
        };
        let old: Vec<u8> =
            (0..70_000).flat_map(|n| *CallId::new(NOW - CALL_AGE_MS_MAX - 1, id(n)).as_bytes()).collect();
        durable::write_whole(dir.path(), FILE, &old).unwrap();
        let mut book = Book::open(dir.path(), now()).unwrap();
        assert!(book.calls.is_empty());
        let young = CallId::new(NOW, [1; 10]);
        assert_eq!(enter(&mut book, &[young], now()), [Ok(())]);
        assert_eq!(durable::read(dir.path(), FILE).unwrap().unwrap(), young.as_bytes());
    }

    #[test]
    fn a_failed_write_ends_all_entering() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::open(dir.path(), now()).unwrap();
        // A file opened for reading takes no bytes.
        book.file = File::open(dir.path().join(FILE)).unwrap();
        let (a, b) = (CallId::new(NOW, [1; 10]), CallId::new(NOW, [2; 10]));
        assert_eq!(enter(&mut book, &[a], now()), [Err(Refused::Broken)]);
        book.file = OpenOptions::new().append(true).open(dir.path().join(FILE)).unwrap();
        assert_eq!(enter(&mut book, &[b], now()), [Err(Refused::Broken)]);
    }
}
