//! What the broker runs with, checked as a whole before anything is opened or bound.
//!
//! A value comes from a flag, else from the environment (`ANTEROOM_` and the key in capitals), else from one TOML file, else
//! from a default; [`keys`](self) beside this file is the one list of them. Keys that nobody knows are refused, wherever they stand.
//!
//! **Invariant:** a [`Config`] that exists is consistent: later code asks it nothing twice and finds no value out of bounds.

mod book;
mod doors;
mod keys;
mod notices;
mod secret;
mod standbys;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anteroom_proto::ledger::note::{Algorithm, KeyError, KeyName, VerifierKey};

pub(crate) use self::book::SharedBook;
pub use self::{
    doors::ServerFiles,
    keys::{KEYS, KeyInfo, List, LogFormat, Settings},
    secret::{Secret, SecretError},
};
use crate::{
    book::{publisher::Pace, wal},
    export::{SINKS_MAX, SinkAddress},
    identity::TrustDomain,
    journal::writer,
    listen::{ListenLimits, ProxyPeers},
    notices::NoticeSettings,
    pki::{FileError, ca::SERVER_NAMES_MAX, read_bounded},
    relay::networks::{NETWORKS_MAX, Network, Networks},
    retention::{DAYS_MAX, DAYS_MIN, Retention},
    standby::Standbys,
    witness::{AddressError, WITNESSES_MAX, Witness, Witnesses},
};

/// Largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Most connections that can be configured.
pub const CONNECTIONS_MAX: u64 = 65_536;
/// Most streams of one connection that can be configured.
pub const STREAMS_MAX: u64 = 4_096;
/// Longest drain that can be configured, in seconds.
pub const DRAIN_SECONDS_MAX: u64 = 3_600;
/// Largest segment that can be configured, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Most records between two snapshots that can be configured.
pub const SNAPSHOT_EVERY_MAX: u64 = 1 << 40;

/// Why a configuration was refused. Each text names the key and what would do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no TOML, or has an unknown key or a value of another type.
    #[error("`{}`: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What and where.
        why: String,
    },
    /// A variable of the environment does not hold what its key takes.
    #[error("environment variable `{name}`: {why}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A key without a default was given nowhere.
    #[error("`{0}` is missing: give it in the file, as a flag or in the environment")]
    Missing(&'static str),
    /// A value breaks its key's rule.
    #[error("`{key}` is `{value}`: {rule}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        rule: String,
    },
    /// Two doors want the same address.
    #[error("`{0}` and `{1}` name the same address")]
    SameAddress(&'static str, &'static str),
}

/// A configuration that cannot be wrong.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) enrol_listen: SocketAddr,
    pub(crate) ops_listen: SocketAddr,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) origin: KeyName,
    pub(crate) server_names: Vec<String>,
    pub(crate) existing_pki: Option<PathBuf>,
    pub(crate) server_files: Option<ServerFiles>,
    pub(crate) proxy_peers: ProxyPeers,
    pub(crate) kek: Secret,
    pub(crate) log_key: Secret,
    pub(crate) log_key_before: Option<Secret>,
    pub(crate) programme: ListenLimits,
    pub(crate) networks: Networks,
    pub(crate) sinks: Vec<SinkAddress>,
    pub(crate) notices: NoticeSettings,
    pub(crate) witnesses: Witnesses,
    pub(crate) standbys: Standbys,
    pub(crate) lock_file: PathBuf,
    pub(crate) publish_listen: Option<SocketAddr>,
    pub(crate) pace: Pace,
    pub(crate) drain_max: Duration,
    pub(crate) wal: wal::Config,
    pub(crate) book: Option<SharedBook>,
    pub(crate) snapshot_every: u64,
    pub(crate) retention: Retention,
    pub(crate) log_format: LogFormat,
    pub(crate) log_filter: String,
}

