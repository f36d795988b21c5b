//! Questions, calls and maintenance: what programs ask of the tree.

use datakit::model::request::At;
use datakit::model::text::{self, LsQuery, LsShape, TaskLine};
use datakit::model::{ObjectId, TreePath};

use super::*;

pub fn id(text: &str) -> ObjectId {
    ObjectId::from_hex(text.trim().as_bytes()).unwrap()
}

/// Reads all of a file, in pieces of this many bytes.
pub async fn bytes(walker: &Walker, path: &str, count: u32) -> Vec<u8> {
    let handle = walker.open(path).await.unwrap();
    let mut text = Vec::new();
    loop {
        let offset = text.len() as u64;
        let data = soon(handle.read(&walker.call, offset, count))
            .await
            .unwrap();
        if data.is_empty() {
            return text;
        }
        text.extend_from_slice(&data);
    }
}

/// Writes a request and reads its result.
async fn ask(walker: &Walker, path: &str, request: &str) -> Result<String> {
    let handle = walker.open(path).await?;
    let mut offset = 0;
    for piece in request.as_bytes().chunks(7) {
        let data = Bytes::copy_from_slice(piece);
        handle.write(&walker.call, offset, data).await?;
        offset += piece.len() as u64;
    }
    let data = handle.read(&walker.call, 0, 1 << 20).await?;
    let end = handle.read(&walker.call, data.len() as u64, 10).await?;
    assert!(end.is_empty());
    Ok(String::from_utf8_lossy(&data).into_owned())
}

#[tokio::test]
async fn questions() {
    let walker = memory();
    let one = walker
        .store("main", &[("a", "1"), ("d/b", "22")], "one")
        .await;
    let two = walker.store("main", &[("d/c", "3")], "two").await;
    assert_eq!(
        walker.cat("resolve/main").await.unwrap(),
        format!("{two}\n")
    );
    assert_eq!(
        walker.cat("resolve/main~1").await.unwrap(),
        format!("{one}\n")
    );
    let short = format!("resolve/{}", &one[..9]);
    assert_eq!(walker.cat(&short).await.unwrap(), format!("{one}\n"));
    let bases = walker.cat(&format!("resolve/{one}...{two}")).await.unwrap();
    assert_eq!(bases, format!("{one}\n"));
    fails(walker.walk("resolve/none").await, Kind::NotFound);
    fails(walker.walk("resolve/%").await, Kind::Invalid);

    let log = bytes(&walker, "log/main", 50).await;
    let mut rest = &log[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        found.push(text::take_commit_record(&mut rest).unwrap().unwrap());
    }
    let ids: Vec<String> = found.iter().map(|commit| commit.id.to_string()).collect();
    assert_eq!(ids, [two.clone(), one.clone()]);
    assert_eq!(found[0].message, b"two");
    let path = bytes(&walker, "log/main?path=a&limit=5", 8192).await;
    assert!(path.starts_with(one.as_bytes()));
    fails(walker.walk("log/none").await, Kind::NotFound);

    let at = At::Commit(id(&two));
    for (path, shape, sizes, wanted) in [
        ("", LsShape::Own, false, vec![("", Some(2))]),
        ("d", LsShape::Own, false, vec![("d", Some(2))]),
        ("none", LsShape::Own, false, vec![]),
        ("d/b", LsShape::Own, false, vec![("d/b", Some(2))]),
        ("", LsShape::Entries, false, vec![("a", None), ("d", None)]),
        (
            "d",
            LsShape::Entries,
            true,
            vec![("b", Some(2)), ("c", Some(1))],
        ),
        (
            "",
            LsShape::Leaves,
            true,
            vec![("a", Some(1)), ("d/b", Some(2)), ("d/c", Some(1))],
        ),
    ] {
        let query = LsQuery {
            at: at.clone(),
            path: TreePath::new(path).unwrap(),
            shape,
            sizes,
        };
        let name = format!("ls/{}", String::from_utf8(query.write()).unwrap());
        let text = bytes(&walker, &name, 30).await;
        let mut rest = &text[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let item = text::take_item(&mut rest).unwrap().unwrap();
            found.push((item.path.to_string(), item.size));
        }
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(path, size)| (path.to_owned(), size))
            .collect();
        assert_eq!(found, wanted, "{name}");
    }
    fails(walker.open(&format!("ls/{two}:none")).await, Kind::NotFound);
    let file = walker.open(&format!("ls/{two}:a")).await;
    fails(file, Kind::NotDirectory);
    let diff = bytes(&walker, &format!("diff/{one}..{two}"), 9).await;
    let change = text::take_change(&mut &diff[..]).unwrap().unwrap();
    assert_eq!(change.path.to_string(), "d/c");
    assert!(change.old.is_none());
    let handle = walker.open(&format!("diff/{one}..{two}")).await.unwrap();
    let seek = handle.read(&walker.call, 5, 10).await;
    refused(seek, "Attempt to seek in stream");
    walker.write("branch/main/reset", "0").await.unwrap();
    assert_eq!(walker.cat("refs").await.unwrap(), "");
    walker.mkdir("branch/b%2Fc").await.unwrap();
    walker
        .write("branch/b%2Fc/reset", two.clone())
        .await
        .unwrap();
    let refs = walker.cat("refs").await.unwrap();
    assert_eq!(refs, format!("{two} refs/heads/b/c\n"));
}

