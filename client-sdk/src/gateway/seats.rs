//! Who may be connected: a bounded number, and whoever says nothing makes room first.
//!
//! **Invariant:** a connection that is in a request is never ended for another's sake, and silent connections, however many, keep
//! nobody out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Room for connections.
#[derive(Debug)]
pub(crate) struct Seats {
    max: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    next: u64,
    /// Connections without a request under way, in the order in which they began to wait.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// A connection's seat. Dropping it makes room.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    leave: Arc<Notify>,
    place: Mutex<Option<u64>>,
}

/// A request under way on a connection. Dropping it ends the request.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Seat>);

impl Seats {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), state: Mutex::default(), freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat, once there is one. The connection that has said nothing for longest is asked to leave if there is none.
    pub(crate) async fn take(self: &Arc<Self>) -> Arc<Seat> {
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state();
                if state.open < self.max {
                    state.open = state.open.saturating_add(1);
                    drop(state);
                    let seat = Arc::new(Seat {
                        seats: Arc::clone(self),
                        leave: Arc::new(Notify::new()),
                        place: Mutex::new(None),
                    });
                    seat.wait();
                    return seat;
                }
                if let Some((_, leave)) = state.waiting.pop_first() {
                    leave.notify_one();
                }
            }
            freed.await;
        }
    }
}

impl Seat {
    /// The connection has no request under way.
    fn wait(&self) {
        let mut state = self.seats.state();
        let place = state.next;
        state.next = state.next.saturating_add(1);
        state.waiting.insert(place, Arc::clone(&self.leave));
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    fn leave_place(&self) {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(place) = place {
            self.seats.state().waiting.remove(&place);
        }
    }

    /// The connection has a request under way.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.leave_place();
        Busy(Arc::clone(self))
    }

    /// Whether the connection, asked to leave, stays after all because a request came meanwhile. Then another is asked.
    pub(crate) fn stays(&self) -> bool {
        let busy = self.place.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if busy {
            self.seats.freed.notify_one();
        }
        busy
    }

    /// Returns when the connection has to make room.
    pub(crate) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.wait();
        // Whoever waits for a seat may ask for this one.
        self.0.seats.freed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave_place();
        let mut state = self.seats.state();
        state.open = state.open.saturating_sub(1);
        drop(state);
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_longest_leaves_first_and_nobody_who_is_busy() {
        let seats = Seats::new(2);
        let (one, two) = (seats.take().await, seats.take().await);
        let busy = one.busy();
        let mut third = Box::pin(seats.take());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(two.asked_to_leave().now_or_never().is_some());
        assert!(one.asked_to_leave().now_or_never().is_none());
        drop(two);
        let three = third.await;
        let _also = three.busy();
        // Everybody is busy, so one more waits until a request is over; then its connection makes room.
        let mut fourth = Box::pin(seats.take());
        assert!(fourth.as_mut().now_or_never().is_none());
        assert!(one.asked_to_leave().now_or_never().is_none());
        drop(busy);
        assert!(fourth.as_mut().now_or_never().is_none());
        assert!(one.asked_to_leave().now_or_never().is_some());
        assert!(!one.stays());
        drop(one);
        fourth.await;
    }

    #[tokio::test]
    async fn a_request_that_comes_while_its_connection_is_asked_to_leave_is_answered() {
        let seats = Seats::new(2);
        let (one, two) = (seats.take().await, seats.take().await);
        let mut third = Box::pin(seats.take());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(one.asked_to_leave().now_or_never().is_some());
        let _busy = one.busy();
        assert!(one.stays());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(two.asked_to_leave().now_or_never().is_some(), "another is asked in its place");
        assert!(!two.stays());
        drop(two);
        third.await;
    }
}
