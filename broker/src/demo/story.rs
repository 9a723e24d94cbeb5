//! The story: a lab lends a model, an agency uses it, it ends by itself, an auditor proves it.
//!
//! Every step goes over the wires that real parties use. A step that comes out otherwise than it must ends the story with an
//! error: the demo is a test that people can watch.

use std::path::{Path, PathBuf};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{
    ledger::{receipt::verify_receipt, scope::Scope},
    names::{GrantId, ModelLine},
    statement::terms::Terms,
    time::At,
};
use anteroom_sdk::{
    connector::{
        Connector, Slots,
        generator::{Generator, Pace},
    },
    error::{Error, Refused},
    evaluator::{AnswerStream, Evaluator, Route, StreamItem},
    store::KeptReceipt,
    system,
};
use bytes::Bytes;

use super::{
    Cast, DemoArgs, DemoError, Plan, cast, evidence,
    tell::{Tell, Who},
};

/// How many events of an answer are shown before the lab withdraws.
const EVENTS_BEFORE_WITHDRAWAL: u32 = 12;
/// Length of the grant that ends by itself, counted from its first call.
const SHORT_TERM_MS: i64 = 3_000;
/// The second line, for the grant that ends by itself.
const SECOND_LINE: &str = "borealis";

pub(super) async fn play(args: DemoArgs) -> Result<(), DemoError> {
    let (dir, kept) = folder(args.dir.as_deref())?;
    let result = scenes(&dir, &args).await;
    if !kept && result.is_ok() {
        // A folder that nobody named is nobody's to clean up; the closing lines say where it is.
        tracing::debug!(dir = %dir.display(), "the demo's folder stays");
    }
    result
}

fn folder(named: Option<&Path>) -> Result<(PathBuf, bool), DemoError> {
    let dir = match named {
        Some(dir) => dir.to_owned(),
        None => std::env::temp_dir().join(format!("anteroom-demo-{}", std::process::id())),
    };
    let file = |source| DemoError::File { path: dir.clone(), source };
    std::fs::create_dir_all(&dir).map_err(file)?;
    let mut entries = std::fs::read_dir(&dir).map_err(file)?;
    if entries.next().is_some() {
        return Err(cast::CastError::NotEmpty(dir).into());
    }
    let dir = dir.canonicalize().map_err(file)?;
    Ok((dir, named.is_some()))
}

