//! Something that answers calls, and what one round of load costs it.

use std::{sync::Arc, time::Duration};

use anteroom_proto::rpc::inference_client::InferenceClient;
use tonic::transport::Channel;

use super::{
    Fallible,
    answers::Manner,
    load::{self, Caller, Tally},
    machine,
};

/// A contender with its connections.
#[derive(Debug)]
pub struct Contender {
    /// Its name in tables.
    pub name: &'static str,
    /// Its process; none if it runs in the generator's.
    pub pid: Option<u32>,
    /// Connections.
    pub connections: Vec<InferenceClient<Channel>>,
    /// What its calls are made under.
    pub caller: Arc<Caller>,
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
    /// Loads it from `clients` clients for `length`.
    pub async fn round(&self, manner: Manner, clients: usize, length: Duration) -> Fallible<Round> {
        let own = std::process::id();
        let cpu = || self.pid.map_or(Ok(0.0), machine::cpu_seconds);
        let (before, own_before) = (cpu()?, machine::cpu_seconds(own)?);
        let tally = load::drive(&self.connections, clients, &self.caller, manner, length).await?;
        let round = Round { cpu: cpu()? - before, generator_cpu: machine::cpu_seconds(own)? - own_before, tally };
        if round.tally.failed.0 > round.tally.calls / 100 {
            let (failed, reason) = &round.tally.failed;
            let reason = reason.as_deref().unwrap_or_default();
            return Err(
                format!("`{}` failed {failed} calls, answered {}: {reason}", self.name, round.tally.calls).into()
            );
        }
        Ok(round)
    }
}
