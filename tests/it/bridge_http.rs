//! The GitHub bridge over HTTP, beside a GitHub in this process that does as
//! the real one: pages, ETags, limits, errors, cut connections.

use std::time::Duration;

use datakit::bridge::github::api::{self, Api};
use datakit::bridge::github::auth::Auth;
use datakit::bridge::github::http::Http;
use datakit::bridge::github::plan::{Parts, Push};
use datakit::forge::*;

use crate::bridge_github::world::{name, repo};
use crate::github::{Fault, GitHub};

mod comments;
mod histories;
mod hooked;
mod listings;
mod recorded;
pub mod world;

use world::*;

#[tokio::test]
async fn everything_is_read_page_by_page_and_then_for_nothing() {
    let mut world = World::new("*:r").await;
    {
        let hub = &mut *world.hub.world();
        hub.page = 3;
        hub.is.add_repo(&repo());
        for number in 1..=10 {
            let mut pr = described(&format!("c{number}"), "title");
            for id in 0..4 {
                let body = format!("said {id}").into_bytes();
                pr.comments.push(Comment {
                    id: number * 100 + id,
                    user: "you".into(),
                    body,
                });
            }
            hub.is.add_pr(&repo(), number, pr);
        }
        for number in 0..7 {
            let at = context(&format!("ci/{number}")).unwrap();
            let status = Status::new(StatusState::Success, Some("fine"), None);
            hub.is.add_status(&repo(), "c1", &at, status);
        }
        hub.reviews.insert(
            (repo(), 1),
            vec![("a", "APPROVED"), ("b", "COMMENTED"), ("b", "APPROVED")],
        );
        hub.is.add_ref(&repo(), &name("heads/fix#1+ü"), "c1".into());
        hub.is.add_ref(&repo(), &name("tags/v1"), "tag-1".into());
        hub.is.add_ref(&repo(), &name("tags/tree"), "tree-1".into());
        hub.is
            .add_ref(&repo(), &name("tags/of-a-tree"), "tag-2".into());
        hub.objects.insert("tag-1".into(), ("commit", "c2".into()));
        hub.objects
            .insert("tag-2".into(), ("tree", "tree-1".into()));
    }
    world.follow(&["test/test"]).await;
    world.sync().await;
    world.hub.assert_faithful();
    let says = world.says().await;
    let mut is = world.hub.world().is.clone();
    is.prs.get_mut(&(repo(), 1)).unwrap().review = Some("approved".into());
    assert_eq!(says.prs, is.prs);
    assert_eq!(says.statuses, is.statuses);
    let refs: Vec<String> = says
        .refs
        .iter()
        .map(|((_, name), sha)| format!("{name} {sha}"))
        .collect();
    assert_eq!(refs, ["heads/fix#1+ü c1", "tags/v1 c2"]);
    // Nothing new costs nothing, and is no commit, here nor in a new process.
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        let (heads, paid) = (world.heads().await, world.hub.world().paid());
        world.everything().await;
        assert_eq!(world.hub.world().paid(), paid, "restart: {restart}");
        assert_eq!(world.heads().await, heads);
    }
    // What is new costs what it takes, and what is gone is forgotten.
    world.hub.world().is.prs.remove(&(repo(), 10));
    let paid = world.hub.world().paid();
    world.everything().await;
    assert!(world.hub.world().paid() - paid <= 4, "the pages that moved");
    assert_eq!(world.says().await.prs.len(), 9);
    let notes = world.files(".sync").await;
    let notes = notes.iter().filter(|path| path.contains("/.http/")).count();
    let asked = |path: &str| !path.contains("/10/") && !path.contains("c10");
    let used: std::collections::BTreeSet<String> = {
        let hub = world.hub.world();
        let reads = hub
            .asked
            .iter()
            .filter(|call| call.method == "GET" && asked(&call.path));
        reads.map(|call| call.path.clone()).collect()
    };
    assert!(notes <= used.len(), "{notes} notes of {} calls", used.len());
    world.hub.assert_faithful();
}

