//! A PostgreSQL of a test's own: made, started, killed, started again; and a wire to it that can be cut or made slow.
//!
//! The server refuses to run as root, so that it runs as Debian's `postgres` then. Its folder goes with the test.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::PathBuf,
    process::{Command as Plain, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
};

use super::{ports, wait::until};

/// The server.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Postgres {
    /// Makes an empty database and starts its server.
    ///
    /// # Panics
    /// It cannot be made; the package `postgresql` has to be installed.
    pub async fn start() -> Self {
        let mut server = Self::empty();
        let mut made = server.program("initdb");
        made.args(["-U", "anteroom", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"]).arg(server.data());
        let made = made.stdout(Stdio::null()).status().await;
        assert!(made.expect("`initdb` can be started").success());
        server.start_again().await;
        server
    }

    /// A second server that follows this one, started. From here on whatever this one commits waits until the second has it on disk.
    ///
    /// # Panics
    /// It cannot be made, or does not follow.
    pub async fn standby(&self) -> Self {
        let mut copy = Self::empty();
        let mut made = copy.program("pg_basebackup");
        made.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "anteroom", "-R", "-c", "fast", "-D"]);
        let made = made.arg(copy.data()).stdout(Stdio::null()).status().await;
        assert!(made.expect("`pg_basebackup` can be started").success());
        copy.start_again().await;
        let _ = self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        let _ = self.sql("SELECT pg_reload_conf()").await;
        until("the standby to be waited for", || async {
            let state = self.sql("SELECT sync_state FROM pg_stat_replication").await;
            (state == "sync").then_some(())
        })
        .await;
        copy
    }

    /// Has it speak TLS under this certificate, both in PEM, to whoever asks for it.
    ///
    /// # Panics
    /// It refuses them.
    pub async fn encrypt(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            std::fs::write(&path, text).expect("a file in the server's folder");
            let only_its = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
            only_its.expect("a file in the server's folder");
            if is_root() {
                let given = Plain::new("chown").arg("postgres:postgres").arg(&path).status();
                assert!(given.is_ok_and(|status| status.success()));
            }
        }
        let _ = self.sql("ALTER SYSTEM SET ssl = on").await;
        let _ = self.sql("SELECT pg_reload_conf()").await;
        until("the server to speak TLS", || async { (self.sql("SHOW ssl").await == "on").then_some(()) }).await;
    }

    /// Has a standby go on by itself, and waits until it takes writes.
    ///
    /// # Panics
    /// It refuses.
    pub async fn promote(&self) {
        assert_eq!(self.sql("SELECT pg_promote()").await, "t");
    }

    /// A folder that the server may use, with nothing in it.
    fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("anteroom-pg-").tempdir().expect("a folder for the database");
        let server = Self { folder, port: ports::three(), child: None };
        let made = std::fs::DirBuilder::new().mode(0o700).create(server.data());
        made.expect("a folder for the database");
        if is_root() {
            let open = Plain::new("chmod").arg("755").arg(server.folder.path()).status();
            let given = Plain::new("chown").arg("postgres:postgres").arg(server.data()).status();
            assert!(open.is_ok_and(|status| status.success()) && given.is_ok_and(|status| status.success()));
        }
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let program = newest().join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.stdin(Stdio::null()).current_dir("/").kill_on_drop(true);
        command
    }

    /// Starts it where it was, and waits until it takes connections.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let port = self.port.to_string();
        // What a killed server left running keeps the folder for a moment.
        for _ in 0..100 {
            let mut command = self.program("postgres");
            command.arg("-D").arg(self.data()).args(["-p", &port]);
            for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=60"] {
                command.args(["-c", setting]);
            }
            let mut child =
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("`postgres` can be started");
            for _ in 0..600 {
                if child.try_wait().expect("it can be waited for").is_some() {
                    break;
                }
                if self.answers().await {
                    self.child = Some(child);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("the database does not start");
    }

    async fn answers(&self) -> bool {
        let mut command = Command::new("psql");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "anteroom",
            "-Atc",
            "SELECT 1",
            "postgres",
        ]);
        let answered = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        answered.is_ok_and(|status| status.success())
    }

    /// Kills it as a power cut would.
    ///
    /// # Panics
    /// It does not run.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.expect("it can be killed");
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What a broker is configured with.
    #[must_use]
    pub fn book(&self) -> String {
        book(&[self.address()])
    }

    /// Runs SQL and returns what it says, unaligned.
    ///
    /// # Panics
    /// It is refused.
    pub async fn sql(&self, text: &str) -> String {
        Self::asked(self.address(), text).await
    }

    /// As [`Postgres::sql`], of the server at an address.
    ///
    /// # Panics
    /// It is refused.
    pub async fn asked(address: SocketAddr, text: &str) -> String {
        let mut command = Command::new("psql");
        command.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-U", "anteroom", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-Atc", text, "postgres"]).stdin(Stdio::null());
        let output = command.output().await.expect("`psql` can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// What a broker is configured with to find the test's database at the first of these that may be written to.
#[must_use]
pub fn book(addresses: &[SocketAddr]) -> String {
    let hosts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    format!("postgres://anteroom@{}/postgres", hosts.join(","))
}

fn is_root() -> bool {
    std::env::var("USER").is_ok_and(|user| user == "root")
        || Plain::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

/// The newest installed server's programs.
fn newest() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").expect("the package `postgresql` is installed");
    let versions = installed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let version = versions.max().expect("the package `postgresql` is installed");
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))
}

/// A wire between a broker and the database.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    delay_ms: Arc<AtomicU64>,
}

impl Wire {
    /// Leads to `to`.
    ///
    /// # Panics
    /// There is no port for it.
    pub async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("a bound port");
        let (cut, delay_ms) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_cut, delay) = (Arc::clone(&cut), Arc::clone(&delay_ms));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (is_cut, delay) = (Arc::clone(&is_cut), Arc::clone(&delay));
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                    let up = carry(from_near, to_far, Arc::clone(&is_cut), Arc::clone(&delay));
                    tokio::join!(up, carry(from_far, to_near, is_cut, delay));
                });
            }
        });
        Self { address, cut, delay_ms }
    }

    /// Where it begins.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on nothing arrives any more, and nobody is told: as if a cable was pulled.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    /// What waits arrives, and what comes.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::Release);
    }

    /// Everything takes so much longer, each way.
    pub fn delay(&self, by: Duration) {
        self.delay_ms.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, cut: Arc<AtomicBool>, delay: Arc<AtomicU64>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut bytes).await {
        tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Acquire))).await;
        if cut.load(Ordering::Acquire) {
            until("the wire to be mended", || async { (!cut.load(Ordering::Acquire)).then_some(()) }).await;
        }
        if count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
