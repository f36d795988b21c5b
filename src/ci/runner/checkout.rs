//! A checkout that holds what a step may see, and nothing else.
//!
//! Every file is made by its name in a folder that is held open, and every
//! folder is opened without following links: nothing is written outside of
//! the checkout, whatever the trees hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tokio::runtime::Handle;

use super::links;
use crate::ci::{Job, Placed};
use crate::client::{self, Client};
use crate::model::{EntryKind, Item, TreePath};

/// Files opened at once.
const BATCH: usize = 64;
/// Bytes read and written at once.
const PIECE: usize = 128 * 1024;

/// Why there is no checkout.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot read the inputs: {0}")]
    Client(#[from] client::Error),
    #[error("cannot write {path} into the checkout: {source}")]
    Write { path: TreePath, source: io::Error },
    #[error("the symbolic link {0} leads out of the tree")]
    Leaving(TreePath),
    #[error("{0} is not a name a file can have")]
    Illegal(TreePath),
    #[error("the checkout was given up")]
    Stopped,
}

/// Says when to give up.
pub(super) type GivenUp = Arc<AtomicBool>;

/// Writes a job's inputs, and what is placed among them, into the empty folder
/// `tree`; `user` is whose all of it is to be. It blocks.
pub(super) fn write(
    job: &Job,
    tree: &Path,
    user: Option<u32>,
    given_up: &GivenUp,
    runtime: &Handle,
) -> Result<(), Error> {
    let root = open_root(tree).map_err(at(&TreePath::root()))?;
    let mut checkout = Checkout {
        root,
        user,
        links: BTreeMap::new(),
        given_up,
        runtime,
        buffer: vec![0; PIECE],
    };
    for items in job.inputs.chunks(BATCH) {
        checkout.put(job.source.as_ref(), &TreePath::root(), items)?;
    }
    for placed in &job.placed {
        checkout.place(placed)?;
    }
    match links::leaving(&checkout.links) {
        Some(link) => Err(Error::Leaving(link.clone())),
        None => Ok(()),
    }
}

/// Opens the folder of a checkout.
pub(super) fn open_root(tree: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(tree, flags, Mode::empty())?)
}

struct Checkout<'a> {
    root: OwnedFd,
    user: Option<u32>,
    links: BTreeMap<TreePath, Vec<u8>>,
    given_up: &'a GivenUp,
    runtime: &'a Handle,
    buffer: Vec<u8>,
}

fn at<E: Into<io::Error>>(path: &TreePath) -> impl FnOnce(E) -> Error {
    let path = path.clone();
    |error| Error::Write {
        path,
        source: error.into(),
    }
}

