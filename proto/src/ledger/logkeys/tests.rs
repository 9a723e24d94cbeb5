#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use super::{
    super::{
        checkpoint::{Checkpoint, CheckpointError, Cosigner, LogTrust, TrustError},
        note::SEED_BYTES,
        tree::leaf_hash,
    },
    *,
};

const ORIGIN: &str = "log.example/one";

fn signer(seed: u8) -> NoteSigner {
    named(ORIGIN, seed)
}

fn named(name: &str, seed: u8) -> NoteSigner {
    NoteSigner::from_seed(KeyName::parse(name).unwrap(), &[seed; SEED_BYTES])
}

fn link(from: u64, old: u8, new: u8) -> KeySuccession {
    KeySuccession::sign(from, &signer(old), &signer(new)).unwrap()
}

/// Key 1 up to size 9, key 2 from 10 on, key 3 from 20 on.
fn chain() -> LogKeys {
    LogKeys::of(link(10, 1, 2)).then(link(20, 2, 3)).unwrap()
}

fn trust(pinned: u8) -> LogTrust {
    LogTrust::log_only(signer(pinned).verifier().clone()).unwrap()
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint::new(KeyName::parse(ORIGIN).unwrap(), size, leaf_hash(b"root")).unwrap()
}

fn signed(size: u64, by: u8) -> Note {
    checkpoint(size).sign(&signer(by)).unwrap()
}

#[test]
fn a_chain_has_one_spelling_and_names_each_sizes_key() {
    let chain = chain();
    let text = chain.encode();
    assert_eq!(LogKeys::parse(text.as_bytes()).unwrap(), chain);
    assert_eq!(LogKeys::of_notes(chain.notes()).unwrap(), Some(chain.clone()));
    let keys: Vec<_> = [1, 2, 3].map(|seed| signer(seed).verifier().clone()).into();
    assert_eq!(chain.keys().cloned().collect::<Vec<_>>(), keys);
    for (size, seed) in [(0, 1), (9, 1), (10, 2), (19, 2), (20, 3), (TREE_SIZE_MAX, 3)] {
        assert_eq!(chain.at(size), signer(seed).verifier(), "{size}");
    }
    assert_eq!((chain.oldest(), chain.newest()), (signer(1).verifier(), signer(3).verifier()));
    assert_eq!(chain.after(signer(2).verifier()).map(KeySuccession::from), Some(20));
    assert_eq!(chain.after(signer(3).verifier()), None);
}

#[test]
fn every_altered_bit_and_every_cut_of_a_chain_is_found() {
    let bytes = chain().encode().into_bytes();
    let whole = LogKeys::of(link(10, 1, 2));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut altered = bytes.clone();
            *altered.get_mut(at).unwrap() ^= 1 << bit;
            assert!(LogKeys::parse(&altered).is_err(), "bit {bit} of byte {at}");
        }
        // A cut between two notes leaves a chain that is older and true.
        match LogKeys::parse(bytes.get(..at).unwrap()) {
            Ok(older) => assert_eq!((older, at), (whole.clone(), whole.encode().len())),
            Err(_) => assert_ne!(at, whole.encode().len()),
        }
    }
    for more in ["\n", "x", "\n\n"] {
        assert!(LogKeys::parse(&[bytes.as_slice(), more.as_bytes()].concat()).is_err(), "{more:?}");
    }
}

#[test]
fn both_keys_sign_in_their_order_and_nobody_else() {
    let (old, new, other) = (signer(1), signer(2), signer(3));
    let text = link(10, 1, 2).note().text().to_owned();
    let with = |signers: &[&NoteSigner]| {
        let lines = signers.iter().map(|signer| signer.sign(&text)).collect();
        KeySuccession::open(Note::new(text.clone(), lines).unwrap().encode().as_bytes())
    };
    assert!(with(&[&old, &new]).is_ok());
    for signers in [&[&old][..], &[&new], &[&new, &old], &[&old, &new, &other], &[&old, &other], &[&old, &old]] {
        assert_eq!(with(signers), Err(LogKeysError::Signers));
    }
    let lines = vec![old.sign(&text), new.sign("something else\n")];
    let forged = Note::new(text, lines).unwrap().encode();
    assert!(matches!(KeySuccession::open(forged.as_bytes()), Err(LogKeysError::Verify(VerifyError::Failed { .. }))));
}

