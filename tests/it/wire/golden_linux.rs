//! Frames of 9P2000.L's own messages, written by hand like the others.

use bytes::Bytes;
use datakit::ninep::message::{Reply, Request, Tail};
use datakit::ninep::wire::{Data, Text};
use rs9p::{GetAttrMask, LockFlag, LockStatus, LockType, SetAttr, SetAttrMask, Stat, StatFs, Time};

use super::golden::{NEW, QID, answered, asked, qid};

#[test]
fn files_of_9p2000_l() {
    let flags = 0x8242;
    asked(
        NEW,
        "_ 0c 0102 01000000 42820000",
        Request::Lopen { fid: 1, flags },
    );
    let opened = |number| format!("_ {number} 0102 {QID} 00100000");
    answered(
        NEW,
        &opened("0d"),
        Reply::Lopen {
            qid: qid(),
            iounit: 4096,
        },
    );
    let name = || Text::from("f");
    let (mode, gid) = (0o644, 5);
    let lcreate = Request::Lcreate {
        fid: 1,
        name: name(),
        flags,
        mode,
        gid,
    };
    asked(
        NEW,
        "_ 0e 0102 01000000 0100 66 42820000 a4010000 05000000",
        lcreate,
    );
    answered(
        NEW,
        &opened("0f"),
        Reply::Lcreate {
            qid: qid(),
            iounit: 4096,
        },
    );
    let target = "to".into();
    let symlink = Request::Symlink {
        fid: 1,
        name: name(),
        target,
        gid,
    };
    asked(
        NEW,
        "_ 10 0102 01000000 0100 66 0200 746f 05000000",
        symlink,
    );
    let made = |number| format!("_ {number} 0102 {QID}");
    answered(NEW, &made("11"), Reply::Symlink { qid: qid() });
    let mknod = Request::Mknod {
        dfid: 1,
        name: name(),
        mode,
        major: 2,
        minor: 3,
        gid,
    };
    asked(
        NEW,
        "_ 12 0102 01000000 0100 66 a4010000 02000000 03000000 05000000",
        mknod,
    );
    answered(NEW, &made("13"), Reply::Mknod { qid: qid() });
    let mkdir = Request::Mkdir {
        dfid: 1,
        name: name(),
        mode,
        gid,
    };
    asked(NEW, "_ 48 0102 01000000 0100 66 a4010000 05000000", mkdir);
    answered(NEW, &made("49"), Reply::Mkdir { qid: qid() });

    let rename = Request::Rename {
        fid: 1,
        dfid: 2,
        name: name(),
    };
    asked(NEW, "_ 14 0102 01000000 02000000 0100 66", rename);
    answered(NEW, "_ 15 0102", Reply::Rename {});
    let renameat = Request::Renameat {
        olddir: 1,
        oldname: name(),
        newdir: 2,
        newname: "g".into(),
    };
    asked(NEW, "_ 4a 0102 01000000 0100 66 02000000 0100 67", renameat);
    answered(NEW, "_ 4b 0102", Reply::Renameat {});
    let unlinkat = Request::Unlinkat {
        dfid: 1,
        name: name(),
        flags: 0x200,
    };
    asked(NEW, "_ 4c 0102 01000000 0100 66 00020000", unlinkat);
    answered(NEW, "_ 4d 0102", Reply::Unlinkat {});
    let link = Request::Link {
        dfid: 1,
        fid: 2,
        name: name(),
    };
    asked(NEW, "_ 46 0102 01000000 02000000 0100 66", link);
    answered(NEW, "_ 47 0102", Reply::Link {});

    asked(NEW, "_ 16 0102 01000000", Request::Readlink { fid: 1 });
    answered(
        NEW,
        "_ 17 0102 0200 746f",
        Reply::Readlink {
            target: "to".into(),
        },
    );
    let readdir = Request::Readdir {
        fid: 1,
        offset: 2,
        count: 3,
    };
    asked(NEW, "_ 28 0102 01000000 0200000000000000 03000000", readdir);
    let data = Data(Bytes::from_static(b"abc"));
    answered(NEW, "_ 29 0102 03000000 616263", Reply::Readdir { data });
    asked(
        NEW,
        "_ 32 0102 01000000",
        Request::Fsync {
            fid: 1,
            datasync: Tail(None),
        },
    );
    let datasync = Tail(Some(1));
    asked(
        NEW,
        "_ 32 0102 01000000 01000000",
        Request::Fsync { fid: 1, datasync },
    );
    answered(NEW, "_ 33 0102", Reply::Fsync {});
}

