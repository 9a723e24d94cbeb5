#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::{collections::VecDeque, io, pin::Pin};

use anteroom_proto::{
    ledger::checkpoint::cosign_with,
    rpc::{
        CallEnd, CallEvent, CosignReply, CosignRequest, EntriesReply, EntriesRequest, GetCheckpointReply,
        GetCheckpointRequest, GetPublishedReply, GetPublishedRequest, ListScopesReply, ListScopesRequest, ReadReply,
        ReadRequest,
        audit_server::{Audit, AuditServer},
        call_event::Event,
        inference_server::{Inference, InferenceServer},
    },
    statement::witness::witness_key,
};
use futures_util::{Stream, stream};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tonic::{Request, Response, Status, transport::Endpoint};
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::{
    error::DOMAIN,
    signer::KeyFile,
    store::ReceiptStore,
    verify::{
        witnessed::{WitnessFault, Witnessed},
        world::{Call, MiniLog, World, seed},
    },
    witness::fetch_witnessed,
};

/// What the broker does with the next call.
#[derive(Clone, Copy)]
enum Turn {
    /// Answers.
    Answers,
    /// Breaks off before the call is on record.
    LosesCall,
    /// Breaks off after the call was made.
    LosesAnswer,
    /// Says no.
    Refuses,
    /// Answers with another body than it had recorded.
    ChangesBody,
    /// Streams no end.
    ForgetsEnd,
    /// Streams data before it shows the admission.
    HidesAdmission,
    /// Shows the events in another order than it had recorded.
    SwapsEvents,
}

struct Fake {
    world: World,
    log: Mutex<MiniLog>,
    turns: Mutex<VecDeque<Turn>>,
    /// Calls that reached the model's side.
    dispatched: Mutex<Vec<CallRequest>>,
    /// Whose witnesses cosign what is published.
    witnesses: Mutex<Vec<(&'static str, u8)>>,
}

const BODY: &[u8] = b"{\"answer\":1}";

impl Fake {
    fn turn(&self) -> Turn {
        self.turns.lock().unwrap().pop_front().unwrap_or(Turn::Answers)
    }

    /// Records the call and its end.
    fn dispatch(&self, request: &CallRequest, events: &[&[u8]]) -> Receipt {
        self.dispatched.lock().unwrap().push(request.clone());
        let call = Call::of(&self.world, request, events);
        call.record(&self.world, &mut self.log.lock().unwrap())
    }
}

fn refusal(code: &str) -> Status {
    let details = ErrorDetails::with_error_info(code, DOMAIN, std::collections::HashMap::new());
    Status::with_error_details(tonic::Code::PermissionDenied, "no", details)
}

fn event(event: Event) -> Result<CallEvent, Status> {
    Ok(CallEvent { event: Some(event), ..CallEvent::default() })
}

#[tonic::async_trait]
impl Inference for Fake {
    async fn complete(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        let request = request.into_inner();
        let turn = self.turn();
        match turn {
            Turn::LosesCall => return Err(Status::unavailable("connection reset")),
            Turn::Refuses => return Err(refusal("grant_paused")),
            Turn::Answers
            | Turn::LosesAnswer
            | Turn::ChangesBody
            | Turn::ForgetsEnd
            | Turn::HidesAdmission
            | Turn::SwapsEvents => {}
        }
        let receipt = self.dispatch(&request, &[BODY]);
        if matches!(turn, Turn::LosesAnswer) {
            return Err(Status::unavailable("connection reset"));
        }
        let body = if matches!(turn, Turn::ChangesBody) { &b"{}"[..] } else { BODY };
        Ok(Response::new(CallReply {
            status: 200,
            body: Bytes::from_static(body),
            receipt: Some(receipt),
            ..CallReply::default()
        }))
    }

    type StreamStream = Pin<Box<dyn Stream<Item = Result<CallEvent, Status>> + Send>>;

