#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use anteroom_proto::{
    names::{CallId, Digest, GrantId},
    rpc::OutcomeClaim,
    statement::envelope::{Signer, sign_claim},
    time::At,
};

use super::{
    server_log::{Joined, Request, ServerLog},
    *,
};
use crate::{
    connector::calls::{CallBegun, CallEnded, Kept, KeptList},
    signer::KeyFile,
};

const NOW: i64 = 1_795_000_000_000;
const GRANT: GrantId = GrantId::from_bytes([3; 16]);

fn call(number: u8) -> CallId {
    CallId::new(NOW, [number; 10])
}

fn key(seed: u8) -> KeyFile {
    KeyFile::from_seed(&[seed; 32]).unwrap()
}

/// A call that both sides have, the same.
fn pair(number: u8) -> (Kept, OnRecord) {
    let id = call(number);
    let claim = OutcomeClaim {
        call: id.as_bytes().to_vec(),
        grant: GRANT.as_bytes().to_vec(),
        status: 200,
        received_events: 3,
        received_chain: vec![1; 32],
        released_events: 3,
        released_chain: vec![1; 32],
        input_tokens: Some(5),
        output_tokens: Some(7),
        end: "completed".to_owned(),
        at_ms: NOW + 10_000,
        ..OutcomeClaim::default()
    };
    let statement = sign_claim(&claim, &key(1)).unwrap();
    let begun = CallBegun {
        call: claim.call.clone(),
        grant: claim.grant.clone(),
        admitted: 40 + u64::from(number),
        at_ms: NOW + 9_000,
        route: "/v1/chat/completions".to_owned(),
    };
    let ended = CallEnded {
        call: claim.call.clone(),
        grant: claim.grant.clone(),
        admitted: begun.admitted,
        at_ms: claim.at_ms,
        status: 200,
        received_events: 3,
        received_chain: vec![1; 32],
        released_events: 3,
        released_chain: vec![1; 32],
        released_bytes: 100,
        input_tokens: Some(5),
        output_tokens: Some(7),
        end: "completed".to_owned(),
        outcome: Digest::of(&statement.payload).as_bytes().to_vec(),
    };
    let record = OnRecord {
        grant: GRANT,
        admitted: begun.admitted,
        admitted_at: At::clamped(NOW + 9_000),
        hold: 1_000,
        end: Some(EndOnRecord {
            at: At::clamped(NOW + 10_001),
            code: "completed".to_owned(),
            released_events: 3,
            released_chain: vec![1; 32],
        }),
        abandoned: false,
        charged: Some(12),
        statement: Some(statement),
        outcome: Some(Ok(claim)),
    };
    (Kept { begun: Some(begun), ended: Some(ended) }, record)
}

fn list(calls: BTreeMap<CallId, Kept>) -> KeptList {
    KeptList { of: "aurora by lab-a".to_owned(), begins: At::clamped(NOW), first: 0, lines: 0, unsealed: 0, calls }
}

/// What comes of one call, given what happened to either side.
fn found(change: impl FnOnce(&mut Option<Kept>, &mut Option<OnRecord>)) -> Finding {
    let (kept, record) = pair(1);
    let (mut kept, mut record) = (Some(kept), Some(record));
    change(&mut kept, &mut record);
    let list = list(kept.into_iter().map(|kept| (call(1), kept)).collect());
    let ledger = record.into_iter().map(|record| (call(1), record)).collect();
    compared(&list, &ledger, None).pop().unwrap()
}

fn compared(list: &KeptList, ledger: &BTreeMap<CallId, OnRecord>, server: Option<&ServerLog>) -> Vec<Finding> {
    let own = BTreeSet::from([key(1).public_key().id().to_vec()]);
    compare(&Sides { list, read_at: At::clamped(NOW + 60_000), ledger, own: &own, server, whole: true })
}

