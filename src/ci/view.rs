//! What there is to see: targets with their states and history, the steps of
//! each, builds and logs. All of it is read from the store, so it can be seen
//! from any machine that reaches it.
//!
//! Everything here is read at a commit, so it never mixes two moments: a
//! target is what one commit of its status branch says, a log what one commit
//! of its result branch holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use crate::ci::layout::{self, Build, Logs, Outcome, Output, State, Target};
use crate::client::{At, Client, Error, LogQuery, Result};
use crate::forge::{Sha, Snapshot};
use crate::model::{BranchName, Kind, ObjectId, Time, TreePath};

mod growing;
mod keeper;
pub mod report;

pub use growing::{Growing, Grown};
pub use keeper::{Entry, Keeper, Overview};

/// Targets read at the same time.
const AT_ONCE: usize = 16;
/// Blobs asked for together.
const TOGETHER: usize = 128;
/// What is longer is no record, and not read to its end.
const LONGEST: u64 = 1 << 20;
/// The branch the bridge writes, where nobody says otherwise.
pub const METADATA: &str = "github-metadata";

/// How something looks to those who wait for it: pending with a log that grows
/// is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Look {
    Success,
    Failure,
    Pending,
    Running,
}

impl Look {
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Pending => "pending",
            Self::Running => "running",
        }
    }
}

/// A step, or one cell of it, of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub name: String,
    pub output: Output,
    /// The jobs it waits for.
    pub needs: Vec<String>,
}

impl Job {
    pub fn look(&self) -> Look {
        match self.output.result.state {
            State::Success => Look::Success,
            State::Failure => Look::Failure,
            State::Pending if is_live(&self.output.logs) => Look::Running,
            State::Pending => Look::Pending,
        }
    }

    pub fn text(&self) -> &str {
        &self.output.result.descr
    }
}

fn is_live(logs: &Logs) -> bool {
    match logs {
        Logs::Live { .. } => true,
        Logs::Pair(a, b) => is_live(a) || is_live(b),
        Logs::None | Logs::Saved(_) => false,
    }
}

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogAt {
    pub branch: String,
    /// `None`: it grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    #[serde(skip)]
    pub title: String,
    #[serde(skip)]
    pub failed: bool,
}

/// Returns the logs, each branch once, in order.
pub fn logs(logs: &Logs) -> Vec<LogAt> {
    let found = match logs {
        Logs::None => Vec::new(),
        Logs::Live { branch } => vec![LogAt {
            branch: branch.clone(),
            commit: None,
            title: String::new(),
            failed: false,
        }],
        Logs::Saved(saved) => vec![LogAt {
            branch: saved.branch.clone(),
            commit: Some(saved.commit.clone()),
            title: saved.title.clone(),
            failed: saved.failed,
        }],
        Logs::Pair(a, b) => [self::logs(a), self::logs(b)].concat(),
    };
    let mut seen = BTreeSet::new();
    let new = |log: &LogAt| seen.insert(log.branch.clone());
    found.into_iter().filter(new).collect()
}

/// A target as one commit of its status branch has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The commit of the status branch.
    pub commit: ObjectId,
    pub source: Option<Sha>,
    pub metadata: Option<String>,
    /// In order of their names.
    pub jobs: Vec<Job>,
}

impl Record {
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// Returns the state of the whole: pending counts before failures.
    pub fn look(&self) -> Look {
        let looks: BTreeSet<Look> = self.jobs.iter().map(Job::look).collect();
        let first = [Look::Running, Look::Pending, Look::Failure];
        first
            .into_iter()
            .find(|look| looks.contains(look))
            .unwrap_or(Look::Success)
    }

    /// Returns one sentence for the whole: of the jobs that are pending, else
    /// of those that failed, else of all.
    pub fn summary(&self) -> String {
        let of = |state: State| -> Vec<&Job> {
            let is = |job: &&Job| job.output.result.state == state;
            self.jobs.iter().filter(is).collect()
        };
        let told = [State::Pending, State::Failure, State::Success]
            .into_iter()
            .map(of)
            .find(|jobs| !jobs.is_empty())
            .unwrap_or_default();
        if let ([job], 1) = (&told[..], self.jobs.len()) {
            return job.text().to_owned();
        }
        let mut texts: Vec<(&str, Vec<&str>)> = Vec::new();
        for job in told {
            match texts.iter_mut().find(|(text, _)| *text == job.text()) {
                Some((_, names)) => names.push(&job.name),
                None => texts.push((job.text(), vec![&job.name])),
            }
        }
        let told = texts
            .iter()
            .map(|(text, names)| format!("{text} ({})", names.join(", ")));
        told.collect::<Vec<_>>().join("; ")
    }
}

