//! `import` of a transaction: a tar stream is written, and put into `rw` as a
//! whole when the file is closed or synced.
//!
//! Nothing of an archive without its end-of-archive blocks is put there. What
//! went wrong is told by whatever ends it, and stays in `import.status`, since
//! the kernel drops the error of a close.

use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tar::EntryType;

use crate::model::request::{Content, Edit, Edits, FileKind, Sink, Stop};
use crate::model::text::quote;
use crate::model::{Kind, TreePath};

use super::World;
use super::entry::File;
use super::failure;
use super::files::{Turn, lock};
use super::node::{Call, Error, Handle, Open, Result};
use super::spool::Spool;

/// Puts edits into a transaction. The paths written are told as they come.
pub type Put =
    dyn Fn(&Call, Edits, Arc<Mutex<Vec<TreePath>>>) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// The file, and what its `import.status` tells.
pub struct Import {
    world: Arc<World>,
    put: Box<Put>,
    status: Mutex<String>,
    latest: Mutex<Weak<Turn<State>>>,
}

/// An archive as it comes.
enum State {
    Coming(Box<Spool>, u64),
    Over(Result<()>),
}

impl Import {
    pub fn new(
        world: &Arc<World>,
        put: impl Fn(&Call, Edits, Arc<Mutex<Vec<TreePath>>>) -> BoxFuture<'static, Result<()>>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            put: Box::new(put),
            status: Mutex::new("nothing was imported\n".into()),
            latest: Mutex::default(),
        })
    }

    pub fn status(&self) -> String {
        lock(&self.status).clone()
    }

    fn note(&self, result: &Result<usize>) {
        *lock(&self.status) = match result {
            Ok(count) => format!("ok {count}\n"),
            Err(error) => format!("failed: {}\n", error.failure.message),
        };
    }

    /// Puts what came into the transaction. An archive that is not complete
    /// may still go on.
    async fn finish(&self, call: &Call, state: &Turn<State>, last: bool) -> Result<()> {
        let state = &mut *state.take().await;
        let (spool, at) = match state {
            State::Over(result) => return result.clone(),
            State::Coming(_, 0) => return Ok(()),
            State::Coming(spool, at) => (std::mem::take(&mut **spool), *at),
        };
        let (spool, complete) = self.world.run(move |_| is_complete(spool)).await?;
        if !complete {
            let message = "the archive is truncated: it has no end-of-archive block";
            let error = Error::new(Kind::Invalid, message);
            self.note(&Err(error.clone()));
            *state = match last {
                true => State::Over(Err(error.clone())),
                false => State::Coming(Box::new(spool), at),
            };
            return Err(error);
        }
        let paths = Arc::new(Mutex::new(Vec::new()));
        let told = paths.clone();
        let edits = Edits::new(move |sink| {
            let stream = spool
                .into_reader()
                .map_err(|error| Stop::Source(error.into()))?;
            unpack(stream, sink, &told)
        });
        let result = (self.put)(call, edits, paths.clone()).await;
        let counted = result.clone().map(|()| lock(&paths).len());
        self.note(&counted);
        *state = State::Over(result.clone());
        result
    }
}

#[async_trait::async_trait]
impl File for Import {
    fn acts(&self) -> bool {
        true
    }

    async fn open(self: Arc<Self>, _: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        let state = Arc::new(Turn::new(State::Coming(Box::default(), 0)));
        *lock(&self.latest) = Arc::downgrade(&state);
        Ok(Arc::new(ImportHandle { file: self, state }))
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        let latest = lock(&self.latest).upgrade();
        match latest {
            Some(state) => self.finish(call, &state, false).await,
            None => Ok(()),
        }
    }
}

struct ImportHandle {
    file: Arc<Import>,
    state: Arc<Turn<State>>,
}

#[async_trait::async_trait]
impl Handle for ImportHandle {
    async fn read(&self, _: &Call, _: u64, _: u32) -> Result<Bytes> {
        Err(Error::new(Kind::Denied, "this file is written only"))
    }

    async fn write(&self, _: &Call, offset: u64, data: Bytes) -> Result<()> {
        let state = &mut *self.state.take().await;
        let (spool, at) = match state {
            State::Over(Ok(())) => {
                let message = "the archive was imported already";
                return Err(Error::new(Kind::Invalid, message));
            }
            State::Over(Err(error)) => return Err(error.clone()),
            State::Coming(_, at) if *at != offset => return Err(failure::seek()),
            State::Coming(spool, at) => (std::mem::take(&mut **spool), *at),
        };
        if at == 0
            && let Some(program) = compressed(&data)
        {
            let message = format!("the archive is compressed: pass it through {program} first");
            let error = Error::new(Kind::Invalid, message);
            self.file.note(&Err(error.clone()));
            *state = State::Over(Err(error.clone()));
            return Err(error);
        }
        // A write that is taken back leaves an archive with a hole in it.
        *state = State::Over(Err(super::cancelled()));
        let at = at + data.len() as u64;
        let spool = spool.take(&self.file.world, data).await?;
        *state = State::Coming(Box::new(spool), at);
        Ok(())
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.file.finish(call, &self.state, false).await
    }

