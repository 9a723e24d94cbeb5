#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests stop at the first surprise"
)]

mod found;
mod kept;

use anteroom_proto::{
    names::{CallId, GrantId},
    time::At,
};

use super::{Collector, FingerprintKey, Selected};

const GRANT: GrantId = GrantId::from_bytes([3; 16]);
const NOW: i64 = 1_795_000_000_000;

fn at(ms: i64) -> At {
    At::from_ms(ms).unwrap()
}

fn call(n: u64) -> CallId {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    CallId::new(NOW, random)
}

fn key(seed: u8) -> FingerprintKey {
    FingerprintKey::from_secret(&[seed; 32]).unwrap()
}

/// The selected runs of an answer that comes in these payloads.
fn gathered(key: &FingerprintKey, payloads: &[&str]) -> Selected {
    let mut collector = Collector::new(key.point());
    payloads.iter().for_each(|payload| collector.event(payload.as_bytes()));
    collector.finish()
}

/// One event of a streamed chat answer.
fn delta(text: &str) -> String {
    serde_json::json!({"id": "chatcmpl-7", "object": "chat.completion.chunk", "model": "aurora",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": null}]})
    .to_string()
}

/// A text of `words` words that no other seed has.
fn prose(seed: u64, words: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut text = String::new();
    for _ in 0..words {
        let length = 2 + next() % 8;
        text.extend((0..length).map(|_| char::from(b'a' + u8::try_from(next() % 26).unwrap())));
        text.push(' ');
    }
    text
}
