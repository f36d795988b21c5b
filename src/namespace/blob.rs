//! Reading blobs by position, of any length.
//!
//! Small ones come from a cache that all readers share. A large one is
//! streamed from the store by each reader, who begins anew to go back. How
//! many readers keep such a stream between two reads is bounded.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::model::ObjectId;
use crate::store::cache::cache;
use crate::store::engine::ObjectStream;
use crate::store::{self, Store, face};

use super::files::{range, slice};
use super::node::Result;

/// Content up to this length is kept whole.
const SMALL: u64 = 256 << 10;
/// Bytes of small content kept.
const CACHE: u64 = 32 << 20;
/// Streams kept between two reads.
const READERS: usize = 256;
/// Buffers kept for the next read of a large blob: new memory costs more than
/// what is copied into it.
const BUFFERS: usize = 8;

#[derive(Clone)]
struct Length;

impl Weighter<ObjectId, Bytes> for Length {
    fn weight(&self, _: &ObjectId, content: &Bytes) -> u64 {
        content.len() as u64 + 64
    }
}

/// What all readers of blobs share.
pub struct Blobs {
    store: Arc<Store>,
    cache: Cache<ObjectId, Bytes, Length>,
    readers: Arc<AtomicUsize>,
    buffers: Arc<Buffers>,
}

/// Memory that was read into before.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

/// A buffer whose beginning was read into; it goes back where it came from.
struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = kept.pop().unwrap_or_default();
        drop(kept);
        if bytes.len() < length {
            bytes.resize(length, 0);
        }
        Buffer {
            bytes,
            length,
            home: self.clone(),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// One reader's stream; nothing for a small blob.
#[derive(Default)]
pub struct Reader(Option<Kept>);

struct Kept {
    id: ObjectId,
    at: u64,
    size: u64,
    stream: Box<dyn ObjectStream>,
    counted: Counted,
}

impl Kept {
    /// Returns the stream for the next read, where there is one and room for it.
    fn on(self) -> Option<Self> {
        let many = self.counted.0.load(Ordering::Acquire) > READERS;
        (self.at < self.size && !many).then_some(self)
    }
}

/// Counts a stream for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Blobs {
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            cache: cache(4096, CACHE, 16, Length),
            readers: Arc::default(),
            buffers: Arc::default(),
        }
    }

    /// Returns how many blobs are in memory, and their bytes.
    pub fn cached(&self) -> (usize, u64) {
        (self.cache.len(), self.cache.weight())
    }

    /// Returns how many streams are kept.
    pub fn streams(&self) -> usize {
        self.readers.load(Ordering::Acquire)
    }

    /// Returns a blob's length.
    pub async fn size(&self, id: &ObjectId) -> Result<u64> {
        if let Some(content) = self.cache.get(id) {
            return Ok(content.len() as u64);
        }
        let id = *id;
        Ok(face::run(&self.store, move |store| store.objects.size(&id)).await?)
    }

    /// Reads a blob at a position. A read that is cancelled makes the next one
    /// begin anew.
    pub async fn read(
        &self,
        id: &ObjectId,
        reader: &mut Reader,
        offset: u64,
        count: u32,
    ) -> Result<Bytes> {
        if let Some(content) = self.cache.get(id) {
            return slice(&content, offset, count);
        }
        let mut kept = reader.0.take().filter(|kept| kept.id == *id);
        let mut begun = None;
        if let Some(stream) = kept.as_mut().filter(|kept| kept.at == offset) {
            let (start, end) = range(stream.size, offset, count)?;
            let mut data = self.buffers.take((end - start) as usize);
            let ready = stream.stream.read_ready(&mut data.bytes[..data.length]);
            stream.at += ready as u64;
            if ready == data.length {
                reader.0 = kept.and_then(Kept::on);
                return Ok(Bytes::from_owner(data));
            }
            begun = Some((data, ready));
        }
        let id = *id;
        let (readers, buffers) = (self.readers.clone(), self.buffers.clone());
        let work = move |store: &Arc<Store>| -> store::Result<_> {
            let size = match &kept {
                Some(kept) => kept.size,
                None => store.objects.size(&id)?,
            };
            if size <= SMALL {
                return Ok(Found::Small(store.objects.blob(&id)?.into()));
            }
            let (start, end) = match range(size, offset, count) {
                Ok(range) => range,
                Err(refused) => return Ok(Found::Refused(refused)),
            };
            let (mut data, ready) =
                begun.unwrap_or_else(|| (buffers.take((end - start) as usize), 0));
            let from = start + ready as u64;
            let mut kept = match kept.filter(|kept| kept.at <= from) {
                Some(kept) => kept,
                None => {
                    readers.fetch_add(1, Ordering::AcqRel);
                    let counted = Counted(readers);
                    let stream = store.objects.stream(&id)?;
                    Kept {
                        id,
                        at: 0,
                        size,
                        stream,
                        counted,
                    }
                }
            };
            let failed = || store::Error::io(format!("cannot read blob {id}"));
            let skipped = (&mut kept.stream).take(from - kept.at);
            std::io::copy(&mut { skipped }, &mut std::io::sink()).map_err(failed())?;
            let into = &mut data.bytes[ready..data.length];
            kept.stream.read_exact(into).map_err(failed())?;
            kept.at = end;
            Ok(Found::Part(Bytes::from_owner(data), kept.on()))
        };
        match face::run(&self.store, work).await? {
            Found::Refused(refused) => Err(refused),
            Found::Part(data, kept) => {
                reader.0 = kept;
                Ok(data)
            }
            Found::Small(content) => {
                self.cache.insert(id, content.clone());
                slice(&content, offset, count)
            }
        }
    }
}

enum Found {
    Small(Bytes),
    Part(Bytes, Option<Kept>),
    Refused(super::node::Error),
}
