//! `dk merge`: a commit into a branch.

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

/// `master` and `side` from one commit; both changed `both`, each a file of its own.
fn forked() -> Sandbox {
    let sandbox = Sandbox::with_store();
    let files = [("both", "base\n"), ("d/gone", "base\n"), ("ours", "base\n")];
    sandbox.commit("master", "base", &files);
    sandbox.ok(["branch", "create", "side", "--from", "master"]);
    sandbox.commit("master", "ours", &[("ours", "1\n")]);
    sandbox.commit("side", "theirs", &[("theirs", "1\n")]);
    sandbox
}

/// The same, with conflicts at `both` and `d/gone`.
fn conflicting() -> Sandbox {
    let sandbox = forked();
    sandbox.commit("master", "ours", &[("both", "1\n"), ("d/gone", "1\n")]);
    sandbox.commit("side", "theirs", &[("both", "2\n")]);
    sandbox.ok(["rm", "side:d/gone"]);
    sandbox
}

#[test]
fn both_sides_stand() {
    let sandbox = forked();
    let ours = sandbox.ok(["branch", "head", "master"]);
    let head = sandbox.ok(["merge", "master", "side"]);
    assert_eq!(sandbox.ok(["branch", "head", "master"]), head);
    assert_eq!(sandbox.ok(["cat", "master:ours", "master:theirs"]), "1\n1");
    assert_eq!(sandbox.git(["-C", "db.git", "rev-parse", "master^1"]), ours);
    assert_snapshot!(sandbox.git(["-C", "db.git", "log", "-1", "--format=%an: %B"]), @"Ada: Merge side into master");
    // Nothing is left to be merged; the other branch can only move forward.
    assert_eq!(sandbox.ok(["merge", "master", "side"]), head);
    assert_eq!(
        sandbox.ok(["merge", "side", "master", "-m", "unused"]),
        head
    );
    assert_eq!(sandbox.ok(["merge", "unborn", "master"]), head);
}

#[test]
fn conflicts_are_listed_and_nothing_is_changed() {
    let sandbox = conflicting();
    let head = sandbox.ok(["branch", "head", "master"]);
    assert_snapshot!(sandbox.dk(["merge", "master", "side"]), @"
    both	Changed on both branches
    d/gone	option: add/del
    ! dk: cannot merge side into master: 2 paths in conflict
    ! hint: use --ours or --theirs, or settle them one by one with dk tx merge
    exit status 3
    ");
    assert_snapshot!(sandbox.dk(["merge", "--json", "master", "side"]), @r#"
    {"path":"both","kind":"changed-both"}
    {"path":"d/gone","kind":"add-del"}
    ! dk: cannot merge side into master: 2 paths in conflict
    ! hint: use --ours or --theirs, or settle them one by one with dk tx merge
    exit status 3
    "#);
    assert_eq!(sandbox.ok(["branch", "head", "master"]), head);
}

#[test]
fn one_side_may_settle_everything() {
    let sandbox = conflicting();
    let head = sandbox.ok(["branch", "head", "master"]);
    sandbox.ok(["merge", "master", "side", "--theirs", "-m", "theirs"]);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "both\nours\ntheirs");
    assert_eq!(sandbox.ok(["cat", "master:both"]), "2");
    sandbox.ok(["branch", "reset", "master", &head]);
    sandbox.ok(["merge", "master", "side", "--ours"]);
    assert_eq!(sandbox.ok(["cat", "master:both", "master:d/gone"]), "1\n1");
    assert_snapshot!(sandbox.dk(["merge", "master", "side", "--ours", "--theirs"]), @"
    ! dk: the argument '--ours' cannot be used with '--theirs'
    ! 
    ! Usage: dk merge --ours --store <STORE> <BRANCH> <REV>
    ! 
    ! For more information, try '--help'.
    exit status 2
    ");
}

#[test]
fn a_dry_run_only_tells() {
    let sandbox = conflicting();
    let head = sandbox.ok(["branch", "head", "master"]);
    assert_snapshot!(sandbox.dk(["merge", "--dry-run", "master", "side"]), @"
    + theirs
    ! both	Changed on both branches
    ! d/gone	option: add/del
    ! dk: cannot merge side into master
    ! caused by: 2 paths in conflict: both, d/gone
    exit status 3
    ");
    assert_snapshot!(sandbox.dk(["merge", "-n", "--theirs", "master", "side"]), @"
    * both
    - d/gone
    + theirs
    ");
    assert_snapshot!(ids(&sandbox.dk(["merge", "-n", "--json", "master", "side"])), @r#"
    {"path":"theirs","change":"added","old":null,"new":{"kind":"file","mode":"100644","id":"ID1"}}
    {"path":"both","kind":"changed-both"}
    {"path":"d/gone","kind":"add-del"}
    ! dk: cannot merge side into master
    ! caused by: 2 paths in conflict: both, d/gone
    exit status 3
    "#);
    assert_snapshot!(sandbox.dk(["merge", "-n", "unborn", "side"]), @"
    + both
    + ours
    + theirs
    ");
    assert_eq!(sandbox.ok(["branch", "head", "master"]), head);
    assert_eq!(sandbox.ok(["branch"]), "master\nside");
}

#[test]
fn merge_refuses_what_is_not_there() {
    let sandbox = forked();
    assert_snapshot!(sandbox.dk(["merge", "master", "nope"]), @r#"
    ! dk: branch or commit "nope" does not exist
    exit status 4
    "#);
    let zero = "0".repeat(40);
    let expected = ["merge", "master", "side", "--expect", &zero];
    assert_snapshot!(ids(&sandbox.dk(expected)), @"
    ! dk: cannot merge side into master
    ! caused by: branch master is at ID1, not at no commit
    exit status 5
    ");
    assert_snapshot!(sandbox.dk(["merge", "mas ter", "side"]), @r#"
    ! dk: invalid value 'mas ter' for '<BRANCH>': "mas ter" is not a legal branch name: it holds a blank, a control character or one of ~^:?*[\
    ! 
    ! For more information, try '--help'.
    exit status 2
    "#);
}
