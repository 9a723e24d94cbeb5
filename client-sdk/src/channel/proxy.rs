//! A proxy on the way to the broker, as the environment names it: HTTP CONNECT, with TLS to the broker inside.
//!
//! `HTTPS_PROXY`, else `ALL_PROXY`, says where it is, `NO_PROXY` what is reached without it; small letters go before capitals, as
//! other tools have it. Names are then looked up by the proxy. Loopback addresses are never asked of a proxy.
//!
//! **Invariant:** a proxy carries bytes and is believed nothing: the certificate inside the tunnel is the broker's own, or no
//! connection is made. Its password is never shown.

use std::{fmt, io, net::IpAddr};

use data_encoding::BASE64;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Largest head of a proxy's answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Port of a proxy that names none, as `curl` has it.
const PORT: u16 = 1080;
const NAMES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPT: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// A proxy that speaks HTTP CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    authority: String,
    authorization: Option<String>,
    named_by: &'static str,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Why the proxy that the environment names cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{named_by} names no proxy that can be used: `http://HOST:PORT` is expected")]
pub struct ProxyError {
    /// The variable.
    pub named_by: &'static str,
}

impl Proxy {
    /// The proxy that the environment names for `HOST:PORT`, if any.
    ///
    /// # Errors
    /// It names one that cannot be used.
    pub fn of_environment(authority: &str) -> Result<Option<Self>, ProxyError> {
        Self::find(authority, |name| std::env::var(name).ok())
    }

    fn find(authority: &str, get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ProxyError> {
        let set = |name: &&'static str| Some((*name, get(name).filter(|value| !value.trim().is_empty())?));
        let Some((named_by, value)) = NAMES.iter().find_map(set) else { return Ok(None) };
        let (host, port) = split(authority);
        let except = EXCEPT.iter().find_map(set).map(|(_, value)| value).unwrap_or_default();
        if is_loopback(host) || is_excepted(host, port, &except) {
            return Ok(None);
        }
        Self::parse(value.trim(), named_by).map(Some)
    }

    fn parse(text: &str, named_by: &'static str) -> Result<Self, ProxyError> {
        let wrong = ProxyError { named_by };
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            // A proxy that itself speaks TLS, or SOCKS, would be somebody else's protocol.
            Some(_) => return Err(wrong),
        };
        let rest = rest.split('/').next().unwrap_or_default();
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(percent_decoded(credentials).ok_or(wrong.clone())?), authority),
            None => (None, rest),
        };
        let (host, port) = split(authority);
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '#');
        if host.is_empty() || !authority.chars().all(plain) {
            return Err(wrong);
        }
        let bare = authority == format!("[{host}]") || (authority == host && !host.contains(':'));
        let authority = match port {
            Some(_) => authority.to_owned(),
            None if bare => format!("{authority}:{PORT}"),
            None => return Err(wrong),
        };
        let authorization = credentials.map(|credentials| format!("Basic {}", BASE64.encode(&credentials)));
        Ok(Self { authority, authorization, named_by })
    }

    /// `HOST:PORT` of the proxy.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The variable that names it.
    #[must_use]
    pub const fn named_by(&self) -> &'static str {
        self.named_by
    }

    /// Opens a tunnel to `HOST:PORT`.
    ///
    /// # Errors
    /// The proxy cannot be reached or does not let this through; the text says that it was the proxy.
    pub async fn connect(&self, target: &str) -> io::Result<TcpStream> {
        let failed = |why: String| io::Error::other(format!("the proxy {} ({}): {why}", self.authority, self.named_by));
        let mut stream = TcpStream::connect(&self.authority).await.map_err(|error| failed(error.to_string()))?;
        let authorization =
            self.authorization.as_ref().map(|value| format!("proxy-authorization: {value}\r\n")).unwrap_or_default();
        let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        let head = head(&mut stream).await.map_err(|error| failed(error.to_string()))?;
        let status = status(&head).ok_or_else(|| failed("it does not speak HTTP".to_owned()))?;
        match status {
            200..=299 => Ok(stream),
            407 => Err(failed("it wants to know who asks, status 407".to_owned())),
            other => Err(failed(format!("it does not let {target} through, status {other}"))),
        }
    }
}

/// The head of the proxy's answer, byte by byte: what follows it is the tunnel's.
async fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(io::Error::other("its answer is too long"));
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::other("it hung up without an answer"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    rest.split(' ').next()?.parse().ok()
}

/// Host without brackets, and port.
fn split(authority: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (host, None),
        },
        Some(_) | None => (authority, None),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `NO_PROXY` names a host: itself, a domain above it, an address or a range that it is in, or everything.
fn is_excepted(host: &str, port: Option<u16>, except: &str) -> bool {
    except.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let (Ok(address), Some((network, bits))) = (host.parse::<IpAddr>(), entry.split_once('/')) {
            return network
                .parse()
                .is_ok_and(|network| bits.parse().is_ok_and(|bits| in_range(address, network, bits)));
        }
        let (named, at) = if entry.parse::<IpAddr>().is_ok() { (entry, None) } else { split(entry) };
        if at.is_some() && at != port {
            return false;
        }
        if let (Ok(address), Ok(named)) = (host.parse::<IpAddr>(), named.parse::<IpAddr>()) {
            return address == named;
        }
        let named = named.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
        let host = host.to_ascii_lowercase();
        let above = host.strip_suffix(&named).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        !named.is_empty() && above
    })
}

