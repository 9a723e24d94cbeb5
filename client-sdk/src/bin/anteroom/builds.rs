//! Builds as people are told of them: which one answers under a grant, since when, and in what it differs from the one before.
//!
//! Digests are the lab's word. What is told is that behaviour may have changed.

use anteroom_proto::{
    names::Digest,
    statement::{model::Manifest, succession::OpenCalls},
    time::At,
};
use anteroom_sdk::verify::dossier::{HeldSuccession, VerifiedDossier};
use serde::Serialize;

use crate::{
    context::Ctx,
    output::{When, clean},
};

/// The builds of a grant as shown, by what both sides signed.
#[derive(Serialize)]
pub(crate) struct Builds {
    /// Builds that new calls go to at this moment.
    answering: Vec<Build>,
    /// Changes of builds that both sides signed, oldest first.
    changes: Vec<Change>,
    /// What the lab offers and the agency has not countersigned.
    offered: Option<Change>,
}

/// A build.
#[derive(Serialize)]
struct Build {
    /// The lab's name for it.
    build: String,
    /// Digest of its manifest.
    manifest: Digest,
}

/// A change of builds.
#[derive(Serialize)]
struct Change {
    /// The build before.
    from: Build,
    /// The build that takes its place.
    to: Build,
    /// From when on; absent while that is left to the agency.
    at: Option<When>,
    /// What becomes of open calls: `drain` or `cut`.
    open_calls: &'static str,
    /// The lab's reason.
    reason: String,
}

fn build(dossier: &VerifiedDossier, digest: Digest) -> Build {
    let name = dossier.manifest(&digest).map_or("-", |manifest| manifest.build.as_str());
    Build { build: name.to_owned(), manifest: digest }
}

fn change(dossier: &VerifiedDossier, held: &HeldSuccession) -> Change {
    let succession = &held.succession;
    Change {
        from: build(dossier, succession.from),
        to: build(dossier, succession.to),
        at: held.at.or(succession.at_ms).map(When::from),
        open_calls: succession.open_calls.as_str(),
        reason: succession.reason.clone(),
    }
}

impl Builds {
    /// As they stand at `now`.
    pub(crate) fn of(dossier: &VerifiedDossier, now: At) -> Self {
        Self {
            answering: dossier.builds_at(now).into_iter().map(|digest| build(dossier, digest)).collect(),
            changes: dossier.successions().iter().map(|held| change(dossier, held)).collect(),
            offered: dossier.offered_succession().map(|held| change(dossier, held)),
        }
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let named = |build: &Build| format!("`{}` ({})", clean(&build.build), build.manifest);
        let answering: Vec<String> = self.answering.iter().map(named).collect();
        let mut lines = vec![("build that answers".to_owned(), answering.join(", "))];
        let when = |change: &Change| change.at.map_or_else(|| "when the agency says".to_owned(), |at| at.to_string());
        for change in &self.changes {
            let told = format!(
                "build {} since {}, in place of {}; open calls: {}; {}",
                named(&change.to),
                when(change),
                named(&change.from),
                change.open_calls,
                clean(&change.reason)
            );
            lines.push(("behaviour may have changed".to_owned(), told));
        }
        if let Some(change) = &self.offered {
            let told = format!(
                "build {} from {}, in place of {}; open calls: {}; {}; the agency takes it with `anteroom grant countersign`",
                named(&change.to),
                when(change),
                named(&change.from),
                change.open_calls,
                clean(&change.reason)
            );
            lines.push(("build offered".to_owned(), told));
        }
        lines
    }
}

/// Says beside an answer that another build answers since some instant, or will.
pub(crate) fn note(ctx: &Ctx, dossier: &VerifiedDossier, now: At) {
    if let Some(text) = told(dossier, now) {
        ctx.out.note(&text);
    }
}

fn told(dossier: &VerifiedDossier, now: At) -> Option<String> {
    let since = |held: &HeldSuccession| {
        let build = build(dossier, held.succession.to);
        let at = held.at?;
        Some(format!("build `{}` since {at}: behaviour may have changed", clean(&build.build)))
    };
    let next = |held: &&HeldSuccession| held.at.is_some_and(|at| at > now);
    let to_come = dossier.successions().iter().find(next).and_then(|held| {
        let cut = if held.succession.open_calls == OpenCalls::Cut { "; calls open then are cut" } else { "" };
        let build = build(dossier, held.succession.to);
        Some(format!("build `{}` answers from {} on{cut}", clean(&build.build), held.at?))
    });
    let told: Vec<String> = dossier.changed(now).and_then(since).into_iter().chain(to_come).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// In what a build differs from the one before, part by part.
pub(crate) fn differences(before: Option<&Manifest>, after: &Manifest) -> Vec<(String, String)> {
    let Some(before) = before else {
        return vec![("parts".to_owned(), "the build before is not at hand to compare with".to_owned())];
    };
    let digest = |manifest: &Manifest, name: &str| {
        manifest.digests.iter().find(|part| part.name == name).map(|part| part.sha256)
    };
    let mut lines = Vec::new();
    for part in &after.digests {
        let differs = match digest(before, &part.name) {
            Some(held) if held == part.sha256 => "the same".to_owned(),
            Some(held) => format!("changed, {held} before, {} now", part.sha256),
            None => format!("new, {}", part.sha256),
        };
        lines.push((part.name.clone(), differs));
    }
    let gone = before.digests.iter().filter(|part| digest(after, &part.name).is_none());
    lines.extend(gone.map(|part| (part.name.clone(), "named no more".to_owned())));
    if before.features != after.features {
        lines.push(("features that it could serve".to_owned(), "changed; the grant's stay as they are".to_owned()));
    }
    lines
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::statement::{model::NamedDigest, terms::Features};

    use super::*;

    fn manifest(parts: &[(&str, &[u8])]) -> Manifest {
        let part = |(name, bytes): &(&str, &[u8])| NamedDigest { name: (*name).to_owned(), sha256: Digest::of(bytes) };
        Manifest {
            lab: "lab-a".parse().unwrap(),
            line: "aurora".parse().unwrap(),
            build: "one".to_owned(),
            digests: parts.iter().map(part).collect(),
            variants: vec!["standard".parse().unwrap()],
            features: Features::default(),
        }
    }

    #[test]
    fn parts_are_told_apart_one_by_one() {
        let before = manifest(&[("weights", b"1"), ("tokenizer", b"1"), ("safeguards", b"1")]);
        let after = manifest(&[("weights", b"2"), ("tokenizer", b"1"), ("system prompt", b"1")]);
        let lines = differences(Some(&before), &after);
        let told: Vec<(&str, &str)> =
            lines.iter().map(|(name, text)| (name.as_str(), text.split(',').next().unwrap())).collect();
        assert_eq!(
            told,
            [
                ("weights", "changed"),
                ("tokenizer", "the same"),
                ("system prompt", "new"),
                ("safeguards", "named no more")
            ]
        );
        assert_eq!(differences(None, &after).len(), 1);
    }
}
