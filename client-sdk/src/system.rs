//! What this crate takes from the machine: the clock and randomness. Everything else gets them as arguments.

use anteroom_proto::{
    names::{CallId, Digest, GrantId, LockId},
    time::At,
};
use ring::rand::{SecureRandom, SystemRandom};

/// The machine gave no randomness.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the machine gives no randomness")]
pub struct NoRandomness;

/// The wall clock.
#[must_use]
pub fn now() -> At {
    At::clamped(chrono::Utc::now().timestamp_millis())
}

/// Random bytes.
///
/// # Errors
/// The machine gives none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| NoRandomness)?;
    Ok(out)
}

/// A new call's identifier.
///
/// # Errors
/// The machine gives no randomness.
pub fn call_id() -> Result<CallId, NoRandomness> {
    Ok(CallId::new(now().ms(), random()?))
}

/// A new grant's identifier.
///
/// # Errors
/// The machine gives no randomness.
pub fn grant_id() -> Result<GrantId, NoRandomness> {
    Ok(GrantId::from_bytes(random()?))
}

/// A new identifier for a lock or another end.
///
/// # Errors
/// The machine gives no randomness.
pub fn lock_id() -> Result<LockId, NoRandomness> {
    Ok(LockId::from_bytes(random()?))
}

/// 32 random bytes for a nonce or salt.
///
/// # Errors
/// The machine gives no randomness.
pub fn nonce() -> Result<Digest, NoRandomness> {
    Ok(Digest::from_bytes(random()?))
}
