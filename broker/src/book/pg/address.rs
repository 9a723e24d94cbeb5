//! Where the database is, and on what terms it is spoken to.
//!
//! **Invariant:** nothing goes to another machine in the clear, and no password stands in an address.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use tokio_postgres::config::{Config, Host, SslMode};

/// Port of PostgreSQL.
const PORT: u16 = 5432;
/// Longest time a connection may take to come about.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(3);

/// A database, without the secret that opens it.
#[derive(Clone)]
pub struct Address {
    pub(super) config: Config,
    pub(super) hosts: Vec<Place>,
    pub(super) tls: bool,
    text: String,
}

/// One server of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Why an address does not do. Never repeats the address: there may be a password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an address.
    #[error("a database is given as `postgres://USER@HOST:PORT/NAME`, several hosts separated by commas: {0}")]
    Form(String),
    /// It holds a password.
    #[error("a password does not belong into `book`: give it in `book_password`")]
    Password,
    /// It names no user or no database.
    #[error("`book` has to name a user and a database, as in `postgres://USER@HOST:PORT/NAME`")]
    Incomplete,
    /// It asks for no encryption where there has to be some.
    #[error("`sslmode=disable` is for a database on this machine: to `{0}` the way has to be encrypted")]
    Clear(String),
    /// It asks for encryption if the server likes.
    #[error("`sslmode` is `require` or, for a database on this machine, `disable`")]
    Mode,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(AddressError::Form("it begins with `postgres://`".to_owned()));
        }
        let config = Config::from_str(text).map_err(|error| AddressError::Form(error.to_string()))?;
        if config.get_password().is_some() {
            return Err(AddressError::Password);
        }
        if config.get_user().is_none() || config.get_dbname().is_none() {
            return Err(AddressError::Incomplete);
        }
        let ports = config.get_ports();
        let port = |at: usize| ports.get(at).or_else(|| ports.first()).copied().unwrap_or(PORT);
        let hosts = config.get_hosts().iter().enumerate();
        let hosts: Vec<Place> = hosts
            .map(|(at, host)| match host {
                Host::Tcp(name) => Place::Tcp(name.clone(), port(at)),
                Host::Unix(folder) => Place::Unix(folder.join(format!(".s.PGSQL.{}", port(at)))),
            })
            .collect();
        if hosts.is_empty() {
            return Err(AddressError::Incomplete);
        }
        let elsewhere = hosts.iter().find_map(Place::elsewhere);
        // Nobody who leaves it out means to prefer the clear: it is decided by where the server is.
        let tls = match (text.contains("sslmode="), config.get_ssl_mode(), elsewhere) {
            (true, SslMode::Require, _) => true,
            (true, SslMode::Disable, Some(host)) => return Err(AddressError::Clear(host.to_owned())),
            (true, SslMode::Disable, None) => false,
            (false, _, elsewhere) => elsewhere.is_some(),
            (true, _, _) => return Err(AddressError::Mode),
        };
        let mut config = config;
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable }).application_name("anteroom-broker");
        Ok(Self { config, hosts, tls, text: text.to_owned() })
    }
}

impl Place {
    /// Its name, if it may be on another machine.
    fn elsewhere(&self) -> Option<&str> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(name, _) => {
                let here = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
                (!here).then_some(name)
            }
        }
    }
}

impl Address {
    /// Whether the way to it is encrypted, so that roots to verify it by are needed.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Address {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clear_stays_on_this_machine_and_passwords_stay_out() {
        for here in [
            "postgres://u@127.0.0.1/log",
            "postgres://u@localhost:5433/log",
            "postgres://u@[::1]/log",
            "postgres://u@%2Frun%2Fpg/log",
        ] {
            assert_eq!(here.parse::<Address>().map(|address| address.tls), Ok(false), "{here}");
        }
        assert_eq!("postgres://u@127.0.0.1/log?sslmode=require".parse::<Address>().map(|a| a.tls), Ok(true));
        assert_eq!("postgres://u@db.example/log".parse::<Address>().map(|a| a.tls), Ok(true));
        assert_eq!("postgres://u@127.0.0.1,db.example/log".parse::<Address>().map(|a| a.tls), Ok(true));
        let clear = AddressError::Clear("db.example".to_owned());
        assert_eq!("postgres://u@db.example/log?sslmode=disable".parse::<Address>().err(), Some(clear));
        assert_eq!("postgres://u@db.example/log?sslmode=prefer".parse::<Address>().err(), Some(AddressError::Mode));
        assert_eq!("postgres://u:pw@127.0.0.1/log".parse::<Address>().err(), Some(AddressError::Password));
        assert_eq!("postgres://127.0.0.1/log".parse::<Address>().err(), Some(AddressError::Incomplete));
        assert!(matches!("mysql://u@h/log".parse::<Address>(), Err(AddressError::Form(_))));
    }

    #[test]
    fn several_hosts_have_their_ports() {
        let address = "postgres://u@127.0.0.1:5433,localhost:5434/log".parse::<Address>();
        let hosts = address.map(|address| address.hosts).unwrap_or_default();
        assert_eq!(hosts, [Place::Tcp("127.0.0.1".to_owned(), 5433), Place::Tcp("localhost".to_owned(), 5434)]);
    }
}
