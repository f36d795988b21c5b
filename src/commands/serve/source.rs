//! The store a server serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::client;
use crate::commands::{Global, open};
use crate::model::HashKind;
use crate::model::failure::Failure;
use crate::store::engine::{Durability, Engine, Repository as _};
use crate::store::git::Git;
use crate::store::memory::Memory;
use crate::store::read_only::ReadOnly;
use crate::store::{self, Store};
use crate::ui::{Exit, Usage};

/// Which store is asked for.
pub struct Wanted {
    pub memory: bool,
    /// Named on the command line of `dk serve`: made if there is none.
    pub named: Option<PathBuf>,
    pub read_only: bool,
}

/// Opens it; also returns what to call it.
pub fn open(global: &Global, wanted: Wanted) -> anyhow::Result<(Arc<Store>, String)> {
    let (engine, shown): (Arc<dyn Engine>, String) = if wanted.memory {
        (Arc::new(Memory::new(HashKind::Sha1)), "memory".into())
    } else {
        let git = repository(global, &wanted)?;
        let shown = git.path().display().to_string();
        (Arc::new(git), shown)
    };
    let engine = match wanted.read_only {
        true => Arc::new(ReadOnly(engine)),
        false => engine,
    };
    Ok((Arc::new(Store::new(engine)), shown))
}

fn repository(global: &Global, wanted: &Wanted) -> anyhow::Result<Git> {
    let durability = match global.durability {
        open::Durability::Strict => Durability::Strict,
        open::Durability::None => Durability::None,
    };
    let Some(path) = &wanted.named else {
        let (path, discover) = open::folder(global.store.as_deref())?;
        return Git::open(&path, durability, discover).map_err(|error| {
            let hint = "name one: dk serve STORE makes it if it is not there; or use --memory";
            match error {
                store::Error::NotFound(_) => {
                    let text =
                        format!("no store: there is no Git repository at {}", path.display());
                    Exit::with(1, Usage::new(text).hint(hint)).into()
                }
                error => failed(error, "open", &path),
            }
        });
    };
    let path = &open::folder(Some(path.as_os_str()))?.0;
    let git = match Git::open(path, durability, false) {
        Err(store::Error::NotFound(_)) if !wanted.read_only => {
            Git::init(path, HashKind::Sha1)
                .map_err(|error| failed(error, "make a store at", path))?;
            Git::open(path, durability, false)
        }
        opened => opened,
    };
    let git = git.map_err(|error| failed(error, "open", path))?;
    if !wanted.read_only {
        adopt(&git, path)?;
    }
    Ok(git)
}

/// Says what could not be done, and what to do about it; always with status 1.
fn failed(error: store::Error, verb: &str, path: &Path) -> anyhow::Error {
    let error = client::Error::from(Failure::from(error));
    let what = format!("cannot {verb} {}", path.display());
    Exit::with(1, anyhow::Error::new(error).context(what)).into()
}

/// DataKit kept its repositories in `PATH/.git`, with no work tree beside it.
/// To Git, `HEAD`'s branch is checked out in such a folder, and dk would refuse
/// to move it; so it is told once that there is nothing to lose.
fn adopt(git: &Git, path: &Path) -> anyhow::Result<()> {
    const KEY: &str = "dk.denyCurrentBranch";
    let mut beside = std::fs::read_dir(path)
        .with_context(|| format!("cannot list {}", path.display()))?
        .flatten()
        .filter(|entry| entry.file_name() != ".git");
    let alone = path.join(".git/HEAD").exists()
        && !path.join(".git/index").exists()
        && beside.next().is_none();
    if alone && !git.is_read_only() && git.config(KEY)?.is_none() {
        tracing::info!(target: "serve", "{} has no work tree: {KEY} is set to ignore", path.display());
        git.set_config(KEY, "ignore")?;
    }
    Ok(())
}
