//! Decides, seals and folds, without a thread, a file or a clock.
//!
//! A batch is proposed, written by somebody, and then either committed or taken back; the simulator drives the very same code.
//!
//! **Invariant:** each decision of a batch sees the effects of those before it, and nothing that was taken back leaves a trace.

use std::sync::Arc;

use anteroom_policy::{
    brokers,
    command::{Command, Now, Reply},
    decide,
    event::{Entered, Event, ScopeHead},
    record::{self, Place},
    refusal::Refusal,
    state::State,
};
use anteroom_proto::ledger::{
    checkpoint::{Checkpoint, CheckpointError},
    leaf::Entry,
    note::{KeyName, NoteSigner},
    record::{Record, RecordError, Seed},
    scope::Scope,
    tree::{Frontier, FrontierError, Hash, Tree, leaf_hash},
};
use anteroom_proto::names::BrokerId;

use crate::entropy::{self, Entropy};

/// A record with what proves it: its seed and its entry.
#[derive(Debug)]
pub struct Sealed {
    /// The record.
    pub record: Record,
    /// Its scope.
    pub scope: Scope,
    /// Its random seed.
    pub seed: Seed,
    /// Its public entry.
    pub entry: Entry,
    /// What it says.
    pub entered: Entered,
}

/// An answer with the records that its decision wrote.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What to say once the batch is durable.
    pub reply: Reply,
    /// Its records.
    pub records: Vec<Arc<Sealed>>,
}

/// Proposed records, with the head of the log that they lead to.
#[derive(Debug)]
pub struct Batch {
    /// The records in order.
    pub records: Vec<Arc<Sealed>>,
    /// One answer a command, in order.
    pub answers: Vec<Answer>,
    /// The head; absent if there is nothing to write.
    pub head: Option<Arc<Head>>,
}

/// The log's head after a batch, able to prove the batch's records.
#[derive(Debug)]
pub struct Head {
    /// Records in the log.
    pub size: u64,
    /// The root.
    pub root: Hash,
    /// The signed checkpoint.
    pub note: Arc<str>,
    tree: Tree,
}

impl Head {
    /// The path from a record of this head's own batch to its root; `None` for an older one.
    #[must_use]
    pub fn path(&self, index: u64) -> Option<Vec<Hash>> {
        self.tree.inclusion_proof(index, self.size).ok()
    }
}

/// Why the core cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// A record on disk is none.
    #[error("record {index} cannot be read: {error}")]
    Record {
        /// Which.
        index: u64,
        /// Why.
        error: RecordError,
    },
    /// A record does not stand where the log has it.
    #[error("record {index} is not the one that the log's entry commits to")]
    Mismatch {
        /// Which.
        index: u64,
    },
    /// The root computed is not the one signed.
    #[error("the root over {size} records is not the one that was signed")]
    Root {
        /// How many.
        size: u64,
    },
    /// The checkpoint cannot be signed.
    #[error("the checkpoint cannot be signed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The tree is full.
    #[error("the tree cannot grow: {0}")]
    Tree(#[from] FrontierError),
}

/// The core of the journal.
#[derive(Debug)]
pub struct Core {
    origin: KeyName,
    signer: Arc<NoteSigner>,
    state: State,
    frontier: Frontier,
    /// From before the batch under way.
    before: Option<(State, Frontier)>,
    /// This broker's name, if others share the log.
    broker: Option<BrokerId>,
}

impl Core {
    /// An empty log.
    #[must_use]
    pub fn new(origin: KeyName, signer: Arc<NoteSigner>) -> Self {
        Self { origin, signer, state: State::default(), frontier: Frontier::new(), before: None, broker: None }
    }

    /// A log that goes on from a state written down and the right edge of its tree.
    #[must_use]
    pub const fn resume(origin: KeyName, signer: Arc<NoteSigner>, state: State, frontier: Frontier) -> Self {
        Self { origin, signer, state, frontier, before: None, broker: None }
    }

    /// What it admits names this broker from here on.
    #[must_use]
    pub fn named(mut self, broker: Option<BrokerId>) -> Self {
        self.broker = broker;
        self
    }

    /// The right edge of the tree, with the batch under way.
    #[must_use]
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Takes in a record that nobody can read any more: its entry stays in the tree.
    ///
    /// # Errors
    /// It is not the next one.
    pub fn skip(&mut self, index: u64, entry: Entry) -> Result<(), CoreError> {
        if index != self.frontier.size() {
            return Err(CoreError::Mismatch { index });
        }
        self.frontier.push(leaf_hash(entry.as_bytes()))?;
        self.state.skip(index);
        Ok(())
    }

    /// The fold, with the batch under way.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Records in the log, with the batch under way.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root, with the batch under way.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Folds a durable record in, holding it against the entry that the log has for it.
    ///
    /// # Errors
    /// The bytes are no record or not the one that the entry commits to.
    pub fn fold(&mut self, index: u64, entry: Entry, seed: &Seed, bytes: Vec<u8>) -> Result<Arc<Sealed>, CoreError> {
        let record = Record::parse(bytes).map_err(|error| CoreError::Record { index, error })?;
        let entered = record::decode(&record, entry).map_err(|error| CoreError::Record { index, error })?;
        let scope = entered.scope.clone();
        let head = self.state.head_for(&scope, &entered.event).ok_or(CoreError::Mismatch { index })?;
        let stands = entered.index == index
            && index == self.frontier.size()
            && entered.seq == head.next_seq
            && record.prev().is_ok_and(|prev| prev == head.head)
            && record.entry(seed, &head.tag_key) == entry;
        if !stands {
            return Err(CoreError::Mismatch { index });
        }
        self.frontier.push(leaf_hash(entry.as_bytes()))?;
        self.state.apply(&entered);
        Ok(Arc::new(Sealed { record, scope, seed: *seed, entry, entered }))
    }

