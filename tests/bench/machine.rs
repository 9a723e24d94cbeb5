//! What the machine says: cores, processor time, disk bytes, and a broker's metrics.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Read as _,
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{Fallible, stats::Spread};

/// Clock ticks a second in `/proc`; the kernel's ABI fixes it.
const TICKS: f64 = 100.0;
/// What a disk writes whole.
const SECTOR: usize = 512;
/// How long a process may take to say that it is ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a killed process may take to be gone.
const END_MAX: Duration = Duration::from_secs(5);

/// Pins every thread of this process to `core`; threads started later inherit it. Without `taskset` nothing is pinned, which the
/// report says.
pub fn pin_self(core: usize) -> bool {
    let pid = std::process::id().to_string();
    Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &pid])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Processor seconds of a process and everything it started.
pub fn cpu_seconds(pid: u32) -> Fallible<f64> {
    let mut seconds = own_cpu_seconds(pid)?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while one looks at it; what it started is then another's child.
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            seconds += cpu_seconds(child.parse()?)?;
        }
    }
    Ok(seconds)
}

/// Processor seconds of a process alone, all its threads together.
pub fn own_cpu_seconds(pid: u32) -> Fallible<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything, so fields are counted from behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).ok_or("no processor time");
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Processor seconds of a process alone, to the nanosecond and of threads that still are: for a few calls, where ticks are too coarse.
pub fn precise_cpu_seconds(pid: u32) -> Fallible<f64> {
    let mut nanos = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let told = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += told.split(' ').next().and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0);
    }
    // A kernel without these figures says nothing or zeros.
    if nanos > 0.0 { Ok(nanos / 1e9) } else { own_cpu_seconds(pid) }
}

/// Resident megabytes of a process.
pub fn resident_mb(pid: u32) -> Fallible<f64> {
    status_mb(pid, "VmRSS:")
}

/// The most megabytes that this process had resident since it began, or since [`forget_peak`].
pub fn peak_mb() -> Fallible<f64> {
    status_mb(std::process::id(), "VmHWM:")
}

/// Lets [`peak_mb`] begin anew. A kernel that does not allow it leaves the larger figure.
pub fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn status_mb(pid: u32, key: &str) -> Fallible<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no resident size")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}

/// The machine's load over the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// The processor's name and the kernel's release.
pub fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name = name.map_or("unknown processor", |(_, name)| name.trim());
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{name}, {cores} cores, Linux {}", kernel.trim())
}

/// Whether a folder is on a file system that keeps things in memory.
pub fn in_memory(folder: &Path) -> Fallible<bool> {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(folder).output()?;
    let kind = String::from_utf8_lossy(&output.stdout);
    Ok(matches!(kind.trim(), "tmpfs" | "ramfs"))
}

/// Bytes used in the ledger's segments, which are written with zeros ahead of use: up to the last sector that is not all zeros.
pub fn ledger_bytes(wal: &Path) -> Fallible<u64> {
    let mut used = 0;
    for entry in fs::read_dir(wal)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            used += used_of(&path)?;
        }
    }
    Ok(used)
}

fn used_of(path: &Path) -> Fallible<u64> {
    let (mut file, mut block) = (fs::File::open(path)?, vec![0; 1 << 20]);
    let (mut read, mut used) = (0, 0);
    loop {
        let mut got = 0;
        while got < block.len() {
            match file.read(&mut block[got..])? {
                0 => break,
                more => got += more,
            }
        }
        if let Some(last) = block[..got].iter().rposition(|byte| *byte != 0) {
            used = read + (last / SECTOR + 1) * SECTOR;
        }
        read += got;
        if got < block.len() {
            return Ok(used as u64);
        }
    }
}

/// A command for `program` on `core`, killed when dropped. The kernel kills it, too, once this process is gone for whatever reason, if
/// there is a `setpriv` (util-linux).
fn tied(program: &Path, core: Option<usize>) -> tokio::process::Command {
    let mut words: Vec<OsString> = Vec::new();
    if Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(OsString::from));
    }
    if let Some(core) = core {
        words.extend(["taskset", "-c", &core.to_string()].map(OsString::from));
    }
    words.push(program.into());
    let mut command = tokio::process::Command::new(&words[0]);
    command.args(&words[1..]).kill_on_drop(true);
    command
}

