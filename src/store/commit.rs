//! Moving a branch: by edits, by a merge, by hand.
//!
//! A head moves in `Store::advance` alone, by compare-and-swap with the head
//! the work was based on, after everything it reaches was written. Writers of
//! one store take turns, so only a foreign one (stock git) can be faster; then
//! the work is done again on what it left.

use crate::metrics::metrics;
use crate::model::request::{
    CommitOptions, Edits, Empty, Expect, MergeOptions, Merged, MoveOptions,
};
use crate::model::{BranchName, Commit, ObjectId, Signature};

use super::collect::Collector;
use super::edit::{Draft, Op};
use super::engine::{Expected, HeadMove, HeadName, MoveNote, ObjectKind, Step};
use super::objects::{Fresh, write_commit};
use super::rev::missing_head;
use super::{Error, Result, Store, history, merge};

/// The message of a commit nobody gave one.
const NO_MESSAGE: &[u8] = b"(no commit message)";
/// The message of a merge nobody gave one.
pub const MERGE_MESSAGE: &[u8] = b"Merge";

impl Store {
    /// See `Client::edit`.
    pub fn edit(
        &self,
        branch: &BranchName,
        edits: Edits,
        options: &CommitOptions,
        who: &Signature,
    ) -> Result<ObjectId> {
        self.writable()?;
        self.may_move(branch, options.force)?;
        let (ops, mut fresh) = Collector::run(&self.objects, edits)?;
        let mark = fresh.mark();
        self.again(|| {
            fresh.rollback(mark);
            let head = self.expected_head(branch, options.expect)?;
            let base = head.map(|id| self.at_head(branch, &id)).transpose()?;
            let old = base
                .as_ref()
                .map_or(self.objects.empty_tree(), |commit| commit.tree);
            let mut draft = Draft::new(&self.objects, &old)?;
            draft.apply_all(&ops, &mut fresh)?;
            let tree = draft.write(&mut fresh, false)?;
            if tree == old
                && let Some(head) = nothing_new(options.empty, head, branch)?
            {
                return Ok(head);
            }
            let message = match &options.message {
                Some(message) => message.clone(),
                None => summary(&ops).into_bytes(),
            };
            let id =
                self.make_commit(&mut fresh, tree, head.into_iter().collect(), who, message)?;
            self.advance(branch, head, id, &fresh, who, "edit")?;
            Ok(id)
        })
    }

    /// See `Client::merge`.
    pub fn merge(
        &self,
        branch: &BranchName,
        theirs: &ObjectId,
        options: &MergeOptions,
        who: &Signature,
    ) -> Result<Merged> {
        let their_commit = self.objects.commit(theirs)?;
        if !options.dry_run {
            self.writable()?;
            self.may_move(branch, options.commit.force)?;
        }
        let work = || {
            let mut fresh = Fresh::default();
            let head = self.expected_head(branch, options.commit.expect)?;
            if let Some(head) = &head {
                self.at_head(branch, head)?;
            }
            let forward = match head {
                None => Some(*theirs),
                Some(head) if head == *theirs => Some(head),
                Some(head) if history::is_ancestor(&self.objects, theirs, &head)? => Some(head),
                Some(head) if history::is_ancestor(&self.objects, &head, theirs)? => Some(*theirs),
                _ => None,
            };
            if let Some(to) = forward {
                if head != Some(to) && !options.dry_run {
                    self.advance(branch, head, to, &fresh, who, "merge: fast-forward")?;
                }
                return Ok(Merged {
                    head: if options.dry_run { head } else { Some(to) },
                    tree: if head == Some(to) {
                        self.objects.commit(&to)?.tree
                    } else {
                        their_commit.tree
                    },
                    conflicts: Vec::new(),
                    fast_forward: true,
                });
            }
            let ours = head.expect("an unborn branch goes forward");
            if options.commit.ff_only {
                return Err(Error::NotFastForward {
                    name: format!("branch {branch}"),
                    to: *theirs,
                    actual: head,
                });
            }
            let result = merge::merge_commits(
                &self.objects,
                &mut fresh,
                &ours,
                theirs,
                options.favour,
                who,
            )?;
            let (tree, conflicts) = (result.outcome.tree, result.outcome.conflicts);
            if options.dry_run {
                // No head leads there: the next collection takes it again.
                self.objects.engine.write(fresh.objects())?;
                return Ok(Merged {
                    head,
                    tree,
                    conflicts,
                    fast_forward: false,
                });
            }
            if !conflicts.is_empty() {
                return Err(Error::Conflict(conflicts));
            }
            let message = options
                .commit
                .message
                .clone()
                .unwrap_or_else(|| MERGE_MESSAGE.to_vec());
            let id = self.make_commit(&mut fresh, tree, vec![ours, *theirs], who, message)?;
            self.advance(branch, head, id, &fresh, who, "merge")?;
            Ok(Merged {
                head: Some(id),
                tree,
                conflicts,
                fast_forward: false,
            })
        };
        if options.dry_run {
            work()
        } else {
            self.again(work)
        }
    }

