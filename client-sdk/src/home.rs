//! A party's folder: settings, certificates, keys, pins, receipts, and a copy of everything it signed.
//!
//! ```text
//! home.toml          where the broker is, and who this is
//! cert/ROLE/         the certificate for each role on the connection
//! keys/NAME.key      root, signer, roster, connector, stop, witness, oversight, workload, person-PSEUDONYM
//! key-set.json       the key set in force, as signed          enrolment.json   the enrolment, as signed
//! pins.toml          what was compared out of band: the log's key, other organisations' fingerprints
//! checkpoint         the newest checkpoint of the log that was verified
//! terms/ dossiers/   what grants rest on, as far as seen
//! receipts/          receipts of calls                          statements/      acts signed here
//! rosters/           rosters published from here, with what stays with the agency
//! gateway.token      the token of this machine's tools for `anteroom gateway`
//! connector/LINE/    what a lab's connector remembers            witness/          what the witness key cosigned last
//! ```
//!
//! **Invariant:** the folder is its owner's alone (0700, what is written here 0600), every file is replaced whole or not at all, and
//! nothing is pinned that somebody did not name: what the broker says about itself is shown, never believed.

mod files;
mod kept;
mod keys;
mod pins;
mod rotation;
mod session;
mod witness;

use std::{
    io,
    path::{Path, PathBuf},
};

use anteroom_proto::{
    ledger::{checkpoint::TrustError, note::KeyError},
    names::{NameError, OrgId},
    statement::{StatementError, key_set::OrgKind},
};
use serde::{Deserialize, Serialize};

pub use kept::{KeptStop, RECEIPT_STORES_MAX};
pub use pins::PinFile;
pub use rotation::KeyChanges;
pub use session::{Broker, Brokers, CertRole, Use};

use crate::{
    channel::{Address, ChannelError},
    credentials::{CredentialsError, Environment},
    error::Error,
};

const SETTINGS_FILE: &str = "home.toml";

/// Why a party's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A file cannot be read or written.
    #[error("`{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A file's text is not what it should be.
    #[error("`{path}` cannot be read: {why}")]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no such folder.
    #[error(
        "there is no party's folder at `{0}`; `anteroom enroll` or `anteroom org init` makes one, `--home` names another"
    )]
    Absent(PathBuf),
    /// It is there already.
    #[error("`{0}` is there already, and nothing in a party's folder is overwritten")]
    Exists(PathBuf),
    /// It belongs to somebody else.
    #[error("this folder is `{held}`'s, not `{asked}`'s; name another with `--home`")]
    OtherOrg {
        /// Whose it is.
        held: OrgId,
        /// Who was named.
        asked: String,
    },
    /// Nobody said who this is.
    #[error("this folder belongs to no organisation yet; run `anteroom enroll` or `anteroom org init`")]
    NoOrg,
    /// Nobody said where the broker is.
    #[error("no address of a broker is known; give `--addr HOST:PORT`, or run `anteroom enroll`")]
    NoAddress,
    /// There is no certificate for what is to be done.
    #[error("there is no {0} certificate here; ask the operator for an enrolment token and run `anteroom enroll`")]
    NoCertificate(&'static str),
    /// The log's key is not pinned.
    #[error(
        "no log key is pinned: `anteroom whoami` shows what the broker says, compare it with the operator by another way, then `anteroom pin log VKEY`"
    )]
    NoLogKey,
    /// Another key is pinned.
    #[error(
        "`{0}` is pinned already with another value; if it was replaced and you compared it, repeat with `--replace`"
    )]
    Pinned(String),
    /// An organisation's fingerprint is not pinned.
    #[error(
        "no fingerprint of `{0}` is pinned: compare it with them by another way, then `anteroom pin org {0} FINGERPRINT`"
    )]
    NoPin(OrgId),
    /// A key is missing.
    #[error("there is no key `{0}` here; `anteroom key new {0}` makes one, or copy it to `keys/{0}.key`")]
    NoKey(String),
    /// A key set has no such key.
    #[error("the key set has no key `{0}`; `anteroom org show` lists them")]
    NoSuchKey(String),
    /// The organisation's own keys are missing.
    #[error("this folder holds no key set; run `anteroom org init`")]
    NoKeySet,
    /// A key's name is unusable.
    #[error("a key's {0}")]
    KeyName(NameError),
    /// An own statement is unusable.
    #[error("`{path}` is unusable: {why}")]
    Statement {
        /// The file.
        path: PathBuf,
        /// Why.
        why: StatementError,
    },
    /// The log's key is unusable.
    #[error("the log's key is unusable: {0}")]
    LogKey(#[from] KeyError),
    /// What is known of how the log's key handed over cannot be used.
    #[error(transparent)]
    Follow(#[from] crate::following::FollowError),
    /// The log's key cannot be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No run credential names the workload's key.
    #[error(
        "no run credential in force names this workload's key; a person runs `anteroom run credential GRANT RUN --person PSEUDONYM`"
    )]
    NoCredential,
    /// Anything the rest of the SDK says.
    #[error(transparent)]
    Sdk(#[from] Error),
}