/// A process under test. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: tokio::process::Child,
    /// Its process.
    pub pid: u32,
    /// What its first line on standard output said, `key=value` pairs.
    pub said: BTreeMap<String, String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody else may be there to take note of its end.
        let _ = self.child.start_kill();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < END_MAX {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

impl Process {
    /// Starts `program` on `core` and waits for its first line. Its log goes to `log`.
    pub async fn start(program: &Path, args: &[String], core: Option<usize>, log: &Path) -> Fallible<Self> {
        let mut command = tied(program, core);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(log)?);
        let mut child = command.spawn()?;
        let pid = child.id().ok_or("the process ended at once")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let first = timeout(READY_MAX, lines.next_line()).await.map_err(|_| "the process is not ready in time")??;
        let Some(first) = first else {
            return Err(format!("the process ended: {}", fs::read_to_string(log)?).into());
        };
        // The pipe stays read, so that later lines cannot stop the process.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let said = first.split(' ').filter_map(|pair| pair.split_once('='));
        let said = said.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Ok(Self { child, pid, said })
    }

    /// Starts a program that says nothing when it is ready, and waits until somebody listens on `address`. What it writes goes to `out`
    /// and `log`.
    pub async fn listening(
        program: &Path,
        args: &[String],
        environment: &[(&str, String)],
        core: Option<usize>,
        (address, max): (SocketAddr, Duration),
        (out, log): (&Path, &Path),
    ) -> Fallible<Self> {
        let mut command = tied(program, core);
        command.args(args).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(fs::File::create(out)?).stderr(fs::File::create(log)?);
        let mut child = command.spawn().map_err(|error| format!("cannot start `{}`: {error}", program.display()))?;
        let pid = child.id().ok_or("the process ended at once")?;
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = child.try_wait()? {
                let said = fs::read_to_string(log)? + &fs::read_to_string(out)?;
                return Err(format!("`{}` ended with {status}: {said}", program.display()).into());
            }
            if begun.elapsed() > max {
                return Err(format!("`{}` does not listen after {max:?}", program.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { child, pid, said: BTreeMap::new() })
    }

    /// One of the values of its first line.
    pub fn said(&self, key: &str) -> Fallible<&str> {
        Ok(self.said.get(key).ok_or_else(|| format!("the process did not say its `{key}`"))?)
    }
}

/// A broker's metrics by name with labels.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads them from the operator's door.
    pub async fn read(ops: SocketAddr) -> Fallible<Self> {
        let mut stream = TcpStream::connect(ops).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let lines = text.lines().filter(|line| line.starts_with("anteroom_"));
        let values = lines.filter_map(|line| line.rsplit_once(' '));
        Ok(Self(values.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()))
    }

    /// One value; zero if it is not there.
    pub fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// Those whose name begins so.
    pub fn beginning<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s str, f64)> {
        self.0.iter().filter(move |(name, _)| name.starts_with(prefix)).map(|(name, value)| (name.as_str(), *value))
    }

    /// Upper bound in seconds of the quantile `q` of a histogram, what was there `before` taken away.
    pub fn quantile(&self, name: &str, q: f64, before: &Self) -> Option<f64> {
        let start = format!("{name}_bucket{{le=\"");
        let mut bounds: Vec<(f64, f64)> = Vec::new();
        for (full, count) in self.beginning(&start) {
            let bound = full.strip_prefix(&start)?.trim_end_matches("\"}");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            bounds.push((bound, count - before.of(full)));
        }
        bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
        let total = bounds.last()?.1;
        if total == 0.0 {
            return None;
        }
        bounds.into_iter().find(|(_, count)| *count >= q * total).map(|(bound, _)| bound)
    }
}

/// Microseconds of one `fdatasync` of a kilobyte in `folder`, the median of many: what a durable write costs at least.
pub fn sync_us(folder: &Path) -> Fallible<f64> {
    let file = fs::File::create(folder.join("sync.probe"))?;
    file.write_all_at(&[1; 1 << 20], 0)?;
    file.sync_all()?;
    let mut took = Vec::new();
    for at in 0..400 {
        let begun = Instant::now();
        file.write_all_at(&[2; 1024], at * 1024)?;
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(took).map_or(f64::NAN, |spread| spread.median))
}

/// Does the work unless this process is told to end meanwhile; whatever the work has started ends with it.
pub async fn until_told<T>(work: impl Future<Output = Fallible<T>>) -> Fallible<T> {
    let mut end = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        told = tokio::signal::ctrl_c() => { told?; Err("interrupted; nothing was measured whole".into()) }
        _ = end.recv() => Err("told to end; nothing was measured whole".into()),
    }
}

/// Waits until `holds`, looking every few milliseconds, at most `max`.
pub async fn until<F: Future<Output = Fallible<bool>>>(
    max: Duration,
    what: &str,
    mut holds: impl FnMut() -> F,
) -> Fallible<()> {
    let begun = Instant::now();
    while !holds().await? {
        if begun.elapsed() > max {
            return Err(format!("waited {max:?} in vain until {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
