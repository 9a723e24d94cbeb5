//! A report as a page.
//!
//! **Invariant:** the page says what the report says, exceptions first and with what is not proven; it adds nothing.

use anteroom_proto::time::At;
use anteroom_sdk::{
    report::{EndSaid, GrantReport, LockSaid, Part as Share, Report, Sums},
    spread::Spread,
};

use super::draw;
use crate::page::{Page, Part, Section, html, pdf};

/// The page as one HTML file.
pub(crate) fn html(report: &Report) -> String {
    html::render(&of(report))
}

/// The page as a PDF.
pub(crate) fn pdf(report: &Report) -> Vec<u8> {
    pdf::render(&of(report), &report.made_by)
}

/// The page.
pub(crate) fn of(report: &Report) -> Page {
    let title = match report.grants.as_slice() {
        [only] => format!("Report of {}", only.grant),
        grants => format!("Report of {} grants", grants.len()),
    };
    let mut sections = vec![
        section("exceptions", "Out of the ordinary", exceptions(report)),
        section("not-proven", "What none of this proves", vec![Part::Points(report.not_proven.clone())]),
    ];
    for grant in &report.grants {
        let heading = if report.grants.len() == 1 { "The grant".to_owned() } else { format!("Grant {}", grant.grant) };
        sections.push(section(&format!("grant-{}", grant.grant), &heading, the_grant(grant, &report.locks)));
        let heading = if report.grants.len() == 1 { "Use".to_owned() } else { format!("Use of {}", grant.grant) };
        sections.push(section(&format!("use-{}", grant.grant), &heading, used(grant)));
        let one = report.grants.len() == 1;
        let heading = if one { "How long it took".to_owned() } else { format!("How long it took in {}", grant.grant) };
        sections.push(section(&format!("times-{}", grant.grant), &heading, times(grant)));
    }
    if !report.locks.is_empty() {
        sections.push(section("locks", "Locks", vec![locks(&report.locks)]));
    }
    sections.push(section("broker", "The broker and its clock", broker(report)));
    sections.push(section("sources", "What this is made from", sources(report)));
    Page { title, sections }
}

fn section(id: &str, title: &str, parts: Vec<Part>) -> Section {
    Section { id: id.to_owned(), title: title.to_owned(), parts }
}

