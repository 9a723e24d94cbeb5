#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::{collections::HashMap, ffi::OsString, fs, os::unix::fs::MetadataExt};

use rcgen::{BasicConstraints, IsCa, Issuer};
use rustls::{ServerConfig, version::TLS13};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// An authority with a server certificate for `anteroom`, and a client certificate of the same.
struct World {
    root_pem: String,
    server: CertificateDer<'static>,
    server_key: KeyPair,
    issuer: Issuer<'static, KeyPair>,
}

impl World {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["anteroom".to_owned()]).unwrap();
        let server = server.signed_by(&server_key, &issuer).unwrap();
        Self { root_pem, server: server.der().clone(), server_key, issuer }
    }

    fn credentials(&self, life: (i64, i64)) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().signed_by(&key, &self.issuer).unwrap();
        Credentials {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            roots_pem: self.root_pem.clone(),
            identity: "aisi/person/ana".to_owned(),
            life: Some((At::clamped(life.0), At::clamped(life.1))),
        }
    }

    /// Whether a client with this configuration finishes its handshake with the server.
    async fn accepts(&self, config: ClientConfig) -> bool {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut served = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![self.server.clone()],
                PrivateKeyDer::try_from(self.server_key.serialize_der()).unwrap(),
            )
            .unwrap();
        served.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            TlsAcceptor::from(Arc::new(served)).accept(stream).await.is_ok()
        });
        let stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let name = "anteroom".try_into().unwrap();
        let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let accepted = connected.is_ok();
        drop(connected);
        let _ended = server.await.unwrap();
        accepted
    }
}

#[tokio::test]
async fn the_pinned_server_is_accepted_and_no_other() {
    let (world, other) = (World::new(), World::new());
    let check = async |trust: EnrolTrust| world.accepts(enrolment_config(&trust).unwrap()).await;
    assert!(check(EnrolTrust::Pinned(Digest::of(&world.server))).await);
    assert!(!check(EnrolTrust::Pinned(Digest::of(&other.server))).await);
    assert!(check(EnrolTrust::Roots(world.root_pem.clone())).await);
    assert!(!check(EnrolTrust::Roots(other.root_pem.clone())).await);
}

#[test]
fn credentials_survive_their_folder_and_stay_private() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let saved = World::new().credentials((1_000, 4_000));
    saved.save(&home).unwrap();
    saved.save(&home).unwrap();
    let loaded = Credentials::load(&home).unwrap();
    loaded.tls().unwrap();
    assert_eq!(loaded.identity(), "aisi/person/ana");
    assert_eq!(loaded.not_after(), Some(At::clamped(4_000)));
    for file in fs::read_dir(&home).unwrap() {
        let mode = file.unwrap().metadata().unwrap().mode();
        assert_eq!(mode & 0o077, 0);
    }
    assert!(!format!("{loaded:?}").contains("PRIVATE"));
}

#[test]
fn the_environment_names_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    World::new().credentials((1_000, 4_000)).save(folder.path()).unwrap();
    let file = |name: &str| folder.path().join(name).into_os_string();
    let mut set: HashMap<&str, OsString> = HashMap::from([
        ("ANTEROOM_ADDR", "127.0.0.1:7443".into()),
        ("ANTEROOM_CERT", file("client.pem")),
        ("ANTEROOM_KEY", file("client.pem")),
        ("ANTEROOM_CA", file("roots.pem")),
    ]);
    let named = Environment::read(|name| set.get(name).cloned()).unwrap();
    let credentials = named.credentials().unwrap();
    credentials.tls().unwrap();
    assert_eq!(credentials.not_after(), Some(At::clamped(4_000)));
    set.remove("ANTEROOM_KEY");
    let missing = Environment::read(|name| set.get(name).cloned()).unwrap_err();
    assert!(missing.to_string().starts_with("`ANTEROOM_KEY` is not set"));
}

#[test]
fn an_ended_certificate_is_named_before_anything_is_sent() {
    let credentials = World::new().credentials((1_000, 4_000));
    assert!(credentials.in_date(At::clamped(3_999)).is_ok());
    let ended = credentials.in_date(At::clamped(4_000)).unwrap_err();
    assert!(ended.to_string().contains("`aisi/person/ana` ended at 1970-01-01T00:00:04.000Z"));
}

#[test]
fn renewal_is_due_at_two_thirds_of_a_life() {
    let due = |issued, end| renew_at(At::clamped(issued), At::clamped(end)).ms();
    assert_eq!(due(1_000, 4_000), 3_000);
    assert_eq!(due(4_000, 1_000), 4_000);
}

#[test]
fn an_unusable_reply_replaces_nothing() {
    let reply =
        EnrolReply { certificate_pem: "no certificate".to_owned(), not_after_ms: 5_000, ..EnrolReply::default() };
    let (key_pem, _) = request().unwrap();
    assert!(Credentials::from_reply(reply, key_pem, None).is_err());
}
