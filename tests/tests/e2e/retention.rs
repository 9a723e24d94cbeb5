//! What is written down and what is destroyed: a start from a snapshot answers as before it, and a disposition takes one grant out of
//! the log for good and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use anteroom_broker::{
    boot::{self, Ended, Folder, Outside, Running},
    clock::{Reading, SystemTime, TimeSource},
    config::{Config as BrokerConfig, List},
    demo::cast::{AGENCY, LAB, LINE},
    entropy::SystemEntropy,
    identity::{Principal, Role},
    pki::token::{TokenLifetime, TokenStore},
};
use anteroom_policy::event::ClockTrust;
use anteroom_proto::{
    ledger::scope::Scope,
    names::{GrantId, ModelLine, OrgId, Variant},
    rpc::ProvenRecord,
    statement::{
        acts::{Disposition, DispositionAction},
        key_set::OrgKind,
        terms::Endpoint,
    },
    time::HOUR_MS,
};
use anteroom_sdk::{
    acts::Recorded,
    channel::Address,
    connector::{
        Clock, Config, Connector, Pinned, Served,
        upstream::{Upstream, UpstreamLimits},
    },
    credentials::EnrolTrust,
    error::Error,
    evaluator::Route,
    home::{Brokers, Home, Use},
    system,
};
use anteroom_tests::e2e::{
    book::Book,
    broker::{Broker, settings},
    caller::{chat, chat_whole, refused, rest},
    command::{fails, json, published},
    ports,
    scene::{SLOTS, Scene, plan},
    second::certify,
    wait::{soon, until},
};
use serde_json::Value;

const SCHEDULE: &str = "schedule 4, item 2";
/// How far the clocks are moved: past the day that everything is kept.
const LATER_MS: i64 = 25 * HOUR_MS;

/// This machine's clocks, with a wall clock that can be moved.
#[derive(Debug)]
struct Moved {
    system: SystemTime,
    by: AtomicI64,
}

impl TimeSource for Moved {
    fn read(&self) -> Reading {
        let mut reading = self.system.read();
        reading.wall_ms += self.by.load(Ordering::SeqCst);
        reading
    }
}

/// A broker in this process, on a clock of ours, with a written schedule; and its operator.
struct Stage {
    scene: Scene,
    operator: Home,
    running: Option<Running>,
    clock: Arc<Moved>,
    port: u16,
}

impl Stage {
    async fn start() -> Self {
        let (folder, port) = (Scene::folder(), ports::three());
        let clock = Arc::new(Moved { system: SystemTime::new().unwrap(), by: AtomicI64::new(0) });
        let config = config(folder.path(), port);
        boot::init(&config, clock.as_ref(), &|_| None).unwrap();
        let running = boot::start(config, outside(&clock)).await.unwrap();
        let log_key = running.log_key().to_owned();
        let scene = Scene::seed(folder, running.addresses(), &log_key, std::time::Duration::ZERO).await;
        scene.trusted().await;
        let operator = operator(&scene).await;
        Self { scene, operator, running: Some(running), clock, port }
    }

