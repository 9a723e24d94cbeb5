//! Certificates of the pass-through's little world: an authority of its own, one server, a few members.

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::PathBuf, sync::Arc};

use anteroom_broker::{
    entropy::SystemEntropy,
    identity::{Principal, Role, TrustDomain},
    pki::{
        ca::{CA_CERT_FILE, Ca, ClientLifetime},
        csr::Csr,
    },
    tls::{Tls, TlsFiles},
};
use anteroom_proto::rpc::inference_client::InferenceClient;
use anteroom_sdk::{
    channel::{self, Address, TlsSource},
    credentials::Environment,
    system,
};
use tonic::transport::Channel;

use super::{Fallible, load};

/// The only name in the server's certificate.
pub const SERVER: &str = "localhost";
/// Whom the load comes from.
pub const CALLER: &str = "caller";
/// Who asks the upstream in callers' stead.
pub const RELAY: &str = "relay";
/// The organisation in members' certificates.
pub const ORG: &str = "agency";
/// The trust domain in their URIs.
pub const DOMAIN: &str = "bench.test";

/// A folder with certificates.
#[derive(Clone, Debug)]
pub struct Pki(pub PathBuf);

impl Pki {
    /// Makes an authority, a server and the members `names`, as agency's workloads.
    pub fn create(folder: PathBuf, names: &[&str]) -> Fallible<Self> {
        fs::create_dir_all(&folder)?;
        let (mut entropy, now) = (SystemEntropy::new(), system::now().ms());
        let ca = Ca::create(&TrustDomain::new(DOMAIN)?, now, &mut entropy)?;
        ca.save(&folder, &mut entropy)?;
        let pki = Self(folder);
        let server = ca.issue_server(&[SERVER], now, &mut entropy)?;
        pki.write("server", &format!("{}{}", server.cert_pem, server.key_pem))?;
        for name in names {
            let key = rcgen::KeyPair::generate()?;
            let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
            let principal = Principal::new(ORG, Role::Workload, name)?;
            let lifetime = ClientLifetime::default();
            let issued = ca.issue_client(&Csr::from_der(csr.der())?, &principal, lifetime, now, &mut entropy)?;
            pki.write(name, &format!("{}{}", issued.cert_pem, key.serialize_pem()))?;
        }
        Ok(pki)
    }

    /// The TLS of a listener.
    pub fn tls(&self) -> Fallible<Arc<Tls>> {
        let server = self.0.join("server.pem");
        let files = TlsFiles {
            server_chain: server.clone(),
            server_key: server,
            server_roots: None,
            builtin_roots: Some(self.roots()),
            mapping: None,
        };
        Ok(Arc::new(Tls::load(files, Arc::new(|| system::now().ms()))?))
    }

    /// The authority's certificate.
    pub fn roots(&self) -> PathBuf {
        self.0.join(CA_CERT_FILE)
    }

    /// So many new connections of the caller, for calls.
    pub async fn connections(&self, address: &str, count: usize) -> Fallible<Vec<InferenceClient<Channel>>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(load::client(self.connect(CALLER, address).await?));
        }
        Ok(clients)
    }

    /// A new connection of a member to `HOST:PORT`.
    pub async fn connect(&self, name: &str, address: &str) -> Fallible<Channel> {
        let file = self.0.join(format!("{name}.pem"));
        let environment = Environment {
            certificate: file.clone(),
            key: file,
            roots: self.roots(),
            address: Address::parse(address)?.with_server_name(SERVER)?,
        };
        let tls = TlsSource::new(environment.credentials()?.tls()?);
        Ok(channel::connect(&environment.address, &tls).await?)
    }

    fn write(&self, name: &str, pem: &str) -> Fallible<()> {
        let path = self.0.join(format!("{name}.pem"));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(std::io::Write::write_all(&mut file, pem.as_bytes())?)
    }
}
