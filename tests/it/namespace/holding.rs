//! What lasts, what is shared, and what is let go of.

use std::path::Path;
use std::process::Command;

use datakit::store::engine::Durability;
use datakit::store::git::Git;

use super::*;

/// A connection to a repository on disk.
fn on_disk(path: &Path) -> Walker {
    Git::init(path, HashKind::Sha1).unwrap();
    open(path)
}

fn open(path: &Path) -> Walker {
    let git = Git::open(path, Durability::None, false).unwrap();
    over(Arc::new(Store::new(Arc::new(git))))
}

#[tokio::test]
async fn sessions_are_private() {
    let walker = memory();
    let other = walker.another();
    let tx = walker.begin("main", "t").await;
    walker.put(&format!("{tx}/rw/a"), "x").await.unwrap();
    fails(other.walk("branch/main").await, Kind::NotFound);
    let same = other.begin("main", "t").await;
    assert!(other.ls(&format!("{same}/rw")).await.unwrap().is_empty());
    walker.mkdir("remotes/origin").await.unwrap();
    assert!(other.ls("remotes").await.unwrap().is_empty());
    let connections = other.cat("debug/connections").await.unwrap();
    assert_eq!(connections.lines().count(), 2, "{connections}");
    let counts = other.cat("debug/transactions").await.unwrap();
    assert_eq!(counts, "volatile 2\ndurable 0\n");
    drop(walker);
    let connections = other.cat("debug/connections").await.unwrap();
    assert_eq!(connections.lines().count(), 1, "{connections}");
    let counts = other.cat("debug/transactions").await.unwrap();
    assert_eq!(counts, "volatile 1\ndurable 0\n");
}

#[tokio::test]
async fn limits() {
    let store = Arc::new(Store::new(Arc::new(Memory::new(HashKind::Sha1))));
    let options = Options {
        transactions: 2,
        streams: 3,
        ..Options::default()
    };
    let tree = Arc::new(Namespace::new(store.clone(), options));
    let session = tree.session("test");
    let walker = Walker {
        tree,
        store,
        session,
        call: call(),
    };
    walker.begin("main", "1").await;
    let two = walker.begin("main", "2").await;
    let path = "branch/main/transactions/3";
    fails(walker.mkdir(path).await, Kind::NoSpace);
    walker.write(&format!("{two}/ctl"), "close").await.unwrap();
    walker.mkdir(path).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(walker.open("branch/main/head.live").await.unwrap());
    }
    fails(walker.open("branch/main/head.live").await, Kind::NoSpace);
    open.pop();
    walker.open("branch/main/reflog").await.unwrap();
}

#[tokio::test]
async fn idle_streams_cost_little_and_leave_nothing() {
    let walker = memory();
    walker.store("main", &[("a/b", "1")], "one").await;
    let mut streams = Vec::new();
    for n in 0..3000 {
        let path = match n % 3 {
            0 => "branch/main/head.live",
            1 => "branch/main/watch/x.node/tree.live",
            _ => "branch/main/since/head",
        };
        streams.push(walker.open(path).await.unwrap());
    }
    let text = walker.cat("debug/watches").await.unwrap();
    assert_eq!(text, "streams 3000\nreaders 3000\n");
    // Only those wake whose path changed.
    let mut watching = Reader::new(&walker, "branch/main/watch/a.node/tree.live").await;
    watching.next().await;
    walker.store("main", &[("a/b", "2")], "two").await;
    assert!(watching.next().await.starts_with("D-"));
    let gauge = &datakit::metrics::metrics().streams;
    assert_eq!(gauge.get(), 3001);
    drop((streams, watching));
    assert_eq!(gauge.get(), 0);
    let text = walker.cat("debug/watches").await.unwrap();
    assert_eq!(text, "streams 0\nreaders 0\n");
}

#[tokio::test]
async fn a_cancelled_call_does_nothing() {
    let walker = memory();
    walker.store("main", &[("a", "1")], "one").await;
    let two = walker.store("main", &[("a", "2")], "two").await;
    let call = call();
    assert!(call.cancel());
    let handle = walker.open("branch/main/reset").await.unwrap();
    let write = handle.write(&call, 0, "0".into()).await;
    fails(write, Kind::Interrupted);
    let tx = walker.begin("main", "t").await;
    walker.put(&format!("{tx}/rw/b"), "x").await.unwrap();
    let handle = walker.open(&format!("{tx}/ctl")).await.unwrap();
    fails(
        handle.write(&call, 0, "commit".into()).await,
        Kind::Interrupted,
    );
    assert_eq!(walker.head("main").await, two);
    walker.commit(&tx).await.unwrap();
}

