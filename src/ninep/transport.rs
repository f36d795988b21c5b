//! Where a 9P server listens and a client connects: TCP, Unix sockets, and
//! sockets inherited from whoever started the process.
//!
//! - A TCP connection has keep-alive and sends small packets at once; one whose
//!   peer vanished fails within [`SILENCE`] or so.
//! - A Unix socket is never open to more users than asked for, not even for a
//!   moment; one in use is never taken away from its server; it is removed at
//!   the end if it is still the same.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

mod unix;

/// The port of 9P where none is named.
pub const PORT: u16 = 5640;

/// The permissions of a Unix socket where none are named: its owner's alone.
pub const MODE: u32 = 0o600;

/// For how long a TCP peer may answer nothing, keep-alive probes and data
/// included.
pub const SILENCE: Duration = Duration::from_secs(120);

/// For how long an address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// An address that one can listen at or connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `tcp://HOST:PORT`. An empty host is every interface, or, to connect
    /// to, this machine.
    Tcp { host: String, port: u16 },
    /// `unix:///PATH`.
    Unix { path: PathBuf, mode: u32 },
    /// `fd://N`: a listening socket inherited under this number.
    Fd(i32),
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAnEndpoint(String);

/// Why an endpoint could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    pub what: String,
    #[source]
    pub source: io::Error,
}

impl Error {
    fn at(endpoint: &Endpoint, verb: &str) -> impl FnOnce(io::Error) -> Self {
        let what = format!("cannot {verb} {endpoint}");
        move |source| Self { what, source }
    }

    /// Tells whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        !matches!(
            self.source.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
        )
    }
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    /// Understands `tcp://[HOST][:PORT]`, `unix://PATH[?mode=OCTAL]`, `fd://N`,
    /// and `file://PATH`, DataKit's name for a Unix socket.
    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        let refuse = |why: &str| Err(NotAnEndpoint(format!("{text}: {why}")));
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("an address begins with tcp://, unix:// or fd://");
        };
        match scheme {
            "tcp" => match host_and_port(rest.strip_suffix('/').unwrap_or(rest)) {
                Ok((host, port)) => Ok(Self::Tcp {
                    host: host.into(),
                    port,
                }),
                Err(why) => refuse(why),
            },
            "unix" | "file" => {
                let (path, mode) = match rest.rsplit_once("?mode=") {
                    None => (rest, MODE),
                    Some((path, digits)) => match u32::from_str_radix(digits, 8) {
                        Ok(mode) if mode <= 0o777 => (path, mode),
                        _ => return refuse("a mode is three octal digits, such as 0660"),
                    },
                };
                if path.is_empty() || path.contains('\0') {
                    return refuse("a socket needs a path");
                }
                Ok(Self::Unix {
                    path: path.into(),
                    mode,
                })
            }
            "fd" => match rest.parse() {
                Ok(number) if number >= 0 => Ok(Self::Fd(number)),
                _ => refuse("an inherited socket is named by its number, such as fd://3"),
            },
            _ => refuse("there are only tcp://, unix:// and fd:// addresses"),
        }
    }
}

/// Takes `HOST`, `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or nothing apart.
fn host_and_port(text: &str) -> Result<(&str, u16), &'static str> {
    const BAD_PORT: &str = "a port is a number up to 65535, as in tcp://HOST:5640";
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a ] is missing")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("between [ and ] stands an IPv6 address");
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(BAD_PORT),
        }
    } else {
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => {
                return Err("an IPv6 address stands in [ and ]");
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@[]".contains(c)) {
        return Err("that is no name of a host");
    }
    let port = match port {
        None => PORT,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| BAD_PORT)?
        }
        Some(_) => return Err(BAD_PORT),
    };
    Ok((host, port))
}

impl fmt::Display for Endpoint {
    /// Prints what [`FromStr`] reads; the port always, a mode where it is not
    /// the usual one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix { path, mode } => {
                write!(f, "unix://{}", path.display())?;
                match *mode {
                    MODE => Ok(()),
                    mode => write!(f, "?mode={mode:04o}"),
                }
            }
            Self::Fd(number) => write!(f, "fd://{number}"),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects to a server.
