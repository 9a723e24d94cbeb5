//! One process that plays every part, over real wires: the demo, and the operator's throw-away `dev` broker.
//!
//! Each party has a folder of its own and a key set with one key a role; broker code opens `operator/` alone, and everything
//! between the parties goes over TLS on loopback. Fingerprints are pinned across the folders by this process, where real
//! parties compare them out of band; the demo says so.

pub mod cast;
mod dev;
mod evidence;
mod story;
mod tell;

use std::path::PathBuf;

pub use cast::{Cast, CastError, Plan};

/// Plays the whole story in the terminal.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DemoArgs {
    /// Use this OpenAI-compatible model server instead of the built-in text generator
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Keep everything here (data, identities, receipts); must be absent or empty
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs a throw-away broker with seeded parties.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DevArgs {
    /// Where the parties' folders go; taken up again if it is a `dev` folder
    #[arg(long, value_name = "DIR", default_value = "anteroom-dev")]
    pub dir: PathBuf,
    /// Programme listener; the enrolment and operations listeners take the next two ports (0 lets the kernel choose)
    #[arg(long, value_name = "PORT", default_value_t = 7443)]
    pub port: u16,
}

/// Why the demo or the `dev` broker stopped.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Setting the scene failed.
    #[error(transparent)]
    Cast(#[from] CastError),
    /// A party could not do its part.
    #[error(transparent)]
    Sdk(#[from] anteroom_sdk::error::Error),
    /// A party's folder failed it.
    #[error(transparent)]
    Home(#[from] anteroom_sdk::home::HomeError),
    /// The story went otherwise than it must.
    #[error("the story went wrong: {0}")]
    Story(String),
    /// A file.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Plays the story.
///
/// # Errors
/// Something did not go as it must; the folder is left for looking at.
pub async fn demo(args: DemoArgs) -> Result<(), DemoError> {
    story::play(args).await
}

/// Runs the throw-away broker until a signal.
///
/// # Errors
/// It cannot start.
pub async fn dev(args: DevArgs) -> Result<(), DemoError> {
    dev::run(args).await
}
