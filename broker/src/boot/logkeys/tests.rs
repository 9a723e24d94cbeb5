#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::{fs, path::PathBuf};

use anteroom_proto::ledger::{checkpoint::CheckpointError, note::Note};
use tempfile::TempDir;

use super::{
    super::{
        Ended, Restoring, Unpublishable, Wrong, backup, fsck, init, pins,
        running::Running,
        start,
        tests::{NOW, config, outside},
    },
    *,
};
use crate::{clock::ScriptedTime, config::Secret};

/// A directory whose log has begun.
struct Site {
    root: TempDir,
    time: ScriptedTime,
    config: Config,
}

fn none(_: &str) -> Option<String> {
    None
}

impl Site {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
        init(&config, &time, &none).unwrap();
        let site = Self { root, time, config };
        site.runs(&site.config).await;
        site
    }

    async fn start(&self, config: &Config) -> Result<Running, StartError> {
        start(config.clone(), outside(&self.time)).await
    }

    /// Starts and stops; what the log's newest checkpoint was in between.
    async fn runs(&self, config: &Config) -> Note {
        let running = self.start(config).await.unwrap();
        let note = Note::parse(running.journal().newest().note.as_bytes()).unwrap();
        running.stop();
        assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
        note
    }

    async fn refused(&self, config: &Config) -> StartError {
        self.start(config).await.unwrap_err()
    }

    fn secret(&self, name: &str) -> Secret {
        Secret::File(self.data(name))
    }

    fn rotate(&self, config: &Config, to: &str) -> Result<Rotated, LogKeyError> {
        rotate_log_key(config, &none, &self.secret(to))
    }

    fn hands_over(&self, config: &Config, to: &str) -> KeySuccession {
        let rotated = self.rotate(config, to).unwrap();
        assert!(matches!(rotated, Rotated::Now(_)));
        let (Rotated::Now(link) | Rotated::Before(link)) = rotated;
        link
    }

    /// The configuration after the rotation to this key, with the key before it or without.
    fn after(&self, to: &str, before: Option<&Secret>) -> Config {
        Config { log_key: self.secret(to), log_key_before: before.cloned(), ..self.config.clone() }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.path().join("data").join(name)
    }

    /// Where a rotation writes, in its order.
    fn written(&self) -> [PathBuf; 3] {
        ["log.keys", "published/log.keys", "operator/log.vkey"].map(|name| self.data(name))
    }

    fn key(&self, config: &Config) -> VerifierKey {
        folder::signer(config, &none).unwrap().verifier().clone()
    }
}

fn only(key: &VerifierKey) -> LogTrust {
    LogTrust::log_only(key.clone()).unwrap()
}

#[tokio::test]
async fn the_key_hands_over_and_both_sign_until_the_old_one_is_taken_out() {
    let site = Site::new().await;
    let old = site.key(&site.config);
    let running = site.start(&site.config).await.unwrap();
    assert!(matches!(site.rotate(&site.config, "next"), Err(LogKeyError::Start(StartError::InUse))));
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });

    let records = fsck(&site.config, &none).unwrap().unwrap().records;
    let link = site.hands_over(&site.config, "next");
    assert_eq!((link.from(), link.old()), (records + 1, &old));
    let new = link.next().clone();
    assert_eq!(pins(&site.config).unwrap().0, new.to_string());
    let refused = site.refused(&site.config).await;
    assert!(matches!(refused, StartError::LogKeySucceeded { .. }), "{refused}");

    let both = site.after("next", Some(&site.config.log_key));
    let running = site.start(&both).await.unwrap();
    let standing = running.journal().standing();
    assert_eq!((running.log_key(), standing.log_key.clone()), (new.to_string().as_str(), new.to_string()));
    assert_eq!(standing.log_keys.iter().cloned().collect::<Vec<_>>(), [link.note().encode()]);
    let note = Note::parse(running.journal().newest().note.as_bytes()).unwrap();
    for known in [only(&old), only(&new), only(&old).following(LogKeys::of(link.clone())).unwrap()] {
        assert!(known.verify(note.clone()).is_ok(), "while both sign, whoever knows one of them verifies");
    }
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });

    let alone = site.after("next", None);
    let note = site.runs(&alone).await;
    assert!(only(&old).verify(note.clone()).is_err() && only(&new).verify(note.clone()).is_ok());
    assert!(only(&old).following(LogKeys::of(link)).unwrap().verify(note).is_ok());
    assert!(fsck(&alone, &none).unwrap().is_ok(), "the whole ledger, across the rotation");
    assert!(matches!(site.refused(&site.config).await, StartError::LogKeySucceeded { .. }));
}

