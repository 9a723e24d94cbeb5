#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::sync::Arc;

use anteroom_policy::event::{
    Admitted, Alike, ClockTrust, Dep, Entered, Event, Finished, Presence, Refused, SuccessionCountersigned,
};
use anteroom_proto::{
    ledger::{leaf::Entry, scope::Scope},
    names::{CallId, Digest, LockId, OrgId, Pseudonym, RunId},
    rpc::SignedStatement,
    statement::{
        acts::{Lock, LockTarget},
        envelope::sign_claim,
        succession::Countersignature,
        terms::Endpoint,
    },
    time::{At, HOUR_MS, Window},
};

use super::{fold::Fold, *};
use crate::verify::world::{NOW, World, key, seed};

const MINUTE: i64 = 60_000;

/// Records of a grant and of the system's scope, written one after the other.
struct Story {
    world: World,
    fold: Fold,
    next: u64,
}

impl Story {
    fn new(asked: Asked) -> Self {
        Self { world: World::new(), fold: Fold::new(asked), next: 0 }
    }

    fn at(&mut self, scope: &Scope, after: i64, event: Event) -> u64 {
        let index = self.next;
        let at = At::clamped(NOW + after);
        self.fold.take(&Entered { index, at, scope: scope.clone(), seq: index, entry: Entry::NONE, event });
        self.next += 1;
        index
    }

    fn own(&mut self, after: i64, event: Event) -> u64 {
        let scope = self.world.scope();
        self.at(&scope, after, event)
    }

    fn system(&mut self, after: i64, event: Event) -> u64 {
        self.at(&Scope::System, after, event)
    }

    fn offered(&mut self) {
        let terms_bytes = self.world.dossier.terms.clone().into();
        let terms = Arc::new(self.world.terms.clone());
        self.own(0, Event::GrantOffered { terms, terms_bytes, offer: signed() });
        self.own(1, Event::GrantAccepted { acceptance: signed() });
    }

    fn active(&mut self, after: i64, hours: i64) {
        let start = At::clamped(NOW + after);
        let window = Window::between(start, start.plus_ms(hours * HOUR_MS));
        self.own(after, Event::GrantActivated { window, clock: dep("start=1\nend=2") });
    }

    fn admitted(&mut self, after: i64, number: u8, person: &str) {
        self.own(after, Event::CallAdmitted(Box::new(call(number, person))));
    }

    fn ended(&mut self, after: i64, number: u8, end: &str, charged: u64) {
        let finished = Finished {
            call: id(number),
            admitted: 0,
            end: end.to_owned(),
            outcome: None,
            released_events: 1,
            released_chain: [0; 32],
            charged,
            status: 200,
            cut: None,
        };
        self.own(after, Event::CallFinished(Box::new(finished)));
    }

    fn refused(&mut self, after: i64, code: &str, rules: &[&str]) -> u64 {
        let refused = Refused {
            code: code.to_owned(),
            reasons: rules.iter().map(ToString::to_string).collect(),
            caller: "agency/workload/w".to_owned(),
            ..Refused::default()
        };
        self.own(after, Event::CallRefused(Box::new(refused)))
    }

    fn report(self) -> Report {
        let log = LogSaid { origin: "log".to_owned(), key: "key".to_owned(), entries: 1, root: "root".to_owned() };
        self.fold.finish(log, Vec::new(), "test")
    }
}

fn signed() -> SignedStatement {
    SignedStatement::default()
}

fn dep(values: &str) -> Dep {
    Dep { scope: Scope::System, head: Entry::NONE, index: 7, seq: 0, values: values.to_owned() }
}

fn id(number: u8) -> CallId {
    CallId::new(NOW, [number; 10])
}

