//! Versions, attaching, and the end of a connection.

use datakit::ninep::errno::*;
use datakit::ninep::message::{Dialect, Reply, Request};
use datakit::ninep::server::Error;
use rs9p::{NOFID, QIdType};

use super::peer::*;

fn agreed(msize: u32, version: &'static str) -> Reply {
    Reply::Version {
        msize,
        version: version.into(),
    }
}

#[tokio::test]
async fn dialects_are_agreed_on() {
    let house = House::new();
    for (offered, answer) in [
        ("9P2000", "9P2000"),
        ("9P2000.u", "9P2000.u"),
        ("9P2000.L", "9P2000.L"),
        ("9P2000.dk", "9P2000.dk"),
        ("9P2000.e", "9P2000"),
        ("9P2000.L.Google.12", "9P2000"),
    ] {
        let mut peer = house.connect();
        assert_eq!(peer.version(8192, offered).await, agreed(8192, answer));
    }
}

#[tokio::test]
async fn an_unknown_version_may_be_followed_by_a_better_one() {
    let house = House::new();
    let mut peer = house.connect();
    for unknown in ["8P2000", "9P", "", "unknown"] {
        assert_eq!(peer.version(8192, unknown).await, agreed(8192, "unknown"));
    }
    assert_eq!(peer.version(8192, "9P2000").await, agreed(8192, "9P2000"));
}

#[tokio::test]
async fn msize_is_the_clients_up_to_a_limit_and_never_raised() {
    let house = House::new();
    for (offered, answer) in [
        (4096, 4096),
        (65536, 65536),
        (1 << 21, 1 << 20),
        (u32::MAX, 1 << 20),
    ] {
        let mut peer = house.connect();
        assert_eq!(
            peer.version(offered, "9P2000").await,
            agreed(answer, "9P2000")
        );
    }
    for small in [0, 1, 24, 4095] {
        let mut peer = house.connect();
        peer.dialect = Dialect::Linux;
        assert_eq!(errno(&peer.version(small, "9P2000.L").await), EINVAL);
        peer.dialect = Dialect::Plain;
        let reply = peer.version(small, "9P2000").await;
        assert!(matches!(reply, Reply::Error { .. }), "{reply:?}");
        assert_eq!(peer.version(4096, "9P2000").await, agreed(4096, "9P2000"));
    }
}

#[tokio::test]
async fn nothing_comes_before_a_version() {
    let house = House::new();
    for request in [attach(0, ""), flush(3), clunk(1)] {
        let mut peer = house.connect();
        peer.send(7, request).await;
        let Reply::Error { text, .. } = peer.get(7).await else {
            panic!("no error");
        };
        assert_eq!(*text, *b"Expected Version message");
        assert!(matches!(peer.ended().await, Err(Error::Version)));
    }
}

#[tokio::test]
async fn a_second_version_starts_anew() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Linux).await;
    peer.open(1, "stream").await;
    assert_eq!(content(&peer.read(1, 0, 99).await), b"0\n");
    peer.send(5, read(1, 2, 99)).await;
    assert_eq!(peer.version(8192, "9P2000").await, agreed(8192, "9P2000"));
    peer.dialect = Dialect::Plain;
    house.toy.say(1);
    assert_eq!(peer.refused(clunk(0)).await, "Unknown fid 0");
    assert_eq!(peer.refused(clunk(1)).await, "Unknown fid 1");
    // The tag of the read that went down with its session is free again.
    peer.send(5, attach(0, "")).await;
    assert!(matches!(peer.get(5).await, Reply::Attach { .. }));
    drop(peer);
    house.empties().await;
}

#[tokio::test]
async fn attaching() {
    let house = House::new();
    for dialect in Dialect::ALL {
        let mut peer = house.attach(dialect).await;
        for aname in ["/", "dir", "/dir"] {
            let reply = peer.ask(attach(5, aname)).await;
            let Reply::Attach { qid } = reply else {
                panic!("{aname}: {reply:?}");
            };
            assert_eq!(qid.typ, QIdType::DIR);
            // `..` leads no further up than that.
            let Reply::Walk { qids } = peer.ask(walk(5, 6, "../..")).await else {
                panic!("no walk");
            };
            assert_eq!(qids, [qid, qid]);
            peer.ask(clunk(5)).await;
            peer.ask(clunk(6)).await;
        }
        let missing = peer.ask(attach(5, "nowhere")).await;
        if dialect != Dialect::Plain {
            assert_eq!(errno(&missing), ENOENT);
        }
        let taken = peer.refused(attach(0, "")).await;
        let nofid = peer.refused(attach(NOFID, "")).await;
        match dialect.is_linux() {
            true => assert_eq!((taken, nofid), ("9".into(), "9".into())),
            false => {
                assert_eq!(taken, "Fid 0 already in use");
                assert_eq!(nofid, "Fid -1 already in use");
            }
        }
    }
}

