//! The store: what was kept is found again, and damage is told from a crash.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use anteroom_proto::names::Digest;

use super::{
    super::{
        store::{DAYS, Entry, file::HEAD_BYTES, index},
        *,
    },
    GRANT, NOW, at, call, delta, gathered, prose,
};

const SMALL: Limits = Limits { days: DAYS, bytes_max: u64::MAX, segment_bytes: 20_000 };

fn entry(key: &FingerprintKey, n: u64, text: &str) -> Entry {
    let selected = gathered(key, &[&delta(text)]);
    Entry {
        call: call(n).as_bytes().to_vec(),
        grant: GRANT.as_bytes().to_vec(),
        at_ms: NOW,
        cut: selected.cut,
        prints: selected.values.iter().flat_map(|value| *key.print(*value).as_bytes()).collect(),
    }
}

/// A store with `count` answers, synced to its end as an orderly end leaves it.
fn filled(dir: &Path, count: u64, limits: Limits) -> Vec<Digest> {
    let mut store = FingerprintStore::open(dir, limits).unwrap();
    let key = store.key();
    let digests = (0..count).map(|n| store.append(&entry(&key, n, &prose(n, 60)), at(NOW)).unwrap()).collect();
    sync(&mut store);
    digests
}

fn sync(store: &mut FingerprintStore) {
    let (unsynced, _) = store.unsynced();
    for segment in unsynced {
        segment.sync().unwrap();
        store.synced(&segment);
    }
}

fn calls(dir: &Path, text: &str) -> Vec<(u64, Digest)> {
    let library = Library::open(dir).unwrap().unwrap();
    let found = library.find(&Question::new(text.as_bytes()), None).unwrap();
    let number = |found: &Found| u64::from_be_bytes(found.call.as_bytes()[6..14].try_into().unwrap());
    found.iter().map(|found| (number(found), found.digest)).collect()
}

fn segment(dir: &Path, number: u64) -> std::path::PathBuf {
    dir.join(format!("fp-{number:06}.seg"))
}

#[test]
fn an_excerpt_names_its_call_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let digests = filled(dir.path(), 50, SMALL);
    for n in [0, 7, 49] {
        let text = prose(n, 60);
        assert_eq!(calls(dir.path(), &text[100..190]), [(n, digests[usize::try_from(n).unwrap()])], "{n}");
        assert_eq!(calls(dir.path(), &text.to_uppercase().replace(' ', "\n> ")).len(), 1);
    }
    assert!(calls(dir.path(), &prose(1_000, 60)).is_empty());
}

#[test]
fn the_longest_run_and_the_share_are_told() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3, SMALL);
    let (own, other) = (prose(1, 60), prose(900, 60));
    let library = Library::open(dir.path()).unwrap().unwrap();
    let find = |text: &str| library.find(&Question::new(text.as_bytes()), None).unwrap().remove(0);
    let whole = find(&own);
    assert_eq!(whole.matched, whole.of);
    assert!(whole.run > own.trim_end().len() - 2 * WINDOW * 2, "{} of {}", whole.run, own.len());
    let mixed = find(&format!("{other}{}{other}", &own[..200]));
    assert!(mixed.matched < mixed.of && (130..=200).contains(&mixed.run), "{mixed:?}");
    let other_grant =
        library.find(&Question::new(own.as_bytes()), Some(anteroom_proto::names::GrantId::from_bytes([9; 16])));
    assert!(other_grant.unwrap().is_empty());
}

#[test]
fn an_answers_own_events_and_body_are_questions_too() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 5, SMALL);
    let text = prose(3, 60);
    let lines: String = text.split_inclusive(' ').map(|word| delta(word) + "\n").collect();
    let stream: String = text.split_inclusive(' ').map(|word| format!("data: {}\n\n", delta(word))).collect();
    for question in [lines + "[DONE]\n", stream + "data: [DONE]\n\n", delta(&text)] {
        let found = calls(dir.path(), &question);
        assert_eq!(found.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3]);
    }
}

