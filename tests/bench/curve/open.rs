//! Streams that stay open beside the load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anteroom_proto::rpc::{CallEvent, call_event::Event};
use tokio::task::JoinSet;

use super::super::{
    Fallible,
    answers::Manner,
    load::{Caller, Client},
    machine,
    setup::World,
};

/// Streams on one connection.
const STREAMS_PER_CONNECTION: usize = 100;
/// Streams that are being opened at once.
const OPENING: usize = 64;
/// How long they may take to open.
const OPEN_MAX: Duration = Duration::from_secs(120);

/// Streams with whoever reads them, under a grant of their own; gone when dropped.
#[derive(Default)]
pub(super) struct Streams {
    caller: Option<Arc<Caller>>,
    readers: JoinSet<Fallible<()>>,
    open: Arc<AtomicUsize>,
    count: usize,
}

impl Streams {
    /// Opens more until there are `count`, with slots left for `clients`.
    pub(super) async fn open(
        &mut self,
        world: &mut World,
        count: usize,
        clients: usize,
        pause: Duration,
    ) -> Fallible<()> {
        world.serve(count + clients * 2, pause).await?;
        let caller = match &self.caller {
            Some(caller) => Arc::clone(caller),
            None => Arc::clone(self.caller.insert(world.caller().await?)),
        };
        let connections = world.clients(count.div_ceil(STREAMS_PER_CONNECTION)).await?;
        for number in self.count..count {
            let client = connections[number / STREAMS_PER_CONNECTION].clone();
            self.readers.spawn(read(client, Arc::clone(&caller), Arc::clone(&self.open)));
            self.count += 1;
            while self.count - self.open.load(Ordering::Relaxed) >= OPENING {
                self.check()?;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        machine::until(OPEN_MAX, "every stream is open", || {
            let open = self.open.load(Ordering::Relaxed);
            async move { Ok(open >= count) }
        })
        .await
    }

    /// Fails if a stream has ended: fewer are open then than are measured.
    pub(super) fn check(&mut self) -> Fallible<()> {
        match self.readers.try_join_next() {
            None => Ok(()),
            Some(Ok(Err(error))) => Err(format!("an open stream failed: {error}").into()),
            Some(_) => Err("an open stream ended".into()),
        }
    }
}

async fn read(mut client: Client, caller: Arc<Caller>, open: Arc<AtomicUsize>) -> Fallible<()> {
    let request = caller.request(&Manner::Trickle.body(&caller.line))?;
    let mut events = client.stream(request).await?.into_inner();
    while let Some(CallEvent { event, .. }) = events.message().await? {
        if matches!(event, Some(Event::Admitted(_))) {
            open.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
