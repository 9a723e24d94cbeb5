//! Puts the broker together from a [`Config`], starts it, and takes it down in order.
//!
//! The order of a start: the data directory, the clock, the keys, the fold of the whole ledger; then certificates and sockets; then
//! tasks. The order of an end: no new calls; open ones end or are cut; doors; the ledger; the clock's memory.
//!
//! **Invariant:** no socket is bound before the ledger is folded and found whole, and the ledger is closed after every door.

pub mod authority;
mod backup;
mod drill;
mod end;
mod error;
mod folder;
mod fsck;
mod held;
mod kept;
mod logkeys;
mod mend;
mod migrate;
mod outside;
mod overlay;
mod peers;
mod publish;
mod rekey;
mod renew;
mod restore;
mod running;
mod shipping;
mod survey;
#[cfg(test)]
mod tests;
mod tick;
mod wire;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anteroom_policy::command::Command;
use anteroom_proto::names::{BrokerId, Digest};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

pub use self::{
    backup::{BackedUp, BackupError, backup, prune_keys},
    drill::{DrillError, Drilled, failover, restore_drill},
    end::{Ended, Phase},
    error::StartError,
    folder::{Folder, Initialised, NewLog, init, init_like, initialised, pins},
    fsck::{Checked, Kept, Wrong, adopt_lock, fsck},
    logkeys::{LogKeyError, Rotated, rotate_log_key},
    mend::{MendError, cut_tail, rebuild_index, witnessed},
    migrate::{MigrateError, Migrated, migrate},
    outside::{Environment, Outside},
    publish::Unpublishable,
    rekey::{RekeyError, Rewrapped, rotate_kek},
    restore::{RestoreError, Restored, Restoring, Seen},
    running::{Addresses, Running, Switch},
    shipping::standby_identity,
};
use self::{
    end::Writer,
    held::{Held, Holds},
    kept::Where,
    logkeys::Signing,
    peers::Peers,
};
use crate::{
    book::{
        disk::Disk,
        keyring::{Kek, Keyring, KeyringError},
        pg::Database,
        published::Published,
    },
    clock::{TimeSource, Timekeeper},
    config::Config,
    entropy::{self, SystemEntropy},
    export::Sinks,
    index::Index,
    journal::{
        Journal,
        writer::{self, WriterConfig},
    },
    listen::{ListenError, ListenLimits, Listener},
    notices,
    ops::{self, Ops},
    pki::{ca::ClientLifetime, token::TokenStore},
    public::Public,
    relay::Relay,
    service::{
        enrolment::{Registrar, Roots},
        shown::Shown,
    },
    telemetry::Telemetry,
    tls::Tls,
};

/// How long doors wait for their last requests once no call is open.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What a ledger's log is written through.
pub type LogDisk = fn(Arc<dyn Disk>) -> Arc<dyn Disk>;

/// Starts a broker from an initialised data directory.
///
/// # Errors
/// See [`StartError`]; nothing is left running.
pub async fn start(config: Config, outside: Outside) -> Result<Running, StartError> {
    start_on(config, outside, std::convert::identity).await
}

/// As [`start`], with a disk of the caller's between the ledger's log and its folder, for those who measure or break it. No configuration
/// leads here.
///
/// # Errors
/// See [`StartError`]; nothing is left running.
pub async fn start_on(config: Config, outside: Outside, log: LogDisk) -> Result<Running, StartError> {
    let (phase, _) = watch::channel(Phase::Serving);
    let broken = Arc::new(OnceLock::new());
    let (book, writer) = {
        let (config, phase, broken) = (config.clone(), phase.clone(), Arc::clone(&broken));
        tokio::task::spawn_blocking(move || open(&config, &outside, log, phase, broken)).await??
    };
    let journal = book.journal.clone();
    let mut writer = Some(writer);
    let assembled = assemble(config, book, &mut writer, phase, broken).await;
    if let (Err(_), Some(writer)) = (&assembled, writer) {
        journal.close();
        tokio::task::spawn_blocking(move || drop(writer.end())).await?;
    }
    assembled
}

/// What opening the data directory gave.
struct Book {
    folder: Folder,
    journal: Journal,
    published: Arc<Published>,
    clock: Arc<Timekeeper>,
    time: Arc<dyn TimeSource>,
    signing: Signing,
    /// The database and this broker's name, if others share the log.
    shared: Option<(Database, BrokerId)>,
}