#[tokio::test]
async fn nobody_needs_to_prove_who_he_is() {
    let house = House::new();
    let auth = || Request::Auth {
        afid: 9,
        uname: "somebody".into(),
        aname: "".into(),
        n_uname: Some(0),
    };
    let mut peer = house.attach(Dialect::Plain).await;
    assert_eq!(peer.refused(auth()).await, "Function not implemented");
    let mut peer = house.attach(Dialect::Linux).await;
    assert_eq!(peer.refused(auth()).await, ENOENT.to_string());
}

#[tokio::test]
async fn a_disconnect_frees_everything() {
    let house = House::new();
    for dialect in Dialect::ALL {
        let mut peer = house.attach(dialect).await;
        peer.open(1, "stream").await;
        peer.open(2, "command").await;
        peer.open(3, "dir").await;
        peer.read(1, 0, 9).await;
        peer.send_all([
            (1, read(1, 2, 9)),
            (2, read(1, 2, 9)),
            (3, write(2, 0, b"go")),
        ])
        .await;
        peer.quiet().await;
        let serving = peer.serving;
        drop(peer.stream);
        soon("the end", serving).await.unwrap().unwrap();
        assert!(house.toy.idle());
        assert_eq!(*house.toy.state.passed.borrow(), 0);
    }
}

#[tokio::test]
async fn what_cannot_be_taken_back_survives_a_disconnect() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Plain).await;
    peer.open(1, "command").await;
    house.toy.state.before.add_permits(1);
    peer.send(1, write(1, 0, b"go")).await;
    let mut passed = house.toy.state.passed.subscribe();
    soon("the point", passed.wait_for(|n| *n == 1))
        .await
        .unwrap();
    let serving = peer.serving;
    drop(peer.stream);
    assert!(!serving.is_finished());
    house.toy.state.after.add_permits(1);
    // It may notice first that nobody takes the answer.
    let _ = soon("the end", serving).await.unwrap();
    assert_eq!(*house.toy.state.done.borrow(), 1);
    assert!(house.toy.idle());
}

#[tokio::test]
async fn a_stop_finishes_what_cannot_be_taken_back_and_says_so() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Plain).await;
    peer.open(1, "command").await;
    peer.open(2, "stream").await;
    peer.read(2, 0, 9).await;
    house.toy.state.before.add_permits(1);
    peer.send_all([(1, write(1, 0, b"go")), (2, read(2, 2, 9))])
        .await;
    let mut passed = house.toy.state.passed.subscribe();
    soon("the point", passed.wait_for(|n| *n == 1))
        .await
        .unwrap();
    house.stop.send_replace(true);
    // No more is read: this is not answered.
    peer.send(3, flush(77)).await;
    house.toy.state.after.add_permits(1);
    assert_eq!(peer.get(1).await, Reply::Write { count: 2 });
    assert_eq!(peer.next().await, None);
    soon("the end", peer.serving).await.unwrap().unwrap();
    assert!(house.toy.idle());
}

#[tokio::test]
async fn what_a_client_asked_before_it_went_is_answered() {
    use tokio::io::AsyncWriteExt as _;
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Plain).await;
    peer.send_all([
        (1, walk(0, 1, "file")),
        (2, Request::Open { fid: 1, mode: 0 }),
        (3, read(1, 0, 99)),
        (4, clunk(1)),
    ])
    .await;
    peer.stream.shutdown().await.unwrap();
    for tag in [1, 2] {
        peer.get(tag).await;
    }
    assert_eq!(content(&peer.get(3).await), b"hello");
    peer.get(4).await;
    peer.ended().await.unwrap();
}

/// Gauges are of the process: nextest gives each test one of its own.
#[tokio::test]
async fn gauges_return_to_nothing() {
    if std::env::var_os("NEXTEST").is_none() {
        println!("skipped: other tests of this process count too (cargo nextest runs it)");
        return;
    }
    let counts = datakit::metrics::metrics();
    let house = House::new();
    let mut peers = Vec::new();
    for dialect in Dialect::ALL {
        let mut peer = house.attach(dialect).await;
        peer.walk(3, "dir").await;
        peer.ask(clunk(99)).await;
        peers.push(peer);
    }
    assert_eq!(counts.connections.get(), 4);
    assert_eq!(counts.fids.get(), 8);
    peers[0].ask(clunk(3)).await;
    peers[1].version(8192, "9P2000").await;
    assert_eq!(counts.fids.get(), 5);
    for peer in peers {
        drop(peer.stream);
        soon("the end", peer.serving).await.unwrap().unwrap();
    }
    assert_eq!((counts.connections.get(), counts.fids.get()), (0, 0));
    let text = counts.text();
    for line in [
        "datakit_connected_total 4",
        "datakit_requests_total{message=\"clunk\"} 5",
        "datakit_errors_total{message=\"clunk\"} 4",
        "datakit_request_latency_seconds_count{message=\"walk\"} 4",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
