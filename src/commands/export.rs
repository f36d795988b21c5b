//! `dk export`: a tree as a folder, or as a tar stream.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::future::poll_fn;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::runtime::Handle;

use crate::client::{At, Client, Error, Progress, Records};
use crate::commands::source::Exact;
use crate::commands::{Session, blocking, completions, parse};
use crate::model::{EntryKind, Item, RevPath, TreePath};
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

impl Export {
    /// Gives every leaf with its path from the exported folder down, or its
    /// own name if it is all that is exported. A path that must not be
    /// written is an error.
    fn leaves(&self, mut leaf: impl FnMut(Item) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut items = self.client.walk(&self.at, &self.path, true);
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
            leaf(item)?;
            self.progress.advance(1);
        }
        Ok(())
    }

    /// Opens the content of a leaf, whose length is checked on the way.
    fn open(&self, item: &Item) -> anyhow::Result<(impl std::io::Read + use<>, u64)> {
        let Some(size) = item.size else {
            bail!("the size of {} is unknown", item.path);
        };
        let content = self
            .runtime
            .block_on(self.client.open_blob(&item.entry.id))?;
        let odd = format!("{} is damaged: its length is not {size}", item.path);
        Ok((Exact::new(content, size, odd), size))
    }

    fn note_submodule(&self, item: &Item) {
        let line = format!("{} is a submodule: left empty", item.path);
        if !self.ui.quiet {
            self.progress.line(&line);
        }
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
    let mut above = TreePath::root();
    // A name that is also a folder's would lead whoever unpacks it astray.
    let mut links = HashSet::new();
    export.leaves(|item| {
        folders(archive, &mut above, &links, &item.path, time)?;
        let name = Path::new(OsStr::from_bytes(item.path.as_bytes()));
        match item.entry.mode.kind() {
            EntryKind::Submodule => {
                export.note_submodule(&item);
                let mut header = header(tar::EntryType::Directory, 0o755, 0, time);
                archive.append_data(&mut header, slashed(&item.path), &[][..])?;
            }
            EntryKind::Link => {
                links.insert(item.path.as_bytes().to_vec());
                let (mut content, size) = export.open(&item)?;
                let mut target = Vec::with_capacity(size as usize);
                std::io::Read::read_to_end(&mut content, &mut target)?;
                let mut header = header(tar::EntryType::Symlink, 0o777, 0, time);
                // Without a detour over path components, which would change it.
                if header.set_link_name_literal(&target).is_ok() {
                    archive.append_data(&mut header, name, &[][..])?;
                } else {
                    archive.append_link(&mut header, name, OsStr::from_bytes(&target))?;
                }
            }
            _ if item.entry.mode.is_blob() => {
                let (content, size) = export.open(&item)?;
                let mode = if item.entry.mode.0 & 0o100 == 0 {
                    0o644
                } else {
                    0o755
                };
                let mut header = header(tar::EntryType::Regular, mode, size, time);
                archive.append_data(&mut header, name, content)?;
            }
            _ => bail!("{} has the odd mode {:o}", item.path, item.entry.mode.0),
        }
        Ok(())
    })
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
    above: &mut TreePath,
    links: &HashSet<Vec<u8>>,
    path: &TreePath,
    time: u64,
) -> anyhow::Result<()> {
    let (parent, _) = path.split_last().context("a leaf without a name")?;
    let mut folder = TreePath::root();
    for step in parent.steps() {
        folder.push(step);
        if !above.starts_with(&folder) {
            if links.contains(folder.as_bytes()) {
                bail!("{folder} is both a link and a folder");
            }
            let mut header = header(tar::EntryType::Directory, 0o755, 0, time);
            archive.append_data(&mut header, slashed(&folder), &[][..])?;
        }
    }
    *above = parent;
    Ok(())
}

/// A folder's name as tar writes it.
fn slashed(path: &TreePath) -> PathBuf {
    let mut name = path.as_bytes().to_vec();
    name.push(b'/');
    OsStr::from_bytes(&name).into()
}
