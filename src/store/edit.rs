//! Editing a tree in memory: only what an edit touches is read and written.
//!
//! A [`Draft`] holds the folders an edit went through, each as a stored tree
//! with changes on top; everything else stays an id. [`Draft::write`] makes
//! the new trees, bottom up. An [`Op`] can be applied again, to another tree,
//! when somebody else was faster.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use crate::model::request::FileKind;
use crate::model::{Entry, EntryKind, Mode, ObjectId, TreePath};

use super::collect::SMALL;
use super::engine::ObjectKind;
use super::objects::{Fresh, Objects, Tree, compare, push_entry};
use super::{Error, Result};

/// An edit whose content is in the store, or in the [`Fresh`] objects beside it.
#[derive(Clone, Debug)]
pub enum Op {
    Write {
        path: TreePath,
        kind: FileKind,
        id: ObjectId,
    },
    Append {
        path: TreePath,
        tail: ObjectId,
    },
    Truncate {
        path: TreePath,
        size: u64,
    },
    Link {
        path: TreePath,
        id: ObjectId,
    },
    Mkdir(TreePath),
    Remove(TreePath),
    Rename {
        from: TreePath,
        to: TreePath,
    },
    Copy {
        from: TreePath,
        to: TreePath,
    },
    Chmod {
        path: TreePath,
        exec: bool,
    },
    Set {
        path: TreePath,
        entry: Entry,
    },
}

impl Op {
    /// A few words for a commit message.
    pub fn summary(&self) -> String {
        match self {
            Self::Write { path, .. } | Self::Append { path, .. } => format!("write {path}"),
            Self::Truncate { path, .. } => format!("truncate {path}"),
            Self::Link { path, .. } => format!("link {path}"),
            Self::Mkdir(path) => format!("mkdir {path}"),
            Self::Remove(path) => format!("rm {path}"),
            Self::Rename { from, to } => format!("mv {from} {to}"),
            Self::Copy { from, to } => format!("cp {from} {to}"),
            Self::Chmod { path, .. } => format!("chmod {path}"),
            Self::Set { path, .. } => format!("set {path}"),
        }
    }
}

/// Folders within folders that can be written: they are gone through by
/// functions that call themselves.
pub const DEEPEST: usize = 1024;

fn too_deep() -> Error {
    Error::Invalid(format!("a path has more than {DEEPEST} steps"))
}

/// A tree being edited.
pub struct Draft<'a> {
    objects: &'a Objects,
    root: Dir,
}

/// A folder of a draft.
#[derive(Clone)]
struct Dir {
    /// What it was made from; nothing for a new folder.
    base: Option<(ObjectId, Arc<Tree>)>,
    /// What differs from `base`, by name; `None`: removed.
    changes: BTreeMap<Vec<u8>, Option<Node>>,
}

#[derive(Clone)]
enum Node {
    /// A leaf, or a folder as it is stored.
    Stored(Entry),
    Dir(Dir),
}

impl Dir {
    fn new() -> Self {
        Self {
            base: None,
            changes: BTreeMap::new(),
        }
    }

    fn load(objects: &Objects, id: ObjectId) -> Result<Self> {
        Ok(Self {
            base: Some((id, objects.tree(&id)?)),
            changes: BTreeMap::new(),
        })
    }

    /// Returns the mode of what stands here under a name.
    fn mode(&self, name: &[u8]) -> Option<Mode> {
        match self.changes.get(name) {
            Some(Some(Node::Stored(entry))) => Some(entry.mode),
            Some(Some(Node::Dir(_))) => Some(Mode::DIR),
            Some(None) => None,
            None => self.base.as_ref()?.1.get(name).map(|entry| entry.mode),
        }
    }

    /// Returns the leaf under a name.
    fn stored(&self, name: &[u8]) -> Option<Entry> {
        match self.changes.get(name) {
            Some(Some(Node::Stored(entry))) => Some(*entry),
            Some(_) => None,
            None => self.base.as_ref()?.1.get(name),
        }
    }

