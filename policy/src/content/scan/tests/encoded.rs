//! What stands inside base64.

use data_encoding::{BASE64, BASE64URL_NOPAD};

use super::*;

fn verdict_in(profile: Profile, words: &str) -> (ScanVerdict, Vec<String>) {
    let found = knowing(profile).scan_prompt(&[text(words)]);
    (found.verdict, found.hits)
}

fn stops(words: &str, hits: &[&str]) {
    let expected = hits.iter().map(ToString::to_string).collect();
    assert_eq!(verdict_in(Profile::General, words), (ScanVerdict::Stop, expected), "{words}");
}

#[test]
fn base64_is_read_through_two_layers() {
    let once = BASE64.encode(format!("dear all, {CANARY} is it").as_bytes());
    let twice = BASE64.encode(once.as_bytes());
    let thrice = BASE64.encode(twice.as_bytes());
    stops(&once, &["canary", "encoded_canary"]);
    stops(&twice, &["canary", "encoded_canary"]);
    assert_eq!(
        verdict_in(Profile::General, &thrice).0,
        ScanVerdict::Clean,
        "the third layer is a limit that the docs name"
    );
    stops(
        &format!("data:text/plain;base64,{}", BASE64URL_NOPAD.encode(CANARY.as_bytes())),
        &["canary", "encoded_canary"],
    );
    stops(&BASE64.encode("TOP SECRET//SI".as_bytes()), &["banner_top_secret", "encoded_banner"]);
    stops(&BASE64.encode("ＴＯＰ　ＳＥＣＲＥＴ／／SI".as_bytes()), &["banner_top_secret", "encoded_banner"]);
    stops(&BASE64.encode("key AKIAQ7M2X9K4T1B8W3Z6 ".as_bytes()), &["encoded_secret", "secret_aws_access_key"]);
    stops(&BASE64.encode("project Marrowstone".as_bytes()), &["code_name", "encoded_code_name"]);
    let wide: Vec<u8> = CANARY.encode_utf16().flat_map(u16::to_le_bytes).collect();
    stops(&BASE64.encode(&wide), &["canary", "encoded_canary"]);
}

#[test]
fn base64_in_lines_is_one_run() {
    let long = BASE64.encode(format!("{} {CANARY}", "a word or two ".repeat(6)).as_bytes());
    for (width, line) in [(64, "\n"), (76, "\r\n"), (64, "\\n"), (64, "\\r\\n"), (76, "\n   ")] {
        let lines: Vec<_> = long.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
        stops(&lines.join(line), &["canary", "encoded_canary"]);
    }
}

#[test]
fn base64_that_holds_nothing_is_clean_and_so_are_notes_inside_it() {
    for plain in [
        "password = \"hunter2hunter\" ada@example.org 219-09-9999",
        "what does NOFORN mean? CUI",
        "a picture",
        "SECRET sauce",
    ] {
        assert_eq!(
            verdict_in(Profile::General, &BASE64.encode(plain.as_bytes())),
            (ScanVerdict::Clean, vec![]),
            "{plain}"
        );
    }
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    assert_eq!(verdict_in(Profile::General, &BASE64.encode(&bytes)).0, ScanVerdict::Clean);
}

#[test]
fn in_a_cyber_range_base64_logs_except_for_canaries_and_code_names() {
    let verdict = |words: &str| verdict_in(Profile::CyberRange, &BASE64.encode(words.as_bytes())).0;
    assert_eq!(verdict("key AKIAQ7M2X9K4T1B8W3Z6 "), ScanVerdict::Log);
    assert_eq!(verdict("TOP SECRET//SI//NOFORN"), ScanVerdict::Log);
    assert_eq!(verdict(CANARY), ScanVerdict::Stop);
    assert_eq!(verdict("Marrowstone"), ScanVerdict::Stop);
}

#[test]
fn base64_twice_and_across_chunks_is_held_and_stopped() {
    let scanner = knowing(Profile::General);
    let once = BASE64.encode(format!("a note: {CANARY}").as_bytes());
    let twice = BASE64.encode(once.as_bytes());
    for (encoded, layers) in [(once, 1), (twice, 2)] {
        for size in [1, 2, 3, 5, 8, 13] {
            let chunks: Vec<&[u8]> = encoded.as_bytes().chunks(size).collect();
            let events: Vec<_> = chunks.iter().map(|chunk| delta(std::str::from_utf8(chunk).unwrap())).collect();
            let (left, stopped, _) = stream_by(Arc::clone(&scanner), &events);
            assert_eq!(stopped, Some("encoded_canary"));
            // Eight bytes of note, fewer than six of the canary, and the group that it began in.
            let most = if layers == 1 { 20 } else { 28 };
            assert!(content(&left).len() <= most, "{} of {} in chunks of {size}", content(&left).len(), encoded.len());
        }
    }
}

#[test]
fn a_nested_encoding_bomb_costs_two_layers_and_finds_what_is_in_them() {
    let mut bomb = "nothing here ".repeat(2000);
    for _ in 0..8 {
        bomb = BASE64.encode(bomb.as_bytes());
    }
    assert!(bomb.len() > 200_000);
    assert_eq!(verdict_in(Profile::General, &bomb), (ScanVerdict::Clean, vec![]));
    stops(&format!("{bomb} {}", BASE64.encode(CANARY.as_bytes())), &["canary", "encoded_canary"]);
}

#[test]
fn a_run_is_read_up_to_its_bound() {
    let before = |bytes: usize| BASE64.encode(format!("{}{CANARY}", "x".repeat(bytes)).as_bytes());
    assert_eq!(verdict_in(Profile::General, &before(DECODED_BYTES_MAX - CANARY.len())).0, ScanVerdict::Stop);
    assert_eq!(verdict_in(Profile::General, &before(DECODED_BYTES_MAX)).0, ScanVerdict::Clean);
}
