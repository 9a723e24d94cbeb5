//! The broker's TLS: what it shows, whom it trusts, and how both change without a restart.
//!
//! Every accept reads the current configuration once, so that one handshake never mixes two. A reload reads all files again and
//! swaps the whole; connections already open are judged again by the new trust (see [`crate::listen`]).
//!
//! **Invariant:** TLS 1.3 or nothing, no tickets and no session store: resumption would restore a client's chain without
//! verifying it again. A reload that fails leaves the old configuration in force.

mod files;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trust;

use std::path::PathBuf;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use crate::pki::FileError;
use crate::pki::ca::CaError;
use crate::pki::mapping::MappingError;
pub(crate) use trust::ClientTrust;

/// The wall clock, in Unix milliseconds. One below zero makes every certificate check fail.
pub type NowMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The one application protocol spoken.
pub const ALPN: &[u8] = b"h2";

/// Where the broker's TLS material is.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, its intermediates after it: PEM.
    pub server_chain: PathBuf,
    /// The server's private key: PEM, not readable by everybody.
    pub server_key: PathBuf,
    /// The roots that the server's certificate has to lead to, which members are handed: PEM.
    pub server_roots: Option<PathBuf>,
    /// Roots of the built-in CA, of one trust domain: PEM.
    pub builtin_roots: Option<PathBuf>,
    /// The mapping file for existing PKIs: TOML, see [`crate::pki::mapping`].
    pub mapping: Option<PathBuf>,
}

/// Why TLS material was refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No certificate in a file, or one that cannot be read.
    #[error("`{}` holds no readable certificate", .0.display())]
    Certificate(PathBuf),
    /// No private key in a file, or one that cannot be read.
    #[error("`{}` holds no readable private key", .0.display())]
    Key(PathBuf),
    /// The server's certificate is past its end or before its start.
    #[error("the server certificate in `{}` is not valid at this time", .0.display())]
    ServerLapsed(PathBuf),
    /// Members would refuse the server's certificate.
    #[error("the server certificate does not lead to a root in `{}`: {why}", path.display())]
    ServerRoots {
        /// The file with the roots.
        path: PathBuf,
        /// What the verifier said.
        why: rustls::Error,
    },
    /// Neither a built-in CA nor a mapping file: nobody could connect.
    #[error("no client authority is configured: give built-in roots, a mapping file or both")]
    NoAuthority,
    /// A root that is not of a built-in CA.
    #[error("`{}`: {source}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CaError,
    },
    /// Built-in roots of different trust domains.
    #[error("`{}` holds roots of more than one trust domain", .0.display())]
    TrustDomains(PathBuf),
    /// One root stands behind two authorities, so that a certificate would not tell which one vouches for it.
    #[error("a root of `{}` belongs to another authority too", .0.display())]
    RootTwice(PathBuf),
    /// The mapping file is not in order.
    #[error("`{}`: {source}", path.display())]
    Mapping {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MappingError,
    },
    /// A revocation list that cannot be read.
    #[error("`{}` holds no readable revocation list", .0.display())]
    Crl(PathBuf),
    /// A revocation list made more than five minutes after this broker's present: its age could not be told.
    #[error("the revocation list in `{}` comes from the future", .0.display())]
    CrlFromTheFuture(PathBuf),
    /// The TLS library refused the material.
    #[error("the TLS library refused the configuration: {0}")]
    Refused(#[from] rustls::Error),
    /// The TLS library refused the roots or lists of an authority.
    #[error("the TLS library refused an authority: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The current TLS configuration and the way to replace it.
pub struct Tls {
    files: TlsFiles,
    now: NowMs,
    current: ArcSwap<Loaded>,
    generation: watch::Sender<u64>,
    outdated: AtomicBool,
}

impl Tls {
    /// Reads the files. Waits for the disk: call it where blocking is fine.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: TlsFiles, now: NowMs) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(Loaded::read(&files, &now)?);
        Ok(Self { files, now, current, generation: watch::Sender::new(0), outdated: AtomicBool::new(false) })
    }

    /// Reads the files again and, if all are good, puts them in force for new connections and judges open ones by them.
    /// Waits for the disk: call it where blocking is fine.
    ///
    /// # Errors
    /// See [`TlsError`]; the configuration in force stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = Loaded::read(&self.files, &self.now);
        self.outdated.store(loaded.is_err(), Ordering::Relaxed);
        self.current.store(Arc::new(loaded?));
        self.generation.send_modify(|generation| *generation = generation.wrapping_add(1));
        tracing::info!("TLS material reloaded");
        Ok(())
    }

    /// Whether the files on disk were refused the last time, so that older ones are in force.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    /// The roots that members verify this server with, PEM; empty where no file was named.
    #[must_use]
    pub fn server_roots_pem(&self) -> Arc<str> {
        Arc::clone(&self.current.load().server_roots_pem)
    }

    /// The last valid instant of the server's certificate, Unix milliseconds: when to worry about renewing it.
    #[must_use]
    pub fn server_not_after_ms(&self) -> i64 {
        self.current.load().server_not_after_ms
    }

    /// The authorities of the mapping file whose revocation lists have grown too old, so that all their members are refused.
    #[must_use]
    pub fn stale_authorities(&self) -> Vec<String> {
        self.current.load().trust.stale((self.now)())
    }

    pub(crate) fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// Changes whenever another configuration came into force.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub(crate) const fn now(&self) -> &NowMs {
        &self.now
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Everything one accept needs, of one reading of the files.
pub(crate) struct Loaded {
    /// Asks for a client certificate and refuses to go on without a good one.
    pub(crate) programme: Arc<ServerConfig>,
    /// Asks for none.
    pub(crate) enrolment: Arc<ServerConfig>,
    pub(crate) trust: Arc<ClientTrust>,
    server_not_after_ms: i64,
    server_roots_pem: Arc<str>,
}

impl Loaded {
    fn read(files: &TlsFiles, now: &NowMs) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Arc::new(files::client_trust(files, now(), &provider)?);
        let server = files::server(files, now())?;
        let server_roots_pem = match &files.server_roots {
            Some(path) => files::server_roots(path, &server, now(), &provider)?,
            None => "".into(),
        };
        let mut programme = builder(&provider, now)?
            .with_client_cert_verifier(Arc::clone(&trust) as Arc<_>)
            .with_single_cert(server.chain.clone(), server.key.clone_key())?;
        let mut enrolment =
            builder(&provider, now)?.with_no_client_auth().with_single_cert(server.chain, server.key)?;
        harden(&mut programme);
        harden(&mut enrolment);
        Ok(Self {
            programme: Arc::new(programme),
            enrolment: Arc::new(enrolment),
            trust,
            server_not_after_ms: server.not_after_ms,
            server_roots_pem,
        })
    }
}

fn builder(
    provider: &Arc<CryptoProvider>,
    now: &NowMs,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
    Ok(ServerConfig::builder_with_details(Arc::clone(provider), Arc::new(Clock(Arc::clone(now))))
        .with_protocol_versions(&[&rustls::version::TLS13])?)
}

fn harden(config: &mut ServerConfig) {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
}

/// The broker's clock as the TLS library wants it.
struct Clock(NowMs);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time((self.0)())
    }
}

/// None for instants before 1970, which makes the library refuse every certificate.
pub(crate) fn unix_time(now_ms: i64) -> Option<UnixTime> {
    u64::try_from(now_ms).ok().map(|ms| UnixTime::since_unix_epoch(Duration::from_millis(ms)))
}
