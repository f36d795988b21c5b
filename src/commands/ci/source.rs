//! The repositories that are tested: on this machine as they are, others in a
//! mirror that is fetched into.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::Semaphore;

use crate::ci::config::Config;
use crate::ci::key::digest_of;
use crate::ci::{Place, Sources, Target};
use crate::client::local::{self, Local};
use crate::client::{Client, Error, Result};
use crate::forge::{Repo, Sha};
use crate::model::{HashKind, Kind, ObjectId};
use crate::ui::Exit;

/// All of them.
pub(super) struct Repositories(BTreeMap<Repo, Repository>);

struct Repository {
    client: Arc<Local>,
    /// What it is called in messages.
    shown: String,
    mirror: Option<Mirror>,
}

/// What a mirror follows.
struct Mirror {
    url: String,
    /// One fetch at a time.
    turn: Semaphore,
}

/// Tells whether a source is somewhere else: a URL, or `HOST:PATH` as ssh has
/// it.
fn is_url(source: &str) -> bool {
    let host = |host: &str| !host.is_empty() && !host.contains('/');
    source.contains("://") || source.split_once(':').is_some_and(|(name, _)| host(name))
}

impl Repositories {
    /// Opens the source of every project. Relative paths are from `base`;
    /// mirrors are in `cache`.
    pub(super) fn open(config: &Config, base: &Path, cache: &Path) -> anyhow::Result<Self> {
        let mut repositories = BTreeMap::new();
        for project in &config.projects {
            let source = &project.source;
            let (path, mirror) = if is_url(source) {
                let name = digest_of(source.as_bytes());
                let path = cache.join("sources").join(format!("{name}.git"));
                make(&path).with_context(|| format!("cannot mirror {source}"))?;
                let mirror = Mirror {
                    url: source.clone(),
                    turn: Semaphore::new(1),
                };
                (path, Some(mirror))
            } else {
                (base.join(source), None)
            };
            let options = local::Options {
                discover: false,
                ..local::Options::default()
            };
            let client = Local::open(&path, options)
                .map_err(|error| Exit::with(1, error))
                .with_context(|| format!("cannot open the source of {}", project.repo))?;
            let repository = Repository {
                client: Arc::new(client),
                shown: source.clone(),
                mirror,
            };
            repositories.insert(project.repo.clone(), repository);
        }
        Ok(Self(repositories))
    }
}

fn make(path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Local::init(path, HashKind::Sha1).map_err(|error| Exit::with(1, error))?;
    Ok(())
}

impl Repository {
    async fn has(&self, commit: &ObjectId) -> Result<bool> {
        match self.client.commit(commit).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Mirror {
    /// Fetches what a target is.
    async fn fetch(&self, client: &Local, from: &Place) -> Result<()> {
        let (theirs, ours) = match from {
            Place::Pr(number) => (format!("pull/{number}/head"), format!("pr/{number}")),
            Place::Ref(name) => {
                let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
                (name.clone(), name)
            }
        };
        let refspec = format!("+refs/{theirs}:refs/dk-ci/{ours}");
        let refspecs = [refspec];
        client.fetch(&self.url, &refspecs, Arc::new(())).await?;
        Ok(())
    }
}

#[async_trait::async_trait]
impl Sources for Repositories {
    async fn get(&self, from: &Target, sha: &Sha) -> Result<Arc<dyn Client>> {
        let missing = |place: &str| Error::NotFound {
            what: format!("commit {sha} of {from} in {place}"),
        };
        let repository = self.0.get(&from.repo).ok_or_else(|| Error::NotFound {
            what: format!("a source of {}", from.repo),
        })?;
        let shown = &repository.shown;
        let commit = ObjectId::from_hex(sha.as_bytes()).ok_or_else(|| missing(shown))?;
        if repository.has(&commit).await? {
            return Ok(repository.client.clone());
        }
        let Some(mirror) = &repository.mirror else {
            return Err(missing(shown));
        };
        let _turn = mirror.turn.acquire().await;
        // Whoever was before may have brought it.
        if !repository.has(&commit).await? {
            mirror.fetch(&repository.client, &from.place).await?;
        }
        match repository.has(&commit).await? {
            true => Ok(repository.client.clone()),
            false => Err(missing(shown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths() {
        for url in ["https://x/y.git", "git@github.com:me/app", "file:///srv/x"] {
            assert!(is_url(url), "{url}");
        }
        for path in ["/srv/x", "../x", "x.git", "./a:b"] {
            assert!(!is_url(path), "{path}");
        }
    }
}
