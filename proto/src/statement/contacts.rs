//! Where an organisation wants to be told that something waits for it or ends.
//!
//! **Invariant:** a destination that was parsed has one meaning to whoever sends to it: visible ASCII, no display name, no user
//! information, no fragment, no line break, no spelling of an IP address but the usual one. What stands here is no secret: the
//! statement is recorded.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Payload, StatementError};
use crate::names::{ContactId, Digest, OrgId};

/// Most contacts of one organisation.
pub const CONTACTS_MAX: usize = 16;
/// Longest mail address in bytes.
pub const MAIL_BYTES_MAX: usize = 254;
/// Longest webhook in bytes.
pub const WEBHOOK_BYTES_MAX: usize = 512;

/// An organisation says where it wants to be told; signed by its signers. The list takes the place of the one before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contacts {
    /// The organisation.
    pub by: OrgId,
    /// Its contacts; none ends all notices.
    pub contacts: Vec<Contact>,
    /// SHA-256 of the statement that this one takes the place of; absent for the first.
    pub previous: Option<Digest>,
}

impl Payload for Contacts {
    const TYPE: &'static str = "application/vnd.anteroom.contacts.v1+json";
}

impl Contacts {
    /// Whether the list is within its bounds.
    ///
    /// # Errors
    /// It has too many contacts, two of one name, or a contact names one kind of notice twice.
    pub fn check(&self) -> Result<(), StatementError> {
        let fail = |why| Err(StatementError::Field { field: "contacts", why });
        if self.contacts.len() > CONTACTS_MAX {
            return fail("at most 16 are expected");
        }
        for (at, contact) in self.contacts.iter().enumerate() {
            if self.contacts.iter().skip(at + 1).any(|other| other.id == contact.id) {
                return fail("two have the same id");
            }
            let named = &contact.notices;
            if named.iter().enumerate().any(|(at, kind)| named.iter().skip(at + 1).any(|other| other == kind)) {
                return fail("a kind of notice stands there twice");
            }
        }
        Ok(())
    }
}

/// One place to tell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// What the organisation calls it; records name it by this.
    pub id: ContactId,
    /// Where notices go.
    pub to: Destination,
    /// Which kinds; none named means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<NoticeKind>,
}

impl Contact {
    /// Whether it wants to be told of this.
    #[must_use]
    pub fn wants(&self, kind: NoticeKind) -> bool {
        self.notices.is_empty() || self.notices.contains(&kind)
    }
}

macro_rules! notices {
    ($($variant:ident $name:literal $text:literal;)*) => {
        /// What a notice is about. It holds no content, no name of a person and no reason.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum NoticeKind {
            $(#[doc = $text] #[serde(rename = $name)] $variant,)*
        }

        impl NoticeKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in statements, records and messages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What happened, for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The kind of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
            }
        }
    };
}

notices! {
    OfferWaiting "offer_waiting" "an offer waits for this agency's answer";
    EndsIn72h "ends_in_72h" "the grant ends in 72 hours";
    EndsIn24h "ends_in_24h" "the grant ends in 24 hours";
    EndsIn1h "ends_in_1h" "the grant ends in one hour";
    Paused "paused" "a side paused the grant";
    Resumed "resumed" "a side resumed the grant";
    Withdrawn "withdrawn" "the lab withdrew the grant";
    Relinquished "relinquished" "the agency gave the grant back";
    Expired "expired" "the grant's window ended";
    ClosingBundle "closing_bundle" "the grant is over and each of its calls has an end: it can be closed";
    SuccessionOffered "succession_offered" "the lab offered that another build take the place of one";
    BehaviourChanged "behaviour_changed" "the model server reported another build than before";
    ClockAlarm "clock_alarm" "the broker's clock is not trusted: no calls pass";
    SinkLag "sink_lag" "a sink of the broker has not taken its rows for a while";
}

/// Where a notice goes: `mailto:ADDRESS`, `https://…` or, on the broker's own machine, `http://…`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Destination {
    /// A mailbox.
    Mail(MailAddress),
    /// A webhook.
    Webhook(Webhook),
}

