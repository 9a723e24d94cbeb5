//! `anteroom audit bundle`, and `audit verify --bundle`: what is left of a grant when the broker is gone.

use std::path::{Path, PathBuf};

use anteroom_proto::names::GrantId;
use anteroom_sdk::bundle::{self, Render};
use clap::Args;

use crate::{
    context::Ctx,
    fail::Fail,
    mirror::{Trust, names_of},
    output::view,
    progress::Bar,
    report::page,
    search::Source,
};

/// How a bundle's report is written for people.
const RENDER: Render<'static> = Render { page: &page::html, pdf: &page::pdf };

/// What is put together.
#[derive(Args, Debug)]
pub(crate) struct Bundle {
    /// The grant
    grant: GrantId,
    /// The folder to make; it must not be there yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    source: Source,
}

view! {
    /// A bundle that was made.
    MadeRow {
        /// Its folder.
        bundle: String,
        /// The grant.
        grant: GrantId,
        /// How the grant stands.
        stands: String,
        /// Its files.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Entries of the log.
        entries: u64,
        /// Witnesses known here that cosigned.
        witnesses: Vec<String>,
        /// Slices, each whole, with the number of their records.
        slices: Vec<String>,
        /// How others check it.
        check: String,
    }
}

view! {
    /// A bundle that holds.
    HeldRow {
        /// Its folder.
        bundle: String,
        /// The grant.
        grant: GrantId,
        /// How the grant stands.
        stands: String,
        /// Files, each as the manifest says.
        files: u64,
        /// Entries of the log.
        entries: u64,
        /// Their root.
        root: String,
        /// Witnesses that cosigned, of those named.
        witnesses: Vec<String>,
        /// Slices, each whole, with the number of their records.
        slices: Vec<String>,
        /// Whether both sides' fingerprints are pinned here.
        pinned: bool,
        /// What that shows.
        shown: String,
    }
}

/// `audit bundle`.
pub(crate) async fn run(ctx: &Ctx, args: Bundle) -> Result<(), Fail> {
    let (mirror, demands) = args.source.mirror(ctx).await?;
    let mut bar = Bar::new();
    let made = bundle::make(&mirror, &demands, args.grant, &args.out, RENDER, &mut |progress| bar.show(progress));
    bar.end();
    let made = made?;
    let checkpoint = made.held.verified.checkpoint();
    let stands = stands(&made.held.report);
    if matches!(stands.as_str(), "active" | "paused" | "accepted" | "offered") {
        ctx.out.note(&format!("{} has not ended: it is {stands}, and more may come after this bundle", args.grant));
    }
    ctx.out.one(&MadeRow {
        bundle: args.out.display().to_string(),
        grant: args.grant,
        stands,
        files: made.files,
        bytes: made.bytes,
        entries: checkpoint.checkpoint().size(),
        witnesses: names_of(checkpoint),
        slices: slices(&made.held),
        check: format!("anteroom audit verify --bundle DIR --log-key {}", demands.trust.log()),
    })
}

/// `audit verify --bundle`.
pub(crate) fn verify(ctx: &Ctx, dir: &Path, trust: &Trust) -> Result<(), Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let mut bar = Bar::new();
    let held = bundle::check(dir, &demands, RENDER, &mut |progress| bar.show(progress));
    bar.end();
    let held = held?;
    for file in &held.listed_only {
        ctx.out.note(&format!(
            "`{file}` is as the manifest lists it; another version ({}) worded it, so it was not made again",
            held.report.made_by
        ));
    }
    let pinned = held.verified.dossiers().iter().all(|dossier| dossier.pinned);
    if !pinned {
        ctx.out.note("the dossier rests on fingerprints that are not pinned here; compare them out of band");
    }
    let checkpoint = held.verified.checkpoint();
    ctx.out.one(&HeldRow {
        bundle: dir.display().to_string(),
        grant: held.grant,
        stands: stands(&held.report),
        files: held.files,
        entries: checkpoint.checkpoint().size(),
        root: checkpoint.checkpoint().root().to_string(),
        witnesses: names_of(checkpoint),
        slices: slices(&held),
        pinned,
        shown: "every file is as listed and none is beside them; the mirror within holds, its slices are whole, and the report \
                follows from them"
            .to_owned(),
    })
}

fn stands(report: &anteroom_sdk::report::Report) -> String {
    report.grants.first().map_or_else(|| "unknown".to_owned(), |grant| grant.stands.to_owned())
}

fn slices(held: &bundle::Held) -> Vec<String> {
    held.verified.slices().iter().map(|slice| format!("{}:{}", slice.scope, slice.records)).collect()
}
