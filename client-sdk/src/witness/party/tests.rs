//! A party's witness against a broker that tells the truth, and against one that tells two.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::{
    io,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use anteroom_proto::{
    ledger::{
        checkpoint::LogTrust,
        note::{Note, NoteSignature},
    },
    names::OrgId,
    rpc::{
        self, GetCheckpointReply, GetPublishedReply,
        audit_server::{Audit, AuditServer},
    },
    statement::witness::witness_key,
};
use futures_util::Stream;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tonic::{Request, Response, Status, transport::Endpoint};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;
use crate::{signer::KeyFile, witness::keeper::tests::Log};

/// What the broker shows.
struct Fake {
    log: Mutex<Log>,
    /// The size it shows as its newest, and as published.
    shown: AtomicU64,
    /// Handed in, by size.
    lines: Mutex<Vec<(u64, String)>>,
    /// The code that hand-ins are refused with.
    refuses: Mutex<Option<&'static str>>,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Audit for Fake {
    type ReadStream = Replies<rpc::ReadReply>;
    type EntriesStream = Replies<rpc::EntriesReply>;

    async fn read(&self, _: Request<rpc::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("read"))
    }

    async fn entries(&self, _: Request<rpc::EntriesRequest>) -> Result<Response<Self::EntriesStream>, Status> {
        Err(Status::unimplemented("entries"))
    }

    async fn get_checkpoint(
        &self,
        request: Request<rpc::GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointReply>, Status> {
        let (size, log) = (self.shown.load(Ordering::Relaxed), self.log.lock().unwrap());
        let seen = request.into_inner().seen_size.min(size);
        let consistency = bytes(&log.proof(seen, size));
        Ok(Response::new(GetCheckpointReply { checkpoint: log.note(size), consistency, log_keys: Vec::new() }))
    }

    async fn get_published(
        &self,
        request: Request<rpc::GetPublishedRequest>,
    ) -> Result<Response<GetPublishedReply>, Status> {
        let (size, log) = (self.shown.load(Ordering::Relaxed), self.log.lock().unwrap());
        if size == 0 {
            return Ok(Response::new(GetPublishedReply::default()));
        }
        let mut note = Note::parse(log.note(size).as_bytes()).unwrap();
        for (_, line) in self.lines.lock().unwrap().iter().filter(|(of, _)| *of == size) {
            note.add(NoteSignature::parse(line).unwrap()).unwrap();
        }
        let seen = request.into_inner().seen_size.min(size);
        let consistency = bytes(&log.proof(seen, size));
        Ok(Response::new(GetPublishedReply { checkpoint: note.encode(), consistency, ..GetPublishedReply::default() }))
    }

    async fn cosign(&self, request: Request<rpc::CosignRequest>) -> Result<Response<rpc::CosignReply>, Status> {
        if let Some(code) = *self.refuses.lock().unwrap() {
            let mut details = ErrorDetails::new();
            details.set_error_info(code, crate::error::DOMAIN, std::collections::HashMap::new());
            return Err(Status::with_error_details(tonic::Code::FailedPrecondition, code, details));
        }
        let request = request.into_inner();
        self.lines.lock().unwrap().push((request.size, request.line));
        Ok(Response::new(rpc::CosignReply {}))
    }

    async fn list_scopes(&self, _: Request<rpc::ListScopesRequest>) -> Result<Response<rpc::ListScopesReply>, Status> {
        Err(Status::unimplemented("scopes"))
    }
}

fn bytes(proof: &[Hash]) -> Vec<Vec<u8>> {
    proof.iter().map(|hash| hash.as_bytes().to_vec()).collect()
}

/// A channel to `fake` through memory.
fn channel(fake: &Arc<Fake>) -> Channel {
    let routes = tonic::service::Routes::new(AuditServer::from_arc(Arc::clone(fake))).prepare();
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
    dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let fake = Fake {
            log: Mutex::new(log("a")),
            shown: AtomicU64::new(0),
            lines: Mutex::default(),
            refuses: Mutex::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        Keeper::create(dir.path()).unwrap();
        Self { fake: Arc::new(fake), dir }
    }

    fn show(&self, size: u64) {
        self.fake.shown.store(size, Ordering::Relaxed);
    }

    /// From now on the broker tells another history, which parts at entry 5.
    fn fork(&self) {
        *self.fake.log.lock().unwrap() = log("b");
    }

    fn view(&self) -> Arc<LogView> {
        Arc::new(LogView::new(log("a").trust()))
    }

    fn party(&self, view: Arc<LogView>) -> Party {
        let signer = signer();
        let dir = self.dir.path().to_owned();
        Party::open(key(), signer, dir, view, channel(&self.fake)).unwrap()
    }

    /// The sizes that lines were handed in for; each line holds.
    fn cosigned(&self) -> Vec<u64> {
        let lines = self.fake.lines.lock().unwrap();
        let log = log("a");
        let trust = LogTrust::new(log.signer.verifier().clone(), vec![key()], 1).unwrap();
        for (size, line) in lines.iter() {
            let mut note = Note::parse(log.note(*size).as_bytes()).unwrap();
            note.add(NoteSignature::parse(line).unwrap()).unwrap();
            let _ = trust.verify(note).unwrap();
        }
        lines.iter().map(|(size, _)| *size).collect()
    }
}

