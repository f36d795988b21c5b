//! One connection to a 9P server, for any number of callers at once.
//!
//! Offers `9P2000.dk`, whose failures come whole, and falls back to 9P2000.L.
//! A server of ours answers in the order asked, so a walk, an open, a read and
//! a clunk are sent together ([`Connection::open`]); with a stranger each step
//! waits for the one before.
//!
//! What stays true:
//! - Requests under way, and the bytes they carry or may bring, are bounded:
//!   whoever asks for more waits. What waits for ever (streams) is not counted
//!   among the bytes.
//! - A [`Ticket`] that is dropped is taken back with a Tflush, and its tag is
//!   used again after the Rflush only. A [`Fid`] that is dropped is clunked, with
//!   what is asked next or soon after.
//! - A server that says nothing for [`Options::idle`] while something is waited
//!   for is asked something cheap; silent for [`Options::patience`] more, it is
//!   given up. When a connection ends, everything that waits fails with why.
//! - The tasks of a connection end with it, and it ends with its last handle.

use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::model::Kind;
use crate::model::failure::Failure;
use crate::model::text::read_failure;

use super::message::{Dialect, Reply, Request};
use super::wire::{Input, Output, Text};

mod file;
mod link;

pub use super::message::flags;
pub use super::transport::{Endpoint, NotAnEndpoint, connect};
pub use file::{File, Pull};
pub use link::{Fid, Ticket, written};

use link::Link;

/// Where no fid is meant.
const NO_FID: u32 = u32::MAX;
/// The tag of a Tversion.
const NO_TAG: u16 = u16::MAX;

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest message; the server may want less.
    pub msize: u32,
    /// How long a server may be silent before it is asked for a sign of life.
    pub idle: Duration,
    /// How long it then has.
    pub patience: Duration,
    /// Who the user is, as far as the server is told.
    pub uname: String,
    pub uid: u32,
}

