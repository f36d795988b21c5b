//! Frames written by hand from the manuals: stat(5) and its companions for
//! 9P2000, the 9P2000.u RFC, and diod's protocol.md with Linux's client for
//! 9P2000.L. In the hexadecimal text `_` stands for the frame's size.

use bytes::{Buf as _, Bytes};
use datakit::ninep::message::{Dialect, Record, Reply, Request, Tail};
use datakit::ninep::wire::{Data, Error, Output, Text};
use rs9p::{
    GetAttrMask, LockFlag, LockStatus, LockType, QId, QIdType, SetAttr, SetAttrMask, Stat, StatFs,
    Time,
};

const OLD: &[Dialect] = &[Dialect::Plain, Dialect::Unix];
const NEW: &[Dialect] = &[Dialect::Linux, Dialect::Dk];
const ANY: &[Dialect] = &Dialect::ALL;
const PLAIN: &[Dialect] = &[Dialect::Plain];
const UNIX: &[Dialect] = &[Dialect::Unix];
const LINUX: &[Dialect] = &[Dialect::Linux];
const DK: &[Dialect] = &[Dialect::Dk];
const NUMERIC: &[Dialect] = &[Dialect::Unix, Dialect::Linux, Dialect::Dk];

fn frame(text: &str) -> Bytes {
    let digits: String = text.replace('_', "00000000").replace(' ', "");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect(text);
    let mut frame: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let size = (frame.len() as u32).to_le_bytes();
    frame[..4].copy_from_slice(&size);
    frame.into()
}

fn bytes(mut out: Output) -> Bytes {
    let length = out.len();
    out.copy_to_bytes(length)
}

fn asked(dialects: &[Dialect], text: &str, message: Request) {
    for dialect in Dialect::ALL {
        let decoded = Request::decode(&frame(text), dialect);
        if !dialects.contains(&dialect) {
            assert_ne!(
                decoded,
                Ok((0x201, message.clone())),
                "{text} in {dialect:?}"
            );
            continue;
        }
        let mut out = Output::default();
        message.encode(0x201, dialect, &mut out).unwrap();
        assert_eq!(message.width(dialect), Ok(out.len()));
        assert_eq!(bytes(out), frame(text), "{message:?} in {dialect:?}");
        assert_eq!(
            decoded,
            Ok((0x201, message.clone())),
            "{text} in {dialect:?}"
        );
        shortened(&frame(text), |cut| Request::decode(&cut, dialect).err());
    }
}

fn answered(dialects: &[Dialect], text: &str, message: Reply) {
    for dialect in Dialect::ALL {
        let decoded = Reply::decode(&frame(text), dialect);
        if !dialects.contains(&dialect) {
            assert_ne!(
                decoded,
                Ok((0x201, message.clone())),
                "{text} in {dialect:?}"
            );
            continue;
        }
        let mut out = Output::default();
        message.encode(0x201, dialect, &mut out).unwrap();
        assert_eq!(message.width(dialect), Ok(out.len()));
        assert_eq!(bytes(out), frame(text), "{message:?} in {dialect:?}");
        assert_eq!(
            decoded,
            Ok((0x201, message.clone())),
            "{text} in {dialect:?}"
        );
        shortened(&frame(text), |cut| Reply::decode(&cut, dialect).err());
    }
}

/// A byte less, or one more, is another message or none.
fn shortened(frame: &Bytes, decode: impl Fn(Bytes) -> Option<Error>) {
    for length in 0..frame.len() {
        let cut = frame.slice(..length);
        // An Rerror of 9P2000 and a Tfsync exist in two lengths.
        let known = matches!(frame[4], 50) && length == frame.len() - 4;
        assert!(known || decode(cut).is_some(), "{frame:?} cut at {length}");
    }
    let more = [&frame[..], &[0]].concat();
    assert!(decode(more.into()).is_some(), "{frame:?} and a byte");
}

