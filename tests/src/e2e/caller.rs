//! A caller that can be told to send what the SDK never would.

use anteroom_broker::demo::cast::LINE;
use anteroom_proto::{
    ledger::{
        chain::body_mac,
        checkpoint::LogTrust,
        receipt::{ReceiptError, VerifiedReceipt, VerifiedRecord, verify_admission, verify_receipt},
        scope::TagKey,
    },
    names::{CallId, Digest, GrantId},
    rpc::{
        CallClaim, CallEvent, CallReply, CallRequest, ProvenRecord, Receipt, call_event::Event,
        inference_client::InferenceClient,
    },
    statement::envelope::{Signer, sign_claim},
    time::At,
};
use anteroom_sdk::{
    channel::MESSAGE_BYTES_MAX,
    error::{Error, Refused},
    evaluator::{AnswerStream, CallerConfig, Evaluator, Route, StreamItem},
    home::{Home, Use},
    signer::SharedSigner,
    store::{ReceiptKeeper, ReceiptStore},
    system,
};
use bytes::Bytes;
use tempfile::TempDir;
use tonic::{Streaming, transport::Channel};

use super::{
    Fallible,
    wait::{soon, until},
};

/// A caller under one grant.
#[derive(Debug)]
pub struct Caller {
    /// The SDK's caller.
    pub evaluator: Evaluator,
    /// The grant.
    pub grant: GrantId,
    /// The connection.
    pub channel: Channel,
    /// The run credential.
    pub credential: Digest,
    /// The key that signs calls.
    pub workload: SharedSigner,
    run: String,
    tag_key: TagKey,
    trust: LogTrust,
    _receipts: TempDir,
}

/// A request before it is signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What is claimed.
    pub claim: CallClaim,
    /// What is asked.
    pub body: Bytes,
    /// The key of commitments.
    pub body_key: [u8; 32],
}

/// How a streamed call went.
#[derive(Debug)]
pub struct Went {
    /// The call.
    pub call: CallId,
    /// Events that came.
    pub events: Vec<Bytes>,
    /// Nothing if it completed.
    pub end: Option<Refused>,
    /// The receipt, if it completed.
    pub receipt: Option<Receipt>,
}

impl Caller {
    /// Under the newest run credential of the folder's workload key.
    ///
    /// # Errors
    /// Something does not hold.
    pub async fn open(home: &Home, grant: GrantId) -> Fallible<Self> {
        let channel = home.channel(Use::Call).await?;
        let dossier = home.take_dossier(&home.fetch_dossier(&channel, grant).await?)?;
        let workload = home.signer("workload")?;
        let own = dossier.credentials().iter().filter(|held| held.credential.workload == *workload.public_key());
        let held = own.max_by_key(|held| held.credential.end_ms).ok_or("no credential of this workload")?;
        let config = CallerConfig {
            grant,
            run: held.credential.run.clone(),
            credential: held.digest,
            workload: workload.clone(),
            pins: home.pins_for(dossier.terms())?,
            marking: None,
        };
        let receipts = tempfile::tempdir()?;
        let keeper = ReceiptKeeper::new(ReceiptStore::open(receipts.path())?);
        let (credential, run) = (held.digest, held.credential.run.to_string());
        let tag_key = dossier.tag_key();
        let evaluator = Evaluator::open(channel.clone(), config, home.log_view()?, keeper).await?;
        let trust = home.log_trust()?;
        Ok(Self { evaluator, grant, channel, credential, workload, run, tag_key, trust, _receipts: receipts })
    }

    /// A request as the SDK would make it.
    ///
    /// # Panics
    /// The machine gives no randomness.
    #[must_use]
    pub fn draft(&self, body: impl Into<Bytes>) -> Draft {
        let body = body.into();
        let body_key = system::random().expect("randomness");
        let claim = CallClaim {
            grant: self.grant.as_bytes().to_vec(),
            run: self.run.clone(),
            credential: self.credential.as_bytes().to_vec(),
            call: system::call_id().expect("randomness").as_bytes().to_vec(),
            route: "chat".to_owned(),
            body_mac: body_mac(&body_key, &body).to_vec(),
            at_ms: system::now().ms(),
            ..CallClaim::default()
        };
        Draft { claim, body, body_key }
    }