impl HomeError {
    /// The code that a command exits with; see [`crate::error::EXIT_CODES`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Sdk(error) => error.exit_code(),
            Self::NoCredential => 3,
            Self::Io { .. }
            | Self::Text { .. }
            | Self::Absent(_)
            | Self::Exists(_)
            | Self::OtherOrg { .. }
            | Self::NoOrg
            | Self::NoAddress
            | Self::NoCertificate(_)
            | Self::NoLogKey
            | Self::Pinned(_)
            | Self::NoPin(_)
            | Self::NoKey(_)
            | Self::NoSuchKey(_)
            | Self::NoKeySet
            | Self::KeyName(_)
            | Self::Statement { .. }
            | Self::LogKey(_)
            | Self::Follow(_)
            | Self::Trust(_) => 1,
        }
    }
}

macro_rules! through_sdk {
    ($($type:ty),* $(,)?) => {
        $(impl From<$type> for HomeError {
            fn from(error: $type) -> Self {
                Self::Sdk(error.into())
            }
        })*
    };
}
through_sdk!(
    ChannelError,
    CredentialsError,
    StatementError,
    crate::signer::KeyFileError,
    crate::store::StoreError,
    crate::witness::StateError,
    crate::system::NoRandomness,
    anteroom_proto::statement::envelope::SignerError,
    crate::error::VerificationError,
    tonic::Status,
);

/// What `home.toml` says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The broker's listener for everybody with a certificate, `HOST:PORT`; several brokers of one log with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// The name in its certificate; absent means the host in the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Its listener for newcomers, `HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrol_addr: Option<String>,
    /// Whose folder this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<OrgId>,
    /// What that organisation is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<OrgKind>,
}

/// A party's folder.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
    settings: Settings,
    /// Files and address from the environment, in place of `cert/`.
    environment: Option<Environment>,
}

impl Home {
    /// Makes a folder, or takes an empty one.
    ///
    /// # Errors
    /// It is a party's already, or cannot be written.
    pub fn create(dir: &Path) -> Result<Self, HomeError> {
        if dir.join(SETTINGS_FILE).exists() {
            return Err(HomeError::Exists(dir.to_owned()));
        }
        files::folder(dir)?;
        let home = Self { dir: dir.to_owned(), settings: Settings::default(), environment: None };
        home.write_settings()?;
        Ok(home)
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// There is none, or its settings cannot be read.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        let path = dir.join(SETTINGS_FILE);
        let text = files::read(&path)?.ok_or_else(|| HomeError::Absent(dir.to_owned()))?;
        let settings = toml::from_str(&text).map_err(|error| HomeError::Text { path, why: error.to_string() })?;
        Ok(Self { dir: dir.to_owned(), settings, environment: None })
    }

    /// Opens a folder, made if there is none.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open_or_create(dir: &Path) -> Result<Self, HomeError> {
        match Self::open(dir) {
            Err(HomeError::Absent(_)) => Self::create(dir),
            other => other,
        }
    }

    /// Uses these certificate files in place of the folder's own.
    #[must_use]
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Uses this address from here on, without writing it down.
    #[must_use]
    pub fn with_addr(mut self, addr: &str) -> Self {
        self.settings.addr = Some(addr.to_owned());
        self
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its settings say.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes the settings and writes them down.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) -> Result<(), HomeError> {
        let mut next = self.settings.clone();
        change(&mut next);
        let before = std::mem::replace(&mut self.settings, next);
        self.write_settings().inspect_err(|_| self.settings = before)
    }

    /// Whose folder it is.
    ///
    /// # Errors
    /// Nobody said so yet.
    pub fn org(&self) -> Result<&OrgId, HomeError> {
        self.settings.org.as_ref().ok_or(HomeError::NoOrg)
    }

    /// Where the broker is.
    ///
    /// # Errors
    /// Nobody said so, or it is no address.
    pub fn address(&self) -> Result<Address, HomeError> {
        let address = Address::parse(self.settings.addr.as_deref().ok_or(HomeError::NoAddress)?)?;
        self.named(address)
    }

    /// Where newcomers enrol.
    ///
    /// # Errors
    /// Nobody said so, or it is no address.
    pub fn enrol_address(&self) -> Result<Address, HomeError> {
        let address = Address::parse(self.settings.enrol_addr.as_deref().ok_or(HomeError::NoAddress)?)?;
        self.named(address)
    }

    fn named(&self, address: Address) -> Result<Address, HomeError> {
        match &self.settings.server_name {
            Some(name) => Ok(address.with_server_name(name)?),
            None => Ok(address),
        }
    }

    fn write_settings(&self) -> Result<(), HomeError> {
        let path = self.dir.join(SETTINGS_FILE);
        let text = toml::to_string_pretty(&self.settings)
            .map_err(|error| HomeError::Text { path: path.clone(), why: error.to_string() })?;
        files::replace(&path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests;
