//! The enrolment door: a one-time token and a certificate request become a first certificate.
//!
//! **Invariant:** nothing here is done for anybody who has no token, and a token is worth one certificate.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use anteroom_policy::refusal::Refusal;
use anteroom_proto::rpc::{EnrolReply, EnrolRequest, enrolment_server};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tonic::{Request, Response, Status};

use crate::{
    clock::Timekeeper,
    entropy::SystemEntropy,
    identity::{Caller, Newcomer},
    pki::{
        ca::{Ca, ClientLifetime, IssuedClient},
        enrol::{self, EnrolError},
        token::{TokenError, TokenStore},
    },
    status::Reject,
};

/// Enrolments and renewals worked on at once; others wait.
pub const ENROLMENTS_MAX: usize = 4;
/// Most bytes of a token that is looked at.
const TOKEN_BYTES_MAX: usize = 256;

/// What members verify the broker with, PEM: asked for with each certificate, since it may change.
#[derive(Clone)]
pub struct Roots(Arc<dyn Fn() -> Arc<str> + Send + Sync>);

impl Roots {
    /// Those that `now` answers with.
    #[must_use]
    pub fn new(now: impl Fn() -> Arc<str> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Roots(..)")
    }
}

/// Where certificates are made: the authority, and for how long it vouches. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Registrar {
    ca: Arc<Ca>,
    lifetime: ClientLifetime,
    roots: Roots,
    clock: Arc<Timekeeper>,
    turns: Arc<Semaphore>,
}

impl Registrar {
    /// Certificates of `ca` that live for `lifetime`; members verify the broker with `roots`.
    #[must_use]
    pub fn new(ca: Arc<Ca>, lifetime: ClientLifetime, roots: Roots, clock: Arc<Timekeeper>) -> Self {
        Self { ca, lifetime, roots, clock, turns: Arc::new(Semaphore::new(ENROLMENTS_MAX)) }
    }

    /// Makes the next certificate of somebody who has one.
    ///
    /// # Errors
    /// `csr_invalid`, `certificate_not_ours`, `certificate_not_issued`.
    pub async fn renew(&self, caller: Caller, csr_der: Vec<u8>) -> Result<EnrolReply, Reject> {
        self.issue(move |registrar, now_ms| {
            let entropy = &mut SystemEntropy::new();
            enrol::renew(&registrar.ca, &caller, &csr_der, registrar.lifetime, now_ms, entropy)
        })
        .await
    }

    /// Runs `issue` where it may wait for the disk.
    async fn issue(
        &self,
        issue: impl FnOnce(&Self, i64) -> Result<IssuedClient, EnrolError> + Send + 'static,
    ) -> Result<EnrolReply, Reject> {
        let failed = || Reject::new(Refusal::CertificateNotIssued);
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| failed())?;
        let registrar = self.clone();
        let issued = spawn_blocking(move || {
            let _turn = turn;
            issue(&registrar, registrar.clock.now().at_ms)
        });
        let issued = issued.await.map_err(|_| failed())?.map_err(|error| refusal(&error))?;
        Ok(EnrolReply {
            certificate_pem: issued.cert_pem,
            roots_pem: (self.roots.0)().to_string(),
            not_after_ms: issued.identity.not_after_ms,
            identity: issued.identity.principal.to_string(),
        })
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct Enrolment {
    registrar: Registrar,
    tokens: Arc<TokenStore>,
}

impl Enrolment {
    /// Trades tokens of `tokens` for certificates of `registrar`.
    #[must_use]
    pub const fn new(registrar: Registrar, tokens: Arc<TokenStore>) -> Self {
        Self { registrar, tokens }
    }

    async fn trade(&self, request: EnrolRequest) -> Result<EnrolReply, Reject> {
        let EnrolRequest { token, csr_der } = request;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TokenInvalid.into());
        }
        let tokens = Arc::clone(&self.tokens);
        self.registrar
            .issue(move |registrar, now_ms| {
                let entropy = &mut SystemEntropy::new();
                enrol::enrol(&registrar.ca, &tokens, &token, &csr_der, registrar.lifetime, now_ms, entropy)
            })
            .await
    }
}

/// What a newcomer is told; the operator finds the rest in the log of the process.
fn refusal(error: &EnrolError) -> Reject {
    match error {
        // Whether a token was never minted or merely misspelt is nobody's business.
        EnrolError::Token(TokenError::Malformed | TokenError::Unknown) => Refusal::TokenInvalid.into(),
        EnrolError::Token(TokenError::Used) => Refusal::TokenUsed.into(),
        EnrolError::Token(TokenError::Expired) => Refusal::TokenExpired.into(),
        EnrolError::Csr(error) => Reject::new(Refusal::CsrInvalid).detail(error.to_string()),
        EnrolError::NotOurs => Refusal::CertificateNotOurs.into(),
        EnrolError::Token(TokenError::Full | TokenError::Damaged | TokenError::Store(_)) | EnrolError::Ca(_) => {
            tracing::error!(code = error.code(), %error, "no certificate was issued");
            Refusal::CertificateNotIssued.into()
        }
    }
}

#[tonic::async_trait]
impl enrolment_server::Enrolment for Enrolment {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        // The listener of this door marks everybody; whoever comes by another door is not served.
        if request.extensions().get::<Newcomer>().is_none() {
            return Err(Reject::new(Refusal::CallerRole).into());
        }
        let reply = self.trade(request.into_inner()).await?;
        Ok(Response::new(reply))
    }
}
