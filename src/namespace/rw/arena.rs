//! A tree being edited, in memory: what was looked at or changed, over a stored
//! tree.
//!
//! Every node that was looked up is kept, so that whoever has it open goes on
//! with it when it is moved. Nothing here blocks: what has to be read first is
//! asked for with [`Stop::Need`], and the whole is tried again. So nothing is
//! changed before all that is needed is there.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Arc;

use crate::model::{Conflict, Mode, ObjectId, TreePath};
use crate::namespace::entry::{COUNTED, key, version};
use crate::namespace::failure;
use crate::namespace::node::{Error, Id, Listing, Shape};
use crate::namespace::view::shape;
use crate::store::objects::{Tree, compare};

/// Why something cannot be done, or not yet.
#[derive(Debug)]
pub enum Stop {
    Need(Need),
    Failed(Error),
}

/// What has to be read first.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// The stored tree of a folder.
    Tree { node: u64, id: ObjectId },
    /// The length of a stored file.
    Size { node: u64, id: ObjectId },
    /// The content of a stored file.
    Content { node: u64, id: ObjectId },
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub type Result<T, E = Stop> = std::result::Result<T, E>;

/// The bytes of a file.
#[derive(Clone)]
pub enum Content {
    Stored {
        id: ObjectId,
        size: Option<u64>,
    },
    Memory(Arc<Vec<u8>>),
    /// A temporary file that has no name, and its length.
    Spilled(Arc<File>, u64),
}

#[derive(Clone)]
pub struct Leaf {
    pub mode: Mode,
    pub content: Content,
}

#[derive(Clone, Default)]
pub(super) struct Folder {
    /// The stored tree below the changes, and its entries once they are needed.
    pub(super) base: Option<(ObjectId, Option<Arc<Tree>>)>,
    /// What was looked up or changed; `None`: removed.
    pub(super) changes: BTreeMap<Vec<u8>, Option<u64>>,
}

#[derive(Clone)]
pub(super) enum What {
    Dir(Folder),
    Leaf(Leaf),
}

pub(super) struct Item {
    pub(super) parent: u64,
    pub(super) name: Vec<u8>,
    /// It was removed; where it was is still known.
    pub(super) gone: bool,
    pub(super) version: u32,
    pub(super) mtime: i64,
    pub(super) what: What,
}

/// The whole of it.
pub struct Arena {
    pub(super) items: HashMap<u64, Item>,
    pub root: u64,
    /// The tree below all changes.
    pub base: ObjectId,
    /// When that was made.
    pub(super) since: i64,
    /// Paths that a merge left to be resolved.
    pub conflicts: Vec<Conflict>,
    /// Bytes of content in memory.
    pub bytes: u64,
    /// Edits made since it was in step with what is stored.
    pub edits: u64,
    next: u64,
}

/// What stat tells of a node.
pub struct About {
    pub id: Id,
    pub mode: Mode,
    pub size: u64,
    pub mtime: i64,
}

/// One entry of a listing.
type Listed = (Vec<u8>, Id);

/// Trees by id.
pub type Trees = HashMap<ObjectId, Arc<Tree>>;

/// A folder's entries at one moment.
pub struct Entries {
    dir: u64,
    tree: Option<Arc<Tree>>,
    extra: Vec<Listed>,
    slots: Vec<Slot>,
}

/// Where an entry of a listing is found.
enum Slot {
    Stored(usize),
    Extra(usize),
}

impl Listing for Entries {
    fn len(&self) -> usize {
        self.slots.len()
    }

    fn entry(&self, index: usize) -> (Vec<u8>, Id) {
        match (&self.slots[index], &self.tree) {
            (Slot::Stored(index), Some(tree)) => {
                let found = tree.nth(*index);
                let id = Id {
                    shape: shape(found.entry.mode),
                    path: key(self.dir, found.name),
                    version: version(&found.entry.id),
                };
                (found.name.to_vec(), id)
            }
            (Slot::Stored(index) | Slot::Extra(index), _) => self.extra[*index].clone(),
        }
    }
}

impl Arena {
    pub fn new(root: u64, base: ObjectId, since: i64) -> Self {
        let folder = Folder {
            base: Some((base, None)),
            changes: BTreeMap::new(),
        };
        let item = Item {
            parent: root,
            name: b"rw".to_vec(),
            gone: false,
            version: 1,
            mtime: since,
            what: What::Dir(folder),
        };
        Self {
            items: HashMap::from([(root, item)]),
            root,
            base,
            since,
            conflicts: Vec::new(),
            bytes: 0,
            edits: 0,
            next: 0,
        }
    }

    pub(super) fn item(&self, node: u64) -> Result<&Item> {
        let missing = || Stop::Failed(failure::no_entry("the file"));
        self.items.get(&node).ok_or_else(missing)
    }