fn call(number: u8, person: &str) -> Admitted {
    Admitted {
        call: id(number),
        pseudonym: Pseudonym::parse(person).unwrap(),
        credential: Digest::of(b"credential"),
        claim: signed(),
        run: RunId::parse("cyber").unwrap(),
        body_key: [0; 32],
        policy: Digest::of(b"policy"),
        facts: Arc::from(Vec::new()),
        reasons: Vec::new(),
        hold: 100,
        end: At::clamped(NOW),
        lab: dep(""),
        agency: dep(""),
        roster: dep(""),
        system: dep(""),
    }
}

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

fn kinds(report: &Report) -> Vec<&str> {
    report.exceptions.iter().map(|exception| exception.kind).collect()
}

#[test]
fn a_withdrawal_is_told_with_its_measured_cut() {
    let mut story = Story::new(Asked::default());
    story.offered();
    story.active(10, 720);
    story.admitted(1_000, 1, "p-1");
    story.ended(2_000, 1, "completed", 40);
    story.admitted(3_000, 2, "p-1");
    story.admitted(3_001, 3, "p-2");
    let act = story.own(5_000, Event::GrantWithdrawn { statement: signed(), cut: At::clamped(NOW + 4_990) });
    story.ended(5_003, 2, "grant_withdrawn", 10);
    story.ended(5_021, 3, "grant_withdrawn", 0);
    let report = story.report();
    let grant = &report.grants[0];
    assert_eq!(grant.stands, "withdrawn");
    let end = grant.ended.clone().unwrap();
    assert_eq!((end.how, end.index, end.calls_cut), ("withdrawn", Some(act), 2));
    assert_eq!((end.record_to_last_end_ms, end.cut_to_last_end_ms), (Some(21), Some(31)));
    let sums = grant.sums;
    assert_eq!((sums.calls, sums.completed, sums.cut, sums.open, sums.held), (3, 1, 2, 0, 0));
    assert_eq!(sums.tokens, 50);
    assert_eq!(grant.ends.get("grant_withdrawn"), Some(&2));
    let people: Vec<_> = grant.people.iter().map(|part| (part.of.as_str(), part.sums.calls)).collect();
    assert_eq!(people, [("p-1", 2), ("p-2", 1)]);
    assert_eq!((grant.runs.len(), grant.runs[0].sums.calls, grant.runs[0].purpose.as_deref()), (1, 3, Some("cyber")));
    assert!(grant.runs[0].budget.is_some());
    assert_eq!(grant.days.iter().map(|day| day.sums.calls).sum::<u64>(), 3);
    assert_eq!(grant.parties.iter().map(|side| side.side).collect::<Vec<_>>(), ["lab", "agency", "sponsor"]);
    assert_eq!(grant.clock.as_ref().unwrap().values, ["start=1", "end=2"]);
    assert_eq!(grant.asserted_by, "lab-asserted");
}

#[test]
fn an_end_without_calls_under_way_measures_no_cut_and_a_window_ends_by_itself() {
    let mut story = Story::new(Asked::default());
    story.offered();
    story.active(10, 1);
    story.admitted(1_000, 1, "p-1");
    story.ended(2_000, 1, "completed", 40);
    // No note of the end is on record, and a record after it.
    story.system(2 * HOUR_MS, Event::BrokerStarted { version: "1".to_owned(), open_calls: 0 });
    let report = story.report();
    let end = report.grants[0].ended.clone().unwrap();
    assert_eq!((end.how, end.index, end.recorded, end.last_call_end), ("expired", None, None, None));
    assert_eq!(end.cut.0, At::clamped(NOW + 10 + HOUR_MS));
    assert_eq!(end.cut_to_last_end_ms, None);
}

