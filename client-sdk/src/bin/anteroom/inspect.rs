//! `anteroom audit match`: an Inspect log beside the ledger, call by call.
//!
//! Inspect keeps the `x-request-id` of each answer (`ModelEvent.request_ids`), which behind the gateway is the call's identifier; the
//! provider in `client-sdk/python` says it in the output's metadata as well.
//!
//! **Invariant:** what is said of the ledger follows from the verified mirror; what is said of the log is the log's word.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
};

use anteroom_proto::{
    names::{CallId, GrantId},
    time::At,
};
use anteroom_sdk::search::{Catalogue, Group, Query};
use clap::Args;
use serde::Deserialize;

use crate::{
    context::Ctx,
    fail::Fail,
    output::{When, clean, view},
    reader::instant,
    search::Source,
};

/// Largest log read, in bytes.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Most calls that are named of each kind.
const NAMED_MAX: usize = 100;
/// How far the clock of the machine that evaluated may be from the broker's, in milliseconds.
const SKEW_MS: i64 = 60_000;
/// Rows that are read together.
const ROWS: usize = 2_000;
/// What a zip archive begins with.
const ZIP: [u8; 2] = *b"PK";

/// What is matched.
#[derive(Args, Debug)]
pub(crate) struct Match {
    /// The Inspect log as JSON: written with `--log-format json`, or by `inspect log dump run.eval`
    #[arg(long, value_name = "FILE")]
    inspect: PathBuf,
    /// The grant that was called
    #[arg(long, value_name = "GRANT")]
    grant: GrantId,
    /// Only the ledger's calls in this run
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// The ledger's calls not before this instant, RFC 3339 [default: a minute before the log says that it began]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<At>,
    /// The ledger's calls before this instant, RFC 3339 [default: a minute after the log says that it ended]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<At>,
    #[command(flatten)]
    source: Source,
}

view! {
    /// A log beside the ledger.
    Matched {
        /// The log's file.
        log: String,
        /// What it evaluated.
        task: String,
        /// The model as it calls it.
        model: String,
        /// The grant.
        grant: GrantId,
        /// The ledger's calls not before.
        from: Option<When>,
        /// The ledger's calls before.
        to: Option<When>,
        /// Samples in the log.
        samples: u64,
        /// Generations in the log.
        generations: u64,
        /// Of those, answered from Inspect's cache, so that no call was made for them.
        from_cache: u64,
        /// Of those, without any identifier of a call.
        without_id: u64,
        /// Calls in both, by how they ended in the ledger.
        matched: u64,
        /// Of those, completed.
        completed: u64,
        /// Refusals in both.
        refused: u64,
        /// Calls that the log names and the ledger does not hold.
        only_in_log: u64,
        /// Calls of the ledger that the log does not name.
        only_in_ledger: u64,
        /// The first of those that only the log names.
        log_calls: Vec<String>,
        /// The first of those that only the ledger holds.
        ledger_calls: Vec<String>,
    }
}

