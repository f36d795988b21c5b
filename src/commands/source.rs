//! Where edits come from: a file, standard input, a folder, a tar stream.
//!
//! Whatever goes wrong here ends the whole change with nothing done. Folders
//! and tar streams are read by a thread of their own, ahead of the store by a
//! few megabytes at most; a large file travels in pieces, so memory does not
//! grow with it.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::client::{Content, Edit, Edits, FileKind, Sink};
use crate::commands::{Session, blocking};
use crate::model::TreePath;
use crate::ui::Usage;

use self::ahead::produced;
use self::folder::Walk;
pub(super) use self::life::Life;
use self::life::{Guarded, Token};

mod ahead;
mod folder;
mod life;
mod tar;

/// A file up to this long is handed over in one piece.
const SMALL: usize = 128 * 1024;

/// Where the content of one file comes from.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Stdin,
    File(PathBuf),
}

/// An [`Input`], opened.
pub(super) struct Opened {
    pub reader: Box<dyn Read + Send>,
    size: Option<u64>,
    /// It is in memory.
    at_hand: bool,
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
        let (ui, token) = (session.ui.clone(), session.life.token());
        blocking(move || match self {
            Self::Stdin => {
                if ui.interactive() {
                    ui.note("reading from the terminal: end with Ctrl-D");
                }
                Opened::stdin(token)
            }
            // A named pipe waits for its writer.
            Self::File(path) => Opened::file(&path, token),
        })
        .await
    }
}

/// Returns standard input without a buffer, so that nothing after what is
/// taken is lost to the next reader.
pub(super) fn stdin() -> anyhow::Result<File> {
    let stdin = rustix::stdio::stdin().try_clone_to_owned();
    Ok(File::from(stdin.context("cannot read standard input")?))
}

impl Opened {
    fn file(path: &Path, token: Token) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(cannot)?;
        let about = file.metadata().with_context(cannot)?;
        if about.is_dir() {
            let error = Usage::new(format!("{} is a folder", path.display()));
            return Err(error.hint("dk import takes folders").into());
        }
        // A file of /proc says it is empty.
        if !about.is_file() || about.len() == 0 {
            return Self::stream(Guarded { file, token }).with_context(cannot);
        }
        let size = about.len();
        Ok(Self {
            reader: Box::new(Exact::new(
                Guarded { file, token },
                size,
                changed(path.display()),
            )),
            size: Some(size),
            at_hand: false,
            exec: is_executable(&about),
        })
    }

    fn stdin(token: Token) -> anyhow::Result<Self> {
        let cannot = "cannot read standard input";
        let mut file = stdin()?;
        let about = file.metadata().context(cannot)?;
        if !about.is_file() {
            return Self::stream(Guarded { file, token }).context(cannot);
        }
        let size = about.len().saturating_sub(file.stream_position()?);
        Ok(Self {
            reader: Box::new(Exact::new(
                Guarded { file, token },
                size,
                changed("standard input"),
            )),
            size: Some(size),
            at_hand: false,
            exec: false,
        })
    }

    /// Where it is short, its size is found by reading it, which spares a copy
    /// on disk.
    fn stream(mut stream: Guarded) -> io::Result<Self> {
        let mut start = Vec::new();
        (&mut stream).take(SMALL as u64).read_to_end(&mut start)?;
        let mut opened = Self {
            size: None,
            reader: Box::new(io::empty()),
            at_hand: false,
            exec: false,
        };
        if start.len() < SMALL {
            // The end was met: a terminal would have to be told again.
            opened.size = Some(start.len() as u64);
            opened.at_hand = true;
            opened.reader = Box::new(io::Cursor::new(start));
        } else {
            opened.reader = Box::new(io::Cursor::new(start).chain(stream));
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
        let at_hand = self.at_hand;
        let give = move |sink: &mut dyn Sink| {
            sink.edit(edit(Content::Reader {
                reader: &mut self.reader,
                size: self.size,
            }))
        };
        match at_hand {
            true => Edits::at_hand(give),
            false => Edits::new(give),
        }
    }
}

/// Returns a source that gives these edits: ones that carry no content of
/// their own.
pub(super) fn edits(edits: Vec<Edit<'static>>) -> Edits {
    Edits::at_hand(move |sink| edits.into_iter().try_for_each(|edit| sink.edit(edit)))
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
        let token = session.life.token();
        Ok(match self {
            Self::Tar => {
                if ui.interactive() {
                    ui.note("reading a tar stream from the terminal");
                }
                let stdin = Guarded {
                    file: stdin()?,
                    token: token.clone(),
                };
                produced(before, progress, token, move |outlet| {
                    tar::read(stdin, &at, &ui, outlet)
                })
            }
            Self::Folder(dir) => {
                let walk = Walk::new(&session.store, ui);
                produced(before, progress, token, move |outlet| {
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
}
