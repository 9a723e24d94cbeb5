//! `anteroom audit trace`: which calls a leaked text came from, by the fingerprints that this lab's connectors kept.
//!
//! **Invariant:** that an entry is the one on record is said only of a record that was proven, and of an outcome that one of this lab's
//! connector keys signed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anteroom_proto::{
    ledger::{receipt::CALL_FINISHED, scope::Scope},
    names::{CallId, GrantId, ModelLine},
    rpc::{CallFinished, CallSettled, OutcomeClaim, SignedStatement},
    statement::{envelope, key_set::KeyRole},
};
use anteroom_sdk::{
    fingerprint::{Found, GUARANTEED_CHARS, Library, MATCHES_MIN, NAMED_CHARS, Question, StoreError},
    home::{Home, Use},
    mirror::{Mirror, check},
    verify::{dossier::VerifiedDossier, scope::SliceRecord},
};
use clap::Args;

use crate::{
    audit::tag_key,
    context::Ctx,
    fail::Fail,
    mirror::Trust,
    output::{When, clean, view},
    progress::Bar,
};

/// Number in a record's header of a settlement.
const CALL_SETTLED: u32 = 45;

/// What is traced.
#[derive(Args)]
pub(crate) struct Trace {
    /// The leaked text; `-` reads standard input
    file: PathBuf,
    /// Only calls of this grant
    #[arg(long)]
    grant: Option<GrantId>,
    /// Only what was served on this line [default: every line served from this folder]
    #[arg(long)]
    line: Option<ModelLine>,
    /// Fingerprints that an answer has to share with the text to be named; more rule common phrases out
    #[arg(long, value_name = "COUNT", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(MATCHES_MIN as i64..=1000))]
    min: u16,
    /// Most calls that are named
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Look the records up in this mirror instead of asking the broker
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

view! {
    /// A call that a text may come from.
    TraceRow {
        /// The call.
        call: String,
        /// The grant.
        grant: String,
        /// When the answer ended, by the connector's clock.
        at: When,
        /// Fingerprints of the text that the answer has.
        matched: usize,
        /// Fingerprints of the text.
        of: usize,
        /// The share in percent.
        percent: usize,
        /// Characters of the text's longest part in which every fingerprint matched.
        longest: usize,
        /// Whether the ledger holds the digest of this entry: `yes`, `no` with what it holds, or `unverified` with why.
        on_record: String,
    }
}

pub(crate) async fn run(ctx: &Ctx, args: Trace) -> Result<(), Fail> {
    let home = ctx.home()?;
    let question = Question::new(&ctx.read(&args.file)?);
    let mut found = search(ctx, &home, &args, &question)?;
    found.retain(|found| found.matched >= usize::from(args.min));
    if found.is_empty() {
        ctx.out.note(&format!(
            "no call shares {} fingerprints with this text; {NAMED_CHARS} letters and digits in one piece certainly share {MATCHES_MIN}",
            args.min
        ));
        return ctx.out.rows::<TraceRow>(&[]);
    }
    let limit = usize::from(args.limit);
    if found.len() > limit {
        ctx.out.note(&format!("{} calls share text with it; the first {limit} are named", found.len()));
        found.truncate(limit);
    }
    if found.iter().any(|found| found.cut) {
        ctx.out.note("an answer among these is longer than what is kept of it; its end may hold more");
    }
    let records = records(ctx, &home, &args, &found).await;
    let rows: Vec<TraceRow> = found.iter().map(|found| row(found, &records)).collect();
    ctx.out.rows(&rows)?;
    if let Some(fail) = records.failed {
        return Err(fail);
    }
    match rows.iter().find(|row| row.on_record.starts_with("no:")) {
        None => Ok(()),
        Some(row) => {
            Err(Fail::Verification(format!("the fingerprints kept of `{}` are not those on record", row.call)))
        }
    }
}

/// Every store of this folder's connectors, or of one line's.
fn search(ctx: &Ctx, home: &Home, args: &Trace, question: &Question) -> Result<Vec<Found>, Fail> {
    let local = |error: StoreError| Fail::Local(error.to_string());
    let (mut found, mut stores, mut prints) = (Vec::new(), 0, 0);
    let dirs = lines(home, args.line.as_ref()).into_iter().flat_map(|line| home.connector_dirs(&line));
    for dir in dirs {
        let Some(library) = Library::open(&store_dir(&dir)).map_err(local)? else { continue };
        stores += 1;
        prints = prints.max(library.prints(question));
        found.extend(library.find(question, args.grant).map_err(local)?);
    }
    if stores == 0 {
        return Err(Fail::Usage(
            "no connector kept fingerprints in this folder; `anteroom lab serve` does unless told otherwise".to_owned(),
        ));
    }
    if prints < MATCHES_MIN {
        return Err(Fail::Usage(format!(
            "the text is too short: it has {prints} fingerprints, and a call is named from {MATCHES_MIN} on; give at least {NAMED_CHARS} letters and digits"
        )));
    }
    if prints < 2 * MATCHES_MIN {
        ctx.out.note(&format!(
            "the text is short: pieces of fewer than {GUARANTEED_CHARS} letters and digits may not be found"
        ));
    }
    found.sort_by_key(|found| (std::cmp::Reverse((found.matched, found.run)), found.call));
    Ok(found)
}

/// Where a connector keeps fingerprints.
pub(crate) fn store_dir(connector: &Path) -> PathBuf {
    connector.join("fingerprints")
}

fn lines(home: &Home, line: Option<&ModelLine>) -> Vec<ModelLine> {
    if let Some(line) = line {
        return vec![line.clone()];
    }
    let entries = std::fs::read_dir(home.dir().join("connector")).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok().and_then(|entry| entry.file_name().into_string().ok()));
    let lines: BTreeSet<ModelLine> = names.filter_map(|name| ModelLine::parse(&name).ok()).collect();
    lines.into_iter().collect()
}

