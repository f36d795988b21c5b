//! Watches: nothing missed, nothing repeated.

use super::*;

crate::every_client! {
    resumed_where_it_stopped from_the_beginning_and_from_now the_present_first
    an_unborn_branch_is_waited_for reset_and_deletion merges_count_against_the_first_parent
    the_newest_only commits_that_change_nothing many_writers_one_reader unknown_start
}

fn query(since: Since) -> WatchQuery {
    WatchQuery {
        branch: branch("main"),
        path: TreePath::root(),
        since,
        latest: false,
        unchanged: false,
    }
}

fn id(event: &Event) -> ObjectId {
    match event {
        Event::Commit { commit, .. } => commit.id,
        Event::Deleted { .. } => panic!("deleted"),
    }
}

async fn resumed_where_it_stopped(dk: &dyn Client) {
    let mut ids = Vec::new();
    for text in ["1", "2", "3", "4", "5"] {
        ids.push(commit(dk, "main", vec![write("a", text)]).await);
    }
    let mut watch = dk.watch(query(Since::Commit(ids[0])));
    for expected in &ids[1..3] {
        assert_eq!(id(&next(&mut watch).await), *expected);
    }
    drop(watch);
    let mut watch = dk.watch(query(Since::Commit(ids[2])));
    for expected in &ids[3..] {
        let event = next(&mut watch).await;
        assert_eq!(id(&event), *expected);
    }
    let live = commit(dk, "main", vec![write("a", "live")]).await;
    match next(&mut watch).await {
        Event::Commit {
            commit,
            previous,
            reset,
            changes,
        } => {
            assert_eq!((commit.id, previous, reset), (live, Some(ids[4]), false));
            assert_eq!(changes.len(), 1);
        }
        Event::Deleted { .. } => panic!("deleted"),
    }
}

async fn from_the_beginning_and_from_now(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let mut all = dk.watch(query(Since::Beginning));
    match next(&mut all).await {
        Event::Commit {
            commit,
            previous,
            changes,
            ..
        } => {
            assert_eq!((commit.id, previous), (one, None));
            assert_eq!(changes[0].kind(), ChangeKind::Added);
        }
        Event::Deleted { .. } => panic!("deleted"),
    }
    // The first is of what came before it began, so none of those is told.
    let mut since = dk.watch(query(Since::Commit(one)));
    let two = commit(dk, "main", vec![write("a", "2")]).await;
    assert_eq!(id(&next(&mut all).await), two);
    assert_eq!(id(&next(&mut since).await), two);
}

async fn the_present_first(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a/x", "1"), write("b", "1")]).await;
    let mut watch = dk.watch(WatchQuery {
        path: path("a"),
        ..query(Since::Current)
    });
    match next(&mut watch).await {
        Event::Commit {
            commit, changes, ..
        } => {
            assert_eq!(commit.id, one);
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            assert_eq!(changes, ["+ a/x"]);
        }
        Event::Deleted { .. } => panic!("deleted"),
    }
    let two = commit(dk, "main", vec![write("a/y", "1")]).await;
    assert_eq!(id(&next(&mut watch).await), two);
}

async fn an_unborn_branch_is_waited_for(dk: &dyn Client) {
    let mut watch = dk.watch(query(Since::Beginning));
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    assert_eq!(id(&next(&mut watch).await), one);
}

async fn reset_and_deletion(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let two = commit(dk, "main", vec![write("a", "2")]).await;
    let aside = commit(dk, "aside", vec![write("z", "1")]).await;
    let mut watch = dk.watch(query(Since::Commit(two)));
    let main = branch("main");
    dk.move_head(&main, &one, MoveOptions::default())
        .await
        .unwrap();
    match next(&mut watch).await {
        Event::Commit {
            commit,
            reset,
            previous,
            ..
        } => {
            assert_eq!((commit.id, reset, previous), (one, true, Some(two)));
        }
        Event::Deleted { .. } => panic!("deleted"),
    }
    dk.delete_branch(&main, MoveOptions::default())
        .await
        .unwrap();
    assert_eq!(next(&mut watch).await, Event::Deleted { previous: one });
    dk.move_head(&main, &aside, MoveOptions::default())
        .await
        .unwrap();
    match next(&mut watch).await {
        Event::Commit {
            commit,
            reset,
            changes,
            ..
        } => {
            assert_eq!((commit.id, reset), (aside, true));
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            assert_eq!(changes, ["- a", "+ z"]);
        }
        Event::Deleted { .. } => panic!("deleted twice"),
    }
}

