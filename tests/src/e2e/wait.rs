//! Waiting without guessing how long it takes.

use std::time::Duration;

/// Longest wait for anything. It is no expectation: only a hang reaches it.
pub const GUARD: Duration = Duration::from_secs(60);
/// Between two looks at something that does not tell of its changes.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for something that will come.
///
/// # Panics
/// It did not come.
pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GUARD, wait).await {
        Ok(value) => value,
        Err(_) => panic!("waited {GUARD:?} in vain for {what}"),
    }
}

/// Looks until `look` finds something.
///
/// # Panics
/// It never did.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    soon(what, looking).await
}
