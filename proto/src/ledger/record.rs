//! Records: lists of numbered fields with owners, committed to one by one.
//!
//! A record's digest is SHA-256(0x01 ‖ for each field number of its kind, ascending, present or not: u32be number ‖
//! commitment). A commitment is HMAC-SHA256(salt, the field's bytes on the wire with tag, empty if absent), its salt
//! HMAC-SHA256(seed, u32be number), and the 32-byte seed is the record's own. So a reader who may see some fields gets those
//! with their salts and the commitments of the others, and recomputes the same digest.
//!
//! **Invariant:** bytes that are not the canonical encoding of a known kind are no [`Record`].

use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint},
};
use ring::{digest, hmac};

use super::{
    leaf::Entry,
    scope::{Scope, TagKey},
};
use crate::{
    names::Digest,
    rpc::{ClosedField, OpenField, Opening, RecordHeader},
};

#[path = "registry.rs"]
mod registry;

pub use registry::KINDS;

/// Largest record in bytes.
pub const RECORD_BYTES_MAX: usize = 60 * 1024;

/// Who may open a field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// Everybody who may read the scope.
    Scope,
    /// Both parties named in the record.
    Parties,
    /// The lab.
    Lab,
    /// The agency.
    Agency,
    /// The caller and the caller's agency.
    Caller,
}

/// One field of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldSpec {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// Who may open it.
    pub owner: Owner,
}

/// One kind of record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KindSpec {
    /// Its number in field 1.
    pub kind: u32,
    /// The event message's name.
    pub name: &'static str,
    /// All fields, header first, ascending.
    pub fields: &'static [FieldSpec],
}

/// The kind of this number.
#[must_use]
pub fn kind(number: u32) -> Option<&'static KindSpec> {
    KINDS.iter().find(|spec| spec.kind == number)
}

/// Whose fields a reader may open beside the scope's public ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Audience {
    /// A party of the record.
    pub party: bool,
    /// The lab.
    pub lab: bool,
    /// The agency.
    pub agency: bool,
    /// The caller or the caller's agency.
    pub caller: bool,
}

impl Audience {
    /// A reader of the scope who is no party.
    pub const SCOPE: Self = Self { party: false, lab: false, agency: false, caller: false };
    /// The lab's side.
    pub const LAB: Self = Self { party: true, lab: true, agency: false, caller: false };
    /// The agency's side, which is also the callers'.
    pub const AGENCY: Self = Self { party: true, lab: false, agency: true, caller: true };
    /// A reader that both parties appointed, who gets the seed.
    pub const ALL: Self = Self { party: true, lab: true, agency: true, caller: true };

    /// Whether this reader may open a field of that owner.
    #[must_use]
    pub const fn may_open(self, owner: Owner) -> bool {
        match owner {
            Owner::Scope => true,
            Owner::Parties => self.party,
            Owner::Lab => self.lab,
            Owner::Agency => self.agency,
            Owner::Caller => self.caller,
        }
    }
}

/// Why bytes are no record, or an opening does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Too large.
    #[error("the record has {0} bytes, more than {RECORD_BYTES_MAX}")]
    Size(usize),
    /// Not protobuf fields in ascending order.
    #[error("the record's fields cannot be told apart")]
    Fields,
    /// An unknown kind.
    #[error("there is no kind `{0}` of record")]
    Kind(u32),
    /// A field that the kind does not have.
    #[error("kind `{kind}` has no field `{number}`")]
    Field {
        /// The kind's name.
        kind: &'static str,
        /// The field's number.
        number: u32,
    },
    /// Encoding what was decoded gives other bytes.
    #[error("the record's encoding is not canonical")]
    Canonical,
    /// The header cannot be meant.
    #[error("the record's header is unusable")]
    Header,
    /// An opening lacks a field or has one twice.
    #[error("the opening does not cover field `{0}` exactly once")]
    Coverage(u32),
    /// The opening names another index than the header.
    #[error("the opening claims index {claimed}, its header says {header}")]
    Index {
        /// What the opening claims.
        claimed: u64,
        /// What the header says.
        header: u64,
    },
    /// The event's fields break a rule of its kind.
    #[error("the event is unusable: {0}")]
    Event(&'static str),
}

/// A record's random seed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// From 32 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From bytes off the wire; `None` unless there are 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The salt of a field.
    #[must_use]
    pub fn salt(&self, number: u32) -> [u8; 32] {
        mac(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), &number.to_be_bytes())
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(withheld)")
    }
}

