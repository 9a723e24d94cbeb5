//! The list of a bundle's files.
//!
//! **Invariant:** there is one spelling of a manifest, and a folder that fits it holds its files and no others.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    path::Path,
};

use anteroom_proto::names::{Digest, GrantId};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::{BundleError, wrong};

/// The manifest's file.
pub const MANIFEST: &str = "manifest.json";
/// The form of bundles.
pub(super) const FORMAT: u32 = 1;
/// Largest manifest read, in bytes: some 400,000 files, which is a log of 100 million entries.
const BYTES_MAX: u64 = 1 << 26;
/// Most folders inside each other.
const DEPTH_MAX: usize = 12;

/// What a bundle holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The bundle's form.
    pub format: u32,
    /// The software that made it.
    pub made_by: String,
    /// The grant.
    pub grant: GrantId,
    /// The log's origin.
    pub origin: String,
    /// The log's verifier key.
    pub log_key: String,
    /// Entries under the checkpoint.
    pub entries: u64,
    /// Their root.
    pub root: String,
    /// Scopes whose records are here.
    pub scopes: Vec<String>,
    /// The files, by name.
    pub files: Vec<FileSaid>,
}

/// A file of a bundle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSaid {
    /// Its place in the bundle.
    pub file: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

impl Manifest {
    /// Its one spelling.
    pub(super) fn encode(&self) -> Result<Vec<u8>, BundleError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|why| wrong(MANIFEST, why.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a bundle's manifest.
    pub(super) fn read(dir: &Path) -> Result<Self, BundleError> {
        let path = dir.join(MANIFEST);
        let size = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(why) if why.kind() == ErrorKind::NotFound && dir.is_dir() => {
                return Err(wrong(MANIFEST, "it is missing, so this is no bundle"));
            }
            Err(_) => return Err(BundleError::Absent(dir.to_owned())),
        };
        if size > BYTES_MAX {
            return Err(wrong(MANIFEST, format!("it is longer than {BYTES_MAX} bytes")));
        }
        let bytes = fs::read(&path).map_err(|why| BundleError::Io { path, why })?;
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|why| wrong(MANIFEST, why.to_string()))?;
        if manifest.format != FORMAT {
            let why = format!("it is of form {}, and this program knows form {FORMAT}", manifest.format);
            return Err(wrong(MANIFEST, why));
        }
        let spelt = manifest.encode()?;
        if spelt != bytes {
            let at = spelt.iter().zip(&bytes).take_while(|(one, other)| one == other).count();
            return Err(wrong(MANIFEST, format!("at byte {at} it is not in its one spelling")));
        }
        Ok(manifest)
    }

    /// Demands that the folder holds the files that are listed, as they are listed, and nothing else.
    pub(super) fn fits(&self, dir: &Path) -> Result<(), BundleError> {
        let mut due: BTreeMap<&str, &FileSaid> = BTreeMap::new();
        for said in &self.files {
            if due.insert(&said.file, said).is_some() {
                return Err(wrong(MANIFEST, format!("it lists `{}` twice", said.file)));
            }
        }
        for found in files(dir)? {
            let Some(said) = due.remove(found.file.as_str()) else {
                return Err(wrong(found.file, "the manifest does not list it"));
            };
            if found.bytes != said.bytes {
                let why = format!("it has {} bytes, and the manifest says {}", found.bytes, said.bytes);
                return Err(wrong(found.file, why));
            }
            if found.sha256 != said.sha256 {
                let why = format!("its SHA-256 is {}, and the manifest says {}", found.sha256, said.sha256);
                return Err(wrong(found.file, why));
            }
        }
        match due.keys().next() {
            Some(missing) => Err(wrong(*missing, "it is missing")),
            None => Ok(()),
        }
    }
}

/// What is in a folder but its manifest, by name.
pub(super) fn files(dir: &Path) -> Result<Vec<FileSaid>, BundleError> {
    let mut found = Vec::new();
    walk(dir, "", 0, &mut found)?;
    found.sort_by(|one: &FileSaid, other| one.file.cmp(&other.file));
    Ok(found)
}

fn walk(dir: &Path, below: &str, depth: usize, found: &mut Vec<FileSaid>) -> Result<(), BundleError> {
    if depth > DEPTH_MAX {
        return Err(wrong(below, format!("more than {DEPTH_MAX} folders stand inside each other")));
    }
    let failed = |why| BundleError::Io { path: dir.to_owned(), why };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (kind, path) = (entry.file_type().map_err(failed)?, entry.path());
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            walk(&path, &format!("{name}/"), depth + 1, found)?;
        } else if !kind.is_file() {
            // A link can lead to another file on every machine.
            return Err(wrong(name, "it is neither a file nor a folder"));
        } else if name != MANIFEST {
            let (bytes, sha256) = digest(&path)?;
            found.push(FileSaid { file: name, bytes, sha256 });
        }
    }
    Ok(())
}

/// A file's size and SHA-256, read a piece at a time.
fn digest(path: &Path) -> Result<(u64, Digest), BundleError> {
    let failed = |why| BundleError::Io { path: path.to_owned(), why };
    let mut file = File::open(path).map_err(failed)?;
    let (mut context, mut size, mut piece) = (Context::new(&SHA256), 0_u64, vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        let Some(part) = piece.get(..read).filter(|part| !part.is_empty()) else { break };
        context.update(part);
        size = size.saturating_add(part.len() as u64);
    }
    let digest = Digest::from_slice(context.finish().as_ref());
    Ok((size, digest.map_err(|why| wrong(path.display().to_string(), why.to_string()))?))
}
