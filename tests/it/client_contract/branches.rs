//! Branches, revisions, reading, and edits made in one step.

use super::*;

crate::every_client! {
    branches_are_listed_moved_and_deleted revisions failures_have_the_same_class
    the_beginning_of_a_file_is_at_hand
    edits_of_different_files_both_stand expectations empty_commits
    merging_in_one_step a_merge_without_a_common_past favoured_side dry_run
    paths_and_kinds log_and_walk streams_of_content sources_that_fail
}

async fn branches_are_listed_moved_and_deleted(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let two = commit(dk, "main", vec![write("a", "2")]).await;
    let default = MoveOptions::default();
    dk.move_head(&branch("feature/x"), &one, default)
        .await
        .unwrap();
    let listed = dk.branches().await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|b| (b.name.to_string(), b.head))
        .collect();
    assert_eq!(
        listed,
        [("feature/x".to_string(), one), ("main".to_string(), two)]
    );

    let forward = MoveOptions {
        ff_only: true,
        ..default
    };
    assert_eq!(
        dk.move_head(&branch("main"), &one, forward)
            .await
            .unwrap_err()
            .kind(),
        Kind::HeadMoved
    );
    dk.move_head(&branch("feature/x"), &two, forward)
        .await
        .unwrap();
    dk.move_head(&branch("feature/x"), &two, forward)
        .await
        .unwrap();
    let wrong = MoveOptions {
        expect: Expect::Head(one),
        ..default
    };
    match dk
        .move_head(&branch("feature/x"), &one, wrong)
        .await
        .unwrap_err()
    {
        Error::HeadMoved { actual, .. } => assert_eq!(actual, Some(two)),
        other => panic!("{other}"),
    }
    // A name inside another one.
    let beside = dk
        .move_head(&branch("feature"), &one, default)
        .await
        .unwrap_err();
    assert_eq!(beside.kind(), Kind::Exists);

    assert_eq!(
        dk.rename_branch(&branch("feature/x"), &branch("y"), false)
            .await
            .unwrap(),
        two
    );
    assert_eq!(dk.head(&branch("feature/x")).await.unwrap(), None);
    let taken = dk
        .rename_branch(&branch("y"), &branch("main"), false)
        .await
        .unwrap_err();
    assert_eq!(taken.kind(), Kind::Exists);
    let missing = dk
        .rename_branch(&branch("z"), &branch("w"), false)
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert_eq!(dk.delete_branch(&branch("y"), default).await.unwrap(), two);
    let gone = dk.delete_branch(&branch("y"), default).await.unwrap_err();
    assert_eq!(gone.to_string(), "branch y does not exist");
    dk.move_head(&branch("feature"), &one, default)
        .await
        .unwrap();
}

async fn revisions(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let two = commit(dk, "main", vec![write("a", "2")]).await;
    let resolve = async |text: &str| dk.resolve(&Rev::new(text).unwrap()).await;
    assert_eq!(resolve("main").await.unwrap(), two);
    assert_eq!(resolve("main~").await.unwrap(), one);
    assert_eq!(resolve("main^1").await.unwrap(), one);
    assert_eq!(resolve("main^0").await.unwrap(), two);
    assert_eq!(resolve(&one.to_string()).await.unwrap(), one);
    assert_eq!(
        resolve(&one.to_string()[..12].to_uppercase())
            .await
            .unwrap(),
        one
    );
    for missing in ["none", "main~2", "main^2", "00000000", &"0".repeat(40)] {
        assert_eq!(
            resolve(missing).await.unwrap_err().kind(),
            Kind::NotFound,
            "{missing}"
        );
    }
    // A branch goes before a commit of that name.
    let name = &two.to_string()[..10];
    dk.move_head(&branch(name), &one, MoveOptions::default())
        .await
        .unwrap();
    assert_eq!(resolve(name).await.unwrap(), one);
}

