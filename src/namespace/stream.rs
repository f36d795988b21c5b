//! Files that are read in sequence for as long as something comes.
//!
//! A [`Stream`] tells what happens: after each result one empty read, so that
//! a client which reads until it gets nothing hands on what it has; two empty
//! reads in a row never come. A [`Records`] file is long and ends: no empty
//! read but the last.
//!
//! An idle stream is a future that waits for a bell: no thread and no task.
//! A read that is cancelled has taken nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::metrics::metrics;
use crate::model::Kind;
use crate::store::{self, Store, face};

use super::World;
use super::entry::File;
use super::failure;
use super::files::{Cursor, Turn, lock, take};
use super::node::{Call, Error, Handle, Open, Result};

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
    fn waits(&self) -> bool {
        true
    }

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
}

/// A long text, made piece by piece. No thread is held between two pieces.
pub trait Answer: Send + 'static {
    /// Adds what comes next to `text`, until that is at least `enough` bytes
    /// long. `false`: that was all. Blocks.
    fn more(&mut self, store: &Store, text: &mut Vec<u8>, enough: usize) -> store::Result<bool>;
}

type Ask = dyn Fn(&Call) -> BoxFuture<'static, Result<Box<dyn Answer>>> + Send + Sync;

/// A file whose content is computed when it is opened, as it is read.
pub struct Records {
    world: Arc<World>,
    ask: Box<Ask>,
}

impl Records {
    pub fn new(
        world: &Arc<World>,
        ask: impl Fn(&Call) -> BoxFuture<'static, Result<Box<dyn Answer>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            world: world.clone(),
            ask: Box::new(ask),
        }
    }
}

#[async_trait::async_trait]
impl File for Records {
    async fn open(self: Arc<Self>, call: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        let text = Text::new(&self.world, (self.ask)(call).await?);
        Ok(Arc::new(RecordsHandle(Turn::new((0, text)))))
    }
}

/// Bytes made at once, if a reader does not want more.
const PIECE: usize = 64 << 10;

/// An answer as it is read.
pub struct Text {
    world: Arc<World>,
    making: Arc<Making>,
    /// Made, and not read.
    rest: Bytes,
    /// Told again to whoever goes on reading.
    failed: Option<Error>,
}

/// What a thread works on. What it makes stays here should nobody wait for it
/// any more.
struct Making {
    /// Nothing once it is at its end. Held while it is worked on.
    answer: Mutex<Option<Box<dyn Answer>>>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    ready: VecDeque<Result<Bytes, store::Error>>,
    /// There will be no more.
    all: bool,
}

impl Making {
    fn make(&self, store: &Store, enough: usize) {
        let mut answer = lock(&self.answer);
        let Some(making) = &mut *answer else {
            return;
        };
        let mut text = Vec::new();
        let more = making.more(store, &mut text, enough);
        if !matches!(more, Ok(true)) {
            *answer = None;
        }
        let mut made = lock(&self.made);
        made.all = answer.is_none();
        if !text.is_empty() {
            made.ready.push_back(Ok(text.into()));
        }
        made.ready.extend(more.err().map(Err));
    }
}

impl Text {
    pub fn new(world: &Arc<World>, answer: Box<dyn Answer>) -> Self {
        Self {
            world: world.clone(),
            making: Arc::new(Making {
                answer: Mutex::new(Some(answer)),
                made: Mutex::default(),
            }),
            rest: Bytes::new(),
            failed: None,
        }
    }

    /// Tells whether all of it was read.
    fn is_ended(&self) -> bool {
        let made = lock(&self.making.made);
        made.all && made.ready.is_empty() && self.rest.is_empty() && self.failed.is_none()
    }

    /// Reads `count` bytes; less at the end and before a failure only, so that
    /// whoever reads ahead knows where the next read begins.
    pub async fn read(&mut self, count: u32) -> Result<Bytes> {
        while self.rest.len() < count as usize && self.failed.is_none() {
            let (ready, all) = {
                let mut made = lock(&self.making.made);
                (made.ready.pop_front(), made.all)
            };
            match ready {
                Some(Ok(text)) if self.rest.is_empty() => self.rest = text,
                Some(Ok(text)) => self.rest = [&self.rest[..], &text[..]].concat().into(),
                Some(Err(error)) => self.failed = Some(error.into()),
                None if all => break,
                None => {
                    let (making, enough) = (self.making.clone(), PIECE.max(count as usize));
                    let make = move |store: &Arc<Store>| {
                        making.make(store, enough);
                        Ok(())
                    };
                    face::run(&self.world.store, make).await?;
                }
            }
        }
        match &self.failed {
            Some(error) if self.rest.is_empty() && count > 0 => Err(error.clone()),
            _ => Ok(take(&mut self.rest, count)),
        }
    }
}

/// Where reading goes on, and what is read.
struct RecordsHandle(Turn<(u64, Text)>);

#[async_trait::async_trait]
impl Handle for RecordsHandle {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        let (at, text) = &mut *self.0.take().await;
        if offset > *at && text.is_ended() {
            // Whoever asks ahead is told that there is no more.
            return Ok(Bytes::new());
        }
        if offset != *at {
            return Err(failure::seek());
        }
        let data = text.read(count).await?;
        *at += data.len() as u64;
        Ok(data)
    }
}
