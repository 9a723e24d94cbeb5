//! An address that names several doors of one log: who was talking to one that is gone goes on at the next.

use std::time::Duration;

use anteroom_sdk::{error::Error, evaluator::Route};
use anteroom_tests::e2e::{
    caller::{Caller, chat_whole},
    command::command,
    forward::Forward,
    model::HOLD,
    scene::{Scene, plan},
    wait::soon,
};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_goes_on_at_the_next_broker_and_no_call_is_made_twice() {
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let there = broker.addresses().programme;
    let (first, second) = (Forward::to(there).await, Forward::to(there).await);
    let several = format!("localhost:{},localhost:{}", first.address().port(), second.address().port());
    let caller = Caller::open(&scene.cast.agency.clone().with_addr(&several), grant).await.unwrap();

    caller.evaluator.complete(Route::Chat, chat_whole("at the first", 4)).await.unwrap();
    assert!(first.passed() > 0 && second.passed() == 0, "the first that is named is tried first");

    // One call is under way when its broker goes: what became of it is asked at the other, and it is not made again.
    let words = format!("{HOLD}on");
    let (evaluator, held) = (caller.evaluator.clone(), chat_whole(&words, 4));
    let lost = tokio::spawn(async move { evaluator.complete(Route::Chat, held).await });
    scene.model.counts_reach("the call under way", |counts| counts.requests == 2).await;
    first.close().await;
    match soon("the call that was under way", lost).await.unwrap() {
        Err(Error::AnswerLost { .. }) => {}
        other => panic!("{other:?}"),
    }
    scene.model.release();
    assert_eq!(scene.model.asked().iter().filter(|asked| **asked == words).count(), 1);

    // The next one does not notice.
    caller.evaluator.complete(Route::Chat, chat_whole("at the second", 4)).await.unwrap();
    assert!(second.passed() > 0);

    // The doctor looks at each of them.
    let agency = scene.cast.agency.dir();
    let output = soon("the doctor", command(agency, &["--addr", &several, "--format", "json", "doctor"]).output());
    let found: Vec<Value> = serde_json::from_slice(&output.await.unwrap().stdout).unwrap();
    let ports = |state: &str| found.iter().filter(|one| one["check"] == "port" && one["state"] == state).count();
    assert_eq!((ports("fine"), ports("wrong")), (1, 1), "{found:?}");
    drop(second);
    match caller.evaluator.complete(Route::Chat, chat_whole("nowhere", 4)).await {
        Err(Error::Transport(_)) => {}
        other => panic!("{other:?}"),
    }
    broker.kill().await;
}
