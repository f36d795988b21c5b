//! Bringing a tree that was edited elsewhere onto a branch.
//!
//! The work is a stored tree with edits on top and the parents its commit is
//! to have. Nothing is kept of it here: whoever edits it keeps it until it has
//! landed.

use crate::model::request::{CommitOptions, Edits};
use crate::model::{BranchName, Conflict, Merge, ObjectId, Signature};

use super::collect::Collector;
use super::commit::{MERGE_MESSAGE, nothing_new};
use super::edit::Draft;
use super::objects::Fresh;
use super::{Error, Result, Store, history, merge};

/// What is to land.
pub struct Work {
    /// The tree that was edited.
    pub tree: ObjectId,
    pub edits: Edits,
    /// Of the commit to be, in order.
    pub parents: Vec<ObjectId>,
    pub message: Vec<u8>,
    pub author: Signature,
    pub committer: Signature,
}

/// What landing came to.
#[derive(Debug)]
pub enum Landed {
    /// The branch's new head.
    Head(ObjectId),
    /// The branch stays where it is; this is the work with its head merged in.
    Conflict(Joined),
}

/// What merging a commit into some work came to.
#[derive(Debug)]
pub struct Joined {
    /// Paths in conflict hold a conflict file.
    pub tree: ObjectId,
    pub conflicts: Vec<Conflict>,
    pub sides: Merge,
    /// The parents of the commit to be.
    pub parents: Vec<ObjectId>,
}

impl Store {
    /// Commits some work and brings it onto a branch, merging where the head is
    /// not an ancestor of one of its parents.
    ///
    /// `pass` is asked right before the head moves; `false` ends it with
    /// nothing done.
    pub fn land(
        &self,
        branch: &BranchName,
        work: Work,
        options: &CommitOptions,
        pass: &dyn Fn() -> bool,
    ) -> Result<Landed> {
        self.writable()?;
        self.may_move(branch, options.force)?;
        let (tree, mut fresh) = self.make_tree(&work.tree, work.edits)?;
        let first = match work.parents.first() {
            Some(parent) => Some(self.objects.commit(parent)?.tree),
            None => None,
        };
        for parent in work.parents.iter().skip(1) {
            self.objects.commit(parent)?;
        }
        let unchanged =
            work.parents.len() <= 1 && tree == first.unwrap_or(self.objects.empty_tree());
        let who = &work.committer;
        let authors = [&work.author, who];
        let mark = fresh.mark();
        self.again(|| {
            fresh.rollback(mark);
            let head = self.expected_head(branch, options.expect)?;
            if let Some(head) = &head {
                self.at_head(branch, head)?;
            }
            if unchanged && let Some(same) = nothing_new(options.empty, head, branch)? {
                return Ok(Landed::Head(same));
            }
            let parents = work.parents.clone();
            let message = options.message.as_ref().unwrap_or(&work.message).clone();
            let id = self.make_commit_by(&mut fresh, tree, parents, authors, message)?;
            let mut new = id;
            if let Some(head) = head
                && !self.reached(&head, &work.parents)?
            {
                if options.ff_only {
                    return Err(Error::NotFastForward {
                        name: format!("branch {branch}"),
                        to: id,
                        actual: Some(head),
                    });
                }
                // What is merged must be found by the walk through history.
                self.engine.write(fresh.objects())?;
                let result =
                    merge::merge_commits(&self.objects, &mut fresh, &head, &id, None, who)?;
                if !result.outcome.conflicts.is_empty() {
                    fresh.rollback(mark);
                    let mut joined = self.join_tree(tree, &work.parents, &head, who, &mut fresh)?;
                    // First parents tell what the branch was: its former head
                    // comes first.
                    joined.parents.retain(|parent| *parent != head);
                    joined.parents.insert(0, head);
                    return Ok(Landed::Conflict(joined));
                }
                let message = MERGE_MESSAGE.to_vec();
                let merged = result.outcome.tree;
                new = self.make_commit(&mut fresh, merged, vec![head, id], who, message)?;
            }
            if !pass() {
                return Err(Error::Interrupted("the commit was cancelled".into()));
            }
            self.advance(branch, head, new, &fresh, who, "commit")?;
            Ok(Landed::Head(new))
        })
    }

    /// Merges a commit into some work. Moves no head.
    pub fn join(&self, work: Work, theirs: &ObjectId) -> Result<Joined> {
        self.writable()?;
        self.objects.commit(theirs)?;
        for parent in &work.parents {
            self.objects.commit(parent)?;
        }
        let (tree, mut fresh) = self.make_tree(&work.tree, work.edits)?;
        self.join_tree(tree, &work.parents, theirs, &work.committer, &mut fresh)
    }

    /// Returns the tree that edits make of another, kept in the store though
    /// nothing leads to it: the next collection takes it.
    pub fn edited_tree(&self, tree: &ObjectId, edits: Edits) -> Result<ObjectId> {
        let (tree, fresh) = self.make_tree(tree, edits)?;
        self.engine.write(fresh.objects())?;
        Ok(tree)
    }

    fn make_tree(&self, tree: &ObjectId, edits: Edits) -> Result<(ObjectId, Fresh)> {
        let (ops, mut fresh) = Collector::run(&self.objects, edits)?;
        let mut draft = Draft::new(&self.objects, tree)?;
        draft.apply_all(&ops, &mut fresh)?;
        let made = draft.write(&mut fresh, false)?;
        Ok((made, fresh))
    }

    fn join_tree(
        &self,
        tree: ObjectId,
        parents: &[ObjectId],
        theirs: &ObjectId,
        who: &Signature,
        fresh: &mut Fresh,
    ) -> Result<Joined> {
        let ours = self.make_commit(fresh, tree, parents.to_vec(), who, b"ours".to_vec())?;
        self.engine.write(fresh.objects())?;
        let result = merge::merge_commits(&self.objects, fresh, &ours, theirs, None, who)?;
        self.engine.write(fresh.objects())?;
        let mut parents = parents.to_vec();
        if !parents.contains(theirs) {
            parents.push(*theirs);
        }
        Ok(Joined {
            tree: result.outcome.tree,
            conflicts: result.outcome.conflicts,
            sides: Merge {
                base: result.base,
                ours,
                theirs: *theirs,
            },
            parents,
        })
    }

    /// Tells whether one of these commits reaches `head`.
    fn reached(&self, head: &ObjectId, from: &[ObjectId]) -> Result<bool> {
        for commit in from {
            if history::is_ancestor(&self.objects, head, commit)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
