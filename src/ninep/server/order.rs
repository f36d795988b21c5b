//! Which request waits for which: those of one fid in the order they came.
//!
//! Only requests that could not be answered at once are here, so mostly it is
//! empty. A fid that is about to be made is known by its number already: that
//! is why walk, open, read and clunk may be sent in one go.

use std::collections::{HashMap, VecDeque};

/// What a request does with a fid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Looks at the node: waits for changes, but not for reads, which may
    /// wait for ever.
    Look,
    /// Reads in its turn.
    Read,
    /// Changes content or attributes.
    Write,
    /// Makes, opens or ends the fid.
    Own,
}

/// The fids a request is about.
pub type Claims = [Option<(u32, Use)>; 2];

/// Requests under way, by fid, in order of arrival.
#[derive(Debug, Default)]
pub struct Order {
    fids: HashMap<u32, VecDeque<(u64, Use)>>,
}

impl Order {
    /// Tells whether nothing that came before `id` stands in the way.
    pub fn free(&self, id: u64, claims: &Claims) -> bool {
        self.fids.is_empty()
            || claims.iter().flatten().all(|(fid, later)| {
                let earlier = self.fids.get(fid).into_iter().flatten();
                !earlier
                    .take_while(|(other, _)| *other < id)
                    .any(|(_, earlier)| waits(*earlier, *later))
            })
    }

    /// Puts a request behind those that are there.
    pub fn enter(&mut self, id: u64, claims: &Claims) {
        for (fid, how) in claims.iter().flatten() {
            self.fids.entry(*fid).or_default().push_back((id, *how));
        }
    }

    /// Takes a request out and returns, oldest first, those that it or others
    /// before them hold up no longer; among them are some that never waited.
    pub fn leave(&mut self, id: u64, claims: &Claims) -> Vec<u64> {
        let mut freed = Vec::new();
        for (fid, _) in claims.iter().flatten() {
            let Some(queue) = self.fids.get_mut(fid) else {
                continue;
            };
            queue.retain(|(other, _)| *other != id);
            if queue.is_empty() {
                self.fids.remove(fid);
                continue;
            }
            let mut seen: [bool; 4] = [false; 4];
            for (other, how) in queue.iter() {
                let held = EVERY
                    .iter()
                    .any(|earlier| seen[*earlier as usize] && waits(*earlier, *how));
                if !held {
                    freed.push(*other);
                }
                seen[*how as usize] = true;
            }
        }
        freed.sort_unstable();
        freed.dedup();
        freed
    }

    /// Returns those of a fid, oldest first.
    pub fn of(&self, fid: u32) -> impl Iterator<Item = (u64, Use)> + '_ {
        self.fids.get(&fid).into_iter().flatten().copied()
    }
}

const EVERY: [Use; 4] = [Use::Look, Use::Read, Use::Write, Use::Own];

fn waits(earlier: Use, later: Use) -> bool {
    match (earlier, later) {
        (Use::Own, _) | (_, Use::Own) | (Use::Write, _) => true,
        (Use::Look, _) | (Use::Read, Use::Look) => false,
        (Use::Read, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(fid: u32, how: Use) -> Claims {
        [Some((fid, how)), None]
    }

    #[test]
    fn a_burst_on_a_fid_to_be_goes_step_by_step() {
        let mut order = Order::default();
        let burst = [
            [Some((1, Use::Look)), Some((2, Use::Own))],
            one(2, Use::Own),
            one(2, Use::Read),
            one(2, Use::Own),
        ];
        for (id, claims) in burst.iter().enumerate() {
            assert_eq!(order.free(id as u64, claims), id == 0);
            order.enter(id as u64, claims);
        }
        for (id, claims) in burst.iter().enumerate() {
            let freed = order.leave(id as u64, claims);
            let next = id as u64 + 1;
            assert_eq!(freed, if next < 4 { vec![next] } else { vec![] });
        }
        assert!(order.fids.is_empty());
    }

    #[test]
    fn looks_pass_reads_but_not_writes() {
        let mut order = Order::default();
        order.enter(0, &one(1, Use::Read));
        assert!(order.free(1, &one(1, Use::Look)));
        assert!(!order.free(1, &one(1, Use::Read)));
        assert!(order.free(1, &one(2, Use::Own)), "another fid");
        order.enter(1, &one(1, Use::Write));
        assert!(!order.free(2, &one(1, Use::Look)));
        order.enter(2, &one(1, Use::Look));
        order.enter(3, &one(1, Use::Look));
        assert_eq!(order.leave(0, &one(1, Use::Read)), [1]);
        assert_eq!(order.leave(1, &one(1, Use::Write)), [2, 3]);
    }
}