async fn the_beginning_of_a_file_is_at_hand(dk: &dyn Client) {
    let long: Vec<u8> = (0..300_000u32).map(|number| (number / 7) as u8).collect();
    let new = commit(dk, "main", vec![Do::Write("long", long.clone())]).await;
    let reader = dk.open(&At::Commit(new), &path("long")).await.unwrap();
    let (start, mut reader) = at_hand(reader);
    assert!(long.starts_with(&start));
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        rest
    });
    assert!(long.ends_with(&rest.await.unwrap()));
}

async fn failures_have_the_same_class(dk: &dyn Client) {
    let new = commit(
        dk,
        "main",
        vec![write("dir/file", "x"), Do::Link("link", "dir")],
    )
    .await;
    let at = At::Commit(new);
    let open = async |from: &str| match dk.open(&at, &path(from)).await {
        Ok(_) => panic!("{from} opened"),
        Err(error) => (error.kind(), error.to_string()),
    };
    assert_eq!(
        open("none").await,
        (Kind::NotFound, "none does not exist".into())
    );
    assert_eq!(
        open("dir").await,
        (Kind::IsDirectory, "dir is a directory".into())
    );
    assert_eq!(open("dir/file/x").await.0, Kind::NotFound);
    assert_eq!(
        open("link/file").await.0,
        Kind::NotFound,
        "links are not followed"
    );
    let listed = dk.list(&at, &path("dir/file"), false).await.unwrap_err();
    assert_eq!(listed.kind(), Kind::NotDirectory);
    let unknown = ObjectId::from_bytes(&vec![7; new.hash_kind().id_len()]).unwrap();
    assert_eq!(
        dk.commit(&unknown).await.unwrap_err().kind(),
        Kind::NotFound
    );

    for (list, kind) in [
        (vec![write("dir/file/x", "")], Kind::NotDirectory),
        (vec![write("dir", "")], Kind::IsDirectory),
        (vec![Do::Mkdir("dir/file")], Kind::Exists),
        (vec![Do::Remove("none")], Kind::NotFound),
        (vec![Do::Remove("")], Kind::Invalid),
        (vec![Do::Rename("none", "x")], Kind::NotFound),
        (vec![Do::Rename("dir", "dir/in")], Kind::Invalid),
        (vec![Do::Rename("link", "dir")], Kind::IsDirectory),
        (vec![Do::Chmod("dir", true)], Kind::IsDirectory),
        (vec![Do::Chmod("none", true)], Kind::NotFound),
        (vec![Do::Truncate("none", 1)], Kind::NotFound),
        (vec![Do::Append("link", "x")], Kind::Invalid),
        // One good edit before a bad one: nothing is done.
        (vec![write("good", "x"), Do::Remove("none")], Kind::NotFound),
    ] {
        let refused = dk
            .edit(&branch("main"), edits(list), CommitOptions::default())
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused}");
        assert_eq!(head(dk, "main").await, new);
    }
}

async fn edits_of_different_files_both_stand(dk: &dyn Client) {
    const WRITERS: usize = 8;
    const EACH: usize = 5;
    let writers = (0..WRITERS).map(|writer| async move {
        for round in 0..EACH {
            let at = format!("w{writer}/{round}");
            let source = Edits::new(move |sink| {
                sink.edit(Edit::Write {
                    path: TreePath::new(&at).unwrap(),
                    kind: FileKind::Keep,
                    content: Content::Bytes(at.as_bytes()),
                })
            });
            dk.edit(&branch("main"), source, CommitOptions::default())
                .await
                .unwrap();
        }
    });
    join_all(writers).await;
    let at = At::Commit(head(dk, "main").await);
    let walked = all(dk.walk(&at, &TreePath::root(), false)).await;
    assert_eq!(walked.len(), WRITERS * EACH);
    let query = LogQuery {
        from: vec![head(dk, "main").await],
        ..LogQuery::default()
    };
    let log = all(dk.log(query)).await;
    assert_eq!(log.len(), WRITERS * EACH, "one commit each, and no merges");
}

