//! Where edits come from: a file, standard input, a folder, a tar stream.
//!
//! Whatever goes wrong here ends the whole change with nothing done. Folders
//! and tar streams are read by a thread of their own, ahead of the store by a
//! few megabytes at most; a large file travels in pieces, so memory does not
//! grow with it.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::Context as _;

use crate::client::{Content, Edit, Edits, FileKind, Progress, Sink, Stop};
use crate::commands::{Session, blocking};
use crate::model::TreePath;
use crate::ui::Usage;

use self::folder::Walk;

mod folder;
mod tar;

/// A file up to this long is handed over in one piece.
const SMALL: usize = 128 * 1024;
/// How many things found may wait for the store: at most `SMALL` bytes each.
const AHEAD: usize = 64;
/// How many pieces of a large file may wait, `SMALL` bytes each.
const PIECES: usize = 16;

/// Where the content of one file comes from.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Stdin,
    File(PathBuf),
}

/// An [`Input`], opened.
pub(super) struct Opened {
    reader: Box<dyn Read + Send>,
    size: Option<u64>,
    /// It is a file that may be executed.
    pub exec: bool,
}

impl Input {
    /// Returns the input a FILE argument names: `-` and nothing are standard input.
    pub fn new(file: Option<PathBuf>) -> Self {
        match file {
            Some(file) if file.as_os_str() != "-" => Self::File(file),
            _ => Self::Stdin,
        }
    }

    /// Opens it, before anything is changed.
    pub async fn open(self, session: &Session) -> anyhow::Result<Opened> {
        match self {
            Self::Stdin => {
                if session.ui.interactive() {
                    let text = "reading from the terminal: end with Ctrl-D";
                    session.ui.note(text);
                }
                Opened::stdin()
            }
            // A named pipe waits for its writer.
            Self::File(path) => blocking(move || Opened::file(&path)).await,
        }
    }
}

/// Returns standard input without a buffer, so that nothing after what is
/// taken is lost to the next reader.
pub(super) fn stdin() -> anyhow::Result<File> {
    let stdin = rustix::stdio::stdin().try_clone_to_owned();
    Ok(File::from(stdin.context("cannot read standard input")?))
}

impl Opened {
    fn file(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(cannot)?;
        let about = file.metadata().with_context(cannot)?;
        if about.is_dir() {
            let error = Usage::new(format!("{} is a folder", path.display()));
            return Err(error.hint("dk import takes folders").into());
        }
        // A file of /proc says it is empty.
        if !about.is_file() || about.len() == 0 {
            return Self::stream(file).with_context(cannot);
        }
        let size = about.len();
        Ok(Self {
            reader: Box::new(Exact::new(file, size, changed(path.display()))),
            size: Some(size),
            exec: is_executable(&about),
        })
    }

    fn stdin() -> anyhow::Result<Self> {
        let cannot = "cannot read standard input";
        let mut file = stdin()?;
        let about = file.metadata().context(cannot)?;
        if !about.is_file() {
            return Self::stream(file).context(cannot);
        }
        let size = about.len().saturating_sub(file.stream_position()?);
        Ok(Self {
            reader: Box::new(Exact::new(file, size, changed("standard input"))),
            size: Some(size),
            exec: false,
        })
    }

    /// Where it is short, its size is found by reading it, which spares a copy
    /// on disk.
    fn stream(mut file: File) -> io::Result<Self> {
        let mut start = Vec::new();
        (&mut file).take(SMALL as u64).read_to_end(&mut start)?;
        let mut opened = Self {
            size: None,
            reader: Box::new(io::empty()),
            exec: false,
        };
        if start.len() < SMALL {
            // The end was met: a terminal would have to be told again.
            opened.size = Some(start.len() as u64);
            opened.reader = Box::new(io::Cursor::new(start));
        } else {
            opened.reader = Box::new(io::Cursor::new(start).chain(file));
        }
        Ok(opened)
    }

    /// Returns the edit that makes this the content of a file.
    pub fn write(self, path: TreePath, exec: bool) -> Edits {
        let kind = if exec || self.exec {
            FileKind::Exec
        } else {
            FileKind::Keep
        };
        self.edit(move |content| Edit::Write {
            path,
            kind,
            content,
        })
    }

