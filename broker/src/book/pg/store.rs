//! The shared log as the journal takes it: opening and reading it.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::runtime;

use super::{
    append::{BootMs, Random, Writer},
    desk::Desk,
    link::{Link, failure, unreachable, within},
    rows::{self, Sealed, damaged, field, fixed, number, position, signed},
    schema,
};
use crate::book::{
    keyring::{Keyring, KeyringError},
    store::{Opened, Reads, Store, Visit},
    view::View,
    wal::{Position, RecoveredBatch, Resume, WalError},
};

/// Longest wait for an answer at a start.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Batches read at once.
const AT_ONCE: i64 = 32;

/// The size that reading came to, and the root there, if anything was read.
type Reached = (u64, Option<[u8; 32]>);

/// A log that several brokers share, as one of them sees it. Cloning shares it.
#[derive(Clone)]
pub struct Shared {
    pub(super) database: super::Database,
    pub(super) origin: Arc<str>,
    pub(super) broker: [u8; 16],
    pub(super) view: Arc<View>,
    pub(super) boot_ms: BootMs,
    pub(super) random: Random,
    desk: Desk,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Shared {
    /// The log `origin` behind `desk`, for the broker of this name.
    #[must_use]
    pub fn new(desk: Desk, origin: &str, broker: [u8; 16], boot_ms: BootMs, random: Random) -> Self {
        let (database, view) = (desk.database().clone(), Arc::new(View::unconfirmed()));
        Self { database, origin: origin.into(), broker, view, boot_ms, random, desk }
    }

    /// Opens a batch; keys that other brokers made meanwhile are fetched.
    pub(super) fn open(&self, keyring: &RwLock<Keyring>, batch: &Sealed) -> Result<RecoveredBatch, WalError> {
        let unknown: Vec<_> = {
            let keyring = keyring.read().unwrap_or_else(PoisonError::into_inner);
            batch.records.iter().map(|row| row.key).filter(|key| keyring.find(*key).is_none()).collect()
        };
        if !unknown.is_empty() {
            let mut keyring = keyring.write().unwrap_or_else(PoisonError::into_inner);
            for key in unknown {
                keyring.learn(key).map_err(of_keys)?;
            }
        }
        batch.open(&self.origin, Some(&keyring.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn visit(&self, keyring: &Keyring, from: u64, visit: &mut Visit<'_>) -> Result<Option<Reached>, WalError> {
        let (mut next, mut root) = (from, None);
        loop {
            let found = self.desk.batches(next, AT_ONCE)?;
            if found.is_empty() {
                return Ok(Some((next, root)));
            }
            for batch in &found {
                if batch.first != next && (from == 0 || root.is_some()) {
                    return Err(damaged("its batches do not follow on each other"));
                }
                (next, root) = (batch.footer.size, Some(batch.footer.root));
                if !visit(batch.open(&self.origin, Some(keyring))?) {
                    return Ok(None);
                }
            }
        }
    }
}

impl Store for Shared {
    fn reader(&self) -> Box<dyn Reads> {
        Box::new(Reader { shared: self.clone(), ahead: Vec::new() })
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    fn open(&self, keyring: &Keyring, from: Option<Resume>, visit: &mut Visit<'_>) -> Result<Option<Opened>, WalError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unreachable(&error.to_string()))?;
        let link = runtime.block_on(within(ANSWER_MAX, async {
            let mut link = Link::open(&self.database).await?;
            head(&mut link, &self.origin).await?;
            Ok(link)
        }))?;
        let from = from.map_or(0, |from| from.first);
        let Some((size, root)) = self.visit(keyring, from, visit)? else { return Ok(None) };
        // From here on others wait for this broker, and count it as gone if it does not show that it is there.
        let (link, head) = runtime.block_on(within(ANSWER_MAX, async {
            let mut link = link;
            let join = link.prepared(schema::JOIN).await?;
            let joined = link.client.execute(&join, &[&self.broker.to_vec(), &signed(size)?, &Vec::<u8>::new()]).await;
            joined.map_err(failure)?;
            let head = head(&mut link, &self.origin).await?;
            Ok((link, head))
        }))?;
        let head = match root {
            Some(root) if head.0 > size => (size, root),
            Some(root) if head != (size, root) => return Err(damaged("its head is not that of its last batch")),
            None if head.0 != size && size > 0 => return Err(damaged("its head is not that of its last batch")),
            None if head.0 > size => (size, anteroom_root()),
            Some(_) | None => head,
        };
        let book = Writer::new(self.clone(), runtime, link, head);
        Ok(Some(Opened { book: Box::new(book), torn: None }))
    }
}

fn of_keys(error: KeyringError) -> WalError {
    let why = error.to_string();
    if matches!(error, KeyringError::Unreachable(_)) {
        WalError::Unreachable { why }
    } else {
        WalError::Database { why }
    }
}

/// The root over no records.
pub(super) fn anteroom_root() -> [u8; 32] {
    *anteroom_proto::ledger::tree::EMPTY_ROOT.as_bytes()
}

/// The head of the log, which must be this one's.
pub(super) async fn head(link: &mut Link, origin: &str) -> Result<(u64, [u8; 32]), WalError> {
    let head = link.prepared(schema::HEAD).await?;
    let row = link.client.query_opt(&head, &[]).await.map_err(failure)?;
    let row = row.ok_or_else(|| damaged("it has no head"))?;
    let (format, found): (i64, String) = (field(&row, 0)?, field(&row, 1)?);
    if format != schema::FORMAT {
        return Err(WalError::Database {
            why: format!("its tables are of format {format}: run the version that made them"),
        });
    }
    if found != origin {
        return Err(WalError::Database { why: format!("it holds the log `{found}`, not `{origin}`") });
    }
    Ok((number(field(&row, 2)?)?, fixed(&row, 3)?))
}

/// Reads batches, some ahead.
struct Reader {
    shared: Shared,
    ahead: Vec<Sealed>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reads for Reader {
    fn read(&mut self, at: Position, keyring: Option<&Keyring>) -> Result<Option<RecoveredBatch>, WalError> {
        if !self.ahead.iter().any(|batch| batch.first == at.segment) {
            self.ahead = self.shared.desk.batches(at.segment, AT_ONCE)?;
        }
        let wanted = self.ahead.iter().find(|batch| batch.first >= at.segment);
        wanted.map(|batch| batch.open(&self.shared.origin, keyring)).transpose()
    }

    fn find(&mut self, index: u64) -> Result<Option<Position>, WalError> {
        let held = |batch: &&Sealed| (batch.first..batch.footer.size).contains(&index);
        if let Some(batch) = self.ahead.iter().find(held) {
            return Ok(Some(position(batch.first)));
        }
        Ok(self.shared.desk.batch_of(index)?.map(position))
    }

    fn seek(&mut self, _at: Position, index: u64) -> Result<Option<Position>, WalError> {
        self.find(index)
    }
}

pub(super) async fn read(link: &mut Link, from: u64, most: i64) -> Result<Vec<Sealed>, WalError> {
    rows::batches(link, from, most).await
}
