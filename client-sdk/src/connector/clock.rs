//! The clock that something long-running goes by, as a value, so that a test can stand in another one.

use std::{fmt, sync::Arc};

use anteroom_proto::time::At;

use crate::system;

/// A source of instants. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> At + Send + Sync>);

impl Clock {
    /// The machine's wall clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(system::now))
    }

    /// A clock that reads the milliseconds since the epoch that `read` returns.
    #[must_use]
    pub fn new(read: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || At::clamped(read())))
    }

    /// This instant.
    #[must_use]
    pub fn now(&self) -> At {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
