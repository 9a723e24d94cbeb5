//! A witness's answers to `add-checkpoint`, without a socket: C2SP's `tlog-witness`.
//!
//! **Invariant:** a reply with status 200 exists only after [`Keeper::add`] returned the time that its cosignature carries.

use std::collections::BTreeMap;

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, TrustError, cosign_with},
        logkeys::LogKeys,
        note::{Algorithm, KeyName, VerifierKey},
    },
    statement::{envelope::Signer as _, key::Algorithm as KeyAlgorithm},
};

use super::{
    keeper::{AddError, Keeper},
    request::Request,
};
use crate::signer::SharedSigner;

/// Most logs of one witness.
pub const LOGS_MAX: usize = 1_024;

/// Why a witness cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// Its key is of another algorithm.
    #[error("a witness's key is Ed25519, this one is {0:?}")]
    Algorithm(KeyAlgorithm),
    /// A log's key cannot be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Two keys for one log.
    #[error("`{0}` is listed twice; a log has one key here")]
    Twice(KeyName),
    /// No key of such a log.
    #[error("`{0}` is not a log that this witness knows")]
    Unknown(KeyName),
    /// Too many logs.
    #[error("{0} logs are listed, more than {LOGS_MAX}")]
    Logs(usize),
}

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const SIZE: &str = "text/x.tlog.size";

impl Reply {
    /// A status with a sentence.
    pub(super) fn told(status: u16, what: impl std::fmt::Display) -> Self {
        Self { status, content_type: TEXT, body: format!("{what}\n") }
    }

    fn size(size: u64) -> Self {
        Self { status: 409, content_type: SIZE, body: format!("{size}\n") }
    }
}

/// A witness: a key, the logs it knows, and its memory.
#[derive(Debug)]
pub struct Desk {
    key: VerifierKey,
    signer: SharedSigner,
    keeper: Keeper,
    logs: BTreeMap<KeyName, LogTrust>,
}

impl Desk {
    /// A witness named `name` for the logs of these keys.
    ///
    /// # Errors
    /// The key is not Ed25519, or the logs' keys are unusable.
    pub fn new(name: KeyName, signer: SharedSigner, keeper: Keeper, logs: Vec<VerifierKey>) -> Result<Self, DeskError> {
        let key = verifier(name, &signer)?;
        if logs.len() > LOGS_MAX {
            return Err(DeskError::Logs(logs.len()));
        }
        let mut known = BTreeMap::new();
        for log in logs {
            let name = log.name().clone();
            if known.insert(name.clone(), LogTrust::log_only(log)?).is_some() {
                return Err(DeskError::Twice(name));
            }
        }
        Ok(Self { key, signer, keeper, logs: known })
    }

    /// The key that verifies its cosignatures.
    #[must_use]
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Has it follow how the key of a log it knows handed over.
    ///
    /// # Errors
    /// It knows no such log, or the chain is not of the key that it knows.
    pub fn follow(&mut self, chain: LogKeys) -> Result<(), DeskError> {
        let log = self.logs.get(chain.origin()).ok_or_else(|| DeskError::Unknown(chain.origin().clone()))?;
        log.learn(chain)?;
        Ok(())
    }

    /// The logs it knows.
    pub fn logs(&self) -> impl Iterator<Item = &KeyName> {
        self.logs.keys()
    }

