//! The way to the database is encrypted and its server verified, or there is no way.

use std::time::Duration;

use anteroom_tests::e2e::{
    broker::Broker,
    caller::chat,
    postgres::Postgres,
    scene::{Scene, plan},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Roots, and a server's certificate and key under them, all in PEM.
fn issued() -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_spoken_to_under_its_own_certificate_or_not_at_all() {
    let postgres = Postgres::start().await;
    let (roots, certificate, key) = issued();
    postgres.encrypt(&certificate, &key).await;
    let folder = Scene::folder();
    let trusted = folder.path().join("roots.pem");
    std::fs::write(&trusted, roots).unwrap();
    let book = format!("{}?sslmode=require", postgres.book());
    let roots = trusted.display().to_string();
    let mut broker = Broker::sharing_as(folder.path(), &[("book", &book), ("book-ca", &roots)], None).await;
    broker.start_again().await;
    let scene = Scene::seed(folder, broker.addresses(), broker.log_key(), Duration::ZERO).await;
    broker.ready().await;
    let went = scene.granted(&plan()).await.stream(chat("hello", 4)).await;
    assert!(went.end.is_none());
    let encrypted = "SELECT count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'anteroom' \
                     AND pid <> pg_backend_pid() AND client_port IS NOT NULL";
    assert_eq!(postgres.sql(encrypted).await, "0", "nothing of the broker's goes in the clear");
    assert!(broker.drain().await.success());
    // Whoever stands in the database's place under another authority is not spoken to.
    std::fs::write(&trusted, issued().0).unwrap();
    let (code, said) = broker.says("fsck", &[]).await;
    assert!(code != Some(0) && said.contains("certificate"), "{code:?} {said}");
}
