//! Calls that pass, and what is kept of them.

use anteroom_policy::event::Event;
use anteroom_proto::{
    ledger::{
        chain::ResponseChain,
        receipt::{verify_admission, verify_receipt},
    },
    names::CallId,
    rpc::{GetCallRequest, ServeRetire, call_event, serve_down, serve_up},
};

use super::rig::{Rig, call_of, code, delta, next, rest};
use crate::{
    identity::Role,
    testing::{START_MS, chat},
};

#[tokio::test]
async fn an_admitted_call_streams_and_yields_receipts_that_verify() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let mut caller = rig.caller.clone();
    let request = rig.request();
    let body_key: [u8; 32] = request.body_key.as_slice().try_into().unwrap();
    let body = request.body.clone();
    let asked = tokio::spawn(async move { caller.stream(request).await });
    let mut call = connector.take().await;
    // What the lab's side gets is the admission, proven, and the very bytes of the body.
    let dispatched = call.dispatch.admitted.as_ref().unwrap();
    let (grant, tag_key, trust) = (rig.access.grant, rig.access.tag_key(), rig.world.trust());
    let (record, _) = verify_admission(dispatched, &trust, &tag_key, grant, call.id).unwrap();
    assert_eq!(record.header().at_ms, START_MS);
    assert_eq!(call.dispatch.body, body);
    assert!(call.dispatch.output_tokens_max >= 64);
    let end = rig.world.journal.standing().grants[&grant].window.unwrap().end();
    assert_eq!(call.dispatch.deadline_ms, end.ms());
    connector.head(true).await;
    let mut stream = asked.await.unwrap().unwrap().into_inner();
    let Ok(call_event::Event::Admitted(admitted)) = next(&mut stream).await else { panic!("no admission first") };
    let _ = verify_admission(&admitted, &trust, &tag_key, grant, call.id).unwrap();
    let events = [delta("one"), delta("two"), "[DONE]".to_owned()];
    for event in &events {
        connector.event(&mut call, event).await;
    }
    connector.done(&rig.world, &call, "completed").await;
    let (data, end) = rest(&mut stream).await;
    let end = end.unwrap();
    assert_eq!(data, events);
    assert_eq!(end.status, 200);
    assert!(end.outcome.is_some());
    let receipt = verify_receipt(&end.receipt.unwrap(), &trust, &tag_key, grant, call.id).unwrap();
    let (_, finished) = receipt.finished().unwrap();
    assert_eq!(finished.end, "completed");
    let mut chain = ResponseChain::new(&body_key);
    for event in &events {
        chain.push(event.as_bytes());
    }
    assert_eq!((finished.released_events, finished.released_chain.clone()), (3, chain.value().to_vec()));
    assert_eq!(finished.charged_tokens, 7);
    // The same is to be had later, by the parties alone.
    let status = rig.status_of(&call.id).await;
    assert_eq!(status.state, "completed");
    assert!(status.outcome.is_some());
    let _ = verify_receipt(&status.receipt.unwrap(), &trust, &tag_key, grant, call.id).unwrap();
    let mut stranger = rig.client(rig.world.overseer.conn(Role::Person, "eve")).await;
    let refused = stranger.get_call(GetCallRequest { call: call.id.as_bytes().to_vec() }).await.unwrap_err();
    assert_eq!(code(&refused), "call_unknown");
}

#[tokio::test]
async fn a_whole_answer_comes_with_its_receipt_and_its_slot_serves_again() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    for round in 0..3 {
        let mut caller = rig.caller.clone();
        let request = rig.world.call(&rig.access, "chat", &chat(false));
        let asked = tokio::spawn(async move { caller.complete(request).await });
        let mut call = connector.take().await;
        connector.head(false).await;
        let answer = serde_json::json!({"choices": [{"index": 0, "message": {"content": format!("n {round}")}}]});
        connector.event(&mut call, &answer.to_string()).await;
        connector.done(&rig.world, &call, "completed").await;
        let reply = asked.await.unwrap().unwrap().into_inner();
        assert_eq!(reply.body, answer.to_string().into_bytes());
        let (trust, tag_key) = (rig.world.trust(), rig.access.tag_key());
        let receipt = verify_receipt(&reply.receipt.unwrap(), &trust, &tag_key, rig.access.grant, call.id).unwrap();
        let (_, finished) = receipt.finished().unwrap();
        assert_eq!(finished.released_events, 1);
        assert_eq!(finished.released_chain, call.chain.value());
    }
}

#[tokio::test]
async fn a_large_whole_answer_arrives_in_one_piece() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let mut caller = rig.caller.clone();
    let request = rig.world.call(&rig.access, "chat", &chat(false));
    let asked = tokio::spawn(async move { caller.complete(request).await });
    let mut call = connector.take().await;
    connector.head(false).await;
    let answer = delta(&"x".repeat(3_000_000));
    connector.event(&mut call, &answer).await;
    connector.done(&rig.world, &call, "completed").await;
    assert_eq!(asked.await.unwrap().unwrap().into_inner().body, answer.into_bytes());
}