/// Why a text is no destination. It repeats nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// No known scheme.
    #[error("a contact is `mailto:ADDRESS` or `https://…`; `http://…` is for the broker's own machine alone")]
    Scheme,
    /// The mail address.
    #[error(
        "a mail address is NAME@DOMAIN of at most 254 bytes, a plain one: letters, digits and `._+-=` before the `@`, a host name behind it"
    )]
    Mail,
    /// The webhook.
    #[error(
        "a webhook is https://HOST[:PORT][/PATH] of at most 512 bytes: a host name or a usual IP address, no user, no fragment, nothing but ASCII"
    )]
    Webhook,
}

/// `NAME@DOMAIN`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailAddress(Arc<str>);

impl MailAddress {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MailAddress {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (local, domain) = text.split_once('@').ok_or(DestinationError::Mail)?;
        // Neither quoted names nor routes in them: `%` and `!` made old relays send on.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-=".contains(&b);
        let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
        let named = !local.is_empty() && local.len() <= 64 && local.bytes().all(plain) && !dots;
        if named && text.len() <= MAIL_BYTES_MAX && is_host_name(domain) {
            Ok(Self(text.into()))
        } else {
            Err(DestinationError::Mail)
        }
    }
}

/// An address that takes POST requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Webhook {
    text: Arc<str>,
    tls: bool,
    host: Arc<str>,
    port: u16,
    authority: Arc<str>,
    target: Arc<str>,
}

impl Webhook {
    /// The whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is reached by TLS; plain HTTP only leads to the broker's own machine.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The host: a name or an IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as the address writes them.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > WEBHOOK_BYTES_MAX {
            return None;
        }
        let (tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(at)?;
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => read_port(port)?,
        };
        if !tls && !["127.0.0.1", "::1", "localhost"].contains(&host) {
            return None;
        }
        let target = match target {
            "" => "/",
            path if path.starts_with('/') => path,
            _ => return None,
        };
        let visible = |b: u8| b.is_ascii_alphanumeric() || b"/?-._~!$&'()*+,;=:@%".contains(&b);
        target.bytes().all(visible).then(|| Self {
            text: text.into(),
            tls,
            host: host.into(),
            port,
            authority: authority.into(),
            target: target.into(),
        })
    }
}

/// Host without brackets, and the port's digits if there are any.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        // A zone is no part of it: it would name an interface of the broker's machine.
        host.parse::<Ipv6Addr>().ok()?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    (is_host_name(host) || host.parse::<Ipv4Addr>().is_ok()).then_some((host, port))
}

fn read_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

/// Letters, digits and hyphens in labels; not what some resolvers take for an IP address in an unusual spelling.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    text.len() <= 253 && text.split('.').all(label) && !numeric
}

impl Destination {
    /// The text it was parsed from.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Mail(mail) => format!("mailto:{}", mail.as_str()),
            Self::Webhook(webhook) => webhook.as_str().to_owned(),
        }
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(mail) = text.strip_prefix("mailto:") {
            return mail.parse().map(Self::Mail);
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Webhook::parse(text).map(Self::Webhook).ok_or(DestinationError::Webhook);
        }
        Err(DestinationError::Scheme)
    }
}

