//! One connection of our 9P client, against a server played by the test.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use datakit::model::Kind;
use datakit::ninep::client::{Connection, Options, Ticket};
use datakit::ninep::message::{Dialect, Reply, Request};
use datakit::ninep::wire::{Data, Input, Output};
use rs9p::QId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// The server's end.
struct Peer {
    stream: DuplexStream,
    input: Input,
    dialect: Dialect,
}

fn qid() -> QId {
    QId {
        typ: rs9p::QIdType::FILE,
        version: 0,
        path: 1,
    }
}

impl Peer {
    /// Takes the next request.
    async fn take(&mut self) -> (u16, Request) {
        let take = async {
            loop {
                if let Some(frame) = self.input.frame(1 << 20).unwrap() {
                    return Request::decode(&frame, self.dialect).unwrap();
                }
                assert!(self.input.fill(&mut self.stream).await.unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), take)
            .await
            .expect("a request")
    }

    async fn say(&mut self, tag: u16, reply: Reply) {
        let mut out = Output::default();
        reply.encode(tag, self.dialect, &mut out).unwrap();
        let mut bytes = vec![0; out.len()];
        out.copy_to_slice(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Takes a request and answers it.
    async fn answer(&mut self, reply: Reply) -> Request {
        let (tag, request) = self.take().await;
        self.say(tag, reply).await;
        request
    }

    /// Says whatever `data` a read asks for.
    async fn read(&mut self, data: &'static [u8]) -> (u64, u32) {
        let data = Data(Bytes::from_static(data));
        match self.answer(Reply::Read { data }).await {
            Request::Read { offset, count, .. } => (offset, count),
            other => panic!("{other:?}"),
        }
    }
}

/// The server's end of a connection that speaks our dialect from now on.
async fn accepted(stream: DuplexStream) -> Peer {
    let mut peer = Peer {
        stream,
        input: Input::default(),
        dialect: Dialect::Dk,
    };
    let version = peer.answer(Reply::Version {
        msize: 65536,
        version: "9P2000.dk".into(),
    });
    assert!(matches!(version.await, Request::Version { .. }));
    peer
}

/// Connects; the peer has answered version and attach.
async fn connect(options: Options) -> (Connection, Peer) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let peer = tokio::spawn(async move {
        let mut peer = accepted(theirs).await;
        let attach = peer.answer(Reply::Attach { qid: qid() });
        assert!(matches!(attach.await, Request::Attach { .. }));
        peer
    });
    let connection = Connection::new(ours, &options).await.unwrap();
    (connection, peer.await.unwrap())
}

fn getattr() -> Request {
    Request::Getattr {
        fid: 0,
        mask: rs9p::GetAttrMask::BASIC,
    }
}

async fn ask(connection: &Connection) -> Ticket {
    connection.start(getattr(), 0).await.unwrap()
}

fn oops() -> Reply {
    Reply::Lerror {
        errno: 5,
        failure: Some("{\"kind\":\"busy\",\"message\":\"oops\"}".into()),
    }
}

/// A paused clock: time passes at once when nothing else can happen.
fn clock<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_server_of_another_dialect_is_spoken_to_in_linux_s() {
    clock(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(async move {
            let mut peer = Peer {
                stream: theirs,
                input: Input::default(),
                dialect: Dialect::Linux,
            };
            let mut offered = Vec::new();
            for version in ["unknown", "9P2000.L"] {
                let msize = 8192;
                let version = version.into();
                match peer.answer(Reply::Version { msize, version }).await {
                    Request::Version { version, .. } => offered.push(version.to_vec()),
                    other => panic!("{other:?}"),
                }
            }
            peer.answer(Reply::Attach { qid: qid() }).await;
            let refused = Reply::Lerror {
                errno: 2,
                failure: None,
            };
            peer.answer(refused).await;
            (offered, peer)
        });
        let connection = Connection::new(ours, &Options::default()).await.unwrap();
        assert!(!connection.is_ours());
        assert_eq!(connection.unit(), 8192 - 24);
        let error = connection
            .find(connection.root(), b"x")
            .await
            .err()
            .unwrap();
        assert_eq!((error.failure.kind, error.whole), (Kind::NotFound, false));
        let (offered, _peer) = server.await.unwrap();
        assert_eq!(offered, [b"9P2000.dk".to_vec(), b"9P2000.L".to_vec()]);
    });
}

#[test]
fn what_is_no_9p_server_is_refused() {
    clock(async {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b"\xff\xff\xff\xff\x65\xff\xff",
            b"\x13\0\0\0\x65\xff\xff\0\0\0\0\x07\0unknown\x13\0\0\0\x65\xff\xff\0\0\0\0\x07\0unknown",
            b"",
        ] {
            let (ours, mut theirs) = tokio::io::duplex(1 << 16);
            theirs.write_all(bytes).await.unwrap();
            theirs.shutdown().await.unwrap();
            let error = Connection::new(ours, &Options::default()).await.err();
            assert!(error.is_some(), "{}", bytes.escape_ascii());
        }
        // One that says nothing at all.
        let (ours, _theirs) = tokio::io::duplex(1 << 16);
        let error = Connection::new(ours, &Options::default()).await.err();
        assert_eq!(error.unwrap().failure.message, "the server does not answer");
    });
}

