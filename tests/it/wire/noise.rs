//! Bytes that may be a message or not. A fuzz target runs this too.

use bytes::{Buf as _, Bytes};
use datakit::ninep::message::{Dialect, Entry, Reply, Request};
use datakit::ninep::wire::Output;

/// Takes bytes for a frame of every dialect. What decodes must be told again
/// in the same bytes, its size set right: nothing is made up or dropped.
pub fn decode(bytes: &[u8]) {
    let mut frame = bytes.to_vec();
    if frame.len() >= 4 {
        let size = (frame.len() as u32).to_le_bytes();
        frame[..4].copy_from_slice(&size);
    }
    let frame = Bytes::from(frame);
    for dialect in Dialect::ALL {
        if let Ok((tag, request)) = Request::decode(&frame, dialect) {
            assert_eq!(request.width(dialect), Ok(frame.len()));
            let mut out = Output::default();
            request
                .encode(tag, dialect, &mut out)
                .expect("it fitted before");
            assert_eq!(out.copy_to_bytes(out.len()), frame, "{request:?}");
        }
        if let Ok((tag, reply)) = Reply::decode(&frame, dialect) {
            assert_eq!(reply.width(dialect), Ok(frame.len()));
            let mut out = Output::default();
            reply
                .encode(tag, dialect, &mut out)
                .expect("it fitted before");
            assert_eq!(out.copy_to_bytes(out.len()), frame, "{reply:?}");
            if let Reply::Readdir { data } = &reply {
                let _ = Entry::list(data);
            }
        }
    }
}
