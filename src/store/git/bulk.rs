//! Writes many objects at once, as one pack.
//!
//! - The caller's thread hashes, others compress; between them is a queue of
//!   [`QUEUE`] objects, and where it is full the caller compresses too.
//! - Until [`Bulk::finish`] nothing is visible; dropped before, nothing is left.
//! - Few small objects make loose files: a pack for each commit would soon be
//!   too many.

use std::collections::HashSet;
use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::model::ObjectId;
use crate::store::engine::{Bulk, Object, ObjectKind, bulk_failed, hash_object};
use crate::store::{Error, Result};

use super::loose::{Loose, Received, deflate, fast};
use super::objects::Objects;
use super::pack::{Pack, entry_header};

/// As many objects, or as many bytes, make a pack worth while.
const PACK_FROM_COUNT: usize = 100;
const PACK_FROM_BYTES: usize = 4 << 20;
const QUEUE: usize = 32;
/// Larger objects do not go through the queue, for the memory's sake.
const QUEUED_MAX: usize = 4 << 20;

pub(super) struct GitBulk<'a> {
    objects: &'a Objects,
    loose: &'a Loose,
    /// Everything added, so that nothing is written twice.
    seen: HashSet<ObjectId>,
    /// Objects that wait to see whether there will be a pack.
    few: Vec<Object>,
    few_bytes: usize,
    packing: Option<Packing>,
    /// Something was not added: what is there is not what was meant.
    failed: bool,
}

/// A pack and the threads that fill it.
struct Packing {
    dir: PathBuf,
    shared: Arc<Shared>,
    queue: Option<SyncSender<Object>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// The pack, or what went wrong with it.
    pack: Mutex<Result<Pack>>,
}

impl<'a> GitBulk<'a> {
    pub fn new(objects: &'a Objects, loose: &'a Loose) -> Self {
        Self {
            objects,
            loose,
            seen: HashSet::new(),
            few: Vec::new(),
            few_bytes: 0,
            packing: None,
            failed: false,
        }
    }

    /// Adds an object whose id is known.
    pub fn add_object(&mut self, object: Object) -> Result<()> {
        if !self.is_new(&object.id) {
            return Ok(());
        }
        if let Some(packing) = &self.packing {
            return packing.add(object);
        }
        self.few_bytes += object.data.len();
        self.few.push(object);
        if self.few.len() >= PACK_FROM_COUNT || self.few_bytes >= PACK_FROM_BYTES {
            self.packing()?;
        }
        Ok(())
    }

    fn is_new(&mut self, id: &ObjectId) -> bool {
        self.seen.insert(*id) && !self.objects.keep_alive(id)
    }

    /// Begins a pack, unless there is one, with what has waited for it.
    fn packing(&mut self) -> Result<&Packing> {
        let packing = match self.packing.take() {
            Some(packing) => packing,
            None => {
                let packing = Packing::new(self.loose)?;
                for object in self.few.drain(..) {
                    packing.add(object)?;
                }
                packing
            }
        };
        Ok(self.packing.insert(packing))
    }

    fn add_large(&mut self, reader: &mut dyn Read, size: u64) -> Result<ObjectId> {
        self.packing()?;
        let Self {
            objects,
            seen,
            packing: Some(packing),
            ..
        } = self
        else {
            unreachable!("a pack was just begun");
        };
        let mut pack = packing.shared.lock();
        match pack.as_mut() {
            Ok(pack) => pack.append_stream(reader, size, |id| {
                !seen.insert(*id) || objects.keep_alive(id)
            }),
            Err(_) => Err(take_failure(&mut pack)),
        }
    }

    fn add_blob(&mut self, reader: &mut dyn Read, size: Option<u64>) -> Result<ObjectId> {
        if let Some(size) = size.filter(|size| *size > QUEUED_MAX as u64) {
            return self.add_large(reader, size);
        }
        match self.loose.take_small(reader, size)? {
            Received::Small(object) => {
                let id = object.id;
                self.add_object(object)?;
                Ok(id)
            }
            Received::Spooled(file, size) => self.add_large(&mut file.as_file(), size),
        }
    }
}

