//! Requests: every field that the policy knows on a route, each with values of its own.

use anteroom_proto::statement::terms::Features;

use super::json::{Blanks, Json, any, number, shuffle, words, write};
use crate::sim::rng::Rng;

/// A route of the public schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/responses`.
    Responses,
}

/// Fields of every route.
const COMMON: [&str; 3] = ["model", "user", "safety_identifier"];
/// Fields of chat and completions.
const SAMPLED: [&str; 12] = [
    "frequency_penalty",
    "presence_penalty",
    "temperature",
    "top_p",
    "stop",
    "stream_options",
    "stream",
    "logit_bias",
    "n",
    "seed",
    "max_tokens",
    "top_k",
];
/// Fields of chat alone.
const CHAT: [&str; 23] = [
    "messages",
    "tools",
    "functions",
    "web_search_options",
    "tool_choice",
    "function_call",
    "parallel_tool_calls",
    "logprobs",
    "top_logprobs",
    "max_completion_tokens",
    "response_format",
    "reasoning",
    "include_reasoning",
    "modalities",
    "store",
    "metadata",
    "prediction",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "chat_template_kwargs",
];
/// Fields of completions alone.
const COMPLETIONS: [&str; 5] = ["prompt", "suffix", "echo", "best_of", "logprobs"];
/// Fields of embeddings alone.
const EMBEDDINGS: [&str; 3] = ["input", "dimensions", "encoding_format"];
/// Fields of the responses route alone.
const RESPONSES: [&str; 23] = [
    "input",
    "instructions",
    "service_tier",
    "truncation",
    "prompt_cache_key",
    "prompt_cache_retention",
    "metadata",
    "stream_options",
    "temperature",
    "top_p",
    "max_tool_calls",
    "parallel_tool_calls",
    "tool_choice",
    "store",
    "background",
    "stream",
    "tools",
    "top_logprobs",
    "max_output_tokens",
    "text",
    "reasoning",
    "include",
    "previous_response_id",
];
/// Fields that the policy does not know, or knows as harmless in one value alone; the grants of a test name them.
const NAMED: [&str; 9] = [
    "top_k",
    "chat_template_kwargs",
    "previous_response_id",
    "store",
    "background",
    "modalities",
    "input_audio",
    "include.file_search_call.results",
    "item_reference",
];
/// Most answers of a call.
const ANSWERS_MAX: u64 = 3;
/// Most log-probabilities, the chosen token's among them.
const LOGPROBS_MAX: u32 = 6;

/// Which of the two that are never lent together a grant lends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lends {
    /// Log-probabilities.
    Logprobs,
    /// Logit bias.
    Bias,
}

/// What a grant has to lend for every request that is drawn for it.
#[must_use]
pub fn features(lends: Lends) -> Features {
    Features {
        chat: true,
        completions: true,
        embeddings: true,
        responses: true,
        messages: false,
        streaming: true,
        tools: vec!["function".to_owned()],
        images: 4,
        logprobs: if lends == Lends::Logprobs { LOGPROBS_MAX } else { 0 },
        logit_bias: lends == Lends::Bias,
        n: u32::try_from(ANSWERS_MAX).unwrap_or(1),
        seed: true,
        prefill: true,
        reasoning: true,
        response_format: true,
        named_fields: NAMED.map(str::to_owned).to_vec(),
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses];

    /// Its path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
        }
    }

    /// Every field that is drawn for it.
    #[must_use]
    pub fn fields(self) -> Vec<&'static str> {
        let own: &[&[&str]] = match self {
            Self::Chat => &[&SAMPLED, &CHAT],
            Self::Completions => &[&SAMPLED, &COMPLETIONS],
            Self::Embeddings => &[&EMBEDDINGS],
            Self::Responses => &[&RESPONSES],
        };
        COMMON.into_iter().chain(own.iter().flat_map(|fields| fields.iter().copied())).collect()
    }

    const fn asked(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completions => "prompt",
            Self::Embeddings | Self::Responses => "input",
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its route.
    pub kind: Kind,
    /// Its body.
    pub body: String,
    /// Whether it asks for a stream.
    pub stream: bool,
    /// The fields that it has.
    pub fields: Vec<&'static str>,
}

