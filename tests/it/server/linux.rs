//! 9P2000.L: what its messages do.

use std::sync::atomic::Ordering;

use datakit::ninep::errno::*;
use datakit::ninep::message::{Dialect, Entry, Reply, Request, Tail, flags};
use datakit::ninep::wire::{Data, Text};
use rs9p::{
    GetAttrMask, LockFlag, LockStatus, LockType, QIdType, SetAttr, SetAttrMask, Stat, Time,
};

use super::peer::*;

fn lcreate(fid: u32, name: &'static str, flags: u32, mode: u32) -> Request {
    Request::Lcreate {
        fid,
        name: name.into(),
        flags,
        mode,
        gid: 0,
    }
}

fn mkdir(dfid: u32, name: &'static str) -> Request {
    Request::Mkdir {
        dfid,
        name: name.into(),
        mode: 0o755,
        gid: 0,
    }
}

fn unlink(name: &'static str, flags: u32) -> Request {
    Request::Unlinkat {
        dfid: 0,
        name: name.into(),
        flags,
    }
}

fn setattr(fid: u32, valid: SetAttrMask, mode: u32, size: u64) -> Request {
    let time = Time { sec: 1, nsec: 2 };
    Request::Setattr {
        fid,
        valid,
        attr: SetAttr {
            mode,
            uid: 5,
            gid: 6,
            size,
            atime: time,
            mtime: time,
        },
    }
}

async fn attr(peer: &mut Peer, fid: u32) -> (Stat, QIdType) {
    let mask = GetAttrMask::ALL;
    match peer.ask(Request::Getattr { fid, mask }).await {
        Reply::Getattr {
            valid, qid, stat, ..
        } => {
            assert_eq!(valid, GetAttrMask::BASIC);
            (stat, qid.typ)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn opening_and_creating() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Linux).await;
    peer.walk(1, "file").await;
    let wrong = Request::Lopen {
        fid: 1,
        flags: flags::DIRECTORY,
    };
    assert_eq!(errno(&peer.ask(wrong).await), ENOTDIR);
    let Reply::Lopen { qid, iounit } = peer.ask(Request::Lopen { fid: 1, flags: 0 }).await else {
        panic!("no open");
    };
    assert_eq!((qid.typ, iounit), (QIdType::FILE, (1 << 20) - 24));
    assert_eq!(
        errno(&peer.ask(Request::Lopen { fid: 1, flags: 0 }).await),
        EBADF
    );
    // There already: opened as it is, unless it was to be new or empty.
    peer.walk(2, "").await;
    let new = flags::CREAT | flags::EXCL | flags::RDWR;
    assert_eq!(
        errno(&peer.ask(lcreate(2, "file", new, 0o644)).await),
        EEXIST
    );
    let reply = peer
        .ask(lcreate(2, "file", flags::CREAT | flags::RDWR, 0o644))
        .await;
    assert!(matches!(reply, Reply::Lcreate { .. }), "{reply:?}");
    assert_eq!(content(&peer.read(2, 0, 9).await), b"hello");
    assert_eq!(errno(&peer.ask(lcreate(2, "x", 0, 0o644)).await), EBADF);
    peer.walk(3, "").await;
    peer.ask(lcreate(3, "file", flags::CREAT | flags::TRUNC | 1, 0o644))
        .await;
    assert_eq!(house.toy.content(b"file").unwrap(), b"");
    peer.walk(4, "").await;
    assert_eq!(
        errno(&peer.ask(lcreate(4, "dir", flags::CREAT, 0o644)).await),
        EISDIR
    );
    let reply = peer
        .ask(lcreate(4, "new", new | flags::APPEND, 0o755))
        .await;
    assert!(matches!(reply, Reply::Lcreate { .. }), "{reply:?}");
    peer.ask(write(4, 0, b"one ")).await;
    peer.ask(write(4, 0, b"two")).await;
    assert_eq!(house.toy.content(b"new").unwrap(), b"one two");
    let (stat, _) = attr(&mut peer, 4).await;
    assert_eq!((stat.mode, stat.size), (0o100_755, 7));
    peer.walk(5, "file").await;
    peer.ask(Request::Lopen {
        fid: 5,
        flags: flags::TRUNC | 1,
    })
    .await;
    assert_eq!(errno(&peer.ask(lcreate(1, "x", 0, 0)).await), EBADF);
}

#[tokio::test]
async fn making_entries() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Linux).await;
    assert!(
        matches!(peer.ask(mkdir(0, "sub")).await, Reply::Mkdir { qid } if qid.typ == QIdType::DIR)
    );
    assert_eq!(errno(&peer.ask(mkdir(0, "sub")).await), EEXIST);
    let symlink = Request::Symlink {
        fid: 0,
        name: "link".into(),
        target: "to/it".into(),
        gid: 0,
    };
    assert!(
        matches!(peer.ask(symlink).await, Reply::Symlink { qid } if qid.typ == QIdType::SYMLINK)
    );
    peer.walk(1, "link").await;
    let target = Reply::Readlink {
        target: "to/it".into(),
    };
    assert_eq!(peer.ask(Request::Readlink { fid: 1 }).await, target);
    assert_eq!(attr(&mut peer, 1).await.0.mode, 0o120_777);
    assert_eq!(errno(&peer.ask(Request::Readlink { fid: 0 }).await), EINVAL);
    let mknod = |name: &'static str, mode| Request::Mknod {
        dfid: 0,
        name: name.into(),
        mode,
        major: 0,
        minor: 0,
        gid: 0,
    };
    let reply = peer.ask(mknod("made", 0o100_755)).await;
    assert!(matches!(reply, Reply::Mknod { qid } if qid.typ == QIdType::FILE));
    assert_eq!(house.toy.content(b"made").unwrap(), b"");
    assert_eq!(errno(&peer.ask(mknod("made", 0o100_644)).await), EEXIST);
    for device in [0o010_644, 0o020_644, 0o060_644, 0o140_644] {
        assert_eq!(errno(&peer.ask(mknod("device", device)).await), EOPNOTSUPP);
    }
    peer.walk(2, "file").await;
    let link = Request::Link {
        dfid: 0,
        fid: 2,
        name: "hard".into(),
    };
    assert_eq!(errno(&peer.ask(link).await), EOPNOTSUPP);
}

