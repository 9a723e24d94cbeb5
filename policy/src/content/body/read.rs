//! From a strictly read object to a [`Body`].

use std::borrow::Cow;

use super::{
    Body, BodyError, Channel, MAX_TOKENS_MAX, Route, TOOLS_MAX, blocks,
    fields::{self, Meaning, Shape},
    gather,
};
use crate::content::strict_json::{Json, Number};

/// Largest number of answers and of log-probabilities that a body may name; terms bound both more tightly.
const COUNT_MAX: u64 = 1024;
/// Longest field name that an error repeats.
const FIELD_CHARS_MAX: usize = 64;

pub(super) fn read<'a>(
    route: Route,
    json: Json<'a>,
    body_bytes: u64,
    named_fields: &[String],
) -> Result<Body<'a>, BodyError> {
    let Json::Object(members) = json else { return Err(BodyError::WrongType("body".to_owned())) };
    let mut reader = Reader { body: empty(route, body_bytes), named_fields, model: None, prompt: false, bias: false };
    for (name, value) in members {
        reader.field(&name, value)?;
    }
    reader.finish()
}

fn empty<'a>(route: Route, body_bytes: u64) -> Body<'a> {
    Body {
        route,
        model: String::new(),
        stream: false,
        tools: Vec::new(),
        images: 0,
        logprobs: 0,
        logit_bias: false,
        n: 1,
        prompts: 1,
        seed: false,
        prefill: false,
        reasoning: false,
        response_format: "text",
        max_tokens: None,
        messages: 0,
        token_prompt: false,
        body_bytes,
        named_fields: Vec::new(),
        texts: Vec::new(),
    }
}

/// Evaluation tools take an error with one of these for an answer of the model's.
const SCORED: [&str; 3] = ["blocked", "safety", "policy"];

/// A field name as an error may show it: printable ASCII, cut.
pub(super) fn shown(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_graphic() && c != '`' { c } else { '?' });
    let plain: String = plain.take(FIELD_CHARS_MAX).collect();
    let lower = plain.to_ascii_lowercase();
    if SCORED.iter().any(|word| lower.contains(word)) { "?".to_owned() } else { plain }
}

fn wrong(name: &str) -> BodyError {
    BodyError::WrongType(shown(name))
}

struct Reader<'a, 'n> {
    body: Body<'a>,
    named_fields: &'n [String],
    model: Option<String>,
    prompt: bool,
    bias: bool,
}

