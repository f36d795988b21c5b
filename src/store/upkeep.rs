//! What keeps a store in shape, and what only a Git repository on disk can do.

use std::time::Duration;

use crate::model::request::{Collected, Fault, Progress};
use crate::model::{Signature, State, Transaction};

use super::engine::Repository;
use super::{Error, Result, Store, fsck};

impl Store {
    /// Returns the repository below, or says that there is none.
    pub fn repository(&self) -> Result<&dyn Repository> {
        self.engine
            .repository()
            .ok_or_else(|| Error::Unsupported("this store is not a Git repository on disk".into()))
    }

    /// See `Client::gc`.
    pub fn gc(&self, dry_run: bool, progress: &dyn Progress, who: &Signature) -> Result<Collected> {
        let finished = |tx: &Transaction| matches!(tx.state, State::Committed(_));
        let dropped = self.tx_collect(Duration::MAX, dry_run, who)?;
        if !dry_run {
            self.drop_old_pins(who)?;
        }
        let mut collected = self.repository()?.gc(dry_run, progress)?;
        collected.transactions = dropped.iter().filter(|tx| finished(tx)).count() as u64;
        Ok(collected)
    }

    /// See `Client::fsck`.
    pub fn fsck(&self, progress: &dyn Progress) -> Result<Vec<Fault>> {
        let refs = match self.engine.repository() {
            Some(repository) => repository.all_refs()?,
            None => {
                let heads = self.engine.heads("refs/")?;
                heads
                    .into_iter()
                    .map(|(name, id)| (name.as_bytes().to_vec(), id))
                    .collect()
            }
        };
        fsck::fsck(&self.objects, &refs, progress)
    }
}
