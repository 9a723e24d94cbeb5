//! Calling a model under a grant: each call signed before it leaves, each answer believed only after its receipt held.
//!
//! **Invariant:** a call is dispatched at most once. If its answer is lost on the way, the broker is asked what became of it by
//! its identifier; the same request is sent again only if the broker never recorded it. An answer is returned only after the
//! log's signature, the record, the connector's signature and the response chain held and the receipt is on disk.

mod label;
mod stream;

use std::sync::{Arc, Mutex, PoisonError};

use anteroom_proto::{
    ledger::{
        chain::{BODY_KEY_BYTES, ResponseChain, body_mac},
        receipt::ReceiptError,
    },
    names::{CallId, Digest, GrantId, RunId},
    rpc::{
        CallAdmitted, CallClaim, CallReply, CallRequest, CallStatus, GetCallRequest, GetDossierRequest, Marking,
        Receipt, SignedStatement, audit_client::AuditClient, directory_client::DirectoryClient,
        inference_client::InferenceClient,
    },
    statement::envelope::{self, Signer},
};
use bytes::Bytes;
use tonic::transport::Channel;

pub use label::Label;
pub use stream::{AnswerStream, StreamItem};

use crate::{
    channel::MESSAGE_BYTES_MAX,
    error::{Error, VerificationError},
    log::LogView,
    signer::SharedSigner,
    store::{KeptReceipt, ReceiptKeeper},
    system,
    verify::{
        dossier::{ClaimError, Pins, VerifiedDossier},
        receipt::{CallFault, OwnCall, VerifiedCall, verify_own_call},
    },
    witness::{Party, Running},
};

/// What a model can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Route {
    /// Chat completions.
    Chat,
    /// Plain completions.
    Completions,
    /// Embeddings.
    Embeddings,
    /// The responses route.
    Responses,
    /// The messages route.
    Messages,
}

impl Route {
    /// Its name in claims.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }
}

/// Under what an evaluator calls.
#[derive(Clone, Debug)]
pub struct CallerConfig {
    /// The grant.
    pub grant: GrantId,
    /// The run.
    pub run: RunId,
    /// Digest of the run credential's payload.
    pub credential: Digest,
    /// The workload's key, which that credential names.
    pub workload: SharedSigner,
    /// Fingerprints of both sides' key sets.
    pub pins: Pins,
    /// Declared marking; it can raise, never lower. Absent means the grant's own.
    pub marking: Option<Marking>,
}

/// What one call may differ in from what its caller is configured with.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CallOptions {
    /// Its identifier, for whoever has to know it beforehand; absent means a new one. One identifier is one call.
    pub call: Option<CallId>,
    /// Declared marking in place of the configured one.
    pub marking: Option<Marking>,
}

/// Calls a model under one grant, run and credential. Shared by any number of tasks.
#[derive(Clone, Debug)]
pub struct Evaluator {
    inference: InferenceClient<Channel>,
    directory: DirectoryClient<Channel>,
    audit: AuditClient<Channel>,
    config: Arc<CallerConfig>,
    dossier: Arc<Mutex<Arc<VerifiedDossier>>>,
    log: Arc<LogView>,
    keeper: ReceiptKeeper,
    witness: Option<Arc<Running>>,
}

/// A whole answer whose receipt held.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status the model server answered with.
    pub status: u32,
    /// Its body, verbatim.
    pub body: Bytes,
    /// The call, verified.
    pub call: VerifiedCall,
    /// The receipt as kept.
    pub receipt: Receipt,
    /// How it has to be handled.
    pub label: Label,
}

/// What the broker has on record of a call.
#[derive(Clone, Debug)]
pub struct RecordedCall {
    /// `open`, `completed`, `abandoned`, `refused`, or the code of what cut it.
    pub state: String,
    /// Its receipt as far as it goes.
    pub receipt: Option<Receipt>,
    /// The connector's signed outcome, if any.
    pub outcome: Option<SignedStatement>,
}

/// A signed request with what the caller has to remember of it.
pub(crate) struct Prepared {
    pub(crate) call: CallId,
    pub(crate) claim: SignedStatement,
    pub(crate) body: Bytes,
    pub(crate) body_key: [u8; BODY_KEY_BYTES],
}

impl Prepared {
    fn request(&self) -> CallRequest {
        CallRequest { claim: Some(self.claim.clone()), body: self.body.clone(), body_key: self.body_key.to_vec() }
    }

    fn own(&self) -> OwnCall<'_> {
        OwnCall { claim: &self.claim, body: &self.body, body_key: &self.body_key }
    }
}

