//! The rules of the house, held against every file. Lists of exceptions may only shrink.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a source file. One that grows beyond has two subjects.
const LINES_MAX: usize = 500;

/// Most lines of a file of tests: a suite and its world stay together longer.
const TEST_LINES_MAX: usize = 1000;

/// Files that are longer, each with the lines it may have. Lower a number when its file shrinks; take it out below the bound.
const LONGER: &[(&str, usize)] = &[
    ("broker/src/demo/cast.rs", 538),
    ("broker/src/relay/call.rs", 506),
    ("policy/src/record.rs", 587),
    ("proto/src/ledger/record.rs", 567),
];

/// Generated from elsewhere; a test of its own keeps each as it is generated.
const GENERATED: &[&str] = &["proto/src/rpc/anteroom.v1.rs", "proto/src/ledger/registry.rs"];

/// The files in which a wall clock is read.
const CLOCKS: &[&str] = &["broker/src/clock.rs", "client-sdk/src/system.rs"];

/// Refusals that no test reaches yet.
const UNREACHED: &[&str] = &[
    // It takes a million calls of one grant within a day.
    "calls_remembered",
];

/// This file: it has to name what it forbids.
const SELF: &str = "tests/tests/tidy.rs";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every text file of the repository by its path in it. What a build or an editor leaves behind is none.
fn files() -> BTreeMap<String, String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !matches!(name, "target" | ".git" | "node_modules") {
                    walk(root, &path, found);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text);
            }
        }
    }
    let (root, mut found) = (root(), BTreeMap::new());
    walk(&root, &root, &mut found);
    found
}

fn sources() -> BTreeMap<String, String> {
    files().into_iter().filter(|(path, _)| path.ends_with(".rs") && !GENERATED.contains(&path.as_str())).collect()
}

/// Whether a whole file is there for tests.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.ends_with("tests.rs")
        || path.ends_with("/testing.rs")
        || path.contains("/tests/")
        || path.contains("/testing/")
        || path.ends_with("fixture.rs")
}

/// A source without its tests, and the tests.
fn split(text: &str) -> (&str, &str) {
    text.find("\n#[cfg(test)]\nmod ").map_or((text, ""), |at| text.split_at(at))
}

/// The strings of a source with their lines, comments left out. Good enough for prose; raw strings are read like others.
fn strings(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        let mut inside: Option<String> = None;
        let mut escaped = false;
        for c in line.chars() {
            match (&mut inside, c) {
                (None, '"') => inside = Some(String::new()),
                (None, _) => {}
                (Some(_), '\\') if !escaped => {
                    escaped = true;
                    continue;
                }
                (Some(string), '"') if !escaped => {
                    found.push((number + 1, std::mem::take(string)));
                    inside = None;
                }
                (Some(string), c) => string.push(c),
            }
            escaped = false;
        }
        // What a line break cuts is prose as well.
        found.extend(inside.map(|rest| (number + 1, rest)));
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn none(wrong: Vec<String>, rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

#[test]
fn source_files_have_one_subject_and_lists_of_longer_ones_shrink() {
    let mut wrong = Vec::new();
    let allowed: BTreeMap<_, _> = LONGER.iter().copied().collect();
    let sources = sources();
    for (path, text) in &sources {
        let lines = text.lines().count();
        let usual = if is_test(path) { TEST_LINES_MAX } else { LINES_MAX };
        let most = allowed.get(path.as_str()).copied().unwrap_or(usual);
        if lines > most {
            wrong.push(format!("{path} has {lines} lines, {most} at most"));
        } else if most > usual && lines <= usual {
            wrong.push(format!("{path} has {lines} lines: take it off the list"));
        }
    }
    wrong.extend(
        allowed
            .keys()
            .filter(|path| !sources.contains_key(**path))
            .map(|path| format!("{path} is gone: take it off the list")),
    );
    none(wrong, "a source file has at most 500 lines, one of tests 1000");
}

#[test]
fn lints_are_silenced_with_a_reason_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (at, _) in text.match_indices("allow(") {
            let before = &text[..at];
            let attribute = text[at..].split(")]").next().unwrap_or_default();
            if (before.ends_with("#[") || before.ends_with("#![")) && !attribute.contains("reason = ") && path != SELF {
                wrong.push(format!("{path}:{}", before.lines().count()));
            }
        }
    }
    none(wrong, "say `reason = …`, and prefer `#[expect]`");
}

#[test]
fn nothing_is_left_to_do() {
    let mut wrong = Vec::new();
    for (path, text) in files() {
        if path == SELF || path == "Cargo.lock" || path == "LICENSE" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let marked = line
                .split(|c: char| !c.is_ascii_alphanumeric())
                .any(|word| matches!(word, "TODO" | "FIXME" | "XXX" | "HACK"));
            let lint = line.contains("deny");
            if marked || ((line.contains("todo!(") || line.contains("unimplemented!(")) && !lint) {
                wrong.push(format!("{path}:{}", number + 1));
            }
        }
    }
    none(wrong, "finish it, or say under Limits in the README that it is not there");
}

