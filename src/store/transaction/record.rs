//! A transaction as the store keeps it: reading and swapping its ref.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use crate::model::text::{Meta, read_meta, write_meta};
use crate::model::{Commit, ObjectId, Signature, State, Transaction, TransactionId};
use crate::store::cache::cache;
use crate::store::engine::{Expected, HeadMove, HeadName, ObjectKind};
use crate::store::objects::{Fresh, corrupt, write_commit};
use crate::store::{Error, Result, Store};

pub const PREFIX: &str = "refs/dk/tx/";

/// Transactions as they were stored or read last, by the commit that holds
/// them: such a commit never means anything else.
pub struct Recent(Cache<ObjectId, Arc<(Meta, ObjectId)>>);

impl Default for Recent {
    fn default() -> Self {
        Self(cache(RECENT, RECENT as u64, 4, UnitWeighter))
    }
}

/// Transactions kept in memory.
const RECENT: usize = 256;
/// One with more conflicts, or a longer message, is read each time.
const SMALL: usize = 4096;

impl Recent {
    fn get(&self, at: &ObjectId) -> Option<(Meta, ObjectId)> {
        self.0.get(at).map(|known| (*known).clone())
    }

    fn keep(&self, at: ObjectId, meta: &Meta, tree: ObjectId) {
        if meta.conflicts.len() * 256 + meta.message.len() <= SMALL {
            self.0.insert(at, Arc::new((meta.clone(), tree)));
        }
    }
}

/// A transaction as stored.
pub struct Stored {
    pub id: TransactionId,
    /// What the ref points to.
    pub at: ObjectId,
    pub meta: Meta,
    pub tree: ObjectId,
}

impl Store {
    /// Writes a transaction's new state and swaps its ref.
    pub(super) fn replace(
        &self,
        stored: &mut Stored,
        fresh: &mut Fresh,
        who: &Signature,
    ) -> Result<()> {
        stored.meta.edited = who.time;
        let at = self.store(&stored.id, &stored.meta, &stored.tree, fresh)?;
        self.point(&stored.id, Expected::Id(stored.at), Some(at), fresh, who)?;
        stored.at = at;
        Ok(())
    }

    /// Makes the commit a transaction's ref is to point to.
    pub(super) fn store(
        &self,
        id: &TransactionId,
        meta: &Meta,
        tree: &ObjectId,
        fresh: &mut Fresh,
    ) -> Result<ObjectId> {
        let hash = self.objects.hash_kind();
        let text = write_meta(meta);
        // What a reader of it would find.
        let read = read_meta(&text);
        if *tree == self.objects.empty_tree() {
            fresh.add(hash, ObjectKind::Tree, Vec::new())?;
        }
        let mut parents: Vec<ObjectId> = Vec::new();
        let merge = meta
            .merge
            .iter()
            .flat_map(|m| [m.base, Some(m.ours), Some(m.theirs)]);
        let state = match meta.state {
            State::Open => None,
            State::Committing { new, .. } | State::Committed(new) => Some(new),
        };
        for parent in [meta.base]
            .into_iter()
            .chain(merge)
            .chain([state])
            .flatten()
        {
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        for parent in &meta.parents {
            if !parents.contains(parent) {
                parents.push(*parent);
            }
        }
        let who = Signature {
            time: meta.edited,
            ..meta.author.clone()
        };
        let title = format!("dk transaction {id} on {}\n\n", meta.branch);
        let commit = Commit {
            id: *tree,
            tree: *tree,
            parents,
            author: meta.author.clone(),
            committer: who,
            message: [title.as_bytes(), &text].concat(),
        };
        let at = fresh.add(hash, ObjectKind::Commit, write_commit(&commit))?;
        if let Some(meta) = read {
            self.transactions.keep(at, &meta, *tree);
        }
        Ok(at)
    }

    pub(super) fn point(
        &self,
        id: &TransactionId,
        expected: Expected,
        new: Option<ObjectId>,
        fresh: &Fresh,
        who: &Signature,
    ) -> Result<()> {
        let moves = [pointing(id, expected, new)];
        self.swap(&moves, fresh, who, "transaction")
    }

    pub(super) fn load(&self, id: &TransactionId) -> Result<Stored> {
        match self.engine.head(&HeadName::transaction(id))? {
            Some(at) => self.load_at(id.clone(), at),
            None => Err(Error::NotFound(format!("transaction {id}"))),
        }
    }

    pub(super) fn load_at(&self, id: TransactionId, at: ObjectId) -> Result<Stored> {
        match self.recent(id.clone(), at) {
            Some(stored) => Ok(stored),
            None => self.read_at(id, at),
        }
    }

    /// Returns a transaction that is in memory; never reads it.
    pub(super) fn recent(&self, id: TransactionId, at: ObjectId) -> Option<Stored> {
        let (meta, tree) = self.transactions.get(&at)?;
        Some(Stored { id, at, meta, tree })
    }

    fn read_at(&self, id: TransactionId, at: ObjectId) -> Result<Stored> {
        let wrong = |why: &str| corrupt(&at, &format!("transaction {id}: {why}"));
        let Commit { tree, message, .. } = self.objects.commit(&at)?;
        let title = message.windows(2).position(|pair| pair == b"\n\n");
        let meta = title.and_then(|end| read_meta(&message[end + 2..]));
        let meta = meta.ok_or_else(|| wrong("it is of another version, or damaged"))?;
        self.transactions.keep(at, &meta, tree);
        Ok(Stored { id, at, meta, tree })
    }

    /// Keeps transactions out of clones and mirror pushes, before the first one.
    pub(in crate::store) fn hide_transactions(&self) -> Result<()> {
        if self.hidden.get().is_none() {
            if let Some(repository) = self.engine.repository() {
                repository.hide_refs("refs/dk")?;
            }
            // Another may have seen to it at the same time.
            let _ = self.hidden.set(());
        }
        Ok(())
    }
}

/// The move of a transaction's ref.
pub fn pointing(id: &TransactionId, expected: Expected, new: Option<ObjectId>) -> HeadMove {
    HeadMove {
        name: HeadName::transaction(id),
        expected,
        new,
    }
}

pub fn transaction(stored: Stored) -> Transaction {
    let meta = stored.meta;
    Transaction {
        id: stored.id,
        branch: meta.branch,
        base: meta.base,
        parents: meta.parents,
        message: meta.message,
        begun: meta.author.time,
        author: meta.author,
        state: meta.state,
        conflicts: meta.conflicts,
        edited: meta.edited,
        edits: meta.edits,
        tree: stored.tree,
        merge: meta.merge,
    }
}

pub fn id_of(name: &HeadName) -> Option<TransactionId> {
    let last = name.as_bytes().strip_prefix(PREFIX.as_bytes())?;
    TransactionId::new(std::str::from_utf8(last).ok()?)
}

/// Ten characters out of 32 each: 50 bits that the system picked.
pub fn random_id() -> TransactionId {
    const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bits = std::hash::RandomState::new().build_hasher().finish();
    let mut name = String::new();
    for _ in 0..10 {
        name.push(char::from(DIGITS[(bits & 31) as usize]));
        bits >>= 5;
    }
    TransactionId::new(&name).expect("letters and digits are legal")
}
