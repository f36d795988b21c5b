//! Results in the store: a branch for each key.
//!
//! A branch that has a `log` at its head was built to the end; one that has
//! none is being built, or was when its engine died. What a build found is
//! used until somebody asks for another one; what was cancelled is no result.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::sync::Arc;

use crate::ci::Outputs;
use crate::ci::files::{self, Put};
use crate::ci::layout::{self, Build, Outcome, SavedLog, State};
use crate::client::{
    At, Client, CommitOptions, Content, Edit, Edits, Error, Expect, FileKind, Result, Sink, Stop,
};
use crate::model::{BranchName, Kind, ObjectId, TreePath};

/// Times a change begins anew because somebody else wrote the branch.
const TRIES: usize = 8;

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub outcome: Outcome,
    pub log: SavedLog,
    /// The tree (or file) of the outputs; none where it made nothing.
    pub value: Option<ObjectId>,
    /// Somebody stopped it: no result for whoever asks anew.
    pub cancelled: bool,
}

/// What a branch has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such branch.
    Absent,
    /// Another build is asked for.
    Wanted,
    /// A build began and did not end.
    Interrupted,
    Done(Done),
}

/// A branch as it was found.
#[derive(Clone, Debug)]
pub struct Stand {
    pub head: Option<ObjectId>,
    /// Names at its root.
    names: Vec<String>,
    pub found: Found,
}

impl Stand {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|there| there == name)
    }

    /// Somebody asked for the build to be stopped.
    pub fn is_cancel_requested(&self) -> bool {
        self.has(layout::CANCEL_REQUESTED)
    }

    /// Returns edits that remove those of these names that are there.
    fn without(&self, names: &[&str]) -> Vec<Put> {
        let there = names.iter().filter(|name| self.has(name));
        there.map(|name| files::gone(*name)).collect()
    }
}

/// Returns what a result branch has.
pub async fn load(client: &dyn Client, branch: &BranchName) -> Result<Stand> {
    let Some(head) = client.head(branch).await? else {
        return Ok(Stand {
            head: None,
            names: Vec::new(),
            found: Found::Absent,
        });
    };
    load_at(client, branch, head).await
}

/// Returns what a result branch had at one of its commits.
pub async fn load_at(client: &dyn Client, branch: &BranchName, head: ObjectId) -> Result<Stand> {
    let items = client
        .list(&At::Commit(head), &TreePath::root(), false)
        .await?;
    let name = |path: &TreePath| String::from_utf8_lossy(path.as_bytes()).into_owned();
    let names: Vec<String> = items.iter().map(|item| name(&item.path)).collect();
    let mut stand = Stand {
        head: Some(head),
        names,
        found: Found::Interrupted,
    };
    if stand.has(layout::REBUILD_REQUESTED) {
        stand.found = Found::Wanted;
    } else if stand.has(layout::LOG) {
        let value = items
            .iter()
            .find(|item| item.path.as_bytes() == layout::VALUE.as_bytes())
            .map(|item| item.entry.id);
        stand.found = Found::Done(done(client, branch, &stand, head, value).await?);
    }
    Ok(stand)
}

async fn done(
    client: &dyn Client,
    branch: &BranchName,
    stand: &Stand,
    head: ObjectId,
    value: Option<ObjectId>,
) -> Result<Done> {
    let read = async |name: &str| -> Result<Option<String>> {
        if !stand.has(name) {
            return Ok(None);
        }
        let content = files::read(client, &head, name).await?;
        Ok(content.map(|content| String::from_utf8_lossy(&content).trim_end().to_owned()))
    };
    let build = read(layout::BUILD).await?;
    let build: Option<Build> = build.and_then(|text| serde_json::from_str(&text).ok());
    let failure = match read(layout::FAILURE).await? {
        Some(text) => Some(text),
        None => read(layout::CANCELLED).await?,
    };
    let title = build.as_ref().map(|build| build.title.clone());
    Ok(Done {
        log: SavedLog {
            title: title.unwrap_or_default(),
            branch: branch.to_string(),
            commit: head.to_hex(),
            failed: failure.is_some(),
        },
        outcome: match failure {
            Some(text) => Outcome::failure(text),
            None => Outcome::success(
                build
                    .and_then(|build| build.text)
                    .unwrap_or_else(|| "Success".into()),
            ),
        },
        value,
        cancelled: stand.has(layout::CANCELLED),
    })
}

/// What a result branch has of one build, and not of the next.
const OF_ONE: &[&str] = &[
    layout::LOG,
    layout::LOG_PARTS,
    layout::FAILURE,
    layout::CANCELLED,
    layout::VALUE,
    layout::REBUILD_REQUESTED,
    layout::CANCEL_REQUESTED,
];

/// Opens a branch for a build: what was there is no result any more. `first` is
/// the beginning of the log. Fails with [`Kind::HeadMoved`] if the branch is
/// not as it was found.
pub async fn begin(
    client: &dyn Client,
    branch: &BranchName,
    stand: &Stand,
    key: &str,
    build: &Build,
    first: &[u8],
) -> Result<ObjectId> {
    let mut puts = stand.without(OF_ONE);
    puts.push(files::put(layout::KEY, key));
    puts.push(files::put(layout::BUILD, json(build)));
    puts.push(files::put(layout::log_part(0), first));
    let options = CommitOptions {
        message: Some(format!("Start {} for {}", build.cell, build.target).into_bytes()),
        expect: stand.head.map_or(Expect::Unborn, Expect::Head),
        ..CommitOptions::default()
    };
    client.edit(branch, files::edits(puts), options).await
}

