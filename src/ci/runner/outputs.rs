//! What a step made, read out of its checkout.
//!
//! No link is followed on the way, so nothing outside of the checkout can get
//! into a result. Nobody changes the checkout any more: its processes have
//! ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::checkout::{open_folder, open_root};
use super::links;
use super::scratch::Folder;
use crate::ci::logs::{Mask, Secrets};
use crate::ci::{Job, Outputs, layout};
use crate::client::{Content, Edit, Edits, FileKind, Stop};
use crate::model::TreePath;

/// Bytes of a path in a result, so that no step can make one without an end.
const LONGEST: usize = 4096;

/// Why outputs are no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("output {0} is missing")]
    Missing(TreePath),
    #[error("output {0} is neither a file nor a folder nor a symbolic link")]
    Odd(TreePath),
    #[error("output {0} lies behind a symbolic link")]
    Behind(TreePath),
    #[error("output {0} is a symbolic link that leads out of the tree")]
    Leaving(TreePath),
    #[error("output {0} has a name that no tree can hold")]
    Illegal(String),
    #[error("output {0} holds a secret")]
    Secret(String),
    #[error("cannot read output {path}: {source}")]
    Read { path: TreePath, source: io::Error },
}

/// One file or link of the result.
enum Leaf {
    File { executable: bool, size: u64 },
    Link(Vec<u8>),
}

/// Reads what a job is to have made. The outputs keep the folder. It blocks.
pub(super) fn read(job: &Job, folder: Folder, secrets: &Secrets) -> Result<Outputs, Error> {
    let root = open_root(&folder.tree()).map_err(at(&TreePath::root()))?;
    let mut found = BTreeMap::new();
    for output in &job.outputs {
        let parent = open_parent(&root, output)?;
        let Some((_, name)) = output.split_last() else {
            continue;
        };
        gather(&parent, name, output, &mut found)?;
    }
    let links: BTreeMap<TreePath, Vec<u8>> = found
        .iter()
        .filter_map(|(path, leaf)| match leaf {
            Leaf::Link(target) => Some((path.clone(), target.clone())),
            Leaf::File { .. } => None,
        })
        .collect();
    if let Some(link) = links::leaving(&links) {
        return Err(Error::Leaving(link.clone()));
    }
    if !secrets.is_empty() {
        for (path, leaf) in &found {
            search(&root, path, leaf, secrets)?;
        }
    }
    let kept = Arc::new((folder, root, found));
    Ok(Box::new(move || {
        let kept = Arc::clone(&kept);
        Edits::new(move |sink| {
            for (path, leaf) in &kept.2 {
                let failed = |error: Error| Stop::Source(Box::new(error));
                let to = TreePath::root().join(layout::VALUE.as_bytes()).append(path);
                match leaf {
                    Leaf::Link(target) => sink.edit(Edit::Link { path: to, target })?,
                    Leaf::File { executable, size } => {
                        let mut file = open_file(&kept.1, path).map_err(failed)?;
                        let kind = match executable {
                            true => FileKind::Exec,
                            false => FileKind::Normal,
                        };
                        sink.edit(Edit::Write {
                            path: to,
                            kind,
                            content: Content::Reader {
                                reader: &mut file,
                                size: Some(*size),
                            },
                        })?;
                    }
                }
            }
            Ok(())
        })
    }))
}

fn at<E: Into<io::Error>>(path: &TreePath) -> impl FnOnce(E) -> Error {
    let path = path.clone();
    |error| Error::Read {
        path,
        source: error.into(),
    }
}

/// Opens the folder a path lies in, no links on the way.
fn open_parent(root: &OwnedFd, path: &TreePath) -> Result<OwnedFd, Error> {
    let mut folder = root.try_clone().map_err(at(path))?;
    let (parent, _) = path.split_last().unwrap_or_default();
    for step in parent.steps() {
        folder = open_folder(&folder, step).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => Error::Missing(path.clone()),
                // A link that is not followed is no folder.
                Some(Errno::LOOP | Errno::NOTDIR) => Error::Behind(path.clone()),
                _ => at(path)(error),
            }
        })?;
    }
    Ok(folder)
}

fn open_file(root: &OwnedFd, path: &TreePath) -> Result<File, Error> {
    let parent = open_parent(root, path)?;
    let (_, name) = path.split_last().unwrap_or_default();
    // Not to wait for the other end, should it be a pipe after all.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(at(path))?;
    Ok(File::from(file))
}

/// Adds what stands at a path, and all below it.
fn gather(
    folder: &OwnedFd,
    name: &[u8],
    path: &TreePath,
    found: &mut BTreeMap<TreePath, Leaf>,
) -> Result<(), Error> {
    if path.as_bytes().len() > LONGEST || TreePath::new(path.as_bytes()).is_err() {
        return Err(Error::Illegal(path.to_string()));
    }
    let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Err(Error::Missing(path.clone())),
        Err(error) => return Err(at(path)(error)),
    };
    let leaf = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Leaf::File {
            executable: stat.st_mode & 0o100 != 0,
            size: u64::try_from(stat.st_size).unwrap_or(0),
        },
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(at(path))?;
            Leaf::Link(target.into_bytes())
        }
        FileType::Directory => {
            let inner = open_folder(folder, name).map_err(at(path))?;
            for entry in rustix::fs::Dir::read_from(&inner).map_err(at(path))? {
                let entry = entry.map_err(at(path))?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    gather(&inner, name, &path.join(name), found)?;
                }
            }
            return Ok(());
        }
        _ => return Err(Error::Odd(path.clone())),
    };
    found.insert(path.clone(), leaf);
    Ok(())
}

/// Refuses a leaf whose name or content holds a secret.
fn search(root: &OwnedFd, path: &TreePath, leaf: &Leaf, secrets: &Secrets) -> Result<(), Error> {
    let refused = || {
        // The name itself may be what must not be shown.
        let mut mask = Mask::new(secrets.clone());
        let mut shown = mask.feed(path.as_bytes());
        shown.extend(mask.finish());
        Error::Secret(String::from_utf8_lossy(&shown).into_owned())
    };
    if secrets.are_in(path.as_bytes()) {
        return Err(refused());
    }
    let mut content: Box<dyn Read> = match leaf {
        Leaf::Link(target) => Box::new(target.as_slice()),
        Leaf::File { .. } => Box::new(open_file(root, path)?),
    };
    let mut mask = Mask::new(secrets.clone());
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = content.read(&mut buffer).map_err(at(path))?;
        if mask.found(&buffer[..count], count == 0) {
            return Err(refused());
        }
        if count == 0 {
            return Ok(());
        }
    }
}
