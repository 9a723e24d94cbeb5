//! How far a batch has come: a line on a terminal, and the sum at the end.

use std::{
    io::{IsTerminal, Write},
    path::Path,
    time::Instant,
};

use super::journal::Outcome;
use crate::{context::Ctx, fail::Fail, output::view};

view! {
    /// What came of a batch.
    Sum {
        /// Requests in the file.
        requests: usize,
        /// Answered by the model.
        answered: usize,
        /// Refused for good.
        refused: usize,
        /// Made and charged, the answer lost.
        lost: usize,
        /// Not made yet.
        left: usize,
        /// Where the answers are.
        answers: String,
    }
}

/// Counts.
#[derive(Debug)]
pub(super) struct Shown {
    terminal: bool,
    began: Instant,
    requests: usize,
    before: usize,
    answered: usize,
    refused: usize,
    lost: usize,
}

impl Shown {
    pub(super) fn new(requests: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, began: Instant::now(), requests, before: 0, answered: 0, refused: 0, lost: 0 }
    }

    pub(super) const fn settled(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Answered => &mut self.answered,
            Outcome::Refused => &mut self.refused,
            Outcome::Lost => &mut self.lost,
        };
        *count = count.saturating_add(1);
    }

    const fn done(&self) -> usize {
        self.answered.saturating_add(self.refused).saturating_add(self.lost)
    }

    /// Says what an earlier start has done.
    pub(super) fn begin(&mut self, ctx: &Ctx) {
        self.before = self.done();
        if self.before > 0 {
            ctx.out.note(&format!("{} of {} requests were settled before", self.before, self.requests));
        }
    }

    /// Draws the line anew.
    pub(super) fn draw(&self) {
        if !self.terminal {
            return;
        }
        let (done, left) = (self.done(), self.requests.saturating_sub(self.done()));
        let now = done.saturating_sub(self.before);
        let pace = self.began.elapsed().as_secs_f64() / f64::from(u32::try_from(now.max(1)).unwrap_or(u32::MAX));
        let left_s = pace * f64::from(u32::try_from(left).unwrap_or(u32::MAX));
        let mut out = std::io::stderr().lock();
        let line = format!(
            "\r{done} of {} done, {} refused, {} lost, about {left_s:.0} s left   ",
            self.requests, self.refused, self.lost
        );
        write!(out, "{line}").and_then(|()| out.flush()).ok();
    }

    /// The sum.
    pub(super) fn end(self, ctx: &Ctx, answers: &Path) -> Result<(), Fail> {
        if self.terminal && self.done() > self.before {
            writeln!(std::io::stderr().lock()).ok();
        }
        ctx.out.one(&Sum {
            requests: self.requests,
            answered: self.answered,
            refused: self.refused,
            lost: self.lost,
            left: self.requests.saturating_sub(self.done()),
            answers: answers.display().to_string(),
        })
    }
}
