//! The one seam for time: the only file that reads the machine's clocks, and what they are worth.
//!
//! It knows the wall clock, the time since boot and the boot's identity. [`Clock`] turns readings of them into a time that cannot
//! be wound back and into [`Trust`]; [`Timekeeper`] shares one clock between threads and keeps it across restarts.
//!
//! **Invariant:** the wall clock is compared, never taken: only where a second source agreed does it move the anchor.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anteroom_proto::time::At;
use rustix::time::{ClockId, Timespec, clock_gettime};

mod file;
mod reckoning;

pub use file::{ClockFile, ClockFileError};
pub use reckoning::{
    BACK_MS_MAX, Clock, ConfirmError, DRIFT_MS_MAX, Kept, Now, Reading, SOURCE_MS_MAX, Suspicion, Trust,
};

/// Milliseconds between two writes of the clock's file.
pub const SAVE_EVERY_MS: i64 = 1000;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where readings come from.
pub trait TimeSource: Send + Sync + fmt::Debug {
    /// All clocks, read at once.
    fn read(&self) -> Reading;
}

/// This machine's clocks.
#[derive(Debug)]
pub struct SystemTime {
    boot_id: [u8; 16],
}

impl SystemTime {
    /// Asks the kernel which boot this is; it cannot change while the process lives.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn new() -> io::Result<Self> {
        let text = std::fs::read_to_string(BOOT_ID)?;
        let hex: String = text.trim().chars().filter(|c| *c != '-').collect();
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
        let boot_id = bytes.and_then(|bytes| bytes.try_into().ok());
        Ok(Self { boot_id: boot_id.ok_or(io::ErrorKind::InvalidData)? })
    }
}

impl TimeSource for SystemTime {
    fn read(&self) -> Reading {
        Reading {
            wall_ms: milliseconds(clock_gettime(ClockId::Realtime)),
            // Unlike the monotonic clock it runs while the machine is suspended.
            boot_ms: milliseconds(clock_gettime(ClockId::Boottime)),
            boot_id: self.boot_id,
        }
    }
}

/// Clocks that stand still until somebody moves them. Clones move together, from any thread.
#[derive(Clone, Debug)]
pub struct ScriptedTime {
    reading: Arc<Mutex<Reading>>,
}

impl ScriptedTime {
    /// Clocks that show `wall_ms`, an hour after boot.
    #[must_use]
    pub fn new(wall_ms: i64) -> Self {
        let reading = Reading { wall_ms, boot_ms: 3_600_000, boot_id: [1; 16] };
        Self { reading: Arc::new(Mutex::new(reading)) }
    }

    /// Lets time pass on all clocks.
    pub fn advance(&self, ms: i64) {
        let mut reading = lock(&self.reading);
        reading.wall_ms = reading.wall_ms.saturating_add(ms);
        reading.boot_ms = reading.boot_ms.saturating_add(ms);
    }

    /// Moves the wall clock alone, forward or back.
    pub fn step_wall(&self, ms: i64) {
        let mut reading = lock(&self.reading);
        reading.wall_ms = reading.wall_ms.saturating_add(ms);
    }

    /// Turns the machine off for `down_ms` and on again.
    pub fn reboot(&self, down_ms: i64) {
        let mut reading = lock(&self.reading);
        reading.wall_ms = reading.wall_ms.saturating_add(down_ms);
        reading.boot_ms = 0;
        for byte in &mut reading.boot_id {
            *byte = byte.wrapping_add(1);
        }
    }

    /// Replaces all clocks.
    pub fn set(&self, reading: Reading) {
        *lock(&self.reading) = reading;
    }
}

impl TimeSource for ScriptedTime {
    fn read(&self) -> Reading {
        *lock(&self.reading)
    }
}

/// One clock for the whole process, kept across restarts.
#[derive(Debug)]
pub struct Timekeeper {
    source: Arc<dyn TimeSource>,
    clock: Mutex<Clock>,
    alive_before: Option<At>,
    saver: Mutex<Saver>,
}

