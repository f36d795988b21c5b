//! The seam between the file tree and whoever serves it: a 9P server, a FUSE
//! mount, a test.
//!
//! Nothing of a wire shows here: no tags, no fids, no error numbers. What
//! stays true of every tree behind it:
//!
//! - **Order.** The server polls the future of each call for the first time in
//!   the order in which the requests came. At that first poll a call takes
//!   effect, or takes its place in the queue of what it is about (a
//!   transaction's). So effects are in order, although answers may not be.
//! - **Waiting.** A call may take for ever (a stream) or long (a commit);
//!   others are not held up by it.
//! - **Cancelling.** Dropping a call's future takes it back, unless it has
//!   gone past its point of no return, which [`Call::pass`] marks: then the
//!   work goes on, and whoever cancels ([`Call::cancel`]) is told to wait.
//! - Everything private to a connection hangs on its [`Session`] and goes with it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bytes::Bytes;

use super::{entry, failure};
use crate::model::Kind;
use crate::model::failure::Failure;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What 9P2000 and 9P2000.u clients are told, where they know a text of
    /// their own for it; otherwise the usual text for the kind.
    pub text: Option<String>,
    /// The whole of it.
    pub failure: Failure,
}

impl Error {
    /// A failure with the usual text of its kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            text: None,
            failure: Failure::new(kind, message),
        }
    }

    /// A failure that old clients know by this text.
    pub fn text(kind: Kind, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            failure: Failure::new(kind, text.clone()),
            text: Some(text),
        }
    }

    pub fn kind(&self) -> Kind {
        self.failure.kind
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self {
            text: None,
            failure,
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// As the client says; nobody checks it.
    pub uname: Vec<u8>,
    pub uid: Option<u32>,
    /// Where the connection comes from.
    pub peer: String,
}

/// One request: who asks, and whether it can still be taken back.
#[derive(Clone, Debug)]
pub struct Call {
    pub who: Arc<Principal>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    stage: AtomicU8,
    /// The turn it is answered in; 0: none.
    turn: AtomicU64,
}

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const CANCELLED: u8 = 2;

impl Call {
    pub fn new(who: Arc<Principal>) -> Self {
        Self::in_turn(who, 0)
    }

    /// A request that came together with others that only ask: they are
    /// answered in one turn, and one look at the store may serve them all.
    pub fn in_turn(who: Arc<Principal>, turn: u64) -> Self {
        Self {
            who,
            state: Arc::new(State {
                stage: AtomicU8::new(OPEN),
                turn: AtomicU64::new(turn),
            }),
        }
    }

    /// Returns the turn it is answered in, if that is not over. No two turns
    /// of a connection have one number.
    pub fn turn(&self) -> Option<u64> {
        Some(self.state.turn.load(Ordering::Relaxed)).filter(|turn| *turn != 0)
    }

    /// It was not answered in its turn: what is true may be something else by
    /// the time it is.
    pub fn leave_turn(&self) {
        self.state.turn.store(0, Ordering::Relaxed);
    }

    /// Goes past the point of no return. `false`: the request was cancelled
    /// before, and nothing is to be done. Work on another thread asks this
    /// once, right before what cannot be taken back.
    pub fn pass(&self) -> bool {
        let stage = &self.state.stage;
        stage
            .compare_exchange(OPEN, PASSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            || stage.load(Ordering::Acquire) == PASSED
    }

    /// Takes the request back. `false`: too late, an answer will come.
    pub fn cancel(&self) -> bool {
        let stage = &self.state.stage;
        stage
            .compare_exchange(OPEN, CANCELLED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            || stage.load(Ordering::Acquire) == CANCELLED
    }
}

/// What a node is, as far as a listing tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    Dir,
    File,
    Link,
}

/// What makes a node the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    pub shape: Shape,
    /// Equal for equal immutable paths on every connection; a node that can
    /// change has one from its creation to its end, renames included.
    pub path: u64,
    /// 0 where content must not be cached; else it changes with the content.
    pub version: u32,
}

/// What stat tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub id: Id,
    /// Runnable; of a file only.
    pub exec: bool,
    /// May be written, or for a directory changed.
    pub writable: bool,
    /// Bytes; 0 for a directory and a stream.
    pub size: u64,
    /// Seconds since 1970-01-01 00:00 UTC.
    pub mtime: i64,
}

/// How a node is opened. Nobody refuses `write` here: the write is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    pub read: bool,
    pub write: bool,
    /// Empty the file first, which only files that can be written heed.
    pub truncate: bool,
    /// Every write goes to the end.
    pub append: bool,
}