#[test]
fn a_succession_is_of_two_keys_of_one_log() {
    let sign = KeySuccession::sign;
    assert_eq!(sign(10, &signer(1), &signer(1)), Err(LogKeysError::Keys));
    assert_eq!(sign(10, &signer(1), &named("log.example/two", 2)), Err(LogKeysError::Keys));
    for from in [0, TREE_SIZE_MAX + 1] {
        assert_eq!(sign(from, &signer(1), &signer(2)), Err(LogKeysError::Text));
    }
    let text = link(10, 1, 2).note().text().replace("\n10\n", "\n010\n");
    let lines = vec![signer(1).sign(&text), signer(2).sign(&text)];
    let padded = Note::new(text, lines).unwrap().encode();
    assert_eq!(KeySuccession::open(padded.as_bytes()), Err(LogKeysError::Text));
}

#[test]
fn a_link_follows_the_one_before_it() {
    let key = |seed: u8| Box::new(signer(seed).verifier().clone());
    let first = || LogKeys::of(link(10, 1, 2));
    let order = LogKeysError::Order { expected: key(2), found: key(1) };
    assert_eq!(first().then(link(20, 1, 3)), Err(order), "two successors of one key");
    for from in [9, 10] {
        assert_eq!(first().then(link(from, 2, 3)), Err(LogKeysError::From { before: 10, found: from }));
    }
    assert_eq!(first().then(link(20, 2, 1)), Err(LogKeysError::Again(key(1))), "an old key comes back");
    let swapped = [link(20, 2, 3), link(10, 1, 2)].map(|link| link.note().encode());
    assert!(matches!(LogKeys::of_notes(swapped), Err(LogKeysError::Order { .. })));
}

#[test]
fn a_chain_is_bounded() {
    let mut chain = LogKeys::of(link(1, 0, 1));
    for seed in 1..64 {
        chain = chain.then(link(u64::from(seed) + 1, seed, seed + 1)).unwrap();
    }
    assert_eq!(LogKeys::parse(chain.encode().as_bytes()).unwrap().links().count(), LOG_KEYS_MAX);
    assert_eq!(chain.then(link(100, 64, 65)), Err(LogKeysError::Length));
    assert_eq!(LogKeys::parse(&vec![b'x'; LOG_KEYS_BYTES_MAX + 1]), Err(LogKeysError::Length));
    // The longest name there is, in a chain of the greatest length, is within the bound.
    let name = "x".repeat(255);
    let one = KeySuccession::sign(TREE_SIZE_MAX, &named(&name, 1), &named(&name, 2)).unwrap();
    assert!((one.note().encode().len() + 1) * LOG_KEYS_MAX <= LOG_KEYS_BYTES_MAX);
}

#[test]
fn whichever_key_is_pinned_each_size_is_signed_by_its_own() {
    for pinned in [1, 2, 3] {
        let trust = trust(pinned).following(chain()).unwrap();
        for (size, due) in [(9, 1), (10, 2), (19, 2), (20, 3)] {
            for by in [1, 2, 3] {
                let key = signer(by).verifier().clone();
                let verified = trust.verify(signed(size, by)).map(drop);
                let expected = if by < due {
                    Err(CheckpointError::Succeeded { size, key: Box::new(key), from: u64::from(by) * 10 })
                } else if by > due {
                    let due = signer(due).verifier().clone();
                    Err(VerifyError::Missing { name: due.name().clone(), key_id: due.key_id() }.into())
                } else {
                    Ok(())
                };
                assert_eq!(verified, expected, "{size} by {by}");
            }
        }
    }
}

