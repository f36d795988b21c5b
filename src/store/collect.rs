//! Taking edits from outside: their content is stored, and they are kept as
//! [`Op`]s.
//!
//! Memory is bounded: small content stays in memory to be synced in one go
//! with the trees above it; much of it goes into a pack, a large file straight
//! to the engine. Nothing of it shows until a head moves.

use std::io::Read;

use crate::model::request::{Content, Edit, Edits, Sink, Stop};
use crate::model::{EntryKind, ObjectId, TreePath};

use super::edit::Op;
use super::engine::{Bulk, ObjectKind};
use super::objects::{Fresh, Objects};
use super::{Error, Result};

/// Content up to this length is kept in memory until it is written with the
/// trees above it, in one go.
pub const SMALL: u64 = 1 << 20;
/// Beyond so many bytes or objects in memory, content goes into a pack.
const MANY_BYTES: u64 = 8 << 20;
const MANY: usize = 128;

/// Takes edits and stores their content.
pub struct Collector<'a> {
    objects: &'a Objects,
    pub fresh: Fresh,
    bytes: u64,
    bulk: Option<Box<dyn Bulk + 'a>>,
    pub ops: Vec<Op>,
    failure: Option<Error>,
}

impl<'a> Collector<'a> {
    /// Runs a source of edits to its end. What is too much to hold in memory
    /// is durable when this returns.
    pub fn run(objects: &'a Objects, edits: Edits) -> Result<(Vec<Op>, Fresh)> {
        let mut collector = Self {
            objects,
            fresh: Fresh::default(),
            bytes: 0,
            bulk: None,
            ops: Vec::new(),
            failure: None,
        };
        match edits.give(&mut collector) {
            Ok(()) => {}
            Err(Stop::Sink) => {
                return Err(collector
                    .failure
                    .unwrap_or_else(|| Error::Invalid("an edit was refused".into())));
            }
            Err(Stop::Source(error)) => return Err(Error::Source(error)),
        }
        if let Some(failure) = collector.failure {
            return Err(failure);
        }
        if let Some(bulk) = collector.bulk {
            bulk.finish()?;
        }
        Ok((collector.ops, collector.fresh))
    }

    fn content(&mut self, path: &TreePath, content: Content<'_>) -> Result<ObjectId> {
        let named = |error: std::io::Error| Error::Io {
            what: format!("cannot read the content of {path}"),
            source: error,
        };
        match content {
            Content::Bytes(bytes) => self.small(bytes.to_vec()),
            Content::Reader { reader, size } => {
                let mut start = Vec::new();
                if size.is_none_or(|size| size <= SMALL) {
                    (&mut *reader)
                        .take(SMALL + 1)
                        .read_to_end(&mut start)
                        .map_err(named)?;
                    if start.len() as u64 <= SMALL {
                        if size.is_some_and(|size| size != start.len() as u64) {
                            return Err(changed(path));
                        }
                        return self.small(start);
                    }
                    if size.is_some() {
                        return Err(changed(path));
                    }
                }
                let mut whole = start.as_slice().chain(reader);
                match &mut self.bulk {
                    Some(bulk) => bulk.add_stream(&mut whole, size),
                    None => self.objects.engine.put(&mut whole, size),
                }
            }
        }
    }

    fn small(&mut self, data: Vec<u8>) -> Result<ObjectId> {
        if let Some(bulk) = &mut self.bulk {
            return bulk.add(ObjectKind::Blob, &data);
        }
        self.bytes += data.len() as u64;
        let id = self
            .fresh
            .add(self.objects.hash_kind(), ObjectKind::Blob, data)?;
        if self.bytes > MANY_BYTES || self.fresh.objects().len() > MANY {
            let mut bulk = self.objects.engine.bulk()?;
            for object in std::mem::take(&mut self.fresh).objects() {
                bulk.add(object.kind, &object.data)?;
            }
            self.bulk = Some(bulk);
        }
        Ok(id)
    }

    fn op(&mut self, edit: Edit<'_>) -> Result<Op> {
        Ok(match edit {
            Edit::Write {
                path,
                kind,
                content,
            } => Op::Write {
                id: self.content(&path, content)?,
                kind,
                path,
            },
            Edit::Append { path, content } => Op::Append {
                tail: self.content(&path, content)?,
                path,
            },
            Edit::Truncate { path, size } => Op::Truncate { path, size },
            Edit::Link { path, target } => {
                if target.is_empty() || target.contains(&0) {
                    return Err(Error::Invalid(format!(
                        "the target of {path} is empty or holds a NUL"
                    )));
                }
                Op::Link {
                    id: self.small(target.to_vec())?,
                    path,
                }
            }
            Edit::Mkdir { path } => Op::Mkdir(path),
            Edit::Remove { path } => Op::Remove(path),
            Edit::Rename { from, to } => Op::Rename { from, to },
            Edit::Copy { from, to } => Op::Copy { from, to },
            Edit::Chmod { path, exec } => Op::Chmod { path, exec },
            Edit::Set { path, entry } => {
                let wanted = match entry.mode.kind() {
                    EntryKind::Dir => Some(ObjectKind::Tree),
                    EntryKind::Submodule => None,
                    _ => Some(ObjectKind::Blob),
                };
                if let Some(wanted) = wanted
                    && entry.id != self.objects.empty_tree()
                    && self.objects.engine.header(&entry.id)?.map(|(kind, _)| kind) != Some(wanted)
                {
                    return Err(Error::NotFound(format!("{} {}", wanted.name(), entry.id)));
                }
                Op::Set { path, entry }
            }
        })
    }
}

fn changed(path: &TreePath) -> Error {
    Error::Invalid(format!(
        "the content of {path} changed its length while it was read"
    ))
}

impl Sink for Collector<'_> {
    fn edit(&mut self, edit: Edit<'_>) -> Result<(), Stop> {
        if self.failure.is_some() {
            return Err(Stop::Sink);
        }
        match self.op(edit) {
            Ok(op) => {
                self.ops.push(op);
                Ok(())
            }
            Err(error) => {
                self.failure = Some(error);
                Err(Stop::Sink)
            }
        }
    }
}
