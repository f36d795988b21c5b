//! Files that are read in sequence for as long as something comes.
//!
//! A [`Stream`] tells what happens: after each result one empty read, so that
//! a client which reads until it gets nothing hands on what it has; two empty
//! reads in a row never come. A [`Records`] file is long and ends: no empty
//! read but the last.
//!
//! An idle stream is a future that waits for a bell: no thread and no task.
//! A read that is cancelled has taken nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;

use crate::metrics::metrics;
use crate::model::Kind;
use crate::store::face;

use super::entry::{File, no_listing};
use super::failure;
use super::files::{Cursor, Turn, take};
use super::node::{Call, Error, Handle, Listing, Open, Result};

/// What a stream tells, one result after the other. Dropping the future of
/// [`Source::next`] loses nothing: it is all there for the next call.
#[async_trait::async_trait]
pub trait Source: Send {
    /// Waits for the next result. It is never empty, except at the end, which
    /// a stream of events has not.
    async fn next(&mut self) -> Result<Bytes>;
}

/// How many streams are open, and may be.
pub struct Streams {
    open: AtomicUsize,
    most: usize,
}

impl Streams {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            most,
        })
    }

    /// Counts one more, for as long as the result lives.
    pub fn enter(self: &Arc<Self>) -> Result<Entered> {
        let entered = |open: usize| (open < self.most).then_some(open + 1);
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, entered)
            .map_err(|_| {
                let most = self.most;
                Error::new(Kind::NoSpace, format!("{most} streams are open already"))
            })?;
        metrics().streams.inc();
        Ok(Entered(self.clone()))
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

/// A stream that is counted.
pub struct Entered(Arc<Streams>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        metrics().streams.dec();
    }
}

type Begin = dyn Fn(&Call) -> BoxFuture<'static, Result<Box<dyn Source>>> + Send + Sync;

/// A file that is a stream of events.
pub struct Stream {
    streams: Arc<Streams>,
    begin: Box<Begin>,
}

impl Stream {
    /// `begin` registers what is to be waited for; the first result may be
    /// there at once.
    pub fn new(
        streams: &Arc<Streams>,
        begin: impl Fn(&Call) -> BoxFuture<'static, Result<Box<dyn Source>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            streams: streams.clone(),
            begin: Box::new(begin),
        }
    }
}

#[async_trait::async_trait]
impl File for Stream {
    async fn size(&self, _: &Call) -> Result<u64> {
        Ok(0)
    }

    async fn open(self: Arc<Self>, call: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        let entered = self.streams.enter()?;
        let source = (self.begin)(call).await?;
        Ok(Arc::new(StreamHandle {
            state: Turn::new(Reading {
                cursor: Cursor::default(),
                rest: Bytes::new(),
                source,
            }),
            _entered: entered,
        }))
    }
}

struct Reading {
    cursor: Cursor,
    /// What did not fit into the last read.
    rest: Bytes,
    source: Box<dyn Source>,
}

struct StreamHandle {
    state: Turn<Reading>,
    _entered: Entered,
}

#[async_trait::async_trait]
impl Handle for StreamHandle {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        let reading = &mut *self.state.take().await;
        if reading.cursor.begin(offset, true)? || count == 0 {
            return Ok(Bytes::new());
        }
        if reading.rest.is_empty() {
            reading.rest = reading.source.next().await?;
        }
        let data = take(&mut reading.rest, count);
        reading.cursor.gave(data.len());
        Ok(data)
    }

    async fn write(&self, _: &Call, _: u64, _: Bytes) -> Result<()> {
        Err(failure::read_only_file())
    }

    async fn list(&self, _: &Call) -> Result<Arc<dyn Listing>> {
        Err(no_listing())
    }

    async fn sync(&self, _: &Call) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _: &Call) -> Result<()> {
        Ok(())
    }
}

/// Makes the records of a query's answer, each as it is to be read.
pub type Answers = face::Records<Vec<u8>>;

type Ask = dyn Fn(&Call) -> BoxFuture<'static, Result<Answers>> + Send + Sync;

/// A file whose content is computed when it is opened, as it is read.
pub struct Records(Box<Ask>);

impl Records {
    pub fn new(
        ask: impl Fn(&Call) -> BoxFuture<'static, Result<Answers>> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(ask))
    }
}

#[async_trait::async_trait]
impl File for Records {
    async fn size(&self, _: &Call) -> Result<u64> {
        Ok(0)
    }

    async fn open(self: Arc<Self>, call: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        let answers = (self.0)(call).await?;
        Ok(Arc::new(RecordsHandle(Turn::new(Asking {
            at: 0,
            rest: Bytes::new(),
            answers,
            failed: None,
        }))))
    }
}

struct Asking {
    at: u64,
    rest: Bytes,
    answers: Answers,
    /// Told again to whoever goes on reading.
    failed: Option<Error>,
}

impl Asking {
    /// Gathers records until there are `count` bytes, or no more come.
    async fn fill(&mut self, count: usize) -> Result<()> {
        if self.rest.len() >= count {
            return Ok(());
        }
        let mut gathered = Vec::new();
        // What was gathered is kept wherever this stops.
        while self.rest.len() + gathered.len() < count && self.failed.is_none() {
            let next = match gathered.is_empty() && self.rest.is_empty() {
                true => self.answers.next().await,
                // With something to give, only what is there already is added.
                false => match futures_util::FutureExt::now_or_never(self.answers.next()) {
                    Some(next) => next,
                    None => break,
                },
            };
            match next {
                Some(Ok(record)) => gathered.extend_from_slice(&record),
                Some(Err(error)) => self.failed = Some(error.into()),
                None => break,
            }
        }
        if !gathered.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.rest = match rest.is_empty() {
                true => gathered.into(),
                false => [&rest[..], &gathered].concat().into(),
            };
        }
        match &self.failed {
            Some(error) if self.rest.is_empty() => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

struct RecordsHandle(Turn<Asking>);

#[async_trait::async_trait]
impl Handle for RecordsHandle {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        let asking = &mut *self.0.take().await;
        if offset != asking.at {
            return Err(failure::seek());
        }
        asking.fill(count as usize).await?;
        let data = take(&mut asking.rest, count);
        asking.at += data.len() as u64;
        Ok(data)
    }

    async fn write(&self, _: &Call, _: u64, _: Bytes) -> Result<()> {
        Err(failure::read_only_file())
    }

    async fn list(&self, _: &Call) -> Result<Arc<dyn Listing>> {
        Err(no_listing())
    }

    async fn sync(&self, _: &Call) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _: &Call) -> Result<()> {
        Ok(())
    }
}
