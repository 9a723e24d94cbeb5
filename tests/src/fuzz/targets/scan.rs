//! The scanner. The first byte seeds how the text is cut and which channel it takes; the rest is text, or events as they come.

use std::{borrow::Cow, sync::Arc};

use anteroom_policy::content::{
    body::{Channel, Text},
    scan::{
        ScanConfig, ScanSummary, Scanner,
        stream::{Release, StreamScanner},
    },
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    super::{Outcome, Target},
    size, way,
};
use crate::sim::{ensure, rng::Rng};

/// A string that a lab planted.
const CANARY: &str = "zephyr-quartz-0417-lantern";

/// The target.
pub struct Scan(Arc<Scanner>);

impl Default for Scan {
    fn default() -> Self {
        let config = ScanConfig { canaries: vec![CANARY.to_owned()], ..ScanConfig::default() };
        Self(Arc::new(Scanner::new(&config).expect("a canary within its bounds")))
    }
}

/// Places that a text can take in an event.
const SHAPES: [fn(&str) -> Value; 8] = [
    |text| json!({"choices": [{"index": 0, "delta": {"content": text}}]}),
    |text| json!({"choices": [{"index": 1, "delta": {"reasoning_content": text}}]}),
    |text| json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": text}}]}}]}),
    |text| json!({"choices": [{"index": 0, "logprobs": {"content": [{"token": text, "logprob": -1}]}}]}),
    |text| json!({"type": "response.output_text.delta", "output_index": 0, "delta": text}),
    |text| json!({"surprise": {"deep": [text]}}),
    |text| json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": text}}),
    |text| json!({"type": "content_block_start", "index": 2, "content_block": {"type": "thinking", "thinking": text}}),
];

/// What came of a stream.
struct Streamed {
    left: usize,
    stopped: Option<&'static str>,
    summary: ScanSummary,
}

impl Scan {
    fn stream(&self, events: &[Bytes]) -> Result<Streamed, String> {
        let mut scanner = StreamScanner::new(Arc::clone(&self.0));
        let mut left = Vec::new();
        let mut stopped = None;
        for event in events {
            match scanner.push(event.clone()) {
                Release::Now(events) => {
                    ensure(stopped.is_none(), || "something leaves after a stop".to_owned())?;
                    left.extend(events);
                }
                Release::Stop { hit, released, .. } => {
                    ensure(stopped.is_none() || released.is_empty(), || "something leaves after a stop".to_owned())?;
                    left.extend(released);
                    stopped.get_or_insert(hit);
                }
            }
            ensure(left.iter().eq(events.iter().take(left.len())), || "events leave out of order".to_owned())?;
        }
        let rest = scanner.finish();
        ensure(stopped.is_none() || rest.is_empty(), || "something leaves at the end after a stop".to_owned())?;
        left.extend(rest);
        ensure(stopped.is_some() || left.len() == events.len(), || "an event is lost".to_owned())?;
        Ok(Streamed { left: left.len(), stopped, summary: scanner.summary() })
    }

    fn whole(&self, text: &str) -> ScanSummary {
        self.0.scan_prompt(&[Text { channel: Channel::Message, continues: false, text: Cow::Borrowed(text) }])
    }

