//! Batches as they stand in the tables, sealed and open.

use tokio_postgres::{Client, Row, types::FromSqlOwned};

use super::{
    link::{Link, failure},
    schema,
};
use crate::book::{
    keyring::{KeyId, Keyring},
    wal::{
        BatchBytes, ENTRY_BYTES, Footer, Opening, Position, RECORD_BYTES_MAX, RecordBytes, RecoveredBatch,
        RecoveredRecord, WalError,
    },
};

/// A batch with its records sealed.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) first: u64,
    pub(super) footer: Footer,
    pub(super) records: Vec<Cipher>,
}

/// A sealed record.
#[derive(Clone, Debug)]
pub(super) struct Cipher {
    pub(super) index: u64,
    pub(super) entry: [u8; ENTRY_BYTES],
    pub(super) key: KeyId,
    pub(super) nonce: [u8; 12],
    /// Seed and record; empty if nobody can open it any more.
    pub(super) sealed: Vec<u8>,
}

/// A batch's columns, each a list of its records' values.
pub(super) struct Columns {
    pub(super) index: Vec<i64>,
    pub(super) entry: Vec<Vec<u8>>,
    pub(super) key: Vec<Vec<u8>>,
    pub(super) nonce: Vec<Vec<u8>>,
    pub(super) sealed: Vec<Vec<u8>>,
}

pub(super) fn damaged(what: &str) -> WalError {
    WalError::Database { why: format!("{what}; keep it as it is and run `anteroom-broker fsck`") }
}

/// Where the batch that begins with record `first` is, as far as others need to know.
pub(super) const fn position(first: u64) -> Position {
    Position { segment: first, offset: 0 }
}

pub(super) fn number(value: i64) -> Result<u64, WalError> {
    u64::try_from(value).map_err(|_| damaged("a number in it is below zero"))
}

pub(super) fn signed(value: u64) -> Result<i64, WalError> {
    i64::try_from(value).map_err(|_| damaged("a number is too large for it"))
}

pub(super) fn field<T: FromSqlOwned>(row: &Row, at: usize) -> Result<T, WalError> {
    row.try_get(at).map_err(failure)
}

pub(super) fn fixed<const N: usize>(row: &Row, at: usize) -> Result<[u8; N], WalError> {
    let bytes: Vec<u8> = field(row, at)?;
    bytes.try_into().map_err(|_| damaged("a value in it has another length than it was written with"))
}

fn context(origin: &str, index: u64, entry: &[u8; ENTRY_BYTES]) -> Vec<u8> {
    [origin.as_bytes(), &index.to_be_bytes(), entry].concat()
}

/// Seals a batch's records under their scopes' keys.
pub(super) fn seal(origin: &str, keyring: &Keyring, batch: &BatchBytes) -> Result<Columns, WalError> {
    let count = batch.records.len();
    let mut columns = Columns {
        index: Vec::with_capacity(count),
        entry: Vec::with_capacity(count),
        key: Vec::with_capacity(count),
        nonce: Vec::with_capacity(count),
        sealed: Vec::with_capacity(count),
    };
    for record in &batch.records {
        let RecordBytes { index, entry, key, seed, nonce, record } = record;
        if record.len() > RECORD_BYTES_MAX {
            return Err(WalError::RecordTooLarge { index: *index, bytes: record.len() });
        }
        let unknown = || WalError::UnknownKey { index: *index, key: *key };
        let mut sealed = [seed.as_slice(), record].concat();
        let scope = keyring.find(*key).ok_or_else(unknown)?;
        let tag = scope.seal(*nonce, &context(origin, *index, entry), &mut sealed).ok_or_else(unknown)?;
        sealed.extend_from_slice(&tag);
        columns.index.push(signed(*index)?);
        columns.entry.push(entry.to_vec());
        columns.key.push(key.0.to_vec());
        columns.nonce.push(nonce.to_vec());
        columns.sealed.push(sealed);
    }
    Ok(columns)
}

