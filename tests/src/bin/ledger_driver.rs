//! Writes a ledger and reads it back, without network and with everything it draws fixed by a number: what the fault campaign
//! puts under strace.
//!
//! `ledger_driver DIR init` makes the folders and the lock file of an empty log. `ledger_driver DIR write` opens the ledger, appends and
//! publishes; each acknowledged record is printed as `ack INDEX ENTRY` the moment the journal answers, each published head as
//! `published SIZE`. A ledger that stops prints `stopped WHY` and exits with 3, one that cannot be opened prints `refused WHY` and
//! exits with 4. `ledger_driver DIR verify` folds the whole ledger, publishes what is due, compares every published file with it, and
//! prints `locked SIZE` as found, `record INDEX ENTRY` for each, and `whole SIZE ROOT`.

use std::{
    io::Write as _,
    path::Path,
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use anteroom_broker::{
    book::{
        disk::RealDisk,
        keyring::{Kek, Keyring},
        lock::{LockFile, Locked},
        publisher::{PublishError, Publisher},
        store::Segments,
        tiles::Compare,
        wal::{self, Config},
    },
    clock::{SystemTime, Timekeeper},
    entropy::Entropy as _,
    journal::{
        Journal, Snapshots, Tiles,
        writer::{self, WriterConfig},
    },
};
use anteroom_policy::command::{Act, Command, Reply};
use anteroom_proto::{
    ledger::{
        checkpoint::LogTrust,
        note::{KeyName, NoteSigner},
    },
    names::{Digest, ModelLine},
    statement::{key_set::OrgKind, model::Registration},
    time::At,
};
use anteroom_tests::sim::{cast::Org, rng::Rng};

const LINE: &str = "m1";
const ORIGIN: &str = "faults.test/log";
/// Small appends besides the enrolments.
const SMALL: u64 = 16;
/// Large ones, enough together for a change of segments at the sizes below.
const LARGE: u64 = 46;
/// Bytes of a large one.
const LARGE_BYTES: usize = 48_000;
/// A publication after so many large appends.
const PUBLISH_EVERY: u64 = 12;
/// A snapshot after so many records.
const SNAPSHOT_EVERY: u64 = 30;
const SIZES: Config = Config { segment_bytes: 2 * 1024 * 1024, reserve_bytes: 2 * 1024 * 1024 };

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, verb] = words.as_slice() else {
        eprintln!("ledger_driver DIR init|write|write-alone|verify");
        return ExitCode::from(2);
    };
    // One thread beside the journal's own, so that the order of system calls is the ledger's.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(run(Path::new(folder), verb))
}