#[tokio::test]
async fn a_rotation_interrupted_at_each_step_is_gone_on_with_by_a_start_or_another_run() {
    for steps in 0..4 {
        for again in [true, false] {
            let site = Site::new().await;
            let vkey = fs::read(site.data("operator/log.vkey")).unwrap();
            let link = site.hands_over(&site.config, "next");
            let whole = site.written().map(|path| fs::read(path).unwrap());
            // What an interruption leaves: nothing beyond this step, and half a file under another name.
            for path in site.written().iter().skip(steps) {
                fs::remove_file(path).unwrap();
                fs::write(format!("{}.tmp", path.display()), b"half").unwrap();
            }
            if steps < 3 {
                fs::write(site.data("operator/log.vkey"), &vkey).unwrap();
            }
            let both = site.after("next", Some(&site.config.log_key));
            if steps == 0 {
                // Only the new key was made: nothing has handed over yet.
                let _ = site.runs(&site.config).await;
                assert!(matches!(site.refused(&site.after("next", None)).await, StartError::OtherLogKey { .. }));
                assert!(matches!(site.rotate(&site.config, "next"), Ok(Rotated::Now(_))));
            } else if again {
                assert_eq!(site.rotate(&site.config, "next").unwrap(), Rotated::Before(link));
                assert_eq!(site.written().map(|path| fs::read(path).unwrap()), whole, "after {steps} steps");
            }
            let _ = site.runs(&both).await;
            if steps > 0 {
                assert_eq!(site.written().map(|path| fs::read(path).unwrap()), whole, "after {steps} steps");
            }
            assert_eq!(
                site.rotate(&both, "next").unwrap_err().to_string(),
                LogKeyError::Same(site.secret("next")).to_string()
            );
        }
    }
}

#[tokio::test]
async fn another_key_does_not_start_without_the_chain_and_a_lost_chain_comes_back_from_the_ledger() {
    let site = Site::new().await;
    let refused = site.refused(&site.after("nowhere", None)).await;
    assert!(matches!(refused, StartError::Secret(_)), "{refused}");
    let next = site.after("next", None);
    crate::boot::folder::make_secret(&next.log_key).unwrap();
    assert!(matches!(site.refused(&next).await, StartError::OtherLogKey { .. }));
    site.rotate(&site.config, "next").unwrap();
    let whole = site.written().map(|path| fs::read(path).unwrap());
    let _ = site.runs(&next).await;
    for path in site.written().iter().take(2) {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(site.refused(&site.config).await, StartError::OtherLogKey { .. }));
    let _ = site.runs(&next).await;
    assert_eq!(site.written().map(|path| fs::read(path).unwrap()), whole);
    // One that says something else is nobody's to choose from.
    let mut bytes = whole[0].clone();
    bytes.reverse();
    fs::write(site.data("log.keys"), bytes).unwrap();
    assert!(matches!(site.refused(&next).await, StartError::LogKeys { .. }));
}

