//! Ends: whatever ends access reaches calls that are open.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{
    names::LockId,
    rpc::{ServeDone, serve_up},
    statement::acts::{LockTarget, Stop, StopKind},
    statement::envelope::sign_json,
    time::HOUR_MS,
};

use http_body_util::BodyExt as _;

use super::rig::{Rig, code, delta, next, rest};
use crate::{
    identity::{Kill, Role},
    testing::{PSEUDONYM, chat, done},
};

#[tokio::test]
async fn a_withdrawn_grant_cuts_an_open_stream() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    connector.event(&mut call, &delta("one")).await;
    assert!(next(&mut stream).await.is_ok());
    let stop = rig.world.stop(&rig.world.lab, rig.access.grant, StopKind::Withdraw);
    done(rig.world.act(&rig.world.lab, stop, &[]).await);
    let (data, end) = rest(&mut stream).await;
    assert!(data.is_empty());
    assert_eq!(code(&end.unwrap_err()), "grant_withdrawn");
    assert_eq!(connector.cut().await.code, "grant_withdrawn");
    connector.done(&rig.world, &call, "grant_withdrawn").await;
    let finished = rig.finished(&call.id).await;
    assert_eq!((finished.end.as_str(), finished.released_events), ("grant_withdrawn", 1));
    assert!(finished.cut.is_some() && finished.outcome.is_some());
    assert_eq!(finished.charged, 7);
    let again = rig.caller.clone().stream(rig.request()).await.unwrap_err();
    assert_eq!(code(&again), "grant_withdrawn");
    assert_eq!(rig.relay.cut_times().told.count(), 1);
}

#[tokio::test]
async fn a_cut_ahead_of_its_record_ends_calls_and_holds_new_ones_until_it_is_taken_back() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, call) = rig.open(&mut connector).await;
    let now = rig.world.now();
    assert_eq!(rig.relay.cut_grant(rig.access.grant, Refusal::GrantWithdrawn, now), 1);
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "grant_withdrawn");
    assert_eq!(connector.cut().await.call, call.id.as_bytes());
    connector.done(&rig.world, &call, "grant_withdrawn").await;
    let held = rig.caller.clone().stream(rig.request()).await.unwrap_err();
    assert_eq!(code(&held), "grant_withdrawn");
    rig.relay.reopen(rig.access.grant);
    let (_stream, other) = rig.open(&mut connector).await;
    assert_ne!(other.id, call.id);
    assert_eq!(rig.finished(&call.id).await.end, "grant_withdrawn", "what was cut stays cut");
}

#[tokio::test]
async fn a_pause_cuts_and_a_resumed_grant_serves_again() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, call) = rig.open(&mut connector).await;
    let id = LockId::from_bytes([9; 16]);
    let lab = &rig.world.lab;
    let pause =
        Stop { stop: StopKind::Pause, grant: rig.access.grant, by: lab.org.clone(), id, reason: "r".to_owned() };
    let now = rig.world.now();
    assert_eq!(rig.relay.cut_grant(rig.access.grant, Refusal::GrantPaused, now), 1);
    done(rig.world.act(lab, sign_json(&pause, &[&lab.stop]).unwrap(), &[]).await);
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "grant_paused");
    connector.cut().await;
    connector.done(&rig.world, &call, "grant_paused").await;
    assert_eq!(code(&rig.caller.clone().stream(rig.request()).await.unwrap_err()), "grant_paused");
    done(rig.world.act(lab, rig.world.resume(lab, rig.access.grant, id), &[]).await);
    let _open = rig.open(&mut connector).await;
}

#[tokio::test]
async fn the_end_of_the_window_cuts_an_idle_stream_without_any_record() {
    let rig = Rig::with(|terms| terms["window"]["term_ms"] = HOUR_MS.into()).await;
    let mut connector = rig.slot().await;
    let (mut stream, call) = rig.open(&mut connector).await;
    let records = rig.records().len();
    rig.world.time.advance(HOUR_MS);
    let (data, end) = rest(&mut stream).await;
    assert!(data.is_empty());
    assert_eq!(code(&end.unwrap_err()), "grant_expired");
    assert_eq!(rig.records().len(), records, "nothing had to be recorded for it");
    connector.cut().await;
    connector.done(&rig.world, &call, "window_over").await;
    assert_eq!(rig.finished(&call.id).await.end, "grant_expired");
}

