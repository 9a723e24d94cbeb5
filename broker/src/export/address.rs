//! How a sink is named in the configuration: `NAME=FORMAT+URL`.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where a sink's rows go and how they look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkAddress {
    /// Its name: 1 to 32 lower-case letters, digits and hyphens. Names its cursor, its credentials and its metrics.
    pub name: String,
    /// How a row looks.
    pub format: Format,
    /// The way there.
    pub transport: Transport,
}

/// How a row looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own row as one JSON object.
    Jsonl,
    /// OCSF 1.3 API Activity.
    Ocsf,
}

/// The way to a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Appended to a file of this machine: `file:///path`.
    File(PathBuf),
    /// RFC 5424 messages with octet counts (RFC 6587) over TCP: `syslog+tcp://HOST:PORT`.
    Syslog(String),
    /// Newline-delimited JSON in POST requests: `https://…`, or `http://…` to this machine.
    Http(http::Uri),
}

/// What is wrong with a sink's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of the form.
    #[error(
        "a sink is `NAME=FORMAT+URL`, such as `siem=ocsf+https://collector.example/rows` or `archive=jsonl+file:///var/log/anteroom.jsonl`"
    )]
    Form,
    /// The name.
    #[error("a sink's name has 1 to 32 lower-case letters, digits and hyphens")]
    Name,
    /// The format.
    #[error("a sink's format is `jsonl` or `ocsf`")]
    Format,
    /// The URL.
    #[error("a sink's URL begins with `file:///`, `syslog+tcp://HOST:PORT`, `https://` or, on this machine, `http://`")]
    Url,
}

impl FromStr for SinkAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, rest) = text.split_once('=').ok_or(AddressError::Form)?;
        let (format, url) = rest.split_once('+').ok_or(AddressError::Form)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            return Err(AddressError::Name);
        }
        let format = match format {
            "jsonl" => Format::Jsonl,
            "ocsf" => Format::Ocsf,
            _ => return Err(AddressError::Format),
        };
        Ok(Self { name: name.to_owned(), format, transport: url.parse()? })
    }
}

impl FromStr for Transport {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if let Some(path) = url.strip_prefix("file://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() && path.file_name().is_some() {
                Ok(Self::File(path))
            } else {
                Err(AddressError::Url)
            };
        }
        if let Some(address) = url.strip_prefix("syslog+tcp://") {
            let authority: http::uri::Authority = address.parse().map_err(|_| AddressError::Url)?;
            let whole = authority.port_u16().is_some() && !address.contains('@');
            return if whole { Ok(Self::Syslog(address.to_owned())) } else { Err(AddressError::Url) };
        }
        let uri: http::Uri = url.parse().map_err(|_| AddressError::Url)?;
        let host = uri.host().ok_or(AddressError::Url)?;
        let here = ["127.0.0.1", "localhost", "[::1]"].contains(&host);
        // Rows are not for the wire in the clear.
        let fine = uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && here);
        let secret = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if fine && !secret { Ok(Self::Http(uri)) } else { Err(AddressError::Url) }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jsonl => "jsonl",
            Self::Ocsf => "ocsf",
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    #[test]
    fn addresses_name_their_way() {
        let read = |text: &str| text.parse::<SinkAddress>();
        let file = read("archive=jsonl+file:///var/log/anteroom.jsonl").unwrap();
        assert_eq!(file.transport, Transport::File("/var/log/anteroom.jsonl".into()));
        assert_eq!(
            read("box=ocsf+syslog+tcp://127.0.0.1:601").unwrap().transport,
            Transport::Syslog("127.0.0.1:601".to_owned())
        );
        assert!(matches!(read("siem=ocsf+https://collector.example/rows").unwrap().transport, Transport::Http(_)));
        assert!(matches!(read("siem=ocsf+http://127.0.0.1:8088/rows").unwrap().transport, Transport::Http(_)));
        for (text, error) in [
            ("siem", AddressError::Form),
            ("siem=ocsf", AddressError::Form),
            ("SIEM=ocsf+https://a/", AddressError::Name),
            ("=ocsf+https://a/", AddressError::Name),
            ("siem=xml+https://a/", AddressError::Format),
            ("siem=ocsf+http://collector.example/rows", AddressError::Url),
            ("siem=ocsf+https://user:word@collector.example/rows", AddressError::Url),
            ("siem=jsonl+file://relative", AddressError::Url),
            ("siem=jsonl+file:///", AddressError::Url),
            ("siem=jsonl+syslog+tcp://127.0.0.1", AddressError::Url),
        ] {
            assert_eq!(read(text).unwrap_err(), error, "{text}");
        }
    }
}
