//! The seam below which storage lies: objects by id, and heads by name.
//!
//! Everything above it (edit, merge, diff, commit, watch, transactions) is
//! written once for all engines. Nothing of a path, a lock file or a library's
//! handle shows here. What stays true of every engine:
//!
//! - ids are content hashes, objects never change, and the only mutable things
//!   are heads;
//! - an object that [`Engine::write`] or [`Engine::put`] returned from is as
//!   durable as the engine's level promises, and so is a head that
//!   [`Engine::move_heads`] moved;
//! - heads move by compare-and-swap, all of one call or none;
//! - every call may come from any thread; it may block.

use std::io::{Cursor, Read};

use crate::model::request::{Collected, Progress, RemoteInfo};
use crate::model::{HashKind, ObjectId};

use super::Error;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Blob,
    Tree,
    Commit,
    Tag,
}

impl ObjectKind {
    /// Returns the word in the object's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
            Self::Commit => "commit",
            Self::Tag => "tag",
        }
    }

    /// Returns what an object's content is prefixed with, in its hash and in a
    /// loose file (gitformat-loose(5)).
    pub(crate) fn header(self, size: u64) -> String {
        format!("{} {size}\0", self.name())
    }
}

/// What a commit says to programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub tree: ObjectId,
    pub parents: Vec<ObjectId>,
    /// Seconds of the committer; 0 where that is no number.
    pub time: i64,
}

/// An object to be written, its id computed.
#[derive(Clone, Debug)]
pub struct Object {
    pub id: ObjectId,
    pub kind: ObjectKind,
    pub data: Vec<u8>,
}

/// Returns the id of an object. Content made to collide under SHA-1 is refused,
/// as Git refuses it: [`Error::Invalid`].
pub fn hash_object(hash: HashKind, kind: ObjectKind, data: &[u8]) -> Result<ObjectId> {
    let mut hasher = ObjectHasher::new(hash, kind, data.len() as u64);
    hasher.update(data);
    hasher.finish()
}

/// Computes the id of an object whose content comes in pieces.
pub(crate) struct ObjectHasher(gix::hash::Hasher);

impl ObjectHasher {
    pub(crate) fn new(hash: HashKind, kind: ObjectKind, size: u64) -> Self {
        let mut hasher = Self::bare(hash);
        hasher.update(kind.header(size).as_bytes());
        hasher
    }

    /// The same hash without an object's header: for the files of a pack.
    pub(crate) fn bare(hash: HashKind) -> Self {
        Self(gix::hash::hasher(match hash {
            HashKind::Sha1 => gix::hash::Kind::Sha1,
            HashKind::Sha256 => gix::hash::Kind::Sha256,
        }))
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    pub(crate) fn finish(self) -> Result<ObjectId> {
        let id = self.0.try_finalize().map_err(|_| {
            Error::Invalid("the content is part of a SHA-1 collision attack".into())
        })?;
        Ok(ObjectId::from_bytes(id.as_slice()).expect("a hash has the length of an id"))
    }
}

/// The full name of a head, as Git spells refs: `refs/heads/main`,
/// `refs/dk/tx/ID`. Legal by construction where made from model's names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadName(Vec<u8>);

impl HeadName {
    pub fn branch(name: &crate::model::BranchName) -> Self {
        Self([b"refs/heads/", name.as_bytes()].concat())
    }

    pub fn transaction(id: &crate::model::TransactionId) -> Self {
        Self([b"refs/dk/tx/", id.as_str().as_bytes()].concat())
    }

    /// A name as found in a repository; `None` unless it is below `refs/` and
    /// legal below it.
    pub fn from_full(name: &[u8]) -> Option<Self> {
        let rest = name.strip_prefix(b"refs/")?;
        crate::model::BranchName::new(rest).ok()?;
        Some(Self(name.to_vec()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns it in a user's words: `branch main`, `transaction ID`.
    pub fn shown(&self) -> String {
        let quoted = |name| crate::model::text::quote(name).to_string();
        if let Some(name) = self.0.strip_prefix(b"refs/heads/") {
            format!("branch {}", quoted(name))
        } else if let Some(name) = self.0.strip_prefix(b"refs/dk/tx/") {
            format!("transaction {}", quoted(name))
        } else {
            format!("ref {}", quoted(&self.0))
        }
    }

    /// Tells whether one of the two would have to be a folder of refs and the
    /// other a file in its place (`a` beside `a/b`).
    pub fn is_beside(&self, other: &Self) -> bool {
        let inside = |long: &[u8], short: &[u8]| {
            long.len() > short.len() && long.starts_with(short) && long[short.len()] == b'/'
        };
        inside(&self.0, &other.0) || inside(&other.0, &self.0)
    }
}

impl std::fmt::Display for HeadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::model::text::quote(&self.0).fmt(f)
    }
}

/// What a head must be for a move to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Any,
    Missing,
    Id(ObjectId),
}

/// One head to be moved.
#[derive(Clone, Debug)]
pub struct HeadMove {
    pub name: HeadName,
    pub expected: Expected,
    /// `None` deletes it.
    pub new: Option<ObjectId>,
}

/// Heads that move together, where several such moves follow each other.
pub struct Step<'a> {
    pub moves: &'a [HeadMove],
    pub note: MoveNote,
    /// Whether it survives power loss on return. One that need not is whole
    /// after it, or has not happened.
    pub lasting: bool,
}

