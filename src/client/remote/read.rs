//! Reading what never changes: records as a stream, and blobs.

use std::io::{self, Read};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Polling, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::{Buf as _, Bytes, BytesMut};

use crate::client::{AT_HAND, Error, Records, Result};
use crate::model::text::Taken;
use crate::model::{Kind, ObjectId};
use crate::ninep::client::{self as ninep, Pull};

use super::failure::{self, Context};
use super::link::{Core, Session};
use super::{TRIES, WHOLE};

/// Reads the records of a query. With `fixed` they are the same whenever they
/// are asked for, so that a lost connection can be made good.
pub(super) fn records<T: Send + 'static>(
    core: Arc<Core>,
    dir: &'static str,
    element: Vec<u8>,
    take: fn(&mut &[u8]) -> Taken<T>,
    fixed: bool,
) -> Records<T> {
    let reading = Reading {
        what: Context::file(dir, &element),
        core,
        dir,
        element,
        take,
        fixed,
        pull: None,
        text: BytesMut::new(),
        given: 0,
        skip: 0,
        tries: 0,
        done: false,
    };
    Box::pin(futures_util::stream::unfold(
        reading,
        |mut reading| async move {
            let record = reading.next().await?;
            reading.done = record.is_err();
            Some((record, reading))
        },
    ))
}

struct Reading<T> {
    core: Arc<Core>,
    what: Context,
    dir: &'static str,
    element: Vec<u8>,
    take: fn(&mut &[u8]) -> Taken<T>,
    fixed: bool,
    pull: Option<Pull>,
    /// What was read and not taken.
    text: BytesMut,
    /// Records given so far.
    given: u64,
    /// Records to be passed over: they were given before the connection was lost.
    skip: u64,
    /// Connections lost since the last record.
    tries: usize,
    done: bool,
}

impl<T> Reading<T> {
    async fn next(&mut self) -> Option<Result<T>> {
        if self.done {
            return None;
        }
        loop {
            match self.record() {
                Ok(Some(record)) => return Some(Ok(record)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            match self.more().await {
                Ok(true) => {}
                Ok(false) if self.text.is_empty() && self.skip == 0 => return None,
                Ok(false) => return Some(Err(failure::nonsense(self.dir))),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Takes the next record of what was read.
    fn record(&mut self) -> Result<Option<T>> {
        loop {
            let mut rest = &self.text[..];
            let taken = (self.take)(&mut rest);
            let left = rest.len();
            match taken {
                Ok(Some(record)) => {
                    self.text.advance(self.text.len() - left);
                    if self.skip > 0 {
                        self.skip -= 1;
                        continue;
                    }
                    self.given += 1;
                    self.tries = 0;
                    return Ok(Some(record));
                }
                Ok(None) if self.text.len() <= WHOLE => return Ok(None),
                _ => return Err(failure::nonsense(self.dir)),
            }
        }
    }

    /// Reads on; `false` at the end.
    async fn more(&mut self) -> Result<bool> {
        loop {
            let read = async {
                if self.pull.is_none() {
                    let session = self.core.session().await?;
                    match session.open(self.dir, &[&self.element], 0).await {
                        Ok(file) => self.pull = Some(file.pull(0, None)),
                        Err(error) => return Ok::<_, Error>(Err(error)),
                    }
                }
                let pull = self.pull.as_mut().expect("set above");
                Ok(pull.next().await)
            };
            match read.await? {
                Ok(Some(data)) => {
                    self.text.extend_from_slice(&data);
                    return Ok(true);
                }
                Ok(None) => return Ok(false),
                Err(error) if error.lost && self.tries < TRIES => {
                    self.tries += 1;
                    if !self.fixed && self.given > 0 {
                        return Err(self.core.error(&self.what, error));
                    }
                    self.pull = None;
                    self.text.clear();
                    self.skip = self.given;
                }
                Err(error) => return Err(self.core.error(&self.what, error)),
            }
        }
    }
}

/// Opens a blob. When this returns, [`AT_HAND`] of it is there, or all.
pub(super) async fn open(
    core: &Arc<Core>,
    id: ObjectId,
    size: Option<u64>,
) -> Result<Box<dyn Read + Send>> {
    let mut blob = Blob {
        core: core.clone(),
        id,
        size,
        pull: None,
        at: 0,
        piece: Bytes::new(),
    };
    let mut start = BytesMut::new();
    while start.len() < AT_HAND {
        let piece = blob.next().await?;
        if piece.is_empty() {
            break;
        }
        if start.is_empty() && piece.len() >= AT_HAND {
            // As it is: nothing is copied.
            blob.piece = piece;
            return Ok(Box::new(blob));
        }
        start.extend_from_slice(&piece);
        if blob.size == Some(blob.at) {
            break;
        }
    }
    blob.piece = start.freeze();
    Ok(Box::new(blob))
}

/// A blob being read. Reading waits on the thread that reads.
struct Blob {
    core: Arc<Core>,
    id: ObjectId,
    size: Option<u64>,
    pull: Option<Pull>,
    /// Up to where it was read.
    at: u64,
    piece: Bytes,
}

impl Blob {
    /// Returns the next bytes: none at the end.
    async fn next(&mut self) -> Result<Bytes> {
        let what = Context::from(&*format!("blob {}", self.id));
        let mut tries = 0;
        loop {
            if self.size == Some(self.at) && self.at > 0 {
                return Ok(Bytes::new());
            }
            let session = match &self.pull {
                Some(_) => None,
                None => Some(self.core.session().await?),
            };
            match self.read(session).await {
                Ok(piece) => {
                    self.at += piece.len() as u64;
                    return Ok(piece);
                }
                Err(error) if error.lost && tries < TRIES => {
                    tries += 1;
                    self.pull = None;
                }
                Err(error) if error.failure.kind == Kind::NotFound => {
                    let what = format!("blob {}", self.id);
                    return Err(Error::NotFound { what });
                }
                Err(error) => return Err(self.core.error(&what, error)),
            }
        }
    }

    async fn read(&mut self, session: Option<Arc<Session>>) -> ninep::Result<Bytes> {
        if let Some(session) = session {
            let name = format!("F-{}", self.id);
            let mut file = session.open("trees", &[name.as_bytes()], 0).await?;
            if self.size.is_none() {
                let asked = file.size().await?;
                // A guess: most are small, and one read more does no harm.
                let count = file.unit().min(64 << 10);
                let first = file.read(self.at, count).await?;
                if let Err(error) = file.ready().await {
                    asked.ignore();
                    first.ignore();
                    return Err(error);
                }
                let size = asked.sized().await?;
                self.size = Some(size);
                let data = first.data(count).await?;
                let at = self.at + data.len() as u64;
                self.pull = Some(file.pull(at, Some(size)));
                if !data.is_empty() || at == size {
                    return Ok(data);
                }
            } else {
                self.pull = Some(file.pull(self.at, self.size));
            }
        }
        let pull = self.pull.as_mut().expect("set above");
        Ok(pull.next().await?.unwrap_or_default())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.piece.is_empty() {
            self.piece = block_on(self.next()).map_err(io_error)?;
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

fn io_error(error: Error) -> io::Error {
    let kind = match error.kind() {
        Kind::NotFound => io::ErrorKind::NotFound,
        Kind::Interrupted => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread. The tasks of the connection run
/// elsewhere, so it need not be a thread of the runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut polling = Polling::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut polling) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
