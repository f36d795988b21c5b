//! What dead owners of locks left, taken over.
//!
//! See `lock` for the protocol. A claim holds the owner's flock, so it is the
//! only one that touches what the owner left.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::{Error, Result};

use super::folders::create_new;
use super::lock::{INTENT, Lock, Locks, RECORD, inode, same_file};

/// How old an empty lock must be that was never finished (no hard links).
const GRACE: Duration = Duration::from_secs(10);

/// What a dead owner left, held exclusively.
pub struct Claim<'a> {
    locks: &'a Locks,
    path: PathBuf,
    /// Holds the flock.
    _file: File,
    /// The private files and records.
    left: Vec<Leftover>,
}

struct Leftover {
    path: PathBuf,
    number: u64,
    inode: u64,
}

impl Locks {
    /// Takes over what an owner left, if it is dead.
    pub fn claim(&self, nonce: &str) -> Result<Option<Claim<'_>>> {
        let path = self.dir.join(nonce);
        let failed = || Error::io(format!("cannot open {}", path.display()));
        let file = match File::open(&path) {
            // Its private files outlived it: a crash of the machine.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                other => other.map_err(failed())?,
            },
            other => other.map_err(failed())?,
        };
        if file.try_lock().is_err() || !same_file(&file, &path) {
            return Ok(None);
        }
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.dir)
            .map_err(Error::io(format!("cannot list {}", self.dir.display())))?
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(kind) = name
                .strip_prefix(nonce)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            if let Ok(number) = kind.trim_end_matches(RECORD).parse() {
                left.push(Leftover {
                    path: entry.path(),
                    number,
                    inode: entry.ino(),
                });
            }
        }
        Ok(Some(Claim {
            locks: self,
            path,
            _file: file,
            left,
        }))
    }

    /// Every `.lock` file of the repository with this inode.
    fn locks_with(&self, inode: u64) -> Vec<PathBuf> {
        fn look(dir: &Path, deep: bool, inode: u64, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if deep && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    look(&entry.path(), true, inode, found);
                } else if entry.ino() == inode && entry.file_name().as_bytes().ends_with(b".lock") {
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        for root in &self.roots {
            look(root, false, inode, &mut found);
            look(&root.join("refs"), true, inode, &mut found);
        }
        found
    }
}

impl Claim<'_> {
    /// Returns what the owner was about to do, if it got as far as saying so.
    pub fn intent(&self) -> Result<Option<Vec<u8>>> {
        let path = self.path.with_extension(INTENT);
        match fs::read(&path) {
            Ok(intent) => Ok(Some(intent)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("cannot read {}", path.display()))(error)),
        }
    }

    /// Returns the lock with this number at `path`, if the owner still had it.
    pub fn adopt(&mut self, number: u64, path: &Path) -> Option<Lock> {
        let index = self.left.iter().position(|it| it.number == number)?;
        if !self.left[index].is_at(path) {
            return None;
        }
        let left = self.left.swap_remove(index);
        Some(Lock::adopted(path.to_owned(), left.path, number))
    }

    /// Removes the locks left, except those with these numbers.
    pub fn clear_except(&mut self, kept: &[u64]) {
        let locks = self.locks;
        self.left
            .retain(|left| kept.contains(&left.number) || !left.clear(locks));
    }

    /// Removes everything left, and the owner itself.
    pub fn clear(mut self) {
        self.clear_except(&[]);
        if !self.left.is_empty() {
            return;
        }
        let _ = fs::remove_file(self.path.with_extension(INTENT));
        let _ = fs::remove_file(&self.path);
    }
}

impl Leftover {
    fn is_record(&self) -> bool {
        self.path
            .as_os_str()
            .as_bytes()
            .ends_with(RECORD.as_bytes())
    }

    fn is_at(&self, lock: &Path) -> bool {
        if self.is_record() {
            recorded(&self.path).is_some_and(|it| it.path == lock && it.is_there())
        } else {
            inode(lock) == Some(self.inode)
        }
    }

    /// Removes it and its lock; says whether it did.
    fn clear(&self, locks: &Locks) -> bool {
        if self.is_record() {
            if let Some(record) = recorded(&self.path) {
                if record.is_there() {
                    let _ = fs::remove_file(&record.path);
                } else if record.may_be_there() {
                    return false;
                }
            }
        } else if fs::symlink_metadata(&self.path).is_ok_and(|file| file.nlink() > 1) {
            for lock in locks.locks_with(self.inode) {
                let _ = fs::remove_file(lock);
            }
        }
        let _ = fs::remove_file(&self.path);
        true
    }
}

/// A lock made without hard links.
pub(super) struct Record {
    pub(super) path: PathBuf,
    inode: Option<u64>,
}

pub(super) fn recorded(record: &Path) -> Option<Record> {
    let text = fs::read(record).ok()?;
    let mut lines = text.split(|b| *b == b'\n');
    let path = lines.next().filter(|path| !path.is_empty())?.to_vec();
    Some(Record {
        path: std::ffi::OsString::from_vec(path).into(),
        inode: lines
            .next()
            .and_then(|line| std::str::from_utf8(line).ok()?.parse().ok()),
    })
}

impl Record {
    fn is_there(&self) -> bool {
        let Ok(lock) = fs::symlink_metadata(&self.path) else {
            return false;
        };
        match self.inode {
            Some(inode) => lock.ino() == inode,
            None => {
                let age = lock.modified().ok().and_then(|at| at.elapsed().ok());
                lock.len() == 0 && age.is_some_and(|age| age > GRACE)
            }
        }
    }

    /// Tells whether only time will tell.
    fn may_be_there(&self) -> bool {
        let lock = fs::symlink_metadata(&self.path);
        self.inode.is_none() && lock.is_ok_and(|lock| lock.len() == 0)
    }
}
