//! Embeddings: a direction for every text, the same for the same words.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::asked::{self, Bad};
use super::prose::{self, Dice};

/// How many numbers an embedding has unless the request says otherwise.
const DIMENSIONS: u64 = 16;
const DIMENSIONS_MAX: u64 = 1024;

/// Answers a body of `/v1/embeddings`.
pub(super) fn answer(body: &Value) -> Result<Value, Bad> {
    let texts = asked::texts(body.get("input"), "input")?;
    let model = asked::model(body)?;
    let dimensions = asked::number(body, "dimensions", 1, DIMENSIONS_MAX)?.unwrap_or(DIMENSIONS);
    let base64 = match body.get("encoding_format").map(Value::as_str) {
        None | Some(Some("float")) => false,
        Some(Some("base64")) => true,
        Some(_) => {
            return Err(Bad::field("encoding_format", "has to be `float` or `base64`"));
        }
    };
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let data: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(index, words)| {
            let numbers = direction(prose::hash(0, words), dimensions);
            let embedding = if base64 { json!(encode(&numbers)) } else { json!(numbers) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(json!({"object": "list", "data": data, "model": model, "usage": usage}))
}

/// A vector of length one.
fn direction(seed: u64, dimensions: u64) -> Vec<f32> {
    let mut dice = Dice(seed);
    let numbers: Vec<f32> =
        (0..dimensions).map(|_| f32::from(u16::try_from(dice.below(2001)).unwrap_or(0)) / 1000.0 - 1.0).collect();
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    // With a length of zero there is no direction; one number of many million seeds would do that.
    let length = if length > 0.0 { length } else { 1.0 };
    numbers.iter().map(|number| number / length).collect()
}

/// Little-endian single floats, as clients of this dialect expect.
fn encode(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    BASE64.encode(&bytes)
}
