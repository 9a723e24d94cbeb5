//! Runs the simulated world for many seeds and prints what it touched.
//!
//! `simulate [--seeds N] [--from S] [--steps K]` runs N seeds and fails if a row of the coverage table is thin in a full run;
//! `simulate --seed X [--steps K]` runs one.

use std::process::ExitCode;

use anteroom_tests::sim::{
    self,
    coverage::{Coverage, HITS_MIN},
};

struct Args {
    seeds: u64,
    from: u64,
    steps: u64,
    seed: Option<u64>,
}

fn args() -> Result<Args, String> {
    let mut args = Args { seeds: sim::SEEDS, from: 0, steps: sim::STEPS, seed: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a number"))?;
        let number = value.parse().map_err(|_| format!("`{value}` is no number"))?;
        match word.as_str() {
            "--seeds" => args.seeds = number,
            "--from" => args.from = number,
            "--steps" => args.steps = number,
            "--seed" => args.seed = Some(number),
            _ => return Err(format!("`{word}` is unknown; --seeds, --from, --steps and --seed are not")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(why) => {
            eprintln!("simulate: {why}");
            return ExitCode::from(2);
        }
    };
    let outcome = match args.seed {
        Some(seed) => sim::run_seed(seed, args.steps),
        None => sim::run_seeds(args.from, args.seeds, args.steps),
    };
    match outcome {
        Ok(coverage) => report(&coverage),
        Err(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn report(coverage: &Coverage) -> ExitCode {
    print!("{}", coverage.table());
    let thin = coverage.thin(HITS_MIN);
    if coverage.seeds < sim::SEEDS || thin.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("rows with fewer than {HITS_MIN} hits: {}", thin.join("; "));
    ExitCode::FAILURE
}
