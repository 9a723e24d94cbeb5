//! A record as a row: where it stands, and what happened in names, codes and numbers.

use std::sync::Arc;

use anteroom_policy::siem::Told;
use anteroom_proto::ledger::tree::leaf_hash;
use data_encoding::HEXLOWER;
use serde::Serialize;

use crate::journal::Sealed;

/// A record on its way to a sink. Absent fields are left out; the set of fields only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The log's name.
    pub origin: Arc<str>,
    /// The record's place in the log.
    pub index: u64,
    /// RFC 6962 hash of its public entry, hexadecimal: what inclusion proofs begin with.
    pub leaf_hash: String,
    /// What it says; absent once the key of its scope was destroyed.
    #[serde(flatten)]
    pub told: Option<Told>,
}

impl Row {
    /// The row of the record at `index`; `sealed` if it can be opened.
    pub(super) fn new(origin: Arc<str>, index: u64, entry: &[u8; 48], sealed: Option<&Sealed>) -> Self {
        let leaf_hash = HEXLOWER.encode(leaf_hash(entry).as_bytes());
        Self {
            origin,
            index,
            leaf_hash,
            told: sealed.map(|sealed| Told::of(sealed.record.spec().name, &sealed.entered)),
        }
    }

    pub(super) fn at_ms(&self) -> i64 {
        self.told.as_ref().map_or(0, |told| told.at_ms)
    }

    /// Whether somebody was told no, or something was cut.
    pub(super) fn is_refusal(&self) -> bool {
        self.told.as_ref().is_some_and(Told::is_refusal)
    }
}
