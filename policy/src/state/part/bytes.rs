//! Numbers and texts in a row.

use anteroom_proto::names::{CallId, RunId};

#[derive(Default)]
pub(super) struct Writing(pub(super) Vec<u8>);

impl Writing {
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.raw(&number.to_be_bytes());
    }

    pub(super) fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(super) fn text(&mut self, bytes: &[u8]) {
        self.raw(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.raw(bytes);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Reading<'a>(pub(super) &'a [u8]);

impl<'a> Reading<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*taken))
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        self.take(usize::try_from(u32::from_be_bytes(*taken)).ok()?)
    }

    pub(super) fn run(&mut self) -> Option<RunId> {
        RunId::parse(std::str::from_utf8(self.text()?).ok()?).ok()
    }

    pub(super) fn call(&mut self) -> Option<CallId> {
        CallId::from_slice(self.take(16)?).ok()
    }

    /// So many of one thing. Memory grows with what is there, never with what is claimed to be.
    pub(super) fn many<T>(&mut self, each: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(each(self)?);
        }
        Some(out)
    }
}