    /// Returns a copy of what stands under a name.
    fn look(&self, name: &[u8]) -> Option<Node> {
        match self.changes.get(name) {
            Some(node) => node.clone(),
            None => self.base.as_ref()?.1.get(name).map(Node::Stored),
        }
    }

    /// Takes out what stands under a name, leaving nothing there.
    fn take(&mut self, name: &[u8]) -> Option<Node> {
        let stored = || self.base.as_ref()?.1.get(name).map(Node::Stored);
        match self.changes.remove(name) {
            Some(node) => {
                if stored().is_some() {
                    self.changes.insert(name.to_vec(), None);
                }
                node
            }
            None => {
                let node = stored()?;
                self.changes.insert(name.to_vec(), None);
                Some(node)
            }
        }
    }

    fn put(&mut self, name: &[u8], node: Node) {
        self.changes.insert(name.to_vec(), Some(node));
    }

    /// Returns the folder under a name, made where nothing stands and `make`.
    fn child(&mut self, objects: &Objects, name: &[u8], make: bool) -> Result<Step<'_>> {
        let stored = match self.changes.get(name) {
            Some(Some(Node::Dir(_))) => None,
            Some(Some(Node::Stored(entry))) => Some(*entry),
            Some(None) => {
                if !make {
                    return Ok(Step::Missing);
                }
                self.put(name, Node::Dir(Dir::new()));
                None
            }
            None => match self.base.as_ref().and_then(|(_, tree)| tree.get(name)) {
                Some(entry) => Some(entry),
                None if make => {
                    self.put(name, Node::Dir(Dir::new()));
                    None
                }
                None => return Ok(Step::Missing),
            },
        };
        if let Some(entry) = stored {
            if !entry.mode.is_dir() {
                return Ok(Step::File);
            }
            self.put(name, Node::Dir(Dir::load(objects, entry.id)?));
        }
        match self.changes.get_mut(name) {
            Some(Some(Node::Dir(dir))) => Ok(Step::Dir(dir)),
            _ => unreachable!("it was made or loaded above"),
        }
    }
}

enum Step<'a> {
    Dir(&'a mut Dir),
    File,
    Missing,
}

impl<'a> Draft<'a> {
    /// Begins with a stored tree.
    pub fn new(objects: &'a Objects, tree: &ObjectId) -> Result<Self> {
        Ok(Self {
            objects,
            root: Dir::load(objects, *tree)?,
        })
    }

