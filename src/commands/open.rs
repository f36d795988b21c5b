//! From what the user calls a store to a client of it (dk(1), STORES).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::client::Client;
use crate::commands::{Global, Session};
use crate::ui::{Exit, Ui, Usage};

/// What an acknowledged change survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// Power loss
    #[default]
    Strict,
    /// A crash of dk, but not of the machine
    None,
}

/// Opens the store the command line, the environment or the current folder names.
pub(super) async fn session(ui: &Ui, global: &Global) -> anyhow::Result<Session> {
    let store = locate(global.store.as_deref())?;
    let client = client(&store, global.durability)
        .await
        .map_err(|error| Exit::with(1, error))?;
    Ok(Session {
        client,
        ui: ui.clone(),
        store: store.into(),
        author: global.author.clone(),
    })
}

/// Returns a client of the repository at `path`.
pub(super) async fn client(path: &Path, durability: Durability) -> anyhow::Result<Arc<dyn Client>> {
    let _ = durability;
    anyhow::bail!("cannot open {}", path.display())
}

/// Returns the repository's path.
pub(super) fn locate(named: Option<&OsStr>) -> anyhow::Result<PathBuf> {
    if let Some(store) = named.filter(|store| !store.is_empty()) {
        return at(store);
    }
    if let Some(folder) = std::env::var_os("GIT_DIR").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let current = std::env::current_dir().context("cannot tell the current folder")?;
    discover(&current, std::env::var_os("GIT_CEILING_DIRECTORIES")).ok_or_else(|| {
        let error = Usage::new(format!(
            "no store: {} is in no Git repository, and neither -C nor DK_STORE names one",
            current.display()
        ))
        .hint("name a store with -C, or make one with 'dk init'");
        Exit::with(1, error).into()
    })
}

/// Returns the path in what `-C` or `DK_STORE` say.
fn at(store: &OsStr) -> anyhow::Result<PathBuf> {
    let text = store.to_string_lossy();
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(store.into());
    };
    match scheme {
        "file" => Ok(rest.into()),
        "tcp" | "unix" | "vsock" | "tls" => {
            let error = Usage::new(format!(
                "cannot open {text}: servers are not supported by this version of dk"
            ))
            .hint("name a Git repository on this machine by its path");
            Err(Exit::with(1, error).into())
        }
        _ => Err(
            Usage::new(format!("cannot open {text}: no store is named that way"))
                .hint("name a Git repository by its path")
                .into(),
        ),
    }
}

/// Returns the nearest repository at or above a folder; folders at or above
/// one that `ceilings` lists are not looked into, except `from` itself.
fn discover(from: &Path, ceilings: Option<OsString>) -> Option<PathBuf> {
    let ceilings: Vec<PathBuf> = ceilings
        .iter()
        .flat_map(std::env::split_paths)
        .filter(|path| path.is_absolute())
        .collect();
    for folder in from.ancestors() {
        if folder != from && ceilings.iter().any(|ceiling| ceiling == folder) {
            return None;
        }
        if folder.join(".git").exists() || is_bare(folder) {
            return Some(folder.into());
        }
    }
    None
}

/// Tells whether a folder looks like a repository's own.
fn is_bare(folder: &Path) -> bool {
    folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_repository_wins() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| root.path().join(name);
        for folder in [
            "a/.git",
            "a/b/c",
            "a/bare/objects",
            "a/bare/refs",
            "a/bare/x",
        ] {
            std::fs::create_dir_all(path(folder)).expect("a folder");
        }
        std::fs::write(path("a/bare/HEAD"), "").expect("a file");
        assert_eq!(discover(&path("a/b/c"), None), Some(path("a")));
        assert_eq!(discover(&path("a"), None), Some(path("a")));
        assert_eq!(discover(&path("a/bare/x"), None), Some(path("a/bare")));
        let ceiling = Some(path("a").into_os_string());
        assert_eq!(discover(&path("a/b/c"), ceiling.clone()), None);
        assert_eq!(discover(&path("a"), ceiling), Some(path("a")));
    }

    #[test]
    fn urls_are_told_from_paths() {
        assert_eq!(at(OsStr::new("a/b")).expect("a path"), Path::new("a/b"));
        assert_eq!(
            at(OsStr::new("file:///a")).expect("a path"),
            Path::new("/a")
        );
        for url in ["tcp://db", "unix:///run/dk", "gopher://x"] {
            assert!(at(OsStr::new(url)).is_err(), "{url}");
        }
    }
}
