//! The messages route of the model server: the same words and the same tool's call, in blocks and named events.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Shared, answer, begin, end, piece};

/// The first message's text, whether it stands alone or in a block.
pub(super) fn first(body: &Value) -> Option<&str> {
    let content = body.pointer("/messages/0/content")?;
    content.as_str().or_else(|| content.pointer("/0/text")?.as_str())
}

/// An error as this route tells it.
pub(super) fn error() -> Value {
    json!({"type": "error", "error": {"type": "api_error", "message": "as asked", "code": "made_up"}})
}

fn message(content: &Value, reason: &Value, words: usize) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": reason,
        "stop_sequence": null,
        "usage": {"input_tokens": 2, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": words},
    })
}

pub(super) async fn whole(stream: TcpStream, words: &[String]) -> Option<()> {
    let content = json!([{"type": "text", "text": words.concat()}]);
    answer(stream, "200", &message(&content, &json!("end_turn"), words.len())).await
}

/// A call of a tool with one argument.
pub(super) async fn called(stream: TcpStream, tool: &str) -> Option<()> {
    let content = json!([{"type": "tool_use", "id": "toolu_1", "name": tool, "input": {"place": "here"}}]);
    answer(stream, "200", &message(&content, &json!("tool_use"), 1)).await
}

pub(super) async fn called_in_pieces(mut stream: TcpStream, tool: &str) -> Option<()> {
    begin(&mut stream).await?;
    let block = json!({"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}});
    start(&mut stream, &block).await?;
    for part in ["", "{\"place\":", " \"here\"}"] {
        delta(&mut stream, &json!({"type": "input_json_delta", "partial_json": part})).await?;
    }
    stop(stream, "tool_use", 1).await
}

impl Shared {
    pub(super) async fn message(&self, mut stream: TcpStream, words: Vec<String>) -> Option<()> {
        begin(&mut stream).await?;
        start(&mut stream, &json!({"type": "text", "text": ""})).await?;
        event(&mut stream, &json!({"type": "ping"})).await?;
        for word in &words {
            delta(&mut stream, &json!({"type": "text_delta", "text": word})).await?;
            self.rest(&mut stream).await?;
        }
        stop(stream, "end_turn", words.len()).await
    }
}

async fn start(stream: &mut TcpStream, block: &Value) -> Option<()> {
    let begun = message(&json!([]), &Value::Null, 0);
    event(stream, &json!({"type": "message_start", "message": begun})).await?;
    event(stream, &json!({"type": "content_block_start", "index": 0, "content_block": block})).await
}

async fn delta(stream: &mut TcpStream, delta: &Value) -> Option<()> {
    event(stream, &json!({"type": "content_block_delta", "index": 0, "delta": delta})).await
}

async fn stop(mut stream: TcpStream, reason: &str, words: usize) -> Option<()> {
    event(&mut stream, &json!({"type": "content_block_stop", "index": 0})).await?;
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    event(&mut stream, &json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": words}})).await?;
    event(&mut stream, &json!({"type": "message_stop"})).await?;
    end(stream).await
}

async fn event(stream: &mut TcpStream, data: &Value) -> Option<()> {
    let name = data["type"].as_str().unwrap_or_default();
    piece(stream, &format!("event: {name}\ndata: {data}\n\n")).await
}