    async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.stop();
        assert!(matches!(soon("the end", running.ended()).await, Ended::Orderly { .. }));
    }

    async fn start_again(&mut self) {
        let config = config(self.scene.dir(), self.port);
        self.running = Some(boot::start(config, outside(&self.clock)).await.unwrap());
    }

    /// Waits until the log says this of the clock.
    async fn recorded(&self, trust: ClockTrust) {
        let journal = self.running.as_ref().unwrap().journal();
        until("the clock's record", || async { (journal.standing().clock == trust).then_some(()) }).await;
    }

    /// Moves every clock on, the lab's signed one included, and gets new certificates for those that ended meanwhile.
    async fn move_on(&mut self) {
        drop(self.scene.connector.take());
        self.clock.by.store(LATER_MS, Ordering::SeqCst);
        self.recorded(ClockTrust::Suspended).await;
        let confirming = self.connector().await;
        self.recorded(ClockTrust::Trusted).await;
        drop(confirming);
        let (dir, addresses) = (self.scene.dir().to_owned(), self.scene.cast.addresses());
        let homes = [
            (&mut self.operator, "operator", Role::Operator),
            (&mut self.scene.cast.agency, AGENCY, Role::Admin),
            (&mut self.scene.cast.lab, LAB, Role::Admin),
        ];
        for (home, org, role) in homes {
            let folder = Folder::open(&dir.join("operator")).unwrap();
            let roots = fs::read_to_string(dir.join("operator").join("operator").join("ca.pem")).unwrap();
            let principal = Principal::new(org, role, &format!("{}-2", role.as_str())).unwrap();
            let tokens = TokenStore::open(&folder.tokens()).unwrap();
            let now = system::now().ms() + LATER_MS;
            let token = tokens.mint(&principal, TokenLifetime::default(), now, &mut SystemEntropy::new()).unwrap();
            let door = Address::parse(&addresses.enrolment.to_string()).unwrap().with_server_name("localhost").unwrap();
            home.enrol(&door, &EnrolTrust::Roots(roots), token.expose()).await.unwrap();
        }
    }

    /// The lab's connector with a clock that was moved as well.
    async fn connector(&self) -> Connector {
        let lab = &self.scene.cast.lab;
        let line = ModelLine::parse(LINE).unwrap();
        let config = Config {
            brokers: Brokers::one(lab.channel(Use::Serve).await.unwrap()),
            name: "connector-1".to_owned(),
            signer: lab.signer("connector").unwrap(),
            served: Served {
                trust: lab.log_trust().unwrap(),
                lab: OrgId::parse(LAB).unwrap(),
                line: line.clone(),
                manifest: self.scene.cast.manifest(LINE).unwrap(),
                variants: vec![Variant::parse("standard").unwrap()],
                endpoint: Endpoint::Connector,
            },
            pinned: Pinned {
                lab: lab.fingerprint().unwrap(),
                agencies: BTreeMap::from([(
                    OrgId::parse(AGENCY).unwrap(),
                    self.scene.cast.agency.fingerprint().unwrap(),
                )]),
            },
            upstream: Upstream::new(self.scene.model.base_url(), None, UpstreamLimits::default()).unwrap(),
            slots: SLOTS,
            clock: Clock::new(|| system::now().ms() + LATER_MS),
            dir: lab.connector_dir(&line),
            switch: lab.connector_dir(&line),
        };
        Connector::start(config).unwrap()
    }

    /// A grant in force with one call under it; the call.
    async fn used(&self) -> (GrantId, String) {
        let grant = self.scene.cast.granted(&plan()).await.unwrap();
        let evaluator = self.scene.cast.evaluator(grant).await.unwrap();
        let answer = soon("an answer", evaluator.complete(Route::Chat, chat_whole("once", 4))).await.unwrap();
        (grant, answer.call.receipt().call().to_string())
    }

    /// The operator has a grant destroyed, by a statement of the time that its clock shows.
    async fn dispose(&self, grant: GrantId) -> Result<Recorded, Error> {
        let disposition = Disposition {
            by: OrgId::parse("operator").unwrap(),
            scope: Scope::Grant(grant),
            action: DispositionAction::Destroyed,
            schedule: SCHEDULE.to_owned(),
            at_ms: system::now().plus_ms(self.clock.by.load(Ordering::SeqCst)),
        };
        let statement = self.operator.sign(&disposition, &self.operator.stop_signer().unwrap()).unwrap();
        self.operator.organisation().await.unwrap().submit(statement, Vec::new()).await
    }

    /// What the operator's command is refused with.
    async fn refuses(&self, scope: &str, schedule: &str) -> Value {
        let words = ["--format", "json", "retention", "dispose", scope, "--schedule", schedule];
        let refused = |error: &str| serde_json::from_str::<Value>(error).unwrap();
        let later = schedule == SCHEDULE && !scope.starts_with("org/");
        refused(&fails(self.operator.dir(), &words, if later { 5 } else { 3 }).await)
    }

    fn keys(&self) -> usize {
        self.keys_in("operator")
    }

    fn keys_in(&self, place: &str) -> usize {
        self.key_names(place).len()
    }

    fn key_names(&self, place: &str) -> BTreeSet<String> {
        let names = fs::read_dir(self.scene.dir().join(place).join("keys")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Waits until the standby holds the very keys that the broker holds.
    async fn same_keys(&self) {
        until("the standby's keys", || async {
            (self.key_names("standby") == self.key_names("operator")).then_some(())
        })
        .await;
    }

    /// What is left of a destroyed grant and of another one, for those who may read both.
    async fn stands(&self, gone: GrantId, kept: GrantId) {
        let agency = self.scene.cast.agency.dir();
        let read = fails(agency, &["--format", "json", "audit", "read", &gone.to_string()], 4).await;
        let read: Value = serde_json::from_str(&read).unwrap();
        assert_eq!(read["code"], "scope_disposed", "{read}");
        let text = read["error"].as_str().unwrap();
        assert!(text.contains("destroyed at ") && text.contains(SCHEDULE) && text.contains("record "), "{text}");
        let whole = json(agency, &["audit", "verify", &kept.to_string()]).await;
        assert!(whole["records"].as_u64().unwrap() >= 4, "{whole}");
        assert_eq!(refused(self.dispose(gone).await.unwrap_err()).code, "scope_disposed");
    }
}

fn config(dir: &Path, port: u16) -> BrokerConfig {
    let mut settings = settings(dir, port);
    settings.retention_schedule = Some(SCHEDULE.to_owned());
    settings.retention_grant_days = Some(1);
    settings.standby = Some(List(vec![dir.join("standby").display().to_string()]));
    BrokerConfig::check(settings).unwrap()
}

fn outside(clock: &Arc<Moved>) -> Outside {
    Outside { time: Arc::clone(clock) as Arc<dyn TimeSource>, environment: Box::new(|_| None) }
}

/// The operator's own folder, enrolled.
async fn operator(scene: &Scene) -> Home {
    let (dir, addresses) = (scene.dir(), scene.cast.addresses());
    let mut home = Home::create(&dir.join("operators")).unwrap();
    home.set(|settings| {
        settings.addr = Some(addresses.programme.to_string());
        settings.enrol_addr = Some(addresses.enrolment.to_string());
        settings.server_name = Some("localhost".to_owned());
    })
    .unwrap();
    certify(dir, addresses, &mut home, "operator", Role::Operator).await.unwrap();
    home.pin_log(scene.cast.log_key(), false).unwrap();
    let (key_set, enrolment) = home.init_org(&OrgId::parse("operator").unwrap(), OrgKind::Operator).unwrap();
    let enrolled = home.organisation().await.unwrap().enrol(enrolment, key_set).await.unwrap();
    home.keep_act(&enrolled).unwrap();
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_destroyed_under_the_schedule_alone_and_nothing_else_with_it() {
    let mut stage = Stage::start().await;
    let (gone, call) = stage.used().await;
    let (kept, _) = stage.used().await;
    let (lab, agency) = (stage.scene.cast.lab.dir().to_owned(), stage.scene.cast.agency.dir().to_owned());
    let name = gone.to_string();
    assert_eq!(stage.refuses(&name, SCHEDULE).await["code"], "grant_live");
    let _ = stage.scene.withdraw(gone).await.unwrap();
    let refused_now = stage.refuses(&name, SCHEDULE).await;
    assert_eq!(refused_now["code"], "too_early", "{refused_now}");
    assert_eq!(stage.refuses(&name, "schedule 5").await["code"], "schedule_unknown");
    assert_eq!(stage.refuses(&format!("org/{LAB}"), SCHEDULE).await["code"], "scope_kept");
    let held = json(&agency, &["retention", "hold", &name, "--reason", "suit 7 of 2027"]).await;
    let hold = held["subject"].as_str().unwrap().to_owned();

    let copy = stage.scene.dir().join("copy");
    let copy = copy.to_str().unwrap();
    let kept_name = kept.to_string();
    // A slice without its scope's last records could never be shown whole again.
    published(&stage.scene.cast.agency).await;
    json(&agency, &["audit", "mirror", copy, "--scope", &name, "--scope", &kept_name]).await;

    stage.move_on().await;
    let stands = refused(stage.dispose(gone).await.unwrap_err());
    assert_eq!(stands.code, "hold_stands");
    assert!(stands.text.contains(&hold) && stands.text.contains(AGENCY), "{}", stands.text);
    let release = ["--format", "json", "retention", "release", &hold, "--reason", "settled"];
    let not_its_own: Value = serde_json::from_str(&fails(&lab, &release, 3).await).unwrap();
    assert_eq!(not_its_own["code"], "hold_unknown");
    json(&agency, &["retention", "release", &hold, "--reason", "settled"]).await;
    assert_eq!(refused(stage.dispose(kept).await.unwrap_err()).code, "grant_live");
    let keys = stage.keys();
    published(&stage.scene.cast.agency).await;
    let (own, backup) = (config(stage.scene.dir(), stage.port), stage.scene.dir().join("backup"));
    assert_eq!(boot::backup(&own, &backup, None).unwrap().keys, keys);
    stage.same_keys().await;
    let disposed = stage.dispose(gone).await.unwrap();
    assert!(!disposed.repeated);
    until("the key's end", || async { (stage.keys() < keys).then_some(()) }).await;
    stage.stands(gone, kept).await;

    // A copy of the key would bring back what was destroyed.
    stage.same_keys().await;
    published(&stage.scene.cast.agency).await;
    assert_eq!(boot::backup(&own, &backup, None).unwrap().stale_keys, 1, "a backup keeps keys until it is told");
    let backed_up = stage.keys_in("backup");
    assert_eq!(boot::prune_keys(&own, &|_| None, &backup).unwrap(), 1);
    assert_eq!(stage.keys_in("backup"), backed_up - 1);
    assert_eq!(boot::prune_keys(&own, &|_| None, &backup).unwrap(), 0);

    // What the agency holds needs nobody.
    let verified = json(&agency, &["receipt", "verify", &call]).await;
    assert_eq!((&verified[0]["call"], &verified[0]["end"]), (&Value::from(call), &Value::from("completed")));

    // A mirror keeps what it had of it and goes on following the log.
    published(&stage.scene.cast.agency).await;
    let grown = json(&agency, &["audit", "mirror", copy]).await;
    assert!(grown["entries"].as_u64() > grown["before"].as_u64(), "{grown}");
    assert_eq!(grown["slices"].as_array().map(Vec::len), Some(2), "{grown}");
    json(&agency, &["audit", "verify", "--mirror", copy]).await;
    let replayed = json(&agency, &["audit", "replay", &name, "--mirror", copy]).await;
    assert_eq!(replayed["different"], 0, "{replayed}");

    // The operator's own check says what cannot be read, and why; from the state written down and from the first record alike.
    stage.stop().await;
    let broker = Broker::made(stage.scene.dir()).await;
    let (code, said) = broker.says("fsck", &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let line = format!("records of {} cannot be read: destroyed, see record", Scope::Grant(gone));
    assert!(said.contains(&line) && !said.contains(&Scope::Grant(kept).to_string()), "{said}");
    stage.start_again().await;
    stage.stands(gone, kept).await;
    stage.stop().await;
    fs::remove_dir_all(stage.scene.dir().join("operator").join("snapshots")).unwrap();
    let (code, said) = broker.says("rebuild-index", &[]).await;
    assert_eq!(code, Some(0), "{said}");
    stage.start_again().await;
    stage.stands(gone, kept).await;
    stage.stop().await;
}

/// A record without what is fetched along with it, which grows with the log.
fn record(proven: Option<ProvenRecord>) -> Vec<u8> {
    prost::Message::encode_to_vec(&proven.unwrap().opening.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_broker_starts_from_its_snapshot_and_answers_the_same() {
    let (scene, mut broker) = Scene::start(std::time::Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    let went = caller.stream(chat("before the end", 4)).await;
    let agency = &scene.cast.agency;
    let grant = caller.grant.to_string();
    let answers = async || {
        let status = agency.fetch_call(went.call).await.unwrap();
        let receipt = status.receipt.unwrap();
        let whole = json(agency.dir(), &["audit", "verify", &grant]).await;
        let outcome = prost::Message::encode_to_vec(&status.outcome.unwrap());
        let records = whole["records"].as_u64().unwrap();
        (status.state, outcome, record(receipt.admitted), record(receipt.finished), records)
    };
    let (state, _) = caller.settled(went.call).await;
    let before = answers().await;
    assert_eq!(state, before.0);
    let from_snapshot = "the fold went on from a snapshot";
    assert!(!broker.log().contains(from_snapshot));
    assert!(broker.drain().await.success());
    let snapshots = fs::read_dir(broker.data().join("snapshots")).unwrap();
    assert!(snapshots.map(|entry| entry.unwrap().path()).any(|path| path.extension().is_some_and(|end| end == "snap")));
    let folded = Book::of(&broker.data());
    broker.start_again().await;
    broker.ready().await;
    assert_eq!(broker.log().matches(from_snapshot).count(), 1);
    let after = answers().await;
    assert!(after.4 > before.4, "the start noted that nobody was there");
    assert_eq!((after.0, after.1, after.2, after.3), (before.0, before.1, before.2, before.3));
    assert_eq!(caller.settled(went.call).await.0, state);
    let caller = scene.caller(caller.grant).await;
    // The connector comes back by itself.
    let mut stream = until("a slot", || async {
        match caller.evaluator.stream(Route::Chat, chat("after it", 4)).await {
            Ok(stream) => Some(stream),
            Err(Error::Refused(refused)) if refused.code == "lab_offline" => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert_eq!(rest(&caller.evaluator, &mut stream).await.end, None);
    broker.kill().await;
    let book = Book::of(&broker.data());
    assert!(book.records.len() > folded.records.len());
    let same = book.records.iter().zip(&folded.records).all(|(now, then)| now.entry == then.entry);
    assert!(same, "what was written before is as it was");
}
