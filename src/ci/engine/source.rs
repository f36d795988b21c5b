//! Commits of the tested repositories, fetched beside the rounds.
//!
//! A fetch may take long, so it is a task of its own: a round waits for it a
//! moment only, and is woken when it is done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ci::engine::results::lock;
use crate::ci::{Done, Sources, Target};
use crate::client::Client;
use crate::forge::{Repo, Sha};
use crate::model::text::chain;

/// How long a round waits for what may be at hand.
const MOMENT: Duration = Duration::from_millis(100);
/// After a failure it is tried again, but not at once.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// Answers that are remembered.
const REMEMBERED: usize = 4096;

type Answer = Option<Result<Arc<dyn Client>, (String, Instant)>>;

/// A commit that was asked for.
#[derive(Clone)]
struct Asked {
    answer: watch::Receiver<Answer>,
    waiting: Arc<Mutex<Vec<Done>>>,
}

/// What was asked for, and what came of it.
pub(super) struct Fetches {
    sources: Arc<dyn Sources>,
    known: Mutex<HashMap<(Repo, Sha), Asked>>,
    tasks: Mutex<JoinSet<()>>,
}

/// What became of a commit.
pub(super) enum Fetched {
    Ready(Arc<dyn Client>),
    /// It is being fetched.
    Waits,
    Failed(String),
}

impl Fetches {
    pub(super) fn new(sources: Arc<dyn Sources>) -> Self {
        Self {
            sources,
            known: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Returns a client that holds the commit. Where that takes longer, `done`
    /// is called when it is there, or cannot be had.
    pub(super) async fn get(&self, from: &Target, sha: &Sha, done: Done) -> Fetched {
        let mut asked = self.ask(from, sha);
        let waited = asked.answer.wait_for(Option::is_some);
        if tokio::time::timeout(MOMENT, waited).await.is_err() {
            lock(&asked.waiting).push(done);
        }
        // It may have come just now.
        match &*asked.answer.borrow() {
            Some(Ok(client)) => Fetched::Ready(client.clone()),
            Some(Err((why, _))) => Fetched::Failed(why.clone()),
            None if asked.answer.has_changed().is_err() => {
                Fetched::Failed(format!("the fetch of {sha} ended"))
            }
            None => Fetched::Waits,
        }
    }

    /// Ends all fetches where they stand.
    pub(super) fn abort(&self) {
        lock(&self.tasks).abort_all();
    }

    fn ask(&self, from: &Target, sha: &Sha) -> Asked {
        let key = (from.repo.clone(), sha.clone());
        let mut known = lock(&self.known);
        if let Some(asked) = known.get(&key) {
            let stale = match &*asked.answer.borrow() {
                Some(Err((_, at))) => at.elapsed() >= AGAIN,
                // The task died.
                None => asked.answer.has_changed().is_err(),
                Some(Ok(_)) => false,
            };
            if !stale {
                return asked.clone();
            }
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, asked| asked.answer.borrow().is_none());
        }
        let (sender, answer) = watch::channel(None);
        let waiting: Arc<Mutex<Vec<Done>>> = Arc::default();
        let asked = Asked {
            answer,
            waiting: waiting.clone(),
        };
        known.insert(key, asked.clone());
        drop(known);
        let (sources, from, sha) = (self.sources.clone(), from.clone(), sha.clone());
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let got = sources.get(&from, &sha).await;
            if let Err(error) = &got {
                tracing::warn!(target: "ci", "{from} at {sha}: {}", chain(error));
            }
            let got = got.map_err(|error| (chain(&error), Instant::now()));
            sender.send_replace(Some(got));
            for done in std::mem::take(&mut *lock(&waiting)) {
                done();
            }
        });
        asked
    }
}
