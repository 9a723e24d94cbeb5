//! The one list of keys: each a line of the file, a flag and a variable of the environment.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use serde::Deserialize;

use super::{ConfigError, Secret};
use crate::standby::AckMode;

/// A key as documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name in the file; the flag has hyphens.
    pub name: &'static str,
    /// Its variable of the environment.
    pub variable: &'static str,
    /// What it is for.
    pub help: &'static str,
}

macro_rules! keys {
    ($($key:ident: $type:ty = $variable:literal $value:literal $help:literal;)*) => {
        /// Values as given, before they are checked: nothing, or one for each key.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $(
                #[doc = $help]
                #[arg(long, value_name = $value, help = concat!($help, " [env: ", $variable, "]"), help_heading = "Configuration")]
                pub $key: Option<$type>,
            )*
        }

        /// Every key.
        pub const KEYS: &[KeyInfo] =
            &[$(KeyInfo { name: stringify!($key), variable: $variable, help: $help },)*];

        impl Settings {
            /// What the environment gives; `environment` answers for a variable's name.
            ///
            /// # Errors
            /// [`ConfigError::Environment`] for a variable that does not hold what its key takes.
            pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
                Ok(Self { $($key: parsed::<$type>($variable, environment)?,)* })
            }

            /// These values, and where there is none, the ones `below`.
            #[must_use]
            pub fn over(self, below: Self) -> Self {
                Self { $($key: self.$key.or(below.$key),)* }
            }
        }
    };
}

