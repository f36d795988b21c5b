//! The leaves in which two trees differ, in path order.
//!
//! Folders that are the same object on both sides are never opened; the others
//! are read once and forgotten. Memory grows with the depth of the trees only.

use std::cmp::Ordering;

use crate::model::{Change, Entry, ObjectId, TreePath};

use super::Result;
use super::objects::{Objects, TreeEntry, compare};
use super::walk::{Entries, MAX_DEPTH, path_of, too_deep};

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
    let mut differences = Differences::new(objects, old, new, at)?;
    while let Some(change) = differences.next(objects)? {
        out(change)?;
    }
    Ok(())
}

/// The leaves in which two entries differ, found one by one.
pub struct Differences {
    /// The entries themselves, where they are leaves that differ.
    first: Option<Change>,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// Buffers of trees that are done with.
    spare: Vec<Vec<u8>>,
}

/// The two sides of a folder being compared.
struct Level {
    old: Entries,
    new: Entries,
    /// Bytes of path before the names in it, the slash included.
    prefix: usize,
}

impl Differences {
    /// See [`diff`].
    pub fn new(
        objects: &Objects,
        old: Option<&Entry>,
        new: Option<&Entry>,
        at: &TreePath,
    ) -> Result<Self> {
        let leaf = |entry: Option<&Entry>| entry.filter(|e| !e.mode.is_dir()).copied();
        let tree = |entry: Option<&Entry>| entry.filter(|e| e.mode.is_dir()).map(|e| e.id);
        let mut path = at.as_bytes().to_vec();
        if !at.is_root() {
            path.push(b'/');
        }
        // A leaf's path is shorter than those of a folder's leaves: it is first.
        let first = (leaf(old) != leaf(new)).then(|| Change {
            path: at.clone(),
            old: leaf(old),
            new: leaf(new),
        });
        let mut differences = Self {
            first,
            levels: Vec::new(),
            path,
            spare: Vec::new(),
        };
        differences.open(objects, tree(old), tree(new))?;
        Ok(differences)
    }

    /// Returns the next leaf that differs.
    pub fn next(&mut self, objects: &Objects) -> Result<Option<Change>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.prefix);
            let (old, new) = (level.old.peek()?, level.new.rest());
            // Most of it is equal, and on one side not even parsed.
            if let Some(old) = old
                && new.starts_with(old.raw)
            {
                let bytes = old.raw.len();
                level.old.skip(bytes);
                level.new.skip(bytes);
                continue;
            }
            let new = level.new.peek()?;
            let order = match (&old, &new) {
                (None, None) => {
                    let done = self.levels.pop();
                    self.close(done);
                    continue;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
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
            let bytes = |found: Option<TreeEntry<'_>>| found.map_or(0, |found| found.raw.len());
            let (old_bytes, new_bytes) = (bytes(old), bytes(new));
            let (old, new) = (old.map(|e| e.entry), new.map(|e| e.entry));
            level.old.skip(old_bytes);
            level.new.skip(new_bytes);
            // Equal names are folders on both sides or on none.
            if old.or(new).is_some_and(|entry| entry.mode.is_dir()) {
                self.path.push(b'/');
                self.open(objects, old.map(|e| e.id), new.map(|e| e.id))?;
            } else if old != new {
                let path = path_of(&self.path);
                return Ok(Some(Change { path, old, new }));
            }
        }
        Ok(None)
    }

    fn open(
        &mut self,
        objects: &Objects,
        old: Option<ObjectId>,
        new: Option<ObjectId>,
    ) -> Result<()> {
        if old == new {
            return Ok(());
        }
        if self.levels.len() == MAX_DEPTH {
            return Err(too_deep(&self.path));
        }
        let mut side = |id: Option<ObjectId>| {
            let id = id.unwrap_or(objects.empty_tree());
            Entries::open(objects, &id, self.spare.pop().unwrap_or_default())
        };
        self.levels.push(Level {
            old: side(old)?,
            new: side(new)?,
            prefix: self.path.len(),
        });
        Ok(())
    }

    fn close(&mut self, level: Option<Level>) {
        if let Some(level) = level {
            self.spare.push(level.old.into_buffer());
            self.spare.push(level.new.into_buffer());
        }
    }
}
