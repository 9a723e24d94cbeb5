//! What the console costs over everything: the first verified look, and each question that the page asks.

use std::{net::Ipv4Addr, time::Instant};

use anteroom_sdk::{
    console::{About, Console, Part},
    mirror::{Mirror, check::Demands},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use crate::bench::{
    Fallible, machine,
    report::{Table, round},
};

/// Times that each question is asked.
const TIMES: usize = 20;
/// What the page asks, as it asks it.
const QUESTIONS: [(&str, &str); 5] = [
    ("grants and exceptions", "/api/overview"),
    ("newest 100 calls, each proven", "/api/rows?group=call&limit=100"),
    ("calls by outcome and day", "/api/totals?group=call&by=outcome&every=24"),
    ("how long calls took", "/api/times?group=call"),
    ("who read what", "/api/reads"),
];

/// Serves a mirror whose rows were made, and asks.
pub(super) fn shown(mirror: &Mirror, demands: &Demands) -> Fallible<Value> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(asked(mirror, demands.clone()))
}

async fn asked(mirror: &Mirror, demands: Demands) -> Fallible<Value> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let about = About { part: Part::Auditor, org: None, home: None, offline: true };
    let console = Console::open(listener, about, mirror.dir(), demands)?;
    let link = console.link().strip_prefix("http://").ok_or("no link")?.to_owned();
    let (host, path) = link.split_at(link.find('/').ok_or("no path")?);
    machine::forget_peak();
    let (end, over) = oneshot::channel::<()>();
    let begun = Instant::now();
    let serving = tokio::spawn(console.serve(async { drop(over.await) }, async |_| Ok(true)));
    let opened = get(host, path, "").await?;
    let cookie = opened.lines().find_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next());
    let cookie = cookie.ok_or("the link opened nothing")?.to_owned();
    loop {
        let status = body(&get(host, "/api/status", &cookie).await?)?;
        if !status["warning"].is_null() {
            return Err(format!("the mirror does not hold: {}", status["warning"]).into());
        }
        if status["rounds"].as_u64() > Some(0) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let first = begun.elapsed().as_secs_f64();
    let first_peak = machine::peak_mb()?;
    machine::forget_peak();
    let mut questions = Vec::new();
    for (name, path) in QUESTIONS {
        let mut took = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let begun = Instant::now();
            let answer = get(host, path, &cookie).await?;
            took.push(begun.elapsed());
            if !answer.starts_with("HTTP/1.1 200") {
                return Err(format!("{path}: {}", answer.lines().next().unwrap_or_default()).into());
            }
        }
        let p50 = super::search::quantile(&mut took, 50);
        questions.push(json!({"asks": name, "p50_ms": p50, "p95_ms": super::search::quantile(&mut took, 95)}));
    }
    let _ = end.send(());
    if let Some(trouble) = serving.await? {
        return Err(format!("it ended with {trouble:?}").into());
    }
    Ok(json!({
        "first_seconds": first, "first_peak_mb": first_peak, "questions": questions, "resident_peak_mb": machine::peak_mb()?,
    }))
}

/// What was found, as a table.
pub(super) fn text(found: &Value) -> String {
    let number = |value: &Value, key: &str| round(value.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN));
    let mut table = Table::new(&["console", "p50 ms", "p95 ms"]);
    for one in found.get("questions").and_then(Value::as_array).into_iter().flatten() {
        let name = one.get("asks").and_then(Value::as_str).unwrap_or_default();
        table.row(vec![name.to_owned(), number(one, "p50_ms"), number(one, "p95_ms")]);
    }
    format!(
        "{}\nThe console's first look, everything verified: {} s, {} MB at most; {} MB at most while it answered.",
        table.text(),
        number(found, "first_seconds"),
        number(found, "first_peak_mb"),
        number(found, "resident_peak_mb"),
    )
}

async fn get(host: &str, path: &str, cookie: &str) -> Fallible<String> {
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn body(answer: &str) -> Fallible<Value> {
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    Ok(serde_json::from_str(body)?)
}
