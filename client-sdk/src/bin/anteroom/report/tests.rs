#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::collections::BTreeMap;

use anteroom_proto::{
    names::{Digest, GrantId},
    time::{At, HOUR_MS},
};
use anteroom_sdk::{
    report::{
        BrokerSaid, Clause, ClockSaid, EndSaid, Exception, GrantReport, LockSaid, LogSaid, Part, PauseSaid,
        RefusalSaid, Report, Side, Sums, TimesSaid, When,
    },
    spread::Spread,
};

use super::{draw, page};
use crate::page::{drawing::Shape, text};

const EVIL: &str = "</td><script>alert(1)</script><img src=x onerror='x'>\" & \u{202e}evil\u{200b}\r\n";

fn at(hours: i64) -> When {
    At::clamped(1_795_000_000_000 + hours * HOUR_MS).into()
}

fn spread(lengths: &[i64]) -> Spread {
    let mut spread = Spread::default();
    lengths.iter().for_each(|ms| spread.take(*ms));
    spread
}

fn sample(evil: &str) -> Report {
    let sums = Sums { calls: 9, completed: 7, cut: 2, refusals: 3, tokens: 400, ..Sums::default() };
    let id = GrantId::from_bytes([7; 16]);
    let part = |of: &str| Part { of: of.to_owned(), purpose: None, budget: None, sums };
    let grant = GrantReport {
        grant: id,
        stands: "withdrawn",
        parties: vec![Side { side: "lab", org: "lab-a".to_owned(), key_set: Digest::of(b"lab") }],
        terms: Some(Digest::of(b"terms")),
        instrument: evil.to_owned(),
        line: "aurora".to_owned(),
        builds: Vec::new(),
        endpoint: "connector",
        asserted_by: "lab-asserted",
        start: Some(at(0)),
        end: Some(at(720)),
        clock: Some(ClockSaid { index: 5, values: vec!["clock_end=1797592000000".to_owned(), "odd=1".to_owned()] }),
        ended: Some(EndSaid {
            how: "withdrawn",
            index: Some(40),
            recorded: Some(at(100)),
            cut: at(100),
            calls_cut: 2,
            last_call_end: Some(at(100)),
            record_to_last_end_ms: Some(-3),
            cut_to_last_end_ms: Some(17),
        }),
        sums,
        budget: Clause { calls: 1_000, tokens: 50_000, open: 4 },
        runs: vec![Part { purpose: Some(evil.to_owned()), ..part("cyber") }],
        people: vec![part("p-1"), part(evil)],
        days: vec![part("2026-11-18"), part("2026-11-19"), part(evil)],
        refusals: vec![RefusalSaid { code: evil.to_owned(), count: 3, first_index: 9, first: at(1), last: at(2) }],
        rules: BTreeMap::from([(evil.to_owned(), 3)]),
        ends: BTreeMap::from([("completed".to_owned(), 7)]),
        times: TimesSaid {
            signed_to_admitted: spread(&[-4, 31, 33]),
            admitted_to_end: spread(&[700, 1_300, 90_000]),
            gate_to_end: Spread::default(),
        },
        pauses: vec![PauseSaid {
            index: 12,
            at: at(10),
            by: "agency-a".to_owned(),
            ended: Some(at(12)),
            how: "resumed",
            minutes: 120,
        }],
        rules_added: Vec::new(),
        watch_lists: 1,
        credentials: 2,
    };
    let lock = LockSaid {
        index: 13,
        at: at(20),
        scope: id.to_string(),
        lock: "lock".to_owned(),
        by: "lab-a".to_owned(),
        target: evil.to_owned(),
        reason: evil.to_owned(),
        lifted: None,
    };
    Report {
        format: 1,
        made_by: "anteroom 0".to_owned(),
        log: LogSaid { origin: "log".to_owned(), key: "key".to_owned(), entries: 41, root: "root".to_owned() },
        scopes: Vec::new(),
        from: None,
        to: None,
        last_record: Some(at(101)),
        exceptions: vec![Exception {
            kind: "lock",
            index: 13,
            at: at(20),
            scope: id.to_string(),
            count: 1,
            what: evil.to_owned(),
        }],
        exceptions_left_out: 4,
        grants: vec![grant],
        locks: vec![lock],
        broker: Some(BrokerSaid::default()),
        not_proven: vec!["That the model was not used elsewhere.".to_owned()],
    }
}

