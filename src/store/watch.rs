//! Following a branch: every commit of its first-parent chain once, none
//! missed and none repeated.
//!
//! A [`Watch`] keeps no queue of commits: it remembers the last one it went
//! past and reads history from there, so a slow reader costs nothing. It
//! sleeps on the [`Hub`], which looks at each watched branch once a change and
//! wakes only those whose path differs, comparing trees from the root down.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::request::{Event, Since, WatchQuery};
use crate::model::{BranchName, Change, Entry, Mode, ObjectId, TreePath};

use super::engine::HeadName;
use super::history::Chain;
use super::pin::Pins;
use super::{Error, Result, Store, diff, history};

/// One reader of a branch.
pub struct Watch {
    store: Arc<Store>,
    query: WatchQuery,
    /// The commit gone past last; before the first: nothing.
    last: Option<ObjectId>,
    /// A commit read before, and its tree: mostly `last`.
    tree: Option<(ObjectId, ObjectId)>,
    /// What it had, where commits follow each other without a pause.
    known: diff::Known,
    /// Commits to go past, oldest first.
    pending: VecDeque<ObjectId>,
    /// The next of `pending` does not continue `last`.
    reset: bool,
    /// The deletion of the branch was told, and it was not born again.
    deleted: bool,
    /// The present tree is to be told first.
    current: bool,
    /// Where what it has read is to last.
    pins: Option<Arc<Pins>>,
    seat: Seat,
}

impl Watch {
    /// Takes a seat before the head is read, so that nothing falls in between.
    pub fn new(store: Arc<Store>, query: WatchQuery) -> Result<Self> {
        let path = (!query.unchanged).then(|| query.path.clone());
        let seat = Seat::take(&store, &query.branch, path)?;
        let head = store.engine.head(&HeadName::branch(&query.branch))?;
        let last = match query.since {
            Since::Now | Since::Current => head,
            Since::Beginning => None,
            Since::Commit(id) => {
                store.objects.commit(&id)?;
                Some(id)
            }
        };
        Ok(Self {
            current: query.since == Since::Current && head.is_some(),
            store,
            query,
            last,
            tree: None,
            known: diff::Known::default(),
            pending: VecDeque::new(),
            reset: false,
            deleted: false,
            pins: None,
            seat,
        })
    }

    /// Keeps the commit gone past last from being collected, for as long as
    /// this lives.
    pub fn pinned(mut self) -> Self {
        self.pins = Some(self.seat.keep());
        self
    }

    /// Returns what to wait for once [`Watch::advance`] has nothing more.
    pub fn bell(&self) -> Arc<Notify> {
        self.seat.bell()
    }

    /// Returns the commit to resume after: nothing before the first.
    pub fn position(&self) -> Option<ObjectId> {
        self.last
    }

    /// Returns the next event that is there already; never waits.
    pub fn advance(&mut self) -> Result<Option<Event>> {
        if std::mem::take(&mut self.current)
            && let Some(head) = self.last
        {
            let event = self.event(None, head, false)?;
            if event.is_some() {
                return Ok(event);
            }
        }
        loop {
            while let Some(id) = self.pending.pop_front() {
                let reset = std::mem::take(&mut self.reset);
                let event = self.event(self.last, id, reset)?;
                self.last = Some(id);
                if event.is_some() {
                    return Ok(event);
                }
            }
            let head = self
                .store
                .engine
                .head(&HeadName::branch(&self.query.branch))?;
            let Some(head) = head else {
                return Ok(match self.last {
                    Some(previous) if !self.deleted => {
                        self.deleted = true;
                        Some(Event::Deleted { previous })
                    }
                    _ => None,
                });
            };
            self.deleted = false;
            if self.last == Some(head) {
                // Whoever waits, perhaps for long, holds nothing.
                self.known = diff::Known::default();
                if let Some(pins) = &self.pins {
                    pins.let_go();
                }
                return Ok(None);
            }
            // A collector may have taken what was left behind by a reset.
            if let Some(last) = self.last
                && self.store.engine.header(&last)?.is_none()
            {
                self.last = None;
                self.reset = true;
                self.pending = [head].into();
                continue;
            }
            let chain = history::first_parents(&self.store.objects, &head, self.last.as_ref())?;
            match chain {
                Chain::Found(ids) | Chain::Joined(ids) => self.pending = ids.into(),
                Chain::Unrelated => {
                    self.reset = true;
                    self.pending = [head].into();
                }
            }
            if self.query.latest {
                self.pending = [head].into();
            }
        }
    }

