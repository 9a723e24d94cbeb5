//! Answers: whole bodies and event streams, written and cut into pieces oddly.

use super::{
    json::{Blanks, Json, any, number, shuffle, words, write},
    requests::Kind,
};
use crate::sim::rng::Rng;

/// An answer as a server sends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether they are events.
    pub events: bool,
    /// What a reader of the stream has to get: each event's payload, byte for byte; of a whole answer, its body.
    pub payloads: Vec<Vec<u8>>,
}

/// Draws an answer for a request of this route.
#[must_use]
pub fn draw(rng: &mut Rng, kind: Kind, stream: bool) -> Answer {
    if stream && kind != Kind::Embeddings {
        return events(rng, kind);
    }
    let members = whole(rng, kind);
    let body = write_with_unknown(rng, members, Blanks::Any).into_bytes();
    Answer { bytes: body.clone(), events: false, payloads: vec![body] }
}

/// Writes an object with members that nobody knows, in an order of the dice's.
fn write_with_unknown(rng: &mut Rng, mut members: Vec<(&str, Json)>, blanks: Blanks) -> String {
    for name in ["x_trace", "cost", "Zukunft"] {
        if rng.chance(30) {
            members.push((name, any(rng, 3)));
        }
    }
    let object = Json::object(rng, members);
    write(rng, &object, blanks)
}

fn usage(rng: &mut Rng, kind: Kind) -> Json {
    let (input, output) = (rng.below(20) + 1, rng.below(20) + 1);
    let names = if kind == Kind::Responses {
        ["input_tokens", "output_tokens"]
    } else {
        ["prompt_tokens", "completion_tokens"]
    };
    let mut members = vec![(names[0], Json::whole(input)), ("total_tokens", Json::whole(input + output))];
    if kind != Kind::Embeddings {
        members.push((names[1], Json::whole(output)));
    }
    if rng.chance(40) {
        members.push(("details", any(rng, 2)));
    }
    Json::object(rng, members)
}

fn logprobs(rng: &mut Rng) -> Json {
    let token = Json::object(
        rng,
        vec![
            ("token", Json::text("字")),
            ("logprob", Json::Number("-0.1234567890123456789012345678901".to_owned())),
            ("bytes", Json::List(vec![Json::whole(229), Json::whole(173), Json::whole(151)])),
        ],
    );
    Json::object(rng, vec![("content", Json::List(vec![token]))])
}

fn tool_call(rng: &mut Rng) -> Json {
    let arguments = Json::text("{\"place\": \"\u{1f642}\", \"n\": 1e3}");
    let function = Json::object(rng, vec![("name", Json::text("look")), ("arguments", arguments)]);
    Json::object(
        rng,
        vec![
            ("index", Json::whole(0)),
            ("id", Json::text("c1")),
            ("type", Json::text("function")),
            ("function", function),
        ],
    )
}

fn whole(rng: &mut Rng, kind: Kind) -> Vec<(&'static str, Json)> {
    let usage = usage(rng, kind);
    let created = Json::Number(["0", "1795926582", "1795926582.0", "1.795926582e9"][rng.index(4)].to_owned());
    match kind {
        Kind::Chat => {
            let mut message = vec![("role", Json::text("assistant")), ("content", Json::Text(words(rng, 8)))];
            if rng.chance(30) {
                message.push(("tool_calls", Json::List(vec![tool_call(rng)])));
            }
            if rng.chance(30) {
                message.push(("reasoning_content", Json::Text(words(rng, 4))));
            }
            let message = Json::object(rng, message);
            let logprobs = logprobs(rng);
            let choice = vec![
                ("index", Json::whole(0)),
                ("message", message),
                ("finish_reason", Json::text("stop")),
                ("logprobs", logprobs),
            ];
            let choice = Json::object(rng, choice);
            vec![
                ("id", Json::text("chatcmpl-1")),
                ("object", Json::text("chat.completion")),
                ("created", created),
                ("model", Json::text("m")),
                ("choices", Json::List(vec![choice])),
                ("usage", usage),
            ]
        }
        Kind::Completions => {
            let text = Json::Text(words(rng, 8));
            let choice = vec![("index", Json::whole(0)), ("text", text), ("finish_reason", Json::text("length"))];
            let choice = Json::object(rng, choice);
            vec![
                ("id", Json::text("cmpl-1")),
                ("object", Json::text("text_completion")),
                ("created", created),
                ("choices", Json::List(vec![choice])),
                ("usage", usage),
            ]
        }
        Kind::Embeddings => {
            let vector = Json::List((0..16).map(|_| number(rng, 1)).collect());
            let entry = vec![("object", Json::text("embedding")), ("index", Json::whole(0)), ("embedding", vector)];
            let entry = Json::object(rng, entry);
            vec![
                ("object", Json::text("list")),
                ("data", Json::List(vec![entry])),
                ("model", Json::text("m")),
                ("usage", usage),
            ]
        }
        Kind::Responses => response(rng, "completed", usage),
    }
}

fn response(rng: &mut Rng, status: &str, usage: Json) -> Vec<(&'static str, Json)> {
    let text = Json::Text(words(rng, 8));
    let part = vec![("type", Json::text("output_text")), ("text", text), ("annotations", Json::List(Vec::new()))];
    let part = Json::object(rng, part);
    let item = vec![
        ("id", Json::text("msg_1")),
        ("type", Json::text("message")),
        ("role", Json::text("assistant")),
        ("content", Json::List(vec![part])),
    ];
    let item = Json::object(rng, item);
    vec![
        ("id", Json::text("resp_1")),
        ("object", Json::text("response")),
        ("status", Json::text(status)),
        ("output", Json::List(vec![item])),
        ("usage", usage),
    ]
}