fn unsigned(record: &mut OnRecord, code: &str, charged: u64) {
    (record.statement, record.outcome, record.charged) = (None, None, Some(charged));
    let end = record.end.as_mut().unwrap();
    (end.code, end.released_events) = (code.to_owned(), 0);
}

#[test]
fn the_same_on_both_sides_is_matched() {
    let finding = found(|_, _| {});
    assert_eq!((finding.standing, finding.call, finding.admitted), (Standing::Matched, Some(call(1)), Some(41)));
    assert!(finding.differs.is_empty() && !finding.standing.is_fault());
}

#[test]
fn each_field_that_differs_is_named() {
    type Change = fn(&mut CallEnded, &mut OnRecord);
    let cases: [(&[&str], Change); 12] = [
        (&["status"], |ended, _| ended.status = 500),
        (&["received_events"], |ended, _| ended.received_events = 4),
        (&["received_chain"], |ended, _| ended.received_chain = vec![2; 32]),
        (&["released_chain", "handed_on"], |ended, _| ended.released_chain = vec![2; 32]),
        (&["released_events", "handed_on"], |ended, _| ended.released_events = 2),
        (&["input_tokens", "charged"], |ended, _| ended.input_tokens = Some(6)),
        (&["output_tokens"], |ended, _| ended.output_tokens = None),
        (&["end", "end"], |ended, _| ended.end = "stream_lost".to_owned()),
        (&["outcome"], |ended, _| ended.outcome = vec![0; 32]),
        (&["admitted"], |ended, _| ended.admitted = 7),
        (&["handed_on"], |_, record| record.end.as_mut().unwrap().released_chain = vec![9; 32]),
        (&["charged"], |_, record| record.charged = Some(13)),
    ];
    for (names, change) in cases {
        let finding = found(|kept, record| {
            change(kept.as_mut().unwrap().ended.as_mut().unwrap(), record.as_mut().unwrap());
        });
        assert_eq!((finding.standing, finding.differs.as_slice()), (Standing::Different, names));
    }
    let other = found(|_, record| record.as_mut().unwrap().grant = GrantId::from_bytes([9; 16]));
    assert_eq!((other.standing, other.differs[0]), (Standing::Different, "grant"));
    let invalid = found(|_, record| record.as_mut().unwrap().outcome = Some(Err("no key".to_owned())));
    assert_eq!((invalid.standing, invalid.differs.as_slice()), (Standing::Different, ["outcome"].as_slice()));
    // No more than the hold is ever charged.
    let held = found(|_, record| {
        let record = record.as_mut().unwrap();
        (record.hold, record.charged) = (10, Some(10));
    });
    assert_eq!(held.standing, Standing::Matched);
}

#[test]
fn what_one_side_lacks_is_told_from_what_it_cannot_have() {
    let standing = |change: fn(&mut Option<Kept>, &mut Option<OnRecord>)| found(change).standing;
    assert_eq!(standing(|_, record| *record = None), Standing::OnlyHere);
    assert_eq!(standing(|kept, _| *kept = None), Standing::OnlyLedger);
    // Signed by another connector of the lab.
    let elsewhere = found(|kept, record| {
        *kept = None;
        let record = record.as_mut().unwrap();
        let claim = record.outcome.clone().unwrap().unwrap();
        record.statement = Some(sign_claim(&claim, &key(2)).unwrap());
    });
    assert_eq!(elsewhere.standing, Standing::Elsewhere);
    let before = found(|kept, record| {
        *kept = None;
        let Some(Ok(claim)) = &mut record.as_mut().unwrap().outcome else { return };
        claim.at_ms = NOW - 1;
    });
    assert_eq!(before.standing, Standing::Before);
    // The ledger says itself that the model was not asked, or charges although nobody signed.
    assert_eq!(
        standing(|kept, record| {
            *kept = None;
            unsigned(record.as_mut().unwrap(), "connector_refused", 0);
        }),
        Standing::NotServed
    );
    for code in ["connector_lost", "completed"] {
        let charged = u64::from(code != "completed") * 5;
        let finding = found(|kept, record| {
            *kept = None;
            unsigned(record.as_mut().unwrap(), code, charged);
        });
        assert_eq!(finding.standing, Standing::OnlyLedger, "{code}");
    }
    // Admitted after the list was read.
    let later = found(|kept, record| {
        *kept = None;
        let record = record.as_mut().unwrap();
        (record.end, record.charged, record.statement, record.outcome) = (None, None, None, None);
        record.admitted_at = At::clamped(NOW + 60_000);
    });
    assert_eq!(later.standing, Standing::Open);
}

