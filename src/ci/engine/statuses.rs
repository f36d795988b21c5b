//! What the bridge is to tell the forge: statuses in the metadata branch.
//!
//! A status is written where the branch does not say it already, so a restart
//! sends nothing again. All of a round are one commit.

use std::collections::{BTreeMap, BTreeSet};

use crate::ci::engine::targets::Targets;
use crate::ci::layout::{self, State, Target};
use crate::ci::term;
use crate::client::{Client, CommitOptions, Empty, Result};
use crate::forge::layout::{Reader, change};
use crate::forge::{Context, Difference, Repo, Sha, Status, StatusState};
use crate::model::{BranchName, ObjectId};

/// Changes that a message lists.
const LISTED: usize = 1000;

/// Where statuses go, and what they look like.
pub(super) struct Statuses {
    pub branch: BranchName,
    pub prefix: Context,
    /// The page, without a slash at its end.
    pub web: Option<String>,
}

impl Statuses {
    /// Makes the branch say what targets at these commits have. Returns the
    /// commit, if one was needed.
    pub(super) async fn write(
        &self,
        client: &dyn Client,
        reader: &Reader,
        targets: &Targets,
        commits: &BTreeSet<(Repo, Sha)>,
    ) -> Result<Option<(ObjectId, usize)>> {
        let mut difference = Difference::default();
        let mut lines: BTreeMap<&Target, Vec<String>> = BTreeMap::new();
        let known = &reader.snapshot().statuses;
        for (repo, sha) in commits {
            let mut cells = BTreeMap::new();
            for (target, state) in targets.at(repo, sha) {
                // Nothing is known of its head yet.
                if state.evaluated.as_ref() != Some(sha) {
                    continue;
                }
                for (cell, has) in &state.cells {
                    let outcome = &has.output.result;
                    let shown = cells.entry(cell).or_insert((target, outcome));
                    if term::worse(shown.1, outcome) != shown.1 {
                        *shown = (target, outcome);
                    }
                }
            }
            for (cell, (target, outcome)) in cells {
                let context = self.prefix.join(cell.as_bytes());
                let state = match outcome.state {
                    State::Success => StatusState::Success,
                    State::Pending => StatusState::Pending,
                    State::Failure => StatusState::Failure,
                };
                let url = self.url(repo, sha, cell);
                let status = Status::new(state, Some(&outcome.descr), url.as_deref());
                let key = (repo.clone(), sha.clone(), context.clone());
                if known.get(&key) != Some(&status) {
                    let line = format!("{cell} to {}", outcome.descr);
                    lines.entry(target).or_default().push(line);
                    let updated = &mut difference.updated;
                    updated.add_status(repo, sha, &context, status);
                }
            }
        }
        let count = difference.updated.statuses.len();
        let puts = reader.edits(&difference);
        if puts.is_empty() {
            return Ok(None);
        }
        let options = CommitOptions {
            message: Some(message(&lines).into_bytes()),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let commit = client.edit(&self.branch, change(puts), options).await?;
        Ok(Some((commit, count)))
    }

    fn url(&self, repo: &Repo, sha: &Sha, cell: &str) -> Option<String> {
        let web = self.web.as_deref()?;
        Some(format!(
            "{web}/{repo}/commit/{sha}?test={}",
            layout::percent(cell)
        ))
    }
}

fn message(lines: &BTreeMap<&Target, Vec<String>>) -> String {
    let named = |target: &Target| match target.branch() {
        None if matches!(target.place, crate::ci::Place::Pr(_)) => target.to_string(),
        _ => format!("{}/ref/{}", target.repo, target.place),
    };
    let each = lines.iter().map(|(target, lines)| match &lines[..] {
        [line] => format!("Set {}:{line}", named(target)),
        _ => format!("Update {} jobs in {}", lines.len(), named(target)),
    });
    let each: Vec<String> = each.collect();
    match &each[..] {
        [one] => one.clone(),
        _ => {
            let listed = each[..each.len().min(LISTED)].join("\n");
            format!("{} updates\n\n{listed}", each.len())
        }
    }
}
