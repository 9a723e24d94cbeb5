//! What is shown in place of everything when something does not hold: what, where, and the next step.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    error::{Error, VerificationError},
    following::FollowError,
    home::HomeError,
    log::LogError,
    mirror::MirrorError,
    search::SearchError,
    verify::scope::SliceError,
};

/// Something that does not hold, or that could not be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// Whether something was shown not to hold. If not, what was verified before may still be shown.
    pub verification: bool,
    /// A stable name.
    pub code: &'static str,
    /// What it means, for people.
    pub title: &'static str,
    /// What exactly.
    pub text: String,
    /// The file it was found in.
    pub file: Option<String>,
    /// The record it was found at: its index in the log, or its position in the scope if only that is known.
    pub record: Option<u64>,
    /// What to do.
    pub next: &'static str,
}

/// The kinds of trouble: name, meaning, next step.
type Kind = (&'static str, &'static str, &'static str);

const ALTERED: Kind = (
    "altered",
    "A record was altered",
    "Do not rely on this copy. Keep it as it is, make another with `anteroom audit mirror NEW --own`, and tell both \
     organisations if that one does not hold either.",
);
const GAP: Kind = (
    "gap",
    "A record is missing",
    "Something was left out. Keep this copy, make another with `anteroom audit mirror NEW --own`; if the record is missing there, \
     too, the broker withholds it: tell both organisations.",
);
const SPLIT: Kind = (
    "split_view",
    "Two histories of one log",
    "The log was shown to you in two versions that contradict each other. Both signed notes are the evidence: keep this folder and \
     tell both organisations and the witnesses.",
);
const STALE: Kind = (
    "stale",
    "An older log was shown",
    "The broker shows fewer entries than you saw before: it was set back to an older state, or shows you an old one. Both signed notes \
     are the evidence: keep this folder and tell both organisations.",
);
const FOREIGN: Kind = (
    "foreign_scope",
    "Records of another scope",
    "Records turned up that do not belong to what this folder reads, or a scope's key is not the one that was signed. Keep this \
     copy, and ask whoever appointed you for the terms again.",
);
const CHECKPOINT: Kind = (
    "checkpoint",
    "The log's signature does not hold",
    "The checkpoint is not signed as it has to be by the key pinned in this folder. Compare the key with the operator by another \
     way (`anteroom whoami`); do not replace the pin before you have.",
);
const LOCAL: Kind = (
    "unavailable",
    "Not brought up to date",
    "What is shown was verified before. `anteroom doctor` finds out why the broker cannot be asked; the page tries again.",
);
const ROWS: Kind = (
    "rows",
    "The rows on this machine cannot be used",
    "Delete the folder `anteroom/search` in the mirror; it is made anew from the verified records.",
);
const ABSENT: Kind = (
    "absent",
    "There is no copy of the log here yet",
    "Start `anteroom console` without `--offline` once, or make a copy with `anteroom audit mirror`.",
);

impl Trouble {
    fn new(verification: bool, (code, title, next): Kind, text: String, at: (Option<String>, Option<u64>)) -> Self {
        Self { verification, code, title, text, file: at.0, record: at.1, next }
    }

    /// Something could not be done; what was verified before stands.
    #[must_use]
    pub fn local(text: impl Into<String>) -> Self {
        Self::new(false, LOCAL, text.into(), (None, None))
    }

    /// Something does not hold, of which nothing more is known than its text.
    #[must_use]
    pub fn verification(text: impl Into<String>) -> Self {
        Self::new(true, ALTERED, text.into(), (None, None))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "verification": self.verification,
            "code": self.code,
            "title": self.title,
            "text": self.text,
            "file": self.file,
            "record": self.record,
            "next": self.next,
        })
    }
}

impl From<&HomeError> for Trouble {
    fn from(error: &HomeError) -> Self {
        let HomeError::Sdk(error) = error else { return Self::local(error.to_string()) };
        error.into()
    }
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        let text = error.to_string();
        if let Error::Mirror(error) | Error::Verification(VerificationError::Mirror(error)) = error {
            return (&**error).into();
        }
        // Whatever else is no verification says nothing about the log.
        let Error::Verification(why) = error else { return Self::local(text) };
        if let VerificationError::Slice(why) = why {
            return slice(why, text, None);
        }
        let VerificationError::Log(why) = why else { return Self::verification(text) };
        let kind = match why {
            LogError::Forked(_) | LogError::Inconsistent(_) | LogError::Unproven => SPLIT,
            LogError::Checkpoint(_) | LogError::Hash(_) | LogError::Keys(_) | LogError::Length(_) => CHECKPOINT,
        };
        Self::new(true, kind, text, (None, None))
    }
}

impl From<&SearchError> for Trouble {
    fn from(error: &SearchError) -> Self {
        let text = error.to_string();
        match error {
            SearchError::Mirror(error) => error.into(),
            SearchError::Row { index, .. } => Self::new(true, ALTERED, text, (None, Some(*index))),
            SearchError::Rows { path, .. } => Self::new(false, ROWS, text, (Some(shown(path)), None)),
            SearchError::Query(_) => Self::local(text),
        }
    }
}