    /// Returns the folder above a path, and its last step. `make` creates
    /// missing folders; otherwise they are [`Error::NotFound`].
    fn parent<'p>(&mut self, path: &'p TreePath, make: bool) -> Result<(&mut Dir, &'p [u8])> {
        let Some((_, last)) = path.split_last() else {
            return Err(Error::Invalid(
                "the root of a tree cannot be replaced".into(),
            ));
        };
        let last = &path.as_bytes()[path.as_bytes().len() - last.len()..];
        let mut walked = TreePath::root();
        let mut dir = &mut self.root;
        let depth = path.steps().count() - 1;
        if depth >= DEEPEST {
            return Err(too_deep());
        }
        for step in path.steps().take(depth) {
            walked.push(step);
            dir = match dir.child(self.objects, step, make)? {
                Step::Dir(dir) => dir,
                Step::File => return Err(Error::NotDirectory(walked.to_string())),
                Step::Missing => return Err(Error::NotFound(path.to_string())),
            };
        }
        Ok((dir, last))
    }

    fn leaf(&mut self, path: &TreePath, mode: Mode, id: ObjectId) -> Result<()> {
        let (dir, name) = self.parent(path, true)?;
        if dir.mode(name).is_some_and(Mode::is_dir) {
            return Err(Error::IsDirectory(path.to_string()));
        }
        dir.put(name, Node::Stored(Entry { mode, id }));
        Ok(())
    }

    /// Applies edits in order. A failure says which of them it was.
    pub fn apply_all(&mut self, ops: &[Op], fresh: &mut Fresh) -> Result<()> {
        for (index, op) in ops.iter().enumerate() {
            self.apply(op, fresh).map_err(|error| Error::Edit {
                number: index + 1,
                error: Box::new(error),
            })?;
        }
        Ok(())
    }

    /// Applies one edit. After a failure the draft is to be thrown away.
    pub fn apply(&mut self, op: &Op, fresh: &mut Fresh) -> Result<()> {
        match op {
            Op::Write { path, kind, id } => {
                let mode = match kind {
                    FileKind::Normal => Mode::FILE,
                    FileKind::Exec => Mode::EXEC,
                    FileKind::Keep => {
                        let (dir, name) = self.parent(path, true)?;
                        match dir.mode(name) {
                            Some(Mode::EXEC) => Mode::EXEC,
                            _ => Mode::FILE,
                        }
                    }
                };
                self.leaf(path, mode, *id)
            }
            Op::Append { path, tail } => self.append(path, tail, fresh),
            Op::Truncate { path, size } => self.truncate(path, *size, fresh),
            Op::Link { path, id } => self.leaf(path, Mode::LINK, *id),
            Op::Mkdir(path) => self.mkdir(path),
            Op::Remove(path) => {
                let (dir, name) = self.parent(path, false)?;
                match dir.take(name) {
                    Some(_) => Ok(()),
                    None => Err(Error::NotFound(path.to_string())),
                }
            }
            Op::Rename { from, to } => self.rename(from, to, Dir::take),
            Op::Copy { from, to } => self.rename(from, to, |dir, name| dir.look(name)),
            Op::Chmod { path, exec } => self.chmod(path, *exec),
            Op::Set { path, entry } => self.set(path, *entry),
        }
    }

    fn append(&mut self, path: &TreePath, tail: &ObjectId, fresh: &mut Fresh) -> Result<()> {
        let (dir, name) = self.parent(path, true)?;
        if dir.mode(name).is_none() {
            return self.leaf(path, Mode::FILE, *tail);
        }
        let old = self.file(path)?;
        let length = self.size(&old.id, fresh)? + self.size(tail, fresh)?;
        let whole = self.open(&old.id, fresh)?.chain(self.open(tail, fresh)?);
        self.rewrite(path, old.mode, whole, length, fresh)
    }

    fn truncate(&mut self, path: &TreePath, size: u64, fresh: &mut Fresh) -> Result<()> {
        let old = self.file(path)?;
        let whole = self
            .open(&old.id, fresh)?
            .chain(std::io::repeat(0))
            .take(size);
        self.rewrite(path, old.mode, whole, size, fresh)
    }

    /// Returns the file at a path, which must be there.
    fn file(&mut self, path: &TreePath) -> Result<Entry> {
        let (dir, name) = self.parent(path, false)?;
        let mode = dir.mode(name);
        match mode.map(Mode::kind) {
            None => Err(Error::NotFound(path.to_string())),
            Some(EntryKind::Dir) => Err(Error::IsDirectory(path.to_string())),
            Some(EntryKind::File | EntryKind::Exec) => match dir.stored(name) {
                Some(entry) => Ok(entry),
                None => Err(Error::NotFound(path.to_string())),
            },
            Some(kind) => Err(Error::Invalid(format!(
                "{path} is a {}, not a file",
                kind.name()
            ))),
        }
    }

    fn size(&self, id: &ObjectId, fresh: &Fresh) -> Result<u64> {
        match fresh.get(id) {
            Some(object) => Ok(object.data.len() as u64),
            None => self.objects.size(id),
        }
    }

    fn open(&self, id: &ObjectId, fresh: &Fresh) -> Result<Box<dyn Read + Send>> {
        match fresh.get(id) {
            Some(object) => Ok(Box::new(std::io::Cursor::new(object.data.clone()))),
            None => self.objects.open(id),
        }
    }

    /// Stores new content of a file: small in memory, large straight away.
    fn rewrite(
        &mut self,
        path: &TreePath,
        mode: Mode,
        mut whole: impl Read,
        length: u64,
        fresh: &mut Fresh,
    ) -> Result<()> {
        let id = if length <= SMALL {
            let mut data = Vec::new();
            whole
                .read_to_end(&mut data)
                .map_err(Error::io(format!("cannot read {path}")))?;
            fresh.add(self.objects.hash_kind(), ObjectKind::Blob, data)?
        } else {
            self.objects.engine.put(&mut whole, Some(length))?
        };
        self.leaf(path, mode, id)
    }

    fn mkdir(&mut self, path: &TreePath) -> Result<()> {
        if path.is_root() {
            return Ok(());
        }
        let objects = self.objects;
        let (dir, name) = self.parent(path, true)?;
        match dir.child(objects, name, true)? {
            Step::Dir(_) => Ok(()),
            _ => Err(Error::Exists(path.to_string())),
        }
    }

    /// Puts at `to` what `get` gives of what stands at `from`.
    fn rename(
        &mut self,
        from: &TreePath,
        to: &TreePath,
        get: impl FnOnce(&mut Dir, &[u8]) -> Option<Node>,
    ) -> Result<()> {
        let (dir, name) = self.parent(from, false)?;
        if dir.mode(name).is_none() {
            return Err(Error::NotFound(from.to_string()));
        }
        if from == to {
            return Ok(());
        }
        if to.starts_with(from) {
            return Err(Error::Invalid(format!(
                "{from} cannot go into itself, to {to}"
            )));
        }
        // Look before anything is taken out.
        let (target, last) = self.parent(to, true)?;
        if target.mode(last).is_some_and(Mode::is_dir) {
            return Err(Error::IsDirectory(to.to_string()));
        }
        let (dir, name) = self.parent(from, false)?;
        let node = get(dir, name).ok_or_else(|| Error::NotFound(from.to_string()))?;
        let (target, last) = self.parent(to, true)?;
        target.put(last, node);
        Ok(())
    }

    fn chmod(&mut self, path: &TreePath, exec: bool) -> Result<()> {
        let (dir, name) = self.parent(path, false)?;
        match dir.mode(name).map(Mode::kind) {
            None => return Err(Error::NotFound(path.to_string())),
            Some(EntryKind::Dir) => return Err(Error::IsDirectory(path.to_string())),
            Some(EntryKind::File | EntryKind::Exec | EntryKind::Link) => {}
            Some(kind) => {
                return Err(Error::Invalid(format!(
                    "{path} is a {}, not a file",
                    kind.name()
                )));
            }
        }
        if let Some(Node::Stored(entry)) = dir.take(name) {
            let mode = if exec { Mode::EXEC } else { Mode::FILE };
            dir.put(name, Node::Stored(Entry { mode, ..entry }));
        }
        Ok(())
    }

    fn set(&mut self, path: &TreePath, entry: Entry) -> Result<()> {
        if path.is_root() {
            if !entry.mode.is_dir() {
                return Err(Error::Invalid("the root of a tree is a directory".into()));
            }
            self.root = Dir::load(self.objects, entry.id)?;
            return Ok(());
        }
        let (dir, name) = self.parent(path, true)?;
        dir.put(name, Node::Stored(entry));
        Ok(())
    }

    /// Makes the trees of this draft and returns the root's id. With
    /// `keep_empty` an emptied or new folder stays as an empty tree; otherwise
    /// those the edits went through disappear.
    pub fn write(self, fresh: &mut Fresh, keep_empty: bool) -> Result<ObjectId> {
        let objects = self.objects;
        match write_dir(objects, self.root, fresh, keep_empty)? {
            Some(id) => Ok(id),
            None => fresh.add(objects.hash_kind(), ObjectKind::Tree, Vec::new()),
        }
    }
}

