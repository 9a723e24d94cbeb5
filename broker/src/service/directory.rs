//! What the broker tells its members about themselves: who they are, their grants, models and locks.
//!
//! **Invariant:** everything is looked up in the newest durable state and names only what the caller's own organisation is party
//! to. What an organisation may not know of answers like what does not exist.

mod list;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anteroom_policy::{
    command::Now,
    decide::entitlement,
    event::ClockTrust,
    refusal::Refusal,
    rules,
    standing::{Grant, StandingSuccession},
    state::State,
};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{GrantId, ModelLine, OrgId},
    rpc::{
        BudgetLine, Dossier, EnrolReply, GetDossierRequest, GrantSummary, ListGrantsReply, ListGrantsRequest,
        ListLocksReply, ListLocksRequest, ListModelsReply, ListModelsRequest, LostTime, RenewRequest, Succeeded,
        WhoAmIReply, WhoAmIRequest, directory_server,
    },
};
use tonic::{Request, Response, Status};

use super::{caller::caller, enrolment::Registrar};
use crate::{
    identity::{Identity, Role},
    journal::Journal,
    status::Reject,
};

/// Most grants in one page.
pub const PAGE_GRANTS_MAX: usize = 500;
/// Grants in a page whose size was not asked for.
pub const PAGE_GRANTS: usize = 100;
/// Bytes of terms and manifests beyond which a reply takes no more, so that clients can decode it.
pub const REPLY_BYTES: usize = 3 << 20;

/// Whoever keeps the slots that labs' connectors hold open.
pub trait SlotCount: Send + Sync {
    /// How many slots are open for this line of this lab, idle or in use.
    fn slots(&self, lab: &OrgId, line: &ModelLine) -> u32;
}

/// The service. Cloning shares it.
#[derive(Clone)]
pub struct Directory {
    journal: Journal,
    registrar: Option<Registrar>,
    slots: Arc<dyn SlotCount>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Directory {
    /// Looks things up in `journal`. Without a `registrar` no certificates are renewed here.
    #[must_use]
    pub fn new(journal: Journal, registrar: Option<Registrar>, slots: Arc<dyn SlotCount>) -> Self {
        Self { journal, registrar, slots }
    }

    fn view(&self) -> View {
        View { state: self.journal.state(), now: self.journal.now(), slots: Arc::clone(&self.slots) }
    }

    fn who(&self, org: &OrgId, identity: &Identity) -> WhoAmIReply {
        let state = self.journal.state();
        let standing = state.standing();
        let held = standing.orgs.get(org);
        let now = self.journal.clock().now();
        // Calls pass while both hold: the clock is good, and the ledger says so.
        let clock = match standing.clock {
            ClockTrust::Trusted if now.trust.is_trusted() => "trusted",
            ClockTrust::Trusted | ClockTrust::Unconfirmed | ClockTrust::Suspended if !now.trust.is_trusted() => {
                now.trust.code()
            }
            ClockTrust::Trusted | ClockTrust::Unconfirmed => "clock_unconfirmed",
            ClockTrust::Suspended => "clock_suspended",
        };
        WhoAmIReply {
            identity: identity.principal.to_string(),
            org_kind: held.map(|org| org.kind.as_str().to_owned()).unwrap_or_default(),
            key_set: held.map(|org| org.fingerprint.as_bytes().to_vec()).unwrap_or_default(),
            log_key: standing.log_key.clone(),
            now_ms: now.at_ms,
            clock: clock.to_owned(),
            certificate_end_ms: identity.not_after_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            system_nonce: standing.nonce.map(|nonce| nonce.as_bytes().to_vec()).unwrap_or_default(),
        }
    }
}

/// What one request sees.
struct View {
    state: Arc<State>,
    now: Now,
    slots: Arc<dyn SlotCount>,
}

impl View {
    fn grants(&self, org: &OrgId, request: &ListGrantsRequest) -> Result<ListGrantsReply, Reject> {
        let limit = match request.limit {
            0 => PAGE_GRANTS,
            limit => usize::try_from(limit).unwrap_or(PAGE_GRANTS_MAX).min(PAGE_GRANTS_MAX),
        };
        let standing = self.state.standing();
        let before = if request.after.is_empty() {
            u64::MAX
        } else {
            let after = GrantId::from_slice(&request.after).map_err(|_| Refusal::GrantUnknown)?;
            standing.grant_of(&after, org).ok_or(Refusal::GrantUnknown)?.offered
        };
        let mut own: Vec<&Arc<Grant>> =
            standing.grants.values().filter(|grant| is_party(grant, org) && grant.offered < before).collect();
        own.sort_unstable_by_key(|grant| std::cmp::Reverse(grant.offered));
        let mut reply = ListGrantsReply::default();
        let mut bytes = 0_usize;
        for grant in own {
            bytes = bytes.saturating_add(grant.terms_bytes.len());
            if reply.grants.len() >= limit || (bytes > REPLY_BYTES && !reply.grants.is_empty()) {
                reply.more = true;
                break;
            }
            reply.grants.push(self.summary(grant));
        }
        Ok(reply)
    }

