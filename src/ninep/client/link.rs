//! The two ends of a connection's stream, and the requests between them.
//!
//! Lock order: the one lock here is held for moments, and never while another
//! is taken or anything is awaited.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use rs9p::GetAttrMask;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::model::Kind;

use super::{Error, Options, Result, unexpected};
use crate::ninep::message::{Dialect, Reply, Request};
use crate::ninep::wire::{Input, Output};

/// Requests under way; streams that wait are not counted.
const REQUESTS: usize = 256;
/// KiB that requests under way carry or bring.
const KIBIBYTES: usize = 16 << 10;
/// A request that may wait for ever is given as many bytes as this.
pub(super) const PATIENT: u32 = u32::MAX;
/// Bytes encoded at once.
const BATCH: usize = 1 << 20;
/// So long a clunk waits for a request to go with.
const LINGER: Duration = Duration::from_millis(20);

/// What the tasks of a connection and its callers share.
pub(super) struct Link {
    pub dialect: Dialect,
    pub msize: u32,
    state: Mutex<State>,
    /// Something is in the queue.
    queued: Notify,
    /// Something is waited for, after nothing was.
    busy: Notify,
    requests: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
}

struct State {
    /// To be sent, in this order.
    queue: VecDeque<(u16, Request)>,
    /// Somebody waits for what is in the queue.
    urgent: bool,
    /// Sent, or in the queue.
    waiting: HashMap<u16, Waiting>,
    tags: Numbers,
    fids: Numbers,
    /// Tells tickets of one tag apart.
    serial: u64,
    /// When the server last said something, or there was nothing to say.
    heard: Instant,
    ended: Option<Error>,
}

/// A request whose answer is to come.
struct Waiting {
    serial: u64,
    /// Nobody: the answer is of no interest.
    to: Option<oneshot::Sender<Result<Reply>>>,
    /// A flush is under way: the tag is free after that only.
    flushed: bool,
    /// It is the flush of this tag.
    flushes: Option<u16>,
    /// It is the clunk of this fid.
    clunks: Option<u32>,
    /// Given back with the answer.
    _room: Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
}

/// Numbers in use: the ones given back first, then new ones.
#[derive(Default)]
struct Numbers {
    free: Vec<u32>,
    next: u32,
}

