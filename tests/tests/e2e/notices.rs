//! Parties are told, by a real relay and a real webhook, that something waits for them or ends; what was sent can be read back, and
//! nobody waits for whoever does not answer.

use std::{path::Path, sync::Arc, time::Duration};

use anteroom_broker::demo::cast::Cast;
use anteroom_tests::e2e::{
    broker::{Broker, metric},
    command::{fails, json, said},
    post::{Hook, Login, Post},
    scene::{Scene, plan},
    wait::until,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json as value};
use tokio::net::TcpListener;

const REASON: &str = "the reason is nobody else's business";

/// A scene whose broker may reach this machine and has this relay.
async fn scene(relay: &str, more: &[(&str, &str)]) -> (Scene, Broker) {
    let folder = Scene::folder();
    let mut broker = Broker::made(folder.path()).await;
    broker.configure("notices-smtp", relay);
    broker.configure("notices-from", "anteroom@broker.example");
    broker.configure("notices-allow", "here=127.0.0.0/8");
    more.iter().for_each(|(key, value)| broker.configure(key, value));
    broker.start_again().await;
    let scene = Scene::seed(folder, broker.addresses(), broker.log_key(), Duration::ZERO).await;
    broker.ready().await;
    (scene, broker)
}

async fn set(home: &Path, contacts: &Value) -> Value {
    let file = home.join("contacts.json");
    std::fs::write(&file, contacts.to_string()).unwrap();
    json(home, &["org", "contacts", "set", file.to_str().unwrap()]).await
}

/// Waits until what became of these kinds of notices is on record.
async fn listed(home: &Path, grant: &str, kinds: &[&str]) -> Vec<Value> {
    until("recorded notices", || async {
        let rows = json(home, &["org", "notices", "--grant", grant]).await.as_array()?.clone();
        let known = |kind: &&str| rows.iter().any(|row| row["about"] == **kind);
        kinds.iter().all(known).then_some(rows)
    })
    .await
}

