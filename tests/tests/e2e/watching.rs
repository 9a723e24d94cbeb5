//! What an operator watches with: every metric that an alert or the dashboard names is one that a broker has, and every alert says which
//! page to open.

use std::{collections::BTreeSet, fs, path::Path};

use anteroom_tests::e2e::{
    broker::{Broker, ask},
    scene::Scene,
    wait::until,
};
use serde_json::Value;

fn deploy(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)).unwrap()
}

/// Every word that looks like one of our metrics.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(word).filter(|word| word.starts_with("anteroom_")).map(str::to_owned).collect()
}

/// The names under which a page's metrics can be asked for.
fn exported(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in page.lines() {
        let mut words = line.split(' ');
        if let (Some("#"), Some("TYPE"), Some(name), Some(kind)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
        }
    }
    names
}

/// A heading as its link names it.
fn anchor(heading: &str) -> String {
    let kept =
        heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-').collect::<String>();
    kept.replace(' ', "-")
}

/// The alerts with what follows each.
fn alerts() -> Vec<(String, String)> {
    let text = deploy("prometheus/alerts.yml");
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let (name, rest) = rule.split_once('\n').unwrap();
        (name.trim().to_owned(), rest.to_owned())
    });
    rules.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_is_watched_is_exported() {
    let folder = Scene::folder();
    let mut broker = Broker::made(folder.path()).await;
    let sink = folder.path().join("rows.jsonl");
    broker.configure("sinks", &format!("archive=jsonl+file://{}", sink.display()));
    // Nobody is there; a witness's metrics are, once one is configured.
    broker.configure(
        "witnesses",
        "http://127.0.0.1:9 witness.example/w1+f5f1ad4c+BAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH",
    );
    broker.start_again().await;
    let ops = broker.addresses().ops;
    let page = until("the first publication", || async {
        let page = ask(ops, "/metrics").await?;
        page.contains("\nanteroom_published_age_seconds ").then_some(page)
    })
    .await;
    let exported = exported(&page);
    for file in ["prometheus/alerts.yml", "grafana/anteroom.json"] {
        let named = named(&deploy(file));
        assert!(named.len() >= 10, "{file} names {} metrics", named.len());
        let missing: Vec<_> = named.difference(&exported).collect();
        assert!(missing.is_empty(), "{file} names what no broker exports: {missing:?}");
    }
    broker.kill().await;
}

#[test]
fn every_alert_names_a_section_of_the_runbook() {
    let runbook = deploy("RUNBOOK.md");
    let sections: BTreeSet<String> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let alerts = alerts();
    assert!(alerts.len() >= 10, "{}", alerts.len());
    for (name, rule) in alerts {
        let link = rule.lines().find_map(|line| line.trim().strip_prefix("runbook: deploy/RUNBOOK.md#"));
        let link = link.unwrap_or_else(|| panic!("`{name}` names no section")).to_owned();
        assert!(sections.contains(&link), "`{name}` names `{link}`, which is none of {sections:?}");
    }
}

/// Every source of tests.
fn tests() -> String {
    fn walk(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    for folder in ["tests/tests", "broker/src"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut text);
    }
    text
}

#[test]
fn every_test_that_the_runbook_names_is_there() {
    let (runbook, tests) = (deploy("RUNBOOK.md"), tests());
    let word = |text: &&str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    // Between two backticks, and longer than any key or metric.
    let named = runbook.split('`').skip(1).step_by(2).filter(word).filter(|name| name.matches('_').count() >= 4);
    let named: BTreeSet<&str> = named.collect();
    assert!(named.len() >= 15, "{named:?}");
    for name in named {
        assert!(tests.contains(&format!("fn {name}(")), "there is no test `{name}`");
    }
}

#[test]
fn the_dashboards_panels_each_ask_something() {
    let board: Value = serde_json::from_str(&deploy("grafana/anteroom.json")).unwrap();
    let panels = board.get("panels").and_then(Value::as_array).unwrap();
    let mut places = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel.get("type").and_then(Value::as_str) != Some("row")) {
        let asked = panel.pointer("/targets/0/expr").and_then(Value::as_str).unwrap_or_default();
        assert!(asked.contains("anteroom_"), "{panel}");
        let at = |part: &str| panel.pointer(&format!("/gridPos/{part}")).and_then(Value::as_u64).unwrap();
        assert!(places.insert((at("x"), at("y"))), "two panels in one place: {panel}");
    }
    assert!(places.len() >= 10);
}
