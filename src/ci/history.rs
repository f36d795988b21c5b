//! The history of a target: a branch with one commit a change, and the index
//! from source commits to it.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;

use crate::ci::files;
use crate::ci::layout::{self, Logs, Output, State, Target};
use crate::client::{At, Client, CommitOptions, Error, Expect, LogQuery, Result};
use crate::forge::Sha;
use crate::model::{BranchName, Kind, ObjectId, TreePath};

/// Changes that a message lists.
const LISTED: usize = 1000;
/// Records that are looked through for the last head that was tested.
const LOOKED_THROUGH: u64 = 500;

/// What a target's history says at one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The commit of the status branch, where one was made.
    pub commit: Option<ObjectId>,
    pub source: Option<Sha>,
    /// By cell, logs as they were written: a live one may live no longer.
    pub outputs: BTreeMap<String, Output>,
}

/// Reads a target's newest record; an empty one where it has none.
pub async fn load(client: &dyn Client, target: &Target) -> Result<Record> {
    let branch = layout::status_branch(target)?;
    match client.head(&branch).await? {
        Some(head) => load_at(client, &head).await,
        None => Ok(Record::default()),
    }
}

/// Reads a record by its commit. What is no output is passed over.
pub async fn load_at(client: &dyn Client, commit: &ObjectId) -> Result<Record> {
    let source = files::read(client, commit, layout::SOURCE_COMMIT).await?;
    let mut record = Record {
        commit: Some(*commit),
        source: source.map(|source| String::from_utf8_lossy(&source).trim().to_owned()),
        outputs: BTreeMap::new(),
    };
    let cells = match client
        .list(&At::Commit(*commit), &TreePath::new("job")?, false)
        .await
    {
        Ok(cells) => cells,
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::NotDirectory) => Vec::new(),
        Err(error) => return Err(error),
    };
    for item in cells {
        let cell = String::from_utf8_lossy(item.path.as_bytes()).into_owned();
        let Some(json) = files::read(client, commit, &layout::output_path(&cell)).await? else {
            continue;
        };
        match Output::from_json(&json) {
            Ok(output) => {
                record.outputs.insert(cell, output);
            }
            Err(error) => {
                tracing::warn!(target: "ci", "history {commit}: {cell}: {error}");
            }
        }
    }
    Ok(record)
}

/// Returns the last head whose cells had all come to an end, `now` left out.
pub async fn last_tested(client: &dyn Client, target: &Target, now: &Sha) -> Result<Option<Sha>> {
    let branch = layout::status_branch(target)?;
    let Some(head) = client.head(&branch).await? else {
        return Ok(None);
    };
    let mut commits = client.log(LogQuery {
        from: vec![head],
        first_parent: true,
        limit: Some(LOOKED_THROUGH),
        ..LogQuery::default()
    });
    while let Some(commit) = commits.next().await {
        let record = load_at(client, &commit?.id).await?;
        if record.source.as_ref() != Some(now) && is_tested(&record.outputs) {
            return Ok(record.source);
        }
    }
    Ok(None)
}

/// Tells whether all cells have come to an end.
pub fn is_tested(outputs: &BTreeMap<String, Output>) -> bool {
    let ended = |output: &Output| output.result.state != State::Pending;
    !outputs.is_empty() && outputs.values().all(ended)
}

