//! The nouns of a dk database: ids, entries, changes, commits, failures.
//!
//! Every value here is valid by construction and means the same wherever the
//! database lives. No I/O and no async. Formats that dk writes into files or
//! prints as text are in [`text`] and nowhere else.

use std::fmt;

pub mod failure;
pub mod path;
pub mod request;
pub mod rev;
pub mod text;

pub use path::{BranchName, TreePath};
pub use rev::{Rev, RevPath};

/// The class of a failure: a closed list, the same for every store.
///
/// It is all a program may act on. It maps to the exit status of `dk` and to
/// the error text and number of 9P, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No such branch, commit, path or transaction.
    NotFound,
    /// It is there already.
    Exists,
    /// A file was needed and a directory is there.
    IsDirectory,
    /// A directory was needed and a file is there.
    NotDirectory,
    /// The directory has entries.
    NotEmpty,
    /// Not a legal name, path, id or argument.
    Invalid,
    /// A shortened id that fits several objects.
    Ambiguous,
    /// A merge found conflicts, or unresolved ones are in the way.
    Conflict,
    /// The head was not where the caller expected it, or a fast-forward is not one.
    HeadMoved,
    /// The store, or this part of it, may not be written.
    ReadOnly,
    /// The caller may not do this (a checked-out branch, for example).
    Denied,
    /// Somebody else holds a lock and did not give it up in time.
    Busy,
    /// An object is damaged or missing although something names it.
    Corrupt,
    /// The disk is full, or a quota or limit is reached.
    NoSpace,
    /// This store cannot do that.
    Unsupported,
    /// Given up: cancelled or timed out.
    Interrupted,
    /// More came than is kept for a slow reader.
    Overrun,
    /// Anything else that went wrong below.
    Io,
}

/// The hash function that names the objects of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashKind {
    Sha1,
    Sha256,
}

impl HashKind {
    /// Returns the length of an id in bytes.
    pub fn id_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Returns Git's name of it (`extensions.objectFormat`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }
}

/// The id of a Git object: the hash of its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    bytes: [u8; 32],
    len: u8,
}

impl ObjectId {
    /// Returns the id with these bytes: 20 (SHA-1) or 32 (SHA-256) of them.
    #[inline]
    pub fn from_bytes(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        // Lengths known beforehand are copied by a move or two: a listing has
        // as many ids as files.
        let len = match from.len() {
            20 => {
                bytes[..20].copy_from_slice(&from[..20]);
                20
            }
            32 => {
                bytes.copy_from_slice(from);
                32
            }
            _ => return None,
        };
        Some(Self { bytes, len })
    }

    /// Returns the id written as 40 or 64 hexadecimal digits of either case.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        if hex.len() != 40 && hex.len() != 64 {
            return None;
        }
        let mut id = Self {
            bytes: [0; 32],
            len: u8::try_from(hex.len() / 2).ok()?,
        };
        for (byte, pair) in id.bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(id)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub fn hash_kind(&self) -> HashKind {
        if self.len == 20 {
            HashKind::Sha1
        } else {
            HashKind::Sha256
        }
    }

    pub fn to_hex(&self) -> String {
        self.to_string()
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.pad(std::str::from_utf8(&hex[..usize::from(self.len) * 2]).unwrap_or_default())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a tree entry is. Git knows more modes than these; an odd one is
/// [`EntryKind::Other`], kept as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A normal file (100644).
    File,
    /// An executable file (100755).
    Exec,
    /// A symbolic link; its content is the target (120000).
    Link,
    /// A directory (40000).
    Dir,
    /// A commit of another repository (160000): an opaque leaf.
    Submodule,
    /// A mode that Git no longer writes: an opaque leaf.
    Other,
}

impl EntryKind {
    /// Returns the word dk prints for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Exec => "exec",
            Self::Link => "link",
            Self::Dir => "dir",
            Self::Submodule => "submodule",
            Self::Other => "other",
        }
    }
}

/// A mode as Git stores it in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mode(pub u32);

impl Mode {
    pub const FILE: Self = Self(0o100_644);
    pub const EXEC: Self = Self(0o100_755);
    pub const LINK: Self = Self(0o120_000);
    pub const DIR: Self = Self(0o040_000);
    pub const SUBMODULE: Self = Self(0o160_000);

    pub fn kind(self) -> EntryKind {
        match self {
            Self::FILE => EntryKind::File,
            Self::EXEC => EntryKind::Exec,
            Self::LINK => EntryKind::Link,
            Self::DIR => EntryKind::Dir,
            Self::SUBMODULE => EntryKind::Submodule,
            _ => EntryKind::Other,
        }
    }

    pub fn is_dir(self) -> bool {
        self == Self::DIR
    }

    /// Tells whether the entry's id names a blob whose bytes may be read.
    pub fn is_blob(self) -> bool {
        self.0 & 0o170_000 == 0o100_000 || self == Self::LINK
    }
}

/// What a name in a tree stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub mode: Mode,
    pub id: ObjectId,
}

/// An entry with its path: one line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The path from where the listing began.
    pub path: TreePath,
    pub entry: Entry,
    /// Bytes of content, where asked for and where it is a blob.
    pub size: Option<u64>,
}

