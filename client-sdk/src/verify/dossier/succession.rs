//! Builds that take each other's place: both signatures, one after the other, and the manifests that they name.

use anteroom_proto::{
    names::Digest,
    rpc::{Dossier, SignedStatement},
    statement::{
        StatementError, envelope,
        key_set::KeyRole,
        model::Manifest,
        succession::{Change, Countersignature, SUCCESSIONS_MAX, Succession, builds_at, cut_at},
        terms::Terms,
    },
    time::At,
};

use super::{DossierError, Keys, VerifiedDossier, VerifiedOffer, demand_equal};

/// A succession that the lab signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldSuccession {
    /// Digest of its payload, by which a countersignature names it.
    pub digest: Digest,
    /// What it says.
    pub succession: Succession,
    /// From when on new calls go to the new build, once the agency countersigned that.
    pub at: Option<At>,
}

/// What a dossier holds of builds.
#[derive(Clone, Debug, Default)]
pub(super) struct Builds {
    manifests: Vec<(Digest, Manifest)>,
    /// With both signatures, oldest first.
    taken: Vec<HeldSuccession>,
    /// Offered, and not countersigned.
    offered: Option<HeldSuccession>,
}

const fn mismatch(field: &'static str) -> DossierError {
    DossierError::SuccessionMismatch(field)
}

pub(super) fn verify(dossier: &Dossier, offer: &VerifiedOffer) -> Result<Builds, DossierError> {
    let terms = &offer.terms;
    if dossier.successions.len() > SUCCESSIONS_MAX {
        return Err(mismatch("number"));
    }
    let (mut taken, mut lent) = (Vec::<HeldSuccession>::new(), terms.model.builds.clone());
    for succeeded in &dossier.successions {
        let statement = succeeded.succession.as_ref().ok_or(mismatch("statement"))?;
        let mut held = lab_signed(statement, offer, taken.last(), &lent)?;
        let countersignature = succeeded.countersignature.as_ref().ok_or(mismatch("countersignature"))?;
        let counter = countersigned(countersignature, offer, &held)?;
        let before = taken.last().and_then(|before| before.at);
        if before.is_some_and(|before| counter.at_ms <= before) {
            return Err(mismatch("at_ms"));
        }
        held.at = Some(counter.at_ms);
        lent = builds_at(&lent, [Change::of(&held.succession, &counter)], counter.at_ms);
        taken.push(held);
    }
    let offered = dossier.offered_succession.as_ref();
    let offered = offered.map(|statement| lab_signed(statement, offer, taken.last(), &lent)).transpose()?;
    let named: Vec<Digest> = taken.iter().chain(&offered).map(|held| held.succession.to).collect();
    let manifests = verify_manifests(dossier, terms, &named)?;
    for build in &named {
        // The terms' own may be left out; whoever takes a new one reads what it is.
        let manifest = manifests.iter().find(|(digest, _)| digest == build).ok_or(DossierError::Manifest)?;
        if !manifest.1.without(&terms.model.variants).is_empty() {
            return Err(mismatch("variants"));
        }
    }
    Ok(Builds { manifests, taken, offered })
}

/// A succession of this grant, signed by the lab, after the one before, from a build that answers to one that does not.
fn lab_signed(
    statement: &SignedStatement,
    offer: &VerifiedOffer,
    before: Option<&HeldSuccession>,
    lent: &[Digest],
) -> Result<HeldSuccession, DossierError> {
    let terms = &offer.terms;
    let succession: Succession = envelope::read_json(statement).map_err(DossierError::Succession)?;
    demand_equal(succession.grant, terms.grant, "grant").map_err(mismatch)?;
    demand_equal(&succession.by, &terms.lab.org, "by").map_err(mismatch)?;
    demand_equal(succession.previous, before.map(|before| before.digest), "previous").map_err(mismatch)?;
    demand_equal(lent.contains(&succession.from), true, "from").map_err(mismatch)?;
    demand_equal(lent.contains(&succession.to), false, "to").map_err(mismatch)?;
    // By the key set in force then, which the dossier does not date.
    offer.lab_keys.demand_since(statement, KeyRole::Signer).map_err(DossierError::Succession)?;
    if terms.takes_two_people() && most_signers(&offer.lab_keys, statement).map_err(DossierError::Succession)? < 2 {
        return Err(DossierError::TwoPeople);
    }
    Ok(HeldSuccession { digest: Digest::of(&statement.payload), succession, at: None })
}

