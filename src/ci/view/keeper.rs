//! The overview of all targets, kept in memory and up to date.
//!
//! One task follows the branches that tell of changes (the commit index and
//! the metadata) and reads again only what changed; everybody else gets the
//! same finished overview. Now and then all heads are compared, so that a
//! change nobody told of is seen too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{About, Record, about, record, recorded, records};
use crate::ci::layout::{self, Target};
use crate::client::{Client, Event, Records, Result, Since, WatchQuery};
use crate::forge::layout::Reader;
use crate::forge::{Repo, Snapshot};
use crate::model::{BranchName, ObjectId, TreePath};

/// How often all heads are compared.
const ROUND: Duration = Duration::from_secs(60);
/// How long to wait after a failure, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// All targets at one moment.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Grows with every change.
    pub version: u64,
    /// Targets that were tested once, those gone from the forge as well.
    pub targets: BTreeMap<Target, Arc<Entry>>,
    /// Repositories that are followed.
    pub repos: BTreeSet<Repo>,
    /// Why the store cannot be read, and since when all this is old.
    pub trouble: Option<String>,
}

/// A target of the overview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub record: Arc<Record>,
    /// Nothing: the forge does not have it any more.
    pub about: Option<About>,
}

impl Overview {
    /// Returns the targets of a repository that the forge has.
    pub fn open<'a>(&'a self, repo: &'a Repo) -> impl Iterator<Item = (&'a Target, &'a Entry)> {
        let of = move |target: &Target| target.repo == *repo;
        self.targets
            .iter()
            .filter(move |(target, entry)| of(target) && entry.about.is_some())
            .map(|(target, entry)| (target, &**entry))
    }

    /// Returns the repositories of which something is known.
    pub fn all_repos(&self) -> BTreeSet<Repo> {
        let tested = self.targets.keys().map(|target| target.repo.clone());
        tested.chain(self.repos.iter().cloned()).collect()
    }
}

/// Keeps the overview.
pub struct Keeper {
    current: watch::Receiver<Arc<Overview>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Begins to follow a store.
    pub fn new(client: Arc<dyn Client>, metadata: BranchName) -> Self {
        let (sender, current) = watch::channel(Arc::new(Overview::default()));
        let task = tokio::spawn(follow(client, metadata, sender));
        Self { current, task }
    }

    /// Returns the overview, once there is one.
    pub async fn overview(&self) -> Arc<Overview> {
        let mut current = self.current.clone();
        match current.wait_for(|overview| overview.version > 0).await {
            Ok(overview) => Arc::clone(&overview),
            Err(_) => Arc::default(),
        }
    }

    /// Returns what tells of every later overview.
    pub fn changes(&self) -> watch::Receiver<Arc<Overview>> {
        self.current.clone()
    }
}

/// What the task knows.
struct State {
    client: Arc<dyn Client>,
    metadata: BranchName,
    reader: Reader,
    heads: BTreeMap<Target, ObjectId>,
    records: BTreeMap<Target, Arc<Record>>,
    sender: watch::Sender<Arc<Overview>>,
}

