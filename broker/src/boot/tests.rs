#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::{net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    clock::ScriptedTime,
    config::{Secret, Settings},
};

pub(super) const NOW: i64 = 1_790_000_000_000;

pub(super) fn config(root: &Path) -> Config {
    let anywhere = Some(([127, 0, 0, 1], 0).into());
    Config::check(Settings {
        data_dir: Some(root.join("data")),
        trust_domain: Some("broker.test".to_owned()),
        listen: anywhere,
        enrol_listen: anywhere,
        ops_listen: anywhere,
        wal_segment_bytes: Some(2 << 20),
        wal_reserve_bytes: Some(2 << 20),
        ..Settings::default()
    })
    .unwrap()
}

pub(super) fn outside(time: &ScriptedTime) -> Outside {
    Outside { time: Arc::new(time.clone()), environment: Box::new(|_| None) }
}

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn broker_starts_again_where_it_ended() {
    let root = tempfile::tempdir().unwrap();
    let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
    let made = init(&config, &time, &|_| None).unwrap();
    let running = start(config.clone(), outside(&time)).await.unwrap();
    assert_eq!(running.log_key(), made.log_key);
    assert_eq!(running.journal().newest().size, 2, "the log's start and the broker's");
    running.drain();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
    let running = start(config.clone(), outside(&time)).await.unwrap();
    assert_eq!(running.journal().newest().size, 4, "the end's snapshot and the new start");
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
    let checked = fsck(&config, &|_| None).unwrap().unwrap();
    assert_eq!((checked.records, checked.batches, checked.torn), (5, 5, None));
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_comes_with_a_confirmed_clock() {
    let root = tempfile::tempdir().unwrap();
    let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
    init(&config, &time, &|_| None).unwrap();
    let running = start(config, outside(&time)).await.unwrap();
    let ops = running.addresses().ops;
    assert!(ask(ops, "/livez").await.starts_with("HTTP/1.1 200"));
    let unready = ask(ops, "/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("\"clock_untrusted\""), "{unready}");
    running.journal().clock().confirm(NOW).unwrap();
    assert!(ask(ops, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = ask(ops, "/metrics").await;
    assert!(metrics.contains("\nanteroom_clock_trusted 1\n"), "{metrics}");
    assert!(metrics.contains("\nanteroom_grants{phase=\"active\"} 0\n"), "{metrics}");
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
}

#[tokio::test]
async fn directory_in_use_is_refused_to_others() {
    let root = tempfile::tempdir().unwrap();
    let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
    init(&config, &time, &|_| None).unwrap();
    let running = start(config.clone(), outside(&time)).await.unwrap();
    assert!(matches!(start(config.clone(), outside(&time)).await, Err(StartError::InUse)));
    assert!(matches!(fsck(&config, &|_| None), Err(StartError::InUse)));
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
}

#[test]
fn init_replaces_nothing_and_shows_nothing_to_others() {
    let root = tempfile::tempdir().unwrap();
    let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
    init(&config, &time, &|_| None).unwrap();
    assert!(matches!(init(&config, &time, &|_| None), Err(StartError::Present(_))));
    let mode = |path: &str| std::fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o777;
    for folder in [
        "data",
        "data/published",
        "data/lock",
        "data/wal",
        "data/keys",
        "data/pki",
        "data/index",
        "data/operator",
        "data/pki/tokens",
    ] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    for file in ["data/kek", "data/log.key", "data/pki/ca.key", "data/pki/server.pem"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_secret_that_an_orchestrator_put_in_place_is_used_and_never_replaced() {
    let root = tempfile::tempdir().unwrap();
    let (mut config, time) = (config(root.path()), ScriptedTime::new(NOW));
    let (kek, log_key) = (root.path().join("kek"), root.path().join("log.key"));
    for (path, byte) in [(&kek, 7), (&log_key, 8)] {
        std::fs::write(path, [byte; 32]).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o440)).unwrap();
    }
    (config.kek, config.log_key) = (Secret::File(kek.clone()), Secret::File(log_key.clone()));
    init(&config, &time, &|_| None).unwrap();
    assert_eq!((std::fs::read(&kek).unwrap(), std::fs::read(&log_key).unwrap()), (vec![7; 32], vec![8; 32]));
    let running = start(config.clone(), outside(&time)).await.unwrap();
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
    let (log, _) = pins(&config).unwrap();
    assert!(log.starts_with("broker.test/log+"), "{log}");
    // One of another length is no secret, and nothing is made over it.
    std::fs::remove_dir_all(root.path().join("data")).unwrap();
    std::fs::set_permissions(&kek, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&kek, [7; 31]).unwrap();
    assert!(matches!(init(&config, &time, &|_| None), Err(StartError::Secret(_))));
    assert_eq!(std::fs::read(&kek).unwrap(), vec![7; 31]);
}

#[tokio::test]
async fn half_a_directory_or_an_open_one_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
    let refused = async || start(config.clone(), outside(&time)).await.unwrap_err();
    assert!(matches!(refused().await, StartError::NotInitialised(_)));
    init(&config, &time, &|_| None).unwrap();
    let data = root.path().join("data");
    let format = std::fs::read(data.join("format")).unwrap();
    std::fs::remove_file(data.join("format")).unwrap();
    assert!(matches!(refused().await, StartError::NotInitialised(_)));
    std::fs::write(data.join("format"), b"anteroom-data-2\n").unwrap();
    assert!(matches!(refused().await, StartError::Format(_)));
    std::fs::write(data.join("format"), format).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(refused().await, StartError::Exposed(_)));
}

#[tokio::test]
async fn another_logs_key_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
    init(&config, &time, &|_| None).unwrap();
    let running = start(config.clone(), outside(&time)).await.unwrap();
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
    std::fs::write(root.path().join("data/log.key"), [1; 32]).unwrap();
    assert!(matches!(start(config.clone(), outside(&time)).await, Err(StartError::OtherLogKey { .. })));
    let wrong = fsck(&config, &|_| None).unwrap().unwrap_err();
    assert!(matches!(wrong, Wrong::Checkpoint { size: 1, .. }), "{wrong}");
}

#[tokio::test]
async fn one_flipped_bit_is_found_and_nothing_starts_on_it() {
    let root = tempfile::tempdir().unwrap();
    let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
    init(&config, &time, &|_| None).unwrap();
    let running = start(config.clone(), outside(&time)).await.unwrap();
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
    let segment = root.path().join("data/wal").join(format!("{:020}.seg", 0));
    let segment = std::fs::read_dir(root.path().join("data/wal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|kind| kind == "seg"))
        .unwrap_or(segment);
    let mut bytes = std::fs::read(&segment).unwrap();
    *bytes.get_mut(100).unwrap() ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    assert!(fsck(&config, &|_| None).unwrap().is_err());
    assert!(matches!(start(config.clone(), outside(&time)).await, Err(StartError::Recover(_))));
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "what is damaged is left as it was found");
}
