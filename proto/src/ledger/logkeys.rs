//! The log's keys, one after another: how the key that signs a log hands over to the next one within that log.
//!
//! A [`KeySuccession`] is a signed note by the old key and the new one over
//!
//! ```text
//! anteroom/log-key/v1
//! <origin>
//! <from, decimal>
//! <old vkey>
//! <new vkey>
//! ```
//!
//! `from` is the smallest size of a checkpoint that the new key has to sign. [`LogKeys`] are such notes in their order, as the file
//! `log.keys` holds them: with an empty line between one note and the next.
//!
//! **Invariant:** each link was signed by both of its keys, begins with the key that the link before ends with, and begins later than it;
//! no key comes twice. So whoever holds one of the keys for true may hold the whole chain for true, backwards (the newer key
//! vouched for the older one) as well as forwards. Everything here is a text's one spelling.

use super::{
    note::{Algorithm, KeyError, KeyName, Note, NoteError, NoteSigner, VerifierKey, VerifyError},
    text,
    tree::TREE_SIZE_MAX,
};

/// What the text of a succession begins with.
pub const SUCCESSION_WORD: &str = "anteroom/log-key/v1";
/// The most links of a chain.
pub const LOG_KEYS_MAX: usize = 64;
/// The most bytes of a chain in its file.
pub const LOG_KEYS_BYTES_MAX: usize = 128 << 10;

/// Why text is not a chain of keys, or a link does not follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogKeysError {
    /// More than [`LOG_KEYS_BYTES_MAX`] bytes or [`LOG_KEYS_MAX`] links.
    #[error("a chain of a log's keys has at most 64 links and 128 KiB")]
    Length,
    /// Nothing, or not notes with an empty line between them.
    #[error("a chain of a log's keys is signed notes with an empty line between them")]
    Notes,
    /// One of them is not a note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not the five lines of a succession.
    #[error("the text of a succession of keys is five lines: `{SUCCESSION_WORD}`, origin, size, old key, new key")]
    Text,
    /// A line is not a key.
    #[error("a succession of keys: {0}")]
    Key(#[from] KeyError),
    /// The keys are not two plain keys of the log that is named.
    #[error("a succession of keys names one log, and two keys of it that are not the same")]
    Keys,
    /// Not the line of the old key and then the line of the new one.
    #[error("a succession of keys is signed by its old key and then its new one, and by nobody else")]
    Signers,
    /// A signature fails.
    #[error("a succession of keys: {0}")]
    Verify(#[from] VerifyError),
    /// A link does not begin with the key that the one before ends with.
    #[error("the key `{found}` hands over, but the log's key is `{expected}` by then")]
    Order {
        /// Whose turn it is.
        expected: Box<VerifierKey>,
        /// Who hands over.
        found: Box<VerifierKey>,
    },
    /// A link does not begin later than the one before.
    #[error("a key begins with size {found}, not after the one before, which begins with {before}")]
    From {
        /// Where the one before begins.
        before: u64,
        /// Where this one does.
        found: u64,
    },
    /// A key comes twice.
    #[error("the key `{0}` comes twice: a key that was succeeded stays so")]
    Again(Box<VerifierKey>),
    /// Two chains of one log go different ways.
    #[error(
        "from size {from} on, the log's key is said to be `{ours}` and `{theirs}`: somebody signs a second history; ask the operator by another way"
    )]
    Forked {
        /// Where the succession that is known begins.
        from: u64,
        /// Who follows by what is known.
        ours: Box<VerifierKey>,
        /// Who follows by what is shown.
        theirs: Box<VerifierKey>,
    },
    /// Two chains that share no key.
    #[error("the chain of keys is another log's")]
    OtherLog,
}

/// One key that hands over to another, with both signatures verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySuccession {
    from: u64,
    old: VerifierKey,
    new: VerifierKey,
    note: Note,
}

impl KeySuccession {
    /// Hands over from one key to the other for checkpoints of size `from` and more.
    ///
    /// # Errors
    /// The keys are not two of one log, or `from` is no size.
    pub fn sign(from: u64, old: &NoteSigner, new: &NoteSigner) -> Result<Self, LogKeysError> {
        let (was, is) = (old.verifier(), new.verifier());
        let text = format!("{SUCCESSION_WORD}\n{}\n{from}\n{was}\n{is}\n", was.name());
        let lines = vec![old.sign(&text), new.sign(&text)];
        Self::verify(Note::new(text, lines)?)
    }

    /// Reads a note and verifies both signatures.
    ///
    /// # Errors
    /// See [`LogKeysError`].
    pub fn open(bytes: &[u8]) -> Result<Self, LogKeysError> {
        Self::verify(Note::parse(bytes)?)
    }

    fn verify(note: Note) -> Result<Self, LogKeysError> {
        let mut lines = note.text().split_terminator('\n');
        let mut line = || lines.next().ok_or(LogKeysError::Text);
        let (word, origin, from) = (line()?, line()?, line()?);
        let (old, new) = (VerifierKey::parse(line()?)?, VerifierKey::parse(line()?)?);
        // A checkpoint of size 0 commits to nothing, and the first key signed the record that names it.
        let from = text::decimal(from).filter(|from| (1..=TREE_SIZE_MAX).contains(from)).ok_or(LogKeysError::Text)?;
        if word != SUCCESSION_WORD || note.text() != format!("{word}\n{origin}\n{from}\n{old}\n{new}\n") {
            return Err(LogKeysError::Text);
        }
        let ours = |key: &VerifierKey| key.name().as_str() == origin && key.algorithm() == Algorithm::Ed25519;
        // Lines under a note are told apart by the id alone, so that is what must differ.
        if !ours(&old) || !ours(&new) || old.key_id() == new.key_id() {
            return Err(LogKeysError::Keys);
        }
        let [by_old, by_new] = note.signatures() else { return Err(LogKeysError::Signers) };
        if !old.made(by_old) || !new.made(by_new) {
            return Err(LogKeysError::Signers);
        }
        let _ = note.verify(&[old.clone(), new.clone()], &[])?;
        Ok(Self { from, old, new, note })
    }