/// What the forge says of a target now.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct About {
    pub head: Sha,
    /// Of a pull request.
    pub title: Option<String>,
    pub owner: Option<String>,
    pub base: Option<String>,
    /// Its commits come from another repository.
    pub fork: bool,
}

/// Returns what the forge says of a target: nothing where it is not open.
pub fn about(snapshot: &Snapshot, target: &Target) -> Option<About> {
    match &target.place {
        layout::Place::Pr(number) => {
            let pr = snapshot.prs.get(&(target.repo.clone(), *number))?;
            (pr.state == crate::forge::PrState::Open).then(|| About {
                head: pr.head.clone(),
                title: Some(pr.title.clone()),
                owner: Some(pr.owner.clone()),
                base: Some(pr.base.clone()),
                fork: pr.is_fork(&target.repo),
            })
        }
        layout::Place::Ref(name) => {
            let head = snapshot.refs.get(&(target.repo.clone(), name.clone()))?;
            Some(About {
                head: head.clone(),
                ..About::default()
            })
        }
    }
}

/// Returns the status branches that have a commit, by target.
pub async fn recorded(client: &dyn Client) -> Result<BTreeMap<Target, ObjectId>> {
    let branches = client.branches().await?;
    let read = |branch: crate::model::Branch| {
        let target = layout::read_status_branch(&branch.name)?;
        Some((target, branch.head))
    };
    Ok(branches.into_iter().filter_map(read).collect())
}

/// Returns the newest record of a target; nothing where it was never tested.
pub async fn target(client: &dyn Client, target: &Target) -> Result<Option<Record>> {
    match client.head(&layout::status_branch(target)?).await? {
        Some(head) => Ok(Some(record(client, &head).await?)),
        None => Ok(None),
    }
}

/// Reads many records.
pub async fn records(
    client: &dyn Client,
    heads: Vec<(Target, ObjectId)>,
) -> Result<Vec<(Target, Record)>> {
    let read = |(target, head)| async move { Ok((target, record(client, &head).await?)) };
    // Boxed: what borrows through several streams is otherwise not known to be Send.
    let reads = heads.into_iter().map(|head| Box::pin(read(head)));
    stream::iter(reads).buffered(AT_ONCE).try_collect().await
}

/// Reads what a commit of a status branch says.
pub async fn record(client: &dyn Client, commit: &ObjectId) -> Result<Record> {
    let mut found: Vec<(Vec<u8>, ObjectId)> = Vec::new();
    let mut items = client.walk(&At::Commit(*commit), &TreePath::root(), false);
    while let Some(item) = items.next().await {
        let item = item?;
        if item.entry.mode.is_blob() {
            found.push((item.path.as_bytes().to_vec(), item.entry.id));
        }
    }
    drop(items);
    let ids: Vec<ObjectId> = found.iter().map(|(_, id)| *id).collect();
    let contents = contents(client, &ids).await?;
    let mut record = Record {
        commit: *commit,
        source: None,
        metadata: None,
        jobs: Vec::new(),
    };
    let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for ((path, _), content) in found.iter().zip(contents) {
        let path = String::from_utf8_lossy(path);
        let text = || String::from_utf8_lossy(&content).trim().to_owned();
        if path == layout::SOURCE_COMMIT {
            record.source = Some(text());
        } else if path == layout::METADATA_COMMIT {
            record.metadata = Some(text());
        } else if let Some(name) = of_job(&path, "needs") {
            needs.insert(name.into(), text().lines().map(str::to_owned).collect());
        } else if let Some(name) = of_job(&path, "output") {
            // One that is not understood is shown rather than hidden.
            let output = Output::from_json(&content).unwrap_or_else(|_| Output {
                result: Outcome::failure("its record is not understood"),
                logs: Logs::None,
            });
            record.jobs.push(Job {
                name: name.to_owned(),
                output,
                needs: Vec::new(),
            });
        }
    }
    for job in &mut record.jobs {
        job.needs = needs.remove(&job.name).unwrap_or_default();
    }
    record.jobs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(record)
}

