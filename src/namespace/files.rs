//! The stock files, each with the habits that dk-tree(5) lists for its kind:
//! fixed, computed, memory, status, command.
//!
//! Fixed, computed and memory files are read by position; status and command
//! files in sequence, with an empty read after each result, which clients of
//! old take for "nothing more now".

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::entry::{File, chmod_special};
use super::failure;
use super::node::{Call, Create, Handle, Open, Result};

/// Requests about one thing, taken in the order they came. Not a lock around
/// data: whoever waits here waits as a request does, and may be cancelled.
#[derive(Default)]
pub struct Turn<T>(tokio::sync::Mutex<T>);

impl<T> Turn<T> {
    pub fn new(value: T) -> Self {
        Self(tokio::sync::Mutex::new(value))
    }

    pub async fn take(&self) -> tokio::sync::MutexGuard<'_, T> {
        self.0.lock().await
    }
}

/// Takes a lock that no panic can leave half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection used last, kept although nobody has it open: a result that
/// was not read yet is read by who opens the file next.
pub struct Recent<T>(Mutex<VecDeque<Arc<T>>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Recent<T> {
    /// Keeps it, and lets the oldest go where there are many.
    pub fn keep(&self, used: &Arc<T>) {
        const KEPT: usize = 128;
        let mut recent = lock(&self.0);
        recent.retain(|other| !Arc::ptr_eq(other, used));
        recent.push_back(used.clone());
        // It is dropped behind the lock.
        let oldest = (recent.len() > KEPT).then(|| recent.pop_front());
        drop(recent);
        drop(oldest);
    }
}

/// Reads by position: at the end nothing, beyond it a failure.
pub fn slice(content: &Bytes, offset: u64, count: u32) -> Result<Bytes> {
    let (start, end) = range(content.len() as u64, offset, count)?;
    Ok(content.slice(start as usize..end as usize))
}

/// Where a read by position begins and ends in a content of this length.
pub fn range(length: u64, offset: u64, count: u32) -> Result<(u64, u64)> {
    if i64::try_from(offset).is_err() {
        return Err(failure::negative(offset));
    }
    if offset > length {
        return Err(failure::beyond_end(offset, length));
    }
    Ok((offset, length.min(offset + u64::from(count))))
}

/// How far a reader of a sequence is.
#[derive(Default)]
pub struct Cursor {
    at: u64,
    /// The next read is the empty one.
    marker: bool,
}

impl Cursor {
    /// Begins a read or write. `true`: this read is the empty one.
    pub fn begin(&mut self, offset: u64, read: bool) -> Result<bool> {
        if offset != self.at {
            return Err(failure::seek());
        }
        Ok(read && std::mem::take(&mut self.marker))
    }

    /// Ends a read that gave this much.
    pub fn gave(&mut self, bytes: usize) {
        self.at += bytes as u64;
        self.marker = true;
    }

    pub fn wrote(&mut self, bytes: usize) {
        self.at += bytes as u64;
    }
}

/// Takes up to `count` bytes off the front.
pub fn take(rest: &mut Bytes, count: u32) -> Bytes {
    let count = rest.len().min(count as usize);
    rest.split_to(count)
}

/// A file with these bytes.
pub struct Fixed(pub Bytes);

impl Fixed {
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        Self(Bytes::from(text.into()))
    }
}

#[async_trait::async_trait]
impl File for Fixed {
    async fn size(&self, _: &Call) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    async fn open(self: Arc<Self>, _: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        Ok(self)
    }
}

#[async_trait::async_trait]
impl Handle for Fixed {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        slice(&self.0, offset, count)
    }
}

type Compute = dyn Fn(&Call) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync;

/// A file whose bytes are computed for every read.
pub struct Computed(Box<Compute>);

impl Computed {
    pub fn new(
        compute: impl Fn(&Call) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(compute))
    }
}

#[async_trait::async_trait]
impl File for Computed {
    async fn size(&self, call: &Call) -> Result<u64> {
        Ok((self.0)(call).await?.len() as u64)
    }

    async fn open(self: Arc<Self>, _: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        Ok(self)
    }

