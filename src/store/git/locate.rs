//! Where a repository is, and what Git's configuration says of it.
//!
//! gix opens any. Most are plain: all in one folder, of the user's own, with a
//! configuration that includes nothing and that no variable overrides. Of those
//! the same files are read here, at a fraction of what opening one costs a small
//! command; whatever is not plain, or fails, is left to gix.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::config::file::{Metadata, includes, init};
use gix::config::{File, Source};
use gix::discover::{self, repository, upwards};
use gix::sec::Trust;

use crate::model::HashKind;
use crate::store::{Error, Result};

use super::absolute;

/// What says where things are, instead of a repository's own files. `discover`
/// minds those that say where to look.
const OVERRIDES: [&str; 2] = ["GIT_WORK_TREE", "GIT_CONFIG_COUNT"];

/// A repository that was found.
pub(super) struct Located {
    pub git_dir: PathBuf,
    /// What linked work trees have in common.
    pub common_dir: PathBuf,
    pub work_tree: Option<PathBuf>,
    pub hash: HashKind,
    /// The system's, the user's and its own, in this order.
    pub config: Arc<File>,
}

/// Finds the repository at a path, or with `discover` at or above it.
pub(super) fn locate(path: &Path, discover: bool) -> Result<Located> {
    match plain(path, discover) {
        Some(found) => Ok(found),
        None => any(path, discover),
    }
}

/// How gix is to open a repository.
pub(super) fn options() -> gix::open::Options {
    gix::open::Options::default().bail_if_untrusted(true)
}

fn above() -> upwards::Options<'static> {
    upwards::Options::default().apply_environment()
}

fn plain(path: &Path, discover: bool) -> Option<Located> {
    if OVERRIDES
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return None;
    }
    let found = if discover {
        discover::upwards_opts(path, above()).ok()?.0
    } else {
        at(path)?
    };
    let (git_dir, work_tree) = match found {
        repository::Path::WorkTree(folder) => (folder.join(discover::DOT_GIT_DIR), Some(folder)),
        repository::Path::Repository(folder) => (folder, None),
        repository::Path::LinkedWorkTree { .. } => return None,
    };
    let git_dir = absolute(&git_dir).ok()?;
    let own = |path: &Path| Trust::from_path_ownership(path).is_ok_and(|it| it == Trust::Full);
    let trusted = own(&git_dir) && work_tree.as_deref().is_none_or(own);
    if !trusted || git_dir.join("commondir").exists() {
        return None;
    }
    let config = configuration(&git_dir)?;
    let bare = config.boolean("core.bare").ok()?;
    let work_tree = match work_tree {
        Some(folder) => (bare != Some(true)).then_some(folder),
        // It may have one for all that.
        None if bare == Some(false) => return None,
        None => None,
    };
    Some(Located {
        common_dir: git_dir.clone(),
        git_dir,
        work_tree,
        hash: hash(&config)?,
        config: Arc::new(config),
    })
}

/// Returns the repository a path names itself, as gix looks for it.
fn at(path: &Path) -> Option<repository::Path> {
    let inside = (!path.ends_with(discover::DOT_GIT_DIR)).then(|| path.join(discover::DOT_GIT_DIR));
    let found = inside.and_then(|path| Some((discover::is_git(&path).ok()?, path)));
    let (kind, path) = match found {
        Some(found) => found,
        None => (discover::is_git(path).ok()?, path.to_owned()),
    };
    repository::Path::from_dot_git_dir(path, kind, Path::new("/"))
}

/// Reads the system's, the user's and the repository's own configuration, where
/// those files say everything.
fn configuration(git_dir: &Path) -> Option<File> {
    let sources = [Source::System, Source::Git, Source::User];
    let mut files = Vec::with_capacity(sources.len() + 1);
    for source in sources {
        let path = source.storage_location(&mut gix::path::env::var);
        files.extend(path.map(|path| Metadata::from(source).at(path)));
    }
    files.push(Metadata::from(Source::Local).at(git_dir.join("config")));
    let mut files = files.into_iter().map(|file| file.with(Trust::Full));
    let options = init::Options {
        includes: includes::Options::no_follow(),
        lossy: true,
        ignore_io_errors: false,
    };
    let config = File::from_paths_metadata_buf(&mut files, &mut Vec::new(), false, options);
    let config = config.ok()?.unwrap_or_default();
    let elsewhere = has(&config, "include")
        || has(&config, "includeIf")
        || config.string("core.worktree").is_some()
        || config.string("core.precomposeUnicode").is_some()
        || config.string("extensions.worktreeConfig").is_some();
    (!elsewhere).then_some(config)
}

/// Tells whether there is a section of this name.
fn has(config: &File, section: &str) -> bool {
    let mut found = config.sections_by_name(section).into_iter().flatten();
    found.next().is_some()
}

