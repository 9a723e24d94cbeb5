//! Torn writes are cut, everything else is refused, and the two are told apart byte by byte.

use super::*;

const SECTOR: usize = SECTOR_BYTES as usize;

fn three_batches() -> (Keyring, Vec<BatchBytes>, Vec<u8>, Vec<usize>) {
    let keyring = keyring();
    let batches = vec![batch(0, 2, 0), batch(2, 4, 0), batch(6, 3, 0)];
    let disk = written(&keyring, &batches);
    let bytes = disk.contents(&segment::file_name(0)).unwrap();
    let (read, _) = open_with(&disk, &keyring).unwrap();
    let ends = read.iter().map(|batch| usize::try_from(batch.end.offset).unwrap()).collect();
    (keyring, batches, bytes, ends)
}

/// Opens a log twice: what it recovers, and that its repair holds and takes further batches.
fn recover(disk: &LossyDisk, keyring: &Keyring) -> Result<(Vec<RecoveredBatch>, bool), WalError> {
    let (read, mut opened) = open_with(disk, keyring)?;
    let torn = opened.torn.is_some();
    let more = batch(opened.wal.size(), 2, 77);
    opened.wal.append(keyring, &more).unwrap();
    drop(opened);
    let (again, opened) = open_with(disk, keyring).unwrap();
    assert_eq!(again[..read.len()], read[..]);
    assert_same(&again[read.len()..], &[more]);
    assert_eq!(opened.torn, None);
    Ok((read, torn))
}

#[test]
fn a_log_torn_at_any_byte_keeps_exactly_the_whole_batches() {
    let (keyring, batches, bytes, ends) = three_batches();
    for torn_at in 0..=ends[2] {
        let whole = ends.iter().filter(|end| **end <= torn_at).count();
        let mut zeroed = bytes.clone();
        zeroed[torn_at..].fill(0);
        for torn in [zeroed, bytes[..torn_at].to_vec()] {
            match recover(&holding(torn), &keyring) {
                Ok((read, cut)) => {
                    assert_same(&read, &batches[..whole]);
                    assert!(cut || whole == ends.len() || torn_at == 0 || ends.contains(&torn_at));
                }
                // Within the end mark a tear looks like damage to it. Disks do not tear within a sector, so a human may look.
                Err(WalError::Corrupt(_)) => assert!(ends.iter().any(|end| torn_at < *end && end - torn_at < 8)),
                Err(error) => panic!("torn at {torn_at}: {error}"),
            }
        }
    }
}

#[test]
fn any_lost_sectors_of_the_last_batch_are_cut_and_nothing_else_is() {
    let (keyring, batches, bytes, ends) = three_batches();
    let sectors = (ends[2] - ends[1]) / SECTOR;
    assert!(sectors > 2);
    for lost in 1..1_u32 << sectors {
        let mut torn = bytes.clone();
        for sector in (0..sectors).filter(|sector| lost & (1 << sector) != 0) {
            torn[ends[1] + sector * SECTOR..][..SECTOR].fill(0);
        }
        let (read, _) = recover(&holding(torn), &keyring).unwrap();
        assert_same(&read, &batches[..2]);
    }
    for sector in 0..ends[1] / SECTOR {
        let mut damaged = bytes.clone();
        damaged[sector * SECTOR..][..SECTOR].fill(0);
        assert!(matches!(open_with(&holding(damaged), &keyring), Err(WalError::Corrupt(_))));
    }
}