impl<'a> Reader<'a, '_> {
    fn field(&mut self, name: &str, value: Json<'a>) -> Result<(), BodyError> {
        let Some(meaning) = fields::meaning(self.body.route, name) else {
            self.named(name)?;
            gather::strings(&mut self.body.texts, Channel::Other, value);
            return Ok(());
        };
        if matches!(value, Json::Null) {
            // The schema lets optional fields be null; the others are missing then.
            return Ok(());
        }
        match meaning {
            Meaning::Plain(shape) => {
                if !fits(shape, &value) {
                    return Err(wrong(name));
                }
            }
            Meaning::OnlyFalse => {
                if flag(name, &value)? {
                    self.named(name)?;
                }
            }
            Meaning::OnlyText => {
                let Json::List(list) = &value else { return Err(wrong(name)) };
                if list.iter().any(|entry| entry.as_text().is_none_or(|text| text != "text")) {
                    self.named(name)?;
                }
            }
            Meaning::Model => {
                let text = value.as_text().ok_or_else(|| wrong(name))?;
                self.model = Some(text.clone().into_owned());
            }
            Meaning::Messages => {
                self.prompt = true;
                return gather::messages(&mut self.body, self.named_fields, value);
            }
            Meaning::Items => {
                self.prompt = true;
                return gather::items(&mut self.body, self.named_fields, value);
            }
            Meaning::Turns => {
                self.prompt = true;
                return blocks::turns(&mut self.body, self.named_fields, value);
            }
            Meaning::System => return blocks::system(&mut self.body, self.named_fields, value),
            Meaning::Prompt => {
                self.prompt = true;
                return gather::prompt(&mut self.body, name, value);
            }
            Meaning::Stream => self.body.stream = flag(name, &value)?,
            Meaning::Tools => self.tools(name, &value)?,
            Meaning::BlockTools => self.block_tools(name, &value)?,
            Meaning::Functions => {
                let Json::List(list) = &value else { return Err(wrong(name)) };
                if !list.is_empty() {
                    self.tool_kind("function");
                }
            }
            Meaning::WebSearch => {
                if !fits(Shape::Object, &value) {
                    return Err(wrong(name));
                }
                self.tool_kind("web_search");
            }
            Meaning::Logprobs => {
                if flag(name, &value)? {
                    self.body.logprobs = self.body.logprobs.max(1);
                }
            }
            Meaning::TopLogprobs => {
                let count = small(name, &value)?;
                // On the completions route 0 still asks for the chosen token's.
                if count > 0 || self.body.route == Route::Completions {
                    self.body.logprobs = self.body.logprobs.max(count.saturating_add(1));
                }
            }
            Meaning::LogitBias => {
                let Json::Object(members) = &value else { return Err(wrong(name)) };
                if members.iter().any(|(_, bias)| !fits(Shape::Number, bias)) {
                    return Err(wrong(name));
                }
                self.bias = true;
                self.body.logit_bias = !members.is_empty();
            }
            Meaning::N => {
                let count = small(name, &value)?;
                if count == 0 {
                    return Err(BodyError::NumberOutOfRange(shown(name)));
                }
                self.body.n = self.body.n.max(count);
            }
            Meaning::Seed => match value {
                Json::Number(Number::Unsigned(_) | Number::Negative(_)) => self.body.seed = true,
                Json::Number(Number::Float(_)) => return Err(BodyError::NumberOutOfRange(shown(name))),
                Json::Null | Json::Bool(_) | Json::Text(_) | Json::List(_) | Json::Object(_) => {
                    return Err(wrong(name));
                }
            },
            Meaning::ResponseFormat => self.format(name, &value)?,
            Meaning::TextFormat => {
                if !fits(Shape::Object, &value) {
                    return Err(wrong(name));
                }
                if let Some(format) = value.member("format").filter(|format| !matches!(format, Json::Null)) {
                    self.format(name, format)?;
                }
            }
            Meaning::MaxTokens => {
                let count = whole(name, &value, MAX_TOKENS_MAX)?;
                self.body.max_tokens = Some(self.body.max_tokens.map_or(count, |other| other.max(count)));
            }
            Meaning::Reasoning => self.reasoning(name, &value)?,
            Meaning::IncludeReasoning => self.body.reasoning |= flag(name, &value)?,
            Meaning::Thinking => self.thinking(name, &value)?,
            Meaning::OutputConfig => self.output_config(name, &value)?,
            Meaning::Include => self.include(name, &value)?,
        }
        gather::strings(&mut self.body.texts, Channel::Other, value);
        Ok(())
    }

    /// Lets an unknown field, or an unusual use of a known one, pass if the grant names it.
    fn named(&mut self, name: &str) -> Result<(), BodyError> {
        gather::named(&mut self.body, self.named_fields, name)
    }

    fn tool_kind(&mut self, kind: &str) {
        if let Err(place) = self.body.tools.binary_search_by(|other| other.as_str().cmp(kind)) {
            self.body.tools.insert(place, kind.to_owned());
        }
    }

    fn tools(&mut self, name: &str, value: &Json<'a>) -> Result<(), BodyError> {
        let Json::List(list) = value else { return Err(wrong(name)) };
        if list.len() > TOOLS_MAX {
            return Err(BodyError::NumberOutOfRange(shown(name)));
        }
        for tool in list {
            let kind = tool.member("type").and_then(Json::as_text).ok_or_else(|| wrong(name))?;
            self.plain_kind(name, kind)?;
        }
        Ok(())
    }

    /// A tool of the messages route: `custom`, which is also meant where no kind is given, is what other routes call a function;
    /// the others go by their name without the date behind it, so that terms name them once.
    fn block_tools(&mut self, name: &str, value: &Json<'a>) -> Result<(), BodyError> {
        let Json::List(list) = value else { return Err(wrong(name)) };
        if list.len() > TOOLS_MAX {
            return Err(BodyError::NumberOutOfRange(shown(name)));
        }
        for tool in list {
            if !fits(Shape::Object, tool) {
                return Err(wrong(name));
            }
            match tool.member("type") {
                None | Some(Json::Null) => self.tool_kind("function"),
                Some(Json::Text(kind)) if kind == "custom" => self.tool_kind("function"),
                Some(Json::Text(kind)) => self.plain_kind(name, undated(kind))?,
                Some(Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_)) => return Err(wrong(name)),
            }
        }
        Ok(())
    }

    /// A kind that can stand in facts.
    fn plain_kind(&mut self, name: &str, kind: &str) -> Result<(), BodyError> {
        let plain = kind.bytes().all(|b| b.is_ascii_graphic());
        if kind.is_empty() || kind.len() > FIELD_CHARS_MAX || !plain {
            return Err(wrong(name));
        }
        self.tool_kind(kind);
        Ok(())
    }

    fn format(&mut self, name: &str, value: &Json<'a>) -> Result<(), BodyError> {
        let kind = value.member("type").and_then(Json::as_text).ok_or_else(|| wrong(name))?;
        self.body.response_format = ["text", "json_object", "json_schema"]
            .into_iter()
            .find(|known| known == kind)
            .ok_or_else(|| wrong(name))?;
        Ok(())
    }

    /// How hard to think is harmless; a summary, or anything this table does not know, shows reasoning.
    fn reasoning(&mut self, name: &str, value: &Json<'a>) -> Result<(), BodyError> {
        let Json::Object(members) = value else { return Err(wrong(name)) };
        let hidden = |key: &Cow<'_, str>, value: &Json<'_>| {
            matches!(value, Json::Null)
                || key == "effort"
                || key == "max_tokens"
                || (key == "exclude" && *value == Json::Bool(true))
        };
        self.body.reasoning |= members.iter().any(|(key, value)| !hidden(key, value));
        Ok(())
    }

    /// Thinking that is off, or left out of the answer, shows none; what a model shows by itself is its own affair.
    fn thinking(&mut self, name: &str, value: &Json<'a>) -> Result<(), BodyError> {
        let kind = value.member("type").and_then(Json::as_text).ok_or_else(|| wrong(name))?;
        let omitted = value.member("display").and_then(Json::as_text).is_some_and(|display| display == "omitted");
        self.body.reasoning |= kind != "disabled" && !omitted;
        Ok(())
    }

    fn output_config(&mut self, name: &str, value: &Json<'a>) -> Result<(), BodyError> {
        let Json::Object(members) = value else { return Err(wrong(name)) };
        for (key, member) in members {
            match (key.as_ref(), member) {
                (_, Json::Null) | ("effort", Json::Text(_)) => {}
                ("effort", _) => return Err(wrong(name)),
                ("format", _) => self.format(name, member)?,
                (other, _) => self.named(&format!("{name}.{other}"))?,
            }
        }
        Ok(())
    }

    fn include(&mut self, name: &str, value: &Json<'a>) -> Result<(), BodyError> {
        let Json::List(list) = value else { return Err(wrong(name)) };
        for entry in list {
            match entry.as_text().ok_or_else(|| wrong(name))?.as_ref() {
                "reasoning.encrypted_content" => self.body.reasoning = true,
                "message.output_text.logprobs" => self.body.logprobs = self.body.logprobs.max(1),
                "message.input_image.image_url" => {}
                other => {
                    let text = format!("include.{other}");
                    self.named(&text)?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Body<'a>, BodyError> {
        self.body.model = self.model.ok_or(BodyError::MissingField("model"))?;
        if !self.prompt {
            return Err(BodyError::MissingField(match self.body.route {
                Route::Chat | Route::Messages => "messages",
                Route::Completions => "prompt",
                Route::Embeddings | Route::Responses => "input",
            }));
        }
        if self.body.route == Route::Messages && self.body.max_tokens.is_none() {
            return Err(BodyError::MissingField("max_tokens"));
        }
        if self.bias && self.body.logprobs > 0 {
            return Err(BodyError::BiasWithLogprobs);
        }
        self.body.named_fields.sort();
        self.body.named_fields.dedup();
        Ok(self.body)
    }
}

fn fits(shape: Shape, value: &Json<'_>) -> bool {
    match value {
        Json::Null => true,
        Json::Bool(_) => shape == Shape::Bool,
        Json::Number(_) => shape == Shape::Number,
        Json::Text(_) => matches!(shape, Shape::Text | Shape::TextOrList | Shape::TextOrObject),
        Json::List(_) => matches!(shape, Shape::List | Shape::TextOrList),
        Json::Object(_) => matches!(shape, Shape::Object | Shape::TextOrObject),
    }
}

/// A tool's kind without the date that its version is known by: `web_search_20250305` is `web_search`.
fn undated(kind: &str) -> &str {
    match kind.rsplit_once('_') {
        Some((family, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => family,
        _ => kind,
    }
}

fn flag(name: &str, value: &Json<'_>) -> Result<bool, BodyError> {
    match value {
        Json::Bool(flag) => Ok(*flag),
        Json::Null | Json::Number(_) | Json::Text(_) | Json::List(_) | Json::Object(_) => Err(wrong(name)),
    }
}

/// A whole number from 0 to `max`.
fn whole(name: &str, value: &Json<'_>, max: u64) -> Result<u64, BodyError> {
    let range = || BodyError::NumberOutOfRange(shown(name));
    match value {
        Json::Number(Number::Unsigned(number)) if *number <= max => Ok(*number),
        Json::Number(Number::Unsigned(_) | Number::Negative(_)) => Err(range()),
        // Whole numbers beyond 64 bits arrive as floats.
        Json::Number(Number::Float(number)) if *number < 0.0 || number.fract() == 0.0 => Err(range()),
        Json::Number(Number::Float(_))
        | Json::Null
        | Json::Bool(_)
        | Json::Text(_)
        | Json::List(_)
        | Json::Object(_) => Err(wrong(name)),
    }
}

fn small(name: &str, value: &Json<'_>) -> Result<u32, BodyError> {
    let number = whole(name, value, COUNT_MAX)?;
    u32::try_from(number).map_err(|_| BodyError::NumberOutOfRange(shown(name)))
}
