//! `anteroom audit prove-content`: whether a file is what a call asked, or what it was answered.
//!
//! The ledger holds keyed commitments to both and neither text. The key is the caller's: its agency has it, and nobody else has it from the
//! records. Whoever gives the key away lets its new holder check guesses, so it is never printed.
//!
//! **Invariant:** what a file is held against stands in records that were proven.

use std::path::{Path, PathBuf};

use anteroom_proto::{
    ledger::{
        chain::{BODY_KEY_BYTES, ResponseChain, body_mac},
        receipt::{CALL_ADMITTED, CALL_FINISHED, verify_receipt},
        scope::Scope,
    },
    names::CallId,
    rpc::{CallAdmitted, CallClaim, CallFinished, OutcomeClaim},
    statement::envelope,
};
use anteroom_sdk::{
    connector::sse::SseSplitter,
    home::{CertRole, Home, HomeError},
    mirror::{Mirror, MirrorError, prove},
};
use bytes::Bytes;
use clap::Args;

use crate::{
    context::Ctx,
    fail::Fail,
    mirror::Trust,
    output::view,
    receipt::{self, checked, grant_of},
};

/// What is proven.
#[derive(Args)]
pub(crate) struct ProveContent {
    /// The request's body, or with `--answer` the answer; `-` reads standard input
    file: PathBuf,
    /// The call
    call: CallId,
    /// The file is the answer: its body, its events one a line, or its event stream
    #[arg(long)]
    answer: bool,
    /// Take the call's records from this mirror instead of a receipt kept here or the broker
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

view! {
    /// A content that is the one committed to.
    Proven {
        /// The call.
        call: String,
        /// `request` or `answer`.
        content: String,
        /// Bytes of the file.
        bytes: usize,
        /// Events of the answer; a whole body counts as one.
        events: u64,
        /// What commits to it.
        committed: Vec<String>,
        /// Where the records came from.
        records: String,
    }
}

/// A call's records, proven.
struct Recorded {
    admission: CallAdmitted,
    finished: Option<CallFinished>,
    from: String,
}

pub(crate) async fn run(ctx: &Ctx, args: ProveContent) -> Result<(), Fail> {
    let bytes = ctx.read(&args.file)?;
    let recorded = match &args.mirror {
        Some(dir) => mirrored(ctx, dir, &args.trust, args.call)?,
        None => kept(ctx, &ctx.home()?, args.call).await?,
    };
    let key = <[u8; BODY_KEY_BYTES]>::try_from(recorded.admission.body_key.as_slice());
    let key = key.map_err(|_| not_held())?;
    let (content, events, committed) = if args.answer {
        let (events, committed) = answer(&recorded, &key, &bytes, args.call)?;
        ("answer", events, committed)
    } else {
        ("request", 0, request(&recorded, &key, &bytes, args.call)?)
    };
    ctx.out.one(&Proven {
        call: args.call.to_string(),
        content: content.to_owned(),
        bytes: bytes.len(),
        events,
        committed,
        records: recorded.from,
    })
}

fn not_held() -> Fail {
    let text = "the key to a call's commitments is its caller's, and this folder cannot open it: the agency that made the call can check content";
    Fail::Local(text.to_owned())
}

/// From a receipt kept here, else from what the broker shows this caller.
async fn kept(ctx: &Ctx, home: &Home, call: CallId) -> Result<Recorded, Fail> {
    let (kept, from) = match receipt::kept(ctx, home, call)? {
        Some(kept) => (kept, "the receipt kept here"),
        // Only who calls is told of calls.
        None if !home.cert_roles().iter().any(|role| matches!(role, CertRole::Workload | CertRole::Person)) => {
            return Err(not_held());
        }
        None => (receipt::on_record(call, home.fetch_call(call).await?), "the broker, proven"),
    };
    // Claim, credential and outcome as far as this folder can, as `receipt verify` does.
    checked(home, &kept, call)?;
    let held = receipt::receipt(&kept)?;
    let grant = grant_of(held)?;
    let failed = |why: &dyn std::fmt::Display| Fail::Verification(format!("`{call}`: {why}"));
    let keys = home.tag_keys()?;
    let tag_key = keys.of(&Scope::Grant(grant)).map_err(|error| failed(&error))?;
    let verified = verify_receipt(held, &home.log_trust()?, tag_key, grant, call).map_err(|error| failed(&error))?;
    Ok(Recorded {
        admission: verified.admission().clone(),
        finished: verified.finished().map(|(_, event)| event.clone()),
        from: from.to_owned(),
    })
}

fn mirrored(ctx: &Ctx, dir: &Path, trust: &Trust, call: CallId) -> Result<Recorded, Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let mirror = Mirror::at(dir);
    let (mut admission, mut finished) = (None, None);
    for proven in prove::find(&mirror, &demands, call)? {
        let held = prove::hold(&mirror, &demands, &format!("the mirrored record of `{call}`"), &proven)?;
        let opened = held.record.opened();
        match opened.header().kind {
            CALL_ADMITTED => admission = opened.event::<CallAdmitted>().ok(),
            CALL_FINISHED => finished = opened.event::<CallFinished>().ok(),
            _ => {}
        }
    }
    let admission = admission.ok_or_else(|| Fail::from(MirrorError::NoCall(call.to_string())))?;
    Ok(Recorded { admission, finished, from: format!("the mirror `{}`", dir.display()) })
}