keys! {
    data_dir: PathBuf = "ANTEROOM_DATA_DIR" "DIR" "Where the ledger, its keys and the certificates are";
    listen: SocketAddr = "ANTEROOM_LISTEN" "IP:PORT" "The programme's door: mutual TLS (127.0.0.1:7443)";
    enrol_listen: SocketAddr = "ANTEROOM_ENROL_LISTEN" "IP:PORT" "The door for first certificates (127.0.0.1:7444)";
    ops_listen: SocketAddr = "ANTEROOM_OPS_LISTEN" "IP:PORT" "Health and metrics in plain HTTP (127.0.0.1:7445)";
    ops_beyond_loopback: bool = "ANTEROOM_OPS_BEYOND_LOOPBACK" "BOOL" "Let health and metrics leave this machine (false)";
    trust_domain: String = "ANTEROOM_TRUST_DOMAIN" "NAME" "What the built-in authority's names begin with, such as broker.example";
    origin: String = "ANTEROOM_ORIGIN" "NAME" "The log's name, a URL without its scheme (<trust_domain>/log)";
    server_names: List = "ANTEROOM_SERVER_NAMES" "NAME,…" "DNS names and addresses in the server's certificate (localhost)";
    existing_pki: PathBuf = "ANTEROOM_EXISTING_PKI" "FILE" "Mapping file that lets members of an existing PKI in";
    server_certificate: PathBuf = "ANTEROOM_SERVER_CERTIFICATE" "FILE" "Certificate of both doors from elsewhere, PEM, intermediates after it (made by the built-in authority)";
    server_key: PathBuf = "ANTEROOM_SERVER_KEY" "FILE" "Its private key, PEM, not readable by everybody";
    server_roots: PathBuf = "ANTEROOM_SERVER_ROOTS" "FILE" "The roots it leads to, PEM: members are handed them with each certificate";
    proxy_peers: List = "ANTEROOM_PROXY_PEERS" "BLOCK,…" "Balancers that say whose connections they pass on, in PROXY protocol version 2, such as 10.0.0.0/8 (none)";
    kek: Secret = "ANTEROOM_KEK" "SECRET" "The key that wraps the scopes' keys (file://<data_dir>/kek)";
    log_key: Secret = "ANTEROOM_LOG_KEY" "SECRET" "The key that signs checkpoints (file://<data_dir>/log.key)";
    log_key_before: Secret = "ANTEROOM_LOG_KEY_BEFORE" "SECRET" "The key before it, which signs as well until readers have followed (none)";
    networks: List = "ANTEROOM_NETWORKS" "NAME=BLOCK,…" "Networks that terms can name, such as hq=192.0.2.0/24";
    sinks: List = "ANTEROOM_SINKS" "NAME=FORMAT+URL,…" "Where each record goes as a row, such as siem=ocsf+https://collector.example/rows";
    notices_smtp: String = "ANTEROOM_NOTICES_SMTP" "URL" "The relay that mail to contacts goes by, such as smtps://anteroom@mail.example:465 (none)";
    notices_smtp_password: PathBuf = "ANTEROOM_NOTICES_SMTP_PASSWORD" "FILE" "The file with the relay's password";
    notices_from: String = "ANTEROOM_NOTICES_FROM" "ADDRESS" "Whom mail to contacts is from, such as anteroom@broker.example";
    notices_allow: List = "ANTEROOM_NOTICES_ALLOW" "NAME=BLOCK,…" "Networks that are not public and webhooks may lead to all the same (none)";
    witnesses: List = "ANTEROOM_WITNESSES" "URL VKEY,…" "Witnesses that published checkpoints are offered to, each an address and a key";
    witness_quorum: u64 = "ANTEROOM_WITNESS_QUORUM" "COUNT" "How many of them are to cosign (more than half)";
    standby: List = "ANTEROOM_STANDBY" "PLACE,…" "Where each durable batch is copied to: a folder, or https://host:port and the fingerprint of a standby's certificate";
    standby_ack: AckMode = "ANTEROOM_STANDBY_ACK" "MODE" "Whether an answer waits for a standby to have its records: async or sync (async)";
    standby_wait_ms: u64 = "ANTEROOM_STANDBY_WAIT_MS" "MS" "How long a batch waits for a standby in sync mode before calls are refused (2000)";
    connections_max: u64 = "ANTEROOM_CONNECTIONS_MAX" "COUNT" "Connections at once (4096)";
    connections_per_org_max: u64 = "ANTEROOM_CONNECTIONS_PER_ORG_MAX" "COUNT" "Connections at once of one organisation (1024)";
    streams_max: u64 = "ANTEROOM_STREAMS_MAX" "COUNT" "Requests at once on one connection (512)";
    lock_file: PathBuf = "ANTEROOM_LOCK_FILE" "FILE" "What says how long the published log is, in a directory of its own (<data_dir>/lock/log.lock)";
    publish_listen: SocketAddr = "ANTEROOM_PUBLISH_LISTEN" "IP:PORT" "Serve the published log to anybody in plain HTTP (not at all)";
    publish_every_ms: u64 = "ANTEROOM_PUBLISH_EVERY_MS" "MS" "From one publication of the log to the next (1000)";
    publish_settle_ms_max: u64 = "ANTEROOM_PUBLISH_SETTLE_MS_MAX" "MS" "How long a published head waits for its witnesses (2000)";
    drain_seconds_max: u64 = "ANTEROOM_DRAIN_SECONDS_MAX" "SECONDS" "How long open calls may go on after the first signal (30)";
    wal_segment_bytes: u64 = "ANTEROOM_WAL_SEGMENT_BYTES" "BYTES" "Size of the ledger's segment files (16777216)";
    wal_reserve_bytes: u64 = "ANTEROOM_WAL_RESERVE_BYTES" "BYTES" "Space kept for ends on a full disk (4194304)";
    book: String = "ANTEROOM_BOOK" "URL" "A PostgreSQL that holds the log for several brokers, such as postgres://anteroom@db.example/anteroom (the data directory)";
    book_password: Secret = "ANTEROOM_BOOK_PASSWORD" "SECRET" "The password of the user in `book` (none)";
    book_ca: PathBuf = "ANTEROOM_BOOK_CA" "FILE" "Roots in PEM by which the database is verified; needed unless it is on this machine";
    snapshot_every: u64 = "ANTEROOM_SNAPSHOT_EVERY" "RECORDS" "Write the state down after so many records, 0 for never (100000)";
    retention_grant_days: u64 = "ANTEROOM_RETENTION_GRANT_DAYS" "DAYS" "How long a grant is kept after its end (2555)";
    retention_roster_days: u64 = "ANTEROOM_RETENTION_ROSTER_DAYS" "DAYS" "How long rosters are kept after the agency's last grant (2555)";
    retention_reads_days: u64 = "ANTEROOM_RETENTION_READS_DAYS" "DAYS" "How long reads are kept after the organisation's last grant (2555)";
    retention_schedule: String = "ANTEROOM_RETENTION_SCHEDULE" "TEXT" "The written schedule that dispositions have to name; without one nothing is destroyed";
    log_format: LogFormat = "ANTEROOM_LOG_FORMAT" "FORMAT" "How log lines look: text or json (text)";
    log_filter: String = "ANTEROOM_LOG_FILTER" "FILTER" "Which log lines are written (info)";
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("`text` or `json` is expected".to_owned()),
        }
    }
}

/// Several values: an array in the file, separated by commas elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct List(pub Vec<String>);

impl FromStr for List {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.split(',').map(|value| value.trim().to_owned()).collect()))
    }
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(
    name: &'static str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<T>, ConfigError> {
    let Some(text) = environment(name) else { return Ok(None) };
    match text.parse() {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(ConfigError::Environment { name, why: error.to_string() }),
    }
}
