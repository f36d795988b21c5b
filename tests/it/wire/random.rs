//! Random messages come back as they were; random bytes are refused in peace.

use std::time::Instant;

use bytes::{Buf as _, Bytes};
use datakit::ninep::message::{Dialect, Reply, Request};
use datakit::ninep::wire::{Data, Error, Input, Output, Text};
use proptest::prelude::*;

use super::any::{Dice, duration, seed};
use super::noise;

fn bytes(mut out: Output) -> Bytes {
    let length = out.len();
    out.copy_to_bytes(length)
}

proptest! {
    #[test]
    fn messages_come_back(seed: u64, tag: u16) {
        let mut dice = Dice(seed);
        for dialect in Dialect::ALL {
            let request = dice.request(dialect);
            let mut out = Output::default();
            request.encode(tag, dialect, &mut out).unwrap();
            prop_assert_eq!(request.width(dialect), Ok(out.len()));
            let frame = bytes(out);
            prop_assert_eq!(Request::decode(&frame, dialect), Ok((tag, request)));
            let reply = dice.reply(dialect);
            let mut out = Output::default();
            reply.encode(tag, dialect, &mut out).unwrap();
            prop_assert_eq!(reply.width(dialect), Ok(out.len()));
            let frame = bytes(out);
            prop_assert_eq!(Reply::decode(&frame, dialect), Ok((tag, reply)));
        }
    }

    /// What decodes is told again in the same bytes: nothing is made up.
    #[test]
    fn noise_is_refused_or_taken_at_its_word(
        number: u8,
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        // Small numbers are lengths that may fit.
        small in proptest::collection::vec(0..4u8, 0..200),
        mix: bool,
    ) {
        let body = if mix { small } else { tail };
        noise::decode(&[&[0, 0, 0, 0, number, 1, 2], &body[..]].concat());
    }
}

/// Messages with a few bytes changed, cut or added.
#[test]
fn decoding_is_done_in_peace() {
    let (begun, first) = (Instant::now(), seed());
    let (mut dice, mut count) = (Dice(first), 0u64);
    while begun.elapsed() < duration() {
        for _ in 0..1000 {
            let dialect = *dice.pick(&Dialect::ALL);
            let mut out = Output::default();
            match dice.below(2) {
                0 => dice.request(dialect).encode(1, dialect, &mut out),
                _ => dice.reply(dialect).encode(1, dialect, &mut out),
            }
            .unwrap();
            let mut frame = bytes(out).to_vec();
            for _ in 0..dice.below(4) {
                let at = dice.below(frame.len());
                frame[at] = *dice.pick(&[0, 1, 2, 0x7f, 0x80, 0xff]);
            }
            match dice.below(4) {
                0 => frame.truncate(dice.below(frame.len() + 1)),
                1 => frame.push(dice.long() as u8),
                _ => (),
            }
            noise::decode(&frame);
        }
        count += 1000;
    }
    println!("{count} frames from seed {first}");
}

/// However the bytes come, the frames are the same.
#[tokio::test]
async fn frames_are_cut_from_any_pieces() {
    let mut dice = Dice(7);
    for round in 0..200 {
        let mut messages = Vec::new();
        let mut out = Output::default();
        for tag in 0..20 {
            let request = dice.request(Dialect::Linux);
            request.encode(tag, Dialect::Linux, &mut out).unwrap();
            messages.push((tag, request));
        }
        let all = bytes(out);
        let mut pieces = Pieces {
            rest: all,
            dice: dice.clone(),
            most: *dice.pick(&[1, 10, 1000, 100_000]),
        };
        let (mut input, mut found) = (Input::default(), Vec::new());
        while input.fill(&mut pieces).await.unwrap() {
            while let Some(frame) = input.frame(1 << 20).unwrap() {
                found.push(Request::decode(&frame, Dialect::Linux).unwrap());
            }
            if dice.below(3) == 0 {
                input.rest();
            }
        }
        assert!(found == messages, "round {round}");
    }
}

/// A reader that gives a few bytes at a time.
struct Pieces {
    rest: Bytes,
    dice: Dice,
    most: usize,
}

impl tokio::io::AsyncRead for Pieces {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let most = self.most;
        let count = self.dice.below(most) + 1;
        let count = count.min(self.rest.len()).min(buffer.remaining());
        let piece = self.rest.split_to(count);
        buffer.put_slice(&piece);
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_frame_too_long_is_refused_before_it_comes() {
    for (size, refused) in [
        (0, true),
        (6, true),
        (7, false),
        (8192, false),
        (8193, true),
        (u32::MAX, true),
    ] {
        let mut input = Input::default();
        let bytes = size.to_le_bytes();
        input.fill(&mut &bytes[..]).await.unwrap();
        let found = input.frame(8192);
        match refused {
            true => assert_eq!(found, Err(Error::Frame { size, max: 8192 })),
            false => assert_eq!(found, Ok(None)),
        }
    }
}

#[test]
fn what_cannot_be_sent_is_said_and_leaves_nothing() {
    let mut out = Output::default();
    let long: Text = vec![b'x'; 65_536].into();
    let target = Reply::Readlink { target: long };
    assert_eq!(target.encode(1, Dialect::Linux, &mut out), Err(Error::Long));
    let names = std::iter::repeat_n("x", 65_536).collect();
    let walk = Request::Walk {
        fid: 1,
        newfid: 2,
        names,
    };
    assert_eq!(walk.encode(1, Dialect::Linux, &mut out), Err(Error::Long));
    let names = [vec![b'x'; 65_536]].into_iter().collect();
    let walk = Request::Walk {
        fid: 1,
        newfid: 2,
        names,
    };
    assert_eq!(walk.encode(1, Dialect::Linux, &mut out), Err(Error::Long));
    assert!(out.is_empty());
}

/// Large data is sent from where it lies, whatever is before and behind it.
#[test]
fn output_is_the_messages_in_order() {
    let mut out = Output::default();
    let mut expected = Vec::new();
    let mut sent = Vec::new();
    let mut dice = Dice(3);
    for round in 0..500u16 {
        let length = *dice.pick(&[0, 10, 4095, 4096, 70_000]);
        let data = Bytes::from(vec![round as u8; length]);
        let reply = Reply::Read { data: Data(data) };
        reply.encode(round, Dialect::Plain, &mut out).unwrap();
        let mut alone = Output::default();
        reply.encode(round, Dialect::Plain, &mut alone).unwrap();
        expected.extend_from_slice(&bytes(alone));
        // Some of it goes, as a socket would take it.
        let count = dice.below(out.len() + 1);
        sent.extend_from_slice(&out.copy_to_bytes(count));
        if dice.below(20) == 0 {
            out.rest();
        }
    }
    sent.extend_from_slice(&bytes(out));
    assert!(sent == expected);
}
