//! Golden vectors: one record of every kind, byte by byte.
//!
//! `testdata/records.txt` holds for each kind the record, its digest and its entry under fixed seed, scope and place. Whoever
//! writes a verifier elsewhere can start from it; whoever changes a byte of a format breaks it.

mod brokers;
mod contacts;
mod logkeys;

use std::{fmt::Write as _, sync::Arc};

use anteroom_proto::{
    ledger::{
        leaf::Entry,
        record::{Audience, KINDS, Opened, Seed},
        scope::Scope,
    },
    names::{CallId, Digest, GrantId, LockId, ModelLine, OrgId, Pseudonym, RunId, Variant},
    rpc::{SignedStatement, StatementSignature},
    statement::{
        Payload,
        acts::{
            Appointment, Disposition, DispositionAction, Hold, HoldRelease, Lock, LockTarget, Resume, RunCredential,
            Stop, StopKind,
        },
        key::{Algorithm, PublicKey},
        key_set::{Enrolment, KeyRole, KeySet, OrgKind, RoleKey, Thresholds},
        model::Registration,
        roster::{Person, Roster, Tri},
        rules::{LineBudget, Narrowing, WatchList, Watched},
        succession::{Countersignature, OpenCalls, Succession},
        terms::{
            Budget, CallLimits, Endpoint, Features, MarkingTerms, ModelTerms, Party, PolicyTerms, RunTerms,
            ScannerLocks, Terms, WindowTerms,
        },
    },
    time::{At, Term, Window},
};

use crate::{
    event::{
        Admitted, Alike, ClockKey, ClockTrust, Dep, Disposed, Event, Finished, Presence, Refused,
        SuccessionCountersigned, SuccessionOffered,
    },
    record::{self, Place},
};

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

fn at(ms: i64) -> At {
    At::from_ms(1_795_000_000_000 + ms).unwrap()
}

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn key(byte: u8) -> PublicKey {
    PublicKey::new(Algorithm::Ed25519, vec![byte; 32]).unwrap()
}

fn signed<P: Payload>(payload: &P) -> SignedStatement {
    SignedStatement {
        payload_type: P::TYPE.to_owned(),
        payload: serde_json::to_vec(payload).unwrap(),
        signatures: vec![StatementSignature { key_id: vec![1; 8], algorithm: 1, signature: vec![2; 64] }],
    }
}

fn opaque(payload_type: &str) -> SignedStatement {
    SignedStatement { payload_type: payload_type.to_owned(), payload: b"{}".to_vec(), signatures: Vec::new() }
}

fn dep(scope: Scope) -> Dep {
    Dep { scope, head: Entry::from_bytes([7; 48]), index: 3, seq: 1, values: "locks=0".to_owned() }
}

/// Terms within every bound.
pub(crate) fn terms() -> Terms {
    Terms {
        version: 1,
        grant: GrantId::from_bytes([0x11; 16]),
        nonce: digest(0x12),
        lab: Party { org: org("lab-a"), key_set: digest(0x13) },
        agency: Party { org: org("agency-a"), key_set: digest(0x14) },
        sponsor: Party { org: org("agency-a"), key_set: digest(0x14) },
        instrument: "agreement 7".to_owned(),
        model: ModelTerms {
            line: ModelLine::parse("aurora").unwrap(),
            builds: vec![digest(0x15)],
            variants: vec![Variant::parse("standard").unwrap()],
            lowered: Vec::new(),
            unrelated_to: Vec::new(),
        },
        window: WindowTerms {
            start_ms: None,
            term_ms: Term::MAX,
            partner_release_ms: None,
            accept_by_ms: at(60_000),
            pause_ms_max: Some(3_600_000),
        },
        features: Features { chat: true, streaming: true, ..Features::default() },
        roster: digest(0x16),
        runs: vec![RunTerms {
            id: RunId::parse("run-a").unwrap(),
            purpose: "evaluation".to_owned(),
            budget: Budget { calls: 10, tokens: 100_000, open: 4 },
            networks: Vec::new(),
            content_profile: "default".to_owned(),
        }],
        limits: CallLimits {
            body_bytes_max: 65_536,
            tokens_max: 8_192,
            default_max_tokens: 256,
            image_tokens: 1_024,
            repeats_max: None,
        },
        budget: Budget { calls: 10, tokens: 100_000, open: 4 },
        marking: MarkingTerms::default(),
        policy: PolicyTerms { baseline: digest(0x17), additions: String::new(), contact: None },
        endpoint: Endpoint::Connector,
        scanner_locks: ScannerLocks::Run,
    }
}