fn log(salt: &str) -> Log {
    Log::new("broker.example/log", salt)
}

fn signer() -> SharedSigner {
    SharedSigner::new(KeyFile::from_seed(&[7; 32]).unwrap())
}

fn key() -> VerifierKey {
    let origin = log("a").signer.verifier().name().clone();
    witness_key(&origin, &OrgId::parse("aisi").unwrap(), signer().public_key()).unwrap()
}

#[tokio::test]
async fn what_is_published_is_cosigned_once_as_it_grows() {
    let setting = Setting::new();
    let party = setting.party(setting.view());
    assert_eq!(party.turn().await.unwrap(), Turn::Nothing);
    setting.show(3);
    assert_eq!(party.turn().await.unwrap(), Turn::Cosigned(3));
    assert_eq!(party.turn().await.unwrap(), Turn::Stands(3));
    setting.show(60);
    assert_eq!(party.turn().await.unwrap(), Turn::Cosigned(60));
    assert_eq!(setting.cosigned(), [3, 60]);
}

#[tokio::test]
async fn a_line_that_a_restarted_broker_forgot_is_handed_in_again() {
    let setting = Setting::new();
    let party = setting.party(setting.view());
    setting.show(9);
    assert_eq!(party.turn().await.unwrap(), Turn::Cosigned(9));
    setting.fake.lines.lock().unwrap().clear();
    assert_eq!(party.turn().await.unwrap(), Turn::Cosigned(9));
    setting.show(8);
    assert_eq!(party.turn().await.unwrap(), Turn::Nothing, "published behind what stands here");
}

#[tokio::test]
async fn a_broker_that_changes_its_history_gets_no_cosignature_and_leaves_evidence() {
    for (size, how) in [(9, "at the same size"), (30, "at a larger size")] {
        let setting = Setting::new();
        let party = setting.party(setting.view());
        setting.show(9);
        assert_eq!(party.turn().await.unwrap(), Turn::Cosigned(9));
        setting.fake.lines.lock().unwrap().clear();
        setting.fork();
        setting.show(size);
        let error = party.turn().await.unwrap_err();
        assert!(matches!(error, PartyError::Contradiction { .. }) && !error.may_pass(), "{how}: {error}");
        assert_eq!(setting.cosigned(), Vec::<u64>::new(), "{how}");
        let kept = std::fs::read(setting.dir.path().join("contradicting-checkpoint")).unwrap();
        assert_eq!(kept, log("b").note(size).into_bytes(), "{how}");
    }
}

#[tokio::test]
async fn a_restarted_witness_still_knows_the_history_it_cosigned() {
    let setting = Setting::new();
    setting.show(9);
    assert_eq!(setting.party(setting.view()).turn().await.unwrap(), Turn::Cosigned(9));
    setting.fork();
    setting.show(30);
    // The view starts with nothing; the memory of the key does not.
    let error = setting.party(setting.view()).turn().await.unwrap_err();
    assert!(matches!(error, PartyError::Contradiction { .. }), "{error}");
}

#[tokio::test]
async fn what_this_side_saw_by_other_ways_counts() {
    let setting = Setting::new();
    setting.show(9);
    let view = setting.view();
    let _ = view.refresh(&AuditClient::new(channel(&setting.fake))).await.unwrap();
    setting.fork();
    setting.show(30);
    let error = setting.party(Arc::clone(&view)).turn().await.unwrap_err();
    assert!(matches!(error, PartyError::Contradiction { .. }), "{error}");
    assert!(view.refresh(&AuditClient::new(channel(&setting.fake))).await.is_err(), "nor is anything else believed");
}

#[tokio::test]
async fn a_hand_in_that_comes_too_late_is_no_failure_and_a_refusal_is_one() {
    let setting = Setting::new();
    let party = setting.party(setting.view());
    setting.show(9);
    *setting.fake.refuses.lock().unwrap() = Some("checkpoint_superseded");
    assert_eq!(party.turn().await.unwrap(), Turn::Later);
    *setting.fake.refuses.lock().unwrap() = Some("witness_unknown");
    let error = party.turn().await.unwrap_err();
    assert!(matches!(&error, PartyError::Sdk(Error::Refused(refused)) if refused.code == "witness_unknown"), "{error}");
    assert!(error.may_pass());
    *setting.fake.refuses.lock().unwrap() = None;
    assert_eq!(party.turn().await.unwrap(), Turn::Cosigned(9));
}
