//! Questions about the graph of commits: who descends from whom.
//!
//! Commit times only say where to look first. Every answer here is right
//! whatever the clocks of the committers said; wrong clocks cost time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::model::ObjectId;

use super::engine::{Node, ObjectKind};
use super::objects::{Fresh, Objects, corrupt};
use super::{Error, Result};

pub use super::log::Log;

/// Returns the best common ancestors of two commits: those that no other
/// common ancestor reaches, as `git merge-base --all`. None where the two are
/// unrelated.
pub fn merge_bases(objects: &Objects, a: &ObjectId, b: &ObjectId) -> Result<Vec<ObjectId>> {
    Graph::new(objects, None).merge_bases(a, b)
}

/// Tells whether `of` reaches `ancestor`; a commit reaches itself.
pub fn is_ancestor(objects: &Objects, ancestor: &ObjectId, of: &ObjectId) -> Result<bool> {
    Graph::new(objects, None).is_ancestor(ancestor, of)
}

/// Part of a first-parent chain, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Everything after the commit asked for.
    Found(Vec<ObjectId>),
    /// The commit is reached through another parent only: the chain from its
    /// oldest commit that contains it.
    Joined(Vec<ObjectId>),
    /// The head does not reach the commit.
    Unrelated,
}

/// Walks first parents from `head` back to `until`, which is left out; without
/// it, to the beginning.
pub fn first_parents(
    objects: &Objects,
    head: &ObjectId,
    until: Option<&ObjectId>,
) -> Result<Chain> {
    let mut graph = Graph::new(objects, None);
    let until_time = match until {
        Some(until) => graph.node(until)?.time,
        None => i64::MIN,
    };
    let mut newest_first = Vec::new();
    // How many of them may contain `until`.
    let mut without = None;
    // Below a commit older than `until` it is hardly found. So that the whole
    // history is not read for nothing, ask there, and then ever more seldom.
    let mut ask_at = 0;
    let mut next = Some(*head);
    while let Some(id) = next {
        if Some(&id) == until {
            newest_first.reverse();
            return Ok(Chain::Found(newest_first));
        }
        let node = if newest_first.is_empty() {
            graph.node(&id)?
        } else {
            graph.parent(&id)?
        };
        if let Some(until) = until
            && node.time < until_time
            && newest_first.len() >= ask_at
        {
            if !graph.is_ancestor(until, &id)? {
                without = Some(newest_first.len());
                break;
            }
            ask_at = newest_first.len() * 2 + 1;
        }
        newest_first.push(id);
        next = node.parents.first().copied();
    }
    let Some(until) = until else {
        newest_first.reverse();
        return Ok(Chain::Found(newest_first));
    };
    if without == Some(0) || !graph.is_ancestor(until, head)? {
        return Ok(Chain::Unrelated);
    }
    // The newer part of the chain contains it, the older does not.
    let (mut with, mut without) = (1, without.unwrap_or(newest_first.len()));
    while with < without {
        let middle = with + (without - with) / 2;
        if graph.is_ancestor(until, &newest_first[middle])? {
            with = middle + 1;
        } else {
            without = middle;
        }
    }
    newest_first.truncate(with);
    newest_first.reverse();
    Ok(Chain::Joined(newest_first))
}

/// A map by id. Ids are hashes already: their first bytes do.
pub(super) type IdMap<V> = HashMap<ObjectId, V, BuildHasherDefault<IdHasher>>;

#[derive(Clone, Copy, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_u8(&mut self, _: u8) {}

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A commit that waits for its turn: the newest is next, and of equally old
/// ones the first that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Waiting<T> {
    pub time: i64,
    pub order: Reverse<u64>,
    pub id: ObjectId,
    pub rest: T,
}

impl<T: Eq> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.order).cmp(&(other.time, other.order))
    }
}

impl<T: Eq> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Reached from the first commit.
const ONE: u8 = 1;
/// Reached from one of the others.
const TWO: u8 = 2;
/// Reached from a common ancestor.
const STALE: u8 = 4;
const RESULT: u8 = 8;
const QUEUED: u8 = 16;

/// Commits as a graph, those not yet written included.
pub(super) struct Graph<'a> {
    objects: &'a Objects,
    fresh: Option<&'a Fresh>,
    buffer: Vec<u8>,
}

impl<'a> Graph<'a> {
    pub fn new(objects: &'a Objects, fresh: Option<&'a Fresh>) -> Self {
        Self {
            objects,
            fresh,
            buffer: Vec::new(),
        }
    }

    /// Reads a commit that somebody asked for: unknown, it does not exist.
    pub fn node(&mut self, id: &ObjectId) -> Result<Node> {
        if let Some(object) = self.fresh.and_then(|fresh| fresh.get(id))
            && object.kind == ObjectKind::Commit
        {
            return read_node(&object.data).ok_or_else(|| malformed(id));
        }
        node(self.objects, id, &mut self.buffer)
    }

    /// Reads a commit that another one names: it has to be there.
    pub fn parent(&mut self, id: &ObjectId) -> Result<Node> {
        match self.objects.engine.indexed(id) {
            Some(node) => Ok(node),
            None => self.node(id).map_err(|error| expected(id, error)),
        }
    }

    pub fn is_ancestor(&mut self, ancestor: &ObjectId, of: &ObjectId) -> Result<bool> {
        if ancestor == of {
            return self.node(of).map(|_| true);
        }
        let flags = self.paint(ancestor, &[*of], Some(ancestor))?;
        Ok(flags.get(ancestor).is_some_and(|flags| flags & TWO != 0))
    }

