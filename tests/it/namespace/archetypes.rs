//! The stock files: how each is read, written, truncated, changed and removed
//! (spec/db.md section 5), and the ancestor's tests of them (15.1).

use super::*;

const EXECUTABLE: Create = EXEC;

fn link() -> Create {
    let target = Some(b"x".to_vec());
    Create::Link { target }
}

#[tokio::test]
async fn writes() {
    let walker = memory();
    let tx = walker.begin("main", "t").await;
    for path in [format!("{tx}/rw/file"), format!("{tx}/msg")] {
        if path.contains("rw") {
            walker.create(&path, FILE).await.unwrap();
        }
        let handle = walker.open(&path).await.unwrap();
        for (offset, text, wanted) in [
            (0, "hello", "hello"),
            (0, "hi", "hillo"),
            (1, "E", "hEllo"),
            (5, "!", "hEllo!"),
            (7, "!", "hEllo!\0!"),
        ] {
            handle
                .write(&walker.call, offset, text.into())
                .await
                .unwrap();
            assert_eq!(walker.cat(&path).await.unwrap(), wanted);
        }
    }
}

#[tokio::test]
async fn blobs() {
    let walker = memory();
    let tx = walker.begin("main", "t").await;
    let path = format!("{tx}/rw/file");
    walker.create(&path, FILE).await.unwrap();
    assert_eq!(walker.attr(&path).await.unwrap().size, 0);
    let handle = walker.open(&path).await.unwrap();
    let negative = (-2_i64).cast_unsigned();
    let write = handle.write(&walker.call, negative, "x".into()).await;
    refused(write, "Negative offset -2");
    for (offset, text, wanted) in [
        (2, "1st", "\0\x001st"),
        (0, "AB", "AB1st"),
        (2, "CD", "ABCDt"),
        (2, "1s", "AB1st"),
        (4, "EF", "AB1sEF"),
    ] {
        handle
            .write(&walker.call, offset, text.into())
            .await
            .unwrap();
        assert_eq!(walker.cat(&path).await.unwrap(), wanted);
    }
    for (size, wanted) in [
        (7, "AB1sEF\0"),
        (6, "AB1sEF"),
        (5, "AB1sE"),
        (3, "AB1"),
        (0, ""),
    ] {
        walker.resize(&path, size).await.unwrap();
        assert_eq!(walker.cat(&path).await.unwrap(), wanted);
    }
    let minus = (-1_i64).cast_unsigned();
    refused(walker.resize(&path, minus).await, "Negative offset -1");
    walker.write(&path, "AB1st").await.unwrap();
    let read = async |offset: u64, count| handle.read(&walker.call, offset, count).await;
    for (offset, count, wanted) in [
        (2, 0, ""),
        (2, 2, "1s"),
        (2, 3, "1st"),
        (2, 4, "1st"),
        (5, 1, ""),
    ] {
        assert_eq!(read(offset, count).await.unwrap(), wanted);
    }
    refused(read(minus, 1).await, "Negative offset -1");
    refused(read(6, 1).await, "Offset 6 beyond end-of-file (len = 5)");
    // Many appends.
    let mut wanted = Vec::new();
    walker.resize(&path, 0).await.unwrap();
    for n in 0..100_usize {
        let piece = vec![b'a' + (n % 26) as u8; n * 7 % 31];
        let at = wanted.len() as u64;
        wanted.extend_from_slice(&piece);
        handle.write(&walker.call, at, piece.into()).await.unwrap();
    }
    let text = walker.cat(&path).await.unwrap();
    assert_eq!(text.as_bytes(), wanted);
}

#[tokio::test]
async fn fixed_and_computed() {
    let walker = memory();
    let head = walker.store("main", &[("file", "text")], "one").await;
    let fixed = format!("snapshots/{head}/hash");
    let computed = format!("snapshots/{head}/parents");
    for path in [&fixed, &computed, "branch/main/ro/file"] {
        let text = "Read-only file";
        refused(walker.write(path, "x").await, text);
        refused(walker.resize(path, 100).await, text);
        refused(walker.chmod(path, FILE).await, text);
        refused(walker.chmod(path, EXECUTABLE).await, text);
        refused(walker.rm(path).await, text);
        let flag = walker.chmod(path, Create::Dir).await;
        refused(flag, "Incorrect is_directory flag for chmod");
    }
    // To its own length a computed file may be cut, a fixed one not.
    refused(walker.resize(&fixed, 40).await, "Read-only file");
    walker.resize(&computed, 0).await.unwrap();
    walker.resize("branch/main/ro/file", 4).await.unwrap();
    let handle = walker.open(&fixed).await.unwrap();
    let part = handle.read(&walker.call, 3, 5).await.unwrap();
    assert_eq!(part, head[3..8]);
    assert_eq!(walker.attr(&fixed).await.unwrap().size, 40);
}

