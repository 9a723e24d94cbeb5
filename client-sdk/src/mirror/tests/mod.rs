#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests stop at the first surprise, and one prints figures"
)]

mod altered;
mod bundled;
mod destroyed;
mod disclosed;
mod dossiers;
mod extended;
mod held;
mod rounds;
mod searched;
mod speed;

use std::{collections::BTreeMap, path::Path};

use anteroom_proto::{
    ledger::{
        checkpoint::{Cosigner, LogTrust, VerifiedCheckpoint},
        note::KeyName,
        record::Audience,
        scope::{Scope, TagKey},
    },
    names::{Digest, OrgId},
    rpc::{GetCheckpointReply, GrantLapsed, ReadReply, Receipt},
};

use super::{
    Mirror, MirrorError, Progress,
    check::{self, Demands, Verified},
    take::{MirrorSource, TakeEntries, TakeRecord, Taken, extend},
};
use crate::{
    error::{Error, VerificationError},
    verify::{
        scope::TagKeys,
        world::{Call, MiniLog, World},
    },
};

const LAPSED: u32 = 23;

/// A broker that shows a log in memory, as honestly as told.
struct Broker<'l> {
    log: &'l MiniLog,
    audience: Audience,
    /// Hand out the seed and the whole record.
    shared: bool,
    /// Breaks off after so many bytes of entries.
    bytes: usize,
    /// Alters the first entry sent.
    lies: bool,
    /// Shows no record at this index.
    hidden: Option<u64>,
    witness: Option<Cosigner>,
}

impl<'l> Broker<'l> {
    fn new(log: &'l MiniLog) -> Self {
        Self {
            log,
            audience: Audience::AGENCY,
            shared: false,
            bytes: usize::MAX,
            lies: false,
            hidden: None,
            witness: None,
        }
    }
}

impl MirrorSource for Broker<'_> {
    async fn checkpoint(&mut self, seen_size: u64) -> Result<GetCheckpointReply, Error> {
        let mut note = self.log.note();
        if let Some(witness) = &self.witness {
            let verified = self.log.trust().verify(note.clone()).unwrap();
            note.add(witness.cosign(&verified, 1_795_000_000).unwrap()).unwrap();
        }
        let known = seen_size <= self.log.entries.len() as u64;
        let consistency = if known { self.log.consistency(seen_size) } else { Vec::new() };
        Ok(GetCheckpointReply { checkpoint: note.encode(), consistency, log_keys: Vec::new() })
    }

    async fn entries(&mut self, from: u64, to: u64, take: TakeEntries<'_>) -> Result<(), Error> {
        let mut bytes: Vec<u8> = self.log.entries.iter().flat_map(|entry| *entry.as_bytes()).collect();
        if self.lies {
            bytes[usize::try_from(from).unwrap() * 48 + 20] ^= 1;
        }
        let wanted = &bytes[usize::try_from(from).unwrap() * 48..usize::try_from(to).unwrap() * 48];
        let cut = wanted.get(..self.bytes).unwrap_or(wanted);
        for piece in cut.chunks(1_001) {
            take(piece)?;
        }
        if cut.len() == wanted.len() { Ok(()) } else { Err(Error::Transport("broke off".to_owned())) }
    }

    async fn records(&mut self, scope: &Scope, from_seq: u64, take: TakeRecord<'_>) -> Result<(), Error> {
        let shown = self.log.records.iter().filter(|(record, _)| Some(record.header().index) != self.hidden);
        let own = shown.filter(|(record, _)| record.scope().unwrap() == *scope);
        for (record, seed) in own.skip(usize::try_from(from_seq).unwrap()) {
            let mut reply = ReadReply {
                record: Some(self.log.prove(record.header().index, self.audience)),
                ..ReadReply::default()
            };
            if self.shared {
                reply.seed = seed.as_bytes().to_vec();
                reply.full = record.bytes().to_vec();
            }
            if !take(reply)? {
                break;
            }
        }
        Ok(())
    }

    async fn agree(&mut self, _: &VerifiedCheckpoint) -> Result<(), Error> {
        Ok(())
    }
}

/// An organisation whose records stand between those of the grant.
fn other() -> (Scope, TagKey) {
    let scope = Scope::Organisation(OrgId::parse("other").unwrap());
    let key = scope.tag_key(&Digest::of(b"other"));
    (scope, key)
}

fn fill(log: &mut MiniLog, upto: u64) {
    let (scope, key) = other();
    while (log.entries.len() as u64) < upto {
        let lapsed_ms = i64::try_from(log.entries.len()).unwrap() + 1;
        log.append(&scope, &key, LAPSED, &GrantLapsed { lapsed_ms });
    }
}

/// A log with a call of the world's grant and `size` entries, and that call's receipt.
fn logged(world: &World, size: u64) -> (MiniLog, Call, Receipt) {
    let mut log = MiniLog::new();
    fill(&mut log, 2);
    let call = Call::new(world);
    let receipt = call.record(world, &mut log);
    fill(&mut log, size);
    (log, call, receipt)
}

fn own(world: &World) -> (Scope, TagKey) {
    (world.scope(), world.tag_key())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn mirrored(dir: &Path, broker: &mut Broker<'_>, scopes: &[(Scope, TagKey)]) -> Result<Taken, Error> {
    let trust = broker.log.trust();
    run(extend(&Mirror::at(dir), broker, &trust, scopes, &mut |_: Progress| {}))
}

fn demands(log: &MiniLog) -> Demands {
    Demands { trust: log.trust(), known: TagKeys::default(), seen: None, pins: BTreeMap::new() }
}

fn verified(dir: &Path, demands: &Demands) -> Result<Verified, MirrorError> {
    check::verify(&Mirror::at(dir), demands, None, &mut |_| {}, |_| Ok(()))
}

fn mirror_error(error: Error) -> MirrorError {
    let told = error.to_string();
    let (Error::Verification(VerificationError::Mirror(error)) | Error::Mirror(error)) = error else {
        panic!("another error: {told}")
    };
    *error
}

fn witness() -> Cosigner {
    Cosigner::from_seed(KeyName::parse("witness.example").unwrap(), &[7; 32])
}

fn quorum(log: &MiniLog) -> LogTrust {
    LogTrust::new(log.trust().log().clone(), vec![witness().verifier().clone()], 1).unwrap()
}
