//! What all slots of one connector share.

use std::{sync::Arc, time::Duration};

use anteroom_proto::{
    ledger::{chain::ResponseChain, checkpoint::VerifiedCheckpoint},
    names::Digest,
    rpc::{ClockClaim, OutcomeClaim, SignedStatement, audit_client::AuditClient, serving_client::ServingClient},
    statement::{
        envelope::{Claim, SignerError, sign_claim},
        terms::CALL_BYTES_MAX,
    },
};
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use super::{
    builds::{Builds, Said},
    calls::{CallBegun, CallEnded, CallList},
    check::{CheckedCall, Served},
    clock::Clock,
    dossiers::Dossiers,
    heads::{HeadError, Heads},
    relay::Told,
    seen::Seen,
    spool::Spool,
    status::Status,
    stops::Stops,
    upstream::Upstream,
    windows::Windows,
};
use crate::{durable, fingerprint::Keeper, log::LogError, signer::SharedSigner, witness::Remembers};

/// Largest message that the broker may send into a slot: a body and its admission.
const DISPATCH_BYTES_MAX: u64 = CALL_BYTES_MAX + 256 * 1024;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) served: Served,
    pub(super) name: String,
    pub(super) signer: SharedSigner,
    pub(super) clock: Clock,
    pub(super) upstream: Upstream,
    pub(super) serving: ServingClient<Channel>,
    pub(super) audit: AuditClient<Channel>,
    pub(super) dossiers: Dossiers,
    pub(super) heads: Heads,
    pub(super) windows: Windows,
    pub(super) seen: Seen,
    pub(super) stops: Stops,
    pub(super) spool: Spool,
    /// This lab's own list of what was served.
    pub(super) calls: CallList,
    pub(super) builds: Builds,
    /// Where fingerprints of answers are kept, if they are.
    pub(super) fingerprints: Option<Keeper>,
    pub(super) dir: std::path::PathBuf,
    pub(super) status: watch::Sender<Status>,
    /// How many slots wait for calls at least.
    pub(super) idle_min: usize,
    /// How long a slot beyond those waits in vain before it is given back.
    pub(super) retire_after: Duration,
    /// True once no new call is to be taken.
    pub(super) draining: watch::Sender<bool>,
    /// Something waits in the spool and the broker may be there to take it.
    pub(super) report: Notify,
}

/// A slot's client, which takes messages as large as a dispatch can be.
pub(super) fn serving(channel: Channel) -> ServingClient<Channel> {
    let max = usize::try_from(DISPATCH_BYTES_MAX).unwrap_or(usize::MAX);
    ServingClient::new(channel).max_decoding_message_size(max)
}

impl Remembers for Shared {
    fn remember(&self, checkpoint: &VerifiedCheckpoint) -> Result<(), LogError> {
        match self.heads.remember(checkpoint) {
            Err(error) => {
                self.contradicted(&error, &checkpoint.note().encode());
                Err(LogError::Forked(checkpoint.checkpoint().size()))
            }
            Ok(()) => Ok(()),
        }
    }
}

impl Shared {
    /// Signs this clock.
    pub(super) async fn clock_claim(self: &Arc<Self>, challenge: &[u8]) -> Result<SignedStatement, SignerError> {
        self.sign(ClockClaim {
            org: self.served.lab.to_string(),
            connector: self.name.clone(),
            at_ms: self.clock.now().ms(),
            challenge: challenge.to_vec(),
        })
        .await
    }

    /// Enters a call into the lab's own list, before the model server is asked.
    pub(super) async fn begun(&self, call: &CheckedCall) {
        let begun = CallBegun {
            call: call.call().as_bytes().to_vec(),
            grant: call.grant().as_bytes().to_vec(),
            admitted: call.admitted(),
            at_ms: self.clock.now().ms(),
            route: call.route().path().to_owned(),
        };
        self.calls.begun(begun).await;
        self.note_list();
    }

