//! `dk fetch`, `dk push` and `dk remote`.

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

/// A store, and beside it a repository `far.git` with `main` and `next`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.git(["init", "-q", "--bare", "-b", "main", "far.git"]);
    sandbox.ok_with("1", ["-C", "far.git", "put", "main:a"]);
    sandbox.ok([
        "-C", "far.git", "branch", "create", "next", "--from", "main",
    ]);
    sandbox.ok_with("2", ["-C", "far.git", "put", "next:a"]);
    sandbox
}

#[test]
fn remotes_are_gits() {
    let sandbox = sandbox();
    assert_eq!(sandbox.ok(["remote"]), "");
    sandbox.ok(["remote", "add", "origin", "../far.git"]);
    sandbox.git([
        "-C",
        "db.git",
        "remote",
        "add",
        "other",
        "https://example.org/a.git",
    ]);
    assert_snapshot!(sandbox.dk(["remote", "list"]), @"
    origin	../far.git
    other	https://example.org/a.git
    ");
    assert_snapshot!(sandbox.dk(["--json", "remote"]), @r#"
    {"name":"origin","url":"../far.git"}
    {"name":"other","url":"https://example.org/a.git"}
    "#);
    assert_snapshot!(sandbox.git(["-C", "db.git", "remote"]), @"
    origin
    other
    ");
    assert_snapshot!(sandbox.dk(["remote", "add", "origin", "x"]), @"
    ! dk: cannot add the remote origin
    ! caused by: remote origin exists already
    exit status 1
    ");
    sandbox.ok(["remote", "remove", "other"]);
    assert_snapshot!(sandbox.dk(["remote", "remove", "other"]), @"
    ! dk: cannot remove the remote other
    ! caused by: remote other does not exist
    exit status 4
    ");
    assert_eq!(sandbox.git(["-C", "db.git", "remote"]), "origin");
}

#[test]
fn fetch_prints_what_it_brought() {
    let sandbox = sandbox();
    let far = sandbox.join("far.git");
    let far = far.to_str().unwrap();
    let main = sandbox.ok(["-C", "far.git", "branch", "head", "main"]);
    assert_snapshot!(ids(&sandbox.dk(["fetch", "-q", far, "refs/heads/main"])), @"ID1	refs/heads/main");
    assert_eq!(sandbox.ok(["branch"]), "", "no local ref was asked for");
    assert_eq!(
        sandbox.git(["-C", "db.git", "cat-file", "-t", &main]),
        "commit"
    );
    assert_snapshot!(ids(&sandbox.dk(["fetch", "-q", far, "refs/heads/*:refs/heads/far/*"])), @"
    ID1	refs/heads/main	refs/heads/far/main
    ID2	refs/heads/next	refs/heads/far/next
    ");
    assert_eq!(sandbox.ok(["branch"]), "far/main\nfar/next");
    assert_snapshot!(ids(&sandbox.dk(["fetch", "-q", "--json", far, "main:copy"])), @r#"{"id":"ID1","remote":"refs/heads/main","local":"refs/heads/copy","previous":null,"rejected":null}"#);
    assert_eq!(sandbox.ok(["cat", "copy:a"]), "1");
}

#[test]
fn fetch_only_moves_forward() {
    let sandbox = sandbox();
    sandbox.ok(["remote", "add", "origin", "../far.git"]);
    sandbox.dk(["fetch", "-q", "origin", "next:local"]);
    let local = sandbox.ok_with("mine", ["put", "local:b"]);
    assert_snapshot!(ids(&sandbox.dk(["fetch", "-q", "origin", "main:local", "main:fine"])), @"
    ID1	refs/heads/main	
    ID1	refs/heads/main	refs/heads/fine
    ! refs/heads/local was not moved: not a fast-forward
    exit status 5
    ");
    assert_eq!(sandbox.ok(["branch", "head", "local"]), local);
    assert_eq!(sandbox.ok(["cat", "fine:a"]), "1");
    assert_snapshot!(ids(&sandbox.dk(["fetch", "-q", "origin", "+main:local"])), @"ID1	refs/heads/main	refs/heads/local");
    assert_eq!(sandbox.ok(["cat", "local:a"]), "1");
    // Its own refspecs.
    assert_snapshot!(ids(&sandbox.dk(["fetch", "-q", "origin"])), @"
    ID1	refs/heads/main	refs/remotes/origin/main
    ID2	refs/heads/next	refs/remotes/origin/next
    ");
}

#[test]
fn push_sends() {
    let sandbox = sandbox();
    sandbox.ok(["remote", "add", "origin", "../far.git"]);
    sandbox.ok_with("new", ["put", "topic:a"]);
    let said = sandbox.dk(["push", "origin", "topic"]);
    assert!(
        said.contains("* [new branch]      topic -> topic"),
        "{said}"
    );
    assert_eq!(sandbox.ok(["-C", "far.git", "cat", "topic:a"]), "new");
    let said = sandbox.dk(["push", "origin", "topic:main"]);
    assert!(
        said.contains("dk: cannot push to origin") && said.contains("rejected"),
        "{said}"
    );
    assert!(said.ends_with("exit status 5\n"), "{said}");
    sandbox.dk(["push", "origin", ":topic"]);
    assert_eq!(sandbox.ok(["-C", "far.git", "branch"]), "main\nnext");
}

#[test]
fn what_is_not_there() {
    let sandbox = sandbox();
    let said = sandbox.dk(["fetch", "nowhere", "main"]);
    assert!(
        said.starts_with("! dk: cannot fetch from nowhere\n"),
        "{said}"
    );
    let said = sandbox.dk(["fetch", "./nowhere.git", "main"]);
    assert!(
        said.starts_with("! dk: cannot fetch from ./nowhere.git\n"),
        "{said}"
    );
    let far = sandbox.join("far.git");
    let said = sandbox.dk(["fetch", far.to_str().unwrap(), "nope"]);
    assert!(said.contains("nope"), "{said}");
    let said = sandbox.dk(["push", "nowhere", "main"]);
    assert!(said.contains("! dk: cannot push to nowhere\n"), "{said}");
}
