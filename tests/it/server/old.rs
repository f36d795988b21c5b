//! 9P2000 and 9P2000.u: what their messages do, and the texts their clients
//! compare.

use datakit::model::Kind;
use datakit::ninep::errno::*;
use datakit::ninep::message::{Dialect, Record, Reply, Request};
use datakit::ninep::wire::{Data, Reader, Text};
use rs9p::QIdType;

use super::peer::*;

const DMDIR: u32 = 0x8000_0000;
const DMSYMLINK: u32 = 0x0200_0000;

fn create(fid: u32, name: &'static str, perm: u32, extension: &'static str) -> Request {
    Request::Create {
        fid,
        name: name.into(),
        perm,
        mode: 2,
        extension: Some(extension.into()),
    }
}

fn stat(fid: u32) -> Request {
    Request::Stat { fid }
}

fn wstat(fid: u32, change: impl FnOnce(&mut Record)) -> Request {
    let mut stat = Record::unset();
    change(&mut stat);
    Request::Wstat { fid, stat }
}

fn record(reply: Reply) -> Record {
    match reply {
        Reply::Stat { stat } => stat,
        other => panic!("{other:?}"),
    }
}

/// Every record of an Rread of a directory.
fn records(data: &[u8], dialect: Dialect) -> Vec<Record> {
    let mut from = Reader::new(data.to_vec().into(), dialect);
    let mut records = Vec::new();
    while from.remaining() > 0 {
        records.push(Record::get_entry(&mut from).unwrap());
    }
    records
}

fn names(records: &[Record]) -> Vec<String> {
    let name = |record: &Record| String::from_utf8(record.name.to_vec()).unwrap();
    records.iter().map(name).collect()
}

#[tokio::test]
async fn walks_are_all_or_nothing() {
    let house = House::new();
    house.toy.file(b"file", b"");
    let mut peer = house.attach(Dialect::Plain).await;
    for (path, text) in [
        ("nowhere", "No such file or directory"),
        ("dir/nowhere/more", "No such file or directory"),
        ("file/more", "Can't walk from a file"),
        ("file/..", "Can't walk from a file"),
        (".", "'.' is not valid in 9p"),
        ("dir/.", "'.' is not valid in 9p"),
    ] {
        assert_eq!(peer.refused(walk(0, 1, path)).await, text, "{path}");
        assert_eq!(peer.refused(clunk(1)).await, "Unknown fid 1", "{path}");
    }
    let Reply::Walk { qids } = peer.walk(1, "dir/../dir").await else {
        panic!("no walk");
    };
    assert_eq!(qids.len(), 3);
    assert_eq!(qids[0], qids[2]);
    assert_eq!(
        peer.refused(walk(0, 1, "dir")).await,
        "Fid 1 already in use"
    );
    assert_eq!(
        peer.refused(walk(0, u32::MAX, "")).await,
        "Fid -1 already in use"
    );
    assert_eq!(peer.refused(walk(8, 9, "")).await, "Unknown fid 8");
    assert_eq!(
        peer.refused(walk(0x8000_0000, 9, "")).await,
        "Unknown fid -2147483648"
    );
    // In place; a walk that fails leaves the fid where it was.
    peer.ask(walk(1, 1, "..")).await;
    peer.refused(walk(1, 1, "nowhere")).await;
    assert!(matches!(
        peer.ask(walk(1, 1, "file")).await,
        Reply::Walk { .. }
    ));
    // An open fid may be walked from, and one walked in place is not open.
    peer.open(2, "dir").await;
    assert!(matches!(
        peer.ask(walk(2, 3, "..")).await,
        Reply::Walk { .. }
    ));
    peer.ask(walk(2, 2, "")).await;
    assert_eq!(
        peer.refused(read(2, 0, 9)).await,
        "Can't read from unopened fid"
    );
    // There may be many names.
    let many = "dir/..".to_owned() + &"/dir/..".repeat(40);
    let Reply::Walk { qids } = peer.walk(9, &many).await else {
        panic!("no walk");
    };
    assert_eq!(qids.len(), 82);
}

