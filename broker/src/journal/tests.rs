//! Retention over a real log on disks that forget: what may be destroyed, what a destruction leaves, and who finishes it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::sync::Arc;

use anteroom_policy::{
    command::{Command, Reply},
    refusal::Refusal,
};
use anteroom_proto::{
    ledger::{note::KeyName, scope::Scope, tree::verify_inclusion},
    names::{GrantId, LockId},
    statement::{
        acts::{Appointment, Disposition, DispositionAction, Hold, HoldRelease, StopKind},
        envelope::sign_json,
    },
    time::HOUR_MS,
};

use super::{
    recover::{Found, RecoverError},
    restore,
    snapshot::{Snapshot, SnapshotError, store::Store},
};
use crate::{
    book::{
        disk::lossy::{Fault, LossyDisk},
        keyring::{Kek, Keyring},
        store::Segments,
        wal::Config,
    },
    identity::Role,
    testing::{Access, Disks, Key, ORIGIN, Party, World, called, done, random, refused},
};

const SIZES: Config = Config { segment_bytes: 1 << 20, reserve_bytes: 1 << 18 };

fn disks(world: &World) -> &Disks {
    world.disks.as_ref().unwrap()
}

fn disposition(
    world: &World,
    by: &Party,
    scope: &Scope,
    action: DispositionAction,
) -> anteroom_proto::rpc::SignedStatement {
    let disposition = Disposition {
        by: by.org.clone(),
        scope: scope.clone(),
        action,
        schedule: "schedule 4".to_owned(),
        at_ms: world.now(),
    };
    sign_json(&disposition, &[&by.stop]).unwrap()
}

async fn dispose(world: &World, scope: &Scope) -> Result<(), Refusal> {
    let statement = disposition(world, &world.operator, scope, DispositionAction::Destroyed);
    answer(world, &world.operator, statement).await
}

async fn answer(world: &World, party: &Party, statement: anteroom_proto::rpc::SignedStatement) -> Result<(), Refusal> {
    let committed = world.act(party, statement, &[]).await;
    refused(&committed).map_or(Ok(()), Err)
}

fn hold(party: &Party, id: LockId, scope: &Scope) -> anteroom_proto::rpc::SignedStatement {
    let hold = Hold { id, by: party.org.clone(), scope: scope.clone(), reason: "a suit".to_owned() };
    sign_json(&hold, &[&party.stop]).unwrap()
}

async fn read(world: &World, party: &Party, scope: &Scope) -> Reply {
    let caller = party.caller(Role::Auditor, "reader");
    let open = Command::OpenRead { caller, target: scope.clone(), from_seq: 0 };
    world.journal.submit(open).await.unwrap().reply
}

fn no(reply: Reply) -> Option<(Refusal, String)> {
    if let Reply::Refused { refusal, detail } = reply { Some((refusal, detail)) } else { None }
}

fn pass(world: &World, hours: i64) {
    world.time.advance(hours * HOUR_MS);
    let wall = crate::clock::TimeSource::read(&world.time).wall_ms;
    world.clock.confirm(wall).unwrap();
}

/// A world with a grant that ended long ago and one that goes on.
async fn ended() -> (World, Access, Access) {
    let world = World::lossy().await;
    let over = world.grant(|_| {}).await;
    let live = world.grant(|_| {}).await;
    for _ in 0..3 {
        called(&world, &over, true).await;
        called(&world, &live, true).await;
    }
    done(world.act(&world.lab, world.stop(&world.lab, over.grant, StopKind::Withdraw), &[]).await);
    pass(&world, 25);
    (world, over, live)
}

fn found(world: &World, store: bool) -> Result<Found, RecoverError> {
    let disks = disks(world);
    let keyring = keyring(world);
    let origin = KeyName::parse(ORIGIN).unwrap();
    let segments = Segments { disk: Arc::<LossyDisk>::clone(&disks.wal), origin: ORIGIN.to_owned(), sizes: SIZES };
    let log = restore::Log { store: &segments, origin: &origin, signer: &world.log, keyring: &keyring, tiles: None };
    let store = store.then(|| Store::new(Arc::<LossyDisk>::clone(&disks.snapshots)));
    restore::start(&log, store.as_ref())
}