async fn scenes(dir: &Path, args: &DemoArgs) -> Result<(), DemoError> {
    let mut tell = Tell::new();
    tell.line("Anteroom: one process plays every part, over real TLS on loopback, with real files.");
    tell.line("The programme is voluntary: nothing here is an official verdict about a model.");

    tell.scene("A broker starts");
    let running = cast::start_broker(dir, 0).await?;
    let log_key = running.log_key().to_owned();
    let addresses = running.addresses();
    tell.act(Who::Operator, &format!("listens on {} with a fresh certificate authority", addresses.programme));
    tell.note(&format!("log key: {log_key}"));
    tell.note("the operator holds no key that could offer, accept, call or appoint");

    tell.scene("The parties enrol");
    let cast = Cast::seed(dir, addresses, &log_key).await?;
    for (who, home) in [(Who::Lab, &cast.lab), (Who::Agency, &cast.agency), (Who::Auditor, &cast.oversight)] {
        let org = home.org()?;
        tell.act(
            who,
            &format!("`{org}` used a one-time token, signed its key set, fingerprint {}", short(&home.fingerprint()?)),
        );
    }
    tell.note("real parties compare fingerprints out of band; here one process pins them across the folders");
    tell.act(
        Who::Lab,
        &format!("registered a build of `{}`, manifest {}", cast::LINE, short(&cast.manifest(cast::LINE)?)),
    );
    tell.act(Who::Agency, "published a roster of two people; names and citizenships stay in the agency's scope");

    tell.scene("A connector starts beside the model server");
    let generator = match &args.upstream {
        Some(_) => None,
        None => {
            let started = Generator::start(Pace::default()).await;
            Some(started.map_err(|source| DemoError::File { path: dir.to_owned(), source })?)
        }
    };
    let upstream = match (&args.upstream, &generator) {
        (Some(url), _) => url.clone(),
        (None, Some(generator)) => generator.base_url().to_owned(),
        (None, None) => return Err(DemoError::Story("there is no model server".to_owned())),
    };
    let connector = cast.connector(cast::LINE, &upstream, Slots { idle_min: 4, max: 8 }).await?;
    ready(&connector).await?;
    trusted(&cast).await?;
    tell.act(
        Who::Lab,
        &format!("dialled out with {} call slots; the model server is {upstream}", connector.status().borrow().open),
    );
    tell.note("its signed clock agrees with the broker's, so calls may pass from here on");

    tell.scene("A grant is offered and accepted");
    let plan = Plan::new(cast::LINE)?;
    let grant = cast.offer(&plan).await?;
    let terms = kept_terms(&cast, grant)?;
    tell.act(Who::Lab, &format!("offered {grant} on signed terms:"));
    for line in summary(&terms) {
        tell.note(&line);
    }
    cast.accept(grant).await?;
    tell.act(Who::Agency, "verified the offer under the pinned fingerprint and signed the same bytes");
    cast.credential(grant, 24).await?;
    tell.act(Who::Agency, &format!("`{}` let a workload's key act in run `{}` for 24 hours", cast::PERSON, cast::RUN));

    tell.scene("An evaluator asks and watches the answer stream");
    let evaluator = cast.evaluator(grant).await?;
    let question = "What is an anteroom for?";
    tell.act(Who::Evaluator, &format!("\u{201c}{question}\u{201d}"));
    let body = chat(cast::LINE, question, 60, false);
    let events = whole(&evaluator, body, &mut tell).await?;
    tell.good(&format!(
        "{events} events, receipt verified: admission and end stand in the log, the connector signed the outcome"
    ));

    tell.scene("A request for what was not granted");
    tell.act(Who::Evaluator, "asks for log-probabilities, which the terms do not grant");
    let refused = expect_refusal(&evaluator, chat(cast::LINE, question, 20, true)).await?;
    if refused.code != Refusal::PolicyDenied.code() {
        return Err(DemoError::Story(format!("the refusal was `{}`", refused.code)));
    }
    tell.cut(&format!("{refused}"));
    tell.note("the model server saw nothing; the refusal is on record with the rule that said no");

    tell.scene("The lab withdraws in mid-stream");
    let body = chat(cast::LINE, "Describe a long quiet corridor.", 4_000, false);
    let (call, refused, seen) = withdrawn(&cast, grant, &evaluator, body, &mut tell).await?;
    expect_code(&refused, Refusal::GrantWithdrawn)?;
    tell.cut(&format!("after {seen} events: {refused}"));
    proven(&cast, &evaluator, call, Refusal::GrantWithdrawn, &mut tell).await?;
    let refused = expect_refusal(&evaluator, chat(cast::LINE, question, 20, false)).await?;
    expect_code(&refused, Refusal::GrantWithdrawn)?;
    tell.good("a new call under the grant is refused with the same code");
    // One process at a time keeps an agency's receipts.
    drop(evaluator);

    tell.scene("Another grant ends by itself");
    cast.register(SECOND_LINE, "borealis-2026-11").await?;
    let second = cast.connector(SECOND_LINE, &upstream, Slots { idle_min: 2, max: 4 }).await?;
    ready(&second).await?;
    let mut plan = Plan::new(SECOND_LINE)?;
    plan.term_ms = SHORT_TERM_MS;
    plan.unrelated_to = vec![ModelLine::parse(cast::LINE).map_err(cast::CastError::from)?];
    let short_grant = cast.granted(&plan).await?;
    tell.act(Who::Lab, &format!("lends another line, `{SECOND_LINE}`, for {SHORT_TERM_MS} ms from the first call"));
    tell.note("both sides' signed terms say that the lines are unrelated, or a new name could start a new clock");
    let evaluator = cast.evaluator(short_grant).await?;
    let body = chat(SECOND_LINE, "Tell a very long story.", 4_000, false);
    let mut stream = evaluator.stream(Route::Chat, body).await?;
    let call = stream.call();
    let (refused, seen) = until_cut(&mut stream, &mut tell, |_| {}).await?;
    expect_code(&refused, Refusal::GrantExpired)?;
    tell.cut(&format!("after {seen} events, by the clock alone: {refused}"));
    proven(&cast, &evaluator, call, Refusal::GrantExpired, &mut tell).await?;
    drop((stream, evaluator));

    tell.scene("An independent auditor proves it");
    for grant in [grant, short_grant] {
        cast.appoint(grant, 24).await?;
    }
    tell.act(
        Who::Auditor,
        &format!("`{}` was appointed by both parties' signatures and reads the log", cast::OVERSIGHT),
    );
    let evidence = evidence::gather(&cast, &[grant, short_grant], &dir.join("mirror")).await?;
    for (scope, records) in &evidence.slices {
        tell.good(&format!("{scope}: {records} records, gap-free, none withheld, each proven"));
    }
    let report = &evidence.report;
    if report.different > 0 || report.decisions == 0 {
        return Err(DemoError::Story(format!("replay came out otherwise: {report:?}")));
    }
    tell.good(&format!(
        "{} verdicts and {} whole decisions computed again, all the same; {} rest on what only others can see",
        report.verdicts, report.decisions, report.asserted
    ));
    tell.note(&format!("the log holds {} records under one signed root", evidence.log_size));

    connector.drain().await;
    second.drain().await;
    running.drain();
    ended(running).await?;

    tell.scene("Offline, with the broker gone");
    let count = receipts(&cast, &[grant, short_grant])?;
    tell.good(&format!("{count} receipts verified from the evaluator's own folder against the pinned log key"));
    let (entries, slices) = evidence::offline(&cast, &dir.join("mirror"))?;
    tell.good(&format!("the auditor's mirror verified from its files alone: {entries} entries, {slices} scopes whole"));
    closing(&tell, dir);
    Ok(())
}