    /// Makes the event of going from one commit to another; nothing where that
    /// changes nothing here.
    fn event(
        &mut self,
        from: Option<ObjectId>,
        to: ObjectId,
        reset: bool,
    ) -> Result<Option<Event>> {
        let objects = &self.store.objects;
        let commit = objects.commit(&to)?;
        let old = match from {
            Some(id) => {
                let tree = match self.tree {
                    Some((read, tree)) if read == id => tree,
                    _ => objects.commit(&id)?.tree,
                };
                objects.lookup(&tree, &self.query.path)?
            }
            None => None,
        };
        self.tree = Some((to, commit.tree));
        let new = objects.lookup(&commit.tree, &self.query.path)?;
        let mut changes: Vec<Change> = Vec::new();
        if old != new {
            diff::diff_again(
                objects,
                old.as_ref(),
                new.as_ref(),
                &self.query.path,
                &mut self.known,
                &mut |change| {
                    changes.push(change);
                    Ok(())
                },
            )?;
        }
        if changes.is_empty() && !reset && !self.query.unchanged {
            return Ok(None);
        }
        Ok(Some(Event::Commit {
            commit: Box::new(commit),
            previous: from,
            reset,
            changes,
        }))
    }
}

/// Wakes the watches of one store.
#[derive(Default)]
pub struct Hub {
    branches: Mutex<HashMap<BranchName, Watched>>,
}

/// Readers, each found by where it is, so that one of many is quickly let go.
struct Many<T>(HashMap<usize, Arc<T>>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Many<T> {
    fn add(&mut self, one: &Arc<T>) {
        self.0.insert(Arc::as_ptr(one).addr(), one.clone());
    }

    fn remove(&mut self, one: &Arc<T>) {
        self.0.remove(&Arc::as_ptr(one).addr());
        // What many readers took is given back.
        if self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to_fit();
        }
    }
}

/// One branch somebody watches.
struct Watched {
    /// The head at the last look.
    head: Option<ObjectId>,
    root: Place,
    /// Readers of every move, whatever it changes.
    every: Many<Notify>,
    /// Readers of each single move.
    logs: Many<Moves>,
    /// Readers for whom what they have read is kept.
    kept_for: Many<Pins>,
    /// Moves told so far by who made them.
    told: u64,
    readers: usize,
}

impl Watched {
    fn new(head: Option<ObjectId>) -> Self {
        Self {
            head,
            root: Place::default(),
            every: Many::default(),
            logs: Many::default(),
            kept_for: Many::default(),
            told: 0,
            readers: 0,
        }
    }
}

/// Moves of a branch kept for a slow reader.
const KEPT: usize = 1024;

/// Every single move of a branch from now on, for one reader, who sees moves by
/// this process one by one and those of others as they are noticed.
pub struct MoveLog {
    seat: Seat,
    moves: Arc<Moves>,
}

#[derive(Default)]
struct Moves {
    kept: Mutex<Kept>,
    bell: Arc<Notify>,
}

#[derive(Default)]
struct Kept {
    last: Option<ObjectId>,
    heads: VecDeque<Option<ObjectId>>,
    /// More came than is kept.
    overrun: bool,
}

impl Moves {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, head: Option<ObjectId>) {
        let mut kept = self.kept();
        if kept.last == head {
            return;
        }
        kept.last = head;
        if kept.heads.len() < KEPT {
            kept.heads.push_back(head);
        } else {
            kept.overrun = true;
        }
        drop(kept);
        self.bell.notify_one();
    }
}

impl MoveLog {
    /// Begins with the next move.
    pub fn new(store: &Arc<Store>, branch: &BranchName) -> Result<Self> {
        let moves = Arc::new(Moves::default());
        let seat = Seat::sit(store, branch, |watched| {
            moves.kept().last = watched.head;
            watched.logs.add(&moves);
            Sitting::Log(moves.clone())
        })?;
        Ok(Self { seat, moves })
    }

    /// Returns what rings when there is something to take.
    pub fn bell(&self) -> Arc<Notify> {
        self.seat.bell()
    }

