//! Power cuts, failed operations that did or did not persist, and recoveries that fail themselves.

use super::super::super::disk::lossy::Fault;
use super::*;

/// What a run of the log promised, and what it tried.
#[derive(Default)]
struct History {
    acknowledged: Vec<BatchBytes>,
    tried: Option<BatchBytes>,
}

impl History {
    /// Everything acknowledged is there, followed at most by the one batch whose fate nobody was told.
    fn check(&mut self, read: &[RecoveredBatch]) {
        let promised = self.acknowledged.len();
        assert!(read.len() >= promised, "{} of {promised} acknowledged batches are left", read.len());
        assert_same(&read[..promised], &self.acknowledged);
        if read.len() > promised {
            let tried = self.tried.clone().unwrap();
            assert_same(&read[promised..], std::slice::from_ref(&tried));
            self.acknowledged.push(tried);
        }
        self.tried = None;
    }

    /// Appends until `count` batches are in or the log stops.
    fn run(&mut self, wal: &mut Wal, keyring: &Keyring, count: u64, round: u64) -> Result<(), WalError> {
        for number in 0..count {
            let next = batch(wal.size(), 1 + (number + round) % 4, round);
            self.tried = Some(next.clone());
            wal.append(keyring, &next)?;
            self.acknowledged.push(next);
            self.tried = None;
            if number.is_multiple_of(2) {
                wal.maintain()?;
            }
        }
        Ok(())
    }
}

#[test]
fn no_acknowledged_batch_is_lost_whatever_power_cuts_and_faults_do() {
    let keyring = keyring();
    let mut cut = 0;
    let mut refused = 0;
    for seed in 0..600_u64 {
        let disk = LossyDisk::new();
        let mut history = History::default();
        'life: for life in 0..6 {
            let opened = match open_with(&disk, &keyring) {
                Ok((read, opened)) => {
                    history.check(&read);
                    cut += u64::from(opened.torn.is_some());
                    Some(opened)
                }
                Err(WalError::Disk(_)) => None,
                // A tear within the end mark's eight bytes, which whole sectors never show.
                Err(WalError::Corrupt(_)) => {
                    refused += 1;
                    break 'life;
                }
                Err(error) => panic!("seed {seed}, life {life}: {error}"),
            };
            if let Some(mut opened) = opened {
                let fault = [Fault::Killed, Fault::Killed, Fault::Lost, Fault::Kept]
                    [usize::try_from((seed + life) % 4).unwrap()];
                disk.fail((seed * 7 + life * 13) % 40, fault);
                // Whether the run ends by itself or by the fault, the power goes next.
                let _ = history.run(&mut opened.wal, &keyring, 2 + seed % 9, life);
            }
            if !(seed + life).is_multiple_of(4) {
                disk.crash(seed * 31 + life);
            }
            disk.mend();
            if seed.is_multiple_of(5) {
                disk.fail((seed + life) % 30, Fault::Lost);
            }
        }
    }
    assert!(cut > 100, "only {cut} logs were torn");
    assert!(refused < 10, "{refused} tears were taken for damage");
}

#[test]
fn each_failed_operation_stops_the_log_and_every_recovery_keeps_its_word() {
    let keyring = keyring();
    for fault in [Fault::Lost, Fault::Kept, Fault::Full, Fault::Killed] {
        for power_cut in [false, true] {
            for at in 0.. {
                let disk = LossyDisk::new();
                let mut history = History::default();
                let (_, mut opened) = open_with(&disk, &keyring).unwrap();
                disk.fail(at, fault);
                let outcome = history.run(&mut opened.wal, &keyring, 12, 0);
                if disk.fault_waits() {
                    break;
                }
                if let Err(error) = outcome {
                    assert_eq!(error.is_fatal(), error != WalError::Full, "{error}");
                    if error.is_fatal() {
                        assert_eq!(opened.wal.append(&keyring, &batch(0, 1, 9)), Err(error.clone()));
                        assert_eq!(opened.wal.append_reserved(&keyring, &batch(0, 1, 9)), Err(error.clone()));
                        assert_eq!(opened.wal.maintain(), Err(error));
                    }
                }
                drop(opened);
                if power_cut {
                    disk.crash(at);
                }
                let (read, _) = open_with(&disk, &keyring).unwrap();
                history.check(&read);
            }
        }
    }
}

#[test]
fn a_recovery_that_fails_anywhere_leaves_a_log_that_recovers() {
    let keyring = keyring();
    for first in [Fault::Lost, Fault::Kept, Fault::Killed] {
        for second in [Fault::Lost, Fault::Kept, Fault::Killed] {
            for at in 0.. {
                // The third batch's sync fails: with `Lost` its pages are seen but will never be kept.
                let disk = LossyDisk::new();
                let mut history = History::default();
                let (_, mut opened) = open_with(&disk, &keyring).unwrap();
                history.run(&mut opened.wal, &keyring, 3, 0).unwrap();
                disk.fail(1, first);
                assert!(history.run(&mut opened.wal, &keyring, 1, 0).is_err());
                drop(opened);
                disk.fail(at, second);
                let interrupted = open_with(&disk, &keyring).map(drop).is_err();
                let done = disk.fault_waits();
                assert!(done || interrupted);
                disk.mend();
                disk.crash(at);
                let (read, opened) = open_with(&disk, &keyring).unwrap();
                history.check(&read);
                drop(opened);
                // What a finished recovery showed must survive the next power cut.
                disk.crash(at + 1);
                let (again, _) = open_with(&disk, &keyring).unwrap();
                assert_eq!(again, read);
                if done {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_batch_seen_after_a_failed_sync_is_made_durable_before_it_counts() {
    let keyring = keyring();
    let disk = LossyDisk::new();
    let (_, mut opened) = open_with(&disk, &keyring).unwrap();
    disk.fail(1, Fault::Lost);
    assert!(opened.wal.append(&keyring, &batch(0, 3, 0)).is_err());
    drop(opened);
    let (read, opened) = open_with(&disk, &keyring).unwrap();
    assert_same(&read, &[batch(0, 3, 0)]);
    drop(opened);
    disk.crash(1);
    let (read, _) = open_with(&disk, &keyring).unwrap();
    assert_same(&read, &[batch(0, 3, 0)]);
}
