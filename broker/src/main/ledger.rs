//! `fsck` and `rebuild-index`: what an operator does with a stopped broker's ledger.

use anteroom_broker::boot::{self, Checked, MendError, Wrong};
use anteroom_broker::config::Secret;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;

use super::{Configured, Failure, environment, say};

#[derive(Args)]
pub(super) struct FsckArgs {
    #[command(flatten)]
    configured: Configured,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Make the lock file of a whole ledger that has none: for data directories of an earlier version
    #[arg(long, conflicts_with_all = ["cut_tail", "witnessed_size"])]
    adopt_lock: bool,
    /// Throw a damaged ledger's end away, from the damage on; what is cut is kept in `*.cut` files
    #[arg(long, requires = "expected_size")]
    cut_tail: bool,
    /// How many records a cut must leave; otherwise nothing is cut
    #[arg(long, value_name = "RECORDS", requires = "cut_tail")]
    expected_size: Option<u64>,
    /// The most records that any witness or party has seen of this log: with a cut, or after one
    #[arg(long, value_name = "RECORDS")]
    witnessed_size: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// Columns, for people.
    Table,
    /// One JSON object.
    Json,
}

pub(super) fn fsck(args: FsckArgs) -> Result<(), Failure> {
    let FsckArgs { configured, format, adopt_lock, cut_tail, expected_size, witnessed_size } = args;
    let config = configured.load()?;
    if let (true, Some(expected)) = (cut_tail, expected_size) {
        // No witness can be configured yet, so the operator's word is demanded.
        let report = boot::cut_tail(&config, &environment, expected, witnessed_size, 0)?;
        let kept = report.set_aside.into_iter().chain(report.segments_set_aside);
        let kept: Vec<String> = kept.map(|name| format!("\n  {name}")).collect();
        return say(&format!("{} records are left; set aside:{}", report.size, kept.concat()));
    }
    if let Some(size) = witnessed_size {
        let left = boot::witnessed(&config, &environment, size)?;
        return say(&format!(
            "the ledger has {left} records, no fewer than the {size} that were seen; the broker may start"
        ));
    }
    let checked =
        if adopt_lock { boot::adopt_lock(&config, &environment)? } else { boot::fsck(&config, &environment)? };
    match (format, checked) {
        (Format::Table, Ok(checked)) => say(&table(&checked, adopt_lock)),
        (Format::Json, Ok(checked)) => say(&whole(&checked, adopt_lock).to_string()),
        (Format::Table, Err(error)) => Err(error.into()),
        (Format::Json, Err(error)) => {
            say(&wrong(&error).to_string())?;
            Err(error.into())
        }
    }
}

pub(super) fn rebuild_index(configured: Configured) -> Result<(), Failure> {
    let aside = boot::rebuild_index(&configured.load()?)?;
    say(&format!(
        "the index is now `{}` and can be removed; the next start makes a new one while it serves",
        aside.display()
    ))
}

#[derive(Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    configured: Configured,
    /// The database that takes the log, such as postgres://anteroom@db.example/anteroom
    #[arg(long, value_name = "URL")]
    to: String,
    /// The password of its user
    #[arg(long, value_name = "SECRET")]
    to_password: Option<Secret>,
    /// Roots in PEM by which it is verified; needed unless it is on this machine
    #[arg(long, value_name = "FILE")]
    to_ca: Option<PathBuf>,
}

pub(super) fn migrate(args: MigrateArgs) -> Result<(), Failure> {
    let MigrateArgs { mut configured, to, to_password, to_ca } = args;
    let given = configured.settings.clone();
    let from = Configured { config: configured.config.clone(), settings: given }.load()?;
    let settings = &mut configured.settings;
    (settings.book, settings.book_password, settings.book_ca) = (Some(to), to_password, to_ca);
    let to = configured.load()?;
    let moved = boot::migrate(&from, &to, &environment)?;
    say(&format!(
        "{} records in {} batches are in the database, entry by entry the same\n\
         root      {}\n\
         the ledger's folder is now `{}`; keep it until the first backup of the database\n\
         Next: put the same `book` into the configuration, then anteroom-broker fsck and serve.",
        moved.records,
        moved.batches,
        moved.root,
        moved.aside.display(),
    ))
}

