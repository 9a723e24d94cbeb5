//! What is sent: the same few facts as JSON for webhooks and as a short mail.

use anteroom_policy::notices::Notice;
use anteroom_proto::{names::Digest, statement::contacts::MailAddress};
use chrono::{DateTime, Utc};
use serde::Serialize;

/// A message. Absent fields are left out; the set of fields only grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Message {
    version: u32,
    origin: String,
    /// The same whenever it is sent again; with the origin and the organisation it names the message.
    notice: String,
    kind: &'static str,
    text: &'static str,
    org: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<u64>,
    due: String,
    due_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_ms: Option<i64>,
    next: String,
}

impl Message {
    pub(super) fn new(origin: &str, notice: &Notice) -> Self {
        Self {
            version: 1,
            origin: origin.to_owned(),
            notice: notice.id.clone(),
            kind: notice.kind.as_str(),
            text: notice.kind.text(),
            org: notice.org.to_string(),
            grant: notice.grant.map(|grant| grant.to_string()),
            record: notice.record,
            due: notice.due.to_string(),
            due_ms: notice.due.ms(),
            ends: notice.ends.map(|ends| ends.to_string()),
            ends_ms: notice.ends.map(|ends| ends.ms()),
            next: notice.next(),
        }
    }

    /// The notice's identifier.
    pub(super) fn id(&self) -> &str {
        &self.notice
    }

    /// As JSON.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As a mail, whole. Sent again it has the same `Message-ID`.
    pub(super) fn mail(&self, from: &MailAddress, to: &MailAddress) -> String {
        let name = Digest::of(format!("{}\n{}\n{}", self.origin, self.org, self.notice).as_bytes()).to_string();
        let domain = from.as_str().rsplit('@').next().unwrap_or_default();
        let date = DateTime::<Utc>::from_timestamp_millis(self.due_ms).unwrap_or_default().to_rfc2822();
        let mut lines = vec![
            format!("From: Anteroom <{}>", from.as_str()),
            format!("To: <{}>", to.as_str()),
            format!("Subject: Anteroom: {}", self.text),
            format!("Date: {date}"),
            format!("Message-ID: <{}@{domain}>", name.get(..32).unwrap_or_default()),
            "Auto-Submitted: auto-generated".to_owned(),
            format!("X-Anteroom-Notice: {}", self.notice),
            "MIME-Version: 1.0".to_owned(),
            "Content-Type: text/plain; charset=us-ascii".to_owned(),
            String::new(),
            format!("{}.", self.text),
            String::new(),
        ];
        let mut fact = |name: &str, value: Option<String>| {
            lines.extend(value.map(|value| format!("{name:<8} {value}")));
        };
        fact("grant", self.grant.clone());
        fact("instant", self.ends.clone());
        fact("record", self.record.map(|index| index.to_string()));
        fact("came up", Some(self.due.clone()));
        fact("notice", Some(self.notice.clone()));
        fact("log", Some(self.origin.clone()));
        fact("told", Some(self.org.clone()));
        lines.extend([
            String::new(),
            format!("Next: {}", self.next),
            String::new(),
            "This message proves nothing. What it is about can be read and verified in the log".to_owned(),
            "by the record's number, and what was sent by `anteroom org notices`.".to_owned(),
        ]);
        // Lines are made here and nowhere else; what a name could hold beside visible ASCII is not let through.
        let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        lines.iter().map(|line| line.chars().map(plain).chain("\r\n".chars()).collect::<String>()).collect()
    }
}
