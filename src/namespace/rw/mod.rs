//! A tree that can be written: `rw` of a transaction.
//!
//! A [`Space`] is one such tree. All requests about it take turns, so each
//! sees what those before it did; the [`Arena`] below is the tree itself, in
//! memory. Content is in memory up to a few MiB, beyond that in a temporary
//! file; when many files together hold too much, they go into the store.

mod arena;
mod change;
mod node;
mod plan;

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::model::request::{Content as Given, Edit, Edits, FileKind, Sink, Stop as Ended};
use crate::model::{Conflict, Kind, ObjectId, Time, TreePath};
use crate::store::engine::ObjectKind;
use crate::store::{self, Store};

use super::files::{Turn, lock};
use super::node::{Call, Error, Result};
use super::{World, blob, failure};

use arena::{Arena, Content, Need, Stop, Trees};
pub use node::root;
use plan::Planned;

/// Bytes of one file that are kept in memory.
const SPILL: u64 = 4 << 20;
/// Bytes of all files of a transaction that are kept in memory.
const MOST: u64 = 64 << 20;
/// Bytes of one file at most.
const LONGEST: u64 = 1 << 38;

/// Where the tree is kept, beside here.
#[async_trait::async_trait]
pub trait Keeper: Send + Sync + 'static {
    /// Called before each request: brings in what others did.
    async fn refresh(&self, space: &Space) -> Result<()>;

    /// Makes what was edited durable.
    async fn sync(&self, space: &Space, call: &Call) -> Result<()>;

    /// Tells whether others share it, so that what was edited must not wait
    /// for a file to be closed where none is open.
    fn is_shared(&self) -> bool {
        false
    }
}

/// Kept here only.
pub struct Volatile;

#[async_trait::async_trait]
impl Keeper for Volatile {
    async fn refresh(&self, _: &Space) -> Result<()> {
        Ok(())
    }

    async fn sync(&self, _: &Space, _: &Call) -> Result<()> {
        Ok(())
    }
}

/// One tree that can be written.
pub struct Space {
    pub world: Arc<World>,
    keeper: Box<dyn Keeper>,
    arena: Mutex<Arena>,
    turn: Turn<()>,
}

