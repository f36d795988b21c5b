//! Reading ahead: a thread of its own finds files, the store takes them.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::Context as _;

use super::life::Token;
use super::{Exact, SMALL};
use crate::client::{Content, Edit, Edits, FileKind, Progress, Sink, Stop};
use crate::model::TreePath;

/// How many things found may wait for the store: at most `SMALL` bytes each.
const AHEAD: usize = 64;
/// How many pieces of a large file may wait, `SMALL` bytes each.
const PIECES: usize = 16;

/// One thing found in a folder or a tar stream, with its path in the tree.
pub(super) enum Found {
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
pub(super) struct Outlet {
    found: SyncSender<Found>,
    token: Token,
}

impl Outlet {
    /// Waits while too much is waiting already. Fails when nobody wants more;
    /// what it fails with is never seen.
    pub fn give(&self, found: Found) -> anyhow::Result<()> {
        self.token.check()?;
        let sent = self.found.send(found);
        sent.map_err(|_| anyhow::anyhow!("the change was given up"))
    }

    /// Hands over `size` bytes of a file. `name` is for messages, and `odd`
    /// the one when there are fewer or more.
    pub fn file(
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
            self.token.check()?;
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
pub(super) fn produced(
    before: Vec<Edit<'static>>,
    progress: Arc<dyn Progress>,
    token: Token,
    producer: impl FnOnce(&Outlet) -> anyhow::Result<()> + Send + 'static,
) -> Edits {
    Edits::new(move |sink| {
        before.into_iter().try_for_each(|edit| sink.edit(edit))?;
        progress.begin("importing files", None, false);
        let (send, found) = sync_channel(AHEAD);
        thread::scope(|scope| {
            let producer = scope.spawn(move || producer(&Outlet { found: send, token }));
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

#[cfg(test)]
mod tests {
    use super::*;

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
