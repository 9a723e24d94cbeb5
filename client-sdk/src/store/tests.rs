#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use super::*;

fn kept(number: u8) -> KeptReceipt {
    KeptReceipt {
        call: vec![number; 16],
        receipt: Some(Receipt::default()),
        outcome: Some(SignedStatement {
            payload_type: "type".to_owned(),
            payload: vec![number; 100],
            signatures: Vec::new(),
        }),
        kept_ms: i64::from(number),
        witnessed: None,
    }
}

fn call(number: u8) -> CallId {
    CallId::from_bytes([number; 16])
}

#[test]
fn receipts_are_found_after_a_restart_and_over_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ReceiptStore::open_with(folder.path(), 300).unwrap();
    for number in 1..=9 {
        store.append(&[kept(number)]).unwrap();
    }
    store.append(&[KeptReceipt { kept_ms: 99, ..kept(4) }]).unwrap();
    assert!(store.segments.len() > 2);
    drop(store);
    let store = ReceiptStore::open_with(folder.path(), 300).unwrap();
    assert_eq!(store.len(), 9);
    assert_eq!(store.find(call(7)).unwrap(), Some(kept(7)));
    assert_eq!(store.find(call(4)).unwrap().unwrap().kept_ms, 99);
    assert_eq!(store.find(call(10)).unwrap(), None);
}

#[test]
fn a_frame_cut_at_any_byte_is_dropped_and_the_rest_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ReceiptStore::open(folder.path()).unwrap();
    store.append(&[kept(1), kept(2)]).unwrap();
    let path = store.path(0);
    drop(store);
    let bytes = fs::read(&path).unwrap();
    let first = payload_of(&bytes).unwrap().len() + FRAME_HEAD_BYTES;
    for end in first..bytes.len() {
        fs::write(&path, &bytes[..end]).unwrap();
        let mut store = ReceiptStore::open(folder.path()).unwrap();
        assert_eq!(store.calls(), [call(1)], "cut at {end}");
        // What was cut is gone for good, and writing goes on where it was.
        store.append(&[kept(3)]).unwrap();
        drop(store);
        let store = ReceiptStore::open(folder.path()).unwrap();
        assert_eq!(store.calls(), [call(1), call(3)], "cut at {end}");
    }
}

#[test]
fn every_altered_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = ReceiptStore::open(folder.path()).unwrap();
    store.append(&[kept(1), kept(2)]).unwrap();
    let path = store.path(0);
    drop(store);
    let bytes = fs::read(&path).unwrap();
    let first = payload_of(&bytes).unwrap().len() + FRAME_HEAD_BYTES;
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        fs::write(&path, &altered).unwrap();
        let opened = ReceiptStore::open(folder.path()).map(|store| store.len());
        // In the last frame a damaged length cannot be told from a cut one.
        let cut = (first..first + 4).contains(&at) && matches!(opened, Ok(1));
        assert!(cut || matches!(opened, Err(StoreError::Damaged { .. })), "byte {at}");
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let first = ReceiptStore::open(folder.path()).unwrap();
    assert!(matches!(ReceiptStore::open(folder.path()), Err(StoreError::InUse(_))));
    drop(first);
    assert!(ReceiptStore::open(folder.path()).is_ok());
}

#[tokio::test]
async fn tasks_keep_receipts_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = ReceiptKeeper::new(ReceiptStore::open(folder.path()).unwrap());
    let tasks = (1..=50).map(|number| {
        let keeper = keeper.clone();
        async move { keeper.keep(kept(number)).await }
    });
    for kept in futures_util::future::join_all(tasks).await {
        kept.unwrap();
    }
    assert_eq!(keeper.find(call(33)).await.unwrap(), Some(kept(33)));
    assert_eq!(keeper.calls().len(), 50);
}
