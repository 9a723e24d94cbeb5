//! An evaluator's dry run: requests and tools on offered terms, without a call.

use std::{fs, time::Duration};

use anteroom_broker::demo::cast::LINE;
use anteroom_tests::e2e::{
    command::{command, json, said},
    scene::{Scene, plan},
    wait::soon,
};
use serde_json::{Value, json as object};

fn request(name: &str, more: &Value) -> String {
    let mut body = object!({"model": LINE, "messages": [{"role": "user", "content": "q"}], "max_tokens": 3});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object!({"custom_id": name, "url": "/v1/chat/completions", "body": body}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_requests_is_judged_as_the_broker_would_and_nothing_is_asked() {
    let (scene, _broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
    let home = scene.cast.agency.dir().to_owned();
    let file = scene.dir().join("requests.jsonl");
    let lines = [
        request("fine", &object!({})),
        request("biased", &object!({"logit_bias": {"1": 2}})),
        request("odd", &object!({"x": 1})),
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let file = file.to_str().unwrap().to_owned();
    // By the grant as the broker shows it, and by the very bytes alone, in a stranger's folder.
    let terms = scene.dir().join("terms.json");
    fs::write(&terms, said(&home, &["grant", "show", &grant, "--raw"]).await).unwrap();
    let stranger = scene.dir().join("nowhere");
    for (home, what) in [(&home, grant.as_str()), (&stranger, terms.to_str().unwrap())] {
        let words = ["--format", "json", "grant", "dry-run", what, "--check", &file];
        let output = soon("the dry run", command(home, &words).output()).await.unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (told["dry_run"].as_bool(), told["passed"].as_u64(), told["refused"].as_u64()),
            (Some(true), Some(1), Some(2))
        );
        let named = |at: usize| {
            let one = &told["refused_requests"][at];
            ["custom_id", "code", "field"].map(|name| one[name].as_str().unwrap().to_owned())
        };
        assert_eq!(named(0), ["biased", "broker_denied", "logit_bias"]);
        assert_eq!(named(1), ["odd", "field_unknown", "x"]);
        assert_eq!(told["refused_requests"][0]["terms"][0], "features.logit_bias");
    }
    // The batch itself comes out the same.
    let sum = json(&home, &["batch", &grant, &file]).await;
    assert_eq!((sum["answered"].as_u64(), sum["refused"].as_u64()), (Some(1), Some(2)));
    assert_eq!(scene.model.asked().len(), 1);
    // What stands against a request is what the doctor finds, too.
    let body = scene.dir().join("body.json");
    fs::write(
        &body,
        object!({"model": LINE, "messages": [{"role": "user", "content": "q"}], "logit_bias": {"1": 2}}).to_string(),
    )
    .unwrap();
    let words = ["--format", "json", "doctor", &grant, "--body", body.to_str().unwrap()];
    let output = soon("the doctor", command(&home, &words).output()).await.unwrap();
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let feature = found.iter().find(|finding| finding["check"] == "feature").unwrap();
    assert!(
        feature["state"] == "wrong" && feature["found"].as_str().unwrap().contains("features.logit_bias"),
        "{feature}"
    );
}
