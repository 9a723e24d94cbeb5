//! A command that signs: the way to cards and hardware modules, whatever tool reaches them.
//!
//! The command gets the message on its standard input and writes the signature to its standard output: raw, or for ECDSA also
//! in DER as OpenSSL writes it. What is signed is the whole message, so the tool has to hash it.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anteroom_proto::statement::{
    envelope::{Signer, SignerError},
    key::{Algorithm, PublicKey},
};

/// Most bytes of output that are taken for a signature.
pub const SIGNATURE_BYTES_MAX: usize = 1024;
/// How long a command may take if nothing else is said: long enough to type a card's PIN.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a command gave no signature.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("`{program}` could not be started: {why}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        why: io::Error,
    },
    /// It was still running after its time, and was ended.
    #[error("`{0}` took too long")]
    Timeout(String),
    /// It failed.
    #[error("`{0}` failed")]
    Failed(String),
    /// It wrote more than [`SIGNATURE_BYTES_MAX`] bytes.
    #[error("`{0}` wrote more than a signature")]
    Size(String),
    /// What it wrote is not a signature by the expected key.
    #[error("what `{0}` wrote is no signature by the expected key")]
    Signature(String),
}

/// A signer that runs a command for each signature.
#[derive(Clone, Debug)]
pub struct CommandSigner {
    public: PublicKey,
    program: OsString,
    arguments: Vec<OsString>,
    timeout: Duration,
}

impl CommandSigner {
    /// The signer of `public` whose signatures `program` makes when run with `arguments`.
    #[must_use]
    pub fn new(public: PublicKey, program: OsString, arguments: Vec<OsString>) -> Self {
        Self { public, program, arguments, timeout: COMMAND_TIMEOUT }
    }

    /// With another bound on how long the command may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn name(&self) -> String {
        self.program.to_string_lossy().chars().take(80).collect()
    }

    fn run(&self, message: &[u8]) -> Result<Vec<u8>, CommandError> {
        let started =
            Command::new(&self.program).args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.map_err(|why| CommandError::Start { program: self.name(), why })?;
        let output = self.exchange(&mut child, message);
        if output.is_err() {
            // It may have ended by itself; either way nothing is left behind.
            child.kill().ok();
        }
        let ended = child.wait();
        let output = output?;
        match ended {
            Ok(status) if status.success() => Ok(output),
            Ok(_) | Err(_) => Err(CommandError::Failed(self.name())),
        }
    }

    fn exchange(&self, child: &mut Child, message: &[u8]) -> Result<Vec<u8>, CommandError> {
        let failed = || CommandError::Failed(self.name());
        let mut stdin = child.stdin.take().ok_or_else(failed)?;
        let stdout = child.stdout.take().ok_or_else(failed)?;
        let message = message.to_vec();
        // A command that does not read must not hold this thread up; its pipe breaks when it is ended.
        thread::spawn(move || stdin.write_all(&message));
        let (send, receive) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut output = Vec::new();
            let read = stdout.take(SIGNATURE_BYTES_MAX as u64 + 1).read_to_end(&mut output);
            send.send(read.map(|_| output))
        });
        match receive.recv_timeout(self.timeout) {
            Ok(Ok(output)) if output.len() > SIGNATURE_BYTES_MAX => Err(CommandError::Size(self.name())),
            Ok(Ok(output)) => Ok(output),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(failed()),
            Err(RecvTimeoutError::Timeout) => Err(CommandError::Timeout(self.name())),
        }
    }
}

impl Signer for CommandSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let output = self.run(message).map_err(|error| SignerError(error.to_string()))?;
        let coordinate = match self.public.algorithm() {
            Algorithm::EcdsaP256Sha256 => Some(32),
            Algorithm::EcdsaP384Sha384 => Some(48),
            Algorithm::Ed25519 | Algorithm::RsaPss3072Sha256 => None,
        };
        let converted = coordinate.and_then(|bytes| fixed_from_der(&output, bytes));
        for signature in [Some(output), converted].into_iter().flatten() {
            if self.public.holds(message, &signature) {
                return Ok(signature);
            }
        }
        Err(SignerError(CommandError::Signature(self.name()).to_string()))
    }
}

/// Turns an ECDSA signature in DER, SEQUENCE { INTEGER r, INTEGER s }, into r‖s of `bytes` bytes each.
fn fixed_from_der(der: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let (body, rest) = element(0x30, der)?;
    let (r, body) = element(0x02, body)?;
    let (s, body) = element(0x02, body)?;
    if !rest.is_empty() || !body.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(2 * bytes);
    for number in [r, s] {
        let first = number.iter().position(|byte| *byte != 0)?;
        let number = number.get(first..)?;
        out.resize(out.len() + bytes.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
    }
    Some(out)
}

/// The contents of a DER element with this tag and a length below 128, and what follows it. No P-384 signature is longer.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *found == tag && *length < 128 { rest.split_at_checked(usize::from(*length)) } else { None }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::super::KeyFile;
    use super::*;

    fn shell(script: &str) -> CommandSigner {
        let key = KeyFile::from_seed(&[1; 32]).unwrap();
        let arguments = vec!["-c".into(), script.into()];
        CommandSigner::new(key.public_key().clone(), "/bin/sh".into(), arguments)
    }

    fn refusal(signer: &CommandSigner) -> String {
        signer.sign(b"message").unwrap_err().to_string()
    }

    #[test]
    fn the_commands_signature_is_returned_once_it_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyFile::from_seed(&[1; 32]).unwrap();
        let kept = folder.path().join("signature");
        std::fs::write(&kept, key.sign(b"message").unwrap()).unwrap();
        let signer = shell(&format!("cat >/dev/null; cat {}", kept.display()));
        assert_eq!(signer.sign(b"message").unwrap().len(), 64);
        assert_eq!(
            signer.sign(b"another").unwrap_err().to_string(),
            "the signer failed: what `/bin/sh` wrote is no signature by the expected key"
        );
    }

    #[test]
    fn a_command_that_fails_writes_too_much_or_hangs_is_ended() {
        assert_eq!(refusal(&shell("exit 3")), "the signer failed: `/bin/sh` failed");
        assert_eq!(refusal(&shell("cat /dev/zero")), "the signer failed: `/bin/sh` wrote more than a signature");
        let hung = shell("exec sleep 600").with_timeout(Duration::from_millis(20));
        assert_eq!(refusal(&hung), "the signer failed: `/bin/sh` took too long");
    }

    #[test]
    fn a_message_larger_than_a_pipe_reaches_a_command_that_does_not_read() {
        let refused = shell("exit 0").sign(&vec![0; 1 << 20]).unwrap_err();
        assert!(refused.to_string().ends_with("by the expected key"));
    }

    #[test]
    fn der_signatures_become_fixed_ones() {
        let check = |der: &[u8], expected: Option<Vec<u8>>| {
            assert_eq!(fixed_from_der(der, 4), expected, "{der:?}");
        };
        let der = [0x30, 8, 2, 2, 0, 0x80, 2, 2, 1, 2];
        check(&der, Some(vec![0, 0, 0, 0x80, 0, 0, 1, 2]));
        check(&[0x30, 8, 2, 2, 0, 0x80, 2, 2, 1, 2, 0], None);
        check(&[0x30, 7, 2, 2, 0, 0x80, 2, 2, 1, 2], None);
        check(&[0x30, 8, 2, 1, 0, 2, 3, 1, 2, 3], None);
        check(&[], None);
    }
}
