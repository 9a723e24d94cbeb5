//! Builds that take each other's place, as part of the fold.

use std::sync::Arc;

use anteroom_proto::{names::Digest, statement::succession::Change};

use super::State;
use crate::{
    event::{Entered, Event},
    standing::{OfferedSuccession, StandingSuccession},
};

impl State {
    /// Folds in what is offered and countersigned; other events change nothing here.
    pub(super) fn apply_succession(&mut self, entered: &Entered) {
        let index = entered.index;
        if let Event::SuccessionOffered(offered) = &entered.event {
            self.grant(entered, |grant| {
                let standing = OfferedSuccession {
                    succession: offered.succession.clone(),
                    statement: offered.statement.clone(),
                    digest: Digest::of(&offered.statement.payload),
                    index,
                };
                grant.successions.offered = Some(Arc::new(standing));
            });
        } else if let Event::SuccessionCountersigned(taken) = &entered.event {
            self.grant(entered, |grant| {
                let named = |offered: &Arc<OfferedSuccession>| offered.digest == taken.countersignature.succession;
                let Some(offered) = grant.successions.offered.take_if(|offered| named(offered)) else { return };
                let standing = StandingSuccession {
                    change: Change::of(&offered.succession, &taken.countersignature),
                    offered,
                    countersignature: taken.statement.clone(),
                    index,
                };
                grant.successions.countersigned.push(Arc::new(standing));
            });
        }
    }
}
