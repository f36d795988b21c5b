//! `rw`: spec/db.md 6.7 with the proposals of section 14, and what tree.md adds.

use super::*;

async fn begin() -> (Walker, String) {
    let walker = memory();
    let files = [
        ("a", "1"),
        ("dir/b", "2"),
        ("dir/deep/c", "3"),
        ("log", "x"),
    ];
    walker.store("main", &files, "base").await;
    let tx = walker.begin("main", "t").await;
    (walker, format!("{tx}/rw"))
}

async fn done(walker: &Walker) {
    walker.commit("branch/main/transactions/t").await.unwrap();
}

#[tokio::test]
async fn files_and_folders_in_each_others_way() {
    let (walker, rw) = begin().await;
    walker.put(&format!("{rw}/foo"), "x").await.unwrap();
    let inside = walker.create(&format!("{rw}/foo/bar"), FILE).await;
    refused(inside, "\"foo\" is not a directory");
    refused(
        walker.walk(&format!("{rw}/foo/bar")).await,
        "Can't walk from a file",
    );
    refused(
        walker.put(&format!("{rw}/dir"), "x").await,
        "Is a directory",
    );
    refused(walker.mkdir(&format!("{rw}/dir")).await, "Already exists");
    refused(walker.mkdir(&format!("{rw}/a")).await, "Already exists");
    fails(walker.link(&format!("{rw}/a"), "x").await, Kind::Exists);
    let only = Create::File {
        exec: false,
        exclusive: true,
    };
    fails(walker.create(&format!("{rw}/a"), only).await, Kind::Exists);
    refused(walker.rm(&rw).await, "Read-only file");
    let none = Create::Link { target: None };
    refused(
        walker.create(&format!("{rw}/l"), none.clone()).await,
        "Missing target for symlink!",
    );
    let chmod = walker.chmod(&format!("{rw}/a"), none).await;
    refused(chmod, "Missing target for symlink!");
    let flag = walker.chmod(&format!("{rw}/a"), Create::Dir).await;
    refused(flag, "Incorrect is_directory flag for chmod");
}

#[tokio::test]
async fn names_that_cannot_be_are_refused() {
    let (walker, rw) = begin().await;
    let folder = walker.walk(&rw).await.unwrap();
    for name in ["", ".", "..", "a/b", ".git", ".GIT", "git~1", "x\0y"] {
        for what in [
            FILE,
            Create::Dir,
            Create::Link {
                target: Some(b"x".to_vec()),
            },
        ] {
            let made = folder.create(&walker.call, name.as_bytes(), what).await;
            fails(made, Kind::Invalid);
        }
        let file = walker.walk(&format!("{rw}/a")).await.unwrap();
        let moved = file.rename(&walker.call, &folder, name.as_bytes()).await;
        fails(moved, Kind::Invalid);
    }
    let odd = folder.create(&walker.call, b"\xff \n", FILE).await.unwrap();
    assert_eq!(odd.name(), b"\xff \n");
    let empty = Create::Link {
        target: Some(Vec::new()),
    };
    fails(
        walker.create(&format!("{rw}/l"), empty).await,
        Kind::Invalid,
    );
}