impl Config {
    /// Puts flags over the environment over the file, and checks the whole. `environment` answers for a variable's name.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(
        flags: Settings,
        environment: &dyn Fn(&str) -> Option<String>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let below = match file {
            Some(path) => read(path)?,
            None => Settings::default(),
        };
        Self::check(flags.over(Settings::from_environment(environment)?).over(below))
    }

    /// Checks settings from wherever they come.
    ///
    /// # Errors
    /// [`ConfigError::Missing`], [`ConfigError::Value`] or [`ConfigError::SameAddress`].
    pub fn check(settings: Settings) -> Result<Self, ConfigError> {
        let data_dir = settings.data_dir.ok_or(ConfigError::Missing("data_dir"))?;
        let trust_domain = settings.trust_domain.ok_or(ConfigError::Missing("trust_domain"))?;
        let trust_domain =
            TrustDomain::new(&trust_domain).map_err(|error| bad("trust_domain", &trust_domain, error))?;
        let origin = settings.origin.unwrap_or_else(|| format!("{}/log", trust_domain.as_str()));
        let origin = check_origin(&origin)?;
        let listen = settings.listen.unwrap_or(([127, 0, 0, 1], 7443).into());
        let enrol_listen = settings.enrol_listen.unwrap_or(([127, 0, 0, 1], 7444).into());
        let ops_listen = settings.ops_listen.unwrap_or(([127, 0, 0, 1], 7445).into());
        if !ops_listen.ip().is_loopback() && settings.ops_beyond_loopback != Some(true) {
            let rule = "health and metrics have no authentication, so they stay on loopback unless `ops_beyond_loopback` is true";
            return Err(bad("ops_listen", ops_listen, rule));
        }
        let doors = [("listen", listen), ("enrol_listen", enrol_listen), ("ops_listen", ops_listen)];
        let published = settings.publish_listen.map(|address| ("publish_listen", address));
        let mut taken = std::collections::BTreeMap::new();
        for (key, address) in doors.into_iter().chain(published) {
            if address.port() != 0
                && let Some(other) = taken.insert(address, key)
            {
                return Err(ConfigError::SameAddress(other, key));
            }
        }
        let server_names = settings.server_names.map_or_else(|| vec!["localhost".to_owned()], |names| names.0);
        check_names(&server_names)?;
        let server_files =
            doors::check_server(settings.server_certificate, settings.server_key, settings.server_roots)?;
        let proxy_peers = doors::check_proxies(settings.proxy_peers)?;
        let wal = check_wal(settings.wal_segment_bytes, settings.wal_reserve_bytes)?;
        let every = writer::SNAPSHOT_EVERY;
        let snapshot_every = within("snapshot_every", settings.snapshot_every, every, 0..=SNAPSHOT_EVERY_MAX)?;
        let kept = Retention::default();
        let days = |key, given, default| within(key, given, default, DAYS_MIN..=DAYS_MAX);
        let retention = Retention {
            grant_days: days("retention_grant_days", settings.retention_grant_days, kept.grant_days)?,
            roster_days: days("retention_roster_days", settings.retention_roster_days, kept.roster_days)?,
            reads_days: days("retention_reads_days", settings.retention_reads_days, kept.reads_days)?,
            schedule: settings.retention_schedule,
        };
        let networks = check_networks("networks", settings.networks)?;
        let notices = notices::check(
            settings.notices_smtp,
            settings.notices_smtp_password,
            settings.notices_from,
            check_networks("notices_allow", settings.notices_allow)?,
        )?;
        let sinks = check_sinks(settings.sinks)?;
        let witnesses = check_witnesses(settings.witnesses, settings.witness_quorum)?;
        let standbys = standbys::check(settings.standby, settings.standby_ack, settings.standby_wait_ms, &data_dir)?;
        let lock_file = check_lock(settings.lock_file, &data_dir)?;
        let pace = check_pace(settings.publish_every_ms, settings.publish_settle_ms_max)?;
        let drain = within("drain_seconds_max", settings.drain_seconds_max, 30, 0..=DRAIN_SECONDS_MAX)?;
        let programme = check_limits(settings.connections_max, settings.connections_per_org_max, settings.streams_max)?;
        let log_filter = settings.log_filter.unwrap_or_else(|| "info".to_owned());
        if let Err(error) = log_filter.parse::<tracing_subscriber::EnvFilter>() {
            return Err(bad("log_filter", &log_filter, error));
        }
        let kek = settings.kek.unwrap_or_else(|| Secret::File(data_dir.join("kek")));
        let log_key = settings.log_key.unwrap_or_else(|| Secret::File(data_dir.join("log.key")));
        let book = book::check(settings.book, settings.book_password, settings.book_ca)?;
        if book.is_some() && !standbys.each.is_empty() {
            return Err(bad(
                "standby",
                "…",
                "a log in a database has the database's own standbys: leave this out with `book`",
            ));
        }
        let log_key_before = settings.log_key_before;
        if kek == log_key || log_key_before.as_ref() == Some(&kek) {
            return Err(bad("log_key", &log_key, "the key that signs and the key that wraps are two secrets"));
        }
        if let Some(before) = log_key_before.as_ref().filter(|before| **before == log_key) {
            return Err(bad("log_key_before", before, "it is `log_key`, and not the one before it"));
        }
        Ok(Self {
            data_dir,
            listen,
            enrol_listen,
            ops_listen,
            trust_domain,
            origin,
            server_names,
            existing_pki: settings.existing_pki,
            server_files,
            proxy_peers,
            kek,
            log_key,
            log_key_before,
            programme,
            networks,
            sinks,
            notices,
            witnesses,
            standbys,
            lock_file,
            publish_listen: settings.publish_listen,
            pace,
            drain_max: Duration::from_secs(drain),
            wal,
            book,
            snapshot_every,
            retention,
            log_format: settings.log_format.unwrap_or_default(),
            log_filter,
        })
    }

    /// Where everything durable is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The log's name.
    #[must_use]
    pub const fn origin(&self) -> &KeyName {
        &self.origin
    }

    /// The key that signs checkpoints.
    #[must_use]
    pub const fn log_key(&self) -> &Secret {
        &self.log_key
    }

    /// Names the built-in CA's certificates begin with.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The address asked for the programme's door; with port 0 the kernel chooses.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Who is asked how long the log is.
    #[must_use]
    pub const fn witnesses(&self) -> &Witnesses {
        &self.witnesses
    }

    /// How long scopes are kept.
    #[must_use]
    pub const fn retention(&self) -> &Retention {
        &self.retention
    }

    /// How log lines look.
    #[must_use]
    pub const fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Which log lines are written.
    #[must_use]
    pub fn log_filter(&self) -> &str {
        &self.log_filter
    }

    /// How long open calls may go on after a drain began.
    #[must_use]
    pub const fn drain_max(&self) -> Duration {
        self.drain_max
    }
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let syntax = |why| ConfigError::Syntax { path: path.to_owned(), why };
    let text =
        String::from_utf8(read_bounded(path, FILE_BYTES_MAX)?).map_err(|_| syntax("it is not UTF-8".to_owned()))?;
    toml::from_str(&text).map_err(|error| {
        // The error's own text repeats the line it is about, which may hold a secret that does not belong there.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        syntax(format!("line {}: {}", before.split('\n').count(), error.message().trim_end()))
    })
}

