//! The GitHub bridge, one sync at a time, beside a GitHub in memory: the cases
//! of the ancestor's tests under their names, then what dk adds.

use std::collections::BTreeSet;

use datakit::bridge::github::api::{self, Event};
use datakit::client::*;
use datakit::forge::layout::{Put, Reader, change};
use datakit::forge::*;

use crate::aftermath::seed;
use crate::forge::random;
use crate::stock::Dice;

mod further;
mod quirks;
pub mod world;

use world::*;

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

/// The branch says something else at random, of what can be said: pull requests
/// that are there, refs, and statuses of their heads.
fn rewritten(dice: &mut Dice, said: &Snapshot) -> Snapshot {
    let shas = ["foo", "bar", "c1"];
    let mut new = said.clone();
    for pr in new.prs.values_mut() {
        pr.title = format!("title {}", dice.roll(4));
        pr.base = (*dice.pick(&["master", "next"])).into();
        if dice.roll(6) == 0 {
            pr.state = PrState::Closed;
        }
    }
    for text in ["heads/a", "heads/b", "tags/v"] {
        match dice.roll(4) {
            0 => new.remove(&Id::Ref(repo(), name(text))),
            _ => new.add_ref(&repo(), &name(text), (*dice.pick(&shas)).into()),
        }
    }
    let heads: BTreeSet<Sha> = new.refs.values().cloned().collect();
    for head in &heads {
        let at = context(dice.pick::<&str>(&["ci", "ci/a", "foo/bar/baz"])).unwrap();
        let said = format!("{}", dice.roll(3));
        let status = Status::new(*dice.pick(&StatusState::ALL), Some(&said), None);
        new.add_status(&repo(), head, &at, status);
    }
    new.forget_commits();
    new
}

#[tokio::test]
async fn random_datakit() {
    let mut dice = Dice::new(seed());
    let mut is = both_open();
    for number in 3..20 {
        is.add_pr(&repo(), number, pr("foo", "one of many"));
    }
    let mut world = World::prepared("*:x,ref:x", is).await;
    world.sync().await;
    for round in 0..30 {
        let mut reader = Reader::default();
        reader
            .advance(&*world.dk, &world.head().await)
            .await
            .unwrap();
        let wanted = rewritten(&mut dice, reader.snapshot());
        world
            .edit(reader.edits(&wanted.since(reader.snapshot())))
            .await;
        if dice.roll(3) == 0 {
            world.restart("*:x,ref:x");
        }
        let outcome = world.sync().await;
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        let followed = [repo()].into();
        let (is, wanted) = (
            pruned(&world.fake.hub().is, &followed),
            pruned(&wanted, &followed),
        );
        assert_eq!((&is.prs, &is.refs), (&wanted.prs, &wanted.refs));
        // A commit that is a head again has the statuses it had.
        for (key, status) in &wanted.statuses {
            assert_eq!(is.statuses.get(key), Some(status), "round {round}");
        }
        assert_eq!(world.says().await, is, "round {round}");
        let told = world.calls().3;
        assert!(world.sync().await.commit.is_none(), "round {round}");
        assert_eq!(world.calls().3, told, "round {round}: quiet");
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

/// moby/datakit#237: what could not be read was emptied.
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
    let gone = |name: &str| Put {
        path: format!("test/test/ref/{name}"),
        content: None,
    };
    // All at once is a folder that is not there, and comes back.
    world.edit(vec![gone("heads")]).await;
    let outcome = world.sync().await;
    assert_eq!((outcome.failed.len(), world.calls().3), (0, 0));
    assert_eq!(world.says().await.refs, is.refs);
    let all = (1..12).map(|number| gone(&format!("heads/{number}")));
    world.edit(all.collect()).await;
    let outcome = world.sync().await;
    assert_eq!((outcome.failed.len(), world.calls().3), (11, 0));
    assert_eq!(world.fake.hub().is, is);
    let mut allowed = options(&world.branch, "*:r,ref:rw");
    allowed.allow_deletes = true;
    world.restart_with(allowed);
    world.sync().await;
    assert_eq!(world.fake.hub().is.refs.len(), 1);
}

/// What is answered with 422 is not sent for ever: a commit takes 1,000 statuses of
/// one context and no more.
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
    // It is not asked the same again, until all is read anew.
    for _ in 0..3 {
        assert_eq!(world.sync().await.failed.len(), 1);
    }
    assert_eq!(world.fake.hub().rejected, 1);
    world.fake.hub().rejects.clear();
    let outcome = world.bridge.sync(true, &[]).await.unwrap();
    assert_eq!(outcome.pushed.len(), 1);
    assert_eq!(world.sync().await.pushed.len(), 0);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let mut world = World::prepared("*:rw", both_open()).await;
    world.sync().await;
    world.write(&[("test/test/pr/2/title", "x")]).await;
    let (head, is) = (world.head().await, world.fake.hub().is.clone());
    let mut dry = options(&world.branch, "*:rw");
    dry.dry_run = true;
    world.restart_with(dry);
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
