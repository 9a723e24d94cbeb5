//! Prompts and answers, made once, and the model's side of a call: the same answer and the same signature whoever is under test.

use anteroom_proto::{
    ledger::chain::ResponseChain,
    rpc::{OutcomeClaim, SignedStatement},
    statement::envelope::sign_claim,
};
use anteroom_sdk::{signer::SharedSigner, system};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Fallible;

/// Every call's body key. One for all, so that the response chain over an answer is computed once and not in the measured time.
pub const BODY_KEY: [u8; 32] = [0x5a; 32];
/// Events of a streamed answer that carry text.
pub const CHUNKS: usize = 256;
/// Aimed size of prompt and answer.
const BODY_BYTES: usize = 1024;
/// Size of a large prompt.
pub const LARGE_BYTES: usize = 1 << 20;
/// What each turn of a conversation adds: a question, and what was said or what tools returned.
const TURN_BYTES: usize = 32 << 10;
/// Turns of a conversation, the last of which sends 512 KB, some 128,000 tokens.
pub const TURNS: usize = 16;
/// What the text is made of: words without any pattern that a scanner waits on.
const PROSE: &str = "The tide tables for the coming week show a slow change in the evening heights along the northern shore, \
    and the harbour office asks that small boats keep to the marked channel while the survey of the sand banks goes on. ";

/// Words that say how the model's side is to answer; they stand at the beginning of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// One answer of a kilobyte.
    Whole,
    /// The same to a prompt of a megabyte.
    Large,
    /// The same to a conversation that grows, and is sent again with every turn.
    Talk,
    /// 256 chunks, as fast as they go.
    Stream,
    /// A chunk now and then until it is cut.
    Trickle,
    /// Chunks as fast as they are taken until it is cut.
    Flood,
}

impl Manner {
    const ALL: [Self; 6] = [Self::Whole, Self::Large, Self::Talk, Self::Stream, Self::Trickle, Self::Flood];

    const fn word(self) -> &'static str {
        match self {
            Self::Whole => "Whole",
            Self::Large => "Large",
            Self::Talk => "Talk",
            Self::Stream => "Stream",
            Self::Trickle => "Trickle",
            Self::Flood => "Flood",
        }
    }

    /// What a body asks for.
    pub fn of(body: &[u8]) -> Self {
        let start = &body[..body.len().min(200)];
        let asks = |manner: &Self| start.windows(manner.word().len()).any(|window| window == manner.word().as_bytes());
        Self::ALL.into_iter().find(asks).unwrap_or(Self::Whole)
    }

    /// Whether the answer is a stream.
    pub const fn streams(self) -> bool {
        matches!(self, Self::Stream | Self::Trickle | Self::Flood)
    }

    /// The bodies that ask for it, one after the other: one alone but for a conversation.
    pub fn bodies(self, line: &str) -> Vec<Bytes> {
        let stream = self.streams();
        let body = |messages: &[Value]| {
            json!({
                "max_tokens": if stream { 4_096 } else { 300 }, "messages": messages, "model": line, "stream": stream,
            })
            .to_string()
        };
        let message = |role: &str, text: &str| json!({"content": format!("{}: {text}", self.word()), "role": role});
        let filled = |bytes: usize| {
            let room = bytes - body(&[message("user", "")]).len();
            let text = if bytes == BODY_BYTES { PROSE.repeat(10)[..room].to_owned() } else { words(room) };
            body(&[message("user", &text)])
        };
        match self {
            Self::Whole | Self::Stream | Self::Trickle | Self::Flood => vec![filled(BODY_BYTES).into()],
            Self::Large => vec![filled(LARGE_BYTES).into()],
            Self::Talk => {
                let text = words(TURN_BYTES * TURNS);
                let mut messages: Vec<Value> = Vec::new();
                let mut turns: Vec<Bytes> = Vec::new();
                for added in text.as_bytes().chunks(TURN_BYTES) {
                    let added = String::from_utf8_lossy(added);
                    let (said, asked) = added.split_at(TURN_BYTES / 2);
                    messages.push(message(if turns.is_empty() { "system" } else { "assistant" }, said));
                    messages.push(message("user", asked));
                    turns.push(body(&messages).into());
                }
                turns
            }
        }
    }

    /// The one body that asks for it, or a conversation's first.
    pub fn body(self, line: &str) -> Bytes {
        self.bodies(line).into_iter().next().unwrap_or_default()
    }
}

