//! A small signed world for tests: a lab, an agency, the operator and an overseer, with keys, a model, a roster, and grants,
//! all through a real journal on a real disk in a temporary folder, under a clock that tests move.
//!
//! [`World::new`] stops before the first grant; [`World::granted`] has one grant in force with one run credential.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]
#![expect(dead_code, reason = "one helper for many suites; not each needs everything")]

use std::sync::{Arc, Mutex};

use anteroom_policy::{
    claim::ReadClaim,
    command::{Act, CallCommand, Command, Finish, Reply},
    event::CallerId,
    judge::{Judgement, Verdict},
    refusal::Refusal,
    rules,
};
use anteroom_proto::{
    ledger::{
        chain::body_mac,
        checkpoint::LogTrust,
        note::{KeyName, NoteSigner},
        scope::{Scope, TagKey},
    },
    names::{CallId, Digest, GrantId, LockId, OrgId, RunId},
    rpc::{CallClaim, CallRequest, ClockClaim, OutcomeClaim, SignedStatement},
    statement::{
        Payload,
        acts::{Acceptance, Lock, LockTarget, Offer, Resume, RunCredential, Stop, StopKind},
        envelope::{Signer, SignerError, sign_claim, sign_json},
        key::{Algorithm, PublicKey},
        key_set::{Enrolment, KeyRole, KeySet, OrgKind, RoleKey, Thresholds, fingerprint},
        model::Registration,
        roster::{PrivatePerson, Roster, commit},
        terms::Terms,
    },
    time::{At, HOUR_MS},
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::{
    book::{
        disk::{Disk, RealDisk, lossy::LossyDisk},
        keyring::{Kek, Keyring},
        store::Segments,
        wal::Config,
    },
    clock::{ScriptedTime, Timekeeper},
    entropy::{self, SystemEntropy},
    identity::{Authority, Conn, Identity, Principal, Role},
    journal::{
        Committed, Journal, Snapshots,
        recover::RecoverError,
        writer::{self, WriterConfig},
    },
};

/// When the world begins.
pub(crate) const START_MS: i64 = 1_800_000_000_000;
/// The log's name.
pub(crate) const ORIGIN: &str = "broker.test/log";
/// The model line.
pub(crate) const LINE: &str = "m1";
/// The planned run.
pub(crate) const RUN: &str = "run-1";
/// The person on the roster.
pub(crate) const PSEUDONYM: &str = "p-1";

/// `N` random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    entropy::bytes(&mut SystemEntropy::new())
}

/// An Ed25519 key.
#[derive(Clone)]
pub(crate) struct Key {
    pair: Arc<Ed25519KeyPair>,
    public: PublicKey,
}

impl Key {
    /// A new one.
    pub(crate) fn generate() -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&random::<32>()).unwrap();
        let public = PublicKey::new(Algorithm::Ed25519, pair.public_key().as_ref().to_vec()).unwrap();
        Self { pair: Arc::new(pair), public }
    }
}

impl Signer for Key {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.pair.sign(message).as_ref().to_vec())
    }
}

/// An organisation with one key in each role.
#[derive(Clone)]
pub(crate) struct Party {
    pub(crate) org: OrgId,
    pub(crate) root: Key,
    pub(crate) signer: Key,
    /// Another signer, for what takes two people.
    pub(crate) second: Key,
    pub(crate) roster: Key,
    pub(crate) connector: Key,
    /// A lab's, in the operator's hands.
    pub(crate) direct: Key,
    pub(crate) stop: Key,
    pub(crate) witness: Key,
    pub(crate) oversight: Key,
    pub(crate) key_set: SignedStatement,
    pub(crate) enrolment: SignedStatement,
    pub(crate) nonces: Enrolment,
}

