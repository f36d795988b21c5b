//! Any message there is, made from a seed.
//!
//! `DK_FUZZ_SECONDS` says for how long random tests run (5 s otherwise),
//! `DK_FUZZ_SEED` where they begin.

use std::time::Duration;

use bytes::Bytes;
use datakit::ninep::message::{Dialect, Record, Reply, Request, Tail};
use datakit::ninep::wire::{Data, Names, Text};
use rs9p::{
    GetAttrMask, LockFlag, LockStatus, LockType, QId, QIdType, SetAttr, SetAttrMask, Stat, StatFs,
    Time,
};

/// Numbers that look random and are the same for a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn long(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.long() % limit as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.below(some.len())]
    }

    fn int(&mut self) -> u32 {
        match self.below(4) {
            0 => 0,
            1 => u32::MAX,
            _ => self.long() as u32,
        }
    }

    fn bytes(&mut self, limit: usize) -> Vec<u8> {
        let length = self.below(limit);
        (0..length).map(|_| self.long() as u8).collect()
    }

    fn text(&mut self) -> Text {
        let limit = *self.pick(&[1, 10, 300]);
        self.bytes(limit).into()
    }

    fn data(&mut self) -> Data {
        let limit = *self.pick(&[1, 10, 10_000]);
        Data(Bytes::from(self.bytes(limit)))
    }

    fn qid(&mut self) -> QId {
        QId {
            typ: QIdType::from_bits_retain(self.long() as u8),
            version: self.int(),
            path: self.long(),
        }
    }

    fn time(&mut self) -> Time {
        Time {
            sec: self.long(),
            nsec: self.long(),
        }
    }

    fn kind(&mut self) -> LockType {
        LockType::from_bits_retain(self.long() as u8)
    }

    fn record(&mut self, dialect: Dialect) -> Record {
        let unix = dialect == Dialect::Unix;
        Record {
            kind: self.long() as u16,
            dev: self.int(),
            qid: self.qid(),
            mode: self.int(),
            atime: self.int(),
            mtime: self.int(),
            length: self.long(),
            name: self.text(),
            uid: self.text(),
            gid: self.text(),
            muid: self.text(),
            extension: if unix { self.text() } else { Text::default() },
            n_uid: if unix { self.int() } else { u32::MAX },
            n_gid: if unix { self.int() } else { u32::MAX },
            n_muid: if unix { self.int() } else { u32::MAX },
        }
    }

    /// Returns a request that the dialect has.
    pub fn request(&mut self, dialect: Dialect) -> Request {
        let n_uname = (dialect != Dialect::Plain).then(|| self.int());
        let extension = (dialect == Dialect::Unix).then(|| self.text());
        let (fid, newfid, offset, count) = (self.int(), self.int(), self.long(), self.int());
        let (name, flags, mode, gid) = (self.text(), self.int(), self.int(), self.int());
        let common = [100, 102, 104, 108, 110, 116, 118, 120, 122];
        let old = [112, 114, 124, 126];
        let new = [
            8, 12, 14, 16, 18, 20, 22, 24, 26, 30, 32, 40, 50, 52, 54, 70, 72, 74, 76,
        ];
        let own: &[u8] = if dialect.is_linux() { &new } else { &old };
        match *self.pick(&[&common[..], own].concat()) {
            100 => Request::Version {
                msize: count,
                version: name,
            },
            102 => Request::Auth {
                afid: fid,
                uname: name,
                aname: self.text(),
                n_uname,
            },
            104 => Request::Attach {
                fid,
                afid: newfid,
                uname: name,
                aname: self.text(),
                n_uname,
            },
            108 => Request::Flush { oldtag: fid as u16 },
            110 => {
                let names: Names = (0..self.below(20)).map(|_| self.text().to_vec()).collect();
                Request::Walk { fid, newfid, names }
            }
            112 => Request::Open {
                fid,
                mode: mode as u8,
            },
            114 => Request::Create {
                fid,
                name,
                perm: flags,
                mode: mode as u8,
                extension,
            },
            116 => Request::Read { fid, offset, count },
            118 => Request::Write {
                fid,
                offset,
                data: self.data(),
            },
            120 => Request::Clunk { fid },
            122 => Request::Remove { fid },
            124 => Request::Stat { fid },
            126 => Request::Wstat {
                fid,
                stat: self.record(dialect),
            },
            8 => Request::Statfs { fid },
            12 => Request::Lopen { fid, flags },
            14 => Request::Lcreate {
                fid,
                name,
                flags,
                mode,
                gid,
            },
            16 => Request::Symlink {
                fid,
                name,
                target: self.text(),
                gid,
            },
            18 => Request::Mknod {
                dfid: fid,
                name,
                mode,
                major: count,
                minor: flags,
                gid,
            },
            20 => Request::Rename {
                fid,
                dfid: newfid,
                name,
            },
            22 => Request::Readlink { fid },
            24 => Request::Getattr {
                fid,
                mask: GetAttrMask::from_bits_retain(offset),
            },
            26 => Request::Setattr {
                fid,
                valid: SetAttrMask::from_bits_retain(flags),
                attr: SetAttr {
                    mode,
                    uid: count,
                    gid,
                    size: offset,
                    atime: self.time(),
                    mtime: self.time(),
                },
            },
            30 => Request::Xattrwalk { fid, newfid, name },
            32 => Request::Xattrcreate {
                fid,
                name,
                size: offset,
                flags,
            },
            40 => Request::Readdir { fid, offset, count },
            50 => Request::Fsync {
                fid,
                datasync: Tail((flags % 2 == 0).then_some(mode)),
            },
            52 => Request::Lock {
                fid,
                kind: self.kind(),
                flags: LockFlag::from_bits_retain(flags),
                start: offset,
                length: self.long(),
                proc_id: count,
                client_id: name,
            },
            54 => Request::Getlock {
                fid,
                kind: self.kind(),
                start: offset,
                length: self.long(),
                proc_id: count,
                client_id: name,
            },
            70 => Request::Link {
                dfid: newfid,
                fid,
                name,
            },
            72 => Request::Mkdir {
                dfid: fid,
                name,
                mode,
                gid,
            },
            74 => Request::Renameat {
                olddir: fid,
                oldname: name,
                newdir: newfid,
                newname: self.text(),
            },
            _ => Request::Unlinkat {
                dfid: fid,
                name,
                flags,
            },
        }
    }

    /// Returns a reply that the dialect has.
    pub fn reply(&mut self, dialect: Dialect) -> Reply {
        let errno = self.int();
        let (qid, iounit, long) = (self.qid(), self.int(), self.long());
        let common = [101, 103, 105, 109, 111, 117, 119, 121, 123];
        let old = [107, 113, 115, 125, 127];
        let new = [
            7, 9, 13, 15, 17, 19, 21, 23, 25, 27, 31, 33, 41, 51, 53, 55, 71, 73, 75, 77,
        ];
        let own: &[u8] = if dialect.is_linux() { &new } else { &old };
        match *self.pick(&[&common[..], own].concat()) {
            101 => Reply::Version {
                msize: iounit,
                version: self.text(),
            },
            103 => Reply::Auth { qid },
            105 => Reply::Attach { qid },
            107 => Reply::Error {
                text: self.text(),
                errno: (dialect == Dialect::Unix).then_some(errno),
            },
            109 => Reply::Flush {},
            111 => Reply::Walk {
                qids: (0..self.below(20)).map(|_| self.qid()).collect(),
            },
            113 => Reply::Open { qid, iounit },
            115 => Reply::Create { qid, iounit },
            117 => Reply::Read { data: self.data() },
            119 => Reply::Write { count: iounit },
            121 => Reply::Clunk {},
            123 => Reply::Remove {},
            125 => Reply::Stat {
                stat: self.record(dialect),
            },
            127 => Reply::Wstat {},
            7 => Reply::Lerror {
                errno,
                failure: (dialect == Dialect::Dk).then(|| self.text()),
            },
            9 => Reply::Statfs {
                statfs: StatFs {
                    typ: errno,
                    bsize: iounit,
                    blocks: long,
                    bfree: self.long(),
                    bavail: self.long(),
                    files: self.long(),
                    ffree: self.long(),
                    fsid: self.long(),
                    namelen: self.int(),
                },
            },
            13 => Reply::Lopen { qid, iounit },
            15 => Reply::Lcreate { qid, iounit },
            17 => Reply::Symlink { qid },
            19 => Reply::Mknod { qid },
            21 => Reply::Rename {},
            23 => Reply::Readlink {
                target: self.text(),
            },
            25 => Reply::Getattr {
                valid: GetAttrMask::from_bits_retain(long),
                qid,
                stat: Stat {
                    mode: self.int(),
                    uid: self.int(),
                    gid: self.int(),
                    nlink: self.long(),
                    rdev: self.long(),
                    size: self.long(),
                    blksize: self.long(),
                    blocks: self.long(),
                    atime: self.time(),
                    mtime: self.time(),
                    ctime: self.time(),
                },
                btime: self.time(),
                generation: self.long(),
                data_version: self.long(),
            },
            27 => Reply::Setattr {},
            31 => Reply::Xattrwalk { size: long },
            33 => Reply::Xattrcreate {},
            41 => Reply::Readdir { data: self.data() },
            51 => Reply::Fsync {},
            53 => Reply::Lock {
                status: LockStatus::from_bits_retain(long as u8),
            },
            55 => Reply::Getlock {
                kind: self.kind(),
                start: long,
                length: self.long(),
                proc_id: iounit,
                client_id: self.text(),
            },
            71 => Reply::Link {},
            73 => Reply::Mkdir { qid },
            75 => Reply::Renameat {},
            _ => Reply::Unlinkat {},
        }
    }
}

/// For how long random tests run.
pub fn duration() -> Duration {
    let seconds = std::env::var("DK_FUZZ_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("DK_FUZZ_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(5))
}

/// Where random tests begin.
pub fn seed() -> u64 {
    let seed = std::env::var("DK_FUZZ_SEED").ok();
    seed.map_or(1, |text| text.parse().expect("DK_FUZZ_SEED is a number"))
}