#[test]
fn what_is_wanted_first_goes_with_the_attach() {
    clock(async {
        for refused in [false, true] {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let server = tokio::spawn(async move {
                let mut peer = accepted(theirs).await;
                let asked = [peer.take().await, peer.take().await];
                let names = asked.each_ref().map(|(_, request)| request.name());
                assert_eq!(names, ["attach", "walk"]);
                let qids = vec![qid()];
                let unknown = Reply::Lerror {
                    errno: 9,
                    failure: None,
                };
                let answers = match refused {
                    false => [Reply::Attach { qid: qid() }, Reply::Walk { qids }],
                    true => [oops(), unknown],
                };
                for ((tag, _), answer) in asked.into_iter().zip(answers) {
                    peer.say(tag, answer).await;
                }
                peer
            });
            let options = Options::default();
            let found = Connection::with(ours, &options, async |connection| {
                connection.find(connection.root(), b"a").await
            });
            match found.await {
                Ok(_) => assert!(!refused),
                Err(error) => assert_eq!(error.failure.message, "oops", "of the attach"),
            }
            server.await.unwrap();
        }
    });
}

#[test]
fn a_burst_waits_for_no_answer() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let root = connection.root();
        let mut file = connection.open(root, &[b"a", b"b"], 0).await.unwrap();
        let read = file.read(0, 100).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(peer.take().await);
        }
        let names: Vec<&str> = seen.iter().map(|(_, request)| request.name()).collect();
        // The clunk is of the directory between.
        assert_eq!(names, ["walk", "walk", "clunk", "lopen", "read"]);
        let qids = vec![qid()];
        for ((tag, _), reply) in seen.into_iter().zip([
            Reply::Walk { qids: qids.clone() },
            Reply::Walk { qids },
            Reply::Clunk {},
            Reply::Lopen {
                qid: qid(),
                iounit: 10,
            },
            Reply::Read {
                data: Data(Bytes::from_static(b"hello")),
            },
        ]) {
            peer.say(tag, reply).await;
        }
        file.ready().await.unwrap();
        assert_eq!(file.unit(), 10);
        assert_eq!(&read.data(100).await.unwrap()[..], b"hello");
        drop(file);
        let (_, clunk) = peer.take().await;
        assert!(matches!(clunk, Request::Clunk { .. }));
    });
}