fn mac(key: &hmac::Key, message: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(key, message).as_ref());
    out
}

/// The commitment to a field's wire bytes.
#[must_use]
pub fn commitment(salt: &[u8; 32], wire: &[u8]) -> [u8; 32] {
    mac(&hmac::Key::new(hmac::HMAC_SHA256, salt), wire)
}

fn digest_of(commitments: impl IntoIterator<Item = (u32, [u8; 32])>) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[1]);
    for (number, commitment) in commitments {
        context.update(&number.to_be_bytes());
        context.update(&commitment);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Digest::from_bytes(out)
}

/// A record's bytes, split into the fields of its kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    spec: &'static KindSpec,
    header: RecordHeader,
    bytes: Vec<u8>,
    /// For each field of the kind, the end of its bytes; it starts where the one before ended.
    ends: Vec<usize>,
}

impl Record {
    /// Puts a record together from its header and its event's encoding.
    ///
    /// # Errors
    /// Too large, or the event is not of the header's kind.
    pub fn new(header: &RecordHeader, event: &impl Message) -> Result<Self, RecordError> {
        let mut bytes = Vec::with_capacity(header.encoded_len().saturating_add(event.encoded_len()));
        header.encode(&mut bytes).map_err(|_| RecordError::Header)?;
        event.encode(&mut bytes).map_err(|_| RecordError::Header)?;
        Self::parse(bytes)
    }

    /// Splits bytes into the fields of their kind. Whether the event's own encoding is canonical is known once it is decoded
    /// ([`Record::event`]).
    ///
    /// # Errors
    /// Too large, not ascending fields, an unknown kind, a field the kind lacks, or a header in another encoding.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::Size(bytes.len()));
        }
        let spans = split(&bytes)?;
        let header_end = spans.iter().filter(|(number, _)| *number < 16).map(|(_, end)| *end).max().unwrap_or(0);
        let head = bytes.get(..header_end).ok_or(RecordError::Fields)?;
        let header = RecordHeader::decode(head).map_err(|_| RecordError::Fields)?;
        if header.encode_to_vec() != head {
            return Err(RecordError::Canonical);
        }
        let spec = kind(header.kind).ok_or(RecordError::Kind(header.kind))?;
        let mut ends = Vec::with_capacity(spec.fields.len());
        let mut spans = spans.into_iter().peekable();
        let mut at = 0;
        for field in spec.fields {
            if let Some((_, end)) = spans.next_if(|(number, _)| *number == field.number) {
                at = end;
            }
            ends.push(at);
        }
        match spans.next() {
            Some((number, _)) => Err(RecordError::Field { kind: spec.name, number }),
            None => Ok(Self { spec, header, bytes, ends }),
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn spec(&self) -> &'static KindSpec {
        self.spec
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &RecordHeader {
        &self.header
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its scope.
    ///
    /// # Errors
    /// The header names none.
    pub fn scope(&self) -> Result<Scope, RecordError> {
        Scope::from_bytes(&self.header.scope).map_err(|_| RecordError::Header)
    }

    /// The entry before it in its scope.
    ///
    /// # Errors
    /// The header's is not 48 bytes.
    pub fn prev(&self) -> Result<Entry, RecordError> {
        Entry::from_slice(&self.header.prev).ok_or(RecordError::Header)
    }

    /// Decodes the event message, which must encode to the same bytes.
    ///
    /// # Errors
    /// It does not.
    pub fn event<E: Message + Default>(&self) -> Result<E, RecordError> {
        let tail = self.bytes.get(self.header.encoded_len()..).ok_or(RecordError::Fields)?;
        decode_exact(tail)
    }

    fn wires(&self) -> impl Iterator<Item = (&'static FieldSpec, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let spans = starts.zip(self.ends.iter().copied());
        self.spec
            .fields
            .iter()
            .zip(spans)
            .map(|(field, (start, end))| (field, self.bytes.get(start..end).unwrap_or(&[])))
    }

    /// Its digest under `seed`.
    #[must_use]
    pub fn digest(&self, seed: &Seed) -> Digest {
        let key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_bytes());
        digest_of(self.wires().map(|(f, wire)| (f.number, commitment(&mac(&key, &f.number.to_be_bytes()), wire))))
    }

    /// Its public entry.
    #[must_use]
    pub fn entry(&self, seed: &Seed, tag_key: &TagKey) -> Entry {
        Entry::new(tag_key.tag(self.header.seq), &self.digest(seed))
    }

    /// Opens it for `audience`.
    #[must_use]
    pub fn open(&self, seed: &Seed, audience: Audience) -> Opening {
        let mut opening = Opening { index: self.header.index, open: Vec::new(), closed: Vec::new() };
        let key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_bytes());
        for (field, wire) in self.wires() {
            let salt = mac(&key, &field.number.to_be_bytes());
            if audience.may_open(field.owner) {
                opening.open.push(OpenField { number: field.number, salt: salt.to_vec(), wire: wire.to_vec() });
            } else {
                opening.closed.push(ClosedField { number: field.number, commitment: commitment(&salt, wire).into() });
            }
        }
        opening
    }
}