/// What the ledger holds of the calls named.
#[derive(Default)]
struct Records {
    /// By call, what its outcome says; an error for one that does not hold.
    outcomes: BTreeMap<CallId, Result<OutcomeClaim, String>>,
    /// Grants whose records could not be looked at, with why.
    unread: BTreeMap<GrantId, String>,
    /// The log or the mirror was shown not to hold.
    failed: Option<Fail>,
}

async fn records(ctx: &Ctx, home: &Home, args: &Trace, found: &[Found]) -> Records {
    let mut records = Records::default();
    let grants: BTreeSet<GrantId> = found.iter().map(|found| found.grant).collect();
    for grant in grants {
        let calls: BTreeSet<CallId> =
            found.iter().filter(|found| found.grant == grant).map(|found| found.call).collect();
        let statements = match &args.mirror {
            Some(dir) => from_mirror(ctx, dir, &args.trust, grant, &calls),
            None => from_broker(home, grant, &calls).await,
        };
        match statements {
            Err(fail) => {
                records.unread.insert(grant, fail.text());
                if fail.is_verification() {
                    records.failed = Some(fail);
                }
            }
            Ok((statements, dossier)) => {
                let dossier = dossier.or_else(|| home.kept_dossier(grant).ok().flatten());
                let read = statements.into_iter().map(|(call, statement)| {
                    let outcome = outcome(home, dossier.as_ref(), &statement, call, grant);
                    (call, outcome)
                });
                records.outcomes.extend(read);
            }
        }
    }
    records
}

type Statements = BTreeMap<CallId, SignedStatement>;

