//! One connection to the database.
//!
//! **Invariant:** every wait has an end. A connection on which something was not answered in time, or that the server closed, is
//! not used again.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, Client, Connection, NoTls, Statement,
    error::SqlState,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};
use tokio_rustls::TlsConnector;

use super::{
    Database,
    address::{CONNECT_MAX, Place},
};
use crate::book::wal::WalError;

/// What every session is told. A session that dies with the lock on the head must not keep it: the server ends it.
const SESSION: &str = "SET lock_timeout = '4s'; SET statement_timeout = '8s'; \
     SET idle_in_transaction_session_timeout = '2s'; SET default_transaction_isolation = 'read committed'";
/// How the server says that it stopped waiting for its standbys.
const NOT_REPLICATED: &str = "canceling wait for synchronous replication";

/// A connection with the task that moves its bytes.
pub(super) struct Link {
    pub(super) client: Client,
    prepared: BTreeMap<&'static str, Statement>,
    /// How often the server gave up waiting for its standbys.
    unreplicated: Arc<AtomicU64>,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Connects to the first host that is there and may be written to.
    pub(super) async fn open(database: &Database) -> Result<Self, WalError> {
        let mut last = unreachable("it has no host");
        for place in &database.address.hosts {
            match timeout(CONNECT_MAX, Self::to(database, place)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => last = error,
                Err(_) => last = unreachable("it does not answer"),
            }
        }
        Err(last)
    }

    async fn to(database: &Database, place: &Place) -> Result<Self, WalError> {
        let mut config = database.address.config.clone();
        if let Some(password) = &database.password {
            config.password(password.expose());
        }
        let link = match place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(no_way)?;
                let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(failure)?;
                Self::driven(client, connection)
            }
            Place::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(no_way)?;
                stream.set_nodelay(true).map_err(no_way)?;
                match &database.tls {
                    Some(tls) => {
                        let name =
                            ServerName::try_from(host.clone()).map_err(|error| unreachable(&error.to_string()))?;
                        let tls = Tls { connector: tls.clone(), name };
                        let (client, connection) = config.connect_raw(stream, tls).await.map_err(failure)?;
                        Self::driven(client, connection)
                    }
                    None => {
                        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(failure)?;
                        Self::driven(client, connection)
                    }
                }
            }
        };
        link.client.batch_execute(SESSION).await.map_err(failure)?;
        link.demand("transaction_read_only", |value| value == "off", "is a standby that cannot be written to").await?;
        link.demand("synchronous_commit", |value| value != "off", "answers before what it was given is durable")
            .await?;
        link.demand("fsync", |value| value == "on", "does not make durable what it was given").await?;
        Ok(link)
    }

    async fn demand(&self, setting: &str, good: impl Fn(&str) -> bool, otherwise: &str) -> Result<(), WalError> {
        let row = self.client.query_one("SELECT current_setting($1)", &[&setting]).await.map_err(failure)?;
        let value: &str = row.try_get(0).map_err(failure)?;
        if good(value) {
            return Ok(());
        }
        Err(WalError::Unreachable { why: format!("it {otherwise} (`{setting}` is `{value}`)") })
    }

    fn driven<S, T>(client: Client, mut connection: Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let unreplicated = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&unreplicated);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.message().starts_with(NOT_REPLICATED)
                {
                    count.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        Self { client, prepared: BTreeMap::new(), unreplicated, driver }
    }

    /// A statement, prepared once.
    pub(super) async fn prepared(&mut self, sql: &'static str) -> Result<Statement, WalError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await.map_err(failure)?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    /// Whether the server gave up waiting for its standbys since this was asked last.
    pub(super) fn was_unreplicated(&self) -> bool {
        self.unreplicated.swap(0, Ordering::AcqRel) > 0
    }
}

/// Waits for the database, but not for ever.
pub(super) async fn within<T>(most: Duration, work: impl Future<Output = Result<T, WalError>>) -> Result<T, WalError> {
    timeout(most, work).await.unwrap_or_else(|_| Err(unreachable("it does not answer in time")))
}

pub(super) fn unreachable(why: &str) -> WalError {
    WalError::Unreachable { why: why.to_owned() }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn no_way(error: io::Error) -> WalError {
    unreachable(&error.to_string())
}

/// What a failure means: that it may work later, that there is no room, or that something is wrong which no waiting mends.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(super) fn failure(error: tokio_postgres::Error) -> WalError {
    let Some(told) = error.as_db_error() else { return unreachable(&chain(&error)) };
    let why = format!("{} ({})", told.message(), told.code().code());
    if *told.code() == SqlState::DISK_FULL {
        return WalError::Full;
    }
    // What was not there, not allowed, of another shape, or there already.
    let class = told.code().code().get(..2).unwrap_or_default();
    if ["22", "23", "3D", "42", "XX"].contains(&class) {
        WalError::Database { why }
    } else {
        WalError::Unreachable { why }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Encrypts a connection, and verifies whose it is.
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsConnect<TcpStream> for Tls {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move { Ok(Encrypted(self.connector.connect(self.name, stream).await?)) })
    }
}

/// An encrypted connection. Channel binding is not used: the certificate is verified under roots that are given.
struct Encrypted(tokio_rustls::client::TlsStream<TcpStream>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