fn of<'r>(rows: &'r [Value], kind: &str) -> &'r Value {
    rows.iter().find(|row| row["about"] == kind).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agency_is_told_by_mail_and_webhook_and_reads_back_what_was_sent() {
    let mut post = Post::start(None).await;
    let mut hook = Hook::start(204).await;
    let (scene, broker) = scene(&format!("smtp://127.0.0.1:{}", post.port()), &[]).await;
    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    let list = value!([
        {"id": "duty", "to": "mailto:duty@agency.example"},
        {"id": "desk", "to": hook.url(), "notices": ["offer_waiting", "withdrawn"]},
    ]);
    assert_eq!(set(&agency, &list).await["standing"], value!("2 contacts"));
    let shown = json(&agency, &["org", "contacts", "show"]).await;
    assert_eq!((&shown[0]["id"], &shown[0]["notices"]), (&value!("duty"), &value!("all")));
    assert_eq!(shown[1]["to"], value!(hook.url()));
    let others = said(&lab, &["org", "contacts", "show"]).await;
    assert!(!others.contains("agency.example"), "{others}");

    let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
    let (mail, body) = (post.next().await, hook.next().await);
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("anteroom@broker.example", &["duty@agency.example".to_owned()][..])
    );
    assert!(mail.text.contains(&format!("anteroom grant accept {grant}")), "{}", mail.text);
    assert_eq!((&body["kind"], &body["grant"]), (&value!("offer_waiting"), &value!(grant)));
    let id = body["notice"].as_str().unwrap();
    assert!(mail.text.contains(&format!("X-Anteroom-Notice: {id}\r\n")), "{}", mail.text);

    said(&lab, &["grant", "withdraw", &grant, "--reason", REASON]).await;
    let body = hook.next().await;
    assert_eq!(body["kind"], value!("withdrawn"));
    let mails = [post.next().await, post.next().await];
    for said in mails.iter().map(|mail| &mail.text).chain([&body.to_string()]) {
        assert!(!said.contains(REASON) && said.is_ascii(), "{said}");
    }
    let rows = listed(&agency, &grant, &["offer_waiting", "withdrawn", "closing_bundle"]).await;
    let withdrawn = of(&rows, "withdrawn");
    assert_eq!((&withdrawn["delivered"], &withdrawn["failed"]), (&value!("desk duty"), &value!("")));
    assert_eq!(withdrawn["notice"], body["notice"]);
    assert_eq!(of(&rows, "closing_bundle")["delivered"], value!("duty"));
    // The record that the message names is the act itself, in what this reader can prove.
    let read = json(&agency, &["audit", "read", &grant, "--kind", "GrantWithdrawn"]).await;
    assert_eq!(read[0]["index"], body["record"]);
    assert_eq!(json(&lab, &["org", "notices"]).await, value!([]), "the lab asked for nothing");
    until("an empty desk", || async {
        let pending = metric(broker.addresses().ops, "anteroom_notices_pending").await?;
        (pending == 0.0).then_some(())
    })
    .await;

    // The next list names the one before by itself; none ends it.
    set(&agency, &value!([])).await;
    assert_eq!(json(&agency, &["org", "contacts", "show"]).await, value!([]));
    let bad = agency.join("bad.json");
    for to in ["http://collector.example/in", "mailto:a@b.example\r\nBcc: c@d.example", "https://u:p@a.example/"] {
        std::fs::write(&bad, value!([{"id": "a", "to": to}]).to_string()).unwrap();
        fails(&agency, &["org", "contacts", "set", bad.to_str().unwrap()], 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_relay_and_a_webhook_that_hangs_delay_no_end_and_nobody_else() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, hung) = (dead.local_addr().unwrap().port(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let mut hook = Hook::start(200).await;
    let (scene, mut broker) = scene(&format!("smtp://127.0.0.1:{port}"), &[]).await;
    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    let hung_url = format!("http://{}/in", hung.local_addr().unwrap());
    let list = value!([
        {"id": "duty", "to": "mailto:duty@agency.example", "notices": ["withdrawn"]},
        {"id": "hung", "to": hung_url, "notices": ["withdrawn"]},
        {"id": "desk", "to": hook.url(), "notices": ["withdrawn"]},
    ]);
    set(&agency, &list).await;
    let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
    said(&lab, &["grant", "withdraw", &grant, "--reason", REASON]).await;
    let body = hook.next().await;
    assert_eq!(body["kind"], value!("withdrawn"), "it is told while the others hang");
    let rows = json(&agency, &["org", "notices"]).await;
    assert_eq!(rows, value!([]), "not before each contact came to its end");

    // The broker dies with it undelivered; the next one goes on, under the same name.
    broker.kill().await;
    let mut late = Hook::start(503).await;
    broker.start_again().await;
    broker.ready().await;
    let list = value!([
        {"id": "hung", "to": late.url(), "notices": ["withdrawn"]},
        {"id": "desk", "to": hook.url(), "notices": ["withdrawn"]},
    ]);
    set(&agency, &list).await;
    broker.kill().await;
    late.answer(200);
    broker.start_again().await;
    let again = late.next().await;
    assert_eq!(again["notice"], body["notice"]);
    let rows = listed(&agency, &grant, &["withdrawn"]).await;
    let row = of(&rows, "withdrawn");
    assert_eq!((&row["delivered"], &row["failed"]), (&value!("desk hung"), &value!("duty")));
    assert_eq!(rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_by_tls_is_verified_and_logged_into() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let login = Login { user: "anteroom".to_owned(), password: "s3cret".to_owned(), tls: Arc::new(tls) };
    let mut post = Post::start(Some(login)).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let relay = format!("smtps://anteroom@localhost:{}", post.port());
    let (scene, broker) = scene(&relay, &[("notices-smtp-password", password.to_str().unwrap())]).await;
    let Cast { lab, .. } = &scene.cast;
    let home = lab.dir().to_owned();
    set(&home, &value!([{"id": "duty", "to": "mailto:duty@lab.example", "notices": ["withdrawn"]}])).await;
    let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
    said(&home, &["grant", "withdraw", &grant, "--reason", REASON]).await;
    until("a relay that is not verified", || async { broker.log().contains("UnknownIssuer").then_some(()) }).await;
    // The operator says by whom its relay is known.
    std::fs::write(broker.data().join("notices").join("ca.pem"), cert.pem()).unwrap();
    set(&home, &value!([{"id": "duty", "to": "mailto:other@lab.example"}])).await;
    let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
    said(&home, &["grant", "pause", &grant, "--reason", REASON]).await;
    let mail = post.next().await;
    assert_eq!((mail.user.as_str(), mail.to.as_slice()), ("anteroom", &["other@lab.example".to_owned()][..]));
    assert!(mail.text.contains("a side paused the grant"), "{}", mail.text);
    assert!(!broker.log().contains("s3cret"));
}
