//! Taking turns among the writers of one store.
//!
//! It spares work that a lost compare-and-swap would waste, and nothing rests
//! on it: whoever has waited [`PATIENCE`] goes ahead without (the holder may
//! be stopped with ^Z). Threads queue in order. Processes hold flock(2) on
//! `dk/turn`, which dies with them; before it they hold `dk/turn.next`, so that
//! a process with many threads lets another in between two of its own.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::folders::make_dirs;

const PATIENCE: Duration = Duration::from_secs(10);

/// The turns of one opened store.
pub struct Turns {
    dir: PathBuf,
    queue: Mutex<Queue>,
    /// `dk/turn` and `dk/turn.next`; `None` where they cannot be had.
    files: OnceLock<Option<(File, File)>>,
}

#[derive(Default)]
struct Queue {
    taken: bool,
    waiting: VecDeque<Arc<Waiter>>,
}

struct Waiter {
    granted: AtomicBool,
    thread: Thread,
}

/// A turn, until dropped.
pub struct Turn<'a> {
    /// `None`: patience ran out.
    turns: Option<&'a Turns>,
    locked: bool,
}

impl Turns {
    pub fn new(common_dir: &Path) -> Self {
        Self {
            dir: common_dir.join("dk"),
            queue: Mutex::default(),
            files: OnceLock::new(),
        }
    }

    /// Waits for the turn.
    pub fn take(&self) -> Turn<'_> {
        let deadline = Instant::now() + PATIENCE;
        if !self.queue_up(deadline) {
            return Turn {
                turns: None,
                locked: false,
            };
        }
        let mut turn = Turn {
            turns: Some(self),
            locked: false,
        };
        if let Some((file, next)) = self.files.get_or_init(|| self.open())
            && poll(next, Duration::from_millis(3), deadline)
        {
            turn.locked = poll(file, Duration::from_millis(1), deadline);
            let _ = next.unlock();
        }
        turn
    }

    fn open(&self) -> Option<(File, File)> {
        make_dirs(&self.dir).ok()?;
        let open = |name| {
            OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(self.dir.join(name))
                .ok()
        };
        Some((open("turn")?, open("turn.next")?))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the threads before this one; says whether it came to its turn.
    fn queue_up(&self, deadline: Instant) -> bool {
        let waiter = {
            let mut queue = self.queue();
            if !queue.taken {
                queue.taken = true;
                return true;
            }
            let waiter = Arc::new(Waiter {
                granted: AtomicBool::new(false),
                thread: thread::current(),
            });
            queue.waiting.push_back(Arc::clone(&waiter));
            waiter
        };
        while !waiter.granted.load(Ordering::Acquire) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let mut queue = self.queue();
                queue.waiting.retain(|other| !Arc::ptr_eq(other, &waiter));
                return waiter.granted.load(Ordering::Acquire);
            }
            thread::park_timeout(left);
        }
        true
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(turns) = self.turns else { return };
        if let Some(Some((file, _))) = turns.files.get().filter(|_| self.locked) {
            let _ = file.unlock();
        }
        let mut queue = turns.queue();
        match queue.waiting.pop_front() {
            Some(next) => {
                next.granted.store(true, Ordering::Release);
                next.thread.unpark();
            }
            None => queue.taken = false,
        }
    }
}

/// Locks a file, looking again at least every `pause`.
fn poll(file: &File, pause: Duration, deadline: Instant) -> bool {
    let mut wait = pause / 10;
    loop {
        match file.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(wait),
            Err(_) => return false,
        }
        wait = (wait * 2).min(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn one_at_a_time_among_threads_and_openings() {
        let dir = tempfile::tempdir().unwrap();
        let openings = [Turns::new(dir.path()), Turns::new(dir.path())];
        let (inside, most, done) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        thread::scope(|scope| {
            for turns in &openings {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..25 {
                            let _turn = turns.take();
                            most.fetch_max(
                                inside.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
            }
        });
        assert_eq!(most.into_inner(), 1);
        assert_eq!(done.into_inner(), 200);
    }
}
