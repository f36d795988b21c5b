//! The CI: keeps the result of every step of every target up to date.
//!
//! ```text
//!   commands/ci -> engine -> runner        config: what is to be done
//!        |           |  \                  layout: how it lies in the store
//!        v           v   v                 term:   three states and their texts
//!   view, web     cache  history           key:    what a result depends on
//!        \          |    /                 request: rebuild, cancel, approve
//!         +----> client <-+
//! ```
//!
//! The [`engine`] reads what the bridges say of a forge (the `forge`
//! room), works out which results are wanted, takes them from the store or has
//! a [`Runner`] make them, and writes statuses and history back. What stays
//! true:
//!
//! - Everything is in the store: pages, commands and a restarted engine read
//!   the same branches, whose formats are in [`layout`] and nowhere else.
//! - Nothing here sees a repository, a process' file system or the terminal:
//!   both the store and the tested sources are `client::Client`s, and what
//!   touches this machine comes in through [`Runner`], [`Sources`] and [`Clock`].
//! - A result is named by the digest of all it depends on, its trust domain
//!   included. A target reads no result of another domain.
//! - What the engine needs to know of the past is read from the store, so it
//!   may be killed at any moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::client::{self, At, Client, Edits};
use crate::forge::Sha;
use crate::model::{BranchName, Item, Time, TreePath};

pub mod cache;
pub mod config;
pub mod engine;
mod files;
pub mod history;
pub mod key;
pub mod layout;
pub mod lease;
pub mod logs;
pub mod request;
pub mod retention;
pub mod runner;
pub mod term;
pub mod view;
pub mod web;
pub mod why;

pub use layout::{Logs, Outcome, Output, Place, SavedLog, State, Target};

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Script {
    /// For the shell, as a whole.
    Shell(String),
    /// Commands as argument lists, none of them empty, one after the other.
    Commands(Vec<Vec<String>>),
}

/// Something to be put into a checkout before the step runs: the leaves below
/// `from` at `at`, below the folder `to`. Where nothing stands at `from`,
/// nothing is put.
#[derive(Clone)]
pub struct Placed {
    pub client: Arc<dyn Client>,
    pub at: At,
    pub from: TreePath,
    pub to: TreePath,
}

/// A value nobody may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The environment variable that holds it.
    pub name: String,
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// One cell of one step, ready to be run.
#[derive(Clone)]
pub struct Job {
    /// The cell's name: `test,locale=C`.
    pub cell: String,
    pub script: Script,
    /// Every variable the step is given beside those that name places on this
    /// machine (`PATH`, `HOME`, …), secrets not among them.
    pub env: BTreeMap<String, String>,
    pub image: Option<String>,
    pub timeout: Duration,
    /// What is run is not trusted: without sight of anything of the engine's.
    pub sandbox: bool,
    /// To be put into the environment, and to be hidden in the log and refused
    /// in outputs. Empty for what is not trusted.
    pub secrets: Vec<Secret>,
    /// The files of the checkout (paths from its root), to be read from `source`.
    pub inputs: Vec<Item>,
    pub source: Arc<dyn Client>,
    /// Outputs of needed steps and other trees, in order: a later one
    /// replaces what an earlier one (or an input) has at the same path.
    pub placed: Vec<Placed>,
    /// Files or folders of the checkout that are the step's result. One that
    /// is missing is a failure.
    pub outputs: Vec<TreePath>,
}

/// The outputs of a step as edits that write them below `value/`. It may be
/// asked again when a commit did not come through, and keeps what it reads
/// from (the checkout) until it is dropped.
pub type Outputs = Box<dyn Fn() -> Edits + Send + Sync>;

/// How a job ended. The texts are what a status shows: one line.
pub enum Ended {
    /// Outputs are there, also where they hold nothing.
    Success { text: String, outputs: Outputs },
    Failure {
        text: String,
        /// The status it exited with, where it did.
        exit: Option<i32>,
    },
    /// A failure, too.
    TimedOut { text: String },
    /// It was told to stop, and has stopped.
    Cancelled,
}

