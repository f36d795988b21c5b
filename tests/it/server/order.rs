//! Requests that are sent without waiting, and requests that wait.

use datakit::ninep::errno::*;
use datakit::ninep::message::{Dialect, Reply, Request};
use datakit::ninep::wire::Data;
use rs9p::GetAttrMask;

use super::peer::*;

#[tokio::test]
async fn a_whole_use_of_a_file_in_one_go() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    for dialect in Dialect::ALL {
        let mut peer = house.attach(dialect).await;
        for round in 0..20 {
            let open = peer.open_request(1);
            peer.send_all([
                (1, walk(0, 1, "file")),
                (2, open),
                (3, read(1, 0, 99)),
                (4, read(1, 3, 99)),
                (5, clunk(1)),
                (6, read(1, 0, 1)),
            ])
            .await;
            assert!(matches!(peer.get(1).await, Reply::Walk { .. }), "{round}");
            peer.get(2).await;
            assert_eq!(content(&peer.get(3).await), b"hello");
            assert_eq!(content(&peer.get(4).await), b"lo");
            assert_eq!(peer.get(5).await, Reply::Clunk {});
            let gone = peer.get(6).await;
            assert!(matches!(gone, Reply::Error { .. } | Reply::Lerror { .. }));
        }
    }
}

/// All of it waits behind a write that is held, and then goes in order.
#[tokio::test]
async fn a_burst_behind_one_that_waits() {
    let house = House::new();
    let state = &house.toy.state;
    let mut peer = house.attach(Dialect::Linux).await;
    peer.open(1, "command").await;
    peer.send_all([
        (1, write(1, 0, b"go")),
        (2, read(1, 0, 9)),
        (3, walk(1, 2, "")),
        (4, Request::Lopen { fid: 2, flags: 0 }),
        (5, read(2, 0, 9)),
        (6, clunk(2)),
        (7, clunk(1)),
        (8, clunk(2)),
    ])
    .await;
    peer.quiet().await;
    state.before.add_permits(1);
    state.after.add_permits(1);
    let mut tags = Vec::new();
    for _ in 0..8 {
        let (tag, reply) = peer.next().await.unwrap();
        if tag == 8 {
            assert_eq!(errno(&reply), EBADF);
        } else {
            assert!(!matches!(reply, Reply::Lerror { .. }), "{tag}: {reply:?}");
        }
        tags.push(tag);
    }
    let of = |wanted: &[u16]| -> Vec<u16> {
        let mut found = tags.clone();
        found.retain(|tag| wanted.contains(tag));
        found
    };
    assert_eq!(of(&[1, 2, 7]), [1, 2, 7], "fid 1");
    assert_eq!(of(&[3, 4, 5, 6, 8]), [3, 4, 5, 6, 8], "fid 2");
}

#[tokio::test]
async fn a_walk_that_fails_makes_no_fid_for_those_behind_it() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Plain).await;
    peer.send_all([
        (1, walk(0, 1, "nowhere")),
        (2, Request::Open { fid: 1, mode: 0 }),
        (3, clunk(1)),
    ])
    .await;
    for (tag, expected) in [
        (1, "No such file or directory"),
        (2, "Unknown fid 1"),
        (3, "Unknown fid 1"),
    ] {
        let Reply::Error { text, .. } = peer.get(tag).await else {
            panic!("no error");
        };
        assert_eq!(*text, *expected.as_bytes());
    }
}

#[tokio::test]
async fn one_that_waits_holds_up_nobody_else() {
    let house = House::new();
    house.toy.file(b"file", b"hello");
    let mut peer = house.attach(Dialect::Linux).await;
    peer.open(1, "stream").await;
    peer.read(1, 0, 9).await;
    peer.send(1, read(1, 2, 9)).await;
    peer.open(2, "file").await;
    assert_eq!(content(&peer.read(2, 0, 99).await), b"hello");
    // Nor those who only look at the same fid.
    let mask = GetAttrMask::BASIC;
    let looked = peer.ask(Request::Getattr { fid: 1, mask }).await;
    assert!(matches!(looked, Reply::Getattr { .. }), "{looked:?}");
    assert!(matches!(peer.ask(walk(1, 3, "")).await, Reply::Walk { .. }));
    house.toy.say(4);
    assert_eq!(content(&peer.get(1).await), b"4\n");
}

#[tokio::test]
async fn effects_are_in_the_order_of_requests() {
    let house = House::new();
    house.toy.file(b"file", b"");
    let mut peer = house.attach(Dialect::Linux).await;
    for fid in 1..9 {
        peer.open(fid, "file").await;
    }
    let mut burst = Vec::new();
    for turn in 0..200u16 {
        let data = Data(turn.to_le_bytes().to_vec().into());
        let fid = u32::from(turn % 8) + 1;
        let offset = u64::from(turn % 3);
        burst.push((turn, Request::Write { fid, offset, data }));
        burst.push((1000 + turn, read(fid % 8 + 1, offset, 2)));
    }
    peer.send_all(burst).await;
    for turn in 0..200u16 {
        assert_eq!(peer.get(turn).await, Reply::Write { count: 2 });
        assert_eq!(content(&peer.get(1000 + turn).await), turn.to_le_bytes());
    }
}

/// Those that only ask and come together are answered from one look; whatever
/// may have changed something ends that, and so does what comes later.
#[tokio::test]
async fn questions_that_come_together_share_a_turn() {
    let house = House::new();
    house.toy.turn();
    house.toy.file(b"file", b"");
    let mut peer = house.attach(Dialect::Linux).await;
    peer.open(1, "turn").await;
    peer.open(2, "file").await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        peer.send_all([
            (1, read(1, 0, 99)),
            (2, walk(0, 3, "dir")),
            (3, read(1, 0, 99)),
            (4, write(2, 0, b"new")),
            (5, read(1, 0, 99)),
            (6, clunk(3)),
            (7, read(1, 0, 99)),
            (8, read(1, 1, 99)),
        ])
        .await;
        let mut told = Vec::new();
        for tag in 1..9 {
            let reply = peer.get(tag).await;
            if matches!(reply, Reply::Read { .. }) {
                told.push(content(&reply).to_vec());
            }
        }
        assert_eq!(told[0], told[1]);
        assert_eq!(told.pop().unwrap(), b"None", "what waits is in no turn");
        told.remove(0);
        for turn in told {
            assert!(turn.starts_with(b"Some("));
            assert!(seen.insert(turn), "a turn has ended and goes on");
        }
    }
}

#[tokio::test]
async fn ten_thousand_waiting_reads_all_hear_it() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Linux).await;
    let streams = 10_000;
    for fid in 1..=streams {
        let tag = fid as u16;
        let lopen = Request::Lopen { fid, flags: 0 };
        peer.send_all([
            (tag, walk(0, fid, "stream")),
            (tag, lopen),
            (tag, read(fid, 0, 9)),
        ])
        .await;
        for _ in 0..3 {
            peer.get(tag).await;
        }
        peer.send(tag, read(fid, 2, 9)).await;
    }
    peer.quiet().await;
    house.toy.say(1);
    let mut heard = vec![false; streams as usize + 1];
    for _ in 0..streams {
        let (tag, reply) = peer.next().await.unwrap();
        assert_eq!(content(&reply), b"1\n");
        assert!(!std::mem::replace(&mut heard[usize::from(tag)], true));
    }
}
