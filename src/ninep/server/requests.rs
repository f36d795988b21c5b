//! The requests of a connection: what runs, what waits, what is cancelled.
//!
//! Knows frames and answers but no socket. A request is known by a number of
//! its own, never by its tag: a client may use a tag again while what it
//! flushed is still coming to its end.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, Aborted};
use futures_util::stream::{FuturesUnordered, Stream as _};

use super::counts::counts;
use super::fault::Fault;
use super::fid::Fids;
use super::lock::Locks;
use super::order::{Claims, Order, Use};
use super::session::{Outcome, Session, Step, Work, claims};
use super::{Error, LEAST_MSIZE, Limits};
use crate::namespace::node::{Call, Principal, Tree};
use crate::ninep::errno::*;
use crate::ninep::message::{Dialect, Reply, Request, header};
use crate::ninep::wire::{self, Output};

type Answer = Result<Reply, Fault>;

/// All of a connection but its stream.
pub struct Requests {
    tree: Arc<dyn Tree>,
    limits: Arc<Limits>,
    locks: Locks,
    connection: u64,
    peer: Arc<str>,
    nobody: Arc<Principal>,
    /// `None` until a version is agreed on.
    session: Option<Session>,
    /// The number of the next request; also the order they came in.
    next: u64,
    /// Ends with all that has come, and with what may change something.
    turn: u64,
    /// Requests not answered yet.
    active: HashMap<u64, Active>,
    /// The tags in use, of Tflush too: those name the request they wait for.
    tags: HashMap<u16, u64>,
    order: Order,
    /// Requests that are held up no longer, to be started when there is room.
    ready: BTreeSet<u64>,
    jobs: FuturesUnordered<Job>,
    /// Answers on their way.
    pub output: Output,
}

/// A request that could not be answered at once.
struct Active {
    tag: u16,
    number: u8,
    since: Instant,
    claims: Claims,
    stage: Stage,
    /// Tags of Tflushes that are answered after it.
    flushes: Vec<u16>,
}

enum Stage {
    /// Behind others of its fid.
    Queued(Box<Request>),
    /// Being taken out of the queue.
    Starting,
    Running {
        call: Call,
        abort: AbortHandle,
        /// Waits for something to happen, as far as known.
        waits: bool,
        /// Cancelled, and to be answered so (by a Tclunk) or not at all.
        cancelled: Option<Answered>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    Interrupted,
    Never,
}

/// Work that waits, and the request it is for.
struct Job {
    id: u64,
    work: Abortable<Work>,
}

impl Future for Job {
    type Output = (u64, Result<Result<Outcome, Fault>, Aborted>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let id = self.id;
        Pin::new(&mut self.work).poll(cx).map(|done| (id, done))
    }
}

/// Where a request came from and what it is.
struct Arrived {
    id: u64,
    tag: u16,
    number: u8,
    since: Instant,
    claims: Claims,
}

impl Requests {
    pub fn new(
        tree: Arc<dyn Tree>,
        limits: Arc<Limits>,
        locks: Locks,
        connection: u64,
        peer: &str,
    ) -> Self {
        Self {
            tree,
            limits,
            locks,
            connection,
            peer: peer.into(),
            nobody: Arc::new(Principal {
                uname: Vec::new(),
                uid: None,
                peer: peer.into(),
            }),
            session: None,
            next: 0,
            turn: 1,
            active: HashMap::new(),
            tags: HashMap::new(),
            order: Order::default(),
            ready: BTreeSet::new(),
            jobs: FuturesUnordered::new(),
            output: Output::default(),
        }
    }

    /// Returns the longest frame there may be.
    pub fn longest(&self) -> u32 {
        let session = self.session.as_ref();
        session.map_or(LEAST_MSIZE, |session| session.msize)
    }

    /// Tells whether there are so many answers that nothing more is to be done.
    pub fn full(&self) -> bool {
        self.output.len() >= self.limits.replies
    }

