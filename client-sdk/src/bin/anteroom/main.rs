//! `anteroom`: the command of labs, agencies, evaluators and readers. A noun, then a verb; a file per noun.
//!
//! **Invariant:** what the broker shows is verified under what this folder pinned before it is printed as a fact, and every
//! failure says what, who, when and the next step, with an exit code from one table.

mod accept;
mod act;
mod audit;
mod batch;
mod builds;
mod bundle;
mod call;
mod chat;
mod completion;
mod confirm;
mod console;
mod contacts;
mod content;
mod context;
mod controls;
mod disclose;
mod doctor;
mod drill;
mod enroll;
mod event;
mod explain;
mod fail;
mod gateway;
mod grant;
mod inspect;
mod key;
mod lab;
mod line_budget;
mod lock;
mod mirror;
mod model;
mod narrow;
mod org;
mod output;
mod page;
mod pin;
mod policy;
mod progress;
mod reader;
mod receipt;
mod reconcile;
mod replay;
mod report;
mod retention;
mod roster;
mod roster_file;
mod run;
mod seal;
mod search;
mod serve;
mod statement;
mod stop;
mod succeed;
mod summary;
mod tail;
mod terms;
mod trace;
mod watch;
mod witness;

use std::{io, process::ExitCode, time::Duration};

use anteroom_sdk::error::EXIT_CODES;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime;

use context::{Ctx, Global};
use fail::Fail;

/// How long a thread for blocking work waits for more of it.
const BLOCKING_IDLE: Duration = Duration::from_secs(1);

/// Lends, uses and audits access to a model before its release, on terms that both sides signed.
#[derive(Parser)]
#[command(name = "anteroom", version, propagate_version = true, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// Exchange a one-time token for a certificate.
    #[command(after_help = enroll::EXAMPLES)]
    Enroll(enroll::Enroll),
    /// Show how the broker knows this folder, and what it says about itself.
    #[command(after_help = enroll::WHOAMI_EXAMPLES)]
    Whoami,
    /// Find out what an end would take, on the live system, and record it.
    #[command(subcommand, after_help = drill::EXAMPLES)]
    Drill(drill::Drill),
    /// Find out why calls do not pass, and what to do next.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Doctor),
    /// Make, enrol and show this organisation.
    #[command(subcommand, after_help = org::EXAMPLES)]
    Org(org::Org),
    /// Make and list keys.
    #[command(subcommand, after_help = key::EXAMPLES)]
    Key(key::Key),
    /// Pin what was compared out of band: the log's key, other organisations' fingerprints.
    #[command(subcommand, after_help = pin::EXAMPLES)]
    Pin(pin::Pin),
    /// Register and show builds of a model line.
    #[command(subcommand, after_help = model::EXAMPLES)]
    Model(model::Model),
    /// Publish the people an agency puts behind its calls.
    #[command(subcommand, after_help = roster::EXAMPLES)]
    Roster(roster::Roster),
    /// Offer, accept, show and end grants.
    #[command(subcommand, after_help = grant::EXAMPLES)]
    Grant(Box<grant::Grant>),
    /// Let a workload act in a run.
    #[command(subcommand, after_help = run::EXAMPLES)]
    Run(run::Run),
    /// Set, lift and list locks.
    #[command(subcommand, after_help = lock::EXAMPLES)]
    Lock(lock::Lock),
    /// Appoint readers.
    #[command(subcommand, after_help = reader::EXAMPLES)]
    Reader(reader::Reader),
    /// Hold what has to be kept, and dispose of what is over.
    #[command(subcommand, after_help = retention::EXAMPLES)]
    Retention(retention::Retention),
    /// Serve a model, and the lab's own switch.
    #[command(subcommand, after_help = lab::EXAMPLES)]
    Lab(lab::Lab),
    /// Ask a model in words; the answer goes to standard output as it comes.
    #[command(after_help = chat::EXAMPLES)]
    Chat(chat::Chat),
    /// Make one call with a body of your own; the answer's body goes to standard output verbatim.
    #[command(after_help = call::EXAMPLES)]
    Call(call::Call),
    /// Make the calls of a file, so many at a time, each once whatever is interrupted.
    #[command(after_help = batch::EXAMPLES)]
    Batch(batch::Batch),
    /// Let tools that speak the OpenAI dialect call the models of this folder's grants, from this machine.
    #[command(after_help = gateway::EXAMPLES)]
    Gateway(gateway::Gate),
    /// List, show, verify, fetch and export receipts of calls.
    #[command(subcommand, after_help = receipt::EXAMPLES)]
    Receipt(receipt::ReceiptVerb),
    /// Show, sign and hand in statements that several people sign.
    #[command(subcommand, after_help = statement::EXAMPLES)]
    Statement(statement::Statement),
    /// Read the log, prove a slice whole, decide again offline.
    #[command(subcommand, after_help = audit::EXAMPLES)]
    Audit(audit::Audit),
    /// Look at a verified copy of the log in the browser, from this machine.
    #[command(after_help = console::EXAMPLES)]
    Console(console::Console),
    /// Cosign checkpoints: a witness that anyone can run, and this party's own.
    #[command(subcommand, after_help = witness::EXAMPLES)]
    Witness(witness::Witness),
    /// Read the rules in English, check, try and compare them, and explain a refusal's code.
    #[command(subcommand, after_help = policy::EXAMPLES)]
    Policy(Box<policy::Policy>),
    /// Print a completion script for a shell.
    #[command(after_help = completion::EXAMPLES)]
    Completion(completion::Completion),
}

