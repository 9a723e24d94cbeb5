//! Answers, event by event: what may leave now, what has to wait, and when to cut.
//!
//! **Invariant:** events leave in order, each at most once, and none after a stop. An event that completes a match of what stops
//! is never let go; nor is one that holds six bytes of it or more, for as long as it is held back. A fault of the scanner is a
//! stop that lets nothing go.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    sync::Arc,
};

use bytes::Bytes;

use super::{Findings, SCANNER_FAILED, ScanSummary, ScanVerdict, Scanner, channel::Flow, guarded, skeleton::Skeleton};
use crate::content::strict_json::{self, Json};

/// Most channels in one answer.
pub const CHANNELS_MAX: usize = 512;
/// Most events held back at once; more are let go, oldest first.
pub const HELD_EVENTS_MAX: usize = 128;
/// Most bytes held back at once; more are let go, oldest first.
pub const HELD_EVENT_BYTES_MAX: usize = 64 * 1024;
/// Hit of an event that is not what the routes stream.
pub const UNKNOWN_EVENT: &str = "unknown_event";
/// Hit of an answer with more channels than [`CHANNELS_MAX`].
pub const TOO_MANY_CHANNELS: &str = "too_many_channels";
/// The event that says a stream is over.
const DONE: &[u8] = b"[DONE]";
/// Events of the messages route that are about one block, told apart by its number.
const BLOCK_EVENTS: [&str; 3] = ["content_block_start", "content_block_delta", "content_block_stop"];
/// What the path of such an event begins with: what a block starts with and what is added to it are one text.
const BLOCK: &str = "block/";
/// The messages route's other events, and its whole answer.
const MESSAGE_EVENTS: [&str; 5] = ["message", "message_start", "message_delta", "message_stop", "ping"];
/// Positions in a list beyond this share a channel.
const POSITIONS_MAX: usize = 32;
/// Names up to this many bytes are texts that stop nothing by themselves.
const NAME_BYTES: usize = 6;
/// Most characters of a name that tell its channel from others.
const NAME_CHARS_MAX: usize = 64;
/// Members that say in every event of an answer what it is and not what it adds.
const REPEATED: [&str; 8] =
    ["id", "item_id", "model", "object", "response_id", "service_tier", "system_fingerprint", "type"];
/// Longest of their values that is not read as often as it is said.
const REPEATED_BYTES_MAX: usize = 128;
/// Most names of members that are remembered as read.
const NAMES_READ_MAX: usize = 64;

/// What may leave.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Release {
    /// These events, in order; others may be held back.
    Now(Vec<Bytes>),
    /// Nothing more after `released`: a pattern that stops is complete, or an event is none.
    Stop {
        /// The detector.
        hit: &'static str,
        /// Whether the run, the person or the grant is locked too.
        lock: bool,
        /// Events held back that come before the match.
        released: Vec<Bytes>,
    },
}

/// Scans one answer. Each choice, tool call and kind of text is a channel of its own.
#[derive(Debug)]
pub struct StreamScanner {
    scanner: Arc<Scanner>,
    findings: Findings,
    names: BTreeMap<String, usize>,
    channels: Vec<Flow>,
    /// What stood last in the channels of [`REPEATED`] members.
    last: BTreeMap<usize, String>,
    /// What the event before said beside the text that it added.
    skeleton: Skeleton,
    /// Names of members that were read. Each is read for itself, so reading it again would find the same.
    read: BTreeSet<Box<str>>,
    /// Where the walk stands; kept so that its memory is used again.
    path: String,
    /// Channels with an open match, and the event in which it began.
    holding: BTreeMap<usize, u64>,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    /// Number of the event that comes next; the oldest held one is `next - held.len()`.
    next: u64,
    stopped: Option<&'static str>,
}

impl StreamScanner {
    /// A scanner at the beginning of an answer.
    #[must_use]
    pub fn new(scanner: Arc<Scanner>) -> Self {
        Self {
            scanner,
            findings: Findings {
                verdict: ScanVerdict::Clean,
                hits: BTreeSet::new(),
                level: 0,
                caveats: BTreeSet::new(),
            },
            names: BTreeMap::new(),
            channels: Vec::new(),
            last: BTreeMap::new(),
            skeleton: Skeleton::default(),
            read: BTreeSet::new(),
            path: String::new(),
            holding: BTreeMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            next: 0,
            stopped: None,
        }
    }

    /// Takes in one event's data, or the whole body of an answer that is not streamed, and says what may leave.
    pub fn push(&mut self, event: Bytes) -> Release {
        if let Some(hit) = self.stopped {
            return Release::Stop { hit, lock: self.locks(), released: Vec::new() };
        }
        let number = self.next;
        let Ok(outcome) = guarded(|| self.read(number, &event)) else {
            self.fail();
            return Release::Stop { hit: SCANNER_FAILED, lock: false, released: Vec::new() };
        };
        self.next = self.next.saturating_add(1);
        self.held_bytes = self.held_bytes.saturating_add(event.len());
        self.held.push_back(event);
        match outcome {
            Ok(()) => Release::Now(self.release()),
            Err(Stop { hit, begin }) => {
                self.stopped = Some(hit);
                let limit = self.holding.values().copied().fold(begin, u64::min);
                let released = self.release_before(limit);
                self.held.clear();
                Release::Stop { hit, lock: self.locks(), released }
            }
        }
    }

