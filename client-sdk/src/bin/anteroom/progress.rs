//! How far long work has come: a bar on standard error where that is a terminal, nothing elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use anteroom_sdk::mirror::Progress;

/// Width of the bar in characters.
const BAR_WIDTH: u64 = 40;
/// Less than this is over before anybody looks.
const WORTH_SHOWING: u64 = 20_000;

/// Progress on standard error: a bar on a terminal, nothing elsewhere.
#[derive(Debug)]
pub(crate) struct Bar {
    terminal: bool,
    shown: Option<(&'static str, u64)>,
    /// What is being done, since when, and how much of it was done then.
    began: Option<(&'static str, Instant, u64)>,
}

impl Bar {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: None, began: None }
    }

    /// Shows how far it has come.
    pub(crate) fn show(&mut self, progress: Progress) {
        if !self.terminal || progress.done.max(progress.all) < WORTH_SHOWING {
            return;
        }
        let (since, before) = match self.began {
            Some((what, since, before)) if what == progress.what && before <= progress.done => (since, before),
            Some(_) | None => (Instant::now(), progress.done),
        };
        self.began = Some((progress.what, since, before));
        let filled = match progress.all {
            0 => progress.done / WORTH_SHOWING,
            all => progress.done.saturating_mul(BAR_WIDTH) / all,
        };
        // Redrawn only when it changes.
        if self.shown == Some((progress.what, filled)) {
            return;
        }
        self.shown = Some((progress.what, filled));
        let line = format!("\r{}\x1b[K", text(progress, filled, pace(progress.done - before, since.elapsed())));
        let mut out = std::io::stderr().lock();
        write!(out, "{line}").and_then(|()| out.flush()).ok();
    }

    /// Leaves the line.
    pub(crate) fn end(&mut self) {
        if self.shown.take().is_some() {
            writeln!(std::io::stderr().lock()).ok();
        }
    }
}

/// How many a second; none as long as that says nothing.
fn pace(done: u64, took: Duration) -> Option<u64> {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    (ms >= 500 && done > 0).then(|| (done.saturating_mul(1_000) / ms).max(1))
}

fn text(progress: Progress, filled: u64, pace: Option<u64>) -> String {
    let Progress { what, done, all } = progress;
    let rate = pace.map_or_else(String::new, |pace| format!(", {pace} a second"));
    if all == 0 {
        return format!("{done} {what}{rate}");
    }
    let bar: String = (0..BAR_WIDTH).map(|at| if at < filled { '#' } else { '.' }).collect();
    let left = pace.map_or_else(String::new, |pace| format!(", {} left", span(all.saturating_sub(done) / pace)));
    format!("[{bar}] {done} of {all} {what}{rate}{left}")
}

fn span(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60, seconds) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, _) => format!("{minutes} min"),
        (hours, minutes, _) => format!("{hours} h {} min", minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_told_once_they_mean_something() {
        let progress = Progress { what: "rows", done: 50_000, all: 200_000 };
        assert_eq!(pace(50_000, Duration::from_millis(499)), None);
        let told = text(progress, 10, pace(50_000, Duration::from_secs(10)));
        assert_eq!(told, "[##########..............................] 50000 of 200000 rows, 5000 a second, 30 s left");
        assert_eq!(text(Progress { all: 0, ..progress }, 0, None), "50000 rows");
        assert_eq!((span(59), span(61), span(3_720)), ("59 s".to_owned(), "1 min".to_owned(), "1 h 2 min".to_owned()));
    }
}
