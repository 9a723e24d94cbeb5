//! A secret by where it is, never by value.
//!
//! **Invariant:** a secret's bytes are in no configuration file, no flag and no log line.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::pki::{FileError, read_secret};

/// Longest secret that is a text, in bytes.
const TEXT_BYTES_MAX: u64 = 1_024;

/// Where a secret is: 32 bytes, or where it says so a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file that others cannot read: the bytes themselves.
    File(PathBuf),
    /// In a variable of the environment: 64 hexadecimal digits.
    Environment(String),
}

/// Why a secret cannot be had. Never says what was found.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file has another length.
    #[error("`{}` does not hold 32 bytes", .0.display())]
    Length(PathBuf),
    /// The file holds no text.
    #[error("`{}` does not hold a text", .0.display())]
    Text(PathBuf),
    /// The variable is not set.
    #[error("environment variable `{0}` is not set")]
    Unset(String),
    /// The variable holds something else.
    #[error("environment variable `{0}` does not hold 64 hexadecimal digits")]
    Digits(String),
}

impl Secret {
    /// Reads the secret.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<[u8; 32], SecretError> {
        match self {
            Self::File(path) => {
                let mut bytes = read_secret(path, 64)?;
                let secret = bytes.as_slice().try_into().map_err(|_| SecretError::Length(path.clone()));
                bytes.fill(0);
                secret
            }
            Self::Environment(name) => {
                let digits = environment(name).ok_or_else(|| SecretError::Unset(name.clone()))?;
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.trim().as_bytes()).ok();
                bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| SecretError::Digits(name.clone()))
            }
        }
    }
}

impl Secret {
    /// Reads a secret that is a text, such as a password. A line break at its end is left out.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read_text(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, SecretError> {
        match self {
            Self::File(path) => {
                let text = String::from_utf8(read_secret(path, TEXT_BYTES_MAX)?);
                let text = text.map_err(|_| SecretError::Text(path.clone()))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Self::Environment(name) => environment(name).ok_or_else(|| SecretError::Unset(name.clone())),
        }
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text.strip_prefix("file://"), text.strip_prefix("env://")) {
            (Some(path), _) if path.starts_with('/') => Ok(Self::File(path.into())),
            (_, Some(name)) if is_variable(name) => Ok(Self::Environment(name.to_owned())),
            // What was given instead is not repeated: it may be the secret.
            _ => Err("a secret is given as `file:///path` or `env://NAME`, never by value".to_owned()),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Environment(name) => write!(f, "env://{name}"),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
