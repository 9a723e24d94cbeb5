//! The simulated world, for a few seeds; `cargo run --release --workspace --bin simulate` runs two thousand.

use anteroom_tests::sim;

/// `ANTEROOM_SEEDS` overrides how many.
fn seeds() -> u64 {
    std::env::var("ANTEROOM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12)
}

#[test]
fn no_seed_breaks_an_invariant() {
    let coverage = sim::run_seeds(0, seeds(), sim::STEPS).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(coverage.seeds, seeds(), "every seed ran to its end");
    if coverage.seeds >= sim::SEEDS {
        assert_eq!(coverage.thin(sim::coverage::HITS_MIN), Vec::<String>::new());
    }
}

#[test]
fn a_seed_says_the_same_twice() {
    let tables: Vec<String> = (0..2)
        .map(|_| sim::run_seed(7, sim::STEPS).unwrap_or_else(|violation| panic!("{violation}")).table())
        .collect();
    assert_eq!(tables[0], tables[1]);
}

/// It found a call without tokens that passed under a line's bound which was lowered below what was used.
#[test]
fn seed_9246_finds_nothing_any_more() {
    let _ = sim::run_seed(9_246, sim::STEPS).unwrap_or_else(|violation| panic!("{violation}"));
}
