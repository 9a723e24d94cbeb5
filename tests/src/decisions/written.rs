//! Batches as the log takes them, without a journal around it.

use std::collections::BTreeMap;

use anteroom_broker::{
    book::{
        keyring::{KeyId, KeySeed, Keyring},
        wal::{BatchBytes, Footer, RecordBytes},
    },
    entropy::{self, Entropy},
    journal::core::{Batch, Sealed},
};
use anteroom_proto::ledger::scope::Scope;

use super::Fallible;

/// Makes them, with a key for each scope.
#[derive(Debug, Default)]
pub struct Writer {
    keys: BTreeMap<Scope, KeyId>,
    /// Bytes of each record so far.
    pub lengths: Vec<u64>,
}

impl Writer {
    /// What is to be appended for a batch.
    ///
    /// # Errors
    /// The batch records nothing, or a scope's key cannot be made.
    pub fn batch(&mut self, batch: &Batch, keyring: &mut Keyring, entropy: &mut dyn Entropy) -> Fallible<BatchBytes> {
        let head = batch.head.as_ref().ok_or("nothing was recorded")?;
        let footer = Footer { size: head.size, root: *head.root.as_bytes(), note: head.note.as_bytes().to_vec() };
        let records: Fallible<Vec<RecordBytes>> =
            batch.records.iter().map(|sealed| self.record(sealed, keyring, entropy)).collect();
        Ok(BatchBytes { records: records?, footer })
    }

    fn record(&mut self, sealed: &Sealed, keyring: &mut Keyring, entropy: &mut dyn Entropy) -> Fallible<RecordBytes> {
        let key = match self.keys.get(&sealed.scope) {
            Some(key) => *key,
            None => {
                let seed = KeySeed {
                    id: KeyId(entropy::bytes(entropy)),
                    key: entropy::bytes(entropy),
                    nonce: entropy::bytes(entropy),
                };
                let key = keyring.create(seed)?;
                self.keys.insert(sealed.scope.clone(), key);
                key
            }
        };
        let record = sealed.record.bytes().to_vec();
        self.lengths.push(record.len() as u64);
        let (index, entry, seed) = (sealed.entered.index, *sealed.entry.as_bytes(), *sealed.seed.as_bytes());
        Ok(RecordBytes { index, entry, key, seed, nonce: entropy::bytes(entropy), record })
    }
}