/// What is kept for a time, and from when on it may be destroyed.
pub(super) fn retention(configured: Configured) -> Result<(), Failure> {
    let config = configured.load()?;
    let checked = boot::fsck(&config, &environment)??;
    let schedule = config.retention().schedule.as_deref().unwrap_or("none: nothing is destroyed");
    let mut text = format!("schedule: {schedule}");
    for kept in &checked.scopes {
        let due = match kept.due {
            Ok(due) => format!("due from {due}"),
            Err(why) => why.text().to_owned(),
        };
        let held = if kept.holds > 0 { format!(", {} holds", kept.holds) } else { String::new() };
        text.push_str(&format!("\n{}: {due}{held}", kept.scope));
    }
    say(&text)
}

fn table(checked: &Checked, adopted: bool) -> String {
    let Checked { records, batches, open_calls, lock_size, cosignatures, tiles, unpublished_tiles, .. } = checked;
    let torn = match checked.torn {
        Some((segment, offset)) => format!(
            "\n             an unfinished batch at segment {segment}, byte {offset}: nobody was answered from it; `serve` cuts it"
        ),
        None => String::new(),
    };
    let blind: String = checked
        .blind
        .iter()
        .map(|gone| {
            let (scope, by) = (&gone.scope, gone.disposition);
            format!("\n             {} records of {scope} cannot be read: destroyed, see record {by}", gone.records)
        })
        .collect();
    let (lock, published) = if adopted {
        (format!("made at {lock_size} records"), "not compared; the next start writes it".to_owned())
    } else {
        let checkpoint = match checked.published_size {
            Some(size) => format!("{size} records, {cosignatures} cosignatures"),
            None => "none yet".to_owned(),
        };
        let rest = match unpublished_tiles {
            0 => String::new(),
            count => format!(", {count} left by an interrupted publication"),
        };
        let files = format!("{tiles} files compared byte for byte{rest}");
        (format!("{lock_size} records"), format!("{checkpoint}\ntiles        {files}"))
    };
    format!(
        "ledger       {records} records in {batches} batches are whole, {open_calls} calls open{blind}{torn}\n\
         lock file    {lock}\n\
         checkpoint   {published}\n\
         root         {}\n\n{}",
        checked.root, checked.checkpoint
    )
}

fn whole(checked: &Checked, adopted: bool) -> serde_json::Value {
    let torn = checked.torn.map(|(segment, offset)| json!({ "segment": segment, "offset": offset }));
    json!({
        "whole": true,
        "records": checked.records,
        "batches": checked.batches,
        "root": checked.root,
        "checkpoint": checked.checkpoint,
        "open_calls": checked.open_calls,
        "torn": torn,
        "unreadable": checked.blind.iter().map(|gone| {
            json!({ "scope": gone.scope.to_string(), "records": gone.records, "disposition": gone.disposition })
        }).collect::<Vec<_>>(),
        "lock_size": checked.lock_size,
        "lock_adopted": adopted,
        "published_size": checked.published_size,
        "cosignatures": checked.cosignatures,
        "tiles": checked.tiles,
        "unpublished_tiles": checked.unpublished_tiles,
    })
}

fn wrong(error: &Wrong) -> serde_json::Value {
    let place = error.place();
    json!({
        "whole": false,
        "part": error.part(),
        "file": place.as_ref().map(|(file, _)| file),
        "byte": place.as_ref().and_then(|(_, at)| *at),
        "error": error.to_string(),
    })
}

impl From<MendError> for Failure {
    fn from(error: MendError) -> Self {
        match error {
            MendError::Start(error) => Self::Start(error),
            other @ (MendError::Whole
            | MendError::Beyond(_)
            | MendError::Size { .. }
            | MendError::Published { .. }
            | MendError::Witnessed { .. }
            | MendError::Unwitnessed
            | MendError::NoCut
            | MendError::Shared
            | MendError::Wal(_)
            | MendError::File { .. }) => Self::Mend(other),
        }
    }
}
