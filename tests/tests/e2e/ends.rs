//! Every way in which access ends: each cuts the open stream, is on record, and only what may be lifted is lifted, by whoever set it.

use std::time::Duration;

use anteroom_broker::demo::cast::{AGENCY, Cast, PERSON, RUN};
use anteroom_policy::event::Event;
use anteroom_proto::{
    names::{OrgId, Pseudonym, RunId},
    statement::{
        acts::{LockTarget, RunCredential},
        envelope::Signer,
    },
    time::HOUR_MS,
};
use anteroom_sdk::{evaluator::AnswerStream, home::Home, system};
use anteroom_tests::e2e::{
    book::Book,
    broker::Broker,
    caller::{Caller, Went, chat, refused, rest},
    scene::{LONG, SLOW, Scene, plan},
    wait::{soon, until},
};

/// A caller with a stream open that only a cut ends.
async fn streaming(scene: &Scene) -> (Caller, AnswerStream) {
    let caller = scene.granted(&plan()).await;
    let stream = caller.begin(chat("a long story", LONG)).await;
    (caller, stream)
}

fn code(went: &Went) -> &str {
    went.end.as_ref().map_or("completed", |refused| refused.code.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_cuts_its_grant_alone_and_for_good() {
    let (scene, mut broker) = Scene::start(SLOW).await;
    let (caller, mut stream) = streaming(&scene).await;
    let other = scene.granted(&plan()).await;
    let mut untouched = other.begin(chat("another story", LONG)).await;
    let recorded = scene.withdraw(caller.grant).await.unwrap();
    assert!(!recorded.repeated);
    let went = rest(&caller.evaluator, &mut stream).await;
    assert_eq!(code(&went), "grant_withdrawn");
    let end = went.end.unwrap();
    assert_eq!(end.grant, Some(caller.grant), "who");
    assert!(end.at.is_some(), "when");
    scene.model.counts_reach("the model to be left alone", |counts| counts.left == 1).await;
    assert_eq!(caller.refusal(chat("once more", 4)).await.code, "grant_withdrawn");
    let again = scene.withdraw(caller.grant).await.unwrap();
    assert!(again.repeated, "repeating an end succeeds and records nothing");
    assert_eq!(caller.settled(went.call).await.0, "grant_withdrawn");
    // The other grant's stream goes on: it still gives events, and ends when told to.
    for _ in 0..3 {
        assert!(soon("an event", untouched.next()).await.unwrap().is_some());
    }
    drop(scene.withdraw(other.grant).await.unwrap());
    assert_eq!(code(&rest(&other.evaluator, &mut untouched).await), "grant_withdrawn");
    broker.kill().await;

    let book = Book::of(&broker.data());
    let withdrawn = book.of_grant(caller.grant, |event| matches!(event, Event::GrantWithdrawn { .. }));
    assert_eq!(withdrawn.len(), 1);
    let (ended, finished) = book.end(went.call).unwrap();
    let Event::GrantWithdrawn { cut, .. } = &withdrawn[0].event else { panic!("not a withdrawal") };
    assert_eq!(finished.end, "grant_withdrawn");
    assert!(finished.cut.unwrap() <= *cut.max(&withdrawn[0].at), "the gate closes before the record is written");
    // The cut comes first and both records after it, in either order.
    assert!(ended.at >= finished.cut.unwrap());
    assert!(finished.released_events as usize > went.events.len(), "what was shown is what is on record");
    let late = book.of_grant(caller.grant, |event| matches!(event, Event::CallAdmitted(_)));
    assert!(late.iter().all(|admitted| admitted.index < withdrawn[0].index));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_lifted_by_whoever_set_it_alone() {
    let (scene, mut broker) = Scene::start(SLOW).await;
    let (caller, mut stream) = streaming(&scene).await;
    let (lab, agency) = (&scene.cast.lab, &scene.cast.agency);
    let pause = async |home: &Home| {
        let signer = home.stop_signer().unwrap();
        home.organisation().await.unwrap().pause(caller.grant, "a question came up", &signer).await.unwrap().0
    };
    let resume = async |home: &Home, id| {
        let signers = [home.signer("signer").unwrap()];
        home.organisation().await.unwrap().resume(caller.grant, id, "answered", &signers).await
    };
    let labs = pause(lab).await;
    assert_eq!(code(&rest(&caller.evaluator, &mut stream).await), "grant_paused");
    assert_eq!(caller.refusal(chat("now?", 4)).await.code, "grant_paused");
    assert_eq!(refused(resume(agency, labs).await.unwrap_err()).code, "not_paused");
    let agencys = pause(agency).await;
    drop(resume(lab, labs).await.unwrap());
    assert_eq!(caller.refusal(chat("now?", 4)).await.code, "grant_paused", "the agency's pause still stands");
    drop(resume(agency, agencys).await.unwrap());
    assert_eq!(caller.stream(chat("now?", 4)).await.end, None);
    broker.kill().await;
    let book = Book::of(&broker.data());
    let steps =
        book.of_grant(caller.grant, |event| matches!(event, Event::GrantPaused { .. } | Event::GrantResumed { .. }));
    assert_eq!(steps.len(), 4);
}

/// Lets `pseudonym` sign a run credential for the workload.
async fn credential_of(cast: &Cast, grant: anteroom_proto::names::GrantId, pseudonym: &str) {
    let workload = cast.agency.key_or_new("workload").unwrap();
    let pseudonym = Pseudonym::parse(pseudonym).unwrap();
    let start = system::now().plus_ms(-60_000);
    let credential = RunCredential {
        grant,
        run: RunId::parse(RUN).unwrap(),
        org: OrgId::parse(AGENCY).unwrap(),
        workload: workload.public_key().clone(),
        start_ms: start,
        end_ms: start.plus_ms(24 * HOUR_MS),
        pseudonym: pseudonym.clone(),
    };
    let person = cast.agency.person_signer(&pseudonym).unwrap();
    drop(cast.agency.agency().await.unwrap().issue_credential(&credential, &person).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_cut_what_they_hit_and_are_lifted_by_their_setter_alone() {
    let (scene, mut broker) = Scene::start(SLOW).await;
    let (lab, agency) = (&scene.cast.lab, &scene.cast.agency);
    // `p-2` is not known to be a U.S. person, `p-1` is.
    let grant = scene.cast.offer(&plan()).await.unwrap();
    scene.cast.accept(grant).await.unwrap();
    credential_of(&scene.cast, grant, "p-2").await;
    let foreign = scene.caller(grant).await;
    let domestic = scene.granted(&plan()).await;
    let person = |pseudonym: &str| LockTarget::Person {
        org: OrgId::parse(AGENCY).unwrap(),
        pseudonym: Pseudonym::parse(pseudonym).unwrap(),
    };
    let run = LockTarget::Run { grant: domestic.grant, run: RunId::parse(RUN).unwrap() };
    // Who locks, what, whom it hits, whom it spares.
    let cases: [(&Home, &Home, LockTarget, &Caller, &Caller); 4] = [
        (agency, lab, person(PERSON), &domestic, &foreign),
        (lab, agency, person("p-2"), &foreign, &domestic),
        (lab, agency, LockTarget::NotUsPerson {}, &foreign, &domestic),
        (lab, agency, run, &domestic, &foreign),
    ];
    for (setter, other, target, hit, spared) in cases {
        let what = format!("{target:?}");
        let mut stream = hit.begin(chat("until the lock", LONG)).await;
        let mut goes_on = spared.begin(chat("whatever the lock", 60)).await;
        let signer = setter.stop_signer().unwrap();
        let (lock, _) = setter.organisation().await.unwrap().lock(target, "an incident", &signer).await.unwrap();
        assert_eq!(code(&rest(&hit.evaluator, &mut stream).await), "locked", "{what}");
        assert_eq!(hit.refusal(chat("now?", 4)).await.code, "locked", "{what}");
        assert_eq!(rest(&spared.evaluator, &mut goes_on).await.end, None, "{what} spares others");
        let lift = async |home: &Home| {
            let signers = [home.signer("signer").unwrap()];
            home.organisation().await.unwrap().lift(lock, "over", &signers).await
        };
        let denied = refused(lift(other).await.unwrap_err()).code;
        assert!(["lock_unknown", "not_yours", "signature_missing"].contains(&denied.as_str()), "{what}: {denied}");
        assert_eq!(hit.refusal(chat("now?", 4)).await.code, "locked", "{what}");
        drop(lift(setter).await.unwrap());
        assert_eq!(hit.stream(chat("now?", 4)).await.end, None, "{what}");
    }
    broker.kill().await;
    let book = Book::of(&broker.data());
    let count = |wanted: fn(&Event) -> bool| book.events().filter(|entered| wanted(&entered.event)).count();
    assert_eq!(count(|event| matches!(event, Event::LockSet { .. })), 4);
    assert_eq!(count(|event| matches!(event, Event::LockLifted { .. })), 4);
    assert_eq!(book.state.standing().locks.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agency_gives_access_back_at_once() {
    let (scene, mut broker) = Scene::start(SLOW).await;
    let (caller, mut stream) = streaming(&scene).await;
    let signer = scene.cast.agency.stop_signer().unwrap();
    let mut agency = scene.cast.agency.agency().await.unwrap();
    let recorded = agency.relinquish(caller.grant, "done early", &signer).await.unwrap();
    assert!(!recorded.repeated);
    assert_eq!(code(&rest(&caller.evaluator, &mut stream).await), "grant_relinquished");
    assert_eq!(caller.refusal(chat("now?", 4)).await.code, "grant_relinquished");
    broker.kill().await;
    let book = Book::of(&broker.data());
    assert_eq!(book.of_grant(caller.grant, |event| matches!(event, Event::GrantRelinquished { .. })).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_alone_ends_a_stream_on_which_nothing_moves() {
    // One word, then silence for longer than any test waits.
    let (scene, mut broker) = Scene::start(Duration::from_secs(600)).await;
    let mut short = plan();
    short.term_ms = 2_000;
    let caller = scene.granted(&short).await;
    let mut stream = caller.begin(chat("a word and then nothing", LONG)).await;
    let went = rest(&caller.evaluator, &mut stream).await;
    assert_eq!((code(&went), went.events.len()), ("grant_expired", 0));
    assert_eq!(caller.refusal(chat("now?", 4)).await.code, "grant_expired");
    assert_eq!(caller.settled(went.call).await.0, "grant_expired");
    broker.kill().await;
    let book = Book::of(&broker.data());
    let (admitted, admission) = book.admission(went.call).unwrap();
    let (_, finished) = book.end(went.call).unwrap();
    assert_eq!(admission.end, admitted.at.plus_ms(2_000), "the first call starts the window");
    assert!(finished.cut.unwrap() >= admission.end);
    assert_eq!(finished.released_events, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refuses_new_calls_and_lets_open_ones_end() {
    let (scene, mut broker) = Scene::start(SLOW).await;
    let caller = scene.granted(&plan()).await;
    let mut stream = caller.begin(chat("about a second", 300)).await;
    let drained = async { broker.drain().await };
    let during = async {
        until("the drain", || async {
            let error = match caller.raw_stream(caller.seal(caller.draft(chat("too late", 4)))).await {
                // What passed before the signal arrived is an ordinary call.
                Ok(mut events) => {
                    while let Ok(Some(_)) = events.message().await {}
                    return None;
                }
                Err(error) => error,
            };
            (refused(error).code == "shutting_down").then_some(())
        })
        .await;
        rest(&caller.evaluator, &mut stream).await
    };
    let (status, went) = tokio::join!(drained, during);
    assert!(status.success());
    assert_eq!((went.end, went.events.len()), (None, 299 + 3));
    let book = Book::of(&broker.data());
    assert_eq!(book.end(went.call).unwrap().1.end, "completed");
    assert_eq!(book.state.open_count(), 0);
    assert!(book.refusals("shutting_down") > 0);
}

/// Everything that the parties are told of a grant.
async fn told(scene: &Scene, caller: &Caller) -> Vec<String> {
    let mut told = Vec::new();
    for home in [&scene.cast.lab, &scene.cast.agency] {
        let channel = home.channel(anteroom_sdk::home::Use::Act).await.unwrap();
        let mut grants = home.grants(&channel).await.unwrap();
        for grant in &mut grants {
            // Slots come and go with the connector's streams, and time is lost while nobody is there.
            grant.slots = 0;
            grant.lost = None;
        }
        told.push(format!("{grants:?}"));
        told.push(format!(
            "{:?}",
            home.take_dossier(&home.fetch_dossier(&channel, caller.grant).await.unwrap()).unwrap()
        ));
        let terms = home.terms(caller.grant).unwrap().unwrap();
        let scope = anteroom_proto::ledger::scope::Scope::Grant(caller.grant);
        let key = scope.tag_key(&terms.nonce);
        let mut auditor = home.auditor().await.unwrap();
        let mut reading = auditor.read(scope, key, false).await.unwrap();
        while let Some(record) = soon("a record", reading.next()).await.unwrap() {
            // Each start notes that nobody is there yet, and somebody comes back.
            if !matches!(record.record.header().kind, 48 | 49) {
                told.push(format!("{:?} {:?}", record.record.header(), record.record.entry()));
            }
        }
        assert_eq!(
            soon("the sweep", auditor.prove_whole(reading)).await.unwrap().scope().to_string(),
            caller.grant.to_string()
        );
    }
    told
}

async fn again(broker: &mut Broker) {
    broker.start_again().await;
    broker.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_comes_back_with_the_same_state_and_a_trusted_clock() {
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    for _ in 0..5 {
        assert_eq!(caller.stream(chat("before", 4)).await.end, None);
    }
    let before = told(&scene, &caller).await;
    broker.kill().await;
    let folded = Book::of(&broker.data());
    assert_eq!(folded, Book::of(&broker.data()), "folding is a function of the log");
    assert!(broker.run("fsck").await.success());
    // Without the connector: the clock's trust comes from what was kept, since the machine did not reboot.
    scene.connector = None;
    again(&mut broker).await;
    assert_eq!(told(&scene, &caller).await, before);
    scene.connect().await;
    assert_eq!(caller.stream(chat("after", 4)).await.end, None);
    broker.kill().await;
    let after = Book::of(&broker.data());
    let prefix = after.records.iter().zip(&folded.records).filter(|(new, old)| new.entry == old.entry).count();
    assert_eq!(prefix, folded.records.len(), "what was there stays there");

    // The index is thrown away while the broker is down; nobody can tell.
    let with_index = {
        again(&mut broker).await;
        told(&scene, &caller).await
    };
    broker.kill().await;
    std::fs::remove_dir_all(broker.data().join("index")).unwrap();
    again(&mut broker).await;
    assert_eq!(told(&scene, &caller).await, with_index);
    broker.kill().await;
    assert!(broker.run("fsck").await.success());
}
