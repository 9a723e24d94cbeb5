//! `anteroom audit search` and `audit export`: rows of this reader's own mirror, each provable.
//!
//! **Invariant:** nothing is asked of the broker but to extend the mirror; what is shown follows from the verified copy.

use std::path::PathBuf;

use anteroom_proto::{names::CallId, time::At};
use anteroom_sdk::{
    home::Home,
    mirror::{Mirror, check::Demands},
    search::{self, Catalogue, Dimension, Group, Query, Row},
};
use clap::{Args, ValueEnum};

use crate::{
    context::Ctx,
    fail::Fail,
    mirror::{Trust, extend_own},
    output::{Format, When, view},
    progress::Bar,
    reader::instant,
};

/// Where a folder's own mirror is.
const OWN_MIRROR: &str = "mirror";

/// Which rows.
#[derive(Args, Debug, Clone)]
pub(crate) struct Filters {
    /// Calls, refusals or others
    #[arg(long, value_enum)]
    group: Option<GroupName>,
    /// Records of this kind, for example `LockSet`
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Of this grant
    #[arg(long, value_name = "GRANT")]
    grant: Option<String>,
    /// In this run
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Of this model line
    #[arg(long, value_name = "LINE")]
    line: Option<String>,
    /// Of this lab or agency
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// By this person's pseudonym, or with this certificate
    #[arg(long, value_name = "PSEUDONYM")]
    person: Option<String>,
    /// That ended so: `open`, `completed`, or a code such as `withdrawn` or `broker_denied`
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// That this rule decided
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Whose marking has this word, for example `NOFORN`
    #[arg(long, value_name = "WORD")]
    marking: Option<String>,
    /// That asked for this feature, for example `tools` or `streaming`
    #[arg(long, value_name = "FEATURE")]
    feature: Option<String>,
    /// By this route
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// This call; the gateway's `x-request-id` is the call's identifier
    #[arg(long, value_name = "CALL")]
    call: Option<CallId>,
    /// Not before this instant, RFC 3339
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<At>,
    /// Before this instant, RFC 3339
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<At>,
}

/// What kind of row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum GroupName {
    /// Admitted calls
    Call,
    /// Refused calls
    Refusal,
    /// Acts, notes and reads
    Other,
}

/// Where rows come from.
#[derive(Args, Debug)]
pub(crate) struct Source {
    /// This mirror as it is [default: the folder's own, extended first]
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    /// Ask no broker: search the folder's own mirror as it was left
    #[arg(long, conflicts_with = "mirror")]
    offline: bool,
    #[command(flatten)]
    trust: Trust,
}

/// Looks for rows.
#[derive(Args, Debug)]
pub(crate) struct Search {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    source: Source,
    /// At most so many rows, newest first
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Rows before this one: the next page, as the page before it said
    #[arg(long, value_name = "ROW")]
    before: Option<u64>,
    /// Only say how many there are
    #[arg(long, conflicts_with_all = ["by", "before"])]
    count: bool,
    /// Sum up by this instead of listing
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Sum up by intervals of so many hours
    #[arg(long, value_name = "HOURS", requires = "by", value_parser = clap::value_parser!(i64).range(1..=8760))]
    every: Option<i64>,
    /// Prove each row from its record up to the signed checkpoint before it is shown
    #[arg(long)]
    prove: bool,
}

/// By what is summed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum By {
    /// Grants
    Grant,
    /// Runs
    Run,
    /// People
    Person,
    /// Labs
    Lab,
    /// Agencies
    Agency,
    /// Model lines
    Line,
    /// How it ended
    Outcome,
    /// Rules
    Rule,
    /// Markings
    Marking,
    /// Features
    Feature,
    /// Routes
    Route,
    /// Kinds of records
    Kind,
}

view! {
    /// A row in a table.
    FoundRow {
        /// Its number, by which pages go on.
        row: u64,
        /// Index in the log.
        index: u64,
        /// The broker's clock.
        at: When,
        /// How it ended, or the record's kind.
        outcome: String,
        /// Who.
        person: String,
        /// The run.
        run: String,
        /// Tokens.
        tokens: u64,
        /// The marking.
        marking: String,
        /// The call, or the scope.
        about: String,
    }
}