#[test]
fn every_flipped_byte_is_refused_or_changes_nothing() {
    let (keyring, batches, bytes, ends) = three_batches();
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut flipped = bytes.clone();
            flipped[at] ^= mask;
            let disk = holding(flipped);
            match open_with(&disk, &keyring) {
                Ok((read, _)) => {
                    assert!(at >= ends[2], "byte {at} was altered and nobody noticed");
                    assert_same(&read, &batches);
                }
                Err(WalError::Corrupt(_)) => {}
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn every_flipped_byte_of_an_earlier_segment_is_refused() {
    let keyring = keyring();
    let batches: Vec<_> = (0..8).map(|number| batch(number * 3, 3, 0)).collect();
    let disk = written(&keyring, &batches);
    let name = segment::file_name(0);
    let bytes = disk.contents(&name).unwrap();
    assert!(segment::list(&disk.again()).unwrap().len() > 1);
    for at in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        disk.tamper(&name, flipped);
        assert!(matches!(open_with(&disk, &keyring), Err(WalError::Corrupt(_))), "byte {at}");
    }
}

#[test]
fn batches_out_of_place_are_refused() {
    let (keyring, _, bytes, ends) = three_batches();
    let (first, second, third) = (&bytes[..ends[0]], &bytes[ends[0]..ends[1]], &bytes[ends[1]..ends[2]]);
    for order in [vec![second], vec![first, third], vec![first, second, second], vec![second, first, third]] {
        let mut shuffled = order.concat();
        shuffled.resize(bytes.len(), 0);
        let refused = open_with(&holding(shuffled), &keyring).unwrap_err();
        assert!(matches!(refused, WalError::Corrupt(Corruption { flaw: Flaw::Sequence, .. })), "{refused}");
    }
}

#[test]
fn another_origin_a_missing_segment_and_a_stray_file_are_each_refused_by_name() {
    let keyring = keyring();
    let batches: Vec<_> = (0..20).map(|number| batch(number * 3, 3, 0)).collect();
    let disk = written(&keyring, &batches);
    let foreign = open(Arc::new(disk.again()), "another.example.org/log", SMALL, &keyring, |_| Ok::<(), WalError>(()));
    assert_eq!(foreign.unwrap_err(), WalError::ForeignLog { segment: segment::file_name(0) });
    disk.tamper("1.seg", vec![0; SECTOR]);
    assert_eq!(open_with(&disk, &keyring).unwrap_err(), WalError::Stray { name: "1.seg".to_owned() });
    disk.again().remove("1.seg").unwrap();
    let firsts = segment::list(&disk.again()).unwrap();
    disk.again().remove(&segment::file_name(firsts[1])).unwrap();
    assert_eq!(open_with(&disk, &keyring).unwrap_err(), WalError::MissingSegment { index: firsts[1] });
}

#[test]
fn a_record_altered_under_a_right_checksum_does_not_open() {
    let (keyring, _, bytes, _) = three_batches();
    let mut forged = bytes;
    // The entry of record 0: after the head, the frame's prefix, index, key and nonce.
    forged[frame::HEAD_BYTES + 9 + 8 + 16 + 12] ^= 1;
    let start = frame::HEAD_BYTES;
    let length = u32::from_le_bytes(forged[start..start + 4].try_into().unwrap()) as usize;
    let checksum = crc32c::crc32c(&forged[start + 8..start + 8 + length]);
    forged[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    let refused = open_with(&holding(forged), &keyring).unwrap_err();
    assert!(matches!(refused, WalError::Corrupt(Corruption { offset: 0, flaw: Flaw::Sealed, .. })));
}

#[test]
fn a_cut_needs_the_damage_named_and_keeps_what_it_cuts() {
    let keyring = keyring();
    let batches: Vec<_> = (0..20).map(|number| batch(number * 3, 3, 0)).collect();
    let disk = written(&keyring, &batches);
    let firsts = segment::list(&disk.again()).unwrap();
    let name = segment::file_name(firsts[1]);
    let mut damaged = disk.contents(&name).unwrap();
    let (read, _) = open_with(&disk, &keyring).unwrap();
    let hit = read.iter().find(|batch| batch.at.segment == firsts[1] && batch.at.offset > 0).unwrap().clone();
    let offset = usize::try_from(hit.at.offset).unwrap();
    damaged[offset + 200] ^= 4;
    disk.tamper(&name, damaged.clone());
    let WalError::Corrupt(found) = open_with(&disk, &keyring).unwrap_err() else { panic!("the damage must be found") };
    assert_eq!((found.segment.as_str(), found.offset), (name.as_str(), hit.at.offset));
    let elsewhere = Corruption { offset: 0, ..found.clone() };
    assert_eq!(cut_tail(&disk.again(), ORIGIN, &keyring, &elsewhere), Err(WalError::NothingToCut));
    let report = cut_tail(&disk.again(), ORIGIN, &keyring, &found).unwrap();
    let kept = usize::try_from(report.size / 3).unwrap();
    assert_eq!(report.segments_set_aside.len(), firsts.len() - 2);
    let aside = disk.contents(&report.set_aside.unwrap()).unwrap();
    assert_eq!(aside, damaged[offset..offset + aside.len()]);
    let (read, opened) = open_with(&disk, &keyring).unwrap();
    assert_same(&read, &batches[..kept]);
    drop(opened);
    assert_eq!(cut_tail(&disk.again(), ORIGIN, &keyring, &found), Err(WalError::NothingToCut));
}