impl TryFrom<String> for Destination {
    type Error = DestinationError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(to: Destination) -> Self {
        to.text()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    fn read(text: &str) -> Result<Destination, DestinationError> {
        text.parse()
    }

    #[test]
    fn destinations_are_read_and_written_as_they_are() {
        for good in [
            "mailto:duty@lab-a.example",
            "mailto:a.b+c_d-e=f@mail",
            "https://hooks.agency.example/anteroom?x=1",
            "https://hooks.agency.example:8443",
            "https://192.0.2.7/in",
            "https://[2001:db8::7]:444/in",
            "http://127.0.0.1:8080/in",
            "http://[::1]:8080/in",
            "http://localhost/in",
        ] {
            let parsed = read(good).unwrap();
            assert_eq!(parsed.text(), good);
            let json = serde_json::to_string(&parsed).unwrap();
            assert_eq!(serde_json::from_str::<Destination>(&json).unwrap(), parsed);
        }
        let Destination::Webhook(hook) = read("https://[2001:db8::7]:444/in?a=b").unwrap() else { unreachable!() };
        let parts = (hook.tls(), hook.host(), hook.port(), hook.authority(), hook.target());
        assert_eq!(parts, (true, "2001:db8::7", 444, "[2001:db8::7]:444", "/in?a=b"));
        let Destination::Webhook(hook) = read("https://a.example").unwrap() else { unreachable!() };
        assert_eq!((hook.port(), hook.target()), (443, "/"));
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        let long = format!("mailto:{}@a.example", "a".repeat(10_240));
        let far = format!("https://a.example/{}", "a".repeat(10_240));
        let label = format!("https://{}.example/", "a".repeat(64));
        for bad in [
            "",
            "duty@lab-a.example",
            "mailto:",
            "mailto:duty",
            "mailto:@lab.example",
            "mailto:duty@",
            "mailto:a@b@c.example",
            "mailto:duty@lab.example\r\nBcc: all@world.example",
            "mailto:duty@lab.example\n",
            "mailto:duty\0@lab.example",
            "mailto:duty@lab.example?subject=x",
            "mailto:duty@lab.example,all@world.example",
            "mailto:Duty <duty@lab.example>",
            "mailto:\"duty\"@lab.example",
            "mailto:duty%world.example@lab.example",
            "mailto:world!duty@lab.example",
            "mailto:.duty@lab.example",
            "mailto:du..ty@lab.example",
            "mailto:duty@lab..example",
            "mailto:duty@-lab.example",
            "mailto:duty@[192.0.2.1]",
            "mailto:duty@192.0.2.1",
            "mailto:du\u{202e}ty@lab.example",
            "mailto:duty@l\u{e4}b.example",
            "MAILTO:duty@lab.example",
            &long,
            "ftp://a.example/",
            "file:///etc/passwd",
            "https://",
            "https:///path",
            "http://a.example/",
            "http://127.0.0.2/",
            "http://localhost.evil.example/",
            "http://127.0.0.1@evil.example/",
            "https://user@a.example/",
            "https://user:word@a.example/",
            "https://a.example/#part",
            "https://a.example\\@b.example/",
            "https://a.example/ b",
            "https://a.example/\r\nHost: b.example",
            "https://a.example/\u{202e}cod",
            "https://\u{430}.example/",
            "https://a.example:0/",
            "https://a.example:00443/",
            "https://a.example:/",
            "https://a.example:65536/",
            "https://a.example:443:443/",
            "https://a.example?x=1",
            "https://a.example./",
            "https://[fe80::1%25eth0]/",
            "https://[fe80::1%eth0]/",
            "https://[::1/",
            "https://::1/",
            "https://[192.0.2.1]/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://a.0x7f/",
            &far,
            &label,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_bounded_and_each_contact_has_a_name_of_its_own() {
        let contact = |id: &str, notices: &[NoticeKind]| Contact {
            id: id.parse().unwrap(),
            to: read("mailto:duty@lab-a.example").unwrap(),
            notices: notices.to_vec(),
        };
        let list = |contacts| Contacts { by: "lab-a".parse().unwrap(), contacts, previous: None };
        let many = |count: usize| (0..count).map(|at| contact(&format!("c{at}"), &[])).collect::<Vec<_>>();
        assert!(list(many(0)).check().is_ok() && list(many(CONTACTS_MAX)).check().is_ok());
        assert!(list(many(CONTACTS_MAX + 1)).check().is_err());
        assert!(list(vec![contact("a", &[]), contact("a", &[])]).check().is_err());
        assert!(list(vec![contact("a", &[NoticeKind::Paused, NoticeKind::Paused])]).check().is_err());
        let some = contact("a", &[NoticeKind::Paused]);
        assert!(some.wants(NoticeKind::Paused) && !some.wants(NoticeKind::Resumed));
        assert!(contact("a", &[]).wants(NoticeKind::Resumed));
        // A field that nobody knows could be a secret that its signer thought of as one.
        let secret = r#"{"id":"a","to":"mailto:duty@lab-a.example","secret":"s"}"#;
        assert!(serde_json::from_str::<Contact>(secret).is_err());
    }

    #[test]
    fn kinds_are_written_as_they_are_named() {
        for kind in NoticeKind::ALL {
            assert_eq!(serde_json::to_string(kind).unwrap(), format!("\"{}\"", kind.as_str()));
            assert_eq!(NoticeKind::from_name(kind.as_str()), Some(*kind));
        }
    }
}
