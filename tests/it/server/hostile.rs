//! Clients that do what they must not. Each costs itself its connection at
//! most: another one is served before and after.

use std::time::Duration;

use datakit::ninep::errno::*;
use datakit::ninep::message::{Dialect, Reply, Request};
use datakit::ninep::server::{Error, Limits};
use datakit::ninep::wire::Text;
use tokio::io::AsyncWriteExt as _;

use super::peer::*;

/// Somebody else is served as ever.
async fn others_live(house: &House) {
    let mut peer = house.attach(Dialect::Linux).await;
    assert!(matches!(peer.walk(1, "dir").await, Reply::Walk { .. }));
}

#[tokio::test]
async fn impossible_lengths_end_the_connection() {
    let house = House::new();
    for length in [0, 1, 4, 6, 1 << 20 | 1, 1 << 24, 1 << 31, u32::MAX] {
        let mut peer = house.attach(Dialect::Linux).await;
        let mut frame = vec![0; 64];
        frame[..4].copy_from_slice(&u32::to_le_bytes(length));
        peer.send_bytes(&frame).await;
        let ended = peer.ended().await;
        assert!(matches!(ended, Err(Error::Frame(_))), "{length}: {ended:?}");
    }
    // Before a version is agreed on nothing long is believed.
    let mut peer = house.connect();
    peer.send_bytes(&[0, 0, 1, 0, 100, 255, 255]).await;
    assert!(matches!(peer.ended().await, Err(Error::Frame(_))));
    others_live(&house).await;
    house.empties().await;
}

#[tokio::test]
async fn half_a_frame_and_gone() {
    let house = House::new();
    for length in [1, 4, 7, 20] {
        let mut peer = house.attach(Dialect::Linux).await;
        peer.send_bytes(
            &[
                23, 0, 0, 0, 116, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ][..length],
        )
        .await;
        drop(peer.stream);
        soon("the end", peer.serving).await.unwrap().unwrap();
    }
    house.empties().await;
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Linux).await;
    for byte in [9, 0, 0, 0, 108, 1, 0, 2, 0] {
        peer.send_bytes(&[byte]).await;
        peer.stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.get(1).await, Reply::Flush {});
}

#[tokio::test]
async fn messages_that_are_none_are_answered_with_their_tag() {
    let house = House::new();
    for dialect in Dialect::ALL {
        let mut peer = house.attach(dialect).await;
        // No such type; a reply; half a Tclunk; one and a half; a string that
        // goes on beyond the frame; a data length of 2^32 - 1.
        let frames: [&[u8]; 6] = [
            &[7, 0, 0, 0, 255, 9, 0],
            &[7, 0, 0, 0, 121, 9, 0],
            &[9, 0, 0, 0, 120, 9, 0, 1, 0],
            &[13, 0, 0, 0, 120, 9, 0, 1, 0, 0, 0, 1, 0],
            &[17, 0, 0, 0, 110, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0],
            &[
                23, 0, 0, 0, 118, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255,
            ],
        ];
        for frame in frames {
            peer.send_bytes(frame).await;
            let reply = peer.get(9).await;
            assert!(
                matches!(reply, Reply::Error { .. } | Reply::Lerror { .. }),
                "{frame:?}: {reply:?}"
            );
        }
        peer.quiet().await;
    }
    // Each dialect has its own messages only.
    let mut peer = house.attach(Dialect::Plain).await;
    peer.dialect = Dialect::Linux;
    peer.send(1, Request::Statfs { fid: 0 }).await;
    peer.dialect = Dialect::Plain;
    let Reply::Error { text, .. } = peer.get(1).await else {
        panic!("no error");
    };
    assert_eq!(*text, *b"Function not implemented");
    let mut peer = house.attach(Dialect::Linux).await;
    peer.dialect = Dialect::Plain;
    peer.send(1, Request::Stat { fid: 0 }).await;
    peer.dialect = Dialect::Linux;
    assert_eq!(errno(&peer.get(1).await), ENOSYS);
}

#[tokio::test]
async fn a_tag_in_use_twice_ends_the_connection() {
    let house = House::new();
    for again in [read(1, 2, 9), walk(0, 5, ""), flush(300)] {
        let mut peer = house.attach(Dialect::Linux).await;
        peer.open(1, "stream").await;
        peer.read(1, 0, 9).await;
        peer.send_all([(7, read(1, 2, 9)), (7, again)]).await;
        assert!(matches!(peer.ended().await, Err(Error::Tag(7))));
    }
    others_live(&house).await;
    house.empties().await;
}

#[tokio::test]
async fn there_are_so_many_fids_and_no_more() {
    let limits = Limits {
        fids: 100,
        ..Limits::default()
    };
    let house = House::with(limits);
    let mut peer = house.attach(Dialect::Linux).await;
    for fid in 1..100 {
        assert!(matches!(peer.walk(fid, "").await, Reply::Walk { .. }));
    }
    assert_eq!(errno(&peer.walk(100, "").await), EMFILE);
    assert_eq!(errno(&peer.walk(100, "dir").await), EMFILE);
    assert_eq!(errno(&peer.ask(attach(100, "")).await), EMFILE);
    assert!(matches!(
        peer.ask(walk(5, 5, "dir")).await,
        Reply::Walk { .. }
    ));
    peer.ask(clunk(99)).await;
    assert!(matches!(peer.walk(100, "dir").await, Reply::Walk { .. }));
    let mut other = house.attach(Dialect::Unix).await;
    assert!(matches!(other.walk(100, "dir").await, Reply::Walk { .. }));
}

