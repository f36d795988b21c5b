//! Keeps what deltas are based on, so that a chain is not unpacked once for
//! each of its members.
//!
//! Never holds more than [`LIMIT`] bytes of content. It lies in large pieces:
//! a piece of memory for each base would cost as much as unpacking it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use gix::objs::Kind;

const LIMIT: usize = 32 << 20;
/// Bytes of a piece; what is longer is not kept.
const PIECE: usize = LIMIT / 8;

/// Two generations: what is used moves to the young one; when that has half of
/// the limit, it becomes the old one and the old one goes.
#[derive(Default)]
pub(super) struct DeltaBases {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    bases: HashMap<(u32, u64), Base, BuildHasherDefault<Offsets>>,
    /// Each filled as far as its capacity allows.
    pieces: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
struct Base {
    kind: Kind,
    piece: usize,
    start: usize,
    length: usize,
}

impl Generation {
    fn data(&self, base: &Base) -> &[u8] {
        &self.pieces[base.piece][base.start..][..base.length]
    }

    /// Returns a piece with room for so many bytes, unless there are enough pieces.
    fn room(&mut self, length: usize) -> Option<usize> {
        let full = |piece: &Vec<u8>| piece.capacity() - piece.len() < length;
        if self.pieces.last().is_none_or(full) {
            if self.pieces.len() == LIMIT / 2 / PIECE {
                return None;
            }
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        Some(self.pieces.len() - 1)
    }
}

impl DeltaBases {
    /// Keeps what begins at `offset` in a pack, unless it is kept or too long.
    pub fn put(&mut self, pack: u32, offset: u64, data: &[u8], kind: Kind) {
        let key = (pack, offset);
        if data.len() > PIECE || self.young.bases.contains_key(&key) {
            return;
        }
        let room = self.young.room(data.len());
        let piece = room.or_else(|| {
            self.old = std::mem::take(&mut self.young);
            self.young.room(data.len())
        });
        let Some(piece) = piece else { return };
        let base = Base {
            kind,
            piece,
            start: self.young.pieces[piece].len(),
            length: data.len(),
        };
        self.young.pieces[piece].extend_from_slice(data);
        self.young.bases.insert(key, base);
    }

    /// Reads what begins at `offset` in a pack, if it is kept.
    pub fn get(&mut self, pack: u32, offset: u64, out: &mut Vec<u8>) -> Option<Kind> {
        let key = (pack, offset);
        if let Some(base) = self.young.bases.get(&key) {
            out.clear();
            out.extend_from_slice(self.young.data(base));
            return Some(base.kind);
        }
        let base = *self.old.bases.get(&key)?;
        out.clear();
        out.extend_from_slice(self.old.data(&base));
        self.put(pack, offset, out, base.kind);
        Some(base.kind)
    }
}

/// Mixes the number of a pack and an offset in it: nobody chooses them.
#[derive(Default)]
struct Offsets(u64);

impl Hasher for Offsets {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio in 64 bits.
        let mixed = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_limit_holds() {
        let mut bases = DeltaBases::default();
        let data = vec![1; 1 << 20];
        let mut out = Vec::new();
        bases.put(1, 0, b"first", Kind::Tree);
        for offset in 1..500 {
            bases.put(1, offset, &data, Kind::Blob);
            assert_eq!(bases.get(1, 0, &mut out), Some(Kind::Tree), "{offset}");
            assert_eq!(out, b"first");
            let held: usize = [&bases.young, &bases.old]
                .iter()
                .flat_map(|generation| &generation.pieces)
                .map(Vec::capacity)
                .sum();
            assert!(held <= LIMIT, "{held}");
        }
        assert_eq!(bases.get(1, 1, &mut out), None);
        assert_eq!(bases.get(2, 0, &mut out), None);
    }
}
