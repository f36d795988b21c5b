//! Every message of every dialect, from one table.
//!
//! The shapes are those of intro(5) and its companions (9P2000), of
//! 9P2000.u's RFC, and for 9P2000.L of diod's protocol.md and Linux's client.
//! `9P2000.dk` is 9P2000.L with one difference: an Rlerror carries after its
//! number a string, the failure in full.

use bytes::Bytes;
use rs9p::{GetAttrMask, LockFlag, LockStatus, LockType, QId, SetAttr, SetAttrMask, Stat, StatFs};

use super::wire::{Data, Error, Field, HEADER, Names, Output, Reader, Result, Text};

/// Which 9P is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// 9P2000
    Plain,
    /// 9P2000.u
    Unix,
    /// 9P2000.L
    Linux,
    /// 9P2000.dk
    Dk,
}

impl Dialect {
    pub const ALL: [Self; 4] = [Self::Plain, Self::Unix, Self::Linux, Self::Dk];

    /// Returns its name in a Tversion.
    pub fn version(self) -> &'static str {
        match self {
            Self::Plain => rs9p::P92000,
            Self::Unix => "9P2000.u",
            Self::Linux => rs9p::P92000L,
            Self::Dk => "9P2000.dk",
        }
    }

    /// Returns what is spoken with a client that offers this version; anything
    /// unknown that begins like 9P2000 is plain 9P2000, as version(5) says.
    pub fn negotiate(version: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|dialect| dialect.version().as_bytes() == version)
            .or_else(|| version.starts_with(b"9P2000").then_some(Self::Plain))
    }

    /// Tells whether errors are numbers and operations are Linux's.
    pub fn is_linux(self) -> bool {
        matches!(self, Self::Linux | Self::Dk)
    }

    fn is_in(self, some: &[Self]) -> bool {
        some.contains(&self)
    }
}

/// Sets of dialects, for the table.
const ANY: &[Dialect] = &Dialect::ALL;
const OLD: &[Dialect] = &[Dialect::Plain, Dialect::Unix];
const NEW: &[Dialect] = &[Dialect::Linux, Dialect::Dk];
const NUMERIC: &[Dialect] = &[Dialect::Unix, Dialect::Linux, Dialect::Dk];
const UNIX: &[Dialect] = &[Dialect::Unix];
const DK: &[Dialect] = &[Dialect::Dk];

/// How a file is opened in 9P2000.L: Linux's flags, on every system.
pub mod flags {
    pub const WRONLY: u32 = 0o1;
    pub const RDWR: u32 = 0o2;
    pub const ACCESS: u32 = 0o3;
    pub const CREAT: u32 = 0o100;
    pub const EXCL: u32 = 0o200;
    pub const TRUNC: u32 = 0o1000;
    pub const APPEND: u32 = 0o2000;
    pub const DIRECTORY: u32 = 0o200_000;
    /// Of Tunlinkat: a directory is meant.
    pub const REMOVEDIR: u32 = 0x200;
}

macro_rules! field {
    ($type:ty) => { $type };
    ($type:ty, $only:ident) => { Option<$type> };
}

macro_rules! size {
    ($dialect:ident, $field:ident) => {
        $field.width($dialect)?
    };
    ($dialect:ident, $field:ident, $only:ident) => {
        match $field {
            _ if !$dialect.is_in($only) => 0,
            Some(field) => field.width($dialect)?,
            None => Field::absent_like($field).width($dialect)?,
        }
    };
}

macro_rules! put {
    ($out:ident, $dialect:ident, $field:ident) => {
        $field.put($out, $dialect)
    };
    ($out:ident, $dialect:ident, $field:ident, $only:ident) => {
        match $field {
            _ if !$dialect.is_in($only) => (),
            Some(field) => field.put($out, $dialect),
            None => Field::absent_like($field).put($out, $dialect),
        }
    };
}

macro_rules! get {
    ($from:ident) => {
        $from.get()?
    };
    ($from:ident, $only:ident) => {
        if $from.dialect.is_in($only) {
            Some($from.get()?)
        } else {
            None
        }
    };
}

