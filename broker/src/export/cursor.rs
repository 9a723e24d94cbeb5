//! How far a sink is: one small file per sink, replaced whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A sink's place in the log.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    next: u64,
}

impl Cursor {
    /// Reads where sink `name` stopped; a new one begins with record 0.
    pub(super) fn open(folder: &Path, name: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(format!("{name}.next"));
        let next = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                let why = format!("`{}` does not hold a record's index; correct or remove it", path.display());
                io::Error::new(ErrorKind::InvalidData, why)
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self { path, next })
    }

    /// The first record that was not handed over.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Remembers that everything before `next` was handed over.
    pub(super) fn advance(&mut self, next: u64) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{next}")?;
        file.sync_data()?;
        fs::rename(&fresh, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.next = next;
        Ok(())
    }
}
