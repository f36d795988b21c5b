//! Trees and commits read through a bounded cache, and written as Git does.
//!
//! The empty tree is always there, stored or not, as in Git. Cached values
//! never change, so no lock is held longer than a look-up.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::metrics::metrics;
use crate::model::text::read_commit;
pub use crate::model::text::write_commit;
use crate::model::{Commit, Entry, HashKind, Mode, ObjectId, TreePath};

use super::cache::cache;
use super::engine::{Engine, Object, ObjectKind, ObjectStream, hash_object};
use super::{Error, Result};

/// Bytes of parsed trees kept.
const TREE_CACHE: u64 = 48 << 20;
/// What each of them takes besides its own bytes.
const APIECE: usize = 320;

/// Larger ones are read when they are needed: a process that writes one often
/// ends with it.
const REMEMBERED: usize = 64 << 10;

/// A tree object, checked and indexed.
#[derive(Debug)]
pub struct Tree {
    raw: Vec<u8>,
    /// Where each entry begins in `raw`.
    starts: Vec<u32>,
    id_len: usize,
}

/// One entry of a tree, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    pub name: &'a [u8],
    pub entry: Entry,
    /// The entry as it stands in the object.
    pub raw: &'a [u8],
}

impl Tree {
    /// Checks the bytes of a tree object. Says what is wrong with damaged ones.
    pub fn parse(raw: Vec<u8>, hash: HashKind) -> Result<Self, &'static str> {
        let id_len = hash.id_len();
        if u32::try_from(raw.len()).is_err() {
            return Err("the tree is larger than 4 GiB");
        }
        let mut starts = Vec::with_capacity(raw.len() / (id_len + 16));
        let mut at = 0;
        while at < raw.len() {
            starts.push(at as u32);
            at += entry_at(&raw[at..], id_len)?.raw.len();
        }
        Ok(Self {
            raw,
            starts,
            id_len,
        })
    }

    pub fn empty(hash: HashKind) -> Self {
        Self {
            raw: Vec::new(),
            starts: Vec::new(),
            id_len: hash.id_len(),
        }
    }

    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub fn nth(&self, index: usize) -> TreeEntry<'_> {
        entry_at(&self.raw[self.starts[index] as usize..], self.id_len)
            .expect("checked when it was parsed")
    }

    /// Gives the entries in Git's order: bytewise, a folder's name as if `/`
    /// stood behind it.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = TreeEntry<'_>> + ExactSizeIterator {
        (0..self.len()).map(|index| self.nth(index))
    }

    /// Looks a name up. A folder and a file of one name sort apart, so both
    /// places are tried.
    pub fn get(&self, name: &[u8]) -> Option<Entry> {
        let find = |dir: bool| {
            let (mut low, mut high) = (0, self.len());
            while low < high {
                let middle = low + (high - low) / 2;
                let found = self.nth(middle);
                match compare(found.name, found.entry.mode.is_dir(), name, dir) {
                    std::cmp::Ordering::Less => low = middle + 1,
                    std::cmp::Ordering::Greater => high = middle,
                    std::cmp::Ordering::Equal => return Some(found.entry),
                }
            }
            None
        };
        find(false).or_else(|| find(true))
    }
}

/// Git's order of tree entries.
pub fn compare(a: &[u8], a_dir: bool, b: &[u8], b_dir: bool) -> std::cmp::Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        let next = |name: &[u8], dir: bool| match name.get(common) {
            Some(byte) => u16::from(*byte) + 1,
            None if dir => u16::from(b'/') + 1,
            None => 0,
        };
        next(a, a_dir).cmp(&next(b, b_dir))
    })
}

/// Reads the entry at the beginning of `raw`.
pub(super) fn entry_at(raw: &[u8], id_len: usize) -> Result<TreeEntry<'_>, &'static str> {
    let mut mode = 0_u32;
    let mut at = 0;
    loop {
        match raw.get(at) {
            Some(digit @ b'0'..=b'7') if at < 7 => mode = mode << 3 | u32::from(digit - b'0'),
            Some(b' ') if at > 0 => break,
            _ => return Err("a mode in the tree is not octal"),
        }
        at += 1;
    }
    let rest = &raw[at + 1..];
    let stop = rest.iter().position(|b| matches!(b, 0 | b'/'));
    let length = stop.ok_or("the tree ends within a name")?;
    if length == 0 || rest[length] == b'/' {
        return Err("a name in the tree is empty or holds a slash");
    }
    let name = &rest[..length];
    let end = at + 1 + length + 1 + id_len;
    let id = raw
        .get(end - id_len..end)
        .and_then(ObjectId::from_bytes)
        .ok_or("the tree ends within an id")?;
    Ok(TreeEntry {
        name,
        entry: Entry {
            mode: Mode(mode),
            id,
        },
        raw: &raw[..end],
    })
}

/// Appends an entry as a tree object holds it.
pub fn push_entry(raw: &mut Vec<u8>, name: &[u8], entry: &Entry) {
    raw.extend_from_slice(format!("{:o} ", entry.mode.0).as_bytes());
    raw.extend_from_slice(name);
    raw.push(0);
    raw.extend_from_slice(entry.id.as_bytes());
}

