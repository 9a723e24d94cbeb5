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

/// Each found something once: a call without tokens under a line's bound that was lowered below what was used.
#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    for (seed, steps) in [(9_246, sim::STEPS)] {
        let _ = sim::run_seed(seed, steps).unwrap_or_else(|violation| panic!("{violation}"));
    }
}
