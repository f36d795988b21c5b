//! A small tree in memory, to serve: files, directories, links, a stream that
//! says something when told to, a file that tells in which turn it is read (at
//! 0 at once, elsewhere after a while), and a command that can be held before and
//! after its point of no return.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use datakit::model::Kind;
use datakit::namespace::node::*;
use tokio::sync::{Semaphore, watch};

/// The tree, and what a test may do to it.
#[derive(Clone)]
pub struct Toy {
    pub root: Arc<Item>,
    pub state: Arc<State>,
}

/// Shared by every node.
pub struct State {
    ids: AtomicU64,
    /// Sessions and handles that live.
    pub sessions: AtomicUsize,
    pub handles: AtomicUsize,
    /// What streams say; a stream never says the same twice in a row.
    pub said: watch::Sender<u64>,
    /// A permit lets a command go on to its point of no return,
    pub before: Semaphore,
    /// and one more to its end.
    pub after: Semaphore,
    /// Commands that have begun, passed the point, and are done.
    pub begun: watch::Sender<usize>,
    pub passed: watch::Sender<usize>,
    pub done: watch::Sender<usize>,
    pub syncs: AtomicUsize,
}

pub struct Item {
    id: Id,
    name: Mutex<Vec<u8>>,
    above: Mutex<Weak<Item>>,
    me: Weak<Item>,
    state: Arc<State>,
    body: Body,
}

enum Body {
    Dir(Mutex<BTreeMap<Vec<u8>, Arc<Item>>>),
    File {
        content: Mutex<Vec<u8>>,
        exec: AtomicBool,
    },
    Link(Vec<u8>),
    Stream,
    Turn,
    Command,
}

impl Toy {
    /// Returns a tree with `stream`, `command` and an empty directory `dir`.
    pub fn new() -> Self {
        let state = Arc::new(State {
            ids: AtomicU64::new(1),
            sessions: AtomicUsize::new(0),
            handles: AtomicUsize::new(0),
            said: watch::Sender::new(0),
            before: Semaphore::new(0),
            after: Semaphore::new(0),
            begun: watch::Sender::new(0),
            passed: watch::Sender::new(0),
            done: watch::Sender::new(0),
            syncs: AtomicUsize::new(0),
        });
        let root = Item::new(&state, b"/", Shape::Dir, Body::Dir(Mutex::default()));
        root.put(b"stream", Shape::File, Body::Stream);
        root.put(b"command", Shape::File, Body::Command);
        root.put(b"dir", Shape::Dir, Body::Dir(Mutex::default()));
        Self { root, state }
    }

    /// Puts a file into the root.
    pub fn file(&self, name: &[u8], content: &[u8]) -> Arc<Item> {
        let body = Body::File {
            content: Mutex::new(content.to_vec()),
            exec: AtomicBool::new(false),
        };
        self.root.put(name, Shape::File, body)
    }

    /// Puts the file `turn` into the root.
    pub fn turn(&self) {
        self.root.put(b"turn", Shape::File, Body::Turn);
    }

    pub fn content(&self, name: &[u8]) -> Option<Vec<u8>> {
        match &self.root.entry(name)?.body {
            Body::File { content, .. } => Some(content.lock().unwrap().clone()),
            _ => None,
        }
    }

    pub fn say(&self, what: u64) {
        self.state.said.send_replace(what);
    }

    pub fn idle(&self) -> bool {
        let State {
            sessions, handles, ..
        } = &*self.state;
        sessions.load(Ordering::SeqCst) == 0 && handles.load(Ordering::SeqCst) == 0
    }
}

impl Item {
    fn new(state: &Arc<State>, name: &[u8], shape: Shape, body: Body) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            id: Id {
                shape,
                path: state.ids.fetch_add(1, Ordering::SeqCst),
                version: 0,
            },
            name: Mutex::new(name.to_vec()),
            above: Mutex::default(),
            me: me.clone(),
            state: state.clone(),
            body,
        })
    }

    fn put(&self, name: &[u8], shape: Shape, body: Body) -> Arc<Self> {
        let made = Self::new(&self.state, name, shape, body);
        *made.above.lock().unwrap() = self.me.clone();
        let entries = self.entries().unwrap();
        let mut entries = entries.lock().unwrap();
        entries.insert(name.to_vec(), made.clone());
        made
    }

    fn entries(&self) -> Result<&Mutex<BTreeMap<Vec<u8>, Arc<Item>>>> {
        match &self.body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(Error::new(Kind::NotDirectory, "no directory")),
        }
    }

    /// Returns the directory this is in, and itself.
    fn linked(&self) -> Result<(Arc<Item>, Arc<Item>)> {
        let above = self.above.lock().unwrap().upgrade();
        let above = above.ok_or_else(missing)?;
        let me = above.entry(&self.name());
        let me = me.filter(|me| me.id == self.id).ok_or_else(missing)?;
        Ok((above, me))
    }

    fn entry(&self, name: &[u8]) -> Option<Arc<Item>> {
        let entries = self.entries().ok()?.lock().unwrap();
        entries.get(name).cloned()
    }
}

