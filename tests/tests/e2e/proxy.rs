//! The way to the broker through a proxy that the environment names: everything passes inside, and what stands in the way is named.

use std::{path::Path, time::Duration};

use anteroom_tests::e2e::{
    command::command,
    proxy::{Manner, Proxy},
    scene::{Scene, plan},
    wait::soon,
};
use serde_json::Value;

/// Runs a command that finds the broker through this proxy alone: nobody else knows the name.
async fn through(proxy: &Proxy, home: &Path, port: u16, words: &[&str]) -> (Option<i32>, String, String) {
    let at = format!("broker.invalid:{port}");
    let words: Vec<&str> = ["--addr", &at, "--format", "json"].iter().chain(words).copied().collect();
    let mut command = command(home, &words);
    command.env("HTTPS_PROXY", proxy.url()).env_remove("https_proxy").env_remove("NO_PROXY").env_remove("no_proxy");
    let output = soon("the command", command.output()).await.unwrap();
    let [said, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), said, error)
}

/// What the doctor finds wrong, and everything it found.
async fn wrong(proxy: &Proxy, home: &Path, port: u16) -> (Vec<(String, String)>, Vec<Value>) {
    let (_, said, error) = through(proxy, home, port, &["doctor"]).await;
    let found: Vec<Value> = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{error}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let wrong = found.iter().filter(|finding| finding["state"] == "wrong");
    let wrong =
        wrong.map(|finding| (text(finding, "check"), format!("{} {}", text(finding, "found"), text(finding, "next"))));
    (wrong.collect(), found)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_pass_through_a_proxy_and_the_doctor_names_one_that_is_in_the_way() {
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
    let (agency, port) = (scene.cast.agency.dir().to_owned(), broker.addresses().programme.port());

    let honest = Proxy::start(Manner::Honest).await;
    let (code, said, error) = through(&honest, &agency, port, &["chat", &grant, "through the tunnel"]).await;
    assert_eq!((code, said.is_empty()), (Some(0), false), "{error}");
    assert!(honest.tunnels() > 0 && scene.model.asked().contains(&"through the tunnel".to_owned()));
    let (told, found) = wrong(&honest, &agency, port).await;
    assert!(told.is_empty(), "{told:?}");
    let named = found.iter().find(|finding| finding["check"] == "proxy").unwrap();
    assert!(named["state"] == "fine" && named["found"].as_str().unwrap().contains("HTTPS_PROXY"), "{named}");

    let forbidding = Proxy::start(Manner::Forbidding).await;
    let (told, _) = wrong(&forbidding, &agency, port).await;
    assert!(told.len() == 1 && told[0].0 == "proxy" && told[0].1.contains("status 403"), "{told:?}");
    let (code, _, error) = through(&forbidding, &agency, port, &["grant", "list"]).await;
    assert!(code == Some(1) && error.contains("the proxy") && error.contains("403"), "{error}");

    let opening = Proxy::start(Manner::Opening).await;
    let (told, _) = wrong(&opening, &agency, port).await;
    assert!(told.len() == 1 && told[0].0 == "TLS" && told[0].1.contains("seems to open TLS"), "{told:?}");
    let (code, _, error) = through(&opening, &agency, port, &["grant", "list"]).await;
    assert_eq!(code, Some(1), "{error}");

    // Loopback is never asked of a proxy, and neither is what NO_PROXY names: without it nobody knows the name.
    let before = honest.tunnels();
    let mut direct = command(&agency, &["grant", "list"]);
    direct.env("HTTPS_PROXY", honest.url());
    assert!(soon("the command", direct.output()).await.unwrap().status.success());
    let mut except = command(&agency, &["--addr", &format!("broker.invalid:{port}"), "grant", "list"]);
    except.env("HTTPS_PROXY", honest.url()).env("NO_PROXY", "other.example,.invalid");
    assert!(!soon("the command", except.output()).await.unwrap().status.success());
    assert_eq!(honest.tunnels(), before);
    broker.kill().await;
}
