//! What the model server says of its build, remembered for each grant, so that a change shows.
//!
//! It is the server's own word: the `model` and `system_fingerprint` that common dialects put into answers. That they differ from
//! before means that behaviour changed, which a restart with other settings does as well; that they do not differ proves nothing.
//!
//! **Invariant:** an answer is held against answers to the same grant, route and asked name alone, since servers repeat the name
//! that they were asked for. Each change is told once, and what is unknown is no change.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anteroom_proto::names::{Digest, GrantId};
use serde::{Deserialize, Serialize};

use super::{
    check::CheckedCall,
    upstream::{NAME_BYTES_MAX, Reported},
};
use crate::durable;

/// Most grants that are remembered; beyond that the others go on being watched.
const GRANTS_MAX: usize = 4_096;
/// Most routes and names of one grant: callers choose the names.
const NAMES_MAX: usize = 64;

const FILE: &str = "builds.json";
const DOMAIN: &[u8] = b"anteroom/reported-build/v1";

/// What was asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Asked(String);

impl Asked {
    /// The route and model name of a call; a name that is too long counts as none.
    pub(super) fn of(call: &CheckedCall) -> Self {
        #[derive(Deserialize)]
        struct Body<'b> {
            #[serde(borrow, default)]
            model: Option<Cow<'b, str>>,
        }
        let body: Option<Body<'_>> = serde_json::from_slice(call.body()).ok();
        let name = body.and_then(|body| body.model).filter(|name| name.len() <= NAME_BYTES_MAX).unwrap_or_default();
        Self(format!("{} {name}", call.route().path()))
    }
}

/// What an answer said, for the signed outcome.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Said {
    /// The digest of it; empty if it said nothing.
    pub(super) build: Vec<u8>,
    /// The digest before, if this one's build differs.
    pub(super) before: Vec<u8>,
    /// The change in words.
    pub(super) change: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    system_fingerprint: Option<String>,
    digest: Digest,
}

type Held = BTreeMap<GrantId, BTreeMap<String, Build>>;

/// What was said so far.
#[derive(Debug)]
pub(super) struct Builds {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Held,
    unsaved: bool,
}

impl Builds {
    /// Opens the file in `dir`. One that cannot be read counts as none: what changed meanwhile then goes unnoticed, and calls go on.
    pub(super) fn open(dir: &Path) -> Self {
        let found = durable::read(dir, FILE).and_then(|bytes| match bytes {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            None => Ok(Held::default()),
        });
        let held = found.unwrap_or_else(|error| {
            tracing::error!(%error, "what the model server said of its build before cannot be read; changes since are not noticed");
            Held::default()
        });
        Self { dir: dir.to_owned(), state: Mutex::new(State { held, unsaved: false }) }
    }

    /// Takes in what an answer said, and tells whether that changed.
    pub(super) fn note(&self, grant: GrantId, asked: &Asked, status: u32, reported: &Reported) -> Said {
        // What a server says in place of an answer, nobody builds on.
        if !(200..300).contains(&status) || (reported.model.is_none() && reported.system_fingerprint.is_none()) {
            return Said::default();
        }
        let digest = digest(grant, reported);
        let build = digest.as_bytes().to_vec();
        let mut state = self.lock();
        let full = state.held.len() >= GRANTS_MAX && !state.held.contains_key(&grant);
        if full {
            return Said { build, ..Said::default() };
        }
        let names = state.held.entry(grant).or_default();
        let (model, system_fingerprint) = (reported.model.clone(), reported.system_fingerprint.clone());
        let Some(held) = names.get_mut(&asked.0) else {
            if names.len() < NAMES_MAX {
                names.insert(asked.0.clone(), Build { model, system_fingerprint, digest });
                state.unsaved = true;
            }
            return Said { build, ..Said::default() };
        };
        let changes = [
            differs("model", held.model.as_ref(), model.as_ref()),
            differs("system_fingerprint", held.system_fingerprint.as_ref(), system_fingerprint.as_ref()),
        ];
        let change: Vec<String> = changes.into_iter().flatten().collect();
        let next = Build {
            // What an answer leaves out is what it was.
            model: model.or_else(|| held.model.clone()),
            system_fingerprint: system_fingerprint.or_else(|| held.system_fingerprint.clone()),
            digest,
        };
        let before = held.digest;
        if *held != next {
            *held = next;
            state.unsaved = true;
        }
        if change.is_empty() {
            return Said { build, ..Said::default() };
        }
        Said { build, before: before.as_bytes().to_vec(), change: Some(change.join(", ")) }
    }

