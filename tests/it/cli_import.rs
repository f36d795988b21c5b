//! `dk import` and `dk export`: folders and tar streams, in and out.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

/// A store, and a folder `in` with one of each kind.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.write("in/a", "one\n");
    sandbox.write("in/d/e/f", "");
    sandbox.write("in/run", "#!/bin/sh\n");
    std::fs::set_permissions(sandbox.join("in/run"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("../a", sandbox.join("in/d/link")).unwrap();
    symlink("d", sandbox.join("in/to-folder")).unwrap();
    std::fs::create_dir(sandbox.join("in/empty")).unwrap();
    std::fs::write(sandbox.join("in").join(OsStr::from_bytes(b"\xff")), "raw").unwrap();
    sandbox
}

/// Paths and modes of a branch, seen by stock git.
fn listed(sandbox: &Sandbox, tree: &str) -> String {
    let format = "--format=%(objectmode) %(path)";
    sandbox.git(["-C", "db.git", "ls-tree", "-r", format, tree])
}

#[test]
fn a_folder_goes_in_and_comes_out_the_same() {
    let sandbox = sandbox();
    let commit = sandbox.ok(["import", "master:top", "in"]);
    assert_eq!(sandbox.git(["-C", "db.git", "rev-parse", "master"]), commit);
    assert_snapshot!(listed(&sandbox, "master"), @r#"
    100644 top/a
    100644 top/d/e/f
    120000 top/d/link
    100755 top/run
    120000 top/to-folder
    100644 "top/\377"
    "#);
    assert_snapshot!(sandbox.git(["-C", "db.git", "log", "-1", "--format=%s"]), @"import in");
    assert_snapshot!(sandbox.dk(["export", "master:top", "out/deep"]), @"");
    std::fs::remove_dir(sandbox.join("in/empty")).unwrap();
    assert_snapshot!(sandbox.sh("diff -r --no-dereference in out/deep && find out -perm /111 -type f"), @"out/deep/run");
    // A file alone goes into the folder.
    sandbox.ok(["export", "master:top/a", "single"]);
    assert_eq!(sandbox.read("single/a"), "one\n");
}

#[test]
fn a_tar_stream_goes_in_and_comes_out_the_same() {
    let sandbox = sandbox();
    assert_snapshot!(ids(&sandbox.sh("tar c -C in . | dk import master -")), @"ID1");
    let imported = listed(&sandbox, "master");
    sandbox.ok(["import", "folder", "in"]);
    assert_eq!(imported, listed(&sandbox, "folder"));
    std::fs::create_dir(sandbox.join("out")).unwrap();
    assert_snapshot!(sandbox.sh("dk export master - | tar x -C out && rmdir in/empty && diff -r --no-dereference in out"), @"");
    assert_snapshot!(sandbox.sh("dk export master - | tar tv --utc --full-time --numeric-owner"), @r#"
    -rw-r--r-- 0/0               4 2023-11-14 22:13:20 a
    drwxr-xr-x 0/0               0 2023-11-14 22:13:20 d/
    drwxr-xr-x 0/0               0 2023-11-14 22:13:20 d/e/
    -rw-r--r-- 0/0               0 2023-11-14 22:13:20 d/e/f
    lrwxrwxrwx 0/0               0 2023-11-14 22:13:20 d/link -> ../a
    -rwxr-xr-x 0/0              10 2023-11-14 22:13:20 run
    lrwxrwxrwx 0/0               0 2023-11-14 22:13:20 to-folder -> d
    -rw-r--r-- 0/0               3 2023-11-14 22:13:20 \377
    "#);
    assert_snapshot!(sandbox.sh("dk export master - | dk import again - && dk diff --exit-code master again"), @"36a9845e7212fe46740d4c692216067216e1b994");
}

#[test]
fn every_dialect_of_tar_is_read() {
    let sandbox = Sandbox::with_store();
    let long = format!("in/{}/{}", "d".repeat(120), "f".repeat(120));
    sandbox.write(&long, "long");
    symlink("t".repeat(150), sandbox.join("in/link")).unwrap();
    sandbox.write("in/one", "same\n");
    std::fs::hard_link(sandbox.join("in/one"), sandbox.join("in/two")).unwrap();
    sandbox.ok(["import", "folder", "in"]);
    for format in ["gnu", "pax", "oldgnu"] {
        let line = format!("tar c --format={format} -C in . | dk import {format} - >&2");
        sandbox.sh(&line);
        assert_eq!(
            sandbox.dk(["diff", "--exit-code", "folder", format]),
            "",
            "{format}"
        );
    }
    // Ours is read by tar.
    std::fs::create_dir(sandbox.join("out")).unwrap();
    assert_eq!(
        sandbox.sh("dk export gnu - | tar x -C out && diff -r --no-dereference in out"),
        ""
    );
    // What git makes has a comment for the whole archive.
    let git = "git -C db.git archive --prefix=p/ gnu | dk import git - >&2";
    sandbox.sh(git);
    assert_eq!(
        sandbox.sh("dk ls git && dk ls git:p | tail -2"),
        "p\none\ntwo\n"
    );
}

#[test]
fn what_was_there_is_kept_or_replaced() {
    let sandbox = Sandbox::with_store();
    let files = [("keep", "1"), ("site/a", "old"), ("site/gone", "1")];
    sandbox.commit("master", "first", &files);
    sandbox.write("in/a", "new");
    sandbox.ok(["import", "master:site", "in"]);
    assert_eq!(
        sandbox.ok(["ls", "-r", "master"]),
        "keep\nsite/a\nsite/gone"
    );
    sandbox.ok(["import", "--replace", "master:site", "in"]);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "keep\nsite/a");
    assert_eq!(sandbox.ok(["cat", "master:site/a"]), "new");
    let head = sandbox.ok(["branch", "head", "master"]);
    let same = ["import", "--replace", "--no-empty", "master:site", "in"];
    assert_eq!(sandbox.ok(same), head);
    // In place of a file, at the root, and with nothing.
    sandbox.ok(["import", "--replace", "master:keep", "in"]);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "keep/a\nsite/a");
    std::fs::create_dir(sandbox.join("void")).unwrap();
    sandbox.ok(["import", "--replace", "master:site", "void"]);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "keep/a");
    sandbox.ok(["import", "--replace", "master", "in"]);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "a");
    assert_eq!(sandbox.git(["-C", "db.git", "fsck", "--strict"]), "");
}

