//! Lock files that a dead process never leaves behind.
//!
//! Git locks FILE by creating FILE.lock, writes the new content there and
//! renames it into place; a process that dies in between leaves the lock for
//! ever. Here every lock has an owner that the kernel knows is alive:
//!
//! - An [`Owner`] is a file `dk/locks/NONCE` that its process holds with
//!   flock(2). The kernel gives that up when the process ends, however it ends.
//! - The content is first a private file `dk/locks/NONCE.N`, written and
//!   synced (with whatever else is to be); link(2) then makes it FILE.lock, which is atomic and fails where
//!   the lock is held. So FILE.lock is never empty or half, and whoever meets
//!   it finds its owner by the inode.
//! - Who can flock an owner file holds a `Claim` on all that owner left.
//!
//! Killed at any point, this is what stays, and a claim sets it right:
//! after creating the owner file: nothing but that; after creating the private
//! file: a private file with one link; after link: FILE.lock and the private
//! file are one inode, both go, the lock first; after rename: FILE is in
//! place and has a second link, which goes. Nobody but the holder of the
//! owner's flock touches a FILE.lock of that owner, so a claim cannot race
//! with a living owner, nor with another claim. An owner file that a claim took
//! between its creation and its flock is noticed (its path is gone) and made anew.
//!
//! Where hard links do not exist, FILE.lock is created exclusively, and the
//! private file records its path before and its inode after. Killed between
//! the two, the lock is known by being empty, recorded and ten seconds old.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::metrics;
use crate::store::{Error, Result};

use super::claim::recorded;
use super::durable::Written;
use super::folders::{create_new, make_dirs, sync_dir};

/// The locks of one repository.
pub struct Locks {
    /// `dk/locks` in the common directory.
    pub(super) dir: PathBuf,
    /// Where a `.lock` may be: these directories, and all below their `refs`.
    pub(super) roots: Vec<PathBuf>,
    /// Whether content is synced before it can be seen.
    sync: bool,
    /// The owner of all locks taken singly.
    owner: Mutex<Option<Arc<Owner>>>,
    /// Set once link(2) was refused.
    no_links: AtomicBool,
}

/// A living holder of locks.
pub struct Owner {
    nonce: String,
    path: PathBuf,
    /// Holds the flock.
    _file: File,
    next: AtomicU64,
    /// What it leaves is for the next to finish.
    abandoned: AtomicBool,
}

/// Content that is to become a lock.
pub struct Staged {
    private: PathBuf,
    content: Vec<u8>,
    owner: Arc<Owner>,
    number: u64,
}

/// A lock that is held. Dropping it gives it up with nothing changed.
pub struct Lock {
    path: PathBuf,
    private: PathBuf,
    /// Its number within its owner.
    pub number: u64,
    armed: bool,
    /// `None`: it was adopted from a dead one, under a claim.
    owner: Option<Arc<Owner>>,
}

/// What came of trying to take a lock.
pub enum Taken {
    Yes(Lock),
    /// Somebody holds it.
    Held(Staged),
    /// A directory above it is missing.
    NoParent(Staged),
    /// A file stands where a directory above it should be.
    FileAbove(Staged),
}

pub(super) const INTENT: &str = "intent";
pub(super) const RECORD: &str = "record";

impl Locks {
    pub fn new(git_dir: &Path, common_dir: &Path, sync: bool) -> Self {
        let mut roots = vec![common_dir.to_owned()];
        if git_dir != common_dir {
            roots.push(git_dir.to_owned());
        }
        Self {
            dir: common_dir.join("dk/locks"),
            roots,
            sync,
            owner: Mutex::new(None),
            no_links: AtomicBool::new(false),
        }
    }

    /// Returns the owner of the locks this process takes singly.
    pub fn owner(&self) -> Result<Arc<Owner>> {
        let mut slot = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = &*slot {
            return Ok(Arc::clone(owner));
        }
        let owner = self.new_owner()?;
        *slot = Some(Arc::clone(&owner));
        Ok(owner)
    }

