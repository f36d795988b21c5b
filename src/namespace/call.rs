//! Call files: a request of any length is written, its last line makes it
//! happen, and the same handle then reads the result.
//!
//! What comes is checked as it comes and kept in a spool; only the last line
//! sets a thread to work on it. The write that holds that line is answered when
//! the request took effect. A handle closed before has done nothing.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::model::Kind;
use crate::model::failure::Failure;
use crate::model::request::{Content, Edit, Edits, Sink, Stop};
use crate::model::text::apply::{Filled, Finish, Head, Parser, Part, Plain};

use super::World;
use super::entry::File;
use super::failure;
use super::files::Turn;
use super::node::{Call, Error, Handle, Open, Result};
use super::spool::Spool;

/// A request that is complete.
pub struct Request {
    pub head: Head,
    pub finish: Finish,
    /// Whether there are edits in it.
    pub edits: Option<Edits>,
}

type Act = dyn Fn(&Call, Request) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync;

/// A call file.
pub struct CallFile {
    world: Arc<World>,
    act: Box<Act>,
}

impl CallFile {
    pub fn new(
        world: &Arc<World>,
        act: impl Fn(&Call, Request) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            world: world.clone(),
            act: Box::new(act),
        }
    }
}

#[async_trait::async_trait]
impl File for CallFile {
    fn acts(&self) -> bool {
        true
    }

    async fn open(self: Arc<Self>, _: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        Ok(Arc::new(CallHandle {
            file: self,
            state: Turn::new(State::Coming(Box::default())),
        }))
    }
}

enum State {
    Coming(Box<Coming>),
    Done(Bytes),
    Failed(Error),
}

/// A request that is not complete.
#[derive(Default)]
struct Coming {
    at: u64,
    parser: Parser,
    head: Option<Box<Head>>,
    edits: bool,
    finish: Option<Finish>,
    spool: Spool,
}

impl Coming {
    /// Looks through a piece.
    fn check(&mut self, piece: &Bytes) -> Result<()> {
        let mut parts = Vec::new();
        let result = self.parser.push(piece.clone(), &mut parts);
        for part in parts {
            match part {
                Part::Head(head) => self.head = Some(head),
                Part::Edit(_) | Part::Begin { .. } => self.edits = true,
                Part::Finish(finish) => self.finish = Some(finish),
                Part::Data(_) | Part::End => {}
            }
        }
        Ok(result?)
    }
}

struct CallHandle {
    file: Arc<CallFile>,
    state: Turn<State>,
}

impl CallHandle {
    async fn take_in(
        &self,
        call: &Call,
        coming: &mut Coming,
        data: Bytes,
    ) -> Result<Option<Bytes>> {
        let length = data.len() as u64;
        coming.check(&data)?;
        let spool = std::mem::take(&mut coming.spool);
        coming.spool = spool.take(&self.file.world, data).await?;
        coming.at += length;
        let Some(finish) = coming.finish else {
            return Ok(None);
        };
        let edits = match coming.edits {
            true => Some(replay(std::mem::take(&mut coming.spool))?),
            false => None,
        };
        let mut head = *coming.head.take().unwrap_or_default();
        let operation = head.operation.take();
        let request = Request {
            head,
            finish,
            edits,
        };
        let act = (self.file.act)(call, request);
        let result = match operation {
            Some(operation) => self.file.world.operations.run(&operation, act).await?,
            None => act.await?,
        };
        Ok(Some(result.into()))
    }
}

