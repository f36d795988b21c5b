//! A round of the CI's engine: one head moves among many targets.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use datakit::ci::engine::{Engine, Options, Round, World};
use datakit::ci::lease::Holder;
use datakit::ci::{
    Clock, Ended, Job, LogSink, Outputs, Runner, Sources, Stop, SystemClock, Target, config,
};
use datakit::client::local::{Durability, Local, Options as Opened};
use datakit::client::{Client, CommitOptions, Content, Edit, Edits, Error, FileKind, Result, Sink};
use datakit::forge::Sha;
use datakit::model::{BranchName, HashKind, TreePath};

use crate::place::{Place, run};
use crate::report::{Need, Report, Samples};

const STEPS: usize = 10;

/// Every job succeeds at once.
#[derive(Default)]
struct Quick(AtomicUsize);

#[async_trait::async_trait]
impl Runner for Quick {
    async fn run(&self, _: Job, _: Arc<dyn LogSink>, _: Stop) -> Ended {
        self.0.fetch_add(1, Ordering::SeqCst);
        let outputs: Outputs = Box::new(|| Edits::at_hand(|_| Ok(())));
        Ended::Success {
            text: "Success".into(),
            outputs,
        }
    }
}

struct One(Arc<dyn Client>);

#[async_trait::async_trait]
impl Sources for One {
    async fn get(&self, _: &Target, _: &Sha) -> Result<Arc<dyn Client>> {
        Ok(self.0.clone())
    }
}

fn write(files: Vec<(String, String)>) -> Edits {
    Edits::new(move |sink: &mut dyn Sink| {
        for (path, content) in &files {
            sink.edit(Edit::Write {
                path: TreePath::new(path).unwrap(),
                kind: FileKind::Normal,
                content: Content::Bytes(content.as_bytes()),
            })?;
        }
        Ok(())
    })
}

async fn commit(client: &dyn Client, branch: &str, files: Vec<(String, String)>) -> String {
    let branch = BranchName::new(branch).unwrap();
    let made = client.edit(&branch, write(files), CommitOptions::default());
    made.await.unwrap().to_hex()
}

fn head(number: usize, sha: &str) -> (String, String) {
    (format!("u/r/ref/heads/b{number}/head"), format!("{sha}\n"))
}

fn configuration() -> config::Config {
    let mut text = "[[project]]\nrepo = \"u/r\"\nsource = \".\"\n".to_owned();
    for step in 0..STEPS {
        text += &format!("[project.step.s{step}]\nrun = \"true\"\ninputs = [\"src/s{step}\"]\n");
    }
    config::engine(&text).unwrap()
}

