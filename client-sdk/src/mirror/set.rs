//! A disclosed set: a scope's records with every commitment, and the contents of chosen fields alone.
//!
//! JSON Lines in UTF-8. The first line is the head, each further line a record, ascending and without a gap from position 0:
//!
//! ```text
//! {"format":"anteroom-disclosure/v1","log":VKEY,"scope":SCOPE,"tag_key":HEX,"fields":["Kind.field",…],"records":N,"checkpoint":NOTE}
//! {"index":I,"seq":S,"kind":"Kind","open":[{"field":NAME,"number":F,"salt":B64,"wire":B64},…],
//!  "closed":[{"field":NAME,"number":F,"commitment":B64},…],"path":[B64,…]}
//! ```
//!
//! A record's six header fields are always open, because nothing could be verified without them; `fields` names the others that
//! may be. A line has one spelling: keys in this order, no spaces, standard base64 with padding.
//!
//! **Invariant:** a [`Disclosed`] exists only after every line was found in its one spelling and every record proven under the head's
//! checkpoint, in its place, following the one before.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, VerifiedCheckpoint},
        leaf::Entry,
        receipt::verify_opening,
        record::{KINDS, KindSpec},
        scope::{Scope, TagKey},
        tree::{Hash, PROOF_HASHES_MAX},
    },
    rpc::{ClosedField, OpenField, Opening},
};
use data_encoding::{BASE64, HEXLOWER};
use prost::encoding::{WireType, decode_key, decode_varint};
use serde::{Deserialize, Serialize};

use super::{MirrorError, layout::io};
use crate::verify::scope::{RECORDS_MAX, TagKeys};

/// What the head says it is.
pub const FORMAT: &str = "anteroom-disclosure/v1";
/// Longest line in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// The last field of a record's header.
pub(super) const HEADER_LAST: u32 = 6;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) format: String,
    pub(super) log: String,
    pub(super) scope: String,
    pub(super) tag_key: String,
    pub(super) fields: Vec<String>,
    pub(super) records: u64,
    pub(super) checkpoint: String,
    /// How the log's keys handed over, if any did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) log_keys: Vec<String>,
}

/// A further line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) index: u64,
    pub(super) seq: u64,
    pub(super) kind: String,
    pub(super) open: Vec<OpenLine>,
    pub(super) closed: Vec<ClosedLine>,
    pub(super) path: Vec<String>,
}

/// An open field.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenLine {
    pub(super) field: String,
    pub(super) number: u32,
    pub(super) salt: String,
    pub(super) wire: String,
}

/// A closed one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClosedLine {
    pub(super) field: String,
    pub(super) number: u32,
    pub(super) commitment: String,
}

/// A field that a set discloses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Field {
    /// The record's index in the log.
    pub index: u64,
    /// Its position in the scope.
    pub seq: u64,
    /// When, by the broker's clock, in milliseconds since 1970.
    pub at_ms: i64,
    /// Its kind.
    pub kind: &'static str,
    /// The field's name.
    pub field: &'static str,
    /// Its value: text where it is text, a number, else hexadecimal; empty if the field is absent.
    pub value: String,
}

/// A verified set.
#[derive(Clone, Debug)]
#[must_use]
pub struct Disclosed {
    scope: Scope,
    tag_key: TagKey,
    checkpoint: VerifiedCheckpoint,
    records: u64,
    fields: Vec<Field>,
}

impl Disclosed {
    /// The scope.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The checkpoint that its records are proven under.
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// How many records it has: all of the scope's up to the last one shown. That no later one was left out is for a mirror to
    /// show: [`Disclosed::due`] must be nowhere in it.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The tag that the scope's next record would carry.
    #[must_use]
    pub fn due(&self) -> [u8; 16] {
        self.tag_key.tag(self.records)
    }

