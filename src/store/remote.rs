//! Fetching: objects come through the engine, refs move here.

use crate::model::request::{Fetched, Progress};
use crate::model::{ObjectId, Signature};

use super::engine::{Advertised, Expected, HeadMove};
use super::objects::Fresh;
use super::{Error, Result, Store, history};

impl Store {
    /// See `Client::fetch`.
    pub fn fetch(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: &dyn Progress,
        who: &Signature,
    ) -> Result<Vec<Fetched>> {
        self.writable()?;
        let repository = self.engine.repository().ok_or_else(|| {
            Error::Unsupported("this store cannot fetch: it is not a Git repository".into())
        })?;
        let found = repository.fetch(remote, refspecs, progress)?;
        found
            .into_iter()
            .map(|advertised| self.take(advertised, remote, who))
            .collect()
    }

    /// Moves the local ref a refspec named, forward only unless it is forced.
    fn take(&self, found: Advertised, remote: &str, who: &Signature) -> Result<Fetched> {
        let Some(name) = found.local else {
            return Ok(Fetched {
                remote: found.remote,
                id: found.id,
                local: None,
                rejected: None,
            });
        };
        let (before, rejected) = self.again(|| {
            let before = self.engine.head(&name)?;
            if before == Some(found.id) {
                return Ok((before, None));
            }
            if self.engine.is_checked_out(&name)? {
                return Ok((before, Some("it is checked out in a work tree".into())));
            }
            if let Some(old) = before
                && !found.force
                && !self.is_forward(&old, &found.id)?
            {
                return Ok((before, Some("not a fast-forward".into())));
            }
            let moves = [HeadMove {
                name: name.clone(),
                expected: before.map_or(Expected::Missing, Expected::Id),
                new: Some(found.id),
            }];
            self.swap(&moves, &Fresh::default(), who, &format!("fetch {remote}"))?;
            Ok((before, None))
        })?;
        Ok(Fetched {
            remote: found.remote,
            id: found.id,
            local: Some((name.as_bytes().to_vec(), before)),
            rejected,
        })
    }

    /// Tags and other objects that are no commits have no way forward.
    fn is_forward(&self, old: &ObjectId, new: &ObjectId) -> Result<bool> {
        match history::is_ancestor(&self.objects, old, new) {
            Err(Error::NotFound(_)) => Ok(false),
            result => result,
        }
    }
}