#[test]
fn a_beginning_without_an_end_is_an_interruption_unless_an_outcome_was_signed() {
    let interrupted = found(|kept, record| {
        kept.as_mut().unwrap().ended = None;
        unsigned(record.as_mut().unwrap(), "connector_lost", 9);
    });
    assert_eq!(interrupted.standing, Standing::Interrupted);
    let lost = found(|kept, _| kept.as_mut().unwrap().ended = None);
    assert_eq!((lost.standing, lost.differs.as_slice()), (Standing::Different, ["end"].as_slice()));
    let open = found(|kept, record| {
        kept.as_mut().unwrap().ended = None;
        let record = record.as_mut().unwrap();
        (record.end, record.charged, record.statement, record.outcome) = (None, None, None, None);
    });
    assert_eq!(open.standing, Standing::Open);
    // Cut off before its outcome came: compared by what the broker says alone.
    let cut = found(|kept, record| {
        kept.as_mut().unwrap().ended.as_mut().unwrap().end = "stream_lost".to_owned();
        unsigned(record.as_mut().unwrap(), "connector_lost", 9);
    });
    assert_eq!((cut.standing, cut.note.is_some()), (Standing::Matched, true));
}

fn logged(text: &str) -> ServerLog {
    ServerLog::read(text.as_bytes()).unwrap()
}

fn one_of(log: &ServerLog) -> &Request {
    assert_eq!(log.requests.len(), 1, "{log:?}");
    &log.requests[0]
}

