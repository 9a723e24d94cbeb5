//! The console: a page in the browser, served from the reader's own machine, that shows a verified mirror.
//!
//! [`Console::open`] makes a link that opens the page once, [`Console::serve`] keeps the rows current and answers. A request comes
//! through [`door`], [`routes`] finds what answers it, [`views`] says it in JSON, [`facts`] is what proven records say about
//! grants, and [`trouble`] is what is shown in place of everything if something does not hold.
//!
//! **Invariant:** no row leaves this process whose record was not proven under the pinned key in the same request; while anything
//! does not hold nothing but that is shown; and nothing here can sign.

mod assets;
mod desk;
mod door;
mod facts;
mod listen;
mod query;
mod reads;
mod reply;
mod routes;
mod times;
mod trouble;
mod views;

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpListener;

pub use trouble::Trouble;

use crate::{
    home::{CertRole, Home, HomeError},
    mirror::{Mirror, check::Demands},
};
use anteroom_proto::statement::key_set::OrgKind;

/// Whose question the page answers first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// What is lent, to whom, until when.
    Lab,
    /// Time and budget left.
    Agency,
    /// The same, of somebody who only calls.
    Evaluator,
    /// Exceptions.
    Auditor,
}

impl Part {
    /// Its name in the page's data.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Agency => "agency",
            Self::Evaluator => "evaluator",
            Self::Auditor => "auditor",
        }
    }

    /// Whose folder it is; without one, a stranger's who audits.
    #[must_use]
    pub fn of(home: Option<&Home>) -> Self {
        let Some(home) = home else { return Self::Auditor };
        let only_calls = !home
            .cert_roles()
            .iter()
            .any(|role| matches!(role, CertRole::Admin | CertRole::Auditor | CertRole::Operator));
        match home.settings().kind {
            Some(OrgKind::Lab) => Self::Lab,
            Some(OrgKind::Agency | OrgKind::Partner | OrgKind::Sponsor) if !only_calls => Self::Agency,
            Some(OrgKind::Agency | OrgKind::Partner | OrgKind::Sponsor) => Self::Evaluator,
            Some(OrgKind::Oversight | OrgKind::Operator) => Self::Auditor,
            // A folder with nothing but certificates is somebody's who was let in to call, or to read.
            None if home.cert_roles().contains(&CertRole::Auditor) => Self::Auditor,
            None => Self::Evaluator,
        }
    }
}

/// How a round is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Whatever is there is read and verified.
    Surely,
    /// The log is read again only if it has grown by more than this reader's own reading, which is on record, too.
    IfNew,
}

/// Who looks, and at what.
#[derive(Clone, Debug)]
pub struct About {
    /// Whose question comes first.
    pub part: Part,
    /// The organisation, if the folder is one's.
    pub org: Option<String>,
    /// The folder that commands for the terminal name, if there is one.
    pub home: Option<PathBuf>,
    /// Whether no broker is asked.
    pub offline: bool,
}

impl About {
    /// What a party's folder says.
    #[must_use]
    pub fn of(home: Option<&Home>, offline: bool) -> Self {
        let org = home.and_then(|home| home.org().ok()).map(ToString::to_string);
        Self { part: Part::of(home), org, home: home.map(|home| home.dir().to_owned()), offline }
    }
}

/// A console that does not answer yet.
#[derive(Debug)]
pub struct Console {
    desk: Arc<desk::Desk>,
    listener: TcpListener,
    link: String,
}

impl Console {
    /// Makes the link and the session.
    ///
    /// # Errors
    /// The listener is none of this machine's alone, or the machine gives no randomness.
    pub fn open(listener: TcpListener, about: About, mirror: &Path, demands: Demands) -> Result<Self, HomeError> {
        let io = |why| HomeError::Io { path: mirror.to_owned(), why };
        let address = listener.local_addr().map_err(io)?;
        if !address.ip().is_loopback() {
            let why = "everything shown travels unencrypted, so the console listens on loopback only";
            return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, why)));
        }
        let (door, token) = door::Door::new(address)?;
        let link = format!("http://{address}{}{token}", door::LINK);
        let desk = Arc::new(desk::Desk::new(door, about, Mirror::at(mirror), demands));
        Ok(Self { desk, listener, link })
    }

    /// The address that opens the page, once.
    #[must_use]
    pub fn link(&self) -> &str {
        &self.link
    }

    /// Answers until `end` is over. `extend` brings the mirror up to date and says whether there was anything to do; it is called first,
    /// and whenever the page asks. Returns what did not hold when it ended, if anything.
    pub async fn serve(
        self,
        end: impl Future<Output = ()>,
        extend: impl AsyncFnMut(Asked) -> Result<bool, Trouble>,
    ) -> Option<Trouble> {
        let Self { desk, listener, link: _ } = self;
        let rounds = desk.rounds(extend);
        tokio::select! {
            () = listen::serve(listener, &desk, end) => {}
            () = rounds => {}
        }
        desk.warning().map(|trouble| (*trouble).clone())
    }
}
