//! Anteroom's pure core: what may happen, what happened, and what follows from it.
//!
//! **Invariant:** no I/O, no clock, no randomness, no task. Every function is a function of its arguments; the instant, the
//! salts and the judgement are arguments.

pub mod content;
pub mod judge;
pub mod rules;