/// Makes one direction of the table into an enum and its codec. A field with
/// `in SET` is there in those dialects only.
macro_rules! direction {
    ($(#[$doc:meta])* $enum:ident { $(
        $name:ident $word:literal $number:literal $dialects:ident
        { $($field:ident: $type:ty $([$only:ident])?),* }
    )* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $enum {
            $($name { $($field: field!($type $(, $only)?)),* }),*
        }

        impl $enum {
            /// Returns what it is called in logs and counts.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $word),*
                }
            }

            /// Every number there is, and its name.
            pub const TYPES: &[(u8, &str)] = &[$(($number, $word)),*];

            /// Returns its number on the wire.
            pub fn number(&self) -> u8 {
                match self {
                    $(Self::$name { .. } => $number),*
                }
            }

            /// Returns the length of its frame.
            pub fn width(&self, dialect: Dialect) -> Result<usize> {
                Ok(HEADER + match self {
                    $(Self::$name { $($field),* } => {
                        0 $(+ size!(dialect, $field $(, $only)?))*
                    }),*
                })
            }

            /// Puts it behind what is in `out`; after an error nothing was put.
            /// A field the dialect wants and that is `None` is sent as all
            /// ones or empty, one it does not know is left out.
            pub fn encode(&self, tag: u16, dialect: Dialect, out: &mut Output) -> Result<()> {
                let size = self.width(dialect)?;
                let length = u32::try_from(size).map_err(|_| Error::Long)?;
                out.reserve(size);
                length.put(out, dialect);
                match self {
                    $(Self::$name { $($field),* } => {
                        let number: u8 = $number;
                        number.put(out, dialect);
                        tag.put(out, dialect);
                        $(put!(out, dialect, $field $(, $only)?);)*
                    })*
                }
                Ok(())
            }

            /// Takes a whole frame apart, its size and header included.
            pub fn decode(frame: &Bytes, dialect: Dialect) -> Result<(u16, Self)> {
                let (number, tag) = header(frame)?;
                let mut from = Reader::new(frame.slice(HEADER..), dialect);
                let message = match number {
                    $($number if dialect.is_in($dialects) => {
                        Self::$name { $($field: get!(from $(, $only)?)),* }
                    })*
                    _ => return Err(Error::Type(number)),
                };
                from.end()?;
                Ok((tag, message))
            }
        }
    };
}

/// Returns type and tag of a frame, also of one that is no message.
pub fn header(frame: &[u8]) -> Result<(u8, u16)> {
    match frame {
        [_, _, _, _, number, low, high, ..] => Ok((*number, u16::from_le_bytes([*low, *high]))),
        _ => Err(Error::Short),
    }
}

direction! {
    /// What a client asks.
    Request {
        Version "version" 100 ANY { msize: u32, version: Text }
        Auth "auth" 102 ANY { afid: u32, uname: Text, aname: Text, n_uname: u32 [NUMERIC] }
        Attach "attach" 104 ANY {
            fid: u32, afid: u32, uname: Text, aname: Text, n_uname: u32 [NUMERIC]
        }
        Flush "flush" 108 ANY { oldtag: u16 }
        Walk "walk" 110 ANY { fid: u32, newfid: u32, names: Names }
        Open "open" 112 OLD { fid: u32, mode: u8 }
        Create "create" 114 OLD {
            fid: u32, name: Text, perm: u32, mode: u8, extension: Text [UNIX]
        }
        Read "read" 116 ANY { fid: u32, offset: u64, count: u32 }
        Write "write" 118 ANY { fid: u32, offset: u64, data: Data }
        Clunk "clunk" 120 ANY { fid: u32 }
        Remove "remove" 122 ANY { fid: u32 }
        Stat "stat" 124 OLD { fid: u32 }
        Wstat "wstat" 126 OLD { fid: u32, stat: Record }
        Statfs "statfs" 8 NEW { fid: u32 }
        Lopen "lopen" 12 NEW { fid: u32, flags: u32 }
        Lcreate "lcreate" 14 NEW { fid: u32, name: Text, flags: u32, mode: u32, gid: u32 }
        Symlink "symlink" 16 NEW { fid: u32, name: Text, target: Text, gid: u32 }
        Mknod "mknod" 18 NEW {
            dfid: u32, name: Text, mode: u32, major: u32, minor: u32, gid: u32
        }
        Rename "rename" 20 NEW { fid: u32, dfid: u32, name: Text }
        Readlink "readlink" 22 NEW { fid: u32 }
        Getattr "getattr" 24 NEW { fid: u32, mask: GetAttrMask }
        Setattr "setattr" 26 NEW { fid: u32, valid: SetAttrMask, attr: SetAttr }
        Xattrwalk "xattrwalk" 30 NEW { fid: u32, newfid: u32, name: Text }
        Xattrcreate "xattrcreate" 32 NEW { fid: u32, name: Text, size: u64, flags: u32 }
        Readdir "readdir" 40 NEW { fid: u32, offset: u64, count: u32 }
        Fsync "fsync" 50 NEW { fid: u32, datasync: Tail }
        Lock "lock" 52 NEW {
            fid: u32, kind: LockType, flags: LockFlag, start: u64, length: u64,
            proc_id: u32, client_id: Text
        }
        Getlock "getlock" 54 NEW {
            fid: u32, kind: LockType, start: u64, length: u64, proc_id: u32, client_id: Text
        }
        Link "link" 70 NEW { dfid: u32, fid: u32, name: Text }
        Mkdir "mkdir" 72 NEW { dfid: u32, name: Text, mode: u32, gid: u32 }
        Renameat "renameat" 74 NEW { olddir: u32, oldname: Text, newdir: u32, newname: Text }
        Unlinkat "unlinkat" 76 NEW { dfid: u32, name: Text, flags: u32 }
    }
}

