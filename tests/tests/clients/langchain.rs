//! LangChain through a gateway, unmodified.
//!
//! It needs Python packages in `target/venv/langchain`, which `tests/run` puts there.

use std::path::Path;

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_proto::statement::terms::Features;
use anteroom_tests::e2e::{
    client::{Told, program, script, tool},
    scene::{SLOW, plan},
};
use serde_json::{Value, json};

use super::setting::{AT_ONCE, Setting, setting};

fn told(python: &Path, setting: &Setting, name: &str) -> Told {
    let mut command = tool(python, &setting.gateway, setting.scene.dir());
    command.arg(script("client_langchain.py")).args([name, LINE]);
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
    assert_eq!(error["library"], true, "users catch the OpenAI library's errors: {error}");
    (error["class"].as_str().unwrap_or("-"), error["code"].as_str().unwrap_or("-"))
}

#[tokio::test(flavor = "multi_thread")]
async fn langchain_chats_streams_and_embeds_as_without_a_gateway() {
    let Some(python) = program("langchain", "python") else { return };
    let features = Features { chat: true, embeddings: true, streaming: true, n: 1, ..Features::default() };
    let mut setting = setting(AT_ONCE, Plan { features, ..plan() }).await;
    let chat = seen(&python, &setting, "chat").await;
    assert_eq!((&chat["text"], &chat["usage"]), (&json!("one two"), &json!(7)));
    assert_eq!((&chat["streamed"], &chat["pieces"]), (&json!("one two three"), &json!(3)));
    assert_eq!(chat["streamed_usage"], 8);
    assert_eq!((&chat["chain"], &chat["batch"]), (&json!("three four"), &json!(["a", "b", "c"])));
    assert_eq!(setting.scene.model.asked().len(), 6);
    // Token numbers go the same way as texts.
    let _generator = setting.generator().await;
    let embeddings = seen(&python, &setting, "embeddings").await;
    assert_eq!((&embeddings["tokens"], &embeddings["texts"]), (&json!([16, 16]), &json!([16, 16])));

    // While the lab is away the library comes again as often as it does by itself, and then no more; nothing of it is admitted.
    setting.lab_leaves().await;
    let mut away = told(&python, &setting, "asks");
    assert_eq!(away.next().await["asking"], true);
    let failed = away.next().await;
    assert_eq!(why(&failed["failed"]), ("OpenAIAPIError", "lab_offline"));
    away.end().await;
    assert_eq!(setting.refused("lab_offline"), 3, "{}", setting.gateway.log());
    assert_eq!(setting.admitted().await, 8, "one call an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn langchain_takes_every_no_for_what_it_is() {
    let Some(python) = program("langchain", "python") else { return };
    let mut setting = setting(SLOW, plan()).await;
    let refusals = seen(&python, &setting, "refusals").await;
    let whys: Vec<_> = refusals["seen"].as_array().unwrap().iter().map(why).collect();
    assert_eq!(
        whys,
        [
            ("OpenAIAuthenticationError", "invalid_api_key"),
            ("OpenAIModelNotFoundError", "model_not_found"),
            ("UnprocessableEntityError", "field_unknown"),
            ("UnprocessableEntityError", "broker_denied"),
            ("OpenAIAPIError", "made_up"),
        ]
    );
    assert_eq!(setting.scene.model.asked(), ["fail 500"; 3]);
    assert_eq!((setting.refused("field_unknown"), setting.refused("broker_denied")), (1, 1));

    setting.pause().await;
    let mut parked = told(&python, &setting, "asks");
    assert_eq!(parked.next().await["asking"], true);
    setting.gateway.says("code=\"grant_paused\"").await;
    setting.resume().await;
    assert_eq!(parked.next().await, json!({"answers": ["one two"], "failed": null}));
    parked.end().await;

    let mut cut = told(&python, &setting, "cut");
    assert!(cut.next().await["begun"].is_string());
    setting.withdraw().await;
    assert_eq!(why(&cut.next().await["cut"]), ("APIError", "grant_withdrawn"));
    for asked in ["after", "patient"] {
        let told = cut.next().await;
        assert_eq!(why(&told[asked]), ("OpenAIPermissionDeniedError", "grant_withdrawn"));
        assert!(told[asked]["request"].as_str().unwrap().starts_with("call-"));
    }
    cut.end().await;
    assert_eq!(setting.refused("grant_withdrawn"), 2, "each is asked once and not again: {}", setting.gateway.log());
    assert_eq!(setting.admitted().await, 5, "three that failed, one that waited, one that was cut");
}
