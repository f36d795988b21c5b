//! Task files: a write starts long work, and reads tell how it goes until it
//! is over.
//!
//! Lines are kept up to a bound; progress that nobody reads is merged, and
//! beyond the bound lines are dropped, results never. When its reader goes, work
//! that heeds [`Progress::is_cancelled`] ends; other work goes on to its end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::model::Kind;
use crate::model::failure::Failure;
use crate::model::request::Progress;
use crate::model::text::{TaskLine, write_task_line};
use crate::store::{self, Store, face};

use super::World;
use super::entry::File;
use super::failure;
use super::files::{Turn, lock, take};
use super::node::{Call, Error, Handle, Open, Result};

/// Lines kept for a slow reader.
const KEPT: usize = 1024;
/// Tasks that may run at a time.
const RUNNING: usize = 8;

/// The work itself, given what was written. It tells its results at the end.
pub type Work =
    Arc<dyn Fn(&Arc<Store>, &[u8], &dyn Progress) -> store::Result<Vec<TaskLine>> + Send + Sync>;

/// How many tasks run.
pub type Running = Arc<AtomicUsize>;

/// A task file.
pub struct Task {
    world: Arc<World>,
    work: Work,
    /// Refuses arguments before anything begins.
    check: fn(&[u8]) -> Result<()>,
}

impl Task {
    pub fn new(world: &Arc<World>, check: fn(&[u8]) -> Result<()>, work: Work) -> Self {
        Self {
            world: world.clone(),
            work,
            check,
        }
    }
}

#[async_trait::async_trait]
impl File for Task {
    fn acts(&self) -> bool {
        true
    }

    async fn open(self: Arc<Self>, _: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        Ok(Arc::new(TaskHandle {
            task: self,
            state: Turn::new(State::default()),
        }))
    }
}

/// What the work tells and the reader takes.
#[derive(Default)]
struct Told {
    lines: Mutex<Lines>,
    bell: Notify,
    /// Nobody can read any more.
    gone: AtomicBool,
}

#[derive(Default)]
struct Lines {
    lines: VecDeque<TaskLine>,
    over: bool,
}

impl Told {
    fn tell(&self, line: TaskLine) {
        let mut told = lock(&self.lines);
        let full = told.lines.len() >= KEPT;
        match (told.lines.back_mut(), &line) {
            (Some(TaskLine::Advance(before)), TaskLine::Advance(by)) => *before += by,
            _ if full => {}
            _ => told.lines.push_back(line),
        }
        drop(told);
        self.bell.notify_one();
    }

    fn end(&self, results: Vec<TaskLine>) {
        let mut told = lock(&self.lines);
        told.lines.extend(results);
        told.over = true;
        drop(told);
        self.bell.notify_one();
    }
}

impl Progress for Told {
    fn begin(&self, part: &str, total: Option<u64>, bytes: bool) {
        self.tell(TaskLine::Part {
            name: part.into(),
            total,
            bytes,
        });
    }

    fn advance(&self, by: u64) {
        self.tell(TaskLine::Advance(by));
    }

    fn line(&self, text: &str) {
        self.tell(TaskLine::Line(text.into()));
    }

    fn is_cancelled(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// Counts a task for as long as it runs.
struct Counted(Running);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Default)]
struct State {
    told: Option<Arc<Told>>,
    /// Where reading goes on; set by the first read, so that a file position
    /// shared with the write does no harm.
    at: Option<u64>,
    rest: Bytes,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(told) = &self.told {
            told.gone.store(true, Ordering::Release);
        }
    }
}

struct TaskHandle {
    task: Arc<Task>,
    state: Turn<State>,
}

#[async_trait::async_trait]
impl Handle for TaskHandle {
    fn waits(&self) -> bool {
        true
    }

    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        let state = &mut *self.state.take().await;
        let Some(told) = state.told.clone() else {
            return Err(Error::new(Kind::Invalid, "nothing was started"));
        };
        if *state.at.get_or_insert(offset) != offset {
            return Err(failure::seek());
        }
        while state.rest.is_empty() {
            let (lines, over) = {
                let mut told = lock(&told.lines);
                (std::mem::take(&mut told.lines), told.over)
            };
            if !lines.is_empty() {
                let text: String = lines.iter().map(write_task_line).collect();
                state.rest = text.into();
            } else if over {
                break;
            } else {
                told.bell.notified().await;
            }
        }
        let data = take(&mut state.rest, count);
        state.at = Some(offset + data.len() as u64);
        Ok(data)
    }

    async fn write(&self, call: &Call, _: u64, data: Bytes) -> Result<()> {
        let state = &mut *self.state.take().await;
        if state.told.is_some() {
            return Err(Error::new(Kind::Invalid, "the work has begun already"));
        }
        (self.task.check)(&data)?;
        let running = self.task.world.running.clone();
        let entered = |count: usize| (count < RUNNING).then_some(count + 1);
        running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, entered)
            .map_err(|_| {
                let message = format!("{RUNNING} maintenance tasks are running already");
                Error::new(Kind::Busy, message)
            })?;
        let counted = Counted(running);
        if !call.pass() {
            return Err(super::cancelled());
        }
        let told = Arc::new(Told::default());
        state.told = Some(told.clone());
        let (store, work) = (self.task.world.store.clone(), self.task.work.clone());
        // It owns itself: it ends by itself, and nobody waits for it.
        tokio::spawn(async move {
            let teller = told.clone();
            let work = move |store: &Arc<Store>| work(store, &data, &*teller);
            let results = match face::run(&store, work).await {
                Ok(mut results) => {
                    results.push(TaskLine::Ok);
                    results
                }
                Err(error) => vec![TaskLine::Error(Box::new(Failure::from(error)))],
            };
            drop(counted);
            told.end(results);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::model::HashKind;
    use crate::namespace::node::Principal;
    use crate::namespace::{Namespace, Options};
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn work_is_told_that_its_reader_has_gone() {
        let store = Arc::new(Store::new(Arc::new(Memory::new(HashKind::Sha1))));
        let world = Namespace::new(store, Options::default()).0;
        let (ended, end) = mpsc::channel();
        let work: Work = Arc::new(move |_: &Arc<Store>, _: &[u8], progress: &dyn Progress| {
            while !progress.is_cancelled() {
                std::thread::yield_now();
            }
            let _ = ended.send(());
            Ok(Vec::new())
        });
        let task = Arc::new(Task::new(&world, |_| Ok(()), work));
        let call = Call::new(Arc::new(Principal {
            uname: Vec::new(),
            uid: None,
            peer: "test".into(),
        }));
        let handle = task.open(&call, Open::default()).await.expect("it opens");
        handle.write(&call, 0, "x".into()).await.expect("it begins");
        assert_eq!(world.running.load(Ordering::Acquire), 1);
        drop(handle);
        let ended = tokio::task::spawn_blocking(move || end.recv_timeout(Duration::from_secs(20)));
        assert_eq!(ended.await.expect("it does not panic"), Ok(()));
    }
}