#[tokio::test]
async fn what_the_old_key_signed_alone_beyond_the_rotation_is_refused() {
    let site = Site::new().await;
    site.rotate(&site.config, "next").unwrap();
    let aside = site.written().map(|path| (fs::read(&path).unwrap(), path));
    for (_, path) in aside.iter().take(2) {
        fs::remove_file(path).unwrap();
    }
    // Whoever holds the old key, and nothing that says that it has handed over, goes on with it.
    let _ = site.runs(&site.config).await;
    for (bytes, path) in &aside {
        fs::write(path, bytes).unwrap();
    }
    let refused = site.refused(&site.after("next", None)).await;
    let old = site.key(&site.config);
    let of_old = |error: &StartError| {
        let StartError::Published(Unpublishable::OldKey(CheckpointError::Succeeded { key, .. })) = error else {
            return false;
        };
        **key == old
    };
    assert!(of_old(&refused), "{refused}");
    let wrong = fsck(&site.after("next", None), &none).unwrap().unwrap_err();
    assert!(matches!(wrong, Wrong::Checkpoint { .. } | Wrong::Published(_)), "{wrong}");
}

#[tokio::test]
async fn keys_follow_one_another_each_only_once_it_has_signed() {
    let site = Site::new().await;
    let first = site.hands_over(&site.config, "second");
    let second = site.after("second", Some(&site.config.log_key));
    assert!(matches!(site.rotate(&second, "third"), Err(LogKeyError::Pending)));
    assert!(matches!(site.rotate(&site.config, "third"), Err(LogKeyError::Start(StartError::LogKeySucceeded { .. }))));
    let _ = site.runs(&second).await;
    let next = site.hands_over(&second, "third");
    assert!(next.from() > first.from());
    // The key before is the one before, and no other.
    let wrong = site.after("third", Some(&site.config.log_key));
    assert!(matches!(site.refused(&wrong).await, StartError::LogKeyBefore { .. }));
    let third = site.after("third", Some(&second.log_key));
    let note = site.runs(&third).await;
    let chain = LogKeys::of(first).then(next).unwrap();
    assert_eq!(fs::read(site.data("log.keys")).unwrap(), chain.encode().as_bytes());
    for pinned in [&site.config, &second, &third] {
        let trust = only(&site.key(pinned)).following(chain.clone()).unwrap();
        assert!(trust.verify(note.clone()).is_ok());
    }
    assert!(fsck(&third, &none).unwrap().is_ok());
    // A key that was succeeded does not come back.
    let back = rotate_log_key(&third, &none, &site.config.log_key);
    assert!(matches!(back, Err(LogKeyError::Keys(LogKeysError::Again(_)))), "{back:?}");
}

#[tokio::test]
async fn an_empty_log_has_no_key_to_hand_over() {
    let root = tempfile::tempdir().unwrap();
    let (config, time) = (config(root.path()), ScriptedTime::new(NOW));
    init(&config, &time, &none).unwrap();
    let to = Secret::File(root.path().join("next"));
    assert!(matches!(rotate_log_key(&config, &none, &to), Err(LogKeyError::Empty)));
}

#[tokio::test]
async fn a_backup_goes_on_across_a_rotation_and_is_restored_under_the_new_key() {
    let site = Site::new().await;
    let copy = site.root.path().join("backup");
    backup(&site.config, &copy, None).unwrap();
    site.rotate(&site.config, "next").unwrap();
    let next = site.after("next", None);
    let _ = site.runs(&next).await;
    let made = backup(&next, &copy, None).unwrap();
    assert!(made.records > made.before);
    assert_eq!(fs::read(copy.join("log.keys")).unwrap(), fs::read(site.data("log.keys")).unwrap());

    let secrets = site.root.path().join("secrets");
    backup(&next, &copy, Some(&secrets)).unwrap();
    fs::rename(site.data(""), site.root.path().join("lost")).unwrap();
    let restoring = Restoring::begin(&next, &none, &copy, Some(&secrets)).unwrap();
    let size = restoring.records();
    assert!(restoring.lock().unwrap().is_none());
    let restored = restoring.finish(Vec::new(), &[], Some(size), None).unwrap();
    assert_eq!((restored.checked.records, restored.lost), (size, None));
    let _ = site.runs(&next).await;
    assert!(fsck(&next, &none).unwrap().is_ok());
}
