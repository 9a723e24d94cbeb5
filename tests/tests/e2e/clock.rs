//! Clocks that lie: stepped forward and back while the broker runs, across restarts, across reboots. Nothing passes on such a clock
//! until the lab's signed clock agrees with it again.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use anteroom_broker::{
    boot::{self, Ended, Outside, Running},
    clock::{Reading, SystemTime, TimeSource},
};
use anteroom_policy::event::{ClockTrust, Event};
use anteroom_tests::e2e::{
    book::Book,
    broker::config,
    caller::{Caller, chat, rest},
    ports,
    scene::{SLOW, Scene, plan},
    wait::{soon, until},
};

const HOUR: i64 = 3_600_000;
/// What the broker says of a clock that contradicts itself.
const SUSPENDED: &[&str] = &["clock_suspended", "clock_went_back", "clock_jumped_forward", "clock_drifted"];

/// This machine's clocks, set wrong.
#[derive(Debug)]
struct Wrong {
    system: SystemTime,
    wall: AtomicI64,
    boot: AtomicI64,
    boots: AtomicI64,
}

impl Wrong {
    fn new() -> Arc<Self> {
        let system = SystemTime::new().unwrap();
        Arc::new(Self { system, wall: AtomicI64::new(0), boot: AtomicI64::new(0), boots: AtomicI64::new(0) })
    }

    /// Sets the wall clock so many milliseconds off.
    fn off_by(&self, ms: i64) {
        self.wall.store(ms, Ordering::SeqCst);
    }

    fn reboot(&self) {
        let since_boot = self.system.read().boot_ms;
        self.boot.store(-since_boot, Ordering::SeqCst);
        self.boots.fetch_add(1, Ordering::SeqCst);
    }
}

impl TimeSource for Wrong {
    fn read(&self) -> Reading {
        let mut reading = self.system.read();
        reading.wall_ms += self.wall.load(Ordering::SeqCst);
        reading.boot_ms += self.boot.load(Ordering::SeqCst);
        for byte in &mut reading.boot_id {
            *byte = byte.wrapping_add(self.boots.load(Ordering::SeqCst).to_le_bytes()[0]);
        }
        reading
    }
}

/// A broker in this process, on a clock of ours.
struct Stage {
    scene: Scene,
    running: Option<Running>,
    clock: Arc<Wrong>,
    port: u16,
}

impl Stage {
    async fn start() -> Self {
        let (clock, port, folder) = (Wrong::new(), ports::three(), Scene::folder());
        let config = config(folder.path(), port);
        boot::init(&config, clock.as_ref(), &|_| None).unwrap();
        let running = boot::start(config, outside(&clock)).await.unwrap();
        let log_key = running.log_key().to_owned();
        let scene = Scene::seed(folder, running.addresses(), &log_key, SLOW).await;
        scene.trusted().await;
        Self { scene, running: Some(running), clock, port }
    }

    async fn stop(&mut self) -> Book {
        let running = self.running.take().unwrap();
        running.stop();
        assert!(matches!(soon("the end", running.ended()).await, Ended::Orderly { .. }));
        Book::of(&self.scene.dir().join("operator"))
    }

    async fn start_again(&mut self) {
        let config = config(self.scene.dir(), self.port);
        self.running = Some(boot::start(config, outside(&self.clock)).await.unwrap());
    }

    /// Waits until the broker says one of these of its clock.
    async fn says(&self, trust: &[&str]) {
        until(&trust.join(" or "), || async {
            let known = self.scene.cast.lab.who_am_i().await.ok()?;
            trust.contains(&known.clock.as_str()).then_some(())
        })
        .await;
    }

    /// Waits until the log says this of the clock: the clock is looked at once a second.
    async fn recorded(&self, trust: ClockTrust) {
        let journal = self.running.as_ref().unwrap().journal();
        until("the clock's record", || async { (journal.standing().clock == trust).then_some(()) }).await;
    }