    pub fn merge_bases(&mut self, a: &ObjectId, b: &ObjectId) -> Result<Vec<ObjectId>> {
        if a == b {
            return self.node(a).map(|_| vec![*a]);
        }
        let flags = self.paint(a, &[*b], None)?;
        let mut found: Vec<ObjectId> = flags
            .into_iter()
            .filter(|(_, flags)| flags & (RESULT | STALE) == RESULT)
            .map(|(id, _)| id)
            .collect();
        found.sort_unstable();
        self.independent(found)
    }

    /// Drops the commits that another one of them reaches. Painting stops as
    /// soon as it can find no further common ancestor, which under wrong clocks
    /// is before it has seen that one it found is reached from another.
    fn independent(&mut self, mut ids: Vec<ObjectId>) -> Result<Vec<ObjectId>> {
        let mut at = 0;
        while ids.len() > 1 && at < ids.len() {
            let one = ids[at];
            let others: Vec<ObjectId> = ids.iter().copied().filter(|id| *id != one).collect();
            let flags = self.paint(&one, &others, None)?;
            ids.retain(|id| {
                let reached = if *id == one { TWO } else { ONE };
                flags.get(id).is_none_or(|flags| flags & reached == 0)
            });
            at = ids.iter().position(|id| *id == one).map_or(at, |at| at + 1);
        }
        Ok(ids)
    }

    /// Walks down from both sides until only ancestors of common ancestors are
    /// left; or, with `stop`, as soon as that one is reached.
    ///
    /// A best common ancestor is reached from each side by a path on which no
    /// commit is stale, so it is found in whatever order the paths are walked.
    fn paint(
        &mut self,
        one: &ObjectId,
        others: &[ObjectId],
        stop: Option<&ObjectId>,
    ) -> Result<IdMap<u8>> {
        let mut flags = IdMap::<u8>::default();
        let mut queue = BinaryHeap::new();
        let mut order = 0;
        // Commits in the queue that are not stale.
        let mut live = 0_usize;
        for (id, side) in std::iter::once((one, ONE)).chain(others.iter().map(|id| (id, TWO))) {
            let known = flags.entry(*id).or_default();
            if *known == 0 {
                let node = self.node(id)?;
                queue.push(waiting(id, node, &mut order));
                live += 1;
            }
            *known |= side | QUEUED;
        }
        while live > 0
            && let Some(next) = queue.pop()
        {
            let mine = flags.entry(next.id).or_default();
            *mine &= !QUEUED;
            if *mine & STALE == 0 {
                live -= 1;
            }
            let mut given = *mine & (ONE | TWO | STALE);
            if given == ONE | TWO {
                *mine |= RESULT;
                given |= STALE;
            }
            for parent in next.rest {
                let known = flags.get(&parent).copied().unwrap_or_default();
                let now = known | given;
                if now == known {
                    continue;
                }
                if Some(&parent) == stop {
                    flags.insert(parent, now);
                    return Ok(flags);
                }
                if known & QUEUED == 0 {
                    let node = self.parent(&parent)?;
                    queue.push(waiting(&parent, node, &mut order));
                    live += usize::from(now & STALE == 0);
                } else if known & STALE == 0 && now & STALE != 0 {
                    live -= 1;
                }
                flags.insert(parent, now | QUEUED);
            }
        }
        Ok(flags)
    }
}

fn waiting(id: &ObjectId, node: Node, order: &mut u64) -> Waiting<Vec<ObjectId>> {
    *order += 1;
    Waiting {
        time: node.time,
        order: Reverse(*order),
        id: *id,
        rest: node.parents,
    }
}

fn malformed(id: &ObjectId) -> Error {
    corrupt(id, "it is not a well-formed commit")
}

/// Tells that a commit which must be there is not.
pub(super) fn expected(id: &ObjectId, error: Error) -> Error {
    match error {
        Error::NotFound(_) => corrupt(id, "it is missing, and a commit names it as parent"),
        other => other,
    }
}

/// Reads what a commit says to programs. Unknown, it does not exist.
pub(super) fn node(objects: &Objects, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Node> {
    match objects.engine.find(id, buffer)? {
        Some(ObjectKind::Commit) => {
            let mut node = read_node(buffer).ok_or_else(|| malformed(id))?;
            if objects.engine.is_shallow(id) {
                node.parents.clear();
            }
            Ok(node)
        }
        _ => Err(Error::NotFound(format!("commit {id}"))),
    }
}

/// Reads the head of a commit object.
fn read_node(raw: &[u8]) -> Option<Node> {
    let mut lines = raw.split(|b| *b == b'\n');
    let tree = ObjectId::from_hex(lines.next()?.strip_prefix(b"tree ")?)?;
    let (mut parents, mut time) = (Vec::new(), 0);
    for line in lines {
        if let Some(hex) = line.strip_prefix(b"parent ") {
            parents.push(ObjectId::from_hex(hex)?);
        } else if line.starts_with(b"committer ") {
            let stamp = line.rsplit(|b| *b == b'>').next().unwrap_or_default();
            let mut words = std::str::from_utf8(stamp)
                .unwrap_or_default()
                .split_ascii_whitespace();
            time = words
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or_default();
            break;
        } else if line.is_empty() {
            break;
        }
    }
    Some(Node {
        tree,
        parents,
        time,
    })
}
