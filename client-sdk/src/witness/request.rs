//! A request of C2SP's `tlog-witness`, read one way only.

use anteroom_proto::ledger::{
    checkpoint::{Checkpoint, CheckpointError},
    note::{Note, NoteError},
    tree::Hash,
};

/// Largest request, in bytes: 63 proof lines and a checkpoint with all the signatures a note may have.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Most lines of a proof.
const PROOF_LINES_MAX: usize = 63;

/// Why bytes are no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More than [`REQUEST_BYTES_MAX`] bytes, or no text.
    #[error("a request is a text of at most 65536 bytes")]
    Text,
    /// The first line is not `old` and a size.
    #[error("the first line is `old`, a space and a size in plain decimal")]
    Old,
    /// A line of the proof is no hash.
    #[error("each line of the proof is the base64 of a hash")]
    Proof,
    /// More lines than a proof may have.
    #[error("a proof has at most 63 lines")]
    Length,
    /// Nothing separates the proof from the checkpoint.
    #[error("an empty line stands between the proof and the checkpoint")]
    Unseparated,
    /// The rest is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A request that was read; nothing in it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) old: u64,
    pub(super) proof: Vec<Hash>,
    pub(super) checkpoint: Checkpoint,
    pub(super) note: Note,
}

impl Request {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::Text);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| RequestError::Text)?;
        let (first, mut rest) = text.split_once('\n').ok_or(RequestError::Old)?;
        let old = first.strip_prefix("old ").and_then(decimal).ok_or(RequestError::Old)?;
        let mut proof = Vec::new();
        loop {
            let (line, after) = rest.split_once('\n').ok_or(RequestError::Unseparated)?;
            rest = after;
            if line.is_empty() {
                break;
            }
            if proof.len() == PROOF_LINES_MAX {
                return Err(RequestError::Length);
            }
            proof.push(Hash::from_base64(line).map_err(|_| RequestError::Proof)?);
        }
        let note = Note::parse(rest.as_bytes())?;
        let checkpoint = Checkpoint::parse(note.text())?;
        Ok(Self { old, proof, checkpoint, note })
    }
}

/// A size: digits only, no leading zero unless it is `0`.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    /// The request that C2SP's `tlog-witness` gives as its example.
    const PUBLISHED: &str = "old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
\u{2014} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
";

    #[test]
    fn the_published_example_is_read() {
        let request = Request::parse(PUBLISHED.as_bytes()).unwrap();
        assert_eq!((request.old, request.proof.len(), request.checkpoint.size()), (20_852_014, 4, 20_852_163));
        assert_eq!(request.checkpoint.origin().as_str(), "example.com/behind-the-sofa");
        assert_eq!(request.note.signatures().len(), 2);
    }

    #[test]
    fn malformed_requests_are_refused() {
        let check = |text: &str, error: RequestError| assert_eq!(Request::parse(text.as_bytes()), Err(error), "{text}");
        check("", RequestError::Old);
        for old in ["old", "old ", "old -1", "old +1", "old 01", "old 1 ", "Old 1", "old 18446744073709551616"] {
            check(&format!("{old}\n\n"), RequestError::Old);
        }
        check("old 1\n", RequestError::Unseparated);
        check("old 1\nno hash\n\n", RequestError::Proof);
        check("old 1\n\nno note", RequestError::Note(NoteError::Unseparated));
        let line = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
        check(&format!("old 1\n{}\n", line.repeat(64)), RequestError::Length);
        check(&format!("old 1\n{}\n", line.repeat(63)), RequestError::Note(NoteError::Unseparated));
        let extended = PUBLISHED.replace("xq2I=\n", "xq2I=\nan extension\n");
        check(&extended, RequestError::Checkpoint(CheckpointError::Lines));
        assert_eq!(Request::parse(&[b'o'; REQUEST_BYTES_MAX + 1]), Err(RequestError::Text));
        assert_eq!(Request::parse(b"old 1\n\xff"), Err(RequestError::Text));
    }
}
