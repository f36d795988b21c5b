//! A store, our GitHub over HTTP, and a bridge between them.

use std::sync::Arc;
use std::time::Duration;

use datakit::bridge::github::api::Event;
use datakit::bridge::github::auth::Auth;
use datakit::bridge::github::http::{Http, Settings};
use datakit::bridge::github::notes::Notes;
use datakit::bridge::github::sync::{Options, Outcome, Sync};
use datakit::client::local::Local;
use datakit::client::*;
use datakit::forge::layout::{Put, Reader, change};
use datakit::forge::*;
use datakit::model::*;
use futures_util::TryStreamExt as _;

use crate::bridge_github::world::{both_open, pr};
use crate::github::GitHub;

pub struct World {
    pub dk: Arc<dyn Client>,
    pub hub: GitHub,
    pub http: Arc<Http>,
    pub notes: Arc<Notes>,
    pub bridge: Sync,
    pub options: Options,
    pub token: Option<String>,
    pub force_refs: bool,
}

pub fn settings(url: &str) -> Settings {
    Settings {
        url: url.into(),
        spacing: Duration::from_millis(1),
        force_refs: false,
    }
}

/// A pull request as GitHub has it, with a description.
pub fn described(head: &str, title: &str) -> Pr {
    let mut pr = pr(head, title);
    pr.head_repo = Some("you/fork".into());
    pr.comments.push(Comment {
        id: 0,
        user: pr.owner.clone(),
        body: b"what it is for".into(),
    });
    pr
}

pub fn both_described() -> Snapshot {
    let mut is = both_open();
    for ((_, number), pr) in &mut is.prs {
        *pr = described(&pr.head, if *number == 1 { "one" } else { "two" });
    }
    is
}

impl World {
    pub async fn new(caps: &str) -> Self {
        let branch = BranchName::new("github-metadata").unwrap();
        Self::with(Options::new(branch, caps.parse().unwrap())).await
    }

    pub async fn with(options: Options) -> Self {
        let dk: Arc<dyn Client> = Arc::new(Local::memory(HashKind::Sha1));
        let hub = GitHub::start().await;
        let notes = Arc::new(Notes::default());
        let http = Http::new(settings(&hub.url), Auth::Anonymous, notes.clone());
        let http = Arc::new(http.unwrap());
        let bridge = Sync::new(dk.clone(), http.clone(), notes.clone(), options.clone());
        Self {
            dk,
            hub,
            http,
            notes,
            bridge,
            options,
            token: None,
            force_refs: false,
        }
    }

    /// A bridge that knows only what is in the store.
    pub fn restart(&mut self) {
        let auth = match &self.token {
            Some(token) => Auth::Token(token.clone()),
            None => Auth::Anonymous,
        };
        self.restart_as(auth);
    }

    pub fn restart_as(&mut self, auth: Auth) {
        let settings = Settings {
            force_refs: self.force_refs,
            ..settings(&self.hub.url)
        };
        self.notes = Arc::new(Notes::default());
        self.http = Arc::new(Http::new(settings, auth, self.notes.clone()).unwrap());
        let (dk, http, notes) = (self.dk.clone(), self.http.clone(), self.notes.clone());
        self.bridge = Sync::new(dk, http, notes, self.options.clone());
    }

    pub async fn follow(&mut self, repos: &[&str]) {
        let repos: Vec<Repo> = repos.iter().map(|repo| repo.parse().unwrap()).collect();
        self.bridge.follow(&repos, &[]).await.unwrap();
    }

    pub async fn sync(&mut self) -> Outcome {
        self.bridge.sync(false, &[]).await.unwrap()
    }

    pub async fn everything(&mut self) -> Outcome {
        self.bridge.sync(true, &[]).await.unwrap()
    }

    pub async fn hear(&mut self, events: &[Event]) -> Outcome {
        self.bridge.sync(false, events).await.unwrap()
    }

    pub async fn write(&self, files: &[(&str, &str)]) {
        let put = |(path, content): &(&str, &str)| Put {
            path: (*path).into(),
            content: Some((*content).into()),
        };
        self.edit(files.iter().map(put).collect()).await;
    }

    pub async fn remove(&self, path: &str) {
        let path = path.into();
        self.edit(vec![Put {
            path,
            content: None,
        }])
        .await;
    }

    pub async fn edit(&self, puts: Vec<Put>) {
        let branch = &self.options.branch;
        let edited = self.dk.edit(branch, change(puts), CommitOptions::default());
        edited.await.unwrap();
    }

    fn branch(&self, end: &str) -> BranchName {
        let name = [self.options.branch.as_bytes(), end.as_bytes()].concat();
        BranchName::new(name).unwrap()
    }

    async fn head(&self, end: &str) -> ObjectId {
        self.dk.head(&self.branch(end)).await.unwrap().unwrap()
    }

    /// Of the branch, and of the one that remembers.
    pub async fn heads(&self) -> [ObjectId; 2] {
        [self.head("").await, self.head(".sync").await]
    }

    pub async fn says(&self) -> Snapshot {
        let mut reader = Reader::default();
        let head = self.head("").await;
        reader.advance(&*self.dk, &head).await.unwrap();
        reader.snapshot().clone()
    }

    pub async fn files(&self, end: &str) -> Vec<String> {
        let at = At::Commit(self.head(end).await);
        let walk = self.dk.walk(&at, &TreePath::root(), false);
        walk.map_ok(|item| item.path.to_string())
            .try_collect()
            .await
            .unwrap()
    }

    pub async fn read(&self, path: &str) -> String {
        self.read_of("", path).await
    }

    pub async fn read_of(&self, end: &str, path: &str) -> String {
        let at = At::Commit(self.head(end).await);
        let path = TreePath::new(path).unwrap();
        let mut file = self.dk.open(&at, &path).await.unwrap();
        let read = tokio::task::spawn_blocking(move || std::io::read_to_string(&mut file));
        read.await.unwrap().unwrap()
    }
}
