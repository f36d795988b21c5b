//! `rs9p`'s codec, another's reading of 9P2000.L, says the same of the
//! messages that it has right. It lacks those of the older dialects, the last
//! number of a Tfsync, and cannot read an Rreaddir.

use std::io::Cursor;

use bytes::{Buf as _, Bytes};
use datakit::ninep::message::{Dialect, Reply, Request, Tail};
use datakit::ninep::wire::Output;
use rs9p::serialize::{Decodable, Encodable};
use rs9p::{FCall, Msg};

use super::any::Dice;

/// Takes a frame through their codec and back.
fn theirs(frame: &Bytes) -> Option<Vec<u8>> {
    let mut content = Cursor::new(&frame[4..]);
    let message = <Msg as Decodable>::decode(&mut content).ok()?;
    assert_eq!(content.position() as usize, frame.len() - 4, "{message:?}");
    // Its strings are text, and its flags only those it knows.
    let mut out = Vec::new();
    message.encode(&mut out).unwrap();
    if let FCall::RGetAttr { .. } = message.body {
        out.truncate(out.len() - 32);
    }
    Some(out)
}

fn ours(encode: impl FnOnce(&mut Output)) -> Bytes {
    let mut out = Output::default();
    encode(&mut out);
    let length = out.len();
    out.copy_to_bytes(length)
}

#[test]
fn they_read_what_we_write() {
    let (mut dice, mut agreed) = (Dice(11), 0);
    for tag in 0..60_000u16 {
        let mut request = dice.request(Dialect::Linux);
        if let Request::Fsync { datasync, .. } = &mut request {
            *datasync = Tail(None);
        }
        let frame = ours(|out| request.encode(tag, Dialect::Linux, out).unwrap());
        if let Some(back) = theirs(&frame)
            && back.len() == frame.len() - 4
        {
            agreed += usize::from(agree(&back, &frame[4..]));
        }
        let reply = dice.reply(Dialect::Linux);
        if matches!(reply, Reply::Readdir { .. }) {
            continue;
        }
        let frame = ours(|out| reply.encode(tag, Dialect::Linux, out).unwrap());
        if let Some(back) = theirs(&frame) {
            agreed += usize::from(agree(&back, &frame[4..4 + back.len()]));
        }
    }
    // The rest had bytes that are no text.
    assert!(agreed > 60_000, "{agreed}");
}

/// The same bytes, or flags dropped that they do not know.
fn agree(theirs: &[u8], ours: &[u8]) -> bool {
    let dropped = theirs.iter().zip(ours).filter(|(t, o)| *t & !*o != 0);
    assert_eq!(dropped.count(), 0, "{theirs:?}\n{ours:?}");
    theirs == ours
}

/// Their own messages, read by us and written again.
#[test]
fn we_read_what_they_write() {
    let qid = rs9p::QId {
        typ: rs9p::QIdType::DIR,
        version: 1,
        path: 2,
    };
    let flock = rs9p::Flock {
        typ: rs9p::LockType::WRLOCK,
        flags: rs9p::LockFlag::BLOCK,
        start: 1,
        length: 2,
        proc_id: 3,
        client_id: "host".into(),
    };
    let getlock = rs9p::Getlock {
        typ: rs9p::LockType::RDLOCK,
        start: 1,
        length: 2,
        proc_id: 3,
        client_id: "host".into(),
    };
    let entry = rs9p::DirEntry {
        qid,
        offset: 1,
        typ: 4,
        name: "entry".into(),
    };
    let fid = 7;
    let name = || String::from("name");
    for body in [
        FCall::TLock { fid, flock },
        FCall::TGetLock {
            fid,
            flock: getlock.clone(),
        },
        FCall::RGetLock { flock: getlock },
        FCall::RReadDir {
            data: rs9p::DirEntryData::with(vec![entry]),
        },
        FCall::TWalk {
            fid,
            newfid: 8,
            wnames: vec![name(), name()],
        },
        FCall::RWalk {
            wqids: vec![qid; 3],
        },
        FCall::TlCreate {
            fid,
            name: name(),
            flags: 1,
            mode: 2,
            gid: 3,
        },
        FCall::TAttach {
            fid,
            afid: 1,
            uname: name(),
            aname: name(),
            n_uname: 9,
        },
        FCall::TRenameAt {
            olddirfid: 1,
            oldname: name(),
            newdirfid: 2,
            newname: name(),
        },
        FCall::TxAttrCreate {
            fid,
            name: name(),
            attr_size: 4,
            flags: 2,
        },
        FCall::TWrite {
            fid,
            offset: 1,
            data: rs9p::Data(vec![1, 2, 3]),
        },
        FCall::RRead {
            data: rs9p::Data(vec![1, 2, 3]),
        },
        FCall::RlError { ecode: 5 },
    ] {
        let shown = format!("{body:?}");
        let mut content = Vec::new();
        Msg { tag: 513, body }.encode(&mut content).unwrap();
        let size = (content.len() as u32 + 4).to_le_bytes();
        let frame = Bytes::from([&size[..], &content].concat());
        let dialect = Dialect::Linux;
        let back = match Request::decode(&frame, dialect) {
            Ok((tag, request)) => ours(|out| request.encode(tag, dialect, out).unwrap()),
            Err(_) => {
                let (tag, reply) = Reply::decode(&frame, dialect).expect(&shown);
                ours(|out| reply.encode(tag, dialect, out).unwrap())
            }
        };
        assert_eq!(back, frame, "{shown}");
    }
}
