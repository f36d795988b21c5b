//! Reading at a place: a commit, a tree, or a transaction as it stands now.

use std::io::Read;

use crate::model::request::{At, Stat};
use crate::model::{Change, Entry, Identity, Item, Mode, TreePath};

use super::{Error, Result, Store, diff};

impl Store {
    /// Returns who commits when nobody is named: Git's `user.*`, environment
    /// included, or dk's default.
    pub fn identity(&self) -> Result<Identity> {
        let (name, email) = match self.engine.repository() {
            Some(repository) => repository.identity()?,
            None => (None, None),
        };
        let default = Identity::default();
        Ok(Identity {
            name: name.unwrap_or(default.name),
            email: email.unwrap_or(default.email),
        })
    }

    /// Returns the whole tree to read.
    pub fn root_at(&self, at: &At) -> Result<Entry> {
        let id = match at {
            At::Commit(id) => self.objects.commit(id)?.tree,
            At::Tree(id) => *id,
            At::Transaction(id) => self.transaction_named(id)?.tree,
        };
        let mode = Mode::DIR;
        Ok(Entry { mode, id })
    }

    /// Returns what stands at a path, which must be there.
    pub fn entry_at(&self, at: &At, path: &TreePath) -> Result<Entry> {
        let root = self.root_at(at)?;
        match self.objects.lookup(&root.id, path)? {
            Some(entry) => Ok(entry),
            None => Err(Error::NotFound(path.to_string())),
        }
    }

    /// See `Client::stat`.
    pub fn stat_at(&self, at: &At, path: &TreePath) -> Result<Option<Stat>> {
        let root = self.root_at(at)?;
        let Some(entry) = self.objects.lookup(&root.id, path)? else {
            return Ok(None);
        };
        let size = if entry.mode.is_dir() {
            self.objects.tree(&entry.id)?.len() as u64
        } else if entry.mode.is_blob() {
            self.objects.size(&entry.id)?
        } else {
            0
        };
        Ok(Some(Stat { entry, size }))
    }

    /// See `Client::list`: gives the entries one by one.
    pub fn list_at(
        &self,
        at: &At,
        path: &TreePath,
        sizes: bool,
        out: &mut dyn FnMut(Item) -> Result<()>,
    ) -> Result<()> {
        let entry = self.entry_at(at, path)?;
        if !entry.mode.is_dir() {
            return Err(Error::NotDirectory(path.to_string()));
        }
        let tree = self.objects.tree(&entry.id)?;
        for found in tree.iter() {
            out(Item {
                path: TreePath::root().join(found.name),
                entry: found.entry,
                size: self.objects.size_if(sizes, &found.entry)?,
            })?;
        }
        Ok(())
    }

    /// See `Client::diff`: gives the differences one by one.
    pub fn diff_at(
        &self,
        from: &At,
        to: &At,
        path: &TreePath,
        out: &mut dyn FnMut(Change) -> Result<()>,
    ) -> Result<()> {
        let side = |at: &At| self.objects.lookup(&self.root_at(at)?.id, path);
        let (old, new) = (side(from)?, side(to)?);
        diff::diff(&self.objects, old.as_ref(), new.as_ref(), path, out)
    }

    /// Opens a file. The reader blocks.
    pub fn open_at(&self, at: &At, path: &TreePath) -> Result<Box<dyn Read + Send>> {
        let entry = self.entry_at(at, path)?;
        if entry.mode.is_dir() {
            return Err(Error::IsDirectory(path.to_string()));
        }
        if !entry.mode.is_blob() {
            return Err(Error::Unsupported(format!(
                "{path} is a {}: its content is not in this store",
                entry.mode.kind().name()
            )));
        }
        self.objects.open(&entry.id)
    }
}
