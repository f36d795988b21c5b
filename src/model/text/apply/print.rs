//! Prints requests as a stream.

use std::io::{self, Read, Write};

use crate::model::request::{Content, Edit, Empty, FileKind};
use crate::model::text::command::write_expect;
use crate::model::text::{quote, quote_always, write_signature};
use crate::model::{Mode, TreePath};

use super::{Finish, Head, side_name};

/// Bytes of content of unknown length that go together.
const PIECE: usize = 64 * 1024;

/// Why an edit could not be printed. What was printed of it is of no use, and
/// so is the whole request.
#[derive(Debug)]
pub enum PrintError {
    /// The text could not be written.
    Out(io::Error),
    /// The content could not be read.
    Content { path: TreePath, error: io::Error },
    /// There was more or less content than announced.
    Length { path: TreePath },
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        Self::Out(error)
    }
}

/// Prints what stands before the edits.
pub fn write_head(out: &mut dyn Write, head: &Head) -> io::Result<()> {
    let options = &head.options;
    if let Some(message) = &options.message {
        writeln!(out, "message {}", message.len())?;
        out.write_all(message)?;
        out.write_all(b"\n")?;
    }
    if let Some(author) = &options.author {
        let mut line = b"author ".to_vec();
        write_signature(&mut line, author);
        line.push(b'\n');
        out.write_all(&line)?;
    }
    if let Some(id) = write_expect(options.expect) {
        writeln!(out, "expect {id}")?;
    }
    for (set, word) in [
        (options.ff_only, "ff-only"),
        (options.force, "force"),
        (options.keep, "keep"),
        (options.empty == Empty::Skip, "empty skip"),
        (options.empty == Empty::Refuse, "empty refuse"),
        (head.dry_run, "dry-run"),
    ] {
        if set {
            writeln!(out, "{word}")?;
        }
    }
    if let Some(parents) = &head.parents {
        write!(out, "parents")?;
        for id in parents {
            write!(out, " {id}")?;
        }
        writeln!(out)?;
    }
    if let Some(id) = &head.theirs {
        writeln!(out, "theirs {id}")?;
    }
    if let Some(side) = head.favour {
        writeln!(out, "favour {}", side_name(side))?;
    }
    if let Some(id) = &head.from {
        writeln!(out, "from {id}")?;
    }
    if let Some(name) = &head.name {
        writeln!(out, "name {name}")?;
    }
    if let Some(operation) = &head.operation {
        write!(out, "operation {}", operation.name)?;
        if let Some(age) = operation.again {
            // No younger than it is.
            write!(out, " again {}", age.as_secs() + 1)?;
        }
        writeln!(out)?;
    }
    if let Some((side, paths)) = &head.resolve {
        writeln!(out, "resolve {}", side_name(*side))?;
        for path in paths {
            writeln!(out, "path {path}")?;
        }
    }
    Ok(())
}

/// Prints an edit, with its content.
pub fn write_edit(out: &mut dyn Write, edit: Edit<'_>) -> Result<(), PrintError> {
    let two = |from: &TreePath, to: &TreePath| {
        let (from, to) = (quote_always(from.as_bytes()), quote_always(to.as_bytes()));
        format!("{from} {to}")
    };
    match edit {
        Edit::Write {
            path,
            kind,
            content,
        } => {
            let kind = match kind {
                FileKind::Keep => "keep",
                FileKind::Normal => "normal",
                FileKind::Exec => "exec",
            };
            writeln!(out, "write {kind} {path}")?;
            write_content(out, path, content)?;
        }
        Edit::Append { path, content } => {
            writeln!(out, "append {path}")?;
            write_content(out, path, content)?;
        }
        Edit::Link { path, target } => {
            writeln!(out, "link {path}")?;
            write_content(out, path, Content::Bytes(target))?;
        }
        Edit::Truncate { path, size } => writeln!(out, "truncate {size} {path}")?,
        Edit::Mkdir { path } => writeln!(out, "mkdir {path}")?,
        Edit::Remove { path } => writeln!(out, "rm {path}")?,
        Edit::Rename { from, to } => writeln!(out, "mv {}", two(&from, &to))?,
        Edit::Copy { from, to } => writeln!(out, "cp {}", two(&from, &to))?,
        Edit::Chmod { path, exec } => {
            writeln!(out, "chmod {} {path}", if exec { "+x" } else { "-x" })?;
        }
        Edit::Set { path, entry } => {
            let Mode(mode) = entry.mode;
            writeln!(out, "set {mode:o} {} {}", entry.id, quote(path.as_bytes()))?;
        }
    }
    Ok(())
}

fn write_content(
    out: &mut dyn Write,
    path: TreePath,
    content: Content<'_>,
) -> Result<(), PrintError> {
    match content {
        Content::Bytes(bytes) => {
            writeln!(out, "{}", bytes.len())?;
            out.write_all(bytes)?;
            out.write_all(b"\n")?;
        }
        Content::Reader {
            reader,
            size: Some(size),
        } => {
            writeln!(out, "{size}")?;
            let mut piece = vec![0; PIECE.min(size.try_into().unwrap_or(PIECE))];
            let mut left = size;
            while left > 0 {
                let most = piece.len().min(left.try_into().unwrap_or(PIECE));
                let count = match read(reader, &mut piece[..most]) {
                    Ok(0) => return Err(PrintError::Length { path }),
                    Ok(count) => count,
                    Err(error) => return Err(PrintError::Content { path, error }),
                };
                out.write_all(&piece[..count])?;
                left -= count as u64;
            }
            match read(reader, &mut [0]) {
                Ok(0) => out.write_all(b"\n")?,
                Ok(_) => return Err(PrintError::Length { path }),
                Err(error) => return Err(PrintError::Content { path, error }),
            }
        }
        Content::Reader { reader, size: None } => {
            let mut piece = vec![0; PIECE];
            loop {
                let count = match read(reader, &mut piece) {
                    Ok(count) => count,
                    Err(error) => return Err(PrintError::Content { path, error }),
                };
                writeln!(out, "+{count}")?;
                if count == 0 {
                    break;
                }
                out.write_all(&piece[..count])?;
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

/// Reads as much as fits; less only at the end.
fn read(reader: &mut (dyn Read + Send), piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match reader.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Prints the last line.
pub fn write_finish(out: &mut dyn Write, finish: Finish) -> io::Result<()> {
    out.write_all(match finish {
        Finish::Done => b"done\n",
        Finish::Commit => b"commit\n",
    })
}
