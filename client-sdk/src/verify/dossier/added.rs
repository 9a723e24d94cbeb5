//! Rules that a side added since the terms were signed.

use anteroom_policy::rules::{ADDED_TIMES_MAX, Added, Side};
use anteroom_proto::{
    rpc::Dossier,
    statement::{StatementError, envelope, key_set::KeyRole, rules::Narrowing},
};

use super::{DossierError, VerifiedOffer};

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
