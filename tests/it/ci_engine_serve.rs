//! `dk ci serve` with real processes: from a push to a status and a log.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Stdio};

use crate::sandbox::{Sandbox, eventually};

/// A process that ends with the test.
struct Daemon(Child);

impl Daemon {
    fn new(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.command(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Asks it to end, and returns its exit status.
    fn end(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.0.wait().unwrap().code()
    }

    fn kill(mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CONFIG: &str = r#"
[[project]]
repo = "me/app"
source = "app.git"

[project.step.build]
run = "echo building; mkdir bin; cp src bin/app"
inputs = ["src"]
outputs = ["bin/app"]

[project.step.test]
run = "cat bin/app; grep -q good bin/app"
inputs = ["tests"]
needs = ["build"]
"#;

/// A store, a repository people push to, and a bridge between the two.
fn world(config: &str) -> (Sandbox, Daemon) {
    let sandbox = Sandbox::with_store();
    sandbox.git(["init", "-q", "--bare", "app.git"]);
    sandbox.git(["init", "-q", "-b", "master", "work"]);
    sandbox.write("ci.toml", config);
    let bridge = Daemon::new(&sandbox, &["bridge", "local", "me/app:app.git", "--tags"]);
    (sandbox, bridge)
}

const SERVE: [&str; 8] = [
    "ci",
    "serve",
    "--config",
    "ci.toml",
    "--cache-dir",
    "cache",
    "--jobs",
    "2",
];

/// Commits and pushes; returns the commit.
fn push(sandbox: &Sandbox, src: &str) -> String {
    sandbox.write("work/src", src);
    sandbox.git(["-C", "work", "add", "."]);
    sandbox.git(["-C", "work", "commit", "-q", "-m", src]);
    sandbox.git(["-C", "work", "push", "-q", "../app.git", "master"]);
    sandbox
        .git(["-C", "work", "rev-parse", "HEAD"])
        .trim()
        .to_owned()
}

/// Waits until a step has a status.
fn status(sandbox: &Sandbox, sha: &str, step: &str, wanted: &str) {
    let folder = format!("github-metadata:me/app/commit/{sha}/status/ci/datakit/{step}");
    eventually(&format!("{step} {wanted}"), || {
        let state = sandbox.dk(["cat", &format!("{folder}/state")]);
        (state.trim_end() == wanted).then_some(())
    });
}

/// The branch of a step's result.
fn result(sandbox: &Sandbox, step: &str) -> String {
    let why = sandbox.ok(["ci", "why", "me/app/heads/master", step]);
    let line = why.lines().find_map(|line| line.strip_prefix("result "));
    line.unwrap().to_owned()
}

#[test]
fn a_push_becomes_a_status_and_a_log() {
    let (sandbox, _bridge) = world(CONFIG);
    let engine = Daemon::new(&sandbox, &SERVE);
    let one = push(&sandbox, "good");
    status(&sandbox, &one, "test", "success");
    let build = result(&sandbox, "build");
    assert_eq!(
        sandbox.ok(["cat", &format!("{build}:value/bin/app")]),
        "good"
    );
    let log = sandbox.ok(["cat", &format!("{build}:log")]);
    assert!(
        log.contains("\nbuilding\n") && log.ends_with(" Success"),
        "{log}"
    );
    let two = push(&sandbox, "bad");
    status(&sandbox, &two, "test", "failure");
    let why = sandbox.ok(["ci", "why", "me/app/heads/master", "test"]);
    assert!(why.starts_with("need build: "), "{why}");
    // Another engine is refused.
    let said = sandbox.dk(SERVE);
    assert!(
        said.contains("another engine serves this store") && said.ends_with("exit status 1\n"),
        "{said}"
    );
    let asked = sandbox.ok(["ci", "rebuild", "--failed"]);
    assert_eq!(asked, result(&sandbox, "test"));
    let built = || {
        sandbox
            .ok(["log", &result(&sandbox, "test")])
            .matches("Cached failure")
            .count()
    };
    eventually("another build", || (built() == 2).then_some(()));
    assert_eq!(engine.end(), Some(0));
    let branches = sandbox.ok(["branch"]);
    assert!(!branches.contains("dk-ci-lease"), "{branches}");
    sandbox.git(["-C", "db.git", "fsck", "--strict"]);
}

/// Reads a page.
fn get(at: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(at).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_push_becomes_a_page() {
    let (sandbox, _bridge) = world(CONFIG);
    let secrets = ["--secrets-dir", "secrets"];
    let add = ["ci", "user", "add", "admin", "--password-file", "-"];
    sandbox.ok_with("correct horse\n", [&add[..], &secrets].concat());
    let words = [&SERVE[..], &secrets, &["--web", "127.0.0.1:0"]].concat();
    let mut engine = sandbox.command(words).stderr(Stdio::piped()).spawn();
    let mut said = BufReader::new(engine.as_mut().unwrap().stderr.take().unwrap()).lines();
    let engine = Daemon(engine.unwrap());
    let at = said.find_map(|line| {
        let line = line.unwrap();
        let at = line.strip_prefix("dk: page at http://")?;
        Some(at.trim_end_matches('/').to_owned())
    });
    let at = at.unwrap();
    // Whatever else it says is read, too, so that it need not wait.
    let rest = std::thread::spawn(move || said.map_while(Result::ok).count());
    let one = push(&sandbox, "good");
    status(&sandbox, &one, "test", "success");
    let link = eventually("the page", || {
        let page = get(&at, "/me/app/ref/heads/master");
        let mut links = page.split('"').filter(|_| page.contains(&one));
        let log = links.find(|link| link.starts_with("/log/saved/dk-step-build-of-"));
        log.map(str::to_owned)
    });
    let log = get(&at, &link);
    assert!(log.contains("building"), "{log}");
    assert_eq!(engine.end(), Some(0));
    rest.join().unwrap();
}

#[test]
fn a_killed_engine_leaves_no_process_and_is_resumed() {
    let config = "[[project]]\nrepo = \"me/app\"\nsource = \"app.git\"\n\
                  [project.step.test]\nrun = \"\"\"\nif [ -e src ] && grep -q slow src; then\n\
                  echo begun; sleep 86399; fi\n\"\"\"\n";
    let (sandbox, _bridge) = world(config);
    let engine = Daemon::new(&sandbox, &SERVE);
    let sha = push(&sandbox, "slow");
    status(&sandbox, &sha, "test", "pending");
    let part = format!("{}:log.d/00000001", result(&sandbox, "test"));
    eventually("the log grows", || {
        let log = sandbox.dk(["cat", &part]);
        log.contains("begun").then_some(())
    });
    engine.kill();
    // Whoever takes over at once finds the holder gone.
    let engine = Daemon::new(&sandbox, &SERVE);
    let result = result(&sandbox, "test");
    let begun = || sandbox.ok(["log", &result]).matches("Start test").count();
    eventually("the build begins again", || (begun() == 2).then_some(()));
    eventually("cancelled", || {
        sandbox.dk(["ci", "cancel", "--all"]);
        let log = sandbox.dk(["cat", &format!("{result}:log")]);
        log.contains("Cancelled at user's request").then_some(())
    });
    status(&sandbox, &sha, "test", "failure");
    assert_eq!(engine.end(), Some(0));
}

#[test]
fn what_is_wrong_is_said() {
    let sandbox = Sandbox::with_store();
    sandbox.write("ci.toml", CONFIG.replace("needs", "nedes"));
    let said = sandbox.dk(SERVE);
    assert!(
        said.contains("ci.toml:14:") && said.ends_with("exit status 2\n"),
        "{said}"
    );
    sandbox.write("ci.toml", CONFIG);
    let said = sandbox.dk(SERVE);
    assert!(said.contains("app.git does not exist"), "{said}");
    let nobody = "me/app/heads/master";
    for (arguments, why, status) in [
        (
            vec!["ci", "rebuild"],
            "name a target, or say --failed or --commit",
            2,
        ),
        (
            vec!["ci", "cancel"],
            "name a target, or say --outdated or --all",
            2,
        ),
        (
            vec!["ci", "rebuild", nobody],
            "a history of me/app/heads/master does not exist",
            4,
        ),
        (
            vec!["ci", "rebuild", "me/app"],
            "missing heads/NAME, tags/NAME or pr/N",
            2,
        ),
        (vec!["ci", "why", nobody, "test"], "does not exist", 4),
        (
            vec!["ci", "approve", nobody, "--commit", "abc"],
            "is not a commit's full id",
            2,
        ),
    ] {
        let said = sandbox.dk(&arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
        assert!(said.ends_with(&format!("exit status {status}\n")), "{said}");
    }
}

#[test]
fn a_store_far_away_may_be_gone_for_a_while() {
    let (sandbox, _) = world(CONFIG);
    let url = format!("unix://{}", sandbox.join("s").display());
    let server = || Daemon::new(&sandbox, &["serve", "db.git", "--listen", &url]);
    let first = server();
    eventually("the server listens", || {
        sandbox.join("s").exists().then_some(())
    });
    let far = |words: &[&'static str]| {
        let mut all = vec!["-C", url.as_str()];
        all.extend(words);
        Daemon::new(&sandbox, &all)
    };
    let _bridge = far(&["bridge", "local", "me/app:app.git"]);
    let engine = far(&SERVE);
    let one = push(&sandbox, "good");
    status(&sandbox, &one, "test", "success");
    first.kill();
    let two = push(&sandbox, "bad");
    let _second = server();
    status(&sandbox, &two, "build", "success");
    status(&sandbox, &two, "test", "failure");
    assert_eq!(engine.end(), Some(0));
}

/// Says what GitHub's bridge would of a pull request to master.
fn pull_request(sandbox: &Sandbox, number: u32, head: &str, from: &str) {
    for (name, text) in [
        ("base", "master"),
        ("head-repo", from),
        ("state", "open"),
        ("title", "A change"),
        ("owner", "eve"),
        ("head", head),
    ] {
        let path = format!("github-metadata:me/app/pr/{number}/{name}");
        sandbox.ok_with(format!("{text}\n"), ["put", &path]);
    }
}

/// Has an engine follow a repository that is fetched from: branches, tags and
/// pull requests, of which one comes from elsewhere.
fn follow(url: impl FnOnce(&Sandbox) -> String) {
    let (sandbox, _bridge) = world(CONFIG);
    let url = url(&sandbox);
    sandbox.write("ci.toml", CONFIG.replace("app.git", &url));
    let engine = Daemon::new(&sandbox, &SERVE);
    let one = push(&sandbox, "good");
    status(&sandbox, &one, "test", "success");
    let two = push(&sandbox, "bad");
    status(&sandbox, &two, "test", "failure");
    // A branch that went back and elsewhere, and a tag with a note.
    let git = |words: &[&str]| sandbox.git([&["-C", "work"], words].concat());
    git(&["reset", "-q", "--hard", &one]);
    sandbox.write("work/src", "good again");
    git(&["commit", "-qam", "again"]);
    git(&["tag", "-m", "a note", "v1"]);
    git(&["push", "-qf", "../app.git", "master", "v1"]);
    let three = git(&["rev-parse", "HEAD"]).trim().to_owned();
    status(&sandbox, &three, "test", "success");
    eventually("the tag", || {
        let told = sandbox.dk(["ci", "status", "me/app/tags/v1"]);
        told.contains("success").then_some(())
    });
    // Pull requests, as GitHub has them.
    for (number, from) in [(7, "me/app"), (8, "eve/app")] {
        sandbox.write("work/src", format!("good {number}"));
        git(&["commit", "-qam", "change"]);
        let head = git(&["rev-parse", "HEAD"]).trim().to_owned();
        git(&[
            "push",
            "-q",
            "../app.git",
            &format!("HEAD:refs/pull/{number}/head"),
        ]);
        pull_request(&sandbox, number, &head, from);
        if from != "me/app" {
            status(&sandbox, &head, "test", "pending");
            let target = format!("me/app/pr/{number}");
            let told = sandbox.ok(["ci", "status", &target]);
            assert!(told.contains("Waiting for approval"), "{told}");
            sandbox.ok(["ci", "approve", &target, "--commit", &head]);
        }
        status(&sandbox, &head, "test", "success");
    }
    assert_eq!(engine.end(), Some(0));
}

#[test]
fn a_source_may_be_the_url_of_files() {
    follow(|sandbox| format!("file://{}", sandbox.join("app.git").display()));
}

#[test]
#[cfg(feature = "https")]
fn a_source_may_be_at_a_server() {
    let mut server = None;
    follow(|sandbox| {
        let (running, port) = crate::fetching::http_server(sandbox.path()).expect("python3");
        server = Some(running);
        format!("http://127.0.0.1:{port}/app.git")
    });
}

#[test]
fn a_source_that_cannot_be_reached_is_told_and_tried_again() {
    let (sandbox, _bridge) = world(CONFIG);
    let url = format!("file://{}", sandbox.join("moved.git").display());
    sandbox.write("ci.toml", CONFIG.replace("app.git", &url));
    let engine = Daemon::new(&sandbox, &SERVE);
    let one = push(&sandbox, "good");
    status(&sandbox, &one, "test", "failure");
    let told = sandbox.ok(["ci", "status", "me/app/heads/master"]);
    assert!(told.contains(&format!("Cannot fetch {one}: ")), "{told}");
    // Whoever begins anew does not remember that it failed.
    assert_eq!(engine.end(), Some(0));
    sandbox.git(["clone", "-q", "--mirror", "app.git", "moved.git"]);
    let engine = Daemon::new(&sandbox, &SERVE);
    status(&sandbox, &one, "test", "success");
    assert_eq!(engine.end(), Some(0));
}
