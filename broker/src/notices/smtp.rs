//! Mail: handed to the operator's relay, which does the rest.

use std::{io::ErrorKind, path::Path};

use anteroom_proto::statement::contacts::MailAddress;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    address::Envelope,
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
        extension::ClientId,
    },
};
use tokio::task::spawn_blocking;

use super::{ATTEMPT_MAX, NoticeSettings, RelayAddress, SendError, message::Message};
use crate::pki::{read_bounded, read_secret};

/// The roots that relays and webhooks are verified by, if the operator gives some.
pub(super) const ROOTS: &str = "ca.pem";
pub(super) const ROOTS_BYTES_MAX: u64 = 1024 * 1024;
const PASSWORD_BYTES_MAX: u64 = 1024;

pub(super) async fn send(
    settings: &NoticeSettings,
    folder: &Path,
    to: &MailAddress,
    message: &Message,
) -> Result<(), SendError> {
    let (Some(relay), Some(from)) = (&settings.relay, &settings.from) else { return Err(SendError::NoRelay) };
    let mail = message.mail(from, to);
    let address = |text: &MailAddress| text.as_str().parse::<Address>().map_err(|error| other(&error));
    let envelope = Envelope::new(Some(address(from)?), vec![address(to)?]).map_err(|error| other(&error))?;
    let domain = from.as_str().rsplit('@').next().unwrap_or_default().to_owned();
    let (at, password, roots) = (relay.clone(), settings.password.clone(), folder.join(ROOTS));
    // Read each time: a password or root that was replaced counts without a restart.
    let relay = spawn_blocking(move || transport(&at, password.as_deref(), &roots, domain)).await;
    let relay = relay.map_err(|error| other(&error))??;
    relay.send_raw(&envelope, mail.as_bytes()).await.map_err(|error| other(&error))?;
    Ok(())
}

fn transport(
    relay: &RelayAddress,
    password: Option<&Path>,
    roots: &Path,
    domain: String,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, SendError> {
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(relay.host.as_str())
        .port(relay.port)
        .hello_name(ClientId::Domain(domain))
        .timeout(Some(ATTEMPT_MAX));
    if relay.tls {
        let mut tls = TlsParameters::builder(relay.host.clone());
        tls = match read_roots(roots)? {
            Some(pem) => tls
                .certificate_store(CertificateStore::None)
                .add_root_certificate(Certificate::from_pem(&pem).map_err(|error| other(&error))?),
            None => tls.certificate_store(CertificateStore::WebpkiRoots),
        };
        builder = builder.tls(Tls::Wrapper(tls.build_rustls().map_err(|error| other(&error))?));
    }
    if let (Some(user), Some(path)) = (&relay.user, password) {
        let bytes = read_secret(path, PASSWORD_BYTES_MAX).map_err(|error| other(&error))?;
        let text =
            String::from_utf8(bytes).map_err(|_| SendError::Other("the relay's password is not UTF-8".to_owned()))?;
        builder = builder.credentials(Credentials::new(user.clone(), text.trim_end().to_owned()));
    }
    Ok(builder.build())
}

/// The operator's roots, if there are any.
pub(super) fn read_roots(path: &Path) -> Result<Option<Vec<u8>>, SendError> {
    match std::fs::exists(path) {
        Ok(false) => Ok(None),
        Ok(true) => read_bounded(path, ROOTS_BYTES_MAX).map(Some).map_err(|error| other(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// An error with what caused it.
pub(super) fn other(error: &dyn std::error::Error) -> SendError {
    SendError::Other(crate::export::chain(error))
}
