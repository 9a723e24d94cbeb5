//! Model servers that do what no model server should: each a real TCP server behind a real connector. Whatever it does, the call ends
//! with a signed outcome, what was handed on is what the server sent, and the slot takes the next call.

use std::{path::Path, time::Duration};

use anteroom_proto::rpc::OutcomeClaim;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    super::{
        Config, Connector, Slots,
        upstream::{Upstream, UpstreamLimits},
    },
    broker::{Broker, FakeSlot, soon},
    served::{chain, received, released, verified},
    world::{LAB_CONNECTOR, World, key},
};
use crate::signer::SharedSigner;

const STREAM: &str = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":40}"#;
const WHOLE: &str = r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":12}"#;
const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// A server that plays one script a connection; the last one is played for every later connection, too.
pub(super) struct Server {
    pub(super) base_url: String,
    requests: tokio::sync::mpsc::UnboundedReceiver<String>,
    work: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// What a server does once it has the request.
#[derive(Clone)]
pub(super) enum Act {
    /// Says this and waits until the client goes away.
    Says(Bytes),
    /// Says this and closes.
    Closes(Bytes),
    /// Says this again and again for as long as it is taken.
    Floods(Bytes, Bytes),
    /// Says this, then that a byte at a time with this pause.
    Trickles(Bytes, Bytes, Duration),
}

pub(super) fn says(text: &str) -> Act {
    Act::Says(Bytes::copy_from_slice(text.as_bytes()))
}

pub(super) fn closes(text: &str) -> Act {
    Act::Closes(Bytes::copy_from_slice(text.as_bytes()))
}

impl Server {
    pub(super) async fn start(mut acts: Vec<Act>) -> Self {
        acts.reverse();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (told, requests) = tokio::sync::mpsc::unbounded_channel();
        let work = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let act = if acts.len() > 1 { acts.pop().unwrap() } else { acts[0].clone() };
                tokio::spawn(play(stream, act, told.clone()));
            }
        });
        Self { base_url, requests, work }
    }
}

/// Ends when the client has gone, whatever it leaves unread.
async fn play(mut stream: TcpStream, act: Act, told: tokio::sync::mpsc::UnboundedSender<String>) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
    }
    told.send(String::from_utf8_lossy(&request).into_owned()).ok()?;
    match act {
        Act::Says(text) => {
            stream.write_all(&text).await.ok()?;
            let mut rest = [0; 64];
            while let Ok(1..) = stream.read(&mut rest).await {}
        }
        Act::Closes(text) => stream.write_all(&text).await.ok()?,
        Act::Floods(head, part) => {
            stream.write_all(&head).await.ok()?;
            loop {
                stream.write_all(&part).await.ok()?;
            }
        }
        Act::Trickles(head, text, pause) => {
            stream.set_nodelay(true).ok()?;
            stream.write_all(&head).await.ok()?;
            for byte in text {
                stream.write_all(&[byte]).await.ok()?;
                tokio::time::sleep(pause).await;
            }
        }
    }
    Some(())
}

struct Stage {
    broker: Broker,
    server: Server,
    slot: FakeSlot,
    _connector: Connector,
    _dir: TempDir,
}

impl Stage {
    async fn new(first: Act) -> Self {
        Self::within(first, UpstreamLimits::default()).await
    }

    async fn within(first: Act, limits: UpstreamLimits) -> Self {
        let mut broker = Broker::start(World::new()).await;
        let server = Server::start(vec![first, closes(FINE)]).await;
        let dir = tempfile::tempdir().unwrap();
        let connector = Connector::start(config(&broker, &server.base_url, limits, dir.path())).unwrap();
        let slot = broker.open().await;
        Self { broker, server, slot, _connector: connector, _dir: dir }
    }

    /// Dispatches a call; what was handed on of its answer, its status (0 if none came) and its verified outcome.
    async fn call(&mut self, body: &str) -> (Vec<Bytes>, u32, OutcomeClaim, String) {
        self.slot.dispatch(self.broker.dispatch(body)).await;
        self.slot.claimed().await;
        let (head, events, done) = self.slot.answer().await;
        let outcome = verified(&self.broker, &done.outcome.unwrap());
        assert_eq!(released(&outcome), chain(&events), "what was handed on is what was signed");
        (events, head.map_or(0, |head| head.status), outcome, done.detail)
    }