/// The parts of a log that matter here; everything else is skipped unread.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Log {
    eval: Eval,
    stats: Stats,
    samples: Option<Vec<Sample>>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Eval {
    task: String,
    model: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Stats {
    started_at: Option<String>,
    completed_at: Option<String>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Sample {
    events: Vec<Event>,
    #[serde(deserialize_with = "output_or_other")]
    output: Option<Output>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Event {
    event: String,
    cache: Option<String>,
    request_ids: Option<Vec<RequestId>>,
    #[serde(deserialize_with = "output_or_other")]
    output: Option<Output>,
}

#[derive(Deserialize, Debug)]
struct RequestId {
    id: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Output {
    metadata: Option<Metadata>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Metadata {
    anteroom: Option<Told>,
}

/// What the provider says of a generation.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Told {
    call: Option<String>,
    attempts: Vec<Told>,
}

/// Other kinds of events have an `output` of any shape, and whose metadata it is varies.
fn output_or_other<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Output>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Known(Output),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Either::deserialize(from)? {
        Either::Known(output) => Some(output),
        Either::Other(serde::de::IgnoredAny) => None,
    })
}

/// What a log says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    task: String,
    model: String,
    started: Option<At>,
    ended: Option<At>,
    samples: u64,
    generations: u64,
    from_cache: u64,
    without_id: u64,
    calls: BTreeSet<CallId>,
}

pub(crate) async fn run(ctx: &Ctx, args: Match) -> Result<(), Fail> {
    let said = read(&args.inspect)?;
    let (catalogue, _) = args.source.catalogue(ctx).await?;
    let from = args.from.or_else(|| said.started.map(|at| at.plus_ms(-SKEW_MS)));
    let to = args.to.or_else(|| said.ended.map(|at| at.plus_ms(SKEW_MS)));
    let held = held(&catalogue, &args, from, to)?;
    let (mut matched, mut completed, mut refused) = (0, 0, 0);
    let mut only_log = Vec::new();
    for call in &said.calls {
        // The log's own call may be of another time or run than was asked for.
        let outcome = match held.get(call) {
            Some(outcome) => Some(outcome.clone()),
            None => looked_up(&catalogue, args.grant, *call)?,
        };
        match outcome {
            Some(Outcome::Refused) => refused += 1,
            Some(Outcome::Ended(end)) => {
                matched += 1;
                completed += u64::from(end == "completed");
            }
            None => only_log.push(call.to_string()),
        }
    }
    let calls = held.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Ended(_)));
    let only_ledger: Vec<String> =
        calls.filter(|(call, _)| !said.calls.contains(call)).map(|(call, _)| call.to_string()).collect();
    let first = |calls: &[String]| calls.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
    ctx.out.one(&Matched {
        log: args.inspect.display().to_string(),
        task: clean(&said.task),
        model: clean(&said.model),
        grant: args.grant,
        from: from.map(Into::into),
        to: to.map(Into::into),
        samples: said.samples,
        generations: said.generations,
        from_cache: said.from_cache,
        without_id: said.without_id,
        matched,
        completed,
        refused,
        only_in_log: only_log.len() as u64,
        only_in_ledger: only_ledger.len() as u64,
        log_calls: first(&only_log),
        ledger_calls: first(&only_ledger),
    })
}

/// How the ledger has a call.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Refused,
    Ended(String),
}

/// The ledger's calls and refusals that are asked about.
fn held(
    catalogue: &Catalogue,
    args: &Match,
    from: Option<At>,
    to: Option<At>,
) -> Result<BTreeMap<CallId, Outcome>, Fail> {
    let query = Query { grant: Some(args.grant.to_string()), run: args.run.clone(), from, to, ..Query::default() };
    let (mut held, mut next) = (BTreeMap::new(), Some(0));
    while let Some(at) = next {
        let page = catalogue.onward(&query, at, ROWS)?;
        for row in page.rows {
            let Some(call) = row.call else { continue };
            let outcome = if row.group == "refusal" { Outcome::Refused } else { Outcome::Ended(row.outcome) };
            held.insert(call, outcome);
        }
        next = page.next;
    }
    Ok(held)
}

/// A call of the grant, whenever it was made.
fn looked_up(catalogue: &Catalogue, grant: GrantId, call: CallId) -> Result<Option<Outcome>, Fail> {
    let query = Query { grant: Some(grant.to_string()), call: Some(call), ..Query::default() };
    for group in [Group::Call, Group::Refusal] {
        let page = catalogue.search(&Query { group: Some(group), ..query.clone() }, None, 1)?;
        if let Some(row) = page.rows.into_iter().next() {
            return Ok(Some(if group == Group::Call { Outcome::Ended(row.outcome) } else { Outcome::Refused }));
        }
    }
    Ok(None)
}

