//! Every object that anything reaches, checked: that it is there, that its
//! content is what its id says, and that it means something.
//!
//! Each object is read once. What is wrong becomes a fault, never a failure:
//! one damaged object does not hide the next. Memory: an id for each object,
//! and one object's content, blobs in pieces.

use std::io::Read;

use crate::model::request::{Fault, Progress};
use crate::model::{Mode, ObjectId, TreePath, text};

use super::engine::{ObjectHasher, ObjectKind, hash_object};
use super::history::IdMap;
use super::objects::{Objects, Tree, TreeEntry, compare};
use super::{Error, Result};

/// Blobs up to this long are read in one go.
const SMALL: u64 = 256 << 10;
/// A file its group may write: Git wrote such modes once, and takes them still.
const OLD_FILE: Mode = Mode(0o100_664);

/// Checks every object that the refs reach, tags and all, each once. Commits
/// of submodules belong to other repositories and are passed over.
pub fn fsck(
    objects: &Objects,
    refs: &[(Vec<u8>, ObjectId)],
    progress: &dyn Progress,
) -> Result<Vec<Fault>> {
    progress.begin("checking objects", None, false);
    let mut check = Check {
        objects,
        progress,
        seen: IdMap::default(),
        todo: Vec::new(),
        faults: Vec::new(),
        buffer: Vec::new(),
    };
    for (name, id) in refs {
        let name = text::quote(name).to_string();
        check.follow(&By::Ref(&name), *id, None)?;
        while let Some(next) = check.todo.pop() {
            if progress.is_cancelled() {
                return Err(Error::Interrupted("the check was cancelled".into()));
            }
            check.follow(&By::Object(next.by), next.id, next.wanted)?;
        }
    }
    Ok(check.faults)
}

struct Check<'a> {
    objects: &'a Objects,
    progress: &'a dyn Progress,
    /// What each object turned out to be; `None`: missing or damaged.
    seen: IdMap<Option<ObjectKind>>,
    todo: Vec<Next>,
    faults: Vec<Fault>,
    buffer: Vec<u8>,
}

struct Next {
    id: ObjectId,
    /// What the one that names it says it is.
    wanted: Option<ObjectKind>,
    by: ObjectId,
}

/// Who names an object.
enum By<'a> {
    Ref(&'a str),
    Object(ObjectId),
}

/// Why an object is bad.
type Bad = String;

