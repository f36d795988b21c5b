//! The engine: keeps every target's results up to date, round by round.
//!
//! A round takes in what changed (the snapshot of the forge, builds that went
//! on, requests), evaluates the targets it matters to, records their history
//! and writes their statuses. It can be stepped by hand; [`Engine::run`] does
//! one whenever something happened. What stays true:
//!
//! - a target is evaluated again when something it depends on changed, and only
//!   then; what a failed round was to do, the next one does;
//! - what a round writes, it writes where the store does not say it already:
//!   an engine that is started again sends nothing twice;
//! - one engine serves a store (`lease`); one that lost its lease writes
//!   nothing more;
//! - builds are tasks of the engine, and end with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ci::cache::Store;
use crate::ci::config::Config;
use crate::ci::history::{self, Record};
use crate::ci::layout::{Output, Place, Target};
use crate::ci::lease::{self, Held, Holder};
use crate::ci::request::{self, Wish};
use crate::ci::{Clock, Runner, Sources, Status, Stop, files};
use crate::client::{At, CommitOptions, Empty, Error, Result, Since, WatchQuery};
use crate::forge::Sha;
use crate::forge::layout::Reader;
use crate::metrics::metrics;
use crate::model::text::chain;
use crate::model::{BranchName, Kind, ObjectId, TreePath};

mod asked;
mod build;
mod evaluate;
mod inbox;
mod log;
mod pool;
mod results;
mod source;
mod statuses;
mod targets;
mod upkeep;

use evaluate::{Evaluation, Read, Subject, Verdict};
use inbox::Inbox;
use pool::Pools;
use results::{Shared, Why};
use source::Fetches;
use statuses::Statuses;
use targets::Targets;

/// Targets that are evaluated at a time.
const TOGETHER: usize = 50;
/// Pauses after a failed round: doubled each time up to the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest an engine sleeps: then it looks after its lease.
const NAP: Duration = Duration::from_secs(lease::RENEWED as u64);
/// How often it looks for marks that nobody told it of, and for what is too old.
const UPKEEP: Duration = Duration::from_secs(600);

/// Gives the value of a secret; else why it cannot.
pub type Secrets = Arc<dyn Fn(&str) -> std::result::Result<Vec<u8>, String> + Send + Sync>;

/// What an engine works with.
#[derive(Clone)]
pub struct World {
    pub client: Store,
    pub sources: Arc<dyn Sources>,
    pub runner: Arc<dyn Runner>,
    pub clock: Arc<dyn Clock>,
    pub secrets: Secrets,
    pub holder: Holder,
}

/// How an engine works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The address of the page, for links in statuses.
    pub web_url: Option<String>,
    /// If there are any, only these targets are tested.
    pub canaries: Vec<Target>,
    /// Builds that run at a time; at least one.
    pub jobs: usize,
}

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub evaluated: usize,
    /// Targets whose history got a commit.
    pub recorded: usize,
    pub statuses: usize,
}

/// See the head of this file.
pub struct Engine {
    shared: Arc<Shared>,
    config: Config,
    reader: Reader,
    targets: Targets,
    inbox: Inbox,
    read: Read,
    statuses: Statuses,
    lease: Held,
    /// Targets to be evaluated.
    due: BTreeSet<Target>,
    /// Targets whose history and statuses are to be written.
    unwritten: BTreeSet<Target>,
    marks: asked::Marks,
    /// Requests that are not taken away yet.
    requests: Vec<(BranchName, Wish)>,
    /// Targets that are tried again later.
    later: BTreeMap<Target, Instant>,
    /// When that is to be done next.
    upkeep: Option<Instant>,
    started: bool,
    /// Tell that a branch moved.
    watches: JoinSet<()>,
    _builds: Builds,
}

/// Ends the builds with their engine.
struct Builds(Arc<Shared>);

