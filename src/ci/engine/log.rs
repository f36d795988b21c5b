//! A log while it grows: kept in a file, and committed part by part.
//!
//! A line after silence is committed at once; the more comes, the rarer the
//! commits, up to one in a few seconds. What is not committed yet lies in the
//! file, so memory does not grow with the log, and a store that cannot be
//! reached for a while loses nothing. The queue is bounded: who writes faster
//! than the file and the store take it waits.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::ci::cache::{self, Store};
use crate::ci::{Clock, LogSink, layout};
use crate::model::BranchName;

/// Pieces that wait to be written.
const QUEUE: usize = 16;
/// Bytes of one part at most.
const PART: u64 = 1 << 20;
/// Bytes written into the file at a time, roughly.
const BATCH: usize = 256 << 10;
/// What comes together is committed together.
const TOGETHER: Duration = Duration::from_millis(20);
/// The shortest and the longest time between two commits.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3);

/// Takes what a job waits for.
type Waits = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// Where a job writes.
pub(super) struct Sink {
    queue: mpsc::Sender<Vec<u8>>,
    waits: Waits,
    clock: Arc<dyn Clock>,
}

#[async_trait::async_trait]
impl LogSink for Sink {
    async fn write(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            // Nobody listens any more: the build has ended.
            let _ = self.queue.send(bytes.to_vec()).await;
        }
    }

    fn waits(&self, reason: Option<&str>) {
        (self.waits)(reason);
    }

    async fn line(&self, text: &str) {
        self.write(line(&*self.clock, text).as_bytes()).await;
    }
}

/// Returns a line with the time before it.
pub(super) fn line(clock: &dyn Clock, text: &str) -> String {
    format!("[{}] {text}\n", layout::log_time(clock.now()))
}

/// The other end.
pub(super) struct Growing {
    client: Store,
    branch: BranchName,
    queue: mpsc::Receiver<Vec<u8>>,
    file: Arc<File>,
    size: u64,
    /// Bytes that are in parts already.
    committed: u64,
    parts: u64,
    last: Instant,
    pause: Duration,
    limit: Option<u64>,
    /// Called once, when the limit is passed.
    over: Option<Box<dyn FnOnce() + Send>>,
    failing: bool,
}

impl Growing {
    /// A log that begins with `first`, which is part 0 of it already.
    pub(super) fn new(
        client: Store,
        branch: BranchName,
        first: &str,
        clock: Arc<dyn Clock>,
        waits: impl Fn(Option<&str>) + Send + Sync + 'static,
        limit: Option<u64>,
        over: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<(Self, Arc<Sink>)> {
        let mut file = tempfile::tempfile()?;
        file.write_all(first.as_bytes())?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let size = first.len() as u64;
        let growing = Self {
            client,
            branch,
            queue,
            file: Arc::new(file),
            size,
            committed: size,
            parts: 1,
            last: Instant::now(),
            pause: SHORTEST,
            limit,
            over: Some(Box::new(over)),
            failing: false,
        };
        let sink = Sink {
            queue: sender,
            waits: Box::new(waits),
            clock,
        };
        Ok((growing, Arc::new(sink)))
    }

    /// The whole log.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Takes what is written until `end` says that no more comes.
    pub(super) async fn pump(&mut self, end: oneshot::Receiver<()>) {
        let mut end = std::pin::pin!(end);
        let mut due: Option<Instant> = None;
        loop {
            let until = due.unwrap_or_else(|| Instant::now() + LONGEST);
            tokio::select! {
                _ = &mut end => break,
                bytes = self.queue.recv() => {
                    let Some(bytes) = bytes else { return };
                    self.take(bytes).await;
                    let now = Instant::now();
                    due.get_or_insert_with(|| self.next(now));
                }
                () = tokio::time::sleep_until(until), if due.is_some() => {
                    self.commit().await;
                    due = (self.committed < self.size).then(|| Instant::now() + self.pause);
                }
            }
            if self.size - self.committed >= PART && !self.failing {
                self.commit().await;
            }
        }
        self.queue.close();
        while let Some(bytes) = self.queue.recv().await {
            self.take(bytes).await;
        }
    }

    /// Returns when what came now is to be committed.
    fn next(&mut self, now: Instant) -> Instant {
        if now.duration_since(self.last) > self.pause * 4 {
            self.pause = SHORTEST;
        }
        (now + TOGETHER).max(self.last + self.pause)
    }

    async fn take(&mut self, mut batch: Vec<u8>) {
        while batch.len() < BATCH {
            match self.queue.try_recv() {
                Ok(more) => batch.extend(more),
                Err(_) => break,
            }
        }
        if let Some(limit) = self.limit {
            let left = usize::try_from(limit.saturating_sub(self.size)).unwrap_or(usize::MAX);
            if batch.len() > left {
                batch.truncate(left);
                if let Some(over) = self.over.take() {
                    batch.extend(
                        format!("\nThe log ends here: its limit is {limit} bytes\n").bytes(),
                    );
                    over();
                }
            }
        }
        self.append(batch).await;
    }

    /// Writes past every limit: the last lines of a build.
    pub(super) async fn append(&mut self, batch: Vec<u8>) {
        let length = batch.len() as u64;
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&batch)).await;
        match written {
            Ok(Ok(())) => self.size += length,
            Ok(Err(error)) => tracing::error!(target: "ci", "log of {}: {error}", self.branch),
            Err(_) => (),
        }
    }

    /// Commits what is not committed yet, up to one part.
    async fn commit(&mut self) {
        let length = (self.size - self.committed).min(PART);
        let (file, from) = (self.file.clone(), self.committed);
        let read = tokio::task::spawn_blocking(move || {
            let mut part = vec![0; usize::try_from(length).unwrap_or_default()];
            file.read_exact_at(&mut part, from).map(|()| part)
        });
        let part = match read.await {
            Ok(Ok(part)) => part,
            Ok(Err(error)) => {
                tracing::error!(target: "ci", "log of {}: {error}", self.branch);
                self.committed += length;
                return;
            }
            Err(_) => return,
        };
        match cache::grow(&*self.client, &self.branch, self.parts, part).await {
            Ok(_) => {
                self.committed += length;
                self.parts += 1;
                self.pause = (self.pause * 3 / 2).min(LONGEST);
                self.failing = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(target: "ci", "log of {} waits: {error}", self.branch);
                }
                self.pause = LONGEST;
            }
        }
        self.last = Instant::now();
    }
}