#[tokio::test]
async fn a_long_listing_is_read_in_pieces() {
    let walker = memory();
    let tx = walker.begin("main", "t").await;
    for n in 0..3000 {
        let path = format!("{tx}/rw/file{n:05}");
        walker.create(&path, FILE).await.unwrap();
    }
    walker.commit(&tx).await.unwrap();
    let head = walker.head("main").await;
    let text = bytes(&walker, &format!("ls/{head}?recursive"), 100_000).await;
    assert_eq!(text.iter().filter(|b| **b == 0).count(), 3000);
    assert_eq!(walker.ls("branch/main/ro").await.unwrap().len(), 3000);
}

#[tokio::test]
async fn branches_with_slashes() {
    let walker = memory();
    walker.mkdir("branch/feature%2Fx").await.unwrap();
    let root = walker.walk("branch").await.unwrap();
    let raw = root.lookup(&walker.call, b"feature/x").await.unwrap();
    let encoded = root.lookup(&walker.call, b"feature%2fx").await.unwrap();
    assert_eq!(raw.id(), encoded.id());
    assert_eq!(raw.name(), b"feature%2Fx");
    walker.store("feature%2Fx", &[("a", "1")], "one").await;
    assert_eq!(walker.ls("branch").await.unwrap(), ["feature%2Fx"]);
    let dir = Create::Dir;
    let beside = root.create(&walker.call, b"feature", dir.clone()).await;
    fails(beside, Kind::Exists);
    let below = root.create(&walker.call, b"feature/x/y", dir.clone()).await;
    fails(below, Kind::Exists);
    for bad in [&b"a%2"[..], b"a%zz", b"a..b", b"x.lock", b"-x", b"a b"] {
        fails(
            root.create(&walker.call, bad, dir.clone()).await,
            Kind::Invalid,
        );
    }
    fails(root.lookup(&walker.call, b"a..b").await, Kind::NotFound);
    fails(root.lookup(&walker.call, b"%").await, Kind::Invalid);
    root.create(&walker.call, b"100%25", dir.clone())
        .await
        .unwrap();
    root.create(&walker.call, "ü%FF".as_bytes(), dir)
        .await
        .unwrap();
    let names = walker.ls("branch").await.unwrap();
    assert_eq!(names, ["100%25", "feature%2Fx", "ü%FF"]);
    // It is there for this connection only, until it has a commit.
    let other = walker.another();
    assert_eq!(other.ls("branch").await.unwrap(), ["feature%2Fx"]);
}

