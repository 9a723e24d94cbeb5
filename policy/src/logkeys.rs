//! How the log's key hands over to the next one, on record.

use anteroom_proto::{
    ledger::{
        logkeys::KeySuccession,
        record::{Record, RecordError},
        scope::Scope,
    },
    rpc::{self, RecordHeader},
};

use crate::{
    command::{Decision, Reply},
    event::Event,
    standing::Standing,
    state::State,
};

/// Records a succession if it is the one that is due: by the key that signs now, and for no later checkpoint than the next.
pub(crate) fn decide(state: &State, succession: &KeySuccession) -> Decision {
    let standing = state.standing();
    let (old_key, new_key, from) = (succession.old().to_string(), succession.next().to_string(), succession.from());
    let due = old_key == standing.log_key && succession.old().name().as_str() == standing.origin;
    if !due || from > state.size().saturating_add(1) {
        return Decision { events: Vec::new(), reply: Reply::Noted };
    }
    let event = Event::LogKeySucceeded { old_key, new_key, from, note: succession.note().encode() };
    Decision { events: vec![(Scope::System, event)], reply: Reply::Noted }
}

/// Whose turn it is after `event`.
pub(crate) fn apply(standing: &mut Standing, event: &Event) {
    if let Event::LogKeySucceeded { new_key, note, .. } = event {
        standing.log_key.clone_from(new_key);
        standing.log_keys.push_back(note.clone());
    }
}

/// Writes the record.
///
/// # Errors
/// It is larger than a record may be, or another kind of event.
pub(crate) fn out(header: &impl Fn(u32) -> RecordHeader, event: &Event) -> Result<Record, RecordError> {
    let Event::LogKeySucceeded { old_key, new_key, from, note } = event else {
        return Err(RecordError::Event("this is written elsewhere"));
    };
    let (old_key, new_key, note) = (old_key.clone(), new_key.clone(), note.clone());
    Record::new(&header(72), &rpc::LogKeySucceeded { old_key, new_key, from: *from, note })
}

/// Reads one.
pub(crate) fn read(m: rpc::LogKeySucceeded) -> Event {
    Event::LogKeySucceeded { old_key: m.old_key, new_key: m.new_key, from: m.from, note: m.note }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::{
        ledger::{
            leaf::Entry,
            note::{KeyName, NoteSigner},
        },
        names::Digest,
        time::At,
    };

    use super::*;
    use crate::event::Entered;

    fn signer(seed: u8) -> NoteSigner {
        NoteSigner::from_seed(KeyName::parse("log.example/a").unwrap(), &[seed; 32])
    }

    fn apply_to(state: &mut State, event: Event) {
        let (index, scope) = (state.size(), Scope::System);
        let at = At::from_ms(1_767_225_600_000).unwrap();
        state.apply(&Entered { index, at, scope, seq: index, entry: Entry::from_bytes([7; 48]), event });
    }

    #[test]
    fn only_the_succession_that_is_due_is_recorded() {
        let (one, two, three) = (signer(1), signer(2), signer(3));
        let mut state = State::default();
        let (origin, log_key) = ("log.example/a".to_owned(), one.verifier().to_string());
        apply_to(&mut state, Event::LogOpened { origin, log_key, nonce: Digest::of(b"nonce") });
        let decided = |state: &State, from, old, new| {
            let decision = decide(state, &KeySuccession::sign(from, old, new).unwrap());
            decision.events.into_iter().next().map(|(_, event)| event)
        };
        assert_eq!(decided(&state, 2, &two, &three), None, "another key's");
        assert_eq!(decided(&state, 3, &one, &two), None, "no key would sign the next checkpoint");
        let event = decided(&state, 2, &one, &two).unwrap();
        apply_to(&mut state, event);
        let standing = state.standing();
        assert_eq!((standing.log_key.clone(), standing.log_keys.len()), (two.verifier().to_string(), 1));
        assert_eq!(decided(&state, 2, &one, &two), None, "it is on record");
        assert!(decided(&state, 3, &two, &three).is_some());
    }
}