#[test]
fn nothing_users_read_sounds_like_an_official_blessing() {
    let mut wrong = Vec::new();
    for (path, text) in files() {
        let shown = path.ends_with(".rs") && !is_test(&path);
        let page = [".html", ".js", ".proto"].iter().any(|kind| path.ends_with(kind));
        let prose: Vec<(usize, String)> = if shown {
            strings(split(&text).0)
        } else if page {
            text.lines().enumerate().map(|(number, line)| (number + 1, line.to_owned())).collect()
        } else {
            continue;
        };
        for (number, string) in prose {
            if words(&string).any(|word| matches!(word.as_str(), "approved" | "cleared" | "licensed")) {
                wrong.push(format!("{path}:{number}: {string}"));
            }
        }
    }
    none(wrong, "no state and no text of this system means an official verdict on a model");
}

/// Whether a text holds `name` and not just a longer one.
fn mentions(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| !text[at + name.len()..].starts_with(char::is_alphanumeric))
}

#[test]
fn each_refusal_is_reached_by_a_test() {
    const HOME: &str = "policy/src/refusal.rs";
    /// Names the refusals that the simulation does not reach; it fails when it misses one of the others.
    const COVERAGE: &str = "tests/src/sim/coverage.rs";
    let files = sources();
    let home = &files[HOME];
    let listed = home.split("\nrefusals! {").nth(1).unwrap().split("\n}").next().unwrap();
    let refusals: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| {
            let (variant, rest) = line.trim().split_once(" \"")?;
            let (code, _) = rest.split_once('"')?;
            variant.chars().all(char::is_alphanumeric).then_some((variant, code))
        })
        .collect();
    assert!(refusals.len() > 50, "the list of refusals was not found");
    let mut corpus = String::new();
    for (path, text) in &files {
        if ![HOME, COVERAGE, SELF].contains(&path.as_str()) {
            corpus.push_str(if is_test(path) { text } else { split(text).1 });
        }
    }
    let mut wrong = Vec::new();
    for (variant, code) in refusals {
        let name = format!("Refusal::{variant}");
        let reached =
            !mentions(&files[COVERAGE], &name) || mentions(&corpus, &name) || corpus.contains(&format!("\"{code}\""));
        match (reached, UNREACHED.contains(&code)) {
            (false, false) => wrong.push(format!("no test reaches `{code}`")),
            (true, true) => wrong.push(format!("`{code}` is reached: take it off the list")),
            (true, false) | (false, true) => {}
        }
    }
    none(wrong, "each reason for \"no\" has a test");
}

#[test]
fn statuses_are_made_in_one_file() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !path.starts_with("broker/src/") || path == "broker/src/status.rs" || is_test(&path) {
            continue;
        }
        let (code, _) = split(&text);
        for (at, _) in code.match_indices("Status::") {
            let made = code[at + "Status::".len()..].starts_with(|c: char| c.is_lowercase());
            let whole = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
            if made && whole {
                wrong.push(format!("{path}:{}", code[..at].lines().count()));
            }
        }
    }
    none(wrong, "services answer with a `Reject`; status.rs alone turns it into a gRPC status");
}

#[test]
fn wall_clocks_are_read_in_the_files_about_time_alone() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if CLOCKS.contains(&path.as_str()) || path == SELF {
            continue;
        }
        for clock in ["SystemTime::now", "Utc::now", "Local::now", "clock_gettime", "UNIX_EPOCH.elapsed"] {
            if text.contains(clock) {
                wrong.push(format!("{path}: {clock}"));
            }
        }
    }
    none(wrong, "time comes through the one seam of each crate");
}

#[test]
fn nothing_points_outside_the_repository() {
    let mut wrong = Vec::new();
    for (path, text) in files() {
        if path == SELF {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let outside =
                ["../shared", "/work/", "/root/.", "/home/", "--index-url", "--extra-index-url", "replace-with"]
                    .iter()
                    .any(|part| line.contains(part));
            let registry =
                line.contains("registry+") && !line.contains("registry+https://github.com/rust-lang/crates.io-index");
            if outside || registry {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(wrong, "the repository stands on its own");
}

#[test]
fn only_the_folders_that_were_agreed_are_at_the_top() {
    let known = ["broker", "client-sdk", "deploy", "policy", "proto", "tests", "target"];
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        if entry.path().is_dir() && !name.starts_with('.') && !known.contains(&name.as_str()) {
            wrong.push(name);
        }
    }
    none(wrong, "a new room needs a reason");
}
