//! Bytes that come in pieces and are needed as a whole later: in memory at
//! first, then in a temporary file, so that any length may come.
//!
//! No thread waits for whoever sends them.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};

use bytes::Bytes;

use crate::store;

use super::World;
use super::node::Result;

/// Bytes kept in memory.
const MEMORY: usize = 1 << 20;

/// What came so far.
#[derive(Default)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
}

fn failed() -> impl FnOnce(io::Error) -> store::Error {
    store::Error::io("cannot use a temporary file")
}

impl Spool {
    /// Adds a piece, where that may block on a thread that may.
    pub async fn take(mut self, world: &World, piece: Bytes) -> Result<Self> {
        if self.is_slow(piece.len()) {
            return world.run(move |_| self.add(&piece).map(|()| self)).await;
        }
        self.add(&piece)?;
        Ok(self)
    }

    /// Tells whether adding this much needs a thread that may block.
    fn is_slow(&self, more: usize) -> bool {
        self.file.is_some() || self.memory.len() + more > MEMORY
    }

    /// Adds a piece. May block where [`Spool::is_slow`] says so.
    fn add(&mut self, piece: &Bytes) -> store::Result<()> {
        if !self.is_slow(piece.len()) {
            self.memory.extend_from_slice(piece);
            return Ok(());
        }
        if self.file.is_none() {
            let mut file = tempfile::tempfile().map_err(failed())?;
            file.write_all(&std::mem::take(&mut self.memory))
                .map_err(failed())?;
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(piece).map_err(failed()),
            None => Ok(()),
        }
    }

    /// Looks through it from its beginning, and gives it back to be added to.
    pub fn look<T>(mut self, look: impl FnOnce(&mut dyn Read) -> T) -> store::Result<(Self, T)> {
        let found = match &mut self.file {
            None => look(&mut &self.memory[..]),
            Some(file) => {
                file.seek(SeekFrom::Start(0)).map_err(failed())?;
                let found = look(&mut io::BufReader::with_capacity(64 << 10, &mut *file));
                file.seek(SeekFrom::End(0)).map_err(failed())?;
                found
            }
        };
        Ok((self, found))
    }

    /// Reads it from its beginning.
    pub fn into_reader(self) -> store::Result<Box<dyn Read + Send>> {
        match self.file {
            None => Ok(Box::new(io::Cursor::new(self.memory))),
            Some(mut file) => {
                file.seek(SeekFrom::Start(0)).map_err(failed())?;
                Ok(Box::new(file))
            }
        }
    }
}
