//! Texts of a body, and what its conversation says about the call.

use std::borrow::Cow;

use super::{Body, BodyError, Channel, Text, read::shown};
use crate::content::strict_json::Json;

/// Notes the use of a field that the grant names.
///
/// # Errors
/// The grant does not name it.
pub(super) fn named(body: &mut Body<'_>, named_fields: &[String], name: &str) -> Result<(), BodyError> {
    if !named_fields.iter().any(|named| named == name) {
        return Err(BodyError::UnknownField(shown(name)));
    }
    if !body.named_fields.iter().any(|used| used == name) {
        body.named_fields.push(name.to_owned());
    }
    Ok(())
}

/// Every string in `value`, the names of its members among them.
pub(super) fn strings<'a>(texts: &mut Vec<Text<'a>>, channel: Channel, value: Json<'a>) {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
        Json::Text(text) => push(texts, channel, false, text),
        Json::List(list) => {
            for entry in list {
                strings(texts, channel, entry);
            }
        }
        Json::Object(members) => {
            for (name, member) in members {
                push_name(texts, name);
                strings(texts, channel, member);
            }
        }
    }
}

pub(super) fn push<'a>(texts: &mut Vec<Text<'a>>, channel: Channel, continues: bool, text: Cow<'a, str>) {
    if !text.is_empty() {
        texts.push(Text { channel, continues, text });
    }
}

/// Names such as `role` are in every message and shorter than any pattern that stops a call.
pub(super) fn push_name<'a>(texts: &mut Vec<Text<'a>>, name: Cow<'a, str>) {
    if name.len() > 4 {
        push(texts, Channel::Other, false, name);
    }
}

/// The conversation of the chat route.
pub(super) fn messages<'a>(body: &mut Body<'a>, named: &[String], value: Json<'a>) -> Result<(), BodyError> {
    let Json::List(list) = value else { return Err(BodyError::WrongType("messages".to_owned())) };
    if list.is_empty() {
        return Err(BodyError::MissingField("messages"));
    }
    for message in list {
        let Json::Object(members) = message else { return Err(BodyError::WrongType("messages".to_owned())) };
        let role = members.iter().find(|(name, _)| name == "role").and_then(|(_, role)| role.as_text());
        let role = role.ok_or(BodyError::WrongType("messages.role".to_owned()))?.clone();
        body.messages = body.messages.saturating_add(1);
        body.prefill = role == "assistant";
        message_members(body, named, &role, members)?;
    }
    Ok(())
}

fn message_members<'a>(
    body: &mut Body<'a>,
    named: &[String],
    role: &str,
    members: Vec<(Cow<'a, str>, Json<'a>)>,
) -> Result<(), BodyError> {
    for (name, value) in members {
        match name.as_ref() {
            "content" => {
                let channel = if matches!(role, "tool" | "function") { Channel::ToolResult } else { Channel::Message };
                content(body, named, channel, value)?;
            }
            "refusal" => strings(&mut body.texts, Channel::Message, value),
            "reasoning" | "reasoning_content" | "reasoning_details" => {
                strings(&mut body.texts, Channel::Reasoning, value);
            }
            "tool_calls" | "function_call" => strings(&mut body.texts, Channel::ToolArguments, value),
            "role" | "name" | "tool_call_id" => strings(&mut body.texts, Channel::Other, value),
            _ => {
                push_name(&mut body.texts, name);
                strings(&mut body.texts, Channel::Other, value);
            }
        }
    }
    Ok(())
}

/// A message's content: nothing, text, or parts.
fn content<'a>(body: &mut Body<'a>, named: &[String], channel: Channel, value: Json<'a>) -> Result<(), BodyError> {
    let wrong = || BodyError::WrongType("messages.content".to_owned());
    match value {
        Json::Null => Ok(()),
        Json::Text(text) => {
            push(&mut body.texts, channel, false, text);
            Ok(())
        }
        Json::List(parts) => {
            let mut continues = false;
            for part in parts {
                continues = self::part(body, named, channel, continues, part)?;
            }
            Ok(())
        }
        Json::Bool(_) | Json::Number(_) | Json::Object(_) => Err(wrong()),
    }
}

