//! Changing a tree in memory. Each change settles the conflicts its path stood
//! in, except renaming and changing a file's kind.

use std::sync::Arc;

use crate::model::{Entry, Kind, Mode, ObjectId, TreePath};
use crate::namespace::failure;
use crate::namespace::node::{Error, Shape};
use crate::namespace::view::opaque;
use crate::store::edit::DEEPEST;

use super::arena::{Arena, Content, Folder, Item, Leaf, Need, Result, Stop, What, memory};

impl Arena {
    fn touch(&mut self, node: u64, now: i64) {
        if let Ok(item) = self.item_mut(node) {
            item.version = item.version.wrapping_add(1).max(1);
            item.mtime = now;
        }
        self.edits += 1;
    }

    fn settle(&mut self, path: &TreePath) {
        self.conflicts.retain(|conflict| conflict.path != *path);
    }

    /// Puts a new node into a folder.
    fn put(&mut self, dir: u64, name: &[u8], what: What, now: i64) -> Result<u64> {
        if self.depth(dir)? + 1 >= DEEPEST {
            let message = format!("a path has more than {DEEPEST} steps");
            return Err(Error::new(Kind::Invalid, message).into());
        }
        let id = self.counted();
        let item = Item {
            parent: dir,
            name: name.to_vec(),
            gone: false,
            version: 1,
            mtime: now,
            what,
        };
        self.items.insert(id, item);
        self.folder_mut(dir)?
            .changes
            .insert(name.to_vec(), Some(id));
        self.touch(dir, now);
        let path = self.path(id)?;
        self.settle(&path);
        Ok(id)
    }

    /// Creates a file, or empties the one that is there and sets its kind.
    pub fn create(
        &mut self,
        dir: u64,
        name: &[u8],
        exec: bool,
        exclusive: bool,
        now: i64,
    ) -> Result<u64> {
        let dir = self.live(dir)?;
        let mode = if exec { Mode::EXEC } else { Mode::FILE };
        let content = Content::Memory(Arc::default());
        let leaf = Leaf { mode, content };
        match self.find(dir, name)? {
            None => self.put(dir, name, What::Leaf(leaf), now),
            Some(node) => {
                let path = self.path(node)?;
                if exclusive {
                    return Err(failure::exists(&path).into());
                }
                self.leaf(node).map_err(|_| failure::is_directory(&path))?;
                self.give_content(node, leaf.content);
                self.leaf_mut(node)?.mode = mode;
                self.settle(&path);
                self.touch(node, now);
                Ok(node)
            }
        }
    }

    pub fn mkdir(&mut self, dir: u64, name: &[u8], now: i64) -> Result<u64> {
        let dir = self.live(dir)?;
        if let Some(node) = self.find(dir, name)? {
            return Err(failure::exists(self.path(node)?).into());
        }
        self.put(dir, name, What::Dir(Folder::default()), now)
    }

    pub fn symlink(&mut self, dir: u64, name: &[u8], target: Vec<u8>, now: i64) -> Result<u64> {
        let dir = self.live(dir)?;
        if let Some(node) = self.find(dir, name)? {
            return Err(failure::exists(self.path(node)?).into());
        }
        self.bytes += target.len() as u64;
        let leaf = Leaf {
            mode: Mode::LINK,
            content: Content::Memory(Arc::new(target)),
        };
        self.put(dir, name, What::Leaf(leaf), now)
    }

    /// Removes a node; one that is gone already is no failure.
    pub fn remove(&mut self, node: u64, recursive: bool, now: i64) -> Result<()> {
        if node == self.root {
            return Err(failure::read_only_file().into());
        }
        if self.item(node)?.gone {
            return Ok(());
        }
        let path = self.path(node)?;
        let dir = matches!(self.item(node)?.what, What::Dir(_));
        if dir && !recursive && !self.is_empty(node)? {
            return Err(failure::not_empty(&path).into());
        }
        self.unlink(node, now)?;
        match dir {
            true => self
                .conflicts
                .retain(|conflict| !conflict.path.starts_with(&path)),
            false => self.settle(&path),
        }
        Ok(())
    }

    /// Takes a node out of its folder, and drops what it held.
    fn unlink(&mut self, node: u64, now: i64) -> Result<()> {
        let (parent, name) = (self.parent(node), self.name(node));
        self.leave(parent, name)?;
        self.drop_below(node);
        self.touch(parent, now);
        Ok(())
    }

    /// Notes that nothing has this name any more.
    fn leave(&mut self, dir: u64, name: Vec<u8>) -> Result<()> {
        let stored = self.tree(dir)?.and_then(|tree| tree.get(&name)).is_some();
        let changes = &mut self.folder_mut(dir)?.changes;
        match stored {
            true => changes.insert(name, None),
            false => changes.remove(&name),
        };
        Ok(())
    }

    /// Marks a node and all below it as gone.
    pub(super) fn drop_below(&mut self, node: u64) {
        let mut left = vec![node];
        while let Some(node) = left.pop() {
            let Some(item) = self.items.get_mut(&node) else {
                continue;
            };
            item.gone = true;
            match &mut item.what {
                What::Dir(folder) => {
                    let changes = std::mem::take(&mut folder.changes);
                    folder.base = None;
                    left.extend(changes.into_values().flatten());
                }
                What::Leaf(leaf) => {
                    self.bytes -= memory(&leaf.content);
                    leaf.content = Content::Memory(Arc::default());
                }
            }
        }
    }

