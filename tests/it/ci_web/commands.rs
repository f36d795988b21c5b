//! The same from the command line: status, history, graph, log, user.

use std::io::Read as _;

use datakit::ci::layout;
use insta::assert_snapshot;

use super::site::{build, sha};
use crate::sandbox::{Sandbox, eventually, ids};

const MASTER: &str = "status-me-app-ref-heads-master";

/// A store with one branch that was tested, and one that is.
fn sandbox() -> (Sandbox, String) {
    let sandbox = Sandbox::with_store();
    sandbox.commit(
        "github-metadata",
        "forge",
        &[
            ("me/app/.monitor", ""),
            ("me/app/ref/heads/master/head", &sha(1)),
            ("me/app/ref/heads/x/head", &sha(2)),
        ],
    );
    let result = sandbox.commit(
        "dk-step-test-of-1",
        "Cached failure",
        &[
            ("log", "\u{1b}[31mred\u{1b}[m\nand \u{7}this\n"),
            ("failure", "exited with status 1"),
        ],
    );
    let saved = format!(
        r#"{{"result":{{"status":"failure","descr":"exited with status 1"}},"logs":{{"title":"test","branch":"dk-step-test-of-1","commit":"{result}","failed":true}}}}"#
    );
    let fine = r#"{"result":{"status":"success","descr":"fine"},"logs":null}"#;
    sandbox.commit(
        MASTER,
        "build -> fine",
        &[("source-commit", &sha(1)), ("job/build/output", fine)],
    );
    sandbox.commit(
        MASTER,
        "test -> exited with status 1",
        &[
            ("job/test,os=x/output", &saved),
            ("job/test,os=x/needs", "build"),
        ],
    );
    let live = r#"{"result":{"status":"pending","descr":"Building"},"logs":{"branch":"dk-step-build-of-2"}}"#;
    sandbox.commit(
        "status-me-app-ref-heads-x",
        "build -> Building",
        &[("source-commit", &sha(2)), ("job/build/output", live)],
    );
    let known = String::from_utf8(build("me/app/heads/x", "build", None)).unwrap();
    sandbox.commit(
        "dk-step-build-of-2",
        "Begin",
        &[("build", &known), (&layout::log_part(0), "one\n")],
    );
    sandbox.commit(
        "status-me-app-ref-heads-gone",
        "build -> fine",
        &[("job/build/output", fine)],
    );
    (sandbox, result)
}

#[test]
fn states_and_history_are_told() {
    let (sandbox, _) = sandbox();
    assert_snapshot!(sandbox.dk(["ci", "status"]), @"");
    assert_snapshot!(sandbox.dk(["ci", "status", "--state", "pending", "--all"]), @"");
    assert_snapshot!(sandbox.dk(["ci", "status", "-a", "--state", "success"]), @"");
    assert_snapshot!(sandbox.dk(["ci", "status", "me/app/heads/master"]), @"");
    assert_snapshot!(ids(&sandbox.dk(["ci", "status", "me/app/heads/master", "--json"])), @"");
    assert_snapshot!(sandbox.dk(["ci", "status", "me/app/heads/none"]), @"");
    assert_snapshot!(sandbox.dk(["ci", "status", "nonsense"]).lines().next().unwrap(), @"");
    assert_snapshot!(ids(&sandbox.dk(["ci", "history", "me/app/heads/master"])), @"");
    assert_snapshot!(ids(&sandbox.dk(["ci", "history", "-n1", "--json", "me/app/heads/master"])), @"");
    assert_snapshot!(sandbox.dk(["ci", "history", "me/app/pr/9"]), @"");
}

#[test]
fn steps_are_drawn() {
    let (sandbox, _) = sandbox();
    assert_snapshot!(sandbox.dk(["ci", "graph", "me/app/heads/master"]), @"");
    assert!(sandbox.dk(["ci", "graph"]).matches("subgraph").count() == 3);
}