impl Drop for Builds {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Engine {
    /// Takes the lease and begins to follow the store. Where another engine
    /// serves it: [`Kind::Busy`].
    pub async fn start(world: World, config: Config, options: Options) -> Result<Self> {
        let client = world.client.clone();
        let lease = Held::take(&*client, &*world.clock, &world.holder).await?;
        let status = Arc::new(Status::default());
        let pools = Pools::new(&config.pools, options.jobs.max(1), status.clone());
        let shared = Shared::new(
            client,
            Fetches::new(world.sources),
            world.runner,
            world.clock,
            world.secrets,
            pools,
            status,
        );
        let repos = config.projects.iter().map(|project| project.repo.clone());
        let web = options.web_url.as_deref();
        let shared = Arc::new(shared);
        let mut engine = Self {
            _builds: Builds(shared.clone()),
            shared,
            reader: Reader::following(repos.collect()),
            targets: Targets::new(&config, options.canaries),
            inbox: Inbox::default(),
            read: Read::default(),
            statuses: Statuses {
                branch: config.metadata_branch.clone(),
                prefix: config.status_prefix.clone(),
                web: web.map(|url| url.trim_end_matches('/').to_owned()),
            },
            lease,
            due: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            marks: asked::Marks::new(),
            requests: Vec::new(),
            later: BTreeMap::new(),
            upkeep: None,
            started: false,
            watches: JoinSet::new(),
            config,
        };
        engine.watch();
        Ok(engine)
    }

    /// What the engine is doing, for the page that shows it.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status.clone()
    }

