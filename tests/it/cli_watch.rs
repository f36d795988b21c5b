//! `dk watch`: what it prints, where it begins, what ends it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Stdio};

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{DATE, Sandbox, eventually, feed, ids};

mod exec;
mod post;

/// A watch under way, killed when the test is over.
struct Watch {
    child: Child,
    /// What it prints; `None` once nobody reads it.
    lines: Option<BufReader<ChildStdout>>,
}

impl Watch {
    /// Starts `dk watch` with a cursor, and waits until it has begun.
    fn begin(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let watch = Self::start(sandbox, &[&["--cursor", ".seen"], arguments].concat());
        eventually("the watch begins", || {
            std::fs::metadata(sandbox.join(".seen")).ok()
        });
        watch
    }

    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut child = sandbox.spawn([&["watch"], arguments].concat());
        let lines = Some(BufReader::new(child.stdout.take().unwrap()));
        Self { child, lines }
    }

    /// Reads one line, without its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let lines = self.lines.as_mut().unwrap();
        lines.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').into()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; returns the rest of what was printed, as `Sandbox::dk`.
    fn end(mut self, sandbox: &Sandbox) -> String {
        let status = eventually("the watch ends", || self.child.try_wait().unwrap());
        let mut rest = Vec::new();
        if let Some(lines) = &mut self.lines {
            lines.read_to_end(&mut rest).unwrap();
        }
        let mut errors = Vec::new();
        let stderr = self.child.stderr.as_mut().unwrap();
        stderr.read_to_end(&mut errors).unwrap();
        sandbox.shown(&std::process::Output {
            status,
            stdout: rest,
            stderr: errors,
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store with one commit.
fn one_commit() -> (Sandbox, String) {
    let sandbox = Sandbox::with_store();
    let id = sandbox.commit("master", "one", &[("a", "1\n"), ("src/main", "1\n")]);
    (sandbox, id)
}

/// Commits files with any names.
fn commit_odd(sandbox: &Sandbox, names: &[&[u8]]) {
    let mut stream = format!(
        "commit refs/heads/master\ncommitter Ada <ada@example.org> {DATE}\ndata 3\nodd\n\
         from refs/heads/master^0\n"
    )
    .into_bytes();
    for name in names {
        stream.extend_from_slice(b"M 100644 inline \"");
        for byte in *name {
            write!(stream, "\\{byte:03o}").unwrap();
        }
        stream.extend_from_slice(b"\"\ndata 1\nx\n");
    }
    let mut import = sandbox.program("git", ["-C", "db.git", "fast-import", "--quiet"]);
    assert!(feed(&mut import, &stream).status.success());
}

fn head(sandbox: &Sandbox) -> String {
    sandbox.git(["-C", "db.git", "rev-parse", "refs/heads/master"])
}

#[test]
fn the_next_commit_ends_it() {
    let (sandbox, _) = one_commit();
    let mut watch = Watch::start(&sandbox, &["master"]);
    // It began at some time: one of these is the next.
    let mut number = 1;
    eventually("a commit is seen", || {
        number += 1;
        sandbox.commit("master", "more", &[("b", &number.to_string()), ("c d", "")]);
        watch.child.try_wait().unwrap()
    });
    let seen = watch.end(&sandbox);
    assert!(seen == "b\nc\\ d\n" || seen == "b\n", "{seen}");
}

#[test]
fn only_what_changes_at_the_path_counts() {
    let (sandbox, one) = one_commit();
    let watch = Watch::begin(&sandbox, &["master:src"]);
    sandbox.commit("master", "elsewhere", &[("b", "1\n")]);
    sandbox.commit("master", "here", &[("src/x", "1\n"), ("z", "1\n")]);
    assert_eq!(watch.end(&sandbox), "src/x\n");
    assert_eq!(sandbox.dk(["watch", "--since", &one, "master:z"]), "z\n");
    assert_eq!(sandbox.read(".seen"), head(&sandbox) + "\n");
}

#[test]
fn xargs_gets_the_names_that_were_committed() {
    let (sandbox, one) = one_commit();
    let odd: &[&[u8]] = &[
        b" lead",
        b"\"quoted\"",
        b"$(touch hit)",
        b"'",
        b"-rf",
        b"a b",
        b"back\\slash",
        b"line\nfeed",
        b"trail ",
        b"\xff",
    ];
    commit_odd(&sandbox, odd);
    let line = |options: &str, xargs: &str| {
        let output = sandbox
            .program("bash", ["-c", &format!(
                "set -o pipefail; dk watch {options} --since {one} master | xargs {xargs} printf '<%s>\\n' --"
            )])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", sandbox.shown(&output));
        output.stdout
    };
    let mut expected = b"<-->\n".to_vec();
    for name in odd {
        expected.push(b'<');
        expected.extend_from_slice(name);
        expected.extend_from_slice(b">\n");
    }
    assert_eq!(line("", ""), expected);
    assert_eq!(line("-z", "-0"), expected);
    assert_eq!(line("--batch", "-L1"), expected);
    assert!(!sandbox.join("hit").exists());
    assert_snapshot!(format!("{:?}", sandbox.dk(["watch", "--since", &one, "master"])), @r#""\\ lead\n\\\"quoted\\\"\n$(touch\\ hit)\n\\'\n-rf\na\\ b\nback\\\\slash\nline\\\nfeed\ntrail\\ \n�\n""#);
}

#[test]
fn records_take_four_forms() {
    let (sandbox, _) = one_commit();
    sandbox.commit("master", "two", &[("a", "2\n"), ("b c", "2\n")]);
    let two = head(&sandbox);
    sandbox.commit("master", "three", &[("d", "3\n")]);
    let replay = |options: &[&str]| {
        let arguments = [&["watch", "-n", "3", "--since", "0", "master"], options].concat();
        sandbox.dk(arguments)
    };
    assert_snapshot!(replay(&[]), @r"
    a
    src/main
    a
    b\ c
    d
    ");
    assert_snapshot!(replay(&["--batch"]), @r"
    a src/main
    a b\ c
    d
    ");
    assert_snapshot!(replay(&["-z"]).replace('\0', "|"), @"a|src/main|a|b c|d|%");
    assert_snapshot!(ids(&replay(&["--commits"])), @r"
    ID1
    ID2
    ID3
    ");
    let json = sandbox.dk(["--json", "watch", "--since", &format!("{two}~1"), "master"]);
    assert_snapshot!(ids(&json), @r#"{"id":"ID1","tree":"ID2","parents":["ID3"],"author":{"name":"Ada","email":"ada@example.org","time":1700000000,"offset":60},"committer":{"name":"Ada","email":"ada@example.org","time":1700000000,"offset":60},"message":"two","time":1700000000,"previous":"ID3","reset":false,"changes":[{"path":"a","change":"updated","old":{"kind":"file","mode":"100644","id":"ID4"},"new":{"kind":"file","mode":"100644","id":"ID5"}},{"path":"b c","change":"added","old":null,"new":{"kind":"file","mode":"100644","id":"ID5"}}]}"#);
}

#[test]
fn a_watch_goes_on_from_anywhere() {
    let (sandbox, one) = one_commit();
    sandbox.commit("master", "two", &[("b", "2\n")]);
    let two = head(&sandbox);
    sandbox.commit("master", "three", &[("c", "3\n")]);
    assert_eq!(
        sandbox.dk(["watch", "-n2", "--since", &one, "master"]),
        "b\nc\n"
    );
    assert_eq!(
        sandbox.dk(["watch", "--since", "master~1", "master"]),
        "c\n"
    );
    assert_eq!(sandbox.dk(["watch", "--since", &two[..9], "master"]), "c\n");
    assert_eq!(
        sandbox.dk(["watch", "--since", "0", "master:src"]),
        "src/main\n"
    );
    assert_eq!(
        sandbox.dk(["watch", "--current", "master"]),
        "a\nb\nc\nsrc/main\n"
    );
    assert_eq!(
        sandbox.dk(["watch", "--current", "master:src"]),
        "src/main\n"
    );
    assert_eq!(
        sandbox.dk(["watch", "--latest", "--since", "0", "master"]),
        "a\nb\nc\nsrc/main\n"
    );
    assert_eq!(
        sandbox.dk(["watch", "--since", "head", "--timeout", "50ms", "master"]),
        "exit status 124\n"
    );
    let unknown = "1".repeat(40);
    assert_snapshot!(sandbox.dk(["watch", "--since", &unknown, "master"]), @r#"
    ! dk: branch or commit "1111111111111111111111111111111111111111" does not exist
    exit status 4
    "#);
    assert_snapshot!(sandbox.dk(["watch", "--since", "master^^^", "master"]), @r#"
    ! dk: branch or commit "master^^^" does not exist
    exit status 4
    "#);
}

#[test]
fn a_merge_is_what_it_changed_on_the_branch() {
    let (sandbox, _) = one_commit();
    sandbox.git(["-C", "db.git", "branch", "side", "master"]);
    sandbox.commit("side", "side", &[("on-side", "1\n")]);
    sandbox.commit("master", "main", &[("on-master", "1\n")]);
    let before = head(&sandbox);
    let tree = sandbox.git([
        "-C",
        "db.git",
        "merge-tree",
        "--write-tree",
        "master",
        "side",
    ]);
    let merge = sandbox.git([
        "-C",
        "db.git",
        "commit-tree",
        "-p",
        "master",
        "-p",
        "side",
        "-m",
        "merge",
        &tree,
    ]);
    sandbox.git(["-C", "db.git", "update-ref", "refs/heads/master", &merge]);
    assert_eq!(
        sandbox.dk(["watch", "--since", &before, "master"]),
        "on-side\n"
    );
    assert_eq!(
        sandbox.dk([
            "watch",
            "-n",
            "9",
            "--timeout",
            "100ms",
            "--commits",
            "--since",
            &before,
            "master"
        ]),
        format!("{merge}\nexit status 124\n"),
        "the side's own commits are not of this branch"
    );
}

/// The head that a conflict was resolved against is the first parent.
#[test]
fn a_resolved_conflict_hides_no_commit() {
    let (sandbox, one) = one_commit();
    let tx = sandbox.ok(["tx", "begin", "master"]);
    sandbox.ok_with("mine", ["tx", "write", &tx, "a"]);
    let two = sandbox.ok_with("theirs", ["put", "master:a"]);
    let refused = sandbox.dk(["tx", "commit", &tx]);
    assert!(refused.ends_with("exit status 3\n"), "{refused}");
    sandbox.ok(["tx", "resolve", &tx, "--ours"]);
    let three = sandbox.ok(["tx", "commit", &tx, "-m", "mine"]);
    assert_eq!(
        sandbox.dk(["watch", "-n2", "--commits", "--since", &one, "master"]),
        format!("{two}\n{three}\n")
    );
}

#[test]
fn a_head_moved_to_other_history_is_told() {
    let (sandbox, one) = one_commit();
    let mut watch = Watch::begin(&sandbox, &["-f", "--commits", "master"]);
    let two = sandbox.commit("master", "two", &[("b", "2\n")]);
    assert_eq!(watch.line(), two);
    sandbox.git(["-C", "db.git", "update-ref", "refs/heads/master", &one]);
    assert_eq!(watch.line(), format!("! {one}"));
    let other = sandbox.commit("other", "other", &[("x", "1\n")]);
    sandbox.git(["-C", "db.git", "update-ref", "refs/heads/master", &other]);
    assert_eq!(watch.line(), format!("! {other}"));
    let json = sandbox.dk(["--json", "watch", "--since", &one, "master"]);
    assert!(json.contains(r#""reset":true"#), "{json}");
    assert_eq!(
        sandbox.dk(["watch", "--since", &one, "master"]),
        "a\nsrc/main\nx\n"
    );
}

#[test]
fn an_unborn_branch_is_waited_for() {
    let sandbox = Sandbox::with_store();
    let watch = Watch::begin(&sandbox, &["master"]);
    assert_eq!(sandbox.read(".seen"), "0\n");
    sandbox.commit("master", "born", &[("a", "1\n")]);
    assert_snapshot!(watch.end(&sandbox), @r"
    a
    ! branch master has no commit yet: waiting for one
    ");
}

#[test]
fn a_deleted_branch_ends_a_watch_that_does_not_follow() {
    let (sandbox, one) = one_commit();
    let watch = Watch::begin(&sandbox, &["master"]);
    sandbox.git(["-C", "db.git", "update-ref", "-d", "refs/heads/master"]);
    assert_snapshot!(watch.end(&sandbox), @r"
    ! dk: branch master was deleted
    exit status 4
    ");
    assert_eq!(
        sandbox.read(".seen"),
        one.clone() + "\n",
        "nothing was reported"
    );

    let watch = Watch::start(&sandbox, &["-f", "-n1", "--cursor", ".seen", "master"]);
    sandbox.git(["-C", "db.git", "update-ref", "refs/heads/master", &one]);
    sandbox.commit("master", "back", &[("b", "1\n")]);
    let seen = watch.end(&sandbox);
    assert!(seen.starts_with("b\n"), "{seen}");
}

#[test]
fn a_cursor_misses_nothing_between_watches() {
    let (sandbox, one) = one_commit();
    assert_eq!(
        sandbox.dk(["watch", "--cursor", ".seen", "--timeout", "50ms", "master"]),
        "exit status 124\n"
    );
    assert_eq!(sandbox.read(".seen"), format!("{one}\n"), "written at once");
    for number in 1..=3 {
        sandbox.commit("master", "more", &[(&format!("f{number}"), "x")]);
    }
    for number in 1..=3 {
        let seen = sandbox.dk(["watch", "--cursor", ".seen", "master"]);
        assert_eq!(seen, format!("f{number}\n"));
    }
    assert_eq!(sandbox.read(".seen"), head(&sandbox) + "\n");
    let files = std::fs::read_dir(sandbox.path()).unwrap().count();
    assert_eq!(files, 2, "the store and the cursor");
}

#[test]
fn a_cursor_may_be_written_by_hand() {
    let (sandbox, one) = one_commit();
    sandbox.commit("master", "two", &[("b", "2\n")]);
    for (text, seen) in [
        (format!("{one}\r\n"), "b\n"),
        (one.to_uppercase(), "b\n"),
        ("master~1\n".into(), "b\n"),
        ("0".into(), "a\nsrc/main\n"),
    ] {
        sandbox.write(".seen", &text);
        assert_eq!(
            sandbox.dk(["watch", "--cursor", ".seen", "master"]),
            seen,
            "{text}"
        );
    }
    // mktemp leaves an empty file: as if there were none.
    sandbox.write(".seen", "");
    assert_eq!(
        sandbox.dk([
            "watch", "--cursor", ".seen", "--since", "0", "-n2", "master"
        ]),
        "a\nsrc/main\nb\n"
    );
    sandbox.write(".seen", "1".repeat(40));
    assert_snapshot!(sandbox.dk(["watch", "--cursor", ".seen", "master"]), @r#"
    ! dk: cannot go on from the cursor .seen
    ! caused by: branch or commit "1111111111111111111111111111111111111111" does not exist
    ! hint: remove .seen to go on from now, or put 0 into it to begin with the first commit
    exit status 4
    "#);
    sandbox.write(".seen", "what: ever");
    assert_snapshot!(sandbox.dk(["watch", "--cursor", ".seen", "master"]), @r#"
    ! dk: cannot go on from the cursor .seen
    ! caused by: "what: ever" is not a legal revision: a revision has no ':'
    ! hint: remove .seen to go on from now, or put 0 into it to begin with the first commit
    exit status 2
    "#);
    assert_snapshot!(sandbox.dk(["watch", "--cursor", "no/such/.seen", "master"]), @r#"
    ! dk: cannot write the cursor no/such/.seen
    ! caused by: No such file or directory (os error 2)
    exit status 1
    "#);
}

#[test]
fn a_killed_watch_repeats_rather_than_misses() {
    let (sandbox, one) = one_commit();
    let log = || {
        let mut options = std::fs::File::options();
        let file = options.create(true).append(true);
        let file = file.open(sandbox.join("log")).unwrap();
        sandbox
            .command(["watch", "-f", "--commits", "--cursor", ".seen", "master"])
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = log();
    eventually("it begins", || {
        std::fs::metadata(sandbox.join(".seen")).ok()
    });
    for number in 1..=20 {
        sandbox.commit("master", "more", &[("a", &number.to_string())]);
        if number % 4 == 0 {
            child.kill().unwrap();
            child.wait().unwrap();
            sandbox.commit("master", "unseen", &[("a", &format!("{number} unseen"))]);
            child = log();
        }
    }
    let last = head(&sandbox);
    eventually("it catches up", || {
        sandbox.read("log").contains(&last).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let mut seen: Vec<String> = Vec::new();
    for line in sandbox.read("log").lines() {
        if !seen.iter().any(|known| known == line) {
            seen.push(line.into());
        }
    }
    let made = sandbox.git([
        "-C",
        "db.git",
        "rev-list",
        "--reverse",
        &format!("{one}..master"),
    ]);
    assert_eq!(seen.join("\n"), made);
}

#[test]
fn a_reader_that_is_gone_ends_it_while_nothing_happens() {
    let (sandbox, _) = one_commit();
    let mut watch = Watch::begin(&sandbox, &["-f", "master"]);
    watch.lines = None;
    assert_eq!(watch.end(&sandbox), "");
    assert_eq!(
        sandbox.sh("dk watch -f --commits --since 0 master | head -0; echo ${PIPESTATUS[0]}"),
        "0\n"
    );
}

#[test]
fn signals_end_it_as_signals_do() {
    let (sandbox, one) = one_commit();
    for (signal, shown) in [
        (Signal::TERM, "ended by signal 15\n"),
        (Signal::INT, "ended by signal 2\n"),
    ] {
        let watch = Watch::begin(&sandbox, &["-f", "master"]);
        watch.signal(signal);
        assert_eq!(watch.end(&sandbox), shown);
        assert_eq!(sandbox.read(".seen"), format!("{one}\n"));
    }
    // Nor does a reader that does not read keep it.
    let names: Vec<String> = (0..5000).map(|n| format!("{n:0>50}")).collect();
    let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    commit_odd(&sandbox, &names);
    let mut watch = Watch::start(&sandbox, &["-f", "--cursor", ".seen", "master"]);
    assert_eq!(watch.line(), "0".repeat(50));
    watch.signal(Signal::TERM);
    assert!(watch.end(&sandbox).ends_with("ended by signal 15\n"));
    assert_eq!(
        sandbox.read(".seen"),
        format!("{one}\n"),
        "not all of it was written out"
    );
}

#[test]
fn wrong_usage_is_refused() {
    let (sandbox, _) = one_commit();
    for arguments in [
        &["watch"][..],
        &["watch", "a b"],
        &["watch", "master:a/../b"],
        &["watch", "master~1"],
        &["watch", "-n0", "master"],
        &["watch", "-z", "--batch", "master"],
        &["watch", "--restart", "master"],
        &["watch", "--timeout", "soon", "master"],
        &["watch", "--current", "--since", "0", "master"],
        &["watch", "--exec", "true"],
        &["--json", "watch", "master", "--exec", "true"],
    ] {
        let shown = sandbox.dk(arguments);
        assert!(shown.ends_with("exit status 2\n"), "{arguments:?}: {shown}");
    }
}
