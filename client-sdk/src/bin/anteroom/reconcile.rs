//! `anteroom lab reconcile`: this lab's own list of calls against its slice of the ledger, and both against the model server's log.
//!
//! **Invariant:** only records that were proven and outcomes that a connector key of this lab signed are held against the list.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anteroom_proto::{
    ledger::scope::Scope,
    names::{CallId, GrantId, ModelLine},
    rpc::SignedStatement,
    statement::{key::PublicKey, key_set::KeyRole},
    time::At,
};
use anteroom_sdk::{
    connector::{
        calls::{self, KeptList},
        reconcile::{Finding, OnRecord, Sides, Standing, compare, gather, server_log::ServerLog},
    },
    home::{Home, Use},
    mirror::{Mirror, check},
    system,
    verify::{dossier::VerifiedDossier, scope::SliceRecord},
};
use clap::Args;

use crate::{
    audit::tag_key,
    context::Ctx,
    fail::Fail,
    lab::lines,
    mirror::Trust,
    output::{When, view},
    progress::Bar,
    trace,
};

/// What is held against each other.
#[derive(Args)]
pub(crate) struct Reconcile {
    /// Only calls of this grant [default: every grant that the list or the broker knows of]
    #[arg(long)]
    grant: Option<GrantId>,
    /// One model line [default: every line served from this folder]
    #[arg(long)]
    line: Option<ModelLine>,
    /// The model server's log: access lines of llama.cpp, vLLM, SGLang or a proxy, or JSON lines
    #[arg(long, value_name = "FILE")]
    server_log: Option<PathBuf>,
    /// Show only what does not match
    #[arg(long)]
    faults: bool,
    /// Read the records in this mirror instead of asking the broker
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

view! {
    /// A call on both sides.
    ReconciledRow {
        /// The call; absent for a request in the server's log that no call explains.
        call: Option<String>,
        /// The grant.
        grant: Option<String>,
        /// `matched`, `different`, `only_here`, `only_ledger`, `only_server`, `not_served`, `interrupted`, `open`, `elsewhere` or `before`.
        standing: String,
        /// Index of its admission in the log.
        admitted: Option<u64>,
        /// When it ended, or was admitted.
        at: Option<When>,
        /// What differs, by name.
        differs: Vec<String>,
        /// `named`, `timed`, `other_status`, `missing` or `unknown`, if a server's log was given.
        server: Option<String>,
        /// What there is to say beside that.
        note: Option<String>,
    }
}

pub(crate) async fn run(ctx: &Ctx, args: Reconcile) -> Result<(), Fail> {
    let home = ctx.home()?;
    let lines = lines(&home, args.line.clone())?;
    let keys = keys(&home)?;
    let own: BTreeSet<Vec<u8>> = keys.iter().map(|key| key.id().to_vec()).collect();
    let server = args.server_log.as_deref().map(server_log).transpose()?;
    // Read before the ledger, which then has whatever is in it.
    let read_at = system::now();
    let mut lists = Vec::new();
    for line in &lines {
        let read = calls::read(&home.connector_dir(line), &keys, args.grant);
        let list = read.map_err(|error| Fail::Verification(format!("`{line}`: {error}")))?;
        lists.extend(list.map(|list| (line.clone(), list)));
    }
    if lists.is_empty() {
        return Err(Fail::Usage(
            "no connector of this folder has kept a list of calls; `anteroom lab serve` does from its first start on"
                .to_owned(),
        ));
    }
    if server.is_some() && lists.len() > 1 {
        return Err(Fail::Usage("a server's log is one line's: name it with `--line`".to_owned()));
    }
    let ledger = ledger(ctx, &home, &args, &lists).await?;
    let (mut rows, mut counts) = (Vec::new(), BTreeMap::<Standing, usize>::new());
    for (line, list) in &lists {
        tell(ctx, line, list);
        let calls: BTreeMap<CallId, OnRecord> = ledger
            .iter()
            .filter(|(_, (of, _))| of == line)
            .map(|(call, (_, record))| (*call, record.clone()))
            .collect();
        let (server, whole) = (server.as_ref(), args.grant.is_none());
        for finding in compare(&Sides { list, read_at, ledger: &calls, own: &own, server, whole }) {
            *counts.entry(finding.standing).or_default() += 1;
            if !args.faults || finding.standing.is_fault() {
                rows.push(row(&finding));
            }
        }
    }
    ctx.out.rows(&rows)?;
    let told = Standing::ALL.iter().filter_map(|standing| Some((standing, counts.get(standing)?)));
    let told: Vec<String> = told.map(|(standing, count)| format!("{count} {}", standing.as_str())).collect();
    ctx.out.note(&if told.is_empty() { "no calls".to_owned() } else { told.join(", ") });
    let faults: usize = counts.iter().filter(|(standing, _)| standing.is_fault()).map(|(_, count)| *count).sum();
    if faults > 0 {
        return Err(Fail::Verification(format!("{faults} calls do not stand the same on every side")));
    }
    match counts.get(&Standing::Open) {
        Some(open) => Err(Fail::NotYet(format!("{open} calls are open; everything else matched"))),
        None => Ok(()),
    }
}

fn tell(ctx: &Ctx, line: &ModelLine, list: &KeptList) {
    ctx.out.note(&format!(
        "{line}: the list has {} lines since {}; {} of them about calls stand behind the last seal",
        list.lines, list.begins, list.unsealed
    ));
    if list.first > 0 {
        ctx.out.note(&format!("{line}: lines before {} were removed as the list's bound asks", list.first));
    }
}

/// The connector keys that seals and outcomes of this folder may be by: those here, those that were replaced, and the key set's.
fn keys(home: &Home) -> Result<Vec<PublicKey>, Fail> {
    let role = KeyRole::Connector.as_str();
    let mut keys: Vec<PublicKey> = Vec::new();
    for (name, key) in home.keys()? {
        if name == role || (name.starts_with(&format!("{role}-v")) && name.ends_with("-old")) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        // The key is on a card or with a command: whatever the key set names.
        let set = home.key_set()?;
        keys.extend(set.keys.iter().filter(|key| key.role == KeyRole::Connector).map(|key| key.key.clone()));
    }
    Ok(keys)
}

fn server_log(path: &Path) -> Result<ServerLog, Fail> {
    let failed = |error: std::io::Error| Fail::Local(format!("`{}`: {error}", path.display()));
    ServerLog::read(BufReader::new(File::open(path).map_err(failed)?)).map_err(failed)
}

type Ledger = BTreeMap<CallId, (ModelLine, OnRecord)>;

/// Everything that the ledger has of calls on the lists' lines.
async fn ledger(ctx: &Ctx, home: &Home, args: &Reconcile, lists: &[(ModelLine, KeptList)]) -> Result<Ledger, Fail> {
    let mut grants = BTreeSet::new();
    match args.grant {
        Some(grant) => drop(grants.insert(grant)),
        None => {
            for kept in lists.iter().flat_map(|(_, list)| list.calls.values()) {
                let begun = kept.begun.as_ref().map(|begun| &begun.grant);
                let grant = begun.or(kept.ended.as_ref().map(|ended| &ended.grant));
                grants.extend(grant.and_then(|grant| GrantId::from_slice(grant).ok()));
            }
            if args.mirror.is_none() {
                let channel = home.channel(Use::Read).await?;
                for summary in home.grants(&channel).await? {
                    if lists.iter().any(|(line, _)| line.as_str() == summary.line) {
                        grants.extend(GrantId::from_slice(&summary.grant));
                    }
                }
            }
        }
    }
    let mut found = Ledger::new();
    for grant in grants {
        let (mut calls, dossier) = match &args.mirror {
            Some(dir) => (from_mirror(ctx, dir, &args.trust, grant)?, None),
            None => from_broker(home, grant).await?,
        };
        let dossier = dossier.or_else(|| home.kept_dossier(grant).ok().flatten());
        for (call, record) in &mut calls {
            let read = |statement: &SignedStatement| trace::outcome(home, dossier.as_ref(), statement, *call, grant);
            record.outcome = record.statement.as_ref().map(read);
        }
        let line = home.terms(grant).ok().flatten().map(|terms| terms.model.line);
        let line = line.or_else(|| lists.first().filter(|_| lists.len() == 1).map(|(line, _)| line.clone()));
        let Some(line) = line else {
            return Err(Fail::Local(format!(
                "the terms of {grant} are not kept here; fetch them with `anteroom grant show`"
            )));
        };
        found.extend(calls.into_iter().map(|(call, record)| (call, (line.clone(), record))));
    }
    Ok(found)
}

type Calls = BTreeMap<CallId, OnRecord>;

async fn from_broker(home: &Home, grant: GrantId) -> Result<(Calls, Option<VerifiedDossier>), Fail> {
    let scope = Scope::Grant(grant);
    let key = tag_key(home, &scope, None).await?;
    let mut reading = home.auditor().await?.read(scope, key, false).await?;
    let mut calls = Calls::new();
    while let Some(record) = reading.next().await? {
        gather(&mut calls, grant, &record)?;
    }
    let channel = home.channel(Use::Read).await?;
    // Without it this folder's own keys have to do.
    let dossier = home.fetch_dossier(&channel, grant).await.ok();
    Ok((calls, dossier.and_then(|dossier| home.take_dossier(&dossier).ok())))
}

fn from_mirror(ctx: &Ctx, dir: &Path, trust: &Trust, grant: GrantId) -> Result<Calls, Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let (mut calls, mut failed) = (Calls::new(), None);
    let mut bar = Bar::new();
    let scopes = [Scope::Grant(grant)];
    let mut take = |record: &SliceRecord| {
        if let Err(error) = gather(&mut calls, grant, record) {
            failed.get_or_insert(error);
        }
        Ok(())
    };
    let verified =
        check::verify(&Mirror::at(dir), &demands, Some(&scopes), &mut |progress| bar.show(progress), |record| {
            take(record)
        });
    bar.end();
    let _whole = verified?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(calls),
    }
}

fn row(finding: &Finding) -> ReconciledRow {
    ReconciledRow {
        call: finding.call.map(|call| call.to_string()),
        grant: finding.grant.map(|grant| grant.to_string()),
        standing: finding.standing.as_str().to_owned(),
        admitted: finding.admitted,
        at: finding.at.map(|at: At| at.into()),
        differs: finding.differs.iter().map(|name| (*name).to_owned()).collect(),
        server: finding.server.map(|server| server.as_str().to_owned()),
        note: finding.note.clone(),
    }
}
