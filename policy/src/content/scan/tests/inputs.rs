//! Inputs that are meant to break it.

use data_encoding::BASE64;

use super::*;
use crate::content::body::{BodyBounds, Route, parse};

const SECRET: &str = "sk-ant-api03-Zq8Lw2Xv7Rt4Yb9Nc3Md6Kf1Hs5Jp0Ge";

fn deltas(text: &str, size: usize) -> Vec<Bytes> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(size).map(|chunk| delta(&chunk.iter().collect::<String>())).collect()
}

#[test]
fn a_split_inside_a_utf8_sequence_is_no_event_and_stops() {
    let whole = delta("ТОР SECRET//SI");
    for cut in 1..whole.len() {
        let (head, tail) = (whole.slice(..cut), whole.slice(cut..));
        let (left, stopped, _) = stream(&[head, tail]);
        assert_eq!((left.len(), stopped), (0, Some(UNKNOWN_EVENT)), "{cut}");
    }
    // Half of an escaped pair.
    let half = Bytes::from_static(br#"{"choices":[{"index":0,"delta":{"content":"\ud83d"}}]}"#);
    assert_eq!(stream(&[half]).1, Some(UNKNOWN_EVENT));
    // Events that end between two characters of more than one byte each.
    let (_, stopped, _) = stream(&deltas("ＴＯＰ　ＳＥＣＲＥＴ／／SI", 1));
    assert_eq!(stopped, Some("banner_top_secret"));
}

#[test]
fn zero_width_soft_hyphen_and_tag_characters_hide_nothing() {
    for invisible in ["\u{200b}", "\u{ad}", "\u{e0041}", "\u{2060}", "\u{fe0f}", "\u{202e}", "\u{7f}"] {
        for (words, hit) in [(CANARY, "canary"), (SECRET, "secret_anthropic_key"), ("SECRET//NOFORN", "banner_secret")]
        {
            let hidden: String = words.chars().map(|c| format!("{c}{invisible}")).collect();
            let found = knowing(Profile::General).scan_prompt(&[text(&hidden)]);
            assert_eq!((found.verdict, found.hits), (ScanVerdict::Stop, vec![hit.to_owned()]), "{invisible:?}");
            let (_, stopped, _) = stream_by(knowing(Profile::General), &deltas(&hidden, 1));
            assert_eq!(stopped, Some(hit));
        }
    }
}

#[test]
fn a_full_width_or_cyrillic_marking_is_one() {
    check("ＳＥＣＲＥＴ／／ＮＯＦＯＲＮ", ScanVerdict::Stop, &["banner_secret"]);
    check("ЅЕСRЕТ//NOFORN", ScanVerdict::Stop, &["banner_secret"]);
    check("ＣＵＩ／／ＳＰ", ScanVerdict::Log, &["marking_cui"]);
    check("ＡＫＩＡＱ７Ｍ２Ｘ９Ｋ４Ｔ１Ｂ８Ｗ３Ｚ６", ScanVerdict::Stop, &["secret_aws_access_key"]);
}

#[test]
fn a_negated_marking_is_none_and_a_negated_banner_stops() {
    for plain in ["this is not CUI//SP-CTI", "not a CUI//X", "non-NOFORN", "no NOFORN"] {
        check(plain, ScanVerdict::Clean, &[]);
    }
    check("this is not SECRET//NOFORN", ScanVerdict::Stop, &["banner_secret"]);
}

#[test]
fn secrets_in_tool_arguments_reasoning_and_logprob_tokens_are_found() {
    let shapes: [fn(&str) -> Value; 6] = [
        |t| json!({"choices": [{"index": 0, "delta": {"reasoning_content": t}}]}),
        |t| json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": t}}]}}]}),
        |t| json!({"choices": [{"index": 0, "logprobs": {"content": [{"token": t, "logprob": -1}]}}]}),
        |t| json!({"choices": [{"index": 0, "logprobs": {"tokens": ["", t]}}]}),
        |t| json!({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": t}),
        |t| json!({"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": t}),
    ];
    for shape in shapes {
        for cut in 1..SECRET.len() {
            let (head, tail) = SECRET.split_at(cut);
            let events: Vec<_> = ["{\"key\": \"", head, tail, "\"}"].map(|t| event(&shape(t))).to_vec();
            let (left, stopped, _) = stream(&events);
            assert_eq!(stopped, Some("secret_anthropic_key"), "{cut} {:?}", events.get(1));
            assert!(left.len() <= 2);
        }
    }
}

#[test]
fn secrets_in_every_part_of_a_prompt_are_found() {
    let body = |(place, text): (&str, Value)| {
        let mut body = json!({"model": "m", "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": null, "tool_calls":
                [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "t", "content": "done"},
        ]});
        *body.pointer_mut(place).unwrap() = text;
        body.to_string()
    };
    type Placed = fn(&str) -> (&'static str, Value);
    let places: [Placed; 3] = [
        |t| ("/messages/0/content/0/text", json!(t)),
        |t| ("/messages/1/tool_calls/0/function/arguments", json!(format!("{{\"k\":\"{t}\"}}"))),
        |t| ("/messages/2/content", json!(t)),
    ];
    for place in places {
        let bytes = body(place(SECRET));
        let body = parse(Route::Chat, bytes.as_bytes(), &BodyBounds { bytes_max: 9999 }, &[]).unwrap();
        let found = scanner().scan_body(&body);
        assert_eq!(
            (found.verdict, found.hits),
            (ScanVerdict::Stop, vec!["secret_anthropic_key".to_owned()]),
            "{bytes}"
        );
    }
}

#[test]
fn a_megabyte_without_a_space_is_read_to_its_end() {
    for unit in ["a", "0", "A1b2", "-", "/", "@", ".", "eyJ", "ghp_", "-----BEGIN ", "\u{200b}", "Т"] {
        let long = unit.repeat((1 << 20) / unit.len());
        let found = knowing(Profile::General).scan_prompt(&[text(&long)]);
        assert_eq!(found.verdict, ScanVerdict::Clean, "{unit}");
        let hidden = format!("{long} {CANARY}");
        assert_eq!(knowing(Profile::General).scan_prompt(&[text(&hidden)]).verdict, ScanVerdict::Stop, "{unit}");
    }
}

#[test]
fn a_channel_remembers_a_bounded_end() {
    let scanner = knowing(Profile::General);
    let (mut flow, mut findings) = (Flow::default(), Findings::default());
    let all_forms: String = seeded::planted(3, 1).iter().map(|planted| planted.plant.get(..9).unwrap_or("-")).collect();
    for word in ["eyJ-", "sk-ant-", "password: ", all_forms.as_str(), "QUJDREVGR0g", "1 "] {
        for _ in 0..2000 {
            let _ = flow.feed(&scanner, word, &mut findings);
        }
        assert!(flow.memory() < 16 * 1024, "{}", flow.memory());
    }
}

#[test]
fn a_regex_heavy_prompt_is_text_like_any_other() {
    let prompts = [
        r"^(a+)+$|(x*)*y|(?=.*[A-Z])(?=.*\d)(.*?,){50}P",
        r"(AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|xox[abprs]-[0-9]{10,13}-",
        r"-----BEGIN (RSA |EC |OPENSSH )?PRIVATE KEY-----[\s\S]+?-----END",
        r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b",
        r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
        r"(?i)(TOP )?SECRET(//)(TK|SI)?",
    ];
    for prompt in prompts {
        let found = knowing(Profile::General).scan_prompt(&[text(prompt)]);
        assert_eq!(found.verdict, ScanVerdict::Clean, "{prompt} {:?}", found.hits);
    }
    let long = prompts.join("\n").repeat(1000);
    assert_eq!(knowing(Profile::General).scan_prompt(&[text(&long)]).verdict, ScanVerdict::Clean);
}

/// A scanner that fails at `¶`-like surprises: here at an exclamation mark.
fn failing() -> Arc<Scanner> {
    Arc::new(Scanner { trap: Some(b'!'), ..Scanner::new(&ScanConfig::default()).unwrap() })
}

#[test]
fn a_scanner_that_panics_stops_a_prompt() {
    let body = br#"{"model":"m","prompt":"hello!"}"#;
    let body = parse(Route::Completions, body, &BodyBounds { bytes_max: 99 }, &[]).unwrap();
    let found = failing().scan_body(&body);
    assert_eq!((found.verdict, found.hits), (ScanVerdict::Stop, vec![SCANNER_FAILED.to_owned()]));
    assert_eq!(failing().scan_prompt(&[text("hello")]).verdict, ScanVerdict::Clean);
}

#[test]
fn a_scanner_that_panics_stops_an_answer_and_lets_nothing_go() {
    let mut scanner = StreamScanner::new(failing());
    assert_eq!(scanner.push(delta("hello")), Release::Now(vec![delta("hello")]));
    assert_eq!(scanner.push(delta("-----BEGIN")), Release::Now(vec![]), "held");
    let failed = Release::Stop { hit: SCANNER_FAILED, lock: false, released: vec![] };
    assert_eq!(scanner.push(delta("oh!")), failed);
    assert_eq!(scanner.push(delta("fine")), failed, "and stays so");
    assert_eq!(scanner.stopped(), Some(SCANNER_FAILED));
    assert!(scanner.finish().is_empty());
    assert_eq!(
        (scanner.summary().verdict, scanner.summary().hits),
        (ScanVerdict::Stop, vec![SCANNER_FAILED.to_owned()])
    );
}

/// Of two credentials in one, the one that is whole first is named; the text is stopped by either.
#[test]
fn a_token_that_begins_within_another_stops_the_text() {
    let within = concat!("f", "o1_hf_");
    let words = format!("Why does {within}lzDFDT9JT7pS89q5bJZBGl2MgNonhaFPcfUsS get a 403?");
    let found = knowing(Profile::General).scan_prompt(&[text(&words)]);
    assert_eq!((found.verdict, found.hits), (ScanVerdict::Stop, vec!["secret_huggingface_token".to_owned()]));
    assert!(seeded::planted(541_211_659_620_821_746, 1).iter().all(|planted| !planted.text.contains(within)));
}

proptest! {
    #[test]
    fn any_text_and_any_base64_of_it_is_read(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let scanner = knowing(Profile::General);
        for words in [text.clone(), BASE64.encode(text.as_bytes()), BASE64.encode(&bytes)] {
            let found = scanner.scan_prompt(&[super::text(&words)]);
            prop_assert!(!found.hits.contains(&SCANNER_FAILED.to_owned()));
            let (_, stopped, streamed) = stream_by(Arc::clone(&scanner), &deltas(&words, 3));
            prop_assert_eq!(stopped.is_some(), found.verdict.stops());
            prop_assert_eq!(streamed, found);
        }
    }

    #[test]
    fn every_seed_and_every_cut_gives_the_same(seed in any::<u64>(), size in 1_usize..40) {
        let scanner = knowing(Profile::General);
        for planted in seeded::planted(seed, 1) {
            let whole = scanner.scan_prompt(&[super::text(&planted.text)]);
            prop_assert!(whole.hits.iter().any(|hit| hit == planted.hit), "{} in {}", planted.hit, planted.text);
            let (left, _, summary) = stream_by(Arc::clone(&scanner), &deltas(&planted.text, size));
            prop_assert_eq!(&summary, &whole);
            prop_assert!(!scanner.scan_prompt(&[super::text(&content(&left))]).verdict.stops());
        }
    }
}
