//! The index over a real log, and what becomes of it when its files are not what they were.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::{collections::BTreeMap, fs};

use anteroom_policy::{
    claim::ReadClaim,
    command::{CallCommand, Command, Finish, Reply},
    judge::{Judgement, Verdict},
    rules,
};
use anteroom_proto::{names::CallId, statement::acts::StopKind};

use super::*;
use crate::{
    identity::Role,
    testing::{Access, RUN, World, chat},
};

/// Admits a call and finishes it.
async fn call(world: &World, access: &Access) -> CallId {
    let request = world.call(access, "chat/completions", &chat(false));
    let standing = world.journal.standing();
    let held = standing.grants.get(&access.grant).unwrap().credentials.get(&access.credential).unwrap().clone();
    let body_key = request.body_key.as_slice().try_into().unwrap();
    let claim = ReadClaim::read(request.claim.unwrap()).unwrap().verify(&held, &request.body, &body_key).unwrap();
    let id = claim.call();
    let judgement =
        Judgement { policy_digest: rules::digest(&access.terms), verdict: Verdict::Allow, reasons: Vec::new() };
    let command = CallCommand {
        caller: world.agency.caller(Role::Workload, "w-1"),
        claim,
        body_key,
        facts: Vec::new().into(),
        judgement,
        judged_by: anteroom_proto::names::Digest::of(&access.terms_bytes),
        scanner_locks: false,
        hold: 100,
        slot: true,
        build: None,
    };
    let committed = world.journal.submit(Command::Call(Box::new(command))).await.unwrap();
    assert!(matches!(committed.reply, Reply::Admitted { .. }), "{:?}", committed.reply);
    let finish = Finish {
        call: id,
        end: "completed",
        outcome: None,
        released_events: 0,
        released_chain: [0; 32],
        used: Some(7),
        status: 200,
        cut: None,
        scanner_locks: false,
    };
    let _ = world.journal.submit(Command::Finish(Box::new(finish))).await.unwrap();
    id
}

/// Everything the index can be asked about scopes, found by going through the log.
fn truth(world: &World) -> BTreeMap<Scope, Vec<u64>> {
    let mut out: BTreeMap<Scope, Vec<u64>> = BTreeMap::new();
    for sealed in world.journal.read(0, u64::MAX).unwrap() {
        out.entry(sealed.scope.clone()).or_default().push(sealed.entered.index);
    }
    out
}

async fn check_whole(world: &World, index: &Index) {
    let size = world.journal.newest().size;
    index.wait_for(size).await.unwrap();
    assert_eq!(index.progress(), (size, size));
    for (scope, places) in truth(world) {
        assert_eq!(index.scope_range(&scope, 0, usize::MAX), places, "{scope}");
        for (seq, place) in (0..).zip(&places) {
            assert_eq!(index.record_at(&scope, seq), Some(*place));
        }
        assert_eq!(index.record_at(&scope, u64::try_from(places.len()).unwrap()), None);
    }
}

fn generations(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("generation-")).collect();
    names.sort();
    names
}

/// A world with some history, and the folder of an index that was closed well over it.
async fn indexed() -> (World, Access, PathBuf) {
    let (world, access) = World::granted().await;
    for _ in 0..3 {
        call(&world, &access).await;
    }
    let dir = world.folder.path().join("index");
    let index = Index::open(&dir, &world.journal);
    check_whole(&world, &index).await;
    index.close();
    (world, access, dir)
}

#[tokio::test]
async fn history_and_news_are_indexed_alike() {
    let (world, access) = World::granted().await;
    let index = Index::open(&world.folder.path().join("index"), &world.journal);
    check_whole(&world, &index).await;
    for _ in 0..40 {
        call(&world, &access).await;
    }
    check_whole(&world, &index).await;
    let empty = index.scope_range(&Scope::Grant(anteroom_proto::names::GrantId::from_bytes([9; 16])), 0, 10);
    assert_eq!(empty, [0_u64; 0]);
}

#[tokio::test]
async fn a_history_of_several_blocks_is_found_from_any_place() {
    let (world, access) = World::granted().await;
    let index = Index::open(&world.folder.path().join("index"), &world.journal);
    for _ in 0..260 {
        call(&world, &access).await;
    }
    let size = world.journal.newest().size;
    index.wait_for(size).await.unwrap();
    let scope = Scope::Grant(access.grant);
    let places = truth(&world).remove(&scope).unwrap();
    assert!(places.len() > 2 * usize::try_from(keys::BLOCK_RECORDS).unwrap());
    for from in [0, 1, 255, 256, 257, 300, 511, 512, places.len() - 1, places.len(), places.len() + 600] {
        let rest = places.get(from..).unwrap_or_default();
        for most in [0, 1, 2, 255, 256, 257, 600] {
            let found = index.scope_range(&scope, u64::try_from(from).unwrap(), most);
            assert_eq!(found, rest.get(..most.min(rest.len())).unwrap(), "{most} from {from}");
        }
    }
}

