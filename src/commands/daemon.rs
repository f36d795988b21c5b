//! What the commands share that go on until they are ended: signals, the log,
//! and connections that end in time.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::logging::{self, Destination, Format, Log};
use crate::ui::Ui;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// SIGINT or SIGTERM.
    End,
    /// SIGHUP: open the log file anew.
    Reopen,
}

/// The signals a daemon heeds, from when this is made.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next. Cancel-safe.
    pub async fn next(&mut self) -> Signalled {
        tokio::select! {
            _ = self.interrupt.recv() => Signalled::End,
            _ = self.terminate.recv() => Signalled::End,
            _ = self.hangup.recv() => Signalled::Reopen,
        }
    }

    /// Waits for one that asks for the end. Cancel-safe.
    pub async fn end(&mut self) {
        while self.next().await == Signalled::Reopen {}
    }
}

/// Begins to log what is as grave as `level`, which is one of
/// [`logging::LEVELS`]; what cannot be logged is said on the terminal.
pub fn start_log(ui: &Ui, level: &str, to: &Destination, format: Format) -> Log {
    for target in logging::TARGETS {
        logging::set_level(target.name, level);
    }
    let ui = ui.clone();
    let say = Box::new(move |line: &str| ui.line(line));
    logging::start(to.clone(), format, say)
}

/// A connection that ends in time, whatever its peer does: from then on reading
/// and writing fail with [`io::ErrorKind::TimedOut`]. It keeps its place among
/// those that may be open until it is dropped.
pub struct Guest<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl<S: Unpin> Guest<S> {
    pub fn new(stream: S, end: Instant, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            end: Box::pin(sleep_until(end)),
            _place: place,
        }
    }

    /// Returns the stream while its time lasts.
    fn poll(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut S>> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guest<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(context)?.poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guest<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(context)?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context)?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_in_time_and_frees_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().acquire_owned().await.expect("open");
        let (near, mut far) = tokio::io::duplex(64);
        let mut guest = Guest::new(near, Instant::now() + Duration::from_secs(10), place);
        far.write_all(b"x").await.expect("room");
        assert_eq!(guest.read_u8().await.expect("in time"), b'x');
        guest.write_all(b"y").await.expect("in time");
        let late = guest.read_u8().await.expect_err("nobody says more");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let late = guest.write_all(b"y").await.expect_err("its time is over");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert_eq!(places.available_permits(), 0);
        drop(guest);
        assert_eq!(places.available_permits(), 1);
    }
}
