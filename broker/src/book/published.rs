//! The published head of the log: what anybody may see of it, with the cosignatures it has so far.
//!
//! The publisher puts each head here once tiles, lock file and checkpoint are on disk; whoever collects cosignatures adds them.
//! A round is one witness's chance to answer for the newest head: whoever asks witnesses says how many rounds each head has
//! ([`Published::expect`]) and when one is over ([`Published::answered`]), so that the publisher can leave a head standing for as
//! long as it is being cosigned.
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
    rounds: watch::Sender<Rounds>,
}

/// The rounds of the newest head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rounds {
    /// Of each head to come.
    expected: usize,
    size: u64,
    outstanding: usize,
}

impl Default for Published {
    fn default() -> Self {
        Self { newest: watch::Sender::new(None), rounds: watch::Sender::new(Rounds::default()) }
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

    /// Says how many rounds each head has from now on: one for each witness that will be asked. Without a word there are none,
    /// and nobody waits.
    pub fn expect(&self, rounds: usize) {
        let _ = self.rounds.send_if_modified(|now| {
            now.outstanding = now.outstanding.min(rounds);
            now.expected = rounds;
            true
        });
    }

    /// One witness has answered for the head of `size`, or will not any more. For an older head it means nothing.
    pub fn answered(&self, size: u64) {
        let _ = self.rounds.send_if_modified(|now| {
            let counts = now.size == size && now.outstanding > 0;
            if counts {
                now.outstanding -= 1;
            }
            counts
        });
    }

    /// How many rounds of the newest head are not over.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.rounds.borrow().outstanding
    }

    /// Ends when the newest head has no round outstanding. Whoever waits sets the bound.
    pub async fn settled(&self) {
        let mut rounds = self.rounds.subscribe();
        // The sender is this value's own, so it does not end first.
        let _ = rounds.wait_for(|now| now.outstanding == 0).await;
    }

    /// Takes a new head. One that is not larger changes nothing.
    pub fn publish(&self, head: Head) {
        // The rounds are there before anybody sees the head, so that no answer comes too early to count.
        self.rounds.send_if_modified(|now| {
            let grows = now.size < head.size;
            if grows {
                (now.size, now.outstanding) = (head.size, now.expected);
            }
            grows
        });
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::ledger::{
        checkpoint::Checkpoint,
        note::{KeyName, NoteSigner, SEED_BYTES},
        tree::leaf_hash,
    };

    use super::*;

    fn head(size: u64) -> Head {
        let name = KeyName::parse("broker.example/log").unwrap();
        let signer = NoteSigner::from_seed(name.clone(), &[1; SEED_BYTES]);
        let root = leaf_hash(&size.to_be_bytes());
        Head { size, root, note: Checkpoint::new(name, size, root).unwrap().sign(&signer).unwrap() }
    }

    #[tokio::test]
    async fn a_head_is_settled_when_each_round_is_over() {
        let published = Published::default();
        published.settled().await;
        published.expect(2);
        published.publish(head(3));
        assert_eq!(published.outstanding(), 2);
        published.answered(2);
        published.answered(3);
        assert_eq!(published.outstanding(), 1);
        published.publish(head(2));
        assert_eq!((published.outstanding(), published.newest().unwrap().size), (1, 3), "it never goes back");
        published.publish(head(5));
        published.answered(3);
        assert_eq!(published.outstanding(), 2, "an answer for an older head ends no round of this one");
        published.answered(5);
        published.answered(5);
        published.settled().await;
        published.publish(head(6));
        published.expect(0);
        published.settled().await;
    }

    #[test]
    fn a_cosignature_is_added_to_its_own_head_alone() {
        let published = Published::default();
        published.publish(head(3));
        let unknown = NoteSignature::parse("\u{2014} w.example AAAAAAAA").unwrap();
        let superseded = published.cosigned(2, std::slice::from_ref(&unknown));
        assert_eq!(superseded, Err(CosignError::Superseded { published: 3, asked: 2 }));
        published.cosigned(3, std::slice::from_ref(&unknown)).unwrap();
        assert_eq!(published.newest().unwrap().note.signatures().last(), Some(&unknown));
    }
}
