//! What an operator could try, over the wire, with the log's key, the whole log and the broker's certificate in its hands; and who
//! notices. The table that is printed is the test's result.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use anteroom_broker::demo::cast::{AGENCY, LAB, LINE};
use anteroom_proto::{
    ledger::record::Audience,
    names::{Digest, ModelLine, OrgId, Variant},
    rpc::{self, Dispatch, Dossier, SignedStatement, call_event, serve_down, serve_up},
    statement::{
        acts::{Acceptance, Offer, RunCredential},
        envelope::{self, Signer},
        key_set::{KeyRole, KeySet, RoleKey},
        roster::Roster,
        terms::{Endpoint, Terms},
    },
    time::HOUR_MS,
};
use anteroom_sdk::{
    connector::{
        Clock, Config, Connector, Pinned, Served, Slots,
        upstream::{Upstream, UpstreamLimits},
    },
    error::Error,
    evaluator::{Route, StreamItem},
    home::{Brokers, Home, HomeError, Use},
    signer::KeyFile,
    witness::{PartyError, Turn},
};
use anteroom_tests::e2e::{
    Fallible,
    broker::Broker,
    caller::{Caller, chat, chat_whole, rest},
    forge::{Draft, Forge},
    liar::{FakeSlot, Liar, Lies},
    model::Model,
    programs,
    scene::{Scene, plan},
    wait::{soon, until},
};
use tempfile::TempDir;

/// One lie, whom it was told to, and what came of it.
struct Row {
    lie: &'static str,
    told_to: &'static str,
    noticed: String,
}

/// The stage: an honest broker, a lying one, and what the liar knows.
struct Stage {
    scene: Scene,
    broker: Broker,
    liar: Liar,
    caller: Caller,
    dossier: Dossier,
    rows: Vec<Row>,
}

impl Stage {
    async fn start() -> Self {
        let (scene, broker) = Scene::start(std::time::Duration::ZERO).await;
        let caller = scene.granted(&plan()).await;
        assert_eq!(caller.stream(chat("an honest call", 4)).await.end, None);
        let channel = scene.cast.lab.channel(Use::Act).await.unwrap();
        let dossier = scene.cast.lab.fetch_dossier(&channel, caller.grant).await.unwrap();
        let liar = Liar::start(&broker.data(), &scene.cast.lab, &scene.cast.agency).await.unwrap();
        Self { scene, broker, liar, caller, dossier, rows: Vec::new() }
    }

    /// What the operator makes of its log.
    fn forge(&self) -> Forge {
        Forge::of(&self.broker.data())
    }

    fn credential(&self) -> SignedStatement {
        let named = |held: &&SignedStatement| Digest::of(&held.payload) == self.caller.credential;
        self.dossier.credentials.iter().find(named).unwrap().clone()
    }

    fn note(&mut self, told_to: &'static str, lie: &'static str, noticed: String) {
        println!("{told_to:<10} {lie:<62} {noticed}");
        self.rows.push(Row { lie, told_to, noticed });
    }

    /// A copy of a party's folder that talks to the liar, so that no lie leaves a mark on the next.
    fn copy(&self, home: &Home) -> (Home, TempDir) {
        let folder = Liar::party(home);
        let home = Home::open(&folder.path().join("home")).unwrap();
        (home.with_addr(&self.liar.address().to_string()), folder)
    }

    async fn connector(&self, model: &Model) -> Fallible<(Connector, TempDir)> {
        let (lab, folder) = self.copy(&self.scene.cast.lab);
        let line = ModelLine::parse(LINE)?;
        let config = Config {
            brokers: Brokers::one(lab.channel(Use::Serve).await?),
            name: "connector-2".to_owned(),
            signer: lab.signer("connector")?,
            served: Served {
                trust: lab.log_trust()?,
                lab: OrgId::parse(LAB)?,
                line,
                manifest: self.scene.cast.manifest(LINE)?,
                variants: vec![Variant::parse("standard")?],
                endpoint: Endpoint::Connector,
            },
            pinned: Pinned {
                lab: lab.fingerprint()?,
                agencies: BTreeMap::from([(OrgId::parse(AGENCY)?, self.scene.cast.agency.fingerprint()?)]),
            },
            upstream: Upstream::new(model.base_url(), None, UpstreamLimits::default())?,
            slots: Slots { idle_min: 1, max: 1 },
            clock: Clock::system(),
            dir: folder.path().join("connector"),
            switch: folder.path().join("connector"),
        };
        Ok((Connector::start(config)?, folder))
    }
}

