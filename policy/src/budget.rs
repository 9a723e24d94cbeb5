//! Exact budgets in two phases: what a call may cost at most is held before dispatch, what it cost is settled once.
//!
//! **Invariant:** settled + held ≤ limit, for calls, tokens and open calls, at every instant.

use anteroom_proto::statement::terms::Budget;

use crate::refusal::Refusal;

/// What one call holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Tokens at most.
    pub tokens: u64,
}

/// A budget with what was spent of it and what is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    limit: Budget,
    settled_calls: u64,
    settled_tokens: u64,
    held_calls: u64,
    held_tokens: u64,
    open: u64,
}

impl Account {
    /// An account that nothing was spent of.
    #[must_use]
    pub const fn new(limit: Budget) -> Self {
        Self { limit, settled_calls: 0, settled_tokens: 0, held_calls: 0, held_tokens: 0, open: 0 }
    }

    /// What was spent and is held, apart from the limits: settled calls and tokens, held calls and tokens, open calls.
    #[must_use]
    pub const fn numbers(&self) -> [u64; 5] {
        [self.settled_calls, self.settled_tokens, self.held_calls, self.held_tokens, self.open]
    }

    /// The account of which [`Account::numbers`] gave these.
    #[must_use]
    pub const fn restored(limit: Budget, numbers: [u64; 5]) -> Self {
        let [settled_calls, settled_tokens, held_calls, held_tokens, open] = numbers;
        Self { limit, settled_calls, settled_tokens, held_calls, held_tokens, open }
    }

    /// Whether a hold fits.
    ///
    /// # Errors
    /// `budget_spent` if it would not fit even when every call in flight turned out free; `budget_held` if calls in flight
    /// hold too much at the moment.
    pub const fn check(&self, hold: Hold) -> Result<(), Refusal> {
        let calls_left = self.limit.calls.saturating_sub(self.settled_calls);
        let tokens_left = self.limit.tokens.saturating_sub(self.settled_tokens);
        if calls_left == 0 || tokens_left < hold.tokens {
            return Err(Refusal::BudgetSpent);
        }
        let fits = self.held_calls < calls_left
            && hold.tokens <= tokens_left.saturating_sub(self.held_tokens)
            && self.open < self.limit.open;
        if fits { Ok(()) } else { Err(Refusal::BudgetHeld) }
    }

    /// Holds. Records are applied whether or not they fit, so that a fold never fails; [`Account::check`] comes before.
    pub fn hold(&mut self, hold: Hold) {
        self.held_calls = self.held_calls.saturating_add(1);
        self.held_tokens = self.held_tokens.saturating_add(hold.tokens);
        self.open = self.open.saturating_add(1);
    }

    /// Settles a hold at what was charged, which is at most what was held; `open` says whether the call counted as open.
    pub fn settle(&mut self, hold: Hold, charged: u64, open: bool) {
        self.release(hold, open);
        self.settled_calls = self.settled_calls.saturating_add(1);
        self.settled_tokens = self.settled_tokens.saturating_add(charged.min(hold.tokens));
    }

    /// Gives a hold back: the call never reached the model.
    pub fn void(&mut self, hold: Hold, open: bool) {
        self.release(hold, open);
    }

    /// An abandoned call is no longer open but keeps its hold until it is settled.
    pub fn abandon(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    fn release(&mut self, hold: Hold, open: bool) {
        self.held_calls = self.held_calls.saturating_sub(1);
        self.held_tokens = self.held_tokens.saturating_sub(hold.tokens);
        if open {
            self.open = self.open.saturating_sub(1);
        }
    }

    /// The limits.
    #[must_use]
    pub const fn limit(&self) -> Budget {
        self.limit
    }

    /// Calls and tokens spent for good.
    #[must_use]
    pub const fn settled(&self) -> (u64, u64) {
        (self.settled_calls, self.settled_tokens)
    }

    /// Calls and tokens held.
    #[must_use]
    pub const fn held(&self) -> (u64, u64) {
        (self.held_calls, self.held_tokens)
    }

    /// Calls open.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.open
    }

    /// Whether the invariant of this file holds.
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.settled_calls.saturating_add(self.held_calls) <= self.limit.calls
            && self.settled_tokens.saturating_add(self.held_tokens) <= self.limit.tokens
            && self.open <= self.limit.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Budget = Budget { calls: 2, tokens: 100, open: 2 };

    #[test]
    fn held_is_not_spent() {
        let mut account = Account::new(LIMIT);
        account.hold(Hold { tokens: 80 });
        assert_eq!(account.check(Hold { tokens: 30 }), Err(Refusal::BudgetHeld));
        account.settle(Hold { tokens: 80 }, 10, true);
        assert_eq!(account.check(Hold { tokens: 30 }), Ok(()));
        assert_eq!(account.check(Hold { tokens: 91 }), Err(Refusal::BudgetSpent));
    }

    #[test]
    fn a_call_is_charged_once_and_never_above_its_hold() {
        let mut account = Account::new(LIMIT);
        account.hold(Hold { tokens: 50 });
        account.settle(Hold { tokens: 50 }, u64::MAX, true);
        assert_eq!((account.settled(), account.held(), account.open()), ((1, 50), (0, 0), 0));
        account.hold(Hold { tokens: 50 });
        account.void(Hold { tokens: 50 }, true);
        assert_eq!(account.settled(), (1, 50));
        assert!(account.is_within());
    }

    #[test]
    fn open_calls_are_bounded() {
        let mut account = Account::new(Budget { calls: 9, tokens: 100, open: 1 });
        account.hold(Hold { tokens: 1 });
        assert_eq!(account.check(Hold { tokens: 1 }), Err(Refusal::BudgetHeld));
        account.abandon();
        assert_eq!(account.check(Hold { tokens: 1 }), Ok(()));
    }
}
