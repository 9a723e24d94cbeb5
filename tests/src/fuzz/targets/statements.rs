//! Terms, statements of every type, rosters, key sets and manifests. The first byte says which reader gets the rest.

use anteroom_proto::{
    rpc::SignedStatement,
    statement::{
        Payload,
        acts::{
            Acceptance, Appointment, Decline, Disposition, Hold, HoldRelease, Lift, Lock, Membership, Offer, Resume,
            RunCredential, Stop,
        },
        envelope::{from_file, read_json},
        key_set::{self, Enrolment, KeySet},
        model::{Manifest, Registration},
        roster::Roster,
        terms::Terms,
    },
};
use prost::Message as _;

use super::{
    super::{Outcome, Target},
    way, words_of,
};
use crate::sim::ensure;

/// The target.
pub struct Statements;

/// Reads a payload of a type: the type's name, or why not.
type Read = fn(&SignedStatement) -> Result<(), String>;

/// Every reader of payloads.
const READERS: [(&str, Read); 18] = [
    (Offer::TYPE, read::<Offer>),
    (Acceptance::TYPE, read::<Acceptance>),
    (Decline::TYPE, read::<Decline>),
    (Stop::TYPE, read::<Stop>),
    (Resume::TYPE, read::<Resume>),
    (Lock::TYPE, read::<Lock>),
    (Lift::TYPE, read::<Lift>),
    (Hold::TYPE, read::<Hold>),
    (HoldRelease::TYPE, read::<HoldRelease>),
    (Disposition::TYPE, read::<Disposition>),
    (RunCredential::TYPE, read::<RunCredential>),
    (Appointment::TYPE, read::<Appointment>),
    (Membership::TYPE, read::<Membership>),
    (Registration::TYPE, read::<Registration>),
    (Enrolment::TYPE, read::<Enrolment>),
    (KeySet::TYPE, read_key_set),
    (Roster::TYPE, read_roster),
    ("manifest", read_manifest),
];

/// The first byte that chooses a reader.
pub(super) fn index(name: &str) -> Option<u8> {
    let known = READERS.iter().position(|(known, _)| *known == name);
    let more = ["terms", "terms", "file"].iter().position(|other| *other == name).map(|at| READERS.len() + at);
    known.or(more).and_then(|at| u8::try_from(at).ok())
}

fn read<P: Payload + PartialEq>(statement: &SignedStatement) -> Result<(), String> {
    let payload: P = read_json(statement).map_err(|error| error.to_string())?;
    // What was read, written and read again is the same: no field is dropped, none is made up.
    let written = serde_json::to_vec(&payload).map_err(|error| format!("it cannot be written: {error}"))?;
    let again = SignedStatement { payload: written, ..statement.clone() };
    let again: P = read_json(&again).map_err(|error| fault(&error.to_string()))?;
    if again == payload { Ok(()) } else { Err(fault("it reads back as something else")) }
}

/// An answer that is a finding and no refusal.
fn fault(why: &str) -> String {
    format!("{FAULT}{why}")
}

const FAULT: &str = "!";

fn read_key_set(statement: &SignedStatement) -> Result<(), String> {
    read::<KeySet>(statement)?;
    let fingerprint = key_set::fingerprint(statement);
    key_set::follow(std::slice::from_ref(statement), fingerprint).map(|_| ()).map_err(|error| error.to_string())
}

fn read_roster(statement: &SignedStatement) -> Result<(), String> {
    Roster::parse(statement).map(|_| ()).map_err(|error| error.to_string())
}

fn read_manifest(statement: &SignedStatement) -> Result<(), String> {
    Manifest::parse(&statement.payload).map(|_| ()).map_err(|error| error.to_string())
}

impl Target for Statements {
    fn name(&self) -> &'static str {
        "statements"
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            "\"grant\":\"grant-0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\"",
            "\"org\":\"lab\"",
            "\"version\":1",
            "\"term_ms\":2592000000",
            "\"term_ms\":2592000001",
            "\"start_ms\":null",
            "\"additions\":\"\"",
            "\"features\":{}",
            "\"chat\":true",
            "\"logit_bias\":true",
            "\"extra\":1,",
            "\"version\":2,\"version\":1",
            "{\"on\":\"grant\",",
            "{\"on\":\"not_us_only\"}",
            "\"endpoint\":\"connector\"",
            "\"scanner_locks\":\"grant\"",
            "\"threshold\":{\"root\":0,\"signer\":255}",
            "\"role\":\"root\"",
            "null",
            "true",
            "{}",
            "[]",
            "\"\"",
            "-1",
            "9223372036854775807",
            "\"scope\":\"system\"",
            "\"scope\":\"reads/lab\"",
            ",",
            ":",
        ]
    }

    fn bytes_max(&self) -> usize {
        128 * 1024
    }

    fn check(&self, input: &[u8]) -> Outcome {
        let (first, bytes) = input.split_first().unwrap_or((&0, &[]));
        let which = usize::from(*first) % (READERS.len() + 3);
        match which.checked_sub(READERS.len()) {
            None => {
                let (name, reader) = READERS[which];
                let statement =
                    SignedStatement { payload_type: name.to_owned(), payload: bytes.to_vec(), signatures: Vec::new() };
                match reader(&statement) {
                    Ok(()) => Ok(way(&["yes", name])),
                    Err(why) if why.starts_with(FAULT) => Err(format!("`{name}`: {why}")),
                    Err(why) => Ok(way(&["no", name, &words_of(&why)])),
                }
            }
            Some(0 | 1) => match Terms::parse(bytes) {
                Ok(terms) => {
                    let written = serde_json::to_vec(&terms).map_err(|error| error.to_string())?;
                    let again = Terms::parse(&written).map_err(|error| format!("terms: not read again: {error}"))?;
                    ensure(again == terms, || "terms: they read back as something else".to_owned())?;
                    ensure(terms.window.term_ms.ms() <= 720 * 3_600_000, || "terms: longer than 720 hours".to_owned())?;
                    Ok(way(&["yes", "terms", &terms.features.chat.to_string(), &terms.runs.len().to_string()]))
                }
                Err(error) => Ok(way(&["no", "terms", &words_of(&error.to_string())])),
            },
            Some(_) => match from_file(&String::from_utf8_lossy(bytes)) {
                Ok(statement) => Ok(way(&["yes", "file", &statement.encoded_len().min(3).to_string()])),
                Err(error) => Ok(way(&["no", "file", &words_of(&error.to_string())])),
            },
        }
    }
}
