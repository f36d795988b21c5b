//! The odder kinds of repository: shallow, borrowing, with work trees, of
//! other formats.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use datakit::model::request::{Event, Since, WatchQuery};
use datakit::model::{BranchName, TreePath};
use datakit::store::Store;
use datakit::store::engine::Durability;
use datakit::store::git::Git;
use datakit::store::watch::Watch;
use insta::assert_snapshot;

use crate::aftermath::{files, head, is_whole_in};
use crate::sandbox::Sandbox;

#[test]
fn a_shallow_clone_is_worked_with() {
    let mut sandbox = Sandbox::with_store();
    for number in 0..5 {
        let file = format!("f{number}");
        sandbox.commit("master", &format!("commit {number}"), &[(&file, "1\n")]);
    }
    let url = format!("file://{}", sandbox.join("db.git").display());
    sandbox.git(["clone", "-q", "--bare", "--depth", "2", &url, "shallow.git"]);
    sandbox.set("DK_STORE", "shallow.git");
    assert_eq!(sandbox.ok(["ls", "master"]), "f0\nf1\nf2\nf3\nf4");
    let log = |arguments: &[&str]| {
        let log = ["log", "--oneline", "master"];
        let lines = sandbox.ok(log.iter().chain(arguments));
        let subjects = lines.lines().map(|line| line.split_once(' ').unwrap().1);
        subjects.map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(log(&[]), ["commit 4", "commit 3"]);
    // As git has it: the last commit there is brings all that is in it.
    assert_eq!(log(&["--", "f0"]), ["commit 3"]);
    assert_snapshot!(sandbox.dk(["show", "master~2"]), @r#"
    ! dk: branch or commit "master~2" does not exist
    exit status 4
    "#);
    sandbox.ok_with("2\n", ["put", "master:new", "-"]);
    let side = sandbox.ok(["branch", "create", "side", "--from", "master~1"]);
    sandbox.ok_with("3\n", ["put", "side:side", "-"]);
    sandbox.ok(["merge", "master", "side"]);
    let tx = sandbox.ok(["tx", "begin", "master"]);
    sandbox.ok_with("4\n", ["tx", "write", &tx, "tx", "-"]);
    sandbox.ok_with("5\n", ["put", "master:meanwhile", "-"]);
    sandbox.ok(["tx", "commit", &tx, "-m", "tx"]);
    let seen = sandbox.ok(["watch", "--commits", "-n", "1", "--since", &side, "master"]);
    assert_eq!(seen.len(), 40);
    assert_snapshot!(sandbox.dk(["branch", "ff", "side", "master"]).lines().count(), @"1");
    assert_eq!(
        sandbox.ok(["ls", "master"]),
        "f0\nf1\nf2\nf3\nf4\nmeanwhile\nnew\nside\ntx"
    );
    assert!(!sandbox.dk(["fsck"]).contains("exit status"));
    is_whole_in(&sandbox, "shallow.git");
    sandbox.git(["-C", "shallow.git", "fetch", "-q", "--unshallow", &url]);
    assert_eq!(log(&["--", "f0"]), ["commit 0"]);
}

#[test]
fn odd_repositories_are_read_and_written_or_refused() {
    let mut sandbox = Sandbox::with_store();
    sandbox.commit("master", "one", &[("a", "1\n")]);
    // Borrowed objects, found by a relative path too.
    sandbox.git(["clone", "-q", "--bare", "--shared", "db.git", "shared.git"]);
    sandbox.write(
        "shared.git/objects/info/alternates",
        "../../db.git/objects\n",
    );
    sandbox.set("DK_STORE", "shared.git");
    sandbox.ok_with("2\n", ["put", "master:b", "-"]);
    assert_eq!(
        sandbox.sh("cd / && dk -C $HOME/shared.git cat master:a master:b"),
        "1\n2\n"
    );
    is_whole_in(&sandbox, "shared.git");
    sandbox.git([
        "-C",
        "shared.git",
        "merge-base",
        "--is-ancestor",
        "master~",
        "master",
    ]);

    sandbox.git([
        "init",
        "-q",
        "--bare",
        "-b",
        "master",
        "--object-format=sha256",
        "sha256.git",
    ]);
    sandbox.set("DK_STORE", "sha256.git");
    let id = sandbox.ok_with("3\n", ["put", "master:a", "-"]);
    assert_eq!(id, sandbox.git(["-C", "sha256.git", "rev-parse", "master"]));
    sandbox.ok(["branch", "create", "side", "--from", &id[..8]]);
    sandbox.ok_with("4\n", ["put", "side:b", "-"]);
    sandbox.ok_with("5\n", ["put", "master:c", "-"]);
    sandbox.ok(["merge", "master", "side"]);
    assert_eq!(sandbox.ok(["ls", "master"]), "a\nb\nc");
    is_whole_in(&sandbox, "sha256.git");

    let reftable = [
        "init",
        "-q",
        "--bare",
        "--ref-format=reftable",
        "reftable.git",
    ];
    if sandbox
        .program("git", reftable)
        .output()
        .unwrap()
        .status
        .success()
    {
        sandbox.set("DK_STORE", "reftable.git");
        for line in ["ls master", "put master:a f", "branch"] {
            let shown = sandbox.dk(line.split(' '));
            let clear = shown.contains("$DIR/reftable.git") && shown.contains("reftable");
            assert!(clear && shown.ends_with("exit status 1\n"), "{shown}");
        }
    } else {
        println!("skipped: this git has no reftable");
    }

    for (name, content) in [
        ("file", Some("")),
        ("empty", None),
        ("nowhere/at/all", None),
    ] {
        match content {
            Some(content) => sandbox.write(name, content),
            None if name == "empty" => fs::create_dir(sandbox.join(name)).unwrap(),
            None => {}
        }
        sandbox.set("DK_STORE", name);
        let shown = sandbox.dk(["ls", "master"]);
        assert!(
            shown.contains(name) && shown.ends_with("exit status 1\n"),
            "{shown}"
        );
    }
}

#[test]
fn index_and_work_tree_are_never_touched() {
    let mut sandbox = Sandbox::with_store();
    sandbox.commit("master", "one", &[("a", "1\n"), ("d/b", "1\n")]);
    sandbox.git(["clone", "-q", "db.git", "work"]);
    sandbox.git([
        "-C",
        "work",
        "worktree",
        "add",
        "-q",
        "-b",
        "linked",
        "../linked",
    ]);
    sandbox.write("work/a", "changed\n");
    sandbox.write("work/untracked", "new\n");
    sandbox.git(["-C", "work", "add", "a"]);
    let watched = |path: &Path| {
        let path = path.to_string_lossy();
        // The logs of moves are Git's and kept by whoever moves.
        let state = path.contains("/index") || path.ends_with("HEAD");
        !path.contains("/.git/") || state && !path.contains("/logs/")
    };
    let state = |sandbox: &Sandbox| {
        let places = ["work", "linked"].map(|name| files(&sandbox.join(name), &watched));
        let all: Vec<_> = places.into_iter().flatten().collect();
        let about = all.iter().map(|path| {
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            (path.clone(), fs::read(path).unwrap(), modified)
        });
        about.collect::<Vec<_>>()
    };
    let before = state(&sandbox);
    sandbox.set("DK_STORE", "work");
    for branch in ["master", "linked"] {
        let commit = head(&sandbox, "master").unwrap();
        for line in [
            format!("put {branch}:a -"),
            format!("rm {branch}:a"),
            format!("branch delete {branch}"),
            format!("branch rename {branch} other"),
            format!("branch reset {branch} {commit}~0"),
        ] {
            let shown = sandbox.dk(line.split(' '));
            let clear = shown.contains("is checked out in a work tree");
            let refused = clear && shown.contains("--force") && shown.ends_with("exit status 1\n");
            assert!(refused || line.contains("~0"), "{line}: {shown}");
        }
        let tx = sandbox.ok(["tx", "begin", branch]);
        sandbox.ok_with("2\n", ["tx", "write", &tx, "a", "-"]);
        let shown = sandbox.dk(["tx", "commit", &tx, "-m", "m"]);
        assert!(shown.contains("is checked out in a work tree"), "{shown}");
        sandbox.ok(["tx", "commit", "--force", &tx, "-m", "m"]);
        sandbox.ok_with("3\n", ["put", "--force", &format!("{branch}:a"), "-"]);
    }
    sandbox.git(["-C", "work", "config", "dk.denyCurrentBranch", "ignore"]);
    sandbox.ok_with("4\n", ["put", "master:a", "-"]);
    sandbox.ok_with("5\n", ["put", "free:a", "-"]);
    sandbox.ok(["merge", "linked", "master"]);
    sandbox.ok(["import", "master:in", "work/d"]);
    sandbox.sh("cd work/d && dk ls master");
    for line in [
        "ls -r master",
        "log -p master",
        "branch -v",
        "fsck",
        "tx open",
    ] {
        sandbox
            .command(line.split(' '))
            .stdout(Stdio::null())
            .status()
            .unwrap();
    }
    assert!(before == state(&sandbox), "the index or a file was touched");
    is_whole_in(&sandbox, "work");
}

#[test]
fn a_watch_outlives_the_commit_it_stood_at() {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "old", &[("a", "1\n")]);
    sandbox.commit("other", "new", &[("b", "2\n")]);
    let engine = Git::open(&sandbox.join("db.git"), Durability::None, false).unwrap();
    let query = WatchQuery {
        branch: BranchName::new("master").unwrap(),
        path: TreePath::root(),
        since: Since::Now,
        latest: false,
        unchanged: false,
    };
    let mut watch = Watch::new(Arc::new(Store::new(Arc::new(engine))), query).unwrap();
    assert_eq!(watch.advance().unwrap(), None);
    let git = |line: &str| sandbox.git(["-C", "db.git"].into_iter().chain(line.split(' ')));
    git("update-ref refs/heads/master refs/heads/other");
    git("reflog expire --expire=now --all");
    git("gc --quiet --prune=now");
    let Some(Event::Commit {
        commit,
        previous,
        reset,
        changes,
    }) = watch.advance().unwrap()
    else {
        panic!("no commit");
    };
    assert_eq!((previous, reset, changes.len()), (None, true, 1));
    assert_eq!(commit.subject(), b"new");
    assert_eq!(watch.advance().unwrap(), None);
}
