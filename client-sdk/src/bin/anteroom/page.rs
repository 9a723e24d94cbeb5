//! `anteroom grant page`: what the bytes that both sides sign mean, on one page.
//!
//! **Invariant:** everything on it follows from the terms' bytes and the rules of this program; terms that name other rules make no
//! page. What was written by others stands there as text and nothing else.

pub(crate) mod drawing;
pub(crate) mod html;
pub(crate) mod pdf;
pub(crate) mod text;

use std::path::Path;

use anteroom_policy::rules::{
    check, digest,
    english::{self, Rule},
};
use anteroom_proto::{
    names::Digest,
    statement::terms::{Endpoint, Terms},
    time::Window,
};

use crate::{
    context::Ctx,
    explain::{budget, features, lasting, scanner_hits},
    fail::Fail,
    policy::{check::line, source},
    statement,
};

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) title: String,
    pub(crate) sections: Vec<Section>,
}

/// A part of it under a heading.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) parts: Vec<Part>,
}

/// What stands in a section.
#[derive(Debug)]
pub(crate) enum Part {
    /// A paragraph.
    Words(String),
    /// Points, one line each.
    Points(Vec<String>),
    /// A table of names and values.
    Pairs(&'static str, Vec<(String, String)>),
    /// A table with a head.
    Table(&'static str, Vec<&'static str>, Vec<Vec<String>>),
    /// Rules in English beside their Cedar.
    Rules(Vec<Rule>),
    /// A drawing of what stands in words or a table beside it.
    Drawing(drawing::Drawing),
}

pub(crate) fn run(ctx: &Ctx, terms: &Path, out: Option<&Path>) -> Result<(), Fail> {
    let bytes = statement::json(ctx, terms)?;
    let page = of_bytes(&terms.display().to_string(), &bytes)?;
    match out {
        None => ctx.out.raw(text::render(&page).as_bytes()),
        Some(file) => {
            let failed = |why: std::io::Error| Fail::Local(format!("`{}` cannot be written: {why}", file.display()));
            std::fs::write(file, html::render(&page)).map_err(failed)?;
            ctx.out.note(&format!(
                "`{}` shows what the terms with SHA-256 {} mean",
                file.display(),
                Digest::of(&bytes)
            ));
            Ok(())
        }
    }
}

/// The page of these bytes.
fn of_bytes(what: &str, bytes: &[u8]) -> Result<Page, Fail> {
    let terms = Terms::parse(bytes).map_err(|error| Fail::Usage(format!("`{what}` holds no terms: {error}")))?;
    of(&terms, Digest::of(bytes), bytes.len())
}

/// Rules of terms as they will be in force, the lab's first.
pub(crate) fn rules(terms: &Terms) -> Result<(Vec<Rule>, Vec<Rule>), Fail> {
    // Compiled as they would be in force: rules that allow, or that do not hold, are nothing to sign.
    source::epoch(terms.clone())?;
    // What loads is signed for; what counsel would regret is shown where it can still be changed, by `check`.
    let added = english::added(&terms.policy.additions).map_err(|error| Fail::Local(error.to_string()))?;
    let base = english::baseline().map_err(|error| Fail::Local(error.to_string()))?;
    Ok((added, base))
}

/// Whether a lab should offer these rules; else why not.
pub(crate) fn checked(terms: &Terms) -> Result<(), Fail> {
    check::check(&terms.policy.additions, terms).map(|_| ()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| line("policy.additions", problem)).collect();
        Fail::Local(format!("the rules that the terms add cannot be used as they are: {}", lines.join("; ")))
    })
}

