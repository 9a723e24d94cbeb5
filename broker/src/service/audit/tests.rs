//! Reading the ledger through the service, as each reader sees it.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_policy::{
    claim::ReadClaim,
    command::CallCommand,
    event::Event,
    judge::{Judgement, Verdict},
    rules,
};
use anteroom_proto::{
    ledger::{
        leaf::Entry,
        note::Note,
        receipt::{VerifiedRecord, verify_proven},
        record::{Record, Seed},
        scope::TagKey,
        tree::{EMPTY_ROOT, Frontier, leaf_hash, verify_consistency},
    },
    names::Digest,
    rpc::{CallAdmitted, ClockStarted, RosterPublished},
    statement::{
        acts::{Appointment, StopKind},
        envelope::sign_json,
    },
    time::{At, HOUR_MS},
};
use tokio_stream::StreamExt as _;

use super::{audit_server::Audit as _, *};
use crate::testing::{Access, Party, World, chat, done, refused};

/// No alarm is expected.
pub(super) fn quiet(world: &World) -> Shown {
    Shown::new(world.journal.clone(), Arc::new(|_| {}))
}

struct Desk {
    world: World,
    access: Access,
    audit: Audit,
}

/// A world with a grant, an admitted call, and an index that follows.
async fn desk() -> Desk {
    let (world, access) = World::granted().await;
    admit(&world, &access).await;
    let index = Index::open(&world.folder.path().join("index"), &world.journal);
    let audit = Audit::new(world.journal.clone(), index, Arc::default(), quiet(&world));
    Desk { world, access, audit }
}

async fn admit(world: &World, access: &Access) {
    let request = world.call(access, "chat/completions", &chat(false));
    let standing = world.journal.standing();
    let held = standing.grants.get(&access.grant).unwrap().credentials.get(&access.credential).unwrap().clone();
    let body_key = request.body_key.as_slice().try_into().unwrap();
    let claim = ReadClaim::read(request.claim.unwrap()).unwrap().verify(&held, &request.body, &body_key).unwrap();
    let judgement =
        Judgement { policy_digest: rules::digest(&access.terms), verdict: Verdict::Allow, reasons: Vec::new() };
    let command = CallCommand {
        caller: world.agency.caller(Role::Workload, "w-1"),
        claim,
        body_key,
        facts: b"facts".as_slice().into(),
        judgement,
        judged_by: Digest::of(&access.terms_bytes),
        scanner_locks: false,
        hold: 100,
        slot: true,
        build: None,
    };
    let committed = world.journal.submit(Command::Call(Box::new(command))).await.unwrap();
    assert!(matches!(committed.reply, Reply::Admitted { .. }), "{:?}", committed.reply);
}

fn request<T>(party: &Party, body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.extensions_mut().insert(party.conn(Role::Auditor, "reader"));
    request
}

fn whole(scope: &Scope) -> ReadRequest {
    ReadRequest { scope: scope.to_bytes(), ..ReadRequest::default() }
}

async fn read(audit: &Audit, party: &Party, body: ReadRequest) -> Result<Vec<ReadReply>, Status> {
    audit.read(request(party, body)).await?.into_inner().collect().await
}

fn code(status: &Status) -> &str {
    status.metadata().get(crate::status::CODE_KEY).unwrap().to_str().unwrap()
}

/// Verifies a slice from its first record on: tag, digest, inclusion, one checkpoint, each record following the one before.
fn verified(world: &World, scope: &Scope, replies: &[ReadReply]) -> Vec<VerifiedRecord> {
    let key = TagKey::from_slice(&replies.first().unwrap().tag_key).unwrap();
    let mut prev = Entry::NONE;
    let mut out = Vec::new();
    for (reply, seq) in replies.iter().zip(0..) {
        let record = verify_proven(reply.record.as_ref().unwrap(), &world.trust(), &key).unwrap();
        assert_eq!((record.header().seq, record.scope(), record.prev()), (seq, scope, &prev));
        assert_eq!(
            reply.record.as_ref().unwrap().checkpoint,
            replies.first().unwrap().record.as_ref().unwrap().checkpoint
        );
        prev = *record.entry();
        out.push(record);
    }
    out
}