fn write_dir(
    objects: &Objects,
    dir: Dir,
    fresh: &mut Fresh,
    keep_empty: bool,
) -> Result<Option<ObjectId>> {
    if dir.changes.is_empty()
        && let Some((id, tree)) = &dir.base
    {
        return Ok((keep_empty || !tree.is_empty()).then_some(*id));
    }
    let mut changed = Vec::with_capacity(dir.changes.len());
    let mut gone = std::collections::HashSet::with_capacity(dir.changes.len());
    for (name, node) in dir.changes {
        let entry = match node {
            None => None,
            Some(Node::Stored(entry)) => Some(entry),
            Some(Node::Dir(child)) => {
                write_dir(objects, child, fresh, keep_empty)?.map(|id| Entry {
                    mode: Mode::DIR,
                    id,
                })
            }
        };
        if let Some(entry) = entry {
            changed.push((name.clone(), entry));
        }
        gone.insert(name);
    }
    changed.sort_by(|(a, x), (b, y)| compare(a, x.mode.is_dir(), b, y.mode.is_dir()));
    let mut raw = Vec::new();
    let mut changed = changed.into_iter().peekable();
    if let Some((_, tree)) = &dir.base {
        for kept in tree.iter() {
            if gone.contains(kept.name) {
                continue;
            }
            let before = |(name, entry): &(Vec<u8>, Entry)| {
                compare(
                    name,
                    entry.mode.is_dir(),
                    kept.name,
                    kept.entry.mode.is_dir(),
                )
                .is_lt()
            };
            while let Some((name, entry)) = changed.next_if(before) {
                push_entry(&mut raw, &name, &entry);
            }
            raw.extend_from_slice(kept.raw);
        }
    }
    for (name, entry) in changed {
        push_entry(&mut raw, &name, &entry);
    }
    if raw.is_empty() && !keep_empty {
        return Ok(None);
    }
    fresh
        .add(objects.hash_kind(), ObjectKind::Tree, raw)
        .map(Some)
}

