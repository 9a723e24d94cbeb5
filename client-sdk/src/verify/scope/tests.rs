#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_proto::{
    ledger::record::Audience,
    names::{GrantId, OrgId},
    rpc::{GrantLapsed, OpenField},
};

use super::{super::world::MiniLog, *};

const LAPSED: u32 = 23;

fn scope() -> Scope {
    Scope::Grant(GrantId::from_bytes([1; 16]))
}

fn tag_key() -> TagKey {
    scope().tag_key(&Digest::of(b"nonce"))
}

fn event(number: i64) -> GrantLapsed {
    GrantLapsed { lapsed_ms: number }
}

/// A log with `count` records of the scope, each followed by one of another scope.
fn log(count: i64) -> MiniLog {
    let mut log = MiniLog::new();
    let other = Scope::Organisation(OrgId::parse("other").unwrap());
    let other_key = other.tag_key(&Digest::of(b"other"));
    for number in 1..=count {
        log.append(&scope(), &tag_key(), LAPSED, &event(number));
        log.append(&other, &other_key, LAPSED, &event(-number));
    }
    log
}

fn reply(log: &MiniLog, index: u64) -> ReadReply {
    ReadReply { record: Some(log.prove(index, Audience::SCOPE)), ..ReadReply::default() }
}

fn read(log: &MiniLog, indexes: &[u64]) -> Result<Slice, SliceError> {
    let mut slice = Slice::new(scope(), tag_key(), log.trust());
    for index in indexes {
        slice.take(&reply(log, *index))?;
    }
    Ok(slice)
}

fn sweep(log: &MiniLog, slice: Slice, entries: &[Entry]) -> Result<WholeSlice, SliceError> {
    let checkpoint = log.trust().verify(log.note()).unwrap();
    let mut sweep = slice.sweep(checkpoint)?;
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| *entry.as_bytes()).collect();
    // Entries come in pieces of any length.
    for piece in bytes.chunks(61) {
        sweep.take(piece)?;
    }
    sweep.finish()
}

#[test]
fn a_whole_slice_is_shown_to_be_whole() {
    let log = log(4);
    let slice = read(&log, &[0, 2, 4, 6]).unwrap();
    let whole = sweep(&log, slice, &log.entries).unwrap();
    assert_eq!((whole.records(), whole.scope()), (4, &scope()));
    assert_eq!(whole.checkpoint().checkpoint().size(), 8);
    // A scope without records is whole too.
    let empty = MiniLog::new();
    let whole = sweep(&empty, read(&empty, &[]).unwrap(), &[]).unwrap();
    assert_eq!(whole.records(), 0);
}

#[test]
fn a_withheld_last_record_is_found() {
    let log = log(4);
    let slice = read(&log, &[0, 2, 4]).unwrap();
    let found = sweep(&log, slice, &log.entries).unwrap_err();
    assert_eq!(found, SliceError::Withheld { seq: 3, at: 6 });
}

#[test]
fn a_record_left_out_in_between_is_found() {
    let log = log(4);
    let found = read(&log, &[0, 4]).unwrap_err();
    assert_eq!(found, SliceError::Gap { expected: 1, found: 2 });
    let found = read(&log, &[0, 0]).unwrap_err();
    assert_eq!(found, SliceError::Gap { expected: 1, found: 0 });
}

#[test]
fn two_histories_of_one_scope_are_found() {
    let mut log = log(2);
    // A second record claims position 1, for another reader.
    let first = *log.entries.first().unwrap();
    log.append_at(&scope(), &tag_key(), LAPSED, &event(99), 1, first);
    let one = sweep(&log, read(&log, &[0, 2]).unwrap(), &log.entries);
    assert_eq!(one.unwrap_err(), SliceError::Forked { seq: 1, at: 4 });
    let other = sweep(&log, read(&log, &[0, 4]).unwrap(), &log.entries);
    assert_eq!(other.unwrap_err(), SliceError::Forked { seq: 1, at: 2 });
}

#[test]
fn a_record_that_does_not_follow_is_found() {
    let mut log = log(1);
    log.append_at(&scope(), &tag_key(), LAPSED, &event(2), 1, Entry::NONE);
    assert_eq!(read(&log, &[0, 2]).unwrap_err(), SliceError::Chain(1));
}