    /// Tells whether nothing runs any more.
    pub fn finished(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Begins anew with what has come: what was seen before may have changed.
    pub fn turn(&mut self) {
        self.turn += 1;
    }

    /// Takes a request as far as it goes.
    pub fn take(&mut self, frame: &Bytes) -> Result<(), Error> {
        let dialect = self.dialect();
        let (tag, request) = match Request::decode(frame, dialect) {
            Ok(message) => message,
            Err(error) => return self.undecodable(frame, &error),
        };
        tracing::debug!(target: "ninep", peer = &*self.peer, tag, ?request);
        let number = request.number();
        counts(number).asked();
        if self.tags.contains_key(&tag) && !matches!(request, Request::Version { .. }) {
            return Err(Error::Tag(tag));
        }
        match request {
            Request::Version { msize, version } => self.version(tag, msize, &version),
            _ if self.session.is_none() => return Err(self.unversioned(tag)),
            Request::Flush { oldtag } => self.flush(tag, oldtag),
            request => self.arrive(tag, number, request),
        }
        Ok(())
    }

    fn dialect(&self) -> Dialect {
        let session = self.session.as_ref();
        session.map_or(Dialect::Plain, |session| session.dialect)
    }

    fn undecodable(&mut self, frame: &Bytes, error: &wire::Error) -> Result<(), Error> {
        let (number, tag) = header(frame).map_err(Error::Frame)?;
        if self.session.is_none() {
            return Err(self.unversioned(tag));
        }
        tracing::debug!(target: "ninep", peer = &*self.peer, tag, number, %error);
        if self.tags.contains_key(&tag) {
            return Err(Error::Tag(tag));
        }
        let fault = match error {
            wire::Error::Type(_) => Fault::new(ENOSYS, rs9p::errstr::ENOSYS),
            _ => Fault::new(EPROTO, rs9p::errstr::EPROTO),
        };
        self.answer(tag, number, None, Err(fault));
        Ok(())
    }

    fn unversioned(&mut self, tag: u16) -> Error {
        let fault = Fault::new(EPROTO, "Expected Version message");
        self.send(
            tag,
            Dialect::Plain,
            &fault.reply(Dialect::Plain, LEAST_MSIZE),
        );
        Error::Version
    }

    /// Begins a session, and ends the one there is with all its requests.
    fn version(&mut self, tag: u16, msize: u32, version: &[u8]) {
        self.cancel();
        self.active.clear();
        self.tags.clear();
        self.ready.clear();
        self.order = Order::default();
        self.session = None;
        let msize = msize.min(self.limits.msize);
        let Some(dialect) = Dialect::negotiate(version) else {
            let version = rs9p::VERSION_UNKNOWN.into();
            return self.send(tag, Dialect::Plain, &Reply::Version { msize, version });
        };
        if msize < LEAST_MSIZE {
            let text = format!("an msize of {msize}, and {LEAST_MSIZE} is the least");
            let reply = Fault::new(EINVAL, text).reply(dialect, LEAST_MSIZE);
            return self.send(tag, dialect, &reply);
        }
        self.session = Some(Session {
            tree: self.tree.session(&self.peer),
            dialect,
            msize,
            fids: Fids::new(self.limits.fids),
            locks: self.locks.clone(),
            connection: self.connection,
            peer: self.peer.clone(),
            nobody: self.nobody.clone(),
        });
        let version = dialect.version().into();
        self.send(tag, dialect, &Reply::Version { msize, version });
    }

    fn arrive(&mut self, tag: u16, number: u8, request: Request) {
        let arrived = Arrived {
            id: self.next,
            tag,
            number,
            since: Instant::now(),
            claims: claims(&request),
        };
        self.next += 1;
        if let Request::Clunk { fid } | Request::Remove { fid } = request {
            self.interrupt(fid);
        }
        if self.order.free(arrived.id, &arrived.claims) {
            self.start(arrived, request);
        } else if self.active.len() >= self.limits.outstanding {
            let fault = self.too_many();
            self.answer(tag, number, None, Err(fault));
        } else {
            self.wait(arrived, Stage::Queued(Box::new(request)));
        }
    }

    fn too_many(&self) -> Fault {
        let text = format!("more than {} requests wait", self.limits.outstanding);
        Fault::new(ENOBUFS, text)
    }

    fn wait(&mut self, arrived: Arrived, stage: Stage) {
        self.order.enter(arrived.id, &arrived.claims);
        self.tags.insert(arrived.tag, arrived.id);
        self.active.insert(
            arrived.id,
            Active {
                tag: arrived.tag,
                number: arrived.number,
                since: arrived.since,
                claims: arrived.claims,
                stage,
                flushes: Vec::new(),
            },
        );
    }

    /// Starts a request that has just come: answers it, or lets it run.
    fn start(&mut self, arrived: Arrived, request: Request) {
        match self.attempt(request, &arrived.claims) {
            Attempt::Answered(answer) => {
                let since = Some(arrived.since);
                self.answer(arrived.tag, arrived.number, since, answer);
            }
            Attempt::Runs { call, work, waits } => {
                // Work that cannot be taken back any more is let in.
                if self.active.len() >= self.limits.outstanding && call.cancel() {
                    drop(work);
                    let fault = self.too_many();
                    return self.answer(arrived.tag, arrived.number, None, Err(fault));
                }
                let id = arrived.id;
                let stage = self.run(id, call, work, waits);
                self.wait(arrived, stage);
            }
        }
    }

    /// Starts a request that was queued.
    fn resume(&mut self, id: u64) {
        let Some(active) = self.active.get_mut(&id) else {
            return;
        };
        let claims = active.claims;
        let Stage::Queued(_) = &active.stage else {
            return;
        };
        if !self.order.free(id, &claims) {
            return;
        }
        let stage = std::mem::replace(&mut active.stage, Stage::Starting);
        let Stage::Queued(request) = stage else {
            return;
        };
        match self.attempt(*request, &claims) {
            Attempt::Answered(answer) => self.settle(id, Some(answer)),
            Attempt::Runs { call, work, waits } => {
                let stage = self.run(id, call, work, waits);
                if let Some(active) = self.active.get_mut(&id) {
                    active.stage = stage;
                }
                let fid = claims[0].map(|(fid, _)| fid).filter(|_| waits);
                let ended = |(other, how): (u64, Use)| other > id && how == Use::Own;
                if let Some(fid) = fid.filter(|fid| self.order.of(*fid).any(ended)) {
                    self.interrupt(fid);
                }
            }
        }
    }

    /// Takes a request as far as it goes without waiting.
    fn attempt(&mut self, request: Request, claims: &Claims) -> Attempt {
        let Some(session) = self.session.as_mut() else {
            return Attempt::Answered(Err(Fault::new(EPROTO, rs9p::errstr::EPROTO)));
        };
        let who = session.caller(claims).clone();
        let call = match asks_only(&request) {
            true => Call::in_turn(who, self.turn),
            false => {
                self.turn += 1;
                Call::new(who)
            }
        };
        let waits = matches!(request, Request::Read { fid, .. } if session.waits(fid));
        let mut work = match session.begin(&call, request) {
            Ok(Step::Work(work)) => work,
            Ok(Step::Done(reply)) => return Attempt::Answered(Ok(reply)),
            Err(fault) => return Attempt::Answered(Err(fault)),
        };
        // If it waits, it is polled again among the others, and then awaited.
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Attempt::Answered(done.map(|outcome| session.finish(outcome))),
            Poll::Pending => {
                call.leave_turn();
                Attempt::Runs { call, work, waits }
            }
        }
    }

