#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use super::*;

/// A stream that saw `events`, some of them so many milliseconds after the request left, and its end.
fn seen(events: u64, since: &[u64], end: Option<(u64, End)>, sent: Instant) -> Seen {
    let at = |ms: u64| sent + Duration::from_millis(ms);
    let (since, end) = (since.iter().map(|ms| at(*ms)).collect(), end.map(|(ms, end)| (at(ms), end)));
    Seen { events, since, end, ..Seen::default() }
}

fn record(end: &str, released_events: u64, cut_ms: i64) -> CallFinished {
    CallFinished { end: end.to_owned(), released_events, cut_ms, ..CallFinished::default() }
}

fn told(code: &str) -> End {
    End::Cut(code.to_owned())
}

/// The withdrawal was answered after 50 ms, which is 1,000 ms of the broker's clock.
fn judged(seen: impl FnOnce(Instant) -> Seen, end: Option<&CallFinished>) -> Judged {
    let sent = Instant::now();
    let cut = Cut { sent, answered: sent + Duration::from_millis(50), answered_ms: 1_000 };
    judge(&seen(sent), end, cut)
}

#[test]
fn a_stream_that_was_told_and_got_nothing_afterwards_holds() {
    let end = record(WITHDRAWN, 7, 990);
    let one = judged(|sent| seen(7, &[3, 9], Some((20, told(WITHDRAWN))), sent), Some(&end));
    assert!(one.cut && !one.reset && one.fault.is_none());
    assert_eq!((one.told, one.after_answer, one.handed_over_after), (Some(Duration::from_millis(20)), 0, 0));
}

#[test]
fn what_was_on_its_way_is_counted_and_told_apart_from_what_was_handed_over_late() {
    let late = |sent| seen(9, &[3, 51, 52], Some((60, told(WITHDRAWN))), sent);
    let on_its_way = judged(late, Some(&record(WITHDRAWN, 9, 990)));
    assert_eq!((on_its_way.after_answer, on_its_way.handed_over_after), (2, 0));
    // More came than the log has, or the gate closed after the answer, or the log has nothing.
    let ends = [Some(record(WITHDRAWN, 8, 990)), Some(record(WITHDRAWN, 9, 1_001)), None];
    let over: Vec<u64> = ends.iter().map(|end| judged(late, end.as_ref()).handed_over_after).collect();
    assert_eq!(over, [1, 2, 2]);
}

#[test]
fn a_reset_counts_as_a_cut_only_if_the_log_says_so() {
    let broke = |sent| seen(5, &[], Some((30, End::Broke("gone".to_owned()))), sent);
    let reset = judged(broke, Some(&record(WITHDRAWN, 5, 990)));
    assert!(reset.cut && reset.reset && reset.fault.is_none());
    for end in [Some(record("completed", 5, 0)), None] {
        let one = judged(broke, end.as_ref());
        assert!(!one.cut && one.fault.unwrap().contains("broke off"));
    }
}

#[test]
fn a_stream_that_goes_on_or_ends_otherwise_is_a_fault() {
    let end = record(WITHDRAWN, 5, 990);
    let open = judged(|sent| seen(5, &[60, 70], None, sent), Some(&end));
    assert_eq!((open.cut, open.told, open.handed_over_after), (false, None, 2));
    for how in [told("grant_expired"), End::Completed] {
        let one = judged(|sent| seen(5, &[], Some((30, how)), sent), Some(&end));
        assert!(!one.cut && one.fault.is_some());
    }
}

#[test]
fn a_call_that_passes_and_another_code_are_faults() {
    let asked = |code: Option<&str>| Asked { broker: "one:1".to_owned(), code: code.map(str::to_owned) };
    let of = |codes: &[Option<&str>]| faults(&[], &codes.iter().map(|code| asked(*code)).collect::<Vec<_>>(), 0);
    assert!(of(&[Some(WITHDRAWN), Some(WITHDRAWN)]).is_empty());
    assert_eq!(of(&[None]), ["one more call at one:1 passed"]);
    assert!(of(&[Some("lab_offline")]).first().unwrap().contains("`lab_offline`"));
    assert_eq!(of(&[]).len(), 1);
    assert_eq!(faults(&[], &[asked(Some(WITHDRAWN))], 3).len(), 1);
}

#[test]
fn half_of_the_streams_stayed_within_the_middle() {
    let lengths = [1, 2, 3, 40].map(Duration::from_millis);
    assert_eq!(middle(&lengths), Some(Duration::from_millis(2)));
    assert_eq!((middle(lengths.get(..1).unwrap()), middle(&[])), (Some(Duration::from_millis(1)), None));
    assert!((ms(Duration::from_micros(1_234)) - 1.234).abs() < f64::EPSILON);
}