#[tokio::test]
async fn a_call_made_twice_is_dispatched_once() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let _other = rig.slot().await;
    let id = CallId::new(rig.world.now().ms(), [7; 10]);
    let request = rig.world.call_as(&rig.access, id, "chat", &chat(true));
    let mut caller = rig.caller.clone();
    let first = request.clone();
    let asked = tokio::spawn(async move { caller.stream(first).await });
    // Either slot may have got it.
    let mut other = _other;
    let (mut call, connector) = tokio::select! {
        call = connector.take() => (call, &mut connector),
        call = other.take() => (call, &mut other),
    };
    connector.head(true).await;
    let mut stream = asked.await.unwrap().unwrap().into_inner();
    assert!(next(&mut stream).await.is_ok());
    let again = rig.caller.clone().stream(request.clone()).await.unwrap_err();
    assert_eq!(code(&again), "call_repeated");
    connector.event(&mut call, &delta("one")).await;
    connector.done(&rig.world, &call, "completed").await;
    assert!(rest(&mut stream).await.1.is_ok());
    let again = rig.caller.clone().stream(request).await.unwrap_err();
    assert_eq!(code(&again), "call_repeated");
    assert_eq!(rig.count(40), 1);
    assert_eq!(rig.count(43), 1);
}

#[tokio::test]
async fn a_hundred_parallel_calls_on_a_budget_for_one_admit_exactly_one() {
    let one = |terms: &mut serde_json::Value| {
        terms["budget"] = serde_json::json!({"calls": 1, "tokens": 1_000_000, "open": 10});
    };
    let rig = Rig::with(one).await;
    let mut connectors = Vec::new();
    for _ in 0..4 {
        connectors.push(rig.slot().await);
    }
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (mut caller, request) = (rig.caller.clone(), rig.request());
            tokio::spawn(async move { caller.stream(request).await })
        })
        .collect();
    let mut taken = 0;
    let mut refused = Vec::new();
    let mut streams = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            Ok(stream) => {
                taken += 1;
                streams.push(stream);
            }
            Err(status) => refused.push(code(&status).to_owned()),
        }
    }
    assert_eq!((taken, refused.len()), (1, 99));
    assert!(refused.iter().all(|code| code == "budget_held" || code == "budget_spent"), "{refused:?}");
    assert_eq!(rig.count(40), 1);
}

#[tokio::test]
async fn calls_wait_their_turn_for_the_one_slot() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let (mut caller, request) = (rig.caller.clone(), rig.request());
            tokio::spawn(async move {
                let mut stream = caller.stream(request).await?.into_inner();
                let _ = next(&mut stream).await?;
                rest(&mut stream).await.1
            })
        })
        .collect();
    for _ in 0..5 {
        let mut call = connector.take().await;
        connector.head(true).await;
        connector.event(&mut call, &delta("x")).await;
        connector.done(&rig.world, &call, "completed").await;
    }
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_slot_that_retires_is_closed_once_idle_and_never_with_a_call() {
    let rig = Rig::new().await;
    let retire = || serve_up::Message::Retire(ServeRetire {});
    let mut connector = rig.slot().await;
    // It crossed a dispatch: the call goes ahead, and so does the next one on the same slot.
    for _ in 0..2 {
        let (mut stream, mut call) = rig.open(&mut connector).await;
        connector.send(retire()).await;
        connector.event(&mut call, &delta("one")).await;
        connector.done(&rig.world, &call, "completed").await;
        assert!(rest(&mut stream).await.1.is_ok());
    }
    connector.send(retire()).await;
    assert!(connector.down.message().await.unwrap().is_none(), "closed in order");
    let refused = rig.caller.clone().stream(rig.request()).await.unwrap_err();
    assert_eq!(code(&refused), "lab_offline");

    // Calls that come at the very moment are served or refused before they are admitted.
    let (mut served, mut offline) = (0, 0);
    for round in 0..40 {
        let mut connector = rig.slot().await;
        let (mut caller, request) = (rig.caller.clone(), rig.request());
        let asked = tokio::spawn(async move { caller.stream(request).await });
        let idle = || rig.relay.slots().counts().iter().any(|(_, _, _, idle)| *idle > 0);
        while round % 2 == 0 && idle() {
            // A call has reserved it, and its admission is being written.
            tokio::task::yield_now().await;
        }
        connector.send(retire()).await;
        // Asking again and again is what a connector does whose slot stays.
        match connector.down.message().await.unwrap().map(|down| down.message.unwrap()) {
            None => {
                assert_eq!(code(&asked.await.unwrap().unwrap_err()), "lab_offline");
                offline += 1;
            }
            Some(serve_down::Message::Dispatch(dispatch)) => {
                let mut call = call_of(dispatch);
                connector.claim(&call).await;
                connector.head(true).await;
                connector.event(&mut call, &delta("one")).await;
                connector.done(&rig.world, &call, "completed").await;
                let mut stream = asked.await.unwrap().unwrap().into_inner();
                assert!(next(&mut stream).await.is_ok());
                assert!(rest(&mut stream).await.1.is_ok());
                connector.send(retire()).await;
                assert!(connector.down.message().await.unwrap().is_none());
                served += 1;
            }
            Some(serve_down::Message::Welcome(_) | serve_down::Message::Cut(_)) => panic!("no dispatch"),
        }
    }
    assert_eq!(served + offline, 40);
    let lost = rig
        .records()
        .into_iter()
        .filter(|sealed| matches!(&sealed.entered.event, Event::CallFinished(finished) if finished.end != "completed"));
    assert_eq!(lost.count(), 0, "no dispatch was lost");
    assert_eq!(rig.count(40), rig.count(43), "every admission has its end");
}