    /// The smallest size of a checkpoint that the new key has to sign.
    pub const fn from(&self) -> u64 {
        self.from
    }

    /// The key that hands over.
    pub const fn old(&self) -> &VerifierKey {
        &self.old
    }

    /// The key that follows.
    pub const fn next(&self) -> &VerifierKey {
        &self.new
    }

    /// The signed note.
    pub const fn note(&self) -> &Note {
        &self.note
    }
}

/// A log's keys in their order: at least one hands over to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKeys {
    first: KeySuccession,
    rest: Vec<KeySuccession>,
}

impl LogKeys {
    /// The chain of one link.
    pub const fn of(first: KeySuccession) -> Self {
        Self { first, rest: Vec::new() }
    }

    /// The chain with one more link.
    ///
    /// # Errors
    /// It does not follow.
    pub fn then(mut self, next: KeySuccession) -> Result<Self, LogKeysError> {
        let last = self.last();
        if next.old != last.new {
            let (expected, found) = (Box::new(last.new.clone()), Box::new(next.old));
            return Err(LogKeysError::Order { expected, found });
        }
        if next.from <= last.from {
            return Err(LogKeysError::From { before: last.from, found: next.from });
        }
        if self.keys().any(|key| key.key_id() == next.new.key_id()) {
            return Err(LogKeysError::Again(Box::new(next.new)));
        }
        if self.rest.len() + 1 >= LOG_KEYS_MAX {
            return Err(LogKeysError::Length);
        }
        self.rest.push(next);
        Ok(self)
    }

    /// The chain of these notes, none of which was verified yet; nothing for none.
    ///
    /// # Errors
    /// One does not hold or does not follow.
    pub fn of_notes<N: AsRef<[u8]>>(notes: impl IntoIterator<Item = N>) -> Result<Option<Self>, LogKeysError> {
        let mut chain: Option<Self> = None;
        for note in notes {
            let next = KeySuccession::open(note.as_ref())?;
            chain = Some(match chain {
                None => Self::of(next),
                Some(chain) => chain.then(next)?,
            });
        }
        Ok(chain)
    }

    /// Reads a chain as its file holds it, and verifies it.
    ///
    /// # Errors
    /// See [`LogKeysError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LogKeysError> {
        if bytes.len() > LOG_KEYS_BYTES_MAX {
            return Err(LogKeysError::Length);
        }
        let all = std::str::from_utf8(bytes).map_err(|_| LogKeysError::Notes)?;
        let all = all.strip_suffix('\n').ok_or(LogKeysError::Notes)?;
        // Neither the text nor the lines under it hold an empty line, so texts and lines take turns.
        let parts: Vec<&str> = all.split("\n\n").collect();
        let (pairs, []) = parts.as_chunks::<2>() else { return Err(LogKeysError::Notes) };
        let notes = pairs.iter().map(|[text, lines]| format!("{text}\n\n{lines}\n"));
        Self::of_notes(notes)?.ok_or(LogKeysError::Notes)
    }

    /// The chain as its file holds it.
    pub fn encode(&self) -> String {
        self.notes().collect::<Vec<_>>().join("\n")
    }

    /// Each link's signed note, the first one first.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.links().map(|link| link.note.encode())
    }

    /// The links, the first one first.
    pub fn links(&self) -> impl Iterator<Item = &KeySuccession> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// Every key, the oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &VerifierKey> {
        std::iter::once(&self.first.old).chain(self.links().map(KeySuccession::next))
    }

    /// The last link.
    pub fn last(&self) -> &KeySuccession {
        self.rest.last().unwrap_or(&self.first)
    }

    /// The key that the log began with.
    pub const fn oldest(&self) -> &VerifierKey {
        &self.first.old
    }

    /// The key that signs now.
    pub fn newest(&self) -> &VerifierKey {
        &self.last().new
    }

    /// The log's name.
    pub const fn origin(&self) -> &KeyName {
        self.first.old.name()
    }

    /// Whether this key is one of them.
    pub fn contains(&self, key: &VerifierKey) -> bool {
        self.keys().any(|known| known == key)
    }

    /// The key that has to sign a checkpoint of this size.
    pub fn at(&self, size: u64) -> &VerifierKey {
        self.links().filter(|link| link.from <= size).last().map_or(&self.first.old, |link| &link.new)
    }

    /// The link by which this key handed over; none if it signs still, or is not one of them.
    pub fn after(&self, key: &VerifierKey) -> Option<&KeySuccession> {
        self.links().find(|link| link.old == *key)
    }

    /// Of two chains of one log the longer one, which has to go on from the other.
    ///
    /// # Errors
    /// [`LogKeysError::Forked`] or [`LogKeysError::OtherLog`].
    pub fn join(self, other: Self) -> Result<Self, LogKeysError> {
        if self.first.old != other.first.old {
            return Err(LogKeysError::OtherLog);
        }
        // Signatures need not be the same bytes to say the same.
        let apart = self.links().zip(other.links()).find(|(ours, theirs)| ours.note.text() != theirs.note.text());
        if let Some((ours, theirs)) = apart {
            let from = ours.from;
            let (ours, theirs) = (Box::new(ours.new.clone()), Box::new(theirs.new.clone()));
            return Err(LogKeysError::Forked { from, ours, theirs });
        }
        Ok(if other.rest.len() > self.rest.len() { other } else { self })
    }
}

#[cfg(test)]
mod tests;
