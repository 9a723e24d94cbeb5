//! Sample cases: calls that nobody made, as counsel writes them down, and the facts that they come to.
//!
//! **Invariant:** a case that leaves everything out is a plain call that the terms lend, by a person whom nothing stands against;
//! what it names goes through the same functions as a real call's facts.

use anteroom_policy::{
    content::{
        body::Route,
        scan::{ScanSummary, ScanVerdict},
    },
    facts::{TOKENS_STEP, effective},
};
use anteroom_proto::{
    rpc::{Facts, Marking},
    statement::terms::{MarkingTerms, RunTerms, Terms},
    time::At,
};
use serde::Deserialize;

use crate::fail::Fail;

/// The cases that come with this program, one for each rule of the baseline.
pub(crate) const EXAMPLE: &str = include_str!("cases.toml");
/// Most cases in a file.
const CASES_MAX: usize = 10_000;
/// Monday, 5 January 2026, 00:00 UTC, in minutes: where a case without a date takes place.
const A_MONDAY: i64 = 29_459_520;
/// Ten o'clock.
const A_MINUTE_OF_DAY: i64 = 600;

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    case: Vec<Case>,
}

/// What is expected of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expect {
    Allow,
    Refuse,
}

impl Expect {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
        }
    }
}

/// A case: what is expected, and what differs from a plain call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) expect: Expect,
    /// The rules that decide, all of them.
    pub(crate) by: Option<Vec<String>>,
    route: Option<String>,
    run: Option<String>,
    purpose: Option<String>,
    model: Option<String>,
    variant: Option<String>,
    network: Option<String>,
    at: Option<String>,
    weekday: Option<String>,
    time: Option<String>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    tools: Vec<String>,
    #[serde(default)]
    images: u32,
    #[serde(default)]
    logprobs: u32,
    #[serde(default)]
    logit_bias: bool,
    n: Option<u32>,
    #[serde(default)]
    seed: bool,
    #[serde(default)]
    prefill: bool,
    #[serde(default)]
    reasoning: bool,
    response_format: Option<String>,
    tokens: Option<u64>,
    #[serde(default)]
    named_fields: Vec<String>,
    #[serde(default)]
    repeated: bool,
    #[serde(default)]
    scan_verdict: u32,
    #[serde(default)]
    scan_hits: Vec<String>,
    marking: Option<Declared>,
    #[serde(default)]
    person: Who,
    pub(crate) lent: Option<Lent>,
}

/// A marking as a caller declares it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Declared {
    level: u32,
    caveats: Vec<String>,
    rel_to: Vec<String>,
}

/// The person behind a case's call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Who {
    name: Option<String>,
    employer: Option<String>,
    us_person: Option<String>,
    us_only: Option<String>,
    rel_to_ok: Option<Vec<String>>,
    clearance: Option<u32>,
    read_ins: Option<Vec<String>>,
    trained_until: Option<String>,
    engaged_until: Option<String>,
}

/// What a case's terms lend, in place of what they say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lent {
    chat: Option<bool>,
    completions: Option<bool>,
    embeddings: Option<bool>,
    responses: Option<bool>,
    messages: Option<bool>,
    streaming: Option<bool>,
    tools: Option<Vec<String>>,
    images: Option<u32>,
    logprobs: Option<u32>,
    logit_bias: Option<bool>,
    n: Option<u32>,
    seed: Option<bool>,
    prefill: Option<bool>,
    reasoning: Option<bool>,
    response_format: Option<bool>,
    named_fields: Option<Vec<String>>,
    networks: Option<Vec<String>>,
    marking: Option<MarkingTerms>,
}

/// Reads a file of cases.
pub(crate) fn read(what: &str, text: &str) -> Result<Vec<Case>, Fail> {
    let file: File = toml::from_str(text).map_err(|error| Fail::Usage(format!("`{what}` holds no cases: {error}")))?;
    if file.case.is_empty() || file.case.len() > CASES_MAX {
        return Err(Fail::Usage(format!("`{what}` holds {} cases; 1 to {CASES_MAX} are expected", file.case.len())));
    }
    Ok(file.case)
}

impl Case {
    /// The terms that this case is judged by, if they are others than those given.
    pub(crate) fn terms(&self, given: &Terms) -> Option<Terms> {
        let lent = self.lent.as_ref()?;
        let mut terms = given.clone();
        // No `..`: what can be lent differently has to be put in.
        let Lent {
            chat,
            completions,
            embeddings,
            responses,
            messages,
            streaming,
            tools,
            images,
            logprobs,
            logit_bias,
            n,
            seed,
            prefill,
            reasoning,
            response_format,
            named_fields,
            networks,
            marking,
        } = lent.clone();
        fn put<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        let features = &mut terms.features;
        put(&mut features.chat, chat);
        put(&mut features.completions, completions);
        put(&mut features.embeddings, embeddings);
        put(&mut features.responses, responses);
        put(&mut features.messages, messages);
        put(&mut features.streaming, streaming);
        put(&mut features.tools, tools);
        put(&mut features.images, images);
        put(&mut features.logprobs, logprobs);
        put(&mut features.logit_bias, logit_bias);
        put(&mut features.n, n);
        put(&mut features.seed, seed);
        put(&mut features.prefill, prefill);
        put(&mut features.reasoning, reasoning);
        put(&mut features.response_format, response_format);
        put(&mut features.named_fields, named_fields);
        put(&mut terms.marking, marking);
        for run in &mut terms.runs {
            put(&mut run.networks, networks.clone());
        }
        Some(terms)
    }

