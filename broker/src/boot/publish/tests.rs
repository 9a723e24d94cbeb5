#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::{fs, path::PathBuf};

use anteroom_policy::{command::Command, event::ClockTrust};
use anteroom_proto::ledger::{checkpoint::Checkpoint, note::Note};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{
    Checked, Ended, MendError, Outside, Running, Wrong, adopt_lock, cut_tail, fsck, init as make, rebuild_index, start,
    witnessed,
};
use super::*;
use crate::{
    book::{tiles::CompareError, wal},
    clock::ScriptedTime,
    config::Settings,
};

const NOW: i64 = 1_790_000_000_000;

fn settings(root: &Path) -> Settings {
    let anywhere = Some(([127, 0, 0, 1], 0).into());
    Settings {
        data_dir: Some(root.join("data")),
        trust_domain: Some("broker.test".to_owned()),
        listen: anywhere,
        enrol_listen: anywhere,
        ops_listen: anywhere,
        publish_listen: anywhere,
        publish_every_ms: Some(10),
        snapshot_every: Some(0),
        wal_segment_bytes: Some(2 << 20),
        wal_reserve_bytes: Some(2 << 20),
        ..Settings::default()
    }
}

fn outside() -> Outside {
    Outside { time: Arc::new(ScriptedTime::new(NOW)), environment: Box::new(|_| None) }
}

/// A data directory that a broker has run on.
struct Site {
    root: tempfile::TempDir,
    config: Config,
}

impl Site {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = Config::check(settings(root.path())).unwrap();
        make(&config, &ScriptedTime::new(NOW), &|_| None).unwrap();
        let site = Self { root, config };
        site.run().await;
        site
    }

    async fn started(&self) -> Result<Running, StartError> {
        start(self.config.clone(), outside()).await
    }

    /// Starts and stops it; each time the log grows.
    async fn run(&self) {
        stopped(self.started().await.unwrap()).await;
    }

    async fn refused(&self) -> Unpublishable {
        let StartError::Published(refusal) = self.started().await.unwrap_err() else { unreachable!() };
        refusal
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("data").join(name)
    }

    fn segment(&self) -> PathBuf {
        let mut files = fs::read_dir(self.path("wal")).unwrap().map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|kind| kind == "seg")).unwrap()
    }

    fn checked(&self) -> Checked {
        fsck(&self.config, &|_| None).unwrap().unwrap()
    }

    fn wrong(&self) -> Wrong {
        fsck(&self.config, &|_| None).unwrap().unwrap_err()
    }

    fn published(&self) -> u64 {
        let note = Note::parse(&fs::read(self.path("published/checkpoint")).unwrap()).unwrap();
        Checkpoint::parse(note.text()).unwrap().size()
    }
}

