//! Files of a party's folder: its owner's alone, replaced whole or not at all.

use std::{
    fs::{self, DirBuilder, File},
    io::{ErrorKind, Read},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use super::HomeError;
use crate::durable;

/// Largest file read, in bytes: a dossier with thousands of run credentials.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

fn failed(path: &Path, why: std::io::Error) -> HomeError {
    HomeError::Io { path: path.to_owned(), why }
}

/// Makes a folder and those above it, for its owner alone.
pub(super) fn folder(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|why| failed(path, why))
}

/// A file's bytes; `None` if there is no such file.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, HomeError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(failed(path, why)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|why| failed(path, why))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(path, ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(bytes))
}

/// A file's text; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, HomeError> {
    let text = read_bytes(path)?.map(String::from_utf8).transpose();
    text.map_err(|error| HomeError::Text { path: path.to_owned(), why: error.to_string() })
}

/// Replaces a file whole and waits for the disk. Commands may run side by side.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    durable::replace(path, bytes, durable::Sync::Disk).map_err(|why| failed(path, why))
}

/// When a file was last written.
pub(super) fn changed(path: &Path) -> Result<std::time::SystemTime, HomeError> {
    fs::metadata(path).and_then(|found| found.modified()).map_err(|why| failed(path, why))
}

/// The names of a folder's files that end so, sorted; none if there is no such folder.
pub(super) fn names(path: &Path, ending: &str) -> Result<Vec<String>, HomeError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(failed(path, why)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|why| failed(path, why))?.file_name();
        if let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(ending)) {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
