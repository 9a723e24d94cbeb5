//! What every response says beside its body, and what a request may say about itself.

use anteroom_policy::marking::banner;
use anteroom_proto::{
    names::{CallId, GrantId},
    rpc::Marking,
    time::At,
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, RETRY_AFTER},
};

use super::{
    dialect::Dialect,
    reply::{Again, Problem},
};
use crate::evaluator::Label;

/// The join between a tool's log and the ledger: the call, once there is one.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same as clients of the Anthropic dialect know it.
const PLAIN_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// What some tools call a request by.
const IRID: HeaderName = HeaderName::from_static("x-irid");
const CALL: HeaderName = HeaderName::from_static("x-anteroom-call");
const RECEIPT: HeaderName = HeaderName::from_static("x-anteroom-receipt");
const GRANT: HeaderName = HeaderName::from_static("x-anteroom-grant");
const GRANT_END: HeaderName = HeaderName::from_static("x-anteroom-grant-end");
const BUILD: HeaderName = HeaderName::from_static("x-anteroom-build");
const BUILD_SINCE: HeaderName = HeaderName::from_static("x-anteroom-build-since");
const BUDGET_LEFT: HeaderName = HeaderName::from_static("x-anteroom-budget-left");
/// In a request it raises what the call is declared as; in a response it says what the answer has to be handled as.
pub(super) const MARKING: HeaderName = HeaderName::from_static("x-anteroom-marking");
const ASSERTION: HeaderName = HeaderName::from_static("x-anteroom-assertion");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Longest name of a client's that is logged.
const NAME_CHARS_MAX: usize = 128;

/// What is known of a request when it is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The call, if one was made or refused.
    pub(super) call: Option<CallId>,
    /// Index of the call's admission in the log.
    pub(super) receipt: Option<u64>,
    /// The grant.
    pub(super) grant: Option<GrantId>,
    /// Its end.
    pub(super) end: Option<At>,
    /// What was left of its budget when the broker was asked last.
    pub(super) left: Option<(u64, u64)>,
    /// The builds that new calls go to, by their manifests' digests.
    pub(super) builds: Vec<String>,
    /// Since when, if another one answered before: behaviour may have changed.
    pub(super) since: Option<At>,
    /// How the answer has to be handled.
    pub(super) label: Option<Label>,
}

