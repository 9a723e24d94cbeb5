//! What must hold before one byte of a call goes to the model server.
//!
//! Everything is checked with what the lab pinned and what both sides signed; the broker's word alone moves nothing. The check
//! is a pure function, so a forged dispatch is a value in a test's table.
//!
//! **Invariant:** a [`CheckedCall`] exists only after every check in [`check`] held. It cannot be copied, and only
//! [`super::seen::Seen`] turns it into what the model server's caller takes.

mod failure;

use anteroom_proto::{
    ledger::{
        chain::{BODY_KEY_BYTES, body_mac},
        checkpoint::{LogTrust, VerifiedCheckpoint},
        receipt::{CALL_ADMITTED, ReceiptError, VerifiedRecord, verify_admission},
        record::{Opened, RecordError},
        scope::Scope,
    },
    names::{CallId, Digest, GrantId, ModelLine, OrgId, Pseudonym, RunId, Variant},
    rpc::{CallAdmitted, CallClaim, Dispatch, Facts},
    statement::terms::{Endpoint, Features},
    time::{At, Term, Window},
};
use bytes::Bytes;
use prost::Message;

pub use failure::{CheckFailure, Code};

use super::{
    heads::{LogView, Point, Standing},
    windows::Known,
};
use crate::verify::dossier::VerifiedDossier;

/// Most milliseconds between an admission's instant and the connector's clock.
pub const CLOCK_APART_MS_MAX: i64 = 2_000;
/// How long a call's identifier is remembered, and how far from the connector's clock its own time may lie: 24 hours.
pub const CALL_AGE_MS_MAX: i64 = 24 * anteroom_proto::time::HOUR_MS;

/// What this connector serves, and for whom it believes what.
#[derive(Clone, Debug)]
pub struct Served {
    /// The log's key and witnesses.
    pub trust: LogTrust,
    /// The lab.
    pub lab: OrgId,
    /// The model line.
    pub line: ModelLine,
    /// Digest of the manifest of the build that answers.
    pub manifest: Digest,
    /// Variants that it answers as.
    pub variants: Vec<Variant>,
    /// Whether this is the lab's connector, or the operator's in the lab's name.
    pub endpoint: Endpoint,
}

/// A way to ask the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Chat completions.
    Chat,
    /// Plain completions.
    Completions,
    /// Embeddings.
    Embeddings,
    /// Responses.
    Responses,
    /// Messages.
    Messages,
}

impl Route {
    /// The route of this name in claims.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "chat" => Some(Self::Chat),
            "completions" => Some(Self::Completions),
            "embeddings" => Some(Self::Embeddings),
            "responses" => Some(Self::Responses),
            "messages" => Some(Self::Messages),
            _ => None,
        }
    }

    /// Where a model server has it.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    const fn granted(self, features: &Features) -> bool {
        match self {
            Self::Chat => features.chat,
            Self::Completions => features.completions,
            Self::Embeddings => features.embeddings,
            Self::Responses => features.responses,
            Self::Messages => features.messages,
        }
    }
}

/// What a dispatch says it is, nothing of it checked: enough to find its dossier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The grant.
    pub grant: GrantId,
    /// The call.
    pub call: CallId,
    /// The run credential.
    pub credential: Digest,
    /// When it was admitted.
    pub at: At,
    /// The checkpoint of its proof, as text.
    pub checkpoint: String,
}

/// Reads what a dispatch says it is.
///
/// # Errors
/// It cannot be read as a call's admission.
pub fn read(dispatch: &Dispatch) -> Result<Claimed, CheckFailure> {
    let proven = dispatch.admitted.as_ref().ok_or(CheckFailure::Incomplete("admission"))?;
    let opening = proven.opening.as_ref().ok_or(CheckFailure::Incomplete("opening"))?;
    let opened = Opened::check(opening).map_err(ReceiptError::from)?;
    let found = opened.header().kind;
    if found != CALL_ADMITTED {
        return Err(ReceiptError::Kind { expected: CALL_ADMITTED, found }.into());
    }
    let Scope::Grant(grant) = opened.scope().map_err(ReceiptError::from)? else {
        return Err(ReceiptError::from(RecordError::Header).into());
    };
    let event: CallAdmitted = opened.event().map_err(ReceiptError::from)?;
    let call = CallId::from_slice(&event.call).map_err(|_| CheckFailure::Incomplete("call"))?;
    let credential = Digest::from_slice(&event.credential).map_err(|_| CheckFailure::Incomplete("credential"))?;
    let at = instant(opened.header().at_ms)?;
    Ok(Claimed { grant, call, credential, at, checkpoint: proven.checkpoint.clone() })
}