#[test]
fn the_first_step_that_failed_is_told() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let root = connection.root();
        let mut file = connection.open(root, &[b"a", b"b"], 0).await.unwrap();
        let unknown = || Reply::Lerror {
            errno: 9,
            failure: None,
        };
        peer.answer(oops()).await;
        for _ in 0..3 {
            peer.answer(unknown()).await;
        }
        let error = file.ready().await.err().unwrap();
        assert_eq!(error.failure.message, "oops");
        assert_eq!(error.failure.kind, Kind::Busy);
        assert_eq!(file.ready().await.err(), Some(error), "told again");
    });
}

#[test]
fn what_is_dropped_is_flushed_and_its_tag_kept_until_that_is_answered() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let ticket = ask(&connection).await;
        let (tag, _) = peer.take().await;
        drop(ticket);
        let (flush, request) = peer.take().await;
        assert_eq!(request, Request::Flush { oldtag: tag });
        // The answer was on its way: it comes before that of the flush.
        let others: Vec<Ticket> = vec![ask(&connection).await, ask(&connection).await];
        peer.say(tag, oops()).await;
        let mut used = Vec::new();
        for _ in 0..2 {
            used.push(peer.take().await.0);
        }
        let late = ask(&connection).await;
        used.push(peer.take().await.0);
        assert!(!used.contains(&tag) && !used.contains(&flush), "{used:?}");
        peer.say(flush, Reply::Flush {}).await;
        for tag in used {
            peer.say(tag, oops()).await;
        }
        for ticket in others.into_iter().chain([late]) {
            assert!(ticket.await.is_err());
        }
        // Now it may be used again.
        let mut tags = Vec::new();
        let again = [ask(&connection).await, ask(&connection).await];
        for _ in &again {
            tags.push(peer.take().await.0);
        }
        for tag in tags {
            peer.say(tag, oops()).await;
        }
        for ticket in again {
            assert!(ticket.await.is_err());
        }
    });
}

#[test]
fn what_was_not_sent_is_not_flushed() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        // Nothing is sent before this task waits.
        drop(ask(&connection).await);
        let kept = ask(&connection).await;
        let (tag, request) = peer.take().await;
        assert_eq!(request, getattr());
        peer.say(tag, oops()).await;
        assert!(kept.await.is_err());
        let mut more = [0];
        let nothing = tokio::time::timeout(Duration::from_secs(5), peer.stream.read(&mut more));
        assert!(nothing.await.is_err());
    });
}

#[test]
fn a_silent_server_is_given_up() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let begun = tokio::time::Instant::now();
        let read = connection.start(getattr(), u32::MAX).await.unwrap();
        let waiting = peer.take().await;
        // A sign of life is asked for, again and again.
        for round in 1..=3 {
            let (tag, _) = peer.take().await;
            assert_eq!(
                begun.elapsed().as_secs() / 30,
                round,
                "{:?}",
                begun.elapsed()
            );
            peer.say(tag, oops()).await;
        }
        let (_unanswered, _) = peer.take().await;
        let error = read.await.err().unwrap();
        assert!(error.lost);
        assert_eq!(begun.elapsed().as_secs() / 10, 13);
        assert!(
            error
                .failure
                .message
                .contains("did not answer for 40 seconds")
        );
        assert_eq!(connection.ended(), Some(error));
        let _ = waiting;
    });
}

#[test]
fn an_idle_connection_is_left_alone() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let mut more = [0];
        let hour = Duration::from_secs(3600);
        let nothing = tokio::time::timeout(hour, peer.stream.read(&mut more)).await;
        assert!(nothing.is_err());
        assert_eq!(connection.ended(), None);
        let ticket = ask(&connection).await;
        let (tag, _) = peer.take().await;
        peer.say(tag, oops()).await;
        assert_eq!(ticket.await.err().unwrap().failure.message, "oops");
    });
}

#[test]
fn everything_fails_when_the_connection_does() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let tickets = [ask(&connection).await, ask(&connection).await];
        peer.take().await;
        drop(peer);
        for ticket in tickets {
            let error = ticket.await.err().unwrap();
            assert!(error.lost, "{error:?}");
        }
        let error = connection.start(getattr(), 0).await.err().unwrap();
        assert!(error.lost);
    });
}

