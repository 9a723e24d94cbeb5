//! Events as bytes: the one file that knows both.
//!
//! **Invariant:** `decode(encode(event)) == event`, and bytes that another encoder could have written differently are refused.

mod brokers;
mod call;
mod contacts;
mod read;
mod retention;
mod rules;
mod succession;

use std::sync::Arc;

use anteroom_proto::{
    ledger::{
        leaf::Entry,
        record::{Opened, Record, RecordError},
        scope::Scope,
    },
    names::{Digest, ModelLine},
    rpc::{self, RecordHeader, SignedStatement},
    statement::{
        acts::{Appointment, Lock, Resume, RunCredential, Stop},
        key_set::{Enrolment, KeySet},
        model::Registration,
        roster::Roster,
        terms::Terms,
    },
    time::At,
};

use prost::Message;

use self::{
    call::{admitted_in, admitted_out, dep_out, refused_in, refused_out},
    read::{
        MISMATCH, NAME, at, bytes32, call, dep, digest, grant, instant, lock_id, org, payload, same, signed, window,
    },
};
use crate::{
    event::{ClockKey, ClockTrust, Entered, Event, Finished},
    logkeys,
};

/// Where a record stands.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Position in the log.
    pub index: u64,
    /// The broker's clock.
    pub at: At,
    /// Its scope.
    pub scope: &'a Scope,
    /// Position in the scope.
    pub seq: u64,
    /// The scope's entry before it.
    pub prev: Entry,
}

