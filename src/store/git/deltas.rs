//! Keeps what deltas are based on, so that a chain is not unpacked once for
//! each of its members.
//!
//! Never holds more than [`LIMIT`] bytes of content.

use std::collections::HashMap;

use gix::objs::Kind;
use gix_pack::cache::DecodeEntry;

const LIMIT: usize = 32 << 20;

/// Two generations: what is used moves to the young one; when that has half of
/// the limit, it becomes the old one and the old one goes.
#[derive(Default)]
pub(super) struct DeltaBases {
    young: HashMap<(u32, u64), Base>,
    old: HashMap<(u32, u64), Base>,
    /// Bytes in `young`.
    size: usize,
}

struct Base {
    kind: Kind,
    data: Box<[u8]>,
    compressed_size: usize,
}

impl DeltaBases {
    fn insert(&mut self, key: (u32, u64), base: Base) {
        if self.size + base.data.len() > LIMIT / 2 {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
        self.size += base.data.len();
        self.young.insert(key, base);
    }
}

impl DecodeEntry for DeltaBases {
    fn put(&mut self, pack: u32, offset: u64, data: &[u8], kind: Kind, compressed_size: usize) {
        if data.len() > LIMIT / 8 || self.young.contains_key(&(pack, offset)) {
            return;
        }
        let data = data.into();
        self.insert(
            (pack, offset),
            Base {
                kind,
                data,
                compressed_size,
            },
        );
    }

    fn get(&mut self, pack: u32, offset: u64, out: &mut Vec<u8>) -> Option<(Kind, usize)> {
        let key = (pack, offset);
        if let Some(base) = self.old.remove(&key) {
            self.insert(key, base);
        }
        let base = self.young.get(&key)?;
        out.clear();
        out.extend_from_slice(&base.data);
        Some((base.kind, base.compressed_size))
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
        bases.put(1, 0, b"first", Kind::Tree, 3);
        for offset in 1..500 {
            bases.put(1, offset, &data, Kind::Blob, 9);
            assert_eq!(bases.get(1, 0, &mut out), Some((Kind::Tree, 3)), "{offset}");
            assert_eq!(out, b"first");
            let held: usize = [&bases.young, &bases.old]
                .iter()
                .flat_map(|generation| generation.values())
                .map(|base| base.data.len())
                .sum();
            assert!(held <= LIMIT, "{held}");
        }
        assert_eq!(bases.get(1, 1, &mut out), None);
        assert_eq!(bases.get(2, 0, &mut out), None);
    }
}
