//! The envelope round a payload: DSSE's pre-authentication encoding and signature list.
//!
//! Source: the Dead Simple Signing Envelope, protocol version 1 (`DSSEv1`), with an algorithm number beside each signature.

use data_encoding::BASE64;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{
    Payload, StatementError,
    key::{Algorithm, PublicKey},
    parse_json,
};
use crate::rpc::{CallClaim, ClockClaim, OutcomeClaim, SignedStatement, StatementSignature};

/// Most signatures that a statement may carry.
pub const SIGNATURES_MAX: usize = 16;

/// DSSE's pre-authentication encoding: what a signature covers.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + payload_type.len() + 32);
    out.extend_from_slice(format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out
}

/// Something that signs with one key: a file, a card, a command.
pub trait Signer {
    /// The key it signs with.
    fn public_key(&self) -> &PublicKey;

    /// A signature over `message`.
    ///
    /// # Errors
    /// The signer is unreachable or refuses.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError>;
}

/// A signer could not sign.
#[derive(Debug, thiserror::Error)]
#[error("the signer failed: {0}")]
pub struct SignerError(pub String);

/// Serialises `payload` and signs it with each signer.
///
/// # Errors
/// A signer fails.
pub fn sign_json<P: Payload>(payload: &P, signers: &[&dyn Signer]) -> Result<SignedStatement, SignerError> {
    let bytes = serde_json::to_vec_pretty(payload).map_err(|error| SignerError(error.to_string()))?;
    sign_bytes(P::TYPE, bytes, signers)
}

/// Signs a claim with one signer.
///
/// # Errors
/// The signer fails.
pub fn sign_claim<C: Claim>(claim: &C, signer: &dyn Signer) -> Result<SignedStatement, SignerError> {
    sign_bytes(C::TYPE, claim.encode_to_vec(), &[signer])
}

/// Signs bytes of a type.
///
/// # Errors
/// A signer fails.
pub fn sign_bytes(
    payload_type: &str,
    payload: Vec<u8>,
    signers: &[&dyn Signer],
) -> Result<SignedStatement, SignerError> {
    let message = pae(payload_type, &payload);
    let mut signatures = Vec::with_capacity(signers.len());
    for signer in signers {
        let key = signer.public_key();
        signatures.push(StatementSignature {
            key_id: key.id().to_vec(),
            algorithm: key.algorithm().number(),
            signature: signer.sign(&message)?,
        });
    }
    Ok(SignedStatement { payload_type: payload_type.to_owned(), payload, signatures })
}

/// A protobuf payload signed on every call.
pub trait Claim: Message + Default {
    /// Its media type.
    const TYPE: &'static str;
}
impl Claim for CallClaim {
    const TYPE: &'static str = "application/vnd.anteroom.call.v1+protobuf";
}
impl Claim for OutcomeClaim {
    const TYPE: &'static str = "application/vnd.anteroom.outcome.v1+protobuf";
}
impl Claim for ClockClaim {
    const TYPE: &'static str = "application/vnd.anteroom.clock.v1+protobuf";
}

/// Reads a JSON payload of type `P`, signatures unchecked.
///
/// # Errors
/// Another type, too large, or not that JSON.
pub fn read_json<P: Payload>(statement: &SignedStatement) -> Result<P, StatementError> {
    expect_type(statement, P::TYPE)?;
    parse_json(&statement.payload)
}

/// Reads a claim, signature unchecked. Its encoding must be canonical.
///
/// # Errors
/// Another type, too large, or not the canonical bytes of that message.
pub fn read_claim<C: Claim>(statement: &SignedStatement) -> Result<C, StatementError> {
    expect_type(statement, C::TYPE)?;
    if statement.payload.len() > super::PAYLOAD_BYTES_MAX {
        return Err(StatementError::Size(statement.payload.len()));
    }
    let claim = C::decode(statement.payload.as_slice()).map_err(|error| StatementError::Payload(error.to_string()))?;
    if claim.encode_to_vec() == statement.payload {
        Ok(claim)
    } else {
        Err(StatementError::Payload("its encoding is not canonical".to_owned()))
    }
}

