//! What can be wrong with a dossier, and with a claim or an outcome held against one.

use anteroom_proto::{names::Digest, statement::StatementError, time::At};

use super::{CREDENTIALS_MAX, VERSIONS_MAX};

/// A side of a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The lending side.
    Lab,
    /// The using side.
    Agency,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lab => "lab",
            Self::Agency => "agency",
        })
    }
}

/// Why a dossier does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DossierError {
    /// The terms cannot be read or are out of bounds.
    #[error("the terms do not hold: {0}")]
    Terms(StatementError),
    /// A side's key sets do not lead from the pinned fingerprint.
    #[error("the {side}'s key set does not hold: {why}")]
    Keys {
        /// Whose.
        side: Side,
        /// What is wrong.
        why: StatementError,
    },
    /// More versions than are followed.
    #[error("the {0} has more than {VERSIONS_MAX} versions of its key set")]
    Versions(Side),
    /// The terms name a fingerprint that the pinned key set does not lead to.
    #[error(
        "the terms name `{named}` as the {side}'s key set, which does not follow from the pinned one; compare fingerprints out of band"
    )]
    Fingerprint {
        /// Whose.
        side: Side,
        /// The fingerprint in the terms.
        named: Digest,
    },
    /// A key set is another organisation's than the terms name, or of another kind.
    #[error("the {0}'s key set belongs to another organisation or kind of organisation")]
    Organisation(Side),
    /// The offer is absent.
    #[error("there is no offer")]
    NoOffer,
    /// The offer does not hold.
    #[error("the offer does not hold: {0}")]
    Offer(StatementError),
    /// The offer names something else than the terms do.
    #[error("the offer's `{0}` is not what the terms say")]
    OfferMismatch(&'static str),
    /// One person signed what takes two.
    #[error("the terms lend lowered safeguards or a tool that reaches the internet, and one person of the lab signed")]
    TwoPeople,
    /// Rules that were added since do not hold.
    #[error("rules that were added do not hold: {0}")]
    Added(StatementError),
    /// Rules that were added are for another grant, or by neither side.
    #[error("rules that were added are for another grant, or by neither side of it")]
    AddedByOther,
    /// A succession of builds does not hold.
    #[error("a succession of builds does not hold: {0}")]
    Succession(StatementError),
    /// A succession of builds names something else than its grant or the one before it.
    #[error("the `{0}` of a succession of builds is not what its grant, or the succession before it, says")]
    SuccessionMismatch(&'static str),
    /// The agency has not accepted.
    #[error("the agency has not accepted the offer")]
    NotAccepted,
    /// The acceptance does not hold.
    #[error("the acceptance does not hold: {0}")]
    Acceptance(StatementError),
    /// The acceptance names something else than the terms and offer do.
    #[error("the acceptance's `{0}` is not what the terms and the offer say")]
    AcceptanceMismatch(&'static str),
    /// The roster is absent or not the one the terms name by digest.
    #[error("the roster is not the one that the terms name")]
    OtherRoster,
    /// The roster does not hold.
    #[error("the roster does not hold: {0}")]
    Roster(StatementError),
    /// More credentials than are read.
    #[error("the dossier has {0} run credentials, more than {CREDENTIALS_MAX}")]
    Credentials(usize),
    /// A run credential does not hold.
    #[error("run credential `{digest}` does not hold: {why}")]
    Credential {
        /// Digest of its payload.
        digest: Digest,
        /// What is wrong.
        why: CredentialFault,
    },
    /// A manifest is of no build that the terms or a succession name, cannot be read, or is not at hand.
    #[error("a manifest is of no build that the terms or a succession name, cannot be read, or is not at hand")]
    Manifest,
    /// The window the broker states is not one that the terms allow.
    #[error("the window that the broker states is not one that the terms allow")]
    Window,
}

/// What is wrong with a run credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// It cannot be read, or the person did not sign it.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It is for another grant or another agency.
    #[error("it is for another grant or agency")]
    OtherGrant,
    /// The terms plan no such run.
    #[error("the terms plan no such run")]
    NoRun,
    /// The roster names no such person.
    #[error("the roster names no such person")]
    NoPerson,
    /// It lasts longer than 72 hours or not at all.
    #[error("it lasts more than 72 hours or not at all")]
    Length,
    /// Its key is of another kind than workloads use, or a person's.
    #[error("its key is not Ed25519 or ECDSA P-256, or stands on the roster")]
    Key,
}

/// Why a call's claim or a call's outcome does not hold against a dossier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// It cannot be read, or the expected key did not sign it.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It is for another grant.
    #[error("it is for another grant")]
    OtherGrant,
    /// It is of another call.
    #[error("it is of another call")]
    OtherCall,
    /// The dossier has no such run credential.
    #[error("no run credential of digest `{0}` is at hand")]
    NoCredential(String),
    /// It names another run than its credential.
    #[error("it names another run than its credential")]
    OtherRun,
    /// The credential does not cover the instant.
    #[error("its run credential does not cover `{0}`")]
    Credential(At),
    /// The person's engagement or training does not cover the instant.
    #[error("the person's engagement or training does not cover `{0}`")]
    Person(At),
    /// The build that answered is not one that was to answer then.
    #[error("build `{0}` is none that terms and successions name for the instant of the admission")]
    Build(String),
}