/// Writes an event as a record.
///
/// # Errors
/// It is larger than a record may be.
pub fn encode(place: &Place<'_>, event: &Event) -> Result<Record, RecordError> {
    let header = |kind| RecordHeader {
        kind,
        index: place.index,
        at_ms: place.at.ms(),
        scope: place.scope.to_bytes(),
        seq: place.seq,
        prev: place.prev.as_bytes().to_vec(),
    };
    macro_rules! record {
        ($kind:literal, $message:expr) => {
            Record::new(&header($kind), &$message)
        };
    }
    let some = |statement: &SignedStatement| Some(statement.clone());
    let id = |id: &[u8; 16]| id.to_vec();
    match event {
        Event::LogOpened { origin, log_key, nonce } => record!(
            1,
            rpc::LogOpened { origin: origin.clone(), log_key: log_key.clone(), nonce: nonce.as_bytes().to_vec() }
        ),
        Event::BrokerStarted { version, open_calls } => {
            record!(2, rpc::BrokerStarted { version: version.clone(), open_calls: *open_calls })
        }
        Event::BrokerJoined { .. } | Event::BrokerGone { .. } => brokers::out(&header, event),
        Event::LogKeySucceeded { .. } => logkeys::out(&header, event),
        Event::ClockChanged { trust, source, wall } => {
            record!(3, rpc::ClockChanged { trust: trust.as_str().to_owned(), source: source.clone(), wall_ms: *wall })
        }
        Event::ClockStarted { key, window, grant } => record!(
            4,
            rpc::ClockStarted {
                lab: key.lab.to_string(),
                line: key.line.to_string(),
                sponsor: key.sponsor.to_string(),
                start_ms: window.start().ms(),
                end_ms: window.end().ms(),
                grant: id(grant.as_bytes()),
            }
        ),
        Event::OrganisationEnrolled { kind, enrolment, enrolment_statement, key_set_statement, key_set: _ } => record!(
            8,
            rpc::OrganisationEnrolled {
                org: enrolment.org.to_string(),
                org_kind: kind.as_str().to_owned(),
                enrolment: some(enrolment_statement),
                key_set: some(key_set_statement),
            }
        ),
        Event::KeySetChanged { key_set, statement } => {
            record!(9, rpc::KeySetChanged { org: key_set.org.to_string(), key_set: some(statement) })
        }
        Event::MembershipStated { agency, sponsor, statement } => record!(
            10,
            rpc::MembershipStated {
                agency: agency.to_string(),
                sponsor: sponsor.to_string(),
                statement: some(statement),
            }
        ),
        Event::ModelRegistered { registration, manifest, statement } => record!(
            11,
            rpc::ModelRegistered {
                lab: registration.lab.to_string(),
                line: registration.line.to_string(),
                manifest_digest: registration.manifest.as_bytes().to_vec(),
                statement: some(statement),
                manifest: manifest.to_vec(),
            }
        ),
        Event::RosterPublished { digest, roster, statement, private } => record!(
            12,
            rpc::RosterPublished {
                org: roster.org.to_string(),
                digest: digest.as_bytes().to_vec(),
                statement: some(statement),
                private: private.to_vec(),
            }
        ),
        Event::GrantOpened { grant, lab, agency, terms } => record!(
            13,
            rpc::GrantOpened {
                grant: id(grant.as_bytes()),
                lab: lab.to_string(),
                agency: agency.to_string(),
                terms_digest: terms.as_bytes().to_vec(),
            }
        ),
        Event::ActRefused { code, payload_type, payload, caller } => record!(
            14,
            rpc::ActRefused {
                code: code.clone(),
                payload_type: payload_type.clone(),
                payload_digest: payload.as_bytes().to_vec(),
                caller: caller.clone(),
            }
        ),
        Event::ReaderAppointed { appointment, statement } => record!(
            15,
            rpc::ReaderAppointed {
                reader: appointment.reader.to_string(),
                by: appointment.by.to_string(),
                statement: some(statement),
            }
        ),
        Event::GrantOffered { terms: _, terms_bytes, offer } => {
            record!(20, rpc::GrantOffered { terms: terms_bytes.to_vec(), offer: some(offer) })
        }
        Event::GrantAccepted { acceptance } => record!(21, rpc::GrantAccepted { acceptance: some(acceptance) }),
        Event::GrantDeclined { statement } => record!(22, rpc::GrantDeclined { statement: some(statement) }),
        Event::GrantLapsed { lapsed } => record!(23, rpc::GrantLapsed { lapsed_ms: lapsed.ms() }),
        Event::GrantActivated { window, clock } => record!(
            24,
            rpc::GrantActivated {
                start_ms: window.start().ms(),
                end_ms: window.end().ms(),
                clock: Some(dep_out(clock)),
            }
        ),
        Event::GrantPaused { by, id: _, until, statement } => record!(
            25,
            rpc::GrantPaused { by: by.to_string(), statement: some(statement), until_ms: until.map_or(0, At::ms) }
        ),
        Event::GrantResumed { by, statement } => {
            record!(26, rpc::GrantResumed { by: by.to_string(), statement: some(statement) })
        }
        Event::GrantWithdrawn { statement, cut } => {
            record!(27, rpc::GrantWithdrawn { statement: some(statement), cut_ms: cut.ms() })
        }
        Event::GrantRelinquished { statement, cut } => {
            record!(28, rpc::GrantRelinquished { statement: some(statement), cut_ms: cut.ms() })
        }
        Event::GrantExpired { end } => record!(29, rpc::GrantExpired { end_ms: end.ms() }),
        Event::RunCredentialIssued { digest, credential, statement } => record!(
            30,
            rpc::RunCredentialIssued {
                digest: digest.as_bytes().to_vec(),
                run: credential.run.to_string(),
                pseudonym: credential.pseudonym.to_string(),
                end_ms: credential.end_ms.ms(),
                statement: some(statement),
            }
        ),
        Event::LockSet { lock, statement } => record!(
            31,
            rpc::LockSet { lock: id(lock.id.as_bytes()), by: lock.by.to_string(), statement: some(statement) }
        ),
        Event::LockLifted { lock, by, statement } => {
            record!(32, rpc::LockLifted { lock: id(lock.as_bytes()), by: by.to_string(), statement: some(statement) })
        }
        Event::Snapshotted { size, root, state } => record!(
            5,
            rpc::Snapshotted { size: *size, root: root.as_bytes().to_vec(), state_digest: state.as_bytes().to_vec() }
        ),
        Event::HoldSet { hold, statement } => record!(
            16,
            rpc::HoldSet { hold: id(hold.id.as_bytes()), by: hold.by.to_string(), statement: some(statement) }
        ),
        Event::HoldReleased { hold, by, statement } => {
            record!(17, rpc::HoldReleased { hold: id(hold.as_bytes()), by: by.to_string(), statement: some(statement) })
        }
        Event::Disposed(disposed) => record!(
            18,
            rpc::Disposed {
                scope: disposed.scope.to_bytes(),
                action: disposed.action.as_str().to_owned(),
                schedule: disposed.schedule.clone(),
                records: disposed.records,
                last_index: disposed.last_index,
                last_entry: disposed.last_entry.as_bytes().to_vec(),
                statement: some(&disposed.statement),
            }
        ),
        Event::RulesAdded { .. }
        | Event::WatchListSet { .. }
        | Event::LineBudgetSet { .. }
        | Event::ScannerLocked { .. }
        | Event::PromptsAlike(_)
        | Event::Presence(_)
        | Event::LineBudgetHit { .. } => rules::out(&header, event),
        Event::ContactsSet(set) => record!(60, contacts::set_out(set)),
        Event::NoticeSettled(settled) => record!(61, contacts::settled_out(settled)),
        Event::SuccessionOffered(_) | Event::SuccessionCountersigned(_) => succession::out(&header, event),
        Event::CallAdmitted(call) => record!(40, admitted_out(call)),
        Event::CallRefused(refused) => record!(41, refused_out(refused)),
        Event::RefusalsCounted { code, caller, count, first, last } => record!(
            42,
            rpc::RefusalsCounted {
                code: code.clone(),
                caller: caller.clone(),
                count: *count,
                first_ms: first.ms(),
                last_ms: last.ms(),
            }
        ),
        Event::CallFinished(end) => record!(
            43,
            rpc::CallFinished {
                call: id(end.call.as_bytes()),
                admitted: end.admitted,
                end: end.end.clone(),
                outcome: end.outcome.clone(),
                released_events: end.released_events,
                released_chain: end.released_chain.to_vec(),
                charged_tokens: end.charged,
                status: end.status,
                cut_ms: end.cut.map_or(0, At::ms),
            }
        ),
        Event::CallAbandoned { call, admitted } => {
            record!(44, rpc::CallAbandoned { call: id(call.as_bytes()), admitted: *admitted })
        }
        Event::CallSettled { call, outcome, charged } => record!(
            45,
            rpc::CallSettled { call: id(call.as_bytes()), outcome: outcome.clone(), charged_tokens: *charged }
        ),
        Event::ReadOpened { reader, target, from_seq } => {
            record!(50, rpc::ReadOpened { reader: reader.clone(), target: target.to_bytes(), from_seq: *from_seq })
        }
    }
}

