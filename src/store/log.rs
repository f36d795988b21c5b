//! Commits as `git log` gives them: which, and in which order.
//!
//! This is the walk of Git's revision.c. The newest of the commits that wait is
//! next; its parents join those that wait. With paths, a commit is compared
//! with its parents there ("default history simplification" of git-log(1)).
//! With hidden commits the whole list is made before the first is given, as
//! in Git. Memory: an id for each commit passed, and a bounded number of
//! commits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::model::request::LogQuery;
use crate::model::{Commit, Entry, Mode, ObjectId, TreePath};

use super::engine::Node;
use super::history::{IdMap, Waiting, expected, node};
use super::objects::Objects;
use super::walk::Entries;
use super::{Error, Result};

/// Hidden history read beyond the last commit of the list, in case a
/// committer's clock was wrong. Git reads 5.
const SLOP: u32 = 256;
/// Commits that wait with all their text; beyond, they are read again.
const BODIES: usize = 1024;
/// Answers of [`Log::print`] kept.
const PRINTS: usize = 4096;

const SEEN: u8 = 1;
const QUEUED: u8 = 2;
const HIDDEN: u8 = 4;
/// Hidden by name, not only reached from one that is.
const BOTTOM: u8 = 8;
/// Changes nothing at the paths asked for.
const SAME: u8 = 16;

/// The commits a query asks for, newest first by commit time as `git log`
/// orders them, read as they are asked for. After a failure nothing follows.
pub struct Log {
    objects: Arc<Objects>,
    query: LogQuery,
    started: bool,
    /// Commits still to be given.
    left: u64,
    flags: IdMap<u8>,
    queue: BinaryHeap<Waiting<Read>>,
    order: u64,
    /// Commits in the queue that are not hidden.
    live: usize,
    /// Parents of the commits read, where commits may turn out to be hidden.
    families: IdMap<Vec<ObjectId>>,
    /// With hidden commits: the list, newest last.
    list: Vec<ObjectId>,
    /// What trees have at the paths.
    prints: IdMap<Print>,
    buffer: Vec<u8>,
}

/// What a tree has at each of the query's paths.
type Print = Arc<[Option<Entry>]>;

#[derive(Debug, PartialEq, Eq)]
struct Read {
    node: Node,
    body: Option<Box<Commit>>,
}

impl Log {
    pub fn new(objects: Arc<Objects>, query: LogQuery) -> Self {
        Self {
            objects,
            started: false,
            left: query.limit.unwrap_or(u64::MAX),
            query,
            flags: IdMap::default(),
            queue: BinaryHeap::new(),
            order: 0,
            live: 0,
            families: IdMap::default(),
            list: Vec::new(),
            prints: IdMap::default(),
            buffer: Vec::new(),
        }
    }

    fn limited(&self) -> bool {
        !self.query.hidden.is_empty()
    }

    fn find(&mut self) -> Result<Option<Commit>> {
        if !self.started {
            self.started = true;
            self.start()?;
            if self.limited() {
                self.limit()?;
                self.list.reverse();
            }
        }
        if self.limited() {
            while let Some(id) = self.list.pop() {
                if self.is(&id, HIDDEN | SAME) {
                    continue;
                }
                return self.objects.commit_with(&id, &mut self.buffer).map(Some);
            }
            return Ok(None);
        }
        while let Some(next) = self.queue.pop() {
            let shown = self.pass(&next.id, &next.rest.node)?;
            if shown {
                return match next.rest.body {
                    Some(body) => Ok(Some(*body)),
                    None => self
                        .objects
                        .commit_with(&next.id, &mut self.buffer)
                        .map(Some),
                };
            }
        }
        Ok(None)
    }

    /// Puts the commits of the query into the queue, those given first first
    /// among equally old ones.
    fn start(&mut self) -> Result<()> {
        for id in self.query.from.clone() {
            self.enter(&id)?;
        }
        for id in self.query.hidden.clone() {
            self.set(&id, BOTTOM);
            self.enter(&id)?;
            self.hide(vec![id])?;
        }
        Ok(())
    }

