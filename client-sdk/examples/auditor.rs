//! An auditor reads a grant's scope and shows that nothing in it was withheld.
//!
//! Run with ANTEROOM_ADDR, ANTEROOM_CERT, ANTEROOM_KEY and ANTEROOM_CA set. The nonce stands in the grant's terms, which the
//! appointing party hands to its auditor:
//!
//! ```text
//! cargo run -p anteroom-sdk --example auditor -- LOG_KEY GRANT NONCE
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::{error::Error, path::Path, sync::Arc};

use anteroom_proto::{
    ledger::{checkpoint::LogTrust, note::VerifierKey, receipt::CALL_ADMITTED, scope::Scope},
    names::{Digest, GrantId},
    rpc::CallAdmitted,
};
use anteroom_sdk::{
    auditor::Auditor,
    channel::{self, TlsSource},
    credentials::Environment,
    log::LogView,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [log_key, grant, nonce] = arguments.as_slice() else {
        return Err("LOG_KEY GRANT NONCE are expected".into());
    };
    let environment = Environment::read(|name| std::env::var_os(name))?;
    let tls = TlsSource::new(environment.credentials()?.tls()?);
    let channel = channel::connect(&environment.address, &tls).await?;
    let trust = LogTrust::log_only(VerifierKey::parse(log_key)?)?;
    let log = Arc::new(LogView::open(trust, Path::new("log-checkpoint"))?);

    let scope = Scope::Grant(GrantId::parse(grant)?);
    let tag_key = scope.tag_key(&Digest::parse(nonce)?);
    let mut auditor = Auditor::new(channel, log);
    let mut reading = auditor.read(scope, tag_key, false).await?;
    while let Some(read) = reading.next().await? {
        let header = read.record.header();
        println!("{} {}", header.seq, read.record.opened().spec().name);
        if header.kind == CALL_ADMITTED {
            let call = read.event::<CallAdmitted>()?;
            println!("  by {}", call.value().pseudonym);
        }
    }
    let whole = auditor.prove_whole(reading).await?;
    println!(
        "{} records of {}, and there are no others among the log's {} entries",
        whole.records(),
        whole.scope(),
        whole.checkpoint().checkpoint().size()
    );
    Ok(())
}
