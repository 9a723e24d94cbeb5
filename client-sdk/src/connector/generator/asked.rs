//! What a request to the generator asks for, parsed once; everything it does not use it ignores.
//!
//! **Invariant:** what is parsed is bounded: answers, words, prompts and names.

use http::StatusCode;
use serde_json::{Value, json};

use super::prose;
use super::{MODEL, SYSTEM_FINGERPRINT};

/// The longest answer in words, whatever a request asks for.
pub(super) const WORDS_MAX: u64 = 4096;
/// The most answers to one request, over all its prompts.
const ANSWERS_MAX: usize = 128;
/// The most words of all answers to one request that sets a limit.
const WORDS_TOGETHER_MAX: u64 = 1 << 14;
/// The most alternatives beside a token.
const TOP_MAX: u64 = 20;
const MODEL_BYTES_MAX: usize = 256;

/// Which dialect the answer is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A conversation; the messages route writes its answer down in its own way.
    Chat,
    Completion,
}

/// A request for text.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) model: String,
    /// The words of each prompt; chat has one prompt.
    pub(super) prompts: Vec<Vec<String>>,
    /// Answers to each prompt.
    pub(super) n: usize,
    pub(super) words_max: Option<u64>,
    pub(super) seed: Option<u64>,
    pub(super) stop: Vec<String>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// `Some` if log probabilities are asked for: how many alternatives beside each.
    pub(super) logprobs: Option<usize>,
    /// Give the prompt back in front of the answer.
    pub(super) echo: bool,
}

impl Asked {
    /// Reads a body of `/v1/chat/completions`.
    pub(super) fn chat(body: &Value) -> Result<Self, Bad> {
        let messages = match body.get("messages").map(Value::as_array) {
            Some(Some(messages)) if !messages.is_empty() => messages,
            _ => {
                return Err(Bad::field("messages", "has to be a list with a message in it"));
            }
        };
        let mut words = Vec::new();
        for message in messages {
            if message.get("role").and_then(Value::as_str).is_none() {
                return Err(Bad::field("messages", "holds a message without a role"));
            }
            words.extend(message_words(message));
        }
        let asks_logprobs = flag(body, "logprobs")?;
        let top = number(body, "top_logprobs", 0, TOP_MAX)?;
        let logprobs = asks_logprobs.then(|| small(top.unwrap_or(0)));
        let longest = match number(body, "max_completion_tokens", 1, u64::MAX)? {
            Some(longest) => Some(longest),
            None => number(body, "max_tokens", 1, u64::MAX)?,
        };
        Self::new(Kind::Chat, body, vec![words], longest, logprobs)
    }

    /// Reads a body of `/v1/messages`.
    pub(super) fn messages(body: &Value) -> Result<Self, Bad> {
        let Some(longest) = number(body, "max_tokens", 1, u64::MAX)? else {
            return Err(Bad::field("max_tokens", "is missing"));
        };
        let mut plain = body.as_object().cloned().unwrap_or_default();
        // What these mean to chat, they do not mean here.
        for chats in ["logprobs", "top_logprobs", "max_completion_tokens", "n", "seed", "stream_options", "stop"] {
            plain.remove(chats);
        }
        if let Some(stops) = plain.remove("stop_sequences") {
            plain.insert("stop".to_owned(), stops);
        }
        let mut asked = Self::chat(&Value::Object(plain))?;
        asked.words_max = Some(longest.min(WORDS_MAX));
        if let (Some(system), Some(prompt)) = (body.get("system"), asked.prompts.first_mut()) {
            prompt.splice(0..0, message_words(&json!({"content": system})));
        }
        Ok(asked)
    }

    /// Reads a body of `/v1/completions`.
    pub(super) fn completion(body: &Value) -> Result<Self, Bad> {
        let prompts = texts(body.get("prompt"), "prompt")?;
        let logprobs = number(body, "logprobs", 0, TOP_MAX)?.map(small);
        let longest = number(body, "max_tokens", 0, u64::MAX)?.or(Some(16));
        Self::new(Kind::Completion, body, prompts, longest, logprobs)
    }

    fn new(
        kind: Kind,
        body: &Value,
        prompts: Vec<Vec<String>>,
        longest: Option<u64>,
        logprobs: Option<usize>,
    ) -> Result<Self, Bad> {
        let n = small(number(body, "n", 1, 16)?.unwrap_or(1));
        let answers = prompts.len().saturating_mul(n);
        if answers > ANSWERS_MAX {
            return Err(Bad::field("n", "asks for more than 128 answers over all prompts"));
        }
        let share = WORDS_TOGETHER_MAX.checked_div(u64::try_from(answers).unwrap_or(u64::MAX));
        let words_each = share.unwrap_or(WORDS_MAX).min(WORDS_MAX);
        let include_usage = match body.get("stream_options") {
            None | Some(Value::Null) => false,
            Some(options) => flag(options, "include_usage")?,
        };
        Ok(Self {
            kind,
            model: model(body)?,
            prompts,
            n,
            words_max: longest.map(|words| words.min(words_each)),
            seed: seed(body)?,
            stop: stops(body)?,
            stream: flag(body, "stream")?,
            include_usage,
            logprobs,
            echo: kind == Kind::Completion && flag(body, "echo")?,
        })
    }

