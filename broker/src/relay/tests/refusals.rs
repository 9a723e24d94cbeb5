//! Calls that may not pass, and slots that may not open.

use anteroom_policy::event::Event;
use anteroom_proto::{
    names::CallId,
    rpc::{CallClaim, CallRequest},
    statement::envelope::{read_claim, sign_claim},
};

use super::rig::{Rig, code};
use crate::{
    identity::Role,
    testing::{Key, START_MS, chat},
};

impl Rig {
    async fn refusal(&self, request: CallRequest) -> String {
        let status = self.caller.clone().stream(request).await.unwrap_err();
        code(&status).to_owned()
    }
}

/// A call whose claim names this newest checkpoint.
fn seeing(rig: &Rig, size: u64, root: &[u8]) -> CallRequest {
    let mut request = rig.request();
    let mut claim: CallClaim = read_claim(request.claim.as_ref().unwrap()).unwrap();
    (claim.seen_size, claim.seen_root) = (size, root.to_vec());
    request.claim = Some(sign_claim(&claim, &rig.access.workload).unwrap());
    request
}

#[tokio::test]
async fn every_refusal_is_on_record() {
    let rig = Rig::new().await;
    let (world, access) = (&rig.world, &rig.access);
    let with = |change: fn(&mut CallRequest)| {
        let mut request = rig.request();
        change(&mut request);
        request
    };
    let stranger = crate::testing::Access { workload: Key::generate(), ..access.clone() };
    let unknown = crate::testing::Access { credential: world.manifest, ..access.clone() };
    let elsewhere =
        crate::testing::Access { grant: anteroom_proto::names::GrantId::from_bytes([3; 16]), ..access.clone() };
    let old = CallId::new(START_MS - 25 * 3_600_000, [1; 10]);
    let tools = r#"{"model":"m1","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]}"#;
    let cases = [
        ("claim_invalid", with(|request| request.claim = None)),
        ("claim_invalid", with(|request| request.body = bytes::Bytes::from_static(b"{}"))),
        ("claim_invalid", with(|request| request.body_key.truncate(31))),
        ("grant_unknown", world.call(&elsewhere, "chat", &chat(true))),
        ("credential_unknown", world.call(&unknown, "chat", &chat(true))),
        ("claim_signature", world.call(&stranger, "chat", &chat(true))),
        ("claim_invalid", world.call(access, "telepathy", &chat(true))),
        ("body_invalid", world.call(access, "chat", "[")),
        ("body_too_large", world.call(access, "chat", &"x".repeat(70_000))),
        (
            "field_unknown",
            world.call(access, "chat", r#"{"model":"m1","messages":[{"role":"user","content":"x"}],"brand_new":1}"#),
        ),
        ("broker_denied", world.call(access, "chat", tools)),
        ("tokens_exceeded", world.call(access, "chat", &chat(true).replace("64", "65536"))),
        ("call_id_old", world.call_as(access, old, "chat", &chat(true))),
        ("checkpoint_diverges", seeing(&rig, 3, &[5; 32])),
        ("checkpoint_diverges", seeing(&rig, 1_000_000, &[5; 32])),
        ("lab_offline", seeing(&rig, 3, world.journal.root_at(3).unwrap().as_bytes())),
        ("lab_offline", rig.request()),
    ];
    let mut codes: Vec<&str> = Vec::new();
    for (expected, request) in cases {
        assert_eq!(rig.refusal(request).await, expected);
        codes.push(expected);
    }
    rig.relay.write_counted(true).await;
    let mut recorded: Vec<String> = Vec::new();
    for sealed in rig.records() {
        if let Event::CallRefused(refused) = &sealed.entered.event {
            recorded.push(refused.code.clone());
        }
        if let Event::RefusalsCounted { code, count, .. } = &sealed.entered.event {
            recorded.extend(std::iter::repeat_n(code.clone(), usize::try_from(*count).unwrap()));
        }
    }
    recorded.sort();
    codes.sort_unstable();
    assert_eq!(recorded, codes);
    assert_eq!(rig.count(40), 0);
}

#[tokio::test]
async fn a_lab_cannot_call_its_own_grant() {
    let rig = Rig::new().await;
    let mut lab = rig.client(rig.world.lab.conn(Role::Workload, "w")).await;
    assert_eq!(code(&lab.stream(rig.request()).await.unwrap_err()), "grant_unknown");
    let mut auditor = rig.client(rig.world.agency.conn(Role::Auditor, "a")).await;
    assert_eq!(code(&auditor.stream(rig.request()).await.unwrap_err()), "caller_role");
}

#[tokio::test]
async fn a_flood_of_ten_thousand_refusals_writes_a_handful_of_records() {
    let rig = Rig::new().await;
    let before = rig.records().len();
    let request = rig.world.call(&rig.access, "chat", "[");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (mut caller, request) = (rig.caller.clone(), request.clone());
        calls.spawn(async move {
            for _ in 0..100 {
                assert!(caller.stream(request.clone()).await.is_err());
            }
        });
    }
    while let Some(joined) = calls.join_next().await {
        joined.unwrap();
    }
    rig.relay.write_counted(true).await;
    let records = rig.records();
    assert!(records.len() - before <= 6, "{} records", records.len() - before);
    let counted: u64 = records[before..]
        .iter()
        .map(|sealed| if let Event::RefusalsCounted { count, .. } = &sealed.entered.event { *count } else { 1 })
        .sum();
    assert_eq!(counted, 10_000);
}

