//! The leaves of a tree, in path order.
//!
//! Each tree is read once and forgotten; memory grows with the depth of the
//! tree only, and that has a limit.

use crate::model::{Entry, Item, ObjectId, TreePath};

use super::objects::{Objects, TreeEntry, corrupt, entry_at};
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

/// Lends every leaf below `root` in path order, with paths relative to it; for
/// a leaf itself, one with the empty path.
///
/// With `sizes`, those of blobs are looked up; a missing one is
/// [`Error::Corrupt`].
pub fn walk(
    objects: &Objects,
    root: &Entry,
    sizes: bool,
    mut out: impl FnMut(&[u8], Entry, Option<u64>) -> Result<()>,
) -> Result<()> {
    let mut leaves = Leaves::new(objects, root)?;
    while let Some((path, entry)) = leaves.next(objects)? {
        out(path, entry, objects.size_if(sizes, &entry)?)?;
    }
    Ok(())
}

/// Leaves on their way to another thread. Their paths share one buffer: memory
/// given back on a thread it was not taken on costs more than the rest of a walk.
#[derive(Default)]
pub struct Run {
    paths: Vec<u8>,
    /// Where each path ends, and its leaf.
    leaves: Vec<(usize, Entry, Option<u64>)>,
}

impl Run {
    pub fn push(&mut self, path: &[u8], entry: Entry, size: Option<u64>) {
        self.paths.extend_from_slice(path);
        self.leaves.push((self.paths.len(), entry, size));
    }
}

impl IntoIterator for Run {
    type Item = Item;
    type IntoIter = Items;

    fn into_iter(self) -> Items {
        Items {
            paths: self.paths,
            next: 0,
            leaves: self.leaves.into_iter(),
        }
    }
}

/// The leaves of a [`Run`], one by one.
pub struct Items {
    paths: Vec<u8>,
    /// Where the next path begins.
    next: usize,
    leaves: std::vec::IntoIter<(usize, Entry, Option<u64>)>,
}

impl Iterator for Items {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let (end, entry, size) = self.leaves.next()?;
        let path = path_of(&self.paths[self.next..end]);
        self.next = end;
        Some(Item { path, entry, size })
    }
}

/// As [`walk`], without sizes.
pub fn walk_raw(
    objects: &Objects,
    root: &Entry,
    out: &mut dyn FnMut(&[u8], Entry) -> Result<()>,
) -> Result<()> {
    walk(objects, root, false, |path, entry, _| out(path, entry))
}

/// The leaves below an entry, found one by one in path order.
pub struct Leaves {
    /// The entry itself, where it is a leaf.
    first: Option<Entry>,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// Buffers of trees that are done with.
    spare: Vec<Vec<u8>>,
}

impl Leaves {
    pub fn new(objects: &Objects, root: &Entry) -> Result<Self> {
        let mut leaves = Self {
            first: None,
            levels: Vec::new(),
            path: Vec::new(),
            spare: Vec::new(),
        };
        match root.mode.is_dir() {
            false => leaves.first = Some(*root),
            true => leaves.levels.push(Level {
                entries: Entries::open(objects, &root.id, Vec::new())?,
                prefix: 0,
            }),
        }
        Ok(leaves)
    }

    /// Returns the next leaf, lending its path.
    pub fn next(&mut self, objects: &Objects) -> Result<Option<(&[u8], Entry)>> {
        if let Some(first) = self.first.take() {
            return Ok(Some((b"", first)));
        }
        let entry = loop {
            let Some(level) = self.levels.last_mut() else {
                return Ok(None);
            };
            self.path.truncate(level.prefix);
            let Some(found) = level.entries.take()? else {
                let done = self.levels.pop();
                self.spare
                    .extend(done.map(|level| level.entries.into_buffer()));
                continue;
            };
            self.path.extend_from_slice(found.name);
            let entry = found.entry;
            if !entry.mode.is_dir() {
                break entry;
            }
            self.path.push(b'/');
            if self.levels.len() == MAX_DEPTH {
                return Err(too_deep(&self.path));
            }
            let buffer = self.spare.pop().unwrap_or_default();
            self.levels.push(Level {
                entries: Entries::open(objects, &entry.id, buffer)?,
                prefix: self.path.len(),
            });
        };
        Ok(Some((&self.path, entry)))
    }
}