    /// Returns an owner for a set of locks that belong together.
    pub fn new_owner(&self) -> Result<Arc<Owner>> {
        make_dirs(&self.dir)?;
        loop {
            let nonce = format!("{:016x}", random());
            let path = self.dir.join(&nonce);
            let file = match create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(Error::io(format!("cannot create {}", path.display())))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                // A claim has it, and will remove it.
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => {
                    return Err(Error::io(format!("cannot lock {}", path.display()))(error));
                }
            }
            if same_file(&file, &path) {
                return Ok(Arc::new(Owner {
                    nonce,
                    path,
                    _file: file,
                    next: AtomicU64::new(0),
                    abandoned: AtomicBool::new(false),
                }));
            }
        }
    }

    /// Writes what a lock is to hold, synced where this store is.
    pub fn stage(&self, owner: &Arc<Owner>, content: Vec<u8>) -> Result<Staged> {
        let staged = self.stage_unsynced(owner, content)?;
        self.settle(&staged)?;
        Ok(staged)
    }

    /// Syncs what was staged, where this store is synced.
    pub fn settle(&self, staged: &Staged) -> Result<()> {
        if !self.sync || !staged.is_filled() {
            return Ok(());
        }
        metrics().fsyncs.inc();
        staged
            .open()
            .and_then(|file| file.sync_all())
            .map_err(Error::io(format!(
                "cannot sync {}",
                staged.private.display()
            )))
    }

    /// Writes what a lock is to hold. It has to be synced before it is taken.
    pub fn stage_unsynced(&self, owner: &Arc<Owner>, content: Vec<u8>) -> Result<Staged> {
        let number = owner.next.fetch_add(1, Ordering::Relaxed);
        let private = self.dir.join(format!("{}.{number}", owner.nonce));
        let staged = Staged {
            private,
            content,
            owner: Arc::clone(owner),
            number,
        };
        create_new(&staged.private)
            .and_then(|mut file| file.write_all(&staged.content))
            .map_err(Error::io(format!(
                "cannot write {}",
                staged.private.display()
            )))?;
        Ok(staged)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<File> {
        let mut file = create_new(path)?;
        file.write_all(content)?;
        if self.sync && !content.is_empty() {
            metrics().fsyncs.inc();
            file.sync_all()?;
        }
        Ok(file)
    }

    /// Tries to make `staged` the lock at `path`.
    pub fn take(&self, staged: Staged, path: &Path) -> Result<Taken> {
        use io::ErrorKind as K;
        if self.no_links.load(Ordering::Relaxed) {
            return self.take_without_links(staged, path);
        }
        let error = match fs::hard_link(&staged.private, path) {
            Ok(()) => return Ok(Taken::Yes(staged.into_lock(path))),
            Err(error) => error,
        };
        match error.kind() {
            // A file system over a network may say so of a link it has just made.
            K::AlreadyExists if inode(path) == inode(&staged.private) => {
                Ok(Taken::Yes(staged.into_lock(path)))
            }
            K::AlreadyExists => Ok(Taken::Held(staged)),
            K::NotFound if staged.private.exists() => Ok(Taken::NoParent(staged)),
            K::NotADirectory => Ok(Taken::FileAbove(staged)),
            _ if links_missing(&error) => {
                self.no_links.store(true, Ordering::Relaxed);
                self.take_without_links(staged, path)
            }
            _ => Err(Error::io(format!("cannot lock {}", path.display()))(error)),
        }
    }

    fn take_without_links(&self, mut staged: Staged, path: &Path) -> Result<Taken> {
        use io::ErrorKind as K;
        let failed = || Error::io(format!("cannot lock {}", path.display()));
        // From here on the private file is a record of the lock.
        let record = staged
            .private
            .with_extension(format!("{}{RECORD}", staged.number));
        let mut note = path.as_os_str().as_bytes().to_vec();
        note.push(b'\n');
        let mut noted = self.write(&record, &note).map_err(failed())?;
        let private = std::mem::replace(&mut staged.private, record);
        let _ = fs::remove_file(private);
        let mut file = match create_new(path) {
            Ok(file) => file,
            Err(error) => {
                let taken = match error.kind() {
                    K::AlreadyExists => Taken::Held,
                    K::NotFound => Taken::NoParent,
                    K::NotADirectory => Taken::FileAbove,
                    _ => return Err(failed()(error)),
                };
                let content = std::mem::take(&mut staged.content);
                return Ok(taken(self.stage(&staged.owner.clone(), content)?));
            }
        };
        let content = std::mem::take(&mut staged.content);
        let lock = staged.into_lock(path);
        let made = file.metadata().and_then(|made| {
            writeln!(noted, "{}", made.ino())?;
            file.write_all(&content)?;
            if !self.sync {
                return Ok(());
            }
            metrics().fsyncs.inc();
            file.sync_all()
        });
        made.map_err(failed())?;
        Ok(Taken::Yes(lock))
    }

    /// Returns the nonce of the owner of the lock at `path`, where it is one of ours.
    pub fn holder(&self, path: &Path) -> Option<String> {
        let wanted = inode(path)?;
        for entry in fs::read_dir(&self.dir).ok()?.flatten() {
            let name = entry.file_name();
            let Some((nonce, kind)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let is_it = if kind.ends_with(RECORD) {
                recorded(&entry.path()).is_some_and(|record| record.path == path)
            } else {
                entry.ino() == wanted
            };
            if is_it {
                return Some(nonce.to_owned());
            }
        }
        None
    }

    /// Returns the nonces of all owners, dead and alive.
    pub fn owners(&self) -> Vec<String> {
        let mut nonces: Vec<String> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|name| name.split('.').next().unwrap_or_default().to_owned())
            .collect();
        nonces.sort_unstable();
        nonces.dedup();
        nonces
    }

    /// Records what an owner is about to do with its locks, durably: from here
    /// on it will be done, by whoever lives.
    pub fn write_intent(&self, owner: &Owner, intent: &[u8]) -> Result<()> {
        let path = self.dir.join(format!("{}.{INTENT}", owner.nonce));
        self.write(&path, intent)
            .and_then(|_| {
                if self.sync {
                    sync_dir(&self.dir)
                } else {
                    Ok(())
                }
            })
            .map_err(Error::io(format!("cannot write {}", path.display())))
    }
}