fn in_range(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let prefix = |value: u128, width: u32| value.checked_shr(width.saturating_sub(bits)).unwrap_or(0);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            prefix(u32::from(address).into(), 32) == prefix(u32::from(network).into(), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            prefix(address.into(), 128) == prefix(network.into(), 128)
        }
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => false,
    }
}

/// Undoes `%40` and the like; `None` if it is not well-formed.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use tokio::net::TcpListener;

    use super::*;

    fn found(authority: &str, set: &[(&str, &str)]) -> Result<Option<String>, ProxyError> {
        let get = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Ok(Proxy::find(authority, get)?.map(|proxy| proxy.authority))
    }

    #[test]
    fn the_environment_names_a_proxy_as_for_other_tools() {
        let proxy = |name, value| found("broker.example:7443", &[(name, value)]).unwrap();
        assert_eq!(proxy("HTTPS_PROXY", "http://proxy.example:3128"), Some("proxy.example:3128".to_owned()));
        assert_eq!(proxy("https_proxy", "proxy.example:3128/"), Some("proxy.example:3128".to_owned()));
        assert_eq!(proxy("ALL_PROXY", "http://me:secret@proxy.example"), Some("proxy.example:1080".to_owned()));
        assert_eq!(proxy("HTTPS_PROXY", "http://[::1]:3128"), Some("[::1]:3128".to_owned()));
        assert_eq!(proxy("HTTPS_PROXY", " "), None);
        assert_eq!(proxy("HTTP_PROXY", "http://proxy.example:3128"), None, "that one is for plain HTTP");
        let both =
            [("HTTPS_PROXY", "http://large:1"), ("https_proxy", "http://small:1"), ("all_proxy", "http://all:1")];
        assert_eq!(found("b.example:1", &both).unwrap(), Some("small:1".to_owned()));
        for wrong in ["https://proxy.example:3128", "socks5://proxy.example:1", "http://", "http://p:x", "http://p:"] {
            let error = found("broker.example:7443", &[("HTTPS_PROXY", wrong)]).unwrap_err();
            assert_eq!(error.named_by, "HTTPS_PROXY", "{wrong}");
        }
    }

    #[test]
    fn some_hosts_are_reached_without_it() {
        let set = |except| [("HTTPS_PROXY", "http://proxy.example:3128"), ("no_proxy", except)];
        let direct = |authority: &str, except| found(authority, &set(except)).unwrap().is_none();
        for authority in ["localhost:1", "127.0.0.1:1", "127.8.8.8:1", "[::1]:1"] {
            assert!(direct(authority, ""), "{authority}");
        }
        for except in
            ["*", "broker.example", "example", ".example", "*.example", "a.test, broker.example:7443", "BROKER.Example"]
        {
            assert!(direct("broker.example:7443", except), "{except}");
        }
        for except in ["", "ker.example", "other.example", "broker.example:1", ".", "x.broker.example"] {
            assert!(!direct("broker.example:7443", except), "{except}");
        }
        for except in ["10.1.2.3", "10.0.0.0/8", "10.1.2.0/24", "0.0.0.0/0"] {
            assert!(direct("10.1.2.3:7443", except), "{except}");
        }
        for except in ["10.1.2.4", "10.1.3.0/24", "10.0.0.0/33", "fd00::/8", "10.0.0.0/x"] {
            assert!(!direct("10.1.2.3:7443", except), "{except}");
        }
        assert!(direct("[fd12::1]:7443", "fd00::/8"));
        assert!(direct("[fd12::1]:7443", "fd12::1"));
    }

    /// A proxy that answers once, and what it was asked.
    async fn answering(answer: &'static str) -> (Proxy, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy::parse(&format!("http://me:sec%40ret@{address}"), "HTTPS_PROXY").unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = head(&mut stream).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        (proxy, asked)
    }

    #[tokio::test]
    async fn a_tunnel_begins_behind_the_answers_head() {
        let (proxy, asked) = answering("HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\nfirst bytes").await;
        assert!(!format!("{proxy:?}").contains("sec"));
        let mut stream = proxy.connect("broker.example:7443").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "first bytes");
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("CONNECT broker.example:7443 HTTP/1.1\r\nhost: broker.example:7443\r\n"), "{asked}");
        assert!(asked.contains(&format!("proxy-authorization: Basic {}\r\n", BASE64.encode(b"me:sec@ret"))), "{asked}");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named() {
        for (answer, said) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "status 403"),
            ("HTTP/1.0 407 Proxy Authentication Required\r\n\r\n", "wants to know who asks"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
            ("HTTP/1.1 200 OK\r\n", "hung up"),
        ] {
            let (proxy, _asked) = answering(answer).await;
            let error = proxy.connect("broker.example:7443").await.unwrap_err().to_string();
            assert!(
                error.contains(said) && error.contains(proxy.authority()) && error.contains("HTTPS_PROXY"),
                "{error}"
            );
            assert!(!error.contains("sec"), "{error}");
        }
    }
}
