//! Streams that are not compressed (RFC 1951, 3.2.4), as dk keeps what would not
//! get shorter: read from the file right to where it is wanted, and what is in
//! memory of the file without a wait. One in which a compressed block comes is
//! inflated from there on.

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _, Seek as _, SeekFrom};

use zlib_rs::adler32::adler32;

use super::{BUFFER, Inflating};
use crate::store::engine::ObjectStream;

/// What stands before a stored block: a byte, its length, and that inverted.
const BLOCK_HEADER: usize = 5;
/// Of that byte: no block follows, and how this one is compressed.
const LAST: u8 = 0b1;
const COMPRESSED: u8 = 0b110;

/// Where among stored blocks a stream is.
pub(super) struct Stored {
    /// Bytes of this block that are still to come.
    left: usize,
    /// No other follows.
    last: bool,
    /// The checksum of what was given, and how much that was.
    sum: u32,
    given: u64,
}

impl Inflating {
    /// Begins with a zlib stream, whose first bytes come next, at an offset of the file.
    pub(super) fn begin(&mut self, offset: u64) -> io::Result<()> {
        self.begin = offset;
        let &[a, b, head, ..] = self.ahead(3)? else {
            return Ok(());
        };
        let header = u16::from_be_bytes([a, b]);
        // Deflated (8), no dictionary (bit 5), and the check of both bytes.
        let plain = header & 0x0f20 == 0x0800 && header % 31 == 0;
        if plain && head & COMPRESSED == 0 {
            self.from += 2;
            self.stored = Some(Stored {
                left: 0,
                last: false,
                sum: 1,
                given: 0,
            });
        }
        Ok(())
    }

    /// Inflates from the beginning, but for what was given already.
    pub(super) fn start_over(&mut self) -> io::Result<()> {
        let mut left = self.stored.take().map_or(0, |stored| stored.given);
        self.file.seek(SeekFrom::Start(self.begin))?;
        (self.from, self.to) = (0, 0);
        let mut again = vec![0; BUFFER];
        while left > 0 {
            let wanted = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            match self.inflate(&mut again[..wanted])? {
                0 => return Err(self.damaged("it changed while it was read")),
                made => left -= made as u64,
            }
        }
        Ok(())
    }

    /// Copies from stored blocks into `out`: 0 at the end of the stream, `None`
    /// where this is not for us. `wait`: for the disk.
    pub(super) fn copy(&mut self, out: &mut [u8], wait: bool) -> io::Result<Option<usize>> {
        while let Some(stored) = &self.stored
            && stored.left == 0
        {
            let (last, sum) = (stored.last, stored.sum);
            if last {
                let Some(found) = self.ahead(4)?.first_chunk() else {
                    return Err(self.damaged("its data ends early"));
                };
                if u32::from_be_bytes(*found) != sum {
                    return Err(self.damaged("its data cannot be inflated"));
                }
                self.ended = true;
                return Ok(Some(0));
            }
            let &[head, a, b, c, d, ..] = self.ahead(BLOCK_HEADER)? else {
                return Ok(None);
            };
            let length = u16::from_le_bytes([a, b]);
            if head & COMPRESSED != 0 || length != !u16::from_le_bytes([c, d]) {
                return Ok(None);
            }
            self.from += BLOCK_HEADER;
            if let Some(stored) = &mut self.stored {
                stored.left = length.into();
                stored.last = head & LAST != 0;
            }
        }
        let Some(stored) = &mut self.stored else {
            return Ok(None);
        };
        let wanted = stored.left.min(out.len());
        let made = if self.from < self.to {
            let made = wanted.min(self.to - self.from);
            out[..made].copy_from_slice(&self.input[self.from..self.from + made]);
            self.from += made;
            made
        } else {
            // With the end of a block comes what stands before the next.
            let ahead = if wanted == stored.left {
                BLOCK_HEADER
            } else {
                0
            };
            let mut places = [
                IoSliceMut::new(&mut out[..wanted]),
                IoSliceMut::new(&mut self.input[..ahead]),
            ];
            let got = match wait {
                true => self.file.read_vectored(&mut places)?,
                false => read_cached(&self.file, &mut places)?,
            };
            (self.from, self.to) = (0, got.saturating_sub(wanted));
            got.min(wanted)
        };
        if made == 0 {
            return Err(self.damaged("its data ends early"));
        }
        stored.left -= made;
        stored.given += made as u64;
        stored.sum = adler32(stored.sum, &out[..made]);
        Ok(Some(made))
    }
}

impl ObjectStream for Inflating {
    fn read_ready(&mut self, out: &mut [u8]) -> usize {
        // The last byte is left to `read`, which sees that all is right.
        let most = usize::try_from(self.left.saturating_sub(1)).unwrap_or(usize::MAX);
        let wanted = out.len().min(most);
        let mut ready = self.take_inflated(&mut out[..wanted]);
        while ready < wanted
            && let Some(stored) = &self.stored
            && (stored.left > 0 || self.to - self.from >= BLOCK_HEADER)
        {
            match self.copy(&mut out[ready..wanted], false) {
                Ok(Some(made)) if made > 0 => ready += made,
                // It is found again by whoever waits.
                _ => break,
            }
        }
        self.left -= ready as u64;
        ready
    }
}

