//! Writing a bundle.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anteroom_proto::{ledger::scope::Scope, names::GrantId};

use super::{
    BundleError, Held, MANIFEST, Manifest, Render, check,
    manifest::{FORMAT, files},
    parts::{self, MIRROR},
};
use crate::{
    durable,
    mirror::{Mirror, MirrorError, Tell, check::Demands, copy::copy, layout::private_dir},
    report::{self, Asked, MADE_BY},
};

/// A bundle that was made.
#[derive(Debug)]
pub struct Made {
    /// What it was shown to be.
    pub held: Held,
    /// Its files, the manifest among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Makes a grant's bundle from a mirror, in a folder that must not be there yet.
///
/// # Errors
/// The mirror does not hold or lacks something, or the folder cannot be written; then there is none.
pub fn make(
    mirror: &Mirror,
    demands: &Demands,
    grant: GrantId,
    out: &Path,
    render: Render<'_>,
    tell: Tell<'_>,
) -> Result<Made, BundleError> {
    if out.symlink_metadata().is_ok() {
        return Err(BundleError::Exists(out.to_owned()));
    }
    let held = mirror.scopes()?;
    let own = Scope::Grant(grant);
    if !held.contains(&own) {
        return Err(MirrorError::NoSlice(own).into());
    }
    if !mirror.has_dossier(grant) {
        return Err(BundleError::NoDossier(grant));
    }
    // Sorted as the mirror lists them.
    let scopes: Vec<Scope> = held.into_iter().filter(|scope| *scope == Scope::System || *scope == own).collect();
    let part = beside(out);
    // What a run broken off left is this command's own.
    match fs::remove_dir_all(&part) {
        Ok(()) => {}
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
        Err(why) => return Err(BundleError::Io { path: part, why }),
    }
    let made = write(mirror, demands, grant, &scopes, &part, render, tell);
    let made = made.and_then(|(files, bytes)| {
        let held = check(&part, demands, render, tell)?;
        fs::rename(&part, out).map_err(|why| BundleError::Io { path: out.to_owned(), why })?;
        durable::sync_dir(parent(out)).map_err(|why| BundleError::Io { path: out.to_owned(), why })?;
        Ok(Made { held, files, bytes })
    });
    if made.is_err() {
        fs::remove_dir_all(&part).ok();
    }
    made
}

fn write(
    mirror: &Mirror,
    demands: &Demands,
    grant: GrantId,
    scopes: &[Scope],
    part: &Path,
    render: Render<'_>,
    tell: Tell<'_>,
) -> Result<(u64, u64), BundleError> {
    private_dir(part)?;
    let within = Mirror::at(&part.join(MIRROR));
    copy(mirror, &within, &demands.trust, scopes, grant)?;
    let asked = Asked { grant: Some(grant), ..Asked::default() };
    let (report, verified) = report::of(&within, demands, scopes, &asked, MADE_BY, tell)?;
    if let Some(slice) = verified.slices().iter().find(|slice| slice.beyond > 0) {
        return Err(BundleError::Beyond { scope: slice.scope.clone(), records: slice.beyond });
    }
    for made in parts::all(grant, &report, &within.dossier(grant)?, render)? {
        keep(&part.join(&made.file), &made.bytes)?;
    }
    let listed = files(part)?;
    let manifest = Manifest {
        format: FORMAT,
        made_by: MADE_BY.to_owned(),
        grant,
        origin: report.log.origin,
        log_key: report.log.key,
        entries: report.log.entries,
        root: report.log.root,
        scopes: scopes.iter().map(ToString::to_string).collect(),
        files: listed,
    };
    let encoded = manifest.encode()?;
    keep(&part.join(MANIFEST), &encoded)?;
    let bytes = manifest.files.iter().map(|file| file.bytes).sum::<u64>().saturating_add(encoded.len() as u64);
    Ok((manifest.files.len() as u64 + 1, bytes))
}

fn keep(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    private_dir(parent(path))?;
    let failed = |why| BundleError::Io { path: path.to_owned(), why };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

fn beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    out.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
