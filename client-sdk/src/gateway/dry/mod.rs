//! A dry run: the evaluator's tools against terms that were offered, before anything is lent and without a broker.
//!
//! [`Bench`] judges bodies as the broker would judge them, by the same code and the same terms; [`serve`] answers tools with the
//! built-in text generator where they pass and with the gateway's own "no" where they do not; [`Report`] tells what was asked for.
//!
//! **Invariant:** nothing here reaches a broker, a model or a ledger; every answer says in its head and in its body that it is a
//! stub's; and there is no receipt, because there was no call.

mod judge;
mod report;
mod serve;

pub use judge::{Bench, BenchError, Judged, No, Passed};
pub use report::{FeatureUse, Report, Tally, Told};
pub use serve::{DRY_RUN, DryRun};