/// From a head that moved, with all results known, to its statuses in the store.
pub fn round(place: &Place, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let targets = place.choose(200, 1000);
    let folder = tempfile::tempdir_in(place.folder()).unwrap();
    let path = folder.path().join("db.git");
    Local::init(&path, HashKind::Sha1).unwrap();
    let options = |durability| Opened {
        durability,
        ..Opened::default()
    };
    // What is set up need not last.
    let samples = runtime.block_on(async {
        let source: Arc<dyn Client> = Arc::new(Local::memory(HashKind::Sha1));
        let setup = Local::open(&path, options(Durability::None)).unwrap();
        let mut files: Vec<(String, String)> = (0..STEPS)
            .map(|step| (format!("src/s{step}/a"), "1".to_owned()))
            .collect();
        files.push(("doc".into(), String::new()));
        commit(&*source, "main", files).await;
        let mut heads = Vec::new();
        for number in 0..targets {
            let files = vec![("doc".to_owned(), number.to_string())];
            heads.push(head(number, &commit(&*source, "main", files).await));
        }
        commit(&setup, "github-metadata", heads).await;
        let world = |client: Local| World {
            client: Arc::new(client),
            sources: Arc::new(One(source.clone())),
            runner: Arc::new(Quick::default()),
            clock: Arc::new(SystemClock) as Arc<dyn Clock>,
            secrets: Arc::new(|_| Err("none".into())),
            holder: Holder {
                host: "here".into(),
                pid: 1,
                life: "1".into(),
                runs: Arc::new(|_| Some(false)),
            },
        };
        let start = async |durability| -> std::result::Result<Engine, Error> {
            let client = Local::open(&path, options(durability))?;
            let options = Options {
                jobs: 4,
                ..Options::default()
            };
            Engine::start(world(client), configuration(), options).await
        };
        let mut engine = start(Durability::None).await.unwrap();
        let done = async |engine: &mut Engine, number: usize| {
            let target: Target = format!("u/r/heads/b{number}").parse().unwrap();
            while engine.branches(&target).len() < STEPS
                || engine.round().await.unwrap() != Round::default()
                || engine
                    .status()
                    .report()
                    .pools
                    .iter()
                    .any(|pool| !pool.running.is_empty())
            {
                engine.round().await.unwrap();
            }
        };
        done(&mut engine, 0).await;
        engine.close().await.unwrap();
        let mut engine = start(Durability::Strict).await.unwrap();
        done(&mut engine, 0).await;
        let mut samples = Samples::new();
        for number in 0..place.choose(20, 100) {
            let files = vec![("doc".to_owned(), format!("moved {number}"))];
            let sha = commit(&*source, "main", files).await;
            commit(
                &setup,
                "github-metadata",
                vec![head(number % targets, &sha)],
            )
            .await;
            let begun = Instant::now();
            let round = engine.round().await.unwrap();
            samples.add(begun.elapsed());
            assert_eq!((round.evaluated, round.statuses), (1, STEPS));
        }
        engine.close().await.unwrap();
        samples
    });
    report.times("ci-round", samples.p50(), None, Need::Below(50.0));
    report.times("ci-round-p99", samples.quantile(0.99), None, Need::Nothing);
}

/// From `git push` to the first process of a step: the bridge, the engine and
/// the store are processes of their own, the store behind a Unix socket.
pub fn push(place: &Place, report: &mut Report) {
    let folder = tempfile::tempdir_in(place.folder()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let (store, work) = (path("db.git"), path("work"));
    Local::init(&store, HashKind::Sha1).unwrap();
    std::fs::create_dir(&work).unwrap();
    run(&mut place.git(folder.path(), ["init", "-q", "--bare", "app.git"]));
    run(&mut place.git(&work, ["init", "-q", "-b", "master"]));
    let begun = path("begun");
    let config = format!(
        "[[project]]\nrepo = \"u/r\"\nsource = \"app.git\"\n\
         [project.step.test]\nrun = \"cp number {}\"\n",
        begun.display()
    );
    std::fs::write(path("ci.toml"), config).unwrap();
    let socket = format!("unix://{}", path("s").display());
    let daemon = |words: &[&str]| {
        let mut command = place.dk(std::path::Path::new(&socket), words);
        command.current_dir(folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Daemon(command.spawn().unwrap())
    };
    let store = store.display().to_string();
    let _server = daemon(&["serve", &store, "--listen", &socket]);
    let limit = Instant::now() + std::time::Duration::from_secs(10);
    while !path("s").exists() && Instant::now() < limit {
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    let _bridge = daemon(&["bridge", "local", "u/r:app.git"]);
    let _engine = daemon(&["ci", "serve", "--config", "ci.toml", "--cache-dir", "cache"]);
    let mut samples = Samples::new();
    for number in 0..place.choose(6, 40) {
        std::fs::write(work.join("number"), number.to_string()).unwrap();
        run(&mut place.git(&work, ["add", "."]));
        run(&mut place.git(&work, ["commit", "-q", "-m", "n"]));
        let started = Instant::now();
        run(&mut place.git(&work, ["push", "-q", "../app.git", "master"]));
        let limit = started + std::time::Duration::from_secs(30);
        while std::fs::read_to_string(&begun).ok() != Some(number.to_string()) {
            assert!(Instant::now() < limit, "push {number} was not built");
            std::thread::park_timeout(std::time::Duration::from_micros(500));
        }
        // The first waits for the daemons to start.
        if number > 0 {
            samples.add(started.elapsed());
        }
    }
    report.times("ci-push", samples.p50(), None, Need::Below(100.0));
}

/// A process that ends with the row.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