    /// Decides each command in turn and seals what is to be written. Nothing counts before [`Core::committed`].
    ///
    /// # Errors
    /// The checkpoint cannot be signed; the proposal is taken back.
    pub fn propose(&mut self, commands: &[&Command], now: Now, entropy: &mut dyn Entropy) -> Result<Batch, CoreError> {
        let before = (self.state.clone(), self.frontier.clone());
        let mut tree = Tree::resume(&self.frontier);
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let mut decision = decide::decide(&self.state, command, now);
            let mut sealed = self.seal(std::mem::take(&mut decision.events), now, entropy);
            if sealed.is_err() {
                // What is too large to be remembered does not happen; that it was asked is remembered.
                decision = decide::decide_too_large(&self.state, command);
                sealed = self.seal(std::mem::take(&mut decision.events), now, entropy);
            }
            let answer = match sealed {
                Ok(sealed) => {
                    for sealed in &sealed {
                        let leaf = leaf_hash(sealed.entry.as_bytes());
                        self.frontier.push(leaf)?;
                        tree.push(leaf)?;
                        self.state.apply(&sealed.entered);
                    }
                    records.extend(sealed.iter().cloned());
                    Answer { reply: decision.reply, records: sealed }
                }
                // Nothing can be recorded, as before record 0.
                Err(error) => Answer {
                    reply: Reply::Refused { refusal: Refusal::StatementUnreadable, detail: error.to_string() },
                    records: Vec::new(),
                },
            };
            answers.push(answer);
        }
        self.before = Some(before);
        if records.is_empty() {
            return Ok(Batch { records, answers, head: None });
        }
        match self.head(tree) {
            Ok(head) => Ok(Batch { records, answers, head: Some(Arc::new(head)) }),
            Err(error) => {
                self.take_back();
                Err(error)
            }
        }
    }

    fn head(&self, tree: Tree) -> Result<Head, CoreError> {
        let (size, root) = (self.frontier.size(), self.frontier.root());
        let note = Checkpoint::new(self.origin.clone(), size, root)?.sign(&self.signer)?;
        Ok(Head { size, root, note: note.encode().into(), tree })
    }

    /// Seals a decision's events, all or none.
    fn seal(
        &self,
        events: Vec<(Scope, Event)>,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<Arc<Sealed>>, RecordError> {
        let mut heads: Vec<(Scope, ScopeHead)> = Vec::new();
        let mut sealed = Vec::with_capacity(events.len());
        let mut index = self.frontier.size();
        for (scope, mut event) in events {
            if let Some(broker) = self.broker {
                brokers::name(&mut event, broker);
            }
            // A decision's earlier records are what stands when its later ones are read.
            for dep in event.deps_mut() {
                if let Some((_, head)) = heads.iter().find(|(moved, _)| *moved == dep.scope) {
                    (dep.head, dep.index, dep.seq) = (head.head, head.index, head.next_seq.saturating_sub(1));
                }
            }
            let moved = heads.iter().position(|(moved, _)| *moved == scope);
            let head = match moved.and_then(|at| heads.get(at)) {
                Some((_, head)) => head.clone(),
                None => self.state.head_for(&scope, &event).ok_or(RecordError::Event("its scope is not open"))?,
            };
            let seq = head.next_seq;
            let place = Place { index, at: now.at, scope: &scope, seq, prev: head.head };
            let record = record::encode(&place, &event)?;
            let seed = Seed::from_bytes(entropy::bytes(entropy));
            let entry = record.entry(&seed, &head.tag_key);
            let next = ScopeHead { next_seq: seq.saturating_add(1), head: entry, index, tag_key: head.tag_key };
            match moved.and_then(|at| heads.get_mut(at)) {
                Some((_, head)) => *head = next,
                None => heads.push((scope.clone(), next)),
            }
            let entered = Entered { index, at: now.at, scope: scope.clone(), seq, entry, event };
            sealed.push(Arc::new(Sealed { record, scope, seed, entry, entered }));
            index = index.saturating_add(1);
        }
        Ok(sealed)
    }

    /// The batch under way is durable.
    pub fn committed(&mut self) {
        self.before = None;
    }

    /// The batch under way was not written, or another broker's records come before it: what was proposed is forgotten.
    pub fn take_back(&mut self) {
        if let Some((state, frontier)) = self.before.take() {
            self.state = state;
            self.frontier = frontier;
        }
    }

    /// Takes the batch under way back, folds what another broker wrote meanwhile, and decides the same commands again.
    ///
    /// # Errors
    /// What came meanwhile cannot be folded, or the checkpoint cannot be signed.
    pub fn conflict(
        &mut self,
        newer: &[Arc<Sealed>],
        commands: &[&Command],
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<Batch, CoreError> {
        self.take_back();
        for sealed in newer {
            self.fold(sealed.entered.index, sealed.entry, &sealed.seed, sealed.record.bytes().to_vec())?;
        }
        self.propose(commands, now, entropy)
    }
}
