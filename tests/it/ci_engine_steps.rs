//! What steps may say, as the engine understands it: needs, outputs, `when`,
//! matrices, retries, steps in the tree; and engines beside each other.

use std::sync::atomic::Ordering;

use datakit::ci::engine::{Engine, Options, Round};
use datakit::ci::request::{self, Chosen, Which};
use datakit::ci::{config, retention, why};
use datakit::client::At;
use datakit::model::{BranchName, Kind, Time, TreePath};

use crate::ci_engine::world::*;

const TEST: &str = "[project.step.test]\nrun = \"make\"\n";

#[tokio::test]
async fn outputs_go_where_they_are_needed() {
    let steps = "[project.step.build]\nrun = \"make\"\ninputs = [\"src\"]\noutputs = [\"bin/app\"]\n\
                 [project.step.test]\nrun = \"bin/app\"\ninputs = [\"test\"]\nneeds = [\"build\"]\n";
    let mut dk = Place::new(&project(steps)).await;
    let one = dk
        .commit(&[("src/a", "1"), ("test/t", "1"), ("doc", "1")])
        .await;
    dk.head("master", &one).await;
    let build = dk.begun().await;
    assert_eq!(build.cell(), "build");
    build.succeed(&[("bin/app", "an app")]);
    let test = dk.begun().await;
    let placed = &test.job.placed[0];
    let (at, path) = (&placed.at, TreePath::new("bin/app").unwrap());
    assert!(matches!(at, At::Tree(_)));
    assert!(placed.client.stat(at, &path).await.unwrap().is_some());
    test.succeed(&[]);
    dk.expect(&one, "test", "success Success").await;
    // Another source that makes the same: the test need not run.
    let two = dk.commit(&[("src/a", "2")]).await;
    dk.head("master", &two).await;
    let build = dk.begun().await;
    dk.expect(&two, "test", "pending Waiting for build").await;
    build.succeed(&[("bin/app", "an app")]);
    dk.expect(&two, "test", "success Success").await;
    assert_eq!(dk.count(), 3);
    let reasons = why::why(&*dk.dk, &target("heads/master"), "build")
        .await
        .unwrap();
    let before = reasons.before.unwrap();
    assert_eq!(before.source, Some(one));
    let changed: Vec<&str> = before
        .changed
        .iter()
        .map(|part| part.what.as_str())
        .collect();
    assert_eq!(changed, ["input src"]);
}

#[tokio::test]
async fn steps_that_do_not_apply_are_skipped() {
    let steps = "[project.step.test]\nrun = \"make\"\nwhen = { branch = \"master\" }\n\
                 [project.step.docs]\nrun = \"docs\"\ninputs = [\"doc\"]\nwhen = { changed = [\"doc/**\"] }\n";
    let mut dk = Place::new(&project(steps)).await;
    let one = dk.commit(&[("doc/a", "1"), ("src", "1")]).await;
    dk.head("other", &one).await;
    dk.expect(&one, "test", "success skipped: only on master")
        .await;
    dk.begun().await.succeed(&[]);
    dk.expect(&one, "docs", "success Success").await;
    let two = dk.commit(&[("src", "2")]).await;
    dk.head("other", &two).await;
    let skipped = "success skipped: nothing changed in doc/**";
    dk.expect(&two, "docs", skipped).await;
    // Also after a restart: the history says what was tested.
    dk.start().await.unwrap();
    let three = dk.commit(&[("src", "3")]).await;
    dk.head("other", &three).await;
    dk.expect(&three, "docs", skipped).await;
    let four = dk.commit(&[("doc/a", "4")]).await;
    dk.head("other", &four).await;
    dk.begun().await.succeed(&[]);
    dk.expect(&four, "docs", "success Success").await;
    // A pull request is compared with where it left its base.
    dk.head("master", &three).await;
    dk.pr(1, &four, PROJECT).await;
    dk.rounds().await;
    assert_eq!(dk.status(&four, "docs").await, "success Success");
    assert_eq!(dk.begun().await.cell(), "test", "on master");
    assert_eq!(dk.count(), 2, "and docs before it");
}

