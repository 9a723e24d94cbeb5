//! Where a call's processor time goes: the broker's stacks, sampled under load, and the pass-through's beside them.

mod flame;
mod parts;
mod stacks;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};

use self::stacks::Stacks;
use super::{
    Fallible,
    contender::{Contender, Round},
    load::Amount,
    machine,
    report::{Table, round as told},
    run::{BROKER, Plain, connections, workload},
    setup::World,
};

/// Load before anything is sampled.
const WARM: Duration = Duration::from_secs(2);
/// Bytes of a stack that a sample copies; deeper ones lose their outermost frames.
const STACK_BYTES: u32 = 16 * 1024;
/// Leaves that the text names.
const LEAVES: usize = 25;

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names of workloads.
    pub workloads: Vec<String>,
    /// How long each is sampled.
    pub length: Duration,
    /// Samples a second of processor time.
    pub frequency: u32,
    /// Clients where there is more than one.
    pub clients: usize,
    /// Whether the pass-through is looked at as well.
    pub plain: bool,
    /// Where stacks and flame graphs go.
    pub out: PathBuf,
    /// Core of what is looked at.
    pub core: Option<usize>,
}

/// Runs it; the text and the data.
pub async fn run(plan: &Plan, program: &Path, folder: &Path) -> Fallible<(String, Value)> {
    fs::create_dir_all(&plan.out)?;
    let connections = connections(plan.clients);
    let mut world = World::start(program, folder, plan.core).await?;
    world.serve(plan.clients * 2, Duration::ZERO).await?;
    let broker = world.contender(BROKER, connections).await?;
    let plain = match plan.plain {
        true => Some(Plain::start(folder, plan.core, connections, broker.caller()).await?),
        false => None,
    };
    let contenders: Vec<&Contender> =
        [&broker].into_iter().chain(plain.as_ref().map(|plain| &plain.contender)).collect();
    let mut text = format!("{}, load average {}\n", machine::describe(), told(machine::load_average()));
    let mut data = Vec::new();
    for name in &plan.workloads {
        let (title, manner, clients) = workload(plan.clients, name)?;
        let mut seen = Vec::new();
        for contender in contenders.iter().copied() {
            contender.round(manner, clients, Amount::Time(WARM)).await?;
            let unwatched = contender.round(manner, clients, Amount::Time(plan.length)).await?;
            let file = plan.out.join(format!("{name}-{}.perf", contender.name));
            let watch = watch(plan, contender, &file)?;
            let load = plan.length + WARM;
            contender.round(manner, clients, Amount::Time(load)).await?;
            let stacks = read(watch, &file).await?;
            draw(plan, name, contender, &stacks)?;
            data.push(json!({
                "workload": name, "contender": contender.name, "cpu_us_a_call": unwatched.cpu_per_call(),
                "samples": stacks.count(), "share": parts::shares(&stacks).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            }));
            seen.push((contender.name.as_str(), unwatched, stacks));
        }
        text += &format!("\n**{}**\n\n{}", title, table(&seen));
        if let Some((_, _, stacks)) = seen.first() {
            let mut leaves = Table::new(&["the broker's innermost frames", "%"]);
            for (leaf, share) in parts::leaves(stacks, LEAVES) {
                leaves.row(vec![format!("`{leaf}`"), told(share * 100.0)]);
            }
            text += &format!("\n{}", leaves.text());
        }
    }
    Ok((text, json!({"machine": machine::describe(), "profiles": data})))
}

/// Microseconds of a call by part, one column a contender.
fn table(seen: &[(&str, Round, Stacks)]) -> String {
    let names: Vec<String> = seen.iter().map(|(name, ..)| format!("{name}, CPU µs a call")).collect();
    let mut columns = vec!["part"];
    columns.extend(names.iter().map(String::as_str));
    let mut table = Table::new(&columns);
    let shares: Vec<_> = seen.iter().map(|(_, _, stacks)| parts::shares(stacks)).collect();
    let Some(first) = shares.first() else { return String::new() };
    for (place, (part, _)) in first.iter().enumerate() {
        let cells =
            seen.iter().zip(&shares).map(|((_, round, _), shares)| told(shares[place].1 * round.cpu_per_call()));
        table.row([(*part).to_owned()].into_iter().chain(cells).collect());
    }
    let sums = seen.iter().map(|(_, round, _)| format!("**{}**", told(round.cpu_per_call())));
    table.row(["**all, unwatched**".to_owned()].into_iter().chain(sums).collect());
    table.text().to_owned()
}

/// Begins to sample a contender's process for the plan's length.
fn watch(plan: &Plan, contender: &Contender, file: &Path) -> Fallible<tokio::process::Child> {
    let pid = contender.pid.ok_or("what runs in this process cannot be told from the load")?;
    let mut command = tokio::process::Command::new("perf");
    command.args(["record", "--quiet", "--event", "cpu-clock", "--freq", &plan.frequency.to_string()]);
    command.args(["--call-graph", &format!("dwarf,{STACK_BYTES}"), "--pid", &pid.to_string(), "--output"]).arg(file);
    command.args(["--", "sleep", &plan.length.as_secs_f64().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().map_err(|error| format!("cannot start `perf` (Debian: linux-perf): {error}").into())
}

async fn read(mut watch: tokio::process::Child, file: &Path) -> Fallible<Stacks> {
    if !watch.wait().await?.success() {
        return Err("`perf record` failed; it needs the right to sample processes (kernel.perf_event_paranoid)".into());
    }
    let mut script = tokio::process::Command::new("perf");
    script.args(["script", "--no-inline", "--fields", "comm,ip,sym", "--input"]).arg(file);
    let output = script.stdin(Stdio::null()).stderr(Stdio::null()).output().await?;
    if !output.status.success() {
        return Err("`perf script` failed".into());
    }
    fs::remove_file(file)?;
    Ok(Stacks::read(&String::from_utf8_lossy(&output.stdout)))
}

/// Writes the folded stacks, and a flame graph of them.
fn draw(plan: &Plan, workload: &str, contender: &Contender, stacks: &Stacks) -> Fallible<()> {
    let name = format!("{workload}-{}", contender.name);
    let folded = stacks.folded();
    fs::write(plan.out.join(format!("{name}.folded")), folded.join("\n") + "\n")?;
    let svg = flame::draw(&format!("{}, {workload}", contender.name), stacks);
    fs::write(plan.out.join(format!("{name}.svg")), svg)?;
    Ok(())
}
