//! What has to hold at the end, by the ledger on disk and the receipts in the agency's folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Output,
};

use anteroom_policy::event::Event;
use anteroom_proto::names::GrantId;
use anteroom_tests::e2e::book::Book;
use serde_json::{Value, json};

use super::{
    super::{Fallible, report::round},
    clients::Tally,
    watch::{Grown, SLACK, Watched, back},
};

/// How much a process may grow beside what it has to remember, in megabytes: allocators keep what they got.
const GROWTH_MB_MAX: f64 = 8.0;
/// What a broker remembers of a call for a day, with room: identifiers, accounts, the index's memory.
const BROKER_BYTES_A_CALL: f64 = 2_048.0;
/// The same of a connector, which remembers the calls that it has seen.
const CONNECTOR_BYTES_A_CALL: f64 = 512.0;
/// A gateway remembers nothing of a call that is over, but for the place of its receipt.
const GATEWAY_BYTES_A_CALL: f64 = 256.0;

/// One thing that has to hold.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) found: String,
    pub(super) held: bool,
}

impl Check {
    pub(super) fn holds(what: &str, held: bool, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), found: found.into(), held }
    }

    fn none(what: &str, found: u64) -> Self {
        Self::holds(what, found == 0, found.to_string())
    }
}

/// What the ledger and the receipts say.
#[derive(Clone, Default, Debug)]
pub(super) struct Ledger {
    admitted: u64,
    finished: u64,
    abandoned: u64,
    settled: u64,
    /// Calls with another number of ends than one.
    ends_wrong: u64,
    /// Calls that the accounts still hold; those abandoned and not settled keep theirs for a day.
    held: u64,
    open: u64,
    charged_tokens: u64,
    settled_tokens: u64,
    settled_calls: u64,
    receipts: u64,
    receipts_failed: String,
    /// Receipts whose record is not in the ledger at the place that they name.
    receipts_without_record: u64,
    /// Calls that a client got whole and that have no receipt, or no record of a whole answer.
    answered_without_receipt: u64,
    answered_without_record: u64,
    /// Requests that reached the model, and those that reached it again.
    asked: u64,
    asked_again: u64,
}

impl Ledger {
    /// Reads the ledger of a broker that has ended. Reading it verifies it: every record against its entry, chain and signed root.
    pub(super) fn read(
        data: &Path,
        grant: GrantId,
        verified: &Output,
        tally: &Tally,
        asked: Vec<String>,
    ) -> Fallible<Self> {
        let mut ledger = Self::default();
        // By call: index of the admission, ends, and whether it came to a whole answer.
        let mut calls: BTreeMap<String, (u64, u64, bool)> = BTreeMap::new();
        let mut abandoned = BTreeSet::new();
        let book = Book::read(data, |entered, _| match &entered.event {
            Event::CallAdmitted(call) => {
                ledger.admitted += 1;
                calls.insert(call.call.to_string(), (entered.index, 0, false));
            }
            Event::CallFinished(call) => {
                ledger.finished += 1;
                ledger.charged_tokens += call.charged;
                if let Some(known) = calls.get_mut(&call.call.to_string()) {
                    known.1 += 1;
                    known.2 = call.end == "completed";
                }
            }
            Event::CallAbandoned { call, .. } => {
                ledger.abandoned += 1;
                abandoned.insert(call.to_string());
                if let Some(known) = calls.get_mut(&call.to_string()) {
                    known.1 += 1;
                }
            }
            Event::CallSettled { call, charged, .. } => {
                ledger.settled += 1;
                ledger.charged_tokens += charged;
                // It ends an abandoned call and no other.
                if !abandoned.remove(&call.to_string()) {
                    ledger.ends_wrong += 1;
                }
            }
            _ => {}
        })?;
        ledger.ends_wrong += calls.values().filter(|(_, ends, _)| *ends != 1).count() as u64;
        let account = book.state.accounts(&grant).ok_or("the ledger knows no such grant")?.grant;
        (ledger.held, ledger.open) = (account.held().0, account.open());
        (ledger.settled_calls, ledger.settled_tokens) = account.settled();
        ledger.receipts(verified, tally, &calls);
        ledger.asked = asked.len() as u64;
        let mut seen = BTreeSet::new();
        ledger.asked_again = asked.iter().filter(|question| !seen.insert(*question)).count() as u64;
        Ok(ledger)
    }