///
/// Tries every address of a host in turn, each for a limited time.
pub async fn connect(endpoint: &Endpoint) -> Result<Stream, Error> {
    let connected = match endpoint {
        Endpoint::Tcp { host, port } => connect_tcp(host, *port).await.map(Stream::Tcp),
        Endpoint::Unix { path, .. } => UnixStream::connect(path).await.map(Stream::Unix),
        Endpoint::Fd(_) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "an inherited socket is for listening",
        )),
    };
    connected.map_err(Error::at(endpoint, "connect to"))
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let host = if host.is_empty() { "localhost" } else { host };
    let mut failed = None;
    for address in tokio::net::lookup_host((host, port)).await? {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failed = Some(error),
            Err(_) => failed = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address")))
}

/// Makes a TCP connection send small packets at once, and notice a peer that
/// is gone.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = 4;
    let keepalive = TcpKeepalive::new()
        .with_time(SILENCE / 2)
        .with_interval(SILENCE / 2 / probes)
        .with_retries(probes);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    // Probes are only sent while nothing waits to be acknowledged.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    Ok(())
}

/// A socket that accepts connections. Dropping it stops that, and removes the
/// file of a Unix socket.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    accepts: Accepts,
}

#[derive(Debug)]
enum Accepts {
    Tcp(TcpListener),
    /// With the file, where it was made here.
    Unix {
        listener: UnixListener,
        _file: Option<unix::Owned>,
    },
}

impl Listener {
    /// Begins to listen.
    pub async fn bind(endpoint: &Endpoint) -> Result<Self, Error> {
        let made = match endpoint {
            Endpoint::Tcp { host, port } => listen_tcp(host, *port).await.map(Accepts::Tcp),
            Endpoint::Unix { path, mode } => {
                unix::listen(path, *mode).map(|(listener, file)| Accepts::Unix {
                    listener,
                    _file: Some(file),
                })
            }
            Endpoint::Fd(number) => inherit(*number),
        };
        let accepts = made.map_err(Error::at(endpoint, "listen at"))?;
        let mut endpoint = endpoint.clone();
        // The port the system chose.
        if let (Accepts::Tcp(made), Endpoint::Tcp { port, .. }) = (&accepts, &mut endpoint) {
            *port = made.local_addr().map_or(*port, |address| address.port());
        }
        Ok(Self { endpoint, accepts })
    }

    /// Returns where it listens, with the port that was chosen for port 0.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits for a connection; also returns who it is from. Cancel-safe. An
    /// error is no reason to give up: it may be about one connection, or the
    /// process may have too many files open for the moment.
    pub async fn accept(&self) -> io::Result<(Stream, String)> {
        match &self.accepts {
            Accepts::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                prepare(&stream)?;
                Ok((Stream::Tcp(stream), address.to_string()))
            }
            Accepts::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let peer = match stream.peer_cred() {
                    Ok(who) => match who.pid() {
                        Some(pid) => format!("unix: uid {}, pid {pid}", who.uid()),
                        None => format!("unix: uid {}", who.uid()),
                    },
                    Err(_) => "unix".into(),
                };
                Ok((Stream::Unix(stream), peer))
            }
        }
    }
}

