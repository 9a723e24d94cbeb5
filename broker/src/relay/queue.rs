//! The queue between a call and its caller.
//!
//! **Invariant:** what waits is bounded in number and in bytes, but for one item that is larger by itself. One task sends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use anteroom_proto::rpc::CallEnd;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::status::Reject;

/// Items of one call that wait for its caller.
pub(crate) const ITEMS_MAX: usize = 64;
/// Bytes of them, unless one alone has more.
pub(crate) const BYTES_MAX: usize = 256 * 1024;

/// What the caller's side gets of a call.
#[derive(Debug)]
pub(crate) enum Item {
    /// One event, or a whole body.
    Data(Bytes),
    /// The end, durable.
    End(Box<CallEnd>),
    /// It did not complete.
    Failed(Box<Reject>),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::End(_) | Self::Failed(_) => 0,
        }
    }
}

/// Why an item was not queued.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// There is no room for it yet.
    Full(Item),
    /// The caller has gone.
    Gone,
}

/// The call's end of the queue.
#[derive(Debug)]
pub(crate) struct Sender {
    items: mpsc::Sender<Item>,
    bytes: Arc<AtomicUsize>,
}

/// The caller's end.
#[derive(Debug)]
pub(crate) struct Receiver {
    items: mpsc::Receiver<Item>,
    bytes: Arc<AtomicUsize>,
}

/// An empty queue.
pub(crate) fn queue() -> (Sender, Receiver) {
    let ((sender, receiver), bytes) = (mpsc::channel(ITEMS_MAX), Arc::new(AtomicUsize::new(0)));
    (Sender { items: sender, bytes: Arc::clone(&bytes) }, Receiver { items: receiver, bytes })
}

impl Sender {
    /// Queues an item.
    ///
    /// # Errors
    /// It has no room, or nobody takes it.
    pub(crate) fn offer(&self, item: Item) -> Result<(), Unsent> {
        let (bytes, waiting) = (item.bytes(), self.bytes.load(Ordering::Relaxed));
        if bytes > 0 && waiting > 0 && waiting.saturating_add(bytes) > BYTES_MAX {
            return Err(if self.is_closed() { Unsent::Gone } else { Unsent::Full(item) });
        }
        // Counted before it can be taken.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.items.try_send(item).map_err(|error| {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(item) => Unsent::Full(item),
                mpsc::error::TrySendError::Closed(_) => Unsent::Gone,
            }
        })
    }

    /// Waits until everything was taken; `false` if the caller has gone.
    pub(crate) async fn taken(&self) -> bool {
        self.items.reserve_many(ITEMS_MAX).await.is_ok()
    }

    /// Whether the caller has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Ends when the caller has gone.
    pub(crate) async fn closed(&self) {
        self.items.closed().await;
    }
}

impl Receiver {
    /// The next item; `None` if the call's task is gone.
    pub(crate) async fn recv(&mut self) -> Option<Item> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The same, polled.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.items.poll_recv(cx).map(|item| item.inspect(|item| self.took(item)))
    }

    /// The next item, if it is there.
    pub(crate) fn try_recv(&mut self) -> Option<Item> {
        self.items.try_recv().ok().inspect(|item| self.took(item))
    }

    fn took(&self, item: &Item) {
        self.bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    fn data(bytes: usize) -> Item {
        Item::Data(Bytes::from(vec![b'x'; bytes]))
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_number_and_in_bytes() {
        let (sender, mut receiver) = queue();
        let mut many = 0;
        while sender.offer(data(1)).is_ok() {
            many += 1;
        }
        assert_eq!(many, ITEMS_MAX);
        while receiver.try_recv().is_some() {}
        assert!(sender.taken().await);

        let mut large = 0;
        while sender.offer(data(60_000)).is_ok() {
            large += 1;
        }
        assert_eq!(large, BYTES_MAX / 60_000);
        let _ = receiver.recv().await.unwrap();
        sender.offer(data(60_000)).unwrap();
        assert!(matches!(sender.offer(data(60_000)), Err(Unsent::Full(_))));
        while receiver.try_recv().is_some() {}
        // What is larger than the bound passes alone, with the end behind it.
        sender.offer(data(BYTES_MAX * 2)).unwrap();
        assert!(matches!(sender.offer(data(1)), Err(Unsent::Full(_))));
        sender.offer(Item::End(Box::default())).unwrap();
        drop(receiver);
        assert!(matches!(sender.offer(data(1)), Err(Unsent::Gone)));
        assert!(!sender.taken().await);
    }
}