#[tokio::test]
async fn moving_heads() {
    let walker = memory();
    let one = walker.store("main", &[("a", "1")], "one").await;
    let two = walker.store("main", &[("a", "2")], "two").await;
    walker.mkdir("branch/b").await.unwrap();
    let forward = "branch/b/fast-forward";
    refused(
        walker.write(forward, "junk").await,
        "invalid-hash \"junk\": Failure(\"junk\")",
    );
    walker.write(forward, two.clone()).await.unwrap();
    walker.write(forward, two.clone()).await.unwrap();
    refused(walker.write(forward, one.clone()).await, "not-fast-forward");
    let reset = async |text: String| {
        let handle = walker.open("branch/b/reset").await.unwrap();
        let at = text.len() as u64;
        handle.write(&walker.call, 0, text.into()).await?;
        let data = handle.read(&walker.call, at, 100).await?;
        Ok::<_, Error>(String::from_utf8_lossy(&data).trim().to_owned())
    };
    fails(reset(format!("{one} ff-only")).await, Kind::HeadMoved);
    fails(reset(format!("{one} expect={one}")).await, Kind::HeadMoved);
    fails(reset(format!("{one} expect=0")).await, Kind::HeadMoved);
    assert_eq!(reset(format!("{one} expect={two}")).await.unwrap(), two);
    assert_eq!(reset("0".into()).await.unwrap(), one);
    fails(reset("0".into()).await, Kind::NotFound);
    assert_eq!(reset(format!("{two} expect=0")).await.unwrap(), "0");
    fails(walker.write("branch/b/rename", "main").await, Kind::Exists);
    let node = walker.walk("branch/b").await.unwrap();
    walker.write("branch/b/rename", "c%2Fd").await.unwrap();
    assert_eq!(node.name(), b"c%2Fd");
    assert_eq!(walker.head("c%2Fd").await, two);
}

#[tokio::test]
async fn calls() {
    let walker = memory();
    walker.mkdir("branch/main").await.unwrap();
    let apply = "branch/main/apply";
    let request = "message 3\nhey\nauthor A <a@b> 7 +0000\n\
        write keep dir/f\n5\nhello\nlink l\n1\nx\nwrite exec big\n+2\nab\n+1\nc\n+0\ncommit\n";
    let head = ask(&walker, apply, request).await.unwrap();
    assert_eq!(walker.head("main").await, head.trim());
    assert_eq!(walker.cat("branch/main/ro/dir/f").await.unwrap(), "hello");
    assert_eq!(walker.cat("branch/main/ro/big").await.unwrap(), "abc");
    let message = walker.cat(&format!("snapshots/{}/msg", head.trim())).await;
    assert_eq!(message.unwrap(), "hey\n");
    // What is refused moves nothing, and says which edit it was.
    let wrong = "write keep a\n1\nx\nrm none\ncommit\n";
    let error = ask(&walker, apply, wrong).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.failure.edit),
        (Kind::NotFound, Some(2))
    );
    assert_eq!(walker.head("main").await, head.trim());
    for bad in ["nonsense\n", "done\n", "rm a\nmessage 1\nx\n"] {
        fails(ask(&walker, apply, bad).await, Kind::Invalid);
    }
    let expect = format!("expect {}\nrm l\ncommit\n", "a".repeat(40));
    fails(ask(&walker, apply, &expect).await, Kind::HeadMoved);
    // Closed before its end: nothing happened.
    let handle = walker.open(apply).await.unwrap();
    handle
        .write(&walker.call, 0, "rm l\n".into())
        .await
        .unwrap();
    let early = handle.read(&walker.call, 0, 10).await;
    fails(early, Kind::Invalid);
    refused(
        handle.write(&walker.call, 9, "commit\n".into()).await,
        "Attempt to seek in stream",
    );
    handle.close(&walker.call).await.unwrap();
    assert_eq!(walker.head("main").await, head.trim());
    // Nothing may follow.
    let handle = walker.open(apply).await.unwrap();
    handle
        .write(&walker.call, 0, "commit\n".into())
        .await
        .unwrap();
    fails(
        handle.write(&walker.call, 7, "x".into()).await,
        Kind::Invalid,
    );

    let theirs = walker.store("side", &[("s", "x")], "side").await;
    let merge = format!("theirs {theirs}\ndry-run\ndone\n");
    let merged = ask(&walker, "branch/main/merge", &merge).await.unwrap();
    let merged = text::read_merged(merged.as_bytes()).unwrap();
    assert_eq!(merged.head, Some(id(&walker.head("main").await)));
    let merge = format!("theirs {theirs}\ndone\n");
    let merged = ask(&walker, "branch/main/merge", &merge).await.unwrap();
    let merged = text::read_merged(merged.as_bytes()).unwrap();
    assert_eq!(merged.head, Some(id(&walker.head("main").await)));
    assert_eq!(walker.cat("branch/main/ro/s").await.unwrap(), "x");
    fails(
        ask(&walker, "branch/main/merge", "done\n").await,
        Kind::Invalid,
    );
}

