//! The withdrawal itself, what the log has of the calls that it cut, and one more call that must not pass.

use std::time::{Duration, Instant};

use anteroom_proto::{
    ledger::receipt::verify_receipt,
    names::{CallId, GrantId},
    rpc::{CallFinished, GrantWithdrawn, SignedStatement, SubmitRequest},
    statement::{
        acts::{Stop, StopKind},
        terms::Terms,
    },
};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::{
    Drill, DrillError, REASON, Stage,
    ground::{Door, Ground},
    measured::Asked,
    streams::{Seen, Streams},
};
use crate::{
    acts::{Organisation, Recorded},
    error::Error,
    evaluator::{Evaluator, Route},
    home::{Home, HomeError, Use},
    system,
};

/// How long the end of a call may take to be on record.
const RECORD_MAX: Duration = Duration::from_secs(15);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Calls looked up at once.
const LOOKS: usize = 16;

/// The lab's connection to one broker.
pub(super) struct Desk {
    name: String,
    organisation: Organisation,
}

/// How the withdrawal went, by one monotonic clock.
pub(super) struct Went {
    /// The broker that it was handed in at.
    pub(super) at: String,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
    /// When the answer was held against the log.
    pub(super) proven: Instant,
    pub(super) recorded: Recorded,
}

/// Withdraws a grant from the lab's folder outside of any measurement, insisting until it is on record.
///
/// # Errors
/// There is no key for it, or the broker cannot be reached.
pub async fn withdraw(lab: &Home, grant: GrantId) -> Result<Recorded, DrillError> {
    let mut organisation = lab.organisation_for(Use::End).await?;
    if let Some(terms) = lab.terms(grant)? {
        organisation.learn_grant(grant, &terms.nonce);
    }
    let recorded = organisation.submit_end(statement(lab, grant)?).await?;
    lab.keep_act(&recorded)?;
    Ok(recorded)
}

/// One that was signed here before is handed in again, so that repeating it is the same act.
fn statement(lab: &Home, grant: GrantId) -> Result<SignedStatement, HomeError> {
    if let Some(kept) = lab.stops(StopKind::Withdraw, grant)?.pop() {
        return Ok(kept.statement);
    }
    let by = lab.org()?.clone();
    let stop = Stop { stop: StopKind::Withdraw, grant, by, id: system::lock_id()?, reason: REASON.to_owned() };
    lab.sign(&stop, &lab.stop_signer()?)
}

