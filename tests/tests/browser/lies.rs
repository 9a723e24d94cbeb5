//! A broker that lies while somebody looks: each lie is a warning of its own in the place of every row.

use std::{fs, path::Path, sync::Arc};

use anteroom_proto::{
    ledger::scope::Scope,
    rpc::{self, audit_client::AuditClient},
};
use anteroom_sdk::{evaluator::Route, home::Use};
use anteroom_tests::e2e::{
    caller::chat_whole,
    command::{command, fails, json, published, said},
    console::Console,
    forge::Forge,
    liar::{Liar, Lies, copy},
};
use tokio::io::AsyncWriteExt as _;

use super::{ended, has, modules, next, none, played, setting};

/// What a console of the agency shows once the liar says this and the page asks for what is new.
async fn shown(
    modules: &Path,
    home: &Path,
    (liar, lies): (&Liar, Lies),
    news: impl AsyncFnOnce(),
    (code, words): (&str, &[&str]),
) {
    liar.tell(Lies::default());
    let address = liar.address().to_string();
    let console = Console::start(home, &["--addr", &address]).await;
    let (mut told, mut stdin) = played(modules, "warning", &console, code);
    let rows = next(&mut told).await["rows"].clone();
    assert!(rows.as_u64().unwrap() > 4, "{rows}");
    news().await;
    liar.tell(lies);
    stdin.write_all(format!("{code}\n").as_bytes()).await.unwrap();
    let seen = next(&mut told).await;
    none(&seen);
    assert_eq!((&seen["rows"], &seen["role"]), (&0.into(), &"alert".into()), "{code}: {seen}");
    has(&seen["warning"], words);
    has(&seen["warning"], &["What to do"]);
    stdin.write_all(b"end\n").await.unwrap();
    assert_eq!(next(&mut told).await["end"], true);
    ended(told, &console).await;
    // Whoever waits for the command learns it, too.
    assert_eq!(console.end().await.code(), Some(7), "{code}");
}