/// moby/datakit#254 and #273: descriptions that are too long.
#[tokio::test]
async fn what_the_branch_says_goes_out_as_github_wants_it() {
    let mut world = World::new("*:rw,ref:rw,comment:rw").await;
    world.hub.world().is = both_described();
    world.follow(&["test/test"]).await;
    world.sync().await;
    let long = "ü".repeat(200);
    world
        .write(&[
            ("test/test/pr/1/title", "new"),
            ("test/test/pr/2/state", "closed"),
            ("test/test/pr/1/comments/mine/body", "hello"),
            ("test/test/commit/bar/status/ci/a/state", "success"),
            ("test/test/commit/bar/status/ci/a/description", &long),
            (
                "test/test/commit/bar/status/ci/a/target_url",
                "https://ci/1",
            ),
            ("test/test/commit/bar/status/default/state", "failure"),
            ("test/test/ref/heads/new+1/head", "foo"),
        ])
        .await;
    world.hub.world().spacing = Duration::from_millis(1);
    let outcome = world.sync().await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    world.hub.assert_faithful();
    let changes = world.hub.world().changes();
    insta::assert_snapshot!(changes.join("\n"), @r"
    PATCH /repos/test/test/pulls/1 200
    POST /repos/test/test/issues/1/comments 201
    PATCH /repos/test/test/pulls/2 200
    POST /repos/test/test/statuses/bar 201
    POST /repos/test/test/statuses/bar 201
    PATCH /repos/test/test/git/refs/heads/new%2B1 422
    POST /repos/test/test/git/refs 201
    ");
    let is = world.hub.world().is.clone();
    assert_eq!(is.prs[&(repo(), 1)].title, "new");
    assert_eq!(is.prs[&(repo(), 2)].state, PrState::Closed);
    let said = &is.prs[&(repo(), 1)].comments[1];
    assert!(said.body.starts_with(b"hello\n\n<!-- dk "));
    let status = &is.statuses[&(repo(), "bar".into(), context("ci/a").unwrap())];
    assert_eq!(status.description.as_deref(), Some(&*"ü".repeat(70)));
    assert_eq!(world.hub.world().hasty, 0, "changes keep their distance");
    // A closed pull request leaves the branch; nothing is told twice.
    assert_eq!(world.says().await.prs.len(), 1);
    for _ in 0..2 {
        world.everything().await;
        assert_eq!(world.hub.world().changes().len(), changes.len());
        world.restart();
    }
    // Moving back loses commits: that needs leave.
    world
        .write(&[("test/test/ref/heads/new+1/head", "bar")])
        .await;
    let outcome = world.sync().await;
    assert_eq!(outcome.failed.len(), 1);
    assert!(
        outcome.failed[0]
            .1
            .to_string()
            .contains("not a fast forward")
    );
    let asked = world.hub.world().asked.len();
    world.sync().await;
    assert_eq!(world.hub.world().asked.len(), asked, "not asked again");
    world.force_refs = true;
    world.restart();
    world.sync().await;
    let key = (repo(), name("heads/new+1"));
    assert_eq!(world.hub.world().is.refs[&key], "bar");
    world.remove("test/test/ref/heads/new+1").await;
    world.sync().await;
    assert!(!world.hub.world().is.refs.contains_key(&key));
    world.hub.assert_faithful();
}

/// moby/datakit#198, #513 and #526: one that was forbidden held up all.
#[tokio::test]
async fn one_repository_that_fails_holds_up_no_other() {
    let mut world = World::new("*:r").await;
    let others: Vec<Repo> = ["test/b", "test/c", "test/d", "test/e"]
        .map(|name| name.parse().unwrap())
        .into();
    {
        let hub = &mut *world.hub.world();
        hub.is = both_described();
        for other in &others {
            hub.is.add_ref(other, &name("heads/master"), "foo".into());
        }
    }
    world
        .follow(&[
            "test/test",
            "test/b",
            "test/c",
            "test/d",
            "test/e",
            "no/such",
        ])
        .await;
    world.sync().await;
    assert_eq!(
        world.read("no/such/.error").await,
        "/repos/no/such/pulls?state=open&per_page=100: 404 Not Found: Not Found is not there, or the token may not see it\n"
    );
    let before = world.says().await;
    for (repo, status, message) in [
        ("test/b", 403, "Resource not accessible"),
        ("test/c", 451, "Repository access blocked"),
        ("test/d", 502, "Server Error"),
        ("test/e", 404, "Not Found"),
    ] {
        world
            .hub
            .world()
            .broken
            .insert(repo.into(), (status, message));
    }
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        let title = if restart { "two" } else { "one" };
        world
            .hub
            .world()
            .is
            .prs
            .get_mut(&(repo(), 1))
            .unwrap()
            .title = title.into();
        let outcome = world.everything().await;
        assert_eq!(outcome.unread.len(), 5);
        let says = world.says().await;
        assert_eq!(says.prs[&(repo(), 1)].title, title, "the others go on");
        assert_eq!(says.refs, before.refs, "nothing looks deleted");
        let files = world.files("").await;
        assert_eq!(
            files
                .iter()
                .filter(|path| path.ends_with("/.error"))
                .count(),
            5
        );
        let head = world.heads().await;
        world.sync().await;
        assert_eq!(world.heads().await, head, "told once");
    }
    world.hub.world().broken.clear();
    world.sync().await;
    let files = world.files("").await;
    assert_eq!(
        files
            .iter()
            .filter(|path| path.ends_with("/.error"))
            .count(),
        1
    );
    let counts = datakit::metrics::metrics().text();
    assert!(
        counts.contains("datakit_bridge_unread{repository=\"no/such\"} 1"),
        "{counts}"
    );
}