#[test]
fn exceptions_come_gravest_first_and_refusals_are_told_by_code() {
    let mut story = Story::new(Asked::default());
    story.system(0, Event::BrokerStarted { version: "1".to_owned(), open_calls: 0 });
    story.offered();
    story.active(10, 720);
    let clock = Event::ClockChanged { trust: ClockTrust::Suspended, source: "drift".to_owned(), wall: NOW };
    story.system(20, clock);
    story.own(30, Event::PromptsAlike(Alike { count: 64, first: At::clamped(NOW), runs: 1, people: 1 }));
    story.admitted(40, 1, "p-1");
    story.own(50, Event::CallAbandoned { call: id(1), admitted: 0 });
    let reason = "<script>".to_owned();
    let target = LockTarget::Run { grant: story.world.terms.grant, run: RunId::parse("cyber").unwrap() };
    let lock = Lock { id: LockId::from_bytes([9; 16]), by: org("lab"), target, reason };
    story.own(60, Event::LockSet { lock, statement: signed() });
    let first = story.refused(70, "broker_denied", &["scanner", "hours"]);
    story.refused(80, "broker_denied", &["scanner"]);
    let counted = Event::RefusalsCounted {
        code: "broker_denied".to_owned(),
        caller: "agency/workload/w".to_owned(),
        count: 5,
        first: At::clamped(NOW),
        last: At::clamped(NOW),
    };
    story.own(90, counted);
    story.own(100, Event::LockLifted { lock: LockId::from_bytes([9; 16]), by: org("lab"), statement: signed() });
    let report = story.report();
    let expected = ["refusals", "lock", "abandoned call", "prompts nearly the same", "clock"];
    assert_eq!(kinds(&report), expected);
    assert_eq!((report.exceptions[0].count, report.exceptions[0].index), (7, first));
    let grant = &report.grants[0];
    assert_eq!((grant.rules.get("scanner"), grant.rules.get("hours")), (Some(&2), Some(&1)));
    assert_eq!((grant.sums.refusals, grant.sums.abandoned, grant.sums.open, grant.sums.held), (7, 1, 0, 100));
    assert_eq!(report.locks[0].lifted.map(|at| at.0), Some(At::clamped(NOW + 100)));
    // The clock was not trusted from then on.
    assert_eq!(report.broker.as_ref().unwrap().untrusted_ms, 80);
}

#[test]
fn a_settled_call_gives_back_what_it_held() {
    let mut story = Story::new(Asked::default());
    story.admitted(40, 1, "p-1");
    story.own(50, Event::CallAbandoned { call: id(1), admitted: 0 });
    story.own(60, Event::CallSettled { call: id(1), outcome: None, charged: 7 });
    let sums = story.report().grants[0].sums;
    assert_eq!((sums.calls, sums.abandoned, sums.held, sums.tokens), (1, 1, 0, 7));
}

#[test]
fn pauses_end_when_resumed_by_themselves_or_with_the_grant() {
    let mut story = Story::new(Asked::default());
    story.offered();
    story.active(0, 720);
    let pause = |by: &str, number, until: Option<i64>| Event::GrantPaused {
        by: org(by),
        id: LockId::from_bytes([number; 16]),
        until: until.map(|after| At::clamped(NOW + after)),
        statement: signed(),
    };
    story.own(0, pause("lab", 1, None));
    story.own(3 * MINUTE - 1, Event::GrantResumed { by: org("lab"), statement: signed() });
    story.own(4 * MINUTE, pause("agency", 2, Some(9 * MINUTE)));
    story.own(10 * MINUTE, pause("lab", 3, None));
    story.own(30 * MINUTE, Event::GrantWithdrawn { statement: signed(), cut: At::clamped(NOW + 30 * MINUTE) });
    let report = story.report();
    let pauses: Vec<_> = report.grants[0].pauses.iter().map(|pause| (pause.how, pause.minutes)).collect();
    assert_eq!(pauses, [("resumed", 3), ("by itself", 5), ("with the grant", 20)]);
}

