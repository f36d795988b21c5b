//! The file tree, with no wire in it: what a dk database looks like to who
//! mounts it (dk-tree(5)).
//!
//! [`node`] is the seam to whoever serves it. `entry` has what all entries have
//! in common, `files` and `stream` the stock files; the other files each hold a
//! part of the tree. What several connections share is in [`World`], what is
//! private to one in [`Connection`].
//!
//! Locks here are held for a few instructions, never across `.await` and never
//! two at a time, except that a transaction's may be held while its tree is
//! looked into. What takes turns does so by `files::Turn`.

mod blob;
mod branch;
mod call;
mod calls;
mod control;
mod debug;
mod durable;
mod entry;
mod export;
mod failure;
mod files;
mod import;
mod live;
mod maintenance;
pub mod node;
mod operation;
mod query;
mod remotes;
mod root;
mod rw;
mod snapshots;
mod spool;
mod stream;
mod task;
mod transaction;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::metrics::metrics;
use crate::model::{BranchName, Kind, ObjectId, Signature, Time};
use crate::store::face::{self, Looker};
use crate::store::objects::Tree;
use crate::store::{self, Store};

use files::lock;
use node::{Call, Error, Node, Result, Session, Shape};

/// How a tree is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of the program, for `debug/id`.
    pub version: String,
    /// Transactions that one connection may have open.
    pub transactions: usize,
    /// Streams that may be open, of all connections together.
    pub streams: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            transactions: 1024,
            streams: 100_000,
        }
    }
}

/// A dk database as a file tree.
pub struct Namespace(Arc<World>);

impl Namespace {
    pub fn new(store: Arc<Store>, options: Options) -> Self {
        Self(Arc::new(World {
            blobs: blob::Blobs::new(store.clone()),
            looker: Looker::default(),
            streams: stream::Streams::new(options.streams),
            options,
            counter: AtomicU64::new(1),
            connections: Mutex::default(),
            durable: durable::Held::default(),
            remotes: remotes::Remotes::default(),
            running: task::Running::default(),
            operations: operation::Operations::default(),
            started: Time::now().seconds,
            store,
        }))
    }
}

impl node::Tree for Namespace {
    fn session(&self, peer: &str) -> Arc<dyn Session> {
        let number = self.0.count();
        let connection = Arc::new(Connection {
            world: self.0.clone(),
            number,
            peer: peer.into(),
            branches: branch::Branches::default(),
            remotes: remotes::Remotes::default(),
            collect: OnceLock::new(),
            recent: files::Recent::default(),
            turn: files::Turn::default(),
            transactions: AtomicUsize::new(0),
        });
        lock(&self.0.connections).insert(number, Arc::downgrade(&connection));
        Arc::new(Attached(connection))
    }
}

/// What all connections share.
pub struct World {
    pub store: Arc<Store>,
    pub blobs: blob::Blobs,
    pub options: Options,
    pub streams: Arc<stream::Streams>,
    pub looker: Looker,
    /// When it began to serve, in seconds.
    pub started: i64,
    counter: AtomicU64,
    /// Durable transactions in somebody's hands.
    pub durable: durable::Held,
    /// Remotes of the repository.
    pub remotes: remotes::Remotes,
    /// Maintenance under way.
    pub running: task::Running,
    /// What came of requests whose answer may have been lost.
    pub operations: operation::Operations,
    connections: Mutex<BTreeMap<u64, Weak<Connection>>>,
}

