//! Signed acts of a stop that the broker does not have on record yet.
//!
//! The lab's switch ([`super::stops`]) works without the broker. What it did can stand on record too: the act is signed when the
//! switch is thrown, kept here, and handed in until the broker shows its record or says why there will be none.
//!
//! **Invariant:** an act is removed only after the broker's proof that it is on record, or after it refused it for good; then it is
//! kept aside, with the reason.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{names::Digest, rpc::SignedStatement};
use prost::Message;

use crate::{
    acts::{Organisation, Recorded},
    durable,
    error::{Error, RefusalClass, Refused},
};

/// Most acts that wait. They are ends, and a lab that signs more of them than this while its broker is away has stopped everything.
pub const WAITING_MAX: usize = 1_024;

const DIR: &str = "acts";
const SUFFIX: &str = ".act";
const REFUSED: &str = ".refused";

/// The folder of acts.
#[derive(Clone, Debug)]
pub struct WaitingActs {
    dir: PathBuf,
}

/// Why an act cannot be kept or handed in.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// A file cannot be read or written.
    #[error("the acts that wait for the broker cannot be used: {0}")]
    Io(#[from] io::Error),
    /// Too many.
    #[error("{WAITING_MAX} acts wait for the broker already")]
    Full,
    /// The broker is away, or cannot record it at the moment.
    #[error("an act waits for the broker: {0}")]
    Waits(Box<Error>),
}

/// What became of an act.
#[derive(Debug)]
pub enum Became {
    /// It is on record.
    Recorded(Box<Recorded>),
    /// The broker will not record it, because what it ends is over or it does not hold.
    Refused {
        /// What was refused.
        statement: Box<SignedStatement>,
        /// The stable code.
        code: String,
        /// What it means.
        text: String,
        /// Whether what it ends is over anyway.
        over: bool,
    },
}

impl WaitingActs {
    /// The acts below a connector's folder. Nothing is made or read yet.
    #[must_use]
    pub fn at(connector: &Path) -> Self {
        Self { dir: connector.join(DIR) }
    }

    /// Keeps a signed act until it is handed in.
    ///
    /// # Errors
    /// There is no room, or it cannot be written.
    pub fn keep(&self, act: &SignedStatement) -> Result<(), ActError> {
        fs::create_dir_all(&self.dir)?;
        if self.names()?.len() >= WAITING_MAX {
            return Err(ActError::Full);
        }
        durable::sync_dir(self.dir.parent().unwrap_or(&self.dir))?;
        let name = format!("{}{SUFFIX}", Digest::of(&act.payload));
        Ok(durable::write_whole(&self.dir, &name, &act.encode_to_vec())?)
    }

    /// The acts that wait.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn waiting(&self) -> Result<Vec<SignedStatement>, ActError> {
        Ok(self.held()?.into_iter().map(|(_, act)| act).collect())
    }

    /// How many wait.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn len(&self) -> Result<usize, ActError> {
        Ok(self.names()?.len())
    }

    /// Whether none waits.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn is_empty(&self) -> Result<bool, ActError> {
        Ok(self.names()?.is_empty())
    }

    /// Hands every act in that waits, tells what became of each, and removes those that the broker has on record or refuses for good.
    /// `organisation` must know the tag keys of the grants that they name.
    ///
    /// # Errors
    /// One still waits, and so do those behind it.
    pub async fn hand_in(
        &self,
        organisation: &mut Organisation,
        told: &mut (dyn FnMut(Became) + Send),
    ) -> Result<(), ActError> {
        for (name, act) in self.held()? {
            match organisation.submit(act.clone(), Vec::new()).await {
                Ok(recorded) => {
                    durable::remove(&self.dir, &name)?;
                    told(Became::Recorded(Box::new(recorded)));
                }
                Err(Error::Refused(refused)) if is_final(&refused) => {
                    tracing::warn!(name, code = refused.code, "an act of this lab's switch was refused");
                    self.put_aside(&name)?;
                    let over = refused.class() == RefusalClass::Ended;
                    told(Became::Refused { statement: Box::new(act), over, code: refused.code, text: refused.text });
                }
                Err(error) => return Err(ActError::Waits(Box::new(error))),
            }
        }
        Ok(())
    }

    /// Another process may have been faster.
    fn put_aside(&self, name: &str) -> io::Result<()> {
        match fs::rename(self.dir.join(name), self.dir.join(format!("{name}{REFUSED}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => durable::sync_dir(&self.dir),
        }
    }

    fn held(&self) -> Result<Vec<(String, SignedStatement)>, ActError> {
        let mut acts = Vec::new();
        for name in self.names()? {
            // Another process may have handed it in meanwhile.
            let Some(bytes) = durable::read(&self.dir, &name)? else { continue };
            match SignedStatement::decode(bytes.as_slice()) {
                Ok(act) => acts.push((name, act)),
                Err(_) => {
                    tracing::error!(name, "an act of this lab's switch is damaged and is put aside; sign it again");
                    self.put_aside(&name)?;
                }
            }
        }
        Ok(acts)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(error) => return Err(error),
        };
        for entry in entries {
            if let Ok(name) = entry?.file_name().into_string()
                && name.ends_with(SUFFIX)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// A broker that is draining or whose ledger cannot write says nothing about the act, and neither does one that does not take it
/// over this connection.
fn is_final(refused: &Refused) -> bool {
    match refused.class() {
        RefusalClass::Ended => true,
        RefusalClass::Denied => refused.code != Refusal::CallerRole.code(),
        RefusalClass::Later | RefusalClass::Unavailable => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    fn act(number: u8) -> SignedStatement {
        SignedStatement { payload_type: "type".to_owned(), payload: vec![number; 40], signatures: Vec::new() }
    }

    #[test]
    fn acts_wait_across_restarts_each_once_and_damaged_ones_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let acts = WaitingActs::at(dir.path());
        assert!(acts.is_empty().unwrap());
        for number in [1, 2, 1] {
            acts.keep(&act(number)).unwrap();
        }
        let mut waiting = WaitingActs::at(dir.path()).waiting().unwrap();
        waiting.sort_by_key(|act| act.payload.clone());
        assert_eq!(waiting, [act(1), act(2)]);
        let name = acts.names().unwrap().remove(0);
        fs::write(acts.dir.join(name), b"\xff").unwrap();
        assert_eq!((acts.waiting().unwrap().len(), acts.len().unwrap()), (1, 1));
        assert_eq!(fs::read_dir(&acts.dir).unwrap().count(), 2, "nothing is thrown away");
    }

    #[test]
    fn a_broker_that_cannot_serve_says_nothing_about_an_act() {
        let refused = |code: &str| Refused {
            code: code.to_owned(),
            text: String::new(),
            grant: None,
            at: None,
            next: None,
            status: tonic::Code::PermissionDenied,
            retry_after: None,
        };
        for code in ["grant_withdrawn", "grant_unknown", "signature_missing"] {
            assert!(is_final(&refused(code)), "{code}");
        }
        for code in ["ledger_unavailable", "shutting_down", "caller_role"] {
            assert!(!is_final(&refused(code)), "{code}");
        }
    }
}
