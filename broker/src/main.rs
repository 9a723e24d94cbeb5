//! `anteroom-broker`: from a command line to a running broker and an exit code.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anteroom_broker::{
    boot::{self, DrillError, Ended, Folder, NewLog, Outside, RestoreError, Running, StartError, Switch},
    clock::{SystemTime, TimeSource as _},
    config::{Config, ConfigError, LogFormat, Settings},
    entropy::SystemEntropy,
    identity::{NameError, Principal, Role},
    pki::token::{TokenError, TokenLifetime, TokenStore},
    standby::{badge::BadgeError, server::StandbyError},
};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A call makes some hundreds of small pieces of memory and another thread than its maker's gives many of them back, which costs the
/// system's allocator a tenth of the call.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something is wrong on this machine.
const LOCAL_ERROR: u8 = 1;
/// What was checked is not what it should be.
const VERIFICATION_FAILED: u8 = 7;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 something is wrong on this machine; 2 wrong usage; 7 verification failed.

A value comes from its flag, else from its environment variable, else from the file, else from its default.";

#[path = "main/ledger.rs"]
mod ledger;
#[path = "main/rotate.rs"]
mod rotate;
#[path = "main/standby.rs"]
mod standby;

#[derive(Parser)]
#[command(name = "anteroom-broker", version, about = "Lends access to a model before its release, on terms both sides signed", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a data directory: authority, server certificate, the log's key.
    #[command(
        after_help = "Examples:\n  anteroom-broker init --config /etc/anteroom/broker.toml\n  anteroom-broker init --config two.toml --like /var/lib/anteroom-one                          # one more broker over one database\n  anteroom-broker init --config broker.toml --like /etc/anteroom/secrets --new-log             # the first, from secrets that all share\n  anteroom-broker init --config broker.toml --like /etc/anteroom/secrets --if-missing          # at each start of a replica"
    )]
    Init(InitArgs),
    /// Run the broker. The first signal drains it, the second stops it.
    #[command(after_help = "Example:\n  anteroom-broker serve --config /etc/anteroom/broker.toml")]
    Serve(Configured),
    /// Print what the parties pin: the log's key, then the roots of the server's certificate. Works while the broker runs.
    #[command(after_help = "Example:\n  anteroom-broker pins --config broker.toml > pins.txt")]
    Pins(Configured),
    /// Mint a one-time token with which somebody gets a first certificate. Works while the broker runs.
    #[command(
        after_help = "Example:\n  anteroom-broker token --config broker.toml --org aisi --role person --name alice --ttl 2h"
    )]
    Token(TokenArgs),
    /// Look at a configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Fold the whole ledger and recompute every digest, chain, root, signature and published tile. The broker must be stopped.
    #[command(
        after_help = "Without --adopt-lock, --cut-tail and --witnessed-size it changes nothing; deploy/RUNBOOK.md says when each is right.\n\nExample:\n  anteroom-broker fsck --config broker.toml || echo 'do not start it'"
    )]
    Fsck(ledger::FsckArgs),
    /// Copy the ledger of the data directory into an empty PostgreSQL, and verify it on both sides. The broker must be stopped.
    #[command(
        after_help = "The ledger's folder is moved aside at the end; add the same `book` to the configuration and start.\n\nExample:\n  anteroom-broker migrate --config broker.toml --to postgres://anteroom@db.example/anteroom --to-ca db-ca.pem"
    )]
    Migrate(ledger::MigrateArgs),
    /// Move the index aside; the next start makes it anew from the ledger while it serves. The broker must be stopped.
    #[command(after_help = "Example:\n  anteroom-broker rebuild-index --config broker.toml")]
    RebuildIndex(Configured),
    /// Wrap the scopes' keys under another key-encryption key. The broker must be stopped.
    #[command(
        after_help = "Run it again if it was interrupted. deploy/RUNBOOK.md has the whole rotation.\n\nExample:\n  anteroom-broker rotate-kek --config broker.toml --to file:///var/lib/anteroom/kek.2"
    )]
    RotateKek(rotate::KekArgs),
    /// Have the log's key hand over to another one within the log. The broker must be stopped.
    #[command(
        after_help = "Run it again if it was interrupted. deploy/RUNBOOK.md has the whole rotation.\n\nExample:\n  anteroom-broker rotate-log-key --config broker.toml --to file:///var/lib/anteroom/log.key.2"
    )]
    RotateLogKey(rotate::LogKeyArgs),
    /// Exchange the built-in authority's root, in three steps a day apart.
    #[command(
        after_help = "deploy/RUNBOOK.md has the whole rotation.\n\nExample:\n  anteroom-broker rotate-ca begin --config broker.toml"
    )]
    RotateCa(rotate::CaArgs),
    /// Run a broker for trying things out, with one lab, one agency and one auditor.
    #[cfg(feature = "demo")]
    Dev(anteroom_broker::demo::DevArgs),
    /// List the scopes that are kept for a time, and from when on the schedule lets each be destroyed. The broker must be stopped.
    #[command(after_help = "Example:\n  anteroom-broker retention --config broker.toml")]
    Retention(Configured),
    /// Keep a copy of another machine's ledger, as its broker ships it. Holds no key that opens or signs anything.
    #[command(
        after_help = "Examples:\n  anteroom-broker standby --dir /srv/anteroom        # prints its fingerprint\n  anteroom-broker standby --dir /srv/anteroom --listen 0.0.0.0:7447 --log VKEY --primary sha256:DIGITS"
    )]
    Standby(standby::StandbyArgs),
    /// Show the fingerprint of the certificate by which standbys on other machines know this broker.
    #[command(after_help = "Example:\n  anteroom-broker standby-identity --config broker.toml")]
    StandbyIdentity(Configured),
    /// Make a data directory from a standby's copy or a backup. The old broker must be gone for good.
    #[command(
        after_help = "Nothing is signed; `Restoring` in deploy/RUNBOOK.md says what to do with each refusal.\n\nExample:\n  anteroom-broker restore --config broker.toml --from /mnt/other/anteroom --secrets /mnt/safe/anteroom-secrets"
    )]
    Restore(standby::RestoreArgs),
    /// Bring a backup up to date, while the broker runs or not.
    #[command(
        after_help = "Examples:\n  anteroom-broker backup --config broker.toml --to /mnt/backup/anteroom --secrets-to /mnt/safe/anteroom-secrets\n  anteroom-broker backup --config broker.toml --to /mnt/backup/anteroom --prune-keys"
    )]
    Backup(standby::BackupArgs),
    /// Find out what a loss would cost, and record it in `drills.jsonl` of the data directory.
    #[command(subcommand)]
    Drill(standby::DrillCommand),
    /// Play the whole story once.
    #[cfg(feature = "demo")]
    Demo(anteroom_broker::demo::DemoArgs),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check a configuration as `serve` would, and open nothing.
    #[command(after_help = "Example:\n  anteroom-broker config validate --config broker.toml")]
    Validate(Configured),
}