fn keyring(world: &World) -> Keyring {
    Keyring::open(Arc::<LossyDisk>::clone(&disks(world).keys), Kek::from_bytes(&world.kek).unwrap()).unwrap()
}

/// The key of a scope while it is there.
fn key_of(world: &World, scope: &Scope) -> crate::book::keyring::KeyId {
    found(world, false).unwrap().keys[scope]
}

#[tokio::test]
async fn only_what_is_over_and_not_held_is_destroyed_and_only_by_the_operator() {
    let (world, over, live) = ended().await;
    let scope = Scope::Grant(over.grant);
    let organisation = Scope::Organisation(world.lab.org.clone());
    let nowhere = Scope::Grant(GrantId::from_bytes([9; 16]));
    assert_eq!(dispose(&world, &Scope::Grant(live.grant)).await, Err(Refusal::GrantLive));
    assert_eq!(dispose(&world, &Scope::Roster(world.agency.org.clone())).await, Err(Refusal::GrantLive));
    assert_eq!(dispose(&world, &Scope::System).await, Err(Refusal::ScopeKept));
    assert_eq!(dispose(&world, &organisation).await, Err(Refusal::ScopeKept));
    assert_eq!(dispose(&world, &nowhere).await, Err(Refusal::ScopeUnknown));
    let by_lab = disposition(&world, &world.lab, &scope, DispositionAction::Destroyed);
    assert_eq!(answer(&world, &world.lab, by_lab).await, Err(Refusal::NotYours));
    let unsigned = Disposition {
        by: world.operator.org.clone(),
        scope: scope.clone(),
        action: DispositionAction::Destroyed,
        schedule: "schedule 4".to_owned(),
        at_ms: world.now(),
    };
    let unsigned = sign_json(&unsigned, &[&Key::generate()]).unwrap();
    assert_eq!(answer(&world, &world.operator, unsigned).await, Err(Refusal::SignatureMissing));

    let id = LockId::from_bytes(random());
    assert_eq!(answer(&world, &world.lab, hold(&world.lab, id, &scope)).await, Ok(()));
    assert_eq!(answer(&world, &world.lab, hold(&world.lab, id, &scope)).await, Ok(()), "the same hold again");
    let other = hold(&world.lab, id, &Scope::Grant(live.grant));
    assert_eq!(answer(&world, &world.lab, other).await, Err(Refusal::HoldExists));
    assert_eq!(dispose(&world, &scope).await, Err(Refusal::HoldStands));
    let kept = disposition(&world, &world.operator, &scope, DispositionAction::Kept);
    assert_eq!(answer(&world, &world.operator, kept).await, Ok(()), "that it is kept may be said under a hold");
    let release = |party: &Party| HoldRelease { hold: id, by: party.org.clone(), reason: "settled".to_owned() };
    let foreign = world.agency.signed(&release(&world.agency));
    assert_eq!(answer(&world, &world.agency, foreign).await, Err(Refusal::HoldUnknown));
    let by_stop = sign_json(&release(&world.lab), &[&world.lab.stop]).unwrap();
    assert_eq!(answer(&world, &world.lab, by_stop).await, Err(Refusal::SignatureMissing));
    assert_eq!(answer(&world, &world.lab, world.lab.signed(&release(&world.lab))).await, Ok(()));
    assert_eq!(answer(&world, &world.lab, hold(&world.lab, id, &scope)).await, Err(Refusal::HoldExists));

    assert_eq!(dispose(&world, &scope).await, Ok(()));
    assert_eq!(dispose(&world, &scope).await, Ok(()), "the same statement again");
    let again = disposition(&world, &world.operator, &scope, DispositionAction::Kept);
    assert_eq!(answer(&world, &world.operator, again).await, Err(Refusal::ScopeDisposed));
    let late = hold(&world.lab, LockId::from_bytes(random()), &scope);
    assert_eq!(answer(&world, &world.lab, late).await, Err(Refusal::ScopeDisposed));
}

