//! The GitHub bridge, one sync at a time, beside a GitHub in memory: the cases
//! of the ancestor's tests under their names, then what dk adds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use datakit::bridge::github::api::{self, Api, Event};
use datakit::bridge::github::plan::Push;
use datakit::bridge::github::sync::{Options, Outcome, Sync};
use datakit::client::local::Local;
use datakit::client::*;
use datakit::forge::layout::{Put, Reader, change};
use datakit::forge::*;
use datakit::model::*;

use crate::aftermath::seed;
use crate::forge::random;
use crate::stock::Dice;

/// What GitHub is, and what was asked of it.
#[derive(Default)]
struct Hub {
    is: Snapshot,
    /// Listings of pull requests, of statuses and of refs.
    calls: (usize, usize, usize),
    pushed: Vec<Push>,
    /// Repositories that answer nothing but this.
    broken: BTreeMap<Repo, api::Error>,
    /// What it accepts from nobody.
    rejects: BTreeSet<Id>,
}

#[derive(Default)]
struct Fake(Mutex<Hub>);

impl Fake {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.0.lock().unwrap()
    }

    fn asked(&self, repo: &Repo) -> api::Result<MutexGuard<'_, Hub>> {
        let hub = self.hub();
        match hub.broken.get(repo) {
            Some(error) => Err(error.clone()),
            None => Ok(hub),
        }
    }
}

#[async_trait::async_trait]
impl Api for Fake {
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

    async fn push(&self, push: &Push) -> api::Result<Option<u64>> {
        let mut hub = self.asked(push.id().repo())?;
        if hub.rejects.contains(&push.id()) {
            return Err(api::Error::Rejected("no".into()));
        }
        hub.pushed.push(push.clone());
        match push.clone() {
            Push::Pr(repo, number, pr) => hub.is.add_pr(&repo, number, pr),
            Push::Status(repo, sha, context, status) => {
                hub.is.add_status(&repo, &sha, &context, status)
            }
            Push::SetRef(repo, name, head) => hub.is.add_ref(&repo, &name, head),
            Push::RemoveRef(repo, name) => hub.is.remove(&Id::Ref(repo, name)),
            Push::Comment(repo, number, comment) => {
                let number = (repo, number);
                let posted = Comment { id: 77, ..comment };
                hub.is.prs.get_mut(&number).unwrap().comments.push(posted);
                return Ok(Some(77));
            }
        }
        Ok(None)
    }
}

/// A store, a GitHub, and a bridge between them.
struct World {
    dk: Arc<dyn Client>,
    fake: Arc<Fake>,
    bridge: Sync,
    branch: BranchName,
}

impl World {
    async fn new(caps: &str) -> Self {
        let dk: Arc<dyn Client> = Arc::new(Local::memory(HashKind::Sha1));
        let fake = Arc::new(Fake::default());
        let branch = BranchName::new("github-metadata").unwrap();
        let bridge = Sync::new(dk.clone(), fake.clone(), options(&branch, caps));
        Self {
            dk,
            fake,
            bridge,
            branch,
        }
    }

    /// After one sync of an empty branch, `test/test` is followed.
    async fn prepared(caps: &str, is: Snapshot) -> Self {
        let mut world = Self::new(caps).await;
        world.sync().await;
        world.fake.hub().is = is;
        world.write(&[("test/test/.monitor", "")]).await;
        world
    }

    /// A bridge that knows only what is in the store.
    fn restart(&mut self, caps: &str) {
        self.bridge = Sync::new(
            self.dk.clone(),
            self.fake.clone(),
            options(&self.branch, caps),
        );
    }

    async fn sync(&mut self) -> Outcome {
        self.bridge.sync(false, &[]).await.unwrap()
    }

    async fn hear(&mut self, events: &[Event]) -> Outcome {
        self.bridge.sync(false, events).await.unwrap()
    }

