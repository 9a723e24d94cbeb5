//! Why a dispatched call does not go to the model: a stable code for the broker, and what was found for people.
//!
//! **Invariant:** neither repeats content.

use anteroom_proto::{ledger::receipt::ReceiptError, names::OrgId, time::At};

use crate::verify::dossier::{ClaimError, DossierError};

/// A refusal's stable code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Code {
    /// The admission is not proven.
    ReceiptInvalid,
    /// What the grant rests on does not hold.
    DossierInvalid,
    /// The caller's claim does not hold.
    ClaimInvalid,
    /// The body is not the one the caller signed.
    BodyMismatch,
    /// The call was seen before, or can have been.
    CallSeen,
    /// The window is over, or is stretched.
    WindowOver,
    /// The broker's clock and the connector's differ.
    ClockApart,
    /// Another line, build or variant is asked for than is served here.
    BuildMismatch,
    /// The model server does not answer the call's route.
    RouteNotServed,
    /// The lab stopped serving here.
    LocallyStopped,
}

impl Code {
    /// Its text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReceiptInvalid => "receipt_invalid",
            Self::DossierInvalid => "dossier_invalid",
            Self::ClaimInvalid => "claim_invalid",
            Self::BodyMismatch => "body_mismatch",
            Self::CallSeen => "call_seen",
            Self::WindowOver => "window_over",
            Self::ClockApart => "clock_apart",
            Self::BuildMismatch => "build_mismatch",
            Self::RouteNotServed => "route_not_served",
            Self::LocallyStopped => "locally_stopped",
        }
    }
}

/// Why a dispatched call does not go to the model. Its text names what was found and never content.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// A part of the dispatch is absent or has the wrong length.
    #[error("the dispatch lacks its {0}")]
    Incomplete(&'static str),
    /// The admission is not proven.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The admission's checkpoint contradicts one seen before.
    #[error("the admission's checkpoint contradicts one of {0} entries that was seen before")]
    Forked(u64),
    /// The admission's checkpoint is older than the newest seen and was not shown to belong to the same log.
    #[error("the admission's checkpoint of {0} entries was not shown to belong to the log seen before: {1}")]
    Unproven(u64, String),
    /// No dossier could be had.
    #[error("the grant's dossier could not be fetched: {0}")]
    NoDossier(String),
    /// The agency is not pinned.
    #[error("no key-set fingerprint of agency `{0}` is pinned here")]
    NotPinned(OrgId),
    /// The dossier does not hold.
    #[error(transparent)]
    Dossier(#[from] DossierError),
    /// The dossier is another grant's.
    #[error("the dossier is of another grant")]
    OtherGrant,
    /// The grant is over.
    #[error("the grant is `{0}`")]
    Phase(String),
    /// Terms and successions lend something else.
    #[error("{0} that is served here is not lent at the instant of the admission")]
    Build(&'static str),
    /// The claim does not hold.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The claim and the admission differ.
    #[error("claim and admission name another `{0}`")]
    ClaimMismatch(&'static str),
    /// The claim's route is none, or the terms do not grant it.
    #[error("route `{0}` is not granted")]
    Route(String),
    /// The model server speaks another dialect.
    #[error("the model server does not answer `{0}`; `--upstream-api` says which routes it answers")]
    NotServed(&'static str),
    /// The caller saw another log.
    #[error("the caller signed another root of the log at {0} entries")]
    CallerForked(u64),
    /// The body is not the claimed one.
    #[error("the body is not the one that the caller signed")]
    Body,
    /// The identifier was seen.
    #[error("the call's identifier was seen before")]
    Seen,
    /// The identifier's own time is too far away.
    #[error("the call's identifier is not of the last 24 hours")]
    Age,
    /// The window has not begun.
    #[error("the window begins at {0}")]
    NotBegun(At),
    /// The window is over by the connector's clock.
    #[error("the window ended at {0}")]
    Over(At),
    /// The deadline is past by the connector's clock.
    #[error("the deadline was {0}")]
    Deadline(At),
    /// The admission names a later end than the signatures allow.
    #[error("the admission names {named} as the window's end, which can be {latest} at the latest")]
    Stretched {
        /// As admitted.
        named: At,
        /// As signed, and as remembered.
        latest: At,
    },
    /// Clocks differ.
    #[error("the admission's instant is {0} ms from this clock")]
    ClockApart(i64),
    /// Stopped here.
    #[error("{0}")]
    Stopped(String),
}

impl CheckFailure {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Incomplete(_) | Self::Receipt(_) | Self::Forked(_) | Self::Unproven(..) => Code::ReceiptInvalid,
            Self::NoDossier(_) | Self::NotPinned(_) | Self::Dossier(_) | Self::OtherGrant | Self::Phase(_) => {
                Code::DossierInvalid
            }
            Self::Build(_) => Code::BuildMismatch,
            Self::Claim(_) | Self::ClaimMismatch(_) | Self::Route(_) | Self::CallerForked(_) => Code::ClaimInvalid,
            Self::NotServed(_) => Code::RouteNotServed,
            Self::Body => Code::BodyMismatch,
            Self::Seen | Self::Age => Code::CallSeen,
            Self::NotBegun(_) | Self::Over(_) | Self::Deadline(_) | Self::Stretched { .. } => Code::WindowOver,
            Self::ClockApart(_) => Code::ClockApart,
            Self::Stopped(_) => Code::LocallyStopped,
        }
    }
}