fn admission(records: &[VerifiedRecord]) -> &VerifiedRecord {
    records.iter().find(|record| record.header().kind == 40).unwrap()
}

#[tokio::test]
async fn each_party_reads_its_own_fields_of_the_same_records() {
    let Desk { world, access, audit } = desk().await;
    let scope = Scope::Grant(access.grant);
    let records = world.journal.state().scope(&scope).unwrap().next_seq;
    let by_lab = verified(&world, &scope, &read(&audit, &world.lab, whole(&scope)).await.unwrap());
    let by_agency = verified(&world, &scope, &read(&audit, &world.agency, whole(&scope)).await.unwrap());
    assert_eq!((by_lab.len() as u64, by_agency.len() as u64), (records, records));
    for (lab, agency) in by_lab.iter().zip(&by_agency) {
        assert_eq!(lab.entry(), agency.entry());
    }
    let lab: CallAdmitted = admission(&by_lab).opened().event().unwrap();
    let agency: CallAdmitted = admission(&by_agency).opened().event().unwrap();
    assert_eq!((lab.body_key.len(), agency.body_key.len()), (0, 32));
    assert_eq!((lab.lab.is_some(), lab.agency.is_some(), lab.roster.is_some()), (true, false, false));
    assert_eq!((agency.lab.is_some(), agency.agency.is_some()), (false, true));
    assert_eq!(lab.facts, b"facts");
}

#[tokio::test]
async fn a_reader_that_both_parties_appointed_reads_everything_until_the_appointment_ends() {
    let Desk { world, access, audit } = desk().await;
    let scope = Scope::Grant(access.grant);
    let until = world.now().plus_ms(HOUR_MS);
    appoint(&world, &world.lab, &access, until).await;
    let as_lab = read(&audit, &world.overseer, whole(&scope)).await.unwrap();
    let seen: CallAdmitted = admission(&verified(&world, &scope, &as_lab)).opened().event().unwrap();
    assert_eq!((seen.body_key.len(), as_lab.iter().any(|reply| !reply.seed.is_empty())), (0, false));

    appoint(&world, &world.agency, &access, until).await;
    let replies = read(&audit, &world.overseer, whole(&scope)).await.unwrap();
    let records = verified(&world, &scope, &replies);
    let seen: CallAdmitted = admission(&records).opened().event().unwrap();
    assert_eq!(seen.body_key.len(), 32);
    for (reply, record) in replies.iter().zip(&records) {
        let full = Record::parse(reply.full.clone()).unwrap();
        let key = access.tag_key();
        assert_eq!(full.entry(&Seed::from_slice(&reply.seed).unwrap(), &key), *record.entry());
    }
    world.time.advance(HOUR_MS);
    let status = read(&audit, &world.overseer, whole(&scope)).await.unwrap_err();
    assert_eq!(code(&status), "reader_not_entitled");
}

#[tokio::test]
async fn an_oversight_key_opens_its_owners_fields_alone_and_the_others_take_its_consent() {
    let Desk { world, access, audit } = desk().await;
    let scope = Scope::Grant(access.grant);
    let until_ms = world.now().plus_ms(HOUR_MS);
    let opened = |by: &Party, grant| {
        let appointment = Appointment { by: by.org.clone(), reader: world.overseer.org.clone(), grant, until_ms };
        sign_json(&appointment, &[&by.oversight]).unwrap()
    };
    // Its organisation's own scope is the signers' to open, and another organisation's key opens nothing.
    for not_its in [opened(&world.agency, None), opened(&world.lab, Some(access.grant))] {
        assert!(refused(&world.act(&world.agency, not_its, &[]).await).is_some());
    }

    done(world.act(&world.agency, opened(&world.agency, Some(access.grant)), &[]).await);
    let seen = |replies: &[ReadReply]| -> (usize, bool) {
        let record: CallAdmitted = admission(&verified(&world, &scope, replies)).opened().event().unwrap();
        (record.body_key.len(), replies.iter().any(|reply| !reply.seed.is_empty()))
    };
    assert_eq!(
        seen(&read(&audit, &world.overseer, whole(&scope)).await.unwrap()),
        (32, false),
        "the agency's, and no seed"
    );

    done(world.act(&world.lab, opened(&world.lab, Some(access.grant)), &[]).await);
    assert!(seen(&read(&audit, &world.overseer, whole(&scope)).await.unwrap()).1, "both owners opened theirs");
}