fn events(rng: &mut Rng, kind: Kind) -> Answer {
    let mut payloads = Vec::new();
    let count = rng.below(12) + 1;
    for place in 0..=count {
        let last = place == count;
        let members = match kind {
            Kind::Responses => response_event(rng, place, last),
            Kind::Chat | Kind::Completions | Kind::Embeddings => chunk(rng, kind, place, last),
        };
        payloads.push((type_of(&members), write_with_unknown(rng, members, Blanks::OfEvents)));
    }
    if kind != Kind::Responses {
        payloads.push((None, "[DONE]".to_owned()));
    }
    let mut bytes = if rng.chance(20) { "\u{feff}".as_bytes().to_vec() } else { Vec::new() };
    for (name, payload) in &payloads {
        frame(rng, &mut bytes, name.as_deref(), payload);
    }
    let payloads = payloads.into_iter().map(|(_, payload)| payload.into_bytes()).collect();
    Answer { bytes, events: true, payloads }
}

fn type_of(members: &[(&str, Json)]) -> Option<String> {
    members.iter().find_map(|(name, value)| match value {
        Json::Text(text) if *name == "type" => Some(text.clone()),
        _ => None,
    })
}

/// One event with line endings, comments and fields of the dice's choice.
fn frame(rng: &mut Rng, bytes: &mut Vec<u8>, name: Option<&str>, payload: &str) {
    let end = ["\n", "\r\n", "\r"][rng.index(3)];
    let mut lines = Vec::new();
    if rng.chance(20) {
        lines.push(": keep going".to_owned());
    }
    if let Some(name) = name {
        lines.push(format!("event: {name}"));
    }
    for line in payload.split('\n') {
        // The one blank behind the colon is the stream's, not the payload's.
        let bare = !line.starts_with(' ') && rng.chance(30);
        lines.push(if bare { format!("data:{line}") } else { format!("data: {line}") });
    }
    if rng.chance(20) {
        lines.push("id: 7".to_owned());
    }
    if name.is_some() {
        // A name belongs to its event whatever its place.
        shuffle_behind(rng, &mut lines);
    }
    for line in lines {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(end.as_bytes());
    }
    bytes.extend_from_slice(end.as_bytes());
}

/// Moves the `event` line to the end now and then; lines of the payload keep their order.
fn shuffle_behind(rng: &mut Rng, lines: &mut Vec<String>) {
    if rng.chance(30)
        && let Some(place) = lines.iter().position(|line| line.starts_with("event:"))
    {
        let line = lines.remove(place);
        lines.push(line);
    }
}

fn chunk(rng: &mut Rng, kind: Kind, place: u64, last: bool) -> Vec<(&'static str, Json)> {
    let object = if kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" };
    let mut choice =
        vec![("index", Json::whole(0)), ("finish_reason", if last { Json::text("stop") } else { Json::Null })];
    if kind == Kind::Chat {
        let mut delta = vec![("content", Json::Text(words(rng, 3)))];
        if place == 0 {
            delta.push(("role", Json::text("assistant")));
        }
        if rng.chance(20) {
            delta.push(("tool_calls", Json::List(vec![tool_call(rng)])));
        }
        if rng.chance(20) {
            delta.push(("reasoning_content", Json::Text(words(rng, 2))));
        }
        choice.push(("delta", Json::object(rng, delta)));
    } else {
        choice.push(("text", Json::Text(words(rng, 3))));
    }
    if rng.chance(30) {
        choice.push(("logprobs", logprobs(rng)));
    }
    let choice = Json::object(rng, choice);
    let mut members = vec![
        ("id", Json::text("c-1")),
        ("object", Json::text(object)),
        ("created", Json::Number("1.795926582E+9".to_owned())),
        ("model", Json::text("m")),
        ("choices", Json::List(vec![choice])),
    ];
    if last {
        members.push(("usage", usage(rng, kind)));
    }
    members
}

fn response_event(rng: &mut Rng, place: u64, last: bool) -> Vec<(&'static str, Json)> {
    let numbered = ("sequence_number", Json::whole(place));
    if place == 0 || last {
        let (kind, status) =
            if last { ("response.completed", "completed") } else { ("response.created", "in_progress") };
        let usage = if last { usage(rng, Kind::Responses) } else { Json::Null };
        let members = response(rng, status, usage);
        let response = Json::object(rng, members);
        return vec![("type", Json::text(kind)), numbered, ("response", response)];
    }
    let delta = Json::Text(words(rng, 3));
    let mut members = vec![
        ("type", Json::text("response.output_text.delta")),
        numbered,
        ("item_id", Json::text("msg_1")),
        ("output_index", Json::whole(0)),
        ("content_index", Json::whole(0)),
        ("delta", delta),
    ];
    shuffle(rng, &mut members);
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_json_and_stands_in_its_bytes() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let kind = Kind::ALL[rng.index(4)];
            let answer = draw(&mut rng, kind, seed % 2 == 0);
            for payload in &answer.payloads {
                let text = std::str::from_utf8(payload).unwrap_or_else(|_| panic!("{seed}: no text"));
                let json = serde_json::from_str::<serde_json::Value>(text);
                assert!(text == "[DONE]" || json.is_ok_and(|json| json.is_object()), "{seed}: {text}");
                let line = text.split('\n').max_by_key(|line| line.len()).unwrap_or_default();
                let found = answer.bytes.windows(line.len().max(1)).any(|part| part == line.as_bytes());
                assert!(found || line.is_empty(), "{seed}: {line}");
            }
        }
    }
}
