//! Credentials, identifiers, code names and flags.

use super::*;

/// Streams `text` cut at one place; what left, what stopped it, and the findings.
fn halves(scanner: &Arc<Scanner>, text: &str, cut: usize) -> (String, Option<&'static str>, ScanSummary) {
    let (head, tail) = text.split_at(cut);
    let (left, stopped, summary) = stream_by(Arc::clone(scanner), &[delta(head), delta(tail), delta(" .")]);
    (content(&left), stopped, summary)
}

#[test]
fn everything_planted_is_found_split_at_every_byte_offset() {
    for profile in Profile::ALL {
        let scanner = knowing(profile);
        for planted in seeded::planted(7, 1) {
            let line = format!("well:\n{}\n", planted.plant);
            let whole = stream_by(Arc::clone(&scanner), &[delta(&line), delta(" .")]);
            assert!(whole.2.hits.iter().any(|hit| hit == planted.hit), "{} {:?}", planted.hit, whole.2);
            let verdict = planted.detector.verdict(profile);
            assert!(whole.2.verdict >= verdict, "{}", planted.hit);
            assert_eq!(whole.1.is_some(), whole.2.verdict.stops());
            for cut in (1..line.len()).filter(|cut| line.is_char_boundary(*cut)) {
                let (left, stopped, summary) = halves(&scanner, &line, cut);
                assert_eq!((stopped, &summary), (whole.1, &whole.2), "{} cut at {cut}", planted.hit);
                assert!(!scanner.scan_prompt(&[text(&left)]).verdict.stops(), "{} cut at {cut}", planted.hit);
                if stopped.is_none() {
                    assert_eq!(left, format!("{line} ."));
                }
            }
        }
    }
}

#[test]
fn six_bytes_of_a_credential_are_held_and_five_are_not() {
    let scanner = knowing(Profile::General);
    for (secret, short) in [("ghp_aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1z3A", "AKIA"), ("AKIAQ7M2X9K4T1B8W3Z6", "sk-")] {
        for cut in 1..secret.len() {
            let (left, stopped, _) = halves(&scanner, &format!("key {secret}"), 4 + cut);
            assert!(stopped.is_some());
            assert_eq!(left.len(), if cut < 6 { 4 + cut } else { 0 }, "{cut}");
        }
        let (left, stopped, _) = halves(&scanner, &format!("{short} is a prefix"), short.len());
        assert_eq!((left.len(), stopped), (short.len() + 14, None));
    }
}

#[test]
fn a_credential_that_turns_out_to_be_none_is_let_go() {
    let mut scanner = StreamScanner::new(knowing(Profile::General));
    assert_eq!(scanner.push(delta("ghp_aB3dE5fG7hJ9kL1")), Release::Now(vec![]));
    assert_eq!(
        scanner.push(delta(" was cut off")),
        Release::Now(vec![delta("ghp_aB3dE5fG7hJ9kL1"), delta(" was cut off")])
    );
    assert_eq!(scanner.summary(), ScanSummary::default());
}

#[test]
fn placeholders_and_names_are_no_credentials() {
    for plain in [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "sk-ant-00000000000000000000000000000000000000",
        "xAKIAQ7M2X9K4T1B8W3Z6",
        "AKIA Q7M2X9K4T1B8W3Z6",
        "akiaq7m2x9k4t1b8w3z6",
        "if line == \"-----BEGIN RSA PRIVATE KEY-----\" {",
        "-----BEGIN CERTIFICATE-----\nMIIBkTCB+wIJAKHHCgVZU6TyMA0GCSqGSIb3DQEBCwUAMBExDzANBgNVBAMMBnRl\n",
        "glpat- is the prefix of GitLab's tokens",
        "task-0123456789abcdefghijABCDEFGHIJ0123456789abcdefghij",
        "password = os.environ[\"PASSWORD\"]",
        "password = \"${PASSWORD}\"",
        "password = \"short\"",
        "the token: a word for a word",
        "https://example.org:8080/@path",
        "eyJhbGciOiJIUzI1NiJ9 and nothing else",
        "@media (min-width: 40em)",
        "user@localhost, npm install left-pad@1.3.0",
    ] {
        check(plain, ScanVerdict::Clean, &[]);
    }
}

