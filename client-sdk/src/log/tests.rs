#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::sync::atomic::{AtomicU64, Ordering};

use anteroom_proto::ledger::{
    checkpoint::Checkpoint,
    logkeys::{KeySuccession, LogKeys},
    note::{KeyName, NoteSigner},
    tree::{Tree, leaf_hash},
};

use super::*;

fn signer() -> NoteSigner {
    NoteSigner::from_seed(KeyName::parse("log.example/one").unwrap(), &[1; 32])
}

fn trust() -> LogTrust {
    LogTrust::log_only(signer().verifier().clone()).unwrap()
}

/// A log whose size can be chosen; `salt` tells one history from another.
struct Log {
    tree: Tree,
    shown: AtomicU64,
    grows: u64,
}

impl Log {
    fn new(salt: &str, shown: u64) -> Self {
        let mut tree = Tree::new();
        for index in 0..100 {
            // Two logs share their first ten entries.
            let salt = if index < 10 { "" } else { salt };
            tree.push(leaf_hash(format!("{salt}{index}").as_bytes())).unwrap();
        }
        Self { tree, shown: AtomicU64::new(shown), grows: 0 }
    }

    fn note(&self, size: u64) -> String {
        let name = signer().verifier().name().clone();
        let checkpoint = Checkpoint::new(name, size, self.tree.root_at(size).unwrap()).unwrap();
        checkpoint.sign(&signer()).unwrap().encode()
    }

    fn at(&self, size: u64) -> VerifiedCheckpoint {
        trust().open(self.note(size).as_bytes()).unwrap()
    }
}

impl CheckpointSource for Log {
    async fn checkpoint(&self, seen_size: u64) -> Result<GetCheckpointReply, Error> {
        let size = self.shown.fetch_add(self.grows, Ordering::Relaxed);
        let proof = self.tree.consistency_proof(seen_size.min(size), size);
        let consistency = proof.unwrap_or_default().iter().map(|hash| hash.as_bytes().to_vec()).collect();
        Ok(GetCheckpointReply { checkpoint: self.note(size), consistency, log_keys: Vec::new() })
    }
}

#[tokio::test]
async fn checkpoints_of_one_log_are_accepted_in_any_order() {
    let log = Log::new("a", 60);
    let view = LogView::new(trust());
    let accepted = view.accept(&log, &[&log.at(40), &log.at(20)]).await;
    assert_eq!(accepted.unwrap(), Anchoring::Proven);
    assert_eq!(view.newest().size, 60);
    let older = view.accept(&log, &[&log.at(7)]).await;
    assert_eq!(older.unwrap(), Anchoring::Proven);
    assert_eq!(view.newest().size, 60);
}

#[tokio::test]
async fn a_second_history_is_found_and_not_forgotten() {
    for size in [11, 60, 80] {
        let (log, other) = (Log::new("a", 60), Log::new("b", 90));
        let view = LogView::new(trust());
        view.refresh(&log).await.unwrap();
        let forked = view.accept(&other, &[&other.at(size)]).await;
        assert_eq!(forked.unwrap_err().exit_code(), 7, "{size}");
        // Even what was fine before is no longer believed.
        assert!(view.accept(&log, &[&log.at(60)]).await.is_err());
    }
}

#[tokio::test]
async fn a_log_that_shrank_is_found() {
    let log = Log::new("a", 60);
    let view = LogView::new(trust());
    view.refresh(&log).await.unwrap();
    log.shown.store(50, Ordering::Relaxed);
    assert!(view.refresh(&log).await.is_err());
    assert_eq!(view.newest().size, 60);
}

#[tokio::test]
async fn a_log_that_grows_all_the_time_leaves_checkpoints_waiting_until_it_rests() {
    let mut log = Log::new("a", 50);
    log.grows = 1;
    let view = LogView::new(trust());
    let waiting = view.accept(&log, &[&log.at(45)]).await;
    assert_eq!(waiting.unwrap(), Anchoring::Waiting);
    log.grows = 0;
    let proven = view.accept(&log, &[&log.at(44)]).await;
    assert_eq!(proven.unwrap(), Anchoring::Proven);
    assert!(view.seen().waiting.is_empty());
}

/// A broker that is gone.
struct Gone;

impl CheckpointSource for Gone {
    async fn checkpoint(&self, _: u64) -> Result<GetCheckpointReply, Error> {
        Err(Error::Transport("gone".to_owned()))
    }
}

#[tokio::test]
async fn a_broker_that_went_away_leaves_checkpoints_waiting_and_their_forks_are_found_later() {
    let (log, other) = (Log::new("a", 60), Log::new("b", 60));
    let view = LogView::new(trust());
    view.refresh(&log).await.unwrap();
    for checkpoint in [log.at(45), other.at(50)] {
        assert_eq!(view.accept(&Gone, &[&checkpoint]).await.unwrap(), Anchoring::Waiting);
    }
    assert!(view.refresh(&Gone).await.is_err());
    let forked = view.accept(&log, &[&log.at(44)]).await;
    assert_eq!(forked.unwrap_err().exit_code(), 7);
}

#[tokio::test]
async fn the_newest_checkpoint_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint");
    let log = Log::new("a", 60);
    let view = LogView::open(trust(), &file).unwrap();
    view.refresh(&log).await.unwrap();
    let again = LogView::open(trust(), &file).unwrap();
    assert_eq!(again.newest(), view.newest());
    let other = Log::new("b", 90);
    assert!(again.refresh(&other).await.is_err());
}

/// A log whose key handed over to the one of this seed before its entry 50.
struct Handed {
    log: Log,
    next: NoteSigner,
    chain: LogKeys,
}

impl Handed {
    fn to(seed: u8) -> Self {
        let next = NoteSigner::from_seed(signer().verifier().name().clone(), &[seed; 32]);
        let chain = LogKeys::of(KeySuccession::sign(50, &signer(), &next).unwrap());
        Self { log: Log::new("a", 60), next, chain }
    }
}

impl CheckpointSource for Handed {
    async fn checkpoint(&self, seen_size: u64) -> Result<GetCheckpointReply, Error> {
        let reply = self.log.checkpoint(seen_size).await?;
        let text = Note::parse(reply.checkpoint.as_bytes()).unwrap().text().to_owned();
        let checkpoint = Note::sign(text, &self.next).unwrap().encode();
        Ok(GetCheckpointReply { checkpoint, log_keys: self.chain.notes().collect(), ..reply })
    }
}

#[tokio::test]
async fn the_logs_keys_are_followed_and_kept_and_a_fork_of_them_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint");
    let log = Handed::to(2);
    let view = LogView::open(trust(), &file).unwrap();
    let shown = log.checkpoint(0).await.unwrap().checkpoint;
    assert!(view.trust().open(shown.as_bytes()).is_err(), "nobody said yet that there is another key");
    view.follow_for(&log, &shown).await.unwrap();
    assert!(view.trust().open(shown.as_bytes()).is_ok());
    assert_eq!(view.refresh(&log).await.unwrap().size, 60);
    assert!(view.accept(&log, &[&log.log.at(40)]).await.is_ok(), "what the old key signed before");

    // Whoever comes next knows what this one was told, and nothing without it.
    assert!(LogView::open(trust(), &file).is_err());
    let next = trust();
    following::recall(folder.path(), &next).unwrap();
    let view = LogView::open(next, &file).unwrap();
    let forked = view.refresh(&Handed::to(3)).await.unwrap_err();
    assert_eq!(forked.exit_code(), 7, "{forked}");
    assert!(view.refresh(&log).await.is_err(), "a second history stays one");
}
