//! What the log does when nothing is broken, and whom it refuses.

use super::super::super::disk::RealDisk;
use super::*;

#[test]
fn acknowledged_batches_are_read_back_in_order_across_segments() {
    let keyring = keyring();
    let batches: Vec<_> = (0..40).map(|number| batch(number * 3, 3, 0)).collect();
    let disk = written(&keyring, &batches);
    let (read, opened) = open_with(&disk, &keyring).unwrap();
    assert_same(&read, &batches);
    assert_eq!(opened.last, batches.last().map(|batch| batch.footer.clone()));
    assert_eq!(opened.wal.size(), 120);
    assert_eq!(opened.torn, None);
    assert!(segment::list(&disk.again()).unwrap().len() > 3);
}

#[test]
fn a_real_directory_keeps_the_log_and_lets_one_writer_in() {
    let keyring = keyring();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wal");
    let disk = || Arc::new(RealDisk::open_or_create(&path).unwrap());
    let nothing = |_| Ok::<(), WalError>(());
    let mut first = open(disk(), ORIGIN, SMALL, &keyring, nothing).unwrap();
    assert_eq!(open(disk(), ORIGIN, SMALL, &keyring, nothing).unwrap_err(), WalError::Locked);
    let batches: Vec<_> = (0..20).map(|number| batch(number * 2, 2, 0)).collect();
    for batch in &batches {
        first.wal.append(&keyring, batch).unwrap();
        while first.wal.maintain().unwrap() == Upkeep::More {}
    }
    drop(first);
    let mut read = Vec::new();
    open(disk(), ORIGIN, SMALL, &keyring, |batch| {
        read.push(batch);
        Ok::<(), WalError>(())
    })
    .unwrap();
    assert_same(&read, &batches);
}

