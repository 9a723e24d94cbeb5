//! A slot's life: idle, one call, idle again, until its stream ends.

use std::sync::Arc;

use super::{Relay, link::Link, slots::Registered};

/// Serves calls into the slot until its stream is lost.
pub(crate) async fn run(relay: Arc<Relay>, mut link: Link, mut slot: Registered) {
    slot.offer();
    loop {
        let job = tokio::select! {
            biased;
            job = slot.job() => job,
            () = relay.drained.wait() => None,
            // Idle, a connector has nothing to say but its clock.
            message = link.next() => {
                if message.is_some() {
                    tracing::warn!(lab = %slot.served().lab, "a connector spoke out of turn; its slot is closed");
                }
                None
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