/// What commits to the request.
fn request(recorded: &Recorded, key: &[u8; BODY_KEY_BYTES], bytes: &[u8], call: CallId) -> Result<Vec<String>, Fail> {
    let statement = recorded.admission.claim.as_ref();
    let claim: Option<CallClaim> = statement.and_then(|statement| envelope::read_claim(statement).ok());
    let claim = claim.ok_or_else(|| Fail::Verification(format!("`{call}`: the admission carries no claim")))?;
    if claim.body_mac == body_mac(key, bytes) {
        return Ok(vec!["the caller's signed claim".to_owned()]);
    }
    Err(Fail::Verification(format!("the file, {} bytes, is not the body that `{call}` was claimed with", bytes.len())))
}

/// How many events the answer has, and what commits to it.
fn answer(
    recorded: &Recorded,
    key: &[u8; BODY_KEY_BYTES],
    bytes: &[u8],
    call: CallId,
) -> Result<(u64, Vec<String>), Fail> {
    let finished = recorded.finished.as_ref();
    let finished = finished.ok_or_else(|| Fail::Local(format!("the end of `{call}` is not on record")))?;
    let outcome: Option<OutcomeClaim> =
        finished.outcome.as_ref().and_then(|statement| envelope::read_claim(statement).ok());
    let mut commitments =
        vec![("what the broker handed on", finished.released_events, finished.released_chain.clone())];
    if let Some(outcome) = outcome {
        commitments.push((
            "what the lab's connector signed as handed on",
            outcome.released_events,
            outcome.released_chain,
        ));
        commitments.push((
            "what the lab's connector signed as received from the model server",
            outcome.received_events,
            outcome.received_chain,
        ));
    }
    let mut counts = Vec::new();
    for events in forms(bytes) {
        let mut chain = ResponseChain::new(key);
        for event in &events {
            chain.push(event);
        }
        let (count, value) = (chain.count(), chain.value());
        let agree = commitments.iter().filter(|(_, events, chain)| *events == count && *chain == value);
        let agree: Vec<String> = agree.map(|(what, _, _)| (*what).to_owned()).collect();
        if !agree.is_empty() {
            return Ok((count, agree));
        }
        counts.push(count.to_string());
    }
    counts.dedup();
    Err(Fail::Verification(format!(
        "the file, {} bytes and {} events, is not the answer of `{call}`, of which {} events are on record",
        bytes.len(),
        counts.join(" or "),
        finished.released_events
    )))
}

/// What a file may hold: a whole body, events one a line, or an event stream.
fn forms(bytes: &[u8]) -> Vec<Vec<Bytes>> {
    let whole = Bytes::copy_from_slice(bytes);
    let mut forms = vec![vec![whole.clone()]];
    if let Some(shorter) = bytes.strip_suffix(b"\n") {
        // Editors end a file with a line feed.
        forms.push(vec![Bytes::copy_from_slice(shorter)]);
    }
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    forms.push(lines.filter(|line| !line.is_empty()).map(Bytes::copy_from_slice).collect());
    let (mut splitter, mut rest, mut events) = (SseSplitter::new(bytes.len().saturating_add(1)), whole, Vec::new());
    while let Ok(Some(event)) = splitter.next_event(&mut rest) {
        events.push(event.data);
    }
    forms.push(events);
    forms
}