    /// What it discloses beside the headers, in the order of the log.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// Verifies the set in a file with nothing but whom to believe about the log.
///
/// # Errors
/// It does not hold; the error names the line.
pub fn verify(path: &Path, trust: &LogTrust, known: &TagKeys) -> Result<Disclosed, MirrorError> {
    let file = File::open(path).map_err(|why| io(path, why))?;
    let mut lines = Lines { path, reader: BufReader::new(file), number: 0 };
    let Some((_, head)) = lines.next::<Head>()? else { return Err(lines.wrong("it is empty")) };
    if head.format != FORMAT {
        return Err(lines.wrong("it is no set of this format"));
    }
    trust.learn_notes(&head.log_keys).map_err(|error| lines.wrong(&error.to_string()))?;
    if !head.log.parse().is_ok_and(|key| trust.knows(&key)) {
        return Err(MirrorError::OtherLog { path: path.to_owned(), pinned: Box::new(trust.log().clone()) });
    }
    let scope: Scope = head.scope.parse().map_err(|_| lines.wrong("its scope is none"))?;
    let key = HEXLOWER.decode(head.tag_key.as_bytes()).ok().and_then(|bytes| TagKey::from_slice(&bytes).ok());
    let tag_key = key.ok_or_else(|| lines.wrong("its tag key is none"))?;
    if known.of(&scope).is_ok_and(|held| *held != tag_key) {
        return Err(MirrorError::TagKey { path: path.to_owned() });
    }
    let named = chosen(&head.fields).map_err(|error| lines.wrong(&error.to_string()))?;
    let checkpoint = trust.open(head.checkpoint.as_bytes());
    let checkpoint = checkpoint.map_err(|why| MirrorError::Checkpoint { path: path.to_owned(), why })?;
    let (mut last, mut records, mut used) = ((0, Entry::NONE), 0, BTreeSet::new());
    let mut fields = Vec::new();
    while let Some((_, line)) = lines.next::<Line>()? {
        if records >= RECORDS_MAX as u64 {
            return Err(lines.wrong("it has more records than a set may have"));
        }
        let spec = KINDS.iter().find(|spec| spec.name == line.kind).ok_or_else(|| lines.wrong("an unknown kind"))?;
        let (opening, hashes) = read(&line, spec).map_err(|why| lines.wrong(why))?;
        let (opened, entry) = verify_opening(&opening, &hashes, &checkpoint, &tag_key)
            .map_err(|why| lines.wrong(&format!("record {} of the scope: {why}", line.seq)))?;
        let header = opened.header();
        let in_place = header.kind == spec.kind
            && header.seq == line.seq
            && header.seq == records
            && header.scope == scope.to_bytes()
            && header.prev == last.1.as_bytes()
            && (records == 0 || header.index > last.0);
        if !in_place {
            return Err(lines.wrong("the record does not follow the one before it"));
        }
        for field in opening.open.iter().filter(|field| field.number > HEADER_LAST) {
            if !named.contains(&(spec.kind, field.number)) {
                return Err(lines.wrong("a field is open that the head does not name"));
            }
            used.insert((spec.kind, field.number));
            let name = spec.fields.iter().find(|spec| spec.number == field.number).map_or("", |spec| spec.name);
            let (index, seq, at_ms) = (header.index, header.seq, header.at_ms);
            fields.push(Field { index, seq, at_ms, kind: spec.name, field: name, value: shown(&field.wire) });
        }
        last = (header.index, entry);
        records += 1;
    }
    if records != head.records {
        return Err(lines.wrong(&format!("the head says {} records, there are {records}", head.records)));
    }
    if used != named {
        return Err(lines.wrong("the head names a field that no record opens"));
    }
    Ok(Disclosed { scope, tag_key, checkpoint, records, fields })
}

/// The fields that names stand for, as kind and number.
pub(super) fn chosen(names: &[String]) -> Result<BTreeSet<(u32, u32)>, MirrorError> {
    let mut found = BTreeSet::new();
    for name in names {
        let field = name.split_once('.').and_then(|(kind, field)| {
            let spec = KINDS.iter().find(|spec| spec.name == kind)?;
            let field = spec.fields.iter().find(|spec| spec.name == field && spec.number > HEADER_LAST)?;
            Some((spec.kind, field.number))
        });
        let field = field.ok_or_else(|| no_field(name))?;
        if !found.insert(field) {
            return Err(MirrorError::Field(format!("`{name}` is named twice")));
        }
    }
    Ok(found)
}

fn no_field(name: &str) -> MirrorError {
    let kind = name.split_once('.').map_or(name, |(kind, _)| kind);
    let next = match KINDS.iter().find(|spec| spec.name == kind) {
        Some(spec) => {
            let own = spec.fields.iter().filter(|field| field.number > HEADER_LAST).map(|field| field.name);
            format!("`{kind}` has {}", own.collect::<Vec<_>>().join(", "))
        }
        None => format!("the kinds are {}", KINDS.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ")),
    };
    MirrorError::Field(format!("there is no field `{name}`: {next}"))
}

/// A line's opening and path; names must be those of the kind.
fn read(line: &Line, spec: &KindSpec) -> Result<(Opening, Vec<Hash>), &'static str> {
    let base64 = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| "a value is not base64");
    let name_of = |number: u32| spec.fields.iter().find(|field| field.number == number).map(|field| field.name);
    let mut opening = Opening { index: line.index, ..Opening::default() };
    for field in &line.open {
        if name_of(field.number) != Some(&field.field) {
            return Err("a field's name and number do not go together");
        }
        let (salt, wire) = (base64(&field.salt)?, base64(&field.wire)?);
        opening.open.push(OpenField { number: field.number, salt, wire });
    }
    for field in &line.closed {
        if name_of(field.number) != Some(&field.field) {
            return Err("a field's name and number do not go together");
        }
        opening.closed.push(ClosedField { number: field.number, commitment: base64(&field.commitment)? });
    }
    if line.path.len() > PROOF_HASHES_MAX {
        return Err("its path is longer than any tree is high");
    }
    let hashes =
        line.path.iter().map(|text| Hash::from_base64(text).map_err(|_| "its path holds something else than hashes"));
    Ok((opening, hashes.collect::<Result<_, _>>()?))
}