    async fn stream(&self, request: Request<CallRequest>) -> Result<Response<Self::StreamStream>, Status> {
        let turn = self.turn();
        let receipt = self.dispatch(&request.into_inner(), &[b"one", b"two"]);
        let admitted = event(Event::Admitted(receipt.admitted.clone().unwrap()));
        let data = |text: &'static str| event(Event::Data(Bytes::from_static(text.as_bytes())));
        let end = event(Event::End(CallEnd { receipt: Some(receipt), status: 200, ..CallEnd::default() }));
        let events = match turn {
            Turn::ForgetsEnd => vec![admitted, data("one"), data("two")],
            Turn::HidesAdmission => vec![data("one"), data("two"), end],
            Turn::SwapsEvents => vec![admitted, data("two"), data("one"), end],
            Turn::LosesAnswer => vec![admitted, data("one"), Err(Status::unavailable("reset"))],
            Turn::Answers | Turn::LosesCall | Turn::Refuses | Turn::ChangesBody => {
                vec![admitted, data("one"), data("two"), end]
            }
        };
        Ok(Response::new(Box::pin(stream::iter(events))))
    }

    async fn get_call(&self, request: Request<GetCallRequest>) -> Result<Response<CallStatus>, Status> {
        let call = request.into_inner().call;
        let dispatched = self.dispatched.lock().unwrap();
        let known = dispatched.iter().any(|request| {
            let claim: CallClaim = envelope::read_claim(request.claim.as_ref().unwrap()).unwrap();
            claim.call == call
        });
        if known {
            Ok(Response::new(CallStatus { state: "completed".to_owned(), ..CallStatus::default() }))
        } else {
            Err(refusal("call_unknown"))
        }
    }
}

#[tonic::async_trait]
impl Audit for Fake {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadReply, Status>> + Send>>;
    type EntriesStream = Pin<Box<dyn Stream<Item = Result<EntriesReply, Status>> + Send>>;

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("read"))
    }

    async fn entries(&self, _: Request<EntriesRequest>) -> Result<Response<Self::EntriesStream>, Status> {
        Err(Status::unimplemented("entries"))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointReply>, Status> {
        let log = self.log.lock().unwrap();
        Ok(Response::new(GetCheckpointReply {
            checkpoint: log.note().encode(),
            consistency: log.consistency(request.into_inner().seen_size),
            log_keys: Vec::new(),
        }))
    }

    async fn get_published(
        &self,
        request: Request<GetPublishedRequest>,
    ) -> Result<Response<GetPublishedReply>, Status> {
        let request = request.into_inner();
        let (log, witnesses) = (self.log.lock().unwrap(), self.witnesses.lock().unwrap());
        if !request.organisations.iter().all(|org| witnesses.iter().any(|(held, _)| held == org)) {
            return Ok(Response::new(GetPublishedReply::default()));
        }
        let mut note = log.note();
        let verified = log.trust().verify(note.clone()).unwrap();
        for (org, seed) in witnesses.iter() {
            let key = KeyFile::from_seed(&[*seed; 32]).unwrap();
            let org = anteroom_proto::names::OrgId::parse(org).unwrap();
            let name = witness_key(log.trust().log().name(), &org, key.public_key()).unwrap();
            note.add(cosign_with(&name, &verified, 7, |message| key.sign(message).ok()).unwrap()).unwrap();
        }
        let witnessed_consistency = log.consistency(request.seen_size);
        let witnessed = note.encode();
        Ok(Response::new(GetPublishedReply { witnessed, witnessed_consistency, ..GetPublishedReply::default() }))
    }

    async fn cosign(&self, _: Request<CosignRequest>) -> Result<Response<CosignReply>, Status> {
        Err(Status::unimplemented("cosign"))
    }

    async fn list_scopes(&self, _: Request<ListScopesRequest>) -> Result<Response<ListScopesReply>, Status> {
        Err(Status::unimplemented("scopes"))
    }
}

