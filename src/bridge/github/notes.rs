//! What the bridge wants to find again after a restart and is nobody's
//! metadata: answers with their ETags, cursors, check runs.
//!
//! Each note is a small file of the branch `NAME.sync`, beside what was agreed
//! on. Here they are in memory; the sync commits what has changed, so a note is
//! as lasting as the sync it was taken in. Secrets are never noted.
//!
//! The lock is held for single steps only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::{Client, Result};
use crate::forge::layout::{self, Put};
use crate::model::ObjectId;

/// The longest note; what is longer is asked for again.
const LONGEST: usize = 1 << 20;

/// The folders of notes, in the folder of a repository or an account.
pub const FOLDERS: [&str; 3] = [".http", ".hooks", ".checks"];

/// Where the commit of the metadata branch is noted that was synchronised last.
pub const HEAD: &str = "head";

#[derive(Default)]
pub struct Notes(Mutex<State>);

#[derive(Default)]
struct State {
    texts: BTreeMap<String, Arc<str>>,
    /// Those that are not committed yet, as they are now.
    changed: BTreeSet<String>,
}

impl Notes {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what was noted, as it lies in a commit.
    pub async fn load(&self, client: &dyn Client, commit: &ObjectId) -> Result<()> {
        let wanted = |path: &[u8]| {
            path == HEAD.as_bytes()
                || path
                    .split(|byte| *byte == b'/')
                    .any(|step| FOLDERS.iter().any(|folder| folder.as_bytes() == step))
        };
        let found = layout::files(client, commit, wanted).await?;
        let state = &mut *self.state();
        for (path, content) in found {
            let (Ok(path), Ok(text)) = (String::from_utf8(path), std::str::from_utf8(&content))
            else {
                continue;
            };
            if !state.changed.contains(&path) {
                state.texts.insert(path, text.into());
            }
        }
        Ok(())
    }

    pub fn get(&self, path: &str) -> Option<Arc<str>> {
        self.state().texts.get(path).cloned()
    }

    /// Returns every note.
    pub fn all(&self) -> Vec<(String, Arc<str>)> {
        let texts = &self.state().texts;
        texts
            .iter()
            .map(|(path, text)| (path.clone(), text.clone()))
            .collect()
    }

    /// Returns the notes in a folder.
    pub fn below(&self, folder: &str) -> Vec<(String, Arc<str>)> {
        let prefix = format!("{folder}/");
        let start = Bound::Included(prefix.clone());
        self.state()
            .texts
            .range((start, Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(&prefix))
            .map(|(path, text)| (path.clone(), text.clone()))
            .collect()
    }

    /// Notes a text, which replaces another.
    pub fn set(&self, path: &str, text: String) {
        if text.len() > LONGEST {
            return self.remove(path);
        }
        let state = &mut *self.state();
        if state.texts.get(path).is_none_or(|known| **known != *text) {
            state.texts.insert(path.into(), text.into());
            state.changed.insert(path.into());
        }
    }

    pub fn remove(&self, path: &str) {
        let state = &mut *self.state();
        if state.texts.remove(path).is_some() {
            state.changed.insert(path.into());
        }
    }

    /// Returns what is to be committed.
    pub fn pending(&self) -> Vec<Put> {
        let state = &*self.state();
        let put = |path: &String| Put {
            path: path.clone(),
            content: state.texts.get(path).map(|text| text.as_bytes().to_vec()),
        };
        state.changed.iter().map(put).collect()
    }

    /// Hears that these were committed.
    pub fn committed(&self, puts: &[Put]) {
        let state = &mut *self.state();
        for put in puts {
            let now = state.texts.get(&put.path).map(|text| text.as_bytes());
            if now == put.content.as_deref() {
                state.changed.remove(&put.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_meanwhile_is_committed_next_time() {
        let notes = Notes::default();
        notes.set("a/b/.http/1", "x".into());
        notes.set("a/b/.http/2", "y".into());
        let first = notes.pending();
        assert_eq!(first.len(), 2);
        notes.set("a/b/.http/2", "z".into());
        notes.remove("a/b/.http/1");
        notes.committed(&first);
        let left: Vec<_> = notes.pending().into_iter().map(|put| put.content).collect();
        assert_eq!(left, [None, Some(b"z".to_vec())]);
        notes.committed(&notes.pending());
        notes.set("a/b/.http/2", "z".into());
        notes.remove("a/b/.http/1");
        assert!(notes.pending().is_empty(), "nothing changed");
        assert_eq!(notes.below("a/b/.http").len(), 1);
        notes.set("a/b/.http/2", "z".repeat(LONGEST + 1));
        assert_eq!(notes.below("a/b/.http").len(), 0, "too long to be kept");
    }
}
