//! What a broker takes from the machine it runs on.

use std::sync::Arc;

use super::StartError;
use crate::clock::{SystemTime, TimeSource, Timekeeper, Trust};
use crate::tls::NowMs;

/// Answers for the name of an environment variable.
pub type Environment = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the broker takes from outside its data directory, besides its configuration.
pub struct Outside {
    /// The clocks.
    pub time: Arc<dyn TimeSource>,
    /// The environment, for secrets that are in it.
    pub environment: Environment,
}

impl Outside {
    /// This machine.
    ///
    /// # Errors
    /// [`StartError::Clocks`] if the kernel does not say which boot this is.
    pub fn system() -> Result<Self, StartError> {
        let time = Arc::new(SystemTime::new().map_err(StartError::Clocks)?);
        Ok(Self { time, environment: Box::new(|name| std::env::var(name).ok()) })
    }
}

/// The time that certificates are judged by. After a reboot nothing has confirmed the clock yet and its own time stands where it
/// stood; the wall clock is then the better guess, and whoever is to confirm the clock must be able to connect.
pub(super) fn wall(clock: &Arc<Timekeeper>, time: &Arc<dyn TimeSource>) -> NowMs {
    let (clock, time) = (Arc::clone(clock), Arc::clone(time));
    Arc::new(move || {
        let now = clock.now();
        match now.trust {
            Trust::Trusted | Trust::Suspended { .. } => now.at_ms,
            Trust::Unconfirmed { .. } => now.at_ms.max(time.read().wall_ms),
        }
    })
}
