//! `dk put`, `dk rm`, `dk mv` and `dk edit`: one change, one commit.

use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

const ZERO: &str = "0000000000000000000000000000000000000000";

/// What a branch is, seen by stock git.
fn tree(sandbox: &Sandbox, branch: &str) -> String {
    sandbox.git(["-C", "db.git", "ls-tree", "-r", branch])
}

fn subject(sandbox: &Sandbox, branch: &str) -> String {
    sandbox.git(["-C", "db.git", "log", "-1", "--format=%s", branch])
}

fn head(sandbox: &Sandbox, branch: &str) -> String {
    sandbox.git(["-C", "db.git", "rev-parse", branch])
}

#[test]
fn put_writes_one_file_in_one_commit() {
    let sandbox = Sandbox::with_store();
    let first = sandbox.ok_with("one\n", ["put", "master:d/a"]);
    assert_eq!(first, head(&sandbox, "master"), "prints the commit");
    let second = sandbox.ok_with("two\n", ["put", "master:d/a", "-m", "again"]);
    assert_eq!(
        sandbox.git(["-C", "db.git", "log", "--format=%H %an %s%n%B", "master"]),
        format!("{second} Ada again\nagain\n\n{first} Ada put d/a\nput d/a")
    );
    assert_eq!(sandbox.ok(["cat", "master:d/a"]), "two");
    let json = sandbox.ok_with("3", ["put", "--json", "master:b"]);
    assert_eq!(
        json,
        format!(r#"{{"commit":"{}"}}"#, head(&sandbox, "master"))
    );
}

#[test]
fn put_keeps_the_executable_bit() {
    let sandbox = Sandbox::with_store();
    sandbox.write("run", "#!/bin/sh\n");
    sandbox.ok(["put", "master:a", "run"]);
    sandbox.ok(["put", "-x", "master:b", "run"]);
    std::fs::set_permissions(sandbox.join("run"), PermissionsExt::from_mode(0o700)).unwrap();
    sandbox.ok(["put", "master:c", "run"]);
    sandbox.ok_with("echo", ["put", "master:c", "-"]);
    let modes: Vec<String> = tree(&sandbox, "master")
        .lines()
        .map(|line| format!("{} {}", &line[..6], &line[line.len() - 1..]))
        .collect();
    assert_eq!(modes, ["100644 a", "100755 b", "100755 c"]);
}

#[test]
fn put_streams_what_is_large_from_file_and_pipe() {
    let sandbox = Sandbox::with_store();
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n >> 8) as u8).collect();
    sandbox.write("large", &content);
    sandbox.ok(["put", "master:file", "large"]);
    sandbox.ok_with(&content, ["put", "master:pipe"]);
    assert_snapshot!(ids(&sandbox.sh("dk put master:stdin < large")), @"ID1");
    let id = sandbox.git(["hash-object", "large"]);
    for name in ["file", "pipe", "stdin"] {
        assert_eq!(head(&sandbox, &format!("master:{name}")), id, "{name}");
    }
}