fn missing() -> Error {
    Error::new(Kind::NotFound, "not there")
}

impl Tree for Toy {
    fn session(&self, _peer: &str) -> Arc<dyn Session> {
        self.state.sessions.fetch_add(1, Ordering::SeqCst);
        Arc::new(ToySession(self.clone()))
    }
}

struct ToySession(Toy);

impl Drop for ToySession {
    fn drop(&mut self) {
        self.0.state.sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Session for ToySession {
    async fn attach(&self, _: &Call, path: &[u8]) -> Result<Arc<dyn Node>> {
        let mut node = self.0.root.clone();
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            node = node.entry(name).ok_or_else(missing)?;
        }
        Ok(node)
    }
}

#[async_trait]
impl Node for Item {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn id(&self) -> Id {
        self.id
    }

    fn name(&self) -> Vec<u8> {
        self.name.lock().unwrap().clone()
    }

    fn parent(&self) -> Option<Arc<dyn Node>> {
        let above = self.above.lock().unwrap().upgrade()?;
        Some(above)
    }

    async fn attr(&self, _: &Call) -> Result<Attr> {
        let (mut size, mut runs) = (0, false);
        match &self.body {
            Body::File { content, exec } => {
                size = content.lock().unwrap().len() as u64;
                runs = exec.load(Ordering::SeqCst);
            }
            Body::Link(target) => size = target.len() as u64,
            _ => (),
        }
        Ok(Attr {
            id: self.id,
            exec: runs,
            writable: !matches!(self.body, Body::Stream),
            size,
            mtime: 1_000_000_000,
        })
    }

    async fn lookup(&self, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let entries = self.entries()?.lock().unwrap();
        let found = entries.get(name).ok_or_else(missing)?.clone();
        Ok(found)
    }

    async fn open(&self, _: &Call, how: Open) -> Result<Arc<dyn Handle>> {
        if let Body::File { content, .. } = &self.body
            && how.truncate
        {
            content.lock().unwrap().clear();
        }
        self.state.handles.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(ToyHandle {
            item: self.me.upgrade().unwrap(),
            append: how.append,
            last: Mutex::new(None),
            closed: AtomicBool::new(false),
        }))
    }

    async fn create(&self, _: &Call, name: &[u8], what: Create) -> Result<Arc<dyn Node>> {
        let there = self.entry(name);
        self.entries()?;
        let (shape, body) = match (what, there) {
            (Create::File { exec, exclusive }, Some(there)) => {
                let Body::File {
                    content,
                    exec: runs,
                } = &there.body
                else {
                    return Err(Error::new(Kind::IsDirectory, "a directory is there"));
                };
                if exclusive {
                    return Err(Error::new(Kind::Exists, "it is there"));
                }
                content.lock().unwrap().clear();
                runs.store(exec, Ordering::SeqCst);
                return Ok(there);
            }
            (_, Some(_)) => return Err(Error::new(Kind::Exists, "it is there")),
            (Create::File { exec, .. }, None) => (
                Shape::File,
                Body::File {
                    content: Mutex::default(),
                    exec: exec.into(),
                },
            ),
            (Create::Dir, None) => (Shape::Dir, Body::Dir(Mutex::default())),
            (Create::Link { target }, None) => {
                let none = || Error::text(Kind::Invalid, "Missing target for symlink!");
                (Shape::Link, Body::Link(target.ok_or_else(none)?))
            }
        };
        Ok(self.put(name, shape, body))
    }

    async fn rename(&self, _: &Call, into: &Arc<dyn Node>, name: &[u8]) -> Result<()> {
        let into: &Item = into.as_any().downcast_ref().unwrap();
        into.entries()?;
        let (old, me) = self.linked()?;
        let mut at = into.me.upgrade();
        while let Some(above) = at {
            if above.id == self.id {
                return Err(Error::new(Kind::Invalid, "into itself"));
            }
            at = above.above.lock().unwrap().upgrade();
        }
        if into
            .entry(name)
            .is_some_and(|there| there.id.shape == Shape::Dir)
        {
            return Err(Error::new(Kind::IsDirectory, "a directory is there"));
        }
        old.entries()?.lock().unwrap().remove(&self.name());
        *self.name.lock().unwrap() = name.to_vec();
        *self.above.lock().unwrap() = into.me.clone();
        into.entries()?.lock().unwrap().insert(name.to_vec(), me);
        Ok(())
    }

