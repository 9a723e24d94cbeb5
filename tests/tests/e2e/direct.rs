//! A model that is reached without its lab's connector: the operator answers in the lab's name, says so, and does it only under terms
//! that both signed for it.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anteroom_broker::{
    demo::cast::{AGENCY, LAB, LINE},
    identity::Role,
};
use anteroom_proto::{
    names::{GrantId, OrgId},
    statement::terms::Endpoint,
};
use anteroom_sdk::{home::Home, lab::TermsTemplate};
use anteroom_tests::e2e::{
    broker::Broker,
    caller::chat,
    command::{command, fails, json, said},
    scene::{Scene, plan},
    second::certify,
    wait::until,
};
use serde_json::Value;
use tokio::process::Child;

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The operator's folder: a certificate of the lab's connectors, and a key of its own that the lab takes into its key set.
async fn hands(scene: &mut Scene) -> Home {
    let addresses = scene.cast.addresses();
    let mut hands = Home::create(&scene.dir().join("direct")).unwrap();
    hands
        .set(|settings| {
            settings.addr = Some(addresses.programme.to_string());
            settings.enrol_addr = Some(addresses.enrolment.to_string());
            settings.server_name = Some("localhost".to_owned());
        })
        .unwrap();
    certify(scene.dir(), addresses, &mut hands, LAB, Role::Connector).await.unwrap();
    hands.pin_log(scene.cast.log_key(), false).unwrap();
    let made = json(hands.dir(), &["key", "new", "direct"]).await;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let joining = format!("direct={}:{}", text("algorithm"), text("public"));
    let (lab, next) = (scene.cast.lab.dir().to_owned(), scene.dir().join("next.json"));
    said(&lab, &["org", "rotate", "--add", &joining, "--out", path(&next)]).await;
    said(&lab, &["statement", "submit", path(&next)]).await;
    hands.pin_org(&OrgId::parse(LAB).unwrap(), scene.cast.lab.fingerprint().unwrap(), false).unwrap();
    hands.pin_org(&OrgId::parse(AGENCY).unwrap(), scene.cast.agency.fingerprint().unwrap(), false).unwrap();
    hands
}

/// A grant whose terms say that the operator answers.
async fn granted(scene: &Scene) -> GrantId {
    let mut terms = scene.cast.terms(&plan()).unwrap();
    terms.endpoint = Endpoint::Direct;
    let bytes = TermsTemplate { terms }.bytes().unwrap();
    let lab = &scene.cast.lab;
    fs::write(scene.dir().join("terms.json"), &bytes).unwrap();
    let grant = lab.keep_terms(&bytes).unwrap().grant;
    let offered = lab.lab().await.unwrap().offer(bytes, &[lab.signer("signer").unwrap()]).await.unwrap();
    lab.keep_act(&offered.recorded).unwrap();
    scene.cast.accept(grant).await.unwrap();
    scene.cast.credential(grant, 24).await.unwrap();
    grant
}

/// Seals a credential and answers in the lab's name.
async fn serve(scene: &Scene, hands: &Home) -> Child {
    let at = |name: &str| scene.dir().join(name);
    let (credential, sealed, key) = (at("credential"), at("direct.sealed"), at("direct.seal"));
    fs::write(&credential, "sk-direct-7\n").unwrap();
    let upstream = scene.model.base_url();
    let seal =
        ["lab", "seal", "--upstream", upstream, "--credential-file", path(&credential), "--sealing-key", path(&key)];
    said(hands.dir(), &[&seal[..], &["--out", path(&sealed)]].concat()).await;
    assert!(!fs::read_to_string(&sealed).unwrap().contains("sk-direct-7"));
    fs::remove_file(&credential).unwrap();
    let manifest = scene.cast.lab.dir().join(format!("manifest-{LINE}.json"));
    let words = ["lab", "serve", "--direct", "--line", LINE, "--manifest", path(&manifest)];
    let sealed = ["--sealed-credential", path(&sealed), "--sealing-key", path(&key)];
    // It is sealed for this address and no other.
    let elsewhere = [&words[..], &sealed, &["--upstream", "https://model.invalid/v1"]].concat();
    let refused = fails(hands.dir(), &elsewhere, 1).await;
    assert!(refused.contains("was sealed for"), "{refused}");
    let words = [&words[..], &sealed, &["--upstream", upstream]].concat();
    let serving = command(hands.dir(), &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = hands.dir().join("connector").join(LINE).join("status.json");
    until("open slots", || async {
        let told: Value = serde_json::from_slice(&fs::read(&status).ok()?).ok()?;
        told["open"].as_u64().is_some_and(|open| open > 0).then_some(())
    })
    .await;
    serving
}

async fn scene() -> (Scene, Broker, Home) {
    let (mut scene, broker) = Scene::start(Duration::ZERO).await;
    let hands = hands(&mut scene).await;
    (scene, broker, hands)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_answers_in_the_labs_name_where_the_terms_say_so_and_nowhere_else() {
    let (mut scene, _broker, hands) = scene().await;
    let direct = granted(&scene).await;
    let (direct, ordinary) = (scene.caller(direct).await, scene.granted(&plan()).await);
    let agency = scene.cast.agency.dir().to_owned();

    // The lab's connector takes no call that the operator alone was to answer.
    assert_eq!(direct.refusal(chat("one", 4)).await.code, "lab_offline");
    said(&agency, &["chat", &ordinary.grant.to_string(), "two"]).await;
    let mut serving = serve(&scene, &hands).await;
    assert_eq!(direct.stream(chat("three", 4)).await.end, None);
    assert_eq!(scene.model.asked(), ["two", "three"]);

    // The operator's hands take none of the lab's.
    scene.connector.take().unwrap().drain().await;
    assert_eq!(ordinary.refusal(chat("four", 4)).await.code, "lab_offline");
    said(&agency, &["chat", &direct.grant.to_string(), "five"]).await;

    // Whoever looks is told whose word it is.
    let rows = json(&agency, &["receipt", "verify"]).await;
    let said_by = |grant: GrantId| -> Vec<String> {
        let of_grant = rows.as_array().unwrap().iter().filter(|row| row["grant"] == grant.to_string().as_str());
        of_grant.map(|row| row["answer"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(said_by(direct.grant), ["operator-asserted"]);
    assert_eq!(said_by(ordinary.grant), ["lab-asserted"]);
    let shown = json(&agency, &["grant", "show", &direct.grant.to_string()]).await;
    assert_eq!(shown["answers_are"], "operator-asserted");
    let page = said(&agency, &["grant", "page", path(&scene.dir().join("terms.json"))]).await;
    assert!(page.contains("operator-asserted"), "{page}");
    serving.kill().await.unwrap();
}
