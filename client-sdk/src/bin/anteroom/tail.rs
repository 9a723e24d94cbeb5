//! `anteroom audit tail`: rows of this reader's mirror as they come, each verified before it is shown.
//!
//! **Invariant:** nothing is printed of a round that does not hold; such a round ends the command.

use std::{convert::Infallible, time::Duration};

use anteroom_proto::time::At;
use anteroom_sdk::{
    home::Home,
    mirror::check::Demands,
    search::{Catalogue, Indexed, Lines, Live, Query, Row, SearchError, Shape},
};
use clap::{Args, ValueEnum};
use tokio::sync::oneshot;

use crate::{
    context::Ctx,
    fail::Fail,
    mirror::extend_own,
    output::{Format, clean},
    progress::Bar,
    reader::instant,
    search::{Filters, Source, short},
    serve::signal,
};

/// Rows that are printed together.
const ROWS: usize = 1_000;
/// Records of reading, this command's own among them.
const READS: &str = "ReadOpened";

/// Shows rows as they come.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    source: Source,
    /// Begin with rows from this instant on, RFC 3339 [default: with what comes from now on]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    since: Option<At>,
    /// How rows are written, in place of what `--format` says
    #[arg(long = "as", value_enum)]
    shape: Option<TailShape>,
    /// How often to look, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum TailShape {
    /// A JSON object a line
    Jsonl,
    /// An OCSF event a line (class 6003, API Activity)
    Ocsf,
}

pub(crate) async fn run(ctx: &Ctx, args: Tail) -> Result<(), Fail> {
    let end = signal()?;
    tokio::select! {
        () = end => Ok(()),
        failed = follow(ctx, &args) => failed.map(|never| match never {}),
    }
}

/// Goes round and round until something fails that will not pass.
async fn follow(ctx: &Ctx, args: &Tail) -> Result<Infallible, Fail> {
    let (mirror, demands, home) = args.source.place(ctx)?;
    let home = home.filter(|_| !args.source.asks_nobody());
    let mut live = Live::new(mirror.clone(), demands.clone());
    let mut tail = Printed { ctx, args, demands: demands.clone(), size: None };
    let (mut quiet, mut away) = (0, false);
    loop {
        let came = match &home {
            Some(home) => extended(ctx, home, &mirror, &demands, &mut quiet).await,
            None => Ok(true),
        };
        let (came, mut trouble) = match came {
            Ok(came) => (came, None),
            Err(fail) if fail.may_pass() => (false, Some(fail)),
            Err(fail) => return Err(fail),
        };
        // What is here already is shown even if nobody can be asked for more.
        if came || tail.size.is_none() {
            let (back, made) = verified(live).await?;
            live = back;
            match made.map_err(Fail::from) {
                Ok((catalogue, indexed)) => tail.print(&catalogue, &indexed)?,
                Err(fail) if fail.may_pass() && home.is_some() => trouble = trouble.or(Some(fail)),
                Err(fail) => return Err(fail),
            }
        }
        match &trouble {
            Some(fail) if !away => {
                ctx.out.note(&format!("{}; tried again every {} s", clean(&fail.text()), args.every));
            }
            None if away => ctx.out.note("it goes on"),
            Some(_) | None => {}
        }
        away = trouble.is_some();
        tokio::time::sleep(Duration::from_secs(args.every)).await;
    }
}

/// Brings the folder's own mirror up to date; `false` if nothing came but what was read by this command. `quiet` is the log's size up to
/// which that is so.
async fn extended(
    ctx: &Ctx,
    home: &Home,
    mirror: &anteroom_sdk::mirror::Mirror,
    demands: &Demands,
    quiet: &mut u64,
) -> Result<bool, Fail> {
    let size = home.auditor().await?.checkpoint().await?.checkpoint().size();
    if size <= *quiet {
        return Ok(false);
    }
    extend_own(ctx, home, mirror.dir(), demands).await?;
    let reads = mirror.scopes()?.len() as u64;
    let after = home.auditor().await?.checkpoint().await?.checkpoint().size();
    let mirrored = mirror.checkpoint(&demands.trust)?.checkpoint().size();
    // Each reading is a record at most, and others' records may have come meanwhile.
    *quiet = after.min(mirrored.saturating_add(reads));
    Ok(true)
}