/// Runs jobs on this machine.
#[async_trait::async_trait]
pub trait Runner: Send + Sync {
    /// Runs a job to its end. All it prints, and what the runner has to say,
    /// goes into `log`. When `stop` says so, or the future is dropped, every
    /// process of the job ends; nothing of it outlives the answer.
    ///
    /// What goes wrong on this machine (no container engine, a full disk) is a
    /// failure with the reason.
    async fn run(&self, job: Job, log: Arc<dyn LogSink>, stop: Stop) -> Ended;

    /// Returns what an image's name stands for now, for the key of a result:
    /// its digest where that can be known, else the name. Nothing: it is being
    /// fetched, and `done` is called when that has come to an end.
    async fn image(&self, name: &str, done: Done) -> Option<String> {
        drop(done);
        Some(name.to_owned())
    }
}

/// What is called, once, when something that was waited for is there.
pub type Done = Box<dyn FnOnce() + Send>;

/// The log of one build. Memory does not grow with it.
#[async_trait::async_trait]
pub trait LogSink: Send + Sync {
    /// Appends bytes, after hiding what must be hidden. It waits when more
    /// comes than the store takes. Bytes past the limit of a log are dropped
    /// after one line that says so; a store that cannot be reached does not
    /// fail it.
    async fn write(&self, bytes: &[u8]);

    /// Says what the job waits for, or that it waits no longer: the text of
    /// its pending status meanwhile.
    fn waits(&self, reason: Option<&str>);

    /// Appends `[YYYY-MM-DD HH:MM.SS] text` and a newline.
    async fn line(&self, text: &str);
}

/// Gives the repositories that are tested.
#[async_trait::async_trait]
pub trait Sources: Send + Sync {
    /// Returns a client that holds the commit, having fetched it if need be
    /// from where `from` says it is. Called again for the same commit it
    /// answers at once. A commit that cannot be had is an error that names it.
    async fn get(&self, from: &Target, sha: &Sha) -> client::Result<Arc<dyn Client>>;
}

/// The time. Tests have their own.
pub trait Clock: Send + Sync {
    /// Now, with the offset of the local zone.
    fn now(&self) -> Time;
}

/// This machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let now = jiff::Zoned::now();
        Time {
            seconds: now.timestamp().as_second(),
            offset: now.offset().seconds() / 60,
        }
    }
}

/// Ends a job. Dropping it ends the job too.
pub struct Stopper(watch::Sender<bool>);

/// The other half: tells a job that it is to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stopper {
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }
}

impl Stop {
    /// Tells whether the job is to end now.
    pub fn is_wanted(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until the job is to end.
    pub async fn wanted(&mut self) {
        // An error: the stopper is gone.
        let _ = self.0.wait_for(|wanted| *wanted).await;
    }
}

/// What the engine in this process is doing just now, for the page that shows
/// it. All else is read from the store.
#[derive(Default)]
pub struct Status(Mutex<Report>);

/// See [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The store answers, and this engine is the one that serves it.
    pub connected: bool,
    /// Why not, where it does not.
    pub trouble: Option<String>,
    /// Rounds since the start.
    pub rounds: u64,
    /// In order of their names; the unnamed one first.
    pub pools: Vec<Pool>,
}

/// A number of slots that builds take and give back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Empty: what every build takes a slot of.
    pub name: String,
    pub capacity: usize,
    /// In the order they got their slots.
    pub running: Vec<Use>,
    /// In the order they will get one.
    pub waiting: Vec<Use>,
}

/// A build that has, or waits for, a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The target it was first wanted for.
    pub target: Target,
    pub cell: String,
    /// Its result branch, where its log grows.
    pub branch: BranchName,
    pub since: Time,
}

impl Status {
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Changes what is shown. `change` must be quick.
    pub fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_is_told_to_stop_also_by_a_stopper_that_is_gone() {
        let (stopper, mut stop) = Stopper::new();
        assert!(!stop.is_wanted());
        stopper.stop();
        assert!(stop.is_wanted() && stopper.is_stopped());
        stop.wanted().await;
        let (stopper, mut stop) = Stopper::new();
        drop(stopper);
        assert!(stop.is_wanted());
        stop.wanted().await;
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret {
            name: "KEY".into(),
            value: b"hunter2".to_vec(),
        };
        assert_eq!(format!("{secret:?}"), "Secret(KEY)");
    }
}
