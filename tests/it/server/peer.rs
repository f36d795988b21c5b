//! A client that sends what it is told, right or wrong.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datakit::ninep::message::{Dialect, Reply, Request};
use datakit::ninep::server::{Error, Limits, Server};
use datakit::ninep::wire::{Data, Input, Names, Output};
use rs9p::{NOFID, NOTAG};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::toy::Toy;

/// No event takes longer.
const LIMIT: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}

/// A server of a toy, and how to stop it.
pub struct House {
    pub toy: Toy,
    pub server: Arc<Server>,
    pub stop: watch::Sender<bool>,
    peers: AtomicUsize,
}

impl House {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let toy = Toy::new();
        Self {
            server: Arc::new(Server::new(Arc::new(toy.clone()), limits)),
            toy,
            stop: watch::Sender::new(false),
            peers: AtomicUsize::new(0),
        }
    }

    /// Connects, and says nothing.
    pub fn connect(&self) -> Peer {
        let (stream, other) = duplex(1 << 16);
        let server = self.server.clone();
        let mut stop = self.stop.subscribe();
        let name = format!("peer {}", self.peers.fetch_add(1, Ordering::SeqCst));
        let serving = tokio::spawn(async move {
            let stop = async move {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            server.serve(other, &name, stop).await
        });
        Peer {
            stream,
            input: Input::default(),
            dialect: Dialect::Plain,
            tag: 0,
            serving,
        }
    }

    /// Connects, agrees on a dialect, and attaches fid 0 to the root.
    pub async fn attach(&self, dialect: Dialect) -> Peer {
        self.attach_at(dialect, 1 << 20).await
    }

    pub async fn attach_at(&self, dialect: Dialect, msize: u32) -> Peer {
        let mut peer = self.connect();
        let reply = peer.version(msize, dialect.version()).await;
        assert!(matches!(reply, Reply::Version { .. }), "{reply:?}");
        peer.dialect = dialect;
        let reply = peer.ask(attach(0, "")).await;
        assert!(matches!(reply, Reply::Attach { .. }), "{reply:?}");
        peer
    }

    /// Waits until nothing is left of any connection.
    pub async fn empties(&self) {
        soon("an empty house", async {
            while !self.toy.idle() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub struct Peer {
    pub stream: DuplexStream,
    input: Input,
    pub dialect: Dialect,
    tag: u16,
    pub serving: JoinHandle<Result<(), Error>>,
}

impl Peer {
    pub async fn version(&mut self, msize: u32, version: &'static str) -> Reply {
        let version = version.into();
        self.send(NOTAG, Request::Version { msize, version }).await;
        self.get(NOTAG).await
    }

    pub async fn send(&mut self, tag: u16, request: Request) {
        self.send_all([(tag, request)]).await;
    }

    /// Sends several in one go.
    pub async fn send_all(&mut self, requests: impl IntoIterator<Item = (u16, Request)>) {
        let mut out = Output::default();
        for (tag, request) in requests {
            request.encode(tag, self.dialect, &mut out).unwrap();
        }
        soon("sending", self.stream.write_all_buf(&mut out))
            .await
            .unwrap();
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        soon("sending", self.stream.write_all(bytes)).await.unwrap();
    }

    /// Returns the next answer, or `None` at the end.
    pub async fn next(&mut self) -> Option<(u16, Reply)> {
        soon("an answer", async {
            loop {
                if let Some(frame) = self.input.frame(1 << 24).unwrap() {
                    return Some(Reply::decode(&frame, self.dialect).unwrap());
                }
                if !self.input.fill(&mut self.stream).await.unwrap_or(false) {
                    return None;
                }
            }
        })
        .await
    }

    /// Returns the next answer, which must have this tag.
    pub async fn get(&mut self, tag: u16) -> Reply {
        let (found, reply) = self.next().await.expect("the connection has ended");
        assert_eq!(found, tag, "{reply:?}");
        reply
    }

    pub async fn ask(&mut self, request: Request) -> Reply {
        self.tag = (self.tag + 1) % 1000;
        let tag = 60_000 + self.tag;
        self.send(tag, request).await;
        self.get(tag).await
    }

    /// What has been sent was looked at, and nothing more was answered.
    pub async fn quiet(&mut self) {
        let reply = self.ask(Request::Flush { oldtag: NOTAG }).await;
        assert_eq!(reply, Reply::Flush {});
    }

    /// Walks from fid 0 to a new one.
    pub async fn walk(&mut self, newfid: u32, path: &str) -> Reply {
        self.ask(walk(0, newfid, path)).await
    }

    /// Walks to a new fid and opens it for reading and writing.
    pub async fn open(&mut self, newfid: u32, path: &str) {
        let reply = self.walk(newfid, path).await;
        assert!(matches!(reply, Reply::Walk { .. }), "{path}: {reply:?}");
        let open = self.open_request(newfid);
        let reply = self.ask(open).await;
        assert!(
            matches!(reply, Reply::Open { .. } | Reply::Lopen { .. }),
            "{path}: {reply:?}"
        );
    }

    pub fn open_request(&self, fid: u32) -> Request {
        match self.dialect.is_linux() {
            true => Request::Lopen { fid, flags: 2 },
            false => Request::Open { fid, mode: 2 },
        }
    }

    pub async fn read(&mut self, fid: u32, offset: u64, count: u32) -> Reply {
        self.ask(read(fid, offset, count)).await
    }

    /// Asks for what must fail; returns the text, or the number as text.
    pub async fn refused(&mut self, request: Request) -> String {
        let shown = format!("{request:?}");
        match self.ask(request).await {
            Reply::Error { text, .. } => String::from_utf8(text.to_vec()).unwrap(),
            Reply::Lerror { errno, .. } => errno.to_string(),
            other => panic!("{shown}: {other:?}"),
        }
    }

    /// The connection ends by itself.
    pub async fn ended(mut self) -> Result<(), Error> {
        while self.next().await.is_some() {}
        soon("the end", self.serving).await.unwrap()
    }
}

pub fn attach(fid: u32, aname: &'static str) -> Request {
    Request::Attach {
        fid,
        afid: NOFID,
        uname: "somebody".into(),
        aname: aname.into(),
        n_uname: Some(1000),
    }
}

pub fn walk(fid: u32, newfid: u32, path: &str) -> Request {
    let names: Names = path.split('/').filter(|name| !name.is_empty()).collect();
    Request::Walk { fid, newfid, names }
}

pub fn read(fid: u32, offset: u64, count: u32) -> Request {
    Request::Read { fid, offset, count }
}

pub fn write(fid: u32, offset: u64, data: &'static [u8]) -> Request {
    let data = Data(data.into());
    Request::Write { fid, offset, data }
}

pub fn clunk(fid: u32) -> Request {
    Request::Clunk { fid }
}

pub fn flush(oldtag: u16) -> Request {
    Request::Flush { oldtag }
}

/// What an Rread holds.
pub fn content(reply: &Reply) -> &[u8] {
    match reply {
        Reply::Read { data } => data,
        other => panic!("{other:?}"),
    }
}

/// The number of an error, in dialects that have one.
pub fn errno(reply: &Reply) -> u32 {
    match reply {
        Reply::Lerror { errno, .. } => *errno,
        Reply::Error { errno, .. } => errno.unwrap(),
        other => panic!("{other:?}"),
    }
}
