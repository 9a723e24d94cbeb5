//! `instructions`: counts what every call comes to and holds it against what it may. `tests/run instructions` runs it.

use std::{collections::BTreeMap, env, path::Path, process::ExitCode};

use anteroom_tests::{
    decisions::Fallible,
    instructions::{CASES, Case, Limits, Verdict, count},
};

/// Set to set the limits to what is counted.
const UPDATE: &str = "ANTEROOM_UPDATE_LIMITS";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => gate(),
        ["--case", name] => match CASES.iter().find(|case| case.name == *name) {
            Some(case) => (case.run)(),
            None => Err(format!("there is no case `{name}`").into()),
        },
        _ => Err(format!("usage: instructions  (with {UPDATE}=1 to set the limits)").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn gate() -> Fallible<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/instructions.json");
    let mut limits = Limits::read(&path)?;
    let (processor, own) = (env::consts::ARCH, env::current_exe()?);
    if cfg!(debug_assertions) {
        return Err("this is a debug build, whose counts mean nothing: build with --release".into());
    }
    let update = env::var_os(UPDATE).is_some_and(|value| !value.is_empty() && value != "0");
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    println!("{:<12} {:>12} {:>12} {:>8}  of one", "case", "counted", "limit", "change");
    for case in &CASES {
        let Case { name, unit, .. } = case;
        let counted = count(&own, case)?;
        let limit = limits.of(processor, name);
        let change = limit.map_or(f64::NAN, |limit| (counted as f64 / limit as f64 - 1.0) * 100.0);
        let told = match limits.hold(processor, name, counted) {
            Verdict::Held => "",
            Verdict::Better => "  BETTER: set the limit lower",
            Verdict::Worse => "  WORSE",
            Verdict::Unknown => "  NO LIMIT",
        };
        let shown = limit.map_or_else(|| "–".to_owned(), |limit| limit.to_string());
        println!("{name:<12} {counted:>12} {shown:>12} {change:>+7.1}%  {unit}{told}");
        if matches!(limits.hold(processor, name, counted), Verdict::Worse | Verdict::Unknown) {
            wrong.push(*name);
        }
        counts.insert((*name).to_owned(), counted);
    }
    if update {
        limits.set(processor, counts);
        limits.write(&path)?;
        println!("limits of {processor} written to {}", path.display());
        return Ok(());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} on {processor}: over the limit by more than 5 %, or without one. If the change is worth it, set the limits to what was \
         counted with `{UPDATE}=1 tests/run instructions`, commit tests/bench/instructions.json, and say in the message why",
        wrong.join(", ")
    )
    .into())
}