    async fn resize(&self, call: &Call, size: u64) -> Result<()> {
        if (self.0)(call).await?.len() as u64 == size {
            return Ok(());
        }
        Err(failure::read_only_file())
    }
}

#[async_trait::async_trait]
impl Handle for Computed {
    async fn read(&self, call: &Call, offset: u64, count: u32) -> Result<Bytes> {
        slice(&Bytes::from((self.0)(call).await?), offset, count)
    }
}

/// Text that can be written: where it is kept is its owner's business.
#[async_trait::async_trait]
pub trait Text: Send + Sync + 'static {
    async fn load(&self, call: &Call) -> Result<Vec<u8>>;

    async fn save(&self, call: &Call, text: Vec<u8>) -> Result<()>;

    /// Makes it durable, where it is to be.
    async fn sync(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    fn mtime(&self) -> i64 {
        0
    }
}

#[async_trait::async_trait]
impl Text for Mutex<Vec<u8>> {
    async fn load(&self, _: &Call) -> Result<Vec<u8>> {
        Ok(lock(self).clone())
    }

    async fn save(&self, _: &Call, text: Vec<u8>) -> Result<()> {
        *lock(self) = text;
        Ok(())
    }
}

/// A file with such text.
pub struct Memory {
    text: Arc<dyn Text>,
    turn: Turn<()>,
}

/// Bytes that a memory file holds at most.
pub const MEMORY: u64 = 4 << 20;

impl Memory {
    pub fn new(text: Arc<dyn Text>) -> Self {
        Self {
            text,
            turn: Turn::new(()),
        }
    }

    /// Changes the text as a whole.
    async fn change(
        &self,
        call: &Call,
        change: impl FnOnce(&mut Vec<u8>) -> Result<()> + Send,
    ) -> Result<()> {
        let _turn = self.turn.take().await;
        let mut text = self.text.load(call).await?;
        change(&mut text)?;
        self.text.save(call, text).await
    }
}

fn fits(length: Option<u64>) -> Result<usize> {
    match length {
        Some(length) if length <= MEMORY => Ok(length as usize),
        _ => Err(failure::too_long("this file", MEMORY)),
    }
}

/// Writes by position into `text`, filling a gap with zero bytes.
pub fn splice(text: &mut Vec<u8>, offset: u64, data: &[u8]) -> Result<()> {
    if i64::try_from(offset).is_err() {
        return Err(failure::bad_write(offset));
    }
    let end = fits(offset.checked_add(data.len() as u64))?;
    if text.len() < end {
        text.resize(end, 0);
    }
    text[offset as usize..end].copy_from_slice(data);
    Ok(())
}

#[async_trait::async_trait]
impl File for Memory {
    async fn size(&self, call: &Call) -> Result<u64> {
        Ok(self.text.load(call).await?.len() as u64)
    }

    fn writable(&self) -> bool {
        true
    }

    fn mtime(&self) -> i64 {
        self.text.mtime()
    }

    async fn open(self: Arc<Self>, call: &Call, how: Open) -> Result<Arc<dyn Handle>> {
        if how.truncate {
            self.resize(call, 0).await?;
        }
        let append = how.append;
        Ok(Arc::new(MemoryHandle { file: self, append }))
    }

    async fn resize(&self, call: &Call, size: u64) -> Result<()> {
        if i64::try_from(size).is_err() {
            return Err(failure::negative(size));
        }
        let size = fits(Some(size))?;
        self.change(call, |text| {
            text.resize(size, 0);
            Ok(())
        })
        .await
    }

    async fn chmod(&self, _: &Call, kind: Create) -> Result<()> {
        chmod_special(&kind)
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.text.sync(call).await
    }
}

struct MemoryHandle {
    file: Arc<Memory>,
    append: bool,
}

#[async_trait::async_trait]
impl Handle for MemoryHandle {
    async fn read(&self, call: &Call, offset: u64, count: u32) -> Result<Bytes> {
        let _turn = self.file.turn.take().await;
        slice(
            &Bytes::from(self.file.text.load(call).await?),
            offset,
            count,
        )
    }

