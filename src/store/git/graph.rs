//! Git's commit-graph (gitformat-commit-graph(5)): trees, parents and times of
//! commits, without the commits.
//!
//! It is a copy that `git gc` makes, so whatever is wrong with it only costs
//! the time of reading the commits instead.

use std::path::Path;

use crate::model::ObjectId;
use crate::store::engine::Node;

/// The commit-graph of an object directory, a chain of files or one.
pub(super) struct Graph(gix::commitgraph::Graph);

impl Graph {
    /// Opens it where there is one that can be read.
    pub fn open(objects: &Path, hash: gix::hash::Kind) -> Option<Self> {
        let info = objects.join("info");
        gix::commitgraph::Graph::at(&info, hash, None)
            .ok()
            .map(Self)
    }

    pub fn node(&self, id: &ObjectId) -> Option<Node> {
        let oid = gix::oid::from_bytes_unchecked(id.as_bytes());
        let commit = self.0.commit_by_id(oid)?;
        let model = |id: &gix::oid| ObjectId::from_bytes(id.as_bytes());
        let parents = commit.iter_parents().map(|parent| {
            let parent = parent.ok()?;
            model(self.0.id_at(parent))
        });
        Some(Node {
            tree: model(commit.root_tree_id())?,
            parents: parents.collect::<Option<_>>()?,
            time: i64::try_from(commit.committer_timestamp()).ok()?,
        })
    }
}
