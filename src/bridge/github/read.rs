//! Reading what GitHub has, as far as is allowed.

use std::collections::BTreeSet;

use super::api::{self, Api};
use super::capabilities::{Capabilities, Resource};
use crate::forge::{Repo, Snapshot};

/// Reads one repository, as far as is allowed.
pub async fn import(api: &dyn Api, caps: &Capabilities, repo: &Repo) -> api::Result<Snapshot> {
    let mut found = Snapshot::default();
    found.add_repo(repo);
    if caps.on(&Resource::Pr).reads() {
        for (number, pr) in api.pulls(repo).await? {
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
    Ok(found)
}

/// Reads the statuses of commits, those that may be read.
pub async fn statuses(
    api: &dyn Api,
    caps: &Capabilities,
    repo: &Repo,
    commits: BTreeSet<&str>,
) -> api::Result<Snapshot> {
    let mut found = Snapshot::default();
    if !caps.on(&Resource::Commit).reads() {
        return Ok(found);
    }
    for sha in commits {
        for (context, status) in api.statuses(repo, sha).await? {
            if caps.on(&Resource::Status(&context)).reads() {
                found.add_status(repo, sha, &context, status);
            }
        }
    }
    Ok(found)
}