/// Decodes a message that must encode to the same bytes.
fn decode_exact<E: Message + Default>(bytes: &[u8]) -> Result<E, RecordError> {
    let event = E::decode(bytes).map_err(|_| RecordError::Fields)?;
    if event.encode_to_vec() == bytes { Ok(event) } else { Err(RecordError::Canonical) }
}

/// Field numbers with the end of each field's bytes; repeated occurrences of one number count as one field.
fn split(bytes: &[u8]) -> Result<Vec<(u32, usize)>, RecordError> {
    let mut spans: Vec<(u32, usize)> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, wire) = decode_key(&mut rest).map_err(|_| RecordError::Fields)?;
        let skip = match wire {
            WireType::Varint => {
                decode_varint(&mut rest).map_err(|_| RecordError::Fields)?;
                0
            }
            WireType::LengthDelimited => {
                let len = decode_varint(&mut rest).map_err(|_| RecordError::Fields)?;
                usize::try_from(len).map_err(|_| RecordError::Fields)?
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => return Err(RecordError::Fields),
        };
        rest = rest.get(skip..).ok_or(RecordError::Fields)?;
        let end = bytes.len() - rest.len();
        match spans.last_mut() {
            Some((last, at)) if *last == number => *at = end,
            Some((last, _)) if *last > number => return Err(RecordError::Fields),
            Some(_) | None => spans.push((number, end)),
        }
    }
    Ok(spans)
}

/// An opening whose every field is accounted for, with the digest it leads to. Whether that digest stands in a log is for
/// [`super::receipt`] to show.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Opened {
    spec: &'static KindSpec,
    header: RecordHeader,
    digest: Digest,
    event: Vec<u8>,
    open: Vec<u32>,
}

