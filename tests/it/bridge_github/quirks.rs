//! The ancestor's quirks by their numbers (section 12 of the specification),
//! as far as no other test shows that they are gone:
//!
//! - Q1, names: `bridge_http::everything_is_read_page_by_page_and_then_for_nothing`
//! - Q2, odd folders: `forge::odd_files_are_passed_over_and_marks_are_found`
//! - Q5, failed listings: `bridge_github::what_cannot_be_read_looks_like_no_deletion`
//! - Q7, who changed it: `plan::tests::who_changed_it_is_followed`
//! - Q8, refs set and removed: `bridge_github::refs_are_removed_a_few_at_a_time`
//! - Q9, events kept: `bridge_webhooks::deliveries_are_answered_and_kept_until_they_are_used`
//! - Q10, SIGTERM: `cli_bridge_github::it_listens_counts_and_ends`
//! - Q11 and Q12, capabilities: `capabilities::tests::what_the_ancestor_asserts_holds`

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use datakit::bridge::github::run::Bridge;
use datakit::bridge::github::sync::Sync;
use datakit::bridge::github::webhook::Inbox;
use datakit::forge::*;
use datakit::model::Kind;

use super::world::*;

#[tokio::test]
async fn q3_a_resync_is_not_lost_to_another_trigger() {
    let mut world = World::prepared("*:r", both_open()).await;
    world.sync().await;
    let sync = Sync::new(
        world.dk.clone(),
        world.fake.clone(),
        Arc::default(),
        options(&world.branch, "*:r"),
    );
    let bridge = Bridge {
        sync,
        inbox: Arc::new(Inbox::default()),
        hooks: None,
        resync: Some(Duration::from_millis(50)),
    };
    // Nobody tells of it, and the branch changes all the while.
    let silently = pr("foo", "told by nobody");
    let changed = async {
        let limit = Instant::now() + Duration::from_secs(30);
        for round in 0.. {
            world.write(&[("notes", &format!("{round}"))]).await;
            if round == 10 {
                world.fake.hub().is.add_pr(&repo(), 1, silently.clone());
            }
            if world.says().await.prs[&(repo(), 1)].title == silently.title {
                return;
            }
            assert!(Instant::now() < limit, "it was not read again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = bridge.run(|_| ControlFlow::Continue(())) => panic!("{ended:?}"),
        () = changed => (),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q4_somebody_else_who_writes_is_outlasted() {
    let mut world = World::prepared("*:r", both_open()).await;
    world.sync().await;
    let (done, dk, branch) = (
        Arc::new(AtomicBool::new(false)),
        world.dk.clone(),
        world.branch.clone(),
    );
    let writer = tokio::spawn({
        let done = done.clone();
        async move {
            let mut round = 0;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                let put = datakit::forge::layout::Put {
                    path: "notes".into(),
                    content: Some(format!("{round}").into_bytes()),
                };
                let edits = datakit::forge::layout::change(vec![put]);
                dk.edit(&branch, edits, Default::default()).await.unwrap();
            }
        }
    });
    for round in 0..20 {
        let title = format!("title {round}");
        world.fake.hub().is.add_pr(&repo(), 1, pr("foo", &title));
        // It ends, one way or the other.
        if let Err(error) = world.bridge.sync(true, &[]).await {
            assert_eq!(error.kind(), Kind::Busy, "{error}");
        }
    }
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    world.sync().await;
    assert_eq!(world.says().await.prs[&(repo(), 1)].title, "title 19");
    assert!(world.files().await.contains(&"notes".into()));
}

#[tokio::test]
async fn q6_what_is_marked_and_gone_takes_nothing_with_it() {
    let mut world = World::prepared("*:r", both_open()).await;
    world.sync().await;
    let before = world.says().await;
    // Closed there, and replaced by itself where it is not.
    {
        let hub = &mut *world.fake.hub();
        let closed = Pr {
            state: PrState::Closed,
            ..pr("foo", "one")
        };
        hub.is.add_pr(&repo(), 1, closed);
        hub.is.add_pr(&repo(), 2, pr("bar", "new"));
    }
    for number in 1..=2 {
        let mark = format!("test/test/pr/{number}/.dirty");
        world.write(&[(&mark, "")]).await;
    }
    world.sync().await;
    let says = world.says().await;
    let titles: Vec<&str> = says.prs.values().map(|pr| &*pr.title).collect();
    assert_eq!((titles, &says.refs), (vec!["new"], &before.refs));
    // Not there at all.
    world.fake.hub().is.remove(&Id::Pr(repo(), 2));
    world.write(&[("test/test/pr/2/.dirty", "")]).await;
    world.sync().await;
    let says = world.says().await;
    assert_eq!((says.prs.len(), &says.refs), (0, &before.refs));
    assert!(world.sync().await.commit.is_none(), "it stays so");
    // A ref is a matter of refs, not of pull requests.
    let moved = |world: &World, head: &str| {
        let master = name("heads/master");
        world.fake.hub().is.add_ref(&repo(), &master, head.into());
    };
    for (caps, head, seen) in [("*:r,pr:", "foo", "foo"), ("*:r,ref:", "bar", "foo")] {
        world.restart(caps);
        world.sync().await;
        if caps.contains("ref:") {
            // What may not be read is not there.
            assert!(world.says().await.refs.is_empty());
            continue;
        }
        moved(&world, head);
        world
            .write(&[("test/test/ref/heads/master/.dirty", "")])
            .await;
        world.sync().await;
        assert_eq!(world.says().await.refs.values().next().unwrap(), seen);
    }
}
