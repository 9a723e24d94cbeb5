//! Certificates that somebody else makes and replaces under a running broker, as cert-manager and spiffe-helper do.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anteroom_broker::{
    boot::Folder,
    entropy::SystemEntropy,
    identity::{Principal, Role},
    pki::token::{TokenLifetime, TokenStore},
};
use anteroom_proto::rpc::{WhoAmIRequest, directory_client::DirectoryClient};
use anteroom_sdk::{
    channel::{self, Address, TlsSource},
    credentials::{Credentials, EnrolTrust, Environment},
    system,
};
use anteroom_tests::e2e::{
    broker::{Broker, metric},
    scene::Scene,
    wait::{soon, until},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const RUNNER: &str = "spiffe://agency.example/eval/runner";

/// An issuer of the house.
struct House {
    root: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
struct Leaf {
    certificate: String,
    key: String,
}

impl House {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { root: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Valid from a minute ago on, for an hour.
    fn leaf(&self, uri: Option<&str>) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = std::time::Duration::from_millis(system::now().ms().try_into().unwrap());
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now - std::time::Duration::from_secs(60);
        params.not_after = params.not_before + std::time::Duration::from_secs(3_600);
        let certificate = params.signed_by(&key, &self.root).unwrap();
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Puts files in place as a Secret's volume does: a new folder, and one link that is exchanged for all of them at once.
fn replace(volume: &Path, files: &[(&str, &str)]) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let version = tempfile::Builder::new().prefix("version-").tempdir_in(volume).unwrap().keep();
    for (name, contents) in files {
        let path = version.join(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let link = volume.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    symlink(version.file_name().unwrap(), volume.join("..next")).unwrap();
    std::fs::rename(volume.join("..next"), volume.join("..data")).unwrap();
}

/// The server's certificate as a newcomer that trusts `roots` is shown it; nothing if it is refused.
async fn shown(door: SocketAddr, roots: &str) -> Option<CertificateDer<'static>> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(roots.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let mut config = config.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(door).await.ok()?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    stream.get_ref().1.peer_certificates()?.first().cloned()
}

fn der(leaf: &Leaf) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_that_is_replaced_is_shown_to_the_next_peer() {
    let (folder, house) = (Scene::folder(), House::new("House CA"));
    let volume = folder.path().join("tls");
    std::fs::create_dir(&volume).unwrap();
    let roots = house.root.pem();
    let place = |leaf: &Leaf| {
        replace(&volume, &[("tls.crt", &leaf.certificate), ("tls.key", &leaf.key), ("ca.crt", &roots)]);
    };
    let first = house.leaf(None);
    place(&first);
    let mut broker = Broker::made(folder.path()).await;
    for (key, file) in [("server-certificate", "tls.crt"), ("server-key", "tls.key"), ("server-roots", "ca.crt")] {
        broker.configure(key, &volume.join(file).display().to_string());
    }
    broker.start_again().await;
    let (door, ops) = (broker.addresses().enrolment, broker.addresses().ops);
    assert_eq!(shown(door, &roots).await, Some(der(&first)));

    // Members are handed the house's roots with their certificates of the built-in authority, and get in with both.
    let tokens = TokenStore::open(&Folder::open(&broker.data()).unwrap().tokens()).unwrap();
    let admin = Principal::new("lab-a", Role::Admin, "admin-1").unwrap();
    let token = tokens.mint(&admin, TokenLifetime::default(), system::now().ms(), &mut SystemEntropy::new()).unwrap();
    let address = Address::parse(&door.to_string()).unwrap().with_server_name("localhost").unwrap();
    let trust = EnrolTrust::Roots(roots.clone());
    let member = soon("a certificate", Credentials::enrol(&address, &trust, token.expose())).await.unwrap();
    assert_eq!(member.roots_pem(), roots);
    let address =
        Address::parse(&broker.addresses().programme.to_string()).unwrap().with_server_name("localhost").unwrap();
    let channel =
        soon("a connection", channel::connect(&address, &TlsSource::new(member.tls().unwrap()))).await.unwrap();
    let known = soon("an answer", DirectoryClient::new(channel).who_am_i(WhoAmIRequest {})).await.unwrap();
    assert_eq!(known.into_inner().identity, "lab-a/admin/admin-1");

    let second = house.leaf(None);
    place(&second);
    until("the second certificate", || async { (shown(door, &roots).await? == der(&second)).then_some(()) }).await;

    // Of another issuer than the roots that members have: refused here, before every member refuses it.
    place(&House::new("House CA").leaf(None));
    until("a refusal", || async { (metric(ops, "anteroom_tls_outdated").await? > 0.5).then_some(()) }).await;
    assert_eq!(shown(door, &roots).await, Some(der(&second)), "what was in force stays");
    assert!(broker.log().contains("does not lead to a root"), "{}", broker.log());

    let third = house.leaf(None);
    place(&third);
    until("the third certificate", || async { (shown(door, &roots).await? == der(&third)).then_some(()) }).await;
    assert_eq!(metric(ops, "anteroom_tls_outdated").await, Some(0.0));
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_bundle_that_is_replaced_decides_who_gets_in() {
    let (folder, old, new) = (Scene::folder(), House::new("SPIRE one"), House::new("SPIRE two"));
    let volume = folder.path().join("spire");
    std::fs::create_dir(&volume).unwrap();
    let mapping = format!(
        "version = 1\n[[authority]]\nname = \"agency-spire\"\nroots = \"bundle.pem\"\nlifetime_hours_max = 24\n\
         [[authority.member]]\nuri = \"{RUNNER}\"\norg = \"agency-a\"\nrole = \"workload\"\nname = \"runner\"\n"
    );
    let place = |roots: &House| replace(&volume, &[("members.toml", &mapping), ("bundle.pem", &roots.root.pem())]);
    place(&old);
    let mut broker = Broker::made(folder.path()).await;
    broker.configure("existing-pki", &volume.join("members.toml").display().to_string());
    broker.start_again().await;

    let known = async |name: &str, leaf: &Leaf| -> Option<String> {
        let path = |kind: &str| folder.path().join(format!("{name}.{kind}"));
        std::fs::write(path("crt"), &leaf.certificate).unwrap();
        std::fs::write(path("key"), &leaf.key).unwrap();
        std::fs::set_permissions(path("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let environment = Environment {
            certificate: path("crt"),
            key: path("key"),
            roots: broker.data().join("operator").join("ca.pem"),
            address: Address::parse(&broker.addresses().programme.to_string())
                .unwrap()
                .with_server_name("localhost")
                .unwrap(),
        };
        let tls = TlsSource::new(environment.credentials().unwrap().tls().unwrap());
        let channel = soon("a connection", channel::connect(&environment.address, &tls)).await.ok()?;
        let reply = soon("an answer", DirectoryClient::new(channel).who_am_i(WhoAmIRequest {})).await.ok()?;
        Some(reply.into_inner().identity)
    };
    let (of_old, of_new) = (old.leaf(Some(RUNNER)), new.leaf(Some(RUNNER)));
    assert_eq!(known("old", &of_old).await.as_deref(), Some("agency-a/workload/runner"));
    assert_eq!(known("new", &of_new).await, None);
    assert_eq!(known("other", &old.leaf(Some("spiffe://agency.example/eval/other"))).await, None);

    place(&new);
    until("the new bundle", || async { known("new", &of_new).await }).await;
    assert_eq!(known("old", &of_old).await, None, "what the bundle no longer holds is out");
    broker.kill().await;
}
