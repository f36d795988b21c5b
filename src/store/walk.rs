//! The leaves of a tree, in path order.
//!
//! Each tree is read once and forgotten; memory grows with the depth of the
//! tree only, and that has a limit.

use crate::model::{Entry, Item, ObjectId, TreePath};

use super::objects::{Objects, Tree};
use super::{Error, Result};

/// Folders within folders that are followed. Git itself stops at 2048.
pub(super) const MAX_DEPTH: usize = 4096;

/// The failure of a path with more steps than [`MAX_DEPTH`].
pub(super) fn too_deep(path: &[u8]) -> Error {
    let top = path.split(|b| *b == b'/').next().unwrap_or_default();
    let top = crate::model::text::quote(top);
    Error::Invalid(format!("{top} holds more than {MAX_DEPTH} nested folders"))
}

/// Makes a path of the bytes a tree gave, legal for writing or not.
pub(super) fn path_of(bytes: &[u8]) -> TreePath {
    let mut path = TreePath::root();
    if !bytes.is_empty() {
        path.push(bytes);
    }
    path
}

/// Gives every leaf below `root` in path order, with paths relative to it; for
/// a leaf itself, one item with the empty path.
///
/// With `sizes`, those of blobs are looked up; a missing one is
/// [`Error::Corrupt`].
pub fn walk(
    objects: &Objects,
    root: &Entry,
    sizes: bool,
    out: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<()> {
    walk_raw(objects, root, &mut |path, entry| {
        let size = if sizes && entry.mode.is_blob() {
            Some(objects.size(&entry.id)?)
        } else {
            None
        };
        out(Item {
            path: path_of(path),
            entry,
            size,
        })
    })
}

/// As [`walk`], lending each path instead of giving it away.
pub fn walk_raw(
    objects: &Objects,
    root: &Entry,
    out: &mut dyn FnMut(&[u8], Entry) -> Result<()>,
) -> Result<()> {
    if !root.mode.is_dir() {
        return out(b"", *root);
    }
    let mut path = Vec::new();
    let mut levels = vec![Level::open(objects, &root.id, 0)?];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.prefix);
        if level.next == level.tree.len() {
            levels.pop();
            continue;
        }
        let found = level.tree.nth(level.next);
        level.next += 1;
        path.extend_from_slice(found.name);
        if found.entry.mode.is_dir() {
            let id = found.entry.id;
            path.push(b'/');
            if levels.len() == MAX_DEPTH {
                return Err(too_deep(&path));
            }
            levels.push(Level::open(objects, &id, path.len())?);
        } else {
            out(&path, found.entry)?;
        }
    }
    Ok(())
}

/// A folder being walked.
struct Level {
    tree: Tree,
    next: usize,
    /// Bytes of path before the names in it, the slash included.
    prefix: usize,
}

impl Level {
    fn open(objects: &Objects, id: &ObjectId, prefix: usize) -> Result<Self> {
        Ok(Self {
            tree: objects.tree_once(id)?,
            next: 0,
            prefix,
        })
    }
}
