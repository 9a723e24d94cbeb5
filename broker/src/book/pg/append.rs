//! Appending to a log that others append to as well.

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use tokio::{join, runtime::Runtime};

use super::{
    LOOK_EVERY_MS,
    link::{Link, failure, unreachable, within},
    rows::{self, Columns, Sealed, damaged, field, fixed, number, position, signed},
    schema,
    store::Shared,
};
use crate::book::{
    keyring::Keyring,
    store::Book,
    view::VIEW_MS,
    wal::{BatchBytes, NOTE_BYTES_MAX, Position, RecoveredBatch, Upkeep, WalError},
};

/// Longest wait for the lock on the head, or for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long the outcome of an append is asked for before the process ends.
const RESOLVE_MAX: Duration = Duration::from_secs(20);
/// From one sign of life to the next.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// Between two tries to reach the database.
const RETRY: Duration = Duration::from_millis(100);
/// Records that are folded in one go; whoever is further behind starts anew, from a snapshot.
const BEHIND_MAX: u64 = 200_000;
/// Batches read at once.
const AT_ONCE: i64 = 64;

/// Writes the log.
pub(super) struct Writer {
    shared: Shared,
    runtime: Runtime,
    link: Option<Link>,
    /// The newest head that was seen, with its root.
    head: (u64, [u8; 32]),
    /// Records that were folded here.
    folded: u64,
    /// Records that this broker's row says were.
    told: u64,
    beaten: Option<Instant>,
    /// When the question was sent whose answer leads to a head that is not folded yet.
    pending: Option<(u64, i64)>,
    /// When the lock on the head was asked for, while it is held.
    locked: Option<i64>,
}

impl Writer {
    pub(super) fn new(shared: Shared, runtime: Runtime, link: Link, head: (u64, [u8; 32])) -> Self {
        let (folded, told) = (head.0, 0);
        Self { shared, runtime, link: Some(link), head, folded, told, beaten: None, pending: None, locked: None }
    }

    fn confirm(&self, sent: i64) {
        self.shared.view.extend(sent.saturating_add(VIEW_MS));
    }

    /// Takes the lock and reads what is newer. Whatever fails leaves no lock: the connection is given up.
    fn take(&mut self, size: u64) -> Result<Vec<Sealed>, WalError> {
        let (shared, known) = (&self.shared, self.head);
        let mut link = self.link.take();
        let taken = self.runtime.block_on(within(ANSWER_MAX, async {
            let mut link = match link.take() {
                Some(link) => link,
                None => Link::open(&shared.database).await?,
            };
            let (head, beat) = (link.prepared(schema::LOCK_HEAD).await?, link.prepared(schema::BEAT).await?);
            let (name, so_far) = (shared.broker.to_vec(), signed(size)?);
            let (begun, head, beaten) = {
                let client = &link.client;
                join!(client.batch_execute("BEGIN"), client.query_one(&head, &[]), async {
                    client.execute(&beat, &[&name, &so_far]).await
                })
            };
            begun.map_err(failure)?;
            let head = head.map_err(failure)?;
            if beaten.map_err(failure)? != 1 {
                return Err(expelled());
            }
            let head = (number(field(&head, 0)?)?, fixed(&head, 1)?);
            check(known, head, size)?;
            let newer = read(&mut link, size, head.0).await?;
            Ok((link, head, newer))
        }));
        let (link, head, newer) = taken?;
        (self.link, self.head) = (Some(link), head);
        Ok(newer)
    }

    /// Adds the rows and commits. `None`: whether they are there has to be asked.
    fn write(&mut self, batch: &BatchBytes, columns: &Columns, id: [u8; 16]) -> Result<Option<()>, WalError> {
        let Some(mut link) = self.link.take() else { return Err(unreachable("the lock was lost")) };
        let size = self.head.0;
        // Until the end of the transaction is asked for, nothing can have been written.
        let prepared = self.runtime.block_on(within(ANSWER_MAX, async {
            let head = link.prepared(schema::MOVE_HEAD).await?;
            Ok((link.prepared(schema::ADD_BATCH).await?, link.prepared(schema::ADD_RECORDS).await?, head))
        }));
        let (add, records, head) = prepared?;
        let footer = &batch.footer;
        let (first, end) = (signed(size)?, signed(footer.size)?);
        let (root, id) = (footer.root.to_vec(), id.to_vec());
        let client = &link.client;
        let written = self.runtime.block_on(within(ANSWER_MAX, async {
            Ok(join!(
                async { client.execute(&add, &[&first, &end, &id, &root, &footer.note]).await },
                async {
                    let Columns { index, entry, key, nonce, sealed } = columns;
                    client.execute(&records, &[index, entry, key, nonce, sealed]).await
                },
                async { client.execute(&head, &[&end, &root, &first]).await },
                client.batch_execute("COMMIT"),
            ))
        }));
        let Ok((add, records, head, committed)) = written else { return Ok(None) };
        // After a statement that failed the server ends the transaction without it, and says so to whoever asked for its end.
        let by_server = |count: &Count| count.as_ref().is_err_and(|error| error.as_db_error().is_some());
        if [&add, &records, &head].into_iter().any(by_server) {
            return Err(failure_of(add, records, head));
        }
        if committed.is_err() || add.is_err() || records.is_err() || head.is_err() || link.was_unreplicated() {
            return Ok(None);
        }
        self.link = Some(link);
        Ok(Some(()))
    }

