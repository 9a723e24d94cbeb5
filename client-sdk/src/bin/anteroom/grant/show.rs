//! `anteroom grant show`: how much is left and of what, who may use it, what answers, and what its terms mean.

use anteroom_proto::{
    names::{Digest, GrantId},
    rpc::{BudgetLine, Dossier, GrantSummary},
    statement::{
        model::Manifest,
        roster::{Person, Roster},
        terms::Terms,
    },
    time::At,
};
use anteroom_sdk::{home::Use, system};
use serde::Serialize;

use crate::{
    act,
    builds::Builds,
    context::Ctx,
    explain::{explain, lasting},
    fail::Fail,
    output::{When, clean},
    summary::{GrantRow, brief},
};

/// Width of the bar of time in characters.
const BAR_WIDTH: i64 = 40;

/// A grant as shown.
#[derive(Serialize)]
struct Shown {
    /// How it stands, on the broker's word.
    standing: GrantRow,
    /// How much of its time is left, on the broker's word and by this machine's clock; absent while the window is not fixed.
    time: Option<TimeLeft>,
    /// Each budget, on the broker's word.
    budgets: Vec<Budget>,
    /// Who is on the roster that the terms name.
    people: Vec<Rostered>,
    /// Builds that the terms name, by the lab's manifests.
    named_builds: Vec<Build>,
    /// The builds that answer and what changed, verified; absent before the acceptance.
    builds: Option<Builds>,
    /// Whose word stands behind an answer: `lab-asserted` or `operator-asserted`.
    answers_are: &'static str,
    /// What was verified: `offer` (terms and the lab's signatures) or `dossier` (everything both sides signed).
    verified: &'static str,
    /// Digest of the terms' bytes.
    terms_digest: String,
    /// The terms.
    terms: Terms,
}

/// How far a window is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
struct TimeLeft {
    window_ms: i64,
    left_ms: i64,
}

impl TimeLeft {
    fn of(summary: &GrantSummary, now: At) -> Option<Self> {
        if summary.end_ms == 0 {
            return None;
        }
        let (start, end) = (At::clamped(summary.start_ms), At::clamped(summary.end_ms));
        let window_ms = end.since(start).max(0);
        Some(Self { window_ms, left_ms: end.since(now).clamp(0, window_ms) })
    }

    /// `#` is what is gone.
    fn words(self) -> String {
        let gone = self.window_ms.saturating_sub(self.left_ms).saturating_mul(BAR_WIDTH);
        let gone = gone.checked_div(self.window_ms).unwrap_or(BAR_WIDTH);
        let bar: String = (0..BAR_WIDTH).map(|at| if at < gone { '#' } else { '.' }).collect();
        format!("[{bar}] {} left of {}", brief(self.left_ms), lasting(self.window_ms))
    }
}

/// A budget.
#[derive(Serialize)]
struct Budget {
    /// `calls`, `tokens` or `streams`, with `run/<id>/` in front where it is a run's own.
    name: String,
    limit: u64,
    used: u64,
    held: u64,
    left: u64,
}

impl Budget {
    fn of(line: &BudgetLine) -> Self {
        let left = line.limit.saturating_sub(line.settled).saturating_sub(line.held);
        Self { name: line.name.clone(), limit: line.limit, used: line.settled, held: line.held, left }
    }

    fn words(&self) -> String {
        format!("{} left of {}; {} used, {} held by calls under way", self.left, self.limit, self.used, self.held)
    }
}

/// Somebody on the roster.
#[derive(Serialize)]
struct Rostered {
    pseudonym: String,
    employer: String,
    us_person: &'static str,
    us_only: &'static str,
    clearance: u32,
    valid_until: When,
    trained_until: When,
}

impl Rostered {
    fn of(person: &Person) -> Self {
        Self {
            pseudonym: person.pseudonym.to_string(),
            employer: person.employer.clone(),
            us_person: person.us_person.as_str(),
            us_only: person.us_only.as_str(),
            clearance: person.clearance,
            valid_until: person.valid_until_ms.into(),
            trained_until: person.trained_until_ms.into(),
        }
    }

    fn words(&self, now: At) -> String {
        let until = |what: &str, when: When| {
            let past = if At::from(when) <= now { ", which is over" } else { "" };
            format!("{what} until {when}{past}")
        };
        format!(
            "{}; U.S. person: {}; U.S. citizen alone: {}; {}; {}",
            clean(&self.employer),
            self.us_person,
            self.us_only,
            until("engaged", self.valid_until),
            until("trained", self.trained_until)
        )
    }
}

/// A build that the terms name.
#[derive(Serialize)]
struct Build {
    manifest: String,
    /// The lab's name for it; absent if the broker did not show the manifest.
    name: Option<String>,
    variants: Vec<String>,
}

