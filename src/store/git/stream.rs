//! Reads one object as a stream: a loose file, or an undeltified entry of a pack.
//!
//! - Memory stays bounded whatever the object's length.
//! - A stream gives exactly the announced number of bytes and its checksum has
//!   been seen to be right, or it fails: it never ends early in silence.

mod stored;

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;

use gix::zlib::{Decompress, FlushDecompress, Status};

use crate::model::ObjectId;
use crate::store::engine::ObjectKind;
use crate::store::{Error, Result};

use stored::Stored;

const BUFFER: usize = 64 * 1024;
/// "commit", a blank, 20 digits and a NUL, rounded up.
pub(super) const LOOSE_HEADER_MAX: usize = 32;

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
    stream.ahead(1).map_err(cannot_read(path))?;
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

    /// Takes what was inflated before it was asked for.
    fn take_inflated(&mut self, out: &mut [u8]) -> usize {
        let taken = out.len().min(self.inflated.len());
        out[..taken].copy_from_slice(&self.inflated[..taken]);
        self.inflated.drain(..taken);
        taken
    }

    /// Inflates into `out`; 0 only at the end of the stream or for an empty `out`.
    fn inflate(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stored.is_some() && !self.ended && !out.is_empty() {
            match self.copy(out, true)? {
                Some(made) => return Ok(made),
                None => self.start_over()?,
            }
        }
        while !self.ended && !out.is_empty() {
            self.ahead(1)?;
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
        let made = match self.take_inflated(&mut out[..wanted]) {
            0 => self.inflate(&mut out[..wanted])?,
            made => made,
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

    pub(super) fn file(parts: &[&[u8]]) -> tempfile::NamedTempFile {
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

    pub(super) fn read(file: &tempfile::NamedTempFile) -> Result<Vec<u8>, String> {
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
}
