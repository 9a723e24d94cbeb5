//! From a request to an admission: everything that can be known in the caller's task is known before the journal is asked.
//!
//! **Invariant:** a refusal is written or counted before the caller hears it. Nothing the client says of its call is believed;
//! the facts are derived here.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anteroom_policy::{
    claim::ReadClaim,
    command::{CallCommand, Command, EarlyRefusal, Reply},
    content::{
        body::{self, Body, BodyBounds, BodyError, MESSAGE_TOKENS, Route},
        scan::{ScanVerdict, Scanner},
    },
    decide,
    event::{CallerId, Refused},
    facts::facts,
    judge::judge,
    marking::banner,
    refusal::{Class, Refusal},
    standing::Grant,
};
use anteroom_proto::{
    names::{CallId, GrantId},
    rpc::CallRequest,
    time::At,
};
use prost::Message as _;

use super::{
    Relay,
    about::{About, Answering},
    alike::Counted,
    call::{Answer, dispatch},
    epochs::Compiled,
    floods::{Key, Note},
    gate::Ticket,
    plan::{self, Label, Plan},
    slots::{Slot, Want},
};
use crate::{identity::Kill, status::Reject};

/// How often a call is judged again because its grant's terms changed under it.
const STALE_MAX: usize = 4;

/// A request with what the connection says of it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) caller: CallerId,
    pub(crate) address: IpAddr,
    pub(crate) request: CallRequest,
    /// Whether the caller waits for one whole answer.
    pub(crate) whole: bool,
    /// How long the caller waits, if it says so.
    pub(crate) patience: Option<Duration>,
    /// Resets the caller's stream.
    pub(crate) reset: Option<Kill>,
}

/// A "no" before the journal was asked, with what is known of the call.
struct No {
    refusal: Refusal,
    detail: String,
    grant: Option<GrantId>,
    refused: Refused,
}

/// A call ready to be decided.
struct Ready {
    command: CallCommand,
    compiled: Arc<Compiled>,
    scanner: Arc<Scanner>,
    want: Want,
    input_hold: u64,
    beside: u64,
    label: Label,
    counted: Counted,
}

impl Relay {
    /// Judges, admits and dispatches a call.
    pub(crate) async fn call(self: &Arc<Self>, asked: Asked) -> Result<Answer, Reject> {
        let early = |refusal| No { refusal, detail: String::new(), grant: None, refused: Refused::default() };
        if self.is_draining() {
            return Err(self.refuse(&asked.caller, early(Refusal::Shutdown)).await);
        }
        if !self.floods.take(&asked.caller, self.journal.now().at) {
            return Err(self.refuse(&asked.caller, early(Refusal::RateLimited)).await);
        }
        self.catch_up(&asked.request).await;
        for _ in 0..STALE_MAX {
            let ready = match self.prepare(&asked) {
                Ok(ready) => ready,
                Err(no) => return Err(self.refuse(&asked.caller, *no).await),
            };
            if let Some(answer) = self.decided(&asked, ready).await? {
                return Ok(answer);
            }
        }
        Err(Reject::new(Refusal::Busy))
    }