impl Bulk for GitBulk<'_> {
    fn add(&mut self, kind: ObjectKind, data: &[u8]) -> Result<ObjectId> {
        let id = hash_object(self.loose.hash, kind, data)?;
        if !self.seen.contains(&id) {
            let data = data.to_vec();
            let added = self.add_object(Object { id, kind, data });
            self.failed |= added.is_err();
            added?;
        }
        Ok(id)
    }

    fn add_stream(&mut self, reader: &mut dyn Read, size: Option<u64>) -> Result<ObjectId> {
        let added = self.add_blob(reader, size);
        self.failed |= added.is_err();
        added
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.failed {
            return Err(bulk_failed());
        }
        match self.packing.take() {
            None => self.loose.write(&self.few),
            Some(packing) => {
                packing.finish()?;
                self.objects.expect_change()
            }
        }
    }
}

impl Packing {
    fn new(loose: &Loose) -> Result<Self> {
        let dir = loose.pack_dir()?;
        let shared = Arc::new(Shared {
            pack: Mutex::new(Ok(Pack::new(&dir, loose.hash, loose.keeping.clone())?)),
        });
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let workers = thread::available_parallelism().map_or(1, |count| count.get().min(8));
        let workers = (0..workers)
            .map(|_| {
                let (jobs, shared) = (jobs.clone(), shared.clone());
                thread::spawn(move || work(&jobs, &shared))
            })
            .collect();
        Ok(Self {
            dir,
            shared,
            queue: Some(queue),
            workers,
        })
    }

    fn add(&self, object: Object) -> Result<()> {
        let unsent = match &self.queue {
            Some(queue) if object.data.len() <= QUEUED_MAX => queue.try_send(object).err(),
            _ => Some(TrySendError::Full(object)),
        };
        if let Some(TrySendError::Full(object) | TrySendError::Disconnected(object)) = unsent {
            self.shared.compress(&object, &mut Vec::new());
        }
        // While a worker holds it, it is too early to know.
        match self.shared.pack.try_lock() {
            Ok(mut pack) if pack.is_err() => Err(take_failure(&mut pack)),
            _ => Ok(()),
        }
    }

    /// Waits for what is under way and completes the pack.
    fn finish(mut self) -> Result<()> {
        self.stop();
        let mut pack = self.shared.lock();
        let pack = std::mem::replace(&mut *pack, Err(bulk_failed()));
        pack?.finish(&self.dir)
    }

    fn stop(&mut self) {
        self.queue = None;
        for worker in self.workers.drain(..) {
            // A panic was told by the thread itself; the pack stays unfinished.
            if worker.join().is_err() {
                *self.shared.lock() = Err(bulk_failed());
            }
        }
    }
}

impl Drop for Packing {
    fn drop(&mut self) {
        self.stop();
    }
}

fn take_failure(pack: &mut Result<Pack>) -> Error {
    match std::mem::replace(pack, Err(bulk_failed())) {
        Err(error) => error,
        Ok(_) => bulk_failed(),
    }
}

fn work(jobs: &Mutex<Receiver<Object>>, shared: &Shared) {
    let mut buffer = Vec::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(object) => shared.compress(&object, &mut buffer),
            Err(_) => return,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Result<Pack>> {
        self.pack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an object to the pack; a failure takes the pack's place.
    fn compress(&self, object: &Object, buffer: &mut Vec<u8>) {
        let mut header = Vec::with_capacity(10);
        entry_header(object.kind, object.data.len() as u64, &mut header);
        deflate(fast(), &[&object.data], buffer);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header);
        crc.update(buffer);
        let crc = crc.finalize();
        let mut pack = self.lock();
        if let Ok(open) = pack.as_mut()
            && let Err(error) = open.append(object.id, &[&header, buffer], crc)
        {
            *pack = Err(error);
        }
    }
}
