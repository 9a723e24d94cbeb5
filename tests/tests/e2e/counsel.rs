//! Rules tried on calls that were made, with real processes: by both sides, from the broker and from a mirror.

use std::{fs, path::Path, time::Duration};

use anteroom_broker::{demo::cast::LAB, identity::Role};
use anteroom_sdk::evaluator::Route;
use anteroom_tests::e2e::{
    caller::chat_whole,
    command::{fails, json, published, said},
    scene::{Scene, plan},
    second::certify,
    wait::until,
};

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_tried_on_what_both_sides_may_read() {
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let evaluator = scene.cast.evaluator(grant).await.unwrap();
    for _ in 0..3 {
        // A slot that is not back yet is waited for; each try is a call on record.
        until("an answer", || async {
            evaluator.complete(Route::Chat, chat_whole("what is this?", 4)).await.ok().map(|_| ())
        })
        .await;
    }
    drop(evaluator);
    let (dir, addresses) = (scene.dir().to_owned(), scene.cast.addresses());
    certify(&dir, addresses, &mut scene.cast.lab, LAB, Role::Auditor).await.unwrap();
    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    let (name, copy) = (grant.to_string(), dir.join("copy"));
    let (none, harmless, broken) = (dir.join("none.cedar"), dir.join("harmless.cedar"), dir.join("broken.cedar"));
    fs::write(&none, "@id(\"none\") forbid (principal, action == Action::\"Chat\", resource) when { context.n < 99 };")
        .unwrap();
    fs::write(&harmless, "@id(\"many\") forbid (principal, action, resource) when { context.n > 9 };").unwrap();
    fs::write(&broken, "forbid").unwrap();

    for home in [&lab, &agency] {
        let found = json(home, &["policy", "replay", &name, "--rules", path(&none)]).await;
        let judged = found["judged"].as_u64().unwrap();
        assert!(judged >= 3, "{found}");
        assert_eq!((found["would_be_refused"].as_u64(), found["unlike_record"].as_u64()), (Some(judged), Some(0)));
        assert_eq!(found["by_rule"]["lab/none"].as_u64(), Some(judged), "{found}");
        assert!(found["caveat"].as_str().unwrap().contains("budgets, windows"));
        let found = json(home, &["policy", "replay", &name, "--rules", path(&harmless)]).await;
        assert_eq!(found["would_be_refused"], 0);
    }
    fails(&lab, &["policy", "replay", &name, "--rules", path(&broken)], 1).await;
    fails(&lab, &["policy", "replay", &name], 2).await;

    // The page of what both signed, from the bytes that the agency was shown.
    let terms = dir.join("terms.json");
    fs::write(&terms, said(&agency, &["grant", "show", &name, "--raw"]).await).unwrap();
    let page = dir.join("terms.html");
    said(&agency, &["grant", "page", path(&terms), "--out", path(&page)]).await;
    let shown = json(&agency, &["grant", "show", &name]).await;
    assert!(fs::read_to_string(&page).unwrap().contains(shown["terms_digest"].as_str().unwrap()));

    published(&scene.cast.lab).await;
    json(&lab, &["audit", "mirror", path(&copy), "--own"]).await;
    broker.kill().await;
    let found = json(&lab, &["policy", "replay", &name, "--rules", path(&none), "--mirror", path(&copy)]).await;
    assert_eq!(found["would_be_refused"], found["judged"]);
    let both = ["policy", "diff", "baseline", path(&none), "--calls", &name, "--mirror", path(&copy)];
    let words = said(&lab, &both).await;
    assert!(
        words.contains("ADDED") && words.contains("lab/none refuses") && words.contains("that passed would be refused"),
        "{words}"
    );
}