    /// Keeps the answer's fingerprints, signs how a call ended, and enters that into the lab's own list.
    pub(super) async fn outcome(self: &Arc<Self>, told: &mut Told) -> Result<SignedStatement, SignerError> {
        let newest = self.heads.newest();
        let said = self.builds.note(told.grant, &told.asked, told.status, &told.reported);
        self.behaved(told, &said);
        let chain = |chain: &ResponseChain| (chain.count(), chain.value().to_vec());
        let (received_events, received_chain) = chain(&told.received);
        let (released_events, released_chain) = chain(&told.released);
        let claim = OutcomeClaim {
            call: told.call.as_bytes().to_vec(),
            grant: told.grant.as_bytes().to_vec(),
            status: told.status,
            received_events,
            received_chain,
            released_events,
            released_chain,
            input_tokens: told.reported.usage.input,
            output_tokens: told.reported.usage.output,
            manifest_digest: self.served.manifest.as_bytes().to_vec(),
            end: told.end.code().to_owned(),
            at_ms: self.clock.now().ms(),
            seen_size: newest.size,
            seen_root: newest.root.as_bytes().to_vec(),
            fingerprint_digest: Vec::new(),
            reported_build: said.build,
            reported_before: said.before,
        };
        let mut ended = CallEnded {
            call: claim.call.clone(),
            grant: claim.grant.clone(),
            admitted: told.admitted,
            at_ms: claim.at_ms,
            status: claim.status,
            received_events,
            received_chain: claim.received_chain.clone(),
            released_events,
            released_chain: claim.released_chain.clone(),
            released_bytes: told.released_bytes,
            input_tokens: claim.input_tokens,
            output_tokens: claim.output_tokens,
            end: claim.end.clone(),
            outcome: Vec::new(),
        };
        let (call, grant, at) = (told.call, told.grant, self.clock.now());
        let gathered = self.fingerprints.clone().zip(told.collector.take());
        let signed = self.sign_made(move || {
            let kept = gathered.and_then(|(keeper, collector)| keeper.keep(call, grant, at, &collector.finish()));
            let fingerprint_digest = kept.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default();
            OutcomeClaim { fingerprint_digest, ..claim }
        });
        let statement = signed.await?;
        ended.outcome = Digest::of(&statement.payload).as_bytes().to_vec();
        // Before the broker hears of it: whatever is on record then stands in the list, too.
        self.calls.ended(ended).await;
        self.note_list();
        Ok(statement)
    }

    fn behaved(&self, told: &Told, said: &Said) {
        let Some(change) = &said.change else { return };
        let (grant, call) = (told.grant, told.call);
        tracing::warn!(%grant, %call, change, "behaviour changed: the model server reports another build than before");
        self.note(|status| {
            status.changes += 1;
            status.last_change = Some(format!("{grant} at {call}: {change}"));
        });
    }

    pub(super) fn note_list(&self) {
        let health = self.calls.health();
        self.status.send_if_modified(|status| {
            let changed = status.list != health;
            status.list.clone_from(&health);
            changed
        });
    }

    async fn sign<C: Claim + 'static>(self: &Arc<Self>, claim: C) -> Result<SignedStatement, SignerError> {
        self.sign_made(move || claim).await
    }

    /// Makes a claim and signs it, off the runtime's threads: a signer may be a card or a command that takes its time, and so may what
    /// has to happen first.
    async fn sign_made<C: Claim + 'static>(
        self: &Arc<Self>,
        make: impl FnOnce() -> C + Send + 'static,
    ) -> Result<SignedStatement, SignerError> {
        let signer = self.signer.clone();
        let signed = tokio::task::spawn_blocking(move || sign_claim(&make(), &signer)).await;
        signed.unwrap_or_else(|error| Err(SignerError(error.to_string())))
    }

    /// The broker contradicts itself: keep what it said and serve nothing more until a person looked.
    pub(super) fn contradicted(&self, error: &HeadError, shown: &str) {
        let kept = durable::write_whole(&self.dir, "contradicting-checkpoint", shown.as_bytes());
        let seen = durable::write_whole(&self.dir, "contradicted-checkpoint", self.heads.newest_note().as_bytes());
        tracing::error!(%error, evidence = kept.is_ok() && seen.is_ok(), "the broker's log contradicts what it showed before");
        if let Err(error) = self.stops.stop_all(&format!("the broker's log contradicts what it showed before: {error}"))
        {
            tracing::error!(%error, "a stop is not on disk");
        }
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}
