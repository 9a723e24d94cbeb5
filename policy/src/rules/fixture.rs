//! Terms and facts that tests start from: a call that passes, to be changed in one place.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::sync::Arc;

use anteroom_proto::{
    rpc::{Facts, Marking},
    statement::terms::Terms,
};
use serde_json::{Value, json};

use super::baseline_digest;
use crate::judge::Epoch;

/// Terms as JSON, changed by `change`.
pub(crate) fn terms(change: impl FnOnce(&mut Value)) -> Terms {
    let digest = |byte: &str| byte.repeat(32);
    let mut json = json!({
        "version": 1,
        "grant": format!("grant-{}", "0a".repeat(16)),
        "nonce": digest("01"),
        "lab": {"org": "lab", "key_set": digest("02")},
        "agency": {"org": "agency", "key_set": digest("03")},
        "sponsor": {"org": "agency", "key_set": digest("03")},
        "instrument": "agreement",
        "model": {"line": "m1", "builds": [digest("04")], "variants": ["standard"]},
        "window": {"start_ms": null, "term_ms": 3_600_000, "partner_release_ms": null, "accept_by_ms": 1, "pause_ms_max": null},
        "features": {
            "chat": true, "streaming": true, "tools": ["function"], "images": 1, "logprobs": 3, "n": 2,
            "named_fields": ["top_k"],
        },
        "roster": digest("05"),
        "runs": [
            {"id": "run-1", "purpose": "evaluate", "budget": {"calls": 1, "tokens": 1, "open": 1},
             "networks": ["hq"], "content_profile": "default"},
            {"id": "run-2", "purpose": "probe", "budget": {"calls": 1, "tokens": 1, "open": 1},
             "content_profile": "cyber-range"},
        ],
        "limits": {"body_bytes_max": 65536, "tokens_max": 65536, "default_max_tokens": 1024, "image_tokens": 1000},
        "budget": {"calls": 10, "tokens": 10000, "open": 2},
        "marking": {"level": 1, "caveats": ["PROPIN"], "rel_to": []},
        "policy": {"baseline": baseline_digest().to_string(), "additions": ""},
        "endpoint": "connector",
        "scanner_locks": "run",
    });
    change(&mut json);
    Terms::parse(json.to_string().as_bytes()).unwrap()
}

/// Terms with these additional rules.
pub(crate) fn added(rules: &str) -> Terms {
    terms(|json| json["policy"]["additions"] = rules.into())
}

/// An epoch of the terms as they are.
pub(crate) fn epoch() -> Epoch {
    Epoch::new(Arc::new(terms(|_| {}))).unwrap()
}

/// Facts of a call that passes under [`terms`].
pub(crate) fn facts() -> Facts {
    Facts {
        route: "chat".into(),
        pseudonym: "p-1".into(),
        employer: "agency".into(),
        us_person: "yes".into(),
        us_only: "yes".into(),
        rel_to_ok: vec!["FVEY".into(), "USA".into()],
        clearance: 1,
        read_ins: vec!["PROPIN".into()],
        purpose: "evaluate".into(),
        minute: 1_000,
        network: "hq".into(),
        marking: Some(Marking { level: 1, caveats: vec!["PROPIN".into()], rel_to: Vec::new() }),
        n: 1,
        response_format: "text".into(),
        tokens_asked: 1_280,
        model: "m1".into(),
        variant: "standard".into(),
        trained_until_minute: 2_000,
        engaged_until_minute: 2_000,
        run: "run-1".into(),
        ..Facts::default()
    }
}
