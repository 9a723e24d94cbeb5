//! What the row of a record says, whoever numbers the names: rows are made and proven by the same code.

use anteroom_policy::{
    event::{Admitted, Event, Refused},
    marking::banner,
};
use anteroom_proto::{ledger::scope::Scope, names::CallId, rpc::Facts};
use prost::Message as _;

use super::{
    Group,
    names::NameId,
    row::{FEATURES, Raw},
};
use crate::verify::scope::SliceRecord;

/// The outcome of a call that has no end yet.
pub(super) const OPEN: &str = "open";
/// The outcome of a call of which no end was seen.
pub(super) const ABANDONED: &str = "abandoned";
/// The outcome of a call of which no end was seen, once its hold was settled.
pub(super) const SETTLED: &str = "settled";

/// Gives names their numbers.
pub(super) trait Numbers {
    /// The number of a name.
    fn id(&mut self, name: &str) -> NameId;
}

/// Parties of a grant, by the numbers of their names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parties {
    lab: NameId,
    agency: NameId,
    line: NameId,
}

impl Parties {
    /// Whose a grant is, if this is its first record.
    pub(super) fn of(event: &Event, names: &mut impl Numbers) -> Option<Self> {
        let Event::GrantOffered { terms, .. } = event else { return None };
        Some(Self {
            lab: names.id(terms.lab.org.as_str()),
            agency: names.id(terms.agency.org.as_str()),
            line: names.id(terms.model.line.as_str()),
        })
    }
}

/// What a later record says of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) call: CallId,
    /// Whether nothing comes after it.
    pub(super) last: bool,
    outcome: NameId,
    charged: Option<u64>,
    released: Option<(u64, u32)>,
}

impl End {
    /// `None` if an event is no end of a call.
    pub(super) fn of(event: &Event, names: &mut impl Numbers) -> Option<Self> {
        let end = |call, last, outcome, charged, released| Self { call, last, outcome, charged, released };
        if let Event::CallFinished(finished) = event {
            let released = Some((finished.released_events, finished.status));
            Some(end(finished.call, true, names.id(&finished.end), Some(finished.charged), released))
        } else if let Event::CallAbandoned { call, .. } = event {
            Some(end(*call, false, names.id(ABANDONED), None, None))
        } else if let Event::CallSettled { call, charged, .. } = event {
            Some(end(*call, true, names.id(SETTLED), Some(*charged), None))
        } else {
            None
        }
    }

    /// Completes the call's row by the record that `of` is the plain row of.
    pub(super) const fn complete(&self, row: &mut Raw, of: &Raw) {
        (row.end_index, row.end_at, row.end_offset) = (of.index, of.at, of.offset);
        self.apply(row);
    }

    /// The row of an end whose call has none.
    pub(super) const fn alone(&self, of: &Raw) -> Raw {
        let mut row = *of;
        (row.group, row.call) = (Group::Call, *self.call.as_bytes());
        self.apply(&mut row);
        row
    }

    const fn apply(&self, row: &mut Raw) {
        row.outcome = self.outcome;
        if let Some(charged) = self.charged {
            row.tokens = charged;
        }
        if let Some((events, status)) = self.released {
            (row.events, row.status) = (events, status);
        }
    }
}

/// The plain row of a record that begins at `at` of its slice's file: where it stands, and whose it is.
pub(super) fn plain(record: &SliceRecord, at: u64, parties: Parties, names: &mut impl Numbers) -> Raw {
    let header = record.record.header();
    let mut raw = Raw::new(header.index, header.at_ms, Group::Other);
    raw.offset = at;
    raw.kind = names.id(record.record.opened().spec().name);
    raw.scope = names.id(&record.record.scope().to_string());
    if let Scope::Grant(grant) = record.record.scope() {
        raw.grant = names.id(&grant.to_string());
        (raw.lab, raw.agency, raw.line) = (parties.lab, parties.agency, parties.line);
    }
    raw
}

