//! A row as an OCSF event: class API Activity (`class_uid` 6003) of schema 1.3, category Application Activity.
//!
//! What has no place of its own stands in `unmapped.anteroom`, so nothing of the row is lost.

use serde_json::{Value, json};

use super::Told;

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

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The log's name.
    pub origin: &'a str,
    /// The record's index.
    pub index: u64,
    /// The leaf hash of its public entry, hexadecimal.
    pub leaf_hash: &'a str,
}

/// The event of a record; of one that nobody can open any more, that it is there. `metadata.sequence` is the record's index and
/// `metadata.uid` its leaf hash.
#[must_use]
pub fn event(place: &Place<'_>, told: Option<&Told>) -> Value {
    let kind = told.map_or("Unreadable", |told| told.kind.as_ref());
    let activity = activity(kind) as u32;
    let refused = told.is_some_and(Told::is_refusal);
    let mut event = json!({
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "activity_id": activity,
        "type_uid": CLASS * 100 + activity,
        "time": told.map_or(0, |told| told.at_ms),
        "severity_id": if refused { 3 } else { 1 },
        "status_id": if refused { 2 } else { 1 },
        "metadata": {
            "version": "1.3.0",
            "product": { "name": "Anteroom", "vendor_name": "Anteroom", "version": env!("CARGO_PKG_VERSION") },
            "log_name": place.origin,
            "sequence": place.index,
            "uid": place.leaf_hash,
        },
        "api": { "operation": kind, "service": { "name": "anteroom-broker" } },
        "actor": { "user": { "name": "unknown" } },
        "src_endpoint": { "name": "unknown" },
    });
    let Some(told) = told else { return event };
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
        "LogKeySucceeded" | "ClockChanged" | "ClockStarted" | "KeySetChanged" | "MembershipStated"
        | "GrantAccepted" | "GrantActivated" | "GrantPaused" | "GrantResumed" | "CallFinished" | "CallSettled" => {
            Activity::Update
        }
        _ => Activity::Other,
    }
}