/// moby/datakit#355: they were not, and later for ever.
#[tokio::test]
async fn limits_are_obeyed() {
    let mut world = World::new("*:r").await;
    world.hub.world().is = both_described();
    world.follow(&["test/test"]).await;
    // The budget ends in the middle.
    world.hub.world().left = 4;
    let outcome = world.sync().await;
    let limited = |outcome: &datakit::bridge::github::sync::Outcome| {
        outcome
            .unread
            .values()
            .all(|error| matches!(error, api::Error::Limited(_)))
    };
    assert!(outcome.unread.len() == 1 && limited(&outcome));
    assert_eq!(world.http.budget().remaining, Some(0));
    let asked = world.hub.world().asked.len();
    for _ in 0..3 {
        assert!(limited(&world.sync().await));
    }
    assert_eq!(
        world.hub.world().asked.len(),
        asked,
        "nothing is sent until it is filled again"
    );
    assert_eq!(
        world.read("test/test/.error").await,
        "GitHub's rate limit is reached\n"
    );
    // What had been read before is not paid for again.
    world.hub.world().left = 5000;
    world.restart();
    world.sync().await;
    assert_eq!(world.says().await.prs.len(), 2);
    // A secondary limit says how long, or a minute is meant.
    for (after, least, most) in [(Some(17), 15, 17), (None, 55, 60)] {
        world.restart();
        world.hub.world().faults = [Some(Fault::Secondary(after))].into();
        let outcome = world.sync().await;
        let waits = outcome.unread.values().map(|error| match error {
            api::Error::Limited(pause) => pause.as_secs(),
            error => panic!("{error}"),
        });
        let longest = waits.max().unwrap();
        assert!((least..=most).contains(&longest), "{after:?}: {longest}");
    }
}

#[tokio::test]
async fn a_cut_connection_is_no_empty_answer() {
    let mut world = World::new("*:rw").await;
    world.hub.world().is = both_described();
    world.follow(&["test/test"]).await;
    world.sync().await;
    let before = world.says().await;
    for place in 0..10 {
        world.restart();
        let mut faults: std::collections::VecDeque<Option<Fault>> = vec![None; place].into();
        faults.push_back(Some(Fault::Cut));
        world.hub.world().faults = faults;
        world.everything().await;
        assert_eq!(world.says().await, before, "cut at {place}");
        world.hub.world().faults.clear();
        world.everything().await;
        assert_eq!(world.says().await, before);
        assert!(
            !world
                .files("")
                .await
                .iter()
                .any(|path| path.ends_with(".error"))
        );
    }
    // A change that was made, and whose answer was cut, is made once.
    world
        .write(&[("test/test/commit/foo/status/ci/state", "success")])
        .await;
    world.hub.world().faults = [Some(Fault::Cut)].into();
    assert_eq!(world.sync().await.failed.len(), 1);
    world.everything().await;
    assert!(
        world
            .says()
            .await
            .statuses
            .keys()
            .any(|(.., at)| at.to_string() == "ci")
    );
}

#[tokio::test]
async fn a_repository_that_moved_is_found() {
    let mut world = World::new("*:rw").await;
    let new: Repo = "test/new".parse().unwrap();
    {
        let hub = &mut *world.hub.world();
        for ((_, number), pr) in both_described().prs {
            hub.is.add_pr(&new, number, pr);
        }
        hub.renamed.insert(repo(), new);
    }
    world.follow(&["test/test"]).await;
    world.sync().await;
    assert_eq!(world.says().await.prs.len(), 2);
    world
        .write(&[("test/test/commit/foo/status/ci/state", "success")])
        .await;
    let outcome = world.sync().await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(world.hub.world().is.statuses.len(), 1);
}

