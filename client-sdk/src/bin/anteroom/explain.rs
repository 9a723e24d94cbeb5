//! What terms mean, in words: what somebody reads before they sign.

use anteroom_policy::rules::{english, plain::visible};
use anteroom_proto::{
    statement::terms::{Budget, Features, ScannerLocks, Terms},
    time::HOUR_MS,
};

/// Terms as lines of name and meaning. Everything that can be granted is named, also where it is not.
pub(crate) fn explain(terms: &Terms) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut say = |name: &str, meaning: String| lines.push((name.to_owned(), visible(&meaning, false)));
    let joined = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    say("grant", terms.grant.to_string());
    say("lab", format!("{} (key set {})", terms.lab.org, terms.lab.key_set));
    say("agency", format!("{} (key set {})", terms.agency.org, terms.agency.key_set));
    say("sponsor", format!("{}, whose agencies share one clock per model line", terms.sponsor.org));
    say("instrument", terms.instrument.clone());
    say("model line", terms.model.line.to_string());
    for build in &terms.model.builds {
        say("build", build.to_string());
    }
    let variants: Vec<String> = terms.model.variants.iter().map(ToString::to_string).collect();
    say("variants", joined(&variants));
    let unrelated: Vec<String> = terms.model.unrelated_to.iter().map(ToString::to_string).collect();
    say("stated as unrelated", joined(&unrelated));
    for (name, meaning) in window(terms) {
        say(name, meaning);
    }
    let (granted, withheld) = features(&terms.features);
    say("may be asked for", joined(&granted));
    say("may not be asked for", joined(&withheld));
    say("roster", terms.roster.to_string());
    for run in &terms.runs {
        let networks = if run.networks.is_empty() { "any network".to_owned() } else { run.networks.join(", ") };
        let meaning =
            format!("{}; {}; {networks}; content profile {}", run.purpose, budget(run.budget), run.content_profile);
        say(&format!("run {}", run.id), meaning);
    }
    say("whole budget", budget(terms.budget));
    let limits = &terms.limits;
    say(
        "each call",
        format!(
            "at most {} bytes, {} tokens; {} output tokens where it names none",
            limits.body_bytes_max, limits.tokens_max, limits.default_max_tokens
        ),
    );
    let level = if terms.marking.level == 0 { "unclassified" } else { "CUI" };
    let caveats = joined(&terms.marking.caveats);
    say("marking", format!("{level}; caveats: {caveats}; REL TO: {}", joined(&terms.marking.rel_to)));
    say("rules", format!("baseline {}", terms.policy.baseline));
    let added = english::added(&terms.policy.additions).map_or_else(
        |error| format!("cannot be read: {error}"),
        |rules| {
            let ids: Vec<String> = rules.into_iter().map(|rule| rule.id).collect();
            if ids.is_empty() { "none".to_owned() } else { format!("{}, which only refuse", ids.join(", ")) }
        },
    );
    say("rules added by the lab", added);
    say("a scanner's lock hits", scanner_hits(terms).to_owned());
    lines
}

/// What a scanner's lock hits.
pub(crate) const fn scanner_hits(terms: &Terms) -> &'static str {
    match terms.scanner_locks {
        ScannerLocks::Run => "the run",
        ScannerLocks::Person => "the person",
        ScannerLocks::Grant => "the whole grant",
    }
}

/// A length of time, to the millisecond where it is not whole.
pub(crate) fn lasting(ms: i64) -> String {
    let parts = [
        (ms / HOUR_MS, "hour"),
        (ms % HOUR_MS / 60_000, "minute"),
        (ms % 60_000 / 1_000, "second"),
        (ms % 1_000, "millisecond"),
    ];
    let many = |number: i64| if number == 1 { "" } else { "s" };
    let said: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, name)| format!("{number} {name}{}", many(*number)))
        .collect();
    match said.split_last() {
        None => "no time".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
    }
}

fn window(terms: &Terms) -> Vec<(&'static str, String)> {
    let window = &terms.window;
    let start = window.start_ms.map_or_else(|| "the first admitted call".to_owned(), |at| at.to_string());
    let length = lasting(window.term_ms.ms());
    let release = window.partner_release_ms.map_or_else(|| "not planned".to_owned(), |at| at.to_string());
    let pause = match window.pause_ms_max {
        Some(ms) => format!("{} at most, then it ends by itself", lasting(i64::try_from(ms).unwrap_or(i64::MAX))),
        None => "not bounded".to_owned(),
    };
    vec![
        ("starts with", start),
        ("lasts", format!("{length} UTC, and never beyond 720 hours on the line's clock")),
        ("partner release", release),
        ("accept by", window.accept_by_ms.to_string()),
        ("a pause lasts", pause),
        ("ends early", "by the lab's withdrawal or the agency's giving back, each alone and at once".to_owned()),
    ]
}

/// A budget in words.
pub(crate) fn budget(budget: Budget) -> String {
    format!("{} calls, {} tokens, {} at once", budget.calls, budget.tokens, budget.open)
}

/// What is granted, and what is not.
pub(crate) fn features(features: &Features) -> (Vec<String>, Vec<String>) {
    let Features {
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
    } = features;
    let count =
        |number: u32, name: &str| (number > 0, if number > 0 { format!("{number} {name}") } else { name.to_owned() });
    let list = |items: &[String], name: &str| {
        (!items.is_empty(), if items.is_empty() { name.to_owned() } else { format!("{name} ({})", items.join(", ")) })
    };
    let flag = |on: bool, name: &str| (on, name.to_owned());
    let all = [
        flag(*chat, "chat"),
        flag(*completions, "completions"),
        flag(*embeddings, "embeddings"),
        flag(*responses, "responses"),
        flag(*messages, "messages"),
        flag(*streaming, "streaming"),
        list(tools, "tools"),
        count(*images, "images per call"),
        count(*logprobs, "log-probabilities per token"),
        flag(*logit_bias, "logit bias"),
        (*n > 1, if *n > 1 { format!("{n} answers per call") } else { "several answers per call".to_owned() }),
        flag(*seed, "seed"),
        flag(*prefill, "prefill"),
        flag(*reasoning, "raw reasoning"),
        flag(*response_format, "structured output"),
        list(named_fields, "other body fields"),
    ];
    let (granted, withheld): (Vec<_>, Vec<_>) = all.into_iter().partition(|(on, _)| *on);
    let names = |items: Vec<(bool, String)>| items.into_iter().map(|(_, name)| name).collect();
    (names(granted), names(withheld))
}
