//! Three-way merge, file by file.

use crate::model::request::Side;
use crate::model::{Conflict, ObjectId, Signature};

use super::objects::{Fresh, Objects};
use super::{Error, Result};

/// What a merge came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Conflicting paths hold a conflict file.
    pub tree: ObjectId,
    /// In path order.
    pub conflicts: Vec<Conflict>,
}

/// A merge of two commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeResult {
    /// The common ancestor it was made against, perhaps one made up; `None`
    /// where the two are unrelated.
    pub base: Option<ObjectId>,
    pub outcome: Outcome,
}

/// Merges two trees against a third.
pub fn merge_trees(
    _objects: &Objects,
    _fresh: &mut Fresh,
    _base: Option<&ObjectId>,
    _ours: &ObjectId,
    _theirs: &ObjectId,
    _favour: Option<Side>,
) -> Result<Outcome> {
    Err(Error::Unsupported("not there yet".into()))
}

/// Merges two commits against what they have in common.
pub fn merge_commits(
    _objects: &Objects,
    _fresh: &mut Fresh,
    _ours: &ObjectId,
    _theirs: &ObjectId,
    _who: &Signature,
) -> Result<MergeResult> {
    Err(Error::Unsupported("not there yet".into()))
}

/// Returns the commit to merge two commits against.
pub fn merge_base(
    _objects: &Objects,
    _fresh: &mut Fresh,
    _ours: &ObjectId,
    _theirs: &ObjectId,
    _who: &Signature,
) -> Result<Option<ObjectId>> {
    Err(Error::Unsupported("not there yet".into()))
}
