//! Decisions on record come out the same again. `bench replay --calls 100000` does it at length and tells how long it takes.

use anteroom_tests::decisions;

#[test]
fn recorded_decisions_replay_to_the_same_verdicts_and_reasons_for_everybody() {
    let summary = decisions::run(5, 2_000).unwrap();
    assert_eq!(summary.calls, 2_000);
    assert_eq!(summary.different(), 0, "{:?} {:?} {:?}", summary.whole, summary.lab, summary.agency);
    assert!(summary.restarts >= 3);
    // Every verdict is computed again by everybody. The whole log is decided again in full; a lab does not see the agency's own scope,
    // and repeats what the rules said.
    for report in [&summary.whole, &summary.lab, &summary.agency] {
        assert_eq!(report.verdicts, 2_000, "{report:?}");
        assert_eq!(report.decisions + report.asserted, 2_000, "{report:?}");
    }
    assert!(summary.whole.decisions > 1_900, "{:?}", summary.whole);
    assert_eq!(summary.lab.decisions, 0, "{:?}", summary.lab);
    for answer in ["admitted", "broker_denied", "locked", "grant_paused", "lab_offline"] {
        assert!(summary.answers.contains_key(answer), "{answer}: {:?}", summary.answers);
    }
    assert!(summary.reasons.len() >= 12, "{:?}", summary.reasons);
}
