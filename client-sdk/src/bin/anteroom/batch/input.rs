//! The file of requests.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anteroom_sdk::{channel::MESSAGE_BYTES_MAX, evaluator::Route};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fail::Fail;

/// Most requests of one file.
const REQUESTS_MAX: usize = 1_000_000;
/// Most bytes of their bodies together: all are in memory.
const BODIES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest name of a request in bytes.
const CUSTOM_ID_BYTES_MAX: usize = 256;

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// What its author calls it; unique in the file.
    pub(crate) custom_id: String,
    pub(crate) route: Route,
    /// As it stands in the file, byte for byte.
    pub(crate) body: Bytes,
}

#[derive(Deserialize)]
struct Written<'a> {
    custom_id: String,
    #[serde(default)]
    method: Option<String>,
    url: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Reads all of them; a line that is no request refuses the file before any call is made.
pub(crate) fn read(path: &Path) -> Result<Vec<Request>, Fail> {
    let file = File::open(path).map_err(|why| Fail::Local(format!("`{}`: {why}", path.display())))?;
    parse(BufReader::new(file)).map_err(|why| Fail::Usage(format!("`{}`: {why}", path.display())))
}

fn parse(mut input: impl BufRead) -> Result<Vec<Request>, String> {
    let (mut requests, mut names, mut line, mut bytes) = (Vec::new(), HashSet::new(), Vec::new(), 0_usize);
    let longest = u64::try_from(MESSAGE_BYTES_MAX).unwrap_or(u64::MAX);
    for number in 1_u64.. {
        line.clear();
        let read = input.by_ref().take(longest).read_until(b'\n', &mut line).map_err(|why| why.to_string())?;
        if read == 0 {
            break;
        }
        if !line.ends_with(b"\n") && u64::try_from(read).is_ok_and(|read| read >= longest) {
            return Err(format!("line {number} has more than {longest} bytes"));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let request = request(&line).map_err(|why| format!("line {number}: {why}"))?;
        if !names.insert(request.custom_id.clone()) {
            return Err(format!("line {number}: the `custom_id` `{}` is there twice", request.custom_id));
        }
        bytes = bytes.saturating_add(request.body.len());
        if requests.len() >= REQUESTS_MAX || bytes > BODIES_BYTES_MAX {
            return Err(format!(
                "there are more than {REQUESTS_MAX} requests or {BODIES_BYTES_MAX} bytes of bodies; split the file"
            ));
        }
        requests.push(request);
    }
    Ok(requests)
}

fn request(line: &[u8]) -> Result<Request, String> {
    let written: Written<'_> = serde_json::from_slice(line).map_err(|why| why.to_string())?;
    if written.custom_id.is_empty() || written.custom_id.len() > CUSTOM_ID_BYTES_MAX {
        return Err(format!("a `custom_id` has 1 to {CUSTOM_ID_BYTES_MAX} bytes"));
    }
    if written.method.as_deref().is_some_and(|method| method != "POST") {
        return Err("the `method` of a request is POST".to_owned());
    }
    let route = match written.url.as_str() {
        "/v1/chat/completions" => Route::Chat,
        "/v1/completions" => Route::Completions,
        "/v1/embeddings" => Route::Embeddings,
        "/v1/responses" => Route::Responses,
        "/v1/messages" => Route::Messages,
        _ => {
            return Err("the `url` is one of /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, \
                        /v1/messages"
                .to_owned());
        }
    };
    #[derive(Deserialize)]
    struct Asked {
        #[serde(default)]
        stream: Option<bool>,
    }
    if !written.body.get().starts_with('{') {
        return Err("`body` is an object".to_owned());
    }
    let asked: Asked = serde_json::from_str(written.body.get()).map_err(|why| format!("`body`: {why}"))?;
    if asked.stream == Some(true) {
        return Err("a request of a batch is answered whole: leave `stream` out".to_owned());
    }
    Ok(Request { custom_id: written.custom_id, route, body: Bytes::copy_from_slice(written.body.get().as_bytes()) })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests stop at the first surprise")]

    use super::*;

    fn told(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn bodies_are_kept_byte_for_byte() {
        let text =
            "{\"custom_id\": \"a\", \"url\": \"/v1/chat/completions\", \"body\": {\"model\" : \"m\",\"x\":1e2}}\n\n";
        let requests = parse(text.as_bytes()).unwrap();
        let [request] = requests.as_slice() else { panic!("one request, not {}", requests.len()) };
        assert_eq!(&request.body[..], br#"{"model" : "m","x":1e2}"#);
        assert_eq!(request.route, Route::Chat);
        let message = parse("{\"custom_id\":\"b\",\"url\":\"/v1/messages\",\"body\":{}}".as_bytes()).unwrap();
        assert_eq!(message.first().map(|request| request.route), Some(Route::Messages));
    }

    #[test]
    fn a_line_that_is_no_request_is_named() {
        let good = "{\"custom_id\":\"a\",\"url\":\"/v1/embeddings\",\"body\":{}}\n";
        assert!(told(&format!("{good}{good}")).contains("line 2") && told(&format!("{good}{good}")).contains("twice"));
        assert!(told("nonsense\n").contains("line 1"));
        assert!(told("{\"custom_id\":\"\",\"url\":\"/v1/embeddings\",\"body\":{}}").contains("custom_id"));
        assert!(told("{\"custom_id\":\"a\",\"url\":\"/v1/files\",\"body\":{}}").contains("url"));
        assert!(
            told("{\"custom_id\":\"a\",\"method\":\"GET\",\"url\":\"/v1/embeddings\",\"body\":{}}").contains("POST")
        );
        let streams = "{\"custom_id\":\"a\",\"url\":\"/v1/responses\",\"body\":{\"stream\":true}}";
        assert!(told(streams).contains("stream"));
        assert!(told("{\"custom_id\":\"a\",\"url\":\"/v1/responses\",\"body\":[]}").contains("body"));
    }
}
