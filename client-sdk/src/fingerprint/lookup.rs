//! From a text to the calls whose answers share runs with it.
//!
//! **Invariant:** a call is named only if its sealed entry holds at least [`MATCHES_MIN`] of the text's fingerprints, each of 48 bits; what
//! an index says is held against the entry.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use anteroom_proto::{
    names::{CallId, Digest, GrantId},
    time::At,
};

use super::{
    GRAM_CHARS, MATCHES_MIN, WINDOW,
    key::{FingerprintKey, Print},
    normal::{Unescape, normal_form},
    store::{
        StoreError,
        file::{self, Placed},
        index,
    },
    text::{Channel, texts},
    winnow::Winnower,
};

/// Most entries of a segment that are opened, those with most matches first.
const OPENED_MAX: usize = 4_096;

const _: () = assert!(
    WINDOW <= GRAM_CHARS,
    "neighbouring selected runs touch, so that matches of neighbours cover what is between"
);

/// A store, for who looks something up. It can be written at the same time.
#[derive(Debug)]
pub struct Library {
    dir: PathBuf,
    key: FingerprintKey,
}

/// A call whose answer shares runs with a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The call.
    pub call: CallId,
    /// The grant.
    pub grant: GrantId,
    /// When the answer ended, by the connector's clock.
    pub at: At,
    /// Fingerprints of the text that the entry has.
    pub matched: usize,
    /// Fingerprints of the text.
    pub of: usize,
    /// Characters of the longest part of the text in which every selected run matched.
    pub run: usize,
    /// Digest of the sealed entry.
    pub digest: Digest,
    /// The answer's end left no fingerprints.
    pub cut: bool,
}

/// The texts that a file may be meant as: as it is, and if it is an answer's events or body, the texts in those.
#[derive(Clone, Debug)]
pub struct Question {
    readings: Vec<Vec<String>>,
}

impl Question {
    /// Of a file's bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let plain = String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<&[u8]> = plain
            .lines()
            .map(|line| line.strip_prefix("data:").unwrap_or(line).trim().as_bytes())
            .filter(|line| !line.is_empty())
            .collect();
        let is_json = |bytes: &&[u8]| {
            bytes.first().is_some_and(|first| b"{[".contains(first))
                && (**bytes == *b"[DONE]" || serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok())
        };
        let mut readings = vec![vec![plain.clone()]];
        if is_json(&plain.trim().as_bytes()) {
            readings.push(pieces(&[plain.trim().as_bytes()]));
        } else if !lines.is_empty() && lines.iter().all(is_json) {
            readings.push(pieces(&lines));
        }
        Self { readings }
    }
}

/// The texts of events, put together.
fn pieces(payloads: &[&[u8]]) -> Vec<String> {
    let mut joined: BTreeMap<Channel, (String, Unescape)> = BTreeMap::new();
    for payload in payloads {
        texts(payload, &mut |channel, piece| {
            let (text, unescape) = joined.entry(channel).or_default();
            if channel.escaped {
                text.extend(piece.chars().filter_map(|c| unescape.take(c)));
            } else {
                text.push_str(piece);
            }
        });
    }
    joined.into_values().map(|(text, _)| text).collect()
}

/// One reading's selected runs.
struct Asked {
    /// In the order of the text: which text, first and last character there, and fingerprint.
    runs: Vec<(usize, usize, usize, Print)>,
    prints: HashSet<Print>,
    prefixes: Vec<u32>,
}

