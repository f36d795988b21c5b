//! Reads one object as a stream: a loose file, or an undeltified entry of a pack.
//!
//! - Memory stays bounded whatever the object's length.
//! - A stream gives exactly the announced number of bytes and its checksum has
//!   been seen to be right, or it fails: it never ends early in silence.
//! - What is not compressed (RFC 1951, 3.2.4), as dk keeps what would not get
//!   shorter, is read from the file right to where it is wanted.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek as _, SeekFrom};
use std::path::Path;

use gix::zlib::{Decompress, FlushDecompress, Status};
use zlib_rs::adler32::adler32;

use crate::model::ObjectId;
use crate::store::engine::ObjectKind;
use crate::store::{Error, Result};

const BUFFER: usize = 64 * 1024;
/// "commit", a blank, 20 digits and a NUL, rounded up.
pub(super) const LOOSE_HEADER_MAX: usize = 32;

/// What stands before a stored block: a byte, its length, and that inverted.
const BLOCK_HEADER: usize = 5;
/// Of that byte: no block follows, and how this one is compressed.
const LAST: u8 = 0b1;
const COMPRESSED: u8 = 0b110;

/// Content that is inflated as it is read.
pub(super) struct Inflating {
    id: ObjectId,
    file: File,
    /// As long as no block was compressed.
    stored: Option<Stored>,
    state: Decompress,
    /// Where in the file what is inflated begins.
    begin: u64,
    input: Box<[u8]>,
    /// What of `input` is still to be inflated.
    from: usize,
    to: usize,
    /// Inflated already, while the header was looked for.
    inflated: Vec<u8>,
    /// Bytes still owed to the reader.
    left: u64,
    ended: bool,
}

/// Where among stored blocks a stream is.
struct Stored {
    /// Bytes of this block that are still to come.
    left: usize,
    /// No other follows.
    last: bool,
    /// The checksum of what was given, and how much that was.
    sum: u32,
    given: u64,
}

/// Opens the loose object in `path`. `None`: there is no such file.
pub(super) fn loose(path: &Path, id: ObjectId) -> Result<Option<(ObjectKind, u64, Inflating)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_read(path)(error)),
    };
    let mut stream = Inflating::new(id, file);
    stream.begin(0).map_err(cannot_read(path))?;
    let mut header = [0; LOOSE_HEADER_MAX];
    let mut filled = 0;
    while filled < header.len() && !stream.ended {
        filled +=
            stream
                .inflate(&mut header[filled..])
                .map_err(|error| match error.downcast() {
                    Ok(corrupt) => corrupt,
                    Err(error) => cannot_read(path)(error),
                })?;
    }
    let (kind, size, length) =
        parse_header(&header[..filled]).ok_or_else(|| stream.corrupt("its header is wrong"))?;
    stream.left = size;
    stream.inflated = header[length..filled].to_vec();
    if stream.inflated.len() as u64 > size {
        return Err(stream.corrupt("it is longer than its header says"));
    }
    Ok(Some((kind, size, stream)))
}

impl Inflating {
    /// Reads all of a small object that was opened at `path`.
    pub fn whole(mut self, path: &Path) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        match self.read_to_end(&mut content) {
            Ok(_) => Ok(content),
            Err(error) => Err(match error.downcast() {
                Ok(corrupt) => corrupt,
                Err(error) => cannot_read(path)(error),
            }),
        }
    }
}