#[test]
fn a_start_tells_how_long_the_broker_can_have_been_down() {
    let mut story = Story::new(Asked::default());
    story.system(0, Event::BrokerStarted { version: "1".to_owned(), open_calls: 0 });
    story.offered();
    story.system(5 * MINUTE, Event::BrokerStarted { version: "2".to_owned(), open_calls: 3 });
    let report = story.report();
    let broker = report.broker.clone().unwrap();
    assert_eq!(broker.starts.iter().map(|start| start.silent_ms).collect::<Vec<_>>(), [0, 5 * MINUTE - 1]);
    assert_eq!(broker.down_ms_max, 5 * MINUTE - 1);
    assert_eq!(kinds(&report), ["start with calls under way"]);
}

#[test]
fn a_period_counts_what_was_admitted_and_refused_in_it() {
    let asked = Asked { grant: None, from: Some(At::clamped(NOW + 1_000)), to: Some(At::clamped(NOW + 2_000)) };
    let mut story = Story::new(asked);
    story.offered();
    story.active(10, 720);
    story.admitted(999, 1, "p-1");
    story.admitted(1_000, 2, "p-1");
    story.admitted(2_000, 3, "p-1");
    story.refused(1_500, "budget_held", &[]);
    story.refused(2_500, "budget_held", &[]);
    for number in 1..=3 {
        story.ended(3_000, number, "completed", 1);
    }
    let report = story.report();
    let sums = report.grants[0].sums;
    assert_eq!((sums.calls, sums.completed, sums.tokens, sums.refusals), (1, 1, 1, 1));
    assert!(report.not_proven.iter().any(|line| line.contains("period")));
}

#[test]
fn what_is_operator_asserted_is_said() {
    let mut story = Story::new(Asked::default());
    story.world.terms.endpoint = Endpoint::Direct;
    story.offered();
    let report = story.report();
    assert_eq!(report.grants[0].asserted_by, "operator-asserted");
    assert!(report.not_proven.iter().any(|line| line.contains("operator-asserted")));
    assert!(!report.not_proven.iter().any(|line| line.contains("lab-asserted")));
}

#[test]
fn changes_of_builds_and_absences_of_the_lab_are_out_of_the_ordinary_and_a_restart_is_none() {
    let mut story = Story::new(Asked::default());
    story.offered();
    story.active(2, 720);
    let since = At::clamped(NOW + 3);
    story.own(3, Event::Presence(Presence::Away { since, down_since: Some(since) }));
    story.own(4, Event::Presence(Presence::Back { since }));
    let away = story.own(5, Event::Presence(Presence::Away { since, down_since: None }));
    let claim = OutcomeClaim { reported_build: vec![0xab; 32], reported_before: vec![0xcd; 32], ..Default::default() };
    let outcome = Some(sign_claim(&claim, &key(seed::CONNECTOR)).unwrap());
    let changed = story.own(6, Event::CallSettled { call: id(1), outcome, charged: 1 });
    let countersignature = Countersignature {
        grant: story.world.terms.grant,
        by: org("agency"),
        succession: Digest::of(b"succession"),
        at_ms: At::clamped(NOW + 9),
    };
    let taken = SuccessionCountersigned { countersignature, statement: signed() };
    let taken = story.own(7, Event::SuccessionCountersigned(Box::new(taken)));
    let report = story.report();
    assert_eq!(kinds(&report), ["build changed", "behaviour changed", "lab offline"]);
    let indexes: Vec<u64> = report.exceptions.iter().map(|exception| exception.index).collect();
    assert_eq!(indexes, [taken, changed, away]);
    assert!(report.exceptions[1].what.contains("build abababab where it reported cdcdcdcd"));
}

#[test]
fn exceptions_are_bounded_and_those_left_out_are_counted() {
    let mut story = Story::new(Asked::default());
    for _ in 0..LISTED_MAX + 3 {
        story.own(0, Event::CallAbandoned { call: id(1), admitted: 0 });
    }
    let report = story.report();
    assert_eq!((report.exceptions.len(), report.exceptions_left_out), (LISTED_MAX, 3));
}
