//! An evaluator makes a call and a streamed one, and keeps both receipts.
//!
//! Run with ANTEROOM_ADDR, ANTEROOM_CERT, ANTEROOM_KEY and ANTEROOM_CA set:
//!
//! ```text
//! cargo run -p anteroom-sdk --example evaluator -- \
//!     LOG_KEY GRANT LAB_FINGERPRINT AGENCY_FINGERPRINT RUN CREDENTIAL workload.pem MODEL
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::{error::Error, path::Path, sync::Arc};

use anteroom_proto::{
    ledger::{checkpoint::LogTrust, note::VerifierKey},
    names::{Digest, GrantId, RunId},
};
use anteroom_sdk::{
    channel::{self, TlsSource},
    credentials::Environment,
    evaluator::{CallerConfig, Evaluator, Route, StreamItem},
    log::LogView,
    signer::{KeyFile, SharedSigner},
    store::{ReceiptKeeper, ReceiptStore},
    verify::dossier::Pins,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [log_key, grant, lab_pin, agency_pin, run, credential, workload, model] = arguments.as_slice() else {
        return Err("LOG_KEY GRANT LAB AGENCY RUN CREDENTIAL WORKLOAD MODEL are expected".into());
    };
    let environment = Environment::read(|name| std::env::var_os(name))?;
    let tls = TlsSource::new(environment.credentials()?.tls()?);
    let channel = channel::connect(&environment.address, &tls).await?;
    let trust = LogTrust::log_only(VerifierKey::parse(log_key)?)?;
    let log = Arc::new(LogView::open(trust, Path::new("log-checkpoint"))?);
    let keeper = ReceiptKeeper::new(ReceiptStore::open(Path::new("receipts"))?);
    let config = CallerConfig {
        grant: GrantId::parse(grant)?,
        run: RunId::parse(run)?,
        credential: Digest::parse(credential)?,
        workload: SharedSigner::new(KeyFile::open(Path::new(workload))?),
        pins: Pins { lab: Digest::parse(lab_pin)?, agency: Digest::parse(agency_pin)? },
        marking: None,
    };
    let evaluator = Evaluator::open(channel, config, log, keeper).await?;

    let body = serde_json::json!({
        "model": model,
        "messages": [{"role": "user", "content": "What is an anteroom?"}],
        "max_tokens": 64,
    });
    let answer = evaluator.complete(Route::Chat, body.to_string().into()).await?;
    println!(
        "{} answered with {} bytes; receipt in record {}",
        answer.call.receipt().call(),
        answer.body.len(),
        answer.call.receipt().admitted().header().index
    );

    let mut body = body;
    if let Some(fields) = body.as_object_mut() {
        fields.insert("stream".to_owned(), true.into());
    }
    let mut stream = evaluator.stream(Route::Chat, body.to_string().into()).await?;
    while let Some(item) = stream.next().await? {
        match item {
            StreamItem::Admitted(record) => println!("on record at {}", record.header().index),
            StreamItem::Data(data) => println!("{}", String::from_utf8_lossy(&data)),
            StreamItem::End { call, .. } => println!("ended: {}", call.end()),
        }
    }
    Ok(())
}