/// Adds a part to a growing log.
pub async fn grow(
    client: &dyn Client,
    branch: &BranchName,
    number: u64,
    part: Vec<u8>,
) -> Result<ObjectId> {
    let puts = vec![files::put(layout::log_part(number), part)];
    let options = CommitOptions {
        message: Some(b"Log".to_vec()),
        ..CommitOptions::default()
    };
    client.edit(branch, files::edits(puts), options).await
}

/// How a build ended.
pub struct End<'a> {
    pub build: &'a Build,
    pub outcome: &'a Outcome,
    pub cancelled: bool,
    /// The whole log.
    pub log: &'a File,
    pub outputs: Option<&'a Outputs>,
}

/// Closes a branch at the end of a build, and returns what it holds now.
pub async fn finish(client: &dyn Client, branch: &BranchName, end: End<'_>) -> Result<Done> {
    for _ in 0..TRIES {
        let stand = load(client, branch).await?;
        let failed = end.outcome.state != State::Success;
        let text = &end.outcome.descr;
        // Whoever asked for another build meanwhile has this one.
        let mut puts = stand.without(OF_ONE);
        let message = match (end.cancelled, failed) {
            (true, _) => {
                puts.push(files::put(layout::CANCELLED, text.as_str()));
                format!("Cancelled: {text}")
            }
            (false, true) => {
                puts.push(files::put(layout::FAILURE, text.as_str()));
                format!("Cached failure: {text}")
            }
            (false, false) => "Cached successful result".to_owned(),
        };
        puts.push(files::put(layout::BUILD, json(end.build)));
        let options = CommitOptions {
            message: Some(message.into_bytes()),
            expect: stand.head.map_or(Expect::Unborn, Expect::Head),
            ..CommitOptions::default()
        };
        let outputs = end.outputs.map(|outputs| outputs());
        let edits = whole(files::edits(puts), end.log, outputs)?;
        match client.edit(branch, edits, options).await {
            Ok(commit) => {
                let at = load_at(client, branch, commit).await?;
                let value = client
                    .stat(&At::Commit(commit), &TreePath::new(layout::VALUE)?)
                    .await?;
                let value = value.map(|stat| stat.entry.id);
                return done(client, branch, &at, commit, value).await;
            }
            Err(error) if error.kind() == Kind::HeadMoved => (),
            Err(error) => return Err(error),
        }
    }
    let message = format!("branch {branch} is written by somebody else all the time");
    Err(Error::new(Kind::Busy, message))
}

/// The last commit of a build: small files, the log as one, and the outputs.
fn whole(small: Edits, log: &File, outputs: Option<Edits>) -> Result<Edits> {
    let log = log.try_clone().map_err(unreadable)?;
    Ok(Edits::new(move |sink: &mut dyn Sink| {
        small.give(sink)?;
        let failed = |error: std::io::Error| Stop::Source(Box::new(error));
        let mut log = log;
        let size = log.metadata().map_err(failed)?.len();
        log.seek(SeekFrom::Start(0)).map_err(failed)?;
        sink.edit(Edit::Write {
            path: TreePath::new(layout::LOG).map_err(|error| Stop::Source(Box::new(error)))?,
            kind: FileKind::Normal,
            content: Content::Reader {
                reader: &mut log,
                size: Some(size),
            },
        })?;
        match outputs {
            Some(outputs) => outputs.give(sink),
            None => Ok(()),
        }
    }))
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(Kind::Io, format!("cannot read the log again: {error}"))
}

fn json(build: &Build) -> String {
    serde_json::to_string(build).expect("strings and numbers are JSON")
}

/// Marks a result as one that must not be used. What is being built is what was
/// asked for. One that nobody has is [`Kind::NotFound`]. Returns whether a mark
/// was needed.
pub async fn request_rebuild(client: &dyn Client, branch: &BranchName) -> Result<bool> {
    let mark = |stand: &Stand| stand.found != Found::Wanted;
    request(
        client,
        branch,
        layout::REBUILD_REQUESTED,
        "Marked for rebuild",
        mark,
    )
    .await
}

/// Marks a build as one that is to be stopped.
pub async fn request_cancel(client: &dyn Client, branch: &BranchName) -> Result<bool> {
    let mark =
        |stand: &Stand| !matches!(stand.found, Found::Done(_)) && !stand.is_cancel_requested();
    request(
        client,
        branch,
        layout::CANCEL_REQUESTED,
        "Marked to be cancelled",
        mark,
    )
    .await
}

async fn request(
    client: &dyn Client,
    branch: &BranchName,
    name: &str,
    message: &str,
    needed: impl Fn(&Stand) -> bool,
) -> Result<bool> {
    for _ in 0..TRIES {
        let stand = load(client, branch).await?;
        let Some(head) = stand.head else {
            let what = format!("branch {branch}");
            return Err(Error::NotFound { what });
        };
        if !needed(&stand) {
            return Ok(false);
        }
        let options = CommitOptions {
            message: Some(message.into()),
            expect: Expect::Head(head),
            ..CommitOptions::default()
        };
        let puts = vec![files::put(name, Vec::new())];
        match client.edit(branch, files::edits(puts), options).await {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == Kind::HeadMoved => (),
            Err(error) => return Err(error),
        }
    }
    let message = format!("branch {branch} is written by somebody else all the time");
    Err(Error::new(Kind::Busy, message))
}

/// A shared client.
pub(super) type Store = Arc<dyn Client>;
