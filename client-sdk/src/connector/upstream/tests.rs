#![expect(clippy::unwrap_used, clippy::panic, reason = "tests stop at the first surprise")]

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::connector::generator::{Generator, Pace};
use crate::connector::sse::SseEvent;

const CHAT: &str = "/v1/chat/completions";

/// No wait may hang the suite.
async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap()
}

/// A server that reads one request, says exactly `reply` and then holds the line until the client
/// goes away. Gives the request back.
struct Scripted {
    base_url: String,
    request: oneshot::Receiver<Vec<u8>>,
    gone: JoinHandle<()>,
}

async fn scripted(reply: impl Into<Vec<u8>>, hang_up: bool) -> Scripted {
    let reply = reply.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, request) = oneshot::channel();
    let gone = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = tell.send(read_request(&mut socket).await);
        socket.write_all(&reply).await.unwrap();
        if hang_up {
            return;
        }
        // A close with bytes unread arrives as a reset: gone all the same.
        let mut rest = [0; 64];
        while let Ok(1..) = socket.read(&mut rest).await {}
    });
    Scripted { base_url, request, gone }
}

async fn read_request(socket: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    loop {
        if socket.read_buf(&mut request).await.unwrap() == 0 {
            return request;
        }
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest.lines().next().unwrap());
            if body.len() >= length.parse().unwrap() {
                return request;
            }
        }
    }
}

fn reply(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The head of a stream whose body has no announced end, and some of its body.
fn stream_of(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n{body}")
}

fn upstream(base_url: &str) -> Upstream {
    Upstream::new(base_url, None, UpstreamLimits::default()).unwrap()
}

fn hasty(base_url: &str) -> Upstream {
    let limits = UpstreamLimits { idle: Duration::from_millis(20), ..UpstreamLimits::default() };
    Upstream::new(base_url, None, limits).unwrap()
}

fn whole(answer: Answer) -> (StatusCode, Bytes) {
    match answer {
        Answer::Whole { status, body } => (status, body),
        Answer::Events(_) => panic!("a stream where a whole answer was due"),
    }
}

fn events(answer: Answer) -> Events {
    match answer {
        Answer::Events(events) => events,
        Answer::Whole { status, .. } => {
            panic!("a whole answer with {status} where a stream was due")
        }
    }
}

async fn collect(mut events: Events) -> (Vec<SseEvent>, Option<UpstreamError>) {
    let mut seen = Vec::new();
    while let Some(event) = soon(events.next()).await {
        match event {
            Ok(event) => seen.push(event),
            Err(error) => {
                assert!(soon(events.next()).await.is_none(), "something came behind an error");
                return (seen, Some(error));
            }
        }
    }
    (seen, None)
}

#[tokio::test]
async fn body_and_key_go_out_as_they_are_and_the_answer_comes_back_as_it_is() {
    let server = scripted(reply("200 OK", "application/json", "{\"odd\" :\t1e0}"), false).await;
    let key = ApiKey::new("sk-secret").unwrap();
    let upstream = Upstream::new(&server.base_url, Some(key), UpstreamLimits::default()).unwrap();
    assert!(!format!("{upstream:?}").contains("secret"));
    let body = Bytes::from_static(b"{ \"a\":1,\"a\":\t2.50 }");
    let (status, answer) = whole(soon(upstream.call(CHAT, body, false)).await.unwrap());
    assert_eq!((status, answer.as_ref()), (StatusCode::OK, &b"{\"odd\" :\t1e0}"[..]));
    let request = String::from_utf8(server.request.await.unwrap()).unwrap();
    assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer sk-secret\r\n"), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{ \"a\":1,\"a\":\t2.50 }"), "{request}");
}

#[tokio::test]
async fn unary_answer_of_the_generator_carries_usage_model_and_build() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let body = Bytes::from_static(br#"{"model":"m1","messages":[{"role":"user","content":"one two"}],"max_tokens":5}"#);
    let (status, body) = whole(soon(upstream(server.base_url()).call(CHAT, body, false)).await.unwrap());
    assert_eq!(status, StatusCode::OK);
    let reported = Reported::from_body(&body);
    assert_eq!(reported.usage, Usage { input: Some(2), output: Some(5) });
    assert_eq!(reported.model.as_deref(), Some("m1"));
    assert!(reported.system_fingerprint.is_some());
}