    /// A request of so many words whose first message is its own identifier, so that the model server knows whose it is.
    ///
    /// # Panics
    /// The machine gives no randomness.
    #[must_use]
    pub fn tagged(&self, words: u32, stream: bool) -> (CallId, CallRequest) {
        let call = system::call_id().expect("randomness");
        let mut draft = self.draft(body(&call.to_string(), words, stream));
        draft.claim.call = call.as_bytes().to_vec();
        (call, self.seal(draft))
    }

    /// Verifies an admission of this grant offline.
    ///
    /// # Errors
    /// It does not hold.
    pub fn admission(&self, proven: &ProvenRecord, call: CallId) -> Result<VerifiedRecord, ReceiptError> {
        verify_admission(proven, &self.trust, &self.tag_key, self.grant, call).map(|(record, _)| record)
    }

    /// Signs a request with the workload's key.
    #[must_use]
    pub fn seal(&self, draft: Draft) -> CallRequest {
        seal(draft, &self.workload)
    }

    /// The service itself.
    #[must_use]
    pub fn client(&self) -> InferenceClient<Channel> {
        InferenceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Opens a stream without the SDK's care.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn raw_stream(&self, request: CallRequest) -> Result<Streaming<CallEvent>, Error> {
        Ok(soon("a stream", self.client().stream(request)).await?.into_inner())
    }

    /// Makes a whole call without the SDK's care.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn raw_whole(&self, request: CallRequest) -> Result<CallReply, Error> {
        Ok(soon("an answer", self.client().complete(request)).await?.into_inner())
    }

    /// The refusal that a body gets, streamed.
    ///
    /// # Panics
    /// The call passes, or fails otherwise.
    pub async fn refusal(&self, body: impl Into<Bytes>) -> Refused {
        let draft = self.draft(body);
        self.refusal_of(self.seal(draft)).await
    }

    /// The refusal that a request gets.
    ///
    /// # Panics
    /// The call passes, or fails otherwise.
    pub async fn refusal_of(&self, request: CallRequest) -> Refused {
        match self.raw_stream(request).await {
            Err(error) => refused(error),
            Ok(mut events) => match soon("an event", events.message()).await {
                Err(status) => refused(status.into()),
                Ok(event) => panic!("a call passed that must not: {event:?}"),
            },
        }
    }

    /// Streams a whole answer through the SDK. A broker that just started is ready before its connector has every slot open again, so
    /// that this is waited out.
    ///
    /// # Panics
    /// The call does not begin.
    pub async fn stream(&self, body: impl Into<Bytes>) -> Went {
        let body = body.into();
        let mut stream = until("a free slot", || async {
            match self.evaluator.stream(Route::Chat, body.clone()).await {
                Err(Error::Refused(refused)) if refused.code == "lab_offline" => None,
                other => Some(other.expect("the call passes")),
            }
        })
        .await;
        rest(&self.evaluator, &mut stream).await
    }

    /// Begins a stream through the SDK and waits for its first event.
    ///
    /// # Panics
    /// It does not begin.
    pub async fn begin(&self, body: impl Into<Bytes>) -> AnswerStream {
        let mut stream = self.evaluator.stream(Route::Chat, body.into()).await.expect("the call passes");
        loop {
            match soon("an event", stream.next()).await.expect("the answer begins") {
                Some(StreamItem::Admitted(_)) => {}
                Some(StreamItem::Data(_)) => return stream,
                other => panic!("the answer ended before it began: {other:?}"),
            }
        }
    }

    /// Verifies a receipt of this grant offline.
    ///
    /// # Panics
    /// It does not hold.
    pub fn verify(&self, receipt: &Receipt, call: CallId) -> VerifiedReceipt {
        verify_receipt(receipt, &self.trust, &self.tag_key, self.grant, call).expect("the receipt holds")
    }

    /// How a call stands once its end is on record, with its receipt verified.
    pub async fn settled(&self, call: CallId) -> (String, VerifiedReceipt) {
        until("the end on record", || async {
            let recorded = self.evaluator.recorded(call).await.ok()?;
            let receipt = recorded.receipt.filter(|receipt| receipt.finished.is_some())?;
            Some((recorded.state, self.verify(&receipt, call)))
        })
        .await
    }
}

