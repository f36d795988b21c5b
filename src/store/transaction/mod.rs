//! Transactions that outlive a process.
//!
//! `refs/dk/tx/ID` points to a commit: its tree is the transaction's as it stands,
//! its message a title and what is to be known besides (`model::text::Meta`), so
//! that a change is one object more than what it changes; its parents keep alive
//! what the transaction names: base, parents to be, both sides and base of its merge.
//! An edit is durable when the call returns; concurrent edits are applied one
//! after the other, again where the ref moved.
//!
//! Commit never happens twice: the new commit and the head it expects are
//! recorded in the transaction first, then the head moves, then the state
//! reads committed. Whoever finds it in between looks whether the branch has
//! the commit.

mod amend;
mod record;

use std::time::Duration;

use crate::metrics::metrics;
use crate::model::request::{CommitOptions, Edits, Side};
use crate::model::text::Meta;
use crate::model::{
    BranchName, Commit, Conflict, Merge, ObjectId, Signature, State, Time, Transaction,
    TransactionId, TreePath,
};

use crate::store::collect::Collector;
use crate::store::commit::{MERGE_MESSAGE, advancing, nothing_new};
use crate::store::edit::{Draft, Op, prune};
use crate::store::engine::{Expected, HeadMove, HeadName};
use crate::store::objects::Fresh;
use crate::store::{Error, Result, Store, history, merge};

use record::{PREFIX, Stored, id_of, pointing, transaction};
pub use record::{Recent, random_id};