async fn appoint(world: &World, by: &Party, access: &Access, until_ms: At) {
    let appointment =
        Appointment { by: by.org.clone(), reader: world.overseer.org.clone(), grant: Some(access.grant), until_ms };
    done(world.act(by, by.signed(&appointment), &[]).await);
}

#[tokio::test]
async fn strangers_are_refused_on_the_record() {
    let Desk { world, access, audit } = desk().await;
    let foreign = [
        Scope::Grant(access.grant),
        Scope::Roster(world.agency.org.clone()),
        Scope::Organisation(world.agency.org.clone()),
        Scope::Reads(world.agency.org.clone()),
    ];
    for scope in foreign {
        let status = read(&audit, &world.overseer, whole(&scope)).await.unwrap_err();
        assert_eq!(code(&status), "reader_not_entitled", "{scope}");
        let own = Scope::Organisation(world.overseer.org.clone());
        let index = world.journal.state().scope(&own).unwrap().index;
        let sealed = world.journal.read(index, index + 1).unwrap().pop().unwrap();
        let Event::ActRefused { code, payload_type, .. } = &sealed.entered.event else { unreachable!() };
        assert_eq!((code.as_str(), payload_type.as_str()), ("reader_not_entitled", "read"));
    }
    let roster = Scope::Roster(world.agency.org.clone());
    assert_eq!(code(&read(&audit, &world.lab, whole(&roster)).await.unwrap_err()), "reader_not_entitled");
    let nowhere = ReadRequest { scope: vec![9], ..ReadRequest::default() };
    assert_eq!(code(&read(&audit, &world.lab, nowhere).await.unwrap_err()), "scope_invalid");
}

#[tokio::test]
async fn a_rosters_private_part_is_its_agencys_alone() {
    let Desk { world, audit, .. } = desk().await;
    let scope = Scope::Roster(world.agency.org.clone());
    let records = verified(&world, &scope, &read(&audit, &world.agency, whole(&scope)).await.unwrap());
    let roster: RosterPublished = records.first().unwrap().opened().event().unwrap();
    assert!(String::from_utf8(roster.private).unwrap().contains("A. Person"));
}

#[tokio::test]
async fn clocks_in_the_logs_own_scope_open_for_their_parties_alone() {
    let Desk { world, audit, .. } = desk().await;
    for (party, opens) in [(&world.lab, true), (&world.agency, true), (&world.overseer, false)] {
        let replies = read(&audit, party, whole(&Scope::System)).await.unwrap();
        let records = verified(&world, &Scope::System, &replies);
        let clock = records.iter().find(|record| record.header().kind == 4).unwrap();
        let event: ClockStarted = clock.opened().event().unwrap();
        assert_eq!(!event.line.is_empty(), opens, "{}", party.org);
    }
}

