//! Which decisions read outside their own scope, and which of them shape what stands.

use super::{Dep, Event};

impl Event {
    /// What the decision read outside its record's scope.
    pub fn deps_mut(&mut self) -> Vec<&mut Dep> {
        if let Self::CallAdmitted(call) = self {
            return vec![&mut call.lab, &mut call.agency, &mut call.roster, &mut call.system];
        }
        if let Self::GrantActivated { clock, .. } = self {
            return vec![clock];
        }
        Vec::new()
    }

    /// Whether it shapes what stands by acts; everything else only moves budgets and calls, or nothing.
    #[must_use]
    pub const fn is_act(&self) -> bool {
        match self {
            Self::LogOpened { .. }
            | Self::BrokerJoined { .. }
            | Self::BrokerGone { .. }
            | Self::LogKeySucceeded { .. }
            | Self::ClockChanged { .. }
            | Self::ClockStarted { .. }
            | Self::OrganisationEnrolled { .. }
            | Self::KeySetChanged { .. }
            | Self::MembershipStated { .. }
            | Self::ModelRegistered { .. }
            | Self::RosterPublished { .. }
            | Self::ReaderAppointed { .. }
            | Self::GrantOffered { .. }
            | Self::GrantAccepted { .. }
            | Self::GrantDeclined { .. }
            | Self::GrantLapsed { .. }
            | Self::GrantActivated { .. }
            | Self::GrantPaused { .. }
            | Self::GrantResumed { .. }
            | Self::GrantWithdrawn { .. }
            | Self::GrantRelinquished { .. }
            | Self::GrantExpired { .. }
            | Self::RunCredentialIssued { .. }
            | Self::LockSet { .. }
            | Self::LockLifted { .. }
            | Self::HoldSet { .. }
            | Self::HoldReleased { .. }
            | Self::RulesAdded { .. }
            | Self::WatchListSet { .. }
            | Self::LineBudgetSet { .. }
            | Self::ScannerLocked { .. }
            | Self::Presence(_)
            | Self::SuccessionOffered(_)
            | Self::SuccessionCountersigned(_)
            | Self::ContactsSet(_)
            | Self::Disposed(_) => true,
            Self::BrokerStarted { .. }
            | Self::Snapshotted { .. }
            | Self::GrantOpened { .. }
            | Self::ActRefused { .. }
            | Self::CallAdmitted(_)
            | Self::CallRefused(_)
            | Self::RefusalsCounted { .. }
            | Self::CallFinished(_)
            | Self::CallAbandoned { .. }
            | Self::CallSettled { .. }
            | Self::PromptsAlike(_)
            | Self::LineBudgetHit { .. }
            | Self::NoticeSettled(_)
            | Self::ReadOpened { .. } => false,
        }
    }
}
