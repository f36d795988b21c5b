//! What two commits are merged against.
//!
//! Where they have several best common ancestors (a criss-cross) those are
//! merged with each other first, and a commit is made up that holds the result
//! and has them as parents. Paths in conflict there hold a conflict file, as
//! they would in any merge: it equals neither side, so a path that both sides
//! settled differently is a conflict again, and one settled alike is not.
//!
//! The answer depends on the commits only, not on which is ours.

use std::collections::HashMap;

use crate::metrics::metrics;
use crate::model::request::Side;
use crate::model::{Commit, ObjectId, Signature};

use super::Result;
use super::engine::ObjectKind;
use super::history::Graph;
use super::merge::{Outcome, merge_trees};
use super::objects::{Fresh, Objects, write_commit};

/// Criss-crosses within criss-crosses that are looked into. Below, the oldest
/// common ancestor stands for all.
const NESTED: usize = 100;

/// A merge of two commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeResult {
    /// The commit it was made against, perhaps one made up and found in
    /// `fresh` only; `None` where the two are unrelated.
    pub base: Option<ObjectId>,
    pub outcome: Outcome,
}

/// Merges two commits against what they have in common; unrelated ones against
/// the empty tree. The commits may be in `fresh`. `who` makes up base commits.
pub fn merge_commits(
    objects: &Objects,
    fresh: &mut Fresh,
    ours: &ObjectId,
    theirs: &ObjectId,
    favour: Option<Side>,
    who: &Signature,
) -> Result<MergeResult> {
    let base = merge_base(objects, fresh, ours, theirs, who)?;
    let mut trees = [None; 3];
    for (tree, id) in trees.iter_mut().zip([base, Some(*ours), Some(*theirs)]) {
        if let Some(id) = id {
            *tree = Some(Graph::new(objects, Some(fresh)).node(&id)?.tree);
        }
    }
    let [base_tree, ours, theirs] = trees;
    let (ours, theirs) = ours.zip(theirs).expect("both were given");
    let outcome = merge_trees(objects, fresh, base_tree.as_ref(), &ours, &theirs, favour)?;
    metrics().merges.inc();
    if !outcome.conflicts.is_empty() {
        metrics().conflicts.inc();
    }
    Ok(MergeResult { base, outcome })
}

/// Returns the commit to merge two commits against, made up and kept in
/// `fresh` where they have several best common ancestors; none where they are
/// unrelated.
pub fn merge_base(
    objects: &Objects,
    fresh: &mut Fresh,
    ours: &ObjectId,
    theirs: &ObjectId,
    who: &Signature,
) -> Result<Option<ObjectId>> {
    let mut bases = Bases {
        objects,
        fresh,
        who,
        made: HashMap::new(),
    };
    bases.of(ours, theirs, 0)
}

struct Bases<'a> {
    objects: &'a Objects,
    fresh: &'a mut Fresh,
    who: &'a Signature,
    /// The commit made up for a set of commits, oldest first. Without it the
    /// work could double with every criss-cross.
    made: HashMap<Vec<ObjectId>, ObjectId>,
}

impl Bases<'_> {
    fn graph(&self) -> Graph<'_> {
        Graph::new(self.objects, Some(self.fresh))
    }

    fn of(&mut self, a: &ObjectId, b: &ObjectId, depth: usize) -> Result<Option<ObjectId>> {
        let mut graph = self.graph();
        let mut dated = Vec::new();
        for id in graph.merge_bases(a, b)? {
            dated.push((graph.node(&id)?.time, id));
        }
        dated.sort_unstable();
        let bases: Vec<ObjectId> = dated.into_iter().map(|(_, id)| id).collect();
        if bases.len() < 2 || depth == NESTED {
            return Ok(bases.first().copied());
        }
        if let Some(known) = self.made.get(&bases) {
            return Ok(Some(*known));
        }
        let mut whole = bases[0];
        for next in &bases[1..] {
            whole = self.join(&whole, next, depth)?;
        }
        self.made.insert(bases, whole);
        Ok(Some(whole))
    }

    /// Makes up the merge of two commits.
    fn join(&mut self, a: &ObjectId, b: &ObjectId, depth: usize) -> Result<ObjectId> {
        let base = self.of(a, b, depth + 1)?;
        let mut graph = self.graph();
        let base = match base {
            Some(base) => Some(graph.node(&base)?.tree),
            None => None,
        };
        let (ours, theirs) = (graph.node(a)?.tree, graph.node(b)?.tree);
        let merged = merge_trees(
            self.objects,
            self.fresh,
            base.as_ref(),
            &ours,
            &theirs,
            None,
        )?;
        let commit = Commit {
            id: *a,
            tree: merged.tree,
            parents: vec![*a, *b],
            author: self.who.clone(),
            committer: self.who.clone(),
            message: b"merged common ancestors\n".to_vec(),
        };
        let hash = self.objects.hash_kind();
        self.fresh
            .add(hash, ObjectKind::Commit, write_commit(&commit))
    }
}
