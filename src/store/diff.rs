//! The leaves in which two trees differ, in path order.
//!
//! Folders that are the same object on both sides are never opened; the others
//! are read once, and forgotten unless the next comparison may want them
//! ([`Known`]). Memory grows with the depth of the trees only.

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
    diff_again(objects, old, new, at, &mut Known::default(), out)
}

/// As [`diff`], for one of many comparisons in a row.
pub fn diff_again(
    objects: &Objects,
    old: Option<&Entry>,
    new: Option<&Entry>,
    at: &TreePath,
    known: &mut Known,
    out: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    let mut differences = Differences {
        known: std::mem::take(known),
        ..Differences::default()
    };
    differences.begin(objects, old, new, at)?;
    while let Some(change) = differences.next(objects)? {
        out(change)?;
    }
    *known = differences.known;
    Ok(())
}

/// Trees read lately: what is new in one commit is old in the next.
#[derive(Default)]
pub struct Known(Vec<Entries>);

impl Known {
    /// How many, and of what length: more is soon more than reading them.
    const MOST: usize = 8;
    const LONGEST: usize = 256 << 10;

    /// Returns a tree's entries, from the first.
    fn open(&mut self, objects: &Objects, id: &ObjectId) -> Result<Entries> {
        if let Some(at) = self.0.iter().position(|known| known.id() == id) {
            let mut found = self.0.remove(at);
            found.rewind();
            return Ok(found);
        }
        let full = self.0.len() >= Self::MOST;
        let buffer = full.then(|| self.0.remove(0).into_buffer());
        Entries::open(objects, id, buffer.unwrap_or_default())
    }

    fn keep(&mut self, entries: Entries) {
        if entries.length() > Self::LONGEST {
            return;
        }
        if self.0.len() >= Self::MOST {
            self.0.remove(0);
        }
        self.0.push(entries);
    }
}

/// The leaves in which two entries differ, found one by one.
#[derive(Default)]
pub struct Differences {
    /// The entries themselves, where they are leaves that differ.
    first: Option<Change>,
    levels: Vec<Level>,
    path: Vec<u8>,
    known: Known,
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
        let mut differences = Self::default();
        differences.begin(objects, old, new, at)?;
        Ok(differences)
    }

    fn begin(
        &mut self,
        objects: &Objects,
        old: Option<&Entry>,
        new: Option<&Entry>,
        at: &TreePath,
    ) -> Result<()> {
        let leaf = |entry: Option<&Entry>| entry.filter(|e| !e.mode.is_dir()).copied();
        let tree = |entry: Option<&Entry>| entry.filter(|e| e.mode.is_dir()).map(|e| e.id);
        self.path.extend_from_slice(at.as_bytes());
        if !at.is_root() {
            self.path.push(b'/');
        }
        // A leaf's path is shorter than those of a folder's leaves: it is first.
        self.first = (leaf(old) != leaf(new)).then(|| Change {
            path: at.clone(),
            old: leaf(old),
            new: leaf(new),
        });
        self.open(objects, tree(old), tree(new))
    }

    /// Returns the next leaf that differs.
    pub fn next(&mut self, objects: &Objects) -> Result<Option<Change>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.prefix);
            // Most of it is equal, and not even parsed.
            level.old.skip_common(&mut level.new);
            let (old, new) = (level.old.peek()?, level.new.peek()?);
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
            self.known.open(objects, &id)
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
            self.known.keep(level.old);
            self.known.keep(level.new);
        }
    }
}
