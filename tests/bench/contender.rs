//! Something that answers calls, and what one round of load costs it.

use std::sync::Arc;

use anteroom_proto::rpc::inference_client::InferenceClient;
use tonic::transport::Channel;

use super::{
    Fallible,
    answers::Manner,
    http,
    load::{self, Amount, Caller, Tally},
    machine,
};

/// How a contender is asked.
#[derive(Debug)]
pub enum Way {
    /// By gRPC over mutual TLS, on connections made before, with signed claims.
    Grpc {
        /// Connections.
        connections: Vec<InferenceClient<Channel>>,
        /// What its calls are made under, by turns.
        callers: Vec<Arc<Caller>>,
    },
    /// By HTTP and JSON, as it knows nothing else; the prompts are the same bytes.
    Http(http::Door),
}

/// A contender with its connections.
#[derive(Debug)]
pub struct Contender {
    /// Its name in tables.
    pub name: String,
    /// Its process; none if it runs in the generator's.
    pub pid: Option<u32>,
    /// How it is asked.
    pub way: Way,
}

/// One round of load on one contender.
#[derive(Clone, Debug)]
pub struct Round {
    /// What came back.
    pub tally: Tally,
    /// Processor seconds of the contender.
    pub cpu: f64,
    /// Processor seconds of the generator, the model's side included.
    pub generator_cpu: f64,
}

impl Round {
    /// The contender's processor time a call, in microseconds.
    pub fn cpu_per_call(&self) -> f64 {
        self.cpu * 1e6 / self.tally.calls as f64
    }

    /// Share of the round in which the contender had a core.
    pub fn busy(&self) -> f64 {
        self.cpu / self.tally.took.as_secs_f64()
    }

    /// The same of the generator.
    pub fn generator_busy(&self) -> f64 {
        self.generator_cpu / self.tally.took.as_secs_f64()
    }
}

impl Contender {
    /// Whose calls it answers first, if it asks.
    pub fn caller(&self) -> Option<Arc<Caller>> {
        match &self.way {
            Way::Grpc { callers, .. } => callers.first().map(Arc::clone),
            Way::Http(_) => None,
        }
    }

    /// The load alone, whatever comes of it.
    pub async fn tally(&self, manner: Manner, clients: usize, amount: Amount) -> Fallible<Tally> {
        match &self.way {
            Way::Grpc { connections, callers } => load::drive(connections, clients, callers, manner, amount).await,
            Way::Http(door) => http::drive(door, clients, manner, amount).await,
        }
    }

    /// Loads it from `clients` clients.
    pub async fn round(&self, manner: Manner, clients: usize, amount: Amount) -> Fallible<Round> {
        let own = std::process::id();
        let cpu = || self.pid.map_or(Ok(0.0), machine::cpu_seconds);
        let (before, own_before) = (cpu()?, machine::own_cpu_seconds(own)?);
        let tally = self.tally(manner, clients, amount).await?;
        let round = Round { cpu: cpu()? - before, generator_cpu: machine::own_cpu_seconds(own)? - own_before, tally };
        if round.tally.calls == 0 || round.tally.failed.0 > round.tally.calls / 100 {
            let (failed, reason) = &round.tally.failed;
            let reason = reason.as_deref().unwrap_or_default();
            return Err(
                format!("`{}` failed {failed} calls, answered {}: {reason}", self.name, round.tally.calls).into()
            );
        }
        Ok(round)
    }
}
