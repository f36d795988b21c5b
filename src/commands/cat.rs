//! `dk cat`: the bytes of files.

use std::io::{self, Read, Write as _};

use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _};

use crate::client::{AT_HAND, At};
use crate::commands::{Session, blocking, completions, named, parse};
use crate::model::text::JsonBytes;
use crate::model::{ObjectId, RevPath, TreePath};
use crate::ui::{Exit, Ui};

/// Write files to stdout
///
/// Files are written one after the other, byte for byte and without being held
/// in memory; of a symbolic link the target is written. A file that cannot be
/// read is reported, the others are written, and the exit status is that of
/// the first failure.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk cat master:README.md
  dk cat master~1:config.json master:config.json

JSON:
  {\"commit\", \"path\", \"content\"}
  the whole file is held in memory; bytes that are not UTF-8 are {\"base64\": …}")]
pub struct Args {
    /// A revision, and a file in it
    #[arg(value_name = "REV:PATH", required = true, value_parser = parse::rev_path(),
          add = completions::rev_path())]
    files: Vec<RevPath>,
}

/// How many files are opened before they are written: a store may be far away.
pub(super) const AHEAD: usize = 16;

/// How many bytes are read at once.
const PIECE: usize = 128 * 1024;

/// What is no larger is written without a thread, where stdout has room for it:
/// that it is no larger is found by reading one byte more.
const SMALL: u64 = AT_HAND as u64 - 1;

/// One file, for JSON.
#[derive(serde::Serialize)]
struct File<'a> {
    /// Absent where the file is not read from a commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<ObjectId>,
    path: &'a TreePath,
    content: JsonBytes<'a>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let mut failed = None;
    let opening = args.files.iter().map(async |file| {
        let opened = match session.resolve(&file.rev).await {
            Ok(commit) => open(session, At::Commit(commit), &file.path).await,
            Err(error) => Err(error),
        };
        (file, opened)
    });
    let mut opened = stream::iter(opening).buffered(AHEAD);
    while let Some((file, opened)) = opened.next().await {
        let written = match opened {
            Ok(opened) => opened.write(session).await,
            Err(error) => Err(error),
        };
        let Err(error) = written else { continue };
        let error = named(error, file);
        if args.files.len() == 1 || session.ui.is_closed() {
            return Err(error);
        }
        session.ui.error(&error, super::hint(&error));
        failed.get_or_insert(super::exit_status(&error));
    }
    match failed {
        Some(status) => Err(Exit::quiet(status).into()),
        None => Ok(()),
    }
}

/// A file that is open.
pub(super) struct Opened<'a> {
    at: At,
    path: &'a TreePath,
    reader: Box<dyn Read + Send>,
}

/// Opens one file of any tree.
pub(super) async fn open<'a>(
    session: &Session,
    at: At,
    path: &'a TreePath,
) -> anyhow::Result<Opened<'a>> {
    let reader = session.client.open(&at, path).await?;
    Ok(Opened { at, path, reader })
}

impl Opened<'_> {
    /// Writes it to stdout.
    pub async fn write(self, session: &Session) -> anyhow::Result<()> {
        let (mut reader, path) = (self.reader, self.path.clone());
        let room = match session.ui.json {
            true => 0,
            false => session.ui.room().min(SMALL),
        };
        let mut start = Vec::new();
        let read = reader.by_ref().take(room + 1).read_to_end(&mut start);
        read.with_context(|| format!("cannot read {path}"))?;
        let (ui, at) = (session.ui.clone(), self.at);
        if start.len() as u64 <= room {
            let mut out = ui.content();
            out.write_all(&start)?;
            return Ok(out.flush()?);
        }
        let reader = Box::new(io::Cursor::new(start).chain(reader));
        blocking(move || copy(&ui, reader, &at, &path)).await
    }
}

fn copy(ui: &Ui, mut reader: Box<dyn Read + Send>, at: &At, path: &TreePath) -> anyhow::Result<()> {
    if ui.json {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        let record = File {
            commit: match at {
                At::Commit(commit) => Some(*commit),
                At::Tree(_) | At::Transaction(_) => None,
            },
            path,
            content: JsonBytes(&content),
        };
        return ui.show(&record, |_, _| Ok(()));
    }
    let mut out = ui.content();
    let mut piece = vec![0; PIECE];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => out.write_all(&piece[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => {
                return Err(anyhow::Error::new(error).context(format!("cannot read {path}")));
            }
        }
    }
    Ok(out.flush()?)
}
