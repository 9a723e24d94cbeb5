//! Renewal: at two thirds of a certificate's life the next one is asked for, over a connection that shows the present one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anteroom_proto::{
    rpc::{RenewRequest, directory_client::DirectoryClient},
    time::At,
};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{Credentials, request};
use crate::{
    channel::TlsSource,
    error::{Error, VerificationError},
    system,
};

/// How long to wait after a failure, and at most between two looks at the clock, which a suspended machine does not notice.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// When a certificate got at `issued` that ends at `end` is renewed: at two thirds of its life.
#[must_use]
pub fn renew_at(issued: At, end: At) -> At {
    issued.plus_ms(end.since(issued).max(0) / 3 * 2)
}

/// Asks for the next certificate, for a new key, over a connection that shows the present one.
///
/// # Errors
/// The broker refuses or cannot be reached, or answers with another identity.
pub async fn renew(channel: Channel, present: &Credentials) -> Result<Credentials, Error> {
    let (key_pem, csr_der) = request()?;
    let reply = DirectoryClient::new(channel).renew(RenewRequest { csr_der }).await?;
    let next = Credentials::from_reply(reply.into_inner(), key_pem, Some(&present.roots_pem))?;
    if present.identity.is_empty() || next.identity == present.identity {
        Ok(next)
    } else {
        Err(VerificationError::Other("identity").into())
    }
}

/// A task that renews credentials for as long as this value lives.
#[derive(Debug)]
pub struct Renewal(JoinHandle<()>);

impl Renewal {
    /// Starts renewing: each new certificate is written to `folder`, then used for connections from there on.
    #[must_use]
    pub fn start(channel: Channel, credentials: Credentials, folder: &Path, tls: &TlsSource) -> Self {
        let (folder, tls) = (folder.to_owned(), tls.clone());
        Self(tokio::spawn(run(channel, credentials, folder, tls)))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(channel: Channel, mut held: Credentials, folder: PathBuf, tls: TlsSource) {
    while let Some((issued, end)) = held.life {
        let left = renew_at(issued, end).since(system::now());
        if let Ok(left) = u64::try_from(left)
            && left > 0
        {
            tokio::time::sleep(Duration::from_millis(left).min(LOOK_EVERY)).await;
            continue;
        }
        match take_next(channel.clone(), &held, &folder, &tls).await {
            Ok(next) => {
                tracing::info!(identity = next.identity(), "certificate renewed");
                held = next;
            }
            Err(error) => {
                tracing::warn!(%error, "the certificate could not be renewed; trying again in a minute");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

async fn take_next(channel: Channel, held: &Credentials, folder: &Path, tls: &TlsSource) -> Result<Credentials, Error> {
    let next = renew(channel, held).await?;
    let config = next.tls()?;
    let (kept, folder) = (next.clone(), folder.to_owned());
    let saved = tokio::task::spawn_blocking(move || kept.save(&folder)).await;
    saved.map_err(|_| Error::Interrupted)??;
    tls.replace(config);
    Ok(next)
}