/// The lab's connections, made before anything is measured, to each broker that streams are open at; at least one.
pub(super) async fn desks(drill: &Drill<'_>, doors: &[Door]) -> Result<Vec<Desk>, DrillError> {
    let lab = drill.lab;
    let (mut desks, mut failed) = (Vec::new(), None);
    let mut places: Vec<String> = lab.address()?.each().iter().map(ToString::to_string).collect();
    // Where streams are, first.
    places.sort_by_key(|place| !doors.iter().any(|door| door.name == *place));
    for name in places {
        match lab.clone().with_addr(&name).organisation().await {
            Ok(organisation) => desks.push(Desk { name, organisation }),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if desks.is_empty() => Err(error.into()),
        Some(_) | None => Ok(desks),
    }
}

/// Signs, then sends, and notes when.
pub(super) async fn hand_in(
    drill: &Drill<'_>,
    desks: &[Desk],
    grant: GrantId,
    streams: &Streams,
) -> Result<Went, DrillError> {
    let terms: Option<Terms> = drill.lab.terms(grant)?;
    let signed = statement(drill.lab, grant)?;
    // Signing can take a person and a card, and answers end by themselves.
    match streams.over() {
        0 => {}
        over => return Err(DrillError::Short(over)),
    }
    (drill.tell)(&Stage::Withdrawing(grant));
    drill.left.sends();
    let sent = Instant::now();
    streams.withdrawing(sent);
    let mut failed: Option<Error> = None;
    for desk in desks {
        let mut organisation = desk.organisation.clone();
        if let Some(terms) = &terms {
            organisation.learn_grant(grant, &terms.nonce);
        }
        let request = SubmitRequest { statement: Some(signed.clone()), attachment: Vec::new(), key_set: None };
        let reply = match organisation.ask(request).await {
            Ok(reply) => reply,
            // The next broker takes the same act.
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        let answered = Instant::now();
        let believed = organisation.believe(&signed, reply).await;
        let recorded = believed.map_err(|why| DrillError::Unrecorded { grant, why: Box::new(why) })?;
        drill.left.ends();
        drill.lab.keep_act(&recorded)?;
        return Ok(Went { at: desk.name.clone(), sent, answered, proven: Instant::now(), recorded });
    }
    insisted(drill, desks, grant, (sent, signed), failed).await
}

/// No broker took it at once. An end must not be lost, so it is handed in until it is on record.
async fn insisted(
    drill: &Drill<'_>,
    desks: &[Desk],
    grant: GrantId,
    (sent, signed): (Instant, SignedStatement),
    failed: Option<Error>,
) -> Result<Went, DrillError> {
    let lost = |why: Error| DrillError::Unrecorded { grant, why: Box::new(why) };
    let Some(desk) = desks.first() else { return Err(lost(failed.unwrap_or(Error::Interrupted))) };
    let recorded = desk.organisation.clone().submit_end(signed).await.map_err(lost)?;
    let answered = Instant::now();
    drill.left.ends();
    drill.lab.keep_act(&recorded)?;
    Ok(Went { at: desk.name.clone(), sent, answered, proven: answered, recorded })
}

/// When the withdrawal's gate closed and when it was recorded, by the broker's clock.
pub(super) fn recorded_at(recorded: &Recorded) -> i64 {
    let cut = recorded.record.opened().event::<GrantWithdrawn>().map_or(0, |event| event.cut_ms);
    recorded.record.header().at_ms.max(cut)
}

/// How each call ended by the log; none where nothing is on record or it does not hold.
pub(super) async fn ends(doors: &[Door], seen: &[Seen], ground: &Ground) -> Vec<Option<CallFinished>> {
    let looks = seen.iter().map(|one| async move {
        let caller = doors.get(one.door)?.callers.first()?;
        end_of(caller, ground, one.call?).await
    });
    stream::iter(looks).buffered(LOOKS).collect().await
}

async fn end_of(caller: &Evaluator, ground: &Ground, call: CallId) -> Option<CallFinished> {
    let looking = async {
        loop {
            if let Ok(recorded) = caller.recorded(call).await
                && let Some(receipt) = recorded.receipt.filter(|receipt| receipt.finished.is_some())
            {
                let trust = caller.log().trust();
                let verified = verify_receipt(&receipt, trust, &ground.tag_key, ground.grant, call).ok()?;
                return verified.finished().map(|(_, finished)| finished.clone());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(RECORD_MAX, looking).await.ok().flatten()
}

/// One more call at each broker.
pub(super) async fn ask_again(ground: &Ground, doors: &[Door]) -> Vec<Asked> {
    let body = json!({
        "model": ground.terms.model.line.as_str(),
        "messages": [{"role": "user", "content": "This call must not pass: its grant was withdrawn in a drill."}],
        "max_tokens": 1,
        "stream": true,
    });
    let body = bytes::Bytes::from(body.to_string());
    let mut asked = Vec::new();
    for door in doors {
        let Some(caller) = door.callers.first() else { continue };
        let answer = match caller.stream(Route::Chat, body.clone()).await {
            Ok(mut stream) => stream.next().await.map(drop),
            Err(error) => Err(error),
        };
        let code = match answer {
            Ok(()) => None,
            Err(Error::Refused(refused)) => Some(refused.code),
            Err(error) => Some(error.to_string()),
        };
        asked.push(Asked { broker: door.name.clone(), code });
    }
    asked
}
