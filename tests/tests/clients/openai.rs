//! The OpenAI library and `curl` through a gateway, unmodified.
//!
//! It needs Python packages in `target/venv/openai`, which `tests/run` puts there.

use std::path::Path;

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_proto::statement::terms::{Budget, Features};
use anteroom_tests::e2e::{
    client::{Told, program, script, tool},
    command,
    scene::{SLOW, plan, plan_of},
    wait::soon,
};
use serde_json::{Value, json};
use tokio::process::Command;

use super::setting::{AT_ONCE, Setting, setting};

fn features() -> Features {
    Features {
        chat: true,
        completions: true,
        embeddings: true,
        responses: true,
        streaming: true,
        seed: true,
        logprobs: 3,
        tools: vec!["function".to_owned()],
        ..Features::default()
    }
}

impl Setting {
    fn script(&self, python: &Path, name: &str) -> Told {
        let mut command = tool(python, &self.gateway, self.scene.dir());
        command.arg(script("client_openai.py")).args([name, LINE]);
        Told::start(command)
    }

    /// What a scene with one line says.
    async fn seen(&self, python: &Path, name: &str) -> Value {
        let mut told = self.script(python, name);
        let seen = told.next().await;
        told.end().await;
        seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_library_asks_for_everything_that_is_granted() {
    let Some(python) = program("openai", "python") else { return };
    let mut setting = setting(AT_ONCE, Plan { features: features(), ..plan() }).await;
    let tools = setting.seen(&python, "tools").await;
    let call = json!(["look_up", "{\"place\":\"here\"}"]);
    assert_eq!((&tools["whole"], &tools["streamed"]), (&call, &call));
    let sent: Value = serde_json::from_slice(&setting.scene.model.last()).unwrap();
    assert_eq!(sent["tools"], json!([tools["tool"]]), "the model server got the schema as it was given");
    let responses = setting.seen(&python, "responses").await;
    assert_eq!((&responses["whole"], &responses["streamed"]), (&json!("one two"), &json!("one two")));
    assert_eq!(responses["kinds"].as_array().map(Vec::len), Some(4));

    // The other routes are the built-in generator's.
    let _generator = setting.generator().await;
    let whole = setting.seen(&python, "whole").await;
    let streamed = setting.seen(&python, "streamed").await;
    assert_eq!((&whole["text"], &whole["usage"]), (&streamed["text"], &streamed["usage"]));
    assert!(whole["request"].as_str().unwrap().starts_with("call-"));
    assert!(streamed["request"].as_str().unwrap().starts_with("call-") && streamed["finish"].is_string());
    assert_eq!(whole["marking"], "UNCLASSIFIED");
    let others = setting.seen(&python, "other_routes").await;
    assert_eq!((&others["listed"], &others["grant"]), (&json!([LINE]), &json!(setting.grant.to_string())));
    assert!(others["logprobs"].as_u64().unwrap() > 2);
    assert_eq!(others["vectors"].as_array().map(Vec::len), Some(2));

    // The identifier that the library logs leads to a receipt that verifies offline.
    setting.gateway.terminate().await;
    assert!(setting.gateway.ended().await.success());
    let call = whole["request"].as_str().unwrap();
    let agency = setting.scene.cast.agency.dir();
    let shown = command::json(agency, &["receipt", "verify", call]).await;
    assert!(shown.to_string().contains(call), "{shown}");
    setting.broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_library_takes_every_no_for_what_it_is() {
    let Some(python) = program("openai", "python") else { return };
    let plain = Features { tools: Vec::new(), ..features() };
    let mut setting = setting(SLOW, Plan { features: plain, ..plan() }).await;
    let seen = setting.seen(&python, "refusals").await;
    let seen: Vec<(&str, &str)> = seen["seen"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["class"].as_str().unwrap_or("-"), error["code"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(
        seen,
        [
            ("AuthenticationError", "invalid_api_key"),
            ("NotFoundError", "model_not_found"),
            ("UnprocessableEntityError", "field_unknown"),
            ("UnprocessableEntityError", "broker_denied"),
            ("InternalServerError", "made_up"),
        ]
    );
    // What the model server itself failed at is tried again by the library, as without a gateway; what was refused is not.
    assert_eq!(setting.scene.model.asked(), ["fail 500"; 3]);
    let refused = setting.gateway.log().matches("code=\"field_unknown\"").count();
    assert_eq!(refused, 1);

    let mut told = setting.script(&python, "cut");
    assert!(told.next().await["begun"].is_string());
    let _ = setting.scene.withdraw(setting.grant).await.unwrap();
    let cut = told.next().await;
    assert_eq!((&cut["cut"]["class"], &cut["cut"]["code"]), (&json!("APIError"), &json!("grant_withdrawn")));
    let after = told.next().await;
    assert_eq!(
        (&after["after"]["class"], &after["after"]["code"]),
        (&json!("PermissionDeniedError"), &json!("grant_withdrawn"))
    );
    assert!(after["after"]["request"].as_str().unwrap().starts_with("call-"));
    told.end().await;
    let tries = setting.gateway.log().matches("code=\"grant_withdrawn\"").count();
    assert_eq!(tries, 1, "an ended grant is asked once and not again: {}", setting.gateway.log());
    setting.broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_library_waits_as_it_is_told_while_the_budget_is_held() {
    let Some(python) = program("openai", "python") else { return };
    let mut setting = setting(SLOW, plan_of(Budget { calls: 10, tokens: 100_000, open: 1 })).await;
    let mut told = setting.script(&python, "waits");
    assert_eq!(told.next().await["open"], true);
    let waited = told.next().await;
    assert_eq!(waited["status"], 200);
    assert!(waited["retries"].as_u64().unwrap() >= 1);
    drop(told);
    setting.broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_does_with_the_lines_that_the_gateway_prints() {
    let mut setting = setting(AT_ONCE, plan()).await;
    let lines: Vec<&str> =
        setting.gateway.started["env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let body = json!({"model": LINE, "messages": [{"role": "user", "content": "say one two"}], "stream": true});
    let asks = format!(
        "{}\ncurl --silent --show-error --no-buffer --fail-with-body \"$OPENAI_BASE_URL/chat/completions\" \
         -H \"Authorization: Bearer $OPENAI_API_KEY\" -H 'Content-Type: application/json' -d '{body}'",
        lines.join("\n")
    );
    let output = soon("curl", Command::new("bash").args(["-c", &asks]).kill_on_drop(true).output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("data: ").count(), 5, "{said}");
    assert!(said.ends_with("data: [DONE]\n\n"));
    setting.broker.kill().await;
}
