//! A 9P server of a file tree: connections, their fids, their requests.
//!
//! One task a connection owns everything of it (no locks), and asks the tree
//! behind `namespace::node`. What stays true:
//!
//! - requests take effect in the order they came, except those that wait;
//!   those wait beside the others, and those of one fid behind each other;
//! - after an Rflush nothing more is said of what was flushed;
//! - whatever a client does, it costs at most its own connection: every table
//!   and queue of it has a bound in [`Limits`];
//! - when a connection ends, everything of it goes, except work that cannot be
//!   taken back: that is waited for.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::metrics::metrics;
use crate::namespace::node::Tree;
use crate::ninep::wire;

mod connection;
mod counts;
mod fault;
mod fid;
mod linux;
mod lock;
mod order;
mod requests;
mod session;
mod stat;
mod transfer;
mod walk;

/// The least a client may offer as its msize.
pub const LEAST_MSIZE: u32 = 4096;

/// How much a client may have of everything.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a message, from [`LEAST_MSIZE`]; a client may ask for less.
    pub msize: u32,
    /// Fids of a connection.
    pub fids: usize,
    /// Requests of a connection that wait.
    pub outstanding: usize,
    /// Locked ranges of a connection.
    pub locks: usize,
    /// Bytes of answers that wait for a client to read them, before no more of
    /// its requests are looked at.
    pub replies: usize,
    /// For how long a client may read nothing while there are answers.
    pub stalled: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            msize: 1 << 20,
            fids: 1 << 18,
            outstanding: 1 << 14,
            locks: 1 << 12,
            replies: 4 << 20,
            stalled: Duration::from_secs(60),
        }
    }
}

/// Why a connection ended before its client was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not 9P: {0}")]
    Frame(wire::Error),
    #[error("a first message that is no Tversion")]
    Version,
    #[error("tag {0} in use twice")]
    Tag(u16),
    #[error("the client has read nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// Serves a tree to any number of connections.
pub struct Server {
    tree: Arc<dyn Tree>,
    limits: Arc<Limits>,
    locks: lock::Locks,
    /// Numbers connections.
    next: AtomicU64,
}

impl Server {
    pub fn new(tree: Arc<dyn Tree>, mut limits: Limits) -> Self {
        limits.msize = limits.msize.max(LEAST_MSIZE);
        Self {
            tree,
            locks: lock::Locks::new(limits.locks),
            limits: Arc::new(limits),
            next: AtomicU64::new(0),
        }
    }

    /// Serves one connection to its end: until the client is done, or does
    /// what it must not. Once `stop` is there no more is read; what cannot be
    /// taken back is finished and answered, and then it ends too.
    ///
    /// The caller logs the error, once. Dropping the future ends the
    /// connection at once.
    pub async fn serve<S>(
        &self,
        stream: S,
        peer: &str,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let _counted = Counted::new();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let requests = requests::Requests::new(
            self.tree.clone(),
            self.limits.clone(),
            self.locks.clone(),
            number,
            peer,
        );
        connection::Connection::new(stream, requests, &self.limits)
            .run(stop)
            .await
    }
}

/// A connection, as long as it is counted.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics().connections.inc();
        metrics().connected.inc();
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics().connections.dec();
    }
}
