//! The load over HTTP and JSON, for what speaks nothing else, and the upstream that such a contender asks: the same prompts, the same
//! answers from memory. Nobody signs anything here and neither leg has TLS, which is less work for the contender, not more.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use axum::{Router, body::Body, extract::State, http::header::CONTENT_TYPE, response::Response, routing::post};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Fallible,
    answers::{Answers, CHUNKS, LARGE_BYTES, Manner},
    load::{Amount, Tally},
    upstream::QUEUE,
};

/// Where a contender is asked, and by what.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its address.
    pub address: SocketAddr,
    /// What it asks callers for.
    pub key: Option<String>,
    /// The model's name.
    pub line: String,
}

/// Starts the upstream in this process; its address.
pub async fn upstream(answers: Arc<Answers>) -> Fallible<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let limit = axum::extract::DefaultBodyLimit::max(LARGE_BYTES * 2);
    let routes = Router::new().route("/v1/chat/completions", post(answer)).layer(limit).with_state(answers);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

async fn answer(State(answers): State<Arc<Answers>>, body: Bytes) -> Response {
    let (kind, body) = if Manner::of(&body).streams() {
        let (send, receive) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            for event in &answers.events {
                let mut line = BytesMut::with_capacity(event.len() + 8);
                line.extend_from_slice(b"data: ");
                line.extend_from_slice(event);
                line.extend_from_slice(b"\n\n");
                if send.send(Ok::<_, Infallible>(line.freeze())).await.is_err() {
                    return;
                }
            }
        });
        ("text/event-stream", Body::from_stream(ReceiverStream::new(receive)))
    } else {
        ("application/json", Body::from(answers.whole.clone()))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(kind));
    response
}

/// As [`super::load::drive`], over HTTP: each client on a connection of its own, made anew for each round.
pub async fn drive(door: &Door, clients: usize, manner: Manner, amount: Amount) -> Fallible<Tally> {
    let bodies: Arc<[Bytes]> = manner.bodies(&door.line).into();
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(connect(door.address).await?);
    }
    let begun = Instant::now();
    let taken = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let (bodies, door, taken) = (Arc::clone(&bodies), door.clone(), Arc::clone(&taken));
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while !amount.is_over(begun, &taken) {
                for body in bodies.iter() {
                    if connection.ready().await.is_err() {
                        match connect(door.address).await {
                            Ok(again) => connection = again,
                            Err(error) => {
                                tally.count(Err(error)).await;
                                continue;
                            }
                        }
                    }
                    let called = call(&mut connection, &door, body, manner, &mut tally).await;
                    tally.count(called).await;
                }
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.merge(tally?);
    }
    all.took = begun.elapsed();
    Ok(all)
}

async fn connect(address: SocketAddr) -> Fallible<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn call(
    connection: &mut SendRequest<Full<Bytes>>,
    door: &Door,
    body: &Bytes,
    manner: Manner,
    tally: &mut Tally,
) -> Fallible<()> {
    let mut request = Request::post("/v1/chat/completions")
        .header("host", door.address.to_string())
        .header("content-type", "application/json");
    if let Some(key) = &door.key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Full::new(body.clone()))?;
    let sent = Instant::now();
    let response = connection.send_request(request).await?;
    let status = response.status();
    let mut answer = response.into_body();
    let (mut events, mut line) = (0, Vec::new());
    let mut said = 0;
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        said += data.len();
        // An event may come in two frames, and two in one.
        for byte in data.iter().filter(|_| manner.streams()) {
            if *byte == b'\n' {
                if line.starts_with(b"data:") {
                    if events == 0 {
                        tally.first.add(sent.elapsed());
                    }
                    events += 1;
                }
                line.clear();
            } else {
                line.push(*byte);
            }
        }
    }
    tally.whole.add(sent.elapsed());
    if status != 200 || said == 0 {
        return Err(format!("an answer with status {status}").into());
    }
    if manner.streams() && events < CHUNKS {
        return Err(format!("only {events} chunks came").into());
    }
    Ok(())
}
