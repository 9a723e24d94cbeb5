//! A thread that asks the database for whoever may not wait in a task: readers of the log, and the keyring.
//!
//! **Invariant:** what is only read is asked for again on a new connection if the old one had gone; what is written is not.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use tokio::runtime::{self, Runtime};

use super::{
    Database,
    link::{Link, failure, unreachable, within},
    rows::{self, Columns, Sealed, field, number, signed},
    schema,
    store::{self, anteroom_root},
};
use crate::book::{
    keyring::{KeyId, Keyring, KeyringError, Table},
    wal::{RecoveredBatch, WalError},
};

/// Requests that wait.
const WAITING_MAX: usize = 64;
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The thread, for whoever asks. It ends with the last clone.
#[derive(Clone)]
pub struct Desk {
    database: Arc<Database>,
    ask: SyncSender<Box<dyn Request>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("database", &self.database).finish_non_exhaustive()
    }
}

trait Request: Send {
    fn answer(self: Box<Self>, connection: &mut Connection);
}

impl<F: FnOnce(&mut Connection) + Send> Request for F {
    fn answer(self: Box<Self>, connection: &mut Connection) {
        self(connection);
    }
}

/// The thread's own.
struct Connection {
    database: Arc<Database>,
    runtime: Runtime,
    link: Option<Link>,
}

impl Connection {
    fn work<T>(
        &mut self,
        again: bool,
        mut work: impl AsyncFnMut(&mut Link) -> Result<T, WalError>,
    ) -> Result<T, WalError> {
        let known = self.link.is_some();
        let answer = self.once(&mut work);
        match answer {
            // A connection that was closed meanwhile says so at its first use.
            Err(WalError::Unreachable { .. }) if known && again => self.once(&mut work),
            answer => answer,
        }
    }

    fn once<T>(&mut self, work: &mut impl AsyncFnMut(&mut Link) -> Result<T, WalError>) -> Result<T, WalError> {
        let link = self.link.take();
        let database = &self.database;
        let done = self.runtime.block_on(within(ANSWER_MAX, async {
            let mut link = match link {
                Some(link) => link,
                None => Link::open(database).await?,
            };
            let answer = work(&mut link).await?;
            Ok((link, answer))
        }));
        done.map(|(link, answer)| {
            self.link = Some(link);
            answer
        })
    }
}

impl Desk {
    /// Starts the thread. Nothing is asked yet.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(database: Database) -> std::io::Result<Self> {
        let database = Arc::new(database);
        let (ask, asked): (_, Receiver<Box<dyn Request>>) = sync_channel(WAITING_MAX);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let mut connection = Connection { database: Arc::clone(&database), runtime, link: None };
        let work = move || {
            while let Ok(request) = asked.recv() {
                request.answer(&mut connection);
            }
        };
        std::thread::Builder::new().name("database".to_owned()).spawn(work)?;
        Ok(Self { database, ask })
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, WalError> + Send + 'static,
    ) -> Result<T, WalError> {
        let (tell, told) = sync_channel(1);
        let request = Box::new(move |connection: &mut Connection| {
            // Whoever asked waits for it.
            let _ = tell.send(work(connection));
        });
        let gone = || unreachable("its thread is gone");
        self.ask.send(request).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())?
    }

    /// Batches from the first that begins with record `from` or later, `most` at most.
    pub(super) fn batches(&self, from: u64, most: i64) -> Result<Vec<Sealed>, WalError> {
        self.ask(move |connection| connection.work(true, async |link| store::read(link, from, most).await))
    }

    /// The first record of the batch that holds record `index`.
    pub(super) fn batch_of(&self, index: u64) -> Result<Option<u64>, WalError> {
        self.ask(move |connection| {
            connection.work(true, async |link| {
                let find = link.prepared(schema::BATCH_OF).await?;
                let row = link.client.query_opt(&find, &[&signed(index)?]).await.map_err(failure)?;
                row.map(|row| number(field(&row, 0)?)).transpose()
            })
        })
    }

    /// The size of the log, which must be the one named.
    ///
    /// # Errors
    /// There is none, or another one.
    pub fn size(&self, origin: &str) -> Result<u64, WalError> {
        let origin = origin.to_owned();
        self.ask(move |connection| connection.work(true, async |link| Ok(store::head(link, &origin).await?.0)))
    }
}

impl Table for Desk {
    fn list(&self) -> Result<Vec<(KeyId, Vec<u8>)>, KeyringError> {
        let read = self.ask(|connection| {
            connection.work(true, async |link| {
                let keys = link.prepared(schema::KEYS).await?;
                let rows = link.client.query(&keys, &[]).await.map_err(failure)?;
                let key = |row| Ok((KeyId(rows::fixed(row, 0)?), field(row, 1)?));
                rows.iter().map(key).collect::<Result<Vec<_>, WalError>>()
            })
        });
        read.map_err(of_keys)
    }

