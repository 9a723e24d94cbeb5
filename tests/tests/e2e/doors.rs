//! Who gets in, and as what: certificates, roles, protocol versions, tokens.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anteroom_broker::{
    boot::Folder,
    demo::cast::{AGENCY, LAB},
    entropy::SystemEntropy,
    identity::{Principal, Role, TrustDomain},
    pki::{
        ca::{CA_CERT_FILE, CA_KEY_FILE, Ca, ClientLifetime},
        csr::Csr,
        token::{TokenLifetime, TokenStore},
    },
};
use anteroom_proto::{
    ledger::scope::Scope,
    rpc::{
        CallRequest, ReadRequest, ReportRequest, ServeUp, SubmitRequest, WhoAmIRequest, acts_client::ActsClient,
        audit_client::AuditClient, directory_client::DirectoryClient, inference_client::InferenceClient,
        serving_client::ServingClient,
    },
};
use anteroom_sdk::{
    channel::{self, Address, TlsSource},
    credentials::{Credentials, EnrolTrust, Environment},
    error::Error,
    system,
};
use anteroom_tests::e2e::{
    book::Book,
    broker::Broker,
    caller::{chat, refused},
    scene::{Scene, plan},
    wait::soon,
};
use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Status, transport::Channel};

const AT_ONCE: Duration = Duration::ZERO;

/// A client certificate on disk, issued by `ca` at `now_ms`.
struct Issued {
    folder: tempfile::TempDir,
}

impl Issued {
    fn new(ca: &Ca, org: &str, role: Role, name: &str, now_ms: i64, lifetime: ClientLifetime) -> Self {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let csr = Csr::from_der(request.der()).unwrap();
        let principal = Principal::new(org, role, name).unwrap();
        let issued = ca.issue_client(&csr, &principal, lifetime, now_ms, &mut SystemEntropy::new()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), issued.cert_pem).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(folder.path().join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { folder }
    }