/// Opens the pack entry at `offset`. `None`: it is a delta.
pub(super) fn packed(
    path: &Path,
    offset: u64,
    id: ObjectId,
) -> Result<Option<(ObjectKind, u64, Inflating)>> {
    let mut file = File::open(path).map_err(cannot_read(path))?;
    file.seek(SeekFrom::Start(offset))
        .map_err(cannot_read(path))?;
    let mut stream = Inflating::new(id, file);
    stream.fill().map_err(cannot_read(path))?;
    // gitformat-pack(5): three bits of type, then the size in groups of 4, 7, 7, ... bits.
    let mut bytes = stream.input[..stream.to].iter();
    let mut next = || bytes.next().copied().map(u64::from);
    let mut byte = next().ok_or_else(|| stream.corrupt("its pack ends early"))?;
    let kind = match byte >> 4 & 7 {
        1 => ObjectKind::Commit,
        2 => ObjectKind::Tree,
        3 => ObjectKind::Blob,
        4 => ObjectKind::Tag,
        6 | 7 => return Ok(None),
        _ => return Err(stream.corrupt("its pack entry is of no known type")),
    };
    let mut size = byte & 15;
    let mut shift = 4;
    while byte & 0x80 != 0 {
        byte = next()
            .filter(|_| shift < 64)
            .ok_or_else(|| stream.corrupt("its pack entry has no end"))?;
        size |= (byte & 0x7f) << shift;
        shift += 7;
    }
    stream.from = stream.to - bytes.len();
    stream.left = size;
    let begin = offset + stream.from as u64;
    stream.begin(begin).map_err(cannot_read(path))?;
    Ok(Some((kind, size, stream)))
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("cannot read {}", path.display()))
}

/// Splits a loose object's header into kind, size and its own length.
pub(super) fn parse_header(bytes: &[u8]) -> Option<(ObjectKind, u64, usize)> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let (kind, size) = text.split_once(' ')?;
    let kind = match kind {
        "blob" => ObjectKind::Blob,
        "tree" => ObjectKind::Tree,
        "commit" => ObjectKind::Commit,
        "tag" => ObjectKind::Tag,
        _ => return None,
    };
    if !size.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((kind, size.parse().ok()?, end + 1))
}

impl Inflating {
    fn new(id: ObjectId, file: File) -> Self {
        Self {
            id,
            file,
            stored: None,
            state: Decompress::new(),
            begin: 0,
            input: vec![0; BUFFER].into_boxed_slice(),
            from: 0,
            to: 0,
            inflated: Vec::new(),
            left: 0,
            ended: false,
        }
    }

    fn corrupt(&self, why: impl Into<String>) -> Error {
        Error::Corrupt {
            id: self.id.to_string(),
            why: why.into(),
        }
    }

