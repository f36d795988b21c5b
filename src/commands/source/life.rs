//! How reading ends with the command it is for.
//!
//! A signal drops a command's future; what reads for it blocks, in a thread
//! that no one can stop from outside. So a reader waits for its input and for
//! the end of the command at once, and fails at that end: the store then takes
//! back what it has, before the process is gone.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The life of a command: it ends when this is dropped.
pub(in crate::commands) struct Life {
    token: Token,
    /// Closed at the end, which the other side of the pipe notices.
    _end: PipeWriter,
}

impl Life {
    pub fn new() -> io::Result<Self> {
        let (token, end) = io::pipe()?;
        Ok(Self {
            token: Token(Arc::new(token)),
            _end: end,
        })
    }

    /// Returns what tells of the end.
    pub fn token(&self) -> Token {
        self.token.clone()
    }
}

/// Tells of the end of a command.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Token(Arc<PipeReader>);

impl Token {
    /// Fails if the command has ended.
    pub fn check(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => Err(interrupted()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is something to be read, or fails if the command ends.
    fn wait(&self, file: &File) -> io::Result<()> {
        let (file, end) = (file.as_fd(), self.0.as_fd());
        let mut fds = [
            PollFd::new(&file, PollFlags::IN),
            PollFd::new(&end, PollFlags::IN),
        ];
        loop {
            match poll(&mut fds, None) {
                Err(Errno::INTR) => (),
                Err(error) => return Err(error.into()),
                Ok(_) if !fds[1].revents().is_empty() => return Err(interrupted()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

fn interrupted() -> io::Error {
    // Not `ErrorKind::Interrupted`, which is tried again.
    io::Error::other("interrupted")
}

/// A file, pipe or terminal, read until the command ends.
pub(super) struct Guarded {
    pub file: File,
    pub token: Token,
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.token.wait(&self.file)?;
        self.file.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_ends_with_its_command() {
        let life = Life::new().unwrap();
        let token = life.token();
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"a").unwrap();
        let mut guarded = Guarded {
            file: File::from(std::os::fd::OwnedFd::from(reader)),
            token: token.clone(),
        };
        let mut byte = [0];
        assert_eq!(guarded.read(&mut byte).unwrap(), 1);
        token.check().unwrap();
        let waiting = std::thread::spawn(move || guarded.read(&mut byte));
        drop(life);
        assert!(waiting.join().unwrap().is_err());
        assert!(token.check().is_err());
    }
}
