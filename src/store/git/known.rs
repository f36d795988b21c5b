//! Loose refs as they were last read, for whoever asks all the time.
//!
//! A value is good for as long as the same file is there: Git and dk replace
//! a ref's file by another, and who writes into it moves its times. A file
//! that changed a moment ago is read again each time, for the next change may
//! bear the same time, and even the same inode number.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::model::ObjectId;

/// Refs kept. Where there are more, all are forgotten.
const KEPT: usize = 1 << 16;
/// A change this recent may be followed by one that bears the same time.
const GRAIN: Duration = Duration::from_millis(50);
/// The same where the file system counts in seconds.
const COARSE: Duration = Duration::from_secs(3);

/// What tells one state of a file from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// The one time that nobody can set.
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Tells whether every later change will bear another time.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let grain = if nanoseconds == 0 { COARSE } else { GRAIN };
        let changed = Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanoseconds).unwrap_or(0),
        );
        let age = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .and_then(|now| now.checked_sub(changed));
        age.is_some_and(|age| age > grain)
    }
}

/// Refs by name.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Vec<u8>, (Stamp, ObjectId)>>);

impl Known {
    /// Returns what a ref holds whose file looks like this.
    pub fn get(&self, name: &[u8], stamp: Stamp) -> Option<ObjectId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, id) = known.get(name)?;
        (*read == stamp).then_some(*id)
    }

    /// Keeps what was read from a file that looked like this before.
    pub fn keep(&self, name: &[u8], stamp: Stamp, id: ObjectId) {
        if !stamp.is_settled(SystemTime::now()) {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT && !known.contains_key(name) {
            known.clear();
        }
        known.insert(name.to_vec(), (stamp, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(changed: SystemTime, inode: u64) -> Stamp {
        let since = changed.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.expect("it is later");
        Stamp {
            device: 1,
            inode,
            size: 41,
            changed: (since.as_secs() as i64, i64::from(since.subsec_nanos())),
        }
    }

    #[test]
    fn another_file_is_another_value() {
        let known = Known::default();
        let id = ObjectId::from_bytes(&[1; 20]).expect("20 bytes");
        let old = SystemTime::now() - Duration::from_secs(60);
        known.keep(b"refs/heads/a", stamp(old, 7), id);
        assert_eq!(known.get(b"refs/heads/a", stamp(old, 7)), Some(id));
        assert_eq!(known.get(b"refs/heads/a", stamp(old, 8)), None);
        assert_eq!(known.get(b"refs/heads/b", stamp(old, 7)), None);
        let later = old + Duration::from_millis(4);
        assert_eq!(known.get(b"refs/heads/a", stamp(later, 7)), None);
    }

    #[test]
    fn what_may_change_unseen_is_not_kept() {
        let known = Known::default();
        let id = ObjectId::from_bytes(&[1; 20]).expect("20 bytes");
        let now = SystemTime::now();
        for changed in [now, now + Duration::from_secs(5)] {
            let stamp = stamp(changed, 7);
            known.keep(b"refs/heads/a", stamp, id);
            assert_eq!(known.get(b"refs/heads/a", stamp), None);
        }
    }
}
