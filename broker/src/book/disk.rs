//! The one seam between the book and a disk: a directory of files, and of folders that are directories again.
//!
//! It knows which system calls make bytes durable and nothing about what the bytes are. [`RealDisk`] is a directory held open for
//! as long as the book lives; [`lossy::LossyDisk`] is a directory in memory that forgets, shuffles and tears what was not synced.
//!
//! **Invariant:** nothing here retries. After a failed sync the kernel may have dropped the dirty pages and called them clean, so
//! a second sync that succeeds proves nothing; whoever sees an error here stops using the file.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};

pub mod lossy;

/// What tells one file from another for as long as both exist: device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The device the file lives on.
    pub device: u64,
    /// The inode on that device.
    pub inode: u64,
}

/// One directory. Names are single path components.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Takes the directory for this handle alone, until the handle is dropped. `false` means somebody else has it.
    fn lock(&self) -> io::Result<bool>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Creates an empty file that only this user can read; an existing name is an error.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it. Durable only after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name. Durable only after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names durable (`fsync` of the directory).
    fn sync_dir(&self) -> io::Result<()>;
    /// The names of all entries, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Which file a name leads to at this moment, looked up by full path, so that a directory moved aside is noticed as well.
    fn identify(&self, name: &str) -> io::Result<FileIdentity>;
    /// Opens a folder in this directory as a directory of its own. A disk without folders answers `Unsupported`, here and below.
    fn folder(&self, _name: &str) -> io::Result<Arc<dyn Disk>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Creates an empty folder for this user alone; an existing name is an error. Durable only after [`Disk::sync_dir`].
    fn create_folder(&self, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes an empty folder. Durable only after [`Disk::sync_dir`].
    fn remove_folder(&self, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// One open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at `offset` (`pwrite64`).
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the contents durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Fills `bytes` from `offset` and returns how many there were before the file's end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The file's length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Which file this is, whatever its name is by now.
    fn identity(&self) -> io::Result<FileIdentity>;
}

/// Whether an error says that the disk, or this user's share of it, is full: the one failure that leaves all files as they were.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes a small file so that after a crash its name leads either to the previous contents or to all of `bytes`.
///
/// # Errors
/// Whatever the disk reports. A full disk leaves the previous contents in place; after any other error it is unknown which of the two is there.
pub fn write_durably(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_whole(disk, name, bytes)?;
    disk.sync_dir()
}

/// As [`write_durably`], but for the name, which is durable only after [`Disk::sync_dir`]: for many files at once.
///
/// # Errors
/// As for [`write_durably`].
pub fn write_whole(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = format!("{name}.tmp");
    match disk.remove(&unfinished) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = disk.create(&unfinished)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&unfinished, name)
}

/// Reads a whole file of at most `limit` bytes; `None` when it is longer.
///
/// # Errors
/// Whatever the disk reports, among it `NotFound`.
pub fn read_small(disk: &dyn Disk, name: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let file = disk.open(name)?;
    // One byte more than allowed tells a file of exactly the limit from a longer one.
    let mut bytes = vec![0; limit.saturating_add(1)];
    let filled = file.read_at(&mut bytes, 0)?;
    if filled > limit {
        return Ok(None);
    }
    bytes.truncate(filled);
    Ok(Some(bytes))
}

/// A directory of the machine, held open.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    directory: File,
}

impl RealDisk {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        Ok(Self { path: path.to_owned(), directory })
    }

    /// Opens a directory, creating it (mode 0700, durably) if there is none. Its parent must exist.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn open_or_create(path: &Path) -> io::Result<Self> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) => {
                let parent = match path.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    Some(_) | None => Path::new("."),
                };
                File::open(parent)?.sync_all()?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Self::open(path)
    }
}

impl Disk for RealDisk {
    fn lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        Ok(Box::new(RealFile(File::from(file))))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Box::new(RealFile(File::from(file))))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            // The book writes no name that is not UTF-8, so such a file is none of its.
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn identify(&self, name: &str) -> io::Result<FileIdentity> {
        let metadata = std::fs::symlink_metadata(self.path.join(name))?;
        Ok(FileIdentity { device: metadata.dev(), inode: metadata.ino() })
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = File::from(rustix::fs::openat(&self.directory, name, flags, Mode::empty())?);
        Ok(Arc::new(Self { path: self.path.join(name), directory }))
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.directory, name, Mode::RWXU)?)
    }

    fn remove_folder(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR)?)
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.0.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        let metadata = self.0.metadata()?;
        Ok(FileIdentity { device: metadata.dev(), inode: metadata.ino() })
    }
}
