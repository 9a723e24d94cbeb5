#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]
use std::sync::LazyLock;

use anteroom_proto::rpc::Marking;
use proptest::prelude::*;

use super::*;
use crate::rules::fixture;

#[test]
fn an_epoch_is_shared_between_tasks() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&fixture::epoch());
}

#[test]
fn terms_that_name_another_baseline_make_no_epoch() {
    let other = fixture::terms(|json| json["policy"]["baseline"] = "ab".repeat(32).into());
    assert!(matches!(Epoch::new(Arc::new(other)), Err(RulesError::Baseline { .. })));
}

#[test]
fn the_cache_has_a_bound() {
    let epoch = fixture::epoch();
    let judged = judge(&epoch, &fixture::facts());
    for key in 1..CACHE_ENTRIES_MAX {
        locked(&epoch).insert(key.to_be_bytes().to_vec(), judged.clone());
    }
    assert_eq!(locked(&epoch).len(), CACHE_ENTRIES_MAX);
    let other = Facts { minute: 1, ..fixture::facts() };
    assert_eq!(judge(&epoch, &other).verdict, Verdict::Allow);
    assert_eq!(locked(&epoch).len(), 1, "a full cache starts anew");
    assert_eq!(judge(&epoch, &fixture::facts()), judged);
    let entries = locked(&epoch).len();
    let large = Facts { employer: "x".repeat(CACHED_FACTS_BYTES_MAX), ..fixture::facts() };
    assert_eq!(judge(&epoch, &large).verdict, Verdict::Allow);
    assert_eq!(locked(&epoch).len(), entries, "large facts are not kept");
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let text = |choices: &'static [&'static str]| proptest::sample::select(choices).prop_map(str::to_owned);
    let texts = |choices: &'static [&'static str]| {
        proptest::sample::subsequence(choices, 0..=choices.len())
            .prop_map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let caveats = || texts(&["NOFORN", "ORCON", "PROPIN"]);
    let flags = proptest::collection::vec(any::<bool>(), 6);
    (
        (text(&["chat", "embeddings", "x"]), text(&["yes", "no", "unknown"]), caveats(), text(&["evaluate", "probe"])),
        (0_i64..3_000, proptest::option::of((0_u32..4, caveats(), texts(&["GBR", "USA"])))),
        (flags, 0_u32..6, 0_u32..4, 0_u32..4, text(&["run-1", "run-2", "run-3"]), any::<u64>()),
    )
        .prop_map(|((route, us, read_ins, purpose), (minute, mark), (flags, logprobs, n, scan, run, tokens))| {
            let flag = |i: usize| flags.get(i).copied().unwrap_or_default();
            Facts {
                route,
                us_only: us,
                read_ins,
                purpose,
                minute,
                marking: mark.map(|(level, caveats, rel_to)| Marking { level, caveats, rel_to }),
                stream: flag(0),
                logit_bias: flag(1),
                seed: flag(2),
                prefill: flag(3),
                reasoning: flag(4),
                tools: if flag(5) { vec!["function".to_owned()] } else { Vec::new() },
                logprobs,
                n,
                scan_verdict: scan,
                run,
                tokens_asked: tokens,
                ..fixture::facts()
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cached_equals_uncached_and_replayed(list in proptest::collection::vec(any_facts(), 1..8)) {
        static EPOCHS: LazyLock<[Epoch; 2]> = LazyLock::new(|| [fixture::epoch(), fixture::epoch()]);
        let [epoch, replay] = &*EPOCHS;
        for facts in list.iter().chain(&list) {
            let judged = judge(epoch, facts);
            prop_assert_eq!(&judged, &judge_uncached(epoch, facts));
            // A replay has nothing but bytes.
            let read = Facts::decode(facts.encode_to_vec().as_slice()).unwrap();
            prop_assert_eq!(&judged, &judge_uncached(replay, &read));
            prop_assert!(judged.reasons.is_sorted() && !judged.reasons.is_empty());
            let allowing = judged.reasons == ["grant"];
            prop_assert_eq!(judged.verdict == Verdict::Allow, allowing);
        }
    }
}