direction! {
    /// What a server answers.
    Reply {
        Version "version" 101 ANY { msize: u32, version: Text }
        Auth "auth" 103 ANY { qid: QId }
        Attach "attach" 105 ANY { qid: QId }
        Error "error" 107 OLD { text: Text, errno: u32 [UNIX] }
        Flush "flush" 109 ANY {}
        Walk "walk" 111 ANY { qids: Vec<QId> }
        Open "open" 113 OLD { qid: QId, iounit: u32 }
        Create "create" 115 OLD { qid: QId, iounit: u32 }
        Read "read" 117 ANY { data: Data }
        Write "write" 119 ANY { count: u32 }
        Clunk "clunk" 121 ANY {}
        Remove "remove" 123 ANY {}
        Stat "stat" 125 OLD { stat: Record }
        Wstat "wstat" 127 OLD {}
        Lerror "lerror" 7 NEW { errno: u32, failure: Text [DK] }
        Statfs "statfs" 9 NEW { statfs: StatFs }
        Lopen "lopen" 13 NEW { qid: QId, iounit: u32 }
        Lcreate "lcreate" 15 NEW { qid: QId, iounit: u32 }
        Symlink "symlink" 17 NEW { qid: QId }
        Mknod "mknod" 19 NEW { qid: QId }
        Rename "rename" 21 NEW {}
        Readlink "readlink" 23 NEW { target: Text }
        Getattr "getattr" 25 NEW {
            valid: GetAttrMask, qid: QId, stat: Stat, btime: rs9p::Time, generation: u64,
            data_version: u64
        }
        Setattr "setattr" 27 NEW {}
        Xattrwalk "xattrwalk" 31 NEW { size: u64 }
        Xattrcreate "xattrcreate" 33 NEW {}
        Readdir "readdir" 41 NEW { data: Data }
        Fsync "fsync" 51 NEW {}
        Lock "lock" 53 NEW { status: LockStatus }
        Getlock "getlock" 55 NEW {
            kind: LockType, start: u64, length: u64, proc_id: u32, client_id: Text
        }
        Link "link" 71 NEW {}
        Mkdir "mkdir" 73 NEW { qid: QId }
        Renameat "renameat" 75 NEW {}
        Unlinkat "unlinkat" 77 NEW {}
    }
}

/// A number that older clients leave off the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail(pub Option<u32>);

impl Field for Tail {
    fn width(&self, _: Dialect) -> Result<usize> {
        Ok(self.0.map_or(0, |_| 4))
    }

    fn put(&self, out: &mut Output, dialect: Dialect) {
        if let Some(number) = self.0 {
            number.put(out, dialect);
        }
    }

    fn get(from: &mut Reader) -> Result<Self> {
        match from.remaining() {
            0 => Ok(Self(None)),
            _ => from.get().map(|number| Self(Some(number))),
        }
    }

    fn absent() -> Self {
        Self(None)
    }
}

/// A directory entry of 9P2000 and 9P2000.u, stat(5).
///
/// In a Twstat, all ones and empty strings mean: leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: u16,
    pub dev: u32,
    pub qid: QId,
    pub mode: u32,
    pub atime: u32,
    pub mtime: u32,
    pub length: u64,
    pub name: Text,
    pub uid: Text,
    pub gid: Text,
    pub muid: Text,
    /// From here on 9P2000.u only: the target of a link,
    pub extension: Text,
    /// and the owners as numbers.
    pub n_uid: u32,
    pub n_gid: u32,
    pub n_muid: u32,
}

impl Record {
    /// Returns one that changes nothing.
    pub fn unset() -> Self {
        Self {
            kind: u16::MAX,
            dev: u32::MAX,
            qid: QId::absent(),
            mode: u32::MAX,
            atime: u32::MAX,
            mtime: u32::MAX,
            length: u64::MAX,
            name: Text::default(),
            uid: Text::default(),
            gid: Text::default(),
            muid: Text::default(),
            extension: Text::default(),
            n_uid: u32::MAX,
            n_gid: u32::MAX,
            n_muid: u32::MAX,
        }
    }