    /// See `Client::move_head`.
    pub fn move_head(
        &self,
        branch: &BranchName,
        to: &ObjectId,
        options: MoveOptions,
        who: &Signature,
    ) -> Result<()> {
        self.writable()?;
        self.objects.commit(to)?;
        self.may_move(branch, options.force)?;
        self.again(|| {
            let head = self.expected_head(branch, options.expect)?;
            if head == Some(*to) {
                return Ok(());
            }
            if let (true, Some(head)) = (options.ff_only, head)
                && !history::is_ancestor(&self.objects, &head, to)?
            {
                return Err(Error::NotFastForward {
                    name: format!("branch {branch}"),
                    to: *to,
                    actual: Some(head),
                });
            }
            let why = if options.ff_only {
                "fast-forward"
            } else {
                "reset"
            };
            self.advance(branch, head, *to, &Fresh::default(), who, why)
        })
    }

    /// See `Client::delete_branch`.
    pub fn delete_branch(
        &self,
        branch: &BranchName,
        options: MoveOptions,
        who: &Signature,
    ) -> Result<ObjectId> {
        self.writable()?;
        self.may_move(branch, options.force)?;
        self.again(|| {
            let Some(head) = self.expected_head(branch, options.expect)? else {
                return Err(Error::NotFound(format!("branch {branch}")));
            };
            let moves = [HeadMove {
                name: HeadName::branch(branch),
                expected: Expected::Id(head),
                new: None,
            }];
            self.swap(&moves, &Fresh::default(), who, "delete")?;
            Ok(head)
        })
    }

    /// See `Client::rename_branch`.
    pub fn rename_branch(
        &self,
        from: &BranchName,
        to: &BranchName,
        force: bool,
        who: &Signature,
    ) -> Result<ObjectId> {
        self.writable()?;
        self.may_move(from, force)?;
        self.may_move(to, force)?;
        self.again(|| {
            let Some(head) = self.engine.head(&HeadName::branch(from))? else {
                return Err(Error::NotFound(format!("branch {from}")));
            };
            if from == to {
                return Ok(head);
            }
            if self.engine.head(&HeadName::branch(to))?.is_some() {
                return Err(Error::Exists(format!("branch {to}")));
            }
            let moves = [
                HeadMove {
                    name: HeadName::branch(to),
                    expected: Expected::Missing,
                    new: Some(head),
                },
                HeadMove {
                    name: HeadName::branch(from),
                    expected: Expected::Id(head),
                    new: None,
                },
            ];
            self.swap(&moves, &Fresh::default(), who, "rename")?;
            Ok(head)
        })
    }

