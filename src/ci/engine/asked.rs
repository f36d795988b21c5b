//! What people ask for at the forge itself ("Re-run"): the bridge leaves a mark
//! beside a status, and its cell is built again.
//!
//! A mark is taken away after the request that it became is in the store, so
//! none is lost; killed in between, a cell is built once more.

use std::collections::BTreeSet;

use crate::ci::engine::Engine;
use crate::ci::request;
use crate::client::{CommitOptions, Empty, Result};
use crate::forge::layout::change;
use crate::forge::{Context, Id, Repo, Sha};

/// The statuses with a mark that is not answered yet.
pub(super) type Marks = BTreeSet<(Repo, Sha, Context)>;

impl Engine {
    /// Notices the marks that the last step of the branch brought; the first
    /// time all that are there.
    pub(super) fn notice(&mut self, first: bool) {
        let reader = &self.reader;
        let marked = |(repo, sha, context): &(Repo, Sha, Context)| {
            let ours = context.split_last();
            ours.is_some_and(|(prefix, _)| prefix == self.statuses.prefix)
                && reader.is_asked(repo, sha, context)
        };
        let all = reader.snapshot().statuses.keys();
        let touched = reader.touched().iter().filter_map(|id| match id {
            Id::Status(repo, sha, context) => Some((repo.clone(), sha.clone(), context.clone())),
            _ => None,
        });
        match first {
            true => self.marks.extend(all.filter(|key| marked(key)).cloned()),
            false => self.marks.extend(touched.filter(marked)),
        }
    }

    /// Has marked cells built again, and takes the marks away.
    pub(super) async fn answer(&mut self) -> Result<()> {
        let client = self.shared.client.clone();
        let (mut branches, mut puts) = (BTreeSet::new(), Vec::new());
        let mut answered = Vec::new();
        for mark in &self.marks {
            let (repo, sha, context) = mark;
            let mut known = true;
            for (_, state) in self.targets.at(repo, sha) {
                known &= state.evaluated.as_ref() == Some(sha);
                let cell = context.split_last();
                let cell = cell.and_then(|(_, cell)| std::str::from_utf8(cell).ok());
                let has = cell.and_then(|cell| state.cells.get(cell));
                branches.extend(has.and_then(|has| has.branch.clone()));
            }
            // Until the targets were evaluated nobody knows what to build.
            if known {
                puts.extend(self.reader.rebuilding(repo, sha, context));
                answered.push(mark.clone());
            }
        }
        if answered.is_empty() {
            return Ok(());
        }
        for branch in &branches {
            if client.head(branch).await?.is_some() {
                request::rebuild_branch(&*client, branch, None).await?;
            }
        }
        let options = CommitOptions {
            message: Some(b"Rebuild as requested".to_vec()),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let branch = &self.statuses.branch;
        let commit = client.edit(branch, change(puts), options).await?;
        for mark in &answered {
            self.marks.remove(mark);
        }
        self.took(&commit).await
    }
}
