//! The response chain: a running commitment to an answer, event by event, under a key the caller made.
//!
//! h₀ = HMAC-SHA256(body key, `response`); hᵢ = HMAC-SHA256(body key, hᵢ₋₁ ‖ eventᵢ). A whole answer counts as one event. Both
//! ends of a call compute it, so what the model's side sent and what the caller got can be compared without keeping either.
//!
//! **Invariant:** the chain holds no content, and without the body key it says nothing about any.

use ring::hmac;

/// Bytes of a body key.
pub const BODY_KEY_BYTES: usize = 32;

/// A running commitment to the events of one answer.
#[derive(Clone)]
pub struct ResponseChain {
    key: hmac::Key,
    value: [u8; 32],
    count: u64,
}

impl ResponseChain {
    /// The chain before the first event.
    #[must_use]
    pub fn new(body_key: &[u8; BODY_KEY_BYTES]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, body_key);
        let value = bytes(hmac::sign(&key, b"response"));
        Self { key, value, count: 0 }
    }

    /// Takes the next event's bytes in.
    pub fn push(&mut self, event: &[u8]) {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&self.value);
        context.update(event);
        self.value = bytes(context.sign());
        self.count = self.count.saturating_add(1);
    }

    /// Where the chain stands.
    #[must_use]
    pub const fn value(&self) -> [u8; 32] {
        self.value
    }

    /// How many events it covers.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}

impl std::fmt::Debug for ResponseChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseChain").field("count", &self.count).finish_non_exhaustive()
    }
}

/// The keyed commitment to a call's body that its claim carries: HMAC-SHA256(body key, body).
#[must_use]
pub fn body_mac(body_key: &[u8; BODY_KEY_BYTES], body: &[u8]) -> [u8; 32] {
    bytes(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, body_key), body))
}

fn bytes(tag: hmac::Tag) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(key: u8, events: &[&[u8]]) -> String {
        let mut chain = ResponseChain::new(&[key; BODY_KEY_BYTES]);
        for event in events {
            chain.push(event);
        }
        format!("{} {}", chain.count(), data_encoding::HEXLOWER.encode(&chain.value()))
    }

    #[test]
    fn the_chain_is_the_documented_one() {
        // Computed apart from this code, with Python's `hmac`.
        expect_test::expect!["0 29ee6b4ce940ed005b9c52974a4cd4c340dcfa26bc4e6798ba062e71c0a8c6ec"]
            .assert_eq(&chain(7, &[]));
        expect_test::expect!["2 ae9477bb7e36439dde77c04f717c39e52a827051f5ec243041fc203a36ea09b2"]
            .assert_eq(&chain(7, &[b"one", b"two"]));
    }

    #[test]
    fn where_events_are_cut_matters() {
        let values = [
            chain(7, &[b"onetwo"]),
            chain(7, &[b"one", b"two"]),
            chain(7, &[b"two", b"one"]),
            chain(7, &[b"one", b"two", b""]),
            chain(8, &[b"one", b"two"]),
        ];
        let mut distinct = values.to_vec();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), values.len());
    }

    #[test]
    fn the_key_is_not_printed() {
        let printed = format!("{:?}", ResponseChain::new(&[7; BODY_KEY_BYTES]));
        assert_eq!(printed, "ResponseChain { count: 0, .. }");
    }
}
