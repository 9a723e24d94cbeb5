//! Standbys as configured: where they are, and whether calls wait for them.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::Deserialize;

use super::badge::Fingerprint;

/// Most standbys.
pub const STANDBYS_MAX: usize = 8;

/// Where a standby is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A folder on another disk.
    Folder(PathBuf),
    /// A process on another machine, by its certificate.
    Remote {
        /// `host:port`.
        authority: String,
        /// Its certificate's fingerprint.
        peer: Fingerprint,
    },
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || "a standby is `/folder`, or `https://host:port sha256:DIGITS` with its fingerprint".to_owned();
        if text.starts_with('/') {
            return Ok(Self::Folder(text.into()));
        }
        let (url, peer) = text.split_once(' ').ok_or_else(rule)?;
        let uri: http::Uri = url.parse().map_err(|_| rule())?;
        let bare = uri.scheme_str() == Some("https") && uri.path() == "/" && uri.query().is_none();
        let authority = uri.authority().filter(|authority| bare && authority.port().is_some()).ok_or_else(rule)?;
        if authority.as_str().contains('@') {
            return Err(rule());
        }
        Ok(Self::Remote { authority: authority.to_string(), peer: peer.trim().parse()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Remote { authority, .. } => write!(f, "https://{authority}"),
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standbys {
    /// Each once.
    pub each: Vec<Address>,
    /// Whether answers wait.
    pub ack: AckMode,
    /// For how long a batch does.
    pub wait: Duration,
}

/// When a batch counts as acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AckMode {
    /// Once it is durable here.
    #[default]
    Async,
    /// Once it is durable here and at one standby.
    Sync,
}

impl FromStr for AckMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "async" => Ok(Self::Async),
            "sync" => Ok(Self::Sync),
            _ => Err("`async` or `sync` is expected".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_standby_is_a_folder_or_a_pinned_address() {
        let digits = "ab".repeat(32);
        assert_eq!("/mnt/other".parse(), Ok(Address::Folder("/mnt/other".into())));
        let remote: Address = format!("https://standby.example:7446 sha256:{digits}").parse().unwrap();
        assert_eq!(remote.to_string(), "https://standby.example:7446");
        for wrong in [
            "",
            "mnt/other",
            "https://standby.example:7446",
            &format!("http://standby.example:7446 sha256:{digits}"),
            &format!("https://standby.example sha256:{digits}"),
            &format!("https://a@standby.example:7446 sha256:{digits}"),
            &format!("https://standby.example:7446/path sha256:{digits}"),
            "https://standby.example:7446 sha256:abcd",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
