//! What every entry of the tree has in common: a place, and what is there.
//!
//! A [`Dir`] or [`Leaf`] is cheap to make and to clone; what it stands for is a
//! [`Folder`] or a [`File`], shared by whoever looked it up. Two nodes are the
//! same when their [`Id`]s are equal, not when they are one value.

use std::any::Any;
use std::hash::Hasher as _;
use std::sync::Arc;

use crate::model::{Kind, ObjectId};

use super::failure;
use super::node::{Attr, Call, Create, Error, Handle, Id, Listing, Node, Open, Result, Set, Shape};

/// Where an entry is.
pub struct Place {
    pub parent: Option<Arc<dyn Node>>,
    pub name: Vec<u8>,
    /// What makes it this one: a hash of its path, private parts included.
    pub key: u64,
}

/// Bit that tells keys made by counting from those made by hashing.
pub const COUNTED: u64 = 1 << 63;

/// The key of an entry of the directory with this key.
pub fn key(parent: u64, name: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_u64(parent);
    hasher.write(name);
    hasher.finish() & !COUNTED
}

/// A version that follows the content of an object, and is never 0.
pub fn version(id: &ObjectId) -> u32 {
    let first = id.as_bytes().first_chunk().copied().unwrap_or_default();
    u32::from_le_bytes(first) | 1
}

/// A directory that is no tree's: its entries are dk's own.
#[async_trait::async_trait]
pub trait Folder: Send + Sync + 'static {
    /// Its name, where that can change.
    fn name(&self) -> Option<Vec<u8>> {
        None
    }

    /// Its key, where its name can change.
    fn key(&self) -> Option<u64> {
        None
    }

    /// Whether something can be created in it.
    fn writable(&self) -> bool {
        false
    }

    fn mtime(&self) -> i64 {
        0
    }

    /// The key of an entry, where that is not made of its name.
    fn key_of(&self, _name: &[u8]) -> Option<u64> {
        None
    }

    /// Its entries, in the order they are to be listed in.
    async fn list(&self, call: &Call) -> Result<Vec<(Vec<u8>, Shape)>>;

    async fn lookup(&self, at: &Dir, call: &Call, name: &[u8]) -> Result<Arc<dyn Node>>;

    async fn create(
        &self,
        _at: &Dir,
        _call: &Call,
        _name: &[u8],
        _what: Create,
    ) -> Result<Arc<dyn Node>> {
        Err(failure::read_only_dir())
    }

    /// Renames this directory itself.
    async fn rename(&self, _call: &Call, _into: &Arc<dyn Node>, _name: &[u8]) -> Result<()> {
        Err(failure::read_only_dir())
    }

    /// Removes this directory itself.
    async fn remove(&self, _call: &Call, _recursive: bool) -> Result<()> {
        Err(failure::read_only_dir())
    }

    async fn sync(&self, _call: &Call) -> Result<()> {
        Ok(())
    }
}

/// A file that is no tree's.
#[async_trait::async_trait]
pub trait File: Send + Sync + 'static {
    /// What is written to it is no content but makes something happen: it may
    /// be emptied, which does nothing, and stays what it is.
    fn acts(&self) -> bool {
        false
    }

    /// Bytes, as stat tells them.
    async fn size(&self, _call: &Call) -> Result<u64> {
        Ok(0)
    }

    fn writable(&self) -> bool {
        self.acts()
    }

    fn mtime(&self) -> i64 {
        0
    }

    async fn open(self: Arc<Self>, call: &Call, how: Open) -> Result<Arc<dyn Handle>>;

    async fn resize(&self, _call: &Call, size: u64) -> Result<()> {
        match (self.acts(), size) {
            (true, 0) => Ok(()),
            (true, _) => Err(failure::extend_command()),
            (false, _) => Err(failure::read_only_file()),
        }
    }

    async fn chmod(&self, _call: &Call, kind: Create) -> Result<()> {
        match kind {
            Create::Dir => Err(failure::directory_flag()),
            kind if self.acts() => chmod_special(&kind),
            _ => Err(failure::read_only_file()),
        }
    }

    async fn remove(&self, _call: &Call) -> Result<()> {
        match self.acts() {
            true => Err(failure::not_permitted()),
            false => Err(failure::read_only_file()),
        }
    }

    async fn sync(&self, _call: &Call) -> Result<()> {
        Ok(())
    }
}

