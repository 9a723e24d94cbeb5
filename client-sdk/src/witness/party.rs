//! A lab's or an agency's own witness: it asks the broker for what is published, and cosigns what extends all it saw.
//!
//! **Invariant:** what contradicts anything that this side saw is never cosigned: it is kept as evidence, and the witness ends.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anteroom_proto::{
    ledger::{
        checkpoint::{VerifiedCheckpoint, cosign_with},
        note::{KeyName, VerifierKey},
        tree::{Hash, HashError, PROOF_HASHES_MAX, ProofError},
    },
    rpc::{CosignRequest, GetPublishedRequest, audit_client::AuditClient},
    statement::envelope::Signer as _,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tonic::transport::Channel;

use super::keeper::{AddError, Keeper, StateError};
use crate::{
    durable,
    error::{Error, VerificationError},
    log::{Anchoring, LogError, LogView, Point},
    signer::SharedSigner,
    system,
};

/// How often the broker is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long one turn may take.
const TURN_MAX: Duration = Duration::from_secs(10);
/// The longest pause after turns that failed.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What came of one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Turn {
    /// Nothing is published that is new to this side.
    #[default]
    Nothing,
    /// This witness's line stands on the published checkpoint of this size.
    Stands(u64),
    /// It was just put there.
    Cosigned(u64),
    /// Another checkpoint was published meanwhile, or its proof has to wait for the next turn.
    Later,
}

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
pub enum PartyError {
    /// The log contradicts what this side saw. The witness is at its end.
    #[error("the log contradicts what this side saw before: {why}; both checkpoints are kept in `{}`", kept.display())]
    Contradiction {
        /// How.
        why: LogError,
        /// Where the evidence is.
        kept: PathBuf,
    },
    /// The broker refuses or cannot be reached, or what it says is not to be believed.
    #[error(transparent)]
    Sdk(#[from] Error),
    /// The memory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key cannot sign.
    #[error("the witness's key cannot sign")]
    Signer,
    /// The turn took too long.
    #[error("the broker did not answer within {TURN_MAX:?}")]
    Timeout,
}

impl PartyError {
    /// Whether another turn may succeed.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Contradiction { .. } => false,
            Self::Sdk(_) | Self::State(_) | Self::Signer | Self::Timeout => true,
        }
    }
}

/// An organisation's witness for one log.
#[derive(Debug)]
pub struct Party {
    key: VerifierKey,
    signer: SharedSigner,
    keeper: Arc<Keeper>,
    dir: PathBuf,
    view: Arc<LogView>,
    audit: AuditClient<Channel>,
    also: Option<Also>,
}

/// Something else on this side that remembers checkpoints; asked before each cosignature.
pub trait Remembers: std::fmt::Debug + Send + Sync {
    /// Takes a checkpoint in, whose signature was verified.
    ///
    /// # Errors
    /// It contradicts one seen before.
    fn remember(&self, checkpoint: &VerifiedCheckpoint) -> Result<(), LogError>;
}

type Also = Arc<dyn Remembers>;