impl Party {
    /// Makes its keys and signs its first key set and enrolment.
    pub(crate) fn new(org: &str, kind: OrgKind) -> Self {
        let org = OrgId::parse(org).unwrap();
        let [root, signer, second, roster, connector, direct, stop, witness, oversight] =
            std::array::from_fn(|_| Key::generate());
        let mut keys = vec![(KeyRole::Root, &root), (KeyRole::Stop, &stop)];
        if kind != OrgKind::Operator {
            keys.extend([(KeyRole::Signer, &signer), (KeyRole::Roster, &roster), (KeyRole::Connector, &connector)]);
            keys.extend([(KeyRole::Signer, &second), (KeyRole::Witness, &witness), (KeyRole::Oversight, &oversight)]);
        }
        if kind == OrgKind::Lab {
            keys.push((KeyRole::Direct, &direct));
        }
        let keys = keys.into_iter().map(|(role, key)| RoleKey { role, key: key.public.clone() }).collect();
        let threshold = Thresholds { root: 1, signer: u8::from(kind != OrgKind::Operator) };
        let set = KeySet { org: org.clone(), kind, version: 1, previous: None, threshold, keys };
        let key_set = sign_json(&set, &[&root]).unwrap();
        let nonces = Enrolment {
            org: org.clone(),
            key_set: fingerprint(&key_set),
            nonce: Digest::from_bytes(random()),
            roster_nonce: Digest::from_bytes(random()),
            reads_nonce: Digest::from_bytes(random()),
        };
        let enrolment = sign_json(&nonces, &[&root]).unwrap();
        Self {
            org,
            root,
            signer,
            second,
            roster,
            connector,
            direct,
            stop,
            witness,
            oversight,
            key_set,
            enrolment,
            nonces,
        }
    }

    /// The key set's fingerprint.
    pub(crate) fn fingerprint(&self) -> Digest {
        fingerprint(&self.key_set)
    }

    /// A caller of this organisation.
    pub(crate) fn caller(&self, role: Role, name: &str) -> CallerId {
        CallerId { org: self.org.clone(), role: role.as_str().into(), name: name.into() }
    }

    /// A connection of one of its members, as the listener makes it after the handshake.
    pub(crate) fn conn(&self, role: Role, name: &str) -> Arc<Conn> {
        let principal = Principal::new(self.org.as_str(), role, name).unwrap();
        let identity = Identity {
            principal,
            serial: "01".to_owned(),
            not_after_ms: START_MS + 9000 * HOUR_MS,
            fingerprint: [0; 32],
        };
        Arc::new(Conn::new(([127, 0, 0, 1], 1).into(), identity, Authority::BuiltIn, Vec::new()))
    }

    /// A payload signed with its signer key.
    pub(crate) fn signed<P: Payload>(&self, payload: &P) -> SignedStatement {
        sign_json(payload, &[&self.signer]).unwrap()
    }
}

/// Puts `conn` into every request, as the listener does.
pub(crate) fn as_peer(
    conn: Arc<Conn>,
) -> impl FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> + Clone {
    move |mut request| {
        request.extensions_mut().insert(Arc::clone(&conn));
        Ok(request)
    }
}

/// What a call needs to be signed.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) grant: GrantId,
    pub(crate) terms: Arc<Terms>,
    pub(crate) terms_bytes: Arc<[u8]>,
    pub(crate) offer: SignedStatement,
    pub(crate) acceptance: SignedStatement,
    pub(crate) run: RunId,
    pub(crate) workload: Key,
    pub(crate) credential: Digest,
}

impl Access {
    /// Keys the grant's tags.
    pub(crate) fn tag_key(&self) -> TagKey {
        Scope::Grant(self.grant).tag_key(&self.terms.nonce)
    }
}

/// The world.
pub(crate) struct World {
    pub(crate) journal: Journal,
    pub(crate) time: ScriptedTime,
    pub(crate) clock: Arc<Timekeeper>,
    pub(crate) log: Arc<NoteSigner>,
    pub(crate) system_nonce: Digest,
    pub(crate) operator: Party,
    pub(crate) lab: Party,
    pub(crate) agency: Party,
    pub(crate) overseer: Party,
    pub(crate) manifest: Digest,
    pub(crate) manifest_bytes: Arc<[u8]>,
    pub(crate) roster: Digest,
    /// The person on the roster; signs run credentials.
    pub(crate) person: Key,
    pub(crate) folder: tempfile::TempDir,
    /// Where the log lies if not in the folder.
    pub(crate) disks: Option<Disks>,
    pub(crate) kek: [u8; 32],
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Disks that forget. One handle for all starts: the lock is the process's.
pub(crate) struct Disks {
    pub(crate) wal: Arc<LossyDisk>,
    pub(crate) keys: Arc<LossyDisk>,
    pub(crate) snapshots: Arc<LossyDisk>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.journal.close();
        if let Some(writer) = self.writer.lock().unwrap().take() {
            // The folder goes when the thread has let go of it; a panic in it shows in what the test saw.
            let _ = writer.join();
        }
    }
}

