//! Who may come in: the browser that opened the link from the terminal, and no page of another origin in it.
//!
//! The link's token is good for one visit, which gets a cookie that pages of other sites can neither read nor have sent. A page that
//! reaches this port under a name of its own (DNS rebinding) is known by its `Host`, one that sends requests from elsewhere by
//! `Origin` and `Sec-Fetch-Site`.
//!
//! **Invariant:** of a request nothing but its head decides; tokens and cookies are compared in the same time whatever was sent.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use data_encoding::BASE32_NOPAD;
use http::{
    HeaderMap, StatusCode,
    header::{COOKIE, HOST, ORIGIN},
    request::Parts,
};
use ring::hmac;

use super::{Asked, reply::Problem};
use crate::{
    gateway::{framing_is_ambiguous, is_ours},
    system::{self, NoRandomness},
};

/// What the path of a link begins with.
pub(super) const LINK: &str = "/open/";
/// Where the browser says whose page asks.
const FETCH_SITE: &str = "sec-fetch-site";
/// What the page's own requests that do something carry. No form and no image can.
pub(super) const INTENT: &str = "x-anteroom-console";

/// The door of one console.
pub(super) struct Door {
    address: SocketAddr,
    key: hmac::Key,
    /// The tag of the link's token until somebody used it.
    link: Mutex<Option<hmac::Tag>>,
    cookie: String,
    session: String,
    tag: hmac::Tag,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A request that may come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Visit {
    /// It used the link; this cookie is its session from here on.
    Opened(String),
    /// It belongs to the session.
    In,
}

impl Door {
    /// A door with a fresh session, and the token that opens it.
    pub(super) fn new(address: SocketAddr) -> Result<(Self, String), NoRandomness> {
        let secret = || Ok::<_, NoRandomness>(BASE32_NOPAD.encode(&system::random::<32>()?).to_lowercase());
        let (token, session) = (secret()?, secret()?);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &system::random::<32>()?);
        let link = Mutex::new(Some(hmac::sign(&key, token.as_bytes())));
        let tag = hmac::sign(&key, session.as_bytes());
        // A browser sends a host's cookies to every port of it, so that two consoles need two names.
        let cookie = format!("anteroom-console-{}", address.port());
        Ok((Self { address, key, link, cookie, session, tag }, token))
    }

