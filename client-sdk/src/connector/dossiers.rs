//! What each grant rests on, fetched from the broker, verified under the lab's pins, and kept.
//!
//! **Invariant:** nothing unverified is kept. The broker is asked again only for a grant or credential that is not at hand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use anteroom_proto::{
    names::{Digest, GrantId, OrgId},
    rpc::{GetDossierRequest, directory_client::DirectoryClient},
    statement::terms::Terms,
};
use tokio::sync::Mutex;
use tonic::transport::Channel;

use super::check::{CheckFailure, Claimed};
use crate::verify::dossier::{DossierError, Pins, VerifiedDossier};

/// Most grants whose dossiers are kept; the one fetched first goes first.
pub const DOSSIERS_MAX: usize = 256;

/// The fingerprints that the lab compared out of band.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// Its own.
    pub lab: Digest,
    /// Of each agency and partner it lends to.
    pub agencies: BTreeMap<OrgId, Digest>,
}

/// Verified dossiers by grant.
#[derive(Debug)]
pub struct Dossiers {
    directory: DirectoryClient<Channel>,
    pinned: Pinned,
    held: Mutex<Held>,
    /// One question to the broker at a time: while a new credential is fetched for one call, the others of the same workload
    /// wait for the same answer.
    asking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    dossiers: BTreeMap<GrantId, Arc<VerifiedDossier>>,
    order: VecDeque<GrantId>,
}

impl Dossiers {
    /// None at hand yet.
    #[must_use]
    pub fn new(directory: DirectoryClient<Channel>, pinned: Pinned) -> Self {
        Self { directory, pinned, held: Mutex::default(), asking: Mutex::new(()) }
    }

    /// The verified dossier of a call's grant, fetched if it or the call's credential is not at hand, or if `build` does not answer by it:
    /// a succession may have been countersigned since.
    ///
    /// # Errors
    /// It cannot be fetched, does not hold, or its grant is over.
    pub async fn of(&self, claimed: &Claimed, build: &Digest) -> Result<Arc<VerifiedDossier>, CheckFailure> {
        if let Some(held) = self.held(claimed, build).await {
            return Ok(held);
        }
        let _asking = self.asking.lock().await;
        if let Some(held) = self.held(claimed, build).await {
            return Ok(held);
        }
        let fetched = Arc::new(self.fetch(claimed.grant).await?);
        let mut held = self.held.lock().await;
        if held.dossiers.insert(claimed.grant, fetched.clone()).is_none() {
            held.order.push_back(claimed.grant);
        }
        if held.order.len() > DOSSIERS_MAX
            && let Some(first) = held.order.pop_front()
        {
            held.dossiers.remove(&first);
        }
        Ok(fetched)
    }

    async fn held(&self, claimed: &Claimed, build: &Digest) -> Option<Arc<VerifiedDossier>> {
        let held = self.held.lock().await;
        let dossier = held.dossiers.get(&claimed.grant)?;
        let answers = dossier.builds_at(claimed.at).contains(build);
        (answers && dossier.credential(&claimed.credential).is_some()).then(|| dossier.clone())
    }

    async fn fetch(&self, grant: GrantId) -> Result<VerifiedDossier, CheckFailure> {
        let request = GetDossierRequest { grant: grant.as_bytes().to_vec() };
        let reply = self.directory.clone().get_dossier(request).await;
        let dossier = reply.map_err(|status| CheckFailure::NoDossier(status.code().to_string()))?.into_inner();
        // Read here only to learn which pin to use; the verification reads the same bytes again.
        let terms = Terms::parse(&dossier.terms).map_err(DossierError::Terms)?;
        let agency = self.pinned.agencies.get(&terms.agency.org);
        let agency = *agency.ok_or_else(|| CheckFailure::NotPinned(terms.agency.org.clone()))?;
        let verified = VerifiedDossier::verify(&dossier, &Pins { lab: self.pinned.lab, agency })?;
        if verified.grant() != grant {
            return Err(CheckFailure::OtherGrant);
        }
        let phase = dossier.summary.map(|summary| summary.phase).unwrap_or_default();
        let over = matches!(phase.as_str(), "expired" | "withdrawn" | "relinquished" | "declined" | "lapsed");
        if over { Err(CheckFailure::Phase(phase)) } else { Ok(verified) }
    }
}
