//! What is known, in JSON for the page.
//!
//! **Invariant:** a row is in an answer only after its records were proven for this very answer, and no text in one is longer than
//! [`TEXT_CHARS_MAX`].

use anteroom_proto::{
    ledger::tree::leaf_hash,
    time::{At, TERM_HOURS_MAX},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    desk::{Desk, Shown},
    facts::Grant,
};
use crate::{
    search::{Dimension, Query, Row, SearchError},
    system,
};

/// Most characters of a text that came from elsewhere.
const TEXT_CHARS_MAX: usize = 512;
/// Fields that are instants, which rows and facts hold in milliseconds.
const INSTANTS: [&str; 10] =
    ["at", "end_at", "offered", "accept_by", "scheduled", "start", "end", "ended", "since", "until"];
/// Most locks and appointments that are told.
const LISTED_MAX: usize = 500;

/// Everything for the first screen.
pub(super) fn overview(shown: &Shown, desk: &Desk) -> Value {
    let now = system::now();
    let (facts, about) = (&shown.facts, &desk.about);
    let grants: Vec<Value> = facts.grants.iter().map(|grant| standing(grant, now)).collect();
    let mut value = json!({
        "role": about.part.as_str(),
        "org": about.org,
        "home": about.home.as_ref().map(|home| home.display().to_string()),
        "mirror": desk.mirror.dir().display().to_string(),
        "offline": about.offline,
        "now": now.to_string(),
        "cap_hours": TERM_HOURS_MAX,
        "log": {
            "origin": desk.demands.trust.log().name().to_string(),
            "entries": shown.catalogue.size(),
            "rows": shown.catalogue.rows(),
            "root": shown.root,
            "cosigned_by": shown.cosigners,
        },
        "grants": grants,
        "locks": facts.locks.iter().rev().take(LISTED_MAX).collect::<Vec<_>>(),
        "totals": facts.all,
        "span": facts.span.map(|(first, last)| [first.to_string(), last.to_string()]),
        "exceptions": facts.exceptions,
        "more": facts.more,
    });
    cut(&mut value);
    value
}

/// A grant with its phase by this machine's clock.
fn standing(grant: &Grant, now: At) -> Value {
    let mut value = json!(grant);
    let over = grant.ended.is_none() && grant.end.is_some_and(|end| end <= now);
    let lapsed = grant.phase == "offered" && grant.accept_by <= now;
    let paused = grant.paused.iter().any(|pause| pause.until.is_none_or(|until| until > now));
    let phase = if over {
        "expired"
    } else if lapsed {
        "lapsed"
    } else if paused && matches!(grant.phase, "accepted" | "active") {
        "paused"
    } else {
        grant.phase
    };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("phase".to_owned(), phase.into());
        let left = grant.end.filter(|_| grant.ended.is_none()).map(|end| end.since(now).max(0));
        fields.insert("left_ms".to_owned(), left.into());
    }
    value
}

/// The scopes that are here, and who was let read what.
pub(super) fn scopes(shown: &Shown) -> Value {
    let slices = shown.slices.iter().map(|slice| {
        json!({
            "scope": slice.scope.to_string(),
            "records": slice.records,
            "destroyed": slice.destroyed,
        })
    });
    let readers: Vec<_> = shown.facts.readers.iter().rev().take(LISTED_MAX).collect();
    let mut value = json!({"scopes": slices.collect::<Vec<_>>(), "readers": readers, "now": system::now().to_string()});
    cut(&mut value);
    value
}

/// A page of rows, each proven.
pub(super) fn rows(
    shown: &Shown,
    desk: &Desk,
    query: &Query,
    before: Option<u64>,
    limit: usize,
) -> Result<Value, SearchError> {
    let page = shown.catalogue.search(query, before, limit)?;
    for row in &page.rows {
        let _ = shown.catalogue.prove(row.row, &desk.demands)?;
    }
    let rows: Vec<&Row> = page.rows.iter().collect();
    let mut value = json!({
        "rows": rows,
        "next": page.next,
        "proven": page.rows.len(),
        "entries": shown.catalogue.size(),
    });
    cut(&mut value);
    Ok(value)
}