/// The builds that terms name, with what the manifests say that are really theirs.
fn builds(terms: &Terms, manifests: &[Vec<u8>]) -> Vec<Build> {
    let known = |build: &Digest| {
        let bytes = manifests.iter().find(|bytes| Digest::of(bytes) == *build)?;
        Manifest::parse(bytes).ok()
    };
    let shown = |build: &Digest| {
        let manifest = known(build);
        Build {
            manifest: build.to_string(),
            name: manifest.as_ref().map(|manifest| manifest.build.clone()),
            variants: manifest
                .map(|manifest| manifest.variants.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
        }
    };
    terms.model.builds.iter().map(shown).collect()
}

/// The people on the roster that the terms name; the broker may show no other.
fn people(terms: &Terms, dossier: &Dossier) -> Result<Vec<Rostered>, Fail> {
    let Some(statement) = &dossier.roster else { return Ok(Vec::new()) };
    if Digest::of(&statement.payload) != terms.roster {
        return Err(Fail::Verification("the broker shows another roster than the terms name".to_owned()));
    }
    Ok(Roster::parse(statement)?.people.iter().map(Rostered::of).collect())
}

pub(super) async fn run(ctx: &Ctx, grant: GrantId, raw: bool) -> Result<(), Fail> {
    let home = ctx.home()?;
    let channel = home.channel(Use::Act).await?;
    let dossier = home.fetch_dossier(&channel, grant).await?;
    let now = system::now();
    let (verified, digest, answering) = if dossier.acceptance.is_some() {
        let held = home.take_dossier(&dossier)?;
        ("dossier", held.terms_digest(), Some(Builds::of(&held, now)))
    } else {
        ("offer", home.take_offer(&dossier)?.terms_digest(), None)
    };
    if raw {
        return ctx.out.raw(&dossier.terms);
    }
    let terms = Terms::parse(&dossier.terms)?;
    let (people, named_builds) = (people(&terms, &dossier)?, builds(&terms, &dossier.manifests));
    let summary = dossier.summary.unwrap_or_default();
    let shown = Shown {
        standing: GrantRow::new(&summary),
        time: TimeLeft::of(&summary, now),
        budgets: summary.budgets.iter().map(Budget::of).collect(),
        people,
        named_builds,
        builds: answering,
        answers_are: terms.endpoint.asserted_by(),
        verified,
        terms_digest: digest.to_string(),
        terms,
    };
    ctx.out.told(&pairs(&shown, &summary, now), &shown)
}

fn pairs(shown: &Shown, summary: &GrantSummary, now: At) -> Vec<(String, String)> {
    let standing = &shown.standing;
    let window = |at: Option<When>| at.map_or_else(|| "not fixed".to_owned(), |at| at.to_string());
    let mut pairs = Vec::new();
    let mut say = |name: &str, value: String| pairs.push((clean(name), value));
    say("phase", clean(&standing.phase));
    say("window starts", window(standing.start));
    say("window ends", window(standing.end));
    let whole = || format!("{}, once it has begun", lasting(shown.terms.window.term_ms.ms()));
    say("time left", shown.time.map_or_else(whole, TimeLeft::words));
    let uncounted = || "this broker does not count it".to_owned();
    say("time lost", standing.lost.map_or_else(uncounted, |lost| lost.words()));
    for budget in &shown.budgets {
        say(&budget.name, budget.words());
    }
    say("slots open", standing.slots.to_string());
    for person in &shown.people {
        say(&format!("person {}", person.pseudonym), person.words(now));
    }
    for build in &shown.named_builds {
        let name = build.name.as_ref().map_or_else(|| "its manifest was not shown".to_owned(), |name| clean(name));
        say(
            "build in the terms",
            format!("{name}; variants {}; manifest {}", build.variants.join(", "), build.manifest),
        );
    }
    let verified = format!(
        "the {}, under the pinned fingerprints; what stands above the people is the broker's word",
        shown.verified
    );
    for (name, value) in shown.builds.iter().flat_map(Builds::lines) {
        say(&name, value);
    }
    say("answers are", shown.answers_are.to_owned());
    say("verified", verified);
    say("terms", shown.terms_digest.clone());
    say("rules in force", act::hex(&summary.rules_digest));
    pairs.extend(explain(&shown.terms));
    pairs
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::policy::sample;

    #[test]
    fn the_bar_of_time_fills_as_the_window_goes_by_and_never_overflows() {
        let summary = GrantSummary { start_ms: 1_000, end_ms: 1_000 + 720 * 3_600_000, ..GrantSummary::default() };
        let at = |hours: i64| {
            let now = At::clamped(1_000 + hours * 3_600_000);
            TimeLeft::of(&summary, now).map(TimeLeft::words).unwrap()
        };
        assert_eq!(at(0), format!("[{}] 720 h 0 min left of 720 hours", ".".repeat(40)));
        assert_eq!(at(180), format!("[{}{}] 540 h 0 min left of 720 hours", "#".repeat(10), ".".repeat(30)));
        assert_eq!(at(900), format!("[{}] 0 s left of 720 hours", "#".repeat(40)));
        assert_eq!(at(-10), at(0), "before it begins all is left");
        assert_eq!(TimeLeft::of(&GrantSummary::default(), At::clamped(5)), None);
    }

    #[test]
    fn what_calls_hold_is_not_left() {
        let line = BudgetLine { name: "calls".to_owned(), limit: 10, settled: 3, held: 2 };
        assert_eq!(Budget::of(&line).words(), "5 left of 10; 3 used, 2 held by calls under way");
        let over = BudgetLine { name: "calls".to_owned(), limit: 1, settled: 3, held: 2 };
        assert_eq!(Budget::of(&over).left, 0);
    }

    #[test]
    fn another_roster_or_manifest_than_the_terms_name_is_not_shown() {
        let terms = sample::terms().unwrap();
        let mut dossier = Dossier::default();
        assert!(people(&terms, &dossier).unwrap().is_empty());
        dossier.roster = Some(anteroom_proto::rpc::SignedStatement::default());
        assert!(people(&terms, &dossier).err().unwrap().is_verification());
        let shown = builds(&terms, &[b"{}".to_vec()]);
        assert!(!shown.is_empty() && shown.iter().all(|build| build.name.is_none()));
    }
}
