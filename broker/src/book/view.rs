//! How long what this broker knows of a shared log may be acted upon.
//!
//! A broker that has its log alone knows everything in it, for ever. One of several knows what was in it when it last asked; from
//! the *sending* of the last question whose answer it has folded it may act on that for a fixed time, measured by a clock that
//! runs while the machine sleeps. Whoever appends an end of access and waits that long knows that nobody acts on less any more.
//!
//! **Invariant:** a view never becomes valid again for what came before a newer one was confirmed; it is only ever extended.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// For how long a broker of several acts on what it knows, in milliseconds from the sending of the last question that was answered.
pub const VIEW_MS: i64 = 3_000;

/// Shared by the writer, who extends it, and everybody who asks.
#[derive(Debug)]
pub struct View {
    /// Milliseconds since boot; the largest number if the log is nobody else's.
    valid_until: AtomicI64,
    lost: AtomicBool,
    losses: AtomicU64,
}

impl Default for View {
    fn default() -> Self {
        Self { valid_until: AtomicI64::new(i64::MAX), lost: AtomicBool::new(false), losses: AtomicU64::new(0) }
    }
}

impl View {
    /// One that has to be confirmed before anything passes.
    #[must_use]
    pub fn unconfirmed() -> Self {
        Self { valid_until: AtomicI64::new(i64::MIN), ..Self::default() }
    }

    /// Whether others share the log.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.valid_until.load(Ordering::Acquire) != i64::MAX
    }

    /// What was known at `sent` may be acted upon until `until`, both in milliseconds since boot.
    pub fn extend(&self, until: i64) {
        self.valid_until.fetch_max(until.min(i64::MAX - 1), Ordering::AcqRel);
    }

    /// Until when what is known may be acted upon, in milliseconds since boot.
    #[must_use]
    pub fn valid_until(&self) -> i64 {
        self.valid_until.load(Ordering::Acquire)
    }

    /// Whether nothing may be acted upon at `now` milliseconds since boot; the clock is read only if it matters.
    #[must_use]
    pub fn is_over(&self, now: impl FnOnce() -> i64) -> bool {
        let until = self.valid_until.load(Ordering::Acquire);
        until != i64::MAX && now() >= until
    }

    /// How often the way to the log was lost.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// The way to the log is lost; whether that is news.
    pub fn lose(&self) -> bool {
        let news = !self.lost.swap(true, Ordering::AcqRel);
        if news {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        news
    }

    /// It is there again; whether that is news.
    pub fn find(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_ends_by_itself_and_is_only_extended() {
        let alone = View::default();
        assert!(!alone.is_bounded() && !alone.is_over(|| i64::MAX - 1));
        let view = View::unconfirmed();
        assert!(view.is_bounded() && view.is_over(|| 0));
        view.extend(100);
        assert!(!view.is_over(|| 99) && view.is_over(|| 100));
        view.extend(50);
        assert!(!view.is_over(|| 99), "an older confirmation takes nothing back");
    }

    #[test]
    fn a_loss_is_news_once() {
        let view = View::unconfirmed();
        assert!(view.lose() && !view.lose());
        assert!(view.find() && !view.find());
        assert_eq!(view.losses(), 1);
    }
}
