//! `dk tx`: transactions that outlive a process.

use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

/// A store with a file in `master`, and a transaction on it named `t`.
pub fn begun() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("a", "1\n"), ("d/b", "2\n")]);
    assert_eq!(sandbox.ok(["tx", "begin", "master", "--name", "t"]), "t");
    sandbox
}

pub fn commit(sandbox: &Sandbox) -> String {
    sandbox.ok(["tx", "commit", "t"])
}

#[test]
fn edits_in_many_processes_are_one_commit() {
    let sandbox = Sandbox::with_store();
    let first = sandbox.commit("master", "first", &[("a", "1\n"), ("d/b", "2\n")]);
    let tx = sandbox.ok(["tx", "begin", "master"]);
    let prefix = &tx[..5];
    sandbox.ok_with("new\n", ["tx", "write", &tx, "n/e/w"]);
    sandbox.ok_with("more\n", ["tx", "append", prefix, "a"]);
    sandbox.ok(["tx", "link", &tx, "link", "../any where"]);
    sandbox.ok(["tx", "mkdir", &tx, "empty", "x/y"]);
    sandbox.ok(["tx", "mv", &tx, "d/b", "x/y"]);
    assert_eq!(
        sandbox.ok(["ls", "-r", "master"]),
        "a\nd/b",
        "the branch sees nothing"
    );
    assert_snapshot!(sandbox.dk(["tx", "ls", "-r", &tx]), @"
    a
    link
    n/e/w
    x/y/b
    ");
    assert_snapshot!(sandbox.dk(["tx", "ls", &tx]), @"
    a
    d
    empty
    link
    n
    x
    ");
    assert_snapshot!(sandbox.dk(["tx", "cat", &tx, "a", "n/e/w"]), @"
    1
    more
    new
    ");
    assert_snapshot!(sandbox.dk(["tx", "diff", &tx]), @"
    * a
    - d/b
    + link
    + n/e/w
    + x/y/b
    ");
    assert_snapshot!(sandbox.dk(["tx", "diff", "--patch", &tx, "master", "--", "a"]), @"
    diff --git a/a b/a
    index d00491fd7e5bb6fa28c517a0bb32b8b506539d4d..e5c2e0a544d5234441dd03b2ff585da7295bc385 100644
    --- a/a
    +++ b/a
    @@ -1 +1,2 @@
     1
    +more
    ");
    let head = sandbox.ok(["tx", "commit", prefix, "-m", "all of it"]);
    assert_eq!(sandbox.ok(["branch", "head", "master"]), head);
    assert_snapshot!(sandbox.git(["-C", "db.git", "log", "-1", "--format=%an %s", "master"]), @"Ada all of it");
    assert_eq!(sandbox.git(["-C", "db.git", "rev-parse", "master^"]), first);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "a\nlink\nn/e/w\nx/y/b");
    assert_eq!(
        sandbox.ok(["tx", "commit", &tx]),
        head,
        "asked again: the same answer"
    );
    assert_eq!(sandbox.ok(["tx", "open"]), "");
    assert_eq!(
        sandbox.git(["-C", "db.git", "fsck", "--strict", "--no-dangling"]),
        ""
    );
}

#[test]
fn git_shows_an_open_transaction_as_a_commit() {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("a", "1\n"), ("d/b", "2\n")]);
    let objects = || {
        let count = sandbox.git(["-C", "db.git", "count-objects"]);
        let number = count.split(' ').next().expect("a number");
        number.parse::<usize>().expect("a number")
    };
    let before = objects();
    let tx = sandbox.ok(["tx", "begin", "master"]);
    assert_eq!(objects() - before, 1, "no more than its commit");
    sandbox.ok_with("3\n", ["tx", "write", &tx, "d/b"]);
    assert_eq!(objects() - before, 5, "blob, two trees, its commit");
    let name = format!("refs/dk/tx/{tx}");
    let shown = sandbox.git([
        "-C",
        "db.git",
        "show",
        "--format=%an %s",
        "--name-status",
        &name,
    ]);
    assert_eq!(
        shown,
        format!("Ada dk transaction {tx} on master\n\nM\td/b")
    );
    sandbox.ok(["tx", "commit", &tx, "-m", "m"]);
    let fsck = ["-C", "db.git", "fsck", "--strict", "--no-dangling"];
    assert_eq!(sandbox.git(fsck), "");
}

#[test]
fn modes() {
    let sandbox = begun();
    sandbox.write("run", "");
    std::fs::set_permissions(sandbox.join("run"), PermissionsExt::from_mode(0o755)).unwrap();
    sandbox.ok(["tx", "write", "t", "run", "run"]);
    sandbox.ok_with("", ["tx", "write", "-x", "t", "x"]);
    sandbox.ok(["tx", "chmod", "t", "+x", "a", "d/b"]);
    sandbox.ok(["tx", "chmod", "t", "-x", "d/b"]);
    sandbox.ok(["tx", "chmod", "t", "755", "d/b"]);
    sandbox.ok(["tx", "chmod", "t", "644", "run"]);
    let listed = sandbox.ok(["tx", "ls", "-rl", "t"]);
    let kinds: Vec<String> = listed
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {}", words[3], words[0])
        })
        .collect();
    assert_eq!(kinds, ["a exec", "d/b exec", "run file", "x exec"]);
    assert_snapshot!(sandbox.dk(["tx", "chmod", "t", "u+x", "a"]), @"
    ! dk: invalid value 'u+x' for '<MODE>'
    !   [possible values: +x, -x]
    ! 
    ! For more information, try '--help'.
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["tx", "chmod", "t", "+x", "d"]), @"
    ! dk: cannot change the mode
    ! caused by: d is a directory
    exit status 1
    ");
}

