//! `anteroom audit`: reading the log, and showing that what was read is all there is.
//!
//! **Invariant:** a scope's records are checked with the key that follows from its nonce as a party signed it; the broker's word
//! for that key is only compared.

use std::path::PathBuf;

use anteroom_policy::{
    event::Entered,
    record::{decode, decode_opened},
};
use anteroom_proto::{
    ledger::scope::{Scope, TagKey},
    names::{CallId, Digest, GrantId},
    time::At,
};
use anteroom_sdk::{
    error::{Error, VerificationError},
    home::{Home, Use},
    mirror::disclose::Choice,
    verify::scope::SliceRecord,
};
use clap::Subcommand;

use crate::{
    bundle::{self, Bundle},
    content::{self, ProveContent},
    context::Ctx,
    controls::{self, Controls},
    disclose,
    event::{describe, is_alert},
    fail::Fail,
    inspect::{self, Match},
    mirror::{self, Take, Trust},
    output::{Format, When, clean, view},
    replay,
    report::{self, Report},
    search::{Export, Search, export, search},
    tail::{self, Tail},
    trace::{self, Trace},
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom audit scopes
  anteroom audit read GRANT
  anteroom audit read org/lab-a --format jsonl --kind LockSet
  anteroom audit read GRANT --alerts
  anteroom audit read GRANT --follow
  anteroom audit verify GRANT          # nothing withheld, nothing told twice
  anteroom audit replay GRANT          # the same verdicts and reasons, computed here
  anteroom audit mirror copy --own     # the public tree, and every record this reader may read
  anteroom audit verify --mirror copy  # offline: every byte of the tree, every slice whole
  anteroom audit replay GRANT --mirror copy
  anteroom audit prove CALL --mirror copy --out proofs/
  anteroom audit disclose GRANT --mirror copy --fields CallRefused.code,CallFinished.end --out set.jsonl
  anteroom audit verify --set set.jsonl --log-key VKEY
  anteroom audit search --grant GRANT --outcome broker_denied --from 2026-11-01T00:00:00Z
  anteroom audit search --by rule --every 24 # refusals and calls, a day a row
  anteroom audit search --call CALL --prove --format json
  anteroom audit export --group refusal --as csv --out refusals.csv
  anteroom audit export --as ocsf --out events.jsonl # OCSF API Activity, one event a record
  anteroom audit tail --group refusal # as they come; --as ocsf or --format json for a program
  anteroom audit report GRANT --html report.html # what became of it, what was out of the ordinary, what is not proven
  anteroom audit report GRANT --pdf report.pdf   # the same on paper
  anteroom audit report --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z --offline
  anteroom audit bundle GRANT --out closing # all that is left of a grant, for whoever may read it
  anteroom audit verify --bundle closing --log-key VKEY
  anteroom audit match --inspect log.json --grant GRANT # an evaluation's log beside the ledger
  anteroom audit controls --as oscal   # NIST SP 800-53, family AU, as an OSCAL component definition
  anteroom audit trace leak.txt        # in a lab's folder: the calls whose answers share text with it
  anteroom audit trace leak.txt --grant GRANT --mirror copy
  anteroom audit prove-content request.json CALL          # in the caller's folder
  anteroom audit prove-content kept/CALL.answer CALL --answer

A scope is `system`, `org/NAME`, `roster/NAME`, `reads/NAME` or a grant.";

/// The log.
#[derive(Subcommand)]
pub(crate) enum Audit {
    /// List the scopes that this reader may read, on the broker's word
    Scopes,
    /// Print a scope's records, each proven
    Read {
        #[command(flatten)]
        scope: Which,
        /// Only records of these kinds, for example `CallFinished`
        #[arg(long = "kind")]
        kinds: Vec<String>,
        /// Only what somebody should look at: behaviour that changed, prompts that are alike, locks by the scanner, full lines
        #[arg(long)]
        alerts: bool,
        /// Only the last records
        #[arg(long, value_name = "COUNT", conflicts_with = "follow")]
        tail: Option<usize>,
        /// Go on with records as they come
        #[arg(long)]
        follow: bool,
    },
    /// Show that a scope's records are all there are; with `--mirror`, `--set` or `--bundle` offline
    Verify {
        /// The scope; with `--mirror` any number of them [default: all that are in it]
        #[arg(required_unless_present_any = ["mirror", "set", "bundle"])]
        scopes: Vec<Scope>,
        /// Its nonce, from the party that appointed this reader, where this folder does not know it
        #[arg(long, value_name = "HEX", conflicts_with_all = ["mirror", "set", "bundle"])]
        nonce: Option<Digest>,
        /// A mirror, verified without asking anybody
        #[arg(long, value_name = "DIR")]
        mirror: Option<PathBuf>,
        /// A disclosed set; with `--mirror`, also that it is the whole scope
        #[arg(long, value_name = "FILE", conflicts_with = "scopes")]
        set: Option<PathBuf>,
        /// A closing bundle: every file, the mirror within, and the report made again and compared
        #[arg(long, value_name = "DIR", conflicts_with_all = ["scopes", "mirror", "set"])]
        bundle: Option<PathBuf>,
        #[command(flatten)]
        trust: Trust,
    },
    /// Decide a grant's calls again, offline, from everything this reader may read
    Replay {
        /// The grant
        grant: GrantId,
        /// From this mirror, without asking anybody
        #[arg(long, value_name = "DIR")]
        mirror: Option<PathBuf>,
        #[command(flatten)]
        trust: Trust,
    },
    /// Copy the log into a folder that anybody can verify, or extend such a copy
    Mirror(Take),
    /// Look for calls, refusals and acts in a verified copy of the log on this machine
    Search(Box<Search>),
    /// Write what a search finds into a file, with each record's place in the log
    Export(Box<Export>),
    /// Show calls, refusals and acts as they come, each verified first; Ctrl-C ends it
    Tail(Box<Tail>),
    /// Tell what became of a grant, or of all of them in a period, exceptions first
    Report(Box<Report>),
    /// Put everything that is left of a grant into a folder that verifies without the broker
    Bundle(Bundle),
    /// Hold an Inspect log against the ledger, call by call
    Match(Box<Match>),
    /// Prove a call under a mirror's checkpoint, or show that it was dropped
    Prove {
        /// The call
        call: CallId,
        /// The mirror
        #[arg(long, value_name = "DIR")]
        mirror: PathBuf,
        /// Receipts as `receipt export` wrote them [default: the one kept in this folder, else the mirrored records]
        #[arg(long = "receipt", value_name = "FILE")]
        receipts: Vec<PathBuf>,
        /// The folder to write proofs to
        #[arg(long, default_value = ".", value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        trust: Trust,
    },
    /// Tell which controls of NIST SP 800-53 on auditing are met, where, and what is left to do; asks nobody
    Controls(Controls),
    /// Name the calls that a leaked text came from, by the fingerprints that this lab's connectors kept
    Trace(Box<Trace>),
    /// Show that a file is what a call asked, or was answered; only who holds the caller's key can
    ProveContent(ProveContent),
    /// Cut a set out of a mirrored scope that discloses chosen fields alone and still verifies
    Disclose {
        /// The scope
        scope: Scope,
        /// The mirror
        #[arg(long, value_name = "DIR")]
        mirror: PathBuf,
        /// Fields to disclose, `KIND.field`, for example `CallRefused.code`
        #[arg(long, value_name = "KIND.field", value_delimiter = ',')]
        fields: Vec<String>,
        /// Kinds of which every field is disclosed that this reader may open
        #[arg(long = "all-of", value_name = "KIND", value_delimiter = ',')]
        kinds: Vec<String>,
        /// The file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        trust: Trust,
    },
}

/// A scope and what is needed to check its records.
#[derive(clap::Args)]
pub(crate) struct Which {
    /// The scope
    scope: Scope,
    /// Its nonce, from the party that appointed this reader, where this folder does not know it
    #[arg(long, value_name = "HEX")]
    nonce: Option<Digest>,
}

view! {
    /// A readable scope.
    ScopeRow {
        /// The scope.
        scope: String,
        /// Number of records.
        records: u64,
        /// `lab`, `agency`, `member` or `shared`.
        entitled_as: String,
    }
}

view! {
    /// A proven record.
    RecordRow {
        /// Index in the log.
        index: u64,
        /// Position in the scope.
        seq: u64,
        /// The broker's clock.
        at: When,
        /// Its kind.
        kind: String,
        /// What happened, in a line.
        what: String,
        /// The scope.
        scope: String,
        /// Its public entry, hexadecimal.
        entry: String,
    }
}

view! {
    /// A record in a table, which has no room for more.
    ShortRow {
        /// Index in the log.
        index: u64,
        /// Position in the scope.
        seq: u64,
        /// The broker's clock.
        at: When,
        /// Its kind.
        kind: String,
        /// What happened, in a line.
        what: String,
    }
}

impl From<&RecordRow> for ShortRow {
    fn from(row: &RecordRow) -> Self {
        Self { index: row.index, seq: row.seq, at: row.at, kind: row.kind.clone(), what: row.what.clone() }
    }
}

view! {
    /// A scope shown to be whole.
    Whole {
        /// The scope.
        scope: String,
        /// How many records it has.
        records: u64,
        /// Entries of the log that were gone through.
        log_size: u64,
        /// The root they lead to.
        root: String,
        /// What that shows.
        shown: String,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: Audit) -> Result<(), Fail> {
    match verb {
        Audit::Mirror(args) => mirror::mirror(ctx, args).await,
        Audit::Search(args) => search(ctx, *args).await,
        Audit::Export(args) => export(ctx, *args).await,
        Audit::Tail(args) => tail::run(ctx, *args).await,
        Audit::Report(args) => report::run(ctx, *args).await,
        Audit::Match(args) => inspect::run(ctx, *args).await,
        Audit::Bundle(args) => bundle::run(ctx, args).await,
        Audit::Verify { bundle: Some(dir), trust, .. } => bundle::verify(ctx, &dir, &trust),
        Audit::Verify { set: Some(set), mirror, trust, .. } => mirror::verify_set(ctx, &set, mirror.as_deref(), &trust),
        Audit::Verify { mirror: Some(dir), scopes, trust, .. } => mirror::verify(ctx, &dir, &scopes, &trust),
        Audit::Replay { grant, mirror: Some(dir), trust } => mirror::replay(ctx, &dir, grant, &trust),
        Audit::Prove { call, mirror, receipts, out, trust } => {
            mirror::prove(ctx, call, &mirror, &receipts, &out, &trust)
        }
        Audit::Disclose { scope, mirror, fields, kinds, out, trust } => {
            disclose::cut(ctx, &mirror, &scope, &Choice { fields, kinds }, &out, &trust)
        }
        Audit::Controls(args) => controls::run(ctx, &args),
        Audit::Trace(args) => trace::run(ctx, *args).await,
        Audit::ProveContent(args) => content::run(ctx, args).await,
        Audit::Scopes => scopes(ctx).await,
        Audit::Read { scope, kinds, alerts, tail, follow } => {
            read(ctx, &ctx.home()?, scope, &Only { kinds, alerts }, tail, follow).await
        }
        Audit::Verify { scopes, nonce, .. } => match <[Scope; 1]>::try_from(scopes) {
            Ok([scope]) => verify(ctx, &ctx.home()?, Which { scope, nonce }).await,
            Err(_) => {
                Err(Fail::Usage("one scope at a time is verified with the broker; `--mirror` takes many".to_owned()))
            }
        },
        Audit::Replay { grant, .. } => replay::run(ctx, &ctx.home()?, grant).await,
    }
}

async fn scopes(ctx: &Ctx) -> Result<(), Fail> {
    let scopes = ctx.home()?.auditor().await?.scopes().await?;
    let rows = scopes.into_iter().map(|scope| ScopeRow {
        scope: Scope::from_bytes(&scope.scope).map_or_else(|error| error.to_string(), |scope| scope.to_string()),
        records: scope.records,
        entitled_as: scope.entitled_as,
    });
    ctx.out.rows(&rows.collect::<Vec<_>>())
}

/// Which records are shown.
struct Only {
    kinds: Vec<String>,
    alerts: bool,
}

impl Only {
    fn wants(&self, record: &SliceRecord, kind: &str) -> Result<bool, Fail> {
        let named = self.kinds.is_empty() || self.kinds.iter().any(|name| name.eq_ignore_ascii_case(kind));
        Ok(named && (!self.alerts || entered(record)?.is_some_and(|entered| is_alert(&entered.event))))
    }
}

async fn read(
    ctx: &Ctx,
    home: &Home,
    which: Which,
    only: &Only,
    tail: Option<usize>,
    follow: bool,
) -> Result<(), Fail> {
    let tag_key = tag_key(home, &which.scope, which.nonce).await?;
    let mut reading = home.auditor().await?.read(which.scope, tag_key, follow).await?;
    let mut rows = Vec::new();
    while let Some(record) = reading.next().await? {
        let row = row(&record)?;
        if !only.wants(&record, &row.kind)? {
            continue;
        }
        match (follow, ctx.out.format()) {
            (true, Format::Table) => {
                ctx.out.line(&format!("{:>8}  {}  {:<20}  {}", row.index, row.at, row.kind, clean(&row.what)))?;
            }
            (_, Format::Jsonl) if tail.is_none() => ctx.out.rows(std::slice::from_ref(&row))?,
            (true, Format::Json) => {
                return Err(Fail::Usage("`--follow` goes with `--format table` or `--format jsonl`".to_owned()));
            }
            (_, Format::Table | Format::Json | Format::Jsonl) => rows.push(row),
        }
    }
    if rows.is_empty() && ctx.out.format() == Format::Jsonl {
        return Ok(());
    }
    let skipped = tail.map_or(0, |count| rows.len().saturating_sub(count));
    let shown = rows.get(skipped..).unwrap_or_default();
    if ctx.out.format() == Format::Table {
        return ctx.out.rows(&shown.iter().map(ShortRow::from).collect::<Vec<_>>());
    }
    ctx.out.rows(shown)
}

async fn verify(ctx: &Ctx, home: &Home, which: Which) -> Result<(), Fail> {
    let tag_key = tag_key(home, &which.scope, which.nonce).await?;
    let mut auditor = home.auditor().await?;
    let mut reading = auditor.read(which.scope, tag_key, false).await?;
    while reading.next().await?.is_some() {}
    ctx.out.note(&format!("{} records hold; going through the log's entries", reading.records()));
    let whole = auditor.prove_whole(reading).await?;
    let checkpoint = whole.checkpoint().checkpoint();
    ctx.out.one(&Whole {
        scope: whole.scope().to_string(),
        records: whole.records(),
        log_size: checkpoint.size(),
        root: checkpoint.root().to_string(),
        shown: "every record is proven, and no other entry of the log is this scope's".to_owned(),
    })
}

/// A record as a row.
fn row(record: &SliceRecord) -> Result<RecordRow, Fail> {
    let header = record.record.header();
    let what = entered(record)?.map_or_else(|| "about others".to_owned(), |entered| describe(&entered.event));
    Ok(RecordRow {
        index: header.index,
        seq: header.seq,
        at: At::clamped(header.at_ms).into(),
        kind: record.record.opened().spec().name.to_owned(),
        what,
        scope: record.record.scope().to_string(),
        entry: data_encoding::HEXLOWER.encode(record.record.entry().as_bytes()),
    })
}

/// A record as the deciding functions know it; `None` if it is about others altogether.
pub(crate) fn entered(record: &SliceRecord) -> Result<Option<Entered>, Fail> {
    let entry = *record.record.entry();
    let read = match record.full() {
        Some(full) => decode(full, entry).map(Some),
        None => decode_opened(record.record.opened(), entry),
    };
    let index = record.record.header().index;
    read.map_err(|error| Fail::Verification(format!("record {index} cannot be read: {error}")))
}

/// The key of a scope's tags, from a nonce that a party signed.
pub(crate) async fn tag_key(home: &Home, scope: &Scope, nonce: Option<Digest>) -> Result<TagKey, Fail> {
    if let Some(nonce) = nonce {
        return Ok(scope.tag_key(&nonce));
    }
    if *scope == Scope::System {
        // Its nonce stands in record 0, which is read and proven with this very key: a wrong one leads to no root.
        let nonce = Digest::from_slice(&home.who_am_i().await?.system_nonce);
        let nonce = nonce.map_err(|_| Error::from(VerificationError::Missing("system nonce")))?;
        return Ok(scope.tag_key(&nonce));
    }
    if let Ok(key) = home.tag_keys()?.of(scope) {
        return Ok(*key);
    }
    let Scope::Grant(grant) = scope else {
        let text =
            format!("the nonce of `{scope}` is not known here; give the one its organisation told you with `--nonce`");
        return Err(Fail::Usage(text));
    };
    let channel = home.channel(Use::Read).await?;
    let offer = home.take_offer(&home.fetch_dossier(&channel, *grant).await?)?;
    Ok(scope.tag_key(&offer.terms().nonce))
}
