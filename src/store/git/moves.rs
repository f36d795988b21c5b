//! Moving heads: by compare-and-swap, all of a call or none.
//!
//! The protocol is Git's, so git and dk exclude each other: lock every ref (in
//! order of the names, so that two movers cannot wait for each other), read
//! what it holds now, write, rename into place; for deletions hold
//! `packed-refs.lock` from before the packed line goes until after the file went.
//!
//! Up to the first rename nothing is done and every error undoes all. Several
//! heads at once are decided by an intent, synced before the first rename; from
//! there on they will all move: through this process, or through the next one
//! that writes (see `recovery`). New values go in before old names go away, so
//! that a rename never leaves a commit without a name.
//!
//! Lock order: refs by name, then `packed-refs`, then the lock of the cache.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::model::ObjectId;
use crate::model::request::Expect;
use crate::model::text::quote;
use crate::store::engine::{Durability, Expected, HeadMove, HeadName, MoveNote};
use crate::store::{Error, Result};

use super::folders::{make_dirs, prune_above, remove_empty_dirs, sync_dir};
use super::lock::{Lock, Owner, Staged, Taken, lock_path, random};
use super::refs::Refs;

/// One head on its way.
pub(super) struct Plan {
    /// The ref that changes: where symbolic refs led.
    pub target: Vec<u8>,
    pub old: Option<ObjectId>,
    pub new: Option<ObjectId>,
    pub lock: Option<Lock>,
}

/// Heads that move together.
pub(super) struct Batch<'a> {
    refs: &'a Refs,
    pub plans: Vec<Plan>,
    /// Those that are where they are to be.
    idle: Vec<Plan>,
    /// `packed-refs.lock`, and what is to replace the file.
    packed: Option<(Lock, Option<Staged>)>,
    /// Directories with a changed entry, to be synced.
    changed: BTreeSet<PathBuf>,
    /// Whether it is to survive power loss.
    lasting: bool,
}

/// Heads that are to move, what their locks hold written already.
pub struct Prepared<'a> {
    moves: &'a [HeadMove],
    owner: Arc<Owner>,
    /// Of each move.
    staged: Vec<Staged>,
}

impl Prepared<'_> {
    /// What has to be synced before the heads are moved.
    pub fn contents(&self) -> impl Iterator<Item = &Staged> {
        self.staged.iter().filter(|staged| staged.is_filled())
    }
}

impl Refs {
    /// Moves heads, all or none, each by compare-and-swap; durable on return.
    ///
    /// `recheck` is called when all locks are held and all heads are as
    /// expected, before anything is changed; its error leaves all as it was.
    pub fn move_heads(
        &self,
        moves: &[HeadMove],
        note: &MoveNote,
        recheck: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        if moves.is_empty() {
            return recheck();
        }
        let prepared = self.prepare_synced(moves)?;
        self.make(prepared, note, true, recheck)
    }

