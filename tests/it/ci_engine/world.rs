//! An engine that is advanced by hand: a store and sources in memory, jobs
//! that end when the test says so, and a clock that stands still.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datakit::ci::engine::{Engine, Options, Round, World};
use datakit::ci::lease::Holder;
use datakit::ci::*;
use datakit::client::local::Local;
use datakit::client::*;
use datakit::forge::{Repo, Sha};
use datakit::model::*;
use tokio::sync::{Notify, oneshot};

/// How long a test waits for what should happen at once.
const LIMIT: Duration = Duration::from_secs(30);

/// A job that waits for the test to end it.
pub struct Begun {
    pub job: Job,
    pub log: Arc<dyn LogSink>,
    answer: oneshot::Sender<Ended>,
}

impl Begun {
    pub fn cell(&self) -> &str {
        &self.job.cell
    }

    /// It succeeds, with these outputs.
    pub fn succeed(self, outputs: &[(&str, &str)]) {
        let files: Vec<(String, String)> = outputs
            .iter()
            .map(|(path, content)| (format!("value/{path}"), (*content).to_owned()))
            .collect();
        let outputs: Outputs = Box::new(move || edits(&files));
        let _ = self.answer.send(Ended::Success {
            text: "Success".into(),
            outputs,
        });
    }

    pub fn fail(self, text: &str) {
        self.exit(text, 1);
    }

    pub fn exit(self, text: &str, status: i32) {
        let _ = self.answer.send(Ended::Failure {
            text: text.into(),
            exit: Some(status),
        });
    }

    /// Whether the engine has told it to end, or given it up.
    pub fn is_stopped(&self) -> bool {
        self.answer.is_closed()
    }

    pub async fn stopped(&mut self) {
        tokio::time::timeout(LIMIT, self.answer.closed())
            .await
            .unwrap();
    }

    /// What the inputs hold.
    pub async fn inputs(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for item in &self.job.inputs {
            let mut content = String::new();
            let mut blob = self.job.source.open_blob(&item.entry.id).await.unwrap();
            blob.read_to_string(&mut content).unwrap();
            found.insert(item.path.to_string(), content);
        }
        found
    }
}

/// Jobs as the engine begins them.
#[derive(Default)]
pub struct Jobs {
    begun: Mutex<VecDeque<Begun>>,
    count: AtomicUsize,
    news: Notify,
}

#[async_trait::async_trait]
impl Runner for Jobs {
    async fn run(&self, job: Job, log: Arc<dyn LogSink>, mut stop: datakit::ci::Stop) -> Ended {
        let (answer, ended) = oneshot::channel();
        self.count.fetch_add(1, Ordering::SeqCst);
        let begun = Begun { job, log, answer };
        self.begun.lock().unwrap().push_back(begun);
        self.news.notify_one();
        tokio::select! {
            ended = ended => ended.unwrap_or(Ended::Cancelled),
            () = stop.wanted() => Ended::Cancelled,
        }
    }
}

/// A clock that the test sets.
#[derive(Default)]
pub struct Hand(pub AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Time {
        Time {
            seconds: self.0.load(Ordering::SeqCst),
            offset: 0,
        }
    }
}

/// Every repository is the same one.
struct One(Arc<dyn Client>);

#[async_trait::async_trait]
impl Sources for One {
    async fn get(&self, from: &Target, sha: &Sha) -> Result<Arc<dyn Client>> {
        let missing = || Error::NotFound {
            what: format!("commit {sha} of {from}"),
        };
        let id = ObjectId::from_hex(sha.as_bytes()).ok_or_else(missing)?;
        self.0.commit(&id).await.map_err(|_| missing())?;
        Ok(self.0.clone())
    }
}

/// A store with an engine.
pub struct Place {
    pub dk: Arc<dyn Client>,
    pub source: Arc<dyn Client>,
    pub jobs: Arc<Jobs>,
    pub clock: Arc<Hand>,
    config: String,
    pub engine: Option<Engine>,
}

pub const PROJECT: &str = "user/project";

/// A configuration of one project with these steps.
pub fn project(steps: &str) -> String {
    format!("[[project]]\nrepo = \"{PROJECT}\"\nsource = \".\"\n{steps}")
}

