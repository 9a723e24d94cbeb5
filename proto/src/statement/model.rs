//! Builds of a model line: what a lab says answers the calls.
//!
//! Digests are the lab's word. A signed manifest lets others notice that behaviour changed under one; it proves nothing about
//! what ran.

use serde::{Deserialize, Serialize};

use super::{Payload, StatementError, terms::Features};
use crate::names::{Digest, ModelLine, OrgId, Variant};

/// A build's parts by digest, and what it offers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The lab.
    pub lab: OrgId,
    /// The line.
    pub line: ModelLine,
    /// The lab's name for the build.
    pub build: String,
    /// Digests of weights, tokenizer, chat template, system prompt, safeguards and engine settings, by name.
    pub digests: Vec<NamedDigest>,
    /// Variants that it serves.
    pub variants: Vec<Variant>,
    /// Features that it could serve; a grant names the ones it may be asked for.
    pub features: Features,
}

/// A digest with a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedDigest {
    /// For example `weights`.
    pub name: String,
    /// SHA-256.
    pub sha256: Digest,
}

impl Manifest {
    /// Reads a manifest from its bytes.
    ///
    /// # Errors
    /// It cannot be read or breaks a bound.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let manifest: Self = super::parse_json(bytes)?;
        let fail = |field, why| Err(StatementError::Field { field, why });
        if manifest.digests.is_empty() || manifest.digests.len() > 64 {
            return fail("digests", "1 to 64 named digests are expected");
        }
        if manifest.variants.is_empty() || manifest.variants.len() > 16 {
            return fail("variants", "1 to 16 names are expected");
        }
        if manifest.build.is_empty() || manifest.build.len() > 128 {
            return fail("build", "1 to 128 bytes are expected");
        }
        Ok(manifest)
    }

    /// Those of `variants` that the build does not serve.
    #[must_use]
    pub fn without<'v>(&self, variants: &'v [Variant]) -> Vec<&'v Variant> {
        variants.iter().filter(|variant| !self.variants.contains(variant)).collect()
    }
}

/// Registers a build under a line; signed by the lab's signers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The lab.
    pub lab: OrgId,
    /// The line that the build joins, with its running clock.
    pub line: ModelLine,
    /// Digest of the manifest's bytes.
    pub manifest: Digest,
    /// The build of the same line that it follows; absent only for a line's first build.
    pub supersedes: Option<Digest>,
}

impl Payload for Registration {
    const TYPE: &'static str = "application/vnd.anteroom.model.v1+json";
}