#[tokio::test]
async fn a_chunk_that_comes_at_the_end_of_the_window_does_not_leave() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    rig.world.time.advance(168 * HOUR_MS - 1);
    connector.event(&mut call, &delta("last")).await;
    assert!(next(&mut stream).await.is_ok(), "one millisecond before the end is inside");
    rig.world.time.advance(1);
    connector.event(&mut call, &delta("late")).await;
    let (data, end) = rest(&mut stream).await;
    assert!(data.is_empty());
    assert_eq!(code(&end.unwrap_err()), "grant_expired");
}

#[tokio::test]
async fn a_slow_reader_gets_nothing_that_was_not_handed_over_before_the_cut() {
    const ALL: u64 = 200;
    let rig = Rig::with(|terms| terms["limits"]["default_max_tokens"] = 4096.into()).await;
    let mut connector = rig.slot().await;
    let (mut caller, request) = (rig.caller.clone(), rig.world.call(&rig.access, "chat", &chat(true)));
    let asked = tokio::spawn(async move { caller.stream(request).await });
    let call = connector.take().await;
    connector.head(true).await;
    let mut stream = asked.await.unwrap().unwrap().into_inner();
    // The caller reads nothing. What the connector has to say is more than all buffers between them hold.
    let event = delta(&"x".repeat(60_000));
    let (up, sent) = (connector.up.clone(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&sent);
    let sender = tokio::spawn(async move {
        for _ in 0..ALL {
            let data = serve_up::Message::Data(event.clone().into_bytes().into());
            if up.send(super::rig::up_message(data)).await.is_err() {
                return;
            }
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    while sent.load(Ordering::Relaxed) < 12 {
        tokio::task::yield_now().await;
    }
    let stop = rig.world.stop(&rig.world.lab, rig.access.grant, StopKind::Withdraw);
    done(rig.world.act(&rig.world.lab, stop, &[]).await);
    drop(connector);
    let finished = rig.finished(&call.id).await;
    sender.abort();
    assert_eq!(finished.end, "grant_withdrawn");
    assert!(finished.released_events < ALL, "everything was handed over");
    assert!(next(&mut stream).await.is_ok());
    let (data, end) = rest(&mut stream).await;
    assert!(end.is_err());
    assert!(u64::try_from(data.len()).unwrap() <= finished.released_events);
    assert!(rig.relay.cut_times().handed.count() <= 1);
}

#[tokio::test]
async fn a_lock_on_the_person_cuts_their_calls_and_a_lock_elsewhere_does_not() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    let other = LockTarget::Person { org: rig.world.agency.org.clone(), pseudonym: "p-2".parse().unwrap() };
    let lab = &rig.world.lab;
    done(rig.world.act(lab, rig.world.lock(lab, other), &[]).await);
    connector.event(&mut call, &delta("one")).await;
    assert!(next(&mut stream).await.is_ok());
    let person = LockTarget::Person { org: rig.world.agency.org.clone(), pseudonym: PSEUDONYM.parse().unwrap() };
    done(rig.world.act(lab, rig.world.lock(lab, person), &[]).await);
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "locked");
    assert_eq!(connector.cut().await.code, "locked");
}

#[tokio::test]
async fn a_caller_that_leaves_has_its_call_cut_and_recorded() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (stream, call) = rig.open(&mut connector).await;
    drop(stream);
    assert_eq!(connector.cut().await.code, "caller_gone");
    connector.done(&rig.world, &call, "caller_gone").await;
    let finished = rig.finished(&call.id).await;
    assert_eq!((finished.end.as_str(), finished.charged), ("caller_gone", 7));
    // The slot is whole again.
    let _open = rig.open(&mut connector).await;
}

#[tokio::test]
async fn a_connector_lost_in_mid_call_leaves_what_was_used_charged() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    connector.event(&mut call, &delta("one")).await;
    assert!(next(&mut stream).await.is_ok());
    drop(connector);
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "connector_lost");
    let finished = rig.finished(&call.id).await;
    let input = u64::try_from(call.dispatch.body.len()).unwrap() + 64;
    assert_eq!((finished.end.as_str(), finished.charged), ("connector_lost", input + 1));
    assert!(finished.outcome.is_none());
}