#[test]
fn answers_nobody_asked_for_end_the_connection() {
    clock(async {
        for bytes in [
            // A tag of no request, a type of no message, a length beyond msize,
            // and one that is too short.
            &b"\x07\0\0\0\x79\x07\x07"[..],
            b"\x07\0\0\0\xfe\0\0",
            b"\xff\xff\xff\x7f\x79\0\0",
            b"\x03\0\0\0",
        ] {
            let (connection, mut peer) = connect(Options::default()).await;
            let ticket = ask(&connection).await;
            peer.take().await;
            peer.stream.write_all(bytes).await.unwrap();
            assert!(ticket.await.err().unwrap().lost, "{bytes:?}");
        }
    });
}

#[test]
fn no_more_than_so_many_requests_are_under_way() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let asking = connection.clone();
        let all = tokio::spawn(async move {
            let all = (0..1000).map(|_| async { ask(&asking).await.await });
            futures_util::future::join_all(all).await.len()
        });
        let mut tags = Vec::new();
        while let Ok(request) = tokio::time::timeout(Duration::from_millis(10), peer.take()).await {
            tags.push(request.0);
        }
        assert_eq!(tags.len(), 256);
        for tag in tags {
            peer.say(tag, oops()).await;
        }
        for _ in 256..1000 {
            peer.answer(oops()).await;
        }
        assert_eq!(all.await.unwrap(), 1000);
    });
}

#[test]
fn reading_ahead_follows_short_answers() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let root = connection.root();
        let file = connection.open(root, &[b"a"], 0).await.unwrap();
        let server = tokio::spawn(async move {
            peer.answer(Reply::Walk { qids: vec![qid()] }).await;
            let (qid, iounit) = (qid(), 4);
            peer.answer(Reply::Lopen { qid, iounit }).await;
            // Asked for before the unit was known, with one ahead.
            let (first, unit) = peer.read(b"ab").await;
            assert_eq!(first, 0);
            match peer.answer(oops()).await {
                Request::Read { offset, .. } => assert_eq!(offset, u64::from(unit)),
                other => panic!("{other:?}"),
            }
            assert_eq!(peer.read(b"cdef").await, (2, 4));
            assert_eq!(peer.read(b"gh").await, (6, 4));
            // That there is no more is said to the one sent ahead.
            assert_eq!(peer.read(b"").await, (10, 4));
            peer
        });
        let text = file.pull(0, None).rest(100).await.unwrap();
        assert_eq!(text, b"abcdefgh");
        server.await.unwrap();
    });
}

#[test]
fn a_fid_is_used_again_after_its_clunk_only() {
    clock(async {
        let (connection, mut peer) = connect(Options::default()).await;
        let mut fids = Vec::new();
        for _ in 0..2 {
            let (found, walk) = tokio::join!(
                connection.find(connection.root(), b"a"),
                peer.answer(Reply::Walk { qids: vec![qid()] })
            );
            match walk {
                Request::Walk { newfid, .. } => fids.push(newfid),
                other => panic!("{other:?}"),
            }
            drop(found.unwrap());
            let (tag, _clunk) = peer.take().await;
            if fids.len() == 1 {
                peer.say(tag, Reply::Clunk {}).await;
                // Something after it, so that its answer has been taken.
                let ticket = ask(&connection).await;
                peer.answer(oops()).await;
                assert!(ticket.await.is_err());
            }
        }
        assert_eq!(fids[0], fids[1]);
        let (found, walk) = tokio::join!(
            connection.find(connection.root(), b"a"),
            peer.answer(Reply::Walk { qids: vec![qid()] })
        );
        assert!(found.is_ok());
        match walk {
            Request::Walk { newfid, .. } => assert_ne!(newfid, fids[1]),
            other => panic!("{other:?}"),
        }
    });
}
