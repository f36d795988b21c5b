//! The leaves in which two trees differ, in path order.
//!
//! Folders that are the same object on both sides are never opened; the others
//! are read once and forgotten. Memory grows with the depth of the trees only.

use std::cmp::Ordering;

use crate::model::{Change, Entry, ObjectId, TreePath};

use super::Result;
use super::objects::{Objects, Tree, TreeEntry, compare};
use super::walk::{MAX_DEPTH, path_of, too_deep};

/// Gives the leaves that differ between what stood and what stands at `at`.
///
/// The order is that of whole paths, byte by byte. A folder that came or went
/// is expanded to its leaves, so a file that became a folder is one leaf
/// removed and several added.
pub fn diff(
    objects: &Objects,
    old: Option<&Entry>,
    new: Option<&Entry>,
    at: &TreePath,
    out: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let leaf = |entry: Option<&Entry>| entry.filter(|e| !e.mode.is_dir()).copied();
    let tree = |entry: Option<&Entry>| entry.filter(|e| e.mode.is_dir()).map(|e| e.id);
    // A leaf's path is shorter than those of a folder's leaves: it is first.
    if leaf(old) != leaf(new) {
        out(Change {
            path: at.clone(),
            old: leaf(old),
            new: leaf(new),
        })?;
    }
    let mut path = at.as_bytes().to_vec();
    if !at.is_root() {
        path.push(b'/');
    }
    Walk { objects, path, out }.trees(tree(old), tree(new))
}

struct Walk<'a> {
    objects: &'a Objects,
    path: Vec<u8>,
    out: &'a mut dyn FnMut(Change) -> Result<()>,
}

/// The two sides of a folder being compared.
struct Level {
    old: Side,
    new: Side,
    /// Bytes of path before the names in it, the slash included.
    prefix: usize,
}

struct Side {
    tree: Tree,
    next: usize,
}

impl Side {
    fn open(objects: &Objects, id: Option<ObjectId>) -> Result<Self> {
        let tree = match id {
            Some(id) => objects.tree_once(&id)?,
            None => Tree::empty(objects.hash_kind()),
        };
        Ok(Self { tree, next: 0 })
    }

    fn peek(&self) -> Option<TreeEntry<'_>> {
        (self.next < self.tree.len()).then(|| self.tree.nth(self.next))
    }
}

impl Walk<'_> {
    fn trees(&mut self, old: Option<ObjectId>, new: Option<ObjectId>) -> Result<()> {
        let mut levels = Vec::new();
        self.open(&mut levels, old, new)?;
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.prefix);
            let (old, new) = (level.old.peek(), level.new.peek());
            let order = match (&old, &new) {
                (None, None) => {
                    levels.pop();
                    continue;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) if old.raw == new.raw => {
                    level.old.next += 1;
                    level.new.next += 1;
                    continue;
                }
                (Some(old), Some(new)) => compare(
                    old.name,
                    old.entry.mode.is_dir(),
                    new.name,
                    new.entry.mode.is_dir(),
                ),
            };
            let old = old.filter(|_| order.is_le());
            let new = new.filter(|_| order.is_ge());
            let name = old.or(new).map_or(&b""[..], |found| found.name);
            self.path.extend_from_slice(name);
            let (old, new) = (old.map(|e| e.entry), new.map(|e| e.entry));
            level.old.next += usize::from(old.is_some());
            level.new.next += usize::from(new.is_some());
            // Equal names are folders on both sides or on none.
            if old.or(new).is_some_and(|entry| entry.mode.is_dir()) {
                self.path.push(b'/');
                self.open(&mut levels, old.map(|e| e.id), new.map(|e| e.id))?;
            } else if old != new {
                let path = path_of(&self.path);
                (self.out)(Change { path, old, new })?;
            }
        }
        Ok(())
    }

    fn open(
        &self,
        levels: &mut Vec<Level>,
        old: Option<ObjectId>,
        new: Option<ObjectId>,
    ) -> Result<()> {
        if old == new {
            return Ok(());
        }
        if levels.len() == MAX_DEPTH {
            return Err(too_deep(&self.path));
        }
        levels.push(Level {
            old: Side::open(self.objects, old)?,
            new: Side::open(self.objects, new)?,
            prefix: self.path.len(),
        });
        Ok(())
    }
}
