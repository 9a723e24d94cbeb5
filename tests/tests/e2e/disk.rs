//! A disk that is full: calls stop, ends get through, and room is all that is needed to go on.
//!
//! It needs a small file system of its own, hence the right to mount one. Without it the test says so and, where `CI` is set, fails.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anteroom_broker::demo::cast::AGENCY;
use anteroom_policy::event::Event;
use anteroom_proto::{
    ledger::scope::Scope,
    names::{GrantId, OrgId, Pseudonym},
    statement::{envelope::Signer as _, roster::Tri},
    time::HOUR_MS,
};
use anteroom_sdk::{
    agency::{NewPerson, RosterDraft},
    error::Error,
    evaluator::Route,
    signer::KeyFile,
    system,
};
use anteroom_tests::e2e::{
    book::Book,
    broker::Broker,
    caller::{chat, chat_whole, refused, rest},
    scene::{LONG, SLOW, Scene, plan},
    wait::{soon, until},
};

/// A file system of 32 MiB; dropping it unmounts it.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    /// Takes all room there is.
    fn fill(&self) {
        let file = OpenOptions::new().create(true).append(true).open(self.filler());
        let mut file = file.unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A roster of so many people: a record of some size in a scope that exists.
async fn publish(scene: &Scene, people: u32) -> Result<(), Error> {
    let home = &scene.cast.agency;
    let now = system::now();
    let key = |number: u32| {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        KeyFile::from_seed(&seed).unwrap().public_key().clone()
    };
    let person = |number: u32| NewPerson {
        pseudonym: Pseudonym::parse(&format!("q-{number}")).unwrap(),
        key: key(number),
        employer: AGENCY.to_owned(),
        name: format!("Person {number}"),
        citizenships: vec!["US".to_owned()],
        us_person: Tri::Yes,
        rel_to_ok: Vec::new(),
        clearance: 0,
        read_ins: Vec::new(),
        valid_from: now,
        valid_until: now.plus_ms(HOUR_MS),
        trained_until: now.plus_ms(HOUR_MS),
    };
    let draft = RosterDraft::new(OrgId::parse(AGENCY).unwrap(), &(0..people).map(person).collect::<Vec<_>>()).unwrap();
    let signers = [home.signer("roster").unwrap()];
    home.agency().await.unwrap().publish_roster(&draft.roster, &draft.private, &signers).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_calls_stop_ends_get_through_and_room_is_enough_to_go_on() {
    let folder = Scene::folder();
    let Some(small) = Small::mount(&folder.path().join("operator")) else {
        println!("SKIPPED: no file system can be mounted here, so a full disk is not tried");
        assert!(std::env::var_os("CI").is_none(), "a gate has to be able to mount a file system");
        return;
    };
    let mut broker = Broker::start(folder.path()).await;
    let scene = Scene::seed(folder, broker.addresses(), broker.log_key(), SLOW).await;
    broker.ready().await;
    let ended = scene.granted(&plan()).await;
    let lasting = scene.granted(&plan()).await;
    let mut stream = ended.begin(chat("until the withdrawal", LONG)).await;

    small.fill();
    // What was written ahead of use is used up first.
    let full = loop {
        if let Err(error) = publish(&scene, 30).await {
            break error;
        }
    };
    assert_eq!(refused(full).code, "ledger_unavailable");
    // Small things may still have fitted where a roster did not.
    until("calls to be refused", || async {
        let error = lasting.evaluator.complete(Route::Chat, chat_whole("now?", 1)).await.err()?;
        (refused(error).code == "ledger_unavailable").then_some(())
    })
    .await;
    let asked = scene.model.counts().requests;
    assert_eq!(lasting.refusal(chat("now?", 1)).await.code, "ledger_unavailable");
    assert_eq!(scene.model.counts().requests, asked, "no call without a record");

    let recorded = scene.withdraw(ended.grant).await.unwrap();
    assert!(!recorded.repeated, "an end always gets through");
    let cut = rest(&ended.evaluator, &mut stream).await.end.unwrap().code;
    assert_eq!(cut, "grant_withdrawn");
    let paused = async {
        let signer = scene.cast.lab.stop_signer().unwrap();
        scene
            .cast
            .lab
            .organisation()
            .await
            .unwrap()
            .pause(lasting.grant, "while we make room", &signer)
            .await
            .unwrap()
            .0
    };
    let pause = paused.await;
    // Auditors are not blind meanwhile; their reads come on record as soon as there is room.
    assert!(read_all(&scene, ended.grant).await > recorded.record.header().seq);

    small.make_room();
    until("the broker's readiness", || async {
        let page = anteroom_tests::e2e::broker::ask(broker.addresses().ops, "/readyz").await?;
        page.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    let signers = [scene.cast.lab.signer("signer").unwrap()];
    let mut lab = scene.cast.lab.organisation().await.unwrap();
    drop(lab.resume(lasting.grant, pause, "room again", &signers).await.unwrap());
    assert_eq!(lasting.stream(chat("and on", 3)).await.end, None);
    publish(&scene, 30).await.unwrap();
    until("the read's note", || async {
        let reads =
            |event: &Event| matches!(event, Event::ReadOpened { target, .. } if *target == Scope::Grant(ended.grant));
        Book::live(&broker.data()).events().any(|entered| reads(&entered.event)).then_some(())
    })
    .await;
    broker.kill().await;

    let book = Book::of(&broker.data());
    let ends = book.of_grant(ended.grant, |event| matches!(event, Event::GrantWithdrawn { .. }));
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].entry, *recorded.record.entry(), "what was acknowledged is what is on disk");
    assert!(broker.run("fsck").await.success());
    assert!(!broker.log().contains("panicked"), "{}", broker.log());
    // First the file system, then the folder that it stands in.
    drop(small);
    drop(scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_under_an_offer_stops_nobody() {
    let folder = Scene::folder();
    let Some(small) = Small::mount(&folder.path().join("operator")) else {
        println!("SKIPPED: no file system can be mounted here, so a full disk is not tried");
        assert!(std::env::var_os("CI").is_none(), "a gate has to be able to mount a file system");
        return;
    };
    let mut broker = Broker::start(folder.path()).await;
    let scene = Scene::seed(folder, broker.addresses(), broker.log_key(), Duration::ZERO).await;
    broker.ready().await;
    let caller = scene.granted(&plan()).await;
    small.fill();
    // A new grant needs a key of its own on the disk, although the ledger still has room.
    let signer = scene.cast.lab.signer("signer").unwrap();
    let offer = async || {
        let terms = anteroom_sdk::lab::TermsTemplate { terms: scene.cast.terms(&plan()).unwrap() }.bytes().unwrap();
        scene.cast.lab.lab().await.unwrap().offer(terms, std::slice::from_ref(&signer)).await.map(drop)
    };
    assert_eq!(refused(offer().await.unwrap_err()).code, "ledger_unavailable");
    drop(scene.withdraw(caller.grant).await.unwrap());
    small.make_room();
    until("an offer to pass", || async { offer().await.ok() }).await;
    broker.kill().await;
    assert!(broker.run("fsck").await.success());
    let book = Book::of(&broker.data());
    assert_eq!(book.of_grant(caller.grant, |event| matches!(event, Event::GrantWithdrawn { .. })).len(), 1);
    drop(small);
    drop(scene);
}

/// Reads a grant's scope as the lab's auditor; how many records came.
async fn read_all(scene: &Scene, grant: GrantId) -> u64 {
    let home = &scene.cast.lab;
    let scope = Scope::Grant(grant);
    let key = scope.tag_key(&home.terms(grant).unwrap().unwrap().nonce);
    let mut reading = home.auditor().await.unwrap().read(scope, key, false).await.unwrap();
    while soon("a record", reading.next()).await.unwrap().is_some() {}
    reading.records()
}