/// Draws a request of a route, unlike every other because it has `name` in it.
#[must_use]
pub fn draw(rng: &mut Rng, kind: Kind, lends: Lends, line: &str, name: &str) -> Request {
    let apart = match lends {
        Lends::Logprobs => &["logit_bias"][..],
        Lends::Bias => &["logprobs", "top_logprobs"][..],
    };
    let mut fields: Vec<&str> = kind.fields();
    fields.retain(|field| {
        let needed = *field == "model" || *field == kind.asked();
        needed || !apart.contains(field) && rng.chance(if *field == "stream" { 75 } else { 35 })
    });
    shuffle(rng, &mut fields);
    let mut stream = false;
    let members = fields.iter().map(|field| {
        let value = match *field {
            "model" => Json::text(line),
            field if field == kind.asked() => asked(rng, kind, name),
            // What needs the signatures of two people is drawn as the nothing that the schema lets it be.
            "web_search_options" => Json::Null,
            _ if rng.chance(8) => Json::Null,
            field => value(rng, kind, lends, field),
        };
        stream |= *field == "stream" && value == Json::Bool(true);
        ((*field).to_owned(), value)
    });
    let object = Json::Object(members.collect());
    Request { kind, body: write(rng, &object, Blanks::Any), stream, fields }
}

fn pick(rng: &mut Rng, from: &[&str]) -> Json {
    Json::text(from[rng.index(from.len())])
}

fn texts(rng: &mut Rng, most: u64) -> Json {
    Json::List((0..=rng.below(most)).map(|_| Json::Text(words(rng, 2))).collect())
}

fn value(rng: &mut Rng, kind: Kind, lends: Lends, field: &str) -> Json {
    match field {
        "user" | "safety_identifier" | "prompt_cache_key" | "suffix" | "instructions" | "previous_response_id" => {
            Json::Text(words(rng, 3))
        }
        "frequency_penalty" | "presence_penalty" | "temperature" | "top_p" | "top_k" | "max_tool_calls"
        | "dimensions" => number(rng, 2),
        "stop" => match rng.below(2) {
            0 => Json::Text(words(rng, 1)),
            _ => texts(rng, 3),
        },
        "stream" => Json::Bool(rng.chance(75)),
        "parallel_tool_calls" | "echo" | "include_reasoning" | "store" | "background" => Json::Bool(rng.chance(50)),
        "logprobs" if kind == Kind::Chat => Json::Bool(rng.chance(50)),
        "logprobs" | "top_logprobs" => Json::whole(rng.below(u64::from(LOGPROBS_MAX))),
        "logit_bias" => {
            let entries = (0..rng.below(4)).map(|place| ((place * 7 + 100).to_string(), number(rng, 5)));
            Json::Object(entries.collect())
        }
        "n" | "best_of" => Json::whole(rng.below(ANSWERS_MAX) + 1),
        "seed" => Json::Number(match rng.below(4) {
            0 => "0".to_owned(),
            1 => i64::MIN.to_string(),
            2 => u64::MAX.to_string(),
            _ => rng.range(-1_000, 1_000).to_string(),
        }),
        "max_tokens" | "max_completion_tokens" | "max_output_tokens" => Json::whole(rng.below(64) + 1),
        "stream_options" => {
            let unknown = any(rng, 1);
            let usage = Json::Bool(rng.chance(50));
            Json::object(rng, vec![("include_usage", usage), ("include_obfuscation", unknown)])
        }
        "metadata" | "chat_template_kwargs" => {
            Json::Object(vec![(words(rng, 1), any(rng, 2)), ("key".to_owned(), any(rng, 1))])
        }
        "prediction" => {
            let content = Json::Text(words(rng, 4));
            Json::object(rng, vec![("type", Json::text("content")), ("content", content)])
        }
        "tools" => Json::List((0..rng.below(3)).map(|_| tool(rng, kind)).collect()),
        "functions" => Json::List((0..rng.below(2)).map(|_| function(rng)).collect()),
        "tool_choice" | "function_call" => match rng.below(3) {
            0 => pick(rng, &["auto", "none", "required"]),
            1 => Json::object(rng, vec![("name", Json::text("look"))]),
            _ => {
                let function = Json::object(rng, vec![("name", Json::text("look"))]);
                Json::object(rng, vec![("type", Json::text("function")), ("function", function)])
            }
        },
        "response_format" => format(rng),
        "text" => {
            let format = format(rng);
            let verbosity = pick(rng, &["low", "high"]);
            Json::object(rng, vec![("format", format), ("verbosity", verbosity)])
        }
        "reasoning" => {
            let effort = pick(rng, &["low", "medium", "high"]);
            let summary = pick(rng, &["auto", "concise"]);
            Json::object(rng, vec![("effort", effort), ("summary", summary)])
        }
        "modalities" => Json::List(if rng.chance(50) {
            vec![Json::text("text")]
        } else {
            vec![Json::text("text"), Json::text("audio")]
        }),
        "include" => {
            let mut all =
                vec!["reasoning.encrypted_content", "message.input_image.image_url", "file_search_call.results"];
            if lends == Lends::Logprobs {
                all.push("message.output_text.logprobs");
            }
            shuffle(rng, &mut all);
            let most = rng.index(all.len() + 1);
            Json::List(all.into_iter().take(most).map(Json::text).collect())
        }
        "reasoning_effort" | "verbosity" => pick(rng, &["low", "medium", "high"]),
        "service_tier" | "truncation" | "prompt_cache_retention" => pick(rng, &["auto", "default", "24h"]),
        "encoding_format" => pick(rng, &["float", "base64"]),
        other => unreachable!("`{other}` is in a table and has no values"),
    }
}

