//! What comes from elsewhere, and which room may depend on which.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use serde_json::Value;

/// Licences that go with Apache-2.0, as they stand in SPDX expressions.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    // Copyleft for its own files alone; they are used unchanged.
    "MPL-2.0",
    "MPL-2.0+",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates that are there in several versions, and who keeps the older ones.
const DUPLICATES: &[(&str, &str)] = &[
    ("base64", "tonic keeps 0.22; pem is ahead"),
    ("bit-vec", "proptest's bit-set keeps 0.8; yasna, below rcgen, is ahead"),
    ("bitflags", "version 1 below sled's parking_lot, on Redox only"),
    (
        "block-buffer",
        "keccak, below the rule engine's parser generator, keeps digest 0.10; the database driver is ahead",
    ),
    ("cpufeatures", "keccak, below the rule engine's parser generator, keeps 0.2"),
    ("crypto-common", "as block-buffer"),
    ("digest", "as block-buffer"),
    ("foldhash", "hashbrown 0.15 keeps 0.1"),
    ("getrandom", "ring keeps 0.2"),
    ("hashbrown", "petgraph 0.8 and an optional indexmap 1 keep older ones"),
    ("indexmap", "serde_with names version 1 as an option"),
    ("itertools", "prost-build and the rule engine's parser generator keep 0.14"),
    ("nom", "x509-parser keeps 7; lettre is ahead"),
    ("parking_lot", "sled 0.34 keeps 0.11"),
    ("parking_lot_core", "as parking_lot"),
    ("petgraph", "the rule engine's parser generator keeps 0.7"),
    ("phf_shared", "the rule engine's parser generator keeps 0.11; the database driver is ahead"),
    ("rand_core", "imbl keeps 0.9"),
    ("redox_syscall", "as parking_lot; never built on Linux"),
    ("schemars", "serde_with names two versions as options"),
    ("syn", "derive macros are moving from 2 to 3"),
    ("unicode-width", "miette, below the rule engine, keeps 0.1"),
    ("wasi", "never built on Linux"),
    ("windows-sys", "never built on Linux"),
    ("winnow", "toml 0.9 keeps 0.7 beside its parser's 1.0"),
];

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let output = Command::new(cargo).args(arguments).arg("--locked").current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn packages() -> Vec<Value> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Whether an SPDX expression can be met with the licences above: AND needs both sides, OR one.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace("  ", " ");
    let expression = expression.trim();
    // The outermost operator, OR binding less than AND.
    for operator in [" OR ", " AND "] {
        let mut depth = 0;
        for (at, c) in expression.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                ' ' if depth == 0 && expression[at..].starts_with(operator) => {
                    let (left, right) = (&expression[..at], &expression[at + operator.len()..]);
                    return match operator {
                        " OR " => acceptable(left) || acceptable(right),
                        _ => acceptable(left) && acceptable(right),
                    };
                }
                _ => {}
            }
        }
    }
    match expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => acceptable(inner),
        None => LICENCES.contains(&expression),
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND Unicode-3.0", "Apache-2.0 / MIT"] {
        assert!(acceptable(good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "", "SEE LICENSE"] {
        assert!(!acceptable(bad), "{bad}");
    }
}

#[test]
fn every_dependency_has_a_licence_that_goes_with_ours() {
    let mut wrong = Vec::new();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or_default();
        if !acceptable(licence) {
            wrong.push(format!("{} {}: `{licence}`", package["name"], package["version"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn everything_from_elsewhere_is_from_the_public_registry() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        match package["source"].as_str() {
            Some(source) => assert_eq!(source, CRATES_IO, "{name}"),
            None => assert!(name.starts_with("anteroom-"), "{name} is a path"),
        }
    }
}

#[test]
fn each_duplicate_has_a_reason_and_each_reason_a_duplicate() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        versions.entry(name.to_owned()).or_default().insert(version.to_owned());
    }
    let found: BTreeSet<&str> =
        versions.iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name.as_str()).collect();
    let listed: BTreeSet<&str> = DUPLICATES.iter().map(|(name, _)| *name).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(new.is_empty(), "in several versions, without a reason: {new:?}");
    assert!(gone.is_empty(), "no longer in several versions: {gone:?}");
}

/// The packages that a room is built from, without its tests.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let text = cargo(&[&["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"], arguments].concat());
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[track_caller]
fn depends_not(arguments: &[&str], forbidden: &[&str]) {
    let tree = tree(arguments);
    assert!(tree.iter().any(|name| name.starts_with("anteroom-")), "cargo tree said nothing");
    for name in forbidden {
        assert!(!tree.contains(*name), "{arguments:?} depends on {name}");
    }
}

#[test]
fn rooms_depend_downwards_only() {
    let above_proto = ["anteroom-policy", "anteroom-broker", "anteroom-sdk", "anteroom-tests"];
    depends_not(&["-p", "anteroom-proto"], &[&above_proto[..], &["tokio", "tonic", "cedar-policy", "rustls"]].concat());
    depends_not(&["-p", "anteroom-proto", "--features", "rpc"], &above_proto);
    depends_not(
        &["-p", "anteroom-policy"],
        &["anteroom-broker", "anteroom-sdk", "anteroom-tests", "tokio", "tonic", "hyper", "rustls", "rustix", "sled"],
    );
    depends_not(&["-p", "anteroom-sdk", "--all-features"], &["anteroom-broker", "anteroom-tests", "sled"]);
}

#[test]
fn broker_that_ships_knows_no_sdk() {
    depends_not(&["-p", "anteroom-broker", "--no-default-features"], &["anteroom-sdk", "anteroom-tests"]);
}

/// The advisory database is on no package registry, so it is asked where a copy of it lies: `ADVISORY_DB` names its folder.
#[test]
fn no_dependency_has_an_advisory_that_is_not_known_here() {
    /// Known, and why they do not matter here.
    const KNOWN: &[(&str, &str)] = &[
        ("RUSTSEC-2025-0057", "fxhash below sled is unmaintained; the index is disposable and holds nothing secret"),
        ("RUSTSEC-2024-0384", "instant below sled is unmaintained; it is the standard library's clock on Linux"),
    ];
    let Some(database) = std::env::var_os("ADVISORY_DB").map(PathBuf::from) else {
        println!("NOT CHECKED: no advisory database; name its folder in ADVISORY_DB");
        return;
    };
    let mut wrong = Vec::new();
    for package in packages() {
        let folder = database.join("crates").join(package["name"].as_str().unwrap());
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if !KNOWN.iter().any(|(known, _)| *known == id) {
                wrong.push(format!("{} {}: look at {id}", package["name"], package["version"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
