//! Calls through a broker's process: what passes, what does not, and what the ledger on disk says of each afterwards.

use std::time::Duration;

use anteroom_policy::event::Event;
use anteroom_proto::{
    names::{CallId, GrantId},
    statement::terms::CALL_BYTES_MAX,
};
use anteroom_sdk::{evaluator::Route, signer::KeyFile, system};
use anteroom_tests::e2e::{
    book::Book,
    caller::{Draft, chat, chat_whole, refused, seal},
    scene::{Scene, plan},
    wait::soon,
};
use tokio::task::JoinSet;

/// What is forged, how, and the code that answers it.
type Forgery = (&'static str, Box<dyn Fn(&mut Draft)>, &'static str);

const AT_ONCE: Duration = Duration::ZERO;

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_whole_and_stand_in_the_ledger_from_admission_to_end() {
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    let caller = scene.granted(&plan()).await;
    let went = caller.stream(chat("streamed", 12)).await;
    assert_eq!(went.end, None);
    // 12 words, the reason to stop, the usage and the closing mark.
    assert_eq!(went.events.len(), 15);
    assert_eq!(went.events.last().map(|event| event.as_ref()), Some(b"[DONE]".as_slice()));
    let answer = soon("an answer", caller.evaluator.complete(Route::Chat, chat_whole("whole", 12))).await.unwrap();
    assert_eq!((answer.status, answer.call.end()), (200, "completed"));
    let streamed = caller.verify(&went.receipt.unwrap(), went.call);
    broker.kill().await;

    let book = Book::of(&broker.data());
    assert_eq!(scene.model.asked(), ["streamed", "whole"]);
    for (call, events) in [(went.call, 15), (answer.call.receipt().call(), 1)] {
        let (admitted, admission) = book.admission(call).unwrap();
        let (ended, end) = book.end(call).unwrap();
        assert!(admitted.index < ended.index);
        assert_eq!((end.end.as_str(), end.released_events, end.cut), ("completed", events, None));
        assert_eq!(end.charged, 12 + 5, "the model server's usage is what is charged");
        assert!(admission.hold >= end.charged);
    }
    assert_eq!(streamed.admitted().header().index, book.admission(went.call).unwrap().0.index);
    let account = book.state.accounts(&caller.grant).unwrap().grant;
    assert_eq!((account.settled(), account.held(), account.open()), ((2, 34), (0, 0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identifier_is_one_call_for_ever() {
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    let caller = scene.granted(&plan()).await;
    let request = caller.seal(caller.draft(chat_whole("once", 4)));
    // Ten at once: one goes to the model, nine hear of it.
    let mut tries = JoinSet::new();
    for _ in 0..10 {
        let (mut client, request) = (caller.client(), request.clone());
        tries.spawn(async move { client.complete(request).await });
    }
    let mut answers = Vec::new();
    while let Some(tried) = soon("an answer", tries.join_next()).await {
        match tried.unwrap() {
            Ok(reply) => answers.push(reply.into_inner()),
            Err(status) => assert_eq!(refused(status.into()).code, "call_repeated"),
        }
    }
    assert_eq!(answers.len(), 1);
    broker.kill().await;
    broker.start_again().await;
    broker.ready().await;
    // The very same request, and the same identifier for something else.
    let repeated = refused(soon("a refusal", caller.raw_whole(request.clone())).await.unwrap_err());
    assert_eq!(repeated.code, "call_repeated");
    let call = CallId::from_slice(&read(&request).call).unwrap();
    let mut other = caller.draft(chat_whole("twice", 4));
    other.claim.call = call.as_bytes().to_vec();
    assert_eq!(caller.refusal_of(caller.seal(other)).await.code, "call_repeated");
    let (state, receipt) = caller.settled(call).await;
    assert_eq!((state.as_str(), receipt.call()), ("completed", call));
    assert_eq!(scene.model.asked(), ["once"]);
    broker.kill().await;
    let book = Book::of(&broker.data());
    let admissions = book.of_grant(caller.grant, |event| matches!(event, Event::CallAdmitted(_)));
    assert_eq!(admissions.len(), 1);
}

fn read(request: &anteroom_proto::rpc::CallRequest) -> anteroom_proto::rpc::CallClaim {
    anteroom_proto::statement::envelope::read_claim(request.claim.as_ref().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_malformed_request_has_its_code_and_its_record() {
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    let caller = scene.granted(&plan()).await;
    let bound = usize::try_from(scene.cast.terms(&plan()).unwrap().limits.body_bytes_max).unwrap();
    assert!(bound as u64 <= CALL_BYTES_MAX);
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"model":"aurora","messages":{open}{close},"stream":true}}"#)
    };
    let padded = |bytes: usize| {
        let frame = r#"{"model":"aurora","messages":[{"role":"user","content":""}],"stream":true}"#;
        frame.replace(r#""content":"""#, &format!(r#""content":"{}""#, "a".repeat(bytes - frame.len())))
    };
    let with = |field: &str| {
        format!(r#"{{"model":"aurora","messages":[{{"role":"user","content":"hi"}}],"stream":true,{field}}}"#)
    };
    let bodies: Vec<(&str, String, &str)> = vec![
        ("not JSON", "this is no JSON".to_owned(), "body_invalid"),
        ("two values", r#"{"model":"aurora","messages":[]} {}"#.to_owned(), "body_invalid"),
        ("a name twice", with(r#""n":1,"n":1"#), "body_invalid"),
        ("a name twice, one of them escaped", with(r#""n":1,"\u006e":1"#), "body_invalid"),
        ("a field of another type", with(r#""seed":"seven""#), "body_invalid"),
        ("10,000 deep", deep(10_000), "body_invalid"),
        ("no messages", r#"{"model":"aurora","stream":true}"#.to_owned(), "body_invalid"),
        ("an unknown field", with(r#""made_up":1"#), "field_unknown"),
        ("one byte over the bound", padded(bound + 1), "body_too_large"),
        ("log-probabilities, not granted", with(r#""logprobs":true,"top_logprobs":5"#), "broker_denied"),
        ("tools, not granted", with(r#""tools":[{"type":"function","function":{"name":"f"}}]"#), "broker_denied"),
        ("two answers, not granted", with(r#""n":2"#), "broker_denied"),
    ];
    let mut expected: Vec<(&str, u64)> = Vec::new();
    for (what, body, code) in bodies {
        let refused = caller.refusal(body).await;
        assert_eq!(refused.code, code, "{what}");
        assert!(!refused.text.contains("made_up_content"), "{what}");
        count(&mut expected, code);
    }
    let honest = chat("hi", 4);
    let stranger = KeyFile::from_seed(&[9; 32]).unwrap();
    let minute = 60_000;
    let claims: Vec<Forgery> = vec![
        ("a guessed grant", Box::new(|draft| draft.claim.grant = vec![7; 16]), "grant_unknown"),
        ("another run", Box::new(|draft| draft.claim.run = "run-z".to_owned()), "run_unknown"),
        ("no such credential", Box::new(|draft| draft.claim.credential = vec![7; 32]), "credential_unknown"),
        ("no such route", Box::new(|draft| draft.claim.route = "../admin".to_owned()), "claim_invalid"),
        ("another body", Box::new(|draft| draft.body = chat("ho", 4)), "claim_invalid"),
        ("a clock ten minutes fast", Box::new(move |draft| draft.claim.at_ms += 10 * minute), "claim_clock"),
        ("a clock ten minutes slow", Box::new(move |draft| draft.claim.at_ms -= 10 * minute), "claim_clock"),
        (
            "an identifier of two days ago",
            Box::new(move |draft| {
                let then = system::now().ms() - 2 * 24 * 60 * minute;
                draft.claim.call = CallId::new(then, [3; 10]).as_bytes().to_vec();
            }),
            "call_id_old",
        ),
    ];
    for (what, bend, code) in claims {
        let mut draft = caller.draft(honest.clone());
        bend(&mut draft);
        assert_eq!(caller.refusal_of(caller.seal(draft)).await.code, code, "{what}");
        count(&mut expected, code);
    }
    let forged = seal(caller.draft(honest.clone()), &stranger);
    assert_eq!(caller.refusal_of(forged).await.code, "claim_signature");
    count(&mut expected, "claim_signature");
    let mut unsigned = caller.seal(caller.draft(honest.clone()));
    unsigned.claim = None;
    assert_eq!(caller.refusal_of(unsigned).await.code, "claim_invalid");
    count(&mut expected, "claim_invalid");
    let streamed = caller.seal(caller.draft(honest));
    assert_eq!(refused(caller.raw_whole(streamed).await.unwrap_err()).code, "body_invalid");
    count(&mut expected, "body_invalid");
    // One byte less is not too large; it only asks for more tokens than the terms allow.
    assert_eq!(caller.refusal(padded(bound)).await.code, "tokens_exceeded");
    count(&mut expected, "tokens_exceeded");
    assert_eq!(scene.model.counts().requests, 0, "nothing refused reaches the model");
    assert_eq!(caller.stream(chat("hi", 4)).await.end, None);

    assert!(broker.drain().await.success());
    let book = Book::of(&broker.data());
    for (code, count) in expected {
        assert_eq!(book.refusals(code), count, "{code}");
    }
    let judged = book.events().find_map(|entered| match &entered.event {
        Event::CallRefused(refused) if refused.code == "broker_denied" => Some(refused),
        _ => None,
    });
    let judged = judged.unwrap();
    assert!(judged.facts.is_some() && !judged.reasons.is_empty(), "a rule's refusal names the rule");
}

fn count<'c>(expected: &mut Vec<(&'c str, u64)>, code: &'c str) {
    match expected.iter_mut().find(|(known, _)| *known == code) {
        Some((_, count)) => *count += 1,
        None => expected.push((code, 1)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_refusals_of_one_certificate_cost_a_few_records_and_none_is_lost() {
    const REFUSALS: u64 = 10_000;
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    let caller = scene.granted(&plan()).await;
    let request = caller.seal(caller.draft(r#"{"messages":7}"#));
    let mut workers = JoinSet::new();
    for _ in 0..50 {
        let (mut client, request) = (caller.client(), request.clone());
        workers.spawn(async move {
            for _ in 0..REFUSALS / 50 {
                let code = refused(client.complete(request.clone()).await.unwrap_err().into()).code;
                assert!(["body_invalid", "rate_limited"].contains(&code.as_str()), "{code}");
            }
        });
    }
    while let Some(worker) = soon("ten thousand refusals", workers.join_next()).await {
        worker.unwrap();
    }
    assert_eq!(scene.model.counts().requests, 0);
    assert!(broker.drain().await.success());
    let book = Book::of(&broker.data());
    assert_eq!(book.refusals("body_invalid") + book.refusals("rate_limited"), REFUSALS);
    let records =
        book.events().filter(|entered| matches!(entered.event, Event::CallRefused(_) | Event::RefusalsCounted { .. }));
    assert!(records.count() < 100, "a flood must not become a flood of records");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_others_is_indistinguishable_from_none() {
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    let caller = scene.granted(&plan()).await;
    let refused_for = async |grant: GrantId| {
        let mut draft = caller.draft(chat("hi", 4));
        draft.claim.grant = grant.as_bytes().to_vec();
        let refused = caller.refusal_of(caller.seal(draft)).await;
        (refused.code, refused.text, refused.status)
    };
    let offered = scene.cast.offer(&plan()).await.unwrap();
    let (code, ..) = refused_for(offered).await;
    assert_ne!(code, "grant_unknown", "the agency is party to the offer");
    let one = refused_for(GrantId::from_bytes([1; 16])).await;
    let other = refused_for(GrantId::from_bytes([2; 16])).await;
    assert_eq!(one, other);
    assert_eq!(one.0, "grant_unknown");
    broker.kill().await;
}