/// Opens a slot on the liar's log.
async fn opened(liar: &mut Liar, forge: &Forge) -> FakeSlot {
    let mut slot = liar.slot().await;
    let hello = slot.hello().await;
    slot.welcome(forge.extension(hello.seen_size, forge.size())).await;
    slot
}

/// What the connector says of a dispatch: `served`, or the code of its refusal.
async fn verdict(slot: &mut FakeSlot, dispatch: Dispatch) -> String {
    slot.say(serve_down::Message::Dispatch(dispatch)).await;
    match slot.next_but_clocks().await {
        Some(serve_up::Message::Claim(_)) => {
            while let Some(message) = slot.next_but_clocks().await {
                if matches!(message, serve_up::Message::Done(_)) {
                    break;
                }
            }
            "served".to_owned()
        }
        Some(serve_up::Message::Done(done)) => done.refused,
        other => panic!("neither taken nor refused: {other:?}"),
    }
}

type Bend = Box<dyn Fn(&Stage, &mut Forge) -> (Dispatch, Option<Dossier>)>;

/// An admission under the honest dossier, bent before it is recorded.
fn bent(bend: impl Fn(&mut Draft) + 'static) -> Bend {
    Box::new(move |stage, forge| {
        let mut draft = forge.draft(&stage.dossier, &stage.credential());
        bend(&mut draft);
        (forge.dispatch(draft, &stage.caller.workload), None)
    })
}

/// Dates an admission, and with it the window that a first call starts.
fn dated(draft: &mut Draft, off_ms: i64) {
    draft.at = draft.at.plus_ms(off_ms);
    draft.event.end_ms += off_ms;
}

/// An honest admission, altered on its way.
fn altered(alter: impl Fn(&mut Dispatch) + 'static) -> Bend {
    Box::new(move |stage, forge| {
        let draft = forge.draft(&stage.dossier, &stage.credential());
        let mut dispatch = forge.dispatch(draft, &stage.caller.workload);
        alter(&mut dispatch);
        (dispatch, None)
    })
}

/// A call under papers that the operator made up, signed by whatever key they name.
fn papers(make: impl Fn(&Stage, &KeyFile, &mut Dossier) + 'static) -> Bend {
    Box::new(move |stage, forge| {
        let own = KeyFile::from_seed(&[99; 32]).unwrap();
        let mut dossier = stage.dossier.clone();
        make(stage, &own, &mut dossier);
        let credential = dossier.credentials.last().unwrap().clone();
        let draft = forge.draft(&dossier, &credential);
        let named: RunCredential = envelope::read_json(&credential).unwrap();
        let dispatch = if named.workload == *own.public_key() {
            forge.dispatch(draft, &own)
        } else {
            forge.dispatch(draft, &stage.caller.workload)
        };
        (dispatch, Some(dossier))
    })
}

/// Lets the operator's own key act in a run, in the name of a rostered person, signed by `signer`.
fn credential_by(
    stage: &Stage,
    own: &KeyFile,
    grant: anteroom_proto::names::GrantId,
    signer: &dyn Signer,
) -> SignedStatement {
    let mut credential: RunCredential = envelope::read_json(&stage.credential()).unwrap();
    credential.grant = grant;
    credential.workload = own.public_key().clone();
    envelope::sign_json(&credential, &[signer]).unwrap()
}

fn terms(dossier: &Dossier) -> Terms {
    Terms::parse(&dossier.terms).unwrap()
}

/// Puts other terms in force: offered by one key, accepted by another.
fn agree(dossier: &mut Dossier, terms: &Terms, lab: &dyn Signer, agency: &dyn Signer) {
    let bytes = serde_json::to_vec_pretty(terms).unwrap();
    let offer =
        Offer { grant: terms.grant, terms: Digest::of(&bytes), lab: terms.lab.org.clone(), key_set: terms.lab.key_set };
    let offer = envelope::sign_json(&offer, &[lab]).unwrap();
    let acceptance = Acceptance {
        grant: terms.grant,
        terms: Digest::of(&bytes),
        offer: Digest::of(&offer.payload),
        agency: terms.agency.org.clone(),
        key_set: terms.agency.key_set,
    };
    dossier.acceptance = Some(envelope::sign_json(&acceptance, &[agency]).unwrap());
    dossier.offer = Some(offer);
    dossier.terms = bytes;
}