    /// Writes what the locks of some moves are to hold. Nothing is locked yet,
    /// nor synced: what they hold is to be, before [`Refs::make`].
    pub fn prepare<'a>(&self, moves: &'a [HeadMove]) -> Result<Prepared<'a>> {
        self.writable()?;
        self.sweep();
        let owner = match moves.len() {
            1 => self.locks.owner()?,
            _ => self.locks.new_owner()?,
        };
        let stage = |head: &HeadMove| {
            let content = head.new.map_or_else(String::new, |id| format!("{id}\n"));
            self.locks.stage_unsynced(&owner, content.into_bytes())
        };
        let staged = moves.iter().map(stage).collect::<Result<_>>()?;
        Ok(Prepared {
            moves,
            owner,
            staged,
        })
    }

    fn prepare_synced<'a>(&self, moves: &'a [HeadMove]) -> Result<Prepared<'a>> {
        let prepared = self.prepare(moves)?;
        let staged = &prepared.staged;
        staged
            .iter()
            .try_for_each(|staged| self.locks.settle(staged))?;
        Ok(prepared)
    }

    /// Makes moves that were prepared, as [`Refs::move_heads`] does.
    pub fn make(
        &self,
        mut prepared: Prepared<'_>,
        note: &MoveNote,
        lasting: bool,
        recheck: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let moves = prepared.moves;
        let mut pause = self.pause();
        while !self.try_moves(prepared, note, lasting, recheck)? {
            if !pause.wait() {
                let name = &moves[0].name;
                return Err(Error::Busy(format!(
                    "symbolic refs near {name} keep changing"
                )));
            }
            prepared = self.prepare_synced(moves)?;
        }
        Ok(())
    }

    fn pause(&self) -> Pause {
        Pause {
            patience: self.settings().lock_timeout,
            next: Duration::from_micros(500),
        }
    }

    /// Returns false where a symbolic ref changed on the way.
    fn try_moves(
        &self,
        prepared: Prepared<'_>,
        note: &MoveNote,
        lasting: bool,
        recheck: &mut dyn FnMut() -> Result<()>,
    ) -> Result<bool> {
        let mut staged = Vec::with_capacity(prepared.moves.len());
        for (head, content) in prepared.moves.iter().zip(prepared.staged) {
            let (target, current) = self.resolve(head.name.as_bytes())?;
            // Looked at again under the lock; this spares the losers a wait.
            compare(head, current)?;
            staged.push((target, head, content));
        }
        staged.sort_by(|a, b| a.0.cmp(&b.0));
        let (asked, staged): (Vec<_>, Vec<_>) = staged
            .into_iter()
            .map(|(target, head, content)| ((target, head), content))
            .unzip();
        if let Some(pair) = asked.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::Invalid(format!(
                "{} is to move twice at once",
                quote(&pair[0].0)
            )));
        }
        let written = asked.iter().filter(|(_, head)| head.new.is_some());
        let written: HashSet<&[u8]> = written.map(|(target, _)| &target[..]).collect();
        for name in &written {
            if let Some(above) = prefixes(name).find(|above| written.contains(above)) {
                return Err(in_the_way(name, above));
            }
        }
        let mut batch = Batch::new(self);
        // Those that are decided by an intent all last.
        batch.lasting = lasting || asked.len() > 1;
        let done = batch.run(&asked, staged, &prepared.owner, note, recheck);
        // Locks are given up here, and folders made for them go with them.
        batch.close();
        done
    }

    /// Locks FILE by creating FILE.lock with this content, waiting for others.
    pub(super) fn lock_file(
        &self,
        owner: &Arc<Owner>,
        path: &Path,
        content: Vec<u8>,
    ) -> Result<Lock> {
        let staged = self.locks.stage(owner, content)?;
        self.take_lock(staged, path, &mut BTreeSet::new(), || None)
    }

    /// Turns staged content into the lock on `path`. Directories that got new
    /// entries are added to `changed`; `above` tells what error a file in the
    /// place of a directory is.
    fn take_lock(
        &self,
        mut staged: Staged,
        path: &Path,
        changed: &mut BTreeSet<PathBuf>,
        above: impl Fn() -> Option<Error>,
    ) -> Result<Lock> {
        let lock_path = lock_path(path);
        let mut pause = self.pause();
        loop {
            staged = match self.locks.take(staged, &lock_path)? {
                Taken::Yes(lock) => return Ok(lock),
                Taken::Held(staged) => {
                    let holder = self.locks.holder(&lock_path);
                    if holder.map_or(Ok(false), |holder| self.recover(&holder))? {
                        pause = self.pause();
                    }
                    staged
                }
                Taken::NoParent(staged) => {
                    match make_dirs(path.parent().unwrap_or(path)) {
                        Ok(made) => {
                            if !made.is_empty() {
                                pause.next = Duration::ZERO;
                            }
                            changed.extend(made);
                        }
                        Err(Error::Io { source, .. })
                            if source.kind() == io::ErrorKind::NotADirectory =>
                        {
                            above().map_or(Ok(()), Err)?;
                        }
                        Err(error) => return Err(error),
                    }
                    // Somebody may prune what was just made: try again, within limits.
                    staged
                }
                Taken::FileAbove(staged) => {
                    above().map_or(Ok(()), Err)?;
                    staged
                }
            };
            if !pause.wait() {
                return Err(busy(&lock_path));
            }
        }
    }
}

fn busy(lock: &Path) -> Error {
    Error::Busy(format!(
        "{} is held by another process; if no git or dk is running there, remove that file",
        lock.display()
    ))
}

impl<'a> Batch<'a> {
    pub fn new(refs: &'a Refs) -> Self {
        Self {
            refs,
            plans: Vec::new(),
            idle: Vec::new(),
            packed: None,
            changed: BTreeSet::new(),
            lasting: true,
        }
    }

    fn run(
        &mut self,
        asked: &[(Vec<u8>, &HeadMove)],
        staged: Vec<Staged>,
        owner: &Arc<Owner>,
        note: &MoveNote,
        recheck: &mut dyn FnMut() -> Result<()>,
    ) -> Result<bool> {
        self.lock(asked, staged)?;
        for (plan, (target, head)) in self.plans.iter_mut().zip(asked) {
            let (now, current) = self.refs.resolve(head.name.as_bytes())?;
            if now != *target {
                return Ok(false);
            }
            plan.old = current;
            compare(head, current)?;
        }
        self.make_room()?;
        self.lock_packed(owner)?;
        recheck()?;
        let plans = std::mem::take(&mut self.plans);
        (self.plans, self.idle) = plans.into_iter().partition(|plan| plan.old != plan.new);
        for plan in &self.plans {
            let via = asked.binary_search_by(|(target, _)| target.cmp(&plan.target));
            let via = via.map_or(&plan.target[..], |at| asked[at].1.name.as_bytes());
            self.refs.log_move(via, plan, note)?;
        }
        self.commit(owner)?;
        Ok(true)
    }