impl Known {
    pub(super) fn write(&self, request: &str, dialect: Dialect, headers: &mut HeaderMap) {
        let call = self.call.map(|call| call.to_string());
        set(headers, REQUEST_ID, call.as_deref().unwrap_or(request));
        if dialect == Dialect::Anthropic {
            set(headers, PLAIN_REQUEST_ID, call.as_deref().unwrap_or(request));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(call) = &call {
            set(headers, CALL, call);
        }
        if let Some(index) = self.receipt {
            set(headers, RECEIPT, &index.to_string());
        }
        if let Some(grant) = self.grant {
            set(headers, GRANT, &grant.to_string());
        }
        if let Some(end) = self.end {
            set(headers, GRANT_END, &end.to_string());
        }
        if let Some((calls, tokens)) = self.left {
            set(headers, BUDGET_LEFT, &format!("calls={calls}, tokens={tokens}"));
        }
        if !self.builds.is_empty() {
            set(headers, BUILD, &self.builds.join(", "));
        }
        if let Some(since) = self.since {
            set(headers, BUILD_SINCE, &since.to_string());
        }
        if let Some(label) = &self.label {
            set(headers, MARKING, &banner(&label.marking));
            if let Some(assertion) = &label.assertion {
                set(headers, ASSERTION, &escaped(assertion));
            }
        }
    }
}

/// Whether and when to come again.
pub(super) fn again(problem: &Problem, headers: &mut HeaderMap) {
    if problem.again() == Again::Never {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Some(seconds) = problem.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A text that any header can carry: what is not printable ASCII stands as `%` and two digits for each byte.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// What the client calls its request, for the log.
pub(super) fn named_by_client(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(IRID).or_else(|| headers.get(REQUEST_ID))?.to_str().ok()?;
    let name: String = name.chars().filter(char::is_ascii_graphic).take(NAME_CHARS_MAX).collect();
    (!name.is_empty()).then_some(name)
}

/// The marking that a request declares; `Err` if it cannot be read.
pub(super) fn declared(headers: &HeaderMap) -> Result<Option<Marking>, ()> {
    let mut values = headers.get_all(MARKING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let text = value.to_str().map_err(|_| ())?;
    anteroom_policy::marking::parse(text).map(Some).ok_or(())
}

#[cfg(test)]
mod tests {
    use anteroom_policy::refusal::Refusal;

    use super::*;

    fn shown(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect()
    }

    #[test]
    fn a_call_says_which_it_is_and_how_it_has_to_be_handled() {
        let mut headers = HeaderMap::new();
        let known = Known {
            call: Some(CallId::new(0, [7; 10])),
            receipt: Some(42),
            grant: Some(GrantId::from_bytes([1; 16])),
            end: Some(At::clamped(1_795_000_000_000)),
            left: Some((9, 1_000)),
            builds: vec!["0b".repeat(32)],
            since: Some(At::clamped(1_794_000_000_000)),
            label: Some(Label {
                marking: Marking { level: 1, caveats: vec!["PROPIN".to_owned()], rel_to: Vec::new() },
                assertion: Some("exempt, 5 U.S.C. § 552 (100%)\n".to_owned()),
            }),
        };
        known.write("request-1", Dialect::OpenAi, &mut headers);
        assert_eq!(
            shown(&headers),
            [
                "x-request-id: call-00000000000007070707070707070707",
                "cache-control: no-store",
                "x-anteroom-call: call-00000000000007070707070707070707",
                "x-anteroom-receipt: 42",
                "x-anteroom-grant: grant-01010101010101010101010101010101",
                "x-anteroom-grant-end: 2026-11-18T11:06:40.000Z",
                "x-anteroom-budget-left: calls=9, tokens=1000",
                "x-anteroom-build: 0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
                "x-anteroom-build-since: 2026-11-06T21:20:00.000Z",
                "x-anteroom-marking: CUI//PROPIN",
                "x-anteroom-assertion: exempt, 5 U.S.C. %C2%A7 552 (100%25)%0A",
            ]
        );
    }

    #[test]
    fn every_response_has_an_identifier_and_says_whether_to_come_again() {
        let mut headers = HeaderMap::new();
        Known::default().write("request-1", Dialect::OpenAi, &mut headers);
        again(&Problem::of(Refusal::GrantExpired), &mut headers);
        assert_eq!(shown(&headers), ["x-request-id: request-1", "cache-control: no-store", "x-should-retry: false"]);
        let mut headers = HeaderMap::new();
        again(&Problem::of(Refusal::BudgetHeld), &mut headers);
        assert_eq!(shown(&headers), ["retry-after: 2"]);
        let mut headers = HeaderMap::new();
        Known::default().write("request-1", Dialect::Anthropic, &mut headers);
        let both = ["x-request-id: request-1", "request-id: request-1", "cache-control: no-store"];
        assert_eq!(shown(&headers), both);
    }

    #[test]
    fn what_a_client_says_is_read_with_care() {
        let mut headers = HeaderMap::new();
        assert_eq!((named_by_client(&headers), declared(&headers)), (None, Ok(None)));
        set(&mut headers, REQUEST_ID, "from-a-tool");
        assert_eq!(named_by_client(&headers).as_deref(), Some("from-a-tool"));
        set(&mut headers, IRID, &format!("a b{}", "c".repeat(500)));
        assert_eq!(named_by_client(&headers).map(|name| name.len()), Some(NAME_CHARS_MAX));
        set(&mut headers, MARKING, "CUI//NOFORN");
        assert!(declared(&headers).is_ok_and(|marking| marking.is_some_and(|marking| marking.level == 1)));
        headers.append(MARKING, HeaderValue::from_static("CUI"));
        assert_eq!(declared(&headers), Err(()));
        set(&mut headers, MARKING, "TOP SECRET");
        assert_eq!(declared(&headers), Err(()));
    }
}