impl Opened {
    /// Recomputes the digest of an opening.
    ///
    /// # Errors
    /// It is of no known kind, a field is missing or given twice, or the header is closed or unusable.
    pub fn check(opening: &Opening) -> Result<Self, RecordError> {
        let mut head = Vec::new();
        let mut event = Vec::new();
        let mut open = Vec::new();
        for field in &opening.open {
            let part = if field.number < 16 { &mut head } else { &mut event };
            // A field's bytes must carry that field's number alone, or one opening could be read as another field.
            let spans = split(&field.wire)?;
            if spans.iter().any(|(number, _)| *number != field.number) {
                return Err(RecordError::Fields);
            }
            part.extend_from_slice(&field.wire);
            open.push(field.number);
        }
        let header: RecordHeader = decode_exact(&head)?;
        let spec = kind(header.kind).ok_or(RecordError::Kind(header.kind))?;
        let mut opened = opening.open.iter().peekable();
        let mut closed = opening.closed.iter().peekable();
        let mut commitments = Vec::with_capacity(spec.fields.len());
        for field in spec.fields {
            let number = field.number;
            let fixed = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| RecordError::Coverage(number));
            let commitment = if let Some(open) = opened.next_if(|open| open.number == number) {
                commitment(&fixed(&open.salt)?, &open.wire)
            } else if let Some(closed) = closed.next_if(|closed| closed.number == number) {
                fixed(&closed.commitment)?
            } else {
                return Err(RecordError::Coverage(number));
            };
            commitments.push((number, commitment));
        }
        let left = opened.next().map(|open| open.number).or_else(|| closed.next().map(|closed| closed.number));
        if let Some(number) = left {
            return Err(RecordError::Coverage(number));
        }
        if (1..16).any(|number| spec.fields.iter().any(|field| field.number == number) && !open.contains(&number)) {
            return Err(RecordError::Header);
        }
        if opening.index != header.index {
            return Err(RecordError::Index { claimed: opening.index, header: header.index });
        }
        Ok(Self { spec, header, digest: digest_of(commitments), event, open })
    }

    /// Its kind.
    #[must_use]
    pub const fn spec(&self) -> &'static KindSpec {
        self.spec
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &RecordHeader {
        &self.header
    }

    /// Its scope.
    ///
    /// # Errors
    /// The header names none.
    pub fn scope(&self) -> Result<Scope, RecordError> {
        Scope::from_bytes(&self.header.scope).map_err(|_| RecordError::Header)
    }

    /// The entry that it must stand in the log with.
    #[must_use]
    pub fn entry(&self, tag_key: &TagKey) -> Entry {
        Entry::new(tag_key.tag(self.header.seq), &self.digest)
    }

    /// The opened fields of its event; closed ones read as absent.
    ///
    /// # Errors
    /// They are not the canonical encoding of `E`.
    pub fn event<E: Message + Default>(&self) -> Result<E, RecordError> {
        decode_exact(&self.event)
    }

    /// Whether a field was opened.
    #[must_use]
    pub fn is_open(&self, number: u32) -> bool {
        self.open.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]
    use super::*;
    use crate::rpc::{CallAdmitted, GrantWithdrawn};

    fn sample() -> (Record, Seed, TagKey) {
        let scope = Scope::Grant(crate::names::GrantId::from_bytes([9; 16]));
        let header =
            RecordHeader { kind: 40, index: 7, at_ms: 1_000, scope: scope.to_bytes(), seq: 3, prev: vec![5; 48] };
        let event = CallAdmitted {
            call: vec![1; 16],
            pseudonym: "p-1".into(),
            run: "run-a".into(),
            body_key: vec![2; 32],
            reasons: vec!["base/grant".into(), "base/tools".into()],
            hold_tokens: 4_096,
            end_ms: 99,
            ..CallAdmitted::default()
        };
        let key = scope.tag_key(&Digest::of(b"nonce"));
        (Record::new(&header, &event).unwrap(), Seed::from_bytes([3; 32]), key)
    }

    #[test]
    fn every_audience_recomputes_the_same_entry() {
        let (record, seed, key) = sample();
        for audience in [Audience::SCOPE, Audience::LAB, Audience::AGENCY, Audience::ALL] {
            let opened = Opened::check(&record.open(&seed, audience)).unwrap();
            assert_eq!(opened.entry(&key), record.entry(&seed, &key));
            assert_eq!(opened.is_open(21), audience.caller);
        }
        let lab: CallAdmitted = Opened::check(&record.open(&seed, Audience::LAB)).unwrap().event().unwrap();
        assert_eq!((lab.run.as_str(), lab.body_key.len()), ("run-a", 0));
    }

    #[test]
    fn an_altered_opening_leads_to_another_entry_or_none() {
        let (record, seed, key) = sample();
        let opening = record.open(&seed, Audience::LAB);
        let bytes = opening.encode_to_vec();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let Ok(read) = Opening::decode(altered.as_slice()) else { continue };
            if read == opening {
                continue;
            }
            if let Ok(opened) = Opened::check(&read) {
                assert_ne!(opened.entry(&key), record.entry(&seed, &key), "byte {at}");
            }
        }
    }

    #[test]
    fn bytes_that_are_not_canonical_are_no_record() {
        let (record, ..) = sample();
        let mut twice = record.bytes().to_vec();
        twice.extend_from_slice(record.bytes());
        assert!(Record::parse(twice).is_err());
        let mut foreign = record.bytes().to_vec();
        foreign.extend_from_slice(&[0xf8, 0x07, 1]);
        assert_eq!(Record::parse(foreign), Err(RecordError::Field { kind: "CallAdmitted", number: 127 }));
        let other: Result<GrantWithdrawn, _> = record.event();
        assert!(other.is_err());
        assert_eq!(Record::parse(vec![0x08, 0x63]), Err(RecordError::Kind(99)));
    }

    #[test]
    fn the_digest_is_the_documented_one() {
        let (record, seed, key) = sample();
        // Computed apart from this code, with Python's `hmac` and `hashlib`.
        expect_test::expect!["7a238cf1f25f44fa92abb89faf3e3b0e528d0387d67dec77b6451c4b1f98eefb"]
            .assert_eq(&record.digest(&seed).to_string());
        expect_test::expect![
            "ea2224ba545e1bc76f6efcb6d25b9ef37a238cf1f25f44fa92abb89faf3e3b0e528d0387d67dec77b6451c4b1f98eefb"
        ]
        .assert_eq(&format!("{:?}", record.entry(&seed, &key)));
    }
}