/// Behind its own lock, so that nobody who asks for the time waits for a disk.
#[derive(Debug)]
struct Saver {
    file: Option<ClockFile>,
    saved: Option<Kept>,
    saved_at_boot_ms: Option<i64>,
}

impl Timekeeper {
    /// Starts the clock from what `path` kept. Without a path nothing is kept and every start is a first one.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged. Whoever removes it starts a clock without a high-water mark.
    pub fn start(source: Arc<dyn TimeSource>, path: Option<&Path>) -> Result<Self, ClockFileError> {
        let file = path.map(ClockFile::open).transpose()?;
        let kept = file.as_ref().map(ClockFile::load).transpose()?.flatten();
        let alive_before = kept.map(|kept| At::clamped(kept.high_water_ms));
        let clock = Clock::start(kept, source.read());
        let saver = Saver { file, saved: kept, saved_at_boot_ms: None };
        Ok(Self { source, clock: Mutex::new(clock), alive_before, saver: Mutex::new(saver) })
    }

    /// The time, and whether it may be relied upon.
    #[must_use]
    pub fn now(&self) -> Now {
        // Read within the lock, so that readings reach the clock in the order in which they were taken.
        let mut clock = lock(&self.clock);
        clock.observe(self.source.read())
    }

    /// Milliseconds since boot, by the clock that runs while the machine sleeps.
    #[must_use]
    pub fn boot_ms(&self) -> i64 {
        self.source.read().boot_ms
    }

    /// The last instant at which an earlier process is known to have run, to about a second; `None` if there was none.
    #[must_use]
    pub const fn alive_before(&self) -> Option<At> {
        self.alive_before
    }

    /// Tells the clock what a second source says the time is: a witness's cosignature, a connector's signed clock, or the
    /// operator's recorded act.
    ///
    /// # Errors
    /// If the source and the wall clock do not agree, or agree on a time that has passed.
    pub fn confirm(&self, source_ms: i64) -> Result<Now, ConfirmError> {
        let (now, newly) = {
            let mut clock = lock(&self.clock);
            let before = clock.trust().is_trusted();
            let reading = self.source.read();
            clock.confirm(source_ms, reading)?;
            let now = clock.observe(reading);
            (now, now.trust.is_trusted() && !before)
        };
        // Kept at once, so that a process killed in the next moment comes back with a clock that it may rely upon.
        if newly && let Err(error) = self.save() {
            tracing::warn!(%error, "the confirmed clock is not kept; a restart will need another confirmation");
        }
        Ok(now)
    }

    /// Keeps the clock's state if something changed and the last write is [`SAVE_EVERY_MS`] old. Call it about once a second.
    /// `true` if it wrote.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_if_due(&self) -> Result<bool, ClockFileError> {
        let boot_ms = self.source.read().boot_ms;
        let mut saver = lock(&self.saver);
        let due =
            saver.saved_at_boot_ms.is_none_or(|last| boot_ms < last || boot_ms.saturating_sub(last) >= SAVE_EVERY_MS);
        if due { self.save_as(&mut saver, boot_ms) } else { Ok(false) }
    }

    /// Keeps the clock's state, for an orderly end. `true` if it wrote.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self) -> Result<bool, ClockFileError> {
        let boot_ms = self.source.read().boot_ms;
        self.save_as(&mut lock(&self.saver), boot_ms)
    }

    fn save_as(&self, saver: &mut Saver, boot_ms: i64) -> Result<bool, ClockFileError> {
        let kept = lock(&self.clock).kept();
        let (Some(file), Some(state)) = (&saver.file, kept) else { return Ok(false) };
        if saver.saved == kept {
            return Ok(false);
        }
        file.save(&state)?;
        saver.saved = kept;
        saver.saved_at_boot_ms = Some(boot_ms);
        Ok(true)
    }
}

