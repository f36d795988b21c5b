//! Tflush, as flush(5) has it.

use datakit::ninep::errno::*;
use datakit::ninep::message::{Dialect, Reply};

use super::peer::*;

/// A peer whose fid 1 is the stream, read up to where it waits.
async fn waiting(house: &House, dialect: Dialect) -> Peer {
    let mut peer = house.attach(dialect).await;
    peer.open(1, "stream").await;
    peer.read(1, 0, 99).await;
    peer
}

#[tokio::test]
async fn a_waiting_read_is_taken_back_and_never_answered() {
    let house = House::new();
    for dialect in Dialect::ALL {
        house.toy.say(0);
        let mut peer = waiting(&house, dialect).await;
        peer.send_all([(1, read(1, 2, 99)), (2, flush(1))]).await;
        assert_eq!(peer.get(2).await, Reply::Flush {});
        house.toy.say(1);
        peer.quiet().await;
        // The read did not take what was said, nor moved the fid on.
        assert_eq!(content(&peer.read(1, 2, 99).await), b"1\n");
    }
}

#[tokio::test]
async fn an_unknown_tag_is_flushed_like_any_other() {
    let house = House::new();
    let mut peer = waiting(&house, Dialect::Plain).await;
    for tag in [1, 0x7fff, 0xfffe, 0xffff] {
        assert_eq!(peer.ask(flush(tag)).await, Reply::Flush {});
    }
    // Its own tag is no other's.
    peer.send(5, flush(5)).await;
    assert_eq!(peer.get(5).await, Reply::Flush {});
}

#[tokio::test]
async fn a_late_flush_comes_after_the_answer() {
    let house = House::new();
    let mut peer = waiting(&house, Dialect::Plain).await;
    house.toy.say(1);
    peer.send_all([(1, read(1, 2, 99)), (2, flush(1))]).await;
    assert_eq!(content(&peer.get(1).await), b"1\n");
    assert_eq!(peer.get(2).await, Reply::Flush {});
}

#[tokio::test]
async fn flushed_twice_and_the_flush_flushed() {
    let house = House::new();
    let mut peer = waiting(&house, Dialect::Plain).await;
    peer.send_all([
        (1, read(1, 2, 99)),
        (2, flush(1)),
        (3, flush(1)),
        (4, flush(2)),
    ])
    .await;
    for tag in [2, 3, 4] {
        assert_eq!(peer.get(tag).await, Reply::Flush {});
    }
    house.toy.say(1);
    peer.quiet().await;
}

#[tokio::test]
async fn the_tag_may_be_used_again() {
    let house = House::new();
    let mut peer = waiting(&house, Dialect::Plain).await;
    for round in 1..50 {
        peer.send_all([(1, read(1, 2, 99)), (2, flush(1))]).await;
        assert_eq!(peer.get(2).await, Reply::Flush {});
        peer.send(1, read(1, 2, 99)).await;
        house.toy.say(round);
        assert_eq!(content(&peer.get(1).await), format!("{round}\n").as_bytes());
    }
}

#[tokio::test]
async fn what_has_passed_the_point_of_no_return_is_answered_first() {
    let house = House::new();
    for dialect in Dialect::ALL {
        let state = &house.toy.state;
        let before = *state.passed.borrow();
        let mut peer = house.attach(dialect).await;
        peer.open(1, "command").await;
        state.before.add_permits(1);
        peer.send(1, write(1, 0, b"go")).await;
        let mut passed = state.passed.subscribe();
        soon("the point", passed.wait_for(|n| *n > before))
            .await
            .unwrap();
        peer.send_all([(2, flush(1)), (3, flush(1)), (4, flush(500))])
            .await;
        assert_eq!(peer.get(4).await, Reply::Flush {});
        state.after.add_permits(1);
        assert_eq!(peer.get(1).await, Reply::Write { count: 2 });
        assert_eq!(peer.get(2).await, Reply::Flush {});
        assert_eq!(peer.get(3).await, Reply::Flush {});
    }
}

#[tokio::test]
async fn what_has_not_is_never_done() {
    let house = House::new();
    let state = &house.toy.state;
    let mut peer = house.attach(Dialect::Unix).await;
    peer.open(1, "command").await;
    peer.send_all([(1, write(1, 0, b"go")), (2, flush(1))])
        .await;
    assert_eq!(peer.get(2).await, Reply::Flush {});
    assert_eq!(*state.begun.borrow(), 1);
    state.before.add_permits(1);
    peer.quiet().await;
    assert_eq!(*state.passed.borrow(), 0);
}

#[tokio::test]
async fn what_waits_behind_another_is_taken_out_of_the_queue() {
    let house = House::new();
    let mut peer = waiting(&house, Dialect::Plain).await;
    peer.send_all([
        (1, read(1, 2, 99)),
        (2, read(1, 2, 99)),
        (3, read(1, 2, 99)),
        (4, flush(2)),
    ])
    .await;
    assert_eq!(peer.get(4).await, Reply::Flush {});
    house.toy.say(1);
    assert_eq!(content(&peer.get(1).await), b"1\n");
    house.toy.say(2);
    assert_eq!(content(&peer.get(3).await), b"2\n");
    peer.quiet().await;
}

#[tokio::test]
async fn a_flushed_walk_makes_nothing() {
    let house = House::new();
    let state = &house.toy.state;
    let mut peer = house.attach(Dialect::Plain).await;
    peer.open(1, "command").await;
    // The walk waits behind the write, the flush takes it out.
    peer.send_all([
        (1, write(1, 0, b"go")),
        (2, walk(1, 2, "")),
        (3, clunk(2)),
        (4, flush(2)),
    ])
    .await;
    assert_eq!(peer.get(4).await, Reply::Flush {});
    let Reply::Error { text, .. } = peer.get(3).await else {
        panic!("no error");
    };
    assert_eq!(*text, *b"Unknown fid 2");
    state.before.add_permits(1);
    state.after.add_permits(1);
    assert_eq!(peer.get(1).await, Reply::Write { count: 2 });
    assert!(matches!(peer.walk(2, "dir").await, Reply::Walk { .. }));
}

#[tokio::test]
async fn a_clunk_ends_the_reads_that_wait() {
    let house = House::new();
    for dialect in [Dialect::Unix, Dialect::Linux, Dialect::Dk] {
        house.toy.say(0);
        let mut peer = waiting(&house, dialect).await;
        peer.send_all([(1, read(1, 2, 99)), (2, read(1, 2, 99)), (3, clunk(1))])
            .await;
        assert_eq!(errno(&peer.get(1).await), EINTR);
        assert_eq!(errno(&peer.get(2).await), EINTR);
        assert_eq!(peer.get(3).await, Reply::Clunk {});
        house.toy.say(1);
        peer.quiet().await;
    }
}

#[tokio::test]
async fn a_clunk_waits_for_a_write() {
    let house = House::new();
    let state = &house.toy.state;
    let mut peer = house.attach(Dialect::Linux).await;
    peer.open(1, "command").await;
    peer.send_all([(1, write(1, 0, b"go")), (2, clunk(1))])
        .await;
    peer.quiet().await;
    state.before.add_permits(1);
    state.after.add_permits(1);
    assert_eq!(peer.get(1).await, Reply::Write { count: 2 });
    assert_eq!(peer.get(2).await, Reply::Clunk {});
}
