//! What the rounds come to: tables for people, all of it for machines.

use serde_json::{Value, json};

use super::{
    super::{
        contender::Round,
        machine,
        report::{Table, round},
        stats::Spread,
    },
    Plan,
    field::{BROKER, Books, DIRECT, Field, PLAIN},
    figures::{FIGURES, Figure, Workload, whole},
    goals,
};

/// How many times as fast as the fastest contender the upstream has to be, lest it is what is measured.
const UPSTREAM_TIMES: f64 = 3.0;

pub(super) struct Report<'r> {
    pub(super) plan: &'r Plan,
    pub(super) field: &'r Field,
    pub(super) workloads: &'r [Workload],
    pub(super) done: &'r [Vec<Vec<Round>>],
    pub(super) books: &'r [Books],
    pub(super) direct: &'r [Round],
    pub(super) loads: &'r [f64],
}

impl Report<'_> {
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.field.contenders.iter().position(|contender| contender.name == name)
    }

    fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        self.field.contenders.iter().map(|contender| contender.name.as_str()).enumerate()
    }

    /// A figure of every round of one contender.
    fn values(&self, figure: &Figure, place: usize) -> Vec<f64> {
        let work = self.workloads.iter().position(|work| work.key == figure.workload);
        let rounds = work.and_then(|work| self.done[work].get(place));
        rounds.into_iter().flatten().map(figure.value).collect()
    }

    pub(super) fn median(&self, figure: &Figure, place: usize) -> f64 {
        Spread::of(self.values(figure, place)).map_or(f64::NAN, |spread| spread.median)
    }

    /// Round by round, one contender's figure over another's.
    pub(super) fn ratio(&self, figure: &Figure, place: usize, under: usize) -> Option<Spread> {
        let under = self.values(figure, under);
        Spread::of(self.values(figure, place).iter().zip(&under).map(|(one, other)| one / other))
    }

    pub(super) fn difference(&self, figure: &Figure, place: usize, under: usize) -> Option<Spread> {
        let under = self.values(figure, under);
        Spread::of(self.values(figure, place).iter().zip(&under).map(|(one, other)| one - other))
    }

    /// Figures of workloads that were run and have a column.
    fn columns(&self) -> Vec<&'static Figure> {
        let ran = |figure: &&Figure| self.workloads.iter().any(|work| work.key == figure.workload);
        FIGURES.iter().filter(|figure| !figure.short.is_empty()).filter(ran).collect()
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!(
            "{}\n\n{} rounds of {} s after one that was dropped, {} clients, load average {}. One durable write of a kilobyte: {} µs.\n\n",
            machine::describe(),
            self.plan.rounds.saturating_sub(1),
            self.plan.length.as_secs_f64(),
            self.plan.clients,
            self.loads.iter().map(|load| format!("{load:.1}")).collect::<Vec<_>>().join(", "),
            round(self.field.sync_us),
        );
        if self.plan.core.is_none() {
            out.push_str("Nothing was pinned to a core.\n\n");
        }
        out.push_str("Medians of rounds.\n\n");
        out.push_str(self.side_by_side().text());
        let (over, name) = if self.place(BROKER).is_some() { (BROKER, BROKER) } else { (PLAIN, "The pass-through") };
        if let Some(over) = self.place(over) {
            out.push_str(&format!("\n{name} ÷ each, medians of the rounds' own ratios with their quartiles.\n\n"));
            out.push_str(self.ratios(over).text());
        }
        if let Some(broker) = self.place(BROKER) {
            out.push_str("\nHeld against the goals:\n\n");
            out.push_str(goals::table(self, broker).text());
            out.push_str("\nWhat the broker's own books say:\n\n");
            out.push_str(self.booked().text());
        }
        out.push_str("\nShare of a core that each had, in %, the generator's with it; and the upstream with nothing in between:\n\n");
        out.push_str(self.busy().text());
        for (work, times) in self.workloads.iter().zip(self.upstream_times()) {
            // One client alone waits; it does not show what the upstream can do.
            if work.clients > 1 && times < UPSTREAM_TIMES {
                out.push_str(&format!(
                    "\n**{}**: the upstream alone is {} × as fast as the fastest contender, less than {UPSTREAM_TIMES}: read the \
                     processor time, not the throughput.\n",
                    work.title,
                    round(times)
                ));
            }
        }
        out
    }

    fn side_by_side(&self) -> Table {
        let columns = self.columns();
        let mut head = vec!["contender", "does"];
        head.extend(columns.iter().map(|figure| figure.short));
        head.push("MB resident");
        let mut table = Table::new(&head);
        for (place, name) in self.names() {
            let mut row = vec![name.to_owned(), does(name).to_owned()];
            row.extend(columns.iter().map(|figure| round(self.median(figure, place))));
            row.push(round(self.resident(place)));
            table.row(row);
        }
        table
    }

    fn ratios(&self, over: usize) -> Table {
        let columns = self.columns();
        let mut head = vec!["÷"];
        head.extend(columns.iter().map(|figure| figure.short));
        let mut table = Table::new(&head);
        for (place, name) in self.names().filter(|(place, _)| *place != over) {
            let mut row = vec![name.to_owned()];
            for figure in &columns {
                let ratio = self.ratio(figure, over, place).map_or_else(String::new, |spread| {
                    format!("{} ({}–{})", round(spread.median), round(spread.low), round(spread.high))
                });
                let added = self.difference(figure, over, place).filter(|_| figure.difference);
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
        head.extend(self.names().map(|(_, name)| format!("{name} / generator")));
        head.extend([format!("{DIRECT}: calls/s"), "p50 µs".to_owned(), "× the fastest".to_owned()]);
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        let works = self.workloads.iter().zip(self.done).zip(self.direct).zip(self.upstream_times());
        for (((work, done), direct), times) in works {
            let mut row = vec![work.title.clone()];
            for rounds in done {
                let share = |of: fn(&Round) -> f64| {
                    round(Spread::of(rounds.iter().map(of)).map_or(f64::NAN, |spread| spread.median * 100.0))
                };
                row.push(format!("{} / {}", share(Round::busy), share(Round::generator_busy)));
            }
            row.push(round(direct.tally.rate()));
            row.push(round(whole(direct, 0.5)));
            row.push(round(times));
            table.row(row);
        }
        table
    }

    /// By workload, how many times as many calls the upstream alone answers as the fastest contender.
    fn upstream_times(&self) -> Vec<f64> {
        let works = self.done.iter().zip(self.direct);
        works
            .map(|(done, direct)| {
                let rates = done.iter().filter_map(|rounds| Spread::of(rounds.iter().map(|one| one.tally.rate())));
                let fastest = rates.map(|spread| spread.median).fold(f64::NAN, f64::max);
                direct.tally.rate() / fastest
            })
            .collect()
    }

    fn resident(&self, place: usize) -> f64 {
        let pid = self.field.contenders[place].pid;
        pid.and_then(|pid| machine::resident_mb(pid).ok()).unwrap_or(f64::NAN)
    }

    pub(super) fn data(&self) -> Value {
        let spread = |spread: Option<Spread>| spread.map(Spread::json);
        let broker = self.place(BROKER);
        let plain = self.place(PLAIN).unwrap_or_default();
        let figures: Vec<Value> = FIGURES
            .iter()
            .map(|figure| {
                let contenders: Vec<Value> = self
                    .names()
                    .map(|(place, name)| {
                        json!({
                            "contender": name,
                            "rounds": self.values(figure, place),
                            "ratio_to_pass_through": spread(self.ratio(figure, place, plain)),
                            "difference_to_pass_through": spread(self.difference(figure, place, plain)),
                            "broker_ratio": broker.and_then(|broker| spread(self.ratio(figure, broker, place))),
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
            .zip(self.upstream_times())
            .map(|((work, round), times)| {
                json!({
                    "workload": work.key, "calls_per_second": round.tally.rate(), "p50_us": whole(round, 0.5),
                    "times_the_fastest": times,
                })
            })
            .collect();
        let contenders: Vec<Value> = self
            .names()
            .map(|(place, name)| json!({"contender": name, "does": does(name), "resident_mb": self.resident(place)}))
            .collect();
        json!({
            "machine": machine::describe(), "load_averages": self.loads, "pinned": self.plan.core.is_some(),
            "rounds_kept": self.plan.rounds.saturating_sub(1), "seconds": self.plan.length.as_secs_f64(),
            "clients": self.plan.clients, "sync_us": self.field.sync_us, "contenders": contenders, "figures": figures,
            "goals": broker.map(|broker| goals::data(self, broker)), "broker_books": books, "upstream_alone": direct,
        })
    }
}

/// What a contender does to a call.
fn does(name: &str) -> &'static str {
    match name {
        BROKER => "mTLS, rules, scan, budget, claim, two durable records, receipt",
        "nginx" | "haproxy" | "envoy" => "passes bytes, TLS",
        "nginx checked" | "haproxy checked" => "mTLS, callers by subject, access log",
        "envoy checked" => "mTLS, RBAC by SPIFFE URI, access log",
        "litellm" => "reads and rewrites JSON, no TLS",
        "litellm checked" => "the same, a key, a line a call",
        _ => "mTLS, decodes and encodes",
    }
}