#[derive(Args)]
struct Configured {
    /// The configuration's file [env: ANTEROOM_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
struct InitArgs {
    #[command(flatten)]
    configured: Configured,
    /// Make the directory of one more broker over the database in `book`: authority and keys come from this broker's data directory, or
    /// from a folder that holds `pki/ca.pem` and `pki/ca.key` (and `kek` and `log.key`, unless the configuration names them elsewhere)
    #[arg(long, value_name = "DIR")]
    like: Option<PathBuf>,
    /// Begin a new log in the database; it must hold none
    #[arg(long, requires = "like")]
    new_log: bool,
    /// Do nothing if the data directory is there and whole. A log is never begun by itself, so this goes with `--like` alone
    #[arg(long, requires = "like", conflicts_with = "new_log")]
    if_missing: bool,
}

#[derive(Args)]
struct TokenArgs {
    #[command(flatten)]
    configured: Configured,
    /// The organisation the certificate will name
    #[arg(long)]
    org: String,
    /// The role it will name: person, workload, connector, auditor, admin or operator
    #[arg(long, value_parser = role)]
    role: Role,
    /// The name it will carry
    #[arg(long)]
    name: String,
    /// How long the token may be used, such as 90s, 30m, 2h or 7d; one minute to seven days
    #[arg(long, value_parser = lifetime, default_value = "1h")]
    ttl: TokenLifetime,
}

/// Why a command failed. The text goes to the terminal as it is.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("the ledger is wrong: {0}")]
    Wrong(#[from] boot::Wrong),
    #[error("{0}")]
    Mend(boot::MendError),
    #[error("{0}")]
    Rotation(String),
    #[error("{0}")]
    Restore(#[from] boot::RestoreError),
    #[error("{0}")]
    Backup(#[from] boot::BackupError),
    #[error("{0}")]
    Drill(#[from] boot::DrillError),
    #[error("{0}")]
    Standby(#[from] StandbyError),
    #[error("{0}")]
    Badge(#[from] BadgeError),
    #[error("{0}")]
    Migrate(#[from] boot::MigrateError),
    #[error("the broker stopped: {0}")]
    Fatal(String),
    #[error(
        "the broker stopped: {0}; see `Somebody shows a checkpoint that this log does not have` in deploy/RUNBOOK.md"
    )]
    Contradicted(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[cfg(feature = "demo")]
    #[error("{0}")]
    Demo(#[from] anteroom_broker::demo::DemoError),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A terminal that is gone changes nothing about the failure.
            let _ = writeln!(io::stderr().lock(), "anteroom-broker: {failure}");
            let wrong = matches!(
                failure,
                Failure::Wrong(_)
                    | Failure::Contradicted(_)
                    | Failure::Start(StartError::Published(_))
                    | Failure::Restore(
                        RestoreError::Copy { .. }
                            | RestoreError::Wrong(_)
                            | RestoreError::Unknown(_)
                            | RestoreError::Split { .. }
                            | RestoreError::Loss { .. }
                            | RestoreError::OtherLoss { .. }
                            | RestoreError::Start(StartError::Keyring(_))
                    )
                    | Failure::Drill(DrillError::Wrong { .. } | DrillError::Copy(_) | DrillError::Differs { .. })
            );
            ExitCode::from(if wrong { VERIFICATION_FAILED } else { LOCAL_ERROR })
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => init(args),
        Command::Migrate(args) => ledger::migrate(args),
        Command::Serve(configured) => serve(configured.load()?),
        Command::Pins(configured) => {
            let (log_key, roots) = boot::pins(&configured.load()?)?;
            say(&format!("{log_key}\n{roots}"))
        }
        Command::Token(args) => token(args),
        Command::Config(ConfigCommand::Validate(configured)) => {
            configured.load()?;
            say("the configuration is in order")
        }
        Command::Fsck(args) => ledger::fsck(args),
        Command::RebuildIndex(configured) => ledger::rebuild_index(configured),
        Command::Retention(configured) => ledger::retention(configured),
        Command::RotateKek(args) => rotate::kek(args),
        Command::RotateLogKey(args) => rotate::log_key(args),
        Command::RotateCa(args) => rotate::ca(args),
        Command::Standby(args) => standby::standby(args),
        Command::StandbyIdentity(configured) => standby::identity(configured),
        Command::Restore(args) => standby::restore(args),
        Command::Backup(args) => standby::backup(args),
        Command::Drill(command) => standby::drill(command),
        #[cfg(feature = "demo")]
        Command::Dev(args) => Ok(runtime()?.block_on(anteroom_broker::demo::dev(args))?),
        #[cfg(feature = "demo")]
        Command::Demo(args) => Ok(runtime()?.block_on(anteroom_broker::demo::demo(args))?),
    }
}

impl Configured {
    fn load(self) -> Result<Config, ConfigError> {
        let file = self.config.or_else(|| std::env::var_os("ANTEROOM_CONFIG").map(PathBuf::from));
        Config::load(self.settings, &environment, file.as_deref())
    }
}

fn init(args: InitArgs) -> Result<(), Failure> {
    let config = args.configured.load()?;
    let time = SystemTime::new()?;
    if args.if_missing
        && let Some(there) = boot::initialised(&config)?
    {
        return say(&format!(
            "data directory `{}` is there already, for the log {}; nothing was changed",
            config.data_dir().display(),
            there.log_key
        ));
    }
    let log = if args.new_log { NewLog::Yes } else { NewLog::No };
    let made = match &args.like {
        Some(like) => boot::init_like(&config, like, log, &time, &environment)?,
        None => boot::init(&config, &time, &environment)?,
    };
    say(&format!(
        "data directory `{}` is ready\n\
         log key   {}\n\
         CA root   {}\n\
         Hand `{}` to the parties; they pin both.\n\
         Next: anteroom-broker serve, then a token for each organisation's first member:\n\
         \x20 anteroom-broker token --org ORG --role admin --name NAME",
        config.data_dir().display(),
        made.log_key,
        made.root.display(),
        made.operator.display(),
    ))
}

fn serve(config: Config) -> Result<(), Failure> {
    log(&config);
    runtime()?.block_on(async {
        // Listened for before the start, so that a signal during a long fold is not lost.
        let mut signals = Signals::new()?;
        let running: Running = tokio::select! {
            started = boot::start(config, Outside::system()?) => started?,
            () = signals.next() => return Ok(()),
        };
        let addresses = running.addresses();
        say(&format!(
            "ready programme={} enrolment={} ops={} log_key={}",
            addresses.programme,
            addresses.enrolment,
            addresses.ops,
            running.log_key()
        ))?;
        let switch: Switch = running.switch();
        let listening = tokio::spawn(async move {
            signals.next().await;
            tracing::info!("draining; another signal stops at once");
            switch.drain();
            signals.next().await;
            switch.stop();
        });
        let ended = running.ended().await;
        listening.abort();
        match ended {
            Ended::Orderly { open_calls } => {
                tracing::info!(open_calls, "stopped");
                Ok(())
            }
            Ended::Fatal(why) => Err(Failure::Fatal(why)),
            Ended::Contradicted(why) => Err(Failure::Contradicted(why)),
        }
    })
}

fn token(args: TokenArgs) -> Result<(), Failure> {
    let TokenArgs { configured, org, role, name, ttl } = args;
    let config = configured.load()?;
    let principal = Principal::new(&org, role, &name)?;
    let store = TokenStore::open(&Folder::open(config.data_dir())?.tokens())?;
    let now_ms = SystemTime::new()?.read().wall_ms;
    let token = store.mint(&principal, ttl, now_ms, &mut SystemEntropy::new())?;
    writeln!(io::stderr().lock(), "one-time token for {principal}; hand it over on a channel fit for a secret")?;
    say(token.expose())
}

/// Termination and interruption, one like the other.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn log(config: &Config) {
    let builder = tracing_subscriber::fmt().with_env_filter(config.log_filter()).with_writer(io::stderr);
    match config.log_format() {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Results go to standard output, everything else to standard error.
fn say(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "person, workload, connector, auditor, admin or operator is expected".to_owned())
}

fn lifetime(text: &str) -> Result<TokenLifetime, String> {
    let expected = || "one minute to seven days is expected, such as 90s, 30m, 2h or 7d".to_owned();
    let unit = text.chars().next_back().ok_or_else(expected)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(expected()),
    };
    let count: u64 = text.strip_suffix(unit).and_then(|count| count.parse().ok()).ok_or_else(expected)?;
    let length = count.checked_mul(seconds).ok_or_else(expected)?;
    TokenLifetime::new(Duration::from_secs(length)).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lifetimes_are_read_with_their_unit() {
        assert_eq!(lifetime("2h"), Ok(TokenLifetime::new(Duration::from_secs(7_200)).unwrap_or_default()));
        for wrong in ["", "h", "59s", "8d", "1w", "-1h", "1 h", "99999999999999999999d"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
