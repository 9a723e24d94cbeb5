//! From a request to the choices of an answer, and from those to a whole body.
//!
//! A token is a word together with the space in front of it.

use serde_json::{Map, Value, json};

use super::asked::{Asked, Kind, WORDS_MAX};
use super::prose::{self, Dice};

/// The one instant every answer claims to be from: the same request gets the same bytes.
pub(super) const CREATED: u64 = 1_767_225_600;

/// One choice: its tokens in order, and why it ends.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) index: usize,
    /// Tokens of the prompt that are given back, in front of the answer's.
    pub(super) echoed: Vec<String>,
    pub(super) tokens: Vec<String>,
    pub(super) finish: &'static str,
    /// The text that it was to stop at, and did.
    pub(super) stopped: Option<String>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) body: Value,
    /// How many words were written, for the pace.
    pub(super) words: usize,
}

/// Writes every choice of an answer.
pub(super) fn choices(asked: &Asked) -> Vec<Choice> {
    let mut choices = Vec::new();
    for prompt in &asked.prompts {
        for copy in 0..asked.n {
            let seed = prose::hash(asked.seed.unwrap_or(0), prompt).wrapping_add(copy as u64);
            let prose = prose::write(Dice(seed).roll(), asked.words_max, WORDS_MAX);
            let echoed = if asked.echo { spaced(prompt, true) } else { Vec::new() };
            let mut tokens = spaced(&prose.words, echoed.is_empty());
            let stopped = stop(&mut tokens, &asked.stop);
            let finish = if prose.complete || stopped.is_some() { "stop" } else { "length" };
            choices.push(Choice { index: choices.len(), echoed, tokens, finish, stopped });
        }
    }
    choices
}

/// Writes a whole body.
pub(super) fn whole(asked: &Asked) -> Whole {
    let choices = choices(asked);
    let object = match asked.kind {
        Kind::Chat => "chat.completion",
        Kind::Completion => "text_completion",
    };
    let words = choices.iter().map(|choice| choice.tokens.len()).max().unwrap_or(0);
    let usage = usage(asked, &choices);
    let choices: Vec<_> = choices.iter().map(|choice| whole_choice(asked, choice)).collect();
    let body = with(asked.head(object), [("choices", json!(choices)), ("usage", usage)]);
    Whole { body, words }
}

/// Tokens read and written; a token given back counts as read only.
pub(super) fn usage(asked: &Asked, choices: &[Choice]) -> Value {
    let input: usize = asked.prompts.iter().map(Vec::len).sum();
    let output: usize = choices.iter().map(|choice| choice.tokens.len()).sum();
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input.saturating_add(output)})
}

/// Adds fields to an object.
pub(super) fn with<const N: usize>(object: Value, fields: [(&str, Value); N]) -> Value {
    let mut map = if let Value::Object(map) = object { map } else { Map::new() };
    map.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Value::Object(map)
}

/// Log probabilities in the shape of chat: made up, the same for the same token in the same place.
pub(super) fn chat_logprobs(tokens: &[String], first: usize, top: usize) -> Value {
    let content: Vec<_> = tokens
        .iter()
        .enumerate()
        .map(|(at, token)| {
            let ranked = ranked(token, first.saturating_add(at), top.max(1));
            let entry =
                |token: &str, logprob: f64| json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()});
            let alternatives: Vec<_> = ranked.iter().take(top).map(|(token, logprob)| entry(token, *logprob)).collect();
            let logprob = ranked.first().map_or(0.0, |(_, logprob)| *logprob);
            with(entry(token, logprob), [("top_logprobs", json!(alternatives))])
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// Log probabilities in the shape of completions. `offset` is where the first token starts in the text,
/// in characters. The first token of a prompt that is given back has none, as nothing comes before it.
pub(super) fn text_logprobs(tokens: &[String], first: usize, offset: usize, top: usize, echoed: bool) -> Value {
    let mut offset = offset;
    let (mut offsets, mut logprobs, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        offsets.push(json!(offset));
        offset = offset.saturating_add(token.chars().count());
        if echoed && at == 0 {
            logprobs.push(Value::Null);
            tops.push(Value::Null);
            continue;
        }
        let ranked = ranked(token, first.saturating_add(at), top.max(1));
        logprobs.push(json!(ranked.first().map_or(0.0, |(_, logprob)| *logprob)));
        let ranked = ranked.into_iter().take(top);
        tops.push(Value::Object(ranked.map(|(token, logprob)| (token, json!(logprob))).collect()));
    }
    json!({"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets})
}

fn whole_choice(asked: &Asked, choice: &Choice) -> Value {
    let logprobs = asked.logprobs.map(|top| match asked.kind {
        Kind::Chat => chat_logprobs(&choice.tokens, 0, top),
        Kind::Completion => {
            let tokens = [choice.echoed.as_slice(), choice.tokens.as_slice()].concat();
            text_logprobs(&tokens, 0, 0, top, asked.echo)
        }
    });
    let text = choice.echoed.concat() + &choice.tokens.concat();
    let content = match asked.kind {
        Kind::Chat => ("message", json!({"role": "assistant", "content": text, "refusal": null})),
        Kind::Completion => ("text", json!(text)),
    };
    let choice = json!({"index": choice.index, "logprobs": logprobs, "finish_reason": choice.finish});
    with(choice, [content])
}

/// A token and others that might have stood there, the likeliest first; the token itself is the first.
fn ranked(token: &str, at: usize, count: usize) -> Vec<(String, f64)> {
    let mut dice = Dice(prose::hash(at as u64, &[token]));
    let mut logprob = 0.0;
    let mut ranked: Vec<(String, f64)> = Vec::new();
    for rank in 0..count {
        // Thousandths keep the numbers short; falling ones keep the order honest.
        let step = u32::try_from(dice.below(1500)).unwrap_or(0);
        logprob -= f64::from(step.saturating_add(1)) / 1000.0;
        let other = match rank {
            0 => token.to_owned(),
            _ => format!(" {}", prose::word(dice.roll())),
        };
        if !ranked.iter().any(|(known, _)| *known == other) {
            ranked.push((other, logprob));
        }
    }
    ranked
}

fn spaced<S: AsRef<str>>(words: &[S], at_start: bool) -> Vec<String> {
    let token = |(at, word): (usize, &S)| match at {
        0 if at_start => word.as_ref().to_owned(),
        _ => format!(" {}", word.as_ref()),
    };
    words.iter().enumerate().map(token).collect()
}

/// Cuts the tokens in front of the first stop text; says whether there was one.
fn stop(tokens: &mut Vec<String>, stops: &[String]) -> Option<String> {
    let text = tokens.concat();
    let places = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop)));
    let (mut left, stop) = places.min_by_key(|(place, _)| *place)?;
    for token in tokens.iter_mut() {
        let kept = left.min(token.len());
        token.truncate(kept);
        left -= kept;
    }
    tokens.retain(|token| !token.is_empty());
    Some(stop.clone())
}