    async fn write(&self, call: &Call, offset: u64, data: Bytes) -> Result<()> {
        let append = self.append;
        self.file
            .change(call, |text| {
                let offset = if append { text.len() as u64 } else { offset };
                splice(text, offset, &data)
            })
            .await
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.file.text.sync(call).await
    }

    async fn close(&self, call: &Call) -> Result<()> {
        self.file.text.sync(call).await
    }
}

/// A file evaluated when it is opened.
pub struct Status(Box<Compute>);

impl Status {
    pub fn new(
        compute: impl Fn(&Call) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(compute))
    }
}

#[async_trait::async_trait]
impl File for Status {
    async fn size(&self, call: &Call) -> Result<u64> {
        Ok((self.0)(call).await?.len() as u64)
    }

    async fn open(self: Arc<Self>, call: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        let value = Bytes::from((self.0)(call).await?);
        Ok(Arc::new(StatusHandle(Mutex::new((
            Cursor::default(),
            value,
        )))))
    }
}

struct StatusHandle(Mutex<(Cursor, Bytes)>);

#[async_trait::async_trait]
impl Handle for StatusHandle {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        let (cursor, rest) = &mut *lock(&self.0);
        if cursor.begin(offset, true)? {
            return Ok(Bytes::new());
        }
        let data = take(rest, count);
        cursor.gave(data.len());
        Ok(data)
    }
}

type Run = dyn Fn(&Call, Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync;

/// A file that does what is written to it, each write being one command.
///
/// The result belongs to the file: whoever reads consumes it. The handle that
/// wrote reads its own result first, so that two who write at the same time
/// do not take each other's.
pub struct Command {
    run: Box<Run>,
    latest: Mutex<Outcome>,
}

#[derive(Clone, Default)]
struct Outcome {
    number: u64,
    rest: Bytes,
}

impl Command {
    pub fn new(
        run: impl Fn(&Call, Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            run: Box::new(run),
            latest: Mutex::default(),
        }
    }
}

/// What a command of some owner does.
pub type Method<T> = fn(Arc<T>, Call, Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>>>;

impl Command {
    /// A command of what holds it: it holds its owner only while it runs.
    pub fn of<T: Send + Sync + 'static>(owner: &Arc<T>, run: Method<T>) -> Arc<Self> {
        let owner = Arc::downgrade(owner);
        let command = move |call: &Call, text: Vec<u8>| match owner.upgrade() {
            Some(owner) => run(owner, call.clone(), text),
            None => Box::pin(async { Err(failure::no_entry("what the command is about")) }),
        };
        Arc::new(Self::new(command))
    }
}

#[async_trait::async_trait]
impl File for Command {
    async fn size(&self, _: &Call) -> Result<u64> {
        Ok(lock(&self.latest).rest.len() as u64)
    }

    fn acts(&self) -> bool {
        true
    }

    async fn open(self: Arc<Self>, _: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        Ok(Arc::new(CommandHandle {
            file: self,
            state: Turn::new((Cursor::default(), None)),
        }))
    }
}

struct CommandHandle {
    file: Arc<Command>,
    /// How far it is, and what its own last command came to.
    state: Turn<(Cursor, Option<Outcome>)>,
}

#[async_trait::async_trait]
impl Handle for CommandHandle {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        let (cursor, own) = &mut *self.state.take().await;
        if cursor.begin(offset, true)? {
            return Ok(Bytes::new());
        }
        let mut latest = lock(&self.file.latest);
        let data = match own {
            Some(own) if own.number != latest.number => take(&mut own.rest, count),
            _ => take(&mut latest.rest, count),
        };
        cursor.gave(data.len());
        Ok(data)
    }

    async fn write(&self, call: &Call, offset: u64, data: Bytes) -> Result<()> {
        let (cursor, own) = &mut *self.state.take().await;
        cursor.begin(offset, false)?;
        let result = (self.file.run)(call, data.trim_ascii().to_vec()).await?;
        let mut latest = lock(&self.file.latest);
        latest.number += 1;
        latest.rest = result.into();
        *own = Some(latest.clone());
        cursor.wrote(data.len());
        Ok(())
    }
}
