//! Who is told what, when, and once; and that nobody waits for whoever does not answer.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::sync::atomic::AtomicU16;

use anteroom_policy::event::NoticeSettled;
use anteroom_proto::{
    names::{Digest, GrantId},
    rpc::SignedStatement,
    statement::{
        acts::{Appointment, StopKind},
        contacts::{Contact, Contacts, NoticeKind},
        envelope::sign_json,
    },
    time::HOUR_MS,
};
use axum::{Router, http::StatusCode, routing::post};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc};

use super::*;
use crate::{
    relay::networks::{Network, Networks},
    testing::{Party, World, called, done},
};

/// Longest wait for anything.
const GUARD: Duration = Duration::from_secs(60);

/// A webhook that answers with a status that can be changed.
struct Receiver {
    port: u16,
    status: Arc<AtomicU16>,
    taken: mpsc::UnboundedReceiver<Value>,
}

impl Receiver {
    async fn start(status: u16) -> Self {
        let (sender, taken) = mpsc::unbounded_channel();
        let status = Arc::new(AtomicU16::new(status));
        let answers = Arc::clone(&status);
        let answer = move |body: String| {
            let (sender, answers) = (sender.clone(), Arc::clone(&answers));
            async move {
                sender.send(serde_json::from_str(&body).unwrap()).unwrap();
                let headers = [("location", "/elsewhere")];
                (StatusCode::from_u16(answers.load(Ordering::SeqCst)).unwrap(), headers)
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().route("/in", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, status, taken }
    }

    fn contact(&self, id: &str, notices: &[NoticeKind]) -> Contact {
        contact(id, &format!("http://127.0.0.1:{}/in", self.port), notices)
    }

    async fn next(&mut self) -> Value {
        timeout(GUARD, self.taken.recv()).await.unwrap().unwrap()
    }

    /// What came, without waiting for more.
    fn came(&mut self) -> Vec<String> {
        let mut came = Vec::new();
        while let Ok(body) = self.taken.try_recv() {
            came.push(body["notice"].as_str().unwrap().to_owned());
        }
        came
    }
}

fn contact(id: &str, to: &str, notices: &[NoticeKind]) -> Contact {
    Contact { id: id.parse().unwrap(), to: to.parse().unwrap(), notices: notices.to_vec() }
}

fn contacts(world: &World, party: &Party, contacts: Vec<Contact>) -> Contacts {
    let standing = world.journal.standing();
    let previous = standing.contacts.get(&party.org).map(|known| known.digest);
    Contacts { by: party.org.clone(), contacts, previous }
}

async fn set(world: &World, party: &Party, list: Vec<Contact>) {
    let list = contacts(world, party, list);
    let signed =
        if party.org == world.operator.org { sign_json(&list, &[&party.root]).unwrap() } else { party.signed(&list) };
    done(world.act(party, signed, &[]).await);
}

async fn stop(world: &World, party: &Party, grant: GrantId, kind: StopKind) -> SignedStatement {
    let stop = world.stop(party, grant, kind);
    done(world.act(party, stop.clone(), &[]).await);
    stop
}

fn settings() -> NoticeSettings {
    let here = Network { name: "here".to_owned(), block: "127.0.0.0/8".parse().unwrap() };
    NoticeSettings { allow: Networks::new(vec![here]), ..NoticeSettings::default() }
}

async fn machine(world: &World) -> Machine {
    machine_with(world, Box::new(Vec::new)).await
}

async fn machine_with(world: &World, behind: Behind) -> Machine {
    let origin = KeyName::parse(crate::testing::ORIGIN).unwrap();
    let folder = world.folder.path().join("notices");
    Machine::start(&world.journal, &origin, &folder, settings(), behind).await.unwrap()
}

impl Machine {
    /// Turns until nothing is under way.
    async fn settle(&mut self) {
        loop {
            self.turn().await;
            match self.attempts.join_next().await {
                Some(tried) => self.tried(tried),
                None => return,
            }
        }
    }
}

/// What is on record about notices, oldest first.
fn recorded(world: &World) -> Vec<(OrgId, NoticeSettled)> {
    let records = world.journal.read(0, world.journal.newest().size).unwrap();
    let of = |sealed: &Arc<Sealed>| match (&sealed.entered.event, &sealed.scope) {
        (Event::NoticeSettled(settled), Scope::Organisation(org)) => Some((org.clone(), (**settled).clone())),
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

fn kinds(came: &[String]) -> Vec<&str> {
    came.iter().map(|id| id.split('/').next().unwrap()).collect()
}

#[tokio::test]
async fn whoever_may_read_a_grant_is_told_of_it_and_nobody_else() {
    let world = World::new().await;
    let mut machine = machine(&world).await;
    let (mut lab, mut agency, mut overseer) =
        (Receiver::start(204).await, Receiver::start(200).await, Receiver::start(200).await);
    set(&world, &world.lab, vec![lab.contact("desk", &[])]).await;
    set(&world, &world.agency, vec![agency.contact("desk", &[])]).await;
    set(&world, &world.overseer, vec![overseer.contact("desk", &[])]).await;
    let access = world.grant(|_| {}).await;
    machine.settle().await;
    let offered = agency.came();
    assert_eq!(kinds(&offered), ["offer_waiting"]);
    assert_eq!((lab.came(), overseer.came()), (Vec::new(), Vec::new()), "only whoever is to answer is told");

    let appointment = Appointment {
        by: world.agency.org.clone(),
        reader: world.overseer.org.clone(),
        grant: Some(access.grant),
        until_ms: world.now().plus_ms(HOUR_MS),
    };
    done(world.act(&world.agency, world.agency.signed(&appointment), &[]).await);
    stop(&world, &world.lab, access.grant, StopKind::Pause).await;
    machine.settle().await;
    assert_eq!(kinds(&overseer.came()), ["paused"], "an overseer that a party appointed reads it");
    assert_eq!((kinds(&lab.came()).len(), kinds(&agency.came()).len()), (1, 1));
    world.time.advance(HOUR_MS);
    stop(&world, &world.lab, access.grant, StopKind::Withdraw).await;
    machine.settle().await;
    let mut came = agency.came();
    came.sort();
    assert_eq!(kinds(&came), ["closing_bundle", "withdrawn"]);
    assert_eq!(overseer.came(), Vec::<String>::new(), "its appointment is over");

    let told = recorded(&world);
    let of = |party: &Party| {
        let own = told.iter().filter(|(org, _)| *org == party.org);
        own.map(|(_, settled)| settled.kind).collect::<std::collections::BTreeSet<_>>()
    };
    let agency = [NoticeKind::OfferWaiting, NoticeKind::Paused, NoticeKind::Withdrawn, NoticeKind::ClosingBundle];
    assert_eq!(of(&world.agency), agency.into());
    assert_eq!(of(&world.overseer), [NoticeKind::Paused].into());
    assert!(told.iter().all(|(_, it)| it.delivered.len() == 1 && it.failed.is_empty() && it.attempts == 1));
}

#[tokio::test]
async fn a_message_says_what_it_is_about_and_nothing_that_anybody_wrote() {
    let (world, access) = World::granted().await;
    let mut machine = machine(&world).await;
    let mut desk = Receiver::start(200).await;
    set(&world, &world.agency, vec![desk.contact("desk", &[NoticeKind::Withdrawn])]).await;
    let stopped = stop(&world, &world.lab, access.grant, StopKind::Withdraw).await;
    assert!(String::from_utf8_lossy(&stopped.payload).contains("test"));
    machine.settle().await;
    let body = desk.next().await;
    assert_eq!(desk.came(), Vec::<String>::new(), "only of what it wants");
    let index = body["record"].as_u64().unwrap();
    assert_eq!(body["notice"], format!("withdrawn/{index}"));
    let record = &world.journal.read(index, index + 1).unwrap()[0];
    assert!(matches!(record.entered.event, Event::GrantWithdrawn { .. }));
    assert_eq!((&body["origin"], &body["org"]), (&crate::testing::ORIGIN.into(), &world.agency.org.as_str().into()));
    assert_eq!(body["grant"], access.grant.to_string());
    assert_eq!(body["next"], format!("anteroom audit report {}", access.grant));
    let fields: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    let known = [
        "version", "origin", "notice", "kind", "text", "org", "grant", "record", "due", "due_ms", "ends", "ends_ms",
        "next",
    ];
    assert_eq!(fields, known);
    // The same as a mail.
    let notice = of_record(&world.journal.state(), &record.entered, Now { at: world.now(), trusted: true });
    let notice = notice.iter().find(|notice| notice.kind == NoticeKind::Withdrawn).unwrap();
    let message = Message::new("broker.test/log\r\nBcc: all@world.example", notice);
    let (from, to) = ("anteroom@broker.example".parse().unwrap(), "duty@agency.example".parse().unwrap());
    let mail = message.mail(&from, &to);
    assert!(mail.is_ascii() && mail.lines().all(|line| !line.starts_with("Bcc")), "{mail}");
    assert_eq!(mail.matches('\n').count(), mail.matches("\r\n").count());
    assert!(mail.contains("Subject: Anteroom: the lab withdrew the grant\r\n"), "{mail}");
    assert_eq!(mail, message.mail(&from, &to), "sent again it is the same mail");
}

#[tokio::test]
async fn ends_that_come_near_are_told_of_once_and_late_ones_by_the_nearest() {
    let world = World::new().await;
    let mut machine = machine(&world).await;
    let mut desk = Receiver::start(200).await;
    set(&world, &world.agency, vec![desk.contact("desk", &[])]).await;
    let access = world.grant(|terms| terms["window"]["term_ms"] = (100 * HOUR_MS).into()).await;
    called(&world, &access, true).await;
    let end = world.journal.standing().grants[&access.grant].window.unwrap().end();
    machine.settle().await;
    desk.came();
    let at = |hours: i64, ms: i64| {
        world.time.advance(end.plus_ms(-hours * HOUR_MS + ms).since(world.now()));
    };
    for (hours, kind) in [(72, "ends_in_72h"), (24, "ends_in_24h"), (1, "ends_in_1h")] {
        at(hours, -1);
        machine.settle().await;
        assert_eq!(desk.came(), Vec::<String>::new(), "a millisecond before");
        at(hours, 0);
        machine.settle().await;
        machine.settle().await;
        assert_eq!(desk.came(), [format!("{kind}/{}", access.grant)]);
    }
    at(0, 0);
    let _ = world.journal.submit(Command::Tick).await.unwrap();
    machine.settle().await;
    let mut came = desk.came();
    came.sort();
    assert_eq!(kinds(&came), ["closing_bundle", "expired"]);

    // A broker that did not run for two days says the nearest alone; a clock that is not trusted says nothing.
    let access = world.grant(|terms| terms["window"]["term_ms"] = (100 * HOUR_MS).into()).await;
    called(&world, &access, true).await;
    machine.settle().await;
    desk.came();
    drop(machine);
    world.time.advance(80 * HOUR_MS);
    let mut machine = self::machine(&world).await;
    let state = world.journal.state();
    assert_eq!(of_time(&state, machine.desk.looked, Now { at: world.now(), trusted: false }), []);
    machine.settle().await;
    assert_eq!(desk.came(), [format!("ends_in_24h/{}", access.grant)]);
}

#[tokio::test]
async fn a_grant_can_be_closed_when_its_last_call_has_an_end() {
    let (world, access) = World::granted().await;
    let mut machine = machine(&world).await;
    let mut desk = Receiver::start(200).await;
    set(&world, &world.lab, vec![desk.contact("desk", &[NoticeKind::ClosingBundle])]).await;
    let call = called(&world, &access, false).await;
    stop(&world, &world.agency, access.grant, StopKind::Relinquish).await;
    machine.settle().await;
    assert_eq!(desk.came(), Vec::<String>::new(), "a call is open");
    let finish = anteroom_policy::command::Finish {
        call,
        end: "grant_relinquished",
        outcome: None,
        released_events: 0,
        released_chain: [0; 32],
        used: Some(1),
        status: 200,
        cut: None,
        scanner_locks: false,
    };
    let _ = world.journal.submit(Command::Finish(Box::new(finish))).await.unwrap();
    machine.settle().await;
    assert_eq!(desk.came(), [format!("closing_bundle/{}", access.grant)]);
}

#[tokio::test]
async fn what_fails_is_tried_again_less_and_less_often_and_recorded_once() {
    let (world, access) = World::granted().await;
    let mut machine = machine(&world).await;
    let (mut good, mut bad) = (Receiver::start(200).await, Receiver::start(302).await);
    let mail = contact("mail", "mailto:duty@agency.example", &[NoticeKind::Paused]);
    let list = vec![good.contact("good", &[NoticeKind::Paused]), bad.contact("bad", &[NoticeKind::Paused]), mail];
    set(&world, &world.agency, list).await;
    stop(&world, &world.lab, access.grant, StopKind::Pause).await;
    machine.settle().await;
    let id = good.came().pop().unwrap();
    assert_eq!(bad.came(), [id.as_str()], "a redirect is no delivery and is not followed");
    machine.settle().await;
    assert_eq!(bad.came(), Vec::<String>::new(), "not again at once");
    let mut waits = Vec::new();
    for _ in 0..6 {
        let mut waited = 0;
        while bad.came().is_empty() {
            world.time.advance(15_000);
            waited += 15;
            machine.settle().await;
        }
        waits.push(waited);
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 960]);
    assert_eq!(recorded(&world), [], "not before each contact came to its end");
    world.time.advance(24 * HOUR_MS);
    machine.settle().await;
    let told = recorded(&world);
    assert_eq!(told.len(), 1);
    let (org, settled) = &told[0];
    assert_eq!((org, &settled.notice, settled.attempts), (&world.agency.org, &id, 1 + 7 + 7));
    assert_eq!(settled.delivered, ["good".parse().unwrap()]);
    assert_eq!(settled.failed, ["bad".parse().unwrap(), "mail".parse().unwrap()], "without a relay there is no mail");
    machine.settle().await;
    assert_eq!((recorded(&world).len(), good.came().len(), bad.came().len()), (1, 0, 0));
    let mut text = crate::telemetry::Exposition::default();
    machine.counts.write(&mut text);
    let text = text.into_text();
    assert!(text.contains("anteroom_notices_delivered 1") && text.contains("anteroom_notices_failed 2"), "{text}");
}

#[tokio::test]
async fn whoever_hangs_holds_nobody_up() {
    let (world, access) = World::granted().await;
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut good = Receiver::start(200).await;
    let url = format!("http://{}/in", hung.local_addr().unwrap());
    let list: Vec<Contact> = (0..15).map(|at| contact(&format!("a{at}"), &url, &[])).collect();
    set(&world, &world.agency, list.into_iter().chain([good.contact("good", &[])]).collect()).await;
    set(&world, &world.lab, vec![good.contact("good", &[])]).await;
    let running = tokio::spawn(machine(&world).await.run());
    stop(&world, &world.lab, access.grant, StopKind::Withdraw).await;
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 4 {
        let body = good.next().await;
        told.insert((body["org"].to_string(), body["kind"].to_string()));
    }
    // Acts go through meanwhile.
    let _ = world.offer(|_| {}).await;
    assert!(!running.is_finished());
    running.abort();
}

#[tokio::test]
async fn what_a_crash_took_is_found_in_the_ledger_and_keeps_its_name() {
    let (world, access) = World::granted().await;
    let mut desk = Receiver::start(503).await;
    let mut machine = machine(&world).await;
    set(&world, &world.agency, vec![desk.contact("desk", &[NoticeKind::Paused, NoticeKind::Withdrawn])]).await;
    machine.settle().await;
    let file = world.folder.path().join("notices").join("waiting.json");
    let before = std::fs::read(&file).unwrap();
    // On record, and gone before anything was looked at.
    stop(&world, &world.lab, access.grant, StopKind::Pause).await;
    drop(machine);
    let mut machine = self::machine(&world).await;
    machine.settle().await;
    let first = desk.came();
    assert_eq!(kinds(&first), ["paused"]);
    // Tried in vain, gone again, and tried at once at the next start.
    desk.status.store(200, Ordering::SeqCst);
    drop(machine);
    let mut machine = self::machine(&world).await;
    machine.settle().await;
    assert_eq!(desk.came(), first);
    assert_eq!(recorded(&world).len(), 1);
    // Delivered and on record, but the file is the one of before: nothing is told or recorded again.
    drop(machine);
    std::fs::write(&file, before).unwrap();
    let mut machine = self::machine(&world).await;
    machine.settle().await;
    assert_eq!((desk.came().len(), recorded(&world).len()), (0, 1));
    // Another notice is.
    stop(&world, &world.lab, access.grant, StopKind::Withdraw).await;
    machine.settle().await;
    assert_eq!(kinds(&desk.came()), ["withdrawn"]);
    // A damaged file is not taken for an empty one.
    drop(machine);
    std::fs::write(&file, b"{}").unwrap();
    let origin = KeyName::parse(crate::testing::ORIGIN).unwrap();
    let folder = world.folder.path().join("notices");
    let refused = Machine::start(&world.journal, &origin, &folder, settings(), Box::new(Vec::new)).await.err().unwrap();
    assert!(refused.to_string().contains("move it away"), "{refused}");
}

#[tokio::test]
async fn contacts_that_are_taken_off_the_list_are_not_told_any_more() {
    let (world, access) = World::granted().await;
    let mut machine = machine(&world).await;
    let (mut old, mut new) = (Receiver::start(503).await, Receiver::start(200).await);
    set(&world, &world.agency, vec![old.contact("old", &[NoticeKind::Paused])]).await;
    stop(&world, &world.lab, access.grant, StopKind::Pause).await;
    machine.settle().await;
    assert_eq!(old.came().len(), 1);
    set(&world, &world.agency, vec![new.contact("new", &[])]).await;
    world.time.advance(HOUR_MS);
    machine.settle().await;
    assert_eq!((old.came().len(), new.came().len()), (0, 0));
    let told = recorded(&world);
    assert_eq!((told.len(), told[0].1.failed.as_slice()), (1, ["old".parse().unwrap()].as_slice()));
    // A fresh address under the old name is where it goes from then on.
    set(&world, &world.agency, vec![new.contact("old", &[])]).await;
    stop(&world, &world.agency, access.grant, StopKind::Pause).await;
    machine.settle().await;
    assert_eq!((old.came().len(), kinds(&new.came())), (0, vec!["paused"]));
}

#[tokio::test]
async fn an_organisation_that_is_told_too_much_takes_nobody_elses_room() {
    let (world, access) = World::granted().await;
    let mut machine = machine(&world).await;
    let (down, mut up) = (Receiver::start(503).await, Receiver::start(200).await);
    set(&world, &world.agency, vec![down.contact("desk", &[])]).await;
    set(&world, &world.lab, vec![up.contact("desk", &[NoticeKind::Withdrawn])]).await;
    for _ in 0..desk::PENDING_MAX / 2 + 1 {
        let pause = stop(&world, &world.lab, access.grant, StopKind::Pause).await;
        let pause: anteroom_proto::statement::acts::Stop = serde_json::from_slice(&pause.payload).unwrap();
        done(world.act(&world.lab, world.resume(&world.lab, access.grant, pause.id), &[]).await);
    }
    stop(&world, &world.lab, access.grant, StopKind::Withdraw).await;
    machine.settle().await;
    assert_eq!(kinds(&up.came()), ["withdrawn"]);
    assert_eq!(machine.desk.pending(), desk::PENDING_MAX as u64);
    assert_eq!(machine.counts.dropped.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn the_clock_and_sinks_raise_alarms_to_whom_they_concern() {
    let (world, _) = World::granted().await;
    let behind: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
    let seen = Arc::clone(&behind);
    let mut machine = machine_with(&world, Box::new(move || seen.lock().unwrap().clone())).await;
    let (mut operator, mut lab) = (Receiver::start(200).await, Receiver::start(200).await);
    set(&world, &world.operator, vec![operator.contact("desk", &[])]).await;
    set(&world, &world.lab, vec![lab.contact("desk", &[])]).await;
    let clock = |trust| Command::Clock { trust, source: "Drift".to_owned(), wall: 0 };
    let _ = world.journal.submit(clock(anteroom_policy::event::ClockTrust::Suspended)).await.unwrap();
    let _ = world.journal.submit(clock(anteroom_policy::event::ClockTrust::Trusted)).await.unwrap();
    machine.settle().await;
    assert_eq!((kinds(&operator.came()), kinds(&lab.came())), (vec!["clock_alarm"], vec!["clock_alarm"]));

    let stand = |next: u64| *behind.lock().unwrap() = vec![("siem".to_owned(), next)];
    stand(7);
    machine.settle().await;
    world.time.advance(SINK_MS - 1);
    machine.settle().await;
    assert_eq!(operator.came(), Vec::<String>::new());
    stand(8);
    machine.settle().await;
    world.time.advance(SINK_MS - 1);
    machine.settle().await;
    assert_eq!(operator.came(), Vec::<String>::new(), "it moved in between");
    world.time.advance(1);
    machine.settle().await;
    world.time.advance(SINK_MS);
    machine.settle().await;
    assert_eq!((operator.came(), lab.came()), (vec!["sink_lag/siem/8".to_owned()], Vec::new()));
}

#[tokio::test]
async fn a_list_takes_the_place_of_the_one_that_it_names_and_of_no_other() {
    use anteroom_policy::refusal::Refusal;
    let world = World::new().await;
    let desk = contact("desk", "mailto:duty@acme.example", &[]);
    let first = world.lab.signed(&contacts(&world, &world.lab, vec![desk.clone()]));
    let refused = |committed: &crate::journal::Committed| crate::testing::refused(committed);
    let by_stop = sign_json(&contacts(&world, &world.lab, vec![desk.clone()]), &[&world.lab.stop]).unwrap();
    assert_eq!(refused(&world.act(&world.lab, by_stop, &[]).await), Some(Refusal::SignatureMissing));
    assert_eq!(refused(&world.act(&world.agency, first.clone(), &[]).await), Some(Refusal::NotYours));
    done(world.act(&world.lab, first.clone(), &[]).await);
    let again = world.act(&world.lab, first, &[]).await;
    assert!(matches!(again.reply, Reply::Repeated { .. }), "{:?}", again.reply);
    let before = |previous| Contacts { by: world.lab.org.clone(), contacts: Vec::new(), previous };
    for previous in [None, Some(Digest::of(b"another"))] {
        let other = world.lab.signed(&before(previous));
        assert_eq!(refused(&world.act(&world.lab, other, &[]).await), Some(Refusal::ContactsChanged));
    }
    let twice = world.lab.signed(&contacts(&world, &world.lab, vec![desk.clone(), desk]));
    assert_eq!(refused(&world.act(&world.lab, twice, &[]).await), Some(Refusal::ContactsInvalid));
    let secret = br#"{"by":"acme","contacts":[{"id":"a","to":"mailto:a@a.example","secret":"s"}],"previous":null}"#;
    let secret = anteroom_proto::statement::envelope::sign_bytes(
        <Contacts as anteroom_proto::statement::Payload>::TYPE,
        secret.to_vec(),
        &[&world.lab.signer],
    );
    assert_eq!(refused(&world.act(&world.lab, secret.unwrap(), &[]).await), Some(Refusal::StatementUnreadable));
    let own = Scope::Organisation(world.lab.org.clone());
    let by_others =
        anteroom_policy::decide::entitlement(&world.journal.state(), &world.agency.org, &own, world.journal.now());
    assert_eq!(by_others, None, "no other party reads where this one is told");
}
