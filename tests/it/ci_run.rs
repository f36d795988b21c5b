//! `dk ci run`: steps here and now, with real processes.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;

use crate::ci_runner::is_free;
use crate::sandbox::{Sandbox, eventually};

const STEPS: &str = r#"
[step.build]
run = "mkdir out; cp src/app out/app; chmod +x out/app"
inputs = "src"
outputs = "out/app"

[step.test]
needs = "build"
run = "./out/app $who"
inputs = "tests"
matrix = { who = ["Ada", "Bob"] }

[step.deploy]
run = "false"
when = { branch = "release" }
"#;

/// A work tree with a commit.
fn world(steps: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.git(["init", "-q", "-b", "main"]);
    sandbox.write(".gitignore", ".cache\nignored\n");
    sandbox.write(".dk-ci.toml", steps);
    sandbox.write("src/app", "#!/bin/sh\necho hello $1\n");
    sandbox.write("tests/t", "");
    sandbox.git(["add", "-A"]);
    sandbox.git(["commit", "-qm", "first"]);
    sandbox
}

/// What `dk ci run` prints on stdout, in order of the cells, without times.
fn run(sandbox: &Sandbox, words: &[&str]) -> String {
    let output = sandbox
        .command(["ci", "run"].iter().chain(words))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let words = line.split_whitespace().collect::<Vec<_>>();
            let timed = words.get(3) == Some(&"s");
            match timed {
                true => [&words[..2], &words[4..]].concat().join(" "),
                false => words.join(" "),
            }
        })
        .collect();
    lines.sort_by(|a, b| a.split(' ').nth(1).cmp(&b.split(' ').nth(1)));
    lines.push(format!("= {}", output.status.code().unwrap()));
    lines.join("\n")
}