#[tokio::test]
async fn moved_files_are_followed() {
    let (walker, rw) = begin().await;
    let handle = walker.open(&format!("{rw}/dir/b")).await.unwrap();
    let node = walker.walk(&format!("{rw}/dir/b")).await.unwrap();
    let folder = walker.walk(&rw).await.unwrap();
    node.rename(&walker.call, &folder, b"here").await.unwrap();
    handle.write(&walker.call, 1, "!".into()).await.unwrap();
    assert_eq!(walker.cat(&format!("{rw}/here")).await.unwrap(), "2!");
    assert_eq!(node.name(), b"here");
    assert_eq!(node.parent().unwrap().id(), folder.id());
    // A new one in its old place is another.
    walker.put(&format!("{rw}/dir/b"), "new").await.unwrap();
    assert_eq!(handle.read(&walker.call, 0, 9).await.unwrap(), "2!");
    // A folder goes with all below it, open or not.
    let below = walker.open(&format!("{rw}/dir/deep/c")).await.unwrap();
    let dir = walker.walk(&format!("{rw}/dir")).await.unwrap();
    walker.mkdir(&format!("{rw}/into")).await.unwrap();
    let into = walker.walk(&format!("{rw}/into")).await.unwrap();
    dir.rename(&walker.call, &into, b"dir").await.unwrap();
    below.write(&walker.call, 0, "4".into()).await.unwrap();
    let moved = format!("{rw}/into/dir");
    assert_eq!(walker.cat(&format!("{moved}/deep/c")).await.unwrap(), "4");
    assert_eq!(walker.ls(&moved).await.unwrap(), ["b", "deep"]);
    let deep = walker.walk(&format!("{moved}/deep")).await.unwrap();
    fails(into.rename(&walker.call, &deep, b"x").await, Kind::Invalid);
    // Over a file, and over an empty folder.
    walker.rename(&format!("{rw}/here"), "a").await.unwrap();
    walker.mkdir(&format!("{rw}/empty")).await.unwrap();
    walker.rename(&format!("{rw}/into"), "empty").await.unwrap();
    let full = walker.rename(&format!("{rw}/log"), "empty").await;
    refused(full, "Is a directory");
    done(&walker).await;
    assert_eq!(
        walker.ls("branch/main/ro").await.unwrap(),
        ["a", "empty", "log"]
    );
    assert_eq!(walker.cat("branch/main/ro/a").await.unwrap(), "2!");
    let c = walker.cat("branch/main/ro/empty/dir/deep/c").await;
    assert_eq!(c.unwrap(), "4");
    // Into another tree it cannot go.
    let other = walker.begin("main", "other").await;
    let other = walker.walk(&format!("{other}/rw")).await.unwrap();
    let walker = &walker;
    let tx = walker.begin("main", "t").await;
    let node = walker.walk(&format!("{tx}/rw/a")).await.unwrap();
    let across = node.rename(&walker.call, &other, b"a").await;
    fails(across, Kind::Unsupported);
}

#[tokio::test]
async fn what_was_removed() {
    let (walker, rw) = begin().await;
    let path = format!("{rw}/dir/deep/c");
    let handle = walker.open(&path).await.unwrap();
    let node = walker.walk(&path).await.unwrap();
    let dir = walker.walk(&format!("{rw}/dir")).await.unwrap();
    fails(dir.remove(&walker.call, false).await, Kind::NotEmpty);
    dir.remove(&walker.call, true).await.unwrap();
    node.remove(&walker.call, false).await.unwrap();
    let text = "No such file or directory";
    refused(handle.read(&walker.call, 0, 9).await, text);
    refused(node.attr(&walker.call).await, text);
    refused(walker.walk(&path).await, text);
    // A write makes it anew, and what is above it.
    handle.write(&walker.call, 0, "again".into()).await.unwrap();
    assert_eq!(walker.cat(&path).await.unwrap(), "again");
    assert_eq!(handle.read(&walker.call, 0, 9).await.unwrap(), "again");
    assert_eq!(walker.ls(&format!("{rw}/dir")).await.unwrap(), ["deep"]);
    done(&walker).await;
    assert_eq!(
        walker.cat("branch/main/ro/dir/deep/c").await.unwrap(),
        "again"
    );
}

#[tokio::test]
async fn empty_folders_live_and_are_not_committed() {
    let (walker, rw) = begin().await;
    walker.mkdir(&format!("{rw}/new")).await.unwrap();
    walker.mkdir(&format!("{rw}/new/inner")).await.unwrap();
    walker.mkdir(&format!("{rw}/gone")).await.unwrap();
    walker.rm(&format!("{rw}/gone")).await.unwrap();
    assert_eq!(walker.ls(&format!("{rw}/new")).await.unwrap(), ["inner"]);
    walker.rm(&format!("{rw}/dir/deep/c")).await.unwrap();
    let deep = walker.ls(&format!("{rw}/dir/deep")).await.unwrap();
    assert!(deep.is_empty(), "it stays until it is removed");
    let names = walker.ls(&rw).await.unwrap();
    assert_eq!(names, ["a", "dir", "log", "new"]);
    // A merge leaves them.
    let head = walker.store("side", &[("s", "x")], "side").await;
    walker
        .write("branch/main/transactions/t/merge", head)
        .await
        .unwrap();
    assert!(walker.ls(&rw).await.unwrap().contains(&"new".to_owned()));
    done(&walker).await;
    let names = walker.ls("branch/main/ro").await.unwrap();
    assert_eq!(names, ["a", "dir", "log", "s"]);
    assert_eq!(walker.ls("branch/main/ro/dir").await.unwrap(), ["b"]);
}

