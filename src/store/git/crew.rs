//! Threads that sync files, so that many syncs are under way at once.
//!
//! A journaling file system commits those together: four at once take a quarter
//! of the time of four in a row. Threads are started when there is work for
//! them, up to [`MOST`], and end with the crew.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::metrics::metrics;

/// Threads beside the caller's.
const MOST: usize = 16;

pub(super) struct Crew {
    /// `None` when the crew ends.
    jobs: Option<Sender<Job>>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Job {
    number: usize,
    file: File,
    done: Sender<(usize, io::Result<()>)>,
}

impl Crew {
    pub fn new() -> Self {
        let (jobs, waiting) = channel();
        Self {
            jobs: Some(jobs),
            waiting: Arc::new(Mutex::new(waiting)),
            threads: Mutex::default(),
        }
    }

    /// Syncs all files and waits for it. A failure comes with the file's number.
    pub fn sync(&self, files: Vec<File>) -> Result<(), (usize, io::Error)> {
        metrics().fsyncs.inc_by(files.len() as u64);
        let mut files = files.into_iter().enumerate();
        let Some((_, first)) = files.next() else {
            return Ok(());
        };
        let helpers = self.muster(files.len());
        let (done, results) = channel();
        let mut mine = vec![(0, first)];
        for (number, file) in files {
            let done = done.clone();
            match &self.jobs {
                Some(jobs) if helpers > 0 => {
                    let sent = jobs.send(Job { number, file, done });
                    sent.expect("the crew itself keeps the other end");
                }
                _ => mine.push((number, file)),
            }
        }
        drop(done);
        let mine = mine
            .into_iter()
            .map(|(number, file)| (number, file.sync_all()));
        let mut failure = None;
        for (number, result) in mine.chain(results) {
            failure = failure.or(result.err().map(|error| (number, error)));
        }
        failure.map_or(Ok(()), Err)
    }

    /// Starts threads where there are fewer than wanted; returns how many there are.
    fn muster(&self, wanted: usize) -> usize {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while threads.len() < wanted.min(MOST) {
            let waiting = self.waiting.clone();
            let started = thread::Builder::new()
                .name("sync".into())
                .spawn(move || work(&waiting));
            match started {
                Ok(thread) => threads.push(thread),
                // Too many threads already: it goes with fewer.
                Err(_) => break,
            }
        }
        threads.len()
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(job) = job else {
            return;
        };
        let result = job.file.sync_all();
        // Who asked waits for the answer, or is no more.
        let _ = job.done.send((job.number, result));
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.jobs = None;
        let threads = self
            .threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_synced_and_a_failure_is_told_with_its_number() {
        let crew = Crew::new();
        assert!(crew.sync(Vec::new()).is_ok());
        let file = || tempfile::tempfile().unwrap();
        for count in [1, 2, 5, 40] {
            crew.sync((0..count).map(|_| file()).collect()).unwrap();
        }
        assert_eq!(crew.threads.lock().unwrap().len(), MOST);
        let device = File::open("/dev/null").unwrap();
        let (number, _) = crew.sync(vec![file(), file(), device]).unwrap_err();
        assert_eq!(number, 2);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| crew.sync((0..9).map(|_| file()).collect()).unwrap());
            }
        });
    }
}
