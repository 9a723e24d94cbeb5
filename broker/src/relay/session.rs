//! A slot's life: idle, one call, idle again, until its stream ends.
//!
//! A connector that needs fewer slots asks for an idle one to be closed. Whether it is idle is decided here, where calls are handed
//! in: the slot is taken out of the registry first, and only an empty one is closed.

use std::sync::Arc;

use anteroom_proto::rpc::serve_up;

use super::{Relay, link::Link, slots::Registered};

/// Serves calls into the slot until its stream is lost.
pub(crate) async fn run(relay: Arc<Relay>, mut link: Link, mut slot: Registered) {
    slot.offer();
    loop {
        let job = tokio::select! {
            biased;
            job = slot.job() => job,
            () = relay.drained.wait() => None,
            // Idle, a connector has nothing to say but its clock, and that it needs the slot no more.
            message = link.next() => match message {
                Some(serve_up::Message::Retire(_)) => {
                    if slot.retire() {
                        return;
                    }
                    // A call was faster, and the connector takes it.
                    continue;
                }
                Some(
                    serve_up::Message::Hello(_)
                    | serve_up::Message::Claim(_)
                    | serve_up::Message::Head(_)
                    | serve_up::Message::Data(_)
                    | serve_up::Message::Done(_)
                    | serve_up::Message::Clock(_),
                ) => {
                    tracing::warn!(lab = %slot.served().lab, "a connector spoke out of turn; its slot is closed");
                    None
                }
                None => None,
            }
        };
        let Some(job) = job else { break };
        if !job.run(&mut link).await {
            break;
        }
        slot.offer();
    }
    if let Some(job) = slot.close() {
        job.undelivered().await;
    }
}