/// Runs futures together to their ends.
async fn join_all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

async fn expectations(dk: &dyn Client) {
    let with = |expect| CommitOptions {
        expect,
        ..CommitOptions::default()
    };
    let main = branch("main");
    let put = |text: &str| edits(vec![write("a", text)]);
    let one = dk
        .edit(&main, put("1"), with(Expect::Unborn))
        .await
        .unwrap();
    let again = dk
        .edit(&main, put("2"), with(Expect::Unborn))
        .await
        .unwrap_err();
    assert_eq!(again.kind(), Kind::HeadMoved);
    let two = dk
        .edit(&main, put("2"), with(Expect::Head(one)))
        .await
        .unwrap();
    let stale = dk
        .edit(&main, put("3"), with(Expect::Head(one)))
        .await
        .unwrap_err();
    assert_eq!(stale.kind(), Kind::HeadMoved);
    assert!(stale.to_string().contains("main"), "{stale}");
    assert_eq!(head(dk, "main").await, two);
}

async fn empty_commits(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1")]).await;
    let with = |empty| CommitOptions {
        empty,
        ..CommitOptions::default()
    };
    let main = branch("main");
    let same = || edits(vec![write("a", "1")]);
    assert_eq!(
        dk.edit(&main, same(), with(Empty::Skip)).await.unwrap(),
        one
    );
    let refused = dk
        .edit(&main, same(), with(Empty::Refuse))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    let two = dk.edit(&main, same(), with(Empty::Allow)).await.unwrap();
    assert_eq!(dk.commit(&two).await.unwrap().parents, [one]);
    // A folder emptied by an edit disappears.
    let three = commit(dk, "main", vec![write("d/e/f", "1")]).await;
    assert_eq!(names(dk, &At::Commit(three), "").await, ["a", "d"]);
    let four = commit(dk, "main", vec![Do::Remove("d/e/f")]).await;
    assert_eq!(names(dk, &At::Commit(four), "").await, ["a"]);
}

async fn merging_in_one_step(dk: &dyn Client) {
    let base = commit(dk, "main", vec![write("a", "1"), write("b", "1")]).await;
    let default = MergeOptions::default;
    let into = branch("into");
    // Unborn: forward. The same again: nothing.
    for _ in 0..2 {
        let merged = dk.merge(&into, &base, default()).await.unwrap();
        assert!(merged.fast_forward);
        assert_eq!(merged.head, Some(base));
    }
    let theirs = commit(dk, "main", vec![write("a", "theirs")]).await;
    let ours = commit(dk, "into", vec![write("b", "ours")]).await;
    let merged = dk.merge(&into, &theirs, default()).await.unwrap();
    let new = merged.head.unwrap();
    assert_eq!(dk.commit(&new).await.unwrap().parents, [ours, theirs]);
    assert_eq!(read(dk, &At::Commit(new), "a").await, "theirs");
    assert_eq!(read(dk, &At::Commit(new), "b").await, "ours");
    assert_eq!(dk.merge_bases(&ours, &theirs).await.unwrap(), [base]);
    // What is merged already changes nothing.
    assert_eq!(
        dk.merge(&into, &theirs, default()).await.unwrap().head,
        Some(new)
    );
    // Conflicts change nothing either.
    let theirs = commit(dk, "main", vec![write("a", "x")]).await;
    commit(dk, "into", vec![write("a", "y")]).await;
    let ours = head(dk, "into").await;
    match dk.merge(&into, &theirs, default()).await.unwrap_err() {
        Error::Conflict { paths, kinds } => {
            assert_eq!(
                (paths, kinds),
                (vec![path("a")], vec![ConflictKind::ChangedBoth])
            );
        }
        other => panic!("{other}"),
    }
    assert_eq!(head(dk, "into").await, ours);
    let only_forward = MergeOptions {
        commit: CommitOptions {
            ff_only: true,
            ..CommitOptions::default()
        },
        ..default()
    };
    let refused = dk.merge(&into, &theirs, only_forward).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::HeadMoved);
}

