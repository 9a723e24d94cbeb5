//! Verifying a bundle without asking anybody.

use std::{fs, path::Path};

use anteroom_proto::{ledger::scope::Scope, names::GrantId};

use super::{
    BundleError, MANIFEST, Manifest, Render,
    parts::{self, MIRROR, REPORT},
    wrong,
};
use crate::{
    mirror::{
        Mirror, MirrorError, Tell,
        check::{Demands, Verified, root_of},
        copy::own_files,
    },
    report::{self, Asked, MADE_BY, Report},
};

/// Largest report read, in bytes.
const REPORT_BYTES_MAX: u64 = 1 << 28;

/// A bundle that holds.
#[derive(Debug)]
#[must_use]
pub struct Held {
    /// The grant.
    pub grant: GrantId,
    /// The report, made again from the records.
    pub report: Report,
    /// The mirror within.
    pub verified: Verified,
    /// How many files the manifest lists.
    pub files: u64,
    /// Parts that another version of this program worded, so that only the manifest vouches for them.
    pub listed_only: Vec<String>,
}

/// Verifies a bundle: every file against the manifest and none beside them, the mirror within and its dossier, and every other part made
/// again from those and compared. Nothing is written.
///
/// # Errors
/// Something does not hold; the error names the file and says what.
pub fn check(dir: &Path, demands: &Demands, render: Render<'_>, tell: Tell<'_>) -> Result<Held, BundleError> {
    let manifest = Manifest::read(dir)?;
    manifest.fits(dir)?;
    let mirror = Mirror::at(&dir.join(MIRROR));
    let grant = manifest.grant;
    let scopes = mirror.scopes().map_err(within)?;
    same("scopes", &manifest.scopes, &scopes.iter().map(ToString::to_string).collect())?;
    let only = |scope: &Scope| *scope == Scope::System || *scope == Scope::Grant(grant);
    if !scopes.contains(&Scope::Grant(grant)) || !scopes.iter().all(only) {
        return Err(wrong(
            MANIFEST,
            format!("a bundle of {grant} has its records, and beside them the system's alone"),
        ));
    }
    // What this party saw elsewhere is compared here: a contradiction must not be written into what is checked.
    let quiet = Demands { seen: None, ..demands.clone() };
    let asked = Asked { grant: Some(grant), ..Asked::default() };
    let (report, verified) = report::of(&mirror, &quiet, &scopes, &asked, &manifest.made_by, tell).map_err(within)?;
    agrees(&mirror, demands, &verified)?;
    same("origin", &manifest.origin, &report.log.origin)?;
    same("key of the log", &manifest.log_key, &report.log.key)?;
    same("number of entries", &manifest.entries, &report.log.entries)?;
    same("root", &manifest.root, &report.log.root)?;
    if let Some(slice) = verified.slices().iter().find(|slice| slice.beyond > 0) {
        let file = format!("{MIRROR}/anteroom/slices/{}.records", slice.scope);
        return Err(wrong(file, format!("{} records stand after the checkpoint", slice.beyond)));
    }
    if !verified.dossiers().iter().any(|dossier| dossier.grant == grant) {
        return Err(wrong(format!("{MIRROR}/anteroom/dossiers/{grant}.dossier"), "the dossier is missing"));
    }
    named(dir, &manifest)?;
    let mut listed_only = Vec::new();
    let parts = parts::all(grant, &report, &mirror.dossier(grant)?, render)?;
    for part in &parts {
        let path = dir.join(&part.file);
        let found = match fs::read(&path) {
            Ok(found) => found,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Err(wrong(&*part.file, "it is missing")),
            Err(why) => return Err(BundleError::Io { path, why }),
        };
        if found == part.bytes {
            continue;
        }
        if part.worded && manifest.made_by != MADE_BY {
            listed_only.push(part.file.clone());
            continue;
        }
        return Err(wrong(&*part.file, difference(&found, &part.bytes)));
    }
    let tiles = format!("{MIRROR}/tile/");
    let mirrored = own_files(&mirror, &scopes, grant);
    let known = |file: &str| {
        // A stray tile was found when the tree was verified.
        file.starts_with(&tiles) || parts.iter().any(|part| part.file == file) || mirrored.contains(&dir.join(file))
    };
    if let Some(stray) = manifest.files.iter().find(|said| !known(&said.file)) {
        return Err(wrong(&*stray.file, "no bundle has such a file"));
    }
    Ok(Held { grant, report, verified, files: manifest.files.len() as u64, listed_only })
}

/// What a mirror lacks is this machine's fault; what the one in a bundle lacks is the bundle's.
fn within(error: MirrorError) -> BundleError {
    let lacks = matches!(error, MirrorError::Absent(_) | MirrorError::NoSlice(_) | MirrorError::Short { .. });
    if lacks { wrong(MIRROR, error.to_string()) } else { error.into() }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, said: &T, found: &T) -> Result<(), BundleError> {
    if said == found {
        return Ok(());
    }
    Err(wrong(MANIFEST, format!("the {what} is {said:?}, and what is here has {found:?}")))
}

/// The manifest and the report must name the same software: it is in no signature, and says how parts were worded.
fn named(dir: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    let path = dir.join(REPORT);
    let size = fs::metadata(&path).map_err(|_| wrong(REPORT, "it is missing"))?.len();
    if size > REPORT_BYTES_MAX {
        return Err(wrong(REPORT, format!("it is longer than {REPORT_BYTES_MAX} bytes")));
    }
    let bytes = fs::read(&path).map_err(|why| BundleError::Io { path, why })?;
    let report: serde_json::Value = serde_json::from_slice(&bytes).map_err(|why| wrong(REPORT, why.to_string()))?;
    if report.get("format").and_then(serde_json::Value::as_u64) != Some(u64::from(report::FORMAT)) {
        return Err(wrong(
            REPORT,
            format!("it is not of form {}, the one that this program makes again", report::FORMAT),
        ));
    }
    let maker = report.get("made_by").and_then(serde_json::Value::as_str).unwrap_or_default();
    same("software", &manifest.made_by.as_str(), &maker)
}

/// Demands that the bundle's log is the one that this party saw, as far as it reaches.
fn agrees(mirror: &Mirror, demands: &Demands, verified: &Verified) -> Result<(), BundleError> {
    let Some(seen) = &demands.seen else { return Ok(()) };
    let (ours, theirs) = (verified.checkpoint().checkpoint().size(), seen.checkpoint().size());
    if theirs > ours || root_of(mirror, theirs, ours) == Some(*seen.checkpoint().root()) {
        return Ok(());
    }
    Err(BundleError::Forked { ours, theirs })
}

/// Where two texts part, and what stands there.
fn difference(found: &[u8], made: &[u8]) -> String {
    let at = found.iter().zip(made).take_while(|(one, other)| one == other).count();
    let line = found.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    let text = |bytes: &[u8]| {
        let whole = bytes.split(|byte| *byte == b'\n').nth(line - 1).unwrap_or_default();
        String::from_utf8_lossy(whole).trim().chars().take(120).collect::<String>()
    };
    format!(
        "line {line} is `{}`, and what follows from the records, the dossier and this program is `{}`",
        text(found),
        text(made)
    )
}