#[test]
fn lines_of_common_servers_are_read() {
    let id = call(1);
    let at = |text: &str| Some(text.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_millis());
    let cases = [
        (r#"INFO:     127.0.0.1:53004 - "POST /v1/chat/completions HTTP/1.1" 200 OK"#.to_owned(), None, Some(200), None),
        (
            r#"[2026-11-18 10:00:00] INFO:     127.0.0.1:53004 - "POST /v1/chat/completions HTTP/1.1" 503 Service Unavailable"#
                .to_owned(),
            None,
            Some(503),
            at("2026-11-18T10:00:00Z"),
        ),
        ("srv  log_server_r: request: POST /v1/chat/completions 127.0.0.1 200".to_owned(), None, Some(200), None),
        (
            format!("INFO 11-18 10:00:00 [logger.py:43] Received request chatcmpl-{id}: params: SamplingParams(n=1)"),
            Some(id),
            None,
            None,
        ),
        (
            format!(r#"10.0.0.1 - - [18/Nov/2026:10:00:00 +0200] "POST /v1/completions HTTP/1.1" 200 512 "-" "-" {id}"#),
            Some(id),
            Some(200),
            at("2026-11-18T08:00:00Z"),
        ),
        (
            format!(r#"{{"time":"2026-11-18T10:00:00.250Z","status":200,"path":"/v1/chat/completions","request":{{"headers":{{"x-request-id":"{id}"}}}}}}"#),
            Some(id),
            Some(200),
            at("2026-11-18T10:00:00.250Z"),
        ),
        (r#"{"ts":1795000000.5,"status_code":"429","path":"/v1/embeddings"}"#.to_owned(), None, Some(429), Some(NOW + 500)),
    ];
    for (line, call, status, ms) in cases {
        let log = logged(&format!("starting\n{line}\n"));
        let request = one_of(&log);
        assert_eq!((request.call, request.status, request.at.map(At::ms)), (call, status, ms), "{line}");
        assert_eq!((request.line, log.other_lines), (2, 1));
    }
    for line in
        ["", "GET /v1/models 200", r#"{"path":"/v1/models","status":200}"#, "POST /metrics 200", "{", "call-xyz"]
    {
        assert!(logged(line).requests.is_empty(), "{line}");
    }
    // A line of a hundred megabytes costs no more than its beginning.
    let long = format!("{}\nPOST /v1/completions 200\n", "x".repeat(1 << 20));
    assert_eq!(logged(&long).requests.len(), 1);
}

#[test]
fn the_servers_log_is_joined_by_name_and_what_nobody_asked_shows() {
    let (kept, record) = pair(1);
    let (other, other_record) = pair(2);
    let list = list(BTreeMap::from([(call(1), kept), (call(2), other)]));
    let ledger = BTreeMap::from([(call(1), record), (call(2), other_record)]);
    let stranger = CallId::new(NOW + 5_000, [9; 10]);
    let log = logged(&format!("{} received\n{} \"POST /v1/chat/completions\" 200\n{stranger}\n", call(1), call(1)));
    let findings = compared(&list, &ledger, Some(&log));
    let told: Vec<_> = findings.iter().map(|finding| (finding.call, finding.standing, finding.server)).collect();
    assert_eq!(
        told,
        [
            (Some(call(1)), Standing::Matched, Some(Joined::Named)),
            (Some(call(2)), Standing::Different, Some(Joined::Missing)),
            (Some(stranger), Standing::OnlyServer, None),
        ]
    );
    let log = logged(&format!("{} \"POST /v1/chat/completions\" 500\n{} x\n", call(1), call(2)));
    let findings = compared(&list, &ledger, Some(&log));
    assert_eq!(
        (findings[0].server, findings[0].differs.as_slice()),
        (Some(Joined::OtherStatus), ["server_status"].as_slice())
    );
    assert_eq!(findings[1].standing, Standing::Matched);
}

#[test]
fn a_log_without_names_is_joined_by_time_and_status() {
    let (kept, record) = pair(1);
    let list = list(BTreeMap::from([(call(1), kept)]));
    let ledger = BTreeMap::from([(call(1), record)]);
    let line = |seconds: i64, status: u16| {
        let at = NOW / 1_000 + seconds;
        format!(r#"{{"ts":{at},"status":{status},"path":"/v1/chat/completions"}}"#)
    };
    let server = |lines: &[String]| {
        let findings = compared(&list, &ledger, Some(&logged(&lines.join("\n"))));
        let extra = findings.iter().filter(|finding| finding.standing == Standing::OnlyServer).count();
        (findings[0].server, extra)
    };
    assert_eq!(server(&[line(10, 200)]), (Some(Joined::Timed), 0));
    assert_eq!(server(&[line(10, 200), line(11, 200)]), (Some(Joined::Timed), 1), "one request is one call");
    assert_eq!(server(&[line(10, 500), line(11, 200), line(30, 200)]).0, Some(Joined::Timed));
    assert_eq!(server(&[line(5, 200), line(30, 200)]), (Some(Joined::Missing), 2));
    assert_eq!(server(&[line(30, 200)]).0, Some(Joined::Unknown), "the log begins later");
    // Neither names nor times: nothing is claimed.
    assert_eq!(server(&["POST /v1/completions 200".to_owned()]), (Some(Joined::Unknown), 0));
    // One request is no two calls.
    let ((kept, record), (other, other_record)) = (pair(1), pair(2));
    let both = self::list(BTreeMap::from([(call(1), kept), (call(2), other)]));
    let ledger = BTreeMap::from([(call(1), record), (call(2), other_record)]);
    let log = logged(&format!("{}\n{}\n", line(10, 200), line(60, 404)));
    let servers: Vec<_> = compared(&both, &ledger, Some(&log)).iter().filter_map(|finding| finding.server).collect();
    assert_eq!(servers, [Joined::Timed, Joined::Missing]);
}
