//! What parties add to a grant reaches calls: rules, the scanner's list, a bound on a line, how often the same may be asked.

use anteroom_policy::{refusal::Refusal, rules::digest};
use anteroom_proto::{
    names::{CallId, Digest, LockId},
    rpc::{CallRequest, Marking},
    statement::{
        acts::{Lift, Lock, LockTarget},
        envelope::sign_json,
        rules::{LineBudget, Narrowing, WatchList},
    },
};
use serde_json::json;

use super::rig::{Rig, code, delta, next, rest};
use crate::testing::{LINE, PSEUDONYM, Party, RUN, chat, done, refused};

const CANARY: &str = "heron-seven-lantern";

impl Rig {
    async fn narrow(&self, party: &Party, rules: &str) -> Option<Refusal> {
        let standing = self.world.journal.standing();
        let grant = standing.grants.get(&self.access.grant).unwrap();
        let added = anteroom_policy::rules::Added::of(grant);
        let narrowing = Narrowing {
            grant: self.access.grant,
            by: party.org.clone(),
            after: anteroom_policy::rules::digest_with(&grant.terms, &added),
            rules: rules.to_owned(),
            reason: "counsel".to_owned(),
        };
        refused(&self.world.act(party, party.signed(&narrowing), &[]).await)
    }

    async fn watch(&self, list: &serde_json::Value) {
        let bytes = list.to_string().into_bytes();
        let watch = WatchList {
            grant: self.access.grant,
            by: self.world.lab.org.clone(),
            list: Digest::of(&bytes),
            previous: None,
        };
        done(self.world.act(&self.world.lab, self.world.lab.signed(&watch), &bytes).await);
    }

    fn asking(&self, text: &str) -> CallRequest {
        let body = json!({"model": LINE, "stream": true, "messages": [{"role": "user", "content": text}]});
        self.world.call(&self.access, "chat", &body.to_string())
    }

    async fn refused(&self, request: CallRequest) -> tonic::Status {
        self.caller.clone().stream(request).await.unwrap_err()
    }
}

fn list(lock: bool) -> serde_json::Value {
    json!({"nonce": Digest::from_bytes([4; 32]), "canaries": [CANARY], "canaries_lock": lock})
}

const NO_STREAMS: &str = r#"@id("no-streams") forbid (principal, action, resource) when { context.stream };"#;
const NO_SEEDS: &str = r#"@id("no-seeds") forbid (principal, action, resource) when { context.seed };"#;

#[tokio::test]
async fn rules_added_in_mid_stream_cut_the_streams_that_they_refuse_and_no_others() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    connector.event(&mut call, &delta("one")).await;
    assert!(next(&mut stream).await.is_ok());
    assert_eq!(rig.narrow(&rig.world.agency, NO_SEEDS).await, None);
    assert_eq!(rig.relay.judge_again(&rig.access.grant), 0, "the call asked for no seed");
    connector.event(&mut call, &delta("two")).await;
    assert!(next(&mut stream).await.is_ok());
    assert_eq!(rig.narrow(&rig.world.lab, NO_STREAMS).await, None);
    // Nobody has judged it again yet: its next event is.
    connector.event(&mut call, &delta("three")).await;
    let (data, end) = rest(&mut stream).await;
    assert!(data.is_empty());
    assert_eq!(code(&end.unwrap_err()), "broker_denied");
    assert_eq!(connector.cut().await.code, "broker_denied");
    connector.done(&rig.world, &call, "broker_denied").await;
    assert_eq!(rig.finished(&call.id).await.end, "broker_denied");
    let status = rig.refused(rig.request()).await;
    assert_eq!(code(&status), "broker_denied");
}

#[tokio::test]
async fn a_stream_that_waits_is_cut_by_rules_as_soon_as_it_is_judged_again() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, _call) = rig.open(&mut connector).await;
    assert_eq!(rig.narrow(&rig.world.lab, NO_STREAMS).await, None);
    assert_eq!(rig.relay.judge_again(&rig.access.grant), 1);
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "broker_denied");
}

#[tokio::test]
async fn the_record_of_a_call_names_the_digest_of_the_rules_with_what_was_added() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    assert_eq!(rig.narrow(&rig.world.lab, NO_SEEDS).await, None);
    let (_stream, call) = rig.open(&mut connector).await;
    let admitted = super::rig::opened(call.dispatch.admitted.as_ref().unwrap());
    assert_ne!(admitted.policy_digest, digest(&rig.access.terms).as_bytes());
}