/// What is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Create {
    /// With `exclusive` an existing one is [`Kind::Exists`]; without, it is
    /// emptied and its kind set.
    File {
        exec: bool,
        exclusive: bool,
    },
    Dir,
    /// `None`: a dialect that cannot say it.
    Link {
        target: Option<Vec<u8>>,
    },
}

/// What is to become of a node. Times and owners are nobody's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub size: Option<u64>,
    pub kind: Option<Create>,
}

/// A tree of files that can be served.
pub trait Tree: Send + Sync + 'static {
    /// Begins what is private to one connection; it ends when dropped.
    fn session(&self, peer: &str) -> Arc<dyn Session>;
}

/// One connection's view of a tree.
#[async_trait::async_trait]
pub trait Session: Send + Sync {
    /// Returns the root, or the directory with this path below it.
    async fn attach(&self, call: &Call, path: &[u8]) -> Result<Arc<dyn Node>>;
}

/// One entry of the tree, of whatever kind. Asking a file for what only a
/// directory has fails, and the other way about.
#[async_trait::async_trait]
pub trait Node: Send + Sync + 'static {
    fn as_any(&self) -> &dyn Any;

    fn id(&self) -> Id;

    /// The last element of its path; `/` for the root.
    fn name(&self) -> Vec<u8>;

    /// The directory it is in; the root has none.
    fn parent(&self) -> Option<Arc<dyn Node>>;

    async fn attr(&self, call: &Call) -> Result<Attr>;

    /// Finds an entry of a directory. Never asked for `.` and `..`.
    async fn lookup(&self, call: &Call, name: &[u8]) -> Result<Arc<dyn Node>>;

    async fn open(&self, call: &Call, how: Open) -> Result<Arc<dyn Handle>>;

    /// Creates an entry of a directory; it is opened by itself afterwards.
    async fn create(&self, call: &Call, name: &[u8], what: Create) -> Result<Arc<dyn Node>>;

    /// Moves it to a directory of the same tree under a name. Whoever has it
    /// open goes on with it.
    async fn rename(&self, call: &Call, into: &Arc<dyn Node>, name: &[u8]) -> Result<()>;

    /// Removes it. A directory with entries: all of it with `recursive`,
    /// otherwise [`Kind::NotEmpty`].
    async fn remove(&self, call: &Call, recursive: bool) -> Result<()>;

    async fn set(&self, call: &Call, set: Set) -> Result<()>;

    /// The target of a link.
    async fn target(&self, call: &Call) -> Result<Vec<u8>>;

    /// Makes what was written to it durable, whoever wrote it.
    async fn sync(&self, call: &Call) -> Result<()>;

    /// The id of the Git object behind it, where there is one.
    fn object(&self) -> Option<crate::model::ObjectId> {
        None
    }
}

/// A node that was opened. Dropping it lets go of whatever it holds and ends
/// what waits on it. Where nothing else is said it is a file that is only
/// read: whoever takes writes says too what sync and close make of them.
#[async_trait::async_trait]
pub trait Handle: Send + Sync {
    /// Tells whether a read may wait for something to happen, as a stream's
    /// does, and not only for work to be done. Whoever closes the handle does
    /// not wait for such a read but cancels it first.
    fn waits(&self) -> bool {
        false
    }

    /// Reads up to `count` bytes. A file by position; a stream or a command's
    /// result in sequence, with the marker reads of spec 5.2: what is empty is
    /// to be passed on as it is.
    async fn read(&self, call: &Call, offset: u64, count: u32) -> Result<Bytes>;

    /// Writes all of it.
    async fn write(&self, _call: &Call, _offset: u64, _data: Bytes) -> Result<()> {
        Err(failure::read_only_file())
    }

    /// Takes a listing of a directory as it is now.
    async fn list(&self, _call: &Call) -> Result<Arc<dyn Listing>> {
        Err(entry::no_listing())
    }

    /// Makes what was written durable.
    async fn sync(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// Ends it, telling what went wrong with what was written. Called once, as
    /// the last of its calls; not when the connection is lost.
    async fn close(&self, _call: &Call) -> Result<()> {
        Ok(())
    }
}

/// The entries of a directory at one moment. `.` and `..` are not among them.
pub trait Listing: Send + Sync {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the name and identity of an entry; `index` is below [`Listing::len`].
    fn entry(&self, index: usize) -> (Vec<u8>, Id);
}