    /// Asks, under the lock on the head, whether a batch is there: whoever tried to write it holds that lock no more.
    fn resolve(&mut self, id: [u8; 16]) -> Result<bool, WalError> {
        tracing::warn!("whether the last batch was written is not known; asking");
        let until = Instant::now() + RESOLVE_MAX;
        loop {
            let shared = &self.shared;
            let asked = self.runtime.block_on(within(ANSWER_MAX, async {
                let mut link = Link::open(&shared.database).await?;
                let (head, beat) = (link.prepared(schema::LOCK_HEAD).await?, link.prepared(schema::BEAT).await?);
                let find = link.prepared(schema::FIND_BATCH).await?;
                link.client.batch_execute("BEGIN").await.map_err(failure)?;
                let head = link.client.query_one(&head, &[]).await.map_err(failure)?;
                let head: (u64, [u8; 32]) = (number(field(&head, 0)?)?, fixed(&head, 1)?);
                let found = link.client.query_opt(&find, &[&id.to_vec()]).await.map_err(failure)?;
                // Something is written, so that what stands before it is as durable as the end of this transaction.
                let (name, folded) = (shared.broker.to_vec(), signed(self.folded)?);
                if link.client.execute(&beat, &[&name, &folded]).await.map_err(failure)? != 1 {
                    return Err(expelled());
                }
                link.client.batch_execute("COMMIT").await.map_err(failure)?;
                if link.was_unreplicated() {
                    return Err(unreachable("its standbys do not answer"));
                }
                Ok((link, head, found.is_some()))
            }));
            match asked {
                Ok((link, head, found)) => {
                    check(self.head, head, self.head.0)?;
                    tracing::warn!(found, "what became of the last batch is known");
                    self.link = Some(link);
                    return Ok(found);
                }
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) if Instant::now() >= until => {
                    let why =
                        format!("nobody can tell whether the last batch was written ({error}); a start finds out");
                    return Err(WalError::Database { why });
                }
                Err(_) => self.runtime.block_on(async { tokio::time::sleep(RETRY).await }),
            }
        }
    }

    fn ask(&mut self, size: u64, beat: bool) -> Result<Vec<Sealed>, WalError> {
        let (shared, known) = (&self.shared, self.head);
        let mut link = self.link.take();
        let asked = self.runtime.block_on(within(ANSWER_MAX, async {
            let mut link = match link.take() {
                Some(link) => link,
                None => Link::open(&shared.database).await?,
            };
            let (head, beaten) = (link.prepared(schema::HEAD).await?, link.prepared(schema::BEAT).await?);
            let (name, so_far) = (shared.broker.to_vec(), signed(size)?);
            let client = &link.client;
            if beat {
                let (beaten, head) = join!(async { client.execute(&beaten, &[&name, &so_far]).await }, async {
                    client.query_one(&head, &[]).await
                });
                if beaten.map_err(failure)? != 1 {
                    return Err(expelled());
                }
                if link.was_unreplicated() {
                    return Err(unreachable("its standbys do not answer"));
                }
                return Ok((read_from(&mut link, head.map_err(failure)?, known, size).await?, link));
            }
            let head = client.query_one(&head, &[]).await.map_err(failure)?;
            Ok((read_from(&mut link, head, known, size).await?, link))
        }));
        let ((head, newer), link) = asked?;
        (self.link, self.head) = (Some(link), head);
        Ok(newer)
    }

    fn opened(&self, keyring: &RwLock<Keyring>, newer: &[Sealed]) -> Result<Vec<RecoveredBatch>, WalError> {
        newer.iter().map(|batch| self.shared.open(keyring, batch)).collect()
    }
}

async fn read_from(
    link: &mut Link,
    head: tokio_postgres::Row,
    known: (u64, [u8; 32]),
    size: u64,
) -> Result<((u64, [u8; 32]), Vec<Sealed>), WalError> {
    let head = (number(field(&head, 2)?)?, fixed(&head, 3)?);
    check(known, head, size)?;
    let newer = read(link, size, head.0).await?;
    Ok((head, newer))
}

/// The batches from record `from` up to the head.
async fn read(link: &mut Link, from: u64, to: u64) -> Result<Vec<Sealed>, WalError> {
    if to.saturating_sub(from) > BEHIND_MAX {
        let why = format!("{} records were appended by others meanwhile: start again", to - from);
        return Err(WalError::Database { why });
    }
    let (mut next, mut newer) = (from, Vec::new());
    while next < to {
        let found = rows::batches(link, next, AT_ONCE).await?;
        let Some(last) = found.last() else { return Err(damaged("records are missing before its head")) };
        next = last.footer.size;
        newer.extend(found);
    }
    Ok(newer)
}