/// One event of every kind, with the scope it belongs to.
fn samples() -> Vec<(Scope, Event)> {
    let grant = GrantId::from_bytes([0x11; 16]);
    let call = CallId::new(at(0).ms(), [9; 10]);
    let (lab, agency) = (org("lab-a"), org("agency-a"));
    let in_grant = Scope::Grant(grant);
    let in_lab = Scope::Organisation(lab.clone());
    let in_agency = Scope::Organisation(agency.clone());
    let window = Window::between(at(0), at(1_000));
    let key_set = KeySet {
        org: lab.clone(),
        kind: OrgKind::Lab,
        version: 1,
        previous: None,
        threshold: Thresholds { root: 1, signer: 1 },
        keys: vec![RoleKey { role: KeyRole::Root, key: key(1) }, RoleKey { role: KeyRole::Signer, key: key(2) }],
    };
    let enrolment = Enrolment {
        org: lab.clone(),
        key_set: digest(1),
        nonce: digest(2),
        roster_nonce: digest(3),
        reads_nonce: digest(4),
    };
    let manifest: Arc<[u8]> = Arc::from(&b"{\"manifest\":1}"[..]);
    let registration = Registration {
        lab: lab.clone(),
        line: ModelLine::parse("aurora").unwrap(),
        manifest: Digest::of(&manifest),
        supersedes: None,
    };
    let roster = Roster {
        org: agency.clone(),
        people: vec![Person {
            pseudonym: Pseudonym::parse("p-1").unwrap(),
            key: key(3),
            employer: "agency".to_owned(),
            us_person: Tri::Yes,
            us_only: Tri::Unknown,
            rel_to_ok: Vec::new(),
            clearance: 1,
            read_ins: Vec::new(),
            valid_from_ms: at(0),
            valid_until_ms: at(9_000),
            trained_until_ms: at(9_000),
            rest: digest(5),
        }],
    };
    let credential = RunCredential {
        grant,
        run: RunId::parse("run-a").unwrap(),
        org: agency.clone(),
        pseudonym: Pseudonym::parse("p-1").unwrap(),
        workload: key(4),
        start_ms: at(0),
        end_ms: at(8_000),
    };
    let lock = Lock {
        id: LockId::from_bytes([6; 16]),
        by: lab.clone(),
        target: LockTarget::Person { org: agency.clone(), pseudonym: Pseudonym::parse("p-1").unwrap() },
        reason: "drill".to_owned(),
    };
    let pause = Stop {
        stop: StopKind::Pause,
        grant,
        by: lab.clone(),
        id: LockId::from_bytes([7; 16]),
        reason: "drill".to_owned(),
    };
    let resume = Resume { grant, by: lab.clone(), pause: pause.id, reason: "over".to_owned() };
    let appointment =
        Appointment { by: lab.clone(), reader: org("oversight"), grant: Some(grant), until_ms: at(9_000) };
    let roster_statement = signed(&roster);
    let credential_statement = signed(&credential);
    let admitted = Admitted {
        call,
        pseudonym: Pseudonym::parse("p-1").unwrap(),
        credential: Digest::of(&credential_statement.payload),
        claim: opaque("application/vnd.anteroom.call.v1+protobuf"),
        run: RunId::parse("run-a").unwrap(),
        body_key: [8; 32],
        policy: digest(9),
        facts: Arc::from(&[10u8, 4, b'c', b'h', b'a', b't'][..]),
        reasons: vec!["grant".to_owned()],
        hold: 512,
        end: at(1_000),
        lab: dep(in_lab.clone()),
        agency: dep(in_agency.clone()),
        roster: dep(Scope::Roster(agency.clone())),
        system: dep(Scope::System),
    };
    let refused = Refused {
        call: Some(call),
        code: "budget_spent".to_owned(),
        caller: "agency-a/workload/eval".to_owned(),
        values: "asked=1".to_owned(),
        ..Refused::default()
    };
    let finished = Finished {
        call,
        admitted: 40,
        end: "completed".to_owned(),
        outcome: Some(opaque("application/vnd.anteroom.outcome.v1+protobuf")),
        released_events: 5,
        released_chain: [11; 32],
        charged: 77,
        status: 200,
        cut: None,
    };
    let stop = opaque("application/vnd.anteroom.stop.v1+json");
    let hold_id = LockId::from_bytes([23; 16]);
    let hold = Hold { id: hold_id, by: lab.clone(), scope: in_grant.clone(), reason: "a suit".to_owned() };
    let release = HoldRelease { hold: hold_id, by: lab.clone(), reason: "settled".to_owned() };
    let disposition = Disposition {
        by: org("operator"),
        scope: in_grant.clone(),
        action: DispositionAction::Destroyed,
        schedule: "schedule 4".to_owned(),
        at_ms: at(0),
    };
    let terms = terms();
    let terms_bytes: Arc<[u8]> = serde_json::to_vec(&terms).unwrap().into();
    vec![
        (
            Scope::System,
            Event::LogOpened { origin: "log.example/a".to_owned(), log_key: "vkey".to_owned(), nonce: digest(1) },
        ),
        (Scope::System, Event::BrokerStarted { version: "0.1.0".to_owned(), open_calls: 2 }),
        (
            Scope::System,
            Event::ClockChanged { trust: ClockTrust::Trusted, source: "lab-a/c-1".to_owned(), wall: at(0).ms() },
        ),
        (
            Scope::System,
            Event::ClockStarted {
                key: ClockKey { lab: lab.clone(), line: ModelLine::parse("aurora").unwrap(), sponsor: agency.clone() },
                window,
                grant,
            },
        ),
        (
            in_lab.clone(),
            Event::OrganisationEnrolled {
                kind: OrgKind::Lab,
                enrolment_statement: signed(&enrolment),
                key_set_statement: signed(&key_set),
                enrolment,
                key_set: key_set.clone(),
            },
        ),
        (in_lab.clone(), Event::KeySetChanged { statement: signed(&key_set), key_set }),
        (
            in_agency.clone(),
            Event::MembershipStated {
                agency: agency.clone(),
                sponsor: org("sponsor"),
                statement: opaque("application/vnd.anteroom.membership.v1+json"),
            },
        ),
        (in_lab.clone(), Event::ModelRegistered { statement: signed(&registration), registration, manifest }),
        (
            Scope::Roster(agency.clone()),
            Event::RosterPublished {
                digest: Digest::of(&roster_statement.payload),
                roster: Arc::new(roster),
                statement: roster_statement,
                private: Arc::from(&b"[]"[..]),
            },
        ),
        (in_agency.clone(), Event::GrantOpened { grant, lab: lab.clone(), agency: agency.clone(), terms: digest(2) }),
        (
            in_agency,
            Event::ActRefused {
                code: "not_yours".to_owned(),
                payload_type: "x".to_owned(),
                payload: digest(3),
                caller: "agency-a/person/a".to_owned(),
            },
        ),
        (in_grant.clone(), Event::ReaderAppointed { statement: signed(&appointment), appointment }),
        (
            in_grant.clone(),
            Event::GrantOffered {
                terms: Arc::new(terms),
                terms_bytes,
                offer: opaque("application/vnd.anteroom.offer.v1+json"),
            },
        ),
        (in_grant.clone(), Event::GrantAccepted { acceptance: opaque("application/vnd.anteroom.acceptance.v1+json") }),
        (in_grant.clone(), Event::GrantDeclined { statement: opaque("application/vnd.anteroom.decline.v1+json") }),
        (in_grant.clone(), Event::GrantLapsed { lapsed: at(5) }),
        (in_grant.clone(), Event::GrantActivated { window, clock: dep(Scope::System) }),
        (
            in_grant.clone(),
            Event::GrantPaused { by: lab.clone(), id: pause.id, until: Some(at(99)), statement: signed(&pause) },
        ),
        (in_grant.clone(), Event::GrantResumed { by: lab.clone(), statement: signed(&resume) }),
        (in_grant.clone(), Event::GrantWithdrawn { statement: stop.clone(), cut: at(6) }),
        (in_grant.clone(), Event::GrantRelinquished { statement: stop, cut: at(6) }),
        (in_grant.clone(), Event::GrantExpired { end: at(1_000) }),
        (
            in_grant.clone(),
            Event::RunCredentialIssued {
                digest: Digest::of(&credential_statement.payload),
                credential,
                statement: credential_statement,
            },
        ),
        (in_lab.clone(), Event::LockSet { statement: signed(&lock), lock: lock.clone() }),
        (
            in_lab.clone(),
            Event::LockLifted {
                lock: lock.id,
                by: lab.clone(),
                statement: opaque("application/vnd.anteroom.lift.v1+json"),
            },
        ),
        (in_grant.clone(), Event::CallAdmitted(Box::new(admitted))),
        (in_grant.clone(), Event::CallRefused(Box::new(refused))),
        (
            in_grant.clone(),
            Event::RefusalsCounted {
                code: "budget_spent".to_owned(),
                caller: "agency-a/workload/eval".to_owned(),
                count: 12,
                first: at(1),
                last: at(2),
            },
        ),
        (in_grant.clone(), Event::CallFinished(Box::new(finished))),
        (in_grant.clone(), Event::CallAbandoned { call, admitted: 40 }),
        (in_grant.clone(), Event::CallSettled { call, outcome: None, charged: 512 }),
        (
            Scope::Reads(lab.clone()),
            Event::ReadOpened { reader: "lab-a/auditor/a".to_owned(), target: in_grant.clone(), from_seq: 3 },
        ),
        (Scope::System, Event::Snapshotted { size: 9, root: digest(20), state: digest(21) }),
        (in_lab.clone(), Event::HoldSet { statement: signed(&hold), hold }),
        (in_lab.clone(), Event::HoldReleased { hold: release.hold, by: lab, statement: signed(&release) }),
        (
            in_lab,
            Event::Disposed(Box::new(Disposed {
                scope: in_grant,
                action: disposition.action,
                schedule: disposition.schedule.clone(),
                records: 41,
                last_index: 77,
                last_entry: Entry::from_bytes([22; 48]),
                statement: signed(&disposition),
            })),
        ),
    ]
    .into_iter()
    .chain(added(grant, call))
    .chain(successions(grant))
    .chain(contacts::samples(grant))
    .chain(brokers::samples())
    .chain(logkeys::samples())
    .collect()
}

