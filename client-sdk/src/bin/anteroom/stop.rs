//! `anteroom lab stop` and `resume`: this machine's own switch, and if asked for the signed act that puts it on record.
//!
//! **Invariant:** the switch is thrown before anything else is tried, and nothing that fails afterwards takes it back.

use std::time::Duration;

use anteroom_proto::{
    names::{GrantId, ModelLine},
    rpc::SignedStatement,
    statement::{
        acts::{Lock, LockTarget, Stop, StopKind},
        envelope,
    },
};
use anteroom_sdk::{
    acts::Organisation,
    connector::{
        acts::{Became, WaitingActs},
        stops::{StopError, Stops},
    },
    error::Error,
    home::{Home, Use},
    system,
};
use clap::{Args, ValueEnum};

use crate::{
    act,
    context::Ctx,
    fail::Fail,
    lab::{lines, status},
    output::clean,
};

/// How long the command waits for the broker once everything is thrown and signed.
const HAND_IN_MAX: Duration = Duration::from_secs(5);
/// How often a connector looks for acts that wait.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the switch hits.
#[derive(Args)]
pub(crate) struct What {
    /// One model line [default: every line served from this folder]
    #[arg(long)]
    line: Option<ModelLine>,
    /// One grant [default: everything]
    #[arg(long)]
    grant: Option<GrantId>,
}

/// Throws the switch.
#[derive(Args)]
pub(crate) struct Throw {
    #[command(flatten)]
    what: What,
    /// Why
    #[arg(long)]
    reason: String,
    /// Sign this as an act, too, with the stop key in this folder; it is handed in as soon as the broker is there
    #[arg(long, value_name = "ACT")]
    act: Option<ActKind>,
}

/// Acts that a stop key signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ActKind {
    /// A lock on the grant, or on every line that is stopped; this lab lifts it
    Lock,
    /// A pause of the grant; this lab resumes it
    Pause,
    /// The end of the grant, for good
    Withdraw,
}

/// Stops calls here, and signs and hands in the act that was asked for.
pub(crate) async fn throw(ctx: &Ctx, args: Throw) -> Result<(), Fail> {
    let Throw { what, reason, act } = args;
    let home = ctx.home()?;
    let lines = lines(&home, what.line.clone())?;
    if matches!(act, Some(ActKind::Pause | ActKind::Withdraw)) && what.grant.is_none() {
        return Err(Fail::Usage("a pause or a withdrawal is of one grant: name it with `--grant`".to_owned()));
    }
    each(&home, &lines, |stops| match what.grant {
        Some(grant) => stops.stop_grant(grant, &reason),
        None => stops.stop_all(&reason),
    })?;
    if let Some(act) = act {
        let signed = sign(&home, act, what.grant, &lines, &reason).map_err(|fail| {
            Fail::Local(format!("calls are stopped here, and nothing is on record: {}", fail.text()))
        })?;
        for (line, statement) in &signed {
            let acts = WaitingActs::at(&home.make_connector_dir(line)?);
            acts.keep(statement).map_err(|error| {
                Fail::Local(format!("calls are stopped here, and the act could not be kept: {error}"))
            })?;
        }
        for line in &lines {
            match tokio::time::timeout(HAND_IN_MAX, hand_in(ctx, &home, line)).await {
                Ok(Ok(())) => {}
                Ok(Err(fail)) => ctx.out.note(&waits(&fail.text())),
                Err(_) => ctx.out.note(&waits("the broker did not answer")),
            }
        }
    }
    status(ctx, &home, what.line)
}

fn waits(why: &str) -> String {
    format!(
        "calls are stopped here; the signed act waits, and `anteroom lab serve` hands it in as soon as the broker is there ({})",
        clean(why)
    )
}

/// Takes calls again. What is on record stays there.
pub(crate) fn resume(ctx: &Ctx, what: What) -> Result<(), Fail> {
    let home = ctx.home()?;
    let lines = lines(&home, what.line.clone())?;
    each(&home, &lines, |stops| match &what.grant {
        Some(grant) => stops.resume_grant(grant),
        None => stops.resume_all(),
    })?;
    let waiting: usize = lines.iter().map(|line| WaitingActs::at(&home.connector_dir(line)).len().unwrap_or(0)).sum();
    if waiting > 0 {
        ctx.out.note(&format!("{waiting} signed acts still wait for the broker and will be handed in"));
    }
    ctx.out
        .note("acts on record stay: lift a lock with `anteroom lock lift`, end a pause with `anteroom grant resume`");
    status(ctx, &home, what.line)
}

fn each(home: &Home, lines: &[ModelLine], throw: impl Fn(&Stops) -> Result<(), StopError>) -> Result<(), Fail> {
    let mut failed = None;
    for line in lines {
        // One that fails must not keep the others running.
        let thrown = home
            .make_connector_dir(line)
            .map_err(Fail::from)
            .and_then(|dir| throw(&Stops::open(&dir)).map_err(|error| Fail::Local(format!("`{line}`: {error}"))));
        failed = failed.or(thrown.err());
    }
    failed.map_or(Ok(()), Err)
}

