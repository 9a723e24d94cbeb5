//! Why a broker does not start.

use std::io;

use anteroom_proto::ledger::logkeys::LogKeysError;

use super::Unpublishable;
use crate::{
    book::{keyring::KeyringError, wal::WalError},
    clock::ClockFileError,
    config::SecretError,
    journal::{JournalError, recover::RecoverError},
    listen::ListenError,
    pki::{FileError, ca::CaError, token::TokenError},
    standby::badge::BadgeError,
    tls::TlsError,
};

/// Why the broker does not start. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no data directory, or only half of one.
    #[error(
        "`{0}` is no initialised data directory: run `anteroom-broker init`, after removing what an interrupted one left"
    )]
    NotInitialised(String),
    /// There is something where a data directory was to be made.
    #[error("`{0}` is not empty: `init` replaces nothing; choose another `data_dir`")]
    Present(String),
    /// A data directory of another version.
    #[error("`{0}` has a format that this version does not know: run the version that made it")]
    Format(String),
    /// Others can read the data directory.
    #[error("`{0}` can be read by others: `chmod 700` it, and find out who did")]
    Exposed(String),
    /// A file or folder.
    #[error("`{path}`: {source}")]
    Folder {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the authority.
    #[error(transparent)]
    File(#[from] FileError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The log's key.
    #[error("the log's key cannot be used: {0}")]
    LogKey(String),
    /// The log on disk was signed by another key.
    #[error(
        "the log was started under the key `{found}`, `log_key` is `{given}`: give the key that belongs to this data directory"
    )]
    OtherLogKey {
        /// The one in record 0.
        found: String,
        /// The one configured.
        given: String,
    },
    /// The configured key has handed over to another one.
    #[error(
        "`log_key` is `{given}`, which handed over to `{next}`: set `log_key` to that one's secret, and `log_key_before` to this one's"
    )]
    LogKeySucceeded {
        /// The one configured.
        given: String,
        /// The one that signs now.
        next: String,
    },
    /// The key that is to sign beside the log's key is not the one before it.
    #[error("`log_key_before` is `{given}`, which is not the key that handed over to `log_key`: take the line out")]
    LogKeyBefore {
        /// The one configured.
        given: String,
    },
    /// The chain of the log's keys.
    #[error(
        "`{path}`: {error}; there are copies in the data directory, in `published/` and in every standby and backup"
    )]
    LogKeys {
        /// Its file.
        path: String,
        /// What is wrong.
        error: LogKeysError,
    },
    /// The roots by which the database is verified.
    #[error("`book_ca`, `{path}`: {why}")]
    BookRoots {
        /// Which file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The database that holds the log.
    #[error("the database in `book`: {0}")]
    Book(WalError),
    /// One more broker of a log that is not in a database.
    #[error("`--like` makes the data directory of one more broker over one database: name that in `book`")]
    LikeAlone,
    /// No authority to share.
    #[error(
        "`{0}` is no data directory and holds no `pki/ca.pem` with `pki/ca.key`: `--like` takes another broker's data directory, or a folder with these"
    )]
    NoAuthority(String),
    /// Something that is done to a data directory's own ledger.
    #[error(
        "the log is in a database (`book`): back up, restore and look after that one; this is for a ledger in `data_dir`"
    )]
    InDatabase,
    /// The machine's clocks.
    #[error("the machine's clocks cannot be read: {0}")]
    Clocks(io::Error),
    /// The clock's memory.
    #[error("{0}: restore `clock` from where it is whole; without it the clock starts over, unconfirmed")]
    Clock(#[from] ClockFileError),
    /// The scopes' keys.
    #[error("the keyring cannot be opened: {0}; `keys/` and `kek` belong together, restore both from one backup")]
    Keyring(#[from] KeyringError),
    /// Another process has the ledger.
    #[error("another process has this data directory: stop it first, or work on a copy")]
    InUse,
    /// The ledger.
    #[error("the ledger cannot be folded: {0}; keep the directory as it is and run `anteroom-broker fsck`")]
    Recover(RecoverError),
    /// The published log does not agree with the ledger.
    #[error("{0}; see `{section}` in deploy/RUNBOOK.md", section = .0.section())]
    Published(#[from] Unpublishable),
    /// The first records could not be written.
    #[error("the ledger cannot be written: {0}")]
    Journal(#[from] JournalError),
    /// The authority.
    #[error("the built-in authority: {0}")]
    Ca(#[from] CaError),
    /// The authority signs what nobody trusts.
    #[error("`{0}` does not hold the root that signs: `pki/` is of two backups, restore it from one")]
    Roots(String),
    /// The authority is another one's.
    #[error("the built-in authority is that of `{found}`, `trust_domain` is `{given}`")]
    TrustDomain {
        /// In the root certificate.
        found: String,
        /// Configured.
        given: String,
    },
    /// Enrolment tokens.
    #[error("the enrolment tokens: {0}")]
    Token(#[from] TokenError),
    /// Certificates and keys.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// A door.
    #[error("{0}; is another broker running, or the address another machine's?")]
    Listen(#[from] ListenError),
    /// By what standbys know this broker.
    #[error("the certificate for standbys: {0}")]
    Badge(BadgeError),
    /// A task of this start was lost.
    #[error("the start was interrupted: {0}")]
    Lost(#[from] tokio::task::JoinError),
}

impl From<RecoverError> for StartError {
    fn from(error: RecoverError) -> Self {
        if matches!(error, RecoverError::Wal(WalError::Locked)) { Self::InUse } else { Self::Recover(error) }
    }
}
