//! The ledger's formats: records, openings, notes, checkpoints, proofs, tiles, parts of a state. The first byte says which.

use std::str::FromStr as _;

use anteroom_policy::{
    record::{self, Place},
    state::Part,
};
use anteroom_proto::{
    ledger::{
        checkpoint::Checkpoint,
        leaf::Entry,
        note::{Note, VerifierKey},
        proof::TlogProof,
        record::{Opened, Record},
        scope::Scope,
        tiles::{Tile, TileKind},
    },
    rpc::{Opening, ReadReply},
};
use prost::Message as _;

use super::{
    super::{Outcome, Target},
    size, way, words_of,
};
use crate::sim::ensure;

/// The target.
pub struct Formats;

type Reader = fn(&[u8]) -> Outcome;

/// What the first byte chooses from.
pub const READERS: [(&str, Reader); 9] = [
    ("record", record),
    ("opening", opening),
    ("note", note),
    ("checkpoint", checkpoint),
    ("proof", proof),
    ("tile", tile),
    ("scope", scope),
    ("part", part),
    ("key", key),
];

impl Target for Formats {
    fn name(&self) -> &'static str {
        "formats"
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            "\u{2014} ",
            "\n\n",
            "\n",
            "c2sp.org/tlog-proof@v1\n",
            "index ",
            "extra ",
            "simulated.test/log",
            "AAAA",
            "=",
            "+",
            "/",
            "tile/",
            "tile/entries/",
            "tile/0/",
            "tile/63/",
            "x001/",
            "x999/",
            "000",
            "999",
            ".p/",
            "256",
            "18446744073709551615",
            "org/",
            "roster/",
            "reads/",
            "system",
            "grant-0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
            "\u{1}",
            "\u{8}",
            "\u{10}",
            "\u{12}",
            "\u{1a}",
            "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{1}",
        ]
    }

    fn bytes_max(&self) -> usize {
        96 * 1024
    }

    fn check(&self, input: &[u8]) -> Outcome {
        let (first, bytes) = input.split_first().unwrap_or((&0, &[]));
        let (name, reader) = READERS[usize::from(*first) % READERS.len()];
        reader(bytes).map_err(|why| format!("{name}: {why}"))
    }
}

/// Why not, as a way of answering.
fn no(what: &str, error: &dyn std::fmt::Display) -> Outcome {
    Ok(way(&["no", what, &words_of(&error.to_string())]))
}

/// What is read as a record has one encoding: the one that was read.
fn record(bytes: &[u8]) -> Outcome {
    let parsed = match Record::parse(bytes.to_vec()) {
        Ok(parsed) => parsed,
        Err(error) => return no("record", &error),
    };
    ensure(parsed.bytes() == bytes, || "other bytes were read".to_owned())?;
    let entered = match record::decode(&parsed, Entry::NONE) {
        Ok(entered) => entered,
        Err(error) => return no("event", &error),
    };
    let prev = parsed.prev().map_err(|error| format!("no previous entry: {error}"))?;
    let place = Place { index: entered.index, at: entered.at, scope: &entered.scope, seq: entered.seq, prev };
    let again = record::encode(&place, &entered.event).map_err(|error| format!("not written again: {error}"))?;
    ensure(again.bytes() == bytes, || format!("`{}` has two encodings", parsed.spec().name))?;
    Ok(way(&["yes", "record", parsed.spec().name, &size(bytes.len())]))
}

fn opening(bytes: &[u8]) -> Outcome {
    if let Ok(reply) = ReadReply::decode(bytes) {
        // A length is no reason to reserve memory for it.
        ensure(reply.encoded_len() <= bytes.len() * 4 + 64, || "a reply is larger than its bytes".to_owned())?;
    }
    let opening = match Opening::decode(bytes) {
        Ok(opening) => opening,
        Err(error) => return no("opening", &error),
    };
    match Opened::check(&opening) {
        Ok(opened) => {
            let _ = (opened.scope(), record::decode_opened(&opened, Entry::NONE));
            Ok(way(&["yes", "opening", opened.spec().name, &size(opening.open.len())]))
        }
        Err(error) => no("opened", &error),
    }
}