#[test]
fn put_takes_what_has_no_length() {
    let sandbox = Sandbox::with_store();
    sandbox.ok(["put", "master:proc", "/proc/self/stat"]);
    sandbox.ok(["put", "master:null", "/dev/null"]);
    assert_snapshot!(ids(&sandbox.sh("dk put master:fifo <(echo from a pipe)")), @"ID1");
    assert_snapshot!(sandbox.sh("dk cat master:fifo master:null; dk cat master:proc | grep -c ' (dk) '"), @"
    from a pipe
    1
    ");
}

#[test]
fn put_with_an_expected_head() {
    let sandbox = Sandbox::with_store();
    let first = sandbox.ok_with("1", ["put", "--expect", "0", "master:a"]);
    assert_snapshot!(ids(&sandbox.dk_with("2", ["put", "--expect", ZERO, "master:a"])), @"
    ! dk: cannot write master:a
    ! caused by: branch master is at ID1, not at no commit
    exit status 5
    ");
    let second = sandbox.ok_with("2", ["put", "--expect", &first, "master:a"]);
    assert_snapshot!(ids(&sandbox.dk_with("3", ["put", "--expect", &first, "master:a"])), @"
    ! dk: cannot write master:a
    ! caused by: branch master is at ID1, not at ID2
    exit status 5
    ");
    assert_eq!(head(&sandbox, "master"), second);
    assert_snapshot!(sandbox.dk_with("3", ["put", "--expect", "abc", "master:a"]), @"
    ! dk: invalid value 'abc' for '--expect <ID>': give a commit id in full, or 0 for a branch without a commit
    ! 
    ! For more information, try '--help'.
    exit status 2
    ");
}

#[test]
fn a_commit_that_changes_nothing() {
    let sandbox = Sandbox::with_store();
    let first = sandbox.ok_with("1", ["put", "master:a"]);
    assert_eq!(
        sandbox.ok_with("1", ["put", "--no-empty", "master:a"]),
        first
    );
    let same = ["put", "--no-empty", "--allow-empty", "master:a"];
    let second = sandbox.ok_with("1", same);
    assert_eq!(head(&sandbox, "master"), second);
    assert_eq!(head(&sandbox, "master^"), first);
}

#[test]
fn put_refuses_what_makes_no_sense() {
    let sandbox = Sandbox::with_store();
    sandbox.write("d/f", "");
    sandbox.ok_with("1", ["put", "master:a/b"]);
    assert_snapshot!(sandbox.dk(["put", "master"]), @"
    ! dk: no path given: which file of master?
    ! hint: write it as BRANCH:PATH
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["put", "master~1:a"]), @r#"
    ! dk: invalid value 'master~1:a' for '<BRANCH:PATH>': "master~1" is not a legal branch name: it holds a blank, a control character or one of ~^:?*[\
    ! 
    ! For more information, try '--help'.
    exit status 2
    "#);
    assert_snapshot!(sandbox.dk(["put", "master:x/../y"]), @r#"
    ! dk: invalid value 'master:x/../y' for '<BRANCH:PATH>': "x/../y" is not a legal path: "." and ".." are not names
    ! 
    ! For more information, try '--help'.
    exit status 2
    "#);
    assert_snapshot!(sandbox.dk(["put", "master:.GIT/config"]), @r#"
    ! dk: invalid value 'master:.GIT/config' for '<BRANCH:PATH>': ".GIT/config" is not a legal path: Git keeps ".git" and its disguises for itself
    ! 
    ! For more information, try '--help'.
    exit status 2
    "#);
    assert_snapshot!(sandbox.dk(["put", "master:x", "d"]), @"
    ! dk: d is a folder
    ! hint: dk import takes folders
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["put", "master:x", "missing"]), @"
    ! dk: cannot read missing
    ! caused by: No such file or directory (os error 2)
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["put", "master:a"]), @"
    ! dk: cannot write master:a
    ! caused by: a is a directory
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["put", "master:a/b/c"]), @"
    ! dk: cannot write master:a/b/c
    ! caused by: a/b is not a directory
    exit status 1
    ");
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "a/b");
}

#[test]
fn a_checked_out_branch_is_not_written() {
    let mut sandbox = Sandbox::new();
    sandbox.git(["init", "-q", "-b", "master", "work"]);
    sandbox.set("DK_STORE", "work");
    sandbox.sh("cd work && echo 1 > a && git add a && git commit -qm first");
    assert_snapshot!(sandbox.dk_with("2", ["put", "master:a"]), @"
    ! dk: cannot write master:a
    ! caused by: branch master is checked out in a work tree
    ! hint: use --force, or set dk.denyCurrentBranch to ignore; then `git reset --hard` there
    exit status 1
    ");
    sandbox.ok_with("2", ["put", "other:a"]);
    sandbox.ok_with("2", ["put", "--force", "master:a"]);
    assert_eq!(
        sandbox.read("work/a"),
        "1\n",
        "the work tree is not touched"
    );
}

#[test]
fn rm_removes_several_paths_in_one_commit() {
    let sandbox = Sandbox::with_store();
    let files = [("a", ""), ("b", ""), ("d/e/f", ""), ("d/g", "")];
    let first = sandbox.commit("master", "first", &files);
    sandbox.ok(["rm", "master:a", "master:d/e"]);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "b\nd/g");
    assert_eq!(subject(&sandbox, "master"), "rm a d/e");
    assert_eq!(head(&sandbox, "master^"), first);
    let second = head(&sandbox, "master");
    assert_snapshot!(sandbox.dk(["rm", "master:b", "master:nope"]), @"
    ! dk: cannot remove from master
    ! caused by: nope does not exist
    exit status 4
    ");
    assert_snapshot!(sandbox.dk(["rm", "master:b", "other:b"]), @"
    ! dk: one commit changes one branch, not both master and other
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["rm", "master:"]), @"
    ! dk: no path given: what of master?
    ! hint: write it as BRANCH:PATH; 'dk branch delete' removes a branch
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["rm", "unborn:b"]), @"
    ! dk: cannot remove from unborn
    ! caused by: b does not exist
    exit status 4
    ");
    assert_eq!(head(&sandbox, "master"), second);
    sandbox.ok(["rm", "master:b", "master:d"]);
    assert_eq!(tree(&sandbox, "master"), "", "the last file may go too");
}

#[test]
fn mv_moves_files_and_folders() {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("a", "1"), ("b", "2"), ("d/c", "3")]);
    sandbox.ok(["mv", "master:a", "n/e/w"]);
    assert_eq!(subject(&sandbox, "master"), "mv a n/e/w");
    sandbox.ok(["mv", "master:b", "d/"]);
    sandbox.ok(["mv", "master:d", "n"]);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "n/d/b\nn/d/c\nn/e/w");
    sandbox.ok(["mv", "master:n/d/b", "n/d/c"]);
    assert_eq!(sandbox.ok(["cat", "master:n/d/c"]), "2");
    assert_snapshot!(sandbox.dk(["mv", "master:nope", "x"]), @"
    ! dk: cannot move master:nope to x
    ! caused by: nope does not exist
    exit status 4
    ");
    assert_snapshot!(sandbox.dk(["mv", "master:n", "n/d/x"]), @"
    ! dk: cannot move master:n to n/d/x
    ! caused by: n cannot go into itself, to n/d/x
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["mv", "master:", "x"]), @"
    ! dk: no path given: what of master?
    ! hint: write it as BRANCH:OLD; 'dk branch rename' renames a branch
    exit status 2
    ");
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "n/d/c\nn/e/w");
}

#[test]
fn edit_commits_what_the_editor_left() {
    let mut sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("d/a.txt", "old text\n")]);
    sandbox.set("EDITOR", "sed -i s/old/new/");
    let commit = sandbox.ok(["edit", "master:d/a.txt"]);
    assert_eq!(commit, head(&sandbox, "master"));
    assert_eq!(subject(&sandbox, "master"), "edit d/a.txt");
    assert_eq!(sandbox.ok(["cat", "master:d/a.txt"]), "new text");
    assert_snapshot!(sandbox.dk(["edit", "master:d/a.txt"]), @"! master:d/a.txt: no change");
    // Named like the file, for the editor's sake; VISUAL goes first.
    sandbox.set("VISUAL", "f() { basename \"$1\" > \"$1\"; }; f");
    sandbox.ok(["edit", "master:new.md", "-m", "mine"]);
    assert_eq!(sandbox.ok(["cat", "master:new.md"]), "new.md");
    assert_eq!(subject(&sandbox, "master"), "mine");
    sandbox.set("VISUAL", "true");
    assert_snapshot!(sandbox.dk(["edit", "master:another"]), @"! master:another: no change");
    assert_eq!(left_over(&sandbox), 0);
}