/// Reads a record that stands in the log with `entry`.
///
/// # Errors
/// It is none, or a field breaks its grammar.
pub fn decode(record: &Record, entry: Entry) -> Result<Entered, RecordError> {
    let header = record.header();
    Ok(Entered {
        index: header.index,
        at: at(header.at_ms)?,
        scope: record.scope()?,
        seq: header.seq,
        entry,
        event: event(Source::Whole(record))?,
    })
}

/// Reads the part of a record that was opened. What a party needs to fold its own slice is always open to it; closed fields
/// that only others need read as empty, and a closed body key as zeros. `None` if the record is about somebody else altogether:
/// another pair's clock in the log's own scope.
///
/// # Errors
/// It is no record, or a field that this kind cannot do without is closed.
pub fn decode_opened(opened: &Opened, entry: Entry) -> Result<Option<Entered>, RecordError> {
    let header = opened.header();
    if opened.spec().kind == CLOCK_STARTED && !opened.is_open(CLOCK_STARTED_LAB) {
        return Ok(None);
    }
    Ok(Some(Entered {
        index: header.index,
        at: at(header.at_ms)?,
        scope: opened.scope()?,
        seq: header.seq,
        entry,
        event: event(Source::Part(opened))?,
    }))
}

/// The kind whose parties' fields are closed to other readers of its scope, and its first such field.
const CLOCK_STARTED: u32 = 4;
const CLOCK_STARTED_LAB: u32 = 16;

/// Where an event's message comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Whole(&'a Record),
    Part(&'a Opened),
}

impl Source<'_> {
    fn kind(self) -> u32 {
        match self {
            Self::Whole(record) => record.spec().kind,
            Self::Part(opened) => opened.spec().kind,
        }
    }

    fn event<E: Message + Default>(self) -> Result<E, RecordError> {
        match self {
            Self::Whole(record) => record.event(),
            Self::Part(opened) => opened.event(),
        }
    }

    fn is_part(self) -> bool {
        matches!(self, Self::Part(_))
    }
}

