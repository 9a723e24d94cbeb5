//! `anteroom receipt`: what this side can prove, without asking anybody.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
};

use anteroom_proto::{
    ledger::{
        receipt::{VerifiedReceipt, verify_receipt},
        record::Opened,
        scope::Scope,
    },
    names::{CallId, GrantId},
    rpc::{CallStatus, Receipt, audit_client::AuditClient},
    statement::terms::Terms,
    time::At,
};
use anteroom_sdk::{
    home::{Home, HomeError, Use},
    store::{KeptReceipt, ReceiptStore},
    system,
    verify::{
        dossier::VerifiedDossier,
        receipt::{to_tlog_proof, verify_call},
        witnessed::{Witnessed, verify_witnessed},
    },
    witness::fetch_witnessed,
};
use clap::Subcommand;

use crate::{
    context::Ctx,
    fail::Fail,
    output::{When, view},
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom receipt list
  anteroom receipt verify                # every receipt, offline, under the pinned keys
  anteroom receipt show CALL
  anteroom receipt fetch CALL            # of a call that was cut
  anteroom receipt witness --all         # once both parties' witnesses have cosigned
  anteroom receipt export CALL --out proofs/   # C2SP tlog-proof files for other tools
  anteroom receipt export --all --out proofs/";

/// Receipts of calls.
#[derive(Subcommand)]
pub(crate) enum ReceiptVerb {
    /// List the receipts kept here
    List,
    /// Show one receipt
    Show {
        /// The call
        call: CallId,
    },
    /// Verify receipts offline
    Verify {
        /// The calls [default: all]
        calls: Vec<CallId>,
    },
    /// Ask the broker what it has on record of a call, verify it and keep it; for one that was cut or whose answer was lost
    Fetch {
        /// The call
        call: CallId,
    },
    /// Ask for a checkpoint by which both parties' witnesses vouch for receipts, verify it and keep it with them
    Witness {
        /// The calls
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        calls: Vec<CallId>,
        /// Every receipt kept here that is not witnessed yet
        #[arg(long)]
        all: bool,
    },
    /// Write receipts' records as tlog-proof files
    Export {
        /// The calls
        #[arg(required_unless_present = "all")]
        calls: Vec<CallId>,
        /// Every call that has a receipt here
        #[arg(long, conflicts_with = "calls")]
        all: bool,
        /// The folder to write to
        #[arg(long, default_value = ".")]
        out: PathBuf,
    },
}

view! {
    /// A receipt.
    ReceiptRow {
        /// The call.
        call: String,
        /// The grant.
        grant: String,
        /// The run.
        run: String,
        /// Who called, by pseudonym.
        pseudonym: String,
        /// When it was admitted, by the broker's clock.
        admitted: When,
        /// How it ended: `completed`, or the code of what cut it.
        end: String,
        /// Events handed out.
        events: u64,
        /// Tokens charged.
        charged: u64,
        /// Status that the model server answered with.
        status: u32,
        /// Index of the admission in the log.
        index: u64,
        /// What was verified: `call` (log, claim, credential and outcome), `log` (the log's proofs alone), or `nothing`.
        verified: String,
        /// Whether both parties' witnesses vouch for it: `yes` with the checkpoint's size and their times, `not yet`, or `not checked`.
        witnessed: String,
        /// Whose word stands behind the answer: `lab-asserted`, or `operator-asserted` where the terms say so; or `not checked`.
        answer: String,
    }
}

view! {
    /// A file written.
    Written {
        /// The record.
        record: String,
        /// The file.
        file: String,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: ReceiptVerb) -> Result<(), Fail> {
    let home = ctx.home()?;
    let store = Stores::open(ctx, &home)?;
    match verb {
        ReceiptVerb::Fetch { call } => fetch(ctx, &home, store, call).await,
        ReceiptVerb::Witness { calls, .. } => witness(ctx, &home, store, calls).await,
        ReceiptVerb::List => {
            let rows = store.calls().into_iter().map(|call| unverified(&find(&store, call)?, call));
            ctx.out.rows(&rows.collect::<Result<Vec<_>, _>>()?)
        }
        ReceiptVerb::Show { call } => ctx.out.one(&checked(&home, &find(&store, call)?, call)?),
        ReceiptVerb::Verify { calls } => {
            let calls = if calls.is_empty() { store.calls() } else { calls };
            let rows = calls.into_iter().map(|call| checked(&home, &find(&store, call)?, call));
            ctx.out.rows(&rows.collect::<Result<Vec<_>, _>>()?)
        }
        ReceiptVerb::Export { calls, all, out } => {
            let calls = if all { store.calls() } else { calls };
            let mut rows = Vec::new();
            for call in calls {
                export(&find(&store, call)?, call, &out, &mut rows)?;
            }
            ctx.out.rows(&rows)
        }
    }
}

/// Every store of receipts in the folder.
struct Stores(Vec<ReceiptStore>);

impl Stores {
    fn open(ctx: &Ctx, home: &Home) -> Result<Self, Fail> {
        let (stores, elsewhere) = home.all_receipts()?;
        if elsewhere > 0 {
            ctx.out
                .note(&format!("{elsewhere} other commands are writing receipts at this moment; theirs are left out"));
        }
        Ok(Self(stores))
    }

    fn calls(&self) -> Vec<CallId> {
        let mut calls: Vec<CallId> = self.0.iter().flat_map(ReceiptStore::calls).collect();
        calls.sort();
        calls.dedup();
        calls
    }
}

fn find(stores: &Stores, call: CallId) -> Result<KeptReceipt, Fail> {
    let mut newest: Option<KeptReceipt> = None;
    for store in &stores.0 {
        let found = store.find(call).map_err(HomeError::from)?;
        newest = newest.into_iter().chain(found).max_by_key(|kept| kept.kept_ms);
    }
    let next = format!("no receipt of `{call}` is kept here; `anteroom receipt fetch {call}` asks the broker for it");
    newest.ok_or(Fail::Local(next))
}

async fn fetch(ctx: &Ctx, home: &Home, stores: Stores, call: CallId) -> Result<(), Fail> {
    let kept = on_record(call, home.fetch_call(call).await?);
    let row = checked(home, &kept, call)?;
    let known = find(&stores, call).is_ok_and(|held| held.receipt == kept.receipt);
    // Closed first, so that the first of them is free to be written to.
    drop(stores);
    if !known {
        home.receipts()?.append(&[kept]).map_err(HomeError::from)?;
    }
    ctx.out.one(&row)
}

/// What the broker has on record of a call, as it is kept.
pub(crate) fn on_record(call: CallId, status: CallStatus) -> KeptReceipt {
    KeptReceipt {
        call: call.as_bytes().to_vec(),
        receipt: status.receipt,
        outcome: status.outcome,
        kept_ms: system::now().ms(),
        witnessed: None,
    }
}

/// The receipt in what is kept.
pub(crate) fn receipt(kept: &KeptReceipt) -> Result<&Receipt, Fail> {
    kept.receipt.as_ref().ok_or_else(|| Fail::Verification("the receipt kept is empty".to_owned()))
}

/// The grant that a receipt is of, on its own word.
pub(crate) fn grant_of(receipt: &Receipt) -> Result<GrantId, Fail> {
    let opening = receipt.admitted.as_ref().and_then(|proven| proven.opening.as_ref());
    let scope = opening.and_then(|opening| Opened::check(opening).ok()).and_then(|opened| opened.scope().ok());
    match scope {
        Some(Scope::Grant(grant)) => Ok(grant),
        Some(_) | None => Err(Fail::Verification("the receipt is of no grant".to_owned())),
    }
}

/// Everything a receipt holds, verified as far as this folder can: with the dossier kept all of it, with the terms the log's part.
pub(crate) fn checked(home: &Home, kept: &KeptReceipt, call: CallId) -> Result<ReceiptRow, Fail> {
    let receipt = receipt(kept)?;
    let grant = grant_of(receipt)?;
    let trust = home.log_trust()?;
    let failed = |why: &dyn std::fmt::Display| Fail::Verification(format!("`{call}`: {why}"));
    if let Some(dossier) = home.kept_dossier(grant)? {
        // A dossier kept before a later credential was issued, or before a build took another's place, does not know of it; the log's
        // part is verified all the same. `anteroom grant show` fetches what is newer.
        match verify_call(receipt, kept.outcome.as_ref(), &dossier, &trust, call) {
            Ok(verified) => {
                let witnessed = match &kept.witnessed {
                    None => "not yet".to_owned(),
                    Some(kept) => {
                        vouched(verify_witnessed(receipt, kept, &dossier, &trust).map_err(|error| failed(&error))?)
                    }
                };
                return Ok(row(verified.receipt(), "call", witnessed, dossier.terms()));
            }
            Err(anteroom_sdk::verify::receipt::CallFault::Claim(
                anteroom_sdk::verify::dossier::ClaimError::NoCredential(_),
            )) => {}
            Err(anteroom_sdk::verify::receipt::CallFault::Outcome(
                anteroom_sdk::verify::dossier::ClaimError::Build(_),
            )) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    let Some(terms) = home.terms(grant)? else {
        return Err(Fail::Local(format!(
            "the terms of `{grant}` are not kept here; run `anteroom grant show {grant}`"
        )));
    };
    let tag_key = Scope::Grant(grant).tag_key(&terms.nonce);
    let verified = verify_receipt(receipt, &trust, &tag_key, grant, call).map_err(|error| failed(&error))?;
    Ok(row(&verified, "log", "not checked".to_owned(), &terms))
}

/// Asks for evidence of each receipt that has none.
async fn witness(ctx: &Ctx, home: &Home, stores: Stores, calls: Vec<CallId>) -> Result<(), Fail> {
    let calls = if calls.is_empty() { stores.calls() } else { calls };
    let channel = home.channel(Use::Act).await?;
    let trust = home.log_on(&channel).await?.trust().clone();
    let audit = AuditClient::new(channel.clone());
    let mut dossiers: BTreeMap<GrantId, VerifiedDossier> = BTreeMap::new();
    let (mut kept, mut found) = (Vec::new(), Vec::new());
    for call in calls {
        let mut held = find(&stores, call)?;
        if held.witnessed.is_none() {
            let receipt = receipt(&held)?;
            let grant = grant_of(receipt)?;
            let dossier = match dossiers.entry(grant) {
                Entry::Occupied(entry) => entry.into_mut(),
                // As it is now: a witness key may be newer than what is kept.
                Entry::Vacant(entry) => entry.insert(home.take_dossier(&home.fetch_dossier(&channel, grant).await?)?),
            };
            let fetched = fetch_witnessed(&audit, receipt, dossier, &trust).await.map_err(HomeError::from)?;
            if let Some((witnessed, _)) = fetched {
                held.witnessed = Some(witnessed);
                held.kept_ms = system::now().ms();
                found.push(held.clone());
            }
        }
        kept.push((call, held));
    }
    // Closed first, so that the first of them is free to be written to.
    drop(stores);
    if !found.is_empty() {
        home.receipts()?.append(&found).map_err(HomeError::from)?;
    }
    let rows = kept.iter().map(|(call, held)| checked(home, held, *call));
    ctx.out.rows(&rows.collect::<Result<Vec<_>, _>>()?)
}

/// In words, by whom and when.
fn vouched(witnessed: Witnessed) -> String {
    let at = |seconds: u64| At::clamped(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000));
    format!("yes (size {}; lab {}, agency {})", witnessed.size, at(witnessed.lab), at(witnessed.agency))
}

fn row(verified: &VerifiedReceipt, how: &str, witnessed: String, terms: &Terms) -> ReceiptRow {
    let admission = verified.admission();
    let finished = verified.finished().map(|(_, event)| event);
    ReceiptRow {
        call: verified.call().to_string(),
        grant: verified.grant().to_string(),
        run: admission.run.clone(),
        pseudonym: admission.pseudonym.clone(),
        admitted: At::clamped(verified.admitted().header().at_ms).into(),
        end: finished.map_or_else(|| "open".to_owned(), |event| event.end.clone()),
        events: finished.map_or(0, |event| event.released_events),
        charged: finished.map_or(0, |event| event.charged_tokens),
        status: finished.map_or(0, |event| event.status),
        index: verified.admitted().header().index,
        verified: how.to_owned(),
        witnessed,
        answer: terms.endpoint.asserted_by().to_owned(),
    }
}

/// What a receipt says, without holding it against anything.
fn unverified(kept: &KeptReceipt, call: CallId) -> Result<ReceiptRow, Fail> {
    let receipt = receipt(kept)?;
    let read = |proven: &Option<anteroom_proto::rpc::ProvenRecord>| {
        let opening = proven.as_ref().and_then(|proven| proven.opening.as_ref());
        opening.and_then(|opening| Opened::check(opening).ok())
    };
    let (admitted, finished) = (read(&receipt.admitted), read(&receipt.finished));
    let header = admitted.as_ref().map(|opened| opened.header().clone()).unwrap_or_default();
    let admission: anteroom_proto::rpc::CallAdmitted =
        admitted.and_then(|opened| opened.event().ok()).unwrap_or_default();
    let finished: Option<anteroom_proto::rpc::CallFinished> = finished.and_then(|opened| opened.event().ok());
    let end = finished.unwrap_or_default();
    Ok(ReceiptRow {
        call: call.to_string(),
        grant: grant_of(receipt)?.to_string(),
        run: admission.run,
        pseudonym: admission.pseudonym,
        admitted: At::clamped(header.at_ms).into(),
        end: if end.end.is_empty() { "open".to_owned() } else { end.end },
        events: end.released_events,
        charged: end.charged_tokens,
        status: end.status,
        index: header.index,
        verified: "nothing".to_owned(),
        witnessed: "not checked".to_owned(),
        answer: "not checked".to_owned(),
    })
}

/// The receipt kept here of a call; `None` if there is none.
pub(crate) fn kept(ctx: &Ctx, home: &Home, call: CallId) -> Result<Option<KeptReceipt>, Fail> {
    let stores = Stores::open(ctx, home)?;
    if stores.calls().contains(&call) { find(&stores, call).map(Some) } else { Ok(None) }
}

fn export(kept: &KeptReceipt, call: CallId, out: &Path, rows: &mut Vec<Written>) -> Result<(), Fail> {
    let receipt = receipt(kept)?;
    std::fs::create_dir_all(out).map_err(|why| HomeError::Io { path: out.to_owned(), why })?;
    for (record, proven) in [("admitted", &receipt.admitted), ("finished", &receipt.finished)] {
        let Some(proven) = proven else { continue };
        let proof = to_tlog_proof(proven).map_err(|error| Fail::Verification(error.to_string()))?;
        let file = out.join(format!("{call}.{record}.tlog-proof"));
        std::fs::write(&file, proof.to_string()).map_err(|why| HomeError::Io { path: file.clone(), why })?;
        rows.push(Written { record: record.to_owned(), file: file.display().to_string() });
    }
    Ok(())
}