#[tokio::test]
async fn a_session_is_on_record_before_its_first_record_leaves() {
    let Desk { world, access, audit } = desk().await;
    let scope = Scope::Grant(access.grant);
    let body = ReadRequest { from_seq: 1, limit: 2, ..whole(&scope) };
    let replies = read(&audit, &world.lab, body).await.unwrap();
    let seqs = replies.iter().map(|reply| {
        verify_proven(reply.record.as_ref().unwrap(), &world.trust(), &access.tag_key()).unwrap().header().seq
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [1, 2]);
    let reads = Scope::Reads(world.lab.org.clone());
    let own = read(&audit, &world.lab, whole(&reads)).await.unwrap();
    let opened: Vec<anteroom_proto::rpc::ReadOpened> =
        verified(&world, &reads, &own).iter().map(|record| record.opened().event().unwrap()).collect();
    let targets: Vec<_> = opened.iter().map(|read| (read.target.clone(), read.from_seq)).collect();
    assert_eq!(targets, [(scope.to_bytes(), 1), (reads.to_bytes(), 0)]);
    assert_eq!(opened.first().unwrap().reader, "acme/auditor/reader");
}

#[tokio::test]
async fn a_session_that_follows_gets_everything_once_however_slowly_it_reads() {
    let Desk { world, access, audit } = desk().await;
    let scope = Scope::Grant(access.grant);
    let body = ReadRequest { follow: true, ..whole(&scope) };
    let mut replies = audit.read(request(&world.lab, body)).await.unwrap().into_inner();
    let first = replies.next().await.unwrap().unwrap();
    // More than the channel holds comes while nobody reads.
    for _ in 0..60 {
        admit(&world, &access).await;
    }
    let stop = world.stop(&world.lab, access.grant, StopKind::Withdraw);
    done(world.act(&world.lab, stop, &[]).await);
    let all = world.journal.state().scope(&scope).unwrap().next_seq;
    let mut prev = *verify_proven(first.record.as_ref().unwrap(), &world.trust(), &access.tag_key()).unwrap().entry();
    for seq in 1..all {
        let reply = replies.next().await.unwrap().unwrap();
        let record = verify_proven(reply.record.as_ref().unwrap(), &world.trust(), &access.tag_key()).unwrap();
        assert_eq!((record.header().seq, record.prev()), (seq, &prev));
        prev = *record.entry();
    }
}

#[tokio::test]
async fn a_reader_whose_appointment_ends_is_told_and_gets_nothing_more() {
    let Desk { world, access, audit } = desk().await;
    appoint(&world, &world.lab, &access, world.now().plus_ms(HOUR_MS)).await;
    let scope = Scope::Grant(access.grant);
    let before = world.journal.state().scope(&scope).unwrap().next_seq;
    let body = ReadRequest { follow: true, ..whole(&scope) };
    let mut replies = audit.read(request(&world.overseer, body)).await.unwrap().into_inner();
    for _ in 0..before {
        replies.next().await.unwrap().unwrap();
    }
    world.time.advance(HOUR_MS);
    admit(&world, &access).await;
    assert_eq!(code(&replies.next().await.unwrap().unwrap_err()), "reader_not_entitled");
    assert!(replies.next().await.is_none());
}

#[tokio::test]
async fn answers_are_the_same_whatever_becomes_of_the_index() {
    let Desk { world, access, audit } = desk().await;
    for _ in 0..50 {
        admit(&world, &access).await;
    }
    let scope = Scope::Grant(access.grant);
    let openings = |replies: Vec<ReadReply>| -> Vec<_> {
        replies.into_iter().map(|reply| reply.record.unwrap().opening.unwrap()).collect()
    };
    let whole_index = openings(read(&audit, &world.lab, whole(&scope)).await.unwrap());
    audit.index.distrust();
    let rebuilt = openings(read(&audit, &world.lab, whole(&scope)).await.unwrap());
    let file = world.folder.path().join("file");
    std::fs::write(&file, b"no folder").unwrap();
    let none = Index::open(&file.join("index"), &world.journal);
    let gone_through = Audit::new(world.journal.clone(), none, Arc::default(), quiet(&world));
    let without = openings(read(&gone_through, &world.lab, whole(&scope)).await.unwrap());
    let part = ReadRequest { from_seq: 20, limit: 3, ..whole(&scope) };
    let part = openings(read(&gone_through, &world.lab, part).await.unwrap());
    assert_eq!(whole_index.len(), 55);
    assert!(whole_index == rebuilt && whole_index == without);
    assert_eq!(whole_index.get(20..23).unwrap(), part);
}

#[tokio::test]
async fn entries_lead_to_the_checkpoints_root() {
    let Desk { world, access, audit } = desk().await;
    for _ in 0..20 {
        admit(&world, &access).await;
    }
    let reply = audit.get_checkpoint(request(&world.overseer, GetCheckpointRequest { seen_size: 5 })).await.unwrap();
    let reply = reply.into_inner();
    let checkpoint = world.trust().verify(Note::parse(reply.checkpoint.as_bytes()).unwrap()).unwrap();
    let checkpoint = checkpoint.checkpoint();
    let stream = audit.entries(request(&world.overseer, EntriesRequest::default())).await.unwrap().into_inner();
    let chunks: Vec<EntriesReply> = stream.collect::<Result<_, _>>().await.unwrap();
    let entries = chunks.into_iter().flat_map(|chunk| chunk.entries).collect::<Vec<u8>>();
    let mut tree = Frontier::new();
    let mut seen = EMPTY_ROOT;
    for entry in entries.as_chunks::<48>().0 {
        if tree.size() == 5 {
            seen = tree.root();
        }
        tree.push(leaf_hash(entry)).unwrap();
    }
    assert_eq!((tree.size(), &tree.root()), (checkpoint.size(), checkpoint.root()));
    let proof: Vec<Hash> = reply.consistency.iter().map(|hash| Hash::try_from(hash.as_slice()).unwrap()).collect();
    verify_consistency(5, checkpoint.size(), &seen, checkpoint.root(), &proof).unwrap();

    let part = EntriesRequest { from: 3, to: 7 };
    let stream = audit.entries(request(&world.lab, part)).await.unwrap().into_inner();
    let chunks: Vec<EntriesReply> = stream.collect::<Result<_, _>>().await.unwrap();
    assert_eq!(chunks.first().unwrap().entries, entries.get(3 * 48..7 * 48).unwrap());
}

#[tokio::test]
async fn a_checkpoint_from_a_longer_log_diverges() {
    let Desk { world, audit, .. } = desk().await;
    let size = world.journal.newest().size;
    let status =
        audit.get_checkpoint(request(&world.lab, GetCheckpointRequest { seen_size: size + 1 })).await.unwrap_err();
    assert_eq!(code(&status), "checkpoint_diverges");
    let same = audit.get_checkpoint(request(&world.lab, GetCheckpointRequest { seen_size: size })).await.unwrap();
    assert_eq!(same.into_inner().consistency, Vec::<Vec<u8>>::new());
}

#[tokio::test]
async fn scopes_are_listed_as_far_as_they_may_be_read() {
    let Desk { world, access, audit } = desk().await;
    appoint(&world, &world.agency, &access, world.now().plus_ms(HOUR_MS)).await;
    let list = async |party: &Party| {
        let reply = audit.list_scopes(request(party, ListScopesRequest {})).await.unwrap().into_inner();
        reply.scopes
    };
    let names = |scopes: &[ScopeSummary]| -> Vec<(String, String)> {
        let name = |scope: &ScopeSummary| Scope::from_bytes(&scope.scope).unwrap().to_string();
        scopes.iter().map(|scope| (name(scope), scope.entitled_as.clone())).collect()
    };
    let own = |org: &str| -> Vec<(String, String)> {
        ["system".to_owned(), format!("org/{org}"), format!("roster/{org}"), format!("reads/{org}")]
            .map(|name| (name, "member".to_owned()))
            .into()
    };
    let grant = access.grant.to_string();
    for (party, entitled) in [(&world.lab, "lab"), (&world.agency, "agency"), (&world.overseer, "agency")] {
        let mut expected = own(party.org.as_str());
        expected.push((grant.clone(), entitled.to_owned()));
        assert_eq!(names(&list(party).await), expected);
    }
    assert_eq!(names(&list(&world.operator).await), own("operator"));
    let listed = list(&world.lab).await;
    let listed = listed.last().unwrap();
    let head = world.journal.state().scope(&Scope::Grant(access.grant)).unwrap().clone();
    assert_eq!((listed.records, listed.tag_key.as_slice()), (head.next_seq, access.tag_key().as_bytes().as_slice()));
}

#[tokio::test]
async fn a_workload_reads_nothing() {
    let Desk { world, access, audit } = desk().await;
    let mut request = Request::new(whole(&Scope::Grant(access.grant)));
    request.extensions_mut().insert(world.agency.conn(Role::Workload, "w-1"));
    assert_eq!(code(&audit.read(request).await.err().unwrap()), "caller_role");
}