fn function(rng: &mut Rng) -> Json {
    let parameters = Json::object(rng, vec![("type", Json::text("object")), ("properties", Json::Object(Vec::new()))]);
    let described = Json::Text(words(rng, 4));
    Json::object(rng, vec![("name", Json::text("look")), ("description", described), ("parameters", parameters)])
}

fn tool(rng: &mut Rng, kind: Kind) -> Json {
    let strict = Json::Bool(rng.chance(50));
    if kind == Kind::Responses {
        let described = Json::Text(words(rng, 3));
        return Json::object(
            rng,
            vec![
                ("type", Json::text("function")),
                ("name", Json::text("look")),
                ("description", described),
                ("strict", strict),
            ],
        );
    }
    let function = function(rng);
    Json::object(rng, vec![("type", Json::text("function")), ("function", function)])
}

fn format(rng: &mut Rng) -> Json {
    match rng.below(3) {
        0 => Json::object(rng, vec![("type", Json::text("text"))]),
        1 => Json::object(rng, vec![("type", Json::text("json_object"))]),
        _ => {
            let schema = any(rng, 3);
            let schema = Json::object(rng, vec![("name", Json::text("shape")), ("schema", schema)]);
            Json::object(rng, vec![("type", Json::text("json_schema")), ("json_schema", schema)])
        }
    }
}

fn asked(rng: &mut Rng, kind: Kind, name: &str) -> Json {
    let text = format!("{name} {}", words(rng, 5));
    match kind {
        Kind::Chat => {
            let first = message(rng, Json::Text(text));
            Json::List([first].into_iter().chain((0..rng.below(4)).map(|_| turn(rng))).collect())
        }
        Kind::Completions => match rng.below(3) {
            0 => Json::Text(text),
            1 => Json::List(vec![Json::Text(text), Json::Text(words(rng, 3))]),
            _ => Json::List(vec![Json::Text(text), tokens(rng)]),
        },
        Kind::Embeddings => match rng.below(3) {
            0 => Json::Text(text),
            1 => Json::List(vec![Json::Text(text), Json::Text(words(rng, 3))]),
            _ => Json::List(vec![Json::Text(text), tokens(rng), tokens(rng)]),
        },
        Kind::Responses => match rng.below(2) {
            0 => Json::Text(text),
            _ => {
                let first = message(rng, Json::Text(text));
                Json::List([first].into_iter().chain((0..rng.below(4)).map(|_| item(rng))).collect())
            }
        },
    }
}

fn tokens(rng: &mut Rng) -> Json {
    Json::List((0..=rng.below(6)).map(|_| Json::whole(rng.below(50_000))).collect())
}

fn message(rng: &mut Rng, content: Json) -> Json {
    let role = pick(rng, &["user", "system", "developer"]);
    Json::object(rng, vec![("role", role), ("content", content)])
}

/// A message of a chat behind the first.
fn turn(rng: &mut Rng) -> Json {
    match rng.below(5) {
        0 => {
            let content = Json::Text(words(rng, 4));
            let named = Json::text("ada");
            Json::object(rng, vec![("role", Json::text("user")), ("content", content), ("name", named)])
        }
        1 => {
            let parts = Json::List(vec![part(rng, "text"), image(rng), part(rng, "text")]);
            Json::object(rng, vec![("role", Json::text("user")), ("content", parts)])
        }
        2 => {
            let sound = Json::object(rng, vec![("data", Json::text("UklGRg==")), ("format", Json::text("wav"))]);
            let sound = Json::object(rng, vec![("type", Json::text("input_audio")), ("input_audio", sound)]);
            Json::object(rng, vec![("role", Json::text("user")), ("content", Json::List(vec![sound]))])
        }
        3 => {
            let arguments = Json::text(format!("{{\"place\": \"{}\"}}", "字"));
            let function = Json::object(rng, vec![("name", Json::text("look")), ("arguments", arguments)]);
            let call = Json::object(
                rng,
                vec![("id", Json::text("c1")), ("type", Json::text("function")), ("function", function)],
            );
            let thought = Json::Text(words(rng, 3));
            let unknown = any(rng, 2);
            Json::object(
                rng,
                vec![
                    ("role", Json::text("assistant")),
                    ("content", Json::Null),
                    ("tool_calls", Json::List(vec![call])),
                    ("reasoning_content", thought),
                    ("annotations", unknown),
                ],
            )
        }
        _ => {
            let content = Json::Text(words(rng, 4));
            Json::object(
                rng,
                vec![("role", Json::text("tool")), ("tool_call_id", Json::text("c1")), ("content", content)],
            )
        }
    }
}

