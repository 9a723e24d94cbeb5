//! An agency checks an offer on its own machine, accepts it, and lets a workload act in a run.
//!
//! Run with ANTEROOM_ADDR, ANTEROOM_CERT, ANTEROOM_KEY and ANTEROOM_CA set, and name the grant, the fingerprints compared out of
//! band, and the files:
//!
//! ```text
//! cargo run -p anteroom-sdk --example agency -- \
//!     LOG_KEY GRANT LAB_FINGERPRINT AGENCY_FINGERPRINT enrolment.json signer.pem person.pem p-1 workload.pem
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::{error::Error, path::Path, sync::Arc};

use anteroom_proto::{
    ledger::{checkpoint::LogTrust, note::VerifierKey},
    names::{Digest, GrantId, Pseudonym},
    statement::{
        acts::RunCredential,
        envelope::{Signer, from_file, read_json},
        key_set::Enrolment,
    },
    time::HOUR_MS,
};
use anteroom_sdk::{
    agency::Agency,
    channel::{self, TlsSource},
    credentials::Environment,
    log::LogView,
    signer::{KeyFile, SharedSigner},
    system,
    verify::{dossier::Pins, scope::TagKeys},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [log_key, grant, lab_pin, agency_pin, enrolment, signer, person, pseudonym, workload] = arguments.as_slice()
    else {
        return Err("LOG_KEY GRANT LAB AGENCY ENROLMENT SIGNER PERSON PSEUDONYM WORKLOAD are expected".into());
    };
    let environment = Environment::read(|name| std::env::var_os(name))?;
    let tls = TlsSource::new(environment.credentials()?.tls()?);
    let channel = channel::connect(&environment.address, &tls).await?;
    let trust = LogTrust::log_only(VerifierKey::parse(log_key)?)?;
    let log = Arc::new(LogView::open(trust, Path::new("log-checkpoint"))?);
    let enrolment: Enrolment = read_json(&from_file(&std::fs::read_to_string(enrolment)?)?)?;
    let mut agency = Agency::new(channel, enrolment.org.clone(), log, TagKeys::default());
    agency.organisation().learn_enrolment(&enrolment);

    // Only an offer whose terms, signatures and fingerprints held here can be accepted.
    let pins = Pins { lab: Digest::parse(lab_pin)?, agency: Digest::parse(agency_pin)? };
    let grant = GrantId::parse(grant)?;
    let offer = agency.organisation().offer(grant, &pins).await?;
    println!(
        "{} lends {} for {} hours",
        offer.terms().lab.org,
        offer.terms().model.line,
        offer.terms().window.term_ms.ms() / HOUR_MS
    );
    let signer = SharedSigner::new(KeyFile::open(Path::new(signer))?);
    let accepted = agency.accept(&offer, &[signer]).await?;
    println!("accepted in record {}", accepted.record.header().index);

    let run = offer.terms().runs.first().ok_or("the terms plan no run")?;
    let now = system::now();
    let credential = RunCredential {
        grant,
        run: run.id.clone(),
        org: enrolment.org,
        pseudonym: Pseudonym::parse(pseudonym)?,
        workload: KeyFile::open(Path::new(workload))?.public_key().clone(),
        start_ms: now,
        end_ms: now.plus_ms(24 * HOUR_MS),
    };
    let person = SharedSigner::new(KeyFile::open(Path::new(person))?);
    let (digest, _) = agency.issue_credential(&credential, &person).await?;
    println!("run credential {digest} lasts 24 hours");
    Ok(())
}