    /// Takes the next move: the new head, or nothing for a deletion. After more
    /// than 1,024 moves that were not taken: [`Error::Overrun`].
    pub fn take(&self) -> Result<Option<Option<ObjectId>>> {
        let mut kept = self.moves.kept();
        match kept.heads.pop_front() {
            None if kept.overrun => Err(Error::Overrun(format!(
                "more than {KEPT} moves were not read"
            ))),
            head => Ok(head),
        }
    }
}

/// The readers of one path, and of those below it.
#[derive(Default)]
struct Place {
    bells: Many<Notify>,
    below: HashMap<Vec<u8>, Place>,
}

impl Hub {
    fn branches(&self) -> MutexGuard<'_, HashMap<BranchName, Watched>> {
        // A panic elsewhere leaves the map whole: each change is one call.
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader's place in the hub, given up when it is dropped.
pub struct Seat {
    store: Arc<Store>,
    branch: BranchName,
    sitting: Sitting,
    pins: Option<Arc<Pins>>,
}

/// What a reader waits for.
enum Sitting {
    Every(Arc<Notify>),
    Path(TreePath, Arc<Notify>),
    Log(Arc<Moves>),
}

impl Seat {
    /// Takes a place. Without a `path` it is woken at every move of the branch;
    /// with one, when what stands there changes. What is read after this call
    /// is as it was at the last ring, or newer.
    pub fn take(store: &Arc<Store>, branch: &BranchName, path: Option<TreePath>) -> Result<Self> {
        let bell = Arc::new(Notify::new());
        Self::sit(store, branch, |watched| match path {
            None => {
                watched.every.add(&bell);
                Sitting::Every(bell)
            }
            Some(path) => {
                let mut place = &mut watched.root;
                for step in path.steps() {
                    place = place.below.entry(step.to_vec()).or_default();
                }
                place.bells.add(&bell);
                Sitting::Path(path, bell)
            }
        })
    }

    fn sit(
        store: &Arc<Store>,
        branch: &BranchName,
        sit: impl FnOnce(&mut Watched) -> Sitting,
    ) -> Result<Self> {
        let head = store.engine.head(&HeadName::branch(branch))?;
        let mut branches = store.hub.branches();
        let watched = branches
            .entry(branch.clone())
            .or_insert_with(|| Watched::new(head));
        watched.readers += 1;
        let sitting = sit(watched);
        drop(branches);
        Ok(Self {
            store: store.clone(),
            branch: branch.clone(),
            sitting,
            pins: None,
        })
    }

    /// Has what the reader may have read last kept from now on.
    fn keep(&mut self) -> Arc<Pins> {
        let pins = Pins::new(self.bell());
        if let Some(watched) = self.store.hub.branches().get_mut(&self.branch) {
            watched.kept_for.add(&pins);
        }
        self.pins = Some(pins.clone());
        pins
    }

    /// Returns what rings. A ring that nobody waits for is kept for who waits next.
    pub fn bell(&self) -> Arc<Notify> {
        match &self.sitting {
            Sitting::Every(bell) | Sitting::Path(_, bell) => bell.clone(),
            Sitting::Log(moves) => moves.bell.clone(),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut branches = self.store.hub.branches();
        let Some(watched) = branches.get_mut(&self.branch) else {
            return;
        };
        watched.readers -= 1;
        if watched.readers == 0 {
            branches.remove(&self.branch);
            return;
        }
        if let Some(pins) = &self.pins {
            watched.kept_for.remove(pins);
        }
        match &self.sitting {
            Sitting::Every(bell) => watched.every.remove(bell),
            Sitting::Log(moves) => watched.logs.remove(moves),
            Sitting::Path(path, bell) => {
                let steps: Vec<&[u8]> = path.steps().collect();
                watched.root.leave(&steps, bell);
            }
        }
    }
}

impl Place {
    fn leave(&mut self, steps: &[&[u8]], bell: &Arc<Notify>) {
        match steps.split_first() {
            None => self.bells.remove(bell),
            Some((step, rest)) => {
                if let Some(place) = self.below.get_mut(*step) {
                    place.leave(rest, bell);
                    if place.bells.0.is_empty() && place.below.is_empty() {
                        self.below.remove(*step);
                    }
                }
            }
        }
    }

