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

mod corpora;
mod encoded;
mod glide;
mod inputs;
mod repeats;
mod secrets;

const CANARY: &str = "zephyr-quartz-0417-lantern";

/// Fails where a test's scanner is set to fail.
pub(super) fn trap(scanner: &Scanner, byte: u8) {
    assert!(scanner.trap != Some(byte), "a fault of the scanner, on purpose");
}

fn scanner() -> Arc<Scanner> {
    let config = ScanConfig { canaries: vec![CANARY.to_owned()], canary_locks: true, ..ScanConfig::default() };
    Arc::new(Scanner::new(&config).unwrap())
}

/// The scanner that knows what stands in the seeded texts.
fn knowing(profile: Profile) -> Arc<Scanner> {
    Arc::new(Scanner::new(&seeded::config(profile)).unwrap())
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
        let config = ScanConfig { canaries: vec![canary.to_owned(); n], ..ScanConfig::default() };
        Scanner::new(&config).map(|_| ()).unwrap_err()
    };
    assert_eq!(build("short", 1), ScanConfigError::Length(0));
    assert_eq!(build("a\u{200b}\u{200b}\u{200b}\u{200b}", 1), ScanConfigError::Length(0));
    assert_eq!(build(&"x".repeat(129), 1), ScanConfigError::Length(0));
    assert_eq!(build("long enough", CANARIES_MAX + 1), ScanConfigError::TooMany(CANARIES_MAX + 1));
}

#[test]
fn code_names_and_flags_have_bounds() {
    let build = |config: ScanConfig| Scanner::new(&config).map(|_| ()).unwrap_err();
    let names = |name: &str, n: usize| ScanConfig { code_names: vec![name.to_owned(); n], ..ScanConfig::default() };
    assert_eq!(build(names("ab\u{ad}c", 1)), ScanConfigError::CodeNameLength(0));
    assert_eq!(build(names(&"x".repeat(65), 1)), ScanConfigError::CodeNameLength(0));
    assert_eq!(build(names("Orchid", CODE_NAMES_MAX + 1)), ScanConfigError::TooManyCodeNames(CODE_NAMES_MAX + 1));
    let flags = vec![Digest::of(b""); FLAGS_MAX + 1];
    assert_eq!(build(ScanConfig { flags, ..ScanConfig::default() }), ScanConfigError::TooManyFlags(FLAGS_MAX + 1));
    let most = ScanConfig {
        canaries: (0..CANARIES_MAX).map(|n| format!("{n:0128}")).collect(),
        code_names: (0..CODE_NAMES_MAX).map(|n| format!("{n:a>64}")).collect(),
        ..ScanConfig::default()
    };
    assert!(Scanner::new(&most).is_ok(), "every bound can be used at once");
}

#[test]
fn nothing_that_is_looked_for_is_shown() {
    let config = seeded::config(Profile::General);
    let shown = format!("{:?} {config:?}", Scanner::new(&config).unwrap()).to_lowercase();
    assert!(!shown.contains("zephyr") && !shown.contains("marrow"), "{shown}");
}

#[test]
fn profiles_are_parsed_from_what_terms_name() {
    assert_eq!(Profile::parse("default"), Some(Profile::General));
    for profile in Profile::ALL {
        assert_eq!(Profile::parse(profile.as_str()), Some(profile));
    }
    for none in ["", "General", "cyber_range", "cyber-range ", "сyber-range"] {
        assert_eq!(Profile::parse(none), None, "{none}");
    }
    assert_eq!(Scanner::new(&ScanConfig::default()).unwrap().profile(), Profile::General);
}

#[test]
fn the_table_says_what_the_scanner_does() {
    let mut names = BTreeSet::new();
    for row in detectors() {
        assert!(names.insert(row.name), "{} stands twice", row.name);
        assert!(!row.finds.is_empty() && !row.why.is_empty(), "{}", row.name);
        assert!(row.cyber_range <= row.general, "a cyber range is never stricter: {}", row.name);
        for profile in Profile::ALL {
            assert!(
                row.encoded.is_none_or(
                    |inside| inside.verdict(profile) <= row.verdict(profile) || !row.verdict(profile).stops()
                ),
                "{}",
                row.name
            );
        }
    }
    let formats: BTreeSet<_> = secret_formats().collect();
    assert!(formats.len() >= 60, "{}", formats.len());
    for hit in formats {
        let rows =
            detectors().iter().filter(|row| row.name.strip_suffix('*').is_some_and(|head| hit.starts_with(head)));
        assert_eq!(rows.count(), 1, "{hit}");
    }
}

