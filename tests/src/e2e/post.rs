//! A mail server and a webhook, as an organisation's contacts have them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use axum::{Router, http::StatusCode, routing::post};
use mailin::{Action, AuthMechanism, Handler, Response, SessionBuilder, response};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::wait::soon;

/// A mail as it was taken.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    /// Who logged in.
    pub user: String,
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// Head and body.
    pub text: String,
}

/// A relay.
#[derive(Debug)]
pub struct Post {
    port: u16,
    mails: mpsc::UnboundedReceiver<Mail>,
}

/// Who may log in, and by which certificate the relay is known.
#[derive(Clone)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
    /// TLS from the first byte on.
    pub tls: Arc<ServerConfig>,
}

struct Session {
    login: Option<Login>,
    mail: Mail,
    mails: mpsc::UnboundedSender<Mail>,
}

impl Handler for Session {
    fn mail(&mut self, _: IpAddr, _: &str, from: &str) -> Response {
        if self.login.is_some() && self.mail.user.is_empty() {
            return response::AUTHENTICATION_REQUIRED;
        }
        from.clone_into(&mut self.mail.from);
        response::OK
    }

    fn rcpt(&mut self, to: &str) -> Response {
        self.mail.to.push(to.to_owned());
        response::OK
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.mail.text.push_str(&String::from_utf8_lossy(bytes));
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        // Whoever is gone does not want it.
        let _ = self.mails.send(std::mem::take(&mut self.mail));
        response::OK
    }

    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        let known = self.login.as_ref().is_some_and(|login| login.user == user && login.password == password);
        if !known {
            return response::INVALID_CREDENTIALS;
        }
        user.clone_into(&mut self.mail.user);
        response::AUTH_OK
    }
}

impl Post {
    /// Starts one that takes any mail, or with a login only what comes by it.
    ///
    /// # Panics
    /// Loopback cannot be listened on.
    pub async fn start(login: Option<Login>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (sender, mails) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let session = Session { login: login.clone(), mail: Mail::default(), mails: sender.clone() };
                tokio::spawn(async move {
                    match session.login.as_ref().map(|login| Arc::clone(&login.tls)) {
                        None => talk(stream, session).await,
                        Some(tls) => talk(TlsAcceptor::from(tls).accept(stream).await?, session).await,
                    }
                });
            }
        });
        Self { port, mails }
    }

    /// Where it is.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The next mail.
    ///
    /// # Panics
    /// None comes.
    pub async fn next(&mut self) -> Mail {
        soon("a mail", self.mails.recv()).await.expect("the relay lives")
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, handler: Session) -> io::Result<()> {
    let mut builder = SessionBuilder::new("relay.localhost");
    if handler.login.is_some() {
        // The connection is inside TLS already, which the state machine does not see.
        builder.enable_auth(AuthMechanism::Plain).insecure_enable_plaintext_auth();
    }
    let mut session = builder.build(Ipv4Addr::LOCALHOST.into(), handler);
    let mut stream = BufReader::new(stream);
    stream.write_all(&session.greeting().buffer()?).await?;
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 {
        let answer = session.process(&line);
        line.clear();
        if answer.action != Action::NoReply {
            stream.write_all(&answer.buffer()?).await?;
            stream.flush().await?;
        }
        if answer.action == Action::Close {
            break;
        }
    }
    Ok(())
}

/// A webhook whose answer can be changed.
#[derive(Debug)]
pub struct Hook {
    port: u16,
    status: Arc<AtomicU16>,
    taken: mpsc::UnboundedReceiver<Value>,
}

impl Hook {
    /// Starts one that answers with this status.
    ///
    /// # Panics
    /// Loopback cannot be listened on.
    pub async fn start(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let (sender, taken) = mpsc::unbounded_channel();
        let answers = Arc::clone(&status);
        let answer = move |body: String| {
            let sent = sender.send(serde_json::from_str(&body).expect("the body is JSON"));
            let status = if sent.is_ok() { answers.load(Ordering::SeqCst) } else { 410 };
            async move { StatusCode::from_u16(status).expect("a status") }
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let router = Router::new().route("/in", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, status, taken }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in", self.port)
    }

    /// Answers otherwise from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The next body.
    ///
    /// # Panics
    /// None comes.
    pub async fn next(&mut self) -> Value {
        soon("a webhook's body", self.taken.recv()).await.expect("the webhook lives")
    }
}