    fn receipts(&mut self, verified: &Output, tally: &Tally, calls: &BTreeMap<String, (u64, u64, bool)>) {
        let rows: Vec<Value> = serde_json::from_slice(&verified.stdout).unwrap_or_default();
        if !verified.status.success() {
            let said = String::from_utf8_lossy(&verified.stderr);
            self.receipts_failed = said.lines().next().unwrap_or("it failed and said nothing").to_owned();
        }
        self.receipts = rows.len() as u64;
        let mut kept = BTreeSet::new();
        for row in &rows {
            let call = row["call"].as_str().unwrap_or_default();
            kept.insert(call);
            if calls.get(call).map(|known| known.0) != row["index"].as_u64() {
                self.receipts_without_record += 1;
            }
        }
        for call in &tally.answered {
            self.answered_without_receipt += u64::from(!kept.contains(call.as_str()));
            self.answered_without_record += u64::from(!calls.get(call).is_some_and(|known| known.2));
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "admitted": self.admitted, "finished": self.finished, "abandoned": self.abandoned, "settled": self.settled,
            "held": self.held, "receipts": self.receipts, "asked": self.asked, "charged_tokens": self.charged_tokens,
        })
    }
}

/// Everything that has to hold.
pub(super) fn of(tally: &Tally, ledger: &Ledger, before: &Watched, after: &Watched, grown: &[Grown]) -> Vec<Check> {
    let unsettled = ledger.abandoned.saturating_sub(ledger.settled);
    let mut all = vec![
        Check::holds("calls were made", tally.calls() > 0, tally.calls().to_string()),
        Check::none("calls that neither ended nor spoke for two minutes", tally.stuck),
        Check::none("files of requests that did not come to their end", tally.unfinished),
        Check::holds(
            "no stream, call or waiting one at rest",
            after.open_calls + after.waiting == 0.0,
            format!("{} and {}", after.open_calls, after.waiting),
        ),
        Check::holds(
            "every slot at rest is idle",
            after.slots_open > 0.0 && after.slots_open == after.slots_idle,
            format!("{} of {}", after.slots_idle, after.slots_open),
        ),
        Check::none("calls that the ledger has open", ledger.open),
        Check::holds(
            "calls held are those that a kill left without an end",
            ledger.held == unsettled,
            format!("{} held, {unsettled} without an end", ledger.held),
        ),
        Check::none("admitted calls with another number of ends than one", ledger.ends_wrong),
        Check::holds(
            "each call was charged once",
            ledger.settled_calls == ledger.finished + ledger.settled && ledger.settled_tokens == ledger.charged_tokens,
            format!("{} calls, {} tokens", ledger.settled_calls, ledger.settled_tokens),
        ),
        Check::none("questions that reached the model twice", ledger.asked_again),
        Check::holds(
            "the model was asked no more than was admitted",
            ledger.asked <= ledger.admitted,
            format!("{} of {}", ledger.asked, ledger.admitted),
        ),
        Check::holds(
            "every receipt verifies offline",
            ledger.receipts_failed.is_empty() && ledger.receipts > 0,
            if ledger.receipts_failed.is_empty() {
                ledger.receipts.to_string()
            } else {
                ledger.receipts_failed.clone()
            },
        ),
        Check::none("receipts whose record is not in the ledger", ledger.receipts_without_record),
        Check::none("answered calls without a receipt", ledger.answered_without_receipt),
        Check::none("answered calls without a record of it", ledger.answered_without_record),
        Check::holds("descriptors and threads are back", back(before, after), more(before, after)),
    ];
    for grown in grown {
        let a_call = match grown.name {
            "broker" => BROKER_BYTES_A_CALL,
            "connector" => CONNECTOR_BYTES_A_CALL,
            _ => GATEWAY_BYTES_A_CALL,
        };
        let found = grown.bytes_a_call * grown.calls / (1024.0 * 1024.0);
        let bound = GROWTH_MB_MAX + a_call * grown.calls / (1024.0 * 1024.0);
        all.push(Check::holds(
            &format!("the {} does not grow beyond what it remembers", grown.name),
            found <= bound,
            format!("{} MB over {} calls, bound {}", round(found), round(grown.calls), round(bound)),
        ));
        all.push(Check::holds(
            &format!("the {} has as many descriptors and threads under load at the end as before", grown.name),
            grown.descriptors.max(grown.threads) <= SLACK as f64,
            format!("{} and {} more, {SLACK} are allowed", round(grown.descriptors), round(grown.threads)),
        ));
    }
    all
}