/// Seals a batch that was read elsewhere, under fresh nonces and a fresh name: 28 random bytes hold one of each.
pub(super) fn seal_again(
    origin: &str,
    keyring: &Keyring,
    batch: &RecoveredBatch,
    random: &mut dyn FnMut() -> [u8; 28],
) -> Result<([u8; 16], Columns), WalError> {
    let (mut opened, mut blind) = (Vec::new(), Vec::new());
    let mut id = [0; 16];
    for record in &batch.records {
        let bytes = random();
        let (name, nonce) = bytes.split_at(16);
        id.copy_from_slice(name);
        match &record.opening {
            Some(opening) => opened.push(RecordBytes {
                index: record.index,
                entry: record.entry,
                key: record.key,
                seed: opening.seed,
                nonce: nonce.try_into().unwrap_or_default(),
                record: opening.record.clone(),
            }),
            None => blind.push(record),
        }
    }
    let mut columns = seal(origin, keyring, &BatchBytes { records: opened, footer: batch.footer.clone() })?;
    for record in blind {
        columns.index.push(signed(record.index)?);
        columns.entry.push(record.entry.to_vec());
        columns.key.push(record.key.0.to_vec());
        columns.nonce.push(vec![0; 12]);
        columns.sealed.push(Vec::new());
    }
    Ok((id, columns))
}

impl Sealed {
    /// Opens the records that the keys given open.
    pub(super) fn open(&self, origin: &str, keyring: Option<&Keyring>) -> Result<RecoveredBatch, WalError> {
        let mut records = Vec::with_capacity(self.records.len());
        for row in &self.records {
            let opening = match keyring.and_then(|keyring| keyring.find(row.key)) {
                None => None,
                Some(key) => {
                    let opened = key.open(row.nonce, &context(origin, row.index, &row.entry), &row.sealed);
                    let opened = opened.ok_or_else(|| damaged("a record in it does not open under its key"))?;
                    let (seed, record) =
                        opened.split_first_chunk::<32>().ok_or_else(|| damaged("a record in it is cut short"))?;
                    Some(Opening { seed: *seed, record: record.to_vec() })
                }
            };
            records.push(RecoveredRecord { index: row.index, entry: row.entry, key: row.key, opening });
        }
        let (at, end) = (position(self.first), position(self.footer.size));
        Ok(RecoveredBatch { at, end, records, footer: self.footer.clone() })
    }
}

/// Batches from the first that begins with record `from` or later, `most` at most.
pub(super) async fn batches(link: &mut Link, from: u64, most: i64) -> Result<Vec<Sealed>, WalError> {
    let (heads, records) = (link.prepared(schema::BATCHES).await?, link.prepared(schema::RECORDS).await?);
    let client: &Client = &link.client;
    let found = client.query(&heads, &[&signed(from)?, &most]).await.map_err(failure)?;
    let mut batches = Vec::with_capacity(found.len());
    for row in &found {
        let footer = Footer { size: number(field(row, 1)?)?, root: fixed(row, 2)?, note: field(row, 3)? };
        batches.push(Sealed { first: number(field(row, 0)?)?, footer, records: Vec::new() });
    }
    let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return Ok(batches) };
    let (begin, end) = (first.first, last.footer.size);
    let rows = client.query(&records, &[&signed(begin)?, &signed(end)?]).await.map_err(failure)?;
    let mut rows = rows.iter();
    let mut next = begin;
    for batch in &mut batches {
        if batch.first != next || batch.footer.size <= next {
            return Err(damaged("its batches do not follow on each other"));
        }
        while next < batch.footer.size {
            let row = rows.next().ok_or_else(|| damaged("a record is missing in it"))?;
            let index = number(field(row, 0)?)?;
            if index != next {
                return Err(damaged("a record is missing in it"));
            }
            let (entry, key, nonce) = (fixed(row, 1)?, KeyId(fixed(row, 2)?), fixed(row, 3)?);
            batch.records.push(Cipher { index, entry, key, nonce, sealed: field(row, 4)? });
            next += 1;
        }
    }
    Ok(batches)
}