async fn a_merge_without_a_common_past(dk: &dyn Client) {
    let theirs = commit(dk, "a", vec![write("same", "1"), write("theirs", "1")]).await;
    commit(dk, "b", vec![write("same", "1"), write("ours", "1")]).await;
    let merged = dk
        .merge(&branch("b"), &theirs, MergeOptions::default())
        .await
        .unwrap();
    let at = At::Commit(merged.head.unwrap());
    assert_eq!(names(dk, &at, "").await, ["ours", "same", "theirs"]);
}

async fn favoured_side(dk: &dyn Client) {
    for (side, expected) in [
        (Side::Ours, "ours"),
        (Side::Theirs, "theirs"),
        (Side::Base, "base"),
    ] {
        let name = expected;
        let theirs_name = format!("{name}-theirs");
        let base = commit(dk, name, vec![write("a", "base"), write("b", "base")]).await;
        dk.move_head(&branch(&theirs_name), &base, MoveOptions::default())
            .await
            .unwrap();
        let theirs = commit(
            dk,
            &theirs_name,
            vec![write("a", "theirs"), write("c", "new")],
        )
        .await;
        commit(dk, name, vec![write("a", "ours")]).await;
        let options = MergeOptions {
            favour: Some(side),
            ..MergeOptions::default()
        };
        let merged = dk.merge(&branch(name), &theirs, options).await.unwrap();
        let at = At::Commit(merged.head.unwrap());
        assert_eq!(read(dk, &at, "a").await, expected);
        assert_eq!(read(dk, &at, "c").await, "new");
    }
}

async fn dry_run(dk: &dyn Client) {
    let base = commit(dk, "main", vec![write("a", "1")]).await;
    dk.move_head(&branch("b"), &base, MoveOptions::default())
        .await
        .unwrap();
    let theirs = commit(dk, "b", vec![write("a", "2")]).await;
    let ours = commit(dk, "main", vec![write("a", "3")]).await;
    let options = MergeOptions {
        dry_run: true,
        ..MergeOptions::default()
    };
    let merged = dk.merge(&branch("main"), &theirs, options).await.unwrap();
    assert_eq!(merged.conflicts.len(), 1);
    assert_eq!(merged.head, Some(ours));
    assert_eq!(head(dk, "main").await, ours);
}

async fn paths_and_kinds(dk: &dyn Client) {
    let new = commit(
        dk,
        "main",
        vec![
            Do::Exec("run", "x"),
            write("run", "y"),
            Do::Link("link", "to"),
            write("dir/a", "1"),
            Do::Rename("dir", "moved/dir"),
            Do::Rename("run", "moved/run"),
            Do::Append("log", "1"),
            Do::Append("log", "2"),
            Do::Copy("moved", "copy"),
            Do::Remove("copy/run"),
        ],
    )
    .await;
    let at = At::Commit(new);
    assert_eq!(
        kind(dk, &at, "moved/run").await,
        Some(EntryKind::Exec),
        "the kind is kept"
    );
    assert_eq!(kind(dk, &at, "link").await, Some(EntryKind::Link));
    assert_eq!(read(dk, &at, "moved/dir/a").await, "1");
    assert_eq!(read(dk, &at, "log").await, "12");
    assert_eq!(names(dk, &at, "").await, ["copy", "link", "log", "moved"]);
    assert_eq!(names(dk, &at, "copy").await, ["dir"]);
    let stat = dk.stat(&at, &path("moved")).await.unwrap().unwrap();
    assert_eq!((stat.entry.mode.kind(), stat.size), (EntryKind::Dir, 2));
    // An object put where another kind stood.
    let dir = stat.entry;
    let new = commit(
        dk,
        "main",
        vec![Do::Set("log", dir), write("log/more", "x")],
    )
    .await;
    assert_eq!(
        names(dk, &At::Commit(new), "log").await,
        ["dir", "more", "run"]
    );
    let gone = Entry { id: new, ..dir };
    let refused = dk
        .edit(
            &branch("main"),
            edits(vec![Do::Set("z", gone)]),
            CommitOptions::default(),
        )
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound, "a commit is no tree");
}