/// A channel to `fake` through memory.
fn channel(fake: &Arc<Fake>) -> Channel {
    let routes = tonic::service::Routes::new(InferenceServer::from_arc(Arc::clone(fake)))
        .add_service(AuditServer::from_arc(Arc::clone(fake)))
        .prepare();
    let connector = tower::service_fn(move |_| {
        let routes = routes.clone();
        async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new())
                    .http2_only()
                    .serve_connection(TokioIo::new(far), TowerToHyperService::new(routes))
                    .await
                    .ok();
            });
            Ok::<_, io::Error>(TokioIo::new(near))
        }
    });
    Endpoint::from_static("http://fake.example").connect_with_connector_lazy(connector)
}

struct Setting {
    fake: Arc<Fake>,
    evaluator: Evaluator,
    _folder: tempfile::TempDir,
}

fn setting(turns: &[Turn]) -> Setting {
    let (world, log) = (World::new(), MiniLog::new());
    let folder = tempfile::tempdir().unwrap();
    let config = CallerConfig {
        grant: world.terms.grant,
        run: RunId::parse("cyber").unwrap(),
        credential: world.credential,
        workload: SharedSigner::new(KeyFile::from_seed(&[seed::WORKLOAD; 32]).unwrap()),
        pins: world.pins,
        marking: None,
    };
    let dossier = VerifiedDossier::verify(&world.dossier, &world.pins).unwrap();
    let view = LogView::new(log.trust());
    let fake = Arc::new(Fake {
        world,
        log: Mutex::new(log),
        turns: Mutex::new(turns.iter().copied().collect()),
        dispatched: Mutex::new(Vec::new()),
        witnesses: Mutex::default(),
    });
    let channel = channel(&fake);
    let evaluator = Evaluator {
        inference: InferenceClient::new(channel.clone()),
        directory: DirectoryClient::new(channel.clone()),
        audit: AuditClient::new(channel),
        config: Arc::new(config),
        dossier: Arc::new(Mutex::new(Arc::new(dossier))),
        log: Arc::new(view),
        keeper: ReceiptKeeper::new(ReceiptStore::open(folder.path()).unwrap()),
        witness: None,
    };
    Setting { fake, evaluator, _folder: folder }
}

impl Setting {
    async fn complete(&self) -> Result<Answer, Error> {
        let body = Bytes::from_static(b"{\"ask\":1}");
        self.evaluator.complete(Route::Chat, body).await
    }

    fn dispatched(&self) -> usize {
        self.fake.dispatched.lock().unwrap().len()
    }