#[tokio::test]
async fn moving_and_removing() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Linux).await;
    peer.walk(1, "dir").await;
    let renameat =
        |olddir, oldname: &'static str, newdir, newname: &'static str| Request::Renameat {
            olddir,
            oldname: oldname.into(),
            newdir,
            newname: newname.into(),
        };
    assert_eq!(
        peer.ask(renameat(0, "file", 1, "moved")).await,
        Reply::Renameat {}
    );
    assert_eq!(errno(&peer.ask(renameat(0, "file", 1, "x")).await), ENOENT);
    assert_eq!(errno(&peer.ask(renameat(0, "file", 9, "x")).await), EBADF);
    peer.open(2, "dir/moved").await;
    let back = Request::Rename {
        fid: 2,
        dfid: 0,
        name: "back".into(),
    };
    assert_eq!(peer.ask(back).await, Reply::Rename {});
    assert_eq!(content(&peer.read(2, 0, 9).await), b"hello");
    assert_eq!(house.toy.content(b"back").unwrap(), b"hello");
    // A directory and a file are removed each in its own way.
    peer.ask(mkdir(1, "inside")).await;
    assert_eq!(errno(&peer.ask(unlink("dir", 0)).await), EISDIR);
    assert_eq!(
        errno(&peer.ask(unlink("back", flags::REMOVEDIR)).await),
        ENOTDIR
    );
    assert_eq!(
        errno(&peer.ask(unlink("dir", flags::REMOVEDIR)).await),
        ENOTEMPTY
    );
    assert_eq!(errno(&peer.ask(unlink("gone", 0)).await), ENOENT);
    assert_eq!(errno(&peer.ask(unlink("stream", 0)).await), EPERM);
    assert_eq!(peer.ask(unlink("back", 0)).await, Reply::Unlinkat {});
    assert_eq!(peer.ask(Request::Remove { fid: 1 }).await, Reply::Remove {});
    assert_eq!(errno(&peer.ask(clunk(1)).await), EBADF);
    assert_eq!(errno(&peer.walk(1, "dir").await), ENOENT);
}

