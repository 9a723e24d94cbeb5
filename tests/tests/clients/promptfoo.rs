//! promptfoo through a gateway, unmodified: it scores what the model said, its results name the calls that the ledger holds, and a no
//! is an error or an end and no score.
//!
//! It needs npm packages in `target/npm/promptfoo`, a Node among them, which `tests/run` puts there.

use std::path::Path;

use anteroom_broker::demo::cast::LINE;
use anteroom_tests::e2e::{
    book::Book,
    client::{modules, run, tool},
    scene::plan,
};
use serde_json::{Value, json};

use super::setting::{AT_ONCE, Setting, setting};

/// Two prompts with two sets of words each.
const CASES: usize = 4;

/// An evaluation with more fields in its requests: what it said, and its results.
async fn promptfoo(modules: &Path, setting: &Setting, name: &str, more: Value) -> (String, Value) {
    let folder = setting.scene.dir();
    let starts = |words: &str| json!({"vars": {"words": words}, "assert": [{"type": "starts-with", "value": words}]});
    let config = json!({
        "prompts": ["say {{words}}", "say {{words}} again"],
        "providers": [{"id": format!("openai:chat:{LINE}"), "config": {"max_tokens": 16, "passthrough": more}}],
        "tests": [starts("one two"), starts("three")],
    });
    std::fs::write(folder.join("promptfooconfig.json"), config.to_string()).unwrap();
    let (results, programs) = (folder.join(name).with_extension("json"), modules.join(".bin"));
    let mut command = tool(&programs.join("node"), &setting.gateway, folder);
    command.env("PROMPTFOO_CONFIG_DIR", folder.join("promptfoo"));
    // It would tell its makers about itself, and ask them for more.
    for setting in ["DISABLE_TELEMETRY", "DISABLE_UPDATE", "DISABLE_REMOTE_GENERATION"] {
        command.env(format!("PROMPTFOO_{setting}"), "1");
    }
    command.arg(programs.join("promptfoo")).args(["eval", "--config", "promptfooconfig.json", "--output"]);
    command.arg(&results).args(["--no-cache", "--no-write", "--no-table", "--no-progress-bar"]);
    let output = run(command).await;
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    let results = std::fs::read(results).unwrap_or_else(|_| panic!("{said}"));
    (said, serde_json::from_slice::<Value>(&results).unwrap()["results"].take())
}

/// How many cases were passed, failed and in error.
fn stats(results: &Value) -> [Option<u64>; 3] {
    ["successes", "failures", "errors"].map(|name| results["stats"][name].as_u64())
}

fn cases(results: &Value) -> &[Value] {
    results["results"].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn promptfoo_scores_what_the_model_said_and_takes_every_no_for_what_it_is() {
    let Some(modules) = modules("promptfoo") else { return };
    let mut setting = setting(AT_ONCE, plan()).await;
    // Its calls come four at a time, and they are the first that the lab's connector sees of this grant.
    let (said, results) = promptfoo(&modules, &setting, "scored", json!({})).await;
    assert_eq!(stats(&results), [Some(4), Some(0), Some(0)], "{said}\n{}", setting.gateway.log());
    let mut named = Vec::new();
    for case in cases(&results) {
        let asked = case["prompt"]["raw"].as_str().unwrap();
        assert_eq!(case["response"]["output"].as_str(), asked.strip_prefix("say "));
        named.push(case["metadata"]["http"]["headers"]["x-request-id"].as_str().unwrap().to_owned());
    }

    let (said, results) = promptfoo(&modules, &setting, "refused", json!({"made_up": 1})).await;
    assert_eq!(stats(&results), [Some(0), Some(0), Some(4)], "{said}");
    assert!(cases(&results).iter().all(|case| case["error"].as_str().is_some_and(|why| why.contains("field_unknown"))));
    assert_eq!(setting.refused("field_unknown"), CASES, "each is asked once");

    setting.pause().await;
    let resumed = async {
        setting.gateway.says("code=\"grant_paused\"").await;
        setting.resume().await;
    };
    let ((said, results), ()) = tokio::join!(promptfoo(&modules, &setting, "parked", json!({})), resumed);
    assert_eq!(stats(&results), [Some(4), Some(0), Some(0)], "{said}");

    setting.lab_leaves().await;
    let (said, results) = promptfoo(&modules, &setting, "away", json!({})).await;
    assert_eq!(stats(&results), [Some(0), Some(0), Some(4)], "{said}");

    setting.withdraw().await;
    let (said, results) = promptfoo(&modules, &setting, "ended", json!({})).await;
    assert_eq!(stats(&results), [Some(0); 3], "an end is no score: {said}");
    assert!(said.contains("Target returned HTTP 403"), "{said}");
    assert!(
        cases(&results).iter().all(|case| case["error"].as_str().is_some_and(|why| why.contains("grant_withdrawn")))
    );
    assert!((1..=CASES).contains(&setting.refused("grant_withdrawn")), "none is asked twice");

    assert_eq!(setting.scene.model.asked().len(), 2 * CASES);
    assert_eq!(setting.admitted().await, 2 * CASES, "one call an answer");
    let book = Book::of(&setting.broker.data());
    for call in named {
        assert!(book.admission(call.parse().unwrap()).is_some(), "the ledger holds {call}");
    }
}
