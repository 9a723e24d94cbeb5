//! The log's byte format: how a batch becomes one run of bytes, and back.
//!
//! ```text
//! frame  = u32le length ‖ u32le CRC32C(type ‖ body) ‖ u8 type ‖ body          length counts type and body
//! batch  = head ‖ record … ‖ footer                                           a whole number of sectors
//! head   = 'H' ‖ version 1 ‖ SHA-256(origin)[..16] ‖ u64le first index ‖ u32le records ‖ u32le bytes of the batch
//! record = 'R' ‖ u64le index ‖ key id 16 ‖ nonce 12 ‖ entry 48 ‖ AES-256-GCM(seed 32 ‖ record bytes)
//! footer = 'F' ‖ u64le size ‖ root 32 ‖ u32le note length ‖ note ‖ FF … ‖ end mark 8
//! AAD    = origin ‖ u64be index ‖ entry
//! ```
//!
//! **Invariant:** a batch begins and ends on a sector's boundary and no sector of it is all zeros. Space ahead of the log *is* all
//! zeros, so a write that did not reach the disk whole leaves a sector of zeros (or no end mark), while a byte that changed later
//! leaves none: a torn batch and a damaged one cannot be taken for each other.

use super::super::keyring::{KeyId, Keyring, SEAL_BYTES};
use super::error::{Flaw, WalError};
use super::{
    BATCH_BYTES_MAX, BatchBytes, ENTRY_BYTES, Footer, NOTE_BYTES_MAX, Opening, RECORD_BYTES_MAX, RecordBytes,
    RecoveredRecord, SECTOR_BYTES,
};

/// Bytes of a head's frame; it always fits the first sector.
pub(super) const HEAD_BYTES: usize = FRAME_BYTES + 1 + 16 + 8 + 4 + 4;
const FRAME_BYTES: usize = 4 + 4 + 1;
const FOOTER_BYTES: usize = FRAME_BYTES + 8 + 32 + 4 + END_MARK.len();
const SECTOR: usize = SECTOR_BYTES as usize;
const VERSION: u8 = 1;
const HEAD: u8 = b'H';
const RECORD: u8 = b'R';
const FOOTER: u8 = b'F';
const END_MARK: &[u8; 8] = b"end\xf0\x9f\x94\x92\n";

const _: () = assert!(HEAD_BYTES < SECTOR, "a head is read and judged by its first sector alone");

/// The log's name, as it enters every seal and every head.
#[derive(Debug)]
pub(super) struct Origin {
    text: Vec<u8>,
    tag: [u8; 16],
}

impl Origin {
    pub(super) fn new(text: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let mut tag = [0; 16];
        tag.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self { text: text.as_bytes().to_vec(), tag }
    }

    fn context(&self, index: u64, entry: &[u8; ENTRY_BYTES]) -> Vec<u8> {
        [self.text.as_slice(), &index.to_be_bytes(), entry].concat()
    }
}

/// What the first sector of a batch says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) ours: bool,
    pub(super) first: u64,
    pub(super) records: u32,
    /// Bytes of the whole batch; a whole number of sectors, at most `BATCH_BYTES_MAX`.
    pub(super) bytes: u64,
}

/// Puts a batch that begins with record `next` into `buffer`, which is emptied first.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    origin: &Origin,
    keyring: &Keyring,
    next: u64,
    batch: &BatchBytes,
) -> Result<(), WalError> {
    buffer.clear();
    if batch.records.is_empty() {
        return Err(WalError::EmptyBatch);
    }
    let too_large = |bytes: usize| WalError::BatchTooLarge { bytes: bytes as u64 };
    let records = u32::try_from(batch.records.len()).map_err(|_| too_large(usize::MAX))?;
    // The head needs the batch's length, so its place is kept and filled last.
    buffer.resize(HEAD_BYTES, 0);
    let mut expected = next;
    for record in &batch.records {
        encode_record(buffer, origin, keyring, expected, record)?;
        expected = expected.saturating_add(1);
        if buffer.len() as u64 > BATCH_BYTES_MAX {
            return Err(too_large(buffer.len()));
        }
    }
    encode_footer(buffer, expected, &batch.footer)?;
    let bytes = u32::try_from(buffer.len()).ok().filter(|bytes| u64::from(*bytes) <= BATCH_BYTES_MAX);
    let bytes = bytes.ok_or_else(|| too_large(buffer.len()))?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    frame(&mut head, HEAD, |body| {
        body.push(VERSION);
        body.extend_from_slice(&origin.tag);
        body.extend_from_slice(&next.to_le_bytes());
        body.extend_from_slice(&records.to_le_bytes());
        body.extend_from_slice(&bytes.to_le_bytes());
        Ok(())
    })?;
    buffer.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    Ok(())
}

