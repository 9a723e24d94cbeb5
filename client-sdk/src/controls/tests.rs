#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::collections::BTreeSet;

use anteroom_proto::time::At;
use serde_json::Value;

use super::*;

#[test]
fn every_kind_field_and_code_of_the_registry_is_there_and_none_besides() {
    let controls = controls();
    let of = |id: &str| controls.iter().find(|control| control.id == id).unwrap();
    assert_eq!(of("au-2").kinds, KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>());
    let fields: usize = KINDS.iter().map(|kind| kind.fields.iter().filter(|field| field.number > 15).count()).sum();
    assert_eq!(of("au-3").fields.len(), fields);
    assert_eq!(of("au-12").codes.len(), Refusal::ALL.len());
    let known: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
    for control in &controls {
        assert!(control.kinds.iter().all(|kind| known.contains(kind)), "{}", control.id);
    }
    // Names that are written down here are the registry's: none was lost on the way.
    assert_eq!((of("au-6").kinds.len(), of("au-9").kinds.len(), of("au-11").kinds.len()), (6, 4, 3));
    assert!(!of("au-9").fields.is_empty() && !of("au-11").fields.is_empty());
    for kind in ["GrantOffered", "GrantAccepted", "CallAdmitted", "CallFinished", "LockSet"] {
        assert!(of("au-10").kinds.contains(&kind), "{kind} holds what somebody signed");
    }
    for kind in KINDS {
        let common: Vec<_> = kind.fields.iter().filter(|field| field.number <= 15).map(|field| field.name).collect();
        assert_eq!(common, super::common().collect::<Vec<_>>(), "{}", kind.name);
    }
}

#[test]
fn every_word_for_what_is_signed_is_a_field_of_some_record() {
    for word in SIGNED {
        assert!(KINDS.iter().any(|kind| own(kind).any(|field| field.name == word)), "{word}");
    }
}

#[test]
fn the_definition_keeps_its_identifiers_and_each_is_there_once() {
    let early = oscal::component_definition(At::clamped(1_795_000_000_000));
    let late = oscal::component_definition(At::clamped(1_796_000_000_000));
    let mut found = Vec::new();
    uuids(&early, &mut found);
    assert_eq!(found.len(), 3 + controls().len());
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
    let mut again = Vec::new();
    uuids(&late, &mut again);
    assert_eq!(found, again, "the time alone changes none");
    let metadata = &early["component-definition"]["metadata"];
    assert_eq!((metadata["oscal-version"].as_str(), metadata["last-modified"] == "x"), (Some("1.1.3"), false));
}

fn uuids(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.get("uuid").map(|uuid| uuid.as_str().unwrap().to_owned()));
            fields.values().for_each(|value| uuids(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| uuids(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
