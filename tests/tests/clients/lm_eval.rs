//! lm-eval through a gateway, unmodified: it scores what the model said, and an ended grant is an error and no score.
//!
//! It needs Python packages in `target/venv/lm_eval`, which `tests/run` puts there.

use std::{path::Path, process::Output, time::Duration};

use anteroom_broker::demo::cast::LINE;
use anteroom_tests::e2e::{
    client::{program, run, script, tool},
    gateway::Gateway,
    scene::{Scene, plan},
};
use serde_json::Value;

async fn lm_eval(program: &Path, gateway: &Gateway, scene: &Scene, out: &str) -> Output {
    let mut command = tool(program, gateway, scene.dir());
    command.env("HF_HUB_OFFLINE", "1").env("HF_DATASETS_OFFLINE", "1").env("TOKENIZERS_PARALLELISM", "false");
    let url = format!("{}/chat/completions", gateway.base_url());
    let model = format!("model={LINE},base_url={url},num_concurrent=2,max_retries=3");
    command.args(["--model", "local-chat-completions", "--model_args", &model, "--apply_chat_template"]);
    command.arg("--include_path").arg(script("lm_eval")).args(["--tasks", "echoes", "--output_path", out]);
    run(command).await
}

/// The one file of results below a folder.
fn results(folder: &Path) -> Option<Value> {
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.to_owned();
        if path.is_dir() {
            if let Some(found) = results(&path) {
                return Some(found);
            }
        } else if name.starts_with("results_") {
            return serde_json::from_slice(&std::fs::read(path).ok()?).ok();
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_is_scored_while_the_grant_lasts_and_fails_afterwards() {
    let Some(program) = program("lm_eval", "lm_eval") else { return };
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let gateway = Gateway::start(scene.cast.agency.dir(), &[]).await;
    let data: String = (0..4).map(|number| format!("{{\"number\": {number}}}\n")).collect();
    std::fs::write(scene.dir().join("echoes.jsonl"), data).unwrap();
    let output = lm_eval(&program, &gateway, &scene, "scored").await;
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "{said}\n{}", gateway.log());
    let scored = results(&scene.dir().join("scored")).unwrap_or_else(|| panic!("no results: {said}"));
    assert_eq!(scored["results"]["echoes"]["exact_match,none"], 1.0, "{said}");
    assert_eq!(scene.model.asked().len(), 4);

    let _ = scene.withdraw(grant).await.unwrap();
    let output = lm_eval(&program, &gateway, &scene, "after").await;
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(results(&scene.dir().join("after")).is_none(), "nothing was scored");
    assert!(gateway.log().contains("code=\"grant_withdrawn\""));
    assert_eq!(scene.model.asked().len(), 4);
    broker.kill().await;
}