fn of(terms: &Terms, signed: Digest, bytes: usize) -> Result<Page, Fail> {
    let (added, base) = rules(terms)?;
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let section = |id: &str, title: &str, parts| Section { id: id.to_owned(), title: title.to_owned(), parts };
    let sections = vec![
        section(
            "bytes",
            "What is signed",
            vec![
                Part::Pairs(
                    "The bytes that both signatures cover",
                    vec![
                        pair("Grant", terms.grant.to_string()),
                        pair("SHA-256 of the terms", signed.to_string()),
                        pair("Length", format!("{bytes} bytes")),
                        pair("Rules digest", digest(terms).to_string()),
                    ],
                ),
                Part::Words(format!(
                    "This page was generated from those bytes. They are signed, not this page: who signs compares the SHA-256 above \
                 with the one that their own tool shows, or computes it with: head -c {bytes} terms.json | sha256sum"
                )),
            ],
        ),
        section(
            "signing",
            "What signing does, and what it does not",
            vec![
                Part::Words("Signing does this:".to_owned()),
                Part::Points(SIGNING_DOES.iter().map(ToString::to_string).collect()),
                Part::Words("Signing does not do this:".to_owned()),
                Part::Points(SIGNING_DOES_NOT.iter().map(ToString::to_string).collect()),
            ],
        ),
        section(
            "parties",
            "Parties",
            vec![
                Part::Table(
                    "Who signs, and whose keys count",
                    vec!["side", "organisation", "fingerprint of its key set"],
                    vec![
                        vec!["lab".to_owned(), terms.lab.org.to_string(), terms.lab.key_set.to_string()],
                        vec!["agency".to_owned(), terms.agency.org.to_string(), terms.agency.key_set.to_string()],
                        vec!["sponsor".to_owned(), terms.sponsor.org.to_string(), terms.sponsor.key_set.to_string()],
                    ],
                ),
                Part::Words("Compare the fingerprints with what each organisation told you in person.".to_owned()),
                Part::Pairs(
                    "What the terms rest on",
                    vec![
                        pair("Legal instrument", terms.instrument.clone()),
                        pair("Roster of people, by digest", terms.roster.to_string()),
                    ],
                ),
            ],
        ),
        section("model", "What is lent", vec![Part::Pairs("The model", model(terms))]),
        section("window", "For how long", vec![Part::Pairs("The window", window(terms))]),
        section("features", "What the model may be asked for", features_of(terms)),
        section(
            "runs",
            "Planned uses",
            vec![Part::Table(
                "Runs; a call names one, and is made for its purpose",
                vec!["run", "purpose", "budget", "networks", "content profile"],
                terms.runs.iter().map(run_row).collect(),
            )],
        ),
        section("limits", "Limits and marking", vec![Part::Pairs("Limits and marking", limits(terms))]),
        section("rules", "Rules", rules_of(added, base)),
    ];
    Ok(Page { title: format!("Terms of {}", terms.grant), sections })
}

const SIGNING_DOES: [&str; 6] = [
    "Once the lab and the agency have both signed these bytes, the people on the named roster, and automation under them, may call \
     the named model within these terms and for the stated time. What is not stated as lent is not lent.",
    "The rules below are part of the terms. Every call is judged by all of them; one that refuses wins.",
    "The lab can end the grant at any second, alone and without a reason; the agency can give it back in the same way. An end takes \
     effect on answers that are already under way, and is final.",
    "Either side can pause the grant, and can set locks that the other side cannot lift.",
    "Every call, every refusal and every act is written to a ledger that both sides, and the readers they appoint, can verify.",
    "The broker, hence whoever operates it, can read prompts and answers as they pass. They are in no record.",
];

const SIGNING_DOES_NOT: [&str; 5] = [
    "It is no duty. The programme is voluntary: nobody has to offer, accept, renew or go on.",
    "It says nothing about the model. Nothing in this system is an official verdict, and nobody but the lab decides on its release.",
    "It gives away no keys, no weights and no rights in the model, the prompts or the answers beyond the legal instrument.",
    "It cannot be stretched. No later act makes the time longer than stated or a rule weaker; that takes new terms, signed by both.",
    "It does not make a rule right: the English below is generated from the rules, and shows what they say, not what they should.",
];

fn model(terms: &Terms) -> Vec<(String, String)> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let mut pairs = vec![pair("Model line", terms.model.line.to_string())];
    let builds = terms.model.builds.iter().map(|build| pair("Build, by its manifest's digest", build.to_string()));
    pairs.extend(builds);
    let names = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    pairs.push(pair("Variants", names(terms.model.variants.iter().map(ToString::to_string).collect())));
    pairs.push(pair(
        "Lines that both state to be unrelated",
        names(terms.model.unrelated_to.iter().map(ToString::to_string).collect()),
    ));
    let through = match terms.endpoint {
        Endpoint::Connector => "the lab's own connector, which checks every call before the model sees it",
        Endpoint::Direct => {
            "the operator, which asks the lab's endpoint with a credential that the lab entrusted to it. Nothing on the lab's side \
             checks a call before the model sees it, and everything said of an answer is operator-asserted"
        }
    };
    pairs.push(pair("Reached through", through.to_owned()));
    pairs
}