view! {
    /// A sum.
    SumRow {
        /// From when on; empty for all time.
        from: String,
        /// Of what.
        of: String,
        /// Admitted calls.
        calls: u64,
        /// Of those, completed.
        completed: u64,
        /// Refusals.
        refusals: u64,
        /// Other records.
        others: u64,
        /// Tokens.
        tokens: u64,
    }
}

view! {
    /// How many.
    Counted {
        /// Records that fit, with those that were counted instead of written one by one.
        count: u64,
        /// Entries of the log that were looked through.
        entries: u64,
    }
}

impl Filters {
    /// Whether records of a kind are asked for by name.
    pub(crate) const fn names_a_kind(&self) -> bool {
        self.kind.is_some()
    }

    pub(crate) fn query(&self) -> Query {
        Query {
            group: self.group.map(|group| match group {
                GroupName::Call => Group::Call,
                GroupName::Refusal => Group::Refusal,
                GroupName::Other => Group::Other,
            }),
            kind: self.kind.clone(),
            grant: self.grant.clone(),
            run: self.run.clone(),
            line: self.line.clone(),
            org: self.org.clone(),
            person: self.person.clone(),
            outcome: self.outcome.clone(),
            rule: self.rule.clone(),
            marking: self.marking.clone(),
            feature: self.feature.clone(),
            route: self.route.clone(),
            call: self.call,
            from: self.from,
            to: self.to,
        }
    }
}

impl Source {
    /// The rows, up to date with the mirror, and whom to believe.
    pub(crate) async fn catalogue(&self, ctx: &Ctx) -> Result<(Catalogue, Demands), Fail> {
        let (mirror, demands) = self.mirror(ctx).await?;
        let mut bar = Bar::new();
        let made = Catalogue::update(&mirror, &demands, &mut |progress| bar.show(progress));
        bar.end();
        let (catalogue, indexed) = made?;
        let size = indexed.verified.checkpoint().checkpoint().size();
        ctx.out.note(&format!(
            "verified {size} entries of the log; {} rows of {} scopes, {} of them new",
            indexed.rows,
            indexed.verified.slices().len(),
            indexed.rows.saturating_sub(if indexed.anew { 0 } else { indexed.before })
        ));
        Ok((catalogue, demands))
    }

    /// Whether no broker is asked.
    pub(crate) const fn asks_nobody(&self) -> bool {
        self.offline || self.mirror.is_some()
    }

    /// The mirror as it is, whom to believe, and the folder that it is of.
    pub(crate) fn place(&self, ctx: &Ctx) -> Result<(Mirror, Demands, Option<Home>), Fail> {
        let (demands, home) = self.trust.demands(ctx)?;
        let dir = match (&self.mirror, &home) {
            (Some(dir), _) => dir.clone(),
            (None, Some(home)) => own_mirror(home),
            (None, None) => {
                return Err(Fail::Usage("without a party's folder, name a mirror with `--mirror`".to_owned()));
            }
        };
        Ok((Mirror::at(&dir), demands, home))
    }

    /// The mirror, extended first if it is the folder's own and a broker may be asked, and whom to believe.
    pub(crate) async fn mirror(&self, ctx: &Ctx) -> Result<(Mirror, Demands), Fail> {
        let (mirror, demands, home) = self.place(ctx)?;
        if let Some(home) = home.filter(|_| !self.asks_nobody()) {
            extend_own(ctx, &home, mirror.dir(), &demands).await?;
        }
        Ok((mirror, demands))
    }
}

pub(crate) async fn search(ctx: &Ctx, args: Search) -> Result<(), Fail> {
    let (catalogue, demands) = args.source.catalogue(ctx).await?;
    let query = args.filters.query();
    if args.count {
        return ctx.out.one(&Counted { count: catalogue.count(&query)?, entries: catalogue.size() });
    }
    if let Some(by) = args.by {
        return summed(ctx, &catalogue, &query, by, args.every);
    }
    let page = catalogue.search(&query, args.before, usize::from(args.limit))?;
    if args.prove {
        for row in &page.rows {
            let _ = catalogue.prove(row.row, &demands)?;
        }
        ctx.out.note(&format!("each of {} rows was proven under the signed checkpoint", page.rows.len()));
    }
    if let Some(next) = page.next {
        ctx.out.note(&format!("there is more: `--before {next}` goes on"));
    }
    if ctx.out.format() == Format::Table {
        return ctx.out.rows(&page.rows.iter().map(short).collect::<Vec<_>>());
    }
    ctx.out.values(&page.rows)
}

