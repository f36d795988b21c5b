//! Where requests come in: an address, with TLS or without.
//!
//! There are at most [`MOST`] connections; one on which nothing happens for
//! [`IDLE`] ends, so that nobody holds a place by doing nothing. A handshake
//! holds up nobody else.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Connections at the same time.
const MOST: usize = 2000;
/// How long nothing may happen on one.
const IDLE: Duration = Duration::from_secs(75);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes that are done and not answered yet.
const DONE: usize = 64;

/// Who is at the other end: an address, without the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(String);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Certificate(#[cfg(feature = "https")] tokio_rustls::TlsAcceptor);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl Certificate {
    /// Reads PEM files.
    #[cfg(feature = "https")]
    pub fn read(chain: &Path, key: &Path) -> io::Result<Self> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let wrong = |path: &Path, why: &dyn fmt::Display| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {why}", path.display()),
            )
        };
        let chain_of: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(chain, &error))?;
        let key_of = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(chain, &error))?
            .with_no_client_auth()
            .with_single_cert(chain_of, key_of)
            .map_err(|error| wrong(chain, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(tokio_rustls::TlsAcceptor::from(Arc::new(config))))
    }

    #[cfg(not(feature = "https"))]
    pub fn read(_: &Path, _: &Path) -> io::Result<Self> {
        let why = "this dk was built without https";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    #[cfg(feature = "https")]
    async fn greet(self, stream: TcpStream) -> io::Result<Box<dyn Wire>> {
        Ok(Box::new(self.0.accept(stream).await?))
    }

    #[cfg(not(feature = "https"))]
    async fn greet(self, stream: TcpStream) -> io::Result<Box<dyn Wire>> {
        Ok(Box::new(stream))
    }
}

/// Where requests come in.
pub struct Door {
    guests: mpsc::Receiver<(Guest, Peer)>,
    at: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Door {
    /// Opens a door at a listener.
    pub fn open(listener: TcpListener, certificate: Option<Certificate>) -> io::Result<Self> {
        let at = listener.local_addr()?;
        let (sender, guests) = mpsc::channel(DONE);
        let task = tokio::spawn(accept(listener, certificate, sender));
        Ok(Self { guests, at, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.at
    }
}

async fn accept(
    listener: TcpListener,
    certificate: Option<Certificate>,
    guests: mpsc::Sender<(Guest, Peer)>,
) {
    let places = Arc::new(Semaphore::new(MOST));
    // Handshakes end with this task.
    let mut greetings = tokio::task::JoinSet::new();
    loop {
        while greetings.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(target: "ci", "the page cannot accept a connection: {error}");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        // A log is many small pieces.
        let _ = stream.set_nodelay(true);
        let (certificate, guests) = (certificate.clone(), guests.clone());
        greetings.spawn(async move {
            let wire: Box<dyn Wire> = match certificate {
                None => Box::new(stream),
                Some(certificate) => match timeout(HANDSHAKE, certificate.greet(stream)).await {
                    Ok(Ok(wire)) => wire,
                    // No browser of ours.
                    _ => return,
                },
            };
            let guest = Guest {
                wire,
                idle: Box::pin(sleep(IDLE)),
                _place: place,
            };
            let _ = guests.send((guest, Peer(address.ip().to_string()))).await;
        });
    }
}

impl axum::serve::Listener for Door {
    type Io = Guest;
    type Addr = Peer;

    async fn accept(&mut self) -> (Guest, Peer) {
        match self.guests.recv().await {
            Some(guest) => guest,
            // The task lives as long as the door.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer(self.at.to_string()))
    }
}

/// What bytes go over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection that ends when nothing happens on it.
pub struct Guest {
    wire: Box<dyn Wire>,
    idle: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Guest {
    /// Passes on what came of something, unless it has been waited for too long.
    fn told<T>(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        use std::future::Future as _;
        if done.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE);
            return done;
        }
        match self.idle.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.wire).poll_read(context, buffer);
        self.told(context, done)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.wire).poll_write(context, bytes);
        self.told(context, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