/// A call that may go to the model once it was entered as seen: proven, consented to, signed by its caller, inside its window.
#[derive(Debug)]
#[must_use]
pub struct CheckedCall {
    grant: GrantId,
    call: CallId,
    run: RunId,
    pseudonym: Pseudonym,
    line: ModelLine,
    sponsor: OrgId,
    route: Route,
    stream: bool,
    body: Bytes,
    body_key: [u8; BODY_KEY_BYTES],
    admitted: u64,
    admitted_at: At,
    window_end: At,
    until: At,
    checkpoint: VerifiedCheckpoint,
}

impl CheckedCall {
    /// The grant.
    #[must_use]
    pub const fn grant(&self) -> GrantId {
        self.grant
    }

    /// The call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.call
    }

    /// The run.
    #[must_use]
    pub const fn run(&self) -> &RunId {
        &self.run
    }

    /// The person behind the call.
    #[must_use]
    pub const fn pseudonym(&self) -> &Pseudonym {
        &self.pseudonym
    }

    /// The line lent.
    #[must_use]
    pub const fn line(&self) -> &ModelLine {
        &self.line
    }

    /// The sponsor whose clock it is.
    #[must_use]
    pub const fn sponsor(&self) -> &OrgId {
        &self.sponsor
    }

    /// How the model is asked.
    #[must_use]
    pub const fn route(&self) -> Route {
        self.route
    }

    /// Whether the body asks for a stream.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// The body, verbatim. Cheap to clone.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The key of the response chain.
    #[must_use]
    pub const fn body_key(&self) -> &[u8; BODY_KEY_BYTES] {
        &self.body_key
    }

    /// Index of its admission in the log.
    #[must_use]
    pub const fn admitted(&self) -> u64 {
        self.admitted
    }

    /// The admission's instant by the broker's clock, which the connector's agreed with.
    #[must_use]
    pub const fn admitted_at(&self) -> At {
        self.admitted_at
    }

    /// First instant after the window.
    #[must_use]
    pub const fn window_end(&self) -> At {
        self.window_end
    }

    /// First instant at which nothing may leave any more: the deadline or the window's end.
    #[must_use]
    pub const fn until(&self) -> At {
        self.until
    }

    /// The checkpoint that the admission was proven under.
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }
}

/// Holds a dispatch against everything: the pinned log, both sides' consent, the caller's signature, the body, the clock.
///
/// `known` is what this connector saw of the grant's window before, `log` what it saw of the log, `now` its own clock. Whether
/// the call's identifier is new is left to [`super::seen::Seen::enter`], which writes.
///
/// # Errors
/// Something does not hold; the first thing found is named.
pub fn check(
    dispatch: Dispatch,
    dossier: &VerifiedDossier,
    served: &Served,
    log: &LogView,
    known: Known,
    now: At,
) -> Result<CheckedCall, CheckFailure> {
    let claimed = read(&dispatch)?;
    let proven = dispatch.admitted.as_ref().ok_or(CheckFailure::Incomplete("admission"))?;
    if claimed.grant != dossier.grant() {
        return Err(CheckFailure::OtherGrant);
    }
    let (record, admission) = verify_admission(proven, &served.trust, &dossier.tag_key(), claimed.grant, claimed.call)?;
    check_log(&record, log)?;
    let admitted_at = instant(record.header().at_ms)?;
    check_build(dossier, served, &admission, admitted_at)?;
    let caller = check_claim(dossier, &admission, log, now)?;
    let body_key: [u8; BODY_KEY_BYTES] =
        dispatch.body_key.as_slice().try_into().map_err(|_| CheckFailure::Incomplete("body key"))?;
    // Not a secret's comparison: the caller's signature covers the value, and the broker knows key and body.
    if body_mac(&body_key, &dispatch.body).as_slice() != caller.claim.body_mac {
        return Err(CheckFailure::Body);
    }
    let window_end = check_window(dossier, &admission, known, admitted_at, now)?;
    let apart = now.since(admitted_at);
    if apart.saturating_abs() > CLOCK_APART_MS_MAX {
        return Err(CheckFailure::ClockApart(apart));
    }
    let deadline = At::from_ms(dispatch.deadline_ms).map_err(|_| CheckFailure::Incomplete("deadline"))?;
    let cut = dossier.build_cut_at(&served.manifest, admitted_at);
    let deadline = cut.map_or(deadline, |cut| cut.min(deadline));
    if now >= deadline {
        return Err(CheckFailure::Deadline(deadline));
    }
    if now.since(At::clamped(claimed.call.at_ms())).saturating_abs() >= CALL_AGE_MS_MAX {
        return Err(CheckFailure::Age);
    }
    Ok(CheckedCall {
        grant: claimed.grant,
        call: claimed.call,
        run: caller.run,
        pseudonym: caller.pseudonym,
        line: served.line.clone(),
        sponsor: dossier.terms().sponsor.org.clone(),
        route: caller.route,
        stream: asks_for_stream(&dispatch.body),
        body: dispatch.body,
        body_key,
        admitted: record.header().index,
        admitted_at,
        window_end,
        until: window_end.min(deadline),
        checkpoint: record.checkpoint().clone(),
    })
}

