//! Frames written by hand from the manuals: stat(5) and its companions for
//! 9P2000, the 9P2000.u RFC, and diod's protocol.md with Linux's client for
//! 9P2000.L. In the hexadecimal text `_` stands for the frame's size.

use bytes::{Buf as _, Bytes};
use datakit::ninep::message::{Dialect, Record, Reply, Request};
use datakit::ninep::wire::{Data, Error, Output, Text};
use rs9p::{QId, QIdType};

const OLD: &[Dialect] = &[Dialect::Plain, Dialect::Unix];
pub const NEW: &[Dialect] = &[Dialect::Linux, Dialect::Dk];
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

pub fn asked(dialects: &[Dialect], text: &str, message: Request) {
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

pub fn answered(dialects: &[Dialect], text: &str, message: Reply) {
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

pub fn qid() -> QId {
    QId {
        typ: QIdType::DIR,
        version: 0x0403_0201,
        path: 0x0c0b_0a09_0807_0605,
    }
}

pub const QID: &str = "80 01020304 05060708090a0b0c";

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

/// Every message of the table stands in these files.
#[test]
fn none_is_missing() {
    let text = [include_str!("golden.rs"), include_str!("golden_linux.rs")].concat();
    for (number, name) in Request::TYPES.iter().chain(Reply::TYPES) {
        let written = [format!("_ {number:02x} 0102"), format!("\"{number:02x}\")")];
        let replaced = *number == 101;
        assert!(
            replaced || written.iter().any(|it| text.contains(it.as_str())),
            "{name} ({number:02x})"
        );
    }
}
