//! Fingerprints of answers: what is found of a leaked text, what is named by mistake, what it costs.
//!
//! Answers are made by a chain over words of real texts on this machine (documentation and source), each followed by words that came
//! after it there; so they share phrases with each other as answers of one model do. One file in four is left out of the chain and gives
//! the texts that no call wrote.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anteroom_proto::{
    names::{CallId, GrantId},
    time::At,
};
use anteroom_sdk::fingerprint::{
    Collector, FingerprintKey, FingerprintStore, Keeper, Library, Limits, MATCHES_MIN, Question, store::Entry,
};
use serde_json::{Value, json};

use super::{
    Fallible, machine,
    report::{Table, round},
    stats::Latencies,
};

/// Bytes of text that the chain is made from, and of text that is held back.
const TEXT_BYTES_MAX: usize = 12 << 20;
const NOW: i64 = 1_795_000_000_000;
/// Lengths of excerpts, in characters.
const LENGTHS: [usize; 3] = [80, 160, 400];
/// Excerpts of each length and edit, and texts that no call wrote.
const TRIED: usize = 1_000;

/// Fingerprints that have to be shared.
const MINS: [usize; 4] = [MATCHES_MIN, 3, 4, 6];

/// What is done to an excerpt.
const EDITS: [&str; 4] = ["as it was", "upper case, new line breaks", "no punctuation", "one word in twenty changed"];

/// Measures with `calls` answers, in a folder; texts come from these folders.
pub fn run(folder: &Path, calls: usize, texts: &[PathBuf]) -> Fallible<(String, Value)> {
    let (chain, foreign) = Chain::read(texts)?;
    let mut dice = Dice(1);
    let mut text = format!(
        "{}\n\n{} words, {} of them different; a call is named from {MATCHES_MIN} shared fingerprints on\n",
        machine::describe(),
        chain.words.len(),
        chain.after.len()
    );
    let mut data = json!({"calls": calls, "words": chain.words.len()});
    let answers = Filled::make(&chain, folder, calls, &mut dice)?;
    text.push_str(&format!("\n{}", answers.table()));
    data["kept"] = answers.json();
    let library = Library::open(folder)?.ok_or("there is no store")?;
    let (table, found) = recall(&library, &answers, &mut dice)?;
    text.push_str(&format!("\n{table}"));
    data["recall"] = found;
    let (table, wrong) = mistakes(&library, &chain, &foreign, &mut dice)?;
    text.push_str(&format!("\n{table}"));
    data["mistakes"] = wrong;
    let (table, cost) = collecting(&chain, &mut dice)?;
    text.push_str(&format!("\n{table}"));
    data["collecting"] = cost;
    Ok((text, data))
}

/// A store with answers in it.
struct Filled {
    /// A few of the answers, by the number of their call.
    known: Vec<(u64, String)>,
    calls: usize,
    text_bytes: usize,
    segments: u64,
    indexes: u64,
    append_us: f64,
    index_s: f64,
}

impl Filled {
    fn make(chain: &Chain, folder: &Path, calls: usize, dice: &mut Dice) -> Fallible<Self> {
        let mut store = FingerprintStore::open(folder, Limits::default())?;
        let key = store.key();
        let (mut known, mut text_bytes, mut spent) = (Vec::new(), 0, 0.0);
        let every = (calls / TRIED).max(1);
        for number in 0..calls {
            let words = 60 + dice.below(400);
            let text = chain.write(dice, words);
            text_bytes += text.len();
            let entry = entry(&key, number as u64, &[event(&text).as_bytes()]);
            let begun = Instant::now();
            let _ = store.append(&entry, At::clamped(NOW))?;
            spent += begun.elapsed().as_secs_f64();
            if number % every == 0 && known.len() < TRIED {
                known.push((number as u64, text));
            }
        }
        let keeper = Keeper::new(store)?;
        let begun = Instant::now();
        keeper.tend(At::clamped(NOW));
        let index_s = begun.elapsed().as_secs_f64();
        let (mut segments, mut indexes) = (0, 0);
        for file in fs::read_dir(folder)? {
            let file = file?;
            match file.path().extension().and_then(|ext| ext.to_str()) {
                Some("seg") => segments += file.metadata()?.len(),
                Some("idx") => indexes += file.metadata()?.len(),
                _ => {}
            }
        }
        let append_us = spent * 1e6 / calls as f64;
        Ok(Self { known, calls, text_bytes, segments, indexes, append_us, index_s })
    }

    fn table(&self) -> String {
        let each = |bytes: u64| bytes as f64 / self.calls as f64;
        let mut table = Table::new(&[
            "calls",
            "text bytes a call",
            "entry bytes a call",
            "index bytes a call",
            "store ÷ text",
            "append µs",
            "sync, index s",
        ]);
        let share = (self.segments + self.indexes) as f64 / self.text_bytes as f64;
        table.row(vec![
            self.calls.to_string(),
            round(each(self.text_bytes as u64)),
            round(each(self.segments)),
            round(each(self.indexes)),
            round(share),
            round(self.append_us),
            round(self.index_s),
        ]);
        table.text().to_owned()
    }

