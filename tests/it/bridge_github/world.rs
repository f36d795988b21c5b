//! A GitHub in memory, and a bridge beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use datakit::bridge::github::api::{self, Api, Check, Event};
use datakit::bridge::github::notes::Notes;
use datakit::bridge::github::plan::{Push, marked};
use datakit::bridge::github::sync::{Options, Outcome, Sync};
use datakit::client::local::Local;
use datakit::client::*;
use datakit::forge::layout::{Put, Reader, change};
use datakit::forge::*;
use datakit::model::*;

/// What GitHub is, and what was asked of it.
#[derive(Default)]
pub struct Hub {
    pub is: Snapshot,
    /// Listings of pull requests, of statuses and of refs.
    pub calls: (usize, usize, usize),
    pub pushed: Vec<Push>,
    /// Repositories that answer nothing but this.
    pub broken: BTreeMap<Repo, api::Error>,
    /// What it accepts from nobody, and how often it was asked.
    pub rejects: BTreeSet<Id>,
    pub rejected: usize,
    /// Accounts whose repositories can be listed.
    pub accounts: BTreeMap<String, Vec<Repo>>,
    /// Check runs by their ids, where they may be made.
    pub checks: Option<BTreeMap<u64, (Repo, Sha, Context, Status)>>,
}

#[derive(Default)]
pub struct Fake(Mutex<Hub>);

impl Fake {
    pub fn hub(&self) -> MutexGuard<'_, Hub> {
        self.0.lock().unwrap()
    }

    pub fn asked(&self, repo: &Repo) -> api::Result<MutexGuard<'_, Hub>> {
        let hub = self.hub();
        match hub.broken.get(repo) {
            Some(error) => Err(error.clone()),
            None => Ok(hub),
        }
    }
}

#[async_trait::async_trait]
impl Api for Fake {
    async fn repositories(&self, account: &str) -> api::Result<Vec<Repo>> {
        let found = self.hub().accounts.get(account).cloned();
        found.ok_or_else(|| api::Error::Missing(account.into()))
    }

    fn makes_checks(&self) -> bool {
        self.hub().checks.is_some()
    }

    async fn check(&self, check: &Check<'_>, run: Option<u64>) -> api::Result<u64> {
        let mut hub = self.asked(check.repo)?;
        let checks = hub.checks.as_mut().unwrap();
        let id = run.unwrap_or(checks.len() as u64 + 1);
        let (repo, sha) = (check.repo.clone(), check.sha.to_owned());
        checks.insert(id, (repo, sha, check.context.clone(), check.status.clone()));
        Ok(id)
    }

    async fn pulls(&self, repo: &Repo) -> api::Result<BTreeMap<u64, Pr>> {
        let mut hub = self.asked(repo)?;
        hub.calls.0 += 1;
        let open = hub
            .is
            .prs
            .iter()
            .filter(|((of, _), pr)| of == repo && pr.state == PrState::Open);
        Ok(open
            .map(|((_, number), pr)| (*number, pr.clone()))
            .collect())
    }

    async fn pull(&self, repo: &Repo, number: u64) -> api::Result<Option<Pr>> {
        Ok(self
            .asked(repo)?
            .is
            .prs
            .get(&(repo.clone(), number))
            .cloned())
    }

    async fn complete(&self, _: &Repo, _: u64, pr: Pr) -> api::Result<Pr> {
        Ok(pr)
    }

    async fn refs(&self, repo: &Repo) -> api::Result<BTreeMap<RefName, Sha>> {
        let mut hub = self.asked(repo)?;
        hub.calls.2 += 1;
        let refs = hub.is.refs.iter().filter(|((of, _), _)| of == repo);
        Ok(refs
            .map(|((_, name), head)| (name.clone(), head.clone()))
            .collect())
    }

    async fn reference(&self, repo: &Repo, name: &RefName) -> api::Result<Option<Sha>> {
        Ok(self
            .asked(repo)?
            .is
            .refs
            .get(&(repo.clone(), name.clone()))
            .cloned())
    }

    async fn statuses(&self, repo: &Repo, sha: &str) -> api::Result<BTreeMap<Context, Status>> {
        let mut hub = self.asked(repo)?;
        hub.calls.1 += 1;
        let statuses = hub
            .is
            .statuses
            .iter()
            .filter(|((of, at, _), _)| of == repo && at == sha);
        Ok(statuses
            .map(|((.., context), status)| (context.clone(), status.clone()))
            .collect())
    }

