//! Proving that checkpoints belong to one history, with the broker's help and without its word.
//!
//! The broker proves of any older checkpoint that its newest one extends it. Two checkpoints whose descendants meet in one are
//! prefixes of one tree, hence of each other.

use std::time::Duration;

use anteroom_proto::{
    ledger::{checkpoint::LogTrust, note::Note},
    rpc::{GetCheckpointRequest, audit_client::AuditClient},
};
use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::{
    heads::{HeadError, Point, verify_extension},
    shared::Shared,
};

/// How often descendants are followed before giving up. While the log stands still for the length of one exchange, once is
/// enough.
const ROUNDS_MAX: usize = 8;

/// Why checkpoints could not be shown to belong together.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeetError {
    /// The broker did not answer.
    #[error("the broker gave no checkpoint: {}", .0.code())]
    Unavailable(Box<tonic::Status>),
    /// The answer does not hold.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The log grew faster than it could be asked.
    #[error("the log grew faster than proofs could be fetched")]
    Restless,
}

/// If no key that is known signed a checkpoint, the log may have another one by now: the broker has to show how that came to be. Without
/// an answer the checkpoint stays one that nobody known signed.
///
/// # Errors
/// What the broker shows contradicts what was seen.
pub(super) async fn follow(shared: &Shared, checkpoint: &str, most: Duration) -> Result<(), HeadError> {
    let trust = shared.heads.trust();
    if Note::parse(checkpoint.as_bytes()).is_ok_and(|note| trust.knows_signer(&note)) {
        return Ok(());
    }
    match timeout(most, meet(&shared.audit, trust, &[shared.heads.newest()])).await {
        Ok(Err(MeetError::Head(error))) if error.is_contradiction() => {
            shared.contradicted(&error, checkpoint);
            Err(error)
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Asks until descendants of all `points` meet, and returns where.
pub(super) async fn meet(audit: &AuditClient<Channel>, trust: &LogTrust, points: &[Point]) -> Result<Point, MeetError> {
    let mut points = points.to_vec();
    for _ in 0..ROUNDS_MAX {
        let asked = points.iter().map(|point| descendant(audit.clone(), trust, *point));
        let mut next: Vec<Point> = join_all(asked).await.into_iter().collect::<Result<_, _>>()?;
        next.sort_by_key(|point| (point.size, point.root));
        next.dedup();
        let forked = next.iter().zip(next.iter().skip(1)).find(|(a, b)| a.size == b.size);
        if let Some((one, _)) = forked {
            return Err(HeadError::Forked { size: one.size }.into());
        }
        if let [only] = next.as_slice() {
            return Ok(*only);
        }
        points = next;
    }
    Err(MeetError::Restless)
}

async fn descendant(mut audit: AuditClient<Channel>, trust: &LogTrust, point: Point) -> Result<Point, MeetError> {
    let request = GetCheckpointRequest { seen_size: point.size };
    let reply = audit.get_checkpoint(request).await.map_err(|status| MeetError::Unavailable(Box::new(status)))?;
    let reply = reply.into_inner();
    trust.learn_notes(&reply.log_keys).map_err(HeadError::from)?;
    Ok(Point::of(&verify_extension(trust, point, &reply.checkpoint, &reply.consistency)?))
}