    fn json(&self) -> Value {
        json!({"text_bytes": self.text_bytes, "segment_bytes": self.segments, "index_bytes": self.indexes,
            "append_us": self.append_us, "tend_s": self.index_s})
    }
}

fn entry(key: &FingerprintKey, number: u64, payloads: &[&[u8]]) -> Entry {
    let mut collector = Collector::new(key.point());
    payloads.iter().for_each(|payload| collector.event(payload));
    let selected = collector.finish();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&number.to_be_bytes());
    Entry {
        call: CallId::new(NOW, random).as_bytes().to_vec(),
        grant: GrantId::from_bytes([3; 16]).as_bytes().to_vec(),
        at_ms: NOW,
        cut: selected.cut,
        prints: selected.values.iter().flat_map(|value| *key.print(*value).as_bytes()).collect(),
    }
}

fn number_of(call: CallId) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&call.as_bytes()[6..14]);
    u64::from_be_bytes(number)
}

/// How many excerpts of known calls name their call, and how many name it first.
fn recall(library: &Library, answers: &Filled, dice: &mut Dice) -> Fallible<(String, Value)> {
    let mut table = Table::new(&[
        "excerpt",
        "characters",
        "named %",
        "first %",
        "with --min 3 %",
        "others named",
        "lookup p50 ms",
        "p99 ms",
    ]);
    let mut rows = Vec::new();
    for edit in EDITS {
        for length in LENGTHS {
            let (mut tried, mut named, mut first, mut named_by_3, mut others) = (0, 0, 0, 0, 0);
            let mut latencies = Latencies::default();
            for (number, text) in &answers.known {
                let chars: Vec<char> = text.chars().collect();
                let Some(room) = chars.len().checked_sub(length) else { continue };
                let start = dice.below(room + 1);
                let excerpt = edited(edit, &chars[start..start + length].iter().collect::<String>(), dice);
                let begun = Instant::now();
                let found = library.find(&Question::new(excerpt.as_bytes()), None)?;
                latencies.add(begun.elapsed());
                tried += 1;
                named += usize::from(found.iter().any(|found| number_of(found.call) == *number));
                first += usize::from(found.first().is_some_and(|found| number_of(found.call) == *number));
                let by_3 = found.iter().any(|found| number_of(found.call) == *number && found.matched >= 3);
                named_by_3 += usize::from(by_3);
                others += found.iter().filter(|found| number_of(found.call) != *number).count();
            }
            let share = |count: usize| count as f64 * 100.0 / f64::from(tried.max(1) as u32);
            let [p50, p99] = latencies.quantiles([0.5, 0.99]);
            table.row(vec![
                edit.to_owned(),
                length.to_string(),
                format!("{:.1}", share(named)),
                format!("{:.1}", share(first)),
                format!("{:.1}", share(named_by_3)),
                round(others as f64 / f64::from(tried.max(1) as u32)),
                round(p50 / 1e3),
                round(p99 / 1e3),
            ]);
            rows.push(json!({"edit": edit, "characters": length, "tried": tried, "named": named, "first": first, "named_by_3": named_by_3,
                "others": others, "lookup_p50_us": p50, "lookup_p99_us": p99}));
        }
    }
    Ok((table.text().to_owned(), Value::Array(rows)))
}

fn edited(edit: &str, text: &str, dice: &mut Dice) -> String {
    match edit {
        "upper case, new line breaks" => text.to_uppercase().replace(' ', "\n  "),
        "no punctuation" => text.chars().map(|c| if c.is_ascii_punctuation() { ' ' } else { c }).collect(),
        "one word in twenty changed" => {
            let words = text.split(' ').map(|word| if dice.below(20) == 0 { "changed" } else { word });
            words.collect::<Vec<_>>().join(" ")
        }
        _ => text.to_owned(),
    }
}

/// How many texts that no call wrote name a call.
fn mistakes(library: &Library, chain: &Chain, foreign: &[String], dice: &mut Dice) -> Fallible<(String, Value)> {
    let mut table = Table::new(&[
        "text that no call wrote",
        "characters",
        "tried",
        "names a call %",
        "with --min 3",
        "--min 4",
        "--min 6",
    ]);
    let mut rows = Vec::new();
    for length in LENGTHS {
        for (what, other) in [("held back", true), ("by the same chain", false)] {
            let mut named = [0; MINS.len()];
            for _ in 0..TRIED {
                let text = if other {
                    piece(foreign, length, dice)
                } else {
                    chain.write(dice, length / 3).chars().take(length).collect()
                };
                let found = library.find(&Question::new(text.as_bytes()), None)?;
                for (count, min) in named.iter_mut().zip(MINS) {
                    *count += usize::from(found.iter().any(|found| found.matched >= min));
                }
            }
            let shares = named.map(|count| format!("{:.1}", count as f64 * 100.0 / TRIED as f64));
            let mut row = vec![what.to_owned(), length.to_string(), TRIED.to_string()];
            row.extend(shares);
            table.row(row);
            rows.push(json!({"text": what, "characters": length, "tried": TRIED, "mins": MINS, "named": named}));
        }
    }
    Ok((table.text().to_owned(), Value::Array(rows)))
}

