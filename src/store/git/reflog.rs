//! The log of a ref's moves, kept where Git would keep one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::model::{ObjectId, text};
use crate::store::engine::MoveNote;
use crate::store::{Error, Result};

use super::folders::{create_new, make_dirs, prune_above, remove_empty_dirs};
use super::moves::Plan;
use super::refs::{Refs, Value};

impl Refs {
    /// Notes a move that is about to be made of the ref, of the symbolic ref it
    /// was reached by, and of `HEAD` where that leads to it.
    pub(super) fn log_move(&self, via: &[u8], plan: &Plan, note: &MoveNote) -> Result<()> {
        let line = line(plan.old, plan.new, note, self.hash.id_len() * 2);
        if plan.new.is_some() {
            self.append_log(&plan.target, &line)?;
        }
        if via != plan.target {
            self.append_log(via, &line)?;
        }
        let head = self.log_path(b"HEAD");
        if (self.settings().logs(b"HEAD") || head.exists())
            && self.loose(b"HEAD")? == Some(Value::Symbolic(plan.target.clone()))
        {
            self.append_log(b"HEAD", &line)?;
        }
        Ok(())
    }

    /// Removes the log of a ref that is no more.
    pub(super) fn drop_log(&self, name: &[u8]) {
        let path = self.log_path(name);
        if fs::remove_file(&path).is_ok() {
            prune_above(&path, name);
        }
    }

    fn log_path(&self, name: &[u8]) -> PathBuf {
        let own = self.path(name).starts_with(&self.git_dir);
        let root = if own { &self.git_dir } else { &self.common_dir };
        root.join("logs").join(std::ffi::OsStr::from_bytes(name))
    }

    fn append_log(&self, name: &[u8], line: &[u8]) -> Result<()> {
        let path = self.log_path(name);
        let failed = || Error::io(format!("cannot write {}", path.display()));
        match open_log(&path, self.settings().logs(name)).map_err(failed())? {
            Some(mut file) => file.write_all(line).map_err(failed()),
            None => Ok(()),
        }
    }
}

/// Opens a log for appending; `None` where none is kept, or none can be because
/// the log of another name is in the way.
fn open_log(path: &Path, create: bool) -> io::Result<Option<File>> {
    use io::ErrorKind as K;
    let mut error = match OpenOptions::new().append(true).open(path) {
        Ok(file) => return Ok(Some(file)),
        Err(error) => error,
    };
    if create && error.kind() == K::NotFound {
        let made = path.parent().map(make_dirs).transpose();
        match made.and_then(|_| create_new(path).map_err(Error::io("log"))) {
            Ok(file) => return Ok(Some(file)),
            Err(Error::Io { source, .. }) => error = source,
            Err(_) => {}
        }
        if error.kind() == K::AlreadyExists {
            return open_log(path, false);
        }
    }
    if create && error.kind() == K::IsADirectory && remove_empty_dirs(path) {
        return open_log(path, true);
    }
    match error.kind() {
        K::NotFound | K::NotADirectory | K::IsADirectory => Ok(None),
        _ => Err(error),
    }
}

fn line(old: Option<ObjectId>, new: Option<ObjectId>, note: &MoveNote, digits: usize) -> Vec<u8> {
    let hex = |id: Option<ObjectId>| id.map_or_else(|| "0".repeat(digits), |id| id.to_string());
    let mut line = format!("{} {} ", hex(old), hex(new)).into_bytes();
    text::write_signature(&mut line, &note.who);
    let words: Vec<&str> = note.message.split_whitespace().collect();
    if !words.is_empty() {
        line.push(b'\t');
        line.extend_from_slice(words.join(" ").as_bytes());
    }
    line.push(b'\n');
    line
}