/// What is dispatched, and what the connector has to say to it.
fn dispatches() -> Vec<(&'static str, Bend, &'static str)> {
    let key = |stage: &Stage, home: &str| {
        let home = if home == LAB { &stage.scene.cast.lab } else { &stage.scene.cast.agency };
        home.signer("signer").unwrap()
    };
    vec![
        ("nothing: the call is honest", bent(|_| {}), "served"),
        (
            "a call that nobody made, its claim signed by the operator",
            Box::new(|stage, forge| {
                let draft = forge.draft(&stage.dossier, &stage.credential());
                let own = KeyFile::from_seed(&[99; 32]).unwrap();
                (forge.dispatch(draft, &own), None)
            }),
            "claim_invalid",
        ),
        ("another person than the caller", bent(|draft| draft.event.pseudonym = "p-2".to_owned()), "claim_invalid"),
        ("another body than the caller's", altered(|dispatch| dispatch.body = b"{}".to_vec().into()), "body_mismatch"),
        (
            "a person that the agency never named",
            papers(|stage, own, dossier| {
                let mut roster: Roster = Roster::parse(dossier.roster.as_ref().unwrap()).unwrap();
                for person in &mut roster.people {
                    person.key = own.public_key().clone();
                }
                dossier.roster = Some(envelope::sign_json(&roster, &[own]).unwrap());
                let grant = terms(dossier).grant;
                dossier.credentials.push(credential_by(stage, own, grant, own));
            }),
            "dossier_invalid",
        ),
        (
            "a run credential that the person never signed",
            papers(|stage, own, dossier| {
                let grant = terms(dossier).grant;
                dossier.credentials.push(credential_by(stage, own, grant, own));
            }),
            "dossier_invalid",
        ),
        (
            "a grant that neither side signed",
            papers(move |stage, own, dossier| {
                let mut made = terms(dossier);
                made.grant = anteroom_proto::names::GrantId::from_bytes([5; 16]);
                agree(dossier, &made, own, own);
                dossier.credentials = vec![credential_by(stage, own, made.grant, own)];
            }),
            "dossier_invalid",
        ),
        (
            "an acceptance that the agency never signed",
            papers(move |stage, own, dossier| {
                let made = terms(dossier);
                agree(dossier, &made, &key(stage, LAB), own);
            }),
            "dossier_invalid",
        ),
        (
            "an offer that the lab never signed",
            papers(move |stage, own, dossier| {
                let mut made = terms(dossier);
                made.budget.calls += 1;
                agree(dossier, &made, own, &key(stage, AGENCY));
            }),
            "dossier_invalid",
        ),
        (
            "terms with one more budget under the honest signatures",
            papers(|_, _, dossier| {
                let mut made = terms(dossier);
                made.budget.calls += 1;
                dossier.terms = serde_json::to_vec_pretty(&made).unwrap();
            }),
            "dossier_invalid",
        ),
        (
            "a new key set of the lab, signed by the operator",
            papers(|stage, own, dossier| {
                let first = dossier.lab_key_sets.first().unwrap();
                let mut next: KeySet = KeySet::first(first).unwrap();
                next.version = 2;
                next.previous = Some(Digest::of(&first.payload));
                next.keys.push(RoleKey { role: KeyRole::Signer, key: own.public_key().clone() });
                dossier.lab_key_sets.push(envelope::sign_json(&next, &[own]).unwrap());
                let grant = terms(dossier).grant;
                dossier.credentials.push(credential_by(stage, own, grant, own));
            }),
            "dossier_invalid",
        ),
        ("a window an hour longer than signed", bent(|draft| draft.event.end_ms += HOUR_MS), "window_over"),
        ("an admission dated two hours back", bent(|draft| dated(draft, -2 * HOUR_MS)), "clock_apart"),
        ("an admission dated two hours ahead", bent(|draft| dated(draft, 2 * HOUR_MS)), "clock_apart"),
        (
            "an admission that is in no log",
            altered(|dispatch| {
                let proven = dispatch.admitted.as_mut().unwrap();
                let first = proven.path.first_mut().unwrap();
                first[0] ^= 1;
            }),
            "receipt_invalid",
        ),
        (
            "an admission under a checkpoint that another key signed",
            altered(|dispatch| {
                let proven = dispatch.admitted.as_mut().unwrap();
                let note = proven.checkpoint.replacen("anteroom.localhost/log", "anteroom.elsewhere/log", 1);
                proven.checkpoint = note;
            }),
            "receipt_invalid",
        ),
        ("no admission at all", altered(|dispatch| dispatch.admitted = None), "receipt_invalid"),
        (
            "an admission without the caller's claim",
            Box::new(|stage, forge| {
                let Draft { event, at, terms, body, .. } = forge.draft(&stage.dossier, &stage.credential());
                let body_key = event.body_key.clone();
                let admitted = forge.record(terms.grant, &terms.nonce, 40, at, &event, Audience::LAB);
                let deadline_ms = event.end_ms;
                let dispatch = Dispatch {
                    admitted: Some(admitted),
                    body: body.into(),
                    body_key,
                    deadline_ms,
                    output_tokens_max: 64,
                };
                (dispatch, None)
            }),
            "receipt_invalid",
        ),
    ]
}