#[tokio::test]
async fn attributes() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Linux).await;
    let (root, kind) = attr(&mut peer, 0).await;
    assert_eq!((root.mode, kind), (0o040_755, QIdType::DIR));
    peer.walk(1, "file").await;
    let (file, kind) = attr(&mut peer, 1).await;
    assert_eq!((file.mode, kind, file.size), (0o100_644, QIdType::FILE, 5));
    assert_eq!(
        (file.uid, file.gid, file.nlink, file.blocks),
        (1000, 1000, 1, 1)
    );
    assert_eq!(
        (file.mtime.sec, file.ctime.sec),
        (1_000_000_000, 1_000_000_000)
    );
    let done = Reply::Setattr {};
    let (mode, size) = (SetAttrMask::MODE, SetAttrMask::SIZE);
    assert_eq!(peer.ask(setattr(1, mode | size, 0o755, 2)).await, done);
    let (file, _) = attr(&mut peer, 1).await;
    assert_eq!((file.mode, file.size), (0o100_755, 2));
    // Owners and times, and the mode of a directory: taken and ignored.
    let others = SetAttrMask::UID | SetAttrMask::GID | SetAttrMask::ATIME | SetAttrMask::MTIME_SET;
    assert_eq!(peer.ask(setattr(1, others, 0, 0)).await, done);
    assert_eq!(peer.ask(setattr(0, mode | others, 0o700, 0)).await, done);
    assert_eq!(errno(&peer.ask(setattr(0, size, 0, 0)).await), EISDIR);
    assert_eq!(
        errno(&peer.ask(setattr(1, size, 0, u64::MAX)).await),
        EINVAL
    );
    peer.walk(2, "stream").await;
    assert_eq!(errno(&peer.ask(setattr(2, size, 0, 0)).await), EROFS);
    assert_eq!(peer.ask(setattr(2, others, 0, 0)).await, done);
    // Nothing: what was written is to be durable.
    assert_eq!(house.toy.state.syncs.load(Ordering::SeqCst), 0);
    assert_eq!(peer.ask(setattr(1, SetAttrMask::empty(), 0, 0)).await, done);
    for datasync in [Tail(None), Tail(Some(1))] {
        let fsync = Request::Fsync { fid: 1, datasync };
        assert_eq!(peer.ask(fsync).await, Reply::Fsync {});
    }
    assert_eq!(house.toy.state.syncs.load(Ordering::SeqCst), 3);
    let Reply::Statfs { statfs } = peer.ask(Request::Statfs { fid: 1 }).await else {
        panic!("no statfs");
    };
    assert_eq!((statfs.typ, statfs.namelen), (0x0102_1997, 255));
    assert_eq!(errno(&peer.ask(Request::Statfs { fid: 9 }).await), EBADF);
}

#[tokio::test]
async fn there_are_no_extended_attributes() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Linux).await;
    let xattrwalk = |newfid, name: &'static str| Request::Xattrwalk {
        fid: 0,
        newfid,
        name: name.into(),
    };
    assert_eq!(
        peer.ask(xattrwalk(5, "")).await,
        Reply::Xattrwalk { size: 0 }
    );
    assert_eq!(content(&peer.read(5, 0, 99).await), b"");
    assert_eq!(peer.ask(clunk(5)).await, Reply::Clunk {});
    assert_eq!(errno(&peer.ask(xattrwalk(5, "user.x")).await), ENODATA);
    assert_eq!(errno(&peer.ask(clunk(5)).await), EBADF);
    let create = Request::Xattrcreate {
        fid: 0,
        name: "user.x".into(),
        size: 1,
        flags: 0,
    };
    assert_eq!(errno(&peer.ask(create).await), EOPNOTSUPP);
}

fn readdir(fid: u32, offset: u64, count: usize) -> Request {
    let count = count as u32;
    Request::Readdir { fid, offset, count }
}

fn entries(reply: Reply) -> Vec<(String, u64)> {
    let Reply::Readdir { data } = reply else {
        panic!("{reply:?}");
    };
    let entries = Entry::list(&Data(data.0)).unwrap();
    let name = |name: &Text| String::from_utf8(name.to_vec()).unwrap();
    entries.iter().map(|e| (name(&e.name), e.offset)).collect()
}

