//! The writing side of the list, owned by its thread.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anteroom_proto::{
    names::{Digest, ModelLine, OrgId},
    statement::envelope,
    time::At,
};
use prost::Message;

use super::{Line, ListError, ListHead, ListSeal, Point, SEGMENTS_MAX, What, read::Walk};
use crate::{
    durable,
    store::segment::{FRAME_HEAD_BYTES, frame, is_cut, payload_of},
};

/// An open list.
#[derive(Debug)]
pub(super) struct Book {
    dir: PathBuf,
    lab: OrgId,
    line: ModelLine,
    segment_bytes: u64,
    segment: u64,
    file: File,
    /// Bytes of the segment that hold whole frames.
    end: u64,
    /// Something may stand behind `end` that a failed write left.
    torn: bool,
    next: u64,
    previous: Digest,
    /// Number of the newest line about a call.
    called: Option<u64>,
    /// Number of the newest line that a seal covers.
    sealed: Option<u64>,
}

impl Book {
    /// Opens the newest segment and goes on behind its last line, or begins a list.
    pub(super) fn open(
        dir: &Path,
        lab: &OrgId,
        line: &ModelLine,
        segment_bytes: u64,
        now: At,
    ) -> Result<Self, ListError> {
        fs::create_dir_all(dir).map_err(|why| failed(dir, why))?;
        let last = segments(dir)?.pop();
        let path = path(dir, last.unwrap_or(1));
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(|why| failed(&path, why))?;
        let mut book = Self {
            dir: dir.to_owned(),
            lab: lab.clone(),
            line: line.clone(),
            segment_bytes,
            segment: last.unwrap_or(1),
            file,
            end: 0,
            torn: false,
            next: 0,
            previous: Digest::from_bytes([0; 32]),
            called: None,
            sealed: None,
        };
        book.go_on(&path)?;
        if book.end == 0 {
            // A new list, or a segment of which a crash left nothing.
            if book.segment > 1 {
                book.before()?;
            }
            book.write(vec![book.head(now)])?;
        }
        book.file.sync_all().and_then(|()| durable::sync_dir(dir)).map_err(|why| failed(dir, why))?;
        Ok(book)
    }

    /// Where the list stands.
    pub(super) fn point(&self) -> Point {
        Point { number: self.next.saturating_sub(1), head: self.previous, unsealed: self.called > self.sealed }
    }

    /// The segment written to.
    pub(super) fn path(&self) -> PathBuf {
        path(&self.dir, self.segment)
    }

    /// Writes lines; all of them, or none.
    pub(super) fn append(&mut self, lines: Vec<What>, now: At) -> Result<(), ListError> {
        if self.end >= self.segment_bytes {
            self.next_segment(now)?;
        }
        self.write(lines)
    }

    /// Waits for the disk. What cannot be synced is written all the same, and the next write will say what is wrong.
    pub(super) fn sync(&self) {
        if let Err(error) = self.file.sync_data() {
            tracing::error!(%error, "the list of calls may not be on disk");
        }
    }

    fn head(&self, now: At) -> What {
        What::Head(ListHead { lab: self.lab.to_string(), line: self.line.to_string(), at_ms: now.ms() })
    }

    fn write(&mut self, lines: Vec<What>) -> Result<(), ListError> {
        let path = self.path();
        if self.torn {
            self.file.set_len(self.end).map_err(|why| failed(&path, why))?;
            self.torn = false;
        }
        let (mut next, mut previous, mut bytes) = (self.next, self.previous, Vec::new());
        let (called, sealed) = (self.called, self.sealed);
        for what in lines {
            self.note(next, &what);
            let line = Line { number: next, previous: previous.as_bytes().to_vec(), what: Some(what) }.encode_to_vec();
            previous = Digest::of(&line);
            next += 1;
            frame(&line, &mut bytes);
        }
        if let Err(why) = self.file.write_all(&bytes) {
            self.torn = true;
            (self.called, self.sealed) = (called, sealed);
            return Err(failed(&path, why));
        }
        (self.next, self.previous) = (next, previous);
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn next_segment(&mut self, now: At) -> Result<(), ListError> {
        self.sync();
        let fresh = path(&self.dir, self.segment + 1);
        let mut options = OpenOptions::new();
        // What a failed attempt left there is none of the list's.
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&fresh).map_err(|why| failed(&fresh, why))?;
        let file = OpenOptions::new().append(true).open(&fresh).map_err(|why| failed(&fresh, why))?;
        let (old, end, torn) = (std::mem::replace(&mut self.file, file), self.end, self.torn);
        (self.segment, self.end, self.torn) = (self.segment + 1, 0, false);
        if let Err(error) = self.write(vec![self.head(now)]) {
            self.segment -= 1;
            (self.file, self.end, self.torn) = (old, end, torn);
            fs::remove_file(&fresh).ok();
            return Err(error);
        }
        self.forget().and_then(|()| durable::sync_dir(&self.dir)).map_err(|why| failed(&self.dir, why))
    }

