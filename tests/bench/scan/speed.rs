//! What the scanner costs a kilobyte of a prompt and an event of an answer.

use std::{sync::Arc, time::Instant};

use anteroom_policy::content::{
    body::{Channel, Text},
    scan::{
        Profile, Scanner, seeded,
        stream::{Release, StreamScanner},
    },
    strict_json,
};
use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{SEED, corpora::KEPT};
use crate::bench::{
    Fallible,
    report::{Table, round},
    stats::Spread,
};

/// Bytes of a prompt.
const PROMPT_BYTES: usize = 1 << 20;
/// Events of an answer.
const EVENTS: usize = 256;
/// Characters of an event, about a token or three.
const EVENT_CHARS: usize = 12;

pub(super) fn run(rounds: usize) -> Fallible<(String, Value)> {
    let scanner = Arc::new(Scanner::new(&seeded::config(Profile::General))?);
    let columns = [
        "text",
        "prompt of 1 MB, µs/KB",
        "256 events, µs/KB",
        "an event, ns p50",
        "p99",
        "of which reading its JSON, ns p50",
        "events held",
    ];
    let mut table = Table::new(&columns);
    let mut data = Vec::new();
    for (name, text) in texts() {
        let prompt = prompt(&scanner, &text, rounds).ok_or("no rounds")?;
        let stream = stream(&scanner, &text, rounds);
        table.row(vec![
            name.to_owned(),
            round(prompt.median),
            round(stream.per_kb),
            round(stream.p50),
            round(stream.p99),
            round(stream.json_p50),
            format!("{} of {EVENTS}", stream.held),
        ]);
        data.push(json!({"text": name, "prompt_us_per_kb": prompt.json(), "events_us_per_kb": stream.per_kb,
            "event_ns_p50": stream.p50, "event_ns_p99": stream.p99, "json_ns_p50": stream.json_p50,
            "events_held": stream.held}));
    }
    Ok((table.text().to_owned(), Value::from(data)))
}

/// Texts of each kind, [`PROMPT_BYTES`] or a little less. None stops, so that all of it is read.
fn texts() -> Vec<(&'static str, String)> {
    let kept = |at: usize| KEPT[at].1.to_owned();
    let noise: Vec<u8> = (0..3000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let image = format!("![plot](data:image/png;base64,{})\nThe plot shows the second run.\n", BASE64.encode(&noise));
    let foreign = "Комиссия собралась дважды, протокол приложен. 会议于周二举行，结果已公布。 Größe und Länge prüfen; \
        l’été à Orléans. Η συνεδρίαση αναβλήθηκε. 회의는 화요일에 열렸다. 🙂 ";
    let prefixes =
        "eyJ- sk-ant- glpat- xoxb-1- sk-proj- nvapi- hvs.a- tskey-auth-a- SG.- CFPAT- figd_ password: \" -----BEGIN ";
    vec![
        ("ordinary prompts", fill(&kept(0))),
        ("code", fill(&kept(1))),
        ("agent transcripts", fill(&kept(2))),
        ("base64-heavy text", fill(&image)),
        ("not ASCII", fill(foreign)),
        ("one word of letters", fill("a")),
        ("one long number", fill("7")),
        ("heads of credentials, nothing behind them", fill(prefixes)),
    ]
}

fn fill(unit: &str) -> String {
    unit.repeat((PROMPT_BYTES / unit.len()).max(1)).chars().take(PROMPT_BYTES).collect()
}

/// Microseconds a kilobyte.
fn prompt(scanner: &Scanner, text: &str, rounds: usize) -> Option<Spread> {
    let kilobytes = text.len() as f64 / 1024.0;
    Spread::of(
        (0..=rounds)
            .map(|_| {
                let start = Instant::now();
                let summary =
                    scanner.scan_prompt(&[Text { channel: Channel::Message, continues: false, text: text.into() }]);
                let took = start.elapsed();
                assert!(!summary.verdict.stops(), "{:?} stops in seed {SEED}", summary.hits);
                took.as_secs_f64() * 1e6 / kilobytes
            })
            .skip(1),
    )
}

struct Streamed {
    per_kb: f64,
    p50: f64,
    p99: f64,
    json_p50: f64,
    held: usize,
}

fn stream(scanner: &Arc<Scanner>, text: &str, rounds: usize) -> Streamed {
    let characters: Vec<char> = text.chars().take(EVENTS * EVENT_CHARS).collect();
    let events: Vec<Bytes> = characters
        .chunks(EVENT_CHARS)
        .map(|piece| {
            let piece: String = piece.iter().collect();
            let event = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000,
                "model": "m", "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]});
            Bytes::from(event.to_string())
        })
        .collect();
    let (mut nanos, mut json_nanos, mut held) = (Vec::new(), Vec::new(), 0);
    for _ in 0..=rounds * 4 {
        held = 0;
        let mut stream = StreamScanner::new(Arc::clone(scanner));
        for event in &events {
            let event = event.clone();
            let start = Instant::now();
            let release = stream.push(event);
            nanos.push(start.elapsed().as_nanos() as f64);
            match release {
                Release::Now(released) => held += usize::from(released.is_empty()),
                Release::Stop { hit, .. } => panic!("{hit} stops"),
            }
        }
        for event in &events {
            let start = Instant::now();
            let read = strict_json::parse(event);
            json_nanos.push(start.elapsed().as_nanos() as f64);
            assert!(read.is_ok());
        }
    }
    nanos.sort_by(f64::total_cmp);
    json_nanos.sort_by(f64::total_cmp);
    let at = |list: &[f64], q: f64| list[((list.len() - 1) as f64 * q) as usize];
    let bytes: usize = characters.iter().map(|c| c.len_utf8()).sum();
    let per_stream = nanos.iter().sum::<f64>() / (rounds * 4 + 1) as f64;
    Streamed {
        per_kb: per_stream / 1000.0 / (bytes as f64 / 1024.0),
        p50: at(&nanos, 0.5),
        p99: at(&nanos, 0.99),
        json_p50: at(&json_nanos, 0.5),
        held,
    }
}