    /// Writes behind what was noted. A power cut may forget the newest, which then is told again or goes unnoticed.
    ///
    /// # Errors
    /// It cannot be written, and is tried again with the next turn.
    pub(super) fn save(&self) -> io::Result<()> {
        let bytes = {
            let mut state = self.lock();
            if !state.unsaved {
                return Ok(());
            }
            state.unsaved = false;
            serde_json::to_vec(&state.held).map_err(io::Error::other)?
        };
        durable::write_whole(&self.dir, FILE, &bytes).inspect_err(|_| self.lock().unsaved = true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn differs(what: &str, before: Option<&String>, after: Option<&String>) -> Option<String> {
    let (before, after) = before.zip(after)?;
    (before != after).then(|| format!("{what} was `{before}` and is `{after}`"))
}

/// Names what was said, for whoever compares answers of one grant and does not know the names: `SHA-256(domain ‖ grant ‖ model ‖
/// system_fingerprint)`, each of the two 00 if absent, else 01, its length as four big-endian bytes, and its bytes.
fn digest(grant: GrantId, reported: &Reported) -> Digest {
    let mut bytes = [DOMAIN, grant.as_bytes().as_slice()].concat();
    for said in [&reported.model, &reported.system_fingerprint] {
        match said {
            None => bytes.push(0),
            Some(said) => {
                bytes.push(1);
                bytes.extend_from_slice(&u32::try_from(said.len()).unwrap_or(u32::MAX).to_be_bytes());
                bytes.extend_from_slice(said.as_bytes());
            }
        }
    }
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]
    use super::*;

    const GRANT: GrantId = GrantId::from_bytes([1; 16]);
    const OTHER: GrantId = GrantId::from_bytes([2; 16]);

    fn asked(name: &str) -> Asked {
        Asked(format!("/v1/chat/completions {name}"))
    }

    fn said(model: &str, fingerprint: Option<&str>) -> Reported {
        let mut reported = Reported::default();
        reported.model = Some(model.to_owned());
        reported.system_fingerprint = fingerprint.map(str::to_owned);
        reported
    }

    #[test]
    fn a_change_is_told_once_with_both_digests_also_across_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::open(dir.path());
        let first = builds.note(GRANT, &asked("m"), 200, &said("m", Some("fp-1")));
        assert_eq!((first.build.len(), first.change), (32, None));
        assert_eq!(builds.note(GRANT, &asked("m"), 200, &said("m", Some("fp-1"))).change, None);
        builds.save().unwrap();
        let builds = Builds::open(dir.path());
        let changed = builds.note(GRANT, &asked("m"), 200, &said("m", Some("fp-2")));
        assert_eq!(changed.before, first.build);
        assert_ne!(changed.build, first.build);
        assert_eq!(changed.change.unwrap(), "system_fingerprint was `fp-1` and is `fp-2`");
        let again = builds.note(GRANT, &asked("m"), 200, &said("m", Some("fp-2")));
        assert_eq!((again.change, again.before.len()), (None, 0));
    }

    #[test]
    fn what_answers_something_else_or_nothing_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::open(dir.path());
        let first = builds.note(GRANT, &asked("m"), 200, &said("m", Some("fp-1")));
        // A server that echoes the asked name, another grant, an error, an answer without a fingerprint.
        assert_eq!(builds.note(GRANT, &asked("n"), 200, &said("n", Some("fp-1"))).change, None);
        let elsewhere = builds.note(OTHER, &asked("m"), 200, &said("m", Some("fp-1")));
        assert_ne!(elsewhere.build, first.build, "digests of two grants are not compared");
        assert_eq!(builds.note(GRANT, &asked("m"), 500, &said("z", Some("fp-9"))), Said::default());
        assert_eq!(builds.note(GRANT, &asked("m"), 200, &said("m", None)).change, None);
        assert!(builds.note(GRANT, &asked("m"), 200, &said("m", Some("fp-2"))).change.is_some(), "what it was is kept");
        assert_eq!(builds.note(GRANT, &asked("m"), 200, &Reported::default()), Said::default());
    }

    #[test]
    fn names_that_callers_make_up_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::open(dir.path());
        for name in 0..=NAMES_MAX {
            builds.note(GRANT, &asked(&name.to_string()), 200, &said("m", None));
        }
        assert_eq!(builds.lock().held[&GRANT].len(), NAMES_MAX);
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(Builds::open(dir.path()).lock().held.is_empty());
    }
}
