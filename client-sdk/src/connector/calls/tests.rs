#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::fs;

use anteroom_proto::{
    names::{CallId, GrantId},
    statement::{envelope::Signer, key::PublicKey},
};

use super::{
    book::{Book, path, segments},
    *,
};
use crate::{signer::KeyFile, store::segment::payload_of};

const NOW: i64 = 1_795_000_000_000;

fn names() -> (OrgId, ModelLine) {
    ("lab-a".parse().unwrap(), "aurora".parse().unwrap())
}

fn signer() -> SharedSigner {
    SharedSigner::new(KeyFile::from_seed(&[3; 32]).unwrap())
}

fn keys() -> Vec<PublicKey> {
    vec![signer().public_key().clone()]
}

fn begun(call: u8) -> CallBegun {
    CallBegun { call: vec![call; 16], grant: vec![7; 16], admitted: u64::from(call), at_ms: NOW, route: "chat".into() }
}

fn ended(call: u8) -> CallEnded {
    CallEnded {
        call: vec![call; 16],
        grant: vec![7; 16],
        admitted: u64::from(call),
        at_ms: NOW + 5,
        end: "completed".to_owned(),
        ..CallEnded::default()
    }
}

fn open(dir: &std::path::Path) -> CallList {
    let (lab, line) = names();
    CallList::open(dir, &lab, &line, Clock::new(|| NOW))
}

fn list(dir: &std::path::Path) -> Result<KeptList, ListError> {
    read(dir, &keys(), None).map(Option::unwrap)
}

/// A list with three calls under two seals.
async fn three(dir: &std::path::Path) {
    let list = open(dir);
    for call in 1..=3 {
        list.begun(begun(call)).await;
        list.ended(ended(call)).await;
        if call != 2 {
            list.seal(&signer()).await.unwrap();
        }
    }
    assert_eq!(list.health(), ListHealth::default());
}

#[tokio::test]
async fn calls_are_found_after_a_restart_under_the_connectors_seal() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path()).await;
    let again = open(dir.path());
    again.begun(begun(4)).await;
    let found = list(dir.path()).unwrap();
    assert_eq!((found.of.as_str(), found.first, found.begins.ms()), ("aurora by lab-a", 0, NOW));
    // A head, three calls with two lines each, two seals, one more line.
    assert_eq!((found.lines, found.unsealed, found.calls.len()), (10, 1, 4));
    assert_eq!(found.calls[&CallId::from_bytes([2; 16])], Kept { begun: Some(begun(2)), ended: Some(ended(2)) });
    assert_eq!(found.calls[&CallId::from_bytes([4; 16])].ended, None);
    // Nothing is sealed twice for nothing.
    again.seal(&signer()).await.unwrap();
    again.seal(&signer()).await.unwrap();
    assert_eq!((list(dir.path()).unwrap().lines, list(dir.path()).unwrap().unsealed), (11, 0));
    let other = read(dir.path(), &keys(), Some(GrantId::from_bytes([8; 16]))).unwrap().unwrap();
    assert_eq!((other.calls.len(), other.lines), (0, 11), "calls of other grants are checked and left out");
    assert!(matches!(read(dir.path(), &[], None), Err(ListError::Seal { .. })), "a stranger's seal is none");
    assert_eq!(read(&dir.path().join("nowhere"), &keys(), None).unwrap(), None);
}

#[tokio::test]
async fn every_altered_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path()).await;
    let file = path(&list_dir(dir.path()), 1);
    let bytes = fs::read(&file).unwrap();
    let whole = list(dir.path()).unwrap();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        fs::write(&file, &altered).unwrap();
        // A damaged length at the very end cannot be told from a line cut off by a crash.
        let tail = list(dir.path()).is_ok_and(|read| read.lines < whole.lines && read.unsealed > 0);
        assert!(tail || list(dir.path()).is_err(), "byte {at}");
    }
}

fn lines_of(bytes: &[u8]) -> Vec<Line> {
    let (mut lines, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let payload = payload_of(&bytes[at..]).unwrap();
        lines.push(Line::decode(payload).unwrap());
        at += 12 + payload.len();
    }
    lines
}

#[tokio::test]
async fn a_line_that_was_edited_breaks_the_chain_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path()).await;
    let file = path(&list_dir(dir.path()), 1);
    let mut lines = lines_of(&fs::read(&file).unwrap());
    let Some(What::Ended(ended)) = &mut lines[2].what else { unreachable!() };
    ended.output_tokens = Some(1);
    let mut bytes = Vec::new();
    for line in &lines {
        crate::store::segment::frame(&line.encode_to_vec(), &mut bytes);
    }
    fs::write(&file, bytes).unwrap();
    let error = list(dir.path()).unwrap_err();
    assert!(matches!(error, ListError::Chain(3)), "{error}");
}

/// Writes the list's lines anew after a change, chained as they should be.
fn rewritten(bytes: &[u8], change: impl Fn(&mut Vec<Line>)) -> Vec<u8> {
    let mut lines = lines_of(bytes);
    change(&mut lines);
    let (mut previous, mut out) = (Digest::from_bytes([0; 32]), Vec::new());
    for (number, mut line) in lines.into_iter().enumerate() {
        line.number = number as u64;
        line.previous = previous.as_bytes().to_vec();
        let payload = line.encode_to_vec();
        previous = Digest::of(&payload);
        crate::store::segment::frame(&payload, &mut out);
    }
    out
}

