//! Folders and files of a repository: made as open to others as those around
//! them, removed when nothing is left in them, synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::metrics::metrics;
use crate::store::{Error, Result};

/// Creates a file that was not there, as open to others as its directory is:
/// a repository shared by a group stays so.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let folder = path.parent().map_or(Ok(0o644), |dir| {
        fs::metadata(dir).map(|dir| dir.permissions().mode() & 0o666)
    })?;
    if folder & !file.metadata()?.permissions().mode() != 0 {
        file.set_permissions(fs::Permissions::from_mode(folder))?;
    }
    Ok(file)
}

/// Makes a directory and those above it, each as open as the one it is in, and
/// returns the directories that got a new entry.
pub(super) fn make_dirs(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = || Error::io(format!("cannot create {}", dir.display()));
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = dir.parent().ok_or(error).map_err(failed())?;
            let mut changed = make_dirs(above)?;
            changed.extend(make_dirs(dir)?);
            return Ok(changed);
        }
        Err(error) => return Err(failed()(error)),
    }
    let Some(above) = dir.parent() else {
        return Ok(Vec::new());
    };
    let copy = fs::metadata(above).and_then(|above| fs::set_permissions(dir, above.permissions()));
    copy.map_err(failed())?;
    Ok(vec![above.to_owned()])
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    metrics().fsyncs.inc();
    File::open(dir)?.sync_all()
}

/// Removes a folder if nothing but folders is in it; says whether it is gone.
pub(super) fn remove_empty_dirs(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || !remove_empty_dirs(&entry.path()) {
            return false;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(()) => true,
    }
}

/// Removes the empty folders a ref of this name was in, but for the first two.
pub(super) fn prune_above(path: &Path, name: &[u8]) {
    let deep = name
        .iter()
        .filter(|b| **b == b'/')
        .count()
        .saturating_sub(2);
    for folder in path.ancestors().skip(1).take(deep) {
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
}