fn pair(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn exceptions(report: &Report) -> Vec<Part> {
    if report.exceptions.is_empty() {
        return vec![Part::Words("Nothing out of the ordinary is on record in the scopes listed below.".to_owned())];
    }
    let rows = report.exceptions.iter().map(|one| {
        let (index, count) = (one.index.to_string(), one.count.to_string());
        vec![one.kind.to_owned(), count, one.at.to_string(), index, one.scope.clone(), one.what.clone()]
    });
    let head = vec!["what", "times", "since", "record", "scope", "in words"];
    let mut parts = vec![Part::Table("The gravest kinds first", head, rows.collect())];
    if report.exceptions_left_out > 0 {
        let words = format!("{} more are not listed; `anteroom audit search` finds them.", report.exceptions_left_out);
        parts.push(Part::Words(words));
    }
    parts
}

fn the_grant(grant: &GrantReport, locks: &[LockSaid]) -> Vec<Part> {
    let or = |text: &str| if text.is_empty() { "not among the records".to_owned() } else { text.to_owned() };
    let mut pairs = vec![pair("Stands", grant.stands)];
    pairs.extend(grant.ended.as_ref().map(|end| pair("Ended", ended(end))));
    if let (Some(start), Some(end)) = (grant.start, grant.end) {
        pairs.push(pair("Window", format!("{start} to {end}, that instant excluded")));
    }
    if let Some(clock) = &grant.clock {
        let values = clock.values.iter().map(|value| instants(value)).collect::<Vec<_>>().join(", ");
        pairs.push(pair("Clock that bounds it", format!("{} (record {})", or(&values), clock.index)));
    }
    pairs.push(pair("Model line", or(&grant.line)));
    pairs.extend(grant.builds.iter().map(|build| pair("Build, by its manifest's digest", build)));
    pairs.push(pair("Reached through", format!("{}; answers are {}", or(grant.endpoint), or(grant.asserted_by))));
    pairs.push(pair("Legal instrument", or(&grant.instrument)));
    pairs.extend(grant.terms.map(|terms| pair("SHA-256 of the terms", terms)));
    let mut parts = vec![Part::Pairs("The grant", pairs)];
    parts.extend(draw::time_line(grant, locks).map(Part::Drawing));
    let sides = grant.parties.iter().map(|side| vec![side.side.to_owned(), side.org.clone(), side.key_set.to_string()]);
    let head = vec!["side", "organisation", "fingerprint of its key set"];
    parts.push(Part::Table("Parties, as the terms name them", head, sides.collect()));
    if !grant.pauses.is_empty() {
        let rows = grant.pauses.iter().map(|pause| {
            let until = pause.ended.map_or_else(|| "-".to_owned(), |at| at.to_string());
            let minutes = pause.minutes.to_string();
            vec![pause.by.clone(), pause.at.to_string(), until, pause.how.to_owned(), minutes, pause.index.to_string()]
        });
        let head = vec!["by", "from", "to", "ended", "minutes", "record"];
        parts.push(Part::Table("Pauses; the window ran on", head, rows.collect()));
    }
    if !grant.rules_added.is_empty() {
        let rows = grant.rules_added.iter().map(|added| {
            let (at, index) = (added.at.to_string(), added.index.to_string());
            vec![added.by.clone(), at, added.reason.clone(), added.rules.to_string(), index]
        });
        let head = vec!["by", "at", "reason", "SHA-256 of the rules", "record"];
        parts.push(Part::Table("Rules added after signing, which only refuse", head, rows.collect()));
    }
    parts
}

/// A `name=value` line whose value is an instant in milliseconds, as one that people read.
fn instants(line: &str) -> String {
    let read = line.split_once('=').and_then(|(name, ms)| Some((name, At::from_ms(ms.parse().ok()?).ok()?)));
    match read {
        Some((name @ ("clock_start" | "clock_end"), at)) => format!("{name}={at}"),
        Some(_) | None => line.to_owned(),
    }
}

/// The end and its measured cut, in a sentence.
fn ended(end: &EndSaid) -> String {
    let record = match (end.recorded, end.index) {
        (Some(at), Some(index)) => format!("recorded at {at} (record {index})"),
        (None, _) | (_, None) => "no note of it is among the records".to_owned(),
    };
    let last = match (end.last_call_end, end.cut_to_last_end_ms) {
        (Some(at), Some(ms)) => {
            let from_record =
                end.record_to_last_end_ms.map_or_else(String::new, |ms| format!(", {ms} ms after that record"));
            format!("the last call's end was recorded at {at}, {ms} ms after the cut{from_record}")
        }
        (None, _) | (_, None) => "no call was under way".to_owned(),
    };
    format!("{} at {}, {record}; it cut {} calls; {last}", end.how, end.cut, end.calls_cut)
}

fn used(grant: &GrantReport) -> Vec<Part> {
    let (sums, budget) = (&grant.sums, &grant.budget);
    let mut pairs = vec![
        pair("Calls", format!("{} of {}", sums.calls, budget.calls)),
        pair("Tokens charged", format!("{} of {}", sums.tokens, budget.tokens)),
        pair("Completed", sums.completed),
        pair("Ended otherwise", sums.cut),
        pair("End never seen", sums.abandoned),
        pair("Under way at the last record", format!("{}, with {} tokens held", sums.open, sums.held)),
        pair("Refused", sums.refusals),
        pair("Run credentials issued", grant.credentials),
    ];
    if grant.watch_lists > 0 {
        pairs.push(pair("Lists given to the scanner", grant.watch_lists));
    }
    let mut parts = vec![Part::Pairs("What was used of what was agreed", pairs)];
    parts.extend(draw::days(grant).map(Part::Drawing));
    parts.push(shares("By run", "run", &grant.runs));
    parts.push(shares("By person, as pseudonyms; by certificate where nobody was known", "person", &grant.people));
    parts.push(shares("By day (UTC)", "day", &grant.days));
    if !grant.refusals.is_empty() {
        let rows = grant
            .refusals
            .iter()
            .map(|one| vec![one.code.clone(), one.count.to_string(), one.first.to_string(), one.last.to_string()]);
        parts.push(Part::Table("Refusals by code", vec!["code", "times", "first", "last"], rows.collect()));
    }
    for (caption, name, counts) in [
        ("Refusals by rule; one refusal can name several", "rule", &grant.rules),
        ("How calls ended", "end", &grant.ends),
    ] {
        if !counts.is_empty() {
            let rows = counts.iter().map(|(name, count)| vec![name.clone(), count.to_string()]);
            parts.push(Part::Table(caption, vec![name, "times"], rows.collect()));
        }
    }
    parts
}

/// What is measured, whose clocks it is read from, and what it does not include.
const TIMES: [(&str, &str); 3] = [
    (
        "From the signed instant of a call to its admission",
        "From the instant in the caller's signed claim to the record of the admission. These are two clocks, the caller's and the \
         broker's: what is below zero shows that they differ, and the way to the broker is in it.",
    ),
    (
        "From the admission of a call to its end",
        "From the record of the admission to the record of the end, by the broker's clock. The whole answer is in it.",
    ),
    (
        "From the closed gate to the recorded end of a call that was cut",
        "From the instant at which the gate closed on an open call, after which nothing passed, to the record of its end, by the \
         broker's clock.",
    ),
];

/// How long things took as far as records say. How long the broker took to decide is not among it: no record holds that.
fn times(grant: &GrantReport) -> Vec<Part> {
    let times = &grant.times;
    let all = [times.signed_to_admitted, times.admitted_to_end, times.gate_to_end];
    let mut parts = Vec::new();
    for ((what, words), spread) in TIMES.into_iter().zip(all) {
        if spread.count() == 0 {
            parts.push(Part::Words(format!("{what}: no call that counts here.")));
            continue;
        }
        parts.push(Part::Words(format!("{what}: {}, {}. {words}", measured(spread.count()), spread.words())));
        parts.extend(draw::spread(what, &spread).map(Part::Drawing));
        parts.push(bars(what, &spread));
    }
    parts
}

fn measured(count: u64) -> String {
    if count == 1 { "one call".to_owned() } else { format!("{count} calls") }
}

fn bars(what: &'static str, spread: &Spread) -> Part {
    let bars = spread.bars().into_iter().filter(|bar| bar.count > 0);
    let rows = bars.map(|bar| vec![bar.words(), bar.count.to_string()]);
    Part::Table(what, vec!["so long", "calls"], rows.collect())
}

fn shares(caption: &'static str, name: &'static str, shares: &[Share]) -> Part {
    let row = |share: &Share| {
        let Sums { calls, completed, cut, abandoned, open, refusals, tokens, held: _ } = share.sums;
        let of =
            |used: u64, budget: Option<u64>| budget.map_or_else(|| used.to_string(), |all| format!("{used} of {all}"));
        let budget = share.budget;
        let purpose = share.purpose.as_ref().map_or_else(String::new, |purpose| format!(": {purpose}"));
        vec![
            format!("{}{purpose}", share.of),
            of(calls, budget.map(|budget| budget.calls)),
            completed.to_string(),
            cut.saturating_add(abandoned).saturating_add(open).to_string(),
            refusals.to_string(),
            of(tokens, budget.map(|budget| budget.tokens)),
        ]
    };
    let head = vec![name, "calls", "completed", "other", "refused", "tokens"];
    Part::Table(caption, head, shares.iter().map(row).collect())
}

fn locks(locks: &[LockSaid]) -> Part {
    let rows = locks.iter().map(|lock| {
        let lifted = lock.lifted.map_or_else(|| "not lifted".to_owned(), |at| at.to_string());
        let (at, index) = (lock.at.to_string(), lock.index.to_string());
        vec![lock.by.clone(), lock.target.clone(), at, lifted, lock.reason.clone(), lock.scope.clone(), index]
    });
    let head = vec!["by", "hits", "set", "lifted", "reason", "scope", "record"];
    Part::Table("Locks; only who set one lifts it", head, rows.collect())
}

fn broker(report: &Report) -> Vec<Part> {
    let Some(broker) = &report.broker else {
        return vec![Part::Words(
            "The system's scope is not among the records, so nothing is known of it here.".to_owned(),
        )];
    };
    let mut parts = vec![Part::Pairs(
        "As recorded",
        vec![
            pair("Starts", (broker.starts.len() as u64).saturating_add(broker.starts_left_out)),
            pair("Down at most", format!("{} ms, as the time without records before each start", broker.down_ms_max)),
            pair("Clock not trusted", format!("{} ms, in which no call passed", broker.untrusted_ms)),
        ],
    )];
    let rows = broker.starts.iter().map(|start| {
        let (open, silent) = (start.open_calls.to_string(), format!("{} ms", start.silent_ms));
        vec![start.at.to_string(), start.version.clone(), open, silent, start.index.to_string()]
    });
    let head = vec!["at", "version", "calls under way", "no record since", "record"];
    parts.push(Part::Table("Starts", head, rows.collect()));
    let rows = broker.clock.iter().map(|change| {
        vec![change.at.to_string(), change.trust.to_owned(), change.source.clone(), change.index.to_string()]
    });
    parts.push(Part::Table("The clock's trust", vec!["at", "trust", "by", "record"], rows.collect()));
    parts
}

fn sources(report: &Report) -> Vec<Part> {
    let log = &report.log;
    let mut pairs = vec![
        pair("Log", &log.origin),
        pair("Its key", &log.key),
        pair("Entries", log.entries),
        pair("Root", &log.root),
        pair("Made by", &report.made_by),
    ];
    pairs.extend(report.last_record.map(|at| pair("Last record", at)));
    pairs.extend(report.from.map(|at| pair("Not before", at)));
    pairs.extend(report.to.map(|at| pair("Before", at)));
    let rows = report
        .scopes
        .iter()
        .map(|scope| vec![scope.scope.clone(), scope.records.to_string(), scope.destroyed.to_string()]);
    vec![
        Part::Pairs("The log, as its signed checkpoint has it", pairs),
        Part::Table(
            "Scopes, each shown to be whole under that checkpoint",
            vec!["scope", "records", "destroyed on record"],
            rows.collect(),
        ),
    ]
}