fn expect_type(statement: &SignedStatement, expected: &'static str) -> Result<(), StatementError> {
    if statement.payload_type == expected {
        Ok(())
    } else {
        let found = statement.payload_type.chars().take(120).collect();
        Err(StatementError::Type { expected, found })
    }
}

/// Adds a signature to a statement, in place of any that the same key made before.
///
/// # Errors
/// The signer fails, or the statement has [`SIGNATURES_MAX`] signatures already.
pub fn add_signature(statement: &mut SignedStatement, signer: &dyn Signer) -> Result<(), SignerError> {
    let more = sign_bytes(&statement.payload_type, statement.payload.clone(), &[signer])?;
    let own = signer.public_key().id();
    statement.signatures.retain(|signature| signature.key_id != own);
    if statement.signatures.len() >= SIGNATURES_MAX {
        return Err(SignerError("the statement has as many signatures as it may".to_owned()));
    }
    statement.signatures.extend(more.signatures);
    Ok(())
}

/// How many of `keys` signed the statement validly. A key counts once, however often it signed; key ids are hints only.
///
/// # Errors
/// Too many signatures.
pub fn count_signers<'k>(
    statement: &SignedStatement,
    keys: impl IntoIterator<Item = &'k PublicKey>,
) -> Result<usize, StatementError> {
    if statement.signatures.len() > SIGNATURES_MAX {
        return Err(StatementError::SignatureCount(statement.signatures.len()));
    }
    let message = pae(&statement.payload_type, &statement.payload);
    let mut distinct: Vec<&PublicKey> = keys.into_iter().collect();
    distinct.sort();
    distinct.dedup();
    let signed = |key: &&PublicKey| {
        statement.signatures.iter().any(|signature| {
            signature.algorithm == key.algorithm().number()
                && signature.key_id == key.id()
                && key.holds(&message, &signature.signature)
        })
    };
    Ok(distinct.iter().filter(|key| signed(key)).count())
}

/// Checks that `key` signed the statement.
///
/// # Errors
/// It did not.
pub fn verify_by(statement: &SignedStatement, key: &PublicKey) -> Result<(), StatementError> {
    if count_signers(statement, [key])? == 1 { Ok(()) } else { Err(StatementError::Signature) }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DsseFile {
    payload_type: String,
    payload: String,
    signatures: Vec<DsseSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DsseSignature {
    keyid: String,
    algorithm: Algorithm,
    sig: String,
}

/// The DSSE JSON file of a statement, with an `algorithm` beside each signature.
///
/// # Errors
/// A signature names an unknown algorithm.
pub fn to_file(statement: &SignedStatement) -> Result<String, StatementError> {
    let signatures = statement.signatures.iter().map(|signature| {
        Ok(DsseSignature {
            keyid: data_encoding::HEXLOWER.encode(&signature.key_id),
            algorithm: Algorithm::from_number(signature.algorithm).ok_or(StatementError::Signature)?,
            sig: BASE64.encode(&signature.signature),
        })
    });
    let file = DsseFile {
        payload_type: statement.payload_type.clone(),
        payload: BASE64.encode(&statement.payload),
        signatures: signatures.collect::<Result<_, StatementError>>()?,
    };
    serde_json::to_string_pretty(&file).map_err(|error| StatementError::Payload(error.to_string()))
}

/// Reads a DSSE JSON file.
///
/// # Errors
/// It is none.
pub fn from_file(text: &str) -> Result<SignedStatement, StatementError> {
    let wrong = |_| StatementError::Payload("standard base64 is expected".to_owned());
    let file: DsseFile = serde_json::from_str(text).map_err(|error| StatementError::Payload(error.to_string()))?;
    let signatures = file.signatures.iter().map(|signature| {
        Ok(StatementSignature {
            key_id: data_encoding::HEXLOWER.decode(signature.keyid.as_bytes()).map_err(wrong)?,
            algorithm: signature.algorithm.number(),
            signature: BASE64.decode(signature.sig.as_bytes()).map_err(wrong)?,
        })
    });
    Ok(SignedStatement {
        payload: BASE64.decode(file.payload.as_bytes()).map_err(wrong)?,
        signatures: signatures.collect::<Result<_, StatementError>>()?,
        payload_type: file.payload_type,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_published_one() {
        // The example of the DSSE protocol's own text.
        let expected: &[u8] = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), expected);
    }
}
