//! The end of a grant with many streams open: how long until nothing more leaves, and until each client is told.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anteroom_broker::demo::cast::LAB;
use anteroom_proto::{
    names::OrgId,
    rpc::{CallEvent, SubmitRequest, acts_client::ActsClient, call_event::Event},
    statement::{
        acts::{Stop, StopKind},
        envelope::sign_json,
    },
};
use anteroom_sdk::{home::Use, system};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tonic::Streaming;

use super::{
    Fallible,
    answers::Manner,
    machine::{self, Metrics},
    report::{Table, round},
    setup::World,
    stats::Latencies,
};

/// Streams on one connection of the evaluators.
const STREAMS_PER_CONNECTION: usize = 100;
/// One stream in so many is read by nobody once it has begun, and is sent as much as its windows take.
const SLOW_EVERY: usize = 10;
/// How long a stream may take to be told.
const TOLD_MAX: Duration = Duration::from_secs(30);
/// How long things go on undisturbed before the cut.
const SETTLE: Duration = Duration::from_secs(3);
/// Streams that are being opened at once.
const OPENING: usize = 64;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Streams.
    pub streams: usize,
    /// Cuts, each with new streams under a new grant.
    pub rounds: usize,
    /// Chunks a second on each stream that is read.
    pub rate: f64,
    /// Core of the broker.
    pub core: Option<usize>,
}

struct Cut {
    acknowledged: Duration,
    told: Latencies,
    /// Chunks that a reader got after the withdrawal was acknowledged.
    late_chunks: usize,
    codes: Vec<String>,
    slow: usize,
    slow_late: usize,
    before: Metrics,
    after: Metrics,
}