#[tokio::test]
async fn opening_reading_and_writing() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Plain).await;
    peer.walk(1, "file").await;
    assert_eq!(
        peer.refused(read(1, 0, 1)).await,
        "Can't read from unopened fid"
    );
    assert_eq!(
        peer.refused(write(1, 0, b"")).await,
        "Can't write to unopened fid"
    );
    for mode in [4, 8, 0x0c] {
        let refused = peer.refused(Request::Open { fid: 1, mode }).await;
        assert_eq!(refused, "Invalid argument", "{mode}");
    }
    let Reply::Open { qid, iounit } = peer.ask(Request::Open { fid: 1, mode: 0 }).await else {
        panic!("no open");
    };
    assert_eq!((qid.typ, iounit), (QIdType::FILE, (1 << 20) - 24));
    let again = Request::Open { fid: 1, mode: 0 };
    assert_eq!(peer.refused(again).await, "Already open");
    // Opened for reading, written all the same: the write is what is refused,
    // where it is.
    assert_eq!(
        peer.ask(write(1, 0, b"hi")).await,
        Reply::Write { count: 2 }
    );
    assert_eq!(content(&peer.read(1, 0, 99).await), b"hillo");
    assert_eq!(content(&peer.read(1, 5, 99).await), b"");
    assert_eq!(
        peer.refused(read(1, 100, 9)).await,
        "Offset 100 beyond end-of-file (len = 5)"
    );
    let below = u64::MAX - 1;
    assert_eq!(peer.refused(read(1, below, 9)).await, "Negative offset -2");
    assert_eq!(
        peer.refused(write(1, below, b"x")).await,
        "Negative offset -2"
    );
    peer.open(2, "dir").await;
    assert_eq!(
        peer.refused(write(2, 0, b"x")).await,
        "Can't write to directories"
    );
    peer.open(3, "stream").await;
    assert_eq!(peer.refused(write(3, 0, b"x")).await, "Read-only file");
    // Emptying and appending, as Linux sends it.
    peer.walk(4, "file").await;
    peer.ask(Request::Open {
        fid: 4,
        mode: 0x80 | 1,
    })
    .await;
    peer.ask(write(4, 0, b"!")).await;
    assert_eq!(house.toy.content(b"file").unwrap(), b"hillo!");
    peer.walk(5, "file").await;
    peer.ask(Request::Open {
        fid: 5,
        mode: 16 | 1,
    })
    .await;
    assert_eq!(house.toy.content(b"file").unwrap(), b"");
}

#[tokio::test]
async fn creating() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Unix).await;
    peer.walk(1, "").await;
    let Reply::Create { qid, iounit } = peer.ask(create(1, "run", 0o755, "")).await else {
        panic!("no create");
    };
    assert_eq!((qid.typ, iounit), (QIdType::FILE, (1 << 20) - 24));
    // It is open, and it is the file now.
    peer.ask(write(1, 0, b"#!")).await;
    assert_eq!(house.toy.content(b"run").unwrap(), b"#!");
    assert_eq!(record(peer.ask(stat(1)).await).mode, 0o755);
    assert_eq!(
        peer.refused(create(1, "more", 0o644, "")).await,
        "Can't create in an opened fid"
    );
    // Over an existing file: it is emptied.
    peer.walk(2, "").await;
    peer.ask(create(2, "run", 0o644, "")).await;
    assert_eq!(house.toy.content(b"run").unwrap(), b"");
    assert_eq!(record(peer.ask(stat(2)).await).mode, 0o644);
    peer.walk(3, "run").await;
    assert_eq!(
        peer.refused(create(3, "x", 0o644, "")).await,
        "\"run\" is not a directory"
    );
    peer.walk(4, "").await;
    let Reply::Create { qid, .. } = peer.ask(create(4, "sub", DMDIR | 0o755, "")).await else {
        panic!("no create");
    };
    assert_eq!(qid.typ, QIdType::DIR);
    assert_eq!(content(&peer.read(4, 0, 999).await), b"");
    peer.walk(5, "").await;
    assert_eq!(
        peer.refused(create(5, "sub", DMDIR, "")).await,
        "Already exists"
    );
    let Reply::Create { qid, .. } = peer
        .ask(create(5, "link", DMSYMLINK | 0o777, "to/it"))
        .await
    else {
        panic!("no create");
    };
    assert_eq!(qid.typ, QIdType::SYMLINK);
    let link = record(peer.ask(stat(5)).await);
    assert_eq!(
        (link.mode, &link.extension[..]),
        (DMSYMLINK | 0o777, &b"to/it"[..])
    );
    assert_eq!(link.length, 5);
    // Devices, pipes, sockets, and hard links.
    peer.walk(6, "").await;
    for bit in [0x0080_0000, 0x0020_0000, 0x0010_0000, 0x0100_0000] {
        let refused = peer.refused(create(6, "odd", bit | 0o644, "c 1 2")).await;
        assert_eq!(refused, "Operation not supported");
    }
    // 9P2000 has no way to say where a link leads.
    let mut peer = house.attach(Dialect::Plain).await;
    assert_eq!(
        peer.refused(create(0, "lost", DMSYMLINK | 0o777, "")).await,
        "Missing target for symlink!"
    );
}