#[test]
fn a_key_block_is_one_in_a_file_and_in_code() {
    let key = "MHcCAQEEIBzd7Rm0GQf3bCkZ9sVt2Xw8LpYq4JhNe6Ua1TzKoWvDoAoGCCqGSM49";
    for block in [
        format!("-----BEGIN EC PRIVATE KEY-----\n{key}\n"),
        format!("-----BEGIN EC PRIVATE KEY-----\r\n{key}\r\n"),
        format!("\"-----BEGIN EC PRIVATE KEY-----\\n{key}\\n\""),
        format!("'-----BEGIN EC PRIVATE KEY-----\\n' +\n    '{key}\\n'"),
        format!("    -----BEGIN EC PRIVATE KEY-----\n    {key}\n"),
    ] {
        check(&block, ScanVerdict::Stop, &["private_key"]);
    }
}

#[test]
fn weak_forms_keywords_and_identifiers_only_log() {
    use ScanVerdict::Log;
    check("password = \"hunter2hunter\"", Log, &["secret_keyword"]);
    check("{\\\"API_KEY\\\": \\\"q9w8e7r6t5\\\"}", Log, &["secret_keyword"]);
    check("postgres://app:q9w8e7r6@db/app", Log, &["likely_secret_url_password"]);
    check(
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        Log,
        &["likely_secret_jwt"],
    );
    check(
        "mail ada@lovelace.org, SSN 219-09-9999, card 4111 1111 1111 1111.",
        Log,
        &["identifier_card", "identifier_email", "identifier_ssn"],
    );
    check("219-09-9999", Log, &["identifier_ssn"]);
}

#[test]
fn code_names_stop_at_the_head_of_a_word() {
    let scanner = knowing(Profile::CyberRange);
    let verdict = |words: &str| scanner.scan_prompt(&[text(words)]).verdict;
    for said in [
        "Marrowstone",
        "the MARROWSTONE build",
        "marrow\u{200b}stone-2",
        "(marrowstone)",
        "МARRОWSTОNE",
        "Ｍarrowstone",
    ] {
        assert_eq!(verdict(said), ScanVerdict::Stop, "{said}");
    }
    assert_eq!(verdict("inmarrowstone marrow stone"), ScanVerdict::Clean);
}

#[test]
fn a_range_flag_only_logs_and_is_found_by_its_digest() {
    for profile in Profile::ALL {
        let scanner = knowing(profile);
        for said in ["{}", "got: {}.", "FLAG={}", "{\"flag\":\"{}\"}", "`{}`", "https://range/?a=b&flag={}", "x\n{}\n"]
        {
            let found = scanner.scan_prompt(&[text(&said.replace("{}", seeded::KNOWN_FLAG))]);
            assert_eq!((found.verdict, found.hits), (ScanVerdict::Log, vec!["range_flag".to_owned()]), "{said}");
        }
        for other in ["flag{w3lc0me-t0-the-harb0ur}", "FLAG{w3lc0me-t0-the-harb0ur", "FLAG{w3lc0me t0-the-harb0ur}"] {
            assert_eq!(scanner.scan_prompt(&[text(other)]).verdict, ScanVerdict::Clean, "{other}");
        }
    }
}

#[test]
fn a_cyber_range_logs_credentials_and_stops_canaries_and_banners() {
    let scanner = knowing(Profile::CyberRange);
    let verdict = |words: &str| scanner.scan_prompt(&[text(words)]).verdict;
    assert_eq!(verdict("AKIAQ7M2X9K4T1B8W3Z6"), ScanVerdict::Log);
    assert_eq!(
        verdict("-----BEGIN PRIVATE KEY-----\nMHcCAQEEIBzd7Rm0GQf3bCkZ9sVt2Xw8LpYq4JhNe6Ua1TzKoWvDoAoG"),
        ScanVerdict::Log
    );
    assert_eq!(verdict(CANARY), ScanVerdict::Stop);
    assert_eq!(verdict("TOP SECRET//SI"), ScanVerdict::Stop);
}
