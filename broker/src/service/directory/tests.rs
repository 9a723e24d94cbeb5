//! What each member is told, from a real journal.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use anteroom_proto::{
    names::Digest,
    statement::acts::{LockTarget, StopKind},
    time::HOUR_MS,
};

use super::{directory_server::Directory as _, *};
use crate::{
    entropy::SystemEntropy,
    identity::TrustDomain,
    pki::ca::{Ca, ClientLifetime},
    testing::{LINE, PSEUDONYM, Party, RUN, START_MS, World, done, random},
};

/// Three slots of every line.
struct Three;

impl SlotCount for Three {
    fn slots(&self, _: &OrgId, line: &ModelLine) -> u32 {
        if line.as_str() == LINE { 3 } else { 0 }
    }
}

fn service(world: &World) -> Directory {
    let domain = TrustDomain::new("broker.test").unwrap();
    let ca = Arc::new(Ca::create(&domain, START_MS, &mut SystemEntropy::new()).unwrap());
    let roots = crate::service::enrolment::Roots::new(|| "roots".into());
    let registrar = Registrar::new(ca, ClientLifetime::default(), roots, Arc::clone(&world.clock));
    Directory::new(world.journal.clone(), Some(registrar), Arc::new(Three))
}

fn request<T>(party: &Party, body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.extensions_mut().insert(party.conn(Role::Person, "alice"));
    request
}

fn code(status: &Status) -> &str {
    status.metadata().get(crate::status::CODE_KEY).unwrap().to_str().unwrap()
}

