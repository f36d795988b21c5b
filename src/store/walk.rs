//! The leaves of a tree.

use crate::model::{Entry, Item};

use super::objects::Objects;
use super::{Error, Result};

/// Gives every leaf in path order, with paths relative to `root`.
pub fn walk(
    _objects: &Objects,
    _root: &Entry,
    _sizes: bool,
    _out: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<()> {
    Err(Error::Unsupported("not there yet".into()))
}

/// As [`walk`], without a path of its own for each leaf.
pub fn walk_raw(
    _objects: &Objects,
    _root: &Entry,
    _out: &mut dyn FnMut(&[u8], Entry) -> Result<()>,
) -> Result<()> {
    Err(Error::Unsupported("not there yet".into()))
}