    fn damaged(&self, why: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self.corrupt(why))
    }

    /// Begins with a zlib stream, whose first bytes come next, at an offset of the file.
    fn begin(&mut self, offset: u64) -> io::Result<()> {
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
    fn start_over(&mut self, given: u64) -> io::Result<()> {
        self.stored = None;
        self.file.seek(SeekFrom::Start(self.begin))?;
        (self.from, self.to) = (0, 0);
        let mut left = given;
        let mut again = vec![0; BUFFER.min(usize::try_from(given).unwrap_or(BUFFER))];
        while left > 0 {
            let wanted = again.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.inflate(&mut again[..wanted])? {
                0 => return Err(self.damaged("it changed while it was read")),
                made => left -= made as u64,
            }
        }
        Ok(())
    }

    /// Returns the input that comes next: as many bytes at least, but at its end.
    fn ahead(&mut self, least: usize) -> io::Result<&[u8]> {
        while self.to - self.from < least {
            self.input.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
            match self.file.read(&mut self.input[self.to..])? {
                0 => break,
                more => self.to += more,
            }
        }
        Ok(&self.input[self.from..self.to])
    }

    /// Copies from stored blocks into `out`: 0 at the end of the stream, `None`
    /// where this is not for us.
    fn copy(&mut self, out: &mut [u8]) -> io::Result<Option<usize>> {
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
            let got = self.file.read_vectored(&mut [
                IoSliceMut::new(&mut out[..wanted]),
                IoSliceMut::new(&mut self.input[..ahead]),
            ])?;
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

    /// Reads more input where all of it is used. At the end of the file there is none.
    fn fill(&mut self) -> io::Result<()> {
        if self.from == self.to {
            (self.from, self.to) = (0, self.file.read(&mut self.input)?);
        }
        Ok(())
    }

    /// Inflates into `out`; 0 only at the end of the stream or for an empty `out`.
    fn inflate(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(stored) = &self.stored
            && !self.ended
            && !out.is_empty()
        {
            let given = stored.given;
            match self.copy(out)? {
                Some(made) => return Ok(made),
                None => self.start_over(given)?,
            }
        }
        while !self.ended && !out.is_empty() {
            self.fill()?;
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(&self.input[self.from..self.to], out, FlushDecompress::None)
                .map_err(|_| self.damaged("its data cannot be inflated"))?;
            let used = (self.state.total_in() - before_in) as usize;
            let made = (self.state.total_out() - before_out) as usize;
            self.from += used;
            self.ended = status == Status::StreamEnd;
            if made > 0 {
                return Ok(made);
            }
            if used == 0 && !self.ended {
                return Err(self.damaged("its data ends early"));
            }
        }
        Ok(0)
    }
}

impl Read for Inflating {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(out.len(), |left| left.min(out.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let made = if self.inflated.is_empty() {
            self.inflate(&mut out[..wanted])?
        } else {
            let made = wanted.min(self.inflated.len());
            out[..made].copy_from_slice(&self.inflated[..made]);
            self.inflated.drain(..made);
            made
        };
        if made == 0 {
            return Err(self.damaged("it is shorter than its header says"));
        }
        self.left -= made as u64;
        if self.left == 0 {
            self.finish()?;
        }
        Ok(made)
    }
}

impl Inflating {
    /// Sees that the stream ends where it should and that its checksum is right.
    pub fn finish(&mut self) -> io::Result<()> {
        match self.inflate(&mut [0])? {
            0 => Ok(()),
            _ => Err(self.damaged("it is longer than its header says")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(parts: &[&[u8]]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut out = gix::zlib::stream::deflate::Write::new(
            file.as_file(),
            gix::zlib::Compression::BEST_SPEED,
        );
        for part in parts {
            out.write_all(part).unwrap();
        }
        out.flush().unwrap();
        drop(out);
        file
    }

    fn read(file: &tempfile::NamedTempFile) -> Result<Vec<u8>, String> {
        let id = ObjectId::from_bytes(&[7; 20]).unwrap();
        let (_, _, mut stream) = loose(file.path(), id)
            .map_err(|error| error.to_string())?
            .unwrap();
        let mut all = Vec::new();
        stream
            .read_to_end(&mut all)
            .map_err(|error| error.to_string())?;
        Ok(all)
    }

    #[test]
    fn a_stream_is_whole_or_fails() {
        let content: Vec<u8> = (0..60_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(
            read(&file(&[b"blob 240000\0", &content])).as_ref(),
            Ok(&content)
        );
        assert_eq!(read(&file(&[b"blob 0\0"])), Ok(Vec::new()));
        for (header, why) in [
            (&b"blob 240001\0"[..], "shorter"),
            (b"blob 239999\0", "longer"),
            (b"blob 1\0", "longer"),
            (b"blub 240000\0", "header"),
            (b"blob +240000\0", "header"),
            (b"blob 99999999999999999999999\0", "header"),
        ] {
            let error = read(&file(&[header, &content])).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let cut = file(&[b"blob 240000\0", &content]);
        let length = cut.as_file().metadata().unwrap().len();
        for left in [0, 1, 20, length / 2, length - 1] {
            cut.as_file().set_len(left).unwrap();
            let error = read(&cut).unwrap_err();
            assert!(error.contains("is damaged"), "{left}: {error}");
            cut.as_file().set_len(0).unwrap();
            let whole = file(&[b"blob 240000\0", &content]);
            std::fs::copy(whole.path(), cut.path()).unwrap();
        }
    }

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
        super::super::loose::deflate(level, &[&content[70_000..]], &mut rest);
        // Neither its header nor its checksum.
        let rest = &rest[2..rest.len() - 4];
        let file = kept(&stored(&content, &[65_535, 4_465], rest));
        assert!(read(&file) == Ok(data));
        let wrong = kept(&stored(&content, &[65_535, 4_464], rest));
        assert!(read(&wrong).unwrap_err().contains("is damaged"));
    }
}
