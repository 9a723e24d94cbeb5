//! A door in front of a broker that hands bytes on, and can be taken away with everything that passes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A door that stands open. Dropping it closes its port and breaks every connection through it.
#[derive(Debug)]
pub struct Forward {
    address: SocketAddr,
    passed: Arc<AtomicU64>,
    work: JoinHandle<()>,
}

impl Forward {
    /// Opens one to `there`.
    ///
    /// # Panics
    /// Loopback cannot be listened on.
    pub async fn to(there: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let passed = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&passed);
        let work = tokio::spawn(async move {
            // Dropped with the task, and every connection with it.
            let mut open = JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                open.spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(there).await {
                        let _ = copy_bidirectional(&mut here, &mut there).await;
                    }
                });
            }
        });
        Self { address, passed, work }
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Takes it away, and waits until nothing passes any more.
    pub async fn close(self) {
        self.work.abort();
        while !self.work.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.work.abort();
    }
}
