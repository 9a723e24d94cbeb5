//! Scopes: who may read a record, and in which chain it stands.
//!
//! A scope's records form a chain of their own inside the one log: each names its position and the entry before it. The tag in
//! front of each public entry is keyed, so that only a reader of the scope can tell which entries are its own, and such a
//! reader can tell when one is withheld or two claim one place.

use ring::hmac;

use crate::names::{Digest, GrantId, NameError, OrgId};

/// Where a record belongs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// The log itself: its start, clocks, clock trust. Every party follows it.
    System,
    /// An organisation: key sets, models, locks, grants it is party to. Never destroyed.
    Organisation(OrgId),
    /// An agency's rosters. Destroyable.
    Roster(OrgId),
    /// What an organisation read. Destroyable, shown in no tail.
    Reads(OrgId),
    /// A grant and its calls. Destroyable once the grant is 24 hours over.
    Grant(GrantId),
}

impl Scope {
    /// Kind byte and identifier, as records carry it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, id): (u8, &[u8]) = match self {
            Self::System => (0, &[]),
            Self::Organisation(org) => (1, org.as_str().as_bytes()),
            Self::Roster(org) => (2, org.as_str().as_bytes()),
            Self::Reads(org) => (3, org.as_str().as_bytes()),
            Self::Grant(grant) => (4, grant.as_bytes()),
        };
        let mut out = Vec::with_capacity(1 + id.len());
        out.push(kind);
        out.extend_from_slice(id);
        out
    }

    /// Reads what [`Scope::to_bytes`] writes.
    ///
    /// # Errors
    /// The bytes are no scope.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ScopeError> {
        let (kind, id) = bytes.split_first().ok_or(ScopeError::Kind)?;
        let org = || OrgId::parse(&String::from_utf8_lossy(id)).map_err(ScopeError::Name);
        match kind {
            0 if id.is_empty() => Ok(Self::System),
            1 => Ok(Self::Organisation(org()?)),
            2 => Ok(Self::Roster(org()?)),
            3 => Ok(Self::Reads(org()?)),
            4 => Ok(Self::Grant(GrantId::from_slice(id).map_err(ScopeError::Name)?)),
            _ => Err(ScopeError::Kind),
        }
    }

    /// The key of this scope's tags: HMAC-SHA256(nonce, `anteroom/tag/v1` ‖ kind ‖ id). The nonce stands in the terms, in the
    /// enrolment statement, or in record 0.
    #[must_use]
    pub fn tag_key(&self, nonce: &Digest) -> TagKey {
        let mut message = b"anteroom/tag/v1".to_vec();
        message.extend_from_slice(&self.to_bytes());
        let mut out = [0; 32];
        let key = hmac::Key::new(hmac::HMAC_SHA256, nonce.as_bytes());
        out.copy_from_slice(hmac::sign(&key, &message).as_ref());
        TagKey(out)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Organisation(org) => write!(f, "org/{org}"),
            Self::Roster(org) => write!(f, "roster/{org}"),
            Self::Reads(org) => write!(f, "reads/{org}"),
            Self::Grant(grant) => write!(f, "{grant}"),
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text == "system" {
            return Ok(Self::System);
        }
        let org = |name| OrgId::parse(name).map_err(ScopeError::Name);
        match text.split_once('/') {
            Some(("org", name)) => Ok(Self::Organisation(org(name)?)),
            Some(("roster", name)) => Ok(Self::Roster(org(name)?)),
            Some(("reads", name)) => Ok(Self::Reads(org(name)?)),
            Some(_) => Err(ScopeError::Kind),
            None => Ok(Self::Grant(GrantId::parse(text).map_err(ScopeError::Name)?)),
        }
    }
}

impl serde::Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The bytes or text name no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// An unknown kind.
    #[error("there is no such kind of scope: `system`, `org/NAME`, `roster/NAME`, `reads/NAME` or a grant is expected")]
    Kind,
    /// The identifier is none.
    #[error("the scope's identifier is unusable: {0}")]
    Name(NameError),
}

/// Keys a scope's tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TagKey([u8; 32]);

impl TagKey {
    /// From bytes off the wire.
    ///
    /// # Errors
    /// There are not 32 of them.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, NameError> {
        bytes.try_into().map(Self).map_err(|_| NameError::Length(bytes.len()))
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The tag at position `seq`: the first 16 bytes of HMAC-SHA256(tag key, u64be seq).
    #[must_use]
    pub fn tag(&self, seq: u64) -> [u8; 16] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mac = hmac::sign(&key, &seq.to_be_bytes());
        let mut out = [0; 16];
        for (to, from) in out.iter_mut().zip(mac.as_ref()) {
            *to = *from;
        }
        out
    }
}