#[tokio::test]
async fn a_hold_is_for_parties_their_overseers_and_the_operator() {
    let (world, over, _) = ended().await;
    let scope = Scope::Grant(over.grant);
    let new = || LockId::from_bytes(random());
    let overseer = hold(&world.overseer, new(), &scope);
    assert_eq!(answer(&world, &world.overseer, overseer).await, Err(Refusal::ReaderNotEntitled));
    let appointment = Appointment {
        by: world.agency.org.clone(),
        reader: world.overseer.org.clone(),
        grant: Some(over.grant),
        until_ms: world.now().plus_ms(HOUR_MS),
    };
    done(world.act(&world.agency, world.agency.signed(&appointment), &[]).await);
    for party in [&world.overseer, &world.operator, &world.agency] {
        assert_eq!(answer(&world, party, hold(party, new(), &scope)).await, Ok(()), "{}", party.org);
    }
    let kept = hold(&world.lab, new(), &Scope::Organisation(world.lab.org.clone()));
    assert_eq!(answer(&world, &world.lab, kept).await, Err(Refusal::ScopeKept));
}

#[tokio::test]
async fn nothing_is_destroyed_within_a_day_of_the_end_or_by_an_early_signature() {
    let world = World::lossy().await;
    let access = world.grant(|_| {}).await;
    let open = called(&world, &access, false).await;
    let scope = Scope::Grant(access.grant);
    done(world.act(&world.lab, world.stop(&world.lab, access.grant, StopKind::Withdraw), &[]).await);
    pass(&world, 25);
    assert_eq!(dispose(&world, &scope).await, Err(Refusal::GrantLive), "a call of it has no end");
    assert!(world.journal.state().open_call(&open).is_some());
    let start = Command::Start { version: "test".to_owned(), alive: None };
    let _ = world.journal.submit(start).await.unwrap();
    let _ = world.journal.submit(Command::Tick).await.unwrap();

    let second = world.grant(|_| {}).await;
    let scope = Scope::Grant(second.grant);
    done(world.act(&world.lab, world.stop(&world.lab, second.grant, StopKind::Withdraw), &[]).await);
    pass(&world, 23);
    let early = disposition(&world, &world.operator, &scope, DispositionAction::Destroyed);
    assert_eq!(answer(&world, &world.operator, early.clone()).await, Err(Refusal::TooEarly));
    pass(&world, 1);
    assert_eq!(answer(&world, &world.operator, early).await, Err(Refusal::TooEarly), "it was signed too early");
    assert_eq!(dispose(&world, &scope).await, Ok(()));
}

