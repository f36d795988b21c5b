//! `export.tar`: a tree as a tar stream that is read by position.
//!
//! The tree is fixed when the file is opened. It is made as it is read; going
//! back makes it anew from its beginning.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::model::{Entry, Mode, ObjectId};
use crate::store::walk::Leaves;
use crate::store::{self, Store};

use super::World;
use super::entry::File;
use super::failure;
use super::files::Turn;
use super::node::{Call, Handle, Open, Result};
use super::stream::{Answer, Text};
use super::view;

type Find = dyn Fn() -> BoxFuture<'static, Result<(ObjectId, i64)>> + Send + Sync;

/// The file.
pub struct Export {
    world: Arc<World>,
    /// Finds the tree, and since when it is.
    find: Box<Find>,
}

impl Export {
    pub fn new(
        world: &Arc<World>,
        find: impl Fn() -> BoxFuture<'static, Result<(ObjectId, i64)>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            world: world.clone(),
            find: Box::new(find),
        }
    }
}

#[async_trait::async_trait]
impl File for Export {
    /// It is not known before it is made.
    async fn open(self: Arc<Self>, _: &Call, _: Open) -> Result<Arc<dyn Handle>> {
        let (tree, time) = (self.find)().await?;
        let text = Text::new(&self.world, Box::new(Archive::new(tree, time)));
        Ok(Arc::new(ExportHandle {
            export: self,
            tree,
            time,
            state: Turn::new((0, text)),
        }))
    }
}

struct ExportHandle {
    export: Arc<Export>,
    tree: ObjectId,
    time: i64,
    /// Where reading goes on, and what is read.
    state: Turn<(u64, Text)>,
}

#[async_trait::async_trait]
impl Handle for ExportHandle {
    async fn read(&self, _: &Call, offset: u64, count: u32) -> Result<Bytes> {
        /// Bytes passed over at a time.
        const STEP: u64 = 1 << 20;
        let (at, text) = &mut *self.state.take().await;
        if offset < *at {
            let archive = Archive::new(self.tree, self.time);
            (*at, *text) = (0, Text::new(&self.export.world, Box::new(archive)));
        }
        while *at < offset {
            let step = STEP.min(offset - *at) as u32;
            let passed = text.read(step).await?.len() as u64;
            if passed == 0 {
                return Err(failure::beyond_end(offset, *at));
            }
            *at += passed;
        }
        let data = text.read(count).await?;
        *at += data.len() as u64;
        Ok(data)
    }
}

/// An archive being made.
struct Archive {
    tree: ObjectId,
    time: u64,
    leaves: Option<Leaves>,
    content: Option<Content>,
}

/// The content of the file that the last header was about.
struct Content {
    stream: Box<dyn Read + Send>,
    left: u64,
    /// Zero bytes behind it, up to a whole block.
    padding: usize,
}

const BLOCK: u64 = 512;
/// Bytes of content read at a time.
const PIECE: u64 = 64 << 10;

fn failed() -> impl FnOnce(io::Error) -> store::Error {
    store::Error::io("cannot make the archive")
}

impl Archive {
    fn new(tree: ObjectId, time: i64) -> Self {
        Self {
            tree,
            time: time.max(0).unsigned_abs(),
            leaves: None,
            content: None,
        }
    }

    /// Adds an entry's header; its content follows.
    fn begin(
        &mut self,
        store: &Store,
        text: &mut Vec<u8>,
        path: &[u8],
        entry: Entry,
    ) -> store::Result<()> {
        let mut builder = tar::Builder::new(Headers { text, ended: false });
        let name = Path::new(OsStr::from_bytes(path));
        let header = |kind, mode, size| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size);
            header.set_mtime(self.time);
            header.set_uid(0);
            header.set_gid(0);
            header
        };
        if entry.mode == Mode::LINK {
            let target = store.objects.blob(&entry.id)?;
            let target = Path::new(OsStr::from_bytes(&target));
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            builder
                .append_link(&mut header, name, target)
                .map_err(failed())?;
            builder.get_mut().ended = true;
            return Ok(());
        }
        if !entry.mode.is_blob() {
            // A commit of another repository: a folder, as in Git's checkouts.
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            builder
                .append_data(&mut header, name, io::empty())
                .map_err(failed())?;
            builder.get_mut().ended = true;
            return Ok(());
        }
        let size = store.objects.size(&entry.id)?;
        let mode = if entry.mode.0 & 0o100 != 0 {
            0o755
        } else {
            0o644
        };
        let mut header = header(tar::EntryType::Regular, mode, size);
        builder
            .append_data(&mut header, name, io::empty())
            .map_err(failed())?;
        builder.get_mut().ended = true;
        self.content = Some(Content {
            stream: store.objects.open(&entry.id)?,
            left: size,
            padding: (size.next_multiple_of(BLOCK) - size) as usize,
        });
        Ok(())
    }
}

/// Takes what a builder writes, but not the end of an archive that it adds when
/// it is dropped.
struct Headers<'a> {
    text: &'a mut Vec<u8>,
    ended: bool,
}

impl io::Write for Headers<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.ended {
            self.text.extend_from_slice(data);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Answer for Archive {
    fn more(&mut self, store: &Store, text: &mut Vec<u8>, enough: usize) -> store::Result<bool> {
        while text.len() < enough {
            if let Some(content) = &mut self.content {
                let piece = PIECE.min(content.left);
                let start = text.len();
                text.resize(start + piece as usize, 0);
                content
                    .stream
                    .read_exact(&mut text[start..])
                    .map_err(failed())?;
                content.left -= piece;
                if content.left == 0 {
                    text.resize(text.len() + content.padding, 0);
                    self.content = None;
                }
                continue;
            }
            let mut leaves = match self.leaves.take() {
                Some(leaves) => leaves,
                None => Leaves::new(&store.objects, &view::dir(self.tree))?,
            };
            let next = leaves.next(&store.objects)?;
            let Some((path, entry)) = next.map(|(path, entry)| (path.to_vec(), entry)) else {
                // Two empty blocks are its end.
                text.resize(text.len() + 2 * BLOCK as usize, 0);
                return Ok(false);
            };
            self.leaves = Some(leaves);
            self.begin(store, text, &path, entry)?;
        }
        Ok(true)
    }
}
