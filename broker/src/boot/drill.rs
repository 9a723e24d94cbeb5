//! Drills: what a restore from a standby would take, measured while the broker runs, without touching it.
//!
//! **Invariant:** a drill writes into a folder of its own, which it takes away, and one line into `drills.jsonl`; a copy that it
//! starts asks no witness, publishes to nobody, ships nowhere and listens on loopback.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Instant,
};

use anteroom_proto::rpc::{WhoAmIRequest, directory_client::DirectoryClient};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::{
    Ended, Folder, Outside, StartError,
    backup::bring,
    fsck::Wrong,
    restore,
    survey::{self, Survey},
};
use crate::{
    book::{
        disk::RealDisk,
        wal::{Position, Reader, WalError},
    },
    clock::TimeSource,
    config::Config,
    entropy::SystemEntropy,
    identity::{Principal, Role},
    pki::{ca::ClientLifetime, csr::Csr},
    standby::{
        Standbys,
        replica::{CopyError, Identity},
    },
    witness::Witnesses,
};

/// Why a drill came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The data directory, or a broker on the copy.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The copy or the ledger.
    #[error("{what}: {error}")]
    Wrong {
        /// Which of the two.
        what: &'static str,
        /// What is wrong.
        error: Wrong,
    },
    /// The copy is no copy.
    #[error("the copy: {0}")]
    Copy(#[from] CopyError),
    /// The two have another history.
    #[error("over {size} records the copy has another root or state than the ledger: {copy} and {live}")]
    Differs {
        /// At which size.
        size: u64,
        /// The copy's.
        copy: String,
        /// The ledger's.
        live: String,
    },
    /// A file.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The copy was started and did not answer.
    #[error("the broker on the copy did not answer: {0}")]
    Read(String),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DrillError + use<> {
    let path = path.display().to_string();
    move |source| DrillError::File { path, source }
}

/// What a drill measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drilled {
    /// `restore` or `failover`.
    pub drill: &'static str,
    /// Records in the copy.
    pub records: u64,
    /// The root over them.
    pub root: String,
    /// The digest of the state that they fold to; empty where nothing was folded.
    pub state: String,
    /// Records that the lock file speaks of and the copy does not hold.
    pub behind: u64,
    /// Steps with the milliseconds that they took.
    pub steps_ms: Vec<(&'static str, u64)>,
}

impl Drilled {
    /// As JSON.
    #[must_use]
    pub fn json(&self, wall_ms: i64) -> serde_json::Value {
        let steps: serde_json::Map<String, serde_json::Value> =
            self.steps_ms.iter().map(|(step, ms)| (format!("{step}_ms"), json!(ms))).collect();
        json!({
            "drill": self.drill,
            "at_ms": wall_ms,
            "records": self.records,
            "root": self.root,
            "state": self.state,
            "behind_records": self.behind,
            "steps": steps,
        })
    }
}

/// Measures steps one after the other.
struct Steps {
    last: Instant,
    taken: Vec<(&'static str, u64)>,
}

impl Steps {
    fn new() -> Self {
        Self { last: Instant::now(), taken: Vec::new() }
    }

    fn done(&mut self, step: &'static str) {
        let took = self.last.elapsed().as_millis();
        self.taken.push((step, u64::try_from(took).unwrap_or(u64::MAX)));
        self.last = Instant::now();
    }
}

/// Copies what a standby or a backup holds into `work`, folds it, and folds the ledger up to the same size: roots and states must
/// be the same. Waits for the disk.
///
/// # Errors
/// See [`DrillError`].
pub fn restore_drill(config: &Config, outside: &Outside, from: &Path, work: &Path) -> Result<Drilled, DrillError> {
    let live = Folder::with_ledger(config)?;
    let site = Site::make(config, from, work)?;
    let mut steps = Steps::new();
    restore::copy_ledger(from, &site.folder).map_err(at(from))?;
    steps.done("copy");
    let size = site.size(config)?;
    let wrong = |what| move |error| DrillError::Wrong { what, error };
    let copy = Survey::open(config, site.folder.root(), &*outside.environment)?;
    let copy = copy.fold(size).map_err(wrong("the copy"))?;
    steps.done("verify");
    let ledger = Survey::open(config, live.root(), &*outside.environment)?;
    let ledger = ledger.fold(size).map_err(wrong("the ledger, up to the copy's size"))?;
    steps.done("compare");
    if (copy.root, copy.state) != (ledger.root, ledger.state) {
        let shown = |folded: &survey::Surveyed| format!("root {} state {}", folded.root, folded.state);
        return Err(DrillError::Differs { size, copy: shown(&copy), live: shown(&ledger) });
    }
    let behind = survey::settled(config)?.saturating_sub(size);
    let drilled = Drilled {
        drill: "restore",
        records: size,
        root: copy.root.to_string(),
        state: copy.state.to_string(),
        behind,
        steps_ms: steps.taken,
    };
    note(config, &drilled, &*outside.time)?;
    Ok(drilled)
}

/// As [`restore_drill`], but a broker is started on the copy, on loopback and with nobody to talk to, and answers a read over
/// mutual TLS; then both are taken away.
///
/// # Errors
/// See [`DrillError`].
pub async fn failover(config: &Config, outside: Outside, from: &Path, work: &Path) -> Result<Drilled, DrillError> {
    let live = Folder::with_ledger(config)?;
    let site = Site::make(config, from, work)?;
    let time = Arc::clone(&outside.time);
    let mut steps = Steps::new();
    restore::copy_ledger(from, &site.folder).map_err(at(from))?;
    bring(&live.pki(), &site.folder.pki()).map_err(at(&live.pki()))?;
    steps.done("copy");
    let size = site.size(config)?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut dry = config.clone();
    dry.data_dir = site.folder.root().to_owned();
    dry.lock_file = site.folder.root().join("lock").join("log.lock");
    (dry.listen, dry.enrol_listen, dry.ops_listen) = (loopback, loopback, loopback);
    (dry.witnesses, dry.sinks, dry.standbys, dry.publish_listen) =
        (Witnesses::default(), Vec::new(), Standbys::default(), None);
    super::publish::init(&dry)?;
    site.folder.finish().map_err(at(site.folder.root()))?;
    let names = dry.server_names.clone();
    let running = super::start(dry, outside).await?;
    steps.done("start");
    let root = running.journal().root_at(size).map(|root| root.to_string()).unwrap_or_default();
    let (door, log_key) = (running.addresses().programme, running.log_key());
    let read = read(&site.folder, door, log_key, names.first(), time.read().wall_ms).await;
    steps.done("read");
    running.stop();
    let ended = running.ended().await;
    steps.done("stop");
    read?;
    if !matches!(ended, Ended::Orderly { .. }) {
        return Err(DrillError::Read(format!("it ended as {ended:?}")));
    }
    let behind = survey::settled(config)?.saturating_sub(size);
    let steps_ms = steps.taken;
    let drilled = Drilled { drill: "failover", records: size, root, state: String::new(), behind, steps_ms };
    note(config, &drilled, &*time)?;
    Ok(drilled)
}

/// A folder for one drill, which goes with it.
struct Site {
    folder: Folder,
}

impl Site {
    fn make(config: &Config, from: &Path, work: &Path) -> Result<Self, DrillError> {
        let source = RealDisk::open(from).map_err(at(from))?;
        let identity = Identity::read(&source)?.ok_or(CopyError::NoCopy("`standby` is missing"))?;
        if identity.origin != *config.origin() {
            let (found, given) = (identity.origin.to_string(), config.origin().to_string());
            return Err(CopyError::OtherLog { found, given }.into());
        }
        let path = work.join(format!("anteroom-drill-{}", std::process::id()));
        // It must not be there: what is in it is taken away afterwards.
        std::fs::create_dir(&path).map_err(at(&path))?;
        let site = Self { folder: Folder::at(&path) };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(at(&path))?;
        site.folder.make_folders()?;
        Ok(site)
    }

    /// Records in the copy: what follows the last whole batch was on its way while it was made.
    fn size(&self, config: &Config) -> Result<u64, DrillError> {
        let wrong = |error: WalError| DrillError::Wrong { what: "the copy", error: error.into() };
        let disk = RealDisk::open(&self.folder.wal()).map_err(at(&self.folder.wal()))?;
        let mut reader = Reader::new(Arc::new(disk), config.origin().as_str());
        let (mut size, mut place) = (0, Position { segment: 0, offset: 0 });
        loop {
            match reader.read(place, None) {
                Ok(Some(batch)) => (size, place) = (batch.footer.size, batch.end),
                Ok(None) => return Ok(size),
                Err(WalError::Corrupt(_)) if size > 0 && reader.find(size).is_ok_and(|next| next.is_none()) => {
                    return Ok(size);
                }
                Err(error) => return Err(wrong(error)),
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(self.folder.root()) {
            tracing::warn!(%error, path = %self.folder.root().display(), "a drill's folder is still there");
        }
    }
}

/// Asks the broker on the copy who it takes the asker for, with a certificate of its authority's made for that.
async fn read(
    folder: &Folder,
    address: SocketAddr,
    log_key: &str,
    name: Option<&String>,
    now_ms: i64,
) -> Result<(), DrillError> {
    let failed = |error: &dyn std::fmt::Display| DrillError::Read(error.to_string());
    let ca = folder.ca().map_err(StartError::from)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| failed(&error))?;
    let request = CertificateParams::default().serialize_request(&key).map_err(|error| failed(&error))?;
    let csr = Csr::from_der(request.der()).map_err(|error| failed(&error))?;
    let principal =
        Principal::new("drill-operator", Role::Operator, "drill-failover").map_err(|error| failed(&error))?;
    let issued = ca
        .issue_client(&csr, &principal, ClientLifetime::default(), now_ms, &mut SystemEntropy::new())
        .map_err(StartError::from)?;
    let certificate = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).map_err(|error| failed(&error))?;
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).map_err(|error| failed(&error))?;
    roots.add(root).map_err(|error| failed(&error))?;
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|error| failed(&error))?;
    tls.alpn_protocols = vec![crate::tls::ALPN.to_vec()];
    let name = name.cloned().unwrap_or_else(|| "localhost".to_owned());
    let name = ServerName::try_from(name).map_err(|error| failed(&error))?;
    let connector = TlsConnector::from(Arc::new(tls));
    let connect = service_fn(move |_: Uri| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let channel: Channel = Endpoint::from_static("https://localhost")
        .connect_with_connector(connect)
        .await
        .map_err(|error| DrillError::Read(format!("{error}: {:?}", std::error::Error::source(&error))))?;
    let answer = DirectoryClient::new(channel).who_am_i(WhoAmIRequest::default()).await;
    let answer = answer.map_err(|status| DrillError::Read(status.to_string()))?.into_inner();
    if answer.log_key == log_key {
        return Ok(());
    }
    Err(DrillError::Read(format!("it answers for the log `{}`", answer.log_key)))
}

/// Adds a line to the record of drills.
fn note(config: &Config, drilled: &Drilled, time: &dyn TimeSource) -> Result<(), DrillError> {
    let path = config.data_dir.join("drills.jsonl");
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(at(&path))?;
    let line = format!("{}\n", drilled.json(time.read().wall_ms));
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(at(&path))
}