/// How long a committed transaction still answers.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Store {
    /// See `Client::begin`.
    pub fn begin(
        &self,
        branch: &BranchName,
        from: Option<&ObjectId>,
        name: Option<&TransactionId>,
        who: &Signature,
    ) -> Result<Transaction> {
        self.writable()?;
        self.hide_transactions()?;
        let head = || self.engine.head(&HeadName::branch(branch));
        let (base, tree) = match from {
            Some(id) => (Some(*id), self.objects.commit(id)?.tree),
            None => match head()? {
                Some(id) => (Some(id), self.at_head(branch, &id)?.tree),
                None => (None, self.objects.empty_tree()),
            },
        };
        let meta = Meta {
            branch: branch.clone(),
            base,
            parents: base.into_iter().collect(),
            author: who.clone(),
            edited: who.time,
            edits: 0,
            state: State::Open,
            merge: None,
            conflicts: Vec::new(),
            message: Vec::new(),
        };
        loop {
            let id = name.cloned().unwrap_or_else(random_id);
            let mut fresh = Fresh::default();
            let at = self.store(&id, &meta, &tree, &mut fresh)?;
            match self.point(&id, Expected::Missing, Some(at), &fresh, who) {
                Err(Error::HeadMoved { .. }) if name.is_none() => continue,
                Err(Error::HeadMoved { .. }) => {
                    return Err(Error::Exists(format!("transaction {id}")));
                }
                result => result?,
            }
            return Ok(transaction(Stored { id, at, meta, tree }));
        }
    }

    /// See `Client::transactions`.
    pub fn transactions(&self) -> Result<Vec<Transaction>> {
        let mut found = Vec::new();
        for (name, at) in self.engine.heads(PREFIX)? {
            if let Some(id) = id_of(&name) {
                found.push(transaction(self.load_at(id, at)?));
            }
        }
        found.sort_by(|a, b| (a.begun.seconds, &a.id).cmp(&(b.begun.seconds, &b.id)));
        Ok(found)
    }

    /// See `Client::transaction`.
    pub fn transaction(&self, prefix: &str) -> Result<Transaction> {
        if let Some(id) = TransactionId::new(prefix)
            && let Some(at) = self.engine.head(&HeadName::transaction(&id))?
        {
            return Ok(transaction(self.load_at(id, at)?));
        }
        let missing = || Error::NotFound(format!("transaction {prefix:?}"));
        if TransactionId::new(prefix).is_none() && !prefix.ends_with(['.', '-']) {
            return Err(missing());
        }
        let fits = self.engine.heads(&format!("{PREFIX}{prefix}"))?;
        let mut fits = fits
            .into_iter()
            .filter_map(|(name, at)| Some((id_of(&name)?, at)));
        let (id, at) = fits.next().ok_or_else(missing)?;
        let others: Vec<String> = fits.map(|(id, _)| id.to_string()).collect();
        if !others.is_empty() {
            return Err(Error::Ambiguous {
                prefix: prefix.into(),
                ids: [vec![id.to_string()], others].concat(),
            });
        }
        Ok(transaction(self.load_at(id, at)?))
    }

    /// Returns the transaction of exactly this name.
    pub fn transaction_named(&self, id: &TransactionId) -> Result<Transaction> {
        self.load(id).map(transaction)
    }

    /// See `Client::tx_edit`.
    pub fn tx_edit(&self, id: &TransactionId, edits: Edits, now: Time) -> Result<Transaction> {
        self.writable()?;
        let (ops, mut fresh) = Collector::run(&self.objects, edits)?;
        self.change(id, now, &mut fresh, |stored, fresh| {
            let mut draft = Draft::new(&self.objects, &stored.tree)?;
            draft.apply_all(&ops, fresh)?;
            for op in &ops {
                settle(&mut stored.meta.conflicts, op);
            }
            stored.tree = draft.write(fresh, true)?;
            stored.meta.edits += ops.len() as u64;
            Ok(())
        })
    }

    /// See `Client::tx_set`.
    pub fn tx_set(
        &self,
        id: &TransactionId,
        message: Option<&[u8]>,
        parents: Option<&[ObjectId]>,
        now: Time,
    ) -> Result<Transaction> {
        self.writable()?;
        for parent in parents.unwrap_or_default() {
            self.objects.commit(parent)?;
        }
        self.change(id, now, &mut Fresh::default(), |stored, _| {
            if let Some(message) = message {
                stored.meta.message = message.to_vec();
            }
            if let Some(parents) = parents {
                stored.meta.parents = parents.to_vec();
            }
            Ok(())
        })
    }

    /// See `Client::tx_resolve`.
    pub fn tx_resolve(
        &self,
        id: &TransactionId,
        paths: &[TreePath],
        side: Side,
        now: Time,
    ) -> Result<Transaction> {
        self.writable()?;
        self.change(id, now, &mut Fresh::default(), |stored, fresh| {
            let all: Vec<Conflict> = std::mem::take(&mut stored.meta.conflicts);
            for path in paths {
                if !all.iter().any(|conflict| conflict.path.starts_with(path)) {
                    return Err(Error::NotFound(format!("a conflict at {path}")));
                }
            }
            let mut draft = Draft::new(&self.objects, &stored.tree)?;
            for conflict in all {
                let wanted =
                    paths.is_empty() || paths.iter().any(|path| conflict.path.starts_with(path));
                if !wanted {
                    stored.meta.conflicts.push(conflict);
                    continue;
                }
                let entry = match side {
                    Side::Base => conflict.base,
                    Side::Ours => conflict.ours,
                    Side::Theirs => conflict.theirs,
                };
                let path = conflict.path;
                let op = match entry {
                    Some(entry) => Op::Set { path, entry },
                    None => Op::Remove(path),
                };
                match draft.apply(&op, fresh) {
                    // Removed by hand before: settled all the same.
                    Err(Error::NotFound(_)) if entry.is_none() => {}
                    result => result?,
                }
                stored.meta.edits += 1;
            }
            stored.tree = draft.write(fresh, true)?;
            Ok(())
        })
    }

    /// See `Client::tx_merge`.
    pub fn tx_merge(
        &self,
        id: &TransactionId,
        theirs: &ObjectId,
        who: &Signature,
    ) -> Result<Transaction> {
        self.writable()?;
        self.objects.commit(theirs)?;
        self.change(id, who.time, &mut Fresh::default(), |stored, fresh| {
            if !stored.meta.conflicts.is_empty() {
                return Err(Error::Conflict(stored.meta.conflicts.clone()));
            }
            self.merge_into(stored, theirs, who, fresh)
        })
    }

    /// Saves the tree as a commit, merges `theirs` with it, and leaves result
    /// and conflicts in the transaction.
    fn merge_into(
        &self,
        stored: &mut Stored,
        theirs: &ObjectId,
        who: &Signature,
        fresh: &mut Fresh,
    ) -> Result<()> {
        let parents = stored.meta.parents.clone();
        let ours = self.make_commit(fresh, stored.tree, parents, who, b"ours".to_vec())?;
        // What is merged must be found by the walk through history.
        self.engine.write(fresh.objects())?;
        let result = merge::merge_commits(&self.objects, fresh, &ours, theirs, None, who)?;
        stored.tree = result.outcome.tree;
        stored.meta.conflicts = result.outcome.conflicts;
        stored.meta.merge = Some(Merge {
            base: result.base,
            ours,
            theirs: *theirs,
        });
        if !stored.meta.parents.contains(theirs) {
            stored.meta.parents.push(*theirs);
        }
        stored.meta.edits += 1;
        Ok(())
    }

    /// See `Client::tx_commit`.
    pub fn tx_commit(
        &self,
        id: &TransactionId,
        options: &CommitOptions,
        who: Option<&Signature>,
        now: Time,
    ) -> Result<ObjectId> {
        self.writable()?;
        let branch = self.load(id)?.meta.branch;
        self.may_move(&branch, options.force)?;
        self.again(|| {
            let mut stored = self.load(id)?;
            self.finish(&mut stored)?;
            if let State::Committed(head) = stored.meta.state {
                return Ok(head);
            }
            let who = &Signature {
                time: now,
                ..who.unwrap_or(&stored.meta.author).clone()
            };
            self.commit_once(stored, options, who)
        })
    }

    fn commit_once(
        &self,
        mut stored: Stored,
        options: &CommitOptions,
        who: &Signature,
    ) -> Result<ObjectId> {
        if !stored.meta.conflicts.is_empty() {
            return Err(Error::Conflict(stored.meta.conflicts));
        }
        let branch = stored.meta.branch.clone();
        let head = self.expected_head(&branch, options.expect)?;
        if let Some(head) = &head {
            self.at_head(&branch, head)?;
        }
        let mut fresh = Fresh::default();
        let parents = stored.meta.parents.clone();
        let first: Option<Commit> = match parents.first() {
            Some(parent) => Some(self.objects.commit(parent)?),
            None => None,
        };
        let before = first.as_ref().map(|commit| commit.tree);
        let tree = prune(&self.objects, &mut fresh, &stored.tree, before.as_ref())?;
        let new = if parents.len() <= 1
            && tree == before.unwrap_or(self.objects.empty_tree())
            && let Some(same) = nothing_new(options.empty, head, &branch)?
        {
            same
        } else {
            let message = options
                .message
                .clone()
                .unwrap_or(stored.meta.message.clone());
            let id = self.make_commit(&mut fresh, tree, parents.clone(), who, message)?;
            match self.bring(&mut stored, id, head, options, who, &mut fresh)? {
                Some(new) => new,
                None => {
                    // The transaction now holds the conflicts; it stays open.
                    let conflicts = stored.meta.conflicts.clone();
                    self.replace(&mut stored, &mut fresh, who)?;
                    return Err(Error::Conflict(conflicts));
                }
            }
        };
        let committing = Meta {
            state: State::Committing {
                new,
                expected: head,
            },
            edited: who.time,
            ..stored.meta.clone()
        };
        let edited = stored.tree;
        if options.keep {
            stored.tree = self.objects.commit_or_fresh(&new, &fresh)?.tree;
            stored.meta = Meta {
                base: Some(new),
                parents: vec![new],
                state: State::Open,
                merge: None,
                message: Vec::new(),
                edits: 0,
                ..stored.meta
            };
        } else {
            stored.meta.state = State::Committed(new);
        }
        if head == Some(new) {
            self.replace(&mut stored, &mut fresh, who)?;
            return Ok(new);
        }
        stored.meta.edited = who.time;
        let during = self.store(&stored.id, &committing, &edited, &mut fresh)?;
        let after = self.store(&stored.id, &stored.meta, &stored.tree, &mut fresh)?;
        let swap = |from, to| pointing(&stored.id, Expected::Id(from), Some(to));
        let steps: [(&[HeadMove], &str); 3] = [
            (&[swap(stored.at, during)], "transaction"),
            (&[advancing(&branch, head, new)], "commit"),
            (&[swap(during, after)], "transaction"),
        ];
        // That the last has happened can be told from the two before it.
        self.swap_in_steps(&steps, options.keep, &fresh, who)?;
        metrics().commits.inc();
        Ok(new)
    }

    /// Finds what the branch's head is to become: the commit itself, or a merge
    /// with a head that moved. Nothing: there were conflicts, left in `stored`.
    fn bring(
        &self,
        stored: &mut Stored,
        id: ObjectId,
        head: Option<ObjectId>,
        options: &CommitOptions,
        who: &Signature,
        fresh: &mut Fresh,
    ) -> Result<Option<ObjectId>> {
        let Some(head) = head else {
            return Ok(Some(id));
        };
        for parent in &stored.meta.parents {
            if history::is_ancestor(&self.objects, &head, parent)? {
                return Ok(Some(id));
            }
        }
        if options.ff_only {
            return Err(Error::NotFastForward {
                name: format!("branch {}", stored.meta.branch),
                to: id,
                actual: Some(head),
            });
        }
        self.engine.write(fresh.objects())?;
        let mark = fresh.mark();
        let result = merge::merge_commits(&self.objects, fresh, &head, &id, None, who)?;
        if result.outcome.conflicts.is_empty() {
            let parents = vec![head, id];
            let tree = result.outcome.tree;
            return self
                .make_commit(fresh, tree, parents, who, MERGE_MESSAGE.to_vec())
                .map(Some);
        }
        // As if the head had been merged into the transaction: ours is the
        // transaction's side.
        fresh.rollback(mark);
        self.merge_into(stored, &head, who, fresh)?;
        // First parents tell what the branch was: its former head comes first.
        stored.meta.parents.retain(|parent| *parent != head);
        stored.meta.parents.insert(0, head);
        Ok(None)
    }

    /// See `Client::tx_abort`.
    pub fn tx_abort(&self, id: &TransactionId, who: &Signature) -> Result<()> {
        self.writable()?;
        self.again(|| {
            let stored = self.load(id)?;
            self.point(id, Expected::Id(stored.at), None, &Fresh::default(), who)
        })
    }

    /// See `Client::tx_collect`.
    pub fn tx_collect(
        &self,
        older_than: Duration,
        dry_run: bool,
        who: &Signature,
    ) -> Result<Vec<Transaction>> {
        if !dry_run {
            self.writable()?;
        }
        let past = |time: Time, age: Duration| {
            let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            time.seconds.saturating_add(age) <= who.time.seconds
        };
        let mut dropped = Vec::new();
        for found in self.transactions()? {
            let over = match found.state {
                State::Committed(_) => past(found.edited, older_than.min(KEPT)),
                // One in the middle of its commit is for whoever asks again.
                State::Committing { .. } => false,
                State::Open => past(found.edited, older_than),
            };
            if !over {
                continue;
            }
            if !dry_run {
                match self.tx_abort(&found.id, who) {
                    Err(Error::NotFound(_)) => continue,
                    result => result?,
                }
            }
            dropped.push(found);
        }
        Ok(dropped)
    }

    /// Settles a commit that a process began and did not end: it went through
    /// if the branch has the commit, and never happened otherwise.
    fn finish(&self, stored: &mut Stored) -> Result<()> {
        let State::Committing { new, .. } = stored.meta.state else {
            return Ok(());
        };
        let head = self.engine.head(&HeadName::branch(&stored.meta.branch))?;
        let there = match head {
            Some(head) => history::is_ancestor(&self.objects, &new, &head)?,
            None => false,
        };
        stored.meta.state = if there {
            State::Committed(new)
        } else {
            State::Open
        };
        Ok(())
    }

    /// Loads an open transaction, changes it and stores it, again where
    /// somebody else was faster.
    fn change(
        &self,
        id: &TransactionId,
        now: Time,
        fresh: &mut Fresh,
        mut change: impl FnMut(&mut Stored, &mut Fresh) -> Result<()>,
    ) -> Result<Transaction> {
        let mark = fresh.mark();
        self.again(|| {
            fresh.rollback(mark);
            let mut stored = self.load(id)?;
            self.finish(&mut stored)?;
            if let State::Committed(head) = stored.meta.state {
                return Err(Error::Invalid(format!(
                    "transaction {id} is committed already, as {head}"
                )));
            }
            change(&mut stored, fresh)?;
            let who = Signature {
                time: now,
                ..stored.meta.author.clone()
            };
            self.replace(&mut stored, fresh, &who)?;
            Ok(transaction(stored))
        })
    }
}

/// Removes from the conflicts what an edit settles.
fn settle(conflicts: &mut Vec<Conflict>, op: &Op) {
    match op {
        Op::Write { path, .. }
        | Op::Append { path, .. }
        | Op::Truncate { path, .. }
        | Op::Link { path, .. }
        | Op::Copy { to: path, .. }
        | Op::Mkdir(path)
        | Op::Set { path, .. } => conflicts.retain(|conflict| conflict.path != *path),
        Op::Remove(path) => conflicts.retain(|conflict| !conflict.path.starts_with(path)),
        Op::Rename { .. } | Op::Chmod { .. } => {}
    }
}