/// Signs the act: for a grant once, for everything a lock of each line.
fn sign(
    home: &Home,
    act: ActKind,
    grant: Option<GrantId>,
    lines: &[ModelLine],
    reason: &str,
) -> Result<Vec<(ModelLine, SignedStatement)>, Fail> {
    let signer = home.stop_signer()?;
    let by = home.org()?.clone();
    let lock = |target: LockTarget| {
        let lock = Lock { id: id()?, by: by.clone(), target, reason: reason.to_owned() };
        Ok::<_, Fail>(home.sign(&lock, &signer)?)
    };
    let stop = |kind: StopKind, grant: GrantId| {
        // An end is one act for good, so one that was signed before is handed in again.
        if kind == StopKind::Withdraw
            && let Some(kept) = home.stops(kind, grant)?.pop()
        {
            return Ok(kept.statement);
        }
        let stop = Stop { stop: kind, grant, by: by.clone(), id: id()?, reason: reason.to_owned() };
        Ok::<_, Fail>(home.sign(&stop, &signer)?)
    };
    let Some(grant) = grant else {
        let locks = lines.iter().map(|line| Ok((line.clone(), lock(LockTarget::Line { line: line.clone() })?)));
        return locks.collect();
    };
    let signed = match act {
        ActKind::Lock => lock(LockTarget::Grant { grant })?,
        ActKind::Pause => stop(StopKind::Pause, grant)?,
        ActKind::Withdraw => stop(StopKind::Withdraw, grant)?,
    };
    // The line's own connector hands it in.
    let own = home.terms(grant).ok().flatten().map(|terms| terms.model.line);
    let line = lines.iter().find(|line| Some(*line) == own.as_ref()).or(lines.first());
    Ok(line.map(|line| (line.clone(), signed)).into_iter().collect())
}

fn id() -> Result<anteroom_proto::names::LockId, Fail> {
    Ok(system::lock_id().map_err(Error::from)?)
}

/// Hands in what waits for one line, and tells what became of it.
async fn hand_in(ctx: &Ctx, home: &Home, line: &ModelLine) -> Result<(), Fail> {
    let acts = WaitingActs::at(&home.connector_dir(line));
    let local = |error: anteroom_sdk::connector::acts::ActError| Fail::Local(error.to_string());
    let waiting = acts.waiting().map_err(local)?;
    if waiting.is_empty() {
        return Ok(());
    }
    let mut organisation: Organisation = home.organisation_for(Use::End).await?;
    for statement in &waiting {
        if let Some(grant) = grant_of(statement) {
            act::know(home, &mut organisation, grant).await;
        }
    }
    let handed = acts.hand_in(&mut organisation, &mut |became| tell(ctx, home, &became)).await;
    handed.map_err(local)
}

fn tell(ctx: &Ctx, home: &Home, became: &Became) {
    match became {
        Became::Recorded(recorded) => {
            if let Err(error) = home.keep_act(recorded) {
                ctx.out.note(&format!("a copy of the act cannot be kept: {error}"));
            }
            let header = recorded.record.header();
            ctx.out.note(&format!("the act is on record at {} ({})", header.index, clean(&recorded.standing)));
        }
        Became::Refused { code, text, over: true, .. } => {
            ctx.out.note(&format!("the act is not needed any more: {} ({code})", clean(text)));
        }
        Became::Refused { code, text, .. } => {
            ctx.out.note(&format!("the broker refused the act: {} ({code}); calls stay stopped here", clean(text)));
        }
    }
}

/// Hands in whatever comes to wait for a line, for as long as it is polled.
pub(crate) async fn present(ctx: &Ctx, home: &Home, line: &ModelLine) {
    let mut turns = tokio::time::interval(LOOK_EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = String::new();
    loop {
        turns.tick().await;
        match hand_in(ctx, home, line).await {
            Ok(()) => said.clear(),
            // The same is not said again every other second.
            Err(fail) if fail.text() != said => {
                said = fail.text();
                ctx.out.note(&format!("a signed act waits: {}", clean(&said)));
            }
            Err(_) => {}
        }
    }
}

fn grant_of(statement: &SignedStatement) -> Option<GrantId> {
    if let Ok(stop) = envelope::read_json::<Stop>(statement) {
        return Some(stop.grant);
    }
    match envelope::read_json::<Lock>(statement).ok()?.target {
        LockTarget::Grant { grant } | LockTarget::Run { grant, .. } => Some(grant),
        LockTarget::Person { .. }
        | LockTarget::Employer { .. }
        | LockTarget::Organisation { .. }
        | LockTarget::Line { .. }
        | LockTarget::NotUsPerson {}
        | LockTarget::NotUsOnly {}
        | LockTarget::Citizen { .. } => None,
    }
}
