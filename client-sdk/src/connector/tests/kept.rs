//! What a connector keeps for its lab, and what it gives back: its own list of calls, builds that changed, surplus slots.

use std::{collections::BTreeSet, time::Duration};

use anteroom_proto::{names::CallId, statement::envelope::Signer};

use super::{
    super::{Config, Connector, Slots, StartError, calls, reconcile::Standing, upstream::UpstreamLimits},
    broker::{Broker, soon},
    misbehaving::{Server, closes, config},
    served::verified,
    world::{GRANT, LAB_CONNECTOR, World, key},
};
use crate::home::Brokers;

const WHOLE: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":12}"#;
const SOON: Duration = Duration::from_millis(50);

/// A whole answer of a model server.
fn answer(model: &str, fingerprint: &str) -> String {
    let body = format!(
        r#"{{"model":"{model}","system_fingerprint":"{fingerprint}","usage":{{"prompt_tokens":3,"completion_tokens":4}}}}"#
    );
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn calls_stand_in_the_labs_own_list_as_their_outcomes_say() {
    let mut broker = Broker::start(World::new()).await;
    let server = Server::start(vec![closes(&answer("m", "fp-1")), closes("")]).await;
    let dir = tempfile::tempdir().unwrap();
    let connector = Connector::start(config(&broker, &server.base_url, UpstreamLimits::default(), dir.path())).unwrap();
    let mut slot = broker.open().await;
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        slot.dispatch(broker.dispatch(WHOLE)).await;
        slot.claimed().await;
        let (_, _, done) = slot.answer().await;
        // Whoever has the outcome finds its line.
        let outcome = done.outcome.unwrap();
        let list = calls::read(dir.path(), &[key(LAB_CONNECTOR).public_key().clone()], None).unwrap().unwrap();
        let claim = verified(&broker, &outcome);
        let kept = &list.calls[&CallId::from_slice(&claim.call).unwrap()];
        let ended = kept.ended.clone().unwrap();
        assert_eq!(kept.begun.as_ref().unwrap().admitted, ended.admitted);
        assert_eq!((&ended.end, ended.status, ended.output_tokens), (&claim.end, claim.status, claim.output_tokens));
        assert_eq!(ended.released_chain, claim.released_chain);
        assert_eq!(ended.grant, GRANT.as_bytes());
        assert_eq!(ended.released_bytes > 0, claim.end == "completed");
        assert_eq!(ended.outcome, anteroom_proto::names::Digest::of(&outcome.payload).as_bytes());
        outcomes.push(claim.end);
    }
    assert_eq!(outcomes, ["completed", "model_failed"]);
    // A drained connector leaves nothing unsealed.
    let drained = tokio::spawn(connector.drain());
    slot.ended().await;
    drop(slot);
    soon(drained).await.unwrap();
    let keys = [key(LAB_CONNECTOR).public_key().clone()];
    let list = calls::read(dir.path(), &keys, None).unwrap().unwrap();
    assert_eq!((list.unsealed, list.calls.len()), (0, 2));
    // With an empty ledger every one of them is this lab's alone.
    let (ledger, own) = (std::collections::BTreeMap::new(), BTreeSet::new());
    let read_at = anteroom_proto::time::At::clamped(super::world::NOW);
    let sides =
        super::super::reconcile::Sides { list: &list, read_at, ledger: &ledger, own: &own, server: None, whole: true };
    let found = super::super::reconcile::compare(&sides);
    assert!(found.len() == 2 && found.iter().all(|finding| finding.standing == Standing::OnlyHere));
}

#[tokio::test]
async fn a_build_that_changes_under_a_grant_is_signed_and_told_once() {
    let mut broker = Broker::start(World::new()).await;
    let acts = ["fp-1", "fp-1", "fp-2", "fp-2"].map(|fingerprint| closes(&answer("m", fingerprint)));
    let server = Server::start(acts.to_vec()).await;
    let dir = tempfile::tempdir().unwrap();
    let connector = Connector::start(config(&broker, &server.base_url, UpstreamLimits::default(), dir.path())).unwrap();
    let mut slot = broker.open().await;
    let mut claims = Vec::new();
    for _ in 0..4 {
        slot.dispatch(broker.dispatch(WHOLE)).await;
        slot.claimed().await;
        let (_, _, done) = slot.answer().await;
        claims.push(verified(&broker, &done.outcome.unwrap()));
    }
    let builds: Vec<&[u8]> = claims.iter().map(|claim| claim.reported_build.as_slice()).collect();
    assert!(builds[0].len() == 32 && builds[0] == builds[1] && builds[1] != builds[2] && builds[2] == builds[3]);
    let changed: Vec<bool> = claims.iter().map(|claim| !claim.reported_before.is_empty()).collect();
    assert_eq!(changed, [false, false, true, false]);
    assert_eq!(claims[2].reported_before, builds[0]);
    let status = connector.status().borrow().clone();
    assert_eq!(status.changes, 1);
    assert!(status.last_change.unwrap().contains("`fp-1` and is `fp-2`"));
}