/// What a file that is no tree's may become: what it is.
pub fn chmod_special(kind: &Create) -> Result<()> {
    match kind {
        Create::File { exec: false, .. } => Ok(()),
        Create::Dir => Err(failure::directory_flag()),
        _ => Err(failure::chmod_special()),
    }
}

/// A node that is a [`Folder`].
#[derive(Clone)]
pub struct Dir {
    place: Arc<Place>,
    what: Arc<dyn Folder>,
}

impl Dir {
    pub fn root(what: Arc<dyn Folder>) -> Self {
        let place = Place {
            parent: None,
            name: b"/".to_vec(),
            key: key(0, b"/"),
        };
        Self {
            place: Arc::new(place),
            what,
        }
    }

    /// Its key, for the keys of its entries.
    pub fn key(&self) -> u64 {
        self.what.key().unwrap_or(self.place.key)
    }

    /// The place of an entry.
    pub fn place(&self, name: &[u8]) -> Place {
        Place {
            parent: Some(Arc::new(self.clone())),
            name: name.to_vec(),
            key: key(self.key(), name),
        }
    }

    /// An entry that is a folder.
    pub fn dir(&self, name: &[u8], what: impl Folder) -> Arc<dyn Node> {
        self.shared_dir(name, Arc::new(what))
    }

    pub fn shared_dir(&self, name: &[u8], what: Arc<dyn Folder>) -> Arc<dyn Node> {
        let place = Arc::new(self.place(name));
        Arc::new(Self { place, what })
    }

    /// An entry that is a file.
    pub fn file(&self, name: &[u8], what: impl File) -> Arc<dyn Node> {
        self.shared_file(name, Arc::new(what))
    }

    pub fn shared_file(&self, name: &[u8], what: Arc<dyn File>) -> Arc<dyn Node> {
        Arc::new(Leaf {
            place: self.place(name),
            what,
        })
    }
}

fn stem(shape: Shape, key: u64) -> Id {
    Id {
        shape,
        path: key,
        version: 0,
    }
}

/// Entries known by name.
struct Names(Vec<(Vec<u8>, Id)>);

impl Listing for Names {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn entry(&self, index: usize) -> (Vec<u8>, Id) {
        self.0[index].clone()
    }
}

#[async_trait::async_trait]
impl Node for Dir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn id(&self) -> Id {
        stem(Shape::Dir, self.key())
    }

    fn name(&self) -> Vec<u8> {
        self.what.name().unwrap_or_else(|| self.place.name.clone())
    }

    fn parent(&self) -> Option<Arc<dyn Node>> {
        self.place.parent.clone()
    }

    async fn attr(&self, _call: &Call) -> Result<Attr> {
        Ok(Attr {
            id: self.id(),
            exec: false,
            writable: self.what.writable(),
            size: 0,
            mtime: self.what.mtime(),
        })
    }

    async fn lookup(&self, call: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        self.what.lookup(self, call, name).await
    }

    async fn open(&self, _call: &Call, _how: Open) -> Result<Arc<dyn Handle>> {
        Ok(Arc::new(DirHandle(self.clone())))
    }

    async fn create(&self, call: &Call, name: &[u8], what: Create) -> Result<Arc<dyn Node>> {
        match self.what.create(self, call, name, what).await {
            Err(error) if error.kind() == Kind::ReadOnly => {
                Err(refused(self, call, name, error).await)
            }
            result => result,
        }
    }

    async fn rename(&self, call: &Call, into: &Arc<dyn Node>, name: &[u8]) -> Result<()> {
        if self.place.parent.is_none() {
            return Err(Error::text(Kind::Denied, "Can't rename /"));
        }
        self.what.rename(call, into, name).await
    }

    async fn remove(&self, call: &Call, recursive: bool) -> Result<()> {
        self.what.remove(call, recursive).await
    }

    async fn set(&self, _call: &Call, set: Set) -> Result<()> {
        set_directory(&set)
    }

    async fn target(&self, _call: &Call) -> Result<Vec<u8>> {
        Err(failure::not_a_link())
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.what.sync(call).await
    }
}