fn qid() -> QId {
    QId {
        typ: QIdType::DIR,
        version: 0x0403_0201,
        path: 0x0c0b_0a09_0807_0605,
    }
}

const QID: &str = "80 01020304 05060708090a0b0c";

#[test]
fn sessions() {
    let version = || Text::from("9P2000");
    let (msize, v) = (0x2000, "_ 64 0102 00200000 0600 395032303030");
    asked(
        ANY,
        v,
        Request::Version {
            msize,
            version: version(),
        },
    );
    let v = v.replace("64 0102", "65 0102");
    answered(
        ANY,
        &v,
        Reply::Version {
            msize,
            version: version(),
        },
    );

    let auth = |n_uname| Request::Auth {
        afid: 9,
        uname: "me".into(),
        aname: "/a".into(),
        n_uname,
    };
    let plain = "_ 66 0102 09000000 0200 6d65 0200 2f61";
    asked(PLAIN, plain, auth(None));
    asked(NUMERIC, &format!("{plain} e8030000"), auth(Some(1000)));
    answered(ANY, &format!("_ 67 0102 {QID}"), Reply::Auth { qid: qid() });

    let attach = |n_uname| Request::Attach {
        fid: 1,
        afid: u32::MAX,
        uname: "me".into(),
        aname: "".into(),
        n_uname,
    };
    let plain = "_ 68 0102 01000000 ffffffff 0200 6d65 0000";
    asked(PLAIN, plain, attach(None));
    asked(
        NUMERIC,
        &format!("{plain} ffffffff"),
        attach(Some(u32::MAX)),
    );
    answered(
        ANY,
        &format!("_ 69 0102 {QID}"),
        Reply::Attach { qid: qid() },
    );

    asked(ANY, "_ 6c 0102 3412", Request::Flush { oldtag: 0x1234 });
    answered(ANY, "_ 6d 0102", Reply::Flush {});

    let text = || Text::from("no");
    answered(
        PLAIN,
        "_ 6b 0102 0200 6e6f",
        Reply::Error {
            text: text(),
            errno: None,
        },
    );
    let errno = Some(2);
    answered(
        UNIX,
        "_ 6b 0102 0200 6e6f 02000000",
        Reply::Error {
            text: text(),
            errno,
        },
    );
    answered(
        LINUX,
        "_ 07 0102 02000000",
        Reply::Lerror {
            errno: 2,
            failure: None,
        },
    );
    let failure = Some("{}".into());
    answered(
        DK,
        "_ 07 0102 02000000 0200 7b7d",
        Reply::Lerror { errno: 2, failure },
    );
}

#[test]
fn walking_reading_and_writing() {
    let names = ["usr", "", "b"].into_iter().collect();
    let walk = "_ 6e 0102 01000000 02000000 0300 0300 757372 0000 0100 62";
    asked(
        ANY,
        walk,
        Request::Walk {
            fid: 1,
            newfid: 2,
            names,
        },
    );
    let names = Default::default();
    let clone = "_ 6e 0102 01000000 02000000 0000";
    asked(
        ANY,
        clone,
        Request::Walk {
            fid: 1,
            newfid: 2,
            names,
        },
    );
    answered(ANY, "_ 6f 0102 0000", Reply::Walk { qids: vec![] });
    let two = format!("_ 6f 0102 0200 {QID} {QID}");
    answered(
        ANY,
        &two,
        Reply::Walk {
            qids: vec![qid(); 2],
        },
    );

    let read = "_ 74 0102 01000000 0200000000000000 03000000";
    asked(
        ANY,
        read,
        Request::Read {
            fid: 1,
            offset: 2,
            count: 3,
        },
    );
    let data = || Data(Bytes::from_static(b"abc"));
    answered(
        ANY,
        "_ 75 0102 03000000 616263",
        Reply::Read { data: data() },
    );
    let write = "_ 76 0102 01000000 0200000000000000 03000000 616263";
    asked(
        ANY,
        write,
        Request::Write {
            fid: 1,
            offset: 2,
            data: data(),
        },
    );
    answered(ANY, "_ 77 0102 03000000", Reply::Write { count: 3 });
    asked(ANY, "_ 78 0102 01000000", Request::Clunk { fid: 1 });
    answered(ANY, "_ 79 0102", Reply::Clunk {});
    asked(ANY, "_ 7a 0102 01000000", Request::Remove { fid: 1 });
    answered(ANY, "_ 7b 0102", Reply::Remove {});
}

