//! What a request asks for: the part of its address behind the question mark, read strictly.
//!
//! **Invariant:** every name is known, stands there once and has a bound, so that nothing that was meant as a filter is passed over.

use std::collections::BTreeMap;

use anteroom_proto::{names::CallId, time::At};
use http::StatusCode;

use super::reply::Problem;
use crate::search::{Dimension, Group, Query};

/// Longest value in bytes.
const VALUE_BYTES_MAX: usize = 1_024;
/// Most rows of a page.
const ROWS_MAX: usize = 200;
/// Rows of a page unless asked otherwise.
const ROWS_USUAL: usize = 50;
/// Longest interval in hours.
const HOURS_MAX: i64 = 8_760;

/// The pairs behind a question mark.
#[derive(Debug)]
pub(super) struct Asked(BTreeMap<String, String>);

impl Asked {
    pub(super) fn read(text: Option<&str>) -> Result<Self, Problem> {
        let mut pairs = BTreeMap::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                return Err(invalid("a part of the query is no text"));
            };
            if value.len() > VALUE_BYTES_MAX {
                return Err(invalid(&format!("`{name}` has more than {VALUE_BYTES_MAX} bytes")));
            }
            // An empty field of a form is no filter.
            if !value.is_empty() && pairs.insert(name, value).is_some() {
                return Err(invalid("a part of the query stands there twice"));
            }
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn parse<T: std::str::FromStr>(&mut self, name: &str, what: &str) -> Result<Option<T>, Problem> {
        let read = |text: String| text.parse().map_err(|_| invalid(&format!("`{name}` is no {what}")));
        self.take(name).map(read).transpose()
    }

    fn instant(&mut self, name: &str) -> Result<Option<At>, Problem> {
        let read = |text: String| {
            At::parse_rfc3339(&text)
                .map_err(|_| invalid(&format!("`{name}` is no instant such as 2026-11-01T00:00:00Z")))
        };
        self.take(name).map(read).transpose()
    }

    /// The filters.
    pub(super) fn query(&mut self) -> Result<Query, Problem> {
        let group = match self.take("group").as_deref() {
            None => None,
            Some("call") => Some(Group::Call),
            Some("refusal") => Some(Group::Refusal),
            Some("other") => Some(Group::Other),
            Some(_) => return Err(invalid("`group` is `call`, `refusal` or `other`")),
        };
        Ok(Query {
            group,
            kind: self.take("kind"),
            grant: self.take("grant"),
            run: self.take("run"),
            line: self.take("line"),
            org: self.take("org"),
            person: self.take("person"),
            outcome: self.take("outcome"),
            rule: self.take("rule"),
            marking: self.take("marking"),
            feature: self.take("feature"),
            route: self.take("route"),
            call: self.parse::<CallId>("call", "call's identifier")?,
            from: self.instant("from")?,
            to: self.instant("to")?,
        })
    }

    /// Where a page begins.
    pub(super) fn before(&mut self) -> Result<Option<u64>, Problem> {
        self.parse("before", "row's number")
    }

    /// Where a page begins, and how many rows it has.
    pub(super) fn page(&mut self) -> Result<(Option<u64>, usize), Problem> {
        let before = self.before()?;
        let limit = self.parse::<usize>("limit", "number")?.unwrap_or(ROWS_USUAL);
        if limit == 0 || limit > ROWS_MAX {
            return Err(invalid(&format!("`limit` is a number from 1 to {ROWS_MAX}")));
        }
        Ok((before, limit))
    }

    /// By what is summed, and by how many hours; 0 means that all time is one.
    pub(super) fn sums(&mut self) -> Result<(Dimension, i64), Problem> {
        let by = match self.take("by").as_deref() {
            None => Dimension::Nothing,
            Some("grant") => Dimension::Grant,
            Some("run") => Dimension::Run,
            Some("person") => Dimension::Person,
            Some("lab") => Dimension::Lab,
            Some("agency") => Dimension::Agency,
            Some("line") => Dimension::Line,
            Some("outcome") => Dimension::Outcome,
            Some("rule") => Dimension::Rule,
            Some("marking") => Dimension::Marking,
            Some("feature") => Dimension::Feature,
            Some("route") => Dimension::Route,
            Some("kind") => Dimension::Kind,
            Some(_) => return Err(invalid("`by` names nothing that can be summed by")),
        };
        let hours = self.parse::<i64>("every", "number of hours")?.unwrap_or(0);
        if !(0..=HOURS_MAX).contains(&hours) {
            return Err(invalid(&format!("`every` is a number of hours up to {HOURS_MAX}")));
        }
        Ok((by, hours))
    }

    /// Demands that nothing is left over.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid(&format!("`{}` is nothing that can be asked", name.escape_debug()))),
        }
    }
}

fn invalid(text: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "query_invalid", text)
}

/// Text out of its form in addresses.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let value = data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?;
                bytes.extend(value);
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn filters_are_read_out_of_an_address() {
        let text = "group=call&grant=&person=a%20b%2Bc+d&outcome=%E2%80%AE&from=2026-11-01T00:00:00Z&limit=7&before=9";
        let mut asked = Asked::read(Some(text)).unwrap();
        let query = asked.query().unwrap();
        assert_eq!((query.group, query.grant), (Some(Group::Call), None));
        assert_eq!(query.person.as_deref(), Some("a b+c d"));
        assert_eq!(query.outcome.as_deref(), Some("\u{202e}"));
        assert!(query.from.is_some());
        assert_eq!(asked.page().unwrap(), (Some(9), 7));
        asked.end().unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_never_passed_over() {
        let long = format!("run={}", "x".repeat(VALUE_BYTES_MAX + 1));
        for text in [
            "group=calls",
            "call=7",
            "from=yesterday",
            "run=a&run=b",
            "run=%zz",
            "run=%e2%80",
            "run=%2",
            "limit=0",
            "limit=201",
            "before=-1",
            "by=colour",
            "every=-1",
            "every=9000",
            "grnat=x",
            &long,
        ] {
            let whole = || -> Result<(), Problem> {
                let mut asked = Asked::read(Some(text))?;
                asked.query()?;
                asked.page()?;
                asked.sums()?;
                asked.end()
            };
            assert_eq!(whole().map_err(|problem| problem.code), Err("query_invalid"), "{text}");
        }
    }
}
