//! Anteroom's pure core: what may happen, what happened, and what follows from it.
//!
//! **Invariant:** no I/O, no clock, no randomness, no task. Every function is a function of its arguments; the instant, the
//! salts and the judgement are arguments.

pub mod brokers;
pub mod budget;
pub mod claim;
pub mod command;
pub mod content;
pub mod decide;
pub mod event;
pub mod facts;
pub mod grant;
pub mod judge;
mod logkeys;
pub mod marking;
pub mod notices;
pub mod record;
pub mod refusal;
pub mod replay;
pub mod rules;
pub mod siem;
pub mod standing;
pub mod state;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod golden;
