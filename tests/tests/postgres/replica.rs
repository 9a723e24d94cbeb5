//! Replicas that an orchestrator makes: one set of secrets, a directory each, a log that begins once; and a drill over all of them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anteroom_broker::demo::cast::{AGENCY, LAB};
use anteroom_tests::e2e::{
    broker::Broker,
    cluster::Cluster,
    command::json,
    postgres::Postgres,
    scene::{SLOW, Scene, plan},
};

/// A folder of secrets as a Kubernetes volume shows it: open to all, links into a folder that is exchanged as a whole, the files the
/// group's to read.
fn mounted(from: &Path, at: &Path) {
    let held = at.join("..2026_11_29");
    fs::create_dir_all(held.join("pki")).unwrap();
    for name in ["kek", "log.key", "pki/ca.pem", "pki/ca.key"] {
        fs::copy(from.join(name), held.join(name)).unwrap();
        fs::set_permissions(held.join(name), fs::Permissions::from_mode(0o440)).unwrap();
    }
    symlink("..2026_11_29", at.join("..data")).unwrap();
    for name in ["kek", "log.key", "pki"] {
        symlink(Path::new("..data").join(name), at.join(name)).unwrap();
    }
    fs::set_permissions(at, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Every file of a directory with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_made_from_shared_secrets_and_a_log_begins_once() {
    let postgres = Postgres::start().await;
    let folder = Scene::folder();
    let dir = |name: &str| {
        let dir = folder.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    // Made where no database is within reach: keys, and no log that anybody uses.
    let keys = Broker::made(&dir("keys")).await;
    let secrets = dir("secrets");
    mounted(&keys.data(), &secrets);
    let like = secrets.to_str().unwrap();
    let replica = |name: &str, book: &str| {
        let mut replica = Broker::unmade(&dir(name));
        replica.configure("book", book);
        replica
    };

    // Before there is a log, and while the database is away, a replica makes nothing, so that it can try again.
    let book = postgres.book();
    let mut one = replica("one", &book);
    let (code, said) = one.says("init", &["--like", like, "--if-missing"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(!one.data().exists(), "{said}");
    let away = replica("away", "postgres://anteroom@127.0.0.1:1/anteroom");
    let (code, said) = away.says("init", &["--like", like, "--if-missing"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(!away.data().exists(), "{said}");

    // The log begins once, by somebody's word and in a directory that goes.
    for words in [vec!["--new-log"], vec!["--if-missing"], vec!["--like", like, "--new-log", "--if-missing"]] {
        let (code, said) = one.says("init", &words).await;
        assert_eq!(code, Some(2), "{said}");
    }
    let (code, said) = one.says("init", &["--like", folder.path().to_str().unwrap(), "--new-log"]).await;
    assert!(code == Some(1) && said.contains("pki/ca.key"), "{said}");
    let job = replica("job", &book);
    let (code, said) = job.says("init", &["--like", like, "--new-log"]).await;
    assert_eq!(code, Some(0), "{said}");
    let again = replica("again", &book);
    let (code, said) = again.says("init", &["--like", like, "--new-log"]).await;
    assert!(code == Some(1) && said.contains("already"), "{said}");

    // Each replica makes its directory, and finds it whole the next time.
    let mut two = replica("two", &book);
    let mut pins = Vec::new();
    for replica in [&one, &two] {
        let (code, said) = replica.says("init", &["--like", like, "--if-missing"]).await;
        assert_eq!(code, Some(0), "{said}");
        let made = files(&replica.data());
        let (code, said) = replica.says("init", &["--like", like, "--if-missing"]).await;
        assert!(code == Some(0) && said.contains("nothing was changed"), "{said}");
        assert_eq!(files(&replica.data()), made);
        let (code, said) = replica.says("pins", &[]).await;
        assert_eq!(code, Some(0), "{said}");
        pins.push(said);
    }
    let (_, shared) = keys.says("pins", &[]).await;
    assert_eq!(pins, [shared.clone(), shared], "one log key, one root");
    // Half a directory is nobody's to complete.
    fs::remove_file(two.data().join("format")).unwrap();
    let (code, said) = two.says("init", &["--like", like, "--if-missing"]).await;
    assert!(code == Some(1) && said.contains("no initialised data directory"), "{said}");
    fs::write(two.data().join("format"), "anteroom-data-1\n").unwrap();

    for replica in [&mut one, &mut two] {
        replica.start_again().await;
    }
    assert_eq!(one.log_key(), two.log_key());
    assert_eq!(postgres.sql("SELECT count(*) FROM anteroom_broker").await, "2");
    for replica in [&mut one, &mut two] {
        assert!(replica.drain().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_opens_streams_at_each_broker_and_all_of_them_are_cut() {
    let mut cluster = Cluster::start(3, SLOW).await;
    let _running = cluster.cast.granted(&plan()).await.unwrap();
    let addresses: Vec<String> =
        cluster.brokers.iter().map(|broker| broker.addresses().programme.to_string()).collect();
    let folders = [LAB, AGENCY].map(|party| cluster.dir().join(party).display().to_string());
    let several = addresses.join(",");
    let words =
        ["--addr", &several, "drill", "withdraw", "--lab", &folders[0], "--agency", &folders[1], "--line", "aurora"];
    let words: Vec<&str> =
        words.into_iter().chain(["--starts-clock", "--streams", "9", "--max-tokens", "60000"]).collect();
    let measured = json(Path::new("nowhere"), &words).await;
    assert_eq!(
        (&measured["holds"], &measured["cut"], &measured["connections"]),
        (&true.into(), &9.into(), &3.into()),
        "{measured}"
    );
    assert_eq!(
        (&measured["brokers"], &measured["withdrawn_at"]),
        (&serde_json::json!(addresses), &addresses[0].as_str().into())
    );
    let asked: Vec<_> = measured["asked_again"].as_array().unwrap().iter().map(|one| one["code"].as_str()).collect();
    assert_eq!(asked, [Some("grant_withdrawn"); 3]);

    // One that is gone is left out and said so; what is left is drilled.
    cluster.brokers[0].kill().await;
    let measured = json(Path::new("nowhere"), &words).await;
    assert_eq!((&measured["holds"], &measured["cut"]), (&true.into(), &9.into()), "{measured}");
    assert_eq!(measured["brokers"], serde_json::json!(addresses[1..]));
}
