//! Certificate requests (PKCS #10), of which only the public key is taken.
//!
//! **Invariant:** whatever a request asks to be called, or allowed to do, is ignored. The holder proves that they have the key,
//! the broker's own records say who they are.

use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// Largest request read, in bytes, DER or PEM: room for an RSA key of 8192 bits and what tools like to add.
pub const CSR_BYTES_MAX: usize = 16 * 1024;
/// Smallest RSA key a certificate is issued for, in bits.
pub const RSA_BITS_MIN: usize = 3072;
/// Largest RSA key a certificate is issued for, in bits: verifying larger ones costs more than it protects.
pub const RSA_BITS_MAX: usize = 8192;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Over [`CSR_BYTES_MAX`].
    #[error("the certificate request is larger than {CSR_BYTES_MAX} bytes")]
    TooLarge,
    /// Not PKCS #10, followed by other bytes, or with extensions of unknown kinds.
    #[error("the certificate request cannot be read")]
    Malformed,
    /// Signed by another key than the one it names: the sender may not hold it.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// Not ECDSA P-256 or P-384, Ed25519, or RSA of 3072 to 8192 bits.
    #[error("the certificate request's key is of a kind or size not accepted here")]
    Key,
}

/// The public key of a request whose signature was checked.
#[must_use]
#[derive(Debug)]
pub struct Csr {
    key: rcgen::PublicKey,
}

impl Csr {
    /// Reads a request in DER and checks its signature.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLarge);
        }
        let (rest, outline) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &outline.certification_request_info.subject_pki;
        if !accepted(&info.parsed().map_err(|_| CsrError::Malformed)?, &info.algorithm.algorithm.to_id_string()) {
            return Err(CsrError::Key);
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).map_err(|error| {
                if error == rcgen::Error::InvalidCertificationRequestSignature {
                    CsrError::Signature
                } else {
                    CsrError::Malformed
                }
            })?;
        // The library takes the key's kind from the signature's; a request that mixes kinds would yield a certificate for a key
        // that nobody holds.
        if request.public_key.subject_public_key_info() != info.raw {
            return Err(CsrError::Key);
        }
        Ok(Self { key: request.public_key })
    }

    /// Reads a request in PEM and checks its signature.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLarge);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| CsrError::Malformed)?;
        Self::from_der(&der)
    }

    pub(crate) const fn key(&self) -> &rcgen::PublicKey {
        &self.key
    }
}

fn accepted(key: &PublicKey<'_>, algorithm: &str) -> bool {
    if let PublicKey::RSA(rsa) = key {
        (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&rsa.key_size())
    } else if let PublicKey::EC(point) = key {
        matches!(point.key_size(), 256 | 384)
    } else {
        algorithm == "1.3.101.112"
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn usual_keys_are_accepted() {
        for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(kind).unwrap();
            let csr = Csr::from_der(&request(&key)).unwrap();
            assert_eq!(csr.key().subject_public_key_info(), key.subject_public_key_info());
        }
    }

    #[test]
    fn request_with_a_wrong_signature_is_refused() {
        let mut der = request(&KeyPair::generate().unwrap());
        // The subject's text is covered by the signature and its length does not change.
        let at = der.windows(5).position(|window| window == b"rcgen").unwrap();
        *der.get_mut(at).unwrap() = b'x';
        assert_eq!(Csr::from_der(&der).unwrap_err(), CsrError::Signature);
    }

    #[test]
    fn request_with_bytes_after_it_is_refused() {
        let mut der = request(&KeyPair::generate().unwrap());
        der.push(0);
        assert_eq!(Csr::from_der(&der).unwrap_err(), CsrError::Malformed);
    }

    #[test]
    fn every_truncation_is_refused() {
        let der = request(&KeyPair::generate().unwrap());
        for length in 0..der.len() {
            assert!(Csr::from_der(der.get(..length).unwrap()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn oversized_request_is_refused() {
        assert_eq!(Csr::from_der(&vec![0x30; CSR_BYTES_MAX + 1]).unwrap_err(), CsrError::TooLarge);
    }
}
