//! Looking at the certificate that a server shows, without talking to it: for finding out who answers in the broker's place.
//!
//! **Invariant:** the handshake is always given up once the certificate was seen, so that nothing is ever said to a server that is
//! not known.

use std::sync::{Arc, Mutex, PoisonError};

use anteroom_proto::names::Digest;
use rustls::{
    DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{Address, CONNECT_MAX, ChannelError, builder, finish};

/// Longest name that is told.
const NAME_CHARS_MAX: usize = 200;

/// A certificate as a server showed it. Nothing of it is verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Presented {
    /// Who issued it, by its own words.
    pub issuer: String,
    /// SHA-256 of it.
    pub digest: Digest,
}

/// Looks at the certificate that answers at the first place of `address`. `None` if the server shows none.
///
/// # Errors
/// Nobody answers there.
pub async fn look(address: &Address) -> Result<Option<Presented>, ChannelError> {
    let seen = Arc::new(Seen::default());
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Seen>::clone(&seen) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let failed = |why: String| ChannelError::Connect { address: address.authority().to_owned(), why };
    let looking = async {
        let stream = TcpStream::connect(address.authority()).await.map_err(|error| failed(error.to_string()))?;
        // It never succeeds: the verifier says no to everybody.
        let handshake =
            TlsConnector::from(Arc::new(finish(config))).connect(address.server_name().clone(), stream).await;
        drop(handshake);
        Ok::<_, ChannelError>(())
    };
    timeout(CONNECT_MAX, looking).await.map_err(|_| failed("no answer".to_owned()))??;
    let seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(seen.map(|certificate| Presented {
        issuer: issuer(&certificate).unwrap_or_else(|| "an issuer without a readable name".to_owned()),
        digest: Digest::of(&certificate),
    }))
}

/// Remembers the certificate that it says no to.
#[derive(Debug, Default)]
struct Seen(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        Err(TlsError::General("it was only looked at".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("it was only looked at".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("it was only looked at".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// A DER element: its tag, what is in it, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (inside, rest) = rest.split_at_checked(length)?;
    Some((*tag, inside, rest))
}

/// The texts of a certificate's issuer, in order: enough for a person to know it again.
fn issuer(certificate: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const VERSION: u8 = 0xa0;
    let (_, signed, _) = element(certificate)?;
    let (_, mut fields, _) = element(signed)?;
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    let (_, _, fields) = element(fields)?;
    let (_, _, fields) = element(fields)?;
    let (tag, mut names, _) = element(fields)?;
    if tag != SEQUENCE {
        return None;
    }
    let mut texts = Vec::new();
    while let Some((SET, set, rest)) = element(names) {
        names = rest;
        let (_, pair, _) = element(set)?;
        let (_, _, value) = element(pair)?;
        let (_, text, _) = element(value)?;
        let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
        texts.push(text);
    }
    let told: String = texts.join(", ").chars().take(NAME_CHARS_MAX).collect();
    (!told.is_empty()).then_some(told)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;

    use super::*;

    /// A certificate for localhost, issued by somebody of this name.
    fn issued(by: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "Corp");
        params.distinguished_name.push(DnType::CommonName, by);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    #[tokio::test]
    async fn whoever_opens_tls_on_the_way_is_told_by_name_and_told_nothing() {
        let (certificate, key) = issued("Inspection Proxy 7");
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&format!("localhost:{}", listener.local_addr().unwrap().port())).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_ok()
        });
        let presented = look(&address).await.unwrap().unwrap();
        assert_eq!(presented.issuer, "Inspection Proxy 7, Corp");
        assert_eq!(presented.digest, Digest::of(&certificate));
        assert!(!server.await.unwrap(), "the handshake was given up");
    }

    #[tokio::test]
    async fn what_shows_no_certificate_is_told_apart_from_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&format!("127.0.0.1:{}", listener.local_addr().unwrap().port())).unwrap();
        let server = tokio::spawn(async move { drop(listener.accept().await) });
        assert_eq!(look(&address).await.unwrap(), None);
        server.await.unwrap();
        assert!(look(&address).await.is_err(), "nobody listens any more");
    }

    #[test]
    fn no_bytes_make_it_fail_otherwise_than_quietly() {
        let (certificate, _) = issued("x");
        for cut in 0..certificate.len() {
            let _ = issuer(certificate.get(..cut).unwrap_or_default());
        }
        assert_eq!(issuer(&[]), None);
        assert_eq!(issuer(&[0x30, 0x84, 1, 1, 1, 1]), None);
    }
}
