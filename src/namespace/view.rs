//! Trees that are read only: of a branch as it is now, of a commit, of a
//! transaction's sides.
//!
//! A live view looks its path up from the branch's head at every request, so
//! it never shows two moments in one answer. In a fixed one each node knows its
//! object. Listings share the parsed tree.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::model::{Entry, Mode, ObjectId, TreePath};
use crate::store::objects::Tree;
use crate::store::{self, Store};

use super::branch::Cell;
use super::entry::{Place, key, no_listing, not_a_directory, refused, set_directory, version};
use super::failure;
use super::files::{Turn, range};
use super::node::{Attr, Call, Create, Handle, Id, Listing, Node, Open, Result, Set, Shape};
use super::{World, blob};

/// What a view shows, and the world it is in.
#[derive(Clone)]
pub struct View {
    world: Arc<World>,
    root: What,
}

#[derive(Clone)]
enum What {
    /// The tree of a branch's head.
    Live(Arc<Cell>),
    /// It never changes; this is its commit's time.
    Fixed(i64),
}

/// A node of a view.
#[derive(Clone)]
pub struct Viewed {
    place: Arc<Place>,
    view: View,
    path: TreePath,
    /// What it was when it was looked up; in a fixed view what it is for ever.
    entry: Entry,
    size: Arc<OnceLock<u64>>,
}

pub fn shape(mode: Mode) -> Shape {
    match mode {
        Mode::DIR => Shape::Dir,
        Mode::LINK => Shape::Link,
        _ => Shape::File,
    }
}

/// Makes the root of a live view.
pub fn live(world: &Arc<World>, place: Place, cell: Arc<Cell>) -> Arc<dyn Node> {
    let id = world.store.objects.empty_tree();
    Arc::new(Viewed {
        place: Arc::new(place),
        view: View {
            world: world.clone(),
            root: What::Live(cell),
        },
        path: TreePath::root(),
        entry: dir(id),
        size: Arc::default(),
    })
}

/// Makes a view of what never changes.
pub fn fixed(world: &Arc<World>, place: Place, entry: Entry, mtime: i64) -> Arc<dyn Node> {
    Arc::new(Viewed {
        place: Arc::new(place),
        view: View {
            world: world.clone(),
            root: What::Fixed(mtime),
        },
        path: TreePath::root(),
        entry,
        size: Arc::default(),
    })
}

pub fn dir(id: ObjectId) -> Entry {
    let mode = Mode::DIR;
    Entry { mode, id }
}

impl Viewed {
    /// Returns what stands here now, and since when.
    async fn now(&self, call: &Call) -> Result<(Entry, i64)> {
        let cell = match &self.view.root {
            What::Fixed(mtime) => return Ok((self.entry, *mtime)),
            What::Live(cell) => cell.clone(),
        };
        let store = &self.view.world.store;
        let known = cell.quick_tree(store, call).and_then(|(tree, time)| {
            let found = store.objects.cached_lookup(&tree, &self.path)?;
            Some((found, time))
        });
        let (found, time) = match known {
            Some(known) => known,
            None => {
                let path = self.path.clone();
                let work = move |store: &Arc<Store>| {
                    let (tree, time) = cell.tree(store)?;
                    Ok((store.objects.lookup(&tree, &path)?, time))
                };
                self.view.world.run(work).await?
            }
        };
        let missing = || store::Error::NotFound(self.path.to_string());
        let entry = found.ok_or_else(missing)?;
        match (self.entry.mode.is_dir(), entry.mode.is_dir()) {
            (false, true) => Err(failure::is_directory(&self.path)),
            (true, false) => Err(failure::not_directory(&self.path)),
            _ => Ok((entry, time)),
        }
    }

    /// Returns the directory it is now, from memory where it is there.
    async fn tree(&self, call: &Call) -> Result<(Arc<Tree>, i64)> {
        if !self.entry.mode.is_dir() {
            return Err(failure::walk_from_file());
        }
        let (entry, time) = self.now(call).await?;
        Ok((self.view.world.tree(&entry.id).await?, time))
    }

    fn child(&self, name: &[u8], entry: Entry) -> Arc<dyn Node> {
        let place = Place {
            parent: Some(Arc::new(self.clone())),
            name: name.to_vec(),
            key: key(self.place.key, name),
        };
        Arc::new(Self {
            place: Arc::new(place),
            view: self.view.clone(),
            path: self.path.join(name),
            entry,
            size: Arc::default(),
        })
    }

    async fn length(&self, entry: &Entry) -> Result<u64> {
        if !entry.mode.is_blob() {
            return Ok(0);
        }
        let same = *entry == self.entry;
        if let Some(size) = self.size.get().filter(|_| same) {
            return Ok(*size);
        }
        let size = self.view.world.blobs.size(&entry.id).await?;
        if same {
            let _ = self.size.set(size);
        }
        Ok(size)
    }
}

fn identity(key: u64, entry: &Entry) -> Id {
    Id {
        shape: shape(entry.mode),
        path: key,
        version: version(&entry.id),
    }
}