async fn listen_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut addresses: Vec<SocketAddr> = if host.is_empty() {
        // The first takes IPv4 too; the second is for machines without IPv6.
        vec![
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
        ]
    } else {
        let mut found: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        found
    };
    addresses.dedup();
    let mut failed = None;
    for address in addresses {
        match listen_at(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address")))
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Tells whether it is a listening socket, where the system can say so.
fn listens(socket: &Socket) -> bool {
    #[cfg(not(target_vendor = "apple"))]
    return socket.is_listener().unwrap_or(false);
    #[cfg(target_vendor = "apple")]
    return socket.local_addr().is_ok();
}

/// Takes over a listening socket that the process was started with.
fn inherit(number: i32) -> io::Result<Accepts> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let Ok(copy) = filedescriptor::FileDescriptor::dup(&number).and_then(|copy| copy.as_file())
    else {
        return refuse("nothing is open under that number");
    };
    let socket = Socket::from(std::os::fd::OwnedFd::from(copy));
    if !listens(&socket) || socket.r#type()? != Type::STREAM {
        return refuse("that is no listening stream socket");
    }
    // The original would go to every program that is started. The standard
    // streams stay open, lest something else be taken for one.
    if number > 2 {
        drop(filedescriptor::FileDescriptor::new(number));
    }
    socket.set_nonblocking(true)?;
    match socket.local_addr()?.domain() {
        Domain::UNIX => Ok(Accepts::Unix {
            listener: UnixListener::from_std(socket.into())?,
            _file: None,
        }),
        Domain::IPV4 | Domain::IPV6 => Ok(Accepts::Tcp(TcpListener::from_std(socket.into())?)),
        _ => refuse("that socket is neither TCP nor Unix"),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn parsed(text: &str) -> Endpoint {
        text.parse().expect(text)
    }

    #[test]
    fn endpoints_print_as_they_are_read() {
        for (text, printed) in [
            ("tcp://", "tcp://:5640"),
            ("tcp://:1", "tcp://:1"),
            ("tcp://127.0.0.1", "tcp://127.0.0.1:5640"),
            ("tcp://db.example.org:9/", "tcp://db.example.org:9"),
            ("tcp://[::1]", "tcp://[::1]:5640"),
            ("tcp://[::1]:80", "tcp://[::1]:80"),
            ("unix:///run/dk", "unix:///run/dk"),
            ("unix:///run/dk?mode=0600", "unix:///run/dk"),
            ("unix:///run/dk?mode=660", "unix:///run/dk?mode=0660"),
            ("file:///run/dk", "unix:///run/dk"),
            ("fd://3", "fd://3"),
        ] {
            let endpoint = parsed(text);
            assert_eq!(endpoint.to_string(), printed);
            assert_eq!(parsed(printed), endpoint);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_in_words() {
        for (text, why) in [
            ("", "begins with tcp://"),
            ("localhost:5640", "begins with tcp://"),
            ("http://x", "only tcp://"),
            ("tcp://::1", "IPv6"),
            ("tcp://[::1", "] is missing"),
            ("tcp://[x]:1", "IPv6"),
            ("tcp://[::1]5", "port"),
            ("tcp://h:65536", "port"),
            ("tcp://h:+1", "port"),
            ("tcp://h:", "port"),
            ("tcp://h/x", "host"),
            ("tcp://a b", "host"),
            ("unix://", "path"),
            ("unix:///x?mode=8", "mode"),
            ("unix:///x?mode=01777", "mode"),
            ("fd://", "number"),
            ("fd://-1", "number"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    async fn talk(listener: &Listener, to: &Endpoint) {
        let (accepted, connected) = tokio::join!(listener.accept(), connect(to));
        let ((mut here, peer), mut there) = (accepted.expect("accepts"), connected.expect("is in"));
        assert!(!peer.is_empty());
        there.write_all(b"word").await.expect("writes");
        let mut word = [0; 4];
        here.read_exact(&mut word).await.expect("reads");
        assert_eq!(&word, b"word");
    }

    #[tokio::test]
    async fn tcp_listens_where_it_says() {
        for text in ["tcp://127.0.0.1:0", "tcp://localhost:0", "tcp://:0"] {
            let listener = Listener::bind(&parsed(text)).await.expect(text);
            let endpoint = listener.endpoint().clone();
            assert!(!matches!(endpoint, Endpoint::Tcp { port: 0, .. }));
            talk(&listener, &endpoint).await;
            let taken = Listener::bind(&endpoint).await.expect_err("in use");
            assert_eq!(taken.source.kind(), io::ErrorKind::AddrInUse);
            assert!(taken.may_pass());
        }
    }

    #[tokio::test]
    async fn an_inherited_socket_must_be_one() {
        let error = Listener::bind(&parsed("fd://99999")).await;
        assert!(!error.expect_err("nothing is there").may_pass());
        let file = tempfile::tempfile().expect("a file");
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let error = Listener::bind(&Endpoint::Fd(number)).await;
        assert!(!error.expect_err("a file").may_pass());
        assert!(file.metadata().is_ok(), "what is refused stays open");

        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = socket.local_addr().expect("an address");
        let number = std::os::fd::IntoRawFd::into_raw_fd(socket);
        let listener = Listener::bind(&Endpoint::Fd(number)).await.expect("taken");
        talk(&listener, &parsed(&format!("tcp://{address}"))).await;
        assert_eq!(listener.endpoint(), &Endpoint::Fd(number));
    }
}
