//! A lab offers a grant and withdraws it.
//!
//! Run with ANTEROOM_ADDR, ANTEROOM_CERT, ANTEROOM_KEY and ANTEROOM_CA set, and name the files:
//!
//! ```text
//! cargo run -p anteroom-sdk --example lab -- LOG_KEY enrolment.json signer.pem terms.json
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::{error::Error, path::Path, sync::Arc};

use anteroom_proto::{
    ledger::{checkpoint::LogTrust, note::VerifierKey},
    statement::{
        envelope::{from_file, read_json},
        key_set::Enrolment,
    },
};
use anteroom_sdk::{
    channel::{self, TlsSource},
    credentials::Environment,
    lab::Lab,
    log::LogView,
    signer::{KeyFile, SharedSigner},
    verify::scope::TagKeys,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [log_key, enrolment, signer, terms] = arguments.as_slice() else {
        return Err("LOG_KEY ENROLMENT SIGNER TERMS are expected".into());
    };
    let environment = Environment::read(|name| std::env::var_os(name))?;
    let tls = TlsSource::new(environment.credentials()?.tls()?);
    let channel = channel::connect(&environment.address, &tls).await?;

    // The log's key was compared out of band, when the lab joined.
    let trust = LogTrust::log_only(VerifierKey::parse(log_key)?)?;
    let log = Arc::new(LogView::open(trust, Path::new("log-checkpoint"))?);
    let enrolment: Enrolment = read_json(&from_file(&std::fs::read_to_string(enrolment)?)?)?;
    let mut lab = Lab::new(channel, enrolment.org.clone(), log, TagKeys::default());
    lab.organisation().learn_enrolment(&enrolment);

    let signer = SharedSigner::new(KeyFile::open(Path::new(signer))?);
    let terms = std::fs::read(terms)?;
    let offered = lab.offer(terms, std::slice::from_ref(&signer)).await?;
    println!("offered {} in record {}", offered.grant, offered.recorded.record.header().index);

    // One call, one signature, nobody's consent.
    let withdrawn = lab.withdraw(offered.grant, "this was an example", &signer).await?;
    println!("withdrawn in record {}; the grant is {}", withdrawn.record.header().index, withdrawn.standing);
    Ok(())
}