#[tokio::test]
async fn a_wrong_token_is_named_and_never_shown() {
    let mut world = World::new("*:r").await;
    world.hub.world().is = both_described();
    world.hub.world().token = Some("right".into());
    world.token = Some("ghp_wrong".into());
    world.restart();
    world.follow(&["test/test"]).await;
    world.sync().await;
    let error = world.read("test/test/.error").await;
    assert!(
        error.contains("Bad credentials") && !error.contains("ghp_wrong"),
        "{error}"
    );
    world.token = Some("right".into());
    world.restart();
    world.sync().await;
    assert_eq!(world.says().await.prs.len(), 2);
    for path in world.files(".sync").await {
        assert!(
            !world.read_of(".sync", &path).await.contains("right"),
            "{path}"
        );
    }
}

#[cfg(feature = "https")]
#[tokio::test]
async fn an_app_gets_tokens_and_shows_statuses_as_check_runs() {
    use datakit::bridge::github::auth::App;
    let key = include_str!("../data/github/app-key.pem");
    let auth = || Auth::App(Box::new(App::new("7", key).unwrap()));
    let mut world = World::new("*:rw,check:rw").await;
    let other: Repo = "other/x".parse().unwrap();
    {
        let hub = &mut *world.hub.world();
        hub.is = both_described();
        hub.is.add_ref(&other, &name("heads/master"), "foo".into());
        hub.app = Some(crate::github::App {
            id: "7".into(),
            life: Duration::from_secs(3600),
            tokens: Default::default(),
        });
        hub.organisations.insert("test".into());
    }
    world.restart_as(auth());
    world.follow(&["test/test", "other/x"]).await;
    let outcome = world.sync().await;
    assert!(outcome.unread.is_empty(), "{:?}", outcome.unread);
    let tokens = |world: &World| world.hub.world().app.as_ref().unwrap().tokens.len();
    assert_eq!(tokens(&world), 2, "one for each account");
    // A status goes out twice over, and its check run follows it.
    let file = "test/test/commit/foo/status/ci/build/state";
    world.write(&[(file, "pending")]).await;
    world.sync().await;
    // One taken back before its time is replaced.
    world.hub.world().app.as_mut().unwrap().tokens.clear();
    world
        .write(&[
            (file, "failure"),
            (
                "test/test/commit/foo/status/ci/build/target_url",
                "https://ci/1",
            ),
        ])
        .await;
    let outcome = world.sync().await;
    assert!(outcome.failed.is_empty() && outcome.unshown.is_empty());
    assert_eq!(tokens(&world), 1);
    let runs: Vec<serde_json::Value> = world.hub.world().checks.values().cloned().collect();
    assert_eq!(runs.len(), 1);
    let run = &runs[0];
    assert_eq!(
        (&run["name"], &run["head_sha"]),
        (&"ci/build".into(), &"foo".into())
    );
    assert_eq!(
        (&run["status"], &run["conclusion"]),
        (&"completed".into(), &"failure".into())
    );
    assert_eq!(run["details_url"], "https://ci/1");
    // Whole accounts are what the App was given.
    world.bridge.follow(&[], &["test".into()]).await.unwrap();
    let outcome = world.everything().await;
    assert!(outcome.unlisted.is_empty(), "{:?}", outcome.unlisted);
    for path in world.files(".sync").await {
        assert!(
            !world.read_of(".sync", &path).await.contains("ghs_"),
            "{path}"
        );
    }
    world.restart_as(Auth::App(Box::new(App::new("8", key).unwrap())));
    assert_eq!(
        world.everything().await.unread.len(),
        2,
        "another App is nobody here"
    );
    world.hub.assert_faithful();
}

#[tokio::test]
async fn only_what_changed_of_a_pull_request_is_sent() {
    let hub = GitHub::start().await;
    hub.world().is = both_described();
    let http = Http::new(settings(&hub.url), Auth::Anonymous, Default::default()).unwrap();
    let mut changed = described("foo", "new");
    changed.state = PrState::Closed;
    let parts = Parts {
        state: true,
        ..Parts::default()
    };
    http.push(&Push::Pr(repo(), 1, changed.clone(), parts))
        .await
        .unwrap();
    let is = hub.world().is.prs[&(repo(), 1)].clone();
    assert_eq!((is.title.as_str(), is.state), ("one", PrState::Closed));
    // A closed one cannot get another base: nothing is asked for by itself.
    let parts = Parts {
        title: true,
        ..Parts::default()
    };
    http.push(&Push::Pr(repo(), 1, changed, parts))
        .await
        .unwrap();
    assert_eq!(hub.world().is.prs[&(repo(), 1)].title, "new");
}
