//! How cost grows: with the records in the ledger, with grants in force, with streams that are open.
//!
//! At each size a few rounds of the same load go to the broker and to the plain pass-through, which knows nothing of any size, by turns.
//! What the machine does to both is taken out: a figure is judged by its ratio to the pass-through's beside it.

mod open;
mod plot;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use serde_json::{Value, json};

use self::{
    open::Streams,
    plot::{Growth, bars, growth},
};
use super::{
    Fallible,
    answers::Manner,
    contender::{Contender, Round, Way},
    load::Amount,
    machine,
    report::{Table, round},
    run::{BROKER, Plain},
    setup::World,
    stats::Spread,
};

/// Connections to each: one certificate may make 200 calls a second.
const CONNECTIONS: usize = 64;
/// Clients while the ledger is filled.
const FILLING: usize = 64;
/// Rounds at each size.
const ROUNDS: usize = 5;
/// One call of a round for so many records that are there.
const RECORDS_A_CALL: u64 = 20;
/// How long the broker is watched with no calls.
const REST: Duration = Duration::from_secs(2);
/// Between two chunks of an open stream.
const IDLE: Duration = Duration::from_secs(60);

/// What grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Axis {
    /// Records in the ledger.
    Records,
    /// Grants in force, to which the calls go by turns.
    Grants,
    /// Streams open, on which little is said.
    Streams,
}

impl Axis {
    const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Grants => "grants",
            Self::Streams => "open streams",
        }
    }

    fn sizes(self, long: bool) -> Vec<u64> {
        let mut sizes = match self {
            Self::Records => vec![1_000, 10_000, 100_000],
            Self::Grants => vec![1, 10, 100, 1_000],
            Self::Streams => vec![1, 64, 512, 2_048],
        };
        if long {
            sizes.extend(match self {
                Self::Records => Some(1_000_000),
                Self::Grants => None,
                Self::Streams => Some(10_000),
            });
        }
        sizes
    }
}

/// What is tried.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What grows, one after the other.
    pub axes: Vec<Axis>,
    /// Whether the largest sizes are wanted, too.
    pub long: bool,
    /// Sizes above are left out.
    pub most: u64,
    /// Calls of a round; fewer where the ledger is so small that they would change its size much.
    pub calls: u64,
    /// Clients.
    pub clients: usize,
    /// Core of what is tested.
    pub core: Option<usize>,
}

/// What was measured at one size.
struct Point {
    size: u64,
    /// Microseconds of processor time a call, less what passes at rest.
    cpu: Vec<f64>,
    plain_cpu: Vec<f64>,
    /// Median latency of one client.
    p50: Vec<f64>,
    plain_p50: Vec<f64>,
    bytes: f64,
    resident_mb: f64,
    /// Processor milliseconds a second at rest.
    rest_ms: f64,
}

/// A figure of points that is judged.
struct Figure {
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
    growth: Option<Growth>,
}

/// Runs it; the text, the data, and whether nothing grows faster than it may.
pub async fn run(plan: &Plan, program: &Path, folder: &Path) -> Fallible<(String, Value, bool)> {
    let plain = Plain::start(folder, plan.core, CONNECTIONS, None).await?;
    let (mut text, mut data, mut held) = (format!("{}\n", machine::describe()), Vec::new(), true);
    if plan.core.is_none() {
        text.push_str("\nNothing was pinned to a core.\n");
    }
    for axis in &plan.axes {
        let own = folder.join(axis.name().replace(' ', "-"));
        std::fs::create_dir_all(&own)?;
        let points = points(*axis, plan, program, own, &plain.contender).await?;
        let figures = figures(&points);
        held &= figures.iter().filter_map(|figure| figure.growth.as_ref()).all(|growth| growth.held);
        text.push_str(&told(*axis, &points, &figures));
        data.push(json!({
            "axis": axis.name(), "points": points.iter().map(Point::json).collect::<Vec<_>>(),
            "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
            "bytes_resident_each": each(&points),
        }));
    }
    text.push_str(&format!(
        "\nNothing grows faster than its logarithm: **{}**.\n",
        if held { "holds" } else { "does not hold" }
    ));
    Ok((text, json!({"machine": machine::describe(), "pinned": plan.core.is_some(), "axes": data, "held": held}), held))
}