#[test]
fn what_has_to_wait_for_the_next_character_only_logs() {
    let waits = patterns::base().into_iter().filter(|pattern| pattern.right != patterns::Right::Any);
    let rows = waits.map(|pattern| pattern.row);
    for row in rows.chain([&detectors::SSN, &detectors::CARD, &detectors::RANGE_FLAG]) {
        assert!(Profile::ALL.iter().all(|profile| !row.verdict(*profile).stops()), "{}", row.name);
    }
}

fn delta(content: &str) -> Bytes {
    event(&json!({"id": "c-1", "choices": [{"index": 0, "delta": {"content": content}}]}))
}

fn event(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// Streams events; answers what left, and what stopped it.
fn stream(events: &[Bytes]) -> (Vec<Bytes>, Option<&'static str>, ScanSummary) {
    stream_by(scanner(), events)
}

fn stream_by(scanner: Arc<Scanner>, events: &[Bytes]) -> (Vec<Bytes>, Option<&'static str>, ScanSummary) {
    let mut scanner = StreamScanner::new(scanner);
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
    let shapes: [fn(&str) -> Value; 14] = [
        |t| json!({"choices": [{"index": 0, "delta": {"content": t}}]}),
        |t| json!({"choices": [{"index": 3, "delta": {"reasoning_content": t}}]}),
        |t| json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": t}}]}}]}),
        |t| json!({"choices": [{"index": 0, "logprobs": {"content": [{"token": t, "logprob": -1}]}}]}),
        |t| json!({"choices": [{"index": 0, "text": t}]}),
        |t| json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": t}),
        |t| json!({"surprise": {"deep": [t]}}),
        |t| json!({"choices": [{"index": 0, "logprobs": {"tokens": ["", t]}}]}),
        |t| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}}),
        |t| json!({"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": t}}),
        |t| json!({"type": "content_block_delta", "index": 1, "delta": {"type": "signature_delta", "signature": t}}),
        |t| json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": t}}),
        |t| json!({"type": "message_delta", "delta": {"stop_sequence": t}, "usage": {"output_tokens": 1}}),
        |t| json!({"type": "error", "error": {"type": "overloaded_error", "message": t}}),
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
fn blocks_of_a_message_do_not_mix_and_each_is_one_text_from_its_start() {
    let (head, tail) = CANARY.split_at(10);
    let start = |index: u64, t: &str| {
        event(&json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": t}}))
    };
    let more = |index: u64, t: &str| {
        event(&json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": t}}))
    };
    let thinks = |t: &str| {
        event(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": t}}))
    };
    let bare = |kind: &str| event(&json!({"type": kind, "index": 0}));
    assert_eq!(stream(&[start(0, head), bare("ping"), more(0, tail)]).1, Some("canary"));
    assert_eq!(stream(&[start(0, ""), more(0, head), bare("content_block_stop"), start(1, ""), more(1, tail)]).1, None);
    assert_eq!(stream(&[more(0, head), thinks(tail)]).1, None);
    // A text that calls itself so is no start of a block.
    let inner = |name: &str, t: &str| event(&json!({"type": "content_block_delta", "index": 0, "delta": {name: t}}));
    assert_eq!(stream(&[inner("content_block", head), inner("delta", tail)]).1, None);
    // A whole message's blocks are one text, as they stand beside each other in its content.
    let block = |t: &str| json!({"type": "text", "text": t});
    let whole = event(&json!({"type": "message", "role": "assistant", "content": [block(head), block(tail)]}));
    assert_eq!(stream(&[whole]).1, Some("canary"));
    let events = ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"];
    assert_eq!(stream(&events.map(bare)).0.len(), 5);
    for unknown in ["content_block", "content_block_x", "message_", "Message_start", "pong", "messages"] {
        assert_eq!(stream(&[bare(unknown)]).1, Some(UNKNOWN_EVENT), "{unknown}");
    }
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
        "AKIA",
        "Q7M2X9K4T1B8W3Z6",
        "ghp_",
        "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1z3A",
        "glpat-",
        "password = \"",
        "hunter2-or-so\"",
        "-----BEGIN EC PRIVATE KEY-----",
        "ada@example.org",
        "219-09-9999",
        "4111 1111 1111 1111",
        "Marrow",
        "stone",
        "FLAG{w3lc0me-t0-the-harb0ur}",
        "emVwaHlyLXF1",
        "YXJ0ei0wNDE3LWxhbnRlcm4=",
        "emVwaHlyLXF1YXJ0ei0wNDE3LWxhbnRlcm4",
        "WlcxV2QyRklXbTl5",
        "U0VDUkVULy9OT0ZPUk4",
    ]);
    proptest::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.concat())
}

