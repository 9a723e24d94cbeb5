//! Calls on their way through: answered, refused, cut, lost, stopped.

use std::{path::Path, time::Duration};

use anteroom_proto::{
    ledger::chain::ResponseChain,
    rpc::{OutcomeClaim, SignedStatement, serve_up},
    time::HOUR_MS,
};
use tempfile::TempDir;

use super::{
    super::{
        Config, Connector, Slots,
        generator::{Counts, Generator, Pace, Running},
        upstream::{ANTHROPIC_VERSION, Api, Upstream, UpstreamLimits},
    },
    broker::{Broker, FakeSlot, soon},
    world::{BODY_KEY, GRANT, LAB_CONNECTOR, OPERATOR, World, key},
};
use crate::{
    fingerprint::{FingerprintStore, Keeper, Library, Limits, Question},
    signer::SharedSigner,
    verify::dossier::{Pins, VerifiedDossier},
};

const STREAM: &str = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},"max_tokens":40}"#;
const LONG: &str = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":100000}"#;
const WHOLE: &str = r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":12}"#;
const SLOW: Pace = Pace { per_word: Duration::from_millis(5) };

/// A connector between a fake broker and the generator.
struct Stage {
    broker: Broker,
    model: Running,
    connector: Connector,
    dir: TempDir,
}

impl Stage {
    async fn new(pace: Pace, slots: Slots) -> Self {
        let broker = Broker::start(World::new()).await;
        let model = Generator::start(pace).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let connector = connector(&broker, &model, dir.path(), slots);
        Self { broker, model, connector, dir }
    }

    /// One slot, dispatched `body`, which was claimed and whose answer began.
    async fn begun(&mut self, body: &str) -> (FakeSlot, Vec<u8>) {
        let mut slot = self.broker.open().await;
        slot.dispatch(self.broker.dispatch(body)).await;
        let call = slot.claimed().await;
        assert_eq!(slot.head().await.status, 200);
        (slot, call)
    }

    /// An outcome that one of the lab's connector keys signed.
    fn verified(&self, outcome: &SignedStatement) -> OutcomeClaim {
        verified(&self.broker, outcome)
    }

    async fn model_is_left(&self) -> Counts {
        soon(self.model.counts_reach(|counts| counts.cut_streams == 1 && counts.open_streams == 0)).await
    }
}

/// An outcome that one of the lab's connector keys signed.
pub(super) fn verified(broker: &Broker, outcome: &SignedStatement) -> OutcomeClaim {
    let world = broker.world.lock().unwrap();
    let pinned = world.pinned();
    let agency = *pinned.agencies.values().next().unwrap();
    let dossier = VerifiedDossier::verify(&world.dossier, &Pins { lab: pinned.lab, agency }).unwrap();
    dossier.verify_outcome(outcome, super::world::at(super::world::NOW)).unwrap()
}

const ONE: Slots = Slots { idle_min: 1, max: 1 };

fn connector(broker: &Broker, model: &Running, dir: &Path, slots: Slots) -> Connector {
    keeping(broker, model, dir, slots, None)
}

fn keeping(broker: &Broker, model: &Running, dir: &Path, slots: Slots, kept: Option<Keeper>) -> Connector {
    let upstream = Upstream::new(model.base_url(), None, UpstreamLimits::default()).unwrap();
    beside(broker, upstream, dir, slots, kept)
}

fn beside(broker: &Broker, upstream: Upstream, dir: &Path, slots: Slots, kept: Option<Keeper>) -> Connector {
    let world = broker.world.lock().unwrap();
    let config = Config {
        brokers: crate::home::Brokers::one(broker.channel()),
        name: "c-1".to_owned(),
        signer: SharedSigner::new(key(LAB_CONNECTOR)),
        served: world.served(),
        pinned: world.pinned(),
        upstream,
        slots,
        clock: world.clock(),
        dir: dir.to_owned(),
        switch: dir.to_owned(),
    };
    Connector::start_with(config, kept).unwrap()
}

