//! The log's key, exchanged within the log: who follows, and what nobody believes any more.

use std::{fs, path::Path, time::Duration};

use anteroom_proto::{
    ledger::{
        checkpoint::{Checkpoint, CheckpointError, LogTrust},
        logkeys::LogKeys,
        note::{Note, NoteSigner, VerifierKey},
    },
    names::GrantId,
    rpc::{GetPublishedRequest, audit_client::AuditClient},
};
use anteroom_sdk::{evaluator::Route, home::Use};
use anteroom_tests::e2e::{
    broker::Broker,
    caller::{Caller, chat, chat_whole},
    command::{fails, json, published, said},
    scene::{Scene, plan},
    wait::until,
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn secret(broker: &Broker, name: &str) -> String {
    format!("file://{}", broker.data().join(name).display())
}

/// One call by the agency's own folder, whose receipt stays there.
async fn ask(scene: &Scene, grant: GrantId) {
    let evaluator = scene.cast.evaluator(grant).await.unwrap();
    until("an answer", || async {
        evaluator.complete(Route::Chat, chat_whole("what is this?", 4)).await.ok().map(|_| ())
    })
    .await;
}

/// One call by somebody who has been there all the time.
async fn again(caller: &Caller, what: &str) {
    until("an answer to who stayed", || async {
        caller.evaluator.complete(Route::Chat, chat_whole(what, 4)).await.ok().map(|_| ())
    })
    .await;
}

/// The published checkpoint's size and signed note, as anybody is shown them.
async fn shown(scene: &Scene) -> Note {
    published(&scene.cast.lab).await;
    let mut audit = AuditClient::new(scene.cast.lab.channel(Use::Act).await.unwrap());
    let reply = audit.get_published(GetPublishedRequest::default()).await.unwrap().into_inner();
    Note::parse(reply.checkpoint.as_bytes()).unwrap()
}

fn by(note: &Note, key: &VerifierKey) -> bool {
    LogTrust::log_only(key.clone()).unwrap().verify(note.clone()).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_key_is_exchanged_and_everybody_follows() {
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    let grant = caller.grant;
    scene.cast.appoint(grant, 24).await.unwrap();
    assert_eq!(caller.stream(chat("before", 4)).await.end, None);
    ask(&scene, grant).await;
    let (agency, reader) = (scene.cast.agency.dir().to_owned(), scene.cast.oversight.dir().to_owned());
    let (early, copy) = (scene.dir().join("early"), scene.dir().join("copy"));
    let scope = grant.to_string();
    published(&scene.cast.oversight).await;
    json(&reader, &["audit", "mirror", text(&early), "--scope", &scope, "--scope", "system"]).await;
    let old: VerifierKey = broker.log_key().parse().unwrap();

    // The key hands over while the broker is down, once, however often it is asked to.
    let (next, before) = (secret(&broker, "log.key.2"), secret(&broker, "log.key"));
    let (code, told) = broker.says("rotate-log-key", &["--to", &next]).await;
    assert!(code == Some(1) && told.contains("another process"), "while it runs: {told}");
    assert!(broker.drain().await.success());
    let (code, told) = broker.says("rotate-log-key", &["--to", &next]).await;
    assert!(code == Some(0) && told.contains("has handed over now") && told.contains("log_key_before"), "{told}");
    let (code, told) = broker.says("rotate-log-key", &["--to", &next]).await;
    assert!(code == Some(0) && told.contains("already"), "{told}");
    let (code, told) = broker.says("serve", &[]).await;
    assert!(code == Some(1) && told.contains("handed over to"), "{told}");
    let chain = LogKeys::parse(&fs::read(broker.data().join("published").join("log.keys")).unwrap()).unwrap();

    // Both keys sign: whoever knows either goes on, and learns of the other.
    broker.configure("log-key", &next);
    broker.configure("log-key-before", &before);
    broker.start_again().await;
    broker.ready().await;
    let new: VerifierKey = broker.log_key().parse().unwrap();
    assert_eq!((chain.oldest(), chain.newest()), (&old, &new));
    let note = shown(&scene).await;
    assert!(by(&note, &old) && by(&note, &new));
    again(&caller, "meanwhile").await;
    ask(&scene, grant).await;

    // The old key is gone. Whoever was there goes on; who was away follows when it is back.
    assert!(broker.drain().await.success());
    broker.leave_out("log-key-before");
    let seed: [u8; 32] = fs::read(broker.data().join("log.key")).unwrap().try_into().unwrap();
    fs::remove_file(broker.data().join("log.key")).unwrap();
    broker.start_again().await;
    broker.ready().await;
    let note = shown(&scene).await;
    assert!(!by(&note, &old) && by(&note, &new));
    again(&caller, "after").await;
    ask(&scene, grant).await;
    published(&scene.cast.oversight).await;
    json(&reader, &["audit", "mirror", text(&copy), "--scope", &scope, "--scope", "system"]).await;
    // A mirror from before grows across the rotation.
    json(&reader, &["audit", "mirror", text(&early)]).await;
    let known = json(&reader, &["whoami"]).await;
    assert!(known["log_key_is"].as_str().unwrap().contains("handed over to"), "{known}");
    assert!(broker.drain().await.success());
    let (code, told) = broker.says("fsck", &[]).await;
    assert_eq!(code, Some(0), "{told}");

    // Receipts of before, meanwhile and after hold under either key, for whoever pinned it, without the broker.
    let calls = json(&agency, &["receipt", "verify"]).await;
    assert!(calls.as_array().unwrap().len() >= 3, "{calls}");
    said(&agency, &["pin", "log", &new.to_string(), "--replace"]).await;
    assert_eq!(json(&agency, &["receipt", "verify"]).await, calls);
    // So do the mirrors, for a stranger who was told either.
    let nobody = scene.dir().join("nobody");
    for mirror in [&early, &copy] {
        let own = json(&reader, &["audit", "verify", "--mirror", text(mirror)]).await;
        for key in [&old, &new] {
            let held =
                json(&nobody, &["audit", "verify", "--mirror", text(mirror), "--log-key", &key.to_string()]).await;
            assert_eq!(held["root"], own["root"]);
        }
    }

    // Whoever found the old key signs in vain.
    let thief = NoteSigner::from_seed(old.name().clone(), &seed);
    let (checkpoint, trust) = (Checkpoint::parse(note.text()).unwrap(), scene.cast.oversight.log_trust().unwrap());
    assert_eq!(trust.log(), &old, "what is pinned stays pinned");
    let forged = checkpoint.sign(&thief).unwrap();
    let refused = trust.verify(forged.clone()).unwrap_err();
    assert!(
        matches!(&refused, CheckpointError::Succeeded { size, key, .. } if (*size, &**key) == (checkpoint.size(), &old)),
        "{refused}"
    );
    fs::write(copy.join("checkpoint"), forged.encode()).unwrap();
    let told = fails(&reader, &["audit", "verify", "--mirror", text(&copy)], 7).await;
    assert!(told.contains("handed over to the log's next key"), "{told}");
}