    /// What every body and every chunk of the answer starts with.
    pub(super) fn head(&self, object: &str) -> Value {
        let prefix = match self.kind {
            Kind::Chat => "chatcmpl",
            Kind::Completion => "cmpl",
        };
        let id = self.prompts.iter().fold(self.seed.unwrap_or(0), |id, prompt| prose::hash(id, prompt));
        json!({
            "id": format!("{prefix}-{id:016x}"),
            "object": object,
            "created": super::answers::CREATED,
            "model": self.model,
            "system_fingerprint": SYSTEM_FINGERPRINT,
        })
    }
}

/// A request the generator cannot read.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) status: StatusCode,
    field: Option<&'static str>,
    message: &'static str,
}

impl Bad {
    pub(super) fn new(status: StatusCode, field: Option<&'static str>, message: &'static str) -> Self {
        Self { status, field, message }
    }

    pub(super) fn field(field: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Some(field), message)
    }

    fn text(&self) -> String {
        match self.field {
            Some(field) => format!("`{field}` {}", self.message),
            None => self.message.to_owned(),
        }
    }

    /// The body in the shape that clients of the messages route expect.
    pub(super) fn message(&self) -> Value {
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": self.text()}})
    }

    /// The body in the shape clients expect.
    pub(super) fn body(&self) -> Value {
        json!({"error": {
            "message": self.text(),
            "type": "invalid_request_error",
            "param": self.field,
            "code": null,
        }})
    }
}

/// The model a request names, or the generator's own.
pub(super) fn model(body: &Value) -> Result<String, Bad> {
    match body.get("model") {
        None | Some(Value::Null) => Ok(MODEL.to_owned()),
        Some(Value::String(name)) if name.len() <= MODEL_BYTES_MAX => Ok(name.clone()),
        Some(_) => Err(Bad::field("model", "has to be a name of at most 256 bytes")),
    }
}

/// One text or many, each as a string or as a list of token numbers, as lists of words.
pub(super) fn texts(value: Option<&Value>, field: &'static str) -> Result<Vec<Vec<String>>, Bad> {
    let bad = || Bad::field(field, "has to be a text, a list of token numbers, or a list of either");
    match value {
        Some(Value::String(text)) => Ok(vec![words(text)]),
        Some(Value::Array(items)) if !items.is_empty() => {
            if items.len() <= ANSWERS_MAX && !items.iter().any(Value::is_number) {
                return items.iter().map(|item| one_text(item).ok_or_else(bad)).collect();
            }
            tokens(items).map(|words| vec![words]).ok_or_else(bad)
        }
        _ => Err(bad()),
    }
}

fn one_text(item: &Value) -> Option<Vec<String>> {
    match item.as_array() {
        Some(items) => tokens(items),
        None => item.as_str().map(words),
    }
}

/// A token number stands for a word of the corpus, so that counts come out as the client expects.
fn tokens(items: &[Value]) -> Option<Vec<String>> {
    items.iter().map(|item| Some(prose::word(item.as_u64()?).to_owned())).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn message_words(message: &Value) -> Vec<String> {
    match message.get("content") {
        Some(Value::String(text)) => words(text),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.flat_map(words).collect()
        }
        _ => Vec::new(),
    }
}

fn flag(body: &Value, field: &'static str) -> Result<bool, Bad> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Bad::field(field, "has to be true or false")),
    }
}

pub(super) fn number(body: &Value, field: &'static str, least: u64, most: u64) -> Result<Option<u64>, Bad> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Bad::field(field, "is not a number this server can work with")),
        },
    }
}

/// Seeds are signed in the dialect; the bits are all that matters.
fn seed(body: &Value) -> Result<Option<u64>, Bad> {
    match body.get("seed") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64().map(i64::cast_unsigned).or(value.as_u64()) {
            Some(seed) => Ok(Some(seed)),
            None => Err(Bad::field("seed", "has to be a whole number")),
        },
    }
}

fn stops(body: &Value) -> Result<Vec<String>, Bad> {
    let bad = || Bad::field("stop", "has to be a text or a list of at most 16 texts");
    let texts = match body.get("stop") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) if items.len() <= 16 => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().ok_or_else(bad)?
        }
        Some(_) => return Err(bad()),
    };
    Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
}

fn small(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