#[tokio::test]
async fn kinds() {
    let (walker, rw) = begin().await;
    walker.chmod(&format!("{rw}/a"), EXEC).await.unwrap();
    walker.link(&format!("{rw}/l"), "target").await.unwrap();
    let link = walker.walk(&format!("{rw}/l")).await.unwrap();
    assert_eq!(link.id().shape, Shape::Link);
    assert_eq!(link.target(&walker.call).await.unwrap(), b"target");
    assert_eq!(link.attr(&walker.call).await.unwrap().size, 6);
    done(&walker).await;
    assert!(walker.attr("branch/main/ro/a").await.unwrap().exec);
    let stored = walker.walk("branch/main/ro/l").await.unwrap();
    assert_eq!(stored.target(&walker.call).await.unwrap(), b"target");
    // A link becomes a file and keeps its target as content; an existing file
    // that is created is emptied, its kind set.
    let tx = walker.begin("main", "t").await;
    walker.chmod(&format!("{tx}/rw/l"), FILE).await.unwrap();
    assert_eq!(walker.cat(&format!("{tx}/rw/l")).await.unwrap(), "target");
    walker.create(&format!("{tx}/rw/a"), FILE).await.unwrap();
    let attr = walker.attr(&format!("{tx}/rw/a")).await.unwrap();
    assert_eq!((attr.size, attr.exec, attr.writable), (0, false, true));
    done(&walker).await;
    let attr = walker.attr("branch/main/ro/l").await.unwrap();
    assert_eq!(attr.id.shape, Shape::File);
}

#[tokio::test]
async fn appending_and_truncating_when_opened() {
    let (walker, rw) = begin().await;
    let node = walker.walk(&format!("{rw}/log")).await.unwrap();
    let append = Open {
        append: true,
        ..BOTH
    };
    let handle = node.open(&walker.call, append).await.unwrap();
    for line in ["one\n", "two\n"] {
        handle.write(&walker.call, 0, line.into()).await.unwrap();
    }
    assert_eq!(
        walker.cat(&format!("{rw}/log")).await.unwrap(),
        "xone\ntwo\n"
    );
    let truncate = Open {
        truncate: true,
        ..BOTH
    };
    node.open(&walker.call, truncate).await.unwrap();
    assert_eq!(walker.attr(&format!("{rw}/log")).await.unwrap().size, 0);
    // What cannot be written does not heed it.
    let head = walker.walk("branch/main/head").await.unwrap();
    head.open(&walker.call, truncate).await.unwrap();
}

#[tokio::test]
async fn long_files_go_through_a_temporary_one() {
    let (walker, rw) = begin().await;
    let path = format!("{rw}/long");
    let node = walker.create(&path, FILE).await.unwrap();
    let handle = node.open(&walker.call, BOTH).await.unwrap();
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    const PIECES: u64 = 160;
    for n in 0..PIECES {
        let offset = n * piece.len() as u64;
        handle
            .write(&walker.call, offset, piece.clone())
            .await
            .unwrap();
    }
    let size = PIECES * piece.len() as u64;
    handle
        .write(&walker.call, size - 3, "end".into())
        .await
        .unwrap();
    assert_eq!(walker.attr(&path).await.unwrap().size, size);
    let tail = handle.read(&walker.call, size - 4, 100).await.unwrap();
    assert_eq!(tail, "xend");
    let beyond = handle.read(&walker.call, size + 1, 1).await;
    fails(beyond, Kind::Invalid);
    done(&walker).await;
    let stored = walker.open("branch/main/ro/long").await.unwrap();
    assert_eq!(walker.attr("branch/main/ro/long").await.unwrap().size, size);
    // Backwards and forwards.
    for offset in [size - 4, 0, 5 << 20, 1 << 20, size] {
        let data = stored.read(&walker.call, offset, 4).await.unwrap();
        let wanted = match size - offset {
            4 => "xend",
            0 => "",
            _ => "xxxx",
        };
        assert_eq!(data, wanted, "{offset}");
    }
    // A stored one is changed in its middle, and cut.
    let tx = walker.begin("main", "t").await;
    let path = format!("{tx}/rw/long");
    let handle = walker.open(&path).await.unwrap();
    handle
        .write(&walker.call, 7 << 20, "middle".into())
        .await
        .unwrap();
    walker.resize(&path, (7 << 20) + 6).await.unwrap();
    let tail = handle.read(&walker.call, (7 << 20) - 1, 100).await.unwrap();
    assert_eq!(tail, "xmiddle");
    walker.resize(&path, 3).await.unwrap();
    walker.resize(&path, 5 << 20).await.unwrap();
    let zero = handle.read(&walker.call, 2, 3).await.unwrap();
    assert_eq!(&zero[..], b"x\0\0");
    fails(walker.resize(&path, 1 << 60).await, Kind::NoSpace);
    let far = handle.write(&walker.call, 1 << 60, "x".into()).await;
    fails(far, Kind::NoSpace);
}