    /// Answers the body of an `add-checkpoint` at `now`, in seconds since 1970. It waits for the disk and the signer.
    #[must_use]
    pub fn add_checkpoint(&self, body: &[u8], now: u64) -> Reply {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(error) => return Reply::told(400, error),
        };
        let origin = request.checkpoint.origin();
        let Some(trust) = self.logs.get(origin) else {
            return Reply::told(404, format_args!("`{origin}` is not a log that this witness knows"));
        };
        let verified = match trust.verify(request.note) {
            Ok(verified) => verified,
            Err(error) => return Reply::told(403, error),
        };
        let time = match self.keeper.add(&verified, request.old, &request.proof, now) {
            Ok(time) => time,
            Err(error @ AddError::Backwards { .. }) => return Reply::told(400, error),
            Err(AddError::Stale(size)) => return Reply::size(size),
            Err(error @ AddError::Forked(size)) => {
                evidence(origin, &error, verified.note().encode());
                return Reply::size(size);
            }
            Err(error @ AddError::Proof(_)) => {
                evidence(origin, &error, verified.note().encode());
                return Reply::told(422, error);
            }
            Err(AddError::State(error)) => {
                tracing::error!(%error, "nothing can be remembered, so nothing is cosigned");
                return Reply::told(500, "nothing can be remembered, so nothing is cosigned");
            }
        };
        match cosign_with(&self.key, &verified, time, |message| self.signer.sign(message).ok()) {
            Some(line) => Reply { status: 200, content_type: TEXT, body: format!("{line}\n") },
            None => {
                tracing::error!("the witness's key cannot sign");
                Reply::told(500, "the witness's key cannot sign")
            }
        }
    }
}

/// Signed by the log, and not in line with what it showed before: worth keeping, whoever sent it.
fn evidence(log: &KeyName, error: &AddError, note: String) {
    tracing::error!(%log, %error, note, "a signed checkpoint does not extend the one cosigned last");
}