/// Reads what is in memory of a file, at its place.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    Ok(preadv2(file, places, u64::MAX, ReadWriteFlags::NOWAIT)?)
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::super::{LOOSE_HEADER_MAX, loose, tests::read};
    use super::*;
    use crate::model::ObjectId;
    use crate::store::engine::ObjectKind;

    /// A zlib stream of stored blocks of these lengths, and what is behind them.
    fn stored(content: &[u8], blocks: &[usize], behind: &[u8]) -> Vec<u8> {
        let mut out = vec![0x78, 0x01];
        let mut at = 0;
        for (number, length) in blocks.iter().enumerate() {
            let last = number + 1 == blocks.len() && behind.is_empty();
            out.push(u8::from(last));
            let count = u16::try_from(*length).unwrap();
            out.extend_from_slice(&count.to_le_bytes());
            out.extend_from_slice(&(!count).to_le_bytes());
            out.extend_from_slice(&content[at..at + length]);
            at += length;
        }
        out.extend_from_slice(behind);
        out.extend_from_slice(&adler32(1, content).to_be_bytes());
        out
    }

    fn kept(stream: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(stream).unwrap();
        file
    }

    /// Of a blob of five digits' length.
    const HEADER: usize = 11;

    /// What stands in an object of so many bytes in all, and its data.
    fn blob(length: usize) -> (Vec<u8>, Vec<u8>) {
        let header = ObjectKind::Blob.header((length - HEADER) as u64);
        let mut content = header.into_bytes();
        assert_eq!(content.len(), HEADER);
        let mut next = 1_u32;
        content.resize_with(length, || {
            next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (next >> 24) as u8
        });
        let data = content[HEADER..].to_vec();
        (content, data)
    }

    #[test]
    fn stored_blocks_are_read_as_they_are() {
        let (content, data) = blob(99_999);
        for blocks in [
            &[65_535, 34_464][..],
            &[1, 0, 11, 1, 65_000, 34_986, 0],
            &[34_464, 65_535],
        ] {
            let file = kept(&stored(&content, blocks, b""));
            assert!(read(&file).as_ref() == Ok(&data), "{blocks:?}");
            let id = ObjectId::from_bytes(&[7; 20]).unwrap();
            for step in [1, 7, 65_535, 65_536, 100_000] {
                let (_, _, mut stream) = loose(file.path(), id).unwrap().unwrap();
                let mut all = Vec::new();
                while (&mut stream).take(step).read_to_end(&mut all).unwrap() > 0 {}
                assert!(all == data, "{blocks:?} by {step}");
            }
        }
    }

    #[test]
    fn what_is_ready_is_the_beginning_of_what_is_read() {
        let (content, data) = blob(99_999);
        let id = ObjectId::from_bytes(&[7; 20]).unwrap();
        let blocks = [65_535, 34_464];
        let mut damaged = stored(&content, &blocks, b"");
        *damaged.last_mut().unwrap() ^= 1;
        for (bytes, whole) in [(stored(&content, &blocks, b""), true), (damaged, false)] {
            let file = kept(&bytes);
            let (_, _, mut stream) = loose(file.path(), id).unwrap().unwrap();
            let mut all = vec![0; data.len()];
            // It was written just now: as far as the file system can tell what
            // is in memory, all of it is.
            let ready = stream.read_ready(&mut all);
            assert!(all[..ready] == data[..ready] && ready < data.len());
            let rest = stream.read_exact(&mut all[ready..]);
            assert_eq!(rest.is_ok(), whole, "the end is for whoever checks it");
            assert!(!whole || all == data);
        }
        let file = super::super::tests::file(&[b"blob 99988\0", &data]);
        let (_, _, mut deflated) = loose(file.path(), id).unwrap().unwrap();
        let mut all = Vec::new();
        let ready = deflated.read_ready(&mut [0; 1000]);
        assert!(ready < LOOSE_HEADER_MAX, "inflating is work");
        deflated.read_to_end(&mut all).unwrap();
        assert!(all == data[ready..]);
    }

    #[test]
    fn stored_blocks_that_are_damaged_are_an_error() {
        let (content, _) = blob(70_013);
        let whole = stored(&content, &[65_535, 4_478], b"");
        assert!(read(&kept(&whole)).is_ok());
        for at in [
            2,
            3,
            5,
            7,
            100,
            65_541,
            65_542,
            65_545,
            70_000,
            whole.len() - 1,
        ] {
            let mut bent = whole.clone();
            bent[at] ^= 0x02;
            let error = read(&kept(&bent)).unwrap_err();
            assert!(error.contains("is damaged"), "{at}: {error}");
            let error = read(&kept(&whole[..at])).unwrap_err();
            assert!(error.contains("is damaged"), "{at}: {error}");
        }
    }

    #[test]
    fn compressed_blocks_may_follow_stored_ones() {
        let (content, data) = blob(90_013);
        let mut rest = Vec::new();
        let level = gix::zlib::Compression::BEST_SPEED;
        crate::store::git::loose::deflate(level, &[&content[70_000..]], &mut rest);
        // Neither its header nor its checksum.
        let rest = &rest[2..rest.len() - 4];
        let file = kept(&stored(&content, &[65_535, 4_465], rest));
        assert!(read(&file) == Ok(data));
        let wrong = kept(&stored(&content, &[65_535, 4_464], rest));
        assert!(read(&wrong).unwrap_err().contains("is damaged"));
    }
}