    /// Does a piece of work that ends in moving heads, in its turn; again where
    /// a foreign writer was faster in the middle of it. Each failed try means
    /// that somebody else succeeded.
    pub(super) fn again<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        const TRIES: usize = 1000;
        let _turn = self.engine.turn()?;
        for _ in 0..TRIES {
            match work() {
                Err(Error::HeadMoved {
                    expected: Expect::Any,
                    ..
                }) => {}
                result => return result,
            }
        }
        Err(Error::Busy(
            "other writers were faster a thousand times over".into(),
        ))
    }

    /// Reads a branch's head and compares it with what the caller wants it to be.
    pub(super) fn expected_head(
        &self,
        branch: &BranchName,
        expect: Expect,
    ) -> Result<Option<ObjectId>> {
        let head = self.engine.head(&HeadName::branch(branch))?;
        let right = match expect {
            Expect::Any => true,
            Expect::Unborn => head.is_none(),
            Expect::Head(id) => head == Some(id),
        };
        if right {
            return Ok(head);
        }
        Err(Error::HeadMoved {
            name: format!("branch {branch}"),
            expected: expect,
            actual: head,
        })
    }

    /// Reads the commit that is a branch's head: it has to be there.
    pub(super) fn at_head(&self, branch: &BranchName, head: &ObjectId) -> Result<Commit> {
        self.objects.commit(head).map_err(|error| match error {
            Error::NotFound(_) => missing_head(branch, head),
            other => other,
        })
    }

    /// The one place where a branch's head goes to a commit: everything fresh
    /// is written, then the head is swapped. A head found elsewhere is
    /// [`Error::HeadMoved`] with [`Expect::Any`]: for [`Store::again`].
    pub(super) fn advance(
        &self,
        branch: &BranchName,
        head: Option<ObjectId>,
        to: ObjectId,
        fresh: &Fresh,
        who: &Signature,
        why: &str,
    ) -> Result<()> {
        let moves = [advancing(branch, head, to)];
        self.swap(&moves, fresh, who, why)?;
        metrics().commits.inc();
        Ok(())
    }

    /// Moves heads; what is found elsewhere is for [`Store::again`].
    pub(super) fn swap(
        &self,
        moves: &[HeadMove],
        fresh: &Fresh,
        who: &Signature,
        why: &str,
    ) -> Result<()> {
        self.swap_in_steps(&[(moves, why)], true, fresh, who)
    }

    /// Moves heads one step after the other: see [`Engine::move_in_steps`].
    /// Power loss may take the last step back unless it is to be `lasting`.
    ///
    /// [`Engine::move_in_steps`]: super::engine::Engine::move_in_steps
    pub(super) fn swap_in_steps(
        &self,
        steps: &[(&[HeadMove], &str)],
        lasting: bool,
        fresh: &Fresh,
        who: &Signature,
    ) -> Result<()> {
        let mut steps: Vec<Step<'_>> = steps
            .iter()
            .map(|&(moves, why)| Step {
                moves,
                note: MoveNote {
                    who: who.clone(),
                    message: format!("dk: {why}"),
                },
                lasting: true,
            })
            .collect();
        if let Some(last) = steps.last_mut() {
            last.lasting = lasting;
        }
        let mut done = |step: &Step<'_>| {
            for done in step.moves {
                self.moved(&done.name, done.new);
            }
        };
        let moved = self
            .engine
            .move_in_steps(&steps, fresh.objects(), &mut done);
        if let Err(Error::HeadMoved { name, actual, .. }) = moved {
            return Err(Error::HeadMoved {
                name,
                expected: Expect::Any,
                actual,
            });
        }
        moved?;
        self.objects.remember(fresh);
        Ok(())
    }

    /// Makes a commit object by and of `who`.
    pub(super) fn make_commit(
        &self,
        fresh: &mut Fresh,
        tree: ObjectId,
        parents: Vec<ObjectId>,
        who: &Signature,
        message: Vec<u8>,
    ) -> Result<ObjectId> {
        self.make_commit_by(fresh, tree, parents, [who, who], message)
    }

    /// Makes a commit object by one author and one committer.
    pub(super) fn make_commit_by(
        &self,
        fresh: &mut Fresh,
        tree: ObjectId,
        parents: Vec<ObjectId>,
        [author, committer]: [&Signature; 2],
        message: Vec<u8>,
    ) -> Result<ObjectId> {
        let message = if message.is_empty() {
            NO_MESSAGE.to_vec()
        } else {
            message
        };
        let commit = Commit {
            id: tree,
            tree,
            parents,
            author: author.clone(),
            committer: committer.clone(),
            message,
        };
        fresh.add(
            self.objects.hash_kind(),
            ObjectKind::Commit,
            write_commit(&commit),
        )
    }

    pub(super) fn writable(&self) -> Result<()> {
        if self.engine.is_read_only() {
            return Err(Error::ReadOnly("the store".into()));
        }
        Ok(())
    }

    /// Refuses to move a branch that a work tree has checked out: the next
    /// `git commit -a` there would undo it (as `receive.denyCurrentBranch`).
    pub(super) fn may_move(&self, branch: &BranchName, force: bool) -> Result<()> {
        if force || !self.engine.is_checked_out(&HeadName::branch(branch))? {
            return Ok(());
        }
        if let Some(repository) = self.engine.repository()
            && repository.config("dk.denyCurrentBranch")?.as_deref() == Some("ignore")
        {
            return Ok(());
        }
        Err(Error::Denied {
            message: format!("branch {branch} is checked out in a work tree"),
            hint:
                "use --force, or set dk.denyCurrentBranch to ignore; then `git reset --hard` there"
                    .into(),
        })
    }
}

/// The move of a branch from its head, if it has one, to a commit.
pub(super) fn advancing(branch: &BranchName, head: Option<ObjectId>, to: ObjectId) -> HeadMove {
    HeadMove {
        name: HeadName::branch(branch),
        expected: head.map_or(Expected::Missing, Expected::Id),
        new: Some(to),
    }
}

/// What becomes of a commit whose tree is its parent's: the head to answer
/// with, or nothing where it is to be made all the same.
pub(super) fn nothing_new(
    empty: Empty,
    head: Option<ObjectId>,
    branch: &BranchName,
) -> Result<Option<ObjectId>> {
    match (empty, head) {
        (Empty::Allow, _) => Ok(None),
        (Empty::Skip, Some(head)) => Ok(Some(head)),
        _ => Err(Error::Invalid(format!(
            "nothing changes on branch {branch}"
        ))),
    }
}

fn summary(ops: &[Op]) -> String {
    match ops {
        [] => String::new(),
        [op] => op.summary(),
        [op, rest @ ..] => format!("{} and {} more", op.summary(), rest.len()),
    }
}
