//! Who may open what: from an organisation's entitlement to the fields of one record.
//!
//! **Invariant:** what nobody is named for stays closed. A record of the log itself names its parties in its own fields, so it
//! is asked record by record.

use anteroom_policy::{
    command::Now,
    decide::{self, Entitlement},
    event::{Entered, Event},
    state::State,
};
use anteroom_proto::{
    ledger::{record::Audience, scope::Scope},
    names::OrgId,
    statement::key_set::OrgKind,
};

/// An organisation that may read a scope.
#[derive(Clone, Debug)]
pub struct Reader {
    org: OrgId,
    entitlement: Entitlement,
    audience: Audience,
}

impl Reader {
    /// `org` as a reader of `scope` at this instant; `None` if it is none.
    #[must_use]
    pub fn of(state: &State, org: &OrgId, scope: &Scope, now: Now) -> Option<Self> {
        let entitlement = decide::entitlement(state, org, scope, now)?;
        let audience = match entitlement {
            Entitlement::Lab => Audience::LAB,
            Entitlement::Agency => Audience::AGENCY,
            Entitlement::Shared => Audience::ALL,
            Entitlement::Member => member(state, scope),
        };
        Some(Self { org: org.clone(), entitlement, audience })
    }

    /// How it is entitled: `member`, `lab`, `agency` or `shared`.
    #[must_use]
    pub const fn entitled_as(&self) -> &'static str {
        match self.entitlement {
            Entitlement::Member => "member",
            Entitlement::Lab => "lab",
            Entitlement::Agency => "agency",
            Entitlement::Shared => "shared",
        }
    }

    /// Whether it sees every field, hence gets seeds.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.entitlement == Entitlement::Shared
    }

    /// What it may open of a record of the scope.
    #[must_use]
    pub fn audience(&self, state: &State, entered: &Entered) -> Audience {
        match &entered.scope {
            Scope::System => of_the_log(state, &self.org, &entered.event),
            Scope::Organisation(_) | Scope::Roster(_) | Scope::Reads(_) | Scope::Grant(_) => self.audience,
        }
    }
}

/// What `org` may open of a record. The author of an act that is recorded in another's scope gets the public fields of it.
#[must_use]
pub fn audience(state: &State, org: &OrgId, entered: &Entered, now: Now) -> Audience {
    Reader::of(state, org, &entered.scope, now).map_or(Audience::SCOPE, |reader| reader.audience(state, entered))
}

/// An organisation's own scopes: everything in them is its own, its callers' names included. A reader that it appointed sees
/// the same.
fn member(state: &State, scope: &Scope) -> Audience {
    let owner = match scope {
        Scope::Organisation(owner) | Scope::Roster(owner) | Scope::Reads(owner) => owner,
        Scope::System | Scope::Grant(_) => return Audience::SCOPE,
    };
    let kind = state.standing().orgs.get(owner).map(|org| org.kind);
    let side = match kind {
        Some(OrgKind::Lab) => Audience::LAB,
        Some(OrgKind::Agency | OrgKind::Partner) => Audience::AGENCY,
        Some(OrgKind::Sponsor | OrgKind::Oversight | OrgKind::Operator) | None => {
            Audience { party: true, ..Audience::SCOPE }
        }
    };
    Audience { caller: true, ..side }
}

/// Everybody follows the log's own scope, so its records open for those whom they name, and for nobody else.
fn of_the_log(state: &State, org: &OrgId, event: &Event) -> Audience {
    let standing = state.standing();
    let made_by = |caller: &str| caller.split('/').next() == Some(org.as_str());
    match event {
        Event::ClockStarted { key, grant, .. } => {
            let member = standing.members.contains_key(&(key.sponsor.clone(), org.clone()));
            let party = key.lab == *org || key.sponsor == *org || member || standing.grant_of(grant, org).is_some();
            Audience { party, ..Audience::SCOPE }
        }
        Event::ActRefused { caller, .. } | Event::RefusalsCounted { caller, .. } => {
            Audience { caller: made_by(caller), ..Audience::SCOPE }
        }
        Event::CallRefused(refused) => Audience { caller: made_by(&refused.caller), ..Audience::SCOPE },
        Event::LogOpened { .. }
        | Event::BrokerStarted { .. }
        | Event::BrokerJoined { .. }
        | Event::BrokerGone { .. }
        | Event::LogKeySucceeded { .. }
        | Event::ClockChanged { .. }
        | Event::OrganisationEnrolled { .. }
        | Event::KeySetChanged { .. }
        | Event::MembershipStated { .. }
        | Event::ModelRegistered { .. }
        | Event::RosterPublished { .. }
        | Event::GrantOpened { .. }
        | Event::ReaderAppointed { .. }
        | Event::GrantOffered { .. }
        | Event::GrantAccepted { .. }
        | Event::GrantDeclined { .. }
        | Event::GrantLapsed { .. }
        | Event::GrantActivated { .. }
        | Event::GrantPaused { .. }
        | Event::GrantResumed { .. }
        | Event::GrantWithdrawn { .. }
        | Event::GrantRelinquished { .. }
        | Event::GrantExpired { .. }
        | Event::RunCredentialIssued { .. }
        | Event::LockSet { .. }
        | Event::LockLifted { .. }
        | Event::CallAdmitted(_)
        | Event::CallFinished(_)
        | Event::CallAbandoned { .. }
        | Event::CallSettled { .. }
        | Event::Snapshotted { .. }
        | Event::HoldSet { .. }
        | Event::HoldReleased { .. }
        | Event::RulesAdded { .. }
        | Event::WatchListSet { .. }
        | Event::SuccessionOffered(_)
        | Event::SuccessionCountersigned(_)
        | Event::LineBudgetSet { .. }
        | Event::ScannerLocked { .. }
        | Event::PromptsAlike(_)
        | Event::Presence(_)
        | Event::LineBudgetHit { .. }
        | Event::ContactsSet(_)
        | Event::NoticeSettled(_)
        | Event::Disposed(_)
        | Event::ReadOpened { .. } => Audience::SCOPE,
    }
}