fn short(digest: &anteroom_proto::names::Digest) -> String {
    digest.to_string().chars().take(16).collect()
}

fn chat(line: &str, question: &str, max_tokens: u32, logprobs: bool) -> Bytes {
    let mut body = serde_json::json!({
        "model": line,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "stream": true,
    });
    if logprobs && let Some(object) = body.as_object_mut() {
        object.insert("logprobs".to_owned(), true.into());
        object.insert("top_logprobs".to_owned(), 5.into());
    }
    body.to_string().into()
}

fn summary(terms: &Terms) -> Vec<String> {
    vec![
        format!("model line `{}`, one build, chat with streaming and nothing else", terms.model.line),
        format!(
            "{} hours from the first call, never more; an offer until {}",
            terms.window.term_ms.ms() / 3_600_000,
            terms.window.accept_by_ms
        ),
        format!("{} calls, {} tokens, {} open at once", terms.budget.calls, terms.budget.tokens, terms.budget.open),
        format!("rules {}", short(&terms.policy.baseline)),
    ]
}

fn kept_terms(cast: &Cast, grant: GrantId) -> Result<Terms, DemoError> {
    cast.lab.terms(grant)?.ok_or_else(|| DemoError::Story("the lab kept no terms".to_owned()))
}

/// Waits until the connector has a slot open.
async fn ready(connector: &Connector) -> Result<(), DemoError> {
    let mut status = connector.status();
    let opened = status.wait_for(|status| status.open > 0).await;
    opened.map(drop).map_err(|_| DemoError::Story("the connector ended before a slot was open".to_owned()))
}

