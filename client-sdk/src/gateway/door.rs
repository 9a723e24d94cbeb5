//! Who may come in: whoever holds the local token and is no web page.
//!
//! The gateway speaks for its user's folder, so that another user of the machine, or a page in a browser, must not speak through
//! it. A page can send requests to loopback (it cannot read the token's file, but may guess), and by DNS rebinding under a name of
//! its own, which is why the `Host` has to be a loopback one and an `Origin` is refused.
//!
//! **Invariant:** nothing of a request but its head is read before [`Door::check`] let it in, and the comparison with the token
//! takes as long whatever was sent.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::BASE32_NOPAD;
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING},
    request::Parts,
};
use ring::hmac;

use super::reply::Problem;
use crate::{durable, home::HomeError, system};

/// The token's file in a party's folder.
const TOKEN_FILE: &str = "gateway.token";
/// What tokens begin with, so that a scanner of sources knows one that strayed.
const TOKEN_PREFIX: &str = "anteroom-local-";
/// Largest file that is read for a token.
const TOKEN_BYTES_MAX: u64 = 1024;
/// Where other tools put their keys.
const API_KEY: &str = "x-api-key";

/// Where a gateway is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A socket in the file system, which no browser reaches.
    Unix,
}

/// The local token, and where the door is.
pub(super) struct Door {
    place: Place,
    /// Tokens are compared by their tags, which says nothing about where they differ.
    key: hmac::Key,
    tag: hmac::Tag,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Door {
    pub(super) fn new(place: Place, token: &str) -> Result<Self, HomeError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &system::random::<32>()?);
        let tag = hmac::sign(&key, token.as_bytes());
        Ok(Self { place, key, tag })
    }

    /// Whether a request may come in, by its head alone.
    pub(super) fn check(&self, head: &Parts) -> Result<(), Problem> {
        self.framing(&head.headers)?;
        self.host(head)?;
        if head.headers.contains_key(ORIGIN) {
            let message = "web pages have no business here: a request with an `Origin` is refused";
            return Err(Problem::own(StatusCode::FORBIDDEN, "origin_refused", message));
        }
        let known = presented(&head.headers).is_some_and(|token| self.holds(token));
        if known {
            return Ok(());
        }
        let message = "the gateway's token is expected as `Authorization: Bearer TOKEN` or `x-api-key: TOKEN`; it stands in \
                       the file that `anteroom gateway` names when it starts";
        Err(Problem::own(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
    }

    fn holds(&self, token: &[u8]) -> bool {
        hmac::verify(&self.key, token, self.tag.as_ref()).is_ok()
    }

    /// Two ways to say where a body ends are one too many. The HTTP layer itself takes a length beside chunks away, and such a
    /// request is the last on its connection; were both ever shown, it would be refused here.
    fn framing(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if framing_is_ambiguous(headers) {
            let message = "the request says in two ways where it ends or whom it is for";
            return Err(Problem::own(StatusCode::BAD_REQUEST, "request_ambiguous", message));
        }
        Ok(())
    }

    fn host(&self, head: &Parts) -> Result<(), Problem> {
        let Place::Tcp(address) = &self.place else { return Ok(()) };
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let named = head.uri.authority().map(http::uri::Authority::as_str);
        let ours = |name: &str| is_ours(name, *address);
        if host.is_some_and(ours) && named.is_none_or(ours) {
            return Ok(());
        }
        let message = "the request's `Host` is not this gateway's loopback address";
        Err(Problem::own(StatusCode::FORBIDDEN, "host_refused", message))
    }
}

/// Whether a head says in two ways where its request ends or whom it is for.
pub(crate) fn framing_is_ambiguous(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH)
        || headers.get_all(CONTENT_LENGTH).iter().count() > 1
        || headers.get_all(HOST).iter().count() > 1
}

/// Whether a `Host` is a loopback name with our port.
pub(crate) fn is_ours(host: &str, address: SocketAddr) -> bool {
    let Some((name, port)) = host.rsplit_once(':') else { return false };
    let loopback = ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| known.eq_ignore_ascii_case(name))
        || name.trim_matches(['[', ']']).parse() == Ok(address.ip());
    loopback && port == address.port().to_string()
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes());
    }
    headers.get(API_KEY).map(http::HeaderValue::as_bytes)
}

