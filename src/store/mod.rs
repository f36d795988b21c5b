//! A Git object database with branches: read, edit in memory, commit, merge,
//! watch, fetch and push.
//!
//! Synchronous inside: every call may block. `engine` is the seam below which
//! storage lies; `face` is the asynchronous face; the other files are written
//! once for all engines.

mod base;
pub mod cache;
pub mod collect;
pub mod commit;
mod content;
pub mod diff;
pub mod edit;
pub mod engine;
pub mod face;
mod failure;
pub mod fsck;
pub mod git;
pub mod history;
pub mod land;
mod log;
pub mod memory;
pub mod merge;
pub mod objects;
mod pin;
mod read;
pub mod read_only;
pub mod remote;
pub mod rev;
pub mod transaction;
mod upkeep;
pub mod walk;
pub mod watch;

use std::sync::Arc;

use crate::model::request::Expect;
use crate::model::{Branch, BranchName, Conflict, Kind, ObjectId, path::NameError};

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} does not exist")]
    NotFound(String),
    #[error("{0} exists already")]
    Exists(String),
    #[error("{0} is a directory")]
    IsDirectory(String),
    #[error("{0} is not a directory")]
    NotDirectory(String),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{prefix} may be any of {}", .ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous { prefix: String, ids: Vec<String> },
    #[error("{} path(s) in conflict", .0.len())]
    Conflict(Vec<Conflict>),
    #[error("{name} is at {}, not at {}", head(.actual), wanted(.expected))]
    HeadMoved {
        name: String,
        expected: Expect,
        actual: Option<ObjectId>,
    },
    #[error("{name} cannot move to {to}: not a fast-forward from {}", head(.actual))]
    NotFastForward {
        name: String,
        to: ObjectId,
        actual: Option<ObjectId>,
    },
    /// A head of another repository was not where it had to be.
    #[error("{what}: {why}")]
    Rejected { what: String, why: String },
    #[error("{0} is read-only")]
    ReadOnly(String),
    #[error("{message}")]
    Denied { message: String, hint: String },
    #[error("{0}")]
    Busy(String),
    #[error("{} is damaged: {why}", damaged(.id))]
    Corrupt { id: String, why: String },
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Interrupted(String),
    /// More happened than is kept for a slow reader.
    #[error("{0}")]
    Overrun(String),
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    /// A library failed in a way it cannot tell more of.
    #[error("{what}")]
    Failed {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One of several edits failed: which, counted from 1.
    #[error("{error}")]
    Edit { number: usize, error: Box<Error> },
    /// A source of edits failed.
    #[error("{0}")]
    Source(Box<dyn std::error::Error + Send + Sync>),
}

fn head(id: &Option<ObjectId>) -> String {
    id.map_or_else(|| "no commit".into(), |id| id.to_string())
}

/// What is damaged may also be a file, or a branch.
fn damaged(id: &str) -> String {
    match ObjectId::from_hex(id.as_bytes()) {
        Some(_) => format!("object {id}"),
        None => id.to_owned(),
    }
}

fn wanted(expect: &Expect) -> String {
    match expect {
        Expect::Any => "any commit".into(),
        Expect::Unborn => "no commit".into(),
        Expect::Head(id) => id.to_string(),
    }
}

impl Error {
    /// Returns the class of this failure.
    pub fn kind(&self) -> Kind {
        use std::io::ErrorKind;
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Exists(_) => Kind::Exists,
            Self::IsDirectory(_) => Kind::IsDirectory,
            Self::NotDirectory(_) => Kind::NotDirectory,
            Self::Invalid(_) | Self::Name(_) => Kind::Invalid,
            Self::Ambiguous { .. } => Kind::Ambiguous,
            Self::Conflict(_) => Kind::Conflict,
            Self::HeadMoved { .. } | Self::NotFastForward { .. } | Self::Rejected { .. } => {
                Kind::HeadMoved
            }
            Self::ReadOnly(_) => Kind::ReadOnly,
            Self::Denied { .. } => Kind::Denied,
            Self::Busy(_) => Kind::Busy,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Unsupported(_) => Kind::Unsupported,
            Self::Interrupted(_) => Kind::Interrupted,
            Self::Overrun(_) => Kind::Overrun,
            Self::Io { source, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    Kind::NoSpace
                }
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Kind::ReadOnly,
                _ => Kind::Io,
            },
            Self::Edit { error, .. } => error.kind(),
            Self::Failed { .. } | Self::Source(_) => Kind::Io,
        }
    }

    /// Names the file or directory an I/O error is about.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Names what a library was asked for when it failed.
    fn failed<E>(what: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let what = what.into();
        move |source| Self::Failed {
            what,
            source: source.into(),
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A database: objects, and branches over them.
pub struct Store {
    pub objects: Arc<objects::Objects>,
    pub engine: Arc<dyn engine::Engine>,
    hub: watch::Hub,
    transactions: transaction::Recent,
    /// They are kept out of clones: seen to, once.
    hidden: std::sync::OnceLock<()>,
}

impl Store {
    pub fn new(engine: Arc<dyn engine::Engine>) -> Self {
        Self {
            objects: Arc::new(objects::Objects::new(engine.clone())),
            engine,
            hub: watch::Hub::default(),
            transactions: transaction::Recent::default(),
            hidden: std::sync::OnceLock::new(),
        }
    }

    /// Returns the branches that have a commit, in order of their names.
    pub fn branches(&self) -> Result<Vec<Branch>> {
        self.heads_below("refs/heads/")
    }

    /// Returns the branches of remotes as they were last fetched.
    pub fn fetched_branches(&self) -> Result<Vec<Branch>> {
        let mut found = self.heads_below("refs/remotes/")?;
        // Which branch a remote prefers is no branch of its own.
        found.retain(|branch| !branch.name.as_bytes().ends_with(b"/HEAD"));
        Ok(found)
    }

    fn heads_below(&self, prefix: &str) -> Result<Vec<Branch>> {
        let branch = |(name, head): (engine::HeadName, ObjectId)| {
            let name = name.as_bytes().strip_prefix(prefix.as_bytes())?;
            let name = BranchName::new(name).ok()?;
            Some(Branch { name, head })
        };
        let heads = self.engine.heads(prefix)?;
        Ok(heads.into_iter().filter_map(branch).collect())
    }

    pub fn head(&self, branch: &BranchName) -> Result<Option<ObjectId>> {
        self.engine.head(&engine::HeadName::branch(branch))
    }

    /// As [`Store::head`], where that needs no thread to wait on.
    pub fn quick_head(&self, branch: &BranchName) -> Option<Option<ObjectId>> {
        self.engine.quick_head(&engine::HeadName::branch(branch))
    }
}
