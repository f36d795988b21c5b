//! Leaves of a tree into a folder of the file system.
//!
//! Every file is made by its name in a folder that is held open, and every
//! folder is opened without following links, so nothing is written outside
//! of where the export began, whoever changes the folder meanwhile.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{Mutex, mpsc};

use super::{Export, Leaf};
use crate::commands::blocking;
use crate::model::text::quote;
use crate::model::{EntryKind, Item, TreePath};
use crate::ui::{Exit, Usage};

/// Threads that write files: one waits for the disk while another inflates.
const WRITERS: usize = 2;
/// How many batches may wait for them.
const AHEAD: usize = 4;
/// Bytes read and written at once.
const PIECE: usize = 128 * 1024;

/// Leaves to be written, each with its folder, which is open.
type Job = Vec<(Arc<OwnedFd>, Item)>;

/// Exports into `to`.
pub(super) async fn write(export: Export, to: PathBuf, force: bool) -> anyhow::Result<()> {
    let export = Arc::new(export);
    let (send, jobs) = mpsc::channel(AHEAD);
    let jobs = Arc::new(Mutex::new(jobs));
    let mut writers = Vec::with_capacity(WRITERS);
    for _ in 0..WRITERS {
        let (export, jobs, to) = (Arc::clone(&export), Arc::clone(&jobs), to.clone());
        writers.push(blocking(move || files(&export, &jobs, &to, force)));
    }
    drop(jobs);
    let walk = blocking(move || folders(&export, &to, &send));
    let (second, first) = (writers.pop(), writers.pop());
    let (first, second) = (first.context("no writer")?, second.context("no writer")?);
    let (walked, first, second) = tokio::join!(walk, first, second);
    // A writer that failed also ends the walk, with less to say.
    first.and(second)?;
    walked
}

/// Makes the folders, and hands each leaf on.
fn folders(export: &Export, to: &Path, jobs: &mpsc::Sender<Job>) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(to, flags, Mode::empty())
        .with_context(|| format!("cannot open {}", to.display()))?;
    // The folders above the leaf at hand, outermost first.
    let mut open: Vec<(TreePath, Arc<OwnedFd>)> = vec![(TreePath::root(), Arc::new(root))];
    export.leaves(|items| {
        let mut job = Vec::with_capacity(items.len());
        for item in items {
            let (parent, name) = item.path.split_last().context("a leaf without a name")?;
            while open
                .last()
                .is_some_and(|(path, _)| !parent.starts_with(path))
            {
                open.pop();
            }
            let known = open.last().map_or(0, |(path, _)| path.steps().count());
            for step in parent.steps().skip(known) {
                let (path, folder) = open.last().context("the root is always open")?;
                let path = path.join(step);
                let inner = enter(folder, step, &shown(to, &path))?;
                open.push((path, Arc::new(inner)));
            }
            let (_, folder) = open.last().context("the root is always open")?;
            if item.entry.mode.kind() == EntryKind::Submodule {
                export.note_submodule(&item);
                enter(folder, name, &shown(to, &item.path))?;
            } else {
                job.push((Arc::clone(folder), item));
            }
        }
        jobs.blocking_send(job)
            .map_err(|_| anyhow::anyhow!("a file could not be written"))
    })
}

/// Opens a folder in another one, making it where it is missing.
fn enter(folder: &OwnedFd, step: &[u8], shown: &str) -> anyhow::Result<OwnedFd> {
    match rustix::fs::mkdirat(folder, step, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => (),
        Err(error) => return Err(error).with_context(|| format!("cannot make {shown}")),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, step, flags, Mode::empty()) {
        Ok(inner) => Ok(inner),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            bail!("{shown} is in the way: it is not a folder")
        }
        Err(error) => Err(error).with_context(|| format!("cannot open {shown}")),
    }
}

/// Writes leaves until there are no more.
fn files(
    export: &Export,
    jobs: &Mutex<mpsc::Receiver<Job>>,
    to: &Path,
    force: bool,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let job = jobs.blocking_lock().blocking_recv();
        let Some(job) = job else {
            return Ok(());
        };
        let written = batch(export, job, to, force, &mut buffer);
        if written.is_err() {
            // Nobody is to wait for more.
            jobs.blocking_lock().close();
            return written;
        }
    }
}

fn batch(
    export: &Export,
    job: Job,
    to: &Path,
    force: bool,
    buffer: &mut [u8],
) -> anyhow::Result<()> {
    let (folders, items): (Vec<_>, Vec<_>) = job.into_iter().unzip();
    for (folder, mut leaf) in folders.iter().zip(export.open(items)?) {
        let written = write_leaf(folder, &mut leaf, force, buffer);
        written.map_err(|error| {
            let shown = shown(to, &leaf.item.path);
            match error.downcast::<Errno>() {
                Ok(Errno::EXIST) => {
                    let error = Usage::new(format!("{shown} exists already"));
                    Exit::with(1, error.hint("--force replaces files")).into()
                }
                Ok(errno) => anyhow::Error::from(std::io::Error::from(errno))
                    .context(format!("cannot write {shown}")),
                Err(error) => error.context(format!("cannot write {shown}")),
            }
        })?;
    }
    Ok(())
}

fn write_leaf(
    folder: &OwnedFd,
    leaf: &mut Leaf,
    force: bool,
    buffer: &mut [u8],
) -> anyhow::Result<()> {
    let path = leaf.item.path.clone();
    let (_, name) = path.split_last().context("a leaf without a name")?;
    if leaf.item.entry.mode.kind() == EntryKind::Link {
        let target = leaf.target()?;
        let make = || rustix::fs::symlinkat(target.as_slice(), folder.as_fd(), name);
        return Ok(replacing(folder, name, force, make)?);
    }
    let permissions = Mode::from_raw_mode(if leaf.is_executable() { 0o777 } else { 0o666 });
    let (content, _) = leaf.content()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let make = || rustix::fs::openat(folder, name, flags, permissions);
    let mut file = File::from(replacing(folder, name, force, make)?);
    loop {
        let count = content.read(buffer)?;
        if count == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..count])?;
    }
}

/// Makes something; with `force` in place of the file that is there.
fn replacing<T>(
    folder: &OwnedFd,
    name: &[u8],
    force: bool,
    make: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) if force => {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
            make()
        }
        made => made,
    }
}

fn shown(to: &Path, path: &TreePath) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let below = std::ffi::OsStr::from_bytes(path.as_bytes());
    quote(to.join(below).as_os_str().as_bytes()).to_string()
}
