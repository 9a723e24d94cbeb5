//! Where the bytes of a call go: inside its records, around them, around a batch, and beside the log.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use anteroom_broker::{
    book::{
        disk::{Disk, RealDisk},
        keyring::Keyring,
        wal::{self, Config, Position, RecoveredBatch, SECTOR_BYTES, Wal, WalError},
    },
    entropy::SystemEntropy,
    journal::Core,
};
use anteroom_policy::command::{Command, Now};
use anteroom_proto::{
    ledger::{
        note::KeyName,
        record::{Audience, Record, Seed},
    },
    names::CallId,
    time::At,
};
use anteroom_tests::decisions::written;

use super::{
    place::{accepted, keyring, signer},
    world::{ORIGIN, START_MS, World},
};
use crate::bench::Fallible;

/// What stands around a record's bytes in the log, as `broker/src/book/wal/frame.rs` defines it.
pub const AROUND: [(&str, u64); 5] = [
    ("entry of the tree, in the clear", 48),
    ("seed of the commitments", 32),
    ("nonce and tag of the seal", 12 + 16),
    ("name of the scope's key", 16),
    ("length, checksum, type, index", 4 + 4 + 1 + 8),
];
/// A batch's head, and its footer without note and padding.
const HEAD_AND_FOOTER: u64 = (9 + 1 + 16 + 8 + 4 + 4) + (9 + 8 + 32 + 4 + 8);
/// Batches of each size that are measured, of admissions and of ends each.
const BATCHES: usize = 32;
/// Number and kinds in the registry of records.
const HEADER_FIELDS: std::ops::Range<u32> = 1..16;
const ADMITTED: u32 = 40;
const FINISHED: u32 = 43;

/// Bytes by what they are for, in an admission and in an end.
#[derive(Debug, Default)]
pub struct Parts {
    sums: BTreeMap<&'static str, [u64; 2]>,
    counts: [u64; 2],
}

impl Parts {
    /// Adds a record, if it is one of a call.
    pub fn add(&mut self, record: &Record, seed: &Seed) -> Fallible<()> {
        let side = match record.spec().kind {
            ADMITTED => 0,
            FINISHED => 1,
            _ => return Ok(()),
        };
        self.counts[side] += 1;
        let mut total = 0;
        for field in record.open(seed, Audience::ALL).open {
            let bytes = field.wire.len() as u64;
            total += bytes;
            self.sums.entry(part(record.spec().kind, field.number)).or_default()[side] += bytes;
        }
        if total == record.bytes().len() as u64 { Ok(()) } else { Err("a record has bytes outside its fields".into()) }
    }

    /// Each part's average in an admission and in an end, with what the log puts around a record; then the sum.
    pub fn rows(&self) -> Vec<(&'static str, [f64; 2])> {
        let mut rows: Vec<(&'static str, [f64; 2])> = Vec::new();
        for (name, sums) in &self.sums {
            rows.push((name, [0, 1].map(|side| sums[side] as f64 / self.counts[side].max(1) as f64)));
        }
        rows.extend(AROUND.map(|(name, bytes)| (name, [bytes as f64; 2])));
        let sum = [0, 1].map(|side| rows.iter().map(|(_, bytes)| bytes[side]).sum());
        rows.push(("**record in its frame**", sum));
        rows
    }
}

fn part(kind: u32, number: u32) -> &'static str {
    match (kind, number) {
        (_, number) if HEADER_FIELDS.contains(&number) => "header: kind, index, time, scope, entry before",
        (ADMITTED, 19) => "caller's claim and signature",
        (FINISHED, 19) => "connector's outcome and signature",
        (ADMITTED, 23 | 24) => "facts and the rules' reasons",
        (ADMITTED, 27..=30) => "dependencies on four other scopes",
        _ => "call, names, digests, chain, tokens",
    }
}

/// What batches of one size cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batched {
    /// Records a batch.
    pub records: usize,
    /// Records of a call in their frames, both together, in bytes.
    pub framed: f64,
    /// Head and footer, for a call.
    pub ends: f64,
    /// Signed checkpoint, for a call.
    pub note: f64,
    /// Filling up to whole sectors, for a call.
    pub padding: f64,
}

impl Batched {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.framed + self.ends + self.note + self.padding
    }
}