    /// Moves a node; a file in its way is replaced.
    pub fn rename(&mut self, node: u64, into: u64, name: &[u8], now: i64) -> Result<()> {
        let missing =
            |arena: &Self| failure::no_entry(arena.path(node).unwrap_or_default().to_string());
        if node == self.root {
            return Err(failure::read_only_dir().into());
        }
        if self.item(node)?.gone {
            return Err(missing(self).into());
        }
        let into = self.live(into)?;
        let target = self.find(into, name)?;
        if target == Some(node) {
            return Ok(());
        }
        let (mut at, mut depth) = (into, 1);
        while at != self.root {
            if at == node {
                let message = format!("{} cannot go into itself", self.path(node)?);
                return Err(Error::new(Kind::Invalid, message).into());
            }
            at = self.item(at)?.parent;
            depth += 1;
        }
        if depth >= DEEPEST {
            let message = format!("a path has more than {DEEPEST} steps");
            return Err(Error::new(Kind::Invalid, message).into());
        }
        // Everything is looked at before anything is changed.
        let (from, old) = (self.parent(node), self.name(node));
        self.tree(from)?;
        if let Some(target) = target {
            let path = self.path(target)?;
            match &self.item(target)?.what {
                What::Dir(_) if !self.is_empty(target)? => {
                    return Err(failure::is_directory(path).into());
                }
                What::Dir(_) if self.shape(node) != Shape::Dir => {
                    return Err(failure::is_directory(path).into());
                }
                _ => self.unlink(target, now)?,
            }
        }
        self.leave(from, old)?;
        self.touch(from, now);
        let item = self.item_mut(node)?;
        item.parent = into;
        item.name = name.to_vec();
        self.folder_mut(into)?
            .changes
            .insert(name.to_vec(), Some(node));
        self.touch(into, now);
        Ok(())
    }

    /// Sets a file's kind and keeps its bytes.
    pub fn chmod(&mut self, node: u64, exec: bool, now: i64) -> Result<()> {
        let node = self.live(node)?;
        let path = self.path(node)?;
        let leaf = self.leaf_mut(node)?;
        if !leaf.mode.is_blob() {
            return Err(opaque(
                &path,
                &Entry {
                    mode: leaf.mode,
                    id: ObjectId::from_bytes(&[0; 20]).expect("20 bytes"),
                },
            )
            .into());
        }
        leaf.mode = if exec { Mode::EXEC } else { Mode::FILE };
        self.touch(node, now);
        Ok(())
    }

    /// Turns a file into a link to this target.
    pub fn relink(&mut self, node: u64, target: Vec<u8>, now: i64) -> Result<()> {
        let node = self.live(node)?;
        self.leaf(node)?;
        self.give_content(node, Content::Memory(Arc::new(target)));
        self.leaf_mut(node)?.mode = Mode::LINK;
        self.touch(node, now);
        Ok(())
    }

    /// Returns the file to be written: where it was removed, made anew, with
    /// the folders above it.
    pub fn revive(&mut self, node: u64, now: i64) -> Result<u64> {
        match self.live(node) {
            Ok(node) => return Ok(node),
            Err(Stop::Failed(error)) if error.kind() == Kind::NotFound => {}
            Err(stop) => return Err(stop),
        }
        let path = self.path(node)?;
        let mut at = self.root;
        let depth = path.steps().count();
        for (index, step) in path.steps().enumerate() {
            at = match self.find(at, step)? {
                Some(next) => next,
                None if index + 1 < depth => {
                    self.put(at, step, What::Dir(Folder::default()), now)?
                }
                None => {
                    let leaf = Leaf {
                        mode: Mode::FILE,
                        content: Content::Memory(Arc::default()),
                    };
                    self.put(at, step, What::Leaf(leaf), now)?
                }
            };
        }
        Ok(at)
    }

    /// Takes a file's bytes out, to be changed and given back with
    /// [`Arena::wrote`]. Stored ones are asked for.
    pub fn content(&mut self, node: u64) -> Result<Content> {
        let leaf = self.leaf(node)?;
        match &leaf.content {
            Content::Stored { .. } if !leaf.mode.is_blob() => {
                let path = self.path(node)?;
                let message = format!("{path} is a {}", leaf.mode.kind().name());
                Err(Error::new(Kind::Unsupported, message).into())
            }
            Content::Stored { id, .. } => Err(Stop::Need(Need::Content { node, id: *id })),
            content => Ok(content.clone()),
        }
    }

    /// Changes the bytes of a file that is in memory, where they are.
    pub fn edit(&mut self, node: u64, edit: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let leaf = self.leaf_mut(node)?;
        if let Content::Memory(bytes) = &mut leaf.content {
            let before = bytes.len() as u64;
            let bytes = Arc::make_mut(bytes);
            edit(bytes);
            let after = bytes.len() as u64;
            self.bytes = self.bytes + after - before;
        }
        Ok(())
    }

    /// Notes that a file's bytes have changed.
    pub fn wrote(&mut self, node: u64, now: i64) -> Result<()> {
        let path = self.path(node)?;
        self.settle(&path);
        self.touch(node, now);
        Ok(())
    }

    /// Returns the files whose bytes are in memory.
    pub fn in_memory(&self) -> Vec<(u64, Arc<Vec<u8>>)> {
        let held = |(node, item): (&u64, &Item)| match &item.what {
            What::Leaf(Leaf {
                content: Content::Memory(bytes),
                ..
            }) if !item.gone && !bytes.is_empty() => Some((*node, bytes.clone())),
            _ => None,
        };
        self.items.iter().filter_map(held).collect()
    }
}
