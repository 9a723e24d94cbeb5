//! The report on paper, read by a program that is not ours: it says what the JSON says.

use std::path::Path;

use anteroom_tests::e2e::{
    client::modules,
    command::{json, published},
    wait::soon,
};
use serde_json::Value;
use tokio::process::Command;

use super::setting;

async fn read(program: &str, words: &[&str]) -> String {
    let output = soon(program, Command::new(program).args(words).output()).await.unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    // Whatever is odd in a file is told here.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{program}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_on_paper_says_what_the_report_says() {
    // Its tools come with those of the browser.
    if modules("browser").is_none() {
        return;
    }
    let (scene, _broker, caller) = setting().await;
    drop(scene.withdraw(caller.grant).await.unwrap());
    published(&scene.cast.lab).await;
    let (paper, grant) = (scene.dir().join("report.pdf"), caller.grant.to_string());
    let report = json(scene.cast.lab.dir(), &["audit", "report", &grant, "--pdf", text(&paper)]).await;
    let said = read("pdftotext", &["-layout", text(&paper), "-"]).await;
    let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let of = &report["grants"][0];
    let number = |value: &Value| value.as_u64().unwrap().to_string();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let sums = &of["sums"];
    let times = &of["times"]["admitted_to_end"];
    for due in [
        grant.clone(),
        format!("Calls {} of {}", number(&sums["calls"]), number(&of["budget"]["calls"])),
        format!("Tokens charged {} of {}", number(&sums["tokens"]), number(&of["budget"]["tokens"])),
        format!("Completed {}", number(&sums["completed"])),
        format!("Refused {}", number(&sums["refusals"])),
        format!("Entries {}", number(&report["log"]["entries"])),
        word(&report["log"]["root"]),
        word(&report["log"]["key"]),
        word(&of["terms"]),
        word(&of["start"]),
        word(&of["people"][0]["of"]),
        format!("broker_denied {}", number(&of["refusals"][0]["count"])),
        format!("{} calls, from {} to {} ms", number(&times["count"]), times["shortest_ms"], times["longest_ms"]),
        "What none of this proves".to_owned(),
        "Page 1 of".to_owned(),
    ] {
        assert!(flat.contains(&due), "`{due}` is not in: {said}");
    }
    let info = read("pdfinfo", &[text(&paper)]).await;
    for due in [&format!("Report of {grant}"), "Tagged:          yes", "JavaScript:      no", "Encrypted:       no"] {
        assert!(info.contains(due), "`{due}` is not in: {info}");
    }
    assert!(!info.contains("CreationDate"), "{info}");
    // The tags are there for those who have it read to them: tables with heads, and drawings in words.
    let tags = read("pdfinfo", &["-struct-text", text(&paper)]).await;
    for due in ["Document", "H1", "Table", "TH", "Figure", "Caption"] {
        assert!(tags.contains(due), "`{due}` is not in: {tags}");
    }
    if let Some(pictures) = std::env::var_os("SCREENSHOTS") {
        std::fs::create_dir_all(&pictures).unwrap();
        read("pdftoppm", &["-r", "60", "-png", text(&paper), text(&Path::new(&pictures).join("paper"))]).await;
    }
}
