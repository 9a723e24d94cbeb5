//! `anteroom drill`: what an end takes, found out on a live system with a grant of the drill's own or one that is given up for it.
//!
//! **Invariant:** a grant in force is withdrawn only after its name was typed or `--yes` said, and no grant that a drill made stays open
//! without being named, with the command that withdraws it.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anteroom_proto::names::{Digest, GrantId, ModelLine, OrgId, Pseudonym};
use anteroom_sdk::{
    drill::{self, DrillError, Left, Measured, Plan, Stage, Synthetic},
    error::{Error, RefusalClass, Refused},
    home::{Home, HomeError},
};
use clap::{Args, Subcommand};

use crate::{
    confirm::{confirm_end, somebody},
    context::Ctx,
    fail::Fail,
    gateway::quoted,
    output::clean,
    serve::signal,
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom drill withdraw --lab ./lab-a --agency ./agency-a --line reading-room     # a grant of the drill's own, for an hour at most
  anteroom drill withdraw --lab ./lab-a --agency ./agency-a --line reading-room --streams 64 --format json
  anteroom drill withdraw --lab ./lab-a --agency ./agency-a --grant GRANT           # ends this grant, for good
  anteroom drill withdraw --lab ./lab-a --agency ./agency-a --grant GRANT --yes --out drills.jsonl

It needs both parties' folders and a connector that serves the line. Streams are opened as the agency's evaluator, the lab withdraws with
its stop key while they run, and one clock measures both sides. Exit code 1 says that something did not hold.";

/// What lies in the lab's folder.
const RECORD: &str = "drills.jsonl";
/// How long a grant that an interrupted drill made is tried to be withdrawn.
const END_MAX: Duration = Duration::from_secs(20);

/// Drills.
#[derive(Subcommand)]
pub(crate) enum Drill {
    /// Withdraw a grant while streams run under it, and measure how long each part takes
    Withdraw(Box<Withdraw>),
}

/// A drill of a withdrawal.
#[derive(Args)]
pub(crate) struct Withdraw {
    /// The lab's folder
    #[arg(long, value_name = "DIR")]
    lab: PathBuf,
    /// The agency's folder
    #[arg(long, value_name = "DIR")]
    agency: PathBuf,
    /// A grant in force that is given up for the drill; the drill ends it for good
    #[arg(long, required_unless_present = "line", conflicts_with = "line")]
    grant: Option<GrantId>,
    /// The lab's line that a grant is made for, which nobody else uses
    #[arg(long)]
    line: Option<ModelLine>,
    /// Streams, 1 to 256
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    streams: u16,
    /// Tokens that each answer may come to: it has to outlast the drill
    #[arg(long, default_value = "4096", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    max_tokens: u32,
    /// Add what was measured to this file [default: drills.jsonl in the lab's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not ask before a grant in force is withdrawn
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    made: Made,
}

/// What a grant of the drill's own is made of, where the folders do not say.
#[derive(Args)]
#[command(next_help_heading = "With --line")]
struct Made {
    /// Go on although no grant of the line has begun: the drill's first call starts its 720 hours
    #[arg(long, conflicts_with = "grant")]
    starts_clock: bool,
    /// Digest of the manifest of the build that a connector serves [default: the newest of the line]
    #[arg(long, value_name = "DIGEST", conflicts_with = "grant")]
    build: Option<Digest>,
    /// The agency's roster [default: the newest that its folder keeps]
    #[arg(long, value_name = "DIGEST", conflicts_with = "grant")]
    roster: Option<Digest>,
    /// Who lets the workload act [default: the first on the roster whose key is in the agency's folder]
    #[arg(long, value_name = "PSEUDONYM", conflicts_with = "grant")]
    person: Option<Pseudonym>,
    /// The sponsor whose clock counts [default: as in the line's newest terms, else the agency itself]
    #[arg(long, value_name = "ORG", conflicts_with = "grant")]
    sponsor: Option<OrgId>,
    /// This lab's other lines that both sides state to be unrelated [default: as in the line's newest terms]
    #[arg(long = "unrelated-to", value_name = "LINE", conflicts_with = "grant")]
    unrelated_to: Vec<ModelLine>,
}

pub(crate) async fn run(ctx: &Ctx, verb: Drill) -> Result<(), Fail> {
    let Drill::Withdraw(args) = verb;
    withdraw(ctx, *args).await
}

async fn withdraw(ctx: &Ctx, args: Withdraw) -> Result<(), Fail> {
    let Withdraw { lab: dir, agency, grant: given, line, streams, max_tokens, out, yes, made } = args;
    let (lab, agency) = (ctx.party(&dir)?, ctx.party(&agency)?);
    let out = out.unwrap_or_else(|| dir.join(RECORD));
    let (left, told) = (Left::default(), Mutex::new(0));
    let tell = |stage: &Stage| progress(ctx, &told, stage);
    let plan = Plan { streams: usize::from(streams), max_tokens: u64::from(max_tokens) };
    let drill = drill::Drill { lab: &lab, agency: &agency, plan, left: &left, tell: &tell };
    if let Some(grant) = given {
        // What cannot be drilled is said before anybody types anything.
        drill.check(grant).await?;
        if !yes {
            ask(&lab, grant, streams)?;
        }
    }
    let end = signal()?;
    let going = async {
        let grant = match (given, line) {
            (Some(grant), _) => grant,
            (None, Some(line)) => drill.make(&synthetic(line, made)).await?,
            (None, None) => return Err(Fail::Usage("name a grant with `--grant`, or a line with `--line`".to_owned())),
        };
        Ok(drill.withdraw(grant).await?)
    };
    let done = tokio::select! {
        done = going => done,
        () = end => Err(Fail::Local(interrupted(given, &left, &dir))),
    };
    // Whatever came of it, nothing that was made here stays open.
    leave(ctx, &lab, &dir, &left).await;
    let measured = done?;
    let noted = measured.note(&out);
    ctx.out.told(&pairs(&measured), &measured)?;
    noted?;
    judge(ctx, &measured, &out)
}

fn synthetic(line: ModelLine, made: Made) -> Synthetic {
    let Made { starts_clock, build, roster, person, sponsor, unrelated_to } = made;
    Synthetic { line, build, roster, person, sponsor, unrelated_to, starts_clock }
}

/// Nobody loses a grant by a slip.
fn ask(lab: &Home, grant: GrantId, streams: u16) -> Result<(), Fail> {
    if !somebody() {
        return Err(Fail::Usage(
            "nobody is here to confirm that a grant in force is withdrawn for good; read `anteroom grant show GRANT`, then add \
             `--yes`, or drill a grant of the drill's own with `--line`"
                .to_owned(),
        ));
    }
    let of = match lab.terms(grant)? {
        Some(terms) => format!(" of `{}` to `{}`", terms.model.line, terms.agency.org),
        None => String::new(),
    };
    confirm_end(grant, &format!("The drill opens {streams} streams and withdraws {grant}{of}."))
}

/// A line for each step; of the many that say how many streams deliver, one in eight and the last.
fn progress(ctx: &Ctx, told: &Mutex<usize>, stage: &Stage) {
    if let Stage::Delivering(count, all) = stage {
        let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if count < all && *count < *told + all.div_ceil(8).max(8) {
            return;
        }
        *told = *count;
    }
    ctx.out.note(&clean(&stage.to_string()));
}

fn interrupted(given: Option<GrantId>, left: &Left, lab: &Path) -> String {
    match given {
        Some(grant) if left.sent() => {
            format!(
                "interrupted after the withdrawal of {grant} was sent; `{}` says whether it is on record",
                show(lab, grant)
            )
        }
        Some(grant) => format!("interrupted: {grant} was not withdrawn; its open streams were closed"),
        None => "interrupted".to_owned(),
    }
}

/// Withdraws a grant that the drill made and did not come to withdraw; says how, if that fails.
async fn leave(ctx: &Ctx, lab: &Home, dir: &Path, left: &Left) {
    let Some(grant) = left.open() else { return };
    let by_hand = format!("anteroom --home {} grant withdraw {grant} --reason '{}'", dir_of(dir), drill::REASON);
    ctx.out.note(&format!("{grant} was made by this drill and may be open; withdrawing it (by hand: `{by_hand}`)"));
    let why = match tokio::time::timeout(END_MAX, drill::withdraw(lab, grant)).await {
        Ok(Ok(recorded)) => {
            let index = recorded.record.header().index;
            return ctx.out.note(&format!("{grant} is withdrawn, record {index}"));
        }
        // An offer that never arrived needs no end.
        Ok(Err(DrillError::Home(error))) if code_of(&error).is_some_and(|code| code == "grant_unknown") => {
            return ctx.out.note(&format!("{grant} never came to be offered"));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the broker did not answer in time".to_owned(),
    };
    ctx.out.note(&format!("{grant} is NOT withdrawn: {}; run `{by_hand}`", clean(&why)));
}

fn code_of(error: &HomeError) -> Option<&str> {
    let HomeError::Sdk(error) = error else { return None };
    error.refused().map(|refused| refused.code.as_str())
}

fn dir_of(dir: &Path) -> String {
    quoted(&dir.display().to_string())
}

fn show(lab: &Path, grant: GrantId) -> String {
    format!("anteroom --home {} grant show {grant}", dir_of(lab))
}

fn pairs(measured: &Measured) -> Vec<(String, String)> {
    let length = |ms: f64| format!("{ms:.1} ms");
    let maybe = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), length);
    let made = if measured.synthetic { ", made for this drill" } else { "" };
    let asked = measured.asked_again.iter().map(|one| {
        let code = one.code.as_deref().unwrap_or("PASSED");
        if measured.asked_again.len() > 1 { format!("{code} at {}", one.broker) } else { code.to_owned() }
    });
    let after = match (measured.events_after_answer, measured.handed_over_after) {
        (0, 0) => "none".to_owned(),
        (read, 0) => format!("{read} read here, all of them on record as handed over before: they were on their way"),
        (read, over) => format!("{read} read here, {over} of them NOT on record as handed over before"),
    };
    [
        ("drill", format!("{} of {}{made}", measured.drill, measured.grant)),
        ("at", measured.at().to_string()),
        ("lent", format!("`{}` by {} to {}", measured.line, measured.lab, measured.agency)),
        ("brokers", measured.brokers.join(" ")),
        ("withdrawn at", format!("{}, record {}", measured.withdrawn_at, measured.record)),
        (
            "streams",
            format!(
                "{} over {} connections, delivering after {}",
                measured.streams,
                measured.connections,
                length(measured.open_ms)
            ),
        ),
        (
            "answer",
            format!("{}, held against the log after {}", length(measured.answer_ms), length(measured.proven_ms)),
        ),
        ("streams told", format!("p50 {}, max {}", maybe(measured.told_ms.p50), maybe(measured.told_ms.max))),
        ("cut", format!("{} of {}, {} of them by a reset", measured.cut, measured.streams, measured.reset)),
        ("last event", maybe(measured.last_event_ms)),
        ("after the answer", after),
        ("one more call", asked.collect::<Vec<_>>().join(", ")),
        ("holds", if measured.holds { "yes".to_owned() } else { "NO".to_owned() }),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), clean(&value)))
    .chain(measured.faults.iter().map(|fault| ("fault".to_owned(), clean(fault))))
    .collect()
}

