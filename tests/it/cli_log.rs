//! `dk log` and `dk show`.

use std::io::{BufRead as _, BufReader};

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

fn store() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "first\n\nwith a body\n", &[("a", "1\n")]);
    sandbox.commit("master", "second", &[("b", "2\n")]);
    sandbox.commit("master", "third", &[("a", "one\n")]);
    sandbox
}

#[test]
fn commits_are_shown_newest_first() {
    let sandbox = store();
    assert_snapshot!(ids(&sandbox.dk(["log", "master"])), @"
    commit ID1
    Author: Ada <ada@example.org>
    Date:   2023-11-14 23:13:20 +0100

        third

    commit ID2
    Author: Ada <ada@example.org>
    Date:   2023-11-14 23:13:20 +0100

        second

    commit ID3
    Author: Ada <ada@example.org>
    Date:   2023-11-14 23:13:20 +0100

        first

        with a body
    ");
}

/// Returns the subjects that `dk log --oneline` shows.
fn subjects(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let shown = sandbox.dk([&["log", "--oneline"], arguments].concat());
    let subject = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_string());
    let lines: Vec<String> = shown.lines().filter_map(subject).collect();
    lines.join(" ")
}

#[test]
fn commits_are_chosen() {
    let sandbox = store();
    assert_eq!(subjects(&sandbox, &["master"]), "third second first");
    assert_eq!(subjects(&sandbox, &[]), "third second first", "HEAD");
    assert_eq!(subjects(&sandbox, &["-n1", "master"]), "third");
    assert_eq!(
        subjects(&sandbox, &["-n2", "--reverse", "master"]),
        "second third"
    );
    assert_eq!(subjects(&sandbox, &["master", "--", "a"]), "third first");
    assert_eq!(
        subjects(&sandbox, &["master", "--", "a", "b"]),
        "third second first"
    );
    assert_eq!(subjects(&sandbox, &["master~2..master"]), "third second");
    assert_eq!(subjects(&sandbox, &["master..master~1"]), "");
    assert_eq!(sandbox.dk(["log", "master", "--", "nope"]), "");
    assert_snapshot!(sandbox.dk(["log", "nope"]), @r#"
    ! dk: branch or commit "nope" does not exist
    exit status 4
    "#);
}

#[test]
fn merges_are_named() {
    let sandbox = store();
    sandbox.sh(
        "git clone -q db.git work && cd work && git checkout -qb side master~2 && echo x > x \
         && git add x && git commit -qm side && git checkout -q master \
         && git merge -q --no-edit side && git push -q origin master side",
    );
    let shown = sandbox.dk(["log", "-n1", "master"]);
    let line = shown.lines().nth(1).unwrap_or_default();
    assert!(
        line.starts_with("Merge:  ") && line.split(' ').count() == 4,
        "{shown}"
    );
    assert_eq!(
        subjects(&sandbox, &["--first-parent", "master"]),
        "Merge branch 'side' third second first"
    );
    assert_snapshot!(sandbox.dk(["diff", "master"]), @"+ x");
}

#[test]
fn patches_are_shown() {
    let sandbox = store();
    assert_snapshot!(ids(&sandbox.dk(["log", "-p", "-n1", "master"])), @"
    commit ID1
    Author: Ada <ada@example.org>
    Date:   2023-11-14 23:13:20 +0100

        third

    diff --git a/a b/a
    index ID2..ID3 100644
    --- a/a
    +++ b/a
    @@ -1 +1 @@
    -1
    +one
    ");
    assert_snapshot!(ids(&sandbox.dk(["log", "--stat", "-n1", "master"])), @"
    commit ID1
    Author: Ada <ada@example.org>
    Date:   2023-11-14 23:13:20 +0100

        third

     a | 2 +-
     1 file changed, 1 insertion(+), 1 deletion(-)
    ");
}

#[test]
fn a_commit_is_shown() {
    let sandbox = store();
    assert_snapshot!(ids(&sandbox.dk(["show", "master~2", "master"])), @"
    commit ID1
    Author: Ada <ada@example.org>
    Date:   2023-11-14 23:13:20 +0100

        first

        with a body

    + a

    commit ID2
    Author: Ada <ada@example.org>
    Date:   2023-11-14 23:13:20 +0100

        third

    * a
    ");
    assert_snapshot!(ids(&sandbox.dk(["show", "--json", "master~1"])), @r#"{"id":"ID1","tree":"ID2","parents":["ID3"],"author":{"name":"Ada","email":"ada@example.org","time":1700000000,"offset":60},"committer":{"name":"Ada","email":"ada@example.org","time":1700000000,"offset":60},"message":"second","changes":[{"path":"b","change":"added","old":null,"new":{"kind":"file","mode":"100644","id":"ID4"}}]}"#);
}

#[test]
fn json_is_one_object_a_commit() {
    let sandbox = store();
    let shown = sandbox.dk(["log", "--json", "-n1", "master"]);
    assert_snapshot!(ids(&shown), @r#"{"id":"ID1","tree":"ID2","parents":["ID3"],"author":{"name":"Ada","email":"ada@example.org","time":1700000000,"offset":60},"committer":{"name":"Ada","email":"ada@example.org","time":1700000000,"offset":60},"message":"third"}"#);
    let shown = sandbox.dk(["log", "--json", "--stat", "-p", "-n1", "master"]);
    let (_, changes) = shown.split_once(r#""changes":"#).unwrap();
    assert_snapshot!(ids(changes), @r#"[{"path":"a","change":"updated","old":{"kind":"file","mode":"100644","id":"ID1"},"new":{"kind":"file","mode":"100644","id":"ID2"},"added":1,"removed":1,"patch":"diff --git a/a b/a\nindex ID1..ID2 100644\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+one\n"}]}"#);
    assert_eq!(sandbox.dk(["log", "--json", "master"]).lines().count(), 3);
}

#[test]
fn a_log_that_follows_goes_on() {
    let sandbox = store();
    let mut log = sandbox
        .command(["log", "-f", "-n2", "--oneline", "master"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(log.stdout.take().unwrap()).lines();
    let mut subject = || {
        let line = lines.next().unwrap().unwrap();
        line.split_once(' ').unwrap().1.to_string()
    };
    assert_eq!((subject(), subject()), ("second".into(), "third".into()));
    sandbox.commit("master", "fourth", &[("c", "")]);
    assert_eq!(subject(), "fourth");
    sandbox.git(["-C", "db.git", "branch", "-f", "master", "master~2"]);
    sandbox.commit("master", "elsewhere", &[("d", "")]);
    assert_eq!(subject(), "elsewhere");
    log.kill().unwrap();
    log.wait().unwrap();
    assert_snapshot!(sandbox.dk(["log", "-f", "master~1"]), @"
    ! dk: cannot follow master~: it is no branch
    ! hint: name a branch: dk log -f master
    exit status 2
    ");
}

#[test]
fn hostile_text_is_raw_in_a_pipe_only() {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "\u{1b}[31mred", &[("a", "")]);
    assert!(sandbox.dk(["log", "master"]).contains("\u{1b}[31mred"));
    let terminal = sandbox.sh("script -qec 'dk log --color=never master' /dev/null");
    assert!(terminal.contains("^[[31mred"), "{terminal:?}");
    assert!(!terminal.contains('\u{1b}'), "{terminal:?}");
}
