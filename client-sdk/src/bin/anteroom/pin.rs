//! `anteroom pin`: what was compared out of band.

use anteroom_proto::names::{Digest, OrgId};
use clap::Subcommand;

use crate::{context::Ctx, fail::Fail, output::view};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom pin log 'broker.example/log+1a2b3c4d+AVh…'
  anteroom pin org lab-a FINGERPRINT
  anteroom pin list

Compare by another way than through the broker: on paper, by telephone, on a signed page.";

/// Pins.
#[derive(Subcommand)]
pub(crate) enum Pin {
    /// Pin the fingerprint of another organisation's key set (`anteroom org fingerprint`, there)
    Org {
        /// Which organisation
        org: OrgId,
        /// Its fingerprint, 64 hexadecimal digits
        fingerprint: Digest,
        /// Replace another that is pinned
        #[arg(long)]
        replace: bool,
    },
    /// Pin the log's verifier key (`anteroom whoami` shows what the broker says)
    Log {
        /// The key, `name+id+base64`
        vkey: String,
        /// Replace another that is pinned, and forget the checkpoint seen under it
        #[arg(long)]
        replace: bool,
    },
    /// List what is pinned
    List,
}

view! {
    /// Something pinned.
    PinRow {
        /// `log` or an organisation.
        what: String,
        /// The key or fingerprint.
        value: String,
    }
}

pub(crate) fn run(ctx: &Ctx, verb: Pin) -> Result<(), Fail> {
    let home = match verb {
        Pin::List => ctx.home()?,
        Pin::Org { org, fingerprint, replace } => {
            let home = ctx.home_or_new()?;
            home.pin_org(&org, fingerprint, replace)?;
            home
        }
        Pin::Log { vkey, replace } => {
            let home = ctx.home_or_new()?;
            home.pin_log(&vkey, replace)?;
            home
        }
    };
    let pins = home.pins()?;
    let log = pins.log.map(|value| PinRow { what: "log".to_owned(), value });
    let orgs = pins.orgs.iter().map(|(org, value)| PinRow { what: org.to_string(), value: value.to_string() });
    ctx.out.rows(&log.into_iter().chain(orgs).collect::<Vec<_>>())
}
