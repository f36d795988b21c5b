//! Edits of the branch, before they are made.

use std::collections::HashSet;

use crate::client::{Content, Edit, Edits, FileKind, Sink};
use crate::model::TreePath;

/// One edit of the branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub path: String,
    /// `None`: it goes, with all below it.
    pub content: Option<Vec<u8>>,
}

/// Edits being gathered.
#[derive(Default)]
pub(super) struct Puts {
    pub(super) list: Vec<Put>,
    /// What has gone, with all below it.
    pub(super) gone: HashSet<String>,
}

/// Adds edits to others, but for those below what goes with these.
pub fn add(puts: &mut Vec<Put>, mut more: Vec<Put>) {
    let gone = puts.iter().filter(|put| put.content.is_none());
    let gone: HashSet<&str> = gone.map(|put| put.path.as_str()).collect();
    more.retain(|put| {
        let mut above = put.path.match_indices('/').map(|(end, _)| &put.path[..end]);
        !above.any(|folder| gone.contains(folder))
    });
    puts.extend(more);
}

/// Returns a change of the branch as the client takes it.
pub fn change(puts: Vec<Put>) -> Edits {
    Edits::new(move |sink: &mut dyn Sink| {
        for put in &puts {
            // Made of legal names only; an odd one is passed over.
            let Ok(path) = TreePath::new(&put.path) else {
                tracing::warn!(target: "bridge", "{:?} cannot be kept in a tree", put.path);
                continue;
            };
            match &put.content {
                Some(content) => sink.edit(Edit::Write {
                    path,
                    kind: FileKind::Normal,
                    content: Content::Bytes(content),
                })?,
                None => sink.edit(Edit::Remove { path })?,
            }
        }
        Ok(())
    })
}