    async fn push(&self, push: &Push) -> api::Result<Option<Comment>> {
        let mut hub = self.asked(push.id().repo())?;
        if hub.rejects.contains(&push.id()) {
            hub.rejected += 1;
            return Err(api::Error::Rejected("no".into()));
        }
        hub.pushed.push(push.clone());
        match push.clone() {
            Push::Pr(repo, number, pr, _) => hub.is.add_pr(&repo, number, pr),
            Push::Status(repo, sha, context, status) => {
                hub.is.add_status(&repo, &sha, &context, status)
            }
            Push::SetRef(repo, name, head) => hub.is.add_ref(&repo, &name, head),
            Push::RemoveRef(repo, name) => hub.is.remove(&Id::Ref(repo, name)),
            Push::Edit(repo, number, edited) => {
                let pr = hub.is.prs.get_mut(&(repo, number)).unwrap();
                let mut all = pr.comments.iter_mut();
                let id = edited.id;
                *all.find(|comment| comment.id == id).unwrap() = edited;
            }
            Push::Comment(repo, number, draft) => {
                let id = 76 + hub.pushed.len() as u64;
                let posted = Comment {
                    id,
                    user: "bot".into(),
                    body: marked(&repo, number, &draft),
                };
                let pr = hub.is.prs.get_mut(&(repo, number)).unwrap();
                pr.comments.push(posted.clone());
                return Ok(Some(posted));
            }
        }
        Ok(None)
    }
}

/// A store, a GitHub, and a bridge between them.
pub struct World {
    pub dk: Arc<dyn Client>,
    pub fake: Arc<Fake>,
    pub bridge: Sync,
    pub branch: BranchName,
}

impl World {
    pub async fn new(caps: &str) -> Self {
        let dk: Arc<dyn Client> = Arc::new(Local::memory(HashKind::Sha1));
        let fake = Arc::new(Fake::default());
        let branch = BranchName::new("github-metadata").unwrap();
        let notes = Arc::new(Notes::default());
        let bridge = Sync::new(dk.clone(), fake.clone(), notes, options(&branch, caps));
        Self {
            dk,
            fake,
            bridge,
            branch,
        }
    }

    /// After one sync of an empty branch, `test/test` is followed.
    pub async fn prepared(caps: &str, is: Snapshot) -> Self {
        let mut world = Self::new(caps).await;
        world.sync().await;
        world.fake.hub().is = is;
        world.write(&[("test/test/.monitor", "")]).await;
        world
    }

    /// A bridge that knows only what is in the store.
    pub fn restart(&mut self, caps: &str) {
        self.restart_with(options(&self.branch, caps));
    }

    pub fn restart_with(&mut self, options: Options) {
        let notes = Arc::new(Notes::default());
        self.bridge = Sync::new(self.dk.clone(), self.fake.clone(), notes, options);
    }

    pub async fn sync(&mut self) -> Outcome {
        self.bridge.sync(false, &[]).await.unwrap()
    }

    pub async fn hear(&mut self, events: &[Event]) -> Outcome {
        self.bridge.sync(false, events).await.unwrap()
    }

    pub async fn write(&self, files: &[(&str, &str)]) {
        let put = |(path, content): &(&str, &str)| Put {
            path: (*path).into(),
            content: Some((*content).into()),
        };
        let puts = files.iter().map(put).collect();
        self.dk
            .edit(&self.branch, change(puts), CommitOptions::default())
            .await
            .unwrap();
    }

    pub async fn edit(&self, puts: Vec<Put>) {
        self.dk
            .edit(&self.branch, change(puts), CommitOptions::default())
            .await
            .unwrap();
    }

    pub async fn head(&self) -> ObjectId {
        self.dk.head(&self.branch).await.unwrap().unwrap()
    }

    pub async fn files(&self) -> Vec<String> {
        use futures_util::TryStreamExt as _;
        let walk = self
            .dk
            .walk(&At::Commit(self.head().await), &TreePath::root(), false);
        walk.map_ok(|item| item.path.to_string())
            .try_collect()
            .await
            .unwrap()
    }

    pub async fn says(&self) -> Snapshot {
        let mut reader = Reader::default();
        reader.advance(&*self.dk, &self.head().await).await.unwrap();
        reader.snapshot().clone()
    }

    pub fn calls(&self) -> (usize, usize, usize, usize) {
        let hub = self.fake.hub();
        (hub.calls.0, hub.calls.1, hub.calls.2, hub.pushed.len())
    }
}

pub fn options(branch: &BranchName, caps: &str) -> Options {
    Options::new(branch.clone(), caps.parse().unwrap())
}

pub fn repo() -> Repo {
    "test/test".parse().unwrap()
}

pub fn name(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

pub fn pr(head: &str, title: &str) -> Pr {
    Pr::new(head, PrState::Open, title, "master", "me")
}

/// The statuses s1 to s4 of the ancestor's tests.
pub fn statuses() -> [(String, Context, Status); 4] {
    use StatusState::{Failure, Pending, Success};
    let status = |sha: &str, at: &str, state, description, url| {
        (
            sha.to_owned(),
            context(at).unwrap(),
            Status::new(state, description, url),
        )
    };
    [
        status("bar", "foo/bar/baz", Pending, Some("foo"), None),
        status("bar", "foo/bar/toto", Failure, None, Some("url")),
        status("foo", "foo/bar/baz", Success, Some("foo"), Some("url")),
        status("bar", "foo", Pending, None, None),
    ]
}

pub fn both_open() -> Snapshot {
    let mut is = Snapshot::default();
    is.add_pr(&repo(), 1, pr("foo", "one"));
    is.add_pr(&repo(), 2, pr("bar", "two"));
    is.add_ref(&repo(), &name("heads/master"), "bar".into());
    for (sha, context, status) in statuses() {
        is.add_status(&repo(), &sha, &context, status);
    }
    is
}
