//! The parts of a leaf certificate that say whom it belongs to.
//!
//! **Invariant:** reading is no trust. Whoever holds a [`Presented`] has yet to verify the chain.

use ring::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::extensions::GeneralName;

use super::{IdentityRefusal, dn};

/// Microsoft's user principal name, an `otherName`.
const UPN_OID: &str = "1.3.6.1.4.1.311.20.2.3";

/// What a leaf says about its holder.
#[derive(Debug)]
pub(crate) struct Presented {
    /// RFC 4514 text of the issuer, if it has one.
    pub(crate) issuer: Option<String>,
    /// RFC 4514 text of the subject, if it has one.
    pub(crate) subject: Option<String>,
    /// URIs among the alternative names.
    pub(crate) uris: Vec<String>,
    /// User principal names among the alternative names, in lower case.
    pub(crate) upns: Vec<String>,
    /// Lower-case hex.
    pub(crate) serial: String,
    /// Unix milliseconds.
    pub(crate) not_before_ms: i64,
    /// Unix milliseconds.
    pub(crate) not_after_ms: i64,
    /// SHA-256 of the DER bytes.
    pub(crate) fingerprint: [u8; 32],
}

impl Presented {
    /// Reads a leaf.
    ///
    /// # Errors
    /// [`IdentityRefusal::Malformed`] if it is no X.509 certificate, is followed by other bytes, or repeats an extension.
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, IdentityRefusal> {
        let (rest, parsed) = x509_parser::parse_x509_certificate(der).map_err(|_| IdentityRefusal::Malformed)?;
        if !rest.is_empty() {
            return Err(IdentityRefusal::Malformed);
        }
        let names = parsed.subject_alternative_name().map_err(|_| IdentityRefusal::Malformed)?;
        let mut uris = Vec::new();
        let mut upns = Vec::new();
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            if let GeneralName::URI(uri) = name {
                uris.push(normal_uri(uri));
            } else if let GeneralName::OtherName(oid, value) = name
                && oid.to_id_string() == UPN_OID
            {
                upns.push(upn(value).ok_or(IdentityRefusal::Malformed)?.to_lowercase());
            }
        }
        Ok(Self {
            issuer: dn::text(parsed.issuer()),
            subject: dn::text(parsed.subject()),
            uris,
            upns,
            serial: data_encoding::HEXLOWER.encode(&parsed.serial.to_bytes_be()),
            not_before_ms: parsed.validity().not_before.timestamp().saturating_mul(1_000),
            not_after_ms: parsed.validity().not_after.timestamp().saturating_mul(1_000),
            fingerprint: fingerprint(der),
        })
    }
}

/// UUIDs are compared without regard to case, all other URIs byte for byte.
fn normal_uri(uri: &str) -> String {
    let lower = uri.to_ascii_lowercase();
    if lower.starts_with("urn:uuid:") { lower } else { uri.to_owned() }
}

/// SHA-256 of `der`.
pub(crate) fn fingerprint(der: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    out
}

/// The text inside `[0] EXPLICIT UTF8String`.
fn upn(value: &[u8]) -> Option<&str> {
    let (rest, outer) = Any::from_der(value).ok()?;
    if !rest.is_empty() || outer.class() != Class::ContextSpecific || outer.tag() != Tag(0) {
        return None;
    }
    let (rest, inner) = Any::from_der(outer.data).ok()?;
    if !rest.is_empty() || inner.tag() != Tag::Utf8String {
        return None;
    }
    std::str::from_utf8(inner.data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        for bytes in [&b""[..], b"\x30\x00", b"not a certificate"] {
            let der = CertificateDer::from(bytes);
            assert_eq!(Presented::parse(&der).map(|_| ()), Err(IdentityRefusal::Malformed));
        }
    }

    #[test]
    fn upn_of_another_form_is_not_read() {
        assert_eq!(upn(b"\xa0\x05\x0c\x03a@b"), Some("a@b"));
        assert_eq!(upn(b"\xa0\x05\x16\x03a@b"), None);
        assert_eq!(upn(b"\x0c\x03a@b"), None);
        assert_eq!(upn(b"\xa0\x05\x0c\x03a@b\x00"), None);
    }
}
