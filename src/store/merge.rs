//! Three-way merge of trees and of commits, file by file.
//!
//! What stands under a name is compared as a whole: kind and content. A side
//! that is as the base was yields to the other, whatever either has there, so
//! a subtree equal on two sides is never opened. Only names that differ on all
//! three sides are looked into:
//!
//! | ours, theirs | base | result |
//! |---|---|---|
//! | folder, folder or nothing | any | name by name; what is no folder counts as an empty one |
//! | leaf, folder | any | conflict |
//! | leaf, leaf | leaf | conflict |
//! | leaf, leaf | no leaf | conflict |
//! | leaf, nothing | leaf | conflict |
//! | leaf, nothing | no leaf | the leaf |
//!
//! Submodules and odd modes are leaves like any other. A folder that a merge
//! leaves empty is gone. No file's content is ever read.

use crate::model::request::Side;
use crate::model::{Conflict, ConflictKind, Entry, Mode, ObjectId, text};

use super::Result;
use super::engine::ObjectKind;
use super::objects::{Fresh, Objects, Tree, compare, corrupt, push_entry};
use super::walk::{MAX_DEPTH, path_of, too_deep};

pub use super::base::{MergeResult, merge_base, merge_commits};

/// What a merge came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Conflicting paths hold a conflict file, a normal one.
    pub tree: ObjectId,
    /// In path order.
    pub conflicts: Vec<Conflict>,
}

/// Merges two trees against a third; without `base`, against the empty one.
///
/// New trees and conflict files go into `fresh`, and trees are looked for
/// there first. With `favour` each conflict is settled with that side's entry,
/// or by deleting where that side has none, and none is reported.
pub fn merge_trees(
    objects: &Objects,
    fresh: &mut Fresh,
    base: Option<&ObjectId>,
    ours: &ObjectId,
    theirs: &ObjectId,
    favour: Option<Side>,
) -> Result<Outcome> {
    let mut merge = Merge {
        objects,
        fresh,
        favour,
        path: Vec::new(),
        conflicts: Vec::new(),
    };
    let sides = [base.copied(), Some(*ours), Some(*theirs)];
    let root = |id: Option<ObjectId>| {
        id.map(|id| Entry {
            mode: Mode::DIR,
            id,
        })
    };
    let tree = match decide(sides.map(root)) {
        Verdict::Take(entry) => entry.map(|entry| entry.id),
        _ => merge.run(sides)?,
    };
    let tree = match tree {
        Some(tree) => tree,
        // Not every reader of a repository takes the empty tree for granted.
        None => {
            let hash = objects.hash_kind();
            merge.fresh.add(hash, ObjectKind::Tree, Vec::new())?
        }
    };
    let mut conflicts = merge.conflicts;
    conflicts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Outcome { tree, conflicts })
}

const BASE: usize = 0;
const OURS: usize = 1;
const THEIRS: usize = 2;

/// What base, ours and theirs have under one name.
type Sides = [Option<Entry>; 3];

enum Verdict {
    Take(Option<Entry>),
    Folder,
    Conflict(ConflictKind),
}

/// The rules: the table at the head of this file.
fn decide(sides: Sides) -> Verdict {
    let [base, ours, theirs] = sides;
    if ours == theirs || theirs == base {
        return Verdict::Take(ours);
    }
    if ours == base {
        return Verdict::Take(theirs);
    }
    let is_dir = |entry: &Option<Entry>| entry.is_some_and(|e| e.mode.is_dir());
    let base_is_leaf = base.is_some() && !is_dir(&base);
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours.mode.is_dir() != theirs.mode.is_dir() => {
            Verdict::Conflict(ConflictKind::FileVsDir)
        }
        _ if is_dir(&ours) || is_dir(&theirs) => Verdict::Folder,
        (Some(_), Some(_)) if base_is_leaf => Verdict::Conflict(ConflictKind::ChangedBoth),
        (Some(_), Some(_)) => Verdict::Conflict(ConflictKind::AddAdd),
        _ if base_is_leaf => Verdict::Conflict(ConflictKind::AddDel),
        (one, other) => Verdict::Take(one.or(other)),
    }
}

struct Merge<'a> {
    objects: &'a Objects,
    fresh: &'a mut Fresh,
    favour: Option<Side>,
    path: Vec<u8>,
    conflicts: Vec<Conflict>,
}

/// A folder being merged.
struct Folder {
    ids: [Option<ObjectId>; 3],
    trees: [Tree; 3],
    next: [usize; 3],
    /// Which sides the result has been equal to so far.
    same: [bool; 3],
    /// The result so far, as a tree object.
    raw: Vec<u8>,
    /// Folders of the result met at the place of a file of their name, which
    /// is before their own.
    early: Vec<(Vec<u8>, Entry)>,
    /// Bytes of path before the names in it, the slash included.
    prefix: usize,
    /// The name that is being looked into.
    at: Name,
}

#[derive(Clone, Default)]
struct Name {
    bytes: Vec<u8>,
    sides: Sides,
    /// It stands where a folder of that name stands in a tree.
    in_folder_place: bool,
}