#[tokio::test]
async fn writes_of_one_transaction_keep_their_order() {
    let walker = memory();
    let tx = walker.begin("main", "t").await;
    let file = format!("{tx}/rw/log");
    walker.create(&file, FILE).await.unwrap();
    let handle = walker.open(&file).await.unwrap();
    let ctl = walker.open(&format!("{tx}/ctl")).await.unwrap();
    // Polled once each in this order, as a server does.
    let mut calls: Vec<std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>> = Vec::new();
    for n in 0..100_u64 {
        let handle = handle.clone();
        calls.push(Box::pin(async move {
            handle
                .write(&call(), n, Bytes::from(vec![b'0' + (n % 10) as u8]))
                .await
        }));
    }
    calls.push(Box::pin(async move {
        ctl.write(&call(), 0, "commit".into()).await
    }));
    for done in futures_util::future::join_all(calls).await {
        done.unwrap();
    }
    let text = walker.cat("branch/main/ro/log").await.unwrap();
    assert_eq!(text, "0123456789".repeat(10));
}

#[tokio::test]
async fn durable_transactions_last_and_are_shared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repo");
    let walker = on_disk(&path);
    walker
        .store("main", &[("a", "1"), ("d/b", "2")], "one")
        .await;
    let tx = "branch/main/tx/job";
    walker.mkdir(tx).await.unwrap();
    fails(walker.mkdir(tx).await, Kind::Exists);
    walker.put(&format!("{tx}/rw/new"), "x").await.unwrap();
    walker.mkdir(&format!("{tx}/rw/empty")).await.unwrap();
    walker.rename(&format!("{tx}/rw/d"), "moved").await.unwrap();
    walker.echo(&format!("{tx}/msg"), "message").await.unwrap();
    walker
        .echo(&format!("{tx}/author"), "A <a@b>")
        .await
        .unwrap();
    // Another connection, and another process, see it.
    let other = walker.another();
    assert_eq!(other.cat("tx/job/rw/new").await.unwrap(), "x");
    other.put("tx/job/rw/theirs", "y").await.unwrap();
    let reopened = open(&path);
    let names = reopened.ls("tx/job/rw").await.unwrap();
    assert_eq!(names, ["a", "empty", "moved", "new", "theirs"]);
    assert_eq!(reopened.cat("tx/job/msg").await.unwrap(), "message\n");
    reopened.put("tx/job/rw/third", "z").await.unwrap();
    // What is not closed is visible in its server only, and applied to what
    // the transaction is by then.
    let node = walker.create(&format!("{tx}/rw/open"), FILE).await.unwrap();
    let handle = node.open(&walker.call, BOTH).await.unwrap();
    handle.write(&walker.call, 0, "open".into()).await.unwrap();
    assert_eq!(other.cat("tx/job/rw/open").await.unwrap(), "open");
    fails(reopened.walk("tx/job/rw/open").await, Kind::NotFound);
    reopened.put("tx/job/rw/fourth", "z").await.unwrap();
    handle.close(&walker.call).await.unwrap();
    assert_eq!(reopened.cat("tx/job/rw/open").await.unwrap(), "open");
    assert_eq!(walker.cat("tx/job/rw/fourth").await.unwrap(), "z");
    // Unknown parents are refused when they are to be durable.
    let wrong = walker.echo("tx/job/parents", &"a".repeat(40)).await;
    fails(wrong, Kind::NotFound);
    let parents = walker.head("main").await;
    walker.echo("tx/job/parents", &parents).await.unwrap();
    let handle = walker.open("tx/job/ctl").await.unwrap();
    handle
        .write(&walker.call, 0, "commit".into())
        .await
        .unwrap();
    let head = walker.head("main").await;
    let result = handle.read(&walker.call, 6, 100).await.unwrap();
    assert_eq!(result, format!("{head}\n"));
    let names = walker.ls("branch/main/ro").await.unwrap();
    let wanted = ["a", "fourth", "moved", "new", "open", "theirs", "third"];
    assert_eq!(names, wanted);
    let state = reopened.cat("tx/job/state").await.unwrap();
    assert_eq!(state, format!("committed {head}\n"));
    let message = walker.cat(&format!("snapshots/{head}/msg")).await.unwrap();
    assert_eq!(message, "message\n\n");
    fails(walker.put("tx/job/rw/late", "x").await, Kind::Invalid);
}

