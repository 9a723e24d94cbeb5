//! A call's claim, checked: who signed it, over which body.

use anteroom_proto::{
    names::{CallId, Digest, GrantId, RunId},
    rpc::{CallClaim, Marking, SignedStatement},
    statement::envelope,
    time::At,
};
use ring::hmac;

use crate::{refusal::Refusal, standing::IssuedCredential};

/// A claim that the run credential's workload key signed over the body at hand. Made by [`ReadClaim::verify`] alone.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifiedClaim {
    read: ReadClaim,
}

/// A claim that can be read; nothing is known of its signature.
#[derive(Clone, Debug)]
pub struct ReadClaim {
    statement: SignedStatement,
    grant: GrantId,
    run: RunId,
    credential: Digest,
    call: CallId,
    claim: CallClaim,
}

impl ReadClaim {
    /// Reads a claim.
    ///
    /// # Errors
    /// `claim_invalid`.
    pub fn read(statement: SignedStatement) -> Result<Self, Refusal> {
        let claim: CallClaim = envelope::read_claim(&statement).map_err(|_| Refusal::ClaimInvalid)?;
        let invalid = |_| Refusal::ClaimInvalid;
        Ok(Self {
            grant: GrantId::from_slice(&claim.grant).map_err(invalid)?,
            run: RunId::parse(&claim.run).map_err(invalid)?,
            credential: Digest::from_slice(&claim.credential).map_err(invalid)?,
            call: CallId::from_slice(&claim.call).map_err(invalid)?,
            statement,
            claim,
        })
    }

    /// Checks the signature by the credential's workload key and the commitment to the body.
    ///
    /// # Errors
    /// `claim_signature`, or `claim_invalid` where claim, credential and body do not belong together.
    pub fn verify(self, held: &IssuedCredential, body: &[u8], body_key: &[u8; 32]) -> Result<VerifiedClaim, Refusal> {
        let credential = &held.credential;
        if Digest::of(&held.statement.payload) != self.credential
            || credential.grant != self.grant
            || credential.run != self.run
        {
            return Err(Refusal::ClaimInvalid);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, body_key);
        hmac::verify(&key, body, &self.claim.body_mac).map_err(|_| Refusal::ClaimInvalid)?;
        envelope::verify_by(&self.statement, &credential.workload).map_err(|_| Refusal::ClaimSignature)?;
        Ok(VerifiedClaim { read: self })
    }

    /// The statement.
    #[must_use]
    pub const fn statement(&self) -> &SignedStatement {
        &self.statement
    }

    /// The grant named.
    #[must_use]
    pub const fn grant(&self) -> GrantId {
        self.grant
    }

    /// The run named.
    #[must_use]
    pub const fn run(&self) -> &RunId {
        &self.run
    }

    /// The run credential named.
    #[must_use]
    pub const fn credential(&self) -> Digest {
        self.credential
    }

    /// The call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.call
    }

    /// The route.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.claim.route
    }

    /// The declared marking.
    #[must_use]
    pub const fn marking(&self) -> Option<&Marking> {
        self.claim.marking.as_ref()
    }

    /// How many records the newest checkpoint has that the caller verified.
    #[must_use]
    pub const fn seen_size(&self) -> u64 {
        self.claim.seen_size
    }

    /// The caller's clock.
    #[must_use]
    pub const fn at(&self) -> At {
        At::clamped(self.claim.at_ms)
    }

    /// Size and root of the newest checkpoint the caller verified.
    #[must_use]
    pub fn seen(&self) -> (u64, &[u8]) {
        (self.claim.seen_size, &self.claim.seen_root)
    }
}

impl std::ops::Deref for VerifiedClaim {
    type Target = ReadClaim;
    fn deref(&self) -> &ReadClaim {
        &self.read
    }
}