#[test]
fn files_of_9p2000() {
    asked(
        OLD,
        "_ 70 0102 01000000 12",
        Request::Open { fid: 1, mode: 0x12 },
    );
    let opened = |number| format!("_ {number} 0102 {QID} 00100000");
    answered(
        OLD,
        &opened("71"),
        Reply::Open {
            qid: qid(),
            iounit: 4096,
        },
    );
    let create = |extension| Request::Create {
        fid: 1,
        name: "f".into(),
        perm: 0o644,
        mode: 1,
        extension,
    };
    let plain = "_ 72 0102 01000000 0100 66 a4010000 01";
    asked(PLAIN, plain, create(None));
    asked(UNIX, &format!("{plain} 0100 74"), create(Some("t".into())));
    answered(
        OLD,
        &opened("73"),
        Reply::Create {
            qid: qid(),
            iounit: 4096,
        },
    );
    asked(OLD, "_ 7c 0102 01000000", Request::Stat { fid: 1 });
    answered(OLD, "_ 7f 0102", Reply::Wstat {});

    let record = |unix: bool| Record {
        kind: 1,
        dev: 2,
        qid: qid(),
        mode: 0x8000_01ed,
        atime: 3,
        mtime: 4,
        length: 5,
        name: "n".into(),
        uid: "u".into(),
        gid: "g".into(),
        muid: "".into(),
        extension: if unix { "to".into() } else { "".into() },
        n_uid: if unix { 6 } else { u32::MAX },
        n_gid: if unix { 7 } else { u32::MAX },
        n_muid: if unix { 8 } else { u32::MAX },
    };
    let fields = format!(
        "0100 02000000 {QID} ed010080 03000000 04000000 0500000000000000 0100 6e 0100 75 0100 67 0000"
    );
    // n[2] and size[2]: 39 bytes, four strings of 2 + (1, 1, 1, 0).
    let plain = format!("3400 3200 {fields}");
    let unix = format!("4400 4200 {fields} 0200 746f 06000000 07000000 08000000");
    answered(
        PLAIN,
        &format!("_ 7d 0102 {plain}"),
        Reply::Stat {
            stat: record(false),
        },
    );
    answered(
        UNIX,
        &format!("_ 7d 0102 {unix}"),
        Reply::Stat { stat: record(true) },
    );
    let wstat = |unix| Request::Wstat {
        fid: 1,
        stat: record(unix),
    };
    asked(PLAIN, &format!("_ 7e 0102 01000000 {plain}"), wstat(false));
    asked(UNIX, &format!("_ 7e 0102 01000000 {unix}"), wstat(true));
    // The three lengths must agree.
    for wrong in [
        "3300 3200",
        "3500 3200",
        "3400 3100",
        "3400 3300",
        "ffff 3200",
    ] {
        let text = format!("_ 7e 0102 01000000 {wrong} {fields}");
        assert!(
            Request::decode(&frame(&text), Dialect::Plain).is_err(),
            "{wrong}"
        );
    }
}

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

/// Every message of the table stands in this file.
#[test]
fn none_is_missing() {
    let text = include_str!("golden.rs");
    for (number, name) in Request::TYPES.iter().chain(Reply::TYPES) {
        let written = [format!("_ {number:02x} 0102"), format!("\"{number:02x}\")")];
        let replaced = *number == 101;
        assert!(
            replaced || written.iter().any(|it| text.contains(it.as_str())),
            "{name} ({number:02x})"
        );
    }
}
