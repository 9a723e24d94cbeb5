//! PyRIT through a gateway, unmodified: it judges what the model said, and a no is an error in its memory and no answer.
//!
//! It needs Python packages in `target/venv/pyrit`, which `tests/run` puts there.

use std::path::Path;

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_tests::e2e::{
    client::{Told, program, script, tool},
    scene::plan,
    wait::until,
};
use serde_json::{Value, json};

use super::setting::{AT_ONCE, Setting, setting};

fn told(python: &Path, setting: &Setting, name: &str) -> Told {
    let mut command = tool(python, &setting.gateway, setting.scene.dir());
    command.arg(script("client_pyrit.py")).args([name, LINE]);
    Told::start(command)
}

/// What a scene with one line says.
async fn seen(python: &Path, setting: &Setting, name: &str) -> Value {
    let mut told = told(python, setting, name);
    let seen = told.patiently().await;
    told.end().await;
    seen
}

/// One question: what came of it, and the errors of what its memory holds.
async fn asks(python: &Path, setting: &Setting, meanwhile: impl AsyncFnOnce()) -> (Value, Vec<Value>) {
    let mut told = told(python, setting, "asks");
    assert_eq!(told.patiently().await["asking"], true);
    meanwhile().await;
    let mut seen = told.patiently().await;
    told.end().await;
    let errors = seen["remembered"].as_array().unwrap().iter().map(|piece| piece["error"].clone()).collect();
    (seen["seen"].take(), errors)
}

/// Class, status and code of what went wrong.
fn why(seen: &Value) -> (&str, u64, &str) {
    let failed = &seen["failed"];
    let text = |name: &str| failed[name].as_str().unwrap_or("-");
    (text("class"), failed["status"].as_u64().unwrap_or_default(), text("code"))
}

#[tokio::test(flavor = "multi_thread")]
async fn pyrit_sends_and_converses_and_takes_every_no_for_an_error() {
    let Some(python) = program("pyrit", "python") else { return };
    let mut setting = setting(AT_ONCE, plan()).await;
    let sent = seen(&python, &setting, "sends").await;
    assert_eq!(sent["single"], json!({"outcome": "undetermined", "text": "one two", "error": "none"}));
    assert_eq!(sent["turns"], json!(["first", "first"]), "the server says what the first message asks for");
    let last: Value = serde_json::from_slice(&setting.scene.model.last()).unwrap();
    let said: Vec<_> = last["messages"].as_array().unwrap().iter().map(|message| &message["content"]).collect();
    assert_eq!(said, ["say first", "first", "and again"], "the second turn carries the first");

    // A rule's no is not the model's: it is raised, and what is remembered is an error that no scorer takes for an answer.
    let refusals = seen(&python, &setting, "refusals").await;
    assert_eq!(why(&refusals["unknown"]), ("UnprocessableEntityError", 422, "field_unknown"));
    assert_eq!(why(&refusals["tokens"]), ("UnprocessableEntityError", 422, "tokens_exceeded"));
    assert_eq!(why(&refusals["model"]), ("NotFoundError", 404, "model_not_found"));
    assert_eq!((setting.refused("field_unknown"), setting.refused("tokens_exceeded")), (1, 1), "each is asked once");
    let remembered = refusals["remembered"].as_array().unwrap();
    let answers = remembered.iter().filter(|piece| piece["role"] == "assistant");
    let kinds: Vec<_> = answers.map(|piece| (piece["type"].clone(), piece["error"].clone())).collect();
    assert_eq!(
        kinds.get(..3).unwrap(),
        [
            (json!("error"), json!("processing")),
            (json!("error"), json!("processing")),
            (json!("error"), json!("processing"))
        ]
    );
    assert_eq!(why(&refusals["server"]), ("BadRequestError", 400, "made_up"), "the server's own no passes as it is");

    setting.pause().await;
    let (parked, errors) = asks(&python, &setting, async || {
        setting.gateway.says("code=\"grant_paused\"").await;
        setting.resume().await;
    })
    .await;
    assert_eq!((&parked["text"], errors), (&json!("one two"), vec![json!("none"), json!("none")]));

    setting.lab_leaves().await;
    let (away, errors) = asks(&python, &setting, async || {}).await;
    assert_eq!(why(&away), ("InternalServerError", 503, "lab_offline"));
    assert_eq!(
        (errors.last(), setting.refused("lab_offline")),
        (Some(&json!("processing")), 3),
        "{}",
        setting.gateway.log()
    );

    setting.withdraw().await;
    let (ended, errors) = asks(&python, &setting, async || {}).await;
    assert_eq!(why(&ended), ("PermissionDeniedError", 403, "grant_withdrawn"));
    assert_eq!((errors.last(), setting.refused("grant_withdrawn")), (Some(&json!("processing")), 1));
    assert!(ended["failed"]["request"].as_str().unwrap().starts_with("call-"));
    assert_eq!(setting.admitted().await, 5, "three that were sent, one that the server turned down, one that waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn pyrit_asks_once_of_a_grant_that_has_expired() {
    let Some(python) = program("pyrit", "python") else { return };
    let mut setting = setting(AT_ONCE, Plan { term_ms: 2_000, ..plan() }).await;
    // The first call starts the window, whose end comes by itself.
    let body = json!({"model": LINE, "messages": [{"role": "user", "content": "say so"}], "max_tokens": 4});
    until("the end of the grant", || async {
        let reply = setting.gateway.post("/v1/chat/completions", &body).await;
        (reply.status == 403).then_some(())
    })
    .await;
    let before = setting.refused("grant_expired");
    let asked = setting.scene.model.asked().len();
    let (ended, errors) = asks(&python, &setting, async || {}).await;
    assert_eq!(why(&ended), ("PermissionDeniedError", 403, "grant_expired"));
    assert_eq!(errors.last(), Some(&json!("processing")));
    assert_eq!(setting.refused("grant_expired"), before + 1, "{}", setting.gateway.log());
    assert_eq!(setting.scene.model.asked().len(), asked);
    assert!(setting.admitted().await >= asked);
}