/// Shows that it is the holder's turn.
pub struct Held<'a> {
    pub space: &'a Space,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Space {
    /// Begins with a stored tree, made at `since`. `key` tells its nodes from
    /// those of every other.
    pub fn new(
        world: &Arc<World>,
        key: u64,
        tree: ObjectId,
        since: i64,
        keeper: impl Keeper,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            keeper: Box::new(keeper),
            arena: Mutex::new(Arena::new(key, tree, since)),
            turn: Turn::new(()),
        })
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        lock(&self.arena)
    }

    /// Waits for one's turn, and for what others did to be here.
    pub async fn take(&self) -> Result<Held<'_>> {
        let held = self.wait().await;
        self.keeper.refresh(self).await?;
        Ok(held)
    }

    /// Waits for one's turn.
    pub async fn wait(&self) -> Held<'_> {
        Held {
            _turn: self.turn.take().await,
            space: self,
        }
    }

    /// Makes what was edited durable.
    pub async fn sync(&self, call: &Call) -> Result<()> {
        let _held = self.wait().await;
        self.keeper.sync(self, call).await
    }

    /// As [`Space::sync`], after a change that no file being closed follows.
    async fn settle(&self, call: &Call) -> Result<()> {
        match self.keeper.is_shared() {
            true => self.sync(call).await,
            false => Ok(()),
        }
    }

    /// Begins with conflicts left before.
    pub fn begin_with(&self, conflicts: Vec<Conflict>) {
        self.arena().conflicts = conflicts;
    }

    /// Returns the paths in conflict.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.arena().conflicts.clone()
    }

    /// Notes that it was edited, whatever is stored.
    pub fn touch(&self) {
        self.arena().edits += 1;
    }

    /// Returns how many edits are not stored yet.
    pub fn edits(&self) -> u64 {
        self.arena().edits
    }

    /// Puts another tree below, in the holder's turn.
    pub async fn rebase(&self, tree: ObjectId, since: i64, conflicts: Vec<Conflict>) -> Result<()> {
        let mut have = Trees::new();
        loop {
            let missing = self.arena().missing(tree, &have);
            if missing.is_empty() {
                break;
            }
            let load = move |store: &Arc<Store>| {
                let load = |id: ObjectId| Ok((id, store.objects.tree(&id)?));
                missing
                    .into_iter()
                    .map(load)
                    .collect::<store::Result<Vec<_>>>()
            };
            have.extend(self.world.run(load).await?);
        }
        let mut arena = self.arena();
        arena.rebase(tree, since, &have);
        arena.conflicts = conflicts;
        Ok(())
    }

    /// Returns the stored tree below, and the edits that make this of it.
    pub fn work(&self) -> (ObjectId, Edits) {
        let arena = self.arena();
        let plan = arena.plan();
        (arena.base, Edits::new(move |sink| apply(plan, sink)))
    }

    /// Looks at the arena, getting what it needs.
    async fn with<T>(&self, look: impl Fn(&mut Arena) -> arena::Result<T> + Send) -> Result<T> {
        loop {
            let stop = match look(&mut self.arena()) {
                Ok(found) => return Ok(found),
                Err(stop) => stop,
            };
            match stop {
                Stop::Failed(error) => return Err(error),
                Stop::Need(need) => self.get(need).await?,
            }
        }
    }

    async fn get(&self, need: Need) -> Result<()> {
        match need {
            Need::Tree { node, id } => {
                let tree = self.world.tree(&id).await?;
                self.arena().give_tree(node, id, tree);
            }
            Need::Size { node, id } => {
                let size = self.world.blobs.size(&id).await?;
                self.arena().give_size(node, id, size);
            }
            Need::Content { node, id } => {
                let content = self.world.run(move |store| load(store, &id)).await?;
                self.arena().give_content(node, content);
            }
        }
        Ok(())
    }

    /// Writes to a file: at a position, or at its end.
    async fn write(&self, node: u64, offset: Option<u64>, data: Bytes) -> Result<()> {
        if let Some(offset) = offset
            && i64::try_from(offset).is_err()
        {
            return Err(failure::negative(offset));
        }
        let held = self.take().await?;
        let now = Time::now().seconds;
        let node = self.with(move |arena| arena.revive(node, now)).await?;
        let content = self.with(move |arena| arena.content(node)).await?;
        let length = length(&content);
        let offset = offset.unwrap_or(length);
        let end = offset.saturating_add(data.len() as u64);
        if end > LONGEST {
            return Err(failure::too_long("a file", LONGEST));
        }
        match content {
            Content::Spilled(file, _) => {
                let write = move |_: &Arc<Store>| {
                    if offset > length {
                        // A write that was taken back may have left something there.
                        file.set_len(length).map_err(spill_failed())?;
                    }
                    file.write_all_at(&data, offset).map_err(spill_failed())?;
                    Ok(file)
                };
                let file = self.world.run(write).await?;
                let content = Content::Spilled(file, length.max(end));
                self.arena().give_content(node, content);
            }
            content if end > SPILL => {
                let spill = move |_: &Arc<Store>| {
                    let file = spill(&content)?;
                    file.write_all_at(&data, offset).map_err(spill_failed())?;
                    Ok(Content::Spilled(Arc::new(file), length.max(end)))
                };
                let content = self.world.run(spill).await?;
                self.arena().give_content(node, content);
            }
            content => {
                // One owner of the bytes: they are changed where they are.
                drop(content);
                let edit = |bytes: &mut Vec<u8>| {
                    if (bytes.len() as u64) < end {
                        bytes.resize(end as usize, 0);
                    }
                    bytes[offset as usize..end as usize].copy_from_slice(&data);
                };
                said(self.arena().edit(node, edit))?;
            }
        }
        said(self.arena().wrote(node, now))?;
        self.relieve(&held).await
    }

    /// Cuts a file, or fills it up with zero bytes.
    async fn resize(&self, node: u64, size: u64) -> Result<()> {
        if i64::try_from(size).is_err() {
            return Err(failure::negative(size));
        }
        if size > LONGEST {
            return Err(failure::too_long("a file", LONGEST));
        }
        let held = self.take().await?;
        let now = Time::now().seconds;
        let node = self.with(move |arena| arena.live(node)).await?;
        if size == 0 {
            let mut arena = self.arena();
            said(arena.leaf(node).map(|_| ()))?;
            arena.give_content(node, Content::Memory(Arc::default()));
            said(arena.wrote(node, now))?;
            return Ok(());
        }
        let content = self.with(move |arena| arena.content(node)).await?;
        match content {
            Content::Memory(bytes) if size <= SPILL => {
                drop(bytes);
                let edit = |bytes: &mut Vec<u8>| bytes.resize(size as usize, 0);
                said(self.arena().edit(node, edit))?;
            }
            content => {
                let before = length(&content);
                let resize = move |_: &Arc<Store>| {
                    let file = match content {
                        Content::Spilled(file, _) => file,
                        content => Arc::new(spill(&content)?),
                    };
                    file.set_len(size.min(before)).map_err(spill_failed())?;
                    file.set_len(size).map_err(spill_failed())?;
                    Ok(Content::Spilled(file, size))
                };
                let content = self.world.run(resize).await?;
                self.arena().give_content(node, content);
            }
        }
        said(self.arena().wrote(node, now))?;
        self.relieve(&held).await
    }

    /// Reads a file at a position.
    async fn read(
        &self,
        node: u64,
        reader: &mut blob::Reader,
        offset: u64,
        count: u32,
    ) -> Result<Bytes> {
        let content = {
            let _held = self.take().await?;
            let content = move |arena: &mut Arena| {
                let node = arena.live(node)?;
                let leaf = arena.leaf(node)?.clone();
                Ok((leaf, arena.path(node)?))
            };
            let (leaf, path) = self.with(content).await?;
            if !leaf.mode.is_blob() {
                let id = self.arena().base;
                let mode = leaf.mode;
                return Err(super::view::opaque(
                    &path,
                    &crate::model::Entry { mode, id },
                ));
            }
            leaf.content
        };
        match content {
            Content::Stored { id, .. } => self.world.blobs.read(&id, reader, offset, count).await,
            Content::Memory(bytes) => {
                let (start, end) = super::files::range(bytes.len() as u64, offset, count)?;
                Ok(Bytes::copy_from_slice(&bytes[start as usize..end as usize]))
            }
            Content::Spilled(file, length) => {
                let (start, end) = super::files::range(length, offset, count)?;
                let read = move |_: &Arc<Store>| {
                    let mut data = vec![0; (end - start) as usize];
                    file.read_exact_at(&mut data, start)
                        .map_err(spill_failed())?;
                    Ok(data.into())
                };
                self.world.run(read).await
            }
        }
    }

    /// Puts the content of all files into the store where it is too much to
    /// be held in memory.
    async fn relieve(&self, _: &Held<'_>) -> Result<()> {
        let files = {
            let arena = self.arena();
            if arena.bytes <= MOST {
                return Ok(());
            }
            arena.in_memory()
        };
        let store = move |store: &Arc<Store>| {
            let mut bulk = store.engine.bulk()?;
            let mut stored = Vec::with_capacity(files.len());
            for (node, bytes) in files {
                let id = bulk.add(ObjectKind::Blob, &bytes)?;
                let size = Some(bytes.len() as u64);
                stored.push((node, Content::Stored { id, size }));
            }
            bulk.finish()?;
            Ok(stored)
        };
        for (node, content) in self.world.run(store).await? {
            self.arena().give_content(node, content);
        }
        Ok(())
    }
}

