//! Many tasks, one disk: receipts that come in together share one wait for it.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anteroom_proto::names::CallId;
use tokio::sync::oneshot;

use super::{KeptReceipt, ReceiptStore, StoreError};

/// Receipts that may wait for the disk; whoever has one more waits to hand it in.
const WAITING_MAX: usize = 1_024;
/// Receipts written with one wait.
const TOGETHER_MAX: usize = 256;

type Waiting = (KeptReceipt, oneshot::Sender<Result<(), StoreError>>);

/// A store shared by tasks. Its thread ends when the last of them lets it go.
#[derive(Clone, Debug)]
pub struct ReceiptKeeper {
    store: Arc<Mutex<ReceiptStore>>,
    send: mpsc::SyncSender<Waiting>,
}

impl ReceiptKeeper {
    /// Takes the store over.
    #[must_use]
    pub fn new(store: ReceiptStore) -> Self {
        let (send, receive) = mpsc::sync_channel(WAITING_MAX);
        let store = Arc::new(Mutex::new(store));
        let held = Arc::clone(&store);
        thread::spawn(move || run(&held, &receive));
        Self { store, send }
    }

    /// Keeps a receipt; when this returns it is on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn keep(&self, receipt: KeptReceipt) -> Result<(), StoreError> {
        let (send, receive) = oneshot::channel();
        let queue = self.send.clone();
        let queued = match queue.try_send((receipt, send)) {
            Ok(()) => Ok(()),
            Err(mpsc::TrySendError::Disconnected(_)) => Err(StoreError::Closed),
            Err(mpsc::TrySendError::Full(waiting)) => {
                let sent = tokio::task::spawn_blocking(move || queue.send(waiting).is_ok()).await;
                sent.ok().filter(|sent| *sent).map(|_| ()).ok_or(StoreError::Closed)
            }
        };
        queued?;
        receive.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The newest receipt of a call.
    ///
    /// # Errors
    /// The disk fails, or the frame was damaged since opening.
    pub async fn find(&self, call: CallId) -> Result<Option<KeptReceipt>, StoreError> {
        let store = Arc::clone(&self.store);
        let found = tokio::task::spawn_blocking(move || lock(&store).find(call)).await;
        found.unwrap_or(Err(StoreError::Closed))
    }

    /// The calls that have a receipt, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<CallId> {
        lock(&self.store).calls()
    }
}

fn lock(store: &Mutex<ReceiptStore>) -> std::sync::MutexGuard<'_, ReceiptStore> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(store: &Mutex<ReceiptStore>, receive: &mpsc::Receiver<Waiting>) {
    while let Ok(first) = receive.recv() {
        let more = receive.try_iter().take(TOGETHER_MAX - 1);
        let (receipts, waiting): (Vec<_>, Vec<_>) = std::iter::once(first).chain(more).unzip();
        match lock(store).append(&receipts) {
            Ok(()) => {
                for sender in waiting {
                    sender.send(Ok(())).ok();
                }
            }
            Err(error) => {
                tracing::error!(%error, "receipts cannot be kept");
                // The first hears why, the others that the store is closed: an error cannot be told twice.
                let mut error = Some(error);
                for sender in waiting {
                    sender.send(Err(error.take().unwrap_or(StoreError::Closed))).ok();
                }
            }
        }
    }
}
