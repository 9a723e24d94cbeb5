//! A broker that is killed at any moment, many times, under load: what it acknowledged is on disk, what reached a model was on disk
//! before, and nothing passed after an end.
//!
//! `ANTEROOM_KILLS` says how often it is killed; `ANTEROOM_SEED` picks the moments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anteroom_policy::{event::Event, state::State};
use anteroom_proto::{
    ledger::{leaf::Entry, receipt::VerifiedRecord, scope::Scope},
    names::{CallId, GrantId},
    rpc::{CallEvent, call_event},
    statement::terms::Budget,
};
use anteroom_sdk::{acts::Recorded, error::Error, evaluator::Route};
use anteroom_tests::{
    e2e::{
        Fallible,
        book::Book,
        caller::{Caller, chat},
        scene::{Scene, plan_of, withdraw},
        wait::{soon, until},
    },
    sim::rng::Rng,
};
use tokio::task::JoinSet;

/// Grants that callers choose from.
const GRANTS: usize = 6;
/// How often the whole log is read between two lives.
const READ_EVERY: u64 = 25;
/// Between two words of the model.
const PACE: Duration = Duration::from_micros(300);

/// A grant under which calls are made.
#[derive(Debug)]
struct Live {
    caller: Caller,
    /// Set once an end of it was acknowledged: what begins later must not pass.
    over: AtomicBool,
}

/// What the broker said and what the parties saw.
#[derive(Debug, Default)]
struct Tally {
    grants: Mutex<Vec<Arc<Live>>>,
    /// Acknowledged acts and verified records of calls: where they stand.
    shown: Mutex<Vec<(u64, Entry)>>,
    /// Calls of which an event or a whole answer came.
    served: Mutex<BTreeSet<CallId>>,
    wrong: Mutex<Vec<String>>,
    acts: AtomicU64,
    completed: AtomicU64,
    cut: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
    lost: AtomicU64,
    stop: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    fn show(&self, record: &VerifiedRecord) {
        lock(&self.shown).push((record.header().index, *record.entry()));
    }

    fn act(&self, recorded: &Recorded) {
        self.acts.fetch_add(1, Ordering::Relaxed);
        self.show(&recorded.record);
    }

