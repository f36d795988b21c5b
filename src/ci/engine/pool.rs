//! Slots that builds take while they run: a named pool's, and one of all.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ci::{Pool, Status, Use};

/// The pools of an engine. Whoever came first is served first.
pub(super) struct Pools {
    slots: BTreeMap<String, Arc<Semaphore>>,
    status: Arc<Status>,
}

/// A slot; dropping it gives it back.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    _entry: Entry,
}

/// A line of the report, while it stands there.
struct Entry {
    status: Arc<Status>,
    pool: String,
    user: Use,
}

impl Pools {
    /// `jobs` is how many builds run at a time, whatever else they need.
    pub(super) fn new(named: &BTreeMap<String, usize>, jobs: usize, status: Arc<Status>) -> Self {
        let all = named.iter().map(|(name, size)| (name.clone(), *size));
        let all: BTreeMap<String, usize> = all.chain([(String::new(), jobs)]).collect();
        let slots = all.iter().map(|(name, size)| {
            let size = (*size).clamp(1, Semaphore::MAX_PERMITS);
            (name.clone(), Arc::new(Semaphore::new(size)))
        });
        let slots = slots.collect();
        status.update(|report| {
            let pools = all.iter().map(|(name, capacity)| Pool {
                name: name.clone(),
                capacity: *capacity,
                ..Pool::default()
            });
            report.pools = pools.collect();
        });
        Self { slots, status }
    }

    /// Waits for a slot. `waits` is told before, where there is none.
    pub(super) async fn enter(&self, pool: &str, user: &Use, waits: impl Fn(&str)) -> Option<Slot> {
        // The configuration refuses names of no pool.
        let slots = self.slots.get(pool)?.clone();
        let mut entry = Entry {
            status: self.status.clone(),
            pool: pool.to_owned(),
            user: user.clone(),
        };
        let permit = match slots.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                entry.change(|pool, user| pool.waiting.push(user.clone()));
                waits(&match pool {
                    "" => "Waiting for other builds".to_owned(),
                    pool => format!("Waiting for resource in \"{pool}\""),
                });
                slots.acquire_owned().await.ok()?
            }
        };
        entry.change(|pool, user| {
            pool.waiting.retain(|other| other.branch != user.branch);
            pool.running.push(user.clone());
        });
        Some(Slot {
            _permit: permit,
            _entry: entry,
        })
    }
}

impl Entry {
    fn change(&mut self, change: impl FnOnce(&mut Pool, &Use)) {
        let (name, user) = (&self.pool, &self.user);
        self.status.update(|report| {
            if let Some(pool) = report.pools.iter_mut().find(|pool| pool.name == *name) {
                change(pool, user);
            }
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.change(|pool, user| {
            pool.waiting.retain(|other| other.branch != user.branch);
            pool.running.retain(|other| other.branch != user.branch);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BranchName, Time};

    #[tokio::test]
    async fn a_slot_that_is_given_back_goes_to_the_next() {
        let status = Arc::new(Status::default());
        let named = BTreeMap::from([("heavy".to_owned(), 1)]);
        let pools = Pools::new(&named, 4, status.clone());
        let user = |branch: &str| Use {
            target: "u/r/heads/x".parse().expect("legal"),
            cell: "c".into(),
            branch: BranchName::new(branch).expect("legal"),
            since: Time::now(),
        };
        let first = pools.enter("heavy", &user("a"), |_| panic!("free")).await;
        let told = std::sync::Mutex::new(String::new());
        let second = user("b");
        let mut second = Box::pin(pools.enter("heavy", &second, |why| {
            *told.lock().expect("no panic") = why.into();
        }));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(
            *told.lock().expect("no panic"),
            "Waiting for resource in \"heavy\""
        );
        let shown = || {
            let report = status.report();
            let heavy = report.pools.iter().find(|pool| pool.name == "heavy");
            let heavy = heavy.expect("configured");
            (heavy.running.len(), heavy.waiting.len())
        };
        assert_eq!(shown(), (1, 1));
        drop(first);
        let second = second.await.expect("a slot");
        assert_eq!(shown(), (1, 0));
        drop(second);
        assert_eq!(shown(), (0, 0));
    }
}