#[derive(Clone)]
struct BytesOfTree;

impl Weighter<ObjectId, Arc<Tree>> for BytesOfTree {
    fn weight(&self, _: &ObjectId, tree: &Arc<Tree>) -> u64 {
        (tree.raw.len() + tree.starts.len() * 4 + APIECE) as u64
    }
}

/// Reads and writes objects of one store.
///
/// Trees and commits written during an edit may be looked up before they are
/// in the engine: [`Fresh`] carries them.
pub struct Objects {
    pub engine: Arc<dyn Engine>,
    trees: Cache<ObjectId, Arc<Tree>, BytesOfTree>,
    empty_tree: ObjectId,
}

/// Objects made and not yet written, in the order they were made.
#[derive(Default)]
pub struct Fresh {
    by_id: HashMap<ObjectId, usize>,
    objects: Vec<Object>,
}

impl Fresh {
    pub fn add(&mut self, hash: HashKind, kind: ObjectKind, data: Vec<u8>) -> Result<ObjectId> {
        let id = hash_object(hash, kind, &data)?;
        self.by_id.entry(id).or_insert_with(|| {
            self.objects.push(Object { id, kind, data });
            self.objects.len() - 1
        });
        Ok(id)
    }

    pub fn get(&self, id: &ObjectId) -> Option<&Object> {
        self.by_id.get(id).map(|index| &self.objects[*index])
    }

    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Returns a mark to go back to with [`Fresh::rollback`].
    pub fn mark(&self) -> usize {
        self.objects.len()
    }

    /// Forgets what was added after the mark.
    pub fn rollback(&mut self, mark: usize) {
        for object in self.objects.drain(mark..) {
            self.by_id.remove(&object.id);
        }
    }
}

impl Objects {
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        let empty_tree = hash_object(engine.hash_kind(), ObjectKind::Tree, b"")
            .expect("the empty tree is no collision");
        Self {
            engine,
            trees: cache(4096, TREE_CACHE, 16, BytesOfTree),
            empty_tree,
        }
    }

    pub fn hash_kind(&self) -> HashKind {
        self.engine.hash_kind()
    }

    pub fn empty_tree(&self) -> ObjectId {
        self.empty_tree
    }

    /// Returns a tree that is in memory; never reads it.
    pub fn cached_tree(&self, id: &ObjectId) -> Option<Arc<Tree>> {
        let tree = self.trees.get(id)?;
        metrics().cache_hits.inc();
        Some(tree)
    }

    /// Returns how many trees are in memory, and their bytes.
    pub fn cached(&self) -> (usize, u64) {
        (self.trees.len(), self.trees.weight())
    }

    /// Returns a tree, from the cache where it is there.
    pub fn tree(&self, id: &ObjectId) -> Result<Arc<Tree>> {
        if let Some(tree) = self.cached_tree(id) {
            return Ok(tree);
        }
        metrics().cache_misses.inc();
        let mut tree = self.tree_once(id)?;
        // It was read into more room than it needs.
        tree.raw.shrink_to_fit();
        tree.starts.shrink_to_fit();
        let tree = Arc::new(tree);
        self.trees.insert(*id, tree.clone());
        Ok(tree)
    }

    /// Keeps the trees that were just written: the next edit begins with them.
    pub fn remember(&self, fresh: &Fresh) {
        let small = |object: &&Object| object.data.len() <= REMEMBERED;
        let trees = fresh.objects.iter().filter(small);
        for object in trees.filter(|object| object.kind == ObjectKind::Tree) {
            if let Ok(tree) = Tree::parse(object.data.clone(), self.hash_kind()) {
                self.trees.insert(object.id, Arc::new(tree));
            }
        }
    }

    /// Returns a tree without keeping it, for walks that see each tree once.
    pub fn tree_once(&self, id: &ObjectId) -> Result<Tree> {
        let mut raw = Vec::new();
        self.tree_raw(id, &mut raw)?;
        Tree::parse(raw, self.hash_kind()).map_err(|why| corrupt(id, why))
    }

    /// Reads a tree's bytes, unchecked, into a buffer that is used again.
    pub(super) fn tree_raw(&self, id: &ObjectId, raw: &mut Vec<u8>) -> Result<()> {
        if *id == self.empty_tree {
            raw.clear();
            return Ok(());
        }
        self.expect(id, ObjectKind::Tree, raw)
    }

    /// Returns a commit that may be among those not written yet.
    pub fn commit_or_fresh(&self, id: &ObjectId, fresh: &Fresh) -> Result<Commit> {
        match fresh.get(id) {
            Some(object) => read_commit(*id, &object.data).map_err(|why| corrupt(id, why)),
            None => self.commit(id),
        }
    }

    /// Returns a commit. An object that is no commit does not exist as one.
    pub fn commit(&self, id: &ObjectId) -> Result<Commit> {
        let mut raw = Vec::new();
        self.commit_with(id, &mut raw)
    }

    /// As [`Objects::commit`], reading into a buffer that is used again.
    pub fn commit_with(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Commit> {
        match self.engine.find(id, buffer)? {
            Some(ObjectKind::Commit) => {
                let mut commit = read_commit(*id, buffer).map_err(|why| corrupt(id, why))?;
                if self.engine.is_shallow(id) {
                    commit.parents.clear();
                }
                Ok(commit)
            }
            _ => Err(Error::NotFound(format!("commit {id}"))),
        }
    }

    /// Reads a blob whole: for small ones of our own.
    pub fn blob(&self, id: &ObjectId) -> Result<Vec<u8>> {
        let mut raw = Vec::new();
        self.expect(id, ObjectKind::Blob, &mut raw)?;
        Ok(raw)
    }

    /// Opens a blob.
    pub fn open(&self, id: &ObjectId) -> Result<Box<dyn Read + Send>> {
        Ok(self.stream(id)?)
    }

    /// As [`Objects::open`], for whoever would rather not wait.
    pub fn stream(&self, id: &ObjectId) -> Result<Box<dyn ObjectStream>> {
        match self.engine.header(id)? {
            Some((ObjectKind::Blob, _)) => {}
            Some((kind, _)) => {
                return Err(corrupt(id, &format!("it is a {}, not a blob", kind.name())));
            }
            None => return Err(corrupt(id, "it is missing")),
        }
        self.engine
            .open(id)?
            .ok_or_else(|| corrupt(id, "it is missing"))
    }

    /// Returns a leaf's length where it is wanted and it has one here.
    pub(super) fn size_if(&self, wanted: bool, leaf: &Entry) -> Result<Option<u64>> {
        let size = (wanted && leaf.mode.is_blob()).then(|| self.size(&leaf.id));
        size.transpose()
    }

    /// Returns a blob's length.
    pub fn size(&self, id: &ObjectId) -> Result<u64> {
        match self.engine.header(id)? {
            Some((_, size)) => Ok(size),
            None => Err(corrupt(id, "it is missing")),
        }
    }

    fn expect(&self, id: &ObjectId, kind: ObjectKind, raw: &mut Vec<u8>) -> Result<()> {
        match self.engine.find(id, raw)? {
            Some(found) if found == kind => Ok(()),
            Some(found) => Err(corrupt(
                id,
                &format!("it is a {}, not a {}", found.name(), kind.name()),
            )),
            None => Err(corrupt(id, "it is missing")),
        }
    }

    /// Returns what stands at a path; for the root, the tree itself. A path
    /// through a file leads nowhere.
    pub fn lookup(&self, tree: &ObjectId, path: &TreePath) -> Result<Option<Entry>> {
        descend(tree, path, |id| self.tree(id))
    }

    /// As [`Objects::lookup`], where all trees on the way are in memory.
    pub fn cached_lookup(&self, tree: &ObjectId, path: &TreePath) -> Option<Option<Entry>> {
        descend(tree, path, |id| self.cached_tree(id).ok_or(())).ok()
    }
}

