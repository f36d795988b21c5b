//! `dk bridge local`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::sandbox::Sandbox;

/// A store, and a repository with a work tree and one commit on `main`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.git(["init", "-q", "-b", "main", "src"]);
    commit(&sandbox, "one");
    sandbox
}

fn commit(sandbox: &Sandbox, message: &str) {
    sandbox.git(["-C", "src", "commit", "-q", "--allow-empty", "-m", message]);
}

const ONCE: [&str; 4] = ["bridge", "local", "--once", "me/app:src"];

#[test]
fn branches_are_followed_both_ways_of_change() {
    let sandbox = sandbox();
    let first = sandbox.ok(ONCE);
    assert_eq!(sandbox.ok(["branch", "head", "github-metadata"]), first);
    assert_eq!(sandbox.ok(ONCE), "", "nothing to do, nothing done");
    sandbox.git(["-C", "src", "branch", "a/b"]);
    sandbox.git(["-C", "src", "tag", "-a", "-m", "t", "v1"]);
    commit(&sandbox, "two");
    sandbox.ok(ONCE);
    let files = |sandbox: &Sandbox| sandbox.ok(["ls", "-r", "github-metadata"]);
    assert_eq!(
        files(&sandbox),
        "me/app/ref/heads/a/b/head\nme/app/ref/heads/main/head"
    );
    let main = sandbox.git(["-C", "src", "rev-parse", "main"]);
    assert_eq!(
        sandbox.ok(["cat", "github-metadata:me/app/ref/heads/main/head"]),
        main.trim_end()
    );
    sandbox.git(["-C", "src", "branch", "-D", "a/b"]);
    sandbox.ok(["bridge", "local", "--once", "--tags", "me/app:src"]);
    assert_eq!(
        files(&sandbox),
        "me/app/ref/heads/main/head\nme/app/ref/tags/v1/head"
    );
    assert_eq!(
        sandbox.ok(["cat", "github-metadata:me/app/ref/tags/v1/head"]),
        sandbox.git(["-C", "src", "rev-parse", "v1^{commit}"]),
        "the commit, not the tag"
    );
    let log = sandbox.ok(["log", "github-metadata"]);
    for said in [
        "Tracking new branch {me/app heads/main[",
        "Removing deleted branch {me/app heads/a/b[",
    ] {
        assert!(log.contains(said), "{log}");
    }
}

#[test]
fn changes_are_seen_while_it_runs() {
    let sandbox = sandbox();
    let mut bridge = sandbox
        .command(["bridge", "local", "me/app:src"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(bridge.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    commit(&sandbox, "two");
    let made = lines.next().unwrap().unwrap();
    let main = sandbox.git(["-C", "src", "rev-parse", "main"]);
    let path = format!("{made}:me/app/ref/heads/main/head");
    assert_eq!(sandbox.ok(["cat", &path]), main.trim_end());
    // What somebody else does to the branch is mended.
    sandbox.ok(["rm", "github-metadata:me"]);
    lines.next().unwrap().unwrap();
    assert_eq!(
        sandbox.ok(["ls", "-r", "github-metadata"]),
        "me/app/ref/heads/main/head"
    );
    bridge.kill().unwrap();
    bridge.wait().unwrap();
}

#[test]
fn what_would_follow_itself_is_refused() {
    let sandbox = sandbox();
    let said = sandbox.dk(["bridge", "local", "me/db:db.git"]);
    assert!(
        said.contains("me/db is the store itself") && said.ends_with("exit status 2\n"),
        "{said}"
    );
    sandbox.git([
        "-C", "db.git", "worktree", "add", "-q", "--orphan", "-b", "w", "../tree",
    ]);
    let said = sandbox.dk(["bridge", "local", "me/db:tree"]);
    assert!(said.contains("me/db is the store itself"), "{said}");
    // What a CI writes, in whatever repository, is not built again.
    for branch in [
        "status-a-b-pr-1",
        "commit-index",
        "dk-ci",
        "dk-ci-lease",
        "dk-step-x-of-1",
        "github-metadata",
        "github-metadata.sync",
    ] {
        sandbox.git(["-C", "src", "branch", branch]);
    }
    sandbox.ok(ONCE);
    assert_eq!(
        sandbox.ok(["ls", "-r", "github-metadata"]),
        "me/app/ref/heads/main/head"
    );
}

/// moby/datakit#622: it needed to write to what it watched.
#[test]
fn a_repository_that_cannot_be_written_will_do() {
    let sandbox = sandbox();
    let folder = sandbox.join("src/.git");
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    let before: Vec<_> = crate::aftermath::files(&folder, &|_| true);
    mode(0o555);
    sandbox.ok(ONCE);
    mode(0o755);
    assert_eq!(
        crate::aftermath::files(&folder, &|_| true),
        before,
        "nothing was left there"
    );
}

#[test]
fn names_and_places_that_are_wrong() {
    let sandbox = sandbox();
    for (bad, why) in [
        ("src", "it should be USER/REPO:PATH"),
        ("me:src", "is not a repository's name"),
        ("me/app:", "the path is missing"),
    ] {
        let said = sandbox.dk(["bridge", "local", bad]);
        assert!(
            said.contains(why) && said.ends_with("exit status 2\n"),
            "{said}"
        );
    }
    let said = sandbox.dk(["bridge", "local", "me/app:nowhere"]);
    assert!(
        said.contains("nowhere") && said.ends_with("exit status 1\n"),
        "{said}"
    );
    let said = sandbox.dk(["bridge", "local", "me/app:src", "me/app:db.git"]);
    assert!(
        said.contains("given twice") || said.contains("the store itself"),
        "{said}"
    );
}
