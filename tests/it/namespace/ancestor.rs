//! The ancestor's tests of its server, spec/db.md 15.2, under their names.

use super::*;

const EMPTY: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

#[tokio::test]
async fn transaction() {
    let walker = memory();
    let root = walker.ls("").await.unwrap();
    assert_eq!(
        root[..6],
        [
            "branch",
            "trees",
            "commits",
            "snapshots",
            "remotes",
            "debug"
        ]
    );
    walker.mkdir("branch/master").await.unwrap();
    assert_eq!(walker.ls("branch").await.unwrap(), ["master"]);
    assert_eq!(walker.ls("branch/master/../..").await.unwrap(), root);
    let tx = walker.begin("master", "init").await;
    walker.mkdir(&format!("{tx}/rw/src")).await.unwrap();
    let makefile = format!("{tx}/rw/src/Makefile");
    walker.put(&makefile, "all: build test").await.unwrap();
    walker
        .write(&format!("{tx}/msg"), "My commit")
        .await
        .unwrap();
    assert_eq!(walker.cat(&format!("{tx}/parents")).await.unwrap(), "");
    walker.echo(&format!("{tx}/ctl"), "commit").await.unwrap();
    let stored = "branch/master/ro/src/Makefile";
    assert_eq!(walker.attr(stored).await.unwrap().size, 15);
    assert_eq!(walker.cat(stored).await.unwrap(), "all: build test");
    let head = walker.head("master").await;
    let message = walker.cat(&format!("snapshots/{head}/msg")).await.unwrap();
    assert_eq!(message, "My commit\n");
    assert!(walker.walk(&tx).await.is_err(), "it is over");
}

#[tokio::test]
async fn qids() {
    let walker = memory();
    walker.mkdir("branch/master").await.unwrap();
    let mut flags = Vec::new();
    for path in ["branch", "branch/master", "branch/master/head"] {
        flags.push(is_dir(&walker.walk(path).await.unwrap()));
    }
    assert_eq!(flags, [true, true, false]);
}

#[tokio::test]
async fn watch() {
    let walker = memory();
    walker.mkdir("branch/master").await.unwrap();
    let mut root = Reader::new(&walker, "branch/master/watch/tree.live").await;
    let doc = "branch/master/watch/doc.node/tree.live";
    let makefile = "branch/master/watch/src.node/Makefile.node/tree.live";
    let mut doc = Reader::new(&walker, doc).await;
    let mut makefile = Reader::new(&walker, makefile).await;
    assert_eq!(root.next().await, format!("D-{EMPTY}\n"));
    assert_eq!(doc.next().await, "\n");
    assert_eq!(makefile.next().await, "\n");
    walker
        .store("master", &[("src/Makefile", "all: build")], "one")
        .await;
    assert_eq!(
        makefile.next().await,
        "F-d81e367f87ee314bcd3e449b1c6641efda5bc269\n"
    );
    assert_eq!(
        root.next().await,
        "D-acaa8ac97706d94e012da475e8a63d647011a72c\n"
    );
    walker
        .store("master", &[("doc/README", "Instructions")], "two")
        .await;
    let line = doc.next().await;
    assert_eq!(line, "D-a3e8adf6d194bfbdec2ca73aebe0990edee2ddbf\n");
    let listed = walker.ls(&format!("trees/{}", line.trim())).await.unwrap();
    assert_eq!(listed, ["README"]);
    assert!(root.next().await.starts_with("D-"));
    makefile.silent().await;
    let nodes = walker.ls("branch/master/watch").await.unwrap();
    assert_eq!(nodes, ["tree.live", "doc.node", "src.node"]);
}

#[tokio::test]
async fn range() {
    let walker = memory();
    let tx = walker.begin("master", "foo").await;
    let origin = walker.open(&format!("{tx}/origin")).await.unwrap();
    let result = origin.read(&walker.call, 100, 100).await;
    refused(result, "Offset 100 beyond end-of-file (len = 0)");
}

