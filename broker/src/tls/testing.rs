//! A small world for tests: a folder, a CA, a clock that is set by hand, and clients that keep to it.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use super::{Clock, NowMs, Tls, TlsFiles};
use crate::entropy::SystemEntropy;
use crate::identity::{Principal, Role, TrustDomain};
use crate::pki::ca::{Ca, ClientLifetime};
use crate::pki::csr::Csr;

pub(crate) const NOW: i64 = 1_790_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) ca: Ca,
    clock: Arc<AtomicI64>,
}

/// A certificate with its key.
pub(crate) struct Credential {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl World {
    pub(crate) fn new() -> Self {
        let ca = ca();
        let world = Self { folder: tempfile::tempdir().unwrap(), ca, clock: Arc::new(AtomicI64::new(NOW)) };
        world.write("roots.pem", world.ca.cert_pem());
        world.new_server();
        world
    }

    pub(crate) fn write(&self, name: &str, contents: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes another server certificate over the old one.
    pub(crate) fn new_server(&self) {
        let server = self.ca.issue_server(&["localhost"], NOW, &mut SystemEntropy::new()).unwrap();
        self.write("server.pem", &server.cert_pem);
        self.write("server.key", &server.key_pem);
    }

    pub(crate) fn set_clock(&self, now_ms: i64) {
        self.clock.store(now_ms, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> NowMs {
        let clock = Arc::clone(&self.clock);
        Arc::new(move || clock.load(Ordering::SeqCst))
    }

    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            server_chain: self.path("server.pem"),
            server_key: self.path("server.key"),
            server_roots: None,
            builtin_roots: Some(self.path("roots.pem")),
            mapping: None,
        }
    }

    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::new(Tls::load(self.files(), self.now()).unwrap())
    }

    /// The configuration of a client that trusts this world's CA and shows `credential`.
    pub(crate) fn client(&self, credential: Option<Credential>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.cert_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Clock(self.now())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match credential {
            Some(credential) => builder.with_client_auth_cert(credential.chain, credential.key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

pub(crate) fn ca() -> Ca {
    Ca::create(&TrustDomain::new("broker.example").unwrap(), NOW, &mut SystemEntropy::new()).unwrap()
}

pub(crate) fn person(org: &str, name: &str) -> Principal {
    Principal::new(org, Role::Person, name).unwrap()
}

/// A day's credential for `principal`, signed by `ca`.
pub(crate) fn credential(ca: &Ca, principal: &Principal) -> Credential {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let csr = Csr::from_der(csr.der()).unwrap();
    let issued = ca.issue_client(&csr, principal, ClientLifetime::default(), NOW, &mut SystemEntropy::new()).unwrap();
    Credential {
        chain: vec![CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()],
        key: PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
    }
}