/// Counts the folders that edit left behind.
fn left_over(sandbox: &Sandbox) -> usize {
    let entries = std::fs::read_dir(sandbox.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("dk-")).count()
}

#[test]
fn edit_never_loses_what_was_typed() {
    let mut sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("a", "1\n"), ("b", "1\n")]);
    // Somebody else changes another file: both stand.
    sandbox.set(
        "EDITOR",
        "f() { echo other | dk put -q master:b >&2; echo mine > \"$1\"; }; f",
    );
    assert_snapshot!(ids(&sandbox.dk(["edit", "master:a"])), @"
    ID1
    ! ID2
    ");
    assert_eq!(sandbox.ok(["cat", "master:a", "master:b"]), "mine\nother");
    // Somebody else changes this one.
    sandbox.set(
        "EDITOR",
        "f() { echo other | dk put -q master:a >&2; echo lost > \"$1\"; }; f",
    );
    let said = sandbox.dk(["edit", "master:a"]);
    let at = said.find("$DIR/dk-edit-").unwrap();
    let kept = said[at + 5..].lines().next().unwrap();
    assert_eq!(sandbox.read(kept), "lost\n");
    assert_snapshot!(ids(&said.replace(kept, "KEPT")), @"
    ! ID1
    ! dk: cannot commit master:a: your text is kept in $DIR/KEPT
    ! caused by: master:a was changed by somebody else meanwhile
    exit status 5
    ");
    assert_eq!(sandbox.ok(["cat", "master:a"]), "other");
}

#[test]
fn edit_refuses_what_cannot_be_edited() {
    let mut sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("d/a", "1\n")]);
    assert_snapshot!(sandbox.dk(["edit", "master:d/a"]), @"
    ! dk: no editor can be started without a terminal
    ! hint: set VISUAL or EDITOR to a command, or use dk put
    exit status 2
    ");
    sandbox.set("EDITOR", "false");
    assert_snapshot!(sandbox.dk(["edit", "master:d/a"]), @"
    ! dk: the editor false failed: exit status: 1
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["edit", "master:d"]), @"
    ! dk: d is a directory
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["edit", "master"]), @"
    ! dk: no path given: which file of master?
    ! hint: write it as BRANCH:PATH
    exit status 2
    ");
    assert_eq!(left_over(&sandbox), 0);
}