#[tokio::test]
async fn all_the_fids_there_are() {
    let house = House::new();
    let mut peer = house.attach(Dialect::Plain).await;
    for fid in 1..=65_535u32 {
        peer.send(fid as u16, walk(0, fid.wrapping_mul(65_537), "dir"))
            .await;
        peer.get(fid as u16).await;
    }
    others_live(&house).await;
    drop(peer);
    house.empties().await;
}

#[tokio::test]
async fn there_are_so_many_waiting_requests_and_no_more() {
    let limits = Limits {
        outstanding: 10,
        ..Limits::default()
    };
    let house = House::with(limits);
    let mut peer = house.attach(Dialect::Linux).await;
    peer.open(1, "stream").await;
    peer.open(2, "stream").await;
    peer.read(1, 0, 9).await;
    peer.read(2, 0, 9).await;
    for tag in 0..10 {
        peer.send(tag, read(1, 2, 9)).await;
    }
    for (tag, fid) in [(50, 1), (51, 2)] {
        peer.send(tag, read(fid, 2, 9)).await;
        assert_eq!(errno(&peer.get(tag).await), ENOBUFS);
    }
    // What does not wait goes on.
    assert!(matches!(peer.walk(3, "dir").await, Reply::Walk { .. }));
    peer.send(60, flush(3)).await;
    peer.get(60).await;
    peer.send(61, read(2, 2, 9)).await;
    house.toy.say(1);
    assert_eq!(content(&peer.get(0).await), b"1\n");
}

/// Its requests are no longer looked at, so the server holds no more than the
/// bound, and after a while it is gone.
#[tokio::test]
async fn who_never_reads_is_not_served_for_ever() {
    let limits = Limits {
        replies: 1 << 16,
        stalled: Duration::from_millis(100),
        ..Limits::default()
    };
    let house = House::with(limits);
    house.toy.file(b"file", &[b'x'; 50_000]);
    let mut peer = house.attach(Dialect::Linux).await;
    peer.open(1, "file").await;
    let mut frames = Vec::new();
    for tag in 0..10_000u16 {
        frames.push((tag, read(1, 0, 50_000)));
    }
    let mut out = datakit::ninep::wire::Output::default();
    for (tag, request) in frames {
        request.encode(tag, Dialect::Linux, &mut out).unwrap();
    }
    let sending = async {
        let _ = peer.stream.write_all_buf(&mut out).await;
    };
    let ended = tokio::select! {
        biased;
        ended = &mut peer.serving => ended.unwrap(),
        () = async { sending.await; std::future::pending().await } => Ok(()),
    };
    assert!(matches!(ended, Err(Error::Stalled(_))), "{ended:?}");
    assert!(house.toy.idle());
}

#[tokio::test]
async fn who_reads_late_gets_it_all() {
    let limits = Limits {
        replies: 1 << 16,
        ..Limits::default()
    };
    let house = House::with(limits);
    house.toy.file(b"file", &[b'x'; 50_000]);
    let mut peer = house.attach(Dialect::Linux).await;
    peer.open(1, "file").await;
    let requests = (0..100).map(|tag| (tag, read(1, 0, 50_000)));
    peer.send_all(requests).await;
    for tag in 0..100 {
        assert_eq!(content(&peer.get(tag).await).len(), 50_000);
    }
}

#[tokio::test]
async fn nothing_is_longer_than_msize() {
    let house = House::new();
    house.toy.file(b"file", &[b'x'; 50_000]);
    for dialect in Dialect::ALL {
        let mut peer = house.attach_at(dialect, 4096).await;
        peer.open(1, "file").await;
        let reply = peer.read(1, 0, u32::MAX).await;
        assert_eq!(content(&reply).len(), 4096 - 11);
        // Each name is an answer of 13 bytes.
        let long = "dir/..".to_owned() + &"/dir/..".repeat(200);
        let reply = peer.ask(walk(0, 2, &long)).await;
        match dialect {
            Dialect::Plain => assert!(matches!(reply, Reply::Error { .. })),
            _ => assert_eq!(errno(&reply), EMSGSIZE),
        }
        let fits = "dir/..".to_owned() + &"/dir/..".repeat(150);
        let reply = peer.ask(walk(0, 2, &fits)).await;
        assert!(matches!(reply, Reply::Walk { .. }), "{reply:?}");
        // Nor is one that says why.
        let name: Text = vec![b'n'; 4000].into();
        let (mode, gid) = (0, 0);
        let mkdir = Request::Mkdir {
            dfid: 1,
            name,
            mode,
            gid,
        };
        if dialect.is_linux() {
            assert_eq!(errno(&peer.ask(mkdir).await), ENOTDIR);
        }
    }
}

/// Noise, and noise in frames, at every dialect: it is answered or ends the
/// connection, and never more than that.
#[tokio::test]
async fn noise() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let house = House::new();
    for round in 0..400 {
        let dialect = Dialect::ALL[round % 4];
        let mut peer = house.attach(dialect).await;
        let mut bytes: Vec<u8> = (0..2000).map(|_| random() as u8).collect();
        if round % 2 == 0 {
            let mut at = 0;
            while at + 7 < bytes.len() {
                let length = 7 + random() as usize % 60;
                let length = length.min(bytes.len() - at);
                bytes[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
                // Not Tversion, which would be answered in another dialect.
                if bytes[at + 4] == 100 {
                    bytes[at + 4] = 110;
                }
                at += length;
            }
        }
        peer.send_bytes(&bytes).await;
        peer.stream.shutdown().await.unwrap();
        let _ = peer.ended().await;
    }
    house.empties().await;
    others_live(&house).await;
}
