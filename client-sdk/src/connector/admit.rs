//! From a dispatch to a call that may go to the model: everything [`super::check`] needs is fetched here, and what it found is
//! made durable.
//!
//! **Invariant:** every wait here has a bound, and running into it refuses the call.

use std::time::Duration;

use anteroom_proto::{
    ledger::{checkpoint::Checkpoint, note::Note, receipt::ReceiptError},
    rpc::Dispatch,
};
use tokio::time::timeout;

use super::{
    check::{CheckFailure, Claimed, check, read},
    heads::{HeadError, LogView, Point, Standing},
    meet::{MeetError, follow, meet},
    seen::FreshCall,
    shared::Shared,
};

/// How long the broker may take for a dossier or a proof. It gives a slot 1 s to claim its call.
const ANSWER_MAX: Duration = Duration::from_millis(900);

/// Checks a dispatch and enters its call as answered here.
pub(super) async fn admit(shared: &Shared, dispatch: Dispatch) -> Result<FreshCall, CheckFailure> {
    let claimed = read(&dispatch)?;
    if let Some(why) = shared.stops.stopped().why(&claimed.grant) {
        return Err(CheckFailure::Stopped(why.to_owned()));
    }
    let dossier = timeout(ANSWER_MAX, shared.dossiers.of(&claimed, &shared.served.manifest));
    let dossier = dossier.await.map_err(|_| CheckFailure::NoDossier("the broker did not answer".to_owned()))??;
    let unproven = |error: HeadError| CheckFailure::Unproven(shared.heads.newest().size, error.to_string());
    follow(shared, &claimed.checkpoint, ANSWER_MAX).await.map_err(unproven)?;
    let view = prove_older(shared, &claimed).await?;
    let sponsor = &dossier.terms().sponsor.org;
    let known = shared.windows.known(claimed.grant, &shared.served.line, sponsor).await;
    let now = shared.clock.now();
    let checked = check(dispatch, &dossier, &shared.served, &view, known, now);
    let checked = checked.inspect_err(|failure| {
        if let CheckFailure::Forked(size) = failure {
            shared.contradicted(&super::heads::HeadError::Forked { size: *size }, &claimed.checkpoint);
        }
    })?;
    let path = checked.route().path();
    if !shared.upstream.answers(path) {
        return Err(CheckFailure::NotServed(path));
    }
    shared.heads.remember(checked.checkpoint()).map_err(|error| {
        shared.contradicted(&error, &claimed.checkpoint);
        CheckFailure::Forked(Point::of(checked.checkpoint()).size)
    })?;
    let unkept = |error: super::windows::WindowsError| CheckFailure::Stopped(error.to_string());
    shared.windows.note(&checked).await.map_err(unkept)?;
    let ahead = now.since(checked.admitted_at());
    shared.note(|status| status.clock_ahead_ms = Some(ahead));
    shared.seen.enter(checked, now).await
}

/// Calls overtake each other, so an admission may come with a checkpoint that is older than the newest seen. Then the broker
/// must show at once that both belong to one log.
///
/// The call is checked against the view that comes back: a newer one may hold a larger checkpoint of another call, which came
/// meanwhile, and beside that this one would be older and unproven. [`super::heads::Heads::remember`] takes it in nevertheless.
async fn prove_older(shared: &Shared, claimed: &Claimed) -> Result<LogView, CheckFailure> {
    let note = Note::parse(claimed.checkpoint.as_bytes()).map_err(ReceiptError::from)?;
    // The signature is checked with the record, or below before anything is believed.
    let text = Checkpoint::parse(note.text()).map_err(ReceiptError::from)?;
    let point = Point { size: text.size(), root: *text.root() };
    let view = shared.heads.view();
    if view.standing(point) != Standing::Older {
        return Ok(view);
    }
    let trust = shared.heads.trust();
    // Only what the log signed is worth asking about, and only that would be evidence.
    drop(trust.verify(note).map_err(ReceiptError::from)?);
    let points = [shared.heads.newest(), point];
    let met = timeout(ANSWER_MAX, meet(&shared.audit, trust, &points)).await;
    let unproven = |why: String| CheckFailure::Unproven(point.size, why);
    match met.map_err(|_| unproven("the broker did not answer".to_owned()))? {
        Ok(met) => {
            shared.heads.proven(&points, met);
            Ok(shared.heads.view())
        }
        Err(error) => {
            if let MeetError::Head(head) = &error
                && head.is_contradiction()
            {
                shared.contradicted(head, &claimed.checkpoint);
            }
            Err(unproven(error.to_string()))
        }
    }
}