fn check_origin(text: &str) -> Result<KeyName, ConfigError> {
    let rule = |error| format!("{error}, such as `broker.example/log`");
    KeyName::parse(text).map_err(|error| bad("origin", text, rule(error)))
}

fn check_names(names: &[String]) -> Result<(), ConfigError> {
    let shown = names.join(",");
    if names.is_empty() || names.len() > SERVER_NAMES_MAX {
        return Err(bad("server_names", shown, format!("a server certificate has 1 to {SERVER_NAMES_MAX} names")));
    }
    let mut seen = BTreeSet::new();
    for name in names {
        let usable =
            name.parse::<std::net::IpAddr>().is_ok() || rustls_pki_types::DnsName::try_from(name.as_str()).is_ok();
        if !usable {
            return Err(bad("server_names", name, "each is a DNS name or an IP address"));
        }
        if !seen.insert(name) {
            return Err(bad("server_names", name, "it stands there twice"));
        }
    }
    Ok(())
}

/// Each as `name=address/bits`.
fn check_networks(key: &'static str, given: Option<List>) -> Result<Networks, ConfigError> {
    let given = given.unwrap_or_default().0;
    if given.len() > NETWORKS_MAX {
        return Err(bad(key, given.len(), format!("{NETWORKS_MAX} networks at most")));
    }
    let mut networks = Vec::with_capacity(given.len());
    for text in given {
        let network = read_network(&text);
        networks
            .push(network.ok_or_else(|| bad(key, &text, "each is `name=address/bits`, such as `hq=192.0.2.0/24`"))?);
    }
    Ok(Networks::new(networks))
}

fn check_sinks(given: Option<List>) -> Result<Vec<SinkAddress>, ConfigError> {
    let given = given.unwrap_or_default().0;
    if given.len() > SINKS_MAX {
        return Err(bad("sinks", given.len(), format!("{SINKS_MAX} sinks at most")));
    }
    let mut sinks: Vec<SinkAddress> = Vec::with_capacity(given.len());
    for text in given {
        let sink: SinkAddress = text.parse().map_err(|error| bad("sinks", &text, error))?;
        if sinks.iter().any(|other| other.name == sink.name) {
            return Err(bad("sinks", &text, format!("the name `{}` stands there twice", sink.name)));
        }
        sinks.push(sink);
    }
    Ok(sinks)
}

fn read_network(text: &str) -> Option<Network> {
    let (name, block) = text.split_once('=')?;
    let named = !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let block = block.parse().ok()?;
    named.then(|| Network { name: name.to_owned(), block })
}