impl Owner {
    /// Lets go of everything without undoing anything: whoever comes next
    /// finishes what the intent says.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Takes the intent back: nothing was done, and nothing will be.
    pub fn withdraw_intent(&self) -> Result<()> {
        let path = self.path.with_extension(INTENT);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(format!(
                "cannot remove {}",
                path.display()
            ))(error)),
            _ => Ok(()),
        }
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.is_abandoned() {
            // The intent first: without it the locks would be undone, with it done.
            let _ = fs::remove_file(self.path.with_extension(INTENT));
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Staged {
    pub fn set_permissions(&self, permissions: fs::Permissions) -> io::Result<()> {
        fs::set_permissions(&self.private, permissions)
    }

    /// Puts the content in the place of a file that is locked otherwise.
    pub fn put(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.private, to)
    }

    /// Tells whether it holds something that is to be synced.
    pub fn is_filled(&self) -> bool {
        !self.content.is_empty()
    }

    fn into_lock(mut self, path: &Path) -> Lock {
        Lock {
            path: path.to_owned(),
            // Emptied, so that dropping `self` keeps the file.
            private: std::mem::take(&mut self.private),
            number: self.number,
            armed: true,
            owner: Some(Arc::clone(&self.owner)),
        }
    }
}

impl Written for Staged {
    fn path(&self) -> &Path {
        &self.private
    }

    fn open(&self) -> io::Result<File> {
        File::open(&self.private)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.private.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.private);
        }
    }
}

impl Lock {
    /// A lock that a dead owner held, to be used under its claim. Until
    /// committed or released it stays, come what may.
    pub(super) fn adopted(path: PathBuf, private: PathBuf, number: u64) -> Self {
        Self {
            path,
            private,
            number,
            armed: false,
            owner: None,
        }
    }

