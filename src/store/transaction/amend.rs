//! Looking at a transaction together with its ref, and changing what it says
//! of itself.

use crate::model::{ObjectId, Signature, Time, Transaction, TransactionId};
use crate::store::engine::HeadName;
use crate::store::objects::Fresh;
use crate::store::{Error, Result, Store};

use super::record::{PREFIX, id_of, transaction};

impl Store {
    /// Returns the names of the transactions in the store.
    pub fn transaction_ids(&self) -> Result<Vec<TransactionId>> {
        let heads = self.engine.heads(PREFIX)?;
        Ok(heads.iter().filter_map(|(name, _)| id_of(name)).collect())
    }

    /// Returns what a transaction's ref holds, which is another after every
    /// change of it; nothing where it is gone.
    pub fn transaction_ref(&self, id: &TransactionId) -> Result<Option<ObjectId>> {
        self.engine.head(&HeadName::transaction(id))
    }

    /// Returns a transaction, and what its ref held.
    pub fn transaction_with_ref(&self, id: &TransactionId) -> Result<(ObjectId, Transaction)> {
        let stored = self.load(id)?;
        Ok((stored.at, transaction(stored)))
    }

    /// As [`Store::transaction_with_ref`], where that needs no thread to wait on.
    pub fn quick_transaction(&self, id: &TransactionId) -> Option<(ObjectId, Transaction)> {
        let at = self.engine.quick_head(&HeadName::transaction(id))??;
        let stored = self.recent(id.clone(), at)?;
        Some((at, transaction(stored)))
    }

    /// Names another author. When it was begun stays.
    pub fn tx_author(
        &self,
        id: &TransactionId,
        author: &Signature,
        now: Time,
    ) -> Result<Transaction> {
        self.writable()?;
        self.change(id, now, &mut Fresh::default(), |stored, _| {
            let time = stored.meta.author.time;
            stored.meta.author = Signature {
                time,
                ..author.clone()
            };
            Ok(())
        })
    }

    /// Begins again from another commit, as long as nothing was edited.
    pub fn tx_base(&self, id: &TransactionId, base: &ObjectId, now: Time) -> Result<Transaction> {
        self.writable()?;
        let tree = self.objects.commit(base)?.tree;
        self.change(id, now, &mut Fresh::default(), |stored, _| {
            if stored.meta.edits > 0 || stored.meta.merge.is_some() {
                return Err(Error::Invalid(format!(
                    "transaction {id} was edited already: its base stays"
                )));
            }
            stored.meta.base = Some(*base);
            stored.meta.parents = vec![*base];
            stored.tree = tree;
            Ok(())
        })
    }
}