    fn lock(&mut self, asked: &[(Vec<u8>, &HeadMove)], staged: Vec<Staged>) -> Result<()> {
        let refs = self.refs;
        for (staged, (target, head)) in staged.into_iter().zip(asked) {
            let above = || refs.ref_above(target).transpose();
            let lock = refs.take_lock(staged, &refs.path(target), &mut self.changed, || {
                above().map(|found| found.map_or_else(|e| e, |it| in_the_way(target, &it)))
            })?;
            self.plans.push(Plan {
                target: target.clone(),
                old: None,
                new: head.new,
                lock: Some(lock),
            });
        }
        Ok(())
    }

    /// Checks that the new names can stand beside those there are, and removes
    /// empty folders that stand where their files will.
    fn make_room(&self) -> Result<()> {
        let writes = self.plans.iter().filter(|plan| plan.new.is_some());
        for plan in writes {
            if plan.old.is_none()
                && let Some(other) = self.refs.ref_above(&plan.target)?
            {
                return Err(in_the_way(&plan.target, &other));
            }
            let path = self.refs.path(&plan.target);
            if plan.old.is_some() && !path.is_dir() {
                continue;
            }
            let mut pause = self.refs.pause();
            loop {
                let free = !path.is_dir() || remove_empty_dirs(&path);
                if let Some(other) = self.refs.ref_below(&plan.target)? {
                    return Err(in_the_way(&plan.target, &other));
                }
                if free {
                    break;
                }
                // Somebody holds a lock in there.
                if !pause.wait() {
                    return Err(Error::Busy(format!("{} is in use", path.display())));
                }
            }
        }
        Ok(())
    }

    /// Locks `packed-refs` where heads are deleted, and prepares it without them.
    pub fn lock_packed(&mut self, owner: &Arc<Owner>) -> Result<()> {
        let deleted = self
            .plans
            .iter()
            .filter(|plan| plan.new.is_none() && plan.old.is_some());
        let names: Vec<&[u8]> = deleted.map(|plan| &plan.target[..]).collect();
        if names.is_empty() {
            return Ok(());
        }
        // Also where it has none of them: no packer may bring one back.
        let path = self.refs.packed_path();
        let lock = self.refs.lock_file(owner, &path, Vec::new())?;
        let rest = self.refs.packed()?.without(&names)?;
        let rest = rest
            .map(|text| self.refs.locks.stage(owner, text))
            .transpose()?;
        self.packed = Some((lock, rest));
        Ok(())
    }

    fn commit(&mut self, owner: &Arc<Owner>) -> Result<()> {
        // Whoever wrote what is there already may not have synced it yet.
        let idle = self.idle.iter().filter(|plan| plan.new.is_some());
        self.changed
            .extend(idle.map(|plan| self.refs.folder(&plan.target)));
        if self.plans.is_empty() {
            return self.sync();
        }
        let several = self.plans.len() > 1;
        if several {
            if self.refs.durability == Durability::Strict {
                // The locks are what recovery goes by.
                self.changed
                    .extend(self.plans.iter().map(|plan| self.refs.folder(&plan.target)));
                self.sync()?;
            }
            let written = self
                .refs
                .locks
                .write_intent(owner, &super::recovery::intent(&self.plans));
            if let Err(error) = written {
                owner.withdraw_intent()?;
                return Err(error);
            }
        }
        let mut begun = false;
        let applied = self.apply(&mut begun);
        if begun {
            self.refs.notice.bump();
        }
        if applied.is_err() && several && (begun || owner.withdraw_intent().is_err()) {
            owner.abandon();
        }
        applied
    }

