//! Temporary files that are gone once this process is, unless it is killed.
//!
//! A file goes with the value that stands for it. A signal ends the process
//! while threads still hold such values, so all that exist are listed, and
//! [`abandon`] removes them; after it no more can be made.
//!
//! `git gc` clears away what a killed process left: all names begin with `tmp_`.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{NamedTempFile, TempDir};

use super::durable::Written;

/// Everything there is.
static LIST: Mutex<List> = Mutex::new(List {
    paths: BTreeSet::new(),
    abandoned: false,
});

struct List {
    paths: BTreeSet<PathBuf>,
    /// The process is about to end.
    abandoned: bool,
}

/// A file that is removed when dropped, unless it was put in its place.
pub(super) struct Temp {
    file: NamedTempFile,
    /// Dropped after the file.
    _listed: Listed,
}

/// A folder that is removed with all in it when dropped.
pub(super) struct TempFolder {
    folder: TempDir,
    _listed: Listed,
}

/// Takes its path off the list when dropped.
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        list().paths.remove(&self.0);
    }
}

fn list() -> MutexGuard<'static, List> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes something and lists it, unless the process is about to end.
fn listed<T>(
    make: impl FnOnce() -> io::Result<T>,
    path: impl FnOnce(&T) -> &Path,
) -> io::Result<(T, Listed)> {
    let mut list = list();
    if list.abandoned {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let made = make()?;
    let path = path(&made).to_owned();
    list.paths.insert(path.clone());
    Ok((made, Listed(path)))
}

impl Temp {
    /// Creates a file whose name begins with `prefix`, readable by all and
    /// writable through this value only.
    pub fn new(dir: &Path, prefix: &str) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let mode = Permissions::from_mode(0o444);
        let builder = builder.prefix(prefix).rand_bytes(6).permissions(mode);
        let (file, listed) = listed(|| builder.tempfile_in(dir), NamedTempFile::path)?;
        Ok(Self {
            file,
            _listed: listed,
        })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn as_file(&self) -> &File {
        self.file.as_file()
    }

    /// Moves it into place; there it stays.
    pub fn put(self, path: &Path) -> io::Result<()> {
        let placed = self.file.into_temp_path().persist(path);
        placed.map_err(|failed| failed.error)
    }
}

impl Written for Temp {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn open(&self) -> io::Result<File> {
        self.as_file().try_clone()
    }
}

/// Without the path that the inner file adds to errors: whoever writes names it.
impl Write for Temp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.as_file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.as_file().flush()
    }
}

impl TempFolder {
    pub fn new(dir: &Path, prefix: &str) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(prefix);
        let (folder, listed) = listed(|| builder.tempdir_in(dir), TempDir::path)?;
        Ok(Self {
            folder,
            _listed: listed,
        })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes everything there is, for a process that ends with writes under way:
/// these fail, and no others can begin.
pub fn abandon() {
    let mut list = list();
    list.abandoned = true;
    for path in std::mem::take(&mut list.paths) {
        if path.is_dir() {
            let _ = fs::remove_dir_all(path);
        } else {
            let _ = fs::remove_file(path);
        }
    }
}
