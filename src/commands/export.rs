//! `dk export`: a tree as a folder, or as a tar stream.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::future::poll_fn;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::runtime::Handle;

use crate::client::{At, Client, Error, Progress, Records};
use crate::commands::source::Exact;
use crate::commands::{Session, blocking, completions, parse};
use crate::model::{EntryKind, Item, ObjectId, RevPath, TreePath};
use crate::ui::{Ui, Usage};

mod folder;

/// Write a tree out as a folder or a tar stream
///
/// Existing files are not overwritten without --force, and nothing is ever
/// written through a symbolic link: whatever the tree holds, it stays inside
/// DIR. A file named by PATH is written into DIR under its own name. In a tar
/// stream everything carries the time of the commit. Submodules become empty
/// folders.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk export master ./out
  dk export release~1:site - | ssh web tar x -C /srv
  dk export --force master:etc /etc/myapp")]
pub struct Args {
    /// What to export
    #[arg(value_name = "REV[:PATH]", value_parser = parse::rev_path(), add = completions::rev_path())]
    from: RevPath,
    /// Where to; it is made if need be. With -: a tar stream on standard output
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    to: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

/// What is exported, and from where.
struct Export {
    client: Arc<dyn Client>,
    /// Where its calls are waited for.
    runtime: Handle,
    at: At,
    path: TreePath,
    ui: Ui,
    progress: Arc<dyn Progress>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let id = session.resolve(&args.from.rev).await?;
    let (at, path) = (At::Commit(id), args.from.path.clone());
    if session.client.stat(&at, &path).await?.is_none() {
        let what = args.from.to_string();
        return Err(Error::NotFound { what }.into());
    }
    let to_stdout = args.to.as_os_str() == "-";
    if to_stdout && session.ui.is_terminal() {
        let error = Usage::new("a tar stream is not written to a terminal");
        return Err(error.hint("send it to a file or a pipe").into());
    }
    let cannot = if path.is_root() {
        format!("cannot export {}", args.from.rev)
    } else {
        format!("cannot export {}", args.from)
    };
    let export = Export {
        client: Arc::clone(&session.client),
        runtime: Handle::current(),
        at,
        path,
        ui: session.ui.clone(),
        progress: session.ui.progress(),
    };
    export.progress.begin("exporting files", None, false);
    if to_stdout {
        let time = session.client.commit(&id).await?.committer.time.seconds;
        let time = u64::try_from(time).unwrap_or(0);
        blocking(move || tar(&export, time)).await.context(cannot)
    } else {
        folder::write(export, args.to, args.force)
            .await
            .context(cannot)
    }
}

/// A leaf, and its content if it has any, whose length is checked on the way.
struct Leaf {
    item: Item,
    content: Option<Exact<Box<dyn Read + Send>>>,
}

/// At most so many leaves, and so many bytes unless it is one leaf, are opened
/// at once.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;

impl Export {
    /// Gives every leaf, some at a time, with its path from the exported folder
    /// down, or its own name if it is all that is exported. A path that must
    /// not be written is an error.
    fn leaves(&self, mut some: impl FnMut(Vec<Item>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut items = self.client.walk(&self.at, &self.path, true);
        let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), 0);
        while let Some(item) = self.runtime.block_on(next(&mut items)) {
            let mut item = item?;
            if item.path.is_root()
                && let Some((_, name)) = self.path.split_last()
            {
                item.path = TreePath::root().join(name);
            }
            if let Err(illegal) = TreePath::new(item.path.as_bytes()) {
                // As text: the user did nothing wrong.
                bail!("{illegal}");
            }
            bytes += item.size.unwrap_or(0);
            if !batch.is_empty() && (batch.len() == BATCH || bytes > BATCH_BYTES) {
                bytes = item.size.unwrap_or(0);
                some(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))?;
            }
            batch.push(item);
        }
        if batch.is_empty() {
            return Ok(());
        }
        some(batch)
    }

    /// Opens the content of leaves.
    fn open(&self, items: Vec<Item>) -> anyhow::Result<impl Iterator<Item = Leaf> + use<>> {
        let blobs = items.iter().filter(|item| item.entry.mode.is_blob());
        let ids: Vec<ObjectId> = blobs.map(|item| item.entry.id).collect();
        let mut contents = self
            .runtime
            .block_on(self.client.open_blobs(&ids))?
            .into_iter();
        let progress = Arc::clone(&self.progress);
        Ok(items.into_iter().map(move |item| {
            progress.advance(1);
            let content = match item.size {
                Some(size) if item.entry.mode.is_blob() => contents.next().map(|content| {
                    let odd = format!("{} is damaged: its length is not {size}", item.path);
                    Exact::new(content, size, odd)
                }),
                _ => None,
            };
            Leaf { item, content }
        }))
    }

    fn note_submodule(&self, item: &Item) {
        let line = format!("{} is a submodule: left empty", item.path);
        self.progress.line(&line);
    }
}