    fn summary(&self, grant: &Grant) -> GrantSummary {
        let terms = &grant.terms;
        let clock = self.state.standing().clock_of(terms);
        let window = grant.window.map(|_| grant.window_at(self.now.at, clock));
        GrantSummary {
            grant: terms.grant.as_bytes().to_vec(),
            phase: grant.standing(self.now.at, clock).to_owned(),
            lab: terms.lab.org.to_string(),
            agency: terms.agency.org.to_string(),
            line: terms.model.line.to_string(),
            start_ms: window.map_or(0, |window| window.start().ms()),
            end_ms: window.map_or(0, |window| window.end().ms()),
            terms_digest: grant.terms_digest.as_bytes().to_vec(),
            terms: grant.terms_bytes.to_vec(),
            budgets: self.budgets(&terms.grant),
            slots: self.slots.slots(&terms.lab.org, &terms.model.line),
            rules_digest: rules::digest_with(terms, &rules::Added::of(grant)).as_bytes().to_vec(),
            lost: Some(self.lost(&terms.grant)),
            watch_list: grant.watch.as_ref().map(|watch| watch.digest.as_bytes().to_vec()).unwrap_or_default(),
            builds: grant.builds_at(self.now.at).iter().map(|build| build.as_bytes().to_vec()).collect(),
            successions: list::successions(self.state.standing(), grant),
        }
    }

    fn lost(&self, grant: &GrantId) -> LostTime {
        let lost = self.state.lost_time(grant, self.now.at);
        LostTime {
            lab_offline_ms: lost.lab_offline_ms,
            paused_ms: lost.paused_ms,
            broker_down_ms: lost.broker_down_ms,
            lab_away: lost.away,
        }
    }

    fn budgets(&self, grant: &GrantId) -> Vec<BudgetLine> {
        let Some(accounts) = self.state.accounts(grant) else { return Vec::new() };
        let runs = accounts.runs.iter().map(|(run, account)| (format!("run/{run}/"), account));
        let all = std::iter::once((String::new(), &accounts.grant)).chain(runs);
        all.flat_map(|(prefix, account)| {
            let (limit, settled, held) = (account.limit(), account.settled(), account.held());
            let line =
                |name: &str, limit, settled, held| BudgetLine { name: format!("{prefix}{name}"), limit, settled, held };
            [
                line("calls", limit.calls, settled.0, held.0),
                line("tokens", limit.tokens, settled.1, held.1),
                line("streams", limit.open, 0, account.open()),
            ]
        })
        .collect()
    }

