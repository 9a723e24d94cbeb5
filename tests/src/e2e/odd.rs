//! A model server that answers what it was told to expect, byte for byte, and keeps whatever else reaches it.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{schema::answers::Answer, sim::rng::Rng};

/// Largest request.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// A running server. Dropping it closes its port.
#[derive(Debug)]
pub struct Odd {
    base: String,
    shared: Arc<Mutex<Shared>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    rng: Rng,
    /// By path and body.
    expected: HashMap<(String, Vec<u8>), Answer>,
    served: u64,
    strangers: Vec<(String, Vec<u8>)>,
}

impl Odd {
    /// Starts one; the seed says how answers are cut into pieces.
    ///
    /// # Panics
    /// Loopback cannot be listened on.
    pub async fn start(seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
        let base = format!("http://{}/v1", listener.local_addr().expect("a bound socket has an address"));
        let shared = Shared { rng: Rng::new(seed), expected: HashMap::new(), served: 0, strangers: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let desk = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&desk)));
            }
        });
        Self { base, shared, server }
    }

    /// Where it is, for connectors.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// Answers this request so, once.
    pub fn expect(&self, path: &str, body: &str, answer: Answer) {
        lock(&self.shared).expected.insert((path.to_owned(), body.as_bytes().to_vec()), answer);
    }

    /// How many expected requests came.
    #[must_use]
    pub fn served(&self) -> u64 {
        lock(&self.shared).served
    }

    /// Requests that were not expected, by path and body.
    #[must_use]
    pub fn strangers(&self) -> Vec<(String, String)> {
        let shared = lock(&self.shared);
        shared.strangers.iter().map(|(path, body)| (path.clone(), String::from_utf8_lossy(body).into_owned())).collect()
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) -> Option<()> {
    let (path, body) = request(&mut stream).await?;
    let (answer, mut rng) = {
        let mut shared = lock(&shared);
        let found = shared.expected.remove(&(path.clone(), body.clone()));
        match &found {
            Some(_) => shared.served += 1,
            None => shared.strangers.push((path, body)),
        }
        (found, shared.rng.fork())
    };
    let Some(answer) = answer else {
        let text = r#"{"error":{"message":"nobody said that this would come","type":"invalid_request_error","code":"stranger"}}"#;
        let head = format!(
            "HTTP/1.1 400 No\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            text.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(text.as_bytes()).await.ok()?;
        return stream.shutdown().await.ok();
    };
    let kind =
        if answer.events { ["text/event-stream", "text/event-stream; charset=utf-8"] } else { ["application/json"; 2] };
    let mut head = format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\nconnection: close\r\n", kind[rng.index(2)]);
    let chunked = answer.events || rng.chance(50);
    head.push_str(&if chunked {
        "transfer-encoding: chunked\r\n\r\n".to_owned()
    } else {
        format!("content-length: {}\r\n\r\n", answer.bytes.len())
    });
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut rest = answer.bytes.as_slice();
    while !rest.is_empty() {
        // Characters, lines and events end where they end; pieces end anywhere.
        let most = [1, 7, 64, 4096][rng.index(4)].min(rest.len());
        let (piece, behind) = rest.split_at(rng.index(most) + 1);
        if chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.ok()?;
            stream.write_all(piece).await.ok()?;
            stream.write_all(b"\r\n").await.ok()?;
        } else {
            stream.write_all(piece).await.ok()?;
        }
        rest = behind;
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await.ok()?;
    }
    stream.shutdown().await.ok()
}

async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 16 * 1024];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(part.get(..count)?);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
        let lower = head.to_ascii_lowercase();
        let length =
            lower.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse::<usize>().ok()?;
        if length > REQUEST_BYTES_MAX {
            return None;
        }
        if let Some(body) = bytes.get(end + 4..end + 4 + length) {
            return Some((head.split(' ').nth(1)?.to_owned(), body.to_vec()));
        }
    }
}