#[tokio::test]
async fn stream_of_the_generator_ends_with_done_and_counts_as_finished() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let upstream = upstream(server.base_url());
    let body = Bytes::from_static(
        br#"{"messages":[{"role":"user","content":"one two"}],"max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}"#,
    );
    for round in 1..=2 {
        let (events, error) = collect(events(soon(upstream.call(CHAT, body.clone(), true)).await.unwrap())).await;
        assert!(error.is_none(), "{error:?}");
        assert!(events.last().unwrap().is_done());
        let mut reported = Reported::default();
        for event in &events {
            reported.note(&event.data);
        }
        assert_eq!(reported.usage, Usage { input: Some(2), output: Some(5) });
        let counts = soon(server.counts_reach(|counts| counts.finished_streams == round)).await;
        assert_eq!((counts.open_streams, counts.cut_streams), (0, 0));
    }
}

#[tokio::test]
async fn dropped_stream_reaches_the_server() {
    let server = Generator::start(Pace { per_word: Duration::from_secs(3600) }).await.unwrap();
    let body = Bytes::from_static(br#"{"messages":[{"role":"user","content":"hello"}],"stream":true}"#);
    let mut events = events(soon(upstream(server.base_url()).call(CHAT, body, true)).await.unwrap());
    for _ in 0..2 {
        soon(events.next()).await.unwrap().unwrap();
    }
    assert_eq!(server.counts().open_streams, 1);
    drop(events);
    let counts = soon(server.counts_reach(|counts| counts.open_streams == 0)).await;
    assert_eq!((counts.cut_streams, counts.finished_streams), (1, 0));
}

#[tokio::test]
async fn dropped_call_closes_the_connection_before_any_answer() {
    let server = scripted("", false).await;
    let upstream = upstream(&server.base_url);
    let call = tokio::spawn(async move { upstream.call(CHAT, Bytes::from_static(b"{}"), false).await.map(drop) });
    soon(server.request).await.unwrap();
    call.abort();
    soon(server.gone).await.unwrap();
}

#[tokio::test]
async fn refusals_come_back_whole_and_are_not_asked_twice() {
    for status in ["400 Bad Request", "429 Too Many Requests", "500 Internal Server Error", "302 Found"] {
        let server = scripted(reply(status, "text/event-stream", "{\"error\":{}}"), false).await;
        let upstream = upstream(&server.base_url);
        let (seen, body) = whole(soon(upstream.call(CHAT, Bytes::from_static(b"{}"), true)).await.unwrap());
        assert!(status.starts_with(seen.as_str()));
        assert_eq!(body, "{\"error\":{}}");
        // The scripted server answers one request; a second would have waited in vain.
        drop(upstream);
        soon(server.gone).await.unwrap();
    }
}

#[tokio::test]
async fn json_in_place_of_a_stream_comes_back_whole() {
    let server = scripted(reply("200 OK", "application/json", "{\"error\":{}}"), false).await;
    let answer = soon(upstream(&server.base_url).call(CHAT, Bytes::from_static(b"{}"), true)).await.unwrap();
    assert_eq!(whole(answer).1, "{\"error\":{}}");
}

#[tokio::test]
async fn error_body_is_cut_at_its_bound_without_reading_on() {
    let body = "x".repeat(ERROR_BODY_BYTES_MAX + 1);
    // More is announced than ever comes: only a reader that stops at the bound gets an answer.
    let head = format!("HTTP/1.1 502 Bad Gateway\r\ncontent-length: {}\r\n\r\n", 1 << 30);
    let server = scripted(head + &body, false).await;
    let answer = soon(upstream(&server.base_url).call(CHAT, Bytes::from_static(b"{}"), false)).await.unwrap();
    assert_eq!(whole(answer).1.len(), ERROR_BODY_BYTES_MAX);
}

#[tokio::test]
async fn silence_in_a_stream_is_an_error_and_hangs_up() {
    let server = scripted(stream_of("data: a\n\ndata: b"), false).await;
    let answer = soon(hasty(&server.base_url).call(CHAT, Bytes::from_static(b"{}"), true)).await.unwrap();
    let (seen, error) = collect(events(answer)).await;
    assert_eq!(seen.len(), 1);
    assert!(matches!(error, Some(UpstreamError::IdleTimeout(_))), "{error:?}");
    soon(server.gone).await.unwrap();
}

#[tokio::test]
async fn silence_in_a_whole_body_is_an_error_and_hangs_up() {
    let server = scripted("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\"", false).await;
    let error = soon(hasty(&server.base_url).call(CHAT, Bytes::from_static(b"{}"), false)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::IdleTimeout(_)), "{error:?}");
    soon(server.gone).await.unwrap();
}