#[test]
fn a_directory_moved_aside_stops_the_writer_at_the_next_segment() {
    let keyring = keyring();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wal");
    let disk = Arc::new(RealDisk::open_or_create(&path).unwrap());
    let mut opened = open(disk, ORIGIN, SMALL, &keyring, |_| Ok::<(), WalError>(())).unwrap();
    std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    let mut size = 0;
    let refused = loop {
        match opened.wal.append(&keyring, &batch(size, 3, 0)) {
            Ok(_) => size += 3,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, WalError::Replaced { segment: segment::file_name(0) });
    assert_eq!(opened.wal.append_reserved(&keyring, &batch(size, 3, 0)), Err(refused));
}

#[test]
fn a_destroyed_key_leaves_the_entry_and_takes_the_record() {
    let mut keyring = keyring();
    let batches = [batch(0, 7, 0)];
    let disk = written(&keyring, &batches);
    keyring.destroy(SECOND_KEY).unwrap();
    let (read, _) = open_with(&disk, &keyring).unwrap();
    for (found, put) in read[0].records.iter().zip(&batches[0].records) {
        assert_eq!(found.entry, put.entry);
        assert_eq!(found.opening.is_none(), put.key == SECOND_KEY);
    }
    assert!(matches!(keyring.key(SECOND_KEY), Err(KeyringError::Unknown(SECOND_KEY))));
}

#[test]
fn a_record_under_an_unknown_key_is_refused_and_the_log_goes_on() {
    let keyring = keyring();
    let disk = written(&keyring, &[]);
    let (_, mut opened) = open_with(&disk, &keyring).unwrap();
    let mut stray = batch(0, 1, 0);
    stray.records[0].key = KeyId([7; 16]);
    assert_eq!(opened.wal.append(&keyring, &stray), Err(WalError::UnknownKey { index: 0, key: KeyId([7; 16]) }));
    opened.wal.append(&keyring, &batch(0, 1, 0)).unwrap();
}

#[test]
fn a_batch_that_does_not_fit_the_log_is_refused_and_nothing_is_written() {
    let keyring = keyring();
    let disk = written(&keyring, &[batch(0, 2, 0)]);
    let (_, mut opened) = open_with(&disk, &keyring).unwrap();
    let check = |wal: &mut Wal, change: &dyn Fn(&mut BatchBytes), expected: WalError| {
        let mut unfit = batch(2, 2, 0);
        change(&mut unfit);
        let before = disk.contents(&segment::file_name(0));
        assert_eq!(wal.append(&keyring, &unfit), Err(expected));
        assert_eq!(disk.contents(&segment::file_name(0)), before);
    };
    let wal = &mut opened.wal;
    check(wal, &|batch| batch.records.clear(), WalError::EmptyBatch);
    check(wal, &|batch| batch.records[1].index = 4, WalError::IndexGap { expected: 3, found: 4 });
    check(wal, &|batch| batch.footer.size = 5, WalError::FooterSize { expected: 4, found: 5 });
    check(wal, &|batch| batch.footer.note = vec![b' '; NOTE_BYTES_MAX + 1], WalError::UnfitNote);
    check(wal, &|batch| batch.footer.note[0] = 0, WalError::UnfitNote);
    let bytes = RECORD_BYTES_MAX + 1;
    check(wal, &|batch| batch.records[0].record = vec![1; bytes], WalError::RecordTooLarge { index: 2, bytes });
    check(wal, &|batch| batch.records[0].record = vec![1; 9000], WalError::BatchTooLarge { bytes: 9728 });
    wal.append(&keyring, &batch(2, 2, 0)).unwrap();
}

#[test]
fn the_largest_record_fits_a_default_log() {
    let keyring = keyring();
    let disk = LossyDisk::new();
    let config = Config { segment_bytes: 1024 * 1024, ..Config::default() };
    let mut opened = open(Arc::new(disk.again()), ORIGIN, config, &keyring, |_| Ok::<(), WalError>(())).unwrap();
    let mut largest = batch(0, 1, 0);
    largest.records[0].record = vec![0; RECORD_BYTES_MAX];
    opened.wal.append(&keyring, &largest).unwrap();
    drop(opened);
    let (read, _) = open_with(&disk, &keyring).unwrap();
    assert_same(&read, &[largest]);
}

#[test]
fn a_reader_follows_the_writer_and_finds_each_record() {
    let keyring = keyring();
    let disk = written(&keyring, &[]);
    let (_, mut opened) = open_with(&disk, &keyring).unwrap();
    let mut reader = Reader::new(Arc::new(disk.again()), ORIGIN);
    let mut at = Position { segment: 0, offset: 0 };
    for number in 0..30 {
        assert_eq!(reader.read(at, Some(&keyring)).unwrap(), None);
        let put = batch(number * 3, 3, 0);
        let acknowledged = opened.wal.append(&keyring, &put).unwrap();
        let read = reader.read(at, Some(&keyring)).unwrap().unwrap();
        assert_eq!(read.at, acknowledged);
        at = read.end;
        assert_same(&[read], &[put]);
    }
    for index in 0..90 {
        let at = reader.find(index).unwrap().unwrap();
        let read = reader.read(at, None).unwrap().unwrap();
        let found = read.records.iter().find(|record| record.index == index).unwrap();
        assert_eq!((found.entry, &found.opening), (record(index, 0).entry, &None));
    }
    assert_eq!(reader.find(90).unwrap(), None);
}

#[test]
fn a_visitor_that_refuses_stops_the_opening_before_anything_is_written() {
    #[derive(Debug)]
    struct Refused;
    impl From<WalError> for Refused {
        fn from(error: WalError) -> Self {
            panic!("the log itself refused: {error}")
        }
    }
    let keyring = keyring();
    let disk = written(&keyring, &[batch(0, 2, 0)]);
    let before = disk.contents(&segment::file_name(0)).unwrap();
    let answer = open(Arc::new(disk.again()), ORIGIN, SMALL, &keyring, |_| Err(Refused));
    assert!(answer.is_err());
    assert_eq!(disk.contents(&segment::file_name(0)).unwrap(), before);
}
