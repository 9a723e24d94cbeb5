//! The published head of the log: what anybody may see of it, with the cosignatures it has so far.
//!
//! The publisher puts each head here once tiles, lock file and checkpoint are on disk; whoever collects cosignatures adds them.
//!
//! **Invariant:** the published size never goes down, and a cosignature is only ever added to the head it was made for.

use std::sync::Arc;

use anteroom_proto::ledger::{
    note::{Note, NoteSignature},
    tree::Hash,
};
use tokio::sync::watch;

/// A published head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Records.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The checkpoint: the log's signature first, then the cosignatures so far.
    pub note: Note,
}

/// Why a cosignature is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CosignError {
    /// Another head is the published one by now.
    #[error("the published checkpoint is of size {published}, not {asked}; ask for it again")]
    Superseded {
        /// What is published.
        published: u64,
        /// What was cosigned.
        asked: u64,
    },
    /// The note has no room for it.
    #[error("the checkpoint takes no more signatures")]
    Full,
}

/// Where the newest published head is kept.
#[derive(Debug)]
pub struct Published {
    newest: watch::Sender<Option<Arc<Head>>>,
}

impl Default for Published {
    fn default() -> Self {
        Self { newest: watch::Sender::new(None) }
    }
}

impl Published {
    /// The newest head; `None` before the first publication.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Head>> {
        self.newest.borrow().clone()
    }

    /// Follows publications and added cosignatures.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Head>>> {
        self.newest.subscribe()
    }

    /// Takes a new head. One that is not larger changes nothing.
    pub fn publish(&self, head: Head) {
        let _ = self.newest.send_if_modified(|newest| {
            let grows = newest.as_ref().is_none_or(|old| old.size < head.size);
            if grows {
                *newest = Some(Arc::new(head));
            }
            grows
        });
    }

    /// Adds verified cosignatures to the head of `size`; that head, with them.
    ///
    /// # Errors
    /// That head is not the published one any more, or its note is full; nothing was added.
    pub fn cosigned(&self, size: u64, signatures: &[NoteSignature]) -> Result<Arc<Head>, CosignError> {
        let mut result = Err(CosignError::Superseded { published: 0, asked: size });
        let _ = self.newest.send_if_modified(|newest| {
            let head = match newest.as_ref() {
                Some(head) if head.size == size => head,
                other => {
                    let published = other.map_or(0, |head| head.size);
                    result = Err(CosignError::Superseded { published, asked: size });
                    return false;
                }
            };
            let mut next = Head::clone(head);
            for signature in signatures {
                if next.note.add(signature.clone()).is_err() {
                    result = Err(CosignError::Full);
                    return false;
                }
            }
            let next = Arc::new(next);
            result = Ok(Arc::clone(&next));
            *newest = Some(next);
            true
        });
        result
    }
}
