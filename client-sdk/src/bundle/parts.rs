//! What a bundle holds beside the mirror: each part follows from the report, from the dossier, or from this program.

use anteroom_proto::{names::GrantId, rpc::Dossier};

use super::{BundleError, Render, wrong};
use crate::report::Report;

/// The report for programs.
pub(super) const REPORT: &str = "report.json";
/// The report for people.
pub(super) const PAGE: &str = "report.html";
/// The report on paper.
pub(super) const PAPER: &str = "report.pdf";
/// The verifier that travels along.
pub(super) const VERIFIER: &str = "verify.py";
/// What is here.
pub(super) const README: &str = "README.txt";
/// Where the mirror is.
pub(super) const MIRROR: &str = "mirror";

const VERIFIER_TEXT: &str = include_str!("verify.py");
const README_TEXT: &str = include_str!("readme.txt");

/// A part: its file, its bytes, and whether another version of this program may have worded it otherwise.
pub(super) struct Part {
    pub(super) file: String,
    pub(super) bytes: Vec<u8>,
    pub(super) worded: bool,
}

/// All parts beside the mirror.
pub(super) fn all(
    grant: GrantId,
    report: &Report,
    dossier: &Dossier,
    render: Render<'_>,
) -> Result<Vec<Part>, BundleError> {
    let mut json = serde_json::to_vec_pretty(report).map_err(|why| wrong(REPORT, why.to_string()))?;
    json.push(b'\n');
    let log = &report.log;
    let readme = [("GRANT", grant.to_string()), ("ORIGIN", log.origin.clone()), ("ENTRIES", log.entries.to_string())];
    let readme = readme.into_iter().chain([("ROOT", log.root.clone()), ("MADE_BY", report.made_by.clone())]);
    let readme =
        readme.fold(README_TEXT.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &value));
    let part = |file: &str, bytes: Vec<u8>, worded| Part { file: file.to_owned(), bytes, worded };
    let mut parts = vec![
        part(REPORT, json, false),
        part(PAGE, (render.page)(report).into_bytes(), true),
        part(PAPER, (render.pdf)(report), true),
        part(VERIFIER, VERIFIER_TEXT.as_bytes().to_vec(), true),
        part(README, readme.into_bytes(), true),
        part("terms.json", dossier.terms.clone(), false),
    ];
    if !dossier.policy.is_empty() {
        parts.push(part("rules.cedar", dossier.policy.clone().into_bytes(), false));
    }
    if let Some(roster) = &dossier.roster {
        parts.push(part("roster.json", roster.payload.clone(), false));
    }
    for (side, sets) in [("lab", &dossier.lab_key_sets), ("agency", &dossier.agency_key_sets)] {
        let sets = sets.iter().zip(1_u32..);
        parts.extend(sets.map(|(set, number)| part(&format!("keys/{side}.{number}.json"), set.payload.clone(), false)));
    }
    Ok(parts)
}