/// One part of a message; answers whether text came, which the next part's text goes on from.
fn part<'a>(
    body: &mut Body<'a>,
    named_fields: &[String],
    channel: Channel,
    continues: bool,
    part: Json<'a>,
) -> Result<bool, BodyError> {
    let wrong = || BodyError::WrongType("messages.content".to_owned());
    let kind = match part.member("type").and_then(Json::as_text) {
        Some(kind) => kind.clone(),
        None => return Err(wrong()),
    };
    match kind.as_ref() {
        "text" | "input_text" | "output_text" | "refusal" | "summary_text" | "reasoning_text" => {}
        "image_url" | "input_image" => body.images = body.images.saturating_add(1),
        other => named(body, named_fields, other)?,
    }
    let Json::Object(members) = part else { return Err(wrong()) };
    let mut texts = continues;
    for (name, value) in members {
        match (name.as_ref(), value) {
            ("type", _) => {}
            ("text" | "refusal", Json::Text(text)) => {
                push(&mut body.texts, channel, texts, text);
                texts = true;
            }
            ("text" | "refusal", _) => return Err(wrong()),
            (_, value) => {
                push_name(&mut body.texts, name);
                strings(&mut body.texts, channel, value);
                texts = false;
            }
        }
    }
    Ok(texts)
}

/// Text, texts, token numbers, or lists of those.
pub(super) fn prompt<'a>(body: &mut Body<'a>, name: &str, value: Json<'a>) -> Result<(), BodyError> {
    let wrong = || BodyError::WrongType(shown(name));
    let list = match value {
        Json::Text(text) => {
            body.messages = 1;
            push(&mut body.texts, Channel::Message, false, text);
            return Ok(());
        }
        Json::List(list) => list,
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => return Err(wrong()),
    };
    if list.is_empty() {
        return Err(wrong());
    }
    if list.iter().all(|entry| entry.as_unsigned().is_some()) {
        body.messages = 1;
        body.token_prompt = true;
        return Ok(());
    }
    body.prompts = u32::try_from(list.len()).map_err(|_| wrong())?;
    body.messages = u64::from(body.prompts);
    for entry in list {
        match entry {
            Json::Text(text) => push(&mut body.texts, Channel::Message, false, text),
            Json::List(tokens) if tokens.iter().all(|token| token.as_unsigned().is_some()) => body.token_prompt = true,
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => return Err(wrong()),
        }
    }
    Ok(())
}

/// The conversation of the responses route.
pub(super) fn items<'a>(body: &mut Body<'a>, named_fields: &[String], value: Json<'a>) -> Result<(), BodyError> {
    let wrong = || BodyError::WrongType("input".to_owned());
    let list = match value {
        Json::Text(text) => {
            body.messages = 1;
            push(&mut body.texts, Channel::Message, false, text);
            return Ok(());
        }
        Json::List(list) => list,
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => return Err(wrong()),
    };
    if list.is_empty() {
        return Err(BodyError::MissingField("input"));
    }
    for item in list {
        let kind = item.member("type").and_then(Json::as_text).map_or(Cow::Borrowed("message"), Cow::clone);
        let role = item.member("role").and_then(Json::as_text).map_or(Cow::Borrowed(""), Cow::clone);
        let Json::Object(members) = item else { return Err(wrong()) };
        body.messages = body.messages.saturating_add(1);
        body.prefill = kind == "message" && role == "assistant";
        let channel = match kind.as_ref() {
            "message" if role.is_empty() => return Err(BodyError::WrongType("input.role".to_owned())),
            "message" => {
                message_members(body, named_fields, &role, members)?;
                continue;
            }
            "function_call" | "custom_tool_call" => Channel::ToolArguments,
            "function_call_output" | "custom_tool_call_output" => Channel::ToolResult,
            "reasoning" => Channel::Reasoning,
            // An item may refer to what a server keeps, or start a tool of the server's.
            other => {
                named(body, named_fields, other)?;
                Channel::Other
            }
        };
        strings(&mut body.texts, channel, Json::Object(members));
    }
    Ok(())
}