    /// Derives everything that the decision needs.
    fn prepare(&self, asked: &Asked) -> Result<Ready, Box<No>> {
        let mut known = Refused::default();
        let no = |refusal: Refusal, detail: String, grant: Option<GrantId>, known: &Refused| {
            Box::new(No { refusal, detail, grant, refused: known.clone() })
        };
        let invalid = |known: &Refused| no(Refusal::ClaimInvalid, String::new(), None, known);
        let statement = asked.request.claim.clone().ok_or_else(|| invalid(&known))?;
        let body_key: [u8; 32] = asked.request.body_key.as_slice().try_into().map_err(|_| invalid(&known))?;
        let claim = ReadClaim::read(statement.clone()).map_err(|_| invalid(&known))?;
        known.call = Some(claim.call());
        known.credential = Some(claim.credential());
        known.run = Some(claim.run().clone());
        known.claim = Some(statement);
        let id = claim.grant();
        let standing = self.journal.standing();
        // The lab is party to the grant too, but does not call.
        let agency = |grant: &&Arc<Grant>| grant.terms.agency.org == asked.caller.org;
        let Some(grant) = standing.grants.get(&id).filter(agency) else {
            return Err(no(Refusal::GrantUnknown, String::new(), Some(id), &known));
        };
        let no = |refusal: Refusal, detail: String, known: &Refused| no(refusal, detail, Some(id), known);
        let plain = |refusal: Refusal, known: &Refused| no(refusal, String::new(), known);
        let terms = &grant.terms;
        let Some(held) = grant.credentials.get(&claim.credential()) else {
            return Err(plain(Refusal::CredentialUnknown, &known));
        };
        known.pseudonym = Some(held.credential.pseudonym.clone());
        let route = Route::parse(claim.route())
            .ok_or_else(|| no(Refusal::ClaimInvalid, "there is no such route".to_owned(), &known))?;
        let run = terms.run(claim.run()).ok_or_else(|| plain(Refusal::RunUnknown, &known))?;
        let roster = standing.rosters.get(&terms.roster).ok_or_else(|| plain(Refusal::RosterUnknown, &known))?;
        let person =
            roster.roster.person(&held.credential.pseudonym).ok_or_else(|| plain(Refusal::PersonUnknown, &known))?;
        let bytes: &[u8] = &asked.request.body;
        let verified = claim.verify(held, bytes, &body_key).map_err(|refusal| plain(refusal, &known))?;
        if !self.in_this_log(verified.seen()) {
            let detail = "the claim names a checkpoint that is not in this log's history".to_owned();
            return Err(no(Refusal::CheckpointDiverges, detail, &known));
        }
        let bounds = BodyBounds { bytes_max: terms.limits.body_bytes_max };
        let body = body::parse(route, bytes, &bounds, &terms.features.named_fields)
            .map_err(|error| no(refusal_of(&error), error.to_string(), &known))?;
        if asked.whole && body.stream {
            let detail = "`stream` goes with the streamed call".to_owned();
            return Err(no(Refusal::BodyInvalid, detail, &known));
        }
        let compiled = self.epochs.of(grant).map_err(|refusal| plain(refusal, &known))?;
        let scanner = Arc::clone(compiled.scanner(run).map_err(|refusal| plain(refusal, &known))?);
        let scan = scanner.scan_body(&body);
        let network = self.networks.name(asked.address);
        let at = self.journal.now().at;
        let counted = self.alike.count(id, &body, at);
        let repeated = terms.limits.repeats_max.is_some_and(|most| counted.before() >= most);
        let facts = facts(&body, terms, run, person, network, at, verified.marking(), &scan, repeated);
        let judgement = judge(&compiled.epoch, &facts);
        let hold = body.hold_tokens(terms.limits.default_max_tokens, terms.limits.image_tokens).unwrap_or(u64::MAX);
        let builds = grant.builds_at(at).into();
        let want = Want { terms: Arc::clone(terms), builds, variant: facts.variant.clone() };
        let command = CallCommand {
            caller: asked.caller.clone(),
            claim: verified,
            body_key,
            facts: facts.encode_to_vec().into(),
            judgement,
            judged_by: compiled.judged_by,
            hold,
            slot: true,
            build: None,
            scanner_locks: scan.verdict == ScanVerdict::StopAndLock,
        };
        let label = Label {
            marking: facts.marking.clone().unwrap_or_default(),
            assertion: terms.marking.assertion.clone().unwrap_or_default(),
        };
        let input_hold = input_hold(&body, terms.limits.image_tokens);
        let beside = plan::beside(&body);
        Ok(Ready { command, compiled, scanner, want, input_hold, beside, label, counted })
    }

    /// Where others share the log, a caller may have verified what one of them signed a moment ago.
    async fn catch_up(&self, request: &CallRequest) {
        if self.journal.view().is_bounded()
            && let Some(Ok(claim)) = request.claim.clone().map(ReadClaim::read)
        {
            self.journal.caught_up(claim.seen_size()).await;
        }
    }

    /// Whether the newest checkpoint that a caller names in its claim is one of this log's.
    fn in_this_log(&self, (size, root): (u64, &[u8])) -> bool {
        let own = || (size <= self.journal.newest().size).then(|| self.journal.root_at(size)).flatten();
        size == 0 || own().is_some_and(|own| own.as_bytes().as_slice() == root)
    }

