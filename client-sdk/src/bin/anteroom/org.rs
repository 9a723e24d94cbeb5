//! `anteroom org`: this organisation.

use anteroom_proto::{
    names::{Digest, OrgId},
    statement::key_set::{KeyRole, OrgKind},
};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::{act, context::Ctx, fail::Fail, key::KeyRow, output::view};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom org init --org lab-a --kind lab
  anteroom org fingerprint        # read it to the other side over the telephone
  anteroom org show
  anteroom org enroll
  anteroom org member agency-a --key-set FINGERPRINT   # as its sponsor";

/// This organisation.
#[derive(Subcommand)]
pub(crate) enum Org {
    /// Make its keys, its key set and its enrolment; nothing is sent
    Init {
        /// Its name: 1 to 63 of a-z, 0-9, `-` and `.`
        #[arg(long)]
        org: OrgId,
        /// What it is
        #[arg(long)]
        kind: Kind,
    },
    /// Join: hand in the enrolment and the key set
    Enroll,
    /// Show its key set
    Show,
    /// Print its fingerprint, for the other side to compare and pin
    Fingerprint,
    /// State, as a sponsor, that an agency is a member
    Member {
        /// The agency
        agency: OrgId,
        /// Fingerprint of its key set, compared out of band [default: as pinned]
        #[arg(long, value_name = "FINGERPRINT")]
        key_set: Option<Digest>,
    },
}

/// What an organisation is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// Hosts models and lends access
    Lab,
    /// Evaluates models for a government
    Agency,
    /// The government whose agencies share one running clock
    Sponsor,
    /// A trusted partner with a clock of its own
    Partner,
    /// Independent oversight
    Oversight,
    /// Runs the broker
    Operator,
}

impl Kind {
    const fn org_kind(self) -> OrgKind {
        match self {
            Self::Lab => OrgKind::Lab,
            Self::Agency => OrgKind::Agency,
            Self::Sponsor => OrgKind::Sponsor,
            Self::Partner => OrgKind::Partner,
            Self::Oversight => OrgKind::Oversight,
            Self::Operator => OrgKind::Operator,
        }
    }
}

view! {
    /// An organisation just made.
    Made {
        /// Its name.
        org: OrgId,
        /// What it is.
        kind: String,
        /// Its fingerprint.
        fingerprint: Digest,
        /// The folder that holds its keys.
        home: String,
        /// What to do next.
        next: String,
    }
}

/// A key set as shown.
#[derive(Serialize)]
struct Shown {
    /// The organisation.
    org: OrgId,
    /// What it is.
    kind: &'static str,
    /// Version of the key set.
    version: u32,
    /// Its fingerprint.
    fingerprint: Digest,
    /// Root signatures for a next version.
    root_threshold: u8,
    /// Signatures for offers, acceptances and other consent.
    signer_threshold: u8,
    /// Its keys; the name is the role.
    keys: Vec<KeyRow>,
}

pub(crate) async fn run(ctx: &Ctx, verb: Org) -> Result<(), Fail> {
    match verb {
        Org::Init { org, kind } => init(ctx, &org, kind.org_kind()),
        Org::Enroll => {
            let home = ctx.home()?;
            let (key_set, enrolment) = home.statements_of_org()?;
            let recorded = home.organisation().await?.enrol(enrolment, key_set).await?;
            act::show(ctx, &home, "enrol", home.org()?.as_str(), &recorded)
        }
        Org::Show => show(ctx),
        Org::Fingerprint => {
            let fingerprint = ctx.home()?.fingerprint()?;
            ctx.out.line(&fingerprint.to_string())
        }
        Org::Member { agency, key_set } => {
            let home = ctx.home()?;
            let key_set = key_set.map_or_else(|| home.fingerprint_of(&agency), Ok)?;
            let roots = [home.signer(KeyRole::Root.as_str())?];
            let recorded = home.organisation().await?.state_membership(agency.clone(), key_set, &roots).await?;
            act::show(ctx, &home, "member", agency.as_str(), &recorded)
        }
    }
}

fn init(ctx: &Ctx, org: &OrgId, kind: OrgKind) -> Result<(), Fail> {
    let mut home = ctx.home_or_new()?;
    home.init_org(org, kind)?;
    let next = if home.cert_roles().is_empty() {
        "ask the operator for an enrolment token, then `anteroom enroll`"
    } else {
        "compare the fingerprint with the other side, then `anteroom org enroll`"
    };
    ctx.out.one(&Made {
        org: org.clone(),
        kind: kind.as_str().to_owned(),
        fingerprint: home.fingerprint()?,
        home: home.dir().display().to_string(),
        next: next.to_owned(),
    })
}

fn show(ctx: &Ctx) -> Result<(), Fail> {
    let home = ctx.home()?;
    let set = home.key_set()?;
    let keys = set.keys.iter().map(|held| KeyRow::new(held.role.as_str(), &held.key)).collect::<Vec<_>>();
    let shown = Shown {
        org: set.org,
        kind: set.kind.as_str(),
        version: set.version,
        fingerprint: home.fingerprint()?,
        root_threshold: set.threshold.root,
        signer_threshold: set.threshold.signer,
        keys,
    };
    let mut pairs = vec![
        ("org".to_owned(), shown.org.to_string()),
        ("kind".to_owned(), shown.kind.to_owned()),
        ("version".to_owned(), shown.version.to_string()),
        ("fingerprint".to_owned(), shown.fingerprint.to_string()),
        ("signatures needed".to_owned(), format!("{} root, {} signer", shown.root_threshold, shown.signer_threshold)),
    ];
    for key in &shown.keys {
        pairs.push((format!("key {}", key.name), format!("{} {} {}", key.algorithm, key.id, key.public)));
    }
    ctx.out.told(&pairs, &shown)
}
