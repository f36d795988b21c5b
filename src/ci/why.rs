//! Why a result is what it is: the key it has, and what of it changed.

use futures_util::StreamExt as _;

use crate::ci::files;
use crate::ci::history;
use crate::ci::key::{self, Changed};
use crate::ci::layout::{self, Logs, Outcome, SavedLog, Target};
use crate::client::{Client, Error, LogQuery, Result};
use crate::model::{BranchName, ObjectId};

/// Records that are looked through for the result before.
const LOOKED_THROUGH: u64 = 500;

/// A result with what it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasons {
    pub outcome: Outcome,
    /// The source commit it is for.
    pub source: Option<String>,
    /// Where it is, or will be; nothing where its key is not known yet.
    pub branch: Option<String>,
    /// A part a line; nothing where the store does not hold it (yet).
    pub key: Option<String>,
    /// The result this cell had before.
    pub before: Option<Before>,
}

/// An older result with another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    pub source: Option<String>,
    pub branch: String,
    /// What differs, where both keys are known.
    pub changed: Vec<Changed>,
}

/// Returns why a cell of a target has what it has.
pub async fn why(client: &dyn Client, target: &Target, cell: &str) -> Result<Reasons> {
    let now = history::load(client, target).await?;
    let Some(output) = now.outputs.get(cell) else {
        let what = format!("a result of {cell:?} in {target}");
        return Err(Error::NotFound { what });
    };
    let (branch, commit) = place(&output.logs);
    let key = key_of(client, branch.as_deref(), commit).await?;
    let mut reasons = Reasons {
        outcome: output.result.clone(),
        source: now.source.clone(),
        branch,
        key,
        before: None,
    };
    let mut commits = client.log(LogQuery {
        from: now.commit.into_iter().collect(),
        first_parent: true,
        limit: Some(LOOKED_THROUGH),
        ..LogQuery::default()
    });
    while let Some(commit) = commits.next().await {
        let record = history::load_at(client, &commit?.id).await?;
        let Some(output) = record.outputs.get(cell) else {
            continue;
        };
        let (Some(branch), commit) = place(&output.logs) else {
            continue;
        };
        if Some(&branch) == reasons.branch.as_ref() || commit.is_none() {
            continue;
        }
        let key = key_of(client, Some(&branch), commit).await?;
        let changed = match (&key, &reasons.key) {
            (Some(old), Some(new)) => key::changed(old, new),
            _ => Vec::new(),
        };
        reasons.before = Some(Before {
            source: record.source,
            branch,
            changed,
        });
        break;
    }
    Ok(reasons)
}

/// Returns the branch of a log, and the commit where it has ended.
fn place(logs: &Logs) -> (Option<String>, Option<ObjectId>) {
    match logs {
        Logs::None => (None, None),
        Logs::Live { branch } => (Some(branch.clone()), None),
        Logs::Saved(SavedLog { branch, commit, .. }) => {
            (Some(branch.clone()), layout::read_id(commit.as_bytes()))
        }
        Logs::Pair(_, last) => place(last),
    }
}

async fn key_of(
    client: &dyn Client,
    branch: Option<&str>,
    commit: Option<ObjectId>,
) -> Result<Option<String>> {
    let Some(branch) = branch.and_then(|branch| BranchName::new(branch).ok()) else {
        return Ok(None);
    };
    for at in [commit, client.head(&branch).await?].into_iter().flatten() {
        // The commit may have been dropped since; the key never changes.
        if let Ok(Some(key)) = files::read(client, &at, layout::KEY).await {
            return Ok(Some(String::from_utf8_lossy(&key).into_owned()));
        }
    }
    Ok(None)
}
