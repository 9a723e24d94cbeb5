//! The comparison: every contender under every workload, one after the other, there and back, round after round.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anteroom_proto::{
    names::{Digest, RunId},
    rpc::inference_client::InferenceClient,
};
use anteroom_sdk::{
    signer::{KeyFile, SharedSigner},
    system,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::{
    Fallible,
    answers::{Answers, Manner},
    contender::{Contender, Round},
    load::{self, Caller},
    machine::{self, Process},
    pki::Pki,
    report::{Table, round},
    setup::World,
    stats::{Latencies, Spread},
    upstream,
};

/// What to run, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds, the first of which is dropped.
    pub rounds: usize,
    /// Length of a round of one contender under one workload.
    pub length: Duration,
    /// Clients where there is more than one; four connections or more are each one's own.
    pub clients: usize,
    /// The broker's program; without it the pass-through runs against itself.
    pub broker: Option<PathBuf>,
    /// Whether a second pass-through runs along, to show what a ratio of equals looks like.
    pub control: bool,
    /// Core of the systems under test, if they are pinned.
    pub core: Option<usize>,
}

impl Plan {
    /// Connections to each contender. One certificate may make 200 calls a second, so one client alone needs many to be stopped by
    /// nothing but the broker's work.
    fn connections(&self) -> usize {
        CONNECTIONS_MIN.max(self.clients * 4)
    }
}

struct Workload {
    key: &'static str,
    title: String,
    manner: Manner,
    clients: usize,
}

/// What is read off a round.
struct Figure {
    workload: &'static str,
    title: &'static str,
    value: fn(&Round) -> f64,
    /// Whether the difference says more than the ratio.
    difference: bool,
}

const FIGURES: [Figure; 13] = [
    Figure { workload: "unary", title: "calls/s", value: |round| round.tally.rate(), difference: false },
    Figure { workload: "unary", title: "CPU µs a call", value: Round::cpu_per_call, difference: false },
    Figure { workload: "unary", title: "p50 µs", value: |round| whole(round, 0.5), difference: false },
    Figure { workload: "unary", title: "p99 µs", value: |round| whole(round, 0.99), difference: false },
    Figure { workload: "unary_one", title: "p50 µs", value: |round| whole(round, 0.5), difference: true },
    Figure { workload: "unary_one", title: "p99 µs", value: |round| whole(round, 0.99), difference: true },
    Figure { workload: "unary_one", title: "CPU µs a call", value: Round::cpu_per_call, difference: false },
    Figure { workload: "stream", title: "streams/s", value: |round| round.tally.rate(), difference: false },
    Figure { workload: "stream", title: "CPU µs a stream", value: Round::cpu_per_call, difference: false },
    Figure { workload: "stream", title: "p50 µs", value: |round| whole(round, 0.5), difference: false },
    Figure { workload: "stream_one", title: "first chunk p50 µs", value: |round| first(round, 0.5), difference: true },
    Figure {
        workload: "stream_one", title: "first chunk p99 µs", value: |round| first(round, 0.99), difference: true
    },
    Figure { workload: "stream_one", title: "p50 µs", value: |round| whole(round, 0.5), difference: true },
];

fn whole(round: &Round, q: f64) -> f64 {
    let [value] = round.tally.whole.quantiles([q]);
    value
}

fn first(round: &Round, q: f64) -> f64 {
    let [value] = round.tally.first.quantiles([q]);
    value
}

/// What the broker's own books say about its rounds of one workload.
#[derive(Clone, Debug, Default)]
struct Books {
    calls: u64,
    syncs: f64,
    records: f64,
    bytes: u64,
    admitted: Latencies,
}

const CONNECTIONS_MIN: usize = 64;
const BROKER: &str = "broker";
const PLAIN: &str = "pass-through";
const CONTROL: &str = "pass-through again";
const DIRECT: &str = "upstream alone";

/// Everything under test, held as long as it is.
struct Field {
    contenders: Vec<Contender>,
    direct: Contender,
    world: Option<World>,
    _processes: Vec<Process>,
}