    /// What the rules would see of it.
    pub(crate) fn facts(&self, terms: &Terms) -> Result<Facts, Fail> {
        let wrong = |what: &str| Fail::Usage(format!("the case `{}`: {what}", self.name));
        let run = self.run_of(terms).ok_or_else(|| wrong("the terms have no such run"))?;
        let route = self.route.as_deref().unwrap_or(Route::Chat.as_str());
        let routes = Route::ALL.map(Route::as_str);
        if !routes.contains(&route) {
            return Err(wrong(&format!("a route is one of {}", routes.join(", "))));
        }
        let format = self.response_format.as_deref().unwrap_or("text");
        if !["text", "json_object", "json_schema"].contains(&format) {
            return Err(wrong("a response format is `text`, `json_object` or `json_schema`"));
        }
        if self.scan_verdict > ScanVerdict::StopAndLock.number() {
            return Err(wrong("a scan verdict is a number from 0 to 3"));
        }
        let minute = self.minute().map_err(|what| wrong(&what))?;
        let until = |text: Option<&String>| match text {
            None => Ok(i64::from(u32::MAX)),
            Some(text) => At::parse_rfc3339(text).map(At::minute).map_err(|error| wrong(&error.to_string())),
        };
        let tri = |text: Option<&String>| match text.map_or("yes", String::as_str) {
            known @ ("yes" | "no" | "unknown") => Ok(known.to_owned()),
            _ => Err(wrong("`us_person` and `us_only` are `yes`, `no` or `unknown`")),
        };
        let declared =
            self.marking.clone().map(|Declared { level, caveats, rel_to }| Marking { level, caveats, rel_to });
        let marking = effective(&terms.marking, declared.as_ref(), &ScanSummary::default());
        let who = &self.person;
        let tokens = self.tokens.unwrap_or(terms.limits.default_max_tokens);
        let network = self.network.as_ref().or_else(|| run.networks.first());
        let caveats =
            || marking.caveats.iter().filter(|caveat| !caveat.eq_ignore_ascii_case("NOFORN")).cloned().collect();
        Ok(Facts {
            route: route.to_owned(),
            pseudonym: who.name.clone().unwrap_or_else(|| "p-1".to_owned()),
            employer: who.employer.clone().unwrap_or_else(|| terms.agency.org.to_string()),
            us_person: tri(who.us_person.as_ref())?,
            us_only: tri(who.us_only.as_ref())?,
            rel_to_ok: sorted(who.rel_to_ok.clone().unwrap_or_else(|| marking.rel_to.clone())),
            clearance: who.clearance.unwrap_or(terms.marking.level),
            read_ins: sorted(who.read_ins.clone().unwrap_or_else(caveats)),
            purpose: self.purpose.clone().unwrap_or_else(|| run.purpose.clone()),
            minute,
            network: network.cloned().unwrap_or_else(|| "unknown".to_owned()),
            stream: self.stream,
            tools: sorted(self.tools.clone()),
            images: self.images,
            logprobs: self.logprobs,
            logit_bias: self.logit_bias,
            n: self.n.unwrap_or(1),
            seed: self.seed,
            prefill: self.prefill,
            reasoning: self.reasoning,
            response_format: format.to_owned(),
            tokens_asked: tokens.checked_next_multiple_of(TOKENS_STEP).unwrap_or(u64::MAX),
            named_fields: sorted(self.named_fields.clone()),
            scan_verdict: self.scan_verdict,
            scan_hits: sorted(self.scan_hits.clone()),
            model: self.model.clone().unwrap_or_else(|| terms.model.line.to_string()),
            variant: self
                .variant
                .clone()
                .or_else(|| terms.model.variants.first().map(ToString::to_string))
                .unwrap_or_default(),
            trained_until_minute: until(who.trained_until.as_ref())?,
            engaged_until_minute: until(who.engaged_until.as_ref())?,
            run: run.id.to_string(),
            marking: Some(marking),
            repeated: self.repeated,
        })
    }

    fn run_of<'a>(&self, terms: &'a Terms) -> Option<&'a RunTerms> {
        match &self.run {
            Some(id) => terms.runs.iter().find(|run| run.id.as_str() == id),
            None => terms.runs.first(),
        }
    }

    fn minute(&self) -> Result<i64, String> {
        if let Some(at) = &self.at {
            if self.weekday.is_some() || self.time.is_some() {
                return Err("`at` says day and time; leave `weekday` and `time` out".to_owned());
            }
            return At::parse_rfc3339(at).map(At::minute).map_err(|error| error.to_string());
        }
        const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        let day = match &self.weekday {
            None => 0,
            Some(name) => {
                let name = name.to_ascii_lowercase();
                let place = DAYS.iter().position(|day| *day == name).and_then(|place| i64::try_from(place).ok());
                place.ok_or("a weekday is `Monday` to `Sunday`")?
            }
        };
        let minute = match &self.time {
            None => A_MINUTE_OF_DAY,
            Some(time) => minute_of_day(time).ok_or("a time is `HH:MM`, from 00:00 to 23:59")?,
        };
        Ok(A_MONDAY.saturating_add(day.saturating_mul(1_440)).saturating_add(minute))
    }
}

fn minute_of_day(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two =
        |digits: &str| (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok());
    let (hours, minutes): (i64, i64) = (two(hours)??, two(minutes)??);
    (hours < 24 && minutes < 60).then(|| hours.saturating_mul(60).saturating_add(minutes))
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts.dedup();
    texts
}
