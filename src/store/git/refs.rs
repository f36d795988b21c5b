//! Heads as Git keeps them: a file each below `refs/`, and `packed-refs`.
//!
//! Reading takes no lock. A loose file wins over a packed line, and is looked
//! for first: Git packs before it removes the loose file, and unpacks before
//! it removes the last, so no ref is missed in between. How heads move is in
//! `moves`, what a dead process left is set right in `recovery`.
//! Format: gitrepository-layout(5).

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::model::{HashKind, ObjectId};
use crate::store::engine::{Durability, HeadName, Heads};
use crate::store::{Error, Result};

use super::known::{Known, Stamp};
use super::lock::Locks;
use super::notice::Notice;
use super::packed::Packed;
use super::settings::Settings;
use super::turn::{Turn, Turns};

/// How many symbolic refs are followed, as in Git.
const MAX_DEPTH: usize = 5;

/// The heads of a Git repository.
pub struct Refs {
    pub(super) git_dir: PathBuf,
    pub(super) common_dir: PathBuf,
    pub(super) hash: HashKind,
    pub(super) durability: Durability,
    read_only: bool,
    settings: OnceLock<Settings>,
    /// The last `packed-refs` read; checked at every use.
    packed: Mutex<Option<Arc<Packed>>>,
    /// Loose refs read before; checked at every use.
    known: Known,
    pub(super) locks: Locks,
    /// Passed once what dead processes left has been cleared away.
    pub(super) swept: Once,
    turns: Turns,
    pub(super) notice: Notice,
}

/// What a ref holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Id(ObjectId),
    /// The full name of another ref.
    Symbolic(Vec<u8>),
}

impl Refs {
    /// Opens the refs of a repository whose own files are in `git_dir`, and
    /// those it has in common with other work trees in `common_dir`.
    pub fn open(
        git_dir: &Path,
        common_dir: &Path,
        hash: HashKind,
        durability: Durability,
    ) -> Result<Self> {
        let absolute = |dir: &Path| {
            fs::canonicalize(dir).map_err(Error::io(format!("cannot open {}", dir.display())))
        };
        let (git_dir, common_dir) = (&absolute(git_dir)?, &absolute(common_dir)?);
        if common_dir.join("refs/heads").is_file() {
            return Err(Error::Unsupported(format!(
                "{} keeps its refs in the reftable format, which dk cannot read yet",
                common_dir.display()
            )));
        }
        let writable = rustix::fs::access(
            common_dir.join("refs").as_path(),
            rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
        );
        Ok(Self {
            git_dir: git_dir.clone(),
            common_dir: common_dir.clone(),
            hash,
            durability,
            read_only: writable.is_err(),
            settings: OnceLock::new(),
            packed: Mutex::new(None),
            known: Known::default(),
            locks: Locks::new(git_dir, common_dir, durability == Durability::Strict),
            swept: Once::new(),
            turns: Turns::new(common_dir),
            notice: Notice::new(common_dir),
        })
    }

