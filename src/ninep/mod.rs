//! 9P2000, 9P2000.u and 9P2000.L on the wire, both ends of it.
//!
//! The vocabulary is that of the crate `rs9p`: qids, attribute masks, stat and
//! statfs structures, Linux's error texts. The codec ([`wire`], [`message`])
//! and the server's loop are ours: its codec lacks two of the dialects and
//! trusts lengths, and its loop lets one blocked read stop a connection.
//!
//! This file is the one table of failures: a [`Kind`], Linux's number for it
//! (the same on every system: they travel), and the text old clients know.

use rs9p::errstr;

use crate::model::Kind;

pub mod client;
pub mod message;
pub mod server;
pub mod transport;
pub mod wire;

/// Error numbers as Linux numbers them, whatever this system does.
pub mod errno {
    pub const EPERM: u32 = 1;
    pub const ENOENT: u32 = 2;
    pub const EINTR: u32 = 4;
    pub const EIO: u32 = 5;
    pub const EBADF: u32 = 9;
    pub const EAGAIN: u32 = 11;
    pub const ENOMEM: u32 = 12;
    pub const EACCES: u32 = 13;
    pub const EBUSY: u32 = 16;
    pub const EEXIST: u32 = 17;
    pub const EXDEV: u32 = 18;
    pub const ENOTDIR: u32 = 20;
    pub const EISDIR: u32 = 21;
    pub const EINVAL: u32 = 22;
    pub const ENFILE: u32 = 23;
    pub const EMFILE: u32 = 24;
    pub const EFBIG: u32 = 27;
    pub const ENOSPC: u32 = 28;
    pub const ESPIPE: u32 = 29;
    pub const EROFS: u32 = 30;
    pub const ERANGE: u32 = 34;
    pub const ENAMETOOLONG: u32 = 36;
    pub const ENOSYS: u32 = 38;
    pub const ENOTEMPTY: u32 = 39;
    pub const ELOOP: u32 = 40;
    pub const ENODATA: u32 = 61;
    pub const EPROTO: u32 = 71;
    pub const ENOTUNIQ: u32 = 76;
    pub const EMSGSIZE: u32 = 90;
    pub const EOPNOTSUPP: u32 = 95;
    pub const ENOBUFS: u32 = 105;
    pub const ETIMEDOUT: u32 = 110;
    pub const ESTALE: u32 = 116;
    pub const EUCLEAN: u32 = 117;
    pub const EDQUOT: u32 = 122;
    pub const ECANCELED: u32 = 125;
}

use errno::*;

/// Every kind with its number and its text. A text that clients of the
/// ancestor compare wins; the others are Linux's.
const KINDS: &[(Kind, u32, &str)] = &[
    (Kind::NotFound, ENOENT, errstr::ENOENT),
    (Kind::Exists, EEXIST, "Already exists"),
    (Kind::IsDirectory, EISDIR, errstr::EISDIR),
    (Kind::NotDirectory, ENOTDIR, errstr::ENOTDIR),
    (Kind::NotEmpty, ENOTEMPTY, errstr::ENOTEMPTY),
    (Kind::Invalid, EINVAL, errstr::EINVAL),
    (Kind::Ambiguous, ENOTUNIQ, "Name not unique on network"),
    (Kind::Conflict, ECANCELED, "Operation canceled"),
    (Kind::HeadMoved, ESTALE, "Stale file handle"),
    (Kind::ReadOnly, EROFS, errstr::EROFS),
    (Kind::Denied, EPERM, errstr::EPERM),
    (Kind::Busy, EBUSY, errstr::EBUSY),
    (Kind::Corrupt, EUCLEAN, "Structure needs cleaning"),
    (Kind::NoSpace, ENOSPC, errstr::ENOSPC),
    (Kind::Unsupported, EOPNOTSUPP, errstr::EOPNOTSUPP),
    (Kind::Interrupted, EINTR, errstr::EINTR),
    (Kind::Overrun, ENOBUFS, errstr::ENOBUFS),
    (Kind::Io, EIO, errstr::EIO),
];