#[tokio::test]
async fn rename_branch() {
    let walker = memory();
    let head = walker.store("old", &[("file", "x")], "one").await;
    let node = walker.walk("branch/old").await.unwrap();
    let inside = walker.walk("branch/old/head").await.unwrap();
    walker.rename("branch/old", "new").await.unwrap();
    assert_eq!(walker.ls("branch").await.unwrap(), ["new"]);
    assert_eq!(node.name(), b"new");
    assert_eq!(walker.head("new").await, head);
    let handle = inside.open(&walker.call, BOTH).await.unwrap();
    let text = handle.read(&walker.call, 0, 100).await.unwrap();
    assert_eq!(text, format!("{head}\n"), "it follows");
    node.remove(&walker.call, true).await.unwrap();
    assert!(walker.store.branches().unwrap().is_empty());
    fails(walker.walk("branch/new").await, Kind::NotFound);
    // What has no commit is forgotten just so.
    walker.mkdir("branch/x").await.unwrap();
    walker.rm("branch/x").await.unwrap();
    assert!(walker.ls("branch").await.unwrap().is_empty());
    // In the way of an existing one.
    walker.store("a", &[("file", "x")], "one").await;
    walker.store("b", &[("file", "x")], "one").await;
    refused(walker.rename("branch/a", "b").await, "Is a directory");
}

#[tokio::test]
async fn rename_file() {
    let walker = memory();
    let tx = walker.begin("master", "init").await;
    walker.put(&format!("{tx}/rw/old"), "x").await.unwrap();
    let node = walker.walk(&format!("{tx}/rw/old")).await.unwrap();
    let rw = walker.walk(&format!("{tx}/rw")).await.unwrap();
    node.rename(&walker.call, &rw, b"new").await.unwrap();
    assert_eq!(walker.ls(&format!("{tx}/rw")).await.unwrap(), ["new"]);
    walker.mkdir(&format!("{tx}/rw/dir")).await.unwrap();
    walker.put(&format!("{tx}/rw/dir/x"), "x").await.unwrap();
    refused(
        node.rename(&walker.call, &rw, b"dir").await,
        "Is a directory",
    );
    walker.rm(&format!("{tx}/rw/new")).await.unwrap();
    let again = node.rename(&walker.call, &rw, b"again").await;
    refused(again, "No such file or directory");
    walker.commit(&tx).await.unwrap();
    assert_eq!(walker.ls("branch/master/ro").await.unwrap(), ["dir"]);
}

#[tokio::test]
async fn truncate() {
    let walker = memory();
    let tx = walker.begin("master", "init").await;
    let file = format!("{tx}/rw/file");
    walker.put(&file, "Hello").await.unwrap();
    for (size, wanted) in [(4, "Hell"), (4, "Hell"), (6, "Hell\0\0"), (0, "")] {
        walker.resize(&file, size).await.unwrap();
        assert_eq!(walker.cat(&file).await.unwrap(), wanted);
    }
}