async fn lies_to_a_connector(stage: &mut Stage) {
    let model = Model::start(std::time::Duration::ZERO).await;
    for (lie, bend, expected) in dispatches() {
        let mut forge = stage.forge();
        // The slot opens before the forged admission is recorded, as it would.
        let before = forge.size();
        let (dispatch, dossier) = bend(stage, &mut forge);
        let forge = Arc::new(forge);
        let (shown, told) = (Arc::clone(&forge), dossier.clone());
        stage.liar.tell(Lies {
            dossier: Box::new(move |honest| told.clone().unwrap_or(honest)),
            checkpoint: Box::new(move |seen, _| shown.extension(seen, shown.size())),
            ..Lies::default()
        });
        let (connector, _folder) = stage.connector(&model).await.unwrap();
        let mut slot = stage.liar.slot().await;
        let hello = slot.hello().await;
        slot.welcome(forge.extension(hello.seen_size, before)).await;
        let asked = model.counts().requests;
        let mut noticed = verdict(&mut slot, dispatch.clone()).await;
        assert_eq!(noticed, expected, "{lie}");
        let reached = model.counts().requests - asked;
        assert_eq!(reached, u64::from(expected == "served"), "{lie}: no receipt, no tokens");
        if expected == "served" {
            let again = verdict(&mut slot, dispatch).await;
            assert_eq!(again, "call_seen");
            assert_eq!(model.counts().requests - asked, 1);
            stage.note("connector", "the same call, dispatched twice", again);
        } else {
            noticed = format!("refused: {noticed}");
        }
        stage.note("connector", lie, noticed);
        drop(connector);
    }

    // Two histories: the second welcome is of a log with another end.
    let (connector, _folder) = stage.connector(&model).await.unwrap();
    let mut forge = stage.forge();
    let slot = opened(&mut stage.liar, &forge).await;
    let mut status = connector.status();
    let size = forge.size();
    soon("the first history", status.wait_for(|status| status.newest.size == size)).await.unwrap();
    drop(slot);
    forge.fork(3);
    forge.grow("and on");
    let _slot = opened(&mut stage.liar, &forge).await;
    let stopped = soon("the stop", status.wait_for(|status| status.stopped.is_some())).await.unwrap().stopped.clone();
    assert!(connector_evidence(&_folder), "both checkpoints are kept as evidence");
    stage.note("connector", "two histories", format!("stopped: {}", stopped.unwrap()));
    drop(connector);

    // A checkpoint from before the one it saw.
    let (connector, _folder) = stage.connector(&model).await.unwrap();
    let forge = stage.forge();
    let slot = opened(&mut stage.liar, &forge).await;
    let mut status = connector.status();
    soon("the newest checkpoint", status.wait_for(|status| status.newest.size == forge.size())).await.unwrap();
    drop(slot);
    let mut slot = stage.liar.slot().await;
    let hello = slot.hello().await;
    assert_eq!(hello.seen_size, forge.size());
    slot.welcome(forge.extension(hello.seen_size, forge.size() - 2)).await;
    let error =
        soon("an error", status.wait_for(|status| status.last_error.is_some())).await.unwrap().last_error.clone();
    assert_eq!(status.borrow().open, 0);
    stage.note("connector", "a checkpoint older than the one it saw", format!("slot closed: {}", error.unwrap()));
}

fn connector_evidence(folder: &TempDir) -> bool {
    let dir = folder.path().join("connector");
    dir.join("contradicting-checkpoint").exists() && dir.join("contradicted-checkpoint").exists()
}

