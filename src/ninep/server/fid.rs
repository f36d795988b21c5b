//! The fids of a connection: what a client's numbers stand for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::Fault;
use crate::metrics::metrics;
use crate::namespace::node::{Handle, Listing, Node, Principal};
use crate::ninep::errno::*;

/// One fid.
#[derive(Clone)]
pub struct Fid {
    pub node: Arc<dyn Node>,
    /// Where it was attached: `..` leads no further.
    pub root: Arc<dyn Node>,
    pub who: Arc<Principal>,
    pub opened: Option<Opened>,
}

/// What it was opened as.
#[derive(Clone)]
pub enum Opened {
    File(Arc<dyn Handle>),
    Directory(Arc<Directory>),
    /// The list of extended attributes, of which there are none.
    Attributes,
}

/// A directory that is being read.
pub struct Directory {
    pub handle: Arc<dyn Handle>,
    /// Held for moments, never while waiting.
    place: Mutex<Place>,
}

pub struct Place {
    /// As of the open, or of the last read from the start.
    pub listing: Arc<dyn Listing>,
    /// Nothing was read of it yet.
    pub fresh: bool,
    /// Byte offsets that reads of 9P2000 ended at, ascending, and the entry
    /// each stands for.
    pub marks: Vec<(u64, usize)>,
}

impl Directory {
    pub fn new(handle: Arc<dyn Handle>, listing: Arc<dyn Listing>) -> Self {
        Self {
            handle,
            place: Mutex::new(Place {
                listing,
                fresh: true,
                marks: Vec::new(),
            }),
        }
    }

    pub fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table of them. Counted while they are there.
pub struct Fids {
    map: HashMap<u32, Fid>,
    limit: usize,
}

impl Fids {
    pub fn new(limit: usize) -> Self {
        Self {
            map: HashMap::new(),
            limit,
        }
    }

    pub fn get(&self, fid: u32) -> Result<&Fid, Fault> {
        self.map.get(&fid).ok_or_else(|| Fault::unknown_fid(fid))
    }

    pub fn get_mut(&mut self, fid: u32) -> Option<&mut Fid> {
        self.map.get_mut(&fid)
    }

    /// Tells whether a fid may be made with this number.
    pub fn vacant(&self, fid: u32) -> Result<(), Fault> {
        if fid == rs9p::NOFID || self.map.contains_key(&fid) {
            let text = format!("Fid {} already in use", fid.cast_signed());
            return Err(Fault::new(EBADF, text));
        }
        if self.map.len() >= self.limit {
            return Err(Fault::new(
                EMFILE,
                format!("more than {} fids on a connection", self.limit),
            ));
        }
        Ok(())
    }

    pub fn insert(&mut self, fid: u32, state: Fid) {
        if self.map.insert(fid, state).is_none() {
            metrics().fids.inc();
        }
    }

    pub fn remove(&mut self, fid: u32) -> Result<Fid, Fault> {
        let state = self
            .map
            .remove(&fid)
            .ok_or_else(|| Fault::unknown_fid(fid))?;
        metrics().fids.dec();
        if self.map.is_empty() {
            self.map = HashMap::new();
        }
        Ok(state)
    }
}

impl Drop for Fids {
    fn drop(&mut self) {
        metrics().fids.dec_by(self.map.len() as i64);
    }
}
