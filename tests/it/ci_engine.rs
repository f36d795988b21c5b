//! The engine, one round at a time: the cases of the ancestor's tests under
//! their names, then what dk adds.

use datakit::ci::request::{self, Chosen, Which};
use datakit::ci::{history, layout};
use datakit::model::{Kind, ObjectId};

pub mod world;

use world::*;

const TEST: &str = "[project.step.test]\nrun = \"make\"\n";

fn all_of(text: &str) -> Chosen {
    Chosen {
        which: Which::Target(target(text)),
        step: None,
        failed: false,
    }
}

fn id(sha: &str) -> ObjectId {
    ObjectId::from_hex(sha.as_bytes()).unwrap()
}

#[tokio::test]
async fn simple() {
    let steps = format!("{TEST}after-status = \"ci/circleci\"\n");
    let mut dk = Place::new(&project(&steps)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.pr(3907, &sha, PROJECT).await;
    let waits = "pending Waiting for ci/circleci status to appear";
    dk.expect(&sha, "test", waits).await;
    dk.other_status(&sha, "pending", "").await;
    let waits = "pending Waiting for ci/circleci to complete";
    dk.expect(&sha, "test", waits).await;
    dk.other_status(&sha, "success", "https://circle/50").await;
    dk.expect(&sha, "test", "pending Running test").await;
    let job = dk.begun().await;
    assert_eq!(job.job.env["DK_STATUS_URL"], "https://circle/50");
    job.log.waits(Some("Waiting for the handler"));
    dk.expect(&sha, "test", "pending Waiting for the handler")
        .await;
    job.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
    let url = format!("{PROJECT}/commit/{sha}/status/ci/datakit/test/target_url");
    assert_eq!(
        dk.read("github-metadata", &url).await.unwrap(),
        format!("https://ci/{PROJECT}/commit/{sha}?test=test\n")
    );
    let status = "status-user-project-pr-3907";
    let result = dk.result("pr/3907", "test");
    let commit = dk.dk.head(&result).await.unwrap().unwrap();
    assert_eq!(
        dk.output(status, "test").await,
        format!(
            "{{\"result\":{{\"status\":\"success\",\"descr\":\"Success\"}},\"logs\":\
             {{\"title\":\"Running test\",\"branch\":\"{result}\",\"commit\":\"{commit}\",\
             \"failed\":false}}}}"
        )
    );
    assert_eq!(dk.read(status, "source-commit").await, Some(sha.clone()));
    let index = format!("{PROJECT}/commit/{sha}/pr-3907");
    let head = dk.dk.head(&branch(status)).await.unwrap().unwrap();
    assert_eq!(dk.read("commit-index", &index).await, Some(head.to_hex()));
    assert_eq!(
        dk.read("github-metadata", &format!("{PROJECT}/.monitor"))
            .await,
        Some(String::new())
    );
}

#[tokio::test]
async fn branch_moves() {
    let mut dk = Place::new(&project(TEST)).await;
    let first = dk.commit(&[("a", "1")]).await;
    dk.head("foo", &first).await;
    dk.expect(&first, "test", "pending Running test").await;
    dk.begun().await.succeed(&[]);
    dk.expect(&first, "test", "success Success").await;
    let second = dk.commit(&[("a", "2")]).await;
    dk.head("foo", &second).await;
    dk.expect(&second, "test", "pending Running test").await;
    dk.begun().await.succeed(&[]);
    dk.expect(&second, "test", "success Success").await;
    assert_eq!(dk.status(&first, "test").await, "success Success");
}

#[tokio::test]
async fn circle_rebuild() {
    let steps = format!("{TEST}after-status = \"ci/circleci\"\n");
    let mut dk = Place::new(&project(&steps)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.pr(1, &sha, PROJECT).await;
    dk.other_status(&sha, "success", "https://circle/50").await;
    dk.expect(&sha, "test", "pending Running test").await;
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
    dk.other_status(&sha, "success", "https://circle/51").await;
    dk.expect(&sha, "test", "pending Running test").await;
    dk.begun().await.fail("bad");
    dk.expect(&sha, "test", "failure bad").await;
}

#[tokio::test]
async fn what_is_asked_for_at_the_forge_is_built_again() {
    let mut dk = Place::new(&project(TEST)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    dk.expect(&sha, "test", "pending Running test").await;
    dk.begun().await.fail("bad");
    dk.expect(&sha, "test", "failure bad").await;
    let mark = format!("commit/{sha}/status/ci/datakit/test/rebuild-requested");
    dk.forge(&[(&mark, "")]).await;
    dk.expect(&sha, "test", "pending Running test").await;
    let mark = format!("{PROJECT}/{mark}");
    assert_eq!(dk.read("github-metadata", &mark).await, None);
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
    assert_eq!(dk.count(), 2);
}

#[tokio::test]
async fn logs() {
    let steps = "[project.step.a]\nrun = \"a\"\n[project.step.b]\nrun = \"b\"\n\
                 [project.step.both]\nneeds = [\"a\", \"b\"]\nrun = \"c\"\n";
    let mut dk = Place::new(&project(steps)).await;
    let sha = dk.commit(&[("x", "1")]).await;
    dk.head("master", &sha).await;
    dk.expect(&sha, "both", "pending Waiting for a, b").await;
    let (one, two) = (dk.begun().await, dk.begun().await);
    let (a, b) = if one.cell() == "a" {
        (one, two)
    } else {
        (two, one)
    };
    a.fail("no");
    dk.expect(&sha, "both", "pending a failed (still waiting for b)")
        .await;
    b.succeed(&[]);
    dk.expect(&sha, "both", "failure a failed").await;
    assert_eq!(dk.count(), 2);
}

#[tokio::test]
async fn cancel() {
    let mut dk = Place::new(&project(TEST)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    let mut job = dk.begun().await;
    dk.rounds().await;
    let metadata = dk.metadata_branch();
    let asked = request::cancel(&*dk.dk, &metadata, &all_of("heads/master"), None).await;
    let result = dk.result("heads/master", "test");
    assert_eq!(asked.unwrap(), std::slice::from_ref(&result));
    dk.expect(&sha, "test", "failure Cancelled").await;
    job.stopped().await;
    let log = dk.read(&result.to_string(), "log").await.unwrap();
    assert_eq!(
        log,
        "=== Running test\n[1970-01-01 00:00.00] Starting...\n\
         [1970-01-01 00:00.00] Cancelled at user's request\n\
         [1970-01-01 00:00.00] Failed: Cancelled\n"
    );
    // It stays so, also for the next engine, until somebody wants it anew.
    dk.rounds().await;
    dk.start().await.unwrap();
    dk.rounds().await;
    assert_eq!(dk.count(), 0);
    let asked = request::cancel(&*dk.dk, &metadata, &all_of("heads/master"), None).await;
    assert_eq!(asked.unwrap_err().kind(), Kind::NotFound);
    dk.head("other", &sha).await;
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
}

#[tokio::test]
async fn what_is_asked_while_no_engine_runs_is_heeded_by_the_next() {
    let steps = format!("{TEST}[project.step.other]\nrun = \"other\"\n");
    let mut dk = Place::new(&project(&steps)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    let (one, two) = (dk.begun().await, dk.begun().await);
    let (mut test, other) = match one.cell() {
        "test" => (one, two),
        _ => (two, one),
    };
    other.succeed(&[]);
    dk.expect(&sha, "other", "success Success").await;
    dk.engine = None;
    test.stopped().await;
    let metadata = dk.metadata_branch();
    let step = |step: &str| Chosen {
        step: Some(step.into()),
        ..all_of("heads/master")
    };
    request::cancel(&*dk.dk, &metadata, &step("test"), None)
        .await
        .unwrap();
    request::rebuild(&*dk.dk, &metadata, &step("other"), None)
        .await
        .unwrap();
    dk.start().await.unwrap();
    let other = loop {
        let begun = dk.begun().await;
        // What is to be stopped may have been begun.
        if begun.cell() == "other" {
            break begun;
        }
    };
    other.succeed(&[]);
    let both = async {
        while dk.status(&sha, "other").await != "success Success"
            || dk.status(&sha, "test").await != "failure Cancelled"
        {
            dk.round().await;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), both)
        .await
        .unwrap();
}

#[tokio::test]
async fn cache() {
    let steps = format!("{TEST}inputs = [\"src/**\"]\noutputs = [\"out\"]\n");
    let mut dk = Place::new(&project(&steps)).await;
    let one = dk.commit(&[("src/a", "1")]).await;
    dk.head("master", &one).await;
    let job = dk.begun().await;
    job.log.line("Time=0").await;
    assert_eq!(job.inputs().await.keys().collect::<Vec<_>>(), ["src/a"]);
    job.succeed(&[("out", "first")]);
    dk.expect(&one, "test", "success Success").await;
    let result = dk.result("heads/master", "test");
    let log = "=== Running test\n[1970-01-01 00:00.00] Starting...\n\
               [1970-01-01 00:00.00] Time=0\n[1970-01-01 00:00.00] Success\n";
    assert_eq!(dk.read(&result.to_string(), "log").await.unwrap(), log);
    assert_eq!(
        dk.read(&result.to_string(), "value/out").await.unwrap(),
        "first"
    );
    let two = dk.commit(&[("src/a", "2")]).await;
    dk.head("master", &two).await;
    dk.begun().await.succeed(&[("out", "second")]);
    dk.expect(&two, "test", "success Success").await;
    // What is not an input starts nothing, and what was known is known.
    let three = dk.commit(&[("doc", "x")]).await;
    dk.head("master", &three).await;
    dk.expect(&three, "test", "success Success").await;
    dk.head("master", &one).await;
    dk.rounds().await;
    assert_eq!(
        (dk.count(), dk.result("heads/master", "test")),
        (2, result.clone())
    );
    let saved = dk.dk.head(&result).await.unwrap().unwrap();
    // A new engine knows it, too; asking twice for another is asking once.
    dk.start().await.unwrap();
    dk.rounds().await;
    assert_eq!(dk.count(), 0);
    let metadata = dk.metadata_branch();
    let all = Chosen {
        which: Which::All,
        ..all_of("heads/master")
    };
    let one_of = all_of("heads/master");
    let (first, second) = tokio::join!(
        request::rebuild(&*dk.dk, &metadata, &all, None),
        request::rebuild(&*dk.dk, &metadata, &one_of, None),
    );
    assert_eq!(first.unwrap(), second.unwrap());
    dk.expect(&one, "test", "pending Running test").await;
    let job = dk.begun().await;
    job.log.line("Time=2").await;
    job.succeed(&[("out", "third")]);
    dk.expect(&one, "test", "success Success").await;
    dk.rounds().await;
    assert_eq!(dk.count(), 1);
    assert!(
        dk.read(&result.to_string(), "log")
            .await
            .unwrap()
            .contains("Time=2")
    );
    assert_eq!(
        dk.read_at(&saved, "log").await.unwrap(),
        log,
        "a log never moves"
    );
    assert_eq!(dk.read("dk-ci", "requests").await, None);
}

#[tokio::test]
async fn failures_are_kept_until_somebody_asks() {
    let mut dk = Place::new(&project(TEST)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    dk.begun().await.fail("exited with status 1");
    dk.expect(&sha, "test", "failure exited with status 1")
        .await;
    dk.start().await.unwrap();
    dk.rounds().await;
    assert_eq!(dk.count(), 0);
    let metadata = dk.metadata_branch();
    let failed = Chosen {
        which: Which::Commit(sha.clone()),
        step: Some("test".into()),
        failed: true,
    };
    request::rebuild(&*dk.dk, &metadata, &failed, None)
        .await
        .unwrap();
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
    let asked = request::rebuild(&*dk.dk, &metadata, &failed, None).await;
    assert_eq!(asked.unwrap_err().kind(), Kind::NotFound, "nothing failed");
}

#[tokio::test]
async fn test_pending() {
    let mut dk = Place::new(&project(TEST)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    dk.expect(&sha, "test", "pending Running test").await;
    let job = dk.begun().await;
    job.log.waits(Some("Paused"));
    dk.expect(&sha, "test", "pending Paused").await;
    job.log.waits(None);
    dk.expect(&sha, "test", "pending Running test").await;
    job.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
}

#[tokio::test]
async fn cross_project() {
    let config = format!(
        "{}[project.step.test]\nrun = \"make\"\n\
         also = {{ repo = \"bob/bproj\", ref = \"heads/master\" }}\n\
         [[project]]\nrepo = \"bob/bproj\"\nsource = \".\"\ntargets = [\"heads/none\"]\n\
         [project.step.x]\nrun = \"x\"\n",
        project("")
    );
    let mut dk = Place::new(&config).await;
    let (pr, moved) = (
        dk.commit(&[("a", "1")]).await,
        dk.commit(&[("a", "2")]).await,
    );
    let one = dk.commit_on("bob", &[("lib", "987")]).await;
    let two = dk.commit_on("bob", &[("lib", "654")]).await;
    let bob = |sha: &str| {
        (
            "bob/bproj/ref/heads/master/head".to_owned(),
            format!("{sha}\n"),
        )
    };
    dk.pr(1, &pr, PROJECT).await;
    let missing = "failure Target bob/bproj/heads/master does not exist";
    dk.expect(&pr, "test", missing).await;
    dk.metadata(&[bob(&one)]).await;
    for (head, other, moves) in [(&pr, &one, 0), (&pr, &two, 1), (&moved, &two, 2)] {
        match moves {
            1 => dk.metadata(&[bob(&two)]).await,
            2 => dk.pr(1, &moved, PROJECT).await,
            _ => (),
        }
        let job = dk.begun().await;
        assert_eq!(
            job.job.env["DK_ALSO"],
            format!("bob/bproj/heads/master {other}")
        );
        assert_eq!(job.job.placed.len(), 1);
        let text = format!("Compile {} with {}", &head[..7], &other[..7]);
        job.fail(&text);
        dk.expect(head, "test", &format!("failure {text}")).await;
    }
    assert_eq!(dk.count(), 3);
}

#[tokio::test]
async fn history_is_a_chain_and_an_index() {
    use datakit::ci::{Logs, Outcome, Output, SavedLog};
    use std::collections::BTreeMap;
    let dk = Place::new(&project(TEST)).await;
    let master = target("heads/master");
    let client = &*dk.dk;
    let empty = history::load(client, &master).await.unwrap();
    assert_eq!(empty, history::Record::default());
    let repo = dk.repo();
    assert!(
        history::at_commit(client, &repo, "123")
            .await
            .unwrap()
            .is_empty()
    );
    let output = |descr: &str, logs: Logs| Output {
        result: Outcome::success(descr),
        logs,
    };
    let saved = SavedLog {
        title: "title".into(),
        branch: "b".into(),
        commit: "c".into(),
        failed: true,
    };
    let live = Logs::Live {
        branch: "live".into(),
    };
    let mut outputs = BTreeMap::from([
        ("one".to_owned(), output("1", Logs::None)),
        ("two".to_owned(), output("2", Logs::Saved(saved))),
        ("three".to_owned(), output("3", live)),
    ]);
    let metadata = dk.dk.head(&branch("dk-ci-lease")).await.unwrap().unwrap();
    let source = "123".to_owned();
    let first = history::record(
        client,
        &master,
        &empty,
        &metadata,
        &source,
        &outputs,
        &BTreeMap::new(),
    )
    .await;
    let first = first.unwrap().unwrap();
    let entry = (master.clone(), source.clone(), first);
    history::index(client, &[entry]).await.unwrap();
    let loaded = history::load(client, &master).await.unwrap();
    assert_eq!(loaded.outputs, outputs);
    let again = history::record(
        client,
        &master,
        &loaded,
        &metadata,
        &source,
        &outputs,
        &BTreeMap::new(),
    )
    .await;
    assert_eq!(again.unwrap(), None, "the same adds no commit");
    outputs.insert("one".into(), output("1b", Logs::None));
    outputs.remove("two");
    let second = history::record(
        client,
        &master,
        &loaded,
        &metadata,
        &source,
        &outputs,
        &BTreeMap::new(),
    )
    .await;
    let commit = dk.dk.commit(&second.unwrap().unwrap()).await.unwrap();
    assert_eq!(commit.parents, [first]);
    let message = String::from_utf8(commit.message).unwrap();
    assert!(
        message.starts_with("2 updates (one -> 1b, ...)\n\n"),
        "{message}"
    );
    let old = history::load_at(client, &first).await.unwrap();
    assert_eq!(old.source.as_deref(), Some("123"));
    assert_eq!(history::asleep(&old.outputs["three"]).logs, Logs::None);
    assert_eq!(
        history::at_commit(client, &repo, "123").await.unwrap(),
        [(master, first)]
    );
}

#[tokio::test]
async fn a_restart_sends_nothing_again() {
    let mut dk = Place::new(&project(TEST)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    dk.pr(1, &sha, PROJECT).await;
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
    dk.rounds().await;
    let heads = dk.dk.branches().await.unwrap();
    for _ in 0..2 {
        dk.start().await.unwrap();
        dk.rounds().await;
    }
    let lease = layout::LEASE_BRANCH.as_bytes();
    let without = |branches: Vec<datakit::model::Branch>| -> Vec<_> {
        branches
            .into_iter()
            .filter(|branch| branch.name.as_bytes() != lease)
            .collect()
    };
    assert_eq!(without(dk.dk.branches().await.unwrap()), without(heads));
    assert_eq!(dk.count(), 0);
}

#[tokio::test]
async fn a_killed_engine_is_resumed_in_the_middle_of_a_build() {
    let steps = format!("{TEST}[project.step.deploy]\nrun = \"deploy\"\nrerun = \"never\"\n");
    let mut dk = Place::new(&project(&steps)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    let (mut one, mut two) = (dk.begun().await, dk.begun().await);
    one.log.write(b"half a li").await;
    dk.rounds().await;
    let result = dk.result("heads/master", "test").to_string();
    dk.start().await.unwrap();
    // Jobs end with their engine.
    one.stopped().await;
    two.stopped().await;
    let job = dk.begun().await;
    assert_eq!(job.cell(), "test");
    let lost = "failure Interrupted, and not run again by itself";
    dk.expect(&sha, "deploy", lost).await;
    job.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
    assert!(
        dk.read(&result, "log")
            .await
            .unwrap()
            .starts_with("=== Running test\n")
    );
    assert_eq!(dk.count(), 1);
    let deploy = dk.result("heads/master", "deploy");
    request::rebuild_branch(&*dk.dk, &deploy, None)
        .await
        .unwrap();
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "deploy", "success Success").await;
}

#[tokio::test]
async fn a_fork_waits_for_approval_and_keeps_its_results_to_itself() {
    let mut dk = Place::new(&project(TEST)).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.pr(7, &sha, "you/fork").await;
    let waits = "pending Waiting for approval of a pull request from elsewhere";
    dk.expect(&sha, "test", waits).await;
    let other = "0".repeat(40);
    let seven = target("pr/7");
    request::approve(&*dk.dk, &seven, &id(&other), None)
        .await
        .unwrap();
    dk.rounds().await;
    assert_eq!(dk.count(), 0, "another commit was approved");
    request::approve(&*dk.dk, &seven, &id(&sha), None)
        .await
        .unwrap();
    dk.begun().await.succeed(&[]);
    dk.expect(&sha, "test", "success Success").await;
    let theirs = dk.result("pr/7", "test");
    // The same tree on a branch is built by itself.
    dk.head("master", &sha).await;
    dk.begun().await.fail("really bad");
    dk.expect(&sha, "test", "failure really bad").await;
    assert_ne!(dk.result("heads/master", "test"), theirs);
    // A new commit is to be looked at again.
    let next = dk.commit(&[("a", "2")]).await;
    dk.pr(7, &next, "you/fork").await;
    dk.expect(&next, "test", waits).await;
    let refused = request::approve(&*dk.dk, &target("heads/x"), &id(&sha), None).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn secrets_are_for_whom_they_are_granted_to() {
    let config = project(&format!(
        "untrusted = \"sandbox\"\n{TEST}secrets = [\"KEY\"]\n\
         [[project.secret]]\nname = \"KEY\"\nsteps = [\"test\"]\nrefs = [\"heads/master\"]\n"
    ));
    let mut dk = Place::new(&config).await;
    let sha = dk.commit(&[("a", "1")]).await;
    dk.head("master", &sha).await;
    let job = dk.begun().await;
    assert_eq!(job.job.secrets[0].value, b"hunter2");
    assert!(!job.job.sandbox);
    dk.head("other", &sha).await;
    let job = dk.begun().await;
    assert!(job.job.secrets.is_empty());
    dk.pr(1, &sha, "you/fork").await;
    let job = dk.begun().await;
    assert!(job.job.secrets.is_empty() && job.job.sandbox);
    // Approved: outside of the sandbox, still without secrets.
    request::approve(&*dk.dk, &target("pr/1"), &id(&sha), None)
        .await
        .unwrap();
    let job = dk.begun().await;
    assert!(job.job.secrets.is_empty() && !job.job.sandbox);
}