impl World {
    /// Opens a log, enrols everybody, registers one build of [`LINE`] and publishes the roster. The clock is confirmed.
    pub(crate) async fn new() -> Self {
        Self::on(None).await
    }

    /// As [`World::new`], on disks in memory, with the state written down at the end.
    pub(crate) async fn lossy() -> Self {
        let new = || Arc::new(LossyDisk::new());
        Self::on(Some(Disks { wal: new(), keys: new(), snapshots: new() })).await
    }

    async fn on(disks: Option<Disks>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let time = ScriptedTime::new(START_MS);
        let clock = Arc::new(Timekeeper::start(Arc::new(time.clone()), None).unwrap());
        clock.confirm(START_MS).unwrap();
        let origin = KeyName::parse(ORIGIN).unwrap();
        let log = Arc::new(NoteSigner::from_seed(origin, &random::<32>()));
        let kek = random();
        let config = config(folder.path(), disks.as_ref(), kek, &log, &clock);
        let (journal, writer) = writer::start(config).unwrap();
        let manifest_bytes: Arc<[u8]> = json!({
            "lab": "acme", "line": LINE, "build": "b1", "variants": ["standard"],
            "digests": [{"name": "weights", "sha256": "07".repeat(32)}],
            "features": {"chat": true, "completions": true, "embeddings": true, "streaming": true},
        })
        .to_string()
        .into_bytes()
        .into();
        let mut world = Self {
            journal,
            time,
            clock,
            log,
            system_nonce: Digest::from_bytes(random()),
            operator: Party::new("operator", OrgKind::Operator),
            lab: Party::new("acme", OrgKind::Lab),
            agency: Party::new("aisi", OrgKind::Agency),
            overseer: Party::new("overseer", OrgKind::Oversight),
            manifest: Digest::of(&manifest_bytes),
            manifest_bytes,
            roster: Digest::from_bytes([0; 32]),
            person: Key::generate(),
            folder,
            disks,
            kek,
            writer: Mutex::new(Some(writer)),
        };
        world.begin().await;
        world
    }

    /// Closes the log in order and starts again from what is on disk.
    pub(crate) fn restart(&mut self) -> Result<(), RecoverError> {
        self.close();
        let config = config(self.folder.path(), self.disks.as_ref(), self.kek, &self.log, &self.clock);
        let (journal, writer) = writer::start(config)?;
        self.journal = journal;
        *self.writer.lock().unwrap() = Some(writer);
        Ok(())
    }

    /// Closes the log in order.
    pub(crate) fn close(&self) {
        self.journal.close();
        if let Some(writer) = self.writer.lock().unwrap().take() {
            writer.join().unwrap();
        }
    }

    /// Waits until the log has stopped by itself.
    pub(crate) fn ended(&self) {
        if let Some(writer) = self.writer.lock().unwrap().take() {
            writer.join().unwrap();
        }
    }

    async fn begin(&mut self) {
        let log_key = self.log.verifier().to_string();
        let open = Command::Open { origin: ORIGIN.to_owned(), log_key, nonce: self.system_nonce };
        let _ = self.journal.submit(open).await.unwrap();
        let trusted = Command::Clock {
            trust: anteroom_policy::event::ClockTrust::Trusted,
            source: "test".to_owned(),
            wall: START_MS,
        };
        let _ = self.journal.submit(trusted).await.unwrap();
        for party in [&self.operator, &self.lab, &self.agency, &self.overseer] {
            let act = Act {
                caller: party.caller(Role::Admin, "admin"),
                statement: party.enrolment.clone(),
                attachment: Vec::new().into(),
                key_set: Some(party.key_set.clone()),
                cut: None,
            };
            done(self.journal.submit(Command::Act(Box::new(act))).await.unwrap());
        }
        let registration = Registration {
            lab: self.lab.org.clone(),
            line: LINE.parse().unwrap(),
            manifest: self.manifest,
            supersedes: None,
        };
        let statement = self.lab.signed(&registration);
        done(self.act(&self.lab, statement, &self.manifest_bytes).await);
        let salt = Digest::from_bytes(random());
        let rest = json!({"name": "A. Person", "citizenships": ["US"]}).to_string();
        let roster: Roster = serde_json::from_value(json!({
            "org": self.agency.org,
            "people": [{
                "pseudonym": PSEUDONYM, "key": self.person.public, "employer": "aisi", "us_person": "yes",
                "us_only": "yes", "rel_to_ok": ["USA"], "clearance": 1, "read_ins": ["PROPIN"],
                "valid_from_ms": START_MS - HOUR_MS, "valid_until_ms": START_MS + 8000 * HOUR_MS,
                "trained_until_ms": START_MS + 8000 * HOUR_MS, "rest": commit(&salt, &rest),
            }],
        }))
        .unwrap();
        let private = vec![PrivatePerson { pseudonym: PSEUDONYM.parse().unwrap(), salt, rest }];
        let statement = sign_json(&roster, &[&self.agency.roster]).unwrap();
        self.roster = Digest::of(&statement.payload);
        done(self.act(&self.agency, statement, &serde_json::to_vec(&private).unwrap()).await);
    }