fn encode_record(
    buffer: &mut Vec<u8>,
    origin: &Origin,
    keyring: &Keyring,
    expected: u64,
    record: &RecordBytes,
) -> Result<(), WalError> {
    let index = record.index;
    if index != expected {
        return Err(WalError::IndexGap { expected, found: index });
    }
    if record.record.len() > RECORD_BYTES_MAX {
        return Err(WalError::RecordTooLarge { index, bytes: record.record.len() });
    }
    let unknown = WalError::UnknownKey { index, key: record.key };
    let key = keyring.find(record.key).ok_or(unknown.clone())?;
    let context = origin.context(index, &record.entry);
    frame(buffer, RECORD, |body| {
        body.extend_from_slice(&index.to_le_bytes());
        body.extend_from_slice(&record.key.0);
        body.extend_from_slice(&record.nonce);
        body.extend_from_slice(&record.entry);
        let sealed_from = body.len();
        body.extend_from_slice(&record.seed);
        body.extend_from_slice(&record.record);
        // A record's length is bounded far below what the cipher takes, so sealing cannot refuse.
        let tag =
            body.get_mut(sealed_from..).and_then(|sealed| key.seal(record.nonce, &context, sealed)).ok_or(unknown)?;
        body.extend_from_slice(&tag);
        Ok(())
    })
}

fn encode_footer(buffer: &mut Vec<u8>, expected: u64, footer: &Footer) -> Result<(), WalError> {
    if footer.size != expected {
        return Err(WalError::FooterSize { expected, found: footer.size });
    }
    // A run of zero bytes as long as a sector would look like a write that never arrived.
    if footer.note.len() > NOTE_BYTES_MAX || footer.note.contains(&0) {
        return Err(WalError::UnfitNote);
    }
    let note_bytes = u32::try_from(footer.note.len()).map_err(|_| WalError::UnfitNote)?;
    let unpadded = buffer.len() + FOOTER_BYTES + footer.note.len();
    let padding = unpadded.next_multiple_of(SECTOR) - unpadded;
    frame(buffer, FOOTER, |body| {
        body.extend_from_slice(&footer.size.to_le_bytes());
        body.extend_from_slice(&footer.root);
        body.extend_from_slice(&note_bytes.to_le_bytes());
        body.extend_from_slice(&footer.note);
        body.resize(body.len() + padding, 0xff);
        body.extend_from_slice(END_MARK);
        Ok(())
    })
}

fn frame(
    buffer: &mut Vec<u8>,
    kind: u8,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), WalError>,
) -> Result<(), WalError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 8]);
    buffer.push(kind);
    fill(buffer)?;
    let covered = buffer.get(start + 8..).unwrap_or_default();
    let length = u32::try_from(covered.len()).map_err(|_| WalError::BatchTooLarge { bytes: covered.len() as u64 })?;
    let prefix = length.to_le_bytes().into_iter().chain(crc32c::crc32c(covered).to_le_bytes());
    buffer.iter_mut().skip(start).zip(prefix).for_each(|(to, from)| *to = from);
    Ok(())
}

/// Reads a batch's head from its first sector. `None` if there is none; the flaw if there is one that cannot be.
pub(super) fn decode_head(origin: &Origin, sector: &[u8]) -> Option<Result<Head, Flaw>> {
    let mut bytes = Cursor(sector);
    let mut body = bytes.frame(HEAD).ok()?;
    let version = body.array::<1>()?;
    let tag = body.array::<16>()?;
    let head = Head {
        ours: tag == origin.tag,
        first: u64::from_le_bytes(body.array()?),
        records: u32::from_le_bytes(body.array()?),
        bytes: u64::from(u32::from_le_bytes(body.array()?)),
    };
    if version != [VERSION] || !body.0.is_empty() {
        return Some(Err(Flaw::Head));
    }
    let fits = head.bytes > 0 && head.bytes <= BATCH_BYTES_MAX && head.bytes.is_multiple_of(SECTOR_BYTES);
    Some(if fits && head.records > 0 { Ok(head) } else { Err(Flaw::Length) })
}

