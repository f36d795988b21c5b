//! What may be asked of a dk database and what it answers: the arguments and
//! results that the client and the store have in common.

use std::io::Read;

use super::{
    BranchName, Change, Commit, Conflict, Entry, ObjectId, Signature, TransactionId, TreePath,
};

/// Where to read a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    Commit(ObjectId),
    /// A tree by its own id.
    Tree(ObjectId),
    /// The tree of a durable transaction as it stands now.
    Transaction(TransactionId),
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub entry: Entry,
    /// Bytes of content; entries, for a directory; 0 for a submodule.
    pub size: u64,
}

/// The content of a file to be written.
pub enum Content<'a> {
    Bytes(&'a [u8]),
    /// Read to its end. `size` spares a copy on disk where it is known; a
    /// reader that gives more or fewer bytes than announced fails the edit.
    Reader {
        reader: &'a mut (dyn Read + Send),
        size: Option<u64>,
    },
}

/// What a file written by [`Edit::Write`] is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Normal where it is new, else as it was.
    Keep,
    Normal,
    Exec,
}

/// One change of a tree. Missing folders are made on the way; a path through a
/// file is `Kind::NotDirectory`.
pub enum Edit<'a> {
    /// Replaces or creates a file. On a directory: `Kind::IsDirectory`.
    Write {
        path: TreePath,
        kind: FileKind,
        content: Content<'a>,
    },
    /// Adds to the end of a file, or creates it.
    Append {
        path: TreePath,
        content: Content<'a>,
    },
    /// Cuts a file, or fills it up with zero bytes. Missing: `Kind::NotFound`.
    Truncate { path: TreePath, size: u64 },
    /// Replaces or creates a symbolic link.
    Link { path: TreePath, target: &'a [u8] },
    /// Makes a folder, and those above it; one that exists is no failure. An
    /// empty folder lives as long as its transaction and is never committed.
    Mkdir { path: TreePath },
    /// Removes a file, or a folder with all below it. Missing: `Kind::NotFound`.
    Remove { path: TreePath },
    /// Moves a file or a folder. An existing file at `to` is replaced; an
    /// existing folder is `Kind::IsDirectory`; into itself `Kind::Invalid`.
    Rename { from: TreePath, to: TreePath },
    /// Puts what is at `from` at `to` as well; otherwise as `Rename`.
    Copy { from: TreePath, to: TreePath },
    /// Makes a file executable, or not.
    Chmod { path: TreePath, exec: bool },
    /// Puts an object of the store at a path, replacing what is there (a
    /// folder is replaced by a file and the other way about).
    Set { path: TreePath, entry: Entry },
}

/// Takes edits one after the other.
pub trait Sink {
    /// Applies one edit. After a failure the sink knows why, nothing of the
    /// whole will be kept, and the source is to return what it got.
    fn edit(&mut self, edit: Edit<'_>) -> Result<(), Stop>;
}

/// Why a source of edits ended early.
#[derive(Debug)]
pub enum Stop {
    /// The sink refused an edit; it keeps the reason.
    Sink,
    /// The source itself failed.
    Source(Box<dyn std::error::Error + Send + Sync>),
}

/// A source of edits: called once, it gives its edits in order. Whatever it
/// fails with ends the whole change with nothing done.
pub struct Edits {
    source: Box<Source>,
    at_hand: bool,
}

type Source = dyn FnOnce(&mut dyn Sink) -> Result<(), Stop> + Send;

impl Edits {
    /// A source that may block: it is called on a thread where that is allowed.
    pub fn new(source: impl FnOnce(&mut dyn Sink) -> Result<(), Stop> + Send + 'static) -> Self {
        Self {
            source: Box::new(source),
            at_hand: false,
        }
    }

    /// A source that waits for nothing, and has its content, at most a few MiB
    /// of it, in memory: no thread is needed for it.
    pub fn at_hand(
        source: impl FnOnce(&mut dyn Sink) -> Result<(), Stop> + Send + 'static,
    ) -> Self {
        Self {
            at_hand: true,
            ..Self::new(source)
        }
    }

    /// Tells whether the source waits for nothing.
    pub fn is_at_hand(&self) -> bool {
        self.at_hand
    }

    /// Gives all edits to a sink.
    pub fn give(self, sink: &mut dyn Sink) -> Result<(), Stop> {
        (self.source)(sink)
    }
}

/// What the head must be for a change to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Expect {
    #[default]
    Any,
    /// The branch has no commit.
    Unborn,
    Head(ObjectId),
}

/// How a commit is made.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// `None`: the transaction's, or a default made from the edits.
    pub message: Option<Vec<u8>>,
    /// `None`: whoever `Client::identity` is, now.
    pub author: Option<Signature>,
    pub expect: Expect,
    /// Fail with `Kind::HeadMoved` rather than merge with a moved head.
    pub ff_only: bool,
    /// What to do when the tree equals the head's.
    pub empty: Empty,
    /// Write a branch that some work tree has checked out.
    pub force: bool,
    /// Keep the transaction open after the commit, based on it.
    pub keep: bool,
}