    /// Asks for a decision; `None` means that the call has to be judged again.
    async fn decided(self: &Arc<Self>, asked: &Asked, mut ready: Ready) -> Result<Option<Answer>, Reject> {
        let (grant, call) = (ready.command.claim.grant(), ready.command.claim.call());
        // The core is pure, so the decision can be rehearsed on the newest state: what would be refused reserves no slot, and a
        // repeated refusal does not reach the journal.
        let rehearsed = {
            let command = Command::Call(Box::new(ready.command.clone()));
            decide::decide(&self.journal.state(), &command, self.journal.now()).reply
        };
        let slot = match rehearsed {
            Reply::Stale => return Ok(None),
            Reply::CallRepeated { admitted, ended, state } => return Err(repeated(call, admitted, ended, &state)),
            Reply::Refused { refusal, .. } => {
                let key = self.key(&ready.command.caller, Some(grant), refusal);
                let first = self.floods.note(&key, self.journal.now().at) == Note::First;
                // What locks is recorded every time, or the lock would not come to stand.
                if !first && !ready.command.scanner_locks {
                    return Err(self.rejected(&ready, refusal));
                }
                None
            }
            Reply::Admitted { .. } | Reply::Done { .. } | Reply::Repeated { .. } | Reply::Noted => {
                let slot = self.slots.reserve(ready.want.clone()).await;
                if slot.is_none() {
                    let key = self.key(&ready.command.caller, Some(grant), Refusal::LabOffline);
                    if self.floods.note(&key, self.journal.now().at) == Note::Repeat {
                        return Err(self.reject(grant, call, Refusal::LabOffline, String::new()));
                    }
                }
                slot
            }
        };
        ready.command.slot = slot.is_some();
        ready.command.build = slot.as_ref().and_then(Slot::build);
        let ticket = match self.gates.gate(grant).ticket() {
            Ok(ticket) => ticket,
            // The rehearsal refused it and noted it as the first of its kind, so the journal has to write it.
            Err(_) if !ready.command.slot => return self.decided_against(ready).await,
            Err(cut) => {
                let refused = Refused {
                    call: Some(call),
                    credential: Some(ready.command.claim.credential()),
                    run: Some(ready.command.claim.run().clone()),
                    claim: Some(ready.command.claim.statement().clone()),
                    ..Refused::default()
                };
                let no = No { refusal: cut.refusal, detail: String::new(), grant: Some(grant), refused };
                return Err(self.refuse(&asked.caller, no).await);
            }
        };
        let now = self.journal.now().at;
        let patience = asked.patience.map_or(At::clamped(i64::MAX), |patience| {
            now.plus_ms(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX))
        });
        let plan = Plan {
            body: asked.request.body.clone(),
            body_key: ready.command.body_key,
            scanner: Arc::clone(&ready.scanner),
            input_hold: ready.input_hold,
            beside: ready.beside,
            whole: asked.whole,
            label: ready.label.clone(),
        };
        let admitting = Admitting { slot, ticket, patience, plan, reset: asked.reset.clone() };
        let relay = Arc::clone(self);
        // In a task of its own: an admission must end on record, also if the caller leaves while it is being written.
        let task = tokio::spawn(async move { relay.admitted(ready, admitting).await });
        task.await.unwrap_or_else(|_| Err(Reject::new(Refusal::LedgerUnavailable)))
    }

    /// Has a refusal written that the rehearsal foresaw.
    async fn decided_against(&self, ready: Ready) -> Result<Option<Answer>, Reject> {
        let call = ready.command.claim.call();
        match self.journal.submit(Command::Call(Box::new(ready.command.clone()))).await?.reply {
            Reply::Refused { refusal, detail: _ } => Err(self.rejected(&ready, refusal)),
            Reply::CallRepeated { admitted, ended, state } => Err(repeated(call, admitted, ended, &state)),
            Reply::Stale | Reply::Noted => Ok(None),
            // Without a slot nothing is admitted.
            Reply::Admitted { .. } | Reply::Done { .. } | Reply::Repeated { .. } => {
                Err(Reject::new(Refusal::LabOffline))
            }
        }
    }

    /// Asks the journal. The call counts as open from before it is asked, so that a drain waits for it.
    async fn admitted(self: Arc<Self>, ready: Ready, admitting: Admitting) -> Result<Option<Answer>, Reject> {
        self.open.send_modify(|open| *open = open.saturating_add(1));
        let answer = self.admit(ready, admitting).await;
        if !matches!(answer, Ok(Some(_))) {
            self.open.send_modify(|open| *open = open.saturating_sub(1));
        }
        answer
    }

    async fn admit(self: &Arc<Self>, ready: Ready, admitting: Admitting) -> Result<Option<Answer>, Reject> {
        let Admitting { slot, ticket, patience, plan, reset } = admitting;
        let claim = &ready.command.claim;
        let (grant, call, run) = (claim.grant(), claim.call(), claim.run().clone());
        let committed = self.journal.submit(Command::Call(Box::new(ready.command.clone()))).await?;
        let admission = match committed.into_admission() {
            Ok(admission) => admission,
            Err(committed) => {
                return match committed.reply {
                    Reply::Stale => Ok(None),
                    Reply::CallRepeated { admitted, ended, state } => Err(repeated(call, admitted, ended, &state)),
                    Reply::Refused { refusal, detail: _ } => Err(self.rejected(&ready, refusal)),
                    Reply::Admitted { .. } | Reply::Done { .. } | Reply::Repeated { .. } | Reply::Noted => {
                        Err(Reject::new(Refusal::LedgerUnavailable))
                    }
                };
            }
        };
        let anteroom_policy::event::Event::CallAdmitted(event) = &admission.recorded().sealed().entered.event else {
            return Err(Reject::new(Refusal::LedgerUnavailable));
        };
        if let Some(alike) = ready.counted.keep(&run, &event.pseudonym, self.journal.now().at) {
            let journal = self.journal.clone();
            // An alert, which no call waits for.
            tokio::spawn(async move { journal.submit(Command::Alike { grant, alike }).await });
        }
        let about = About {
            call,
            grant,
            run,
            pseudonym: event.pseudonym.clone(),
            end: admission.end(),
            patience,
            facts: Arc::clone(&event.facts),
            marking: banner(&ready.label.marking),
            answering: Arc::new(Answering::new(ready.command.build, admission.recorded().sealed().entered.at)),
        };
        let flow = self.gates.enter(about, ticket, &plan.body_key, reset);
        Ok(Some(dispatch(self, admission, flow, slot, plan)))
    }

    /// Has a refusal written or counted, and turns it into what the caller is told.
    async fn refuse(&self, caller: &CallerId, no: No) -> Reject {
        let No { refusal, detail, grant, refused } = no;
        let key = self.key(caller, grant, refusal);
        let call = refused.call;
        if self.floods.note(&key, self.journal.now().at) == Note::First {
            let command = Command::Refuse(Box::new(EarlyRefusal { caller: caller.clone(), grant, refusal, refused }));
            if let Err(error) = self.journal.submit(command).await {
                tracing::warn!(%error, code = refusal.code(), "a refusal is not on record");
            }
        }
        match (grant, call) {
            (Some(grant), Some(call)) => self.reject(grant, call, refusal, detail),
            _ => Reject::new(refusal).detail(detail),
        }
    }

    /// What a caller is told of a call that was judged. A refusal by rules names them and whom to ask.
    fn rejected(&self, ready: &Ready, refusal: Refusal) -> Reject {
        let claim = &ready.command.claim;
        let mut reject = self.reject(claim.grant(), claim.call(), refusal, String::new());
        if refusal == Refusal::PolicyDenied {
            let reasons = &ready.command.judgement.reasons;
            let said = ready.compiled.asks.advice(reasons);
            let mut said: Vec<String> = said.iter().map(|one| format!("`{}` is {}", one.rule, one.text)).collect();
            said.extend(ready.want.terms.policy.contact.iter().map(|contact| format!("the terms name {contact}")));
            reject = reject.fact("rules", reasons.join(" ")).detail(said.join("; "));
        }
        reject.fact("marking", banner(&ready.label.marking))
    }

    fn reject(&self, grant: GrantId, call: CallId, refusal: Refusal, detail: String) -> Reject {
        let reject = Reject::new(refusal).detail(detail).fact("grant", grant).fact("call", call);
        match refusal.class() {
            Class::Ended | Class::Later => reject.fact("at", self.journal.now().at.ms()),
            Class::Invalid | Class::Denied | Class::Conflict | Class::Unknown | Class::Unavailable => reject,
        }
    }

    /// A grant that the caller is not party to does not stand in the key, or its name could be anything.
    fn key(&self, caller: &CallerId, grant: Option<GrantId>, refusal: Refusal) -> Key {
        let standing = self.journal.standing();
        let grant = grant.filter(|grant| standing.grant_of(grant, &caller.org).is_some());
        Key { caller: caller.clone(), grant, refusal }
    }
}