fn piece(texts: &[String], length: usize, dice: &mut Dice) -> String {
    let text = &texts[dice.below(texts.len())];
    let start = dice.below(text.len().saturating_sub(2 * length).max(1));
    let mut start = start;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].chars().take(length).collect()
}

/// What the connector does more for each answer: streamed word by word, and whole.
fn collecting(chain: &Chain, dice: &mut Dice) -> Fallible<(String, Value)> {
    let key = FingerprintKey::from_secret(&[7; 32])?;
    let texts: Vec<String> = (0..200).map(|_| chain.write(dice, 400)).collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let per_kb = |seconds: f64| seconds * 1e6 / (bytes as f64 / 1024.0);
    let mut table = Table::new(&["answer", "µs/KB of text", "µs an event", "of that the keyed hashes, µs/KB"]);
    let mut rows = Vec::new();
    for (what, streamed) in [("a word an event", true), ("whole body", false)] {
        let payloads: Vec<Vec<String>> = texts
            .iter()
            .map(|text| if streamed { text.split_inclusive(' ').map(event).collect() } else { vec![event(text)] })
            .collect();
        let events: usize = payloads.iter().map(Vec::len).sum();
        let (mut best, mut hashes) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..7 {
            let begun = Instant::now();
            let mut gathered = Vec::new();
            for payload in &payloads {
                let mut collector = Collector::new(key.point());
                payload.iter().for_each(|event| collector.event(event.as_bytes()));
                gathered.push(collector.finish());
            }
            let hashing = Instant::now();
            let prints: HashSet<_> =
                gathered.iter().flat_map(|selected| &selected.values).map(|value| key.print(*value)).collect();
            if prints.is_empty() {
                return Err("answers without fingerprints".into());
            }
            best = best.min(begun.elapsed().as_secs_f64());
            hashes = hashes.min(hashing.elapsed().as_secs_f64());
        }
        table.row(vec![what.to_owned(), round(per_kb(best)), round(best * 1e6 / events as f64), round(per_kb(hashes))]);
        rows.push(json!({"answer": what, "us_per_kb": per_kb(best), "us_per_event": best * 1e6 / events as f64,
            "hash_us_per_kb": per_kb(hashes)}));
    }
    Ok((table.text().to_owned(), Value::Array(rows)))
}

fn event(text: &str) -> String {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
    .to_string()
}

/// Which words follow a word in real texts.
struct Chain {
    words: Vec<String>,
    after: HashMap<String, Vec<u32>>,
}

impl Chain {
    /// Reads texts below these folders: the chain, and the texts held back.
    fn read(folders: &[PathBuf]) -> Fallible<(Self, Vec<String>)> {
        let mut files = Vec::new();
        for folder in folders {
            walk(folder, &mut files);
        }
        files.sort();
        let (mut words, mut foreign, mut sizes) = (Vec::new(), Vec::new(), [0; 2]);
        for (place, file) in files.iter().enumerate() {
            let held_back = place % 4 == 0;
            let Ok(text) = fs::read_to_string(file) else { continue };
            let size = &mut sizes[usize::from(held_back)];
            if *size > TEXT_BYTES_MAX || text.len() < 2_000 {
                continue;
            }
            *size += text.len();
            if held_back {
                foreign.push(text);
            } else {
                words.extend(text.split_whitespace().map(str::to_owned));
            }
        }
        if words.len() < 10_000 || foreign.is_empty() {
            return Err("there is too little text; name folders with --text".into());
        }
        let mut after: HashMap<String, Vec<u32>> = HashMap::new();
        for (place, word) in words.iter().enumerate() {
            after.entry(word.clone()).or_default().push(u32::try_from(place)? + 1);
        }
        Ok((Self { words, after }, foreign))
    }

    fn write(&self, dice: &mut Dice, count: usize) -> String {
        let mut place = dice.below(self.words.len());
        let mut text = String::new();
        for _ in 0..count {
            let word = self.words.get(place).unwrap_or(&self.words[0]);
            text.push_str(word);
            text.push(' ');
            place = match self.after.get(word) {
                Some(next) => next[dice.below(next.len())] as usize,
                None => dice.below(self.words.len()),
            };
        }
        text
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        // Licences are the same text again and again.
        let licence = ["copyright", "licen", "copying"].iter().any(|word| name.to_lowercase().contains(word));
        match kind {
            Ok(kind) if kind.is_dir() => walk(&path, files),
            Ok(kind) if kind.is_file() && !licence => {
                let text = ["txt", "md", "py", "rst", "rs", "html"];
                if path.extension().and_then(|ext| ext.to_str()).is_none_or(|ext| text.contains(&ext)) {
                    files.push(path);
                }
            }
            _ => {}
        }
    }
}

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }
}