pub(super) fn chain(events: &[bytes::Bytes]) -> (u64, Vec<u8>) {
    let mut chain = ResponseChain::new(&BODY_KEY);
    for event in events {
        chain.push(event);
    }
    (chain.count(), chain.value().to_vec())
}

pub(super) fn released(outcome: &OutcomeClaim) -> (u64, Vec<u8>) {
    (outcome.released_events, outcome.released_chain.clone())
}

pub(super) fn received(outcome: &OutcomeClaim) -> (u64, Vec<u8>) {
    (outcome.received_events, outcome.received_chain.clone())
}

#[tokio::test]
async fn a_streamed_answer_arrives_event_by_event_with_a_signed_outcome() {
    let mut stage = Stage::new(Pace::AT_ONCE, ONE).await;
    let (mut slot, call) = stage.begun(STREAM).await;
    let (events, done) = slot.rest().await;
    assert_eq!(events.last().unwrap().as_ref(), b"[DONE]");
    assert!(events.len() > 10);
    let outcome = stage.verified(&done.outcome.unwrap());
    assert_eq!((outcome.call.as_slice(), outcome.end.as_str(), outcome.status), (call.as_slice(), "completed", 200));
    assert_eq!((released(&outcome), received(&outcome)), (chain(&events), chain(&events)));
    assert!(outcome.output_tokens.is_some_and(|tokens| tokens > 0));
    assert_eq!(outcome.seen_size, stage.broker.world.lock().unwrap().tree.size());
    // The slot takes the next call on the same stream.
    slot.dispatch(stage.broker.dispatch(WHOLE)).await;
    slot.claimed().await;
    let head = slot.head().await;
    assert_eq!((head.status, head.events), (200, false));
    let (body, done) = slot.rest().await;
    let outcome = stage.verified(&done.outcome.unwrap());
    assert_eq!((body.len(), released(&outcome)), (1, chain(&body)));
    assert_eq!(stage.model.counts().calls, 2);
}

#[tokio::test]
async fn an_outcome_names_the_fingerprints_that_were_kept_of_the_answer() {
    let broker = Broker::start(World::new()).await;
    let model = Generator::start(Pace::AT_ONCE).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("fingerprints");
    // Every answer begins a segment.
    let limits = Limits { segment_bytes: 1, ..Limits::default() };
    let kept = Keeper::new(FingerprintStore::open(&store, limits).unwrap()).unwrap();
    let connector = keeping(&broker, &model, dir.path(), ONE, Some(kept));
    let mut stage = Stage { broker, model, connector, dir };
    let mut slot = stage.broker.open().await;
    // Long enough to be found again whatever the key.
    let whole = WHOLE.replace("12", "60");
    for (body, stream) in [(STREAM, true), (whole.as_str(), false)] {
        slot.dispatch(stage.broker.dispatch(body)).await;
        let call = slot.claimed().await;
        assert_eq!(slot.head().await.events, stream);
        let (events, done) = slot.rest().await;
        let outcome = stage.verified(&done.outcome.unwrap());
        let library = Library::open(&store).unwrap().unwrap();
        let found = library.find(&Question::new(&events.join(b"\n".as_slice())), None).unwrap();
        let own = found.iter().find(|found| found.call.as_bytes().as_slice() == call).unwrap();
        assert_eq!((own.grant, own.matched), (GRANT, own.of), "all of the answer");
        assert_eq!(outcome.fingerprint_digest, own.digest.as_bytes());
    }
    // The store goes away: the call passes without a digest, and the status says what is the matter.
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::write(&store, b"").unwrap();
    slot.dispatch(stage.broker.dispatch(STREAM)).await;
    slot.claimed().await;
    slot.head().await;
    let (_, done) = slot.rest().await;
    let outcome = stage.verified(&done.outcome.unwrap());
    assert_eq!((outcome.end.as_str(), outcome.fingerprint_digest.as_slice()), ("completed", [].as_slice()));
    let mut status = stage.connector.status();
    let failing = status.wait_for(|status| status.fingerprints.as_ref().is_some_and(|health| health.left_out > 0));
    let health = soon(failing).await.unwrap().fingerprints.clone().unwrap();
    assert!(health.why.is_some_and(|why| why.contains("fingerprints")));
}