impl Evaluator {
    /// Fetches and verifies what the grant rests on, and looks at the log.
    ///
    /// # Errors
    /// The broker refuses, the dossier does not hold, it has no such credential or the credential names another key or run.
    pub async fn open(
        channel: Channel,
        config: CallerConfig,
        log: Arc<LogView>,
        keeper: ReceiptKeeper,
    ) -> Result<Self, Error> {
        let inference = InferenceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut directory = DirectoryClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let audit = AuditClient::new(channel);
        let dossier = fetch(&mut directory, &config).await?;
        log.refresh(&audit).await?;
        Ok(Self {
            inference,
            directory,
            audit,
            config: Arc::new(config),
            dossier: Arc::new(Mutex::new(Arc::new(dossier))),
            log,
            keeper,
            witness: None,
        })
    }

    /// Lets the agency's own witness cosign for as long as this value or a clone of it lives. It shares this value's view of the log,
    /// so a contradiction that it finds ends calls, too.
    #[must_use]
    pub fn with_witness(mut self, witness: Party) -> Self {
        self.witness = Some(Arc::new(witness.start()));
        self
    }

    /// What the grant rests on, as last verified.
    #[must_use]
    pub fn dossier(&self) -> Arc<VerifiedDossier> {
        Arc::clone(&self.dossier.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The log as seen.
    #[must_use]
    pub fn log(&self) -> &LogView {
        &self.log
    }

    /// Where receipts are kept.
    #[must_use]
    pub const fn receipts(&self) -> &ReceiptKeeper {
        &self.keeper
    }

    /// Under what it calls.
    #[must_use]
    pub fn config(&self) -> &CallerConfig {
        &self.config
    }

    /// Goes on with a renewed credential, fetching the dossier that holds it. Other clones of this value stay as they are.
    ///
    /// # Errors
    /// As [`Evaluator::open`].
    pub async fn with_credential(mut self, credential: Digest, workload: SharedSigner) -> Result<Self, Error> {
        let config = CallerConfig { credential, workload, ..CallerConfig::clone(&self.config) };
        let dossier = fetch(&mut self.directory, &config).await?;
        self.config = Arc::new(config);
        self.dossier = Arc::new(Mutex::new(Arc::new(dossier)));
        Ok(self)
    }

    /// Makes one call and returns its whole answer.
    ///
    /// # Errors
    /// The broker refuses, the connection breaks ([`Error::AnswerLost`] if the call is on record), or something shown does not
    /// hold.
    pub async fn complete(&self, route: Route, body: Bytes) -> Result<Answer, Error> {
        self.complete_with(route, body, CallOptions::default()).await
    }

    /// As [`Evaluator::complete`], with options of this call's own.
    ///
    /// # Errors
    /// As [`Evaluator::complete`].
    pub async fn complete_with(&self, route: Route, body: Bytes, options: CallOptions) -> Result<Answer, Error> {
        let prepared = self.prepare(route, body, options).await?;
        let mut client = self.inference.clone();
        let reply = match client.complete(prepared.request()).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => {
                self.again_or_lost(status, prepared.call).await?;
                // The broker never recorded it. Sending the very same request cannot make two calls: the identifier is the same.
                match client.complete(prepared.request()).await {
                    Ok(reply) => reply.into_inner(),
                    Err(status) => {
                        self.again_or_lost(status.clone(), prepared.call).await?;
                        return Err(status.into());
                    }
                }
            }
        };
        self.take_reply(&prepared, reply).await
    }

    /// Makes one call and streams its answer.
    ///
    /// # Errors
    /// The broker refuses, or the connection breaks before the stream began.
    pub async fn stream(&self, route: Route, body: Bytes) -> Result<AnswerStream, Error> {
        self.stream_with(route, body, CallOptions::default()).await
    }

    /// As [`Evaluator::stream`], with options of this call's own.
    ///
    /// # Errors
    /// As [`Evaluator::stream`].
    pub async fn stream_with(&self, route: Route, body: Bytes, options: CallOptions) -> Result<AnswerStream, Error> {
        let prepared = self.prepare(route, body, options).await?;
        let mut client = self.inference.clone();
        let events = match client.stream(prepared.request()).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => {
                self.again_or_lost(status, prepared.call).await?;
                client.stream(prepared.request()).await?.into_inner()
            }
        };
        Ok(AnswerStream::new(self.clone(), prepared, events))
    }

