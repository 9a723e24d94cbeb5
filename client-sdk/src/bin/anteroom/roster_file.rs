//! A roster as an agency writes it: one readable file from which the lab's view and the private part are made.

use anteroom_proto::{
    names::{OrgId, Pseudonym},
    statement::{
        envelope::Signer,
        key::{Algorithm, PublicKey},
        roster::Tri,
    },
    time::At,
};
use anteroom_sdk::{
    agency::{NewPerson, RosterDraft},
    home::Home,
};
use serde::Deserialize;
use toml::value::Datetime;

use crate::fail::Fail;

/// A file to start from.
pub(crate) const TEMPLATE: &str = r#"# The people behind this agency's calls. `anteroom roster publish FILE` makes two parts of it: labs see pseudonym, key, employer,
# predicates and dates; name and citizenships stay with the agency, bound by a commitment.

[[person]]
pseudonym = "p-1"                      # stable, and says nothing
name = "Ada Example"                   # stays with the agency
citizenships = ["US"]                  # stays with the agency; ISO 3166-1 alpha-2
employer = "Agency A"
us_person = "yes"                      # yes, no or unknown; unknown never counts as yes
clearance = 0                          # 0 unclassified, 1 CUI
read_ins = []
rel_to = []                            # REL TO lists that cover this person
key = "person-p-1"                     # a key in this folder (`anteroom key new person-p-1`), or as below
# key = { algorithm = "ecdsa-p256-sha256", public = "base64 of a card's public key" }
valid_from = 2026-11-01T00:00:00Z
valid_until = 2027-10-31T00:00:00Z     # end of the engagement
trained_until = 2027-06-30T00:00:00Z   # end of the training
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RosterFile {
    person: Vec<PersonEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonEntry {
    pseudonym: Pseudonym,
    name: String,
    citizenships: Vec<String>,
    employer: String,
    #[serde(default)]
    us_person: Tri,
    #[serde(default)]
    clearance: u32,
    #[serde(default)]
    read_ins: Vec<String>,
    #[serde(default)]
    rel_to: Vec<String>,
    key: KeyEntry,
    valid_from: Datetime,
    valid_until: Datetime,
    trained_until: Datetime,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum KeyEntry {
    /// Name of a key in the folder.
    Named(String),
    /// A key that is elsewhere, on a card for example.
    Public { algorithm: Algorithm, public: String },
}

/// Makes a roster of such a file, each private part committed to under a fresh salt.
pub(crate) fn draft(text: &str, org: OrgId, home: &Home) -> Result<RosterDraft, Fail> {
    let file: RosterFile =
        toml::from_str(text).map_err(|error| Fail::Local(format!("the roster cannot be read: {error}")))?;
    let people = file.person.into_iter().map(|entry| person(entry, home)).collect::<Result<Vec<_>, _>>()?;
    Ok(RosterDraft::new(org, &people)?)
}

fn person(entry: PersonEntry, home: &Home) -> Result<NewPerson, Fail> {
    let wrong = |why: &str| Fail::Local(format!("`{}` on the roster: {why}", entry.pseudonym));
    for country in &entry.citizenships {
        if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong("citizenships are two capital letters each, such as US"));
        }
    }
    if entry.clearance > 1 {
        return Err(wrong("clearance is 0 or 1"));
    }
    let instant = |text: &Datetime| At::parse_rfc3339(&text.to_string()).map_err(|error| wrong(&error.to_string()));
    let key = match &entry.key {
        KeyEntry::Named(name) => home.signer(name)?.public_key().clone(),
        KeyEntry::Public { algorithm, public } => {
            let bytes = data_encoding::BASE64.decode(public.as_bytes());
            let bytes = bytes.map_err(|_| wrong("a public key is standard base64"))?;
            PublicKey::new(*algorithm, bytes).map_err(|error| wrong(&error.to_string()))?
        }
    };
    let (valid_from, valid_until) = (instant(&entry.valid_from)?, instant(&entry.valid_until)?);
    if valid_until <= valid_from {
        return Err(wrong("the engagement ends before it begins"));
    }
    Ok(NewPerson {
        key,
        valid_from,
        valid_until,
        trained_until: instant(&entry.trained_until)?,
        pseudonym: entry.pseudonym,
        employer: entry.employer,
        name: entry.name,
        citizenships: entry.citizenships,
        us_person: entry.us_person,
        rel_to_ok: entry.rel_to,
        clearance: entry.clearance,
        read_ins: entry.read_ins,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::statement::{
        envelope::{sign_json, verify_by},
        roster::{Rest, Roster},
    };

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::create(folder.path()).unwrap();
        home.key_or_new("person-p-1").unwrap();
        (folder, home)
    }

    #[test]
    fn the_template_becomes_a_statement_without_names() {
        let (_folder, home) = home();
        let draft = draft(TEMPLATE, OrgId::parse("agency-a").unwrap(), &home).unwrap();
        let signer = home.key_or_new("roster").unwrap();
        let statement = sign_json(&draft.roster, &[&signer]).unwrap();
        verify_by(&statement, signer.public_key()).unwrap();
        let roster = Roster::parse(&statement).unwrap();
        roster.check_private(&draft.private).unwrap();
        let person = roster.people.first().unwrap();
        assert_eq!(person.key, *home.signer("person-p-1").unwrap().public_key());
        assert_eq!((person.us_person, person.us_only), (Tri::Yes, Tri::Yes));
        assert_eq!(person.valid_until_ms.to_string(), "2027-10-31T00:00:00.000Z");
        assert!(!String::from_utf8(statement.payload).unwrap().contains("Ada"));
        let rest: Rest = serde_json::from_str(&draft.private.first().unwrap().rest).unwrap();
        assert_eq!(rest.name, "Ada Example");
    }

    #[test]
    fn a_cards_key_stands_in_the_file_itself() {
        let (_folder, home) = home();
        let public = home.signer("person-p-1").unwrap().public_key().clone();
        let entry = format!(
            "key = {{ algorithm = \"ed25519\", public = \"{}\" }} #",
            data_encoding::BASE64.encode(public.bytes())
        );
        let text = TEMPLATE.replace("key = \"person-p-1\"", &entry);
        let draft = draft(&text, OrgId::parse("agency-a").unwrap(), &home).unwrap();
        assert_eq!(draft.roster.people.first().unwrap().key, public);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let (_folder, home) = home();
        let changes = [
            ("citizenships = [\"US\"]", "citizenships = [\"usa\"]"),
            ("citizenships = [\"US\"]", "citizenships = []"),
            ("clearance = 0", "clearance = 2"),
            ("clearance = 0", "clearence = 0"),
            ("2027-10-31T00:00:00Z", "2025-10-31T00:00:00Z"),
            ("person-p-1\"  ", "person-p-2\"  "),
            ("2026-11-01T00:00:00Z", "2026-11-01"),
        ];
        for (from, to) in changes {
            let text = TEMPLATE.replacen(from, to, 1);
            assert_ne!(text, TEMPLATE, "{from}");
            assert!(draft(&text, OrgId::parse("agency-a").unwrap(), &home).is_err(), "{to}");
        }
    }
}
