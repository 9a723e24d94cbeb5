//! Which answer a leaked text came from: keyed fingerprints of every answer, kept by the lab and by nobody else.
//!
//! An answer's text is brought to a normal form ([`normal`]), cut into overlapping runs of [`GRAM_CHARS`] characters, and of each
//! [`WINDOW`] neighbouring runs one is selected ([`winnow`]). What is kept of a selected run is a keyed hash of it ([`key`]), sealed in an
//! append-only store beside the connector ([`store`]), whose entry's digest stands in the connector's signed outcome. [`lookup`] finds
//! the calls that share runs with a text.
//!
//! **Guarantee:** a text and an answer that share [`GUARANTEED_CHARS`] characters of normal form share a selected run, and one more
//! for each further [`WINDOW`] characters. **Invariant:** no text is stored, and without the key the store tells how many answers there
//! were and about how long, nothing else.

pub mod collect;
pub mod key;
pub mod lookup;
pub mod normal;
pub mod store;
pub mod text;
pub mod winnow;

pub use collect::{Collector, Selected};
pub use key::{FingerprintKey, KeyError, Print};
pub use lookup::{Found, Library, Question};
pub use store::{FingerprintStore, Keeper, Limits, StoreError};

/// Characters of normal form in one run.
pub const GRAM_CHARS: usize = 24;
/// Neighbouring runs of which at least one is selected.
pub const WINDOW: usize = 16;
/// Characters of normal form that two texts have to share so that they certainly share a selected run.
pub const GUARANTEED_CHARS: usize = GRAM_CHARS + WINDOW - 1;
/// Selected runs that a text and an answer have to share before the call is named.
pub const MATCHES_MIN: usize = 2;
/// Characters of normal form that two texts have to share so that the call is certainly named.
pub const NAMED_CHARS: usize = GRAM_CHARS - 1 + MATCHES_MIN * WINDOW;
/// Most fingerprints kept of one answer, about 600 KB of text. What is beyond leaves no trace.
pub const PRINTS_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
