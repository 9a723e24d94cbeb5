//! The OSCAL component definition, read by IBM's compliance-trestle, whose models are made from NIST's schemas.
//!
//! It needs Python packages in `target/venv/trestle`, which `tests/run` puts there.

use std::fs;

use anteroom_tests::e2e::{
    client::{program, run, script},
    command::said,
};
use tokio::process::Command;

#[tokio::test]
async fn the_component_definition_is_one_by_the_published_model() {
    let Some(python) = program("trestle", "python") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("definition.json");
    let text = said(&folder.path().join("absent"), &["audit", "controls", "--as", "oscal"]).await;
    let read = async |text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = Command::new(&python);
        command.arg(script("verify_oscal.py")).arg(&file);
        run(command).await
    };
    let output = read(&text).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("au-2 au-3 au-6 au-7 au-9 au-10 au-11 au-12"), "{said}");
    // The reader does look: neither an unknown member nor a UUID that is none passes.
    for (from, to) in [("\"control-id\"", "\"control\""), ("\"uuid\": \"", "\"uuid\": \"x")] {
        assert!(!read(&text.replacen(from, to, 1)).await.status.success(), "{from}");
    }
}
