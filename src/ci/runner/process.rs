//! The runner's side of a supervisor: starts it, tells it what to run, and
//! carries what is printed into the log.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::wire::{Answer, Order, Setup};
use crate::ci::logs::Masked;
use crate::ci::{LogSink as _, Stop};

/// Bytes of output read at once.
const PIECE: usize = 64 * 1024;

/// How much longer than its grace a supervisor may take to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// A supervisor and the processes under it. Dropping it ends them all, by and
/// by; [`Supervised::end`] waits for that.
pub(super) struct Supervised {
    child: Child,
    answers: Lines<BufReader<OwnedReadHalf>>,
    /// Until everything is to end.
    orders: Option<OwnedWriteHalf>,
    output: Receiver,
    buffer: Vec<u8>,
    grace: Duration,
}

/// How a command, or the time for it, ended.
pub(super) enum Event {
    Exited(i32),
    Signalled(i32),
    NotStarted(String),
    TimedOut,
    Stopped,
    /// The supervisor is gone, or cannot do what it is for.
    Broken(String),
}

impl Supervised {
    /// Starts a supervisor with these words, in a folder. It has no variable
    /// but `PATH`, which is for finding what the words name.
    pub async fn start(
        words: &[OsString],
        path: &std::ffi::OsStr,
        folder: &Path,
        setup: &Setup,
    ) -> io::Result<Self> {
        let (program, args) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (output, theirs_out) = io::pipe()?;
        let theirs_err = theirs_out.try_clone()?;
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .env("PATH", path)
            .current_dir(folder)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(theirs_out)
            .stderr(theirs_err)
            .process_group(0)
            .spawn()?;
        let (answers, orders) = UnixStream::from_std(ours)?.into_split();
        let mut supervised = Self {
            child,
            answers: BufReader::new(answers).lines(),
            orders: Some(orders),
            output: Receiver::from_owned_fd(output.into())?,
            buffer: vec![0; PIECE],
            grace: setup.grace,
        };
        // Where it does not live to read this, the answer will be an end.
        let _ = supervised.send(setup).await;
        Ok(supervised)
    }

    async fn send(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(line).map_err(io::Error::from)?;
        line.push(b'\n');
        match &mut self.orders {
            Some(orders) => orders.write_all(&line).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Waits until commands can be run.
    pub async fn ready(&mut self) -> Result<(), String> {
        if let Ok(Some(line)) = self.answers.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Answer::Ready) => return Ok(()),
                Ok(Answer::Refused(why)) => return Err(why),
                _ => (),
            }
        }
        // What was to start it has said why in its output.
        let mut said = Vec::new();
        let read = self.output.read_to_end(&mut said);
        let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
        let said = String::from_utf8_lossy(&said);
        match said.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            Some(line) => Err(line.to_owned()),
            None => Err("it ended without a word".into()),
        }
    }

    /// Runs a command to its end, or until it is to end.
    pub async fn run(
        &mut self,
        words: Vec<OsString>,
        log: &Masked,
        until: Instant,
        stop: &mut Stop,
    ) -> Event {
        if let Err(error) = self.send(&Order { run: words }).await {
            return Event::Broken(error.to_string());
        }
        let ended = async {
            let Self {
                answers,
                output,
                buffer,
                ..
            } = self;
            let mut open = true;
            let line = loop {
                tokio::select! {
                    count = output.read(buffer), if open => match count {
                        Ok(0) | Err(_) => open = false,
                        Ok(count) => log.write(&buffer[..count]).await,
                    },
                    line = answers.next_line() => break line,
                }
            };
            // All that it printed is in the pipe by now.
            while let Ok(count) = output.try_read(buffer) {
                if count == 0 {
                    break;
                }
                log.write(&buffer[..count]).await;
            }
            log.flush().await;
            line
        };
        let line = tokio::select! {
            biased;
            () = stop.wanted() => return Event::Stopped,
            () = tokio::time::sleep_until(until) => return Event::TimedOut,
            line = ended => line,
        };
        let line = match line {
            Ok(Some(line)) => line,
            Ok(None) => return Event::Broken("the supervisor of the step is gone".into()),
            Err(error) => return Event::Broken(error.to_string()),
        };
        match serde_json::from_str(&line) {
            Ok(Answer::Exited(status)) => Event::Exited(status),
            Ok(Answer::Signalled(number)) => Event::Signalled(number),
            Ok(Answer::NotStarted(why)) => Event::NotStarted(why),
            _ => Event::Broken(format!("the supervisor said {line}")),
        }
    }

    /// Ends all processes and waits until they have; what they print on the
    /// way still gets into the log. Tells whether the supervisor lived to see
    /// to that.
    pub async fn end(mut self, log: &Masked) -> bool {
        drop(self.orders.take());
        let patience = self.grace + PATIENCE;
        let mut seen = false;
        let Self {
            child,
            output,
            buffer,
            ..
        } = &mut self;
        let carried = async {
            while let Ok(count @ 1..) = output.read(buffer).await {
                log.write(&buffer[..count]).await;
            }
        };
        let ended = async {
            match tokio::time::timeout(patience, child.wait()).await {
                Ok(status) => seen = status.is_ok_and(|status| status.success()),
                // What is below it goes to whoever adopts orphans here.
                Err(_) => drop(child.kill().await),
            }
        };
        // The end of the output may be held up by nobody: all of them are gone
        // when the supervisor is.
        tokio::select! {
            () = async { tokio::join!(ended, carried); } => (),
            () = tokio::time::sleep(patience + Duration::from_secs(1)) => (),
        }
        log.flush().await;
        seen
    }
}
