//! Where the log of this broker is kept, and the keys of its scopes: in the data directory, or in a database.

use std::sync::Arc;

use anteroom_proto::names::BrokerId;

use super::{LogDisk, StartError, held::Held, keyring};
use crate::{
    book::{
        disk::Disk,
        keyring::{Kek, Keyring},
        pg::{Database, Desk, Shared},
        store::{Segments, Store},
    },
    clock::Timekeeper,
    config::Config,
    entropy::{self, SystemEntropy},
};

/// A log that is not open yet.
pub(super) struct Where {
    pub(super) store: Arc<dyn Store>,
    pub(super) keyring: Keyring,
    /// The database and this broker's name, if others share the log.
    pub(super) shared: Option<(Database, BrokerId)>,
}

pub(super) fn open(
    config: &Config,
    (wal, log): (&Arc<Held>, LogDisk),
    keys: Arc<Held>,
    environment: &dyn Fn(&str) -> Option<String>,
    clock: &Arc<Timekeeper>,
) -> Result<Where, StartError> {
    let origin = config.origin().to_string();
    let Some(book) = &config.book else {
        let keyring = keyring(config, keys, environment)?;
        let disk = log(Arc::clone(wal) as Arc<dyn Disk>);
        let store = Arc::new(Segments { disk, origin, sizes: config.wal });
        return Ok(Where { store, keyring, shared: None });
    };
    let database = book.database(environment)?;
    let desk = desk(database.clone())?;
    desk.size(&origin).map_err(StartError::Book)?;
    let keyring = shared_keyring(config, &desk, environment)?;
    let broker = BrokerId::from_bytes(entropy::bytes(&mut SystemEntropy::new()));
    let clock = Arc::clone(clock);
    let boot_ms = Arc::new(move || clock.boot_ms());
    let random = Arc::new(|| entropy::bytes(&mut SystemEntropy::new()));
    let store = Arc::new(Shared::new(desk, &origin, *broker.as_bytes(), boot_ms, random));
    tracing::info!(%broker, "the log is shared with other brokers");
    Ok(Where { store, keyring, shared: Some((database, broker)) })
}

/// The thread that asks a database.
pub(super) fn desk(database: Database) -> Result<Desk, StartError> {
    Desk::start(database)
        .map_err(|source| StartError::Folder { path: "the thread that asks the database".to_owned(), source })
}

/// The scopes' keys, from the database.
pub(super) fn shared_keyring(
    config: &Config,
    desk: &Desk,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Keyring, StartError> {
    let mut bytes = config.kek.read(environment)?;
    let kek = Kek::from_bytes(&bytes);
    bytes.fill(0);
    Ok(Keyring::shared(Arc::new(desk.clone()), kek?)?)
}