#[tokio::test]
async fn conflicts_of_a_durable_transaction() {
    let walker = memory();
    walker.store("main", &[("a", "1")], "one").await;
    let tx = "branch/main/tx/job";
    walker.mkdir(tx).await.unwrap();
    walker.put(&format!("{tx}/rw/a"), "ours").await.unwrap();
    let head = walker.store("main", &[("a", "theirs")], "two").await;
    let ctl = format!("{tx}/ctl");
    let failed = walker.write(&ctl, "commit").await;
    refused(failed, "Merge conflict: Changed on both branches");
    assert_eq!(walker.cat(&format!("{tx}/conflicts")).await.unwrap(), "a\n");
    assert_eq!(walker.cat(&format!("{tx}/ours/a")).await.unwrap(), "ours");
    assert_eq!(walker.cat(&format!("{tx}/base/a")).await.unwrap(), "1");
    let failed = walker.write(&ctl, "commit").await;
    refused(failed, "conflicts file is not empty");
    let merge = walker.write(&format!("{tx}/merge"), head).await;
    refused(merge, "conflicts file is not empty");
    walker.put(&format!("{tx}/rw/a"), "both").await.unwrap();
    assert_eq!(walker.cat(&format!("{tx}/conflicts")).await.unwrap(), "");
    walker.write(&ctl, "commit").await.unwrap();
    assert_eq!(walker.cat("branch/main/ro/a").await.unwrap(), "both");
    // Closed, it is gone for everybody.
    walker.mkdir("branch/main/tx/other").await.unwrap();
    walker.write("tx/other/ctl", "close").await.unwrap();
    fails(walker.walk("tx/other").await, Kind::NotFound);
    walker.mkdir("branch/main/tx/joe").await.unwrap();
    fails(walker.walk("tx/jo").await, Kind::Ambiguous);
}

#[tokio::test]
async fn remotes() {
    let folder = tempfile::tempdir().unwrap();
    let (there, here) = (folder.path().join("there"), folder.path().join("here"));
    let far = on_disk(&there);
    let head = far
        .store("master", &[("foo", "x"), ("x", "y")], "one")
        .await;
    let walker = on_disk(&here);
    walker.mkdir("remotes/origin").await.unwrap();
    fails(walker.mkdir("remotes/origin").await, Kind::Exists);
    let names = walker.ls("remotes/origin").await.unwrap();
    assert_eq!(names, ["url", "head", "fetch", "push"]);
    let fetch = "remotes/origin/fetch";
    refused(
        walker.write(fetch, "master").await,
        "error: remote url is not defined",
    );
    let mut early = Reader::new(&walker, "remotes/origin/head").await;
    early.silent().await;
    let url = there.display().to_string();
    walker.echo("remotes/origin/url", &url).await.unwrap();
    assert_eq!(walker.cat("remotes/origin/url").await.unwrap(), url);
    refused(walker.write(fetch, "none").await, "error: no head to fetch");
    walker.write(fetch, "master\n").await.unwrap();
    assert_eq!(early.next().await, format!("{head}\n"));
    let mut late = Reader::new(&walker, "remotes/origin/head").await;
    assert_eq!(late.next().await, format!("{head}\n"));
    let names = walker.ls(&format!("snapshots/{head}/ro")).await.unwrap();
    assert_eq!(names, ["foo", "x"]);
    assert!(walker.store.branches().unwrap().is_empty(), "no ref moved");
    // It is in the repository's own configuration.
    let config = Command::new("git")
        .args(["-C", here.to_str().unwrap(), "config", "remote.origin.url"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&config.stdout).trim(), url);
    assert_eq!(open(&here).ls("remotes").await.unwrap(), ["origin"]);
    assert_eq!(walker.another().ls("remotes").await.unwrap(), ["origin"]);
    walker
        .echo("remotes/origin/url", "/nowhere/at/all")
        .await
        .unwrap();
    refused(
        walker.write(fetch, "master").await,
        "error: cannot fetch /nowhere/at/all",
    );
    walker
        .echo("remotes/origin/url", &format!("{url}#master"))
        .await
        .unwrap();
    walker.write(fetch, "ignored").await.unwrap();
    walker.rename("remotes/origin", "up").await.unwrap();
    assert_eq!(walker.ls("remotes").await.unwrap(), ["up"]);
    walker.echo("remotes/up/url", &url).await.unwrap();
    walker.store("mine", &[("m", "x")], "mine").await;
    walker.write("remotes/up/push", "mine").await.unwrap();
    assert_eq!(far.cat("branch/mine/ro/m").await.unwrap(), "x");
    walker.rm("remotes/up").await.unwrap();
    assert!(walker.ls("remotes").await.unwrap().is_empty());
    // The tasks of maintenance do the same with progress.
    let handle = walker.open("maintenance/fetch").await.unwrap();
    let words = format!("{url}\nmaster:refs/heads/copied\n");
    handle.write(&walker.call, 0, words.into()).await.unwrap();
    let mut text = String::new();
    loop {
        let at = text.len() as u64;
        let data = soon(handle.read(&walker.call, at, 100)).await.unwrap();
        if data.is_empty() {
            break;
        }
        text += &String::from_utf8_lossy(&data);
    }
    assert!(text.ends_with("ok\n"), "{text}");
    assert!(
        text.contains("\nfetched {") || text.starts_with("fetched {"),
        "{text}"
    );
    assert_eq!(walker.head("copied").await, head);
}

