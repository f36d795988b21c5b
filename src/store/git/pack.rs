//! Writes a pack and its index, as gitformat-pack(5) has them: version 2 each,
//! no deltas, entries in the order they come.
//!
//! Nothing is visible to a reader before [`Pack::finish`], which makes the pack
//! visible before its index: git looks for the index first.

use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use gix::zlib::stream::deflate;

use crate::model::{HashKind, ObjectId};
use crate::store::engine::{ObjectHasher, ObjectKind};
use crate::store::{Error, Result, content};

use super::durable::Keeping;
use super::loose::{cannot_write, fast};
use super::temp::Temp;

pub(super) const PACK_PREFIX: &str = "tmp_pack_dk";
pub(super) const INDEX_PREFIX: &str = "tmp_idx_dk";
/// Offsets from here on stand in the index's table of long ones.
const LONG_OFFSET: u64 = 1 << 31;
const BUFFER: usize = 1 << 20;

/// A pack under way.
pub(super) struct Pack {
    out: BufWriter<Temp>,
    /// Bytes written so far.
    length: u64,
    entries: Vec<Entry>,
    hash: HashKind,
    keeping: Keeping,
}

struct Entry {
    id: ObjectId,
    offset: u64,
    crc: u32,
}

impl Pack {
    /// Begins a pack in `dir`, which is `objects/pack`.
    pub fn new(dir: &Path, hash: HashKind, keeping: Keeping) -> Result<Self> {
        let file = Temp::new(dir, PACK_PREFIX).map_err(Error::io(format!(
            "cannot create a file in {}",
            dir.display()
        )))?;
        let mut pack = Self {
            out: BufWriter::with_capacity(BUFFER, file),
            length: 0,
            entries: Vec::new(),
            hash,
            keeping,
        };
        // The number of entries is put right at the end.
        pack.write(b"PACK\0\0\0\x02\0\0\0\0")?;
        Ok(pack)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let result = self.out.write_all(bytes);
        result.map_err(cannot_write(self.out.get_ref().path()))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Adds an entry: header and compressed content, and their checksum.
    pub fn append(&mut self, id: ObjectId, parts: &[&[u8]], crc: u32) -> Result<()> {
        let offset = self.length;
        for part in parts {
            self.write(part)?;
        }
        self.entries.push(Entry { id, offset, crc });
        Ok(())
    }

    /// Adds a blob from a reader in bounded memory, unless `known` has its id.
    /// After a failure the pack is as it was before.
    pub fn append_stream(
        &mut self,
        reader: &mut dyn Read,
        size: u64,
        known: impl FnOnce(&ObjectId) -> bool,
    ) -> Result<ObjectId> {
        let offset = self.length;
        let result = self.stream(reader, size);
        let kept = result.as_ref().is_ok_and(|(id, _)| !known(id));
        if !kept {
            self.cut(offset)?;
        }
        let (id, crc) = result?;
        if kept {
            self.entries.push(Entry { id, offset, crc });
        }
        Ok(id)
    }

    fn stream(&mut self, reader: &mut dyn Read, size: u64) -> Result<(ObjectId, u32)> {
        let path = self.out.get_ref().path().to_owned();
        let mut hasher = ObjectHasher::new(self.hash, ObjectKind::Blob, size);
        let mut counted = Counted {
            out: &mut self.out,
            crc: crc32fast::Hasher::new(),
            length: 0,
        };
        let mut header = Vec::new();
        entry_header(ObjectKind::Blob, size, &mut header);
        counted.write_all(&header).map_err(cannot_write(&path))?;
        let mut out = Box::new(deflate::Write::new(&mut counted, fast()));
        content::copy_exactly(reader, size, |chunk| {
            hasher.update(chunk);
            out.write_all(chunk).map_err(cannot_write(&path))
        })?;
        out.flush().map_err(cannot_write(&path))?;
        drop(out);
        let (crc, length) = (counted.crc.finalize(), counted.length);
        self.length += length;
        Ok((hasher.finish()?, crc))
    }

    /// Takes back everything from `offset` on.
    fn cut(&mut self, offset: u64) -> Result<()> {
        let mut cut = || {
            self.out.flush()?;
            let mut file = self.out.get_ref().as_file();
            file.set_len(offset)?;
            file.seek(SeekFrom::Start(offset)).map(|_| ())
        };
        let result = cut();
        self.length = offset;
        result.map_err(cannot_write(self.out.get_ref().path()))
    }

    /// Completes pack and index and makes them durable and visible in `dir`.
    pub fn finish(self, dir: &Path) -> Result<()> {
        let Self {
            out,
            mut entries,
            hash,
            keeping,
            ..
        } = self;
        if entries.is_empty() {
            return Ok(());
        }
        let path = out.get_ref().path().to_owned();
        let failed = || cannot_write(&path);
        let count = u32::try_from(entries.len()).map_err(|_| {
            Error::Unsupported("a pack cannot hold more than 4294967295 objects".into())
        })?;
        let pack = out
            .into_inner()
            .map_err(|error| failed()(error.into_error()))?;
        let mut file = pack.as_file();
        file.seek(SeekFrom::Start(8))
            .and_then(|_| file.write_all(&count.to_be_bytes()))
            .and_then(|()| file.rewind())
            .map_err(failed())?;
        let checksum = checksum(&mut file, hash).map_err(failed())??;
        file.write_all(checksum.as_bytes()).map_err(failed())?;

        entries.sort_unstable_by_key(|entry| entry.id);
        let index = Temp::new(dir, INDEX_PREFIX).map_err(Error::io(format!(
            "cannot create a file in {}",
            dir.display()
        )))?;
        write_index(index.as_file(), &entries, &checksum, hash)
            .map_err(cannot_write(index.path()))??;
        keeping.sync_files(&[&pack, &index])?;
        let name = |extension| dir.join(format!("pack-{checksum}.{extension}"));
        keeping.place(pack, &name("pack"))?;
        keeping.place(index, &name("idx"))?;
        keeping.sync_dirs(&[dir.to_owned()])
    }
}

/// Writes through, counting and checking.
struct Counted<'a, W> {
    out: &'a mut W,
    crc: crc32fast::Hasher,
    length: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.crc.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Appends the header of an undeltified entry: three bits of type, then the
/// size in groups of 4, 7, 7, ... bits, lowest first.
pub(super) fn entry_header(kind: ObjectKind, size: u64, out: &mut Vec<u8>) {
    let number = match kind {
        ObjectKind::Commit => 1,
        ObjectKind::Tree => 2,
        ObjectKind::Blob => 3,
        ObjectKind::Tag => 4,
    };
    let mut byte = number << 4 | (size & 15) as u8;
    let mut rest = size >> 4;
    while rest != 0 {
        out.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    out.push(byte);
}

/// The hash of all that is left in a file.
fn checksum(file: &mut impl Read, hash: HashKind) -> io::Result<Result<ObjectId>> {
    let mut hasher = ObjectHasher::bare(hash);
    let mut chunk = vec![0; BUFFER];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}

/// Writes the index of `entries`, which are in order of their ids.
fn write_index(
    file: impl Write,
    entries: &[Entry],
    pack: &ObjectId,
    hash: HashKind,
) -> io::Result<Result<()>> {
    let mut out = Hashed {
        out: BufWriter::with_capacity(BUFFER, file),
        hasher: ObjectHasher::bare(hash),
    };
    out.write_all(b"\xfftOc\0\0\0\x02")?;
    let mut upto = 0;
    for first in 0..=u8::MAX {
        let tail = &entries[upto..];
        upto += tail.partition_point(|entry| entry.id.as_bytes()[0] <= first);
        out.write_all(&(upto as u32).to_be_bytes())?;
    }
    for entry in entries {
        out.write_all(entry.id.as_bytes())?;
    }
    for entry in entries {
        out.write_all(&entry.crc.to_be_bytes())?;
    }
    let mut long = Vec::new();
    for entry in entries {
        let short = if entry.offset < LONG_OFFSET {
            entry.offset as u32
        } else {
            long.push(entry.offset);
            LONG_OFFSET as u32 | (long.len() - 1) as u32
        };
        out.write_all(&short.to_be_bytes())?;
    }
    for offset in long {
        out.write_all(&offset.to_be_bytes())?;
    }
    out.write_all(pack.as_bytes())?;
    let Hashed { mut out, hasher } = out;
    let checksum = match hasher.finish() {
        Ok(checksum) => checksum,
        Err(error) => return Ok(Err(error)),
    };
    out.write_all(checksum.as_bytes())?;
    out.flush()?;
    Ok(Ok(()))
}

/// Writes through, hashing.
struct Hashed<W> {
    out: W,
    hasher: ObjectHasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_hold_sizes_of_any_length() {
        for (size, bytes) in [
            (0, &[0x30][..]),
            (15, &[0x3f]),
            (16, &[0xb0, 1]),
            (2047, &[0xbf, 0x7f]),
            (2048, &[0xb0, 0x80, 1]),
            (
                u64::MAX,
                &[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
            ),
        ] {
            let mut out = Vec::new();
            entry_header(ObjectKind::Blob, size, &mut out);
            assert_eq!(out, bytes, "{size}");
        }
    }

    #[test]
    fn long_offsets_are_found_by_an_index_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack.idx");
        let offsets = [12, LONG_OFFSET - 1, LONG_OFFSET, LONG_OFFSET * 5, 99];
        let id = |number: usize| ObjectId::from_bytes(&[number as u8 * 50; 20]).unwrap();
        let entries: Vec<_> = offsets
            .iter()
            .enumerate()
            .map(|(number, offset)| Entry {
                id: id(number),
                offset: *offset,
                crc: number as u32,
            })
            .collect();
        let file = std::fs::File::create(&path).unwrap();
        write_index(file, &entries, &id(0), HashKind::Sha1)
            .unwrap()
            .unwrap();
        let index = gix_pack::index::File::at(&path, gix::hash::Kind::Sha1).unwrap();
        index
            .verify_checksum(&mut gix::progress::Discard, &false.into())
            .unwrap();
        for (number, offset) in offsets.iter().enumerate() {
            let oid = gix::ObjectId::from_bytes_or_panic(id(number).as_bytes());
            let found = index.lookup(oid).unwrap();
            assert_eq!(index.pack_offset_at_index(found), *offset);
            assert_eq!(index.crc32_at_index(found), Some(number as u32));
        }
    }
}
