//! Commits of the tested repositories, fetched beside the rounds.
//!
//! A fetch may take long, so it is a task of its own: a round waits for it a
//! moment only, and is woken when it is done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ci::{Sources, Target};
use crate::client::{self, Client};
use crate::forge::{Repo, Sha};

/// How long a round waits for what may be at hand.
const MOMENT: Duration = Duration::from_millis(100);
/// After a failure it is tried again, but not at once.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// Answers that are remembered.
const REMEMBERED: usize = 4096;

type Answer = Option<Result<Arc<dyn Client>, (String, Instant)>>;

/// What was asked for, and what came of it.
pub(super) struct Fetches {
    sources: Arc<dyn Sources>,
    known: Mutex<HashMap<(Repo, Sha), watch::Receiver<Answer>>>,
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

    /// Returns a client that holds the commit. `done` is called when one that
    /// was waited for is there, or has failed.
    pub(super) async fn get(
        &self,
        from: &Target,
        sha: &Sha,
        done: impl FnOnce() + Send + 'static,
    ) -> Fetched {
        let mut answer = self.ask(from, sha, done);
        let waited = tokio::time::timeout(MOMENT, answer.wait_for(Option::is_some)).await;
        match waited {
            Err(_) => Fetched::Waits,
            Ok(Err(_)) => Fetched::Failed(format!("the fetch of {sha} ended")),
            Ok(Ok(answer)) => match &*answer {
                Some(Ok(client)) => Fetched::Ready(client.clone()),
                Some(Err((why, _))) => Fetched::Failed(why.clone()),
                None => Fetched::Waits,
            },
        }
    }

    /// Ends all fetches where they stand.
    pub(super) fn abort(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.abort_all();
    }

    fn ask(
        &self,
        from: &Target,
        sha: &Sha,
        done: impl FnOnce() + Send + 'static,
    ) -> watch::Receiver<Answer> {
        let key = (from.repo.clone(), sha.clone());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(&key) {
            let stale = match &*answer.borrow() {
                Some(Err((_, at))) => at.elapsed() >= AGAIN,
                // The task died.
                None => answer.has_changed().is_err(),
                Some(Ok(_)) => false,
            };
            if !stale {
                return answer.clone();
            }
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, answer| answer.borrow().is_none());
        }
        let (sender, answer) = watch::channel(None);
        known.insert(key, answer.clone());
        drop(known);
        let (sources, from, sha) = (self.sources.clone(), from.clone(), sha.clone());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let got = sources.get(&from, &sha).await;
            if let Err(error) = &got {
                tracing::warn!(target: "ci", "{from} at {sha}: {}", chain(error));
            }
            let got = got.map_err(|error| (chain(&error), Instant::now()));
            sender.send_replace(Some(got));
            done();
        });
        answer
    }
}

/// Returns an error with its causes, on one line.
pub(super) fn chain(error: &client::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