impl World {
    /// Runs a piece of work where it may block.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> store::Result<T> + Send + 'static,
    ) -> Result<T> {
        Ok(face::run(&self.store, work).await?)
    }

    /// As [`World::run`], for what must not be done once the call was taken
    /// back. Once begun it is done to its end.
    pub async fn change<T: Send + 'static>(
        &self,
        call: &Call,
        work: impl FnOnce(&Arc<Store>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let call = call.clone();
        let work = move |store: &Arc<Store>| {
            if !call.pass() {
                return Ok(Err(cancelled()));
            }
            Ok(work(store))
        };
        face::run(&self.store, work).await?
    }

    /// Returns a branch's head, at once where that needs no thread to wait on.
    pub async fn head(&self, branch: &BranchName) -> Result<Option<ObjectId>> {
        if let Some(head) = self.store.quick_head(branch) {
            return Ok(head);
        }
        let branch = branch.clone();
        self.run(move |store| store.head(&branch)).await
    }

    /// Returns a tree, at once where it is in memory.
    pub async fn tree(&self, id: &ObjectId) -> Result<Arc<Tree>> {
        if let Some(tree) = self.store.objects.cached_tree(id) {
            return Ok(tree);
        }
        let id = *id;
        self.run(move |store| store.objects.tree(&id)).await
    }

    /// A number that was never given before.
    pub fn count(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Refuses what would write to a store that may not be written.
    pub fn writable(&self) -> Result<()> {
        match self.store.engine.is_read_only() {
            true => Err(Error::new(Kind::ReadOnly, "the store is read-only")),
            false => Ok(()),
        }
    }
}

/// A request that was taken back before it did anything.
pub fn cancelled() -> Error {
    Error::new(Kind::Interrupted, "the request was cancelled")
}

/// Returns who commits when nobody is named, now. Blocks.
pub fn who(store: &Store) -> store::Result<Signature> {
    let identity = store.identity()?;
    Ok(Signature {
        name: identity.name.into_bytes(),
        email: identity.email.into_bytes(),
        time: Time::now(),
    })
}

/// What is private to one connection.
pub struct Connection {
    pub world: Arc<World>,
    pub number: u64,
    pub peer: String,
    pub branches: branch::Branches,
    /// Remotes of a store that cannot keep them.
    pub remotes: remotes::Remotes,
    /// `maintenance/tx`, which keeps a result.
    pub collect: OnceLock<Arc<files::Command>>,
    /// Durable transactions used last.
    pub recent: files::Recent<durable::Durable>,
    /// Of making durable transactions and looking them up.
    pub turn: files::Turn<()>,
    /// Volatile transactions that are open.
    transactions: AtomicUsize,
}

impl Connection {
    /// Counts one more transaction, for as long as the result lives.
    fn enter(self: &Arc<Self>) -> Result<Opened> {
        let most = self.world.options.transactions;
        let entered = |open: usize| (open < most).then_some(open + 1);
        self.transactions
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, entered)
            .map_err(|_| {
                let message = format!("{most} transactions are open on this connection already");
                Error::new(Kind::NoSpace, message)
            })?;
        metrics().transactions.inc();
        Ok(Opened(Arc::downgrade(self)))
    }

    /// Returns how many transactions are open.
    pub fn open_transactions(&self) -> usize {
        self.transactions.load(Ordering::Acquire)
    }

    fn root(self: &Arc<Self>) -> Arc<dyn Node> {
        Arc::new(root::root(self))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.world.connections).remove(&self.number);
    }
}

/// A volatile transaction that is counted.
struct Opened(Weak<Connection>);

impl Drop for Opened {
    fn drop(&mut self) {
        metrics().transactions.dec();
        if let Some(connection) = self.0.upgrade() {
            connection.transactions.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// A connection in the hands of who serves it. Nodes hold on to it too.
struct Attached(Arc<Connection>);

#[async_trait::async_trait]
impl Session for Attached {
    async fn attach(&self, call: &Call, path: &[u8]) -> Result<Arc<dyn Node>> {
        let mut node = self.0.root();
        for step in path.split(|b| *b == b'/').filter(|step| !step.is_empty()) {
            node = match step {
                b"." => node,
                b".." => node.parent().unwrap_or(node),
                name => node.lookup(call, name).await?,
            };
        }
        match node.id().shape {
            Shape::Dir => Ok(node),
            _ => Err(failure::not_directory(crate::model::text::quote(path))),
        }
    }
}