    fn is(&self, id: &ObjectId, flags: u8) -> bool {
        self.flags.get(id).is_some_and(|known| known & flags != 0)
    }

    fn set(&mut self, id: &ObjectId, flags: u8) {
        *self.flags.entry(*id).or_default() |= flags;
    }

    /// Lets a commit wait for its turn, once.
    fn enter(&mut self, id: &ObjectId) -> Result<()> {
        if !self.is(id, SEEN) {
            let read = self.read(id)?;
            self.push(id, read);
        }
        Ok(())
    }

    fn push(&mut self, id: &ObjectId, rest: Read) {
        self.set(id, SEEN | QUEUED);
        if !self.is(id, HIDDEN) {
            self.live += 1;
        }
        if self.limited() {
            self.families.insert(*id, rest.node.parents.clone());
        }
        self.order += 1;
        self.queue.push(Waiting {
            time: rest.node.time,
            order: Reverse(self.order),
            id: *id,
            rest,
        });
    }

    fn read(&mut self, id: &ObjectId) -> Result<Read> {
        // Where most commits are passed over, only what the walk needs is read.
        let lean = self.limited() || !self.query.paths.is_empty() || self.queue.len() >= BODIES;
        if lean {
            let node = match self.objects.engine.indexed(id) {
                Some(node) => node,
                None => node(&self.objects, id, &mut self.buffer)?,
            };
            return Ok(Read { node, body: None });
        }
        let commit = self.objects.commit_with(id, &mut self.buffer)?;
        Ok(Read {
            node: Node {
                tree: commit.tree,
                parents: commit.parents.clone(),
                time: commit.committer.time.seconds,
            },
            body: Some(Box::new(commit)),
        })
    }

    fn read_parent(&mut self, id: &ObjectId) -> Result<Read> {
        self.read(id).map_err(|error| expected(id, error))
    }

    /// Makes the list of commits that no hidden one reaches.
    fn limit(&mut self) -> Result<()> {
        let mut slop = SLOP;
        let mut oldest = i64::MAX;
        while let Some(next) = self.queue.pop() {
            *self.flags.entry(next.id).or_default() &= !QUEUED;
            if !self.is(&next.id, HIDDEN) {
                self.live -= 1;
                self.pass(&next.id, &next.rest.node)?;
                oldest = oldest.min(next.time);
                self.list.push(next.id);
                continue;
            }
            for parent in next.rest.node.parents {
                self.enter_hidden(&parent)?;
                self.hide(vec![parent])?;
                let above = self.families.get(&parent).cloned();
                self.hide(above.unwrap_or_default())?;
            }
            slop = match self.queue.peek() {
                None => break,
                Some(first) if first.time >= oldest || self.live > 0 => SLOP,
                Some(_) => slop - 1,
            };
            if slop == 0 {
                break;
            }
        }
        self.queue.clear();
        self.families.clear();
        Ok(())
    }

    /// As [`Log::enter`], for a commit that a hidden one names as parent: it
    /// may be beyond what was ever fetched.
    fn enter_hidden(&mut self, id: &ObjectId) -> Result<()> {
        match self.enter(id) {
            Err(Error::NotFound(_)) => {
                self.set(id, SEEN);
                Ok(())
            }
            other => other,
        }
    }

    /// Marks commits and what is known of their ancestors as hidden.
    fn hide(&mut self, mut todo: Vec<ObjectId>) -> Result<()> {
        while let Some(id) = todo.pop() {
            if self.is(&id, HIDDEN) {
                continue;
            }
            self.set(&id, HIDDEN);
            let passed = !self.is(&id, QUEUED);
            if !passed {
                self.live -= 1;
            }
            let Some(parents) = self.families.get(&id).cloned() else {
                continue;
            };
            for parent in parents {
                // A side that simplification had left aside counts now.
                if passed {
                    self.enter_hidden(&parent)?;
                }
                todo.push(parent);
            }
        }
        Ok(())
    }