/// The verifier key of a witness.
///
/// # Errors
/// Its key is not Ed25519.
pub fn verifier(name: KeyName, signer: &SharedSigner) -> Result<VerifierKey, DeskError> {
    let public = signer.public_key();
    let unusable = DeskError::Algorithm(public.algorithm());
    if public.algorithm() != KeyAlgorithm::Ed25519 {
        return Err(unusable);
    }
    let bytes = public.bytes().try_into().map_err(|_| unusable)?;
    Ok(VerifierKey::new(name, Algorithm::CosignatureV1, bytes))
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::ledger::note::{Note, NoteSignature};

    use super::super::keeper::tests::Log;
    use super::*;
    use crate::signer::KeyFile;

    pub(crate) fn desk(log: &Log) -> (tempfile::TempDir, Desk) {
        let dir = tempfile::tempdir().unwrap();
        Keeper::create(dir.path()).unwrap();
        let desk = reopened(dir.path(), log);
        (dir, desk)
    }

    pub(crate) fn reopened(dir: &std::path::Path, log: &Log) -> Desk {
        let signer = SharedSigner::new(KeyFile::from_seed(&[7; 32]).unwrap());
        let name = KeyName::parse("witness.example/w1").unwrap();
        Desk::new(name, signer, Keeper::open(dir).unwrap(), vec![log.signer.verifier().clone()]).unwrap()
    }

    pub(crate) fn body(log: &Log, old: u64, new: u64) -> String {
        with_proof(log, old, new, &if old <= new { log.proof(old, new) } else { Vec::new() })
    }

    fn with_proof(log: &Log, old: u64, new: u64, proof: &[anteroom_proto::ledger::tree::Hash]) -> String {
        let proof: String = proof.iter().map(|hash| format!("{hash}\n")).collect();
        format!("old {old}\n{proof}\n{}", log.note(new))
    }

    /// The times at which the key cosigned `size`, by the lines of a reply.
    pub(crate) fn cosigned(desk: &Desk, log: &Log, size: u64, reply: &str) -> Option<u64> {
        let mut note = Note::parse(log.note(size).as_bytes()).unwrap();
        for line in reply.lines() {
            note.add(NoteSignature::parse(line).unwrap()).unwrap();
        }
        let trust = LogTrust::new(log.signer.verifier().clone(), vec![desk.key().clone()], 1).unwrap();
        trust.verify(note).unwrap().cosigners().first().unwrap().time()
    }

    #[test]
    fn a_log_that_grows_is_cosigned_and_its_lines_hold() {
        let log = Log::new("log.example/one", "a");
        let (_dir, desk) = desk(&log);
        for (old, new) in [(0, 3), (3, 7), (7, 7), (7, 100)] {
            let reply = desk.add_checkpoint(body(&log, old, new).as_bytes(), 1_000 + new);
            assert_eq!((reply.status, reply.content_type), (200, TEXT), "{reply:?}");
            assert_eq!(cosigned(&desk, &log, new, &reply.body), Some(1_000 + new));
        }
    }

    #[test]
    fn each_refusal_has_the_status_that_the_specification_gives_it() {
        let log = Log::new("log.example/one", "a");
        let (_dir, desk) = desk(&log);
        assert_eq!(desk.add_checkpoint(body(&log, 0, 7).as_bytes(), 1).status, 200);
        let fork = Log::new("log.example/one", "b");
        let stranger = Log::new("log.example/two", "a");
        let status = |body: &str| desk.add_checkpoint(body.as_bytes(), 1).status;
        assert_eq!(status("old x\n\n"), 400, "malformed");
        assert_eq!(status(&body(&log, 8, 7)), 400, "old above the checkpoint's size");
        assert_eq!(status(&body(&stranger, 0, 7)), 404, "unknown origin");
        assert_eq!(status(&body(&log.forged(), 7, 9)), 403, "no signature of the log's key");
        let altered = format!("old 7\n\n{}", log.note(9).replace("\n9\n", "\n8\n"));
        assert_eq!(status(&altered), 403, "a signature that fails");
        assert_eq!(status(&with_proof(&log, 7, 9, &log.proof(6, 9))), 422, "another proof");
        assert_eq!(status(&with_proof(&log, 7, 9, &[])), 422, "no proof");
        assert_eq!(status(&with_proof(&log, 7, 7, &log.proof(6, 9))), 422, "a proof where none belongs");
        assert_eq!(status(&body(&fork, 7, 12)), 422, "another history");
        for (what, body) in [
            ("an old size", body(&log, 3, 9)),
            ("none", body(&log, 0, 9)),
            ("a later one", body(&log, 9, 12)),
            ("another root at the same size", body(&fork, 7, 7)),
        ] {
            let reply = desk.add_checkpoint(body.as_bytes(), 1);
            let expected = Reply { status: 409, content_type: "text/x.tlog.size", body: "7\n".to_owned() };
            assert_eq!(reply, expected, "{what}");
        }
        assert_eq!(status(&body(&log, 7, 9)), 200, "none of that changed anything");
    }

    #[test]
    fn a_proof_from_nothing_must_be_empty() {
        let log = Log::new("log.example/one", "a");
        let (_dir, desk) = desk(&log);
        let body = with_proof(&log, 0, 7, &log.proof(3, 7));
        assert_eq!(desk.add_checkpoint(body.as_bytes(), 1).status, 422);
    }

    #[test]
    fn of_two_that_extend_one_size_at_once_one_wins() {
        let log = Log::new("log.example/one", "a");
        let (_dir, desk) = desk(&log);
        assert_eq!(desk.add_checkpoint(body(&log, 0, 7).as_bytes(), 1).status, 200);
        let mut statuses: Vec<u16> = std::thread::scope(|scope| {
            let (desk, log) = (&desk, &log);
            let ask = |new| scope.spawn(move || desk.add_checkpoint(body(log, 7, new).as_bytes(), 2).status);
            let asked = [8, 9, 10, 11, 12, 13, 14, 15].map(ask);
            asked.map(|thread| thread.join().unwrap()).into()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    }

    #[test]
    fn one_log_has_one_key() {
        let log = Log::new("log.example/one", "a");
        let dir = tempfile::tempdir().unwrap();
        Keeper::create(dir.path()).unwrap();
        let signer = SharedSigner::new(KeyFile::from_seed(&[7; 32]).unwrap());
        let key = log.signer.verifier().clone();
        let name = KeyName::parse("w").unwrap();
        let twice = Desk::new(name.clone(), signer.clone(), Keeper::open(dir.path()).unwrap(), vec![key.clone(), key]);
        assert!(matches!(twice, Err(DeskError::Twice(_))));
    }
}