    /// Streams to the end and says what came, and how it ended.
    async fn stream(&self) -> (Vec<Bytes>, Result<(), Error>) {
        let body = Bytes::from_static(b"{\"ask\":1}");
        let mut stream = self.evaluator.stream(Route::Chat, body).await.unwrap();
        let mut came = Vec::new();
        loop {
            match stream.next().await {
                Ok(Some(StreamItem::Data(data))) => came.push(data),
                Ok(Some(StreamItem::Admitted(_) | StreamItem::End { .. })) => {}
                Ok(None) => return (came, Ok(())),
                Err(error) => {
                    assert!(stream.next().await.unwrap().is_none());
                    return (came, Err(error));
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_comes_with_its_receipt_kept() {
    let setting = setting(&[]);
    let first = setting.complete().await.unwrap();
    let second = setting.complete().await.unwrap();
    assert_eq!((first.status, &first.body[..]), (200, BODY));
    assert_eq!(second.call.end(), "completed");
    // The next claim names the log as it stood after the first answer.
    let dispatched = setting.fake.dispatched.lock().unwrap();
    let claim = dispatched.last().unwrap().claim.as_ref().unwrap();
    let claim: CallClaim = envelope::read_claim(claim).unwrap();
    assert_eq!(claim.seen_size, 3);
    let mut made = [&first, &second].map(|answer| answer.call.receipt().call());
    made.sort();
    assert_eq!(setting.evaluator.receipts().calls(), made);
}

#[tokio::test]
async fn a_receipt_is_witnessed_once_both_parties_cosigned_and_not_on_the_brokers_word() {
    let setting = setting(&[]);
    let answer = setting.complete().await.unwrap();
    setting.complete().await.unwrap();
    let fetch = async || {
        let (dossier, trust) = (setting.evaluator.dossier(), setting.evaluator.log().trust().clone());
        let fetched = fetch_witnessed(&setting.evaluator.audit, &answer.receipt, &dossier, &trust).await;
        fetched.map(|fetched| fetched.map(|(kept, witnessed)| (kept.proofs.len(), witnessed)))
    };
    let cosign = |by: &[(&'static str, u8)]| *setting.fake.witnesses.lock().unwrap() = by.to_vec();
    assert_eq!(fetch().await.unwrap(), None);
    cosign(&[("lab", seed::LAB_WITNESS), ("agency", seed::AGENCY_WITNESS)]);
    assert_eq!(fetch().await.unwrap(), Some((1, Witnessed { size: 6, lab: 7, agency: 7 })));
    // The operator cosigns in the agency's name.
    cosign(&[("lab", seed::LAB_WITNESS), ("agency", seed::OPERATOR)]);
    let error = fetch().await.unwrap_err();
    assert!(matches!(error, Error::Verification(VerificationError::Witnessed(WitnessFault::Missing(_)))), "{error}");
}

#[tokio::test]
async fn a_lost_answer_is_told_and_the_call_not_made_again() {
    let setting = setting(&[Turn::LosesAnswer]);
    let lost = setting.complete().await.unwrap_err();
    assert!(matches!(lost, Error::AnswerLost { ref state, .. } if state == "completed"));
    assert_eq!(setting.dispatched(), 1);
    assert!(setting.evaluator.receipts().calls().is_empty());
}

#[tokio::test]
async fn a_call_that_never_arrived_is_sent_again_as_the_same_call() {
    let setting = setting(&[Turn::LosesCall]);
    setting.complete().await.unwrap();
    assert_eq!(setting.dispatched(), 1);
    // And if its answer is lost then, that is the end of it.
    let setting = self::setting(&[Turn::LosesCall, Turn::LosesAnswer]);
    assert!(matches!(setting.complete().await, Err(Error::AnswerLost { .. })));
    assert_eq!(setting.dispatched(), 1);
    // A broker that keeps breaking off is not asked for ever.
    let setting = self::setting(&[Turn::LosesCall, Turn::LosesCall, Turn::Answers]);
    assert!(matches!(setting.complete().await, Err(Error::Transport(_))));
    assert_eq!(setting.dispatched(), 0);
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_nothing_repeated() {
    let setting = setting(&[Turn::Refuses]);
    let refused = setting.complete().await.unwrap_err();
    assert_eq!(refused.refused().unwrap().code, "grant_paused");
    assert_eq!(setting.dispatched(), 0);
}

#[tokio::test]
async fn an_answer_that_is_not_the_recorded_one_is_refused() {
    let setting = setting(&[Turn::ChangesBody]);
    let refused = setting.complete().await.unwrap_err();
    assert_eq!(refused.exit_code(), 7);
    assert!(setting.evaluator.receipts().calls().is_empty());
}

#[tokio::test]
async fn a_stream_ends_only_with_everything_verified() {
    let setting = setting(&[]);
    let (came, ended) = setting.stream().await;
    assert_eq!(came, ["one", "two"]);
    ended.unwrap();
    assert_eq!(setting.evaluator.receipts().calls().len(), 1);
}

#[tokio::test]
async fn a_stream_that_hides_forgets_or_swaps_is_an_error() {
    for (turn, events) in [(Turn::HidesAdmission, 0), (Turn::ForgetsEnd, 2), (Turn::SwapsEvents, 2)] {
        let setting = setting(&[turn]);
        let (came, ended) = setting.stream().await;
        assert_eq!(came.len(), events);
        assert_eq!(ended.unwrap_err().exit_code(), 7);
        assert!(setting.evaluator.receipts().calls().is_empty());
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_lost_and_not_over() {
    let setting = setting(&[Turn::LosesAnswer]);
    let (came, ended) = setting.stream().await;
    assert_eq!(came, ["one"]);
    assert!(matches!(ended, Err(Error::AnswerLost { .. })));
    assert_eq!(setting.dispatched(), 1);
}
