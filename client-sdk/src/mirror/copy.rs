//! Copying a mirror, or a part of its slices, into another folder.

use std::{fs, path::PathBuf};

use anteroom_proto::{
    ledger::{checkpoint::LogTrust, scope::Scope},
    names::GrantId,
};

use super::{
    Mirror, MirrorError,
    layout::{io, names, private_dir},
};

/// What of a mirror is copied beside its tiles: checkpoint, keys, these scopes' slices, this grant's dossier.
pub(crate) fn own_files(mirror: &Mirror, scopes: &[Scope], grant: GrantId) -> Vec<PathBuf> {
    let mut files = vec![mirror.checkpoint_path(), mirror.vkey_path()];
    files.extend(Some(mirror.keys_path()).filter(|path| path.exists()));
    files.extend(Some(mirror.witnesses_path()).filter(|path| path.exists()));
    for scope in scopes {
        files.extend([mirror.slice_path(scope), mirror.tag_path(scope)]);
    }
    files.push(mirror.dossier_path(grant));
    files
}

/// Copies the public tree and [`own_files`]. Nobody writes the mirror meanwhile.
pub(crate) fn copy(
    from: &Mirror,
    to: &Mirror,
    trust: &LogTrust,
    scopes: &[Scope],
    grant: GrantId,
) -> Result<(), MirrorError> {
    // Only a mirror that is there is locked; locking makes what is missing.
    let _ = from.checkpoint(trust)?;
    let _lock = from.prepare(trust)?;
    let mut files = own_files(from, scopes, grant);
    let mut folders = vec![from.tiles_dir()];
    while let Some(folder) = folders.pop() {
        for path in names(&folder)? {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for path in files {
        let target = to.dir().join(path.strip_prefix(from.dir()).unwrap_or(&path));
        private_dir(target.parent().unwrap_or(to.dir()))?;
        fs::copy(&path, &target).map_err(|why| io(&path, why))?;
    }
    Ok(())
}