    /// Everything signed that a grant rests on, for its parties and the readers they appointed.
    fn dossier(&self, org: &OrgId, request: &GetDossierRequest) -> Result<Dossier, Reject> {
        let id = GrantId::from_slice(&request.grant).map_err(|_| Refusal::GrantUnknown)?;
        let standing = self.state.standing();
        let grant = standing.grants.get(&id).ok_or(Refusal::GrantUnknown)?;
        entitlement(&self.state, org, &Scope::Grant(id), self.now).ok_or(Refusal::GrantUnknown)?;
        let terms = &grant.terms;
        let versions = |org: &OrgId| standing.orgs.get(org).map(|org| org.versions.clone()).unwrap_or_default();
        let in_force = grant.credentials.values().filter(|held| self.now.at < held.credential.end_ms);
        let manifests = list::builds(grant).into_iter().filter_map(|build| {
            standing.models.get(&(terms.lab.org.clone(), build)).map(|model| model.manifest.to_vec())
        });
        let succeeded = |held: &Arc<StandingSuccession>| Succeeded {
            succession: Some(held.offered.statement.clone()),
            countersignature: Some(held.countersignature.clone()),
        };
        Ok(Dossier {
            terms: grant.terms_bytes.to_vec(),
            offer: Some(grant.offer.clone()),
            acceptance: grant.acceptance.clone(),
            lab_key_sets: versions(&terms.lab.org),
            agency_key_sets: versions(&terms.agency.org),
            roster: standing.rosters.get(&terms.roster).map(|published| published.statement.clone()),
            credentials: in_force.map(|held| held.statement.clone()).collect(),
            summary: Some(self.summary(grant)),
            policy: policy(grant),
            manifests: manifests.collect(),
            added_rules: grant.added.iter().map(|added| added.statement.clone()).collect(),
            successions: grant.successions.countersigned.iter().map(succeeded).collect(),
            offered_succession: grant.successions.offered.as_ref().map(|offered| offered.statement.clone()),
        })
    }
}

/// The rules in force under a grant, as text.
fn policy(grant: &Grant) -> String {
    let since = grant.added.iter().map(|added| added.narrowing.rules.as_str());
    let mut parts = vec![rules::BASELINE];
    parts.extend(std::iter::once(grant.terms.policy.additions.as_str()).chain(since).filter(|text| !text.is_empty()));
    parts.join("\n")
}

fn is_party(grant: &Grant, org: &OrgId) -> bool {
    grant.terms.lab.org == *org || grant.terms.agency.org == *org
}

#[tonic::async_trait]
impl directory_server::Directory for Directory {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIReply>, Status> {
        let (caller, id) = caller(&request, &Role::ALL, self.journal.now())?;
        Ok(Response::new(self.who(&id.org, caller.identity())))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolReply>, Status> {
        let (caller, _) = caller(&request, &Role::ALL, self.journal.now())?;
        let registrar = self.registrar.as_ref().ok_or(Reject::new(Refusal::CertificateNotOurs))?;
        let reply = registrar.renew(caller, request.into_inner().csr_der).await?;
        Ok(Response::new(reply))
    }

    async fn list_grants(&self, request: Request<ListGrantsRequest>) -> Result<Response<ListGrantsReply>, Status> {
        let (_, id) = caller(&request, &Role::ALL, self.journal.now())?;
        let reply = self.view().grants(&id.org, request.get_ref())?;
        Ok(Response::new(reply))
    }

    async fn get_dossier(&self, request: Request<GetDossierRequest>) -> Result<Response<Dossier>, Status> {
        let (_, id) = caller(&request, &Role::ALL, self.journal.now())?;
        let reply = self.view().dossier(&id.org, request.get_ref())?;
        Ok(Response::new(reply))
    }

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsReply>, Status> {
        let (_, id) = caller(&request, &Role::ALL, self.journal.now())?;
        let state = self.journal.state();
        let models = list::models(state.standing(), &id.org);
        Ok(Response::new(ListModelsReply { models, line_budgets: list::line_budgets(&state, &id.org) }))
    }

    async fn list_locks(&self, request: Request<ListLocksRequest>) -> Result<Response<ListLocksReply>, Status> {
        let (_, id) = caller(&request, &Role::ALL, self.journal.now())?;
        Ok(Response::new(ListLocksReply { locks: list::locks(self.journal.state().standing(), &id.org) }))
    }
}