    fn find(&self, id: KeyId) -> Result<Option<Vec<u8>>, KeyringError> {
        let read = self.ask(move |connection| {
            connection.work(true, async |link| {
                let key = link.prepared(schema::KEY).await?;
                let row = link.client.query_opt(&key, &[&id.0.to_vec()]).await.map_err(failure)?;
                row.map(|row| field(&row, 0)).transpose()
            })
        });
        read.map_err(of_keys)
    }

    fn add(&self, id: KeyId, wrapped: &[u8]) -> Result<(), KeyringError> {
        let wrapped = wrapped.to_vec();
        let added = self.ask(move |connection| {
            // A key is new: adding it twice is refused, and nothing is lost with one that nobody uses.
            connection.work(false, async |link| {
                let add = link.prepared(schema::ADD_KEY).await?;
                link.client.execute(&add, &[&id.0.to_vec(), &wrapped]).await.map_err(failure)
            })
        });
        added.map(drop).map_err(of_keys)
    }

    fn remove(&self, id: KeyId) -> Result<(), KeyringError> {
        let removed = self.ask(move |connection| {
            connection.work(true, async |link| {
                let remove = link.prepared(schema::REMOVE_KEY).await?;
                link.client.execute(&remove, &[&id.0.to_vec()]).await.map_err(failure)
            })
        });
        removed.map(drop).map_err(of_keys)
    }
}

fn of_keys(error: WalError) -> KeyringError {
    if error == WalError::Full { KeyringError::Full } else { KeyringError::Unreachable(error.to_string()) }
}

/// Makes the tables of an empty log, all or none. Where there are some, they are left as they are.
///
/// # Errors
/// There are tables, or the database cannot be used.
pub fn create(desk: &Desk, origin: &str) -> Result<(), WalError> {
    let origin = origin.to_owned();
    desk.ask(move |connection| {
        connection.work(false, async |link| {
            let exists = link.client.query_one(schema::EXISTS, &[]).await.map_err(failure)?;
            if field::<i64>(&exists, 0)? > 0 {
                let found = store::head(link, &origin).await;
                let why = match found {
                    Ok((size, _)) => format!("it holds this log already, with {size} records"),
                    Err(WalError::Database { why }) => why,
                    Err(error) => return Err(error),
                };
                return Err(WalError::Database { why });
            }
            link.client.batch_execute(&format!("BEGIN;{}", schema::CREATE)).await.map_err(failure)?;
            let root = anteroom_root().to_vec();
            let made = link.client.execute(schema::FIRST_HEAD, &[&schema::FORMAT, &origin, &root]).await;
            made.map_err(failure)?;
            link.client.batch_execute("COMMIT").await.map_err(failure)
        })
    })
}

/// Adds batches that were written elsewhere to a log that nobody serves yet, in their place, all or none. What nobody can open
/// any more is left out; its entries are not.
///
/// # Errors
/// They do not follow on what is there; a key is missing; the database cannot be used.
pub fn add(
    desk: &Desk,
    origin: &str,
    keyring: &Keyring,
    batches: Vec<RecoveredBatch>,
    random: &mut dyn FnMut() -> [u8; 28],
) -> Result<(), WalError> {
    let mut moved = Vec::with_capacity(batches.len());
    for batch in batches {
        let (id, columns) = rows::seal_again(origin, keyring, &batch, random)?;
        moved.push((batch, id, columns));
    }
    desk.ask(move |connection| {
        connection.work(false, async |link| {
            let (add, records) = (link.prepared(schema::ADD_BATCH).await?, link.prepared(schema::ADD_RECORDS).await?);
            let (lock, head) = (link.prepared(schema::LOCK_HEAD).await?, link.prepared(schema::MOVE_HEAD).await?);
            link.client.batch_execute("BEGIN").await.map_err(failure)?;
            link.client.query_one(&lock, &[]).await.map_err(failure)?;
            for (batch, id, columns) in &moved {
                let first = batch.records.first().map_or(0, |record| record.index);
                let (first, end, root) = (signed(first)?, signed(batch.footer.size)?, batch.footer.root.to_vec());
                let Columns { index, entry, key, nonce, sealed } = columns;
                let moved = link.client.execute(&head, &[&end, &root, &first]).await.map_err(failure)?;
                if moved != 1 {
                    let why =
                        format!("it is not empty, or another process writes to it: record {first} is not the next");
                    return Err(WalError::Database { why });
                }
                let note = &batch.footer.note;
                link.client.execute(&add, &[&first, &end, &id.to_vec(), &root, note]).await.map_err(failure)?;
                link.client.execute(&records, &[index, entry, key, nonce, sealed]).await.map_err(failure)?;
            }
            link.client.batch_execute("COMMIT").await.map_err(failure)
        })
    })
}