    /// Returns the edit that adds this to a file.
    pub fn append(self, path: TreePath) -> Edits {
        self.edit(move |content| Edit::Append { path, content })
    }

    fn edit(mut self, edit: impl FnOnce(Content<'_>) -> Edit<'_> + Send + 'static) -> Edits {
        Box::new(move |sink| {
            sink.edit(edit(Content::Reader {
                reader: &mut self.reader,
                size: self.size,
            }))
        })
    }
}

/// Returns a source that gives these edits: ones that carry no content of
/// their own.
pub(super) fn edits(edits: Vec<Edit<'static>>) -> Edits {
    Box::new(move |sink| edits.into_iter().try_for_each(|edit| sink.edit(edit)))
}

/// What `import` takes: a folder, or with `-` a tar stream on standard input.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Tar,
    Folder(PathBuf),
}

impl Tree {
    /// Returns what a DIR argument names, after a look at it.
    pub fn new(dir: PathBuf) -> anyhow::Result<Self> {
        if dir.as_os_str() == "-" {
            return Ok(Self::Tar);
        }
        let about = dir
            .metadata()
            .with_context(|| format!("cannot read {}", dir.display()))?;
        if about.is_dir() {
            return Ok(Self::Folder(dir));
        }
        let error = Usage::new(format!("{} is not a folder", dir.display()));
        Err(error
            .hint("a tar archive is read from standard input: -")
            .into())
    }

    /// Returns the edits that put it below `at`, after those of `before`.
    pub fn edits(
        self,
        at: TreePath,
        before: Vec<Edit<'static>>,
        session: &Session,
    ) -> anyhow::Result<Edits> {
        let (ui, progress) = (session.ui.clone(), session.ui.progress());
        Ok(match self {
            Self::Tar => {
                if ui.interactive() {
                    ui.note("reading a tar stream from the terminal");
                }
                let stdin = stdin()?;
                produced(before, progress, move |outlet| {
                    tar::read(stdin, &at, &ui, outlet)
                })
            }
            Self::Folder(dir) => {
                let walk = Walk::new(&session.store, ui);
                produced(before, progress, move |outlet| {
                    walk.folder(&dir, &at, outlet)
                })
            }
        })
    }
}

impl std::fmt::Display for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tar => f.write_str("a tar stream"),
            Self::Folder(dir) => dir.display().fmt(f),
        }
    }
}

/// One thing found in a folder or a tar stream, with its path in the tree.
enum Found {
    Dir(TreePath),
    Link {
        path: TreePath,
        target: Vec<u8>,
    },
    File {
        path: TreePath,
        exec: bool,
        data: Vec<u8>,
    },
    /// A file too large for one piece.
    Stream {
        path: TreePath,
        exec: bool,
        size: u64,
        pieces: Receiver<io::Result<Vec<u8>>>,
    },
    /// Another name of a file found before.
    Copy {
        from: TreePath,
        to: TreePath,
    },
}

/// Where the reading thread leaves what it found.
struct Outlet(SyncSender<Found>);

impl Outlet {
    /// Waits while too much is waiting already. Fails when nobody wants more;
    /// what it fails with is never seen.
    fn give(&self, found: Found) -> anyhow::Result<()> {
        let sent = self.0.send(found);
        sent.map_err(|_| anyhow::anyhow!("the change was given up"))
    }

    /// Hands over `size` bytes of a file. `name` is for messages, and `odd`
    /// the one when there are fewer or more.
    fn file(
        &self,
        (path, exec): (TreePath, bool),
        size: u64,
        (name, odd): (&str, String),
        reader: impl Read,
    ) -> anyhow::Result<()> {
        let mut reader = Exact::new(reader, size, odd);
        if size <= SMALL as u64 {
            // One more, so that the end is seen without growing.
            let mut data = Vec::with_capacity(size as usize + 1);
            let read = reader.read_to_end(&mut data);
            read.with_context(|| format!("cannot read {name}"))?;
            return self.give(Found::File { path, exec, data });
        }
        let (send, pieces) = sync_channel(PIECES);
        self.give(Found::Stream {
            path,
            exec,
            size,
            pieces,
        })?;
        loop {
            let mut piece = Vec::with_capacity(SMALL);
            let read = (&mut reader).take(SMALL as u64).read_to_end(&mut piece);
            let end = !matches!(read, Ok(1..));
            let failed = read.is_err();
            if send.send(read.map(|_| piece)).is_err() || failed {
                // The store tells why: it met the same error, or one of its own.
                anyhow::bail!("cannot read {name}");
            }
            if end {
                return Ok(());
            }
        }
    }
}

