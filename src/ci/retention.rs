//! What is kept of old builds, and for how long.
//!
//! What a target wants now, and what tags have, is never dropped. An old log
//! is replaced by a line that says when; an old build goes as a whole. What is
//! dropped is freed by the next collection of the store's garbage. A result
//! that changes meanwhile is left alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::ci::config::Keep;
use crate::ci::files;
use crate::ci::history;
use crate::ci::layout::{self, Build, Place, Target};
use crate::client::{
    At, Client, CommitOptions, Content, Edit, Edits, Expect, FileKind, MoveOptions, Result, Sink,
    Stop,
};
use crate::forge::Repo;
use crate::model::{BranchName, Entry, Kind, ObjectId, Time, TreePath};

/// What a dropped log begins with; the date follows.
pub const EXPIRED: &str = "expired ";

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub logs: usize,
    pub builds: usize,
}

/// A result that has ended.
struct Old {
    branch: BranchName,
    head: ObjectId,
    finished: i64,
    /// Its log was dropped before.
    expired: bool,
    entries: Vec<(TreePath, Entry)>,
}

/// Drops what the projects do not keep. `is_wanted` tells of the results that
/// targets have now.
pub async fn sweep(
    client: &dyn Client,
    keeps: &BTreeMap<Repo, Keep>,
    is_wanted: impl Fn(&BranchName) -> bool,
    now: Time,
) -> Result<Dropped> {
    let mut dropped = Dropped::default();
    if keeps.values().all(|keep| *keep == Keep::default()) {
        return Ok(dropped);
    }
    let branches = client.branches().await?;
    let mut released = BTreeSet::new();
    for branch in &branches {
        let target = layout::read_status_branch(&branch.name);
        if target.is_some_and(|target| is_tag(&target)) {
            let record = history::load_at(client, &branch.head).await?;
            for output in record.outputs.values() {
                released.extend(output.logs.branches().into_iter().map(str::to_owned));
            }
        }
    }
    let mut series: BTreeMap<(Repo, String), Vec<Old>> = BTreeMap::new();
    for branch in branches {
        if !layout::is_result_branch(&branch.name) {
            continue;
        }
        if let Some((series_of, old)) = old(client, branch.name, branch.head).await?
            && keeps.contains_key(&series_of.0)
        {
            series.entry(series_of).or_default().push(old);
        }
    }
    for ((repo, _), mut builds) in series {
        let Some(keep) = keeps.get(&repo) else {
            continue;
        };
        builds.sort_by_key(|old| std::cmp::Reverse(old.finished));
        for (index, old) in builds.iter().enumerate() {
            let name = String::from_utf8_lossy(old.branch.as_bytes()).into_owned();
            if is_wanted(&old.branch) || released.contains(&name) {
                continue;
            }
            let newer = u64::try_from(index).unwrap_or(u64::MAX);
            let age = now.seconds.saturating_sub(old.finished);
            let aged =
                |limit: std::time::Duration| age >= 0 && age.unsigned_abs() > limit.as_secs();
            if keep.builds.is_some_and(|kept| newer >= kept) {
                let options = MoveOptions {
                    expect: Expect::Head(old.head),
                    ..MoveOptions::default()
                };
                if done(client.delete_branch(&old.branch, options).await)? {
                    dropped.builds += 1;
                }
            } else if !old.expired
                && keep.logs.is_some_and(aged)
                && done(expire(client, old, now).await)?
            {
                dropped.logs += 1;
            }
        }
    }
    Ok(dropped)
}

fn is_tag(target: &Target) -> bool {
    match &target.place {
        Place::Ref(name) => name.as_bytes().starts_with(b"tags/"),
        Place::Pr(_) => false,
    }
}

/// Tells whether a change went through; one that somebody was before in did
/// not, and need not.
fn done<T>(made: Result<T>) -> Result<bool> {
    match made {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), Kind::HeadMoved | Kind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a result; nothing for one that has not ended, or is not ours.
async fn old(
    client: &dyn Client,
    branch: BranchName,
    head: ObjectId,
) -> Result<Option<((Repo, String), Old)>> {
    let Some(build) = files::read(client, &head, layout::BUILD).await? else {
        return Ok(None);
    };
    let Ok(build) = serde_json::from_slice::<Build>(&build) else {
        return Ok(None);
    };
    let (Ok(target), Some(finished)) = (build.target.parse::<Target>(), build.finished) else {
        return Ok(None);
    };
    let items = client
        .list(&At::Commit(head), &TreePath::root(), true)
        .await?;
    let log = items
        .iter()
        .find(|item| item.path.as_bytes() == layout::LOG.as_bytes());
    let Some(log) = log else {
        return Ok(None);
    };
    let expired = log.size.is_some_and(|size| size < 64)
        && files::read(client, &head, layout::LOG)
            .await?
            .is_some_and(|log| log.starts_with(EXPIRED.as_bytes()));
    let entries = items.into_iter().map(|item| (item.path, item.entry));
    let old = Old {
        branch,
        head,
        finished,
        expired,
        entries: entries.collect(),
    };
    Ok(Some(((target.repo, build.cell), old)))
}

/// Puts a commit without a past in place of a result: all of it but the log.
async fn expire(client: &dyn Client, old: &Old, now: Time) -> Result<()> {
    let date = layout::log_time(now);
    let date = date.split(' ').next().unwrap_or_default();
    let text = format!("{EXPIRED}{date}\n");
    let entries = old.entries.clone();
    let edits = Edits::new(move |sink: &mut dyn Sink| {
        for (path, entry) in entries {
            if path.as_bytes() != layout::LOG.as_bytes() {
                sink.edit(Edit::Set { path, entry })?;
            }
        }
        sink.edit(Edit::Write {
            path: TreePath::new(layout::LOG).map_err(|error| Stop::Source(Box::new(error)))?,
            kind: FileKind::Normal,
            content: Content::Bytes(text.as_bytes()),
        })
    });
    let draft = BranchName::new(format!("{}-expired", layout::ROOM))?;
    if client.head(&draft).await?.is_some() {
        client.delete_branch(&draft, MoveOptions::default()).await?;
    }
    let options = CommitOptions {
        message: Some(b"Log expired".to_vec()),
        expect: Expect::Unborn,
        ..CommitOptions::default()
    };
    let commit = client.edit(&draft, edits, options).await?;
    let moved = MoveOptions {
        expect: Expect::Head(old.head),
        ..MoveOptions::default()
    };
    let outcome = client.move_head(&old.branch, &commit, moved).await;
    client.delete_branch(&draft, MoveOptions::default()).await?;
    outcome
}