/// How many more descriptors and threads each has at rest.
fn more(before: &Watched, after: &Watched) -> String {
    let each = before.processes.iter().zip(&after.processes).map(|(before, after)| {
        let [descriptors, threads] = [(before.descriptors, after.descriptors), (before.threads, after.threads)]
            .map(|(before, after)| after.cast_signed() - before.cast_signed());
        format!("{} {descriptors:+} and {threads:+}", before.name)
    });
    format!("{}; {SLACK} more are allowed", each.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut Ledger);

    fn held(tally: &Tally, ledger: &Ledger, after: &Watched, bytes_a_call: f64) -> Vec<String> {
        held_with(tally, ledger, after, bytes_a_call, 0.0)
    }

    fn held_with(tally: &Tally, ledger: &Ledger, after: &Watched, bytes_a_call: f64, descriptors: f64) -> Vec<String> {
        let calls = 100_000.0;
        let grown = [Grown { name: "gateway", mb_an_hour: 0.0, bytes_a_call, calls, descriptors, threads: 0.0 }];
        let checks = of(tally, ledger, &Watched::at_rest(), after, &grown);
        checks.into_iter().filter(|check| !check.held).map(|check| check.what).collect()
    }

    fn sound() -> (Tally, Ledger) {
        let ledger = Ledger {
            admitted: 10,
            finished: 8,
            abandoned: 2,
            settled: 1,
            held: 1,
            charged_tokens: 90,
            settled_tokens: 90,
            settled_calls: 9,
            receipts: 7,
            asked: 9,
            ..Ledger::default()
        };
        (Tally::of_calls(10), ledger)
    }

    #[test]
    fn what_is_sound_holds_and_each_fault_is_found() {
        let (tally, ledger) = sound();
        let rest = Watched::at_rest();
        assert_eq!(held(&tally, &ledger, &rest, 60.0), Vec::<String>::new());
        let faults: [(&str, Spoil); 11] = [
            ("calls that the ledger has open", |ledger| ledger.open = 1),
            ("calls held are those", |ledger| ledger.held = 2),
            ("another number of ends", |ledger| ledger.ends_wrong = 1),
            ("charged once", |ledger| ledger.settled_calls = 10),
            ("charged once", |ledger| ledger.charged_tokens = 91),
            ("reached the model twice", |ledger| ledger.asked_again = 1),
            ("asked no more", |ledger| ledger.asked = 11),
            ("verifies offline", |ledger| ledger.receipts_failed = "it does not".to_owned()),
            ("record is not in the ledger", |ledger| ledger.receipts_without_record = 1),
            ("without a receipt", |ledger| ledger.answered_without_receipt = 1),
            ("without a record", |ledger| ledger.answered_without_record = 1),
        ];
        for (what, spoil) in faults {
            let mut ledger = ledger.clone();
            spoil(&mut ledger);
            let found = held(&tally, &ledger, &rest, 60.0);
            assert!(found.len() == 1 && found[0].contains(what), "{what}: {found:?}");
        }
        assert_eq!(held(&tally, &ledger, &rest, 6_000.0), ["the gateway does not grow beyond what it remembers"]);
        assert_eq!(
            held_with(&tally, &ledger, &rest, 60.0, 40.0),
            ["the gateway has as many descriptors and threads under load at the end as before"]
        );
        let mut leaking = rest.clone();
        leaking.processes[0].descriptors += SLACK + 1;
        assert_eq!(held(&tally, &ledger, &leaking, 60.0), ["descriptors and threads are back"]);
        let mut open = rest.clone();
        open.open_calls = 1.0;
        assert_eq!(held(&tally, &ledger, &open, 60.0), ["no stream, call or waiting one at rest"]);
        let mut stuck = tally;
        stuck.stuck = 1;
        assert_eq!(held(&stuck, &ledger, &rest, 60.0), ["calls that neither ended nor spoke for two minutes"]);
    }
}