fn part(rng: &mut Rng, kind: &str) -> Json {
    let text = Json::Text(words(rng, 3));
    Json::object(rng, vec![("type", Json::text(kind)), ("text", text)])
}

fn image(rng: &mut Rng) -> Json {
    let url = Json::object(
        rng,
        vec![("url", Json::text("data:image/png;base64,iVBORw0KGgo=")), ("detail", Json::text("low"))],
    );
    Json::object(rng, vec![("type", Json::text("image_url")), ("image_url", url)])
}

/// An item of the responses route behind the first.
fn item(rng: &mut Rng) -> Json {
    match rng.below(5) {
        0 => {
            let parts = Json::List(vec![part(rng, "input_text")]);
            Json::object(rng, vec![("type", Json::text("message")), ("role", Json::text("user")), ("content", parts)])
        }
        1 => Json::object(
            rng,
            vec![
                ("type", Json::text("function_call")),
                ("call_id", Json::text("c1")),
                ("name", Json::text("look")),
                ("arguments", Json::text("{}")),
            ],
        ),
        2 => {
            let output = Json::Text(words(rng, 3));
            Json::object(
                rng,
                vec![("type", Json::text("function_call_output")), ("call_id", Json::text("c1")), ("output", output)],
            )
        }
        3 => {
            let summary = Json::List(vec![part(rng, "summary_text")]);
            Json::object(rng, vec![("type", Json::text("reasoning")), ("id", Json::text("r1")), ("summary", summary)])
        }
        _ => Json::object(rng, vec![("type", Json::text("item_reference")), ("id", Json::text("i1"))]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The policy's own table.
    const TABLE: &str = include_str!("../../../policy/src/content/body/fields.rs");

    /// The names between quotes in a function of the table.
    fn names(function: &str) -> BTreeSet<&'static str> {
        let start = TABLE.find(&format!("fn {function}(")).unwrap_or_else(|| panic!("the table has no `{function}`"));
        let text = TABLE[start..].split("\n}\n").next().unwrap_or_default();
        text.split('"').skip(1).step_by(2).collect()
    }

    #[test]
    fn every_field_that_the_policy_knows_is_drawn() {
        for (kind, functions) in [
            (Kind::Chat, &["chat", "sampled", "meaning"][..]),
            (Kind::Completions, &["completions", "sampled", "meaning"]),
            (Kind::Embeddings, &["embeddings", "meaning"]),
            (Kind::Responses, &["responses", "meaning"]),
        ] {
            let drawn: BTreeSet<&str> = kind.fields().into_iter().collect();
            let known: BTreeSet<&str> = functions.iter().flat_map(|function| names(function)).collect();
            let missing: Vec<_> = known.difference(&drawn).collect();
            assert!(missing.is_empty(), "{kind:?}: {missing:?} have no values here");
            let unknown: Vec<_> = drawn.difference(&known).filter(|field| !NAMED.contains(field)).collect();
            assert!(unknown.is_empty(), "{kind:?}: {unknown:?} are no fields of the policy's");
        }
    }

    #[test]
    fn what_is_drawn_is_what_the_policy_reads() {
        use anteroom_policy::content::body::{BodyBounds, Route, parse};
        let routes = [Route::Chat, Route::Completions, Route::Embeddings, Route::Responses];
        let named = NAMED.map(str::to_owned);
        for (kind, route) in Kind::ALL.into_iter().zip(routes) {
            let mut seen = BTreeSet::new();
            for seed in 0..400 {
                let mut rng = Rng::new(seed);
                let lends = if seed % 2 == 0 { Lends::Logprobs } else { Lends::Bias };
                let request = draw(&mut rng, kind, lends, "m", &format!("case {seed}"));
                let bounds = BodyBounds { bytes_max: 1 << 20 };
                let body = parse(route, request.body.as_bytes(), &bounds, &named)
                    .unwrap_or_else(|error| panic!("{kind:?} {seed}: {error}: {}", request.body));
                assert_eq!((body.model.as_str(), body.stream), ("m", request.stream), "{}", request.body);
                seen.extend(request.fields);
            }
            assert_eq!(seen, kind.fields().into_iter().collect(), "every field comes");
        }
    }
}
