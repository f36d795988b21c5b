//! Commits kept for readers of a branch that has left them.
//!
//! A reader of every commit may be behind when its branch is reset or deleted.
//! What it read last is then reached from nowhere, and a collection by anybody
//! would take it. So a ref `refs/dk/since/ID` leads there until all such
//! readers have gone on. What a killed process left goes with a collection of
//! dk's a week later.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::{Identity, ObjectId, Signature, Time};

use super::engine::{Engine, Expected, HeadMove, HeadName, MoveNote, ObjectKind};
use super::objects::Fresh;
use super::transaction::{KEPT, random_id};
use super::{Result, Store, history};

const PREFIX: &str = "refs/dk/since/";

/// What is kept for one reader.
pub(super) struct Pins {
    kept: Mutex<Vec<Arc<Pin>>>,
    bell: Arc<Notify>,
}

/// A commit that is kept for as long as this lives.
struct Pin {
    engine: Arc<dyn Engine>,
    name: HeadName,
    at: ObjectId,
    who: Signature,
}

impl Pins {
    pub fn new(bell: Arc<Notify>) -> Arc<Self> {
        let kept = Mutex::default();
        Arc::new(Self { kept, bell })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Arc<Pin>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the reader is where the branch is.
    pub fn let_go(&self) {
        let kept = std::mem::take(&mut *self.kept());
        // Behind the lock: it writes.
        drop(kept);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let moves = [HeadMove {
            name: self.name.clone(),
            expected: Expected::Id(self.at),
            new: None,
        }];
        // What stays goes with a later collection.
        let _ = self.engine.move_heads(&moves, &note(&self.who), &[]);
    }
}

fn note(who: &Signature) -> MoveNote {
    MoveNote {
        who: who.clone(),
        message: "dk: since".into(),
    }
}

impl Store {
    /// Keeps the head that a branch had for those who may still be there or
    /// before it, unless the branch leads there. Who cannot be kept for is told
    /// less of what changed.
    pub(super) fn keep_for(&self, readers: &[Arc<Pins>], old: &ObjectId, new: Option<&ObjectId>) {
        let reached = |new| history::is_ancestor(&self.objects, old, new).unwrap_or(false);
        if readers.is_empty() || new.is_some_and(reached) {
            return;
        }
        let Ok(pin) = self.pin(old) else { return };
        for reader in readers {
            reader.kept().push(pin.clone());
            // It may have gone on before it was kept for.
            reader.bell.notify_one();
        }
    }

    fn pin(&self, id: &ObjectId) -> Result<Arc<Pin>> {
        self.writable()?;
        self.repository()?;
        self.hide_transactions()?;
        let identity = Identity::default();
        let who = Signature {
            name: identity.name.into_bytes(),
            email: identity.email.into_bytes(),
            time: Time::now(),
        };
        let mut fresh = Fresh::default();
        let tree = fresh.add(self.objects.hash_kind(), ObjectKind::Tree, Vec::new())?;
        let message = b"dk keeps this for who reads every commit\n".to_vec();
        let at = self.make_commit(&mut fresh, tree, vec![*id], &who, message)?;
        let name = format!("{PREFIX}{}", random_id());
        let name = HeadName::from_full(name.as_bytes()).expect("an id is a legal name");
        let moves = [HeadMove {
            name: name.clone(),
            expected: Expected::Missing,
            new: Some(at),
        }];
        let engine = self.engine.clone();
        engine.move_heads(&moves, &note(&who), fresh.objects())?;
        Ok(Arc::new(Pin {
            engine,
            name,
            at,
            who,
        }))
    }

    /// Lets go of what was kept long ago.
    pub(super) fn drop_old_pins(&self, who: &Signature) -> Result<()> {
        for (name, at) in self.engine.heads(PREFIX)? {
            let kept = self.objects.commit(&at)?.committer.time.seconds;
            let age = who.time.seconds.saturating_sub(kept);
            if Duration::from_secs(u64::try_from(age).unwrap_or(0)) < KEPT {
                continue;
            }
            let moves = [HeadMove {
                name,
                expected: Expected::Id(at),
                new: None,
            }];
            self.engine.move_heads(&moves, &note(who), &[])?;
        }
        Ok(())
    }
}