    /// A world with one grant in force.
    pub(crate) async fn granted() -> (Self, Access) {
        Self::granted_with(|_| {}).await
    }

    /// A world with one grant in force whose terms `change` has changed.
    pub(crate) async fn granted_with(change: impl FnOnce(&mut Value)) -> (Self, Access) {
        let world = Self::new().await;
        let access = world.grant(change).await;
        (world, access)
    }

    /// The clock as decisions see it.
    pub(crate) fn now(&self) -> At {
        self.journal.now().at
    }

    /// Belief in the log's key alone.
    pub(crate) fn trust(&self) -> LogTrust {
        LogTrust::log_only(self.log.verifier().clone()).unwrap()
    }

    /// Hands in an act as the party's admin.
    pub(crate) async fn act(&self, party: &Party, statement: SignedStatement, attachment: &[u8]) -> Committed {
        let act = Act {
            caller: party.caller(Role::Admin, "admin"),
            statement,
            attachment: attachment.into(),
            key_set: None,
            cut: None,
        };
        self.journal.submit(Command::Act(Box::new(act))).await.unwrap()
    }

    /// Terms as JSON: a week, generous budgets, chat, completions and embeddings, streaming.
    pub(crate) fn terms(&self, grant: GrantId) -> Value {
        let party = |party: &Party| json!({"org": party.org, "key_set": party.fingerprint()});
        json!({
            "version": 1,
            "grant": grant,
            "nonce": Digest::from_bytes(random()),
            "lab": party(&self.lab),
            "agency": party(&self.agency),
            "sponsor": party(&self.agency),
            "instrument": "agreement 1",
            "model": {"line": LINE, "builds": [self.manifest], "variants": ["standard"]},
            "window": {
                "start_ms": null, "term_ms": 168 * HOUR_MS, "partner_release_ms": null,
                "accept_by_ms": self.now().plus_ms(24 * HOUR_MS), "pause_ms_max": null,
            },
            "features": {"chat": true, "completions": true, "embeddings": true, "streaming": true, "messages": true},
            "roster": self.roster,
            "runs": [{
                "id": RUN, "purpose": "evaluate", "budget": {"calls": 100_000, "tokens": 1_000_000_000, "open": 1000},
                "content_profile": "default",
            }],
            "limits": {
                "body_bytes_max": 65_536, "tokens_max": 65_536, "default_max_tokens": 256, "image_tokens": 1000,
            },
            "budget": {"calls": 100_000, "tokens": 1_000_000_000, "open": 1000},
            "marking": {"level": 0},
            "policy": {"baseline": rules::baseline_digest(), "additions": ""},
            "endpoint": "connector",
            "scanner_locks": "run",
        })
    }

    /// Offers a grant: its identifier, terms' bytes and offer.
    pub(crate) async fn offer(&self, change: impl FnOnce(&mut Value)) -> (GrantId, Arc<[u8]>, SignedStatement) {
        let grant = GrantId::from_bytes(random());
        let mut terms = self.terms(grant);
        change(&mut terms);
        let bytes: Arc<[u8]> = terms.to_string().into_bytes().into();
        let offer =
            Offer { grant, terms: Digest::of(&bytes), lab: self.lab.org.clone(), key_set: self.lab.fingerprint() };
        let offer = self.lab.signed(&offer);
        done(self.act(&self.lab, offer.clone(), &bytes).await);
        (grant, bytes, offer)
    }

