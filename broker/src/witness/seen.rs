//! How long a log was seen to be, asked of witnesses by whoever is about to go on with a copy of it.

use anteroom_proto::ledger::note::Note;
use tokio::time::timeout;

use super::{
    Desk, Witnesses,
    ask::{Answer, body},
    http::Client,
};

/// What each said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Sizes by witness.
    pub sizes: Vec<(String, u64)>,
    /// Those who said nothing that can be used, and why.
    pub silent: Vec<String>,
}

impl Witnesses {
    /// Asks each for the size that it cosigned last, by offering this checkpoint of `size` records as if it had seen nothing. One
    /// that has seen nothing cosigns it.
    pub async fn seen(&self, note: &Note, size: u64) -> Heard {
        let mut heard = Heard::default();
        let client = match Client::new() {
            Ok(client) => client,
            Err(error) => {
                heard.silent = self.each.iter().map(|desk| format!("{}: {error}", desk.witness.key.name())).collect();
                return heard;
            }
        };
        for desk in self.each.iter() {
            let who = desk.witness.key.name().to_string();
            match seen(desk, &client, note, size).await {
                Ok(size) => heard.sizes.push((who, size)),
                Err(why) => heard.silent.push(format!("{who}: {why}")),
            }
        }
        heard
    }
}

async fn seen(desk: &Desk, client: &Client, note: &Note, size: u64) -> Result<u64, String> {
    let asked = client.post(&desk.witness.address, body(0, &[], note));
    let (status, reply) = timeout(desk.times.turn, asked)
        .await
        .map_err(|_| "it did not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    match Answer::read(status, &reply) {
        Some(Answer::Size(size)) => Ok(size),
        Some(Answer::Lines(_)) => Ok(size),
        Some(Answer::Refuted) => Err("it does not believe the checkpoint".to_owned()),
        Some(Answer::Other(status)) => Err(format!("it answered with status {status}")),
        None => Err("its answer cannot be read".to_owned()),
    }
}
