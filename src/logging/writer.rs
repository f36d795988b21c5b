//! A thread that writes lines to a file or to stderr, so that nobody who logs
//! waits for a slow disk or a reader that does not read.
//!
//! At most [`WAITING`] lines wait; more are dropped, and the next line that is
//! written says how many.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use super::Say;

/// How many lines may wait to be written.
const WAITING: usize = 4096;

/// How long the end of the program waits for the rest to be written.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often a file that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

enum Work {
    Line(String),
    /// Look at the flag.
    Reopen,
    End,
}

#[derive(Default)]
struct Shared {
    lost: AtomicU64,
    reopen: AtomicBool,
}

/// Takes lines. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    sender: SyncSender<Work>,
    shared: Arc<Shared>,
}

impl Queue {
    pub fn put(&self, line: String) {
        if self.sender.try_send(Work::Line(line)).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Owns the thread.
pub(super) struct Writer {
    queue: Queue,
    ended: Receiver<()>,
}

impl Writer {
    /// Writes to the end of a file, or without one to stderr.
    pub fn new(path: Option<PathBuf>, say: Say) -> Self {
        let (sender, work) = sync_channel(WAITING);
        let (done, ended) = channel();
        let shared = Arc::new(Shared::default());
        let queue = Queue {
            sender,
            shared: shared.clone(),
        };
        let mut sink = Sink {
            say,
            file: None,
            failed: None,
        };
        if let Some(path) = path {
            sink.open(path);
        }
        let started = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || {
                sink.write_all(&work, &shared);
                let _ = done.send(());
            });
        // Without a thread, lines are lost; the work goes on.
        drop(started);
        Self { queue, ended }
    }

    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    pub fn reopen(&self) {
        self.queue.shared.reopen.store(true, Ordering::Relaxed);
        // When the queue is full, the next line does.
        let _ = self.queue.sender.try_send(Work::Reopen);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let limit = Instant::now() + PATIENCE;
        while self.queue.sender.try_send(Work::End).is_err() {
            if Instant::now() > limit {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// Where lines end up.
struct Sink {
    say: Say,
    file: Option<(PathBuf, Option<File>)>,
    /// Since when the file has failed, or was last tried.
    failed: Option<Instant>,
}

impl Sink {
    fn write_all(&mut self, work: &Receiver<Work>, shared: &Shared) {
        while let Ok(next) = work.recv() {
            if shared.reopen.swap(false, Ordering::Relaxed)
                && let Some((path, _)) = self.file.take()
            {
                self.failed = None;
                self.open(path);
            }
            let lost = shared.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                self.line(&format!(
                    "dk: {lost} lines of the log were lost: nobody took them"
                ));
            }
            match next {
                Work::Line(line) => self.line(&line),
                Work::Reopen => (),
                Work::End => return,
            }
        }
    }

    fn open(&mut self, path: PathBuf) {
        let file = match append(&path) {
            Ok(file) => {
                self.failed = None;
                Some(file)
            }
            Err(error) => {
                self.fail(&path, &error);
                None
            }
        };
        self.file = Some((path, file));
    }

    /// Says once that the file fails.
    fn fail(&mut self, path: &Path, error: &io::Error) {
        if self.failed.is_none() {
            (self.say)(&format!(
                "dk: cannot log to {}: {error}; logging to stderr instead",
                path.display()
            ));
        }
        self.failed = Some(Instant::now());
    }

    fn line(&mut self, line: &str) {
        if let Some((path, file)) = self.file.take() {
            let rest = self.failed.is_some_and(|at| at.elapsed() < AGAIN);
            let written = match file {
                _ if rest => None,
                Some(file) => Some(Ok(file)),
                None => Some(append(&path)),
            };
            let kept = written.map(|file| {
                let mut file = file?;
                // One call, so that lines of two writers stay lines.
                file.write_all(format!("{line}\n").as_bytes())?;
                io::Result::Ok(file)
            });
            match kept {
                Some(Ok(file)) => {
                    self.failed = None;
                    self.file = Some((path, Some(file)));
                    return;
                }
                Some(Err(error)) => self.fail(&path, &error),
                None => (),
            }
            self.file = Some((path, None));
        }
        (self.say)(line);
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    /// A writer, and what it says on stderr.
    fn writer(path: Option<PathBuf>) -> (Writer, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let into = said.clone();
        let say = move |line: &str| into.lock().expect("no panic").push(line.to_string());
        (Writer::new(path, Box::new(say)), said)
    }

    #[test]
    fn lines_go_to_a_file_that_may_be_moved_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let (writer, said) = writer(Some(path.clone()));
        let queue = writer.queue();
        queue.put("one".into());
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let limit = Instant::now() + Duration::from_secs(10);
        while read(&path).is_empty() && Instant::now() < limit {
            std::thread::yield_now();
        }
        let moved = folder.path().join("log.1");
        std::fs::rename(&path, &moved).expect("moves");
        writer.reopen();
        queue.put("two".into());
        drop(writer);
        assert_eq!(read(&moved), "one\n");
        assert_eq!(read(&path), "two\n");
        assert!(said.lock().expect("no panic").is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in [folder.path().join("none/log"), "/dev/full".into()] {
            let (writer, said) = writer(Some(path.clone()));
            for line in ["one", "two"] {
                writer.queue().put(line.into());
            }
            drop(writer);
            let said = said.lock().expect("no panic");
            assert_eq!(said.len(), 3, "{said:?}");
            assert!(said[0].contains(path.to_str().expect("UTF-8")), "{said:?}");
            assert_eq!(said[1..], ["one", "two"]);
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_no_time() {
        let (open, gate) = mpsc::channel::<()>();
        let said = Arc::new(Mutex::new(Vec::new()));
        let into = said.clone();
        let say = move |line: &str| {
            let _ = gate.recv();
            into.lock().expect("no panic").push(line.to_string());
        };
        let writer = Writer::new(None, Box::new(say));
        for number in 0..WAITING * 2 {
            writer.queue().put(number.to_string());
        }
        drop(open);
        drop(writer);
        let said = said.lock().expect("no panic");
        let told = said.iter().filter_map(|line| line.strip_prefix("dk: "));
        let lost: Vec<usize> = told
            .map(|line| line.split(' ').next()?.parse().ok())
            .collect::<Option<_>>()
            .expect("a number of lines");
        // Twice where the writer began only when the queue was full.
        assert!((1..=2).contains(&lost.len()), "{lost:?}");
        let lines = said.len() - lost.len();
        assert!(lines < WAITING + 4);
        assert_eq!(lines + lost.iter().sum::<usize>(), WAITING * 2);
    }
}
