//! Several brokers over one database, each with its own folder, doors and connector.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anteroom_broker::{
    book::{
        keyring::{Kek, Keyring},
        pg::{Database, Desk, Shared},
        store::Store as _,
        wal::Position,
    },
    demo::cast::{AGENCY, Cast, LAB, LINE},
    journal::Core,
};
use anteroom_policy::event::Entered;
use anteroom_proto::{
    ledger::{leaf::Entry, note::KeyName, record::Seed},
    names::GrantId,
};
use anteroom_sdk::{connector::Connector, home::Home};
use tempfile::TempDir;
use tokio::process::Command;

use super::{
    book::{ORIGIN, signer},
    broker::Broker,
    caller::Caller,
    model::Model,
    postgres::{Postgres, Wire, book},
    scene::{SLOTS, Scene},
    wait::soon,
};

/// The brokers with the parties of the demo's cast.
#[derive(Debug)]
pub struct Cluster {
    /// The database.
    pub postgres: Postgres,
    /// The wire of each broker to it.
    pub wires: Vec<Wire>,
    /// The brokers; the first is the one that newcomers enrol with.
    pub brokers: Vec<Broker>,
    /// The parties, through the first broker.
    pub cast: Cast,
    /// One model server for all.
    pub model: Model,
    /// A connector at each broker.
    pub connectors: Vec<Connector>,
    folder: TempDir,
}

impl Cluster {
    /// Starts `count` brokers over an empty database, and waits until calls can pass through each.
    ///
    /// # Panics
    /// Something does not start.
    pub async fn start(count: usize, pause: Duration) -> Self {
        Self::over(Postgres::start().await, &[], count, pause).await
    }

    /// As [`Cluster::start`], over a database that is there; `standbys` are where else it may be found.
    ///
    /// # Panics
    /// Something does not start.
    pub async fn over(postgres: Postgres, standbys: &[SocketAddr], count: usize, pause: Duration) -> Self {
        let folder = Scene::folder();
        let (mut wires, mut brokers) = (Vec::new(), Vec::new());
        for at in 0..count {
            let wire = Wire::to(postgres.address()).await;
            let dir = dir(folder.path(), at);
            std::fs::create_dir_all(&dir).expect("a folder for the broker");
            let like = (at > 0).then(|| folder.path().join("operator"));
            let found = [&[wire.address()], standbys].concat();
            let mut broker = Broker::sharing(&dir, &book(&found), like.as_deref()).await;
            broker.start_again().await;
            wires.push(wire);
            brokers.push(broker);
        }
        let cast = Cast::seed(folder.path(), brokers[0].addresses(), brokers[0].log_key()).await.expect("they enrol");
        let model = Model::start(pause).await;
        let mut cluster = Self { postgres, wires, brokers, cast, model, connectors: Vec::new(), folder };
        for at in 0..count {
            let connector = cluster.connect(at).await;
            cluster.connectors.push(connector);
            cluster.brokers[at].ready().await;
        }
        cluster
    }

    /// A connector of the lab at one broker, in a folder of its own.
    ///
    /// # Panics
    /// It does not start.
    pub async fn connect(&self, at: usize) -> Connector {
        let dir = dir(self.folder.path(), at);
        if at > 0 && !dir.join(LAB).exists() {
            for party in [LAB, AGENCY, "oversight-a"] {
                let mut copy = Command::new("cp");
                let copied = copy.arg("-a").arg(self.folder.path().join(party)).arg(&dir).status().await;
                assert!(copied.expect("`cp` can be started").success());
            }
        }
        let cast = Cast::open(&dir, self.brokers[at].addresses(), self.brokers[0].log_key()).expect("the copy opens");
        let connector = cast.connector(LINE, self.model.base_url(), SLOTS).await.expect("the connector starts");
        let mut status = connector.status();
        soon("an open slot", status.wait_for(|status| status.open > 0)).await.expect("the connector lives");
        connector
    }

    /// A party's folder, through one of the brokers.
    ///
    /// # Panics
    /// It cannot be opened.
    #[must_use]
    pub fn home(&self, party: &str, at: usize) -> Home {
        let home = Home::open(&self.folder.path().join(party)).expect("the party's folder");
        home.with_addr(&self.brokers[at].addresses().programme.to_string())
    }

    /// A party's folder with all the brokers' addresses, from this one on.
    ///
    /// # Panics
    /// It cannot be opened.
    #[must_use]
    pub fn anywhere(&self, party: &str, from: usize) -> Home {
        let addresses = self.brokers.iter().map(|broker| broker.addresses().programme.to_string());
        let mut addresses: Vec<String> = addresses.collect();
        addresses.rotate_left(from % self.brokers.len());
        self.home(party, from % self.brokers.len()).with_addr(&addresses.join(","))
    }

    /// A caller under a grant, through one of the brokers.
    ///
    /// # Panics
    /// Something does not hold.
    pub async fn caller(&self, grant: GrantId, at: usize) -> Caller {
        Caller::open(&self.home(AGENCY, at), grant).await.expect("the grant's dossier holds")
    }

    /// The folder of everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }
}

fn dir(root: &Path, at: usize) -> PathBuf {
    if at == 0 { root.to_owned() } else { root.join(format!("broker-{}", at + 1)) }
}

/// Every event of the log, read from the database and folded: each record held against its entry, each batch against its root.
///
/// # Panics
/// It is not whole.
#[must_use]
pub fn ledger(cluster: &Cluster) -> Vec<Entered> {
    let data = cluster.dir().join("operator");
    let address = cluster.postgres.book().parse().expect("the address holds");
    let desk = Desk::start(Database::new(address, None, None)).expect("a thread");
    let kek = Kek::from_bytes(&std::fs::read(data.join("kek")).expect("the key")).expect("32 bytes");
    let keyring = Keyring::shared(Arc::new(desk.clone()), kek).expect("the keys open");
    let shared = Shared::new(desk, ORIGIN, [0; 16], Arc::new(|| 0), Arc::new(|| [0; 16]));
    let mut reader = shared.reader();
    let origin = KeyName::parse(ORIGIN).expect("a name");
    let mut core = Core::new(origin, Arc::new(signer(&data).expect("the log's key")));
    let (mut at, mut events) = (Position { segment: 0, offset: 0 }, Vec::new());
    while let Some(batch) = reader.read(at, Some(&keyring)).expect("the database can be read") {
        at = batch.end;
        for recovered in batch.records {
            let opening = recovered.opening.expect("its key is there");
            let (entry, seed) = (Entry::from_bytes(recovered.entry), Seed::from_bytes(opening.seed));
            let sealed = core.fold(recovered.index, entry, &seed, opening.record).expect("the record holds");
            events.push(sealed.entered.clone());
        }
        assert_eq!((core.size(), core.root().as_bytes()), (batch.footer.size, &batch.footer.root));
    }
    events
}
