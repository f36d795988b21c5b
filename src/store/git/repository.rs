//! What only a Git repository on disk can do.
//!
//! Configuration is read anew each time: others change it. Where dk changes it,
//! the text keeps its shape, under Git's own lock on the file.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::model::ObjectId;
use crate::model::request::{Collected, Progress, RemoteInfo};
use crate::store::engine::{Advertised, Durability, Engine as _, ObjectKind, Repository};
use crate::store::{Error, Result};

use super::folders::sync_dir;
use super::locate::{locate, options};
use super::{Git, fetch, identity, programs, remotes};

/// How many tags of tags are followed.
const MAX_TAGS: usize = 32;

impl Git {
    /// Opens the repository with its configuration as it is now.
    pub(super) fn reopen(&self) -> Result<gix::Repository> {
        options()
            .open(&self.refs.git_dir)
            .map(|repo| repo.to_thread_local())
            .map_err(Error::failed(format!(
                "cannot open {}",
                self.path.display()
            )))
    }

    /// Returns the configuration: what was read a moment ago at the opening, else
    /// as it is now.
    fn configured(&self) -> Result<Arc<gix::config::File>> {
        const MOMENT: Duration = Duration::from_secs(1);
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some((at, config)) if at.elapsed() < MOMENT => Ok(Arc::clone(config)),
            _ => Ok(locate(&self.refs.git_dir, false)?.config),
        }
    }

    /// Changes the repository's own configuration file.
    pub(super) fn edit_config(
        &self,
        edit: impl FnOnce(&mut gix::config::File) -> Result<()>,
    ) -> Result<()> {
        self.refs.writable()?;
        let path = self.refs.common_dir.join("config");
        // Git follows a symbolic link and changes the file it leads to.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let failed = |what| Error::io(format!("cannot {what} {}", path.display()));
        let owner = self.refs.locks.owner()?;
        let _lock = self.refs.lock_file(&owner, &path, Vec::new())?;
        let (text, permissions) = match fs::read(&path) {
            Ok(text) => {
                let file = fs::metadata(&path).map_err(failed("read"))?;
                (text, Some(file.permissions()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
            Err(error) => return Err(failed("read")(error)),
        };
        let meta = gix::config::file::Metadata::from(gix::config::Source::Local);
        let mut config = gix::config::File::from_bytes_no_includes(&text, meta, Default::default())
            .map_err(|error| {
                Error::Invalid(format!("{} is no configuration: {error}", path.display()))
            })?;
        edit(&mut config)?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let staged = self.refs.locks.stage(&owner, config.to_bstring().into())?;
        if let Some(permissions) = permissions {
            // Credentials may be in it.
            staged
                .set_permissions(permissions)
                .map_err(failed("write"))?;
        }
        staged.put(&path).map_err(failed("write"))?;
        match path.parent() {
            Some(dir) if self.refs.durability == Durability::Strict => {
                sync_dir(dir).map_err(failed("sync"))
            }
            _ => Ok(()),
        }
    }
}

/// Takes a key apart: a section, perhaps a subsection, and a name.
fn known(key: &str) -> Result<gix::config::KeyRef<'_>> {
    gix::config::KeyRef::parse_unvalidated(key.into())
        .filter(|key| !key.section_name.is_empty() && !key.value_name.is_empty())
        .ok_or_else(|| Error::Invalid(format!("{key:?} is not a configuration key")))
}

impl Repository for Git {
    fn path(&self) -> &Path {
        &self.path
    }

    fn identity(&self) -> Result<(Option<String>, Option<String>)> {
        identity::known(|name, email| {
            let config = self.configured()?;
            let text = |key| identity::filled(&config.string(key)?.to_string());
            Ok((text(name), text(email)))
        })
    }

    fn peel(&self, name: &str) -> Result<Option<ObjectId>> {
        let Some(mut id) = self.refs.resolve(name.as_bytes())?.1 else {
            return Ok(None);
        };
        let mut buffer = Vec::new();
        for _ in 0..MAX_TAGS {
            match self.header(&id)? {
                Some((ObjectKind::Commit, _)) => return Ok(Some(id)),
                Some((ObjectKind::Tag, _)) => {}
                _ => return Ok(None),
            }
            self.find(&id, &mut buffer)?;
            let line = buffer.split(|b| *b == b'\n').next().unwrap_or_default();
            match line.strip_prefix(b"object ").and_then(ObjectId::from_hex) {
                Some(target) => id = target,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    fn id(&self) -> Result<String> {
        if let Some(id) = self.id.get() {
            return Ok(id.clone());
        }
        let id = match self.config("dk.id")? {
            Some(id) => id,
            None => {
                let folder = &self.refs.common_dir;
                let found = fs::metadata(folder)
                    .map_err(Error::io(format!("cannot look at {}", folder.display())))?;
                format!("{:x}-{:x}", found.dev(), found.ino())
            }
        };
        Ok(self.id.get_or_init(|| id).clone())
    }

    fn config(&self, key: &str) -> Result<Option<String>> {
        let value = self.configured()?.string(known(key)?);
        Ok(value.map(|value| value.to_string()))
    }

    fn set_config(&self, key: &str, value: &str) -> Result<()> {
        let known = known(key)?;
        self.edit_config(|config| {
            config
                .set_raw_value(known, value)
                .map(drop)
                .map_err(|error| Error::Invalid(format!("cannot set {key}: {error}")))
        })
    }

    fn hide_refs(&self, prefix: &str) -> Result<()> {
        const KEY: &str = "transfer.hideRefs";
        let hidden = self.configured()?.strings(KEY);
        if hidden.is_some_and(|hidden| hidden.iter().any(|value| value == prefix)) {
            return Ok(());
        }
        self.edit_config(|config| {
            let written = || Error::failed("cannot set transfer.hideRefs");
            let mut section = config.new_section("transfer", None).map_err(written())?;
            section.push("hideRefs", prefix).map_err(written())?;
            Ok(())
        })
    }

    fn remotes(&self) -> Result<Vec<RemoteInfo>> {
        Ok(remotes::list(&self.reopen()?))
    }

    fn add_remote(&self, name: &str, url: &str) -> Result<()> {
        remotes::add(self, name, url)
    }

    fn remove_remote(&self, name: &str) -> Result<()> {
        remotes::remove(self, name)
    }

    fn fetch(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: &dyn Progress,
    ) -> Result<Vec<Advertised>> {
        self.refs.writable()?;
        fetch::fetch(self, remote, refspecs, progress)
    }

    fn push(&self, remote: &str, refspecs: &[String], progress: &dyn Progress) -> Result<()> {
        programs::push(self, remote, refspecs, progress)
    }

    fn gc(&self, dry_run: bool, progress: &dyn Progress) -> Result<Collected> {
        programs::gc(self, dry_run, progress)
    }

    fn all_refs(&self) -> Result<Vec<(Vec<u8>, ObjectId)>> {
        self.refs.all()
    }
}