    pub(super) fn item_mut(&mut self, node: u64) -> Result<&mut Item> {
        let missing = || Stop::Failed(failure::no_entry("the file"));
        self.items.get_mut(&node).ok_or_else(missing)
    }

    pub(super) fn counted(&mut self) -> u64 {
        loop {
            self.next += 1;
            let id = key(self.root, &self.next.to_le_bytes()) | COUNTED;
            if !self.items.contains_key(&id) {
                return id;
            }
        }
    }

    /// Returns the path of a node, or where it was when it was removed.
    pub fn path(&self, node: u64) -> Result<TreePath> {
        let mut names = Vec::new();
        let mut at = node;
        while at != self.root {
            let item = self.item(at)?;
            names.push(&item.name[..]);
            at = item.parent;
        }
        let mut path = TreePath::root();
        for name in names.into_iter().rev() {
            path.push(name);
        }
        Ok(path)
    }

    pub(super) fn depth(&self, node: u64) -> Result<usize> {
        let (mut at, mut depth) = (node, 0);
        while at != self.root {
            at = self.item(at)?.parent;
            depth += 1;
        }
        Ok(depth)
    }

    pub fn name(&self, node: u64) -> Vec<u8> {
        self.items
            .get(&node)
            .map_or_else(Vec::new, |item| item.name.clone())
    }

    /// The node it is in; the root is in itself.
    pub fn parent(&self, node: u64) -> u64 {
        self.items.get(&node).map_or(self.root, |item| item.parent)
    }

    /// Returns the node, or what stands at its path now where it was removed.
    pub fn live(&mut self, node: u64) -> Result<u64> {
        if !self.item(node)?.gone {
            return Ok(node);
        }
        let path = self.path(node)?;
        let mut at = self.root;
        for step in path.steps() {
            at = match self.find(at, step)? {
                Some(next) => next,
                None => return Err(failure::no_entry(path.to_string()).into()),
            };
        }
        Ok(at)
    }

    pub(super) fn folder(&self, node: u64) -> Result<&Folder> {
        match &self.item(node)?.what {
            What::Dir(folder) => Ok(folder),
            What::Leaf(_) => Err(failure::not_directory(self.path(node)?).into()),
        }
    }

    pub(super) fn folder_mut(&mut self, node: u64) -> Result<&mut Folder> {
        match &mut self.item_mut(node)?.what {
            What::Dir(folder) => Ok(folder),
            What::Leaf(_) => Err(failure::not_directory("a file").into()),
        }
    }

    /// Returns the stored tree of a folder: nothing for a new one.
    pub(super) fn tree(&self, node: u64) -> Result<Option<Arc<Tree>>> {
        match &self.folder(node)?.base {
            None => Ok(None),
            Some((_, Some(tree))) => Ok(Some(tree.clone())),
            Some((id, None)) => Err(Stop::Need(Need::Tree { node, id: *id })),
        }
    }

    /// Gives a folder the entries of its stored tree.
    pub fn give_tree(&mut self, node: u64, id: ObjectId, tree: Arc<Tree>) {
        if let Ok(folder) = self.folder_mut(node)
            && let Some((base, slot)) = &mut folder.base
            && *base == id
        {
            *slot = Some(tree);
        }
    }

    pub fn give_size(&mut self, node: u64, id: ObjectId, length: u64) {
        if let Ok(leaf) = self.leaf_mut(node)
            && let Content::Stored { id: stored, size } = &mut leaf.content
            && *stored == id
        {
            *size = Some(length);
        }
    }

    /// Gives a file its content, which stays what it was.
    pub fn give_content(&mut self, node: u64, content: Content) {
        let added = memory(&content);
        if let Ok(leaf) = self.leaf_mut(node) {
            let before = memory(&leaf.content);
            leaf.content = content;
            self.bytes = self.bytes + added - before;
        }
    }

    /// Finds an entry of a folder, making a node of it.
    pub(super) fn find(&mut self, dir: u64, name: &[u8]) -> Result<Option<u64>> {
        if let Some(change) = self.folder(dir)?.changes.get(name) {
            return Ok(*change);
        }
        let Some(entry) = self.tree(dir)?.and_then(|tree| tree.get(name)) else {
            return Ok(None);
        };
        let mut id = key(dir, name);
        if self.items.contains_key(&id) {
            id = self.counted();
        }
        let what = match entry.mode.is_dir() {
            true => What::Dir(Folder {
                base: Some((entry.id, None)),
                changes: BTreeMap::new(),
            }),
            false => What::Leaf(Leaf {
                mode: entry.mode,
                content: Content::Stored {
                    id: entry.id,
                    size: None,
                },
            }),
        };
        let item = Item {
            parent: dir,
            name: name.to_vec(),
            gone: false,
            version: version(&entry.id),
            mtime: self.since,
            what,
        };
        self.items.insert(id, item);
        self.folder_mut(dir)?
            .changes
            .insert(name.to_vec(), Some(id));
        Ok(Some(id))
    }

