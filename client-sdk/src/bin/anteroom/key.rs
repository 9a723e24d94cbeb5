//! `anteroom key`: keys in this folder.

use anteroom_proto::statement::{
    envelope::Signer,
    key::{Algorithm, PublicKey},
};
use clap::{Subcommand, ValueEnum};

use crate::{context::Ctx, fail::Fail, output::view};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom key new workload
  anteroom key new person-p-1 --algorithm ecdsa-p256-sha256
  anteroom key list";

/// Keys.
#[derive(Subcommand)]
pub(crate) enum Key {
    /// Make a key; NAME is a role, `workload`, or `person-PSEUDONYM`
    New {
        /// Its name
        name: String,
        /// How it signs
        #[arg(long, default_value = "ed25519")]
        algorithm: KeyAlgorithm,
    },
    /// List the keys here, public parts only
    List,
}

/// Algorithms that keys are made for here.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KeyAlgorithm {
    /// Ed25519
    Ed25519,
    /// ECDSA on P-256 with SHA-256
    #[value(name = "ecdsa-p256-sha256")]
    P256,
    /// ECDSA on P-384 with SHA-384
    #[value(name = "ecdsa-p384-sha384")]
    P384,
}

view! {
    /// A key.
    KeyRow {
        /// Its name.
        name: String,
        /// How it signs.
        algorithm: String,
        /// Its short name in signatures, hexadecimal.
        id: String,
        /// The public key, base64, as rosters name it.
        public: String,
    }
}

impl KeyRow {
    pub(crate) fn new(name: &str, key: &PublicKey) -> Self {
        let algorithm = serde_json::to_value(key.algorithm()).ok();
        Self {
            name: name.to_owned(),
            algorithm: algorithm.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default(),
            id: data_encoding::HEXLOWER.encode(&key.id()),
            public: data_encoding::BASE64.encode(key.bytes()),
        }
    }
}

pub(crate) fn run(ctx: &Ctx, verb: Key) -> Result<(), Fail> {
    match verb {
        Key::New { name, algorithm } => {
            let home = ctx.home_or_new()?;
            let algorithm = match algorithm {
                KeyAlgorithm::Ed25519 => Algorithm::Ed25519,
                KeyAlgorithm::P256 => Algorithm::EcdsaP256Sha256,
                KeyAlgorithm::P384 => Algorithm::EcdsaP384Sha384,
            };
            home.new_key(&name, algorithm)?;
            ctx.out.one(&KeyRow::new(&name, home.signer(&name)?.public_key()))
        }
        Key::List => {
            let keys = ctx.home()?.keys()?;
            ctx.out.rows(&keys.iter().map(|(name, key)| KeyRow::new(name, key)).collect::<Vec<_>>())
        }
    }
}
