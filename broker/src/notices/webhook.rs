//! Webhooks: one POST of JSON over a connection to an address that was judged. Redirects are not followed.

use std::{path::Path, sync::Arc};

use anteroom_proto::statement::contacts::Webhook;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
};
use tokio_rustls::TlsConnector;

use super::{
    NoticeSettings, SendError,
    message::Message,
    reach,
    smtp::{ROOTS, other, read_roots},
};

/// Most of an answer's body that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

pub(super) async fn post(
    settings: &NoticeSettings,
    folder: &Path,
    to: &Webhook,
    message: &Message,
) -> Result<(), SendError> {
    let request = Request::post(to.target())
        .header(header::HOST, to.authority())
        .header(header::USER_AGENT, "anteroom-notices/1")
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-anteroom-notice", message.id())
        .body(Full::new(Bytes::from(message.json())))
        .map_err(|error| other(&error))?;
    let stream = reach::connect(to.host(), to.port(), to.tls(), &settings.allow).await?;
    if !to.tls() {
        return exchange(stream, request).await;
    }
    let roots = folder.join(ROOTS);
    let tls = spawn_blocking(move || client(&roots)).await.map_err(|error| other(&error))??;
    let name = ServerName::try_from(to.host().to_owned()).map_err(|error| other(&error))?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    exchange(stream, request).await
}

fn client(roots: &Path) -> Result<ClientConfig, SendError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| other(&error))?;
    let Some(pem) = read_roots(roots)? else { return Ok(builder.with_webpki_roots().with_no_client_auth()) };
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&pem) {
        store.add(root.map_err(|error| other(&error))?).map_err(|error| other(&error))?;
    }
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), SendError> {
    let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(|error| other(&error))?;
    let asked = async move {
        let answer = sender.send_request(request).await.map_err(|error| other(&error))?;
        let status = answer.status();
        // Read within bounds, so that the other side sees it taken; what it says is of no use here.
        let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        if status.is_success() { Ok(()) } else { Err(SendError::Status(status.as_u16())) }
    };
    tokio::pin!(asked, connection);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            result = &mut asked => return result,
            _ = &mut connection, if open => open = false,
        }
    }
}