    /// The answer is over: what was held back may leave, as nothing can complete it any more. Nothing after a stop. The end
    /// itself completes nothing that stops; should the scanner fail over it, nothing is let go and [`Self::stopped`] says so.
    pub fn finish(&mut self) -> Vec<Bytes> {
        let Self { scanner, findings, channels, .. } = self;
        let ended = guarded(|| {
            for flow in channels {
                flow.end(scanner, findings);
            }
        });
        if ended.is_err() {
            self.fail();
        }
        self.holding.clear();
        self.held_bytes = 0;
        self.held.drain(..).collect()
    }

    /// What stopped the answer, if something did.
    #[must_use]
    pub const fn stopped(&self) -> Option<&'static str> {
        self.stopped
    }

    /// What was found so far.
    #[must_use]
    pub fn summary(&self) -> ScanSummary {
        let mut summary = self.findings.summary();
        if let Some(hit) = self.stopped.filter(|hit| !summary.hits.iter().any(|known| known == hit)) {
            summary.verdict = summary.verdict.max(ScanVerdict::Stop);
            summary.hits.push(hit.to_owned());
            summary.hits.sort();
        }
        summary
    }

    /// The scanner failed: nothing more leaves.
    fn fail(&mut self) {
        self.stopped = Some(SCANNER_FAILED);
        self.held.clear();
        self.held_bytes = 0;
    }

    fn locks(&self) -> bool {
        self.findings.verdict == ScanVerdict::StopAndLock
    }

    fn read(&mut self, number: u64, event: &[u8]) -> Result<(), Stop> {
        // What repeats need not be read again, unless it may end what it holds open.
        if let Some((place, text)) = self.skeleton.text(event)
            && self.holding.keys().all(|holding| *holding == place)
        {
            return self.add(number, place, text, Kind::Added);
        }
        self.skeleton.forget();
        if event.trim_ascii() == DONE {
            return Ok(());
        }
        let unknown = Stop { hit: UNKNOWN_EVENT, begin: number };
        let json = strict_json::parse(event).map_err(|_| unknown)?;
        let Json::Object(_) = json else { return Err(unknown) };
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        prefix(&json, &mut path).ok_or(unknown)?;
        let mut added = Added::None;
        let walked = self.walk(number, &mut path, None, &json, &mut added);
        self.path = path;
        if let (Ok(()), Added::One(place, text)) = (&walked, added) {
            self.skeleton.learn(event, text, place);
        }
        walked
    }

    /// Feeds every string to the channel of its place.
    fn walk<'j>(
        &mut self,
        number: u64,
        path: &mut String,
        key: Option<&str>,
        value: &'j Json<'_>,
        added: &mut Added<'j>,
    ) -> Result<(), Stop> {
        let length = path.len();
        match value {
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
            Json::Text(text) => {
                let kind = Kind::of(key, text);
                let place = self.feed(number, path, text, kind)?;
                if kind == Kind::Added {
                    added.note(place, text);
                }
            }
            Json::List(list) => {
                for (position, entry) in list.iter().enumerate() {
                    match place(key, position, entry) {
                        Some(place) => {
                            let _ = write!(path, "[{place}]");
                        }
                        None => path.push_str("[]"),
                    }
                    self.walk(number, path, None, entry, added)?;
                    path.truncate(length);
                }
            }
            Json::Object(members) => {
                for (key, member) in members {
                    let name = key.as_ref();
                    // Names are text too, each for itself; the schema's own are shorter than what stops.
                    if name.len() > NAME_BYTES && !self.read.contains(name) {
                        self.feed(number, "#", name, Kind::Alone)?;
                        if name.len() <= NAME_CHARS_MAX && self.read.len() < NAMES_READ_MAX {
                            self.read.insert(name.into());
                        }
                    }
                    if !matches!(member, Json::Null | Json::Bool(_) | Json::Number(_)) {
                        // A block is called otherwise in the event that it starts with than in those that add to it.
                        let starts = name == "content_block" && path.starts_with(BLOCK) && !path.contains('.');
                        path.push('.');
                        let name = if starts { "delta" } else { name };
                        if name.len() <= NAME_CHARS_MAX {
                            path.push_str(name);
                        } else {
                            path.extend(name.chars().take(NAME_CHARS_MAX));
                        }
                        self.walk(number, path, Some(key), member, added)?;
                        path.truncate(length);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes in a text; its channel.
    fn feed(&mut self, number: u64, path: &str, text: &str, kind: Kind) -> Result<usize, Stop> {
        let place = match self.names.get(path) {
            Some(place) => *place,
            None if self.channels.len() >= CHANNELS_MAX => return Err(Stop { hit: TOO_MANY_CHANNELS, begin: number }),
            None => {
                self.channels.push(Flow::default());
                let place = self.channels.len().saturating_sub(1);
                self.names.insert(path.to_owned(), place);
                place
            }
        };
        if kind == Kind::Repeated {
            let last = self.last.entry(place).or_default();
            // It says again what it said in the event before. While something is held, it is read: it may end what is open.
            if *last == text && !self.holding.contains_key(&place) {
                return Ok(place);
            }
            last.clear();
            last.push_str(text);
        }
        self.add(number, place, text, kind)?;
        Ok(place)
    }

    /// Takes in a text in a channel.
    fn add(&mut self, number: u64, place: usize, text: &str, kind: Kind) -> Result<(), Stop> {
        let Some(flow) = self.channels.get_mut(place) else {
            return Err(Stop { hit: TOO_MANY_CHANNELS, begin: number });
        };
        flow.event(number);
        let fed = flow.feed(&self.scanner, text, &mut self.findings);
        if kind == Kind::Alone {
            flow.end(&self.scanner, &mut self.findings);
        }
        match fed {
            Ok(()) => {
                match flow.hold(&self.scanner) {
                    Some(event) => self.holding.insert(place, event),
                    None => self.holding.remove(&place),
                };
                Ok(())
            }
            Err(stopped) => {
                let event = stopped.event.or_else(|| flow.event_at(stopped.begin));
                Err(Stop { hit: stopped.detector, begin: event.unwrap_or(0).min(number) })
            }
        }
    }

    /// Lets go what no open match reaches, and the oldest of what is too much to hold.
    fn release(&mut self) -> Vec<Bytes> {
        let limit = self.holding.values().copied().min().unwrap_or(self.next);
        let mut released = self.release_before(limit);
        while self.held.len() > HELD_EVENTS_MAX || self.held_bytes > HELD_EVENT_BYTES_MAX {
            let Some(event) = self.held.pop_front() else { break };
            self.held_bytes = self.held_bytes.saturating_sub(event.len());
            released.push(event);
        }
        released
    }

    fn release_before(&mut self, limit: u64) -> Vec<Bytes> {
        let mut released = Vec::new();
        while self.oldest() < limit {
            let Some(event) = self.held.pop_front() else { break };
            self.held_bytes = self.held_bytes.saturating_sub(event.len());
            released.push(event);
        }
        released
    }

    fn oldest(&self) -> u64 {
        self.next.saturating_sub(u64::try_from(self.held.len()).unwrap_or(u64::MAX))
    }
}

/// How a text goes on from the one before it in its channel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Part of one text with it.
    Added,
    /// The same, unless it says the same again.
    Repeated,
    /// For itself.
    Alone,
}

impl Kind {
    /// Of a member of that name with that text.
    fn of(key: Option<&str>, text: &str) -> Self {
        let repeated = key.is_some_and(|key| REPEATED.contains(&key)) && text.len() <= REPEATED_BYTES_MAX;
        if repeated { Self::Repeated } else { Self::Added }
    }
}

/// The texts that one event adds.
enum Added<'j> {
    None,
    /// One, with its channel.
    One(usize, &'j str),
    More,
}

impl<'j> Added<'j> {
    fn note(&mut self, place: usize, text: &'j str) {
        *self = if matches!(self, Self::None) { Self::One(place, text) } else { Self::More };
    }
}

/// Why to cut, and the first event that must not leave.
#[derive(Clone, Copy)]
struct Stop {
    hit: &'static str,
    begin: u64,
}

/// Writes what sets the channels of one event apart from those of others; `None` if its type is unknown.
fn prefix(event: &Json<'_>, path: &mut String) -> Option<()> {
    match event.member("type") {
        None | Some(Json::Null) => {}
        Some(Json::Text(kind)) if (kind.starts_with("response.") || kind == "error") && kind.len() <= 64 => {
            path.push_str(kind);
        }
        Some(Json::Text(kind)) if MESSAGE_EVENTS.contains(&kind.as_ref()) => path.push_str(kind),
        Some(Json::Text(kind)) if BLOCK_EVENTS.contains(&kind.as_ref()) => {
            path.push_str(BLOCK);
            if let Some(index) = event.member("index").and_then(Json::as_unsigned) {
                let _ = write!(path, "{index}");
            }
        }
        Some(Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::List(_) | Json::Object(_)) => return None,
    }
    for name in ["output_index", "content_index", "summary_index"] {
        if let Some(index) = event.member(name).and_then(Json::as_unsigned) {
            let _ = write!(path, "/{index}");
        }
    }
    Some(())
}

/// What tells an entry of a list from its neighbours. Texts, and the tokens and parts that make up one text, share a channel.
fn place(key: Option<&str>, position: usize, entry: &Json<'_>) -> Option<u64> {
    if let Some(index) = entry.member("index").and_then(Json::as_unsigned) {
        return Some(index);
    }
    let pieces = matches!(key, Some("content" | "tokens" | "refusal" | "summary"));
    let text = matches!(entry, Json::Text(_));
    if pieces || text { None } else { u64::try_from(position.min(POSITIONS_MAX)).ok() }
}
