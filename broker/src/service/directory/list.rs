//! The models and locks that concern one organisation.

use std::{collections::BTreeSet, sync::Arc};

use anteroom_policy::{
    standing::{Grant, Model, OfferedSuccession, Standing, StandingLock},
    state::State,
};
use anteroom_proto::{
    names::{Digest, OrgId},
    rpc::{BudgetLine, LineBudgetSummary, LockSummary, ModelSummary, SuccessionSummary},
    statement::{acts::LockTarget, key_set::OrgKind, model::Manifest, terms::Terms},
    time::At,
};

use super::{REPLY_BYTES, is_party};

/// The builds that `org` registered or that a grant lets it use, by line, then by registration. Once the manifests fill a reply,
/// the rest comes by digest alone.
pub(super) fn models(standing: &Standing, org: &OrgId) -> Vec<ModelSummary> {
    let lent: BTreeSet<(&OrgId, Digest)> = standing
        .grants
        .values()
        .filter(|grant| grant.terms.agency.org == *org)
        .flat_map(|grant| builds(grant).into_iter().map(|build| (&grant.terms.lab.org, build)))
        .collect();
    let mut own: Vec<(&(OrgId, Digest), &Arc<Model>)> =
        standing.models.iter().filter(|((lab, digest), _)| lab == org || lent.contains(&(lab, *digest))).collect();
    own.sort_by_key(|((lab, _), model)| (lab.clone(), model.line.clone(), model.index));
    let mut bytes = 0_usize;
    let summary = |((lab, digest), model): (&(OrgId, Digest), &Arc<Model>)| {
        bytes = bytes.saturating_add(model.manifest.len());
        ModelSummary {
            lab: lab.to_string(),
            line: model.line.to_string(),
            manifest_digest: digest.as_bytes().to_vec(),
            manifest: if bytes > REPLY_BYTES { Vec::new() } else { model.manifest.to_vec() },
            registered_ms: model.at.ms(),
        }
    };
    own.into_iter().map(summary).collect()
}

/// Every build that a grant's terms or a succession under it name, each once.
pub(super) fn builds(grant: &Grant) -> Vec<Digest> {
    let mut builds = grant.terms.model.builds.clone();
    let successions = &grant.successions;
    let offered = successions.offered.iter().map(|offered| offered.succession.to);
    for build in successions.changes().map(|change| change.to).chain(offered) {
        if !builds.contains(&build) {
            builds.push(build);
        }
    }
    builds
}

/// Builds that took each other's place under a grant, oldest first, and at the end what is offered.
pub(super) fn successions(standing: &Standing, grant: &Grant) -> Vec<SuccessionSummary> {
    let told = |offered: &OfferedSuccession, at: Option<At>, countersigned: bool| {
        let succession = &offered.succession;
        let model = standing.models.get(&(succession.by.clone(), succession.to));
        let manifest = model.and_then(|model| Manifest::parse(&model.manifest).ok());
        SuccessionSummary {
            succession: offered.digest.as_bytes().to_vec(),
            from: succession.from.as_bytes().to_vec(),
            to: succession.to.as_bytes().to_vec(),
            at_ms: at.map_or(0, At::ms),
            open_calls: succession.open_calls.as_str().to_owned(),
            countersigned,
            build: manifest.map(|manifest| manifest.build).unwrap_or_default(),
            reason: succession.reason.clone(),
        }
    };
    let successions = &grant.successions;
    let taken = successions.countersigned.iter().map(|held| told(&held.offered, Some(held.change.at), true));
    taken.chain(successions.offered.iter().map(|held| told(held, held.succession.at_ms, false))).collect()
}

/// What a lab lets all grants of each of its lines use together; nobody else's business.
pub(super) fn line_budgets(state: &State, org: &OrgId) -> Vec<LineBudgetSummary> {
    let own = state.standing().line_budgets.iter().filter(|((lab, _), _)| lab == org);
    own.map(|((lab, line), bound)| {
        let usage = state.line_usage(lab, line);
        let budget = |name: &str, limit, settled, held| BudgetLine { name: name.to_owned(), limit, settled, held };
        LineBudgetSummary {
            line: line.to_string(),
            budgets: vec![
                budget("calls", bound.budget.calls, usage.settled_calls, usage.held_calls),
                budget("tokens", bound.budget.tokens, usage.settled_tokens, usage.held_tokens),
            ],
            statement: bound.digest.as_bytes().to_vec(),
        }
    })
    .collect()
}

/// The locks that `org` set or that hit something it is party to, oldest first.
pub(super) fn locks(standing: &Standing, org: &OrgId) -> Vec<LockSummary> {
    let grants: Vec<&Arc<Grant>> =
        standing.grants.values().filter(|grant| is_party(grant, org) && !grant.phase.is_final()).collect();
    let concerns = |held: &StandingLock| {
        let by = &held.lock.by;
        let by_operator = standing.orgs.get(by).is_some_and(|org| org.kind == OrgKind::Operator);
        by == org
            || (by_operator && names(&held.lock.target, org))
            || grants.iter().any(|grant| (by_operator || is_party(grant, by)) && hits(&held.lock.target, &grant.terms))
    };
    let mut own: Vec<&StandingLock> =
        standing.locks.values().map(AsRef::as_ref).filter(|held| concerns(held)).collect();
    own.sort_by_key(|held| held.index);
    own.into_iter()
        .map(|held| LockSummary {
            lock: held.lock.id.as_bytes().to_vec(),
            by: held.lock.by.to_string(),
            target: describe(&held.lock.target),
            at_ms: held.at.ms(),
            reason: held.lock.reason.clone(),
        })
        .collect()
}

fn names(target: &LockTarget, org: &OrgId) -> bool {
    match target {
        LockTarget::Organisation { org: named } | LockTarget::Person { org: named, .. } => named == org,
        LockTarget::Grant { .. }
        | LockTarget::Run { .. }
        | LockTarget::Employer { .. }
        | LockTarget::Line { .. }
        | LockTarget::NotUsPerson {}
        | LockTarget::NotUsOnly {}
        | LockTarget::Citizen { .. } => false,
    }
}

/// Whether a lock on `target` can hit a call under these terms, whoever makes it.
fn hits(target: &LockTarget, terms: &Terms) -> bool {
    match target {
        LockTarget::Grant { grant } | LockTarget::Run { grant, .. } => *grant == terms.grant,
        LockTarget::Person { org, .. } => *org == terms.agency.org,
        LockTarget::Organisation { org } => *org == terms.agency.org || *org == terms.lab.org,
        LockTarget::Line { line } => *line == terms.model.line,
        LockTarget::Employer { .. }
        | LockTarget::NotUsPerson {}
        | LockTarget::NotUsOnly {}
        | LockTarget::Citizen { .. } => true,
    }
}

fn describe(target: &LockTarget) -> String {
    match target {
        LockTarget::Grant { grant } => grant.to_string(),
        LockTarget::Run { grant, run } => format!("run {grant}/{run}"),
        LockTarget::Person { org, pseudonym } => format!("person {org}/{pseudonym}"),
        LockTarget::Employer { employer } => format!("employer {employer}"),
        LockTarget::Organisation { org } => format!("organisation {org}"),
        LockTarget::Line { line } => format!("line {line}"),
        LockTarget::NotUsPerson {} => "attribute us_person".to_owned(),
        LockTarget::NotUsOnly {} => "attribute us_only".to_owned(),
        LockTarget::Citizen { country } => format!("citizenship {country}"),
    }
}
