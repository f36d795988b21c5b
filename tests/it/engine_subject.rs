//! Engines for tests, and stock git beside them.
//!
//! A repository must be sound by stock git's word when a test is done with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use datakit::model::{HashKind, Kind, ObjectId, Signature, Time};
use datakit::store::engine::{
    Durability, Engine, Expected, HeadMove, HeadName, MoveNote, Object, ObjectKind, hash_object,
};
use datakit::store::git::Git;
use datakit::store::memory::Memory;
use tempfile::TempDir;

/// An engine with what is needed to look at it from outside.
pub struct Subject {
    pub engine: Box<dyn Engine>,
    /// Dropped last.
    pub dir: TempDir,
}

impl Subject {
    pub fn memory() -> Self {
        Self {
            engine: Box::new(Memory::new(HashKind::Sha1)),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn git(hash: HashKind, durability: Durability) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.git");
        Git::init(&path, hash).unwrap();
        Self {
            engine: Box::new(Git::open(&path, durability, false).unwrap()),
            dir,
        }
    }

    /// The repository, where there is one.
    pub fn path(&self) -> Option<PathBuf> {
        Some(self.dir.path().join("store.git")).filter(|path| path.exists())
    }

    /// Runs stock git in the repository and returns what it prints.
    pub fn stock(&self, arguments: &[&str]) -> String {
        stock(&self.path().expect("there is a repository"), arguments)
    }

    pub fn object(&self, kind: ObjectKind, data: impl Into<Vec<u8>>) -> Object {
        let data = data.into();
        let id = hash_object(self.engine.hash_kind(), kind, &data).unwrap();
        Object { id, kind, data }
    }

    pub fn blob(&self, data: impl Into<Vec<u8>>) -> Object {
        self.object(ObjectKind::Blob, data)
    }

    /// A root commit of the empty tree, with the tree.
    pub fn commit(&self, message: &str) -> [Object; 2] {
        let tree = self.object(ObjectKind::Tree, "");
        let commit = format!(
            "tree {}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n{message}\n",
            tree.id
        );
        [tree, self.object(ObjectKind::Commit, commit)]
    }

    /// Writes a commit and returns its id.
    pub fn committed(&self, message: &str) -> ObjectId {
        let objects = self.commit(message);
        self.engine.write(&objects).unwrap();
        objects[1].id
    }

    pub fn read(&self, id: &ObjectId) -> Option<(ObjectKind, Vec<u8>)> {
        let mut buffer = b"of an earlier read".to_vec();
        let kind = self.engine.find(id, &mut buffer).unwrap()?;
        Some((kind, buffer))
    }

    pub fn move_to(
        &self,
        name: &str,
        expected: Expected,
        new: Option<ObjectId>,
    ) -> Result<(), Kind> {
        let moved = self
            .engine
            .move_heads(&[head_move(name, expected, new)], &note(), &[]);
        moved.map_err(|error| error.kind())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if self.path().is_some() && !std::thread::panicking() {
            let faults = self.stock(&["fsck", "--strict", "--no-dangling"]);
            assert_eq!(
                faults
                    .replace("notice: HEAD points to an unborn branch (master)\n", "")
                    .replace("notice: No default references\n", ""),
                ""
            );
        }
    }
}

/// Runs stock git and returns what it prints on either stream.
pub fn stock(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs(["AUTHOR", "COMMITTER"].iter().flat_map(|who| {
            [
                ("NAME", "A"),
                ("EMAIL", "a@b"),
                ("DATE", "1700000000 +0000"),
            ]
            .map(|(what, value)| (format!("GIT_{who}_{what}"), value))
        }))
        .output()
        .unwrap();
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {text}");
    text
}

pub fn name(text: &str) -> HeadName {
    HeadName::from_full(text.as_bytes()).unwrap()
}

pub fn head_move(text: &str, expected: Expected, new: Option<ObjectId>) -> HeadMove {
    HeadMove {
        name: name(text),
        expected,
        new,
    }
}

pub fn note() -> MoveNote {
    MoveNote {
        who: Signature {
            name: b"A".to_vec(),
            email: b"a@b".to_vec(),
            time: Time {
                seconds: 1,
                offset: 0,
            },
        },
        message: "test".into(),
    }
}

/// Bytes that do not compress, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// All files below a directory, by their paths from there.
pub fn files_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => _ = found.insert(path.strip_prefix(dir).unwrap().to_owned()),
            }
        }
    }
    found
}