fn note(bytes: &[u8]) -> Outcome {
    match Note::parse(bytes) {
        Ok(note) => {
            ensure(note.encode().as_bytes() == bytes, || "it has two encodings".to_owned())?;
            for signature in note.signatures() {
                let _ = (signature.name(), signature.bytes().len());
            }
            Ok(way(&["yes", "note", &size(note.signatures().len())]))
        }
        Err(error) => no("note", &error),
    }
}

fn checkpoint(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    match Checkpoint::parse(&text) {
        Ok(checkpoint) => {
            ensure(checkpoint.encode() == text, || "it has two encodings".to_owned())?;
            ensure(checkpoint.size() <= i64::MAX as u64, || "it is larger than a log can be".to_owned())?;
            Ok(way(&["yes", "checkpoint", &checkpoint.size().leading_zeros().to_string()]))
        }
        Err(error) => no("checkpoint", &error),
    }
}

fn proof(bytes: &[u8]) -> Outcome {
    match TlogProof::parse(bytes) {
        Ok(proof) => {
            ensure(proof.to_string().as_bytes() == bytes, || "it has two encodings".to_owned())?;
            Ok(way(&["yes", "proof", &size(proof.hashes().len()), &proof.extra().is_some().to_string()]))
        }
        Err(error) => no("proof", &error),
    }
}

/// A path, a line break, and the file's bytes.
fn tile(bytes: &[u8]) -> Outcome {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (path, content) = (String::from_utf8_lossy(&bytes[..at]), bytes.get(at + 1..).unwrap_or_default());
    let tile = match Tile::parse(&path) {
        Ok(tile) => tile,
        Err(error) => return no("tile", &error),
    };
    ensure(tile.to_string() == path, || "a path has two spellings".to_owned())?;
    let _ = tile.start();
    let read = match tile.kind() {
        TileKind::Entries => tile.read_entries(content).map(|entries| entries.len()),
        TileKind::Hashes { .. } => tile.read_hashes(content).map(|hashes| hashes.len()),
    };
    match read {
        Ok(read) => {
            ensure(read as u64 == tile.width(), || "a tile has another width than its path says".to_owned())?;
            Ok(way(&["yes", "tile", &size(read)]))
        }
        Err(error) => Ok(way(&["empty", "tile", &words_of(&error.to_string()), &tile.is_full().to_string()])),
    }
}

fn scope(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    let spelt = Scope::from_str(&text);
    if let Ok(scope) = &spelt {
        ensure(scope.to_string() == text, || "a name has two spellings".to_owned())?;
        ensure(Scope::from_bytes(&scope.to_bytes()).ok().as_ref() == Some(scope), || {
            "its bytes are another".to_owned()
        })?;
    }
    match Scope::from_bytes(bytes) {
        Ok(scope) => {
            ensure(scope.to_bytes() == bytes, || "it has two encodings".to_owned())?;
            Ok(way(&["yes", "scope", &words_of(&scope.to_string())]))
        }
        Err(error) => Ok(way(&["no", "scope", &words_of(&error.to_string()), &spelt.is_ok().to_string()])),
    }
}

fn part(bytes: &[u8]) -> Outcome {
    match Part::decode(bytes) {
        Ok(part) => {
            ensure(part.encode() == bytes, || "it has two encodings".to_owned())?;
            Ok(way(&["yes", "part", &size(bytes.len()), &size(part.acts.len())]))
        }
        Err(error) => no("part", &error),
    }
}

fn key(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    match VerifierKey::parse(&text) {
        Ok(key) => {
            ensure(key.to_string() == text, || "it has two spellings".to_owned())?;
            Ok(way(&["yes", "key"]))
        }
        Err(error) => no("key", &error),
    }
}