    /// Sends the parents to be followed into the queue. Tells whether the
    /// commit changes something at the paths.
    fn pass(&mut self, id: &ObjectId, node: &Node) -> Result<bool> {
        if self.query.paths.is_empty() {
            let followed = if self.query.first_parent {
                1
            } else {
                usize::MAX
            };
            for parent in node.parents.iter().take(followed) {
                if !self.is(parent, SEEN) {
                    let read = self.read_parent(parent)?;
                    self.push(parent, read);
                }
            }
            return Ok(true);
        }
        let (same, followed) = self.simplify(node)?;
        if same {
            self.set(id, SAME);
        }
        for (parent, read) in followed {
            if !self.is(&parent, SEEN) {
                self.push(&parent, read);
            }
        }
        Ok(!same)
    }

    /// Compares a commit with its parents at the paths. Returns whether it
    /// changes nothing there, and the parents to be followed.
    fn simplify(&mut self, node: &Node) -> Result<(bool, Vec<(ObjectId, Read)>)> {
        if node.parents.is_empty() {
            let print = self.print(&node.tree)?;
            return Ok((print.iter().all(Option::is_none), Vec::new()));
        }
        let mut followed = Vec::new();
        // A parent counts unless it is reached from a hidden one: those do not
        // keep a merge in the list. With only such parents, they count.
        let (mut counting, mut changes, mut other_changes) = (false, false, false);
        for (nth, parent) in node.parents.iter().enumerate() {
            let counts = !self.is(parent, HIDDEN) || self.is(parent, BOTTOM);
            counting |= counts;
            if nth == 1 && self.query.first_parent {
                break;
            }
            let read = self.read_parent(parent)?;
            let same = read.node.tree == node.tree
                || self.print(&read.node.tree)? == self.print(&node.tree)?;
            if same && counts {
                return Ok((true, vec![(*parent, read)]));
            }
            if !same {
                changes |= counts;
                other_changes |= !counts;
            }
            followed.push((*parent, read));
        }
        let same = if counting { !changes } else { !other_changes };
        Ok((same, followed))
    }

    fn print(&mut self, tree: &ObjectId) -> Result<Print> {
        if let Some(print) = self.prints.get(tree) {
            return Ok(print.clone());
        }
        let mut print = Vec::with_capacity(self.query.paths.len());
        let buffer = std::mem::take(&mut self.buffer);
        let root = Entries::open(&self.objects, tree, buffer)?;
        for path in &self.query.paths {
            let entry = match path.steps().next() {
                None => Some(Entry {
                    mode: Mode::DIR,
                    id: *tree,
                }),
                Some(step) => match root.find(step)? {
                    Some(entry) => below(&self.objects, entry, path)?,
                    None => None,
                },
            };
            // A folder without a leaf is nothing.
            print.push(entry.filter(|e| !e.mode.is_dir() || e.id != self.objects.empty_tree()));
        }
        self.buffer = root.into_buffer();
        if self.prints.len() == PRINTS {
            self.prints.clear();
        }
        let print = Print::from(print);
        self.prints.insert(*tree, print.clone());
        Ok(print)
    }
}

/// Follows all but the first step of a path.
fn below(objects: &Objects, first: Entry, path: &TreePath) -> Result<Option<Entry>> {
    let mut entry = first;
    for step in path.steps().skip(1) {
        if !entry.mode.is_dir() {
            return Ok(None);
        }
        match objects.tree(&entry.id)?.get(step) {
            Some(next) => entry = next,
            None => return Ok(None),
        }
    }
    Ok(Some(entry))
}

impl Iterator for Log {
    type Item = Result<Commit>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let found = self.find().transpose();
        self.left = match found {
            Some(Ok(_)) => self.left - 1,
            _ => 0,
        };
        found
    }
}
