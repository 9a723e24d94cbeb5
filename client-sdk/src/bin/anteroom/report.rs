//! `anteroom audit report`: what became of grants, from this reader's own verified mirror.

mod draw;
pub(crate) mod page;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anteroom_proto::{names::GrantId, time::At};
use anteroom_sdk::report::{self, Asked, MADE_BY};
use clap::Args;

use crate::{context::Ctx, fail::Fail, output::Format, page::text, progress::Bar, reader::instant, search::Source};

/// What is reported.
#[derive(Args, Debug)]
pub(crate) struct Report {
    /// The grant [default: every grant that is mirrored]
    grant: Option<GrantId>,
    /// Calls and acts not before this instant, RFC 3339
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<At>,
    /// Calls and acts before this instant, RFC 3339
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<At>,
    /// Also write it as one page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also write it as a PDF
    #[arg(long, value_name = "FILE")]
    pdf: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

pub(crate) async fn run(ctx: &Ctx, args: Report) -> Result<(), Fail> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        return Err(Fail::Usage("`--from` has to be before `--to`".to_owned()));
    }
    let (mirror, demands) = args.source.mirror(ctx).await?;
    let asked = Asked { grant: args.grant, from: args.from, to: args.to };
    let scopes = report::scopes(&mirror, &asked)?;
    let mut bar = Bar::new();
    let made = report::of(&mirror, &demands, &scopes, &asked, MADE_BY, &mut |progress| bar.show(progress));
    bar.end();
    let (report, verified) = made?;
    ctx.out.note(&format!(
        "verified {} entries of the log; the records of {} scopes are whole",
        verified.checkpoint().checkpoint().size(),
        verified.slices().len()
    ));
    if let Some(file) = &args.html {
        keep(ctx, file, page::html(&report).as_bytes(), "as a page")?;
    }
    if let Some(file) = &args.pdf {
        keep(ctx, file, &page::pdf(&report), "as a PDF")?;
    }
    match ctx.out.format() {
        Format::Table => ctx.out.raw(text::render(&page::of(&report)).as_bytes()),
        Format::Json | Format::Jsonl => ctx.out.told(&[], &report),
    }
}

fn keep(ctx: &Ctx, file: &Path, bytes: &[u8], form: &str) -> Result<(), Fail> {
    let failed = |why: std::io::Error| Fail::Local(format!("`{}` cannot be written: {why}", file.display()));
    std::fs::write(file, bytes).map_err(failed)?;
    ctx.out.note(&format!("`{}` is the report {form}", file.display()));
    Ok(())
}
