//! Putting a roster together: what a lab may see, and what stays with the agency.

use anteroom_proto::{
    names::{OrgId, Pseudonym},
    statement::{
        StatementError,
        key::PublicKey,
        roster::{Person, PrivatePerson, Rest, Roster, Tri, commit},
    },
    time::At,
};

use crate::{error::Error, system};

/// A person to be put on a roster.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// Stable, and says nothing.
    pub pseudonym: Pseudonym,
    /// The key the person signs run credentials with.
    pub key: PublicKey,
    /// Who employs them.
    pub employer: String,
    /// Name; never leaves the agency.
    pub name: String,
    /// Citizenships as ISO 3166-1 alpha-2 codes; never leave the agency.
    pub citizenships: Vec<String>,
    /// Whether they are a U.S. person.
    pub us_person: Tri,
    /// REL TO lists that cover them.
    pub rel_to_ok: Vec<String>,
    /// Level they may read: 0 unclassified, 1 CUI.
    pub clearance: u32,
    /// Read-ins.
    pub read_ins: Vec<String>,
    /// First instant of validity.
    pub valid_from: At,
    /// End of their engagement.
    pub valid_until: At,
    /// End of their training.
    pub trained_until: At,
}

/// A roster with its private part.
#[derive(Clone, Debug)]
pub struct RosterDraft {
    /// The lab's view.
    pub roster: Roster,
    /// What stays with the agency, in the same order.
    pub private: Vec<PrivatePerson>,
}

impl RosterDraft {
    /// Commits to each person's private part under a fresh salt and derives the predicates that follow from it.
    ///
    /// # Errors
    /// The machine gives no randomness, or a person's private part is unusable.
    pub fn new(org: OrgId, people: &[NewPerson]) -> Result<Self, Error> {
        let mut roster = Roster { org, people: Vec::with_capacity(people.len()) };
        let mut private = Vec::with_capacity(people.len());
        for person in people {
            let rest =
                serde_json::to_string(&Rest { name: person.name.clone(), citizenships: person.citizenships.clone() })
                    .map_err(|error| StatementError::Payload(error.to_string()))?;
            let salt = system::nonce()?;
            roster.people.push(Person {
                pseudonym: person.pseudonym.clone(),
                key: person.key.clone(),
                employer: person.employer.clone(),
                us_person: person.us_person,
                us_only: us_only(&person.citizenships),
                rel_to_ok: person.rel_to_ok.clone(),
                clearance: person.clearance,
                read_ins: person.read_ins.clone(),
                valid_from_ms: person.valid_from,
                valid_until_ms: person.valid_until,
                trained_until_ms: person.trained_until,
                rest: commit(&salt, &rest),
            });
            private.push(PrivatePerson { pseudonym: person.pseudonym.clone(), salt, rest });
        }
        roster.check_private(&private)?;
        Ok(Self { roster, private })
    }
}

/// Whether the one citizenship is that of the United States. Nobody said anything about a person without any.
fn us_only(citizenships: &[String]) -> Tri {
    match citizenships {
        [] => Tri::Unknown,
        all if all.iter().all(|country| country == "US") => Tri::Yes,
        _ => Tri::No,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::statement::envelope::Signer;

    use super::*;
    use crate::signer::KeyFile;

    fn person(number: u8, citizenships: &[&str]) -> NewPerson {
        NewPerson {
            pseudonym: Pseudonym::parse(&format!("p-{number}")).unwrap(),
            key: KeyFile::from_seed(&[number; 32]).unwrap().public_key().clone(),
            employer: "agency".to_owned(),
            name: "Ana Example".to_owned(),
            citizenships: citizenships.iter().map(|text| (*text).to_owned()).collect(),
            us_person: Tri::Unknown,
            rel_to_ok: Vec::new(),
            clearance: 0,
            read_ins: Vec::new(),
            valid_from: At::clamped(0),
            valid_until: At::clamped(10),
            trained_until: At::clamped(10),
        }
    }

    #[test]
    fn a_lab_sees_predicates_and_no_names() {
        let people = [person(1, &["US"]), person(2, &["US", "FR"])];
        let draft = RosterDraft::new(OrgId::parse("agency").unwrap(), &people).unwrap();
        let shown: Vec<Tri> = draft.roster.people.iter().map(|person| person.us_only).collect();
        assert_eq!(shown, [Tri::Yes, Tri::No]);
        let text = serde_json::to_string(&draft.roster).unwrap();
        assert!(!text.contains("Ana") && !text.contains("FR"));
    }

    #[test]
    fn commitments_differ_for_alike_people() {
        let mut twin = person(1, &["US"]);
        twin.pseudonym = Pseudonym::parse("p-9").unwrap();
        let people = [person(1, &["US"]), twin];
        let draft = RosterDraft::new(OrgId::parse("agency").unwrap(), &people).unwrap();
        let rests: Vec<_> = draft.roster.people.iter().map(|person| person.rest).collect();
        assert_ne!(rests.first(), rests.last());
    }

    #[test]
    fn a_person_without_citizenship_is_refused() {
        let people = [person(1, &[])];
        assert!(RosterDraft::new(OrgId::parse("agency").unwrap(), &people).is_err());
    }
}
