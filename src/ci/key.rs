//! What a result depends on, and the digest that names it.
//!
//! A key is a text, one part a line: what it is, a blank, and its value, which
//! holds no blank. Two results with one key are the same result; `dk ci why`
//! compares the texts. The trust domain is one of the parts, so what one
//! domain makes no other finds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::ci::Script;
use crate::ci::config::{Covers, Globs};
use crate::client::{At, Client, Result};
use crate::forge::Sha;
use crate::model::text::{hex, quote};
use crate::model::{Item, ObjectId, TreePath};

/// Digits of a digest.
const DIGITS: usize = 40;
/// Inputs that are listed one by one; more have one digest together.
const LISTED: usize = 1000;

/// Whose results may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Whoever may write the repository.
    Trusted,
    /// A pull request from elsewhere, at one commit.
    Pr(u64, Sha),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trusted => f.write_str("trusted"),
            Self::Pr(number, sha) => write!(f, "pr/{number}@{sha}"),
        }
    }
}

/// A key being put together.
#[derive(Clone, Debug, Default)]
pub struct Key(String);

impl Key {
    pub fn new(cell: &str, domain: &Domain) -> Self {
        let mut key = Self::default();
        key.part("dk-step", "1");
        key.part(&format!("cell {}", quote(cell.as_bytes())), "-");
        key.part("domain", domain);
        key
    }

    /// Adds a part whose value holds no blank.
    pub fn part(&mut self, what: &str, value: impl fmt::Display) {
        self.0 += &format!("{what} {value}\n");
    }

    pub fn script(&mut self, script: &Script) {
        let mut hash = Sha256::new();
        match script {
            Script::Shell(text) => {
                hash.update(b"shell\0");
                hash.update(text);
            }
            Script::Commands(commands) => {
                for command in commands {
                    hash.update(b"command\0");
                    for argument in command {
                        hash.update(argument);
                        hash.update(b"\0");
                    }
                }
            }
        }
        self.part("run", digits(&hash.finalize()));
    }

    pub fn variables(&mut self, variables: &BTreeMap<String, String>) {
        for (name, value) in variables {
            self.part(&format!("env {name}"), digest_of(value.as_bytes()));
        }
    }

    pub fn outputs(&mut self, outputs: &[TreePath]) {
        for path in outputs {
            self.part(&format!("output {path}"), "-");
        }
    }

    pub fn inputs(&mut self, inputs: &[Item]) {
        if inputs.len() > LISTED {
            let mut hash = Sha256::new();
            for item in inputs {
                hash.update(format!("{:o} {} ", item.entry.mode.0, item.entry.id));
                hash.update(item.path.as_bytes());
                hash.update(b"\0");
            }
            let what = format!("inputs ({} files and folders)", inputs.len());
            return self.part(&what, digits(&hash.finalize()));
        }
        for item in inputs {
            let path = match item.path.is_root() {
                true => ".".to_owned(),
                false => item.path.to_string(),
            };
            let (mode, id) = (item.entry.mode.0, item.entry.id);
            self.part(&format!("input {path}"), format_args!("{mode:o}:{id}"));
        }
    }

    /// Returns the text, as it is kept beside the result.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the digest that names the result.
    pub fn digest(&self) -> String {
        digest_of(self.0.as_bytes())
    }
}