    /// A connection that shows it.
    async fn channel(&self, broker: &Broker) -> Result<Channel, Error> {
        let environment = Environment {
            certificate: self.path("cert.pem"),
            key: self.path("key.pem"),
            roots: broker.data().join("operator").join(CA_CERT_FILE),
            address: Address::parse(&broker.addresses().programme.to_string())?.with_server_name("localhost")?,
        };
        let tls = environment.credentials()?.tls()?;
        Ok(soon("a connection", channel::connect(&environment.address, &TlsSource::new(tls))).await?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn operators_ca(data: &Path) -> Ca {
    Ca::load(&data.join("pki").join(CA_CERT_FILE), &data.join("pki").join(CA_KEY_FILE)).unwrap()
}

/// Whether the broker tells this connection who it is.
async fn known(connected: Result<Channel, Error>) -> Result<String, String> {
    // With TLS 1.3 a client may find out only with its first request that its certificate was not taken.
    let channel = connected.map_err(|error| error.to_string())?;
    let reply = soon("an answer", DirectoryClient::new(channel).who_am_i(WhoAmIRequest {})).await;
    reply.map(|reply| reply.into_inner().identity).map_err(|status| status.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_certificate_in_force_from_the_programmes_authority_gets_in() {
    let folder = Scene::folder();
    let mut broker = Broker::start(folder.path()).await;
    let ca = operators_ca(&broker.data());
    let now = system::now().ms();
    let day = 86_400_000;
    let person = |ca: &Ca, at| Issued::new(ca, AGENCY, Role::Person, "person-1", at, ClientLifetime::default());
    assert_eq!(known(person(&ca, now).channel(&broker).await).await.as_deref(), Ok("agency-a/person/person-1"));

    let same_name =
        Ca::create(&TrustDomain::new("anteroom.localhost").unwrap(), now, &mut SystemEntropy::new()).unwrap();
    let stranger = person(&same_name, now);
    assert!(known(stranger.channel(&broker).await).await.is_err(), "a stranger's authority");
    let ended = person(&ca, now - 3 * day);
    assert!(known(ended.channel(&broker).await).await.is_err(), "a certificate that has ended");
    let early = person(&ca, now + 3 * day);
    assert!(known(early.channel(&broker).await).await.is_err(), "a certificate that has not begun");

    // No certificate at all, at the programme's door.
    let door =
        Address::parse(&broker.addresses().programme.to_string()).unwrap().with_server_name("localhost").unwrap();
    let roots = EnrolTrust::Roots(ca.cert_pem().to_owned());
    assert!(soon("a refusal", Credentials::enrol(&door, &roots, "anything")).await.is_err(), "no certificate");
    // A certificate of the programme's does not make the broker's own trusted by somebody who trusts another root.
    let wrong_roots = EnrolTrust::Roots(same_name.cert_pem().to_owned());
    let newcomers = Address::parse(&broker.addresses().enrolment.to_string()).unwrap();
    let newcomers = newcomers.with_server_name("localhost").unwrap();
    assert!(soon("a refusal", Credentials::enrol(&newcomers, &wrong_roots, "anything")).await.is_err());
    broker.kill().await;
}

/// A ClientHello as TLS 1.2 clients send it: no supported versions named, ECDHE with AES-GCM.
fn hello_of_tls_1_2() -> Vec<u8> {
    let suites: [u16; 3] = [0xc02b, 0xc02f, 0xc02c];
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, body: &[u8]| {
        extensions.extend_from_slice(&kind.to_be_bytes());
        extensions.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        extensions.extend_from_slice(body);
    };
    extension(10, &[0, 4, 0, 23, 0, 29]);
    extension(11, &[1, 0]);
    extension(13, &[0, 4, 4, 3, 8, 4]);
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.push(0);
    body.extend_from_slice(&u16::try_from(suites.len() * 2).unwrap().to_be_bytes());
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend_from_slice(&[1, 0]);
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&extensions);
    let mut message = vec![1, 0];
    message.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&body);
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend_from_slice(&message);
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn both_doors_speak_tls_1_3_and_nothing_older() {
    let folder = Scene::folder();
    let mut broker = Broker::start(folder.path()).await;
    for door in [broker.addresses().programme, broker.addresses().enrolment] {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(&hello_of_tls_1_2()).await.unwrap();
        let mut answer = Vec::new();
        soon("the end", stream.read_to_end(&mut answer)).await.unwrap();
        // One alert, fatal: protocol version.
        assert_eq!((answer.first(), answer.get(5..7)), (Some(&21), Some([2, 70].as_slice())), "{door}");

        let mut plain = TcpStream::connect(door).await.unwrap();
        plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // However it ends, nothing of HTTP/2 was said in the clear.
        let _ = soon("the end", plain.read_to_end(&mut answer)).await;
        assert!(answer.first().is_none_or(|kind| *kind == 21), "{door}");
    }
    broker.kill().await;
}

fn refusal<T: std::fmt::Debug>(reply: Result<T, Status>) -> (String, Code) {
    let refused = refused(reply.unwrap_err().into());
    (refused.code, refused.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificates_role_opens_its_own_services_alone() {
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    let caller = scene.granted(&plan()).await;
    let request: CallRequest = caller.seal(caller.draft(chat("hi", 4)));
    let (ca, now) = (operators_ca(&broker.data()), system::now().ms());
    let scope = Scope::Grant(caller.grant).to_bytes();
    let denied = ("caller_role".to_owned(), Code::PermissionDenied);
    for role in Role::ALL {
        let issued = Issued::new(&ca, AGENCY, role, "another-1", now, ClientLifetime::MIN);
        let channel = issued.channel(&broker).await.unwrap();
        let calls = [Role::Person, Role::Workload].contains(&role);
        let reads = [Role::Auditor, Role::Admin, Role::Person].contains(&role);
        let called = soon("an answer", InferenceClient::new(channel.clone()).stream(request.clone())).await;
        match (called.map(drop), calls) {
            // The first that may call is the one whose call it is; the same call again is known.
            (Ok(()), true) => {}
            (result, true) => assert_eq!(refusal(result).0, "call_repeated", "{role:?}"),
            (result, false) => assert_eq!(refusal(result), denied, "{role:?}"),
        }
        let read = ReadRequest { scope: scope.clone(), from_seq: 0, limit: 0, follow: false };
        let read = soon("an answer", AuditClient::new(channel.clone()).read(read)).await.map(drop);
        if reads {
            read.unwrap()
        } else {
            assert_eq!(refusal(read), denied, "{role:?}")
        }
        let submit = SubmitRequest { statement: None, attachment: Vec::new(), key_set: None };
        let submitted = soon("an answer", ActsClient::new(channel.clone()).submit(submit)).await.map(drop);
        let code = refusal(submitted).0;
        assert_eq!(code == "caller_role", role == Role::Connector, "{role:?}: {code}");
        let slot = tokio_stream::iter(Vec::<ServeUp>::new());
        let served = soon("an answer", ServingClient::new(channel.clone()).serve(slot)).await.map(drop);
        let code = refusal(served).0;
        assert_eq!(code == "caller_role", role != Role::Connector, "{role:?}: {code}");
        let mut serving = ServingClient::new(channel.clone());
        let report = serving.report(ReportRequest { outcome: None });
        let code = refusal(soon("an answer", report).await).0;
        assert_eq!(code == "caller_role", role != Role::Connector, "{role:?}: {code}");
    }
    // The right role of the wrong organisation.
    let labs = Issued::new(&ca, LAB, Role::Workload, "workload-1", now, ClientLifetime::MIN);
    let channel = labs.channel(&broker).await.unwrap();
    let mut client = InferenceClient::new(channel);
    let code = refusal(soon("an answer", client.stream(request)).await).0;
    assert_eq!(code, "grant_unknown", "the lab is party to the grant, and does not call");
    // A certificate of an organisation that never enrolled reads nothing, and one that nobody appointed reads nothing of others.
    let stranger = Issued::new(&ca, "agency-z", Role::Auditor, "auditor-1", now, ClientLifetime::MIN);
    let mut auditor = AuditClient::new(stranger.channel(&broker).await.unwrap());
    let read = ReadRequest { scope: scope.clone(), from_seq: 0, limit: 0, follow: false };
    assert_eq!(refusal(soon("an answer", auditor.read(read)).await.map(drop)).0, "org_unknown");
    let unappointed = Issued::new(&ca, "oversight-a", Role::Auditor, "auditor-2", now, ClientLifetime::MIN);
    let channel = unappointed.channel(&broker).await.unwrap();
    for scope in [scope, Scope::Organisation(AGENCY.parse().unwrap()).to_bytes()] {
        let read = ReadRequest { scope, from_seq: 0, limit: 0, follow: false };
        let read = soon("an answer", AuditClient::new(channel.clone()).read(read)).await.map(drop);
        assert_eq!(refusal(read).0, "reader_not_entitled");
    }
    broker.kill().await;
    let book = Book::of(&broker.data());
    assert_eq!(book.state.accounts(&caller.grant).unwrap().grant.settled().0, 1, "one call, whoever sent it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_one_certificate() {
    let folder = Scene::folder();
    let mut broker = Broker::start(folder.path()).await;
    let tokens = TokenStore::open(&Folder::open(&broker.data()).unwrap().tokens()).unwrap();
    let principal = Principal::new(AGENCY, Role::Person, "person-1").unwrap();
    let now = system::now().ms();
    let token = tokens.mint(&principal, TokenLifetime::default(), now, &mut SystemEntropy::new()).unwrap();
    let door =
        Address::parse(&broker.addresses().enrolment.to_string()).unwrap().with_server_name("localhost").unwrap();
    let roots = EnrolTrust::Roots(operators_ca(&broker.data()).cert_pem().to_owned());
    let enrol = async |token: &str| soon("an answer", Credentials::enrol(&door, &roots, token)).await;
    let credentials = enrol(token.expose()).await.unwrap();
    assert_eq!(credentials.identity(), "agency-a/person/person-1");
    assert_eq!(refused(enrol(token.expose()).await.unwrap_err()).code, "token_used");
    // A restart does not make it new.
    broker.kill().await;
    broker.start_again().await;
    assert_eq!(refused(enrol(token.expose()).await.unwrap_err()).code, "token_used");
    let long_ago = now - 8 * 86_400_000;
    let old = tokens.mint(&principal, TokenLifetime::default(), long_ago, &mut SystemEntropy::new()).unwrap();
    assert_eq!(refused(enrol(old.expose()).await.unwrap_err()).code, "token_expired");
    assert_eq!(refused(enrol("nonsense").await.unwrap_err()).code, "token_invalid");
    broker.kill().await;
}
