//! A connection and the callers it carries.
//!
//! **Invariant:** a [`Caller`] exists only for a request whose connection was alive and whose certificate was in date when it was
//! made. It cannot be copied or built elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::{Identity, IdentityRefusal, Role};

/// Which trust stands behind a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// The built-in CA.
    BuiltIn,
    /// An existing PKI, by its name in the mapping file.
    Existing(String),
}

/// A switch that is thrown once and stays thrown.
#[derive(Debug, Clone)]
pub struct Kill {
    thrown: watch::Sender<bool>,
}

impl Kill {
    /// A switch not yet thrown.
    #[must_use]
    pub fn new() -> Self {
        Self { thrown: watch::Sender::new(false) }
    }

    /// Throws the switch. Throwing it twice is the same as once.
    pub fn fire(&self) {
        self.thrown.send_replace(true);
    }

    /// Whether it was thrown.
    #[must_use]
    pub fn fired(&self) -> bool {
        *self.thrown.borrow()
    }

    /// Ends when the switch is thrown, at once if it was already.
    pub async fn wait(&self) {
        let mut watching = self.thrown.subscribe();
        // The sender lives in `self`, so the channel cannot close under this wait.
        drop(watching.wait_for(|thrown| *thrown).await);
    }
}

impl Default for Kill {
    fn default() -> Self {
        Self::new()
    }
}

/// One mutually authenticated connection, shared by all its requests as `Arc<Conn>` in their extensions.
#[derive(Debug)]
pub struct Conn {
    peer: SocketAddr,
    identity: Identity,
    authority: Authority,
    chain: Vec<CertificateDer<'static>>,
    kill: Kill,
}

impl Conn {
    pub(crate) fn new(
        peer: SocketAddr,
        identity: Identity,
        authority: Authority,
        chain: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self { peer, identity, authority, chain, kill: Kill::new() }
    }

    /// The other end's address, as the kernel reports it or, behind a listed proxy, as the proxy does.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What the certificate said at the handshake. Use [`Conn::caller`] before acting on it.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Which trust stands behind the certificate.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Closes the connection at once, with every stream on it.
    pub fn close(&self) {
        self.kill.fire();
    }

    /// The switch that closes the connection; also tells when it is gone for any other reason.
    #[must_use]
    pub const fn kill(&self) -> &Kill {
        &self.kill
    }

    /// Proves that this connection may still speak for its identity at `now_ms` (Unix milliseconds).
    ///
    /// # Errors
    /// [`IdentityRefusal::Closed`] after the connection was closed, [`IdentityRefusal::Expired`] past the certificate's end,
    /// [`IdentityRefusal::Untrusted`] when the clock stands before 1970 and so proves nothing.
    pub fn caller(self: &Arc<Self>, now_ms: i64) -> Result<Caller, IdentityRefusal> {
        if self.kill.fired() {
            return Err(IdentityRefusal::Closed);
        }
        if now_ms < 0 {
            return Err(IdentityRefusal::Untrusted);
        }
        if now_ms > self.identity.not_after_ms {
            return Err(IdentityRefusal::Expired);
        }
        Ok(Caller { conn: Arc::clone(self) })
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// The proof that a request comes from an identity whose certificate was in date when the request arrived.
#[must_use]
#[derive(Debug)]
pub struct Caller {
    conn: Arc<Conn>,
}

impl Caller {
    /// Who is calling.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.conn.identity()
    }

    /// The connection the request came on.
    #[must_use]
    pub const fn conn(&self) -> &Arc<Conn> {
        &self.conn
    }

    /// Passes the proof on if the caller plays one of `roles`.
    ///
    /// # Errors
    /// [`IdentityRefusal::Role`] if it plays none of them.
    pub fn playing(self, roles: &[Role]) -> Result<Self, IdentityRefusal> {
        if roles.contains(&self.identity().role()) { Ok(self) } else { Err(IdentityRefusal::Role) }
    }
}

/// Somebody at the enrolment door: an address and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newcomer {
    /// The other end's address, as the kernel reports it or, behind a listed proxy, as the proxy does.
    pub peer: SocketAddr,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::identity::Principal;

    fn conn(not_after_ms: i64) -> Arc<Conn> {
        let principal = Principal::new("aisi", Role::Person, "alice").unwrap();
        let identity = Identity { principal, serial: "01".to_owned(), not_after_ms, fingerprint: [0; 32] };
        Arc::new(Conn::new(([127, 0, 0, 1], 1).into(), identity, Authority::BuiltIn, Vec::new()))
    }

    #[test]
    fn caller_is_refused_past_the_certificates_end() {
        let conn = conn(1_000);
        assert_eq!(conn.caller(1_000).unwrap().identity().name(), "alice");
        assert_eq!(conn.caller(1_001).unwrap_err(), IdentityRefusal::Expired);
        assert_eq!(conn.caller(-1).unwrap_err(), IdentityRefusal::Untrusted);
    }

    #[test]
    fn caller_is_refused_on_a_closed_connection() {
        let conn = conn(1_000);
        conn.close();
        assert_eq!(conn.caller(0).unwrap_err(), IdentityRefusal::Closed);
    }

    #[test]
    fn caller_of_another_role_is_refused() {
        let conn = conn(1_000);
        assert!(conn.caller(0).unwrap().playing(&[Role::Admin, Role::Person]).is_ok());
        assert_eq!(conn.caller(0).unwrap().playing(&[Role::Admin]).unwrap_err(), IdentityRefusal::Role);
    }

    #[tokio::test]
    async fn waiting_on_a_thrown_switch_ends() {
        let kill = Kill::new();
        let other = kill.clone();
        let waiting = tokio::spawn(async move { other.wait().await });
        kill.fire();
        waiting.await.unwrap();
        kill.wait().await;
    }
}