/// A failed verification's text.
fn caught(lie: &str, result: Result<(), Error>) -> String {
    match result {
        Err(error) if error.exit_code() == 7 => error.to_string(),
        Err(error) => panic!("{lie}: failed otherwise: {error}"),
        Ok(()) => panic!("{lie}: nobody noticed"),
    }
}

fn flat(result: Result<(), HomeError>) -> Result<(), Error> {
    match result {
        Err(HomeError::Sdk(error)) => Err(error),
        Err(other) => panic!("not about the broker: {other}"),
        Ok(()) => Ok(()),
    }
}

/// Reads a grant's scope and shows that it is whole.
async fn audited(home: &Home, grant: anteroom_proto::names::GrantId) -> Result<(), Error> {
    let terms = home.terms(grant).unwrap().unwrap();
    let scope = anteroom_proto::ledger::scope::Scope::Grant(grant);
    let key = scope.tag_key(&terms.nonce);
    let mut auditor = home.auditor().await.map_err(|error| panic!("{error}")).unwrap();
    let mut reading = auditor.read(scope, key, false).await?;
    while soon("a record", reading.next()).await?.is_some() {}
    soon("the sweep", auditor.prove_whole(reading)).await.map(drop)
}

async fn lies_to_a_reader(stage: &mut Stage) {
    let grant = stage.caller.grant;
    let lies: Vec<(&'static str, Lies)> = vec![
        (
            "a record in the middle is left out",
            Lies {
                read: Box::new(|mut said| {
                    said.remove(said.len() / 2);
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "the newest record is left out",
            Lies {
                read: Box::new(|mut said| {
                    said.pop();
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "a field of a record is changed",
            Lies {
                read: Box::new(|mut said| {
                    let opening = said.last_mut().unwrap().record.as_mut().unwrap().opening.as_mut().unwrap();
                    let field = opening.open.iter_mut().rfind(|field| !field.wire.is_empty()).unwrap();
                    *field.wire.last_mut().unwrap() ^= 1;
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "an entry of the public tree is left out",
            Lies {
                entries: Box::new(|mut said| {
                    let entries = &mut said.last_mut().unwrap().entries;
                    entries.truncate(entries.len() - 48);
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "an entry of the public tree is changed",
            Lies {
                entries: Box::new(|mut said| {
                    let entries = &mut said.first_mut().unwrap().entries;
                    let mut changed = entries.to_vec();
                    changed[47] ^= 1;
                    *entries = changed;
                    said
                }),
                ..Lies::default()
            },
        ),
    ];
    stage.liar.tell(Lies::default());
    let (home, _folder) = stage.copy(&stage.scene.cast.agency);
    audited(&home, grant).await.unwrap();
    for (lie, lies) in lies {
        let (home, _folder) = stage.copy(&stage.scene.cast.agency);
        stage.liar.tell(lies);
        let noticed = caught(lie, audited(&home, grant).await);
        stage.note("reader", lie, noticed);
    }
    // One place of the scope, told twice in one consistent tree.
    let lie = "a place of the scope is used for two records";
    let (home, _folder) = stage.copy(&stage.scene.cast.agency);
    let terms = home.terms(grant).unwrap().unwrap();
    let (data, made) = (stage.broker.data(), Arc::new(OnceLock::<(Forge, [u8; 48])>::new()));
    let told = Arc::clone(&made);
    stage.liar.tell(Lies {
        checkpoint: Box::new(move |seen, honest| {
            // What is asked about the log's keys, before anything is read.
            if seen == 0 {
                return honest;
            }
            let (forge, _) = made.get_or_init(|| {
                let mut forge = Forge::of(&data);
                let entry = forge.again(grant, &terms.nonce, 2);
                (forge, entry)
            });
            forge.extension(seen, forge.size())
        }),
        entries: Box::new(move |said| {
            let (forge, entry) = told.get().unwrap();
            let mut all: Vec<u8> = said.into_iter().flat_map(|reply| reply.entries).collect();
            all.truncate((usize::try_from(forge.size()).unwrap() - 1) * 48);
            all.extend_from_slice(entry);
            vec![rpc::EntriesReply { entries: all }]
        }),
        ..Lies::default()
    });
    let noticed = caught(lie, audited(&home, grant).await);
    // The read itself is a record, so the records come under a log that the one shown before does not lead to.
    assert!(noticed.contains("another root"), "{noticed}");
    stage.note("reader", lie, noticed);
    // A fork behind what was seen; then a checkpoint from before it.
    let forks: [(&'static str, u64); 2] = [("two histories", 3), ("a checkpoint older than the one seen", 0)];
    for (lie, fork) in forks {
        let (home, _folder) = stage.copy(&stage.scene.cast.agency);
        stage.liar.tell(Lies::default());
        audited(&home, grant).await.unwrap();
        let mut forge = stage.forge();
        let size = if fork > 0 {
            forge.fork(fork);
            forge.grow("and on");
            forge.size()
        } else {
            forge.size() / 2
        };
        let lies = Lies { checkpoint: Box::new(move |seen, _| forge.extension(seen, size)), ..Lies::default() };
        stage.liar.tell(lies);
        let noticed = caught(lie, audited(&home, grant).await);
        stage.note("reader", lie, noticed);
    }
}

async fn lies_to_a_caller(stage: &mut Stage) {
    use call_event::Event;
    let event = |event| rpc::CallEvent { event: Some(event), ..rpc::CallEvent::default() };
    let streamed: Vec<(&'static str, Lies)> = vec![
        (
            "a word of the answer is changed",
            Lies {
                stream: Box::new(move |mut said| {
                    for told in &mut said {
                        if let Some(Event::Data(data)) = &mut told.event {
                            *data = data.to_vec().iter().map(|byte| if *byte == b'0' { b'1' } else { *byte }).collect();
                            break;
                        }
                    }
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "an event of the answer is left out",
            Lies {
                stream: Box::new(|mut said| {
                    said.remove(2);
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "an event is told twice",
            Lies {
                stream: Box::new(|mut said| {
                    let twice = said.get(2).unwrap().clone();
                    said.insert(2, twice);
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "the answer comes before its admission",
            Lies {
                stream: Box::new(|mut said| {
                    said.remove(0);
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "the answer ends without its end",
            Lies {
                stream: Box::new(|mut said| {
                    said.pop();
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "the end has no receipt",
            Lies {
                stream: Box::new(move |mut said| {
                    if let Some(Event::End(mut end)) = said.pop().unwrap().event {
                        end.receipt = None;
                        said.push(event(Event::End(end)));
                    }
                    said
                }),
                ..Lies::default()
            },
        ),
        (
            "the outcome is signed by the operator",
            Lies {
                stream: Box::new(move |mut said| {
                    let own = KeyFile::from_seed(&[99; 32]).unwrap();
                    if let Some(Event::End(mut end)) = said.pop().unwrap().event {
                        let outcome = end.outcome.take().unwrap();
                        let claim: rpc::OutcomeClaim = envelope::read_claim(&outcome).unwrap();
                        end.outcome = Some(envelope::sign_claim(&claim, &own).unwrap());
                        said.push(event(Event::End(end)));
                    }
                    said
                }),
                ..Lies::default()
            },
        ),
    ];
    for (lie, lies) in streamed {
        let (home, _folder) = stage.copy(&stage.scene.cast.agency);
        stage.liar.tell(Lies::default());
        let caller = Caller::open(&home, stage.caller.grant).await.unwrap();
        stage.liar.tell(lies);
        let result = async {
            let mut stream = soon("a stream", caller.evaluator.stream(Route::Chat, chat("tell me", 4))).await?;
            while let Some(item) = soon("an event", stream.next()).await? {
                if let StreamItem::End { .. } = item {
                    return Ok(());
                }
            }
            Ok(())
        };
        let noticed = caught(lie, result.await);
        stage.note("caller", lie, noticed);
    }
    let (home, _folder) = stage.copy(&stage.scene.cast.agency);
    stage.liar.tell(Lies::default());
    let caller = Caller::open(&home, stage.caller.grant).await.unwrap();
    assert_eq!(rest(&caller.evaluator, &mut caller.begin(chat("honestly", 4)).await).await.end, None);
    let lie = "a whole answer is changed";
    stage.liar.tell(Lies {
        complete: Box::new(|mut reply| {
            reply.body = reply.body.iter().map(|byte| if *byte == b'0' { b'1' } else { *byte }).collect();
            reply
        }),
        ..Lies::default()
    });
    let result = soon("an answer", caller.evaluator.complete(Route::Chat, chat_whole("tell me", 4))).await;
    let noticed = caught(lie, result.map(drop));
    stage.note("caller", lie, noticed);
}

async fn lies_to_a_party(stage: &mut Stage) {
    // The agency is shown an offer with terms that the lab never signed.
    let lie = "an offer whose terms the lab never signed";
    let grant = stage.scene.cast.offer(&plan()).await.unwrap();
    let (home, _folder) = stage.copy(&stage.scene.cast.agency);
    stage.liar.tell(Lies {
        dossier: Box::new(|mut dossier| {
            let mut made = terms(&dossier);
            made.limits.tokens_max /= 2;
            made.limits.default_max_tokens = 1;
            dossier.terms = serde_json::to_vec_pretty(&made).unwrap();
            dossier
        }),
        ..Lies::default()
    });
    let channel = home.channel(Use::Act).await.unwrap();
    let shown = home.fetch_dossier(&channel, grant).await.unwrap();
    let noticed = caught(lie, flat(home.take_offer(&shown).map(drop)));
    stage.note("agency", lie, noticed);

    let lie = "an offer that the operator signed in the lab's name";
    stage.liar.tell(Lies {
        dossier: Box::new(|mut dossier| {
            let own = KeyFile::from_seed(&[99; 32]).unwrap();
            let made = terms(&dossier);
            agree(&mut dossier, &made, &own, &own);
            dossier.acceptance = None;
            dossier
        }),
        ..Lies::default()
    });
    let shown = home.fetch_dossier(&channel, grant).await.unwrap();
    let noticed = caught(lie, flat(home.take_offer(&shown).map(drop)));
    stage.note("agency", lie, noticed);

    // The lab withdraws, and is shown something else than its withdrawal.
    let other = {
        let home = &stage.scene.cast.lab;
        let signer = home.stop_signer().unwrap();
        let mut organisation = home.organisation().await.unwrap();
        let (pause, recorded) = organisation.pause(stage.caller.grant, "a moment", &signer).await.unwrap();
        let signers = [home.signer("signer").unwrap()];
        drop(organisation.resume(stage.caller.grant, pause, "over", &signers).await.unwrap());
        drop(recorded);
        let channel = home.channel(Use::Read).await.unwrap();
        let scope = anteroom_proto::ledger::scope::Scope::Grant(stage.caller.grant).to_bytes();
        let request = rpc::ReadRequest { scope, from_seq: 0, limit: 0, follow: false };
        let mut client = rpc::audit_client::AuditClient::new(channel);
        let mut replies = client.read(request).await.unwrap().into_inner();
        let mut newest = None;
        while let Some(reply) = replies.message().await.unwrap() {
            newest = reply.record;
        }
        newest.unwrap()
    };
    let forge = stage.forge();
    let said: [(&'static str, rpc::SubmitReply); 2] = [
        (
            "a withdrawal is acknowledged with another act's record",
            rpc::SubmitReply { record: Some(other), standing: "withdrawn".to_owned(), repeated: true },
        ),
        (
            "a withdrawal is acknowledged without a record",
            rpc::SubmitReply { record: None, standing: "withdrawn".to_owned(), repeated: false },
        ),
    ];
    for (lie, reply) in said {
        let grant = stage.scene.cast.granted(&plan()).await.unwrap();
        let (home, _folder) = stage.copy(&stage.scene.cast.lab);
        stage.liar.tell(Lies { submit: Box::new(move |_| reply.clone()), ..Lies::default() });
        let result = withdraw(&home, grant).await;
        let noticed = caught(lie, result);
        stage.note("lab", lie, noticed);
    }
    // Recorded, but in a log that nobody else is shown.
    let lie = "a withdrawal is recorded in a history of its own";
    let grant = stage.scene.cast.granted(&plan()).await.unwrap();
    let (home, _folder) = stage.copy(&stage.scene.cast.lab);
    let terms = home.terms(grant).unwrap().unwrap();
    let forge = std::sync::Mutex::new(forge);
    stage.liar.tell(Lies {
        submit: Box::new(move |honest| {
            let proven = honest.record.unwrap();
            let opening = proven.opening.as_ref().unwrap();
            let opened = anteroom_proto::ledger::record::Opened::check(opening).unwrap();
            let event: rpc::GrantWithdrawn = opened.event().unwrap();
            let mut forge = forge.lock().unwrap();
            forge.fork(5);
            let at = anteroom_sdk::system::now();
            let record = forge.record(terms.grant, &terms.nonce, 27, at, &event, Audience::LAB);
            rpc::SubmitReply { record: Some(record), ..honest }
        }),
        ..Lies::default()
    });
    let noticed = caught(lie, withdraw(&home, grant).await);
    stage.note("lab", lie, noticed);
}

/// What came of an honest turn of a party's witness, once there was something to cosign or its line stands.
async fn cosigned(party: &anteroom_sdk::witness::Party) -> u64 {
    until("the party's line", || async {
        match party.turn().await {
            Ok(Turn::Cosigned(size) | Turn::Stands(size)) => Some(size),
            Ok(Turn::Nothing | Turn::Later) => None,
            Err(error) => panic!("an honest turn failed: {error}"),
        }
    })
    .await
}

async fn lies_to_a_witness(stage: &mut Stage) {
    // The lab is shown the log, the agency another one from some record on; each is proven in itself.
    let (lab, _) = stage.scene.cast.lab.witness(Use::Serve).unwrap().unwrap();
    let shown = cosigned(&lab).await;
    let lies: [(&'static str, u64); 2] = [
        ("two histories, one for each side", 3),
        ("a published checkpoint of another root at the size it cosigned", 0),
    ];
    for (lie, more) in lies {
        let (home, _folder) = stage.copy(&stage.scene.cast.agency);
        stage.liar.tell(Lies::default());
        let (party, _) = home.witness(Use::Act).unwrap().unwrap();
        let seen = cosigned(&party).await;
        let mut forge = Forge::of(&stage.broker.data());
        let own = forge.size();
        // The fork is behind what this witness cosigned.
        forge.fork(own - seen + 3);
        for entry in 0..more {
            forge.grow(&format!("for one side {entry}"));
        }
        let size = if more > 0 { forge.size() } else { seen };
        let forge = Arc::new(forge);
        let again = Arc::clone(&forge);
        stage.liar.tell(Lies {
            checkpoint: Box::new(move |seen, _| again.extension(seen, size)),
            published: Box::new(move |_| {
                let told = forge.extension(seen, size);
                rpc::GetPublishedReply {
                    checkpoint: told.checkpoint,
                    consistency: told.consistency,
                    ..rpc::GetPublishedReply::default()
                }
            }),
            ..Lies::default()
        });
        let handed_in = stage.liar.handed_in();
        let noticed = match party.turn().await {
            Err(error @ PartyError::Contradiction { .. }) => error.to_string(),
            other => panic!("{lie}: {other:?}"),
        };
        assert_eq!(stage.liar.handed_in(), handed_in, "{lie}: nothing is cosigned");
        assert!(home.witness_dir().join("contradicting-checkpoint").exists(), "{lie}: it is kept as evidence");
        // The folder's own path says nothing about the lie.
        let noticed = noticed.split("; both").next().unwrap().to_owned();
        stage.note("witness", lie, noticed);
    }
    assert!(cosigned(&lab).await >= shown, "the other side's history goes on");
}

async fn withdraw(home: &Home, grant: anteroom_proto::names::GrantId) -> Result<(), Error> {
    let signer = home.stop_signer().unwrap();
    let mut lab = home.lab().await.unwrap();
    lab.withdraw(grant, "enough", &signer).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_operator_says_somebody_notices() {
    let mut stage = Stage::start().await;
    lies_to_a_connector(&mut stage).await;
    lies_to_a_reader(&mut stage).await;
    lies_to_a_caller(&mut stage).await;
    lies_to_a_party(&mut stage).await;
    lies_to_a_witness(&mut stage).await;
    let told: Vec<&str> = ["connector", "reader", "caller", "agency", "lab", "witness"]
        .into_iter()
        .filter(|told_to| stage.rows.iter().any(|row| row.told_to == *told_to))
        .collect();
    println!("{} lies to {}; all noticed", stage.rows.len() - 1, told.join(", "));
    assert!(stage.rows.iter().all(|row| !row.lie.is_empty() && !row.noticed.is_empty()));
    assert!(stage.rows.len() > 35);
    // What is published about this is what was just tried.
    let told = std::fs::read_to_string(programs::workspace().join("SECURITY.md")).unwrap();
    for row in stage.rows.iter().filter(|row| row.noticed != "served") {
        let published = format!("| {} | {} |", row.lie, row.told_to);
        assert!(told.contains(&published), "SECURITY.md lacks `{published}`");
    }
    stage.broker.kill().await;
}
