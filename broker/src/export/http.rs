//! A sink that is an HTTP endpoint: newline-delimited JSON in POST requests.
//!
//! Beside the sink's cursor, `NAME.token` holds a bearer token and `NAME.ca.pem` the roots that an `https` endpoint is verified
//! by; neither is in the configuration.

use std::{io::ErrorKind, path::Path, sync::Arc};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{Line, SinkError};

/// Most of an answer's body that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An endpoint.
pub(super) struct HttpSink {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: http::Uri,
    token: Option<String>,
}

impl HttpSink {
    pub(super) fn new(url: &http::Uri, folder: &Path, name: &str) -> Result<Self, SinkError> {
        let token = folder.join(format!("{name}.token"));
        let token = match std::fs::read_to_string(&token) {
            Ok(token) => Some(token.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(SinkError::Credentials(format!("`{}`: {error}", token.display()))),
        };
        let mut roots = rustls::RootCertStore::empty();
        if url.scheme_str() == Some("https") {
            let path = folder.join(format!("{name}.ca.pem"));
            let unusable = |why: String| SinkError::Credentials(format!("`{}`: {why}", path.display()));
            let found = CertificateDer::pem_file_iter(&path).map_err(|error| unusable(error.to_string()))?;
            for root in found {
                let root = root.map_err(|error| unusable(error.to_string()))?;
                roots.add(root).map_err(|error| unusable(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SinkError::Credentials(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), url: url.clone(), token })
    }

    pub(super) async fn post(&self, lines: &[Line]) -> Result<(), SinkError> {
        let mut text = String::new();
        for line in lines {
            text.push_str(&line.text);
            text.push('\n');
        }
        let mut request = Request::post(self.url.clone()).header(header::CONTENT_TYPE, "application/x-ndjson");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(text))).map_err(|error| SinkError::Http(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| SinkError::Http(chain(&error)))?;
        let status = answer.status();
        // Read to its end, so that the connection can be used again; what it says is of no use here.
        let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        if status.is_success() { Ok(()) } else { Err(SinkError::Status(status.as_u16())) }
    }
}

/// An error with what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}