/// Writes batches of `size` admissions and of `size` ends through the log itself, and measures them where they lie.
pub fn batched(folder: &Path, size: usize) -> Fallible<Batched> {
    fs::create_dir_all(folder)?;
    let signer = signer()?;
    let world = World::new(&signer.verifier().to_string())?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_or_create(&folder.join("wal"))?);
    let mut keys = keyring(Arc::new(RealDisk::open_or_create(&folder.join("keys"))?))?;
    let visit = |_: RecoveredBatch| -> Result<(), WalError> { Ok(()) };
    let mut wal = wal::open(Arc::clone(&disk), ORIGIN, Config::default(), &keys, visit)?.wal;
    let mut core = Core::new(KeyName::parse(ORIGIN)?, signer);
    let mut writer = Writer::default();
    for command in world.founding() {
        writer.write(&mut core, &mut wal, &mut keys, std::slice::from_ref(command))?;
    }
    let at = At::clamped(START_MS);
    // What comes with the first call alone stays out.
    let (call, command) = world.call(at, core.size())?;
    writer.write(&mut core, &mut wal, &mut keys, &[command])?;
    let finish = world.finish(call, at, core.size())?;
    writer.write(&mut core, &mut wal, &mut keys, &[finish])?;
    let founded = core.size();
    for _ in 0..BATCHES {
        let seen = core.size();
        let calls: Vec<(CallId, Command)> = (0..size).map(|_| world.call(at, seen)).collect::<Fallible<_>>()?;
        let ends: Vec<Command> =
            calls.iter().map(|(call, _)| world.finish(*call, at, seen)).collect::<Fallible<_>>()?;
        let calls: Vec<Command> = calls.into_iter().map(|(_, command)| command).collect();
        for commands in [calls, ends] {
            writer.write(&mut core, &mut wal, &mut keys, &commands)?;
        }
    }
    drop(wal);
    writer.measure(disk, founded, size)
}

#[derive(Default)]
struct Writer(written::Writer);

impl Writer {
    fn write(&mut self, core: &mut Core, wal: &mut Wal, keyring: &mut Keyring, commands: &[Command]) -> Fallible<()> {
        let commands: Vec<&Command> = commands.iter().collect();
        let now = Now { at: At::clamped(START_MS), trusted: true };
        let batch = core.propose(&commands, now, &mut SystemEntropy::new())?;
        core.committed();
        for answer in &batch.answers {
            accepted(&answer.reply)?;
        }
        let bytes = self.0.batch(&batch, keyring, &mut SystemEntropy::new())?;
        wal.append(keyring, &bytes)?;
        while wal.maintain()? == wal::Upkeep::More {}
        Ok(())
    }

    fn measure(&self, disk: Arc<dyn Disk>, founded: u64, size: usize) -> Fallible<Batched> {
        let mut reader = wal::Reader::new(disk, ORIGIN);
        let mut at = Position { segment: 0, offset: 0 };
        let mut sums = [0_u64; 4];
        let mut records = 0;
        while let Some(batch) = reader.read(at, None)? {
            at = batch.end;
            let indexes = batch.records.iter().map(|record| record.index);
            if indexes.clone().any(|index| index < founded) {
                continue;
            }
            if batch.records.len() != size {
                return Err(format!("a batch of {} records instead of {size}", batch.records.len()).into());
            }
            let around: u64 = AROUND.iter().map(|(_, bytes)| bytes).sum();
            let mut framed = 0;
            for index in indexes {
                framed += around + self.0.lengths.get(usize::try_from(index)?).ok_or("a record nobody wrote")?;
            }
            let note = batch.footer.note.len() as u64;
            let whole = batch.end.offset - batch.at.offset;
            let padding = whole.checked_sub(framed + note + HEAD_AND_FOOTER).filter(|padding| *padding < SECTOR_BYTES);
            let padding = padding.ok_or("the log's format has other sizes than this benchmark knows")?;
            for (sum, bytes) in sums.iter_mut().zip([framed, HEAD_AND_FOOTER, note, padding]) {
                *sum += bytes;
            }
            records += size;
        }
        let calls = records as f64 / 2.0;
        let [framed, ends, note, padding] = sums.map(|sum| sum as f64 / calls);
        Ok(Batched { records: size, framed, ends, note, padding })
    }
}

/// What a folder holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Files.
    pub files: u64,
    /// Their lengths.
    pub bytes: u64,
    /// What the file system gave them.
    pub allocated: u64,
}

/// Adds up the files in a folder for which `counts`, by their path.
pub fn size_of(folder: &Path, counts: &dyn Fn(&Path) -> bool) -> Fallible<Size> {
    let mut size = Size::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let about = fs::symlink_metadata(&path)?;
            if about.is_dir() {
                folders.push(path);
            } else if counts(&path) {
                size.files += 1;
                size.bytes += about.len();
                size.allocated += about.blocks() * 512;
            }
        }
    }
    Ok(size)
}
