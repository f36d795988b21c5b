//! What dk's bridge does beyond its ancestor: guards, comments, closed pull
//! requests, accounts, check runs.

use std::time::Duration;

use datakit::bridge::github::api::{self, Event};
use datakit::client::*;
use datakit::forge::layout::{Put, Reader};
use datakit::forge::*;

use super::world::*;

#[tokio::test]
async fn a_branch_that_was_rewound_removes_nothing() {
    let mut is = Snapshot::default();
    is.add_ref(&repo(), &name("heads/master"), "foo".into());
    let mut world = World::prepared("*:r,ref:x", is).await;
    world.sync().await;
    let old = world.head().await;
    for number in 0..3 {
        let name = name(&format!("heads/{number}"));
        world.fake.hub().is.add_ref(&repo(), &name, "foo".into());
    }
    world.bridge.sync(true, &[]).await.unwrap();
    let is = world.fake.hub().is.clone();
    for restart in [false, true] {
        world
            .dk
            .move_head(&world.branch, &old, MoveOptions::default())
            .await
            .unwrap();
        if restart {
            world.restart("*:r,ref:x");
        }
        world.sync().await;
        assert_eq!((world.calls().3, &world.fake.hub().is), (0, &is));
        assert_eq!(world.says().await.refs, is.refs, "it says all again");
        assert!(world.sync().await.commit.is_none());
    }
    // From then on it counts again.
    let path = "test/test/ref/heads/1".into();
    world
        .edit(vec![Put {
            path,
            content: None,
        }])
        .await;
    world.sync().await;
    assert_eq!(world.fake.hub().is.refs.len(), 3);
}

#[tokio::test]
async fn a_branch_that_starts_empty_removes_nothing() {
    let mut is = Snapshot::default();
    is.add_ref(&repo(), &name("heads/master"), "foo".into());
    let mut world = World::prepared("*:x,ref:x", is.clone()).await;
    world.sync().await;
    assert_eq!((world.calls().3, &world.fake.hub().is), (0, &is));
    // Nor does one that nobody follows any more.
    for path in ["test/test/.monitor", "test/test"] {
        let path = path.to_owned();
        world
            .edit(vec![Put {
                path,
                content: None,
            }])
            .await;
        world.sync().await;
        world.bridge.sync(true, &[]).await.unwrap();
        assert_eq!((world.calls().3, &world.fake.hub().is), (0, &is));
    }
}

/// moby/datakit#220: comments both ways.
#[tokio::test]
async fn comments_are_posted_once() {
    let mut world = World::prepared("*:r,comment:rw", both_open()).await;
    world.sync().await;
    world
        .write(&[
            ("test/test/pr/1/comments/9/body", "hello"),
            ("test/test/pr/1/comments/mine/body", "hello"),
            ("test/test/pr/1/comments/nothing/body", " \n"),
        ])
        .await;
    let ids = async |world: &World| {
        let says = world.says().await;
        let pr = &says.prs[&(repo(), 1)];
        assert!(pr.drafts.is_empty());
        pr.comments
            .iter()
            .map(|comment| comment.id)
            .collect::<Vec<_>>()
    };
    world.sync().await;
    world.sync().await;
    assert_eq!(world.calls().3, 2, "the same twice is said twice");
    assert_eq!(ids(&world).await, [77, 78]);
    let files = world.files().await;
    assert!(
        !files
            .iter()
            .any(|file| file.contains("/mine/") || file.contains("/nothing/"))
    );
    // The same once more, later, is no repetition after a crash either.
    let files = [("test/test/pr/1/comments/mine/body", "hello")];
    world.restart("*:r,comment:rw");
    world.write(&files).await;
    world.sync().await;
    assert_eq!(ids(&world).await, [77, 78, 79]);
    // But what was posted right before a crash is.
    world.write(&files).await;
    let draft = b"hello".to_vec();
    let push = datakit::bridge::github::plan::Push::Comment(repo(), 1, draft);
    api::Api::push(&*world.fake, &push).await.unwrap();
    world.restart("*:r,comment:rw");
    world.sync().await;
    assert_eq!(ids(&world).await, [77, 78, 79, 80]);
    assert_eq!(world.calls().3, 4);
    world.restart("*:r,comment:rw");
    world.sync().await;
    assert_eq!(world.calls().3, 4);
}

#[tokio::test]
async fn a_comment_that_cannot_be_posted_yet_waits() {
    let mut world = World::prepared("*:r,comment:rw", both_open()).await;
    world.sync().await;
    world.fake.hub().rejects.insert(Id::Pr(repo(), 1));
    world
        .write(&[("test/test/pr/1/comments/0/body", "hello")])
        .await;
    // Somebody else says something, and takes its place.
    let theirs = Comment {
        id: 7,
        user: "you".into(),
        body: b"x".into(),
    };
    let say = |hub: &mut Hub| {
        hub.is
            .prs
            .get_mut(&(repo(), 1))
            .unwrap()
            .comments
            .push(theirs.clone())
    };
    say(&mut world.fake.hub());
    world.bridge.sync(true, &[]).await.unwrap();
    let waits = |says: Snapshot| says.prs[&(repo(), 1)].drafts == [b"hello".to_vec()];
    assert!(waits(world.says().await));
    world.fake.hub().rejects.clear();
    world.restart("*:r,comment:rw");
    world.sync().await;
    world.sync().await;
    let says = world.says().await;
    let ids: Vec<u64> = says.prs[&(repo(), 1)]
        .comments
        .iter()
        .map(|comment| comment.id)
        .collect();
    assert_eq!(ids, [7, 77]);
    assert!(says.prs[&(repo(), 1)].drafts.is_empty());
}

