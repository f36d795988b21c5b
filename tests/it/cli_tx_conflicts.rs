//! Conflicts in transactions: found by a commit or a merge, and settled with
//! flags, by writing, or with a menu.

use insta::assert_snapshot;

use crate::cli_shell::{done, terminal};
use crate::cli_tx::{begun, commit};
use crate::sandbox::{Sandbox, ids};

/// A transaction `t` with conflicts at `a` and `d/b`.
fn conflicting() -> Sandbox {
    let sandbox = begun();
    sandbox.ok_with("mine\n", ["tx", "write", "t", "a"]);
    sandbox.ok(["tx", "rm", "t", "d"]);
    sandbox.commit(
        "master",
        "theirs",
        &[("a", "theirs\n"), ("d/b", "theirs\n")],
    );
    sandbox
}

#[test]
fn a_conflict_leaves_the_transaction_open() {
    let sandbox = conflicting();
    assert_snapshot!(sandbox.dk(["tx", "commit", "t"]), @"
    ! a	Changed on both branches
    ! d/b	option: add/del
    ! dk: cannot commit t to master: 2 paths in conflict
    ! hint: settle them with 'dk tx resolve t'
    exit status 3
    ");
    assert_snapshot!(sandbox.dk(["tx", "commit", "t"]), @"
    ! a	Changed on both branches
    ! d/b	option: add/del
    ! dk: cannot commit t to master: 2 paths in conflict
    ! hint: settle them with 'dk tx resolve t'
    exit status 3
    ");
    assert_snapshot!(sandbox.dk(["tx", "conflicts", "t"]), @"
    a	Changed on both branches
    d/b	option: add/del
    ");
    assert_snapshot!(ids(&sandbox.dk(["tx", "conflicts", "--json", "t"])), @r#"
    {"path":"a","kind":"changed-both","base":{"kind":"file","mode":"100644","id":"ID1"},"ours":{"kind":"file","mode":"100644","id":"ID2"},"theirs":{"kind":"file","mode":"100644","id":"ID3"}}
    {"path":"d/b","kind":"add-del","base":{"kind":"file","mode":"100644","id":"ID4"},"ours":null,"theirs":{"kind":"file","mode":"100644","id":"ID3"}}
    "#);
    assert_snapshot!(sandbox.dk(["tx", "merge", "t", "master"]), @"
    ! dk: cannot merge master into t: 2 paths in conflict
    ! hint: settle them with 'dk tx resolve t'
    exit status 3
    ");
    assert_snapshot!(sandbox.dk(["tx", "resolve", "t"]), @"
    ! dk: cannot ask without a terminal how to settle conflicts
    ! hint: use --ours, --theirs, --base or --file FILE
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["tx", "resolve", "t", "nope", "--ours"]), @"
    ! dk: a conflict at nope does not exist
    exit status 4
    ");
    assert_snapshot!(sandbox.dk(["tx", "resolve", "t", "--ours", "--base"]), @"
    ! dk: the argument '--ours' cannot be used with '--base'
    ! 
    ! Usage: dk tx resolve --ours --store <STORE> <TX> [PATH]...
    ! 
    ! For more information, try '--help'.
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["tx", "resolve", "t", "--file", "-"]), @"
    ! dk: --file settles one path: name it
    exit status 2
    ");
    sandbox.ok(["tx", "resolve", "t", "--theirs", "d"]);
    sandbox.ok_with("merged\n", ["tx", "resolve", "t", "a", "--file", "-"]);
    assert_snapshot!(sandbox.dk(["tx", "resolve", "t"]), @"! t: nothing is in conflict");
    commit(&sandbox);
    assert_eq!(
        sandbox.ok(["cat", "master:a", "master:d/b"]),
        "merged\ntheirs"
    );
}

#[test]
fn each_side_settles() {
    for (side, a, listed) in [
        ("--ours", "mine", "a"),
        ("--theirs", "theirs", "a\nd/b"),
        ("--base", "1", "a\nd/b"),
    ] {
        let sandbox = conflicting();
        sandbox.dk(["tx", "commit", "t"]);
        sandbox.ok(["tx", "resolve", "t", side]);
        commit(&sandbox);
        assert_eq!(sandbox.ok(["cat", "master:a"]), a, "{side}");
        assert_eq!(sandbox.ok(["ls", "-r", "master"]), listed, "{side}");
    }
}

#[test]
fn conflicts_are_settled_with_a_menu() {
    let mut sandbox = conflicting();
    sandbox.dk(["tx", "commit", "t"]);
    sandbox.set("EDITOR", "sed -i '/^[<=>]/d'");
    let mut shell = terminal(&sandbox, ["tx", "resolve", "t"]);
    shell
        .exp_string("a (1 of 2): Changed on both branches")
        .unwrap();
    for choice in ["ours ", "theirs ", "base ", "edit ", "skip "] {
        shell.exp_string(choice).unwrap();
    }
    // Up from the first is the last: skip; once more: edit.
    shell.send("\x1b[A\x1b[A\r").unwrap();
    shell.flush().unwrap();
    shell.exp_string("d/b (2 of 2): option: add/del").unwrap();
    shell.exp_string("nothing there").unwrap();
    shell.send("\x1b[B\r").unwrap();
    shell.flush().unwrap();
    done(shell, 0);
    assert_eq!(sandbox.ok(["tx", "conflicts", "t"]), "");
    assert_eq!(
        sandbox.ok(["tx", "cat", "t", "a", "d/b"]),
        "mine\ntheirs\ntheirs"
    );
}

#[test]
fn a_menu_may_leave_conflicts() {
    let mut sandbox = conflicting();
    sandbox.dk(["tx", "commit", "t"]);
    // What the editor leaves marks in is not settled.
    sandbox.set("EDITOR", "true");
    let mut shell = terminal(&sandbox, ["tx", "resolve", "t"]);
    shell.exp_string("skip ").unwrap();
    shell.send("\x1b[A\x1b[A\r").unwrap();
    shell.flush().unwrap();
    shell
        .exp_string("not settled: marks are left in it")
        .unwrap();
    shell.exp_string("skip ").unwrap();
    shell.send("\r").unwrap();
    shell.flush().unwrap();
    shell.exp_string("2 of 2").unwrap();
    shell.exp_string("skip ").unwrap();
    shell.send("\x1b[A\r").unwrap();
    shell.flush().unwrap();
    shell.exp_string("1 conflict left").unwrap();
    done(shell, 3);
    assert_snapshot!(sandbox.dk(["tx", "conflicts", "t"]), @"d/b	option: add/del");
    assert_eq!(sandbox.ok(["tx", "cat", "t", "a"]), "mine");
}

#[test]
fn merging_into_a_transaction() {
    let sandbox = begun();
    sandbox.ok(["branch", "create", "side", "--from", "master"]);
    let side = sandbox.commit("side", "theirs", &[("a", "2\n"), ("new", "")]);
    sandbox.ok_with("3\n", ["tx", "write", "t", "d/b"]);
    assert_eq!(sandbox.ok(["tx", "merge", "t", "side"]), "");
    assert_eq!(sandbox.ok(["tx", "cat", "t", "a", "d/b"]), "2\n3");
    assert!(sandbox.ok(["tx", "parents", "t"]).contains(&side));
    sandbox.commit("side", "more", &[("d/b", "4\n")]);
    assert_snapshot!(sandbox.dk(["tx", "merge", "t", "side"]), @"
    d/b	Changed on both branches
    ! dk: cannot merge side into t: 1 path in conflict
    ! hint: settle them with 'dk tx resolve t'
    exit status 3
    ");
    assert_snapshot!(sandbox.dk(["tx", "merge", "t", "nope"]), @r#"
    ! dk: branch or commit "nope" does not exist
    exit status 4
    "#);
    // Writing settles.
    sandbox.ok_with("5\n", ["tx", "write", "t", "d/b"]);
    assert_eq!(sandbox.ok(["tx", "conflicts", "t"]), "");
    commit(&sandbox);
}
