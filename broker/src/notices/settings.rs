//! What the operator says about notices.

use std::{fmt, path::PathBuf, str::FromStr};

use anteroom_proto::statement::contacts::MailAddress;

use crate::relay::networks::Networks;

/// What notices are sent with. Without a relay there is no mail; webhooks need nothing.
#[derive(Clone, Debug, Default)]
pub struct NoticeSettings {
    /// The relay for mail.
    pub relay: Option<RelayAddress>,
    /// Whom mail is from.
    pub from: Option<MailAddress>,
    /// The file with the relay's password.
    pub password: Option<PathBuf>,
    /// Addresses that are not public and may be reached all the same.
    pub allow: Networks,
}

/// A relay: `smtps://[USER@]HOST:PORT`, or `smtp://[USER@]HOST:PORT` on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayAddress {
    /// Whether the connection begins with TLS.
    pub tls: bool,
    /// Who logs in.
    pub user: Option<String>,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is wrong with a relay's address. It repeats nothing: a password may stand there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a relay is `smtps://[USER@]HOST:PORT`, or `smtp://[USER@]HOST:PORT` on this machine; its password stands in the file that `notices_smtp_password` names"
)]
pub struct RelayError;

impl FromStr for RelayAddress {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tls, rest) = match text.strip_prefix("smtps://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("smtp://").ok_or(RelayError)?),
        };
        // A user may be a mail address itself.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, rest),
        };
        let authority: http::uri::Authority = place.parse().map_err(|_| RelayError)?;
        let port = authority.port_u16().ok_or(RelayError)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let here = ["127.0.0.1", "::1", "localhost"].contains(&host.as_str());
        let named = user.as_ref().is_none_or(|user| {
            !user.is_empty() && user.len() <= 254 && user.bytes().all(|b| b.is_ascii_graphic()) && !user.contains(':')
        });
        if host.is_empty() || !named || !(tls || here) {
            return Err(RelayError);
        }
        Ok(Self { tls, user, host, port })
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "smtps" } else { "smtp" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    #[test]
    fn relays_are_reached_by_tls_unless_they_are_here() {
        let read = |text: &str| text.parse::<RelayAddress>();
        let far = read("smtps://anteroom@mail.example:465").unwrap();
        assert_eq!(
            (far.tls, far.user.as_deref(), far.host.as_str(), far.port),
            (true, Some("anteroom"), "mail.example", 465)
        );
        assert_eq!(read("smtps://a@b.example@mail.example:465").unwrap().user.as_deref(), Some("a@b.example"));
        assert_eq!(read("smtp://[::1]:2525").unwrap().host, "::1");
        assert!(read("smtp://127.0.0.1:2525").is_ok());
        for bad in [
            "mail.example:465",
            "smtp://mail.example:25",
            "smtps://mail.example",
            "smtps://user:word@mail.example:465",
            "smtps://@mail.example:465",
            "smtps://mail.example:465/path",
            "smtps://:465",
            "http://127.0.0.1:25",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
