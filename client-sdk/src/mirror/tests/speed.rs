//! What a mirror of many records costs. Run by hand, in release: `cargo test --release -p anteroom-sdk --lib mirror::tests::speed --
//! --ignored --nocapture`.

use super::*;

/// Writes a large tree and prints how long each step took; asserts nothing about time.
#[test]
#[ignore = "prints figures; nothing to find"]
fn a_million_entries() {
    let count: u64 = std::env::var("ANTEROOM_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let world = World::new();
    let (mut log, _, _) = logged(&world, 12);
    fill(&mut log, count);
    let folder = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    let with_records = std::env::var_os("ANTEROOM_RECORDS").is_some();
    let scopes = if with_records { vec![other()] } else { Vec::new() };
    mirrored(folder.path(), &mut Broker::new(&log), &scopes).unwrap();
    let made = start.elapsed();
    let start = std::time::Instant::now();
    let verified = verified(folder.path(), &demands(&log)).unwrap();
    let took = start.elapsed();
    let tree = verified.tree();
    eprintln!(
        "{} entries, {} files, {} bytes: made in {made:?}, verified in {took:?}",
        tree.entries, tree.files, tree.bytes
    );
}