    async fn write(&self, files: &[(&str, &str)]) {
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

    async fn head(&self) -> ObjectId {
        self.dk.head(&self.branch).await.unwrap().unwrap()
    }

    async fn files(&self) -> Vec<String> {
        use futures_util::TryStreamExt as _;
        let walk = self
            .dk
            .walk(&At::Commit(self.head().await), &TreePath::root(), false);
        walk.map_ok(|item| item.path.to_string())
            .try_collect()
            .await
            .unwrap()
    }

    async fn says(&self) -> Snapshot {
        let mut reader = Reader::default();
        reader.advance(&*self.dk, &self.head().await).await.unwrap();
        reader.snapshot().clone()
    }

    fn calls(&self) -> (usize, usize, usize, usize) {
        let hub = self.fake.hub();
        (hub.calls.0, hub.calls.1, hub.calls.2, hub.pushed.len())
    }
}

fn options(branch: &BranchName, caps: &str) -> Options {
    Options {
        branch: branch.clone(),
        capabilities: caps.parse().unwrap(),
        dry_run: false,
        allow_deletes: false,
    }
}

fn repo() -> Repo {
    "test/test".parse().unwrap()
}

fn name(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn pr(head: &str, title: &str) -> Pr {
    Pr::new(head, PrState::Open, title, "master", "me")
}

/// The statuses s1 to s4 of the ancestor's tests.
fn statuses() -> [(String, Context, Status); 4] {
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

fn both_open() -> Snapshot {
    let mut is = Snapshot::default();
    is.add_pr(&repo(), 1, pr("foo", "one"));
    is.add_pr(&repo(), 2, pr("bar", "two"));
    is.add_ref(&repo(), &name("heads/master"), "bar".into());
    for (sha, context, status) in statuses() {
        is.add_status(&repo(), &sha, &context, status);
    }
    is
}

#[tokio::test]
async fn cleanup() {
    let mut is = Snapshot::default();
    is.add_ref(&repo(), &name("heads/heho"), "bar".into());
    let mut world = World::prepared("*:r", is).await;
    world.sync().await;
    let files = [
        "README.md",
        "test/test/.monitor",
        "test/test/ref/heads/heho/head",
    ];
    assert_eq!(world.files().await, files);
    world
        .hear(&[Event::Ref(repo(), name("heads/heho"), Some("foo".into()))])
        .await;
    assert_eq!(world.files().await, files);
    assert_eq!(world.says().await.refs.values().next().unwrap(), "foo");
    let head = world.head().await;
    for _ in 0..3 {
        assert!(world.sync().await.commit.is_none());
    }
    assert_eq!(world.head().await, head, "idle syncs commit nothing");
    // One more for the commit that the event brought.
    assert_eq!(world.calls(), (1, 2, 1, 0));
}

#[tokio::test]
async fn events() {
    let mut is = Snapshot::default();
    is.add_pr(&repo(), 1, pr("foo", "one"));
    let mut world = World::prepared("*:r", is).await;
    world.sync().await;
    let closed = Pr {
        state: PrState::Closed,
        ..pr("foo", "one")
    };
    let mut happened = vec![
        Event::Pr(repo(), 1, closed),
        Event::Pr(repo(), 2, pr("bar", "bar")),
        Event::Ref(repo(), name("heads/master"), Some("bar".into())),
    ];
    for (sha, context, status) in statuses() {
        happened.push(Event::Status(repo(), sha, context, status));
    }
    for event in happened {
        world.hear(&[event]).await;
    }
    assert_eq!(
        world.calls(),
        (1, 2, 1, 0),
        "listings of the import, and bar's statuses"
    );
    insta::assert_snapshot!(world.files().await.join("\n"), @r"
    README.md
    test/test/.monitor
    test/test/commit/bar/status/foo/bar/baz/description
    test/test/commit/bar/status/foo/bar/baz/state
    test/test/commit/bar/status/foo/bar/toto/state
    test/test/commit/bar/status/foo/bar/toto/target_url
    test/test/commit/bar/status/foo/state
    test/test/pr/2/base
    test/test/pr/2/head
    test/test/pr/2/owner
    test/test/pr/2/state
    test/test/pr/2/title
    test/test/ref/heads/master/head
    ");
}

#[tokio::test]
async fn updates() {
    let mut world = World::prepared("*:rw", both_open()).await;
    world.sync().await;
    world.sync().await;
    assert_eq!(world.calls(), (1, 2, 1, 0));
    world
        .write(&[("test/test/commit/foo/status/foo/bar/baz/state", "pending\n")])
        .await;
    world.sync().await;
    world.sync().await;
    assert_eq!(world.calls(), (1, 2, 1, 1));
    let key = (repo(), "foo".to_owned(), context("foo/bar/baz").unwrap());
    assert_eq!(
        world.fake.hub().is.statuses[&key].state,
        StatusState::Pending
    );
    world.write(&[("test/test/pr/2/title", "hahaha\n")]).await;
    world.sync().await;
    assert_eq!(world.calls(), (1, 2, 1, 2));
    assert_eq!(world.fake.hub().is.prs[&(repo(), 2)].title, "hahaha");
}

#[tokio::test]
async fn startup() {
    let mut world = World::prepared("*:rw", both_open()).await;
    world.sync().await;
    let file = "test/test/commit/foo/status/foo/bar/baz/state";
    world.write(&[(file, "pending\n")]).await;
    world.sync().await;
    world.sync().await;
    assert_eq!(world.calls(), (1, 2, 1, 1));
    world.restart("*:rw");
    world.sync().await;
    world.sync().await;
    assert_eq!(world.calls(), (2, 4, 2, 1), "read again, and nothing told");
    // What was changed while no bridge ran goes where it has to.
    world.write(&[(file, "failure\n")]).await;
    world.restart("*:r,status[foo/bar/baz]:x");
    for _ in 0..3 {
        world.sync().await;
    }
    assert_eq!(world.calls(), (3, 6, 3, 2));
    let key = (repo(), "foo".to_owned(), context("foo/bar/baz").unwrap());
    assert_eq!(
        world.fake.hub().is.statuses[&key].state,
        StatusState::Failure
    );
    assert_eq!(
        world.says().await.statuses[&key].state,
        StatusState::Failure
    );
}

/// Forgets what GitHub would say no more of.
fn pruned(is: &Snapshot, followed: &BTreeSet<Repo>) -> Snapshot {
    let mut is = is.clone();
    is.prune(|_, _, _| false);
    for repo in is.repos.clone().difference(followed) {
        is.remove(&Id::Repo(repo.clone()));
    }
    is.repos = followed.clone();
    is
}

#[tokio::test]
async fn random_github() {
    let mut dice = Dice::new(seed());
    for keep in [true, false] {
        let mut world = World::new("*:r").await;
        world.sync().await;
        for round in 0..20 {
            world.fake.hub().is = match round {
                19 => Snapshot::default(),
                _ => random(&mut dice),
            };
            let mut followed = BTreeSet::new();
            let mut puts = Vec::new();
            for text in ["test/test", "a/b", "a/c"] {
                let follow = dice.roll(3) > 0;
                if follow {
                    followed.insert(text.parse().unwrap());
                }
                puts.push(Put {
                    path: format!("{text}/.monitor"),
                    content: Some(b"".into()),
                });
                if !follow {
                    puts.push(Put {
                        path: format!("{text}/.monitor"),
                        content: None,
                    });
                }
            }
            world
                .dk
                .edit(&world.branch, change(puts), CommitOptions::default())
                .await
                .unwrap();
            if !keep {
                world.restart("*:r");
            }
            world.bridge.sync(true, &[]).await.unwrap();
            let is = world.fake.hub().is.clone();
            assert_eq!(world.says().await, pruned(&is, &followed), "round {round}");
            assert!(world.sync().await.commit.is_none(), "round {round}");
        }
        assert_eq!(world.calls().3, 0, "nothing was told");
    }
}

#[tokio::test]
async fn random_both_sides_agree_once_quiet() {
    let mut dice = Dice::new(seed());
    let mut world = World::prepared("*:rw,ref:rw", both_open()).await;
    world.sync().await;
    for round in 0..40 {
        let states = ["success", "failure", "pending"];
        if dice.roll(2) == 0 {
            let path = format!(
                "test/test/commit/{}/status/ci/state",
                dice.pick(&["foo", "bar"])
            );
            world.write(&[(&path, dice.pick::<&str>(&states))]).await;
        }
        if dice.roll(2) == 0 {
            world
                .write(&[(
                    "test/test/ref/heads/mine/head",
                    dice.pick::<&str>(&["foo", "bar"]),
                )])
                .await;
        }
        if dice.roll(2) == 0 {
            world
                .write(&[("test/test/pr/2/title", dice.pick::<&str>(&["x", "y", "z"]))])
                .await;
        }
        {
            let hub = &mut *world.fake.hub();
            if dice.roll(2) == 0 {
                let mut theirs = hub.is.prs[&(repo(), 2)].clone();
                theirs.title = (*dice.pick(&["u", "v"])).into();
                hub.is.add_pr(&repo(), 2, theirs);
            }
            if dice.roll(2) == 0 {
                hub.is.add_ref(
                    &repo(),
                    &name("heads/theirs"),
                    (*dice.pick(&["foo", "bar"])).into(),
                );
            }
            hub.broken.clear();
            if dice.roll(4) == 0 {
                hub.broken
                    .insert(repo(), api::Error::Unreachable("500".into()));
            }
        }
        if dice.roll(3) == 0 {
            world.restart("*:rw,ref:rw");
        }
        world.bridge.sync(true, &[]).await.unwrap();
        world.fake.hub().broken.clear();
        world.bridge.sync(true, &[]).await.unwrap();
        let is = world.fake.hub().is.clone();
        assert_eq!(
            world.says().await,
            pruned(&is, &[repo()].into()),
            "round {round}"
        );
        let told = world.calls().3;
        assert!(world.sync().await.commit.is_none(), "round {round}");
        assert_eq!(world.calls().3, told, "round {round}: quiet");
    }
}

#[tokio::test]
async fn what_cannot_be_read_looks_like_no_deletion() {
    let mut world = World::prepared("*:rw", both_open()).await;
    world.sync().await;
    let before = world.says().await;
    world
        .fake
        .hub()
        .broken
        .insert(repo(), api::Error::Forbidden("not yours".into()));
    for restart in [false, true] {
        if restart {
            world.restart("*:rw");
        }
        let outcome = world.bridge.sync(true, &[]).await.unwrap();
        assert_eq!(outcome.unread.len(), 1);
        assert_eq!(world.says().await, before);
        assert!(world.files().await.contains(&"test/test/.error".into()));
        assert!(
            world.bridge.sync(true, &[]).await.unwrap().commit.is_none(),
            "told once"
        );
    }
    world.fake.hub().broken.clear();
    world.sync().await;
    assert!(!world.files().await.contains(&"test/test/.error".into()));
    assert_eq!(world.says().await, before);
}

#[tokio::test]
async fn refs_are_removed_a_few_at_a_time() {
    let mut is = Snapshot::default();
    for number in 0..12 {
        is.add_ref(&repo(), &name(&format!("heads/{number}")), "foo".into());
    }
    let mut world = World::prepared("*:r,ref:rw", is.clone()).await;
    world.sync().await;
    let gone = Put {
        path: "test/test/ref".into(),
        content: None,
    };
    world
        .dk
        .edit(&world.branch, change(vec![gone]), CommitOptions::default())
        .await
        .unwrap();
    let outcome = world.sync().await;
    assert_eq!((outcome.failed.len(), world.calls().3), (12, 0));
    assert_eq!(world.fake.hub().is, is);
    let mut allowed = options(&world.branch, "*:r,ref:rw");
    allowed.allow_deletes = true;
    world.bridge = Sync::new(world.dk.clone(), world.fake.clone(), allowed);
    world.sync().await;
    assert_eq!(world.fake.hub().is.refs.len(), 0);
}

#[tokio::test]
async fn what_github_rejects_is_tried_again_and_holds_up_nothing() {
    let mut world = World::prepared("*:rw", both_open()).await;
    world.sync().await;
    let at = context("ci").unwrap();
    world
        .fake
        .hub()
        .rejects
        .insert(Id::Status(repo(), "foo".into(), at));
    world
        .write(&[
            ("test/test/commit/foo/status/ci/state", "success"),
            ("test/test/commit/bar/status/ci/state", "success"),
        ])
        .await;
    let outcome = world.sync().await;
    assert_eq!((outcome.pushed.len(), outcome.failed.len()), (1, 1));
    world.fake.hub().rejects.clear();
    assert_eq!(world.sync().await.pushed.len(), 1);
    assert_eq!(world.sync().await.pushed.len(), 0);
}

#[tokio::test]
async fn comments_are_posted_once() {
    let mut world = World::prepared("*:r,comment:rw", both_open()).await;
    world.sync().await;
    world
        .write(&[
            ("test/test/pr/1/comments/0/id", "0"),
            ("test/test/pr/1/comments/0/user", "me"),
            ("test/test/pr/1/comments/1/id", "0"),
            ("test/test/pr/1/comments/1/user", "me"),
            ("test/test/pr/1/comments/1/body", "hello"),
        ])
        .await;
    world.sync().await;
    world.sync().await;
    assert_eq!(world.calls().3, 1);
    let says = world.says().await;
    let ids: Vec<u64> = says.prs[&(repo(), 1)]
        .comments
        .iter()
        .map(|comment| comment.id)
        .collect();
    assert_eq!(ids, [77]);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let mut world = World::prepared("*:rw", both_open()).await;
    world.sync().await;
    world.write(&[("test/test/pr/2/title", "x")]).await;
    let (head, is) = (world.head().await, world.fake.hub().is.clone());
    let mut dry = options(&world.branch, "*:rw");
    dry.dry_run = true;
    world.bridge = Sync::new(world.dk.clone(), world.fake.clone(), dry);
    let outcome = world.sync().await;
    assert_eq!(outcome.pushed.len(), 1);
    assert_eq!((world.head().await, &world.fake.hub().is), (head, &is));
}

#[tokio::test]
async fn marks_are_served_and_taken_away() {
    let mut world = World::prepared("*:r", both_open()).await;
    world.sync().await;
    world
        .fake
        .hub()
        .is
        .add_pr(&repo(), 2, pr("bar", "new title"));
    world.sync().await;
    assert_eq!(
        world.says().await.prs[&(repo(), 2)].title,
        "two",
        "nobody said so"
    );
    world.write(&[("test/test/pr/2/.dirty", "")]).await;
    world.sync().await;
    assert_eq!(world.says().await.prs[&(repo(), 2)].title, "new title");
    assert!(
        !world
            .files()
            .await
            .iter()
            .any(|file| file.ends_with(".dirty"))
    );
    // A mark on a repository that nobody follows: it is followed from now on.
    world.write(&[("a/b/.dirty", "")]).await;
    world.sync().await;
    assert!(world.files().await.contains(&"a/b/.monitor".into()));
    assert!(
        !world
            .files()
            .await
            .iter()
            .any(|file| file.ends_with(".dirty"))
    );
}