#[tokio::test]
async fn parents() {
    let walker = memory();
    let parents = async |head: &str| -> Vec<String> {
        let text = walker.cat(&format!("snapshots/{head}/parents")).await;
        text.unwrap().lines().map(str::to_owned).collect()
    };
    let first = walker.store("master", &[("file", "x")], "one").await;
    assert!(parents(&first).await.is_empty());
    let second = walker.store("master", &[("file", "y")], "two").await;
    assert_eq!(parents(&second).await, [&*first]);
    let tx = walker.begin("dev", "t").await;
    walker.put(&format!("{tx}/rw/dev"), "x").await.unwrap();
    walker
        .write(&format!("{tx}/parents"), second.clone())
        .await
        .unwrap();
    walker.commit(&tx).await.unwrap();
    let dev = walker.head("dev").await;
    assert_eq!(parents(&dev).await, [&*second]);
    // Invalid and unknown ids.
    let tx = walker.begin("dev", "t").await;
    walker
        .echo(&format!("{tx}/parents"), "hello")
        .await
        .unwrap();
    refused(
        walker.commit(&tx).await,
        "invalid-hash \"hello\": Failure(\"hello\")",
    );
    let unknown = "a".repeat(40);
    walker
        .echo(&format!("{tx}/parents"), &unknown)
        .await
        .unwrap();
    refused(walker.commit(&tx).await, "No such file or directory");
    let text = format!("\n{}\n{}\n", dev, first);
    walker.write(&format!("{tx}/parents"), text).await.unwrap();
    walker.commit(&tx).await.unwrap();
    // Two transactions at a time.
    let outer = walker.begin("master", "outer").await;
    let inner = walker.begin("master", "inner").await;
    let from = walker.cat(&format!("{outer}/parents")).await.unwrap();
    assert_eq!(from.trim(), second);
    walker.put(&format!("{inner}/rw/inner"), "x").await.unwrap();
    walker.put(&format!("{outer}/rw/outer"), "x").await.unwrap();
    let both = format!("{second}\n{dev}\n");
    walker
        .write(&format!("{outer}/parents"), both)
        .await
        .unwrap();
    walker
        .write(&format!("{outer}/msg"), "From outer")
        .await
        .unwrap();
    walker.commit(&inner).await.unwrap();
    let inner = walker.head("master").await;
    walker.commit(&outer).await.unwrap();
    let head = walker.head("master").await;
    let merged = parents(&head).await;
    assert_eq!(merged[0], inner);
    assert_eq!(merged.len(), 2);
    assert_eq!(parents(&merged[1]).await, [second, dev]);
    let message = walker.cat(&format!("snapshots/{}/msg", merged[1])).await;
    assert_eq!(message.unwrap(), "From outer\n");
    let message = walker.cat(&format!("snapshots/{head}/msg")).await;
    assert_eq!(message.unwrap(), "Merge\n");
}

#[tokio::test]
async fn merge() {
    let walker = memory();
    let base = walker
        .store("master", &[("file", "from-base")], "base")
        .await;
    walker.mkdir("branch/pr").await.unwrap();
    let forward = "branch/pr/fast-forward";
    let unknown = walker.write(forward, "b".repeat(40)).await;
    refused(unknown, "No such file or directory");
    walker.echo(forward, &base).await.unwrap();
    assert_eq!(walker.head("pr").await, base);
    let pr = walker.store("pr", &[("file", "from-pr")], "pr").await;
    let master = walker
        .store("master", &[("mine", "from-master")], "m")
        .await;
    let tx = walker.begin("master", "merge").await;
    assert!(!walker.ls(&tx).await.unwrap().contains(&"ours".to_owned()));
    let handle = walker.open(&format!("{tx}/merge")).await.unwrap();
    handle
        .write(&walker.call, 0, pr.clone().into())
        .await
        .unwrap();
    assert_eq!(handle.read(&walker.call, 40, 100).await.unwrap(), "ok");
    for (path, wanted) in [
        ("ours/mine", "from-master"),
        ("theirs/file", "from-pr"),
        ("base/file", "from-base"),
        ("rw/file", "from-pr"),
        ("conflicts", ""),
    ] {
        let text = walker.cat(&format!("{tx}/{path}")).await;
        assert_eq!(text.unwrap(), wanted, "{path}");
    }
    walker.commit(&tx).await.unwrap();
    let head = walker.head("master").await;
    let parents = walker.cat(&format!("snapshots/{head}/parents")).await;
    assert_eq!(parents.unwrap(), format!("{master}\n{pr}\n"));
    let file = walker.cat("branch/master/ro/file").await.unwrap();
    assert_eq!(file, "from-pr");
}