    /// Whether a request may come in, by its head alone.
    pub(super) fn check(&self, head: &Parts) -> Result<Visit, Problem> {
        let refused = |code, text: &str| Problem::new(StatusCode::FORBIDDEN, code, text);
        if framing_is_ambiguous(&head.headers) {
            let text = "the request says in two ways where it ends or whom it is for";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "request_ambiguous", text));
        }
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let named = head.uri.authority().map(http::uri::Authority::as_str);
        if !is_ours(host, self.address) || named.is_some_and(|name| !is_ours(name, self.address)) {
            return Err(refused("host_refused", "the request's `Host` is not this console's loopback address"));
        }
        let text = |name| head.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("-"));
        if text(ORIGIN).any(|origin| origin != format!("http://{host}")) {
            return Err(refused("origin_refused", "a page of another origin asked; only the console's own page may"));
        }
        let site = http::HeaderName::from_static(FETCH_SITE);
        if text(site).any(|site| !matches!(site, "same-origin" | "none")) {
            let text = "another page led here; put the link from the terminal into the browser's address bar";
            return Err(refused("site_refused", text));
        }
        if let Some(token) = head.uri.path().strip_prefix(LINK) {
            return self.exchange(token);
        }
        if !self.has_session(&head.headers) {
            let text = "this page opens with the link that `anteroom console` prints when it starts, once; start it \
                        again for another";
            return Err(refused("session_unknown", text));
        }
        Ok(Visit::In)
    }

    /// How the page's own script asks for a round; `None` if it did not.
    pub(super) fn intended(head: &Parts) -> Option<Asked> {
        match head.headers.get(INTENT)?.as_bytes() {
            b"refresh" => Some(Asked::Surely),
            b"live" => Some(Asked::IfNew),
            _ => None,
        }
    }

    fn exchange(&self, token: &str) -> Result<Visit, Problem> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let good = link.as_ref().is_some_and(|tag| hmac::verify(&self.key, token.as_bytes(), tag.as_ref()).is_ok());
        if !good {
            let text = "this link was used already or was never good; start `anteroom console` again for another";
            return Err(Problem::new(StatusCode::FORBIDDEN, "link_used", text));
        }
        *link = None;
        Ok(Visit::Opened(format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie, self.session)))
    }

    fn has_session(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs
            .filter(|(name, _)| *name == self.cookie)
            .any(|(_, value)| hmac::verify(&self.key, value.as_bytes(), self.tag.as_ref()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use http::Request;

    use super::*;

    const HERE: (&str, &str) = ("host", "127.0.0.1:8080");

    fn check(door: &Door, uri: &str, headers: &[(&str, &str)]) -> Result<Visit, (u16, &'static str)> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        door.check(&head).map_err(|problem| (problem.status.as_u16(), problem.code))
    }

    fn door() -> (Door, String) {
        Door::new("127.0.0.1:8080".parse().unwrap()).unwrap()
    }

    fn opened(door: &Door, token: &str) -> String {
        match check(door, &format!("{LINK}{token}"), &[HERE]).unwrap() {
            Visit::Opened(cookie) => cookie,
            Visit::In => String::new(),
        }
    }

    #[test]
    fn a_link_opens_once_and_gives_a_cookie_that_scripts_and_other_sites_do_not_get() {
        let (door, token) = door();
        assert_eq!(check(&door, &format!("{LINK}{token}x"), &[HERE]), Err((403, "link_used")));
        assert_eq!(check(&door, LINK, &[HERE]), Err((403, "link_used")));
        let cookie = opened(&door, &token);
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
        assert_eq!(check(&door, &format!("{LINK}{token}"), &[HERE]), Err((403, "link_used")));
        let pair = cookie.split(';').next().unwrap();
        assert_eq!(check(&door, "/", &[HERE, ("cookie", pair)]), Ok(Visit::In));
        assert_eq!(check(&door, "/", &[HERE, ("cookie", &format!("a=b; {pair}; c=d"))]), Ok(Visit::In));
        for wrong in [format!("{pair}x"), pair.replace("8080", "8081"), String::new(), "anteroom-console-8080=".into()]
        {
            assert_eq!(check(&door, "/", &[HERE, ("cookie", &wrong)]), Err((403, "session_unknown")), "{wrong}");
        }
        assert_eq!(check(&door, "/", &[HERE]), Err((403, "session_unknown")));
    }

    #[test]
    fn pages_of_other_origins_stay_outside_with_the_cookie_and_do_not_use_up_the_link() {
        let (door, token) = door();
        let link = format!("{LINK}{token}");
        for (name, value, code) in [
            ("origin", "https://evil.example", "origin_refused"),
            ("origin", "http://127.0.0.1:8081", "origin_refused"),
            ("origin", "http://localhost:8080", "origin_refused"),
            ("origin", "null", "origin_refused"),
            ("sec-fetch-site", "cross-site", "site_refused"),
            ("sec-fetch-site", "same-site", "site_refused"),
            ("sec-fetch-site", "", "site_refused"),
        ] {
            assert_eq!(check(&door, &link, &[HERE, (name, value)]), Err((403, code)), "{value}");
        }
        let cookie = opened(&door, &token);
        let cookie = ("cookie", cookie.split(';').next().unwrap());
        for refused in [("origin", "https://evil.example"), ("sec-fetch-site", "same-site")] {
            assert!(check(&door, "/api/rows", &[HERE, cookie, refused]).is_err());
        }
        for own in [("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")]
        {
            assert_eq!(check(&door, "/api/rows", &[HERE, cookie, own]), Ok(Visit::In));
        }
    }

    #[test]
    fn only_loopback_names_with_our_port_are_answered() {
        let (door, token) = door();
        let cookie = opened(&door, &token);
        let cookie = ("cookie", cookie.split(';').next().unwrap());
        for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"] {
            assert_eq!(check(&door, "/", &[("host", host), cookie]), Ok(Visit::In), "{host}");
        }
        for host in ["127.0.0.1", "127.0.0.1:80", "evil.example:8080", "127.0.0.1.evil.example:8080", ""] {
            assert_eq!(check(&door, "/", &[("host", host), cookie]), Err((403, "host_refused")), "{host}");
        }
        assert_eq!(check(&door, "http://evil.example:8080/", &[HERE, cookie]), Err((403, "host_refused")));
        let twice = [HERE, ("host", "evil.example:8080"), cookie];
        assert_eq!(check(&door, "/", &twice), Err((400, "request_ambiguous")));
    }
}
