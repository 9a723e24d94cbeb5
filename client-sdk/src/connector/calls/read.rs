//! The reading side of the list: every line held against the one before it, and every seal against a connector key.
//!
//! **Invariant:** a [`KeptList`] holds only lines that follow each other without a gap. How far a key vouches for them is said.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::Path,
};

use anteroom_proto::{
    names::{CallId, Digest, GrantId},
    rpc::SignedStatement,
    statement::{
        envelope::{self, verify_by},
        key::PublicKey,
    },
    time::At,
};
use prost::Message;

use super::{
    CallBegun, CallEnded, Line, ListError, ListSeal, What,
    book::{failed, path, segments},
};
use crate::store::segment::{FRAME_HEAD_BYTES, is_cut, payload_of};

/// What a list says of a call.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Kept {
    /// That it went to the model server; absent if that line is gone by age or was left out.
    pub begun: Option<CallBegun>,
    /// How it ended; absent while it is under way, or if the connector was killed meanwhile.
    pub ended: Option<CallEnded>,
}

/// A list as read.
#[derive(Clone, PartialEq, Debug)]
pub struct KeptList {
    /// `LINE by LAB`.
    pub of: String,
    /// When its first segment that is still there began.
    pub begins: At,
    /// Number of its first line; above 0 older segments are gone.
    pub first: u64,
    /// How many lines it has.
    pub lines: u64,
    /// How many lines about calls stand behind the last that a seal covers: no key vouches for those.
    pub unsealed: u64,
    /// Its calls.
    pub calls: BTreeMap<CallId, Kept>,
}

/// Follows lines.
#[derive(Debug, Default)]
pub(super) struct Walk {
    first: Option<u64>,
    last: Option<(u64, Digest)>,
}

impl Walk {
    /// The next line, which must follow the one before it.
    pub(super) fn take(&mut self, payload: &[u8]) -> Result<Line, ListError> {
        let due = self.last.map_or(0, |(number, _)| number + 1);
        let line = Line::decode(payload).map_err(|_| ListError::Line { number: due, why: "cannot be read" })?;
        let follows = match self.last {
            // Older segments may be gone; that line 0 has nothing before it can be told.
            None => line.number > 0 || line.previous == [0; 32],
            Some((_, digest)) => line.number == due && line.previous == digest.as_bytes(),
        };
        if !follows {
            return Err(ListError::Chain(line.number));
        }
        self.first.get_or_insert(line.number);
        self.last = Some((line.number, Digest::of(payload)));
        Ok(line)
    }

    /// The number of the line that is due, and the digest of the one before it.
    pub(super) fn stand(&self) -> Option<(u64, Digest)> {
        self.last.map(|(number, digest)| (number + 1, digest))
    }
}

/// Reads the list below a connector's folder; `None` if there is none. Seals must be by one of `keys`. With `only`, calls of other
/// grants are checked and left out. A connector may be writing meanwhile.
///
/// # Errors
/// It cannot be read, or was edited.
pub fn read(connector: &Path, keys: &[PublicKey], only: Option<GrantId>) -> Result<Option<KeptList>, ListError> {
    let dir = super::list_dir(connector);
    let segments = segments(&dir)?;
    let mut reading = Reading { keys, only, walk: Walk::default(), list: None, open: VecDeque::new() };
    for (place, segment) in segments.iter().enumerate() {
        let path = path(&dir, *segment);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // The connector removed the oldest one just now.
            Err(why) if why.kind() == io::ErrorKind::NotFound && place == 0 => continue,
            Err(why) => return Err(failed(&path, why)),
        };
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(payload) = payload_of(rest) else {
                // A line that is being written, or that a crash cut off.
                if place + 1 == segments.len() && is_cut(rest) {
                    break;
                }
                return Err(ListError::Damaged { path, at: at as u64 });
            };
            reading.take(payload)?;
            at += FRAME_HEAD_BYTES + payload.len();
        }
    }
    let Some(mut list) = reading.list else { return Ok(None) };
    list.unsealed = reading.open.iter().filter(|(_, _, call)| *call).count() as u64;
    Ok(Some(list))
}

struct Reading<'k> {
    keys: &'k [PublicKey],
    only: Option<GrantId>,
    walk: Walk,
    list: Option<KeptList>,
    /// Lines that no seal covers so far; whether they are about calls.
    open: VecDeque<(u64, Digest, bool)>,
}

impl Reading<'_> {
    fn take(&mut self, payload: &[u8]) -> Result<(), ListError> {
        let line = self.walk.take(payload)?;
        let number = line.number;
        let wrong = |why| ListError::Line { number, why };
        if let (None, Some(What::Head(head))) = (&self.list, &line.what) {
            self.list = Some(KeptList {
                of: format!("{} by {}", head.line, head.lab),
                begins: At::clamped(head.at_ms),
                first: number,
                lines: 0,
                unsealed: 0,
                calls: BTreeMap::new(),
            });
        }
        let list = self.list.as_mut().ok_or_else(|| wrong("comes before any head"))?;
        list.lines += 1;
        let about_call = matches!(line.what, Some(What::Begun(_) | What::Ended(_)));
        match line.what {
            Some(What::Head(head)) => {
                if format!("{} by {}", head.line, head.lab) != list.of {
                    return Err(wrong("begins another list"));
                }
            }
            Some(What::Begun(begun)) => {
                let kept = kept(list, self.only, &begun.call, &begun.grant).map_err(wrong)?;
                if kept.is_some_and(|kept| kept.begun.replace(begun).is_some()) {
                    return Err(wrong("begins a call a second time"));
                }
            }
            Some(What::Ended(ended)) => {
                let kept = kept(list, self.only, &ended.call, &ended.grant).map_err(wrong)?;
                if kept.is_some_and(|kept| kept.ended.replace(ended).is_some()) {
                    return Err(wrong("ends a call a second time"));
                }
            }
            Some(What::Seal(seal)) => {
                let of = list.of.clone();
                self.sealed(number, &of, &seal)?;
            }
            None => return Err(wrong("says nothing that is known")),
        }
        self.open.push_back((number, Digest::of(payload), about_call));
        Ok(())
    }

    fn sealed(&mut self, number: u64, of: &str, seal: &SignedStatement) -> Result<(), ListError> {
        let wrong = |why: &str| ListError::Seal { number, why: why.to_owned() };
        let claim: ListSeal = envelope::read_claim(seal).map_err(|error| (number, error))?;
        if !self.keys.iter().any(|key| verify_by(seal, key).is_ok()) {
            return Err(wrong("no connector key of this folder signed it"));
        }
        if format!("{} by {}", claim.line, claim.lab) != of {
            return Err(wrong("it is of another list"));
        }
        while let Some((covered, digest, _)) = self.open.pop_front() {
            if covered == claim.number {
                return if digest.as_bytes() == claim.head.as_slice() {
                    Ok(())
                } else {
                    Err(wrong("it was made over other lines: the list was edited"))
                };
            }
            if covered > claim.number {
                break;
            }
        }
        Err(wrong("the line that it covers last is not among those before it"))
    }
}

fn kept<'l>(
    list: &'l mut KeptList,
    only: Option<GrantId>,
    call: &[u8],
    grant: &[u8],
) -> Result<Option<&'l mut Kept>, &'static str> {
    let call = CallId::from_slice(call).map_err(|_| "names no call")?;
    let grant = GrantId::from_slice(grant).map_err(|_| "names no grant")?;
    if only.is_some_and(|only| only != grant) {
        return Ok(None);
    }
    Ok(Some(list.calls.entry(call).or_default()))
}