#[test]
fn a_record_of_another_scope_is_found() {
    let mut log = log(1);
    let other = Scope::Grant(GrantId::from_bytes([2; 16]));
    // Even one that carries this scope's tag.
    let first = *log.entries.first().unwrap();
    log.append_at(&other, &tag_key(), LAPSED, &event(2), 1, first);
    assert_eq!(read(&log, &[0, 2]).unwrap_err(), SliceError::OtherScope(other));
    // Without it, it is not in the log at all as far as this reader can tell.
    assert!(matches!(read(&log, &[1]).unwrap_err(), SliceError::Record { seq: 0, .. }));
}

#[test]
fn other_entries_than_the_checkpoints_are_found() {
    let log = log(3);
    let all = || read(&log, &[0, 2, 4]).unwrap();
    let mut swapped = log.entries.clone();
    swapped.swap(1, 3);
    assert_eq!(sweep(&log, all(), &swapped).unwrap_err(), SliceError::Root(6));
    let (_, short) = log.entries.split_last().unwrap();
    assert_eq!(sweep(&log, all(), short).unwrap_err(), SliceError::Entries { expected: 6, found: 5 });
    let long = [log.entries.as_slice(), &[Entry::NONE]].concat();
    assert_eq!(sweep(&log, all(), &long).unwrap_err(), SliceError::Entries { expected: 6, found: 7 });
}

#[test]
fn every_altered_byte_of_a_record_is_found() {
    let log = log(2);
    let honest = reply(&log, 0);
    let record = honest.record.as_ref().unwrap();
    let fields = record.opening.as_ref().unwrap().open.len();
    let check = |alter: &dyn Fn(&mut ProvenRecord)| {
        let mut altered = record.clone();
        alter(&mut altered);
        let mut slice = Slice::new(scope(), tag_key(), log.trust());
        let reply = ReadReply { record: Some(altered), ..ReadReply::default() };
        assert!(slice.take(&reply).is_err());
    };
    for at in 0..fields {
        let field = |record: &mut ProvenRecord, change: &dyn Fn(&mut OpenField)| {
            let opening = record.opening.as_mut().unwrap();
            change(opening.open.get_mut(at).unwrap());
        };
        check(&|record| field(record, &|field| *field.salt.first_mut().unwrap() ^= 1));
        check(&|record| field(record, &|field| field.wire.push(0)));
        check(&|record| field(record, &|field| field.number += 1));
        check(&|record| {
            record.opening.as_mut().unwrap().open.remove(at);
        });
    }
    check(&|record| record.path.first_mut().unwrap().swap(0, 1));
    check(&|record| {
        record.path.pop();
    });
    check(&|record| record.path.push(vec![0; 32]));
    check(&|record| record.checkpoint = record.checkpoint.replace("\n4\n", "\n5\n"));
    check(&|record| record.opening = None);
}

#[test]
fn the_full_bytes_must_be_the_records_own() {
    let log = log(2);
    let (record, seed) = log.records.first().unwrap();
    let (other, _) = log.records.get(2).unwrap();
    let take = |full: &[u8], seed: &[u8]| {
        let mut slice = Slice::new(scope(), tag_key(), log.trust());
        slice.take(&ReadReply { full: full.to_vec(), seed: seed.to_vec(), ..reply(&log, 0) })
    };
    let taken = take(record.bytes(), seed.as_bytes()).unwrap();
    assert_eq!(taken.full.unwrap().bytes(), record.bytes());
    for (full, seed) in [
        (other.bytes(), seed.as_bytes().as_slice()),
        (record.bytes(), &[0; 32]),
        (record.bytes(), &[]),
        (&[], seed.as_bytes()),
    ] {
        assert_eq!(take(full, seed).unwrap_err(), SliceError::Full(0));
    }
}

#[test]
fn the_brokers_word_for_a_tag_key_is_only_compared() {
    let log = log(1);
    let mut slice = Slice::new(scope(), tag_key(), log.trust());
    let wrong = ReadReply { tag_key: vec![1; 32], ..reply(&log, 0) };
    assert_eq!(slice.take(&wrong).unwrap_err(), SliceError::TagKey(scope()));
}

#[test]
fn records_are_checked_with_the_key_of_the_scope_they_name() {
    let log = log(1);
    let keys = TagKeys::default().with(scope(), &Digest::of(b"nonce"));
    let proven = log.prove(0, Audience::SCOPE);
    let record = keys.verify(&proven, &log.trust()).unwrap();
    assert_eq!(record.scope(), &scope());
    let unknown = keys.verify(&log.prove(1, Audience::SCOPE), &log.trust());
    assert!(matches!(unknown, Err(SliceError::NoTagKey(_))));
}