    /// Puts every head in its place, and syncs. `begun` is set when the first is.
    pub fn apply(&mut self, begun: &mut bool) -> Result<()> {
        let refs = self.refs;
        for plan in &mut self.plans {
            let (Some(_), Some(lock)) = (plan.new, &mut plan.lock) else {
                continue;
            };
            let path = refs.path(&plan.target);
            lock.commit(&path)
                .or_else(|error| {
                    // A folder came back; if it is empty it goes again.
                    if !path.is_dir() || !remove_empty_dirs(&path) {
                        return Err(error);
                    }
                    lock.commit(&path)
                })
                .map_err(Error::io(format!("cannot write {}", path.display())))?;
            *begun = true;
            self.changed.insert(refs.folder(&plan.target));
        }
        if let Some((_, rest)) = &mut self.packed
            && let Some(rest) = rest.take()
        {
            let path = refs.packed_path();
            rest.put(&path)
                .map_err(Error::io(format!("cannot write {}", path.display())))?;
            *begun = true;
            if refs.durability == Durability::Strict {
                // Before the files: or a crash could bring back what they hid.
                sync_dir(&refs.common_dir).map_err(Error::io(format!(
                    "cannot sync {}",
                    refs.common_dir.display()
                )))?;
            }
        }
        for plan in self.plans.iter().filter(|plan| plan.new.is_none()) {
            let path = refs.path(&plan.target);
            match fs::remove_file(&path) {
                Err(error) if !is_absent(&error) && !path.is_dir() => {
                    return Err(Error::io(format!("cannot remove {}", path.display()))(
                        error,
                    ));
                }
                _ => *begun = true,
            }
            self.changed.insert(refs.folder(&plan.target));
            refs.drop_log(&plan.target);
        }
        self.sync()
    }

    fn sync(&mut self) -> Result<()> {
        let changed = std::mem::take(&mut self.changed);
        if self.refs.durability != Durability::Strict || !self.lasting {
            return Ok(());
        }
        changed.iter().try_for_each(|dir| match sync_dir(dir) {
            // Pruned since: the sync of the one above tells.
            Err(error) if !is_absent(&error) => {
                Err(Error::io(format!("cannot sync {}", dir.display()))(error))
            }
            _ => Ok(()),
        })
    }

    /// Gives up all locks, and removes folders that nothing is in.
    pub fn close(self) {
        drop(self.packed);
        for mut plan in self.plans.into_iter().chain(self.idle) {
            let done = plan.lock.take();
            drop(done);
            let path = self.refs.path(&plan.target);
            if plan.new.is_none() || !path.exists() {
                prune_above(&path, &plan.target);
            }
        }
    }
}

impl Refs {
    fn folder(&self, name: &[u8]) -> PathBuf {
        let path = self.path(name);
        path.parent().map_or_else(|| path.clone(), Path::to_owned)
    }

    /// Returns a ref whose name is the beginning of this one, up to a slash.
    fn ref_above(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        for above in prefixes(name) {
            if self.value(above)?.is_some() {
                return Ok(Some(above.to_vec()));
            }
        }
        Ok(None)
    }

    /// Returns a ref whose name begins with this one and a slash.
    fn ref_below(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let folder = [name, b"/"].concat();
        if self.path(name).is_dir() {
            let mut found = Vec::new();
            self.walk(&folder, &mut found)?;
            if let Some((name, _)) = found.pop() {
                return Ok(Some(name));
            }
        }
        let packed = self.packed()?;
        let first = packed.with_prefix(&folder).next().transpose()?;
        Ok(first.map(|(name, _)| name.to_vec()))
    }
}

fn compare(head: &HeadMove, actual: Option<ObjectId>) -> Result<()> {
    let expected = match head.expected {
        Expected::Id(id) if actual != Some(id) => Expect::Head(id),
        Expected::Missing if actual.is_some() => Expect::Unborn,
        _ => return Ok(()),
    };
    Err(Error::HeadMoved {
        name: head.name.shown(),
        expected,
        actual,
    })
}

fn in_the_way(new: &[u8], old: &[u8]) -> Error {
    let what = |name: &[u8]| {
        HeadName::from_full(name).map_or_else(|| quote(name).to_string(), |name| name.shown())
    };
    Error::Exists(format!("cannot create {}: {}", what(new), what(old)))
}

/// The names that would have to be folders for `name` to be a file, below the
/// first two parts.
fn prefixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = name.iter().enumerate().filter(|(_, b)| **b == b'/');
    slashes.skip(1).map(|(slash, _)| &name[..slash])
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::NotFound | K::NotADirectory)
}

/// Pauses between two looks at a lock: from half a millisecond to 50, each of
/// random length, so that many do not look at once.
struct Pause {
    /// How much longer to wait in all; `None`: for ever.
    patience: Option<Duration>,
    next: Duration,
}

impl Pause {
    /// Waits, unless patience has run out.
    fn wait(&mut self) -> bool {
        let whole = u64::try_from(self.next.as_micros()).unwrap_or(u64::MAX);
        let time = Duration::from_micros(whole / 2 + random() % (whole / 2 + 1));
        if let Some(patience) = &mut self.patience {
            let Some(left) = patience.checked_sub(time) else {
                return false;
            };
            *patience = left;
        }
        if !time.is_zero() {
            thread::sleep(time);
        }
        let next = (self.next * 2).min(Duration::from_millis(50));
        self.next = next.max(Duration::from_micros(500));
        true
    }
}
