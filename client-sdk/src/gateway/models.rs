//! What can be asked for: the model lines of the grants at hand, as tools list and name them.

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{names::GrantId, time::At};
use http::StatusCode;
use serde_json::{Value, json};

use super::{dialect::Dialect, grants::Held, reply::Problem};

/// Most models that an error names.
const NAMED_MAX: usize = 32;

/// A model that can be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offered {
    /// What `model` in a request's body says: `line`, or `line:variant`.
    pub id: String,
    /// The grant that calls are made under.
    pub grant: GrantId,
    /// The run.
    pub run: String,
    /// The grant's phase, on the broker's word.
    pub phase: String,
    /// First instant after the window; absent while it is not fixed.
    pub end: Option<At>,
    /// Calls left, of grant or run, whichever is less.
    pub calls_left: Option<u64>,
    /// Tokens left.
    pub tokens_left: Option<u64>,
}

/// The names that a grant's model goes by: its line, and each variant where there are several.
fn names(held: &Held) -> Vec<String> {
    let (line, variants) = (&held.terms.model.line, &held.terms.model.variants);
    let mut names = vec![line.to_string()];
    if variants.len() > 1 {
        names.extend(variants.iter().map(|variant| format!("{line}:{variant}")));
    }
    names
}

/// Whether a request for `model` can be made under this grant.
fn lends(held: &Held, model: &str) -> bool {
    let (line, variant) = model.split_once(':').map_or((model, None), |(line, variant)| (line, Some(variant)));
    held.terms.model.line.as_str() == line
        && variant.is_none_or(|variant| held.terms.model.variants.iter().any(|known| known.as_str() == variant))
}

/// How much a grant is to be preferred over others that lend the same: one that can be called, that is not paused, that has budget
/// left, that ends last.
fn rank(held: &Held, now: At) -> (bool, bool, bool, bool, Option<At>) {
    let left = held.left().is_none_or(|(calls, tokens)| calls > 0 && tokens > 0);
    (!held.over(now) && held.in_force(), held.caller.is_ok(), !held.paused(), left, held.end)
}