#[async_trait::async_trait]
impl Handle for CallHandle {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        match &*self.state.take().await {
            State::Coming(_) => Err(Error::new(Kind::Invalid, "the request is not complete")),
            State::Failed(error) => Err(error.clone()),
            State::Done(result) => {
                let start = result
                    .len()
                    .min(usize::try_from(offset).unwrap_or(usize::MAX));
                let end = result.len().min(start.saturating_add(count as usize));
                Ok(result.slice(start..end))
            }
        }
    }

    async fn write(&self, call: &Call, offset: u64, data: Bytes) -> Result<()> {
        let state = &mut *self.state.take().await;
        let mut coming = match state {
            State::Coming(coming) if coming.at == offset => std::mem::take(coming),
            State::Coming(_) => return Err(failure::seek()),
            State::Failed(error) => return Err(error.clone()),
            State::Done(_) => {
                let message = "the request is complete: nothing may follow";
                return Err(Error::new(Kind::Invalid, message));
            }
        };
        // A write that is taken back leaves a request with a hole in it.
        *state = State::Failed(super::cancelled());
        match self.take_in(call, &mut coming, data).await {
            Ok(None) => *state = State::Coming(coming),
            Ok(Some(result)) => *state = State::Done(result),
            Err(error) => {
                *state = State::Failed(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Makes the edits of a request that was spooled.
fn replay(spool: Spool) -> Result<Edits> {
    let mut replay = Replay {
        text: spool.into_reader()?,
        parser: Parser::default(),
        parts: VecDeque::new(),
    };
    Ok(Edits::new(move |sink: &mut dyn Sink| replay.run(sink)))
}

/// Reads a request again, part by part.
struct Replay {
    text: Box<dyn Read + Send>,
    parser: Parser,
    parts: VecDeque<Part>,
}

/// Bytes of a request read at a time.
const PIECE: usize = 256 << 10;

fn source(failure: Failure) -> Stop {
    Stop::Source(failure.message.into())
}

impl Replay {
    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        loop {
            match self.next().map_err(|error| Stop::Source(error.into()))? {
                None | Some(Part::Finish(_)) => return Ok(()),
                Some(Part::Head(_) | Part::Data(_) | Part::End) => {}
                Some(Part::Edit(edit)) => sink.edit(plain(edit))?,
                Some(Part::Begin { edit, size }) => self.filled(sink, edit, size)?,
            }
        }
    }

    fn next(&mut self) -> io::Result<Option<Part>> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Ok(Some(part));
            }
            let mut piece = Vec::new();
            (&mut self.text)
                .take(PIECE as u64)
                .read_to_end(&mut piece)?;
            if piece.is_empty() {
                return Ok(None);
            }
            let mut parts = Vec::new();
            self.parser
                .push(piece.into(), &mut parts)
                .map_err(|failure| io::Error::other(failure.message))?;
            self.parts.extend(parts);
        }
    }

    fn filled(&mut self, sink: &mut dyn Sink, edit: Filled, size: Option<u64>) -> Result<(), Stop> {
        if let Filled::Link { path } = edit {
            /// A link's target is held in memory.
            const LONGEST: u64 = 1 << 20;
            let mut target = Vec::new();
            let mut content = Filling {
                replay: self,
                rest: Bytes::new(),
                ended: false,
            };
            (&mut content)
                .take(LONGEST + 1)
                .read_to_end(&mut target)
                .map_err(|error| Stop::Source(error.into()))?;
            if target.len() as u64 > LONGEST {
                let message = format!("the target of {path} is longer than {LONGEST} bytes");
                return Err(source(Failure::new(Kind::Invalid, message)));
            }
            return sink.edit(Edit::Link {
                path,
                target: &target,
            });
        }
        let mut reader = Filling {
            replay: self,
            rest: Bytes::new(),
            ended: false,
        };
        let content = Content::Reader {
            reader: &mut reader,
            size,
        };
        sink.edit(match edit {
            Filled::Write { path, kind } => Edit::Write {
                path,
                kind,
                content,
            },
            Filled::Append { path } | Filled::Link { path } => Edit::Append { path, content },
        })
    }
}

/// The content behind an edit.
struct Filling<'a> {
    replay: &'a mut Replay,
    rest: Bytes,
    ended: bool,
}

impl Read for Filling<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.replay.next()? {
                Some(Part::Data(data)) => self.rest = data,
                _ => self.ended = true,
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

fn plain(edit: Plain) -> Edit<'static> {
    match edit {
        Plain::Truncate { path, size } => Edit::Truncate { path, size },
        Plain::Mkdir { path } => Edit::Mkdir { path },
        Plain::Remove { path } => Edit::Remove { path },
        Plain::Rename { from, to } => Edit::Rename { from, to },
        Plain::Copy { from, to } => Edit::Copy { from, to },
        Plain::Chmod { path, exec } => Edit::Chmod { path, exec },
        Plain::Set { path, entry } => Edit::Set { path, entry },
    }
}