async fn from_broker(
    home: &Home,
    grant: GrantId,
    calls: &BTreeSet<CallId>,
) -> Result<(Statements, Option<VerifiedDossier>), Fail> {
    let scope = Scope::Grant(grant);
    let key = tag_key(home, &scope, None).await?;
    let mut reading = home.auditor().await?.read(scope, key, false).await?;
    let mut statements = Statements::new();
    while let Some(record) = reading.next().await? {
        statements.extend(outcome_of(&record).filter(|(call, _)| calls.contains(call)));
    }
    let channel = home.channel(Use::Read).await?;
    // Without it this folder's own keys have to do.
    let dossier = home.fetch_dossier(&channel, grant).await.ok();
    Ok((statements, dossier.and_then(|dossier| home.take_dossier(&dossier).ok())))
}

fn from_mirror(
    ctx: &Ctx,
    dir: &Path,
    trust: &Trust,
    grant: GrantId,
    calls: &BTreeSet<CallId>,
) -> Result<(Statements, Option<VerifiedDossier>), Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let mut statements = Statements::new();
    let mut bar = Bar::new();
    let scopes = [Scope::Grant(grant)];
    let verified =
        check::verify(&Mirror::at(dir), &demands, Some(&scopes), &mut |progress| bar.show(progress), |record| {
            statements.extend(outcome_of(record).filter(|(call, _)| calls.contains(call)));
            Ok(())
        });
    bar.end();
    let _whole = verified?;
    Ok((statements, None))
}

/// The call and the signed outcome of a record that has one.
fn outcome_of(record: &SliceRecord) -> Option<(CallId, SignedStatement)> {
    let opened = record.record.opened();
    let (call, outcome) = match opened.header().kind {
        CALL_FINISHED => {
            let event: CallFinished = opened.event().ok()?;
            (event.call, event.outcome)
        }
        CALL_SETTLED => {
            let event: CallSettled = opened.event().ok()?;
            (event.call, event.outcome)
        }
        _ => return None,
    };
    Some((CallId::from_slice(&call).ok()?, outcome?))
}

/// Reads an outcome that one of the lab's connector keys signed: under the grant's dossier, else under this folder's own key set.
pub(crate) fn outcome(
    home: &Home,
    dossier: Option<&VerifiedDossier>,
    statement: &SignedStatement,
    call: CallId,
    grant: GrantId,
) -> Result<OutcomeClaim, String> {
    let claim = match dossier {
        Some(dossier) => dossier.verify_outcome_signature(statement).map_err(|error| error.to_string())?,
        None => {
            let set = home.key_set().map_err(|error| error.to_string())?;
            let mut keys = set.keys.iter().filter(|key| key.role == KeyRole::Connector);
            if !keys.any(|key| envelope::verify_by(statement, &key.key).is_ok()) {
                return Err("no connector key in this folder's key set signed its outcome".to_owned());
            }
            envelope::read_claim(statement).map_err(|error| error.to_string())?
        }
    };
    if claim.call == call.as_bytes() && claim.grant == grant.as_bytes() {
        Ok(claim)
    } else {
        Err("its outcome is of another call".to_owned())
    }
}

fn row(found: &Found, records: &Records) -> TraceRow {
    let on_record = match (records.outcomes.get(&found.call), records.unread.get(&found.grant)) {
        (Some(Ok(claim)), _) if claim.fingerprint_digest == found.digest.as_bytes() => "yes".to_owned(),
        (Some(Ok(claim)), _) if claim.fingerprint_digest.is_empty() => {
            // The store was too slow for this call, or was read back from elsewhere: the record says nothing about the entry.
            "unverified: its outcome names no fingerprints".to_owned()
        }
        (Some(Ok(_)), _) => "no: its outcome names other fingerprints".to_owned(),
        (Some(Err(why)), _) => format!("unverified: {}", clean(why)),
        (None, Some(why)) => format!("unverified: {}", clean(why)),
        (None, None) => "unverified: its end is not on record".to_owned(),
    };
    TraceRow {
        call: found.call.to_string(),
        grant: found.grant.to_string(),
        at: found.at.into(),
        matched: found.matched,
        of: found.of,
        percent: found.matched * 100 / found.of.max(1),
        longest: found.run,
        on_record,
    }
}