#[test]
fn import_into_a_transaction() {
    let sandbox = begun();
    sandbox.write("in/f", "1");
    sandbox.ok(["tx", "import", "t", "--at", "d", "in"]);
    assert_eq!(sandbox.ok(["tx", "ls", "-r", "t"]), "a\nd/b\nd/f");
    sandbox.ok(["tx", "import", "--replace", "t", "--at", "d", "in"]);
    assert_eq!(sandbox.ok(["tx", "ls", "-r", "t"]), "a\nd/f");
    assert_eq!(sandbox.sh("tar c in | dk tx import t -"), "");
    assert_eq!(sandbox.ok(["tx", "ls", "-r", "t"]), "a\nd/f\nin/f");
}

#[test]
fn many_edits_at_once() {
    let sandbox = begun();
    let lines = r#"{"op":"write","path":"w","text":"text\n"}

{"op":"write","path":"x","base64":"//8=","exec":true}
{"op":"append","path":"a","text":"2\n"}
{"op":"link","path":"l","target":"a"}
{"op":"mkdir","path":"e"}
{"op":"rm","path":"d"}
{"op":"mv","from":"w","to":"e/w"}
{"op":"chmod","path":"a","exec":true}
{"op":"write","path":{"base64":"/w=="},"text":""}
"#;
    assert_eq!(sandbox.ok_with(lines, ["tx", "apply", "t", "-"]), "");
    assert_snapshot!(sandbox.dk(["tx", "ls", "-rl", "t"]), @r#"
    exec              4 1191247b6d9a206f6ba3d8ac79e26d041dd86941	a
    file              5 8e27be7d6154a1f68ea9160ef0e18691d20560dc	e/w
    link              1 2e65efe2a145dda7ee51d1741299f848e5bf752e	l
    exec              2 f96c401f328b287e77766268a89532a98d847663	x
    file              0 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391	"\377"
    "#);
    assert_snapshot!(sandbox.dk(["tx", "cat", "t", "a", "e/w"]), @"
    1
    2
    text
    ");
    // All or nothing, and the line is named.
    let bad = "{\"op\":\"rm\",\"path\":\"a\"}\n\n{\"op\":\"rm\",\"path\":\"nope\"}\n{\"op\":\"rm\",\"path\":\"x\"}\n";
    assert_snapshot!(sandbox.dk_with(bad, ["tx", "apply", "t"]), @"
    ! dk: line 3: nothing was changed
    ! caused by: nope does not exist
    exit status 4
    ");
    let bad = "{\"op\":\"rm\",\"path\":\"a\"}\n{\"op\":\"write\",\"path\":\"a\"}\n";
    assert_snapshot!(sandbox.dk_with(bad, ["tx", "apply", "t"]), @r#"
    ! dk: line 2: nothing was changed
    ! caused by: either "text" or "base64" is needed
    exit status 2
    "#);
    let bad = "{\"op\":\"rm\",\"path\":\"../a\"}\n";
    assert_snapshot!(sandbox.dk_with(bad, ["tx", "apply", "t"]), @r#"
    ! dk: line 1: nothing was changed
    ! caused by: "../a" is not a legal path: "." and ".." are not names
    exit status 2
    "#);
    assert_snapshot!(sandbox.dk_with("not json", ["tx", "apply", "t"]), @"
    ! dk: line 1: nothing was changed
    ! caused by: expected ident at column 2
    exit status 2
    ");
    assert_eq!(sandbox.ok(["tx", "cat", "t", "a"]), "1\n2");
}

#[test]
fn status_tells_what_matters() {
    let sandbox = begun();
    let shown = |text: &str| {
        let ago = |line: &str| match line.find(" (") {
            Some(at) if line.ends_with(" ago)") => line[..at].to_string() + " (AGE)",
            _ => line.to_string(),
        };
        ids(text)
            .lines()
            .map(|line| ago(line) + "\n")
            .collect::<String>()
    };
    sandbox.ok_with("x", ["tx", "write", "t", "x"]);
    sandbox.ok(["tx", "message", "t", "subject\n\nbody"]);
    let status = sandbox.dk(["tx", "status", "t"]);
    let still = |text: &str| {
        // The edit is made now.
        let lines = text.lines().filter(|line| !line.contains("(AGE)"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_snapshot!(still(&shown(&status)), @"
    id        t
    branch    master
    state     open
    base      ID1
    head      ID1
    moved     no
    author    Ada <ada@example.org>
    edits     1
    conflicts 0
    message   subject
    ");
    sandbox.commit("master", "meanwhile", &[("y", "")]);
    let json = sandbox.ok(["tx", "status", "--json", "t"]);
    let line = format!(
        "jq -c '[.id, .branch, .state, .moved, .edits, .message, .conflicts, .author.name, (.head != .base)]' <<< '{json}'"
    );
    assert_snapshot!(sandbox.sh(&line), @r#"["t","master","open",true,1,"subject\n\nbody\n",[],"Ada",true]"#);
    let open = sandbox.dk(["tx", "open"]);
    assert_snapshot!(open.split('\t').enumerate().filter(|(n, _)| *n != 2).map(|(_, word)| word).collect::<Vec<_>>().join("|"), @"t|master|1 edit|0 conflicts|Ada <ada@example.org>");
    assert_eq!(sandbox.ok(["tx", "open", "other"]), "");
    let begun = sandbox.ok(["tx", "open", "--json", "master"]);
    assert!(
        begun.starts_with(r#"{"id":"t","branch":"master","state":"open","#),
        "{begun}"
    );
}

#[test]
fn the_head_that_moved_is_merged_with() {
    let sandbox = begun();
    sandbox.ok_with("x", ["tx", "write", "t", "x"]);
    let other = sandbox.commit("master", "meanwhile", &[("y", "")]);
    assert_snapshot!(ids(&sandbox.dk(["tx", "commit", "t", "--ff-only"])), @"
    ! dk: cannot commit t to master
    ! caused by: branch master cannot move to ID1: not a fast-forward from ID2
    exit status 5
    ");
    assert_snapshot!(ids(&sandbox.dk(["tx", "commit", "t", "--expect", "0"])), @"
    ! dk: cannot commit t to master
    ! caused by: branch master is at ID1, not at no commit
    exit status 5
    ");
    sandbox.ok(["tx", "commit", "t", "--expect", &other, "-m", "mine"]);
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "a\nd/b\nx\ny");
    assert_eq!(
        sandbox.git(["-C", "db.git", "rev-parse", "master^1"]),
        other
    );
    assert_eq!(
        sandbox.git(["-C", "db.git", "log", "-1", "--format=%s", "master^2"]),
        "mine"
    );
}

#[test]
fn message_and_parents() {
    let sandbox = begun();
    let first = sandbox.ok(["branch", "head", "master"]);
    assert_eq!(sandbox.ok(["tx", "message", "t"]), "");
    sandbox.ok_with("from\nstdin", ["tx", "message", "t", "-"]);
    assert_snapshot!(sandbox.dk(["tx", "message", "t"]), @"
    from
    stdin%
    ");
    assert_snapshot!(sandbox.dk(["tx", "message", "--json", "t"]), @r#"{"message":"from\nstdin"}"#);
    assert_eq!(sandbox.ok(["tx", "parents", "t"]), first);
    let other = sandbox.commit("other", "o", &[("o", "")]);
    sandbox.ok(["tx", "parents", "t", "master", "other"]);
    assert_eq!(
        sandbox.ok(["tx", "parents", "t"]),
        format!("{first}\n{other}")
    );
    assert_snapshot!(sandbox.dk(["tx", "parents", "t", "nope"]), @r#"
    ! dk: branch or commit "nope" does not exist
    exit status 4
    "#);
    commit(&sandbox);
    assert_eq!(
        sandbox.git(["-C", "db.git", "rev-parse", "master^2"]),
        other
    );
    assert_eq!(
        sandbox.git(["-C", "db.git", "log", "-1", "--format=%B", "master"]),
        "from\nstdin"
    );
    sandbox.ok([
        "tx", "begin", "unborn", "--name", "orphan", "--from", "master",
    ]);
    sandbox.ok(["tx", "parents", "--none", "orphan"]);
    let head = sandbox.ok(["tx", "commit", "orphan"]);
    assert_eq!(sandbox.git(["-C", "db.git", "rev-list", &head]), head);
}

#[test]
fn commit_and_keep_on() {
    let sandbox = begun();
    sandbox.ok_with("x", ["tx", "write", "t", "x"]);
    let first = sandbox.ok(["tx", "commit", "t", "--keep"]);
    sandbox.ok_with("y", ["tx", "write", "t", "y"]);
    let second = sandbox.ok(["tx", "commit", "t", "--keep"]);
    assert_eq!(sandbox.git(["-C", "db.git", "rev-parse", "master^"]), first);
    assert_eq!(sandbox.ok(["tx", "commit", "t", "--no-empty"]), second);
    assert_eq!(sandbox.ok(["tx", "open"]), "");
}

#[test]
fn abort_throws_away() {
    let sandbox = begun();
    sandbox.ok_with("x", ["tx", "write", "t", "x"]);
    sandbox.ok(["tx", "begin", "master", "--name", "u"]);
    assert_snapshot!(sandbox.dk(["tx", "abort", "t", "nope"]), @r#"
    ! dk: transaction "nope" does not exist
    exit status 4
    "#);
    assert_eq!(sandbox.ok(["tx", "open"]).lines().count(), 2);
    sandbox.ok(["tx", "abort", "t", "u", "t"]);
    assert_eq!(sandbox.ok(["tx", "open"]), "");
    assert_eq!(sandbox.ok(["ls", "-r", "master"]), "a\nd/b");
}

#[test]
fn what_makes_no_sense() {
    let sandbox = begun();
    sandbox.ok(["tx", "begin", "master", "--name", "tu"]);
    sandbox.ok(["tx", "begin", "master", "--name", "tuv"]);
    assert_snapshot!(sandbox.dk(["tx", "begin", "master", "--name", "t"]), @"
    ! dk: cannot begin a transaction on master
    ! caused by: transaction t exists already
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["tx", "begin", "master", "--name", "a/b"]), @r#"
    ! dk: "a/b" cannot be the id of a transaction
    exit status 2
    "#);
    assert_snapshot!(sandbox.dk(["tx", "begin", "master", "--from", "nope"]), @r#"
    ! dk: branch or commit "nope" does not exist
    exit status 4
    "#);
    assert_snapshot!(sandbox.dk(["tx", "status", "nope"]), @r#"
    ! dk: transaction "nope" does not exist
    exit status 4
    "#);
    sandbox.ok(["tx", "status", "tu"]);
    sandbox.ok(["tx", "begin", "master", "--name", "xy1"]);
    sandbox.ok(["tx", "begin", "master", "--name", "xy2"]);
    assert_snapshot!(sandbox.dk(["tx", "status", "xy"]), @"
    ! dk: xy may be any of xy1, xy2
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["tx", "write", "t", ""]), @"
    ! dk: the path is empty
    exit status 2
    ");
    assert_snapshot!(sandbox.dk(["tx", "write", "t", "a/x"]), @"
    ! dk: cannot write a/x
    ! caused by: a is not a directory
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["tx", "write", "t", "d"]), @"
    ! dk: cannot write d
    ! caused by: d is a directory
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["tx", "rm", "t", "a", "nope"]), @"
    ! dk: cannot remove
    ! caused by: nope does not exist
    exit status 4
    ");
    assert_snapshot!(sandbox.dk(["tx", "mv", "t", "nope", "b"]), @"
    ! dk: cannot move nope to b
    ! caused by: nope does not exist
    exit status 4
    ");
    assert_snapshot!(sandbox.dk(["tx", "cat", "t", "nope"]), @"
    ! dk: nope does not exist
    exit status 4
    ");
    assert_snapshot!(sandbox.dk(["tx", "ls", "t", "nope"]), @"
    ! dk: nope does not exist
    exit status 4
    ");
    assert_snapshot!(sandbox.dk(["tx", "mkdir", "t", "a"]), @"
    ! dk: cannot make a folder
    ! caused by: a exists already
    exit status 1
    ");
    assert_eq!(sandbox.ok(["tx", "ls", "-r", "t"]), "a\nd/b");
    commit(&sandbox);
    assert_snapshot!(ids(&sandbox.dk(["tx", "rm", "t", "a"])), @"
    ! dk: cannot remove
    ! caused by: transaction t is committed already, as ID1
    exit status 2
    ");
}

#[test]
fn old_transactions_are_collected() {
    let sandbox = begun();
    assert_eq!(sandbox.ok(["tx", "gc", "--older-than", "1h"]), "");
    assert_eq!(
        sandbox.ok(["tx", "gc", "--older-than", "0s", "--dry-run"]),
        "t"
    );
    assert_eq!(sandbox.ok(["tx", "open"]).lines().count(), 1);
    assert_eq!(sandbox.ok(["tx", "gc", "--older-than", "0s"]), "t");
    assert_eq!(sandbox.ok(["tx", "open"]), "");
    for bad in [
        "",
        "7",
        "d",
        "-1d",
        "1y",
        "99999999999999999999d",
        "9999999999999999w",
    ] {
        let said = sandbox.dk(["tx", "gc", &format!("--older-than={bad}")]);
        assert!(said.ends_with("exit status 2\n"), "{bad}: {said}");
    }
}
