//! How long calls and their ends took, as far as records say.
//!
//! **Invariant:** what rows cannot say is read from records that are proven for this very answer, the newest of them; how long the broker
//! took to decide is in no record, so it is not told.

use anteroom_policy::event::Event;
use anteroom_proto::{rpc::CallClaim, statement::envelope};
use serde_json::{Value, json};

use super::{
    desk::{Desk, Shown},
    facts::entered,
};
use crate::{
    search::{Dimension, Group, Query, Row, SearchError},
    spread::Spread,
};

/// Most calls whose records are read for it.
const CALLS_MAX: usize = 200;
/// Most calls that were cut and whose records are read for it, of each way to be cut.
const CUT_MAX: usize = 50;
/// Most ways to be cut that are gone through.
const WAYS_MAX: usize = 12;

/// What the records of calls say.
#[derive(Default)]
struct Found {
    signed_to_admitted: Spread,
    gate_to_end: Spread,
}

/// How long the calls took that fit.
pub(super) fn times(shown: &Shown, desk: &Desk, query: &Query) -> Result<Value, SearchError> {
    let calls = Query { group: Some(Group::Call), ..query.clone() };
    let mut newest = Found::default();
    let page = shown.catalogue.search(&calls, None, CALLS_MAX)?;
    for row in &page.rows {
        newest.read(shown, desk, row)?;
    }
    let mut cut = Found::default();
    let ways = shown.catalogue.totals(&calls, Dimension::Outcome, 0)?.buckets;
    let ways = ways.into_keys().map(|(_, way)| way);
    let ways = ways.filter(|way| !matches!(way.as_str(), "completed" | "open" | "abandoned" | "settled"));
    let mut more = page.next.is_some();
    for way in ways.take(WAYS_MAX) {
        let of = Query { outcome: Some(way), ..calls.clone() };
        let page = shown.catalogue.search(&of, None, CUT_MAX)?;
        more |= page.next.is_some();
        for row in &page.rows {
            cut.read(shown, desk, row)?;
        }
    }
    Ok(json!({
        "admitted_to_end": shown.catalogue.lengths(&calls)?,
        "signed_to_admitted": newest.signed_to_admitted,
        "gate_to_end": cut.gate_to_end,
        "more": more,
    }))
}

impl Found {
    fn read(&mut self, shown: &Shown, desk: &Desk, row: &Row) -> Result<(), SearchError> {
        for (record, _) in shown.catalogue.records(row.row, &desk.demands)? {
            let Some(entered) = entered(&record, row.index)? else { continue };
            if let Event::CallAdmitted(call) = &entered.event {
                if let Ok(claim) = envelope::read_claim::<CallClaim>(&call.claim) {
                    self.signed_to_admitted.take(entered.at.ms().saturating_sub(claim.at_ms));
                }
            } else if let Event::CallFinished(finished) = &entered.event
                && let Some(cut) = finished.cut
            {
                self.gate_to_end.take(entered.at.since(cut));
            }
        }
        Ok(())
    }
}