#[tokio::test]
async fn more_than_can_wait_is_read_back_from_the_log() {
    let (world, access) = World::granted().await;
    let feed = Feed::default();
    call(&world, &access).await;
    let records = world.journal.read(0, u64::MAX).unwrap();
    let state = world.journal.state();
    let mut handed = 0;
    while handed + records.len() <= WAITING_MAX {
        feed.committed(&records, &state);
        handed += records.len();
    }
    feed.committed(&records, &state);
    feed.committed(records.get(..1).unwrap(), &state);
    let (placed, missed) = feed.take(0);
    assert_eq!(
        (placed.len(), missed),
        (handed, true),
        "what is beyond the bound does not wait, nor what comes after it"
    );
    feed.committed(&records, &state);
    feed.look();
    let (placed, missed) = feed.take(0);
    assert_eq!((placed.len(), missed), (records.len(), false));
}

#[tokio::test]
async fn an_index_closed_well_is_used_again() {
    let (world, access, dir) = indexed().await;
    call(&world, &access).await;
    let index = Index::open(&dir, &world.journal);
    check_whole(&world, &index).await;
    assert_eq!(generations(&dir), ["generation-0"]);
    assert!(!dir.join("clean").exists(), "while it is in use nothing says that it was closed well");
    index.close();
    assert!(dir.join("clean").exists());
}

/// Does something to the files of an index that was closed well; answers must stay the same, from a new generation.
async fn check_rebuilt(spoil: impl FnOnce(&Path)) {
    let (world, _, dir) = indexed().await;
    spoil(&dir);
    let index = Index::open(&dir, &world.journal);
    check_whole(&world, &index).await;
    assert_eq!(generations(&dir), ["generation-0", "generation-1"], "the spoilt one is kept, not used");
    index.close();
}

#[tokio::test]
async fn an_unclean_end_starts_the_index_afresh() {
    check_rebuilt(|dir| fs::remove_file(dir.join("clean")).unwrap()).await;
}

#[tokio::test]
async fn a_flipped_byte_starts_the_index_afresh() {
    for part in [10, 3, 2] {
        check_rebuilt(|dir| {
            let file = dir.join("generation-0").join("db");
            let mut bytes = fs::read(&file).unwrap();
            let at = bytes.len() / part;
            *bytes.get_mut(at).unwrap() ^= 0x40;
            fs::write(&file, bytes).unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_truncated_file_starts_the_index_afresh() {
    check_rebuilt(|dir| {
        let file = fs::File::options().write(true).open(dir.join("generation-0").join("db")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_deleted_folder_starts_the_index_afresh() {
    let (world, _, dir) = indexed().await;
    fs::remove_dir_all(&dir).unwrap();
    let index = Index::open(&dir, &world.journal);
    check_whole(&world, &index).await;
}

#[tokio::test]
async fn a_distrusted_index_is_built_anew_while_it_is_read() {
    let (world, access) = World::granted().await;
    let dir = world.folder.path().join("index");
    let index = Index::open(&dir, &world.journal);
    check_whole(&world, &index).await;
    index.distrust();
    assert_eq!(index.progress().0, 0);
    check_whole(&world, &index).await;
    call(&world, &access).await;
    check_whole(&world, &index).await;
    assert_eq!(generations(&dir), ["generation-0", "generation-1"]);
}

#[tokio::test]
async fn deleting_the_folder_under_a_running_index_changes_no_answer() {
    let (world, access) = World::granted().await;
    let dir = world.folder.path().join("index");
    let index = Index::open(&dir, &world.journal);
    check_whole(&world, &index).await;
    fs::remove_dir_all(&dir).unwrap();
    for _ in 0..20 {
        call(&world, &access).await;
    }
    check_whole(&world, &index).await;
    index.close();
    let again = Index::open(&dir, &world.journal);
    check_whole(&world, &again).await;
}

#[tokio::test]
async fn the_index_of_another_log_is_not_used() {
    let (_other, _, dir) = indexed().await;
    let (world, access) = World::granted().await;
    for _ in 0..10 {
        call(&world, &access).await;
    }
    let index = Index::open(&dir, &world.journal);
    check_whole(&world, &index).await;
    assert_eq!(generations(&dir), ["generation-0", "generation-1"]);
}

#[tokio::test]
async fn an_index_that_breaks_again_and_again_is_given_up() {
    let (world, _) = World::granted().await;
    let file = world.folder.path().join("file");
    fs::write(&file, b"no folder").unwrap();
    let index = Index::open(&file.join("index"), &world.journal);
    assert_eq!(index.wait_for(1).await, Err(IndexDown));
    assert!(index.is_down());
    assert_eq!(index.record_at(&Scope::System, 0), None);
}

#[tokio::test]
async fn no_name_stands_in_the_files() {
    let (world, access, dir) = indexed().await;
    let stop = world.stop(&world.lab, access.grant, StopKind::Withdraw);
    crate::testing::done(world.act(&world.lab, stop, &[]).await);
    let index = Index::open(&dir, &world.journal);
    check_whole(&world, &index).await;
    index.close();
    let bytes = fs::read(dir.join("generation-0").join("db")).unwrap();
    let grant = access.grant.as_bytes().as_slice();
    for needle in [RUN.as_bytes(), b"acme", b"aisi", b"completed", grant] {
        assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{needle:?}");
    }
}
