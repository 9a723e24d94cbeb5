//! Fuzzes everything that reads bytes of strangers.
//!
//! `fuzz [--target T] [--runs N] [--seed S]` tries the corpus and N mutations of it on each target, or on one;
//! `fuzz --target T --input FILE` gives it one input; `fuzz --sow DIR` writes the corpus anew.

use std::{path::PathBuf, process::ExitCode};

use anteroom_tests::fuzz::{self, Target};

struct Args {
    target: Option<String>,
    runs: u64,
    seed: u64,
    input: Option<PathBuf>,
    sow: Option<PathBuf>,
}

fn args() -> Result<Args, String> {
    let mut args = Args { target: None, runs: 200_000, seed: 1, input: None, sow: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("`{value}` is no number"));
        match word.as_str() {
            "--target" => args.target = Some(value),
            "--runs" => args.runs = number()?,
            "--seed" => args.seed = number()?,
            "--input" => args.input = Some(value.into()),
            "--sow" => args.sow = Some(value.into()),
            _ => return Err(format!("`{word}` is unknown; --target, --runs, --seed, --input and --sow are not")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    match args().and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    if let Some(dir) = &args.sow {
        let files = fuzz::sow::sow(dir)?;
        println!("{files} inputs in `{}`", dir.display());
        return Ok(());
    }
    let chosen = |target: &&dyn Target| args.target.as_ref().is_none_or(|name| target.name() == name);
    let targets = fuzz::targets::all();
    let targets: Vec<&dyn Target> = targets.iter().map(AsRef::as_ref).filter(chosen).collect();
    if targets.is_empty() {
        return Err("no such target; there are body, scan, rules, statements and formats".to_owned());
    }
    for target in targets {
        if let Some(path) = &args.input {
            let input = std::fs::read(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
            let answered = fuzz::tried(target, &input)?;
            println!("{}: nothing is wrong; it answers as {answered:016x}", target.name());
            continue;
        }
        let report = fuzz::campaign(target, args.seed, args.runs).map_err(|finding| finding.to_string())?;
        println!(
            "{:>10}: {} inputs, {} of them committed; {} ways of answering, none of them wrong (seed {})",
            target.name(),
            report.runs,
            report.seeds,
            report.ways,
            args.seed
        );
    }
    Ok(())
}