    fn run(&mut self, id: u64, call: Call, work: Work, waits: bool) -> Stage {
        let (abort, registration) = AbortHandle::new_pair();
        let work = Abortable::new(work, registration);
        self.jobs.push(Job { id, work });
        Stage::Running {
            call,
            abort,
            waits,
            cancelled: None,
        }
    }

    /// Cancels the reads of a fid that wait for something to happen: it is
    /// about to end.
    fn interrupt(&mut self, fid: u32) {
        for (id, _) in self.order.of(fid) {
            let Some(active) = self.active.get_mut(&id) else {
                continue;
            };
            if let Stage::Running {
                call,
                abort,
                waits: true,
                cancelled: cancelled @ None,
            } = &mut active.stage
                && call.cancel()
            {
                abort.abort();
                *cancelled = Some(Answered::Interrupted);
            }
        }
    }

    fn flush(&mut self, tag: u16, oldtag: u16) {
        let target = self.tags.get(&oldtag).copied();
        let found = target.and_then(|id| Some((id, self.active.get_mut(&id)?)));
        let Some((id, active)) = found else {
            return self.flushed(tag);
        };
        active.flushes.push(tag);
        self.tags.insert(tag, id);
        match &mut active.stage {
            Stage::Queued(_) | Stage::Starting => self.settle(id, None),
            Stage::Running {
                call,
                abort,
                cancelled,
                ..
            } => {
                if cancelled.is_some() || call.cancel() {
                    abort.abort();
                    *cancelled = Some(Answered::Never);
                }
            }
        }
    }

