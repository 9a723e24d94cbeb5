//! `anteroom lock`: stopping calls at once, by grant, run, person, employer, citizenship, organisation, line or predicate.

use anteroom_proto::{
    names::{GrantId, LockId, ModelLine, OrgId, Pseudonym, RunId},
    rpc::{ListLocksRequest, directory_client::DirectoryClient},
    statement::{
        acts::{Lock as LockAct, LockTarget},
        key_set::{KeyRole, OrgKind},
    },
    time::At,
};
use anteroom_sdk::{home::Use, system};
use clap::{Args, Subcommand};

use crate::{
    act,
    context::Ctx,
    fail::Fail,
    output::{When, view},
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom lock set --person agency-a/p-7 --reason 'badge lost'
  anteroom lock set --not-us-person --reason 'order of 12 November'
  anteroom lock set --citizen FR --reason 'counsel, 12 November'
  anteroom lock set --run GRANT/cyber-1 --reason 'scope exceeded'
  anteroom lock list
  anteroom lock lift LOCK --reason 'badge found'

A lock stops calls that are open, and only the organisation that set it lifts it.";

/// Locks.
#[derive(Subcommand)]
pub(crate) enum Lock {
    /// Set a lock; it counts at once
    Set {
        #[command(flatten)]
        target: Target,
        /// Why, for the other side to read
        #[arg(long)]
        reason: String,
    },
    /// Lift a lock that this organisation set
    Lift {
        /// The lock
        lock: LockId,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// List the locks that stand on anything this organisation is party to
    List,
}

/// What a lock hits.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// One grant
    #[arg(long)]
    grant: Option<GrantId>,
    /// One run of a grant
    #[arg(long, value_name = "GRANT/RUN")]
    run: Option<String>,
    /// One person of an agency, in every grant
    #[arg(long, value_name = "AGENCY/PSEUDONYM")]
    person: Option<String>,
    /// Everybody with this employer, as the roster writes it
    #[arg(long)]
    employer: Option<String>,
    /// One organisation
    #[arg(long, value_name = "ORG")]
    organisation: Option<OrgId>,
    /// One model line of this lab
    #[arg(long)]
    line: Option<ModelLine>,
    /// Everybody who is not known to be a U.S. person
    #[arg(long)]
    not_us_person: bool,
    /// Everybody who is not known to hold the one citizenship of the United States
    #[arg(long)]
    not_us_only: bool,
    /// Everybody who is, or may be, a citizen of this country (ISO 3166-1 alpha-2)
    #[arg(long, value_name = "COUNTRY")]
    citizen: Option<String>,
}

view! {
    /// A standing lock.
    LockRow {
        /// Its identifier.
        lock: String,
        /// Who set it.
        by: String,
        /// What it hits.
        target: String,
        /// When it was set.
        at: When,
        /// Why, as signed.
        reason: String,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: Lock) -> Result<(), Fail> {
    match verb {
        Lock::Set { target, reason } => set(ctx, target.read()?, reason).await,
        Lock::Lift { lock, reason } => lift(ctx, lock, &reason).await,
        Lock::List => {
            let channel = ctx.home()?.channel(Use::Act).await?;
            let reply = DirectoryClient::new(channel).list_locks(ListLocksRequest {}).await?.into_inner();
            let rows = reply.locks.into_iter().map(|lock| LockRow {
                lock: LockId::from_slice(&lock.lock).map_or_else(|error| error.to_string(), |id| id.to_string()),
                by: lock.by,
                target: lock.target,
                at: At::clamped(lock.at_ms).into(),
                reason: lock.reason,
            });
            ctx.out.rows(&rows.collect::<Vec<_>>())
        }
    }
}

async fn set(ctx: &Ctx, target: LockTarget, reason: String) -> Result<(), Fail> {
    let home = ctx.home()?;
    let mut organisation = home.organisation().await?;
    if let LockTarget::Grant { grant } | LockTarget::Run { grant, .. } = &target {
        act::know(&home, &mut organisation, *grant).await;
    }
    let id = system::lock_id().map_err(anteroom_sdk::error::Error::from)?;
    let lock = LockAct { id, by: home.org()?.clone(), target, reason };
    let statement = home.sign(&lock, &home.stop_signer()?)?;
    let recorded = organisation.submit_end(statement).await?;
    act::show(ctx, &home, "lock", &id.to_string(), &recorded)
}

async fn lift(ctx: &Ctx, lock: LockId, reason: &str) -> Result<(), Fail> {
    let home = ctx.home()?;
    let mut organisation = home.organisation().await?;
    // The record stands in the scope of what was locked, and its text names the grant if it was one.
    let channel = home.channel(Use::Act).await?;
    let locks = DirectoryClient::new(channel).list_locks(ListLocksRequest {}).await?.into_inner().locks;
    let target = locks.into_iter().find(|held| held.lock == lock.as_bytes()).map(|held| held.target);
    let words = target.iter().flat_map(|target| target.split([' ', '/']));
    if let Some(grant) = words.filter_map(|word| GrantId::parse(word).ok()).next() {
        act::know(&home, &mut organisation, grant).await;
    }
    let role = if home.settings().kind == Some(OrgKind::Operator) { KeyRole::Root } else { KeyRole::Signer };
    let signers = [home.signer(role.as_str())?];
    let recorded = organisation.lift(lock, reason, &signers).await?;
    act::show(ctx, &home, "lift", &lock.to_string(), &recorded)
}

impl Target {
    fn read(self) -> Result<LockTarget, Fail> {
        let usage = |error: anteroom_proto::names::NameError| Fail::Usage(error.to_string());
        let halves = |text: &str, form: &str| {
            let halves = text.split_once('/').map(|(left, right)| (left.to_owned(), right.to_owned()));
            halves.ok_or_else(|| Fail::Usage(format!("`{text}` is not {form}")))
        };
        let target = self
            .grant
            .map(|grant| LockTarget::Grant { grant })
            .or_else(|| self.employer.map(|employer| LockTarget::Employer { employer }))
            .or_else(|| self.organisation.map(|org| LockTarget::Organisation { org }))
            .or_else(|| self.line.map(|line| LockTarget::Line { line }))
            .or_else(|| self.not_us_person.then_some(LockTarget::NotUsPerson {}))
            .or_else(|| self.not_us_only.then_some(LockTarget::NotUsOnly {}))
            .or_else(|| self.citizen.map(|country| LockTarget::Citizen { country }));
        if let Some(target) = target {
            return Ok(target);
        }
        if let Some(text) = &self.run {
            let (grant, run) = halves(text, "GRANT/RUN")?;
            let (grant, run) = (GrantId::parse(&grant).map_err(usage)?, RunId::parse(&run).map_err(usage)?);
            return Ok(LockTarget::Run { grant, run });
        }
        let Some(text) = &self.person else {
            return Err(Fail::Usage("name what the lock hits".to_owned()));
        };
        let (org, pseudonym) = halves(text, "AGENCY/PSEUDONYM")?;
        let (org, pseudonym) = (OrgId::parse(&org).map_err(usage)?, Pseudonym::parse(&pseudonym).map_err(usage)?);
        Ok(LockTarget::Person { org, pseudonym })
    }
}
