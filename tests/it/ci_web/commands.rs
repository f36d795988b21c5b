//! The same from the command line: status, history, graph, log, user.

use std::io::Read as _;

use datakit::ci::layout;
use datakit::ci::web::auth::github::{Endpoints, GitHub};
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
    assert_snapshot!(sandbox.dk(["ci", "status"]), @r#"
    me/app/heads/master	failure	exited with status 1 (test,os=x)
    me/app/heads/x	running	Building
    "#);
    assert_snapshot!(sandbox.dk(["ci", "status", "--state", "pending", "--all"]), @"me/app/heads/x	running	Building");
    assert_snapshot!(sandbox.dk(["ci", "status", "-a", "--state", "success"]), @"me/app/heads/gone	success	fine");
    assert_snapshot!(sandbox.dk(["ci", "status", "me/app/heads/master"]), @r#"
    build	success	fine
    test,os=x	failure	exited with status 1
    "#);
    assert_snapshot!(ids(&sandbox.dk(["ci", "status", "me/app/heads/master", "--json"])), @r#"{"target":"me/app/heads/master","state":"failure","text":"exited with status 1 (test,os=x)","source":"ID1","commit":"ID2","open":true,"head":"ID1","jobs":[{"name":"build","state":"success","text":"fine","needs":[],"logs":[]},{"name":"test,os=x","state":"failure","text":"exited with status 1","needs":["build"],"logs":[{"branch":"dk-step-test-of-1","commit":"ID3"}]}]}"#);
    assert_snapshot!(sandbox.dk(["ci", "status", "me/app/heads/none"]), @r#"
    ! dk: a build of me/app/heads/none does not exist
    exit status 4
    "#);
    assert_snapshot!(sandbox.dk(["ci", "status", "nonsense"]).lines().next().unwrap(), @r#"! dk: invalid value 'nonsense' for '[TARGET]': missing user/ at start of "nonsense""#);
    assert_snapshot!(ids(&sandbox.dk(["ci", "history", "me/app/heads/master"])), @r#"
    ID1	2023-11-14T22:13:20Z	test -> exited with status 1
    ID2	2023-11-14T22:13:20Z	build -> fine
    "#);
    assert_snapshot!(ids(&sandbox.dk(["ci", "history", "-n1", "--json", "me/app/heads/master"])), @r#"{"commit":"ID1","time":"2023-11-14T22:13:20Z","message":"test -> exited with status 1"}"#);
    assert_snapshot!(sandbox.dk(["ci", "history", "me/app/pr/9"]), @r#"
    ! dk: a build of me/app/pr/9 does not exist
    exit status 4
    "#);
}

#[test]
fn what_the_ancestor_wrote_is_read() {
    let sandbox = Sandbox::with_store();
    let saved = |branch: &str, title: &str, files: &[(&str, &str)]| {
        let commit = sandbox.commit(branch, "Cached successful result", files);
        format!(r#"{{"title":"{title}","branch":"{branch}","commit":"{commit}","failed":false}}"#)
    };
    let (fetch, shell) = (
        format!("git-pull-of-{}", sha(1)),
        format!("shell-of-ls-on-{}", sha(1)),
    );
    let fetched = saved(
        &fetch,
        "Git fetch",
        &[("log", "=== Git fetch\n"), ("value/x", "")],
    );
    let ran = saved(
        &shell,
        "Run ls",
        &[
            ("log", "=== Run ls\nRunning \"ls\"...\nsrc\n"),
            ("value/x", ""),
        ],
    );
    sandbox.commit(
        "github-metadata",
        "forge",
        &[
            ("user/project/.monitor", ""),
            ("user/project/pr/3907/head", &sha(1)),
            ("user/project/pr/3907/state", "open"),
            ("user/project/pr/3907/owner", "user"),
        ],
    );
    let commit = sandbox.commit(
        "status-user-project-pr-3907",
        "test -> OK",
        &[
            ("source-commit", &sha(1)),
            ("metadata-commit", &sha(9)),
            (
                "job/test/output",
                &format!(
                    r#"{{"result":{{"status":"success","descr":"OK"}},"logs":[{fetched},{ran}]}}"#
                ),
            ),
        ],
    );
    let path = format!("user/project/commit/{}/pr-3907", sha(1));
    sandbox.commit("commit-index", "Update", &[(&path, &commit)]);
    assert_snapshot!(sandbox.dk(["ci", "status"]), @"user/project/pr/3907	success	OK");
    let log = sandbox.ok(["ci", "log", "user/project/prs/3907", "test"]);
    assert!(log.contains("Running \"ls\"...\nsrc"), "{log}");
    let history = sandbox.ok(["ci", "history", "user/project/pr/3907"]);
    assert!(history.ends_with("test -> OK"), "{history}");
    // It was built from what nobody describes here: it is not built again.
    let asked = sandbox.dk(["ci", "rebuild", "user/project/pr/3907"]);
    assert!(
        asked.contains("a result to rebuild in user/project/pr/3907 does not exist"),
        "{asked}"
    );
}

#[test]
fn steps_are_drawn() {
    let (sandbox, _) = sandbox();
    assert_snapshot!(sandbox.dk(["ci", "graph", "me/app/heads/master"]), @r#"
    digraph ci {
      rankdir=LR;
      node [shape=box];
      subgraph cluster_0 {
        label="me/app/heads/master";
        "me/app/heads/master:build" [label="build", color=green];
        "me/app/heads/master:test,os=x" [label="test,os=x", color=red];
        "me/app/heads/master:build" -> "me/app/heads/master:test,os=x";
      }
    }
    "#);
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
    assert_snapshot!(sandbox.dk(["ci", "log", "me/app/heads/x", "build"]), @"one");
    assert_snapshot!(sandbox.dk(["ci", "log", "me/app/heads/master", "build"]), @r#"
    ! dk: a log of build in me/app/heads/master (fine) does not exist
    exit status 4
    "#);
    assert_snapshot!(sandbox.dk(["ci", "log", "me/app/heads/master", "deploy"]), @r#"
    ! dk: step deploy of me/app/heads/master does not exist
    exit status 4
    "#);
    sandbox.commit(
        MASTER,
        "more",
        &[(
            "job/test,os=y/output",
            r#"{"result":{"status":"success","descr":"fine"},"logs":null}"#,
        )],
    );
    assert_snapshot!(sandbox.dk(["ci", "log", "me/app/heads/master", "test"]), @r#"
    ! dk: step test has several cells
    ! hint: name one of test,os=x test,os=y
    exit status 2
    "#);
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
    assert_snapshot!(user(&["list"], ""), @r#"
    admin
    ann
    "#);
    assert_snapshot!(user(&["remove", "ann", "bob"], ""), @r#"
    ! dk: user bob does not exist
    exit status 4
    "#);
    assert_snapshot!(user(&["add", "a:b", "--password-file", "-"], "correct horse"), @r#"
    ! dk: "a:b" is not a name of a user: 1 to 64 letters, digits, '.', '_' and '-'
    exit status 2
    "#);
    assert_snapshot!(user(&["add", "bob", "--password-file", "-"], "short"), @r#"
    ! dk: a password has 8 to 1024 bytes
    exit status 2
    "#);
    assert_snapshot!(user(&["add", "bob"], ""), @r#"
    ! dk: cannot ask without a terminal: Password of bob
    ! hint: use --password-file
    exit status 2
    "#);
    assert_snapshot!(user(&["list", "--json"], ""), @r#"{"name":"admin"}"#);
    assert!(!sandbox.read("secrets/web/passwords").contains("staple"));
}

#[test]
fn users_of_github_are_let_in_by_a_command() {
    let sandbox = Sandbox::new();
    let github = |arguments: &[&str], input: &str| {
        let mut all = vec!["ci", "user", "github", "--secrets-dir", "secrets"];
        all.extend(arguments);
        sandbox.dk_with(input, all)
    };
    let application = || {
        let folder = sandbox.join("secrets/web");
        let known = GitHub::within(&folder, Endpoints::default());
        known.application().unwrap()
    };
    let by_file = ["--client-id", "the-id", "--client-secret-file", "-"];
    assert_snapshot!(github(&by_file, "s3cret\n"), @"");
    let known = application().unwrap();
    assert_eq!(
        (&*known.client_id, &*known.client_secret, known.callback),
        ("the-id", "s3cret", None)
    );
    let wrong = [&by_file[..], &["--callback", "x"]].concat();
    assert_snapshot!(github(&wrong, "other"), @r"
    ! dk: callback: Not a URL
    exit status 2
    ");
    assert_snapshot!(github(&by_file, "\n"), @r"
    ! dk: client-secret: Cannot be empty
    exit status 2
    ");
    assert!(application().is_some_and(|known| known.client_secret == "s3cret"));
    assert_snapshot!(github(&["--off"], ""), @"");
    assert!(application().is_none());
}

#[test]
fn the_demonstration_runs() {
    let sandbox = Sandbox::new();
    let root = std::env::current_dir().unwrap();
    let output = sandbox
        .program(root.join("scripts/demo-ci"), ["--check"])
        .env("DK", env!("CARGO_BIN_EXE_dk"))
        .env("DEMO_CI_WEB", "127.0.0.1:0")
        .output()
        .unwrap();
    let shown = sandbox.shown(&output);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("demo-ci: all is as it should be"), "{shown}");
    let left: Vec<_> = std::fs::read_dir(sandbox.path()).unwrap().collect();
    assert!(left.is_empty(), "it cleans up: {left:?}");
}