/// The command with the table of exit codes in its help.
fn command() -> clap::Command {
    let mut help = String::from("Exit codes:\n");
    for (code, meaning) in EXIT_CODES {
        help.push_str(&format!("  {code}  {meaning}\n"));
    }
    with_examples(Cli::command().after_help(help))
}

/// Shows each verb those of its noun's examples that are about it.
fn with_examples(command: clap::Command) -> clap::Command {
    command.mut_subcommands(|noun| {
        let examples = noun.get_after_help().map(ToString::to_string).unwrap_or_default();
        let of_noun = noun.get_name().to_owned();
        noun.mut_subcommands(|verb| {
            let mine = examples_of(&examples, &format!("{of_noun} {}", verb.get_name()));
            verb.after_help(format!("Examples:\n{mine}"))
        })
    })
}

/// The lines of examples that run `words`, with the lines they go on in.
fn examples_of(examples: &str, words: &str) -> String {
    let mut found = String::new();
    let mut goes_on = false;
    for line in examples.lines() {
        if goes_on || line.contains(&format!("{words} ")) || line.trim_end().ends_with(words) {
            found.push_str(line);
            found.push('\n');
            goes_on = line.ends_with('\\');
        }
    }
    found
}

fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too, with code 0.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ctx = Ctx::new(cli.global);
    let runtime = match start_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Fail::from(error).report(ctx.out.format()),
    };
    match runtime.block_on(run(&ctx, cli.noun)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => fail.report(ctx.out.format()),
    }
}

/// Two threads for what waits, and as many as are in use at a moment for what blocks: signers, disks.
///
/// Those are woken by turns. With the usual ten seconds before an idle one ends, two pieces of work a second, which a connector at rest
/// has, would keep twenty alive for good after a peak.
fn start_runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_multi_thread().worker_threads(2).thread_keep_alive(BLOCKING_IDLE).enable_all().build()
}

async fn run(ctx: &Ctx, noun: Noun) -> Result<(), Fail> {
    match noun {
        Noun::Enroll(args) => enroll::enroll(ctx, args).await,
        Noun::Whoami => enroll::whoami(ctx).await,
        Noun::Drill(verb) => drill::run(ctx, verb).await,
        Noun::Doctor(args) => doctor::run(ctx, args).await,
        Noun::Org(verb) => org::run(ctx, verb).await,
        Noun::Key(verb) => key::run(ctx, verb),
        Noun::Pin(verb) => pin::run(ctx, verb),
        Noun::Model(verb) => model::run(ctx, verb).await,
        Noun::Roster(verb) => roster::run(ctx, verb).await,
        Noun::Grant(verb) => grant::run(ctx, *verb).await,
        Noun::Run(verb) => run::run(ctx, verb).await,
        Noun::Lock(verb) => lock::run(ctx, verb).await,
        Noun::Reader(verb) => reader::run(ctx, verb).await,
        Noun::Retention(verb) => retention::run(ctx, verb).await,
        Noun::Lab(verb) => lab::run(ctx, verb).await,
        Noun::Chat(args) => chat::run(ctx, args).await,
        Noun::Call(args) => call::run(ctx, args).await,
        Noun::Batch(args) => batch::run(ctx, args).await,
        Noun::Gateway(args) => gateway::run(ctx, args).await,
        Noun::Receipt(verb) => receipt::run(ctx, verb).await,
        Noun::Statement(verb) => statement::run(ctx, verb).await,
        Noun::Audit(verb) => audit::run(ctx, verb).await,
        Noun::Console(args) => console::run(ctx, args).await,
        Noun::Witness(verb) => witness::run(ctx, verb).await,
        Noun::Policy(verb) => policy::run(ctx, *verb).await,
        Noun::Completion(args) => completion::run(ctx, &args),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_holds_together() {
        super::command().debug_assert();
    }

    #[test]
    fn help_explains_every_exit_code() {
        let help = super::command().render_long_help().to_string();
        let table = help.split_once("Exit codes:\n").map(|(_, table)| table.to_owned());
        let expected = "  0  done
  1  a local error: a file, a key, the network
  2  the command was used wrongly
  3  denied
  4  the grant has expired or was withdrawn
  5  not yet, or not at the moment: try again later
  6  the broker or its ledger cannot serve, so nothing passes
  7  verification failed: do not rely on what was shown
";
        assert_eq!(table.as_deref().map(str::trim_end), Some(expected.trim_end()));
    }

    #[test]
    fn every_noun_and_verb_shows_an_example() {
        for noun in super::command().get_subcommands() {
            let about = |command: &clap::Command| command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = noun.get_name();
            assert!(
                about(noun).contains(&format!("anteroom {name}")) || about(noun).contains(&format!(" {name} ")),
                "{name}"
            );
            for verb in noun.get_subcommands() {
                let words = format!("{name} {}", verb.get_name());
                assert!(about(verb).contains(&words), "`{words}` has no example");
            }
        }
    }
}
