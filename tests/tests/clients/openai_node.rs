//! The OpenAI library for Node through a gateway, unmodified.
//!
//! It needs Debian's Node and npm packages in `target/npm/openai`, which `tests/run` puts there.

use std::path::Path;

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_proto::statement::terms::Features;
use anteroom_tests::e2e::{
    client::{Told, modules, script, tool},
    scene::{SLOW, plan},
};
use serde_json::{Value, json};

use super::setting::{AT_ONCE, Setting, setting};

fn told(modules: &Path, setting: &Setting, name: &str) -> Told {
    let mut command = tool(Path::new("node"), &setting.gateway, setting.scene.dir());
    command.env("NODE_PACKAGES", modules).arg(script("client_node.mjs")).args([name, LINE]);
    Told::start(command)
}

/// What a scene with one line says.
async fn seen(modules: &Path, setting: &Setting, name: &str) -> Value {
    let mut told = told(modules, setting, name);
    let seen = told.next().await;
    told.end().await;
    seen
}

/// The class and the code of what went wrong.
fn why(error: &Value) -> (&str, &str) {
    assert_eq!(error["library"], true, "{error}");
    (error["class"].as_str().unwrap_or("-"), error["code"].as_str().unwrap_or("-"))
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_node_asks_for_everything_that_is_granted() {
    let Some(modules) = modules("openai") else { return };
    let tools = vec!["function".to_owned()];
    let features = Features { chat: true, responses: true, streaming: true, n: 1, tools, ..Features::default() };
    let mut setting = setting(AT_ONCE, Plan { features, ..plan() }).await;
    let chat = seen(&modules, &setting, "chat").await;
    assert_eq!((&chat["text"], &chat["usage"]), (&json!("one two"), &json!(7)));
    assert_eq!(chat["streamed"], json!({"text": "one two three", "pieces": 3, "usage": 8, "finish": "stop"}));
    assert_eq!(chat["many"], json!(["a", "b", "c"]));
    assert!(chat["request"].as_str().unwrap().starts_with("call-") && chat["receipt"].is_string());
    let tools = seen(&modules, &setting, "tools").await;
    let call = json!(["look_up", "{\"place\":\"here\"}"]);
    assert_eq!((&tools["whole"], &tools["streamed"]), (&call, &call));
    let sent: Value = serde_json::from_slice(&setting.scene.model.last()).unwrap();
    assert_eq!(sent["tools"], json!([tools["tool"]]));
    let responses = seen(&modules, &setting, "responses").await;
    assert_eq!((&responses["whole"], responses["kinds"].as_array().unwrap().len()), (&json!("one two"), 4));
    assert_eq!(setting.scene.model.asked().len(), 9);

    // While the lab is away the library comes again as often as it does by itself, and then no more; nothing of it is admitted.
    setting.lab_leaves().await;
    let mut away = told(&modules, &setting, "one");
    assert_eq!(away.next().await["asking"], true);
    assert_eq!(why(&away.next().await["failed"]), ("InternalServerError", "lab_offline"));
    away.end().await;
    assert_eq!(setting.refused("lab_offline"), 3, "{}", setting.gateway.log());
    assert_eq!(setting.admitted().await, 9, "one call an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_node_takes_every_no_for_what_it_is() {
    let Some(modules) = modules("openai") else { return };
    let mut setting = setting(SLOW, plan()).await;
    let refusals = seen(&modules, &setting, "refusals").await;
    let whys: Vec<_> = refusals["seen"].as_array().unwrap().iter().map(why).collect();
    assert_eq!(
        whys,
        [
            ("AuthenticationError", "invalid_api_key"),
            ("NotFoundError", "model_not_found"),
            ("UnprocessableEntityError", "field_unknown"),
            ("UnprocessableEntityError", "broker_denied"),
            ("InternalServerError", "made_up"),
        ]
    );
    assert_eq!(refusals["seen"][2]["param"], "made_up");
    assert_eq!(setting.scene.model.asked(), ["fail 500"; 3]);
    assert_eq!((setting.refused("field_unknown"), setting.refused("broker_denied")), (1, 1));

    setting.pause().await;
    let mut parked = told(&modules, &setting, "one");
    assert_eq!(parked.next().await["asking"], true);
    setting.gateway.says("code=\"grant_paused\"").await;
    setting.resume().await;
    assert_eq!(parked.next().await, json!({"answer": "one two", "failed": null}));
    parked.end().await;

    let mut cut = told(&modules, &setting, "cut");
    assert!(cut.next().await["begun"].is_string());
    setting.withdraw().await;
    assert_eq!(why(&cut.next().await["cut"]), ("APIError", "grant_withdrawn"));
    for asked in ["after", "patient"] {
        let told = cut.next().await;
        assert_eq!(why(&told[asked]), ("PermissionDeniedError", "grant_withdrawn"));
        assert!(told[asked]["request"].as_str().unwrap().starts_with("call-"));
    }
    cut.end().await;
    assert_eq!(setting.refused("grant_withdrawn"), 2, "each is asked once and not again: {}", setting.gateway.log());
    assert_eq!(setting.admitted().await, 5, "three that failed, one that waited, one that was cut");
}