async fn points(axis: Axis, plan: &Plan, program: &Path, folder: PathBuf, plain: &Contender) -> Fallible<Vec<Point>> {
    let mut world = World::start(program, &folder, plan.core).await?;
    world.serve(plan.clients.max(FILLING) + plan.clients, IDLE).await?;
    let mut broker = world.contender(BROKER, CONNECTIONS).await?;
    let mut streams = Streams::default();
    let mut points = Vec::new();
    for size in axis.sizes(plan.long).into_iter().filter(|size| *size <= plan.most) {
        eprintln!("bench: {size} {}", axis.name());
        match axis {
            Axis::Records => fill(&world, &broker, size).await?,
            Axis::Grants => grant(&world, &mut broker, size).await?,
            Axis::Streams => streams.open(&mut world, usize::try_from(size)?, plan.clients, IDLE).await?,
        }
        let calls = match axis {
            Axis::Records => (size / RECORDS_A_CALL).clamp(50.min(plan.calls), plan.calls),
            Axis::Grants | Axis::Streams => plan.calls,
        };
        let point = measure(size, &world, &broker, plain, plan, calls).await?;
        if axis == Axis::Streams {
            streams.check()?;
        }
        eprintln!("bench: {}", point.line());
        points.push(point);
    }
    Ok(points)
}

/// Makes calls until there are so many records, less those of the rounds that follow.
async fn fill(world: &World, broker: &Contender, size: u64) -> Fallible<()> {
    loop {
        let records = world.metrics().await?.of("anteroom_records_written_total") as u64;
        let left = size.saturating_sub(records);
        if left < size / 10 {
            return Ok(());
        }
        // A call is two records. Not all at once, so that somebody who waits sees that it goes on.
        let calls = (left / 2).clamp(10, 20_000);
        let tally = broker.tally(Manner::Whole, FILLING, Amount::Calls(calls)).await?;
        if tally.calls == 0 {
            return Err(format!("the ledger cannot be filled: {:?}", tally.failed.1).into());
        }
        eprintln!("bench: {records} records, {}/s", round(tally.rate() * 2.0));
    }
}

/// Brings grants into force until there are so many, all of them called by turns.
async fn grant(world: &World, broker: &mut Contender, size: u64) -> Fallible<()> {
    let Way::Grpc { callers, .. } = &mut broker.way else { return Ok(()) };
    while (callers.len() as u64) < size {
        callers.push(world.caller().await?);
        if callers.len().is_multiple_of(100) {
            eprintln!("bench: {} grants", callers.len());
        }
    }
    Ok(())
}

async fn measure(
    size: u64,
    world: &World,
    broker: &Contender,
    plain: &Contender,
    plan: &Plan,
    calls: u64,
) -> Fallible<Point> {
    let pid = world.process.pid;
    let before = machine::precise_cpu_seconds(pid)?;
    tokio::time::sleep(REST).await;
    let rest = (machine::precise_cpu_seconds(pid)? - before) / REST.as_secs_f64();
    let mut point = Point {
        size,
        cpu: Vec::new(),
        plain_cpu: Vec::new(),
        p50: Vec::new(),
        plain_p50: Vec::new(),
        bytes: f64::NAN,
        resident_mb: f64::NAN,
        rest_ms: rest * 1e3,
    };
    let bytes = machine::ledger_bytes(&world.wal())?;
    let mut answered = 0;
    for number in 0..ROUNDS {
        for of_broker in if number % 2 == 0 { [true, false] } else { [false, true] } {
            let contender = if of_broker { broker } else { plain };
            let (cpu, p50) = once(contender, plan.clients, calls, if of_broker { rest } else { 0.0 }).await?;
            let (cpus, p50s) = match of_broker {
                true => (&mut point.cpu, &mut point.p50),
                false => (&mut point.plain_cpu, &mut point.plain_p50),
            };
            cpus.push(cpu);
            p50s.push(p50);
            answered += if of_broker { calls + calls / 4 } else { 0 };
        }
    }
    point.bytes = (machine::ledger_bytes(&world.wal())? - bytes) as f64 / answered as f64;
    point.resident_mb = machine::resident_mb(pid)?;
    Ok(point)
}

/// Processor microseconds a call under many clients, and the median latency of one.
async fn once(contender: &Contender, clients: usize, calls: u64, rest: f64) -> Fallible<(f64, f64)> {
    let pid = contender.pid.ok_or("a contender has no process")?;
    let before = machine::precise_cpu_seconds(pid)?;
    let Round { tally, .. } = contender.round(Manner::Whole, clients, Amount::Calls(calls)).await?;
    let cpu = machine::precise_cpu_seconds(pid)? - before - rest * tally.took.as_secs_f64();
    let alone = contender.round(Manner::Whole, 1, Amount::Calls(calls / 4)).await?;
    let [p50] = alone.tally.whole.quantiles([0.5]);
    Ok((cpu * 1e6 / tally.calls as f64, p50))
}