#[tokio::test]
async fn an_edited_list_that_is_chained_anew_shows_by_its_seals() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path()).await;
    let file = path(&list_dir(dir.path()), 1);
    let bytes = fs::read(&file).unwrap();
    assert_eq!(rewritten(&bytes, |_| {}), bytes);
    let changes: [fn(&mut Vec<Line>); 4] = [
        |lines| drop(lines.drain(1..3)),
        |lines| drop(lines.remove(2)),
        |lines| {
            if let Some(What::Ended(ended)) = &mut lines[2].what {
                ended.output_tokens = Some(1);
            }
        },
        |lines| lines.insert(1, Line { what: Some(What::Begun(begun(9))), ..Line::default() }),
    ];
    for change in changes {
        fs::write(&file, rewritten(&bytes, change)).unwrap();
        let error = list(dir.path()).unwrap_err();
        assert!(matches!(error, ListError::Seal { .. }), "{error}");
    }
    // Without its seals the list is whole again, and says that no key vouches for it.
    fs::write(&file, rewritten(&bytes, |lines| lines.retain(|line| !matches!(line.what, Some(What::Seal(_))))))
        .unwrap();
    assert_eq!(list(dir.path()).unwrap().unsealed, 6);
    fs::write(&file, rewritten(&bytes, |lines| lines.insert(3, lines[2].clone()))).unwrap();
    assert!(matches!(list(dir.path()).unwrap_err(), ListError::Line { number: 3, .. }), "a call ends once");
}

#[tokio::test]
async fn a_line_cut_at_any_byte_is_dropped_and_the_list_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path()).await;
    let file = path(&list_dir(dir.path()), 1);
    let bytes = fs::read(&file).unwrap();
    let mut last = 0;
    while let Some(payload) = payload_of(&bytes[last..]).filter(|payload| last + 12 + payload.len() < bytes.len()) {
        last += 12 + payload.len();
    }
    for end in last..bytes.len() {
        fs::write(&file, &bytes[..end]).unwrap();
        assert_eq!(list(dir.path()).unwrap().lines, 8, "read while it is written, {end}");
        let again = open(dir.path());
        again.begun(begun(4)).await;
        assert_eq!(again.health(), ListHealth::default(), "{end}");
        drop(again);
        let found = list(dir.path()).unwrap();
        assert_eq!((found.lines, found.calls.len()), (9, 4), "{end}");
    }
}

#[test]
fn segments_follow_each_other_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let ((lab, line), at) = (names(), At::clamped(NOW));
    let own = list_dir(dir.path());
    let book = || Book::open(&own, &lab, &line, 1, at).unwrap();
    let mut first = book();
    for call in 1..=3 {
        first.append(vec![What::Begun(begun(call)), What::Ended(ended(call))], at).unwrap();
    }
    drop(first);
    // Each restart and each full segment begins another one behind the last.
    let mut again = book();
    again.append(vec![What::Begun(begun(4))], at).unwrap();
    drop(again);
    let found = list(dir.path()).unwrap();
    assert_eq!((found.calls.len(), segments(&own).unwrap().len(), found.first), (4, 5, 0));
    fs::remove_file(path(&own, 3)).unwrap();
    assert!(matches!(list(dir.path()).unwrap_err(), ListError::Chain(_)), "a segment is missing in between");
    let mut many = book();
    for call in 0..=u8::try_from(SEGMENTS_MAX).unwrap() {
        many.append(vec![What::Begun(begun(100 + call))], at).unwrap();
    }
    let found = list(dir.path()).unwrap();
    assert_eq!(segments(&own).unwrap().len(), SEGMENTS_MAX);
    assert!(found.first > 0 && found.calls.len() < SEGMENTS_MAX + 5, "{} {}", found.first, found.calls.len());
    // Killed between making a segment and writing its head.
    let newest = segments(&own).unwrap().pop().unwrap();
    drop(many);
    fs::write(path(&own, newest + 1), b"").unwrap();
    book().append(vec![What::Ended(ended(100))], at).unwrap();
    drop(list(dir.path()).unwrap());
}

#[tokio::test]
async fn a_list_that_cannot_be_used_is_said_and_stops_no_call() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path()).await;
    let file = path(&list_dir(dir.path()), 1);
    let mut bytes = fs::read(&file).unwrap();
    bytes[40] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let damaged = open(dir.path());
    damaged.begun(begun(4)).await;
    damaged.seal(&signer()).await.unwrap();
    let health = damaged.health();
    assert_eq!(health.left_out, 1);
    assert!(health.why.unwrap().contains("damaged"));
    assert_eq!(fs::read(&file).unwrap(), bytes, "evidence stays as it is");
    let (_, line) = names();
    let other = CallList::open(dir.path(), &"lab-b".parse().unwrap(), &line, Clock::new(|| NOW));
    assert!(other.health().why.is_some());
}