    fn content(&self, dialect: Dialect) -> Result<u16> {
        let mut size = 2 + 4 + 13 + 4 + 4 + 4 + 8;
        for text in [&self.name, &self.uid, &self.gid, &self.muid] {
            size += text.width(dialect)?;
        }
        if dialect == Dialect::Unix {
            size += self.extension.width(dialect)? + 12;
        }
        // Both lengths before it are 16 bits, and one counts the other.
        u16::try_from(size + 2).map_err(|_| Error::Long)?;
        Ok(size as u16)
    }

    /// Returns its length in a directory that is read.
    pub fn entry_size(&self, dialect: Dialect) -> Result<usize> {
        Ok(2 + usize::from(self.content(dialect)?))
    }

    /// Writes it as it lies in a directory that is read.
    pub fn put_entry(&self, out: &mut Output, dialect: Dialect) -> Result<()> {
        self.content(dialect)?.put(out, dialect);
        self.kind.put(out, dialect);
        self.dev.put(out, dialect);
        self.qid.put(out, dialect);
        self.mode.put(out, dialect);
        self.atime.put(out, dialect);
        self.mtime.put(out, dialect);
        self.length.put(out, dialect);
        for text in [&self.name, &self.uid, &self.gid, &self.muid] {
            text.put(out, dialect);
        }
        if dialect == Dialect::Unix {
            self.extension.put(out, dialect);
            for owner in [self.n_uid, self.n_gid, self.n_muid] {
                owner.put(out, dialect);
            }
        }
        Ok(())
    }

    /// Takes one from a directory that is read.
    pub fn get_entry(from: &mut Reader) -> Result<Self> {
        let size = from.get::<u16>()?;
        let mut from = Reader::new(from.take(size.into())?, from.dialect);
        let unix = from.dialect == Dialect::Unix;
        let mut record = Self::unset();
        record.kind = from.get()?;
        record.dev = from.get()?;
        record.qid = from.get()?;
        record.mode = from.get()?;
        record.atime = from.get()?;
        record.mtime = from.get()?;
        record.length = from.get()?;
        record.name = from.get()?;
        record.uid = from.get()?;
        record.gid = from.get()?;
        record.muid = from.get()?;
        if unix {
            record.extension = from.get()?;
            record.n_uid = from.get()?;
            record.n_gid = from.get()?;
            record.n_muid = from.get()?;
        }
        from.end()?;
        Ok(record)
    }
}

/// In a message, with one more length before it.
impl Field for Record {
    fn width(&self, dialect: Dialect) -> Result<usize> {
        Ok(2 + self.entry_size(dialect)?)
    }

    fn put(&self, out: &mut Output, dialect: Dialect) {
        if let Ok(content) = self.content(dialect) {
            (content + 2).put(out, dialect);
            // Its size was asked before.
            let _ = self.put_entry(out, dialect);
        }
    }

    fn get(from: &mut Reader) -> Result<Self> {
        let size = from.get::<u16>()?;
        let mut from = Reader::new(from.take(size.into())?, from.dialect);
        let record = Self::get_entry(&mut from)?;
        from.end()?;
        Ok(record)
    }

    fn absent() -> Self {
        Self::unset()
    }
}

/// A directory entry of 9P2000.L, as an Rreaddir is full of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub qid: QId,
    /// Where reading goes on behind this entry.
    pub offset: u64,
    /// As `d_type` of readdir(3).
    pub kind: u8,
    pub name: Text,
}

impl Entry {
    /// `d_type` of a directory, a file and a link.
    pub const DIR: u8 = 4;
    pub const FILE: u8 = 8;
    pub const LINK: u8 = 10;

    /// Returns the length of an entry with a name of this length.
    pub fn size(name: usize) -> usize {
        13 + 8 + 1 + 2 + name
    }

    /// Takes the content of an Rreaddir apart.
    pub fn list(data: &Data) -> Result<Vec<Self>> {
        let mut from = Reader::new(data.0.clone(), Dialect::Linux);
        let mut entries = Vec::new();
        while from.remaining() > 0 {
            entries.push(Self {
                qid: from.get()?,
                offset: from.get()?,
                kind: from.get()?,
                name: from.get()?,
            });
        }
        Ok(entries)
    }

    /// Writes it behind others; the name is at most 65,535 bytes.
    pub fn put(&self, out: &mut Output) {
        let dialect = Dialect::Linux;
        self.qid.put(out, dialect);
        self.offset.put(out, dialect);
        self.kind.put(out, dialect);
        self.name.put(out, dialect);
    }
}
