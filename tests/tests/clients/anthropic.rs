//! The Anthropic library through a gateway, unmodified: beside the test's own model server, the built-in generator and llama.cpp.
//!
//! It needs Python packages in `target/venv/anthropic`, which `tests/run` puts there.

use std::path::Path;

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_proto::statement::terms::{Budget, Features};
use anteroom_tests::e2e::{
    client::{Told, program, script, tool},
    command,
    scene::{SLOW, plan},
};
use serde_json::{Value, json};

use super::{
    model_server::{self, Llama},
    setting::{AT_ONCE, Setting, setting},
};

fn features() -> Features {
    let tools = vec!["function".to_owned()];
    Features { messages: true, streaming: true, n: 1, tools, ..Features::default() }
}

fn told(python: &Path, setting: &Setting, name: &str) -> Told {
    let mut command = tool(python, &setting.gateway, setting.scene.dir());
    command.arg(script("client_anthropic.py")).args([name, LINE]);
    Told::start(command)
}

/// What a scene with one line says.
async fn seen(python: &Path, setting: &Setting, name: &str) -> Value {
    let mut told = told(python, setting, name);
    let seen = told.next().await;
    told.end().await;
    seen
}

/// The class and the code of what went wrong.
fn why(error: &Value) -> (&str, &str) {
    (error["class"].as_str().unwrap_or("-"), error["code"].as_str().unwrap_or("-"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_library_asks_for_everything_that_is_granted() {
    let Some(python) = program("anthropic", "python") else { return };
    let mut setting = setting(AT_ONCE, Plan { features: features(), ..plan() }).await;
    let spoken = seen(&python, &setting, "spoken").await;
    assert_eq!((&spoken["text"], &spoken["listed"]), (&json!(["one two", "three"]), &json!([LINE])));
    assert_eq!(spoken["name"], LINE);
    let tools = seen(&python, &setting, "tools").await;
    let call = json!(["look_up", {"place": "here"}]);
    assert_eq!((&tools["calls"], &tools["after"]), (&json!([call, call]), &json!("so")));
    assert_eq!(tools["stops"], json!(["tool_use", "tool_use"]));
    let sent: Value = serde_json::from_slice(&setting.scene.model.last()).unwrap();
    assert_eq!(sent["tools"], json!([tools["tool"]]), "the model server got the schema as it was given");
    assert_eq!(sent["messages"][2]["content"][0]["tool_use_id"], "toolu_1");
    assert_eq!(seen(&python, &setting, "key").await["text"], "hello");

    let _generator = setting.generator().await;
    let whole = seen(&python, &setting, "whole").await;
    let streamed = seen(&python, &setting, "streamed").await;
    for text in ["text", "helped", "final"] {
        assert_eq!(streamed[text], whole["text"], "{text}");
    }
    assert_eq!((&streamed["stop"], &whole["stop"]), (&json!("max_tokens"), &json!("max_tokens")));
    assert_eq!((&streamed["usage"], &whole["usage"]), (&json!([1, 6]), &json!([1, 6])));
    assert_eq!(streamed["kinds"].as_array().unwrap().last(), Some(&json!("message_stop")));
    assert!(streamed["request"].as_str().unwrap().starts_with("call-"));
    assert_eq!(whole["marking"], "UNCLASSIFIED");

    // The identifier that the library keeps leads to a receipt that verifies offline.
    setting.gateway.terminate().await;
    assert!(setting.gateway.ended().await.success());
    let call = whole["request"].as_str().unwrap();
    let shown = command::json(setting.scene.cast.agency.dir(), &["receipt", "verify", call]).await;
    assert!(shown.to_string().contains(call), "{shown}");
    setting.broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_library_takes_every_no_for_what_it_is() {
    let Some(python) = program("anthropic", "python") else { return };
    let plain = Features { tools: Vec::new(), ..features() };
    let mut setting = setting(SLOW, Plan { features: plain, ..plan() }).await;
    let refusals = seen(&python, &setting, "refusals").await;
    let whys: Vec<_> = refusals["seen"].as_array().unwrap().iter().map(why).collect();
    assert_eq!(
        whys,
        [
            ("AuthenticationError", "invalid_api_key"),
            ("NotFoundError", "model_not_found"),
            ("UnprocessableEntityError", "field_unknown"),
            ("UnprocessableEntityError", "broker_denied"),
            ("NotFoundError", "route_not_found"),
            ("OverloadedError", "-"),
        ]
    );
    assert!(refusals["seen"][2]["text"].as_str().unwrap().contains("made_up"));
    // What the model server itself failed at is tried again by the library, as without a gateway; what was refused is not.
    assert_eq!(setting.scene.model.asked(), ["fail 529"; 3]);
    assert_eq!((setting.refused("field_unknown"), setting.refused("broker_denied")), (1, 1));

    setting.pause().await;
    let mut parked = told(&python, &setting, "one");
    assert_eq!(parked.next().await["asking"], true);
    setting.gateway.says("code=\"grant_paused\"").await;
    setting.resume().await;
    assert_eq!(parked.next().await, json!({"answer": "one two", "failed": null}));
    parked.end().await;

    let mut cut = told(&python, &setting, "cut");
    assert_eq!(cut.next().await["begun"], "message_start");
    setting.withdraw().await;
    let ended = cut.next().await;
    assert_eq!(why(&ended["cut"]), ("APIStatusError", "grant_withdrawn"), "{ended}");
    for _ in 0..2 {
        let after = cut.next().await;
        assert_eq!(why(&after["after"]), ("PermissionDeniedError", "grant_withdrawn"));
        assert!(after["after"]["request"].as_str().unwrap().starts_with("call-"));
    }
    cut.end().await;
    assert_eq!(setting.refused("grant_withdrawn"), 2, "each is asked once and not again: {}", setting.gateway.log());
    assert_eq!(setting.admitted().await, 5, "three that failed, one that waited, one that was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_library_comes_again_where_it_is_told_to() {
    let Some(python) = program("anthropic", "python") else { return };
    let budget = Budget { calls: 10, tokens: 100_000, open: 1 };
    let mut setting = setting(SLOW, Plan { features: features(), budget, ..plan() }).await;
    let mut waits = told(&python, &setting, "waits");
    assert_eq!(waits.next().await["open"], true);
    let waited = waits.next().await;
    assert_eq!(waited["status"], 200);
    assert!(waited["retries"].as_u64().unwrap() >= 1);
    waits.end().await;

    // While the lab is away the library comes again as often as it does by itself, and then no more; nothing of it is admitted.
    setting.lab_leaves().await;
    let mut away = told(&python, &setting, "one");
    assert_eq!(away.next().await["asking"], true);
    let failed = away.next().await;
    assert_eq!(why(&failed["failed"]), ("ServiceUnavailableError", "lab_offline"), "{failed}");
    away.end().await;
    assert_eq!(setting.refused("lab_offline"), 3, "{}", setting.gateway.log());
    assert_eq!(setting.admitted().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_library_speaks_with_llama_cpp_through_the_chain() {
    let Some(python) = program("anthropic", "python") else { return };
    let Some(packages) = model_server::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let llama = Llama::start(&packages, folder.path()).await;
    let mut setting = setting(AT_ONCE, Plan { features: features(), ..plan() }).await;
    setting.beside(&llama.base_url()).await;
    let whole = seen(&python, &setting, "whole").await;
    assert_eq!((&whole["stop"], &whole["usage"][1]), (&json!("max_tokens"), &json!(6)), "{whole}");
    let streamed = seen(&python, &setting, "streamed").await;
    assert_eq!((&streamed["stop"], &streamed["usage"][1]), (&json!("max_tokens"), &json!(6)), "{streamed}");
    let kinds = streamed["kinds"].as_array().unwrap();
    assert_eq!((kinds.first(), kinds.last()), (Some(&json!("message_start")), Some(&json!("message_stop"))));
    assert_eq!(setting.admitted().await, 3, "one call an answer");
}
