//! The parties of the demo's cast on a stage of their own: a folder, a model server, a connector.

use std::{path::Path, time::Duration};

use anteroom_broker::{
    boot::Addresses,
    demo::cast::{Cast, LINE, Plan},
};
use anteroom_proto::{names::GrantId, statement::terms::Budget};
use anteroom_sdk::{
    acts::Recorded,
    connector::{Connector, Slots},
    home::Home,
};
use tempfile::TempDir;

use super::{
    Fallible,
    broker::Broker,
    caller::Caller,
    model::Model,
    wait::{soon, until},
};

/// Slots of a scene's connector.
pub const SLOTS: Slots = Slots { idle_min: 6, max: 64 };
/// A pace at which an answer of [`LONG`] words outlasts every test that cuts it.
pub const SLOW: Duration = Duration::from_millis(4);
/// Words of an answer that is meant to be cut.
pub const LONG: u32 = 100_000;

/// A seeded cast with a model behind its lab's connector.
#[derive(Debug)]
pub struct Scene {
    /// The parties.
    pub cast: Cast,
    /// The model server.
    pub model: Model,
    /// The lab's connector.
    pub connector: Option<Connector>,
    folder: TempDir,
}

impl Scene {
    /// A folder for a broker and its parties.
    ///
    /// # Panics
    /// There is no room for one.
    #[must_use]
    pub fn folder() -> TempDir {
        tempfile::Builder::new().prefix("anteroom-e2e-").tempdir().expect("a folder for the test")
    }

    /// Starts a broker's process with a seeded cast, and waits until calls can pass.
    pub async fn start(pause: Duration) -> (Self, Broker) {
        let folder = Self::folder();
        let broker = Broker::start(folder.path()).await;
        let scene = Self::seed(folder, broker.addresses(), broker.log_key(), pause).await;
        broker.ready().await;
        (scene, broker)
    }

    /// Seeds the parties of a running broker in `folder/operator` and starts their connector.
    ///
    /// # Panics
    /// Something refuses.
    pub async fn seed(folder: TempDir, addresses: Addresses, log_key: &str, pause: Duration) -> Self {
        let cast = Cast::seed(folder.path(), addresses, log_key).await.expect("the parties can enrol");
        let model = Model::start(pause).await;
        let mut scene = Self { cast, model, connector: None, folder };
        scene.connect().await;
        scene
    }

    /// Starts the lab's connector and waits until it has slots open.
    ///
    /// # Panics
    /// It does not start.
    pub async fn connect(&mut self) {
        let connector = self.cast.connector(LINE, self.model.base_url(), SLOTS).await.expect("the connector starts");
        let mut status = connector.status();
        soon("an open slot", status.wait_for(|status| status.open > 0)).await.expect("the connector lives");
        self.connector = Some(connector);
    }

    /// Waits until a signed clock has confirmed the broker's.
    pub async fn trusted(&self) {
        until("a trusted clock", || async {
            let known = self.cast.lab.who_am_i().await.ok()?;
            (known.clock == "trusted").then_some(())
        })
        .await;
    }

    /// Everything is in here.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// A grant in force, and a caller under it.
    ///
    /// # Panics
    /// Something refuses.
    pub async fn granted(&self, plan: &Plan) -> Caller {
        let grant = self.cast.granted(plan).await.expect("the grant comes into force");
        self.caller(grant).await
    }

    /// A caller under a grant in force.
    ///
    /// # Panics
    /// Something does not hold.
    pub async fn caller(&self, grant: GrantId) -> Caller {
        Caller::open(&self.cast.agency, grant).await.expect("the grant's dossier holds")
    }

    /// The lab ends a grant.
    ///
    /// # Errors
    /// The broker refuses.
    pub async fn withdraw(&self, grant: GrantId) -> Fallible<Recorded> {
        withdraw(&self.cast.lab, grant).await
    }
}

/// A lab ends a grant from its folder.
///
/// # Errors
/// The broker refuses.
pub async fn withdraw(lab: &Home, grant: GrantId) -> Fallible<Recorded> {
    let signer = lab.stop_signer()?;
    Ok(lab.lab().await?.withdraw(grant, "the test ends it", &signer).await?)
}

/// 720 hours of chat on the cast's line.
///
/// # Panics
/// Never: the line is a name.
#[must_use]
pub fn plan() -> Plan {
    Plan::new(LINE).expect("the line is a name")
}

/// The same with a small budget.
#[must_use]
pub fn plan_of(budget: Budget) -> Plan {
    Plan { budget, ..plan() }
}