#[tokio::test]
async fn server_that_says_nothing_at_all_is_given_up() {
    let limits = UpstreamLimits { first_byte: Duration::from_millis(100), ..UpstreamLimits::default() };
    for said in [String::new(), stream_of("")] {
        let server = scripted(said, false).await;
        let upstream = Upstream::new(&server.base_url, None, limits).unwrap();
        let error = match soon(upstream.call(CHAT, Bytes::from_static(b"{}"), true)).await {
            Ok(answer) => collect(events(answer)).await.1.unwrap(),
            Err(error) => error,
        };
        assert!(matches!(error, UpstreamError::FirstByteTimeout(_)), "{error:?}");
        soon(server.gone).await.unwrap();
    }
}

#[tokio::test]
async fn server_that_holds_the_line_behind_done_does_not_hold_the_reader() {
    let server = scripted(stream_of("data: a\n\ndata: [DONE]\n\ndata: more\n\n"), false).await;
    let answer = soon(hasty(&server.base_url).call(CHAT, Bytes::from_static(b"{}"), true)).await.unwrap();
    let (seen, error) = collect(events(answer)).await;
    assert_eq!(seen.len(), 2);
    assert!(error.is_none(), "{error:?}");
    soon(server.gone).await.unwrap();
}

#[tokio::test]
async fn stream_that_breaks_off_is_never_a_short_answer() {
    let chunked =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n";
    let server = scripted(chunked, true).await;
    let answer = soon(upstream(&server.base_url).call(CHAT, Bytes::from_static(b"{}"), true)).await.unwrap();
    let (_, error) = collect(events(answer)).await;
    assert!(matches!(error, Some(UpstreamError::Body(_))), "{error:?}");

    let server = scripted(stream_of("data: a\n\ndata: {\"b\":"), true).await;
    let answer = soon(upstream(&server.base_url).call(CHAT, Bytes::from_static(b"{}"), true)).await.unwrap();
    let (seen, error) = collect(events(answer)).await;
    assert_eq!(seen.len(), 1);
    assert!(matches!(error, Some(UpstreamError::Sse(SseError::Unfinished { .. }))), "{error:?}");
}

#[tokio::test]
async fn oversized_bodies_and_events_are_errors() {
    let limits = UpstreamLimits { response_bytes_max: 64, event_bytes_max: 32, ..UpstreamLimits::default() };
    let body = Bytes::from_static(b"{}");

    let server = scripted(reply("200 OK", "application/json", &"x".repeat(65)), false).await;
    let upstream = Upstream::new(&server.base_url, None, limits).unwrap();
    let error = soon(upstream.call(CHAT, body.clone(), false)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TooLarge { limit: 64 }), "{error:?}");

    let server = scripted(stream_of(&format!("data: {}", "x".repeat(32))), false).await;
    let upstream = Upstream::new(&server.base_url, None, limits).unwrap();
    let (_, error) = collect(events(soon(upstream.call(CHAT, body.clone(), true)).await.unwrap())).await;
    assert!(matches!(error, Some(UpstreamError::Sse(SseError::TooLong { limit: 32 }))), "{error:?}");

    let server = scripted(stream_of(&"data: x\n\n".repeat(8)), false).await;
    let upstream = Upstream::new(&server.base_url, None, limits).unwrap();
    let (_, error) = collect(events(soon(upstream.call(CHAT, body, true)).await.unwrap())).await;
    assert!(matches!(error, Some(UpstreamError::TooLarge { limit: 64 })), "{error:?}");
}

#[tokio::test]
async fn compressed_answer_is_an_error() {
    let server = scripted("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", false).await;
    let error = soon(upstream(&server.base_url).call(CHAT, Bytes::from_static(b"{}"), false)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Encoded), "{error:?}");
}

#[tokio::test]
async fn port_nobody_listens_on_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = soon(upstream(&base_url).probe("/v1/models")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn handshake_that_stalls_runs_into_the_connect_limit() {
    // The port takes the connection and never says a word of TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let limits = UpstreamLimits { connect: Duration::from_millis(20), ..UpstreamLimits::default() };
    let upstream = Upstream::new(&base_url, None, limits).unwrap();
    let error = soon(upstream.probe("/v1/models")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::ConnectTimeout(_)), "{error:?}");
}

#[tokio::test]
async fn only_plain_routes_are_asked_for() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let upstream = upstream(server.base_url());
    for route in
        ["", "/", "/v1/", "/admin", "v1/models", "/v1/../admin", "/v1/models?x=1", "/v1//models", "/v1/a b", "/v1/%2e"]
    {
        let error = soon(upstream.probe(route)).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Route(_)), "{route}: {error:?}");
    }
    assert_eq!(server.counts().requests, 0);
    assert_eq!(whole(soon(upstream.probe("/v1/models")).await.unwrap()).0, StatusCode::OK);
}

