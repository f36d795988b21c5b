//! Notices that whoever reads standard output is gone.
//!
//! A write would tell, but a watch may have nothing to write for days. So a
//! thread polls for the hang-up of a pipe or a socket; it ends when its owner
//! is dropped. Anything else (a file, a terminal) counts as always there.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat, fsync};
use rustix::stdio::stdout;
use tokio::sync::Notify;

/// The reader of standard output.
pub struct Reader {
    gone: Arc<Notify>,
    /// The thread, and the pipe whose closing ends it.
    thread: Option<(PipeWriter, JoinHandle<()>)>,
}

impl Reader {
    /// Begins to look after the reader of standard output.
    pub(super) fn new() -> io::Result<Self> {
        let gone = Arc::new(Notify::new());
        let kind = FileType::from_raw_mode(fstat(stdout())?.st_mode);
        if !matches!(kind, FileType::Fifo | FileType::Socket) {
            return Ok(Self { gone, thread: None });
        }
        let (stopped, stop) = io::pipe()?;
        let tell = Arc::clone(&gone);
        let thread = std::thread::Builder::new()
            .name("reader".into())
            .spawn(move || {
                if reader_went(&stopped) {
                    tell.notify_one();
                }
            })?;
        Ok(Self {
            gone,
            thread: Some((stop, thread)),
        })
    }

    /// Returns when the reader is gone.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }
}

/// Returns how many bytes a write takes at once, nobody reading.
pub(super) fn room() -> u64 {
    const PIPE_BUF: u64 = if cfg!(target_os = "linux") { 4096 } else { 512 };
    let stdout = stdout();
    let mut wait = [PollFd::new(&stdout, PollFlags::OUT)];
    let now = rustix::event::Timespec::default();
    if poll(&mut wait, Some(&now)).is_err() || !wait[0].revents().contains(PollFlags::OUT) {
        return 0;
    }
    match fstat(stdout).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => u64::MAX,
        Ok(FileType::Fifo) => empty_pipe().unwrap_or(PIPE_BUF),
        _ => PIPE_BUF,
    }
}

/// Returns what the pipe of stdout holds, if there is nothing in it.
#[cfg(target_os = "linux")]
fn empty_pipe() -> Option<u64> {
    let empty = rustix::io::ioctl_fionread(stdout()).ok()? == 0;
    let size = rustix::pipe::fcntl_getpipe_size(stdout()).ok()?;
    empty.then_some(size as u64)
}

#[cfg(not(target_os = "linux"))]
fn empty_pipe() -> Option<u64> {
    None
}

/// Puts what was written to standard output on its disk, if it is a file.
pub(super) fn sync() -> io::Result<()> {
    match fsync(stdout()) {
        // A pipe, a socket, a terminal: there is nothing to sync.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOTSUP) => Ok(()),
        result => Ok(result?),
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            // A panic of the thread has been printed; there is no more to it.
            let _ = thread.join();
        }
    }
}

/// Blocks until the reader of standard output is gone (true), or `stopped`
/// reads as closed.
fn reader_went(stopped: &PipeReader) -> bool {
    let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    loop {
        // Hang-ups are reported unasked. macOS wants to be asked for something,
        // and this is never so of the end that is written to.
        let mut ends = [
            PollFd::from_borrowed_fd(stdout(), PollFlags::RDBAND),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut ends, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Without poll, the next write tells.
            Err(_) => return false,
        }
        if ends[0].revents().intersects(over) {
            return true;
        }
        if !ends[1].revents().is_empty() {
            return false;
        }
    }
}