fn open(
    config: &Config,
    outside: &Outside,
    log: LogDisk,
    phase: watch::Sender<Phase>,
    broken: Arc<OnceLock<Ended>>,
) -> Result<(Book, Writer), StartError> {
    let folder = Folder::open(&config.data_dir)?;
    let disk = |path: std::path::PathBuf| match Held::open(&path) {
        Ok(disk) => Ok(disk),
        Err(source) => Err(StartError::Folder { path: path.display().to_string(), source }),
    };
    let (wal, keys) = (disk(folder.wal())?, disk(folder.keys())?);
    let mut holds = Holds(vec![Arc::clone(&wal), Arc::clone(&keys)]);
    let environment = &*outside.environment;
    let clock = Arc::new(Timekeeper::start(Arc::clone(&outside.time), Some(&folder.clock()))?);
    let Where { store, keyring, shared } = kept::open(config, (&wal, log), keys, environment, &clock)?;
    let signing = Signing::open(config, &folder, environment)?;
    let (opened, lock) = publish::open(config, &folder, &wal, store.reader(), &signing.trust)?;
    holds.0.push(lock);
    let fatal: publish::Fatal = Arc::new(move |why| {
        // The first reason is the one to tell; nothing that follows it is news.
        let _ = broken.set(Ended::Fatal(why.to_owned()));
        end::reach(&phase, Phase::Broken);
    });
    let (journal, writer) = writer::start(WriterConfig {
        store,
        broker: shared.as_ref().map(|(_, broker)| *broker),
        keyring,
        tiles: Some(opened.tiles()),
        snapshots: if config.snapshot_every > 0 { Some(folder.snapshots()?) } else { None },
        snapshot_every: config.snapshot_every,
        origin: config.origin.clone(),
        signer: Arc::clone(&signing.signer),
        clock: Arc::clone(&clock),
        entropy: Box::new(SystemEntropy::new()),
        fatal: Box::new({
            let fatal = Arc::clone(&fatal);
            move |why| fatal(why)
        }),
    })?;
    let mut writer = Writer { thread: writer, publisher: None, shipping: None, holds };
    if journal.newest().size > 0
        && let Err(error) = signing.agree(&folder, &journal.standing())
    {
        journal.close();
        drop(writer.end());
        return Err(error);
    }
    match shipping::start(config, &folder, &journal, &signing) {
        Ok(shipping) => writer.shipping = Some(shipping),
        Err(error) => {
            journal.close();
            drop(writer.end());
            return Err(error);
        }
    }
    let published = Arc::new(Published::default());
    match opened.start(config.pace, &journal, &published, fatal) {
        Ok(publisher) => writer.publisher = Some(publisher),
        Err(error) => {
            journal.close();
            drop(writer.end());
            return Err(error.into());
        }
    }
    let time = Arc::clone(&outside.time);
    Ok((Book { folder, journal, published, clock, time, signing, shared }, writer))
}

