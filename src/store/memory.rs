//! A store in memory: for tests, and for what need not outlive a process.
//!
//! Same rules as every engine; nothing is durable. One lock, never held while
//! anything waits.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::request::Expect;
use crate::model::{HashKind, ObjectId};

use super::engine::{
    Bulk, Engine, Expected, HeadMove, HeadName, Heads, Object, ObjectKind, ObjectStream, Result,
    Step, bulk_failed, hash_object,
};
use super::{Error, content};

/// See the head of this file.
pub struct Memory {
    hash: HashKind,
    state: Mutex<State>,
    /// Fair: writers get their turn in the order they came.
    turn: Arc<tokio::sync::Mutex<()>>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    objects: HashMap<ObjectId, (ObjectKind, Arc<[u8]>)>,
    heads: BTreeMap<HeadName, ObjectId>,
}

impl State {
    fn keep(&mut self, object: &Object) {
        self.objects
            .entry(object.id)
            .or_insert_with(|| (object.kind, object.data.as_slice().into()));
    }
}

impl Memory {
    pub fn new(hash: HashKind) -> Self {
        Self {
            hash,
            state: Mutex::default(),
            turn: Arc::default(),
            changes: watch::channel(0).0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change below leaves the state whole even if a later one panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &ObjectId) -> Option<(ObjectKind, Arc<[u8]>)> {
        self.state().objects.get(id).cloned()
    }

    fn blob(&self, reader: &mut dyn Read, size: Option<u64>) -> Result<Object> {
        let data = match size {
            Some(size) => content::take_all(reader, size)?,
            None => content::take_up_to(reader, u64::MAX)?,
        };
        let kind = ObjectKind::Blob;
        let id = hash_object(self.hash, kind, &data)?;
        Ok(Object { id, kind, data })
    }
}

impl Engine for Memory {
    fn hash_kind(&self) -> HashKind {
        self.hash
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn find(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>> {
        buffer.clear();
        Ok(self.get(id).map(|(kind, data)| {
            buffer.extend_from_slice(&data);
            kind
        }))
    }

    fn header(&self, id: &ObjectId) -> Result<Option<(ObjectKind, u64)>> {
        Ok(self.get(id).map(|(kind, data)| (kind, data.len() as u64)))
    }

    fn open(&self, id: &ObjectId) -> Result<Option<Box<dyn ObjectStream>>> {
        Ok(self
            .get(id)
            .map(|(_, data)| Box::new(Cursor::new(data)) as Box<dyn ObjectStream>))
    }

    fn with_prefix(&self, hex: &str, limit: usize) -> Result<Vec<ObjectId>> {
        let hex = hex.to_ascii_lowercase();
        let state = self.state();
        let mut found: Vec<ObjectId> = state
            .objects
            .keys()
            .filter(|id| id.to_hex().starts_with(&hex))
            .copied()
            .collect();
        found.sort();
        found.truncate(limit);
        Ok(found)
    }

    fn write(&self, objects: &[Object]) -> Result<()> {
        let mut state = self.state();
        for object in objects {
            state.keep(object);
        }
        Ok(())
    }

    fn put(&self, reader: &mut dyn Read, size: Option<u64>) -> Result<ObjectId> {
        let object = self.blob(reader, size)?;
        self.state().keep(&object);
        Ok(object.id)
    }

    fn bulk(&self) -> Result<Box<dyn Bulk + '_>> {
        Ok(Box::new(MemoryBulk {
            memory: self,
            added: Vec::new(),
            failed: false,
        }))
    }

    fn head(&self, name: &HeadName) -> Result<Option<ObjectId>> {
        Ok(self.state().heads.get(name).copied())
    }

    fn quick_head(&self, name: &HeadName) -> Option<Option<ObjectId>> {
        Some(self.state().heads.get(name).copied())
    }

    fn heads(&self, prefix: &str) -> Result<Heads> {
        let fits =
            |(name, _): &(&HeadName, &ObjectId)| name.as_bytes().starts_with(prefix.as_bytes());
        let state = self.state();
        let heads = state.heads.iter().filter(fits);
        Ok(heads.map(|(name, id)| (name.clone(), *id)).collect())
    }

    fn move_in_steps(
        &self,
        steps: &[Step<'_>],
        fresh: &[Object],
        done: &mut dyn FnMut(&Step<'_>),
    ) -> Result<()> {
        let mut fresh = fresh;
        for step in steps {
            self.move_once(step.moves, fresh)?;
            fresh = &[];
            done(step);
        }
        Ok(())
    }

    fn turn(&self) -> Result<Box<dyn Send + '_>> {
        Ok(Box::new(self.turn.clone().blocking_lock_owned()))
    }

    fn is_checked_out(&self, _: &HeadName) -> Result<bool> {
        Ok(false)
    }

    fn changes(&self) -> Result<watch::Receiver<u64>> {
        Ok(self.changes.subscribe())
    }
}

impl Memory {
    fn move_once(&self, moves: &[HeadMove], fresh: &[Object]) -> Result<()> {
        let mut state = self.state();
        for wanted in moves {
            let actual = state.heads.get(&wanted.name).copied();
            let (right, expected) = match wanted.expected {
                Expected::Any => (true, Expect::Any),
                Expected::Missing => (actual.is_none(), Expect::Unborn),
                Expected::Id(id) => (actual == Some(id), Expect::Head(id)),
            };
            if !right {
                return Err(Error::HeadMoved {
                    name: wanted.name.shown(),
                    expected,
                    actual,
                });
            }
        }
        let mut heads = state.heads.clone();
        for wanted in moves {
            match wanted.new {
                None => heads.remove(&wanted.name),
                Some(id) => heads.insert(wanted.name.clone(), id),
            };
        }
        for wanted in moves.iter().filter(|wanted| wanted.new.is_some()) {
            if let Some(other) = heads.keys().find(|other| wanted.name.is_beside(other)) {
                let (new, old) = (wanted.name.shown(), other.shown());
                return Err(Error::Exists(format!("cannot create {new}: {old}")));
            }
        }
        for object in fresh {
            state.keep(object);
        }
        let missing = |id: &&ObjectId| !state.objects.contains_key(id);
        if let Some(id) = moves.iter().flat_map(|wanted| &wanted.new).find(missing) {
            return Err(Error::NotFound(format!("object {id}")));
        }
        state.heads = heads;
        drop(state);
        self.changes.send_modify(|number| *number += 1);
        Ok(())
    }
}

struct MemoryBulk<'a> {
    memory: &'a Memory,
    added: Vec<Object>,
    failed: bool,
}

impl Bulk for MemoryBulk<'_> {
    fn add(&mut self, kind: ObjectKind, data: &[u8]) -> Result<ObjectId> {
        let id = hash_object(self.memory.hash, kind, data)?;
        self.added.push(Object {
            id,
            kind,
            data: data.to_vec(),
        });
        Ok(id)
    }

    fn add_stream(&mut self, reader: &mut dyn Read, size: Option<u64>) -> Result<ObjectId> {
        let object = self.memory.blob(reader, size);
        self.failed |= object.is_err();
        let object = object?;
        let id = object.id;
        self.added.push(object);
        Ok(id)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if self.failed {
            return Err(bulk_failed());
        }
        self.memory.write(&self.added)
    }
}