/// Places that a text can take, by the number of its piece, and where they are.
type Shape = (fn(usize, &str) -> Value, &'static [&'static str]);

const SHAPES: [Shape; 4] = [
    (|_, t| json!({"id": "c-1", "choices": [{"index": 0, "delta": {"content": t}}]}), &["/choices/0/delta/content"]),
    (
        |piece, t| match piece {
            0 => json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": t}}),
            _ => json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}}),
        },
        &["/content_block/text", "/delta/text"],
    ),
    (
        |_, t| json!({"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": t}}),
        &["/delta/thinking"],
    ),
    (
        |_, t| json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": t}}),
        &["/delta/partial_json"],
    ),
];

fn cut(text: &str, cuts: &[usize], shape: &Shape) -> Vec<Bytes> {
    let mut places: Vec<usize> =
        cuts.iter().map(|cut| cut % (text.len() + 1)).filter(|at| text.is_char_boundary(*at)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    let pieces = places.windows(2).map(|pair| text.get(*pair.first().unwrap()..*pair.last().unwrap()).unwrap());
    pieces.enumerate().map(|(piece, text)| event(&shape.0(piece, text))).collect()
}

fn content(events: &[Bytes]) -> String {
    content_in(events, SHAPES.first().unwrap())
}

fn content_in(events: &[Bytes], shape: &Shape) -> String {
    let values = events.iter().map(|event| serde_json::from_slice::<Value>(event).unwrap());
    let text =
        |value: Value| shape.1.iter().find_map(|place| value.pointer(place)?.as_str().map(str::to_owned)).unwrap();
    values.map(text).collect()
}

proptest! {
    #[test]
    fn no_cut_changes_the_verdict_and_no_whole_match_leaves(
        text in any_text(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        shape in proptest::sample::select(&SHAPES[..]),
    ) {
        for profile in Profile::ALL {
            let scanner = knowing(profile);
            let whole = stream_by(Arc::clone(&scanner), &cut(&text, &[], &shape));
            let events = cut(&text, &cuts, &shape);
            let (left, stopped, summary) = stream_by(Arc::clone(&scanner), &events);
            prop_assert_eq!(stopped, whole.1);
            prop_assert_eq!(&summary, &whole.2);
            prop_assert_eq!(&summary, &scanner.scan_prompt(&[super::tests::text(&text)]));
            let released = content_in(&left, &shape);
            prop_assert!(text.starts_with(&released));
            prop_assert!(!scanner.scan_prompt(&[super::tests::text(&released)]).verdict.stops());
            if stopped.is_none() {
                prop_assert_eq!(&released, &text);
                continue;
            }
            let (mut all, mut left) = (Flow::default(), Flow::default());
            let found = all.feed(&scanner, &text, &mut Findings::default()).unwrap_err();
            prop_assert!(left.feed(&scanner, &released, &mut Findings::default()).is_ok());
            // What stands inside base64 is held by groups of four characters, and begins where it will in the run.
            if !found.detector.starts_with("encoded") {
                prop_assert!(left.total() < found.begin + HOLD_FROM_BYTES, "six bytes of the match have left");
            }
        }
    }

    #[test]
    fn any_event_is_read_or_refused(events in proptest::collection::vec("[\\[\\]{}\",:a-z0-9]{0,30}", 0..6)) {
        let _ = stream(&events.into_iter().map(Bytes::from).collect::<Vec<_>>());
    }
}