/// The scopes' keys.
fn keyring(
    config: &Config,
    disk: Arc<dyn Disk>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Keyring, StartError> {
    let mut bytes = config.kek.read(environment)?;
    let kek = Kek::from_bytes(&bytes);
    bytes.fill(0);
    Keyring::open(disk, kek?).map_err(end_of_keyring)
}

fn end_of_keyring(error: KeyringError) -> StartError {
    if matches!(error, KeyringError::Locked) { StartError::InUse } else { error.into() }
}

async fn assemble(
    config: Config,
    book: Book,
    writer: &mut Option<Writer>,
    phase: watch::Sender<Phase>,
    broken: Arc<OnceLock<Ended>>,
) -> Result<Running, StartError> {
    let Book { folder, journal, published, clock, time, signing, shared } = book;
    let log_key = signing.trust.log().to_string();
    let telemetry = Arc::new(Telemetry::new());
    journal.observe(Arc::clone(&telemetry) as Arc<_>);
    let nonce = Digest::from_bytes(entropy::bytes(&mut SystemEntropy::new()));
    let open = Command::Open { origin: config.origin.to_string(), log_key: log_key.clone(), nonce };
    peers::confirmed(&journal).await?;
    let _ = journal.submit(open).await?;
    signing.record(&journal).await?;
    let (version, alive) = (env!("CARGO_PKG_VERSION").to_owned(), clock.alive_before());
    let start = match &shared {
        Some((_, broker)) => Command::Join { version, broker: *broker, alive },
        None => Command::Start { version, alive },
    };
    let _ = journal.submit(start).await?;
    let peers = shared.map(|(database, broker)| Peers::new(database, broker));
    tick::clock(&journal, &*time, peers.as_ref()).await?;
    let relay = Relay::new(journal.clone(), config.networks);

    let now = renew::wall(&clock, &time);
    let names = config.server_files.is_none().then(|| config.server_names.clone());
    let trust_domain = config.trust_domain.clone();
    let files = renew::files(&folder, config.server_files.as_ref(), config.existing_pki.as_deref());
    let (ca, tls, tokens) = {
        let (folder, names, files) = (folder.clone(), names.clone(), files.clone());
        let now = Arc::clone(&now);
        let load = move || -> Result<_, StartError> {
            let ca = authority::settle(&folder)?;
            if *ca.trust_domain() != trust_domain {
                let (found, given) = (ca.trust_domain().as_str().to_owned(), trust_domain.as_str().to_owned());
                return Err(StartError::TrustDomain { found, given });
            }
            if let Some(names) = names {
                renew::renew(&folder, &ca, &names, now())?;
            }
            let tokens = Arc::new(TokenStore::open(&folder.tokens())?);
            Ok((Arc::new(ca), Arc::new(Tls::load(files, now)?), tokens))
        };
        tokio::task::spawn_blocking(load).await??
    };

    let roots = Roots::new({
        let tls = Arc::clone(&tls);
        move || tls.server_roots_pem()
    });
    let index = Index::open(&folder.index(), &journal);
    let services = wire::Services {
        journal: journal.clone(),
        relay: Arc::clone(&relay),
        index: index.clone(),
        registrar: Registrar::new(Arc::clone(&ca), ClientLifetime::default(), roots, Arc::clone(&clock)),
        tokens,
        published: Arc::clone(&published),
        witnesses: config.witnesses.clone(),
        shown: Shown::new(journal.clone(), end::alarm(&phase, &broken)),
        retention: config.retention.clone(),
        peers: peers.clone(),
    };

    let mut limits = config.programme;
    limits.drain_max = CLOSE_MAX;
    let programme = Listener::programme(config.listen, Arc::clone(&tls), limits).await?;
    let programme = programme.behind(config.proxy_peers.clone());
    let mut limits = ListenLimits::enrolment();
    limits.drain_max = CLOSE_MAX;
    let enrolment = Listener::enrolment(config.enrol_listen, Arc::clone(&tls), limits).await?;
    let enrolment = enrolment.behind(config.proxy_peers);
    let ops_failed = |source| ListenError { address: config.ops_listen, source };
    let ops_socket = tokio::net::TcpListener::bind(config.ops_listen).await.map_err(ops_failed)?;
    let addresses = Addresses {
        programme: programme.local_addr(),
        enrolment: enrolment.local_addr(),
        ops: ops_socket.local_addr().map_err(ops_failed)?,
    };

    let public = match config.publish_listen {
        Some(address) => Some(Public::bind(address, &folder.published()).await?),
        None => None,
    };
    let published_address = public.as_ref().map(Public::local_addr);

    let (health, health_service) = tonic_health::server::health_reporter();
    let mut tasks = JoinSet::new();
    let sinks = Sinks::start(&journal, &config.origin, &folder.sinks(), &config.sinks, &mut tasks);
    let notices =
        notices::start(&journal, &config.origin, &folder.notices(), config.notices, sinks.behind(), &mut tasks).await;
    let mut wired = services.wire();
    wired.sources.push(notices);
    wired.sources.push(sinks.source());
    wired.sources.extend(peers.as_ref().map(|peers| peers.metrics(&journal)));
    wired.sources.extend(writer.as_ref().and_then(|writer| publish::metrics(writer, &journal)));
    wired.sources.extend(writer.as_ref().and_then(|writer| writer.shipping.as_ref()?.metrics()));
    let routes = wired.programme.add_service(health_service);

    let connections = programme.connections();
    let ops = Arc::new(Ops {
        journal: journal.clone(),
        telemetry: Arc::clone(&telemetry),
        tls: Arc::clone(&tls),
        connections: Arc::clone(&connections),
        phase: phase.subscribe(),
        sources: wired.sources,
    });
    let mut doors = JoinSet::new();
    doors.spawn(end::door(programme, routes, phase.subscribe()));
    doors.spawn(end::door(enrolment, wired.enrolment, phase.subscribe()));
    let (ops_stop, stopped) = oneshot::channel::<()>();
    let answers = ops::router(Arc::clone(&ops));
    let ops_task = tokio::spawn(async move {
        let served = axum::serve(ops_socket, answers).with_graceful_shutdown(async move {
            // Ends as well when the sender is dropped.
            let _ = stopped.await;
        });
        if let Err(error) = served.await {
            tracing::error!(%error, "health and metrics ended");
        }
    });
    tasks.spawn(tick::every_second(
        journal.clone(),
        Arc::clone(&time),
        peers.clone(),
        tick::Health { ops: Arc::clone(&ops), reporter: health.clone() },
    ));
    tasks.spawn({
        let relay = Arc::clone(&relay);
        async move { relay.write_counted_refusals().await }
    });
    tasks.spawn({
        let (relay, peers) = (Arc::clone(&relay), peers.clone());
        async move { relay.note_presence(|grant| peers.as_ref().is_some_and(|peers| peers.serve(grant))).await }
    });
    if let Some(peers) = peers {
        tasks.spawn(peers.look_after(journal.clone(), Arc::clone(&relay)));
    }
    config.witnesses.start(&mut tasks, &published, &(Arc::new(journal.clone()) as Arc<_>));
    tasks.spawn(tick::look_after_tls(tick::Renewal { folder, own: names.map(|names| (ca, names)), tls, files, now }));
    if let Some(public) = public {
        tasks.spawn(public.serve());
    }
    let parts = end::Parts {
        phase: phase.clone(),
        broken,
        drain_max: config.drain_max,
        journal: journal.clone(),
        relay,
        index,
        connections,
        health,
        doors,
        tasks,
        ops: (ops_stop, ops_task),
        writer: writer.take(),
        clock,
    };
    let main = tokio::spawn(end::run(parts));
    Ok(Running { addresses, journal, log_key, published, published_address, phase, main })
}
