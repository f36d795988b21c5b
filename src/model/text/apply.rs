//! A change as one text: headers, edits, and a last line that makes it happen.
//! Modelled on git-fast-import(1).
//!
//! ```text
//! message SIZE\nBYTES\n            author NAME <MAIL> SECONDS +ZONE
//! expect ID|0     ff-only   force   keep   empty skip|refuse   dry-run
//! parents [ID …]                   resolve base|ours|theirs, then path PATH …
//! theirs ID     favour base|ours|theirs     from ID     name ID
//! operation NAME [again SECONDS]
//!
//! write keep|normal|exec PATH, content     append PATH, content
//! link PATH, content     truncate SIZE PATH     mkdir PATH     rm PATH
//! mv "FROM" "TO"     cp "FROM" "TO"     chmod +x|-x PATH     set MODE ID PATH
//!
//! done | commit
//! ```
//!
//! Headers come before edits. Content is `SIZE\nBYTES\n`, or pieces
//! `+SIZE\nBYTES\n` and `+0\n` behind the last. A PATH is quoted as Git does
//! where it must be. A path that is to be written must be legal; one that is
//! read or removed may be whatever stands in a tree.
//!
//! The [`Parser`] takes the text in pieces of any size and holds no more of it
//! than a line, or the headers; content passes through.

mod parse;
mod print;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use bytes::Bytes;

use crate::model::failure::Failure;
use crate::model::request::{CommitOptions, FileKind, Side};
use crate::model::text::{read_failure, write_failure};
use crate::model::{Entry, ObjectId, TransactionId, TreePath};

pub use parse::Parser;
pub use print::{PrintError, write_edit, write_finish, write_head};

/// No line may be longer.
pub const LINE: usize = 256 * 1024;
/// The headers together, messages included, may not be larger.
pub const HEAD: usize = 32 << 20;

/// Everything that stands before the edits.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub options: CommitOptions,
    /// They replace those of a transaction.
    pub parents: Option<Vec<ObjectId>>,
    /// Settle the conflicts at these paths, or all where there are none.
    pub resolve: Option<(Side, Vec<TreePath>)>,
    pub theirs: Option<ObjectId>,
    pub favour: Option<Side>,
    pub dry_run: bool,
    pub from: Option<ObjectId>,
    pub name: Option<TransactionId>,
    pub operation: Option<Operation>,
}

/// What a request is known by, should its answer be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Letters and digits that nobody else picks.
    pub name: String,
    /// Nothing is to be done but to tell what came of the request of this name,
    /// which was sent at most so long ago.
    pub again: Option<Duration>,
}

impl Operation {
    /// Picks a name.
    pub fn new() -> Self {
        let bits = || RandomState::new().build_hasher().finish();
        Self {
            name: format!("{:016x}{:016x}", bits(), bits()),
            again: None,
        }
    }
}

impl Default for Operation {
    fn default() -> Self {
        Self::new()
    }
}

/// What came of a request: nothing where it was not done and will not be. The
/// outer nothing: that is not known.
pub type Outcome = Option<Option<Result<Vec<u8>, Failure>>>;

/// Prints an outcome: a line, and the result behind it.
pub fn write_outcome(outcome: Outcome) -> Vec<u8> {
    match outcome {
        None => b"unknown\n".to_vec(),
        Some(None) => b"never\n".to_vec(),
        Some(Some(Ok(result))) => [b"done\n", &result[..]].concat(),
        Some(Some(Err(failure))) => {
            format!("failed {}\n", write_failure(&failure, LINE)).into_bytes()
        }
    }
}

/// Reads an outcome; nothing where it is none.
pub fn read_outcome(text: &[u8]) -> Option<Outcome> {
    let end = text.iter().position(|b| *b == b'\n')?;
    let (line, rest) = (&text[..end], &text[end + 1..]);
    Some(match line {
        b"unknown" => None,
        b"never" => Some(None),
        b"done" => Some(Some(Ok(rest.to_vec()))),
        line => {
            let text = std::str::from_utf8(line).ok()?;
            let failure = read_failure(text.strip_prefix("failed ")?)?;
            Some(Some(Err(failure)))
        }
    })
}

/// What completes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Done,
    Commit,
}

/// An edit that content follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filled {
    Write { path: TreePath, kind: FileKind },
    Append { path: TreePath },
    Link { path: TreePath },
}

/// An edit that is whole by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    Truncate { path: TreePath, size: u64 },
    Mkdir { path: TreePath },
    Remove { path: TreePath },
    Rename { from: TreePath, to: TreePath },
    Copy { from: TreePath, to: TreePath },
    Chmod { path: TreePath, exec: bool },
    Set { path: TreePath, entry: Entry },
}

/// What the [`Parser`] finds, in order: one `Head`, then edits, then `Finish`.
#[derive(Clone, Debug)]
pub enum Part {
    Head(Box<Head>),
    Edit(Plain),
    /// Content follows: this many bytes, where it is known.
    Begin {
        edit: Filled,
        size: Option<u64>,
    },
    /// Some of it, never empty; shares memory with what was pushed.
    Data(Bytes),
    /// The end of it.
    End,
    Finish(Finish),
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Base => "base",
        Side::Ours => "ours",
        Side::Theirs => "theirs",
    }
}

#[cfg(test)]
mod tests;