#[tokio::test]
async fn merge_metadata() {
    let walker = memory();
    let tx = walker.begin("master", "base").await;
    walker.create(&format!("{tx}/rw/a"), EXEC).await.unwrap();
    walker.write(&format!("{tx}/rw/a"), "a").await.unwrap();
    walker.link(&format!("{tx}/rw/b"), "b").await.unwrap();
    walker.create(&format!("{tx}/rw/c"), EXEC).await.unwrap();
    walker.write(&format!("{tx}/rw/c"), "c").await.unwrap();
    walker.commit(&tx).await.unwrap();
    let base = walker.head("master").await;
    // Merged into a branch with no commit.
    let tx = walker.begin("pr", "t").await;
    walker.write(&format!("{tx}/merge"), base).await.unwrap();
    walker.chmod(&format!("{tx}/rw/b"), EXEC).await.unwrap();
    let target = Some(b"foo".to_vec());
    let link = Create::Link { target };
    walker.chmod(&format!("{tx}/rw/c"), link).await.unwrap();
    walker.commit(&tx).await.unwrap();
    let pr = walker.head("pr").await;
    let tx = walker.begin("master", "t").await;
    walker.chmod(&format!("{tx}/rw/c"), FILE).await.unwrap();
    walker.commit(&tx).await.unwrap();
    let tx = walker.begin("master", "merge").await;
    walker.write(&format!("{tx}/merge"), pr).await.unwrap();
    let kind = async |path: &str| {
        let attr = walker.attr(&format!("{tx}/{path}")).await.unwrap();
        (attr.id.shape, attr.exec)
    };
    assert_eq!(kind("ours/a").await, (Shape::File, true));
    assert_eq!(kind("ours/b").await, (Shape::Link, false));
    assert_eq!(kind("theirs/b").await, (Shape::File, true));
    assert_eq!(kind("rw/b").await, (Shape::File, true));
    assert_eq!(kind("rw/c").await, (Shape::File, false));
    let text = walker.cat(&format!("{tx}/rw/c")).await.unwrap();
    assert_eq!(text, "** Conflict **\nChanged on both branches\n");
    let conflicts = format!("{tx}/conflicts");
    assert_eq!(walker.cat(&conflicts).await.unwrap(), "c\n");
    walker.chmod(&format!("{tx}/rw/c"), EXEC).await.unwrap();
    assert_eq!(walker.cat(&conflicts).await.unwrap(), "c\n");
    refused(walker.commit(&tx).await, "conflicts file is not empty");
    walker.write(&format!("{tx}/rw/c"), "c").await.unwrap();
    assert_eq!(walker.cat(&conflicts).await.unwrap(), "");
    walker.commit(&tx).await.unwrap();
    assert!(walker.attr("branch/master/ro/c").await.unwrap().exec);
    let target = walker.walk("branch/master/ro/b").await.unwrap();
    fails(target.target(&walker.call).await, Kind::Invalid);
}

#[tokio::test]
async fn merge_empty() {
    let walker = memory();
    let base = walker.store("master", &[("file", "x")], "base").await;
    let tx = walker.begin("pr", "t").await;
    walker.write(&format!("{tx}/merge"), base).await.unwrap();
    assert!(walker.ls(&format!("{tx}/base")).await.unwrap().is_empty());
    walker.commit(&tx).await.unwrap();
    assert_eq!(walker.cat("branch/pr/ro/file").await.unwrap(), "x");
}