/// What the admitting task takes along.
struct Admitting {
    slot: Option<Slot>,
    ticket: Ticket,
    patience: At,
    plan: Plan,
    reset: Option<Kill>,
}

/// A call made before: how it stands, never content.
fn repeated(call: CallId, admitted: u64, ended: Option<u64>, state: &str) -> Reject {
    let reject = Reject::new(Refusal::CallRepeated).fact("call", call).fact("state", state).fact("admitted", admitted);
    match ended {
        Some(ended) => reject.fact("ended", ended),
        None => reject,
    }
}

/// What of a hold stands for the prompt.
fn input_hold(body: &Body<'_>, image_tokens: u64) -> u64 {
    body.body_bytes
        .saturating_add(body.messages.saturating_mul(MESSAGE_TOKENS))
        .saturating_add(u64::from(body.images).saturating_mul(image_tokens))
}

const fn refusal_of(error: &BodyError) -> Refusal {
    match error {
        BodyError::TooLarge { .. } => Refusal::BodyTooLarge,
        BodyError::UnknownField(_) => Refusal::FieldUnknown,
        BodyError::NotUtf8
        | BodyError::NotJson
        | BodyError::DuplicateKey
        | BodyError::TooDeep
        | BodyError::TooManyValues
        | BodyError::MissingField(_)
        | BodyError::WrongType(_)
        | BodyError::NumberOutOfRange(_)
        | BodyError::BiasWithLogprobs => Refusal::BodyInvalid,
    }
}
