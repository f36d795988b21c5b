//! Takes content from readers: just as long as announced, or it is an error.
//!
//! A reader's own failure is [`Error::Source`], in its words.

use std::io::{self, Read};

use super::{Error, Result};

const CHUNK: usize = 64 * 1024;

fn source_failed(error: io::Error) -> Error {
    Error::Source(error.into())
}

/// Reads once; 0 is the end.
fn read_some(reader: &mut dyn Read, chunk: &mut [u8]) -> Result<usize> {
    loop {
        match reader.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            result => return result.map_err(source_failed),
        }
    }
}

/// Reads up to `most` bytes: fewer only where the reader ends.
pub(super) fn take_up_to(reader: &mut dyn Read, most: u64) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    reader
        .take(most)
        .read_to_end(&mut data)
        .map_err(source_failed)?;
    Ok(data)
}

/// Reads exactly what is announced, into memory.
pub(super) fn take_all(reader: &mut dyn Read, announced: u64) -> Result<Vec<u8>> {
    let data = take_up_to(&mut *reader, announced)?;
    check_length(reader, data.len() as u64, announced)?;
    Ok(data)
}

/// Gives all to `take`, chunk by chunk; returns how much it was.
pub(super) fn copy(
    reader: &mut dyn Read,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut got = 0;
    loop {
        let count = read_some(reader, &mut chunk)?;
        if count == 0 {
            return Ok(got);
        }
        take(&chunk[..count])?;
        got += count as u64;
    }
}

/// Gives exactly what is announced to `take`, chunk by chunk.
pub(super) fn copy_exactly(
    reader: &mut dyn Read,
    announced: u64,
    take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let got = copy(&mut Read::take(&mut *reader, announced), take)?;
    check_length(reader, got, announced)
}

/// Sees that a reader gave as much as was announced, and ends there.
fn check_length(reader: &mut dyn Read, got: u64, announced: u64) -> Result<()> {
    if got < announced {
        return Err(Error::Invalid(format!(
            "content ends after {got} of {announced} bytes"
        )));
    }
    match read_some(reader, &mut [0])? {
        0 => Ok(()),
        _ => Err(Error::Invalid(format!(
            "content goes on after {announced} bytes"
        ))),
    }
}
