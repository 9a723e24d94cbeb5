//! What a signed act's result looks like, and how ends are handed in.

use anteroom_proto::{
    names::{Digest, GrantId, LockId},
    rpc::SignedStatement,
    statement::{
        acts::{Stop, StopKind},
        terms::Terms,
    },
    time::At,
};
use anteroom_sdk::{
    acts::{Organisation, Recorded},
    error::Error,
    home::{Home, HomeError, Use},
    log::Anchoring,
    system,
};

use crate::{
    context::Ctx,
    fail::Fail,
    output::{When, view},
};

view! {
    /// An act on record.
    Act {
        /// What was done.
        act: String,
        /// What it is about: a grant, a lock, a digest.
        subject: String,
        /// How things stand after it.
        standing: String,
        /// Whether this very act was in force already.
        repeated: bool,
        /// Its scope in the log.
        scope: String,
        /// Its index in the log.
        index: u64,
        /// Its instant, by the broker's clock.
        at: When,
        /// Whether its checkpoint was proven to extend the log as seen, or that proof is still due.
        proof: String,
    }
}

/// Keeps a copy of an act and shows it.
pub(crate) fn show(ctx: &Ctx, home: &Home, act: &str, subject: &str, recorded: &Recorded) -> Result<(), Fail> {
    home.keep_act(recorded)?;
    let header = recorded.record.header();
    let proof = match recorded.anchoring {
        Anchoring::Proven => "proven",
        Anchoring::Waiting => "due with the next command",
    };
    ctx.out.one(&Act {
        act: act.to_owned(),
        subject: subject.to_owned(),
        standing: recorded.standing.clone(),
        repeated: recorded.repeated,
        scope: recorded.record.scope().to_string(),
        index: header.index,
        at: At::clamped(header.at_ms).into(),
        proof: proof.to_owned(),
    })
}

/// Learns a grant's tag key from what is kept, else from the terms that the broker shows. That a wrong one shows up later is
/// enough: an end must not wait for anything.
pub(crate) async fn know(home: &Home, organisation: &mut Organisation, grant: GrantId) {
    if matches!(home.terms(grant), Ok(Some(_))) {
        return;
    }
    let Ok(channel) = home.channel(Use::Act).await else { return };
    let Ok(dossier) = home.fetch_dossier(&channel, grant).await else { return };
    if let Ok(terms) = Terms::parse(&dossier.terms) {
        organisation.learn_grant(grant, &terms.nonce);
    }
}

/// Signs a stop, keeps it, and hands it in. One that was signed here before is handed in again, so that repeating it after a
/// crash or a broken connection is the same act.
pub(crate) async fn stop(ctx: &Ctx, kind: StopKind, grant: GrantId, reason: String) -> Result<(), Fail> {
    let home = ctx.home()?;
    let mut organisation = home.organisation().await?;
    know(&home, &mut organisation, grant).await;
    let (id, statement) = stop_statement(&home, kind, grant, reason)?;
    let recorded = match organisation.submit_end(statement).await {
        Ok(recorded) => recorded,
        Err(Error::Refused(refused)) if refused.code == ended_code(kind) => {
            ctx.out.note(&format!("{grant} is over already: {}", refused.text));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let subject = match kind {
        StopKind::Pause => id.to_string(),
        StopKind::Withdraw | StopKind::Relinquish => grant.to_string(),
    };
    show(ctx, &home, name(kind), &subject, &recorded)
}

fn stop_statement(
    home: &Home,
    kind: StopKind,
    grant: GrantId,
    reason: String,
) -> Result<(LockId, SignedStatement), HomeError> {
    // A pause can be set anew after it was lifted, so each is an act of its own; an end is one act for good.
    if kind != StopKind::Pause
        && let Some(kept) = home.stops(kind, grant)?.pop()
    {
        return Ok((kept.stop.id, kept.statement));
    }
    let id = system::lock_id()?;
    let stop = Stop { stop: kind, grant, by: home.org()?.clone(), id, reason };
    Ok((id, home.sign(&stop, &home.stop_signer()?)?))
}

const fn name(kind: StopKind) -> &'static str {
    match kind {
        StopKind::Withdraw => "withdraw",
        StopKind::Relinquish => "relinquish",
        StopKind::Pause => "pause",
    }
}

const fn ended_code(kind: StopKind) -> &'static str {
    match kind {
        StopKind::Withdraw => "grant_withdrawn",
        StopKind::Relinquish => "grant_relinquished",
        StopKind::Pause => "grant_paused",
    }
}

/// Texts for digests off the wire.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Digest::from_slice(bytes).map_or_else(|_| data_encoding::HEXLOWER.encode(bytes), |digest| digest.to_string())
}
