//! `dk ls`, `dk tree`, `dk stat` and `dk cat`: reading trees.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

/// A store with one file of each kind.
fn store() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.commit(
        "master",
        "first",
        &[
            ("a", "one\n"),
            ("d/b.json", "{}"),
            ("d/e/c", ""),
            ("é \"x", "quoted"),
        ],
    );
    sandbox.sh(
        "git clone -q db.git work && cd work && printf '#!/bin/sh\\n' > run && chmod +x run \
         && ln -s ../a d/link && git add . && git commit -qm second && git push -q origin master",
    );
    sandbox
}

#[test]
fn names_are_listed() {
    let sandbox = store();
    assert_snapshot!(sandbox.dk(["ls", "master"]), @r#"
    a
    d
    run
    "é \"x"
    "#);
    assert_snapshot!(sandbox.dk(["ls", "master:d/"]), @"
    b.json
    e
    link
    ");
    assert_snapshot!(sandbox.dk(["ls", "-r", "master"]), @r#"
    a
    d/b.json
    d/e/c
    d/link
    run
    "é \"x"
    "#);
    assert_snapshot!(sandbox.dk(["ls", "-r", "master:d"]), @"
    b.json
    e/c
    link
    ");
    assert_snapshot!(sandbox.dk(["ls", "master~1:a"]), @"a");
    assert_snapshot!(sandbox.dk(["ls", "-r", "master:d/e/c"]), @"d/e/c");
    assert_snapshot!(sandbox.dk(["ls", "-z", "master"]).replace('\0', "|"), @r#"a|d|run|é "x|%"#);
}

#[test]
fn long_lists_and_json() {
    let sandbox = store();
    assert_snapshot!(ids(&sandbox.dk(["ls", "-l", "master"])), @r#"
    file              4 ID1	a
    dir               - ID2	d
    exec             10 ID3	run
    file              6 ID4	"é \"x"
    "#);
    assert_snapshot!(ids(&sandbox.dk(["ls", "--json", "-rl", "master:d"])), @r#"
    {"path":"b.json","kind":"file","mode":"100644","id":"ID1","size":2}
    {"path":"e/c","kind":"file","mode":"100644","id":"ID2","size":0}
    {"path":"link","kind":"link","mode":"120000","id":"ID3","size":4}
    "#);
    assert_snapshot!(ids(&sandbox.dk(["ls", "--json", "master:d/link"])), @r#"{"path":"d/link","kind":"link","mode":"120000","id":"ID1","size":4}"#);
}

#[test]
fn what_is_not_there() {
    let sandbox = store();
    for command in ["ls", "tree", "stat", "cat"] {
        assert_eq!(
            sandbox.dk([command, "master:no/such"]),
            "! dk: master:no/such does not exist\nexit status 4\n"
        );
    }
    assert_eq!(
        sandbox.dk(["ls", "-r", "master:nope"]),
        "! dk: master:nope does not exist\nexit status 4\n"
    );
    assert_snapshot!(sandbox.dk(["tree", "master:a"]), @"
    ! dk: a is not a directory
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["ls", "nope"]), @r#"
    ! dk: branch or commit "nope" does not exist
    exit status 4
    "#);
    assert_snapshot!(sandbox.dk(["ls", "master:a/../b"]), @r#"
    ! dk: invalid value 'master:a/../b' for '<REV[:PATH]>': "a/../b" is not a legal path: "." and ".." are not names
    ! 
    ! For more information, try '--help'.
    exit status 2
    "#);
}

#[test]
fn a_tree_is_drawn() {
    let sandbox = store();
    assert_snapshot!(sandbox.dk(["tree", "master"]), @r#"
    master
    ├── a
    ├── d
    │   ├── b.json
    │   ├── e
    │   │   └── c
    │   └── link
    ├── run
    └── "é \"x"
    "#);
    assert_snapshot!(sandbox.dk(["tree", "-L1", "master:d"]), @"
    master:d
    ├── b.json
    ├── e
    └── link
    ");
    assert_snapshot!(ids(&sandbox.dk(["tree", "--json", "master:d/e"])), @r#"{"path":"c","kind":"file","mode":"100644","id":"ID1","size":null}"#);
    assert!(
        sandbox
            .dk(["tree", "-L0", "master"])
            .ends_with("exit status 2\n")
    );
}

#[test]
fn one_path_is_described() {
    let sandbox = store();
    assert_snapshot!(ids(&sandbox.dk(["stat", "master:run", "master:d", "master"])), @"
    exec 100755 10 ID1	run
    dir 040000 3 ID2	d
    dir 040000 4 ID3
    ");
    assert_snapshot!(ids(&sandbox.dk(["stat", "--json", "master:d/link"])), @r#"{"path":"d/link","kind":"link","mode":"120000","id":"ID1","size":4}"#);
}

#[test]
fn files_are_written_as_they_are() {
    let sandbox = store();
    assert_snapshot!(sandbox.dk(["cat", "master:a", "master:d/b.json", "master:d/link"]), @"
    one
    {}../a%
    ");
    assert_snapshot!(sandbox.dk(["cat", "master:d"]), @"
    ! dk: d is a directory
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["cat", "master:nope", "master:a", "master:d"]), @"
    one
    ! dk: master:nope does not exist
    ! dk: d is a directory
    exit status 4
    ");
    assert_snapshot!(ids(&sandbox.dk(["cat", "--json", "master:a"])), @r#"{"commit":"ID1","path":"a","content":"one\n"}"#);
}

#[test]
fn bytes_that_are_not_text_survive() {
    let sandbox = store();
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    sandbox.write("work/bytes", &bytes);
    sandbox.sh("cd work && printf x > $'odd\\xff' && git add . && git commit -qm odd && git push -q origin master");
    let output = sandbox.command(["cat", "master:bytes"]).output().unwrap();
    assert!(output.stdout == bytes, "{} bytes came", output.stdout.len());
    let odd = OsStr::from_bytes(b"master:odd\xff");
    assert_eq!(sandbox.ok([OsStr::new("cat"), odd]), "x");
    assert_snapshot!(ids(&sandbox.dk([OsStr::new("stat"), odd])), @r#"file 100644 1 ID1	"odd\377""#);
    assert_snapshot!(ids(&sandbox.dk([OsStr::new("--json"), OsStr::new("stat"), odd])), @r#"{"path":{"base64":"b2Rk/w=="},"kind":"file","mode":"100644","id":"ID1","size":1}"#);
}

#[test]
fn names_go_through_pipes() {
    let sandbox = store();
    let line = "dk ls -rz master | grep -z '\\.json$' | xargs -0r -I{} dk cat master:{}";
    assert_snapshot!(sandbox.sh(line), @"{}%");
}
