//! Making connections: to the broker that answered last, else to the next of those that an address names.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::Uri;

use super::{Address, CONNECT_MAX, ChannelError, TlsSource, address::Place, proxy::Proxy};

/// Makes TLS connections for a channel.
pub(super) struct Connector {
    places: Arc<[(Place, Option<Proxy>)]>,
    /// Which of them is tried first: the one that answered last.
    first: Arc<AtomicUsize>,
    tls: TlsSource,
}

impl Connector {
    pub(super) fn new(address: &Address, tls: &TlsSource) -> Result<Self, ChannelError> {
        let place = |place: &Place| Ok((place.clone(), Proxy::of_environment(&place.authority)?));
        let places: Result<Vec<_>, ChannelError> = address.places().map(place).collect();
        Ok(Self { places: places?.into(), first: Arc::new(AtomicUsize::new(0)), tls: tls.clone() })
    }

    /// How long one of several may take, so that the last is reached within [`CONNECT_MAX`].
    fn patience(&self) -> Duration {
        CONNECT_MAX / u32::try_from(self.places.len()).unwrap_or(u32::MAX).max(1)
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (places, first, patience) = (Arc::clone(&self.places), Arc::clone(&self.first), self.patience());
        let tls = TlsConnector::from(self.tls.current());
        Box::pin(async move {
            let begin = first.load(Ordering::Relaxed);
            let mut failed: Vec<String> = Vec::new();
            let mut last = io::ErrorKind::NotConnected;
            for at in (begin..places.len()).chain(0..begin) {
                let Some((place, proxy)) = places.get(at) else { continue };
                let why = match timeout(patience, one(place, proxy.as_ref(), &tls)).await {
                    Ok(Ok(stream)) => {
                        first.store(at, Ordering::Relaxed);
                        return Ok(TokioIo::new(stream));
                    }
                    // With one broker the error stands as it is, for whoever looks into its causes.
                    Ok(Err(error)) if places.len() == 1 => return Err(error),
                    Ok(Err(error)) => error,
                    Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
                };
                last = why.kind();
                failed.push(format!("{}: {why}", place.authority));
            }
            Err(io::Error::new(last, failed.join("; ")))
        })
    }
}

async fn one(place: &Place, proxy: Option<&Proxy>, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let stream = match proxy {
        Some(proxy) => proxy.connect(&place.authority).await?,
        None => TcpStream::connect(&place.authority).await?,
    };
    stream.set_nodelay(true)?;
    tls.connect(place.server_name.clone(), stream).await
}
