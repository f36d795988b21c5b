//! Reading what GitHub has, as far as is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::api::{self, Api};
use super::capabilities::{Capabilities, Resource};
use crate::forge::{Pr, PrState, Repo, Snapshot};

/// How long closed pull requests are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep(pub Duration);

impl Keep {
    /// Tells whether a closed pull request is still to be kept.
    pub fn keeps(self, pr: &Pr) -> bool {
        let Some(closed) = pr.closed_at.as_deref() else {
            return false;
        };
        let Ok(closed) = closed.parse::<jiff::Timestamp>() else {
            return false;
        };
        // One from the future has just been closed, by another clock.
        let age = SystemTime::now().duration_since(closed.into());
        !self.0.is_zero() && age.unwrap_or_default() <= self.0
    }
}

/// Reads one repository, as far as is allowed. `older` are the pull requests
/// that were known: those that are not listed any more may be kept.
pub async fn import(
    api: &dyn Api,
    caps: &Capabilities,
    repo: &Repo,
    older: BTreeMap<u64, Pr>,
    keep: Keep,
) -> api::Result<Snapshot> {
    api.begin(repo);
    let mut found = Snapshot::default();
    found.add_repo(repo);
    if caps.on(&Resource::Pr).reads() {
        let open = api.pulls(repo).await?;
        for (number, known) in older {
            if open.contains_key(&number) || keep.0.is_zero() {
                continue;
            }
            let closed = known.state == PrState::Closed && known.closed_at.is_some();
            let now = match closed {
                true => Some(known),
                false => api.pull(repo, number).await?,
            };
            if let Some(pr) = now.filter(|pr| pr.state == PrState::Open || keep.keeps(pr)) {
                found.add_pr(repo, number, pr);
            }
        }
        for (number, pr) in open {
            found.add_pr(repo, number, pr);
        }
    }
    if caps.on(&Resource::Ref).reads() {
        for (name, head) in api.refs(repo).await? {
            found.add_ref(repo, &name, head);
        }
    }
    let heads = found.commits.iter().map(|(_, sha)| sha.as_str()).collect();
    let statuses = statuses(api, caps, repo, heads).await?;
    found.merge(statuses);
    api.finish(repo);
    Ok(found)
}

/// Commits whose statuses are asked for at the same time.
const AT_ONCE: usize = 4;

/// Reads the statuses of commits, those that may be read.
pub async fn statuses(
    api: &dyn Api,
    caps: &Capabilities,
    repo: &Repo,
    commits: BTreeSet<&str>,
) -> api::Result<Snapshot> {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let mut found = Snapshot::default();
    if !caps.on(&Resource::Commit).reads() {
        return Ok(found);
    }
    let read = commits.into_iter().map(|sha| async move {
        let statuses = api.statuses(repo, sha).await?;
        Ok::<_, api::Error>((sha, statuses))
    });
    let mut read = futures_util::stream::iter(read).buffer_unordered(AT_ONCE);
    while let Some((sha, statuses)) = read.try_next().await? {
        for (context, status) in statuses {
            if caps.on(&Resource::Status(&context)).reads() {
                found.add_status(repo, sha, &context, status);
            }
        }
    }
    Ok(found)
}
