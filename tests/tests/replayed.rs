//! Decisions on record come out the same again. `bench replay --calls 100000` does it at length and tells how long it takes.

use anteroom_policy::{
    event::{Admitted, Event},
    replay::Replay,
};
use anteroom_proto::names::Digest;
use anteroom_tests::{decisions, sim::world::played};

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
    // What two grants of a bounded line use together is the lab's to add up again, and nobody else's to read.
    assert!(summary.lab.sums > 200, "{:?}", summary.lab);
    assert_eq!(summary.lab.sums, summary.whole.sums);
    assert_eq!(summary.agency.sums, 0, "{:?}", summary.agency);
    for answer in ["admitted", "broker_denied", "locked", "grant_paused", "lab_offline", "line_budget_spent"] {
        assert!(summary.answers.contains_key(answer), "{answer}: {:?}", summary.answers);
    }
    assert!(summary.reasons.len() >= 12, "{:?}", summary.reasons);
}

#[test]
fn a_sum_recorded_otherwise_is_told_by_the_labs_slice() {
    let falsify = |values: &str| values.replace("line_settled_calls=", "line_settled_calls=1");
    for hits in [false, true] {
        let mut changed = None;
        let summary = decisions::run_with(5, 2_000, &mut |entered| match (&mut entered.event, changed) {
            (Event::CallAdmitted(call), None) if !hits && call.lab.values.contains("line_settled_calls=") => {
                call.lab.values = falsify(&call.lab.values);
                changed = Some(entered.index);
            }
            (Event::LineBudgetHit { values, .. }, None) if hits => {
                *values = falsify(values);
                changed = Some(entered.index);
            }
            _ => {}
        })
        .unwrap();
        assert_eq!(summary.lab.different, 1, "{:?}", summary.lab);
        assert_eq!(summary.lab.differences.first().map(|one| one.index), changed);
        assert_eq!(summary.agency.different, 0, "{:?}", summary.agency);
    }
}

#[test]
fn a_decision_recorded_under_another_engine_or_other_rules_is_told_by_replay() {
    let world = played(7, 120).unwrap_or_else(|why| panic!("{why}"));
    let replay = |change: &dyn Fn(&mut Admitted)| {
        let (mut replay, mut changed) = (Replay::new(), None);
        for durable in &world.durable {
            let mut entered = durable.sealed.entered.clone();
            if let (Event::CallAdmitted(call), None) = (&mut entered.event, changed) {
                change(call);
                changed = Some(entered.index);
            }
            replay.feed(&entered);
        }
        let report = replay.finish();
        (report.different, report.differences.first().map(|one| one.index) == changed)
    };
    assert_eq!(replay(&|_| {}).0, 0);
    // The engine's version is part of the digest of the rules.
    assert_eq!(replay(&|call| call.policy = Digest::from_bytes([9; 32])), (1, true));
    assert_eq!(replay(&|call| call.reasons.push("of-a-later-version".to_owned())), (1, true));
}