/// Everything that the broker says of a scope.
async fn scope_of(home: &anteroom_sdk::home::Home, scope: &Scope) -> Vec<rpc::ReadReply> {
    let channel = home.channel(Use::Read).await.unwrap();
    let request = rpc::ReadRequest { scope: scope.to_bytes(), from_seq: 0, limit: 0, follow: false };
    let mut replies = AuditClient::new(channel).read(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        all.push(reply);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_broker_lies_about_is_a_warning_of_its_own_in_the_place_of_every_row() {
    let Some(modules) = modules("browser") else { return };
    let (scene, broker, caller) = setting().await;
    let agency = &scene.cast.agency;
    json(agency.dir(), &["audit", "search", "--group", "call"]).await;
    let liar = Liar::start(&broker.data(), &scene.cast.lab, agency).await.unwrap();
    let foreign = scope_of(agency, &Scope::Organisation("agency-a".parse().unwrap())).await;
    let past = Arc::new(Forge::of(&broker.data()));
    for question in ["five", "six", "seven"] {
        caller.evaluator.complete(Route::Chat, chat_whole(question, 4)).await.unwrap();
    }
    published(agency).await;

    let altered = Lies {
        read: Box::new(|mut said| {
            let opening = said.last_mut().and_then(|reply| reply.record.as_mut()?.opening.as_mut());
            let field = opening.and_then(|opening| opening.open.iter_mut().rfind(|field| !field.wire.is_empty()));
            if let Some(last) = field.and_then(|field| field.wire.last_mut()) {
                *last ^= 1;
            }
            said
        }),
        ..Lies::default()
    };
    let gap = Lies {
        read: Box::new(|mut said| {
            if said.len() > 4 {
                said.remove(said.len() / 2);
            }
            said
        }),
        ..Lies::default()
    };
    let out_of_scope = Lies {
        read: Box::new(move |mut said| {
            // In the grant's own records, of which there are several each time.
            if said.len() > 4 {
                said.extend(foreign.last().cloned());
            }
            said
        }),
        ..Lies::default()
    };
    // As it was before the newest calls, which the reader has seen by now; and a history that parts from the one seen.
    let stale = checkpoints(past);
    let mut forge = Forge::of(&broker.data());
    forge.fork(3);
    (0..600).for_each(|entry| forge.grow(&format!("another history {entry}")));
    let forked = checkpoints(Arc::new(forge));

    for (lies, warning) in [
        (altered, ("altered", &["A record was altered"][..])),
        (gap, ("gap", &["A record is missing", "withholds it"])),
        (out_of_scope, ("foreign_scope", &["Records of another scope"])),
        (stale, ("stale", &["An older log was shown", "fewer entries"])),
        (forked, ("split_view", &["Two histories of one log"])),
    ] {
        let folder = Liar::party(agency);
        // Something is new each time, and published, beside the reading itself.
        let news = async || {
            for question in ["one", "two", "three"] {
                caller.evaluator.complete(Route::Chat, chat_whole(question, 4)).await.unwrap();
            }
            published(agency).await;
        };
        shown(&modules, &folder.path().join("home"), (&liar, lies), news, warning).await;
    }
}

/// Checkpoints of another log than the honest one.
fn checkpoints(forge: Arc<Forge>) -> Lies {
    let again = Arc::clone(&forge);
    Lies {
        checkpoint: Box::new(move |seen, _| forge.extension(seen, forge.size())),
        published: Box::new(move |_| {
            let told = again.extension(0, again.size());
            let (checkpoint, consistency) = (told.checkpoint, told.consistency);
            rpc::GetPublishedReply { checkpoint, consistency, ..rpc::GetPublishedReply::default() }
        }),
        ..Lies::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_and_a_reader_who_was_not_let_in_get_nothing() {
    let Some(modules) = modules("browser") else { return };
    let (scene, _broker, caller) = setting().await;
    let console = Console::start(scene.cast.lab.dir(), &[]).await;
    let (mut told, _stdin) = played(&modules, "foreign", &console, "-");
    let seen = next(&mut told).await;
    for tried in ["fetched", "credentialed", "framed", "imaged", "scripted", "posted"] {
        assert_eq!(seen[tried], false, "{tried}: {seen}");
    }
    assert_eq!(seen["rounds"][0], seen["rounds"][1], "nothing was set going: {seen}");
    told.end().await;

    // Oversight that nobody appointed for the second grant sees nothing of it, whatever it asks for.
    let other = scene.granted(&anteroom_tests::e2e::scene::plan()).await;
    other.evaluator.complete(Route::Chat, chat_whole("theirs", 4)).await.unwrap();
    published(&scene.cast.lab).await;
    let theirs = other.grant.to_string();
    let console = Console::start(scene.cast.oversight.dir(), &[]).await;
    let (mut told, _stdin) = played(&modules, "stranger", &console, &theirs);
    let seen = next(&mut told).await;
    none(&seen);
    has(&seen["found"], &["Nothing fits", "Leave a filter out"]);
    has(&seen["overview"], &[&caller.grant.to_string()]);
    for place in ["found", "overview", "readers"] {
        let text = seen[place].as_str().unwrap();
        assert!(place == "found" || !text.contains(&theirs), "{place}: {text}");
    }
    ended(told, &console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_that_were_signed_are_words_and_a_bundle_that_was_touched_shows_none() {
    let Some(modules) = modules("browser") else { return };
    let (scene, _broker, caller) = setting().await;
    let lab = scene.cast.lab.dir().to_owned();
    // Names are refused where they come in; reasons are free text, and have a bound.
    let evil = "<img src=x onerror=\"window.hit=1\"><script>window.hit=1</script>\u{202e}gnp.exe\u{202c}";
    for name in [evil, &"A".repeat(10_240)] {
        let why = fails(&lab, &["grant", "template", "--agency", name, "--line", "aurora"], 2).await;
        assert!(why.contains("is no name"), "{why}");
    }
    let long = format!("{evil}{}", "A".repeat(10_240));
    let refused = command(&lab, &["lock", "set", "--citizen", "FR", "--reason", &long]).output().await.unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    said(&lab, &["lock", "set", "--citizen", "FR", "--reason", evil]).await;
    published(&scene.cast.lab).await;
    let console = Console::start(&lab, &[]).await;
    let (mut told, _stdin) = played(&modules, "signed", &console, "-");
    let seen = next(&mut told).await;
    none(&seen);
    assert_eq!((&seen["made"], &seen["hit"]), (&0.into(), &0.into()), "{seen}");
    has(&seen["locks"], &["<img src=x onerror=", "‹U+202E›gnp.exe‹U+202C›", "FR"]);
    ended(told, &console).await;

    // A bundle's own mirror opens like any other; once a byte of its tree was changed, nothing of it is shown.
    drop(scene.withdraw(caller.grant).await.unwrap());
    published(&scene.cast.lab).await;
    let (grant, out) = (caller.grant.to_string(), scene.dir().join("closing"));
    said(&lab, &["audit", "bundle", &grant, "--out", out.to_str().unwrap()]).await;
    let mirror = scene.dir().join("bundled");
    copy(&out.join("mirror"), &mirror);
    let mirrored = mirror.to_str().unwrap();
    let console = Console::start(&lab, &["--mirror", mirrored]).await;
    let (mut told, mut stdin) = played(&modules, "warning", &console, "bundle");
    assert!(next(&mut told).await["rows"].as_u64().unwrap() > 4);
    let tile = first_file(&mirror.join("tile"));
    let mut bytes = fs::read(&tile).unwrap();
    bytes[0] ^= 1;
    fs::write(&tile, bytes).unwrap();
    stdin.write_all(b"altered\n").await.unwrap();
    let seen = next(&mut told).await;
    none(&seen);
    has(&seen["warning"], &["A record was altered", tile.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(seen["rows"], 0);
    stdin.write_all(b"end\n").await.unwrap();
    assert_eq!(next(&mut told).await["end"], true);
    ended(told, &console).await;
}

fn first_file(dir: &Path) -> std::path::PathBuf {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let first = entries.swap_remove(0);
    if first.is_dir() { first_file(&first) } else { first }
}