/// Returns a digest of bytes, as names and keys have it.
pub fn digest_of(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

fn digits(bytes: &[u8]) -> String {
    let mut text = hex(bytes);
    text.truncate(DIGITS);
    text
}

/// A part that differs between two keys.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// `input src`, `env CC`, `need build`, …
    pub what: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// Returns how two keys differ, in order of what the parts are.
pub fn changed(old: &str, new: &str) -> Vec<Changed> {
    let parts = |text: &str| -> BTreeMap<String, String> {
        let parts = text.lines().filter_map(|line| line.rsplit_once(' '));
        parts
            .map(|(what, value)| (what.into(), value.into()))
            .collect()
    };
    let (old, new) = (parts(old), parts(new));
    let mut whats: Vec<&String> = old.keys().chain(new.keys()).collect();
    whats.sort();
    whats.dedup();
    let differs = whats
        .into_iter()
        .filter(|what| old.get(*what) != new.get(*what));
    differs
        .map(|what| Changed {
            what: what.clone(),
            old: old.get(what).cloned(),
            new: new.get(what).cloned(),
        })
        .collect()
}

/// A folder's entries, kept.
type Folders = HashMap<TreePath, Arc<Vec<Item>>>;

/// A commit's tree, each folder of which is listed once.
pub struct Tree {
    pub client: Arc<dyn Client>,
    pub commit: ObjectId,
    folders: Mutex<Folders>,
}

impl Tree {
    pub fn new(client: Arc<dyn Client>, commit: ObjectId) -> Self {
        Self {
            client,
            commit,
            folders: Mutex::default(),
        }
    }

    async fn list(&self, folder: &TreePath) -> Result<Arc<Vec<Item>>> {
        let kept = |folders: &Mutex<Folders>| {
            let folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
            folders.get(folder).cloned()
        };
        if let Some(items) = kept(&self.folders) {
            return Ok(items);
        }
        let at = At::Commit(self.commit);
        let items = Arc::new(self.client.list(&at, folder, false).await?);
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.insert(folder.clone(), items.clone());
        Ok(items)
    }

    /// Returns what the globs select, with paths from the root: folders where
    /// all of one is, files where some is.
    pub async fn select(&self, globs: &Globs) -> Result<Vec<Item>> {
        let root = TreePath::root();
        if globs.covers(&root) == Covers::Whole {
            let at = At::Commit(self.commit);
            let whole = self.client.stat(&at, &root).await?;
            return Ok(whole
                .map(|stat| Item {
                    path: root,
                    entry: stat.entry,
                    size: None,
                })
                .into_iter()
                .collect());
        }
        let mut found = Vec::new();
        let mut folders = vec![root];
        while let Some(folder) = folders.pop() {
            for item in self.list(&folder).await?.iter() {
                let path = folder.append(&item.path);
                let selected = match item.entry.mode.is_dir() {
                    false => globs.contain(&path),
                    true => match globs.covers(&path) {
                        Covers::Whole => true,
                        Covers::Nothing => false,
                        Covers::Part => {
                            folders.push(path.clone());
                            false
                        }
                    },
                };
                if selected {
                    let item = Item { path, ..*item };
                    found.push(item);
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

/// Returns the files that a selection stands for.
pub async fn files(client: &dyn Client, selected: &[Item]) -> Result<Vec<Item>> {
    let mut files = Vec::new();
    for item in selected {
        if !item.entry.mode.is_dir() {
            files.push(item.clone());
            continue;
        }
        let mut leaves = client.walk(&At::Tree(item.entry.id), &TreePath::root(), false);
        while let Some(leaf) = leaves.next().await {
            let leaf = leaf?;
            files.push(Item {
                path: item.path.append(&leaf.path),
                ..leaf
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_what_changed() {
        let key = |script: &str, domain: Domain| {
            let mut key = Key::new("test,os=x", &domain);
            key.script(&Script::Shell(script.into()));
            key.variables(&[("A B".to_owned(), "1 2".to_owned())].into());
            key
        };
        let (old, new) = (
            key("make", Domain::Trusted),
            key("make -j", Domain::Trusted),
        );
        assert_ne!(old.digest(), new.digest());
        assert_eq!(old.digest(), key("make", Domain::Trusted).digest());
        assert_eq!(old.digest().len(), DIGITS);
        let changes = changed(old.text(), new.text());
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].what, "run");
        let fork = key("make", Domain::Pr(7, "abc".into()));
        assert_ne!(fork.digest(), old.digest(), "no domain reads another's");
        assert_eq!(changed(old.text(), fork.text())[0].what, "domain");
    }

    #[test]
    fn commands_are_not_what_a_blank_makes_of_them() {
        let digest = |commands: &[&[&str]]| {
            let commands = commands
                .iter()
                .map(|command| command.iter().map(|s| (*s).to_owned()).collect());
            let mut key = Key::default();
            key.script(&Script::Commands(commands.collect()));
            key.digest()
        };
        let all = [
            digest(&[&["a", "b"]]),
            digest(&[&["a b"]]),
            digest(&[&["a"], &["b"]]),
        ];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }
}