impl From<&MirrorError> for Trouble {
    fn from(error: &MirrorError) -> Self {
        use MirrorError as E;
        let text = error.to_string();
        let of = |kind, path: &Path, record| Self::new(true, kind, error.to_string(), (Some(shown(path)), record));
        match error {
            E::Record { path, why, .. } => slice(why, text, Some(shown(path))),
            E::Told { why, .. } => slice(why, text, None),
            E::Forked { ours, theirs, evidence } if theirs < ours => of(STALE, evidence, None),
            E::Damaged { path, index, .. } => of(ALTERED, path, *index),
            E::Missing(path) | E::Stray { path, .. } => of(GAP, path, None),
            E::Checkpoint { path, .. } | E::Key { path, .. } | E::OtherLog { path, .. } => of(CHECKPOINT, path, None),
            E::Follow(FollowError::Keys { path, .. }) => of(CHECKPOINT, path, None),
            E::Root { path, .. } => of(ALTERED, path, None),
            E::TagKey { path } => of(FOREIGN, path, None),
            E::Forked { evidence, .. } => of(SPLIT, evidence, None),
            E::Dropped { index, evidence, .. } => of(SPLIT, evidence, Some(*index)),
            E::Line { path, .. } => of(ALTERED, path, None),
            E::Sent { .. } => Self::new(true, SPLIT, text, (None, None)),
            E::Receipt { .. } => Self::new(true, ALTERED, text, (None, None)),
            E::Unread { index, .. } => Self::new(true, ALTERED, text, (None, Some(*index))),
            E::Absent(path) => Self::new(false, ABSENT, text, (Some(shown(path)), None)),
            E::Io { .. }
            | E::Follow(FollowError::Io { .. })
            | E::InUse(_)
            | E::NoSlice(_)
            | E::Short { .. }
            | E::NoCall(_)
            | E::Field(_)
            | E::Interrupted => Self::local(text),
        }
    }
}

fn slice(why: &SliceError, text: String, file: Option<String>) -> Trouble {
    use SliceError as E;
    let (kind, record) = match why {
        E::Record { seq, .. } | E::Chain(seq) | E::Full(seq) => (ALTERED, Some(*seq)),
        E::Gap { expected, .. } => (GAP, Some(*expected)),
        E::Withheld { at, .. } => (GAP, Some(*at)),
        E::Absent(seq) => (GAP, Some(*seq)),
        E::Entries { .. } => (GAP, None),
        E::Forked { at, .. } => (SPLIT, Some(*at)),
        E::Root(_) => (SPLIT, None),
        E::OtherScope(_) | E::NoTagKey(_) | E::TagKey(_) => (FOREIGN, None),
        E::Records | E::EntryBytes(_) | E::Tree(_) => (ALTERED, None),
    };
    Trouble::new(true, kind, text, (file, record))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use anteroom_proto::ledger::scope::Scope;

    use super::*;

    #[test]
    fn each_kind_of_contradiction_has_a_warning_of_its_own_that_names_file_and_record() {
        let record = |why| MirrorError::Record { path: "slices/x.records".into(), at: 7, why };
        let forked = |theirs| MirrorError::Forked { ours: 9, theirs, evidence: "evidence".into() };
        let told = |why| MirrorError::Told { scope: Scope::System, why };
        let tag = MirrorError::TagKey { path: "slices/x.tag".into() };
        for (error, code, file, index) in [
            (record(SliceError::Chain(4)), "altered", Some("slices/x.records"), Some(4)),
            (record(SliceError::Withheld { seq: 4, at: 30 }), "gap", Some("slices/x.records"), Some(30)),
            (record(SliceError::Gap { expected: 4, found: 6 }), "gap", Some("slices/x.records"), Some(4)),
            (record(SliceError::Forked { seq: 4, at: 30 }), "split_view", Some("slices/x.records"), Some(30)),
            (record(SliceError::OtherScope(Scope::System)), "foreign_scope", Some("slices/x.records"), None),
            (told(SliceError::Gap { expected: 4, found: 6 }), "gap", None, Some(4)),
            (told(SliceError::OtherScope(Scope::System)), "foreign_scope", None, None),
            (forked(9), "split_view", Some("evidence"), None),
            (forked(10), "split_view", Some("evidence"), None),
            (forked(8), "stale", Some("evidence"), None),
            (tag, "foreign_scope", Some("slices/x.tag"), None),
            (MirrorError::Missing("tile/0/000".into()), "gap", Some("tile/0/000"), None),
            (MirrorError::Sent { sent: 1, size: 2 }, "split_view", None, None),
        ] {
            let trouble = Trouble::from(&error);
            assert!(trouble.verification && !trouble.next.is_empty(), "{error}");
            assert_eq!((trouble.code, trouble.file.as_deref(), trouble.record), (code, file, index), "{error}");
        }
        let other = Error::from(LogError::Forked(7));
        assert_eq!(Trouble::from(&other).code, "split_view");
    }

    #[test]
    fn what_only_this_machine_lacks_is_no_contradiction() {
        let absent = Trouble::from(&MirrorError::Absent("mirror".into()));
        assert_eq!((absent.verification, absent.code), (false, "absent"));
        let away = Trouble::from(&HomeError::Sdk(Error::Transport("refused".to_owned())));
        assert_eq!((away.verification, away.code), (false, "unavailable"));
    }
}