#[tokio::test]
async fn much_in_memory_goes_into_the_store() {
    let (walker, rw) = begin().await;
    let piece = Bytes::from(vec![b'y'; 3 << 20]);
    for n in 0..30 {
        let path = format!("{rw}/file{n}");
        walker.put(&path, piece.clone()).await.unwrap();
    }
    let handle = walker.open(&format!("{rw}/file0")).await.unwrap();
    handle.write(&walker.call, 0, "z".into()).await.unwrap();
    done(&walker).await;
    for (n, first) in [(0, "z"), (1, "y"), (29, "y")] {
        let handle = walker
            .open(&format!("branch/main/ro/file{n}"))
            .await
            .unwrap();
        assert_eq!(handle.read(&walker.call, 0, 1).await.unwrap(), first);
    }
}

#[tokio::test]
async fn depth_has_a_bound() {
    let (walker, rw) = begin().await;
    let mut node = walker.walk(&rw).await.unwrap();
    let mut made = 0;
    let refused = loop {
        match node.create(&walker.call, b"d", Create::Dir).await {
            Ok(next) => node = next,
            Err(error) => break error,
        }
        made += 1;
        assert!(made < 5000);
    };
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(made > 1000);
    node.create(&walker.call, b"f", FILE).await.err().unwrap();
    let top = walker.walk(&format!("{rw}/d")).await.unwrap();
    top.remove(&walker.call, true).await.unwrap();
    done(&walker).await;
}