/// Waits until a signed clock has confirmed the broker's.
async fn trusted(cast: &Cast) -> Result<(), DemoError> {
    for _ in 0..200_u32 {
        if cast.lab.who_am_i().await?.clock == "trusted" {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err(DemoError::Story("no clock confirmed the broker's within 10 seconds".to_owned()))
}

/// Streams a whole answer and returns the number of its events.
async fn whole(evaluator: &Evaluator, body: Bytes, tell: &mut Tell) -> Result<u32, DemoError> {
    let mut stream = evaluator.stream(Route::Chat, body).await?;
    let mut events = 0_u32;
    while let Some(item) = stream.next().await? {
        match item {
            StreamItem::Admitted(record) => tell.note(&format!("admitted as record {}", record.header().index)),
            StreamItem::Data(data) => {
                events = events.saturating_add(1);
                tell.stream(&text_of(&data));
            }
            StreamItem::End { status, .. } => {
                tell.end_stream();
                if status != 200 {
                    return Err(DemoError::Story(format!("the model server answered with {status}")));
                }
                return Ok(events);
            }
        }
    }
    Err(DemoError::Story("the stream ended without its end".to_owned()))
}

/// Reads a stream until it is cut; `each` sees how many events came.
async fn until_cut(
    stream: &mut AnswerStream,
    tell: &mut Tell,
    mut each: impl FnMut(u32),
) -> Result<(Refused, u32), DemoError> {
    let mut events = 0_u32;
    loop {
        match stream.next().await {
            Ok(Some(StreamItem::Admitted(_))) => {}
            Ok(Some(StreamItem::Data(data))) => {
                events = events.saturating_add(1);
                tell.stream(&text_of(&data));
                each(events);
            }
            Ok(Some(StreamItem::End { .. })) => {
                tell.end_stream();
                return Err(DemoError::Story("the answer ended before it was cut; ask for a longer one".to_owned()));
            }
            Ok(None) => return Err(DemoError::Story("the stream ended without a word".to_owned())),
            Err(Error::Refused(refused)) => {
                tell.end_stream();
                return Ok((*refused, events));
            }
            Err(error) => {
                tell.end_stream();
                return Err(error.into());
            }
        }
    }
}

/// Streams an answer and withdraws after a few events.
async fn withdrawn(
    cast: &Cast,
    grant: GrantId,
    evaluator: &Evaluator,
    body: Bytes,
    tell: &mut Tell,
) -> Result<(anteroom_proto::names::CallId, Refused, u32), DemoError> {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let lab = cast.lab.clone();
    let withdrawal = tokio::spawn(async move {
        // The stream's end is the other way out: nobody is left to wait for.
        let _ = wait.await;
        let signer = lab.stop_signer()?;
        let before = system::now();
        let recorded = lab.lab().await?.withdraw(grant, "the evaluation ends early", &signer).await?;
        lab.keep_act(&recorded)?;
        Ok::<(At, At), anteroom_sdk::home::HomeError>((before, system::now()))
    });
    let mut stream = evaluator.stream(Route::Chat, body).await?;
    let call = stream.call();
    let mut go = Some(go);
    let (refused, seen) = until_cut(&mut stream, tell, |events| {
        if events >= EVENTS_BEFORE_WITHDRAWAL
            && let Some(go) = go.take()
        {
            let _ = go.send(());
        }
    })
    .await?;
    let (before, after) = withdrawal.await.map_err(|error| DemoError::Story(error.to_string()))??;
    tell.act(
        Who::Lab,
        &format!("one signature by the stop key; acknowledged as durable after {} ms", after.since(before)),
    );
    Ok((call, refused, seen))
}

/// Fetches a cut call's receipt and holds it against the pinned log key.
async fn proven(
    cast: &Cast,
    evaluator: &Evaluator,
    call: anteroom_proto::names::CallId,
    refusal: Refusal,
    tell: &mut Tell,
) -> Result<(), DemoError> {
    // The end is made durable a moment after the cut; the broker says how the call stands.
    for _ in 0..200_u32 {
        let recorded = evaluator.recorded(call).await?;
        if recorded.state != "open"
            && let Some(receipt) = &recorded.receipt
        {
            let dossier = evaluator.dossier();
            let verified =
                verify_receipt(receipt, &cast.agency.log_trust()?, &dossier.tag_key(), dossier.terms().grant, call)
                    .map_err(|error| DemoError::Story(format!("the receipt of a cut call does not hold: {error}")))?;
            let end = verified.finished().map(|(_, finished)| finished.end.clone()).unwrap_or_default();
            if end != refusal.code() {
                return Err(DemoError::Story(format!("the call is on record as `{end}`")));
            }
            let kept = KeptReceipt {
                call: call.as_bytes().to_vec(),
                receipt: Some(receipt.clone()),
                outcome: recorded.outcome.clone(),
                kept_ms: system::now().ms(),
                witnessed: None,
            };
            evaluator.receipts().keep(kept).await.map_err(Error::from)?;
            tell.good(&format!("the receipt says `{end}`, and what it had cost is charged"));
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Err(DemoError::Story("the end of a cut call was not recorded".to_owned()))
}

async fn expect_refusal(evaluator: &Evaluator, body: Bytes) -> Result<Refused, DemoError> {
    match evaluator.stream(Route::Chat, body).await {
        Ok(mut stream) => match stream.next().await {
            Err(Error::Refused(refused)) => Ok(*refused),
            Err(error) => Err(error.into()),
            Ok(_) => Err(DemoError::Story("a call passed that must not".to_owned())),
        },
        Err(Error::Refused(refused)) => Ok(*refused),
        Err(error) => Err(error.into()),
    }
}

fn expect_code(refused: &Refused, refusal: Refusal) -> Result<(), DemoError> {
    if refused.code == refusal.code() {
        Ok(())
    } else {
        Err(DemoError::Story(format!("`{}` was expected, `{}` came", refusal.code(), refused.code)))
    }
}

/// The text that an event of a streamed chat adds.
fn text_of(data: &[u8]) -> String {
    let Ok(event) = serde_json::from_slice::<serde_json::Value>(data) else { return String::new() };
    event.pointer("/choices/0/delta/content").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// Verifies every kept receipt from the folder alone.
fn receipts(cast: &Cast, grants: &[GrantId]) -> Result<u64, DemoError> {
    let store = cast.agency.receipts()?;
    let trust = cast.agency.log_trust()?;
    let mut verified = 0_u64;
    for call in store.calls() {
        let kept = store.find(call).map_err(Error::from)?;
        let Some(receipt) = kept.and_then(|kept| kept.receipt) else { continue };
        let mut holds = false;
        for grant in grants {
            if let Some(terms) = cast.agency.terms(*grant)? {
                let key = Scope::Grant(*grant).tag_key(&terms.nonce);
                holds |= verify_receipt(&receipt, &trust, &key, *grant, call).is_ok();
            }
        }
        if !holds {
            return Err(DemoError::Story(format!("the kept receipt of {call} does not hold")));
        }
        verified = verified.saturating_add(1);
    }
    if verified == 0 {
        return Err(DemoError::Story("no receipt was kept".to_owned()));
    }
    Ok(verified)
}

/// Waits for the broker's orderly end.
async fn ended(running: crate::boot::Running) -> Result<(), DemoError> {
    match running.ended().await {
        crate::boot::Ended::Fatal(why) | crate::boot::Ended::Contradicted(why) => Err(DemoError::Story(why)),
        crate::boot::Ended::Orderly { .. } => Ok(()),
    }
}

fn closing(tell: &Tell, dir: &Path) {
    let dir = dir.display();
    tell.line("");
    tell.line(&format!("Everything is in {dir}:"));
    tell.line("  operator/            the broker's data: wal/, keys/, pki/, index/, published/");
    tell.line("  lab-a/ agency-a/ oversight-a/   keys, pins, signed acts; agency-a/receipts/ the receipts");
    tell.line(
        "  mirror/              the log in C2SP's tlog-tiles layout, for any verifier; mirror/anteroom/ what is ours",
    );
    tell.line("");
    tell.line("What to try next:");
    tell.line("  cargo build --release --workspace        # the `anteroom` command beside the broker");
    tell.line("  target/release/anteroom-broker dev       # a broker that stays, with the same parties");
    tell.line(&format!("  target/release/anteroom-broker fsck --config {dir}/operator.toml"));
    tell.line(&format!("  target/release/anteroom --home {dir}/oversight-a audit verify --mirror {dir}/mirror"));
    tell.line(&format!("  target/release/anteroom --home {dir}/agency-a receipt list"));
}