/// What becomes of a commit that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Empty {
    /// It is made, as any other.
    #[default]
    Allow,
    /// It is not made; the head that stands is the result.
    Skip,
    /// It fails with `Kind::Invalid`.
    Refuse,
}

/// How a branch is moved by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MoveOptions {
    pub expect: Expect,
    /// Refuse with `Kind::HeadMoved` unless the present head is an ancestor.
    pub ff_only: bool,
    pub force: bool,
}

/// Which side of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Base,
    Ours,
    Theirs,
}

/// How `Client::merge` goes about it.
#[derive(Clone, Debug, Default)]
pub struct MergeOptions {
    pub commit: CommitOptions,
    /// Settle every conflict with this side instead of failing.
    pub favour: Option<Side>,
    /// Move no head: report only. The merged tree is written all the same, so
    /// that it can be read.
    pub dry_run: bool,
}

/// What a merge came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The head after it; with `dry_run` the head as it is.
    pub head: Option<ObjectId>,
    /// The merged tree. Conflicting paths hold a conflict file.
    pub tree: ObjectId,
    /// Empty unless `dry_run` (otherwise conflicts are an error).
    pub conflicts: Vec<Conflict>,
    /// Nothing was to be done, or the head moved forward without a merge commit.
    pub fast_forward: bool,
}

/// Which commits `Client::log` gives.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Start here, newest first by commit time, as `git log` does: where clocks
    /// were wrong, a parent may come before one of its children.
    pub from: Vec<ObjectId>,
    /// Leave out these and all they reach.
    pub hidden: Vec<ObjectId>,
    /// Only commits that change one of these, compared with each parent as
    /// `git log` does: a merge that equals one parent there is passed over and
    /// only that parent is followed. Empty: all.
    pub paths: Vec<TreePath>,
    pub first_parent: bool,
    pub limit: Option<u64>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From what the branch is now: only later commits.
    Now,
    /// First the whole present tree as added, then as `Now`.
    Current,
    /// From the beginning of the branch's first-parent history.
    Beginning,
    /// Everything after this commit. Unknown: `Kind::NotFound`.
    Commit(ObjectId),
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchQuery {
    pub branch: BranchName,
    /// Events that change nothing here are passed over.
    pub path: TreePath,
    pub since: Since,
    /// When behind, skip to the newest state: one event with all that differs.
    pub latest: bool,
    /// Also tell commits that change nothing here.
    pub unchanged: bool,
}

/// One move of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A commit of the first-parent chain. `previous` is the one gone past
    /// before it (`None`: the empty tree), whether it was told or changed
    /// nothing here; `changes` are the differences between the two at the
    /// watched path, in path order.
    Commit {
        commit: Box<Commit>,
        previous: Option<ObjectId>,
        /// The head moved to history without `previous`.
        reset: bool,
        changes: Vec<Change>,
    },
    /// The branch was deleted; should it be born again, more events follow.
    Deleted { previous: ObjectId },
}

/// One ref as a remote has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The remote's name for it (`refs/heads/main`).
    pub remote: Vec<u8>,
    pub id: ObjectId,
    /// The local ref it was stored in, if the refspec named one, and what that held before.
    pub local: Option<(Vec<u8>, Option<ObjectId>)>,
    /// Why the local ref was not moved.
    pub rejected: Option<String>,
}

/// A configured remote.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RemoteInfo {
    pub name: String,
    pub url: String,
}

/// What long work tells on the way. Called from any thread, often; cheap.
pub trait Progress: Send + Sync {
    /// A new part begins: its name, and how many units it has if known.
    fn begin(&self, part: &str, total: Option<u64>, bytes: bool);
    fn advance(&self, by: u64);
    /// A line worth showing as it is (`remote: …`).
    fn line(&self, text: &str);
    /// Tells whether nobody waits for the outcome any more: what may be left
    /// half done then ends with [`Kind::Interrupted`](crate::model::Kind::Interrupted).
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
impl Progress for () {
    fn begin(&self, _: &str, _: Option<u64>, _: bool) {}
    fn advance(&self, _: u64) {}
    fn line(&self, _: &str) {}
}

/// What a collection did, or with `dry_run` would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    pub loose_objects: u64,
    pub loose_bytes: u64,
    pub packs: u64,
    pub pack_bytes: u64,
    /// Finished transactions past their time.
    pub transactions: u64,
    /// Files left by processes that died.
    pub leftovers: u64,
}

/// One fault found by `Client::fsck`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// What is wrong: an object's id, or a ref.
    pub what: String,
    pub message: String,
}

/// What a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// As given or found.
    pub url: String,
    /// Tells it from every other store; nothing for one in memory.
    pub id: Option<String>,
    /// Hexadecimal digits in an id: 40 or 64.
    pub id_digits: usize,
    pub read_only: bool,
}
