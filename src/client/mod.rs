//! What a program may ask of a dk database, wherever it lives.
//!
//! Speaks only the words of `model`: nothing here knows whether the answer
//! comes from a Git repository in this process or from a server far away.
//!
//! Order and concurrency: every method may be called from any task at any
//! time. A method that changes something returns when the change is as durable
//! as the store promises. Dropping the future of a change before it is done
//! leaves it either done or not done, never half.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;

use crate::model::failure::Failure;
pub use crate::model::request::*;
use crate::model::{
    Branch, BranchName, Change, Commit, ConflictKind, Identity, Item, Kind, ObjectId, Rev,
    Signature, Transaction, TransactionId, TreePath,
};

pub mod local;
pub mod remote;

/// Why a database operation failed.
///
/// The same failure has the same class and the same words for every
/// implementation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} does not exist")]
    NotFound { what: String },
    /// `paths` are those left in conflict; the text names some of them.
    #[error("{} in conflict: {}", count(.paths.len(), "path"), listed(.paths))]
    Conflict {
        paths: Vec<TreePath>,
        kinds: Vec<ConflictKind>,
    },
    /// The head was elsewhere.
    #[error("{message}")]
    HeadMoved {
        message: String,
        actual: Option<ObjectId>,
    },
    /// One of the edits of a change was refused, and it is known which.
    #[error(transparent)]
    Edit(Refused),
    /// Anything else: the class, and what could not be done and why.
    #[error("{message}")]
    Other {
        kind: Kind,
        message: String,
        hint: Option<String>,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// Why an edit was refused. It reads as that reason alone.
#[derive(Debug)]
pub struct Refused {
    /// The first edit is number 1.
    pub number: usize,
    pub error: Box<Error>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn listed(paths: &[TreePath]) -> String {
    const SHOWN: usize = 10;
    let mut names: Vec<String> = paths.iter().take(SHOWN).map(ToString::to_string).collect();
    if paths.len() > SHOWN {
        names.push(format!("and {} more", paths.len() - SHOWN));
    }
    names.join(", ")
}

impl Error {
    /// Returns the class of this failure, the same for every implementation.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::Conflict { .. } => Kind::Conflict,
            Self::HeadMoved { .. } => Kind::HeadMoved,
            Self::Edit(refused) => refused.error.kind(),
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Returns what the user could do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Edit(refused) => refused.error.hint(),
            Self::Other { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// A failure of class `kind` with no cause below it.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::Other {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }
}

impl From<Failure> for Error {
    fn from(mut failure: Failure) -> Self {
        if let Some(number) = failure.edit.take() {
            let error = Box::new(failure.into());
            return Self::Edit(Refused { number, error });
        }
        match (failure.kind, failure.missing, failure.actual) {
            (Kind::NotFound, Some(what), _) => Self::NotFound { what },
            (Kind::HeadMoved, _, Some(actual)) => Self::HeadMoved {
                message: failure.message,
                actual,
            },
            (Kind::Conflict, ..) if !failure.paths.is_empty() => {
                let (paths, kinds) = failure.paths.into_iter().unzip();
                Self::Conflict { paths, kinds }
            }
            (kind, ..) => Self::Other {
                kind,
                message: failure.message,
                hint: failure.hint,
                source: chain(failure.causes),
            },
        }
    }
}

/// A cause of which only the text is known.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Cause {
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

fn chain(causes: Vec<String>) -> Option<Box<dyn std::error::Error + Send + Sync>> {
    let nest = |source, text| Some(Box::new(Cause { text, source }) as Box<_>);
    causes.into_iter().rev().fold(None, nest)
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A stream of results that ends itself when dropped.
pub type Records<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// Bytes of an opened file that are there at once, or all of a shorter one.
pub const AT_HAND: usize = 64 << 10;

/// A dk database.
///
/// Implemented by `Local` (a Git repository in this process) and `Remote` (a
/// server). All must pass `tests/it/client_contract.rs`; a
/// behaviour not tested there is not promised here.
#[async_trait::async_trait]
pub trait Client: Send + Sync {
    async fn info(&self) -> Result<StoreInfo>;

    /// Returns who commits when nobody is named: the environment's
    /// `GIT_AUTHOR_*`/`GIT_COMMITTER_*`, Git's `user.*`, or dk's default.
    async fn identity(&self) -> Result<Identity>;

    // Revisions and branches.

    /// Returns the commit a revision names. Tags are peeled.
    /// A prefix that fits several commits is [`Kind::Ambiguous`].
    async fn resolve(&self, rev: &Rev) -> Result<ObjectId>;

    async fn commit(&self, id: &ObjectId) -> Result<Commit>;

    /// Returns the branches that have a commit, in order of their names.
    async fn branches(&self) -> Result<Vec<Branch>>;

    /// Returns the branches of remotes as they were last fetched, named
    /// `REMOTE/BRANCH`, in order. As a revision each is `refs/remotes/` and its name.
    async fn fetched_branches(&self) -> Result<Vec<Branch>>;

    /// Returns a branch's head; `None` while it is unborn.
    async fn head(&self, branch: &BranchName) -> Result<Option<ObjectId>>;

    /// Moves a head to a commit, creating the branch where it is new.
    async fn move_head(
        &self,
        branch: &BranchName,
        to: &ObjectId,
        options: MoveOptions,
    ) -> Result<()>;

    /// Deletes a branch; returns the head it had. Missing: [`Kind::NotFound`].
    async fn delete_branch(&self, branch: &BranchName, options: MoveOptions) -> Result<ObjectId>;

    /// Renames a branch in one step. `to` exists: [`Kind::Exists`].
    async fn rename_branch(
        &self,
        from: &BranchName,
        to: &BranchName,
        force: bool,
    ) -> Result<ObjectId>;

    // Reading. Commits and trees never change, so these never wait for a writer.

    /// Returns what stands at a path; `None` where nothing does.
    async fn stat(&self, at: &At, path: &TreePath) -> Result<Option<Stat>>;

    /// Returns a folder's entries in Git's order, with sizes if asked for.
    /// Missing: [`Kind::NotFound`]; a file: [`Kind::NotDirectory`].
    async fn list(&self, at: &At, path: &TreePath, sizes: bool) -> Result<Vec<Item>>;

    /// Gives every leaf below a folder in path order, with paths relative to
    /// it. For a leaf itself, one item with the empty path.
    fn walk(&self, at: &At, path: &TreePath, sizes: bool) -> Records<Item>;

    /// Opens a file. Memory does not grow with its length. The reader blocks:
    /// use it where that is allowed. (The first [`AT_HAND`] may be read anywhere.)
    async fn open(&self, at: &At, path: &TreePath) -> Result<Box<dyn Read + Send>>;

    /// Opens a blob by its id. Where there is none, or something else has that
    /// id: [`Kind::NotFound`].
    async fn open_blob(&self, id: &ObjectId) -> Result<Box<dyn Read + Send>>;

    /// Opens several blobs that some tree names, in one go. Small ones may be
    /// in memory when this returns, so ask for few at a time.
    async fn open_blobs(&self, ids: &[ObjectId]) -> Result<Vec<Box<dyn Read + Send>>> {
        let mut readers = Vec::with_capacity(ids.len());
        for id in ids {
            readers.push(self.open_blob(id).await?);
        }
        Ok(readers)
    }

    /// Returns the leaves that differ, in path order. A folder that came or
    /// went is expanded to its leaves.
    async fn diff(&self, from: &At, to: &At, path: &TreePath) -> Result<Vec<Change>>;

    fn log(&self, query: LogQuery) -> Records<Commit>;

    /// Returns the best common ancestors, in no order that means anything.
    async fn merge_bases(&self, a: &ObjectId, b: &ObjectId) -> Result<Vec<ObjectId>>;

    // Writing.

    /// Applies edits to a branch's head as one commit, and returns the new head.
    ///
    /// Where another writer got there first the edits are applied again to what
    /// it left, so concurrent edits of different files both stand and no merge
    /// commit is made; of one file the last wins. An unborn branch is born.
    async fn edit(
        &self,
        branch: &BranchName,
        edits: Edits,
        options: CommitOptions,
    ) -> Result<ObjectId>;

    /// Merges a commit into a branch.
    async fn merge(
        &self,
        branch: &BranchName,
        theirs: &ObjectId,
        options: MergeOptions,
    ) -> Result<Merged>;

    // Durable transactions.

    /// Begins a transaction on a branch, from `from` or the branch's head.
    /// A name in use: [`Kind::Exists`].
    async fn begin(
        &self,
        branch: &BranchName,
        from: Option<&ObjectId>,
        name: Option<&TransactionId>,
        author: Option<Signature>,
    ) -> Result<Transaction>;

    /// Returns the transactions in the store, committed ones not yet expired
    /// included, oldest first.
    async fn transactions(&self) -> Result<Vec<Transaction>>;

    /// Returns the transaction with this id or unambiguous prefix.
    async fn transaction(&self, prefix: &str) -> Result<Transaction>;

    /// Applies edits; durable when it returns. An edit of a path settles the
    /// conflict there; removing a folder settles those below.
    async fn tx_edit(&self, tx: &TransactionId, edits: Edits) -> Result<Transaction>;

    /// Merges a commit into a transaction. Unresolved conflicts of an earlier
    /// merge: [`Kind::Conflict`]. New ones are in the result.
    async fn tx_merge(&self, tx: &TransactionId, theirs: &ObjectId) -> Result<Transaction>;

    /// Settles conflicts at these paths (all if empty) with one side.
    async fn tx_resolve(
        &self,
        tx: &TransactionId,
        paths: &[TreePath],
        side: Side,
    ) -> Result<Transaction>;

    /// Replaces message and parents, whichever is given. Unknown commits are refused.
    async fn tx_set(
        &self,
        tx: &TransactionId,
        message: Option<Vec<u8>>,
        parents: Option<Vec<ObjectId>>,
    ) -> Result<Transaction>;

    /// Commits a transaction and returns the new head.
    ///
    /// A head that moved is merged with. Conflicts: [`Kind::Conflict`], and the
    /// transaction stays open as after [`Client::tx_merge`] with that head. Asked again after
    /// it went through, it gives the same answer and commits nothing.
    async fn tx_commit(&self, tx: &TransactionId, options: CommitOptions) -> Result<ObjectId>;

    /// Throws a transaction away.
    async fn tx_abort(&self, tx: &TransactionId) -> Result<()>;

    /// Drops transactions not touched for so long, and committed ones past
    /// their 7 days. Returns what was, or with `dry_run` would be, dropped.
    async fn tx_collect(&self, older_than: Duration, dry_run: bool) -> Result<Vec<Transaction>>;

    // Watching.

    /// Follows a branch: every commit of its first-parent chain once, oldest
    /// first, none missed and none repeated, then live for ever. An unborn
    /// branch is waited for. Dropping the stream ends it at once.
    fn watch(&self, query: WatchQuery) -> Records<Event>;

    // Remotes and upkeep.

    /// Fetches from a URL or a configured remote (whose own refspecs are used
    /// when none are given). Local refs move forward only, unless a refspec
    /// has `+`.
    async fn fetch(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Fetched>>;

    /// Pushes to a URL or a configured remote. Output of the transport goes to
    /// `progress` line by line.
    async fn push(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: Arc<dyn Progress>,
    ) -> Result<()>;

    async fn remotes(&self) -> Result<Vec<RemoteInfo>>;
    async fn add_remote(&self, name: &str, url: &str) -> Result<()>;
    async fn remove_remote(&self, name: &str) -> Result<()>;

    /// Packs objects, and drops what nothing has reached for two weeks.
    async fn gc(&self, dry_run: bool, progress: Arc<dyn Progress>) -> Result<Collected>;

    /// Checks every object that anything reaches, and every ref.
    async fn fsck(&self, progress: Arc<dyn Progress>) -> Result<Vec<Fault>>;
}

impl From<crate::model::path::NameError> for Error {
    fn from(error: crate::model::path::NameError) -> Self {
        Self::new(Kind::Invalid, error.to_string())
    }
}
