//! `anteroom doctor` on what really goes wrong: each cause is told once, with its next step.

use std::{path::Path, time::Duration};

use anteroom_tests::e2e::{
    command::command,
    scene::{Scene, plan},
    wait::{soon, until},
};
use serde_json::Value;

/// What it finds, and whether something has to be put right.
async fn found(home: &Path, more: &[&str]) -> (Vec<Value>, bool) {
    let words: Vec<&str> = ["--format", "json", "doctor"].iter().chain(more).copied().collect();
    let output = soon("the doctor", command(home, &words).output()).await.unwrap();
    let found: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (found, output.status.code() == Some(1))
}

fn wrong(found: &[Value]) -> Vec<&str> {
    let wrong = found.iter().filter(|finding| finding["state"] == "wrong");
    wrong
        .map(|finding| {
            assert!(finding["next"].is_string(), "{finding}");
            finding["check"].as_str().unwrap()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_is_told_once_with_what_to_do() {
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let agency = scene.cast.agency.dir().to_owned();
    let (before, failed) = found(&agency, &[]).await;
    assert!(failed && wrong(&before) == ["grants"], "{before:?}");

    let grant = scene.cast.granted(&plan()).await.unwrap();
    let name = grant.to_string();
    let (fine, failed) = found(&agency, &[]).await;
    assert!(!failed && wrong(&fine).is_empty(), "{fine:?}");
    let (lab, failed) = found(scene.cast.lab.dir(), &[]).await;
    assert!(!failed, "{lab:?}");

    scene.connector.take().unwrap().drain().await;
    // The broker notices that its slots are gone.
    until("no slot", || async {
        let (found, _) = found(&agency, &[&name]).await;
        (wrong(&found) == [name.as_str()]).then_some(())
    })
    .await;
    scene.connect().await;

    let _ = scene.withdraw(grant).await.unwrap();
    let (over, failed) = found(&agency, &[&name]).await;
    assert!(failed && over.iter().any(|finding| finding["found"].as_str().unwrap().contains("withdrawn")), "{over:?}");

    // Roots of somebody else: as where a proxy opens TLS.
    let other = scene.dir().join("other.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["other.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(&other, certificate.pem()).unwrap();
    let own = agency.join("cert/workload/client.pem");
    let own = own.to_str().unwrap();
    let with = ["--ca", other.to_str().unwrap(), "--cert", own, "--key", own];
    let (opened, failed) = found(&agency, &with).await;
    assert!(failed && wrong(&opened) == ["TLS"], "{opened:?}");
    let tls = opened.iter().find(|finding| finding["check"] == "TLS").unwrap();
    assert!(tls["found"].as_str().unwrap().contains("was issued by `"), "{tls}");
    assert!(tls["next"].as_str().unwrap().contains("a proxy that opens TLS"), "{tls}");

    broker.kill().await;
    let (gone, failed) = found(&agency, &[]).await;
    assert!(failed && wrong(&gone) == ["port"], "{gone:?}");
    let (lost, failed) = found(&scene.dir().join("nowhere"), &[]).await;
    assert!(failed && wrong(&lost) == ["folder"], "{lost:?}");
}
