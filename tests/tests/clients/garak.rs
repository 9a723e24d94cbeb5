//! garak through a gateway, unmodified: it judges what the model said, and an ended grant ends a run without a verdict, however long the
//! lab was away before.
//!
//! It needs Python packages in `target/venv/garak`, which `tests/run` puts there.

use std::path::Path;

use anteroom_broker::demo::cast::LINE;
use anteroom_tests::e2e::{
    client::{program, run, tool},
    scene::plan,
    wait::until,
};
use serde_json::{Value, json};

use super::setting::{AT_ONCE, Setting, setting};

/// Prompts of the smallest probe.
const PROMPTS: usize = 8;

/// A run with one probe: what it said, and the entries of its report.
async fn garak(python: &Path, setting: &Setting, name: &str, more: Value) -> (String, Vec<Value>) {
    let folder = setting.scene.dir();
    let report = folder.join(name);
    let mut options = json!({"uri": setting.gateway.base_url(), "max_tokens": 4});
    options["extra_params"] = more;
    let options = json!({"openai": {"OpenAICompatible": options}}).to_string();
    let mut command = tool(python, &setting.gateway, folder);
    command.env("OPENAICOMPATIBLE_API_KEY", &setting.gateway.token).env("HF_HUB_OFFLINE", "1");
    command.env("XDG_DATA_HOME", folder.join("data")).env("XDG_CONFIG_HOME", folder.join("config"));
    command.args(["-m", "garak", "--target_type", "openai.OpenAICompatible", "--target_name", LINE]);
    command.args(["--generator_options", &options, "--probes", "test.Test", "--detectors", "always.Pass"]);
    command.args(["--generations", "1", "--report_prefix"]).arg(&report);
    let output = run(command).await;
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    let report = std::fs::read_to_string(report.with_extension("report.jsonl")).unwrap_or_else(|_| panic!("{said}"));
    (said, report.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn of_type<'a>(report: &'a [Value], kind: &str) -> Vec<&'a Value> {
    report.iter().filter(|entry| entry["entry_type"] == kind).collect()
}

/// What the judged attempts were answered with.
fn outputs(report: &[Value]) -> Vec<&Value> {
    let judged = of_type(report, "attempt").into_iter().filter(|attempt| attempt["status"] == 2);
    judged.map(|attempt| &attempt["outputs"][0]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn garak_judges_what_the_model_said_and_nothing_after_the_end() {
    let Some(python) = program("garak", "python") else { return };
    let mut setting = setting(AT_ONCE, plan()).await;
    let (said, report) = garak(&python, &setting, "judged", json!({})).await;
    let texts: Vec<&Value> = outputs(&report).into_iter().map(|output| &output["text"]).collect();
    assert_eq!(texts, ["word 0 word 1 word 2 word 3 "; PROMPTS], "{said}");
    assert_eq!(of_type(&report, "eval")[0]["total_evaluated"], PROMPTS);

    // What a rule refuses is an answer that is missing, asked for once.
    let (said, report) = garak(&python, &setting, "refused", json!({"extra_body": {"made_up": 1}})).await;
    assert!(outputs(&report).into_iter().all(Value::is_null), "{said}");
    assert_eq!((outputs(&report).len(), setting.refused("field_unknown")), (PROMPTS, PROMPTS));

    setting.pause().await;
    let resumed = async {
        setting.gateway.says("code=\"grant_paused\"").await;
        setting.resume().await;
    };
    let ((said, report), ()) = tokio::join!(garak(&python, &setting, "parked", json!({})), resumed);
    assert!(outputs(&report).into_iter().all(|output| output["text"].is_string()), "{said}");
    assert_eq!(outputs(&report).len(), PROMPTS);

    // It would come for ever while the lab is away, and the end of the grant ends it.
    setting.lab_leaves().await;
    let ended = async {
        until("more tries than the library's own", || async { (setting.refused("lab_offline") > 3).then_some(()) })
            .await;
        setting.withdraw().await;
    };
    let ((said, report), ()) = tokio::join!(garak(&python, &setting, "ended", json!({})), ended);
    assert!(said.contains("the lab has withdrawn the grant"), "{said}");
    assert!(of_type(&report, "attempt").is_empty() && of_type(&report, "eval").is_empty(), "nothing was judged");
    assert_eq!(setting.refused("grant_withdrawn"), 1, "{}", setting.gateway.log());
    assert_eq!(setting.scene.model.asked().len(), 2 * PROMPTS);
    assert_eq!(setting.admitted().await, 2 * PROMPTS, "one call an answer");
}
