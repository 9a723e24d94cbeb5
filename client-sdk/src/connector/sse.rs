//! What a model server's event stream is made of: bytes in, whole events out.
//!
//! The splitter follows the WHATWG rules for `text/event-stream` (three line endings, comments, a
//! byte order mark, several `data` lines to an event) and keeps the payload as it was sent: it is
//! committed to and signed further on, so not even a doubtful byte is repaired here.
//!
//! **Invariant:** how the stream was cut into chunks never changes the events, an event longer than
//! the bound is never returned, and an event the server did not finish never passes for one.

use bytes::{Buf, Bytes};

/// The bound on one event unless the caller sets another: 1 MiB.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// The payload that ends an OpenAI-style stream.
const DONE: &[u8] = b"[DONE]";

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event` field, if the server named the event. Bytes that are not UTF-8 were replaced.
    pub name: Option<String>,
    /// The payload byte for byte: the `data` lines joined with a line feed, each without its field
    /// name and without the one space that may follow the colon.
    pub data: Bytes,
}

impl SseEvent {
    /// Whether this is the `[DONE]` that ends a stream instead of a piece of the answer.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.data == DONE
    }
}

/// Why a stream could not be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event, or one line of it, outgrew the bound.
    #[error("an event of the stream is longer than {limit} bytes")]
    TooLong {
        /// The bound in bytes.
        limit: usize,
    },
    /// The stream ended inside an event.
    #[error("the stream ended inside an event, {held} bytes into it")]
    Unfinished {
        /// How many bytes of the event had come.
        held: usize,
    },
}

/// Splits a stream of bytes into events.
///
/// It holds one unfinished event at most: name, payload and current line together are held to the
/// bound before a byte is added. The caller keeps the chunk, so that a chunk with many small events costs no queue.
#[derive(Debug)]
pub struct SseSplitter {
    limit: usize,
    line: Vec<u8>,
    name: Option<String>,
    data: Option<Vec<u8>>,
    /// The last byte was a CR: an LF that follows belongs to the same line ending.
    after_cr: bool,
    first_line: bool,
    overrun: bool,
}

impl Default for SseSplitter {
    fn default() -> Self {
        Self::new(EVENT_BYTES_MAX)
    }
}

impl SseSplitter {
    /// A splitter at the start of a stream, with a bound of `event_bytes_max` bytes on each event.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            limit: event_bytes_max,
            line: Vec::new(),
            name: None,
            data: None,
            after_cr: false,
            first_line: true,
            overrun: false,
        }
    }

    /// Takes bytes off the front of `chunk` until an event is whole.
    ///
    /// `None` means that the chunk is used up; call again with the next one. Call again with the same
    /// chunk after an event.
    ///
    /// # Errors
    /// [`SseError::TooLong`] when an event outgrows the bound; every later call gives the same error.
    pub fn next_event(&mut self, chunk: &mut Bytes) -> Result<Option<SseEvent>, SseError> {
        if self.overrun {
            return Err(SseError::TooLong { limit: self.limit });
        }
        while let Some(&first) = chunk.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                chunk.advance(1);
                continue;
            }
            let end = chunk.iter().position(|&byte| byte == b'\n' || byte == b'\r');
            let text = chunk.split_to(end.unwrap_or(chunk.len()));
            if self.held().saturating_add(text.len()) > self.limit {
                self.overrun = true;
                return Err(SseError::TooLong { limit: self.limit });
            }
            self.line.extend_from_slice(&text);
            if end.is_none() {
                return Ok(None);
            }
            self.after_cr = chunk.first() == Some(&b'\r');
            chunk.advance(1);
            if let Some(event) = self.end_of_line() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Closes the stream. A last `[DONE]` that lacks its blank line is returned, because some servers
    /// hang up right behind it.
    ///
    /// # Errors
    /// [`SseError::Unfinished`] when the stream ended inside any other event: the rest of an answer is
    /// missing, and a reader must not take the part for the whole.
    pub fn finish(mut self) -> Result<Option<SseEvent>, SseError> {
        let held = self.held();
        let half_a_line = self.line.first().is_some_and(|&byte| byte != b':');
        if half_a_line {
            // Only a blank line ends an event, and this line is not blank, so nothing is returned here.
            self.end_of_line();
        }
        let begun = half_a_line || self.name.is_some();
        match self.take_event() {
            Some(event) if event.is_done() => Ok(Some(event)),
            None if !begun => Ok(None),
            Some(_) | None => Err(SseError::Unfinished { held }),
        }
    }

    /// Bytes held for the event under way.
    fn held(&self) -> usize {
        let name = self.name.as_ref().map_or(0, String::len);
        let data = self.data.as_ref().map_or(0, Vec::len);
        name.saturating_add(data).saturating_add(self.line.len())
    }

    fn end_of_line(&mut self) -> Option<SseEvent> {
        let held = std::mem::take(&mut self.line);
        let mut line = held.as_slice();
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return self.take_event();
        }
        let mut halves = line.splitn(2, |&byte| byte == b':');
        let field = halves.next().unwrap_or_default();
        let value = halves.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            b"event" => self.name = Some(String::from_utf8_lossy(value).into_owned()),
            // A comment has an empty field name. `id` and `retry` are for clients that reconnect,
            // which nothing here ever does.
            _ => {}
        }
        // The allocation is worth keeping: streams are thousands of lines of about one length.
        let mut line = held;
        line.clear();
        self.line = line;
        None
    }

    /// An event without a `data` line is no event, and its name does not carry over to the next.
    fn take_event(&mut self) -> Option<SseEvent> {
        let name = self.name.take().filter(|name| !name.is_empty());
        self.data.take().map(|data| SseEvent { name, data: data.into() })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    type Outcome = (Vec<SseEvent>, Result<(), SseError>);

    fn split(chunks: &[&[u8]], limit: usize) -> Outcome {
        let mut splitter = SseSplitter::new(limit);
        let mut events = Vec::new();
        for chunk in chunks {
            let mut chunk = Bytes::copy_from_slice(chunk);
            loop {
                match splitter.next_event(&mut chunk) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(error) => return (events, Err(error)),
                }
            }
        }
        match splitter.finish() {
            Ok(last) => {
                events.extend(last);
                (events, Ok(()))
            }
            Err(error) => (events, Err(error)),
        }
    }

    fn check(stream: &[u8], expected: &[(Option<&str>, &[u8])]) {
        let (events, end) = split(&[stream], EVENT_BYTES_MAX);
        let events: Vec<_> = events.iter().map(|event| (event.name.as_deref(), &event.data[..])).collect();
        assert_eq!(events, expected);
        assert_eq!(end, Ok(()));
    }

    #[test]
    fn all_three_line_endings_end_a_line() {
        check(
            b"data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\r\n\n",
            &[(None, b"a"), (None, b"b"), (None, b"c"), (None, b"d")],
        );
    }

    #[test]
    fn payload_is_kept_byte_for_byte() {
        check(
            b"data:  two spaces, \xff\xfe and a : colon \t\ndata\ndata:last\n\n",
            &[(None, b" two spaces, \xff\xfe and a : colon \t\n\nlast")],
        );
    }

    #[test]
    fn comments_names_marks_and_unknown_fields_are_told_apart() {
        check(
            b"\xEF\xBB\xBFevent: delta\n: ping\nid: 7\nretry: 9\ndata: a\n\nevent: alone\n\ndata: b\n\n: bye\n",
            &[(Some("delta"), b"a"), (None, b"b")],
        );
    }

    #[test]
    fn done_without_its_blank_line_still_counts() {
        check(b"data: a\n\ndata: [DONE]", &[(None, b"a"), (None, b"[DONE]")]);
        check(b"data: a\n\ndata: [DONE]\n", &[(None, b"a"), (None, b"[DONE]")]);
    }

    #[test]
    fn event_cut_by_the_end_of_the_stream_is_an_error() {
        for stream in [&b"data: {\"a\":"[..], b"data: {}\n", b"data: {}\r\ndata:", b"da", b"event: delta\n"] {
            let (events, end) = split(&[stream], EVENT_BYTES_MAX);
            assert!(events.is_empty());
            assert!(matches!(end, Err(SseError::Unfinished { .. })), "{end:?}");
        }
    }

    #[test]
    fn events_before_an_overlong_one_are_delivered_and_the_error_stays() {
        let mut splitter = SseSplitter::new(16);
        let mut chunk = Bytes::from_static(b"data: short\n\ndata: far too long for it\n\ndata: c\n\n");
        assert_eq!(splitter.next_event(&mut chunk).unwrap().unwrap().data, "short");
        let error = Err(SseError::TooLong { limit: 16 });
        assert_eq!(splitter.next_event(&mut chunk), error);
        assert_eq!(splitter.next_event(&mut Bytes::from_static(b"data: c\n\n")), error);
    }

    #[test]
    fn many_short_lines_cannot_outgrow_the_bound() {
        let stream = b"data: abc\n".repeat(10);
        assert_eq!(split(&[&stream], 24).1, Err(SseError::TooLong { limit: 24 }));
        // Comments are dropped line by line, so a server may send them for as long as it likes.
        let mut stream = b": ping\n".repeat(1000);
        stream.extend_from_slice(b"data: a\n\n");
        assert_eq!(split(&[&stream], 24).0.len(), 1);
    }

    /// A small generator of streams that prefers the bytes the rules turn on.
    fn arbitrary_stream(mut state: u64) -> Vec<u8> {
        const PIECES: [&[u8]; 14] = [
            b"data: ",
            b"data:",
            b"data",
            b"event: e",
            b": c",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"x",
            b"\xEF\xBB\xBF",
            b"[DONE]",
            b" ",
            b"\xff",
        ];
        let mut stream = Vec::new();
        for _ in 0..24 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(state >> 33).unwrap() % PIECES.len();
            stream.extend_from_slice(PIECES.get(at).unwrap());
        }
        stream
    }

    #[test]
    fn cuts_never_change_the_events() {
        for seed in 0..300 {
            let stream = arbitrary_stream(seed);
            for limit in [20, EVENT_BYTES_MAX] {
                let whole = split(&[&stream], limit);
                let bytes: Vec<_> = stream.chunks(1).collect();
                assert_eq!(split(&bytes, limit), whole, "seed {seed}, byte by byte");
                for cut in 0..=stream.len() {
                    let (left, right) = stream.split_at(cut);
                    assert_eq!(split(&[left, &[], right], limit), whole, "seed {seed}, cut at {cut}");
                }
            }
        }
    }
}
