//! Witnesses: who remembers what a log showed, and signs only what extends it.
//!
//! [`keeper`] is the memory that every cosignature goes through; [`desk`] answers C2SP's `tlog-witness` requests with it, [`http`]
//! carries them, [`folder`] is where such a witness lives; [`party`] is a lab's or an agency's own witness, which asks the broker
//! by itself.
//!
//! **Invariant:** a cosignature leaves only after the size and root it is for are on disk, and only for a checkpoint that extends
//! the one on disk. So two histories of one log never both get this witness's cosignature, whatever crashes in between.

pub mod desk;
mod evidence;
#[cfg(feature = "witness")]
pub mod folder;
#[cfg(feature = "witness")]
pub mod http;
pub mod keeper;
pub mod party;
mod request;
mod state;

pub use desk::{Desk, Reply};
pub use evidence::fetch_witnessed;
pub use keeper::{AddError, Keeper, StateError};
pub use party::{Party, PartyError, Remembers, Running, Turn};
pub use request::{REQUEST_BYTES_MAX, RequestError};