    /// The agency's signature under an offer.
    pub(crate) fn acceptance(&self, grant: GrantId, terms: &[u8], offer: &SignedStatement) -> SignedStatement {
        self.agency.signed(&Acceptance {
            grant,
            terms: Digest::of(terms),
            offer: Digest::of(&offer.payload),
            agency: self.agency.org.clone(),
            key_set: self.agency.fingerprint(),
        })
    }

    /// Offers and accepts a grant and issues a run credential for 72 hours.
    pub(crate) async fn grant(&self, change: impl FnOnce(&mut Value)) -> Access {
        let (grant, terms_bytes, offer) = self.offer(change).await;
        let acceptance = self.acceptance(grant, &terms_bytes, &offer);
        done(self.act(&self.agency, acceptance.clone(), &[]).await);
        let workload = Key::generate();
        let run: RunId = RUN.parse().unwrap();
        let credential = self.credential(grant, &run, &workload).await;
        let terms = Arc::new(Terms::parse(&terms_bytes).unwrap());
        Access { grant, terms, terms_bytes, offer, acceptance, run, workload, credential }
    }

    /// Issues a run credential from this instant on for 72 hours; its digest.
    pub(crate) async fn credential(&self, grant: GrantId, run: &RunId, workload: &Key) -> Digest {
        let credential = RunCredential {
            grant,
            run: run.clone(),
            org: self.agency.org.clone(),
            pseudonym: PSEUDONYM.parse().unwrap(),
            workload: workload.public.clone(),
            start_ms: self.now(),
            end_ms: self.now().plus_ms(72 * HOUR_MS),
        };
        let statement = sign_json(&credential, &[&self.person]).unwrap();
        let digest = Digest::of(&statement.payload);
        done(self.act(&self.agency, statement, &[]).await);
        digest
    }

    /// A stop signed by `party`'s stop key.
    pub(crate) fn stop(&self, party: &Party, grant: GrantId, stop: StopKind) -> SignedStatement {
        let stop =
            Stop { stop, grant, by: party.org.clone(), id: LockId::from_bytes(random()), reason: "test".to_owned() };
        sign_json(&stop, &[&party.stop]).unwrap()
    }

    /// The end of a pause.
    pub(crate) fn resume(&self, party: &Party, grant: GrantId, pause: LockId) -> SignedStatement {
        party.signed(&Resume { grant, by: party.org.clone(), pause, reason: "test".to_owned() })
    }

    /// A lock signed by `party`'s stop key.
    pub(crate) fn lock(&self, party: &Party, target: LockTarget) -> SignedStatement {
        let lock = Lock { id: LockId::from_bytes(random()), by: party.org.clone(), target, reason: "test".to_owned() };
        sign_json(&lock, &[&party.stop]).unwrap()
    }

    /// A signed call by `route` with this body.
    pub(crate) fn call(&self, access: &Access, route: &str, body: &str) -> CallRequest {
        self.call_as(access, CallId::new(self.now().ms(), random()), route, body)
    }

    /// A signed call of this identifier.
    pub(crate) fn call_as(&self, access: &Access, call: CallId, route: &str, body: &str) -> CallRequest {
        let body_key: [u8; 32] = random();
        let claim = CallClaim {
            grant: access.grant.as_bytes().to_vec(),
            run: access.run.to_string(),
            credential: access.credential.as_bytes().to_vec(),
            call: call.as_bytes().to_vec(),
            route: route.to_owned(),
            body_mac: body_mac(&body_key, body.as_bytes()).to_vec(),
            marking: None,
            at_ms: self.now().ms(),
            seen_size: 0,
            seen_root: Vec::new(),
        };
        CallRequest {
            claim: Some(sign_claim(&claim, &access.workload).unwrap()),
            body: body.as_bytes().to_vec().into(),
            body_key: body_key.to_vec(),
        }
    }

    /// A connector's signed clock.
    pub(crate) fn clock_claim(&self, challenge: &[u8]) -> SignedStatement {
        self.clock_by(&self.lab.connector, challenge)
    }

    /// A clock signed with this key.
    pub(crate) fn clock_by(&self, key: &Key, challenge: &[u8]) -> SignedStatement {
        let claim = ClockClaim {
            org: self.lab.org.to_string(),
            connector: "conn-1".to_owned(),
            at_ms: self.now().ms(),
            challenge: challenge.to_vec(),
        };
        sign_claim(&claim, key).unwrap()
    }