impl Field {
    async fn set(plan: &Plan, folder: &Path) -> Fallible<Self> {
        let mut contenders = Vec::new();
        let world = match &plan.broker {
            Some(program) => {
                let mut world = World::start(program, folder, plan.core).await?;
                world.serve(plan.clients * 2, Duration::ZERO).await?;
                let caller = world.caller().await?;
                let connections = world.clients(plan.connections()).await?;
                contenders.push(Contender { name: BROKER, pid: Some(world.process.pid), connections, caller });
                Some(world)
            }
            None => None,
        };
        let caller = match contenders.first() {
            Some(broker) => Arc::clone(&broker.caller),
            None => nobody()?,
        };
        let pki = Pki::create(folder.join("pki"), &["relay", "caller"])?;
        let answers = Arc::new(Answers::new(&caller.line, vec![0; 32], caller.workload.clone()));
        let upstream = upstream::start(&pki, answers).await?;
        let mut processes = Vec::new();
        for name in if plan.control { vec![PLAIN, CONTROL] } else { vec![PLAIN] } {
            let pki_folder = pki.0.display().to_string();
            let args = ["pass-through", "--pki", &pki_folder, "--upstream", &upstream].map(str::to_owned);
            let log = folder.join(format!("{name}.log"));
            let process = Process::start(&std::env::current_exe()?, &args, plan.core, &log).await?;
            let connections = connect(&pki, process.said("programme")?, plan.connections()).await?;
            contenders.push(Contender { name, pid: Some(process.pid), connections, caller: Arc::clone(&caller) });
            processes.push(process);
        }
        let connections = connect(&pki, &upstream, plan.connections()).await?;
        let direct = Contender { name: DIRECT, pid: None, connections, caller };
        Ok(Self { contenders, direct, world, _processes: processes })
    }

    async fn round(&self, contender: &Contender, work: &Workload, plan: &Plan, books: &mut Books) -> Fallible<Round> {
        let world = self.world.as_ref().filter(|_| contender.name == BROKER);
        let Some(world) = world else { return contender.round(work.manner, work.clients, plan.length).await };
        let (metrics, bytes) = (world.metrics().await?, machine::ledger_bytes(&world.wal())?);
        let round = contender.round(work.manner, work.clients, plan.length).await?;
        let after = world.metrics().await?;
        let more = |name: &str| after.of(name) - metrics.of(name);
        books.calls += round.tally.calls;
        books.syncs += more("anteroom_batches_total");
        books.records += more("anteroom_records_written_total");
        books.bytes += machine::ledger_bytes(&world.wal())? - bytes;
        books.admitted.merge(round.tally.admitted.clone());
        if world.slots_lost() > 0 {
            return Err("the broker lost a slot in mid-benchmark; see its log".into());
        }
        Ok(round)
    }
}

async fn connect(pki: &Pki, address: &str, count: usize) -> Fallible<Vec<InferenceClient<Channel>>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(load::client(pki.connect("caller", address).await?));
    }
    Ok(clients)
}

/// A caller whom nobody checks.
fn nobody() -> Fallible<Arc<Caller>> {
    let workload = SharedSigner::new(KeyFile::from_seed(&system::random()?)?);
    let credential = Digest::of(b"nothing");
    Ok(Arc::new(Caller {
        grant: system::grant_id()?,
        run: RunId::parse("run-a")?,
        credential,
        workload,
        line: "aurora".to_owned(),
    }))
}