#[tokio::test]
async fn directories_are_read_from_any_offset_they_gave() {
    let house = House::new();
    for index in 0..1000 {
        house.toy.file(format!("file {index:03}").as_bytes(), b"");
    }
    let mut peer = house.attach(Dialect::Linux).await;
    peer.walk(1, "").await;
    assert_eq!(errno(&peer.ask(readdir(1, 0, 99)).await), EBADF);
    peer.ask(Request::Lopen { fid: 1, flags: 0 }).await;
    let all = entries(peer.ask(readdir(1, 0, 1 << 20)).await);
    assert_eq!(all.len(), 1003);
    let (mut offset, mut found) = (0, Vec::new());
    loop {
        let some = entries(peer.ask(readdir(1, offset, 333)).await);
        let Some((_, last)) = some.last() else { break };
        offset = *last;
        found.extend(some);
    }
    assert_eq!(found, all);
    for (_, offset) in &all[990..] {
        let rest = entries(peer.ask(readdir(1, *offset, 1 << 20)).await);
        assert_eq!(rest, all[*offset as usize..]);
    }
    // One short of the first entry: to say nothing would say it is the end.
    let first = Entry::size(all[0].0.len());
    assert_eq!(entries(peer.ask(readdir(1, 0, first)).await).len(), 1);
    assert_eq!(errno(&peer.ask(readdir(1, 0, first - 1)).await), EINVAL);
    let two = first + Entry::size(all[1].0.len());
    assert_eq!(entries(peer.ask(readdir(1, 0, two - 1)).await).len(), 1);
    assert_eq!(entries(peer.ask(readdir(1, u64::MAX, 999)).await), []);
    // The listing stays as it was while it is read, until read anew.
    peer.ask(unlink("file 999", 0)).await;
    assert_eq!(entries(peer.ask(readdir(1, 1, 1 << 20)).await).len(), 1002);
    assert_eq!(entries(peer.ask(readdir(1, 0, 1 << 20)).await).len(), 1002);
    assert_eq!(errno(&peer.read(1, 0, 99).await), EISDIR);
    peer.open(2, "file 000").await;
    assert_eq!(errno(&peer.ask(readdir(2, 0, 99)).await), ENOTDIR);
}

fn lock(fid: u32, kind: LockType, start: u64, length: u64, proc_id: u32) -> Request {
    Request::Lock {
        fid,
        kind,
        flags: LockFlag::empty(),
        start,
        length,
        proc_id,
        client_id: "host".into(),
    }
}

#[tokio::test]
async fn locks_last_until_clunk_or_disconnect() {
    let house = House::new();
    house.toy.file(b"file", b"");
    let mut one = house.attach(Dialect::Linux).await;
    let mut two = house.attach(Dialect::Dk).await;
    one.open(1, "file").await;
    two.open(1, "file").await;
    let taken = Reply::Lock {
        status: LockStatus::SUCCESS,
    };
    let blocked = Reply::Lock {
        status: LockStatus::BLOCKED,
    };
    let (read, write) = (LockType::RDLOCK, LockType::WRLOCK);
    assert_eq!(one.ask(lock(1, write, 0, 10, 7)).await, taken);
    assert_eq!(two.ask(lock(1, read, 9, 1, 7)).await, blocked);
    assert_eq!(two.ask(lock(1, write, 10, 0, 7)).await, taken);
    let getlock = |kind, start| Request::Getlock {
        fid: 1,
        kind,
        start,
        length: 0,
        proc_id: 8,
        client_id: "other".into(),
    };
    let held = Reply::Getlock {
        kind: write,
        start: 0,
        length: 10,
        proc_id: 7,
        client_id: "host".into(),
    };
    assert_eq!(two.ask(getlock(read, 0)).await, held);
    assert_eq!(one.ask(lock(1, LockType::UNLOCK, 0, 5, 7)).await, taken);
    assert_eq!(two.ask(lock(1, read, 0, 5, 7)).await, taken);
    assert_eq!(one.ask(clunk(1)).await, Reply::Clunk {});
    assert_eq!(two.ask(lock(1, write, 5, 5, 7)).await, taken);
    one.open(1, "file").await;
    assert_eq!(one.ask(lock(1, read, 100, 1, 7)).await, blocked);
    drop(two.stream);
    soon("the end", two.serving).await.unwrap().unwrap();
    assert_eq!(one.ask(lock(1, write, 0, 0, 7)).await, taken);
    let Reply::Getlock { kind, .. } = one.ask(getlock(write, 0)).await else {
        panic!("no lock");
    };
    assert_eq!(kind, write, "another process of it is another owner");
    let odd = lock(1, LockType::from_bits_retain(9), 0, 0, 7);
    assert_eq!(errno(&one.ask(odd).await), EINVAL);
}
