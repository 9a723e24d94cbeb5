//! What is counted. Each case prepares, does its work once so that what is made on first use is there, and does it again to be counted.

use std::{hint::black_box, sync::Arc};

use anteroom_broker::{
    book::{
        disk::{Disk, RealDisk},
        keyring::{Kek, Keyring},
        wal::{self, Config, RecoveredBatch, WalError},
    },
    journal::core::{Core, Sealed},
};
use anteroom_policy::{
    command::{Command, Now},
    content::{
        body::{BodyBounds, Channel, Route, Text, parse},
        scan::{
            Profile, Scanner, seeded,
            stream::{Release, StreamScanner},
        },
    },
    decide,
    judge::{judge, judge_uncached},
    record::{self, Place},
    state::State,
};
use anteroom_proto::{
    ledger::note::{KeyName, NoteSigner},
    rpc::Facts,
    time::At,
};
use bytes::Bytes;
use prost::Message as _;
use serde_json::json;

use crate::{
    decisions::{
        Fallible,
        world::{Call, START_MS, World},
        written::Writer,
    },
    sim::rng::Rng,
};

/// One thing that is counted.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What one of its units is.
    pub unit: &'static str,
    /// Units that it does.
    pub units: u64,
    /// Does it.
    pub run: fn() -> Fallible<()>,
}

/// All of them.
pub const CASES: [Case; 9] = [
    Case {
        name: "rules_cold",
        unit: "call with facts that nobody has asked about",
        units: CALLS as u64,
        run: rules_cold,
    },
    Case { name: "rules_warm", unit: "call with facts that an epoch remembers", units: CALLS as u64, run: rules_warm },
    Case { name: "decide", unit: "call, the decision alone", units: CALLS as u64, run: decide },
    Case {
        name: "append",
        unit: "batch of 16 calls: decided, encoded, signed, sealed, written",
        units: 1,
        run: append,
    },
    Case { name: "encode", unit: "record", units: CALLS as u64, run: encode },
    Case { name: "body", unit: "prompt of 1 KB", units: 1, run: body },
    Case { name: "scan_1k", unit: "prompt of 1 KB", units: 1, run: || scan(1 << 10) },
    Case { name: "scan_64k", unit: "prompt of 64 KB", units: 1, run: || scan(64 << 10) },
    Case { name: "scan_event", unit: "event of an answer", units: CALLS as u64, run: events },
];

/// Calls, or events, that a count is an average of.
const CALLS: usize = 64;
/// Calls in a batch.
const BATCH: usize = 16;
const ORIGIN: &str = "instructions.test/log";
const PROMPTS: &str = include_str!("../../../policy/testdata/content/prompts.txt");

/// What is counted is what this calls. Nothing may be inlined into or out of it, and its name is looked for by valgrind.
#[inline(never)]
fn counted_by_callgrind<R>(work: impl FnOnce() -> R) -> R {
    let done = work();
    black_box(done)
}

/// A core with parties and grants, and calls that are about to be decided.
struct Scene {
    world: World,
    core: Core,
    straight: State,
    entropy: Rng,
}

impl Scene {
    fn new(
        mut founded: impl FnMut(&anteroom_broker::journal::core::Batch, &mut Rng) -> Fallible<()>,
    ) -> Fallible<Self> {
        let mut entropy = Rng::new(7);
        let origin = KeyName::parse(ORIGIN)?;
        let signer = Arc::new(NoteSigner::from_seed(origin.clone(), &entropy.bytes()));
        let world = World::new(1, &signer.verifier().to_string(), ORIGIN)?;
        let mut core = Core::new(origin, signer);
        let mut straight = State::default();
        for command in world.founding() {
            let batch = core.propose(&[command], NOW_FOUNDED, &mut entropy)?;
            batch.records.iter().for_each(|sealed| straight.apply(&sealed.entered));
            founded(&batch, &mut entropy)?;
            core.committed();
        }
        Ok(Self { world, core, straight, entropy })
    }

    fn calls(&mut self, count: usize) -> Fallible<Vec<Call>> {
        (0..count).map(|_| self.world.call(NOW.at)).collect()
    }
}

const NOW_FOUNDED: Now = Now { at: At::clamped(START_MS), trusted: true };
const NOW: Now = Now { at: At::clamped(START_MS + 60_000), trusted: true };

/// The facts of calls with what they are judged by.
type Asked = Vec<(Arc<anteroom_policy::judge::Epoch>, Facts)>;

fn asked() -> Fallible<Asked> {
    let mut scene = Scene::new(|_, _| Ok(()))?;
    let mut asked = Vec::new();
    for call in scene.calls(CALLS)? {
        if let Command::Call(command) = &call.command {
            asked.push((call.epoch, Facts::decode(&*command.facts)?));
        }
    }
    Ok(asked)
}

fn rules_cold() -> Fallible<()> {
    let asked = asked()?;
    let all = || asked.iter().for_each(|(epoch, facts)| drop(black_box(judge_uncached(epoch, facts))));
    all();
    counted_by_callgrind(all);
    Ok(())
}