impl Library {
    /// Opens the store in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or its key is missing.
    pub fn open(dir: &Path) -> Result<Option<Self>, StoreError> {
        if !dir.is_dir() || file::list(dir)?.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { dir: dir.to_owned(), key: FingerprintKey::open(dir, false)? }))
    }

    /// How many fingerprints the longest reading of a text has.
    #[must_use]
    pub fn prints(&self, question: &Question) -> usize {
        question.readings.iter().map(|texts| self.ask(texts).prints.len()).max().unwrap_or_default()
    }

    /// The calls whose answers share runs with a text, of one grant if it is named, the likeliest first.
    ///
    /// # Errors
    /// A segment cannot be read, is damaged or under another key.
    pub fn find(&self, question: &Question, grant: Option<GrantId>) -> Result<Vec<Found>, StoreError> {
        let mut best: HashMap<CallId, Found> = HashMap::new();
        for texts in &question.readings {
            let asked = self.ask(texts);
            for (number, _) in file::list(&self.dir)? {
                self.search(number, &asked, &mut |found| {
                    if grant.is_some_and(|grant| grant != found.grant) {
                        return;
                    }
                    // Of two readings that share as much, the one that has less else is what the text is.
                    let fit = |found: &Found| (found.matched, std::cmp::Reverse(found.of));
                    let better = |other: &Found| fit(&found) > fit(other);
                    if best.get(&found.call).is_none_or(better) {
                        best.insert(found.call, found);
                    }
                })?;
            }
        }
        let mut found: Vec<Found> = best.into_values().collect();
        found.sort_by_key(|found| (std::cmp::Reverse(rank(found)), found.call));
        Ok(found)
    }

    fn ask(&self, texts: &[String]) -> Asked {
        let mut runs = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            let mut winnower = Winnower::new(self.key.point());
            // Which character of the text each character of its normal form comes from.
            let mut from: Vec<usize> = Vec::new();
            let mut buffer = [0; 4];
            let mut chosen = Vec::new();
            for (at, c) in text.chars().enumerate() {
                normal_form(c.encode_utf8(&mut buffer), |c| {
                    from.push(at);
                    chosen.extend(winnower.push(c));
                });
            }
            chosen.extend(winnower.finish());
            runs.extend(chosen.into_iter().map(|run| {
                let start = usize::try_from(run.start).unwrap_or(usize::MAX);
                let place_of = |index: usize| from.get(index).copied().unwrap_or_default();
                (place, place_of(start), place_of(start + GRAM_CHARS - 1), self.key.print(run.value))
            }));
        }
        let prints: HashSet<Print> = runs.iter().map(|(_, _, _, print)| *print).collect();
        let mut prefixes: Vec<u32> = prints.iter().map(Print::prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        Asked { runs, prints, prefixes }
    }

    fn search(&self, number: u64, asked: &Asked, each: &mut impl FnMut(Found)) -> Result<(), StoreError> {
        let mut take = |placed: Placed| {
            if let Some(found) = compare(&placed, asked) {
                each(found);
            }
        };
        let Some(places) = index::search(&self.dir, number, &self.key, &asked.prefixes) else {
            return file::read_file(&self.dir, number, &self.key, take);
        };
        let mut places: Vec<(u32, usize)> = places.into_iter().filter(|(_, count)| *count >= MATCHES_MIN).collect();
        places.sort_by_key(|(at, count)| (std::cmp::Reverse(*count), *at));
        places.truncate(OPENED_MAX);
        for (at, _) in places {
            take(file::read_one(&self.dir, number, u64::from(at), &self.key)?);
        }
        Ok(())
    }
}

/// What an entry shares with a text, if it is enough to name the call.
fn compare(placed: &Placed, asked: &Asked) -> Option<Found> {
    let shared: HashSet<Print> = placed.entry.prints().filter(|print| asked.prints.contains(print)).collect();
    if shared.len() < MATCHES_MIN {
        return None;
    }
    let (mut run, mut begun): (usize, Option<(usize, usize)>) = (0, None);
    for (text, first, last, print) in &asked.runs {
        if !shared.contains(print) {
            begun = None;
            continue;
        }
        let start = match begun {
            Some((of, start)) if of == *text => start,
            Some(_) | None => *first,
        };
        begun = Some((*text, start));
        run = run.max(last + 1 - start);
    }
    Some(Found {
        call: CallId::from_slice(&placed.entry.call).ok()?,
        grant: GrantId::from_slice(&placed.entry.grant).ok()?,
        at: At::clamped(placed.entry.at_ms),
        matched: shared.len(),
        of: asked.prints.len(),
        run,
        digest: placed.digest,
        cut: placed.entry.cut,
    })
}

/// By how much of the text, then by the longest run.
const fn rank(found: &Found) -> (usize, usize) {
    (found.matched, found.run)
}