/// Makes a target's history say what is now, if it does not yet. Returns the
/// commit, if one was needed. What a cell waits for is written beside its
/// output, for those who draw it.
pub async fn record(
    client: &dyn Client,
    target: &Target,
    was: &Record,
    metadata: &ObjectId,
    source: &Sha,
    outputs: &BTreeMap<String, Output>,
    needs: &BTreeMap<String, Vec<String>>,
) -> Result<Option<ObjectId>> {
    let mut changes = Vec::new();
    let mut puts = Vec::new();
    for (cell, output) in outputs {
        if was.outputs.get(cell) != Some(output) {
            changes.push(format!("{cell} -> {}", output.result.descr));
            puts.push(files::put(layout::output_path(cell), output.to_json()));
            if let Some(needs) = needs.get(cell).filter(|needs| !needs.is_empty()) {
                puts.push(files::put(layout::needs_path(cell), needs.join("\n")));
            }
        }
    }
    for cell in was.outputs.keys() {
        if !outputs.contains_key(cell) {
            changes.push(format!("Remove old job {cell}"));
            puts.push(files::gone(format!("job/{cell}")));
        }
    }
    if puts.is_empty() && was.source.as_ref() == Some(source) {
        return Ok(None);
    }
    puts.push(files::put(layout::SOURCE_COMMIT, source.as_str()));
    puts.push(files::put(layout::METADATA_COMMIT, metadata.to_hex()));
    let options = CommitOptions {
        message: Some(message(&changes).into_bytes()),
        expect: was.commit.map_or(Expect::Unborn, Expect::Head),
        ..CommitOptions::default()
    };
    let branch = layout::status_branch(target)?;
    let made = client.edit(&branch, files::edits(puts), options).await?;
    Ok(Some(made))
}

fn message(changes: &[String]) -> String {
    match changes {
        [] => "Update".into(),
        [one] => one.clone(),
        [one, ..] => {
            let listed = changes[..changes.len().min(LISTED)].join("\n");
            format!("{} updates ({one}, ...)\n\n{listed}", changes.len())
        }
    }
}

/// Makes the index say which commit of a status branch is the newest for a
/// source commit.
pub async fn index(client: &dyn Client, entries: &[(Target, Sha, ObjectId)]) -> Result<()> {
    let line = |(target, sha, id): &(Target, Sha, ObjectId)| {
        let sub_name = layout::sub_name(&target.place);
        format!("Update {sub_name}:{sha} -> {id}")
    };
    let message = match entries {
        [] => return Ok(()),
        [one] => line(one),
        _ => {
            let lines: Vec<String> = entries.iter().take(LISTED).map(line).collect();
            format!("{} updates\n\n{}", entries.len(), lines.join("\n"))
        }
    };
    let put = |(target, sha, id): &(Target, Sha, ObjectId)| {
        let path = layout::index_path(&target.repo, sha, Some(&target.place));
        files::put(path, id.to_hex())
    };
    let options = CommitOptions {
        message: Some(message.into_bytes()),
        ..CommitOptions::default()
    };
    let puts = entries.iter().map(put).collect();
    let branch = BranchName::new(layout::COMMIT_INDEX)?;
    client.edit(&branch, files::edits(puts), options).await?;
    Ok(())
}

/// Returns the newest records of all targets that were ever tested at a commit.
pub async fn at_commit(
    client: &dyn Client,
    repo: &crate::forge::Repo,
    sha: &str,
) -> Result<Vec<(Target, ObjectId)>> {
    let branch = BranchName::new(layout::COMMIT_INDEX)?;
    let Some(head) = client.head(&branch).await? else {
        return Ok(Vec::new());
    };
    let folder = layout::index_path(repo, sha, None);
    let items = client
        .list(&At::Commit(head), &TreePath::new(&folder)?, false)
        .await;
    let items = match items {
        Ok(items) => items,
        Err(error) if error.kind() == Kind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for item in items {
        let name = String::from_utf8_lossy(item.path.as_bytes()).into_owned();
        let Some(place) = layout::read_sub_name(&name) else {
            continue;
        };
        let id = files::read(client, &head, &format!("{folder}/{name}")).await?;
        if let Some(id) = id.as_deref().and_then(layout::read_id) {
            let repo = repo.clone();
            found.push((Target { repo, place }, id));
        }
    }
    Ok(found)
}

/// Returns what a record says as a restarted engine knows it: live logs live
/// no longer.
pub fn asleep(output: &Output) -> Output {
    fn ended(logs: &Logs) -> Logs {
        match logs {
            Logs::Live { .. } | Logs::None => Logs::None,
            Logs::Saved(saved) => Logs::Saved(saved.clone()),
            Logs::Pair(a, b) => Logs::Pair(Box::new(ended(a)), Box::new(ended(b))),
        }
    }
    Output {
        result: output.result.clone(),
        logs: ended(&output.logs),
    }
}

/// An unexpected head: somebody else writes the history.
pub fn is_moved(error: &Error) -> bool {
    error.kind() == Kind::HeadMoved
}