fn said<T>(result: arena::Result<T>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Need(_)) => Err(Error::new(Kind::Io, "something is not in memory yet")),
    }
}

fn length(content: &Content) -> u64 {
    match content {
        Content::Stored { size, .. } => size.unwrap_or_default(),
        Content::Memory(bytes) => bytes.len() as u64,
        Content::Spilled(_, length) => *length,
    }
}

fn spill_failed() -> impl FnOnce(io::Error) -> store::Error {
    store::Error::io("cannot use a temporary file")
}

/// Puts content into a temporary file. Blocks.
fn spill(content: &Content) -> store::Result<File> {
    let mut file = tempfile::tempfile().map_err(spill_failed())?;
    if let Content::Memory(bytes) = content {
        file.write_all(bytes).map_err(spill_failed())?;
    }
    Ok(file)
}

/// Reads a stored file, to be changed. Blocks.
fn load(store: &Store, id: &ObjectId) -> store::Result<Content> {
    let size = store.objects.size(id)?;
    if size <= SPILL {
        return Ok(Content::Memory(Arc::new(store.objects.blob(id)?)));
    }
    let mut file = tempfile::tempfile().map_err(spill_failed())?;
    io::copy(&mut store.objects.open(id)?, &mut file).map_err(spill_failed())?;
    file.seek(SeekFrom::Start(0)).map_err(spill_failed())?;
    Ok(Content::Spilled(Arc::new(file), size))
}

/// Reads a temporary file from its beginning, wherever others are in it.
struct FromStart {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn apply(plan: Vec<Planned>, sink: &mut dyn Sink) -> Result<(), Ended> {
    for planned in plan {
        match planned {
            Planned::Remove(path) => sink.edit(Edit::Remove { path })?,
            Planned::Mkdir(path) => sink.edit(Edit::Mkdir { path })?,
            Planned::Set(path, entry) => sink.edit(Edit::Set { path, entry })?,
            Planned::Chmod(path, exec) => sink.edit(Edit::Chmod { path, exec })?,
            Planned::Link(path, target) => sink.edit(Edit::Link {
                path,
                target: &target,
            })?,
            Planned::Write(path, exec, content) => {
                let kind = if exec {
                    FileKind::Exec
                } else {
                    FileKind::Normal
                };
                write(sink, path, kind, content)?;
            }
        }
    }
    Ok(())
}

fn write(
    sink: &mut dyn Sink,
    path: TreePath,
    kind: FileKind,
    content: Content,
) -> Result<(), Ended> {
    match content {
        Content::Memory(bytes) => {
            let content = Given::Bytes(&bytes);
            sink.edit(Edit::Write {
                path,
                kind,
                content,
            })
        }
        Content::Spilled(file, end) => {
            let mut reader = FromStart { file, at: 0, end };
            let content = Given::Reader {
                reader: &mut reader,
                size: Some(end),
            };
            sink.edit(Edit::Write {
                path,
                kind,
                content,
            })
        }
        // Stored content is set, not written.
        Content::Stored { .. } => Ok(()),
    }
}
