//! Views, snapshots, archives, and the streams of a branch's moves.

use datakit::model::TreePath;
use datakit::model::request::{Event, Since};
use datakit::model::text::{self, SinceQuery};

use super::asking::{bytes, id};
use super::*;

#[tokio::test]
async fn since() {
    let walker = memory();
    walker.mkdir("branch/main").await.unwrap();
    let mut all = Reader::new(&walker, "branch/main/since/0").await;
    let mut now = Reader::new(&walker, "branch/main/since/head").await;
    let one = walker.store("main", &[("a", "1")], "one").await;
    assert_eq!(all.next().await, format!("{one}\n"));
    assert_eq!(now.next().await, format!("{one}\n"));
    let two = walker.store("main", &[("b", "1")], "two").await;
    let three = walker.store("main", &[("a", "2")], "three").await;
    let lines = format!("{two} {one}\n{three} {two}\n");
    assert_eq!(all.next().await, lines);
    // From any line on, nothing is lost and nothing told twice.
    let mut on = Reader::new(&walker, &format!("branch/main/since/{two}")).await;
    assert_eq!(on.next().await, format!("{three} {two}\n"));
    on.silent().await;
    walker
        .write("branch/main/reset", two.clone())
        .await
        .unwrap();
    assert_eq!(on.next().await, format!("! {two}\n"));
    walker.write("branch/main/reset", "0").await.unwrap();
    assert_eq!(on.next().await, "! 0\n");
    fails(
        walker
            .walk(&format!("branch/main/since/{}", "a".repeat(40)))
            .await,
        Kind::NotFound,
    );
    fails(walker.walk("branch/main/since/what").await, Kind::NotFound);
    walker
        .write("branch/main/reset", three.clone())
        .await
        .unwrap();
    let query = SinceQuery {
        since: Since::Commit(id(&one)),
        path: TreePath::new("a").unwrap(),
        latest: false,
        unchanged: false,
        events: true,
    };
    let name = String::from_utf8(query.write()).unwrap();
    let mut events = Reader::new(&walker, &format!("branch/main/since/{name}")).await;
    let text = events.next().await;
    match text::take_event(&mut text.as_bytes()).unwrap().unwrap() {
        Event::Commit {
            commit, previous, ..
        } => {
            assert_eq!((commit.id, previous), (id(&three), Some(id(&two))));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reflog() {
    let walker = memory();
    walker.mkdir("branch/main").await.unwrap();
    let path = "branch/main/reflog";
    let mut log = Reader::new(&walker, path).await;
    log.silent().await;
    let one = walker.store("main", &[("a", "1")], "one").await;
    let two = walker.store("main", &[("a", "2")], "two").await;
    for head in [&one, &two, &one] {
        walker
            .write("branch/main/reset", head.clone())
            .await
            .unwrap();
    }
    walker.write("branch/main/reset", "0").await.unwrap();
    // Each move a line; none is missed, none told twice.
    for line in [&one, &two, &one, &two, &one, &String::new()] {
        assert_eq!(log.next().await, format!("{line}\n"));
    }
    log.silent().await;
    for n in 0..1100 {
        let head = if n % 2 == 0 { &one } else { &two };
        walker
            .write("branch/main/reset", head.clone())
            .await
            .unwrap();
    }
    for _ in 0..1024 {
        log.next().await;
    }
    fails(soon(log.raw(100)).await, Kind::Overrun);
}

#[tokio::test]
async fn archives() {
    let walker = memory();
    let long = format!("deep/{}/file", "x".repeat(150));
    let files = [("a", "1"), (&long, "long"), ("empty", "")];
    let head = walker.store("main", &files, "one").await;
    let tar = bytes(&walker, &format!("snapshots/{head}/export.tar"), 700).await;
    assert_eq!(tar.len() % 512, 0);
    assert_eq!(bytes(&walker, "branch/main/export.tar", 1 << 20).await, tar);
    let handle = walker.open("branch/main/export.tar").await.unwrap();
    let middle = handle.read(&walker.call, 1000, 600).await.unwrap();
    assert_eq!(middle, tar[1000..1600]);
    let start = handle.read(&walker.call, 0, 512).await.unwrap();
    assert_eq!(start, tar[..512]);
    let mut names = Vec::new();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    assert_eq!(names, ["a", &long, "empty"]);

    for tx in ["branch/copy/transactions/t", "branch/copy/tx/t"] {
        walker.mkdir("branch/copy").await.unwrap();
        walker.mkdir(tx).await.unwrap();
        let import = format!("{tx}/import");
        let status = format!("{tx}/import.status");
        assert_eq!(walker.cat(&status).await.unwrap(), "nothing was imported\n");
        // Cut short, nothing of it is put there.
        let cut = Bytes::copy_from_slice(&tar[..tar.len() - 1024]);
        fails(walker.write(&import, cut).await, Kind::Invalid);
        assert!(walker.ls(&format!("{tx}/rw")).await.unwrap().is_empty());
        assert!(walker.cat(&status).await.unwrap().contains("truncated"));
        fails(
            walker.write(&import, &b"\x1f\x8bxxx"[..]).await,
            Kind::Invalid,
        );
        walker.put(&format!("{tx}/rw/kept"), "x").await.unwrap();
        let handle = walker.open(&import).await.unwrap();
        for (n, piece) in tar.chunks(999).enumerate() {
            let data = Bytes::copy_from_slice(piece);
            handle
                .write(&walker.call, n as u64 * 999, data)
                .await
                .unwrap();
        }
        handle.sync(&walker.call).await.unwrap();
        handle.close(&walker.call).await.unwrap();
        assert_eq!(walker.cat(&status).await.unwrap(), "ok 3\n");
        let names = walker.ls(&format!("{tx}/rw")).await.unwrap();
        assert_eq!(names, ["a", "deep", "empty", "kept"]);
        let text = walker.cat(&format!("{tx}/rw/{long}")).await.unwrap();
        assert_eq!(text, "long");
    }
    walker.commit("branch/copy/transactions/t").await.unwrap();
    let names = walker.ls("branch/copy/ro").await.unwrap();
    assert_eq!(names, ["a", "deep", "empty", "kept"]);
}

#[tokio::test]
async fn snapshots_and_trees() {
    let walker = memory();
    let one = walker
        .store("main", &[("a", "1"), ("d/b", "2")], "one")
        .await;
    let two = walker
        .store("main", &[("d/c", "3"), ("a", "9")], "two")
        .await;
    let upper = two.to_uppercase();
    assert_eq!(
        walker
            .cat(&format!("snapshots/{upper}/hash"))
            .await
            .unwrap(),
        upper
    );
    let diff = walker
        .cat(&format!("snapshots/{two}/diff/{one}"))
        .await
        .unwrap();
    assert_eq!(diff, "* a\n+ d/c\n");
    let none = walker
        .cat(&format!("snapshots/{two}/diff/{two}"))
        .await
        .unwrap();
    assert_eq!(none, "");
    let diff = walker
        .cat(&format!("branch/main/diff/{one}"))
        .await
        .unwrap();
    assert_eq!(diff, "* a\n+ d/c\n");
    let tx = walker.begin("main", "t").await;
    walker.rm(&format!("{tx}/rw/d")).await.unwrap();
    let diff = walker.cat(&format!("{tx}/diff/{one}")).await.unwrap();
    assert_eq!(diff, "* a\n- d/b\n");
    let unknown = "a".repeat(40);
    for folder in ["snapshots", "commits", "branch/main/diff"] {
        let path = format!("{folder}/{unknown}");
        refused(walker.walk(&path).await, "No such file or directory");
        let text = "invalid-hash \"x\": Failure(\"x\")";
        refused(walker.walk(&format!("{folder}/x")).await, text);
        let digits = "g".repeat(40);
        fails(
            walker.walk(&format!("{folder}/{digits}")).await,
            Kind::Invalid,
        );
    }
    for name in [
        format!("D-{unknown}"),
        format!("F-{unknown}"),
        format!("Z-{one}"),
        format!("F-{one}"),
        "x".into(),
    ] {
        let path = format!("trees/{name}");
        refused(walker.walk(&path).await, "No such file or directory");
    }
    let blob = "d8263ee9860594d2806b0dfd1bfd17528b0ba2a4";
    for (letter, exec, shape) in [
        ("F", false, Shape::File),
        ("X", true, Shape::File),
        ("L", false, Shape::Link),
    ] {
        let path = format!("trees/{letter}-{blob}");
        let attr = walker.attr(&path).await.unwrap();
        assert_eq!((attr.exec, attr.id.shape, attr.size), (exec, shape, 1));
        assert_eq!(walker.cat(&path).await.unwrap(), "2");
    }
    let attr = walker.attr(&format!("snapshots/{one}/ro/a")).await.unwrap();
    assert!(attr.mtime > 1_600_000_000, "the commit's time");
}

#[tokio::test]
async fn live_views() {
    let walker = memory();
    walker
        .store("main", &[("a", "1"), ("d/b", "2")], "one")
        .await;
    let file = walker.walk("branch/main/ro/a").await.unwrap();
    let handle = walker.open("branch/main/ro/a").await.unwrap();
    let folder = walker.walk("branch/main/ro/d").await.unwrap();
    let tx = walker.begin("main", "t").await;
    walker.put(&format!("{tx}/rw/a"), "changed").await.unwrap();
    walker.rm(&format!("{tx}/rw/d")).await.unwrap();
    walker.commit(&tx).await.unwrap();
    assert_eq!(handle.read(&walker.call, 0, 9).await.unwrap(), "changed");
    assert_eq!(file.attr(&walker.call).await.unwrap().size, 7);
    let gone = folder.lookup(&walker.call, b"b").await;
    refused(gone, "No such file or directory");
    let tx = walker.begin("main", "t").await;
    walker.rm(&format!("{tx}/rw/a")).await.unwrap();
    walker.mkdir(&format!("{tx}/rw/a")).await.unwrap();
    walker.put(&format!("{tx}/rw/a/x"), "x").await.unwrap();
    walker.commit(&tx).await.unwrap();
    refused(handle.read(&walker.call, 0, 9).await, "Is a directory");
    walker.mkdir("branch/none").await.unwrap();
    assert!(walker.ls("branch/none/ro").await.unwrap().is_empty());
}

/// What is known needs no thread: the first look tells.
fn at_once<T>(what: impl Future<Output = T>) -> T {
    let mut what = Box::pin(what);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match what.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[tokio::test]
async fn a_live_view_is_read_at_once_and_shows_what_git_did_just_now() {
    use datakit::store::engine::Durability;
    use datakit::store::git::Git;

    use crate::stock::Repo;

    let repo = Repo::new();
    for text in ["one", "two"] {
        repo.feed(
            &["fast-import", "--quiet"],
            format!(
                "commit refs/heads/{text}\ncommitter A <a@b> 1700000000 +0000\ndata 1\nx\n\
                 M 100644 inline d/file\ndata 3\n{text}\n"
            )
            .as_bytes(),
        );
    }
    let git = |arguments: &[&str]| drop(repo.git(arguments));
    git(&["update-ref", "refs/heads/main", "refs/heads/one"]);
    let engine = Git::open(repo.path(), Durability::None, false).unwrap();
    let walker = over(Arc::new(Store::new(Arc::new(engine))));
    let file = walker.walk("branch/main/ro/d/file").await.unwrap();
    let handle = file.open(&walker.call, Open::default()).await.unwrap();
    let read = async || handle.read(&walker.call, 0, 100).await.unwrap();
    assert_eq!(read().await, "one");
    // Where a file says what it said, also one that is not new.
    for _ in 0..2 {
        assert_eq!(at_once(read()), "one");
        at_once(file.attr(&walker.call)).unwrap();
        at_once(walker.walk("branch/main/ro/d/file")).unwrap();
        silent(std::future::pending::<()>()).await;
    }
    // Whatever git does is seen by the very next read.
    let moves: [&[&str]; 6] = [
        &["update-ref", "refs/heads/main", "refs/heads/two"],
        &["update-ref", "refs/heads/main", "refs/heads/one"],
        &["pack-refs", "--all", "--prune"],
        &["update-ref", "refs/heads/main", "refs/heads/two"],
        &["pack-refs", "--all", "--prune"],
        &["update-ref", "refs/heads/main", "refs/heads/one"],
    ];
    let mut now = "one";
    for round in 0..3 {
        for arguments in moves {
            git(arguments);
            now = match *arguments.last().unwrap() {
                "refs/heads/one" => "one",
                "refs/heads/two" => "two",
                _ => now,
            };
            assert_eq!(read().await, now, "{round} {arguments:?}");
            assert_eq!(at_once(read()), now, "{round} {arguments:?}");
        }
        // So that what was read is kept by now.
        silent(std::future::pending::<()>()).await;
        assert_eq!(at_once(read()), now);
    }
    // What comes together is answered from one look, and no later than that.
    let turn = Call::in_turn(walker.call.who.clone(), 7);
    let together = async || handle.read(&turn, 0, 100).await.unwrap();
    assert_eq!(together().await, "one");
    git(&["update-ref", "refs/heads/main", "refs/heads/two"]);
    assert_eq!(at_once(together()), "one");
    let next = Call::in_turn(walker.call.who.clone(), 8);
    assert_eq!(handle.read(&next, 0, 100).await.unwrap(), "two");
    git(&["update-ref", "refs/heads/main", "refs/heads/one"]);
    next.leave_turn();
    assert_eq!(handle.read(&next, 0, 100).await.unwrap(), "one");
    // Written in place, as a shell does.
    let two = repo.git(&["rev-parse", "two"]);
    std::fs::write(repo.path().join("refs/heads/main"), two).unwrap();
    assert_eq!(read().await, "two");
    git(&["update-ref", "-d", "refs/heads/main"]);
    let gone = handle.read(&walker.call, 0, 100).await;
    fails(gone, Kind::NotFound);
}