fn instant(ms: i64) -> Result<At, CheckFailure> {
    At::from_ms(ms).map_err(|_| ReceiptError::from(RecordError::Header).into())
}

fn check_log(record: &VerifiedRecord, log: &LogView) -> Result<(), CheckFailure> {
    let point = Point::of(record.checkpoint());
    match log.standing(point) {
        Standing::Known | Standing::Larger => Ok(()),
        Standing::Forked => Err(CheckFailure::Forked(point.size)),
        Standing::Older => Err(CheckFailure::Unproven(point.size, "no proof was asked for".to_owned())),
    }
}

fn check_build(
    dossier: &VerifiedDossier,
    served: &Served,
    admission: &CallAdmitted,
    admitted: At,
) -> Result<(), CheckFailure> {
    if !dossier.lends(&served.lab, &served.line) {
        return Err(CheckFailure::Build("the line"));
    }
    // A lab's connector answers nothing that the operator alone was to answer, and the other way round.
    if dossier.terms().endpoint != served.endpoint {
        return Err(CheckFailure::Build("the way to the model"));
    }
    // Another build answers only by a succession that both sides signed, and only from its instant on.
    if !dossier.builds_at(admitted).contains(&served.manifest) {
        return Err(CheckFailure::Build("the build"));
    }
    let facts = Facts::decode(admission.facts.as_slice()).map_err(|_| CheckFailure::Incomplete("facts"))?;
    let answers_as = |variant: &&Variant| variant.as_str() == facts.variant;
    let lent = dossier.terms().model.variants.iter().any(|variant| answers_as(&variant));
    if facts.variant.is_empty() || (lent && served.variants.iter().any(|variant| answers_as(&variant))) {
        Ok(())
    } else {
        Err(CheckFailure::Build("the variant"))
    }
}

/// Who calls, in which run, by which route.
struct Caller {
    claim: CallClaim,
    run: RunId,
    pseudonym: Pseudonym,
    route: Route,
}

fn check_claim(
    dossier: &VerifiedDossier,
    admission: &CallAdmitted,
    log: &LogView,
    now: At,
) -> Result<Caller, CheckFailure> {
    let statement = admission.claim.as_ref().ok_or(CheckFailure::Incomplete("claim"))?;
    let verified = dossier.verify_claim(statement, now)?;
    let claim = verified.claim();
    let same = [
        ("call", claim.call == admission.call),
        ("credential", claim.credential == admission.credential),
        ("run", claim.run == admission.run),
        ("pseudonym", verified.person().pseudonym.as_str() == admission.pseudonym),
    ];
    if let Some((field, _)) = same.iter().find(|(_, same)| !same) {
        return Err(CheckFailure::ClaimMismatch(field));
    }
    let route = Route::parse(&claim.route).filter(|route| route.granted(&dossier.terms().features));
    let route = route.ok_or_else(|| CheckFailure::Route(claim.route.chars().take(64).collect()))?;
    // The newest checkpoint that the caller saw is gossip: it must not contradict what the lab saw.
    if let Ok(root) = claim.seen_root.as_slice().try_into()
        && claim.seen_size > 0
        && log.standing(Point { size: claim.seen_size, root }) == Standing::Forked
    {
        return Err(CheckFailure::CallerForked(claim.seen_size));
    }
    Ok(Caller {
        claim: claim.clone(),
        run: verified.credential().run.clone(),
        pseudonym: verified.person().pseudonym.clone(),
        route,
    })
}

/// The window's end, if `now` is inside.
fn check_window(
    dossier: &VerifiedDossier,
    admission: &CallAdmitted,
    known: Known,
    admitted_at: At,
    now: At,
) -> Result<At, CheckFailure> {
    let terms = &dossier.terms().window;
    let earliest = |known: Option<At>| known.map_or(admitted_at, |at| at.min(admitted_at));
    if let Some(start) = terms.start_ms
        && (now < start || admitted_at < start)
    {
        return Err(CheckFailure::NotBegun(start));
    }
    let start = terms.start_ms.unwrap_or_else(|| earliest(known.first));
    let cap = Window::new(earliest(known.line_first), Term::MAX, known.end);
    let latest = Window::new(start, terms.term_ms, terms.partner_release_ms).until(cap.end()).end();
    let named = instant(admission.end_ms)?;
    if named > latest {
        // A call after a remembered end is late whatever the admission says.
        return Err(if now >= latest { CheckFailure::Over(latest) } else { CheckFailure::Stretched { named, latest } });
    }
    if now >= named { Err(CheckFailure::Over(named)) } else { Ok(named) }
}

/// Whether the body asks for a stream. A body that cannot be read asks for none, and the model server says so.
fn asks_for_stream(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Asked {
        #[serde(default)]
        stream: bool,
    }
    serde_json::from_slice(body).is_ok_and(|asked: Asked| asked.stream)
}