/// Each as `address key`.
fn check_witnesses(given: Option<List>, quorum: Option<u64>) -> Result<Witnesses, ConfigError> {
    let given = given.unwrap_or_default().0;
    if given.len() > WITNESSES_MAX {
        return Err(bad("witnesses", given.len(), format!("{WITNESSES_MAX} witnesses at most")));
    }
    let mut witnesses: Vec<Witness> = Vec::with_capacity(given.len());
    for text in given {
        let rule = |rule: &dyn std::fmt::Display| bad("witnesses", &text, rule);
        let (address, key) =
            text.split_once(' ').ok_or_else(|| rule(&"each is an address, a space and a verifier key"))?;
        let address = address.parse().map_err(|error: AddressError| rule(&error))?;
        let key: VerifierKey = key.trim().parse().map_err(|error: KeyError| rule(&error))?;
        if key.algorithm() != Algorithm::CosignatureV1 {
            return Err(rule(&"the key is a log's, not a witness's"));
        }
        if witnesses.iter().any(|other| other.key.public() == key.public() || other.key.name() == key.name()) {
            return Err(rule(&"a witness stands there once, under one name and one key"));
        }
        witnesses.push(Witness { address, key });
    }
    let count = size(witnesses.len());
    let majority = if count == 0 { 0 } else { count / 2 + 1 };
    let quorum = within("witness_quorum", quorum, majority, 0..=count)?;
    Ok(Witnesses::new(witnesses, usize::try_from(quorum).unwrap_or(usize::MAX)))
}

/// The lock file's directory is taken by the running broker as a whole, so nothing else may be in it.
fn check_lock(given: Option<PathBuf>, data_dir: &Path) -> Result<PathBuf, ConfigError> {
    let path = given.unwrap_or_else(|| data_dir.join("lock").join("log.lock"));
    let taken = ["", "wal", "keys", "pki", "index", "sinks", "notices", "operator", "published"]
        .map(|name| data_dir.join(name));
    let own = path.parent().is_some_and(|parent| {
        !parent.as_os_str().is_empty() && !taken.iter().any(|taken| taken.components().eq(parent.components()))
    });
    if own && path.file_name().is_some_and(|name| name.to_str().is_some()) {
        return Ok(path);
    }
    Err(bad(
        "lock_file",
        path.display(),
        "a file in a directory of its own is expected, such as `/srv/anteroom-lock/log.lock`",
    ))
}

fn check_pace(every: Option<u64>, settle: Option<u64>) -> Result<Pace, ConfigError> {
    let every = within("publish_every_ms", every, 1_000, 10..=60_000)?;
    let settle = within("publish_settle_ms_max", settle, 2_000, 0..=60_000)?;
    Ok(Pace { every: Duration::from_millis(every), settle_max: Duration::from_millis(settle) })
}

fn check_wal(segment: Option<u64>, reserve: Option<u64>) -> Result<wal::Config, ConfigError> {
    let defaults = wal::Config::default();
    let sizes = wal::BATCH_BYTES_MAX..=SEGMENT_BYTES_MAX;
    let segment_bytes = within("wal_segment_bytes", segment, defaults.segment_bytes, sizes.clone())?;
    let reserve_bytes = within("wal_reserve_bytes", reserve, defaults.reserve_bytes, sizes)?;
    for (key, value) in [("wal_segment_bytes", segment_bytes), ("wal_reserve_bytes", reserve_bytes)] {
        if value % wal::SECTOR_BYTES != 0 {
            return Err(bad(key, value, format!("a multiple of {} is expected", wal::SECTOR_BYTES)));
        }
    }
    Ok(wal::Config { segment_bytes, reserve_bytes })
}

fn check_limits(
    connections: Option<u64>,
    per_org: Option<u64>,
    streams: Option<u64>,
) -> Result<ListenLimits, ConfigError> {
    let mut limits = ListenLimits::programme();
    let connections = within("connections_max", connections, size(limits.connections_max), 1..=CONNECTIONS_MAX)?;
    let per_org_default = size(limits.connections_per_org_max).min(connections);
    let per_org = within("connections_per_org_max", per_org, per_org_default, 1..=connections)?;
    let streams = within("streams_max", streams, u64::from(limits.streams_max), 1..=STREAMS_MAX)?;
    limits.connections_max = usize::try_from(connections).unwrap_or(usize::MAX);
    limits.connections_per_org_max = usize::try_from(per_org).unwrap_or(usize::MAX);
    limits.streams_max = u32::try_from(streams).unwrap_or(u32::MAX);
    limits.connection_window_bytes = limits.streams_max.saturating_mul(limits.stream_window_bytes);
    Ok(limits)
}

fn within(
    key: &'static str,
    value: Option<u64>,
    default: u64,
    bounds: std::ops::RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    let value = value.unwrap_or(default);
    if bounds.contains(&value) {
        Ok(value)
    } else {
        Err(bad(key, value, format!("{} to {} is expected", bounds.start(), bounds.end())))
    }
}

fn size(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn bad(key: &'static str, value: impl ToString, rule: impl ToString) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), rule: rule.to_string() }
}