/// So many bytes of prose whose sentences do not repeat, the same every time.
fn words(bytes: usize) -> String {
    let vocabulary: Vec<&str> = PROSE.split_whitespace().collect();
    let (mut text, mut state) = (String::with_capacity(bytes + 16), 1_u64);
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(vocabulary[(state >> 33) as usize % vocabulary.len()]);
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

/// The answers with their chains, and the key that signs outcomes.
#[derive(Clone, Debug)]
pub struct Answers {
    /// A kilobyte.
    pub whole: Bytes,
    /// Chunks and `[DONE]`.
    pub events: Vec<Bytes>,
    /// One chunk, for streams without end.
    pub chunk: Bytes,
    whole_chain: [u8; 32],
    events_chain: [u8; 32],
    manifest: Vec<u8>,
    signer: SharedSigner,
}

impl Answers {
    /// Answers of the build `manifest` of `line`, signed by `signer`.
    pub fn new(line: &str, manifest: Vec<u8>, signer: SharedSigner) -> Self {
        let whole = |text: &str| {
            json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": line,
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 200, "completion_tokens": 180, "total_tokens": 380},
            })
            .to_string()
        };
        let room = BODY_BYTES - whole("").len();
        let whole: Bytes = whole(&PROSE.repeat(10)[..room]).into();
        let chunk = |text: &str, finish: Option<&str>| -> Bytes {
            json!({
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": line,
                "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
            })
            .to_string()
            .into()
        };
        let words: Vec<&str> = PROSE.split_inclusive(' ').collect();
        let mut events: Vec<Bytes> = words.iter().cycle().take(CHUNKS).map(|word| chunk(word, None)).collect();
        events.push(chunk("", Some("stop")));
        events.push(Bytes::from_static(b"[DONE]"));
        let chain = |events: &[Bytes]| {
            let mut chain = ResponseChain::new(&BODY_KEY);
            events.iter().for_each(|event| chain.push(event));
            chain.value()
        };
        Self {
            whole_chain: chain(std::slice::from_ref(&whole)),
            events_chain: chain(&events),
            chunk: chunk("tide ", None),
            whole,
            events,
            manifest,
            signer,
        }
    }

    /// How a whole answer ended.
    pub fn whole_outcome(&self, call: &[u8], grant: &[u8]) -> Fallible<SignedStatement> {
        self.outcome(call, grant, 1, self.whole_chain, "completed")
    }

    /// How a stream of [`CHUNKS`] ended.
    pub fn stream_outcome(&self, call: &[u8], grant: &[u8]) -> Fallible<SignedStatement> {
        self.outcome(call, grant, self.events.len() as u64, self.events_chain, "completed")
    }

    /// How an answer that was cut ended.
    pub fn cut_outcome(&self, call: &[u8], grant: &[u8], told: &ResponseChain, end: &str) -> Fallible<SignedStatement> {
        self.outcome(call, grant, told.count(), told.value(), end)
    }

    fn outcome(&self, call: &[u8], grant: &[u8], events: u64, chain: [u8; 32], end: &str) -> Fallible<SignedStatement> {
        let claim = OutcomeClaim {
            call: call.to_vec(),
            grant: grant.to_vec(),
            status: 200,
            received_events: events,
            received_chain: chain.to_vec(),
            released_events: events,
            released_chain: chain.to_vec(),
            input_tokens: Some(200),
            output_tokens: Some(180),
            manifest_digest: self.manifest.clone(),
            end: end.to_owned(),
            at_ms: system::now().ms(),
            seen_size: 0,
            seen_root: Vec::new(),
            fingerprint_digest: Vec::new(),
            reported_build: Vec::new(),
            reported_before: Vec::new(),
        };
        Ok(sign_claim(&claim, &self.signer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_its_manner_and_is_as_long_as_it_says() {
        for manner in Manner::ALL {
            let bodies = manner.bodies("m1");
            assert!(bodies.iter().all(|body| Manner::of(body) == manner));
            let sizes: Vec<usize> = bodies.iter().map(Bytes::len).collect();
            match manner {
                Manner::Talk => {
                    assert_eq!(sizes.len(), TURNS);
                    assert!(sizes.iter().enumerate().all(|(turn, size)| size / TURN_BYTES == turn + 1), "{sizes:?}");
                    // A turn sends again what was sent before.
                    let end = bodies[0].iter().rposition(|byte| *byte == b']').unwrap();
                    assert!(bodies[1].starts_with(&bodies[0][..end]));
                }
                Manner::Large => assert_eq!(sizes, [LARGE_BYTES]),
                Manner::Whole | Manner::Stream | Manner::Trickle | Manner::Flood => assert_eq!(sizes, [BODY_BYTES]),
            }
        }
    }
}
