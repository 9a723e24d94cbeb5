//! One-time enrolment tokens: who may ask for a first certificate.
//!
//! The store is a folder with a file per token, named by the SHA-256 of the token's bytes. Consuming a token renames its file;
//! the file system lets exactly one rename succeed, and the folder is synced before anyone learns of it.
//!
//! **Invariant:** a token is consumed at most once, across threads, processes and crashes; and the folder's contents do not let
//! anyone present a token.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ring::digest;
use serde::{Deserialize, Serialize};

use super::files::{self, FileError, read_bounded, sync_folder};
use crate::entropy::{Entropy, bytes};
use crate::identity::Principal;

/// What every token begins with, so that scanners for leaked secrets can find one.
pub const TOKEN_PREFIX: &str = "anteroom-token-";
/// Most files in the store, consumed tokens included until they are swept.
pub const TOKENS_MAX: usize = 10_000;
/// How long after its end a token's file is kept, in milliseconds, so that a late use is told apart from an unknown token.
pub const SWEEP_AFTER_MS: i64 = 24 * 3_600_000;

const RECORD_BYTES_MAX: u64 = 4_096;

/// Why the store refused a token. The public code is stable.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not in a token's form.
    #[error("that is no enrolment token")]
    Malformed,
    /// Never minted here, or swept long after its end.
    #[error("the enrolment token is unknown")]
    Unknown,
    /// Consumed before.
    #[error("the enrolment token was used before")]
    Used,
    /// Past its end.
    #[error("the enrolment token has expired")]
    Expired,
    /// Outstanding and unswept tokens fill the store.
    #[error("the store holds {TOKENS_MAX} tokens already")]
    Full,
    /// A record in the store does not say whom the token is for.
    #[error("the record of the enrolment token cannot be read")]
    Damaged,
    /// The store's folder could not be read or written.
    #[error(transparent)]
    Store(#[from] FileError),
}

impl TokenError {
    /// The stable public code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::Unknown => "token_unknown",
            Self::Used => "token_used",
            Self::Expired => "token_expired",
            Self::Full => "token_store_full",
            Self::Damaged | Self::Store(_) => "token_store_failed",
        }
    }
}

/// How long a token may be used: one minute to seven days, an hour by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLifetime(Duration);

impl TokenLifetime {
    /// A lifetime within the bounds; anything outside them has none.
    #[must_use]
    pub fn new(length: Duration) -> Option<Self> {
        (60..=7 * 86_400).contains(&length.as_secs()).then_some(Self(length))
    }
}

impl Default for TokenLifetime {
    fn default() -> Self {
        Self(Duration::from_secs(3_600))
    }
}

/// A token as it is handed to a newcomer. It shows itself only through [`Token::expose`].
#[must_use]
pub struct Token(String);

impl Token {
    /// The text to hand over, once, on a channel fit for a secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The folder of tokens. All methods wait for the disk: call them where blocking is fine.
#[derive(Debug)]
pub struct TokenStore {
    folder: PathBuf,
}

impl TokenStore {
    /// Opens the store, making its folder if there is none.
    ///
    /// # Errors
    /// [`TokenError::Store`] if the folder cannot be made or synced.
    pub fn open(folder: &Path) -> Result<Self, TokenError> {
        std::fs::create_dir_all(folder).map_err(|source| FileError::io(folder, source))?;
        sync_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Mints a token for `principal`. It may be used until `now_ms` (Unix milliseconds) plus `lifetime`.
    ///
    /// # Errors
    /// [`TokenError::Full`] at [`TOKENS_MAX`], [`TokenError::Store`] if the record cannot be made durable.
    pub fn mint(
        &self,
        principal: &Principal,
        lifetime: TokenLifetime,
        now_ms: i64,
        entropy: &mut dyn Entropy,
    ) -> Result<Token, TokenError> {
        if self.sweep(now_ms)? >= TOKENS_MAX {
            return Err(TokenError::Full);
        }
        let secret = bytes::<32>(entropy);
        let length_ms = i64::try_from(lifetime.0.as_millis()).unwrap_or(0);
        let record = Record { principal: principal.clone(), expires_ms: now_ms.saturating_add(length_ms) };
        let contents = serde_json::to_vec(&record).map_err(|_| TokenError::Damaged)?;
        files::write_new(&self.folder, &open_name(&secret), &contents, 0o600, entropy)?;
        Ok(Token(format!("{TOKEN_PREFIX}{}", BASE32_NOPAD.encode(&secret).to_ascii_lowercase())))
    }

    /// Whom `token` is for, without consuming it.
    ///
    /// # Errors
    /// As [`TokenStore::consume`].
    pub fn peek(&self, token: &str, now_ms: i64) -> Result<Principal, TokenError> {
        self.record(&parse(token)?, now_ms).map(|record| record.principal)
    }

    /// Consumes `token` and tells whom it is for. When this returns, the consumption is on disk.
    ///
    /// # Errors
    /// Says which of the reasons of [`TokenError`] applied. After [`TokenError::Store`] the token counts as consumed.
    pub fn consume(&self, token: &str, now_ms: i64) -> Result<Principal, TokenError> {
        let secret = parse(token)?;
        let record = self.record(&secret, now_ms)?;
        let from = self.folder.join(open_name(&secret));
        match std::fs::rename(&from, self.folder.join(used_name(&secret))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TokenError::Used),
            Err(source) => return Err(FileError::io(&from, source).into()),
        }
        sync_folder(&self.folder)?;
        Ok(record.principal)
    }

