//! A row of the catalogue: what one call, one refusal or one other record comes to, in a fixed number of bytes.
//!
//! **Invariant:** a row is [`ROW_BYTES`] long whatever it says, so that the row of a number is found without reading others, and a
//! call's row can be completed in its place when the call ends.

use anteroom_proto::names::CallId;

use super::names::NameId;

/// Bytes of a row on disk.
pub(crate) const ROW_BYTES: usize = 160;
/// Bytes of a row that say something; the rest is kept for later.
const USED_BYTES: usize = 145;

/// What kind of row it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// An admitted call, with its end once there is one.
    Call,
    /// A refused call, or a count of refusals.
    Refusal,
    /// An act, a note of the broker's, or a read.
    Other,
}

/// A row as it stands on disk; names by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Raw {
    /// Index of the record; of a call, of its admission.
    pub(crate) index: u64,
    pub(crate) at: i64,
    /// Index of the call's newest later record; 0 if there is none.
    pub(crate) end_index: u64,
    pub(crate) end_at: i64,
    pub(crate) call: [u8; 16],
    /// Where the record begins in its slice's file.
    pub(crate) offset: u64,
    pub(crate) end_offset: u64,
    pub(crate) tokens: u64,
    pub(crate) events: u64,
    /// How many it stands for: more than one for counted refusals.
    pub(crate) count: u64,
    pub(crate) scope: NameId,
    pub(crate) grant: NameId,
    pub(crate) run: NameId,
    pub(crate) person: NameId,
    pub(crate) lab: NameId,
    pub(crate) agency: NameId,
    pub(crate) line: NameId,
    /// `open`, `completed`, or a code.
    pub(crate) outcome: NameId,
    /// Rules that decided, in one name with spaces.
    pub(crate) rules: NameId,
    pub(crate) marking: NameId,
    pub(crate) route: NameId,
    pub(crate) kind: NameId,
    pub(crate) features: u32,
    pub(crate) status: u32,
    pub(crate) group: Group,
}

impl Raw {
    pub(crate) const fn new(index: u64, at: i64, group: Group) -> Self {
        Self {
            index,
            at,
            end_index: 0,
            end_at: 0,
            call: [0; 16],
            offset: 0,
            end_offset: 0,
            tokens: 0,
            events: 0,
            count: 1,
            scope: 0,
            grant: 0,
            run: 0,
            person: 0,
            lab: 0,
            agency: 0,
            line: 0,
            outcome: 0,
            rules: 0,
            marking: 0,
            route: 0,
            kind: 0,
            features: 0,
            status: 0,
            group,
        }
    }

    pub(crate) fn call(&self) -> Option<CallId> {
        (self.call != [0; 16]).then(|| CallId::from_slice(&self.call).ok()).flatten()
    }

    /// The first column in which two rows differ.
    pub(crate) fn differs(&self, other: &Self) -> Option<&'static str> {
        let columns = [
            ("index", self.index != other.index),
            ("instant", self.at != other.at),
            ("end", (self.end_index, self.end_at) != (other.end_index, other.end_at)),
            ("call", self.call != other.call),
            ("place", (self.offset, self.end_offset) != (other.offset, other.end_offset)),
            ("tokens", self.tokens != other.tokens),
            ("events", self.events != other.events),
            ("count", self.count != other.count),
            ("scope", (self.scope, self.grant) != (other.scope, other.grant)),
            ("run", self.run != other.run),
            ("person", self.person != other.person),
            ("parties", (self.lab, self.agency, self.line) != (other.lab, other.agency, other.line)),
            ("outcome", self.outcome != other.outcome),
            ("rules", self.rules != other.rules),
            ("marking", self.marking != other.marking),
            ("route", self.route != other.route),
            ("kind", self.kind != other.kind),
            ("features", self.features != other.features),
            ("status", self.status != other.status),
            ("group", self.group != other.group),
        ];
        let column = columns.into_iter().find(|(_, differ)| *differ);
        // A column that comes later is not left out.
        column.map(|(name, _)| name).or((self != other).then_some("a column"))
    }

    pub(crate) fn encode(&self) -> [u8; ROW_BYTES] {
        let mut out = Vec::with_capacity(ROW_BYTES);
        for number in [self.index, self.at.cast_unsigned(), self.end_index, self.end_at.cast_unsigned()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.call);
        for number in [self.offset, self.end_offset, self.tokens, self.events, self.count] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [
            self.scope,
            self.grant,
            self.run,
            self.person,
            self.lab,
            self.agency,
            self.line,
            self.outcome,
            self.rules,
            self.marking,
            self.route,
            self.kind,
            self.features,
            self.status,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(match self.group {
            Group::Call => 0,
            Group::Refusal => 1,
            Group::Other => 2,
        });
        let mut row = [0; ROW_BYTES];
        if let Some(used) = row.get_mut(..out.len()) {
            used.copy_from_slice(&out);
        }
        row
    }

    /// `None` if these bytes are no row.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (used, rest) = bytes.split_at_checked(USED_BYTES)?;
        if rest.len() != ROW_BYTES - USED_BYTES {
            return None;
        }
        let mut at = Reader(used);
        Some(Self {
            index: at.long()?,
            at: at.long()?.cast_signed(),
            end_index: at.long()?,
            end_at: at.long()?.cast_signed(),
            call: at.take()?,
            offset: at.long()?,
            end_offset: at.long()?,
            tokens: at.long()?,
            events: at.long()?,
            count: at.long()?,
            scope: at.short()?,
            grant: at.short()?,
            run: at.short()?,
            person: at.short()?,
            lab: at.short()?,
            agency: at.short()?,
            line: at.short()?,
            outcome: at.short()?,
            rules: at.short()?,
            marking: at.short()?,
            route: at.short()?,
            kind: at.short()?,
            features: at.short()?,
            status: at.short()?,
            group: match at.take::<1>()? {
                [0] => Group::Call,
                [1] => Group::Refusal,
                [2] => Group::Other,
                _ => return None,
            },
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_at_checked(N)?;
        self.0 = rest;
        head.try_into().ok()
    }

    fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn short(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

/// What a call asked for, as names and bits.
pub(crate) const FEATURES: [(&str, u32); 11] = [
    ("streaming", 1),
    ("tools", 1 << 1),
    ("images", 1 << 2),
    ("logprobs", 1 << 3),
    ("logit_bias", 1 << 4),
    ("n", 1 << 5),
    ("seed", 1 << 6),
    ("prefill", 1 << 7),
    ("reasoning", 1 << 8),
    ("response_format", 1 << 9),
    ("named_fields", 1 << 10),
];

/// The names of the features whose bits are set.
pub(crate) fn features(bits: u32) -> Vec<&'static str> {
    FEATURES.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_it_was() {
        let mut row = Raw::new(7, -1, Group::Refusal);
        (row.call, row.count, row.status, row.kind, row.end_at) = ([9; 16], u64::MAX, 403, 12, i64::MIN);
        let bytes = row.encode();
        assert_eq!(Raw::decode(&bytes), Some(row));
        for short in 0..ROW_BYTES {
            assert_eq!(bytes.get(..short).and_then(Raw::decode), None);
        }
        let mut odd = bytes;
        odd[USED_BYTES - 1] = 3;
        assert_eq!(Raw::decode(&odd), None);
    }
}
