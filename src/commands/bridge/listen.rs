//! The HTTP listeners of a bridge: so many connections at a time, each for so
//! long, plain or over TLS.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::commands::daemon::Guest;

/// Connections that may be open.
const MOST: usize = 64;
/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// `HOST:PORT`; `:PORT` is every interface, `PORT` this machine only.
pub fn address(text: &str) -> Result<String, String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (host, port) = match text.rsplit_once(':') {
        Some(("", port)) => ("0.0.0.0", port),
        Some(found) => found,
        None => ("127.0.0.1", text),
    };
    match digits(port) && port.parse::<u16>().is_ok() {
        true => Ok(format!("{host}:{port}")),
        false => Err("an address with a port, such as 127.0.0.1:9090".into()),
    }
}

/// The TLS of a listener.
#[cfg(feature = "https")]
type Acceptor = tokio_rustls::TlsAcceptor;
#[cfg(not(feature = "https"))]
type Acceptor = std::convert::Infallible;

/// Reads a certificate with its chain, and its key, both PEM.
#[cfg(feature = "https")]
pub fn tls(certificate: &Path, key: &Path) -> anyhow::Result<Acceptor> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    crate::tls::provide();
    let cannot = |path: &Path| format!("cannot use {}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| cannot(certificate))?;
    let secret = PrivateKeyDer::from_pem_file(key).with_context(|| cannot(key))?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| cannot(certificate))?;
    Ok(Arc::new(config).into())
}

#[cfg(not(feature = "https"))]
pub fn tls(_: &Path, _: &Path) -> anyhow::Result<Acceptor> {
    anyhow::bail!("this dk was built without https, and cannot listen over TLS")
}

/// What bytes go over: TCP, or TLS over it.
pub trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A connection that was let in.
type Visitor = Guest<Box<dyn Both>>;

type Handshakes = FuturesUnordered<Pin<Box<dyn Future<Output = Option<Visitor>> + Send>>>;

/// Where connections come in.
pub struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// How long a connection may last.
    life: Duration,
    tls: Option<Acceptor>,
    /// Those that are not let in yet.
    coming: Handshakes,
}

impl Door {
    pub async fn open(at: &str, life: Duration, tls: Option<Acceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(at).await;
        Ok(Self {
            listener: listener.with_context(|| format!("cannot listen at {at}"))?,
            places: Arc::new(Semaphore::new(MOST)),
            life,
            tls,
            coming: Handshakes::new(),
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn welcome(&self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // A handshake is part of its time.
        let end = Instant::now() + self.life;
        let guest = move |stream: Box<dyn Both>| Guest::new(stream, end, place);
        #[cfg(feature = "https")]
        if let Some(acceptor) = &self.tls {
            let shaken = timeout(PATIENCE, acceptor.accept(stream));
            self.coming.push(Box::pin(async move {
                let stream = shaken.await.ok()?.ok()?;
                Some(guest(Box::new(stream)))
            }));
            return;
        }
        #[cfg(not(feature = "https"))]
        let _ = (&self.tls, timeout::<std::future::Ready<()>>, PATIENCE);
        self.coming
            .push(Box::pin(std::future::ready(Some(guest(Box::new(stream))))));
    }
}

impl axum::serve::Listener for Door {
    type Io = Visitor;
    type Addr = ();

    async fn accept(&mut self) -> (Visitor, ()) {
        loop {
            let arrival = async {
                let place = Arc::clone(&self.places).acquire_owned().await;
                (self.listener.accept().await, place)
            };
            tokio::select! {
                Some(guest) = self.coming.next() => if let Some(guest) = guest {
                    return (guest, ());
                },
                arrived = arrival => match arrived {
                    (Ok((stream, _)), Ok(place)) => self.welcome(stream, place),
                    // Out of files, say: that passes.
                    _ => sleep(Duration::from_millis(200)).await,
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_port() {
        for (text, parsed) in [
            ("9090", "127.0.0.1:9090"),
            (":9090", "0.0.0.0:9090"),
            ("localhost:1", "localhost:1"),
            ("[::1]:9090", "[::1]:9090"),
        ] {
            assert_eq!(address(text).expect(text), parsed);
        }
        for text in ["", "localhost", "localhost:", "1.2.3.4:http", ":99999"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