/// The words of the PDF in their order, which is nothing compressed and nothing but what a line says at a time.
fn on_paper(report: &Report) -> String {
    let pdf = String::from_utf8_lossy(&page::pdf(report)).into_owned();
    let lines = pdf.split(") Tj").filter_map(|part| part.rsplit_once("\n(").map(|(_, line)| line.replace('\\', "")));
    lines.collect::<Vec<_>>().join(" ")
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn page_and_text_say_what_the_report_says_exceptions_first() {
    let report = sample("fine");
    let (html, text) = (flat(&page::html(&report)), flat(&text::render(&page::of(&report))));
    let paper = flat(&on_paper(&report));
    for what in [
        "9 of 1000",
        "400 of 50000",
        "it cut 2 calls",
        "17 ms after the cut, -3 ms after that record",
        "(record 40)",
        "lab-asserted",
        "not used elsewhere",
        "4 more are not listed",
        "clock_end=2026-12-18T11:06:40.000Z, odd=1",
        "120",
        "p-1",
        "root",
        "3 calls, from -4 to 33 ms, half of them within 33 ms",
        "two clocks",
        "from 700 to 90000 ms",
        "1-10 min",
        "cut: no call that counts here",
    ] {
        assert!(html.contains(what) && text.contains(what), "{what}: {text}");
        assert!(paper.contains(what), "{what}: {paper}");
    }
    // What colours mean is of no use where there are none.
    assert!(html.contains("third colour") && paper.contains("third colour") && !text.contains("colour"), "{text}");
    for page in [&html, &text, &paper] {
        let place = |what: &str| page.rfind(what).unwrap();
        assert!(place("Out of the ordinary") < place("What none of this proves"));
        assert!(place("What none of this proves") < place("fingerprint of its key set"));
    }
}

#[test]
fn hostile_names_are_text_and_nothing_else() {
    let report = sample(&format!("{EVIL}{}", "א".repeat(10_240)));
    let html = page::html(&report);
    for forbidden in ["<script", "<img", "onerror='", "\u{202e}", "\u{200b}", "\r"] {
        assert!(!html.contains(forbidden), "{forbidden:?} got into the page");
    }
    assert!(html.contains("&lt;script&gt;alert(1)") && html.contains("[U+202E]evil[U+200B]"));
    let text = text::render(&page::of(&report));
    assert!(!text.contains('\u{202e}') && !text.contains('\r'));
    let paper = on_paper(&report);
    assert!(paper.contains("<script>alert(1)") && paper.contains("[U+202E]evil[U+200B]"), "{paper}");
}

#[test]
fn the_page_needs_and_runs_nothing_and_its_drawings_are_whole() {
    let html = page::html(&sample("fine"));
    for forbidden in
        ["<script", "<link", "<iframe", "<img", "<form", "http://", "https://", "url(", "style=", "@import"]
    {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert_eq!(html.matches("<svg ").count(), 4);
    for tag in ["svg", "figure", "figcaption", "title", "table", "tr", "td", "section", "text"] {
        let opened = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn drawings_stay_within_their_frame() {
    let mut report = sample("fine");
    let grant = report.grants.first_mut().unwrap();
    // A pause that outlasts the window, and more days than are drawn, one of them empty.
    grant.pauses.first_mut().unwrap().ended = Some(at(10_000));
    let day = grant.days.first().unwrap().clone();
    grant.days = (0..200).map(|number| Part { of: format!("day {number}"), ..day.clone() }).collect();
    grant.days.push(Part { sums: Sums::default(), ..day });
    let mut longest = Spread::default();
    (0..2_000_000).step_by(999).for_each(|ms| longest.take(ms));
    let drawings = [
        draw::time_line(grant, &report.locks).unwrap(),
        draw::days(grant).unwrap(),
        draw::spread("All of them", &longest).unwrap(),
        draw::spread("One", &spread(&[i64::MAX])).unwrap(),
    ];
    for drawing in &drawings {
        for shape in &drawing.shapes {
            if let Shape::Bar(_, x, y, width, height) = shape {
                assert!(*x >= 0 && x + width <= 962, "{shape:?}");
                assert!(*y >= 0 && y + height <= 140, "{shape:?}");
            }
        }
    }
    assert_eq!(draw::spread("None", &Spread::default()), None);
    let bars = |shapes: &[Shape]| shapes.iter().filter(|shape| matches!(shape, Shape::Bar(..))).count();
    assert!(bars(&draw::days(grant).unwrap().shapes) <= 3 * draw::DAYS_MAX);
    grant.start = None;
    assert_eq!(draw::time_line(grant, &[]), None);
}