    async fn refuses(&self, caller: &Caller) {
        assert_eq!(caller.refusal(chat("now?", 4)).await.code, "clock_untrusted");
    }
}

fn outside(clock: &Arc<Wrong>) -> Outside {
    Outside { time: Arc::clone(clock) as Arc<dyn TimeSource>, environment: Box::new(|_| None) }
}

/// The trust on record, in order.
fn trusts(book: &Book) -> Vec<ClockTrust> {
    let trust = |event: &Event| match event {
        Event::ClockChanged { trust, .. } => Some(*trust),
        _ => None,
    };
    book.events().filter_map(|entered| trust(&entered.event)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_stops_calls_until_the_labs_agrees_with_it_again() {
    let mut stage = Stage::start().await;
    let mut short = plan();
    // A jump by an hour would end it, and a jump back would give it back, if either were believed.
    short.term_ms = HOUR / 2;
    let caller = stage.scene.granted(&short).await;
    for off in [HOUR, -HOUR] {
        let mut stream = caller.begin(chat("while the clock is right", 40)).await;
        stage.clock.off_by(off);
        stage.says(SUSPENDED).await;
        stage.refuses(&caller).await;
        stage.recorded(ClockTrust::Suspended).await;
        // Its end comes from the anchored time, which did not jump.
        let went = rest(&caller.evaluator, &mut stream).await;
        let code = went.end.map(|refused| refused.code);
        assert!(code.is_none() || code.as_deref() == Some("clock_untrusted"), "{code:?}");
        stage.clock.off_by(0);
        stage.says(&["trusted"]).await;
        assert_eq!(caller.stream(chat("right again", 4)).await.end, None);
    }
    let book = stage.stop().await;
    assert_eq!(trusts(&book).iter().filter(|trust| **trust == ClockTrust::Suspended).count(), 2, "{:?}", trusts(&book));
    assert_eq!(trusts(&book).last(), Some(&ClockTrust::Trusted));
    let times: Vec<_> = book.events().map(|entered| entered.at).collect();
    assert!(times.is_sorted(), "no record is dated before the one before it");
    assert_eq!(book.of_grant(caller.grant, |event| matches!(event, Event::GrantExpired { .. })).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_suspicion_and_a_reboot_asks_for_confirmation() {
    let mut stage = Stage::start().await;
    let caller = stage.scene.granted(&plan()).await;
    assert_eq!(caller.stream(chat("before", 4)).await.end, None);
    stage.clock.off_by(HOUR);
    stage.says(SUSPENDED).await;
    drop(stage.scene.connector.take());
    stage.stop().await;
    stage.start_again().await;
    stage.says(SUSPENDED).await;
    stage.refuses(&caller).await;
    stage.clock.off_by(0);
    stage.scene.connect().await;
    stage.says(&["trusted"]).await;
    assert_eq!(caller.stream(chat("confirmed", 4)).await.end, None);

    // The same boot: what was kept is enough.
    drop(stage.scene.connector.take());
    stage.stop().await;
    stage.start_again().await;
    stage.says(&["trusted"]).await;
    stage.stop().await;

    // Another boot, with a wall clock that stands an hour back: nobody confirms it, and nothing passes.
    stage.clock.reboot();
    stage.clock.off_by(-HOUR);
    stage.start_again().await;
    stage.says(&["clock_unconfirmed"]).await;
    stage.refuses(&caller).await;
    stage.scene.connect().await;
    stage.refuses(&caller).await;
    stage.clock.off_by(0);
    stage.says(&["trusted"]).await;
    assert_eq!(caller.stream(chat("confirmed again", 4)).await.end, None);
    let book = stage.stop().await;
    let times: Vec<_> = book.events().map(|entered| entered.at).collect();
    assert!(times.is_sorted(), "no record is dated before the one before it");
    assert!(book.refusals("clock_untrusted") >= 1);
}
