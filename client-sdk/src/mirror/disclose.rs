//! Cutting a redacted set out of a mirrored slice.
//!
//! **Invariant:** the bytes and the salt of a field that was not chosen never reach the set; its commitment does.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use anteroom_proto::{
    ledger::{
        record::{Audience, KINDS, Record, Seed, commitment},
        scope::Scope,
    },
    rpc::{Opening, ReadReply},
};
use data_encoding::{BASE64, HEXLOWER};

use super::{
    Mirror, MirrorError,
    check::{Demands, log_only},
    layout::io,
    prove::standing,
    set::{ClosedLine, FORMAT, HEADER_LAST, Head, Line, OpenLine, chosen},
    slice::SliceReader,
    write::nodes,
};
use crate::verify::scope::SliceRecord;

/// What is disclosed.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Fields as `Kind.field`.
    pub fields: Vec<String>,
    /// Kinds of which every field is disclosed that this reader could open.
    pub kinds: Vec<String>,
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Records.
    pub records: u64,
    /// Fields opened beside the headers.
    pub fields: u64,
}

/// Writes the set of a mirrored scope to `out`, which must not be there yet.
///
/// # Errors
/// A chosen field does not exist or is closed to this reader, the slice does not hold, or the file cannot be written.
pub fn disclose(
    mirror: &Mirror,
    demands: &Demands,
    scope: &Scope,
    choice: &Choice,
    out: &Path,
) -> Result<Written, MirrorError> {
    let named = chosen(&choice.fields)?;
    let mut all = BTreeSet::new();
    for name in &choice.kinds {
        let spec = KINDS.iter().find(|spec| spec.name == name);
        all.insert(spec.ok_or_else(|| MirrorError::Field(format!("there is no kind `{name}` of record")))?.kind);
    }
    let checkpoint = mirror.checkpoint(&demands.trust)?;
    let size = checkpoint.checkpoint().size();
    let tag_key = mirror.tag_key(scope, &demands.known)?;
    let mut reader = SliceReader::open(mirror, scope, tag_key, &log_only(&demands.trust))?;
    // The head names what is really opened, so the records are cut first.
    let body_path = out.with_extension("part");
    let mut body = BufWriter::new(File::create_new(&body_path).map_err(|why| io(&body_path, why))?);
    let nodes = nodes(mirror, size);
    let mut used = BTreeSet::new();
    let mut written = Written { records: 0, fields: 0 };
    let mut cut = || {
        while let Some((record, reply)) = reader.next()? {
            if record.record.header().index >= size {
                break;
            }
            let mut line = redact(&record, &reply, &named, &all)?;
            let (_, path) = standing(mirror, &checkpoint, &nodes, line.index)?;
            line.path = path.iter().map(ToString::to_string).collect();
            let spec = record.record.opened().spec();
            let opened = line.open.iter().filter(|field| field.number > HEADER_LAST);
            for field in opened {
                used.insert(format!("{}.{}", spec.name, field.field));
                written.fields += 1;
            }
            written.records += 1;
            write(&mut body, &body_path, &line)?;
        }
        body.flush().map_err(|why| io(&body_path, why))
    };
    let result = cut().and_then(|()| {
        let head = Head {
            format: FORMAT.to_owned(),
            log: demands.trust.log().to_string(),
            scope: scope.to_string(),
            tag_key: HEXLOWER.encode(tag_key.as_bytes()),
            fields: used.iter().cloned().collect(),
            records: written.records,
            checkpoint: checkpoint.note().encode(),
            log_keys: demands.trust.keys().map(|keys| keys.notes().collect()).unwrap_or_default(),
        };
        let mut file = File::create_new(out).map_err(|why| io(out, why))?;
        write(&mut file, out, &head)?;
        let mut records = File::open(&body_path).map_err(|why| io(&body_path, why))?;
        std::io::copy(&mut records, &mut file).and_then(|_| file.sync_all()).map_err(|why| io(out, why))
    });
    fs::remove_file(&body_path).ok();
    result.map(|()| written)
}

fn write(file: &mut impl Write, path: &Path, line: &impl serde::Serialize) -> Result<(), MirrorError> {
    let mut text = serde_json::to_string(line).map_err(|why| MirrorError::Field(why.to_string()))?;
    text.push('\n');
    file.write_all(text.as_bytes()).map_err(|why| io(path, why))
}

/// A record with the chosen fields alone.
fn redact(
    record: &SliceRecord,
    reply: &ReadReply,
    named: &BTreeSet<(u32, u32)>,
    all: &BTreeSet<u32>,
) -> Result<Line, MirrorError> {
    let opened = record.record.opened();
    let (spec, header) = (opened.spec(), opened.header());
    let opening = widest(reply).unwrap_or_default();
    let mut line = Line {
        index: header.index,
        seq: header.seq,
        kind: spec.name.to_owned(),
        open: Vec::new(),
        closed: Vec::new(),
        path: Vec::new(),
    };
    for field in spec.fields {
        let (number, name) = (field.number, field.name.to_owned());
        let asked = named.contains(&(spec.kind, number));
        let wanted = number <= HEADER_LAST || asked || all.contains(&spec.kind);
        let open = opening.open.iter().find(|open| open.number == number);
        let closed = opening.closed.iter().find(|closed| closed.number == number);
        match (open, closed) {
            (Some(open), _) if wanted => {
                let (salt, wire) = (BASE64.encode(&open.salt), BASE64.encode(&open.wire));
                line.open.push(OpenLine { field: name, number, salt, wire });
            }
            (Some(open), _) => {
                let salt: Option<&[u8; 32]> = open.salt.as_slice().try_into().ok();
                let salt = salt.ok_or(MirrorError::Interrupted)?;
                let commitment = BASE64.encode(&commitment(salt, &open.wire));
                line.closed.push(ClosedLine { field: name, number, commitment });
            }
            (None, _) if asked => {
                return Err(MirrorError::Field(format!(
                    "`{}.{name}` is closed to this reader in record {} of the scope, so it cannot be disclosed from here",
                    spec.name, header.seq
                )));
            }
            (None, Some(closed)) => {
                let commitment = BASE64.encode(&closed.commitment);
                line.closed.push(ClosedLine { field: name, number, commitment });
            }
            (None, None) => return Err(MirrorError::Interrupted),
        }
    }
    Ok(line)
}

/// All that a reply opens: every field if the reader was given the seed.
fn widest(reply: &ReadReply) -> Option<Opening> {
    match (Seed::from_slice(&reply.seed), Record::parse(reply.full.clone())) {
        (Some(seed), Ok(full)) => Some(full.open(&seed, Audience::ALL)),
        (_, _) => reply.record.as_ref()?.opening.clone(),
    }
}