#[tokio::test]
async fn stat_tells() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    for dialect in [Dialect::Plain, Dialect::Unix] {
        let mut peer = house.attach(dialect).await;
        peer.walk(1, "file").await;
        let file = record(peer.ask(stat(1)).await);
        assert_eq!((file.mode, file.length), (0o644, 5));
        assert_eq!((file.mtime, file.kind, file.dev), (1_000_000_000, 0, 0));
        let owners = [&file.uid, &file.gid, &file.muid];
        assert_eq!(
            owners.map(|owner| owner.to_vec()),
            [b"root", b"root", b"none"]
        );
        if dialect == Dialect::Unix {
            assert_eq!(
                (file.n_uid, file.n_gid, &*file.extension),
                (1000, 1000, &b""[..])
            );
        }
        peer.walk(2, "dir").await;
        let dir = record(peer.ask(stat(2)).await);
        assert_eq!(
            (dir.mode, dir.length, &*dir.name),
            (DMDIR | 0o755, 0, &b"dir"[..])
        );
        peer.walk(3, "stream").await;
        assert_eq!(record(peer.ask(stat(3)).await).mode, 0o444);
        let root = record(peer.ask(stat(0)).await);
        assert_eq!((&*root.name, root.qid.typ), (&b"/"[..], QIdType::DIR));
        assert_eq!(peer.refused(stat(77)).await, "Unknown fid 77");
    }
}

#[tokio::test]
async fn wstat_changes_one_thing_or_nothing() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Plain).await;
    peer.walk(1, "file").await;
    peer.walk(2, "dir").await;
    let together = "Can't rename/truncate/chmod at the same time";
    for (fid, request, text) in [
        (
            1,
            wstat(1, |s| (s.name, s.length) = ("x".into(), 0)),
            together,
        ),
        (1, wstat(1, |s| (s.mode, s.length) = (0, 0)), together),
        (
            1,
            wstat(1, |s| s.length = u64::MAX - 4),
            "Negative offset -5",
        ),
        (
            2,
            wstat(2, |s| s.length = 1),
            "Can't set length of a directory",
        ),
        (
            2,
            wstat(2, |s| s.mode = DMDIR | 0o755),
            "Operation not permitted",
        ),
        (
            2,
            wstat(2, |s| s.mode = 0o755),
            "Incorrect is_directory flag for chmod",
        ),
        (
            1,
            wstat(1, |s| s.mode = DMDIR),
            "Incorrect is_directory flag for chmod",
        ),
        (0, wstat(0, |s| s.name = "x".into()), "Can't rename /"),
    ] {
        assert_eq!(peer.refused(request).await, text, "fid {fid}");
    }
    let done = Reply::Wstat {};
    assert_eq!(peer.ask(wstat(2, |s| s.length = 0)).await, done);
    assert_eq!(peer.ask(wstat(1, |s| s.length = 7)).await, done);
    assert_eq!(house.toy.content(b"file").unwrap(), b"hello\0\0");
    assert_eq!(peer.ask(wstat(1, |s| s.mode = 0o755)).await, done);
    assert_eq!(record(peer.ask(stat(1)).await).mode, 0o755);
    assert_eq!(peer.ask(wstat(1, |s| s.name = "other".into())).await, done);
    assert_eq!(house.toy.content(b"file"), None);
    assert_eq!(&*record(peer.ask(stat(1)).await).name, b"other");
    // Times and owners: taken and ignored. Nothing at all: make it durable.
    let syncs = || {
        house
            .toy
            .state
            .syncs
            .load(std::sync::atomic::Ordering::SeqCst)
    };
    assert_eq!(syncs(), 0);
    let ignored = |s: &mut Record| (s.mtime, s.gid) = (1, "wheel".into());
    assert_eq!(peer.ask(wstat(1, ignored)).await, done);
    assert_eq!(peer.ask(wstat(2, |_| ())).await, done);
    assert_eq!(syncs(), 2);
}

#[tokio::test]
async fn removing_forgets_the_fid_in_any_case() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Unix).await;
    peer.walk(1, "file").await;
    assert_eq!(peer.ask(Request::Remove { fid: 1 }).await, Reply::Remove {});
    assert_eq!(house.toy.content(b"file"), None);
    assert_eq!(peer.refused(clunk(1)).await, "Unknown fid 1");
    peer.walk(1, "stream").await;
    let reply = peer.ask(Request::Remove { fid: 1 }).await;
    assert_eq!(errno(&reply), EPERM);
    assert_eq!(
        peer.refused(Request::Remove { fid: 1 }).await,
        "Unknown fid 1"
    );
    // With all that is in it.
    peer.walk(2, "dir").await;
    peer.ask(create(2, "inside", 0o644, "")).await;
    peer.walk(3, "dir").await;
    assert_eq!(peer.ask(Request::Remove { fid: 3 }).await, Reply::Remove {});
    assert_eq!(
        peer.refused(walk(0, 4, "dir")).await,
        "No such file or directory"
    );
}

