//! Folders that jobs run in.
//!
//! ```text
//! SCRATCH/NAME/lock     locked as long as the job is somebody's
//!              tree/    the checkout
//!              home/    HOME
//!              tmp/     TMPDIR
//!              run/     the script
//!              container   how to remove the container, where there is one
//! ```
//!
//! What a killed engine leaves is nobody's, and removed by the next.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// The folder of one job; removed when dropped.
pub(super) struct Folder {
    path: PathBuf,
    /// Kept open: it is what holds the lock.
    _lock: File,
}

impl Folder {
    /// Makes a new folder in `scratch`, for nobody else to see.
    pub fn new(scratch: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            let text = format!("cannot make a folder in {}: {error}", scratch.display());
            io::Error::new(error.kind(), text)
        };
        let made = || -> io::Result<Self> {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(scratch)?;
            let path = tempfile::Builder::new()
                .prefix("job-")
                .tempdir_in(scratch)?
                .keep();
            let lock = File::create(path.join("lock"))?;
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            for part in ["tree", "home", "tmp", "run"] {
                fs::create_dir(path.join(part))?;
            }
            Ok(Self { path, _lock: lock })
        };
        made().map_err(named)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// Gives the folder and what is in it so far to another user.
    pub fn give(&self, user: u32) -> io::Result<()> {
        let (uid, gid) = (
            rustix::fs::Uid::from_raw(user),
            rustix::fs::Gid::from_raw(user),
        );
        for part in ["", "tree", "home", "tmp", "run"] {
            rustix::fs::chown(self.path.join(part), Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        use tokio::runtime::{Handle, RuntimeFlavor};
        // A large tree takes its time: other tasks go on elsewhere meanwhile.
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        match flavor {
            Ok(RuntimeFlavor::MultiThread) => {
                tokio::task::block_in_place(|| remove(&self.path));
            }
            _ => remove(&self.path),
        }
    }
}

/// Removes folders that belong to nobody, after `before` has seen them.
pub(super) fn sweep(scratch: &Path, before: impl Fn(&Path)) {
    let Ok(entries) = fs::read_dir(scratch) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(b"job-") {
            continue;
        }
        // Without its lock it is being made, or being removed, by somebody.
        if let Ok(lock) = File::open(entry.path().join("lock"))
            && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            before(&entry.path());
            remove(&entry.path());
        }
    }
}

/// Removes a folder, also where a step took the right to write away.
fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_err() {
        open_up(path);
        let _ = fs::remove_dir_all(path);
    }
}

fn open_up(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nobodys_is_removed_and_nothing_else() {
        let scratch = tempfile::tempdir().expect("a folder");
        let mine = Folder::new(scratch.path()).expect("made");
        let left = Folder::new(scratch.path()).expect("made");
        let path = left.path().to_owned();
        fs::create_dir(left.tree().join("sealed")).expect("made");
        fs::write(left.tree().join("sealed/file"), "x").expect("written");
        let sealed = fs::Permissions::from_mode(0o500);
        fs::set_permissions(left.tree().join("sealed"), sealed).expect("set");
        // As a process that is killed: the lock goes, the folder stays.
        let lock = left._lock.try_clone().expect("open");
        std::mem::forget(left);
        rustix::fs::flock(&lock, FlockOperation::Unlock).expect("unlocked");
        let seen = std::cell::Cell::new(0);
        sweep(scratch.path(), |folder| {
            assert!(folder == path);
            seen.set(seen.get() + 1);
        });
        assert_eq!(seen.get(), 1);
        assert!(!path.exists() && mine.path().exists());
        let path = mine.path().to_owned();
        drop(mine);
        assert!(!path.exists());
    }
}
