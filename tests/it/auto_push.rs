//! `dk serve --auto-push`: what changes is pushed by itself, whoever changed it.

use std::os::unix::fs::PermissionsExt as _;

use crate::sandbox::{Sandbox, eventually};
use crate::serving::{Server, http};

/// The branches of `there.git` with their commits.
fn there(sandbox: &Sandbox) -> String {
    sandbox.git([
        "-C",
        "there.git",
        "for-each-ref",
        "--format=%(refname:short) %(objectname)",
    ])
}

fn put(sandbox: &Sandbox, branch: &str, text: &str) -> String {
    sandbox.ok_with(text, ["put", &format!("{branch}:file")])
}

#[test]
fn every_change_arrives_and_what_is_refused_holds_up_nothing() {
    let sandbox = Sandbox::with_store();
    sandbox.git(["init", "--quiet", "--bare", "there.git"]);
    let hook = "#!/bin/sh\ncase $1 in */closed) echo not this one; exit 1;; esac\n";
    sandbox.write("there.git/hooks/update", hook);
    let runs = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(sandbox.join("there.git/hooks/update"), runs).unwrap();
    put(&sandbox, "before", "nothing is pushed at the start");
    let server = Server::ready(
        &sandbox,
        &[
            "--auto-push",
            "there.git",
            "--metrics",
            "127.0.0.1:0",
            "-vv",
        ],
    );
    let url = server.says("metrics at ");

    // By another process.
    let open = put(&sandbox, "open", "1");
    let gone = put(&sandbox, "gone", "1");
    put(&sandbox, "closed", "1");
    eventually("the first push", || {
        (there(&sandbox) == format!("gone {gone}\nopen {open}")).then_some(())
    });
    let said = server.says("cannot push ");
    assert!(
        said.contains("branches=closed") && said.contains("hook declined"),
        "{said}"
    );

    // A deletion, a new commit, and a head moved to other history.
    sandbox.ok(["branch", "delete", "gone"]);
    sandbox.ok(["branch", "reset", "open", "before"]);
    let late = put(&sandbox, "late", "2");
    let before = sandbox.ok(["branch", "head", "before"]);
    eventually("the second push", || {
        (there(&sandbox) == format!("late {late}\nopen {before}")).then_some(())
    });

    // What failed is pushed once it can be.
    std::fs::remove_file(sandbox.join("there.git/hooks/update")).unwrap();
    eventually("what was refused", || {
        there(&sandbox).contains("closed ").then_some(())
    });
    let (_, _, counts) = http(&url, "/metrics");
    let count = |name: &str| -> f64 {
        let line = counts.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(count("datakit_pushes_total") >= 3.0);
    assert!(count("datakit_push_failures_total") >= 1.0);
    assert!(count("datakit_push_seconds_total") > 0.0);

    // What was gathered is pushed before the end.
    let last = put(&sandbox, "late", "3");
    server.says("pushed branch=closed");
    server.stop();
    assert!(there(&sandbox).contains(&format!("late {last}")));
    assert!(!there(&sandbox).contains("before"));
}

#[test]
fn a_repository_that_is_away_is_tried_again() {
    let sandbox = Sandbox::with_store();
    let server = Server::ready(&sandbox, &["--auto-push", "there.git"]);
    let head = put(&sandbox, "master", "1");
    server.says("cannot push branches=master");
    sandbox.git(["init", "--quiet", "--bare", "there.git"]);
    eventually("the push", || {
        (there(&sandbox) == format!("master {head}")).then_some(())
    });
    server.stop();
}

#[test]
fn a_push_that_hangs_holds_up_neither_commits_nor_the_end() {
    let mut sandbox = Sandbox::with_store();
    sandbox.set("GIT_SSH_COMMAND", "echo >>asked; sleep 15; true");
    let server = Server::ready(&sandbox, &["--auto-push", "ssh://nowhere/there.git"]);
    put(&sandbox, "master", "1");
    eventually("a push", || sandbox.join("asked").exists().then_some(()));
    sandbox.set("DK_STORE", &server.address());
    put(&sandbox, "master", "2");
    let said = server.stop();
    assert!(
        said.iter().any(|line| line.contains("not all was pushed")),
        "{said:#?}"
    );
}
