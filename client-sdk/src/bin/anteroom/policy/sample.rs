//! Terms that nobody signed, for rules that are tried before there are terms.
//!
//! **Invariant:** they lend chat and streamed answers and nothing else, so that every rule of the baseline can be seen to refuse.

use anteroom_policy::rules::baseline_digest;
use anteroom_proto::{names::Digest, statement::terms::Terms};
use serde_json::json;

use crate::fail::Fail;

/// The sample terms.
pub(crate) fn terms() -> Result<Terms, Fail> {
    let digest = |what: &str| Digest::of(what.as_bytes()).to_string();
    let json = json!({
        "version": 1,
        "grant": format!("grant-{}", "00".repeat(16)),
        "nonce": digest("nonce"),
        "lab": {"org": "lab", "key_set": digest("lab")},
        "agency": {"org": "agency", "key_set": digest("agency")},
        "sponsor": {"org": "agency", "key_set": digest("agency")},
        "instrument": "sample",
        "model": {"line": "line", "builds": [digest("build")], "variants": ["standard"]},
        "window": {
            "start_ms": null, "term_ms": 2_592_000_000_i64, "partner_release_ms": null, "accept_by_ms": 1, "pause_ms_max": null,
        },
        "features": {"chat": true, "streaming": true, "n": 1},
        "roster": digest("roster"),
        "runs": [{
            "id": "run", "purpose": "evaluation", "budget": {"calls": 1, "tokens": 1, "open": 1}, "networks": ["hq"],
            "content_profile": "default",
        }],
        "limits": {"body_bytes_max": 1_048_576, "tokens_max": 131_072, "default_max_tokens": 4_096, "image_tokens": 1_024},
        "budget": {"calls": 1, "tokens": 1, "open": 1},
        "marking": {"level": 1, "caveats": ["PROPIN"], "rel_to": []},
        "policy": {"baseline": baseline_digest().to_string(), "additions": ""},
        "endpoint": "connector",
        "scanner_locks": "run",
    });
    Ok(Terms::parse(json.to_string().as_bytes())?)
}