/// Removes empty folders from `tree` wherever it differs from `base`, so that
/// a commit never adds one. Reads only what differs.
pub fn prune(
    objects: &Objects,
    fresh: &mut Fresh,
    tree: &ObjectId,
    base: Option<&ObjectId>,
) -> Result<ObjectId> {
    match prune_dir(objects, fresh, tree, base, 0)? {
        Some(id) => Ok(id),
        None => fresh.add(objects.hash_kind(), ObjectKind::Tree, Vec::new()),
    }
}

fn prune_dir(
    objects: &Objects,
    fresh: &mut Fresh,
    id: &ObjectId,
    base: Option<&ObjectId>,
    depth: usize,
) -> Result<Option<ObjectId>> {
    if base == Some(id) {
        return Ok(Some(*id));
    }
    if depth == DEEPEST {
        return Err(too_deep());
    }
    let tree = load(objects, fresh, id)?;
    let old = base.map(|id| objects.tree(id)).transpose()?;
    let (mut raw, mut same) = (Vec::new(), true);
    for item in tree.iter() {
        if !item.entry.mode.is_dir() {
            raw.extend_from_slice(item.raw);
            continue;
        }
        let below = old
            .as_ref()
            .and_then(|old| old.get(item.name))
            .filter(|entry| entry.mode.is_dir());
        let below = below.map(|entry| entry.id);
        match prune_dir(objects, fresh, &item.entry.id, below.as_ref(), depth + 1)? {
            Some(kept) if kept == item.entry.id => raw.extend_from_slice(item.raw),
            Some(id) => {
                same = false;
                push_entry(
                    &mut raw,
                    item.name,
                    &Entry {
                        mode: Mode::DIR,
                        id,
                    },
                );
            }
            None => same = false,
        }
    }
    Ok(if raw.is_empty() {
        None
    } else if same {
        Some(*id)
    } else {
        Some(fresh.add(objects.hash_kind(), ObjectKind::Tree, raw)?)
    })
}

/// Returns a tree that may not be in the store yet.
fn load(objects: &Objects, fresh: &Fresh, id: &ObjectId) -> Result<Arc<Tree>> {
    match fresh.get(id) {
        Some(object) => Tree::parse(object.data.clone(), objects.hash_kind())
            .map(Arc::new)
            .map_err(|why| super::objects::corrupt(id, why)),
        None => objects.tree(id),
    }
}