#[test]
fn git_folders_are_passed_over_and_their_disguises_refused() {
    let sandbox = Sandbox::with_store();
    sandbox.git(["init", "-q", "in"]);
    sandbox.write("in/sub/.git", "gitdir: elsewhere");
    sandbox.write("in/sub/a", "");
    assert_snapshot!(ids(&sandbox.dk(["import", "master", "in"])), @"
    ID1
    ! skipped in/.git
    ! skipped in/sub/.git
    ");
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "sub/a");
    assert_snapshot!(ids(&sandbox.sh("tar c in | dk import tar -")), @"
    ID1
    ! skipped in/.git
    ! skipped in/sub/.git
    ");
    assert_eq!(sandbox.ok(["ls", "-r", "tar"]), "in/sub/a");
    sandbox.write("in/sub/.Git/config", "");
    assert_snapshot!(sandbox.dk(["import", "master", "in"]), @r#"
    ! skipped in/.git
    ! dk: cannot import in
    ! caused by: cannot import in/sub/.Git: ".Git" is not a legal path: Git keeps ".git" and its disguises for itself
    exit status 1
    "#);
}

#[test]
fn the_store_does_not_swallow_itself() {
    let mut sandbox = Sandbox::with_store();
    sandbox.write("f", "1");
    assert_snapshot!(ids(&sandbox.dk(["import", "master", "."])), @"
    ID1
    ! skipped ./db.git
    ");
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "f");
    // A work tree is no store, although its path may name one.
    sandbox.git(["init", "-q", "work"]);
    sandbox.write("work/g", "2");
    sandbox.set("DK_STORE", "work");
    sandbox.dk(["import", "other", "work"]);
    assert_eq!(sandbox.ok(["ls", "-r", "other"]), "g");
}

#[test]
fn what_a_tree_cannot_hold_is_refused() {
    let sandbox = sandbox();
    assert_snapshot!(sandbox.sh("mkfifo in/pipe && dk import master in"), @"
    ! dk: cannot import in
    ! caused by: cannot import in/pipe: it is a named pipe, not a file, folder or symbolic link
    exit status 1
    ");
    assert_snapshot!(sandbox.sh("tar c in | dk import master -"), @"
    ! dk: cannot import a tar stream
    ! caused by: cannot import in/pipe: it is a named pipe
    exit status 1
    ");
    sandbox.sh("rm in/pipe");
    assert_snapshot!(sandbox.dk(["import", "master", "in/a"]), @"
    ! dk: in/a is not a folder
    ! hint: a tar archive is read from standard input: -
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["import", "master", "nowhere"]), @"
    ! dk: cannot read nowhere
    ! caused by: No such file or directory (os error 2)
    exit status 1
    ");
    assert_snapshot!(sandbox.sh("tar cz in | dk import master -"), @"
    ! dk: cannot import a tar stream
    ! caused by: the archive is compressed: pass it through gzip -d first
    exit status 1
    ");
    assert_snapshot!(sandbox.sh("tar cP --transform 's,^in,../up,' in/a | dk import master -"), @r#"
    ! dk: cannot import a tar stream
    ! caused by: cannot import ../up/a: ".." is not a legal path: "." and ".." are not names
    exit status 1
    "#);
    assert_snapshot!(sandbox.sh("truncate -s 1M in/holes && tar cS in/holes | dk import master -"), @"
    ! dk: cannot import a tar stream
    ! caused by: cannot import in/holes: it is a sparse entry
    exit status 1
    ");
    let said = sandbox.sh("tar c --format=pax -S in/holes | dk import master -");
    assert!(said.contains("/holes: it is a sparse entry"), "{said}");
    assert_eq!(sandbox.ok(["branch"]), "", "nothing was born");
}

#[test]
fn a_truncated_archive_changes_nothing() {
    let sandbox = Sandbox::with_store();
    sandbox.write("in/large", vec![7; 300_000]);
    sandbox.write("in/small", "1");
    sandbox.sh("tar c in > whole.tar");
    let before = sandbox.ok_with("1", ["put", "master:kept"]);
    let whole = std::fs::read(sandbox.join("whole.tar")).unwrap();
    let end = whole.iter().rposition(|b| *b != 0).unwrap();
    let padded = end.next_multiple_of(512);
    for length in [
        0,
        100,
        512,
        700,
        100_000,
        padded - 512,
        padded - 100,
        padded,
    ] {
        sandbox.write("cut.tar", &whole[..length]);
        let said = sandbox.sh("dk import master - < cut.tar");
        assert!(
            said.contains("! dk: cannot import a tar stream"),
            "{length}: {said}"
        );
        assert!(said.ends_with("exit status 1\n"), "{length}: {said}");
        assert_eq!(sandbox.ok(["branch", "head", "master"]), before, "{length}");
    }
    assert_snapshot!(sandbox.sh("head -c 100000 whole.tar | dk import master -"), @"
    ! dk: cannot import a tar stream
    ! caused by: cannot read the content of in/large
    ! caused by: the archive is truncated in in/large
    exit status 1
    ");
    sandbox.write("cut.tar", &whole[..padded]);
    assert_snapshot!(sandbox.sh("dk import master - < cut.tar"), @"
    ! dk: cannot import a tar stream
    ! caused by: the archive is truncated: it has no end-of-archive block
    exit status 1
    ");
    // One block of zeros is an end.
    sandbox.write("cut.tar", &whole[..padded + 512]);
    assert_snapshot!(ids(&sandbox.sh("dk import master - < cut.tar")), @"ID1");
}

#[test]
fn an_interrupt_leaves_nothing() {
    let sandbox = Sandbox::with_store();
    sandbox.write("in/large", vec![7; 3_000_000]);
    sandbox.sh("tar c in > whole.tar");
    let whole = std::fs::read(sandbox.join("whole.tar")).unwrap();
    let mut child = sandbox.spawn(["import", "master", "-"]);
    // More than a pipe holds: what is left is waited for.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&whole[..2_000_000]).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(sandbox.shown(&output), "ended by signal 2\n");
    assert_eq!(sandbox.ok(["branch"]), "");
    let left = "find db.git -newer whole.tar -name '*tmp*' -o -name '*.lock' | grep -v /hooks/";
    assert_eq!(sandbox.sh(left), "exit status 1\n");
}

#[test]
fn hard_links_are_copies_of_what_they_link_to() {
    let sandbox = Sandbox::with_store();
    sandbox.write("in/a/one", "same\n");
    std::fs::set_permissions(sandbox.join("in/a/one"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::hard_link(sandbox.join("in/a/one"), sandbox.join("in/two")).unwrap();
    sandbox.sh("tar c -C in a/one two | dk import master:at -");
    assert_snapshot!(listed(&sandbox, "master"), @"
    100755 at/a/one
    100755 at/two
    ");
    // The other file is in no archive.
    assert_snapshot!(sandbox.sh("tar c -C in a/one two | tar --delete a/one | dk import master:new -"), @"
    ! dk: cannot import a tar stream
    ! caused by: new/a/one does not exist
    exit status 4
    ");
}

#[test]
fn existing_files_are_not_overwritten() {
    let sandbox = sandbox();
    sandbox.ok(["import", "master", "in"]);
    sandbox.write("out/a", "mine");
    sandbox.write("out/other", "mine");
    assert_snapshot!(sandbox.dk(["export", "master", "out"]), @"
    ! dk: out/a exists already
    ! hint: --force replaces files
    exit status 1
    ");
    assert_eq!(sandbox.read("out/a"), "mine");
    sandbox.ok(["export", "--force", "master", "out"]);
    assert_eq!(sandbox.read("out/a"), "one\n");
    assert_eq!(sandbox.read("out/other"), "mine");
}

#[test]
fn nothing_is_written_through_a_link() {
    let sandbox = sandbox();
    sandbox.ok(["import", "master", "in"]);
    for folder in ["outside", "out", "file"] {
        std::fs::create_dir(sandbox.join(folder)).unwrap();
    }
    symlink("../outside", sandbox.join("out/d")).unwrap();
    assert_snapshot!(sandbox.dk(["export", "--force", "master", "out"]), @"
    ! dk: cannot export master
    ! caused by: out/d is in the way: it is not a folder
    exit status 1
    ");
    assert_eq!(
        std::fs::read_dir(sandbox.join("outside")).unwrap().count(),
        0
    );
    // A file in place of the link is replaced, not what it points to.
    sandbox.write("secret", "kept");
    symlink("../secret", sandbox.join("file/a")).unwrap();
    sandbox.ok(["export", "--force", "master", "file"]);
    assert_eq!(sandbox.read("secret"), "kept");
    assert_eq!(sandbox.read("file/a"), "one\n");
}

#[test]
fn a_hostile_tree_stays_inside() {
    let sandbox = Sandbox::with_store();
    for (name, tree) in [("dots", ".."), ("git", ".git")] {
        let line = format!(
            "cd db.git && blob=$(echo evil | git hash-object -w --stdin) && \
             sub=$(printf '100644 blob %s\\tx\\n' $blob | git mktree) && \
             tree=$(printf '040000 tree %s\\t{tree}\\n' $sub | git mktree) && \
             git update-ref refs/heads/{name} $(git commit-tree -m evil $tree)"
        );
        assert_eq!(sandbox.sh(&line), "");
    }
    assert_snapshot!(sandbox.dk(["export", "dots", "out"]), @r#"
    ! dk: cannot export dots
    ! caused by: "../x" is not a legal path: "." and ".." are not names
    exit status 1
    "#);
    assert_snapshot!(sandbox.dk(["export", "git", "out"]), @r#"
    ! dk: cannot export git
    ! caused by: ".git/x" is not a legal path: Git keeps ".git" and its disguises for itself
    exit status 1
    "#);
    assert_snapshot!(sandbox.dk(["export", "dots", "-"]), @r#"
    ! dk: cannot export dots
    ! caused by: "../x" is not a legal path: "." and ".." are not names
    exit status 1
    "#);
    assert!(!sandbox.join("x").exists());
}

#[test]
fn export_of_odd_things() {
    let sandbox = sandbox();
    sandbox.ok(["import", "master", "in"]);
    assert_snapshot!(sandbox.dk(["export", "master:nope", "out"]), @"
    ! dk: master:nope does not exist
    exit status 4
    ");
    assert_snapshot!(sandbox.dk(["export", "nope", "out"]), @r#"
    ! dk: branch or commit "nope" does not exist
    exit status 4
    "#);
    assert!(!sandbox.join("out").exists());
    let line = "cd db.git && tree=$(printf '160000 commit %s\\tsub\\n' $(git rev-parse master) | git mktree) \
                && git update-ref refs/heads/super $(git commit-tree -m s $tree)";
    assert_eq!(sandbox.sh(line), "");
    assert_snapshot!(sandbox.dk(["export", "super", "out"]), @"! sub is a submodule: left empty");
    assert!(sandbox.join("out/sub").is_dir());
    assert_snapshot!(sandbox.sh("dk export super - | tar t"), @"
    sub/
    ! sub is a submodule: left empty
    ");
    // A reader that has enough is no failure.
    sandbox.write("big/f", vec![1; 3_000_000]);
    sandbox.ok(["import", "big", "big"]);
    assert_snapshot!(sandbox.sh("dk export big - | head -c 1000 | wc -c"), @"1000");
}
