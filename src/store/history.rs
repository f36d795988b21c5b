//! Questions about the graph of commits.

use crate::model::ObjectId;

use super::objects::Objects;
use super::{Error, Result};

pub use super::log::Log;

/// Returns the best common ancestors, as `git merge-base --all`.
pub fn merge_bases(_objects: &Objects, _a: &ObjectId, _b: &ObjectId) -> Result<Vec<ObjectId>> {
    Err(Error::Unsupported("not there yet".into()))
}

/// Tells whether `of` reaches `ancestor`; a commit reaches itself.
pub fn is_ancestor(_objects: &Objects, _ancestor: &ObjectId, _of: &ObjectId) -> Result<bool> {
    Err(Error::Unsupported("not there yet".into()))
}

/// Part of a first-parent chain, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Everything after the commit asked for.
    Found(Vec<ObjectId>),
    /// The commit is reached through another parent only: the chain from its
    /// oldest commit that contains it.
    Joined(Vec<ObjectId>),
    /// The head does not reach the commit.
    Unrelated,
}

/// Walks first parents from `head` back to `until`.
pub fn first_parents(
    _objects: &Objects,
    _head: &ObjectId,
    _until: Option<&ObjectId>,
) -> Result<Chain> {
    Err(Error::Unsupported("not there yet".into()))
}