fn descend<E>(
    tree: &ObjectId,
    path: &TreePath,
    read: impl Fn(&ObjectId) -> Result<Arc<Tree>, E>,
) -> Result<Option<Entry>, E> {
    let mut entry = Entry {
        mode: Mode::DIR,
        id: *tree,
    };
    for step in path.steps() {
        if !entry.mode.is_dir() {
            return Ok(None);
        }
        match read(&entry.id)?.get(step) {
            Some(next) => entry = next,
            None => return Ok(None),
        }
    }
    Ok(Some(entry))
}

/// The failure of an object that is not what it must be.
pub fn corrupt(id: &ObjectId, why: &str) -> Error {
    Error::Corrupt {
        id: id.to_string(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[(&str, Mode)]) -> Tree {
        let mut raw = Vec::new();
        for (name, mode) in names {
            let id = ObjectId::from_bytes(&[1; 20]).expect("20 bytes");
            push_entry(&mut raw, name.as_bytes(), &Entry { mode: *mode, id });
        }
        Tree::parse(raw, HashKind::Sha1).expect("well formed")
    }

    #[test]
    fn names_are_found_in_gits_order() {
        // A folder sorts as if a slash stood behind it.
        let tree = tree(&[
            ("a", Mode::FILE),
            ("a-b", Mode::FILE),
            ("b-", Mode::FILE),
            ("b", Mode::DIR),
            ("b0", Mode::FILE),
        ]);
        for name in ["a", "a-b", "b-", "b", "b0"] {
            assert!(tree.get(name.as_bytes()).is_some(), "{name}");
        }
        assert!(tree.get(b"c").is_none());
        assert!(tree.get(b"").is_none());
    }

    #[test]
    fn damaged_trees_are_refused() {
        for bad in [
            &b"100644 a\0short"[..],
            b"100644 a",
            b"1006x4 a\0",
            b" a\0",
            b"100644 \0aaaaaaaaaaaaaaaaaaaa",
            b"100644 a/b\0aaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(Tree::parse(bad.to_vec(), HashKind::Sha1).is_err());
        }
    }
}
