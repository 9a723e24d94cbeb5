#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    stream::{CHANNELS_MAX, HELD_EVENTS_MAX, Release, StreamScanner, TOO_MANY_CHANNELS, UNKNOWN_EVENT},
    *,
};
use crate::content::body::Channel;

const CANARY: &str = "zephyr-quartz-0417-lantern";

fn scanner() -> Arc<Scanner> {
    let config = ScanConfig { canaries: vec![CANARY.to_owned()], canary_locks: true };
    Arc::new(Scanner::new(&config).unwrap())
}

fn text(text: &str) -> Text<'_> {
    Text { channel: Channel::Message, continues: false, text: Cow::Borrowed(text) }
}

fn scan(prompt: &str) -> ScanSummary {
    scanner().scan_prompt(&[text(prompt)])
}

fn check(prompt: &str, verdict: ScanVerdict, hits: &[&str]) {
    let found = scan(prompt);
    assert_eq!((found.verdict, found.hits), (verdict, hits.iter().map(ToString::to_string).collect()), "{prompt}");
}

#[test]
fn classified_banners_stop() {
    use ScanVerdict::Stop;
    check("TOP SECRET//SI//NOFORN", Stop, &["banner_top_secret"]);
    check("text\n  **SECRET//NOFORN**", Stop, &["banner_secret"]);
    check("marked secret//noforn by mistake", Stop, &["banner_secret"]);
    check("SECRET//X1", Stop, &["banner_secret"]);
    check("see CONFIDENTIAL//REL TO USA, GBR", Stop, &["banner_confidential"]);
    check("(TS//SI) A paragraph.", Stop, &["portion_secret"]);
    check("(S//NF) A paragraph.", Stop, &["portion_secret"]);
    check("(C//REL TO USA) A paragraph.", Stop, &["portion_confidential"]);
    check("SECRET", ScanVerdict::Log, &["banner_bare"]);
}

#[test]
fn disguises_are_folded_away() {
    use ScanVerdict::Stop;
    check("ＴＯＰ　ＳＥＣＲＥＴ／／SI", Stop, &["banner_top_secret"]);
    check("TOP\u{a0}\u{2003}SE\u{200b}CR\u{ad}ET/\u{e0041}/SI", Stop, &["banner_top_secret"]);
    check("ТОР ЅЕСRЕТ//SI", Stop, &["banner_top_secret"]);
    check("\u{202e}SECRET\u{2044}\u{2215}NOFORN", Stop, &["banner_secret"]);
    check("zephyr\u{2011}quartz-\u{feff}0417-LANTERN", ScanVerdict::StopAndLock, &["canary"]);
}

#[test]
fn markings_of_cui_raise_and_let_pass() {
    let found = scan("CUI//SP-PROPIN//NOFORN\nA paragraph.");
    assert_eq!((found.verdict, found.level), (ScanVerdict::Log, 1));
    assert_eq!(found.caveats, ["NOFORN"]);
    for marked in ["(CUI) A paragraph.", "\nCUI\n", "  **CUI**  ", "CUI", "# CUI\r\ntext"] {
        assert_eq!((scan(marked).level, scan(marked).verdict), (1, ScanVerdict::Log), "{marked}");
    }
    assert_eq!(scan("CUI//SP-CTI/PROPIN").caveats, ["PROPIN"]);
    assert_eq!(scan("NOFORN").caveats, ["NOFORN"]);
    check("what does NOFORN mean?", ScanVerdict::Log, &["mention_noforn"]);
}

#[test]
fn ordinary_text_and_code_are_clean() {
    for plain in [
        "this document is not CUI//SP and not NOFORN, non-PROPIN",
        "the CUI program, a character user interface (cui), cuisine, circuit",
        "let client_secret = env(\"SECRET\"); // secret//comment",
        "CLIENT_SECRET//the key",
        "const secret// = 1; https://secret//path",
        "confidential//please",
        "sed 's//x/' (s//g) (c// comment)",
        "top secrets, the secret of success, top secret recipe",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgCUIaSECRETaNOFORNaaa//8/CUI+",
        "SECRET sauce\nCONFIDENTIAL to the team",
        "noforns and propinquity",
        "",
    ] {
        check(plain, ScanVerdict::Clean, &[]);
    }
}

#[test]
fn parts_of_one_message_are_read_as_one_text() {
    let scanner = scanner();
    let parts = |continues| [text("zephyr-quartz"), Text { continues, ..text("-0417-lantern") }];
    assert_eq!(scanner.scan_prompt(&parts(true)).verdict, ScanVerdict::StopAndLock);
    assert_eq!(scanner.scan_prompt(&parts(false)).verdict, ScanVerdict::Clean);
    let two = scanner.scan_prompt(&[text("TOP SECRET//SI"), text(CANARY)]);
    assert_eq!(two.hits, ["banner_top_secret", "canary"]);
}

