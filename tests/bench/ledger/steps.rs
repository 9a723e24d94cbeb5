//! What is measured, each step in a process of its own, so that one's memory is not another's.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anteroom_broker::{
    entropy::SystemEntropy,
    index::Index,
    journal::{Batch, Core},
};
use anteroom_policy::{
    command::{Command as Asked, Now},
    record,
    replay::Replay,
};
use anteroom_proto::{
    ledger::{note::KeyName, record::Record},
    names::CallId,
    time::At,
};
use anteroom_sdk::{
    mirror::{
        Mirror,
        check::{Demands, verify},
    },
    verify::scope::TagKeys,
};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::{
    place::{Place, accepted, signer, trust},
    search::searched,
    world::{CALL_EVERY_MS, ORIGIN, START_MS, World},
};
use crate::bench::{Fallible, machine};

/// Commands decided at once.
const AT_ONCE: u64 = 256;

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Step {
    /// Fills the ledger and publishes it.
    Fill,
    /// Verifies what is published, as a stranger does.
    Verify,
    /// Decides again.
    Replay,
    /// Makes the index anew.
    Index,
    /// Mirrors one grant, makes rows of it and searches them.
    Search,
}

impl Step {
    const fn word(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Verify => "verify",
            Self::Replay => "replay",
            Self::Index => "index",
            Self::Search => "search",
        }
    }

    /// Runs this step in a process of its own and waits for what it says.
    pub fn apart(self, folder: &Path, records: u64) -> Fallible<Value> {
        let word = self.word();
        eprintln!("bench: {word}");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["ledger-step", word, "--records", &records.to_string(), "--folder"]).arg(folder);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("the step `{word}` failed").into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Runs this step here.
    pub async fn run(self, folder: &Path, records: u64) -> Fallible<Value> {
        let place = Place(folder.to_owned());
        match self {
            Self::Fill => place.fill(records).await,
            Self::Verify => verified(&place),
            Self::Replay => replayed(records),
            Self::Index => indexed(&place).await,
            Self::Search => searched(&place).await,
        }
    }
}

fn verified(place: &Place) -> Fallible<Value> {
    let mirror = Mirror::at(&place.join("published"));
    let demands =
        Demands { trust: trust()?, known: TagKeys::default(), seen: None, pins: std::collections::BTreeMap::new() };
    machine::forget_peak();
    let before = machine::resident_mb(std::process::id())?;
    let begun = Instant::now();
    let verified = verify(&mirror, &demands, Some(&[]), &mut |_| {}, |_| Ok(()))?;
    let seconds = begun.elapsed().as_secs_f64();
    let peak = machine::peak_mb()?;
    let tree = verified.tree();
    Ok(json!({
        "entries": tree.entries, "files": tree.files, "bytes": tree.bytes, "seconds": seconds,
        "resident_before_mb": before, "resident_peak_mb": peak,
    }))
}

async fn indexed(place: &Place) -> Fallible<Value> {
    let open = place.open()?;
    let size = open.journal.newest().size;
    let folder = place.join("index");
    machine::forget_peak();
    let before = machine::resident_mb(std::process::id())?;
    let begun = Instant::now();
    let index = Index::open(&folder, &open.journal);
    index.wait_for(size).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let peak = machine::peak_mb()?;
    tokio::task::spawn_blocking(move || index.close()).await?;
    open.close().await?;
    Ok(json!({
        "records": size, "seconds": seconds, "resident_before_mb": before, "resident_peak_mb": peak,
    }))
}

/// Decides calls under one grant, and decides each once more from the bytes of its record alone.
fn replayed(decisions: u64) -> Fallible<Value> {
    let signer = signer()?;
    let world = World::new(&signer.verifier().to_string())?;
    let mut core = Core::new(KeyName::parse(ORIGIN)?, signer);
    let mut reader = Reader::default();
    for command in world.founding() {
        reader.read(&decide(&mut core, std::slice::from_ref(command), At::clamped(START_MS))?)?;
    }
    let mut ms = START_MS;
    let mut left = decisions;
    while left > 0 {
        let now = left.min(AT_ONCE);
        left -= now;
        ms += CALL_EVERY_MS * i64::try_from(now)?;
        let (at, seen) = (At::clamped(ms), core.size());
        let calls: Vec<(CallId, Asked)> = (0..now).map(|_| world.call(at, seen)).collect::<Fallible<_>>()?;
        let ends: Vec<Asked> = calls.iter().map(|(call, _)| world.finish(*call, at, seen)).collect::<Fallible<_>>()?;
        let calls: Vec<Asked> = calls.into_iter().map(|(_, command)| command).collect();
        for commands in [calls, ends] {
            reader.read(&decide(&mut core, &commands, at)?)?;
        }
    }
    let report = reader.replay.finish();
    if report.decisions != decisions || report.different > 0 {
        return Err(format!("replay decided otherwise: {report:?}").into());
    }
    let (decoded, replayed) = (reader.decoded.as_secs_f64(), reader.replayed.as_secs_f64());
    Ok(json!({
        "decisions": report.decisions, "records": report.records, "decode_seconds": decoded,
        "decide_seconds": replayed, "seconds": decoded + replayed,
    }))
}

fn decide(core: &mut Core, commands: &[Asked], at: At) -> Fallible<Batch> {
    let commands: Vec<&Asked> = commands.iter().collect();
    let batch = core.propose(&commands, Now { at, trusted: true }, &mut SystemEntropy::new())?;
    core.committed();
    for answer in &batch.answers {
        accepted(&answer.reply)?;
    }
    Ok(batch)
}

/// Reads records from their bytes and decides again, on the clock; nothing else is.
#[derive(Default)]
struct Reader {
    replay: Replay,
    decoded: Duration,
    replayed: Duration,
}

impl Reader {
    fn read(&mut self, batch: &Batch) -> Fallible<()> {
        let recorded: Vec<_> =
            batch.records.iter().map(|sealed| (sealed.record.bytes().to_vec(), sealed.entry)).collect();
        let begun = Instant::now();
        let mut entered = Vec::with_capacity(recorded.len());
        for (bytes, entry) in recorded {
            entered.push(record::decode(&Record::parse(bytes)?, entry)?);
        }
        self.decoded += begun.elapsed();
        let begun = Instant::now();
        for entered in &entered {
            self.replay.feed(entered);
        }
        self.replayed += begun.elapsed();
        Ok(())
    }
}