    async fn close(&self, call: &Call) -> Result<()> {
        self.file.finish(call, &self.state, true).await
    }
}

fn compressed(start: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 4] = [
        (b"\x1f\x8b", "gzip -d"),
        (b"BZh", "bzip2 -d"),
        (b"\xfd7zXZ", "xz -d"),
        (b"\x28\xb5\x2f\xfd", "zstd -d"),
    ];
    let found = MAGIC.iter().find(|(magic, _)| start.starts_with(magic));
    found.map(|(_, program)| *program)
}

/// Tells whether the end of the archive has come. Blocks.
fn is_complete(spool: Spool) -> crate::store::Result<(Spool, bool)> {
    let (spool, complete) = spool.look(|stream| {
        let mut ended = false;
        let whole = {
            let noting = Noting {
                inner: stream,
                ended: &mut ended,
            };
            let mut archive = tar::Archive::new(noting);
            // Skipping to the next header reads through the content.
            match archive.entries() {
                Ok(mut entries) => entries.all(|entry| entry.is_ok()),
                Err(_) => false,
            }
        };
        whole && !ended
    })?;
    Ok((spool, complete))
}

/// A stream, with a note of whether its end was met.
struct Noting<'a> {
    inner: &'a mut dyn Read,
    ended: &'a mut bool,
}

impl Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            *self.ended = true;
        }
        Ok(count)
    }
}

fn source(message: String) -> Stop {
    Stop::Source(message.into())
}

/// Gives what is in an archive.
fn unpack(
    stream: Box<dyn Read + Send>,
    sink: &mut dyn Sink,
    paths: &Mutex<Vec<TreePath>>,
) -> Result<(), Stop> {
    let unreadable = |error: io::Error| source(format!("cannot read the archive: {error}"));
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let kind = entry.header().entry_type();
        // A comment for all that follows; a name for the whole archive.
        if kind.is_pax_global_extensions() || kind.as_byte() == b'V' {
            continue;
        }
        let raw = entry.path_bytes().into_owned();
        let path = legal(&raw)?;
        if path.is_root() {
            continue;
        }
        lock(paths).push(path.clone());
        let target = entry.link_name_bytes().map(|name| name.into_owned());
        match kind {
            EntryType::Directory => sink.edit(Edit::Mkdir { path })?,
            EntryType::Regular if raw.ends_with(b"/") => sink.edit(Edit::Mkdir { path })?,
            EntryType::Regular | EntryType::Continuous => {
                let mode = entry.header().mode().map_err(unreadable)?;
                let kind = match mode & 0o100 {
                    0 => FileKind::Normal,
                    _ => FileKind::Exec,
                };
                write(sink, path, kind, &mut entry)?;
            }
            EntryType::Symlink => sink.edit(Edit::Link {
                path,
                target: &target.unwrap_or_default(),
            })?,
            EntryType::Link => {
                let from = legal(&target.unwrap_or_default())?;
                sink.edit(Edit::Copy { from, to: path })?;
            }
            other => {
                let kind = quote(&[other.as_byte()]).to_string();
                let message = format!("{path}: a tree cannot hold an entry of type {kind}");
                return Err(source(message));
            }
        }
    }
    Ok(())
}

/// Gives a file: a small one from memory, a large one from a temporary file,
/// since an archive's reader must stay on its thread.
fn write(
    sink: &mut dyn Sink,
    path: TreePath,
    kind: FileKind,
    entry: &mut tar::Entry<'_, Box<dyn Read + Send>>,
) -> Result<(), Stop> {
    const SMALL: u64 = 1 << 20;
    let cut = |error: io::Error| source(format!("cannot read the archive: {error}"));
    let size = entry.size();
    if size <= SMALL {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(cut)?;
        let content = Content::Bytes(&bytes);
        return sink.edit(Edit::Write {
            path,
            kind,
            content,
        });
    }
    let mut file = tempfile::tempfile().map_err(cut)?;
    io::copy(entry, &mut file).map_err(cut)?;
    file.seek(SeekFrom::Start(0)).map_err(cut)?;
    let content = Content::Reader {
        reader: &mut file,
        size: Some(size),
    };
    sink.edit(Edit::Write {
        path,
        kind,
        content,
    })
}

/// Where an entry belongs: a leading slash and every `.` count as nothing.
fn legal(raw: &[u8]) -> Result<TreePath, Stop> {
    let mut path = TreePath::root();
    for step in raw.split(|b| *b == b'/') {
        if step.is_empty() || step == b"." {
            continue;
        }
        TreePath::new(step).map_err(|refused| source(refused.to_string()))?;
        path.push(step);
    }
    Ok(path)
}