impl Leaf {
    /// Returns the content and its length; what has none cannot be written.
    fn content(&mut self) -> anyhow::Result<(&mut Exact<Box<dyn Read + Send>>, u64)> {
        let (path, mode) = (&self.item.path, self.item.entry.mode);
        match (&mut self.content, self.item.size) {
            (Some(content), Some(size)) => Ok((content, size)),
            _ => bail!("{path} has the odd mode {:o}", mode.0),
        }
    }

    /// Reads the target of a symbolic link.
    fn target(&mut self) -> anyhow::Result<Vec<u8>> {
        let (content, _) = self.content()?;
        let mut target = Vec::new();
        content.read_to_end(&mut target)?;
        Ok(target)
    }

    fn is_executable(&self) -> bool {
        self.item.entry.mode.0 & 0o100 != 0
    }
}

async fn next(items: &mut Records<Item>) -> Option<Result<Item, Error>> {
    poll_fn(|context| items.as_mut().poll_next(context)).await
}

/// Large pieces: standard output has no buffer of its own.
const BUFFER: usize = 256 * 1024;

/// A stream that takes nothing more once it was given up.
struct Unended<W> {
    out: W,
    given_up: bool,
}

impl<W: Write> Write for Unended<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.given_up {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => self.out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn tar(export: &Export, time: u64) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(Unended {
        out: BufWriter::with_capacity(BUFFER, export.ui.stdout()),
        given_up: false,
    });
    let written = entries(export, &mut archive, time);
    if written.is_err() {
        // The end-of-archive block would say that this is all.
        archive.get_mut().given_up = true;
        return written;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn entries(
    export: &Export,
    archive: &mut tar::Builder<impl Write>,
    time: u64,
) -> anyhow::Result<()> {
    let mut added = Added {
        folder: TreePath::root(),
        links: HashSet::new(),
    };
    export.leaves(|items| {
        for leaf in export.open(items)? {
            add(export, archive, &mut added, leaf, time)?;
        }
        Ok(())
    })
}

/// What is in the archive already.
struct Added {
    /// The folder of the last leaf; those above it are there too.
    folder: TreePath,
    /// A folder of such a name would lead whoever unpacks it astray.
    links: HashSet<Vec<u8>>,
}

/// Adds one leaf, and the folders above it that are new.
fn add(
    export: &Export,
    archive: &mut tar::Builder<impl Write>,
    added: &mut Added,
    mut leaf: Leaf,
    time: u64,
) -> anyhow::Result<()> {
    let path = leaf.item.path.clone();
    folders(archive, added, &path, time)?;
    let name = Path::new(OsStr::from_bytes(path.as_bytes()));
    match leaf.item.entry.mode.kind() {
        EntryKind::Submodule => {
            export.note_submodule(&leaf.item);
            let mut header = header(tar::EntryType::Directory, 0o755, 0, time);
            archive.append_data(&mut header, slashed(&path), &[][..])?;
        }
        EntryKind::Link => {
            added.links.insert(path.as_bytes().to_vec());
            let target = leaf.target()?;
            let mut header = header(tar::EntryType::Symlink, 0o777, 0, time);
            // Without a detour over path components, which would change it.
            if header.set_link_name_literal(&target).is_ok() {
                archive.append_data(&mut header, name, &[][..])?;
            } else {
                archive.append_link(&mut header, name, OsStr::from_bytes(&target))?;
            }
        }
        _ => {
            let mode = if leaf.is_executable() { 0o755 } else { 0o644 };
            let (content, size) = leaf.content()?;
            let mut header = header(tar::EntryType::Regular, mode, size, time);
            archive.append_data(&mut header, name, content)?;
        }
    }
    Ok(())
}

fn header(kind: tar::EntryType, mode: u32, size: u64, time: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Adds the folders above `path` that the entry before it, in `above`, did not have.
fn folders(
    archive: &mut tar::Builder<impl Write>,
    added: &mut Added,
    path: &TreePath,
    time: u64,
) -> anyhow::Result<()> {
    let (parent, _) = path.split_last().context("a leaf without a name")?;
    let mut folder = TreePath::root();
    for step in parent.steps() {
        folder.push(step);
        if !added.folder.starts_with(&folder) {
            if added.links.contains(folder.as_bytes()) {
                bail!("{folder} is both a link and a folder");
            }
            let mut header = header(tar::EntryType::Directory, 0o755, 0, time);
            archive.append_data(&mut header, slashed(&folder), &[][..])?;
        }
    }
    added.folder = parent;
    Ok(())
}

/// A folder's name as tar writes it.
fn slashed(path: &TreePath) -> PathBuf {
    let mut name = path.as_bytes().to_vec();
    name.push(b'/');
    OsStr::from_bytes(&name).into()
}