/// Reads a stream of the SDK's to its end.
///
/// # Panics
/// It breaks off otherwise than by a refusal.
pub async fn rest(evaluator: &Evaluator, stream: &mut AnswerStream) -> Went {
    let mut went = Went { call: stream.call(), events: Vec::new(), end: None, receipt: None };
    loop {
        match soon("an event", stream.next()).await {
            Ok(Some(StreamItem::Admitted(_))) => {}
            Ok(Some(StreamItem::Data(data))) => went.events.push(data),
            Ok(Some(StreamItem::End { receipt, .. })) => {
                went.receipt = Some(*receipt);
                return went;
            }
            Ok(None) => panic!("the stream ended without a word"),
            // A stream that could not be told of its end in time was reset, and its end was not on record yet.
            Err(Error::AnswerLost { .. }) => {
                went.end = Some(on_record(evaluator, went.call).await);
                return went;
            }
            Err(error) => {
                went.end = Some(refused(error));
                return went;
            }
        }
    }
}

/// The end of a call as the log has it, once it has it.
async fn on_record(evaluator: &Evaluator, call: CallId) -> Refused {
    let finished = until("the end on record", || async {
        let dossier = evaluator.dossier();
        let receipt = evaluator.recorded(call).await.ok()?.receipt?;
        let verified = verify_receipt(&receipt, evaluator.log().trust(), &dossier.tag_key(), dossier.grant(), call);
        verified.expect("the receipt holds").finished().map(|(_, finished)| finished.clone())
    })
    .await;
    Refused {
        code: finished.end,
        text: String::new(),
        grant: Some(evaluator.dossier().grant()),
        at: At::from_ms(finished.cut_ms).ok(),
        next: None,
        status: tonic::Code::Aborted,
        retry_after: None,
    }
}

/// Reads a raw stream until it breaks off, and says why.
///
/// # Panics
/// It ends.
pub async fn raw_end(events: &mut Streaming<CallEvent>) -> Refused {
    loop {
        match soon("an event", events.message()).await {
            Ok(Some(CallEvent { event: Some(Event::Admitted(_) | Event::Data(_)), .. })) => {}
            Ok(other) => panic!("the stream was not cut: {other:?}"),
            Err(status) => return refused(status.into()),
        }
    }
}

/// Signs a request with any key.
///
/// # Panics
/// The key cannot sign.
#[must_use]
pub fn seal(draft: Draft, signer: &dyn Signer) -> CallRequest {
    let Draft { claim, body, body_key } = draft;
    let claim = sign_claim(&claim, signer).expect("the key can sign");
    CallRequest { claim: Some(claim), body, body_key: body_key.to_vec() }
}

/// The refusal in an error.
///
/// # Panics
/// It is none.
#[must_use]
pub fn refused(error: Error) -> Refused {
    match error {
        Error::Refused(refused) => *refused,
        other => panic!("not a refusal: {other}"),
    }
}

/// A streamed chat of so many words.
#[must_use]
pub fn chat(question: &str, words: u32) -> Bytes {
    body(question, words, true)
}

/// A whole chat of so many words.
#[must_use]
pub fn chat_whole(question: &str, words: u32) -> Bytes {
    body(question, words, false)
}

fn body(question: &str, words: u32, stream: bool) -> Bytes {
    let messages = serde_json::json!([{"role": "user", "content": question}]);
    let mut body = serde_json::json!({"model": LINE, "messages": messages, "max_tokens": words});
    if stream {
        body["stream"] = true.into();
    }
    body.to_string().into()
}
