//! Slices on disk: a scope's `ReadReply` messages one after the other, each with its length in front as protobuf delimits them.
//!
//! Reading runs ahead on a thread of its own and checks records on every core; they come out in order.
//!
//! **Invariant:** a record comes out only after its bytes were found canonical, its checkpoint signed by the log, its opening to lead
//! there, and itself to follow the one before it.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, VerifiedCheckpoint},
        leaf::Entry,
        note::Note,
        receipt::{ReceiptError, verify_proven_under},
        record::{Record, Seed},
        scope::{Scope, TagKey},
    },
    rpc::ReadReply,
};
use prost::Message;

use super::{Mirror, MirrorError, layout::io};
use crate::{
    channel::MESSAGE_BYTES_MAX,
    verify::scope::{SliceError, SliceRecord},
};

/// Records that are checked together.
const BATCH: usize = 512;
/// Batches that wait to be taken.
const AHEAD: usize = 2;
/// Bytes of the longest length in front of a record.
const VARINT_BYTES: usize = 10;

/// A reply as it stands in the file: where it begins, and its bytes.
type Framed = (u64, Vec<u8>);
/// A record with where it begins, and its reply.
type Checked = (u64, SliceRecord, ReadReply);

/// Where replies are read from.
struct Frames {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
}

impl Frames {
    fn open(path: &Path) -> Result<Self, MirrorError> {
        let file = File::open(path).map_err(|why| io(path, why))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(1 << 18, file), at: 0 })
    }

    /// Goes on at a place of the file.
    fn begin_at(&mut self, at: u64) -> Result<(), MirrorError> {
        self.file.seek(SeekFrom::Start(at)).map_err(|why| io(&self.path, why))?;
        self.at = at;
        Ok(())
    }

    /// The length of the next reply and where it begins; `None` at the end.
    fn length(&mut self) -> Result<Option<(u64, usize)>, MirrorError> {
        let start = self.at;
        let mut prefix = Vec::new();
        for _ in 0..VARINT_BYTES {
            let mut byte = [0];
            match self.file.read_exact(&mut byte) {
                Ok(()) => {}
                Err(why) if why.kind() == ErrorKind::UnexpectedEof && prefix.is_empty() => return Ok(None),
                Err(why) if why.kind() == ErrorKind::UnexpectedEof => return Err(self.cut(start)),
                Err(why) => return Err(io(&self.path, why)),
            }
            self.at += 1;
            prefix.extend(byte);
            if byte < [0x80] {
                break;
            }
        }
        let length = prost::decode_length_delimiter(prefix.as_slice()).ok();
        let mut canonical = Vec::new();
        if let Some(length) = length {
            prost::encode_length_delimiter(length, &mut canonical).ok();
        }
        match length {
            Some(length) if canonical == prefix && length <= MESSAGE_BYTES_MAX => Ok(Some((start, length))),
            Some(_) | None => Err(self.damaged(start, "the length in front of a record is unusable")),
        }
    }

    fn next(&mut self) -> Result<Option<Framed>, MirrorError> {
        let Some((start, length)) = self.length()? else { return Ok(None) };
        let mut bytes = vec![0; length];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(why) if why.kind() == ErrorKind::UnexpectedEof => return Err(self.cut(start)),
            Err(why) => return Err(io(&self.path, why)),
        }
        self.at += length as u64;
        Ok(Some((start, bytes)))
    }

    fn cut(&self, at: u64) -> MirrorError {
        self.damaged(at, "the file ends in the middle of a record")
    }

    fn damaged(&self, at: u64, why: &str) -> MirrorError {
        MirrorError::Damaged { path: self.path.clone(), at, index: None, why: why.to_owned() }
    }
}

/// The one record that begins at a place of a scope's file, checked by itself.
pub(super) fn record_at(
    mirror: &Mirror,
    scope: &Scope,
    tag_key: &TagKey,
    log: &LogTrust,
    at: u64,
) -> Result<(SliceRecord, ReadReply), MirrorError> {
    let path = mirror.slice_path(scope);
    let mut frames = Frames::open(&path)?;
    frames.begin_at(at)?;
    let framed = frames.next()?.ok_or_else(|| frames.cut(at))?;
    let (_, record, reply) =
        check_part(&path, &[framed], log, tag_key)?.pop().ok_or_else(|| frames.damaged(at, "no record begins here"))?;
    if record.record.scope() == scope {
        return Ok((record, reply));
    }
    let why = SliceError::OtherScope(record.record.scope().clone());
    Err(MirrorError::Record { path, at, why })
}

/// How far a slice was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Upto {
    /// Where the next record begins in the file.
    at: u64,
    /// Its position.
    pub(super) seq: u64,
    /// The record before it, by index and entry.
    last: (u64, Entry),
}

impl Upto {
    /// Nothing was read yet.
    pub(super) const START: Self = Self { at: 0, seq: 0, last: (0, Entry::NONE) };

    /// Where the next record begins in the file.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }
}

