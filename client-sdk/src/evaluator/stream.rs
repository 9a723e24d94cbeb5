//! A streamed answer, checked as it comes.
//!
//! **Invariant:** no event is handed out before the admission was verified, and the end is told only after the receipt, the
//! outcome and the chain over every event held. A stream that breaks off is an error, never an end.

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{
    ledger::{
        chain::ResponseChain,
        receipt::{VerifiedRecord, verify_admission, verify_receipt},
    },
    names::CallId,
    rpc::{CallEnd, CallEvent, ProvenRecord, Receipt, call_event::Event},
    time::At,
};
use bytes::Bytes;
use tonic::Streaming;

use super::{Evaluator, Label, Prepared, RecordedCall};
use crate::{
    error::{Error, Refused, VerificationError},
    verify::receipt::{CallFault, VerifiedCall},
};

/// A step of a streamed answer.
#[derive(Clone, Debug)]
pub enum StreamItem {
    /// The call is on record; events follow. [`AnswerStream::label`] says how they have to be handled.
    Admitted(Box<VerifiedRecord>),
    /// One event's data, verbatim.
    Data(Bytes),
    /// The end, with everything verified.
    End {
        /// Status the model server answered with.
        status: u32,
        /// The call.
        call: Box<VerifiedCall>,
        /// The receipt as kept.
        receipt: Box<Receipt>,
        /// How the answer has to be handled, with what it was found to carry.
        label: Box<Label>,
    },
}

/// A streamed answer.
pub struct AnswerStream {
    evaluator: Evaluator,
    prepared: Prepared,
    events: Streaming<CallEvent>,
    chain: ResponseChain,
    /// Known from the admission on.
    label: Option<Label>,
    over: bool,
}

impl std::fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerStream")
            .field("call", &self.prepared.call)
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl AnswerStream {
    pub(super) fn new(evaluator: Evaluator, prepared: Prepared, events: Streaming<CallEvent>) -> Self {
        let chain = ResponseChain::new(&prepared.body_key);
        Self { evaluator, prepared, events, chain, label: None, over: false }
    }

    /// The call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.prepared.call
    }

    /// How the answer has to be handled; known once the admission was handed out.
    #[must_use]
    pub const fn label(&self) -> Option<&Label> {
        self.label.as_ref()
    }

    /// What cut the call, once that is on record and proven; for a stream that broke off without a word.
    pub async fn cut(&self) -> Option<Refused> {
        self.cut_on_record(&self.evaluator.recorded(self.prepared.call).await.ok()?)
    }

    /// The next step; `None` after the end.
    ///
    /// # Errors
    /// The broker cut or refused the call, the connection broke, or something shown does not hold. Nothing follows an error.
    pub async fn next(&mut self) -> Result<Option<StreamItem>, Error> {
        if self.over {
            return Ok(None);
        }
        let item = self.step().await;
        self.over = !matches!(item, Ok(StreamItem::Admitted(_) | StreamItem::Data(_)));
        item.map(Some)
    }

    async fn step(&mut self) -> Result<StreamItem, Error> {
        let event = match self.events.message().await {
            Ok(Some(CallEvent { event: Some(event), marking: _, assertion: _ })) => event,
            Ok(Some(CallEvent { event: None, .. })) => {
                return Err(VerificationError::Missing("event").into());
            }
            Ok(None) => return Err(VerificationError::Missing("end").into()),
            Err(status) => return Err(self.broke_off(status).await),
        };
        match (event, self.label.clone()) {
            (Event::Admitted(proven), None) => self.take_admission(&proven).await,
            (Event::Data(data), Some(_)) => {
                self.chain.push(&data);
                Ok(StreamItem::Data(data))
            }
            (Event::End(end), Some(label)) => self.take_end(end, label).await,
            (Event::Admitted(_), Some(_)) => Err(VerificationError::Other("event").into()),
            (Event::Data(_) | Event::End(_), None) => Err(VerificationError::Missing("admission").into()),
        }
    }

    async fn take_admission(&mut self, proven: &ProvenRecord) -> Result<StreamItem, Error> {
        let dossier = self.evaluator.dossier();
        let log = self.evaluator.log();
        log.follow_for(&self.evaluator.audit, &proven.checkpoint).await?;
        let key = dossier.tag_key();
        let (record, event) = verify_admission(proven, log.trust(), &key, dossier.grant(), self.prepared.call)?;
        if event.claim.as_ref() != Some(&self.prepared.claim) {
            return Err(CallFault::OtherClaim.into());
        }
        self.label = Some(Label::admitted(&event, &dossier)?);
        Ok(StreamItem::Admitted(Box::new(record)))
    }

    async fn take_end(&mut self, end: CallEnd, label: Label) -> Result<StreamItem, Error> {
        let label = Box::new(label.ended(end.marking)?);
        let receipt = end.receipt.ok_or(VerificationError::Missing("receipt"))?;
        let call = self.evaluator.settle(&self.prepared, &receipt, end.outcome.as_ref(), &self.chain).await?;
        Ok(StreamItem::End { status: end.status, call: Box::new(call), receipt: Box::new(receipt), label })
    }

    /// A refusal in mid-stream says what cut the call. A broken connection says nothing, so the broker is asked.
    async fn broke_off(&self, status: tonic::Status) -> Error {
        let error = Error::from(status);
        if !matches!(error, Error::Transport(_)) {
            return error;
        }
        let call = self.prepared.call;
        match self.evaluator.recorded(call).await {
            Ok(recorded) => match self.cut_on_record(&recorded) {
                Some(refused) => Error::Refused(Box::new(refused)),
                None => Error::AnswerLost { call, state: recorded.state },
            },
            Err(_) => error,
        }
    }

    /// What cut the call, as the log has it: a stream that could not be told of its cut in time was reset instead.
    fn cut_on_record(&self, recorded: &RecordedCall) -> Option<Refused> {
        let dossier = self.evaluator.dossier();
        let (trust, key) = (self.evaluator.log().trust(), dossier.tag_key());
        let receipt = recorded.receipt.as_ref()?;
        let verified = verify_receipt(receipt, trust, &key, dossier.grant(), self.prepared.call).ok()?;
        let (_, finished) = verified.finished()?;
        // Whoever left was not cut, and neither was what came to its end.
        let refusal = Refusal::from_code(&finished.end).filter(|refusal| *refusal != Refusal::CallerGone)?;
        Some(Refused {
            code: refusal.code().to_owned(),
            text: refusal.text().to_owned(),
            grant: Some(dossier.grant()),
            at: At::from_ms(finished.cut_ms).ok().filter(|at| *at > At::ZERO),
            next: None,
            status: tonic::Code::Aborted,
            retry_after: None,
        })
    }
}