#[tokio::test]
async fn a_head_that_was_left_before_it_was_tested_is_no_base() {
    let steps = "[project.step.docs]\nrun = \"docs\"\nwhen = { changed = [\"doc/**\"] }\n";
    let mut dk = Place::new(&project(steps)).await;
    let one = dk.commit(&[("doc/a", "1")]).await;
    dk.head("master", &one).await;
    dk.begun().await.succeed(&[]);
    dk.expect(&one, "docs", "success Success").await;
    let two = dk.commit(&[("doc/a", "2")]).await;
    dk.head("master", &two).await;
    let mut left = dk.begun().await;
    let three = dk.commit(&[("src", "3")]).await;
    dk.head("master", &three).await;
    dk.rounds().await;
    left.stopped().await;
    dk.begun().await.succeed(&[]);
    dk.expect(&three, "docs", "success Success").await;
}

#[tokio::test]
async fn every_cell_of_a_matrix_has_its_result() {
    let steps = "[project.step.test]\nrun = \"make\"\nmatrix = { OS = [\"x\", \"y\"] }\n\
                 [project.step.ship]\nrun = \"ship\"\nneeds = [\"test\"]\n";
    let mut dk = Place::new(&project(steps)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    let (one, two) = (dk.begun().await, dk.begun().await);
    let mut seen = [one.job.env["OS"].clone(), two.job.env["OS"].clone()];
    seen.sort();
    assert_eq!(seen, ["x", "y"]);
    one.succeed(&[]);
    two.succeed(&[]);
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "ship", "success Success").await;
    for cell in ["test,OS=x", "test,OS=y"] {
        assert_eq!(dk.status(&sha, cell).await, "success Success", "{cell}");
    }
    let metadata = dk.metadata_branch();
    let chosen = Chosen {
        which: Which::Target(target("heads/master")),
        step: Some("test".into()),
        failed: false,
    };
    let asked = request::rebuild(&*dk.dk, &metadata, &chosen, None).await;
    assert_eq!(asked.unwrap().len(), 2);
}