#[test]
fn addresses_with_and_without_v1_are_one_and_odd_ones_are_turned_down() {
    for (given, base) in [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("https://models.example/lab/v1", "https://models.example/lab"),
    ] {
        assert_eq!(&*upstream(given).base, base);
    }
    for given in ["", "models.example", "ftp://models.example", "unix:/run/model", "http://h/v1?key=1", "http://h/v1#x"]
    {
        let error = Upstream::new(given, None, UpstreamLimits::default()).unwrap_err();
        assert!(matches!(error, UpstreamError::BaseUrl(_)), "{given}: {error:?}");
    }
    let error = Upstream::new("http://me:secret@h/v1", None, UpstreamLimits::default()).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn keys_a_header_cannot_carry_are_turned_down_without_being_shown() {
    for secret in ["", "two words", "line\nbreak", "ü"] {
        assert!(matches!(ApiKey::new(secret), Err(UpstreamError::ApiKey)));
    }
    assert_eq!(format!("{:?}", ApiKey::new("sk-secret").unwrap()), "ApiKey(..)");
}

const MESSAGES: &str = "/v1/messages";

#[tokio::test]
async fn each_dialect_gets_key_and_version_where_it_looks_for_them() {
    let bearer = Some("Bearer sk-secret");
    for (api, route, authorization, key, version) in [
        (Api::Both, CHAT, bearer, None, None),
        (Api::Both, MESSAGES, bearer, Some("sk-secret"), Some("2023-06-01")),
        (Api::OpenAi, CHAT, bearer, None, None),
        (Api::Anthropic, MESSAGES, None, Some("sk-secret"), Some("2023-06-01")),
        (Api::Anthropic, "/v1/models", None, Some("sk-secret"), Some("2023-06-01")),
    ] {
        let server = scripted(reply("200 OK", "application/json", "{}"), false).await;
        let key_of_the_lab = Some(ApiKey::new("sk-secret").unwrap());
        let upstream = Upstream::new(&server.base_url, key_of_the_lab, UpstreamLimits::default()).unwrap();
        let upstream = upstream.speaking(api, ANTHROPIC_VERSION).unwrap();
        let (status, _) = whole(soon(upstream.call(route, Bytes::from_static(b"{}"), false)).await.unwrap());
        assert_eq!(status, StatusCode::OK);
        let request = String::from_utf8(server.request.await.unwrap()).unwrap();
        let header = |name: &str| {
            let line = request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.map(str::to_owned)
        };
        let sent = (header("authorization"), header("x-api-key"), header("anthropic-version"));
        let expected = (authorization, key, version);
        assert_eq!((sent.0.as_deref(), sent.1.as_deref(), sent.2.as_deref()), expected, "{api} {route}");
    }
    let routes =
        |api: Api| [CHAT, MESSAGES].map(|route| upstream("http://h").speaking(api, "1").unwrap().answers(route));
    assert_eq!(Api::ALL.map(routes), [[true, true], [true, false], [false, true]]);
    for api in Api::ALL {
        assert_eq!(api.as_str().parse(), Ok(api));
    }
    assert!("Anthropic".parse::<Api>().is_err());
    for version in ["", "2023 06", "line\nbreak", "ü", &"x".repeat(65)] {
        let odd = upstream("http://h").speaking(Api::Both, version);
        assert!(matches!(odd, Err(UpstreamError::Version)), "{version}");
    }
}

/// Events of the messages route, framed as servers do.
fn messages(kinds: &[&str]) -> String {
    let framed = kinds.iter().map(|kind| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"}}\n\n"));
    stream_of(&framed.collect::<String>())
}

#[tokio::test]
async fn a_stream_of_messages_is_whole_with_its_last_event_and_not_before() {
    for (kinds, behind, hang_up, events_seen, whole) in [
        (&["message_start", "ping", "message_stop"][..], "data: [DONE]\n\n", false, 3, true),
        (&["message_start", "message_stop"], "event: message_start\ndata: {}\n\n", true, 2, true),
        (&["message_start", "content_block_delta", "message_delta"], "", true, 3, false),
        (&[], "", true, 0, false),
        (&["message_start"], "data: [DONE]\n\n", true, 2, false),
        // A failure that the server tells is an end of its own.
        (&["message_start", "error"], "", true, 2, true),
    ] {
        let server = scripted(messages(kinds) + behind, hang_up).await;
        let upstream = if hang_up { upstream(&server.base_url) } else { hasty(&server.base_url) };
        let answer = soon(upstream.call(MESSAGES, Bytes::from_static(b"{}"), true)).await.unwrap();
        let (seen, error) = collect(events(answer)).await;
        assert_eq!((seen.len(), error.is_none()), (events_seen, whole), "{kinds:?} {error:?}");
        assert!(whole || matches!(error, Some(UpstreamError::Unfinished)), "{error:?}");
    }
}