/// A witness at work. Dropping it ends it.
#[derive(Debug)]
pub struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Party {
    /// The witness whose key is `key`, signing with `signer`, remembering in `dir`, where [`Keeper::create`] was called when the key
    /// was made. `view` is the log as this side sees it otherwise.
    ///
    /// # Errors
    /// The memory is missing, damaged, or open in another process.
    pub fn open(
        key: VerifierKey,
        signer: SharedSigner,
        dir: PathBuf,
        view: Arc<LogView>,
        channel: Channel,
    ) -> Result<Self, StateError> {
        let keeper = Arc::new(Keeper::open(&dir)?);
        Ok(Self { key, signer, keeper, dir, view, audit: AuditClient::new(channel), also: None })
    }

    /// Cosigns nothing that contradicts what `also` remembers.
    #[must_use]
    pub fn checked_with(mut self, also: Arc<dyn Remembers>) -> Self {
        self.also = Some(also);
        self
    }

    /// Cosigns in the background. What contradicts the log is an error of the view it was opened with, for everybody who shares it.
    #[must_use]
    pub fn start(self) -> Running {
        Running(tokio::spawn(async move {
            // Told in the log line of its end.
            let _ = self.run(watch::Sender::new(Turn::Nothing)).await;
        }))
    }

    /// The key that verifies its cosignatures.
    #[must_use]
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Asks once for what is published, and cosigns it if it is new.
    ///
    /// # Errors
    /// See [`PartyError`]; nothing was handed in.
    pub async fn turn(&self) -> Result<Turn, PartyError> {
        timeout(TURN_MAX, self.ask()).await.unwrap_or(Err(PartyError::Timeout))
    }

    /// Cosigns about every second until the log contradicts itself; `told` gets every turn's result.
    pub async fn run(self, told: watch::Sender<Turn>) -> PartyError {
        let mut turns = interval(EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = EVERY;
        loop {
            turns.tick().await;
            match self.turn().await {
                Ok(turn) => {
                    pause = EVERY;
                    told.send_if_modified(|last| std::mem::replace(last, turn) != turn);
                }
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, "nothing was cosigned");
                    sleep(pause).await;
                    pause = pause.saturating_mul(2).min(PAUSE_MAX);
                }
                Err(error) => {
                    tracing::error!(%error, "this witness cosigns nothing more");
                    return error;
                }
            }
        }
    }

    async fn ask(&self) -> Result<Turn, PartyError> {
        let mut audit = self.audit.clone();
        let last = self.keeper.newest(self.log());
        let seen = self.view.newest_note();
        let request = GetPublishedRequest { seen_size: last.size, organisations: Vec::new(), seen };
        let reply = audit.get_published(request).await.map_err(Error::from)?.into_inner();
        if reply.checkpoint.is_empty() {
            return Ok(Turn::Nothing);
        }
        self.view.follow_for(&audit, &reply.checkpoint).await?;
        let shown = self.view.trust().open(reply.checkpoint.as_bytes()).map_err(LogError::from).map_err(Error::from)?;
        let point = Point::of(&shown);
        if point.size < last.size {
            return Ok(Turn::Nothing);
        }
        if point == last && shown.note().signatures().iter().any(|line| self.key.made(line)) {
            return Ok(Turn::Stands(point.size));
        }
        match self.view.accept(&audit, &[&shown]).await {
            Ok(Anchoring::Proven) => {}
            Ok(Anchoring::Waiting) => return Ok(Turn::Later),
            Err(Error::Verification(VerificationError::Log(why))) => return Err(self.fails(why, &shown)),
            Err(error) => return Err(error.into()),
        }
        if let Some(also) = &self.also {
            also.remember(&shown).map_err(|why| self.fails(why, &shown))?;
        }
        let time = match self.remember(shown.clone(), last, proof(&reply.consistency)?).await? {
            Ok(time) => time,
            Err(AddError::State(error)) => return Err(error.into()),
            Err(AddError::Forked(size)) => return Err(self.fails(LogError::Forked(size), &shown)),
            // Of the wrong length it proves nothing either way.
            Err(AddError::Proof(ProofError::Length(hashes))) => {
                return Err(Error::from(LogError::Length(hashes)).into());
            }
            Err(AddError::Proof(why)) => return Err(self.fails(LogError::Inconsistent(why), &shown)),
            Err(AddError::Stale(_) | AddError::Backwards { .. }) => return Ok(Turn::Later),
        };
        let line = self.sign(&shown, time).await?;
        match audit.cosign(CosignRequest { size: point.size, line }).await.map_err(Error::from) {
            Ok(_) => Ok(Turn::Cosigned(point.size)),
            Err(Error::Refused(refused)) if refused.code == "checkpoint_superseded" => Ok(Turn::Later),
            Err(error) => Err(error.into()),
        }
    }

    async fn remember(
        &self,
        shown: VerifiedCheckpoint,
        last: Point,
        proof: Vec<Hash>,
    ) -> Result<Result<u64, AddError>, Error> {
        let keeper = Arc::clone(&self.keeper);
        let now = u64::try_from(system::now().ms() / 1_000).unwrap_or(0);
        let added = tokio::task::spawn_blocking(move || keeper.add(&shown, last.size, &proof, now)).await;
        added.map_err(|_| Error::Interrupted)
    }

    /// Off the runtime's threads: a signer may be a card or a command that takes its time.
    async fn sign(&self, shown: &VerifiedCheckpoint, time: u64) -> Result<String, PartyError> {
        let (key, signer, shown) = (self.key.clone(), self.signer.clone(), shown.clone());
        let signed = tokio::task::spawn_blocking(move || {
            cosign_with(&key, &shown, time, |message| signer.sign(message).ok()).map(|line| line.to_string())
        });
        signed.await.ok().flatten().ok_or(PartyError::Signer)
    }

    /// A contradiction is kept and ends the witness; anything else that does not hold is asked for again.
    fn fails(&self, why: LogError, shown: &VerifiedCheckpoint) -> PartyError {
        match why {
            // The newer checkpoint is the broker's to prove, so a proof that fails is its own word against itself.
            LogError::Forked(_) | LogError::Inconsistent(_) => {
                let last = self.keeper.newest(self.log());
                let seen = format!("{}\n{}\n{}\n", self.log(), last.size, last.root);
                let files = [("contradicting-checkpoint", shown.note().encode()), ("contradicted-checkpoint", seen)];
                for (name, text) in files {
                    if let Err(error) = durable::replace(&self.dir.join(name), text.as_bytes(), durable::Sync::Disk) {
                        tracing::error!(%error, name, "evidence cannot be kept");
                    }
                }
                PartyError::Contradiction { why, kept: self.dir.clone() }
            }
            LogError::Checkpoint(_)
            | LogError::Hash(_)
            | LogError::Length(_)
            | LogError::Keys(_)
            | LogError::Unproven => PartyError::Sdk(why.into()),
        }
    }

    fn log(&self) -> &KeyName {
        self.view.trust().log().name()
    }
}

/// A proof as the broker sends it.
fn proof(hashes: &[Vec<u8>]) -> Result<Vec<Hash>, Error> {
    if hashes.len() > PROOF_HASHES_MAX {
        return Err(LogError::Length(hashes.len()).into());
    }
    let read: Result<Vec<Hash>, HashError> = hashes.iter().map(|hash| Hash::try_from(hash.as_slice())).collect();
    Ok(read.map_err(LogError::from)?)
}

#[cfg(test)]
mod tests;
