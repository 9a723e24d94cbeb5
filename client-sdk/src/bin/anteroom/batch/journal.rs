//! What a batch remembers: calls that were begun, and lines that were settled.
//!
//! Two files: `OUT`, for whoever wants the answers, and `OUT.calls`, for the next start: one line for each call before it leaves.
//!
//! **Invariant:** both are appended to and synced; a last line that is cut short, as a crash leaves it, is taken for not written.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anteroom_proto::names::CallId;
use anteroom_sdk::{error::Refused, evaluator::Answer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::input::Request;
use crate::fail::Fail;

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The model answered, with whatever status.
    Answered,
    /// The broker refused it for good.
    Refused,
    /// It was made and charged, and its answer was lost on the way.
    Lost,
}

/// A line of the answers.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    custom_id: String,
    outcome: Outcome,
    call: CallId,
    /// Index of the admission in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<u64>,
    /// How the answer has to be handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    marking: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Said>,
}

/// An answer as the OpenAI batch interface has it.
#[derive(Debug, Serialize)]
struct Response {
    status_code: u32,
    request_id: CallId,
    body: Box<RawValue>,
}

#[derive(Debug, Serialize)]
struct Said {
    code: String,
    message: String,
}

impl Line {
    /// Of an answer.
    pub(super) fn answered(request: &Request, answer: &Answer) -> Self {
        let call = answer.call.receipt().call();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        // What is no JSON, or has lines of its own, is told as a text.
        let body = match serde_json::from_str::<&RawValue>(&text) {
            Ok(json) if !json.get().contains('\n') => RawValue::from_string(json.get().to_owned()),
            Ok(json) => serde_json::from_str(json.get())
                .and_then(|value: serde_json::Value| serde_json::value::to_raw_value(&value)),
            Err(_) => serde_json::value::to_raw_value(&text),
        };
        let cut = answer.call.end();
        let error =
            (cut != "completed").then(|| Said { code: cut.to_owned(), message: "the answer was cut".to_owned() });
        Self {
            custom_id: request.custom_id.clone(),
            outcome: Outcome::Answered,
            call,
            receipt: Some(answer.call.receipt().admitted().header().index),
            marking: answer.label.line(),
            response: body.ok().map(|body| Response { status_code: answer.status, request_id: call, body }),
            error,
        }
    }

    /// Of a refusal.
    pub(super) fn refused(request: &Request, call: CallId, refused: &Refused) -> Self {
        Self::without(
            request,
            call,
            Outcome::Refused,
            Said { code: refused.code.clone(), message: refused.text.clone() },
        )
    }

    /// Of a call that is on record and whose answer nobody has.
    pub(super) fn lost(request: &Request, call: CallId, state: &str) -> Self {
        let message =
            format!("the call is on record as `{state}` and its answer was lost; `--again-lost` makes it anew");
        Self::without(request, call, Outcome::Lost, Said { code: "answer_lost".to_owned(), message })
    }

    fn without(request: &Request, call: CallId, outcome: Outcome, error: Said) -> Self {
        Self {
            custom_id: request.custom_id.clone(),
            outcome,
            call,
            receipt: None,
            marking: None,
            response: None,
            error: Some(error),
        }
    }

    pub(super) const fn outcome(&self) -> Outcome {
        self.outcome
    }
}

/// What is known from an earlier start.
#[derive(Debug, Default)]
pub(super) struct Known {
    outcomes: HashMap<String, Outcome>,
    calls: HashMap<String, CallId>,
}

impl Known {
    pub(super) fn outcome(&self, custom_id: &str) -> Option<Outcome> {
        self.outcomes.get(custom_id).copied()
    }

    pub(super) fn call(&self, custom_id: &str) -> Option<CallId> {
        self.calls.get(custom_id).copied()
    }
}

/// Both files, held by one process.
#[derive(Debug)]
pub(super) struct Journal {
    answers: File,
    calls: File,
}

#[derive(Serialize, Deserialize)]
struct Begun {
    custom_id: String,
    call: CallId,
}