/// A field's value in words.
fn shown(wire: &[u8]) -> String {
    let mut rest = wire;
    let mut values = Vec::new();
    while let Ok((_, kind)) = decode_key(&mut rest) {
        let length = match kind {
            WireType::Varint => {
                values.extend(decode_varint(&mut rest).ok().map(|value| value.to_string()));
                continue;
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX)
            }
            WireType::StartGroup | WireType::EndGroup => break,
        };
        let Some((value, after)) = rest.split_at_checked(length) else { break };
        rest = after;
        let text = std::str::from_utf8(value).ok().filter(|text| !text.chars().any(char::is_control));
        values.push(text.map_or_else(|| HEXLOWER.encode(value), str::to_owned));
    }
    values.join(" ")
}

/// The lines of a set.
struct Lines<'p> {
    path: &'p Path,
    reader: BufReader<File>,
    number: u64,
}

impl Lines<'_> {
    /// The next line as it stands and what it says; `None` at the end.
    fn next<T: Serialize + for<'d> Deserialize<'d>>(&mut self) -> Result<Option<(String, T)>, MirrorError> {
        self.number += 1;
        let mut bytes = Vec::new();
        let taken = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        if taken.map_err(|why| io(self.path, why))? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8(bytes).map_err(|_| self.wrong("it is not UTF-8"))?;
        let Some(line) = text.strip_suffix('\n') else {
            return Err(self.wrong("it does not end, or is too long"));
        };
        let value: T = serde_json::from_str(line).map_err(|error| self.wrong(&error.to_string()))?;
        let spelled = serde_json::to_string(&value).map_err(|error| self.wrong(&error.to_string()))?;
        if spelled == line { Ok(Some((text, value))) } else { Err(self.wrong("it is not in its one spelling")) }
    }

    fn wrong(&self, why: &str) -> MirrorError {
        MirrorError::Line { path: self.path.to_owned(), line: self.number, why: why.to_owned() }
    }
}
