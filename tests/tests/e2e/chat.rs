//! A conversation: turn by turn, an answer given up, a refusal survived, and the end that the lab sets.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex, PoisonError},
};

use anteroom_tests::e2e::{
    command::{command, said},
    scene::{SLOW, Scene, plan},
    wait::{soon, until},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

/// What a pipe said so far.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn of(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let said = Self::default();
        let noted = said.clone();
        tokio::spawn(async move {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut part).await {
                let text = String::from_utf8_lossy(&part[..count]).into_owned();
                noted.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        said
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn says(&self, words: &str, times: usize) {
        until(words, || async { (self.text().matches(words).count() >= times).then_some(()) }).await;
    }
}

async fn interrupt(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_outlives_a_given_up_answer_and_a_refusal_and_ends_with_the_grant() {
    let (scene, _broker) = Scene::start(SLOW).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let (name, home) = (grant.to_string(), scene.cast.agency.dir().to_owned());
    let mut child = command(&home, &["chat", &name, "--interactive", "--max-tokens", "3000"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (out, noted) = (Said::of(child.stdout.take().unwrap()), Said::of(child.stderr.take().unwrap()));
    let mut typed = child.stdin.take().unwrap();
    noted.says("calls, ", 1).await;
    typed.write_all(b"tell me everything\n").await.unwrap();
    out.says("word 3 ", 1).await;
    interrupt(&child).await;
    noted.says("given up; the call counts as far as it came", 1).await;
    typed.write_all(b"/new\nsay well met\n").await.unwrap();
    out.says("well met", 1).await;
    typed.write_all(b"and again\n").await.unwrap();
    out.says("well met", 2).await;
    let last: Value = serde_json::from_slice(&scene.model.last()).unwrap();
    let asked: Vec<_> =
        last["messages"].as_array().unwrap().iter().map(|one| one["content"].as_str().unwrap()).collect();
    assert_eq!(asked, ["say well met", "well met", "and again"], "what was said is sent along");

    // Above the grant's own marking: refused, in words, and the conversation goes on.
    typed.write_all(b"/marking CUI//NOFORN\nis this too much?\n").await.unwrap();
    noted.says("broker_denied", 1).await;
    noted.says("the conversation goes on", 1).await;
    let file = scene.dir().join("talk.json");
    typed.write_all(format!("/marking\n/nonsense\n/save {}\n", file.display()).as_bytes()).await.unwrap();
    noted.says("is no command", 1).await;
    noted.says("saved 2 turns", 1).await;
    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(saved["turns"][1]["answered"], "well met");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let _ = scene.withdraw(grant).await.unwrap();
    typed.write_all(b"still there?\n").await.unwrap();
    let status = soon("the end of the conversation", child.wait()).await.unwrap();
    noted.says("grant_withdrawn", 1).await;
    assert_eq!(status.code(), Some(4), "{}", noted.text());
    // Each turn is a call with a receipt of its own.
    let call = saved["turns"][0]["call"].as_str().unwrap();
    said(&home, &["receipt", "show", call]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_is_one_question_as_it_always_was() {
    let (scene, _broker) = Scene::start(std::time::Duration::ZERO).await;
    let name = scene.cast.granted(&plan()).await.unwrap().to_string();
    let home = scene.cast.agency.dir();
    for words in [vec!["chat", name.as_str()], vec!["chat", name.as_str(), "-"]] {
        let mut child = command(home, &words).stdin(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"say one line\nand another").await.unwrap();
        let output = soon("the answer", child.wait_with_output()).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "one line\nand another\n");
    }
    assert_eq!(scene.model.asked().len(), 2);
}
