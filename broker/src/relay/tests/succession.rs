//! From one instant on new calls go to the new build; calls of the build before drain, or are cut at that instant.

use anteroom_proto::{
    names::Digest,
    rpc::{OutcomeClaim, ServeDone, serve_up},
    statement::{
        model::Registration,
        succession::{Countersignature, OpenCalls, Succession},
    },
    time::At,
};
use serde_json::json;

use super::rig::{Call, Connector, Rig, code, delta, next, rest};
use crate::testing::{LINE, done};

impl Rig {
    /// Registers a build, and has it take the place of the first in a minute; its digest and the instant.
    async fn succeeded(&self, open_calls: OpenCalls) -> (Digest, At) {
        let world = &self.world;
        let manifest = json!({
            "lab": world.lab.org, "line": LINE, "build": "b2", "variants": ["standard"],
            "digests": [{"name": "weights", "sha256": "08".repeat(32)}], "features": {"chat": true, "streaming": true},
        })
        .to_string();
        let to = Digest::of(manifest.as_bytes());
        let (lab, agency) = (&world.lab, &world.agency);
        let line = LINE.parse().unwrap();
        let act = Registration { lab: lab.org.clone(), line, manifest: to, supersedes: Some(world.manifest) };
        done(world.act(lab, lab.signed(&act), manifest.as_bytes()).await);
        let at = world.now().plus_ms(60_000);
        let succession = Succession {
            grant: self.access.grant,
            by: lab.org.clone(),
            from: world.manifest,
            to,
            at_ms: None,
            open_calls,
            previous: None,
            reason: "mends the tokenizer".to_owned(),
        };
        let offered = lab.signed(&succession);
        done(world.act(lab, offered.clone(), &[]).await);
        let succession = Digest::of(&offered.payload);
        let counter = Countersignature { grant: self.access.grant, by: agency.org.clone(), succession, at_ms: at };
        done(world.act(agency, agency.signed(&counter), &[]).await);
        (to, at)
    }

    /// A slot of another build.
    async fn slot_of(&self, build: Digest) -> Connector {
        let mut hello = self.hello();
        hello.manifest_digest = build.as_bytes().to_vec();
        self.slot_with(hello).await.unwrap()
    }
}

/// Ends a call in the name of a build.
async fn ended(rig: &Rig, connector: &Connector, call: &Call, build: Digest) {
    let claim = OutcomeClaim {
        call: call.id.as_bytes().to_vec(),
        grant: call.grant.clone(),
        status: 200,
        received_events: call.chain.count(),
        received_chain: call.chain.value().to_vec(),
        released_events: call.chain.count(),
        released_chain: call.chain.value().to_vec(),
        input_tokens: Some(3),
        output_tokens: Some(4),
        manifest_digest: build.as_bytes().to_vec(),
        end: "completed".to_owned(),
        at_ms: rig.world.now().ms(),
        ..OutcomeClaim::default()
    };
    let outcome = Some(rig.world.outcome(&claim));
    connector.send(serve_up::Message::Done(ServeDone { outcome, refused: String::new(), detail: String::new() })).await;
}

#[tokio::test]
async fn calls_of_the_build_before_drain_and_new_ones_go_to_the_new_build() {
    let rig = Rig::new().await;
    let mut old = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut old).await;
    // Only now: of two idle slots either may be given the call.
    let mut idle = rig.slot().await;
    let (build, at) = rig.succeeded(OpenCalls::Drain).await;
    let mut new = rig.slot_of(build).await;
    // Not before the instant.
    let (mut early, early_call) = rig.open(&mut idle).await;
    ended(&rig, &idle, &early_call, rig.world.manifest).await;
    assert!(rest(&mut early).await.1.is_ok());
    rig.world.time.advance(at.since(rig.world.now()));
    let (mut fresh, mut fresh_call) = rig.open(&mut new).await;
    new.event(&mut fresh_call, &delta("two")).await;
    ended(&rig, &new, &fresh_call, build).await;
    assert!(rest(&mut fresh).await.1.is_ok());
    old.event(&mut call, &delta("one")).await;
    ended(&rig, &old, &call, rig.world.manifest).await;
    let (data, end) = rest(&mut stream).await;
    assert_eq!((data.len(), end.is_ok()), (1, true), "an open call comes to its own end");
    // The build before has idle slots and gets no call, also when the new one has none.
    drop(new);
    let line = LINE.parse().unwrap();
    while rig.relay.slots().open(&rig.world.lab.org, &line) > 2 {
        tokio::task::yield_now().await;
    }
    let status = rig.caller.clone().stream(rig.request()).await.unwrap_err();
    assert_eq!(code(&status), "lab_offline");
}

#[tokio::test]
async fn calls_of_the_build_before_are_cut_at_the_instant_and_not_earlier() {
    let rig = Rig::new().await;
    let mut old = rig.slot().await;
    let (mut stream, mut call) = rig.open(&mut old).await;
    let (build, at) = rig.succeeded(OpenCalls::Cut).await;
    rig.world.time.advance(at.since(rig.world.now()) - 1);
    old.event(&mut call, &delta("one")).await;
    assert!(next(&mut stream).await.is_ok());
    // One that comes when the change is known to come is cut as well.
    let mut other = rig.slot().await;
    let (mut late, _late_call) = rig.open(&mut other).await;
    rig.world.time.advance(1);
    old.event(&mut call, &delta("two")).await;
    let (data, end) = rest(&mut stream).await;
    assert!(data.is_empty(), "nothing of the build before leaves from the instant on");
    assert_eq!(code(&end.unwrap_err()), "build_succeeded");
    assert_eq!(old.cut().await.code, "build_succeeded");
    assert_eq!(code(&rest(&mut late).await.1.unwrap_err()), "build_succeeded");
    ended(&rig, &old, &call, rig.world.manifest).await;
    let finished = rig.finished(&call.id).await;
    assert_eq!((finished.end.as_str(), finished.cut), ("build_succeeded", Some(at)));
    let mut new = rig.slot_of(build).await;
    let (_stream, call) = rig.open(&mut new).await;
    assert!(call.dispatch.deadline_ms > at.ms());
}

#[tokio::test]
async fn an_outcome_in_the_name_of_another_build_than_its_slots_is_none() {
    let rig = Rig::new().await;
    let mut old = rig.slot().await;
    let (build, _) = rig.succeeded(OpenCalls::Drain).await;
    let (mut stream, call) = rig.open(&mut old).await;
    ended(&rig, &old, &call, build).await;
    assert_eq!(code(&rest(&mut stream).await.1.unwrap_err()), "outcome_invalid");
}