async fn grants(directory: &Directory, party: &Party, body: ListGrantsRequest) -> ListGrantsReply {
    directory.list_grants(request(party, body)).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_member_learns_who_it_is_and_what_to_pin() {
    let world = World::new().await;
    let who = service(&world).who_am_i(request(&world.lab, WhoAmIRequest {})).await.unwrap().into_inner();
    assert_eq!(
        (who.identity.as_str(), who.org_kind.as_str(), who.clock.as_str()),
        ("acme/person/alice", "lab", "trusted")
    );
    assert_eq!(who.key_set, world.lab.fingerprint().as_bytes());
    assert_eq!(who.log_key, world.log.verifier().to_string());
    assert_eq!(who.system_nonce, world.system_nonce.as_bytes());
    assert_eq!(who.now_ms, START_MS);

    let newcomer = Party::new("newcomer", anteroom_proto::statement::key_set::OrgKind::Lab);
    let who = service(&world).who_am_i(request(&newcomer, WhoAmIRequest {})).await.unwrap().into_inner();
    assert_eq!((who.org_kind.as_str(), who.key_set.len()), ("", 0));
    world.time.step_wall(-60_000);
    let who = service(&world).who_am_i(request(&world.lab, WhoAmIRequest {})).await.unwrap().into_inner();
    assert_eq!(who.clock, "clock_went_back");
}

#[tokio::test]
async fn grants_come_newest_first_page_by_page_and_only_ones_own() {
    let world = World::new().await;
    let mut offered = Vec::new();
    for _ in 0..5 {
        offered.push(world.offer(|_| {}).await.0.as_bytes().to_vec());
    }
    offered.reverse();
    let directory = service(&world);
    let first = grants(&directory, &world.agency, ListGrantsRequest { limit: 2, after: Vec::new() }).await;
    let after = first.grants.last().unwrap().grant.clone();
    let rest = grants(&directory, &world.agency, ListGrantsRequest { limit: 0, after }).await;
    assert_eq!((first.more, rest.more), (true, false));
    let listed: Vec<_> = first.grants.iter().chain(&rest.grants).map(|grant| grant.grant.clone()).collect();
    assert_eq!(listed, offered);
    let none = grants(&directory, &world.overseer, ListGrantsRequest::default()).await;
    assert_eq!(none, ListGrantsReply::default());
    let foreign = ListGrantsRequest { limit: 0, after: offered.first().unwrap().clone() };
    let status = directory.list_grants(request(&world.overseer, foreign)).await.unwrap_err();
    assert_eq!(code(&status), "grant_unknown");
}

#[tokio::test]
async fn a_grants_standing_follows_time_and_acts() {
    let (world, access) = World::granted_with(|terms| {
        terms["window"]["start_ms"] = (START_MS + HOUR_MS).into();
        terms["window"]["term_ms"] = HOUR_MS.into();
    })
    .await;
    let directory = service(&world);
    let summary = async || grants(&directory, &world.lab, ListGrantsRequest::default()).await.grants.pop().unwrap();
    let active = summary().await;
    assert_eq!((active.phase.as_str(), active.slots), ("active", 3));
    assert_eq!((active.start_ms, active.end_ms), (START_MS + HOUR_MS, START_MS + 2 * HOUR_MS));
    assert_eq!(Digest::of(&active.terms).as_bytes().as_slice(), active.terms_digest);
    let lines: Vec<_> = active.budgets.iter().map(|line| line.name.clone()).collect();
    let run = |name: &str| format!("run/{RUN}/{name}");
    assert_eq!(
        lines,
        ["calls".to_owned(), "tokens".to_owned(), "streams".to_owned(), run("calls"), run("tokens"), run("streams")]
    );
    world.time.advance(HOUR_MS);
    let pause = world.stop(&world.agency, access.grant, StopKind::Pause);
    done(world.act(&world.agency, pause, &[]).await);
    assert_eq!(summary().await.phase, "paused");
    world.time.advance(HOUR_MS);
    assert_eq!(summary().await.phase, "expired", "no record is needed for that");
}

#[tokio::test]
async fn a_dossier_is_for_parties_and_appointed_readers_alone() {
    let (world, access) = World::granted().await;
    let directory = service(&world);
    let ask = |party: &Party| request(party, GetDossierRequest { grant: access.grant.as_bytes().to_vec() });
    let dossier = directory.get_dossier(ask(&world.lab)).await.unwrap().into_inner();
    assert_eq!(dossier.terms, access.terms_bytes.to_vec());
    assert_eq!((dossier.offer, dossier.acceptance), (Some(access.offer.clone()), Some(access.acceptance.clone())));
    assert_eq!(
        (dossier.lab_key_sets, dossier.agency_key_sets),
        (vec![world.lab.key_set.clone()], vec![world.agency.key_set.clone()])
    );
    assert_eq!(Digest::of(&dossier.roster.unwrap().payload), world.roster);
    assert_eq!((dossier.credentials.len(), dossier.policy.as_str()), (1, rules::BASELINE));
    assert_eq!(dossier.manifests, [world.manifest_bytes.to_vec()]);
    assert_eq!(dossier.summary.unwrap().phase, "accepted");

    let refused = directory.get_dossier(ask(&world.overseer)).await.unwrap_err();
    let unknown = GetDossierRequest { grant: random::<16>().to_vec() };
    let unknown = directory.get_dossier(request(&world.overseer, unknown)).await.unwrap_err();
    assert_eq!(
        (code(&refused), refused.message()),
        (code(&unknown), unknown.message()),
        "nobody learns that it exists"
    );
    assert_eq!(code(&refused), "grant_unknown");
    let appointment = anteroom_proto::statement::acts::Appointment {
        by: world.agency.org.clone(),
        reader: world.overseer.org.clone(),
        grant: Some(access.grant),
        until_ms: world.now().plus_ms(HOUR_MS),
    };
    done(world.act(&world.agency, world.agency.signed(&appointment), &[]).await);
    assert!(directory.get_dossier(ask(&world.overseer)).await.is_ok());
    world.time.advance(73 * HOUR_MS);
    let later = directory.get_dossier(ask(&world.lab)).await.unwrap().into_inner();
    assert_eq!(later.credentials.len(), 0, "the credential has ended");
    assert_eq!(code(&directory.get_dossier(ask(&world.overseer)).await.unwrap_err()), "grant_unknown");
}

#[tokio::test]
async fn models_are_listed_for_their_lab_and_for_whom_they_are_lent_to() {
    let world = World::new().await;
    let directory = service(&world);
    let list = async |party: &Party| {
        let reply = directory.list_models(request(party, ListModelsRequest {})).await.unwrap();
        reply.into_inner().models.into_iter().map(|model| (model.line, model.manifest)).collect::<Vec<_>>()
    };
    let model = vec![(LINE.to_owned(), world.manifest_bytes.to_vec())];
    assert_eq!((list(&world.lab).await, list(&world.agency).await), (model.clone(), Vec::new()));
    world.grant(|_| {}).await;
    assert_eq!((list(&world.agency).await, list(&world.overseer).await), (model, Vec::new()));
}

#[tokio::test]
async fn locks_are_listed_for_whom_they_concern() {
    let (world, access) = World::granted().await;
    let directory = service(&world);
    let list = async |party: &Party| {
        let reply = directory.list_locks(request(party, ListLocksRequest {})).await.unwrap();
        reply.into_inner().locks.into_iter().map(|lock| (lock.by, lock.target)).collect::<Vec<_>>()
    };
    let person = LockTarget::Person { org: world.agency.org.clone(), pseudonym: PSEUDONYM.parse().unwrap() };
    done(world.act(&world.lab, world.lock(&world.lab, person), &[]).await);
    let lock = world.lock(&world.operator, LockTarget::Organisation { org: world.overseer.org.clone() });
    done(world.act(&world.operator, lock, &[]).await);
    done(world.act(&world.agency, world.lock(&world.agency, LockTarget::NotUsPerson {}), &[]).await);
    // A lock by somebody without any grant hits nobody and is nobody's concern.
    let idle = LockTarget::Person { org: world.agency.org.clone(), pseudonym: PSEUDONYM.parse().unwrap() };
    done(world.act(&world.overseer, world.lock(&world.overseer, idle), &[]).await);

    let by = |by: &str, target: &str| (by.to_owned(), target.to_owned());
    let shared = [by("acme", "person aisi/p-1"), by("aisi", "attribute us_person")];
    assert_eq!(list(&world.lab).await, shared);
    assert_eq!(list(&world.agency).await, shared);
    assert_eq!(list(&world.operator).await, [by("operator", "organisation overseer")]);
    assert_eq!(
        list(&world.overseer).await,
        [by("operator", "organisation overseer"), by("overseer", "person aisi/p-1")]
    );
    let stop = world.stop(&world.lab, access.grant, StopKind::Withdraw);
    done(world.act(&world.lab, stop, &[]).await);
    assert_eq!(list(&world.agency).await, [by("aisi", "attribute us_person")], "the grant that it concerned is over");
}

#[tokio::test]
async fn a_renewed_certificate_names_the_same_identity() {
    let world = World::new().await;
    let directory = service(&world);
    let csr = rcgen::CertificateParams::default().serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let ask = |csr_der: Vec<u8>| request(&world.lab, RenewRequest { csr_der });
    let reply = directory.renew(ask(csr.der().to_vec())).await.unwrap().into_inner();
    assert_eq!(reply.identity, "acme/person/alice");
    assert!(reply.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----") && !reply.roots_pem.is_empty());
    assert_eq!(reply.not_after_ms, START_MS + 24 * HOUR_MS);
    assert_eq!(code(&directory.renew(ask(b"nonsense".to_vec())).await.unwrap_err()), "csr_invalid");
}