async fn follow(
    client: Arc<dyn Client>,
    metadata: BranchName,
    sender: watch::Sender<Arc<Overview>>,
) {
    let mut state = State {
        client,
        metadata,
        reader: Reader::default(),
        heads: BTreeMap::new(),
        records: BTreeMap::new(),
        sender,
    };
    let mut wait = AGAIN.0;
    loop {
        let begun = Instant::now();
        let error = match state.run().await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        tracing::warn!(target: "ci", error = &error as &dyn std::error::Error, "the page cannot read the store");
        state.publish(Some(error.to_string()));
        if begun.elapsed() > ROUND {
            wait = AGAIN.0;
        }
        sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

enum Never {}

impl State {
    /// Follows the store until something fails.
    async fn run(&mut self) -> Result<Never> {
        let index = BranchName::new(layout::COMMIT_INDEX)?;
        let mut statuses = watched(&*self.client, &index);
        let mut forge = watched(&*self.client, &self.metadata);
        let mut round = Instant::now();
        loop {
            tokio::select! {
                biased;
                event = statuses.next() => {
                    self.changed(event.transpose()?).await?;
                }
                event = forge.next() => {
                    event.transpose()?;
                    self.read_forge().await?;
                }
                () = sleep_until(round) => {
                    // The watches have begun: they were asked first.
                    self.read_forge().await?;
                    self.read_all().await?;
                    round = Instant::now() + ROUND;
                }
            }
            self.publish(None);
        }
    }

    /// Reads the targets again that a commit of the index names.
    async fn changed(&mut self, event: Option<Event>) -> Result<()> {
        let Some(Event::Commit { changes, .. }) = event else {
            return self.read_all().await;
        };
        let mut targets = BTreeSet::new();
        for change in changes {
            let text = String::from_utf8_lossy(change.path.as_bytes()).into_owned();
            let steps: Vec<&str> = text.split('/').collect();
            if let [user, repo, "commit", _, sub_name] = steps[..]
                && let Some(repo) = Repo::new(user, repo)
                && let Some(place) = layout::read_sub_name(sub_name)
            {
                targets.insert(Target { repo, place });
            }
        }
        for target in targets {
            let branch = layout::status_branch(&target)?;
            match self.client.head(&branch).await? {
                Some(head) if self.heads.get(&target) == Some(&head) => (),
                Some(head) => {
                    let record = record(&*self.client, &head).await?;
                    self.records.insert(target.clone(), Arc::new(record));
                    self.heads.insert(target, head);
                }
                None => {
                    self.records.remove(&target);
                    self.heads.remove(&target);
                }
            }
        }
        Ok(())
    }

    /// Compares all heads, and reads what moved.
    async fn read_all(&mut self) -> Result<()> {
        let heads = recorded(&*self.client).await?;
        let moved = |(target, head): &(&Target, &ObjectId)| self.heads.get(target) != Some(head);
        let stale: Vec<(Target, ObjectId)> = heads
            .iter()
            .filter(moved)
            .map(|(target, head)| (target.clone(), *head))
            .collect();
        for (target, record) in records(&*self.client, stale).await? {
            self.records.insert(target, Arc::new(record));
        }
        self.records.retain(|target, _| heads.contains_key(target));
        self.heads = heads;
        Ok(())
    }

    async fn read_forge(&mut self) -> Result<()> {
        match self.client.head(&self.metadata).await? {
            Some(head) => self.reader.advance(&*self.client, &head).await,
            None => {
                self.reader = Reader::default();
                Ok(())
            }
        }
    }

    /// Shows what is known, unless that is what is shown.
    fn publish(&self, trouble: Option<String>) {
        let forge: &Snapshot = self.reader.snapshot();
        let before = Arc::clone(&self.sender.borrow());
        // The first overview is a whole one.
        if before.version == 0 && trouble.is_some() && self.records.is_empty() {
            self.sender.send_replace(Arc::new(Overview {
                version: 1,
                trouble,
                ..Overview::default()
            }));
            return;
        }
        let mut targets = BTreeMap::new();
        for (target, record) in &self.records {
            let about = about(forge, target);
            let known = before.targets.get(target);
            let entry = match known {
                Some(entry) if Arc::ptr_eq(&entry.record, record) && entry.about == about => {
                    Arc::clone(entry)
                }
                _ => Arc::new(Entry {
                    record: Arc::clone(record),
                    about,
                }),
            };
            targets.insert(target.clone(), entry);
        }
        let same = before.targets.len() == targets.len()
            && before.repos == forge.repos
            && before.trouble == trouble
            && targets
                .iter()
                .zip(&before.targets)
                .all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1));
        if same && before.version > 0 {
            return;
        }
        self.sender.send_replace(Arc::new(Overview {
            version: before.version + 1,
            targets,
            repos: forge.repos.clone(),
            trouble,
        }));
    }
}

fn watched(client: &dyn Client, branch: &BranchName) -> Records<Event> {
    client.watch(WatchQuery {
        branch: branch.clone(),
        path: TreePath::root(),
        since: Since::Now,
        latest: true,
        unchanged: false,
    })
}