/// Returns a source that applies `before` and then what `producer` finds, on a
/// thread of its own.
fn produced(
    before: Vec<Edit<'static>>,
    progress: Arc<dyn Progress>,
    producer: impl FnOnce(&Outlet) -> anyhow::Result<()> + Send + 'static,
) -> Edits {
    Box::new(move |sink| {
        before.into_iter().try_for_each(|edit| sink.edit(edit))?;
        progress.begin("importing files", None, false);
        let (send, found) = sync_channel(AHEAD);
        thread::scope(|scope| {
            let producer = scope.spawn(move || producer(&Outlet(send)));
            // Left early, this drops `found`, which ends the producer.
            for found in found {
                apply(sink, found)?;
                progress.advance(1);
            }
            match producer.join() {
                Ok(result) => result.map_err(stop),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    })
}

fn stop(error: anyhow::Error) -> Stop {
    Stop::Source(format!("{error:#}").into())
}

fn apply(sink: &mut dyn Sink, found: Found) -> Result<(), Stop> {
    let kind = |exec| {
        if exec {
            FileKind::Exec
        } else {
            FileKind::Normal
        }
    };
    match found {
        Found::Dir(path) => sink.edit(Edit::Mkdir { path }),
        Found::Link { path, target } => sink.edit(Edit::Link {
            path,
            target: &target,
        }),
        Found::File { path, exec, data } => sink.edit(Edit::Write {
            path,
            kind: kind(exec),
            content: Content::Bytes(&data),
        }),
        Found::Stream {
            path,
            exec,
            size,
            pieces,
        } => sink.edit(Edit::Write {
            path,
            kind: kind(exec),
            content: Content::Reader {
                reader: &mut Pieces {
                    pieces,
                    piece: io::Cursor::default(),
                },
                size: Some(size),
            },
        }),
        Found::Copy { from, to } => sink.edit(Edit::Copy { from, to }),
    }
}

/// Reads what arrives in pieces.
struct Pieces {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.pieces.recv() {
                Ok(piece) => self.piece = io::Cursor::new(piece?),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// A reader that must give so many bytes, neither fewer nor more.
pub(super) struct Exact<R> {
    inner: R,
    left: u64,
    /// What is said when it does not.
    odd: String,
}

impl<R: Read> Exact<R> {
    pub fn new(inner: R, size: u64, odd: String) -> Self {
        Self {
            inner,
            left: size,
            odd,
        }
    }
}

/// What is said of a file that did not hold still.
fn changed(name: impl std::fmt::Display) -> String {
    format!("{name} changed its size while it was read")
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) if count > 0 || left == 0 => {
                self.left = left;
                Ok(count)
            }
            _ => Err(io::Error::other(self.odd.clone())),
        }
    }
}

/// Tells whether Git would call a file executable: its owner may execute it.
fn is_executable(about: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    about.permissions().mode() & 0o100 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrank_or_grew_is_refused() {
        let read = |content: &[u8], size| {
            let mut out = Vec::new();
            Exact::new(content, size, changed("f"))
                .read_to_end(&mut out)
                .map(|_| out)
        };
        assert_eq!(read(b"abc", 3).unwrap(), b"abc");
        assert_eq!(read(b"", 0).unwrap(), b"");
        for size in [0, 2, 4] {
            let error = read(b"abc", size).unwrap_err();
            assert_eq!(error.to_string(), "f changed its size while it was read");
        }
    }

    #[test]
    fn pieces_come_out_whole() {
        let (send, pieces) = sync_channel(4);
        for piece in [&b"ab"[..], b"", b"cde"] {
            send.send(Ok(piece.to_vec())).unwrap();
        }
        drop(send);
        let mut reader = Pieces {
            pieces,
            piece: io::Cursor::default(),
        };
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        assert_eq!(out, b"abcde");
    }
}