fn event(record: Source<'_>) -> Result<Event, RecordError> {
    Ok(match record.kind() {
        1 => {
            let m: rpc::LogOpened = record.event()?;
            Event::LogOpened { origin: m.origin, log_key: m.log_key, nonce: digest(&m.nonce)? }
        }
        2 => {
            let m: rpc::BrokerStarted = record.event()?;
            Event::BrokerStarted { version: m.version, open_calls: m.open_calls }
        }
        3 => {
            let m: rpc::ClockChanged = record.event()?;
            let trust = match m.trust.as_str() {
                "trusted" => ClockTrust::Trusted,
                "unconfirmed" => ClockTrust::Unconfirmed,
                "suspended" => ClockTrust::Suspended,
                _ => return Err(RecordError::Event("unknown trust")),
            };
            Event::ClockChanged { trust, source: m.source, wall: m.wall_ms }
        }
        4 => {
            let m: rpc::ClockStarted = record.event()?;
            Event::ClockStarted {
                key: ClockKey {
                    lab: org(&m.lab)?,
                    line: ModelLine::parse(&m.line).map_err(|_| NAME)?,
                    sponsor: org(&m.sponsor)?,
                },
                window: window(m.start_ms, m.end_ms)?,
                grant: grant(&m.grant)?,
            }
        }
        5 => {
            let m: rpc::Snapshotted = record.event()?;
            Event::Snapshotted { size: m.size, root: digest(&m.root)?, state: digest(&m.state_digest)? }
        }
        8 => {
            let m: rpc::OrganisationEnrolled = record.event()?;
            let (enrolment_statement, key_set_statement) = (signed(m.enrolment)?, signed(m.key_set)?);
            let key_set: KeySet = payload(&key_set_statement)?;
            let enrolment: Enrolment = payload(&enrolment_statement)?;
            if key_set.kind.as_str() != m.org_kind || enrolment.org.as_str() != m.org || key_set.org != enrolment.org {
                return Err(MISMATCH);
            }
            Event::OrganisationEnrolled {
                kind: key_set.kind,
                enrolment,
                key_set,
                enrolment_statement,
                key_set_statement,
            }
        }
        9 => {
            let m: rpc::KeySetChanged = record.event()?;
            let statement = signed(m.key_set)?;
            let key_set: KeySet = payload(&statement)?;
            same(key_set.org.as_str(), &m.org)?;
            Event::KeySetChanged { key_set, statement }
        }
        10 => {
            let m: rpc::MembershipStated = record.event()?;
            Event::MembershipStated {
                agency: org(&m.agency)?,
                sponsor: org(&m.sponsor)?,
                statement: signed(m.statement)?,
            }
        }
        11 => {
            let m: rpc::ModelRegistered = record.event()?;
            let statement = signed(m.statement)?;
            let registration: Registration = payload(&statement)?;
            same(registration.lab.as_str(), &m.lab)?;
            same(registration.line.as_str(), &m.line)?;
            if registration.manifest != digest(&m.manifest_digest)? || Digest::of(&m.manifest) != registration.manifest
            {
                return Err(MISMATCH);
            }
            Event::ModelRegistered { registration, manifest: m.manifest.into(), statement }
        }
        12 => {
            let m: rpc::RosterPublished = record.event()?;
            let statement = signed(m.statement)?;
            let roster: Roster = payload(&statement)?;
            same(roster.org.as_str(), &m.org)?;
            let digest = digest(&m.digest)?;
            if Digest::of(&statement.payload) != digest {
                return Err(MISMATCH);
            }
            Event::RosterPublished { digest, roster: Arc::new(roster), statement, private: m.private.into() }
        }
        13 => {
            let m: rpc::GrantOpened = record.event()?;
            Event::GrantOpened {
                grant: grant(&m.grant)?,
                lab: org(&m.lab)?,
                agency: org(&m.agency)?,
                terms: digest(&m.terms_digest)?,
            }
        }
        14 => {
            let m: rpc::ActRefused = record.event()?;
            let payload = digest(&m.payload_digest)?;
            Event::ActRefused { code: m.code, payload_type: m.payload_type, payload, caller: m.caller }
        }
        15 => {
            let m: rpc::ReaderAppointed = record.event()?;
            let statement = signed(m.statement)?;
            let appointment: Appointment = payload(&statement)?;
            same(appointment.reader.as_str(), &m.reader)?;
            same(appointment.by.as_str(), &m.by)?;
            Event::ReaderAppointed { appointment, statement }
        }
        16 => retention::hold_in(record.event()?)?,
        17 => retention::released_in(record.event()?)?,
        18 => retention::disposed_in(record.event()?)?,
        19 => rules::line_budget_in(record.event()?)?,
        20 => {
            let m: rpc::GrantOffered = record.event()?;
            let terms = Terms::parse(&m.terms).map_err(|_| RecordError::Event("the terms cannot be read"))?;
            Event::GrantOffered { terms: Arc::new(terms), terms_bytes: m.terms.into(), offer: signed(m.offer)? }
        }
        21 => Event::GrantAccepted { acceptance: signed(record.event::<rpc::GrantAccepted>()?.acceptance)? },
        22 => Event::GrantDeclined { statement: signed(record.event::<rpc::GrantDeclined>()?.statement)? },
        23 => Event::GrantLapsed { lapsed: at(record.event::<rpc::GrantLapsed>()?.lapsed_ms)? },
        24 => {
            let m: rpc::GrantActivated = record.event()?;
            Event::GrantActivated { window: window(m.start_ms, m.end_ms)?, clock: dep(m.clock)? }
        }
        25 => {
            let m: rpc::GrantPaused = record.event()?;
            let statement = signed(m.statement)?;
            let stop: Stop = payload(&statement)?;
            same(stop.by.as_str(), &m.by)?;
            Event::GrantPaused { by: stop.by, id: stop.id, until: instant(m.until_ms)?, statement }
        }
        26 => {
            let m: rpc::GrantResumed = record.event()?;
            let statement = signed(m.statement)?;
            let resume: Resume = payload(&statement)?;
            same(resume.by.as_str(), &m.by)?;
            Event::GrantResumed { by: resume.by, statement }
        }
        27 => {
            let m: rpc::GrantWithdrawn = record.event()?;
            Event::GrantWithdrawn { statement: signed(m.statement)?, cut: at(m.cut_ms)? }
        }
        28 => {
            let m: rpc::GrantRelinquished = record.event()?;
            Event::GrantRelinquished { statement: signed(m.statement)?, cut: at(m.cut_ms)? }
        }
        29 => Event::GrantExpired { end: at(record.event::<rpc::GrantExpired>()?.end_ms)? },
        30 => {
            let m: rpc::RunCredentialIssued = record.event()?;
            let statement = signed(m.statement)?;
            let credential: RunCredential = payload(&statement)?;
            same(credential.run.as_str(), &m.run)?;
            same(credential.pseudonym.as_str(), &m.pseudonym)?;
            let digest = digest(&m.digest)?;
            if credential.end_ms.ms() != m.end_ms || Digest::of(&statement.payload) != digest {
                return Err(MISMATCH);
            }
            Event::RunCredentialIssued { digest, credential, statement }
        }
        31 => {
            let m: rpc::LockSet = record.event()?;
            let statement = signed(m.statement)?;
            let lock: Lock = payload(&statement)?;
            same(lock.by.as_str(), &m.by)?;
            if lock.id != lock_id(&m.lock)? {
                return Err(MISMATCH);
            }
            Event::LockSet { lock, statement }
        }
        32 => {
            let m: rpc::LockLifted = record.event()?;
            Event::LockLifted { lock: lock_id(&m.lock)?, by: org(&m.by)?, statement: signed(m.statement)? }
        }
        33 => rules::added_in(record.event()?)?,
        34 => rules::watch_in(record.event()?, record.is_part())?,
        35 => rules::locked_in(record.event()?)?,
        38 => succession::offered_in(record.event()?)?,
        39 => succession::countersigned_in(record.event()?)?,
        40 => Event::CallAdmitted(Box::new(admitted_in(record.event()?, record.is_part())?)),
        41 => Event::CallRefused(Box::new(refused_in(record.event()?)?)),
        42 => {
            let m: rpc::RefusalsCounted = record.event()?;
            Event::RefusalsCounted {
                code: m.code,
                caller: m.caller,
                count: m.count,
                first: at(m.first_ms)?,
                last: at(m.last_ms)?,
            }
        }
        43 => {
            let m: rpc::CallFinished = record.event()?;
            Event::CallFinished(Box::new(Finished {
                call: call(&m.call)?,
                admitted: m.admitted,
                end: m.end,
                outcome: m.outcome,
                released_events: m.released_events,
                released_chain: bytes32(&m.released_chain)?,
                charged: m.charged_tokens,
                status: m.status,
                cut: instant(m.cut_ms)?,
            }))
        }
        44 => {
            let m: rpc::CallAbandoned = record.event()?;
            Event::CallAbandoned { call: call(&m.call)?, admitted: m.admitted }
        }
        45 => {
            let m: rpc::CallSettled = record.event()?;
            Event::CallSettled { call: call(&m.call)?, outcome: m.outcome, charged: m.charged_tokens }
        }
        46 => rules::alike_in(record.event()?)?,
        47 => rules::hit_in(record.event()?)?,
        48 => rules::away_in(&record.event()?)?,
        49 => rules::back_in(&record.event()?)?,
        60 => contacts::set_in(record.event()?)?,
        61 => contacts::settled_in(record.event()?)?,
        50 => {
            let m: rpc::ReadOpened = record.event()?;
            Event::ReadOpened { reader: m.reader, target: read::scope(&m.target)?, from_seq: m.from_seq }
        }
        70 => brokers::joined_in(record.event()?)?,
        71 => brokers::gone_in(&record.event()?)?,
        72 => logkeys::read(record.event()?),
        other => return Err(RecordError::Kind(other)),
    })
}