/// Runs the comparison; the text and the data.
pub async fn run(plan: &Plan, folder: &Path) -> Fallible<(String, Value)> {
    let clients = plan.clients;
    let workloads = [
        ("unary", format!("unary, 1 KB each way, {clients} clients"), Manner::Whole, clients),
        ("unary_one", "unary, one client".to_owned(), Manner::Whole, 1),
        ("stream", format!("256-chunk streams, {clients} clients"), Manner::Stream, clients),
        ("stream_one", "256-chunk streams, one client".to_owned(), Manner::Stream, 1),
    ]
    .map(|(key, title, manner, clients)| Workload { key, title, manner, clients });
    let field = Field::set(plan, folder).await?;
    let load_before = machine::load_average();
    // done[workload][contender][round]
    let mut done: Vec<Vec<Vec<Round>>> =
        workloads.iter().map(|_| field.contenders.iter().map(|_| Vec::new()).collect()).collect();
    let mut books: Vec<Books> = workloads.iter().map(|_| Books::default()).collect();
    let mut loads = vec![load_before];
    for number in 0..plan.rounds {
        for ((work, rounds), books) in workloads.iter().zip(&mut done).zip(&mut books) {
            let mut order: Vec<usize> = (0..field.contenders.len()).collect();
            // A B, then B A: what drifts with time hits each as often first as last.
            if number % 2 == 1 {
                order.reverse();
            }
            for place in order {
                let contender = &field.contenders[place];
                let mut dropped = Books::default();
                let books = if number == 0 { &mut dropped } else { &mut *books };
                let measured = field.round(contender, work, plan, books).await?;
                eprintln!(
                    "round {number} {:<10} {:<18} {:>8}/s {:>8} CPU µs",
                    work.key,
                    contender.name,
                    round(measured.tally.rate()),
                    round(measured.cpu_per_call())
                );
                if number > 0 {
                    rounds[place].push(measured);
                }
            }
        }
        loads.push(machine::load_average());
    }
    let mut direct = Vec::new();
    for work in &workloads {
        direct.push(field.direct.round(work.manner, work.clients, plan.length).await?);
    }
    let report = Report {
        plan,
        field: &field,
        workloads: &workloads,
        done: &done,
        books: &books,
        direct: &direct,
        loads: &loads,
    };
    let text = report.text()?;
    let data = report.data()?;
    Ok((text, data))
}

struct Report<'r> {
    plan: &'r Plan,
    field: &'r Field,
    workloads: &'r [Workload],
    done: &'r [Vec<Vec<Round>>],
    books: &'r [Books],
    direct: &'r [Round],
    loads: &'r [f64],
}