#[tokio::test]
async fn surplus_slots_are_given_back_and_as_many_stay_as_have_to_wait() {
    let mut broker = Broker::start(World::new()).await;
    // One call a slot that does not end by itself, so that the pool grows.
    let server = Server::start(vec![super::misbehaving::says("")]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&broker, &server.base_url, UpstreamLimits::default(), dir.path());
    config.slots = Slots { idle_min: 1, max: 4 };
    let connector = Connector::start_retiring(config, None, SOON).unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut slot = broker.open().await;
        slot.dispatch(broker.dispatch(WHOLE)).await;
        let call = slot.claimed().await;
        open.push((slot, call));
    }
    let last = broker.open().await;
    let mut status = connector.status();
    soon(status.wait_for(|status| status.open == 4 && status.busy == 3)).await.unwrap();
    let mut idle = vec![last];
    for (mut slot, call) in open {
        slot.cut(&call, "over").await;
        slot.answer().await;
        idle.push(slot);
    }
    // All but one ask to be closed, and the broker closes them; a call comes into the first of them instead.
    let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
    for mut slot in idle {
        let (told, dispatch) = (told.clone(), broker.dispatch(WHOLE));
        tokio::spawn(async move {
            slot.retires().await;
            let _ = told.send((slot, dispatch));
        });
    }
    let (mut taken, dispatch) = soon(asked.recv()).await.unwrap();
    taken.dispatch(dispatch).await;
    let call = taken.claimed().await;
    for _ in 0..2 {
        drop(soon(asked.recv()).await.unwrap());
    }
    soon(status.wait_for(|status| (status.open, status.busy, status.retiring) == (2, 1, 0))).await.unwrap();
    taken.cut(&call, "over").await;
    let (_, _, done) = taken.answer().await;
    assert_eq!(verified(&broker, &done.outcome.unwrap()).end, "over", "a call on its way is served");
    // Two wait, one too many: one of them asks.
    let also = async { soon(asked.recv()).await.map(drop) };
    tokio::select! {
        () = taken.retires() => drop(taken),
        _ = also => {}
    }
    soon(status.wait_for(|status| (status.open, status.busy, status.retiring) == (1, 0, 0))).await.unwrap();
    assert!(!broker.has_slot());
    assert_eq!(std::fs::read_dir(dir.path().join("outcomes")).unwrap().count(), 0, "everything had arrived");
}

#[tokio::test]
async fn every_broker_of_a_log_gets_slots_and_one_that_goes_takes_only_its_own_with_it() {
    let mut one = Broker::start(World::new()).await;
    let mut two = one.beside().await;
    let server = Server::start(vec![super::misbehaving::says("")]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&one, &server.base_url, UpstreamLimits::default(), dir.path());
    config.brokers.each.extend(Brokers::one(two.channel()).each);
    let refused = |slots| {
        let config = Config { slots, ..config.clone() };
        matches!(Connector::start(config), Err(StartError::Slots))
    };
    assert!(refused(Slots { idle_min: 2, max: 3 }), "each broker has its slots that wait");
    config.slots = Slots { idle_min: 2, max: 5 };
    let connector = Connector::start(config).unwrap();
    let mut status = connector.status();
    let at_one = (one.open().await, one.open().await);
    let (mut at_two, _also_at_two) = (two.open().await, two.open().await);
    soon(status.wait_for(|status| status.open == 4)).await.unwrap();

    // A call at one of them makes room for another there, and there alone.
    at_two.dispatch(two.dispatch(WHOLE)).await;
    let call = at_two.claimed().await;
    let _third_at_two = two.open().await;
    assert!(!one.has_slot());
    drop(at_one);
    drop(one);
    soon(status.wait_for(|status| status.open == 3)).await.unwrap();
    at_two.cut(&call, "over").await;
    let (_, _, done) = at_two.answer().await;
    assert_eq!(verified(&two, &done.outcome.unwrap()).end, "over");
}