/// A folder being walked.
struct Level {
    entries: Entries,
    /// Bytes of path before the names in it, the slash included.
    prefix: usize,
}

/// The entries of a tree that is gone through once, from first to last. They
/// are checked as they come.
pub(super) struct Entries {
    id: ObjectId,
    raw: Vec<u8>,
    /// Where the next entry begins.
    next: usize,
    id_len: usize,
}

impl Entries {
    /// Reads a tree into a buffer, perhaps one that another has done with.
    pub fn open(objects: &Objects, id: &ObjectId, mut raw: Vec<u8>) -> Result<Self> {
        objects.tree_raw(id, &mut raw)?;
        Ok(Self {
            id: *id,
            raw,
            next: 0,
            id_len: objects.hash_kind().id_len(),
        })
    }

    /// Returns the next entry, which stays the next.
    pub fn peek(&self) -> Result<Option<TreeEntry<'_>>> {
        if self.rest().is_empty() {
            return Ok(None);
        }
        let entry = entry_at(self.rest(), self.id_len);
        entry.map(Some).map_err(|why| corrupt(&self.id, why))
    }

    /// Returns the next entry and goes on to the one after it.
    pub fn take(&mut self) -> Result<Option<TreeEntry<'_>>> {
        let rest = &self.raw[self.next..];
        if rest.is_empty() {
            return Ok(None);
        }
        let entry = entry_at(rest, self.id_len).map_err(|why| corrupt(&self.id, why))?;
        self.next += entry.raw.len();
        Ok(Some(entry))
    }

    /// Looks for a name among the entries to come, once: where many names are
    /// wanted, a [`Tree`](super::objects::Tree) finds them faster.
    pub fn find(&self, name: &[u8]) -> Result<Option<Entry>> {
        let mut rest = self.rest();
        while !rest.is_empty() {
            let found = entry_at(rest, self.id_len).map_err(|why| corrupt(&self.id, why))?;
            if found.name == name {
                return Ok(Some(found.entry));
            }
            rest = &rest[found.raw.len()..];
            // Behind this one no name begins as the wanted one does.
            let common = found.name.len().min(name.len());
            if found.name[..common] > name[..common] {
                break;
            }
        }
        Ok(None)
    }

    /// Goes on by one entry of so many bytes.
    pub fn skip(&mut self, bytes: usize) {
        self.next += bytes;
    }

    /// Goes on past the entries that come next here and there, unchecked.
    pub fn skip_common(&mut self, other: &mut Self) {
        const PIECE: usize = 64;
        let (mine, theirs) = (self.rest(), other.rest());
        let pieces = mine.chunks(PIECE).zip(theirs.chunks(PIECE));
        let same = pieces.take_while(|(mine, theirs)| mine == theirs);
        let mut common: usize = same.map(|(mine, _)| mine.len()).sum();
        let bytes = mine[common..].iter().zip(&theirs[common..]);
        common += bytes.take_while(|(mine, theirs)| mine == theirs).count();
        let mut at = 0;
        while let Some(nul) = mine[at..common].iter().position(|byte| *byte == 0) {
            let end = at + nul + 1 + self.id_len;
            if end > common {
                break;
            }
            at = end;
        }
        self.next += at;
        other.next += at;
    }

    /// Returns the entries to come as they stand in the object.
    fn rest(&self) -> &[u8] {
        &self.raw[self.next..]
    }

    /// Goes back to the first entry.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    pub fn id(&self) -> &ObjectId {
        &self.id
    }

    /// Bytes of the whole tree.
    pub fn length(&self) -> usize {
        self.raw.len()
    }

    pub fn into_buffer(self) -> Vec<u8> {
        self.raw
    }
}
