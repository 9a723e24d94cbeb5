//! Rules that a side added since the terms were signed, and what takes two people.

use anteroom_policy::rules::{ADDED_TIMES_MAX, Added, Side};
use anteroom_proto::{
    rpc::{Dossier, SignedStatement},
    statement::{StatementError, envelope, key_set::KeyRole, rules::Narrowing, terms::Terms},
};

use super::{DossierError, Keys, VerifiedDossier, VerifiedOffer};

/// What was added, each signed by the side that added it.
pub(super) fn verify(dossier: &Dossier, offer: &VerifiedOffer) -> Result<Vec<Added>, DossierError> {
    if dossier.added_rules.len() > ADDED_TIMES_MAX {
        let why = StatementError::Field { field: "added_rules", why: "rules are added at most 32 times" };
        return Err(DossierError::Added(why));
    }
    let mut added = Vec::with_capacity(dossier.added_rules.len());
    for statement in &dossier.added_rules {
        let narrowing: Narrowing = envelope::read_json(statement).map_err(DossierError::Added)?;
        let (keys, side) = if narrowing.by == offer.terms.lab.org {
            (&offer.lab_keys, Side::Lab)
        } else if narrowing.by == offer.terms.agency.org {
            (&offer.agency_keys, Side::Agency)
        } else {
            return Err(DossierError::AddedByOther);
        };
        if narrowing.grant != offer.terms.grant {
            return Err(DossierError::AddedByOther);
        }
        // By the key set in force then, which the dossier does not date.
        keys.demand_since(statement, KeyRole::Signer).map_err(DossierError::Added)?;
        added.push(Added { side, text: narrowing.rules });
    }
    Ok(added)
}

/// What lends lowered safeguards or reaches the internet carries the signatures of two people of the lab.
pub(super) fn two_people(terms: &Terms, offer: &SignedStatement, lab: &Keys) -> Result<(), DossierError> {
    let people = || envelope::count_signers(offer, lab.named().keys_of(KeyRole::Signer)).map_err(DossierError::Offer);
    if terms.takes_two_people() && people()? < 2 { Err(DossierError::TwoPeople) } else { Ok(()) }
}

impl VerifiedDossier {
    /// Rules that either side added since, oldest first.
    #[must_use]
    pub fn added_rules(&self) -> &[Added] {
        &self.added
    }
}