/// Returns the job of `job/NAME/FILE`. A name of the ancestor's may have slashes.
fn of_job<'a>(path: &'a str, file: &str) -> Option<&'a str> {
    let rest = path.strip_prefix("job/")?;
    rest.strip_suffix(file)?.strip_suffix('/')
}

/// One moment of a target's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The commit of the status branch.
    pub commit: ObjectId,
    pub parent: Option<ObjectId>,
    pub time: Time,
    /// What changed then, in the words of the commit.
    pub message: String,
}

/// Returns the history of a target, newest first: from `from`, or from now.
pub async fn history(
    client: &dyn Client,
    target: &Target,
    from: Option<&ObjectId>,
    limit: u64,
) -> Result<Vec<Moment>> {
    let from = match from {
        Some(from) => Some(*from),
        None => client.head(&layout::status_branch(target)?).await?,
    };
    let Some(from) = from else {
        return Ok(Vec::new());
    };
    let query = LogQuery {
        from: vec![from],
        first_parent: true,
        limit: Some(limit),
        ..LogQuery::default()
    };
    let moment = |commit: crate::model::Commit| Moment {
        commit: commit.id,
        parent: commit.parents.first().copied(),
        time: commit.committer.time,
        message: String::from_utf8_lossy(&commit.message).trim().to_owned(),
    };
    client.log(query).map_ok(moment).try_collect().await
}

/// Tells whether a commit is one of a target's status branch.
pub async fn is_of(client: &dyn Client, target: &Target, commit: &ObjectId) -> Result<bool> {
    let Some(head) = client.head(&layout::status_branch(target)?).await? else {
        return Ok(false);
    };
    match client.merge_bases(&head, commit).await {
        Ok(bases) => Ok(bases.contains(commit)),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the records of a source commit, as the commit index has them:
/// commits of status branches by target.
pub async fn of_commit(
    client: &dyn Client,
    repo: &crate::forge::Repo,
    sha: &str,
) -> Result<BTreeMap<Target, ObjectId>> {
    let index = BranchName::new(layout::COMMIT_INDEX)?;
    let Some(head) = client.head(&index).await? else {
        return Ok(BTreeMap::new());
    };
    let folder = TreePath::new(layout::index_path(repo, sha, None))?;
    let items = match client.list(&At::Commit(head), &folder, false).await {
        Ok(items) => items,
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::NotDirectory) => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(error),
    };
    let ids: Vec<ObjectId> = items.iter().map(|item| item.entry.id).collect();
    let contents = contents(client, &ids).await?;
    let read = |(item, content): (crate::model::Item, Vec<u8>)| {
        let name = String::from_utf8(item.path.as_bytes().to_vec()).ok()?;
        let place = layout::read_sub_name(&name)?;
        let repo = repo.clone();
        Some((Target { repo, place }, layout::read_id(&content)?))
    };
    Ok(items.into_iter().zip(contents).filter_map(read).collect())
}

/// A log as one commit of a result branch holds it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Log {
    /// Its parts with their sizes, in order: one, when the build has ended.
    pub parts: Vec<(ObjectId, u64)>,
    /// The build has ended.
    pub ended: bool,
    /// Why it failed.
    pub failure: Option<String>,
    pub cancelled: bool,
    pub build: Option<Build>,
    /// Somebody asked for it to be made again.
    pub rebuild: bool,
}

impl Log {
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|(_, size)| size).sum()
    }

    pub fn look(&self) -> Look {
        match (self.ended, &self.failure, self.cancelled) {
            (false, ..) => Look::Running,
            (true, None, false) => Look::Success,
            (true, ..) => Look::Failure,
        }
    }
}