#[tokio::test]
async fn memory_files() {
    let walker = memory();
    let tx = walker.begin("main", "t").await;
    let path = format!("{tx}/msg");
    walker.resize(&path, 3).await.unwrap();
    assert_eq!(walker.cat(&path).await.unwrap(), "\0\0\0");
    let handle = walker.open(&path).await.unwrap();
    let negative = (-2_i64).cast_unsigned();
    let write = handle.write(&walker.call, negative, "x".into()).await;
    refused(write, "Bad write offset -2");
    refused(
        handle.read(&walker.call, negative, 1).await,
        "Negative offset -2",
    );
    walker.chmod(&path, FILE).await.unwrap();
    let text = "Can't chmod special file";
    refused(walker.chmod(&path, EXECUTABLE).await, text);
    refused(walker.chmod(&path, link()).await, text);
    refused(walker.rm(&path).await, "Read-only file");
    walker.echo(&path, "hi").await.unwrap();
    assert_eq!(walker.cat(&path).await.unwrap(), "hi\n");
    assert_eq!(walker.attr(&path).await.unwrap().size, 3);
    fails(walker.resize(&path, 1 << 40).await, Kind::NoSpace);
    let far = handle.write(&walker.call, 1 << 40, "x".into()).await;
    fails(far, Kind::NoSpace);
}

#[tokio::test]
async fn status() {
    let walker = memory();
    let head = walker.store("main", &[("file", "text")], "one").await;
    let path = "branch/main/head";
    let mut reader = Reader::new(&walker, path).await;
    // Read in two pieces, with the empty read behind each.
    assert_eq!(reader.raw(10).await.unwrap(), head[..10]);
    assert_eq!(reader.raw(10).await.unwrap(), "");
    assert_eq!(reader.raw(100).await.unwrap(), format!("{}\n", &head[10..]));
    assert_eq!(reader.raw(100).await.unwrap(), "");
    // Two in a row are the end.
    assert_eq!(reader.raw(100).await.unwrap(), "");
    let handle = walker.open(path).await.unwrap();
    walker.store("main", &[("file", "other")], "two").await;
    let text = handle.read(&walker.call, 0, 100).await.unwrap();
    assert_eq!(text, format!("{head}\n"), "as when it was opened");
    refused(
        handle.read(&walker.call, 0, 100).await,
        "Attempt to seek in stream",
    );
    for text in [
        walker.write(path, "x").await,
        walker.resize(path, 0).await,
        walker.chmod(path, FILE).await,
        walker.rm(path).await,
    ] {
        refused(text, "Read-only file");
    }
    walker.mkdir("branch/empty").await.unwrap();
    assert_eq!(walker.cat("branch/empty/head").await.unwrap(), "\n");
    assert_eq!(walker.attr(path).await.unwrap().size, 41);
}

#[tokio::test]
async fn command() {
    let walker = memory();
    let head = walker.store("main", &[("file", "text")], "one").await;
    let path = "branch/other/reset";
    walker.mkdir("branch/other").await.unwrap();
    let mut reader = Reader::new(&walker, path).await;
    assert_eq!(reader.raw(100).await.unwrap(), "");
    let handle = walker.open(path).await.unwrap();
    let text = format!("  {head}\n");
    handle
        .write(&walker.call, 0, text.clone().into())
        .await
        .unwrap();
    let at = text.len() as u64;
    // The cursor was moved by the write.
    refused(
        handle.read(&walker.call, 0, 100).await,
        "Attempt to seek in stream",
    );
    assert_eq!(walker.attr(path).await.unwrap().size, 2);
    assert_eq!(handle.read(&walker.call, at, 100).await.unwrap(), "0\n");
    assert_eq!(handle.read(&walker.call, at + 2, 100).await.unwrap(), "");
    assert_eq!(handle.read(&walker.call, at + 2, 100).await.unwrap(), "");
    // A failure leaves result and cursor as they were.
    let wrong = handle.write(&walker.call, at + 2, "what".into()).await;
    fails(wrong, Kind::Invalid);
    handle
        .write(&walker.call, at + 2, "0".into())
        .await
        .unwrap();
    // The result belongs to the file: another handle may read it.
    assert_eq!(walker.cat(path).await.unwrap(), format!("{head}\n"));
    assert_eq!(walker.attr(path).await.unwrap().size, 0, "consumed");
    walker.resize(path, 0).await.unwrap();
    refused(walker.resize(path, 1).await, "Can't extend command file");
    walker.chmod(path, FILE).await.unwrap();
    refused(
        walker.chmod(path, EXECUTABLE).await,
        "Can't chmod special file",
    );
    refused(walker.rm(path).await, "Operation not permitted");
}