async fn stopped(running: Running) {
    running.stop();
    assert_eq!(running.ended().await, Ended::Orderly { open_calls: 0 });
}

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn strangers_read_what_was_published_and_nothing_else() {
    let site = Site::new().await;
    assert_eq!(site.published(), 2, "the end of a broker publishes everything");
    let running = site.started().await.unwrap();
    let mut heads = running.published().subscribe();
    heads.wait_for(|head| head.as_ref().is_some_and(|head| head.size >= 3)).await.unwrap();
    let address = running.published_address().unwrap();
    let checkpoint = ask(address, "GET /checkpoint").await;
    assert!(checkpoint.starts_with("HTTP/1.1 200"), "{checkpoint}");
    assert!(
        checkpoint.contains("content-type: text/plain; charset=utf-8\r\ncache-control: no-cache\r\n"),
        "{checkpoint}"
    );
    assert!(checkpoint.contains("\r\n\r\nbroker.test/log\n3\n"), "{checkpoint}");
    let tile = ask(address, "GET /tile/entries/000.p/3").await;
    assert!(tile.contains("application/octet-stream") && tile.contains("immutable"), "{tile}");
    assert!(tile.contains("content-length: 150\r\n"), "{tile}");
    let head = ask(address, "HEAD /tile/0/000.p/3").await;
    assert!(head.contains("content-length: 96\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    for path in [
        "/",
        "/tile",
        "/tile/",
        "/tile/0/000",
        "/tile/0/000.p",
        "/tile/0/000.p/4",
        "/tile/0/../0/000.p/3",
        "/checkpoint/",
        "/../kek",
        "/%2e%2e/kek",
        "//checkpoint",
        "/tile/0/000.p/3/..",
        "/tile/00/000.p/3",
    ] {
        assert!(ask(address, &format!("GET {path}")).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    assert!(ask(address, "POST /checkpoint").await.starts_with("HTTP/1.1 405"));
    let metrics = ask(running.addresses().ops, "GET /metrics").await;
    for metric in
        ["anteroom_published_size 3\n", "anteroom_published_lag_records 0\n", "anteroom_published_age_seconds "]
    {
        assert!(metrics.contains(&format!("\n{metric}")), "{metric}: {metrics}");
    }
    stopped(running).await;
}

#[tokio::test]
async fn an_older_ledger_is_refused() {
    let site = Site::new().await;
    let old = fs::read(site.segment()).unwrap();
    site.run().await;
    fs::write(site.segment(), &old).unwrap();
    assert!(matches!(site.refused().await, Unpublishable::Rollback { locked: 3 }));
    assert_eq!(fs::read(site.segment()).unwrap(), old, "nothing was written");
}

#[tokio::test]
async fn another_history_is_refused() {
    let site = Site::new().await;
    let before = fs::read(site.segment()).unwrap();
    let lock = fs::read(site.path("lock/log.lock")).unwrap();
    let published = fs::read(site.path("published/checkpoint")).unwrap();
    site.run().await;
    let (longer, checkpoint) =
        (fs::read(site.path("lock/log.lock")).unwrap(), fs::read(site.path("published/checkpoint")).unwrap());
    // The same broker, from a copy of before: other random numbers, so other entries.
    fs::write(site.segment(), before).unwrap();
    fs::write(site.path("lock/log.lock"), lock).unwrap();
    fs::write(site.path("published/checkpoint"), published).unwrap();
    site.run().await;
    fs::write(site.path("lock/log.lock"), longer).unwrap();
    fs::write(site.path("published/checkpoint"), checkpoint).unwrap();
    assert!(matches!(site.refused().await, Unpublishable::Split { size: 3 }));
}

#[tokio::test]
async fn each_kind_of_lock_trouble_is_told_apart() {
    let site = Site::new().await;
    let lock = site.path("lock/log.lock");
    let old = fs::read(&lock).unwrap();
    site.run().await;
    let new = fs::read(&lock).unwrap();
    fs::remove_file(&lock).unwrap();
    assert!(matches!(site.refused().await, Unpublishable::LockMissing(_)));
    fs::write(&lock, b"3\n").unwrap();
    assert!(matches!(site.refused().await, Unpublishable::LockUnreadable { .. }));
    fs::write(&lock, &old).unwrap();
    assert!(matches!(site.refused().await, Unpublishable::LockBehind { published: 3, locked: 2 }));
    fs::write(&lock, &new).unwrap();
    fs::write(site.path("lock/log.lock.cut"), b"").unwrap();
    assert!(matches!(site.refused().await, Unpublishable::Cut));
    fs::remove_file(site.path("lock/log.lock.cut")).unwrap();
    let holder = Held::open(&site.path("lock")).unwrap();
    assert!(holder.lock().unwrap());
    assert!(matches!(site.refused().await, Unpublishable::LockHeld(_)));
    drop(holder);
    fs::rename(site.path("lock"), site.path("elsewhere")).unwrap();
    assert!(matches!(site.refused().await, Unpublishable::LockMissing(_)));
    fs::rename(site.path("elsewhere"), site.path("lock")).unwrap();
    site.run().await;
}

#[tokio::test]
async fn damage_in_what_was_published_is_refused_and_loss_is_made_good() {
    let site = Site::new().await;
    let checkpoint = site.path("published/checkpoint");
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, b"damaged").unwrap();
    assert!(matches!(site.refused().await, Unpublishable::Checkpoint(_)));
    fs::write(&checkpoint, &whole).unwrap();
    let tile = site.path("published/tile/0/000.p/2");
    let mut bytes = fs::read(&tile).unwrap();
    *bytes.get_mut(40).unwrap() ^= 1;
    fs::write(&tile, bytes).unwrap();
    assert!(matches!(site.refused().await, Unpublishable::Tiles(_)));
    fs::remove_dir_all(site.path("published")).unwrap();
    site.run().await;
    assert_eq!(site.published(), 3);
    for path in ["tile/0/000.p/2", "tile/0/000.p/3", "tile/entries/000.p/2"] {
        assert!(site.path("published").join(path).exists(), "{path}");
    }
}

#[tokio::test]
async fn a_byte_flipped_under_the_running_broker_ends_it_unpublished() {
    let mut site = Site::new().await;
    let slow = Settings { publish_every_ms: Some(60_000), ..settings(site.root.path()) };
    site.config = Config::check(slow).unwrap();
    let running = site.started().await.unwrap();
    let mut heads = running.published().subscribe();
    heads.wait_for(Option::is_some).await.unwrap();
    let journal = running.journal().clone();
    journal.clock().confirm(NOW).unwrap();
    let noted = Command::Clock { trust: ClockTrust::Trusted, source: "test".to_owned(), wall: NOW };
    let _ = journal.submit(noted).await.unwrap();
    let size = journal.newest().size;
    let mut reader = wal::Reader::new(Arc::new(RealDisk::open(&site.path("wal")).unwrap()), "broker.test/log");
    let at = reader.find(size - 1).unwrap().unwrap();
    let mut bytes = fs::read(site.segment()).unwrap();
    *bytes.get_mut(usize::try_from(at.offset).unwrap() + 100).unwrap() ^= 1;
    fs::write(site.segment(), bytes).unwrap();
    running.stop();
    let ended = running.ended().await;
    assert!(matches!(&ended, Ended::Fatal(why) if why.contains("cannot be read back")), "{ended:?}");
    assert!(site.published() < size);
}

#[tokio::test]
async fn damage_in_old_records_ends_a_broker_that_started_from_a_snapshot() {
    let mut site = Site::new().await;
    let snapshots = Settings { snapshot_every: Some(1_000), ..settings(site.root.path()) };
    site.config = Config::check(snapshots).unwrap();
    let running = site.started().await.unwrap();
    let journal = running.journal().clone();
    // More than a tile, so that a start reads nothing of what is damaged below.
    let caller = || anteroom_policy::event::CallerId {
        org: anteroom_proto::names::OrgId::parse("agency").unwrap(),
        role: "workload".into(),
        name: "w".into(),
    };
    let (first, last) = (anteroom_proto::time::At::clamped(1), anteroom_proto::time::At::clamped(2));
    for count in 1..=300 {
        let refused =
            Command::CountRefusals { caller: caller(), grant: None, code: "rate_limited", count, first, last };
        let _ = journal.submit(refused).await.unwrap();
    }
    drop(journal);
    stopped(running).await;
    let mut reader = wal::Reader::new(Arc::new(RealDisk::open(&site.path("wal")).unwrap()), "broker.test/log");
    let at = reader.find(20).unwrap().unwrap();
    let mut bytes = fs::read(site.segment()).unwrap();
    *bytes.get_mut(usize::try_from(at.offset).unwrap() + 100).unwrap() ^= 1;
    fs::write(site.segment(), bytes).unwrap();
    // It may be found before the first record of this start, or while the log is in use.
    if let Ok(running) = site.started().await {
        // A log that is never idle is stopped as well.
        let journal = running.journal().clone();
        let mut signed = 0_u32;
        let again =
            || Command::CountRefusals { caller: caller(), grant: None, code: "rate_limited", count: 1, first, last };
        while journal.submit(again()).await.is_ok() {
            signed += 1;
            assert!(signed < 20_000, "it goes on signing over a damaged past");
        }
        let ended = running.ended().await;
        assert!(matches!(&ended, Ended::Fatal(why) if why.contains("older records")), "{ended:?}");
    }
    assert!(matches!(site.wrong(), Wrong::Wal(_)));
}

/// A data directory as an earlier version left it.
async fn without_a_lock() -> Site {
    let site = Site::new().await;
    fs::remove_dir_all(site.path("lock")).unwrap();
    fs::remove_dir_all(site.path("published")).unwrap();
    site
}

#[tokio::test]
async fn a_lock_file_is_adopted_by_command_alone_and_once() {
    let site = without_a_lock().await;
    assert!(matches!(site.refused().await, Unpublishable::LockMissing(_)));
    assert!(matches!(site.wrong(), Wrong::Published(Unpublishable::LockMissing(_))));
    let adopted = adopt_lock(&site.config, &|_| None).unwrap().unwrap();
    assert_eq!((adopted.records, adopted.lock_size), (2, 2));
    let again = adopt_lock(&site.config, &|_| None).unwrap_err();
    assert!(matches!(again, StartError::Published(Unpublishable::LockPresent(_))), "{again}");
    site.run().await;
    assert_eq!(site.checked().lock_size, 3);
}

#[tokio::test]
async fn a_ledger_older_than_its_checkpoint_is_not_adopted() {
    let site = Site::new().await;
    let old = fs::read(site.segment()).unwrap();
    site.run().await;
    fs::write(site.segment(), old).unwrap();
    fs::remove_dir_all(site.path("lock")).unwrap();
    let refused = adopt_lock(&site.config, &|_| None).unwrap_err();
    assert!(matches!(refused, StartError::Published(Unpublishable::Rollback { locked: 3 })), "{refused}");
    assert!(!site.path("lock").exists());
}

#[tokio::test]
async fn fsck_names_the_file_and_the_first_wrong_byte() {
    let site = Site::new().await;
    let whole = site.checked();
    assert_eq!((whole.lock_size, whole.published_size), (2, Some(2)));
    assert!(whole.tiles >= 2, "{whole:?}");
    let file = site.path("published/tile/entries/000.p/2");
    let bytes = fs::read(&file).unwrap();
    let mut altered = bytes.clone();
    *altered.get_mut(77).unwrap() ^= 4;
    fs::write(&file, altered).unwrap();
    assert_eq!(site.wrong().place(), Some(("tile/entries/000.p/2".to_owned(), Some(77))));
    fs::write(&file, bytes).unwrap();
    fs::remove_file(site.path("published/tile/0/000.p/2")).unwrap();
    assert!(matches!(site.wrong(), Wrong::Tile(CompareError::Missing(file)) if file == "tile/0/000.p/2"));
    site.run().await;
    assert_eq!(site.checked().records, 3);
}

#[tokio::test]
async fn a_cut_needs_the_size_and_somebodys_word_and_never_takes_what_was_published() {
    let site = Site::new().await;
    let published: Vec<(PathBuf, Vec<u8>)> = ["lock/log.lock", "published/checkpoint"]
        .map(|name| (site.path(name), fs::read(site.path(name)).unwrap()))
        .into();
    site.run().await;
    site.run().await;
    let cut = |expected, witnessed| cut_tail(&site.config, &|_| None, expected, witnessed, 0);
    assert!(matches!(cut(4, Some(4)), Err(MendError::Whole)));
    // The last of the four records is damaged, with a whole batch's bytes behind the flaw.
    let mut reader = wal::Reader::new(Arc::new(RealDisk::open(&site.path("wal")).unwrap()), "broker.test/log");
    let at = reader.find(2).unwrap().unwrap();
    let mut bytes = fs::read(site.segment()).unwrap();
    *bytes.get_mut(usize::try_from(at.offset).unwrap() + 100).unwrap() ^= 1;
    fs::write(site.segment(), &bytes).unwrap();
    assert!(matches!(site.wrong(), Wrong::Wal(_)));
    assert!(matches!(cut(2, None), Err(MendError::Unwitnessed)));
    assert!(matches!(cut(3, Some(2)), Err(MendError::Size { left: 2, expected: 3 })));
    assert!(matches!(cut(2, Some(2)), Err(MendError::Published { published: 4, left: 2 })));
    // As if nothing after the second record had been published.
    for (path, bytes) in &published {
        fs::write(path, bytes).unwrap();
    }
    assert!(matches!(cut(2, Some(4)), Err(MendError::Witnessed { witnessed: 4, left: 2 })));
    assert_eq!(fs::read(site.segment()).unwrap(), bytes, "nothing was cut so far");
    // With witnesses to ask the word may come later.
    let report = cut_tail(&site.config, &|_| None, 2, None, 1).unwrap();
    assert_eq!(report.size, 2);
    assert!(matches!(site.refused().await, Unpublishable::Cut));
    assert!(matches!(site.wrong(), Wrong::Published(Unpublishable::Cut)));
    assert!(matches!(witnessed(&site.config, &|_| None, 3), Err(MendError::Witnessed { witnessed: 3, left: 2 })));
    assert_eq!(witnessed(&site.config, &|_| None, 2).unwrap(), 2);
    assert!(matches!(witnessed(&site.config, &|_| None, 2), Err(MendError::NoCut)));
    site.run().await;
    assert_eq!(site.checked().records, 3);
}

#[tokio::test]
async fn an_index_moved_aside_is_made_again() {
    let site = Site::new().await;
    fs::write(site.path("index/old"), b"").unwrap();
    let first = rebuild_index(&site.config).unwrap();
    assert!(first.join("old").exists() && !site.path("index/old").exists());
    let running = site.started().await.unwrap();
    assert!(matches!(rebuild_index(&site.config), Err(MendError::Start(StartError::InUse))));
    stopped(running).await;
    assert_ne!(rebuild_index(&site.config).unwrap(), first);
}

#[test]
fn each_refusal_has_its_section_in_the_runbook() {
    let runbook = include_str!("../../../../deploy/RUNBOOK.md");
    let io = || io::Error::from(io::ErrorKind::Other);
    for refusal in [
        Unpublishable::LockMissing(String::new()),
        Unpublishable::LockPresent(String::new()),
        Unpublishable::LockUnreadable { path: String::new(), error: LockError::Unreadable("") },
        Unpublishable::LockHeld(String::new()),
        Unpublishable::Rollback { locked: 1 },
        Unpublishable::Split { size: 1 },
        Unpublishable::LockBehind { published: 2, locked: 1 },
        Unpublishable::Checkpoint(String::new()),
        Unpublishable::Tiles(String::new()),
        Unpublishable::Cut,
        Unpublishable::Folder { path: String::new(), source: io() },
        Unpublishable::Thread(io()),
    ] {
        let heading = format!("\n## {}\n", refusal.section());
        assert!(runbook.contains(&heading), "{heading}");
    }
}