/// Reads what a commit of a result branch says of its log.
pub async fn log(client: &dyn Client, commit: &ObjectId) -> Result<Log> {
    let at = At::Commit(*commit);
    let mut log = Log::default();
    let mut small: BTreeMap<&str, crate::model::Entry> = BTreeMap::new();
    let items = client.list(&at, &TreePath::root(), true).await?;
    for item in &items {
        match std::str::from_utf8(item.path.as_bytes()) {
            Ok(layout::LOG) => {
                log.ended = true;
                log.parts = vec![(item.entry.id, item.size.unwrap_or(0))];
            }
            Ok(name @ (layout::FAILURE | layout::BUILD)) => {
                small.insert(name, item.entry);
            }
            Ok(layout::CANCELLED) => log.cancelled = true,
            Ok(layout::REBUILD_REQUESTED) => log.rebuild = true,
            _ => (),
        }
    }
    let growing = items
        .iter()
        .any(|item| item.path.as_bytes() == layout::LOG_PARTS.as_bytes());
    if growing && !log.ended {
        let folder = TreePath::new(layout::LOG_PARTS)?;
        let parts = client.list(&at, &folder, true).await?;
        let part = |item: &crate::model::Item| (item.entry.id, item.size.unwrap_or(0));
        log.parts = parts.iter().map(part).collect();
    }
    let ids: Vec<ObjectId> = small.values().map(|entry| entry.id).collect();
    for (name, content) in small.keys().zip(contents(client, &ids).await?) {
        match *name {
            layout::FAILURE => {
                log.failure = Some(String::from_utf8_lossy(&content).trim().to_owned());
            }
            _ => log.build = serde_json::from_slice(&content).ok(),
        }
    }
    Ok(log)
}

/// Opens a log from its beginning. The reader blocks.
pub async fn open(client: &dyn Client, log: &Log) -> Result<Box<dyn Read + Send>> {
    let mut all: Box<dyn Read + Send> = Box::new(std::io::empty());
    for (id, _) in &log.parts {
        let part = client.open_blob(id).await?;
        all = Box::new(all.chain(part));
    }
    Ok(all)
}

/// Reads small blobs, each to its end.
pub async fn contents(client: &dyn Client, ids: &[ObjectId]) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::with_capacity(ids.len());
    for ids in ids.chunks(TOGETHER) {
        let readers = client.open_blobs(ids).await?;
        let read = blocking(move || {
            let read = |reader: Box<dyn Read + Send>| {
                let mut content = Vec::new();
                reader.take(LONGEST).read_to_end(&mut content)?;
                Ok(content)
            };
            readers
                .into_iter()
                .map(read)
                .collect::<std::io::Result<Vec<_>>>()
        });
        found.extend(read.await?);
    }
    Ok(found)
}

/// Runs what reads from the store where it may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|source| Error::Other {
            kind: Kind::Io,
            message: "cannot read from the store".into(),
            hint: None,
            source: Some(Box::new(source)),
        }),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::new(Kind::Interrupted, "the program is ending")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, result: Outcome, logs: Logs) -> Job {
        Job {
            name: name.into(),
            output: Output { result, logs },
            needs: Vec::new(),
        }
    }

    #[test]
    fn a_summary_tells_of_what_matters() {
        let record = |jobs: &[Job]| Record {
            commit: ObjectId::from_bytes(&[0; 20]).expect("an id"),
            source: None,
            metadata: None,
            jobs: jobs.to_vec(),
        };
        let ok = |name: &str| job(name, Outcome::success("fine"), Logs::None);
        let bad = |name: &str| job(name, Outcome::failure("exit 1"), Logs::None);
        let live = Logs::Live { branch: "b".into() };
        let busy = job("x", Outcome::pending("busy"), live);
        assert_eq!(record(&[ok("a")]).summary(), "fine");
        assert_eq!(record(&[ok("a"), ok("b")]).summary(), "fine (a, b)");
        let three = record(&[ok("a"), bad("b"), bad("c")]);
        assert_eq!(three.summary(), "exit 1 (b, c)");
        assert_eq!(three.look(), Look::Failure);
        let pending = record(&[bad("b"), busy]);
        assert_eq!(pending.summary(), "busy (x)");
        assert_eq!(pending.look(), Look::Running);
        assert_eq!(record(&[]).summary(), "");
    }

    #[test]
    fn jobs_are_found_by_their_path() {
        assert_eq!(of_job("job/a/output", "output"), Some("a"));
        assert_eq!(of_job("job/a/b/output", "output"), Some("a/b"));
        assert_eq!(of_job("job/output", "output"), None);
        assert_eq!(of_job("source-commit", "output"), None);
    }
}
