//! `dk branch`.

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

/// A store with two commits on `master`, and one beside them on `side`.
fn store() -> (Sandbox, String, String) {
    let sandbox = Sandbox::with_store();
    let first = sandbox.commit("master", "first", &[("a", "1")]);
    sandbox.git(["-C", "db.git", "branch", "feature/side", "master"]);
    sandbox.commit("feature/side", "beside\n\nbody", &[("b", "2")]);
    let second = sandbox.commit("master", "second", &[("a", "2")]);
    (sandbox, first, second)
}

#[test]
fn branches_are_listed_in_order() {
    let (sandbox, _, second) = store();
    assert_snapshot!(sandbox.dk(["branch"]), @"
    feature/side
    master
    ");
    assert_eq!(sandbox.dk(["branch", "list"]), sandbox.dk(["branch"]));
    let listed = sandbox.dk(["branch", "-v"]);
    assert_snapshot!(ids(&listed), @"
    feature/side	ID1	beside
    master	ID2	second
    ");
    assert!(listed.contains(&second));
    assert_snapshot!(ids(&sandbox.dk(["--json", "branch", "-v"])), @r#"
    {"name":"feature/side","head":"ID1","subject":"beside"}
    {"name":"master","head":"ID2","subject":"second"}
    "#);
    assert_snapshot!(ids(&sandbox.dk(["--json", "branch"])), @r#"
    {"name":"feature/side","head":"ID1"}
    {"name":"master","head":"ID2"}
    "#);
}

#[test]
fn fetched_branches_are_listed_when_asked_for() {
    let (sandbox, ..) = store();
    sandbox.sh("git clone -q db.git work");
    assert_snapshot!(sandbox.dk(["-C", "work", "branch"]), @"master");
    assert_snapshot!(sandbox.dk(["-C", "work", "branch", "-a"]), @"
    master
    refs/remotes/origin/feature/side
    refs/remotes/origin/master
    ");
    assert_snapshot!(sandbox.dk(["-C", "work", "ls", "refs/remotes/origin/feature/side"]), @"
    a
    b
    ");
}

#[test]
fn a_branch_lives_and_dies() {
    let (sandbox, first, second) = store();
    assert_eq!(
        sandbox.ok(["branch", "create", "new", "--from", "master~1"]),
        first
    );
    assert_eq!(
        sandbox.ok(["branch", "create", "other"]),
        second,
        "from HEAD"
    );
    assert_snapshot!(sandbox.dk(["branch", "create", "new", "--from", "master"]), @"
    ! dk: branch new exists already
    ! hint: move it with 'dk branch reset new master'
    exit status 1
    ");
    assert_eq!(sandbox.ok(["branch", "rename", "new", "newer"]), first);
    assert_snapshot!(sandbox.dk(["branch", "rename", "newer", "master"]), @"
    ! dk: branch master exists already
    exit status 1
    ");
    assert_eq!(sandbox.ok(["branch", "head", "newer"]), first);
    assert_snapshot!(sandbox.dk(["branch", "head", "new"]), @"
    ! dk: branch new does not exist
    exit status 4
    ");
    assert_eq!(
        sandbox.ok(["branch", "delete", "newer", "other"]),
        format!("{first}\n{second}")
    );
    assert_snapshot!(sandbox.dk(["branch"]), @"
    feature/side
    master
    ");
    assert_snapshot!(ids(&sandbox.dk(["branch", "delete", "no", "feature/side"])), @"
    ID1
    ! dk: branch no does not exist
    exit status 4
    ");
}

#[test]
fn fast_forward_is_checked() {
    let (sandbox, first, second) = store();
    assert_eq!(sandbox.ok(["branch", "reset", "b", "master~"]), first);
    assert_eq!(sandbox.ok(["branch", "ff", "b", "master"]), second);
    assert_eq!(
        sandbox.ok(["branch", "ff", "b", "master"]),
        second,
        "where it is"
    );
    let refused = sandbox.dk(["branch", "ff", "b", "feature/side"]);
    assert_snapshot!(ids(&refused), @"
    ! dk: branch b cannot move to ID1: not a fast-forward from ID2
    exit status 5
    ");
    assert_eq!(sandbox.ok(["branch", "head", "b"]), second);
}

#[test]
fn a_reset_may_expect_a_head() {
    let (sandbox, first, second) = store();
    let reset = |expect: &str| sandbox.dk(["branch", "reset", "b", "master", "--expect", expect]);
    assert_snapshot!(ids(&reset("0")), @"ID1");
    assert_snapshot!(ids(&reset("0")), @"
    ! dk: branch b is at ID1, not at no commit
    exit status 5
    ");
    assert_snapshot!(ids(&reset(&first)), @"
    ! dk: branch b is at ID1, not at ID2
    exit status 5
    ");
    assert_eq!(reset(&second), format!("{second}\n"));
    assert_snapshot!(reset("abc"), @"
    ! dk: invalid value 'abc' for '--expect <ID>': give a commit id in full, or 0 for a branch without a commit
    ! 
    ! For more information, try '--help'.
    exit status 2
    ");
    assert_snapshot!(ids(&sandbox.dk(["--json", "branch", "delete", "b"])), @r#"{"name":"b","head":null}"#);
}

#[test]
fn a_checked_out_branch_is_not_moved() {
    let (sandbox, _, second) = store();
    sandbox.git(["clone", "-q", "db.git", "work"]);
    let reset = ["-C", "work", "branch", "reset", "master", "master~"];
    let refused = sandbox.dk(reset);
    assert!(
        refused.ends_with("exit status 1\n") && refused.contains("--force"),
        "{refused}"
    );
    assert_eq!(
        sandbox.ok(["-C", "work", "branch", "head", "master"]),
        second
    );
    assert_ne!(
        sandbox.ok([
            "-C", "work", "branch", "reset", "master", "master~", "--force"
        ]),
        second
    );
}

#[test]
fn names_are_checked() {
    let (sandbox, ..) = store();
    assert_snapshot!(sandbox.dk(["branch", "create", "a..b"]), @r#"
    ! dk: invalid value 'a..b' for '<NAME>': "a..b" is not a legal branch name: it holds ".." or "@{"
    ! 
    ! For more information, try '--help'.
    exit status 2
    "#);
    assert_snapshot!(sandbox.dk(["branch", "create", "master/sub", "--from", "master"]), @"
    ! dk: cannot create branch master/sub: branch master exists already
    exit status 1
    ");
}