/// Numbers and texts that are no kind's own, and the kind they come closest to.
const OTHERS: &[(Kind, u32, &str)] = &[
    (Kind::Exists, EEXIST, errstr::EEXIST),
    (Kind::NotDirectory, ENOTDIR, "Is not a directory"),
    (Kind::NotDirectory, ENOTDIR, "Can't walk from a file"),
    (Kind::ReadOnly, EROFS, "Read-only file"),
    (Kind::ReadOnly, EROFS, "Directory is read-only"),
    (Kind::Denied, EACCES, errstr::EACCES),
    (Kind::NoSpace, EDQUOT, errstr::EDQUOT),
    (Kind::NoSpace, EMFILE, errstr::EMFILE),
    (Kind::NoSpace, ENFILE, errstr::ENFILE),
    (Kind::NoSpace, ENOMEM, errstr::ENOMEM),
    (Kind::NoSpace, EFBIG, errstr::EFBIG),
    (Kind::Unsupported, ENOSYS, errstr::ENOSYS),
    (Kind::Unsupported, EXDEV, errstr::EXDEV),
    (Kind::NotFound, ENODATA, errstr::ENODATA),
    (Kind::Invalid, EBADF, errstr::EBADF),
    (Kind::Invalid, ESPIPE, errstr::ESPIPE),
    (Kind::Invalid, ERANGE, errstr::ERANGE),
    (Kind::Invalid, ENAMETOOLONG, errstr::ENAMETOOLONG),
    (Kind::Invalid, ELOOP, errstr::ELOOP),
    (Kind::Invalid, EMSGSIZE, errstr::EMSGSIZE),
    (Kind::Busy, EAGAIN, errstr::EAGAIN),
    (Kind::Interrupted, ETIMEDOUT, errstr::ETIMEDOUT),
    (Kind::Io, EPROTO, errstr::EPROTO),
];

/// Returns the number that stands for a kind.
pub fn number(kind: Kind) -> u32 {
    find(KINDS, |(known, ..)| *known == kind).map_or(EIO, |(_, number, _)| *number)
}

/// Returns the text that stands for a kind where nothing better is known.
pub fn text(kind: Kind) -> &'static str {
    find(KINDS, |(known, ..)| *known == kind).map_or(errstr::EIO, |(.., text)| text)
}

/// Returns the kind that a number stands for, or comes closest to.
pub fn kind(number: u32) -> Kind {
    let same = |(_, known, _): &(_, u32, _)| *known == number;
    find(KINDS, same)
        .or_else(|| find(OTHERS, same))
        .map_or(Kind::Io, |(kind, ..)| *kind)
}

/// Returns the number of an error that is known by its text.
pub fn number_of(text: &[u8]) -> Option<u32> {
    let same = |(.., known): &(_, _, &str)| known.as_bytes() == text;
    find(KINDS, same)
        .or_else(|| find(OTHERS, same))
        .map(|(_, number, _)| *number)
}

/// Returns the kind of an error that is known by its text.
pub fn kind_of(text: &[u8]) -> Option<Kind> {
    let same = |(.., known): &(_, _, &str)| known.as_bytes() == text;
    find(KINDS, same)
        .or_else(|| find(OTHERS, same))
        .map(|(kind, ..)| *kind)
}

type Line = (Kind, u32, &'static str);

fn find(table: &'static [Line], wanted: impl Fn(&Line) -> bool) -> Option<&'static Line> {
    table.iter().find(|line| wanted(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_number_and_a_text_of_its_own() {
        for (index, (known, number, words)) in KINDS.iter().enumerate() {
            assert_eq!(super::number(*known), *number);
            assert_eq!(text(*known), *words);
            assert_eq!(kind(*number), *known);
            assert_eq!(kind_of(words.as_bytes()), Some(*known));
            for other in &KINDS[..index] {
                assert!(other.0 != *known && other.1 != *number && other.2 != *words);
            }
        }
    }

    #[test]
    fn strangers_come_closest() {
        assert_eq!(kind(EACCES), Kind::Denied);
        assert_eq!(kind(9999), Kind::Io);
        assert_eq!(number_of(b"Can't walk from a file"), Some(ENOTDIR));
        assert_eq!(kind_of(b"File exists"), Some(Kind::Exists));
        assert_eq!(number_of(b"what is this"), None);
    }
}
