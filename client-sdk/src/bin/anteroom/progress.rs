//! How far long work has come: a bar on standard error where that is a terminal, nothing elsewhere.

use std::io::{IsTerminal, Write};

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
}

impl Bar {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: None }
    }

    /// Shows how far it has come.
    pub(crate) fn show(&mut self, progress: Progress) {
        if !self.terminal || progress.done.max(progress.all) < WORTH_SHOWING {
            return;
        }
        let filled = match progress.all {
            0 => progress.done / WORTH_SHOWING,
            all => progress.done.saturating_mul(BAR_WIDTH) / all,
        };
        // Redrawn only when it changes.
        if self.shown == Some((progress.what, filled)) {
            return;
        }
        self.shown = Some((progress.what, filled));
        let line = match progress.all {
            0 => format!("\r{} {}", progress.done, progress.what),
            all => {
                let bar: String = (0..BAR_WIDTH).map(|at| if at < filled { '#' } else { '.' }).collect();
                format!("\r[{bar}] {} of {all} {}", progress.done, progress.what)
            }
        };
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