/// A slice being read.
pub(super) struct SliceReader {
    pub(super) scope: Scope,
    pub(super) tag_key: TagKey,
    path: PathBuf,
    batches: mpsc::Receiver<Result<Vec<Checked>, MirrorError>>,
    ready: VecDeque<Checked>,
    ended: bool,
    upto: Upto,
}

impl SliceReader {
    /// Reads a scope's slice. Checkpoints in it need the log's signature alone.
    pub(super) fn open(mirror: &Mirror, scope: &Scope, tag_key: TagKey, log: &LogTrust) -> Result<Self, MirrorError> {
        Self::open_from(mirror, scope, tag_key, log, Upto::START)
    }

    /// As [`SliceReader::open`], from where it was read to before.
    pub(super) fn open_from(
        mirror: &Mirror,
        scope: &Scope,
        tag_key: TagKey,
        log: &LogTrust,
        upto: Upto,
    ) -> Result<Self, MirrorError> {
        let path = mirror.slice_path(scope);
        let mut frames = match Frames::open(&path) {
            Err(MirrorError::Missing(_)) => return Err(MirrorError::NoSlice(scope.clone())),
            other => other?,
        };
        frames.begin_at(upto.at)?;
        let (send, batches) = mpsc::sync_channel(AHEAD);
        let trust = log.clone();
        thread::spawn(move || {
            loop {
                let batch = next_batch(&mut frames, &trust, &tag_key);
                let over = !matches!(&batch, Ok(records) if !records.is_empty());
                // Whoever read them is gone, or there are no more.
                if send.send(batch).is_err() || over {
                    return;
                }
            }
        });
        Ok(Self { scope: scope.clone(), tag_key, path, batches, ready: VecDeque::new(), ended: false, upto })
    }

    /// Makes sure that a record is ready; `false` at the end.
    fn fill(&mut self) -> Result<bool, MirrorError> {
        if self.ready.is_empty() && !self.ended {
            self.ready.extend(self.batches.recv().map_err(|_| MirrorError::Interrupted)??);
            self.ended = self.ready.is_empty();
        }
        Ok(!self.ready.is_empty())
    }

    /// The index in the log of the next record; `None` at the end.
    pub(super) fn peek(&mut self) -> Result<Option<u64>, MirrorError> {
        self.fill()?;
        Ok(self.ready.front().map(|(_, record, _)| record.record.header().index))
    }

    /// The next record and its reply; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(SliceRecord, ReadReply)>, MirrorError> {
        Ok(self.taken()?.map(|(_, record, reply)| (record, reply)))
    }

    fn taken(&mut self) -> Result<Option<Checked>, MirrorError> {
        self.fill()?;
        let Some((at, record, reply)) = self.ready.pop_front() else { return Ok(None) };
        let path = &self.path;
        let wrong = |why| MirrorError::Record { path: path.clone(), at, why };
        let header = record.record.header();
        if *record.record.scope() != self.scope {
            return Err(wrong(SliceError::OtherScope(record.record.scope().clone())));
        }
        let Upto { seq, last, .. } = self.upto;
        if header.seq != seq {
            return Err(wrong(SliceError::Gap { expected: seq, found: header.seq }));
        }
        if *record.record.prev() != last.1 || (seq > 0 && header.index <= last.0) {
            return Err(wrong(SliceError::Chain(seq)));
        }
        let length = reply.encoded_len();
        self.upto = Upto {
            at: at + (prost::length_delimiter_len(length) + length) as u64,
            seq: seq + 1,
            last: (header.index, *record.record.entry()),
        };
        Ok(Some((at, record, reply)))
    }

    /// The next record with where it begins in the file, and how far that is; `None` at the end.
    pub(super) fn next_upto(&mut self) -> Result<Option<(u64, SliceRecord, Upto)>, MirrorError> {
        Ok(self.taken()?.map(|(at, record, _)| (at, record, self.upto)))
    }

    /// How many records came out, with those before it began.
    pub(super) const fn count(&self) -> u64 {
        self.upto.seq
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads and checks the next records, on every core.
fn next_batch(frames: &mut Frames, trust: &LogTrust, tag_key: &TagKey) -> Result<Vec<Checked>, MirrorError> {
    let mut framed = Vec::with_capacity(BATCH);
    while framed.len() < BATCH {
        match frames.next()? {
            Some(frame) => framed.push(frame),
            None => break,
        }
    }
    if framed.is_empty() {
        return Ok(Vec::new());
    }
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get().min(16));
    let each = framed.len().div_ceil(cores);
    let path = frames.path.clone();
    let check = |part: &[Framed]| check_part(&path, part, trust, tag_key);
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = framed.chunks(each).map(|part| scope.spawn(move || check(part))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| MirrorError::Interrupted)?)
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