#[test]
fn token_numbers_are_noted_as_unread() {
    use crate::content::body::{BodyBounds, Route, parse};
    let bytes = br#"{"model":"m","prompt":[1,2]}"#;
    let body = parse(Route::Completions, bytes, &BodyBounds { bytes_max: 99 }, &[]).unwrap();
    let found = scanner().scan_body(&body);
    assert_eq!((found.verdict, found.hits), (ScanVerdict::Log, vec![TOKEN_PROMPT.to_owned()]));
}

#[test]
fn canaries_have_bounds() {
    let build = |canary: &str, n: usize| {
        Scanner::new(&ScanConfig { canaries: vec![canary.to_owned(); n], canary_locks: false }).map(|_| ()).unwrap_err()
    };
    assert_eq!(build("short", 1), ScanConfigError::Length(0));
    assert_eq!(build("a\u{200b}\u{200b}\u{200b}\u{200b}", 1), ScanConfigError::Length(0));
    assert_eq!(build(&"x".repeat(129), 1), ScanConfigError::Length(0));
    assert_eq!(build("long enough", CANARIES_MAX + 1), ScanConfigError::TooMany(CANARIES_MAX + 1));
    let shown = format!("{:?} {:?}", scanner(), ScanConfig { canaries: vec![CANARY.to_owned()], canary_locks: true });
    assert!(!shown.contains("zephyr"), "{shown}");
}

fn delta(content: &str) -> Bytes {
    event(&json!({"id": "c-1", "choices": [{"index": 0, "delta": {"content": content}}]}))
}

fn event(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// Streams events; answers what left, and what stopped it.
fn stream(events: &[Bytes]) -> (Vec<Bytes>, Option<&'static str>, ScanSummary) {
    let mut scanner = StreamScanner::new(scanner());
    let mut left = Vec::new();
    for event in events {
        match scanner.push(event.clone()) {
            Release::Now(events) => left.extend(events),
            Release::Stop { hit, released, .. } => {
                left.extend(released);
                assert!(scanner.finish().is_empty(), "nothing leaves after a stop");
                return (left, Some(hit), scanner.summary());
            }
        }
    }
    left.extend(scanner.finish());
    (left, None, scanner.summary())
}

#[test]
fn a_canary_is_caught_wherever_it_is_cut_and_whichever_channel_it_takes() {
    let shapes: [fn(&str) -> Value; 8] = [
        |t| json!({"choices": [{"index": 0, "delta": {"content": t}}]}),
        |t| json!({"choices": [{"index": 3, "delta": {"reasoning_content": t}}]}),
        |t| json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": t}}]}}]}),
        |t| json!({"choices": [{"index": 0, "logprobs": {"content": [{"token": t, "logprob": -1}]}}]}),
        |t| json!({"choices": [{"index": 0, "text": t}]}),
        |t| json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": t}),
        |t| json!({"surprise": {"deep": [t]}}),
        |t| json!({"choices": [{"index": 0, "logprobs": {"tokens": ["", t]}}]}),
    ];
    for shape in shapes {
        for cut in 1..CANARY.len() {
            let (head, tail) = CANARY.split_at(cut);
            let events = [event(&shape("well: ")), event(&shape(head)), event(&shape(tail)), event(&shape("more"))];
            let (left, stopped, summary) = stream(&events);
            assert_eq!(stopped, Some("canary"), "{cut} {:?}", events.get(1));
            assert_eq!(summary.verdict, ScanVerdict::StopAndLock);
            // Fewer bytes than are held back may have left before anybody could know.
            let expected = if cut < 6 { 2 } else { 1 };
            assert_eq!(left.len(), expected, "{cut}");
        }
    }
}

#[test]
fn channels_do_not_mix() {
    let (head, tail) = CANARY.split_at(10);
    let choice = |index: u64, t: &str| event(&json!({"choices": [{"index": index, "delta": {"content": t}}]}));
    let (left, stopped, _) = stream(&[choice(0, head), choice(1, tail), choice(0, " was cut")]);
    assert_eq!((left.len(), stopped), (3, None));
    let (_, stopped, _) = stream(&[choice(0, head), choice(1, "hello"), choice(0, tail)]);
    assert_eq!(stopped, Some("canary"));
}

#[test]
fn clean_events_leave_at_once_and_open_ones_wait() {
    let mut scanner = StreamScanner::new(scanner());
    let mut left = |content: &str| match scanner.push(delta(content)) {
        Release::Now(events) => events.len(),
        Release::Stop { .. } => usize::MAX,
    };
    assert_eq!(left("hello "), 1);
    assert_eq!(left("a zeph"), 1, "five bytes are no reason to wait");
    assert_eq!(left("yr"), 0);
    assert_eq!(left("-quar"), 0);
    assert_eq!(left("k soup and zephyr"), 2, "what turned out harmless leaves, the new start waits");
    assert_eq!(scanner.finish().len(), 1);
}

#[test]
fn what_is_held_has_a_bound() {
    let mut scanner = StreamScanner::new(scanner());
    let other = event(&json!({"choices": [{"index": 1, "delta": {"content": "x"}}]}));
    assert_eq!(scanner.push(delta("zephyr-")), Release::Now(vec![]));
    let mut left = 0;
    for _ in 0..2 * HELD_EVENTS_MAX {
        let Release::Now(events) = scanner.push(other.clone()) else { unreachable!() };
        left += events.len();
    }
    assert_eq!(left, HELD_EVENTS_MAX + 1);
    let stopped = scanner.push(delta("quartz-0417-lantern"));
    assert!(matches!(stopped, Release::Stop { hit: "canary", lock: true, .. }), "the rest is cut all the same");
}

#[test]
fn an_event_that_is_none_stops() {
    let fine = delta("hello");
    for bad in [
        "",
        "hello",
        "[1]",
        "{",
        "{\"a\":1,\"a\":2}",
        "{\"type\":\"surprise\"}",
        "{\"type\":7}",
        "[DONE] ",
        "\u{feff}{}",
    ] {
        let (left, stopped, summary) = stream(&[fine.clone(), Bytes::from(bad.to_owned()), fine.clone()]);
        if bad.trim() == "[DONE]" {
            assert_eq!((left.len(), stopped), (3, None));
        } else {
            assert_eq!((left.len(), stopped), (1, Some(UNKNOWN_EVENT)), "{bad}");
            assert_eq!((summary.verdict, summary.hits), (ScanVerdict::Stop, vec![UNKNOWN_EVENT.to_owned()]));
        }
    }
    let many = event(&(0..=CHANNELS_MAX).map(|i| (format!("k{i}"), json!("v"))).collect::<Value>());
    assert_eq!(stream(&[many]).1, Some(TOO_MANY_CHANNELS));
}

#[test]
fn a_whole_answer_is_one_event() {
    let answer =
        |t: &str| event(&json!({"object": "chat.completion", "choices": [{"index": 0, "message": {"content": t}}]}));
    assert_eq!(stream(&[answer("hello")]).0.len(), 1);
    let (left, stopped, _) = stream(&[answer("SECRET//NOFORN")]);
    assert_eq!((left.len(), stopped), (0, Some("banner_secret")));
    let (_, _, summary) = stream(&[answer("CUI\n\ntext")]);
    assert_eq!((summary.level, summary.verdict), (1, ScanVerdict::Log));
}

/// Text from pieces of patterns, so that matches, near misses and overlaps are common.
fn any_text() -> impl Strategy<Value = String> {
    let pieces = proptest::sample::select(vec![
        "zephyr-",
        "quartz-",
        "0417-",
        "lantern",
        "zephyr-quartz-0417-lantern",
        "TOP ",
        "SECRET",
        "//",
        "SI//",
        "NOFORN",
        "\n",
        " ",
        "not ",
        "CUI",
        "(S",
        "NF)",
        "x",
        "**",
        "\u{200b}",
        "secret//noforn",
        "/",
        "é",
        "Т",
        "PROPIN",
        "  ",
    ]);
    proptest::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.concat())
}

