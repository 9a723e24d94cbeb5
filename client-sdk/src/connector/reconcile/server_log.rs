//! The model server's own log: access lines of llama.cpp, vLLM, SGLang or a proxy before them, or JSON lines.
//!
//! A request is known by the call's name, which the connector sends as `x-request-id`, where the log has it; else by when it ended and
//! with what status. What a line says beside that is skipped, prompts included.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
};

use anteroom_proto::{names::CallId, time::At};
use chrono::{DateTime, NaiveDateTime};
use serde_json::Value;

use super::{Finding, Sides, Standing};

/// Most requests that are read.
pub const REQUESTS_MAX: usize = 2_000_000;
/// A longer line is read up to here.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// How far a log's instant may be from the call's.
const APART_MS: i64 = 2_000;
/// How deep a call's name is looked for in JSON.
const DEPTH_MAX: usize = 6;

/// A request that the log has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// Its line, from 1.
    pub line: u64,
    /// The call that it names.
    pub call: Option<CallId>,
    /// When.
    pub at: Option<At>,
    /// With what status it was answered.
    pub status: Option<u16>,
}

/// A log as read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerLog {
    /// Its requests. Several lines about one call are one request.
    pub requests: Vec<Request>,
    /// Lines that are about no request.
    pub other_lines: u64,
}

/// How a call stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joined {
    /// The log names it.
    Named,
    /// The log has a request with its status at its time.
    Timed,
    /// The log names it and has another status.
    OtherStatus,
    /// The log should have it and does not.
    Missing,
    /// The log does not reach that far, or tells neither names nor times.
    Unknown,
}