    pub fn lookup(&mut self, dir: u64, name: &[u8]) -> Result<u64> {
        let dir = self.live(dir)?;
        if let What::Leaf(_) = self.item(dir)?.what {
            return Err(failure::walk_from_file().into());
        }
        match self.find(dir, name)? {
            Some(node) => Ok(node),
            None => Err(failure::no_entry(self.path(dir)?.join(name).to_string()).into()),
        }
    }

    pub fn shape(&self, node: u64) -> Shape {
        match self.items.get(&node).map(|item| &item.what) {
            Some(What::Leaf(leaf)) => shape(leaf.mode),
            _ => Shape::Dir,
        }
    }

    pub fn id(&self, node: u64) -> Id {
        let item = self.items.get(&node);
        Id {
            shape: self.shape(node),
            path: node,
            version: item.map_or(1, |item| item.version),
        }
    }

    pub fn about(&mut self, node: u64) -> Result<About> {
        let node = self.live(node)?;
        let item = self.item(node)?;
        let (mode, size) = match &item.what {
            What::Dir(_) => (Mode::DIR, 0),
            What::Leaf(leaf) => (leaf.mode, self.size(node)?),
        };
        Ok(About {
            id: self.id(node),
            mode,
            size,
            mtime: item.mtime,
        })
    }

    /// Returns the length of a file.
    pub fn size(&self, node: u64) -> Result<u64> {
        let leaf = self.leaf(node)?;
        match &leaf.content {
            Content::Stored {
                size: Some(size), ..
            } => Ok(*size),
            Content::Stored { id, .. } if leaf.mode.is_blob() => {
                Err(Stop::Need(Need::Size { node, id: *id }))
            }
            Content::Stored { .. } => Ok(0),
            Content::Memory(bytes) => Ok(bytes.len() as u64),
            Content::Spilled(_, length) => Ok(*length),
        }
    }

    pub fn leaf(&self, node: u64) -> Result<&Leaf> {
        match &self.item(node)?.what {
            What::Leaf(leaf) => Ok(leaf),
            What::Dir(_) => Err(failure::is_directory(self.path(node)?).into()),
        }
    }

    pub(super) fn leaf_mut(&mut self, node: u64) -> Result<&mut Leaf> {
        match &mut self.item_mut(node)?.what {
            What::Leaf(leaf) => Ok(leaf),
            What::Dir(_) => Err(failure::is_directory("the file").into()),
        }
    }

    /// Lists a folder in Git's order, sharing the stored tree.
    pub fn list(&mut self, dir: u64) -> Result<Entries> {
        let dir = self.live(dir)?;
        let tree = self.tree(dir)?;
        let changes = &self.folder(dir)?.changes;
        let kept = |(name, node): (&Vec<u8>, &Option<u64>)| Some((name.clone(), self.id((*node)?)));
        let mut extra: Vec<Listed> = changes.iter().filter_map(kept).collect();
        let is_dir = |id: &Id| id.shape == Shape::Dir;
        extra.sort_by(|(a, x), (b, y)| compare(a, is_dir(x), b, is_dir(y)));
        let mut slots = Vec::new();
        let mut next = 0;
        for (index, stored) in tree.iter().flat_map(|tree| tree.iter()).enumerate() {
            if changes.contains_key(stored.name) {
                continue;
            }
            while let Some((name, id)) = extra.get(next)
                && compare(name, is_dir(id), stored.name, stored.entry.mode.is_dir()).is_lt()
            {
                slots.push(Slot::Extra(next));
                next += 1;
            }
            slots.push(Slot::Stored(index));
        }
        slots.extend((next..extra.len()).map(Slot::Extra));
        Ok(Entries {
            dir,
            tree,
            extra,
            slots,
        })
    }

    /// Tells whether a folder has no entries.
    pub fn is_empty(&self, dir: u64) -> Result<bool> {
        let tree = self.tree(dir)?;
        let changes = &self.folder(dir)?.changes;
        let stored = tree
            .iter()
            .flat_map(|tree| tree.iter())
            .any(|stored| !changes.contains_key(stored.name));
        Ok(!stored && changes.values().all(Option::is_none))
    }
}

/// Bytes of a content that are in memory.
pub(super) fn memory(content: &Content) -> u64 {
    match content {
        Content::Memory(bytes) => bytes.len() as u64,
        _ => 0,
    }
}
