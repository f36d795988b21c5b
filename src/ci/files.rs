//! Small files of the store, read whole, and edits that write some.

use std::io::Read as _;

use crate::client::{At, Client, Content, Edit, Edits, Error, FileKind, Result, Sink};
use crate::model::{Kind, ObjectId, TreePath};

/// What is longer is no file of the CI's: it is read up to here.
const LONGEST: u64 = 4 << 20;

/// Returns a file's content; nothing where there is none.
pub(super) async fn read(
    client: &dyn Client,
    commit: &ObjectId,
    path: &str,
) -> Result<Option<Vec<u8>>> {
    let path = TreePath::new(path)?;
    let reader = match client.open(&At::Commit(*commit), &path).await {
        Ok(reader) => reader,
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::IsDirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let read = tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        reader.take(LONGEST).read_to_end(&mut content)?;
        Ok(content)
    });
    let content: std::io::Result<Vec<u8>> = read
        .await
        .map_err(|error| Error::new(Kind::Interrupted, format!("cannot read {path}: {error}")))?;
    let content =
        content.map_err(|error| Error::new(Kind::Io, format!("cannot read {path}: {error}")))?;
    Ok(Some(content))
}

/// One edit: the content of a file, or nothing for one that goes.
pub(super) type Put = (String, Option<Vec<u8>>);

pub(super) fn put(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Put {
    (path.into(), Some(content.into()))
}

pub(super) fn gone(path: impl Into<String>) -> Put {
    (path.into(), None)
}

/// Returns edits that make these changes, in order.
pub(super) fn edits(puts: Vec<Put>) -> Edits {
    Edits::at_hand(move |sink: &mut dyn Sink| {
        for (path, content) in &puts {
            let path = match TreePath::new(path) {
                Ok(path) => path,
                Err(error) => return Err(crate::client::Stop::Source(Box::new(error))),
            };
            sink.edit(match content {
                Some(content) => Edit::Write {
                    path,
                    kind: FileKind::Normal,
                    content: Content::Bytes(content),
                },
                None => Edit::Remove { path },
            })?;
        }
        Ok(())
    })
}
