//! A lab's side: what it lends, to whom, for how long, and how it ends that.
//!
//! **Invariant:** every act is signed by keys that this process was given; the connection it goes over adds nothing to it.

mod template;

use std::sync::Arc;

use anteroom_proto::{
    ledger::scope::TagKey,
    names::{Digest, GrantId, ModelLine, OrgId},
    statement::{
        acts::{Offer, StopKind},
        model::{Manifest, Registration},
        terms::Terms,
    },
};
use tonic::transport::Channel;

pub use template::{RunPlan, TermsTemplate};

use crate::{
    acts::{Organisation, Recorded},
    error::{Error, VerificationError},
    log::LogView,
    signer::SharedSigner,
    verify::scope::TagKeys,
};

/// A lab's connection.
#[derive(Clone, Debug)]
pub struct Lab(Organisation);

/// An offer on record.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The grant.
    pub grant: GrantId,
    /// SHA-256 of the terms' bytes.
    pub terms: Digest,
    /// The key of the grant's tags.
    pub tag_key: TagKey,
    /// The record.
    pub recorded: Recorded,
}

impl Lab {
    /// Over this channel, as this lab, believing this log.
    #[must_use]
    pub fn new(channel: Channel, org: OrgId, log: Arc<LogView>, keys: TagKeys) -> Self {
        Self(Organisation::new(channel, org, log, keys))
    }

    /// What a lab has in common with other organisations: enrolling, pausing, locking, appointing.
    pub const fn organisation(&mut self) -> &mut Organisation {
        &mut self.0
    }

    /// Registers a build of a line. `supersedes` is the build before it, absent only for a line's first.
    ///
    /// # Errors
    /// The manifest is unusable or another lab's, the broker refuses, or the proof does not hold.
    pub async fn register_model(
        &mut self,
        manifest: Vec<u8>,
        supersedes: Option<Digest>,
        signers: &[SharedSigner],
    ) -> Result<Recorded, Error> {
        let read = Manifest::parse(&manifest)?;
        if read.lab != *self.0.org() {
            return Err(VerificationError::Other("lab").into());
        }
        let line: ModelLine = read.line;
        let act = Registration { lab: read.lab, line, manifest: Digest::of(&manifest), supersedes };
        self.0.sign_and_submit(&act, signers, manifest).await
    }

    /// What a lab's signers sign to offer these terms, where several sign one after the other.
    ///
    /// # Errors
    /// The terms are out of bounds.
    pub fn offer_of(terms: &[u8]) -> Result<Offer, Error> {
        let read = Terms::parse(terms)?;
        Ok(Offer { grant: read.grant, terms: Digest::of(terms), lab: read.lab.org, key_set: read.lab.key_set })
    }

    /// Signs terms and offers the grant that they name. The bytes are what both sides sign; keep them.
    ///
    /// # Errors
    /// The terms are out of bounds or another lab's, the broker refuses, or the proof does not hold.
    pub async fn offer(&mut self, terms: Vec<u8>, signers: &[SharedSigner]) -> Result<Offered, Error> {
        let read = Terms::parse(&terms)?;
        if read.lab.org != *self.0.org() {
            return Err(VerificationError::Other("lab").into());
        }
        let digest = Digest::of(&terms);
        let act = Self::offer_of(&terms)?;
        self.0.learn_grant(read.grant, &read.nonce);
        let recorded = self.0.sign_and_submit(&act, signers, terms).await?;
        let scope = anteroom_proto::ledger::scope::Scope::Grant(read.grant);
        Ok(Offered { grant: read.grant, terms: digest, tag_key: scope.tag_key(&read.nonce), recorded })
    }

    /// Ends a grant for good, at once, with one signature of a signer or stop key. Nobody's consent is needed and nothing that
    /// happened meanwhile can make it fail; handing it in again after a broken connection is safe.
    ///
    /// # Errors
    /// The broker cannot be reached, or the proof does not hold.
    pub async fn withdraw(&mut self, grant: GrantId, reason: &str, signer: &SharedSigner) -> Result<Recorded, Error> {
        let (_, recorded) = self.0.stop(StopKind::Withdraw, grant, reason, signer).await?;
        Ok(recorded)
    }
}