fn window(terms: &Terms) -> Vec<(String, String)> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let window = &terms.window;
    let mut pairs = vec![
        pair("Length", format!("{} UTC, running without a break", lasting(window.term_ms.ms()))),
        pair(
            "Starts",
            window.start_ms.map_or_else(|| "with the first admitted call".to_owned(), |at| format!("{at} (UTC)")),
        ),
    ];
    if let Some(start) = window.start_ms {
        let ends = Window::new(start, window.term_ms, window.partner_release_ms).end();
        pairs.push(pair("Ends at the latest", format!("{ends} (UTC), that instant excluded")));
    }
    pairs.push(pair(
        "Release to partners",
        window.partner_release_ms.map_or_else(
            || "none is planned in these terms".to_owned(),
            |at| format!("planned for {at} (UTC); the window ends then if it has not ended before"),
        ),
    ));
    pairs.push(pair(
        "Cap",
        format!(
            "never beyond 720 hours UTC from the first use of this model line by any agency of the sponsor {}, whatever other \
             grants say",
            terms.sponsor.org
        ),
    ));
    pairs.push(pair("Accept by", format!("{} (UTC), or the offer lapses", window.accept_by_ms)));
    let pause = window.pause_ms_max.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    pairs.push(pair(
        "Longest pause",
        pause.map_or_else(
            || "as long as whoever paused wants; the window runs on".to_owned(),
            |ms| format!("{}, after which it ends by itself; the window runs on", lasting(ms)),
        ),
    ));
    pairs
}

fn features_of(terms: &Terms) -> Vec<Part> {
    let (granted, withheld) = features(&terms.features);
    let row = |granted: &str, name: String| vec![name, granted.to_owned()];
    let rows = granted.into_iter().map(|name| row("lent", name));
    let rows = rows.chain(withheld.into_iter().map(|name| row("not lent", name)));
    vec![Part::Table("Each feature, lent or explicitly not", vec!["feature", "lent or not"], rows.collect())]
}

fn run_row(run: &anteroom_proto::statement::terms::RunTerms) -> Vec<String> {
    let networks = if run.networks.is_empty() { "any".to_owned() } else { run.networks.join(", ") };
    vec![run.id.to_string(), run.purpose.clone(), budget(run.budget), networks, run.content_profile.clone()]
}

fn limits(terms: &Terms) -> Vec<(String, String)> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let (limits, marking) = (&terms.limits, &terms.marking);
    let level = if marking.level == 0 { "unclassified" } else { "CUI" };
    vec![
        pair("Budget of the whole grant", budget(terms.budget)),
        pair("Body of a call", format!("at most {} bytes", limits.body_bytes_max)),
        pair("Tokens of a call, prompt and answer", format!("at most {}", limits.tokens_max)),
        pair("Answer tokens where a call names none", limits.default_max_tokens.to_string()),
        pair("Tokens that an image counts for", limits.image_tokens.to_string()),
        pair("Confidentiality of everything under the grant", format!("at least {level}")),
        pair("Caveats", list(&marking.caveats)),
        pair("REL TO", list(&marking.rel_to)),
        pair("A scanner's lock hits", scanner_hits(terms).to_owned()),
    ]
}

fn rules_of(added: Vec<Rule>, base: Vec<Rule>) -> Vec<Part> {
    let mut parts = vec![Part::Words(
        "A call passes if the rule \"grant\" allows it and no other rule refuses it. The English is generated from the Cedar beside \
         it; the Cedar is what is in force."
            .to_owned(),
    )];
    if added.is_empty() {
        parts.push(Part::Words("The lab adds no rules in these terms.".to_owned()));
    } else {
        parts.push(Part::Words(format!("The lab adds {} rules, which can only refuse:", added.len())));
        parts.push(Part::Rules(added));
    }
    parts.push(Part::Words(format!("The baseline's {} rules, which every grant has:", base.len())));
    parts.push(Part::Rules(base));
    parts
}

#[cfg(test)]
mod tests;
