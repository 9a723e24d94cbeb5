//! One broker of those that the connector serves, with the slots that it holds open there.

use anteroom_proto::rpc::serving_client::ServingClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{
    shared::{Shared, serving},
    status::Status,
};
use crate::home::Broker;

/// A broker's door.
#[derive(Debug)]
pub(super) struct Door {
    /// Where it is.
    pub(super) name: String,
    pub(super) serving: ServingClient<Channel>,
    pub(super) standing: watch::Sender<Standing>,
}

/// How many slots stand how at one broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    /// Held open.
    pub(super) open: usize,
    /// In a call.
    pub(super) busy: usize,
    /// Idle, and asked to be closed.
    pub(super) retiring: usize,
}

impl Standing {
    /// Whether more slots wait for calls than have to, those left out that the broker was asked to close.
    pub(super) const fn has_surplus(self, idle_min: usize) -> bool {
        self.open.saturating_sub(self.busy).saturating_sub(self.retiring) > idle_min
    }
}

impl Door {
    pub(super) fn new(broker: Broker) -> Self {
        let standing = watch::Sender::new(Standing::default());
        Self { name: broker.name, serving: serving(broker.channel), standing }
    }
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Count {
    Open,
    Busy,
    Retiring,
}

impl Count {
    const fn at(self, standing: &mut Standing) -> &mut usize {
        match self {
            Self::Open => &mut standing.open,
            Self::Busy => &mut standing.busy,
            Self::Retiring => &mut standing.retiring,
        }
    }

    const fn of(self, status: &mut Status) -> &mut usize {
        match self {
            Self::Open => &mut status.open,
            Self::Busy => &mut status.busy,
            Self::Retiring => &mut status.retiring,
        }
    }
}

/// A count, at a door and over all of them, that goes down by itself.
pub(super) struct Counted<'s> {
    shared: &'s Shared,
    door: &'s Door,
    count: Count,
}

impl<'s> Counted<'s> {
    pub(super) fn one(shared: &'s Shared, door: &'s Door, count: Count) -> Self {
        door.standing.send_modify(|standing| *count.at(standing) += 1);
        shared.note(|status| *count.of(status) += 1);
        Self { shared, door, count }
    }

    /// One of the slots that wait beyond those that have to, if there is one. Counted under the door's lock, so that two slots do
    /// not both take themselves for the last.
    pub(super) fn surplus(shared: &'s Shared, door: &'s Door) -> Option<Self> {
        let taken = door.standing.send_if_modified(|standing| {
            let surplus = standing.has_surplus(shared.idle_min);
            standing.retiring += usize::from(surplus);
            surplus
        });
        if !taken {
            return None;
        }
        shared.note(|status| status.retiring += 1);
        Some(Self { shared, door, count: Count::Retiring })
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let count = self.count;
        self.door.standing.send_modify(|standing| {
            let counted = count.at(standing);
            *counted = counted.saturating_sub(1);
        });
        self.shared.note(|status| {
            let counted = count.of(status);
            *counted = counted.saturating_sub(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slots_that_wait_beyond_the_least_are_surplus() {
        let standing = |open, busy, retiring| Standing { open, busy, retiring };
        assert!(
            standing(9, 0, 0).has_surplus(8) && standing(12, 3, 0).has_surplus(8) && standing(9, 0, 0).has_surplus(0)
        );
        assert!(!standing(8, 0, 0).has_surplus(8) && !standing(12, 4, 0).has_surplus(8));
        assert!(!standing(10, 0, 2).has_surplus(8) && !standing(1, 2, 3).has_surplus(0));
    }
}
