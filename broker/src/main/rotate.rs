//! `rotate-kek`, `rotate-log-key` and `rotate-ca`: the operator's keys, exchanged.

use anteroom_broker::{
    boot::{self, Rewrapped, Rotated, authority},
    clock::SystemTime,
    config::Secret,
};
use clap::{Args, ValueEnum};

use super::{Configured, Failure, environment, say};

#[derive(Args)]
pub(super) struct KekArgs {
    #[command(flatten)]
    configured: Configured,
    /// The key to go on with, as `file:///path` or `env://NAME`; a file that is not there is made
    #[arg(long, value_name = "SECRET")]
    to: Secret,
}

#[derive(Args)]
pub(super) struct LogKeyArgs {
    #[command(flatten)]
    configured: Configured,
    /// The key that signs from the next start on, as `file:///path` or `env://NAME`; a file that is not there is made
    #[arg(long, value_name = "SECRET")]
    to: Secret,
}

#[derive(Args)]
pub(super) struct CaArgs {
    #[command(flatten)]
    configured: Configured,
    /// Which step
    #[arg(value_enum)]
    step: Step,
    /// Do not wait until members have fetched the roots, or until their certificates of the old one have ended
    #[arg(long)]
    at_once: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Step {
    /// Make the next root and have it trusted beside the present one; the broker may run
    Begin,
    /// Have the next root sign; the broker must be stopped
    Switch,
    /// End trust in the root before; the broker may run
    Finish,
}

/// Wraps the scopes' keys anew.
pub(super) fn kek(args: KekArgs) -> Result<(), Failure> {
    let KekArgs { configured, to } = args;
    let config = configured.load()?;
    let done = match boot::rotate_kek(&config, &environment, &to)? {
        Rewrapped::Now(count) => format!("{count} scopes' keys are wrapped under `{to}` now"),
        Rewrapped::Before => format!("the scopes' keys are wrapped under `{to}` already"),
    };
    say(&format!(
        "{done}\nNext: set `kek = \"{to}\"`, start the broker, back up the new key, and destroy the old one with every backup of it"
    ))
}

/// Has the log's key hand over to the next one.
pub(super) fn log_key(args: LogKeyArgs) -> Result<(), Failure> {
    let LogKeyArgs { configured, to } = args;
    let config = configured.load()?;
    let before = config.log_key();
    let (link, when) = match boot::rotate_log_key(&config, &environment, &to)? {
        Rotated::Now(link) => (link, "now"),
        Rotated::Before(link) => (link, "already"),
    };
    let (from, old, new) = (link.from(), link.old(), link.next());
    let before = if *before == to { "the secret of the key before".to_owned() } else { format!("\"{before}\"") };
    say(&format!(
        "the log's key has handed over {when}, for checkpoints of {from} records and more\nold  {old}\nnew  {new}\n\
         Next: set `log_key = \"{to}\"` and `log_key_before = {before}`, start the broker, and back up the new key and `log.keys`; \
         tell the parties, whose programs follow by themselves while both keys sign; once everybody has been there, and each standby and \
         backup is level, take `log_key_before` out, start again, and destroy the old key with every backup of it"
    ))
}

/// One step towards another root.
pub(super) fn ca(args: CaArgs) -> Result<(), Failure> {
    let CaArgs { configured, step, at_once } = args;
    let (config, time) = (configured.load()?, SystemTime::new()?);
    match step {
        Step::Begin => {
            authority::begin(&config, &time)?;
            say("a new root is trusted beside the present one; a running broker notices within ten seconds\n\
                 Next: wait a day, in which members fetch it with their certificates, then stop the broker and `rotate-ca switch`")
        }
        Step::Switch => {
            authority::switch(&config, &time, at_once)?;
            say("the new root signs from the next start on\n\
                 Next: start the broker, wait a day, in which certificates of the old root end, then `rotate-ca finish`")
        }
        Step::Finish => {
            authority::finish(&config, &time, at_once)?;
            say("the new root alone is trusted; destroy every backup of the old `pki/ca.key`")
        }
    }
}

impl From<boot::RekeyError> for Failure {
    fn from(error: boot::RekeyError) -> Self {
        Self::Rotation(error.to_string())
    }
}

impl From<boot::LogKeyError> for Failure {
    fn from(error: boot::LogKeyError) -> Self {
        Self::Rotation(error.to_string())
    }
}

impl From<authority::AuthorityError> for Failure {
    fn from(error: authority::AuthorityError) -> Self {
        Self::Rotation(error.to_string())
    }
}