#[tokio::test]
async fn a_dispatch_that_is_not_claimed_in_time_ends_free_of_charge_and_is_never_sent_again() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut caller, request) = (rig.caller.clone(), rig.request());
    let mut stream = caller.stream(request).await.unwrap().into_inner();
    let call = connector.dispatched().await;
    assert!(next(&mut stream).await.is_ok());
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "connector_lost");
    let finished = rig.finished(&call.id).await;
    assert_eq!((finished.end.as_str(), finished.charged), ("connector_lost", 0));
    assert!(connector.down.message().await.unwrap().is_none(), "the slot is closed, the call is not sent again");
}

#[tokio::test]
async fn a_call_that_the_connector_refuses_costs_nothing() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let mut caller = rig.caller.clone();
    let mut stream = caller.stream(rig.request()).await.unwrap().into_inner();
    let call = connector.dispatched().await;
    let refused = ServeDone { outcome: None, refused: "window_over".to_owned(), detail: String::new() };
    connector.send(serve_up::Message::Done(refused)).await;
    assert!(next(&mut stream).await.is_ok());
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "connector_refused");
    let finished = rig.finished(&call.id).await;
    assert_eq!((finished.end.as_str(), finished.charged), ("connector_refused", 0));
    // What the caller can do something about, the caller is told.
    let mut stream = caller.stream(rig.request()).await.unwrap().into_inner();
    let call = connector.dispatched().await;
    let refused = ServeDone { outcome: None, refused: "route_not_served".to_owned(), detail: String::new() };
    connector.send(serve_up::Message::Done(refused)).await;
    assert!(next(&mut stream).await.is_ok());
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "route_not_served");
    let finished = rig.finished(&call.id).await;
    assert_eq!((finished.end.as_str(), finished.charged), ("route_not_served", 0));
    let _open = rig.open(&mut connector).await;
}

#[tokio::test]
async fn a_marked_string_in_an_answer_stops_it_before_it_leaves() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    connector.event(&mut call, &delta("fine ")).await;
    connector.event(&mut call, &delta("TOP SECR")).await;
    connector.event(&mut call, &delta("ET//SI")).await;
    let (data, end) = rest_after_cut(&rig, &mut connector, &call, &mut stream).await;
    assert_eq!(data, [delta("fine ")]);
    assert_eq!(code(&end), "content_stopped");
    let finished = rig.finished(&call.id).await;
    assert_eq!((finished.end.as_str(), finished.released_events), ("content_stopped", 1));
}

#[tokio::test]
async fn an_event_that_cannot_be_read_stops_the_answer() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    connector.event(&mut call, "not json").await;
    let (data, end) = rest_after_cut(&rig, &mut connector, &call, &mut stream).await;
    assert!(data.is_empty());
    assert_eq!(code(&end), "stream_unknown_event");
}

#[tokio::test]
async fn an_answer_is_cut_at_what_the_call_holds() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    let reader = tokio::spawn(async move { rest(&mut stream).await });
    let (up, world) = (connector.up.clone(), &rig.world);
    let flood = tokio::spawn(async move {
        for _ in 0..1000 {
            let data = serve_up::Message::Data(delta("x").into_bytes().into());
            if up.send(super::rig::up_message(data)).await.is_err() {
                return;
            }
        }
    });
    assert_eq!(connector.cut().await.code, "output_cut");
    flood.await.unwrap();
    call.chain.push(b"");
    connector.done(world, &call, "output_cut").await;
    let (data, end) = reader.await.unwrap();
    assert_eq!(code(&end.unwrap_err()), "output_cut");
    assert!((64..200).contains(&data.len()), "{}", data.len());
}

#[tokio::test]
async fn pings_and_blocks_of_a_message_are_no_tokens() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let body = chat(true);
    let request = rig.world.call(&rig.access, "messages", &body);
    let mut caller = rig.caller.clone();
    let asked = tokio::spawn(async move { caller.stream(request).await });
    let mut call = connector.take().await;
    connector.head(true).await;
    let mut stream = asked.await.unwrap().unwrap().into_inner();
    assert!(next(&mut stream).await.is_ok());
    let reader = tokio::spawn(async move { rest(&mut stream).await });
    // More than the call's 64 tokens, and than other routes let be beside.
    for _ in 0..200 {
        connector.event(&mut call, r#"{"type":"ping"}"#).await;
    }
    connector.done(&rig.world, &call, "completed").await;
    let (data, end) = reader.await.unwrap();
    assert_eq!((data.len(), end.unwrap().status), (200, 200));
}

