//! Makes a bare repository.
//!
//! `HEAD` comes last: before it is there, nobody takes the directory for a
//! repository, and an interrupted attempt can be repeated. All of it is durable
//! on return.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::model::{BranchName, HashKind};
use crate::store::{Error, Result};

/// What a directory may hold and still become a repository: the remains of an
/// earlier attempt.
const OURS: [&str; 4] = ["HEAD", "config", "objects", "refs"];

/// Makes a bare repository at `path`, which is missing or an empty directory.
pub(super) fn bare(path: &Path, hash: HashKind) -> Result<()> {
    let made = make_dirs(path)?;
    refuse_others(path)?;
    let dirs = [
        "objects",
        "objects/info",
        "objects/pack",
        "refs",
        "refs/heads",
        "refs/tags",
    ];
    for dir in dirs {
        make_dirs(&path.join(dir))?;
    }
    let (version, extensions) = match hash {
        HashKind::Sha1 => (0, String::new()),
        HashKind::Sha256 => (
            1,
            format!("[extensions]\n\tobjectFormat = {}\n", hash.name()),
        ),
    };
    // Git waits a tenth of a second for the lock of a ref unless told otherwise:
    // too short beside writers that sync.
    let config = format!(
        "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = true\n\
         \tfilesRefLockTimeout = 5000\n{extensions}"
    );
    write(path, "config", &config)?;
    sync_dir(path)?;
    for dir in dirs {
        sync_dir(&path.join(dir))?;
    }
    write(
        path,
        "HEAD",
        &format!("ref: refs/heads/{}\n", first_branch()),
    )?;
    sync_dir(path)?;
    for dir in made {
        sync_dir(dir.parent().unwrap_or(&dir))?;
    }
    Ok(())
}

/// `init.defaultBranch` where it is a legal name.
fn first_branch() -> String {
    let config = gix::config::File::from_globals().ok();
    let environment = gix::config::File::from_environment_overrides().ok();
    [environment, config]
        .into_iter()
        .flatten()
        .find_map(|config| config.string("init.defaultBranch"))
        .map(|name| name.to_string())
        .filter(|name| BranchName::new(name.as_bytes()).is_ok())
        .unwrap_or_else(|| "master".into())
}

fn refuse_others(path: &Path) -> Result<()> {
    let failed = || Error::io(format!("cannot list {}", path.display()));
    for entry in fs::read_dir(path).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        let ours = name
            .to_str()
            .is_some_and(|name| OURS.contains(&name) || name.starts_with(".tmp"));
        if !ours {
            return Err(Error::Denied {
                message: format!("{} is not empty and not a repository", path.display()),
                hint: "name a directory that is new or empty".into(),
            });
        }
    }
    Ok(())
}

/// Makes a directory and those above it; returns the ones that were missing.
fn make_dirs(dir: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<_> = dir
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .map(Path::to_owned)
        .collect();
    fs::create_dir_all(dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::NotDirectory(dir.display().to_string()),
        _ => Error::io(format!("cannot create {}", dir.display()))(error),
    })?;
    Ok(missing)
}

/// Puts a complete and synced file in place.
fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    let put = || {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let mut temp = tempfile::Builder::new()
            .permissions(mode)
            .tempfile_in(dir)?;
        temp.write_all(text.as_bytes())?;
        temp.as_file().sync_all()?;
        temp.into_temp_path().persist(&path)?;
        Ok(())
    };
    put().map_err(Error::io(format!("cannot write {}", path.display())))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io(format!("cannot sync {}", dir.display())))
}
