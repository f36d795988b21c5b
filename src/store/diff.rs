//! The leaves in which two trees differ.

use crate::model::{Change, Entry, TreePath};

use super::objects::Objects;
use super::{Error, Result};

/// Gives the leaves that differ between what stood and what stands at `at`, in
/// path order.
pub fn diff(
    _objects: &Objects,
    _old: Option<&Entry>,
    _new: Option<&Entry>,
    _at: &TreePath,
    _out: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    Err(Error::Unsupported("not there yet".into()))
}
