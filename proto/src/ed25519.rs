//! Ed25519 (RFC 8032): the one algorithm that stands on the path of every call, behind one door.
//!
//! Everything else cryptographic is `ring`'s; this is done by `ed25519-dalek`, which takes two thirds of the time here, to verify and to
//! sign. Both hold a signature against `[s]B = R + [k]A` without the cofactor, byte for byte, so that no verdict of the past changes
//! and other languages' libraries agree; the tests below put the same inputs to both.

use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};

/// Whether `signature` over `message` is that of the key whose 32 public bytes these are. What is not a key or not a signature holds
/// nothing.
pub(crate) fn holds(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(public), Ok(signature)) = (public.try_into(), Signature::from_slice(signature)) else { return false };
    VerifyingKey::from_bytes(public).is_ok_and(|key| key.verify(message, &signature).is_ok())
}

/// A secret key. Its memory is wiped when it goes.
pub(crate) struct Secret(SigningKey);

impl Secret {
    /// The key of a seed.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Its public bytes.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

    use data_encoding::HEXLOWER;
    use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

    use super::*;

    /// What the other library says.
    fn other(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
    }

    fn both(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let ours = holds(public, message, signature);
        assert_eq!(ours, other(public, message, signature), "{public:?} {message:?} {signature:?}");
        ours
    }

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// The numbers of a generator that needs no seed from outside.
    fn numbers(mut state: u64) -> impl FnMut() -> u8 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40).to_le_bytes()[0]
        }
    }

    #[test]
    fn the_vectors_of_rfc_8032_hold() {
        for (seed, public, message, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let secret = Secret::from_seed(&hex(seed).try_into().unwrap());
            assert_eq!(secret.public().to_vec(), hex(public));
            assert_eq!(secret.sign(&hex(message)).to_vec(), hex(signature));
            assert!(both(&hex(public), &hex(message), &hex(signature)));
        }
    }

    #[test]
    fn two_libraries_sign_the_same_and_agree_on_every_altered_byte() {
        let mut next = numbers(1);
        for length in [0, 1, 63, 64, 300] {
            let seed: [u8; 32] = std::array::from_fn(|_| next());
            let message: Vec<u8> = (0..length).map(|_| next()).collect();
            let (secret, pair) = (Secret::from_seed(&seed), Ed25519KeyPair::from_seed_unchecked(&seed).unwrap());
            let (public, signature) = (secret.public(), secret.sign(&message));
            assert_eq!(pair.public_key().as_ref(), public);
            assert_eq!(pair.sign(&message).as_ref(), signature);
            assert!(both(&public, &message, &signature));
            for at in 0..signature.len() {
                let mut altered = signature;
                altered[at] ^= 1 << (next() & 7);
                assert!(!both(&public, &message, &altered));
            }
            for at in 0..public.len() {
                let mut altered = public;
                altered[at] ^= 1 << (next() & 7);
                assert!(!both(&altered, &message, &signature));
            }
            for at in 0..message.len() {
                let mut altered = message.clone();
                altered[at] ^= 1 << (next() & 7);
                assert!(!both(&public, &altered, &signature));
            }
            assert!(!both(&public, &message, &signature[..63]) && !both(&public[..31], &message, &signature));
        }
    }

    #[test]
    fn two_libraries_agree_on_what_is_hardly_a_key_or_a_signature() {
        // The order of the group; `s` beside it is one signature's second spelling.
        let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let secret = Secret::from_seed(&[7; 32]);
        let (public, signature) = (secret.public(), secret.sign(b"it"));
        let mut second = signature;
        let mut carry = 0_u16;
        for (byte, more) in second[32..].iter_mut().zip(&order) {
            let sum = u16::from(*byte) + u16::from(*more) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert!(!both(&public, b"it", &second));
        // Points of small order, among them spellings beyond the field's prime.
        let points = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "0200000000000000000000000000000000000000000000000000000000000000",
        ];
        for key in points {
            for start in points {
                for s in [[0_u8; 32].as_slice(), &[1], &order] {
                    let mut signature = hex(start);
                    signature.extend_from_slice(s);
                    signature.resize(64, 0);
                    for message in [b"".as_slice(), b"it", b"another"] {
                        let _ = both(&hex(key), message, &signature);
                    }
                }
            }
        }
    }
}