#[test]
fn an_index_finds_what_reading_everything_finds() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 120, SMALL);
    let text = prose(33, 60);
    let read = calls(dir.path(), &text);
    assert!(segment(dir.path(), 2).exists(), "several segments");
    let keeper = Keeper::new(FingerprintStore::open(dir.path(), SMALL).unwrap()).unwrap();
    keeper.tend(at(NOW));
    let indexed = index::path(dir.path(), 1);
    assert!(indexed.exists());
    assert_eq!(calls(dir.path(), &text), read);
    for n in 0..120 {
        assert_eq!(calls(dir.path(), &prose(n, 60)[50..160]).iter().map(|(n, _)| *n).collect::<Vec<_>>(), [n]);
    }
    // A damaged one is read past.
    for byte in [3, 30, 60, 5_000] {
        let mut bytes = fs::read(&indexed).unwrap();
        bytes[byte] ^= 1;
        fs::write(&indexed, &bytes).unwrap();
        assert_eq!(calls(dir.path(), &prose(2, 60)[50..160]).len(), 1, "byte {byte}");
        bytes[byte] ^= 1;
        fs::write(&indexed, &bytes).unwrap();
    }
    fs::write(&indexed, b"short").unwrap();
    assert_eq!(calls(dir.path(), &prose(2, 60)[50..160]).len(), 1);
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FingerprintStore::open(dir.path(), SMALL).unwrap();
    let key = store.key();
    store.append(&entry(&key, 0, &prose(0, 60)), at(NOW)).unwrap();
    sync(&mut store);
    let whole = fs::read(segment(dir.path(), 1)).unwrap().len();
    store.append(&entry(&key, 1, &prose(1, 20)), at(NOW)).unwrap();
    drop(store);
    let bytes = fs::read(segment(dir.path(), 1)).unwrap();
    for cut in (whole..bytes.len()).step_by(7) {
        fs::write(segment(dir.path(), 1), &bytes[..cut]).unwrap();
        assert_eq!(calls(dir.path(), &prose(0, 60)).len(), 1, "read while it is torn at {cut}");
        let mut store = FingerprintStore::open(dir.path(), SMALL).unwrap();
        assert_eq!(fs::read(segment(dir.path(), 1)).unwrap().len(), whole, "cut at {cut}");
        store.append(&entry(&key, 2, &prose(2, 60)), at(NOW)).unwrap();
        drop(store);
        assert_eq!(calls(dir.path(), &prose(2, 60)).len(), 1, "{cut}");
    }
    // Bytes that the disk lost in the middle of what was not synced are no damage either.
    let mut holed = bytes.clone();
    holed[whole + 20..whole + 40].fill(0);
    fs::write(segment(dir.path(), 1), &holed).unwrap();
    drop(FingerprintStore::open(dir.path(), SMALL).unwrap());
    assert_eq!(fs::read(segment(dir.path(), 1)).unwrap().len(), whole);
}

#[test]
fn a_file_without_its_head_is_what_a_crash_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let digests = filled(dir.path(), 2, SMALL);
    fs::write(segment(dir.path(), 2), b"anteroom-fp").unwrap();
    assert_eq!(calls(dir.path(), &prose(1, 60)), [(1, digests[1])]);
    let mut store = FingerprintStore::open(dir.path(), SMALL).unwrap();
    let key = store.key();
    store.append(&entry(&key, 7, &prose(7, 60)), at(NOW)).unwrap();
    assert_eq!(calls(dir.path(), &prose(7, 60)).len(), 1);
    sync(&mut store);
    assert_eq!(store.expire(at(NOW)).unwrap(), 0, "what was never a segment is not looked for");
}