#[tokio::test]
async fn directories_are_read_in_whole_records() {
    let house = House::new();
    house.toy.file(b"a file", b"hello");
    for dialect in [Dialect::Plain, Dialect::Unix] {
        let mut peer = house.attach(dialect).await;
        peer.open(1, "").await;
        let all = peer.read(1, 0, 8192).await;
        let found = records(content(&all), dialect);
        assert_eq!(names(&found), ["a file", "command", "dir", "stream"]);
        assert_eq!((found[0].length, found[2].mode), (5, DMDIR | 0o755));
        // One record, then the next, then a buffer that is a byte too small.
        let first = found[0].entry_size(dialect).unwrap() as u32;
        let one = peer.read(1, 0, first).await;
        assert_eq!(names(&records(content(&one), dialect)), ["a file"]);
        let rest = peer.read(1, first.into(), 8192).await;
        let rest = records(content(&rest), dialect);
        assert_eq!(names(&rest), ["command", "dir", "stream"]);
        let none = peer.read(1, 0, first - 1).await;
        assert_eq!(content(&none), b"");
        let two = first + found[1].entry_size(dialect).unwrap() as u32;
        let short = peer.read(1, 0, two - 1).await;
        assert_eq!(names(&records(content(&short), dialect)), ["a file"]);
        // Only where a read ended may another begin.
        let text = "Can't seek in a directory";
        assert_eq!(peer.refused(read(1, 1, 8192)).await, text);
        assert_eq!(peer.refused(read(1, u64::MAX, 8192)).await, text);
        // What is removed while it is read is listed still.
        let mut other = house.attach(dialect).await;
        other.walk(5, "").await;
        other.ask(create(5, "b", 0o644, "")).await;
        let one = peer.read(1, 0, first).await;
        let after = content(&one).len() as u64;
        other.ask(Request::Remove { fid: 5 }).await;
        let rest = peer.read(1, after, 8192).await;
        let rest = records(content(&rest), dialect);
        assert_eq!(names(&rest), ["b", "command", "dir", "stream"]);
        let end: usize = rest.iter().map(|r| r.entry_size(dialect).unwrap()).sum();
        assert_eq!(content(&peer.read(1, after + end as u64, 8192).await), b"");
    }
}

#[tokio::test]
async fn names_that_are_no_text_are_escaped() {
    let house = House::new();
    house.toy.file(b"caf\xe9", b"latin");
    let mut peer = house.attach(Dialect::Plain).await;
    peer.open(1, "").await;
    let all = peer.read(1, 0, 8192).await;
    let found = names(&records(content(&all), Dialect::Plain));
    assert_eq!(found[0], "caf%E9");
    peer.open(2, "caf%E9").await;
    assert_eq!(content(&peer.read(2, 0, 9).await), b"latin");
    assert_eq!(&*record(peer.ask(stat(2)).await).name, b"caf%E9");
    let mut peer = house.attach(Dialect::Linux).await;
    peer.ask(Request::Walk {
        fid: 0,
        newfid: 1,
        names: [b"caf\xe9"].into_iter().collect(),
    })
    .await;
    assert_eq!(errno(&peer.walk(2, "caf%E9").await), ENOENT);
}

/// What a client of each dialect is told of one failure.
#[tokio::test]
async fn failures_in_each_dialect() {
    let house = House::new();
    let expected = "No such file or directory";
    for dialect in Dialect::ALL {
        let mut peer = house.attach(dialect).await;
        match peer.walk(1, "nowhere").await {
            Reply::Error { text, errno } => {
                assert_eq!(&*text, expected.as_bytes());
                assert_eq!(errno, (dialect == Dialect::Unix).then_some(ENOENT));
            }
            Reply::Lerror { errno, failure } => {
                assert_eq!(errno, ENOENT);
                let failure: Option<Text> = failure;
                assert_eq!(failure.is_some(), dialect == Dialect::Dk);
                if let Some(failure) = failure {
                    let failure =
                        datakit::model::text::read_failure(std::str::from_utf8(&failure).unwrap());
                    let failure = failure.unwrap();
                    assert_eq!(failure.kind, Kind::NotFound);
                    assert_eq!(failure.message, "not there");
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn no_write_is_cut_short() {
    let house = House::new();
    house.toy.file(b"file", b"");
    let mut peer = house.attach_at(Dialect::Plain, 65536).await;
    peer.open(1, "file").await;
    let data: Vec<u8> = (0..65536 - 23).map(|at| at as u8).collect();
    let request = Request::Write {
        fid: 1,
        offset: 0,
        data: Data(data.clone().into()),
    };
    let count = data.len() as u32;
    assert_eq!(peer.ask(request).await, Reply::Write { count });
    assert_eq!(house.toy.content(b"file").unwrap(), data);
}
