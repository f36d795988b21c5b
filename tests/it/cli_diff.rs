//! `dk diff`.

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, ids};

fn store() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.commit(
        "one",
        "first",
        &[("a", "1\n2\n3\n"), ("d/b", "b\n"), ("gone", "x\n")],
    );
    sandbox.sh(
        "git clone -q -b one db.git work && cd work && git checkout -qb two \
         && sed -i 's/2/two/' a && echo new > 'new file' && git rm -q gone && printf 'a\\0b' > bin \
         && chmod +x d/b && git add . && git commit -qm second && git push -q origin two",
    );
    sandbox
}

#[test]
fn changed_paths_are_listed() {
    let sandbox = store();
    assert_snapshot!(sandbox.dk(["diff", "one", "two"]), @"
    * a
    + bin
    * d/b
    - gone
    + new file
    ");
    assert_eq!(
        sandbox.dk(["diff", "two"]),
        sandbox.dk(["diff", "one", "two"])
    );
    assert_snapshot!(sandbox.dk(["diff", "one"]), @"
    + a
    + d/b
    + gone
    ");
    assert_snapshot!(sandbox.dk(["diff", "one", "two", "--", "d", "a", "d/b"]), @"
    * a
    * d/b
    ");
    assert_eq!(sandbox.dk(["diff", "one", "two", "--", "nope"]), "");
    assert_snapshot!(sandbox.dk(["diff", "-z", "one", "two", "--", "gone", "new file"]).replace('\0', "|"), @"- gone|+ new file|%");
    assert_snapshot!(ids(&sandbox.dk(["diff", "--json", "one", "two", "--", "gone"])), @r#"{"path":"gone","change":"removed","old":{"kind":"file","mode":"100644","id":"ID1"},"new":null}"#);
}

#[test]
fn patches_are_gits() {
    let sandbox = store();
    let ours = sandbox.dk(["diff", "--patch", "one", "two"]);
    let theirs = sandbox.git(["-C", "db.git", "diff", "--full-index", "one", "two"]);
    assert_eq!(ours, theirs + "\n");
    let applied = sandbox.sh(
        "cd work && git checkout -q one && dk -C ../db.git diff -p one two -- a gone 'new file' d \
         | git apply --index && git diff --cached two --stat",
    );
    assert_snapshot!(applied, @"
     bin | Bin 3 -> 0 bytes
     1 file changed, 0 insertions(+), 0 deletions(-)
    ");
}

#[test]
fn larger_texts_differ_as_git_says() {
    let sandbox = Sandbox::with_store();
    let line = |n: usize| {
        format!(
            "{}fn line_{}() {{}}\n",
            " ".repeat(n % 3 * 4),
            n * 7919 % 1000
        )
    };
    let old: String = (0..400).map(line).collect();
    let changed = |n: usize| match n % 37 {
        3 => String::new(),
        9 => line(n) + "    inserted\n",
        20 => format!("changed {n}\n"),
        _ => line(n),
    };
    let new: String = (0..400).map(changed).collect();
    sandbox.commit("master", "old", &[("f", old.trim_end())]);
    sandbox.commit("master", "new", &[("f", &new)]);
    let ours = sandbox.dk(["diff", "-p", "master"]);
    let theirs = sandbox.git(["-C", "db.git", "diff", "--full-index", "master~", "master"]);
    assert_eq!(ours, theirs + "\n");
    let ours = sandbox.dk(["diff", "--stat", "master"]);
    let theirs = sandbox.git(["-C", "db.git", "diff", "--stat", "master~", "master"]);
    assert_eq!(ours, theirs + "\n");
}

#[test]
fn counts_are_shown() {
    let sandbox = store();
    assert_snapshot!(sandbox.dk(["diff", "--stat", "one", "two"]), @"
     a        |   2 +-
     bin      | Bin
     d/b      |   0
     gone     |   1 -
     new file |   1 +
     5 files changed, 2 insertions(+), 2 deletions(-)
    ");
    assert_snapshot!(ids(&sandbox.dk(["diff", "--stat", "--json", "one", "two", "--", "bin", "a"])), @r#"
    {"path":"a","change":"updated","old":{"kind":"file","mode":"100644","id":"ID1"},"new":{"kind":"file","mode":"100644","id":"ID2"},"added":1,"removed":1}
    {"path":"bin","change":"added","old":null,"new":{"kind":"file","mode":"100644","id":"ID3"},"added":null,"removed":null}
    "#);
    assert_eq!(sandbox.dk(["diff", "--stat", "one", "one"]), "");
}

#[test]
fn tables_are_gits() {
    let sandbox = Sandbox::with_store();
    let lines = |count: usize| "x\n".repeat(count);
    let long = format!("a/long/{}name/of a file", "folder/".repeat(12));
    sandbox.commit(
        "master",
        "old",
        &[("few", "1\n2\n"), (&long, &lines(700)), ("gone", "x\n")],
    );
    sandbox.commit(
        "master",
        "new",
        &[
            ("few", "1\ntwo\n"),
            (&long, &lines(3)),
            ("many", &lines(4000)),
            ("gone", ""),
        ],
    );
    let ours = sandbox.dk(["diff", "--stat", "master"]);
    let theirs = sandbox.git(["-C", "db.git", "diff", "--stat", "master~", "master"]);
    assert_eq!(ours, theirs + "\n");
}

#[test]
fn the_exit_code_tells() {
    let sandbox = store();
    assert_eq!(sandbox.dk(["diff", "--exit-code", "one", "one"]), "");
    assert_snapshot!(sandbox.dk(["diff", "--exit-code", "one", "two", "--", "a"]), @"
    * a
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["diff", "--exit-code", "one", "nope"]), @r#"
    ! dk: branch or commit "nope" does not exist
    exit status 128
    "#);
    assert!(
        sandbox
            .dk(["diff", "one", "nope"])
            .ends_with("exit status 4\n")
    );
}