fn milliseconds(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder can fail half way, so what a panicked thread left behind is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    const START: i64 = 1_800_000_000_000;

    #[test]
    fn the_clock_continues_across_a_restart_and_asks_again_after_a_reboot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        let time = ScriptedTime::new(START);
        let keeper = || Timekeeper::start(Arc::new(time.clone()), Some(&path)).unwrap();
        let first = keeper();
        assert!(matches!(first.now().trust, Trust::Unconfirmed { .. }));
        first.confirm(START + 300).unwrap();
        time.advance(5000);
        assert_eq!(first.now(), Now { at_ms: START + 5000, trust: Trust::Trusted });
        assert!(first.save().unwrap());
        time.advance(60_000);
        assert_eq!(keeper().now(), Now { at_ms: START + 65_000, trust: Trust::Trusted });
        time.reboot(60_000);
        let after = keeper();
        assert!(matches!(after.now().trust, Trust::Unconfirmed { .. }));
        assert_eq!(after.now().at_ms, START + 5000);
        assert_eq!(after.confirm(START + 125_000).unwrap(), Now { at_ms: START + 125_000, trust: Trust::Trusted });
    }

    #[test]
    fn the_file_is_written_at_most_once_a_second_and_only_when_something_changed() {
        let folder = tempfile::tempdir().unwrap();
        let time = ScriptedTime::new(START);
        let start = || Timekeeper::start(Arc::new(time.clone()), Some(&folder.path().join("clock"))).unwrap();
        let keeper = start();
        assert!(!keeper.save_if_due().unwrap(), "an unconfirmed first start has nothing to keep");
        keeper.confirm(START).unwrap();
        assert!(start().now().trust.is_trusted(), "a process killed right after the confirmation comes back trusted");
        assert!(!keeper.save_if_due().unwrap(), "confirming kept it already");
        time.advance(999);
        assert!(keeper.now().trust.is_trusted());
        assert!(!keeper.save_if_due().unwrap());
        time.advance(1);
        assert!(keeper.now().trust.is_trusted());
        assert!(keeper.save_if_due().unwrap());
        time.advance(5000);
        assert!(!keeper.save_if_due().unwrap(), "nobody looked at the clock, so its mark stands");
    }

    #[test]
    fn an_altered_file_is_refused_and_a_missing_one_is_a_first_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        let time = ScriptedTime::new(START);
        let keeper = Timekeeper::start(Arc::new(time.clone()), Some(&path)).unwrap();
        keeper.confirm(START).unwrap();
        keeper.save().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..=bytes.len() {
            let mut altered = bytes.clone();
            match altered.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => altered.push(0),
            }
            std::fs::write(&path, altered).unwrap();
            let refused = Timekeeper::start(Arc::new(time.clone()), Some(&path));
            assert!(matches!(refused, Err(ClockFileError::Damaged)), "byte {at}");
        }
        std::fs::remove_file(&path).unwrap();
        let fresh = Timekeeper::start(Arc::new(time), Some(&path)).unwrap();
        assert!(matches!(fresh.now().trust, Trust::Unconfirmed { .. }));
    }

    #[test]
    fn the_systems_clocks_do_not_run_backwards() {
        let system = SystemTime::new().unwrap();
        let first = system.read();
        let second = system.read();
        assert!(first.boot_ms > 0 && second.boot_ms >= first.boot_ms);
        assert_eq!(first.boot_id, second.boot_id);
        // After 2020 and before the year 3000: a unit mistaken by a thousand shows.
        assert!((1_577_836_800_000..32_503_680_000_000).contains(&first.wall_ms));
    }

    #[test]
    fn threads_that_share_a_clock_never_see_it_go_back() {
        let time = ScriptedTime::new(START);
        let keeper = Timekeeper::start(Arc::new(time.clone()), None).unwrap();
        keeper.confirm(START).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut last = START;
                    for _ in 0..1000 {
                        time.advance(1);
                        let now = keeper.now();
                        assert!(now.at_ms >= last && now.trust == Trust::Trusted);
                        last = now.at_ms;
                    }
                });
            }
        });
        assert_eq!(keeper.now().at_ms, START + 4000);
    }
}