/// Sums by time and name.
pub(super) fn totals(shown: &Shown, query: &Query, by: Dimension, hours: i64) -> Result<Value, SearchError> {
    #[derive(Serialize)]
    struct Sum {
        from: Option<String>,
        of: String,
        calls: u64,
        completed: u64,
        refusals: u64,
        others: u64,
        tokens: u64,
    }
    let totals = shown.catalogue.totals(query, by, hours.saturating_mul(anteroom_proto::time::HOUR_MS))?;
    let sums = totals.buckets.into_iter().map(|((from, of), bucket)| Sum {
        from: (hours > 0).then(|| from.to_string()),
        of,
        calls: bucket.calls,
        completed: bucket.completed,
        refusals: bucket.refusals,
        others: bucket.others,
        tokens: bucket.tokens,
    });
    let mut value = json!({
        "sums": sums.collect::<Vec<_>>(),
        "all": totals.all,
        "span": totals.span.map(|(first, last)| [first.to_string(), last.to_string()]),
        "hours": hours,
    });
    cut(&mut value);
    Ok(value)
}

/// The proof of each record behind a row; `None` if there is no such row.
pub(super) fn proof(shown: &Shown, desk: &Desk, row: u64) -> Result<Option<Value>, SearchError> {
    if row >= shown.catalogue.rows() {
        return Ok(None);
    }
    let mut records = Vec::new();
    for (record, proven) in shown.catalogue.records(row, &desk.demands)? {
        let header = record.record.header();
        let checkpoint = proven.checkpoint.checkpoint();
        let signers = proven.checkpoint.cosigners().iter().map(|signer| signer.key().name().to_string());
        records.push(json!({
            "kind": record.record.opened().spec().name,
            "index": header.index,
            "position": header.seq,
            "scope": record.record.scope().to_string(),
            "at": At::clamped(header.at_ms).to_string(),
            "entry": data_encoding::HEXLOWER.encode(record.record.entry().as_bytes()),
            "leaf_hash": leaf_hash(record.record.entry().as_bytes()).to_string(),
            "path": proven.proof.hashes().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "entries": checkpoint.size(),
            "root": checkpoint.root().to_string(),
            "cosigned_by": signers.collect::<Vec<_>>(),
            "proof": proven.proof.to_string(),
        }));
    }
    Ok(Some(json!({
        "row": row,
        "origin": desk.demands.trust.log().name().to_string(),
        "log_key": desk.demands.trust.log().to_string(),
        "mirror": desk.mirror.dir().display().to_string(),
        "records": records,
    })))
}

/// Says every instant as people and scripts read it, and cuts every text to its bound.
pub(super) fn cut(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((at, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
                text.truncate(at);
                text.push('…');
            }
        }
        Value::Array(values) => values.iter_mut().for_each(cut),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_i64().filter(|_| INSTANTS.contains(&name.as_str())) {
                    Some(ms) => *value = At::clamped(ms).to_string().into(),
                    None => cut(value),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_said_as_such_and_numbers_as_numbers() {
        let mut value =
            json!({"rows": [{"at": 0, "end_at": null, "tokens": 7, "paused": [{"since": 1000}]}], "left_ms": 5});
        cut(&mut value);
        let said = |at: &str| value.pointer(at).cloned().unwrap_or_default();
        assert_eq!(said("/rows/0/at"), "1970-01-01T00:00:00.000Z");
        assert_eq!(said("/rows/0/paused/0/since"), "1970-01-01T00:00:01.000Z");
        assert_eq!((said("/rows/0/end_at"), said("/rows/0/tokens")), (Value::Null, json!(7)));
        assert_eq!(said("/left_ms"), json!(5));
    }

    #[test]
    fn texts_from_elsewhere_are_cut_between_characters() {
        let mut value = json!({"rows": [{"person": "é".repeat(10_000), "run": "a"}]});
        cut(&mut value);
        let person = value.pointer("/rows/0/person").and_then(Value::as_str).unwrap_or_default().to_owned();
        assert_eq!(person.chars().count(), TEXT_CHARS_MAX + 1);
        assert!(person.ends_with("é…"));
        assert_eq!(value.pointer("/rows/0/run"), Some(&json!("a")));
    }
}