#[tokio::test]
async fn conflicts() {
    let walker = memory();
    let base = [
        ("a", "a-from-base"),
        ("b", "b-from-base"),
        ("c", "c-from-base"),
        ("d", "d-from-base"),
        ("e", "e-from-base"),
        ("f", "f-from-base"),
        ("dir/a", "a-from-base"),
        ("dir2/b", "b-from-base"),
    ];
    let base = walker.store("master", &base, "base").await;
    walker.mkdir("branch/theirs").await.unwrap();
    walker
        .write("branch/theirs/fast-forward", base)
        .await
        .unwrap();
    let tx = walker.begin("theirs", "t").await;
    let at = |path: &str| format!("{tx}/rw/{path}");
    for (path, text) in [
        ("a", "a-theirs"),
        ("c", "c-theirs"),
        ("f", "f-theirs"),
        ("h", "h-theirs"),
    ] {
        walker.put(&at(path), text).await.unwrap();
    }
    walker.put(&at("dir/a"), "a-theirs").await.unwrap();
    walker.rm(&at("dir2")).await.unwrap();
    walker.put(&at("dir2"), "now a file").await.unwrap();
    walker.rm(&at("d")).await.unwrap();
    walker.rm(&at("e")).await.unwrap();
    walker.commit(&tx).await.unwrap();
    let theirs = walker.head("theirs").await;

    let tx = walker.begin("master", "ours").await;
    let at = |path: &str| format!("{tx}/rw/{path}");
    for (path, text) in [
        ("a", "a-ours"),
        ("b", "b-ours"),
        ("g", "g-ours"),
        ("h", "h-ours"),
    ] {
        walker.put(&at(path), text).await.unwrap();
    }
    walker.put(&at("dir2/b"), "b-ours").await.unwrap();
    walker.rm(&at("dir")).await.unwrap();
    walker.put(&at("dir"), "now a file").await.unwrap();
    walker.rm(&at("d")).await.unwrap();
    walker.rm(&at("e")).await.unwrap();
    walker.rm(&at("f")).await.unwrap();
    walker.commit(&tx).await.unwrap();

    let tx = walker.begin("master", "merge").await;
    let at = |path: &str| format!("{tx}/rw/{path}");
    walker.write(&format!("{tx}/merge"), theirs).await.unwrap();
    refused(walker.commit(&tx).await, "conflicts file is not empty");
    let names = walker.ls(&format!("{tx}/rw")).await.unwrap();
    assert_eq!(names, ["a", "b", "c", "dir", "dir2", "f", "g", "h"]);
    for (path, text) in [
        ("a", "Changed on both branches"),
        ("f", "option: add/del"),
        ("h", "default: add/add and no common ancestor"),
        ("dir", "File vs dir"),
        ("dir2", "File vs dir"),
    ] {
        let wanted = format!("** Conflict **\n{text}\n");
        assert_eq!(walker.cat(&at(path)).await.unwrap(), wanted, "{path}");
    }
    for (path, text) in [("b", "b-ours"), ("c", "c-theirs"), ("g", "g-ours")] {
        assert_eq!(walker.cat(&at(path)).await.unwrap(), text);
    }
    let listed = format!("{tx}/conflicts");
    assert_eq!(walker.cat(&listed).await.unwrap(), "a\ndir\ndir2\nf\nh\n");
    for path in ["a", "dir", "dir2"] {
        walker.rm(&at(path)).await.unwrap();
    }
    let text = walker.cat(&format!("{tx}/theirs/f")).await.unwrap();
    walker.put(&at("f"), text).await.unwrap();
    assert_eq!(walker.cat(&listed).await.unwrap(), "h\n");
    refused(walker.commit(&tx).await, "conflicts file is not empty");
    walker.rm(&at("h")).await.unwrap();
    walker.commit(&tx).await.unwrap();
    let names = walker.ls("branch/master/ro").await.unwrap();
    assert_eq!(names, ["b", "c", "f", "g"]);
}

#[tokio::test]
async fn stable_inodes() {
    let walker = memory();
    let tx = walker.begin("master", "t").await;
    let file = format!("{tx}/rw/file");
    walker.put(&file, "x").await.unwrap();
    let id = walker.attr(&file).await.unwrap().id.path;
    walker.write(&file, "hello").await.unwrap();
    assert_eq!(walker.attr(&file).await.unwrap().id.path, id);
    walker.rename(&file, "other").await.unwrap();
    let moved = walker.attr(&format!("{tx}/rw/other")).await.unwrap();
    assert_eq!(moved.id.path, id);
    walker.put(&file, "y").await.unwrap();
    let second = walker.attr(&file).await.unwrap().id.path;
    assert_ne!(second, id);
    walker.rm(&file).await.unwrap();
    walker.put(&file, "z").await.unwrap();
    let third = walker.attr(&file).await.unwrap().id.path;
    assert!(third != second && third != id, "a new one");
}
