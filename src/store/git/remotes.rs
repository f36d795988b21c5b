//! Remotes, as Git's configuration has them.

use std::fs;
use std::path::PathBuf;

use gix::bstr::{BStr, ByteSlice as _};
use gix::remote::Direction;

use crate::model::request::RemoteInfo;
use crate::model::{Signature, Time};
use crate::store::engine::{Expected, HeadMove, HeadName, MoveNote};
use crate::store::{Error, Result};

use super::Git;
use super::folders::prune_above;
use super::refs::{Refs, Value};

/// Returns the remote that a name, a URL or a path stands for, and the branch
/// of an old `URL#branch`.
pub(super) fn find<'repo>(
    git: &Git,
    repo: &'repo gix::Repository,
    name: &str,
) -> Result<(gix::Remote<'repo>, Option<String>)> {
    let failed = || Error::failed(format!("cannot use the remote {name}"));
    if repo.remote_names().contains(BStr::new(name)) {
        let remote = repo.find_remote(name).map_err(failed())?;
        // A relative path is one from the repository.
        if let Some(url) = remote.url(Direction::Fetch)
            && url.scheme == gix::url::Scheme::File
            && let path = PathBuf::from(url.path.to_str_lossy().as_ref())
            && path.is_relative()
        {
            let mut url = url.clone();
            url.path = git.path.join(path).display().to_string().into();
            return Ok((
                remote.with_url_without_url_rewrite(url).map_err(failed())?,
                None,
            ));
        }
        return Ok((remote, None));
    }
    let (url, branch) = match name.rsplit_once('#') {
        Some((url, branch)) if !url.is_empty() && !PathBuf::from(name).exists() => {
            (url, Some(branch.to_owned()))
        }
        _ => (name, None),
    };
    let remote = repo.remote_at(url).map_err(|error| {
        Error::Invalid(format!("{name} is neither a remote nor a URL: {error}"))
    })?;
    Ok((remote, branch))
}

/// Tells whether a remote of this name is configured.
pub(super) fn is_name(git: &Git, name: &str) -> Result<bool> {
    Ok(git.reopen()?.remote_names().contains(BStr::new(name)))
}

pub(super) fn list(repo: &gix::Repository) -> Vec<RemoteInfo> {
    let config = repo.config_snapshot();
    repo.remote_names()
        .into_iter()
        .map(|name| {
            let url = config.string(format!("remote.{name}.url").as_str());
            RemoteInfo {
                url: url.map_or_else(String::new, |url| url.to_string()),
                name: name.to_string(),
            }
        })
        .collect()
}

/// Adds a remote, with the lines `git remote add` writes.
pub(super) fn add(git: &Git, name: &str, url: &str) -> Result<()> {
    let legal = !name.starts_with('-')
        && HeadName::from_full(format!("refs/remotes/{name}/x").as_bytes()).is_some();
    if !legal {
        return Err(Error::Invalid(format!(
            "{name:?} is not a legal name for a remote"
        )));
    }
    if url.is_empty() || url.contains(['\n', '\0']) {
        return Err(Error::Invalid(format!("{url:?} is not a URL")));
    }
    if git.reopen()?.remote_names().contains(BStr::new(name)) {
        return Err(Error::Exists(format!("remote {name}")));
    }
    git.edit_config(|config| {
        let there = config
            .sections_by_name("remote")
            .is_some_and(|mut sections| {
                sections.any(|section| section.header().subsection_name() == Some(BStr::new(name)))
            });
        if there {
            // Somebody was faster.
            return Err(Error::Exists(format!("remote {name}")));
        }
        let written = || Error::failed(format!("cannot write the remote {name}"));
        let mut section = config.new_section("remote", name).map_err(written())?;
        section.push("url", url).map_err(written())?;
        let fetch = format!("+refs/heads/*:refs/remotes/{name}/*");
        section.push("fetch", fetch.as_str()).map_err(written())?;
        Ok(())
    })
}

/// Removes a remote: its configuration, what says that branches follow it, and
/// its remote-tracking refs.
pub(super) fn remove(git: &Git, name: &str) -> Result<()> {
    git.edit_config(|config| {
        let mut found = false;
        while config.remove_section("remote", name).is_some() {
            found = true;
        }
        if !found {
            return Err(Error::NotFound(format!("remote {name}")));
        }
        let branches: Vec<_> = config
            .sections_and_ids_by_name("branch")
            .map(|sections| sections.map(|(_, id)| id).collect())
            .unwrap_or_default();
        for id in branches {
            let Some(mut section) = config.section_mut_by_id(id) else {
                continue;
            };
            if section.value("remote").is_some_and(|remote| remote == name) {
                while section.remove("remote").is_some() {}
                while section.remove("merge").is_some() {}
            }
            if section
                .value("pushRemote")
                .is_some_and(|remote| remote == name)
            {
                while section.remove("pushRemote").is_some() {}
            }
            if section.num_values() == 0 {
                config.remove_section_by_id(id);
            }
        }
        Ok(())
    })?;
    git.refs.remove_below(&format!("refs/remotes/{name}/"))
}

impl Refs {
    /// Removes all refs whose names begin with `prefix`, symbolic ones as such.
    fn remove_below(&self, prefix: &str) -> Result<()> {
        let mut loose = Vec::new();
        self.walk(prefix.as_bytes(), &mut loose)?;
        let owner = self.locks.owner()?;
        for (name, value) in loose {
            if let Value::Symbolic(_) = value {
                let path = self.path(&name);
                let lock = self.lock_file(&owner, &path, Vec::new())?;
                // What it has become meanwhile is not what was to be removed.
                if self.loose(&name)? == Some(value) {
                    fs::remove_file(&path)
                        .map_err(Error::io(format!("cannot remove {}", path.display())))?;
                    self.drop_log(&name);
                }
                drop(lock);
                prune_above(&path, &name);
            }
        }
        let heads = self.heads(prefix)?.into_iter();
        let moves: Vec<HeadMove> = heads
            .map(|(name, id)| HeadMove {
                name,
                expected: Expected::Id(id),
                new: None,
            })
            .collect();
        let note = MoveNote {
            who: Signature {
                name: Vec::new(),
                email: Vec::new(),
                time: Time {
                    seconds: 0,
                    offset: 0,
                },
            },
            message: String::new(),
        };
        self.move_heads(&moves, &note, &mut || Ok(()))
    }
}