fn most_signers(keys: &Keys, statement: &SignedStatement) -> Result<usize, StatementError> {
    let since = keys.versions.iter().skip(keys.named);
    let counts = since.map(|(_, set)| envelope::count_signers(statement, set.keys_of(KeyRole::Signer)));
    Ok(counts.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0))
}

fn countersigned(
    statement: &SignedStatement,
    offer: &VerifiedOffer,
    held: &HeldSuccession,
) -> Result<Countersignature, DossierError> {
    let terms = &offer.terms;
    let counter: Countersignature = envelope::read_json(statement).map_err(DossierError::Succession)?;
    demand_equal(counter.grant, terms.grant, "grant").map_err(mismatch)?;
    demand_equal(&counter.by, &terms.agency.org, "by").map_err(mismatch)?;
    demand_equal(counter.succession, held.digest, "succession").map_err(mismatch)?;
    demand_equal(held.succession.at_ms.unwrap_or(counter.at_ms), counter.at_ms, "at_ms").map_err(mismatch)?;
    offer.agency_keys.demand_since(statement, KeyRole::Signer).map_err(DossierError::Succession)?;
    Ok(counter)
}

fn verify_manifests(
    dossier: &Dossier,
    terms: &Terms,
    named: &[Digest],
) -> Result<Vec<(Digest, Manifest)>, DossierError> {
    let mut manifests: Vec<(Digest, Manifest)> = Vec::with_capacity(dossier.manifests.len());
    for bytes in &dossier.manifests {
        let digest = Digest::of(bytes);
        let seen = manifests.iter().any(|(held, _)| *held == digest);
        if seen || !(terms.model.builds.contains(&digest) || named.contains(&digest)) {
            return Err(DossierError::Manifest);
        }
        let manifest = Manifest::parse(bytes).map_err(|_| DossierError::Manifest)?;
        if manifest.lab != terms.lab.org || manifest.line != terms.model.line {
            return Err(DossierError::Manifest);
        }
        manifests.push((digest, manifest));
    }
    Ok(manifests)
}

impl VerifiedDossier {
    /// The manifests at hand, with their digests; each of a build that the terms or a succession name.
    #[must_use]
    pub fn manifests(&self) -> &[(Digest, Manifest)] {
        &self.builds.manifests
    }

    /// The manifest of this digest, if it is at hand.
    #[must_use]
    pub fn manifest(&self, digest: &Digest) -> Option<&Manifest> {
        self.manifests().iter().find(|(held, _)| held == digest).map(|(_, manifest)| manifest)
    }

    /// Successions with both signatures, oldest first.
    #[must_use]
    pub fn successions(&self) -> &[HeldSuccession] {
        &self.builds.taken
    }

    /// The succession that the lab offered and the agency has not countersigned.
    #[must_use]
    pub const fn offered_succession(&self) -> Option<&HeldSuccession> {
        self.builds.offered.as_ref()
    }

    fn changes(&self) -> impl Iterator<Item = Change> {
        self.builds.taken.iter().filter_map(|held| {
            let Succession { from, to, open_calls, .. } = held.succession;
            Some(Change { from, to, at: held.at?, open_calls })
        })
    }

    /// The builds that answer calls which are admitted at `at`, by terms and successions.
    #[must_use]
    pub fn builds_at(&self, at: At) -> Vec<Digest> {
        builds_at(&self.terms().model.builds, self.changes(), at)
    }

    /// The instant at which a call that `build` answers and that was admitted at `admitted` is cut by a change of builds.
    #[must_use]
    pub fn build_cut_at(&self, build: &Digest, admitted: At) -> Option<At> {
        cut_at(build, self.changes(), admitted)
    }

