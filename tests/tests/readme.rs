//! What the README says of the code is what the code says.

use std::{fs, path::Path};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap()
}

#[test]
fn the_life_of_a_grant_is_the_table() {
    let diagram = anteroom_policy::grant::diagram();
    assert!(readme().contains(diagram.trim_end()), "the README's diagram is not the table's; it should be:\n{diagram}");
}

#[test]
fn exit_codes_are_the_commands_own() {
    let readme = readme();
    for (code, meaning) in anteroom_sdk::error::EXIT_CODES {
        let row = format!("| {code} | {meaning} |");
        assert!(readme.contains(&row), "the README lacks `{row}`");
    }
}