/// What may be set of a directory: its length to nothing.
pub fn set_directory(set: &Set) -> Result<()> {
    match (&set.kind, set.size) {
        (Some(Create::Dir), _) => Err(failure::not_permitted()),
        (Some(_), _) => Err(failure::directory_flag()),
        (None, Some(0) | None) => Ok(()),
        (None, Some(_)) => Err(failure::directory_length()),
    }
}

struct DirHandle(Dir);

#[async_trait::async_trait]
impl Handle for DirHandle {
    async fn read(&self, _: &Call, _: u64, _: u32) -> Result<bytes::Bytes> {
        Err(failure::is_directory("the file to be read"))
    }

    async fn write(&self, _: &Call, _: u64, _: bytes::Bytes) -> Result<()> {
        Err(failure::is_directory("the file to be written"))
    }

    async fn list(&self, call: &Call) -> Result<Arc<dyn Listing>> {
        let (folder, parent) = (&self.0.what, self.0.key());
        let named = |(name, shape): (Vec<u8>, Shape)| {
            let key = folder.key_of(&name).unwrap_or_else(|| key(parent, &name));
            (name, stem(shape, key))
        };
        let entries = folder.list(call).await?;
        Ok(Arc::new(Names(entries.into_iter().map(named).collect())))
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.0.what.sync(call).await
    }
}

/// A node that is a [`File`].
struct Leaf {
    place: Place,
    what: Arc<dyn File>,
}

#[async_trait::async_trait]
impl Node for Leaf {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn id(&self) -> Id {
        stem(Shape::File, self.place.key)
    }

    fn name(&self) -> Vec<u8> {
        self.place.name.clone()
    }

    fn parent(&self) -> Option<Arc<dyn Node>> {
        self.place.parent.clone()
    }

    async fn attr(&self, call: &Call) -> Result<Attr> {
        Ok(Attr {
            id: self.id(),
            exec: false,
            writable: self.what.writable(),
            size: self.what.size(call).await?,
            mtime: self.what.mtime(),
        })
    }

    async fn lookup(&self, _: &Call, _: &[u8]) -> Result<Arc<dyn Node>> {
        Err(failure::walk_from_file())
    }

    async fn open(&self, call: &Call, how: Open) -> Result<Arc<dyn Handle>> {
        self.what.clone().open(call, how).await
    }

    async fn create(&self, _: &Call, _: &[u8], _: Create) -> Result<Arc<dyn Node>> {
        Err(not_a_directory(&self.place.name))
    }

    async fn rename(&self, _: &Call, _: &Arc<dyn Node>, _: &[u8]) -> Result<()> {
        Err(failure::read_only_dir())
    }

    async fn remove(&self, call: &Call, _: bool) -> Result<()> {
        self.what.remove(call).await
    }

    async fn set(&self, call: &Call, set: Set) -> Result<()> {
        if let Some(kind) = set.kind {
            self.what.chmod(call, kind).await?;
        }
        match set.size {
            Some(size) => self.what.resize(call, size).await,
            None => Ok(()),
        }
    }

    async fn target(&self, _: &Call) -> Result<Vec<u8>> {
        Err(failure::not_a_link())
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.what.sync(call).await
    }
}

/// Says why nothing can be created in a directory that is only read: that the
/// name is taken, where it is. Old clients know one text for both.
pub async fn refused(directory: &dyn Node, call: &Call, name: &[u8], read_only: Error) -> Error {
    match directory.lookup(call, name).await {
        Ok(_) => Error {
            text: read_only.text,
            ..failure::exists(String::from_utf8_lossy(name).escape_debug())
        },
        Err(_) => read_only,
    }
}

/// The failure of creating something in a file.
pub fn not_a_directory(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::text(
        Kind::NotDirectory,
        format!("\"{}\" is not a directory", name.escape_default()),
    )
}

/// Handles of files that hold no directory refuse the listing in these words.
pub fn no_listing() -> Error {
    Error::new(Kind::NotDirectory, "a file has no entries to list")
}