    fn as_text(&self, text: &str, rng: &mut Rng) -> Outcome {
        let shape = SHAPES[rng.index(SHAPES.len())];
        let whole = self.whole(text);
        let in_one = self.stream(&[event(&shape(text))])?;
        ensure(in_one.summary.verdict.stops() == whole.verdict.stops(), || {
            format!("one event is scanned as {:?}, its text as {whole:?}", in_one.summary)
        })?;
        for _ in 0..3 {
            let pieces = cut(text, rng);
            let events: Vec<Bytes> = pieces.iter().map(|piece| event(&shape(piece))).collect();
            let streamed = self.stream(&events)?;
            ensure(streamed.stopped == in_one.stopped && streamed.summary == in_one.summary, || {
                format!("cut into {}, {:?} and not {:?}", pieces.len(), streamed.summary, in_one.summary)
            })?;
            let released: String = pieces.iter().take(streamed.left).copied().collect();
            ensure(!self.whole(&released).verdict.stops(), || "a whole match has left".to_owned())?;
        }
        // A naive reader of the same text.
        let naive = plain(text).contains(&plain(CANARY));
        let found = whole.hits.iter().any(|hit| hit == "canary");
        ensure(!naive || whole.verdict.stops(), || "a canary in plain sight does not stop".to_owned())?;
        ensure(!found || folded(text), || "a canary is found where none is".to_owned())?;
        let stops = if whole.verdict.stops() { "stops" } else { "passes" };
        Ok(way(&["text", stops, &whole.hits.join(" "), &size(text.len()), &whole.level.to_string()]))
    }

    fn as_events(&self, bytes: &[u8]) -> Outcome {
        let events: Vec<Bytes> = bytes.split(|byte| *byte == b'\n').take(300).map(Bytes::copy_from_slice).collect();
        let streamed = self.stream(&events)?;
        let again = self.stream(&events)?;
        ensure(streamed.summary == again.summary && streamed.left == again.left, || {
            "one stream has two verdicts".to_owned()
        })?;
        Ok(way(&["events", streamed.stopped.unwrap_or("passes"), &size(streamed.left), &size(events.len())]))
    }
}

impl Target for Scan {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            CANARY,
            "zephyr-",
            "quartz-",
            "0417-",
            "lantern",
            "TOP ",
            "SECRET",
            "//",
            "SI//",
            "NOFORN",
            "REL TO USA",
            "\n",
            " ",
            "not ",
            "CUI",
            "CUI//SP-PROPIN",
            "(S",
            "//NF)",
            "**",
            "secret//noforn",
            "/",
            "Т",
            "PROPIN",
            "  ",
            "CONFIDENTIAL",
            "\u{2029}",
            "\u{200b}",
            "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
            "\"}}]}",
            "[DONE]",
            "{\"type\":\"response.x\",\"delta\":\"",
            "{\"type\":\"surprise\"}",
            "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"text\":\"",
            "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"text\":\"",
            "{\"type\":\"message_stop\"}",
            "\"index\":",
            "\"output_index\":9,",
        ]
    }

    fn bytes_max(&self) -> usize {
        16 * 1024
    }

    fn check(&self, input: &[u8]) -> Outcome {
        let (first, bytes) = input.split_first().unwrap_or((&0, &[]));
        let mut rng = Rng::new(u64::from(*first));
        if *first < 48 { self.as_events(bytes) } else { self.as_text(&String::from_utf8_lossy(bytes), &mut rng) }
    }
}

fn event(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// Cuts a text at characters, mostly into few pieces, sometimes into single ones.
fn cut<'t>(text: &'t str, rng: &mut Rng) -> Vec<&'t str> {
    let every = rng.chance(10);
    let mut places: Vec<usize> = if every {
        text.char_indices().map(|(at, _)| at).take(600).collect()
    } else {
        (0..rng.below(12)).map(|_| rng.index(text.len() + 1)).filter(|at| text.is_char_boundary(*at)).collect()
    };
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

/// ASCII alone, in small letters.
fn plain(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// Whether the canary's letters stand in a text in their order, whatever stands between them.
fn folded(text: &str) -> bool {
    let mut wanted = CANARY.chars().filter(char::is_ascii_digit).peekable();
    for c in text.chars() {
        // Digits have look-alikes in full width alone.
        let digit = if ('\u{ff10}'..='\u{ff19}').contains(&c) {
            char::from_digit(u32::from(c) - 0xff10, 10).unwrap_or(c)
        } else {
            c
        };
        if wanted.peek() == Some(&digit) {
            wanted.next();
        }
    }
    wanted.peek().is_none()
}
