//! Posting to a witness: HTTPS against the roots of the web, or plain HTTP on this machine.

use std::{fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a connection may idle: a checkpoint comes every second or so.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// A witness's submission prefix.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Uri);

/// Why a text is no address of a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a witness's address is `https://host[:port][/path]`, or the same with `http` on this machine's loopback")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let prefix = text.trim_end_matches('/');
        let uri: Uri = format!("{prefix}/add-checkpoint").parse().map_err(|_| AddressError)?;
        let authority = uri.authority().ok_or(AddressError)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let fine = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => loopback,
            Some(_) | None => false,
        };
        let plain = uri.query().is_none() && !prefix.contains('#') && !authority.as_str().contains('@');
        if fine && plain { Ok(Self(uri)) } else { Err(AddressError) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PostError {
    /// TLS cannot be set up on this machine.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The connection or the answer's body failed.
    #[error("it cannot be reached or broke off: {0}")]
    Connection(String),
}

/// Connections to witnesses. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Client(Pool<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    pub(super) fn new() -> Result<Self, PostError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| PostError::Tls(error.to_string()))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let mut pool = Pool::builder(TokioExecutor::new());
        pool.pool_idle_timeout(IDLE_MAX).pool_timer(TokioTimer::new()).pool_max_idle_per_host(1);
        Ok(Self(pool.build(https)))
    }

    /// Posts `body`; the status and the body that came back. The caller bounds the time. No redirect is followed.
    pub(super) async fn post(&self, address: &Address, body: String) -> Result<(u16, Bytes), PostError> {
        let broke = |error: &dyn std::error::Error| {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            PostError::Connection(format!("{error}{cause}"))
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = address.0.clone();
        let text = header::HeaderValue::from_static("text/plain; charset=utf-8");
        request.headers_mut().insert(header::CONTENT_TYPE, text);
        let response = self.0.request(request).await.map_err(|error| broke(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| PostError::Connection(error.to_string()))?;
        Ok((status, body.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        let shown = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        let good = [
            ("https://witness.example", "https://witness.example/add-checkpoint"),
            ("https://witness.example:8443/w1/", "https://witness.example:8443/w1/add-checkpoint"),
            ("http://127.0.0.1:7460", "http://127.0.0.1:7460/add-checkpoint"),
            ("http://[::1]:7460", "http://[::1]:7460/add-checkpoint"),
            ("http://localhost:7460", "http://localhost:7460/add-checkpoint"),
        ];
        for (text, address) in good {
            assert_eq!(shown(text).unwrap(), address);
        }
        for text in [
            "",
            "witness.example",
            "http://witness.example",
            "http://localhost.example",
            "ftp://127.0.0.1",
            "https://user@witness.example",
            "https://witness.example/?a",
            "https://witness.example/#a",
            "/add-checkpoint",
        ] {
            assert_eq!(shown(text), Err(AddressError), "{text}");
        }
    }
}