/// Reads all of a batch. A record whose key is gone keeps its entry and loses its opening.
pub(super) fn decode(
    origin: &Origin,
    keyring: Option<&Keyring>,
    head: Head,
    bytes: &[u8],
) -> Result<(Vec<RecoveredRecord>, Footer), Flaw> {
    let mut rest = Cursor(bytes);
    rest.frame(HEAD)?;
    let mut records = Vec::new();
    let mut next = head.first;
    for _ in 0..head.records {
        let mut body = rest.frame(RECORD)?;
        let record = decode_record(origin, keyring, &mut body)?;
        if record.index != next {
            return Err(Flaw::Sequence);
        }
        next = next.checked_add(1).ok_or(Flaw::Sequence)?;
        records.push(record);
    }
    let footer = decode_footer(&mut rest.frame(FOOTER)?).ok_or(Flaw::Footer)?;
    if footer.size != next || !rest.0.is_empty() {
        return Err(Flaw::Footer);
    }
    Ok((records, footer))
}

fn decode_record(origin: &Origin, keyring: Option<&Keyring>, body: &mut Cursor<'_>) -> Result<RecoveredRecord, Flaw> {
    let index = u64::from_le_bytes(body.array().ok_or(Flaw::Frame)?);
    let key = KeyId(body.array().ok_or(Flaw::Frame)?);
    let nonce = body.array().ok_or(Flaw::Frame)?;
    let entry = body.array().ok_or(Flaw::Frame)?;
    let sealed = body.0;
    if sealed.len() < 32 + SEAL_BYTES || sealed.len() > 32 + RECORD_BYTES_MAX + SEAL_BYTES {
        return Err(Flaw::Frame);
    }
    let opening = match keyring.and_then(|keyring| keyring.find(key)) {
        None => None,
        Some(key) => {
            let opened = key.open(nonce, &origin.context(index, &entry), sealed).ok_or(Flaw::Sealed)?;
            let (seed, record) = opened.split_first_chunk::<32>().ok_or(Flaw::Sealed)?;
            Some(Opening { seed: *seed, record: record.to_vec() })
        }
    };
    Ok(RecoveredRecord { index, entry, key, opening })
}

fn decode_footer(body: &mut Cursor<'_>) -> Option<Footer> {
    let size = u64::from_le_bytes(body.array()?);
    let root = body.array()?;
    let note_bytes = u32::from_le_bytes(body.array()?);
    let note = body.take(usize::try_from(note_bytes).ok()?)?.to_vec();
    let padding = body.0.strip_suffix(END_MARK.as_slice())?;
    (note.len() <= NOTE_BYTES_MAX && padding.iter().all(|byte| *byte == 0xff)).then_some(Footer { size, root, note })
}

/// Whether a batch that does not decode may be one that never reached the disk whole.
pub(super) fn is_torn(batch: &[u8]) -> bool {
    let (sectors, _) = batch.as_chunks::<SECTOR>();
    let end_missing = batch.last_chunk::<{ END_MARK.len() }>().is_some_and(|end| *end == [0; END_MARK.len()]);
    end_missing || sectors.iter().any(|sector| is_zero(sector))
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    /// Takes one frame of the given kind and returns its body.
    fn frame(&mut self, kind: u8) -> Result<Cursor<'a>, Flaw> {
        let length = u32::from_le_bytes(self.array().ok_or(Flaw::Frame)?);
        let checksum = u32::from_le_bytes(self.array().ok_or(Flaw::Frame)?);
        let covered = usize::try_from(length).ok().and_then(|length| self.take(length)).ok_or(Flaw::Frame)?;
        if crc32c::crc32c(covered) != checksum {
            return Err(Flaw::Checksum);
        }
        let (found, body) = covered.split_first().ok_or(Flaw::Frame)?;
        if *found == kind { Ok(Cursor(body)) } else { Err(Flaw::Frame) }
    }
}