#[tokio::test]
async fn a_long_call_is_spooled() {
    let walker = memory();
    walker.mkdir("branch/main").await.unwrap();
    let handle = walker.open("branch/main/apply").await.unwrap();
    let size = 9 << 20;
    let mut offset = 0;
    let mut send = async |data: Bytes| {
        let length = data.len() as u64;
        handle.write(&walker.call, offset, data).await.unwrap();
        offset += length;
    };
    send(format!("write normal big\n{size}\n").into()).await;
    let piece = Bytes::from(vec![b'q'; 1 << 20]);
    for _ in 0..9 {
        send(piece.clone()).await;
    }
    send("\nappend big\n3\nend\ncommit\n".into()).await;
    let attr = walker.attr("branch/main/ro/big").await.unwrap();
    assert_eq!(attr.size, size + 3);
}

#[tokio::test]
async fn durable_transactions_by_call() {
    let walker = memory();
    let base = walker.store("main", &[("a", "1")], "one").await;
    let begun = ask(&walker, "branch/main/begin", "name job\ndone\n")
        .await
        .unwrap();
    let tx = text::take_transaction(&mut begun.as_bytes())
        .unwrap()
        .unwrap();
    assert_eq!((tx.id.as_str(), tx.base), ("job", Some(id(&base))));
    let again = ask(&walker, "branch/main/begin", "name job\ndone\n").await;
    fails(again, Kind::Exists);
    let edited = ask(&walker, "tx/job/apply", "write keep b\n1\n2\ndone\n")
        .await
        .unwrap();
    let tx = text::take_transaction(&mut edited.as_bytes())
        .unwrap()
        .unwrap();
    assert_eq!(tx.edits, 1);
    assert_eq!(walker.cat("tx/job/rw/b").await.unwrap(), "2");
    let set = "message 2\nhi\ndone\n";
    let record = ask(&walker, "tx/job/apply", set).await.unwrap();
    assert_eq!(walker.cat("tx/jo/meta").await.unwrap(), record);
    assert_eq!(walker.cat("tx/job/msg").await.unwrap(), "hi");
    let head = ask(&walker, "tx/job/apply", "commit\n").await.unwrap();
    assert_eq!(walker.head("main").await, head.trim());
    let again = ask(&walker, "tx/job/apply", "commit\n").await.unwrap();
    assert_eq!(again, head, "asked again, it answers the same");
    let state = walker.cat("tx/job/state").await.unwrap();
    assert_eq!(state, format!("committed {head}"));
    let handle = walker.open("maintenance/tx").await.unwrap();
    let words = "older-than=0";
    handle.write(&walker.call, 0, words.into()).await.unwrap();
    let dropped = handle.read(&walker.call, 12, 8192).await.unwrap();
    let dropped = text::take_transaction(&mut &dropped[..]).unwrap().unwrap();
    assert_eq!(dropped.id.as_str(), "job");
    assert!(walker.ls("tx").await.unwrap().is_empty());
}

#[tokio::test]
async fn tasks() {
    let walker = memory();
    walker.store("main", &[("a", "1")], "one").await;
    let handle = walker.open("maintenance/fsck").await.unwrap();
    fails(handle.read(&walker.call, 0, 10).await, Kind::Invalid);
    fails(
        handle.write(&walker.call, 0, "what".into()).await,
        Kind::Invalid,
    );
    handle.write(&walker.call, 0, "\n".into()).await.unwrap();
    let mut text = Vec::new();
    // Read where the write ended, as a shell does.
    loop {
        let at = 1 + text.len() as u64;
        let data = soon(handle.read(&walker.call, at, 10)).await.unwrap();
        if data.is_empty() {
            break;
        }
        text.extend_from_slice(&data);
    }
    let end = handle.read(&walker.call, 1 + text.len() as u64, 10).await;
    assert!(end.unwrap().is_empty());
    let last = text
        .trim_ascii_end()
        .split(|b| *b == b'\n')
        .next_back()
        .unwrap();
    assert_eq!(text::read_task_line(last), Ok(TaskLine::Ok));
    // A store in memory cannot collect: the failure is the last line.
    let handle = walker.open("maintenance/gc").await.unwrap();
    handle
        .write(&walker.call, 0, "dry-run".into())
        .await
        .unwrap();
    let line = soon(handle.read(&walker.call, 0, 8192)).await.unwrap();
    match text::read_task_line(line.trim_ascii_end()).unwrap() {
        TaskLine::Error(failure) => assert_eq!(failure.kind, Kind::Unsupported),
        other => panic!("{other:?}"),
    }
    fails(
        handle.write(&walker.call, 7, "x".into()).await,
        Kind::Invalid,
    );
}