#[tokio::test]
async fn a_canary_in_an_answer_stops_it_and_locks_the_run_until_the_lab_lifts() {
    let rig = Rig::new().await;
    rig.watch(&list(true)).await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    connector.event(&mut call, &delta("it begins")).await;
    assert!(next(&mut stream).await.is_ok());
    connector.event(&mut call, &delta(&format!("with {CANARY} in it"))).await;
    // The caller is told once the end is on record, and that waits a little for the connector's outcome.
    connector.cut().await;
    connector.done(&rig.world, &call, "content_stopped").await;
    let (data, end) = rest(&mut stream).await;
    assert!(data.iter().all(|event| !String::from_utf8_lossy(event).contains("heron")));
    assert_eq!(code(&end.unwrap_err()), "content_stopped");
    assert_eq!(rig.finished(&call.id).await.end, "content_stopped");
    assert_eq!(rig.count(35), 1, "the lock is on record");
    assert_eq!(code(&rig.refused(rig.request()).await), "locked");
    let standing = rig.world.journal.standing();
    let lock = standing.locks.values().next().unwrap().lock.clone();
    assert_eq!(lock.by, rig.world.lab.org);
    assert_eq!(lock.target, LockTarget::Run { grant: rig.access.grant, run: RUN.parse().unwrap() });
    let lift = |party: &Party, lock: LockId| Lift { lock, by: party.org.clone(), reason: "looked at".to_owned() };
    let by_agency = lift(&rig.world.agency, lock.id);
    let answer = rig.world.act(&rig.world.agency, rig.world.agency.signed(&by_agency), &[]).await;
    assert_eq!(refused(&answer), Some(Refusal::LockUnknown), "only the lab lifts what the scanner set");
    done(rig.world.act(&rig.world.lab, rig.world.lab.signed(&lift(&rig.world.lab, lock.id)), &[]).await);
    let _open = rig.open(&mut connector).await;
}

#[tokio::test]
async fn a_canary_in_a_prompt_locks_what_the_terms_say_and_cuts_what_is_open_there() {
    let rig = Rig::with(|terms| terms["scanner_locks"] = "person".into()).await;
    rig.watch(&list(true)).await;
    let mut connector = rig.slot().await;
    let (mut stream, _call) = rig.open(&mut connector).await;
    assert_eq!(code(&rig.refused(rig.asking(&format!("what is {CANARY}?"))).await), "broker_denied");
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "locked");
    let standing = rig.world.journal.standing();
    let target = LockTarget::Person { org: rig.world.agency.org.clone(), pseudonym: PSEUDONYM.parse().unwrap() };
    assert_eq!(standing.locks.values().next().unwrap().lock.target, target);
}

#[tokio::test]
async fn a_canary_in_a_prompt_locks_also_behind_another_refusal_of_the_same_kind() {
    let rig = Rig::new().await;
    rig.watch(&list(true)).await;
    let body = json!({"model": LINE, "stream": true, "seed": 1, "messages": [{"role": "user", "content": "x"}]});
    let first = rig.world.call(&rig.access, "chat", &body.to_string());
    assert_eq!(code(&rig.refused(first).await), "broker_denied");
    assert_eq!(code(&rig.refused(rig.asking(CANARY)).await), "broker_denied");
    assert_eq!(rig.count(35), 1);
}

#[tokio::test]
async fn a_lock_by_the_scanner_takes_the_place_of_no_other_and_none_keeps_it_out() {
    let rig = Rig::new().await;
    rig.watch(&list(true)).await;
    let (world, call) = (&rig.world, CallId::new(rig.world.now().ms(), [3; 10]));
    let body = json!({"model": LINE, "stream": true, "messages": [{"role": "user", "content": CANARY}]}).to_string();
    let ask = || world.call_as(&rig.access, call, "chat", &body);
    // Who knows what the lock will be called takes the name first.
    let name = Digest::of(&[b"anteroom/scanner-lock/v1".as_slice(), call.as_bytes(), &0_u64.to_be_bytes()].concat());
    let target = LockTarget::Employer { employer: "nobody".to_owned() };
    let (id, by) = (LockId::from_slice(&name.as_bytes()[..16]).unwrap(), world.agency.org.clone());
    let taken = Lock { id, by: by.clone(), target, reason: "first".to_owned() };
    done(world.act(&world.agency, sign_json(&taken, &[&world.agency.stop]).unwrap(), &[]).await);
    assert_eq!(code(&rig.refused(ask()).await), "broker_denied");
    let standing = world.journal.standing();
    assert_eq!(standing.locks.len(), 2, "both stand");
    assert_eq!(standing.locks.get(&id).unwrap().lock, taken);
    // A name that was given up is no better, nor is the same call again after the lab has lifted.
    let lift =
        |party: &Party, lock| party.signed(&Lift { lock, by: party.org.clone(), reason: "looked at".to_owned() });
    let scanners = *standing.locks.keys().find(|lock| **lock != id).unwrap();
    done(world.act(&world.agency, lift(&world.agency, id), &[]).await);
    done(world.act(&world.lab, lift(&world.lab, scanners), &[]).await);
    assert_eq!(code(&rig.refused(ask()).await), "broker_denied");
    assert_eq!(rig.count(35), 2);
    assert_eq!(world.journal.standing().locks.len(), 1, "it locks again");
}