    fn ring_all(&self) {
        for bell in self.bells.0.values() {
            bell.notify_one();
        }
        for place in self.below.values() {
            place.ring_all();
        }
    }

    /// Rings where two trees differ, looking only below what does.
    fn ring(&self, store: &Store, old: Option<Entry>, new: Option<Entry>) -> Result<()> {
        if old == new {
            return Ok(());
        }
        for bell in self.bells.0.values() {
            bell.notify_one();
        }
        if self.below.is_empty() {
            return Ok(());
        }
        let tree = |entry: Option<Entry>| match entry {
            Some(entry) if entry.mode.is_dir() => store.objects.tree(&entry.id).map(Some),
            _ => Ok(None),
        };
        let (old, new) = (tree(old)?, tree(new)?);
        for (name, place) in &self.below {
            let at = |tree: &Option<Arc<super::objects::Tree>>| tree.as_ref()?.get(name);
            place.ring(store, at(&old), at(&new))?;
        }
        Ok(())
    }
}

impl Store {
    /// Looks at every watched branch and wakes whom a change concerns. Called
    /// by the store's owner whenever the engine says that heads may have moved.
    pub fn look(&self) -> Result<()> {
        let names: Vec<BranchName> = self.hub.branches().keys().cloned().collect();
        for name in names {
            let told = |hub: &Hub| hub.branches().get(&name).map(|watched| watched.told);
            let mut before = told(&self.hub);
            let (mut branches, head) = loop {
                let head = self.engine.head(&HeadName::branch(&name))?;
                let branches = self.hub.branches();
                // A move told meanwhile may be newer than what was read.
                let now = branches.get(&name).map(|watched| watched.told);
                if now == before {
                    break (branches, head);
                }
                before = now;
            };
            let Some(watched) = branches.get_mut(&name) else {
                continue;
            };
            for log in watched.logs.0.values() {
                log.tell(head);
            }
            let before = std::mem::replace(&mut watched.head, head);
            if before == head {
                continue;
            }
            for bell in watched.every.0.values() {
                bell.notify_one();
            }
            let root = |id: Option<ObjectId>| -> Result<Option<Entry>, Error> {
                id.map(|id| {
                    Ok(Entry {
                        mode: Mode::DIR,
                        id: self.objects.commit(&id)?.tree,
                    })
                })
                .transpose()
            };
            let aside = self.moved_aside(before, head);
            // Births, deaths and heads that cannot be read concern everybody.
            match (root(before), root(head)) {
                (Ok(Some(old)), Ok(Some(new))) if !aside => {
                    if watched.root.ring(self, Some(old), Some(new)).is_err() {
                        watched.root.ring_all();
                    }
                }
                _ => watched.root.ring_all(),
            }
            if let Some(before) = before.filter(|_| aside) {
                let readers: Vec<_> = watched.kept_for.0.values().cloned().collect();
                drop(branches);
                self.keep_for(&readers, &before, head.as_ref());
            }
        }
        Ok(())
    }

    /// Tells readers of single moves of one that was made here, in the turn of
    /// who made it.
    pub(super) fn moved(&self, name: &HeadName, head: Option<ObjectId>) {
        let Some(name) = name.as_bytes().strip_prefix(b"refs/heads/") else {
            return;
        };
        let mut branches = self.hub.branches();
        if branches.is_empty() {
            return;
        }
        let Ok(name) = BranchName::new(name) else {
            return;
        };
        if let Some(watched) = branches.get_mut(&name) {
            watched.told += 1;
            for log in watched.logs.0.values() {
                log.tell(head);
            }
        }
    }

    /// Returns how many readers wait for changes of branches.
    pub fn readers(&self) -> usize {
        let branches = self.hub.branches();
        branches.values().map(|watched| watched.readers).sum()
    }

    /// Tells whether a head went elsewhere than to a child of the one before:
    /// what lies between the two may concern a path that is equal in both.
    fn moved_aside(&self, before: Option<ObjectId>, head: Option<ObjectId>) -> bool {
        let (Some(before), Some(head)) = (before, head) else {
            return true;
        };
        match self.objects.commit(&head) {
            Ok(commit) => commit.parents.first() != Some(&before),
            Err(_) => true,
        }
    }
}
