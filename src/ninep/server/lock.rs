//! Advisory locks of 9P2000.L: ranges of a file, held in the server's memory.
//!
//! They are POSIX's: an owner (a process of a client, on one connection) never
//! conflicts with itself, and locking again replaces. Nobody waits here: who
//! finds a range held is told so, and comes back.
//!
//! Lock order: the one lock here is taken last and for moments.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub connection: u64,
    pub process: u32,
    pub client: Vec<u8>,
}

/// A range of bytes, held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub owner: Owner,
    /// Through which it was taken; it goes with the fid.
    pub fid: u32,
    pub exclusive: bool,
    pub start: u64,
    /// The last byte of it.
    pub last: u64,
}

impl Held {
    /// The wire has a length, and 0 for all that follows.
    pub fn last(start: u64, length: u64) -> u64 {
        match length {
            0 => u64::MAX,
            _ => start.saturating_add(length - 1),
        }
    }

    pub fn length(&self) -> u64 {
        match self.last {
            u64::MAX => 0,
            last => last - self.start + 1,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner && self.overlaps(other) && (self.exclusive || other.exclusive)
    }
}

/// The locks of a server.
#[derive(Clone, Debug)]
pub struct Locks {
    table: Arc<Mutex<Table>>,
    /// How many a connection may hold.
    limit: usize,
}

#[derive(Debug, Default)]
struct Table {
    files: HashMap<u64, Vec<Held>>,
    /// How many each connection holds; none is not listed.
    counts: HashMap<u64, usize>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Taken,
    Blocked,
    /// The connection holds too many.
    TooMany,
}

impl Locks {
    pub fn new(limit: usize) -> Self {
        Self {
            table: Arc::default(),
            limit,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a range.
    pub fn take(&self, file: u64, wanted: Held) -> Attempt {
        let connection = wanted.owner.connection;
        let mut table = self.table();
        let held = table.files.get(&file);
        if held.is_some_and(|held| held.iter().any(|other| other.conflicts(&wanted))) {
            return Attempt::Blocked;
        }
        if table
            .counts
            .get(&connection)
            .is_some_and(|count| *count >= self.limit)
        {
            return Attempt::TooMany;
        }
        table.change(file, connection, |held| {
            free(held, &wanted);
            held.push(wanted);
        });
        Attempt::Taken
    }

    /// Gives a range back, whether it was held or not.
    pub fn give(&self, file: u64, range: &Held) {
        self.table()
            .change(file, range.owner.connection, |held| free(held, range));
    }

    /// Returns a lock that stands in the way of this one.
    pub fn conflict(&self, file: u64, wanted: &Held) -> Option<Held> {
        let table = self.table();
        let mut held = table.files.get(&file)?.iter();
        held.find(|other| other.conflicts(wanted)).cloned()
    }

    /// Gives back what was taken through a fid of a connection.
    pub fn release(&self, connection: u64, file: u64, fid: u32) {
        let mut table = self.table();
        if table.counts.contains_key(&connection) {
            table.change(file, connection, |held| {
                held.retain(|held| held.owner.connection != connection || held.fid != fid);
            });
        }
    }

    /// Gives back all that a connection has.
    pub fn leave(&self, connection: u64) {
        let mut table = self.table();
        if table.counts.remove(&connection).is_some() {
            table.files.retain(|_, held| {
                held.retain(|held| held.owner.connection != connection);
                !held.is_empty()
            });
        }
    }
}

impl Table {
    /// Changes what one connection holds of a file.
    fn change(&mut self, file: u64, connection: u64, change: impl FnOnce(&mut Vec<Held>)) {
        let held = self.files.entry(file).or_default();
        let count = |held: &Vec<Held>| {
            let own = held
                .iter()
                .filter(|held| held.owner.connection == connection);
            own.count()
        };
        let before = count(held);
        change(held);
        let after = count(held);
        if held.is_empty() {
            self.files.remove(&file);
        }
        let total = self.counts.entry(connection).or_default();
        *total = (*total + after).saturating_sub(before);
        if *total == 0 {
            self.counts.remove(&connection);
        }
    }
}

/// Cuts a range out of what its owner holds.
fn free(held: &mut Vec<Held>, range: &Held) {
    let mut rests = Vec::new();
    held.retain(|one| {
        if one.owner != range.owner || !one.overlaps(range) {
            return true;
        }
        if one.start < range.start {
            rests.push(Held {
                last: range.start - 1,
                ..one.clone()
            });
        }
        if one.last > range.last {
            rests.push(Held {
                start: range.last + 1,
                ..one.clone()
            });
        }
        false
    });
    held.append(&mut rests);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(process: u32, exclusive: bool, start: u64, length: u64) -> Held {
        Held {
            owner: Owner {
                connection: 1,
                process,
                client: b"host".to_vec(),
            },
            fid: process,
            exclusive,
            start,
            last: Held::last(start, length),
        }
    }

    #[test]
    fn ranges_are_split_and_shared_as_posix_says() {
        let locks = Locks::new(4);
        assert_eq!(locks.take(7, range(1, true, 0, 0)), Attempt::Taken);
        assert_eq!(locks.take(7, range(2, false, 5, 1)), Attempt::Blocked);
        locks.give(7, &range(1, true, 5, 2));
        assert_eq!(locks.take(7, range(2, false, 5, 2)), Attempt::Taken);
        assert_eq!(locks.take(7, range(3, false, 6, 1)), Attempt::Taken);
        let found = locks.conflict(7, &range(3, true, 0, 3)).unwrap();
        assert_eq!((found.start, found.length()), (0, 5));
        let found = locks.conflict(7, &range(3, false, 7, 0)).unwrap();
        assert_eq!((found.start, found.length()), (7, 0));
        assert_eq!(locks.take(7, range(1, true, u64::MAX, 1)), Attempt::TooMany);
        locks.release(1, 7, 1);
        assert_eq!(locks.conflict(7, &range(3, false, 0, 0)), None);
        locks.leave(1);
        assert!(locks.table().files.is_empty() && locks.table().counts.is_empty());
    }
}