/// The token of a party's folder and where it stands; made if there is none.
pub(super) fn token(home: &Path) -> Result<(String, PathBuf), HomeError> {
    let path = home.join(TOKEN_FILE);
    let failed = |why| HomeError::Io { path: path.clone(), why };
    if let Some(token) = read(&path)? {
        return Ok((token, path));
    }
    let token = format!("{TOKEN_PREFIX}{}", BASE32_NOPAD.encode(&system::random::<32>()?).to_lowercase());
    // Made whole beside its place, then linked there: of two gateways that start at once, one makes it and both read it.
    let fresh = home.join(format!("{TOKEN_FILE}.{}.new", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(failed)?;
    file.write_all(token.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let linked = fs::hard_link(&fresh, &path);
    fs::remove_file(&fresh).map_err(failed)?;
    match linked {
        Ok(()) => {
            durable::sync_dir(home).map_err(failed)?;
            Ok((token, path))
        }
        Err(why) if why.kind() == ErrorKind::AlreadyExists => match read(&path)? {
            Some(token) => Ok((token, path)),
            None => Err(HomeError::Io { path, why }),
        },
        Err(why) => Err(HomeError::Io { path, why }),
    }
}

fn read(path: &Path) -> Result<Option<String>, HomeError> {
    let failed = |why| HomeError::Io { path: path.to_owned(), why };
    let unusable = |why: &str| HomeError::Text { path: path.to_owned(), why: why.to_owned() };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(failed(why)),
    };
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(unusable("others than its owner can read it; remove it, and another token is made"));
    }
    let mut text = String::new();
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim();
    let plain = token.bytes().all(|b| b.is_ascii_graphic());
    if token.len() < 32 || !plain {
        return Err(unusable("it holds no token; remove it, and another one is made"));
    }
    Ok(Some(token.to_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use http::Request;

    use super::*;

    fn check(uri: &str, headers: &[(&str, &str)]) -> Result<(), (u16, String)> {
        let door = Door::new(Place::Tcp("127.0.0.1:8080".parse().unwrap()), "the-token").unwrap();
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        door.check(&head).map_err(|problem| (problem.status().as_u16(), problem.code().to_owned()))
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:8080");
    const TOKEN: (&str, &str) = ("authorization", "Bearer the-token");

    #[test]
    fn the_token_opens_and_nothing_else_does() {
        assert_eq!(check("/v1/models", &[HERE, TOKEN]), Ok(()));
        assert_eq!(check("/v1/models", &[HERE, ("authorization", "bearer the-token")]), Ok(()));
        assert_eq!(check("/v1/models", &[HERE, ("x-api-key", "the-token")]), Ok(()));
        let refused = Err((401, "invalid_api_key".to_owned()));
        for wrong in ["Bearer the-tokem", "Bearer the-token2", "Bearer ", "Bearer", "Basic the-token", "the-token", ""]
        {
            assert_eq!(check("/", &[HERE, ("authorization", wrong)]), refused, "{wrong}");
            // A wrong one is not made good by a right one elsewhere.
            assert_eq!(check("/", &[HERE, ("authorization", wrong), ("x-api-key", "the-token")]), refused, "{wrong}");
        }
        assert_eq!(check("/", &[HERE]), refused);
    }

    #[test]
    fn only_loopback_names_with_our_port_are_ours() {
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080"] {
            assert_eq!(check("/", &[("host", host), TOKEN]), Ok(()), "{host}");
        }
        let refused = Err((403, "host_refused".to_owned()));
        for host in [
            "127.0.0.1",
            "localhost",
            "127.0.0.1:8081",
            "localhost:08080",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "127.0.0.1.nip.example:8080",
            "",
        ] {
            assert_eq!(check("/", &[("host", host), TOKEN]), refused, "{host}");
        }
        assert_eq!(check("/", &[TOKEN]), refused);
        assert_eq!(check("http://evil.example:8080/", &[HERE, TOKEN]), refused);
    }

    #[test]
    fn web_pages_and_ambiguous_requests_are_refused_even_with_the_token() {
        for origin in ["http://127.0.0.1:8080", "null", "https://evil.example"] {
            let refused = check("/", &[HERE, TOKEN, ("origin", origin)]);
            assert_eq!(refused, Err((403, "origin_refused".to_owned())), "{origin}");
        }
        let ambiguous = Err((400, "request_ambiguous".to_owned()));
        assert_eq!(check("/", &[HERE, TOKEN, ("content-length", "5"), ("transfer-encoding", "chunked")]), ambiguous);
        assert_eq!(check("/", &[HERE, ("host", "localhost:8080"), TOKEN]), ambiguous);
        assert_eq!(check("/", &[HERE, TOKEN, ("content-length", "5"), ("content-length", "6")]), ambiguous);
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let (token, path) = super::token(home.path()).unwrap();
        assert!(token.starts_with(TOKEN_PREFIX) && token.len() > 60);
        assert_eq!(super::token(home.path()).unwrap(), (token, path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(super::token(home.path()), Err(HomeError::Text { .. })));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "short").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(super::token(home.path()), Err(HomeError::Text { .. })));
    }
}