impl Checkout<'_> {
    /// Puts a tree, or a file, at a path, instead of what is there.
    fn place(&mut self, placed: &Placed) -> Result<(), Error> {
        let client = &placed.client;
        let there = self
            .runtime
            .block_on(client.stat(&placed.at, &placed.from))?;
        if there.is_none() {
            return Ok(());
        }
        if !placed.to.is_root() {
            self.clear(&placed.to).map_err(at(&placed.to))?;
        }
        let mut walk = client.walk(&placed.at, &placed.from, false);
        let mut items = Vec::with_capacity(BATCH);
        loop {
            let item = self.runtime.block_on(walk.next()).transpose()?;
            let last = item.is_none();
            items.extend(item);
            if items.len() == BATCH || last {
                self.put(client.as_ref(), &placed.to, &items)?;
                items.clear();
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Writes leaves below a folder.
    fn put(&mut self, client: &dyn Client, to: &TreePath, items: &[Item]) -> Result<(), Error> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let blobs = items.iter().filter(|item| item.entry.mode.is_blob());
        let ids: Vec<_> = blobs.map(|item| item.entry.id).collect();
        let contents = self.runtime.block_on(client.open_blobs(&ids))?;
        let mut contents = contents.into_iter();
        for item in items {
            let path = to.append(&item.path);
            if TreePath::new(path.as_bytes()).is_err() {
                return Err(Error::Illegal(path));
            }
            let content = match item.entry.mode.is_blob() {
                true => contents.next(),
                false => None,
            };
            self.leaf(&path, item, content).map_err(at(&path))?;
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        path: &TreePath,
        item: &Item,
        content: Option<Box<dyn Read + Send>>,
    ) -> io::Result<()> {
        let Some((parent, name)) = path.split_last() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = self.folder(&parent)?;
        let Some(mut content) = content else {
            // A submodule, or a folder.
            self.enter(&folder, name)?;
            return Ok(());
        };
        if item.entry.mode.kind() == EntryKind::Link {
            let mut target = Vec::new();
            content.read_to_end(&mut target)?;
            replacing(&folder, name, || {
                rustix::fs::symlinkat(target.as_slice(), &folder, name)
            })?;
            if let Some((uid, gid)) = self.owner() {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&folder, name, uid, gid, flags)?;
            }
            self.links.insert(path.clone(), target);
            return Ok(());
        }
        self.links.remove(path);
        let executable = item.entry.mode.0 & 0o100 != 0;
        let permissions = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = replacing(&folder, name, || {
            rustix::fs::openat(&folder, name, flags, permissions)
        })?;
        let mut file = File::from(file);
        loop {
            let count = content.read(&mut self.buffer)?;
            if count == 0 {
                break;
            }
            file.write_all(&self.buffer[..count])?;
        }
        if let Some((uid, gid)) = self.owner() {
            rustix::fs::fchown(&file, uid, gid)?;
        }
        Ok(())
    }

    fn owner(&self) -> Option<(Option<Uid>, Option<Gid>)> {
        let user = self.user?;
        Some((Some(Uid::from_raw(user)), Some(Gid::from_raw(user))))
    }

    /// Opens a folder of the checkout, made where it is missing.
    fn folder(&mut self, path: &TreePath) -> io::Result<OwnedFd> {
        let mut folder = self.root.try_clone()?;
        let mut here = TreePath::root();
        for step in path.steps() {
            here.push(step);
            if self.links.remove(&here).is_some() {
                // A later tree has a folder where an earlier one had a link.
                rustix::fs::unlinkat(&folder, step, AtFlags::empty())?;
            }
            folder = self.enter(&folder, step)?;
        }
        Ok(folder)
    }

    fn enter(&self, folder: &OwnedFd, step: &[u8]) -> io::Result<OwnedFd> {
        let made = match rustix::fs::mkdirat(folder, step, Mode::from_raw_mode(0o777)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let inner = open_folder(folder, step)?;
        if made && let Some((uid, gid)) = self.owner() {
            rustix::fs::fchown(&inner, uid, gid)?;
        }
        Ok(inner)
    }

    /// Removes what is at a path.
    fn clear(&mut self, path: &TreePath) -> io::Result<()> {
        self.links.retain(|link, _| !link.starts_with(path));
        let Some((parent, name)) = path.split_last() else {
            return Ok(());
        };
        let mut folder = self.root.try_clone()?;
        for step in parent.steps() {
            folder = match open_folder(&folder, step) {
                Ok(inner) => inner,
                // There is no folder, so there is nothing in it.
                Err(_) => return Ok(()),
            };
        }
        remove(&folder, name)
    }
}

/// Opens a folder in another one, and nothing else.
pub(super) fn open_folder(folder: &OwnedFd, step: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, step, flags, Mode::empty())?)
}

/// Removes a name in a folder, with all below it.
fn remove(folder: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => (),
        Err(error) => return Err(error.into()),
    }
    let inner = open_folder(folder, name)?;
    for entry in rustix::fs::Dir::read_from(&inner)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove(&inner, name)?;
        }
    }
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

/// Makes something, in place of a file or link that is there.
fn replacing<T>(
    folder: &OwnedFd,
    name: &[u8],
    make: impl Fn() -> Result<T, Errno>,
) -> io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                remove(folder, name)?;
            } else {
                rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
            }
            Ok(make()?)
        }
        made => Ok(made?),
    }
}
