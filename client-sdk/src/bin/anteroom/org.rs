//! `anteroom org`: this organisation.

use std::{path::PathBuf, str::FromStr};

use anteroom_proto::{
    names::{Digest, GrantId, OrgId},
    statement::key_set::{KeyRole, OrgKind, RoleKey},
};
use anteroom_sdk::home::KeyChanges;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::{
    act,
    contacts::{self, ContactsVerb},
    context::Ctx,
    fail::Fail,
    key::KeyRow,
    output::view,
    statement,
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom org init --org lab-a --kind lab
  anteroom org fingerprint        # read it to the other side over the telephone
  anteroom org show
  anteroom org enroll
  anteroom org rotate --replace signer --replace stop --out next.json
  anteroom org rotate --add root=ed25519:BASE64 --root-threshold 2 --out next.json
  anteroom org member agency-a --key-set FINGERPRINT   # as its sponsor
  anteroom org contacts set contacts.json              # where to be told that something waits or ends
  anteroom org notices --grant GRANT                   # what was sent, to whom, and whether it arrived";

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
    /// Make and sign the next version of the key set; nothing is sent
    Rotate(Rotate),
    /// Where to be told that something waits for this organisation or ends
    #[command(subcommand)]
    Contacts(ContactsVerb),
    /// List what was sent to its contacts and what became of it, from its own proven records
    Notices {
        /// About this grant alone
        #[arg(long)]
        grant: Option<GrantId>,
    },
    /// State, as a sponsor, that an agency is a member
    Member {
        /// The agency
        agency: OrgId,
        /// Fingerprint of its key set, compared out of band [default: as pinned]
        #[arg(long, value_name = "FINGERPRINT")]
        key_set: Option<Digest>,
    },
}

/// What the next key set changes.
#[derive(clap::Args)]
pub(crate) struct Rotate {
    /// Replace this folder's key of a role by a new one, which waits until the set is in force
    #[arg(long, value_name = "ROLE")]
    replace: Vec<RoleName>,
    /// A key that joins, as `anteroom key list` prints it
    #[arg(long, value_name = "ROLE=ALGORITHM:BASE64")]
    add: Vec<Joining>,
    /// A key that leaves, by its short name
    #[arg(long, value_name = "ID")]
    remove: Vec<String>,
    /// How many root keys must sign from then on
    #[arg(long)]
    root_threshold: Option<u8>,
    /// How many signers must sign from then on
    #[arg(long)]
    signer_threshold: Option<u8>,
    /// The file for the signed key set; `anteroom statement submit` hands it in
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A role's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoleName(KeyRole);

impl FromStr for RoleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let role = serde_json::from_value(serde_json::Value::from(text));
        let known = "a role is `root`, `signer`, `roster`, `connector`, `stop`, `witness` or `oversight`";
        role.map(Self).map_err(|_| known.to_owned())
    }
}

/// A key that joins a key set.
#[derive(Clone, Debug)]
pub(crate) struct Joining(RoleKey);

impl FromStr for Joining {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (role, key) = text.split_once('=').ok_or("`ROLE=ALGORITHM:BASE64` is expected")?;
        let (algorithm, key) = key.split_once(':').ok_or("`ROLE=ALGORITHM:BASE64` is expected")?;
        let key = serde_json::from_value(serde_json::json!({ "algorithm": algorithm, "public": key }));
        let key = key.map_err(|error| format!("the key is none: {error}"))?;
        Ok(Self(RoleKey { role: role.parse::<RoleName>()?.0, key }))
    }
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
        Org::Rotate(args) => rotate(ctx, args),
        Org::Contacts(verb) => contacts::run(ctx, verb).await,
        Org::Notices { grant } => contacts::notices(ctx, grant).await,
        Org::Member { agency, key_set } => {
            let home = ctx.home()?;
            let key_set = key_set.map_or_else(|| home.fingerprint_of(&agency), Ok)?;
            let roots = [home.signer(KeyRole::Root.as_str())?];
            let recorded = home.organisation().await?.state_membership(agency.clone(), key_set, &roots).await?;
            act::show(ctx, &home, "member", agency.as_str(), &recorded)
        }
    }
}

fn rotate(ctx: &Ctx, args: Rotate) -> Result<(), Fail> {
    let home = ctx.home()?;
    let short = |id: &String| {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
            Fail::Usage(format!(
                "`{id}` is no key's short name; `anteroom org show` prints 16 hexadecimal digits for each"
            ))
        })
    };
    let changes = KeyChanges {
        replace: args.replace.into_iter().map(|role| role.0).collect(),
        add: args.add.into_iter().map(|joining| joining.0).collect(),
        remove: args.remove.iter().map(short).collect::<Result<_, _>>()?,
        root: args.root_threshold,
        signer: args.signer_threshold,
    };
    statement::keep(ctx, &home.next_key_set(&changes)?, &args.out)
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
