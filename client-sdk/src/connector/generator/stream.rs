//! An answer as an event stream, a word at a time.
//!
//! **Invariant:** a stream that was begun is counted as open until its body is gone, and then as finished
//! or as cut, never both.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answers::{self, Choice};
use super::asked::{Asked, Kind};
use super::{Counts, Desk, Pace, Reply};

/// Begins to stream an answer.
pub(super) fn reply(script: Script, desk: &Desk) -> Reply {
    let open = Open::new(desk.counts.clone());
    let events = unfold((script, open, desk.pace), |(mut script, mut open, pace)| async move {
        let (event, pause) = script.next()?;
        if pause {
            pace.pause().await;
        }
        open.finished = script.is_over();
        Some((Ok::<_, Infallible>(Frame::data(event)), (script, open, pace)))
    });
    let mut reply = Response::new(StreamBody::new(events).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

impl Pace {
    async fn pause(self) {
        if self.per_word.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(self.per_word).await;
        }
    }
}

/// Counts a stream as long as it lives.
struct Open {
    counts: Arc<watch::Sender<Counts>>,
    /// The last event was handed over.
    finished: bool,
}

impl Open {
    fn new(counts: Arc<watch::Sender<Counts>>) -> Self {
        counts.send_modify(|counts| counts.open_streams = counts.open_streams.saturating_add(1));
        Self { counts, finished: false }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts.send_modify(|counts| {
            counts.open_streams = counts.open_streams.saturating_sub(1);
            let ended = if self.finished { &mut counts.finished_streams } else { &mut counts.cut_streams };
            *ended = ended.saturating_add(1);
        });
    }
}

/// The events of an answer in the order they are sent. A pause belongs in front of those marked.
pub(super) struct Script(VecDeque<(Bytes, bool)>);

impl Script {
    /// These events.
    pub(super) const fn of(events: VecDeque<(Bytes, bool)>) -> Self {
        Self(events)
    }

    /// Those of chat and completions.
    pub(super) fn new(asked: &Asked) -> Self {
        let choices = answers::choices(asked);
        let head = match asked.kind {
            Kind::Chat => asked.head("chat.completion.chunk"),
            Kind::Completion => asked.head("text_completion"),
        };
        // Where usage is asked for, every chunk but the one that carries it says `null`.
        let usage = if asked.include_usage { json!({"usage": null}) } else { json!({}) };
        let chunk = |choice: Value| {
            let chunk = answers::with(head.clone(), [("choices", json!([choice]))]);
            event(&merge(chunk, &usage))
        };
        let mut events = VecDeque::new();
        for choice in &choices {
            if asked.kind == Kind::Chat {
                let role = json!({"role": "assistant", "content": ""});
                events.push_back((chunk(chat(choice, role, None, None)), false));
            }
            if !choice.echoed.is_empty() {
                let logprobs = asked.logprobs.map(|top| answers::text_logprobs(&choice.echoed, 0, 0, top, true));
                events.push_back((chunk(text(choice, &choice.echoed.concat(), logprobs, None)), false));
            }
        }
        // Choices take turns, as on a server that computes them together.
        let longest = choices.iter().map(|choice| choice.tokens.len()).max().unwrap_or(0);
        let mut offsets: Vec<_> = choices.iter().map(|choice| choice.echoed.concat().chars().count()).collect();
        for at in 0..longest {
            for (choice, offset) in choices.iter().zip(&mut offsets) {
                let Some(token) = choice.tokens.get(at) else {
                    continue;
                };
                let pause = at > 0 && choice.index == 0;
                events.push_back((chunk(word(asked, choice, token, at, *offset)), pause));
                *offset = offset.saturating_add(token.chars().count());
            }
        }
        for choice in &choices {
            let last = match asked.kind {
                Kind::Chat => chat(choice, json!({}), None, Some(choice.finish)),
                Kind::Completion => text(choice, "", None, Some(choice.finish)),
            };
            events.push_back((chunk(last), false));
        }
        if asked.include_usage {
            let usage = answers::usage(asked, &choices);
            let last = answers::with(head.clone(), [("choices", json!([])), ("usage", usage)]);
            events.push_back((event(&last), false));
        }
        events.push_back((Bytes::from_static(b"data: [DONE]\n\n"), false));
        Self(events)
    }

    fn next(&mut self) -> Option<(Bytes, bool)> {
        self.0.pop_front()
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

fn word(asked: &Asked, choice: &Choice, token: &str, at: usize, offset: usize) -> Value {
    let tokens = [token.to_owned()];
    match asked.kind {
        Kind::Chat => {
            let logprobs = asked.logprobs.map(|top| answers::chat_logprobs(&tokens, at, top));
            chat(choice, json!({"content": token}), logprobs, None)
        }
        Kind::Completion => {
            let first = choice.echoed.len().saturating_add(at);
            let logprobs = asked.logprobs.map(|top| answers::text_logprobs(&tokens, first, offset, top, false));
            text(choice, token, logprobs, None)
        }
    }
}

fn chat(choice: &Choice, delta: Value, logprobs: Option<Value>, finish: Option<&str>) -> Value {
    json!({"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})
}

fn text(choice: &Choice, text: &str, logprobs: Option<Value>, finish: Option<&str>) -> Value {
    json!({"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": finish})
}

fn merge(object: Value, more: &Value) -> Value {
    match more.get("usage") {
        Some(usage) => answers::with(object, [("usage", usage.clone())]),
        None => object,
    }
}

fn event(payload: &Value) -> Bytes {
    Bytes::from(format!("data: {payload}\n\n"))
}