#[test]
fn a_flipped_byte_anywhere_is_refused_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3, SMALL);
    let path = segment(dir.path(), 1);
    let bytes = fs::read(&path).unwrap();
    // The instant in the head (32 to 39) only says when the segment was begun.
    for byte in (0..32).chain(40..bytes.len()) {
        let mut altered = bytes.clone();
        altered[byte] ^= 4;
        fs::write(&path, &altered).unwrap();
        let error = FingerprintStore::open(dir.path(), SMALL).err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| unreachable!("byte {byte} is not missed"));
        assert!(error.contains("fp-000001.seg"), "byte {byte}: {error}");
        let library = Library::open(dir.path()).unwrap().unwrap();
        assert!(library.find(&Question::new(prose(0, 60).as_bytes()), None).is_err(), "byte {byte}");
    }
    // So is a segment that lost its synced end.
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(FingerprintStore::open(dir.path(), SMALL), Err(StoreError::Damaged { .. })));
    fs::write(&path, &bytes).unwrap();
    assert!(FingerprintStore::open(dir.path(), SMALL).is_ok());
}

#[test]
fn an_entry_counts_in_its_own_place_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60, Limits { segment_bytes: 5_000, ..SMALL });
    let (one, two) = (fs::read(segment(dir.path(), 1)).unwrap(), fs::read(segment(dir.path(), 2)).unwrap());
    let moved = [&two[..HEAD_BYTES], &one[HEAD_BYTES..]].concat();
    fs::write(segment(dir.path(), 2), moved).unwrap();
    let library = Library::open(dir.path()).unwrap().unwrap();
    let error = library.find(&Question::new(prose(0, 60).as_bytes()), None).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { at, .. } if at == HEAD_BYTES as u64), "{error}");
}

#[test]
fn another_key_and_a_missing_one_are_told_apart_from_damage() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 2, SMALL);
    let key = dir.path().join("key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let own = fs::read_to_string(&key).unwrap();
    let other = tempfile::tempdir().unwrap();
    filled(other.path(), 1, SMALL);
    fs::copy(other.path().join("key"), &key).unwrap();
    assert!(matches!(FingerprintStore::open(dir.path(), SMALL), Err(StoreError::OtherKey(_))));
    let library = Library::open(dir.path()).unwrap().unwrap();
    assert!(matches!(library.find(&Question::new(prose(0, 60).as_bytes()), None), Err(StoreError::OtherKey(_))));
    for damaged in ["", "nonsense", &own[..own.len() - 3]] {
        fs::write(&key, damaged).unwrap();
        let error = FingerprintStore::open(dir.path(), SMALL).unwrap_err();
        assert!(matches!(error, StoreError::Key(KeyError::Unreadable(_))), "{error}");
    }
    fs::remove_file(&key).unwrap();
    let error = FingerprintStore::open(dir.path(), SMALL).unwrap_err();
    assert!(matches!(error, StoreError::Key(KeyError::Missing(_))), "{error}");
    assert!(Library::open(dir.path()).is_err());
    assert!(!key.exists(), "no new key beside what another sealed");
    fs::write(&key, own).unwrap();
    assert_eq!(calls(dir.path(), &prose(1, 60)).len(), 1);
}

#[test]
fn without_the_key_nothing_in_the_folder_tells_which_answers_share_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FingerprintStore::open(dir.path(), SMALL).unwrap();
    let key = store.key();
    let text = prose(1, 60);
    let same = entry(&key, 1, &text);
    let one = store.append(&same, at(NOW)).unwrap();
    assert_ne!(one, store.append(&same, at(NOW)).unwrap(), "the same answer is sealed otherwise every time");
    for n in 2..200 {
        store.append(&entry(&key, n, &text), at(NOW)).unwrap();
    }
    let keeper = Keeper::new(store).unwrap();
    keeper.tend(at(NOW));
    assert!(index::path(dir.path(), 1).exists());
    let print: Vec<u8> = same.prints[..6].to_vec();
    for file in fs::read_dir(dir.path()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for needle in [print.as_slice(), call(1).as_bytes(), GRANT.as_bytes(), &print[..4]] {
            assert!(!bytes.windows(needle.len()).any(|part| part == needle));
        }
    }
}