/// Opens the streams, withdraws, and reports; once a round.
pub async fn run(plan: &Plan, program: &Path, folder: &Path) -> Fallible<(String, Value)> {
    let mut world = World::start(program, folder, plan.core).await?;
    let mut table = Table::new(&[
        "round",
        "streams (slow)",
        "acknowledged ms",
        "client told p50 ms",
        "p99",
        "p99.9",
        "last",
        "chunks read after the acknowledgement",
        "told by a code",
        "slow that got more after the cut than windows hold",
    ]);
    let (mut rows, mut metrics) = (Vec::new(), None::<(Metrics, Metrics)>);
    for number in 0..plan.rounds {
        // A slot whose outcome came too late was closed by the broker.
        world.serve(plan.streams + 8, Duration::from_secs_f64(1.0 / plan.rate)).await?;
        let cut = once(&mut world, plan).await?;
        let [p50, p99, p999, last] = cut.told.quantiles([0.5, 0.99, 0.999, 1.0]).map(|micros| micros / 1_000.0);
        let coded = cut.codes.iter().filter(|code| !code.is_empty()).count();
        let acknowledged = cut.acknowledged.as_secs_f64() * 1_000.0;
        table.row(vec![
            number.to_string(),
            format!("{} ({})", plan.streams, cut.slow),
            round(acknowledged),
            round(p50),
            round(p99),
            round(p999),
            round(last),
            cut.late_chunks.to_string(),
            format!("{coded} of {}", cut.codes.len()),
            cut.slow_late.to_string(),
        ]);
        rows.push(json!({
            "streams": plan.streams, "slow": cut.slow, "acknowledged_ms": acknowledged, "told_ms":
            {"p50": p50, "p99": p99, "p999": p999, "last": last}, "told_us_histogram": cut.told.histogram(),
            "told_by_a_code": coded, "chunks_after_acknowledgement": cut.late_chunks, "slow_with_more_than_windows": cut.slow_late,
        }));
        let first = metrics.map_or(cut.before, |(first, _)| first);
        metrics = Some((first, cut.after));
    }
    let mut text = format!(
        "{}\n\n{} streams, one in {SLOW_EVERY} read by nobody, {} chunks/s on each of the others.\n\n{}",
        machine::describe(),
        plan.streams,
        plan.rate,
        table.text()
    );
    let mut seen = Vec::new();
    if let Some((before, after)) = &metrics {
        let mut table =
            Table::new(&["the broker's own histograms, upper bounds", "count", "p50 ms", "p99 ms", "p99.9 ms"]);
        for name in cut_histograms(after) {
            let at = |q| after.quantile(&name, q, before).map_or(f64::NAN, |seconds| seconds * 1_000.0);
            let count = after.of(&format!("{name}_count")) - before.of(&format!("{name}_count"));
            table.row(vec![name.clone(), round(count), round(at(0.5)), round(at(0.99)), round(at(0.999))]);
            seen.push(
                json!({"name": name, "count": count, "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999)}),
            );
        }
        text.push('\n');
        text.push_str(table.text());
    }
    Ok((text, json!({"machine": machine::describe(), "rounds": rows, "broker_histograms": seen})))
}

/// Histograms that are about cuts.
fn cut_histograms(metrics: &Metrics) -> Vec<String> {
    let names = metrics.beginning("anteroom_cut").filter_map(|(name, _)| name.strip_suffix("_count"));
    names.map(str::to_owned).collect()
}

async fn once(world: &mut World, plan: &Plan) -> Fallible<Cut> {
    let caller = world.caller().await?;
    let clients = world.clients(plan.streams.div_ceil(STREAMS_PER_CONNECTION)).await?;
    let (cut_at, cut_seen) = watch::channel(None::<Instant>);
    let (acked_at, acked_seen) = watch::channel(false);
    let opened = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for number in 0..plan.streams {
        let slow = number % SLOW_EVERY == 0;
        let manner = if slow { Manner::Flood } else { Manner::Trickle };
        let request = caller.request(&manner.body(&caller.line))?;
        let mut client = clients[number / STREAMS_PER_CONNECTION].clone();
        let (began, cut_seen, acked_seen) = (Arc::clone(&opened), cut_seen.clone(), acked_seen.clone());
        readers.spawn(async move {
            let mut stream = client.stream(request).await?.into_inner();
            let first = stream.message().await?;
            if !matches!(first, Some(CallEvent { event: Some(Event::Admitted(_)), .. })) {
                return Err("a stream began without its admission".into());
            }
            began.fetch_add(1, Ordering::Relaxed);
            if slow { later(stream, cut_seen).await } else { read(stream, cut_seen, acked_seen).await }
        });
        // A reader that failed fails the whole at once.
        while number + 1 - opened.load(Ordering::Relaxed) >= OPENING {
            if let Some(ended) = readers.try_join_next() {
                ended??;
                return Err("a stream ended before the cut".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    machine::until(TOLD_MAX, "every stream is open", || {
        let open = opened.load(Ordering::Relaxed);
        async move { Ok(open == plan.streams) }
    })
    .await?;
    tokio::time::sleep(SETTLE).await;
    let before = world.metrics().await?;

    let stop = Stop {
        stop: StopKind::Withdraw,
        grant: caller.grant,
        by: OrgId::parse(LAB)?,
        id: system::lock_id()?,
        reason: "the benchmark's end".to_owned(),
    };
    let statement = sign_json(&stop, &[&world.cast.lab.signer("stop")?])?;
    let mut acts = ActsClient::new(world.cast.lab.channel(Use::Act).await?);
    let sent = Instant::now();
    cut_at.send_replace(Some(sent));
    let _ = acts
        .submit(SubmitRequest { statement: Some(statement), attachment: Vec::new(), key_set: None })
        .await?
        .into_inner();
    let acknowledged = sent.elapsed();
    acked_at.send_replace(true);

    let mut cut = Cut {
        acknowledged,
        told: Latencies::default(),
        late_chunks: 0,
        codes: Vec::new(),
        slow: 0,
        slow_late: 0,
        before,
        after: Metrics::default(),
    };
    while let Some(ended) = timeout(TOLD_MAX, readers.join_next()).await.map_err(|_| "a stream was never told")? {
        match ended?? {
            Ended::Told { after, late, code } => {
                cut.told.add(after);
                cut.late_chunks += late;
                cut.codes.push(code);
            }
            Ended::Late { beyond_windows } => {
                cut.slow += 1;
                cut.slow_late += usize::from(beyond_windows);
            }
        }
    }
    // The last ends are recorded behind the answer to the withdrawal.
    machine::until(TOLD_MAX, "every end is recorded", || async {
        Ok(world.metrics().await?.of("anteroom_open_calls") == 0.0)
    })
    .await?;
    cut.after = world.metrics().await?;
    Ok(cut)
}

/// How a stream ended for its reader.
enum Ended {
    /// The reader was told, so long after the withdrawal was sent, and got so many chunks after it was acknowledged.
    Told { after: Duration, late: usize, code: String },
    /// Nobody read until the cut was over.
    Late { beyond_windows: bool },
}

/// Reads to the end.
async fn read(
    mut stream: Streaming<CallEvent>,
    cut: watch::Receiver<Option<Instant>>,
    acknowledged: watch::Receiver<bool>,
) -> Fallible<Ended> {
    let mut late = 0;
    loop {
        match stream.message().await {
            Ok(Some(CallEvent { event: Some(Event::Data(_)), .. })) => late += usize::from(*acknowledged.borrow()),
            ended => {
                let Some(sent) = *cut.borrow() else { return Err("a stream ended before the cut".into()) };
                let code = match &ended {
                    Err(status) => status.message().to_owned(),
                    Ok(_) => String::new(),
                };
                return Ok(Ended::Told { after: sent.elapsed(), late, code });
            }
        }
    }
}

/// Reads nothing until a while after the cut, then everything.
async fn later(mut stream: Streaming<CallEvent>, mut cut: watch::Receiver<Option<Instant>>) -> Fallible<Ended> {
    cut.wait_for(Option::is_some).await?;
    tokio::time::sleep(SETTLE).await;
    let mut bytes = 0;
    while let Ok(Some(CallEvent { event: Some(Event::Data(data)), .. })) = stream.message().await {
        bytes += data.len();
    }
    // The client's window, the broker's buffer and what one read had taken already.
    Ok(Ended::Late { beyond_windows: bytes > 2 * 64 * 1024 })
}