    /// Gives the lock up with nothing changed.
    pub fn release(mut self) {
        self.armed = true;
    }

    /// Puts the lock's content in the place of `to`.
    pub fn commit(&mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.armed = false;
        let _ = fs::remove_file(&self.private);
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self
            .owner
            .as_ref()
            .is_some_and(|owner| owner.is_abandoned())
            || !self.armed
        {
            return;
        }
        // In this order, or a lock without an owner could stay.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.private);
    }
}

/// Returns the path of the lock of a file.
pub(super) fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Tells whether link(2) failed because this file system has no hard links.
fn links_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let kind = Errno::from_io_error(error);
    [
        Errno::PERM,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::XDEV,
        Errno::MLINK,
    ]
    .into_iter()
    .any(|missing| kind == Some(missing))
}

pub(super) fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|file| file.ino())
}

pub(super) fn same_file(file: &File, path: &Path) -> bool {
    file.metadata()
        .is_ok_and(|open| inode(path) == Some(open.ino()))
}

/// Returns a number nobody else has.
pub(super) fn random() -> u64 {
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u128(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.as_nanos()),
    );
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locks as on a file system without hard links.
    fn locks(dir: &Path) -> Locks {
        let locks = Locks::new(dir, dir, true);
        locks.no_links.store(true, Ordering::Relaxed);
        locks
    }

    fn take(locks: &Locks, path: &Path) -> Option<Lock> {
        let staged = locks.stage(&locks.owner().unwrap(), b"new".to_vec());
        match locks.take(staged.unwrap(), path).unwrap() {
            Taken::Yes(lock) => Some(lock),
            _ => None,
        }
    }

    #[test]
    fn without_hard_links_locks_exclude_commit_and_die_with_their_owner_too() {
        let dir = tempfile::tempdir().unwrap();
        let (file, lock) = (dir.path().join("file"), dir.path().join("file.lock"));
        let (mine, other) = (locks(dir.path()), locks(dir.path()));
        let held = take(&mine, &lock).unwrap();
        assert!(take(&other, &lock).is_none());
        let holder = other.holder(&lock).unwrap();
        assert!(other.claim(&holder).unwrap().is_none(), "it is alive");
        drop(held);
        assert!(!lock.exists());
        take(&mine, &lock).unwrap().commit(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");

        let held = take(&mine, &lock).unwrap();
        mine.owner().unwrap().abandon();
        drop((held, mine));
        assert!(lock.exists());
        other.claim(&holder).unwrap().unwrap().clear();
        assert!(!lock.exists());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        drop(other);
        assert_eq!(
            fs::read_dir(dir.path().join("dk/locks")).unwrap().count(),
            0
        );
    }

    #[test]
    fn a_lock_of_which_nobody_knows_whose_it_is_stays_until_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("file.lock");
        let locks = locks(dir.path());
        make_dirs(&locks.dir).unwrap();
        let record = locks.dir.join("dead.0record");
        fs::write(&record, format!("{}\n", lock.display())).unwrap();
        fs::write(&lock, "").unwrap();
        locks.claim("dead").unwrap().unwrap().clear();
        assert!(lock.exists() && record.exists());
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        File::open(&lock).unwrap().set_modified(old).unwrap();
        locks.claim("dead").unwrap().unwrap().clear();
        assert!(!lock.exists() && !record.exists());
    }

    #[test]
    fn an_owner_whose_private_files_outlived_it_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::new(dir.path(), dir.path(), false);
        make_dirs(&locks.dir).unwrap();
        let (private, lock) = (
            locks.dir.join("dead.0"),
            dir.path().join("packed-refs.lock"),
        );
        fs::write(&private, "").unwrap();
        fs::hard_link(&private, &lock).unwrap();
        assert_eq!(locks.owners(), ["dead"]);
        assert_eq!(locks.holder(&lock).as_deref(), Some("dead"));
        locks.claim("dead").unwrap().unwrap().clear();
        assert!(!lock.exists());
        assert_eq!(locks.owners(), Vec::<String>::new());
    }
}
