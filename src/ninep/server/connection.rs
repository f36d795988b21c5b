//! One connection: bytes in, bytes out, and when to do which.
//!
//! Everything that has come is looked at before anything is written, so that
//! the answers to a burst go out in one call. A client that does not read is
//! not read from, and after a while not served.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Sleep;

use super::requests::Requests;
use super::{Error, Limits};
use crate::ninep::wire::Input;

pub struct Connection<S> {
    stream: S,
    requests: Requests,
    input: Input,
    /// Wound up while the client does not take what is to be written.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
    /// What was written has to be pushed on.
    flush: bool,
}

/// What there is to do next.
enum Event {
    /// Something came.
    Input,
    /// Nothing more will come.
    End,
    /// Requests have ended, or there is room for more answers.
    Progress,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(stream: S, requests: Requests, limits: &Limits) -> Self {
        Self {
            stream,
            requests,
            input: Input::default(),
            stalled: None,
            patience: limits.stalled,
            flush: false,
        }
    }

    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let served = self.converse(stop).await;
        self.requests.cancel();
        let ended = match served {
            Ok(()) => match self.finish().await {
                // Whoever is gone does not miss the answers.
                Err(Error::Io(_)) => Ok(()),
                finished => finished,
            },
            Err(error @ (Error::Version | Error::Frame(_) | Error::Tag(_))) => {
                // Whoever sent nonsense is told so, if it listens now.
                let _ = std::future::poll_fn(|cx| Poll::Ready(self.write(cx))).await;
                Err(error)
            }
            Err(error) => Err(error),
        };
        std::future::poll_fn(|cx| {
            self.requests.poll(cx);
            // Nobody is left to have the answers.
            self.requests.output.clear();
            match self.requests.finished() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        // Nor to be told that this failed.
        let _ = self.stream.shutdown().await;
        ended
    }

    /// Serves until the client is done or `stop` is there.
    async fn converse(&mut self, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        // Polled when it has something to say, not at every turn.
        let mut stop = FuturesUnordered::from_iter([Box::pin(stop)]);
        loop {
            self.requests.turn();
            while !self.requests.full() {
                self.requests.start_ready();
                match self.input.frame(self.requests.longest()) {
                    Ok(Some(frame)) => self.requests.take(&frame)?,
                    Ok(None) => break,
                    Err(error) => return Err(Error::Frame(error)),
                }
            }
            let next = std::future::poll_fn(|cx| match stop.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => Poll::Ready(Ok(Event::End)),
                _ => self.poll(cx, true),
            });
            if let Event::End = next.await? {
                return Ok(());
            }
        }
    }

    /// Waits for what cannot be taken back, and for the client to have read
    /// the answers.
    async fn finish(&mut self) -> Result<(), Error> {
        std::future::poll_fn(|cx| {
            while let Poll::Ready(event) = self.poll(cx, false) {
                if let Err(error) = event {
                    return Poll::Ready(Err(error));
                }
            }
            match self.requests.finished() && self.requests.output.is_empty() {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Result<Event, Error>> {
        let was_full = self.requests.full();
        let ended = self.requests.poll(cx);
        let wrote = self.write(cx)?;
        if let Some(stalled) = &mut self.stalled
            && stalled.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Error::Stalled(self.patience)));
        }
        if ended || (was_full && wrote && !self.requests.full()) {
            return Poll::Ready(Ok(Event::Progress));
        }
        if reading && !self.requests.full() {
            let filled = pin!(self.input.fill(&mut self.stream)).poll(cx);
            match filled.map_err(Error::Io)? {
                Poll::Ready(true) => return Poll::Ready(Ok(Event::Input)),
                Poll::Ready(false) => return Poll::Ready(Ok(Event::End)),
                Poll::Pending => self.input.rest(),
            }
        }
        self.requests.output.rest();
        Poll::Pending
    }

    /// Writes as much as the client takes. `true`: it took something.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut wrote = false;
        while !self.requests.output.is_empty() {
            let output = &mut self.requests.output;
            match pin!(self.stream.write_buf(output)).poll(cx) {
                Poll::Ready(Ok(0)) => return Err(Error::Io(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(_)) => {
                    wrote = true;
                    self.flush = true;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Err(Error::Io(error)),
                Poll::Pending => {
                    let patience = self.patience;
                    self.stalled
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                    return Ok(wrote);
                }
            }
        }
        if self.flush {
            match pin!(self.stream.flush()).poll(cx) {
                Poll::Ready(Ok(())) => self.flush = false,
                Poll::Ready(Err(error)) => return Err(Error::Io(error)),
                Poll::Pending => (),
            }
        }
        Ok(wrote)
    }
}