fn edits(files: &[(String, String)]) -> Edits {
    let files = files.to_vec();
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

pub fn target(text: &str) -> Target {
    format!("{PROJECT}/{text}").parse().unwrap()
}

pub fn branch(name: &str) -> BranchName {
    BranchName::new(name).unwrap()
}

impl Place {
    pub async fn new(config: &str) -> Self {
        let memory = || -> Arc<dyn Client> { Arc::new(Local::memory(HashKind::Sha1)) };
        let mut place = Self {
            dk: memory(),
            source: memory(),
            jobs: Arc::default(),
            clock: Arc::default(),
            config: config.into(),
            engine: None,
        };
        place.start().await.unwrap();
        place
    }

    pub fn world(&self) -> World {
        World {
            client: self.dk.clone(),
            sources: Arc::new(One(self.source.clone())),
            runner: self.jobs.clone(),
            clock: self.clock.clone(),
            secrets: Arc::new(|name| match name {
                "KEY" => Ok(b"hunter2".to_vec()),
                _ => Err(format!("secret {name}: not here")),
            }),
            holder: Holder {
                host: "here".into(),
                pid: 1,
                life: "1".into(),
                // The process of every other engine is gone.
                runs: Arc::new(|_| Some(false)),
            },
        }
    }

    /// Starts an engine in place of the one that was there, which is killed
    /// where it stands.
    pub async fn start(&mut self) -> Result<()> {
        self.engine = None;
        self.jobs = Arc::default();
        let config = datakit::ci::config::engine(&self.config).unwrap();
        let options = Options {
            web_url: Some("https://ci/".into()),
            jobs: 100,
            ..Options::default()
        };
        self.engine = Some(Engine::start(self.world(), config, options).await?);
        Ok(())
    }

    pub async fn round(&mut self) -> Round {
        self.engine.as_mut().unwrap().round().await.unwrap()
    }

    /// Does rounds until there is nothing more to do.
    pub async fn rounds(&mut self) {
        let idle = Round::default();
        while self.round().await != idle {}
    }

    /// A commit of the tested repository.
    pub async fn commit(&self, files: &[(&str, &str)]) -> Sha {
        self.commit_on("master", files).await
    }

    pub async fn commit_on(&self, name: &str, files: &[(&str, &str)]) -> Sha {
        let files: Vec<(String, String)> = files
            .iter()
            .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
            .collect();
        let options = CommitOptions::default();
        let name = branch(name);
        let made = self.source.edit(&name, edits(&files), options);
        made.await.unwrap().to_hex()
    }

    /// Writes what a forge says: paths below the project.
    pub async fn forge(&self, files: &[(&str, &str)]) {
        let files: Vec<(String, String)> = files
            .iter()
            .map(|(path, content)| (format!("{PROJECT}/{path}"), format!("{content}\n")))
            .collect();
        self.metadata(&files).await;
    }

    pub async fn metadata(&self, files: &[(String, String)]) {
        let options = CommitOptions::default();
        let branch = self.metadata_branch();
        let made = self.dk.edit(&branch, edits(files), options);
        made.await.unwrap();
    }

    pub async fn head(&self, name: &str, sha: &Sha) {
        let path = format!("ref/heads/{name}/head");
        self.forge(&[(&path, sha)]).await;
    }

    pub async fn pr(&self, number: u64, sha: &Sha, head_repo: &str) {
        let path = |file: &str| format!("pr/{number}/{file}");
        self.forge(&[
            (&path("head"), sha),
            (&path("head-repo"), head_repo),
            (&path("state"), "open"),
            (&path("title"), "t"),
            (&path("base"), "master"),
            (&path("owner"), "me"),
        ])
        .await;
    }

    pub async fn other_status(&self, sha: &Sha, state: &str, url: &str) {
        let path = |file: &str| format!("commit/{sha}/status/ci/circleci/{file}");
        self.forge(&[(&path("state"), state), (&path("target_url"), url)])
            .await;
    }

    /// Reads a file at a branch's head.
    pub async fn read(&self, of: &str, path: &str) -> Option<String> {
        let head = self.dk.head(&branch(of)).await.unwrap()?;
        self.read_at(&head, path).await
    }

    pub async fn read_at(&self, commit: &ObjectId, path: &str) -> Option<String> {
        let path = TreePath::new(path).unwrap();
        let mut reader = self.dk.open(&At::Commit(*commit), &path).await.ok()?;
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        Some(text)
    }

    /// The status of a cell: `STATE TEXT`.
    pub async fn status(&self, sha: &Sha, cell: &str) -> String {
        let folder = format!("{PROJECT}/commit/{sha}/status/ci/datakit/{cell}");
        let read = async |file: &str| {
            let text = self
                .read("github-metadata", &format!("{folder}/{file}"))
                .await;
            text.unwrap_or_default().trim().to_owned()
        };
        format!("{} {}", read("state").await, read("description").await)
    }

    /// Does rounds until a status changes, which must be to this.
    pub async fn expect(&mut self, sha: &Sha, cell: &str, wanted: &str) {
        let old = self.status(sha, cell).await;
        if old == wanted {
            return;
        }
        let waits = async {
            loop {
                self.round().await;
                let now = self.status(sha, cell).await;
                if now != old {
                    assert_eq!(now, wanted, "after {old:?}");
                    return;
                }
                self.engine.as_ref().unwrap().wait().await;
            }
        };
        let done = tokio::time::timeout(LIMIT, waits).await;
        assert!(done.is_ok(), "{cell} stays {old:?}, not {wanted:?}");
    }

    /// Does rounds until the engine has begun a job.
    pub async fn begun(&mut self) -> Begun {
        let waits = async {
            loop {
                self.round().await;
                if let Some(begun) = self.jobs.begun.lock().unwrap().pop_front() {
                    return begun;
                }
                tokio::select! {
                    () = self.jobs.news.notified() => (),
                    () = self.engine.as_ref().unwrap().wait() => (),
                }
            }
        };
        let begun = tokio::time::timeout(LIMIT, waits).await;
        begun.expect("a job should have begun")
    }

    /// How many jobs were begun since the engine started.
    pub fn count(&self) -> usize {
        self.jobs.count.load(Ordering::SeqCst)
    }

    /// The newest output of a cell, as it is stored.
    pub async fn output(&self, status: &str, cell: &str) -> String {
        let path = format!("job/{cell}/output");
        self.read(status, &path).await.unwrap_or_default()
    }

    /// How many commits a branch has.
    pub async fn commits(&self, of: &str) -> usize {
        use futures_util::StreamExt as _;
        let Some(head) = self.dk.head(&branch(of)).await.unwrap() else {
            return 0;
        };
        let query = LogQuery {
            from: vec![head],
            ..LogQuery::default()
        };
        self.dk.log(query).count().await
    }

    /// The branch of a cell's result.
    pub fn result(&self, of: &str, cell: &str) -> BranchName {
        let branches = self.engine.as_ref().unwrap().branches(&target(of));
        branches[cell].clone()
    }

    pub fn metadata_branch(&self) -> BranchName {
        branch("github-metadata")
    }

    /// The first project, as the forge calls it.
    pub fn repo(&self) -> Repo {
        PROJECT.parse().unwrap()
    }
}