#[tokio::test]
async fn a_listing_stays_as_it_was() {
    let (walker, rw) = begin().await;
    let node = walker.walk(&format!("{rw}/dir")).await.unwrap();
    let handle = node.open(&walker.call, Open::default()).await.unwrap();
    let listing = handle.list(&walker.call).await.unwrap();
    for index in 0..listing.len() {
        let (name, _) = listing.entry(index);
        let entry = node.lookup(&walker.call, &name).await.unwrap();
        entry.remove(&walker.call, true).await.unwrap();
    }
    assert_eq!(listing.len(), 2);
    assert!(handle.list(&walker.call).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_commit_that_conflicts_leaves_the_conflicts() {
    let (walker, rw) = begin().await;
    walker.put(&format!("{rw}/a"), "ours").await.unwrap();
    let open = walker.open(&format!("{rw}/log")).await.unwrap();
    walker
        .store("main", &[("a", "theirs"), ("log", "y")], "two")
        .await;
    let head = walker.head("main").await;
    let tx = "branch/main/transactions/t";
    let failed = walker.commit(tx).await;
    refused(failed, "Merge conflict: Changed on both branches");
    assert_eq!(walker.head("main").await, head);
    assert_eq!(walker.cat(&format!("{tx}/conflicts")).await.unwrap(), "a\n");
    let theirs = walker.cat(&format!("{tx}/theirs/a")).await.unwrap();
    assert_eq!(theirs, "theirs");
    let open = open.read(&walker.call, 0, 9).await.unwrap();
    assert_eq!(open, "y", "what was merged shows in what is open");
    let parents = walker.cat(&format!("{tx}/parents")).await.unwrap();
    assert!(parents.starts_with(&head), "{parents}");
    refused(walker.commit(tx).await, "conflicts file is not empty");
    let merge = walker.write(&format!("{tx}/merge"), head.clone()).await;
    refused(merge, "conflicts file is not empty");
    walker.put(&format!("{rw}/a"), "both").await.unwrap();
    walker.commit(tx).await.unwrap();
    assert_eq!(walker.cat("branch/main/ro/a").await.unwrap(), "both");
}

#[tokio::test]
async fn words_of_ctl() {
    let (walker, _) = begin().await;
    let tx = "branch/main/transactions/t";
    let ctl = format!("{tx}/ctl");
    for bad in ["", "comit", "commit now", "close it", "commit expect=x"] {
        fails(walker.write(&ctl, bad).await, Kind::Invalid);
    }
    refused(
        walker.write(&ctl, "abort\n").await,
        "Unknown command \"abort\"",
    );
    let before = walker.head("main").await;
    let head = walker.store("main", &[("n", "x")], "two").await;
    refused(
        walker.write(&ctl, "commit ff-only").await,
        "not-fast-forward",
    );
    let expect = format!("commit expect={before}");
    fails(walker.write(&ctl, expect).await, Kind::HeadMoved);
    fails(walker.write(&ctl, "commit expect=0").await, Kind::HeadMoved);
    walker
        .write(&ctl, format!("commit no-empty expect={head}"))
        .await
        .unwrap();
    assert_eq!(walker.head("main").await, head, "nothing changed");
    fails(walker.walk(tx).await, Kind::NotFound);
    // The result is the new head; who has the file still open reads it.
    let tx = walker.begin("main", "u").await;
    walker.put(&format!("{tx}/rw/u"), "x").await.unwrap();
    let state = walker.open(&format!("{tx}/state")).await.unwrap();
    let handle = walker.open(&format!("{tx}/ctl")).await.unwrap();
    handle
        .write(&walker.call, 0, "commit".into())
        .await
        .unwrap();
    let result = handle.read(&walker.call, 6, 100).await.unwrap();
    let head = walker.head("main").await;
    assert_eq!(result, format!("{head}\n"));
    let state = state.read(&walker.call, 0, 100).await.unwrap();
    assert_eq!(state, format!("committed {head}\n"));
    let again = handle.write(&walker.call, 6 + 41, "commit".into()).await;
    fails(again, Kind::NotFound);
    // Closed: nothing of it is left.
    let tx = walker.begin("main", "v").await;
    walker.put(&format!("{tx}/rw/v"), "x").await.unwrap();
    walker.echo(&format!("{tx}/ctl"), "close").await.unwrap();
    fails(walker.walk(&tx).await, Kind::NotFound);
    refused(
        walker.mkdir(&tx).await.and(walker.mkdir(&tx).await),
        "Already exists",
    );
    assert_eq!(walker.head("main").await, head);
}

#[tokio::test]
async fn who_and_where_from() {
    let (walker, rw) = begin().await;
    let tx = "branch/main/transactions/t";
    let base = walker.head("main").await;
    walker.store("main", &[("n", "x")], "two").await;
    let text = async |name: &str| walker.cat(&format!("{tx}/{name}")).await.unwrap();
    assert_eq!(text("base").await, format!("{base}\n"));
    assert_eq!(text("branch").await, "main\n");
    assert_eq!(text("owner").await, "tester\n");
    assert_eq!(text("state").await, "open\n");
    assert!(text("author").await.contains(" <"));
    // Another base, while nothing was edited.
    let head = walker.head("main").await;
    walker.echo(&format!("{tx}/base"), &head).await.unwrap();
    assert_eq!(walker.cat(&format!("{rw}/n")).await.unwrap(), "x");
    assert_eq!(text("parents").await, format!("{head}\n"));
    walker
        .echo(&format!("{tx}/author"), "A B <a@b> 7 +0130")
        .await
        .unwrap();
    walker
        .echo(&format!("{tx}/committer"), "C <c@d>")
        .await
        .unwrap();
    walker.put(&format!("{rw}/mine"), "x").await.unwrap();
    fails(
        walker.echo(&format!("{tx}/base"), &base).await,
        Kind::Denied,
    );
    done(&walker).await;
    let head = walker.head("main").await;
    let id = datakit::model::ObjectId::from_hex(head.as_bytes()).unwrap();
    let commit = walker.store.objects.commit(&id).unwrap();
    assert_eq!(
        (&commit.author.name[..], commit.author.time.seconds),
        (&b"A B"[..], 7)
    );
    assert_eq!(commit.author.time.offset, 90);
    assert_eq!(commit.committer.name, b"C");
    assert!(commit.committer.time.seconds > 7);
    assert_eq!(commit.message, b"(no commit message)");
    let json = walker.cat(&format!("commits/{head}")).await.unwrap();
    let parent = commit.parents[0];
    let wanted = format!(
        "{{\"hash\":\"{head}\",\"value\":{{\"node\":\"{}\",\"parents\":[\"{parent}\"],\
         \"info\":{{\"date\":7,\"author\":\"A B\",\"message\":\"(no commit message)\"}}}}}}",
        commit.tree
    );
    assert_eq!(json, wanted);
}
