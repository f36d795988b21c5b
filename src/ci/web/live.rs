//! Logs that grow, for many readers at the cost of one.
//!
//! However many look at a log, one task follows it in the store and makes HTML
//! of it, and lives as long as somebody looks. It keeps the newest lines; a
//! reader who is slower than that misses lines and is told how many, and holds
//! up nobody.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::ansi::{Html, Terminal};
use crate::ci::view::{Growing, Grown};
use crate::client::Client;
use crate::model::{BranchName, ObjectId};

/// Lines, and bytes of HTML, that are kept for readers.
const KEPT: (usize, usize) = (5000, 8 << 20);
/// Bytes of HTML given at a time, and lines.
const BATCH: (usize, usize) = (256 << 10, 2000);

/// How a log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It lies in this commit; `failure` says why the build failed.
    Saved {
        commit: ObjectId,
        failure: Option<String>,
    },
    /// It cannot be followed any more; who asks again may find it.
    Lost,
}

/// What a reader has not seen yet.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Lines that are not kept any more.
    pub skipped: u64,
    /// The number of the first, from 1.
    pub first: u64,
    pub lines: Vec<Arc<str>>,
    /// The line after them, which has not ended.
    pub begun: Option<Arc<str>>,
    pub end: Option<End>,
}

/// All logs that are followed.
pub struct Tails {
    client: Arc<dyn Client>,
    tails: Mutex<HashMap<BranchName, Weak<Tail>>>,
}

impl Tails {
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self {
            client,
            tails: Mutex::default(),
        }
    }

    /// Returns a reader of the log of a branch, from a line on.
    pub fn follow(&self, branch: &BranchName, from: u64) -> Reader {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        tails.retain(|_, tail| tail.strong_count() > 0);
        let known = tails.get(branch).and_then(Weak::upgrade);
        let tail = known
            .filter(|tail| tail.ring().end.is_none())
            .unwrap_or_else(|| {
                let tail = Tail::new(Arc::clone(&self.client), branch.clone());
                tails.insert(branch.clone(), Arc::downgrade(&tail));
                tail
            });
        Reader {
            changes: tail.bell.subscribe(),
            tail,
            next: from.max(1),
            seen: 0,
            ended: false,
        }
    }

    /// Returns how many logs are followed.
    pub fn len(&self) -> usize {
        let tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        tails
            .values()
            .filter(|tail| tail.strong_count() > 0)
            .count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A log that is followed.
struct Tail {
    ring: Arc<Mutex<Ring>>,
    bell: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The newest lines.
#[derive(Default)]
struct Ring {
    /// Lines that went before those that are kept.
    gone: u64,
    lines: VecDeque<Arc<str>>,
    bytes: usize,
    begun: Option<Arc<str>>,
    end: Option<End>,
    /// Grows with every change.
    version: u64,
}

impl Ring {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line.into());
        while self.lines.len() > KEPT.0 || self.bytes > KEPT.1 {
            let Some(line) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= line.len();
            self.gone += 1;
        }
    }
}

impl Tail {
    fn new(client: Arc<dyn Client>, branch: BranchName) -> Arc<Self> {
        let ring = Arc::new(Mutex::new(Ring::default()));
        let bell = watch::Sender::new(0);
        let work = read(client, branch, Arc::clone(&ring), bell.clone());
        Arc::new(Self {
            ring,
            bell,
            task: tokio::spawn(work),
        })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a log to its end.
async fn read(
    client: Arc<dyn Client>,
    branch: BranchName,
    ring: Arc<Mutex<Ring>>,
    bell: watch::Sender<u64>,
) {
    let mut growing = Growing::new(client, branch.clone());
    let (mut terminal, mut html) = (Terminal::default(), Html::default());
    loop {
        let grown = growing.next().await;
        let mut end = None;
        match grown {
            Ok(Grown::Bytes(bytes)) => terminal.feed(&bytes, &mut html),
            Ok(Grown::Ended(commit, log)) => {
                terminal.finish(&mut html);
                let failure = log.failure;
                end = Some(End::Saved { commit, failure });
            }
            Ok(Grown::Lost) => end = Some(End::Lost),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(target: "ci", error, "the log of {branch} cannot be followed");
                end = Some(End::Lost);
            }
        }
        let ended = end.is_some();
        let version = {
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            for line in html.take() {
                ring.push(line);
            }
            ring.begun = terminal.in_line().then(|| html.begun().into());
            ring.end = end;
            ring.version += 1;
            ring.version
        };
        bell.send_replace(version);
        if ended {
            return;
        }
    }
}

/// Somebody who reads a log while it grows.
pub struct Reader {
    tail: Arc<Tail>,
    changes: watch::Receiver<u64>,
    next: u64,
    /// The version that was seen whole.
    seen: u64,
    ended: bool,
}

impl Reader {
    /// Waits for what is new; nothing when the log has ended.
    pub async fn next(&mut self) -> Option<Batch> {
        if self.ended {
            return None;
        }
        // What rang before the look is seen by the look.
        loop {
            self.changes.borrow_and_update();
            if let Some(batch) = self.look() {
                return Some(batch);
            }
            // The bell is the tail's, which is held.
            if self.changes.changed().await.is_err() {
                return None;
            }
        }
    }

    fn look(&mut self) -> Option<Batch> {
        let ring = self.tail.ring();
        if ring.version == self.seen {
            return None;
        }
        let first = self.next.max(ring.gone + 1);
        let mut batch = Batch {
            skipped: first - self.next,
            first,
            ..Batch::default()
        };
        let from = usize::try_from(first - ring.gone - 1).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for line in ring.lines.iter().skip(from) {
            if batch.lines.len() >= BATCH.1 || bytes >= BATCH.0 {
                break;
            }
            bytes += line.len();
            batch.lines.push(Arc::clone(line));
        }
        self.next = first + batch.lines.len() as u64;
        let known = ring.gone + ring.lines.len() as u64;
        if self.next > known {
            if self.next == known + 1 {
                batch.begun.clone_from(&ring.begun);
            }
            batch.end.clone_from(&ring.end);
            self.seen = ring.version;
            self.ended = batch.end.is_some();
        }
        Some(batch)
    }
}