#[test]
fn while_both_keys_sign_whoever_knows_either_verifies() {
    let both = checkpoint(12).sign(&signer(2).beside(signer(1))).unwrap();
    assert_eq!(both.signatures().len(), 2);
    for pinned in [1, 2] {
        assert!(trust(pinned).verify(both.clone()).is_ok(), "{pinned} alone");
        assert!(trust(pinned).following(chain()).unwrap().verify(both.clone()).is_ok(), "{pinned}");
    }
    // A second line that fails is not passed over.
    let lines = vec![signer(2).sign(both.text()), signer(1).sign("something else\n")];
    let forged = Note::new(both.text().to_owned(), lines).unwrap();
    let failed = trust(2).following(chain()).unwrap().verify(forged);
    assert!(matches!(failed, Err(CheckpointError::Verify(VerifyError::Failed { .. }))));
}

#[test]
fn copies_follow_together_and_nobody_is_led_back_or_astray() {
    let first = LogKeys::of(link(10, 1, 2));
    let (trust, notes) = (trust(1), chain().notes().collect::<Vec<_>>());
    let copies = [trust.clone(), trust.without_witnesses()];
    assert!(trust.learn(first.clone()).unwrap());
    assert!(!trust.learn(first).unwrap());
    assert!(trust.verify(signed(25, 2)).is_ok(), "the third key is not known yet");
    assert!(trust.learn_notes(&notes).unwrap());
    assert!(!trust.learn_notes(&notes).unwrap());
    assert!(!trust.learn_notes(notes.get(..1).unwrap()).unwrap(), "a shorter one");
    assert!(!trust.learn_notes::<String>(&[]).unwrap());
    for copy in copies {
        assert!(copy.verify(signed(25, 3)).is_ok() && copy.knows(signer(3).verifier()));
        assert!(matches!(copy.verify(signed(25, 2)), Err(CheckpointError::Succeeded { .. })));
    }
    let fork = LogKeys::of(link(10, 1, 2)).then(link(15, 2, 4)).unwrap();
    let forked = trust.learn(fork).unwrap_err();
    assert!(matches!(forked, TrustError::Keys(LogKeysError::Forked { from: 20, .. })), "{forked}");
    assert!(trust.verify(signed(25, 3)).is_ok());
    let others = LogKeys::of(link(10, 5, 6));
    let refused = Err(TrustError::Keys(LogKeysError::OtherLog));
    assert_eq!(trust.learn(others.clone()), refused);
    assert_eq!(trust.learn(LogKeys::of(link(5, 9, 1))), refused);
    assert!(matches!(self::trust(1).learn(others), Err(TrustError::NotPinned(_))));
    // Who pinned the newest key is shown what was known before it: that says nothing, unless it is all that is known.
    let newest = self::trust(3).following(chain()).unwrap();
    assert!(!newest.learn(LogKeys::of(link(10, 1, 2))).unwrap());
    assert!(matches!(self::trust(3).learn(LogKeys::of(link(10, 1, 2))), Err(TrustError::NotPinned(_))));
}

#[test]
fn no_witness_shares_a_key_with_the_log() {
    let witness =
        |seed: u8| Cosigner::from_seed(KeyName::parse("w.example").unwrap(), &[seed; SEED_BYTES]).verifier().clone();
    let trust = trust(1).following(chain()).unwrap();
    assert!(matches!(trust.with_witnesses(vec![witness(3)], 1), Err(TrustError::Shared(..))));
    let apart = trust.with_witnesses(vec![witness(7)], 1).unwrap();
    assert_eq!(apart.verify(signed(20, 3)), Err(CheckpointError::Quorum { quorum: 1, found: 0 }));
    let unaware = LogTrust::new(signer(1).verifier().clone(), vec![witness(3)], 0).unwrap();
    assert!(matches!(unaware.following(chain()), Err(TrustError::Shared(..))));
}