/// What cannot be read because it is not in this store.
pub fn opaque(path: &TreePath, entry: &Entry) -> super::node::Error {
    super::node::Error::new(
        crate::model::Kind::Unsupported,
        format!(
            "{path} is a {}: its content is not in this store",
            entry.mode.kind().name()
        ),
    )
}

#[async_trait::async_trait]
impl Node for Viewed {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn id(&self) -> Id {
        let mut id = identity(self.place.key, &self.entry);
        if let (What::Live(_), true) = (&self.view.root, self.path.is_root()) {
            // It was made without asking what it is.
            id.version = 0;
        }
        id
    }

    fn name(&self) -> Vec<u8> {
        self.place.name.clone()
    }

    fn parent(&self) -> Option<Arc<dyn Node>> {
        self.place.parent.clone()
    }

    async fn attr(&self, call: &Call) -> Result<Attr> {
        let (entry, mtime) = self.now(call).await?;
        let size = match entry.mode.is_dir() {
            true => 0,
            false => self.length(&entry).await?,
        };
        Ok(Attr {
            id: identity(self.place.key, &entry),
            exec: entry.mode == Mode::EXEC,
            writable: false,
            size,
            mtime,
        })
    }

    async fn lookup(&self, call: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let (tree, _) = self.tree(call).await?;
        match tree.get(name) {
            Some(entry) => Ok(self.child(name, entry)),
            None => Err(failure::no_entry(self.path.join(name).to_string())),
        }
    }

    async fn open(&self, _: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        Ok(Arc::new(ViewHandle {
            node: self.clone(),
            reader: Turn::new(blob::Reader::default()),
        }))
    }

    async fn create(&self, call: &Call, name: &[u8], _: Create) -> Result<Arc<dyn Node>> {
        match self.entry.mode.is_dir() {
            true => Err(refused(self, call, name, failure::read_only_dir()).await),
            false => Err(not_a_directory(&self.place.name)),
        }
    }

    async fn rename(&self, _: &Call, _: &Arc<dyn Node>, _: &[u8]) -> Result<()> {
        Err(failure::read_only_dir())
    }

    async fn remove(&self, _: &Call, _: bool) -> Result<()> {
        match self.entry.mode.is_dir() {
            true => Err(failure::read_only_dir()),
            false => Err(failure::read_only_file()),
        }
    }

    async fn set(&self, call: &Call, set: Set) -> Result<()> {
        if self.entry.mode.is_dir() {
            return set_directory(&set);
        }
        match (set.kind, set.size) {
            (Some(Create::Dir), _) => Err(failure::directory_flag()),
            (Some(_), _) => Err(failure::read_only_file()),
            (None, None) => Ok(()),
            (None, Some(size)) => match self.attr(call).await?.size == size {
                true => Ok(()),
                false => Err(failure::read_only_file()),
            },
        }
    }

    async fn target(&self, call: &Call) -> Result<Vec<u8>> {
        let (entry, _) = self.now(call).await?;
        if entry.mode != Mode::LINK {
            return Err(failure::not_a_link());
        }
        let read = move |store: &Arc<Store>| store.objects.blob(&entry.id);
        self.view.world.run(read).await
    }

    async fn sync(&self, _: &Call) -> Result<()> {
        Ok(())
    }

    fn object(&self) -> Option<ObjectId> {
        matches!(self.view.root, What::Fixed(_)).then_some(self.entry.id)
    }
}

struct ViewHandle {
    node: Viewed,
    reader: Turn<blob::Reader>,
}

#[async_trait::async_trait]
impl Handle for ViewHandle {
    async fn read(&self, call: &Call, offset: u64, count: u32) -> Result<Bytes> {
        if self.node.entry.mode.is_dir() {
            return Err(failure::is_directory(&self.node.path));
        }
        let mut reader = self.reader.take().await;
        let (entry, _) = self.node.now(call).await?;
        if !entry.mode.is_blob() {
            range(0, offset, count)?;
            return Err(opaque(&self.node.path, &entry));
        }
        let blobs = &self.node.view.world.blobs;
        blobs.read(&entry.id, &mut reader, offset, count).await
    }

    async fn write(&self, _: &Call, _: u64, _: Bytes) -> Result<()> {
        match self.node.entry.mode.is_dir() {
            true => Err(failure::is_directory(&self.node.path)),
            false => Err(failure::read_only_file()),
        }
    }

    async fn list(&self, call: &Call) -> Result<Arc<dyn Listing>> {
        if !self.node.entry.mode.is_dir() {
            return Err(no_listing());
        }
        let (tree, _) = self.node.tree(call).await?;
        let parent = self.node.place.key;
        Ok(Arc::new(Entries { tree, parent }))
    }
}

/// A stored tree as a listing.
struct Entries {
    tree: Arc<Tree>,
    parent: u64,
}

impl Listing for Entries {
    fn len(&self) -> usize {
        self.tree.len()
    }

    fn entry(&self, index: usize) -> (Vec<u8>, Id) {
        let found = self.tree.nth(index);
        let id = identity(key(self.parent, found.name), &found.entry);
        (found.name.to_vec(), id)
    }
}