impl Report<'_> {
    fn place(&self, name: &str) -> Option<usize> {
        self.field.contenders.iter().position(|contender| contender.name == name)
    }

    /// A figure of every round of one contender.
    fn values(&self, figure: &Figure, place: usize) -> Vec<f64> {
        let work = self.workloads.iter().position(|work| work.key == figure.workload);
        let rounds = work.and_then(|work| self.done[work].get(place));
        rounds.into_iter().flatten().map(figure.value).collect()
    }

    /// Round by round, one contender's figure over the plain pass-through's.
    fn ratio(&self, figure: &Figure, place: usize) -> Option<Spread> {
        let plain = self.values(figure, self.place(PLAIN)?);
        Spread::of(self.values(figure, place).iter().zip(&plain).map(|(one, plain)| one / plain))
    }

    fn difference(&self, figure: &Figure, place: usize) -> Option<Spread> {
        let plain = self.values(figure, self.place(PLAIN)?);
        Spread::of(self.values(figure, place).iter().zip(&plain).map(|(one, plain)| one - plain))
    }

    fn text(&self) -> Fallible<String> {
        let mut out = format!(
            "{}\n\n{} rounds of {} s after one that was dropped, {} clients, load average {}.\n\n",
            machine::describe(),
            self.plan.rounds.saturating_sub(1),
            self.plan.length.as_secs_f64(),
            self.plan.clients,
            self.loads.iter().map(|load| format!("{load:.1}")).collect::<Vec<_>>().join(", "),
        );
        if self.plan.core.is_none() {
            out.push_str("Nothing was pinned to a core.\n\n");
        }
        out.push_str("Medians of rounds; ratios are medians of the rounds' own ratios, with their quartiles.\n\n");
        out.push_str(self.compared().text());
        if self.place(BROKER).is_some() {
            out.push_str("\nWhat the broker's own books say:\n\n");
            out.push_str(self.booked().text());
        }
        out.push_str("\nHow busy each side's core was, and how fast the upstream is with nothing in between:\n\n");
        out.push_str(self.busy().text());
        Ok(out)
    }

    fn compared(&self) -> Table {
        let plain = self.place(PLAIN);
        let others: Vec<usize> = (0..self.field.contenders.len()).filter(|place| Some(*place) != plain).collect();
        let mut head = vec!["what".to_owned(), PLAIN.to_owned()];
        for place in &others {
            let name = self.field.contenders[*place].name;
            head.extend([name.to_owned(), format!("{name} ÷ {PLAIN}")]);
        }
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for figure in &FIGURES {
            let title = self.workloads.iter().find(|work| work.key == figure.workload).map_or("", |work| &work.title);
            let median = |place: usize| Spread::of(self.values(figure, place)).map_or(f64::NAN, |spread| spread.median);
            let mut row = vec![format!("{title}: {}", figure.title), round(plain.map_or(f64::NAN, median))];
            for place in &others {
                row.push(round(median(*place)));
                let ratio = self.ratio(figure, *place).map_or_else(String::new, |spread| {
                    format!("{} ({}–{})", round(spread.median), round(spread.low), round(spread.high))
                });
                let added = self.difference(figure, *place).filter(|_| figure.difference);
                row.push(match added {
                    Some(added) => {
                        format!("{ratio}, {}{} µs", if added.median < 0.0 { "" } else { "+" }, round(added.median))
                    }
                    None => ratio,
                });
            }
            table.row(row);
        }
        table
    }

    fn booked(&self) -> Table {
        let mut table = Table::new(&[
            "workload",
            "calls",
            "syncs a call",
            "records a batch",
            "bytes on disk a call",
            "admission p50 µs",
            "p90",
            "p99",
            "p99.9",
        ]);
        for (work, books) in self.workloads.iter().zip(self.books) {
            let calls = books.calls as f64;
            let mut row = vec![work.title.clone(), round(calls)];
            row.extend([books.syncs / calls, books.records / books.syncs, books.bytes as f64 / calls].map(round));
            row.extend(books.admitted.quantiles([0.5, 0.9, 0.99, 0.999]).map(round));
            table.row(row);
        }
        table
    }

    fn busy(&self) -> Table {
        let mut head = vec!["workload".to_owned()];
        for contender in &self.field.contenders {
            head.push(format!("{} %", contender.name));
            head.push("generator %".to_owned());
        }
        head.extend([format!("{DIRECT}: calls/s"), "p50 µs".to_owned()]);
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for ((work, done), direct) in self.workloads.iter().zip(self.done).zip(self.direct) {
            let mut row = vec![work.title.clone()];
            for rounds in done {
                for share in [Round::busy, Round::generator_busy] {
                    row.push(round(Spread::of(rounds.iter().map(share)).map_or(f64::NAN, |s| s.median * 100.0)));
                }
            }
            row.push(round(direct.tally.rate()));
            row.push(round(whole(direct, 0.5)));
            table.row(row);
        }
        table
    }

    fn data(&self) -> Fallible<Value> {
        let figures: Vec<Value> = FIGURES
            .iter()
            .map(|figure| {
                let contenders: Vec<Value> = (0..self.field.contenders.len())
                    .map(|place| {
                        json!({
                            "contender": self.field.contenders[place].name,
                            "rounds": self.values(figure, place),
                            "ratio": self.ratio(figure, place).map(Spread::json),
                            "difference": self.difference(figure, place).map(Spread::json),
                        })
                    })
                    .collect();
                json!({"workload": figure.workload, "figure": figure.title, "contenders": contenders})
            })
            .collect();
        let books: Vec<Value> = self
            .workloads
            .iter()
            .zip(self.books)
            .map(|(work, books)| {
                json!({
                    "workload": work.key, "calls": books.calls, "syncs": books.syncs, "records": books.records,
                    "bytes": books.bytes, "admission_us_histogram": books.admitted.histogram(),
                })
            })
            .collect();
        let direct: Vec<Value> = self
            .workloads
            .iter()
            .zip(self.direct)
            .map(|(work, round)| json!({"workload": work.key, "calls_per_second": round.tally.rate(), "p50_us": whole(round, 0.5)}))
            .collect();
        let resident: Vec<Value> = self
            .field
            .contenders
            .iter()
            .map(|contender| {
                json!({"contender": contender.name, "mb": contender.pid.and_then(|pid| machine::resident_mb(pid).ok())})
            })
            .collect();
        Ok(json!({
            "machine": machine::describe(), "load_averages": self.loads, "pinned": self.plan.core.is_some(),
            "rounds_kept": self.plan.rounds.saturating_sub(1), "seconds": self.plan.length.as_secs_f64(),
            "clients": self.plan.clients, "figures": figures, "broker_books": books, "upstream_alone": direct,
            "resident": resident,
        }))
    }
}