/// Verifies what is new, on a thread of its own which the end of the command need not wait for.
async fn verified(mut live: Live) -> Result<(Live, Result<(Catalogue, Indexed), SearchError>), Fail> {
    let (done, made) = oneshot::channel();
    let work = move || {
        let mut bar = Bar::new();
        let made = live.update(&mut |progress| bar.show(progress));
        bar.end();
        // Whoever asked may be gone.
        let _ = done.send((live, made));
    };
    std::thread::Builder::new().name("verify".to_owned()).spawn(work)?;
    made.await.map_err(|_| Fail::Local("the verification was broken off".to_owned()))
}

/// What was printed, and how.
struct Printed<'a> {
    ctx: &'a Ctx,
    args: &'a Tail,
    demands: Demands,
    /// Rows of records with smaller indexes were printed, or are not wanted.
    size: Option<u64>,
}

impl Printed<'_> {
    fn print(&mut self, catalogue: &Catalogue, indexed: &Indexed) -> Result<(), Fail> {
        let mut query = self.args.filters.query();
        let shape = match (self.args.shape, self.ctx.out.format()) {
            (Some(TailShape::Ocsf), _) => Some(Shape::Ocsf),
            (Some(TailShape::Jsonl), _) | (None, Format::Json | Format::Jsonl) => Some(Shape::Jsonl),
            (None, Format::Table) => None,
        };
        let mut lines = shape.map(|shape| Lines::of(catalogue.mirror(), &self.demands, shape)).transpose()?;
        let before = self.size.replace(catalogue.size());
        let from = match before {
            None => {
                let entries = indexed.verified.checkpoint().checkpoint().size();
                self.ctx.out.note(&format!("verified {entries} entries of the log; Ctrl-C ends it"));
                let Some(since) = self.args.since else { return Ok(()) };
                query.from = Some(query.from.map_or(since, |from| from.max(since)));
                0
            }
            Some(from) => {
                for row in catalogue.chosen(&query, &indexed.completed)? {
                    self.row(lines.as_mut(), &row, true)?;
                }
                from
            }
        };
        // Rows that were made anew have other numbers.
        let mut next = if indexed.anew || before.is_none() { 0 } else { indexed.before };
        loop {
            let page = self.page(catalogue, &query, next)?;
            for row in page.rows.iter().filter(|row| row.index >= from) {
                self.row(lines.as_mut(), row, false)?;
            }
            let Some(more) = page.next else { return Ok(()) };
            next = more;
        }
    }

    fn page(&self, catalogue: &Catalogue, query: &Query, next: u64) -> Result<anteroom_sdk::search::Page, Fail> {
        let mut page = catalogue.onward(query, next, ROWS)?;
        if !self.args.filters.names_a_kind() {
            page.rows.retain(|row| row.kind != READS);
        }
        Ok(page)
    }

    /// Prints a row, or how the call ended that it is of.
    fn row(&self, lines: Option<&mut Lines>, row: &Row, completed: bool) -> Result<(), Fail> {
        let Some(lines) = lines else {
            let row = short(row);
            let what = format!("{}  {}  {}  {}", row.person, row.run, row.marking, row.about);
            let text =
                format!("{:>8}  {}  {:<20}  {:>8}  {}", row.index, row.at, row.outcome, row.tokens, clean(&what));
            return self.ctx.out.line(&text);
        };
        if completed {
            lines.completed(row)?
        } else {
            lines.row(row)?
        }
        self.ctx.out.raw(&lines.take().0)
    }
}