    fn flushed(&mut self, tag: u16) {
        counts(FLUSH).answered(false, None);
        self.send(tag, self.dialect(), &Reply::Flush {});
    }

    /// Polls what runs until nothing of it can go on, or there is no room.
    /// `true`: something came to its end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while !self.full() {
            self.start_ready();
            let Poll::Ready(Some((id, done))) = Pin::new(&mut self.jobs).poll_next(cx) else {
                break;
            };
            any = true;
            self.done(id, done);
        }
        any
    }

    /// Starts what is held up no longer.
    pub fn start_ready(&mut self) {
        while !self.full()
            && let Some(id) = self.ready.pop_first()
        {
            self.resume(id);
        }
    }

    fn done(&mut self, id: u64, done: Result<Result<Outcome, Fault>, Aborted>) {
        // What a Tversion has ended is not there any more.
        let Some(active) = self.active.get(&id) else {
            return;
        };
        let interrupted = matches!(
            active.stage,
            Stage::Running {
                cancelled: Some(Answered::Interrupted),
                ..
            }
        );
        self.turn();
        let answer = match (done, self.session.as_mut()) {
            (Ok(Ok(outcome)), Some(session)) => Some(Ok(session.finish(outcome))),
            (Ok(Ok(_)), None) => None,
            (Ok(Err(fault)), _) => Some(Err(fault)),
            (Err(Aborted), _) => interrupted.then(|| Err(Fault::interrupted())),
        };
        self.settle(id, answer);
    }

    /// Ends a request that waited, answered or not.
    fn settle(&mut self, id: u64, answer: Option<Answer>) {
        let Some(active) = self.active.remove(&id) else {
            return;
        };
        self.tags.remove(&active.tag);
        if let Some(answer) = answer {
            let waited = matches!(active.stage, Stage::Running { waits: true, .. });
            let since = Some(active.since).filter(|_| !waited);
            self.answer(active.tag, active.number, since, answer);
        }
        for tag in active.flushes {
            self.tags.remove(&tag);
            self.flushed(tag);
        }
        self.ready.extend(self.order.leave(id, &active.claims));
    }

    /// Cancels everything that can be taken back, without a word; the rest
    /// goes on.
    pub fn cancel(&mut self) {
        let ids: Vec<u64> = self.active.keys().copied().collect();
        for id in ids {
            let gone = match &self.active[&id].stage {
                Stage::Queued(_) | Stage::Starting => true,
                Stage::Running { call, abort, .. } => {
                    let taken_back = call.cancel();
                    if taken_back {
                        abort.abort();
                    }
                    taken_back
                }
            };
            if gone && let Some(active) = self.active.remove(&id) {
                self.tags.remove(&active.tag);
                self.order.leave(id, &active.claims);
            }
        }
    }

    fn answer(&mut self, tag: u16, number: u8, since: Option<Instant>, answer: Answer) {
        let dialect = self.dialect();
        let msize = self.longest();
        let fits =
            |reply: &Reply| matches!(reply.width(dialect), Ok(width) if width <= msize as usize);
        let answer = answer.and_then(|reply| match fits(&reply) {
            true => Ok(reply),
            false => Err(Fault::too_long()),
        });
        counts(number).answered(answer.is_err(), since);
        let reply = match answer {
            Ok(reply) => reply,
            Err(fault) => {
                tracing::debug!(target: "ninep", peer = &*self.peer, tag, error = &*fault.text);
                fault.reply(dialect, msize)
            }
        };
        self.send(tag, dialect, &reply);
    }

    fn send(&mut self, tag: u16, dialect: Dialect, reply: &Reply) {
        // What does not fit was made an error before, and errors fit.
        let sent = reply.encode(tag, dialect, &mut self.output);
        debug_assert!(sent.is_ok(), "{reply:?}");
    }
}

/// Tells whether a request changes nothing in the tree.
fn asks_only(request: &Request) -> bool {
    use Request::*;
    matches!(
        request,
        Read { .. } | Walk { .. } | Getattr { .. } | Stat { .. } | Readdir { .. } | Statfs { .. }
    )
}

/// The number of Tflush.
const FLUSH: u8 = 108;

/// What came of starting a request.
enum Attempt {
    Answered(Answer),
    Runs { call: Call, work: Work, waits: bool },
}
