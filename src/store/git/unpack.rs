//! Reads objects from packs, through chains of deltas (gitformat-pack(5)), and
//! small loose ones (gitformat-loose(5)).
//!
//! Whatever a delta is based on is kept for a while, as Git does: a walk through
//! trees or history unpacks each once, not once for each that builds on it.
//! What cannot be read here (damage, a base elsewhere, a large object) is left
//! to gix, which can say why.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gix::objs::Kind;
use gix::zlib::Inflate;
use gix_pack::data::decode::header::ResolvedBase;
use gix_pack::data::entry::Header;
use gix_pack::{MMap, data, index};

use crate::model::ObjectId;
use crate::store::engine::ObjectKind;

use super::deltas::DeltaBases;
use super::stream::{LOOSE_HEADER_MAX, parse_header};

/// Longer ones, and longer chains, are not for here.
const LONGEST: u64 = 16 << 20;
const LONGEST_CHAIN: usize = 4096;

/// A pack and its index.
pub(super) struct Pack {
    pub path: PathBuf,
    kind: gix::hash::Kind,
    index: index::File<MMap>,
    /// Mapped when first read from; nothing where that failed.
    data: OnceLock<Option<data::File<MMap>>>,
}

impl Pack {
    /// `None` where its index is damaged: whoever reads through gix hears of that.
    pub fn open(index: &Path, kind: gix::hash::Kind) -> Option<Self> {
        Some(Self {
            path: index.with_extension("pack"),
            kind,
            index: index::File::at(index, kind).ok()?,
            data: OnceLock::new(),
        })
    }

    /// Returns where in the pack an object begins.
    pub fn offset(&self, id: &ObjectId) -> Option<u64> {
        self.offset_of(gix::oid::from_bytes_unchecked(id.as_bytes()))
    }

    fn offset_of(&self, id: &gix::oid) -> Option<u64> {
        Some(self.index.pack_offset_at_index(self.index.lookup(id)?))
    }

    fn data(&self) -> Option<&data::File<MMap>> {
        let open = || data::File::at(&self.path, self.kind).ok();
        self.data.get_or_init(open).as_ref()
    }
}

/// Unpacks one object after the other.
#[derive(Default)]
pub(super) struct Unpacker {
    inflate: Inflate,
    bases: DeltaBases,
    /// The deltas to apply, the last first, and where they begin.
    chain: Vec<(u64, data::Entry)>,
    delta: Vec<u8>,
    result: Vec<u8>,
}

impl Unpacker {
    /// Reads the object that begins at `offset` into `out`. `number` stands for
    /// the pack, and for no other.
    pub fn unpack(
        &mut self,
        pack: &Pack,
        number: u32,
        offset: u64,
        out: &mut Vec<u8>,
    ) -> Option<Kind> {
        let data = pack.data()?;
        self.chain.clear();
        let mut at = offset;
        let kind = loop {
            if let Some(kind) = self.bases.get(number, at, out) {
                break kind;
            }
            let entry = data.entry(at).ok()?;
            if entry.decompressed_size > LONGEST || self.chain.len() > LONGEST_CHAIN {
                return None;
            }
            let base = match entry.header {
                Header::OfsDelta { base_distance } => {
                    entry.checked_base_pack_offset(base_distance)?
                }
                Header::RefDelta { base_id } => pack.offset_of(&base_id)?,
                header => {
                    let kind = header.as_kind()?;
                    self.inflate(data, &entry, out)?;
                    if !self.chain.is_empty() {
                        self.bases.put(number, at, out, kind);
                    }
                    break kind;
                }
            };
            self.chain.push((at, entry));
            at = base;
        };
        while let Some((at, entry)) = self.chain.pop() {
            let mut delta = std::mem::take(&mut self.delta);
            let inflated = self.inflate(data, &entry, &mut delta);
            self.delta = delta;
            inflated?;
            apply(out, &self.delta, &mut self.result)?;
            std::mem::swap(out, &mut self.result);
            // The next version of a tree is likely to be based on it.
            if !self.chain.is_empty() || kind == Kind::Tree {
                self.bases.put(number, at, out, kind);
            }
        }
        Some(kind)
    }

    /// Reads of what kind the object is that begins at `offset`, and how long.
    pub fn header(&mut self, pack: &Pack, offset: u64) -> Option<(Kind, u64)> {
        let data = pack.data()?;
        let base = |id: &gix::oid| {
            let entry = pack.offset_of(id).map(|offset| data.entry(offset));
            Ok(entry.transpose()?.map(ResolvedBase::InPack))
        };
        let entry = data.entry(offset).ok()?;
        let found = data.decode_header(entry, &mut self.inflate, &base).ok()?;
        Some((found.kind, found.object_size))
    }

    /// As [`Unpacker::header`], of the loose object in a file.
    pub fn loose_header(&mut self, path: &Path) -> Option<(ObjectKind, u64)> {
        /// A stream begins with the codes it is written in, 300 bytes at most.
        const ENOUGH: usize = 512;
        let mut file = File::open(path).ok()?;
        let (mut input, mut start) = ([0; ENOUGH], [0; LOOSE_HEADER_MAX]);
        let read = file.read(&mut input).ok()?;
        self.inflate.reset();
        let (_, _, made) = self.inflate.prefix(&input[..read], &mut start).ok()?;
        let (kind, size, _) = parse_header(&start[..made])?;
        Some((kind, size))
    }