/// Returns what objects are named by, where the format is one of those we know.
fn hash(config: &File) -> Option<HashKind> {
    let version = config.integer("core.repositoryFormatVersion").ok()?;
    match version.unwrap_or(0) {
        0 if has(config, "extensions") => None,
        0 => Some(HashKind::Sha1),
        1 => match config.string("extensions.objectFormat") {
            None => Some(HashKind::Sha1),
            Some(format) if format.eq_ignore_ascii_case(b"sha1") => Some(HashKind::Sha1),
            Some(format) if format.eq_ignore_ascii_case(b"sha256") => Some(HashKind::Sha256),
            Some(_) => None,
        },
        _ => None,
    }
}

fn any(path: &Path, discover: bool) -> Result<Located> {
    // Only its configuration is read; objects have a store of their own.
    let options = || options().object_store_slots(gix::odb::store::init::Slots::Given(0));
    let found = if discover {
        let mapping = gix::sec::trust::Mapping {
            full: options(),
            reduced: options(),
        };
        gix::ThreadSafeRepository::discover_opts(path, above(), mapping)
    } else {
        options().open(path)
    };
    let repo = found.map_err(|error| unopened(path, error))?;
    let repo = repo.to_thread_local();
    let hash = match repo.object_hash() {
        gix::hash::Kind::Sha256 => HashKind::Sha256,
        _ => HashKind::Sha1,
    };
    Ok(Located {
        git_dir: absolute(repo.git_dir())?,
        common_dir: absolute(repo.common_dir())?,
        work_tree: repo.workdir().map(absolute).transpose()?,
        hash,
        config: Arc::new(repo.config_snapshot().plumbing().clone()),
    })
}

fn unopened(path: &Path, error: gix::Error) -> Error {
    let shown = path.display();
    if error.is_permission_denied() && error.downcast_any_ref::<std::io::Error>().is_none() {
        return Error::Denied {
            message: format!("the repository at {shown} belongs to another user"),
            hint: format!("to trust it: git config --global --add safe.directory {shown}"),
        };
    }
    if error.is_not_found() {
        return Error::NotFound(format!("a repository at {shown}"));
    }
    Error::failed(format!("cannot open the repository at {shown}"))(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn git(folder: &Path, line: &str) {
        let mut git = Command::new("git");
        let done = git.args(line.split(' ')).current_dir(folder).output();
        let done = done.unwrap();
        assert!(done.status.success(), "git {line}: {done:?}");
    }

    type Found = (PathBuf, PathBuf, Option<PathBuf>, HashKind, Option<String>);

    fn told(found: &Located) -> Found {
        let shared = found.config.string("core.sharedRepository");
        (
            found.git_dir.clone(),
            found.common_dir.clone(),
            found.work_tree.clone(),
            found.hash,
            shared.map(|value| value.to_string()),
        )
    }

    #[test]
    fn a_plain_repository_is_found_as_gix_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        git(&top, "init -q --bare bare.git");
        git(&top, "init -q --bare bare");
        git(&top, "init -q --bare --object-format=sha256 sha256.git");
        git(&top, "init -q --shared=group work");
        git(&top, "init -q full");
        fs::write(top.join("full/file"), "").unwrap();
        git(&top.join("full"), "add file");
        git(&top, "init -q odd");
        git(&top.join("odd"), "config core.bare true");
        fs::create_dir_all(top.join("full/a/b")).unwrap();
        for (place, discover) in [
            ("bare.git", false),
            ("bare", false),
            ("sha256.git", false),
            ("work", false),
            ("work/.git", false),
            ("full", false),
            ("full/.git", false),
            ("odd", false),
            ("full/a/b", true),
            ("bare/refs", true),
            ("work", true),
        ] {
            let path = top.join(place);
            let ours = plain(&path, discover).unwrap_or_else(|| panic!("{place} is plain"));
            assert_eq!(told(&ours), told(&any(&path, discover).unwrap()), "{place}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_gix() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        git(top, "init -q main");
        let author = "-c user.name=a -c user.email=b";
        git(
            &top.join("main"),
            &format!("{author} commit -q --allow-empty -m x"),
        );
        git(&top.join("main"), "worktree add -q ../linked");
        let settings = [
            ("include", "include.path other"),
            ("onbranch", "includeIf.onbranch:main.path other"),
            ("moved", "core.worktree /"),
            ("worktrees", "extensions.worktreeConfig true"),
            ("later", "core.repositoryFormatVersion 2"),
            ("old", "extensions.objectFormat sha1"),
            ("inside", "core.bare false"),
        ];
        for (name, setting) in settings {
            let bare = if name == "inside" { " --bare" } else { "" };
            git(top, &format!("init -q{bare} {name}"));
            git(&top.join(name), &format!("config {setting}"));
        }
        let names = settings.iter().map(|(name, _)| *name);
        for name in names.chain(["linked", "nowhere", "main/.git/worktrees/linked"]) {
            assert!(plain(&top.join(name), false).is_none(), "{name}");
        }
        fs::write(top.join("main/.git/config"), "[core\n").unwrap();
        assert!(plain(&top.join("main"), false).is_none(), "a broken file");
    }
}
