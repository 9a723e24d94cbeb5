//! Where the broker is: one place, or several brokers of one log.

use std::fmt;

use rustls_pki_types::ServerName;
use tonic::codegen::http::uri::Authority;

use super::ChannelError;

/// Most brokers of one log that an address names.
pub const BROKERS_MAX: usize = 8;

/// Where the broker is, and what its certificate calls it. Several brokers of one log stand in the order in which they are tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    first: Place,
    others: Vec<Place>,
}

/// One broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) authority: String,
    pub(super) server_name: ServerName<'static>,
}

impl Place {
    fn parse(text: &str) -> Result<Self, ChannelError> {
        let wrong = || ChannelError::Address(text.chars().take(200).collect());
        let authority = text.strip_prefix("https://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed: Authority = authority.parse().map_err(|_| wrong())?;
        if parsed.port_u16().is_none() || authority.contains('@') {
            return Err(wrong());
        }
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        Ok(Self { authority: authority.to_owned(), server_name })
    }
}

impl Address {
    /// Reads `HOST:PORT`, with `https://` in front or not; several with commas between, up to [`BROKERS_MAX`]. A server's
    /// certificate is expected to name its host.
    ///
    /// # Errors
    /// The text is no address, names one twice, or names too many.
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        let wrong = || ChannelError::Address(text.chars().take(200).collect());
        let mut places = text.split(',').map(str::trim);
        let first = Place::parse(places.next().unwrap_or_default())?;
        let mut others: Vec<Place> = Vec::new();
        for place in places {
            let place = Place::parse(place)?;
            let known = std::iter::once(&first).chain(&others).any(|known| known.authority == place.authority);
            if known || others.len() + 1 >= BROKERS_MAX {
                return Err(wrong());
            }
            others.push(place);
        }
        Ok(Self { first, others })
    }

    /// Expects another name in the certificate, whichever of the brokers answers.
    ///
    /// # Errors
    /// It is no DNS name or IP address.
    pub fn with_server_name(mut self, name: &str) -> Result<Self, ChannelError> {
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|why| ChannelError::ServerName { name: name.chars().take(200).collect(), why })?;
        for place in std::iter::once(&mut self.first).chain(&mut self.others) {
            place.server_name = server_name.clone();
        }
        Ok(self)
    }

    /// `HOST:PORT` of the broker that is tried first.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.first.authority
    }

    /// Each broker by itself, in order.
    #[must_use]
    pub fn each(&self) -> Vec<Self> {
        self.places().map(|place| Self { first: place.clone(), others: Vec::new() }).collect()
    }

    /// What its certificate is expected to call the broker that is tried first.
    pub(super) const fn server_name(&self) -> &ServerName<'static> {
        &self.first.server_name
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// As [`Address::parse`] reads it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.authority)?;
        self.others.iter().try_for_each(|place| write!(f, ",{}", place.authority))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (text, authority) in [
            ("broker.example:7443", "broker.example:7443"),
            ("https://broker.example:7443/", "broker.example:7443"),
            ("127.0.0.1:7443", "127.0.0.1:7443"),
            ("[::1]:7443", "[::1]:7443"),
        ] {
            assert_eq!(Address::parse(text).unwrap().authority(), authority);
        }
        for text in [
            "",
            "broker.example",
            ":7443",
            "http://broker.example:7443",
            "a:b",
            "me@broker.example:7443",
            "broker.example:70000",
            "broker.example:1/path",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn several_brokers_stand_in_their_order() {
        let several = Address::parse("https://a.example:1, b.example:2,[::1]:3").unwrap();
        assert_eq!(several.to_string(), "a.example:1,b.example:2,[::1]:3");
        let each: Vec<String> = several.each().iter().map(ToString::to_string).collect();
        assert_eq!(each, ["a.example:1", "b.example:2", "[::1]:3"]);
        assert_eq!(Address::parse(&several.to_string()).unwrap(), several);
        for text in [
            "a.example:1,",
            ",a.example:1",
            "a.example:1,,b.example:2",
            "a.example:1,a.example:1",
            "a.example:1;b.example:2",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        let many = |count: usize| (1..=count).map(|port| format!("a.example:{port}")).collect::<Vec<_>>().join(",");
        assert!(Address::parse(&many(BROKERS_MAX)).is_ok() && Address::parse(&many(BROKERS_MAX + 1)).is_err());
    }

    #[test]
    fn the_server_is_expected_to_be_called_what_it_was_called() {
        let named = |text| Address::parse(text).unwrap().first.server_name;
        assert_eq!(named("broker.example:1"), "broker.example".try_into().unwrap());
        assert_eq!(named("127.0.0.1:1"), "127.0.0.1".try_into().unwrap());
        assert_eq!(named("[::1]:1"), "::1".try_into().unwrap());
        let address = Address::parse("127.0.0.1:1,127.0.0.1:2").unwrap();
        assert!(address.clone().with_server_name("no name").is_err());
        let renamed = address.with_server_name("localhost").unwrap();
        assert!(renamed.places().all(|place| place.server_name == "localhost".try_into().unwrap()));
    }
}
