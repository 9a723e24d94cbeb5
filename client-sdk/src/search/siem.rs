//! A row as a collector of security events takes it: one event for each record that it is made of, as the broker's own sinks write them.
//!
//! A row knows less than the broker (no target of an act, no hold of a call that has ended) and something more: the parties and the person
//! behind a call's end.

use std::borrow::Cow;

use anteroom_policy::siem::{Told, ocsf};
use serde_json::Value;

use super::{
    Row,
    make::{ABANDONED, OPEN, SETTLED},
};

impl Row {
    /// What the row's own record says.
    #[must_use]
    pub fn told(&self) -> Told {
        let call = self.group == "call";
        let admitted = call && self.kind == "CallAdmitted";
        let refused = self.group == "refusal";
        Told {
            kind: Cow::Owned(self.kind.clone()),
            at: self.at.to_string(),
            at_ms: self.at.ms(),
            code: if admitted { None } else { named(&self.outcome) },
            // Once a call has ended, its row has what was charged in place of what was held.
            tokens: (call && (!admitted || self.outcome == OPEN)).then_some(self.tokens),
            count: (self.kind == "RefusalsCounted").then_some(self.count),
            target: if refused { named(&self.rules) } else { None },
            ..self.common()
        }
    }

    /// What the newest later record of the row's call says, with its index.
    #[must_use]
    pub fn told_end(&self) -> Option<(u64, Told)> {
        let (index, at) = (self.end_index?, self.end_at?);
        let (kind, code) = match self.outcome.as_str() {
            ABANDONED => ("CallAbandoned", named(ABANDONED)),
            SETTLED => ("CallSettled", None),
            end => ("CallFinished", named(end)),
        };
        let finished = kind == "CallFinished";
        let told = Told {
            kind: Cow::Borrowed(kind),
            at: at.to_string(),
            at_ms: at.ms(),
            code,
            tokens: (kind != "CallAbandoned").then_some(self.tokens),
            count: finished.then_some(self.events),
            status: (finished && self.status != 0).then_some(self.status),
            ..self.common()
        };
        Some((index, told))
    }

    /// What holds of all of the row's records.
    fn common(&self) -> Told {
        Told {
            scope: self.scope.clone(),
            actor: named(&self.person),
            lab: named(&self.lab),
            agency: named(&self.agency),
            grant: named(&self.grant),
            call: self.call.map(|call| call.to_string()),
            run: named(&self.run),
            marking: named(&self.marking),
            ..Told::default()
        }
    }
}

/// An event of OCSF's class API Activity, of the record at `index` with this leaf hash.
#[must_use]
pub fn ocsf(origin: &str, index: u64, leaf_hash: &str, told: &Told) -> Value {
    ocsf::event(&ocsf::Place { origin, index, leaf_hash }, Some(told))
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use anteroom_proto::{names::CallId, time::At};

    use super::*;

    fn row() -> Row {
        Row {
            row: 3,
            index: 40,
            at: At::clamped(1_795_000_000_000),
            group: "call",
            kind: "CallAdmitted".to_owned(),
            outcome: OPEN.to_owned(),
            call: Some(CallId::from_bytes([9; 16])),
            scope: "grant-1".to_owned(),
            grant: "grant-1".to_owned(),
            run: "cyber".to_owned(),
            person: "p-1".to_owned(),
            lab: "lab-a".to_owned(),
            agency: "agency-a".to_owned(),
            line: "aurora".to_owned(),
            route: String::new(),
            rules: String::new(),
            marking: "UNCLASSIFIED".to_owned(),
            features: Vec::new(),
            tokens: 100,
            events: 0,
            status: 0,
            count: 1,
            end_index: None,
            end_at: None,
        }
    }

    #[test]
    fn a_call_that_ended_is_two_events_and_the_hold_is_not_told_as_what_was_charged() {
        let open = row().told();
        assert_eq!((open.tokens, open.code.as_deref(), open.is_refusal()), (Some(100), None, false));
        assert!(row().told_end().is_none());
        let ended = Row {
            outcome: "grant_withdrawn".to_owned(),
            tokens: 7,
            events: 2,
            status: 200,
            end_index: Some(44),
            end_at: Some(At::clamped(1_795_000_000_900)),
            ..row()
        };
        assert_eq!(ended.told().tokens, None);
        let (index, end) = ended.told_end().unwrap_or_default();
        assert_eq!((index, end.kind.as_ref(), end.code.as_deref()), (44, "CallFinished", Some("grant_withdrawn")));
        assert_eq!((end.tokens, end.count, end.status, end.is_refusal()), (Some(7), Some(2), Some(200), true));
        let event = ocsf("log", index, "ab", &end);
        let read = |pointer: &str| event.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(
            (read("/class_uid"), read("/metadata/sequence"), read("/metadata/uid")),
            (6003.into(), 44.into(), "ab".into())
        );
        assert_eq!((read("/actor/user/name"), read("/status_detail")), ("p-1".into(), "grant_withdrawn".into()));
        assert_eq!(read("/unmapped/anteroom/lab"), "lab-a");
    }

    #[test]
    fn a_settled_call_was_not_refused_and_a_refusal_names_its_rules() {
        let settled = Row { outcome: SETTLED.to_owned(), end_index: Some(50), end_at: Some(row().at), ..row() };
        let (_, end) = settled.told_end().unwrap_or_default();
        assert_eq!((end.kind.as_ref(), end.is_refusal()), ("CallSettled", false));
        let refused = Row {
            group: "refusal",
            kind: "CallRefused".to_owned(),
            outcome: "broker_denied".to_owned(),
            rules: "scanner hours".to_owned(),
            ..row()
        };
        let told = refused.told();
        assert_eq!((told.target.as_deref(), told.tokens, told.is_refusal()), (Some("scanner hours"), None, true));
    }
}
