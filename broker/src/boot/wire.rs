//! Joins the services to what they serve.

use std::sync::Arc;

use anteroom_proto::{
    names::{GrantId, ModelLine, OrgId},
    rpc::{
        acts_server::ActsServer, audit_server::AuditServer, directory_server::DirectoryServer,
        enrolment_server::EnrolmentServer,
    },
    time::At,
};
use tonic::service::Routes;

use super::peers::Peers;
use crate::{
    book::published::Published,
    index::Index,
    journal::Journal,
    ops::Source,
    pki::token::TokenStore,
    relay::{Relay, times},
    retention::Retention,
    service::{
        acts::{Acts, Cut, Cutter},
        audit::Audit,
        directory::{Directory, SlotCount},
        enrolment::{Enrolment, Registrar},
        inference::InferenceService,
        serving::ServingService,
        shown::Shown,
    },
    telemetry::Exposition,
    witness::Witnesses,
};

/// What the services stand on.
pub(super) struct Services {
    pub(super) journal: Journal,
    pub(super) relay: Arc<Relay>,
    pub(super) index: Index,
    pub(super) registrar: Registrar,
    pub(super) tokens: Arc<TokenStore>,
    pub(super) published: Arc<Published>,
    pub(super) witnesses: Witnesses,
    pub(super) shown: Shown,
    pub(super) retention: Retention,
    pub(super) peers: Option<Peers>,
}

/// The services of both doors, and what they measure.
pub(super) struct Wired {
    pub(super) programme: Routes,
    pub(super) enrolment: Routes,
    pub(super) sources: Vec<Source>,
}

impl Services {
    pub(super) fn wire(self) -> Wired {
        let Self { journal, relay, index, registrar, tokens, published, witnesses, shown, retention, peers } = self;
        let behind = Arc::new(Behind(Arc::clone(&relay)));
        let acts = Acts::new(journal.clone(), Arc::<Behind>::clone(&behind))
            .retaining(retention)
            .reaching(peers.map(|peers| Arc::new(peers) as Arc<_>));
        let directory = Directory::new(journal.clone(), Some(registrar.clone()), behind);
        let programme = Routes::default()
            .add_service(ActsServer::new(acts.clone()))
            .add_service(DirectoryServer::new(directory))
            .add_service(AuditServer::new(Audit::new(journal, index.clone(), Arc::clone(&published), shown.clone())))
            .add_service(InferenceService::server(Arc::clone(&relay)))
            .add_service(ServingService::server(Arc::clone(&relay), shown));
        let enrolment = Routes::default().add_service(EnrolmentServer::new(Enrolment::new(registrar, tokens)));
        let sources: Vec<Source> = vec![
            Box::new(move |text| relay_metrics(&relay, text)),
            Box::new(move |text| {
                text.gauge(
                    "anteroom_unrecorded_ends",
                    "Ends that stand cut and are not on record yet.",
                    acts.unrecorded_ends(),
                );
            }),
            Box::new(move |text| index_metrics(&index, text)),
            Box::new(move |text| witnesses.metrics(&published, text)),
        ];
        Wired { programme, enrolment, sources }
    }
}

/// The relay, as the services that cut and count know it.
struct Behind(Arc<Relay>);

impl Cutter for Behind {
    fn cut(&self, cut: &Cut, at: At) {
        self.0.cut_grant(cut.grant, cut.refusal, at);
    }

    fn restore(&self, cut: &Cut) {
        self.0.reopen(cut.grant);
    }

    fn judge_again(&self, grant: &GrantId) {
        let cut = self.0.judge_again(grant);
        tracing::info!(%grant, cut, "open streams were judged by added rules");
    }
}

impl SlotCount for Behind {
    fn slots(&self, lab: &OrgId, line: &ModelLine) -> u32 {
        u32::try_from(self.0.slots().open(lab, line)).unwrap_or(u32::MAX)
    }
}

fn relay_metrics(relay: &Relay, text: &mut Exposition) {
    let counts = relay.slots().counts();
    let open: usize = counts.iter().map(|(_, _, open, _)| open).sum();
    let idle: usize = counts.iter().map(|(_, _, _, idle)| idle).sum();
    text.gauge("anteroom_slots_open", "Slots that connectors hold open.", open);
    text.gauge("anteroom_slots_idle", "Slots that wait for a call.", idle);
    let times = relay.cut_times();
    let mut histogram = |name: &str, help: &str, histogram: &times::Histogram| {
        let buckets: Vec<(u64, u64)> = times::BUCKETS_US.into_iter().zip(histogram.buckets()).collect();
        text.histogram(name, help, &buckets, histogram.count(), histogram.sum_us());
    };
    histogram("anteroom_cut_handed_seconds", "From closing a gate to the last byte handed to HTTP/2.", &times.handed);
    histogram("anteroom_cut_told_seconds", "From closing a gate to the end of the caller's stream.", &times.told);
}

fn index_metrics(index: &Index, text: &mut Exposition) {
    let (indexed, size) = index.progress();
    text.gauge("anteroom_index_records", "Records that searches find.", indexed);
    text.gauge("anteroom_index_lag_records", "Records that searches do not find yet.", size.saturating_sub(indexed));
    text.gauge("anteroom_index_down", "Whether the index is broken for good.", u8::from(index.is_down()));
}