#[tokio::test]
async fn a_repeated_refusal_by_the_budget_does_not_reach_the_journal_again() {
    let rig = Rig::with(|terms| terms["budget"]["tokens"] = 1.into()).await;
    let _slot = rig.slot().await;
    for _ in 0..10 {
        assert_eq!(rig.refusal(rig.request()).await, "budget_spent");
    }
    assert_eq!(rig.count(41), 1);
    rig.relay.write_counted(true).await;
    assert_eq!(rig.count(42), 1);
}

#[tokio::test]
async fn an_unconfirmed_clock_admits_nothing_until_a_connector_confirms_it() {
    let rig = Rig::new().await;
    rig.world.time.step_wall(-10_000);
    assert_eq!(rig.refusal(rig.request()).await, "clock_untrusted");
    rig.world.time.step_wall(10_000);
    assert!(!rig.world.journal.now().trusted, "clocks that agree again are no confirmation");
    let mut connector = rig.slot().await;
    // The connector's signed clock is read before the call behind it on the same stream is dispatched.
    while !rig.world.journal.now().trusted {
        tokio::task::yield_now().await;
    }
    let _open = rig.open(&mut connector).await;
}

#[tokio::test]
async fn the_operators_own_clock_in_a_labs_name_confirms_nothing_and_takes_no_call_of_the_labs() {
    let rig = Rig::new().await;
    let _direct = rig.direct_slot().await;
    assert_eq!(rig.refusal(rig.request()).await, "lab_offline", "the terms name the lab's connector");
    rig.world.time.step_wall(-10_000);
    assert_eq!(rig.refusal(rig.request()).await, "clock_untrusted");
    rig.world.time.step_wall(10_000);
    let mut direct = rig.direct_slot().await;
    // Out of turn: the slot closes over it, after the clock before it was read.
    direct.head(true).await;
    while let Ok(Some(_)) = direct.down.message().await {}
    assert!(!rig.world.journal.now().trusted);
    let _connector = rig.slot().await;
    while !rig.world.journal.now().trusted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_slot_opens_for_what_the_lab_registered_alone() {
    let rig = Rig::new().await;
    let refused = |hello| async { code(&rig.slot_with(hello).await.err().unwrap()).to_owned() };
    let mut hello = rig.hello();
    hello.line = "m2".to_owned();
    assert_eq!(refused(hello).await, "line_unknown");
    let mut hello = rig.hello();
    hello.manifest_digest = vec![0; 32];
    assert_eq!(refused(hello).await, "line_unknown");
    let mut hello = rig.hello();
    hello.variants = vec!["helpful".to_owned()];
    assert_eq!(refused(hello).await, "manifest_invalid");
    let mut hello = rig.hello();
    let claim = anteroom_proto::rpc::ClockClaim {
        org: rig.world.lab.org.to_string(),
        connector: "conn-1".to_owned(),
        at_ms: START_MS,
        challenge: Vec::new(),
    };
    hello.clock = Some(sign_claim(&claim, &rig.world.lab.signer).unwrap());
    assert_eq!(refused(hello).await, "claim_signature", "a signer's key is no connector's");
    assert_eq!(rig.relay.slots().open(&rig.world.lab.org, &"m1".parse().unwrap()), 0);
}

#[tokio::test]
async fn a_connector_that_saw_another_log_is_turned_away() {
    let rig = Rig::new().await;
    let mut hello = rig.hello();
    hello.seen_size = 3;
    hello.seen_root = vec![5; 32];
    let status = rig.slot_with(hello).await.err().unwrap();
    assert_eq!(code(&status), "checkpoint_diverges");
    let mut hello = rig.hello();
    hello.seen_size = 3;
    hello.seen_root = rig.world.journal.root_at(3).unwrap().as_bytes().to_vec();
    assert!(rig.slot_with(hello).await.is_ok());
    let mut hello = rig.hello();
    hello.seen_size = 1_000_000;
    hello.seen_root = vec![5; 32];
    assert_eq!(code(&rig.slot_with(hello).await.err().unwrap()), "checkpoint_diverges");
}