impl Default for Options {
    fn default() -> Self {
        let user = std::env::var("USER").unwrap_or_default();
        Self {
            msize: 1 << 20,
            idle: Duration::from_secs(30),
            patience: Duration::from_secs(10),
            uname: if user.is_empty() { "dk".into() } else { user },
            uid: rustix::process::getuid().as_raw(),
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The connection is gone: nobody knows what became of the request.
    pub lost: bool,
    /// The failure came whole, and says all there is to say.
    pub whole: bool,
    pub failure: Failure,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn lost(why: impl Into<String>) -> Self {
        Self {
            lost: true,
            whole: true,
            failure: Failure::new(Kind::Io, why),
        }
    }

    /// A failure of this end, or of what the server said.
    pub fn here(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            lost: false,
            whole: true,
            failure: Failure::new(kind, message),
        }
    }

    fn number(errno: u32) -> Self {
        let kind = super::kind(errno);
        Self {
            lost: false,
            whole: false,
            failure: Failure::new(kind, super::text(kind).to_lowercase()),
        }
    }

    fn told(errno: u32, failure: Option<&Text>) -> Self {
        let text = failure.and_then(|text| std::str::from_utf8(text).ok());
        match text.and_then(read_failure) {
            Some(failure) => Self {
                lost: false,
                whole: true,
                failure,
            },
            None => Self::number(errno),
        }
    }
}

/// A connection; clones are handles of the same one.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    root: Option<Fid>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.fail(&Error::lost("the connection was closed"));
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    /// Begins to speak 9P over a stream, and attaches to the root of the tree.
    pub async fn new<S>(stream: S, options: &Options) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::with(stream, options, async |connection| Ok(connection)).await
    }

    /// As [`Connection::new`], and does what is to be done first. With a server
    /// of ours that does not wait until the attach is answered.
    pub async fn with<S, T>(
        stream: S,
        options: &Options,
        first: impl AsyncFnOnce(Self) -> Result<T>,
    ) -> Result<T>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let limit = options.idle + options.patience;
        let attaching = async {
            let (connection, attached) = Self::begin(stream, options).await?;
            if connection.is_ours() {
                return Ok((connection, Some(attached)));
            }
            attached.attached().await?;
            Ok((connection, None))
        };
        let (connection, attached) = match tokio::time::timeout(limit, attaching).await {
            Ok(result) => result?,
            Err(_) => return Err(Error::lost("the server does not answer")),
        };
        let Some(attached) = attached else {
            return first(connection).await;
        };
        let (attached, done) = futures_util::join!(attached.attached(), first(connection));
        attached.and(done)
    }

    /// Agrees on a dialect, and asks to be attached.
    async fn begin<S>(mut stream: S, options: &Options) -> Result<(Self, Ticket)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut input = Input::default();
        let mut offered = options.msize;
        let mut agreed = None;
        for dialect in [Dialect::Dk, Dialect::Linux] {
            let (msize, version) = version(&mut stream, &mut input, offered, dialect).await?;
            if version == dialect.version().as_bytes() {
                agreed = Some((dialect, msize));
                break;
            }
            offered = offered.min(msize.max(4096));
        }
        let Some((dialect, msize)) = agreed else {
            let message = "the server speaks neither 9P2000.dk nor 9P2000.L";
            return Err(Error::here(Kind::Unsupported, message));
        };
        // Room for a header and a name.
        if msize < 1024 || msize > options.msize {
            let message = format!("the server wants messages of {msize} bytes");
            return Err(Error::here(Kind::Unsupported, message));
        }
        let link = Arc::new(Link::new(dialect, msize));
        let (read, write) = tokio::io::split(stream);
        let mut inner = Inner {
            link: link.clone(),
            root: None,
            tasks: vec![
                tokio::spawn(link::read(link.clone(), input, read)),
                tokio::spawn(link::write(link.clone(), write)),
            ],
        };
        let root = link.fid();
        let attach = Request::Attach {
            fid: root.number(),
            afid: NO_FID,
            uname: options.uname.clone().into(),
            aname: Text::default(),
            n_uname: Some(options.uid),
        };
        let attached = link.start(attach, 0).await?;
        let guard = link::guard(link.clone(), root.number(), options.clone());
        inner.tasks.push(tokio::spawn(guard));
        inner.root = Some(root);
        Ok((Self(Arc::new(inner)), attached))
    }

    /// Returns the root of the tree.
    pub fn root(&self) -> &Fid {
        self.0.root.as_ref().expect("set before anybody sees it")
    }

    /// Tells whether the server speaks as ours do: failures come whole, and
    /// requests of one fid take effect in order.
    pub fn is_ours(&self) -> bool {
        self.0.link.dialect == Dialect::Dk
    }

    /// Returns how much one read or write may carry.
    pub fn unit(&self) -> u32 {
        self.0.link.msize - 24
    }

    /// Returns why the connection ended, if it has.
    pub fn ended(&self) -> Option<Error> {
        self.0.link.ended()
    }

    /// Sends a request, after those sent before. Waits for room only: the
    /// answer is the ticket's. `bytes` is what the request carries or the
    /// answer may bring.
    pub async fn start(&self, request: Request, bytes: u32) -> Result<Ticket> {
        self.0.link.start(request, bytes).await
    }

    /// Sends a walk of one step. The fid may be used at once where
    /// [`Connection::is_ours`]; if the walk fails, so does all that uses it.
    async fn walk(&self, from: &Fid, name: &[u8]) -> Result<(Fid, Ticket)> {
        if name.len() > usize::from(u16::MAX) || name.len() + 64 > self.unit() as usize {
            let message = "what is asked for does not fit into a name of 9P";
            return Err(Error::here(Kind::Invalid, message));
        }
        let to = self.0.link.fid();
        let request = Request::Walk {
            fid: from.number(),
            newfid: to.number(),
            names: [name].into_iter().collect(),
        };
        Ok((to, self.start(request, 0).await?))
    }

    /// Finds a directory or file below another, one step down.
    pub async fn find(&self, from: &Fid, name: &[u8]) -> Result<Fid> {
        let (to, ticket) = self.walk(from, name).await?;
        ticket.walked().await?;
        Ok(to)
    }

    /// Walks to a file and opens it. With a server of ours nothing is waited
    /// for: the first to be answered tells what failed.
    pub async fn open(&self, from: &Fid, names: &[&[u8]], flags: u32) -> Result<File> {
        let mut steps = Vec::with_capacity(names.len());
        let mut at: Option<Fid> = None;
        for name in names {
            let (to, ticket) = self.walk(at.as_ref().unwrap_or(from), name).await?;
            if self.is_ours() {
                steps.push(ticket);
            } else {
                ticket.walked().await?;
            }
            at = Some(to);
        }
        let fid = at.ok_or_else(|| Error::here(Kind::Invalid, "no file is named"))?;
        let request = Request::Lopen {
            fid: fid.number(),
            flags,
        };
        let opened = self.start(request, 0).await?;
        let mut file = File::new(self.clone(), fid, steps, opened);
        if !self.is_ours() {
            file.ready().await?;
        }
        Ok(file)
    }

    /// Makes a directory.
    pub async fn mkdir(&self, dir: &Fid, name: &[u8]) -> Result<Ticket> {
        let request = Request::Mkdir {
            dfid: dir.number(),
            name: name.into(),
            mode: 0o755,
            gid: u32::MAX,
        };
        self.start(request, 0).await
    }

    /// Removes a directory.
    pub async fn rmdir(&self, dir: &Fid, name: &[u8]) -> Result<()> {
        let request = Request::Unlinkat {
            dfid: dir.number(),
            name: name.into(),
            flags: flags::REMOVEDIR,
        };
        self.start(request, 0).await?.done().await
    }
}

fn unexpected(reply: &Reply) -> Error {
    let message = format!("the server answered with an unexpected {}", reply.name());
    Error::here(Kind::Io, message)
}

/// Offers a dialect; returns what the server makes of it.
async fn version<S>(
    stream: &mut S,
    input: &mut Input,
    msize: u32,
    dialect: Dialect,
) -> Result<(u32, Vec<u8>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lost = |error: std::io::Error| Error::lost(error.to_string());
    let nonsense = |error| Error::lost(format!("the server does not speak 9P: {error}"));
    let request = Request::Version {
        msize,
        version: dialect.version().into(),
    };
    let mut out = Output::default();
    request
        .encode(NO_TAG, dialect, &mut out)
        .map_err(nonsense)?;
    while out.has_remaining() {
        stream.write_buf(&mut out).await.map_err(lost)?;
    }
    stream.flush().await.map_err(lost)?;
    loop {
        if let Some(frame) = input.frame(msize.min(64 << 10)).map_err(nonsense)? {
            return match Reply::decode(&frame, dialect).map_err(nonsense)? {
                (_, Reply::Version { msize, version }) => Ok((msize, version.to_vec())),
                (_, Reply::Lerror { .. }) => Ok((msize, Vec::new())),
                (_, other) => Err(unexpected(&other)),
            };
        }
        if !input.fill(stream).await.map_err(lost)? {
            return Err(Error::lost("the server closed the connection"));
        }
    }
}