#[test]
fn attributes_of_9p2000_l() {
    let time = |at: u64| Time {
        sec: at,
        nsec: at + 1,
    };
    let long = |at: u8| format!("{at:02x}00000000000000");
    let times = |at: u8| format!("{} {}", long(at), long(at + 1));
    asked(NEW, "_ 08 0102 01000000", Request::Statfs { fid: 1 });
    let statfs = StatFs {
        typ: 1,
        bsize: 2,
        blocks: 3,
        bfree: 4,
        bavail: 5,
        files: 6,
        ffree: 7,
        fsid: 8,
        namelen: 9,
    };
    let longs: String = (3..9).map(long).collect();
    let text = format!("_ 09 0102 01000000 02000000 {longs} 09000000");
    answered(NEW, &text, Reply::Statfs { statfs });

    let mask = GetAttrMask::BASIC;
    let getattr = "_ 18 0102 01000000 ff07000000000000";
    asked(NEW, getattr, Request::Getattr { fid: 1, mask });
    let text = format!(
        "_ 19 0102 ff07000000000000 {QID} 01000000 02000000 03000000 {} {} {} {}",
        (4..9).map(long).collect::<String>(),
        [10, 12, 14].map(times).concat(),
        times(16),
        long(18) + &long(19),
    );
    let getattr = Reply::Getattr {
        valid: mask,
        qid: qid(),
        stat: Stat {
            mode: 1,
            uid: 2,
            gid: 3,
            nlink: 4,
            rdev: 5,
            size: 6,
            blksize: 7,
            blocks: 8,
            atime: time(10),
            mtime: time(12),
            ctime: time(14),
        },
        btime: time(16),
        generation: 18,
        data_version: 19,
    };
    answered(NEW, &text, getattr);

    let attr = SetAttr {
        mode: 1,
        uid: 2,
        gid: 3,
        size: 4,
        atime: time(5),
        mtime: time(7),
    };
    let text = format!(
        "_ 1a 0102 09000000 29000000 01000000 02000000 03000000 {} {} {}",
        long(4),
        times(5),
        times(7)
    );
    let valid = SetAttrMask::MODE | SetAttrMask::SIZE | SetAttrMask::MTIME;
    asked(
        NEW,
        &text,
        Request::Setattr {
            fid: 9,
            valid,
            attr,
        },
    );
    answered(NEW, "_ 1b 0102", Reply::Setattr {});

    let name = || Text::from("x");
    let walk = Request::Xattrwalk {
        fid: 1,
        newfid: 2,
        name: name(),
    };
    asked(NEW, "_ 1e 0102 01000000 02000000 0100 78", walk);
    answered(
        NEW,
        &format!("_ 1f 0102 {}", long(7)),
        Reply::Xattrwalk { size: 7 },
    );
    let create = Request::Xattrcreate {
        fid: 1,
        name: name(),
        size: 7,
        flags: 2,
    };
    let text = format!("_ 20 0102 01000000 0100 78 {} 02000000", long(7));
    asked(NEW, &text, create);
    answered(NEW, "_ 21 0102", Reply::Xattrcreate {});

    let lock = Request::Lock {
        fid: 1,
        kind: LockType::WRLOCK,
        flags: LockFlag::BLOCK,
        start: 2,
        length: 3,
        proc_id: 4,
        client_id: name(),
    };
    let text = format!(
        "_ 34 0102 01000000 01 01000000 {}{} 04000000 0100 78",
        long(2),
        long(3)
    );
    asked(NEW, &text, lock);
    let status = LockStatus::BLOCKED;
    answered(NEW, "_ 35 0102 01", Reply::Lock { status });
    let range = format!("{}{} 04000000 0100 78", long(2), long(3));
    let getlock = Request::Getlock {
        fid: 1,
        kind: LockType::RDLOCK,
        start: 2,
        length: 3,
        proc_id: 4,
        client_id: name(),
    };
    asked(NEW, &format!("_ 36 0102 01000000 00 {range}"), getlock);
    let getlock = Reply::Getlock {
        kind: LockType::UNLOCK,
        start: 2,
        length: 3,
        proc_id: 4,
        client_id: name(),
    };
    answered(NEW, &format!("_ 37 0102 02 {range}"), getlock);
}
