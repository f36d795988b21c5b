//! A folder of the file system as a source of files.
//!
//! Names come in order of their bytes. Links stay links; `.git` and the store
//! itself are passed over; whatever is neither file, folder nor link is refused.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType, OpenOptions};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::ahead::{Found, Outlet};
use super::{changed, is_executable};
use crate::model::TreePath;
use crate::ui::Ui;

/// What is passed over.
pub(super) struct Walk {
    /// Device and inode of the store, where it may lie among the files.
    store: Option<(u64, u64)>,
    ui: Ui,
}

impl Walk {
    pub fn new(store: &OsStr, ui: Ui) -> Self {
        let store = Path::new(store);
        // The folder of a work tree holds files like any other.
        let about = store.join("HEAD").is_file().then(|| store.metadata().ok());
        let store = about.flatten().map(|about| (about.dev(), about.ino()));
        Self { store, ui }
    }

    fn skip(&self, file: &Path) {
        self.ui.note(&format!("skipped {}", file.display()));
    }

    /// Gives everything below `dir`, at `at` in the tree.
    pub fn folder(&self, dir: &Path, at: &TreePath, outlet: &Outlet) -> anyhow::Result<()> {
        let cannot = || format!("cannot read {}", dir.display());
        let mut names: Vec<(OsString, FileType)> = Vec::new();
        for entry in fs::read_dir(dir).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            names.push((entry.file_name(), entry.file_type().with_context(cannot)?));
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in names {
            let file = dir.join(&name);
            if name == ".git" {
                self.skip(&file);
                continue;
            }
            // Refuses the disguises of `.git`.
            TreePath::new(name.as_bytes())
                .with_context(|| format!("cannot import {}", file.display()))?;
            let path = at.join(name.as_bytes());
            let cannot = || format!("cannot read {}", file.display());
            if kind.is_dir() {
                let about = file.symlink_metadata().with_context(cannot)?;
                if self.store == Some((about.dev(), about.ino())) {
                    self.skip(&file);
                    continue;
                }
                outlet.give(Found::Dir(path.clone()))?;
                self.folder(&file, &path, outlet)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&file).with_context(cannot)?;
                let target = target.into_os_string().into_vec();
                outlet.give(Found::Link { path, target })?;
            } else if kind.is_file() {
                let (opened, size, exec) = open(&file)?;
                let name = file.display().to_string();
                outlet.file((path, exec), size, (&name, changed(&name)), opened)?;
            } else {
                bail!(special(&file, kind));
            }
        }
        Ok(())
    }
}

/// Opens what was a file a moment ago: never through a link, and without
/// waiting for the other end of a pipe that took its place.
fn open(file: &Path) -> anyhow::Result<(File, u64, bool)> {
    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let cannot = || format!("cannot read {}", file.display());
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(file)
        .with_context(cannot)?;
    let about = opened.metadata().with_context(cannot)?;
    if !about.is_file() {
        bail!(special(file, about.file_type()));
    }
    let exec = is_executable(&about);
    Ok((opened, about.len(), exec))
}

fn special(file: &Path, kind: FileType) -> String {
    let what = match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "something else",
    };
    format!(
        "cannot import {}: it is {what}, not a file, folder or symbolic link",
        file.display()
    )
}
