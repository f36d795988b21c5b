//! From what the user calls a store to a client of it (dk(1), STORES).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::client::local::{self, Local};
use crate::client::remote::{self, Remote};
use crate::client::{Client, Error};
use crate::commands::source::Life;
use crate::commands::{Global, Session};
use crate::model::Kind;
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

/// How long somebody who completes a word waits for a server.
const QUICKLY: Duration = Duration::from_secs(1);

/// Where a store is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A repository.
    Path(PathBuf),
    /// The nearest repository at or above a folder.
    Above(PathBuf),
    /// A server, by its URL.
    Server(String),
}

/// Opens the store the command line, the environment or the current folder names.
pub(super) async fn session(ui: &Ui, global: &Global) -> anyhow::Result<Session> {
    let place = locate(global.store.as_deref())?;
    let (client, store) = match &place {
        Place::Server(url) => (serve(url, global.durability).await?, url.into()),
        Place::Path(path) => {
            let client = open(&place, path, global.durability)?;
            let path = std::path::absolute(path)
                .with_context(|| format!("cannot tell where {} is", path.display()))?;
            (client, path.into())
        }
        Place::Above(path) => {
            let client = open(&place, path, global.durability)?;
            let store = client.info().await?.url.into();
            (client, store)
        }
    };
    Ok(Session {
        client,
        ui: ui.clone(),
        store,
        author: global.author.clone(),
        life: Life::new().context("cannot make a pipe")?,
    })
}

/// Opens the store for somebody who completes a word: quickly, or not at all.
pub(super) async fn quietly(store: Option<&OsStr>) -> Option<Arc<dyn Client>> {
    match locate(store).ok()? {
        Place::Server(url) => {
            let connected = serve(&url, Durability::Strict);
            tokio::time::timeout(QUICKLY, connected).await.ok()?.ok()
        }
        place => {
            let (Place::Path(path) | Place::Above(path)) = &place else {
                return None;
            };
            open(&place, path, Durability::Strict).ok()
        }
    }
}

/// Connects to a server.
async fn serve(url: &str, durability: Durability) -> anyhow::Result<Arc<dyn Client>> {
    if durability != Durability::Strict {
        let refused = Usage::new(format!("--durability is not for {url} to be told"))
            .hint("what a change survives is up to the server that makes it");
        return Err(refused.into());
    }
    let options = remote::Options {
        identity: Some(local::user().map_err(|error| Exit::with(1, error))?),
        ..remote::Options::default()
    };
    let remote = Remote::connect(url, options).await;
    Ok(Arc::new(remote.map_err(|error| Exit::with(1, error))?))
}

fn open(place: &Place, path: &Path, durability: Durability) -> anyhow::Result<Arc<dyn Client>> {
    let local = local(place, path, durability).map_err(|error| Exit::with(1, error))?;
    Ok(Arc::new(local))
}

fn local(place: &Place, path: &Path, durability: Durability) -> Result<Local, Error> {
    let discover = matches!(place, Place::Above(_));
    let options = local::Options {
        durability: match durability {
            Durability::Strict => local::Durability::Strict,
            Durability::None => local::Durability::None,
        },
        discover,
        alone: true,
    };
    Local::open(path, options).map_err(|error| match error.kind() {
        Kind::NotFound if discover => Error::Other {
            kind: Kind::NotFound,
            message: format!(
                "no store: {} is in no Git repository, and neither -C nor DK_STORE names one",
                path.display()
            ),
            hint: Some("name a store with -C, or make one with 'dk init'".into()),
            source: None,
        },
        Kind::NotFound => Error::Other {
            kind: Kind::NotFound,
            message: format!("no store: there is no Git repository at {}", path.display()),
            hint: Some(format!("to make one: dk init {}", path.display())),
            source: None,
        },
        _ => error,
    })
}

/// Removes what writes under way have put on disk so far, at the end of a
/// process that a signal ends in the middle of them.
pub fn abandon() {
    local::abandon();
}

/// Returns the folder of the store on this machine, and whether it is looked
/// for above it.
pub(super) fn folder(named: Option<&OsStr>) -> anyhow::Result<(PathBuf, bool)> {
    Ok(match locate(named)? {
        Place::Path(path) => (path, false),
        Place::Above(path) => (path, true),
        // Says that it is none on this machine.
        Place::Server(url) => (path(OsStr::new(&url))?, false),
    })
}

/// Returns the place of the store.
fn locate(named: Option<&OsStr>) -> anyhow::Result<Place> {
    if let Some(store) = named.filter(|store| !store.is_empty()) {
        return match server(store) {
            Some(url) => Ok(Place::Server(url)),
            None => Ok(Place::Path(path(store)?)),
        };
    }
    if let Some(folder) = std::env::var_os("GIT_DIR").filter(|folder| !folder.is_empty()) {
        return Ok(Place::Path(folder.into()));
    }
    let current = std::env::current_dir().context("cannot tell the current folder")?;
    Ok(Place::Above(current))
}

/// Returns the URL of a server, where the store is one.
fn server(store: &OsStr) -> Option<String> {
    let text = store.to_str()?;
    let served = ["tcp://", "unix://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    served.then(|| text.to_owned())
}

/// Returns the path in what `-C` or `DK_STORE` say of a store on this machine.
pub(super) fn path(store: &OsStr) -> anyhow::Result<PathBuf> {
    if let Some(path) = store.as_bytes().strip_prefix(b"file://") {
        return Ok(Path::new(OsStr::from_bytes(path)).into());
    }
    let text = store.to_string_lossy();
    let Some((scheme, _)) = text.split_once("://") else {
        return Ok(Path::new(store).into());
    };
    let refuse = |why: &str| {
        Usage::new(format!("cannot open {text}: {why}")).hint(
            "name a Git repository by its path, or a server as tcp://HOST:PORT or unix:///PATH",
        )
    };
    match scheme {
        "tcp" | "unix" => Err(refuse("a path on this machine is needed here").into()),
        "vsock" | "tls" => {
            let why = format!("{scheme} is not supported by this version of dk");
            Err(Exit::with(1, refuse(&why)).into())
        }
        _ => Err(refuse("no store is named that way").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        let at = |store: &str| path(OsStr::new(store));
        assert_eq!(at("a/b").expect("a path"), Path::new("a/b"));
        assert_eq!(at("file:///a").expect("a path"), Path::new("/a"));
        for url in ["tcp://db", "unix:///run/dk", "tls://db", "gopher://x"] {
            assert!(at(url).is_err(), "{url}");
        }
        for url in ["tcp://db", "unix:///run/dk"] {
            assert_eq!(server(OsStr::new(url)).as_deref(), Some(url));
        }
        for place in ["tls://db", "a/b", "./tcp://x", "file:///a"] {
            assert_eq!(server(OsStr::new(place)), None, "{place}");
        }
    }
}