    /// Tells whether heads cannot be moved here.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::ReadOnly(self.common_dir.display().to_string()));
        }
        Ok(())
    }

    /// Spares reading the configuration, where it is known already.
    pub(super) fn set_settings(&self, settings: Settings) {
        // What was read before stands.
        let _ = self.settings.set(settings);
    }

    pub(super) fn settings(&self) -> &Settings {
        self.settings
            .get_or_init(|| Settings::load(&self.common_dir))
    }

    /// Reads one head; a symbolic ref is followed.
    pub fn head(&self, name: &HeadName) -> Result<Option<ObjectId>> {
        match self.quick_head(name) {
            Some(head) => Ok(head),
            None => Ok(self.resolve(name.as_bytes())?.1),
        }
    }

    /// As [`Refs::head`], where that takes no more than a look at a file: not
    /// for a symbolic ref, nor where `packed-refs` has to be read.
    pub fn quick_head(&self, name: &HeadName) -> Option<Option<ObjectId>> {
        let name = name.as_bytes();
        let path = self.path(name);
        match fs::symlink_metadata(&path) {
            Ok(file) if file.is_file() => {
                let stamp = Stamp::of(&file);
                if let Some(id) = self.known.get(name, stamp) {
                    return Some(Some(id));
                }
                let (id, stamp) = self.read_id(&path, name)?;
                self.known.keep(name, stamp, id);
                Some(Some(id))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => None,
            Ok(file) if !file.is_dir() => None,
            _ => {
                let path = self.packed_path();
                let slot = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
                let packed = slot.as_ref().filter(|packed| packed.is_current(&path))?;
                packed.find(name).ok()
            }
        }
    }

    /// Reads a loose ref that holds an id, with what its file looked like.
    fn read_id(&self, path: &Path, name: &[u8]) -> Option<(ObjectId, Stamp)> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let open = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let mut file = open.ok()?;
        let stamp = Stamp::of(&file.metadata().ok()?);
        let mut text = [0; 128];
        let length = file.read(&mut text).ok()?;
        match self.parse(&text[..length], name) {
            Ok(Value::Id(id)) => Some((id, stamp)),
            _ => None,
        }
    }

    /// Lists the heads whose names begin with `prefix`, in order of their names.
    pub fn heads(&self, prefix: &str) -> Result<Heads> {
        let mut loose = Vec::new();
        self.walk(prefix.as_bytes(), &mut loose)?;
        loose.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let packed = self.packed()?;
        let mut heads = Heads::with_capacity(loose.len());
        let mut loose = loose.into_iter().peekable();
        let mut push = |name: &[u8], value| {
            let id = match value {
                Value::Id(id) => Some(id),
                Value::Symbolic(target) => self.resolve(&target)?.1,
            };
            if let (Some(head), Some(id)) = (HeadName::from_full(name), id) {
                heads.push((head, id));
            }
            Ok::<_, Error>(())
        };
        for record in packed.with_prefix(prefix.as_bytes()) {
            let (name, id) = record?;
            while let Some((before, value)) = loose.next_if(|(it, _)| it.as_slice() < name) {
                push(&before, value)?;
            }
            match loose.next_if(|(it, _)| it == name) {
                Some((_, value)) => push(name, value)?,
                None => push(name, Value::Id(id))?,
            }
        }
        for (name, value) in loose {
            push(&name, value)?;
        }
        Ok(heads)
    }

    /// Says whether a work tree has this branch checked out.
    pub fn is_checked_out(&self, name: &HeadName) -> Result<bool> {
        let mut heads = Vec::new();
        if !self.settings().bare {
            heads.push(self.common_dir.join("HEAD"));
        }
        let trees = self.common_dir.join("worktrees");
        if let Ok(entries) = fs::read_dir(&trees) {
            heads.extend(entries.flatten().map(|entry| entry.path().join("HEAD")));
        }
        for head in heads {
            let value = self.read_value(&head, b"HEAD")?;
            if value == Some(Value::Symbolic(name.as_bytes().to_vec())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lists every ref with the object it names, and `HEAD` where it is detached.
    pub fn all(&self) -> Result<Vec<(Vec<u8>, ObjectId)>> {
        let mut all = Vec::new();
        if let Some(Value::Id(id)) = self.loose(b"HEAD")? {
            all.push((b"HEAD".to_vec(), id));
        }
        let refs = self.heads("refs/")?;
        all.extend(
            refs.into_iter()
                .map(|(name, id)| (name.as_bytes().to_vec(), id)),
        );
        Ok(all)
    }

    /// Waits for its turn among all writers of this store.
    pub fn turn(&self) -> Result<Turn<'_>> {
        self.writable()?;
        self.sweep();
        Ok(self.turns.take())
    }

    /// Returns a number that changes whenever heads may have moved.
    pub fn changes(&self) -> Result<watch::Receiver<u64>> {
        self.notice.start()
    }

    /// Follows symbolic refs from `name`: the last of the chain and what it holds.
    pub(super) fn resolve(&self, name: &[u8]) -> Result<(Vec<u8>, Option<ObjectId>)> {
        let mut name = name.to_vec();
        for _ in 0..=MAX_DEPTH {
            match self.value(&name)? {
                None => return Ok((name, None)),
                Some(Value::Id(id)) => return Ok((name, Some(id))),
                Some(Value::Symbolic(target)) => name = target,
            }
        }
        Err(damaged(&name, "its chain of symbolic refs has no end"))
    }

    /// Reads what one ref holds.
    pub(super) fn value(&self, name: &[u8]) -> Result<Option<Value>> {
        match self.loose(name)? {
            None => Ok(self.packed()?.find(name)?.map(Value::Id)),
            value => Ok(value),
        }
    }

    pub(super) fn loose(&self, name: &[u8]) -> Result<Option<Value>> {
        self.read_value(&self.path(name), name)
    }

    /// Returns where a ref's own file is.
    pub(super) fn path(&self, name: &[u8]) -> PathBuf {
        let per_tree: [&[u8]; 3] = [b"refs/bisect/", b"refs/worktree/", b"refs/rewritten/"];
        let own = !name.starts_with(b"refs/") || per_tree.iter().any(|it| name.starts_with(it));
        let root = if own { &self.git_dir } else { &self.common_dir };
        root.join(std::ffi::OsStr::from_bytes(name))
    }

    pub(super) fn packed_path(&self) -> PathBuf {
        self.common_dir.join("packed-refs")
    }

    /// Returns `packed-refs` as it is now.
    pub(super) fn packed(&self) -> Result<Arc<Packed>> {
        let path = self.packed_path();
        let mut slot = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) = slot.as_ref().filter(|packed| packed.is_current(&path)) {
            return Ok(Arc::clone(packed));
        }
        let packed = Arc::new(Packed::load(&path, self.hash)?);
        *slot = Some(Arc::clone(&packed));
        Ok(packed)
    }

    fn read_value(&self, path: &Path, name: &[u8]) -> Result<Option<Value>> {
        use io::ErrorKind as K;
        let failed = || Error::io(format!("cannot read {}", path.display()));
        let open = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path);
        let mut text = Vec::with_capacity(128);
        let read = match open {
            Ok(file) => file.take(4096).read_to_end(&mut text),
            Err(error) if is_link(&error) => {
                let target = fs::read_link(path).map_err(failed())?.into_os_string();
                let target = target.into_vec();
                if HeadName::from_full(&target).is_some() {
                    return Ok(Some(Value::Symbolic(target)));
                }
                fs::read(path).map(|bytes| {
                    text = bytes;
                    text.len()
                })
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(_) => self.parse(&text, name).map(Some),
            Err(error) => match error.kind() {
                K::NotFound | K::NotADirectory | K::IsADirectory | K::InvalidFilename => Ok(None),
                _ => Err(failed()(error)),
            },
        }
    }

    fn parse(&self, text: &[u8], name: &[u8]) -> Result<Value> {
        if let Some(target) = text.strip_prefix(b"ref:") {
            let target = target.trim_ascii();
            return match HeadName::from_full(target) {
                Some(_) => Ok(Value::Symbolic(target.to_vec())),
                None => Err(damaged(name, "it points to a name that is not legal")),
            };
        }
        let digits = self.hash.id_len() * 2;
        text.get(..digits)
            .filter(|_| text.get(digits).is_none_or(u8::is_ascii_whitespace))
            .and_then(ObjectId::from_hex)
            .map(Value::Id)
            .ok_or_else(|| damaged(name, "its file holds no object id"))
    }

    /// Adds the loose refs whose names begin with `prefix`.
    pub(super) fn walk(&self, prefix: &[u8], found: &mut Vec<(Vec<u8>, Value)>) -> Result<()> {
        let folder = prefix
            .iter()
            .rposition(|b| *b == b'/')
            .map_or(0, |slash| slash + 1);
        let mut below = prefix[..folder].to_vec();
        if !below.starts_with(b"refs/") {
            // Nothing else is a head; `prefix` may still be a part of "refs/".
            if !b"refs/".starts_with(prefix) {
                return Ok(());
            }
            below = b"refs/".to_vec();
        }
        // Part of a name that leads elsewhere is no name.
        if below
            .split(|b| *b == b'/')
            .any(|part| part == b"." || part == b"..")
        {
            return Ok(());
        }
        self.walk_folder(&mut below, prefix, found)
    }

    /// Adds those in the folder `below`, a name with a slash at its end.
    fn walk_folder(
        &self,
        below: &mut Vec<u8>,
        prefix: &[u8],
        found: &mut Vec<(Vec<u8>, Value)>,
    ) -> Result<()> {
        use io::ErrorKind as K;
        let path = self.path(below);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), K::NotFound | K::NotADirectory) => return Ok(()),
            Err(error) => return Err(Error::io(format!("cannot list {}", path.display()))(error)),
        };
        let length = below.len();
        for entry in entries {
            let entry = entry.map_err(Error::io(format!("cannot list {}", path.display())))?;
            below.truncate(length);
            below.extend_from_slice(entry.file_name().as_bytes());
            if below.ends_with(b".lock") {
                continue;
            }
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir {
                below.push(b'/');
                if below.starts_with(prefix) || prefix.starts_with(below) {
                    self.walk_folder(below, prefix, found)?;
                }
            } else if below.starts_with(prefix)
                && HeadName::from_full(below).is_some()
                && let Some(value) = self.loose(below)?
            {
                found.push((below.clone(), value));
            }
        }
        below.truncate(length);
        Ok(())
    }
}

fn is_link(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
}

pub(super) fn damaged(name: &[u8], why: &str) -> Error {
    Error::Corrupt {
        id: match HeadName::from_full(name) {
            Some(name) => name.shown(),
            None => String::from_utf8_lossy(name).into_owned(),
        },
        why: why.into(),
    }
}
