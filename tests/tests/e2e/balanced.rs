//! A broker behind a balancer: rules about networks see where the caller is, and nobody else can say where they come from.

use std::net::SocketAddrV4;

use anteroom_tests::e2e::{
    balancer::{Balancer, header},
    broker::Broker,
    caller::{Caller, chat},
    command::said,
    scene::{Scene, plan},
    wait::soon,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const AT_HQ: &str = "@id(\"at-hq\")\nforbid (principal, action, resource) unless { context.network == \"hq\" };\n";

#[tokio::test(flavor = "multi_thread")]
async fn rules_about_networks_see_the_callers_address_and_not_the_balancers() {
    let folder = Scene::folder();
    let mut broker = Broker::made(folder.path()).await;
    broker.configure("proxy-peers", "127.0.0.2/32");
    broker.configure("networks", "hq=192.0.2.0/24,balancers=127.0.0.2/32");
    broker.start_again().await;
    // Whoever is not behind the balancer goes on as before.
    let mut scene = Scene::seed(folder, broker.addresses(), broker.log_key(), std::time::Duration::ZERO).await;
    broker.ready().await;
    let grant = scene.granted(&plan()).await.grant;
    let file = scene.dir().join("at-hq.cedar");
    std::fs::write(&file, AT_HQ).unwrap();
    let (named, file) = (grant.to_string(), file.display().to_string());
    said(scene.cast.lab.dir(), &["grant", "narrow", &named, &file, "--reason", "from the office"]).await;

    let door = broker.addresses().programme;
    let office = Balancer::start(door, "192.0.2.7:40000".parse().unwrap()).await;
    let cafe = Balancer::start(door, "198.51.100.9:40000".parse().unwrap()).await;
    let through = async |scene: &mut Scene, address: std::net::SocketAddr| -> Caller {
        scene.cast.agency.set(|settings| settings.addr = Some(address.to_string())).unwrap();
        scene.caller(grant).await
    };
    let caller = through(&mut scene, office.address()).await;
    assert_eq!(caller.stream(chat("hello", 4)).await.end, None);
    let caller = through(&mut scene, cafe.address()).await;
    let refused = caller.refusal(chat("hello", 4)).await;
    assert_eq!(refused.code, "broker_denied");
    let caller = through(&mut scene, door).await;
    assert_eq!(caller.refusal(chat("hello", 4)).await.code, "broker_denied", "loopback is no office either");

    // A caller that says by itself that it is in the office is not heard at either door.
    let office: SocketAddrV4 = "192.0.2.7:40000".parse().unwrap();
    for door in [door, broker.addresses().enrolment] {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(&header(office)).await.unwrap();
        let mut answer = Vec::new();
        // At most TLS's own alert, then the end.
        drop(soon("the end", stream.read_to_end(&mut answer)).await);
        assert!(answer.first().is_none_or(|kind| *kind == 21), "{door}: {answer:?}");
    }
    broker.kill().await;
}