    /// What the broker has on record of a call of this agency's. Content is never there.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn recorded(&self, call: CallId) -> Result<RecordedCall, Error> {
        let mut client = self.inference.clone();
        let request = GetCallRequest { call: call.as_bytes().to_vec() };
        let CallStatus { state, receipt, outcome } = client.get_call(request).await?.into_inner();
        Ok(RecordedCall { state, receipt, outcome })
    }

    /// Makes and signs a call's claim.
    async fn prepare(&self, route: Route, body: Bytes, options: CallOptions) -> Result<Prepared, Error> {
        let call = options.call.map_or_else(system::call_id, Ok)?;
        let body_key = system::random()?;
        let seen = self.log.newest();
        let config = &self.config;
        let claim = CallClaim {
            grant: config.grant.as_bytes().to_vec(),
            run: config.run.to_string(),
            credential: config.credential.as_bytes().to_vec(),
            call: call.as_bytes().to_vec(),
            route: route.as_str().to_owned(),
            body_mac: body_mac(&body_key, &body).to_vec(),
            marking: options.marking.or_else(|| config.marking.clone()),
            at_ms: system::now().ms(),
            seen_size: seen.size,
            seen_root: seen.root.as_bytes().to_vec(),
        };
        // A signer may be a command that takes its time.
        let workload = config.workload.clone();
        let signed = tokio::task::spawn_blocking(move || envelope::sign_claim(&claim, &workload)).await;
        Ok(Prepared { call, claim: signed.map_err(|_| Error::Interrupted)??, body, body_key })
    }

    /// After a failed request: passes a refusal on; else asks what became of the call. Returns only if the broker never
    /// recorded it, so that sending it again is the first dispatch.
    async fn again_or_lost(&self, status: tonic::Status, call: CallId) -> Result<(), Error> {
        let error = Error::from(status);
        if !matches!(error, Error::Transport(_)) {
            return Err(error);
        }
        match self.recorded(call).await {
            Ok(recorded) => Err(Error::AnswerLost { call, state: recorded.state }),
            Err(Error::Refused(refused)) if refused.code == "call_unknown" => Ok(()),
            // The broker cannot be asked either; the caller can, later, by the identifier.
            Err(_) => Err(error),
        }
    }

    async fn take_reply(&self, prepared: &Prepared, reply: CallReply) -> Result<Answer, Error> {
        let mut chain = ResponseChain::new(&prepared.body_key);
        chain.push(&reply.body);
        let receipt = reply.receipt.ok_or(VerificationError::Missing("receipt"))?;
        let call = self.settle(prepared, &receipt, reply.outcome.as_ref(), &chain).await?;
        let admitted: CallAdmitted = call.receipt().admitted().opened().event().map_err(ReceiptError::from)?;
        let label = Label::admitted(&admitted, &self.dossier())?.ended(reply.marking)?;
        Ok(Answer { status: reply.status, body: reply.body, call, receipt, label })
    }

    /// Verifies a finished call, holds its checkpoints against the log as seen, and keeps the receipt.
    pub(crate) async fn settle(
        &self,
        prepared: &Prepared,
        receipt: &Receipt,
        outcome: Option<&SignedStatement>,
        chain: &ResponseChain,
    ) -> Result<VerifiedCall, Error> {
        let dossier = self.dossier();
        let trust = self.log.trust();
        let verified = match verify_own_call(receipt, outcome, &dossier, trust, &prepared.own(), chain) {
            // Both sides may have signed since that another build answers; only their signatures say so.
            Err(fault @ CallFault::Outcome(ClaimError::Build(_))) => {
                let fresh = Arc::new(fetch(&mut self.directory.clone(), &self.config).await.map_err(|_| fault)?);
                *self.dossier.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
                verify_own_call(receipt, outcome, &fresh, trust, &prepared.own(), chain)?
            }
            verified => verified?,
        };
        let (finished, _) = verified.receipt().finished().ok_or(ReceiptError::Missing("end"))?;
        let checkpoints = [verified.receipt().admitted().checkpoint(), finished.checkpoint()];
        // Waiting is fine here: the checkpoint stays in line, and every later call asks for its proof too.
        let anchoring = self.log.accept(&self.audit, &checkpoints).await?;
        tracing::debug!(?anchoring, call = %prepared.call, "receipt verified");
        let kept = KeptReceipt {
            call: prepared.call.as_bytes().to_vec(),
            receipt: Some(receipt.clone()),
            outcome: outcome.cloned(),
            kept_ms: system::now().ms(),
            witnessed: None,
        };
        self.keeper.keep(kept).await?;
        Ok(verified)
    }
}

async fn fetch(directory: &mut DirectoryClient<Channel>, config: &CallerConfig) -> Result<VerifiedDossier, Error> {
    let request = GetDossierRequest { grant: config.grant.as_bytes().to_vec() };
    let dossier = directory.get_dossier(request).await?.into_inner();
    let verified = VerifiedDossier::verify(&dossier, &config.pins)?;
    if verified.grant() != config.grant {
        return Err(VerificationError::Other("grant").into());
    }
    let credential = verified.credential(&config.credential).ok_or(VerificationError::Missing("run credential"))?;
    if credential.workload != *config.workload.public_key() || credential.run != config.run {
        return Err(VerificationError::Other("run credential").into());
    }
    Ok(verified)
}

#[cfg(test)]
mod tests;
