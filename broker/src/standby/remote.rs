//! A standby on another machine, as the broker talks to it: HTTP over pinned mutual TLS, one request at a time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anteroom_proto::ledger::{logkeys::LogKeys, tree::Hash};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    badge::{Badge, BadgeError, Fingerprint},
    packet,
    replica::{Held, Shipped},
    ship::{ShipError, Target},
};
use crate::book::{keyfiles::WrappedKey, keyring::KeyId, lock::Locked};

/// How long one request may take, its connection included.
const TURN_MAX: Duration = Duration::from_secs(20);

/// The standby.
#[derive(Debug)]
pub struct RemoteTarget {
    authority: String,
    tls: Arc<ClientConfig>,
    runtime: Runtime,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl RemoteTarget {
    /// The standby at `host:port`, whose certificate is `peer`. Nothing is connected yet.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(authority: &str, badge: &Badge, peer: Fingerprint) -> Result<Self, BadgeError> {
        let failed = |source| BadgeError::Write { path: "the shipping thread".to_owned(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        Ok(Self { authority: authority.to_owned(), tls: badge.client(peer)?, runtime, open: None })
    }

    fn ask(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<serde_json::Value, ShipError> {
        let open = self.open.take();
        let asked = ask(&self.authority, &self.tls, open, method, path, body.into());
        let answered = self.runtime.block_on(async { timeout(TURN_MAX, asked).await });
        let (open, status, body) =
            answered.map_err(|_| ShipError::Unreachable(format!("no answer within {TURN_MAX:?}")))??;
        let said: serde_json::Value =
            serde_json::from_slice(&body).map_err(|error| ShipError::Unreachable(format!("its answer: {error}")))?;
        if status == 200 {
            self.open = Some(open);
            return Ok(said);
        }
        let text = |key: &str| said.get(key).and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
        Err(ShipError::Said { code: text("code"), text: text("text") })
    }
}

async fn ask(
    authority: &str,
    tls: &Arc<ClientConfig>,
    open: Option<SendRequest<Full<Bytes>>>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(SendRequest<Full<Bytes>>, u16, Bytes), ShipError> {
    let broke = |error: &dyn std::fmt::Display| ShipError::Unreachable(error.to_string());
    let mut sender = match open {
        Some(sender) if !sender.is_closed() => sender,
        Some(_) | None => connect(authority, tls).await?,
    };
    let request = Request::builder().method(method).uri(path).header(header::HOST, authority);
    let request = request.body(Full::new(body)).map_err(|error| broke(&error))?;
    sender.ready().await.map_err(|error| broke(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broke(&error))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), packet::ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| broke(&error))?.to_bytes();
    Ok((sender, status, body))
}

async fn connect(authority: &str, tls: &Arc<ClientConfig>) -> Result<SendRequest<Full<Bytes>>, ShipError> {
    let broke = |error: &dyn std::fmt::Display| ShipError::Unreachable(error.to_string());
    let stream = TcpStream::connect(authority).await.map_err(|error| broke(&error))?;
    stream.set_nodelay(true).map_err(|error| broke(&error))?;
    // The certificate is pinned; the name is only what TLS wants to be given.
    let name = ServerName::try_from("standby.anteroom.invalid").map_err(|error| broke(&error))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(|error| broke(&error))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broke(&error))?;
    tokio::spawn(async move {
        // Whoever sends next is told.
        let _ = connection.await;
    });
    Ok(sender)
}

fn number(said: &serde_json::Value, key: &str) -> Option<u64> {
    said.get(key)?.as_u64()
}

fn held(said: &serde_json::Value) -> Option<Held> {
    let size = number(said, "size")?;
    let root = Hash::from_base64(said.get("root")?.as_str()?).ok()?;
    let mut keys = BTreeSet::new();
    for key in said.get("keys")?.as_array()? {
        let id = data_encoding::HEXLOWER.decode(key.as_str()?.as_bytes()).ok()?;
        keys.insert(KeyId(id.try_into().ok()?));
    }
    Some(Held { head: Locked { size, root }, keys })
}

fn unreadable() -> ShipError {
    ShipError::Unreachable("its answer is not what goes with the question".to_owned())
}

impl Target for RemoteTarget {
    fn held(&mut self) -> Result<Held, ShipError> {
        let said = self.ask(Method::GET, packet::HELD, Vec::new())?;
        held(&said).ok_or_else(unreadable)
    }

    fn follow(&mut self, keys: &LogKeys) -> Result<(), ShipError> {
        self.ask(Method::POST, packet::LOG_KEYS, keys.encode().into_bytes())?;
        Ok(())
    }

    fn append(&mut self, batches: &[Shipped]) -> Result<u64, ShipError> {
        let said = self.ask(Method::POST, packet::BATCHES, packet::batches(batches))?;
        number(&said, "size").ok_or_else(unreadable)
    }

    fn put_keys(&mut self, keys: &[WrappedKey]) -> Result<(), ShipError> {
        for keys in keys.chunks(packet::KEYS_MAX) {
            self.ask(Method::POST, packet::KEYS, packet::keys(keys))?;
        }
        Ok(())
    }

    fn destroy_keys(&mut self, ids: &[KeyId]) -> Result<(), ShipError> {
        for ids in ids.chunks(packet::KEYS_MAX) {
            self.ask(Method::POST, packet::GONE, packet::gone(ids))?;
        }
        Ok(())
    }
}