impl Merge<'_> {
    /// Merges the folders with these ids. Returns nothing where nothing is left.
    fn run(&mut self, ids: [Option<ObjectId>; 3]) -> Result<Option<ObjectId>> {
        let mut folders = vec![self.open(ids)?];
        while let Some(folder) = folders.last_mut() {
            self.path.truncate(folder.prefix);
            let Some(name) = folder.next_name() else {
                let merged = folder.finish(self.objects, self.fresh)?;
                folders.pop();
                match folders.last_mut() {
                    Some(above) => {
                        let name = std::mem::take(&mut above.at);
                        let mode = Mode::DIR;
                        above.put(&name, merged.map(|id| Entry { mode, id }));
                    }
                    None => return Ok(merged),
                }
                continue;
            };
            self.path.extend_from_slice(&name.bytes);
            match decide(name.sides) {
                Verdict::Take(entry) => folder.put(&name, entry),
                Verdict::Conflict(kind) => {
                    let settled = self.settle(kind, &name.sides)?;
                    folder.put(&name, settled);
                }
                Verdict::Folder => {
                    self.path.push(b'/');
                    let dir = |e: Option<Entry>| e.filter(|e| e.mode.is_dir()).map(|e| e.id);
                    let ids = name.sides.map(dir);
                    folder.at = name;
                    if folders.len() == MAX_DEPTH {
                        return Err(too_deep(&self.path));
                    }
                    folders.push(self.open(ids)?);
                }
            }
        }
        Ok(None)
    }

    fn open(&self, ids: [Option<ObjectId>; 3]) -> Result<Folder> {
        let tree = |id: Option<ObjectId>| match id {
            Some(id) => tree(self.objects, self.fresh, &id),
            None => Ok(Tree::empty(self.objects.hash_kind())),
        };
        Ok(Folder {
            ids,
            trees: [tree(ids[BASE])?, tree(ids[OURS])?, tree(ids[THEIRS])?],
            next: [0; 3],
            same: ids.map(|id| id.is_some()),
            raw: Vec::new(),
            early: Vec::new(),
            prefix: self.path.len(),
            at: Name::default(),
        })
    }

    fn settle(&mut self, kind: ConflictKind, sides: &Sides) -> Result<Option<Entry>> {
        match self.favour {
            Some(Side::Base) => return Ok(sides[BASE]),
            Some(Side::Ours) => return Ok(sides[OURS]),
            Some(Side::Theirs) => return Ok(sides[THEIRS]),
            None => {}
        }
        self.conflicts.push(Conflict {
            path: path_of(&self.path),
            kind,
            base: sides[BASE],
            ours: sides[OURS],
            theirs: sides[THEIRS],
        });
        let content = text::conflict_file(kind);
        let hash = self.objects.hash_kind();
        let id = self.fresh.add(hash, ObjectKind::Blob, content)?;
        let mode = Mode::FILE;
        Ok(Some(Entry { mode, id }))
    }
}

impl Folder {
    /// Takes the next name of the three sides. Where one has a file and
    /// another a folder of that name they come together, at the file's place.
    fn next_name(&mut self) -> Option<Name> {
        loop {
            let heads: [_; 3] = std::array::from_fn(|side| {
                let tree = &self.trees[side];
                (self.next[side] < tree.len()).then(|| tree.nth(self.next[side]))
            });
            let first = heads.iter().flatten().copied().min_by(|a, b| {
                let (a_dir, b_dir) = (a.entry.mode.is_dir(), b.entry.mode.is_dir());
                compare(a.name, a_dir, b.name, b_dir)
            })?;
            let place = (first.name, first.entry.mode.is_dir());
            let mut sides = heads.map(|head| {
                head.filter(|head| (head.name, head.entry.mode.is_dir()) == place)
                    .map(|head| head.entry)
            });
            let mut met_before = false;
            for ((side, next), tree) in sides.iter_mut().zip(&mut self.next).zip(&self.trees) {
                if side.is_some() {
                    *next += 1;
                } else {
                    // What may be found is of the other kind.
                    *side = tree.get(first.name);
                    met_before |= side.is_some() && place.1;
                }
            }
            if !met_before {
                return Some(Name {
                    bytes: first.name.to_vec(),
                    sides,
                    in_folder_place: place.1,
                });
            }
        }
    }

    fn put(&mut self, name: &Name, result: Option<Entry>) {
        for (same, side) in self.same.iter_mut().zip(name.sides) {
            *same &= side == result;
        }
        match result {
            None => {}
            Some(entry) if entry.mode.is_dir() != name.in_folder_place => {
                self.early.push((name.bytes.clone(), entry));
            }
            Some(entry) => push_entry(&mut self.raw, &name.bytes, &entry),
        }
    }

    /// Returns the result's id, and keeps it in `fresh` if it is new.
    fn finish(&mut self, objects: &Objects, fresh: &mut Fresh) -> Result<Option<ObjectId>> {
        if self.raw.is_empty() && self.early.is_empty() {
            return Ok(None);
        }
        let known = (0..3).find(|side| self.same[*side]);
        if let Some(id) = known.and_then(|side| self.ids[side]) {
            return Ok(Some(id));
        }
        let hash = objects.hash_kind();
        let mut raw = std::mem::take(&mut self.raw);
        if !self.early.is_empty() {
            let tree = Tree::parse(raw, hash).expect("it was written just now");
            let early = self.early.iter().map(|(name, entry)| (&name[..], *entry));
            let mut all: Vec<_> = tree
                .iter()
                .map(|e| (e.name, e.entry))
                .chain(early)
                .collect();
            all.sort_by(|(a, a_is), (b, b_is)| {
                compare(a, a_is.mode.is_dir(), b, b_is.mode.is_dir())
            });
            raw = Vec::new();
            for (name, entry) in all {
                push_entry(&mut raw, name, &entry);
            }
        }
        fresh.add(hash, ObjectKind::Tree, raw).map(Some)
    }
}

/// Reads a tree, perhaps one not yet written.
fn tree(objects: &Objects, fresh: &Fresh, id: &ObjectId) -> Result<Tree> {
    match fresh.get(id) {
        Some(object) if object.kind == ObjectKind::Tree => {
            Tree::parse(object.data.clone(), objects.hash_kind()).map_err(|why| corrupt(id, why))
        }
        _ => objects.tree_once(id),
    }
}