fn rules_warm() -> Fallible<()> {
    let asked = asked()?;
    let all = || asked.iter().for_each(|(epoch, facts)| drop(black_box(judge(epoch, facts))));
    all();
    counted_by_callgrind(all);
    Ok(())
}

fn decide() -> Fallible<()> {
    let mut scene = Scene::new(|_, _| Ok(()))?;
    let calls = scene.calls(CALLS)?;
    let all = || calls.iter().for_each(|call| drop(black_box(decide::decide(&scene.straight, &call.command, NOW))));
    all();
    counted_by_callgrind(all);
    Ok(())
}

fn append() -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let disk =
        |name: &str| -> Fallible<Arc<dyn Disk>> { Ok(Arc::new(RealDisk::open_or_create(&folder.path().join(name))?)) };
    let mut keyring = Keyring::open(disk("keys")?, Kek::from_bytes(&[7; 32])?)?;
    let nothing = |_: RecoveredBatch| -> Result<(), WalError> { Ok(()) };
    // What the kernel does is not counted, so that this disk costs nothing.
    let mut wal = wal::open(disk("wal")?, ORIGIN, Config::default(), &keyring, nothing)?.wal;
    let mut writer = Writer::default();
    let mut scene = Scene::new(|batch, entropy| {
        if batch.head.is_some() {
            let bytes = writer.batch(batch, &mut keyring, entropy)?;
            wal.append(&keyring, &bytes)?;
        }
        Ok(())
    })?;
    for count in [false, true] {
        let calls = scene.calls(BATCH)?;
        let commands: Vec<&Command> = calls.iter().map(|call| &call.command).collect();
        let Scene { core, entropy, .. } = &mut scene;
        let mut work = || -> Fallible<()> {
            let batch = core.propose(&commands, NOW, entropy)?;
            let bytes = writer.batch(&batch, &mut keyring, entropy)?;
            wal.append(&keyring, &bytes)?;
            core.committed();
            Ok(())
        };
        if count {
            counted_by_callgrind(work)?
        } else {
            work()?
        }
        while wal.maintain()? == wal::Upkeep::More {}
    }
    Ok(())
}

fn encode() -> Fallible<()> {
    let mut scene = Scene::new(|_, _| Ok(()))?;
    let mut records: Vec<Arc<Sealed>> = Vec::new();
    for call in scene.calls(CALLS)? {
        records.extend(scene.core.propose(&[&call.command], NOW, &mut scene.entropy)?.records);
        scene.core.committed();
    }
    let records = records.get(..CALLS).ok_or("a call recorded nothing")?;
    let all = || {
        records.iter().try_for_each(|sealed| {
            let entered = &sealed.entered;
            let place =
                Place { index: entered.index, at: NOW.at, scope: &sealed.scope, seq: entered.seq, prev: sealed.entry };
            record::encode(&place, &entered.event).map(|record| drop(black_box(record)))
        })
    };
    all()?;
    Ok(counted_by_callgrind(all)?)
}

fn body() -> Fallible<()> {
    let text = prose(900);
    let body =
        json!({"max_tokens": 300, "messages": [{"content": text, "role": "user"}], "model": "aurora", "stream": false});
    let body = body.to_string().into_bytes();
    let bounds = BodyBounds { bytes_max: 1 << 20 };
    let read = || parse(Route::Chat, black_box(&body), &bounds, &[]).map(|body| drop(black_box(body)));
    read()?;
    Ok(counted_by_callgrind(read)?)
}

fn scan(bytes: usize) -> Fallible<()> {
    let scanner = Scanner::new(&seeded::config(Profile::General))?;
    let text = prose(bytes);
    let texts = [Text { channel: Channel::Message, continues: false, text: text.into() }];
    let all = || drop(black_box(scanner.scan_prompt(black_box(&texts))));
    all();
    counted_by_callgrind(all);
    Ok(())
}

fn events() -> Fallible<()> {
    let scanner = Arc::new(Scanner::new(&seeded::config(Profile::General))?);
    let text = prose(CALLS * 12);
    let events: Vec<Bytes> = text
        .as_bytes()
        .chunks(12)
        .map(|piece| {
            let event = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": "m",
                "choices": [{"index": 0, "delta": {"content": String::from_utf8_lossy(piece)}, "finish_reason": null}]});
            Bytes::from(event.to_string())
        })
        .collect();
    let all = || {
        let mut stream = StreamScanner::new(Arc::clone(&scanner));
        events.iter().all(|event| matches!(black_box(stream.push(event.clone())), Release::Now(_)))
    };
    if !all() || !counted_by_callgrind(all) {
        return Err("an event of ordinary text is stopped".into());
    }
    Ok(())
}

/// So many bytes of ordinary prompts in ASCII.
fn prose(bytes: usize) -> String {
    PROMPTS.chars().filter(char::is_ascii).cycle().take(bytes).collect()
}