    /// Removes the oldest segments beyond the bound.
    fn forget(&self) -> io::Result<()> {
        let held = segments(&self.dir).map_err(io::Error::other)?;
        for number in held.iter().take(held.len().saturating_sub(SEGMENTS_MAX)) {
            fs::remove_file(path(&self.dir, *number))?;
            tracing::warn!(number, "the oldest segment of the list of calls was removed, as its bound asks");
        }
        Ok(())
    }

    /// Reads the newest segment to find its end; a frame that a crash cut off is dropped.
    fn go_on(&mut self, path: &Path) -> Result<(), ListError> {
        let bytes = fs::read(path).map_err(|why| failed(path, why))?;
        let mut walk = Walk::default();
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(payload) = payload_of(rest) else {
                if is_cut(rest) {
                    self.file.set_len(at as u64).map_err(|why| failed(path, why))?;
                    break;
                }
                return Err(ListError::Damaged { path: path.to_owned(), at: at as u64 });
            };
            let line = walk.take(payload)?;
            if let Some(What::Head(head)) = &line.what {
                self.own(head)?;
            }
            if let Some(what) = &line.what {
                self.note(line.number, what);
            }
            at += FRAME_HEAD_BYTES + payload.len();
        }
        self.end = at as u64;
        (self.next, self.previous) = walk.stand().unwrap_or((self.next, self.previous));
        Ok(())
    }

    /// Where the segment before the newest one stopped, when the newest holds no line.
    fn before(&mut self) -> Result<(), ListError> {
        let path = path(&self.dir, self.segment - 1);
        let bytes = fs::read(&path).map_err(|why| failed(&path, why))?;
        let (mut walk, mut at) = (Walk::default(), 0);
        while let Some(payload) = bytes.get(at..).and_then(payload_of) {
            drop(walk.take(payload)?);
            at += FRAME_HEAD_BYTES + payload.len();
        }
        if at != bytes.len() {
            return Err(ListError::Damaged { path, at: at as u64 });
        }
        (self.next, self.previous) = walk.stand().unwrap_or((self.next, self.previous));
        self.called = self.next.checked_sub(1);
        Ok(())
    }

    /// What a line says about how far seals reach.
    fn note(&mut self, number: u64, what: &What) {
        match what {
            What::Begun(_) | What::Ended(_) => self.called = Some(number),
            // Lines may have come between the one that was signed and the seal.
            What::Seal(seal) => {
                let claim = envelope::read_claim::<ListSeal>(seal);
                self.sealed = claim.map(|claim| claim.number).ok().max(self.sealed);
            }
            What::Head(_) => {}
        }
    }

    fn own(&self, head: &ListHead) -> Result<(), ListError> {
        if head.lab == self.lab.as_str() && head.line == self.line.as_str() {
            Ok(())
        } else {
            Err(ListError::Other(format!("{} by {}", head.line, head.lab)))
        }
    }
}

/// A segment's file.
pub(super) fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("calls-{segment:06}.seg"))
}

/// The numbers of the segments that are there, ascending.
pub(super) fn segments(dir: &Path) -> Result<Vec<u64>, ListError> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(why) => return Err(failed(dir, why)),
    };
    for entry in entries {
        let name = entry.map_err(|why| failed(dir, why))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("calls-")?.strip_suffix(".seg"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// A file that cannot be used.
pub(super) fn failed(path: &Path, why: io::Error) -> ListError {
    ListError::Io { path: path.to_owned(), why }
}
