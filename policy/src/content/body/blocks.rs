//! Texts of the messages route: a system prompt, and turns that are texts or lists of blocks.
//!
//! **Invariant:** a block of a kind that is not told apart here passes only if the grant names it, and so does one that refers to
//! what a server keeps or fetches in place of what the caller sends.

use std::borrow::Cow;

use super::{
    Body, BodyError, Channel,
    gather::{self, named, push, push_name},
};
use crate::content::strict_json::Json;

/// Where a turn's content stands, for errors.
const CONTENT: &str = "messages.content";

/// The system prompt: a text or blocks.
pub(super) fn system<'a>(body: &mut Body<'a>, named: &[String], value: Json<'a>) -> Result<(), BodyError> {
    content(body, named, "system", Channel::Message, value)
}

/// The conversation.
pub(super) fn turns<'a>(body: &mut Body<'a>, named: &[String], value: Json<'a>) -> Result<(), BodyError> {
    let wrong = || BodyError::WrongType("messages".to_owned());
    let Json::List(list) = value else { return Err(wrong()) };
    if list.is_empty() {
        return Err(BodyError::MissingField("messages"));
    }
    for turn in list {
        let Json::Object(members) = turn else { return Err(wrong()) };
        let role = members.iter().find(|(name, _)| name == "role").and_then(|(_, role)| role.as_text());
        let role = role.ok_or(BodyError::WrongType("messages.role".to_owned()))?;
        body.messages = body.messages.saturating_add(1);
        body.prefill = role == "assistant";
        for (name, value) in members {
            if name == "content" {
                content(body, named, CONTENT, Channel::Message, value)?;
            } else {
                push_name(&mut body.texts, name);
                gather::strings(&mut body.texts, Channel::Other, value);
            }
        }
    }
    Ok(())
}

/// Nothing, a text, or blocks.
fn content<'a>(
    body: &mut Body<'a>,
    named: &[String],
    field: &'static str,
    channel: Channel,
    value: Json<'a>,
) -> Result<(), BodyError> {
    match value {
        Json::Null => Ok(()),
        Json::Text(text) => {
            push(&mut body.texts, channel, false, text);
            Ok(())
        }
        Json::List(blocks) => {
            let mut continues = false;
            for block in blocks {
                continues = self::block(body, named, field, channel, continues, block)?;
            }
            Ok(())
        }
        Json::Bool(_) | Json::Number(_) | Json::Object(_) => Err(BodyError::WrongType(field.to_owned())),
    }
}

/// One block; answers whether it was text, which the next block's text goes on from.
fn block<'a>(
    body: &mut Body<'a>,
    named_fields: &[String],
    field: &'static str,
    around: Channel,
    continues: bool,
    block: Json<'a>,
) -> Result<bool, BodyError> {
    let wrong = || BodyError::WrongType(field.to_owned());
    let kind = block.member("type").and_then(Json::as_text).ok_or_else(wrong)?.clone();
    let channel = match kind.as_ref() {
        "text" | "tool_reference" => around,
        "image" => {
            body.images = body.images.saturating_add(1);
            source(body, named_fields, field, "image", &["base64", "url"], &block)?;
            around
        }
        // What is not text in a document is read by no scanner.
        "document" => {
            source(body, named_fields, field, "document", &["text", "content"], &block)?;
            around
        }
        "thinking" | "redacted_thinking" => Channel::Reasoning,
        "tool_use" => Channel::ToolArguments,
        "tool_result" | "search_result" => Channel::ToolResult,
        // A tool of the server's, and what it found.
        other => {
            named(body, named_fields, other)?;
            Channel::Other
        }
    };
    let Json::Object(members) = block else { return Err(wrong()) };
    let is_text = kind == "text";
    let mut texts = continues && is_text;
    for (name, value) in members {
        match (name.as_ref(), value) {
            ("type", _) => {}
            ("text", Json::Text(text)) if is_text => {
                push(&mut body.texts, channel, texts, text);
                texts = true;
            }
            ("text", _) if is_text => return Err(wrong()),
            ("content", value) if matches!(kind.as_ref(), "tool_result" | "search_result") => {
                content(body, named_fields, field, channel, value)?;
            }
            ("source", Json::Object(members)) if kind == "document" => {
                for (name, value) in members {
                    if name == "content" {
                        content(body, named_fields, field, channel, value)?;
                    } else {
                        push_name(&mut body.texts, name);
                        gather::strings(&mut body.texts, channel, value);
                    }
                }
            }
            (_, value) => {
                push_name(&mut body.texts, name);
                gather::strings(&mut body.texts, channel, value);
            }
        }
    }
    Ok(is_text && texts)
}

/// Where a block has its content from. What is not among `plain` has to be named by the grant as `image.file` and the like.
fn source(
    body: &mut Body<'_>,
    named_fields: &[String],
    field: &'static str,
    block: &str,
    plain: &[&str],
    value: &Json<'_>,
) -> Result<(), BodyError> {
    let kind = value.member("source").and_then(|source| source.member("type")).and_then(Json::as_text);
    let kind: &Cow<'_, str> = kind.ok_or_else(|| BodyError::WrongType(field.to_owned()))?;
    if plain.contains(&kind.as_ref()) {
        return Ok(());
    }
    named(body, named_fields, &format!("{block}.{kind}"))
}