    /// Follows the branches that others write.
    fn watch(&mut self) {
        for branch in [self.config.metadata_branch.clone(), request::room()] {
            let shared = self.shared.clone();
            self.watches.spawn(async move {
                loop {
                    let mut events = shared.client.watch(WatchQuery {
                        branch: branch.clone(),
                        path: TreePath::root(),
                        since: Since::Now,
                        latest: true,
                        unchanged: true,
                    });
                    // What moved before the watch began.
                    shared.wake.notify_one();
                    while let Some(Ok(_)) = events.next().await {
                        shared.wake.notify_one();
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }

    /// Waits until there may be something for a round to do.
    pub async fn wait(&self) {
        self.shared.wake.notified().await;
    }

    /// Goes on until it is told to stop, or loses its lease.
    pub async fn run(&mut self, mut stop: Stop) -> Result<()> {
        let mut pause = PAUSE;
        while !stop.is_wanted() {
            let sleep = match self.round().await {
                Ok(_) => {
                    pause = PAUSE;
                    self.shared.status.update(|report| {
                        report.connected = true;
                        report.trouble = None;
                    });
                    self.next()
                }
                Err(error) if error.kind() == Kind::Busy => return Err(error),
                Err(error) => {
                    let trouble = chain(&error);
                    tracing::warn!(target: "ci", "{trouble}; trying again in {pause:?}");
                    metrics().ci.failed_rounds.inc();
                    self.shared.status.update(|report| {
                        report.connected = false;
                        report.trouble = Some(trouble);
                    });
                    tokio::select! {
                        () = stop.wanted() => (),
                        () = tokio::time::sleep(pause) => (),
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            tokio::select! {
                () = stop.wanted() => (),
                () = self.shared.wake.notified() => (),
                () = tokio::time::sleep_until(sleep) => (),
            }
        }
        Ok(())
    }

    /// Returns when there is something to do even if nothing happens.
    fn next(&self) -> Instant {
        let nap = Instant::now() + NAP;
        self.later.values().copied().fold(nap, Instant::min)
    }

    /// Ends all builds, to be begun again by the next engine, and gives the
    /// lease back.
    pub async fn close(mut self) -> Result<()> {
        self.watches.shutdown().await;
        self.shared.close().await;
        self.lease.release(&*self.shared.client).await
    }

    /// Does what there is to do now. After a failure the same is still to be
    /// done.
    pub async fn round(&mut self) -> Result<Round> {
        let clock = self.shared.clock.clone();
        if self.lease.is_due(clock.now()) {
            self.lease.renew(&*self.shared.client, &*clock).await?;
        }
        self.follow().await?;
        self.mail().await?;
        self.upkeep();
        self.due.extend(self.shared.news());
        let now = Instant::now();
        self.later.retain(|target, at| {
            let waits = *at > now;
            if !waits {
                self.due.insert(target.clone());
            }
            waits
        });
        let mut round = self.evaluate().await?;
        self.write(&mut round).await?;
        self.answer().await?;
        self.shared.status.update(|report| report.rounds += 1);
        Ok(round)
    }

    /// Takes in what the forge says.
    async fn follow(&mut self) -> Result<()> {
        let client = self.shared.client.clone();
        if !self.started {
            self.monitor().await?;
        }
        let Some(head) = client.head(&self.config.metadata_branch).await? else {
            return Ok(());
        };
        if self.reader.at() != Some(&head) {
            let first = self.reader.at().is_none();
            self.reader.advance(&*client, &head).await?;
            let snapshot = self.reader.snapshot();
            let due = match first {
                true => self.targets.all(snapshot, &self.shared),
                false => {
                    let touched = self.reader.touched();
                    self.targets.touched(touched, snapshot, &self.shared)
                }
            };
            self.due.extend(due);
            self.notice(first);
            self.count();
        }
        self.started = true;
        Ok(())
    }

    fn count(&self) {
        let mut counts = [("branch", 0), ("tag", 0), ("pr", 0)];
        for (target, _) in self.targets.iter() {
            let kind = match &target.place {
                Place::Pr(_) => 2,
                Place::Ref(name) => usize::from(!name.as_bytes().starts_with(b"heads/")),
            };
            counts[kind].1 += 1;
        }
        for (kind, count) in counts {
            metrics().ci.targets(kind).set(count);
        }
    }

    /// Asks the bridge to follow the projects.
    async fn monitor(&self) -> Result<()> {
        let client = &self.shared.client;
        let head = client.head(&self.config.metadata_branch).await?;
        let mut puts = Vec::new();
        for project in &self.config.projects {
            let path = format!("{}/.monitor", project.repo);
            let there = match &head {
                Some(head) => {
                    let path = TreePath::new(&path)?;
                    client.stat(&At::Commit(*head), &path).await?.is_some()
                }
                None => false,
            };
            if !there {
                puts.push(files::put(path, Vec::new()));
            }
        }
        if puts.is_empty() {
            return Ok(());
        }
        let options = CommitOptions {
            message: Some(b"Add .monitor files".to_vec()),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let branch = &self.config.metadata_branch;
        client.edit(branch, files::edits(puts), options).await?;
        Ok(())
    }

    /// Does what people asked for.
    async fn mail(&mut self) -> Result<()> {
        let client = self.shared.client.clone();
        let mail = self.inbox.read(&client).await?;
        let tested = |target: &Target| self.targets.get(target).is_some();
        let approved = mail.approved.into_iter();
        self.due.extend(approved.filter(tested));
        for (branch, wish) in &mail.requests {
            match wish {
                Wish::Rebuild => self.shared.forget(branch),
                Wish::Cancel => self.shared.stop(branch, Why::Asked),
            };
        }
        self.requests.extend(mail.requests);
        self.inbox.answered(&client, &self.requests).await?;
        self.requests.clear();
        Ok(())
    }

    /// Now and then, looks after what nobody tells of, beside the rounds.
    fn upkeep(&mut self) {
        let now = Instant::now();
        if self.upkeep.is_some_and(|at| now < at) {
            return;
        }
        while self.watches.try_join_next().is_some() {}
        // The first round has enough to do.
        if self.upkeep.replace(now + UPKEEP).is_some() {
            let projects = self.config.projects.iter();
            let keeps = projects.map(|project| (project.repo.clone(), project.keep));
            let (shared, keeps) = (self.shared.clone(), keeps.collect());
            self.watches.spawn(async move {
                if let Err(error) = upkeep::run(&shared, &keeps).await {
                    tracing::warn!(target: "ci", "upkeep: {}", chain(&error));
                }
            });
        }
    }

    async fn evaluate(&mut self) -> Result<Round> {
        let due: Vec<Target> = self.due.iter().cloned().collect();
        let tested = due
            .iter()
            .filter(|target| self.targets.get(target).is_some());
        let judged: Vec<(Target, Sha, Option<Record>, Verdict)> = stream::iter(tested)
            .map(|target| self.judge(target))
            .buffer_unordered(TOGETHER)
            .try_collect()
            .await?;
        let round = Round {
            evaluated: judged.len(),
            ..Round::default()
        };
        metrics().ci.evaluations.inc_by(judged.len() as u64);
        for (target, sha, record, verdict) in judged {
            if let (Some(state), Some(record)) = (self.targets.get_mut(&target), record) {
                state.remember(record);
            }
            if verdict.again {
                self.later
                    .insert(target.clone(), Instant::now() + source::AGAIN);
            }
            self.targets.take(&target, &sha, verdict, &self.shared);
            self.unwritten.insert(target);
        }
        for target in &due {
            self.due.remove(target);
        }
        Ok(round)
    }

    async fn judge(&self, target: &Target) -> Result<(Target, Sha, Option<Record>, Verdict)> {
        let gone = || Error::NotFound {
            what: format!("target {target}"),
        };
        let state = self.targets.get(target).ok_or_else(gone)?;
        let tested = self.targets.projects.get(&target.repo).ok_or_else(gone)?;
        // The first time, what the store remembers stands for the past.
        let (mut past, mut record) = (targets::State::default(), None);
        let known = match state.record {
            Some(_) => state,
            None => {
                let read = history::load(&*self.shared.client, target).await?;
                past.remember(read.clone());
                record = Some(read);
                &past
            }
        };
        let outputs = known.outputs();
        let subject = Subject {
            target,
            project: &tested.project,
            here: &tested.here,
            snapshot: self.reader.snapshot(),
            sha: &state.sha,
            approved: self.inbox.approved(target),
            evaluated: known.evaluated.as_ref(),
            outputs: &outputs,
            tested: known.tested.as_ref(),
        };
        let evaluation = Evaluation::new(&self.shared, &self.read, subject);
        let verdict = evaluation.run().await?;
        Ok((target.clone(), state.sha.clone(), record, verdict))
    }

    /// Records histories and writes statuses.
    async fn write(&mut self, round: &mut Round) -> Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let client = self.shared.client.clone();
        let metadata = self.reader.at().copied();
        let targets: Vec<Target> = self.unwritten.iter().cloned().collect();
        if let Some(metadata) = metadata {
            let recorded: Vec<Option<(Target, Record)>> = stream::iter(&targets)
                .map(|target| self.record(target, metadata))
                .buffer_unordered(TOGETHER)
                .try_collect()
                .await?;
            let mut entries = Vec::new();
            for (target, record) in recorded.into_iter().flatten() {
                if let (Some(commit), Some(sha)) = (record.commit, &record.source) {
                    entries.push((target.clone(), sha.clone(), commit));
                }
                if let Some(state) = self.targets.get_mut(&target) {
                    state.record = Some(record);
                }
            }
            round.recorded = entries.len();
            history::index(&*client, &entries).await?;
        }
        let commits = targets.iter().filter_map(|target| {
            let state = self.targets.get(target)?;
            Some((target.repo.clone(), state.sha.clone()))
        });
        let commits = commits.collect();
        let written = self
            .statuses
            .write(&*client, &self.reader, &self.targets, &commits)
            .await?;
        if let Some((commit, count)) = written {
            round.statuses = count;
            metrics().ci.statuses.inc_by(count as u64);
            self.took(&commit).await?;
        }
        for target in &targets {
            self.unwritten.remove(target);
        }
        Ok(())
    }

    /// Takes in a commit of our own, with what others wrote meanwhile.
    async fn took(&mut self, commit: &ObjectId) -> Result<()> {
        self.reader.advance(&*self.shared.client, commit).await?;
        let snapshot = self.reader.snapshot();
        let touched = self.reader.touched();
        let due = self.targets.touched(touched, snapshot, &self.shared);
        self.notice(false);
        if !due.is_empty() {
            self.due.extend(due);
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Brings the history of a target up to date. Nothing: it was.
    async fn record(
        &self,
        target: &Target,
        metadata: ObjectId,
    ) -> Result<Option<(Target, Record)>> {
        let Some(state) = self.targets.get(target) else {
            return Ok(None);
        };
        let (Some(was), Some(sha)) = (&state.record, &state.evaluated) else {
            return Ok(None);
        };
        let client = &*self.shared.client;
        let outputs = state.outputs();
        let needs = &state.needs;
        let recorded = |was: Record| async move {
            let made =
                history::record(client, target, &was, &metadata, sha, &outputs, needs).await?;
            Ok(made.map(|commit| Record {
                commit: Some(commit),
                source: Some(sha.clone()),
                outputs,
            }))
        };
        let made = match recorded(was.clone()).await {
            Err(error) if history::is_moved(&error) => {
                // Written by somebody else, or by us without an answer.
                let was = history::load(client, target).await?;
                let outputs = state.outputs();
                let made =
                    history::record(client, target, &was, &metadata, sha, &outputs, needs).await?;
                let commit = made.or(was.commit);
                Some(Record {
                    commit,
                    source: Some(sha.clone()),
                    outputs,
                })
            }
            made => made?,
        };
        Ok(made.map(|record| (target.clone(), record)))
    }

    /// Returns what each cell of a target has after the last round.
    pub fn outputs(&self, target: &Target) -> BTreeMap<String, Output> {
        let state = self.targets.get(target);
        state.map(targets::State::outputs).unwrap_or_default()
    }

    /// Returns what each cell of a target wants now, for tests and pages.
    pub fn branches(&self, target: &Target) -> BTreeMap<String, BranchName> {
        let cells = self.targets.get(target).map(|state| &state.cells);
        let cells = cells.into_iter().flatten();
        cells
            .filter_map(|(cell, has)| Some((cell.clone(), has.branch.clone()?)))
            .collect()
    }
}