/// Lets the connector sign when it is cut, and reads the caller's stream to its end.
async fn rest_after_cut(
    rig: &Rig,
    connector: &mut super::rig::Connector,
    call: &super::rig::Call,
    stream: &mut tonic::Streaming<anteroom_proto::rpc::CallEvent>,
) -> (Vec<String>, tonic::Status) {
    connector.cut().await;
    connector.done(&rig.world, call, "cut").await;
    let (data, end) = rest(stream).await;
    let data = data.iter().map(|event| String::from_utf8(event.to_vec()).unwrap()).collect();
    (data, end.unwrap_err())
}

#[tokio::test]
async fn a_drain_refuses_new_calls_and_cuts_what_does_not_finish() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let mut second = rig.slot().await;
    let (caller, request) = (rig.caller.clone(), rig.request());
    let open = |mut caller: anteroom_proto::rpc::inference_client::InferenceClient<_>, request| async move {
        caller.stream(request).await.unwrap().into_inner()
    };
    let mut stream = open(caller, request).await;
    assert!(next(&mut stream).await.is_ok());
    let call = tokio::select! {
        call = connector.take() => { connector.head(true).await; call },
        call = second.take() => { std::mem::swap(&mut connector, &mut second); connector.head(true).await; call },
    };
    let relay = Arc::clone(&rig.relay);
    let drain = tokio::spawn(async move { relay.drain(Duration::from_millis(50)).await });
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "shutting_down");
    connector.cut().await;
    connector.done(&rig.world, &call, "cut").await;
    assert_eq!(drain.await.unwrap(), 1);
    assert_eq!(rig.finished(&call.id).await.end, "shutting_down");
    assert_eq!(code(&rig.caller.clone().stream(rig.request()).await.unwrap_err()), "shutting_down");
}

/// Makes a call past the network, with a switch that resets its stream.
async fn direct(rig: &Rig, whole: bool, reset: &Kill) -> crate::relay::call::Answer {
    let asked = crate::relay::Asked {
        caller: rig.world.agency.caller(Role::Workload, "eval-1"),
        address: [127, 0, 0, 1].into(),
        request: rig.world.call(&rig.access, "chat", &chat(!whole)),
        whole,
        patience: None,
        reset: Some(reset.clone()),
    };
    rig.relay.call(asked).await.unwrap()
}

#[tokio::test]
async fn a_stream_that_cannot_be_told_of_its_end_is_reset() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let reset = Kill::new();
    // Nobody polls the answer, as when HTTP/2 has no room for more.
    let _answer = direct(&rig, false, &reset).await;
    let _call = connector.take().await;
    assert_eq!(rig.relay.cut_grant(rig.access.grant, Refusal::GrantWithdrawn, rig.world.now()), 1);
    reset.wait().await;
}

#[tokio::test]
async fn the_bytes_of_a_whole_answer_stop_in_the_middle_when_the_grant_ends() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let answer = direct(&rig, true, &Kill::new()).await;
    let _call = connector.take().await;
    let whole = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; 100_000])));
    let mut body = crate::relay::body::gated(whole, Arc::clone(&answer.flow));
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first.len(), crate::relay::body::PIECE_BYTES_MAX);
    rig.relay.cut_grant(rig.access.grant, Refusal::GrantWithdrawn, rig.world.now());
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["anteroom-code"], "grant_withdrawn");
    assert_ne!(trailers["grpc-status"], "0");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_connection_that_breaks_while_its_call_waits_admits_nothing() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (_stream, _call) = rig.open(&mut connector).await;
    // The one slot is in use, so the next call waits; then its caller leaves.
    let (mut caller, request) = (rig.caller.clone(), rig.request());
    let waiting = tokio::spawn(async move { caller.stream(request).await });
    tokio::task::yield_now().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert_eq!(rig.count(40), 1);
}