/// Where `--keep` puts a call's request and answer, so that they can be proven later.
#[derive(Debug)]
pub(crate) struct Keep {
    dir: PathBuf,
    request: Bytes,
    answer: Vec<u8>,
}

impl Keep {
    /// In `dir`, made if needed, for its owner alone.
    pub(crate) fn new(dir: &Path, request: &Bytes) -> Result<Self, Fail> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|why| HomeError::Io { path: dir.to_owned(), why })?;
        Ok(Self { dir: dir.to_owned(), request: request.clone(), answer: Vec::new() })
    }

    /// An event, as an event stream has it: the only form that keeps every event apart from the next.
    pub(crate) fn event(&mut self, data: &[u8]) {
        for line in data.split(|byte| *byte == b'\n') {
            self.answer.extend_from_slice(b"data: ");
            self.answer.extend_from_slice(line);
            self.answer.push(b'\n');
        }
        self.answer.push(b'\n');
    }

    /// A whole body.
    pub(crate) fn body(&mut self, body: &[u8]) {
        self.answer = body.to_vec();
    }

    /// The same for a call that failed, whose own failure is what there is to tell.
    pub(crate) fn write_anyway(&self, ctx: &Ctx, call: CallId) {
        if let Err(fail) = self.write(call) {
            ctx.out.note(&fail.text());
        }
    }

    /// Writes `CALL.request` and `CALL.answer`.
    pub(crate) fn write(&self, call: CallId) -> Result<(), Fail> {
        use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
        for (name, bytes) in [("request", self.request.as_ref()), ("answer", self.answer.as_slice())] {
            let path = self.dir.join(format!("{call}.{name}"));
            let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
            let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
            written.map_err(|why| HomeError::Io { path, why })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn recorded(events: &[&[u8]], end: &str) -> Recorded {
        let mut chain = ResponseChain::new(&KEY);
        events.iter().for_each(|event| chain.push(event));
        let finished = CallFinished {
            end: end.to_owned(),
            released_events: chain.count(),
            released_chain: chain.value().to_vec(),
            ..CallFinished::default()
        };
        Recorded { admission: CallAdmitted::default(), finished: Some(finished), from: String::new() }
    }

    fn call() -> CallId {
        CallId::new(1, [1; 10])
    }

    #[test]
    fn an_answer_is_proven_in_every_form_it_is_kept_in() {
        let check =
            |events: &[&[u8]], file: &[u8]| answer(&recorded(events, "completed"), &KEY, file, call()).unwrap().0;
        assert_eq!(check(&[b"{\"a\":1}"], b"{\"a\":1}"), 1);
        assert_eq!(check(&[b"{\"a\":1}"], b"{\"a\":1}\n"), 1);
        assert_eq!(check(&[b"one", b"[DONE]"], b"one\n[DONE]\n"), 2);
        assert_eq!(check(&[b"one", b"[DONE]"], b"data: one\n\ndata: [DONE]\n\n"), 2);
    }

    #[test]
    fn what_is_kept_of_a_stream_proves_it_even_if_an_event_has_several_lines() {
        let events: [&[u8]; 4] = [b"one", b"two\nlines", b" led by a blank", b"[DONE]"];
        let mut keep = Keep { dir: PathBuf::new(), request: Bytes::new(), answer: Vec::new() };
        events.iter().for_each(|event| keep.event(event));
        assert_eq!(answer(&recorded(&events, "completed"), &KEY, &keep.answer, call()).unwrap().0, 4);
    }

    #[test]
    fn another_answer_and_another_order_are_a_failed_verification() {
        for file in [b"one\nthree\n".as_slice(), b"two\none\n", b"one\n", b"one\ntwo\nthree\n", b""] {
            let refused = answer(&recorded(&[b"one", b"two"], "completed"), &KEY, file, call());
            assert!(matches!(refused, Err(Fail::Verification(_))), "{file:?}");
        }
    }
}