    fn pick(&self, rng: &mut Rng) -> Option<Arc<Live>> {
        let grants = lock(&self.grants);
        if grants.is_empty() { None } else { grants.get(rng.index(grants.len())).cloned() }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Counts how a call failed; `over` says that its grant's end had been acknowledged before it began.
    fn failed(&self, call: CallId, error: Error, over: bool) {
        match error {
            Error::Refused(refused) => {
                *lock(&self.refused).entry(refused.code.clone()).or_default() += 1;
                let last = ["grant_withdrawn", "grant_relinquished"].contains(&refused.code.as_str());
                // What the broker cannot do at the moment it says of every grant.
                let later = ["clock_untrusted", "rate_limited", "shutting_down"].contains(&refused.code.as_str());
                if over && !last && !later {
                    lock(&self.wrong).push(format!("{call} began after an end and was refused as `{}`", refused.code));
                }
            }
            Error::Transport(_) | Error::Channel(_) | Error::AnswerLost { .. } => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            other => lock(&self.wrong).push(format!("{call}: {other}")),
        }
    }

    fn served(&self, call: CallId, over: bool) {
        lock(&self.served).insert(call);
        if over {
            lock(&self.wrong).push(format!("{call} began after an acknowledged end and was served"));
        }
    }
}

/// Streams answers, reading every proof that comes with them.
async fn streams(tally: Arc<Tally>, mut rng: Rng) {
    while !tally.stopping() {
        let Some(live) = tally.pick(&mut rng) else {
            tokio::task::yield_now().await;
            continue;
        };
        let over = live.over.load(Ordering::SeqCst);
        let (call, request) = live.caller.tagged(20 + rng.below(400) as u32, true);
        let mut events = match live.caller.raw_stream(request).await {
            Ok(events) => events,
            Err(error) => {
                tally.failed(call, error, over);
                pause(&mut rng).await;
                continue;
            }
        };
        loop {
            match soon("an event", events.message()).await {
                Ok(Some(CallEvent { event: Some(event), .. })) => match event {
                    call_event::Event::Admitted(proven) => match live.caller.admission(&proven, call) {
                        Ok(record) => tally.show(&record),
                        Err(error) => lock(&tally.wrong).push(format!("{call}: the admission does not hold: {error}")),
                    },
                    call_event::Event::Data(_) => tally.served(call, over),
                    call_event::Event::End(end) => {
                        let receipt = live.caller.verify(&end.receipt.unwrap_or_default(), call);
                        tally.show(receipt.admitted());
                        if let Some((finished, _)) = receipt.finished() {
                            tally.show(finished);
                        }
                        tally.completed.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                },
                Ok(_) => {
                    lock(&tally.wrong).push(format!("{call} ended without a word"));
                    break;
                }
                Err(status) => {
                    tally.cut.fetch_add(1, Ordering::Relaxed);
                    tally.failed(call, status.into(), over);
                    pause(&mut rng).await;
                    break;
                }
            }
        }
    }
}

/// Asks for whole answers.
async fn wholes(tally: Arc<Tally>, mut rng: Rng) {
    while !tally.stopping() {
        let Some(live) = tally.pick(&mut rng) else {
            tokio::task::yield_now().await;
            continue;
        };
        let over = live.over.load(Ordering::SeqCst);
        let (call, request) = live.caller.tagged(1 + rng.below(30) as u32, false);
        match live.caller.raw_whole(request).await {
            Ok(reply) => {
                tally.served(call, over);
                let receipt = live.caller.verify(&reply.receipt.unwrap_or_default(), call);
                tally.show(receipt.admitted());
                if let Some((finished, _)) = receipt.finished() {
                    tally.show(finished);
                }
                tally.completed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tally.failed(call, error, over);
                pause(&mut rng).await;
            }
        }
    }
}

/// Calls through the SDK, with its care for lost answers and its view of the log.
async fn careful(tally: Arc<Tally>, mut rng: Rng) {
    while !tally.stopping() {
        let Some(live) = tally.pick(&mut rng) else {
            tokio::task::yield_now().await;
            continue;
        };
        let over = live.over.load(Ordering::SeqCst);
        match soon("an answer", live.caller.evaluator.stream(Route::Chat, chat("carefully", 30))).await {
            Ok(mut stream) => {
                let call = stream.call();
                loop {
                    match soon("an event", stream.next()).await {
                        Ok(Some(anteroom_sdk::evaluator::StreamItem::Data(_))) => tally.served(call, over),
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(error) => {
                            tally.failed(call, error, over);
                            break;
                        }
                    }
                }
            }
            Err(error) => tally.failed(CallId::from_bytes([0; 16]), error, over),
        }
        pause(&mut rng).await;
    }
}

async fn pause(rng: &mut Rng) {
    tokio::time::sleep(Duration::from_millis(5 + rng.below(40))).await;
}

/// Makes grants and ends them.
async fn acts(tally: Arc<Tally>, scene: Arc<Scene>, mut rng: Rng) {
    while !tally.stopping() {
        // What is not acknowledged may have happened or not; the ledger will say.
        let _ = act(&tally, &scene, &mut rng).await;
        pause(&mut rng).await;
    }
}

async fn act(tally: &Tally, scene: &Scene, rng: &mut Rng) -> Fallible<()> {
    let (lab, agency) = (&scene.cast.lab, &scene.cast.agency);
    if lock(&tally.grants).len() < GRANTS {
        let budget = Budget { calls: 5 + rng.below(200), tokens: 20_000 + rng.below(200_000), open: 1 + rng.below(8) };
        let terms = anteroom_sdk::lab::TermsTemplate { terms: scene.cast.terms(&plan_of(budget))? };
        let bytes = terms.bytes()?;
        let grant = lab.keep_terms(&bytes)?.grant;
        let offered = lab.lab().await?.offer(bytes, &[lab.signer("signer")?]).await?;
        tally.act(&offered.recorded);
        let channel = agency.channel(anteroom_sdk::home::Use::Act).await?;
        let offer = agency.take_offer(&agency.fetch_dossier(&channel, grant).await?)?;
        let accepted = agency.agency().await?.accept(&offer, &[agency.signer("signer")?]).await?;
        tally.act(&accepted);
        scene.cast.credential(grant, 24).await?;
        let caller = Caller::open(agency, grant).await?;
        lock(&tally.grants).push(Arc::new(Live { caller, over: AtomicBool::new(false) }));
        return Ok(());
    }
    let Some(live) = tally.pick(rng) else { return Ok(()) };
    let grant = live.caller.grant;
    match rng.below(6) {
        0 => {
            let recorded = withdraw(lab, grant).await?;
            live.over.store(true, Ordering::SeqCst);
            tally.act(&recorded);
            retire(tally, grant, rng);
        }
        1 => {
            let signer = agency.stop_signer()?;
            let recorded = agency.agency().await?.relinquish(grant, "done", &signer).await?;
            live.over.store(true, Ordering::SeqCst);
            tally.act(&recorded);
            retire(tally, grant, rng);
        }
        2 | 3 => {
            let home = if rng.below(2) == 0 { lab } else { agency };
            let signer = home.stop_signer()?;
            let (pause, recorded) = home.organisation().await?.pause(grant, "a moment", &signer).await?;
            tally.act(&recorded);
            let signers = [home.signer("signer")?];
            let resumed = home.organisation().await?.resume(grant, pause, "over", &signers).await?;
            tally.act(&resumed);
        }
        // Most turns leave the callers in peace.
        _ => {}
    }
    Ok(())
}

/// Takes an ended grant away, now and then later than others, so that calls under it are still tried.
fn retire(tally: &Tally, grant: GrantId, rng: &mut Rng) {
    if rng.below(3) > 0 {
        lock(&tally.grants).retain(|live| live.caller.grant != grant);
    }
}

/// Everything that must hold of a log on disk.
fn check(data: &std::path::Path, tally: &Tally, reached: &[String]) -> Book {
    let mut ended: BTreeSet<GrantId> = BTreeSet::new();
    let mut wrong = Vec::new();
    let each = |entered: &anteroom_policy::event::Entered, state: &State| {
        let Scope::Grant(grant) = &entered.scope else { return };
        match &entered.event {
            Event::GrantWithdrawn { .. } | Event::GrantRelinquished { .. } => {
                ended.insert(*grant);
            }
            Event::CallAdmitted(admitted) if ended.contains(grant) => {
                wrong.push(format!("{} was admitted after a recorded end", admitted.call));
            }
            _ => {}
        }
        if let Some(accounts) = state.accounts(grant) {
            let within = accounts.grant.is_within() && accounts.runs.values().all(|run| run.is_within());
            if !within {
                wrong.push(format!("a budget of {grant} is overspent at record {}", entered.index));
            }
        }
    };
    let book = Book::read(data, each).unwrap_or_else(|error| panic!("the ledger is not whole: {error}"));
    let at: Vec<_> = book.events().map(|entered| entered.at).collect();
    if !at.is_sorted() {
        wrong.push("a record is dated before the one before it".to_owned());
    }
    for (index, entry) in lock(&tally.shown).iter() {
        let on_disk = usize::try_from(*index).ok().and_then(|index| book.records.get(index));
        if on_disk.is_none_or(|sealed| sealed.entry != *entry) {
            wrong.push(format!("record {index} was shown and is not on disk"));
        }
    }
    let admitted: BTreeSet<CallId> = book
        .events()
        .filter_map(|entered| match &entered.event {
            Event::CallAdmitted(admitted) => Some(admitted.call),
            _ => None,
        })
        .collect();
    let mut seen = BTreeSet::new();
    for text in reached {
        let Ok(call) = CallId::parse(text) else { continue };
        if !seen.insert(call) {
            wrong.push(format!("{call} reached the model twice"));
        }
        if !admitted.contains(&call) {
            wrong.push(format!("{call} reached the model without a record"));
        }
    }
    for call in lock(&tally.served).iter() {
        if !admitted.contains(call) {
            wrong.push(format!("{call} was served without a record"));
        }
    }
    wrong.extend(lock(&tally.wrong).iter().cloned());
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
    book
}

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_passes_after_an_end_however_often_the_broker_is_killed() {
    let kills = number("ANTEROOM_KILLS", 5);
    let seed = number("ANTEROOM_SEED", u64::from(std::process::id()));
    println!("ANTEROOM_KILLS={kills} ANTEROOM_SEED={seed}");
    let mut rng = Rng::new(seed);
    let (scene, mut broker) = Scene::start(PACE).await;
    let scene = Arc::new(scene);
    let tally = Arc::new(Tally::default());
    let mut workers = JoinSet::new();
    workers.spawn(acts(Arc::clone(&tally), Arc::clone(&scene), Rng::new(seed ^ 1)));
    for worker in 0..3 {
        workers.spawn(streams(Arc::clone(&tally), Rng::new(seed ^ (10 + worker))));
    }
    for worker in 0..2 {
        workers.spawn(wholes(Arc::clone(&tally), Rng::new(seed ^ (20 + worker))));
    }
    workers.spawn(careful(Arc::clone(&tally), Rng::new(seed ^ 30)));
    until("the first calls", || async { (scene.model.counts().finished > 3).then_some(()) }).await;

    let mut torn = 0_u64;
    for kill in 1..=kills {
        // The moment is drawn: so many proofs from now and a little later, or when that takes too long.
        let target = lock(&tally.shown).len() + rng.index(80);
        let enough = async {
            while lock(&tally.shown).len() < target {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200 + rng.below(700)), enough).await;
        tokio::time::sleep(Duration::from_micros(rng.below(20_000))).await;
        broker.kill().await;
        if kill % READ_EVERY == 0 || kill == kills {
            let asked = scene.model.asked();
            let book = check(&broker.data(), &tally, &asked);
            torn += u64::from(book.torn);
            println!(
                "{kill} kills: {} records, {} calls completed",
                book.records.len(),
                tally.completed.load(Ordering::Relaxed)
            );
        }
        broker.start_again().await;
        // A life without a connector would be one without calls.
        let mut status = scene.connector.as_ref().unwrap().status();
        drop(soon("an open slot", status.wait_for(|status| status.open > 0)).await.unwrap());
    }
    broker.ready().await;
    tally.stop.store(true, Ordering::SeqCst);
    while let Some(worker) = soon("the workers' end", workers.join_next()).await {
        worker.unwrap();
    }
    // What the connector knows of lost calls is handed in; then nothing is left open.
    let connector = scene.connector.as_ref().unwrap();
    let mut status = connector.status();
    let quiet = status.wait_for(|status| status.busy == 0 && status.spooled == 0 && status.open > 0);
    drop(soon("the connector's last outcomes", quiet).await.unwrap());
    let spool = scene.cast.lab.connector_dir(&anteroom_broker::demo::cast::LINE.parse().unwrap()).join("outcomes");
    until("an empty spool", || async { (std::fs::read_dir(&spool).ok()?.count() == 0).then_some(()) }).await;
    slices(&scene, &tally).await;
    assert!(broker.drain().await.success());
    assert!(broker.run("fsck").await.success());

    let asked = scene.model.asked();
    let book = check(&broker.data(), &tally, &asked);
    assert_eq!(book.state.open_count(), 0, "every admitted call has an end");
    let reached: BTreeSet<CallId> = asked.iter().filter_map(|text| CallId::parse(text).ok()).collect();
    let unsettled: Vec<_> = book.state.abandoned_calls().filter(|(call, _)| reached.contains(*call)).collect();
    assert!(unsettled.is_empty(), "abandoned, known to the connector, and not settled: {unsettled:?}");
    let count = |wanted: fn(&Event) -> bool| book.events().filter(|entered| wanted(&entered.event)).count();
    println!(
        "{} records, {torn} torn batches cut; {} acts acknowledged; {} calls completed, {} cut, {} lost on the way; {} abandoned, \
         {} settled by report; refusals {:?}",
        book.records.len(),
        tally.acts.load(Ordering::Relaxed),
        tally.completed.load(Ordering::Relaxed),
        tally.cut.load(Ordering::Relaxed),
        tally.lost.load(Ordering::Relaxed),
        count(|event| matches!(event, Event::CallAbandoned { .. })),
        count(|event| matches!(event, Event::CallSettled { outcome: Some(_), .. })),
        lock(&tally.refused),
    );
    let starts = count(|event| matches!(event, Event::BrokerStarted { .. }));
    assert!(starts as u64 > kills, "each life stands in the log");
    assert!(tally.completed.load(Ordering::Relaxed) > 0 && tally.acts.load(Ordering::Relaxed) > 0);
}

/// The parties read their own slices and find them whole.
async fn slices(scene: &Scene, tally: &Tally) {
    let grants: Vec<GrantId> = lock(&tally.grants).iter().map(|live| live.caller.grant).collect();
    for home in [&scene.cast.lab, &scene.cast.agency] {
        let mut auditor = home.auditor().await.unwrap();
        for grant in &grants {
            let terms = home.terms(*grant).unwrap().unwrap();
            let scope = Scope::Grant(*grant);
            let key = scope.tag_key(&terms.nonce);
            let mut reading = auditor.read(scope, key, false).await.unwrap();
            while let Some(record) = soon("a record", reading.next()).await.unwrap() {
                tally.show(&record.record);
            }
            let whole = soon("the sweep", auditor.prove_whole(reading)).await.unwrap();
            assert!(whole.records() > 0);
        }
    }
}
