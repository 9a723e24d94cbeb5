//! What a broker takes from the machine it runs on.

use std::sync::Arc;

use super::StartError;
use crate::clock::{SystemTime, TimeSource};

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