impl Check<'_> {
    fn fault(&mut self, what: impl ToString, message: String) {
        let what = what.to_string();
        self.faults.push(Fault { what, message });
    }

    fn follow(&mut self, by: &By<'_>, id: ObjectId, wanted: Option<ObjectKind>) -> Result<()> {
        let found = match self.seen.get(&id) {
            Some(found) => *found,
            None => {
                let found = self.read(by, &id, wanted)?;
                self.seen.insert(id, found);
                self.progress.advance(1);
                found
            }
        };
        if let (Some(found), Some(wanted)) = (found, wanted)
            && found != wanted
        {
            let (found, wanted) = (found.name(), wanted.name());
            let message = format!("it names {id} as a {wanted}, which is a {found}");
            match by {
                By::Ref(name) => self.fault(name, message),
                By::Object(by) => self.fault(by, message),
            }
        }
        Ok(())
    }

    /// Reads an object, checks it, and notes what it names.
    fn read(
        &mut self,
        by: &By<'_>,
        id: &ObjectId,
        wanted: Option<ObjectKind>,
    ) -> Result<Option<ObjectKind>> {
        let found = match self.load(id, wanted) {
            Ok(found) => found,
            // Nothing is said about the object: the check itself cannot go on.
            Err(error @ (Error::Busy(_) | Error::Unsupported(_))) => return Err(error),
            Err(Error::Corrupt { why, .. }) => {
                self.fault(id, why);
                return Ok(None);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                self.fault(id, format!("{error}{cause}"));
                return Ok(None);
            }
        };
        let Some(kind) = found else {
            if *id == self.objects.empty_tree() {
                return Ok(Some(ObjectKind::Tree));
            }
            match by {
                By::Ref(name) => self.fault(name, format!("it names {id}, which is missing")),
                By::Object(by) => self.fault(id, format!("it is missing, and {by} names it")),
            }
            return Ok(None);
        };
        let raw = std::mem::take(&mut self.buffer);
        let checked = match kind {
            ObjectKind::Blob => Ok(()),
            ObjectKind::Tree => self.tree(id, &raw),
            ObjectKind::Commit => self.commit(id, &raw),
            ObjectKind::Tag => self.tag(id, &raw),
        };
        self.buffer = raw;
        if let Err(bad) = checked {
            self.fault(id, bad);
        }
        Ok(Some(kind))
    }

    /// Reads an object and compares its content with its id. Anything but a
    /// blob is in the buffer then.
    fn load(&mut self, id: &ObjectId, wanted: Option<ObjectKind>) -> Result<Option<ObjectKind>> {
        let engine = &self.objects.engine;
        if !matches!(wanted, Some(ObjectKind::Tree | ObjectKind::Commit)) {
            match engine.header(id)? {
                Some((ObjectKind::Blob, size)) if size > SMALL => {
                    return self.stream(id, size).map(|()| Some(ObjectKind::Blob));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
        let Some(kind) = engine.find(id, &mut self.buffer)? else {
            return Ok(None);
        };
        let is = hash_object(self.objects.hash_kind(), kind, &self.buffer)?;
        if is == *id {
            Ok(Some(kind))
        } else {
            Err(changed(id, &is))
        }
    }

    fn stream(&mut self, id: &ObjectId, size: u64) -> Result<()> {
        let mut reader = self.objects.open(id)?;
        let mut hasher = ObjectHasher::new(self.objects.hash_kind(), ObjectKind::Blob, size);
        self.buffer.resize(SMALL as usize, 0);
        loop {
            let count = reader
                .read(&mut self.buffer)
                .map_err(Error::io(format!("cannot read blob {id}")))?;
            if count == 0 {
                break;
            }
            hasher.update(&self.buffer[..count]);
        }
        let is = hasher.finish()?;
        if is == *id {
            Ok(())
        } else {
            Err(changed(id, &is))
        }
    }

    fn names(&mut self, by: &ObjectId, id: ObjectId, wanted: ObjectKind) {
        if self.seen.get(&id) != Some(&Some(wanted)) {
            self.todo.push(Next {
                id,
                wanted: Some(wanted),
                by: *by,
            });
        }
    }

    fn tree(&mut self, id: &ObjectId, raw: &[u8]) -> Result<(), Bad> {
        let tree = Tree::parse(raw.to_vec(), self.objects.hash_kind())?;
        let mut last: Option<TreeEntry<'_>> = None;
        for item in tree.iter() {
            let is_dir = item.entry.mode.is_dir();
            let name = text::quote(item.name);
            if let Some(last) = last {
                let order = compare(last.name, last.entry.mode.is_dir(), item.name, is_dir);
                if last.name == item.name {
                    self.fault(id, format!("it holds {name} twice"));
                } else if order.is_gt() {
                    self.fault(id, format!("{name} is out of order in it"));
                }
            }
            // A file of the name is elsewhere than a folder.
            if is_dir && tree.get(item.name).is_some_and(|e| !e.mode.is_dir()) {
                self.fault(id, format!("it holds {name} as a file and as a folder"));
            }
            if let Err(error) = TreePath::new(item.name) {
                self.fault(id, error.to_string());
            }
            self.entry(id, &item);
            last = Some(item);
        }
        Ok(())
    }

    fn entry(&mut self, id: &ObjectId, item: &TreeEntry<'_>) {
        let name = text::quote(item.name);
        let entry = item.entry;
        if entry.id.as_bytes().iter().all(|b| *b == 0) {
            self.fault(id, format!("{name} in it has no content"));
            return;
        }
        match entry.mode {
            Mode::FILE | Mode::EXEC | Mode::LINK | OLD_FILE => {
                self.names(id, entry.id, ObjectKind::Blob);
            }
            Mode::DIR => self.names(id, entry.id, ObjectKind::Tree),
            Mode::SUBMODULE => {}
            odd => self.fault(id, format!("{name} in it has the odd mode {:o}", odd.0)),
        }
    }

    fn commit(&mut self, id: &ObjectId, raw: &[u8]) -> Result<(), Bad> {
        let mut lines = Lines(raw);
        let tree = lines.id("tree")?.ok_or("the commit has no tree")?;
        self.names(id, tree, ObjectKind::Tree);
        while let Some(parent) = lines.id("parent")? {
            if !self.objects.engine.is_shallow(id) {
                self.names(id, parent, ObjectKind::Commit);
            }
        }
        for role in ["author", "committer"] {
            let line = lines.next(role);
            let line = line.ok_or_else(|| format!("the commit has no {role}"))?;
            signature(line).map_err(|why| format!("the commit's {role} {why}"))?;
        }
        Ok(())
    }

    fn tag(&mut self, id: &ObjectId, raw: &[u8]) -> Result<(), Bad> {
        let mut lines = Lines(raw);
        let target = lines.id("object")?.ok_or("the tag names no object")?;
        let kind = match lines.next("type") {
            Some(b"commit") => ObjectKind::Commit,
            Some(b"tree") => ObjectKind::Tree,
            Some(b"blob") => ObjectKind::Blob,
            Some(b"tag") => ObjectKind::Tag,
            _ => return Err("the tag does not say what it names".into()),
        };
        self.names(id, target, kind);
        if lines.next("tag").is_none_or(<[u8]>::is_empty) {
            return Err("the tag has no name".into());
        }
        // The oldest tags have no tagger.
        match lines.next("tagger") {
            Some(line) => signature(line).map_err(|why| format!("the tagger {why}")),
            None => Ok(()),
        }
    }
}

fn changed(id: &ObjectId, is: &ObjectId) -> Error {
    Error::Corrupt {
        id: id.to_string(),
        why: format!("its content is that of {is}"),
    }
}

/// The head of a commit or a tag.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// Takes the next line if it has this key.
    fn next(&mut self, key: &str) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == b'\n')?;
        let value = self.0[..end]
            .strip_prefix(key.as_bytes())?
            .strip_prefix(b" ")?;
        self.0 = &self.0[end + 1..];
        Some(value)
    }

    fn id(&mut self, key: &str) -> Result<Option<ObjectId>, Bad> {
        let Some(hex) = self.next(key) else {
            return Ok(None);
        };
        let id = ObjectId::from_hex(hex);
        id.map(Some)
            .ok_or_else(|| format!("its line {key:?} holds no id"))
    }
}

/// Checks `Name <mail> seconds +hhmm`.
fn signature(line: &[u8]) -> Result<(), &'static str> {
    let (open, close) = (
        line.iter().position(|b| *b == b'<'),
        line.iter().rposition(|b| *b == b'>'),
    );
    let (Some(open), Some(close)) = (open, close) else {
        return Err("has no address");
    };
    if open > close || line[open + 1..close].iter().any(|b| b"<>".contains(b)) {
        return Err("has a malformed address");
    }
    let mut words = line[close + 1..].split(|b| *b == b' ').skip(1);
    let (Some(seconds), Some(zone), None) = (words.next(), words.next(), words.next()) else {
        return Err("has no time");
    };
    let number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let signed = |zone: &[u8]| matches!(zone, [b'+' | b'-', digits @ ..] if number(digits));
    if number(seconds) && signed(zone) {
        Ok(())
    } else {
        Err("has a malformed time")
    }
}