    /// A connector's signed outcome.
    pub(crate) fn outcome(&self, claim: &OutcomeClaim) -> SignedStatement {
        sign_claim(claim, &self.lab.connector).unwrap()
    }
}

fn config(
    folder: &std::path::Path,
    disks: Option<&Disks>,
    kek: [u8; 32],
    log: &Arc<NoteSigner>,
    clock: &Arc<Timekeeper>,
) -> WriterConfig {
    let real = |name: &str| Arc::new(RealDisk::open_or_create(&folder.join(name)).unwrap());
    let (wal, keys): (Arc<dyn Disk>, Arc<dyn Disk>) = match disks {
        Some(disks) => (Arc::<LossyDisk>::clone(&disks.wal), Arc::<LossyDisk>::clone(&disks.keys)),
        None => (real("wal"), real("keys")),
    };
    WriterConfig {
        store: Arc::new(Segments {
            disk: wal,
            origin: ORIGIN.to_owned(),
            sizes: Config { segment_bytes: 1 << 20, reserve_bytes: 1 << 18 },
        }),
        broker: None,
        keyring: Keyring::open(keys, Kek::from_bytes(&kek).unwrap()).unwrap(),
        tiles: None,
        snapshots: disks.map(|disks| Snapshots::new(Arc::<LossyDisk>::clone(&disks.snapshots))),
        snapshot_every: writer::SNAPSHOT_EVERY,
        origin: KeyName::parse(ORIGIN).unwrap(),
        signer: Arc::clone(log),
        clock: Arc::clone(clock),
        entropy: Box::new(SystemEntropy::new()),
        fatal: Box::new(|_| {}),
    }
}

/// Admits a call past the relay, and finishes it if `ended`.
pub(crate) async fn called(world: &World, access: &Access, ended: bool) -> CallId {
    let request = world.call(access, "chat/completions", &chat(false));
    let held = world.journal.standing().grants[&access.grant].credentials[&access.credential].clone();
    let body_key = request.body_key.as_slice().try_into().unwrap();
    let claim = ReadClaim::read(request.claim.unwrap()).unwrap().verify(&held, &request.body, &body_key).unwrap();
    let call = claim.call();
    let judgement =
        Judgement { policy_digest: rules::digest(&access.terms), verdict: Verdict::Allow, reasons: Vec::new() };
    let command = CallCommand {
        caller: world.agency.caller(Role::Workload, "w-1"),
        claim,
        body_key,
        facts: Vec::new().into(),
        judgement,
        judged_by: Digest::of(&access.terms_bytes),
        scanner_locks: false,
        hold: 100,
        slot: true,
        build: None,
    };
    let committed = world.journal.submit(Command::Call(Box::new(command))).await.unwrap();
    assert!(matches!(committed.reply, Reply::Admitted { .. }), "{:?}", committed.reply);
    if ended {
        let finish = Finish {
            call,
            end: "completed",
            outcome: None,
            released_events: 0,
            released_chain: [0; 32],
            used: Some(7),
            status: 200,
            cut: None,
            scanner_locks: false,
        };
        let _ = world.journal.submit(Command::Finish(Box::new(finish))).await.unwrap();
    }
    call
}

/// A chat body.
pub(crate) fn chat(stream: bool) -> String {
    json!({"model": LINE, "stream": stream, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]})
        .to_string()
}

/// Demands that the answer is a record or a repetition.
#[track_caller]
pub(crate) fn done(committed: Committed) {
    assert!(matches!(committed.reply, Reply::Done { .. } | Reply::Repeated { .. }), "{:?}", committed.reply);
}

/// The refusal of an answer, if it is one.
pub(crate) fn refused(committed: &Committed) -> Option<Refusal> {
    match &committed.reply {
        Reply::Refused { refusal, .. } => Some(*refusal),
        Reply::Done { .. }
        | Reply::Repeated { .. }
        | Reply::Admitted { .. }
        | Reply::CallRepeated { .. }
        | Reply::Stale
        | Reply::Noted => None,
    }
}

#[tokio::test]
async fn the_world_holds_a_grant_in_force() {
    let (world, access) = World::granted().await;
    let standing = world.journal.standing();
    let grant = &standing.grants[&access.grant];
    assert_eq!(grant.standing(world.now(), None), "accepted");
    assert!(grant.credentials.contains_key(&access.credential));
    assert!(world.journal.now().trusted);
}
