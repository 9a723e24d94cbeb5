//! The operator's keys, exchanged: what goes on working, what no longer does, and what is refused because it is not its turn.

use std::time::Duration;

use anteroom_broker::{
    boot::Folder,
    entropy::SystemEntropy,
    identity::{Principal, Role},
    pki::token::{TokenLifetime, TokenStore},
};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{GrantId, LockId, OrgId},
    rpc::{WhoAmIRequest, directory_client::DirectoryClient},
    statement::{acts::Hold, envelope::Signer as _},
};
use anteroom_sdk::{
    channel::{self, Address, TlsSource},
    credentials::{Credentials, EnrolTrust},
    home::Home,
    signer::SharedSigner,
    system,
};
use anteroom_tests::e2e::{
    broker::Broker,
    caller::{chat, refused},
    command::said,
    scene::{Scene, plan},
    second::certify,
    wait::{soon, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_key_encryption_key_is_exchanged_and_the_old_one_opens_nothing() {
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    assert_eq!(caller.stream(chat("before", 4)).await.end, None);
    let next = format!("file://{}", broker.data().join("kek.2").display());
    let present = format!("file://{}", broker.data().join("kek").display());

    let (code, said) = broker.says("rotate-kek", &["--to", &next]).await;
    assert!(code == Some(1) && said.contains("another process"), "while it runs: {said}");
    assert!(broker.drain().await.success());
    let (code, said) = broker.says("rotate-kek", &["--to", &present]).await;
    assert!(code == Some(1) && said.contains("key in force"), "{said}");
    let (code, said) = broker.says("rotate-kek", &["--to", &next]).await;
    assert!(code == Some(0) && said.contains("are wrapped under"), "{said}");
    // Whoever does not know whether it was done asks again.
    let (code, said) = broker.says("rotate-kek", &["--to", &next]).await;
    assert!(code == Some(0) && said.contains("already"), "{said}");
    let (code, said) = broker.says("serve", &[]).await;
    assert!(code == Some(1) && said.contains("does not open under the key-encryption key"), "{said}");

    broker.configure("kek", &next);
    std::fs::remove_file(broker.data().join("kek")).unwrap();
    broker.start_again().await;
    broker.ready().await;
    let caller = scene.caller(caller.grant).await;
    assert_eq!(caller.stream(chat("after", 4)).await.end, None);
    assert!(broker.drain().await.success());
    let (code, said) = broker.says("fsck", &[]).await;
    assert!(code == Some(0) && !said.contains("cannot be read"), "every record opens: {said}");
}

/// A member's certificate for a token, and who the broker says it is under the roots that came with it.
async fn enrolled(broker: &Broker, name: &str) -> Result<Credentials, String> {
    let tokens = TokenStore::open(&Folder::open(&broker.data()).unwrap().tokens()).unwrap();
    let admin = Principal::new("lab-a", Role::Admin, name).unwrap();
    let token = tokens.mint(&admin, TokenLifetime::default(), system::now().ms(), &mut SystemEntropy::new()).unwrap();
    let roots = std::fs::read_to_string(broker.data().join("operator").join("ca.pem")).unwrap();
    let door =
        Address::parse(&broker.addresses().enrolment.to_string()).unwrap().with_server_name("localhost").unwrap();
    let trust = EnrolTrust::Roots(roots);
    soon("a certificate", Credentials::enrol(&door, &trust, token.expose())).await.map_err(|error| error.to_string())
}

async fn known(broker: &Broker, member: &Credentials) -> Option<String> {
    let door =
        Address::parse(&broker.addresses().programme.to_string()).unwrap().with_server_name("localhost").unwrap();
    let tls = TlsSource::new(member.tls().unwrap());
    let channel = soon("a connection", channel::connect(&door, &tls)).await.ok()?;
    let reply = soon("an answer", DirectoryClient::new(channel).who_am_i(WhoAmIRequest {})).await.ok()?;
    Some(reply.into_inner().identity)
}

fn roots(member: &Credentials) -> usize {
    member.roots_pem().matches("BEGIN CERTIFICATE").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authoritys_root_is_exchanged_and_nobody_is_locked_out() {
    let folder = Scene::folder();
    let mut broker = Broker::start(folder.path()).await;
    let early = enrolled(&broker, "early").await.unwrap();
    assert_eq!(roots(&early), 1);
    for (step, why) in [("switch", "another process"), ("finish", "nothing to finish")] {
        let (code, said) = broker.says("rotate-ca", &[step]).await;
        assert!(code == Some(1) && said.contains(why), "{step}: {said}");
    }
    let (code, said) = broker.says("rotate-ca", &["begin"]).await;
    assert!(code == Some(0), "{said}");
    let (code, _) = broker.says("rotate-ca", &["begin"]).await;
    assert_eq!(code, Some(0), "the same again changes nothing");
    // A running broker hands both roots out before long; the old one still signs.
    let between = until("both roots", || async {
        let member = enrolled(&broker, "between").await.unwrap();
        (roots(&member) == 2).then_some(member)
    })
    .await;
    let (code, said) = broker.says("rotate-ca", &["finish"]).await;
    assert!(code == Some(1) && said.contains("switch` comes first"), "{said}");

    assert!(broker.drain().await.success());
    let (code, said) = broker.says("rotate-ca", &["switch"]).await;
    assert!(code == Some(1) && said.contains("wait, or add --at-once"), "{said}");
    let (code, said) = broker.says("rotate-ca", &["switch", "--at-once"]).await;
    assert!(code == Some(0), "{said}");
    let (code, said) = broker.says("rotate-ca", &["finish", "--at-once"]).await;
    assert!(code == Some(1) && said.contains("start it first"), "{said}");
    broker.start_again().await;

    // Whoever fetched both roots in between stays in; whoever did not no longer knows the broker's certificate.
    assert_eq!(known(&broker, &between).await.as_deref(), Some("lab-a/admin/between"));
    assert_eq!(known(&broker, &early).await, None, "it never fetched the new root");
    let late = enrolled(&broker, "late").await.unwrap();
    assert_eq!(known(&broker, &late).await.as_deref(), Some("lab-a/admin/late"));

    let (code, said) = broker.says("rotate-ca", &["finish"]).await;
    assert!(code == Some(1) && said.contains("wait, or add --at-once"), "{said}");
    let (code, said) = broker.says("rotate-ca", &["finish", "--at-once"]).await;
    assert!(code == Some(0), "{said}");
    until("the old root's end", || async { known(&broker, &between).await.is_none().then_some(()) }).await;
    assert_eq!(known(&broker, &late).await.as_deref(), Some("lab-a/admin/late"));
    assert_eq!(roots(&enrolled(&broker, "last").await.unwrap()), 1);
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_was_interrupted_is_finished_by_the_next_start() {
    let folder = Scene::folder();
    let mut broker = Broker::made(folder.path()).await;
    assert_eq!(broker.says("rotate-ca", &["begin"]).await.0, Some(0));
    // What a power cut leaves between the two renames: the new root's certificate, the old one's key.
    let pki = broker.data().join("pki");
    std::fs::rename(pki.join("next").join("ca.pem"), pki.join("ca.pem")).unwrap();
    broker.start_again().await;
    assert!(!pki.join("next").exists());
    let member = enrolled(&broker, "member").await.unwrap();
    assert_eq!((known(&broker, &member).await.as_deref(), roots(&member)), (Some("lab-a/admin/member"), 2));
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_stop_key_is_exchanged_and_the_old_one_signs_nothing() {
    let (scene, broker) = Scene::start(Duration::ZERO).await;
    let mut operator = Home::create(&scene.dir().join("operator-keys")).unwrap();
    operator
        .set(|settings| {
            settings.addr = Some(broker.addresses().programme.to_string());
            settings.enrol_addr = Some(broker.addresses().enrolment.to_string());
            settings.server_name = Some("localhost".to_owned());
        })
        .unwrap();
    certify(scene.dir(), broker.addresses(), &mut operator, "operator", Role::Admin).await.unwrap();
    let dir = operator.dir().to_owned();
    said(&dir, &["pin", "log", broker.log_key()]).await;
    said(&dir, &["org", "init", "--org", "operator", "--kind", "operator"]).await;
    said(&dir, &["org", "enroll"]).await;
    // The signature is looked at before what is asked, which is a hold on a grant that is not there.
    let asked = async |operator: &Home, signer: &SharedSigner| {
        let hold = Hold {
            id: LockId::from_bytes([9; 16]),
            by: OrgId::parse("operator").unwrap(),
            scope: Scope::Grant(GrantId::from_bytes([7; 16])),
            reason: "a drill".to_owned(),
        };
        let statement = operator.sign(&hold, signer).unwrap();
        refused(operator.organisation().await.unwrap().submit(statement, Vec::new()).await.unwrap_err()).code
    };
    let old = operator.stop_signer().unwrap();
    let before = asked(&operator, &old).await;
    assert_eq!(before, "scope_unknown");
    let next = dir.join("next.json").display().to_string();
    said(&dir, &["org", "rotate", "--replace", "stop", "--out", &next]).await;
    said(&dir, &["statement", "submit", &next]).await;
    let operator = Home::open(&dir).unwrap();
    let new = operator.stop_signer().unwrap();
    assert_ne!(new.public_key(), old.public_key());
    assert_eq!(asked(&operator, &new).await, before, "the new key is heard as the old one was");
    assert_ne!(asked(&operator, &old).await, before, "the old one is not");
}