    async fn remove(&self, _: &Call, recursive: bool) -> Result<()> {
        if matches!(self.body, Body::Command | Body::Stream) {
            return Err(Error::text(Kind::Denied, "Operation not permitted"));
        }
        if let Body::Dir(entries) = &self.body
            && !recursive
            && !entries.lock().unwrap().is_empty()
        {
            return Err(Error::new(Kind::NotEmpty, "there are entries"));
        }
        let (above, _) = self.linked()?;
        above.entries()?.lock().unwrap().remove(&self.name());
        Ok(())
    }

    async fn set(&self, _: &Call, set: Set) -> Result<()> {
        let Body::File { content, exec } = &self.body else {
            return Err(Error::text(Kind::ReadOnly, "Read-only file"));
        };
        if let Some(size) = set.size {
            content.lock().unwrap().resize(size as usize, 0);
        }
        if let Some(Create::File { exec: runs, .. }) = set.kind {
            exec.store(runs, Ordering::SeqCst);
        }
        Ok(())
    }

    async fn target(&self, _: &Call) -> Result<Vec<u8>> {
        match &self.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Error::new(Kind::Invalid, "no link")),
        }
    }

    async fn sync(&self, _: &Call) -> Result<()> {
        self.state.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct ToyHandle {
    item: Arc<Item>,
    append: bool,
    /// The last a stream has said.
    last: Mutex<Option<u64>>,
    closed: AtomicBool,
}

impl Drop for ToyHandle {
    fn drop(&mut self) {
        self.item.state.handles.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Handle for ToyHandle {
    fn waits(&self) -> bool {
        matches!(self.item.body, Body::Stream)
    }

    async fn read(&self, call: &Call, offset: u64, count: u32) -> Result<Bytes> {
        assert!(!self.closed.load(Ordering::SeqCst), "read after close");
        match &self.item.body {
            Body::File { content, .. } => {
                let content = content.lock().unwrap();
                let (length, offset) = (content.len(), offset as usize);
                if offset > length {
                    let text = format!("Offset {offset} beyond end-of-file (len = {length})");
                    return Err(Error::text(Kind::Invalid, text));
                }
                let end = length.min(offset + count as usize);
                Ok(Bytes::copy_from_slice(&content[offset..end]))
            }
            Body::Turn => {
                if offset > 0 {
                    tokio::task::yield_now().await;
                }
                Ok(Bytes::from(format!("{:?}", call.turn())))
            }
            Body::Stream => {
                let mut said = self.item.state.said.subscribe();
                let last = *self.last.lock().unwrap();
                let now = said.wait_for(|now| Some(*now) != last).await.unwrap();
                *self.last.lock().unwrap() = Some(*now);
                Ok(Bytes::from(format!("{}\n", *now)))
            }
            _ => Ok(Bytes::new()),
        }
    }

    async fn write(&self, call: &Call, offset: u64, data: Bytes) -> Result<()> {
        let state = &self.item.state;
        match &self.item.body {
            Body::File { content, .. } => {
                let mut content = content.lock().unwrap();
                let offset = if self.append {
                    content.len()
                } else {
                    offset as usize
                };
                let end = offset + data.len();
                if end > 1 << 20 {
                    return Err(Error::new(Kind::NoSpace, "a toy has little room"));
                }
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[offset..end].copy_from_slice(&data);
                Ok(())
            }
            Body::Command => {
                state.begun.send_modify(|count| *count += 1);
                state.before.acquire().await.unwrap().forget();
                if !call.pass() {
                    return Err(Error::new(Kind::Interrupted, "cancelled"));
                }
                state.passed.send_modify(|count| *count += 1);
                state.after.acquire().await.unwrap().forget();
                state.done.send_modify(|count| *count += 1);
                Ok(())
            }
            _ => Err(Error::text(Kind::ReadOnly, "Read-only file")),
        }
    }

    async fn list(&self, _: &Call) -> Result<Arc<dyn Listing>> {
        let entries = self.item.entries()?.lock().unwrap();
        let entries = entries.iter().map(|(name, item)| (name.clone(), item.id));
        Ok(Arc::new(ToyListing(entries.collect())))
    }

    async fn sync(&self, _: &Call) -> Result<()> {
        self.item.state.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn close(&self, _: &Call) -> Result<()> {
        assert!(!self.closed.swap(true, Ordering::SeqCst), "closed twice");
        Ok(())
    }
}

struct ToyListing(Vec<(Vec<u8>, Id)>);

impl Listing for ToyListing {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn entry(&self, index: usize) -> (Vec<u8>, Id) {
        self.0[index].clone()
    }
}