async fn run(folder: &Path, verb: &str) -> ExitCode {
    static STOPPED: OnceLock<String> = OnceLock::new();
    if verb == "init" {
        let made = init(folder);
        return made.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let (journal, thread, mut publisher) = match open(folder, verb != "write-alone", &STOPPED) {
        Ok(opened) => opened,
        Err(why) => {
            say(&format!("refused {why}"));
            return ExitCode::from(4);
        }
    };
    let done = match verb {
        "write" | "write-alone" => write(&journal, &mut publisher).await,
        _ => verify(&journal, &mut publisher, folder),
    };
    journal.close();
    let joined = thread.join();
    if let Some(why) = STOPPED.get() {
        say(&format!("stopped {why}"));
        return ExitCode::from(3);
    }
    match (done, joined) {
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
        (Err(why), _) => {
            say(&format!("failed {why}"));
            ExitCode::from(5)
        }
        (Ok(()), Err(_)) => ExitCode::from(6),
    }
}

fn say(line: &str) {
    // One write for each line, so that the trace shows when it was said.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

fn init(folder: &Path) -> Fallible<()> {
    for name in ["wal", "keys", "snapshots", "published", "lock"] {
        let _ = RealDisk::open_or_create(&folder.join(name))?;
    }
    Ok(lock(folder)?.create(&Locked::EMPTY)?)
}

fn lock(folder: &Path) -> Fallible<LockFile> {
    Ok(LockFile::new(Arc::new(RealDisk::open(&folder.join("lock"))?), "log.lock", KeyName::parse(ORIGIN)?))
}

fn signer() -> Fallible<NoteSigner> {
    let mut seed = [0; 32];
    Rng::new(1).fill(&mut seed);
    Ok(NoteSigner::from_seed(KeyName::parse(ORIGIN)?, &seed))
}

type Opened = (Journal, std::thread::JoinHandle<()>, Publisher);

/// Without snapshots, which are noted while others are answered, each answer is of the newest batch.
fn open(folder: &Path, snapshots: bool, stopped: &'static OnceLock<String>) -> Fallible<Opened> {
    let origin = KeyName::parse(ORIGIN)?;
    let reader = wal::Reader::new(Arc::new(RealDisk::open(&folder.join("wal"))?), ORIGIN);
    let published = Arc::new(RealDisk::open(&folder.join("published"))?);
    let trust = LogTrust::log_only(signer()?.verifier().clone())?;
    let publisher = Publisher::open(reader, Arc::<RealDisk>::clone(&published), lock(folder)?, trust)?;
    let keys = Keyring::open(Arc::new(RealDisk::open_or_create(&folder.join("keys"))?), Kek::from_bytes(&[7; 32])?)?;
    // What is drawn depends on what is there, so that a second run draws other nonces.
    let drawn = std::fs::read_dir(folder.join("keys"))?.count() as u64;
    let (journal, thread) = writer::start(WriterConfig {
        store: Arc::new(Segments {
            disk: Arc::new(RealDisk::open_or_create(&folder.join("wal"))?),
            origin: ORIGIN.to_owned(),
            sizes: SIZES,
        }),
        broker: None,
        keyring: keys,
        tiles: Some(Tiles { disk: published, size: publisher.size() }),
        snapshots: snapshots.then_some(Snapshots::new(Arc::new(RealDisk::open(&folder.join("snapshots"))?))),
        snapshot_every: SNAPSHOT_EVERY,
        origin: origin.clone(),
        signer: Arc::new(signer()?),
        clock: Arc::new(Timekeeper::start(Arc::new(SystemTime::new()?), None)?),
        entropy: Box::new(Rng::new(1000 + drawn)),
        fatal: Box::new(move |why| {
            let _ = stopped.set(why.to_owned());
        }),
    })?;
    Ok((journal, thread, publisher))
}

/// Publishes what is acknowledged. A full disk puts that off.
fn publish(journal: &Journal, publisher: &mut Publisher) -> Fallible<()> {
    loop {
        match publisher.publish(journal.newest().size) {
            Ok(step) => {
                if let Some(head) = step.head {
                    journal.settle(head.size);
                    say(&format!("published {}", head.size));
                }
                if !step.more {
                    return Ok(());
                }
            }
            Err(PublishError::Full) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn write(journal: &Journal, publisher: &mut Publisher) -> Fallible<()> {
    let mut rng = Rng::new(2);
    let log_key = signer()?.verifier().to_string();
    let open = Command::Open { origin: ORIGIN.to_owned(), log_key, nonce: Digest::from_bytes([9; 32]) };
    submit(journal, open).await?;
    submit(journal, Command::Start { version: "faults".to_owned(), alive: None }).await?;
    let parties =
        [("lab", OrgKind::Lab), ("agency", OrgKind::Agency)].map(|(name, kind)| Org::new(name, kind, &mut rng));
    for org in &parties {
        let act = Act {
            caller: org.caller(),
            statement: org.enrolment.clone(),
            attachment: Arc::from([]),
            key_set: Some(org.key_set.clone()),
            cut: None,
        };
        submit(journal, Command::Act(Box::new(act))).await?;
    }
    for number in 0..SMALL {
        let caller = parties[usize::from(number % 2 == 1)].caller();
        let (first, last) = (At::clamped(1), At::clamped(2));
        let counted =
            Command::CountRefusals { caller, grant: None, code: "rate_limited", count: number + 1, first, last };
        submit(journal, counted).await?;
    }
    publish(journal, publisher)?;
    let [lab, _] = &parties;
    let mut before = None;
    for number in 0..LARGE {
        let manifest = manifest(number);
        let registration = Registration {
            lab: lab.name.clone(),
            line: ModelLine::parse(LINE)?,
            manifest: Digest::of(&manifest),
            supersedes: before,
        };
        before = Some(registration.manifest);
        let statement = lab.signed(&registration);
        let act = Act { caller: lab.caller(), statement, attachment: manifest.into(), key_set: None, cut: None };
        submit(journal, Command::Act(Box::new(act))).await?;
        if number % PUBLISH_EVERY == 0 {
            publish(journal, publisher)?;
        }
    }
    publish(journal, publisher)
}

/// A build's manifest, made large by the blanks that JSON lets stand.
fn manifest(number: u64) -> Vec<u8> {
    let digest = Digest::of(&number.to_be_bytes());
    let mut text = serde_json::json!({
        "lab": "lab", "line": LINE, "build": format!("build-{number}"), "digests": [{"name": "weights", "sha256": digest}],
        "variants": ["full"],
        "features": {"chat": true, "completions": true, "embeddings": true, "streaming": true},
    })
    .to_string();
    text.push_str(&" ".repeat(LARGE_BYTES - text.len()));
    text.into_bytes()
}

async fn submit(journal: &Journal, command: Command) -> Fallible<()> {
    let committed = journal.submit(command).await?;
    if let Reply::Refused { refusal, detail } = &committed.reply {
        return Err(format!("refused as `{}`: {detail}", refusal.code()).into());
    }
    for recorded in &committed.records {
        let sealed = recorded.sealed();
        say(&format!("ack {} {}", sealed.entered.index, data_encoding::HEXLOWER.encode(sealed.entry.as_bytes())));
    }
    Ok(())
}

fn verify(journal: &Journal, publisher: &mut Publisher, folder: &Path) -> Fallible<()> {
    let newest = journal.newest();
    say(&format!("locked {}", lock(folder)?.read()?.size));
    publish(journal, publisher)?;
    let mut compare = Compare::new(Arc::new(RealDisk::open(&folder.join("published"))?), newest.size);
    for entry in journal.entries(0, newest.size)? {
        compare.push(&entry)?;
    }
    let _ = compare.finish()?;
    for (index, sealed) in (0..).zip(journal.read(0, newest.size)?) {
        if sealed.entered.index != index {
            return Err(format!("record {index} is not there").into());
        }
        say(&format!("record {index} {}", data_encoding::HEXLOWER.encode(sealed.entry.as_bytes())));
    }
    let root = journal.root_at(newest.size).ok_or("no root")?;
    say(&format!("whole {} {root}", newest.size));
    Ok(())
}