impl Journal {
    /// Opens or makes both, and reads what they hold.
    pub(super) fn open(out: &Path) -> Result<(Self, Known), Fail> {
        #[derive(Deserialize)]
        struct Settled {
            custom_id: String,
            outcome: Outcome,
        }
        let mut known = Known::default();
        let beside = {
            let mut name = out.as_os_str().to_owned();
            name.push(".calls");
            PathBuf::from(name)
        };
        let calls = appended::<Begun>(&beside, |begun| {
            known.calls.insert(begun.custom_id, begun.call);
        })?;
        calls.try_lock().map_err(|_| Fail::Local(format!("another batch writes `{}`", out.display())))?;
        let answers = appended::<Settled>(out, |settled| {
            known.outcomes.insert(settled.custom_id, settled.outcome);
        })?;
        Ok((Self { answers, calls }, known))
    }

    /// Notes that a call leaves; when this returns it is on disk.
    pub(super) fn begin(&mut self, custom_id: &str, call: CallId) -> Result<CallId, Fail> {
        append(&mut self.calls, &Begun { custom_id: custom_id.to_owned(), call })?;
        Ok(call)
    }

    /// Writes a line; when this returns it is on disk.
    pub(super) fn settle(&mut self, line: &Line) -> Result<(), Fail> {
        append(&mut self.answers, line)
    }
}

fn append(file: &mut File, line: &impl Serialize) -> Result<(), Fail> {
    let mut bytes = serde_json::to_vec(line).map_err(|why| Fail::Local(why.to_string()))?;
    bytes.push(b'\n');
    file.write_all(&bytes)?;
    Ok(file.sync_data()?)
}

/// Opens a file of lines for appending, after reading them. What a crash left of a last line is cut off.
fn appended<T: for<'de> Deserialize<'de>>(path: &Path, mut each: impl FnMut(T)) -> Result<File, Fail> {
    let local = |why: std::io::Error| Fail::Local(format!("`{}`: {why}", path.display()));
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(local)?;
    let (mut whole, mut line) = (0_u64, Vec::new());
    let mut reader = BufReader::new(&file);
    for number in 1_u64.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(local)?;
        if read == 0 || !line.ends_with(b"\n") {
            break;
        }
        let read_line = serde_json::from_slice(&line);
        each(read_line.map_err(|why| {
            Fail::Usage(format!("`{}` is no file of this batch: line {number}: {why}", path.display()))
        })?);
        whole = whole.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    if file.metadata().map_err(local)?.len() > whole {
        file.set_len(whole).map_err(local)?;
    }
    file.seek(SeekFrom::End(0)).map_err(local)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_sdk::evaluator::Route;
    use bytes::Bytes;

    use super::*;

    fn request(custom_id: &str) -> Request {
        Request { custom_id: custom_id.to_owned(), route: Route::Chat, body: Bytes::from_static(b"{}") }
    }

    #[test]
    fn what_was_begun_and_settled_is_known_at_the_next_start_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("x.answers.jsonl");
        let call = CallId::new(1, [7; 10]);
        {
            let (mut journal, _) = Journal::open(&out).unwrap();
            journal.begin("a", call).unwrap();
            journal.begin("b", call).unwrap();
            journal.settle(&Line::lost(&request("a"), call, "open")).unwrap();
            assert!(Journal::open(&out).is_err(), "one batch at a time");
        }
        let mut torn = std::fs::read(&out).unwrap();
        torn.extend(b"{\"custom_id\":\"b\",\"outc");
        std::fs::write(&out, torn).unwrap();
        let (mut journal, known) = Journal::open(&out).unwrap();
        assert_eq!((known.outcome("a"), known.outcome("b")), (Some(Outcome::Lost), None));
        assert_eq!(known.call("b"), Some(call));
        journal.settle(&Line::lost(&request("b"), call, "open")).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&out).unwrap().1.outcome("b"), Some(Outcome::Lost));
    }

    #[test]
    fn another_file_is_not_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("notes.txt");
        std::fs::write(&out, "dear diary\n").unwrap();
        assert!(Journal::open(&out).is_err());
        assert_eq!(std::fs::read(&out).unwrap(), b"dear diary\n");
    }
}