    /// Reads the loose object in a file into `out`. Its checksum is not looked at.
    pub fn loose(&mut self, path: &Path, out: &mut Vec<u8>) -> Option<ObjectKind> {
        let mut file = File::open(path).ok()?;
        let input = &mut self.delta;
        input.clear();
        (&mut file).take(LONGEST).read_to_end(input).ok()?;
        let mut start = [0; LOOSE_HEADER_MAX];
        self.inflate.reset();
        let (_, used, made) = self.inflate.prefix(input, &mut start).ok()?;
        let (kind, size, header) = parse_header(&start[..made])?;
        let size = usize::try_from(size).ok()?;
        if size as u64 > LONGEST || size < made - header {
            return None;
        }
        let rest = &input[used..];
        let length = self.inflate.rest(rest, &start[..made], header, out, size);
        (length.ok()? == size).then_some(kind)
    }

    fn inflate(
        &mut self,
        data: &data::File<MMap>,
        entry: &data::Entry,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        out.clear();
        out.resize(usize::try_from(entry.decompressed_size).ok()?, 0);
        data.decompress_entry(entry, &mut self.inflate, out).ok()?;
        Some(())
    }
}

/// Makes of a base what a delta says. Nothing: the delta is damaged.
fn apply(base: &[u8], delta: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = delta;
    if size(&mut rest)? != base.len() as u64 {
        return None;
    }
    let length = size(&mut rest).filter(|length| *length <= LONGEST)?;
    let length = usize::try_from(length).ok()?;
    out.clear();
    out.reserve(length);
    while let Some((command, after)) = rest.split_first() {
        rest = after;
        let piece = if command & 0x80 != 0 {
            let mut numbers = [0_u8; 8];
            // Four bytes of offset, three of length, each there where its bit is set.
            for (bit, place) in [0, 1, 2, 3, 4, 5, 6].into_iter().enumerate() {
                if command & 1 << bit != 0 {
                    let (byte, after) = rest.split_first()?;
                    numbers[place] = *byte;
                    rest = after;
                }
            }
            let number = u64::from_le_bytes(numbers);
            let start = (number & 0xffff_ffff) as usize;
            let length = match (number >> 32) as usize {
                0 => 0x10000,
                length => length,
            };
            base.get(start..start.checked_add(length)?)?
        } else {
            let length = usize::from(*command);
            if length == 0 {
                return None;
            }
            let (piece, after) = rest.split_at_checked(length)?;
            rest = after;
            piece
        };
        if out.len() + piece.len() > length {
            return None;
        }
        out.extend_from_slice(piece);
    }
    (out.len() == length).then_some(())
}

/// Takes a number off the front of a delta: seven bits a byte, the lowest first.
fn size(delta: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = delta.split_first()?;
        *delta = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use gix::zlib::Compression;

    use super::*;

    fn applied(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"of the last time".to_vec();
        apply(base, delta, &mut out).map(|()| out)
    }

    #[test]
    fn deltas_copy_and_insert() {
        let base = b"0123456789";
        // Copy 3 from 2, insert "ab", copy 1 from 0 (no offset given).
        let delta = [10, 6, 0x91, 2, 3, 2, b'a', b'b', 0x90, 1];
        assert_eq!(applied(base, &delta).unwrap(), b"234ab0");
        let long = vec![7; 0x10000];
        // No length given: 64 KiB.
        let delta = [0x80, 0x80, 4, 0x80, 0x80, 4, 0x80];
        assert_eq!(applied(&long, &delta).unwrap(), long);
    }

    #[test]
    fn a_header_behind_many_codes_is_read() {
        // All bytes there are, and some far more often: the codes take their room.
        let content: Vec<u8> = (0..40_000_u32)
            .map(|number| (number.wrapping_mul(2_654_435_761) >> (8 + number % 17)) as u8)
            .collect();
        let header = format!("blob {}\0", content.len());
        let mut written = Vec::new();
        let parts = [header.as_bytes(), &content];
        let best = Compression::new(9).expect("a level");
        crate::store::git::loose::deflate(best, &parts, &mut written);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &written).expect("writes");
        let found = Unpacker::default().loose_header(file.path());
        assert_eq!(found, Some((ObjectKind::Blob, 40_000)));
    }

    #[test]
    fn damaged_deltas_are_refused() {
        let base = b"0123456789";
        for delta in [
            &[][..],
            &[10],
            &[9, 1, 1, b'a'],
            &[10, 1],
            &[10, 1, 0],
            &[10, 1, 2, b'a', b'b'],
            &[10, 2, 1, b'a'],
            &[10, 3, 3, b'a'],
            &[10, 3, 0x91, 8, 3],
            &[10, 3, 0x91, 8],
            &[10, 1, 0x9f, 255, 255, 255, 255, 1],
            &[
                10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, b'a',
            ],
            &[0x80; 12],
        ] {
            assert_eq!(applied(base, delta), None, "{delta:?}");
        }
    }
}