    /// The slot serves on, and the server was asked once a call.
    async fn goes_on(&mut self) {
        let (body, status, outcome, _) = self.call(WHOLE).await;
        assert_eq!((body.len(), status, outcome.end.as_str()), (1, 200, "completed"));
        let mut asked = 0;
        while self.server.requests.try_recv().is_ok() {
            asked += 1;
        }
        assert_eq!(asked, 2, "nothing is asked twice");
    }

    /// A stream that fails after the events given.
    async fn fails(&mut self, body: &str, handed_on: &[&str], why: &str) {
        let (events, _, outcome, detail) = self.call(body).await;
        assert_eq!(events, handed_on);
        assert_eq!(outcome.end, "model_failed");
        assert!(detail.contains(why), "{detail}");
        assert!(received(&outcome).0 >= outcome.released_events);
        self.goes_on().await;
    }
}

pub(super) fn config(broker: &Broker, upstream: &str, limits: UpstreamLimits, dir: &Path) -> Config {
    let world = broker.world.lock().unwrap();
    Config {
        brokers: crate::home::Brokers::one(broker.channel()),
        name: "c-1".to_owned(),
        signer: SharedSigner::new(key(LAB_CONNECTOR)),
        served: world.served(),
        pinned: world.pinned(),
        upstream: Upstream::new(upstream, None, limits).unwrap(),
        slots: Slots { idle_min: 1, max: 1 },
        clock: world.clock(),
        dir: dir.to_owned(),
        switch: dir.to_owned(),
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let hasty = UpstreamLimits {
        first_byte: Duration::from_millis(600),
        idle: Duration::from_millis(300),
        ..UpstreamLimits::default()
    };
    Stage::within(says(""), hasty).await.fails(WHOLE, &[], "no byte").await;
    Stage::within(says(EVENTS), hasty).await.fails(STREAM, &[], "no byte").await;
    let begun = says(&format!("{EVENTS}data: {{\"a\":1}}\n\n"));
    Stage::within(begun, hasty).await.fails(STREAM, &["{\"a\":1}"], "fell silent").await;
}

#[tokio::test]
async fn a_server_that_trickles_is_waited_for_as_long_as_bytes_come() {
    // It takes longer in all than it may be silent.
    let limits = UpstreamLimits { idle: Duration::from_secs(3), ..UpstreamLimits::default() };
    let body = format!("data: {{\"a\":\"{}\"}}\n\ndata: [DONE]\n\n", "x".repeat(30));
    let act = Act::Trickles(EVENTS.into(), body.into(), Duration::from_millis(60));
    let mut stage = Stage::within(act, limits).await;
    let (events, status, outcome, _) = stage.call(STREAM).await;
    assert_eq!((events.len(), status, outcome.end.as_str()), (2, 200, "completed"));
    stage.goes_on().await;
}

#[tokio::test]
async fn a_server_that_closes_in_mid_chunk_gives_no_shorter_answer() {
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
        e\r\ndata: {\"a\":1}\n\r\n20\r\n\ndata: {\"b\"";
    Stage::new(closes(chunked)).await.fails(STREAM, &["{\"a\":1}"], "failed in the middle").await;
    let plain = format!("{EVENTS}data: {{\"a\":1}}\n\ndata: {{\"b\"");
    Stage::new(closes(&plain)).await.fails(STREAM, &["{\"a\":1}"], "event").await;
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"a\"";
    Stage::new(closes(whole)).await.fails(WHOLE, &[], "failed in the middle").await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_handed_on_as_they_are_for_the_scanner_to_stop() {
    let mut raw = EVENTS.as_bytes().to_vec();
    raw.extend_from_slice(b"data: \xff\xfe\x00{\n\ndata: [DONE]\n\n");
    let mut stage = Stage::new(Act::Closes(raw.into())).await;
    let (events, _, outcome, _) = stage.call(STREAM).await;
    assert_eq!((events[0].as_ref(), outcome.end.as_str()), (b"\xff\xfe\x00{".as_slice(), "completed"));
    assert_eq!((outcome.input_tokens, outcome.output_tokens, outcome.reported_build.len()), (None, None, 0));
    stage.goes_on().await;
}

#[tokio::test]
async fn events_that_nobody_knows_are_handed_on_for_the_broker_to_judge() {
    let text =
        format!("{EVENTS}id: 7\nevent: surprise\nretry: 5\ndata: {{\"odd\":1}}\n\n: a comment\n\ndata: [DONE]\n\n");
    let mut stage = Stage::new(closes(&text)).await;
    let (events, _, outcome, _) = stage.call(STREAM).await;
    assert_eq!((events, outcome.end.as_str()), (vec![Bytes::from("{\"odd\":1}"), Bytes::from("[DONE]")], "completed"));
    stage.goes_on().await;
}

#[tokio::test]
async fn a_line_without_an_end_is_refused_at_its_bound() {
    let mut stage = Stage::new(Act::Floods(format!("{EVENTS}data: ").into(), vec![b'x'; 1 << 20].into())).await;
    stage.fails(STREAM, &[], "longer than").await;
    // And so is a whole body without an end: a hundred megabytes and more.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n";
    let mut stage = Stage::new(Act::Floods(head.into(), vec![b'x'; 1 << 20].into())).await;
    stage.fails(WHOLE, &[], "longer than").await;
}

#[tokio::test]
async fn an_error_page_is_the_answer_with_its_status() {
    let page = "<html><body><h1>Internal Server Error</h1></body></html>";
    let text = format!(
        "HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}",
        page.len()
    );
    let mut stage = Stage::new(closes(&text)).await;
    let (events, status, outcome, _) = stage.call(STREAM).await;
    assert_eq!((events, status), (vec![Bytes::from(page)], 500));
    assert_eq!((outcome.status, outcome.end.as_str(), outcome.output_tokens), (500, "completed", None));
    stage.goes_on().await;
}

#[tokio::test]
async fn a_redirect_elsewhere_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = elsewhere.local_addr().unwrap();
    for status in ["302 Found", "307 Temporary Redirect"] {
        let text =
            format!("HTTP/1.1 {status}\r\nlocation: http://{to}/v1/chat/completions\r\ncontent-length: 0\r\n\r\n");
        let mut stage = Stage::new(closes(&text)).await;
        let (_, seen, outcome, _) = stage.call(STREAM).await;
        assert!(status.starts_with(&seen.to_string()) && outcome.status == seen);
        stage.goes_on().await;
    }
    // Nobody came: a connection that is already waiting would be there at once.
    let nobody = tokio::time::timeout(Duration::from_millis(1), elsewhere.accept()).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn usage_that_cannot_be_is_signed_as_absent() {
    for usage in [
        r#"{"prompt_tokens":-1,"completion_tokens":-1}"#,
        r#"{"prompt_tokens":1e300,"completion_tokens":"12"}"#,
        r#"{"prompt_tokens":18446744073709551615,"completion_tokens":4294967297}"#,
        "[3,4]",
    ] {
        let text = format!("{EVENTS}data: {{\"usage\":{usage}}}\n\ndata: [DONE]\n\n");
        let mut stage = Stage::new(closes(&text)).await;
        let (events, _, outcome, _) = stage.call(STREAM).await;
        assert_eq!((events.len(), outcome.end.as_str()), (2, "completed"));
        assert_eq!((outcome.input_tokens, outcome.output_tokens), (None, None), "{usage}");
        stage.goes_on().await;
    }
}

#[tokio::test]
async fn what_is_no_http_is_a_failed_request() {
    Stage::new(closes("SSH-2.0-OpenSSH_9.9\r\n")).await.fails(WHOLE, &[], "failed").await;
    Stage::new(closes("")).await.fails(STREAM, &[], "failed").await;
    let encoded = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx";
    Stage::new(closes(encoded)).await.fails(WHOLE, &[], "compressed").await;
}

#[tokio::test]
async fn the_call_names_itself_to_the_server() {
    let mut stage = Stage::new(closes(FINE)).await;
    let (_, _, outcome, _) = stage.call(WHOLE).await;
    let call = anteroom_proto::names::CallId::from_slice(&outcome.call).unwrap();
    let request = soon(stage.server.requests.recv()).await.unwrap();
    assert!(request.contains(&format!("x-request-id: {call}\r\n")), "{request}");
}