async fn merges_count_against_the_first_parent(dk: &dyn Client) {
    let base = commit(dk, "main", vec![write("a", "1")]).await;
    dk.move_head(&branch("side"), &base, MoveOptions::default())
        .await
        .unwrap();
    let side = commit(dk, "side", vec![write("b", "1")]).await;
    let side = {
        commit(dk, "side", vec![write("c", "1")]).await;
        side
    };
    let ours = commit(dk, "main", vec![write("d", "1")]).await;
    let merged = dk
        .merge(
            &branch("main"),
            &head(dk, "side").await,
            MergeOptions::default(),
        )
        .await
        .unwrap();
    let mut watch = dk.watch(query(Since::Commit(base)));
    assert_eq!(id(&next(&mut watch).await), ours);
    match next(&mut watch).await {
        Event::Commit {
            commit, changes, ..
        } => {
            assert_eq!(Some(commit.id), merged.head);
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            assert_eq!(changes, ["+ b", "+ c"]);
        }
        Event::Deleted { .. } => panic!("deleted"),
    }
    // A start that is reached through the second parent only.
    let mut watch = dk.watch(query(Since::Commit(side)));
    assert_eq!(Some(id(&next(&mut watch).await)), merged.head);
}

async fn the_newest_only(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    commit(dk, "main", vec![write("b", "1")]).await;
    let three = commit(dk, "main", vec![write("c", "1")]).await;
    let mut watch = dk.watch(WatchQuery {
        latest: true,
        ..query(Since::Commit(one))
    });
    match next(&mut watch).await {
        Event::Commit {
            commit,
            changes,
            previous,
            ..
        } => {
            assert_eq!((commit.id, previous), (three, Some(one)));
            assert_eq!(changes.len(), 2);
        }
        Event::Deleted { .. } => panic!("deleted"),
    }
}

async fn commits_that_change_nothing(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let same = commit(dk, "main", vec![write("a", "1")]).await;
    let mut every = dk.watch(WatchQuery {
        unchanged: true,
        ..query(Since::Commit(one))
    });
    assert_eq!(id(&next(&mut every).await), same);
    let mut some = dk.watch(query(Since::Commit(one)));
    let live = commit(dk, "main", vec![write("a", "1")]).await;
    assert_eq!(id(&next(&mut every).await), live);
    let two = commit(dk, "main", vec![write("a", "2")]).await;
    assert_eq!(id(&next(&mut some).await), two);
}

async fn many_writers_one_reader(dk: &dyn Client) {
    const EACH: u64 = 20;
    let mut watch = dk.watch(query(Since::Beginning));
    let writer = async |name: &'static str| {
        for round in 0..EACH {
            let new = Do::Write(name, round.to_string().into());
            commit(dk, "main", vec![new]).await;
        }
    };
    let reader = async {
        let (mut last, mut count) = (None, 0);
        while count < 3 * EACH {
            match next(&mut watch).await {
                Event::Commit {
                    commit,
                    previous,
                    reset,
                    ..
                } => {
                    assert_eq!((previous, reset), (last, false));
                    assert_eq!(commit.parents.first().copied(), last);
                    last = Some(commit.id);
                    count += 1;
                }
                Event::Deleted { .. } => panic!("deleted"),
            }
        }
        last
    };
    let ((), (), (), last) = tokio::join!(writer("a"), writer("b"), writer("c"), reader);
    assert_eq!(last, Some(head(dk, "main").await));
}

async fn unknown_start(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let unknown = ObjectId::from_bytes(&vec![1; one.hash_kind().id_len()]).unwrap();
    let mut watch = dk.watch(query(Since::Commit(unknown)));
    let first = std::future::poll_fn(|context| watch.as_mut().poll_next(context)).await;
    assert_eq!(first.unwrap().unwrap_err().kind(), Kind::NotFound);
}
