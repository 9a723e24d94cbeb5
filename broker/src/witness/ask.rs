//! What is posted to a witness, and what its answer says.

use anteroom_proto::ledger::{
    note::{Note, NoteSignature},
    tree::Hash,
};

/// Most signature lines that are read in an answer.
const LINES_MAX: usize = 16;

/// The body of an `add-checkpoint`.
pub(super) fn body(old: u64, proof: &[Hash], note: &Note) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        body.push_str(&hash.to_string());
        body.push('\n');
    }
    body.push('\n');
    body.push_str(&note.encode());
    body
}

/// What a witness said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200: cosignatures, unverified.
    Lines(Vec<NoteSignature>),
    /// 409: the size it cosigned last.
    Size(u64),
    /// 422: the proof does not hold for it.
    Refuted,
    /// Any other status.
    Other(u16),
}

impl Answer {
    /// Reads an answer; `None` if its body is not what goes with its status.
    pub(super) fn read(status: u16, body: &[u8]) -> Option<Self> {
        match status {
            200 => {
                let text = std::str::from_utf8(body).ok()?.strip_suffix('\n')?;
                let lines = text.split('\n').take(LINES_MAX).map(|line| NoteSignature::parse(line).ok());
                lines.collect::<Option<_>>().map(Self::Lines)
            }
            409 => {
                let text = std::str::from_utf8(body).ok()?.strip_suffix('\n')?;
                let size: u64 = text.parse().ok()?;
                (size.to_string() == text).then_some(Self::Size(size))
            }
            422 => Some(Self::Refuted),
            other => Some(Self::Other(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_request_is_written_as_the_specification_shows_it() {
        let note =
            "example.com/log\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} example.com/log AAAAAAA=\n";
        let hash = Hash::from_bytes([1; 32]);
        let body = body(2, &[hash, hash], &Note::parse(note.as_bytes()).unwrap());
        let line = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        assert_eq!(body, format!("old 2\n{line}\n{line}\n\n{note}"));
    }

    #[test]
    fn answers_are_read_by_their_status() {
        let line = "\u{2014} witness.example/w1 AAAAAAA=";
        let parsed = NoteSignature::parse(line).unwrap();
        let read = |status, body: &str| Answer::read(status, body.as_bytes());
        assert_eq!(read(200, &format!("{line}\n{line}\n")), Some(Answer::Lines(vec![parsed.clone(), parsed])));
        assert_eq!(read(409, "20852014\n"), Some(Answer::Size(20_852_014)));
        assert_eq!(read(422, "whatever"), Some(Answer::Refuted));
        assert_eq!(read(404, ""), Some(Answer::Other(404)));
        for (status, body) in
            [(200, ""), (200, line), (200, "ok\n"), (409, "7"), (409, "07\n"), (409, "\n"), (409, "x\n")]
        {
            assert_eq!(read(status, body), None, "{status} {body:?}");
        }
    }
}