/// What is added to grants, and what the scanner finds.
fn added(grant: GrantId, call: CallId) -> Vec<(Scope, Event)> {
    let lab = org("lab-a");
    let (in_grant, in_lab) = (Scope::Grant(grant), Scope::Organisation(lab.clone()));
    let line = ModelLine::parse("aurora").unwrap();
    let narrowing = Narrowing {
        grant,
        by: lab.clone(),
        after: digest(30),
        rules: "@id(\"a\") forbid (principal, action, resource);".to_owned(),
        reason: "counsel".to_owned(),
    };
    let list_bytes: Arc<[u8]> =
        format!(r#"{{"nonce":"{}","canaries":["heron-seven"]}}"#, digest(31)).into_bytes().into();
    let list = Watched::parse(&list_bytes).unwrap();
    let watch = WatchList { grant, by: lab.clone(), list: Digest::of(&list_bytes), previous: None };
    let budget = LineBudget { by: lab.clone(), line: line.clone(), calls: 10, tokens: 1000, previous: None };
    vec![
        (in_grant.clone(), Event::RulesAdded { statement: signed(&narrowing), narrowing: Arc::new(narrowing) }),
        (
            in_grant.clone(),
            Event::WatchListSet { statement: signed(&watch), watch, list: Some(Arc::new(list)), list_bytes },
        ),
        (in_lab.clone(), Event::LineBudgetSet { statement: signed(&budget), budget }),
        (
            in_grant.clone(),
            Event::ScannerLocked {
                lock: LockId::from_bytes([32; 16]),
                call,
                target: LockTarget::Run { grant, run: RunId::parse("run-a").unwrap() },
            },
        ),
        (in_grant.clone(), Event::PromptsAlike(Alike { count: 64, first: at(1), runs: 2, people: 1 })),
        (in_lab, Event::LineBudgetHit { grant, call, line, values: "line_held=1".to_owned() }),
        (in_grant.clone(), Event::Presence(Presence::Away { since: at(3), down_since: Some(at(2)) })),
        (in_grant, Event::Presence(Presence::Back { since: at(4) })),
    ]
}

/// A build takes another's place.
fn successions(grant: GrantId) -> Vec<(Scope, Event)> {
    let succession = Succession {
        grant,
        by: org("lab-a"),
        from: digest(0x15),
        to: digest(0x40),
        at_ms: Some(at(700)),
        open_calls: OpenCalls::Cut,
        previous: None,
        reason: "mends the tokenizer".to_owned(),
    };
    let statement = signed(&succession);
    let countersignature =
        Countersignature { grant, by: org("agency-a"), succession: Digest::of(&statement.payload), at_ms: at(700) };
    let offered = SuccessionOffered { succession, statement };
    let taken = SuccessionCountersigned { statement: signed(&countersignature), countersignature };
    vec![
        (Scope::Grant(grant), Event::SuccessionOffered(Box::new(offered))),
        (Scope::Grant(grant), Event::SuccessionCountersigned(Box::new(taken))),
    ]
}

#[test]
fn records_are_the_golden_ones() {
    let nonce = digest(0xee);
    let seed = Seed::from_bytes([0x5e; 32]);
    let mut text = String::from("# kind name, record, digest, entry; all hexadecimal. See `policy/src/golden.rs`.\n");
    for (index, (scope, event)) in samples().into_iter().enumerate() {
        let index = index as u64;
        let place = Place { index, at: at(0), scope: &scope, seq: index + 1, prev: Entry::from_bytes([0xab; 48]) };
        let record = record::encode(&place, &event).unwrap();
        let key = scope.tag_key(&nonce);
        let entry = record.entry(&seed, &key);
        let read = record::decode(&record, entry).unwrap();
        assert_eq!(read.event, event, "{event:?}");
        assert_eq!(record::encode(&place, &read.event).unwrap().bytes(), record.bytes());
        for audience in [Audience::SCOPE, Audience::LAB, Audience::AGENCY, Audience::ALL] {
            assert_eq!(Opened::check(&record.open(&seed, audience)).unwrap().entry(&key), entry);
        }
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let spec = record.spec();
        writeln!(
            text,
            "{} {}\n{}\n{}\n{}",
            spec.kind,
            spec.name,
            hex(record.bytes()),
            record.digest(&seed),
            hex(entry.as_bytes())
        )
        .unwrap();
    }
    let shown = text.lines().skip(1).step_by(4).count();
    assert_eq!(shown, KINDS.len(), "every kind has a vector");
    expect_test::expect_file!["../testdata/records.txt"].assert_eq(&text);
}

#[test]
fn terms_of_before_the_messages_route_keep_their_bytes() {
    let without = serde_json::to_string(&terms()).unwrap();
    assert!(without.contains("\"responses\":false,\"streaming\":true") && !without.contains("messages"));
    assert_eq!(Terms::parse(without.as_bytes()).unwrap(), terms());
    let mut lent = terms();
    lent.features.messages = true;
    let with = serde_json::to_string(&lent).unwrap();
    assert_eq!(with, without.replace("\"streaming\"", "\"messages\":true,\"streaming\""));
    assert_eq!(Terms::parse(with.as_bytes()).unwrap(), lent);
    lent.features.tools = vec!["web_fetch".to_owned()];
    assert!(lent.takes_two_people() && !terms().takes_two_people());
}