/// moby/datakit#235, #236 and #318: what is closed was kept, or not, by chance.
#[tokio::test]
async fn closed_pull_requests_are_kept_for_a_while() {
    let mut world = World::prepared("*:r", both_open()).await;
    let mut keep = options(&world.branch, "*:r");
    keep.keep_closed = Duration::from_secs(3600);
    world.restart_with(keep.clone());
    world.sync().await;
    let close = |world: &World, number: u64, ago: u64| {
        let at = std::time::SystemTime::now() - Duration::from_secs(ago);
        let at = jiff::Timestamp::try_from(at).unwrap();
        let hub = &mut *world.fake.hub();
        let pr = hub.is.prs.get_mut(&(repo(), number)).unwrap();
        pr.state = PrState::Closed;
        pr.closed_at = Some(at.to_string());
    };
    close(&world, 1, 60);
    close(&world, 2, 7200);
    world.bridge.sync(true, &[]).await.unwrap();
    let says = world.says().await;
    let left: Vec<_> = says
        .prs
        .iter()
        .map(|((_, number), pr)| (*number, pr.state))
        .collect();
    assert_eq!(left, [(1, PrState::Closed)]);
    assert!(
        says.statuses.keys().any(|(_, sha, _)| sha == "foo"),
        "with its statuses"
    );
    for _ in 0..2 {
        world.restart_with(keep.clone());
        assert!(world.bridge.sync(true, &[]).await.unwrap().commit.is_none());
    }
    // Without it they go.
    world.restart("*:r");
    world.sync().await;
    assert!(world.says().await.prs.is_empty());
}

/// moby/datakit#419 and #401: all of an organisation.
#[tokio::test]
async fn accounts_are_followed_with_all_that_is_theirs() {
    let mut is = both_open();
    let more: Repo = "test/more".parse().unwrap();
    is.add_ref(&more, &name("heads/master"), "foo".into());
    let mut world = World::new("*:r").await;
    world.fake.hub().is = is;
    world
        .fake
        .hub()
        .accounts
        .insert("test".into(), vec![repo(), more.clone()]);
    world
        .write(&[("test/.monitor", ""), ("other/.monitor", "")])
        .await;
    let outcome = world.sync().await;
    assert_eq!(outcome.unlisted.len(), 1);
    assert_eq!(world.says().await.repos, [repo(), more.clone()].into());
    assert!(world.files().await.contains(&"other/.error".into()));
    // One that somebody does not want any more stays away.
    let path = "test/more/.monitor".into();
    world
        .edit(vec![Put {
            path,
            content: None,
        }])
        .await;
    world.restart("*:r");
    world.sync().await;
    world.bridge.sync(true, &[]).await.unwrap();
    assert_eq!(world.says().await.repos, [repo()].into());
    // A new one is told of.
    let new: Repo = "test/new".parse().unwrap();
    world.fake.hub().is.add_repo(&new);
    world
        .fake
        .hub()
        .accounts
        .get_mut("test")
        .unwrap()
        .push(new.clone());
    world.hear(&[Event::Account("test".into())]).await;
    assert_eq!(world.says().await.repos, [repo(), new].into());
    assert!(world.sync().await.commit.is_none());
}

#[tokio::test]
async fn statuses_are_shown_as_check_runs_and_asked_for_again() {
    let mut world = World::prepared("*:rw,check:rw", both_open()).await;
    world.fake.hub().checks = Some(Default::default());
    world.sync().await;
    let file = "test/test/commit/foo/status/ci/build/state";
    world.write(&[(file, "pending")]).await;
    world.sync().await;
    world.restart("*:rw,check:rw");
    world.write(&[(file, "success")]).await;
    world.sync().await;
    let checks = world.fake.hub().checks.clone().unwrap();
    let shown: Vec<_> = checks
        .values()
        .map(|(.., at, status)| (at.to_string(), status.state))
        .collect();
    assert_eq!(
        shown,
        [("ci/build".into(), StatusState::Success)],
        "one run, and no other's status"
    );
    // What fails is shown later.
    world.write(&[(file, "failure")]).await;
    world.restart("*:rw,check:rw");
    world
        .fake
        .hub()
        .broken
        .insert(repo(), api::Error::Unreachable("502".into()));
    world.sync().await;
    world.fake.hub().broken.clear();
    world.sync().await;
    assert_eq!(
        world.fake.hub().checks.as_ref().unwrap()[&1].3.state,
        StatusState::Failure
    );
    // The button makes a file, and one press is one.
    let asked = Event::Rebuild(repo(), "foo".into(), context("ci/build"));
    world.hear(std::slice::from_ref(&asked)).await;
    let mark = "test/test/commit/foo/status/ci/build/rebuild-requested".to_owned();
    assert!(world.files().await.contains(&mark));
    assert!(world.hear(&[asked]).await.commit.is_none());
    let mut reader = Reader::default();
    let at = context("ci/build").unwrap();
    let head = world.head().await;
    reader.advance(&*world.dk, &head).await.unwrap();
    assert!(reader.is_asked(&repo(), "foo", &at));
    world.edit(reader.rebuilding(&repo(), "foo", &at)).await;
    let head = world.head().await;
    reader.advance(&*world.dk, &head).await.unwrap();
    assert!(!reader.is_asked(&repo(), "foo", &at));
    world
        .hear(&[Event::Rebuild(repo(), "foo".into(), None)])
        .await;
    assert!(
        world.files().await.contains(&mark),
        "all that is shown of the commit"
    );
    let unknown = Event::Rebuild(repo(), "foo".into(), context("no/such"));
    assert!(world.hear(&[unknown]).await.commit.is_none());
}