/// Reads a log.
fn read(path: &Path) -> Result<Said, Fail> {
    let failed = |why: std::io::Error| Fail::Local(format!("`{}` cannot be read: {why}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > LOG_BYTES_MAX {
        return Err(Fail::Usage(format!("`{}` is longer than {LOG_BYTES_MAX} bytes", path.display())));
    }
    let mut head = Vec::new();
    file.by_ref().take(2).read_to_end(&mut head).map_err(failed)?;
    if head == ZIP {
        let text = "is an archive; `inspect log dump FILE > log.json` writes it as JSON, which is read here";
        return Err(Fail::Usage(format!("`{}` {text}", path.display())));
    }
    let log = serde_json::from_reader(BufReader::new(head.as_slice().chain(file)));
    log.map(said).map_err(|why| Fail::Usage(format!("`{}` is no Inspect log: {why}", path.display())))
}

/// What there is in it.
fn said(log: Log) -> Said {
    let at = |text: Option<String>| text.and_then(|text| At::parse_rfc3339(&text).ok());
    let mut said = Said {
        task: log.eval.task,
        model: log.eval.model,
        started: at(log.stats.started_at),
        ended: at(log.stats.completed_at),
        ..Said::default()
    };
    for sample in log.samples.unwrap_or_default() {
        said.samples += 1;
        for event in sample.events.into_iter().filter(|event| event.event == "model") {
            said.generations += 1;
            if event.cache.as_deref() == Some("read") {
                said.from_cache += 1;
                continue;
            }
            let mut named = false;
            for id in event.request_ids.unwrap_or_default() {
                named |= note(&mut said.calls, &id.id);
            }
            named |= event.output.is_some_and(|output| told(&mut said.calls, output));
            said.without_id += u64::from(!named);
        }
        if let Some(output) = sample.output {
            told(&mut said.calls, output);
        }
    }
    said
}

/// Takes what the provider told; whether it named a call.
fn told(calls: &mut BTreeSet<CallId>, output: Output) -> bool {
    let Some(told) = output.metadata.and_then(|metadata| metadata.anteroom) else { return false };
    let attempts = told.attempts.into_iter().filter_map(|attempt| attempt.call);
    let mut named = false;
    for call in attempts.chain(told.call) {
        named |= note(calls, &call);
    }
    named
}

fn note(calls: &mut BTreeSet<CallId>, text: &str) -> bool {
    let call = text.parse::<CallId>();
    let is = call.is_ok();
    calls.extend(call);
    is
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    fn call(number: u8) -> String {
        CallId::new(1_795_000_000_000, [number; 10]).to_string()
    }

    fn of(text: &str) -> Said {
        said(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn generations_are_told_by_request_ids_by_the_provider_and_from_the_cache() {
        let (one, two, three) = (call(1), call(2), call(3));
        let text = format!(
            r#"{{"version": 2, "eval": {{"task": "t", "model": "m", "more": [1]}},
                "stats": {{"started_at": "2026-11-18T10:00:00+00:00", "completed_at": "2026-11-18T10:05:00+00:00"}},
                "samples": [{{"id": 1, "events": [
                    {{"event": "model", "request_ids": [{{"id": "{one}", "header": "x-request-id", "status": 429}},
                        {{"id": "{two}", "header": "x-request-id", "status": 200}}], "output": {{"choices": []}}}},
                    {{"event": "model", "cache": "read", "output": {{}}}},
                    {{"event": "model", "output": {{"metadata": {{"anteroom": {{"call": "{three}", "attempts": []}}}}}}}},
                    {{"event": "model", "request_ids": [{{"id": "req_elsewhere"}}], "output": {{}}}},
                    {{"event": "tool", "output": "text", "result": {{"a": 1}}}},
                    {{"event": "score"}}
                ]}}]}}"#
        );
        let said = of(&text);
        assert_eq!((said.samples, said.generations, said.from_cache, said.without_id), (1, 4, 1, 1));
        let calls: Vec<String> = said.calls.iter().map(ToString::to_string).collect();
        assert_eq!(calls, [one, two, three]);
        assert_eq!(said.started.map(|at| at.to_string()).as_deref(), Some("2026-11-18T10:00:00.000Z"));
    }

    #[test]
    fn a_log_without_samples_and_what_is_no_log_are_told() {
        assert_eq!(of("{}").samples, 0);
        assert_eq!(of(r#"{"samples": null, "eval": {}}"#).generations, 0);
        let dir = std::env::temp_dir().join(format!("anteroom-match-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text, why) in [("a.eval", "PK\u{3}\u{4}", "inspect log dump"), ("b.json", "[", "no Inspect log")] {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(Fail::Usage(text)) if text.contains(why)), "{name}");
        }
        assert!(matches!(read(&dir.join("none")), Err(Fail::Local(_))));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