#[tokio::test]
async fn a_failure_is_tried_again_where_it_may_be() {
    let steps = format!("{TEST}retry = {{ times = 2, on = \"exit 75\" }}\n");
    let mut dk = Place::new(&project(&steps)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    for _ in 0..2 {
        dk.begun().await.exit("exited with status 75", 75);
    }
    dk.begun().await.exit("exited with status 75", 75);
    dk.expect(&sha, "test", "failure exited with status 75")
        .await;
    assert_eq!(dk.count(), 3);
    let result = dk.result("heads/master", "test").to_string();
    let log = dk.read(&result, "log").await.unwrap();
    assert_eq!(log.matches("trying again").count(), 2);
    let next = dk.commit(&[("a", "2")]).await;
    dk.head("master", &next).await;
    dk.begun().await.exit("exited with status 1", 1);
    dk.expect(&next, "test", "failure exited with status 1")
        .await;
}

#[tokio::test]
async fn steps_in_the_tree() {
    let config = project("steps-from = \".dk-ci.toml\"\n");
    let mut dk = Place::new(&config).await;
    let file = |run: &str| format!("[step.test]\nrun = \"{run}\"\ninputs = [\"src\"]\n");
    let none = dk.commit(&[("src/a", "1")]).await;
    dk.head("master", &none).await;
    dk.expect(&none, "configuration", "failure .dk-ci.toml does not exist")
        .await;
    let wrong = dk
        .commit(&[(".dk-ci.toml", "[step.test]\nrun = \"x\"\npool = \"p\"\n")])
        .await;
    dk.head("master", &wrong).await;
    dk.rounds().await;
    let status = dk.status(&wrong, "configuration").await;
    assert!(status.starts_with("failure .dk-ci.toml:3:"), "{status}");
    let right = dk.commit(&[(".dk-ci.toml", &file("make"))]).await;
    dk.head("master", &right).await;
    dk.begun().await.succeed(&[]);
    dk.expect(&right, "test", "success Success").await;
    // A fork's own steps are not so much as read before somebody approves.
    let evil = dk.commit_on("fork", &[(".dk-ci.toml", &file("rm"))]).await;
    dk.pr(1, &evil, "you/fork").await;
    dk.rounds().await;
    let status = dk.status(&evil, "test").await;
    assert!(
        status.starts_with("pending Waiting for approval"),
        "{status}"
    );
    assert_eq!(dk.count(), 1);
}

#[tokio::test]
async fn what_nobody_wants_is_stopped_and_what_somebody_wants_is_not() {
    let mut dk = Place::new(&project(TEST)).await;
    let one = dk.commit(&[("a", "1")]).await;
    dk.head("master", &one).await;
    dk.head("other", &one).await;
    let mut job = dk.begun().await;
    dk.rounds().await;
    assert_eq!(dk.count(), 1, "one result for both");
    let two = dk.commit(&[("a", "2")]).await;
    dk.head("master", &two).await;
    let other = dk.begun().await;
    dk.rounds().await;
    assert!(!job.is_stopped(), "the other branch wants it");
    dk.head("other", &two).await;
    dk.rounds().await;
    job.stopped().await;
    other.succeed(&[]);
    dk.expect(&two, "test", "success Success").await;
    // Back again: what was stopped is built.
    dk.head("master", &one).await;
    dk.begun().await.succeed(&[]);
    dk.expect(&one, "test", "success Success").await;
}

#[tokio::test]
async fn a_target_that_vanished_wants_nothing() {
    let mut dk = Place::new(&project(TEST)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.pr(1, &sha, PROJECT).await;
    let mut job = dk.begun().await;
    dk.rounds().await;
    dk.forge(&[("pr/1/state", "closed")]).await;
    dk.rounds().await;
    job.stopped().await;
    let status = "status-user-project-pr-1";
    assert!(dk.output(status, "test").await.contains("pending"));
}

#[tokio::test]
async fn a_round_does_what_changed_and_no_more() {
    let mut dk = Place::new(&project(&format!("{TEST}inputs = [\"src\"]\n"))).await;
    let sha = dk.commit(&[("src/a", "1")]).await;
    let heads: Vec<(String, String)> = (0..60)
        .map(|n| (format!("{PROJECT}/ref/heads/b{n}/head"), format!("{sha}\n")))
        .collect();
    dk.metadata(&heads).await;
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
    dk.rounds().await;
    assert_eq!(dk.round().await, Round::default());
    let next = dk.commit(&[("doc", "1")]).await;
    dk.head("b7", &next).await;
    let done = Round {
        evaluated: 1,
        recorded: 1,
        statuses: 1,
    };
    assert_eq!(dk.round().await, done);
    assert_eq!(dk.round().await, Round::default());
    dk.other_status(&next, "pending", "").await;
    assert_eq!(dk.round().await, Round::default(), "nobody waits for it");
    assert_eq!(dk.count(), 1);
}

#[tokio::test]
async fn one_engine_serves_a_store() {
    let mut dk = Place::new(&project(TEST)).await;
    let start = async |world| {
        let config = config::engine(&project(TEST)).unwrap();
        Engine::start(world, config, Options::default()).await
    };
    let elsewhere = |dk: &Place| {
        let mut world = dk.world();
        world.holder.host = "elsewhere".into();
        world
    };
    let refused = start(elsewhere(&dk)).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(
        refused.to_string().contains("process 1 on here"),
        "{refused}"
    );
    // While it is renewed, it stands.
    for seconds in [60, 120, 180] {
        dk.clock.0.store(seconds, Ordering::SeqCst);
        dk.round().await;
    }
    assert!(start(elsewhere(&dk)).await.is_err());
    assert_eq!(dk.commits("dk-ci-lease").await, 1, "it does not grow");
    // Killed, and not seen for long: another one takes over, and the first
    // one, if it lives after all, does nothing more.
    dk.clock.0.store(1000, Ordering::SeqCst);
    let second = start(elsewhere(&dk)).await.unwrap();
    let first = dk.engine.as_mut().unwrap();
    assert_eq!(first.round().await.unwrap_err().kind(), Kind::Busy);
    // Given back, it is free at once.
    second.close().await.unwrap();
    assert_eq!(dk.commits("dk-ci-lease").await, 0);
    dk.start().await.unwrap();
}

#[tokio::test]
async fn canaries_are_all_that_is_tested() {
    let dk = Place::new(&project(TEST)).await;
    let (one, two) = (
        dk.commit(&[("a", "1")]).await,
        dk.commit(&[("a", "2")]).await,
    );
    dk.head("master", &one).await;
    dk.head("other", &two).await;
    let config = config::engine(&project(TEST)).unwrap();
    let options = Options {
        canaries: vec![target("heads/other")],
        ..Options::default()
    };
    let mut engine = Engine::start(dk.world(), config, options).await.unwrap();
    let round = engine.round().await.unwrap();
    assert_eq!((round.evaluated, round.statuses), (1, 1));
    assert_eq!(dk.status(&one, "test").await, " ");
    assert_eq!(dk.status(&two, "test").await, "pending Running test");
    let url = format!("{PROJECT}/commit/{two}/status/ci/datakit/test/target_url");
    let url = dk.read("github-metadata", &url).await;
    assert_eq!(url, None, "there is no page");
}

#[tokio::test]
async fn builds_wait_for_a_place_in_their_pool() {
    let config = format!(
        "[pool]\nheavy = 1\n{}",
        project(
            "[project.step.a]\nrun = \"a\"\npool = \"heavy\"\n[project.step.b]\nrun = \"b\"\npool = \"heavy\"\n"
        )
    );
    let mut dk = Place::new(&config).await;
    let sha = dk.commit(&[("x", "1")]).await;
    dk.head("master", &sha).await;
    let first = dk.begun().await;
    let other = if first.cell() == "a" { "b" } else { "a" };
    let waits = "pending Waiting for resource in \"heavy\"";
    dk.expect(&sha, other, waits).await;
    let report = dk.engine.as_ref().unwrap().status().report();
    let heavy = report
        .pools
        .iter()
        .find(|pool| pool.name == "heavy")
        .unwrap();
    assert_eq!(heavy.waiting[0].cell, other);
    first.succeed(&[]);
    let second = dk.begun().await;
    assert_eq!(second.cell(), other);
    second.succeed(&[]);
    dk.expect(&sha, other, "success Success").await;
}

#[tokio::test]
async fn a_log_is_in_the_store_while_it_grows() {
    let mut dk = Place::new(&project(&format!("log-limit = \"1MiB\"\n{TEST}"))).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    let mut job = dk.begun().await;
    let result = dk.result("heads/master", "test").to_string();
    job.log.write(b"one line\n").await;
    let parts = async {
        while dk.read(&result, "log.d/00000001").await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), parts)
        .await
        .unwrap();
    assert_eq!(
        dk.read(&result, "log.d/00000001").await.unwrap(),
        "one line\n"
    );
    assert_eq!(dk.read(&result, "log").await, None);
    // Past its limit the step ends.
    for _ in 0..40 {
        job.log.write(&[b'x'; 65536]).await;
    }
    job.stopped().await;
    dk.expect(&sha, "test", "failure Log is longer than 1048576 bytes")
        .await;
    let log = dk.read(&result, "log").await.unwrap();
    assert!(log.contains("The log ends here") && log.len() < 1 << 21);
    assert_eq!(dk.read(&result, "log.d/00000001").await, None);
}

#[tokio::test]
async fn old_builds_are_dropped_but_not_what_a_target_has() {
    let steps = format!("keep = {{ logs = \"1d\", builds = 2 }}\n{TEST}outputs = [\"out\"]\n");
    let mut dk = Place::new(&project(&steps)).await;
    let mut results = Vec::new();
    for number in 1..=4 {
        dk.clock.0.store(number, Ordering::SeqCst);
        let sha = dk.commit(&[("a", &number.to_string())]).await;
        dk.head("master", &sha).await;
        dk.begun().await.succeed(&[("out", "o")]);
        dk.expect(&sha, "test", "success Success").await;
        if number == 1 {
            dk.forge(&[("ref/tags/v1/head", &sha)]).await;
            dk.rounds().await;
        }
        results.push(dk.result("heads/master", "test"));
    }
    let keep = config::Keep {
        logs: Some(std::time::Duration::from_secs(86400)),
        builds: Some(2),
    };
    let keeps = [(dk.repo(), keep)].into();
    let sweep = async |days: i64| {
        let now = Time {
            seconds: days * 86400 + 10,
            offset: 0,
        };
        let current = |branch: &BranchName| *branch == results[3];
        retention::sweep(&*dk.dk, &keeps, current, now)
            .await
            .unwrap()
    };
    let dropped = |logs, builds| retention::Dropped { logs, builds };
    assert_eq!(sweep(0).await, dropped(0, 1));
    assert_eq!(sweep(2).await, dropped(1, 0));
    assert_eq!(sweep(9).await, dropped(0, 0), "once is enough");
    let log = async |index: usize| dk.read(&results[index].to_string(), "log").await;
    for (index, wanted) in [(0, "=== Run"), (2, "expired 1970-01-03\n"), (3, "=== Run")] {
        assert!(log(index).await.unwrap().starts_with(wanted), "{index}");
    }
    assert_eq!(log(1).await, None);
    let expired = results[2].to_string();
    assert_eq!(dk.commits(&expired).await, 1);
    assert_eq!(
        dk.read(&expired, "value/out").await.unwrap(),
        "o",
        "still a result"
    );
}
