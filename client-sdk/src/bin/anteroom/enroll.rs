//! `anteroom enroll` and `anteroom whoami`: the first contact with a broker.

use std::path::{Path, PathBuf};

use anteroom_proto::{names::Digest, time::At};
use anteroom_sdk::credentials::EnrolTrust;
use clap::Args;

use crate::{
    context::Ctx,
    fail::Fail,
    output::{When, clean, view},
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom enroll --token - --enrol-addr broker.example:7444 --addr broker.example:7443 --roots roots.pem
  anteroom --home lab enroll --token TOKEN --enrol-addr 127.0.0.1:7444 --pin SHA256_OF_THE_CERTIFICATE

One certificate is kept for each role (admin, person, workload, connector, auditor); enroll once for each.";

pub(crate) const WHOAMI_EXAMPLES: &str = "Examples:
  anteroom whoami
  anteroom whoami --format json

The log's key is the broker's word until you compared it with the operator by another way; then `anteroom pin log VKEY`.";

/// Exchanges a one-time token for a certificate.
#[derive(Args)]
pub(crate) struct Enroll {
    /// The one-time token; `-` reads it from standard input, which keeps it out of the list of processes
    #[arg(long, value_name = "TOKEN")]
    token: String,
    /// The broker's listener for newcomers, HOST:PORT; kept in the folder
    #[arg(long, value_name = "ADDR")]
    enrol_addr: Option<String>,
    /// The name in the broker's certificate; kept in the folder [default: the host in the address]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Roots that the broker's certificate must lead to, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "pin", conflicts_with = "pin")]
    roots: Option<PathBuf>,
    /// SHA-256 of the broker's certificate, as the operator told it
    #[arg(long, value_name = "SHA256")]
    pin: Option<Digest>,
}

view! {
    /// A certificate got.
    Enrolled {
        /// How the broker knows it: `org/role/name`.
        identity: String,
        /// The folder it is in.
        home: String,
        /// What to do next.
        next: String,
    }
}

view! {
    /// What the broker says about the caller and itself.
    WhoAmI {
        /// `org/role/name`.
        identity: String,
        /// What the organisation is; absent until it is enrolled.
        kind: Option<String>,
        /// Fingerprint of its key set in force.
        key_set: Option<Digest>,
        /// Whether that is this folder's own.
        key_set_is: String,
        /// The log's verifier key, on the broker's word.
        log_key: String,
        /// Whether that is the one pinned here.
        log_key_is: String,
        /// The broker's clock.
        now: When,
        /// `trusted`, or why not.
        clock: String,
        /// End of the certificate.
        certificate_end: When,
        /// The broker's version.
        version: String,
    }
}

pub(crate) async fn enroll(ctx: &Ctx, args: Enroll) -> Result<(), Fail> {
    let token = match args.token.as_str() {
        "-" => ctx.read_text(Path::new("-"))?,
        token => token.to_owned(),
    };
    let trust = match (&args.roots, args.pin) {
        (Some(roots), _) => EnrolTrust::Roots(ctx.read_text(roots)?),
        (None, Some(pin)) => EnrolTrust::Pinned(pin),
        (None, None) => return Err(Fail::Usage("give `--roots FILE` or `--pin SHA256`".to_owned())),
    };
    let mut home = ctx.home_or_new()?;
    home.set(|settings| {
        settings.addr = ctx.addr().map(str::to_owned).or_else(|| settings.addr.take());
        settings.enrol_addr = args.enrol_addr.or_else(|| settings.enrol_addr.take());
        settings.server_name = args.server_name.or_else(|| settings.server_name.take());
    })?;
    if home.settings().enrol_addr.is_none() {
        return Err(Fail::Usage("give the broker's listener for newcomers with `--enrol-addr HOST:PORT`".to_owned()));
    }
    let address = home.enrol_address()?;
    let identity = home.enrol(&address, &trust, token.trim()).await?;
    let next = if home.settings().addr.is_none() {
        "run `anteroom whoami --addr HOST:PORT`, with the address for everybody with a certificate"
    } else if home.pins()?.log.is_none() {
        "run `anteroom whoami`, compare the log's key with the operator, then `anteroom pin log VKEY`"
    } else {
        "nothing; this folder is ready"
    };
    let home = home.dir().display().to_string();
    ctx.out.one(&Enrolled { identity, home, next: next.to_owned() })
}

pub(crate) async fn whoami(ctx: &Ctx) -> Result<(), Fail> {
    let home = ctx.home()?;
    let reply = home.who_am_i().await?;
    let key_set = Digest::from_slice(&reply.key_set).ok();
    let key_set_is = match (key_set, home.fingerprint()) {
        (Some(shown), Ok(own)) if shown == own => "this folder's",
        (Some(_), Ok(_)) => "not this folder's: the key set in force is another version or another's",
        (None, Ok(_)) => "not enrolled; run `anteroom org enroll`",
        (_, Err(_)) => "not compared: this folder holds no key set",
    };
    let pinned = home.pins()?.log;
    let (log_key_is, fine) = match &pinned {
        None => ("not pinned: compare it with the operator by another way, then `anteroom pin log VKEY`", true),
        Some(pinned) if *pinned == reply.log_key => ("pinned", true),
        Some(_) if home.knows_log_key(&reply.log_key).await? => ("one that the pinned key handed over to", true),
        Some(_) => ("not the one that is pinned", false),
    };
    ctx.out.one(&WhoAmI {
        identity: reply.identity,
        kind: Some(reply.org_kind).filter(|kind| !kind.is_empty()),
        key_set,
        key_set_is: key_set_is.to_owned(),
        log_key: reply.log_key.clone(),
        log_key_is: log_key_is.to_owned(),
        now: At::clamped(reply.now_ms).into(),
        clock: reply.clock,
        certificate_end: At::clamped(reply.certificate_end_ms).into(),
        version: reply.version,
    })?;
    if fine {
        Ok(())
    } else {
        let shown = clean(&reply.log_key);
        Err(Fail::Verification(format!("the broker names `{shown}` as its log's key, another one is pinned")))
    }
}