/// A head never goes back, and never turns into another one of the same size.
fn check(known: (u64, [u8; 32]), found: (u64, [u8; 32]), size: u64) -> Result<(), WalError> {
    let another = found.0 == known.0 && found.1 != known.1;
    if found.0 < known.0.max(size) || another {
        let why = format!(
            "its head has {} records where {} were seen: an older copy or another log was put in its place",
            found.0,
            known.0.max(size)
        );
        return Err(WalError::Database { why });
    }
    Ok(())
}

fn expelled() -> WalError {
    let why = "other brokers counted this one as gone, or its row was removed; start it again".to_owned();
    WalError::Database { why }
}

type Count = Result<u64, tokio_postgres::Error>;

fn failure_of(add: Count, records: Count, head: Count) -> WalError {
    // The first that failed is the one that says why; those behind it only say that something did.
    [add, records, head].into_iter().find_map(Result::err).map_or_else(|| damaged("it refused a batch"), failure)
}

impl Book for Writer {
    fn lock(&mut self, keyring: &RwLock<Keyring>, size: u64) -> Result<Vec<RecoveredBatch>, WalError> {
        let sent = (self.shared.boot_ms)();
        let newer = self.take(size)?;
        self.locked = Some(sent);
        self.beaten = Some(Instant::now());
        match self.opened(keyring, &newer) {
            Ok(newer) => Ok(newer),
            Err(error) => {
                self.unlock();
                Err(error)
            }
        }
    }

    fn unlock(&mut self) {
        let Some(sent) = self.locked.take() else { return };
        let Some(link) = self.link.take() else { return };
        // Committed rather than rolled back: the sign of life counts.
        let ended = self
            .runtime
            .block_on(within(ANSWER_MAX, async { link.client.batch_execute("COMMIT").await.map_err(failure) }));
        if ended.is_ok() && !link.was_unreplicated() {
            self.link = Some(link);
            self.confirm(sent);
        }
    }

    fn newer(&mut self, keyring: &RwLock<Keyring>, size: u64) -> Result<Vec<RecoveredBatch>, WalError> {
        let beat = self.told < self.folded || self.beaten.is_none_or(|last| last.elapsed() >= BEAT_EVERY);
        let sent = (self.shared.boot_ms)();
        let newer = self.ask(size, beat)?;
        if beat {
            (self.told, self.beaten) = (size, Some(Instant::now()));
            self.pending = Some((self.head.0, sent));
        }
        self.opened(keyring, &newer)
    }

    fn folded(&mut self, size: u64) {
        self.folded = size;
        if let Some((head, sent)) = self.pending
            && size >= head
        {
            self.pending = None;
            self.confirm(sent);
        }
    }

    fn look_every(&self) -> Option<Duration> {
        // What was folded is told at once: somebody may wait for it.
        Some(if self.told < self.folded && self.link.is_some() {
            Duration::from_millis(1)
        } else {
            Duration::from_millis(LOOK_EVERY_MS)
        })
    }

    fn leave(&mut self) {
        let shared = &self.shared;
        let mut link = self.link.take();
        let left = self.runtime.block_on(within(ANSWER_MAX, async {
            let mut link = match link.take() {
                Some(link) => link,
                None => Link::open(&shared.database).await?,
            };
            let leave = link.prepared(schema::LEAVE).await?;
            link.client.execute(&leave, &[&shared.broker.to_vec()]).await.map_err(failure)
        }));
        if let Err(error) = left {
            tracing::warn!(%error, "the other brokers find out by themselves that this one is gone");
        }
    }

    fn append(&mut self, keyring: &Keyring, batch: &BatchBytes, _only_ends: bool) -> Result<Position, WalError> {
        let Some(sent) = self.locked.take() else { return Err(unreachable("the lock was not taken")) };
        let first = self.head.0;
        let records = batch.records.iter().map(|record| record.index);
        let next = first.checked_add(batch.records.len() as u64).ok_or(WalError::EmptyBatch)?;
        if batch.records.is_empty() || !records.eq(first..next) || batch.footer.size != next {
            self.link = None;
            return Err(WalError::FooterSize { expected: next, found: batch.footer.size });
        }
        if batch.footer.note.len() > NOTE_BYTES_MAX {
            self.link = None;
            return Err(WalError::UnfitNote);
        }
        let columns = rows::seal(&self.shared.origin, keyring, batch).inspect_err(|_| self.link = None)?;
        let id: [u8; 16] = (self.shared.random)();
        if self.write(batch, &columns, id)?.is_none() && !self.resolve(id)? {
            return Err(unreachable("the connection was lost before the batch was written"));
        }
        self.head = (batch.footer.size, batch.footer.root);
        self.confirm(sent);
        Ok(position(first))
    }

    fn maintain(&mut self) -> Result<Upkeep, WalError> {
        Ok(Upkeep::Done)
    }

    fn is_full(&self) -> bool {
        false
    }
}

/// What a [`Shared`] needs of its process, as functions: time since boot, and random bytes.
pub(super) type BootMs = Arc<dyn Fn() -> i64 + Send + Sync>;
/// Random bytes for the names of batches.
pub(super) type Random = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;