impl Joined {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Timed => "timed",
            Self::OtherStatus => "other_status",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

impl ServerLog {
    /// Reads a log. Times without a zone are taken for UTC.
    ///
    /// # Errors
    /// It cannot be read, or has more than [`REQUESTS_MAX`] requests.
    pub fn read(mut from: impl BufRead) -> io::Result<Self> {
        let (mut log, mut named) = (Self::default(), BTreeMap::<CallId, usize>::new());
        let (mut line, mut number) = (Vec::new(), 0);
        while next_line(&mut from, &mut line)? {
            number += 1;
            let Some(request) = request(&String::from_utf8_lossy(&line)) else {
                log.other_lines += 1;
                continue;
            };
            let known = request.call.and_then(|call| named.get(&call)).and_then(|place| log.requests.get_mut(*place));
            if let Some(known) = known {
                known.at = request.at.or(known.at);
                known.status = request.status.or(known.status);
                continue;
            }
            if log.requests.len() >= REQUESTS_MAX {
                return Err(io::Error::other(format!(
                    "the log has more than {REQUESTS_MAX} requests; give a part of it"
                )));
            }
            named.extend(request.call.map(|call| (call, log.requests.len())));
            log.requests.push(Request { line: number, ..request });
        }
        Ok(log)
    }
}

/// Reads a line without its end into `line`, of which no more than [`LINE_BYTES_MAX`] are kept.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let part = from.fill_buf()?;
        if part.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = part.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(part.len());
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend(part.iter().take(taken.min(room)));
        from.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn request(line: &str) -> Option<Request> {
    if line.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str::<Value>(line.trim())
    {
        return json(&value);
    }
    let call = name_in(line);
    let status = access(line);
    (call.is_some() || status.is_some()).then(|| Request { line: 0, call, at: instant(line), status })
}

fn json(value: &Value) -> Option<Request> {
    let call = search(value, DEPTH_MAX);
    let status = ["status", "status_code", "code"].iter().find_map(|name| {
        let status = value.get(name)?;
        let number = status.as_u64().or_else(|| status.as_str()?.parse().ok())?;
        u16::try_from(number).ok().filter(|status| (100..600).contains(status))
    });
    let route = ["path", "uri", "url", "route", "request"].iter().find_map(|name| value.get(name)?.as_str());
    let about_call = route.is_none_or(|route| route.contains("/v1/") && !route.contains("/v1/models"));
    if call.is_none() && (status.is_none() || !about_call) {
        return None;
    }
    let at = ["time", "timestamp", "ts", "at", "@timestamp"].iter().find_map(|name| {
        let at = value.get(name)?;
        match at.as_f64() {
            // Seconds or milliseconds since 1970; nothing that serves models was there before 2001.
            Some(number) if number > 1e11 => Some(number),
            Some(number) => Some(number * 1000.0),
            None => return instant(at.as_str()?),
        }
        .map(|ms| At::clamped(ms as i64))
    });
    Some(Request { line: 0, call, at, status })
}

/// The first call's name in any text of a value.
fn search(value: &Value, depth: usize) -> Option<CallId> {
    match value {
        Value::String(text) => name_in(text),
        Value::Array(values) if depth > 0 => values.iter().find_map(|value| search(value, depth - 1)),
        Value::Object(fields) if depth > 0 => fields.values().find_map(|value| search(value, depth - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The first call's name in a text.
fn name_in(text: &str) -> Option<CallId> {
    text.match_indices("call-").find_map(|(at, _)| CallId::parse(text.get(at..at + 37)?).ok())
}

/// The status of a request to a route below `/v1/` in an access line: the first number of three digits behind the route.
fn access(line: &str) -> Option<u16> {
    let (_, behind) = line.split_once("POST ")?;
    let mut words = behind.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '|'));
    let route = words.find(|word| !word.is_empty())?;
    if !route.contains("/v1/") {
        return None;
    }
    words.filter(|word| word.len() == 3).find_map(|word| word.parse().ok().filter(|status| (100..600).contains(status)))
}

/// The first instant in a text: RFC 3339, the same with a blank and without a zone, or as web servers write it.
fn instant(text: &str) -> Option<At> {
    text.char_indices().filter(|(_, c)| c.is_ascii_digit()).take(16).find_map(|(at, _)| {
        let rest = text.get(at..)?;
        let end = rest.find([']', ')', '"', '|']).unwrap_or(rest.len());
        let rest = rest.get(..end)?.trim_end();
        if let Ok((parsed, _)) = DateTime::parse_and_remainder(rest, "%d/%b/%Y:%H:%M:%S %z") {
            return Some(At::clamped(parsed.timestamp_millis()));
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f%:z"] {
            if let Ok((parsed, _)) = DateTime::parse_and_remainder(rest, format) {
                return Some(At::clamped(parsed.timestamp_millis()));
            }
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
            if let Ok((parsed, _)) = NaiveDateTime::parse_and_remainder(rest, format) {
                return Some(At::clamped(parsed.and_utc().timestamp_millis()));
            }
        }
        None
    })
}

/// Finds each call of the list in the log, and adds a finding for each request that no call explains.
pub(super) fn join(log: &ServerLog, sides: &Sides<'_>, findings: &mut Vec<Finding>) {
    let names = log.requests.iter().any(|request| request.call.is_some());
    let times = || log.requests.iter().filter_map(|request| request.at);
    let span = times().min().zip(times().max());
    let named: BTreeMap<CallId, usize> =
        log.requests.iter().enumerate().filter_map(|(place, request)| Some((request.call?, place))).collect();
    // Unnamed requests by their instant, for calls that nothing names.
    let mut timed: BTreeMap<(At, usize), u16> = BTreeMap::new();
    for (place, request) in log.requests.iter().enumerate() {
        if let (None, Some(at), Some(status)) = (request.call, request.at, request.status) {
            timed.insert((at, place), status);
        }
    }
    let mut explained = vec![false; log.requests.len()];
    for finding in findings.iter_mut() {
        let Some(call) = finding.call else { continue };
        let kept = sides.list.calls.get(&call);
        let ended = kept.and_then(|kept| kept.ended.as_ref());
        let status = ended.and_then(|ended| u16::try_from(ended.status).ok()).filter(|status| *status > 0);
        let from = kept.and_then(|kept| kept.begun.as_ref()).map(|begun| begun.at_ms);
        let until = ended.map(|ended| ended.at_ms);
        let joined = if let Some(place) = named.get(&call) {
            explained.get_mut(*place).into_iter().for_each(|explained| *explained = true);
            let logged = log.requests.get(*place).and_then(|request| request.status);
            // Servers log the status of a stream when it begins, and none for a request that they saw dropped.
            match (status, logged) {
                (Some(ours), Some(theirs)) if ours != theirs => Joined::OtherStatus,
                (Some(_) | None, Some(_) | None) => Joined::Named,
            }
        } else if kept.is_none() {
            continue;
        } else if names {
            match (span, until.or(from)) {
                (Some((first, last)), Some(at)) if !(first.ms()..=last.ms()).contains(&at) => Joined::Unknown,
                // A request may have been dropped before the server saw it.
                (Some(_) | None, _) if status.is_none() => Joined::Unknown,
                (Some(_) | None, _) => Joined::Missing,
            }
        } else {
            by_time(&mut timed, &mut explained, span, (from.or(until), until), status)
        };
        finding.server = Some(joined);
        let fault = match joined {
            Joined::OtherStatus => Some("server_status"),
            Joined::Missing => Some("server_log"),
            Joined::Named | Joined::Timed | Joined::Unknown => None,
        };
        if let Some(fault) = fault {
            finding.differs.push(fault);
            if !finding.standing.is_fault() {
                finding.standing = Standing::Different;
            }
        }
    }
    // A log that tells neither names nor times explains nothing, and nothing is to be read into that.
    let (begins, ends) = (sides.list.begins.plus_ms(APART_MS), sides.read_at.plus_ms(-APART_MS));
    for (request, explained) in log.requests.iter().zip(explained) {
        let at = request.at.or_else(|| Some(At::clamped(request.call?.at_ms())));
        let inside = at.is_some_and(|at| begins <= at && at < ends);
        if sides.whole && !explained && inside {
            findings.push(Finding {
                call: request.call,
                grant: None,
                standing: Standing::OnlyServer,
                admitted: None,
                at: request.at,
                differs: Vec::new(),
                note: Some(format!("line {} of the server's log", request.line)),
                server: None,
            });
        }
    }
}

/// Takes the first request with the call's status at its time.
fn by_time(
    timed: &mut BTreeMap<(At, usize), u16>,
    explained: &mut [bool],
    span: Option<(At, At)>,
    (from, until): (Option<i64>, Option<i64>),
    status: Option<u16>,
) -> Joined {
    let (Some((first, last)), Some(from), Some(until), Some(status)) = (span, from, until, status) else {
        return Joined::Unknown;
    };
    let range =
        (At::clamped(from.saturating_sub(APART_MS)), 0)..=(At::clamped(until.saturating_add(APART_MS)), usize::MAX);
    let found = timed.range(range).find(|(_, logged)| **logged == status).map(|(key, _)| *key);
    match found {
        Some(key) => {
            timed.remove(&key);
            explained.get_mut(key.1).into_iter().for_each(|explained| *explained = true);
            Joined::Timed
        }
        None if until < first.ms() || from > last.ms() => Joined::Unknown,
        None => Joined::Missing,
    }
}