#[test]
fn what_did_not_change_is_not_run_again() {
    let sandbox = world(STEPS);
    insta::assert_snapshot!(run(&sandbox, &[]), @r"
    ok build
    skipped deploy only on release
    ok test,who=Ada
    ok test,who=Bob
    = 0
    ");
    sandbox.write("README", "not an input");
    insta::assert_snapshot!(run(&sandbox, &[]), @r"
    cached build
    skipped deploy only on release
    cached test,who=Ada
    cached test,who=Bob
    = 0
    ");
    sandbox.write("tests/t", "changed");
    insta::assert_snapshot!(run(&sandbox, &["test,who=Bob"]), @r"
    cached build
    ok test,who=Bob
    = 0
    ");
    sandbox.write("src/app", "#!/bin/sh\nexit 3\n");
    insta::assert_snapshot!(run(&sandbox, &["test"]), @r#"
    ok build
    failed test,who=Ada Command "./out/app $who" exited with status 3
    failed test,who=Bob Command "./out/app $who" exited with status 3
    = 1
    "#);
    // Another work tree that is the same has the results of the first one.
    sandbox.git(["checkout", "-q", "."]);
    insta::assert_snapshot!(run(&sandbox, &["test"]), @r"
    cached build
    cached test,who=Ada
    cached test,who=Bob
    = 0
    ");
}

#[test]
fn a_failure_shows_its_log_and_is_run_again() {
    let sandbox = world(
        "[step.a]\nrun = \"echo why; test -e $PWD_OF_TEST/ok\"\n[step.b]\nneeds = \"a\"\nrun = \"true\"",
    );
    for _ in 0..2 {
        let said = sandbox.dk(["ci", "run", "--env", "PWD_OF_TEST"]);
        let lines: Vec<&str> = said.lines().collect();
        assert!(said.contains("! why\n"), "{said}");
        assert!(lines[1].starts_with("failed  b  a failed"), "{said}");
        assert!(
            said.ends_with("! dk: 2 of 2 steps failed: a, b\nexit status 1\n"),
            "{said}"
        );
    }
    let mut sandbox = sandbox;
    sandbox.write("ignored/ok", "");
    let at = sandbox.join("ignored").display().to_string();
    sandbox.set("PWD_OF_TEST", &at);
    assert_eq!(run(&sandbox, &["--env", "PWD_OF_TEST"]), "ok a\nok b\n= 0");
}

#[test]
fn the_work_tree_is_run_as_it_is_and_left_as_it_is() {
    let sandbox = world("[step.a]\nrun = \"cat src/app new; ls; false\"");
    sandbox.write("src/app", "changed\n");
    sandbox.write("new", "untracked\n");
    sandbox.write("ignored/x", "");
    sandbox.git(["rm", "-q", "--cached", "tests/t"]);
    let before = sandbox.git(["status", "--porcelain"]);
    let said = sandbox.dk(["ci", "run"]);
    assert!(
        said.contains("! changed\n! untracked\n! new\n! src\n! tests\n"),
        "{said}"
    );
    assert_eq!(sandbox.git(["status", "--porcelain"]), before);
    assert_eq!(sandbox.git(["for-each-ref"]).lines().count(), 1);
    // A revision is as it was.
    sandbox.write(".dk-ci.toml", "[step.a]\nrun = \"true\"");
    let said = sandbox.dk(["ci", "run", "--rev", "main"]);
    assert!(said.contains("! cat: new: No such file"), "{said}");
}

#[test]
fn results_are_where_they_were_asked_to_be() {
    let mut sandbox = world("[step.a]\nrun = \"echo x > o\"\noutputs = \"o\"");
    assert_eq!(run(&sandbox, &["--no-cache"]), "ok a\n= 0");
    assert!(!sandbox.join(".cache/dk/ci/results").exists());
    assert_eq!(run(&sandbox, &[]), "ok a\n= 0");
    assert!(sandbox.join(".cache/dk/ci/results").exists());
    assert_eq!(run(&sandbox, &["--no-cache"]), "ok a\n= 0");
    sandbox.git(["init", "-q", "--bare", "ignored/db.git"]);
    sandbox.set("DK_STORE", "ignored/db.git");
    assert_eq!(run(&sandbox, &[]), "ok a\n= 0");
    let branches = sandbox.ok(["branch", "list"]);
    let branch = branches
        .lines()
        .find(|line| line.starts_with("dk-step-a-of-"));
    let branch = branch.unwrap().split_whitespace().next().unwrap();
    assert_eq!(sandbox.ok(["cat", &format!("{branch}:value/o")]), "x");
    assert!(
        sandbox
            .ok(["cat", &format!("{branch}:log")])
            .starts_with("=== Running a\n")
    );
    let folders = std::fs::read_dir(sandbox.join(".cache/dk/ci/steps")).unwrap();
    assert_eq!(folders.count(), 0, "no folder of a step is left");
}

#[test]
fn a_line_of_json_is_a_cell() {
    let sandbox = world("[step.a]\nrun = \"true\"");
    let line = sandbox
        .command(["ci", "run", "--json"])
        .output()
        .unwrap()
        .stdout;
    let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(line["cell"], "a");
    assert_eq!(line["state"], "success");
    assert_eq!(line["cached"], false);
    assert!(
        line["branch"]
            .as_str()
            .unwrap()
            .starts_with("dk-step-a-of-")
    );
}

#[test]
fn what_cannot_be_run_is_status_2() {
    let sandbox = world("[step.a]\nrum = \"true\"");
    let said = sandbox.dk(["ci", "run"]);
    assert!(
        said.starts_with("! dk: .dk-ci.toml:2:1: unknown key `rum`"),
        "{said}"
    );
    assert!(said.ends_with("exit status 2\n"), "{said}");
    sandbox.write(".dk-ci.toml", STEPS);
    insta::assert_snapshot!(sandbox.dk(["ci", "run", "x"]), @r#"
    ! dk: there is no step "x"
    ! hint: the steps are build, test, deploy
    exit status 2
    "#);
    std::fs::remove_file(sandbox.join(".dk-ci.toml")).unwrap();
    insta::assert_snapshot!(sandbox.dk(["ci", "run"]), @r"
    ! dk: there is no .dk-ci.toml: no steps are described
    ! hint: dk-ci(5) says how, and --file names another file
    exit status 2
    ");
    insta::assert_snapshot!(Sandbox::new().dk(["ci", "run"]), @r"
    ! dk: this is no Git work tree: there is nothing to run steps on
    exit status 2
    ");
}

#[test]
fn the_steps_of_an_engines_file_run_here_too() {
    let sandbox = world("[step.a]\nrun = \"true\"");
    let project = |repo: &str, rest: &str| {
        format!("[[project]]\nrepo = \"{repo}\"\nsource = \".\"\n{rest}\n")
    };
    let here = project(
        "me/here",
        "[project.step.b]\nrun = \"test -z \\\"$KEY\\\"\"\nsecrets = \"KEY\"\nafter-status = \"x\"\n\
         [[project.secret]]\nname = \"KEY\"\nsteps = \"b\"\nrefs = \"heads/*\"",
    );
    let tree = project("me/tree", "steps-from = \".dk-ci.toml\"");
    sandbox.write("ignored/ci.toml", format!("{here}{tree}"));
    let file = ["--file", "ignored/ci.toml"];
    let one = |repo| [&file[..], &["--project", repo]].concat();
    assert_eq!(run(&sandbox, &one("me/here")), "ok b\n= 0");
    assert_eq!(run(&sandbox, &one("me/tree")), "ok a\n= 0");
    assert_eq!(run(&sandbox, &one("me/none")), "= 2");
    assert_eq!(run(&sandbox, &file), "= 2");
}

/// A step that leaves a daemon, deaf to TERM and in a session of its own,
/// holding a lock; then it waits.
const DAEMON: &str = r#"[step.a]
run = """
setsid sh -c 'setsid sh -c "trap : TERM HUP INT; exec 9>$LOCK; flock 9; echo > $LOCK.ready; while :; do sleep 1; done" &' &
while :; do sleep 1; done
"""
"#;

#[test]
fn a_daemon_does_not_survive_a_kill_of_the_engine() {
    for (signal, code) in [(9, None), (2, Some(130)), (15, Some(130))] {
        let mut sandbox = world(DAEMON);
        let lock = sandbox.join("ignored/lock");
        sandbox.write("ignored/x", "");
        let name = lock.display().to_string();
        sandbox.set("LOCK", &name);
        let mut child = sandbox.spawn(["ci", "run", "--env", "LOCK"]);
        let ready = sandbox.join("ignored/lock.ready");
        eventually("the daemon", || ready.exists().then_some(()));
        assert!(!is_free(&lock));
        let pid = rustix::process::Pid::from_child(&child);
        let signal_ = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal_).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!(status.signal(), code.is_none().then_some(signal));
        if code.is_some() {
            assert!(is_free(&lock), "it ends when all has ended");
        } else {
            eventually("the end of the daemon", || is_free(&lock).then_some(()));
        }
        // What a killed engine left is no obstacle, and cleared away.
        sandbox.write(".dk-ci.toml", "[step.a]\nrun = \"true\"");
        assert_eq!(run(&sandbox, &[]), "ok a\n= 0");
        let left = std::fs::read_dir(sandbox.join(".cache/dk/ci/steps")).unwrap();
        assert_eq!(left.count(), 0);
        drop(BufReader::new(child.stderr.take().unwrap()).lines());
    }
}