    fn record(&self, secret: &[u8; 32], now_ms: i64) -> Result<Record, TokenError> {
        let contents = match read_bounded(&self.folder.join(open_name(secret)), RECORD_BYTES_MAX) {
            Ok(contents) => contents,
            Err(error) if error.kind() == Some(io::ErrorKind::NotFound) => {
                let used = self.folder.join(used_name(secret)).exists();
                return Err(if used { TokenError::Used } else { TokenError::Unknown });
            }
            Err(error) => return Err(error.into()),
        };
        let record: Record = serde_json::from_slice(&contents).map_err(|_| TokenError::Damaged)?;
        if now_ms >= record.expires_ms { Err(TokenError::Expired) } else { Ok(record) }
    }

    /// Removes files long past their end and counts the rest. A file that cannot be read is counted and left alone.
    fn sweep(&self, now_ms: i64) -> Result<usize, TokenError> {
        let failed = |source| FileError::io(&self.folder, source);
        let mut kept = 0;
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let lapsed = read_bounded(&path, RECORD_BYTES_MAX)
                .ok()
                .and_then(|contents| serde_json::from_slice::<Record>(&contents).ok())
                .is_some_and(|record| now_ms >= record.expires_ms.saturating_add(SWEEP_AFTER_MS));
            if !(lapsed && std::fs::remove_file(&path).is_ok()) {
                kept += 1;
            }
        }
        Ok(kept)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    principal: Principal,
    expires_ms: i64,
}

fn parse(token: &str) -> Result<[u8; 32], TokenError> {
    let text = token.strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Malformed)?;
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(TokenError::Malformed);
    }
    let secret = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| TokenError::Malformed)?;
    secret.try_into().map_err(|_| TokenError::Malformed)
}

fn open_name(secret: &[u8; 32]) -> String {
    format!("{}.open", hash(secret))
}

fn used_name(secret: &[u8; 32]) -> String {
    format!("{}.used", hash(secret))
}

fn hash(secret: &[u8; 32]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, secret).as_ref())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::identity::Role;

    const NOW: i64 = 1_790_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn alice() -> Principal {
        Principal::new("aisi", Role::Person, "alice").unwrap()
    }

    fn mint(store: &TokenStore) -> Token {
        store.mint(&alice(), TokenLifetime::default(), NOW, &mut SystemEntropy::new()).unwrap()
    }

    #[test]
    fn token_is_consumed_once_even_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let token = mint(&TokenStore::open(folder.path()).unwrap());
        let store = TokenStore::open(folder.path()).unwrap();
        assert_eq!(store.peek(token.expose(), NOW).unwrap(), alice());
        assert_eq!(store.consume(token.expose(), NOW).unwrap(), alice());
        assert!(matches!(store.consume(token.expose(), NOW), Err(TokenError::Used)));
        let again = TokenStore::open(folder.path()).unwrap();
        assert!(matches!(again.consume(token.expose(), NOW), Err(TokenError::Used)));
        assert!(matches!(again.peek(token.expose(), NOW), Err(TokenError::Used)));
    }

    #[test]
    fn one_of_many_racing_threads_consumes() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::open(folder.path()).unwrap();
        let token = mint(&store);
        let won = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| store.consume(token.expose(), NOW).is_ok())).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn expired_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::open(folder.path()).unwrap();
        let token = mint(&store);
        assert!(store.peek(token.expose(), NOW + HOUR - 1).is_ok());
        assert!(matches!(store.consume(token.expose(), NOW + HOUR), Err(TokenError::Expired)));
    }

    #[test]
    fn stranger_and_misspelt_tokens_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::open(folder.path()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = mint(&TokenStore::open(elsewhere.path()).unwrap());
        assert!(matches!(store.consume(stranger.expose(), NOW), Err(TokenError::Unknown)));
        for bad in
            ["", "anteroom-token-", "x", &stranger.expose().to_ascii_uppercase(), &format!("{}a", stranger.expose())]
        {
            assert!(matches!(store.consume(bad, NOW), Err(TokenError::Malformed)), "{bad}");
        }
    }

    #[test]
    fn folder_does_not_tell_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::open(folder.path()).unwrap();
        let token = mint(&store);
        let secret = parse(token.expose()).unwrap();
        let spelt = [HEXLOWER.encode(&secret), BASE32_NOPAD.encode(&secret).to_ascii_lowercase()];
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let contents = std::fs::read(&path).unwrap();
            let seen = format!("{} {}", path.display(), String::from_utf8_lossy(&contents));
            assert!(spelt.iter().all(|secret| !seen.contains(secret)));
            assert!(!contents.windows(32).any(|window| window == secret));
        }
    }

    #[test]
    fn lapsed_tokens_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::open(folder.path()).unwrap();
        let token = mint(&store);
        store.consume(token.expose(), NOW).unwrap();
        assert_eq!(store.sweep(NOW + HOUR + SWEEP_AFTER_MS - 1).unwrap(), 1);
        assert_eq!(store.sweep(NOW + HOUR + SWEEP_AFTER_MS).unwrap(), 0);
    }

    #[test]
    fn damaged_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::open(folder.path()).unwrap();
        let token = mint(&store);
        let path = folder.path().join(open_name(&parse(token.expose()).unwrap()));
        std::fs::write(
            &path,
            br#"{"principal":{"org":"aisi","role":"person","name":"alice","extra":1},"expires_ms":9}"#,
        )
        .unwrap();
        assert!(matches!(store.consume(token.expose(), 0), Err(TokenError::Damaged)));
    }
}
