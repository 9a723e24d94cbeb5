//! What came of a call, held against what was sent and what was received.
//!
//! **Invariant:** a [`VerifiedCall`] exists only if the log holds the admission and the end of this very call, the admission
//! carries the claim that was signed, a connector key of the lab signed the outcome, and the answer's chain is the one that the
//! connector and the broker state.

use anteroom_proto::{
    ledger::{
        chain::{BODY_KEY_BYTES, ResponseChain, body_mac},
        checkpoint::LogTrust,
        note::Note,
        proof::{TlogProof, TlogProofError},
        receipt::{ReceiptError, VerifiedReceipt, verify_receipt},
        tree::Hash,
    },
    names::CallId,
    rpc::{CallClaim, OutcomeClaim, ProvenRecord, Receipt, SignedStatement},
    statement::{StatementError, envelope},
    time::At,
};
use prost::Message;

use super::dossier::{ClaimError, VerifiedClaim, VerifiedDossier};

/// Why a call's receipt and outcome do not go with what was sent and received.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallFault {
    /// The receipt does not hold.
    #[error("the receipt does not hold: {0}")]
    Receipt(#[from] ReceiptError),
    /// The claim does not hold.
    #[error("the call's claim does not hold: {0}")]
    Claim(ClaimError),
    /// The admission carries another claim than the one signed for this call.
    #[error("the admission carries another claim than the one that was signed")]
    OtherClaim,
    /// The record names another person, run or credential than the claim's.
    #[error("the admission's `{0}` is not the claim's")]
    Mismatch(&'static str),
    /// The body is not the one the claim commits to.
    #[error("the body is not the one that was claimed")]
    Body,
    /// The call's end is not on record.
    #[error("the receipt does not say how the call ended")]
    Unfinished,
    /// The outcome is not the one on record.
    #[error("the outcome is not the one on record")]
    OtherOutcome,
    /// The outcome does not hold.
    #[error("the connector's outcome does not hold: {0}")]
    Outcome(ClaimError),
    /// The answer is not the one that the connector and the broker state.
    #[error("the answer is not the one on record: {0} differs")]
    Answer(&'static str),
}

/// A call whose receipt, claim, outcome and answer go together.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifiedCall {
    receipt: VerifiedReceipt,
    claim: VerifiedClaim,
    outcome: Option<OutcomeClaim>,
}

impl VerifiedCall {
    /// The proven records.
    pub const fn receipt(&self) -> &VerifiedReceipt {
        &self.receipt
    }

    /// The claim, the credential and the person behind it.
    pub const fn claim(&self) -> &VerifiedClaim {
        &self.claim
    }

    /// What the connector signed; absent when it was cut off or unreachable.
    #[must_use]
    pub const fn outcome(&self) -> Option<&OutcomeClaim> {
        self.outcome.as_ref()
    }

    /// How the call ended: `completed`, or the code of what cut it.
    #[must_use]
    pub fn end(&self) -> &str {
        self.receipt.finished().map_or("open", |(_, event)| event.end.as_str())
    }
}

/// Verifies what came of the call of `claim`, without its answer: that it was recorded, who made it, and what the connector
/// signed about it.
///
/// # Errors
/// A step does not hold.
pub fn verify_call(
    receipt: &Receipt,
    outcome: Option<&SignedStatement>,
    dossier: &VerifiedDossier,
    trust: &LogTrust,
    call: CallId,
) -> Result<VerifiedCall, CallFault> {
    let receipt = verify_receipt(receipt, trust, &dossier.tag_key(), dossier.grant(), call)?;
    let statement = receipt.admission().claim.as_ref().ok_or(CallFault::OtherClaim)?;
    let at = At::clamped(receipt.admitted().header().at_ms);
    let claim = dossier.verify_claim(statement, at).map_err(CallFault::Claim)?;
    if claim.claim().call != call.as_bytes() {
        return Err(CallFault::Claim(ClaimError::OtherCall));
    }
    let admission = receipt.admission();
    if admission.pseudonym != claim.credential().pseudonym.as_str() {
        return Err(CallFault::Mismatch("pseudonym"));
    }
    if admission.credential != claim.claim().credential {
        return Err(CallFault::Mismatch("credential"));
    }
    if let Some(window) = dossier.window()
        && !window.contains(at)
    {
        return Err(CallFault::Mismatch("time"));
    }
    let recorded = receipt.finished().and_then(|(_, event)| event.outcome.as_ref());
    if outcome.is_some() && outcome != recorded {
        return Err(CallFault::OtherOutcome);
    }
    let outcome = match recorded {
        None => None,
        Some(statement) => {
            let read = dossier.verify_outcome(statement, at).map_err(CallFault::Outcome)?;
            if read.call != call.as_bytes() {
                return Err(CallFault::Outcome(ClaimError::OtherCall));
            }
            Some(read)
        }
    };
    if let (Some(outcome), Some((_, end))) = (&outcome, receipt.finished()) {
        // What left the broker left the connector first.
        if end.released_events > outcome.released_events {
            return Err(CallFault::Answer("the number of events"));
        }
    }
    Ok(VerifiedCall { receipt, claim, outcome })
}

/// Verifies a call of one's own: [`verify_call`], and that it is the claim one signed, the body one sent and the answer one got.
///
/// # Errors
/// A step does not hold.
pub fn verify_own_call(
    receipt: &Receipt,
    outcome: Option<&SignedStatement>,
    dossier: &VerifiedDossier,
    trust: &LogTrust,
    own: &OwnCall<'_>,
    answer: &ResponseChain,
) -> Result<VerifiedCall, CallFault> {
    let signed: CallClaim = envelope::read_claim(own.claim).map_err(not_held)?;
    let call = CallId::from_slice(&signed.call).map_err(|_| CallFault::Claim(ClaimError::OtherCall))?;
    if signed.body_mac != body_mac(own.body_key, own.body) {
        return Err(CallFault::Body);
    }
    let verified = verify_call(receipt, outcome, dossier, trust, call)?;
    if verified.receipt.admission().claim.as_ref() != Some(own.claim) {
        return Err(CallFault::OtherClaim);
    }
    let (_, end) = verified.receipt.finished().ok_or(CallFault::Unfinished)?;
    if end.released_events != answer.count() {
        return Err(CallFault::Answer("the number of events"));
    }
    if end.released_chain != answer.value() {
        return Err(CallFault::Answer("the response chain"));
    }
    match &verified.outcome {
        // Where the broker handed on all that the connector released, both must have seen the same bytes.
        Some(outcome) if outcome.released_events == answer.count() => {
            if outcome.released_chain == answer.value() {
                Ok(verified)
            } else {
                Err(CallFault::Answer("the connector's chain"))
            }
        }
        Some(_) if end.end == "completed" => Err(CallFault::Answer("the number of events")),
        // A cut answer is a beginning of what the connector released; how much of it is on record is in the broker's word.
        Some(_) => Ok(verified),
        None if end.end == "completed" => Err(CallFault::OtherOutcome),
        None => Ok(verified),
    }
}

/// What a caller knows of its own call.
#[derive(Clone, Copy, Debug)]
pub struct OwnCall<'a> {
    /// The claim as signed.
    pub claim: &'a SignedStatement,
    /// The body as sent.
    pub body: &'a [u8],
    /// The key made for it.
    pub body_key: &'a [u8; BODY_KEY_BYTES],
}

fn not_held(error: StatementError) -> CallFault {
    CallFault::Claim(ClaimError::Statement(error))
}

/// Writes a proven record as a C2SP `tlog-proof` text, its opening as the extra bytes, so that other tools can check where it
/// stands.
///
/// # Errors
/// It is no proof.
pub fn to_tlog_proof(proven: &ProvenRecord) -> Result<TlogProof, TlogProofError> {
    let opening = proven.opening.clone().unwrap_or_default();
    let hashes = proven.path.iter().map(|hash| Hash::try_from(hash.as_slice()));
    let hashes = hashes.collect::<Result<_, _>>()?;
    let note = Note::parse(proven.checkpoint.as_bytes())?;
    TlogProof::new(opening.index, hashes, note)?.with_extra(opening.encode_to_vec())
}

#[cfg(test)]
mod tests;