    /// The newest change of builds that is in force at `at`: behaviour may be another one since.
    #[must_use]
    pub fn changed(&self, at: At) -> Option<&HeldSuccession> {
        self.builds.taken.iter().rev().find(|held| held.at.is_some_and(|from| from <= at))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::{
        names::{GrantId, OrgId},
        rpc::Succeeded,
        statement::{
            envelope::{sign_claim, sign_json},
            succession::OpenCalls,
        },
    };

    use super::*;
    use crate::verify::{
        dossier::ClaimError,
        world::{Call, NOW, World, key, seed},
    };

    const T: i64 = NOW + 60_000;

    fn manifest(world: &World, change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
        let mut next = Manifest::parse(world.dossier.manifests.first().unwrap()).unwrap();
        next.build = "build-2".to_owned();
        change(&mut next);
        serde_json::to_vec(&next).unwrap()
    }

    fn succession(world: &World, to: &[u8]) -> Succession {
        Succession {
            grant: world.terms.grant,
            by: world.terms.lab.org.clone(),
            from: world.manifest,
            to: Digest::of(to),
            at_ms: None,
            open_calls: OpenCalls::Cut,
            previous: None,
            reason: "mends the tokenizer".to_owned(),
        }
    }

    fn counter(world: &World, succession: &SignedStatement) -> Countersignature {
        Countersignature {
            grant: world.terms.grant,
            by: world.terms.agency.org.clone(),
            succession: Digest::of(&succession.payload),
            at_ms: At::clamped(T),
        }
    }

    /// A world in which a build took another's place at [`T`], with what a forger changes.
    fn succeeded(
        build: impl FnOnce(&mut Manifest),
        lab: (impl FnOnce(&mut Succession), u8),
        agency: (impl FnOnce(&mut Countersignature), u8),
    ) -> World {
        let mut world = World::new();
        let next = manifest(&world, build);
        let mut succession = succession(&world, &next);
        (lab.0)(&mut succession);
        let succession = sign_json(&succession, &[&key(lab.1)]).unwrap();
        let mut counter = counter(&world, &succession);
        (agency.0)(&mut counter);
        let countersignature = sign_json(&counter, &[&key(agency.1)]).unwrap();
        world.dossier.manifests.push(next);
        world.dossier.successions =
            vec![Succeeded { succession: Some(succession), countersignature: Some(countersignature) }];
        world
    }

    fn verified(world: &World) -> Result<VerifiedDossier, DossierError> {
        VerifiedDossier::verify(&world.dossier, &world.pins)
    }

    #[test]
    fn a_build_takes_the_place_of_another_by_both_signatures_at_their_instant() {
        let world = succeeded(|_| {}, (|_| {}, seed::LAB_SIGNER), (|_| {}, seed::AGENCY_SIGNER));
        let dossier = verified(&world).unwrap();
        let next = dossier.successions().first().unwrap().succession.to;
        let (before, after) = (At::clamped(T - 1), At::clamped(T));
        assert_eq!(dossier.builds_at(before), [world.manifest]);
        assert_eq!(dossier.builds_at(after), [next]);
        assert_eq!(dossier.build_cut_at(&world.manifest, before), Some(after));
        assert_eq!(dossier.build_cut_at(&next, after), None);
        assert!(dossier.changed(before).is_none() && dossier.changed(after).is_some());
        assert_eq!(dossier.manifest(&next).unwrap().build, "build-2");

        let mut outcome = Call::new(&world).outcome;
        let said = |outcome: &_, at| {
            dossier.verify_outcome(&sign_claim(outcome, &key(seed::CONNECTOR)).unwrap(), at).map(|_| ())
        };
        assert_eq!(said(&outcome, before), Ok(()));
        assert!(matches!(said(&outcome, after), Err(ClaimError::Build(_))), "the build before answers nothing new");
        outcome.manifest_digest = next.as_bytes().to_vec();
        assert_eq!(said(&outcome, after), Ok(()));
        assert!(matches!(said(&outcome, before), Err(ClaimError::Build(_))), "nor the new one what is older");
    }

    #[test]
    fn an_operator_cannot_change_a_build_and_neither_can_one_side() {
        for (lab, agency) in [
            (seed::OPERATOR, seed::AGENCY_SIGNER),
            (seed::LAB_SIGNER, seed::OPERATOR),
            (seed::AGENCY_SIGNER, seed::AGENCY_SIGNER),
            (seed::LAB_SIGNER, seed::LAB_SIGNER),
            (seed::CONNECTOR, seed::AGENCY_SIGNER),
        ] {
            let world = succeeded(|_| {}, (|_| {}, lab), (|_| {}, agency));
            assert!(matches!(verified(&world), Err(DossierError::Succession(_))), "{lab} {agency}");
        }
        let mut world = succeeded(|_| {}, (|_| {}, seed::LAB_SIGNER), (|_| {}, seed::AGENCY_SIGNER));
        for succeeded in &mut world.dossier.successions {
            succeeded.countersignature = None;
        }
        assert_eq!(verified(&world).unwrap_err(), DossierError::SuccessionMismatch("countersignature"));
    }

    #[test]
    fn a_succession_names_what_it_follows_and_where_it_stands() {
        let other = Digest::of(b"another");
        let lab = |change: fn(&mut Succession)| {
            verified(&succeeded(|_| {}, (change, seed::LAB_SIGNER), (|_| {}, seed::AGENCY_SIGNER))).unwrap_err()
        };
        let mismatch = DossierError::SuccessionMismatch;
        assert_eq!(lab(|it| it.grant = GrantId::from_bytes([9; 16])), mismatch("grant"));
        assert_eq!(lab(|it| it.by = OrgId::parse("other").unwrap()), mismatch("by"));
        assert_eq!(lab(|it| it.previous = Some(Digest::of(b"one"))), mismatch("previous"));
        assert_eq!(lab(|it| it.from = Digest::of(b"one")), mismatch("from"));
        assert_eq!(lab(|it| it.to = it.from), mismatch("to"));
        assert_eq!(lab(|it| it.to = Digest::of(b"one")), DossierError::Manifest);
        assert_eq!(lab(|it| it.at_ms = Some(At::clamped(T + 1))), mismatch("at_ms"));
        let agency = |change: fn(&mut Countersignature)| {
            verified(&succeeded(|_| {}, (|_| {}, seed::LAB_SIGNER), (change, seed::AGENCY_SIGNER))).unwrap_err()
        };
        assert_eq!(agency(|it| it.grant = GrantId::from_bytes([9; 16])), mismatch("grant"));
        assert_eq!(agency(|it| it.by = OrgId::parse("other").unwrap()), mismatch("by"));
        assert_eq!(agency(|it| it.succession = Digest::of(b"another")), mismatch("succession"));
        let build = |change: fn(&mut Manifest)| {
            verified(&succeeded(change, (|_| {}, seed::LAB_SIGNER), (|_| {}, seed::AGENCY_SIGNER))).unwrap_err()
        };
        assert_eq!(build(|it| it.variants = vec!["helpful".parse().unwrap()]), mismatch("variants"));
        assert_eq!(build(|it| it.line = "other".parse().unwrap()), DossierError::Manifest);
        // The same succession twice follows itself, which it does not say.
        let mut world = succeeded(|_| {}, (|_| {}, seed::LAB_SIGNER), (|_| {}, seed::AGENCY_SIGNER));
        world.dossier.successions.extend_from_within(..);
        assert_eq!(verified(&world).unwrap_err(), mismatch("previous"));
        assert!(!world.terms.model.builds.contains(&other));
    }

    #[test]
    fn what_is_only_offered_changes_nothing() {
        let mut world = World::new();
        let next = manifest(&world, |_| {});
        let statement = sign_json(&succession(&world, &next), &[&key(seed::LAB_SIGNER)]).unwrap();
        world.dossier.offered_succession = Some(statement);
        assert_eq!(verified(&world).unwrap_err(), DossierError::Manifest, "whoever signs reads what the build is");
        world.dossier.manifests.push(next.clone());
        let dossier = verified(&world).unwrap();
        assert_eq!(dossier.offered_succession().unwrap().succession.to, Digest::of(&next));
        assert_eq!(dossier.builds_at(At::clamped(i64::MAX)), [world.manifest]);
        let statement = sign_json(&succession(&world, &next), &[&key(seed::OPERATOR)]).unwrap();
        world.dossier.offered_succession = Some(statement);
        assert!(matches!(verified(&world), Err(DossierError::Succession(_))));
    }
}