fn judge(ctx: &Ctx, measured: &Measured, out: &Path) -> Result<(), Fail> {
    ctx.out.note(&format!("recorded in {}", dir_of(out)));
    let Some(first) = measured.faults.first() else { return Ok(()) };
    let more = match measured.faults.len() {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    Err(Fail::Local(format!(
        "the drill did not hold: {}{more}; `Drilling a withdrawal` in deploy/RUNBOOK.md says what to look at",
        clean(first)
    )))
}

impl From<DrillError> for Fail {
    fn from(error: DrillError) -> Self {
        let text = error.to_string();
        let denied = |text: String, next: &str| Self::Denied { text, next: next.to_owned() };
        match error {
            DrillError::Home(error) => error.into(),
            DrillError::NotInForce { grant, phase } => Error::Refused(Box::new(Refused {
                code: format!("grant_{}", if phase == "offered" { "not_accepted" } else { phase.as_str() }),
                text,
                grant: Some(grant),
                at: None,
                next: Some("name a grant in force, or drill one of the drill's own with `--line LINE`".to_owned()),
                status: tonic::Code::FailedPrecondition,
                retry_after: None,
            }))
            .into(),
            DrillError::Party { .. } | DrillError::NotLent => denied(
                text,
                "`anteroom grant show GRANT` says who and what; or drill one of the drill's own with `--line LINE`",
            ),
            DrillError::Few { .. } => {
                denied(text, "ask for fewer `--streams`, or drill one of the drill's own with `--line LINE`")
            }
            DrillError::StartsClock { .. } => denied(
                text,
                "drill on a line that is lent already, or, if its 720 hours may begin now, repeat with `--starts-clock`",
            ),
            DrillError::Short(_) => denied(text, "repeat with a larger `--max-tokens`, or fewer `--streams`"),
            DrillError::Unopened { why, .. } => {
                let look =
                    "`anteroom doctor GRANT` in the agency's folder, and `anteroom lab status` in the lab's, say why";
                match why.as_ref().and_then(|why| why.refused()).map(Refused::class) {
                    Some(RefusalClass::Later | RefusalClass::Unavailable) | None => {
                        Self::NotYet(format!("{text}; {look}"))
                    }
                    Some(RefusalClass::Denied | RefusalClass::Ended) => denied(text, look),
                }
            }
            DrillError::Missing(_) | DrillError::NoBroker(_) | DrillError::File { .. } => Self::Local(text),
            DrillError::Unrecorded { grant, .. } => Self::Local(format!(
                "{text}; run `anteroom grant withdraw {grant} --reason drill` in the lab's folder until it is"
            )),
        }
    }
}