#[tokio::test]
async fn other_programs_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repo");
    let walker = on_disk(&path);
    let one = walker.store("main", &[("a", "1")], "one").await;
    let two = walker.store("main", &[("a", "2")], "two").await;
    let mut live = Reader::new(&walker, "branch/main/head.live").await;
    assert_eq!(live.next().await, format!("{two}\n"));
    let mut log = Reader::new(&walker, "branch/main/reflog").await;
    let git = |args: &[&str]| {
        let status = Command::new("git").arg("-C").arg(&path).args(args).status();
        assert!(status.unwrap().success());
    };
    git(&["update-ref", "refs/heads/main", &one]);
    assert_eq!(live.next().await, format!("{one}\n"));
    assert_eq!(log.next().await, format!("{one}\n"));
    // Only packed, and then gone.
    git(&["pack-refs", "--all"]);
    assert_eq!(walker.another().head("main").await, one);
    walker.rm("branch/main").await.unwrap();
    assert_eq!(live.next().await, "\n");
    fails(walker.walk("branch/main").await, Kind::NotFound);
}

#[tokio::test]
async fn identity() {
    let walker = memory();
    let text = walker.cat("debug/id").await.unwrap();
    let id = datakit::model::text::Identification::read(text.as_bytes()).unwrap();
    assert_eq!(id.identity.name, "datakit");
    assert_eq!(id.identity.email, "datakit@mobyproject.org");
    assert!(!id.read_only);
    assert!(
        walker
            .cat("debug/caches")
            .await
            .unwrap()
            .starts_with("trees ")
    );
}

#[tokio::test]
async fn a_store_that_may_not_be_written() {
    use datakit::store::read_only::ReadOnly;

    let engine = Arc::new(Memory::new(HashKind::Sha1));
    let writing = over(Arc::new(Store::new(engine.clone())));
    let head = writing.store("main", &[("a", "1")], "one").await;
    writing.mkdir("branch/main/tx/job").await.unwrap();
    let walker = over(Arc::new(Store::new(Arc::new(ReadOnly(engine)))));
    assert_eq!(walker.cat("branch/main/ro/a").await.unwrap(), "1");
    assert_eq!(walker.head("main").await, head);
    // A name costs nothing, and is needed to wait for a branch.
    walker.mkdir("branch/other").await.unwrap();
    for path in [
        "branch/main/transactions/t",
        "branch/main/tx/t",
        "remotes/origin",
        "tx/job/rw/folder",
    ] {
        fails(walker.mkdir(path).await, Kind::ReadOnly);
    }
    for (path, text) in [
        ("branch/other/fast-forward", head.as_str()),
        ("branch/main/reset", "0"),
        ("branch/main/rename", "x"),
        ("branch/main/apply", "rm a\ncommit\n"),
        ("branch/main/begin", "done\n"),
        ("tx/job/msg", "x"),
        ("tx/job/ctl", "commit"),
        ("tx/job/ctl", "close"),
    ] {
        let write = walker.write(path, text.to_owned()).await;
        fails(write, Kind::ReadOnly);
    }
    fails(walker.rm("branch/main").await, Kind::ReadOnly);
    fails(walker.rename("branch/main", "x").await, Kind::ReadOnly);
    let text = walker.cat("debug/id").await.unwrap();
    assert!(text.contains("\"read_only\":true"), "{text}");
}

#[tokio::test]
async fn what_a_reader_of_every_commit_has_read_is_not_collected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repo");
    let walker = on_disk(&path);
    let git = |arguments: &[&str]| {
        let done = Command::new("git")
            .current_dir(&path)
            .args(arguments)
            .output();
        let done = done.unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let one = walker.store("main", &[("a", "1")], "one").await;
    let two = walker.store("main", &[("a", "2")], "two").await;
    let stream = "branch/main/since/head?events&path=a";
    let mut behind = Reader::new(&walker, stream).await;
    behind.silent().await;
    let gone = walker.open(stream).await.unwrap();
    git(&["update-ref", "refs/heads/main", &one]);
    let kept = || git(&["for-each-ref", "--format=%(parent)", "refs/dk/since"]);
    let pinned = async {
        while kept().trim() != two {
            tokio::task::yield_now().await;
        }
    };
    soon(pinned).await;
    git(&["reflog", "expire", "--expire=now", "--all"]);
    git(&["-c", "gc.cruftPacks=false", "gc", "-q", "--prune=now"]);
    // It is told what changed since what it read last.
    let told = behind.next().await;
    assert!(told.contains(&format!("commit {two} reset\n")), "{told}");
    drop((behind, gone));
    let let_go = async {
        while !kept().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(let_go).await;
}
