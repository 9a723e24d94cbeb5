//! A row as an OCSF event: class API Activity (`class_uid` 6003) of schema 1.3, category Application Activity.
//!
//! What has no place of its own stands in `unmapped.anteroom`, so nothing of the row is lost.

use serde_json::{Value, json};

use super::row::Row;

const CATEGORY: u32 = 6;
const CLASS: u32 = 6003;

/// What the schema calls the kinds of API activity.
#[derive(Clone, Copy)]
enum Activity {
    Create = 1,
    Read = 2,
    Update = 3,
    Delete = 4,
    Other = 99,
}

/// The event of a row. `metadata.sequence` is the record's index and `metadata.uid` its leaf hash.
pub(super) fn event(row: &Row) -> Value {
    let kind = row.told.as_ref().map_or("Unreadable", |told| told.kind);
    let activity = activity(kind) as u32;
    let refused = row.is_refusal();
    let mut event = json!({
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "activity_id": activity,
        "type_uid": CLASS * 100 + activity,
        "time": row.at_ms(),
        "severity_id": if refused { 3 } else { 1 },
        "status_id": if refused { 2 } else { 1 },
        "metadata": {
            "version": "1.3.0",
            "product": { "name": "Anteroom", "vendor_name": "Anteroom", "version": env!("CARGO_PKG_VERSION") },
            "log_name": row.origin,
            "sequence": row.index,
            "uid": row.leaf_hash,
        },
        "api": { "operation": kind, "service": { "name": "anteroom-broker" } },
        "actor": { "user": { "name": "unknown" } },
        "src_endpoint": { "name": "unknown" },
    });
    let Some(told) = &row.told else { return event };
    if let Value::Object(fields) = &mut event {
        if let Some(actor) = &told.actor {
            fields.insert("actor".to_owned(), json!({ "user": { "name": actor } }));
            fields.insert("src_endpoint".to_owned(), json!({ "name": actor }));
        }
        let request = told.call.as_ref().map(|call| json!({ "uid": call }));
        let response = told.code.as_ref().map(|code| json!({ "code": told.status.unwrap_or(0), "message": code }));
        if let Some(Value::Object(api)) = fields.get_mut("api") {
            api.extend(request.map(|request| ("request".to_owned(), request)));
            api.extend(response.map(|response| ("response".to_owned(), response)));
        }
        if refused {
            fields.insert("status_detail".to_owned(), json!(told.code));
        }
        let resources: Vec<Value> = told.grant.iter().map(|grant| json!({ "type": "grant", "uid": grant })).collect();
        if !resources.is_empty() {
            fields.insert("resources".to_owned(), Value::Array(resources));
        }
        fields.insert("unmapped".to_owned(), json!({ "anteroom": told }));
    }
    event
}

fn activity(kind: &str) -> Activity {
    match kind {
        "LogOpened"
        | "BrokerStarted"
        | "BrokerJoined"
        | "OrganisationEnrolled"
        | "ModelRegistered"
        | "RosterPublished"
        | "GrantOffered"
        | "GrantOpened"
        | "RunCredentialIssued"
        | "LockSet"
        | "ReaderAppointed"
        | "CallAdmitted" => Activity::Create,
        "ReadOpened" => Activity::Read,
        "BrokerGone" | "GrantWithdrawn" | "GrantRelinquished" | "GrantExpired" | "GrantDeclined" | "GrantLapsed"
        | "LockLifted" => Activity::Delete,
        "ClockChanged" | "ClockStarted" | "KeySetChanged" | "MembershipStated" | "GrantAccepted" | "GrantActivated"
        | "GrantPaused" | "GrantResumed" | "CallFinished" | "CallSettled" => Activity::Update,
        _ => Activity::Other,
    }
}