#[test]
fn logs_are_printed_as_they_are() {
    let (sandbox, _) = sandbox();
    let log = sandbox
        .command(["ci", "log", "me/app/heads/master", "test"])
        .output()
        .unwrap();
    assert_eq!(log.stdout, b"\x1b[31mred\x1b[m\nand \x07this\n");
    assert_snapshot!(sandbox.dk(["ci", "log", "me/app/heads/x", "build"]), @"");
    assert_snapshot!(sandbox.dk(["ci", "log", "me/app/heads/master", "build"]), @"");
    assert_snapshot!(sandbox.dk(["ci", "log", "me/app/heads/master", "deploy"]), @"");
    sandbox.commit(
        MASTER,
        "more",
        &[(
            "job/test,os=y/output",
            r#"{"result":{"status":"success","descr":"fine"},"logs":null}"#,
        )],
    );
    assert_snapshot!(sandbox.dk(["ci", "log", "me/app/heads/master", "test"]), @"");
}

#[test]
fn a_log_is_followed_to_its_end() {
    let (sandbox, _) = sandbox();
    let mut follower = sandbox.spawn(["ci", "log", "-f", "me/app/heads/x", "build"]);
    let mut out = follower.stdout.take().unwrap();
    let mut first = [0; 4];
    out.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"one\n");
    sandbox.commit(
        "dk-step-build-of-2",
        "More",
        &[(&layout::log_part(1), "two\n")],
    );
    out.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"two\n");
    sandbox.commit(
        "dk-step-build-of-2",
        "Cached",
        &[("log", "one\ntwo\nthree\n")],
    );
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "three\n");
    assert!(follower.wait().unwrap().success());
    // One that has not begun is waited for.
    let waits = r#"{"result":{"status":"pending","descr":"Waiting for build"},"logs":null}"#;
    sandbox.commit(
        "status-me-app-ref-heads-x",
        "wait",
        &[("job/late/output", waits)],
    );
    let mut follower = sandbox.spawn(["ci", "log", "-f", "me/app/heads/x", "late"]);
    let mut told = [0; 24];
    follower
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut told)
        .unwrap();
    assert_eq!(
        std::str::from_utf8(&told).unwrap(),
        "late: Waiting for build\n"
    );
    let live = r#"{"result":{"status":"pending","descr":"Building"},"logs":{"branch":"dk-step-late-of-3"}}"#;
    sandbox.commit(
        "dk-step-late-of-3",
        "Begin",
        &[(&layout::log_part(0), "late\n")],
    );
    sandbox.commit(
        "status-me-app-ref-heads-x",
        "begin",
        &[("job/late/output", live)],
    );
    let mut out = follower.stdout.take().unwrap();
    let mut first = [0; 5];
    out.read_exact(&mut first).unwrap();
    sandbox.commit("dk-step-late-of-3", "End", &[("log", "late\n")]);
    eventually("it ends", || follower.try_wait().unwrap());
}

#[test]
fn users_are_kept_in_a_file() {
    let sandbox = Sandbox::new();
    let user = |arguments: &[&str], input: &str| {
        let mut all = vec!["ci", "user"];
        all.extend(arguments);
        all.extend(["--secrets-dir", "secrets"]);
        sandbox.dk_with(input, all)
    };
    assert_snapshot!(user(&["add", "ann", "--password-file", "-"], "correct horse\n"), @"");
    assert_snapshot!(user(&["add", "admin", "--password-file", "-"], "battery staple"), @"");
    assert_snapshot!(user(&["list"], ""), @"");
    assert_snapshot!(user(&["remove", "ann", "bob"], ""), @"");
    assert_snapshot!(user(&["add", "a:b", "--password-file", "-"], "correct horse"), @"");
    assert_snapshot!(user(&["add", "bob", "--password-file", "-"], "short"), @"");
    assert_snapshot!(user(&["add", "bob"], ""), @"");
    assert_snapshot!(user(&["list", "--json"], ""), @"");
    assert!(!sandbox.read("secrets/web/passwords").contains("staple"));
}