fn cut(text: &str, cuts: &[usize]) -> Vec<Bytes> {
    let mut places: Vec<usize> =
        cuts.iter().map(|cut| cut % (text.len() + 1)).filter(|at| text.is_char_boundary(*at)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| delta(text.get(*pair.first().unwrap()..*pair.last().unwrap()).unwrap())).collect()
}

fn content(events: &[Bytes]) -> String {
    let texts = events.iter().map(|event| serde_json::from_slice::<Value>(event).unwrap());
    texts.map(|value| value.pointer("/choices/0/delta/content").unwrap().as_str().unwrap().to_owned()).collect()
}

proptest! {
    #[test]
    fn no_cut_changes_the_verdict_and_no_whole_match_leaves(
        text in any_text(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let whole = stream(&cut(&text, &[]));
        let events = cut(&text, &cuts);
        let (left, stopped, summary) = stream(&events);
        prop_assert_eq!(stopped, whole.1);
        prop_assert_eq!(&summary, &whole.2);
        prop_assert_eq!(summary.verdict.stops(), scan(&text).verdict.stops());
        let released = content(&left);
        prop_assert!(text.starts_with(&released));
        prop_assert!(!scan(&released).verdict.stops());
        if stopped.is_none() {
            prop_assert_eq!(&released, &text);
        } else {
            let scanner = scanner();
            let (mut all, mut left) = (Flow::default(), Flow::default());
            let found = all.feed(&scanner, &text, &mut Findings::default()).unwrap_err();
            prop_assert!(left.feed(&scanner, &released, &mut Findings::default()).is_ok());
            prop_assert!(left.total() < found.begin + HOLD_FROM_BYTES, "six bytes of the match have left");
        }
    }

    #[test]
    fn any_event_is_read_or_refused(events in proptest::collection::vec("[\\[\\]{}\",:a-z0-9]{0,30}", 0..6)) {
        let _ = stream(&events.into_iter().map(Bytes::from).collect::<Vec<_>>());
    }
}