#[tokio::test]
async fn a_list_that_came_to_stand_is_used_by_the_next_call() {
    let rig = Rig::new().await;
    let mut connector = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut connector).await;
    connector.event(&mut call, &delta(CANARY)).await;
    assert!(next(&mut stream).await.is_ok(), "nobody watched for it when the call began");
    rig.watch(&list(false)).await;
    assert_eq!(code(&rig.refused(rig.asking(CANARY)).await), "broker_denied");
    assert_eq!(rig.count(35), 0, "it stops without a lock");
}

#[tokio::test]
async fn the_same_texts_are_asked_as_often_as_the_terms_say_and_no_more() {
    let rig = Rig::with(|terms| {
        terms["limits"]["repeats_max"] = 2.into();
        terms["features"]["seed"] = true.into();
    })
    .await;
    let mut connector = rig.slot().await;
    for _ in 0..2 {
        let (_stream, call) = rig.open(&mut connector).await;
        connector.done(&rig.world, &call, "completed").await;
        rig.finished(&call.id).await;
    }
    let body = json!({"model": LINE, "stream": true, "seed": 7, "temperature": 0.2,
        "messages": serde_json::from_str::<serde_json::Value>(&chat(true)).unwrap()["messages"]});
    let status = rig.refused(rig.world.call(&rig.access, "chat", &body.to_string())).await;
    assert_eq!(code(&status), "broker_denied");
    assert!(format!("{status:?}").contains("repeats"));
    rig.world.time.advance(24 * anteroom_proto::time::HOUR_MS);
    let _open = rig.open(&mut connector).await;
}

#[tokio::test]
async fn a_bound_on_the_line_counts_what_all_its_grants_use_and_tells_the_lab_alone() {
    let rig = Rig::new().await;
    let budget = LineBudget {
        by: rig.world.lab.org.clone(),
        line: LINE.parse().unwrap(),
        calls: 1,
        tokens: 1_000_000,
        previous: None,
    };
    done(rig.world.act(&rig.world.lab, rig.world.lab.signed(&budget), &[]).await);
    let mut connector = rig.slot().await;
    let (_stream, call) = rig.open(&mut connector).await;
    let other = rig.world.grant(|_| {}).await;
    let request = rig.world.call(&other, "chat", &chat(true));
    assert_eq!(code(&rig.refused(request).await), "line_budget_held", "the other grant's call is in flight");
    connector.done(&rig.world, &call, "completed").await;
    rig.finished(&call.id).await;
    let request = rig.world.call(&other, "chat", &chat(true));
    let status = rig.refused(request).await;
    assert_eq!(code(&status), "line_budget_spent");
    assert!(!format!("{status:?}").contains("line_settled"));
    assert_eq!(rig.count(47), 2, "what was compared stands in the lab's scope");
    for sealed in rig.records().iter().filter(|sealed| sealed.record.spec().kind == 47) {
        assert_eq!(sealed.entered.scope.to_string(), format!("org/{}", rig.world.lab.org));
    }
}

#[tokio::test]
async fn an_answer_and_an_error_say_how_they_have_to_be_handled() {
    let assertion = "FOIA exemption 4; 18 USC 1905";
    let rig = Rig::with(|terms| {
        terms["marking"] = json!({"level": 0, "caveats": [], "rel_to": [], "assertion": assertion});
    })
    .await;
    let mut connector = rig.slot().await;
    let mut caller = rig.caller.clone();
    let request = rig.request();
    let asked = tokio::spawn(async move { caller.stream(request).await });
    let mut call = connector.take().await;
    connector.head(true).await;
    let mut stream = asked.await.unwrap().unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.marking, first.assertion.as_str()), (Some(Marking::default()), assertion));
    connector.event(&mut call, &delta("(CUI) a paragraph")).await;
    connector.done(&rig.world, &call, "completed").await;
    let (_, end) = rest(&mut stream).await;
    assert_eq!(end.unwrap().marking.unwrap().level, 1, "what the answer carries raises it");
    let status = rig.refused(rig.asking("CUI//PROPIN\nsecret plans")).await;
    assert!(format!("{status:?}").contains("CUI"), "{status:?}");
}