#[tokio::test]
async fn a_destroyed_scope_is_gone_everywhere_and_everything_else_goes_on() {
    let (mut world, over, live) = ended().await;
    let scope = Scope::Grant(over.grant);
    let (size, batch_root) = (world.journal.newest().size, world.journal.root_at(world.journal.newest().size).unwrap());
    let mine = |record: &Arc<super::Sealed>| record.scope == scope;
    let receipts: Vec<_> = world.journal.read(0, u64::MAX).unwrap().into_iter().filter(|record| mine(record)).collect();
    assert!(receipts.len() > 6);
    let index = receipts[0].entered.index;
    let proof = world.journal.inclusion(index, size).unwrap();
    world.close();
    let key = key_of(&world, &scope);
    let old = Store::new(Arc::<LossyDisk>::clone(&disks(&world).snapshots));
    let copy = old.read(old.sizes().unwrap()[0]).unwrap();
    assert!(Snapshot::open(&copy, ORIGIN, &keyring(&world)).is_ok());
    world.restart().unwrap();

    assert_eq!(dispose(&world, &scope).await, Ok(()));
    assert!(!world.journal.standing().grants.contains_key(&over.grant));
    for round in 0..3 {
        let (refusal, detail) = no(read(&world, &world.lab, &scope).await).unwrap();
        assert_eq!(refusal, Refusal::ScopeDisposed);
        assert!(detail.contains("schedule 4"), "{detail}");
        let (refusal, _) = no(read(&world, &world.overseer, &scope).await).unwrap();
        assert_eq!(refusal, Refusal::ReaderNotEntitled, "to strangers nothing was ever there");
        assert!(matches!(read(&world, &world.lab, &Scope::Grant(live.grant)).await, Reply::Done { .. }));
        if round < 1 {
            called(&world, &live, true).await;
        }
        let offered = world.act(&world.lab, over.offer.clone(), &over.terms_bytes).await;
        assert_eq!(refused(&offered), Some(Refusal::ScopeDisposed), "its name is not used again");
        // The key is destroyed behind the answer, at an orderly end at the latest.
        world.restart().unwrap();
        assert!(world.journal.read(0, u64::MAX).unwrap().iter().all(|record| !mine(record)));
    }
    world.close();
    assert!(keyring(&world).find(key).is_none(), "its key is destroyed");
    let blind = found(&world, false).unwrap();
    let quick = found(&world, true).unwrap();
    assert!(quick.snapshot.is_some() && blind.snapshot.is_none());
    assert_eq!(quick.core.state(), blind.core.state());
    assert_eq!(quick.core.root(), blind.core.root());
    assert!(matches!(Snapshot::open(&copy, ORIGIN, &keyring(&world)), Err(SnapshotError::Key)));
    let leaf = anteroom_proto::ledger::tree::leaf_hash(receipts[0].entry.as_bytes());
    assert!(
        verify_inclusion(&leaf, index, size, &proof, &batch_root).is_ok(),
        "a receipt that was kept still verifies"
    );
    let whole: Vec<[u8; 48]> = world.journal.entries(0, u64::MAX).unwrap();
    assert_eq!(whole[usize::try_from(index).unwrap()], *receipts[0].entry.as_bytes(), "the tree keeps its place");
    let said = world.journal.read(0, u64::MAX).unwrap();
    let said = said.iter().filter(|record| record.record.spec().name == "Disposed").map(|record| record.scope.clone());
    let orgs = [&world.operator, &world.lab, &world.agency].map(|party| Scope::Organisation(party.org.clone()));
    assert_eq!(said.collect::<Vec<_>>(), orgs, "the scopes of all whom it concerns say so");
}

#[tokio::test]
async fn a_key_that_is_gone_without_a_disposition_stops_the_start() {
    let (world, over, _) = ended().await;
    world.close();
    let scope = Scope::Grant(over.grant);
    let mut keyring = keyring(&world);
    keyring.destroy(key_of(&world, &scope)).unwrap();
    drop(keyring);
    for snapshots in [false, true] {
        assert!(matches!(found(&world, snapshots), Err(RecoverError::Key { .. })));
    }
}

/// Whatever fails between the record of a destruction and its last step, the next start finishes it.
#[tokio::test]
async fn a_destruction_that_was_interrupted_is_finished_by_the_next_start() {
    let mut unfinished = 0;
    for operation in 0..10 {
        let (mut world, over, live) = ended().await;
        let scope = Scope::Grant(over.grant);
        world.close();
        let key = key_of(&world, &scope);
        world.restart().unwrap();
        match operation {
            0..8 => disks(&world).keys.fail(operation, Fault::Killed),
            8 => disks(&world).snapshots.fail(3, Fault::Killed),
            _ => disks(&world).snapshots.limit_capacity(Some(0)),
        }
        assert_eq!(dispose(&world, &scope).await, Ok(()));
        world.close();
        disks(&world).snapshots.limit_capacity(None);
        disks(&world).keys.crash(operation);
        disks(&world).snapshots.crash(operation);
        disks(&world).wal.crash(operation);
        unfinished += usize::from(keyring(&world).find(key).is_some());
        world.restart().unwrap();
        called(&world, &live, true).await;
        // Closing waits for what the start began.
        world.restart().unwrap();
        world.close();
        assert!(keyring(&world).find(key).is_none(), "operation {operation}");
        let (blind, quick) = (found(&world, false).unwrap(), found(&world, true).unwrap());
        assert_eq!(quick.core.state(), blind.core.state());
        assert!(blind.core.state().standing().disposed.contains_key(&scope));
    }
    assert!(unfinished >= 3, "the interruptions are in time: {unfinished}");
}