#[test]
fn two_writers_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let first = FingerprintStore::open(dir.path(), SMALL).unwrap();
    assert!(matches!(FingerprintStore::open(dir.path(), SMALL), Err(StoreError::InUse(_))));
    drop(first);
    assert!(FingerprintStore::open(dir.path(), SMALL).is_ok());
}

#[test]
fn what_is_too_old_or_too_much_goes_with_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let day = 86_400_000;
    let limits = Limits { days: 3, bytes_max: u64::MAX, segment_bytes: u64::MAX };
    let mut store = FingerprintStore::open(dir.path(), limits).unwrap();
    let key = store.key();
    for n in 0..6 {
        let now = at(NOW + i64::try_from(n).unwrap() * day);
        store.append(&entry(&key, n, &prose(n, 60)), now).unwrap();
        sync(&mut store);
    }
    assert!(segment(dir.path(), 6).exists(), "a segment a day");
    assert_eq!(store.expire(at(NOW + 5 * day)).unwrap(), 2);
    let left: Vec<usize> = (0..6).map(|n| calls(dir.path(), &prose(n, 60)).len()).collect();
    assert_eq!(left, [0, 0, 1, 1, 1, 1]);
    drop(store);
    // By size, and never the one in use.
    let mut store = FingerprintStore::open(dir.path(), Limits { bytes_max: 1, ..limits }).unwrap();
    assert_eq!(store.expire(at(NOW + 5 * day)).unwrap(), 3);
    assert_eq!(calls(dir.path(), &prose(5, 60)).len(), 1);
    store.append(&entry(&key, 9, &prose(9, 60)), at(NOW + 5 * day)).unwrap();
    assert_eq!(calls(dir.path(), &prose(9, 60)).len(), 1);
}

#[test]
fn a_store_that_cannot_be_written_gives_no_digest_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = FingerprintStore::open(dir.path(), SMALL).unwrap();
    let key = store.key();
    let keeper = Keeper::new(store).unwrap();
    let selected = gathered(&key, &[&delta(&prose(1, 60))]);
    // The folder is gone, so no segment can be begun.
    let away = dir.path().with_extension("away");
    fs::rename(dir.path(), &away).unwrap();
    assert_eq!(keeper.keep(call(1), GRANT, at(NOW), &selected), None);
    let health = keeper.health();
    assert_eq!(health.left_out, 1);
    assert!(health.why.is_some_and(|why| why.contains("fp-000001.seg")));
    // It goes on by itself once there is room.
    fs::rename(&away, dir.path()).unwrap();
    assert!(keeper.keep(call(2), GRANT, at(NOW), &selected).is_some());
    let health = keeper.health();
    assert_eq!((health.left_out, health.why), (1, None));
    assert_eq!(calls(dir.path(), &prose(1, 60)).len(), 1);
    // An answer without text is none that is missed.
    assert_eq!(keeper.keep(call(3), GRANT, at(NOW), &Selected::default()), None);
    assert_eq!(keeper.health().left_out, 1);
}

#[test]
fn a_short_write_leaves_no_half_entry_behind() {
    let dir = tempfile::tempdir().unwrap();
    let digests = filled(dir.path(), 2, SMALL);
    // What a write that failed half way would leave, were it not taken back.
    let file = OpenOptions::new().write(true).open(segment(dir.path(), 1)).unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(&[1; 40], end).unwrap();
    let mut store = FingerprintStore::open(dir.path(), SMALL).unwrap();
    let key: Arc<FingerprintKey> = store.key();
    store.append(&entry(&key, 5, &prose(5, 60)), at(NOW)).unwrap();
    assert_eq!(calls(dir.path(), &prose(1, 60)), [(1, digests[1])]);
    assert_eq!(calls(dir.path(), &prose(5, 60)).len(), 1);
}
