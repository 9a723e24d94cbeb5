//! Decisions on record come out the same again. `bench replay --calls 100000` does it at length and tells how long it takes.

use anteroom_tests::decisions;

#[test]
fn recorded_decisions_replay_to_the_same_verdicts_and_reasons_for_everybody() {
    let summary = decisions::run(5, 2_000).unwrap();
    assert_eq!(summary.calls, 2_000);
    assert_eq!(summary.different(), 0, "{:?} {:?} {:?}", summary.whole, summary.lab, summary.agency);
    assert!(summary.restarts >= 3);
    // The whole log is decided again in full; a lab does not see the agency's own scope, and repeats what the rules said.
    let admitted = summary.answers["admitted"];
    assert!(admitted > 300, "{:?}", summary.answers);
    assert!(summary.whole.decisions >= 1_950, "{:?}", summary.whole);
    assert!(summary.lab.verdicts >= 1_950 && summary.lab.decisions == 0, "{:?}", summary.lab);
    assert!(summary.agency.verdicts >= 1_950, "{:?}", summary.agency);
    for refusal in ["policy_denied", "locked", "grant_paused", "no_slot"] {
        assert!(summary.answers.contains_key(refusal), "{refusal}: {:?}", summary.answers);
    }
    assert!(summary.reasons.len() >= 15, "{:?}", summary.reasons);
}