/// Why and for whom heads are moved: a line of the reflog where one is kept.
#[derive(Clone, Debug)]
pub struct MoveNote {
    pub who: crate::model::Signature,
    pub message: String,
}

/// What a head is, with what moved it last where the engine can tell.
pub type Heads = Vec<(HeadName, ObjectId)>;

/// How much an acknowledged change survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Power loss: everything is synced before a call returns.
    #[default]
    Strict,
    /// `kill -9` of the process only: for tests and caches.
    None,
}

/// An object's content, read from its beginning to its end.
pub trait ObjectStream: Read + Send {
    /// Reads what can be had without waiting and with little more than copying
    /// it: as much as fits, or less, or nothing. What is left is for `read`.
    fn read_ready(&mut self, out: &mut [u8]) -> usize;
}

impl<T: AsRef<[u8]> + Send> ObjectStream for Cursor<T> {
    fn read_ready(&mut self, out: &mut [u8]) -> usize {
        // It never fails.
        self.read(out).unwrap_or(0)
    }
}

/// A place that keeps objects and heads.
pub trait Engine: Send + Sync + 'static {
    fn hash_kind(&self) -> HashKind;

    /// Tells whether every write will be refused.
    fn is_read_only(&self) -> bool;

    // Objects.

    /// Reads an object whole into `buffer` (cleared first). `None`: not there.
    /// Damaged: [`Error::Corrupt`].
    fn find(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>>;

    /// Returns an object's kind and length without reading it all.
    fn header(&self, id: &ObjectId) -> Result<Option<(ObjectKind, u64)>>;

    /// Tells whether history ends at this commit, whatever parents it names: a
    /// shallow clone has no more.
    fn is_shallow(&self, _id: &ObjectId) -> bool {
        false
    }

    /// Returns what an index beside the objects says of a commit, where there is
    /// one. It spares reading the commit, and does not prove that it is there.
    fn indexed(&self, _id: &ObjectId) -> Option<Node> {
        None
    }

    /// Opens an object's content as a stream; memory stays bounded where the
    /// storage allows (an object kept as a delta is read whole).
    fn open(&self, id: &ObjectId) -> Result<Option<Box<dyn ObjectStream>>>;

    /// Returns up to `limit` ids that begin with these hexadecimal digits.
    fn with_prefix(&self, hex: &str, limit: usize) -> Result<Vec<ObjectId>>;

    /// Writes objects; durable on return. One that is there already is kept
    /// alive (a collector counting its age starts anew). Order within the
    /// batch carries no meaning.
    fn write(&self, objects: &[Object]) -> Result<()>;

    /// Writes a blob of `size` bytes from a reader, in bounded memory; durable
    /// on return. A reader that ends early or goes on longer is an error.
    /// With `size` unknown the content is spooled first.
    fn put(&self, reader: &mut dyn Read, size: Option<u64>) -> Result<ObjectId>;

    /// Begins a bulk write: many objects that become readable and durable
    /// together at [`Bulk::finish`]. Dropping it leaves nothing behind.
    fn bulk(&self) -> Result<Box<dyn Bulk + '_>>;

    // Heads.

    /// Reads one head.
    fn head(&self, name: &HeadName) -> Result<Option<ObjectId>>;

    /// As [`Engine::head`], as new, where it is known so quickly that it needs
    /// no thread to wait on. `None`: ask there.
    fn quick_head(&self, _name: &HeadName) -> Option<Option<ObjectId>> {
        None
    }

    /// Lists the heads whose names begin with `prefix` (`refs/heads/`, or any
    /// part of a name), in order of their names.
    fn heads(&self, prefix: &str) -> Result<Heads>;

    /// Moves heads, all or none, each by compare-and-swap; durable on return.
    ///
    /// Objects in `fresh` are written before, as by [`Engine::write`]; they are
    /// checked under the lock and written again where a collector took them.
    /// [`Error::HeadMoved`] when one is not as expected.
    fn move_heads(&self, moves: &[HeadMove], note: &MoveNote, fresh: &[Object]) -> Result<()> {
        let step = Step {
            moves,
            note: note.clone(),
            lasting: true,
        };
        self.move_in_steps(&[step], fresh, &mut |_| ())
    }

    /// Moves heads one step after the other, each as by [`Engine::move_heads`];
    /// the objects in `fresh` are those of all. The first step that fails is
    /// the last: those before it are done, and `done` was told of each. It
    /// takes fewer syncs than as many calls do.
    fn move_in_steps(
        &self,
        steps: &[Step<'_>],
        fresh: &[Object],
        done: &mut dyn FnMut(&Step<'_>),
    ) -> Result<()>;

    /// Waits for its turn among all writers of this store, in this process and
    /// others, and holds it until the guard is dropped. It only spares wasted
    /// work: correctness rests on [`Engine::move_heads`] alone.
    fn turn(&self) -> Result<Box<dyn Send + '_>>;

    /// Says whether a work tree has this branch checked out.
    fn is_checked_out(&self, name: &HeadName) -> Result<bool>;

    /// Returns a number that is different whenever heads may have moved since
    /// it was last read, by whomever. It means nothing across openings.
    /// Noticing a foreign change may take as long as the poll period (1 s).
    ///
    /// Own moves are told before [`Engine::move_heads`] returns. The first call
    /// starts whatever notices foreign ones.
    fn changes(&self) -> Result<tokio::sync::watch::Receiver<u64>>;

    /// What only a Git repository on disk can do; `None` elsewhere.
    fn repository(&self) -> Option<&dyn Repository> {
        None
    }
}

/// One ref of a remote whose objects are in the store now.
#[derive(Clone, Debug)]
pub struct Advertised {
    pub remote: Vec<u8>,
    pub id: ObjectId,
    /// Where the refspec wants it.
    pub local: Option<HeadName>,
    /// The refspec had `+`.
    pub force: bool,
}

/// The parts of Git that are about repositories, not about objects and heads.
pub trait Repository: Send + Sync {
    /// The path it was opened at, made absolute.
    fn path(&self) -> &std::path::Path;

    /// Returns what tells this repository from every other: `dk.id` of its
    /// configuration, else where its common folder is on this machine; the same
    /// for as long as it is open.
    fn id(&self) -> Result<String>;

    /// Returns `user.name` and `user.email` as Git finds them, environment included.
    fn identity(&self) -> Result<(Option<String>, Option<String>)>;

    /// Resolves a full ref name or `HEAD` to the commit it leads to, through
    /// symbolic refs and tags.
    fn peel(&self, name: &str) -> Result<Option<ObjectId>>;

    /// Returns one value of the configuration (`dk.denyCurrentBranch`).
    fn config(&self, key: &str) -> Result<Option<String>>;

    /// Sets a value in the repository's own configuration file.
    fn set_config(&self, key: &str, value: &str) -> Result<()>;

    /// Keeps refs below a prefix out of clones and mirror pushes, beside
    /// whatever else is kept out (`transfer.hideRefs`).
    fn hide_refs(&self, prefix: &str) -> Result<()>;

    fn remotes(&self) -> Result<Vec<RemoteInfo>>;
    fn add_remote(&self, name: &str, url: &str) -> Result<()>;
    fn remove_remote(&self, name: &str) -> Result<()>;

    /// Brings the objects behind the remote's refs into the store, durable on
    /// return, and moves no head.
    fn fetch(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: &dyn Progress,
    ) -> Result<Vec<Advertised>>;

    /// Runs `git push`, its output line by line to `progress`.
    fn push(&self, remote: &str, refspecs: &[String], progress: &dyn Progress) -> Result<()>;

    /// Counts what a collection would pack and drop, and unless `dry_run` runs
    /// `git gc` and clears away what dead processes left.
    fn gc(&self, dry_run: bool, progress: &dyn Progress) -> Result<Collected>;

    /// Lists every ref with the object it names (tags unpeeled), for checking.
    fn all_refs(&self) -> Result<Vec<(Vec<u8>, ObjectId)>>;
}

/// What a bulk write answers once something was not added.
pub(crate) fn bulk_failed() -> Error {
    Error::Invalid("a bulk write of which a part failed cannot go on".into())
}

/// A bulk write under way. After a failure it can only be dropped.
pub trait Bulk: Send {
    /// Adds an object unless the store has it. Returns its id.
    fn add(&mut self, kind: ObjectKind, data: &[u8]) -> Result<ObjectId>;

    /// Adds a blob of `size` bytes from a reader, in bounded memory.
    fn add_stream(&mut self, reader: &mut dyn Read, size: Option<u64>) -> Result<ObjectId>;

    /// Makes everything added durable and readable.
    fn finish(self: Box<Self>) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_git() {
        let empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let tree = hash_object(HashKind::Sha1, ObjectKind::Tree, b"").unwrap();
        assert_eq!(tree.to_string(), empty);
        let blob = hash_object(HashKind::Sha256, ObjectKind::Blob, b"").unwrap();
        assert_eq!(
            blob.to_string(),
            "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813"
        );
    }
}