impl Point {
    fn json(&self) -> Value {
        json!({
            "size": self.size, "cpu_us": self.cpu, "pass_through_cpu_us": self.plain_cpu, "p50_us": self.p50,
            "pass_through_p50_us": self.plain_p50, "bytes_on_disk_a_call": self.bytes, "resident_mb": self.resident_mb,
            "rest_cpu_ms_a_second": self.rest_ms,
        })
    }

    fn line(&self) -> String {
        format!(
            "{} CPU µs a call, p50 {} µs, {} bytes a call, {} MB",
            round(median(&self.cpu)),
            round(median(&self.p50)),
            round(self.bytes),
            round(self.resident_mb)
        )
    }
}

impl Figure {
    fn json(&self) -> Value {
        let growth = self.growth.as_ref().map(|growth| {
            json!({"times": growth.times, "power": growth.power, "added_by_decade": growth.decades, "held": growth.held})
        });
        json!({"figure": self.name, "values": self.values, "growth": growth})
    }
}

fn median(values: &[f64]) -> f64 {
    Spread::of(values.iter().copied()).map_or(f64::NAN, |spread| spread.median)
}

/// What is judged, in the units of the first size's pass-through.
fn figures(points: &[Point]) -> Vec<Figure> {
    let sizes: Vec<f64> = points.iter().map(|point| point.size as f64).collect();
    let beside = |own: fn(&Point) -> &[f64], plain: fn(&Point) -> &[f64]| -> (Vec<f64>, f64) {
        let unit = points.first().map_or(f64::NAN, |point| median(plain(point)));
        let mut spread = 0.0_f64;
        let values = points.iter().map(|point| {
            let ratios = own(point).iter().zip(plain(point)).map(|(own, plain)| own / plain * unit);
            let Some(ratio) = Spread::of(ratios) else { return f64::NAN };
            spread = spread.max((ratio.high - ratio.low) / 2.0);
            ratio.median
        });
        (values.collect(), spread)
    };
    let figure = |name, unit, (values, spread): (Vec<f64>, f64)| Figure {
        name,
        unit,
        growth: growth(&sizes, &values, spread),
        values,
    };
    vec![
        figure("CPU a call", "µs", beside(|point| &point.cpu, |point| &point.plain_cpu)),
        figure("p50, one client", "µs", beside(|point| &point.p50, |point| &point.plain_p50)),
        figure("ledger's bytes a call", "bytes", (points.iter().map(|point| point.bytes).collect(), 0.0)),
    ]
}

/// Bytes of memory that one more of what grows takes, between the first size and the last.
fn each(points: &[Point]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    let more = last.size.checked_sub(first.size).filter(|more| *more > 0)?;
    Some((last.resident_mb - first.resident_mb) * 1024.0 * 1024.0 / more as f64)
}

fn told(axis: Axis, points: &[Point], figures: &[Figure]) -> String {
    let mut table = Table::new(&[
        axis.name(),
        "CPU µs a call",
        "pass-through's",
        "p50 µs, one client",
        "pass-through's",
        "ledger's bytes a call",
        "MB resident",
        "CPU ms/s at rest",
    ]);
    for point in points {
        let medians = [&point.cpu, &point.plain_cpu, &point.p50, &point.plain_p50].map(|values| median(values));
        let mut row = vec![point.size.to_string()];
        row.extend(medians.map(round));
        row.extend([point.bytes, point.resident_mb, point.rest_ms].map(round));
        table.row(row);
    }
    let mut out = format!("\n## By {}\n\n{}\n", axis.name(), table.text());
    let labels: Vec<String> = points.iter().map(|point| point.size.to_string()).collect();
    for figure in figures {
        let verdict = match &figure.growth {
            Some(growth) => format!(
                "{} × from first to last, like size^{:.2}; no worse than its logarithm: {}",
                round(growth.times),
                growth.power,
                if growth.held { "yes" } else { "**no**" }
            ),
            None => "nothing to judge".to_owned(),
        };
        let drawn = bars(&labels, &figure.values, figure.unit);
        out.push_str(&format!("{}: {verdict}\n\n```\n{drawn}```\n\n", figure.name));
    }
    let resident: Vec<f64> = points.iter().map(|point| point.resident_mb).collect();
    let one = each(points)
        .map_or_else(String::new, |bytes| format!(", {} bytes for one more of the {}", round(bytes), axis.name()));
    out.push_str(&format!("Memory{one}\n\n```\n{}```\n", bars(&labels, &resident, "MB")));
    out
}