fn check_part(path: &Path, framed: &[Framed], trust: &LogTrust, tag_key: &TagKey) -> Result<Vec<Checked>, MirrorError> {
    let mut notes = Notes::new(trust);
    let mut out = Vec::with_capacity(framed.len());
    for (at, bytes) in framed {
        let wrong = |why: ReceiptError| MirrorError::Record {
            path: path.to_owned(),
            at: *at,
            why: SliceError::Record { seq: seq_of(bytes), why },
        };
        let reply = ReadReply::decode(bytes.as_slice()).ok().filter(|reply| reply.encode_to_vec() == *bytes);
        let Some(reply) = reply else {
            let why = "a record's bytes are not the encoding of a reply".to_owned();
            return Err(MirrorError::Damaged { path: path.to_owned(), at: *at, index: None, why });
        };
        let proven = reply.record.as_ref().ok_or_else(|| wrong(ReceiptError::Missing("record")))?;
        let checkpoint = notes.open(&proven.checkpoint).map_err(wrong)?;
        let record = verify_proven_under(proven, checkpoint, tag_key).map_err(wrong)?;
        let seq = record.header().seq;
        let damaged = |why| MirrorError::Record { path: path.to_owned(), at: *at, why };
        if !reply.tag_key.is_empty() && reply.tag_key != tag_key.as_bytes() {
            return Err(damaged(SliceError::TagKey(record.scope().clone())));
        }
        let full = match (reply.seed.is_empty(), reply.full.is_empty()) {
            (true, true) => None,
            (false, false) => {
                let seed = Seed::from_slice(&reply.seed).ok_or_else(|| damaged(SliceError::Full(seq)))?;
                let full = Record::parse(reply.full.clone()).map_err(|_| damaged(SliceError::Full(seq)))?;
                if full.entry(&seed, tag_key) != *record.entry() {
                    return Err(damaged(SliceError::Full(seq)));
                }
                Some(full)
            }
            (true, false) | (false, true) => return Err(damaged(SliceError::Full(seq))),
        };
        out.push((*at, SliceRecord { record, full }, reply));
    }
    Ok(out)
}

/// Checkpoints as records bring them: the same one over and over, verified once.
pub(super) struct Notes<'t> {
    trust: &'t LogTrust,
    last: Option<(String, VerifiedCheckpoint)>,
}

impl<'t> Notes<'t> {
    pub(super) const fn new(trust: &'t LogTrust) -> Self {
        Self { trust, last: None }
    }

    /// The checkpoint in a note's text.
    pub(super) fn open(&mut self, text: &str) -> Result<VerifiedCheckpoint, ReceiptError> {
        if let Some((last, checkpoint)) = &self.last
            && last == text
        {
            return Ok(checkpoint.clone());
        }
        let checkpoint = self.trust.verify(Note::parse(text.as_bytes())?)?;
        self.last = Some((text.to_owned(), checkpoint.clone()));
        Ok(checkpoint)
    }
}

/// The position that a reply claims for its record, for a message about it.
fn seq_of(bytes: &[u8]) -> u64 {
    let opening = ReadReply::decode(bytes).ok().and_then(|reply| reply.record).and_then(|record| record.opening);
    let opened = opening.and_then(|opening| anteroom_proto::ledger::record::Opened::check(&opening).ok());
    opened.map_or(0, |opened| opened.header().seq)
}

/// A slice being added to.
pub(super) struct SliceWriter {
    file: File,
    path: PathBuf,
    /// Its records.
    pub(super) records: u64,
}

impl SliceWriter {
    /// Opens a slice at its end. A record that a run broken off left half written is cut off.
    pub(super) fn open(mirror: &Mirror, scope: &Scope) -> Result<Self, MirrorError> {
        let path = mirror.slice_path(scope);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(|why| io(&path, why))?;
        let whole = file.metadata().map_err(|why| io(&path, why))?.len();
        let mut frames = Frames::open(&path)?;
        let (mut records, mut end) = (0, 0);
        while end < whole {
            let length = match frames.length() {
                Ok(Some((_, length))) => length,
                // The file ends within the length itself.
                Ok(None) => break,
                Err(_) if frames.at == whole => break,
                Err(error) => return Err(error),
            };
            let next = frames.at.saturating_add(length as u64);
            if next > whole {
                break;
            }
            let skip = i64::try_from(length).unwrap_or(i64::MAX);
            frames.file.seek_relative(skip).map_err(|why| io(&path, why))?;
            frames.at = next;
            end = next;
            records += 1;
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(|why| io(&path, why))?;
        Ok(Self { file, path, records })
    }

    /// Adds replies.
    pub(super) fn append(&mut self, replies: &[ReadReply]) -> Result<(), MirrorError> {
        let mut bytes = Vec::new();
        for reply in replies {
            bytes.extend(reply.encode_length_delimited_to_vec());
        }
        self.file.write_all(&bytes).map_err(|why| io(&self.path, why))?;
        self.records += replies.len() as u64;
        Ok(())
    }

    /// Waits for the disk.
    pub(super) fn finish(self) -> Result<u64, MirrorError> {
        self.file.sync_all().map_err(|why| io(&self.path, why))?;
        Ok(self.records)
    }
}
