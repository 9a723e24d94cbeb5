//! What the tools have in common: a broker with a granted line, a gateway in the agency's folder, and what befalls a grant.

use std::time::Duration;

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_policy::event::Event;
use anteroom_proto::names::GrantId;
use anteroom_sdk::connector::{
    Slots,
    generator::{Generator, Pace, Running},
};
use anteroom_tests::e2e::{book::Book, broker::Broker, command, gateway::Gateway, scene::Scene, wait::soon};

/// Answers come as fast as they can.
pub(crate) const AT_ONCE: Duration = Duration::ZERO;

/// A running gateway with everything behind it.
pub(crate) struct Setting {
    pub(crate) scene: Scene,
    pub(crate) broker: Broker,
    pub(crate) grant: GrantId,
    pub(crate) gateway: Gateway,
}

/// Starts everything; the model server pauses for `pause` between two words.
pub(crate) async fn setting(pause: Duration, plan: Plan) -> Setting {
    let (scene, broker) = Scene::start(pause).await;
    let grant = scene.cast.granted(&plan).await.unwrap();
    let gateway = Gateway::start(scene.cast.agency.dir(), &[]).await;
    Setting { scene, broker, grant, gateway }
}

impl Setting {
    /// The agency pauses the grant.
    pub(crate) async fn pause(&self) {
        self.act("pause").await;
    }

    /// The agency's pause ends.
    pub(crate) async fn resume(&self) {
        self.act("resume").await;
    }

    async fn act(&self, verb: &str) {
        let grant = self.grant.to_string();
        command::said(self.scene.cast.agency.dir(), &["grant", verb, &grant, "--reason", "the test does"]).await;
    }

    /// The lab ends the grant.
    pub(crate) async fn withdraw(&self) {
        let _ = self.scene.withdraw(self.grant).await.unwrap();
    }

    /// The lab's connector goes away.
    pub(crate) async fn lab_leaves(&mut self) {
        self.scene.connector.take().unwrap().drain().await;
    }

    /// The built-in generator, which speaks every route, takes the model server's place. It lives as long as what is returned.
    pub(crate) async fn generator(&mut self) -> Running {
        let generator = Generator::start(Pace::AT_ONCE).await.unwrap();
        self.beside(generator.base_url()).await;
        generator
    }

    /// Another model server takes the first one's place.
    pub(crate) async fn beside(&mut self, upstream: &str) {
        self.lab_leaves().await;
        let slots = Slots { idle_min: 2, max: 8 };
        let connector = self.scene.cast.connector(LINE, upstream, slots).await.unwrap();
        let mut status = connector.status();
        soon("an open slot", status.wait_for(|status| status.open > 0)).await.unwrap();
        self.scene.connector = Some(connector);
    }

    /// How often the gateway told a tool no with this code.
    pub(crate) fn refused(&self, code: &str) -> usize {
        self.gateway.log().matches(&format!("code=\"{code}\"")).count()
    }

    /// Ends the broker; how many calls of the grant its ledger admitted.
    pub(crate) async fn admitted(&mut self) -> usize {
        self.broker.kill().await;
        let book = Book::of(&self.broker.data());
        book.of_grant(self.grant, |event| matches!(event, Event::CallAdmitted(_))).len()
    }
}
