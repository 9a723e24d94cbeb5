//! Shared ground of the log's tests: a keyring, batches that are functions of their index, and a disk of small segments.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#![expect(clippy::panic, reason = "a test that cannot go on says so")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds is a failed test")]

use std::sync::Arc;

use super::super::disk::lossy::LossyDisk;
use super::super::keyring::{Kek, KeySeed, Keyring, KeyringError};
use super::*;

mod crash;
mod damage;
mod space;
mod use_cases;

const ORIGIN: &str = "ledger.example.org/log";
const SMALL: Config = Config { segment_bytes: 8 * 1024, reserve_bytes: 4 * 1024 };
const FIRST_KEY: KeyId = KeyId([1; 16]);
const SECOND_KEY: KeyId = KeyId([2; 16]);

fn keyring() -> Keyring {
    let mut keyring = Keyring::open(Arc::new(LossyDisk::new()), Kek::from_bytes(&[9; 32]).unwrap()).unwrap();
    for id in [FIRST_KEY, SECOND_KEY] {
        keyring.create(KeySeed { id, key: [id.0[0] ^ 0xa5; 32], nonce: [3; 12] }).unwrap();
    }
    keyring
}

/// Record `index` as written in the `round`-th attempt; records of one index differ between attempts.
fn record(index: u64, round: u64) -> RecordBytes {
    let mut entry = [0; ENTRY_BYTES];
    entry[..8].copy_from_slice(&index.to_be_bytes());
    entry[8..16].copy_from_slice(&round.to_be_bytes());
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&index.to_le_bytes());
    nonce[8..].copy_from_slice(&u32::try_from(round).unwrap().to_le_bytes());
    let key = if index.is_multiple_of(3) { SECOND_KEY } else { FIRST_KEY };
    let length = usize::try_from(index * 97 % 800).unwrap();
    let seed = [u8::try_from(index % 251).unwrap(); 32];
    RecordBytes { index, entry, key, seed, nonce, record: vec![u8::try_from(round % 256).unwrap(); length] }
}

fn batch(first: u64, count: u64, round: u64) -> BatchBytes {
    let size = first + count;
    let root = [u8::try_from(size % 256).unwrap(); 32];
    let footer = Footer { size, root, note: format!("checkpoint at {size}, {round}\n").into_bytes() };
    BatchBytes { records: (first..size).map(|index| record(index, round)).collect(), footer }
}

/// What reading `batch` back must give.
fn as_read(batch: &BatchBytes) -> (Vec<RecoveredRecord>, Footer) {
    let records = batch.records.iter().cloned().map(|record| RecoveredRecord {
        index: record.index,
        entry: record.entry,
        key: record.key,
        opening: Some(Opening { seed: record.seed, record: record.record }),
    });
    (records.collect(), batch.footer.clone())
}

fn open_with(disk: &LossyDisk, keyring: &Keyring) -> Result<(Vec<RecoveredBatch>, Opened), WalError> {
    let mut batches = Vec::new();
    let opened = open(Arc::new(disk.again()), ORIGIN, SMALL, keyring, |batch| {
        batches.push(batch);
        Ok::<(), WalError>(())
    })?;
    Ok((batches, opened))
}

fn assert_same(read: &[RecoveredBatch], written: &[BatchBytes]) {
    let read: Vec<_> = read.iter().cloned().map(|batch| (batch.records, batch.footer)).collect();
    let written: Vec<_> = written.iter().map(as_read).collect();
    assert_eq!(read, written);
}

/// A log of the given batches, closed again.
fn written(keyring: &Keyring, batches: &[BatchBytes]) -> LossyDisk {
    let disk = LossyDisk::new();
    let (_, mut opened) = open_with(&disk, keyring).unwrap();
    for batch in batches {
        opened.wal.append(keyring, batch).unwrap();
    }
    disk
}

/// A disk that holds one segment with these bytes and nothing else.
fn holding(bytes: Vec<u8>) -> LossyDisk {
    let disk = LossyDisk::new();
    disk.tamper(&segment::file_name(0), bytes);
    disk
}