async fn log_and_walk(dk: &dyn Client) {
    let one = commit(dk, "main", vec![write("a", "1"), write("a-b", "1")]).await;
    let two = commit(dk, "main", vec![Do::Remove("a"), write("a/c", "2")]).await;
    let three = commit(dk, "main", vec![write("b", "3")]).await;
    let log = async |query: LogQuery| -> Vec<ObjectId> {
        all(dk.log(query))
            .await
            .into_iter()
            .map(|commit| commit.id)
            .collect()
    };
    let from = || LogQuery {
        from: vec![three],
        ..LogQuery::default()
    };
    assert_eq!(log(from()).await, [three, two, one]);
    assert_eq!(
        log(LogQuery {
            limit: Some(1),
            ..from()
        })
        .await,
        [three]
    );
    assert_eq!(
        log(LogQuery {
            hidden: vec![one],
            ..from()
        })
        .await,
        [three, two]
    );
    assert_eq!(
        log(LogQuery {
            paths: vec![path("a")],
            ..from()
        })
        .await,
        [two, one]
    );
    let walked = all(dk.walk(&At::Commit(three), &TreePath::root(), true)).await;
    let walked: Vec<_> = walked
        .iter()
        .map(|item| (item.path.to_string(), item.size))
        .collect();
    // `a-b` sorts before the folder `a`: as Git has it.
    assert_eq!(
        walked,
        [
            ("a-b".into(), Some(1)),
            ("a/c".into(), Some(1)),
            ("b".to_string(), Some(1))
        ]
    );
    let leaf = all(dk.walk(&At::Commit(three), &path("a/c"), false)).await;
    assert!(leaf.len() == 1 && leaf[0].path.is_root());
}

async fn streams_of_content(dk: &dyn Client) {
    let length = 9 << 20;
    let source = move |size: Option<u64>| {
        move |sink: &mut dyn Sink| {
            let mut reader = std::io::Read::take(std::io::repeat(b'x'), length);
            sink.edit(Edit::Write {
                path: path("large"),
                kind: FileKind::Keep,
                content: Content::Reader {
                    reader: &mut reader,
                    size,
                },
            })
        }
    };
    let main = branch("main");
    for edits in [
        Edits::new(source(None)),
        Edits::new(source(Some(length))),
        Edits::at_hand(source(Some(length))),
    ] {
        let new = dk
            .edit(&main, edits, CommitOptions::default())
            .await
            .unwrap();
        let stat = dk
            .stat(&At::Commit(new), &path("large"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(stat.size, length);
        assert_eq!(
            read(dk, &At::Commit(new), "large").await.len() as u64,
            length
        );
    }
    let before = head(dk, "main").await;
    for wrong in [length - 1, length + 1, 1, u64::MAX] {
        let source = source(Some(wrong));
        for edits in [Edits::new(source), Edits::at_hand(source)] {
            let refused = dk.edit(&main, edits, CommitOptions::default()).await;
            refused.unwrap_err();
        }
    }
    assert_eq!(head(dk, "main").await, before);
}

async fn sources_that_fail(dk: &dyn Client) {
    let fails = |sink: &mut dyn Sink| {
        sink.edit(Edit::Mkdir { path: path("a") })?;
        Err(Stop::Source("the disk caught fire".into()))
    };
    for failing in [Edits::new(fails), Edits::at_hand(fails)] {
        let refused = dk
            .edit(&branch("main"), failing, CommitOptions::default())
            .await
            .unwrap_err();
        assert_eq!(refused.to_string(), "the disk caught fire");
    }
    assert_eq!(dk.head(&branch("main")).await.unwrap(), None);
}
