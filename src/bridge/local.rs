//! The refs of local repositories, kept in a branch as a forge's would be: so
//! that a CI runs without a forge.
//!
//! One way only, and the sources are never written. A sync without differences
//! commits nothing. Changes that come while one is under way are seen by the
//! next, and only as what they came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::client::{Client, CommitOptions, Empty, Error, Expect, Result};
use crate::forge::layout::{Reader, change};
use crate::forge::{Difference, Id, RefName, Repo, Sha};
use crate::model::{BranchName, Kind, ObjectId};

/// A repository whose refs are followed.
#[async_trait::async_trait]
pub trait Source: Send + Sync {
    /// Returns the commits that branches (`heads/…`) and tags (`tags/…`) lead
    /// to; what leads to none is left out.
    async fn refs(&self) -> Result<BTreeMap<RefName, Sha>>;

    /// Returns a number that changes whenever refs may have moved.
    fn changes(&self) -> Result<watch::Receiver<u64>>;
}

/// What is kept where.
pub struct Options {
    /// The branch that tells of them.
    pub branch: BranchName,
    /// Tags too, not only branches.
    pub tags: bool,
}

/// Pauses after a failure: doubled each time up to the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Times one sync begins anew because somebody else wrote the branch.
const TRIES: usize = 6;

/// A bridge between repositories and a branch.
pub struct Bridge {
    client: Arc<dyn Client>,
    sources: BTreeMap<Repo, Box<dyn Source>>,
    options: Options,
    reader: Reader,
}

impl Bridge {
    pub fn new(
        client: Arc<dyn Client>,
        sources: BTreeMap<Repo, Box<dyn Source>>,
        options: Options,
    ) -> Self {
        let reader = Reader::following(sources.keys().cloned().collect());
        Self {
            client,
            sources,
            options,
            reader,
        }
    }

    /// Keeps the branch in step for ever. `told` hears of every commit, and of
    /// every failure that is tried again, and may end it; a failure of the
    /// first sync is returned.
    pub async fn run(mut self, mut told: impl FnMut(Told<'_>) -> ControlFlow<()>) -> Result<()> {
        let mut changes = Vec::new();
        for source in self.sources.values() {
            changes.push(source.changes()?);
        }
        let (mut ready, mut pause) = (false, PAUSE);
        loop {
            // What moves from here on is seen by the next sync.
            changes
                .iter_mut()
                .for_each(|change| _ = change.borrow_and_update());
            let outcome = match self.sync().await {
                Ok(commit) => {
                    if let Some(commit) = commit
                        && told(Told::Committed(&commit)).is_break()
                    {
                        return Ok(());
                    }
                    if !std::mem::replace(&mut ready, true) && told(Told::Ready).is_break() {
                        return Ok(());
                    }
                    pause = PAUSE;
                    self.changed(&mut changes).await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => (),
                Err(error) if !ready => return Err(error),
                Err(error) => {
                    if told(Told::Failed(&error, pause)).is_break() {
                        return Ok(());
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits for a change on either side.
    async fn changed(&self, changes: &mut [watch::Receiver<u64>]) -> Result<()> {
        let sources = changes.iter_mut().map(|change| change.changed());
        let mut any: FuturesUnordered<_> = sources.collect();
        // What somebody else does to the branch is mended.
        let mut branch = self.reader.watch(&*self.client, &self.options.branch);
        tokio::select! {
            _ = any.next() => Ok(()),
            event = branch.next() => match event {
                Some(Err(error)) => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Makes the branch say what the repositories are. Returns the commit, if
    /// one was needed.
    pub async fn sync(&mut self) -> Result<Option<ObjectId>> {
        let mut wanted = BTreeMap::new();
        for (repo, source) in &self.sources {
            let refs = source.refs().await?;
            wanted.insert(repo.clone(), self.kept(refs));
        }
        for _ in 0..TRIES {
            let head = self.client.head(&self.options.branch).await?;
            match &head {
                Some(head) => self.reader.advance(&*self.client, head).await?,
                None => {
                    self.reader = Reader::following(self.sources.keys().cloned().collect());
                }
            }
            let (difference, message) = self.difference(&wanted);
            let puts = self.reader.edits(&difference);
            if puts.is_empty() {
                return Ok(None);
            }
            let options = CommitOptions {
                message: Some(message.into_bytes()),
                expect: head.map_or(Expect::Unborn, Expect::Head),
                empty: Empty::Skip,
                ..CommitOptions::default()
            };
            let made = self
                .client
                .edit(&self.options.branch, change(puts), options);
            match made.await {
                Ok(commit) => {
                    self.reader.advance(&*self.client, &commit).await?;
                    return Ok(Some(commit));
                }
                Err(error) if error.kind() == Kind::HeadMoved => (),
                Err(error) => return Err(error),
            }
        }
        let branch = &self.options.branch;
        Err(Error::new(
            Kind::Busy,
            format!("branch {branch} is written by somebody else all the time"),
        ))
    }

    /// Leaves out what is not asked for, and what a CI or a bridge writes
    /// itself: following that would never end.
    fn kept(&self, refs: BTreeMap<RefName, Sha>) -> BTreeMap<RefName, Sha> {
        let own = self.options.branch.as_bytes();
        let asked = |name: &RefName| match name.as_bytes().strip_prefix(b"heads/") {
            Some(branch) => {
                let ours = branch
                    .strip_prefix(own)
                    .is_some_and(|rest| rest.is_empty() || rest == b".sync");
                let ci = [&b"commit-index"[..], b"dk-ci", b"dk-ci-lease"].contains(&branch)
                    || branch.starts_with(b"status-")
                    || branch.starts_with(b"dk-step-");
                !ours && !ci
            }
            None => self.options.tags && name.as_bytes().starts_with(b"tags/"),
        };
        refs.into_iter().filter(|(name, _)| asked(name)).collect()
    }

    fn difference(&self, wanted: &BTreeMap<Repo, BTreeMap<RefName, Sha>>) -> (Difference, String) {
        let known = &self.reader.snapshot().refs;
        let mut difference = Difference::default();
        let mut message = String::new();
        let mut line = |what: &str, repo: &Repo, name: &RefName, sha: &Sha| {
            // Writing to a string cannot fail.
            let _ = writeln!(message, "{what} {{{repo} {name}[{sha}]}}");
        };
        let gone: BTreeSet<&(Repo, RefName)> = known
            .keys()
            .filter(|(repo, name)| {
                wanted
                    .get(repo)
                    .is_some_and(|refs| !refs.contains_key(name))
            })
            .collect();
        for (repo, name) in gone {
            let sha = &known[&(repo.clone(), name.clone())];
            line("Removing deleted branch", repo, name, sha);
            difference
                .removed
                .insert(Id::Ref(repo.clone(), name.clone()));
        }
        for (repo, refs) in wanted {
            for (name, sha) in refs {
                match known.get(&(repo.clone(), name.clone())) {
                    Some(old) if old == sha => continue,
                    Some(_) => line("Updating existing branch to", repo, name, sha),
                    None => line("Tracking new branch", repo, name, sha),
                }
                difference.updated.add_ref(repo, name, sha.clone());
            }
        }
        (difference, message)
    }
}

/// What a bridge tells of its work.
pub enum Told<'a> {
    /// The first sync is done.
    Ready,
    Committed(&'a ObjectId),
    /// It will be tried again after that time.
    Failed(&'a Error, Duration),
}