#[tokio::test]
async fn commands_at_the_same_time_keep_their_results_apart() {
    let walker = memory();
    let one = walker.store("main", &[("file", "1")], "one").await;
    let two = walker.store("main", &[("file", "2")], "two").await;
    let path = "branch/main/reset";
    let first = walker.open(path).await.unwrap();
    let second = walker.open(path).await.unwrap();
    first
        .write(&walker.call, 0, one.clone().into())
        .await
        .unwrap();
    second
        .write(&walker.call, 0, two.clone().into())
        .await
        .unwrap();
    let text = first.read(&walker.call, 40, 100).await.unwrap();
    assert_eq!(text, format!("{two}\n"));
    let text = second.read(&walker.call, 40, 100).await.unwrap();
    assert_eq!(text, format!("{one}\n"));
}

#[tokio::test]
async fn streams() {
    let walker = memory();
    let path = "branch/main/head.live";
    walker.mkdir("branch/main").await.unwrap();
    let mut reader = Reader::new(&walker, path).await;
    assert_eq!(reader.next().await, "\n");
    let one = walker.store("main", &[("file", "1")], "one").await;
    assert_eq!(reader.next().await, format!("{one}\n"));
    // What comes between two reads is one.
    walker.store("main", &[("file", "2")], "two").await;
    let three = walker.store("main", &[("file", "3")], "three").await;
    assert_eq!(reader.next().await, format!("{three}\n"));
    // There and back again is nothing.
    walker
        .write("branch/main/reset", one.clone())
        .await
        .unwrap();
    walker
        .write("branch/main/reset", three.clone())
        .await
        .unwrap();
    reader.silent().await;
    // A read that is waiting gets the next one; one taken back loses nothing.
    let four = async {
        tokio::task::yield_now().await;
        walker.store("main", &[("file", "4")], "four").await
    };
    let (line, four) = tokio::join!(reader.next(), four);
    assert_eq!(line, format!("{four}\n"));
    // Read byte by byte: a fragment, an empty read, a fragment.
    let mut slow = Reader::new(&walker, path).await;
    let mut text = String::new();
    while text.len() < 41 {
        let piece = soon(slow.raw(7)).await.unwrap();
        assert!(!piece.is_empty() && piece.len() <= 7);
        text += &piece;
        assert_eq!(soon(slow.raw(7)).await.unwrap(), "");
    }
    assert_eq!(text, format!("{four}\n"));
    slow.silent().await;
    for result in [
        walker.write(path, "x").await,
        walker.resize(path, 0).await,
        walker.chmod(path, FILE).await,
        walker.rm(path).await,
    ] {
        refused(result, "Read-only file");
    }
    let handle = walker.open(path).await.unwrap();
    refused(
        handle.read(&walker.call, 5, 100).await,
        "Attempt to seek in stream",
    );
    assert_eq!(walker.attr(path).await.unwrap().size, 0);
}

#[tokio::test]
async fn levels() {
    let walker = memory();
    let path = "debug/src/namespace/level";
    let before = walker.cat(path).await.unwrap();
    for (written, read) in [
        ("debug\n", "debug\n"),
        ("info", "info\n"),
        ("quiet", "quiet\n"),
    ] {
        walker.resize(path, 0).await.unwrap();
        assert_eq!(walker.cat(path).await.unwrap(), "");
        walker.write(path, written).await.unwrap();
        assert_eq!(walker.cat(path).await.unwrap(), read);
    }
    walker.resize(path, 0).await.unwrap();
    let bad = walker.write(path, "loud").await;
    refused(bad, "\"loud\": unknown log level");
    walker.write(path, before).await.unwrap();
    refused(walker.rm(path).await, "Operation not permitted");
    refused(walker.chmod(path, FILE).await, "Operation not permitted");
    assert!(
        walker
            .cat("debug/src/namespace/doc")
            .await
            .unwrap()
            .ends_with('\n')
    );
}