pub(crate) fn short(row: &Row) -> FoundRow {
    let or = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    FoundRow {
        row: row.row,
        index: row.index,
        at: row.at.into(),
        outcome: if row.outcome.is_empty() { row.kind.clone() } else { row.outcome.clone() },
        person: or(&row.person),
        run: or(&row.run),
        tokens: row.tokens,
        marking: or(&row.marking),
        about: row.call.map_or_else(|| row.scope.clone(), |call| call.to_string()),
    }
}

fn summed(ctx: &Ctx, catalogue: &Catalogue, query: &Query, by: By, every: Option<i64>) -> Result<(), Fail> {
    let by = match by {
        By::Grant => Dimension::Grant,
        By::Run => Dimension::Run,
        By::Person => Dimension::Person,
        By::Lab => Dimension::Lab,
        By::Agency => Dimension::Agency,
        By::Line => Dimension::Line,
        By::Outcome => Dimension::Outcome,
        By::Rule => Dimension::Rule,
        By::Marking => Dimension::Marking,
        By::Feature => Dimension::Feature,
        By::Route => Dimension::Route,
        By::Kind => Dimension::Kind,
    };
    let every_ms = every.unwrap_or(0).saturating_mul(anteroom_proto::time::HOUR_MS);
    let totals = catalogue.totals(query, by, every_ms)?;
    let rows = totals.buckets.into_iter().map(|((from, of), bucket)| SumRow {
        from: if every.is_some() { from.to_string() } else { String::new() },
        of,
        calls: bucket.calls,
        completed: bucket.completed,
        refusals: bucket.refusals,
        others: bucket.others,
        tokens: bucket.tokens,
    });
    ctx.out.rows(&rows.collect::<Vec<_>>())
}

/// Writes rows to a file.
#[derive(Args, Debug)]
pub(crate) struct Export {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    source: Source,
    /// How rows are written
    #[arg(long = "as", value_enum, default_value = "csv")]
    shape: Shape,
    /// The file. While it is written it is FILE.part; an export that was broken off goes on
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Shape {
    /// Comma-separated values with a head, RFC 4180
    Csv,
    /// A JSON object a line
    Jsonl,
    /// An OCSF event a line (class 6003, API Activity), one for each record, as the broker's own sinks write them
    Ocsf,
}

impl From<Shape> for search::Shape {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Csv => Self::Csv,
            Shape::Jsonl => Self::Jsonl,
            Shape::Ocsf => Self::Ocsf,
        }
    }
}

view! {
    /// What was written.
    Exported {
        /// The file.
        file: String,
        /// Rows in it.
        rows: u64,
        /// Lines that they take: as OCSF, two for a call that has ended.
        lines: u64,
        /// Entries of the log that were looked through.
        entries: u64,
        /// The log.
        origin: String,
        /// SHA-256 of the file.
        sha256: String,
    }
}

pub(crate) async fn export(ctx: &Ctx, args: Export) -> Result<(), Fail> {
    let (catalogue, demands) = args.source.catalogue(ctx).await?;
    let mut bar = Bar::new();
    let (query, shape) = (args.filters.query(), args.shape.into());
    let written = search::export(&catalogue, &demands, &query, shape, &args.out, &mut |progress| bar.show(progress));
    bar.end();
    let written = written?;
    ctx.out.one(&Exported {
        file: args.out.display().to_string(),
        rows: written.rows,
        lines: written.lines,
        entries: catalogue.size(),
        origin: demands.trust.log().name().to_string(),
        sha256: written.sha256,
    })
}

/// Where a folder's own mirror is.
pub(crate) fn own_mirror(home: &Home) -> PathBuf {
    home.dir().join(OWN_MIRROR)
}