/// A path that differs between two trees. Never both sides `None`, never equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: TreePath,
    /// The leaf on the older side.
    pub old: Option<Entry>,
    /// The leaf on the newer side.
    pub new: Option<Entry>,
}

/// Which way a path changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Removed,
    Updated,
}

impl Change {
    pub fn kind(&self) -> ChangeKind {
        match (&self.old, &self.new) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Updated,
        }
    }
}

/// A moment as Git keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Time {
    /// Whole seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// Minutes east of UTC.
    pub offset: i32,
}

impl Time {
    /// Returns this moment, in UTC.
    pub fn now() -> Self {
        Self {
            seconds: jiff::Timestamp::now().as_second(),
            offset: 0,
        }
    }
}

/// A person, without a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub email: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            name: "datakit".into(),
            email: "datakit@mobyproject.org".into(),
        }
    }
}

/// Who did something, and when. Bytes that are not UTF-8 are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub name: Vec<u8>,
    pub email: Vec<u8>,
    pub time: Time,
}

/// A commit, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub id: ObjectId,
    pub tree: ObjectId,
    /// In the order written; the former head of the branch is first.
    pub parents: Vec<ObjectId>,
    pub author: Signature,
    pub committer: Signature,
    /// Byte for byte.
    pub message: Vec<u8>,
}

impl Commit {
    /// Returns the first line of the message.
    pub fn subject(&self) -> &[u8] {
        let start = self.message.trim_ascii_start();
        start.split(|b| *b == b'\n').next().unwrap_or_default()
    }
}

/// A branch with its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    pub name: BranchName,
    pub head: ObjectId,
}

/// Why a path could not be merged. The texts are the ancestor's, and clients
/// compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    FileVsDir,
    ChangedBoth,
    AddAdd,
    /// Deleted on one side, changed on the other.
    AddDel,
}

impl ConflictKind {
    pub const ALL: [Self; 4] = [
        Self::FileVsDir,
        Self::ChangedBoth,
        Self::AddAdd,
        Self::AddDel,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::FileVsDir => "File vs dir",
            Self::ChangedBoth => "Changed on both branches",
            Self::AddAdd => "default: add/add and no common ancestor",
            Self::AddDel => "option: add/del",
        }
    }
}

/// A path that a merge left to be resolved, with what each side has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub path: TreePath,
    pub kind: ConflictKind,
    pub base: Option<Entry>,
    pub ours: Option<Entry>,
    pub theirs: Option<Entry>,
}

/// The name of a durable transaction: `[A-Za-z0-9._-]`, 1 to 100 of them, and
/// legal as the last part of a ref.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(String);

impl TransactionId {
    pub fn new(name: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (!name.is_empty()
            && name.len() <= 100
            && name.chars().all(legal)
            && !name.starts_with(['.', '-'])
            && !name.ends_with('.')
            && !name.ends_with(".lock")
            && !name.contains(".."))
        .then(|| Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How far a durable transaction has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// A commit is under way: the head is to move to `new`, from `expected`.
    Committing {
        new: ObjectId,
        expected: Option<ObjectId>,
    },
    /// Done; the branch was moved to this head (or held it already).
    Committed(ObjectId),
}

/// What is known of a durable transaction beside its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub id: TransactionId,
    pub branch: BranchName,
    /// The commit its tree was copied from.
    pub base: Option<ObjectId>,
    /// Parents of the commit to be, in order.
    pub parents: Vec<ObjectId>,
    /// Message of the commit to be; empty until set.
    pub message: Vec<u8>,
    pub author: Signature,
    pub state: State,
    /// Paths left by merges, in path order, and not resolved yet.
    pub conflicts: Vec<Conflict>,
    /// When it was begun, in the author's zone.
    pub begun: Time,
    /// When it was last changed.
    pub edited: Time,
    /// Number of edits applied so far.
    pub edits: u64,
    /// The tree as it stands.
    pub tree: ObjectId,
    /// The commits of the last merge: base (none where unrelated), ours, theirs.
    pub merge: Option<Merge>,
}

/// The three sides of a merge inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    pub base: Option<ObjectId>,
    pub ours: ObjectId,
    pub theirs: ObjectId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_refuse_other_lengths() {
        let hex = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let id = ObjectId::from_hex(hex.as_bytes()).expect("legal");
        assert_eq!(id.to_string(), hex);
        assert_eq!(ObjectId::from_bytes(id.as_bytes()), Some(id));
        assert_eq!(
            ObjectId::from_hex(hex.to_uppercase().as_bytes()),
            Some(id),
            "either case"
        );
        for bad in ["", "4b82", &hex[..39], &"g".repeat(40)] {
            assert_eq!(ObjectId::from_hex(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn transaction_names_are_legal_ref_parts() {
        for good in ["1", "a-b_c.d", "build7"] {
            assert!(TransactionId::new(good).is_some(), "{good}");
        }
        for bad in ["", ".a", "a..b", "a.lock", "a/b", "a b", "-a", "a."] {
            assert!(TransactionId::new(bad).is_none(), "{bad}");
        }
    }
}