/// What an event that ends no call adds to its record's plain row.
pub(super) fn fill(raw: &mut Raw, event: &Event, names: &mut impl Numbers) {
    if let Event::CallAdmitted(call) = event {
        admitted(raw, call, names);
    } else if let Event::CallRefused(refusal) = event {
        refused(raw, refusal, names);
    } else if let Event::RefusalsCounted { code, caller, count, .. } = event {
        raw.group = Group::Refusal;
        (raw.outcome, raw.person, raw.count) = (names.id(code), names.id(caller), *count);
    } else if let Some(by) = by(event) {
        raw.person = names.id(&by);
    }
}

fn admitted(raw: &mut Raw, call: &Admitted, names: &mut impl Numbers) {
    raw.group = Group::Call;
    raw.call = *call.call.as_bytes();
    raw.run = names.id(call.run.as_str());
    raw.person = names.id(call.pseudonym.as_str());
    raw.outcome = names.id(OPEN);
    raw.rules = rules(&call.reasons, names);
    raw.tokens = call.hold;
    facts(raw, &call.facts, names);
}

fn refused(raw: &mut Raw, refused: &Refused, names: &mut impl Numbers) {
    raw.group = Group::Refusal;
    if let Some(call) = &refused.call {
        raw.call = *call.as_bytes();
    }
    if let Some(run) = &refused.run {
        raw.run = names.id(run.as_str());
    }
    let who = refused.pseudonym.as_ref().map_or(refused.caller.as_str(), |person| person.as_str());
    raw.person = names.id(who);
    raw.outcome = names.id(&refused.code);
    raw.rules = rules(&refused.reasons, names);
    if let Some(seen) = &refused.facts {
        facts(raw, seen, names);
    }
}

/// Rules as one name; each has a number of its own, too.
fn rules(rules: &[String], names: &mut impl Numbers) -> NameId {
    for rule in rules {
        names.id(rule);
    }
    names.id(&rules.join(" "))
}

/// What the rules saw.
fn facts(raw: &mut Raw, facts: &[u8], names: &mut impl Numbers) {
    let Ok(facts) = Facts::decode(facts) else { return };
    raw.route = names.id(&facts.route);
    if let Some(marking) = &facts.marking {
        raw.marking = names.id(&banner(marking));
    }
    raw.features = asked(&facts);
}

/// The features that a call asked for, as bits.
fn asked(facts: &Facts) -> u32 {
    let has = |name: &str| match name {
        "streaming" => facts.stream,
        "tools" => !facts.tools.is_empty(),
        "images" => facts.images > 0,
        "logprobs" => facts.logprobs > 0,
        "logit_bias" => facts.logit_bias,
        "n" => facts.n > 1,
        "seed" => facts.seed,
        "prefill" => facts.prefill,
        "reasoning" => facts.reasoning,
        // What a body says nothing about is `text`, which asks for nothing.
        "response_format" => !matches!(facts.response_format.as_str(), "" | "text"),
        "named_fields" => !facts.named_fields.is_empty(),
        _ => false,
    };
    FEATURES.iter().filter(|(name, _)| has(name)).fold(0, |bits, (_, bit)| bits | bit)
}

/// Whose act it is, where a record says so itself.
fn by(event: &Event) -> Option<String> {
    if let Event::LockSet { lock, .. } = event {
        Some(lock.by.to_string())
    } else if let Event::ReaderAppointed { appointment, .. } = event {
        Some(appointment.by.to_string())
    } else if let Event::LockLifted { by, .. }
    | Event::GrantPaused { by, .. }
    | Event::GrantResumed { by, .. }
    | Event::HoldReleased { by, .. } = event
    {
        Some(by.to_string())
    } else if let Event::RulesAdded { narrowing, .. } = event {
        Some(narrowing.by.to_string())
    } else if let Event::ActRefused { caller, .. } = event {
        Some(caller.clone())
    } else if let Event::ReadOpened { reader, .. } = event {
        Some(reader.clone())
    } else if let Event::ContactsSet(set) = event {
        Some(set.contacts.by.to_string())
    } else if let Event::RunCredentialIssued { credential, .. } = event {
        Some(credential.pseudonym.to_string())
    } else {
        None
    }
}
