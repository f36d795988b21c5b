//! Makes files and directories durable, and gives them the modes Git would.
//!
//! - Files are synced in rounds: the kernel is asked to begin with all of a round
//!   before the first is waited for, so that a journaling file system commits
//!   them together. With as many threads it takes as long, and more of the
//!   processor. Of directories the first brings the others' entries along.
//! - Data is synced before the rename that makes it visible, the directory after.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::metrics::metrics;
use crate::store::{Error, Result};

use super::folders::sync_dir;
use super::temp::Temp;

/// What a file or directory of the repository is synced with, and shared with.
#[derive(Clone)]
pub(super) struct Keeping {
    /// Whether anything is synced at all.
    pub sync: bool,
    pub shared: Shared,
}

/// So many files of a round are open at once.
const TOGETHER: usize = 64;

/// Something written whose content is to be synced.
pub(super) trait Written {
    fn path(&self) -> &Path;
    fn open(&self) -> io::Result<File>;
}

/// `core.sharedRepository`: permission bits beyond the umask's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shared {
    #[default]
    Umask,
    /// These bits are added.
    Also(u32),
    /// These bits are all (an octal number in the configuration).
    Exactly(u32),
}

impl Shared {
    /// Reads a value as git-config(1) describes it.
    pub fn parse(value: &str) -> Self {
        match value.to_ascii_lowercase().as_str() {
            "" | "umask" | "false" | "no" | "off" | "0" => Self::Umask,
            "group" | "true" | "yes" | "on" | "1" => Self::Also(0o660),
            "all" | "world" | "everybody" | "2" => Self::Also(0o664),
            octal => match u32::from_str_radix(octal, 8) {
                Ok(0o660) => Self::Also(0o660),
                Ok(0o664) => Self::Also(0o664),
                Ok(bits) if bits & 0o600 == 0o600 => Self::Exactly(bits & 0o666),
                _ => Self::Umask,
            },
        }
    }

    fn mode(self, mode: u32, directory: bool) -> u32 {
        let (base, mut tweak) = match self {
            Self::Umask => return mode,
            Self::Also(bits) => (mode, bits),
            Self::Exactly(bits) => (mode & !0o777, bits),
        };
        if mode & 0o200 == 0 {
            tweak &= !0o222;
        }
        if mode & 0o100 != 0 {
            tweak |= (tweak & 0o444) >> 2;
        }
        base | tweak | if directory { 0o2000 } else { 0 }
    }
}

impl Keeping {
    /// Gives a path the mode that sharing asks for.
    pub fn adjust(&self, path: &Path, directory: bool) -> Result<()> {
        if self.shared == Shared::Umask {
            return Ok(());
        }
        let change = || {
            let now = fs::metadata(path)?.permissions().mode() & 0o7777;
            let wanted = self.shared.mode(now, directory);
            match wanted == now {
                true => Ok(()),
                false => fs::set_permissions(path, Permissions::from_mode(wanted)),
            }
        };
        change().map_err(Error::io(format!(
            "cannot set permissions of {}",
            path.display()
        )))
    }

    /// Moves a complete and synced file into place.
    pub fn place(&self, temp: Temp, path: &Path) -> Result<()> {
        self.adjust(temp.path(), false)?;
        temp.put(path)
            .map_err(Error::io(format!("cannot create {}", path.display())))
    }

    /// Syncs files in one round.
    pub fn sync_files(&self, files: &[&dyn Written]) -> Result<()> {
        if !self.sync {
            return Ok(());
        }
        for files in files.chunks(TOGETHER) {
            let mut open = Vec::with_capacity(files.len());
            for written in files {
                let file = written.open().map_err(unsynced(written.path()))?;
                begin(&file);
                open.push((file, written.path()));
            }
            metrics().fsyncs.inc_by(files.len() as u64);
            for (file, path) in open {
                file.sync_all().map_err(unsynced(path))?;
            }
        }
        Ok(())
    }

    /// Syncs directories.
    pub fn sync_dirs(&self, dirs: &[PathBuf]) -> Result<()> {
        if !self.sync {
            return Ok(());
        }
        dirs.iter()
            .try_for_each(|dir| sync_dir(dir).map_err(unsynced(dir)))
    }
}

/// Asks the kernel to begin writing a file. Linux does so before it looks at
/// what there is to forget, and that is less than a page: nothing.
#[cfg(target_os = "linux")]
fn begin(file: &File) {
    use rustix::fs::{Advice, fadvise};
    // A hint; it may be refused.
    let _ = fadvise(file, 0, std::num::NonZeroU64::new(1), Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn begin(_: &File) {}

fn unsynced(path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("cannot sync {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_modes_are_those_of_git() {
        for (value, file, dir) in [
            ("umask", 0o444, 0o755),
            ("false", 0o444, 0o755),
            ("group", 0o444, 0o2775),
            ("all", 0o444, 0o2775),
            ("0640", 0o440, 0o2750),
            ("0660", 0o444, 0o2775),
            ("nonsense", 0o444, 0o755),
        ] {
            let shared = Shared::parse(value);
            assert_eq!(shared.mode(0o444, false), file, "{value}");
            assert_eq!(shared.mode(0o755, true), dir, "{value}");
        }
        assert_eq!(Shared::parse("group").mode(0o400, false), 0o440);
    }
}