#[tokio::test]
async fn what_the_model_server_refuses_is_handed_on() {
    let mut stage = Stage::new(Pace::AT_ONCE, ONE).await;
    let mut slot = stage.broker.open().await;
    slot.dispatch(stage.broker.dispatch(r#"{"messages":7}"#)).await;
    slot.claimed().await;
    assert_eq!(slot.head().await.status, 400);
    let (body, done) = slot.rest().await;
    assert_eq!(body.len(), 1);
    let outcome = stage.verified(&done.outcome.unwrap());
    assert_eq!((outcome.end.as_str(), outcome.status), ("completed", 400));
}

#[tokio::test]
async fn a_refused_call_never_reaches_the_model_and_the_slot_goes_on() {
    let mut stage = Stage::new(Pace::AT_ONCE, ONE).await;
    let mut slot = stage.broker.open().await;
    let forged = {
        let mut world = stage.broker.world.lock().unwrap();
        let mut draft = world.draft(WHOLE);
        draft.workload = OPERATOR;
        world.seal(draft)
    };
    slot.dispatch(forged).await;
    let (_, done) = slot.rest().await;
    assert_eq!((done.refused.as_str(), done.outcome), ("claim_invalid", None));
    let honest = stage.broker.dispatch(WHOLE);
    slot.dispatch(honest.clone()).await;
    slot.claimed().await;
    slot.head().await;
    slot.rest().await;
    // The same admission once more.
    slot.dispatch(honest).await;
    let (_, done) = slot.rest().await;
    assert_eq!(done.refused, "call_seen");
    assert_eq!(stage.model.counts().calls, 1);
    let status = stage.connector.status().borrow().clone();
    assert_eq!((status.calls, status.completed, status.refused), (1, 1, 2));
}

#[tokio::test]
async fn a_cut_closes_the_models_stream() {
    let mut stage = Stage::new(SLOW, ONE).await;
    let (mut slot, call) = stage.begun(LONG).await;
    let mut events = vec![slot.data().await, slot.data().await];
    slot.cut(&[0; 16], "not_this_call").await;
    events.push(slot.data().await);
    slot.cut(&call, "grant_withdrawn").await;
    let (rest, done) = slot.rest().await;
    events.extend(rest);
    stage.model_is_left().await;
    let outcome = stage.verified(&done.outcome.unwrap());
    assert_eq!(outcome.end, "grant_withdrawn");
    assert_eq!(released(&outcome), chain(&events));
    assert!(outcome.received_events >= outcome.released_events);
}

#[tokio::test]
async fn the_connectors_own_clock_ends_an_answer() {
    let mut stage = Stage::new(SLOW, ONE).await;
    let (mut slot, _) = stage.begun(LONG).await;
    slot.data().await;
    stage.broker.world.lock().unwrap().pass(100 * HOUR_MS);
    let (_, done) = slot.rest().await;
    stage.model_is_left().await;
    assert_eq!(stage.verified(&done.outcome.unwrap()).end, "window_over");
}

#[tokio::test]
async fn a_lost_stream_drops_the_model_and_its_outcome_is_reported_later() {
    let mut stage = Stage::new(SLOW, ONE).await;
    let (mut slot, call) = stage.begun(LONG).await;
    slot.data().await;
    drop(slot);
    stage.model_is_left().await;
    let _again = stage.broker.open().await;
    let report = soon(stage.broker.reports.recv()).await.unwrap();
    let outcome = stage.verified(&report);
    assert_eq!((outcome.call, outcome.end.as_str()), (call, "stream_lost"));
    let mut status = stage.connector.status();
    soon(status.wait_for(|status| status.spooled == 0 && status.open == 1)).await.unwrap();
    let left = std::fs::read_dir(stage.dir.path().join("outcomes")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_outcome_that_may_not_have_arrived_is_reported() {
    let mut stage = Stage::new(Pace::AT_ONCE, ONE).await;
    let (mut slot, call) = stage.begun(STREAM).await;
    let (_, done) = slot.rest().await;
    drop(slot);
    let _again = stage.broker.open().await;
    let report = soon(stage.broker.reports.recv()).await.unwrap();
    assert_eq!(stage.verified(&report).call, call);
    assert_eq!(Some(report), done.outcome);
}

#[tokio::test]
async fn an_outcome_outlives_the_connector() {
    let mut stage = Stage::new(SLOW, ONE).await;
    let (mut slot, call) = stage.begun(LONG).await;
    slot.data().await;
    // The broker is gone for good as far as this connector will see.
    let dead = stage.broker;
    drop(slot);
    let kept = |dir: &Path| std::fs::read_dir(dir.join("outcomes")).unwrap().count();
    soon(async {
        while kept(stage.dir.path()) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(stage.connector);
    drop(dead);
    let mut broker = Broker::start(World::new()).await;
    let _connector = connector(&broker, &stage.model, stage.dir.path(), ONE);
    let slot = broker.slot().await;
    // The new broker knows nothing of the old log, which is for the lab to notice.
    let report = soon(broker.reports.recv()).await;
    drop(slot);
    let claim: OutcomeClaim = anteroom_proto::statement::envelope::read_claim(&report.unwrap()).unwrap();
    assert_eq!(claim.call, call);
}

#[tokio::test]
async fn the_local_switch_cuts_at_once_and_holds_until_it_is_lifted() {
    let mut stage = Stage::new(SLOW, ONE).await;
    let (mut slot, _) = stage.begun(LONG).await;
    slot.data().await;
    stage.connector.stop("drill").unwrap();
    let (_, done) = slot.rest().await;
    stage.model_is_left().await;
    assert_eq!(stage.verified(&done.outcome.unwrap()).end, "locally_stopped");
    slot.ended().await;
    drop(slot);
    let mut status = stage.connector.status();
    soon(status.wait_for(|status| status.open == 0)).await.unwrap();
    assert!(!stage.broker.has_slot());
    stage.connector.resume().unwrap();
    stage.broker.open().await;
}

#[tokio::test]
async fn a_stopped_connector_opens_no_slot_after_a_restart() {
    let mut stage = Stage::new(Pace::AT_ONCE, ONE).await;
    let slot = stage.broker.open().await;
    stage.connector.stop("drill").unwrap();
    drop(slot);
    drop(stage.connector);
    let again = connector(&stage.broker, &stage.model, stage.dir.path(), ONE);
    let mut status = again.status();
    soon(status.wait_for(|status| status.stopped.as_deref() == Some("drill"))).await.unwrap();
    assert!(!stage.broker.has_slot());
    again.resume().unwrap();
    stage.broker.open().await;
}

#[tokio::test]
async fn a_grant_stopped_here_is_refused_and_its_calls_are_cut() {
    let mut stage = Stage::new(SLOW, ONE).await;
    let (mut slot, _) = stage.begun(LONG).await;
    slot.data().await;
    stage.connector.stop_grant(GRANT, "ours").unwrap();
    let (_, done) = slot.rest().await;
    assert_eq!(stage.verified(&done.outcome.unwrap()).end, "locally_stopped");
    slot.dispatch(stage.broker.dispatch(WHOLE)).await;
    let (_, done) = slot.rest().await;
    assert_eq!((done.refused.as_str(), done.detail.as_str()), ("locally_stopped", "ours"));
    stage.connector.resume_grant(&GRANT).unwrap();
    slot.dispatch(stage.broker.dispatch(WHOLE)).await;
    slot.claimed().await;
}

#[tokio::test]
async fn a_route_that_the_model_server_does_not_answer_is_refused_before_it_is_asked() {
    let mut broker = Broker::start(World::new()).await;
    let model = Generator::start(Pace::AT_ONCE).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::new(model.base_url(), None, UpstreamLimits::default()).unwrap();
    let upstream = upstream.speaking(Api::Anthropic, ANTHROPIC_VERSION).unwrap();
    let connector = beside(&broker, upstream, dir.path(), ONE, None);
    let mut slot = broker.open().await;
    slot.dispatch(broker.dispatch(WHOLE)).await;
    let (events, done) = slot.rest().await;
    assert_eq!((events.len(), done.refused.as_str(), done.outcome), (0, "route_not_served", None));
    assert!(done.detail.contains("/v1/chat/completions"), "{}", done.detail);
    let status = connector.status();
    assert_eq!((status.borrow().refused, status.borrow().calls, model.counts().requests), (1, 0, 0));
}

#[tokio::test]
async fn a_broker_with_another_history_stops_the_connector() {
    let mut stage = Stage::new(Pace::AT_ONCE, ONE).await;
    stage.broker.world.lock().unwrap().grow(&["a", "b", "c"]);
    let slot = stage.broker.open().await;
    drop(slot);
    let mut slot = stage.broker.slot().await;
    let serve_up::Message::Hello(hello) = slot.next().await else { panic!("no hello") };
    assert_eq!(hello.seen_size, 3);
    let mut other = World::new();
    other.grow(&["a", "b", "x", "d"]);
    slot.welcome(other.extension(3)).await;
    let mut status = stage.connector.status();
    let stopped = soon(status.wait_for(|status| status.stopped.is_some())).await.unwrap().stopped.clone();
    assert!(stopped.unwrap().contains("contradicts"));
    assert!(stage.dir.path().join("contradicting-checkpoint").exists());
    assert!(stage.dir.path().join("contradicted-checkpoint").exists());
}

#[tokio::test]
async fn calls_that_overtook_each_other_are_proven_before_they_pass() {
    let mut stage = Stage::new(Pace::AT_ONCE, ONE).await;
    let mut slot = stage.broker.open().await;
    let (early, late) = {
        let mut world = stage.broker.world.lock().unwrap();
        let early = world.dispatch(WHOLE);
        world.grow(&["between"]);
        (early, world.dispatch(WHOLE))
    };
    for dispatch in [late, early] {
        slot.dispatch(dispatch).await;
        slot.claimed().await;
        slot.head().await;
        let (_, done) = slot.rest().await;
        assert_eq!(stage.verified(&done.outcome.unwrap()).end, "completed");
    }
    // An admission on a side branch that is smaller than the newest cannot be shown to belong there.
    let side = {
        let mut world = stage.broker.world.lock().unwrap();
        let main = world.tree.clone();
        world.tree = anteroom_proto::ledger::tree::Tree::new();
        let side = world.dispatch(WHOLE);
        world.tree = main;
        world.grow(&["later"]);
        side
    };
    slot.dispatch(side).await;
    let (_, done) = slot.rest().await;
    assert_eq!(done.refused, "receipt_invalid");
}

#[tokio::test]
async fn the_pool_keeps_slots_waiting_up_to_its_bound() {
    let mut stage = Stage::new(SLOW, Slots { idle_min: 1, max: 2 }).await;
    let (first, _) = stage.begun(LONG).await;
    // The first slot is in use, so another one waits.
    let (second, _) = stage.begun(LONG).await;
    let mut status = stage.connector.status();
    soon(status.wait_for(|status| status.busy == 2 && status.open == 2)).await.unwrap();
    assert!(!stage.broker.has_slot());
    drop((first, second));
    stage.broker.open().await;
}

#[tokio::test]
async fn draining_lets_a_call_end_and_hands_its_outcome_in() {
    let mut stage = Stage::new(SLOW, ONE).await;
    let (mut slot, _) = stage.begun(STREAM).await;
    slot.data().await;
    let connector = stage.connector;
    let drained = tokio::spawn(connector.drain());
    let (events, done) = slot.rest().await;
    assert_eq!(events.last().unwrap().as_ref(), b"[DONE]");
    assert!(done.outcome.is_some());
    slot.ended().await;
    drop(slot);
    soon(drained).await.unwrap();
    assert_eq!(std::fs::read_dir(stage.dir.path().join("outcomes")).unwrap().count(), 0);
    assert!(stage.dir.path().join("log-head").exists());
}