impl Numbers {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

impl Link {
    pub fn new(dialect: Dialect, msize: u32) -> Self {
        Self {
            dialect,
            msize,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                urgent: false,
                waiting: HashMap::new(),
                tags: Numbers::default(),
                fids: Numbers::default(),
                serial: 0,
                heard: Instant::now(),
                ended: None,
            }),
            queued: Notify::new(),
            busy: Notify::new(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            kibibytes: Arc::new(Semaphore::new(KIBIBYTES)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves it usable: each change is a few calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ended(&self) -> Option<Error> {
        self.state().ended.clone()
    }

    /// Ends the connection: all that waits fails. The first reason stands.
    pub fn fail(&self, why: &Error) {
        let waiting = {
            let mut state = self.state();
            if state.ended.is_none() {
                state.ended = Some(why.clone());
            }
            state.queue.clear();
            state.urgent = true;
            std::mem::take(&mut state.waiting)
        };
        self.requests.close();
        self.kibibytes.close();
        for to in waiting.into_values().filter_map(|waiting| waiting.to) {
            // Whoever no longer waits needs no answer.
            let _ = to.send(Err(why.clone()));
        }
        self.queued.notify_one();
        self.busy.notify_one();
    }

    fn why(&self) -> Error {
        self.ended()
            .unwrap_or_else(|| Error::lost("the connection was closed"))
    }

    /// Returns a fid that nobody uses.
    pub fn fid(self: &Arc<Self>) -> Fid {
        Fid {
            number: self.state().fids.take(),
            link: self.clone(),
        }
    }

    /// See [`super::Connection::start`].
    pub async fn start(self: &Arc<Self>, request: Request, bytes: u32) -> Result<Ticket> {
        let room = if bytes == PATIENT {
            None
        } else {
            let slot = self.requests.clone().acquire_owned().await;
            let slot = slot.map_err(|_| self.why())?;
            let kibibytes = bytes.div_ceil(1024).min(KIBIBYTES as u32);
            let bytes = match kibibytes {
                0 => None,
                some => {
                    let permits = self.kibibytes.clone().acquire_many_owned(some).await;
                    Some(permits.map_err(|_| self.why())?)
                }
            };
            Some((slot, bytes))
        };
        let (to, answer) = oneshot::channel();
        let (tag, serial) = self.push(request, Some(to), None, room)?;
        Ok(Ticket {
            link: self.clone(),
            tag,
            serial,
            answer,
            settled: false,
        })
    }

    fn push(
        &self,
        request: Request,
        to: Option<oneshot::Sender<Result<Reply>>>,
        flushes: Option<u16>,
        room: Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
    ) -> Result<(u16, u64)> {
        let mut state = self.state();
        if let Some(why) = &state.ended {
            return Err(why.clone());
        }
        let Some(tag) = u16::try_from(state.tags.take())
            .ok()
            .filter(|tag| *tag != super::NO_TAG)
        else {
            let message = "more requests at once than 9P can tell apart";
            return Err(Error::here(Kind::NoSpace, message));
        };
        state.serial += 1;
        let serial = state.serial;
        let clunks = match &request {
            Request::Clunk { fid } => Some(*fid),
            _ => None,
        };
        if state.waiting.is_empty() {
            state.heard = Instant::now();
            self.busy.notify_one();
        }
        let waiting = Waiting {
            serial,
            to,
            flushed: false,
            flushes,
            clunks,
            _room: room,
        };
        state.waiting.insert(tag, waiting);
        state.urgent |= clunks.is_none();
        state.queue.push_back((tag, request));
        drop(state);
        self.queued.notify_one();
        Ok((tag, serial))
    }

    /// Takes a request back that nobody waits for any more.
    fn abandon(&self, tag: u16, serial: u64) {
        let mut state = self.state();
        let Some(waiting) = state.waiting.get_mut(&tag) else {
            return;
        };
        if waiting.serial != serial || waiting.flushed {
            return;
        }
        waiting.to = None;
        if let Some(at) = state.queue.iter().position(|(queued, _)| *queued == tag) {
            state.queue.remove(at);
            state.waiting.remove(&tag);
            state.tags.free.push(tag.into());
            return;
        }
        waiting_flushed(&mut state, tag);
        drop(state);
        let flush = Request::Flush { oldtag: tag };
        // Without a connection there is nothing to take back.
        let _ = self.push(flush, None, Some(tag), None);
    }

    /// Says that the answer to a request is of no interest.
    fn ignore(&self, tag: u16, serial: u64) {
        if let Some(waiting) = self.state().waiting.get_mut(&tag)
            && waiting.serial == serial
        {
            waiting.to = None;
        }
    }

    /// Takes an answer. An error ends the connection.
    fn answer(&self, tag: u16, reply: Reply) -> Result<()> {
        let mut state = self.state();
        let Some(waiting) = state.waiting.get_mut(&tag) else {
            return Err(Error::lost("the server answered what was not asked"));
        };
        if waiting.flushed {
            // Too late: the flush is answered next, and frees the tag.
            return Ok(());
        }
        let waiting = state.waiting.remove(&tag).expect("found above");
        state.tags.free.push(tag.into());
        if let Some(old) = waiting.flushes {
            state.waiting.remove(&old);
            state.tags.free.push(old.into());
        }
        if let Some(fid) = waiting.clunks {
            state.fids.free.push(fid);
        }
        drop(state);
        if let Some(to) = waiting.to {
            let reply = match reply {
                Reply::Lerror { errno, failure } => Err(Error::told(errno, failure.as_ref())),
                reply => Ok(reply),
            };
            // Whoever no longer waits needs no answer.
            let _ = to.send(reply);
        }
        Ok(())
    }

    /// Encodes what is in the queue, up to a limit.
    fn encode(&self, out: &mut Output) {
        let mut state = self.state();
        state.urgent = false;
        while out.len() < BATCH
            && let Some((tag, request)) = state.queue.pop_front()
        {
            let failed = match request.encode(tag, self.dialect, out) {
                Ok(()) => continue,
                Err(failed) => failed,
            };
            state.tags.free.push(tag.into());
            let waiting = state.waiting.remove(&tag);
            if let Some(to) = waiting.and_then(|waiting| waiting.to) {
                let message = format!("what is asked for does not fit into 9P: {failed}");
                // Whoever no longer waits needs no answer.
                let _ = to.send(Err(Error::here(Kind::Invalid, message)));
            }
        }
    }

    /// Waits until somebody waits for what is in the queue, or for long enough.
    async fn linger(&self) {
        let urgent = async {
            while !self.state().urgent {
                self.queued.notified().await;
            }
        };
        // It is sent in either case.
        let _ = tokio::time::timeout(LINGER, urgent).await;
    }
}

fn waiting_flushed(state: &mut State, tag: u16) {
    if let Some(waiting) = state.waiting.get_mut(&tag) {
        waiting.flushed = true;
    }
}

/// Sends what is queued until the connection ends.
pub(super) async fn write<S: AsyncWrite + Unpin>(link: Arc<Link>, mut stream: S) {
    let mut out = Output::default();
    loop {
        link.encode(&mut out);
        if out.is_empty() {
            out.rest();
            if link.ended().is_some() {
                return;
            }
            link.queued.notified().await;
            link.linger().await;
            continue;
        }
        let written = async {
            while out.has_remaining() {
                if stream.write_buf(&mut out).await? == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
            }
            stream.flush().await
        };
        if let Err(error) = written.await {
            return link.fail(&Error::lost(error.to_string()));
        }
    }
}

/// Takes what the server says until the connection ends.
pub(super) async fn read<S: AsyncRead + Unpin>(link: Arc<Link>, mut input: Input, mut stream: S) {
    loop {
        match input.fill(&mut stream).await {
            Ok(true) => link.state().heard = Instant::now(),
            Ok(false) => return link.fail(&Error::lost("the server closed the connection")),
            Err(error) => return link.fail(&Error::lost(error.to_string())),
        }
        if let Err(error) = answers(&link, &mut input) {
            return link.fail(&error);
        }
        input.rest();
    }
}

fn answers(link: &Link, input: &mut Input) -> Result<()> {
    let nonsense = |error| Error::lost(format!("the server does not speak 9P: {error}"));
    while let Some(frame) = input.frame(link.msize).map_err(nonsense)? {
        let (tag, reply) = Reply::decode(&frame, link.dialect).map_err(nonsense)?;
        link.answer(tag, reply)?;
    }
    Ok(())
}

/// Sees that the server is there while something is waited for.
pub(super) async fn guard(link: Arc<Link>, root: u32, options: Options) {
    loop {
        let (idle, heard) = {
            let state = link.state();
            if state.ended.is_some() {
                return;
            }
            (state.waiting.is_empty(), state.heard)
        };
        if idle {
            link.busy.notified().await;
            continue;
        }
        let due = heard + options.idle;
        if Instant::now() < due {
            tokio::time::sleep_until(due).await;
            continue;
        }
        let ping = Request::Getattr {
            fid: root,
            mask: GetAttrMask::BASIC,
        };
        let asked = Instant::now();
        let Ok(ticket) = link.start(ping, PATIENT).await else {
            return;
        };
        // Any word of the server's will do, also another.
        let answered = tokio::time::timeout(options.patience, ticket).await.is_ok();
        if !answered && link.state().heard < asked {
            let seconds = (options.idle + options.patience).as_secs();
            let message = format!("the server did not answer for {seconds} seconds");
            return link.fail(&Error::lost(message));
        }
    }
}

/// A fid of the server, given back when dropped.
pub struct Fid {
    link: Arc<Link>,
    number: u32,
}

impl Fid {
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Fid {
    fn drop(&mut self) {
        let fid = self.number;
        // Without a connection it is gone already.
        let _ = self.link.push(Request::Clunk { fid }, None, None, None);
    }
}

/// Takes the answer to a write of `count` bytes.
pub fn written(answer: Reply, count: u32) -> Result<()> {
    match answer {
        Reply::Write { count: taken } if taken == count => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// An answer to come. Dropped before that, the request is taken back.
pub struct Ticket {
    link: Arc<Link>,
    tag: u16,
    serial: u64,
    answer: oneshot::Receiver<Result<Reply>>,
    /// The answer was taken, or is of no interest.
    settled: bool,
}

impl Future for Ticket {
    type Output = Result<Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Reply>> {
        let answer = Pin::new(&mut self.answer).poll(context);
        answer.map(|answer| {
            self.settled = true;
            answer.unwrap_or_else(|_| Err(self.link.why()))
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.link.abandon(self.tag, self.serial);
        }
    }
}

impl Ticket {
    /// Lets the request be answered, whatever the answer.
    pub fn ignore(mut self) {
        self.settled = true;
        self.link.ignore(self.tag, self.serial);
    }

    /// The answer to an attach.
    pub async fn attached(self) -> Result<()> {
        match self.await? {
            Reply::Attach { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The answer to a walk of one step.
    pub async fn walked(self) -> Result<()> {
        match self.await? {
            Reply::Walk { qids } if qids.len() == 1 => Ok(()),
            // Walks of one step are done or fail.
            other => Err(unexpected(&other)),
        }
    }

    /// The answer to a read of at most `most` bytes.
    pub async fn data(self, most: u32) -> Result<Bytes> {
        match self.await? {
            Reply::Read { data } | Reply::Readdir { data } if data.len() <= most as usize => {
                Ok(data.0)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The answer to a write of `count` bytes.
    pub async fn written(self, count: u32) -> Result<()> {
        written(self.await?, count)
    }

    /// The answer to [`super::File::size`].
    pub async fn sized(self) -> Result<u64> {
        match self.await? {
            Reply::Getattr { stat, .. } => Ok(stat.size),
            other => Err(unexpected(&other)),
        }
    }

    /// The answer to an open: what one read or write may carry, or 0.
    pub async fn opened(self) -> Result<u32> {
        match self.await? {
            Reply::Lopen { iounit, .. } => Ok(iounit),
            other => Err(unexpected(&other)),
        }
    }

    /// An answer that says no more than that it was done.
    pub async fn done(self) -> Result<()> {
        match self.await? {
            Reply::Mkdir { .. } | Reply::Unlinkat {} | Reply::Clunk {} | Reply::Fsync {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}