/// The models at hand, each under the grant that a request for it goes to.
pub(super) fn offered(all: &[Held], now: At) -> Vec<(String, &Held)> {
    let mut found: Vec<(String, &Held)> = Vec::new();
    let callable = all.iter().filter(|held| held.in_force() && !held.over(now) && held.caller.is_ok());
    for held in callable {
        for name in names(held) {
            match found.iter_mut().find(|(known, _)| *known == name) {
                Some((_, best)) if rank(best, now) < rank(held, now) => *best = held,
                Some(_) => {}
                None => found.push((name, held)),
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// A model as [`super::Gateway::models`] tells it.
pub(super) fn told(id: &str, held: &Held) -> Offered {
    let left = held.left();
    Offered {
        id: id.to_owned(),
        grant: held.grant,
        run: held.run().map(ToString::to_string).unwrap_or_default(),
        phase: held.phase.clone(),
        end: held.end,
        calls_left: left.map(|(calls, _)| calls),
        tokens_left: left.map(|(_, tokens)| tokens),
    }
}

/// The grant that a request for `model` goes to.
pub(super) fn chosen(all: &[Held], model: &str, now: At) -> Result<Held, Problem> {
    let fit = all.iter().filter(|held| lends(held, model)).max_by_key(|held| rank(held, now));
    match fit {
        Some(held) if held.caller.is_ok() => Ok(held.clone()),
        Some(held) if held.over(now) => {
            let ended = Refusal::from_code(&format!("grant_{}", held.phase)).unwrap_or(Refusal::GrantExpired);
            Err(Problem::of(ended))
        }
        Some(held) => {
            let why = held.caller.as_ref().err().map_or("", |why| why);
            Err(Problem::own(StatusCode::FORBIDDEN, "no_credential", why))
        }
        None => Err(unknown(all, model, now)),
    }
}

/// There is no such model here.
pub(super) fn unknown(all: &[Held], model: &str, now: At) -> Problem {
    let known = offered(all, now);
    let mut named: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).take(NAMED_MAX).collect();
    if named.is_empty() {
        named.push("none at the moment");
    }
    let asked: String = model.chars().filter(|c| !c.is_control()).take(80).collect();
    let message = format!("there is no model `{asked}` here; there is: {}", named.join(", "));
    Problem::own(StatusCode::NOT_FOUND, "model_not_found", message).about("model")
}

/// One entry of the list.
pub(super) fn entry(id: &str, held: &Held, dialect: Dialect) -> Value {
    let terms = &held.terms;
    let left = held.left();
    let mut entry = match dialect {
        Dialect::OpenAi => json!({
            "id": id,
            "object": "model",
            "created": held.start.map_or(0, |start| start.ms() / 1_000),
            "owned_by": terms.lab.org,
        }),
        Dialect::Anthropic => json!({
            "id": id,
            "type": "model",
            "display_name": id,
            "created_at": held.start.unwrap_or(At::ZERO).to_string(),
        }),
    };
    let about = json!({
            "grant": held.grant,
            "run": held.run(),
            "phase": held.phase,
            "grant_start": held.start.map(|at| at.to_string()),
            "grant_end": held.end.map(|at| at.to_string()),
            "calls_left": left.map(|(calls, _)| calls),
            "tokens_left": left.map(|(_, tokens)| tokens),
            "builds": held.builds,
            "behaviour_may_have_changed": held.changed.as_ref().map(|changed| json!({
                "build": changed.build,
                "manifest": changed.manifest,
                "since": changed.since.to_string(),
            })),
            "variants": terms.model.variants,
            "features": terms.features,
            "limits": terms.limits,
    });
    if let Value::Object(members) = &mut entry {
        members.insert("anteroom".to_owned(), about);
    }
    entry
}

/// The list, which is short enough to be one page.
pub(super) fn list(all: &[Held], now: At, dialect: Dialect) -> Value {
    let offered = offered(all, now);
    let data: Vec<Value> = offered.iter().map(|(id, held)| entry(id, held, dialect)).collect();
    match dialect {
        Dialect::OpenAi => json!({"object": "list", "data": data}),
        Dialect::Anthropic => {
            let id = |entry: Option<&(String, &Held)>| entry.map(|(id, _)| id.clone());
            json!({"data": data, "has_more": false, "first_id": id(offered.first()), "last_id": id(offered.last())})
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::verify::world::World;

    /// A grant of which nobody here can call.
    fn held(seed: u8, phase: &str, end: i64, variants: &[&str]) -> Held {
        let mut terms = World::new().terms;
        terms.model.variants = variants.iter().filter_map(|name| name.parse().ok()).collect();
        Held::told(GrantId::from_bytes([seed; 16]), phase, Some(At::clamped(end)), BTreeMap::new(), terms)
    }

    #[test]
    fn a_line_goes_by_its_name_and_each_of_several_variants_by_its_own() {
        let (one, two) = (held(1, "active", 9, &["standard"]), held(1, "active", 9, &["standard", "raw"]));
        let line = one.terms.model.line.to_string();
        assert_eq!(names(&one), std::slice::from_ref(&line));
        assert_eq!(names(&two), [line.clone(), format!("{line}:standard"), format!("{line}:raw")]);
        assert!(lends(&one, &line) && lends(&one, &format!("{line}:standard")) && !lends(&one, &format!("{line}:raw")));
        assert!(!lends(&one, "other") && !lends(&one, &format!("{line}:")) && !lends(&one, ""));
    }

    #[test]
    fn what_is_not_there_is_told_apart_from_what_has_ended() {
        let code = |all: &[Held], model: &str| {
            chosen(all, model, At::clamped(5))
                .map(|held| held.grant)
                .map_err(|problem| (problem.status().as_u16(), problem.code().to_owned()))
        };
        let line = held(1, "active", 9, &["standard"]).terms.model.line.to_string();
        let no = |status, code: &str| Err((status, code.to_owned()));
        assert_eq!(code(&[held(1, "active", 9, &["standard"])], &line), no(403, "no_credential"));
        assert_eq!(code(&[held(1, "withdrawn", 9, &["standard"])], &line), no(403, "grant_withdrawn"));
        assert_eq!(code(&[held(1, "active", 5, &["standard"])], &line), no(403, "grant_expired"));
        assert_eq!(code(&[held(1, "active", 9, &["standard"])], "other"), no(404, "model_not_found"));
        assert_eq!(code(&[], &line), no(404, "model_not_found"));
        // One in force is asked before one that is over, even if that ended later.
        let both = [held(1, "withdrawn", 99, &["standard"]), held(2, "active", 9, &["standard"])];
        assert_eq!(code(&both, &line), no(403, "no_credential"));
    }
}
